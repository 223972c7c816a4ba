// SPDX-License-Identifier: MIT
/*
 * The predictor against walks over a simulated field.
 *
 * In the simulation what a plan names is resident at once, unless a test says
 * otherwise; what is not resident when touched is a miss.  Every plan and every
 * step is held against the laws of predict.h.
 */
#include "predict_check.h"

#define PAGE 4096ULL
#define KIB 1024ULL
#define MIB (1024 * KIB)

struct world {
	struct mmnf_table table;
	unsigned char *resident; /* a byte per page; 2: planned, not touched */
	u64 nr_pages, nr_misses, nr_plans, nr_planned_pages, nr_useful_pages;
	struct mmnf_plan plan;
	bool planned;
};

static struct world *world_new(u64 start, u64 end, u64 span)
{
	struct world *w = calloc(1, sizeof(*w));

	ASSERT_TRUE(w);
	w->nr_pages = (end + PAGE - 1) / PAGE;
	w->resident = calloc(w->nr_pages, 1);
	ASSERT_TRUE(w->resident);
	mmnf_table_init(&w->table, PAGE, start, end, span);
	/* The default is a matter of taste; the arithmetic below is not. */
	w->table.limits.min_depth = 8;
	return w;
}

static void world_free(struct world *w)
{
	free(w->resident);
	free(w);
}

static void world_read(struct world *w, const struct mmnf_plan *plan)
{
	u64 n, page, last;

	for (n = 0; n < mmnf_plan_nr(plan); n++) {
		u64 pos = mmnf_plan_pos(plan, n);

		last = (pos + plan->span - 1) / PAGE;
		for (page = pos / PAGE; page <= last && page < w->nr_pages;
		     page++) {
			if (w->resident[page])
				continue;
			w->resident[page] = 2;
			w->nr_planned_pages++;
		}
	}
}

static bool world_touch_as(struct world *w, u64 thread, u64 ip, u64 pos,
			   u32 after, enum mmnf_outcome outcome)
{
	struct mmnf_access access = { .thread = thread,
				      .ip = ip,
				      .pos = pos,
				      .after = after,
				      .outcome = outcome };

	w->planned = mmnf_observe(&w->table, &access, &w->plan);
	check_table(&w->table);
	if (w->planned) {
		check_plan(&w->table, pos, &w->plan);
		w->nr_plans++;
	}
	return w->planned;
}

/* One page fault: pages touched before stay mapped and do not fault again. */
static void world_touch(struct world *w, u64 thread, u64 ip, u64 pos)
{
	unsigned char *page = &w->resident[pos / PAGE];
	enum mmnf_outcome outcome = *page ? MMNF_HIT : MMNF_MISS;

	if (*page == 1)
		return;
	w->nr_misses += outcome == MMNF_MISS;
	w->nr_useful_pages += *page == 2;
	*page = 1;
	if (world_touch_as(w, thread, ip, pos, 0, outcome))
		world_read(w, &w->plan);
}

/* Touch the first byte of every page of a row. */
static void world_touch_row(struct world *w, u64 row, u64 bytes)
{
	u64 pos = row;

	while (pos < row + bytes) {
		world_touch(w, 1, 1, pos);
		pos = (pos / PAGE + 1) * PAGE;
	}
}

static void walk_constant(u64 stride, bool backward)
{
	u64 nr = 300, end = (nr + 1) * stride, i, page;
	struct world *w = world_new(0, end, 0);

	for (i = 0; i < nr; i++) {
		u64 n = backward ? nr - 1 - i : i;
		s64 step = backward ? -(s64)stride : (s64)stride;

		world_touch(w, 1, 1, n * stride + 8);
		if (!w->planned)
			continue;
		EXPECT_EQ(w->plan.level[0].stride, step);
		EXPECT_EQ(w->plan.start % stride, 8);
		if (i == 2) {
			EXPECT_EQ(w->plan.start, n * stride + 8 + (u64)step);
			EXPECT_EQ(mmnf_plan_nr(&w->plan),
				  w->table.limits.min_depth);
		}
	}
	/* Three touches show two equal deltas; the rest was foreseen. */
	EXPECT_EQ(w->nr_misses, 3);
	EXPECT_EQ(w->nr_useful_pages, nr - 3);
	EXPECT_LE(w->nr_planned_pages, nr - 3 + w->table.limits.min_depth);
	/* What was read ahead lies on the walk and nowhere else. */
	for (page = 0; page < w->nr_pages; page++)
		if (w->resident[page])
			EXPECT_EQ((page * PAGE) % stride, 0);
	EXPECT_EQ(w->table.nr_wasted, 0);
	world_free(w);
}

TEST(constant_strides)
{
	const u64 strides[] = { 2 * PAGE, 17 * PAGE, MIB, 16 * MIB };
	unsigned int i;

	for (i = 0; i < 4; i++) {
		walk_constant(strides[i], false);
		walk_constant(strides[i], true);
	}
}

/* Strides that are no multiple of the page, down to just above one. */
TEST(odd_strides)
{
	u64 stride, nr = 400, i;
	int backward;

	for (stride = PAGE + 8; stride < 4 * PAGE; stride += 56) {
		for (backward = 0; backward < 2; backward++) {
			u64 end = (nr + 1) * stride;
			struct world *w = world_new(0, end, 0);

			for (i = 0; i < nr; i++)
				world_touch(w, 1, 1,
					    (backward ? nr - 1 - i : i) *
						    stride);
			/* Up to two skips are seen before the window is there. */
			EXPECT_LE(w->nr_misses, stride < 2 * PAGE ? 7 : 3);
			/*
			 * Under two pages, what is skipped is read, too, up
			 * to the end of the last window.
			 */
			if (stride < 2 * PAGE)
				EXPECT_LE(w->nr_planned_pages,
					  nr * stride / PAGE + 256);
			else
				EXPECT_LE(w->nr_planned_pages,
					  w->nr_useful_pages + 64);
			world_free(w);
		}
	}
}

/* The window doubles with each plan: 4, 8, .. pages, up to 1 MiB. */
static void walk_pages(bool backward)
{
	u64 nr = 4096, i, window = 4, ahead = 0;
	struct world *w = world_new(0, nr * PAGE, 0);

	for (i = 0; i < nr; i++) {
		u64 n = backward ? nr - 1 - i : i;

		world_touch(w, 1, 1, n * PAGE + (backward ? PAGE - 4 : 0));
		if (!w->planned)
			continue;
		/* Used to its half, the window is filled to the next one. */
		if (i + window < nr)
			EXPECT_EQ(w->plan.span / PAGE, window - ahead);
		ahead = window / 2;
		if (window < 256)
			window *= 2;
	}
	EXPECT_EQ(window, 256);
	EXPECT_EQ(w->nr_misses, 3);
	EXPECT_EQ(w->nr_useful_pages, nr - 3);
	EXPECT_EQ(w->nr_planned_pages, nr - 3);
	EXPECT_EQ(w->table.nr_wasted, 0);
	world_free(w);
}

TEST(sequential_forward)
{
	walk_pages(false);
}

TEST(sequential_backward)
{
	walk_pages(true);
}

/* Faults map up to 16 resident pages at once, so most pages are never seen. */
TEST(fault_around_over_resident_data)
{
	struct world *w = world_new(0, 1024 * PAGE, 0);
	u64 page;

	for (page = 0; page < 512; page += 16)
		EXPECT_TRUE(
			!world_touch_as(w, 1, 1, page * PAGE, 15, MMNF_HIT));
	/* The first absent page: the walk is known already. */
	ASSERT_TRUE(world_touch_as(w, 1, 1, 512 * PAGE, 0, MMNF_MISS));
	EXPECT_EQ(w->plan.start, 513 * PAGE);
	EXPECT_EQ(w->plan.span, 4 * PAGE);
	world_free(w);
}

/* All that was planned is mapped by one fault: the next is one beyond. */
TEST(fault_beyond_the_plan)
{
	const s64 strides[] = { PAGE, -(s64)PAGE, 2 * PAGE, 5000, -9000 };
	unsigned int i;

	for (i = 0; i < 5; i++) {
		struct world *w = world_new(0, 4096 * PAGE, 0);
		u64 pos = 2048 * PAGE, nr, step = (u64)strides[i];
		int n;

		for (n = 0; n < 3; n++)
			world_touch_as(w, 1, 1, pos + n * step, 0, MMNF_MISS);
		ASSERT_TRUE(w->planned);
		nr = mmnf_plan_nr(&w->plan);
		if (nr == 1)
			nr = w->plan.span / PAGE;
		pos += 3 * step;
		world_touch_as(w, 1, 1, pos, 0, MMNF_LATE);
		/* 5000 is followed by page, and the plan in pages */
		pos = strides[i] == 5000 ? pos / PAGE * PAGE + nr * PAGE :
					   pos + nr * step;
		EXPECT_TRUE(world_touch_as(w, 1, 1, pos, 0, MMNF_MISS));
		EXPECT_EQ(w->table.nr_wasted, 0);
		world_free(w);
	}
}

TEST(records_below_a_page)
{
	const u64 strides[] = { 4, 600, 672, 2100, 2700, 3000, 4000, 4095 };
	unsigned int i;

	for (i = 0; i < 8; i++) {
		u64 end = 2000 * PAGE, pos;
		struct world *w = world_new(0, end, strides[i]);

		for (pos = 0; pos < end; pos += strides[i])
			world_touch(w, 1, 1, pos);
		/* One fewer where the second record brought the third page. */
		EXPECT_LE(w->nr_misses, 3);
		EXPECT_EQ(w->nr_planned_pages, w->nr_useful_pages);
		EXPECT_EQ(w->nr_useful_pages, 2000 - w->nr_misses);
		world_free(w);
	}
}

/* Most rows cross a page: the second page is part of the same step. */
TEST(rows_across_pages)
{
	const u64 row = 4000, every = 7, nr = 500;
	struct world *w = world_new(0, nr * every * row, row);
	u64 i, page, pages = 0;

	for (i = 0; i < nr; i++) {
		world_touch_row(w, i * every * row, row);
		pages += (i * every * row + row - 1) / PAGE -
			 i * every * row / PAGE + 1;
	}
	EXPECT_EQ(w->nr_misses, 3);
	for (page = 0; page < w->nr_pages; page++)
		pages -= w->resident[page] == 1;
	EXPECT_EQ(pages, 0);
	EXPECT_LE(w->nr_planned_pages, w->nr_useful_pages + 8 * 2);
	EXPECT_EQ(w->table.nr_wasted, 0);
	world_free(w);
}

TEST(records_of_many_pages)
{
	const u64 record = 64 * KIB, every = 5, nr = 200;
	struct world *w = world_new(512, 512 + nr * every * record, record);
	u64 i;

	for (i = 0; i < nr; i++) {
		world_touch_row(w, 512 + i * every * record, record);
		if (i == 0) {
			/* The rest of the record came with its first page. */
			EXPECT_EQ(w->nr_misses, 1);
			EXPECT_EQ(w->nr_planned_pages, 16);
		}
	}
	EXPECT_EQ(w->nr_misses, 3);
	world_free(w);
}

/* A miss among planned positions: they were lost, and are named again. */
TEST(a_lost_plan_is_named_again)
{
	const u64 record = 64 * KIB;
	struct world *w = world_new(0, 1000 * record, record);
	u64 i;

	for (i = 0; i < 3; i++)
		world_touch_as(w, 1, 1, i * 3 * record, 0, MMNF_MISS);
	ASSERT_TRUE(w->planned);
	for (; i < 20; i++) {
		world_touch_as(w, 1, 1, i * 3 * record, 0, MMNF_MISS);
		/* Whatever was planned, the touched record is read whole. */
		ASSERT_TRUE(w->planned);
		EXPECT_EQ(w->plan.start, i * 3 * record);
		EXPECT_EQ(w->plan.span, record);
	}
	world_free(w);
}

/* a[i] + b[j] + c[k] + d[l]: four walks in one loop and one thread */
TEST(interleaved_arrays)
{
	const u64 part = 400 * MIB, nr = 300;
	const s64 stride[4] = { 17 * PAGE, -(s64)MIB, PAGE, 3 * PAGE + 40 };
	struct world *w = world_new(0, 4 * part, 0);
	u64 i, k, pos;

	for (i = 0; i < nr; i++) {
		for (k = 0; k < 4; k++) {
			pos = k * part + (stride[k] < 0 ? part - PAGE : 0);
			world_touch(w, 1, 100 + k, pos + i * (u64)stride[k]);
		}
	}
	EXPECT_EQ(w->nr_misses, 4 * 3);
	EXPECT_EQ(w->nr_useful_pages, 4 * (nr - 3));
	world_free(w);
}

/* As many threads as streams in the same code, in an order of chance. */
TEST(many_threads)
{
	const u64 part = 64 * MIB, nr = 200, stride = 17 * PAGE;
	struct world *w = world_new(0, MMNF_NR_STREAMS * part, 0);
	u64 at[MMNF_NR_STREAMS] = { 0 }, left = MMNF_NR_STREAMS * nr, t;

	seed = 7;
	while (left) {
		t = rnd() % MMNF_NR_STREAMS;
		if (at[t] == nr)
			continue;
		world_touch(w, t, 1, t * part + at[t]++ * stride);
		left--;
	}
	EXPECT_EQ(w->nr_misses, MMNF_NR_STREAMS * 3);
	world_free(w);
}

/* The compiler unrolled the loop: any of four instructions does the touch. */
TEST(unrolled_loop)
{
	const u64 nr = 400, stride = 17 * PAGE;
	struct world *w = world_new(0, nr * stride, 0);
	u64 i;

	/* In turn: the thread's walk is seen before any instruction's. */
	for (i = 0; i < nr; i++)
		world_touch(w, 1, i % 4, i * stride);
	EXPECT_EQ(w->nr_misses, 3);
	world_free(w);

	/* By chance, once the walk is known: they carry it on. */
	w = world_new(0, nr * stride, 0);
	seed = 11;
	for (i = 0; i < nr; i++)
		world_touch(w, 1, i < 3 ? 0 : rnd() % 4, i * stride);
	EXPECT_EQ(w->nr_misses, 3);
	world_free(w);
}

TEST(random_access_reads_nothing)
{
	struct world *w = world_new(0, PAGE, 0);
	int i;

	mmnf_table_init(&w->table, PAGE, 0, 1ULL << 50, 0);
	seed = 3;
	for (i = 0; i < 200000; i++)
		world_touch_as(w, 1, 1, rnd() >> 14, 0, MMNF_MISS);
	EXPECT_EQ(w->nr_plans, 0);
	EXPECT_EQ(w->table.nr_planned, 0);
	world_free(w);
}

TEST(resident_data_plans_nothing)
{
	const u64 strides[] = { PAGE, 17 * PAGE, 5000 };
	unsigned int i;
	u64 n;

	for (i = 0; i < 3; i++) {
		struct world *w = world_new(0, 1000 * strides[i], 0);

		for (n = 0; n < 1000; n++)
			world_touch_as(w, 1, 1, n * strides[i], 0, MMNF_HIT);
		EXPECT_EQ(w->nr_plans, 0);
		world_free(w);
	}
}

/*
 * 8, then filled to the double each time it was late, at once as long as depth is
 * within 8 and twice the steps followed, else when half is left; up to max_depth.
 */
TEST(late_doubles_depth)
{
	const u64 stride = 17 * PAGE;
	struct world *w = world_new(0, 4000 * stride, 0);
	u64 depth = 0, ahead = 0, i;
	bool deepens;

	for (i = 0; i < 3000; i++) {
		world_touch_as(w, 1, 1, i * stride, 0,
			       i < 3 ? MMNF_MISS : MMNF_LATE);
		if (ahead)
			ahead--;
		deepens = depth && depth < 256 && depth <= 2 * (i - 1) + 8;
		if (i < 2 || (ahead > depth / 2 && !deepens)) {
			EXPECT_TRUE(!w->planned);
			continue;
		}
		if (!depth)
			depth = 8;
		else if (deepens)
			depth *= 2;
		ASSERT_TRUE(w->planned);
		EXPECT_EQ(w->plan.start, (i + ahead + 1) * stride);
		EXPECT_EQ(mmnf_plan_nr(&w->plan), depth - ahead);
		ahead = depth;
	}
	EXPECT_EQ(depth, 256);
	world_free(w);
}

/* Neighbours along an axis that the table was told of are a walk already. */
TEST(geometry_needs_one_delta)
{
	const s64 axes[] = { 17 * PAGE, 8 };
	u64 extent[] = { 1000, 17 * PAGE / 8 };
	struct world *w = world_new(0, 1000 * axes[0], 0);
	u64 i, row, plans;

	mmnf_table_set_axes(&w->table, axes, extent, 2);
	for (i = 0; i < 1000; i++)
		world_touch(w, 1, 1, i * axes[0]);
	EXPECT_EQ(w->nr_misses, 2);
	EXPECT_EQ(w->table.nr_wasted, 0);
	world_free(w);

	/* Single rows at random, now and then a neighbour: four wrong guesses. */
	w = world_new(0, 4000000 * axes[0], 0);
	extent[0] = 4000000;
	mmnf_table_set_axes(&w->table, axes, extent, 2);
	for (i = 1, plans = 0; i <= 200; i++) {
		row = i * i * 97;
		world_touch_as(w, 1, 1, row * axes[0], 0, MMNF_MISS);
		plans += w->planned;
		if (i % 3)
			continue;
		world_touch_as(w, 1, 1, (row + 1) * axes[0], 0, MMNF_MISS);
		plans += w->planned;
	}
	EXPECT_EQ(plans, 4);
	world_free(w);
}

/* A walk that ends with positions untouched starts again half as deep. */
TEST(waste_halves_depth)
{
	const u64 stride = 17 * PAGE;
	struct world *w = world_new(0, 100000 * stride, 0);
	u64 i, round, first = 0, expected = 128;

	for (i = 0; i < 600; i++)
		world_touch_as(w, 1, 1, i * stride, 0,
			       i < 3 ? MMNF_MISS : MMNF_LATE);
	/* Other strides, or the jumps would be those of a nest. */
	for (round = 1; round < 7; round++) {
		u64 wasted = w->table.nr_wasted, other = (17 + round) * PAGE;

		first += (10007 + round * round) * stride;
		for (i = 0; i < 3; i++) {
			world_touch_as(w, 1, 1, first + i * other, 0,
				       MMNF_MISS);
			if (!i)
				EXPECT_GT(w->table.nr_wasted, wasted);
		}
		ASSERT_TRUE(w->planned);
		EXPECT_EQ(mmnf_plan_nr(&w->plan), expected);
		if (expected > 8)
			expected /= 2;
	}
	world_free(w);
}

TEST(plans_end_where_the_data_ends)
{
	const u64 start = 10 * MIB + 100, end = 20 * MIB + 13;
	struct world *w = world_new(start, end, 0);
	u64 nr, i;

	/* check_plan() looks at the bounds; here, that nothing is left out. */
	nr = (end - 1 - start) / (17 * PAGE) + 1;
	for (i = 0; i < nr; i++)
		world_touch(w, 1, 1, start + i * 17 * PAGE);
	EXPECT_EQ(w->nr_planned_pages, nr - 3);
	EXPECT_EQ(w->nr_useful_pages, nr - 3);
	for (i = 0; i < nr; i++)
		world_touch(w, 2, 2, end - 1 - i * 17 * PAGE);
	/* Outside there is nothing to see. */
	EXPECT_TRUE(!world_touch_as(w, 1, 1, end, 0, MMNF_MISS));
	EXPECT_TRUE(!world_touch_as(w, 1, 1, 0, 0, MMNF_MISS));
	EXPECT_TRUE(!world_touch_as(w, 1, 1, U64_MAX, 0, MMNF_MISS));
	world_free(w);
}

TEST(empty_data)
{
	struct world *w = world_new(PAGE, PAGE, 7);

	EXPECT_TRUE(!world_touch_as(w, 1, 1, 0, 0, MMNF_MISS));
	EXPECT_TRUE(!world_touch_as(w, 1, 1, PAGE, 0, MMNF_MISS));
	world_free(w);
}

TEST(budget)
{
	const u64 record = 64 * KIB;
	struct world *w = world_new(0, 5000 * record, record);
	u64 i;

	/* 10.5 records in flight: ten. */
	w->table.limits.max_inflight_bytes = 10 * record + record / 2;
	for (i = 0; i < 300; i++) {
		world_touch_as(w, 1, 1, i * 3 * record, 0, MMNF_LATE);
		EXPECT_LE(w->table.nr_planned - w->table.nr_used, 10);
	}
	EXPECT_EQ(w->table.nr_planned - w->table.nr_used, 10);
	/* Less than one record: one all the same, or it would never read. */
	w->table.limits.max_inflight_bytes = record / 2;
	for (; i < 400; i++)
		world_touch_as(w, 1, 1, i * 3 * record, 0, MMNF_LATE);
	EXPECT_EQ(w->table.nr_planned - w->table.nr_used, 1);
	world_free(w);
}

TEST_MAIN
