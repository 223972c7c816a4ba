// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Streams: found, followed, learned, planned ahead of.  See predict.h.
 *
 * Never allocates, sleeps, reads a clock or does I/O; every loop is bounded by
 * MMNF_NR_STREAMS, MMNF_NR_DELTAS or the rows of one plan.  Touched positions lie
 * in [start, end) and end is at most S64_MAX; positions that a nest foresees are
 * computed modulo 2^64 and checked before they are planned.
 */
#include "stream.h"

/* As far apart, two positions are not mapped by one fault. */
#define MAX_AROUND_GRAINS 16
/* Rows that may go by unobserved at once; bounds the work of a touch. */
#define MAX_LOST_ROWS 32
/* So many touches ago is still the same loop. */
#define NEAR_TOUCHES 16

/* On through the present run, in either direction if it has none yet. */
static bool step_in_run(const struct mmnf_table *table,
			const struct mmnf_stream *s, u64 pos,
			struct mmnf_step *step)
{
	s64 grains = grains_between(table, s->at.last, pos);
	s64 gap = (s64)(pos - s->at.last);
	u64 reach = 1, rest;
	bool covered;

	if (!grains || table->span > table->grain ||
	    record_of(table, pos) == record_of(table, s->at.last))
		return false;
	if (s->dense && (grains < 0) != (s->dense < 0))
		return false;
	/* The first that was not mapped; one before it would have been absent. */
	covered = grains == (s64)s->at.after + 1;
	if (s->dense)
		reach = max_of(max_of(s->at.ahead, s->dense > 0 ?
							   s->at.after :
							   s->at.before) +
				       1ULL,
			       reach);
	/* A stride of less than two grains skips one now and then. */
	if (gap == s->gap && magnitude(gap) < 2 * table->grain)
		reach = max_of(reach, 2);
	/* Beyond its end a run is believed only step by step. */
	if (s->dense && s->len) {
		rest = run_grains(table, s, s->at.run);
		rest = rest > s->at.in + 1 ? rest - s->at.in - 1 : 1;
		reach = min_of(reach, rest);
	}
	if (magnitude(grains) > reach && !covered)
		return false;
	step->runs = 0;
	step->run = s->at.run;
	step->in = s->at.in + (u32)magnitude(grains);
	step->on_walk = true;
	return true;
}

/* The next run was foreseen; its first grains may have been mapped before. */
static bool step_near(const struct mmnf_table *table,
		      const struct mmnf_stream *s, u64 run, u64 pos,
		      struct mmnf_step *step)
{
	s64 grains;

	if (run < table->start || run >= table->end)
		return false;
	grains = grains_between(table, run, pos);
	if (grains && (grains < 0) != (s->dense < 0))
		return false;
	if (magnitude(grains) >= run_steps(table, s))
		return false;
	step->runs = 1;
	step->run = run;
	step->in = (u32)magnitude(grains);
	step->on_walk = true;
	return true;
}

/* To another run, as the nest foresees it. */
static bool step_to_run(const struct mmnf_table *table,
			const struct mmnf_stream *s,
			const struct mmnf_nest *nest, u64 pos, u64 record,
			struct mmnf_step *step)
{
	bool back = nest->level[0].jump < 0;
	u64 reach = 1, jump, next;

	if (!nest->nr_levels)
		return false;
	/*
	 * What was mapped goes unobserved, and so may what was planned where
	 * several positions are mapped at once.
	 */
	jump = magnitude(nest->level[0].jump);
	if (jump)
		reach += div64_u64((back ? s->at.before : s->at.after) *
					   table->grain,
				   jump);
	if (jump < MAX_AROUND_GRAINS * table->grain)
		reach = max_of(reach, s->at.ahead / run_steps(table, s) + 1);
	step->runs = mmnf_nest_steps(nest, (s64)(record - s->at.run), reach);
	if (step->runs) {
		step->run = record;
		step->in = 0;
		step->on_walk = true;
		return true;
	}
	if (!mmnf_nest_horizon(nest))
		return false;
	next = mmnf_nest_offset(nest, 1);
	return magnitude((s64)next) >= 2 * table->grain &&
	       step_near(table, s, s->at.run + next, pos, step);
}

/*
 * Anywhere in what is planned: rows, or parts of them, that another walk mapped
 * before go unobserved, and so does a row's end where several are mapped at once.
 */
static bool step_to_planned(const struct mmnf_table *table,
			    const struct mmnf_stream *s, u64 pos, u64 record,
			    struct mmnf_step *step)
{
	u64 most = s->at.ahead / run_steps(table, s) + 1, n = 1, left, nr, run;
	const struct mmnf_nest *nest = &s->at.nest;
	struct mmnf_level level[MMNF_NR_LEVELS];
	u32 levels, rows;
	s64 off, in;

	if (!nest->level[0].jump ||
	    magnitude(nest->level[0].jump) >= MAX_AROUND_GRAINS * table->grain)
		return false;
	most = min_of(most, mmnf_nest_horizon(nest));
	levels = mmnf_nest_levels(nest, level);
	for (rows = 0; rows < MAX_LOST_ROWS && n <= most; rows++, n += nr) {
		run = s->at.run + mmnf_level_offset(level, levels, n);
		left = mmnf_level_row(level, n);
		nr = min_of(left, most - n + 1);
		off = (s64)((s->dense ? pos : record) - run);
		if (off && (off < 0) == (level[0].stride < 0)) {
			left = div64_u64(magnitude(off),
					 magnitude(level[0].stride));
			if (left >= nr)
				continue;
		} else {
			left = 0;
		}
		run += left * (u64)level[0].stride;
		if (run < table->start || run >= table->end)
			continue;
		in = grains_between(table, run, pos);
		if (s->dense < 0)
			in = -in;
		if (s->dense ? in < 0 || in >= run_steps(table, s) :
			       run != record)
			continue;
		step->runs = n + left;
		step->run = run;
		step->in = (u32)in;
		step->on_walk = true;
		return true;
	}
	return false;
}

static bool step_from_here(const struct mmnf_table *table,
			   const struct mmnf_stream *s, u64 pos, u64 record,
			   struct mmnf_step *step)
{
	struct mmnf_nest nest;
	u64 edge;

	if (step_to_run(table, s, &s->at.nest, pos, record, step) ||
	    step_in_run(table, s, pos, step))
		return true;
	if (s->at.edge && stream_extend(table, s, &nest, &edge))
		step->extended =
			step_to_run(table, s, &nest, pos, record, step);
	return step->on_walk ||
	       (s->at.ahead && step_to_planned(table, s, pos, record, step));
}

/* From the last touch, had nothing been passed since. */
static bool step_from_touched(const struct mmnf_table *table,
			      const struct mmnf_stream *s, u64 pos, u64 record,
			      struct mmnf_step *step)
{
	struct mmnf_stream before = *s;

	before.at = s->touched;
	return step_from_here(table, &before, pos, record, step);
}

static struct mmnf_step stream_step(const struct mmnf_table *table,
				    const struct mmnf_stream *s, u64 pos,
				    u64 record)
{
	struct mmnf_step step = { 0 };

	if (!step_from_here(table, s, pos, record, &step) && s->passed)
		step.back = step_from_touched(table, s, pos, record, &step);
	return step;
}

/* A free stream, or that unused for longest, cleared. */
static struct mmnf_stream *stream_new(struct mmnf_table *table)
{
	struct mmnf_stream *oldest = &table->stream[0];
	u32 i;

	if (table->nr_streams < MMNF_NR_STREAMS)
		return &table->stream[table->nr_streams++];
	for (i = 1; i < MMNF_NR_STREAMS; i++)
		if (table->stream[i].seen < oldest->seen)
			oldest = &table->stream[i];
	mmnf_stream_give_up(table, oldest);
	memset(oldest, 0, sizeof(*oldest));
	return oldest;
}

/* The stream of the same instruction and thread, if there is one. */
static struct mmnf_stream *stream_own(struct mmnf_table *table,
				      const struct mmnf_access *access)
{
	struct mmnf_stream *s = &table->stream[table->recent];
	u32 i;

	if (s->thread == access->thread && s->ip == access->ip && s->seen)
		return s;
	for (i = 0; i < table->nr_streams; i++) {
		s = &table->stream[i];
		if (s->thread == access->thread && s->ip == access->ip &&
		    s->seen)
			return s;
	}
	return NULL;
}

/*
 * The stream an access belongs to: its own, if it continues that walk, else one
 * whose walk it continues (the loop may be unrolled, so the instruction need not
 * be the same), else its own, else the one unused for longest, cleared.
 */
static struct mmnf_stream *stream_find(struct mmnf_table *table,
				       const struct mmnf_access *access,
				       u64 record, struct mmnf_stream *own,
				       struct mmnf_step *step)
{
	struct mmnf_stream *s;
	u32 i;

	table->shared = false;
	if (own) {
		*step = stream_step(table, own, access->pos, record);
		if (step->on_walk)
			return own;
	}
	for (i = 0; i < table->nr_streams; i++) {
		s = &table->stream[i];
		if (s->thread != access->thread || !s->seen || s == own)
			continue;
		table->shared |= !s->ip ||
				 s->seen + NEAR_TOUCHES >= table->clock;
		if (!s->at.ahead)
			continue;
		*step = stream_step(table, s, access->pos, record);
		if (!step->on_walk)
			continue;
		/* Two that turn out to be one walk. */
		if (own && !own->at.ahead)
			memset(own, 0, sizeof(*own));
		return s;
	}
	memset(step, 0, sizeof(*step));
	return own ? own : stream_new(table);
}

/* Is anything known of what comes next? */
static bool stream_foresees(const struct mmnf_stream *s)
{
	return s->at.nest.sure & 1 || s->at.in > 1 ||
	       (s->dense && s->len && (s->at.in || s->alike >= MIN_ALIKE));
}

static void stream_begin(struct mmnf_table *table, struct mmnf_stream *s,
			 const struct mmnf_access *access, u64 record)
{
	s->thread = access->thread;
	s->ip = access->ip;
	s->at.run = record;
	s->at.last = access->pos;
	s->at.after = access->after;
	s->low = access->pos;
	s->high = access->pos;
	s->seen = table->clock;
	mmnf_stream_time(s, access, 1);
}

/* A touch of a stream's: from there on, what is to be read? */
static bool stream_observe(struct mmnf_table *table, struct mmnf_stream *s,
			   const struct mmnf_access *access, u64 record,
			   struct mmnf_step *step, struct mmnf_plan *plan)
{
	bool absent = access->outcome == MMNF_MISS, was_dense = s->dense;
	bool was_planned = false;
	u64 pos = access->pos, steps = 1;
	s64 gap = (s64)(pos - s->at.last);
	u32 ahead;

	if (!step->on_walk &&
	    (record == record_of(table, s->at.last) ||
	     grain_of(table, pos) == grain_of(table, s->at.last))) {
		s->late += access->outcome == MMNF_LATE;
		mmnf_stream_time(s, access, 1);
		return false;
	}
	if (step->back) {
		mmnf_stream_go_back(table, s);
		gap = (s64)(pos - s->at.last);
	}
	ahead = s->at.ahead;
	if (step->on_walk) {
		steps = mmnf_stream_follow(table, s, step);
		was_planned = steps <= ahead;
		s->lost = 0;
	} else {
		mmnf_stream_learn(table, s, record);
		s->lost += s->lost < MMNF_LOST_TOUCHES;
		step->run = record;
		step->in = 0;
		step->runs = 1;
	}
	if (step->runs)
		s->delta[s->turn++ % MMNF_NR_DELTAS] =
			(s64)(step->run - s->at.run);
	if (!step->runs && !s->dense) {
		mmnf_stream_give_up(table, s);
		s->dense = gap > 0 ? 1 : -1;
		/* A nest of single touches was one of pairs: or goes on. */
		s->len = s->at.nest.sure & 1 ? (step->in + 1) * table->grain :
					       0;
		s->len_low = 0;
	}
	if (stream_sequential(s) && !was_dense)
		s->depth = MIN_WINDOW_GRAINS;
	mmnf_stream_time(s, access, steps);
	s->at.run = step->run;
	s->at.in = step->in;
	s->at.last = pos;
	s->gap = gap;
	mmnf_stream_pass(table, s, access->before, access->after);
	if (access->outcome != MMNF_HIT || access->fresh)
		s->reads = true;
	if (access->outcome != MMNF_HIT && was_planned)
		s->late++;
	/* On resident data, and before the walk is known, there is no plan. */
	if (!stream_foresees(s) || (!s->at.ahead && !s->reads) ||
	    !mmnf_stream_plan(table, s, plan))
		return false;
	/*
	 * The touched record itself belongs to the same read, and so does what
	 * was planned before: it got lost, or its turn has not come, which
	 * costs a look.
	 */
	if (absent && !s->dense && plan->nr_levels &&
	    record_spills(table, record))
		mmnf_stream_replan(table, s, plan);
	return true;
}

/* A new stream of all that a thread does, from its touch before on. */
static struct mmnf_stream *stream_any(struct mmnf_table *table,
				      const struct mmnf_access *access)
{
	const struct mmnf_stream *latest = NULL, *s;
	struct mmnf_stream *any, from = { 0 };
	u32 i;

	for (i = 0; i < table->nr_streams; i++) {
		s = &table->stream[i];
		if (s->seen && s->thread == access->thread &&
		    s->ip != access->ip && (!latest || s->seen > latest->seen))
			latest = s;
	}
	/* Its place may be what the new one gets. */
	if (latest) {
		from.at.run = latest->at.run;
		from.at.last = latest->at.last;
		from.touched_ns = latest->touched_ns;
		from.ready_ns = latest->ready_ns;
	}
	from.thread = access->thread;
	from.low = access->pos;
	from.high = access->pos;
	any = stream_new(table);
	*any = from;
	return any;
}

/*
 * An unrolled loop takes turns: each of its instructions sees a stride that is a
 * multiple of the walk's, and needs as many touches to see it.  What all the
 * instructions of a thread do together is one more stream, with no instruction,
 * which is asked while the touch's own stream knows nothing.
 */
static bool observe_thread(struct mmnf_table *table,
			   const struct mmnf_access *access, u64 record,
			   struct mmnf_plan *plan)
{
	struct mmnf_stream *s, *any = NULL;
	struct mmnf_step step;
	u32 i;

	for (i = 0; i < table->nr_streams; i++) {
		s = &table->stream[i];
		if (s->seen && s->thread == access->thread && !s->ip)
			any = s;
	}
	if (!any)
		any = stream_any(table, access);
	any->seen = table->clock;
	step = stream_step(table, any, access->pos, record);
	return stream_observe(table, any, access, record, &step, plan);
}

/*
 * The one step that most touches are: on along the innermost level, with nothing
 * to learn, to pass or to plan.
 */
static bool stream_quick(struct mmnf_table *table, struct mmnf_stream *s,
			 const struct mmnf_access *access, u64 record)
{
	struct mmnf_nest *nest = &s->at.nest;
	struct mmnf_nest_level *l = &nest->level[0];
	u64 around;

	if (s->dense || access->outcome != MMNF_HIT ||
	    (s64)(record - s->at.run) != l->jump ||
	    s->at.ahead <= s->depth / 2 + 1 || !(nest->sure & 1) ||
	    (!(nest->open & 1) && l->at + 1 >= l->nr) || s->passed ||
	    s->guess || s->at.edge == 1 || s->followed < BATCH_DEPTH ||
	    s->followed / 4 < s->depth || nest->doubted)
		return false;
	/* Was another step mapped with it? */
	around = (u64)access->before + access->after;
	if (around && magnitude(l->jump) <= around * table->grain)
		return false;
	l->at++;
	s->gap = (s64)(access->pos - s->at.last);
	s->at.run = record;
	s->at.last = access->pos;
	s->at.edge -= s->at.edge != 0;
	s->at.ahead--;
	table->nr_used++;
	s->followed += s->followed < U32_MAX / 2;
	s->seen = table->clock;
	s->ready_ns = 0;
	s->at.before = access->before;
	s->at.after = access->after;
	s->missed = false;
	return true;
}

/*
 * .. a distance comes again, or is one of neighbours.  Of any other touch there is
 * nothing to learn, so random access costs little; it is noted, and forgotten what
 * could be a walk's.  An unrolled loop is found later so: each of its instructions has
 * to see its own distance again.
 */
static bool stream_lost(struct mmnf_table *table, struct mmnf_stream *s,
			const struct mmnf_access *access, u64 record)
{
	s64 delta = (s64)(record - s->at.run);
	s64 gap = (s64)(access->pos - s->at.last);
	u32 i;

	if (s->lost < MMNF_LOST_TOUCHES || s->dense || !delta ||
	    table->nr_planned != table->nr_used + table->nr_wasted ||
	    magnitude(gap) <=
		    (2ULL + s->at.before + s->at.after) * table->grain)
		return false;
	for (i = 0; i < MMNF_NR_DELTAS; i++)
		if (s->delta[i] == delta)
			return false;
	if (table->guesses && mmnf_axes_has(&table->axes, delta))
		return false;
	/* Nothing is ahead of any. */
	stream_forget_plan(s);
	s->delta[s->turn++ % MMNF_NR_DELTAS] = delta;
	s->at.nest.nr_levels = 0;
	s->at.nest.open = 0;
	s->at.nest.sure = 0;
	s->at.nest.doubted = false;
	s->guess = false;
	s->at.run = record;
	s->at.last = access->pos;
	s->at.before = access->before;
	s->at.after = access->after;
	s->gap = gap;
	s->seen = table->clock;
	s->reads |= access->outcome != MMNF_HIT || access->fresh;
	mmnf_stream_time(s, access, 1);
	return true;
}

/* The record of a miss, and in a small region what lies about it. */
static bool observe_miss(struct mmnf_table *table, struct mmnf_stream *s,
			 const struct mmnf_access *access,
			 struct mmnf_plan *plan)
{
	table->promised = 0;
	mmnf_stream_pay(s, access);
	if (access->outcome != MMNF_MISS)
		return false;
	if (stream_foresees(s))
		s->inside = 0;
	else if (mmnf_stream_region(table, s, access->pos, plan))
		return true;
	return mmnf_record_plan(table, access->pos, plan);
}

static bool observe(struct mmnf_table *table, const struct mmnf_access *access,
		    struct mmnf_plan *plan)
{
	u64 pos = access->pos, record, seen;
	struct mmnf_stream *own, *s;
	struct mmnf_step step;

	record = table->span > 1 ? record_of(table, pos) : pos;
	own = stream_own(table, access);
	if (own && stream_quick(table, own, access, record)) {
		table->recent = (u32)(own - table->stream);
		return false;
	}
	if (own && stream_lost(table, own, access, record)) {
		table->recent = (u32)(own - table->stream);
		return observe_miss(table, own, access, plan);
	}
	s = stream_find(table, access, record, own, &step);
	table->recent = (u32)(s - table->stream);
	seen = s->seen;
	s->seen = table->clock;
	if (!seen)
		stream_begin(table, s, access, record);
	else if (stream_observe(table, s, access, record, &step, plan))
		return true;
	if (table->shared && access->ip && s->ip && !(s->at.nest.sure & 1) &&
	    !s->at.ahead && access->outcome != MMNF_HIT &&
	    observe_thread(table, access, record, plan))
		return true;
	return observe_miss(table, s, access, plan);
}

/* Its streams are of a thread of their own: no other walk is taken for theirs. */
static bool observe_outside(struct mmnf_table *table,
			    const struct mmnf_access *access,
			    struct mmnf_plan *plan)
{
	struct mmnf_access outside = *access;
	struct mmnf_data data;
	bool planned;

	outside.thread |= MMNF_OUTSIDE;
	mmnf_table_go_outside(table, &data);
	planned = observe(table, &outside, plan);
	mmnf_table_come_back(table, &data);
	return planned;
}

bool mmnf_observe(struct mmnf_table *table, const struct mmnf_access *access,
		  struct mmnf_plan *plan)
{
	u64 pos = access->pos;

	table->clock++;
	if (pos >= table->start && pos < table->end)
		return observe(table, access, plan);
	return pos < table->file_end && observe_outside(table, access, plan);
}
