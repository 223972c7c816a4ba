// SPDX-License-Identifier: MIT
/*
 * A selection as pieces: parts of tiles, each with its place in the result.
 *
 * A tile is tile_bytes of a segment file, from a multiple of tile_bytes on; its
 * number is segment * tiles_per_segment + offset / tile_bytes, so that numbers
 * go up in file order.  Offsets are nominal: mmnf_geometry.indexed.
 */
#include <errno.h>
#include <inttypes.h>

#include "tier-gpu.h"

static int check_index(const struct mmnf_geometry *g,
		       const struct mmnf_selection *sel)
{
	u64 last = g->shape[0] - 1, a = 0, b = 0;
	const uint64_t *x = sel->index;
	size_t nr = sel->nr_index, i;

	/*
	 * last is below 2^63: the highest bit of x or of last - x is set where
	 * x is beyond it.  In two chains, for there may be a million.
	 */
	for (i = 0; i + 2 <= nr; i += 2) {
		a |= x[i] | (last - x[i]);
		b |= x[i + 1] | (last - x[i + 1]);
	}
	if (i < nr)
		a |= x[i] | (last - x[i]);
	if (!((a | b) >> 63))
		return 0;
	for (i = 0; x[i] <= last; i++)
		;
	return mmnf_error(ERANGE,
			  "index[%zu] is %" PRIu64
			  ": expected inside 0..%" PRIu64,
			  i, sel->index[i], g->shape[0] - 1);
}

/* A record is one run of bytes in C order, inside one segment and one tile. */
static bool are_rows(const struct mmnf_gpu_cursor *c,
		     const struct mmnf_geometry *g)
{
	s64 stride = g->element_bytes;
	u32 i;

	for (i = g->ndim; i--; stride *= (s64)g->shape[i])
		if (g->stride_bytes[i] != stride)
			return false;
	return g->flat && !g->split && !g->indexed &&
	       c->g->tile_bytes % c->record_bytes == 0 &&
	       g->data_offset % c->record_bytes == 0;
}

static void open_box(struct mmnf_gpu_cursor *c)
{
	mmnf_runs_init_mode(&c->runs, mmnf_field_geometry(c->g->field), &c->box,
			    UINT64_MAX, MMNF_RUNS_WRITE);
	c->is_open = true;
}

int mmnf_gpu_cursor_init(struct mmnf_gpu_cursor *c, struct mmnf_gpu *gpu,
			 const struct mmnf_selection *sel)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(gpu->field);
	int err;
	u32 i;

	memset(c, 0, sizeof(*c));
	c->g = gpu;
	if (sel->box) {
		err = mmnf_geometry_box(g, sel->box, &c->box, &c->bytes);
		if (err)
			return err;
		open_box(c);
		return 0;
	}
	c->record_bytes = g->total_bytes / g->shape[0];
	c->index = sel->index;
	c->nr_index = sel->nr_index;
	if (__builtin_mul_overflow(c->record_bytes, sel->nr_index, &c->bytes))
		return mmnf_error(EOVERFLOW,
				  "%zu records of %" PRIu64
				  " bytes: expected below 2^64 in all",
				  sel->nr_index, c->record_bytes);
	err = check_index(g, sel);
	if (err)
		return err;
	for (i = 0; i < g->ndim; i++) {
		c->box.count[i] = i ? g->shape[i] : 1;
		c->box.step[i] = 1;
	}
	c->by_rows = are_rows(c, g);
	return 0;
}

/* The next run that is not used up, and the next unit of it. */
static bool next_unit(struct mmnf_gpu_cursor *c)
{
	while (!c->left) {
		struct mmnf_run *run = &c->run;

		if (run->unit && run->bytes > run->unit) {
			run->offset += run->file_stride;
			run->bytes -= run->file_stride;
			run->dst += (u64)run->dst_stride;
			c->left = run->unit;
			continue;
		}
		if (c->is_open && mmnf_runs_next(&c->runs, run)) {
			run->dst += c->run_to;
			c->left = run->unit ? run->unit : run->bytes;
			continue;
		}
		if (c->next == c->nr_index)
			return false;
		run->unit = 0;
		c->box.start[0] = c->index[c->next];
		c->run_to = c->next * c->record_bytes;
		c->next++;
		open_box(c);
	}
	return true;
}

bool mmnf_gpu_cursor_peek(struct mmnf_gpu_cursor *c,
			  struct mmnf_gpu_piece *piece)
{
	const struct mmnf_gpu *g = c->g;
	u64 unit, offset;

	if (!next_unit(c))
		return false;
	unit = c->run.unit ? c->run.unit : c->run.bytes;
	offset = c->run.offset + (unit - c->left);
	piece->tile = c->run.segment * g->tiles_per_segment +
		      (offset >> g->tile_shift);
	piece->offset = offset & (g->tile_bytes - 1);
	piece->bytes = min_u64(c->left, g->tile_bytes - piece->offset);
	piece->to = c->run.dst + (unit - c->left);
	return true;
}

void mmnf_gpu_cursor_pass(struct mmnf_gpu_cursor *c,
			  const struct mmnf_gpu_piece *piece)
{
	c->left -= piece->bytes;
}
