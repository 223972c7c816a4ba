// SPDX-License-Identifier: MIT
/*
 * Fields: made, opened, described, closed.
 *
 * What opening costs does not depend on the size of the field: nothing is
 * listed, and nothing is allocated per segment.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"
#include "tier.h"

#define SEGMENT_DEFAULT (64ULL << 30)
#define SEGMENT_DEFAULT_FILLED (64ULL << 20)

MMNF_EXPORT int mmnf_field_create(const char *path, enum mmnf_dtype dtype,
				  unsigned int ndim, const uint64_t *shape,
				  const struct mmnf_create_opts *opts)
{
	u64 chunk[MMNF_NDIM_MAX], segment_bytes = 0;
	static const u8 zero[8];
	const void *fill = zero;
	struct mmnf_geometry g;
	int err = 0;

	mmnf_error_enter("mmnf_field_create");
	if (!path || !shape)
		return mmnf_error(EINVAL, "path and shape: expected not NULL");
	if (opts)
		err = mmnf_error_opts(opts, opts->size, sizeof(*opts),
				      "mmnf_create_opts");
	if (err)
		return err;
	if (opts && opts->size >= offsetof(struct mmnf_create_opts, fill))
		segment_bytes = opts->segment_bytes;
	if (opts && opts->size >= sizeof(*opts) && opts->fill)
		fill = opts->fill;
	if (!segment_bytes)
		segment_bytes = memcmp(fill, zero, mmnf_dtype_bytes(dtype)) ?
					SEGMENT_DEFAULT_FILLED :
					SEGMENT_DEFAULT;
	err = mmnf_geometry_cut(dtype, ndim, shape, NULL, segment_bytes, chunk);
	if (!err)
		err = mmnf_geometry_init(&g, dtype, ndim, shape, chunk, NULL);
	if (err)
		return err;
	mmnf_geometry_set_fill(&g, fill);
	return mmnf_zarr_write(path, &g);
}

static int choose_engine(struct mmnf_field *field, u32 wanted)
{
	char *reason = field->engine_reason;
	size_t len = sizeof(field->engine_reason);
	int err = 0;

	if (wanted > MMNF_ENGINE_MMAP)
		return mmnf_error(EOPNOTSUPP,
				  "engine is %u: expected AUTO, DEVICE or MMAP",
				  wanted);
	if (wanted != MMNF_ENGINE_MMAP)
		err = mmnf_tier_device.probe(reason, len);
	if (wanted == MMNF_ENGINE_DEVICE && err)
		return mmnf_error(EOPNOTSUPP, "engine device: %s", reason);
	if (wanted == MMNF_ENGINE_MMAP)
		mmnf_tier_mmap.probe(reason, len);
	if (wanted == MMNF_ENGINE_MMAP || err) {
		field->engine = MMNF_ENGINE_MMAP;
		field->ops = &mmnf_tier_mmap;
	} else {
		field->engine = MMNF_ENGINE_DEVICE;
		field->ops = &mmnf_tier_device;
	}
	return 0;
}

static void fill_view(struct mmnf_field *field)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_view *v = &field->view;
	u32 i;

	v->ndim = g->ndim;
	v->split = g->split;
	v->tiled = !g->flat;
	v->observe = field->walk != NULL;
	v->data_offset = g->data_offset;
	v->row = g->stride_bytes[g->ndim - 1] == (s64)g->element_bytes ?
			 g->tile[g->ndim - 1] :
			 1;
	v->split_extent = g->chunk[g->split];
	for (i = 0; i < g->ndim; i++) {
		v->extent[i] = g->shape[i];
		v->segment_stride[i] = g->segment_stride[i];
		v->stride_bytes[i] = g->stride_bytes[i];
	}
}

static int open_parts(struct mmnf_field *field, const char *path,
		      const struct mmnf_open_opts *opts)
{
	int err;

	field->writable = opts->writable;
	field->prefetch_off = opts->prefetch_off;
	field->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (field->dir < 0)
		return mmnf_error_system(errno, "%s", path);
	err = mmnf_zarr_read(&field->zarr, field->dir, path);
	if (err)
		return err;
	if (field->writable && faccessat(field->dir, ".", W_OK, AT_EACCESS))
		return mmnf_error_system(errno, "%s: opening for writing",
					 path);
	err = choose_engine(field, opts->engine);
	if (err)
		return err;
	if (field->engine == MMNF_ENGINE_MMAP && !field->prefetch_off &&
	    mmnf_walk_init(field))
		return mmnf_error(ENOMEM, "no memory");
	if (mmnf_window_init(field, opts->max_windows))
		return mmnf_error(ENOMEM, "no memory");
	fill_view(field);
	return 0;
}

MMNF_EXPORT int mmnf_field_open(struct mmnf_field **out, const char *path,
				const struct mmnf_open_opts *opts)
{
	struct mmnf_open_opts o = { .size = sizeof(o) };
	struct mmnf_field *field;
	int err;

	mmnf_error_enter("mmnf_field_open");
	if (!out || !path)
		return mmnf_error(EINVAL, "out and path: expected not NULL");
	*out = NULL;
	if (opts) {
		err = mmnf_error_opts(opts, opts->size, sizeof(o),
				      "mmnf_open_opts");
		if (err)
			return err;
		memcpy(&o, opts, min_u64(opts->size, sizeof(o)));
	}
	if (o.writable > 1 || o.prefetch_off > 1)
		return mmnf_error(
			EINVAL,
			"mmnf_open_opts: writable and prefetch_off: expected 0 or 1");
	field = calloc(1, sizeof(*field));
	if (!field)
		return mmnf_error(ENOMEM, "no memory");
	pthread_mutex_init(&field->segments.lock, NULL);
	field->windows.pattern = -1;
	err = open_parts(field, path, &o);
	if (err) {
		mmnf_field_close(field);
		return err;
	}
	*out = field;
	return 0;
}

MMNF_EXPORT void mmnf_field_close(struct mmnf_field *field)
{
	if (!field)
		return;
	mmnf_window_exit(field);
	mmnf_segment_close_all(field);
	if (field->dir >= 0)
		close(field->dir);
	free(field->walk);
	free(field);
}

MMNF_EXPORT int mmnf_field_info(const struct mmnf_field *field,
				struct mmnf_field_info *out)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_field_info info = { 0 };

	mmnf_error_enter("mmnf_field_info");
	if (out->size < offsetof(struct mmnf_field_info, tile_shape) ||
	    out->size > sizeof(*out))
		return mmnf_error(EINVAL, "size is %zu: expected %zu",
				  out->size, sizeof(*out));
	info.size = out->size;
	info.dtype = g->dtype;
	info.ndim = g->ndim;
	info.engine = field->engine;
	info.element_bytes = g->element_bytes;
	memcpy(info.shape, g->shape, sizeof(info.shape));
	memcpy(info.segment_shape, g->chunk, sizeof(info.segment_shape));
	info.total_bytes = g->total_bytes;
	info.segment_bytes = g->segment_bytes;
	info.nr_segments = g->nr_segments;
	memcpy(info.fill, g->fill, sizeof(info.fill));
	snprintf(info.engine_reason, sizeof(info.engine_reason), "%s",
		 field->engine_reason);
	memcpy(info.tile_shape, g->tile, sizeof(info.tile_shape));
	memcpy(info.stride_bytes, g->stride_bytes, sizeof(info.stride_bytes));
	info.data_offset_bytes = g->data_offset;
	snprintf(info.format, sizeof(info.format), "zarr");
	memcpy(out, &info, info.size);
	return 0;
}

MMNF_EXPORT int mmnf_field_sync(struct mmnf_field *field)
{
	mmnf_error_enter("mmnf_field_sync");
	return mmnf_segment_sync(field);
}

MMNF_EXPORT int mmnf_field_stats(struct mmnf_field *field,
				 struct mmnf_field_stats *out)
{
	struct mmnf_field_stats stats;

	mmnf_error_enter("mmnf_field_stats");
	if (out->size != sizeof(*out))
		return mmnf_error(EINVAL, "size is %zu: expected %zu",
				  out->size, sizeof(*out));
	stats = field->stats;
	field->ops->stats(field, &stats);
	stats.size = sizeof(stats);
	*out = stats;
	return 0;
}
