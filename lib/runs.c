// SPDX-License-Identifier: MIT
/*
 * A box as the runs of bytes in segment files that it consists of.
 *
 * Segment by segment, tile by tile; inside a tile the axes are walked in the
 * order of the file, whatever the order of the box: a Fortran array is read
 * forwards and spread over the box.
 *
 *	the box along one axis, step 3, tiles of 4:
 *	| . 0 . . | 1 . . 2 | . . 3 . |		at = 0, 1, 3   n = 1, 2, 1
 *
 * Boxes are in normal form (mmnf_geometry_box()), so no sum here overflows.
 * Never allocates.
 */
#include "internal.h"

#define GAP_BYTES 4096 /* a page, which would be read anyway */
#define PIECE_MAX 4096 /* larger ones are better read to their place */

static u64 magnitude(s64 v)
{
	return v < 0 ? -(u64)v : (u64)v;
}

/* Coordinate of the box's element number at along an axis. */
static u64 coordinate(const struct mmnf_runs *it, u32 axis, u64 at)
{
	return it->box.start[axis] + at * (u64)it->box.step[axis];
}

/* How many elements from number at on are in one cell of extent; most is n. */
static u64 in_cell(const struct mmnf_runs *it, u32 axis, u64 extent, u64 at,
		   u64 n)
{
	s64 step = it->box.step[axis];
	u64 r = coordinate(it, axis, at) % extent;

	if (step == 1)
		return min_u64(n, extent - r);
	if (step > 0)
		return min_u64(n, (extent - r - 1) / (u64)step + 1);
	return min_u64(n, r / -(u64)step + 1);
}

static void clip_segment(struct mmnf_runs *it, u32 i)
{
	u64 at = it->in_segment.at[i], left = it->box.count[i] - at;

	if (it->g->grid[i] > 1)
		left = in_cell(it, i, it->g->chunk[i], at, left);
	it->in_segment.n[i] = left;
}

static void clip_tile(struct mmnf_runs *it, u32 i)
{
	u64 at = it->in_tile.at[i];
	u64 left = it->in_segment.at[i] + it->in_segment.n[i] - at;

	if (it->g->tiles[i] > 1)
		left = in_cell(it, i, it->g->tile[i], at, left);
	it->in_tile.n[i] = left;
}

static u64 step_bytes(const struct mmnf_runs *it, u32 axis)
{
	return (u64)it->box.step[axis] * (u64)it->g->stride_bytes[axis];
}

/* Starts a run at its lowest address, so that the file is read forwards. */
static void turn(struct mmnf_runs *it, u32 axis)
{
	u64 n = it->in_tile.n[axis] - 1;

	if ((s64)step_bytes(it, axis) >= 0)
		return;
	it->offset += n * step_bytes(it, axis);
	it->dst += n * it->dst_pitch[axis];
}

/* The innermost axes that can be taken together; the rest is counted. */
static void plan_copy(struct mmnf_runs *it)
{
	const struct mmnf_geometry *g = it->g;
	u64 size;
	u32 i;

	for (; it->axis > 0; it->axis--) {
		i = g->order[it->axis - 1];
		if (it->in_tile.n[i] == 1)
			continue;
		if (step_bytes(it, i) != it->unit ||
		    it->dst_pitch[i] != it->unit)
			break;
		it->unit *= it->in_tile.n[i];
	}
	if (!it->axis || it->unit > PIECE_MAX)
		return;
	i = g->order[it->axis - 1];
	size = magnitude((s64)step_bytes(it, i));
	if (size < it->unit || size - it->unit > GAP_BYTES ||
	    (it->mode == MMNF_RUNS_WRITE && size != it->unit))
		return;
	it->nr = it->in_tile.n[i];
	it->file_stride = (u32)size;
	it->dst_stride = (s64)it->dst_pitch[i];
	turn(it, i);
	if ((s64)step_bytes(it, i) < 0)
		it->dst_stride = -it->dst_stride;
	it->axis--;
}

static void plan_cover(struct mmnf_runs *it)
{
	for (; it->axis > 0; it->axis--) {
		u32 i = it->g->order[it->axis - 1];
		u64 size = magnitude((s64)step_bytes(it, i));

		if (it->in_tile.n[i] == 1)
			continue;
		if (size > it->unit + GAP_BYTES)
			return;
		turn(it, i);
		it->unit += (it->in_tile.n[i] - 1) * size;
	}
}

static void enter_tile(struct mmnf_runs *it)
{
	const struct mmnf_geometry *g = it->g;
	u64 coord[MMNF_NDIM_MAX];
	u32 i;

	it->dst = 0;
	for (i = 0; i < g->ndim; i++) {
		coord[i] = coordinate(it, i, it->in_tile.at[i]);
		it->dst += it->in_tile.at[i] * it->dst_pitch[i];
		it->index[i] = 0;
	}
	mmnf_geometry_locate(g, coord, &it->segment, &it->offset);
	it->unit = g->element_bytes;
	it->nr = 1;
	it->pos = 0;
	it->axis = g->ndim;
	if (it->mode == MMNF_RUNS_COVER)
		plan_cover(it);
	else
		plan_copy(it);
}

static void enter_segment(struct mmnf_runs *it)
{
	u32 i;

	for (i = 0; i < it->g->ndim; i++) {
		it->in_tile.at[i] = it->in_segment.at[i];
		clip_tile(it, i);
	}
	enter_tile(it);
}

static void next_segment(struct mmnf_runs *it)
{
	u32 i = it->g->ndim;

	while (i-- > 0) {
		it->in_segment.at[i] += it->in_segment.n[i];
		if (it->in_segment.at[i] < it->box.count[i]) {
			clip_segment(it, i);
			enter_segment(it);
			return;
		}
		it->in_segment.at[i] = 0;
		clip_segment(it, i);
	}
	it->end = true;
}

static void next_tile(struct mmnf_runs *it)
{
	u32 i = it->g->nr_tiles > 1 ? it->g->ndim : 0;

	while (i-- > 0) {
		it->in_tile.at[i] += it->in_tile.n[i];
		if (it->in_tile.at[i] <
		    it->in_segment.at[i] + it->in_segment.n[i]) {
			clip_tile(it, i);
			enter_tile(it);
			return;
		}
		it->in_tile.at[i] = it->in_segment.at[i];
		clip_tile(it, i);
	}
	next_segment(it);
}

/* To the next run in the tile, or out of it. */
static void carry(struct mmnf_runs *it)
{
	u32 level = it->axis;

	it->pos = 0;
	while (level-- > 0) {
		u32 i = it->g->order[level];
		u64 n = it->in_tile.n[i];

		if (++it->index[level] < n) {
			it->offset += step_bytes(it, i);
			it->dst += it->dst_pitch[i];
			return;
		}
		it->index[level] = 0;
		it->offset -= (n - 1) * step_bytes(it, i);
		it->dst -= (n - 1) * it->dst_pitch[i];
	}
	next_tile(it);
}

void mmnf_runs_init_mode(struct mmnf_runs *it, const struct mmnf_geometry *g,
			 const struct mmnf_box *normal, u64 limit,
			 enum mmnf_runs_mode mode)
{
	u64 pitch = g->element_bytes;
	u32 i;

	it->g = g;
	it->mode = mode;
	it->limit = limit;
	it->box = *normal;
	it->end = false;
	it->last_segment = UINT64_MAX;
	for (i = g->ndim; i-- > 0;) {
		it->end |= !normal->count[i];
		it->dst_pitch[i] = pitch;
		pitch *= normal->count[i];
	}
	if (it->end)
		return;
	for (i = 0; i < g->ndim; i++) {
		it->in_segment.at[i] = 0;
		clip_segment(it, i);
	}
	enter_segment(it);
}

bool mmnf_runs_next(struct mmnf_runs *it, struct mmnf_run *run)
{
	u64 n;

	if (it->end)
		return false;
	run->segment = it->last_segment = it->segment;
	run->unit = run->file_stride = 0;
	run->dst_stride = 0;
	if (it->nr == 1) {
		n = min_u64(it->unit - it->pos, it->limit);
		run->offset = it->offset + it->pos;
		run->dst = it->dst + it->pos;
		run->bytes = n;
		it->pos += n;
		if (it->pos == it->unit)
			carry(it);
		return true;
	}
	n = min_u64(it->nr - it->pos,
		    (it->limit - it->unit) / it->file_stride + 1);
	run->offset = it->offset + it->pos * it->file_stride;
	run->dst = it->dst + it->pos * (u64)it->dst_stride;
	run->bytes = (n - 1) * it->file_stride + it->unit;
	if (n > 1) {
		run->unit = (u32)it->unit;
		run->file_stride = it->file_stride;
		run->dst_stride = it->dst_stride;
	}
	it->pos += n;
	if (it->pos == it->nr)
		carry(it);
	return true;
}

void mmnf_runs_skip_segment(struct mmnf_runs *it)
{
	if (!it->end && it->segment == it->last_segment)
		next_segment(it);
}

bool mmnf_run_is_whole(const struct mmnf_geometry *g,
		       const struct mmnf_box *normal, struct mmnf_run *run)
{
	u64 unit = g->element_bytes, first, last;
	u32 i = g->ndim;

	while (i-- > 0) {
		if (normal->count[i] == 1)
			continue;
		if (normal->step[i] != 1 || g->stride_bytes[i] != (s64)unit)
			return false;
		unit *= normal->count[i];
		if (g->grid[i] == 1 && g->tiles[i] == 1)
			continue;
		first = normal->start[i];
		last = first + normal->count[i] - 1;
		if (first / g->tile[i] != last / g->tile[i])
			return false;
	}
	*run = (struct mmnf_run) { .bytes = unit };
	mmnf_geometry_locate(g, normal->start, &run->segment, &run->offset);
	return true;
}

/* Sizes known to the compiler make each piece one load and one store. */
#define COPY_PIECES(size)                       \
	do {                                    \
		for (; nr; nr--) {              \
			memcpy(to, from, size); \
			to += to_stride;        \
			from += from_stride;    \
		}                               \
	} while (0)

static void copy_pieces(char *to, s64 to_stride, const char *from,
			s64 from_stride, u32 unit, u64 nr)
{
	switch (unit) {
	case 1:
		COPY_PIECES(1);
		return;
	case 2:
		COPY_PIECES(2);
		return;
	case 4:
		COPY_PIECES(4);
		return;
	case 8:
		COPY_PIECES(8);
		return;
	default:
		COPY_PIECES(unit);
	}
}

static u64 nr_pieces(const struct mmnf_run *run)
{
	return (run->bytes - run->unit) / run->file_stride + 1;
}

void mmnf_run_scatter(const struct mmnf_run *run, const void *from, void *box)
{
	char *to = (char *)box + run->dst;

	if (run->unit)
		copy_pieces(to, run->dst_stride, from, run->file_stride,
			    run->unit, nr_pieces(run));
	else
		memcpy(to, from, run->bytes);
}

void mmnf_run_gather(const struct mmnf_run *run, const void *box, void *to)
{
	const char *from = (const char *)box + run->dst;

	if (run->unit)
		copy_pieces(to, run->file_stride, from, run->dst_stride,
			    run->unit, nr_pieces(run));
	else
		memcpy(to, from, run->bytes);
}

void mmnf_run_fill(const struct mmnf_geometry *g, const struct mmnf_run *run,
		   void *box)
{
	char *to = (char *)box + run->dst;
	u64 i;

	if (!run->unit)
		mmnf_geometry_fill(g, to, run->bytes);
	for (i = 0; run->unit && i < nr_pieces(run); i++)
		mmnf_geometry_fill(g, to + (s64)i * run->dst_stride, run->unit);
}
