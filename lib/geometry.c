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

/* The axis that is cut into chunks of more than one; the last if none is. */
static u32 find_split(u32 ndim, const u64 *chunk)
{
	u32 i = 0;

	while (i + 1 < ndim && chunk[i] == 1)
		i++;
	return i;
}

int mmnf_geometry_init(struct mmnf_geometry *g, enum mmnf_dtype dtype,
		       unsigned int ndim, const u64 *shape, const u64 *chunk)
{
	u64 bytes, padded;
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
	bytes = g->element_bytes;
	for (i = ndim; i-- > 0;) {
		if (!chunk[i])
			return mmnf_error(
				EINVAL,
				"chunk_shape[%u] is 0: expected at least 1", i);
		g->shape[i] = shape[i];
		g->chunk[i] = chunk[i];
		g->grid[i] = shape[i] / chunk[i] + !!(shape[i] % chunk[i]);
		g->stride_bytes[i] = bytes;
		if (__builtin_mul_overflow(bytes, chunk[i], &bytes) ||
		    bytes > (u64)S64_MAX)
			return mmnf_error(
				EINVAL,
				"chunk_shape: expected at most 2^63 - 1 bytes in a chunk");
	}
	g->segment_bytes = bytes;
	g->split = find_split(ndim, chunk);
	g->nr_segments = 1;
	for (i = ndim; i-- > 0;) {
		if (i > g->split && g->grid[i] != 1)
			return mmnf_error(
				EOPNOTSUPP,
				"chunk_shape[%u] is %" PRIu64 " of %" PRIu64
				": expected chunks that are contiguous in the array: one axis is cut, before it 1, behind it the full extent",
				i, chunk[i], shape[i]);
		if (i > g->split)
			continue;
		g->segment_stride[i] = g->nr_segments;
		/* At most the product of the shape: can't overflow. */
		g->nr_segments *= g->grid[i];
	}
	if (__builtin_mul_overflow(g->nr_segments, g->segment_bytes, &padded) ||
	    padded > (u64)S64_MAX)
		return mmnf_error(
			EOVERFLOW,
			"shape: expected at most 2^63 - 1 bytes in whole segments");
	bytes = g->stride_bytes[g->ndim - 1] * g->chunk[g->ndim - 1];
	g->record_bytes = bytes <= 1 << 20 ? bytes : 0;
	return 0;
}

int mmnf_geometry_cut(enum mmnf_dtype dtype, unsigned int ndim,
		      const u64 *shape, u64 segment_bytes, u64 *chunk)
{
	u64 slab;
	u32 i;
	int err;

	err = check_shape(dtype, ndim, shape, &slab);
	if (err)
		return err;
	for (i = 0; i < ndim; i++) {
		slab /= shape[i];
		if (slab <= segment_bytes)
			break;
		chunk[i] = 1;
	}
	if (i == ndim)
		return mmnf_error(EINVAL,
				  "segment_bytes is %" PRIu64
				  ": expected at least one element, %" PRIu64,
				  segment_bytes, slab);
	chunk[i] = min_u64(shape[i], segment_bytes / slab);
	while (++i < ndim)
		chunk[i] = shape[i];
	return 0;
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
