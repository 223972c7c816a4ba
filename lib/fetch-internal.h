/* SPDX-License-Identifier: MIT */
/* What fetch.c, fetch-op.c and fetch-job.c share; see fetch.c. */
#ifndef MMNF_FETCH_INTERNAL_H
#define MMNF_FETCH_INTERNAL_H

#include "fetch.h"

#define MMNF_ROUND_RUNS 8192 /* most runs of a round; see fetch-job.c */

/*
 * Of a tile in an op: pinned and ready; pinned and to be read; to be read into
 * scratch, then there; another is reading it; another op of this fetch is; not
 * wanted any more.
 */
enum tile_state {
	TILE_PINNED,
	TILE_FILL,
	TILE_SCRATCH,
	TILE_READY,
	TILE_BUSY,
	TILE_TWIN,
	TILE_NONE,
};

/*
 * Runs [first, first + nr) of a job: bytes at offset of a segment.  @twin: it waits
 * for tiles that other ops of its fetch are reading; @reader reads the first of them,
 * and has it among its @twins when its own reads are done.  @coming: once it @asked, a
 * bit for each tile that is on its way ahead.
 */
struct op {
	struct mmnf_fetch *fetch;
	struct mmnf_job *job; /* NULL: nobody waits for it any more */
	u32 first, nr, pending, nr_tiles;
	u64 segment, offset, bytes, coming;
	char *scratch, *to; /* to: without tiles */
	bool absent, to_dst, busy, twin, asked;
	int error;
	struct op *next, *reader, *twins;
	/* The first of them next to the above: most ops have no other. */
	struct mmnf_read read[MMNF_READ_TILES_MAX / 2 + 1];
	struct iovec iov[MMNF_READ_TILES_MAX];
	/* L2 */
	char *tile[MMNF_READ_TILES_MAX];
	struct mmnf_pin pin[MMNF_READ_TILES_MAX];
	u8 state[MMNF_READ_TILES_MAX];
};

/*
 * @nr_fills: tiles that its ops are reading for L2
 * @twins: ops of which some tiles, which other ops were reading, came
 */
struct mmnf_fetch {
	struct mmnf_field *field;
	struct mmnf_queue *queue;
	bool driven, cached;
	u32 depth, nr_todo, nr_deadlines, nr_fills;
	u32 skip, skip_next; /* see resident() in fetch-op.c */
	struct mmnf_mapped mapped; /* of the call that waits */
	pid_t pid;
	struct op *ops, *free, *parked, *twins;
	char *scratch;
	u64 scratch_bytes;
	struct mmnf_read **todo; /* to be submitted */
	struct mmnf_run *spare; /* a round's runs, for the next job */
	struct mmnf_job *jobs, **jobs_end, *done, **done_end;
};

/* Ends a job with an error, unless it has one, and the text of it. */
void mmnf_job_fail(struct mmnf_job *job, int err);

/* The next round of runs; false if there is none, or an error. */
bool mmnf_job_refill(struct mmnf_fetch *f, struct mmnf_job *job);

/* Makes an op of the job's next runs; there must be one in f->free. */
void mmnf_op_start(struct mmnf_fetch *f, struct mmnf_job *job);

/* A read of an op is done. */
void mmnf_op_read_done(struct mmnf_fetch *f, const struct mmnf_read *read);

/* Goes on with f->twins, as far as there is room. */
void mmnf_op_untwin(struct mmnf_fetch *f);

/*
 * For one op: waits for the tiles that others were filling, then reads what is
 * still missing.  Only when f has nothing under way.
 */
void mmnf_op_unpark(struct mmnf_fetch *f);

#endif
