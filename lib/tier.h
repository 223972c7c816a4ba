/* SPDX-License-Identifier: MIT */
/*
 * The contract of an engine: how a segment's bytes come into memory.
 *
 * An engine never decides what is right: whichever is chosen, the same bytes
 * are seen.  map() and unmap() are called with windows.lock held; prefetch() and
 * stats() without any lock.
 */
#ifndef MMNF_TIER_H
#define MMNF_TIER_H

#include "internal.h"

/* Half-open range of bytes in a segment file. */
struct mmnf_span {
	u64 start, bytes;
};

struct mmnf_tier_ops {
	/*
	 * Can it be used here?  0, or -errno without text; writes why into
	 * reason in either case.
	 */
	int (*probe)(char *reason, size_t len);

	/*
	 * Map the whole segment read-only and shared; fd stays the caller's.
	 * Sets m->base and m->device.  Where m->base is set already, the new
	 * mapping takes that place: pointers stay good.  The file has been
	 * checked to be as long as a segment.  Nothing may be read or touched.
	 */
	int (*map)(struct mmnf_field *field, int fd, struct mmnf_mapping *m);

	/* Undo map(); never fails.  Counters of the mapping are kept. */
	void (*unmap)(struct mmnf_field *field, struct mmnf_mapping *m);

	/*
	 * Start reading and do not wait.  Ranges are page-aligned at their
	 * start and inside the segment.  Errors are dropped: whoever
	 * needs the data will meet them.
	 */
	void (*prefetch)(struct mmnf_field *field, struct mmnf_segment *s,
			 const struct mmnf_span *ranges, u32 nr);

	/* Fill the counters of prediction. */
	void (*stats)(struct mmnf_field *field, struct mmnf_field_stats *stats);
};

extern const struct mmnf_tier_ops mmnf_tier_device, mmnf_tier_mmap;

#endif
