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
#include <sys/stat.h>
#include <unistd.h>

#include "net.h"
#include "store/store.h"
#include "tier.h"

#define SEGMENT_DEFAULT (64ULL << 30)
#define SEGMENT_DEFAULT_FILLED (64ULL << 20)
#define STRIPE_DEFAULT (1ULL << 20)

/* All of it is one run of bytes there, and what it holds is there already. */
static int create_remote(const char *path, enum mmnf_dtype dtype,
			 unsigned int ndim, const u64 *shape,
			 const struct mmnf_create_opts *o)
{
	struct mmnf_net_layout *net = calloc(1, sizeof(*net));
	static const u8 zero[8];
	struct mmnf_geometry g;
	int err = 0;
	u32 i;

	if (!net)
		return mmnf_error(ENOMEM, "no memory");
	if (o->tile || memcmp(o->fill, zero, mmnf_dtype_bytes(dtype)))
		err = mmnf_error(
			EINVAL,
			"mmnf_create_opts: tile, fill: expected neither with net");
	net->stripe_bytes = o->stripe_bytes ? o->stripe_bytes : STRIPE_DEFAULT;
	for (i = 0; i < o->nr_net && !err; i++)
		err = mmnf_net_layout_add(net, o->net[i]);
	if (!err)
		err = mmnf_net_layout_check(net);
	if (!err)
		err = mmnf_geometry_init(&g, dtype, ndim, shape, shape, NULL);
	if (!err) {
		mmnf_geometry_set_fill(&g, zero);
		err = mmnf_zarr_write(path, &g, false, net);
	}
	mmnf_net_layout_free(net);
	return err;
}

MMNF_EXPORT int mmnf_field_create(const char *path, enum mmnf_dtype dtype,
				  unsigned int ndim, const uint64_t *shape,
				  const struct mmnf_create_opts *opts)
{
	struct mmnf_create_opts o = { .size = sizeof(o) };
	static const u8 zero[8];
	u64 chunk[MMNF_NDIM_MAX];
	struct mmnf_geometry g;
	int err = 0;

	mmnf_error_enter("mmnf_field_create");
	if (!path || !shape)
		return mmnf_error(EINVAL, "path and shape: expected not NULL");
	if (opts) {
		err = mmnf_error_opts(opts, opts->size, sizeof(o),
				      "mmnf_create_opts");
		if (err)
			return err;
		memcpy(&o, opts, min_u64(opts->size, sizeof(o)));
	}
	if (!o.fill)
		o.fill = zero;
	/* Linear segments are written out in full where fill is not zero. */
	if (!o.segment_bytes)
		o.segment_bytes = !o.tile && memcmp(o.fill, zero,
						    mmnf_dtype_bytes(dtype)) ?
					  SEGMENT_DEFAULT_FILLED :
					  SEGMENT_DEFAULT;
	if (o.checksums > 1 || (o.checksums && !o.tile))
		return mmnf_error(
			EINVAL,
			"mmnf_create_opts: checksums: expected 0, or 1 with a tile");
	if (o.nr_net)
		return create_remote(path, dtype, ndim, shape, &o);
	err = mmnf_geometry_cut(dtype, ndim, shape, o.tile, o.segment_bytes,
				chunk);
	if (!err)
		err = mmnf_geometry_init(&g, dtype, ndim, shape, chunk, o.tile);
	if (err)
		return err;
	if (o.tile)
		mmnf_geometry_index(&g, false, true);
	if (o.checksums && g.tile_bytes < 4)
		return mmnf_error(
			EINVAL, "checksums: expected tiles of 4 bytes or more");
	mmnf_geometry_set_fill(&g, o.fill);
	return mmnf_zarr_write(path, &g, o.checksums, NULL);
}

/*
 * Strides through all segments, where the elements of one are in the order of
 * the segments, too: a position divided by the pitch is then a segment.
 */
static bool set_strides(struct mmnf_view *v, const struct mmnf_geometry *g)
{
	u32 split = g->split, i;
	u64 rest = g->element_bytes;

	memcpy(v->stride, g->stride_bytes, sizeof(v->stride));
	v->pitch = 0;
	if (!g->flat || g->nr_segments == 1)
		return g->flat;
	for (i = split + 1; i < g->ndim; i++) {
		if (g->stride_bytes[i] < 0)
			return false;
		rest += (g->chunk[i] - 1) * (u64)g->stride_bytes[i];
	}
	if (g->stride_bytes[split] < (s64)rest)
		return false;
	v->pitch = g->chunk[split] * (u64)g->stride_bytes[split];
	for (i = 0; i < split; i++)
		v->stride[i] = (s64)(g->segment_stride[i] * v->pitch);
	return true;
}

/* In view.base there is room for as many segments as stay mapped. */
static void fill_view(struct mmnf_field *field)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_view *v = &field->view;
	bool direct = set_strides(v, g) && !field->walk &&
		      g->nr_segments <= field->windows.good;

	v->ndim = g->ndim;
	v->direct = direct ? g->ndim : 0;
	v->row = g->stride_bytes[g->ndim - 1] == (s64)g->element_bytes ?
			 g->tile[g->ndim - 1] :
			 1;
	memcpy(v->extent, g->shape, sizeof(v->extent));
}

static int open_checks(struct mmnf_field *field)
{
	struct mmnf_store *store = &field->store;
	int flags = field->writable ? O_RDWR | O_CREAT : O_RDONLY;

	if (!store->checksums)
		return 0;
	store->checks =
		openat(store->dir, MMNF_CHECKS_NAME, flags | O_CLOEXEC, 0666);
	if (store->checks < 0 && field->writable)
		return mmnf_error_system(errno, MMNF_CHECKS_NAME);
	return 0;
}

/* A folder is a Zarr array; whatever else it is, is told by its content. */
static int open_zarr(struct mmnf_field *field, const char *path)
{
	struct mmnf_store *store = &field->store;
	int err;

	store->format = "zarr";
	store->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->dir < 0)
		return mmnf_error_system(errno, "%s", path);
	store->name = strdup(path);
	if (!store->name)
		return mmnf_error(ENOMEM, "no memory");
	err = mmnf_zarr_read(store, path);
	if (!err && field->writable &&
	    faccessat(store->dir, ".", W_OK, AT_EACCESS))
		err = mmnf_error_system(errno, "%s: opening for writing", path);
	return err ? err : open_checks(field);
}

static int open_plain(struct mmnf_field *field, const char *path)
{
	struct mmnf_store *store = &field->store;
	const struct mmnf_format *format;
	struct mmnf_source src;
	struct mmnf_array a;
	int err;

	err = mmnf_source_open(&src, path);
	if (err)
		return err;
	err = mmnf_source_parse(&src, &format, &a);
	if (!err)
		err = mmnf_source_take(&src, &a, field->writable,
				       &store->geometry, &store->file);
	if (!err) {
		store->format = format->name;
		store->name = strdup(path);
		if (!store->name)
			err = mmnf_error(ENOMEM, "no memory");
	}
	mmnf_source_close(&src);
	return err;
}

static int open_store(struct mmnf_field *field, const char *path)
{
	struct stat st;

	if (mmnf_net_is_uri(path))
		return mmnf_net_raw(&field->store, path);
	if (!stat(path, &st) && S_ISDIR(st.st_mode))
		return open_zarr(field, path);
	return open_plain(field, path);
}

/* What follows once it is known where the field lies. */
static int open_parts(struct mmnf_field *field,
		      const struct mmnf_open_opts *opts)
{
	int err = mmnf_tier_open(field, opts);

	if (err)
		return err;
	if (mmnf_window_init(field, opts->max_windows))
		return mmnf_error(ENOMEM, "no memory");
	fill_view(field);
	return 0;
}

static struct mmnf_field *new_field(const struct mmnf_open_opts *opts)
{
	struct mmnf_field *field = calloc(1, sizeof(*field));

	if (!field) {
		mmnf_error(ENOMEM, "no memory");
		return NULL;
	}
	pthread_mutex_init(&field->pool.lock, NULL);
	field->windows.pattern = -1;
	field->published_fd = -1;
	if (mmnf_segments_init(field) || mmnf_publish_open(field)) {
		mmnf_segment_close_all(field);
		free(field);
		mmnf_error(ENOMEM, "no memory");
		return NULL;
	}
	field->store.dir = field->store.file = field->store.checks = -1;
	field->writable = opts->writable;
	field->prefetch_off = opts->prefetch_off;
	field->l2_once = opts->l2_once;
	return field;
}

int mmnf_field_open_made(struct mmnf_field **out, const char *name,
			 const struct mmnf_geometry *g, int fd)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;
	int err = -ENOMEM;

	opts.engine = MMNF_ENGINE_MMAP;
	opts.writable = 1;
	field = new_field(&opts);
	if (!field) {
		close(fd);
		return err;
	}
	field->store.format = "raw";
	field->store.geometry = *g;
	field->store.file = fd;
	field->store.name = strdup(name);
	if (field->store.name)
		err = open_parts(field, &opts);
	if (err)
		mmnf_field_close(field);
	else
		*out = field;
	return err;
}

int mmnf_field_open_quiet(struct mmnf_field **out, const char *path,
			  const struct mmnf_open_opts *opts)
{
	struct mmnf_open_opts o = { .size = sizeof(o) };
	struct mmnf_field *field;
	int err;

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
	if (o.writable > 1 || o.prefetch_off > 1 || o.l2_populate > 1 ||
	    o.l2_once > 1)
		return mmnf_error(
			EINVAL,
			"mmnf_open_opts: writable, prefetch_off, l2_populate and l2_once: expected 0 or 1");
	field = new_field(&o);
	if (!field)
		return -ENOMEM;
	err = open_store(field, path);
	if (!err)
		err = open_parts(field, &o);
	if (err) {
		mmnf_field_close(field);
		return err;
	}
	mmnf_publish_field(field, path);
	*out = field;
	return 0;
}

MMNF_EXPORT int mmnf_field_open(struct mmnf_field **out, const char *path,
				const struct mmnf_open_opts *opts)
{
	mmnf_error_enter("mmnf_field_open");
	return mmnf_field_open_quiet(out, path, opts);
}

MMNF_EXPORT void mmnf_field_close(struct mmnf_field *field)
{
	if (!field)
		return;
	mmnf_gpu_close(field);
	mmnf_tier_close(field);
	mmnf_guard_close(field);
	mmnf_window_exit(field);
	mmnf_segment_close_all(field);
	if (field->store.dir >= 0)
		close(field->store.dir);
	if (field->store.file >= 0)
		close(field->store.file);
	if (field->store.checks >= 0)
		close(field->store.checks);
	free(field->store.name);
	mmnf_net_layout_free(field->store.net);
	mmnf_walk_exit(field);
	mmnf_publish_close(field);
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
	snprintf(info.format, sizeof(info.format), "%s", field->store.format);
	memcpy(out, &info, info.size);
	return 0;
}

MMNF_EXPORT int mmnf_field_resize(struct mmnf_field *field, uint64_t extent)
{
	struct mmnf_geometry g = field->store.geometry, old = g;
	int err;

	mmnf_error_enter("mmnf_field_resize");
	if (!field->writable || field->store.dir < 0)
		return mmnf_error(
			EBADF,
			"expected a Zarr array that is open with writable = 1");
	if (extent == g.shape[0])
		return 0;
	err = mmnf_geometry_grow(&g, extent);
	if (err)
		return err;
	if (field->remote)
		err = mmnf_engine_net_fits(field, &g);
	if (err)
		return err;
	field->store.geometry = g;
	if (mmnf_window_fit(field))
		err = mmnf_error(ENOMEM, "no memory");
	if (!err)
		err = mmnf_zarr_resize(&field->store, extent);
	if (err)
		field->store.geometry = old;
	else
		mmnf_walk_fit(field);
	fill_view(field);
	return err;
}

MMNF_EXPORT int mmnf_field_sync(struct mmnf_field *field)
{
	mmnf_error_enter("mmnf_field_sync");
	if (field->remote)
		return mmnf_engine_net_sync(field);
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
	stats = mmnf_stats_sum(field);
	field->ops->stats(field, &stats);
	stats.size = sizeof(stats);
	*out = stats;
	return 0;
}
