// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * See nest.h.  Never allocates, sleeps, reads a clock or does I/O.
 *
 * Invariants: at < nr for every level that is not open; jumps of levels above an
 * open one are kept, but nothing is foreseen beyond it.
 */
#include "nest.h"

static bool is_open(const struct mmnf_nest *nest, u32 k)
{
	return nest->open >> k & 1;
}

static bool is_sure(const struct mmnf_nest *nest, u32 k)
{
	return nest->sure >> k & 1;
}

/* Has level k been through its last block? */
static bool is_last(const struct mmnf_nest *nest, u32 k)
{
	return !is_open(nest, k) && nest->level[k].at + 1 >= nest->level[k].nr;
}

/* The level whose jump comes next, from level @k on; nr_levels if none. */
static u32 next_level(const struct mmnf_nest *nest, u32 k)
{
	while (k < nest->nr_levels && is_last(nest, k))
		k++;
	return k;
}

static u64 magnitude(s64 v)
{
	return v < 0 ? -(u64)v : (u64)v;
}

static u64 mul_saturated(u64 a, u64 b)
{
	return a && b > div64_u64(U64_MAX, a) ? U64_MAX : a * b;
}

static u64 add_saturated(u64 a, u64 b)
{
	return b > U64_MAX - a ? U64_MAX : a + b;
}

u64 mmnf_nest_steps(const struct mmnf_nest *nest, s64 delta, u64 reach)
{
	u32 k = next_level(nest, 0), carry;
	u64 left, steps;
	s64 jump;

	if (k == nest->nr_levels)
		return 0;
	jump = nest->level[0].jump;
	if (delta == nest->level[k].jump)
		return 1;
	if (k || !jump || reach < 2)
		return 0;
	left = is_open(nest, 0) ? U64_MAX :
				  nest->level[0].nr - 1 - nest->level[0].at;
	if ((delta < 0) == (jump < 0) && delta) {
		steps = div64_u64(magnitude(delta), magnitude(jump));
		if (steps && steps <= reach && steps <= left &&
		    steps * magnitude(jump) == magnitude(delta))
			return steps;
	}
	/* The rest of the row went unobserved: the next seen is the carry. */
	carry = next_level(nest, 1);
	if (left < reach && carry < nest->nr_levels &&
	    (u64)delta == left * (u64)jump + (u64)nest->level[carry].jump)
		return left + 1;
	return 0;
}

/* Level @k moves on by @steps; those below begin anew. */
static void step_level(struct mmnf_nest *nest, u32 k, u64 steps)
{
	nest->level[k].at += steps;
	while (k-- > 0)
		nest->level[k].at = 0;
}

void mmnf_nest_advance(struct mmnf_nest *nest, u64 steps)
{
	u64 at, carry;
	u32 k;

	nest->doubted = false;
	for (k = 0; k < nest->nr_levels && steps; k++) {
		struct mmnf_nest_level *l = &nest->level[k];

		at = l->at + steps;
		carry = 0;
		if (!is_open(nest, k) && at >= l->nr) {
			carry = div64_u64(at, l->nr);
			at -= carry * l->nr;
		}
		l->at = at;
		if (steps > carry)
			nest->sure |= 1 << k;
		steps = carry;
	}
}

void mmnf_nest_restart(struct mmnf_nest *nest, s64 delta, bool sure)
{
	memset(nest, 0, sizeof(*nest));
	nest->nr_levels = 1;
	nest->open = 1;
	nest->sure = sure;
	nest->level[0].jump = delta;
	nest->level[0].at = sure ? 2 : 1;
}

/* Level @k is new, or taken anew: seen once, outermost, open. */
static void put_level(struct mmnf_nest *nest, u32 k, s64 delta)
{
	u8 below = (1 << k) - 1;

	nest->nr_levels = k + 1;
	nest->open &= below;
	nest->sure &= below;
	nest->open |= 1 << k;
	nest->level[k].jump = delta;
	nest->level[k].nr = 0;
	nest->level[k].at = 0;
	step_level(nest, k, 1);
}

static void drop_level(struct mmnf_nest *nest)
{
	u8 below = (1 << --nest->nr_levels) - 1;

	nest->open &= below;
	nest->sure &= below;
}

static void close_level(struct mmnf_nest *nest, u32 k)
{
	nest->open &= ~(1 << k);
	nest->level[k].nr = nest->level[k].at + 1;
}

/* Strides as if no level were open: one that is, as long as it was before. */
static void old_strides(const struct mmnf_nest *nest, u64 *stride)
{
	u64 inner = 0;
	u32 k;

	for (k = 0; k < nest->nr_levels; k++) {
		stride[k] = (u64)nest->level[k].jump + inner;
		inner += (nest->level[k].nr - 1) * stride[k];
	}
}

/*
 * A jump of another level than the expected one @e: a row was shorter than
 * thought, or is longer.  Either the jump is known, as after a row that was
 * entered in its middle, or the stride is: the row's length was taken wrong.
 */
static bool learn_known(struct mmnf_nest *nest, u32 e, s64 delta)
{
	u64 stride[MMNF_NR_LEVELS], from_start = (u64)delta, longer = 0;
	u32 k, m;

	for (k = 0; k < e; k++) {
		if (nest->level[k].jump != delta)
			continue;
		nest->open |= 1 << k;
		step_level(nest, k, 1);
		return true;
	}
	/* A row of one is none. */
	if (e + 1 >= nest->nr_levels || !nest->level[e].at)
		return false;
	old_strides(nest, stride);
	for (k = 0; k <= e; k++)
		from_start += nest->level[k].at * stride[k];
	for (k = e + 1; k < nest->nr_levels; k++) {
		if (from_start == stride[k])
			longer = (nest->level[e].at + 1 - nest->level[e].nr) *
				 stride[e];
		if (nest->level[k].jump == delta || from_start == stride[k]) {
			for (m = e + 1; m < nest->nr_levels; m++)
				nest->level[m].jump -= longer;
			close_level(nest, e);
			/* That was not its last block either. */
			if (is_last(nest, k))
				nest->open |= 1 << k;
			step_level(nest, k, 1);
			nest->sure |= 1 << k;
			return true;
		}
		if (!is_last(nest, k))
			return false;
		from_start += nest->level[k].at * stride[k];
	}
	return false;
}

void mmnf_nest_learn(struct mmnf_nest *nest, s64 delta, bool again)
{
	u32 e = next_level(nest, 0);

	if (nest->doubted || !nest->nr_levels) {
		mmnf_nest_restart(nest, delta, again);
		return;
	}
	if (learn_known(nest, e, delta))
		return;
	/* What was seen once above a level that goes on was chance. */
	while (nest->nr_levels > e + 1 && !is_sure(nest, nest->nr_levels - 1))
		drop_level(nest);
	if (e < nest->nr_levels && !is_sure(nest, e) &&
	    !(is_open(nest, e) && nest->level[e].at == 1 &&
	      e + 1 < MMNF_NR_LEVELS && !again)) {
		/* Seen once or twice and not again: chance. */
		if (e)
			put_level(nest, e, delta);
		else
			mmnf_nest_restart(nest, delta, again);
		return;
	}
	if (e == nest->nr_levels ||
	    (is_open(nest, e) && next_level(nest, e + 1) == nest->nr_levels)) {
		/* All that is known has ended: a block of a larger whole. */
		if (e < nest->nr_levels)
			close_level(nest, e);
		if (nest->nr_levels < MMNF_NR_LEVELS)
			put_level(nest, nest->nr_levels, delta);
		else
			for (e = 0; e < MMNF_NR_LEVELS; e++)
				nest->level[e].at = 0;
		return;
	}
	if (e) {
		put_level(nest, e, delta);
		return;
	}
	nest->doubted = true;
	for (e = 0; e < nest->nr_levels; e++)
		nest->level[e].at = 0;
}

u64 mmnf_nest_rest(const struct mmnf_nest *nest, u32 k)
{
	u64 steps = 0, block = 1;
	u32 i;

	for (i = 0; i < k; i++) {
		const struct mmnf_nest_level *l = &nest->level[i];

		steps = add_saturated(steps,
				      mul_saturated(l->nr - 1 - l->at, block));
		block = mul_saturated(block, l->nr);
	}
	return steps;
}

u32 mmnf_nest_open_level(const struct mmnf_nest *nest)
{
	u32 k = 0;

	while (k < nest->nr_levels && !is_open(nest, k))
		k++;
	return k;
}

u64 mmnf_nest_horizon(const struct mmnf_nest *nest)
{
	u32 k = 0;

	if (nest->doubted)
		return 0;
	while (k < nest->nr_levels && is_sure(nest, k)) {
		if (is_open(nest, k))
			return U64_MAX;
		k++;
	}
	return mmnf_nest_rest(nest, k);
}

bool mmnf_nest_next(const struct mmnf_nest *nest, s64 *delta)
{
	u32 k = next_level(nest, 0), all;

	if (nest->doubted || k == nest->nr_levels)
		return false;
	all = (2 << k) - 1;
	*delta = nest->level[k].jump;
	return (nest->sure & all) == all;
}

u32 mmnf_nest_levels(const struct mmnf_nest *nest, struct mmnf_level *level)
{
	u64 inner = 0; /* from the first to the last position of a block */
	u32 k;

	for (k = 0; k < nest->nr_levels; k++) {
		level[k].stride = (s64)((u64)nest->level[k].jump + inner);
		level[k].at = nest->level[k].at;
		level[k].nr = is_open(nest, k) ? U64_MAX : nest->level[k].nr;
		if (is_open(nest, k))
			return k + 1;
		inner += (level[k].nr - 1) * (u64)level[k].stride;
	}
	return k;
}

u64 mmnf_nest_offset(const struct mmnf_nest *nest, u64 steps)
{
	struct mmnf_level level[MMNF_NR_LEVELS];
	u32 nr = mmnf_nest_levels(nest, level);

	return mmnf_level_offset(level, nr, steps);
}

void mmnf_axes_init(struct mmnf_axes *axes, u64 base, const s64 *stride,
		    const u64 *extent, u32 nr)
{
	u64 inner = 0; /* bytes that the axes below reach over */
	u32 i, k;

	memset(axes, 0, sizeof(*axes));
	axes->base = base;
	for (i = 0; i < nr && i < MMNF_NR_AXES; i++) {
		if (!stride[i] || extent[i] < 2)
			continue;
		for (k = axes->nr++;
		     k && axes->stride[k - 1] > magnitude(stride[i]); k--) {
			axes->stride[k] = axes->stride[k - 1];
			axes->extent[k] = axes->extent[k - 1];
		}
		axes->stride[k] = magnitude(stride[i]);
		axes->extent[k] = extent[i];
	}
	axes->nested = axes->nr;
	for (k = 0; k < axes->nr; k++) {
		if (axes->stride[k] <= inner)
			axes->nested = false;
		inner = add_saturated(inner, mul_saturated(axes->extent[k] - 1,
							   axes->stride[k]));
	}
}

bool mmnf_axes_has(const struct mmnf_axes *axes, s64 stride)
{
	u32 k;

	for (k = 0; k < axes->nr; k++)
		if (axes->stride[k] == magnitude(stride))
			return true;
	return false;
}

/* The axis that a stride moves along, by *m elements; axes->nr if none. */
static u32 axis_of(const struct mmnf_axes *axes, s64 stride, u64 *m)
{
	u32 k;

	for (k = axes->nr; k-- > 0;) {
		*m = div64_u64(magnitude(stride), axes->stride[k]);
		if (*m)
			return *m < axes->extent[k] &&
					       *m * axes->stride[k] ==
						       magnitude(stride) ?
				       k :
				       axes->nr;
	}
	return axes->nr;
}

/* Coordinate along axis @k of a position; false if it lies outside. */
static bool coordinate(const struct mmnf_axes *axes, u64 pos, u32 k, u64 *c)
{
	u64 off = pos - axes->base, q;
	u32 i;

	for (i = axes->nr; i-- > k;) {
		q = div64_u64(off, axes->stride[i]);
		if (q >= axes->extent[i])
			return false;
		off -= q * axes->stride[i];
		*c = q;
	}
	return true;
}

bool mmnf_nest_axial(const struct mmnf_nest *nest, const struct mmnf_axes *axes)
{
	struct mmnf_level level[MMNF_NR_LEVELS];
	u32 nr = mmnf_nest_levels(nest, level), used = 0, k, axis;
	u64 m;

	for (k = 0; k < nr; k++) {
		axis = axis_of(axes, level[k].stride, &m);
		if (axis == axes->nr || used >> axis & 1)
			return false;
		used |= 1 << axis;
	}
	return axes->nested && nr;
}

/*
 * The axis of the next outer loop: the nearest larger one that no loop uses, else
 * the largest of the smaller ones.  To go on along those is as likely as to stop.
 */
static u32 outer_axis(const struct mmnf_axes *axes, u32 used, u32 axis,
		      u64 least)
{
	u32 k;

	for (k = axis + 1; k < axes->nr; k++)
		if (!(used >> k & 1))
			return k;
	for (k = axis; k-- > 0 && axes->stride[k] >= least;)
		if (!(used >> k & 1))
			return k;
	return axes->nr;
}

bool mmnf_nest_extend(struct mmnf_nest *nest, const struct mmnf_axes *axes,
		      u64 pos, u64 least, u64 *edge)
{
	struct mmnf_level level[MMNF_NR_LEVELS];
	u32 used = 0, axis = axes->nr, k, top, outer;
	bool extended = false, back;
	u64 m, c = 0, inner = 0;

	if (!axes->nested || nest->doubted || !nest->nr_levels)
		return false;
	top = nest->nr_levels - 1;
	/* Only the outermost may be open, and all must be sure. */
	if (nest->open != 1 << top || nest->sure != (2 << top) - 1)
		return false;
	mmnf_nest_levels(nest, level);
	for (k = 0; k <= top; k++) {
		axis = axis_of(axes, level[k].stride, &m);
		if (axis == axes->nr)
			return false;
		used |= 1 << axis;
		if (k == top)
			break;
		pos -= level[k].at * (u64)level[k].stride;
		inner += (level[k].nr - 1) * (u64)level[k].stride;
	}
	for (;;) {
		struct mmnf_nest_level *l = &nest->level[top];
		u64 before, after;

		if (!coordinate(axes, pos, axis, &c))
			return extended;
		back = level[top].stride < 0;
		before = div64_u64(back ? axes->extent[axis] - 1 - c : c, m);
		after = div64_u64(back ? c : axes->extent[axis] - 1 - c, m);
		nest->open &= ~(1 << top);
		l->at = before;
		l->nr = before + after + 1;
		if (!extended)
			*edge = add_saturated(mmnf_nest_horizon(nest), 1);
		extended = true;
		outer = outer_axis(axes, used, axis, least);
		if (outer == axes->nr || top + 1 == MMNF_NR_LEVELS)
			return true;
		pos -= before * (u64)level[top].stride;
		inner += (l->nr - 1) * (u64)level[top].stride;
		axis = outer;
		used |= 1 << axis;
		m = 1;
		top++;
		level[top].stride =
			(s64)(back ? -axes->stride[axis] : axes->stride[axis]);
		nest->nr_levels = top + 1;
		nest->open |= 1 << top;
		nest->sure |= 1 << top;
		nest->level[top].jump = (s64)((u64)level[top].stride - inner);
		nest->level[top].nr = 0;
		nest->level[top].at = 0;
	}
}
