/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What predict.c and plan.c share about streams: arithmetic of grains, records
 * and runs.  Internal to the core.
 */
#ifndef MMNF_CORE_STREAM_H
#define MMNF_CORE_STREAM_H

#include "predict.h"

/* Runs of one length make the next one likely. */
#define MIN_ALIKE 2

/* What a table is about, kept while a walk outside of that is looked at. */
struct mmnf_data {
	u64 start, end, origin, span;
	u32 nr_axes;
	bool nested;
};

/* A window of fewer grains is not worth a plan of its own. */
#define MIN_WINDOW_GRAINS 4
/* Plans of half of this make the waking of a worker cheap beside the reads. */
#define BATCH_DEPTH 64

static inline u64 min_of(u64 a, u64 b)
{
	return a < b ? a : b;
}

static inline u64 max_of(u64 a, u64 b)
{
	return a > b ? a : b;
}

static inline u64 magnitude(s64 v)
{
	return v < 0 ? -(u64)v : (u64)v;
}

static inline u64 grain_of(const struct mmnf_table *table, u64 pos)
{
	return pos & ~(table->grain - 1);
}

/* Grains from @from to @to, signed; both are positions in the data. */
static inline s64 grains_between(const struct mmnf_table *table, u64 from,
				 u64 to)
{
	return (s64)(grain_of(table, to) - grain_of(table, from)) >>
	       __builtin_ctzll(table->grain);
}

static inline u64 record_of(const struct mmnf_table *table, u64 pos)
{
	u64 end;

	return mmnf_table_record(table, pos, &end);
}

/* Does the record reach beyond its first grain? */
static inline bool record_spills(const struct mmnf_table *table, u64 record)
{
	return grain_of(table, record + table->span - 1) !=
	       grain_of(table, record);
}

/* Does the walk go on through a dense run whose end is not known? */
static inline bool stream_sequential(const struct mmnf_stream *s)
{
	return s->dense && !s->len;
}

/*
 * Steps of a run: of a dense one, the most grains that its length may lie in.  It
 * takes as many steps if it happens to lie in one fewer.
 */
static inline u32 run_steps(const struct mmnf_table *table,
			    const struct mmnf_stream *s)
{
	if (!s->dense || !s->len)
		return 1;
	return (u32)min_of(div64_u64(s->len + table->grain - 2, table->grain) +
				   1,
			   U32_MAX / 4);
}

/* Grains that a dense run of @len bytes lies in. */
static inline u64 grains_of(const struct mmnf_table *table,
			    const struct mmnf_stream *s, u64 run, u64 len)
{
	u64 off = run & (table->grain - 1);

	if (s->dense < 0)
		off = table->grain - 1 - off;
	return div64_u64(off + len - 1, table->grain) + 1;
}

/* Grains that a dense run of known length does lie in, at most. */
static inline u64 run_grains(const struct mmnf_table *table,
			     const struct mmnf_stream *s, u64 run)
{
	return grains_of(table, s, run, s->len);
}

/* Is the length of a dense run known to the grain? */
static inline bool run_is_measured(const struct mmnf_table *table,
				   const struct mmnf_stream *s, u64 run)
{
	return s->alike >= MIN_ALIKE && s->len_low &&
	       grains_of(table, s, run, s->len_low) ==
		       run_grains(table, s, run);
}

/*
 * The nest with what the geometry adds to it; @edge as mmnf_nest_extend().  Where
 * rows lie in one grain, to go on from one to the next takes no read.
 */
static inline bool stream_extend(const struct mmnf_table *table,
				 const struct mmnf_stream *s,
				 struct mmnf_nest *nest, u64 *edge)
{
	*nest = s->at.nest;
	return !s->flat && mmnf_nest_extend(nest, &table->axes, s->at.run,
					    s->at.onward ? max_of(table->grain,
								  table->span) :
							   U64_MAX,
					    edge);
}

/* A stream that nothing is ahead of is as if never planned for. */
static inline void stream_forget_plan(struct mmnf_stream *s)
{
	s->passed = false;
	s->late = 0;
	s->at.edge = 0;
	s->at.onward = false;
	s->planned = false;
}

/* Walks begun on the word of the geometry alone without one coming true. */
#define MAX_GUESSES 4

/**
 * struct mmnf_step - what an access means for a stream
 * @runs: runs that the walk goes on by; 0: stays in its run
 * @in: grains from the start of the run then
 * @run: where that run began
 * @extended: the geometry's word was needed
 * @back: to what was taken as passed, and was not
 * @on_walk: false: not foreseen
 */
struct mmnf_step {
	u64 runs;
	u32 in;
	u64 run;
	bool extended;
	bool back;
	bool on_walk;
};

/* What was planned ahead is not wanted any more. */
void mmnf_stream_give_up(struct mmnf_table *table, struct mmnf_stream *s);

/* What was passed was not touched: back to the last touch. */
void mmnf_stream_go_back(struct mmnf_table *table, struct mmnf_stream *s);

/* Go on by a step that was foreseen.  Return: its length in steps. */
u64 mmnf_stream_follow(struct mmnf_table *table, struct mmnf_stream *s,
		       const struct mmnf_step *step);

/* The walk did not go where it was foreseen: what to foresee now? */
void mmnf_stream_learn(struct mmnf_table *table, struct mmnf_stream *s,
		       u64 record);

/*
 * Grains around the last touch became accessible: what was planned there, in the
 * order of the walk, will not be observed.
 */
void mmnf_stream_pass(struct mmnf_table *table, struct mmnf_stream *s,
		      u32 before, u32 after);

/* Steps of this access, and what they say of the consumer's pace. */
void mmnf_stream_time(struct mmnf_stream *s, const struct mmnf_access *access,
		      u64 steps);

/* Streams of MMNF_OUTSIDE are given to the others in between these two only. */
void mmnf_table_go_outside(struct mmnf_table *table, struct mmnf_data *data);
void mmnf_table_come_back(struct mmnf_table *table,
			  const struct mmnf_data *data);

/**
 * mmnf_stream_plan() - fill what is planned ahead of a stream up to its depth
 * @plan: receives what to read
 * Return: false if enough is planned, or nothing more is foreseen.
 */
bool mmnf_stream_plan(struct mmnf_table *table, struct mmnf_stream *s,
		      struct mmnf_plan *plan);

/**
 * mmnf_stream_region() - note a miss that no walk foresaw
 * Return: true if it is one of many in a small region: @plan is a part of that.
 */
bool mmnf_stream_region(const struct mmnf_table *table, struct mmnf_stream *s,
			u64 pos, struct mmnf_plan *plan);

/* A touch, which may have found what such a part brought: it was worth it. */
void mmnf_stream_pay(struct mmnf_stream *s, const struct mmnf_access *access);

/* All that is planned ahead of a strided walk, and the touched run again. */
void mmnf_stream_replan(const struct mmnf_table *table, struct mmnf_stream *s,
			struct mmnf_plan *plan);

#endif
