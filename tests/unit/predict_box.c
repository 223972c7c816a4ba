// SPDX-License-Identifier: MIT
/*
 * A walk that begins inside an axis may end inside it: until it did once, it is not
 * read far beyond what it has shown.
 */
#include "predict_check.h"

#define PAGE 4096ULL
#define ROW (8 * PAGE)
#define FIRST 16 /* row of the box in its plane */
#define LATENCY_NS 10000000
#define PACE_NS 10000

static struct mmnf_table table;
static u64 now_ns, beyond, frontier;

/* Planes of @extent rows, storage so slow that all that is allowed is planned. */
static void begin(u64 planes, u64 extent)
{
	const s64 stride[] = { (s64)(extent * ROW), ROW, 4 };
	const u64 shape[] = { planes, extent, ROW / 4 };

	mmnf_table_init(&table, PAGE, 0, planes * extent * ROW, 1);
	mmnf_table_set_axes(&table, stride, shape, 3);
	now_ns = 1000;
	frontier = 0;
}

/* A touch of a page that nobody has read in time. */
static void touch(u64 row)
{
	struct mmnf_access access = { .thread = 1,
				      .ip = 2,
				      .pos = row * ROW,
				      .now_ns = now_ns += PACE_NS };
	struct mmnf_plan plan;
	u64 last;

	access.outcome = frontier && access.pos <= frontier ? MMNF_LATE :
							      MMNF_MISS;
	if (mmnf_observe(&table, &access, &plan)) {
		check_plan(&table, access.pos, &plan);
		last = mmnf_plan_pos(&plan, mmnf_plan_nr(&plan) - 1);
		frontier = last > frontier ? last : frontier;
	}
	check_table(&table);
	now_ns += LATENCY_NS;
	mmnf_resume(&table, 1, now_ns, 0, 0);
	beyond = frontier / ROW > row ? frontier / ROW - row : 0;
}

static void touch_rows(u64 first, u64 nr)
{
	for (; nr; nr--, first++)
		touch(first);
}

TEST(first_row_of_a_box_is_not_read_far_beyond)
{
	u64 nr, most;

	for (nr = 3; nr <= 80; nr++) {
		begin(64, 96);
		touch_rows(FIRST, nr);
		/* Half of what was seen, a quarter of what is left, thrice min_depth. */
		most = nr / 2;
		if (most < (96 - FIRST - nr) / 4)
			most = (96 - FIRST - nr) / 4;
		if (most < 24)
			most = 24;
		EXPECT_LE(beyond, most + 1);
		/* And not less than is read at first. */
		if (nr < 96 - FIRST - 24)
			EXPECT_GE(beyond, 8);
	}
}

/* One touch that is late deepens once, however long the box holds the plan back. */
TEST(what_a_box_holds_back_does_not_deepen)
{
	struct mmnf_access access = { .thread = 1, .ip = 2, .fresh = true };
	struct mmnf_plan plan;
	u32 late, depth, i;

	for (late = 20; late < 50; late++) {
		begin(64, 1000);
		for (i = 0; i < 60; i++) {
			access.pos = (900 + i) * ROW;
			access.outcome = i < 2	   ? MMNF_MISS :
					 i == late ? MMNF_LATE :
						     MMNF_HIT;
			depth = table.stream[0].depth;
			if (!mmnf_observe(&table, &access, &plan) && i > 2)
				EXPECT_EQ(table.stream[0].depth, depth);
			check_table(&table);
			if (access.outcome != MMNF_HIT)
				mmnf_resume(&table, 1, 0, 0, 0);
		}
	}
}

TEST(later_rows_of_a_box_are)
{
	begin(64, 96);
	touch_rows(FIRST, 48);
	touch_rows(96 + FIRST, 48);
	EXPECT_GE(table.stream[0].at.ahead, 64);
}

TEST(walk_from_the_edge_is)
{
	begin(64, 960);
	touch_rows(0, 4);
	EXPECT_GE(beyond, 100);
}

TEST(walk_far_from_the_edge_is)
{
	begin(4, 100000);
	touch_rows(5000, 4);
	EXPECT_GE(beyond, 100);
}

TEST_MAIN
