// SPDX-License-Identifier: MIT
/*
 * The machine of `mmnf predict`: what a read, a wait, a fault and an eviction cost,
 * by arithmetic.
 */
#include "ktap.h"

#include "../../tools/predict-mmnf.c"
#include "../../tools/predict-none.c"
#include "../../tools/replay.c"
#include "../../tools/trace.c"

static struct trace trace;
static struct model model;
static struct replay_result result;

/* Of one thread unless a test says otherwise; costs are round numbers. */
static void begin(void)
{
	model = model_default;
	model.latency_ns = 1000;
	model.depth = 2;
	model.page_ns = 10;
	model.fault_ns = 0;
	model.cpu_ns = 0;
	model.wake_ns = 0;
	model.around_pages = 1;
	trace.geometry.file_bytes = 10000 * PAGE_BYTES;
}

static void touch_by(uint64_t thread, uint64_t page, uint64_t gap_ns)
{
	ASSERT_TRUE(
		trace_add(&trace, thread, 1, page * PAGE_BYTES + 5, gap_ns));
}

static void touch(uint64_t page, uint64_t gap_ns)
{
	touch_by(1, page, gap_ns);
}

static void replay(const struct predictor_ops *ops)
{
	char *wrong = (char *)trace_geometry_finish(
		&trace.geometry, trace.geometry.file_bytes - 1);

	ASSERT_TRUE(!wrong);
	ASSERT_TRUE(replay_run(ops, &trace, &model, NULL, &result));
	trace_free(&trace);
	EXPECT_EQ(result.faults, result.hits + result.late + result.misses);
	EXPECT_EQ(result.needed_pages, result.demand_pages + result.used_pages);
	EXPECT_EQ(result.ahead_pages, result.used_pages + result.wasted_pages);
}

/* Reads the pages of a list, apart from each other, at the first fault. */
static struct {
	uint64_t first, nr;
} list[8];
static bool alone;

static void list_fault(void *state, struct replay *r, const struct touch *t)
{
	uint32_t i;

	(void)state;
	for (i = 0; i < 8 && list[i].nr && r->result->faults == 1; i++)
		replay_read(r, t->now_ns, list[i].first, list[i].nr, NO_PAGE);
}

static const struct predictor_ops from_list = {
	.name = "list",
	.create = none_create,
	.destroy = free,
	.fault = list_fault,
};

TEST(a_miss_waits_for_its_read)
{
	begin();
	model.fault_ns = 7;
	model.cpu_ns = 3;
	touch(5, 100);
	touch(5, 20); /* mapped: free */
	replay(&predict_none);
	EXPECT_EQ(result.accesses, 2);
	EXPECT_EQ(result.misses, 1);
	EXPECT_EQ(result.stall_ns, 3 + 1000 + 10);
	EXPECT_EQ(result.total_ns, 100 + 7 + 3 + 1000 + 10 + 20);
}

TEST(requests_share_slots_and_link)
{
	begin();
	touch(0, 0);
	touch(10, 0);
	touch(20, 0);
	touch(30, 0);
	list[0].first = 0, list[0].nr = 1;
	list[1].first = 10, list[1].nr = 3;
	list[2].first = 20, list[2].nr = 1;
	list[3].first = 30, list[3].nr = 1;
	replay(&from_list);
	/*
	 * Slot a: page 0 from 0, there at 1010; page 20 from 1010, 2020.
	 * Slot b: 10 to 12 from 0, the link is free at 1010: 1040; page 30 from
	 * 1040, 2050.
	 */
	EXPECT_EQ(result.stall_ns, 2050);
	EXPECT_EQ(result.total_ns, 2050);
	EXPECT_EQ(result.late, 3);
	EXPECT_EQ(result.ahead_pages, 5);
	EXPECT_EQ(result.wasted_pages, 2);
}

TEST(long_reads_are_split_and_those_beyond_the_file_cut)
{
	begin();
	model.request_pages = 4;
	trace.geometry.file_bytes = 7 * PAGE_BYTES;
	touch(6, 0);
	list[0].first = 0, list[0].nr = 100;
	replay(&from_list);
	/* Pages 0 to 3 at 1040, 4 to 6 at 1070. */
	EXPECT_EQ(result.stall_ns, 1070);
	EXPECT_EQ(result.demand_pages, 1);
	EXPECT_EQ(result.wasted_pages, 6);
}

TEST(reading_costs_the_thread_that_faults)
{
	begin();
	model.cpu_ns = 100;
	touch(0, 0);
	list[0].first = 0, list[0].nr = 1;
	list[1].first = 50, list[1].nr = 40;
	replay(&from_list);
	/* Page 0 is there at 1110, but starting the others takes until 4100. */
	EXPECT_EQ(result.stall_ns, 4100);
}

TEST(around_maps_what_is_there)
{
	begin();
	model.around_pages = 16;
	touch(33, 0);
	touch(40, 5000); /* of the same 16, and there: a fault mapped it, too */
	touch(47, 0);
	touch(48, 0); /* of the next 16: a fault of its own */
	list[0].first = 33, list[0].nr = 20;
	replay(&from_list);
	EXPECT_EQ(result.faults, 2);
	EXPECT_EQ(result.misses, 1);
	EXPECT_EQ(result.hits, 1);
	EXPECT_EQ(result.used_pages, 3);
	EXPECT_EQ(result.stall_ns, 1200);
}

TEST(memory_forgets_the_least_recently_touched)
{
	uint64_t i;

	begin();
	model.memory_pages = 64;
	for (i = 0; i < 64; i++)
		touch(i, 0);
	touch(0, 0); /* so that page 1 is the oldest */
	touch(64, 0);
	touch(0, 0);
	touch(1, 0);
	replay(&predict_none);
	EXPECT_EQ(result.misses, 64 + 2);
	EXPECT_EQ(result.stall_ns, 66 * 1010);
}

TEST(threads_take_turns_by_their_time)
{
	begin();
	/* Thread 2 asks first, though it comes later in the trace. */
	touch_by(1, 1, 500);
	touch_by(2, 2, 100);
	touch_by(3, 2, 600);
	replay(&predict_none);
	/* 2: 100 to 1110; 3 waits for it, too; 1: 500 to 1510 on the other slot. */
	EXPECT_EQ(result.stall_ns, 1010 + 510 + 1010);
	EXPECT_EQ(result.total_ns, 1510);
	EXPECT_EQ(result.misses, 2);
	EXPECT_EQ(result.late, 1);
}

TEST(oracle_waits_for_the_first_only)
{
	uint64_t i;

	begin();
	model.depth = 64;
	for (i = 0; i < 500; i++)
		touch(i * 7919 % 10000, 100);
	replay(&predict_oracle);
	EXPECT_EQ(result.stall_ns, 1010);
	EXPECT_EQ(result.wasted_pages, 0);
}

static bool is_alone(void *state)
{
	(void)state;
	return alone;
}

TEST(alone_maps_one_page)
{
	struct predictor_ops ops = from_list;

	ops.alone = is_alone;
	alone = true;
	begin();
	model.around_pages = 16;
	touch(32, 0);
	touch(33, 5000);
	touch(34, 0);
	list[0].first = 32, list[0].nr = 8;
	replay(&ops);
	EXPECT_EQ(result.faults, 3);
}

/* The predictor of the module reads a stride's pages and no other. */
TEST(mmnf_reads_the_walk_alone)
{
	uint64_t i;

	begin();
	model.depth = 64;
	for (i = 0; i < 400; i++)
		touch(i * 20, 2000);
	replay(&predict_mmnf);
	EXPECT_LE(result.misses, 3);
	EXPECT_EQ(result.demand_pages, result.misses);
	EXPECT_LE(result.ahead_pages, 500 - 3);
	EXPECT_EQ(result.used_pages, 400 - result.misses);
	/* Slow as it is, it waits for what it missed alone. */
	EXPECT_LE(result.stall_ns, 3 * 1010 + 1010);
}

TEST_MAIN
