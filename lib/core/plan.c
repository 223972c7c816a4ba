// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What to read ahead of a stream: how deep, from where, as which positions.
 *
 * Never allocates, sleeps, reads a clock or does I/O; loops are bounded by
 * MAX_PLAN_ROWS.  What a nest foresees is computed modulo 2^64, so each position
 * is checked against the data before it is planned.
 */
#include "stream.h"

/* Rows of one plan: so many look-ups are made under the caller's lock. */
#define MAX_PLAN_ROWS 512
/* A window of this size is reached without need; what is more, with. */
#define MIN_FULL_WINDOW_BYTES (1ULL << 20)
/* Most that a walk may begin with; what is more has to be found by waiting. */
#define FIRST_DEPTH (2 * BATCH_DEPTH)
/*
 * Beyond the largest axis, until the walk comes there: a wrong guess costs no more.  So
 * many bytes, but for one run, which may be larger.
 */
#define MAX_ONWARD_RUNS 32
#define MAX_ONWARD_BYTES (1ULL << 20)
/* A table that wastes more than this part of what it plans begins shallow. */
#define WASTEFUL_PART 8
/* Limits may be absurd; sums of steps stay below 2^32. */
#define MAX_ROOM (1U << 30)

/* Bytes that a step may read. */
static u64 step_bytes(const struct mmnf_table *table,
		      const struct mmnf_stream *s)
{
	return s->dense ? table->grain : max_of(table->span, table->grain);
}

/* Most steps the limits leave ahead of the walk. */
static u64 stream_room(const struct mmnf_table *table,
		       const struct mmnf_stream *s)
{
	const struct mmnf_limits *limits = &table->limits;
	u64 bytes = step_bytes(table, s);
	u64 most = s->dense ? div64_u64(limits->max_window_bytes, bytes) :
			      limits->max_depth;
	u64 budget = div64_u64(limits->max_inflight_bytes, bytes);

	if (s->dense && s->len)
		most = min_of(most, limits->max_depth);
	if (table->room)
		budget = min_of(budget,
				div64_u64(table->room * table->grain, bytes));
	return min_of(min_of(most, MAX_ROOM), max_of(budget, 1));
}

/*
 * As deep as it has to be, as far as that is known; at most @most.  The plan is
 * filled up when half of it is left: that half has to last for a read.
 */
static u32 wanted_depth(const struct mmnf_table *table,
			const struct mmnf_stream *s, u64 most)
{
	u64 latency = 2 * table->latency_ns + table->latency_ns / 4;

	if (!s->pace_ns ||
	    table->nr_wasted > table->nr_used / WASTEFUL_PART + BATCH_DEPTH)
		return 0;
	return (u32)min_of(div64_u64(latency, s->pace_ns), most);
}

/*
 * Most steps of one plan.  A thread that waits for its read may share its CPU with
 * who starts the plan's: it gets as many as it goes through until those that its next
 * touch asks for are there.
 */
static u64 most_steps(const struct mmnf_table *table,
		      const struct mmnf_stream *s)
{
	u32 wanted = wanted_depth(table, s, U32_MAX);

	if (!s->missed || !wanted || stream_sequential(s))
		return U64_MAX;
	return max_of(wanted / 2, FIRST_DEPTH);
}

/*
 * Of a first plan that is as deep as latency and pace ask, the first positions are
 * late all the same: a deeper one would not have brought them sooner.
 */
static bool late_at_first(const struct mmnf_table *table,
			  const struct mmnf_stream *s)
{
	u32 wanted;

	if (s->followed >= s->depth || stream_sequential(s))
		return false;
	wanted = wanted_depth(table, s, U32_MAX);
	return wanted && wanted <= s->depth;
}

/* Was the last plan too shallow?  See the head of predict.h. */
static bool stream_deepens(const struct mmnf_table *table,
			   const struct mmnf_stream *s)
{
	if (!s->planned || s->guess)
		return false;
	if (stream_sequential(s) &&
	    (u64)s->depth * table->grain < MIN_FULL_WINDOW_BYTES)
		return true;
	if (s->late && stream_sequential(s))
		return true;
	if (s->late)
		return s->depth < table->limits.max_depth &&
		       (u64)s->depth <=
			       (u64)s->followed * 2 + table->limits.min_depth;
	return s->depth < BATCH_DEPTH && s->followed / 4 >= s->depth;
}

/* Cuts a plan where its positions leave the data. */
static void plan_fit(const struct mmnf_table *table, struct mmnf_plan *plan)
{
	u64 n = 0, pos, row, fit, rows, last = table->end - 1;
	const struct mmnf_level *l = &plan->level[0];
	s64 stride = plan->nr_levels ? l->stride : 0;

	for (rows = 0; n < plan->nr && rows < MAX_PLAN_ROWS; rows++) {
		pos = mmnf_plan_pos(plan, n);
		if (pos < table->start || pos > last)
			break;
		row = plan->nr - n;
		if (!plan->nr_levels)
			row = 1;
		else if (l->nr != U64_MAX)
			row = min_of(row, l->nr - (n ? 0 : l->at));
		fit = row;
		if (stride)
			fit = div64_u64(stride > 0 ? last - pos :
						     pos - table->start,
					magnitude(stride)) +
			      1;
		n += min_of(fit, row);
		if (fit < row)
			break;
	}
	plan->nr = n;
}

/* Grains [from, from + nr) of a run as one read. */
static u64 plan_part(const struct mmnf_table *table,
		     const struct mmnf_stream *s, u64 run, u64 from, u64 nr,
		     struct mmnf_plan *plan)
{
	u64 start = grain_of(table, run), left;

	if (run < table->start || run >= table->end)
		return 0;
	if (s->dense > 0) {
		left = div64_u64(table->end - 1 - start, table->grain) + 1;
		start += from * table->grain;
	} else {
		left = div64_u64(start - table->start, table->grain) + 1;
	}
	if (from >= left)
		return 0;
	nr = min_of(nr, left - from);
	if (s->dense < 0)
		start -= (from + nr - 1) * table->grain;
	plan->start = start;
	plan->nr = 1;
	plan->span = nr * table->grain;
	return nr;
}

/* Whole runs, @from runs ahead of the present one. */
static u64 plan_runs(const struct mmnf_table *table,
		     const struct mmnf_stream *s, const struct mmnf_nest *nest,
		     u64 from, u64 nr, struct mmnf_plan *plan)
{
	struct mmnf_nest first = *nest;
	u64 run = s->at.run + mmnf_nest_offset(nest, from);

	mmnf_nest_advance(&first, from);
	plan->nr_levels = mmnf_nest_levels(&first, plan->level);
	plan->nr = nr;
	if (s->dense && s->len) {
		plan->span = s->len;
		plan->start = s->dense > 0 ? run : run + 1 - s->len;
	} else {
		plan->span = table->span;
		plan->start = run;
	}
	plan_fit(table, plan);
	return plan->nr;
}

/* Grains of a dense run, @runs ahead, from grain @from on; to its end if near. */
static u64 fill_run(struct mmnf_table *table, const struct mmnf_stream *s,
		    const struct mmnf_nest *nest, u64 runs, u64 from, u64 want,
		    struct mmnf_plan *plan)
{
	u64 run = s->at.run + mmnf_nest_offset(nest, runs), got;
	u64 grains = run_grains(table, s, run);

	if (from >= grains)
		return 0;
	got = plan_part(table, s, run, from, min_of(want, grains - from), plan);
	return got && from + got == grains ? run_steps(table, s) - from : got;
}

/*
 * A first plan of @runs runs reaches the end of the largest axis: is the walk to be
 * taken to go on along a smaller one?  After a row longer than that, to wait for the
 * first of the next costs little.
 */
static void stream_go_onward(struct mmnf_table *table, struct mmnf_stream *s,
			     u64 runs)
{
	u32 nr_levels = s->at.nest.nr_levels;
	struct mmnf_nest nest;
	u64 edge;

	if (!table->onward || !stream_extend(table, s, &nest, &edge) ||
	    nest.nr_levels != nr_levels || mmnf_nest_horizon(&nest) >= runs)
		return;
	s->at.onward = true;
	stream_extend(table, s, &nest, &edge);
	if (nest.nr_levels == nr_levels)
		s->at.onward = false;
	else
		table->onward--;
}

/* Runs that may be planned beyond the largest axis; at least one. */
static u64 onward_runs(const struct mmnf_table *table,
		       const struct mmnf_stream *s)
{
	u64 bytes = step_bytes(table, s) * run_steps(table, s);

	return min_of(max_of(div64_u64(MAX_ONWARD_BYTES, bytes), 1),
		      MAX_ONWARD_RUNS);
}

/* Up to @want steps beyond what is planned. */
static u64 stream_fill(struct mmnf_table *table, struct mmnf_stream *s,
		       u64 want, bool first, struct mmnf_plan *plan)
{
	u64 frontier = (u64)s->at.in + s->at.ahead, runs, horizon, edge = 0;
	u32 steps = run_steps(table, s), rest;
	struct mmnf_nest nest;

	memset(plan, 0, sizeof(*plan));
	if (stream_sequential(s))
		return plan_part(table, s, s->at.run, frontier + 1, want, plan);
	if (first)
		stream_go_onward(table, s, div64_u64(frontier + want, steps));
	if (stream_extend(table, s, &nest, &edge))
		s->at.edge = edge;
	horizon = mmnf_nest_horizon(&nest);
	if (s->at.onward && edge)
		horizon = min_of(horizon, edge - 1 + onward_runs(table, s));
	runs = div64_u64(frontier, steps);
	frontier -= runs * steps;
	rest = steps - 1 - (u32)frontier;
	if (runs > horizon)
		return 0;
	if (rest && (want < rest + steps || runs == horizon)) {
		u64 got = fill_run(table, s, &nest, runs, frontier + 1, want,
				   plan);

		if (got)
			return got;
	}
	if (runs == horizon)
		return 0;
	if (want < rest + steps)
		return fill_run(table, s, &nest, runs + 1, 0, want, plan);
	/*
	 * Whole runs, and with them the one whose rest is missing: what of it is
	 * there costs a look.
	 */
	want = div64_u64(want - rest, steps);
	if (horizon != U64_MAX)
		want = min_of(want, horizon - runs);
	if (!rest)
		return plan_runs(table, s, &nest, runs + 1, want, plan) * steps;
	want = plan_runs(table, s, &nest, runs, want + 1, plan);
	return want ? rest + (want - 1) * steps : 0;
}

/*
 * A walk that begins inside an axis is likely to end inside it, too: one over a box.
 * Until a stream's first row has ended, no more is planned than a part of what it has
 * shown, or of what is left of the axis: a box wastes no more than that.
 */
static u64 box_room(const struct mmnf_table *table, const struct mmnf_stream *s)
{
	const struct mmnf_nest_level *l;
	struct mmnf_nest nest;
	u64 edge, shown, left;

	shown = s->at.nest.level[0].at;
	if (s->dense || s->at.nest.nr_levels != 1 || s->turn > shown + 1 ||
	    !stream_extend(table, s, &nest, &edge))
		return U64_MAX;
	l = &nest.level[0];
	if (l->at <= shown)
		return U64_MAX;
	left = l->nr - 1 - l->at;
	return max_of(max_of(shown, left / 2) / 2,
		      3ULL * table->limits.min_depth);
}

bool mmnf_stream_plan(struct mmnf_table *table, struct mmnf_stream *s,
		      struct mmnf_plan *plan)
{
	u64 room = stream_room(table, s), target, box, want, got;
	bool first = !s->planned, deepens;

	if (s->late && late_at_first(table, s))
		s->late = 0;
	deepens = stream_deepens(table, s);

	/* A consumer that waits already does not wait for half to be left. */
	if (s->at.ahead > s->depth / 2 && !(deepens && s->late))
		return false;
	/* A box that holds a plan back holds back what would deepen it, too. */
	box = box_room(table, s);
	if (s->at.ahead > box / 2)
		return false;
	if (!s->planned && !stream_sequential(s))
		s->depth = (u32)max_of(s->depth,
				       wanted_depth(table, s, FIRST_DEPTH));
	if (deepens && stream_sequential(s))
		s->depth = (u32)max_of(s->depth,
				       wanted_depth(table, s, 2ULL * s->at.in));
	if (deepens && !s->late && !stream_sequential(s))
		s->depth = (u32)min_of(2ULL * s->depth, BATCH_DEPTH);
	else if (deepens)
		s->depth = s->depth > U32_MAX / 2 ? U32_MAX : s->depth * 2;
	/* A depth beyond what may be used would take long to come down. */
	if (stream_sequential(s) && s->depth > room)
		s->depth = (u32)room;
	if (!s->dense && s->depth > table->limits.max_depth)
		s->depth = table->limits.max_depth;
	target = min_of(min_of(s->depth, room), box);
	s->late = 0;
	s->reads = false;
	s->planned = true;
	if (target <= s->at.ahead)
		return false;
	want = min_of(target - s->at.ahead, most_steps(table, s));
	got = stream_fill(table, s, want, first, plan);
	table->nr_planned += got;
	table->planner = (u32)(s - table->stream);
	table->promised = (u32)got;
	s->at.ahead += (u32)got;
	s->touched.ahead += (u32)got;
	s->touched.edge = s->at.edge ? s->at.edge + s->passed_runs : 0;
	s->touched.onward |= s->at.onward;
	return got;
}

void mmnf_unplan(struct mmnf_table *table)
{
	struct mmnf_stream *s = &table->stream[table->planner];
	u32 steps = (u32)min_of(table->promised, s->at.ahead);

	table->promised = 0;
	if (!steps)
		return;
	table->nr_planned -= steps;
	s->at.ahead -= steps;
	s->touched.ahead -= (u32)min_of(steps, s->touched.ahead);
	if (!s->at.ahead)
		stream_forget_plan(s);
	/* It had cause to plan, and has it still. */
	s->reads = true;
}

void mmnf_stream_replan(const struct mmnf_table *table, struct mmnf_stream *s,
			struct mmnf_plan *plan)
{
	struct mmnf_nest nest;
	u64 edge;

	/* As it was planned, the geometry's carries and all. */
	stream_extend(table, s, &nest, &edge);
	memset(plan, 0, sizeof(*plan));
	plan_runs(table, s, &nest, 0, (u64)s->at.ahead + 1, plan);
}

bool mmnf_record_plan(const struct mmnf_table *table, u64 pos,
		      struct mmnf_plan *plan)
{
	u64 record;

	if (table->span <= 1 || pos < table->start || pos >= table->end)
		return false;
	record = record_of(table, pos);
	if (!record_spills(table, record))
		return false;
	memset(plan, 0, sizeof(*plan));
	plan->start = record;
	plan->nr = 1;
	plan->span = table->span;
	return true;
}
