/* SPDX-License-Identifier: MIT */
/*
 * What a walk cost, from a time stamp per touch and the counters of the field.
 */
#ifndef WALK_MEASURE_H
#define WALK_MEASURE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <linux/mmnf.h>

struct walk;

/**
 * struct sample - of one thread
 * @began_ns: when its loop began
 * @at_ns: when each touch was done; NULL: not asked for, @ended_ns alone is set
 * @ended_ns: when its loop ended
 * @wrong: touches that found another value than they must
 * @stall_ns: for each touch the time it took if it waited for a read, else 0, at
 *	carries without @unserved_ns; NULL: not asked for
 * @unserved_ns: of carries that waited, what they waited for a CPU for longer than a
 *	read takes
 * @full: for each carry: was the disk full then?  NULL: not asked for
 * @warm: the field's counters after the warm-up; size 0 if there are none
 */
struct sample {
	uint64_t began_ns;
	uint64_t *at_ns;
	uint64_t ended_ns;
	uint64_t wrong;
	uint64_t *stall_ns;
	uint64_t unserved_ns;
	bool *full;
	struct mmnf_ioc_stats warm;
};

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/**
 * measure_touches() - print members of a JSON object about single touches
 *
 * median_ns and worst_ns.
 */
void measure_touches(const struct sample *s, size_t nr);

/**
 * measure_stalls() - print members about touches that waited for a read
 *
 * stall_ns of all, carry_stall_ns of those that follow the end of an inner loop,
 * and how many such carries there are.  Of the latter: first_stall_ns of the first
 * end of each loop, which nobody has seen yet, and full_stall_ns of others at which
 * the disk was as busy as it can be, so that no read could have been begun earlier.
 * carry_unserved_ns, in none of these, is how long carries waited for the CPU when a
 * read would have been done.
 * Touches of resident data do not wait, but on one virtual CPU the worker's turns
 * fall between them, too.
 */
void measure_stalls(const struct walk *w, const struct sample *s, size_t nr);

/**
 * measure_counters() - print members about the field's counters
 * @end: at the end of the walk
 * @warm: after the warm-up, or size 0
 * @nr_pages: pages that the walk touches after the warm-up
 */
void measure_counters(const struct mmnf_ioc_stats *end,
		      const struct mmnf_ioc_stats *warm, size_t nr_pages);

#endif
