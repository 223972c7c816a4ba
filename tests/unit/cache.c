// SPDX-License-Identifier: MIT
/*
 * L2 by itself: what is kept and what leaves, pins, drops, threads.  A tile
 * holds its own number all over.
 */
#include "field_util.h"

#include <cache.h>
#include <pthread.h>

static const uint32_t policies[] = { MMNF_L2_LRU, MMNF_L2_SIEVE,
				     MMNF_L2_S3FIFO };

#define NR_POLICIES (sizeof(policies) / sizeof(policies[0]))

static struct mmnf_cache *open_cache(uint64_t slots, uint32_t policy)
{
	struct mmnf_cache *c;

	ASSERT_EQ(mmnf_cache_open(&c, slots * MMNF_TILE_BYTES, policy,
				  1ULL << 40),
		  0);
	return c;
}

static void write_tile(struct mmnf_cache *c, uint32_t slot, uint64_t tile)
{
	uint64_t *p = (uint64_t *)mmnf_cache_data(c, slot);
	unsigned int i;

	for (i = 0; i < MMNF_TILE_BYTES / 8; i++)
		p[i] = tile;
}

static bool tile_is(struct mmnf_cache *c, uint32_t slot, uint64_t tile)
{
	const uint64_t *p = (const uint64_t *)mmnf_cache_data(c, slot);

	return p[0] == tile && p[MMNF_TILE_BYTES / 8 - 1] == tile;
}

/* As a reader does; was it there? */
static bool use(struct mmnf_cache *c, uint64_t tile)
{
	enum mmnf_cache_state state;
	uint32_t slot;

	state = mmnf_cache_get(c, tile, true, false, &slot);
	if (state == MMNF_CACHE_FILL) {
		write_tile(c, slot, tile);
		mmnf_cache_filled(c, slot, true);
	} else {
		ASSERT_EQ(state, MMNF_CACHE_HIT);
	}
	EXPECT_TRUE(tile_is(c, slot, tile));
	mmnf_cache_put(c, slot);
	return state == MMNF_CACHE_HIT;
}

/* Against a set: a tile is there only if it came since it was last dropped. */
TEST(holds_what_it_was_given)
{
	static unsigned char came[5000];
	unsigned int p, i, hits;
	uint64_t tile;

	for (p = 0; p < NR_POLICIES; p++) {
		struct mmnf_cache *c = open_cache(1000, policies[p]);

		memset(came, 0, sizeof(came));
		for (i = hits = 0; i < 200000; i++) {
			tile = rnd() % 5000;
			if (rnd() % 7 == 0) {
				if (mmnf_cache_drop(c, tile))
					EXPECT_TRUE(came[tile]);
				came[tile] = 0;
				continue;
			}
			if (use(c, tile)) {
				EXPECT_TRUE(came[tile]);
				hits++;
			}
			came[tile] = 1;
		}
		/* A fifth of the tiles fits: by chance about a sixth hit. */
		EXPECT_GT(hits, 15000);
		EXPECT_LT(hits, 40000);
		mmnf_cache_close(c);
	}
}

TEST(lru_keeps_the_latest)
{
	/* One shard, so that the order is that of the whole. */
	struct mmnf_cache *c = open_cache(256, MMNF_L2_LRU);
	unsigned int i;

	for (i = 0; i < 256; i++)
		EXPECT_TRUE(!use(c, i));
	for (i = 0; i < 128; i++)
		EXPECT_TRUE(use(c, i));
	for (i = 1000; i < 1128; i++)
		EXPECT_TRUE(!use(c, i));
	for (i = 0; i < 128; i++)
		EXPECT_TRUE(use(c, i));
	for (i = 128; i < 256; i++)
		EXPECT_TRUE(!mmnf_cache_has(c, 0, i * 4096ULL));
	mmnf_cache_close(c);
}

/*
 * 64 tiles in turn, each between four that are used once: there are 320 others
 * between two uses, more than fit, so LRU never has one, nor has SIEVE, which
 * is first in, first out till something is used again.  S3-FIFO remembers.
 */
TEST(scans_do_not_push_out)
{
	unsigned int p, i, k, hits;

	for (p = 0; p < NR_POLICIES; p++) {
		struct mmnf_cache *c = open_cache(256, policies[p]);

		for (i = k = hits = 0; i < 20000; i++) {
			EXPECT_TRUE(!use(c, 100000 + i));
			if (i % 4 == 0)
				hits += use(c, k++ % 64);
		}
		if (policies[p] == MMNF_L2_S3FIFO)
			EXPECT_GT(hits, 2500); /* half of them */
		else
			EXPECT_EQ(hits, 0);
		mmnf_cache_close(c);
	}
}

TEST(pins_hold_and_full_is_an_answer)
{
	unsigned int p, i, claimed;
	uint32_t slot[64], other;

	for (p = 0; p < NR_POLICIES; p++) {
		struct mmnf_cache *c = open_cache(16, policies[p]);

		for (i = claimed = 0; i < 64; i++) {
			if (mmnf_cache_get(c, i, true, false, &slot[claimed]) !=
			    MMNF_CACHE_FILL)
				break;
			write_tile(c, slot[claimed], i);
			mmnf_cache_filled(c, slot[claimed++], true);
		}
		EXPECT_EQ(claimed, 16);
		EXPECT_EQ(mmnf_cache_get(c, 99, true, false, &other),
			  MMNF_CACHE_FULL);
		/* Dropped while pinned: unknown, but the memory stays. */
		EXPECT_TRUE(mmnf_cache_drop(c, 3));
		EXPECT_TRUE(!mmnf_cache_has(c, 0, 3 * 4096));
		EXPECT_EQ(mmnf_cache_get(c, 99, true, false, &other),
			  MMNF_CACHE_FULL);
		for (i = 0; i < claimed; i++)
			EXPECT_TRUE(tile_is(c, slot[i], i));
		mmnf_cache_put(c, slot[3]);
		EXPECT_EQ(mmnf_cache_get(c, 99, true, false, &other),
			  MMNF_CACHE_FILL);
		/* Being filled: others read it themselves. */
		EXPECT_EQ(mmnf_cache_get(c, 99, true, false, &slot[3]),
			  MMNF_CACHE_BUSY);
		EXPECT_TRUE(!mmnf_cache_wait(c, 99));
		mmnf_cache_filled(c, other, false);
		mmnf_cache_put(c, other);
		EXPECT_TRUE(!mmnf_cache_has(c, 0, 99 * 4096));
		for (i = 0; i < claimed; i++)
			if (i != 3)
				mmnf_cache_put(c, slot[i]);
		for (i = 200; i < 300; i++)
			EXPECT_TRUE(!use(c, i));
		mmnf_cache_close(c);
	}
}

/* Written while it was read: what was read is not kept. */
TEST(drop_wins_over_a_fill)
{
	struct mmnf_cache *c = open_cache(64, MMNF_L2_S3FIFO);
	uint32_t slot;

	ASSERT_EQ(mmnf_cache_get(c, 5, true, true, &slot), MMNF_CACHE_FILL);
	EXPECT_TRUE(mmnf_cache_drop(c, 5));
	mmnf_cache_filled(c, slot, true);
	EXPECT_TRUE(!mmnf_cache_has(c, 0, 5 * 4096));
	mmnf_cache_put(c, slot);
	EXPECT_TRUE(!use(c, 5));
	mmnf_cache_close(c);
}

TEST(places_without_a_number_are_not_kept)
{
	struct mmnf_cache *c;
	uint32_t slot;

	ASSERT_EQ(mmnf_cache_open(&c, 1 << 20, MMNF_L2_LRU, 10), 0);
	EXPECT_EQ(mmnf_cache_tile(c, 3, 9 * 4096 + 5), 39);
	EXPECT_EQ(mmnf_cache_tile(c, 3, 10 * 4096), MMNF_NO_TILE);
	EXPECT_EQ(mmnf_cache_tile(c, 1ULL << 62, 0), MMNF_NO_TILE);
	EXPECT_EQ(mmnf_cache_get(c, MMNF_NO_TILE, true, true, &slot),
		  MMNF_CACHE_FULL);
	EXPECT_TRUE(!mmnf_cache_drop(c, MMNF_NO_TILE));
	mmnf_cache_close(c);
}

static struct mmnf_cache *shared;
static unsigned int nr_wrong;

static void *use_many(void *arg)
{
	uint64_t x = (uintptr_t)arg * 2 + 1;
	uint32_t slot;
	unsigned int i;

	for (i = 0; i < 30000; i++) {
		uint64_t tile;

		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		tile = (x >> 40) % 1500;
		if ((x >> 33) % 16 == 0) {
			mmnf_cache_drop(shared, tile);
			continue;
		}
		switch (mmnf_cache_get(shared, tile, true, true, &slot)) {
		case MMNF_CACHE_FILL:
			write_tile(shared, slot, tile);
			mmnf_cache_filled(shared, slot, true);
			break;
		case MMNF_CACHE_BUSY:
			mmnf_cache_wait(shared, tile);
			continue;
		case MMNF_CACHE_FULL:
			continue;
		case MMNF_CACHE_HIT:
			break;
		}
		if (!tile_is(shared, slot, tile))
			__atomic_fetch_add(&nr_wrong, 1, __ATOMIC_RELAXED);
		mmnf_cache_put(shared, slot);
	}
	return NULL;
}

TEST(threads_see_whole_tiles)
{
	struct mmnf_cache_stats stats;
	pthread_t threads[4];
	unsigned int p;
	uintptr_t i;
	uint64_t has;

	for (p = 0; p < NR_POLICIES; p++) {
		shared = open_cache(1024, policies[p]);
		for (i = 0; i < 4; i++)
			ASSERT_EQ(pthread_create(&threads[i], NULL, use_many,
						 (void *)i),
				  0);
		for (i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
		EXPECT_EQ(nr_wrong, 0);
		mmnf_cache_stats(shared, &stats);
		EXPECT_GT(stats.hits, 0);
		EXPECT_GT(stats.misses, 0);
		/* Nothing is pinned now: used is what is there. */
		for (i = has = 0; i < 1500; i++)
			has += mmnf_cache_has(shared, 0, i * MMNF_TILE_BYTES);
		EXPECT_GT(has, 0);
		EXPECT_EQ(mmnf_cache_used(shared), has * MMNF_TILE_BYTES);
		mmnf_cache_close(shared);
	}
}

TEST_MAIN
