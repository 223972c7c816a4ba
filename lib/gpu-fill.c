// SPDX-License-Identifier: MIT
/*
 * Tiles from the lower tiers into slots of the device.
 *
 *	files --read--> staging (page-locked) --copy stream--> slots
 *
 * A chunk is what fits one staging buffer, in the order of slots.  It goes to
 * the device in one call: as one copy where its slots are neighbours; as a batch
 * of copies, a tile each; or as one copy to the device's staging and a kernel that
 * scatters it.  Which of the last two is faster depends on device and tile and was
 * measured when the tier was enabled.
 *
 * The copy stream does fills in order: that the last one passed says that all
 * did.  Before it overwrites slots it waits for the batches that read them.
 */
#include <errno.h>
#include <stdlib.h>

#include "fetch.h"
#include "tier-gpu.h"

/* A buffer that nothing queued reads any more.  Without the lock. */
static int take_staging(struct mmnf_gpu *g, struct mmnf_gpu_staging **out)
{
	struct mmnf_gpu_staging *s = NULL;
	bool is_read;
	int err = 0, i;

	pthread_mutex_lock(&g->lock);
	while (!s) {
		for (i = 0; i < MMNF_GPU_STAGING; i++)
			if (!g->staging[i].busy &&
			    (!s || g->staging[i].fill < s->fill))
				s = &g->staging[i];
		if (!s)
			pthread_cond_wait(&g->change, &g->lock);
	}
	s->busy = true;
	is_read = s->fill > g->fill_done;
	pthread_mutex_unlock(&g->lock);
	if (is_read)
		err = mmnf_cuda_sync(g->cuda, s->event);
	pthread_mutex_lock(&g->lock);
	if (err) {
		s->busy = false;
		pthread_cond_broadcast(&g->change);
	} else {
		g->fill_done = max_u64(g->fill_done, s->fill);
		*out = s;
	}
	pthread_mutex_unlock(&g->lock);
	return err;
}

int mmnf_gpu_await_fill(struct mmnf_gpu *g, u64 fill, void *stream)
{
	struct mmnf_gpu_staging *best = NULL;
	int i;

	if (fill <= g->fill_done)
		return 0;
	/* The first that is recorded behind it; some are reused since. */
	for (i = 0; i < MMNF_GPU_STAGING; i++) {
		struct mmnf_gpu_staging *s = &g->staging[i];

		if (s->fill >= fill && (!best || s->fill < best->fill))
			best = s;
	}
	return best ? mmnf_cuda_stream_wait(g->cuda, stream, best->event) : 0;
}

/* The copy stream waits for what reads the slots now.  With the lock. */
static int await_readers(struct mmnf_gpu *g, const struct mmnf_gpu_miss *miss,
			 u32 nr)
{
	u64 last = 0;
	int err = 0;
	u32 i;

	for (i = 0; i < nr; i++)
		last = max_u64(last, g->slots.slot[miss[i].slot].last_batch);
	for (i = 0; !err && i < MMNF_GPU_BATCHES; i++) {
		struct mmnf_gpu_batch *b = &g->batch[i];

		if (!b->number || b->number > last || b->done || b->copy_waits)
			continue;
		err = mmnf_cuda_stream_wait(g->cuda, g->copy_stream, b->event);
		b->copy_waits = !err;
	}
	return err;
}

static u64 slot_address(const struct mmnf_gpu *g, u32 slot)
{
	return g->memory + ((u64)slot << g->tile_shift);
}

/* One copy for each stretch of neighbouring slots. */
static int copy_tiles(struct mmnf_gpu *g, const struct mmnf_gpu_staging *s,
		      const struct mmnf_gpu_miss *miss, u32 nr)
{
	struct mmnf_cuda_copies l = { .is_pageable = g->pageable };
	int err;
	u32 i;

	l.to = malloc(nr *
		      (sizeof(*l.to) + sizeof(*l.from) + sizeof(*l.bytes)));
	if (!l.to)
		return mmnf_error(ENOMEM, "no memory for %u copies", nr);
	l.from = l.to + nr;
	l.bytes = (size_t *)(l.from + nr);
	for (i = 0; i < nr; i++) {
		if (i && miss[i].slot == miss[i - 1].slot + 1) {
			l.bytes[l.nr - 1] += g->tile_bytes;
			continue;
		}
		l.to[l.nr] = slot_address(g, miss[i].slot);
		l.from[l.nr] = (uintptr_t)(s->host + (u64)i * g->tile_bytes);
		l.bytes[l.nr++] = g->tile_bytes;
	}
	err = mmnf_cuda_copy_many(g->cuda, &l, true, g->copy_stream);
	free(l.to);
	return err;
}

static int scatter_tiles(struct mmnf_gpu *g, const struct mmnf_gpu_staging *s,
			 u32 nr, u64 slots)
{
	u64 n = nr, base = g->memory, staging = s->device;
	u32 shift = g->tile_shift - 4;
	void *args[] = { &base, &slots, &staging, &n, &shift };
	int err;

	err = mmnf_cuda_copy_in(g->cuda, staging, s->host,
				(u64)nr << g->tile_shift, g->copy_stream);
	if (err)
		return err;
	return mmnf_cuda_launch(g->cuda, MMNF_SCATTER_TILES, n << shift, args,
				g->copy_stream);
}

static bool are_neighbours(const struct mmnf_gpu_miss *miss, u32 nr)
{
	return miss[nr - 1].slot - miss[0].slot == nr - 1;
}

/* Queues a chunk that stands in staging.  With the lock. */
static int send(struct mmnf_gpu *g, struct mmnf_gpu_staging *s,
		const struct mmnf_gpu_miss *miss, u32 nr, u64 slots)
{
	u64 bytes = (u64)nr << g->tile_shift;
	int err = await_readers(g, miss, nr), failed;
	u32 i;

	if (!err && are_neighbours(miss, nr)) {
		err = mmnf_cuda_copy_in(g->cuda, slot_address(g, miss[0].slot),
					s->host, bytes, g->copy_stream);
		g->stats->copied_bytes += bytes;
	} else if (!err && g->by_kernel) {
		err = scatter_tiles(g, s, nr, slots);
		g->stats->scattered_bytes += bytes;
	} else if (!err) {
		err = copy_tiles(g, s, miss, nr);
		g->stats->copied_bytes += bytes;
	}
	/* Also behind half of it: the buffer is read until then. */
	failed = mmnf_cuda_record(g->cuda, s->event, g->copy_stream);
	if (failed)
		mmnf_cuda_stream_sync(g->cuda, g->copy_stream);
	else
		s->fill = ++g->last_fill;
	err = err ? err : failed;
	for (i = 0; !err && i < nr; i++) {
		struct mmnf_slot *slot = &g->slots.slot[miss[i].slot];

		slot->state = MMNF_SLOT_READY;
		slot->fill = s->fill;
	}
	return err;
}

/* What is read for a chunk, in growing order of place in staging. */
struct reads {
	struct mmnf_run *run;
	u32 nr, room;
	u64 bytes;
};

static int add_read(struct reads *r, u64 segment, u64 offset, u64 bytes,
		    u64 dst, bool may_join)
{
	struct mmnf_run *last = r->nr ? &r->run[r->nr - 1] : NULL;

	r->bytes += bytes;
	if (last && may_join && last->segment == segment &&
	    last->offset + last->bytes == offset &&
	    last->dst + last->bytes == dst) {
		last->bytes += bytes;
		return 0;
	}
	if (r->nr == r->room) {
		u32 room = r->room ? 2 * r->room : 64;
		struct mmnf_run *more = realloc(r->run, room * sizeof(*more));

		if (!more)
			return mmnf_error(ENOMEM, "no memory for %u reads",
					  room);
		r->run = more;
		r->room = room;
	}
	r->run[r->nr++] = (struct mmnf_run) {
		.segment = segment, .offset = offset, .bytes = bytes, .dst = dst
	};
	return 0;
}

/*
 * A tile's bytes in its segment, which may end before the tile does.  Where an
 * index says where the field's own tiles are, they are read one by one.
 */
static int add_tile(const struct mmnf_gpu *g, u64 tile, u64 dst,
		    struct reads *r)
{
	const struct mmnf_geometry *geometry = mmnf_field_geometry(g->field);
	u64 segment = tile / g->tiles_per_segment;
	u64 at = tile % g->tiles_per_segment << g->tile_shift;
	u64 end = min_u64(at + g->tile_bytes, geometry->segment_bytes);
	u64 start = at;
	int err = 0;

	if (!geometry->indexed)
		return add_read(r, segment, at, end - at, dst, true);
	at = max_u64(at, geometry->data_offset);
	while (!err && at < end) {
		u64 in = (at - geometry->data_offset) % geometry->tile_bytes;
		u64 n = min_u64(end - at, geometry->tile_bytes - in);

		err = add_read(r, segment, at, n, dst + (at - start), false);
		at += n;
	}
	return err;
}

/* From nominal offsets to those in the files; what is absent is filled. */
static int place(struct mmnf_gpu *g, struct reads *r, char *to)
{
	const struct mmnf_geometry *geometry = mmnf_field_geometry(g->field);
	struct mmnf_segment *s = NULL;
	u32 i, kept = 0;
	int err = 0;

	for (i = 0; err >= 0 && geometry->indexed && i < r->nr; i++) {
		struct mmnf_run *run = &r->run[i];

		if (s && s->number != run->segment) {
			mmnf_segment_put(g->field, s);
			s = NULL;
		}
		err = s ? 0 :
			  mmnf_segment_get(g->field, run->segment, false, &s);
		if (!err)
			err = mmnf_segment_place(g->field, s, run);
		if (!err)
			r->run[kept++] = *run;
		else if (err == -ENOENT || err > 0)
			mmnf_run_fill(geometry, run, to);
		err = err == -ENOENT ? 0 : err;
	}
	if (geometry->indexed)
		r->nr = kept;
	if (s)
		mmnf_segment_put(g->field, s);
	return err < 0 ? err : 0;
}

static int read_chunk(struct mmnf_gpu *g, const struct mmnf_gpu_staging *s,
		      const struct mmnf_gpu_miss *miss, u32 nr, u64 *bytes)
{
	struct mmnf_job job = { .dst = s->host };
	struct reads r = { 0 };
	int err = 0;
	u32 i;

	for (i = 0; !err && i < nr; i++)
		err = add_tile(g, miss[i].tile, (u64)i << g->tile_shift, &r);
	if (!err)
		err = place(g, &r, s->host);
	*bytes = r.bytes;
	if (err || !r.nr) {
		free(r.run);
		return err;
	}
	job.given = r.run;
	job.nr_given = r.nr;
	return mmnf_fetch_run(g->field, &job);
}

/* With the lock. */
static void give_up(struct mmnf_gpu *g, const struct mmnf_gpu_miss *miss,
		    u32 nr)
{
	u32 i;

	for (i = 0; i < nr; i++) {
		struct mmnf_slot *slot = &g->slots.slot[miss[i].slot];

		if (slot->state != MMNF_SLOT_LOADING)
			continue;
		mmnf_slots_forget(&g->slots, miss[i].slot);
		slot->state = MMNF_SLOT_FAILED;
	}
	pthread_cond_broadcast(&g->change);
}

int mmnf_gpu_fill(struct mmnf_gpu *g, struct mmnf_gpu_batch *b,
		  const struct mmnf_gpu_miss *miss, u32 nr, u64 index_bytes,
		  u64 slots_at)
{
	struct mmnf_gpu_staging *s;
	u64 bytes;
	int err = 0;
	u32 i, n;

	for (i = 0; !err && i < nr; i += n) {
		n = (u32)min_u64(nr - i, g->staging_tiles);
		err = take_staging(g, &s);
		if (err)
			break;
		err = read_chunk(g, s, miss + i, n, &bytes);
		pthread_mutex_lock(&g->lock);
		g->stats->read_bytes += err ? 0 : bytes;
		if (!err && !i && index_bytes)
			err = mmnf_cuda_copy_in(g->cuda, b->device, b->host,
						index_bytes, g->copy_stream);
		if (!err)
			err = send(g, s, miss + i, n,
				   b->device + slots_at + i * sizeof(u32));
		s->busy = false;
		pthread_cond_broadcast(&g->change);
		pthread_mutex_unlock(&g->lock);
	}
	if (err) {
		pthread_mutex_lock(&g->lock);
		give_up(g, miss, nr);
		pthread_mutex_unlock(&g->lock);
	}
	return err;
}
