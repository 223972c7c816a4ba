// SPDX-License-Identifier: MIT
/*
 * A box as the contiguous pieces of segment files it consists of.
 *
 * The innermost axes that are taken whole merge into one run; a run is cut at
 * the ends of segments.  Boxes are in normal form (mmnf_geometry_box()), so no
 * sum here overflows.  Never allocates.
 */
#include "internal.h"

void mmnf_runs_init(struct mmnf_runs *it, const struct mmnf_geometry *g,
		    const struct mmnf_box *normal, u64 limit)
{
	u32 i;

	memset(it, 0, sizeof(*it));
	it->g = g;
	it->box = *normal;
	it->axis = g->ndim;
	it->run_bytes = g->element_bytes;
	it->limit = limit;
	for (i = 0; i < g->ndim; i++)
		it->end |= !normal->count[i];
	for (i = g->ndim; i-- > g->split;) {
		if (normal->step[i] != 1 || it->run_bytes != g->stride_bytes[i])
			break;
		it->axis = i;
		it->run_bytes = g->stride_bytes[i] * normal->count[i];
	}
}

static u64 coordinate(const struct mmnf_runs *it, u32 axis)
{
	u64 step = (u64)it->box.step[axis];

	if (axis >= it->axis)
		return it->box.start[axis];
	return it->box.start[axis] + it->index[axis] * step;
}

/* Where the run at the present index starts. */
static void locate(const struct mmnf_runs *it, struct mmnf_run *run)
{
	const struct mmnf_geometry *g = it->g;
	u32 i;

	run->segment = run->offset = run->dst = 0;
	for (i = 0; i < g->ndim; i++) {
		u64 c = coordinate(it, i);

		if (i < it->axis)
			run->dst = run->dst * it->box.count[i] + it->index[i];
		if (i < g->split) {
			run->segment += c * g->segment_stride[i];
		} else if (i == g->split) {
			run->segment += c / g->chunk[i];
			run->offset += c % g->chunk[i] * g->stride_bytes[i];
		} else {
			run->offset += c * g->stride_bytes[i];
		}
	}
	run->dst *= it->run_bytes;
	/* Only a run along the split axis can go on in the next segment. */
	run->offset += it->pos;
	run->dst += it->pos;
	run->segment += run->offset / g->segment_bytes;
	run->offset %= g->segment_bytes;
}

static void carry(struct mmnf_runs *it, u32 axis)
{
	u32 i = axis;

	it->pos = 0;
	while (i-- > 0) {
		if (++it->index[i] < it->box.count[i])
			return;
		it->index[i] = 0;
	}
	it->end = true;
}

bool mmnf_runs_next(struct mmnf_runs *it, struct mmnf_run *run)
{
	if (it->end)
		return false;
	locate(it, run);
	run->bytes = min_u64(it->run_bytes - it->pos,
			     it->g->segment_bytes - run->offset);
	run->bytes = min_u64(run->bytes, it->limit);
	it->last_segment = run->segment;
	it->pos += run->bytes;
	if (it->pos == it->run_bytes)
		carry(it, it->axis);
	return true;
}

void mmnf_runs_skip_segment(struct mmnf_runs *it)
{
	u32 split = it->g->split, i;
	struct mmnf_run run;
	u64 c, k, step, n;

	if (it->end)
		return;
	locate(it, &run);
	if (run.segment != it->last_segment)
		return;
	if (it->axis <= split) {
		/* In the middle of a run that was cut by the limit. */
		it->pos += min_u64(it->run_bytes - it->pos,
				   it->g->segment_bytes - run.offset);
		if (it->pos == it->run_bytes)
			carry(it, it->axis);
		return;
	}
	c = coordinate(it, split);
	k = it->g->chunk[split];
	if (it->box.step[split] > 0) {
		step = (u64)it->box.step[split];
		n = (k - c % k - 1) / step + 1;
	} else {
		step = -(u64)it->box.step[split];
		n = c % k / step + 1;
	}
	for (i = split + 1; i < it->axis; i++)
		it->index[i] = 0;
	it->pos = 0;
	n = min_u64(n, it->box.count[split] - it->index[split]);
	it->index[split] += n - 1;
	carry(it, split + 1);
}

void mmnf_runs_cover(const struct mmnf_geometry *g, struct mmnf_box *box,
		     u64 gap)
{
	u32 i;

	for (i = g->ndim; i-- > g->split;) {
		s64 step = box->step[i];
		u64 size = step < 0 ? -(u64)step : (u64)step;
		u64 dist = (box->count[i] - 1) * size;

		/* size is below the extent where there are two elements */
		if (size * g->stride_bytes[i] > gap)
			return;
		if (step < 0)
			box->start[i] -= dist;
		box->count[i] = dist + 1;
		box->step[i] = 1;
		if (i > g->split && box->count[i] < g->chunk[i] &&
		    (g->chunk[i] - box->count[i]) * g->stride_bytes[i] <= gap) {
			box->start[i] = 0;
			box->count[i] = g->chunk[i];
		}
	}
}
