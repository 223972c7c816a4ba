/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The predictor: what was touched goes in, what to read next comes out.
 *
 * Pure computation over a table that the caller owns: no allocation, no lock,
 * no I/O; time is an argument.  The caller serialises access to a table.
 *
 * A position is a byte offset in the field's file.  A stream is one walk: the
 * accesses of one instruction in one thread.  A walk is a sequence of runs: a
 * run is one touch, or a record where records are known, or a dense stretch of
 * grains (pages) touched one after the other, in either direction.  The starts
 * of the runs follow a nest of loops (nest.h).  While they do, the stream keeps a
 * part of the walk planned ahead of the consumer, across the ends of rows,
 * planes and volumes:
 *
 *	    row                       next row          next plane
 *	--o--o--O--x--x--x-- jump --x--x--x--x--x-- jump --x--X - - - - -
 *	        |<------------- ahead, in steps ------------->|
 *	 touched    planned: being read, or resident           not planned
 *
 * A step is a run, or a grain of a dense run.  When ahead falls to half of depth,
 * the plan is filled up to depth again.  Nothing is planned across a jump that
 * was seen once, unless the geometry says that it is the next carry, or the loop moves
 * along an axis that no inner one uses.
 *
 * depth begins where the measured latency, divided by the time that the consumer
 * takes for a step, puts it.  It doubles, at once, when a planned position was
 * touched before its read was done, but stays within twice min_depth and four
 * times the steps that the walk has shown so far; and once a walk is four times
 * as long as its depth, up to a depth at which a plan is worth waking a worker
 * for.  It halves when a walk is lost with planned positions untouched.
 *
 * One delta that is the distance of neighbours along an axis of the field is
 * enough for a first plan.  Where the row ends within a first plan, at the end of the
 * largest axis, the walk is taken to go on along the next smaller one, from its start,
 * in the same direction.  Such guesses are rationed: a wrong one has to be paid
 * for by a right one.  A delta that holds the majority of the last ones counts as
 * a walk when it comes again, whatever came between (after Leap: Al Maruf and
 * Chowdhury, "Effectively Prefetching Remote Memory with Leap", USENIX ATC 2020).
 *
 * Where a fault makes resident grains around it accessible too, the touches there
 * are not observed.  What was planned and lies there is passed at once; a touch
 * that comes back to it, because its read was not done yet, is understood.
 *
 * A dense run whose length is not known doubles its window with each plan, as
 * the kernel's own readahead does, up to 1 MiB; beyond that only where the
 * consumer had to wait.  Strides of less than two grains are dense: to skip a
 * grain now and then costs more requests than it saves bytes.
 *
 * Where nothing is foreseen, misses bring their records alone; but those that come
 * back to a small region again and again bring parts of that (region.c).
 *
 * Nothing is planned while everything touched is resident anyway: a walk starts to
 * plan with its first access that is late, missed, or would have been.
 *
 * Where the file's end is told, walks outside of the data are followed as well.  They
 * are walks over bytes, which know neither records nor axes, and may lead into the data;
 * one that is there is another walk, and stays there.
 */
#ifndef MMNF_CORE_PREDICT_H
#define MMNF_CORE_PREDICT_H

#include "nest.h"

#define MMNF_NR_STREAMS 32
#define MMNF_NR_DELTAS 8

enum mmnf_outcome {
	MMNF_HIT, /* resident and up to date */
	MMNF_LATE, /* being read */
	MMNF_MISS, /* absent */
};

/**
 * struct mmnf_access - one touch
 * @thread: who; any number below 2^63 that tells threads apart
 * @ip: where in the program; 0 if unknown
 * @pos: byte offset of the touch
 * @now_ns: when; any monotonic clock, 0 if unknown
 * @before, @after: grains around @pos's that became accessible with it, where
 *	they were resident: touches there are not observed (fault-around)
 * @outcome: what was found there
 * @fresh: a hit on what was read ahead, for the first time: without that read it
 *	would have been a miss
 */
struct mmnf_access {
	u64 thread;
	u64 ip;
	u64 pos;
	u64 now_ns;
	u32 before;
	u32 after;
	enum mmnf_outcome outcome;
	bool fresh;
};

/**
 * struct mmnf_plan - positions to read, in the order of the walk
 * @start: first position
 * @nr: positions
 * @nr_levels: 0 .. MMNF_NR_LEVELS; 0: @nr is 1
 * @level: innermost first
 * @span: bytes to read at each position
 *
 * Laws: every position lies in [table.start, table.end), or, after an access outside
 * of that, in [0, table.file_end); the positions beyond the first take at most
 * limits.max_inflight_bytes, and a dense walk's at most limits.max_window_bytes; @nr
 * is at most 1 + limits.max_depth.
 */
struct mmnf_plan {
	u64 start;
	u64 nr;
	u64 span;
	u32 nr_levels;
	struct mmnf_level level[MMNF_NR_LEVELS];
};

/**
 * struct mmnf_place - where on its walk a stream is
 * @run: where the present run began; its record's start
 * @last: position touched most recently
 * @edge: steps to what only the geometry promised; 0: nothing
 * @nest: of the starts of runs
 * @in: grains from the run's first to the last touched
 * @ahead: steps planned beyond the last touched
 * @before, @after: grains around @last that the last fault made accessible
 * @onward: beyond the largest axis the walk is taken to go on along smaller ones
 */
struct mmnf_place {
	u64 run;
	u64 last;
	u64 edge;
	struct mmnf_nest nest;
	u32 in;
	u32 ahead;
	u32 before;
	u32 after;
	bool onward;
};

/* Added to the thread of a stream whose walk is outside of the data. */
#define MMNF_OUTSIDE (1ULL << 63)

/* A walk; all zero means free. */
struct mmnf_stream {
	u64 thread;
	u64 ip;
	u64 seen; /* table's clock then, for LRU; 0: free */
	struct mmnf_place at; /* touched, or passed unobserved */
	struct mmnf_place touched; /* if something was passed since */
	bool passed;
	u32 passed_runs;
	u64 len; /* bytes of a run, at most, as far as is known; 0: goes on */
	u64 len_low; /* and at least */
	u64 touched_ns; /* the last touch */
	u64 ready_ns; /* when it was served */
	u64 pace_ns; /* the consumer's time for a step; 0: unknown */
	s64 gap; /* from the touch before to the last one */
	u64 low; /* between these lie the misses that nothing foresaw .. */
	u64 high;
	u32 lost; /* touches in a row that nothing foresaw */
	u32 inside; /* .. of which so many fell between those before them */
	u32 owed; /* grains of blocks read there, less those paid for by their use */
	s64 delta[MMNF_NR_DELTAS]; /* from run to run, recent ones, a ring */
	u32 turn; /* the next one's place there */
	u32 alike; /* runs in a row of one length */
	u32 depth; /* steps */
	u32 late; /* planned, and late or missed all the same, since the last plan */
	u32 followed; /* steps since the walk was learned */
	int dense; /* direction of the present run: 1, -1; 0: one touch */
	bool missed; /* the last touch */
	bool reads; /* what was touched since the last plan was not all resident */
	bool planned; /* since the walk was learned */
	bool guess; /* taken from the geometry after one delta */
	bool flat; /* does not end where the axes do */
};

/**
 * struct mmnf_limits - how far ahead a table may plan
 * @min_depth: steps planned when a walk is first recognised, >= 1
 * @max_depth: most steps ahead of a walk that is not one dense run,
 *	>= @min_depth
 * @max_window_bytes: most bytes ahead of a dense run
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
 * @file_end: byte after the last of the file; 0: nothing outside of the data is seen
 * @origin: where the first record starts
 * @span: bytes of a record, >= 1
 * @clock: number of observations
 * @room: most grains ahead of any one walk, besides @limits; 0: no more limits
 * @latency_ns: smoothed wait for an absent grain; 0: unknown
 * @nr_planned: steps ahead of a walk handed out so far
 * @nr_used: of these: passed by their walk
 * @nr_wasted: of these: given up when the walk ended
 *
 * Law: nr_planned = nr_used + nr_wasted + sum of stream[].at.ahead.
 */
struct mmnf_table {
	u64 grain;
	u64 start;
	u64 end;
	u64 file_end;
	u64 origin;
	u64 span;
	struct mmnf_limits limits;
	u64 clock;
	u64 room;
	u64 latency_ns;
	u64 nr_planned;
	u64 nr_used;
	u64 nr_wasted;
	u32 guesses; /* left before one has to come true; 0 stays, if none is under way */
	u32 onward; /* the same of guesses that a walk goes on along smaller axes */
	struct mmnf_axes axes;
	bool shared; /* the last touch's thread has other instructions here */
	u32 nr_streams; /* stream[] was used up to here */
	u32 recent; /* index of the stream used last: usually the next, too */
	u32 planner; /* index of the stream that planned last .. */
	u32 promised; /* .. and its steps; 0: what it returned last was no walk's */
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
 * @extent: elements along each axis, at least 1
 * @nr: 0 .. MMNF_NR_AXES
 *
 * The element with the lowest address is taken to start at the table's start.
 */
void mmnf_table_set_axes(struct mmnf_table *table, const s64 *stride,
			 const u64 *extent, u32 nr);

/**
 * mmnf_table_set_file() - follow walks outside of the data, too
 * @end: byte after the last of the file, or after what it may ever have, at most
 *	S64_MAX; 0: do not
 */
void mmnf_table_set_file(struct mmnf_table *table, u64 end);

/**
 * mmnf_observe() - note an access
 * @plan: receives what to read if the return value is true
 *
 * O(MMNF_NR_STREAMS), and the rows of a plan.  The same accesses give the same
 * plans.
 */
bool mmnf_observe(struct mmnf_table *table, const struct mmnf_access *access,
		  struct mmnf_plan *plan);

/**
 * mmnf_unplan() - the plan that mmnf_observe() has just returned is not read
 *
 * So its walk has it ahead no longer, and plans it again with its next touch.
 */
void mmnf_unplan(struct mmnf_table *table);

/**
 * mmnf_resume() - the thread's last access was served after a wait
 * @before, @after: as in struct mmnf_access, known only now
 *
 * Teaches the latency of the storage and the pace of the consumer.  To be called
 * after an access that was late or missed, where the caller gets to know; what
 * is never told is never waited for.
 */
void mmnf_resume(struct mmnf_table *table, u64 thread, u64 now_ns, u32 before,
		 u32 after);

/**
 * mmnf_record_plan() - the rest of the record that a miss fell into
 * Return: false if the record does not reach beyond the touched grain.
 */
bool mmnf_record_plan(const struct mmnf_table *table, u64 pos,
		      struct mmnf_plan *plan);

/* The same of a walk whose next step is sure. */
bool mmnf_stream_alone(const struct mmnf_table *table,
		       const struct mmnf_stream *s, u64 grains);

/**
 * mmnf_table_alone() - is the walk seen last better off without fault-around?
 * @grains: how many are mapped at once
 *
 * It is where that many grains hold one touch only, and while a row is being
 * measured: what is mapped unasked is not observed.
 */
static inline bool mmnf_table_alone(const struct mmnf_table *table, u64 grains)
{
	const struct mmnf_stream *s = &table->stream[table->recent];

	return s->at.nest.sure & 1 && mmnf_stream_alone(table, s, grains);
}

/* Is the walk seen last one through all bytes, forwards, with no end that is known? */
static inline bool mmnf_table_dense(const struct mmnf_table *table)
{
	const struct mmnf_stream *s = &table->stream[table->recent];

	return s->dense > 0 && !s->len;
}

/* So many touches in a row that nothing foresaw: it is no walk. */
#define MMNF_LOST_TOUCHES 64

/* Has nothing foreseen the last touches of the walk seen last? */
static inline bool mmnf_table_lost(const struct mmnf_table *table)
{
	return table->stream[table->recent].lost >= MMNF_LOST_TOUCHES;
}

/* The pages' record, or the page alone: what a touch at @pos is part of. */
static inline u64 mmnf_table_record(const struct mmnf_table *table, u64 pos,
				    u64 *end)
{
	u64 start = pos;

	if (table->span > 1 && pos >= table->origin && pos < table->end)
		start = table->origin +
			div64_u64(pos - table->origin, table->span) *
				table->span;
	*end = start + table->span;
	return start;
}

/* Is the time of a hit worth its reading?  Later the pace of a walk is known. */
static inline bool mmnf_table_timed(const struct mmnf_table *table)
{
	return table->stream[table->recent].followed < 64;
}

/* Number of positions of a plan. */
static inline u64 mmnf_plan_nr(const struct mmnf_plan *plan)
{
	return plan->nr;
}

/**
 * mmnf_plan_pos() - the n-th position of a plan
 * @n: 0 .. mmnf_plan_nr() - 1
 */
static inline u64 mmnf_plan_pos(const struct mmnf_plan *plan, u64 n)
{
	return plan->start + mmnf_level_offset(plan->level, plan->nr_levels, n);
}

/* Positions from the n-th to the end of its innermost row, itself included. */
static inline u64 mmnf_plan_row(const struct mmnf_plan *plan, u64 n)
{
	u64 left = plan->nr - n, row;

	if (!plan->nr_levels)
		return left;
	row = mmnf_level_row(&plan->level[0], n);
	return row < left ? row : left;
}

#endif
