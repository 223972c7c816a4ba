// SPDX-License-Identifier: MIT
/*
 * The public functions that take or give memory of a device: they check what
 * they are given, make the device's context current and leave the work to
 * gpu-batch.c.
 */
#include <errno.h>
#include <inttypes.h>

#include "gpu-prefetch.h"

static int check_selection(const struct mmnf_selection *sel)
{
	if (sel->size != sizeof(*sel))
		return mmnf_error(EINVAL,
				  "mmnf_selection.size is %zu: expected %zu",
				  sel->size, sizeof(*sel));
	if (sel->box && (sel->index || sel->nr_index))
		return mmnf_error(
			EINVAL,
			"mmnf_selection: index and box: expected one of them");
	if (!sel->box && !sel->index && sel->nr_index)
		return mmnf_error(EINVAL,
				  "mmnf_selection.index is NULL: expected %zu",
				  sel->nr_index);
	return 0;
}

static struct mmnf_gpu *gpu_of(struct mmnf_field *field, u32 device, int *err)
{
	struct mmnf_gpu *g = mmnf_gpu_find(field, device);

	*err = 0;
	if (!g)
		*err = mmnf_error(
			ENODEV, "device %u: expected mmnf_gpu_enable() before",
			device);
	else
		*err = mmnf_gpu_usable(g);
	return *err ? NULL : g;
}

/* Where an address is, asked of any device that is on. */
static struct mmnf_gpu *gpu_of_address(struct mmnf_field *field, u64 p,
				       struct mmnf_cuda_range *range, int *err)
{
	struct mmnf_gpu *g = __atomic_load_n(&field->gpu, __ATOMIC_ACQUIRE);

	if (!g) {
		*err = mmnf_error(
			ENODEV,
			"no GPU tier: expected mmnf_gpu_enable() before");
		return NULL;
	}
	*err = mmnf_gpu_usable(g);
	if (!*err)
		*err = mmnf_cuda_enter(g->cuda);
	if (*err)
		return NULL;
	*err = mmnf_cuda_range(g->cuda, p, range);
	mmnf_cuda_leave(g->cuda);
	if (!*err && !range->is_device)
		*err = mmnf_error(
			EINVAL,
			"%#" PRIx64
			" is not memory of a device: expected CUdeviceptr",
			p);
	return *err ? NULL : gpu_of(field, range->device, err);
}

static int check_dst(const struct mmnf_geometry *geometry, u64 bytes, u64 dst,
		     u64 dst_bytes, const struct mmnf_cuda_range *range)
{
	u64 behind = range->start + range->bytes - dst;

	if (bytes > dst_bytes)
		return mmnf_error(ENOSPC,
				  "dst has %" PRIu64
				  " bytes: expected %" PRIu64,
				  dst_bytes, bytes);
	if (bytes > behind)
		return mmnf_error(ENOSPC,
				  "dst: its allocation has %" PRIu64
				  " bytes from there: expected %" PRIu64,
				  behind, bytes);
	if (dst % geometry->element_bytes)
		return mmnf_error(EINVAL,
				  "dst is %#" PRIx64
				  ": expected a multiple of %u",
				  dst, geometry->element_bytes);
	return 0;
}

/* One gather, in the current context; waits if the stream is not the caller's. */
static int run(struct mmnf_gpu *g, struct mmnf_gpu_cursor *c, u64 to,
	       void *host, void *stream)
{
	int err = mmnf_gpu_gather(g, c, to, host,
				  stream ? stream : g->own_stream);

	if (!err && !stream)
		err = mmnf_cuda_stream_sync(g->cuda, g->own_stream);
	if (err)
		return err;
	pthread_mutex_lock(&g->lock);
	g->stats->gathered_bytes += c->bytes;
	pthread_mutex_unlock(&g->lock);
	return 0;
}

MMNF_EXPORT ssize_t mmnf_batch_get_device(
	struct mmnf_field *field, const struct mmnf_selection *selection,
	uint64_t dst, size_t dst_bytes, void *stream)
{
	struct mmnf_cuda_range range = { 0 };
	struct mmnf_gpu_cursor c;
	struct mmnf_gpu *g;
	int err;

	mmnf_error_enter("mmnf_batch_get_device");
	err = check_selection(selection);
	if (err)
		return err;
	g = gpu_of_address(field, dst, &range, &err);
	if (!g)
		return err;
	err = mmnf_gpu_cursor_init(&c, g, selection);
	if (!err)
		err = check_dst(mmnf_field_geometry(field), c.bytes, dst,
				dst_bytes, &range);
	if (!err)
		err = mmnf_cuda_enter(g->cuda);
	if (err)
		return err;
	err = run(g, &c, dst, NULL, stream);
	mmnf_cuda_leave(g->cuda);
	if (err)
		return err;
	return (ssize_t)c.bytes;
}

/* -ENODEV: not by this way. */
static ssize_t get_through(struct mmnf_gpu *g,
			   const struct mmnf_selection *selection, void *dst,
			   size_t dst_bytes)
{
	struct mmnf_gpu_cursor c;
	int err = mmnf_gpu_cursor_init(&c, g, selection);

	if (!err && c.bytes > dst_bytes)
		err = mmnf_error(ENOSPC, "dst has %zu bytes: expected %" PRIu64,
				 dst_bytes, c.bytes);
	if (err)
		return err;
	if (mmnf_cuda_enter(g->cuda))
		return -ENODEV;
	pthread_mutex_lock(&g->result_lock);
	err = run(g, &c, 0, dst, NULL);
	pthread_mutex_unlock(&g->result_lock);
	mmnf_cuda_leave(g->cuda);
	if (err && mmnf_cuda_lost(g->cuda))
		return -ENODEV;
	return err ? err : (ssize_t)c.bytes;
}

MMNF_EXPORT ssize_t mmnf_batch_get_host(struct mmnf_field *field,
					const struct mmnf_selection *selection,
					void *dst, size_t dst_bytes)
{
	struct mmnf_gpu *g = __atomic_load_n(&field->gpu, __ATOMIC_ACQUIRE);
	ssize_t n = -ENODEV;
	int err;

	mmnf_error_enter("mmnf_batch_get_host");
	err = check_selection(selection);
	if (err)
		return err;
	if (g && !mmnf_gpu_usable(g))
		n = get_through(g, selection, dst, dst_bytes);
	if (n != -ENODEV)
		return n;
	if (selection->box)
		return mmnf_get(field, selection->box, dst, dst_bytes);
	return mmnf_batch_get(field, selection->index, selection->nr_index, dst,
			      dst_bytes);
}

static struct mmnf_selection one_record(const uint64_t *index)
{
	struct mmnf_selection sel = { sizeof(sel), index, 1, NULL };

	return sel;
}

/* One record, in the current context. */
static int hold(struct mmnf_gpu *g, struct mmnf_gpu_cursor *c, u64 *out,
		void *stream)
{
	int err;

	pthread_mutex_lock(&g->lock);
	err = g->nr_held >= g->slots.nr / 2;
	pthread_mutex_unlock(&g->lock);
	if (err)
		return mmnf_error(
			EBUSY,
			"pointers hold %u of %u slots: expected mmnf_put_device() before",
			g->nr_held, g->slots.nr);
	err = mmnf_gpu_hold(g, c, out, stream ? stream : g->own_stream);
	if (!err && !stream)
		err = mmnf_cuda_stream_sync(g->cuda, g->own_stream);
	return err;
}

MMNF_EXPORT int mmnf_get_device(struct mmnf_field *field, uint64_t *out,
				uint32_t device, uint64_t index, void *stream)
{
	struct mmnf_selection sel = one_record(&index);
	struct mmnf_gpu_piece piece;
	struct mmnf_gpu_cursor c;
	struct mmnf_gpu *g;
	int err;

	mmnf_error_enter("mmnf_get_device");
	*out = 0;
	g = gpu_of(field, device, &err);
	if (!err)
		err = mmnf_gpu_cursor_init(&c, g, &sel);
	if (err)
		return err;
	if (!mmnf_gpu_cursor_peek(&c, &piece) || piece.bytes != c.bytes)
		return mmnf_error(
			EOPNOTSUPP,
			"record %" PRIu64 " of %" PRIu64
			" bytes lies in several tiles of %u: expected in one",
			index, c.bytes, g->tile_bytes);
	err = mmnf_cuda_enter(g->cuda);
	if (err)
		return err;
	err = hold(g, &c, out, stream);
	mmnf_cuda_leave(g->cuda);
	return err;
}

static struct mmnf_gpu *holder_of(struct mmnf_field *field, u64 p, u32 *slot)
{
	struct mmnf_gpu *g = __atomic_load_n(&field->gpu, __ATOMIC_ACQUIRE);

	for (; g; g = g->next) {
		u64 i = (p - g->memory) >> g->tile_shift;

		*slot = (u32)i;
		if (p >= g->memory && i < g->slots.nr)
			return g;
	}
	return NULL;
}

/* Behind what the stream does with it now, the slot is as any other. */
static int release(struct mmnf_gpu *g, u32 i, void *stream)
{
	struct mmnf_slot *slot = &g->slots.slot[i];
	struct mmnf_gpu_batch *b = NULL;
	int err = 0;

	if (stream) {
		b = mmnf_gpu_batch_begin(g, &err);
		if (!b)
			return err;
	}
	pthread_mutex_lock(&g->lock);
	if (b) {
		err = mmnf_gpu_batch_end(g, b, stream);
		slot->last_batch = b->number;
	}
	if (!slot->held) {
		err = mmnf_error(
			EINVAL,
			"slot %u is not held: expected a pointer of mmnf_get_device()",
			i);
	} else {
		g->nr_held -= !--slot->held;
		mmnf_slots_unpin(&g->slots, i, false);
		pthread_cond_broadcast(&g->change);
	}
	pthread_mutex_unlock(&g->lock);
	return err;
}

MMNF_EXPORT int mmnf_put_device(struct mmnf_field *field, uint64_t p,
				void *stream)
{
	struct mmnf_gpu *g;
	u32 slot;
	int err;

	mmnf_error_enter("mmnf_put_device");
	g = holder_of(field, p, &slot);
	if (!g)
		return mmnf_error(
			EINVAL,
			"%#" PRIx64
			": expected a pointer of mmnf_get_device() of this field",
			p);
	err = mmnf_gpu_usable(g);
	if (!err)
		err = mmnf_cuda_enter(g->cuda);
	if (err)
		return err;
	err = release(g, slot, stream);
	mmnf_cuda_leave(g->cuda);
	return err;
}

MMNF_EXPORT ssize_t mmnf_prefetch_device(struct mmnf_field *field,
					 uint32_t device,
					 const struct mmnf_selection *selection)
{
	struct mmnf_gpu_cursor c;
	struct mmnf_gpu *g;
	int err;

	mmnf_error_enter("mmnf_prefetch_device");
	err = check_selection(selection);
	if (err)
		return err;
	g = gpu_of(field, device, &err);
	if (!err)
		err = mmnf_gpu_cursor_init(&c, g, selection);
	if (err)
		return err;
	return (ssize_t)mmnf_gpu_prefetch_ask(g, &c);
}

static u64 drop(struct mmnf_gpu *g, u32 i)
{
	struct mmnf_slot *slot = &g->slots.slot[i];

	g->stats->wasted += slot->prefetched;
	slot->prefetched = false;
	mmnf_slots_forget(&g->slots, i);
	g->stats->nr_slots_used = g->slots.nr_used;
	return g->tile_bytes;
}

/* Tiles first to last; by what is there if that is less. */
static u64 drop_tiles(struct mmnf_gpu *g, u64 first, u64 last)
{
	u64 dropped = 0, tile;
	u32 i;

	if (last - first < g->slots.nr) {
		for (tile = first; tile <= last; tile++) {
			i = mmnf_slots_find(&g->slots, tile)->slot;
			if (i != MMNF_SLOT_NONE)
				dropped += drop(g, i);
		}
		return dropped;
	}
	for (i = 0; i < g->slots.nr; i++) {
		const struct mmnf_slot *slot = &g->slots.slot[i];

		if (slot->state != MMNF_SLOT_FREE && !slot->stale &&
		    slot->tile >= first && slot->tile <= last)
			dropped += drop(g, i);
	}
	return dropped;
}

u64 mmnf_gpu_invalidate(struct mmnf_field *field, u64 segment, u64 offset,
			u64 bytes)
{
	struct mmnf_gpu *g = __atomic_load_n(&field->gpu, __ATOMIC_ACQUIRE);
	u64 dropped = 0;

	for (; g && bytes; g = g->next) {
		u64 first = segment * g->tiles_per_segment;

		/* A forked child has none: lock and counters are the parent's. */
		if (!mmnf_cuda_is_mine(g->cuda))
			continue;
		pthread_mutex_lock(&g->lock);
		dropped += drop_tiles(g, first + (offset >> g->tile_shift),
				      first + ((offset + bytes - 1) >>
					       g->tile_shift));
		pthread_mutex_unlock(&g->lock);
	}
	return dropped;
}

MMNF_EXPORT ssize_t mmnf_gpu_forget(struct mmnf_field *field,
				    const struct mmnf_box *box)
{
	const struct mmnf_geometry *geometry = mmnf_field_geometry(field);
	struct mmnf_box normal;
	struct mmnf_runs it;
	struct mmnf_run run;
	u64 bytes, dropped = 0;
	int err;

	mmnf_error_enter("mmnf_gpu_forget");
	err = mmnf_geometry_box(geometry, box, &normal, &bytes);
	if (err)
		return err;
	mmnf_runs_init_mode(&it, geometry, &normal, UINT64_MAX,
			    MMNF_RUNS_COVER);
	while (mmnf_runs_next(&it, &run))
		dropped += mmnf_gpu_invalidate(field, run.segment, run.offset,
					       run.bytes);
	return (ssize_t)dropped;
}
