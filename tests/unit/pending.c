// SPDX-License-Identifier: MIT
/*
 * The set of pages read ahead against a plain byte per page.
 */
#include "core/pending.h"
#include "ktap.h"

#define CAPACITY (MMNF_PENDING_ENTRIES * 64ULL)

static struct mmnf_pending pending;
static u64 seed = 1;

static u64 rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545F4914F6CDD1DULL;
}

/* nr is the number of bits; no group stands twice. */
static void check_set(void)
{
	u64 sum = 0;
	int i, j;

	for (i = 0; i < MMNF_PENDING_ENTRIES; i++) {
		const struct mmnf_pending_entry *e = &pending.entry[i];

		sum += (u64)__builtin_popcountll(e->pages);
		for (j = i + 1; e->pages && j % MMNF_PENDING_WAYS; j++)
			if (pending.entry[j].pages)
				ASSERT_NE(pending.entry[j].group, e->group);
	}
	ASSERT_EQ(pending.nr, sum);
}

TEST(empty)
{
	EXPECT_EQ(pending.nr, 0);
	EXPECT_EQ(mmnf_pending_take(&pending, 0, 1000), 0);
	EXPECT_EQ(mmnf_pending_add(&pending, 5, 0), 0);
	EXPECT_EQ(mmnf_pending_take(&pending, 5, 0), 0);
	EXPECT_EQ(pending.nr, 0);
}

TEST(each_page_once)
{
	EXPECT_EQ(mmnf_pending_add(&pending, 60, 10), 0);
	EXPECT_EQ(pending.nr, 10);
	/* 65 .. 69 again: read twice */
	EXPECT_EQ(mmnf_pending_add(&pending, 65, 10), 5);
	EXPECT_EQ(pending.nr, 15);
	EXPECT_EQ(mmnf_pending_take(&pending, 0, 62), 2);
	EXPECT_EQ(mmnf_pending_take(&pending, 0, 64), 2);
	EXPECT_EQ(mmnf_pending_take(&pending, 64, 1000), 11);
	EXPECT_EQ(pending.nr, 0);
	EXPECT_EQ(mmnf_pending_take(&pending, 0, 1000), 0);
}

TEST(whole_groups_and_far_pages)
{
	const u64 far = (U64_MAX >> 12) - 127;

	EXPECT_EQ(mmnf_pending_add(&pending, far, 128), 0);
	EXPECT_EQ(mmnf_pending_add(&pending, 0, 64), 0);
	EXPECT_EQ(pending.nr, 192);
	EXPECT_EQ(mmnf_pending_take(&pending, far, 128), 128);
	EXPECT_EQ(mmnf_pending_take(&pending, 0, 64), 64);
	EXPECT_EQ(pending.nr, 0);
	check_set();
}

/*
 * Four groups fit whatever their buckets are, so nothing may be forgotten and
 * every answer is exact.
 */
TEST(exact_while_nothing_is_forgotten)
{
	static unsigned char oracle[4 * 64];
	u64 base, first, nr, i, count, total = 0;
	int round, step, add;

	seed = 42;
	for (round = 0; round < 200; round++) {
		memset(&pending, 0, sizeof(pending));
		memset(oracle, 0, sizeof(oracle));
		total = 0;
		/* Four neighbours, at a random place. */
		base = rnd() >> 20;
		for (step = 0; step < 500; step++) {
			first = rnd() % sizeof(oracle);
			nr = rnd() % (sizeof(oracle) - first + 1);
			if (rnd() % 2)
				nr = nr > 3 ? 3 : nr;
			add = rnd() % 2;
			for (i = first, count = 0; i < first + nr; i++) {
				count += oracle[i];
				oracle[i] = (unsigned char)add;
			}
			total = total - count + (add ? nr : 0);
			first += base * 64;
			if (add)
				ASSERT_EQ(mmnf_pending_add(&pending, first, nr),
					  count);
			else
				ASSERT_EQ(mmnf_pending_take(&pending, first,
							    nr),
					  count);
			ASSERT_EQ(pending.nr, total);
		}
		check_set();
	}
}

/*
 * With more than fits: nothing is invented, and added = taken + lost + held at
 * every step.
 */
TEST(every_page_is_accounted)
{
	const u64 pages = 4 * CAPACITY;
	unsigned char *oracle = calloc(pages, 1);
	u64 added = 0, taken = 0, lost = 0, first, nr, i, count, got;
	int step;

	ASSERT_TRUE(oracle);
	seed = 99;
	for (step = 0; step < 300000; step++) {
		first = rnd() % pages;
		nr = 1 + rnd() % (rnd() % 16 ? 8 : 700);
		if (nr > pages - first)
			nr = pages - first;
		if (rnd() % 3) {
			got = mmnf_pending_add(&pending, first, nr);
			memset(oracle + first, 1, nr);
			added += nr;
			lost += got;
		} else {
			for (i = first, count = 0; i < first + nr; i++)
				count += oracle[i];
			memset(oracle + first, 0, nr);
			got = mmnf_pending_take(&pending, first, nr);
			ASSERT_LE(got, count);
			taken += got;
		}
		ASSERT_EQ(added, taken + lost + pending.nr);
		if (step % 1000 == 0)
			check_set();
	}
	EXPECT_GT(taken, 0);
	EXPECT_GT(lost, 0);
	EXPECT_LE(pending.nr, CAPACITY);
	check_set();
	free(oracle);
}

/* What does not fit pushes out the old, not the new. */
TEST(the_newest_stay)
{
	u64 lost;

	lost = mmnf_pending_add(&pending, 0, 8 * CAPACITY);
	EXPECT_EQ(lost + pending.nr, 8 * CAPACITY);
	EXPECT_LE(pending.nr, CAPACITY);
	EXPECT_EQ(mmnf_pending_take(&pending, 8 * CAPACITY - 64, 64), 64);
	check_set();
}

/* Strides of powers of two do not crowd into one bucket. */
TEST(strided_groups_spread)
{
	u64 shift, i, lost;

	for (shift = 0; shift <= 24; shift++) {
		memset(&pending, 0, sizeof(pending));
		lost = 0;
		for (i = 0; i < 256; i++)
			lost += mmnf_pending_add(&pending, i << shift << 6, 1);
		/* An eighth full: hardly anything may be forgotten. */
		EXPECT_LE(lost, 13);
	}
}

TEST(has_what_was_added)
{
	u64 page, i;

	for (i = 0; i < 1000; i++) {
		page = rnd() % (64 * CAPACITY);
		EXPECT_EQ(mmnf_pending_has(&pending, page), 0);
		mmnf_pending_add(&pending, page, 1);
		EXPECT_EQ(mmnf_pending_has(&pending, page), 1);
		EXPECT_EQ(mmnf_pending_has(&pending, page ^ 1), 0);
		EXPECT_EQ(mmnf_pending_take(&pending, page, 1), 1);
		EXPECT_EQ(mmnf_pending_has(&pending, page), 0);
	}
}

TEST_MAIN
