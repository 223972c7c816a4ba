// SPDX-License-Identifier: MIT
/*
 * Shapes, boxes and segments: arithmetic only, all of it checked.
 *
 * Numbers come from manifests and callers, so every product is tested before it
 * is used.  Never allocates, never does I/O.
 */
#include <errno.h>
#include <inttypes.h>

#include "internal.h"

static u64 magnitude(s64 v)
{
	return v < 0 ? -(u64)v : (u64)v;
}

static int check_shape(enum mmnf_dtype dtype, unsigned int ndim,
		       const u64 *shape, u64 *total)
{
	u64 bytes = mmnf_dtype_bytes(dtype);
	unsigned int i;

	if (!bytes)
		return mmnf_error(EINVAL,
				  "dtype is %d: not a type that is known",
				  (int)dtype);
	if (ndim < 1 || ndim > MMNF_NDIM_MAX)
		return mmnf_error(EINVAL, "ndim is %u: expected 1 to %d", ndim,
				  MMNF_NDIM_MAX);
	for (i = 0; i < ndim; i++)
		if (!shape[i])
			return mmnf_error(EINVAL,
					  "shape[%u] is 0: expected at least 1",
					  i);
	for (i = 0; i < ndim; i++)
		if (__builtin_mul_overflow(bytes, shape[i], &bytes) ||
		    bytes > (u64)S64_MAX)
			return mmnf_error(
				EOVERFLOW,
				"shape: expected at most 2^63 - 1 bytes in all");
	*total = bytes;
	return 0;
}

/* Axes from the largest stride to the smallest; equals keep their order. */
static void sort_axes(struct mmnf_geometry *g)
{
	u32 i, k;

	for (i = 0; i < g->ndim; i++) {
		u64 size = magnitude(g->stride_bytes[i]);

		for (k = i; k > 0; k--) {
			if (magnitude(g->stride_bytes[g->order[k - 1]]) >= size)
				break;
			g->order[k] = g->order[k - 1];
		}
		g->order[k] = i;
	}
}

static void set_record(struct mmnf_geometry *g)
{
	u32 fast = g->order[g->ndim - 1];
	u64 bytes;

	if (g->stride_bytes[fast] != (s64)g->element_bytes ||
	    __builtin_mul_overflow(g->tile[fast], g->element_bytes, &bytes) ||
	    bytes > 1 << 20)
		bytes = 0;
	g->record_bytes = bytes;
}

/* Is one axis alone cut, so that mmnf_activate() needs one division? */
static void set_flat(struct mmnf_geometry *g)
{
	u32 i;

	for (g->split = 0; g->split + 1 < g->ndim; g->split++)
		if (g->chunk[g->split] != 1)
			break;
	g->flat = g->nr_tiles == 1 && !g->indexed;
	for (i = g->split + 1; i < g->ndim; i++)
		g->flat &= g->grid[i] == 1;
}

static int init_chunks(struct mmnf_geometry *g, const u64 *chunk,
		       const u64 *tile)
{
	u64 bytes = g->element_bytes;
	u32 i;

	for (i = g->ndim; i-- > 0;) {
		if (!chunk[i])
			return mmnf_error(
				EINVAL,
				"chunk_shape[%u] is 0: expected at least 1", i);
		if (!tile[i] || chunk[i] % tile[i])
			return mmnf_error(EINVAL,
					  "tile shape[%u] is %" PRIu64
					  ": expected a divisor of %" PRIu64,
					  i, tile[i], chunk[i]);
		g->chunk[i] = chunk[i];
		g->tile[i] = tile[i];
		g->tiles[i] = chunk[i] / tile[i];
		g->grid[i] =
			g->shape[i] / chunk[i] + !!(g->shape[i] % chunk[i]);
		g->stride_bytes[i] = (s64)bytes;
		if (__builtin_mul_overflow(bytes, tile[i], &bytes) ||
		    bytes > (u64)S64_MAX)
			return mmnf_error(
				EINVAL,
				"chunk_shape: expected at most 2^63 - 1 bytes in a chunk");
	}
	g->tile_bytes = bytes;
	return 0;
}

static int count_segments(struct mmnf_geometry *g)
{
	u64 bytes = g->tile_bytes, padded;
	u32 i;

	g->nr_segments = g->nr_tiles = 1;
	for (i = g->ndim; i-- > 0;) {
		g->segment_stride[i] = g->nr_segments;
		/* At most the product of the shape: can't overflow. */
		g->nr_segments *= g->grid[i];
		g->tile_stride[i] = g->nr_tiles;
		if (__builtin_mul_overflow(bytes, g->tiles[i], &bytes) ||
		    bytes > (u64)S64_MAX / 2)
			return mmnf_error(
				EINVAL,
				"chunk_shape: expected at most 2^62 bytes in a chunk");
		g->nr_tiles *= g->tiles[i];
	}
	g->segment_bytes = bytes;
	/* An entry is 16 bytes, a tile at least 1: the index may be larger. */
	if (g->indexed &&
	    (__builtin_mul_overflow(g->nr_tiles, 16, &g->index_bytes) ||
	     g->index_bytes > (u64)S64_MAX / 4))
		return mmnf_error(
			EINVAL, "chunk_shape: expected fewer tiles in a chunk");
	if (__builtin_mul_overflow(g->nr_segments,
				   g->segment_bytes + g->index_bytes + 4,
				   &padded) ||
	    padded > (u64)S64_MAX)
		return mmnf_error(
			EOVERFLOW,
			"shape: expected at most 2^63 - 1 bytes in whole segments");
	return 0;
}

int mmnf_geometry_init(struct mmnf_geometry *g, enum mmnf_dtype dtype,
		       unsigned int ndim, const u64 *shape, const u64 *chunk,
		       const u64 *tile)
{
	int err;

	memset(g, 0, sizeof(*g));
	err = check_shape(dtype, ndim, shape, &g->total_bytes);
	if (err)
		return err;
	g->dtype = dtype;
	g->ndim = ndim;
	g->element_bytes = mmnf_dtype_bytes(dtype);
	g->fill_is_zero = true;
	g->indexed = tile != NULL;
	memcpy(g->shape, shape, ndim * sizeof(*shape));
	err = init_chunks(g, chunk, tile ? tile : chunk);
	if (!err)
		err = count_segments(g);
	if (err)
		return err;
	sort_axes(g);
	set_record(g);
	set_flat(g);
	return 0;
}

void mmnf_geometry_transpose(struct mmnf_geometry *g, const u32 *axis)
{
	u64 bytes = g->element_bytes;
	u32 k;

	for (k = g->ndim; k-- > 0;) {
		g->stride_bytes[axis[k]] = (s64)bytes;
		bytes *= g->tile[axis[k]];
	}
	sort_axes(g);
	set_record(g);
}

void mmnf_geometry_index(struct mmnf_geometry *g, bool first, bool crc)
{
	/* count_segments() has left room for the four bytes. */
	if (crc)
		g->index_bytes += 4;
	g->index_first = first;
	if (!first)
		return;
	g->data_offset = g->index_bytes;
	g->segment_bytes += g->index_bytes;
}

/* How far the elements reach before and behind the first one, in bytes. */
static bool reach(const struct mmnf_geometry *g, u64 *below, u64 *above)
{
	u64 dist;
	u32 i;

	*below = 0;
	*above = g->element_bytes;
	for (i = 0; i < g->ndim; i++) {
		u64 *side = g->stride_bytes[i] < 0 ? below : above;

		if (__builtin_mul_overflow(g->shape[i] - 1,
					   magnitude(g->stride_bytes[i]),
					   &dist) ||
		    __builtin_add_overflow(*side, dist, side) ||
		    *side > (u64)S64_MAX)
			return false;
	}
	return true;
}

int mmnf_geometry_init_file(struct mmnf_geometry *g, enum mmnf_dtype dtype,
			    unsigned int ndim, const u64 *shape,
			    const s64 *stride_bytes, u64 data_offset,
			    u64 file_bytes)
{
	u64 below, above;
	int err;
	u32 i;

	memset(g, 0, sizeof(*g));
	err = check_shape(dtype, ndim, shape, &g->total_bytes);
	if (err)
		return err;
	g->dtype = dtype;
	g->ndim = ndim;
	g->element_bytes = mmnf_dtype_bytes(dtype);
	g->fill_is_zero = true;
	for (i = 0; i < ndim; i++) {
		g->shape[i] = g->chunk[i] = g->tile[i] = shape[i];
		g->grid[i] = g->tiles[i] = 1;
		g->segment_stride[i] = g->tile_stride[i] = 1;
		g->stride_bytes[i] = stride_bytes[i];
	}
	g->nr_segments = g->nr_tiles = 1;
	if (!reach(g, &below, &above) || below > data_offset ||
	    data_offset > file_bytes || above > file_bytes - data_offset ||
	    file_bytes > (u64)S64_MAX - 4)
		return mmnf_error(EINVAL,
				  "file is %" PRIu64 " bytes: expected %" PRIu64
				  " of header and %" PRIu64 " of data",
				  file_bytes, data_offset, g->total_bytes);
	g->data_offset = data_offset;
	g->segment_bytes = data_offset + above;
	g->tile_bytes = above;
	sort_axes(g);
	set_record(g);
	set_flat(g);
	return 0;
}

int mmnf_geometry_cut(enum mmnf_dtype dtype, unsigned int ndim,
		      const u64 *shape, const u64 *tile, u64 segment_bytes,
		      u64 *chunk)
{
	u64 unit = mmnf_dtype_bytes(dtype), slab, n[MMNF_NDIM_MAX];
	u32 i;
	int err;

	err = check_shape(dtype, ndim, shape, &slab);
	if (err)
		return err;
	/* In units: elements, or whole tiles. */
	for (i = 0; i < ndim; i++) {
		u64 extent = tile ? tile[i] : 1;

		if (!extent)
			return mmnf_error(EINVAL,
					  "tile[%u] is 0: expected at least 1",
					  i);
		n[i] = shape[i] / extent + !!(shape[i] % extent);
		if (__builtin_mul_overflow(unit, extent, &unit) ||
		    unit > (u64)S64_MAX / 2)
			return mmnf_error(
				EINVAL,
				"tile: expected at most 2^62 bytes in a tile");
	}
	slab = unit;
	for (i = 0; i < ndim; i++)
		if (__builtin_mul_overflow(slab, n[i], &slab) ||
		    slab > (u64)S64_MAX)
			return mmnf_error(
				EOVERFLOW,
				"shape: expected at most 2^63 - 1 bytes in whole tiles");
	for (i = 0; i < ndim; i++) {
		slab /= n[i];
		if (slab <= segment_bytes)
			break;
		chunk[i] = 1;
	}
	if (i == ndim)
		return mmnf_error(EINVAL,
				  "segment_bytes is %" PRIu64
				  ": expected at least one %s, %" PRIu64,
				  segment_bytes, tile ? "tile" : "element",
				  slab);
	chunk[i] = min_u64(n[i], segment_bytes / slab);
	while (++i < ndim)
		chunk[i] = n[i];
	for (i = 0; tile && i < ndim; i++)
		chunk[i] *= tile[i];
	return 0;
}

int mmnf_geometry_grow(struct mmnf_geometry *g, u64 extent)
{
	struct mmnf_geometry next;
	u64 shape[MMNF_NDIM_MAX];
	int err;

	memcpy(shape, g->shape, sizeof(shape));
	if (extent < shape[0])
		return mmnf_error(EINVAL,
				  "extent is %" PRIu64
				  ": expected at least the present %" PRIu64,
				  extent, shape[0]);
	shape[0] = extent;
	err = mmnf_geometry_init(&next, g->dtype, g->ndim, shape, g->chunk,
				 g->indexed ? g->tile : NULL);
	if (err)
		return err;
	g->shape[0] = extent;
	g->grid[0] = next.grid[0];
	g->total_bytes = next.total_bytes;
	g->nr_segments = next.nr_segments;
	return 0;
}

void mmnf_geometry_locate(const struct mmnf_geometry *g, const u64 *coord,
			  u64 *segment, u64 *offset)
{
	u64 tile = 0;
	u32 i;

	*segment = 0;
	*offset = g->data_offset;
	for (i = 0; i < g->ndim; i++) {
		u64 c = coord[i];

		if (g->grid[i] > 1) {
			*segment += c / g->chunk[i] * g->segment_stride[i];
			c %= g->chunk[i];
		}
		if (g->tiles[i] > 1) {
			tile += c / g->tile[i] * g->tile_stride[i];
			c %= g->tile[i];
		}
		*offset += c * (u64)g->stride_bytes[i];
	}
	*offset += tile * g->tile_bytes;
}

void mmnf_geometry_set_fill(struct mmnf_geometry *g, const void *fill)
{
	static const u8 zero[8];

	memcpy(g->fill, fill, g->element_bytes);
	g->fill_is_zero = !memcmp(fill, zero, g->element_bytes);
}

void mmnf_geometry_fill(const struct mmnf_geometry *g, void *dst, u64 bytes)
{
	char *p = dst;
	u64 done = min_u64(bytes, g->element_bytes);

	if (g->fill_is_zero) {
		memset(dst, 0, bytes);
		return;
	}
	memcpy(p, g->fill, done);
	while (done < bytes) {
		u64 n = min_u64(done, bytes - done);

		memcpy(p + done, p, n);
		done += n;
	}
}

int mmnf_geometry_box(const struct mmnf_geometry *g, const struct mmnf_box *box,
		      struct mmnf_box *normal, u64 *bytes)
{
	bool empty = false;
	u32 i;

	memset(normal, 0, sizeof(*normal));
	*bytes = g->element_bytes;
	for (i = 0; i < g->ndim; i++)
		empty |= !box->count[i];
	for (i = 0; i < g->ndim && !empty; i++) {
		u64 count = box->count[i], start = box->start[i];
		s64 step = count > 1 && box->step[i] ? box->step[i] : 1;
		u64 size = step < 0 ? -(u64)step : (u64)step, dist;
		bool bad;

		bad = start >= g->shape[i] ||
		      __builtin_mul_overflow(count - 1, size, &dist);
		if (!bad)
			bad = step < 0 ? dist > start :
					 dist >= g->shape[i] - start;
		if (bad)
			return mmnf_error(ERANGE,
					  "box leaves axis %u: %" PRIu64
					  " elements from %" PRIu64
					  " in steps of %" PRId64
					  ": expected inside 0..%" PRIu64,
					  i, count, start, step,
					  g->shape[i] - 1);
		normal->start[i] = start;
		normal->count[i] = count;
		normal->step[i] = step;
		/* No count is more than the extent: less than total_bytes. */
		*bytes *= count;
	}
	if (empty)
		*bytes = 0;
	return 0;
}
