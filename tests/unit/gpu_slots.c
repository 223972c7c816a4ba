// SPDX-License-Identifier: MIT
/*
 * The slots of the GPU tier against a plain model: a list of tiles in order of
 * last use, searched from end to end.
 */
#include "ktap.h"

#include <tier-gpu.h>

#define NR 37
#define TILES 120

/* oldest first; pinned ones are not in it */
static struct {
	uint64_t tile[NR];
	uint32_t nr;
} lru;

static uint32_t pins[TILES];
static bool is_in[TILES];
static uint64_t seed = 1;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545F4914F6CDD1DULL >> 11;
}

static void lru_remove(uint64_t tile)
{
	uint32_t i, k;

	for (i = k = 0; i < lru.nr; i++)
		if (lru.tile[i] != tile)
			lru.tile[k++] = lru.tile[i];
	lru.nr = k;
}

static void lru_add(uint64_t tile, bool cold)
{
	if (cold) {
		memmove(lru.tile + 1, lru.tile, lru.nr * sizeof(*lru.tile));
		lru.tile[0] = tile;
	} else {
		lru.tile[lru.nr] = tile;
	}
	lru.nr++;
}

/* Tiles far apart, so that their hashes meet. */
static uint64_t number(uint32_t tile)
{
	return (uint64_t)tile << 40 | tile % 3;
}

static uint32_t slot_of(struct mmnf_slots *s, uint32_t tile)
{
	return mmnf_slots_find(s, number(tile))->slot;
}

static void check_all(struct mmnf_slots *s, uint32_t nr_in)
{
	uint32_t t, found = 0;

	for (t = 0; t < TILES; t++) {
		uint32_t slot = slot_of(s, t);

		ASSERT_EQ(slot != MMNF_SLOT_NONE, is_in[t]);
		if (!is_in[t])
			continue;
		found++;
		ASSERT_EQ(s->slot[slot].tile, number(t));
		ASSERT_EQ(s->slot[slot].pins, pins[t]);
	}
	ASSERT_EQ(found, nr_in);
}

static void touch(struct mmnf_slots *s, uint32_t tile, uint32_t *nr_in)
{
	uint32_t slot = slot_of(s, tile), was;

	if (is_in[tile]) {
		mmnf_slots_pin(s, slot);
		if (!pins[tile]++)
			lru_remove(tile);
		return;
	}
	was = *nr_in < NR ? TILES : lru.nr ? (uint32_t)lru.tile[0] : NR + TILES;
	slot = mmnf_slots_take(s, number(tile));
	if (was == NR + TILES) {
		ASSERT_EQ(slot, MMNF_SLOT_NONE);
		return;
	}
	ASSERT_NE(slot, MMNF_SLOT_NONE);
	if (was != TILES) {
		lru_remove(was);
		is_in[was] = false;
		--*nr_in;
	}
	is_in[tile] = true;
	pins[tile] = 1;
	++*nr_in;
}

TEST(the_victim_is_the_least_recently_used_that_nobody_pins)
{
	struct mmnf_slots s;
	uint32_t nr_in = 0, step;

	ASSERT_EQ(mmnf_slots_init(&s, NR), 0);
	for (step = 0; step < 200000; step++) {
		uint32_t tile = (uint32_t)(rnd() % TILES);
		bool cold = rnd() % 4 == 0;

		if (rnd() % 2) {
			touch(&s, tile, &nr_in);
		} else if (is_in[tile] && pins[tile]) {
			mmnf_slots_unpin(&s, slot_of(&s, tile), cold);
			if (!--pins[tile])
				lru_add(tile, cold);
		} else if (is_in[tile] && rnd() % 8 == 0) {
			mmnf_slots_forget(&s, slot_of(&s, tile));
			is_in[tile] = false;
			lru_remove(tile);
			nr_in--;
		}
		if (step % 64 == 0)
			check_all(&s, nr_in);
		ASSERT_EQ(s.nr_used, nr_in);
	}
	mmnf_slots_exit(&s);
}

TEST(a_pinned_tile_that_is_forgotten_is_free_when_unpinned)
{
	struct mmnf_slots s;
	uint32_t a, b;

	ASSERT_EQ(mmnf_slots_init(&s, 2), 0);
	a = mmnf_slots_take(&s, 7);
	mmnf_slots_forget(&s, a);
	EXPECT_EQ(mmnf_slots_find(&s, 7)->slot, MMNF_SLOT_NONE);
	b = mmnf_slots_take(&s, 7);
	EXPECT_NE(a, b);
	EXPECT_EQ(mmnf_slots_take(&s, 8), MMNF_SLOT_NONE);
	mmnf_slots_unpin(&s, a, false);
	EXPECT_EQ(s.nr_used, 1);
	EXPECT_EQ(mmnf_slots_take(&s, 8), a);
	EXPECT_EQ(mmnf_slots_find(&s, 7)->slot, b);
	mmnf_slots_exit(&s);
}

TEST_MAIN
