// SPDX-License-Identifier: MIT
/*
 * Misses in no order: those of a small region bring what lies between them, all
 * others nothing; and a walk is found as soon after a thousand of them as after none.
 */
#include "predict_check.h"

#define PAGE 4096ULL
#define MIB (1ULL << 20)
#define PAGES 1024 /* of the small region, 4 MiB */
#define BLOCK 32 /* pages read with a miss */
#define FIELD (1ULL << 40)

static struct mmnf_table table;
static struct mmnf_plan plan;
static unsigned char resident[PAGES];
static u64 order[PAGES]; /* by chance, each page once */
static u64 nr_plans, nr_misses, nr_read;

static void begin(u64 span)
{
	u64 i, other;

	seed = 20261126;
	for (i = 0; i < PAGES; i++) {
		other = rnd() % (i + 1);
		order[i] = order[other];
		order[other] = i;
	}
	mmnf_table_init(&table, PAGE, 0, FIELD, span);
	memset(resident, 0, sizeof(resident));
	nr_plans = nr_misses = nr_read = 0;
}

static bool miss_by(u64 ip, u64 pos)
{
	struct mmnf_access access = {
		.thread = 1, .ip = ip, .pos = pos, .outcome = MMNF_MISS
	};
	bool planned = mmnf_observe(&table, &access, &plan);

	check_table(&table);
	if (planned)
		check_plan(&table, &plan);
	nr_plans += planned;
	nr_misses++;
	return planned;
}

static bool miss(u64 pos)
{
	return miss_by(1, pos);
}

/* A page of the region that starts at @base; a plan is resident at once. */
static void touch(u64 base, u64 page)
{
	u64 first, end;

	if (resident[page])
		return;
	resident[page] = 1;
	if (!miss(base + page * PAGE))
		return;
	first = (plan.start - base) / PAGE;
	end = (plan.start + plan.span - base + PAGE - 1) / PAGE;
	ASSERT_EQ(plan.nr, 1);
	ASSERT_LE(base, plan.start);
	ASSERT_LE(end, PAGES);
	EXPECT_LE(first, page);
	EXPECT_GT(end, page);
	EXPECT_LE(end - first, BLOCK);
	for (nr_read += end - first; first < end; first++)
		resident[first] = 1;
}

TEST(a_small_region_is_read_in_blocks)
{
	u64 base = FIELD / 7 / PAGE * PAGE, i;

	begin(0);
	for (i = 0; i < PAGES; i++)
		touch(base, order[i]);
	/*
	 * 12 lie between others, and before them some do not: of n by chance the
	 * last is an outermost one with a probability of 2 / n, so about 2 * ln n of
	 * them.  Then each block is read once, and once more where it reached beyond
	 * all touches; two neighbours in a row are a walk of 4 pages.
	 */
	EXPECT_GT(nr_misses, 12);
	EXPECT_LE(nr_misses, 12 + 14 + PAGES / BLOCK + 8);
	EXPECT_GT(nr_read, PAGES * 9 / 10);
}

/* Ten times the window: twelve in a row lie in one by hardly any chance. */
TEST(a_region_beyond_the_window_is_not_read)
{
	u64 i;

	begin(0);
	for (i = 0; i < 4096; i++)
		miss(rnd() % (80 * MIB / PAGE) * PAGE);
	EXPECT_EQ(nr_plans, 0);
}

TEST(one_direction_is_no_region)
{
	u64 i, pos = 0;

	begin(0);
	for (i = 0; i < 2000; i++, pos += (1 + rnd() % 50) * PAGE) {
		miss(pos);
		EXPECT_EQ(table.stream[0].inside, 0);
	}
}

/* Of 8-byte numbers: the last touches lie as close as the window, all inside. */
TEST(binary_search_is_no_region)
{
	u64 i, low, high, middle, wanted, page;

	begin(0);
	for (i = 0; i < 2000; i++) {
		wanted = rnd() % (FIELD / 8);
		page = U64_MAX;
		for (low = 0, high = FIELD / 8; low < high;) {
			middle = low + (high - low) / 2;
			if (middle * 8 / PAGE != page)
				miss(middle * 8);
			page = middle * 8 / PAGE;
			EXPECT_LT(table.stream[0].inside, 12);
			if (middle < wanted)
				low = middle + 1;
			else
				high = middle;
		}
	}
}

TEST(what_memory_does_not_hold_is_not_read)
{
	u64 i;

	begin(0);
	table.room = PAGES / 2;
	for (i = 0; i < PAGES; i++)
		if (miss(order[i] * PAGE))
			EXPECT_LT(plan.span, BLOCK * PAGE);
}

/* Records of two pages and a half: the touched one is read whole. */
TEST(records_are_whole)
{
	const u64 record = 10240;
	u64 i, pos, nr_blocks = 0;

	begin(record);
	for (i = 0; i < PAGES; i++) {
		if (order[i] >= 800)
			continue;
		pos = order[i] * record;
		ASSERT_TRUE(miss(pos));
		nr_blocks += plan.span > record;
		EXPECT_LE(plan.start, pos);
		EXPECT_LE(pos + record, plan.start + plan.span);
	}
	EXPECT_GT(nr_blocks, 700);
}

/*
 * What a thread does together is a stream of no instruction, and so is what comes
 * from nowhere: its region begins where it was touched, not at the file's start.
 */
TEST(a_region_lies_in_the_data)
{
	const u64 start = MIB + 3 * PAGE;
	u64 i;

	begin(0);
	mmnf_table_init(&table, PAGE, start, FIELD, 0);
	for (i = 0; i < PAGES; i++)
		if (miss_by(i < 8 ? 1 + i % 2 : 0, start + order[i] * PAGE))
			EXPECT_LE(start, plan.start);
	EXPECT_GT(nr_plans, PAGES / 2);
}

static void lose(u64 nr)
{
	while (nr--)
		EXPECT_TRUE(!miss(rnd() % (FIELD / PAGE) * PAGE));
}

/* Touches of a walk until it is planned; @stride takes turns with @other. */
static u64 found_after(s64 stride, s64 other)
{
	u64 pos = FIELD / 2 + 8, nr = 1;

	for (; !miss(pos) && nr < 100; nr++)
		pos += (u64)(nr % 2 ? stride : other);
	return nr;
}

TEST(a_walk_is_found_after_any_number_of_misses)
{
	const s64 strides[] = { 17 * PAGE, -(s64)MIB, 2 * PAGE, 3 * PAGE + 40 };
	u64 i, lost;

	for (lost = 0; lost <= 1000; lost += 50) {
		for (i = 0; i < 4; i++) {
			begin(0);
			lose(lost);
			EXPECT_EQ(found_after(strides[i], strides[i]), 3);
		}
		/* Rows of two: one time each, to know them; once more, to see. */
		begin(0);
		lose(lost);
		EXPECT_LE(found_after(17 * PAGE, 70 * PAGE), 7);
		EXPECT_EQ(plan.level[0].stride, 17 * PAGE);
	}
}

TEST(geometry_is_taken_at_its_word_after_any_number_of_misses)
{
	const s64 stride[] = { 17 * PAGE, 4 };
	const u64 extent[] = { FIELD / PAGE / 17, 17 * 1024 };
	u64 lost;

	for (lost = 0; lost <= 1000; lost += 50) {
		begin(0);
		mmnf_table_set_axes(&table, stride, extent, 2);
		lose(lost);
		EXPECT_EQ(found_after(17 * PAGE, 17 * PAGE), 2);
	}
}

TEST_MAIN
