// SPDX-License-Identifier: MIT
/*
 * Reading ahead of boxes of one shape that are got one after the other: planes of a
 * volume, say.  The predictor of lib/core is told of one place of each; here it is
 * whole boxes that are asked for.
 *
 *	got:   box 0   box 1   box 2   box 3
 *	           delta   delta   delta
 *	read:                  3 4     5        while 2, 3 are waited for or copied
 *
 * A box is expected where the last two moves were alike, or where the last one went
 * to the box's neighbour along one axis.  Reading ahead begins when a box had to be
 * waited for, so data that is in memory costs nothing, and ends with the first box
 * that is another than expected.
 *
 * Not of fields with an index, where neighbours in the field need not be any in the
 * file.
 *
 * A walker's lock guards its walks; nothing is read under it.
 */
#include <unistd.h>

#include "cache.h"

#define AHEAD_BYTES (8ULL << 20) /* of whole boxes, or the beginning of one */
#define AHEAD_BOXES 16
#define RUNS_MAX 256 /* pieces of a box; what has more is read as far */

static u64 this_thread(void)
{
	static __thread pid_t thread;

	if (!thread)
		thread = gettid();
	return (u64)thread;
}

static u64 magnitude(s64 v)
{
	return v < 0 ? -(u64)v : (u64)v;
}

/* The caller's walk, or the one longest unused. */
static struct mmnf_box_walk *find(struct mmnf_walker *w, const void *ip)
{
	struct mmnf_box_walk *oldest = &w->boxes[0];
	u64 thread = this_thread();
	u32 i;

	for (i = 0; i < MMNF_BOX_WALKS; i++) {
		struct mmnf_box_walk *b = &w->boxes[i];

		if (b->thread == thread && b->ip == ip)
			return b;
		if (b->seen < oldest->seen)
			oldest = b;
	}
	memset(oldest, 0, sizeof(*oldest));
	oldest->thread = thread;
	oldest->ip = ip;
	return oldest;
}

/* One axis, and just as far as the box reaches there. */
static bool to_neighbour(const struct mmnf_box_walk *b, u32 ndim)
{
	u32 i, moved = 0;
	bool next = true;

	for (i = 0; i < ndim; i++) {
		if (!b->delta[i])
			continue;
		moved++;
		next &= magnitude(b->delta[i]) ==
			b->box.count[i] * magnitude(b->box.step[i]);
	}
	return moved == 1 && next;
}

/* True: it was asked for ahead. */
static bool learn(struct mmnf_box_walk *b, const struct mmnf_box *box, u32 ndim)
{
	bool moved = false, alike = true, asked;
	s64 delta[MMNF_NDIM_MAX] = { 0 };
	u32 i;

	for (i = 0; i < ndim; i++) {
		delta[i] = (s64)(box->start[i] - b->box.start[i]);
		moved |= delta[i];
		alike &= delta[i] == b->delta[i];
		if (box->count[i] == b->box.count[i] &&
		    box->step[i] == b->box.step[i])
			continue;
		b->alike = b->ahead = 0;
		b->box = *box;
		memset(b->delta, 0, sizeof(b->delta));
		return false;
	}
	b->box = *box;
	memcpy(b->delta, delta, sizeof(delta));
	if (!moved || !alike)
		b->alike = b->ahead = 0;
	if (moved && (alike || to_neighbour(b, ndim)))
		b->alike++;
	asked = b->ahead;
	b->ahead -= asked;
	return asked;
}

/* The n-th box from here; false: it is not whole inside the field. */
static bool expected(const struct mmnf_geometry *g,
		     const struct mmnf_box_walk *b, u64 n, struct mmnf_box *out)
{
	u32 i;

	*out = b->box;
	for (i = 0; i < g->ndim; i++) {
		u64 reach = (b->box.count[i] - 1) * magnitude(b->box.step[i]);
		u64 low = b->box.step[i] < 0 ? reach : 0;
		s64 way, start;

		if (__builtin_mul_overflow(b->delta[i], (s64)n, &way) ||
		    __builtin_add_overflow((s64)b->box.start[i], way, &start) ||
		    start < (s64)low || (u64)start - low >= g->shape[i] - reach)
			return false;
		out->start[i] = (u64)start;
	}
	return true;
}

/* False: there is no room for more. */
static bool read_box(struct mmnf_field *field, const struct mmnf_box *box,
		     u64 most)
{
	struct mmnf_runs it;
	struct mmnf_run run;
	u64 done = 0;
	u32 nr = 0;

	mmnf_runs_init_mode(&it, mmnf_field_geometry(field), box, most,
			    MMNF_RUNS_COVER);
	while (done < most && nr++ < RUNS_MAX && mmnf_runs_next(&it, &run)) {
		if (!mmnf_walk_read(field, run.segment, run.offset, run.bytes))
			return false;
		done += run.bytes;
	}
	return true;
}

/* What was read ahead of this box is used now. */
static void use(struct mmnf_field *field, const struct mmnf_box *box)
{
	struct mmnf_runs it;
	struct mmnf_run run;
	u32 nr = 0;

	mmnf_runs_init_mode(&it, mmnf_field_geometry(field), box, AHEAD_BYTES,
			    MMNF_RUNS_COVER);
	while (nr++ < RUNS_MAX && mmnf_runs_next(&it, &run))
		mmnf_walk_used(field, run.segment, run.offset, run.bytes);
}

static void read_ahead(struct mmnf_field *field, const struct mmnf_box_walk *b,
		       u32 first, u32 last)
{
	u64 most = AHEAD_BYTES, l2_bytes;
	struct mmnf_box next;
	char *memory;
	u32 n;

	mmnf_cache_memory(field->cache, &memory, &l2_bytes);
	if (memory)
		most = min_u64(most, l2_bytes / 8);
	for (n = first; n <= last; n++)
		if (expected(mmnf_field_geometry(field), b, n, &next) &&
		    !read_box(field, &next, max_u64(most, 4096)))
			break;
}

bool mmnf_boxes_ahead(struct mmnf_field *field, const struct mmnf_box *box,
		      u64 bytes, const void *ip, bool waits)
{
	u32 depth = (u32)min_u64(max_u64(AHEAD_BYTES / bytes, 1), AHEAD_BOXES);
	struct mmnf_box_walk *b, now;
	struct mmnf_walker *w;
	bool comes;

	if (mmnf_field_geometry(field)->indexed)
		return false;
	w = mmnf_walk_walker(field);
	pthread_mutex_lock(&w->lock);
	b = find(w, ip);
	b->seen = ++w->nr_boxes;
	comes = waits ? b->alike :
			learn(b, box, mmnf_field_geometry(field)->ndim);
	now = *b;
	if (comes)
		b->ahead = depth;
	pthread_mutex_unlock(&w->lock);
	if (!waits && mmnf_walk_pending(field))
		use(field, box);
	if (!comes)
		return false;
	read_ahead(field, &now, now.ahead + 1, depth);
	return true;
}
