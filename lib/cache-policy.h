/* SPDX-License-Identifier: MIT */
/*
 * A shard of L2 and the choice of what leaves it.  All functions but mark() are
 * called with the shard's lock held.
 */
#ifndef MMNF_CACHE_POLICY_H
#define MMNF_CACHE_POLICY_H

#include "cache.h"

#define NO_SLOT UINT32_MAX

#define SLOT_DEAD (1U << 31)

enum slot_state { SLOT_FREE, SLOT_FILLING, SLOT_READY };

/* Queues of a shard.  LRU and SIEVE have only MAIN. */
enum slot_queue { QUEUE_MAIN, QUEUE_SMALL, NR_QUEUES };

/**
 * struct slot - a place for a tile
 * @tile, @state: changed under the lock, looked at without, too
 * @pins: that are on no board (cache-pins.h): incremented under the lock,
 *	decremented by anybody; with SLOT_DEAD it was dropped while pinned, and who
 *	takes the last pin away frees it
 * @uses: since it was last passed over, at most 3; some may be lost
 */
struct slot {
	mmnf_tile tile;
	u32 pins, newer, older;
	u8 state, queue, uses;
	bool driven;
};

static inline u8 slot_state(const struct slot *s)
{
	return __atomic_load_n(&s->state, __ATOMIC_ACQUIRE);
}

struct slot_list {
	u32 newest, oldest, nr;
};

/*
 * An entry of the index is slot + 1 below and the tile's low half above.  What comes
 * before the lock is all that a hit looks at.
 */
struct shard {
	struct slot *slots; /* of the whole cache */
	u64 *index, index_mask;
	u64 *ghosts, ghost_mask; /* S3-FIFO: tiles that left SMALL */
	pthread_mutex_t lock __attribute__((aligned(128)));
	pthread_cond_t filled;
	u32 nr_waiting, nr_slots, free;
	u32 hand; /* SIEVE */
	struct slot_list list[NR_QUEUES];
	struct mmnf_cache_stats stats;
} __attribute__((aligned(128)));

struct policy {
	void (*insert)(struct shard *sh, u32 slot);
	/* A hit: one of the two, if it can be told without the lock mark(). */
	void (*hit)(struct shard *sh, u32 slot);
	void (*mark)(struct slot *s);
	void (*remove)(struct shard *sh, u32 slot);
	/* The slot to give up, already out of its list, or NO_SLOT. */
	u32 (*evict)(struct shard *sh);
	/* What evict() gave leaves indeed; NULL: that needs no note. */
	void (*evicted)(struct shard *sh, u32 slot);
};

extern const struct policy mmnf_policies[];

/*
 * What evict() gave stays, as the newest of its list.  So does what S3-FIFO passes
 * over; SIEVE would have left it where it was.
 */
void mmnf_policy_keep(struct shard *sh, u32 slot);

static inline u64 tile_hash(u64 x)
{
	x ^= x >> 32;
	x *= 0x9E3779B97F4A7C15ULL;
	x ^= x >> 29;
	x *= 0xBF58476D1CE4E5B9ULL;
	return x ^ x >> 32;
}

/* S3-FIFO: where a tile that left is remembered. */
static inline u64 ghost_home(const struct shard *sh, mmnf_tile tile)
{
	return tile_hash(~tile) & sh->ghost_mask;
}

#endif
