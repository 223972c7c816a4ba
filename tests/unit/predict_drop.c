// SPDX-License-Identifier: MIT
/*
 * Plans that nobody reads, because there were too many: their walk is told, and misses no
 * more than the touches until it may plan again.
 */
#include "predict_check.h"

#define PAGE 4096ULL
#define PAGES (1ULL << 15)

static struct mmnf_table table;
static u8 resident[PAGES];
static u64 nr_misses, longest, nr_plans;

static void read_ahead(const struct mmnf_plan *plan)
{
	u64 n, page, last;

	for (n = 0; n < mmnf_plan_nr(plan); n++) {
		u64 at = mmnf_plan_pos(plan, n);

		last = (at + plan->span - 1) / PAGE;
		for (page = at / PAGE; page <= last && page < PAGES; page++)
			resident[page] += !resident[page];
	}
}

/* Every stride pages; of the plans, @nr from the @first on are dropped. */
static void walk(u64 stride, u64 first, u64 nr)
{
	u64 page, row = 0;

	mmnf_table_init(&table, PAGE, 0, PAGES * PAGE, 0);
	memset(resident, 0, sizeof(resident));
	nr_misses = longest = nr_plans = 0;
	for (page = 0; page < PAGES; page += stride) {
		struct mmnf_access access = {
			.thread = 1,
			.ip = 1,
			.pos = page * PAGE,
			.outcome = resident[page] ? MMNF_HIT : MMNF_MISS,
			.fresh = resident[page] == 1,
		};
		struct mmnf_plan plan;

		row = resident[page] ? 0 : row + 1;
		longest = row > longest ? row : longest;
		nr_misses += !resident[page];
		resident[page] = 2;
		if (!mmnf_observe(&table, &access, &plan))
			continue;
		check_plan(&table, access.pos, &plan);
		if (nr_plans >= first && nr_plans < first + nr)
			mmnf_unplan(&table);
		else
			read_ahead(&plan);
		nr_plans++;
		check_table(&table);
	}
	EXPECT_GT(nr_plans, first + nr);
}

TEST(one_dropped)
{
	static const u64 strides[] = { 1, 2, 7, 20, 40 };
	u64 usual, i, k;

	for (i = 0; i < 5; i++) {
		walk(strides[i], 0, 0);
		usual = nr_misses;
		for (k = 0; k < 9; k++) {
			walk(strides[i], k, 1);
			EXPECT_LE(nr_misses, usual + 1);
		}
	}
}

/* While all are dropped all is missed, and no longer. */
TEST(many_dropped)
{
	u64 usual, nr = 200;

	walk(7, 0, 0);
	usual = nr_misses;
	walk(7, 4, nr);
	EXPECT_LE(nr_misses, usual + nr);
	EXPECT_GT(longest, nr / 2);
}

/* Only the last plan is; what was planned before it is there. */
TEST(what_is_ahead_stays)
{
	walk(7, 6, 3);
	EXPECT_LE(longest, 3);
}

/* A plan that is no walk's takes nothing back. */
TEST(record_alone)
{
	struct mmnf_access access = { .thread = 1, .outcome = MMNF_MISS };
	struct mmnf_plan plan;
	u64 planned, i;

	mmnf_table_init(&table, PAGE, 0, PAGES * PAGE, 4 * PAGE);
	for (i = 0; i < 10; i++) {
		access.ip = 1;
		access.pos = i * 16 * PAGE;
		mmnf_observe(&table, &access, &plan);
	}
	planned = table.nr_planned;
	ASSERT_GT(planned, 0);
	access.ip = 2;
	access.pos = (PAGES - 64) * PAGE;
	ASSERT_TRUE(mmnf_observe(&table, &access, &plan));
	mmnf_unplan(&table);
	check_table(&table);
	EXPECT_EQ(table.nr_planned, planned);
}

TEST_MAIN
