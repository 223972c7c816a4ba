// SPDX-License-Identifier: MIT
/*
 * L2 by itself: what is kept and what leaves, pins, drops, threads.  A tile
 * holds its own number all over.
 */
#include "field_util.h"

#include <cache.h>
#include <pthread.h>

static bool slow_answers;

#ifdef __SANITIZE_THREAD__
#include <cache-pins.h> /* all of the library is linked in any case */
#else
#define mmnf_boards_have ask_boards
#include <cache-pins.c>
#undef mmnf_boards_have

bool mmnf_boards_have(const struct boards *b, u32 slot);

/* Others go on between question and answer. */
bool mmnf_boards_have(const struct boards *b, u32 slot)
{
	static unsigned int nr;
	bool have = ask_boards(b, slot);

	if (__atomic_load_n(&slow_answers, __ATOMIC_RELAXED) &&
	    __atomic_fetch_add(&nr, 1, __ATOMIC_RELAXED) % 4 == 0)
		usleep(50);
	return have;
}
#endif

static struct mmnf_cache *shared;

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

static void write_tile(struct mmnf_cache *c, struct mmnf_pin pin, uint64_t tile)
{
	uint64_t *p = (uint64_t *)mmnf_cache_data(c, pin);
	unsigned int i;

	for (i = 0; i < MMNF_TILE_BYTES / 8; i++)
		p[i] = tile;
}

static bool tile_is(struct mmnf_cache *c, struct mmnf_pin pin, uint64_t tile)
{
	const uint64_t *p = (const uint64_t *)mmnf_cache_data(c, pin);

	return p[0] == tile && p[MMNF_TILE_BYTES / 8 - 1] == tile;
}

/* As a reader does; was it there? */
static bool use(struct mmnf_cache *c, uint64_t tile)
{
	enum mmnf_cache_state state;
	struct mmnf_pin pin;

	state = mmnf_cache_get(c, tile, true, false, &pin);
	if (state == MMNF_CACHE_FILL) {
		write_tile(c, pin, tile);
		mmnf_cache_filled(c, pin, true);
	} else {
		ASSERT_EQ(state, MMNF_CACHE_HIT);
	}
	EXPECT_TRUE(tile_is(c, pin, tile));
	mmnf_cache_put(c, pin);
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
	struct mmnf_pin pin[64], other;

	for (p = 0; p < NR_POLICIES; p++) {
		struct mmnf_cache *c = open_cache(16, policies[p]);

		for (i = claimed = 0; i < 64; i++) {
			if (mmnf_cache_get(c, i, true, false, &pin[claimed]) !=
			    MMNF_CACHE_FILL)
				break;
			write_tile(c, pin[claimed], i);
			mmnf_cache_filled(c, pin[claimed++], true);
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
			EXPECT_TRUE(tile_is(c, pin[i], i));
		mmnf_cache_put(c, pin[3]);
		EXPECT_EQ(mmnf_cache_get(c, 99, true, false, &other),
			  MMNF_CACHE_FILL);
		/* Being filled: others read it themselves. */
		EXPECT_EQ(mmnf_cache_get(c, 99, true, false, &pin[3]),
			  MMNF_CACHE_BUSY);
		EXPECT_TRUE(!mmnf_cache_wait(c, 99));
		mmnf_cache_filled(c, other, false);
		mmnf_cache_put(c, other);
		EXPECT_TRUE(!mmnf_cache_has(c, 0, 99 * 4096));
		for (i = 0; i < claimed; i++)
			if (i != 3)
				mmnf_cache_put(c, pin[i]);
		for (i = 200; i < 300; i++)
			EXPECT_TRUE(!use(c, i));
		mmnf_cache_close(c);
	}
}

/* Pins of hits, more than a board has, hold as well as those of who claimed. */
TEST(pins_of_hits_hold)
{
	struct mmnf_pin claimed, hit[16], again[16], other;
	unsigned int p, i;

	for (p = 0; p < NR_POLICIES; p++) {
		struct mmnf_cache *c = open_cache(16, policies[p]);

		for (i = 0; i < 16; i++) {
			ASSERT_EQ(mmnf_cache_get(c, i, true, false, &claimed),
				  MMNF_CACHE_FILL);
			write_tile(c, claimed, i);
			mmnf_cache_filled(c, claimed, true);
			mmnf_cache_put(c, claimed);
		}
		for (i = 0; i < 16; i++) {
			ASSERT_EQ(mmnf_cache_get(c, i, false, false, &hit[i]),
				  MMNF_CACHE_HIT);
			EXPECT_TRUE(tile_is(c, hit[i], i));
		}
		EXPECT_EQ(mmnf_cache_get(c, 99, true, false, &other),
			  MMNF_CACHE_FULL);
		/* The first is on the board, the last is not: both are dropped. */
		EXPECT_TRUE(mmnf_cache_drop(c, 0));
		EXPECT_TRUE(mmnf_cache_drop(c, 15));
		EXPECT_EQ(mmnf_cache_get(c, 99, true, false, &other),
			  MMNF_CACHE_FULL);
		EXPECT_EQ(mmnf_cache_used(c), 16 * MMNF_TILE_BYTES);
		EXPECT_TRUE(tile_is(c, hit[0], 0));
		EXPECT_TRUE(tile_is(c, hit[15], 15));
		mmnf_cache_put(c, hit[0]);
		EXPECT_EQ(mmnf_cache_used(c), 15 * MMNF_TILE_BYTES);
		mmnf_cache_put(c, hit[15]);
		EXPECT_EQ(mmnf_cache_used(c), 14 * MMNF_TILE_BYTES);
		/* Two pins of one: it stays till both are gone. */
		for (i = 1; i < 15; i++)
			ASSERT_EQ(mmnf_cache_get(c, i, false, false, &again[i]),
				  MMNF_CACHE_HIT);
		for (i = 1; i < 15; i++)
			mmnf_cache_put(c, hit[i]);
		EXPECT_TRUE(!use(c, 99));
		EXPECT_TRUE(!use(c, 98));
		EXPECT_TRUE(mmnf_cache_drop(c, 99));
		EXPECT_TRUE(mmnf_cache_drop(c, 98));
		for (i = 1; i < 15; i++)
			EXPECT_TRUE(tile_is(c, again[i], i));
		for (i = 1; i < 15; i++)
			mmnf_cache_put(c, again[i]);
		for (i = 200; i < 300; i++)
			EXPECT_TRUE(!use(c, i));
		EXPECT_EQ(mmnf_cache_used(c), 16 * MMNF_TILE_BYTES);
		mmnf_cache_close(c);
	}
}

static void *put_back(void *arg)
{
	mmnf_cache_put(shared, *(struct mmnf_pin *)arg);
	return NULL;
}

TEST(pins_are_given_back_by_other_threads)
{
	struct mmnf_cache_stats stats;
	struct mmnf_pin pin;
	pthread_t thread;
	unsigned int i;

	shared = open_cache(16, MMNF_L2_S3FIFO);
	EXPECT_TRUE(!use(shared, 7));
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(mmnf_cache_get(shared, 7, false, false, &pin),
			  MMNF_CACHE_HIT);
		if (i == 19)
			EXPECT_TRUE(mmnf_cache_drop(shared, 7));
		ASSERT_EQ(pthread_create(&thread, NULL, put_back, &pin), 0);
		pthread_join(thread, NULL);
	}
	EXPECT_EQ(mmnf_cache_used(shared), 0);
	mmnf_cache_stats(shared, &stats);
	EXPECT_EQ(stats.hits, 20);
	mmnf_cache_close(shared);
}

/* As many as there are boards, and more, one after the other. */
#define SHORT_LIVED 200

static void *pin_on_board(void *boards)
{
	uint32_t place = mmnf_boards_pin(boards, 3);

	ASSERT_TRUE(place != NO_PLACE);
	EXPECT_TRUE(!mmnf_boards_unpin(boards, place, true));
	return NULL;
}

TEST(threads_that_end_leave_their_boards)
{
	struct boards boards = { 0 };
	uint32_t kept, i;
	pthread_t thread;

	ASSERT_EQ(mmnf_boards_open(&boards), 0);
	kept = mmnf_boards_pin(&boards, 7);
	for (i = 0; i < SHORT_LIVED; i++) {
		ASSERT_EQ(pthread_create(&thread, NULL, pin_on_board, &boards),
			  0);
		pthread_join(thread, NULL);
		EXPECT_TRUE(mmnf_boards_have(&boards, 7));
		EXPECT_TRUE(!mmnf_boards_have(&boards, 3));
	}
	/* This thread's, and one for all of those. */
	EXPECT_LE(boards.nr_used, 2);
	EXPECT_EQ(mmnf_boards_hits(&boards), SHORT_LIVED);
	EXPECT_TRUE(!mmnf_boards_unpin(&boards, kept, false));
	mmnf_boards_close(&boards);
}

/* Written while it was read: what was read is not kept. */
TEST(drop_wins_over_a_fill)
{
	struct mmnf_cache *c = open_cache(64, MMNF_L2_S3FIFO);
	struct mmnf_pin pin;

	ASSERT_EQ(mmnf_cache_get(c, 5, true, true, &pin), MMNF_CACHE_FILL);
	EXPECT_TRUE(mmnf_cache_drop(c, 5));
	mmnf_cache_filled(c, pin, true);
	EXPECT_TRUE(!mmnf_cache_has(c, 0, 5 * 4096));
	mmnf_cache_put(c, pin);
	EXPECT_TRUE(!use(c, 5));
	mmnf_cache_close(c);
}

TEST(places_without_a_number_are_not_kept)
{
	struct mmnf_cache *c;
	struct mmnf_pin pin;

	ASSERT_EQ(mmnf_cache_open(&c, 1 << 20, MMNF_L2_LRU, 10), 0);
	EXPECT_EQ(mmnf_cache_tile(c, 3, 9 * 4096 + 5), 39);
	EXPECT_EQ(mmnf_cache_tile(c, 3, 10 * 4096), MMNF_NO_TILE);
	EXPECT_EQ(mmnf_cache_tile(c, 1ULL << 62, 0), MMNF_NO_TILE);
	EXPECT_EQ(mmnf_cache_get(c, MMNF_NO_TILE, true, true, &pin),
		  MMNF_CACHE_FULL);
	EXPECT_TRUE(!mmnf_cache_drop(c, MMNF_NO_TILE));
	mmnf_cache_close(c);
}

/*
 * Threads, of which each has some hits pinned while others evict, drop and fill: a
 * tile that is pinned stays what it is.  There are few more tiles than slots, so that
 * much is hit and much is evicted.
 */
#define THREAD_SLOTS 80
#define THREAD_TILES 96
#define THREADS 8
#define THREAD_PINS 12

static unsigned int nr_wrong;
struct held {
	struct mmnf_pin pin;
	uint64_t tile;
};

static void check_tile(struct mmnf_pin pin, uint64_t tile)
{
	const uint64_t *p = (const uint64_t *)mmnf_cache_data(shared, pin);
	unsigned int i;

	for (i = 0; i < MMNF_TILE_BYTES / 8 && p[i] == tile; i++)
		;
	if (i < MMNF_TILE_BYTES / 8)
		__atomic_fetch_add(&nr_wrong, 1, __ATOMIC_RELAXED);
}

static void check_and_put(struct held *held, unsigned int *nr)
{
	while (*nr) {
		struct held *h = &held[--*nr];

		check_tile(h->pin, h->tile);
		mmnf_cache_put(shared, h->pin);
	}
}

static void *use_many(void *arg)
{
	uint64_t x = (uintptr_t)arg * 7919 + 1;
	struct held held[THREAD_PINS];
	unsigned int i, nr = 0;
	struct mmnf_pin pin;

	for (i = 0; i < 30000; i++) {
		uint64_t tile;

		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		tile = (x >> 40) % THREAD_TILES;
		if ((x >> 33) % 16 == 0) {
			mmnf_cache_drop(shared, tile);
			continue;
		}
		switch (mmnf_cache_get(shared, tile, true, true, &pin)) {
		case MMNF_CACHE_FILL:
			write_tile(shared, pin, tile);
			mmnf_cache_filled(shared, pin, true);
			break;
		case MMNF_CACHE_BUSY:
			mmnf_cache_wait(shared, tile);
			continue;
		case MMNF_CACHE_FULL:
			check_and_put(held, &nr);
			continue;
		case MMNF_CACHE_HIT:
			break;
		}
		check_tile(pin, tile);
		if ((x >> 25) % 4 == 0)
			held[nr++] = (struct held) { pin, tile };
		else
			mmnf_cache_put(shared, pin);
		if (nr == THREAD_PINS || (x >> 50) % 32 == 0)
			check_and_put(held, &nr);
	}
	check_and_put(held, &nr);
	return NULL;
}

TEST(threads_see_whole_tiles)
{
	struct mmnf_cache_stats stats;
	pthread_t threads[THREADS];
	unsigned int p;
	uintptr_t i;
	uint64_t has;

	__atomic_store_n(&slow_answers, true, __ATOMIC_RELAXED);
	for (p = 0; p < NR_POLICIES; p++) {
		shared = open_cache(THREAD_SLOTS, policies[p]);
		for (i = 0; i < THREADS; i++)
			ASSERT_EQ(pthread_create(&threads[i], NULL, use_many,
						 (void *)i),
				  0);
		for (i = 0; i < THREADS; i++)
			pthread_join(threads[i], NULL);
		EXPECT_EQ(nr_wrong, 0);
		mmnf_cache_stats(shared, &stats);
		EXPECT_GT(stats.hits, 0);
		EXPECT_GT(stats.misses, 0);
		EXPECT_GT(stats.evicted, 0);
		/* Nothing is pinned now: used is what is there. */
		for (i = has = 0; i < THREAD_TILES; i++)
			has += mmnf_cache_has(shared, 0, i * MMNF_TILE_BYTES);
		EXPECT_GT(has, 0);
		EXPECT_EQ(mmnf_cache_used(shared), has * MMNF_TILE_BYTES);
		mmnf_cache_close(shared);
	}
}

TEST_MAIN
