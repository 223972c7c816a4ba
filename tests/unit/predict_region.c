// SPDX-License-Identifier: MIT
/*
 * Misses in no order: those of a small region bring what lies between them, all
 * others nothing, or little that nobody touches; and a walk of one instruction is found
 * as soon after a thousand of them as after none.
 */
#include "predict_check.h"

#define PAGE 4096ULL
#define MIB (1ULL << 20)
#define PAGES 1024 /* of the small region, 4 MiB */
#define BLOCK 32 /* pages read with a miss */
#define FIELD (1ULL << 40)
#define CREDIT 2048 /* pages of blocks without use */
#define PAID 8 /* pages more for each touch of one that was read ahead */
#define AREA (FIELD / 4)
#define AREA_PAGES (1ULL << 20)

static struct mmnf_table table;
static struct mmnf_plan plan;
static unsigned char resident[PAGES];
static u64 order[PAGES]; /* by chance, each page once */
static u64 nr_plans, nr_misses, nr_read;
/* Of each page of the area. */
static enum { ABSENT, AHEAD, MAPPED } state[AREA_PAGES];
static u64 nr_visited, nr_fresh, nr_walked;

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
	memset(state, 0, sizeof(state));
	nr_plans = nr_misses = nr_read = 0;
	nr_visited = nr_fresh = nr_walked = 0;
}

static bool miss_by(u64 ip, u64 pos)
{
	struct mmnf_access access = {
		.thread = 1, .ip = ip, .pos = pos, .outcome = MMNF_MISS
	};
	bool planned = mmnf_observe(&table, &access, &plan);

	check_table(&table);
	if (planned)
		check_plan(&table, access.pos, &plan);
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

static void read_ahead(void)
{
	u64 n, page, end;

	for (n = 0; n < plan.nr; n++) {
		page = (mmnf_plan_pos(&plan, n) - AREA) / PAGE;
		end = (mmnf_plan_pos(&plan, n) + plan.span - 1 - AREA) / PAGE;
		for (; page <= end; page++) {
			ASSERT_LT(page, AREA_PAGES);
			if (state[page] != ABSENT)
				continue;
			state[page] = AHEAD;
			*(plan.nr_levels ? &nr_walked : &nr_read) += 1;
		}
	}
}

/*
 * A touch of the area.  One that is resident makes the @around about it, aligned,
 * accessible with it, where they are resident: their touches are not seen.
 */
static void visit(u64 page, u64 around)
{
	u64 i, first = page / around * around;
	struct mmnf_access access = {
		.thread = 1,
		.ip = 1,
		.pos = AREA + page * PAGE,
		.outcome = state[page] ? MMNF_HIT : MMNF_MISS,
	};

	nr_visited++;
	if (state[page] == MAPPED)
		return;
	if (access.outcome == MMNF_HIT) {
		access.before = (u32)(page - first);
		access.after = (u32)(first + around - 1 - page);
		for (i = first; i < first + around; i++) {
			access.fresh |= state[i] == AHEAD;
			if (state[i] == AHEAD)
				state[i] = MAPPED;
		}
	} else {
		nr_misses++;
		nr_read++;
		state[page] = MAPPED;
	}
	nr_fresh += access.fresh;
	if (!mmnf_observe(&table, &access, &plan))
		return;
	check_plan(&table, access.pos, &plan);
	read_ahead();
}

/* All pages of a region of @nr, which starts at @base, in an order by chance. */
static void visit_all(u64 base, u64 nr, u64 around)
{
	static u64 page[CREDIT];
	u64 i, other;

	for (i = 0; i < nr; i++) {
		other = rnd() % (i + 1);
		page[i] = page[other];
		page[other] = i;
	}
	for (i = 0; i < nr; i++)
		visit(base + page[i], around);
}

/*
 * Region after region, used whole: a block is paid for by its use, be each page of it
 * seen or 16 at once.  The misses as above, each block read twice, on average: by
 * chance, a walk is seen for a while.
 */
static void check_regions(u64 nr_regions, u64 mib, u64 around)
{
	u64 nr = mib * MIB / PAGE, i;

	begin(0);
	for (i = 0; i < nr_regions; i++)
		visit_all((i * 4 + 1) * CREDIT + 5, nr, around);
	EXPECT_LE(nr_misses, nr_regions * (12 + 16 + 2 * nr / BLOCK + 8));
	EXPECT_LE(nr_read, nr_regions * (nr + 1));
	EXPECT_LT(table.stream[0].owed, CREDIT / 2);
}

TEST(regions_in_use_are_read_in_blocks_one_after_the_other)
{
	static const u64 mib[] = { 1, 2, 4, 7 };
	u64 i;

	for (i = 0; i < 4; i++) {
		check_regions(32, mib[i], 1);
		check_regions(32, mib[i], 16);
	}
}

/* Most of the blocks is not touched: they end, and cost little of 20,000 reads. */
static void check_waste(void)
{
	u64 i, touched = 0;

	for (i = 0; i < AREA_PAGES; i++)
		touched += state[i] == MAPPED;
	EXPECT_GT(touched, nr_visited * 9 / 10);
	EXPECT_LE(nr_read, touched + CREDIT + BLOCK + PAID * nr_fresh);
	EXPECT_LE((nr_read + nr_walked) * 10, touched * 12);
}

TEST(pairs_in_descending_order_are_no_region)
{
	u64 i;

	begin(0);
	for (i = 0; i < 20000; i += 2) {
		visit((i + 1) * BLOCK + rnd() % BLOCK, 1);
		visit(i * BLOCK + rnd() % BLOCK, 1);
	}
	check_waste();
}

/* 40 of 4 MiB, then of 4 MiB elsewhere. */
TEST(what_is_left_soon_is_no_region)
{
	u64 i, j;

	begin(0);
	for (i = 0; i < 500; i++)
		for (j = 0; j < 40; j++)
			visit(i * 211 % 500 * CREDIT + rnd() % PAGES, 1);
	check_waste();
}

static void ascend(u64 by)
{
	u64 i;

	begin(0);
	for (i = 0; i < 20000; i++)
		visit(i * by + rnd() % (4 * by), 1);
	check_waste();
}

TEST(ascending_with_jitter_is_no_region)
{
	ascend(BLOCK);
	ascend(BLOCK / 2);
}

/* The limit of a window is for walks. */
TEST(a_larger_window_makes_no_larger_region)
{
	u64 i;

	begin(0);
	table.limits.max_window_bytes = 1 << 30;
	table.limits.max_inflight_bytes = 1 << 30;
	for (i = 0; i < 4096; i++)
		miss(rnd() % (80 * MIB / PAGE) * PAGE);
	EXPECT_EQ(nr_plans, 0);
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
	u64 i, pos, nr_pages = 0;

	begin(record);
	for (i = 0; i < PAGES; i++) {
		if (order[i] >= 800)
			continue;
		pos = order[i] * record;
		ASSERT_TRUE(miss(pos));
		if (plan.span > record)
			nr_pages += plan.span / PAGE;
		EXPECT_LE(plan.start, pos);
		EXPECT_LE(pos + record, plan.start + plan.span);
	}
	/* Of which nobody touched more. */
	EXPECT_GE(nr_pages, CREDIT);
	EXPECT_LE(nr_pages, CREDIT + BLOCK + 3);
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
	EXPECT_GE(nr_plans, CREDIT / BLOCK);
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

/* A guess that came to nothing, while no touch is learned from, is none any more. */
TEST(a_guess_is_forgotten_with_its_walk)
{
	const s64 stride[] = { 17 * PAGE, 4 };
	const u64 extent[] = { FIELD / PAGE / 17, 17 * 1024 };
	struct mmnf_access access = { .thread = 1, .ip = 1 };
	u64 i;

	begin(0);
	mmnf_table_set_axes(&table, stride, extent, 2);
	/* Resident, so that a guess is no reason to read. */
	for (i = 0; i < 100; i++) {
		access.pos = rnd() % (FIELD / 2 / PAGE) * PAGE;
		EXPECT_TRUE(!mmnf_observe(&table, &access, &plan));
	}
	access.pos += 17 * PAGE;
	EXPECT_TRUE(!mmnf_observe(&table, &access, &plan));
	EXPECT_TRUE(table.stream[0].guess);
	access.pos += FIELD / 4 + 5 * PAGE;
	EXPECT_TRUE(!mmnf_observe(&table, &access, &plan));
	EXPECT_TRUE(!table.stream[0].guess);
}

TEST_MAIN
