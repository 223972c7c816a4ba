// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What a stream makes of a touch: it follows its walk, or learns another one, and
 * passes what became accessible unobserved.
 *
 * Never allocates, sleeps, reads a clock or does I/O.  Every change of ahead is
 * matched by nr_planned, nr_used or nr_wasted.
 */
#include "stream.h"

/* Runs, and grains of each, that one fault may pass: as many as it can map. */
#define MAX_PASSED 64
#define MAX_PASSED_GRAINS 512
/* A row that goes on for longer may be measured less exactly. */
#define MEASURED_STEPS 64

void mmnf_stream_give_up(struct mmnf_table *table, struct mmnf_stream *s)
{
	table->nr_wasted += s->at.ahead;
	s->at.ahead = 0;
	stream_forget_plan(s);
}

/* What was passed was not: back to the last touch. */
void mmnf_stream_go_back(struct mmnf_table *table, struct mmnf_stream *s)
{
	table->nr_used -= s->touched.ahead - s->at.ahead;
	s->at = s->touched;
	s->passed = false;
}

/*
 * The walk goes where it was not foreseen.  Was what was passed touched?  Up to a
 * known end of a row, yes; beyond an end that is not known, assume not: too short
 * a row is soon found out, too long a one never.
 */
static void stream_settle(struct mmnf_table *table, struct mmnf_stream *s)
{
	u32 k = mmnf_nest_open_level(&s->at.nest);
	u64 rest, used;

	if (!s->passed || k == s->at.nest.nr_levels ||
	    s->at.nest.level[k].at == s->touched.nest.level[k].at)
		return;
	mmnf_stream_go_back(table, s);
	rest = mmnf_nest_rest(&s->at.nest, k);
	if (!rest)
		return;
	s->at.run += mmnf_nest_offset(&s->at.nest, rest);
	s->at.last = s->at.run;
	s->at.in = 0;
	mmnf_nest_advance(&s->at.nest, rest);
	used = min_of(rest * run_steps(table, s), s->at.ahead);
	s->at.ahead -= (u32)used;
	table->nr_used += used;
}

/* Does @delta hold the majority of the last few, with this one? */
static bool is_majority(const struct mmnf_stream *s, s64 delta)
{
	u32 i, window, votes = 1;

	for (i = 1, window = 4; i < MMNF_NR_DELTAS; i++) {
		votes += s->delta[(s->turn - i) % MMNF_NR_DELTAS] == delta;
		if (i + 1 < window)
			continue;
		if (votes > window / 2)
			return true;
		window *= 2;
	}
	return false;
}

/* The part of the walk that is planned stays the same in runs. */
static void stream_set_len(struct mmnf_table *table, struct mmnf_stream *s,
			   u64 len)
{
	u32 before = run_steps(table, s), after,
	    frontier = s->at.in + s->at.ahead;
	u64 runs = frontier / before, rest = frontier % before, ahead;

	s->len = len;
	after = run_steps(table, s);
	if (!s->at.ahead)
		return;
	rest = rest + 1 == before ? after - 1 : min_of(rest, after - 1);
	s->passed = false;
	frontier = (u32)min_of(runs * after + rest, U32_MAX / 2);
	ahead = frontier > s->at.in ? frontier - s->at.in : 0;
	table->nr_planned += ahead - s->at.ahead;
	s->at.ahead = (u32)ahead;
}

/* Bytes of the present run up to the end of a touched grain; at least one. */
static u64 run_bytes(const struct mmnf_table *table,
		     const struct mmnf_stream *s, u64 last)
{
	last = grain_of(table, last);
	if (s->dense > 0)
		return last + table->grain - s->at.run;
	/* A record may have been touched behind its start. */
	return s->at.run >= last ? s->at.run - last + 1 : 1;
}

/*
 * A run has ended: it was as long as what was touched, at least, and as what was
 * passed unobserved, @last, at most.  Runs that begin elsewhere in a grain narrow
 * it down.
 */
static void stream_learn_run(struct mmnf_table *table, struct mmnf_stream *s,
			     const struct mmnf_place *seen, u64 last)
{
	u64 low, high, touched;

	if (!s->dense)
		return;
	touched = run_bytes(table, s, seen->last);
	low = magnitude((s64)(seen->last - seen->run)) + 1;
	high = run_bytes(table, s, last) +
	       (u64)(s->dense > 0 ? s->at.after : s->at.before) * table->grain;
	if (s->len >= low && s->len_low <= high) {
		s->alike += s->alike < U32_MAX;
		s->len_low = max_of(s->len_low, low);
		if (s->len > high)
			stream_set_len(table, s, high);
		return;
	}
	s->alike = 0;
	s->len_low = low;
	if (high > table->grain) {
		stream_set_len(table, s, s->len > high ? high : touched);
		return;
	}
	mmnf_stream_give_up(table, s);
	s->dense = 0;
	s->len = 0;
}

/* What of [start, end) lies around a place. */
static void place_around(const struct mmnf_table *table,
			 struct mmnf_place *place, u64 start, u64 end)
{
	place->after = 0;
	if (place->last < end)
		place->after = (u32)grains_between(table, place->last, end - 1);
	place->before = 0;
	if (place->last >= start)
		place->before = (u32)grains_between(table, start, place->last);
}

/* To the next run, which the geometry alone may promise. */
static bool next_delta(const struct mmnf_table *table,
		       const struct mmnf_stream *s, s64 *delta)
{
	struct mmnf_nest nest;
	u64 edge;

	if (s->at.edge != 1)
		return mmnf_nest_next(&s->at.nest, delta);
	return stream_extend(table, s, &nest, &edge) &&
	       mmnf_nest_next(&nest, delta);
}

/* The geometry's word is taken for the next step, next_delta(). */
static void cross_edge(const struct mmnf_table *table, struct mmnf_stream *s)
{
	struct mmnf_nest nest;
	u64 edge;

	if (stream_extend(table, s, &nest, &edge))
		s->at.nest = nest;
}

/*
 * The grains of [start, end) became accessible: what was planned there, in the
 * order of the walk, will not be observed.
 */
static void pass_range(struct mmnf_table *table, struct mmnf_stream *s,
		       u64 start, u64 end)
{
	u32 turn, steps;
	u64 room, run;
	s64 delta;

	place_around(table, &s->at, start, end);
	s->touched = s->at;
	s->passed = false;
	s->passed_runs = 0;
	for (turn = 0; turn < MAX_PASSED && s->at.ahead; turn++) {
		if (s->dense &&
		    (!s->len ||
		     s->at.in + 1 < run_grains(table, s, s->at.run))) {
			room = s->dense > 0 ?
				       grains_between(table, s->at.last,
						      end - 1) :
				       grains_between(table, start, s->at.last);
			if (s->len)
				room = min_of(room,
					      run_grains(table, s, s->at.run) -
						      s->at.in - 1);
			room = min_of(room, MAX_PASSED_GRAINS);
			steps = (u32)min_of(room, s->at.ahead);
			if (!steps)
				break;
			s->at.last = grain_of(table, s->at.last);
			s->at.last += s->dense > 0 ? steps * table->grain :
						     -(steps * table->grain);
			s->at.in += steps;
		} else {
			steps = run_steps(table, s) - s->at.in;
			if (steps > s->at.ahead ||
			    !next_delta(table, s, &delta))
				break;
			run = s->at.run + (u64)delta;
			if (run < start || run >= end || run < table->start ||
			    run >= table->end)
				break;
			if (s->at.edge == 1)
				cross_edge(table, s);
			mmnf_nest_advance(&s->at.nest, 1);
			s->at.onward &= s->at.edge != 1;
			s->at.edge -= s->at.edge != 0;
			s->at.run = run;
			s->at.last = run;
			s->at.in = 0;
			s->passed_runs++;
		}
		s->at.ahead -= steps;
		table->nr_used += steps;
		s->passed = true;
	}
	place_around(table, &s->at, start, end);
}

void mmnf_stream_pass(struct mmnf_table *table, struct mmnf_stream *s,
		      u32 before, u32 after)
{
	u64 first = grain_of(table, s->at.last), reach = before * table->grain;

	s->passed = false;
	s->at.before = before;
	s->at.after = after;
	if (s->at.ahead && (before || after))
		pass_range(table, s, first > reach ? first - reach : 0,
			   first + (after + 1ULL) * table->grain);
}

/* The walk did not go where it was foreseen: what to foresee now? */
void mmnf_stream_learn(struct mmnf_table *table, struct mmnf_stream *s,
		       u64 record)
{
	struct mmnf_place seen = { 0 };
	u64 last = s->at.last;
	u32 wasted = s->at.ahead;
	bool again;
	s64 delta;

	if (s->dense)
		seen = s->passed && s->touched.run == s->at.run ? s->touched :
								  s->at;
	stream_settle(table, s);
	mmnf_stream_give_up(table, s);
	delta = (s64)(record - s->at.run);
	again = delta == s->delta[(s->turn - 1) % MMNF_NR_DELTAS] ||
		is_majority(s, delta);
	if (s->guess)
		s->at.nest.sure = 0;
	if (s->dense && seen.run == s->at.run)
		stream_learn_run(table, s, &seen, last);
	mmnf_nest_learn(&s->at.nest, delta, again);
	if (s->at.nest.doubted || s->at.nest.nr_levels < 2) {
		s->followed = 0;
		s->flat = false;
		if (wasted)
			s->depth /= 2;
		s->depth = (u32)max_of(s->depth, table->limits.min_depth);
	}
	s->guess = s->at.nest.nr_levels == 1 && !(s->at.nest.sure & 1) &&
		   table->guesses && mmnf_axes_has(&table->axes, delta) &&
		   magnitude(delta) > table->grain;
	if (s->guess) {
		table->guesses--;
		s->at.nest.sure |= 1;
	} else if (s->at.nest.nr_levels > 1 && !s->at.nest.doubted) {
		struct mmnf_level level[MMNF_NR_LEVELS];
		u32 top = mmnf_nest_levels(&s->at.nest, level) - 1;

		/* An outer loop along an axis needs no second time either. */
		if (mmnf_axes_has(&table->axes, level[top].stride) ||
		    mmnf_nest_axial(&s->at.nest, &table->axes))
			s->at.nest.sure |= 1 << top;
	}
}

/*
 * A run is longer than any before.  In a nest it is by a grain, if it is for the
 * first time; else it may go on.
 */
static void stream_lengthen(struct mmnf_table *table, struct mmnf_stream *s,
			    const struct mmnf_step *step)
{
	bool again = !s->alike || !(s->at.nest.sure & 1);

	mmnf_stream_give_up(table, s);
	s->len = again ? 0 : (step->in + 1) * table->grain;
	s->len_low = 0;
	s->alike = 0;
}

/* The walk goes on where the geometry said that it would. */
static void stream_carry(struct mmnf_table *table, struct mmnf_stream *s,
			 const struct mmnf_nest *nest)
{
	s->at.nest = *nest;
	s->at.edge = 0;
	if (s->at.onward)
		table->onward = (u32)min_of(table->onward + 2, MAX_GUESSES);
	s->at.onward = false;
}

/* The walk goes on: what was planned and is passed now was used. */
u64 mmnf_stream_follow(struct mmnf_table *table, struct mmnf_stream *s,
		       const struct mmnf_step *step)
{
	const struct mmnf_place seen = s->passed ? s->touched : s->at;
	struct mmnf_nest nest;
	u64 steps, used, edge;

	steps = step->runs * run_steps(table, s) + step->in - s->at.in;
	if (!step->runs) {
		if (s->dense && s->len &&
		    step->in >= run_grains(table, s, s->at.run))
			stream_lengthen(table, s, step);
	} else if (steps > U32_MAX) {
		steps = 1; /* of a run whose end was not known */
	}
	used = min_of(steps, s->at.ahead);
	s->at.ahead -= (u32)used;
	table->nr_used += used;
	if (step->runs && s->dense) {
		/* Read on beyond the end of the run. */
		if (!s->len)
			mmnf_stream_give_up(table, s);
		if (seen.run == s->at.run)
			stream_learn_run(table, s, &seen, s->at.last);
	}
	s->followed +=
		s->followed < U32_MAX / 2 ? (u32)min_of(steps, U32_MAX / 4) : 0;
	if (!step->runs)
		return steps;
	if (step->extended && stream_extend(table, s, &nest, &edge)) {
		stream_carry(table, s, &nest);
	} else if (s->at.edge && step->runs >= s->at.edge) {
		if (stream_extend(table, s, &nest, &edge) &&
		    s->at.run + mmnf_nest_offset(&nest, step->runs) ==
			    step->run) {
			/* The next row follows as the next of this one would. */
			stream_carry(table, s, &nest);
		} else {
			/* On where the geometry promised a carry. */
			mmnf_stream_give_up(table, s);
			s->flat = true;
		}
	} else if (s->at.edge) {
		s->at.edge -= step->runs;
	}
	mmnf_nest_advance(&s->at.nest, step->runs);
	if (s->guess) {
		s->guess = false;
		table->guesses = (u32)min_of(table->guesses + 2, MAX_GUESSES);
	}
	return steps;
}

bool mmnf_stream_alone(const struct mmnf_table *table,
		       const struct mmnf_stream *s, u64 grains)
{
	const struct mmnf_nest *nest = &s->at.nest;
	u64 jump = magnitude(nest->level[0].jump);

	if (s->dense && !s->len)
		return true;
	/* Within a run, its end alone is worth measuring. */
	if (s->dense && !run_is_measured(table, s, s->at.run))
		return s->at.in + grains >= run_steps(table, s);
	if (s->dense && jump >= grains * table->grain)
		return false;
	if (jump < 2 * table->grain)
		return false;
	return jump >= grains * table->grain ||
	       s->followed < MEASURED_STEPS * run_steps(table, s) ||
	       (nest->nr_levels > 1 && nest->open & 1);
}
