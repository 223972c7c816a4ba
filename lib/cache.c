// SPDX-License-Identifier: MIT
/*
 * L2: a bounded number of slots in one mapping, cut into shards by the hash of
 * the tile's group of 32, so that neighbours lie together and threads apart.
 *
 *	tile -> shard -> index (open addressing) -> slot -> memory
 *
 * A shard's lock guards its index, lists and slots, but for three things: hits
 * are found, pinned and marked without it (see cache-pins.c; not under LRU, which
 * moves what was hit), pins go down without it, and the bytes of a slot belong to
 * whoever has it pinned.  It is held for a look-up, an insertion and an eviction,
 * never while data is read or copied.  Nothing here waits but mmnf_cache_wait().
 *
 * The memory is asked for in huge pages: a look-up of scattered tiles then
 * costs no TLB miss per tile.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "cache-index.h"
#include "cache-pins.h"

#define GROUP_SHIFT 5 /* tiles of a shard in a row: what one read brings */
#define SHARDS_MAX 64
#define SHARD_SLOTS_MIN 1024
#define HUGE_BYTES (2ULL << 20)
#define TAKES 64 /* tries for a slot that no reader has found before */

#ifndef MADV_POPULATE_WRITE /* of headers before Linux 5.14 */
#define MADV_POPULATE_WRITE 23
#endif

struct mmnf_cache {
	char *memory;
	u64 memory_bytes, segment_tiles;
	u64 *used_bytes, own_used_bytes; /* see mmnf_cache_show() */
	bool populated;
	u32 nr_slots, nr_shards;
	const struct policy *policy;
	struct slot *slots;
	struct shard *shards;
	u64 *tables;
	struct boards boards;
};

static struct shard *shard_of(const struct mmnf_cache *c, mmnf_tile tile)
{
	return &c->shards[tile_hash(tile >> GROUP_SHIFT) & (c->nr_shards - 1)];
}

static bool is_ready(const struct slot *s, mmnf_tile tile)
{
	return slot_state(s) == SLOT_READY &&
	       __atomic_load_n(&s->tile, __ATOMIC_RELAXED) == tile;
}

static void make_free(struct shard *sh, u32 i)
{
	__atomic_store_n(&sh->slots[i].state, SLOT_FREE, __ATOMIC_RELAXED);
	__atomic_store_n(&sh->slots[i].pins, 0, __ATOMIC_RELAXED);
	sh->slots[i].older = sh->free;
	sh->free = i;
}

static void give_back(struct mmnf_cache *c, struct shard *sh, u32 i)
{
	make_free(sh, i);
	__atomic_fetch_sub(c->used_bytes, MMNF_TILE_BYTES, __ATOMIC_RELAXED);
}

/* Out of sight; free at once or after the last pin. */
static void forget(struct mmnf_cache *c, struct shard *sh, u32 i)
{
	index_remove(sh, sh->slots[i].tile);
	c->policy->remove(sh, i);
	mmnf_boards_count(&c->boards, i, &sh->slots[i].pins);
	if (!__atomic_fetch_or(&sh->slots[i].pins, SLOT_DEAD, __ATOMIC_ACQ_REL))
		give_back(c, sh, i);
}

/* Out of the index and of its list, unless a reader was there before. */
static bool take_away(struct mmnf_cache *c, struct shard *sh, u32 i)
{
	mmnf_tile tile = sh->slots[i].tile;

	index_remove(sh, tile);
	if (!mmnf_boards_have(&c->boards, i)) {
		if (c->policy->evicted)
			c->policy->evicted(sh, i);
		return true;
	}
	index_set(index_find(sh, tile), tile << 32 | (i + 1));
	mmnf_policy_keep(sh, i);
	return false;
}

static u32 new_slot(struct mmnf_cache *c, struct shard *sh)
{
	u32 i = sh->free, tries;

	if (i != NO_SLOT) {
		sh->free = sh->slots[i].older;
		__atomic_fetch_add(c->used_bytes, MMNF_TILE_BYTES,
				   __ATOMIC_RELAXED);
		return i;
	}
	for (tries = 0; tries < TAKES; tries++) {
		i = c->policy->evict(sh);
		if (i == NO_SLOT)
			return NO_SLOT;
		if (take_away(c, sh, i)) {
			sh->stats.evicted++;
			return i;
		}
	}
	return NO_SLOT;
}

static enum mmnf_cache_state claim_slot(struct mmnf_cache *c, struct shard *sh,
					mmnf_tile tile, bool driven,
					struct mmnf_pin *pin)
{
	u32 i = new_slot(c, sh);
	struct slot *s;

	if (i == NO_SLOT) {
		sh->stats.full++;
		return MMNF_CACHE_FULL;
	}
	s = &sh->slots[i];
	__atomic_store_n(&s->tile, tile, __ATOMIC_RELAXED);
	__atomic_store_n(&s->state, SLOT_FILLING, __ATOMIC_RELAXED);
	s->driven = driven;
	__atomic_store_n(&s->pins, 1, __ATOMIC_RELAXED);
	/* An eviction has moved entries: look again. */
	index_set(index_find(sh, tile), tile << 32 | (i + 1));
	c->policy->insert(sh, i);
	*pin = (struct mmnf_pin) { i, NO_PLACE };
	return MMNF_CACHE_FILL;
}

static void count_down(struct mmnf_cache *c, u32 slot)
{
	struct slot *s = &c->slots[slot];
	/* After the pin is gone the slot may be another tile's. */
	struct shard *sh = shard_of(c, s->tile);

	if (__atomic_sub_fetch(&s->pins, 1, __ATOMIC_ACQ_REL) != SLOT_DEAD)
		return;
	pthread_mutex_lock(&sh->lock);
	give_back(c, sh, slot);
	pthread_mutex_unlock(&sh->lock);
}

/* True: a hit.  False: not, or not to be had without the lock. */
static bool hit_unlocked(struct mmnf_cache *c, struct shard *sh, mmnf_tile tile,
			 struct mmnf_pin *pin)
{
	const u64 *at;
	struct slot *s;
	u64 entry;

	at = c->policy->mark ? index_find_unlocked(sh, tile, &entry) : NULL;
	if (!at)
		return false;
	pin->slot = (u32)entry - 1;
	s = &c->slots[pin->slot];
	__builtin_prefetch(s);
	pin->place = mmnf_boards_pin(&c->boards, pin->slot);
	if (pin->place == NO_PLACE)
		return false;
	if (__atomic_load_n(at, __ATOMIC_SEQ_CST) == entry &&
	    is_ready(s, tile)) {
		c->policy->mark(s);
		return true;
	}
	if (mmnf_boards_unpin(&c->boards, pin->place, false))
		count_down(c, pin->slot);
	return false;
}

/* Without the lock: it has no slot, as far as can be seen. */
static bool is_absent(const struct shard *sh, mmnf_tile tile)
{
	u64 entry;

	return !index_find_unlocked(sh, tile, &entry) && !entry;
}

enum mmnf_cache_state mmnf_cache_get(struct mmnf_cache *c, mmnf_tile tile,
				     bool claim, bool driven,
				     struct mmnf_pin *pin)
{
	enum mmnf_cache_state state = MMNF_CACHE_FULL;
	struct shard *sh = shard_of(c, tile);
	u64 entry;

	if (tile == MMNF_NO_TILE)
		return MMNF_CACHE_FULL;
	if (hit_unlocked(c, sh, tile, pin))
		return MMNF_CACHE_HIT;
	if (!claim && is_absent(sh, tile))
		return MMNF_CACHE_FULL;
	pthread_mutex_lock(&sh->lock);
	entry = *index_find(sh, tile);
	if (entry) {
		u32 i = (u32)entry - 1;

		state = MMNF_CACHE_BUSY;
		if (slot_state(&sh->slots[i]) == SLOT_READY) {
			__atomic_fetch_add(&sh->slots[i].pins, 1,
					   __ATOMIC_RELAXED);
			if (c->policy->mark)
				c->policy->mark(&sh->slots[i]);
			else
				c->policy->hit(sh, i);
			sh->stats.hits++;
			*pin = (struct mmnf_pin) { i, NO_PLACE };
			state = MMNF_CACHE_HIT;
		}
	} else if (claim) {
		sh->stats.misses++;
		state = claim_slot(c, sh, tile, driven, pin);
	}
	pthread_mutex_unlock(&sh->lock);
	return state;
}

void mmnf_cache_filled(struct mmnf_cache *c, struct mmnf_pin pin, bool ok)
{
	struct slot *s = &c->slots[pin.slot];
	struct shard *sh = shard_of(c, s->tile);

	pthread_mutex_lock(&sh->lock);
	if (!(__atomic_load_n(&s->pins, __ATOMIC_RELAXED) & SLOT_DEAD)) {
		if (ok)
			__atomic_store_n(&s->state, SLOT_READY,
					 __ATOMIC_RELEASE);
		else
			forget(c, sh, pin.slot);
	}
	if (sh->nr_waiting)
		pthread_cond_broadcast(&sh->filled);
	pthread_mutex_unlock(&sh->lock);
}

void mmnf_cache_put(struct mmnf_cache *c, struct mmnf_pin pin)
{
	if (pin.place == NO_PLACE ||
	    mmnf_boards_unpin(&c->boards, pin.place, true))
		count_down(c, pin.slot);
}

bool mmnf_cache_wait(struct mmnf_cache *c, mmnf_tile tile)
{
	struct shard *sh = shard_of(c, tile);
	bool driven = true;
	u64 entry;

	pthread_mutex_lock(&sh->lock);
	while ((entry = *index_find(sh, tile))) {
		const struct slot *s = &sh->slots[(u32)entry - 1];

		driven = s->driven || slot_state(s) != SLOT_FILLING;
		if (!driven || slot_state(s) != SLOT_FILLING)
			break;
		sh->nr_waiting++;
		pthread_cond_wait(&sh->filled, &sh->lock);
		sh->nr_waiting--;
	}
	pthread_mutex_unlock(&sh->lock);
	return driven;
}

bool mmnf_cache_drop(struct mmnf_cache *c, mmnf_tile tile)
{
	struct shard *sh = shard_of(c, tile);
	u64 entry;

	if (tile == MMNF_NO_TILE)
		return false;
	pthread_mutex_lock(&sh->lock);
	entry = *index_find(sh, tile);
	if (entry)
		forget(c, sh, (u32)entry - 1);
	pthread_mutex_unlock(&sh->lock);
	return entry;
}

mmnf_tile mmnf_cache_tile(const struct mmnf_cache *c, u64 segment, u64 offset)
{
	u64 first, tile = offset / MMNF_TILE_BYTES;

	if (tile >= c->segment_tiles ||
	    __builtin_mul_overflow(segment, c->segment_tiles, &first) ||
	    first >= MMNF_NO_TILE - tile)
		return MMNF_NO_TILE;
	return first + tile;
}

u64 mmnf_cache_forget(struct mmnf_field *field, u64 segment, u64 offset,
		      u64 bytes)
{
	u64 at = offset / MMNF_TILE_BYTES * MMNF_TILE_BYTES;

	u64 dropped = 0;

	for (; field->cache && at < offset + bytes; at += MMNF_TILE_BYTES)
		dropped += mmnf_cache_drop(field->cache,
					   mmnf_cache_tile(field->cache,
							   segment, at));
	return dropped;
}

/* A tile whose home is in a crowd, as after tiles in a row, needs the lock. */
static bool knows(const struct mmnf_cache *c, mmnf_tile tile)
{
	struct shard *sh = shard_of(c, tile);
	u64 entry;

	if (index_find_unlocked(sh, tile, &entry) &&
	    __atomic_load_n(&c->slots[(u32)entry - 1].tile, __ATOMIC_RELAXED) ==
		    tile)
		return true;
	if (!entry)
		return false;
	pthread_mutex_lock(&sh->lock);
	entry = *index_find(sh, tile);
	pthread_mutex_unlock(&sh->lock);
	return entry;
}

bool mmnf_cache_knows(const struct mmnf_cache *c, u64 segment, u64 offset,
		      u64 bytes)
{
	u64 at = offset / MMNF_TILE_BYTES * MMNF_TILE_BYTES;
	mmnf_tile tile;

	/* Of an empty one not even the index is looked at, which is cold. */
	if (!mmnf_cache_used(c))
		return false;
	for (; at < offset + bytes; at += MMNF_TILE_BYTES) {
		tile = mmnf_cache_tile(c, segment, at);
		if (tile != MMNF_NO_TILE && knows(c, tile))
			return true;
	}
	return false;
}

bool mmnf_cache_has(struct mmnf_cache *c, u64 segment, u64 offset)
{
	struct shard *sh;
	mmnf_tile tile;
	u64 entry;
	bool has;

	if (!c)
		return false;
	tile = mmnf_cache_tile(c, segment, offset);
	if (tile == MMNF_NO_TILE)
		return false;
	sh = shard_of(c, tile);
	if (index_find_unlocked(sh, tile, &entry) &&
	    is_ready(&c->slots[(u32)entry - 1], tile))
		return true;
	pthread_mutex_lock(&sh->lock);
	entry = *index_find(sh, tile);
	has = entry && slot_state(&sh->slots[(u32)entry - 1]) == SLOT_READY;
	pthread_mutex_unlock(&sh->lock);
	return has;
}

static char *data_of(const struct mmnf_cache *c, u32 slot)
{
	return c->memory + (u64)slot * MMNF_TILE_BYTES;
}

char *mmnf_cache_data(const struct mmnf_cache *c, struct mmnf_pin pin)
{
	return data_of(c, pin.slot);
}

void mmnf_cache_memory(const struct mmnf_cache *c, char **base, u64 *bytes)
{
	*base = c ? c->memory : NULL;
	*bytes = c ? c->memory_bytes : 0;
}

void mmnf_cache_show(struct mmnf_cache *c, u64 *used_bytes)
{
	*used_bytes = *c->used_bytes;
	c->used_bytes = used_bytes;
}

u64 mmnf_cache_used(const struct mmnf_cache *c)
{
	return c ? __atomic_load_n(c->used_bytes, __ATOMIC_RELAXED) : 0;
}

void mmnf_cache_touch(const struct mmnf_cache *c, mmnf_tile tile, bool claim)
{
	const struct shard *sh = shard_of(c, tile);

	__builtin_prefetch(&sh->index[index_home(sh, tile)]);
	if (claim)
		__builtin_prefetch(&sh->ghosts[ghost_home(sh, tile)]);
}

void mmnf_cache_touch_data(const struct mmnf_cache *c, mmnf_tile tile, u64 at)
{
	const struct shard *sh = shard_of(c, tile);
	u64 entry = __atomic_load_n(&sh->index[index_home(sh, tile)],
				    __ATOMIC_RELAXED);
	const char *data;

	/* Most tiles stand where they are looked for first. */
	if (!entry || entry >> 32 != (u32)tile)
		return;
	data = data_of(c, (u32)entry - 1) + at;
	__builtin_prefetch(&c->slots[(u32)entry - 1]);
	__builtin_prefetch(data);
	__builtin_prefetch(data + 64);
	__builtin_prefetch(data + 128);
	__builtin_prefetch(data + 192);
}

void mmnf_cache_stats(struct mmnf_cache *c, struct mmnf_cache_stats *out)
{
	u32 i;

	memset(out, 0, sizeof(*out));
	out->hits = mmnf_boards_hits(&c->boards);
	for (i = 0; i < c->nr_shards; i++) {
		struct shard *sh = &c->shards[i];

		pthread_mutex_lock(&sh->lock);
		out->hits += sh->stats.hits;
		out->misses += sh->stats.misses;
		out->evicted += sh->stats.evicted;
		out->full += sh->stats.full;
		pthread_mutex_unlock(&sh->lock);
	}
}

/*
 * Groups of slots of all shards by turns: shards fill evenly, so memory is
 * touched from its beginning on and no huge page is cleared for a few tiles.
 */
static u32 nth_slot(const struct mmnf_cache *c, u32 shard, u32 i)
{
	u32 group = 1U << GROUP_SHIFT;

	return (i / group * c->nr_shards + shard) * group + i % group;
}

static void init_shard(struct mmnf_cache *c, u32 shard, u32 nr)
{
	struct shard *sh = &c->shards[shard];
	u32 i;

	pthread_mutex_init(&sh->lock, NULL);
	pthread_cond_init(&sh->filled, NULL);
	sh->slots = c->slots;
	sh->nr_slots = nr;
	sh->hand = sh->free = NO_SLOT;
	for (i = 0; i < NR_QUEUES; i++)
		sh->list[i] = (struct slot_list) { NO_SLOT, NO_SLOT, 0 };
	/* The first is taken first: tiles read in a row lie in a row. */
	for (i = nr; i-- > 0;)
		make_free(sh, nth_slot(c, shard, i));
}

/* Zeroed; in huge pages where that leaves little unused. */
static void *alloc_table(u64 bytes)
{
	bool huge = bytes >= 2 * HUGE_BYTES;
	u64 size = round_up_u64(bytes, huge ? HUGE_BYTES : 128);
	void *p = aligned_alloc(huge ? HUGE_BYTES : 128, size);

	if (p && huge)
		madvise(p, size, MADV_HUGEPAGE);
	return p ? memset(p, 0, bytes) : NULL;
}

static int allocate(struct mmnf_cache *c, u32 per_shard)
{
	u64 index = 2, ghosts = 1;
	u32 i;

	while (index < 2ULL * per_shard)
		index *= 2;
	while (ghosts < per_shard)
		ghosts *= 2;
	c->memory_bytes =
		round_up_u64((u64)c->nr_slots * MMNF_TILE_BYTES, HUGE_BYTES);
	c->memory = mmap(NULL, c->memory_bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c->memory == MAP_FAILED) {
		c->memory = NULL;
		return -ENOMEM;
	}
	madvise(c->memory, c->memory_bytes, MADV_HUGEPAGE);
	madvise(c->memory, c->memory_bytes, MADV_DONTFORK);
	c->slots = alloc_table(c->nr_slots * sizeof(*c->slots));
	c->shards = aligned_alloc(128, c->nr_shards * sizeof(*c->shards));
	c->tables = alloc_table(c->nr_shards * (index + ghosts) * sizeof(u64));
	if (!c->slots || !c->shards || !c->tables ||
	    mmnf_boards_open(&c->boards))
		return -ENOMEM;
	memset(c->shards, 0, c->nr_shards * sizeof(*c->shards));
	for (i = 0; i < c->nr_shards; i++) {
		struct shard *sh = &c->shards[i];

		sh->index = c->tables + i * (index + ghosts);
		sh->index_mask = index - 1;
		sh->ghosts = sh->index + index;
		sh->ghost_mask = ghosts - 1;
		init_shard(c, i, per_shard);
	}
	return 0;
}

int mmnf_cache_open(struct mmnf_cache **out, u64 bytes, u32 policy,
		    u64 segment_tiles)
{
	u64 slots = max_u64(bytes / MMNF_TILE_BYTES, 16);
	struct mmnf_cache *c = calloc(1, sizeof(*c));
	u32 per_shard;

	*out = NULL;
	if (c && slots < UINT32_MAX / 2) {
		c->segment_tiles = segment_tiles;
		c->used_bytes = &c->own_used_bytes;
		c->policy = &mmnf_policies[policy];
		c->nr_shards = 1;
		while (c->nr_shards < SHARDS_MAX &&
		       slots / c->nr_shards >= 2 * SHARD_SLOTS_MIN)
			c->nr_shards *= 2;
		per_shard = (u32)(slots / c->nr_shards);
		if (c->nr_shards > 1)
			per_shard = per_shard >> GROUP_SHIFT << GROUP_SHIFT;
		c->nr_slots = per_shard * c->nr_shards;
		if (!allocate(c, per_shard)) {
			*out = c;
			return 0;
		}
	}
	mmnf_cache_close(c);
	return mmnf_error(ENOMEM, "no memory for a cache of %" PRIu64 " bytes",
			  bytes);
}

int mmnf_cache_populate(struct mmnf_cache *c)
{
	volatile char *page = c->memory;
	u64 at;

	c->populated = true;
	if (!madvise(c->memory, c->memory_bytes, MADV_POPULATE_WRITE))
		return 0;
	if (errno != EINVAL)
		return mmnf_error_system(errno,
					 "taking %" PRIu64
					 " bytes of memory for L2",
					 c->memory_bytes);
	/* Linux before 5.14 */
	for (at = 0; at < c->memory_bytes; at += MMNF_TILE_BYTES)
		page[at] = 0;
	return 0;
}

bool mmnf_cache_is_populated(const struct mmnf_cache *c)
{
	return c && c->populated;
}

void mmnf_cache_close(struct mmnf_cache *c)
{
	u32 i;

	if (!c)
		return;
	/* In a child, destroying filled would wait for threads of the parent. */
	for (i = 0; c->shards && i < c->nr_shards; i++)
		pthread_mutex_destroy(&c->shards[i].lock);
	if (c->memory)
		munmap(c->memory, c->memory_bytes);
	free(c->slots);
	free(c->shards);
	free(c->tables);
	mmnf_boards_close(&c->boards);
	free(c);
}
