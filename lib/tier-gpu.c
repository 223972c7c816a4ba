// SPDX-License-Identifier: MIT
/*
 * The GPU tier of a field on one device: made, measured, unmade.
 *
 * Everything is allocated here, before the first batch: later a call can fail by
 * the storage or by a lost device, not for want of memory of the device.  Where
 * the host's memory can't be page-locked it is plain memory, and the tier says so.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "gpu-prefetch.h"

#define TILE_MIN 4096
#define TILE_MAX (2U << 20)
#define TILE_DEFAULT_MAX (64U << 10)
/* One gather of a million rows fits such an index, and the slots it fills. */
#define INDEX_MAX (5U << 20)
#define STAGING_MAX (16U << 20)
#define SLOTS_MIN 4

struct mmnf_gpu *mmnf_gpu_find(struct mmnf_field *field, u32 device)
{
	struct mmnf_gpu *g = __atomic_load_n(&field->gpu, __ATOMIC_ACQUIRE);

	while (g && mmnf_cuda_ordinal(g->cuda) != device)
		g = g->next;
	return g;
}

int mmnf_gpu_usable(struct mmnf_gpu *g)
{
	if (!mmnf_cuda_is_mine(g->cuda))
		return mmnf_error(
			ENODEV,
			"a child of fork() has no GPU: expected the process that enabled it");
	if (mmnf_cuda_lost(g->cuda))
		return mmnf_error(ENODEV, "device %u was lost: %s",
				  mmnf_cuda_ordinal(g->cuda),
				  "its tier is off until the process ends");
	return 0;
}

static int choose_tile(struct mmnf_gpu *g, u32 wanted)
{
	const struct mmnf_geometry *geometry = mmnf_field_geometry(g->field);
	u64 record = geometry->total_bytes / geometry->shape[0];
	u32 tile = TILE_MIN;

	while (!wanted && tile < record && tile < TILE_DEFAULT_MAX)
		tile *= 2;
	if (wanted)
		tile = wanted;
	if (tile < TILE_MIN || tile > TILE_MAX || (tile & (tile - 1)))
		return mmnf_error(
			EINVAL,
			"mmnf_gpu_opts: tile_bytes is %u: expected a power of two in %u..%u",
			tile, TILE_MIN, TILE_MAX);
	g->tile_bytes = tile;
	g->tile_shift = (u32)__builtin_ctz(tile);
	g->tiles_per_segment = (geometry->segment_bytes + tile - 1) >>
			       g->tile_shift;
	return 0;
}

/* Cuts the budget: what is not for slots is a third of it at most. */
static int cut(struct mmnf_gpu *g, u64 budget)
{
	u64 staging = min_u64(STAGING_MAX, budget / 16), rest, nr;

	staging = max_u64(staging >> g->tile_shift, 1) << g->tile_shift;
	g->staging_tiles = (u32)(staging >> g->tile_shift);
	g->result_bytes = (u32)staging;
	g->index_bytes = (u32)max_u64(4096, min_u64(INDEX_MAX, budget / 32));
	g->index_bytes &= ~255U;
	rest = (MMNF_GPU_STAGING + 1) * staging +
	       (u64)MMNF_GPU_BATCHES * g->index_bytes;
	nr = budget > rest ? (budget - rest) >> g->tile_shift : 0;
	/* What no field has need not be kept. */
	nr = min_u64(nr, g->tiles_per_segment *
				 mmnf_field_geometry(g->field)->nr_segments);
	nr = max_u64(nr, SLOTS_MIN);
	if ((nr << g->tile_shift) + rest > budget)
		return mmnf_error(EINVAL,
				  "budget is %" PRIu64
				  " bytes: expected at least %" PRIu64
				  " for tiles of %u",
				  budget, (nr << g->tile_shift) + rest,
				  g->tile_bytes);
	nr = min_u64(nr, UINT32_MAX / 4);
	g->bytes = (nr << g->tile_shift) + rest;
	return mmnf_slots_init(&g->slots, (u32)nr) ?
		       mmnf_error(ENOMEM, "no memory for %" PRIu64 " slots",
				  nr) :
		       0;
}

/* The host's part: page-locked, or plain where that is refused. */
static int host_memory(struct mmnf_gpu *g)
{
	u64 staging = (u64)g->staging_tiles << g->tile_shift;
	u64 bytes = MMNF_GPU_STAGING * staging + g->result_bytes +
		    (u64)MMNF_GPU_BATCHES * g->index_bytes;
	char *p;
	int i;

	if (mmnf_cuda_pin(g->cuda, bytes, &g->host)) {
		const char *text = strchr(mmnf_last_error(), ':');

		if (mmnf_cuda_lost(g->cuda))
			return -EIO;
		snprintf(g->why_pageable, sizeof(g->why_pageable), "%s",
			 text ? text + 2 : "refused");
		g->pageable = true;
		if (posix_memalign(&g->host, TILE_MIN, bytes)) {
			g->host = NULL;
			return mmnf_error(ENOMEM,
					  "no memory: expected %" PRIu64
					  " bytes for staging",
					  bytes);
		}
	}
	p = g->host;
	for (i = 0; i < MMNF_GPU_STAGING; i++, p += staging)
		g->staging[i].host = p;
	g->result_host = p;
	p += g->result_bytes;
	for (i = 0; i < MMNF_GPU_BATCHES; i++, p += g->index_bytes)
		g->batch[i].host = p;
	return 0;
}

static int device_memory(struct mmnf_gpu *g)
{
	u64 staging = (u64)g->staging_tiles << g->tile_shift, p;
	int err = mmnf_cuda_alloc(g->cuda, g->bytes, &g->memory), i;

	if (err)
		return err;
	p = g->memory + ((u64)g->slots.nr << g->tile_shift);
	for (i = 0; i < MMNF_GPU_STAGING; i++, p += staging)
		g->staging[i].device = p;
	g->result_device = p;
	p += g->result_bytes;
	for (i = 0; i < MMNF_GPU_BATCHES; i++, p += g->index_bytes)
		g->batch[i].device = p;
	return 0;
}

static int queues(struct mmnf_gpu *g)
{
	int err = mmnf_cuda_stream(g->cuda, &g->copy_stream), i;

	if (!err)
		err = mmnf_cuda_stream(g->cuda, &g->own_stream);
	for (i = 0; !err && i < MMNF_GPU_STAGING; i++)
		err = mmnf_cuda_event(g->cuda, false, &g->staging[i].event);
	for (i = 0; !err && i < MMNF_GPU_BATCHES; i++)
		err = mmnf_cuda_event(g->cuda, false, &g->batch[i].event);
	return err;
}

/* ms of n tiles to every other slot, by copies and by the kernel. */
static int time_paths(struct mmnf_gpu *g, u32 n, void **event, float *ms)
{
	struct mmnf_cuda_copies l = { .nr = n, .is_pageable = g->pageable };
	u64 base = g->memory, slots = g->batch[0].device, nr = n;
	u64 staging = g->staging[0].device;
	u32 shift = g->tile_shift - 4, *slot = (u32 *)g->batch[0].host, i;
	void *args[] = { &base, &slots, &staging, &nr, &shift };
	void *stream = g->copy_stream;
	int err = 0;

	l.to = malloc(n * (2 * sizeof(u64) + sizeof(size_t)));
	if (!l.to)
		return mmnf_error(ENOMEM, "no memory");
	l.from = l.to + n;
	l.bytes = (size_t *)(l.from + n);
	for (i = 0; i < n; i++) {
		slot[i] = 2 * i;
		l.to[i] = base + ((u64)slot[i] << g->tile_shift);
		l.from[i] = (uintptr_t)g->staging[0].host +
			    ((u64)i << g->tile_shift);
		l.bytes[i] = g->tile_bytes;
	}
	err = mmnf_cuda_record(g->cuda, event[0], stream);
	if (!err)
		err = mmnf_cuda_copy_many(g->cuda, &l, true, stream);
	if (!err)
		err = mmnf_cuda_record(g->cuda, event[1], stream);
	if (!err)
		err = mmnf_cuda_copy_in(g->cuda, slots, slot, n * sizeof(u32),
					stream);
	if (!err)
		err = mmnf_cuda_copy_in(g->cuda, staging, g->staging[0].host,
					nr << g->tile_shift, stream);
	if (!err)
		err = mmnf_cuda_launch(g->cuda, MMNF_SCATTER_TILES, nr << shift,
				       args, stream);
	if (!err)
		err = mmnf_cuda_record(g->cuda, event[2], stream);
	free(l.to);
	/* Also after a failure: what is queued uses the memory. */
	if (mmnf_cuda_stream_sync(g->cuda, stream) || err)
		return err ? err : -EIO;
	err = mmnf_cuda_elapsed(g->cuda, event[0], event[1], &ms[0]);
	if (!err)
		err = mmnf_cuda_elapsed(g->cuda, event[1], event[2], &ms[1]);
	return err;
}

#define ROUNDS 3

/*
 * Which way is faster for tiles of this size.  Where the line is differs from
 * device to device, so nobody's number is taken: below 28 KiB the copy engine of
 * an H100 drops to a tenth (vLLM issue 42212).
 */
static int measure(struct mmnf_gpu *g)
{
	u32 n = min_u64(g->staging_tiles, (g->slots.nr + 1) / 2);
	float ms[2], best[2] = { 0, 0 };
	void *event[3] = { NULL, NULL, NULL };
	int err = 0, i;

	if (mmnf_cuda_no_kernels(g->cuda))
		return 0;
	n = (u32)min_u64(n, g->index_bytes / sizeof(u32));
	for (i = 0; !err && i < 3; i++)
		err = mmnf_cuda_event(g->cuda, true, &event[i]);
	for (i = 0; !err && i < ROUNDS; i++) {
		err = time_paths(g, n, event, ms);
		best[0] = i && best[0] < ms[0] ? best[0] : ms[0];
		best[1] = i && best[1] < ms[1] ? best[1] : ms[1];
	}
	for (i = 0; i < 3; i++)
		mmnf_cuda_event_free(g->cuda, event[i]);
	g->by_kernel = best[1] < best[0];
	return err;
}

/* Once for a device and a tile size in this process. */
static int choose_path(struct mmnf_gpu *g, u32 path)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static u8 known[64][32]; /* [device][shift]: a path, 0 for none yet */
	u8 *k = &known[mmnf_cuda_ordinal(g->cuda)][g->tile_shift];
	int err = 0;

	if (path != MMNF_GPU_PATH_AUTO) {
		g->by_kernel = path == MMNF_GPU_PATH_KERNEL &&
			       !mmnf_cuda_no_kernels(g->cuda);
		return 0;
	}
	pthread_mutex_lock(&lock);
	if (!*k) {
		err = measure(g);
		if (!err)
			*k = g->by_kernel ? MMNF_GPU_PATH_KERNEL :
					    MMNF_GPU_PATH_COPY;
	}
	g->by_kernel = *k == MMNF_GPU_PATH_KERNEL;
	pthread_mutex_unlock(&lock);
	return err;
}

static void give_back(struct mmnf_gpu *g)
{
	struct mmnf_cuda *c = g->cuda;
	int i;

	for (i = 0; i < MMNF_GPU_BATCHES; i++)
		if (g->batch[i].number && !g->batch[i].done)
			mmnf_cuda_sync(c, g->batch[i].event);
	if (g->copy_stream)
		mmnf_cuda_stream_sync(c, g->copy_stream);
	if (g->own_stream)
		mmnf_cuda_stream_sync(c, g->own_stream);
	if (!g->pageable)
		mmnf_cuda_unpin(c, g->host);
	else
		free(g->host);
	mmnf_cuda_free(c, g->memory);
	for (i = 0; i < MMNF_GPU_STAGING; i++)
		mmnf_cuda_event_free(c, g->staging[i].event);
	for (i = 0; i < MMNF_GPU_BATCHES; i++)
		mmnf_cuda_event_free(c, g->batch[i].event);
	mmnf_cuda_stream_free(c, g->copy_stream);
	mmnf_cuda_stream_free(c, g->own_stream);
}

static void tear_down(struct mmnf_gpu *g)
{
	/* A forked child has the memory of the host and must leave the rest. */
	if (g->cuda && mmnf_cuda_is_mine(g->cuda)) {
		mmnf_gpu_prefetch_stop(g);
		if (!mmnf_cuda_enter(g->cuda)) {
			give_back(g);
			mmnf_cuda_leave(g->cuda);
		}
	}
	if (g->cuda)
		mmnf_cuda_close(g->cuda);
	mmnf_slots_exit(&g->slots);
	free(g);
}

static int set_up(struct mmnf_gpu *g, const struct mmnf_gpu_opts *o)
{
	u64 budget = o->budget_bytes, nr_free = 0, total = 0;
	int err = choose_tile(g, o->tile_bytes);

	if (!err)
		err = mmnf_cuda_memory(g->cuda, &nr_free, &total);
	if (!err)
		err = cut(g, budget ? budget : nr_free / 2);
	if (!err)
		err = device_memory(g);
	if (!err)
		err = host_memory(g);
	if (!err)
		err = queues(g);
	if (!err)
		err = choose_path(g, o->path);
	return err;
}

static int enable(struct mmnf_field *field, const struct mmnf_gpu_opts *o)
{
	struct mmnf_gpu *g = calloc(1, sizeof(*g));
	int err;

	if (!g)
		return mmnf_error(ENOMEM, "no memory");
	g->field = field;
	pthread_mutex_init(&g->lock, NULL);
	pthread_mutex_init(&g->result_lock, NULL);
	pthread_cond_init(&g->change, NULL);
	err = mmnf_cuda_open(o->device, &g->cuda);
	if (!err)
		err = mmnf_cuda_enter(g->cuda);
	if (!err) {
		err = set_up(g, o);
		mmnf_cuda_leave(g->cuda);
	}
	if (err) {
		tear_down(g);
		return err;
	}
	g->stats = mmnf_publish_gpu(field, o->device, mmnf_cuda_name(g->cuda));
	if (!g->stats)
		g->stats = &g->unseen_stats;
	*g->stats = (struct mmnf_gpu_stats) { .size = sizeof(*g->stats),
					      .tile_bytes = g->tile_bytes,
					      .nr_slots = g->slots.nr };
	g->next = field->gpu;
	__atomic_store_n(&field->gpu, g, __ATOMIC_RELEASE);
	return 0;
}

MMNF_EXPORT int mmnf_gpu_enable(struct mmnf_field *field,
				const struct mmnf_gpu_opts *opts)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct mmnf_gpu_opts o = { .size = sizeof(o) };
	int err;

	mmnf_error_enter("mmnf_gpu_enable");
	if (opts) {
		err = mmnf_error_opts(opts, opts->size, sizeof(o),
				      "mmnf_gpu_opts");
		if (err)
			return err;
		memcpy(&o, opts, min_u64(opts->size, sizeof(o)));
	}
	if (o.path > MMNF_GPU_PATH_KERNEL || o.reserved)
		return mmnf_error(
			EINVAL,
			"mmnf_gpu_opts: expected a path of mmnf_gpu_path, and reserved 0");
	pthread_mutex_lock(&lock);
	if (mmnf_gpu_find(field, o.device))
		err = mmnf_error(EALREADY, "device %u: its tier is on",
				 o.device);
	else
		err = enable(field, &o);
	pthread_mutex_unlock(&lock);
	return err;
}

void mmnf_gpu_close(struct mmnf_field *field)
{
	struct mmnf_gpu *g = field->gpu, *next;

	for (; g; g = next) {
		next = g->next;
		tear_down(g);
	}
	field->gpu = NULL;
}

MMNF_EXPORT int mmnf_gpu_stats(struct mmnf_field *field, uint32_t device,
			       struct mmnf_gpu_stats *out)
{
	struct mmnf_gpu *g = mmnf_gpu_find(field, device);

	mmnf_error_enter("mmnf_gpu_stats");
	if (out->size != sizeof(*out))
		return mmnf_error(EINVAL, "size is %zu: expected %zu",
				  out->size, sizeof(*out));
	if (!g)
		return mmnf_error(
			ENODEV, "device %u: expected mmnf_gpu_enable() before",
			device);
	pthread_mutex_lock(&g->lock);
	*out = *g->stats;
	out->pending = out->prefetched - out->used - out->wasted;
	out->nr_slots_used = g->slots.nr_used;
	pthread_mutex_unlock(&g->lock);
	return 0;
}

void mmnf_gpu_describe(struct mmnf_gpu *g, struct mmnf_tier *t)
{
	const char *no_kernels = mmnf_cuda_no_kernels(g->cuda);

	t->is_on = !mmnf_cuda_lost(g->cuda) && mmnf_cuda_is_mine(g->cuda);
	pthread_mutex_lock(&g->lock);
	t->size_bytes = (u64)g->slots.nr << g->tile_shift;
	t->used_bytes = (u64)g->slots.nr_used << g->tile_shift;
	pthread_mutex_unlock(&g->lock);
	snprintf(t->text, sizeof(t->text), "%s%s; tiles of %u by %s%s%s%s%s%s",
		 mmnf_cuda_name(g->cuda),
		 mmnf_cuda_lost(g->cuda)     ? ": lost" :
		 !mmnf_cuda_is_mine(g->cuda) ? ": not in a child of fork()" :
					       "",
		 g->tile_bytes, g->by_kernel ? "scatter kernel" : "copy engine",
		 no_kernels ? "; no kernels: " : "",
		 no_kernels ? no_kernels : "",
		 g->pageable ? "; staging is pageable: " : "",
		 g->pageable ? g->why_pageable : "", "");
}
