/* SPDX-License-Identifier: MIT */
/*
 * The open segment files of a field: see segment.c.  Part of internal.h.
 */
#ifndef MMNF_SEGMENT_H
#define MMNF_SEGMENT_H

#include <pthread.h>

#include "geometry.h"

struct mmnf_shard;

#define MMNF_NO_FILE (-4096) /* no errno: the segment is there, no file is */

/* What fdatasync() has said of a file.  @lost: that data is, and why, for good */
struct mmnf_settled {
	pthread_mutex_t lock;
	int lost;
};

/**
 * struct mmnf_segment - an open segment file
 * @id: differs from every other open of the field, so from that of a file that
 *	has taken the place of this one
 * @file_bytes: length when it was opened
 * @refs: users that are counted; 0, and no pins: may be closed
 * @place: in mmnf_segments, where it is @cached
 * @dirty: written since the last sync of it began; atomic
 * @created: the folders that name it may not be durable
 * @direct_fd: see mmnf_segment_direct(); -1 until then
 * @left, @next, @closing: where nobody finds it any more
 * @look: where resident.c has it in memory; NULL: not yet, MAP_FAILED: it can't
 * @mapped: what mapped.c knows of its pages; NULL: nothing
 * @readahead: what readahead.c knows of it; NULL: nothing
 * @shard: of its index; NULL: it has none
 */
struct mmnf_segment {
	u64 id, number, stamp, file_bytes, left;
	u32 refs, place;
	int fd, direct_fd;
	bool cached, dirty, created, closing;
	struct mmnf_settled settled;
	struct mmnf_segment *next;
	char *look;
	struct mmnf_seen_pages *mapped;
	struct mmnf_readahead *readahead;
	struct mmnf_shard *shard;
};

#define MMNF_SEGMENTS_OPEN 64

struct boards;

/* A thread is opening or making the file of a number. */
struct mmnf_opening {
	u64 number;
	struct mmnf_opening *next;
};

/**
 * struct mmnf_segments - the open files of a field
 * @clock: files that were opened; @stamp of a segment is from here
 * @lost_error: something could not be made durable, and is not tried again: each
 *	sync must say so; atomic
 * @checks_settled: of the file of checksums
 * @nr_zeroing, @zeroed: checksums that are being taken away, and were; atomic
 * @gone: of @zeroed: durably so
 * @opening, @leaving: files that threads are at without the lock
 * @lost: closed with tiles that could not be named; only @number and @next hold
 * @nr_left: have ever left; @left of a segment is from here
 * @nr_unclosed: of @leaving: no thread is at them yet
 * @pid: of the process whose threads those are
 * @owner: process that opened the field; others name no tiles
 * @turned: one of @opening or @leaving is done
 * @syncing: held, outside of @lock, by a sync
 * @tag: number + 1 of the segment in each place; 0: it is not to be found there
 * @boards: pins of the places
 */
struct mmnf_segments {
	struct boards *boards;
	u64 clock;
	u64 tag[MMNF_SEGMENTS_OPEN];
	struct mmnf_segment *open[MMNF_SEGMENTS_OPEN];
	u64 nr_opened, nr_left, zeroed, gone;
	u32 nr_unclosed, nr_zeroing;
	int lost_error;
	pid_t pid, owner;
	struct mmnf_settled checks_settled;
	struct mmnf_opening *opening;
	struct mmnf_segment *leaving, *lost;
	pthread_mutex_t lock, syncing;
	pthread_cond_t turned;
};

/* @place: on a board; NO_PLACE: counted in @s.  @i: in open[] */
struct mmnf_segment_pin {
	struct mmnf_segment *s;
	u32 i, place;
};

struct mmnf_field;

int mmnf_segments_init(struct mmnf_field *field); /* or -ENOMEM, no text */

/*
 * Opens a segment file, or makes it.  -ENOENT, without text, if it is absent
 * and create is false.
 */
int mmnf_segment_get(struct mmnf_field *field, u64 number, bool create,
		     struct mmnf_segment **out);
void mmnf_segment_put(struct mmnf_field *field, struct mmnf_segment *s);

/*
 * The same without the lock where the file is open, and never makes one.  For a
 * while: a thread has room for a few pins.
 */
int mmnf_segment_pin(struct mmnf_field *field, u64 number,
		     struct mmnf_segment_pin *pin);
void mmnf_segment_unpin(struct mmnf_field *field,
			const struct mmnf_segment_pin *pin);
int mmnf_segment_sync(struct mmnf_field *field);

/* ---- segment-file.c */

/*
 * Opens the file of a segment, or makes it: a descriptor; MMNF_NO_FILE: there is the
 * segment, but no file; -ENOENT, without text, if it is absent and create is false.
 */
int mmnf_segment_file_open(struct mmnf_field *field, u64 number, bool create,
			   u64 *bytes, bool *created);

/*
 * fdatasync() of it, or of the file of checksums.  When it has said that data is lost
 * it says so ever after.  -errno without text, as the rest here.
 */
int mmnf_segment_settle(struct mmnf_field *field, struct mmnf_segment *s);
int mmnf_segment_settle_checks(struct mmnf_field *field);

/* No more than fdatasync(), which no signal interrupts: 0 or -errno. */
int mmnf_segment_sync_data(int fd);

/* All that was written in it, and its name.  By one thread at a time. */
int mmnf_segment_durable(struct mmnf_field *field, struct mmnf_segment *s);

/* Makes durable that its file has its name. */
int mmnf_segment_sync_name(struct mmnf_field *field, u64 number);

/* Something is not durable and never will be. */
void mmnf_segment_lost(struct mmnf_field *field, int err);

/* ---- segment.c */

/* Its file was written: said behind each write, for a sync may come in between. */
static inline void mmnf_segment_written(struct mmnf_segment *s)
{
	__atomic_store_n(&s->dirty, true, __ATOMIC_RELEASE);
}

/*
 * From a nominal offset (mmnf_geometry.indexed) to the one in the file.
 * Returns 0; 1: the tile is absent and run is left as it is; or -errno.
 */
int mmnf_segment_place(struct mmnf_field *field, struct mmnf_segment *s,
		       struct mmnf_run *run);

/* Reads all of it from the page cache if that can be done without waiting. */
bool mmnf_segment_resident(const struct mmnf_segment *s, char *dst, u64 bytes,
			   u64 offset);

/* It is not the file of its number any more: the next get opens that. */
void mmnf_segment_forget(struct mmnf_field *field, struct mmnf_segment *s);

/* What a segment is called in messages; name has MMNF_KEY_MAX bytes. */
void mmnf_segment_name(const struct mmnf_field *field, u64 number, char *name);

/*
 * The file opened with O_DIRECT, or, where that is refused, without.  Open as
 * long as the segment is.
 */
int mmnf_segment_direct(struct mmnf_field *field, struct mmnf_segment *s);
void mmnf_segment_close_all(struct mmnf_field *field);

#endif
