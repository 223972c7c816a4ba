/* SPDX-License-Identifier: MIT */
/*
 * What a process shows of its open fields to others: `mmnf top` reads it.
 *
 * One memfd per field, named MMNF_PUBLISH_NAME, found by its link in
 * /proc/PID/fd: it is there exactly as long as the field, needs no cleaning up
 * after a crash, and is open to those who may look into the process and to
 * nobody else.  Its seals keep its size, and let nobody but the process write.
 *
 * Counters are those that the library counts in anyway: nothing is copied.  A
 * reader copies the page with pread() and believes no text or number in it.
 */
#ifndef MMNF_PUBLISH_H
#define MMNF_PUBLISH_H

#include <mmnf.h>

#include "core/nest.h"
#include "core/wait.h"

#define MMNF_PUBLISH_NAME "mmnf-field"
#define MMNF_PUBLISH_MAGIC 0x32646c6566666e6dULL
#define MMNF_PUBLISH_STREAMS 32
#define MMNF_PUBLISH_GPUS 8
#define MMNF_PUBLISH_PARTS 16

/**
 * struct mmnf_published_stream - a walk, as the predictor sees it
 * @seq: odd while it is written
 * @thread, @ip: whose; @thread 0: nothing here
 * @pos_bytes: of the last touch that was noted
 * @depth, @ahead: steps to plan, and planned, beyond it
 * @dense: direction of a walk from page to page, or 0
 * @level: of its nest, innermost first; nr U64_MAX: no known end
 */
struct mmnf_published_stream {
	uint32_t seq, nr_levels;
	uint64_t thread, ip, pos_bytes;
	uint32_t depth, ahead;
	int32_t dense, reserved;
	struct {
		int64_t stride_bytes;
		uint64_t nr;
	} level[MMNF_NR_LEVELS];
};

/**
 * struct mmnf_published_gpu - L1 on a device
 * @on: all of it but @stats' counters is written
 * @device: CUDA's number
 * @name: says what it is, a fake driver included
 * @stats: as mmnf_gpu_stats(), without @pending
 */
struct mmnf_published_gpu {
	uint32_t on, device;
	char name[64];
	struct mmnf_gpu_stats stats;
};

/* What some threads have counted, in cache lines that no others write. */
struct mmnf_published_part {
	struct mmnf_field_stats stats;
} __attribute__((aligned(128)));

/**
 * struct mmnf_published - the page
 * @bytes: sizeof(struct mmnf_published) of the process
 * @ready: all above @part is written, once
 * @page_bytes: what stats' pages are
 * @l2_bytes: size of the library's cache; 0: the page cache serves
 * @l2_used_bytes: of it, filled or being filled
 * @part: the sum of all is as mmnf_field_stats(), but with the engine DEVICE those of
 *	the kernel are where the kernel shows them
 * @waits: gets and batches that took so long because of storage
 */
struct mmnf_published {
	uint64_t magic;
	uint32_t bytes, ready;
	uint64_t opened_ns; /* CLOCK_REALTIME */
	uint32_t engine, dtype, ndim, writable;
	uint64_t shape[MMNF_NDIM_MAX];
	uint64_t total_bytes, l2_bytes, l2_used_bytes, page_bytes;
	char format[16];
	char engine_reason[128];
	char path[512];
	struct mmnf_published_part part[MMNF_PUBLISH_PARTS];
	uint64_t waits[MMNF_NR_LENGTHS];
	struct mmnf_published_gpu gpu[MMNF_PUBLISH_GPUS];
	struct mmnf_published_stream stream[MMNF_PUBLISH_STREAMS];
};

/* The counters of all parts, which may be counted in meanwhile; size stays 0. */
static inline struct mmnf_field_stats
mmnf_published_sum(const struct mmnf_published *p)
{
	struct mmnf_field_stats sum = { 0 };
	uint32_t i;

	_Static_assert(sizeof(sum) == sizeof(sum.size) + 12 * sizeof(uint64_t),
		       "each counter is summed");
#define ADD(name) \
	sum.name += __atomic_load_n(&p->part[i].stats.name, __ATOMIC_RELAXED)
	for (i = 0; i < MMNF_PUBLISH_PARTS; i++) {
		ADD(gets);
		ADD(get_bytes);
		ADD(windows_mapped);
		ADD(windows_unmapped);
		ADD(accesses);
		ADD(hits);
		ADD(late);
		ADD(misses);
		ADD(prefetched_pages);
		ADD(used_pages);
		ADD(wasted_pages);
		ADD(pending_pages);
	}
#undef ADD
	return sum;
}

#endif
