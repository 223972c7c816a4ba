/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * A nest of loops, found in the distances between its positions.
 *
 *	for (z..)			level 2		J2
 *		for (y..)		level 1		J1
 *			for (x..)	level 0		J0
 *				touch(z, y, x)
 *
 *	J0 J0 J0 J1 J0 J0 J0 J1 J0 J0 J0 J2 J0 J0 J0 J1 ..
 *
 * The distances are compressed by run length, level by level: a level is a jump
 * and how often it is taken before the next outer one is.  A jump goes from the
 * last position of a block to the first of the next, so a first row that was
 * entered in its middle teaches the same jumps as a whole one.  Any jump may
 * have any sign.  In terms of strides, which are from start to start:
 *
 *	stride[k] = jump[k] + sum over j < k of (nr[j] - 1) * stride[j]
 *
 * The outermost level is open: where it ends is not known, it goes on.  An
 * inner one is open again while a row turns out to be longer than thought.
 *
 * Pure arithmetic modulo 2^64; every loop is bounded by MMNF_NR_LEVELS.  Whether
 * a position lies in the data is the caller's to check.
 */
#ifndef MMNF_CORE_NEST_H
#define MMNF_CORE_NEST_H

#include "port.h"

#define MMNF_NR_LEVELS 4
#define MMNF_NR_AXES 8

/**
 * struct mmnf_nest_level - one loop
 * @jump: distance from the last position of a block to the first of the next
 * @nr: blocks; not valid while the level is open
 * @at: present block, from 0
 */
struct mmnf_nest_level {
	s64 jump;
	u64 nr;
	u64 at;
};

/**
 * struct mmnf_nest - loops and the present position in them; all zero is empty
 * @nr_levels: innermost first
 * @open: bit k: level k has no known end
 * @sure: bit k: jump k has come true, or follows from the geometry
 * @doubted: the walk left a row in its middle; a step along the innermost level
 *	restores what was sure, anything else discards it
 */
struct mmnf_nest {
	u32 nr_levels;
	u8 open;
	u8 sure;
	bool doubted;
	struct mmnf_nest_level level[MMNF_NR_LEVELS];
};

/**
 * struct mmnf_axes - the geometry of the data
 * @nr: axes of more than one element
 * @nested: no two elements share a byte and axes do not interleave, so that a
 *	position has coordinates
 * @base: byte with the lowest coordinates
 * @stride: distance of neighbours, bytes, ascending
 * @extent: elements along the axis
 */
struct mmnf_axes {
	u32 nr;
	bool nested;
	u64 base;
	u64 stride[MMNF_NR_AXES];
	u64 extent[MMNF_NR_AXES];
};

/* As a plan holds it: start to start, and where the first position is. */
struct mmnf_level {
	s64 stride;
	u64 nr; /* U64_MAX: open */
	u64 at;
};

/* Steps from the n-th position on to the end of its innermost row, itself included. */
static inline u64 mmnf_level_row(const struct mmnf_level *level, u64 n)
{
	u64 at = level->at + n;

	if (level->nr == U64_MAX)
		return U64_MAX - n;
	return level->nr - (at - div64_u64(at, level->nr) * level->nr);
}

/* From the position that @level describes to the one @steps further. */
static inline u64 mmnf_level_offset(const struct mmnf_level *level, u32 nr,
				    u64 steps)
{
	u64 offset = 0, at, blocks;
	u32 k;

	for (k = 0; k < nr && steps; k++) {
		at = level[k].at + steps;
		blocks = 0;
		if (level[k].nr != U64_MAX && at >= level[k].nr) {
			blocks = div64_u64(at, level[k].nr);
			at -= blocks * level[k].nr;
		}
		offset += (at - level[k].at) * (u64)level[k].stride;
		steps = blocks;
	}
	return offset;
}

/**
 * mmnf_nest_steps() - how many steps lead from the present position to @delta
 * @reach: most steps to believe: positions of one row may go unobserved, and so
 *	may the rest of a row before its carry
 * Return: 0 if @delta is not on the walk.
 */
u64 mmnf_nest_steps(const struct mmnf_nest *nest, s64 delta, u64 reach);

/* Go on by as many steps as mmnf_nest_steps() said. */
void mmnf_nest_advance(struct mmnf_nest *nest, u64 steps);

/**
 * mmnf_nest_learn() - take in a distance that the nest did not foresee
 * @again: it is what the walk did before, as far as that is remembered
 */
void mmnf_nest_learn(struct mmnf_nest *nest, s64 delta, bool again);

/* Start anew with one distance; @sure: it needs no second time. */
void mmnf_nest_restart(struct mmnf_nest *nest, s64 delta, bool sure);

/**
 * mmnf_nest_horizon() - steps that can be foreseen from the present position
 * Return: U64_MAX if they have no known end.
 */
u64 mmnf_nest_horizon(const struct mmnf_nest *nest);

/**
 * mmnf_nest_next() - the next step alone
 * @delta: receives its distance
 * Return: false if it is not foreseen.
 */
bool mmnf_nest_next(const struct mmnf_nest *nest, s64 *delta);

/**
 * mmnf_nest_rest() - steps to the last position of the blocks below level @k
 *
 * No level below @k is open.
 */
u64 mmnf_nest_rest(const struct mmnf_nest *nest, u32 k);

/* The innermost level without a known end; nr_levels if there is none. */
u32 mmnf_nest_open_level(const struct mmnf_nest *nest);

/**
 * mmnf_nest_levels() - the nest as strides
 * @level: room for MMNF_NR_LEVELS; written up to the first open level
 * Return: number of levels written.
 */
u32 mmnf_nest_levels(const struct mmnf_nest *nest, struct mmnf_level *level);

/* Distance from the present position to the one @steps further. */
u64 mmnf_nest_offset(const struct mmnf_nest *nest, u64 steps);

/**
 * mmnf_axes_init() - sort and check a geometry
 * @base: byte with the lowest coordinates along every axis
 * @stride: signed, bytes
 * @nr: at most MMNF_NR_AXES
 */
void mmnf_axes_init(struct mmnf_axes *axes, u64 base, const s64 *stride,
		    const u64 *extent, u32 nr);

/* Is it the distance of neighbours along an axis? */
bool mmnf_axes_has(const struct mmnf_axes *axes, s64 stride);

/* Does each loop move along an axis of its own, by any number of elements? */
bool mmnf_nest_axial(const struct mmnf_nest *nest,
		     const struct mmnf_axes *axes);

/**
 * mmnf_nest_extend() - foresee carries from the geometry
 * @pos: the present position
 * @least: shortest stride of a smaller axis to go on along; U64_MAX: none
 * @edge: receives the steps until the first position that is foreseen from the
 *	geometry alone
 *
 * Where the outermost stride is a multiple of an axis' stride, its row ends
 * where the axis does, and the next outer axis moves by one: the carry is known
 * before it was ever seen.  Beyond the outermost axis follow the smaller ones, if
 * asked for.  A first row counts as entered in its middle if there is room before
 * it.
 *
 * Return: false if the geometry says nothing; the nest is as it was then.
 */
bool mmnf_nest_extend(struct mmnf_nest *nest, const struct mmnf_axes *axes,
		      u64 pos, u64 least, u64 *edge);

#endif
