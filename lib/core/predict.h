/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The predictor: what was touched goes in, what to read next comes out.
 *
 * Pure computation over a table that the caller owns: no allocation, no lock,
 * no clock, no I/O.  The caller serialises access to a table.
 *
 * A position is a byte offset in the field's file.  A stream is one walk: the
 * accesses of one instruction in one thread.  While its deltas repeat, the
 * stream keeps a run of positions planned ahead of the consumer:
 *
 *	      last                                    last + ahead * stride
 *	        |<------------- ahead strides -------------->|
 *	--o--o--O--x--x--x--x--x--x--x--x--x--x--x--x--x--x--X - - - - - -
 *	 touched      planned: being read, or resident         not planned
 *
 * When ahead falls to half of depth, the run is filled up to depth again and
 * the difference is the plan.  depth doubles, at once, when a planned position
 * was touched before its read was done, but stays within twice min_depth and
 * four times the steps that the walk has shown so far; and once a walk is four
 * times as long as its depth, up to a depth at which a plan is worth waking a
 * worker for.  It halves when a walk ends with planned positions untouched.
 *
 * One delta that is the distance of neighbours along an axis of the field is
 * enough for a first plan.  Such guesses are rationed: a wrong one has to be paid
 * for by a right one.
 *
 * A walk that goes from grain (page) to neighbouring grain is dense: it is
 * followed by grain, whatever the exact byte deltas, and its depth doubles with
 * each plan, as the kernel's own readahead window does.
 *
 * Strided walks are followed from record to record where records are known, so
 * that a record across two pages is one step, and a touch in its middle too.
 *
 * Nothing is planned while everything touched is resident: a walk starts to
 * plan with its first late or missed access.
 */
#ifndef MMNF_CORE_PREDICT_H
#define MMNF_CORE_PREDICT_H

#include "port.h"

#define MMNF_NR_STREAMS 16
#define MMNF_NR_LEVELS 4
#define MMNF_NR_AXES 8

enum mmnf_outcome {
	MMNF_HIT, /* resident and up to date */
	MMNF_LATE, /* being read */
	MMNF_MISS, /* absent */
};

/**
 * struct mmnf_access - one touch
 * @thread: who; any number that tells threads apart
 * @ip: where in the program; 0 if unknown
 * @pos: byte offset of the touch
 * @covered: grains after @pos's that became accessible without a further
 *	observation (fault-around); 0 if none
 * @outcome: what was found there
 */
struct mmnf_access {
	u64 thread;
	u64 ip;
	u64 pos;
	u32 covered;
	enum mmnf_outcome outcome;
};

/* One level of a plan: nr positions, stride apart. */
struct mmnf_level {
	s64 stride;
	u64 nr;
};

/**
 * struct mmnf_plan - positions to read
 * @start: first position
 * @nr_levels: 1 .. MMNF_NR_LEVELS
 * @level: innermost first; position (i0, i1, ..) is
 *	@start + i0 * level[0].stride + i1 * level[1].stride ...
 * @span: bytes to read at each position
 *
 * Laws: every position lies in [table.start, table.end); the number of
 * positions is at most 1 + limits.max_depth, or 1 + max_window_bytes / grain for
 * a dense walk; and all but the first take at most limits.max_inflight_bytes,
 * or one span where a span is more than that.
 */
struct mmnf_plan {
	u64 start;
	u32 nr_levels;
	struct mmnf_level level[MMNF_NR_LEVELS];
	u64 span;
};

/* A walk; all zero means free. */
struct mmnf_stream {
	u64 thread;
	u64 ip;
	u64 last; /* position touched most recently; grain start if dense */
	u64 record; /* start of the record of that touch */
	s64 delta; /* from the record touched before to this one */
	u64 seen; /* table's clock then, for LRU; 0: free */
	u32 nr_levels; /* of level[]; 0 while nothing repeats */
	struct mmnf_level level[MMNF_NR_LEVELS];
	u32 confirmed; /* times the innermost delta repeated */
	u32 depth;
	u32 ahead; /* planned positions beyond last */
	u32 late; /* late or missed since the last plan */
	u32 covered; /* of the last access */
	bool dense;
	bool planned; /* since the walk was learned */
	bool guess; /* taken from the geometry after one delta */
	u32 followed; /* steps since the walk was learned */
};

/**
 * struct mmnf_limits - how far ahead a table may plan
 * @min_depth: positions planned when a strided walk is first recognised, >= 1
 * @max_depth: most positions ahead of a strided walk, >= @min_depth
 * @max_window_bytes: most bytes ahead of a dense walk
 * @max_inflight_bytes: most bytes ahead of any one walk
 */
struct mmnf_limits {
	u32 min_depth;
	u32 max_depth;
	u64 max_window_bytes;
	u64 max_inflight_bytes;
};

/**
 * struct mmnf_table - the walks over one field
 * @grain: unit of residency, bytes, a power of two (the page size)
 * @start: first byte of the data, rounded down to a grain
 * @end: byte after the last of the data
 * @origin: where the first record starts
 * @span: bytes of a record, what is read at each position of a strided walk, >= 1
 * @clock: number of observations
 * @nr_planned: positions ahead of a walk handed out so far
 * @nr_used: of these: passed by their walk
 * @nr_wasted: of these: given up when the walk ended
 *
 * Law: nr_planned = nr_used + nr_wasted + sum of stream[].ahead.
 */
struct mmnf_table {
	u64 grain;
	u64 start;
	u64 end;
	u64 origin;
	u64 span;
	struct mmnf_limits limits;
	u64 clock;
	u64 nr_planned;
	u64 nr_used;
	u64 nr_wasted;
	u32 nr_axes;
	u32 guesses; /* left before one has to come true */
	u64 axis[MMNF_NR_AXES]; /* distances of neighbours, bytes */
	u32 recent; /* index of the stream used last: usually the next, too */
	struct mmnf_stream stream[MMNF_NR_STREAMS];
};

extern const struct mmnf_limits mmnf_limits_default;

/**
 * mmnf_table_init() - an empty table
 * @grain: power of two
 * @start, @end: the data, half-open, @end at most S64_MAX; an empty range plans
 *	nothing
 * @span: bytes of a record, at most S64_MAX; records tile from @start; 0 is
 *	read as 1
 */
void mmnf_table_init(struct mmnf_table *table, u64 grain, u64 start, u64 end,
		     u64 span);

/**
 * mmnf_table_set_axes() - tell the field's geometry
 * @stride: signed distance of neighbours along each axis, bytes
 * @nr: 0 .. MMNF_NR_AXES
 */
void mmnf_table_set_axes(struct mmnf_table *table, const s64 *stride, u32 nr);

/**
 * mmnf_observe() - note an access
 * @plan: receives what to read if the return value is true
 *
 * O(MMNF_NR_STREAMS).  The same accesses give the same plans.
 */
bool mmnf_observe(struct mmnf_table *table, const struct mmnf_access *access,
		  struct mmnf_plan *plan);

/**
 * mmnf_record_plan() - the rest of the record that a miss fell into
 * Return: false if the record does not reach beyond the touched grain.
 */
bool mmnf_record_plan(const struct mmnf_table *table, u64 pos,
		      struct mmnf_plan *plan);

/**
 * mmnf_table_sparse() - does the walk seen last touch single pages far apart?
 * @grains: neighbourhood that has to hold one touch only
 */
static inline bool mmnf_table_sparse(const struct mmnf_table *table, u64 grains)
{
	const struct mmnf_stream *s = &table->stream[table->recent];
	s64 stride = s->level[0].stride;

	return s->nr_levels && !s->dense &&
	       (u64)(stride < 0 ? -stride : stride) >= grains * table->grain;
}

/* Number of positions of a plan; no overflow by the laws above. */
static inline u64 mmnf_plan_nr(const struct mmnf_plan *plan)
{
	u64 nr = 1;
	u32 i;

	for (i = 0; i < plan->nr_levels; i++)
		nr *= plan->level[i].nr;
	return nr;
}

/**
 * mmnf_plan_pos() - the n-th position of a plan
 * @n: 0 .. mmnf_plan_nr() - 1, innermost level fastest
 */
static inline u64 mmnf_plan_pos(const struct mmnf_plan *plan, u64 n)
{
	u64 pos = plan->start;
	u32 i;

	for (i = 0; i < plan->nr_levels; i++) {
		u64 q = div64_u64(n, plan->level[i].nr);

		pos += (u64)plan->level[i].stride * (n - q * plan->level[i].nr);
		n = q;
	}
	return pos;
}

#endif
