// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Streams: found, followed, learned, planned ahead of.  See predict.h.
 *
 * Never allocates, sleeps, reads a clock or does I/O; every loop is bounded by
 * MMNF_NR_STREAMS.  All arithmetic stays below S64_MAX because positions lie in
 * [start, end) and end does.
 */
#include "predict.h"

const struct mmnf_limits mmnf_limits_default = {
	.min_depth = 8,
	.max_depth = 256,
	.max_window_bytes = 1 << 20,
	.max_inflight_bytes = 64 << 20,
};

/* A window of fewer grains is not worth a plan of its own. */
#define MIN_WINDOW_GRAINS 4
/* Plans of half of this make the waking of a worker cheap beside the reads. */
#define BATCH_DEPTH 64
/* Walks begun on the word of the geometry alone without one coming true. */
#define MAX_GUESSES 4

static u64 magnitude(s64 v)
{
	return v < 0 ? -(u64)v : (u64)v;
}

static u64 grain_of(const struct mmnf_table *table, u64 pos)
{
	return pos & ~(table->grain - 1);
}

static u64 record_of(const struct mmnf_table *table, u64 pos)
{
	u64 off;

	if (table->span == 1 || pos < table->origin)
		return pos;
	off = pos - table->origin;
	return pos - (off - div64_u64(off, table->span) * table->span);
}

/* Does the record reach beyond its first grain? */
static bool record_spills(const struct mmnf_table *table, u64 record)
{
	return grain_of(table, record + table->span - 1) !=
	       grain_of(table, record);
}

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

void mmnf_table_set_axes(struct mmnf_table *table, const s64 *stride, u32 nr)
{
	u32 i;

	table->nr_axes = nr < MMNF_NR_AXES ? nr : MMNF_NR_AXES;
	table->guesses = MAX_GUESSES;
	for (i = 0; i < table->nr_axes; i++)
		table->axis[i] = magnitude(stride[i]);
}

static bool is_axis(const struct mmnf_table *table, s64 stride)
{
	u32 i;

	for (i = 0; i < table->nr_axes; i++)
		if (table->axis[i] == magnitude(stride))
			return true;
	return false;
}

/*
 * A stride of one to two grains touches neighbours, and now and then skips one.
 * What skips a grain by the very delta seen before is such a stride, not dense.
 */
static bool stream_skips(const struct mmnf_table *table,
			 const struct mmnf_stream *s, s64 grains, s64 delta)
{
	return delta == s->delta && !s->covered &&
	       magnitude(delta) > table->grain &&
	       magnitude(delta) < 2 * table->grain &&
	       magnitude(grains) == 2 * table->grain;
}

/*
 * How many steps along its walk the stream would go to reach the access: 0 if
 * the access is not on the walk.  Steps beyond the next one are believed only up
 * to the first position after what was planned or covered: fault-around makes
 * pages accessible without an observation, so a walk over resident pages shows
 * every n-th step, and the first one after them.
 */
static u32 stream_steps(const struct mmnf_table *table,
			const struct mmnf_stream *s,
			const struct mmnf_access *access, u64 record)
{
	s64 stride = s->level[0].stride;
	u64 reach = (u64)s->ahead + 1, dist, step, steps;
	s64 delta;

	if (!s->nr_levels)
		return 0;
	if (s->dense) {
		delta = (s64)(grain_of(table, access->pos) - s->last);
		if (stream_skips(table, s, delta, (s64)(record - s->record)))
			return 0;
		if (stride > 0 && reach < (u64)s->covered + 1)
			reach = (u64)s->covered + 1;
	} else {
		delta = (s64)(record - s->record);
	}
	if (delta == stride)
		return 1;
	if (!delta || (delta < 0) != (stride < 0))
		return 0;
	dist = magnitude(delta);
	step = magnitude(stride);
	if (dist < step)
		return 0;
	steps = div64_u64(dist, step);
	return steps <= reach && steps * step == dist ? (u32)steps : 0;
}

static void stream_give_up(struct mmnf_table *table, struct mmnf_stream *s)
{
	table->nr_wasted += s->ahead;
	if (s->ahead)
		s->depth /= 2;
	s->ahead = 0;
	s->late = 0;
}

/*
 * The stream an access belongs to: one whose walk it continues (the loop may be
 * unrolled, so the instruction need not be the same), else that of the same
 * instruction, else the one unused for longest, cleared.
 */
static struct mmnf_stream *stream_find(struct mmnf_table *table,
				       const struct mmnf_access *access,
				       u64 record, u32 *steps)
{
	struct mmnf_stream *same = NULL, *oldest = &table->stream[0];
	struct mmnf_stream *follows = NULL;
	struct mmnf_stream *recent = &table->stream[table->recent];
	u32 i, n;

	if (recent->seen && recent->thread == access->thread &&
	    recent->ip == access->ip) {
		*steps = stream_steps(table, recent, access, record);
		if (*steps)
			return recent;
	}
	for (i = 0; i < MMNF_NR_STREAMS; i++) {
		struct mmnf_stream *s = &table->stream[i];

		if (s->seen < oldest->seen)
			oldest = s;
		if (!s->seen || s->thread != access->thread)
			continue;
		n = stream_steps(table, s, access, record);
		if (s->ip == access->ip) {
			same = s;
			*steps = n;
			if (n)
				return s;
		} else if (n && s->ahead && !follows) {
			follows = s;
		}
	}
	if (follows) {
		*steps = stream_steps(table, follows, access, record);
		return follows;
	}
	*steps = 0;
	if (same)
		return same;
	stream_give_up(table, oldest);
	memset(oldest, 0, sizeof(*oldest));
	return oldest;
}

/* The delta did not repeat: take it as the candidate for the next time. */
static void stream_learn(struct mmnf_table *table, struct mmnf_stream *s,
			 u64 pos, u64 record)
{
	s64 grains = (s64)(grain_of(table, pos) - grain_of(table, s->last));
	s64 delta = (s64)(record - s->record);
	bool same = delta == s->delta;
	bool dense = false;
	s64 stride;

	/* Of two equal deltas one skipped a grain: not dense, see above. */
	if (!same || s->dense) {
		dense = magnitude(grains) <= table->grain ||
			(grains > 0 &&
			 (u64)grains <= ((u64)s->covered + 1) * table->grain);
	}
	if (dense)
		stride = grains < 0 ? -(s64)table->grain : (s64)table->grain;
	else
		stride = delta;

	/* Only a dense walk repeats without repeating its exact delta. */
	s->confirmed = dense ? s->dense && s->level[0].stride == stride : same;
	s->level[0].stride = stride;
	s->dense = dense;
	s->nr_levels = s->confirmed ? 1 : 0;
	s->planned = false;
	s->followed = 0;
	s->guess = !s->confirmed && !dense && table->guesses &&
		   is_axis(table, stride);
	if (s->guess) {
		table->guesses--;
		s->nr_levels = 1;
	}
	if (dense)
		s->depth = MIN_WINDOW_GRAINS;
	else if (s->depth < table->limits.min_depth)
		s->depth = table->limits.min_depth;
}

/* Most positions the limits and the end of the data leave ahead of the walk. */
static u64 stream_room(const struct mmnf_table *table,
		       const struct mmnf_stream *s, u64 from)
{
	const struct mmnf_limits *limits = &table->limits;
	u64 span = s->dense ? table->grain : table->span;
	u64 most = s->dense ? div64_u64(limits->max_window_bytes, span) :
			      limits->max_depth;
	u64 budget = div64_u64(limits->max_inflight_bytes, span);
	s64 stride = s->level[0].stride;
	u64 left;

	left = stride > 0 ? table->end - 1 - from : from - table->start;
	left = div64_u64(left, magnitude(stride));
	if (budget < 1)
		budget = 1;
	if (most > budget)
		most = budget;
	return most < left ? most : left;
}

/* Was the last plan too shallow?  See the head of predict.h. */
static bool stream_deepens(const struct mmnf_table *table,
			   const struct mmnf_stream *s)
{
	if (!s->planned || s->guess)
		return false;
	if (s->dense)
		return true;
	if (s->late)
		return s->depth < table->limits.max_depth &&
		       (u64)s->depth <=
			       (u64)s->followed * 2 + table->limits.min_depth;
	return s->depth < BATCH_DEPTH && s->followed / 4 >= s->depth;
}

static bool stream_plan(struct mmnf_table *table, struct mmnf_stream *s,
			struct mmnf_plan *plan)
{
	u64 from = s->dense ? s->last : s->record;
	s64 stride = s->level[0].stride;
	bool deepens = stream_deepens(table, s);
	u64 room, target;

	/* A consumer that waits already does not wait for half to be left. */
	if (s->ahead > s->depth / 2 && !(deepens && s->late))
		return false;
	if (deepens)
		s->depth = s->depth > U32_MAX / 2 ? U32_MAX : s->depth * 2;
	room = stream_room(table, s, from);
	/* A depth beyond what may be used would take long to come down. */
	if (s->depth > table->limits.max_depth && !s->dense)
		s->depth = table->limits.max_depth;
	if (s->dense &&
	    (u64)s->depth * table->grain > table->limits.max_window_bytes)
		s->depth = (u32)div64_u64(table->limits.max_window_bytes,
					  table->grain);
	target = s->depth < room ? s->depth : room;
	s->late = 0;
	s->planned = true;
	if (target <= s->ahead)
		return false;

	memset(plan, 0, sizeof(*plan));
	plan->start = from + (u64)stride * ((u64)s->ahead + 1);
	plan->nr_levels = 1;
	plan->level[0].stride = stride;
	plan->level[0].nr = target - s->ahead;
	plan->span = s->dense ? table->grain : table->span;
	table->nr_planned += target - s->ahead;
	s->ahead = (u32)target;
	return true;
}

bool mmnf_record_plan(const struct mmnf_table *table, u64 pos,
		      struct mmnf_plan *plan)
{
	u64 record = record_of(table, pos);

	if (pos < table->start || pos >= table->end ||
	    !record_spills(table, record))
		return false;
	memset(plan, 0, sizeof(*plan));
	plan->start = record;
	plan->nr_levels = 1;
	plan->level[0].stride = (s64)table->span;
	plan->level[0].nr = 1;
	plan->span = table->span;
	return true;
}

bool mmnf_observe(struct mmnf_table *table, const struct mmnf_access *access,
		  struct mmnf_plan *plan)
{
	bool absent = access->outcome == MMNF_MISS;
	u64 pos = access->pos, record;
	struct mmnf_stream *s;
	u32 steps, used;

	table->clock++;
	if (pos < table->start || pos >= table->end)
		return false;
	record = record_of(table, pos);
	s = stream_find(table, access, record, &steps);
	if (!s->seen) {
		s->thread = access->thread;
		s->ip = access->ip;
		s->record = record;
		s->last = pos;
		s->covered = access->covered;
		s->seen = table->clock;
		return absent && mmnf_record_plan(table, pos, plan);
	}
	s->seen = table->clock;
	table->recent = (u32)(s - table->stream);
	if (record == s->record ||
	    (!steps && grain_of(table, pos) == grain_of(table, s->last))) {
		s->late += access->outcome == MMNF_LATE;
		return false;
	}

	if (steps) {
		used = steps < s->ahead ? steps : s->ahead;
		s->ahead -= used;
		table->nr_used += used;
		s->followed += s->followed < U32_MAX / 2 ? steps : 0;
		if (s->guess) {
			s->guess = false;
			table->guesses = table->guesses + 2 < MAX_GUESSES ?
						 table->guesses + 2 :
						 MAX_GUESSES;
		}
	} else {
		stream_give_up(table, s);
		stream_learn(table, s, pos, record);
	}
	s->last = s->dense ? grain_of(table, pos) : pos;
	s->delta = (s64)(record - s->record);
	s->record = record;
	s->covered = access->covered;
	if (access->outcome != MMNF_HIT)
		s->late++;
	/* On resident data, and before the walk is known, there is no plan. */
	if (s->nr_levels && (s->ahead || s->late) &&
	    stream_plan(table, s, plan)) {
		if (absent && !s->dense && record_spills(table, record)) {
			/*
			 * The touched record itself belongs to the same read,
			 * and so does what was planned before: it got lost, or
			 * its turn has not come, which costs a look.
			 */
			plan->start = record;
			plan->level[0].nr = (u64)s->ahead + 1;
		}
		return true;
	}
	return absent && mmnf_record_plan(table, pos, plan);
}
