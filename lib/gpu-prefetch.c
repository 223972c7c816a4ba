// SPDX-License-Identifier: MIT
/*
 * Tiles brought to a device ahead of their use.
 *
 * The thread does what a batch does, without a gather: take slots, read into
 * staging, send.  It takes one chunk at a time, so that a batch waits for one
 * chunk at most where both want the same buffer.  What it brings is READY like
 * any other tile, and marked until somebody uses it; what was evicted with the
 * mark was wasted.
 *
 * prefetch->lock guards the queue; it is never held together with gpu->lock.
 */
#include <errno.h>
#include <stdlib.h>

#include "gpu-prefetch.h"

#define QUEUE 4096
/* Of the slots, those that may hold tiles not used yet: one in so many. */
#define SHARE 8

struct mmnf_gpu_prefetch {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t change;
	u64 first, last; /* of all that were ever queued; half-open */
	bool stop;
	u64 tile[QUEUE];
};

/* Up to nr tiles that are not there; waits for the first.  0: stop. */
static u32 take_queued(struct mmnf_gpu_prefetch *p, u64 *tile, u32 nr)
{
	u32 n = 0;

	pthread_mutex_lock(&p->lock);
	while (!p->stop && p->first == p->last)
		pthread_cond_wait(&p->change, &p->lock);
	while (!p->stop && n < nr && p->first != p->last)
		tile[n++] = p->tile[p->first++ % QUEUE];
	pthread_mutex_unlock(&p->lock);
	return n;
}

/* Slots for those that are worth one now. */
static u32 take_slots(struct mmnf_gpu *g, const u64 *tile, u32 nr,
		      struct mmnf_gpu_miss *miss)
{
	u64 most = max_u64(1, g->slots.nr / SHARE);
	u32 n = 0, i;

	pthread_mutex_lock(&g->lock);
	for (i = 0; i < nr; i++) {
		const struct mmnf_gpu_stats *s = g->stats;
		u32 slot;

		if (mmnf_slots_find(&g->slots, tile[i])->slot !=
			    MMNF_SLOT_NONE ||
		    s->prefetched - s->used - s->wasted >= most)
			continue;
		slot = mmnf_gpu_take_slot(g, tile[i]);
		if (slot == MMNF_SLOT_NONE)
			break;
		g->slots.slot[slot].prefetched = true;
		g->stats->prefetched++;
		miss[n++] = (struct mmnf_gpu_miss) { tile[i], slot };
	}
	pthread_mutex_unlock(&g->lock);
	return n;
}

static int by_slot(const void *a, const void *b)
{
	const struct mmnf_gpu_miss *x = a, *y = b;

	return x->slot < y->slot ? -1 : x->slot > y->slot;
}

static void bring(struct mmnf_gpu *g, const u64 *tile, u32 nr,
		  struct mmnf_gpu_miss *miss)
{
	struct mmnf_gpu_batch *b;
	u32 n, i, *slots;
	int err;

	b = mmnf_gpu_batch_begin(g, &err);
	if (!b)
		return;
	n = take_slots(g, tile, nr, miss);
	qsort(miss, n, sizeof(*miss), by_slot);
	slots = (u32 *)b->host;
	for (i = 0; i < n; i++)
		slots[i] = miss[i].slot;
	if (n)
		mmnf_gpu_fill(g, b, miss, n, n * sizeof(*slots), 0);
	pthread_mutex_lock(&g->lock);
	mmnf_gpu_batch_end(g, b, g->copy_stream);
	for (i = 0; i < n; i++) {
		struct mmnf_slot *slot = &g->slots.slot[miss[i].slot];

		if (slot->state == MMNF_SLOT_FAILED) {
			g->stats->wasted += slot->prefetched;
			slot->prefetched = false;
		}
		mmnf_slots_unpin(&g->slots, miss[i].slot, false);
	}
	g->stats->nr_slots_used = g->slots.nr_used;
	pthread_cond_broadcast(&g->change);
	pthread_mutex_unlock(&g->lock);
}

static void *work(void *arg)
{
	struct mmnf_gpu *g = arg;
	u32 most = (u32)min_u64(g->staging_tiles, g->index_bytes / sizeof(u32));
	struct mmnf_gpu_miss *miss = malloc(most * sizeof(*miss));
	u64 *tile = malloc(most * sizeof(*tile));
	u32 n;

	mmnf_error_enter("prefetch to device");
	while (miss && tile && (n = take_queued(g->prefetch, tile, most))) {
		if (mmnf_cuda_enter(g->cuda))
			break;
		bring(g, tile, n, miss);
		mmnf_cuda_leave(g->cuda);
	}
	free(miss);
	free(tile);
	return NULL;
}

static struct mmnf_gpu_prefetch *start(struct mmnf_gpu *g)
{
	struct mmnf_gpu_prefetch *p;

	pthread_mutex_lock(&g->lock);
	p = g->prefetch;
	if (!p)
		p = calloc(1, sizeof(*p));
	if (p && !g->prefetch) {
		pthread_mutex_init(&p->lock, NULL);
		pthread_cond_init(&p->change, NULL);
		g->prefetch = p;
		if (pthread_create(&p->thread, NULL, work, g)) {
			free(p);
			p = g->prefetch = NULL;
		}
	}
	pthread_mutex_unlock(&g->lock);
	return p;
}

void mmnf_gpu_prefetch_stop(struct mmnf_gpu *g)
{
	struct mmnf_gpu_prefetch *p = g->prefetch;

	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_signal(&p->change);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	free(p);
	g->prefetch = NULL;
}

u64 mmnf_gpu_prefetch_ask(struct mmnf_gpu *g, struct mmnf_gpu_cursor *c)
{
	struct mmnf_gpu_prefetch *p = start(g);
	struct mmnf_gpu_piece piece;
	u64 nr = 0, last = UINT64_MAX;

	while (p && mmnf_gpu_cursor_peek(c, &piece)) {
		bool is_there, room;

		mmnf_gpu_cursor_pass(c, &piece);
		if (piece.tile == last)
			continue;
		last = piece.tile;
		pthread_mutex_lock(&g->lock);
		is_there = mmnf_slots_find(&g->slots, last)->slot !=
			   MMNF_SLOT_NONE;
		pthread_mutex_unlock(&g->lock);
		nr += is_there;
		if (is_there)
			continue;
		pthread_mutex_lock(&p->lock);
		room = p->last - p->first < QUEUE;
		if (room)
			p->tile[p->last++ % QUEUE] = last;
		pthread_cond_signal(&p->change);
		pthread_mutex_unlock(&p->lock);
		if (!room)
			break;
		nr++;
	}
	return nr;
}
