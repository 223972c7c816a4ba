// SPDX-License-Identifier: MIT
/*
 * Workloads that walk: strides, nests, planes, tiles, several walks at once.
 *
 * The volume of the defaults, f32 [256][1024][1024], is the one whose planes are
 * slow in numpy.memmap (numpy issue 8070 is the same for one axis).
 */
#include <string.h>

#include "generate.h"

/* A field of bytes large enough for everything up to @end. */
static void vector(struct gen *g, uint64_t end)
{
	int64_t extent = (int64_t)end;

	gen_geometry(g, 1, &extent, 1, 0);
}

static void run_strided(struct gen *g)
{
	int64_t count = (int64_t)gen_number(g, "count");
	int64_t stride = (int64_t)gen_number(g, "stride"), size, i;
	uint64_t bytes = gen_number(g, "bytes"), epochs, by;

	if (count < 1 || stride < 1 ||
	    __builtin_mul_overflow(count, stride, &size)) {
		gen_wrong(g, "count, stride: expected at least 1, and a "
			     "product below 2^63");
		return;
	}
	vector(g, (uint64_t)size + bytes);
	by = gen_number(g, "unrolled");
	for (epochs = gen_number(g, "epochs"); epochs; epochs--) {
		for (i = 0; i < count && !g->wrong[0]; i++) {
			int64_t n = gen_number(g, "reverse") ? count - 1 - i :
							       i;

			if (by)
				g->ip = 0x1000 + (uint64_t)i % by * 16;
			gen_touch(g, (uint64_t)(n * stride), bytes);
		}
	}
}

static void run_sequential(struct gen *g)
{
	int64_t count = 1, stride = 0;
	uint64_t bytes = gen_number(g, "bytes");

	vector(g, bytes);
	if (!gen_number(g, "reverse")) {
		gen_nest(g, 0, 1, &count, &stride, bytes);
		return;
	}
	count = (int64_t)(bytes / PAGE_BYTES);
	stride = -(int64_t)PAGE_BYTES;
	gen_nest(g, (uint64_t)(count - 1) * PAGE_BYTES, 1, &count, &stride, 1);
}

static void run_nest(struct gen *g)
{
	int64_t count[TRACE_NDIM_MAX], stride[TRACE_NDIM_MAX];
	uint32_t nr = gen_list(g, "count", count), i;
	uint64_t start = 0, end, bytes = gen_number(g, "bytes");

	if (gen_list(g, "stride", stride) != nr) {
		gen_wrong(g, "count and stride: expected as many");
		return;
	}
	end = bytes;
	for (i = 0; i < nr; i++) {
		int64_t reach;

		if (count[i] < 1 ||
		    __builtin_mul_overflow(count[i] - 1, stride[i], &reach)) {
			gen_wrong(g, "count, stride: too large, or no count");
			return;
		}
		if (reach < 0)
			start += -(uint64_t)reach;
		else
			end += (uint64_t)reach;
	}
	vector(g, start + end);
	gen_nest(g, start, nr, count, stride, bytes);
}

/*
 * A box of a packed array, axes in any order, slowest first; the run along the
 * last axis is one touch where that axis comes last and has no step.
 */
static void run_walk(struct gen *g)
{
	int64_t shape[TRACE_NDIM_MAX], start[TRACE_NDIM_MAX];
	int64_t count[TRACE_NDIM_MAX], step[TRACE_NDIM_MAX];
	int64_t order[TRACE_NDIM_MAX], n[TRACE_NDIM_MAX];
	int64_t stride[TRACE_NDIM_MAX];
	uint64_t element = gen_number(g, "element"), pos = 0, bytes = element;
	uint32_t ndim = gen_list(g, "shape", shape), i;

	if (gen_list(g, "start", start) != ndim ||
	    gen_list(g, "count", count) != ndim ||
	    gen_list(g, "step", step) != ndim ||
	    gen_list(g, "order", order) != ndim) {
		gen_wrong(g, "shape, start, count, step and order: expected "
			     "as many numbers in each");
		return;
	}
	gen_geometry(g, ndim, shape, element, gen_number(g, "record"));
	for (i = 0; i < ndim && !g->wrong[0]; i++) {
		int64_t a = order[i], last;

		if (a < 0 || a >= (int64_t)ndim) {
			gen_wrong(g, "order: expected 0 to %u", ndim - 1);
			return;
		}
		if (count[a] < 1 || start[a] < 0 || start[a] >= shape[a] ||
		    __builtin_mul_overflow(count[a] - 1, step[a], &last) ||
		    __builtin_add_overflow(last, start[a], &last) || last < 0 ||
		    last >= shape[a]) {
			gen_wrong(
				g,
				"axis %d: from %lld on %lld elements, %lld apart: expected inside 0 to %lld",
				(int)a, (long long)start[a],
				(long long)count[a], (long long)step[a],
				(long long)shape[a] - 1);
			return;
		}
		pos += (uint64_t)(start[a] * g->trace->geometry.stride[a]);
		n[i] = count[a];
		stride[i] = step[a] * g->trace->geometry.stride[a];
	}
	if (g->wrong[0])
		return;
	if (order[ndim - 1] == (int64_t)ndim - 1 && step[ndim - 1] == 1) {
		bytes = (uint64_t)n[ndim - 1] * element;
		n[ndim - 1] = 1;
	}
	gen_nest(g, pos, ndim, n, stride, bytes);
}

/* Boxes of one size at random places. */
static void run_boxes(struct gen *g)
{
	int64_t shape[TRACE_NDIM_MAX], count[TRACE_NDIM_MAX];
	uint64_t element = gen_number(g, "element"), boxes;
	uint32_t ndim = gen_list(g, "shape", shape), i;

	if (gen_list(g, "count", count) != ndim) {
		gen_wrong(g, "shape and count: expected as many numbers");
		return;
	}
	gen_geometry(g, ndim, shape, element, 0);
	for (boxes = gen_number(g, "boxes"); boxes && !g->wrong[0]; boxes--) {
		int64_t n[TRACE_NDIM_MAX];
		uint64_t pos = 0;

		for (i = 0; i < ndim; i++) {
			if (count[i] < 1 || count[i] > shape[i]) {
				gen_wrong(g, "count: not inside the shape");
				return;
			}
			n[i] = count[i];
			pos += gen_below(g,
					 (uint64_t)(shape[i] - count[i] + 1)) *
			       (uint64_t)g->trace->geometry.stride[i];
		}
		n[ndim - 1] = 1;
		gen_nest(g, pos, ndim, n, g->trace->geometry.stride,
			 (uint64_t)count[ndim - 1] * element);
	}
}

/*
 * One loop over several arrays, an instruction each; or a thread each, which take
 * turns by their own time.
 */
static void run_together(struct gen *g, bool threads)
{
	uint64_t nr = gen_number(g, "nr"), count = gen_number(g, "count");
	uint64_t stride = gen_number(g, "stride"), size, i, n;

	if (!nr || !count || !stride || nr > 1024 ||
	    __builtin_mul_overflow(count, stride, &size) ||
	    size > INT64_MAX / nr) {
		gen_wrong(g, "nr, count, stride: expected 1 to 1024 arrays, "
			     "below 2^63 bytes in all");
		return;
	}
	vector(g, nr * size);
	for (i = 0; i < count && !g->wrong[0]; i++) {
		for (n = 0; n < nr; n++) {
			if (threads)
				g->thread = 1 + n;
			else
				g->ip = 0x1000 + n * 16;
			gen_touch(g, n * size + i * stride, 8);
		}
	}
}

static void run_arrays(struct gen *g)
{
	run_together(g, false);
}

static void run_threads(struct gen *g)
{
	run_together(g, true);
}

/*
 * A plane through a volume of cubic tiles, each tile in one piece, tiles in C order:
 * TensorStore's ts_benchmark has u8 [1024,1024,1024] in chunks of 64^3.
 */
static void run_tiles(struct gen *g)
{
	uint64_t n = gen_number(g, "extent"), t = gen_number(g, "tile");
	uint64_t axis = gen_number(g, "axis"), at = gen_number(g, "at");
	int64_t shape[6], count[6], stride[6];
	uint64_t tiles, pos = 0;
	uint32_t i;

	if (!t || n % t || axis > 2 || at >= n || n > 1 << 20) {
		gen_wrong(g, "extent, tile, axis, at: expected tiles that fill "
			     "the volume and a plane in it");
		return;
	}
	tiles = n / t;
	for (i = 0; i < 3; i++) {
		shape[i] = (int64_t)tiles;
		shape[i + 3] = (int64_t)t;
	}
	gen_geometry(g, 6, shape, 1, 0);
	for (i = 0; i < 6; i++) {
		count[i] = shape[i];
		stride[i] = g->trace->geometry.stride[i];
	}
	pos = at / t * (uint64_t)stride[axis] +
	      at % t * (uint64_t)stride[axis + 3];
	count[axis] = 1;
	count[axis + 3] = 1;
	if (axis == 2) {
		gen_nest(g, pos, 6, count, stride, 1);
		return;
	}
	count[5] = 1;
	gen_nest(g, pos, 6, count, stride, t);
}

const struct workload workloads_walk[] = {
	{ "strided",
	  "every stride-th byte of a vector",
	  { { "count", "4000", "touches" },
	    { "stride", "69632", "bytes between them" },
	    { "bytes", "8", "of each touch" },
	    { "reverse", "0", "1: backwards" },
	    { "unrolled", "0", "instructions that take turns" },
	    { "epochs", "1", "times the loop runs" } },
	  run_strided },
	{ "sequential",
	  "every page in order",
	  { { "bytes", "33554432", "of the field" },
	    { "reverse", "0", "1: backwards" } },
	  run_sequential },
	{ "nest",
	  "nested loops over a vector",
	  { { "count", "40,100", "turns of each loop, outermost first" },
	    { "stride", "16777216,12288", "bytes of a turn, any sign" },
	    { "bytes", "8", "of each touch" } },
	  run_nest },
	{ "walk",
	  "a box of an array, axes in any order",
	  { { "shape", "256,1024,1024", "of the array" },
	    { "element", "4", "bytes" },
	    { "record", "0", "bytes that ATTACH is told" },
	    { "start", "0,512,0", "first element of the box" },
	    { "count", "256,1,1024", "elements along each axis" },
	    { "step", "1,1,1", "between them, any sign" },
	    { "order", "0,1,2", "of the axes, slowest first" } },
	  run_walk },
	{ "boxes",
	  "boxes at random places of an array",
	  { { "shape", "256,1024,1024", "of the array" },
	    { "element", "4", "bytes" },
	    { "count", "16,16,16", "elements along each axis" },
	    { "boxes", "16", "how many" } },
	  run_boxes },
	{ "arrays",
	  "one loop over several arrays",
	  { { "nr", "4", "arrays" },
	    { "count", "1000", "touches of each" },
	    { "stride", "69632", "bytes between them" } },
	  run_arrays },
	{ "threads",
	  "threads that walk side by side",
	  { { "nr", "4", "threads" },
	    { "count", "1000", "touches of each" },
	    { "stride", "69632", "bytes between them" } },
	  run_threads },
	{ "tiles",
	  "a plane through a volume of u8 in cubic tiles",
	  { { "extent", "1024", "of the volume along each axis" },
	    { "tile", "64", "extent of a tile" },
	    { "axis", "0", "that the plane is across" },
	    { "at", "500", "where on that axis" } },
	  run_tiles },
	{ 0 },
};
