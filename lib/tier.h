/* SPDX-License-Identifier: MIT */
/*
 * The contract of an engine: how a segment's bytes come into memory.
 *
 * An engine never decides what is right: whichever is chosen, the same bytes
 * are seen.  Every engine copies; some can map as well:
 *
 *	            copies by                       pointers   L2
 *	device      reads through the page cache    /dev/mmnf  no: the page cache
 *	mmap        reads through the page cache    mmap       no: the page cache
 *	direct      O_DIRECT                        mmap       cache.c
 *	net         network                         none       cache.c
 *
 * Copying goes through a queue.  Its user is one thread at a time:
 *
 *	     submit()                 reap()
 *	reads -------> at most depth -------> the same reads, in any order
 *
 * A read belongs to the queue from submit() until reap() gives it back, and so
 * does the memory it names.  Nothing else is handed over: an engine allocates
 * no data buffers and keeps no bytes.
 *
 * Locks: map() and unmap() are called with windows.lock held, all else without
 * any.  The text of mmnf_last_error() is set by map() and queue_open(); a read
 * only has a number, and whoever hands it to the user finds the words.
 */
#ifndef MMNF_TIER_H
#define MMNF_TIER_H

#include <sys/uio.h>

#include "cache.h"
#include "net.h"

/* Half-open range of bytes in a segment file. */
struct mmnf_span {
	u64 start, bytes;
};

#define MMNF_READ_TILES_MAX 33 /* 128 KiB from anywhere */
#define MMNF_READ_BYTES_MAX (MMNF_READ_TILES_MAX * 4096ULL)

/**
 * struct mmnf_read - one read of a queue
 * @segment: of the field
 * @offset: in the segment's file, a multiple of align_bytes
 * @bytes: 1 .. MMNF_READ_BYTES_MAX, a multiple of align_bytes, or up to the end
 *	of the file: there the rest of the memory is left as it is
 * @iov: @nr_iov places of @bytes in all; start and length of each a multiple
 *	of align_bytes.  Only the engine changes it, from submit() to reap()
 * @result: @bytes (less only at the end of the file), -ENOENT if the segment is
 *	absent and reads as fill, or -errno.  -EIO where a file was cut short
 * @ahead: nobody waits for it: let those go first that somebody waits for
 * @owner: for the submitter
 * @next, @done, @expected, @tries: for the engine
 */
struct mmnf_read {
	u64 segment, offset, bytes;
	struct iovec *iov;
	u32 nr_iov;
	bool ahead;
	s64 result;
	void *owner;
	struct mmnf_read *next;
	u64 done, expected;
	u32 tries;
};

/**
 * struct mmnf_alone - a read of one tile without a queue
 * @pin: of its slot
 * @past: it has none: the read goes past L2, into @scratch
 * @data: the first byte of the run, in the slot or in @scratch
 */
struct mmnf_alone {
	struct mmnf_pin pin;
	bool past;
	char *data;
	struct iovec iov;
	struct mmnf_net_io io;
	char scratch[4096];
};

/* Head of every queue.  @in_flight is kept by the engine, read by the user. */
struct mmnf_queue {
	const struct mmnf_tier_ops *ops;
	struct mmnf_field *field;
	u32 depth, in_flight;
};

struct mmnf_tier_ops {
	const char *name;

	/*
	 * Offsets, lengths and memory of a read are multiples of this, a power
	 * of two of at most 4096.  1: any.
	 */
	u32 align_bytes;

	/*
	 * 1: reads go through L2 (cache.c), because nothing below keeps them.
	 * Prefetch is then the cache's business and prefetch() is NULL.
	 */
	bool cached;

	/*
	 * Can it be used here?  0, or -errno without text; writes why into
	 * reason in either case.
	 */
	int (*probe)(const struct mmnf_field *field, char *reason, size_t len);

	/*
	 * Map the whole segment read-only and shared; fd stays the caller's.
	 * Sets m->base and m->device.  Where m->base is set already, the new
	 * mapping takes that place: pointers stay good.  The file has been
	 * checked to be as long as a segment.  Nothing may be read or touched.
	 * NULL: no pointers; mmnf_activate() says so.
	 */
	int (*map)(struct mmnf_field *field, int fd, struct mmnf_mapping *m);

	/* Undo map(); never fails.  Counters of the mapping are kept. */
	void (*unmap)(struct mmnf_field *field, struct mmnf_mapping *m);

	/*
	 * Start reading into the page cache and do not wait.  Ranges are
	 * page-aligned at their start and inside the segment.  Errors are
	 * dropped: whoever needs the data will meet them.
	 */
	void (*prefetch)(struct mmnf_field *field, struct mmnf_segment *s,
			 const struct mmnf_span *ranges, u32 nr);

	/*
	 * Adds where page-aligned ranges of a segment are to the bytes in out,
	 * by whole pages; true if it is known.  NULL: as mincore() tells.
	 */
	bool (*residency)(struct mmnf_field *field, struct mmnf_segment *s,
			  const struct mmnf_span *ranges, u32 nr,
			  struct mmnf_residency *out);

	/* Fill the counters of prediction; NULL: there are none. */
	void (*stats)(struct mmnf_field *field, struct mmnf_field_stats *stats);

	/*
	 * A queue for up to depth reads at once (1 .. MMNF_QUEUE_DEPTH_MAX).
	 * eventfd, where not -1, is written whenever a read has become ready
	 * for reap(), or more often.
	 */
	int (*queue_open)(struct mmnf_field *field, u32 depth, int eventfd,
			  struct mmnf_queue **out);

	/* Cancels what is in flight and waits: then no memory is written. */
	void (*queue_close)(struct mmnf_queue *q);

	/*
	 * Starts reads in their order and tells how many were taken: fewer
	 * when the queue is full.  Never waits for data.  Without an eventfd
	 * they may start as late as the next reap().
	 */
	u32 (*submit)(struct mmnf_queue *q, struct mmnf_read *const *reads,
		      u32 nr);

	/*
	 * Gives back up to max reads that are done.  Waits for the first
	 * unless timeout_ns is 0 or nothing is in flight; -1: for ever.
	 * An engine that cannot read in the background reads here.
	 */
	u32 (*reap)(struct mmnf_queue *q, struct mmnf_read **done, u32 max,
		    s64 timeout_ns);

	/*
	 * Nobody wants the reads in flight any more: those that can end do, with
	 * -ECANCELED.  NULL: they end by themselves.
	 */
	void (*cancel)(struct mmnf_queue *q);

	/*
	 * Of queues without an eventfd: waits in any thread until reap() may
	 * have something, or wake() is called.  Both NULL: such waiting is for
	 * the user of the queue alone, in reap().
	 */
	void (*wait)(struct mmnf_queue *q, s64 timeout_ns);
	void (*wake)(struct mmnf_queue *q);

	/*
	 * One run that is not in L2, read into it, or past it, and copied by the
	 * calling thread: for one that is cheaper than a queue.  begin() does not
	 * wait; false: it is for a queue.  end() does; 1 or -errno with text.
	 * NULL: all are.
	 */
	bool (*begin)(struct mmnf_field *field, const struct mmnf_run *run,
		      struct mmnf_alone *alone);
	int (*end)(struct mmnf_field *field, const struct mmnf_run *run,
		   struct mmnf_alone *alone, char *dst);

	/*
	 * Sets the text for a read that failed; returns -err.  NULL: there is
	 * no more to say than the number does.
	 */
	int (*explain)(struct mmnf_field *field, u64 segment, u64 offset,
		       u64 bytes, int err);
};

#define MMNF_QUEUE_DEPTH 64
#define MMNF_DIRECT_ALIGN 4096
#define MMNF_QUEUE_DEPTH_MAX 1024

extern const struct mmnf_tier_ops mmnf_tier_device, mmnf_tier_mmap,
	mmnf_tier_direct, mmnf_tier_net;

/* ---- tier.c */

/* Chooses field->ops and opens what it needs; close() takes what there is. */
int mmnf_tier_open(struct mmnf_field *field, const struct mmnf_open_opts *opts);
void mmnf_tier_close(struct mmnf_field *field);

/* ---- engine-net.c */

/* Connects; what of the options is the net's is checked. */
int mmnf_engine_net_open(struct mmnf_field *field,
			 const struct mmnf_open_opts *opts);
void mmnf_engine_net_close(struct mmnf_field *field);
/* Have the servers room for a field of that geometry?  0, or -ENOSPC with text. */
int mmnf_engine_net_fits(const struct mmnf_field *field,
			 const struct mmnf_geometry *g);
/* Before: whoever waits for a read gets an error now.  Nothing if not open. */
void mmnf_engine_net_shut(struct mmnf_field *field);

/* Durable after mmnf_engine_net_sync() alone. */
int mmnf_engine_net_write(struct mmnf_field *field, u64 segment, u64 offset,
			  const void *from, u64 bytes);
int mmnf_engine_net_sync(struct mmnf_field *field);

/* What is known of these bytes without having them: forgotten. */
void mmnf_engine_net_forget(struct mmnf_field *field, u64 segment, u64 offset,
			    u64 bytes);

/* A line of mmnf_tiers_info(). */
void mmnf_engine_net_describe(struct mmnf_field *field, struct mmnf_tier *tier);
void mmnf_engine_net_describe_ssd(struct mmnf_field *field,
				  struct mmnf_tier *tier);

/* ---- ahead.c: prefetch of engines with L2 */

/* Never waits; false: dropped. */
bool mmnf_ahead_add(struct mmnf_field *field, u64 segment, u64 offset,
		    u64 bytes);
/* A byte per page from start, a multiple of a page: 1 if it was added and may come. */
void mmnf_ahead_look(struct mmnf_field *field, u64 segment, u64 start,
		     u64 bytes, unsigned char *coming);
/* The same as a bit per tile of L2, of which there are at most 64. */
u64 mmnf_ahead_tiles(struct mmnf_field *field, u64 segment, u64 start,
		     u64 bytes);
void mmnf_ahead_close(struct mmnf_field *field);

/* ---- engine-mmap.c: for every engine whose segments are files here */

int mmnf_mmap_map(struct mmnf_field *field, int fd, struct mmnf_mapping *m);
void mmnf_mmap_unmap(struct mmnf_field *field, struct mmnf_mapping *m);
void mmnf_mmap_stats(struct mmnf_field *field, struct mmnf_field_stats *out);

/* ---- queue-file.c: the queue of engines whose segments are files here */

/*
 * By io_uring, or by pread where the kernel refuses io_uring; with O_DIRECT
 * where ops->align_bytes is more than 1.
 */
int mmnf_queue_file_open(struct mmnf_field *field, u32 depth, int eventfd,
			 struct mmnf_queue **out);
void mmnf_queue_file_close(struct mmnf_queue *q);
u32 mmnf_queue_file_submit(struct mmnf_queue *q, struct mmnf_read *const *reads,
			   u32 nr);
u32 mmnf_queue_file_reap(struct mmnf_queue *q, struct mmnf_read **done, u32 max,
			 s64 timeout_ns);

/* 0, or -errno of io_uring_setup() here; no text. */
int mmnf_queue_file_probe(void);

#endif
