// SPDX-License-Identifier: MIT
/*
 * The table of predict_cases.h: nests of loops foreseen across the ends of rows,
 * planes and volumes.
 */
#include "predict_check.h"

#define MIB (1024 * 1024ULL)

static void walk_all(enum mmnf_case_world world)
{
	struct mmnf_case_run *run = calloc(1, sizeof(*run));
	unsigned int i;
	u64 n;

	ASSERT_TRUE(run);
	run->pages = malloc(MMNF_CASE_PAGES);
	ASSERT_TRUE(run->pages);
	for (i = 0; i < MMNF_NR_CASES; i++) {
		const struct mmnf_case *c = &mmnf_cases[i];

		ASSERT_LE(c->bytes, MMNF_CASE_PAGES * CASE_PAGE);
		mmnf_case_walk(run, c, world);
		EXPECT_STREQ(run->law, "");
		if (getenv("VERBOSE") || run->nr_misses > c->max_misses ||
		    run->nr_wasted > mmnf_case_most_wasted(c, world)) {
			printf("# %s: %llu touched, %llu late, %llu missed, %llu wasted; missed at",
			       c->name, (unsigned long long)run->nr_touched,
			       (unsigned long long)run->nr_late,
			       (unsigned long long)run->nr_misses,
			       (unsigned long long)run->nr_wasted);
			for (n = 0; n < run->nr_misses && n < MMNF_CASE_NOTED;
			     n++)
				printf(" %llu",
				       (unsigned long long)run->at_misses[n]);
			printf("\n");
		}
		EXPECT_LE(run->nr_misses, c->max_misses);
		EXPECT_LE(run->nr_wasted, mmnf_case_most_wasted(c, world));
	}
	free(run->pages);
	free(run);
}

TEST(every_page_faults)
{
	walk_all(MMNF_CASE_SEEN);
}

TEST(faults_map_pages_around)
{
	walk_all(MMNF_CASE_AROUND);
}

TEST(reads_take_time)
{
	walk_all(MMNF_CASE_SLOW);
}

struct timed {
	struct mmnf_table table;
	u64 now_ns;
};

/*
 * A read takes 100 us and a step 1 us: 225 steps are twice and a quarter as long as a
 * read.  Return: steps planned.
 */
static u64 touch(struct timed *t, u64 thread, u64 pos,
		 enum mmnf_outcome outcome)
{
	struct mmnf_access access = { .thread = thread,
				      .ip = 1,
				      .pos = pos,
				      .now_ns = t->now_ns,
				      .outcome = outcome };
	struct mmnf_plan plan;
	bool planned = mmnf_observe(&t->table, &access, &plan);

	if (planned)
		check_plan(&t->table, pos, &plan);
	check_table(&t->table);
	if (outcome == MMNF_MISS)
		t->now_ns += 100000;
	mmnf_resume(&t->table, thread, t->now_ns, 0, 0);
	t->now_ns += 1000;
	return planned ? mmnf_plan_nr(&plan) : 0;
}

static struct timed *timed_new(const s64 *stride, const u64 *extent)
{
	struct timed *t = calloc(1, sizeof(*t));

	ASSERT_TRUE(t);
	t->now_ns = 1;
	mmnf_table_init(&t->table, CASE_PAGE, 0, (u64)stride[0] * extent[0], 0);
	mmnf_table_set_axes(&t->table, stride, extent, 3);
	return t;
}

/*
 * Columns along the largest axis, each of a thread of its own, that go on nowhere:
 * four are taken to go on along the next axis, by 32 rows at most.
 */
TEST(columns_that_end_are_taken_to_go_on_four_times)
{
	const s64 stride[] = { 1000 * MIB, MIB, 4 };
	const u64 extent[] = { 6, 1000, MIB / 4 };
	struct timed *t = timed_new(stride, extent);
	u64 column, z, pos, wasted = 0, nr_wrong = 0;

	for (column = 0; column < 20; column++) {
		for (z = 0; z < 6; z++) {
			pos = z * 1000 * MIB + column * 5 * MIB;
			touch(t, column, pos, z < 2 ? MMNF_MISS : MMNF_HIT);
		}
		touch(t, column, pos + 100 * MIB + 5 * CASE_PAGE, MMNF_MISS);
		EXPECT_LE(t->table.nr_wasted, wasted + 32);
		if (!column)
			EXPECT_EQ(t->table.nr_wasted, 32);
		nr_wrong += t->table.nr_wasted > wasted;
		wasted = t->table.nr_wasted;
	}
	EXPECT_EQ(nr_wrong, 4);
	free(t);
}

/* Of records of 1 MiB by one, of 256 KiB by four: a wrong guess costs 1 MiB. */
TEST(columns_of_large_records_are_taken_to_go_on_for_less)
{
	const s64 stride[] = { 1000 * MIB, MIB, 4 };
	const u64 extent[] = { 6, 1000, MIB / 4 };
	u64 span, z;

	for (span = MIB / 4; span <= MIB; span *= 4) {
		struct timed *t = timed_new(stride, extent);

		mmnf_table_init(&t->table, CASE_PAGE, 0, 6000 * MIB, span);
		mmnf_table_set_axes(&t->table, stride, extent, 3);
		for (z = 0; z < 6; z++)
			touch(t, 1, z * 1000 * MIB,
			      z < 2 ? MMNF_MISS : MMNF_HIT);
		EXPECT_EQ(t->table.nr_planned, 4 + MIB / span);
		free(t);
	}
}

/* A thread that waits is not kept from its CPU for longer than need be. */
TEST(a_plan_of_a_waiting_thread_is_short)
{
	const s64 stride[] = { 32 * 800000, 800000, 4 };
	const u64 extent[] = { 24, 32, 200000 };
	struct timed *t = timed_new(stride, extent);
	u64 i, pos;

	touch(t, 1, 0, MMNF_MISS);
	/* To the end of the column, and 32 rows on. */
	EXPECT_EQ(touch(t, 1, (u64)stride[0], MMNF_MISS), 22 + 32);
	for (i = 2; i < 768; i++) {
		pos = i % 24 * (u64)stride[0] + i / 24 * (u64)stride[1];
		touch(t, 1, pos, MMNF_LATE);
	}
	EXPECT_EQ(t->table.stream[0].depth, 256);
	/* Nothing foretells by how much: half of its 256, more than a read's 100. */
	EXPECT_EQ(touch(t, 1, 200000, MMNF_MISS), 128);
	EXPECT_EQ(touch(t, 1, 200000 + (u64)stride[0], MMNF_HIT), 129);
	free(t);
}

TEST_MAIN
