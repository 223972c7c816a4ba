/* SPDX-License-Identifier: MIT */
/*
 * Fetching: from a request for boxes, records or runs to bytes at their place.
 * Whatever the engine, awaited or not.  Only what io.c gets without waiting, or as a
 * single piece, is not copied out this way.
 */
#ifndef MMNF_FETCH_H
#define MMNF_FETCH_H

#include "cache.h"
#include "tier.h"

#define MMNF_FETCH_RUN_BYTES (128ULL << 10) /* most bytes of a run */

struct mmnf_wanted {
	u64 index, place; /* record; its number in the destination */
};

/**
 * struct mmnf_records - of a field whose records are one piece of a file each
 * @bytes: of one; 0: they are not
 * @offset: of the first of a segment
 * @chunk: records of a segment
 * @stride: from one to the next there
 */
struct mmnf_records {
	u64 bytes, offset, chunk, stride;
};

struct mmnf_boxed {
	struct mmnf_box box; /* in normal form; may be empty */
	u64 dst;
};

/**
 * struct mmnf_job - one request: a box, or records, boxes or runs
 * @dst: destination of the packed box or records; NULL: only bring it into L2
 * @box: in normal form; with @list, of one record
 * @list, @nr_list: records to get, sorted by index; the job's to free
 * @records: where they lie, if that is so simple
 * @boxes, @nr_boxes: or boxes; the job's to free
 * @given, @nr_given: or runs, placed and in any order; the job's to free
 * @bytes: what is delivered in all
 * @ip: who gets @box, for boxes.c; NULL: nobody tells
 * @deadline_ns: CLOCK_MONOTONIC, 0: none
 * @once: what is read for @dst goes past L2; of a field that is so, all are
 * @stop: errno to end with as soon as no read touches @dst any more, or 0
 * @error: 0 or -errno, when done
 * @text: of the error, or NULL; to be freed
 * @done: no byte of @dst is written any more
 * @reads: something had to be read, even if that has come
 */
struct mmnf_job {
	char *dst;
	struct mmnf_box box;
	struct mmnf_wanted *list;
	struct mmnf_records records;
	struct mmnf_boxed *boxes;
	struct mmnf_run *given;
	u64 nr_list, nr_boxes, nr_given, bytes, user_data;
	const void *ip;
	s64 deadline_ns;
	int stop, error;
	char *text;
	bool once, done, reads;
	/* fetch.c's */
	struct mmnf_runs it;
	bool it_valid;
	u64 next_wanted, given_pos;
	struct mmnf_run *runs;
	u32 nr_runs, room, next_run, nr_ops;
	struct mmnf_job *next;
};

struct mmnf_fetch;

/*
 * A place to fetch: its jobs share a queue.  One thread at a time.
 * @driven: whoever uses it stays until its jobs are done, so others may wait
 *	for the tiles it fills, and it for theirs
 */
int mmnf_fetch_open(struct mmnf_fetch **out, struct mmnf_field *field,
		    u32 depth, int eventfd, bool driven);
void mmnf_fetch_close(struct mmnf_fetch *f);

/* Takes a job in.  It stays the fetch's until it is done. */
void mmnf_fetch_add(struct mmnf_fetch *f, struct mmnf_job *job);

/*
 * Starts what there is room for and collects what has come.  Waits for
 * something to come if timeout_ns is not 0 and anything is under way; -1: for
 * ever.  Returns jobs that became done, linked by next; NULL: none.
 */
struct mmnf_job *mmnf_fetch_drive(struct mmnf_fetch *f, s64 timeout_ns);

/* Stops the jobs with this user_data, or all; they end with -ECANCELED. */
u32 mmnf_fetch_cancel(struct mmnf_fetch *f, u64 user_data, bool all);

/* The nearest deadline of a job that is not stopped; 0: none. */
s64 mmnf_fetch_deadline(const struct mmnf_fetch *f);

/*
 * Of a fetch without an eventfd whose engine can do it: waits in any thread
 * until there may be something to drive, or mmnf_fetch_wake(), which also ends the
 * waiting of mmnf_fetch_drive().  Of other engines waking does nothing.
 */
void mmnf_fetch_wait(struct mmnf_fetch *f, s64 timeout_ns);
void mmnf_fetch_wake(struct mmnf_fetch *f);

bool mmnf_fetch_has_jobs(const struct mmnf_fetch *f);

/* Nor reads that nobody waits for. */
bool mmnf_fetch_idle(const struct mmnf_fetch *f);

/*
 * A job from beginning to end, in this thread, by a fetch of the field's pool.
 * Returns its error, with text; frees what the job owns.
 */
int mmnf_fetch_run(struct mmnf_field *field, struct mmnf_job *job);
void mmnf_fetch_pool_close(struct mmnf_field *field);

/* Opens a fetch of the pool before it is needed. */
int mmnf_fetch_pool_fill(struct mmnf_field *field);

/* A run from L2, if all of it is there. */
bool mmnf_fetch_take(struct mmnf_field *field, const struct mmnf_run *run,
		     char *dst);

void mmnf_job_free(struct mmnf_job *job); /* what it owns */

s64 mmnf_now_ns(void);

/* Where a record is, and where its copy is in dst. */
static inline struct mmnf_run mmnf_record_run(const struct mmnf_records *r,
					      u64 index, u64 place)
{
	u64 segment = 0, in = index;

	/* A division takes as long as copying a small record. */
	if (in >= r->chunk) {
		segment = in / r->chunk;
		in %= r->chunk;
	}
	return (struct mmnf_run) {
		.segment = segment,
		.offset = r->offset + in * r->stride,
		.bytes = r->bytes,
		.dst = place * r->bytes,
	};
}

/* ---- list.c */

/* Makes a job of a list of records; -ERANGE, -ENOSPC, -ENOMEM. */
int mmnf_io_list(struct mmnf_field *field, struct mmnf_job *job,
		 const u64 *index, u64 nr, u64 dst_bytes);

#endif
