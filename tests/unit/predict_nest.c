// SPDX-License-Identifier: MIT
/*
 * The table of predict_cases.h: nests of loops foreseen across the ends of rows,
 * planes and volumes.
 */
#include "predict_check.h"

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

TEST_MAIN
