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

const struct mmnf_limits mmnf_limits_default = {
	.min_depth = 8,
	.max_depth = 256,
	.max_window_bytes = 1 << 20,
	.max_inflight_bytes = 64 << 20,
};

/* Walks begun on the word of the geometry alone without one coming true. */
#define MAX_GUESSES 4
/* A table that wastes more than this part of what it plans begins shallow. */
#define WASTEFUL_PART 8
/* Runs of one length make the next one likely. */
#define MIN_ALIKE 2
/* A stop of the consumer is not its pace. */
#define MAX_PACE_NS 1000000000ULL

void mmnf_table_init(struct mmnf_table *table, u64 grain, u64 start, u64 end,
		     u64 span)
{
	memset(table, 0, sizeof(*table));
	table->grain = grain;
	table->start = start & ~(grain - 1);
	table->end = end;
	table->origin = start;
	table->span = span ? span : 1;
	table->limits = mmnf_limits_default;
}

void mmnf_table_set_axes(struct mmnf_table *table, const s64 *stride,
			 const u64 *extent, u32 nr)
{
	mmnf_axes_init(&table->axes, table->origin, stride, extent, nr);
	table->guesses = MAX_GUESSES;
}

static void stream_give_up(struct mmnf_table *table, struct mmnf_stream *s)
{
	table->nr_wasted += s->ahead;
	s->ahead = 0;
	s->late = 0;
	s->edge = 0;
	s->planned = false;
}

/**
 * struct step - what an access means for a stream
 * @runs: runs that the walk goes on by; 0: stays in its run
 * @in: grains from the start of the run then
 * @run: where that run began
 * @extended: the geometry's word was needed
 * @on_walk: false: not foreseen
 */
struct step {
	u64 runs;
	u32 in;
	u64 run;
	bool extended;
	bool on_walk;
};

/*
 * Touches one to two grains apart are neighbours that now and then skip one.
 * What skips a grain by the very distance seen before is a stride, not dense.
 */
static bool is_stride(const struct mmnf_table *table,
		      const struct mmnf_stream *s, u64 pos)
{
	s64 gap = (s64)(pos - s->last);

	return gap == s->gap && !s->covered && magnitude(gap) > table->grain &&
	       magnitude(gap) < 2 * table->grain &&
	       magnitude(grains_between(table, s->last, pos)) == 2;
}

/* On through the present run, in either direction if it has none yet. */
static bool step_in_run(const struct mmnf_table *table,
			const struct mmnf_stream *s, u64 pos, struct step *step)
{
	s64 grains = grains_between(table, s->last, pos);
	u64 reach = 1, rest;

	if (!grains || table->span > table->grain ||
	    record_of(table, pos) == record_of(table, s->last))
		return false;
	if (s->dense && (grains < 0) != (s->dense < 0))
		return false;
	if (s->dense)
		reach = max_of(reach, (u64)s->ahead + 1);
	if (grains > 0)
		reach = max_of(reach, (u64)s->covered + 1);
	/* Beyond its end a run is believed only step by step. */
	if (s->dense && s->len) {
		rest = run_grains(table, s, s->run);
		rest = rest > s->in + 1 ? rest - s->in - 1 : 1;
		reach = min_of(reach, rest);
	}
	if (magnitude(grains) > reach || is_stride(table, s, pos))
		return false;
	step->runs = 0;
	step->run = s->run;
	step->in = s->in + (u32)magnitude(grains);
	step->on_walk = true;
	return true;
}

/* The next run was foreseen; its first grains may have been mapped before. */
static bool step_near(const struct mmnf_table *table,
		      const struct mmnf_stream *s, u64 run, u64 pos,
		      struct step *step)
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
			struct step *step)
{
	u64 reach = s->ahead / run_steps(table, s) + 1;
	u64 next;

	if (!nest->nr_levels)
		return false;
	step->runs = mmnf_nest_steps(nest, (s64)(record - s->run), reach);
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
	       step_near(table, s, s->run + next, pos, step);
}

static struct step stream_step(const struct mmnf_table *table,
			       const struct mmnf_stream *s, u64 pos, u64 record)
{
	struct step step = { 0 };
	struct mmnf_nest nest;
	u64 edge;

	if (step_to_run(table, s, &s->nest, pos, record, &step) ||
	    step_in_run(table, s, pos, &step))
		return step;
	if (s->edge && stream_extend(table, s, &nest, &edge))
		step.extended =
			step_to_run(table, s, &nest, pos, record, &step);
	return step;
}

/*
 * The stream an access belongs to: one whose walk it continues (the loop may be
 * unrolled, so the instruction need not be the same), else that of the same
 * instruction, else the one unused for longest, cleared.
 */
static struct mmnf_stream *stream_find(struct mmnf_table *table,
				       const struct mmnf_access *access,
				       u64 record, struct step *step)
{
	struct mmnf_stream *same = NULL, *oldest = &table->stream[0];
	struct mmnf_stream *follows = NULL, *s;
	struct step other;
	u32 i;

	s = &table->stream[table->recent];
	if (s->seen && s->thread == access->thread && s->ip == access->ip) {
		*step = stream_step(table, s, access->pos, record);
		if (step->on_walk)
			return s;
	}
	for (i = 0; i < MMNF_NR_STREAMS; i++) {
		s = &table->stream[i];
		if (s->seen < oldest->seen)
			oldest = s;
		if (!s->seen || s->thread != access->thread)
			continue;
		if (s->ip == access->ip) {
			same = s;
			*step = stream_step(table, s, access->pos, record);
			if (step->on_walk)
				return s;
		} else if (s->ahead && !follows) {
			other = stream_step(table, s, access->pos, record);
			if (other.on_walk)
				follows = s;
		}
	}
	if (follows) {
		*step = stream_step(table, follows, access->pos, record);
		/* Two that turn out to be one walk. */
		if (same && same->ahead == 0)
			memset(same, 0, sizeof(*same));
		return follows;
	}
	memset(step, 0, sizeof(*step));
	if (same)
		return same;
	stream_give_up(table, oldest);
	memset(oldest, 0, sizeof(*oldest));
	return oldest;
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

/* How deep a walk begins: as deep as it has to be, as far as that is known. */
static u32 first_depth(const struct mmnf_table *table,
		       const struct mmnf_stream *s)
{
	u32 depth = (u32)max_of(s->depth, table->limits.min_depth);
	u64 wanted;

	if (!table->latency_ns || !s->pace_ns ||
	    table->nr_wasted > table->nr_used / WASTEFUL_PART + BATCH_DEPTH)
		return depth;
	wanted = div64_u64(table->latency_ns + table->latency_ns / 2,
			   s->pace_ns);
	wanted = min_of(wanted, BATCH_DEPTH);
	return (u32)max_of(depth, min_of(wanted, table->limits.max_depth));
}

/* The part of the walk that is planned stays the same in runs. */
static void stream_set_len(struct mmnf_table *table, struct mmnf_stream *s,
			   u64 len)
{
	u32 before = run_steps(table, s), after, frontier = s->in + s->ahead;
	u64 runs = frontier / before, rest = frontier % before, ahead;

	s->len = len;
	after = run_steps(table, s);
	if (!s->ahead)
		return;
	rest = rest + 1 == before ? after - 1 : min_of(rest, after - 1);
	frontier = (u32)min_of(runs * after + rest, U32_MAX / 2);
	ahead = frontier > s->in ? frontier - s->in : 0;
	table->nr_planned += ahead - s->ahead;
	s->ahead = (u32)ahead;
}

/* The length of runs is what the shortest one seen whole could have. */
static void stream_learn_run(struct mmnf_table *table, struct mmnf_stream *s)
{
	u64 first, last, low = 1, high;

	if (s->covered)
		return;
	first = grain_of(table, s->run);
	last = grain_of(table, s->last);
	if (last >= first) {
		high = last + table->grain - s->run;
		if (last > first)
			low = last - s->run + 1;
	} else {
		high = s->run + 1 - last;
		low = high - table->grain + 1;
	}
	if (s->len >= low && s->len <= high) {
		s->alike += s->alike < U32_MAX;
		return;
	}
	s->alike = 0;
	if (s->in) {
		stream_set_len(table, s, high);
		return;
	}
	stream_give_up(table, s);
	s->dense = 0;
	s->len = 0;
}

/* The walk did not go where it was foreseen: what to foresee now? */
static void stream_learn(struct mmnf_table *table, struct mmnf_stream *s,
			 u64 pos, u64 record)
{
	s64 delta = (s64)(record - s->run);
	bool again = delta == s->delta[(s->turn - 1) % MMNF_NR_DELTAS] ||
		     is_majority(s, delta);
	bool stride = is_stride(table, s, pos);
	u32 wasted = s->ahead;

	stream_give_up(table, s);
	if (s->guess)
		s->nest.sure = 0;
	if (stride) {
		/* It passed for a dense run until it was seen to skip. */
		mmnf_nest_restart(&s->nest, s->gap, true);
	} else {
		stream_learn_run(table, s);
		mmnf_nest_learn(&s->nest, delta, again);
	}
	if (stride || s->nest.doubted || s->nest.nr_levels < 2) {
		s->followed = 0;
		s->flat = false;
		if (wasted)
			s->depth /= 2;
		s->depth = first_depth(table, s);
	}
	if (stride)
		s->dense = 0;
	s->guess = s->nest.nr_levels == 1 && !(s->nest.sure & 1) &&
		   table->guesses && mmnf_axes_has(&table->axes, delta) &&
		   magnitude(delta) > table->grain;
	if (s->guess) {
		table->guesses--;
		s->nest.sure |= 1;
	} else if (s->nest.nr_levels > 1 && !s->nest.doubted) {
		struct mmnf_level level[MMNF_NR_LEVELS];
		u32 top = mmnf_nest_levels(&s->nest, level) - 1;

		/* An outer loop along an axis needs no second time either. */
		if (mmnf_axes_has(&table->axes, level[top].stride))
			s->nest.sure |= 1 << top;
	}
}

/* Is anything known of what comes next? */
static bool stream_foresees(const struct mmnf_stream *s)
{
	return s->nest.sure & 1 || s->in > 1 ||
	       (s->dense && s->len && (s->in || s->alike >= MIN_ALIKE));
}

static u64 smoothed(u64 mean, u64 sample)
{
	return mean ? mean - mean / 4 + sample / 4 : sample;
}

/* Steps of this access, and what they say of the consumer's pace. */
static void stream_time(struct mmnf_stream *s, const struct mmnf_access *access,
			u64 steps)
{
	u64 pace;

	if (access->now_ns && s->ready_ns && access->now_ns > s->ready_ns &&
	    access->now_ns - s->ready_ns < MAX_PACE_NS) {
		pace = div64_u64(access->now_ns - s->ready_ns,
				 max_of(steps, 1));
		s->pace_ns = smoothed(s->pace_ns, max_of(pace, 1));
	}
	s->touched_ns = access->now_ns;
	s->ready_ns = access->outcome == MMNF_HIT ? access->now_ns : 0;
	s->missed = access->outcome == MMNF_MISS;
}

void mmnf_resume(struct mmnf_table *table, u64 thread, u64 now_ns)
{
	struct mmnf_stream *s = &table->stream[table->recent];

	if (!s->seen || s->thread != thread || s->ready_ns || !s->touched_ns ||
	    now_ns <= s->touched_ns)
		return;
	if (s->missed)
		table->latency_ns =
			smoothed(table->latency_ns, now_ns - s->touched_ns);
	s->ready_ns = now_ns;
}

/* The walk goes on: what was planned and is passed now was used. */
static u64 stream_follow(struct mmnf_table *table, struct mmnf_stream *s,
			 const struct step *step)
{
	struct mmnf_nest nest;
	u64 steps, used, edge;

	steps = step->runs * run_steps(table, s) + step->in - s->in;
	if (!step->runs) {
		/* Longer than any before: it may go on. */
		if (s->dense && s->len &&
		    step->in >= run_grains(table, s, s->run)) {
			stream_give_up(table, s);
			s->len = 0;
		}
	} else if (steps > U32_MAX) {
		steps = 1; /* of a run whose end was not known */
	}
	used = min_of(steps, s->ahead);
	s->ahead -= (u32)used;
	table->nr_used += used;
	if (step->runs && s->dense) {
		/* Read on beyond the end of the run. */
		if (!s->len)
			stream_give_up(table, s);
		stream_learn_run(table, s);
	}
	s->followed +=
		s->followed < U32_MAX / 2 ? (u32)min_of(steps, U32_MAX / 4) : 0;
	if (!step->runs)
		return steps;
	if (step->extended && stream_extend(table, s, &nest, &edge)) {
		s->nest = nest;
		s->edge = 0;
	} else if (s->edge && step->runs >= s->edge) {
		if (stream_extend(table, s, &nest, &edge) &&
		    s->run + mmnf_nest_offset(&nest, step->runs) == step->run) {
			/* The next row follows as the next of this one would. */
			s->nest = nest;
			s->edge = 0;
		} else {
			/* On where the geometry promised a carry. */
			stream_give_up(table, s);
			s->flat = true;
		}
	} else if (s->edge) {
		s->edge -= step->runs;
	}
	mmnf_nest_advance(&s->nest, step->runs);
	if (s->guess) {
		s->guess = false;
		table->guesses = (u32)min_of(table->guesses + 2, MAX_GUESSES);
	}
	return steps;
}

static void stream_begin(struct mmnf_table *table, struct mmnf_stream *s,
			 const struct mmnf_access *access, u64 record)
{
	s->thread = access->thread;
	s->ip = access->ip;
	s->run = record;
	s->last = access->pos;
	s->covered = access->covered;
	s->seen = table->clock;
	stream_time(s, access, 1);
}

bool mmnf_observe(struct mmnf_table *table, const struct mmnf_access *access,
		  struct mmnf_plan *plan)
{
	bool absent = access->outcome == MMNF_MISS, was_dense;
	u64 pos = access->pos, record, steps = 1;
	struct mmnf_stream *s;
	struct step step;

	table->clock++;
	if (pos < table->start || pos >= table->end)
		return false;
	record = table->span > 1 ? record_of(table, pos) : pos;
	s = stream_find(table, access, record, &step);
	table->recent = (u32)(s - table->stream);
	if (!s->seen) {
		stream_begin(table, s, access, record);
		return absent && mmnf_record_plan(table, pos, plan);
	}
	s->seen = table->clock;
	if (!step.on_walk &&
	    (record == record_of(table, s->last) ||
	     grain_of(table, pos) == grain_of(table, s->last))) {
		s->late += access->outcome == MMNF_LATE;
		stream_time(s, access, 1);
		return false;
	}

	was_dense = s->dense;
	if (step.on_walk) {
		steps = stream_follow(table, s, &step);
	} else {
		stream_learn(table, s, pos, record);
		step.run = record;
		step.in = 0;
		step.runs = 1;
	}
	if (step.runs)
		s->delta[s->turn++ % MMNF_NR_DELTAS] = (s64)(step.run - s->run);
	if (!step.runs && !s->dense) {
		s->dense = pos > s->last ? 1 : -1;
		s->len = 0;
	}
	if (stream_sequential(s) && !was_dense)
		s->depth = MIN_WINDOW_GRAINS;
	stream_time(s, access, steps);
	s->gap = (s64)(pos - s->last);
	s->run = step.run;
	s->in = step.in;
	s->last = pos;
	s->covered = access->covered;
	if (access->outcome != MMNF_HIT)
		s->late++;
	/* On resident data, and before the walk is known, there is no plan. */
	if (stream_foresees(s) && (s->ahead || s->late) &&
	    mmnf_stream_plan(table, s, plan)) {
		if (absent && !s->dense && plan->nr_levels &&
		    record_spills(table, record)) {
			/*
			 * The touched record itself belongs to the same read,
			 * and so does what was planned before: it got lost, or
			 * its turn has not come, which costs a look.
			 */
			mmnf_stream_replan(table, s, plan);
		}
		return true;
	}
	return absent && mmnf_record_plan(table, pos, plan);
}
