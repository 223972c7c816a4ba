// SPDX-License-Identifier: MIT
/*
 * The peers of `mmnf predict` against windows worked out by hand from their
 * sources: what each reads after a sequence of faults.
 */
#include "ktap.h"

#include "../../tools/predict-ipstride.c"
#include "../../tools/predict-leap.c"
#include "../../tools/predict-lustre.c"
#include "../../tools/predict-mainline.c"

#define MOST_READS 4096

/* In place of the machine: notes what is read; all of it is present at once. */
struct replay {
	struct model model;
	uint64_t pages;
	struct {
		uint64_t first, nr, marker;
	} read[MOST_READS];
	uint32_t nr, told; /* reads; of these those that were expected */
};

const struct model *replay_model(const struct replay *r)
{
	return &r->model;
}

uint64_t replay_pages(const struct replay *r)
{
	return r->pages;
}

bool replay_present(const struct replay *r, uint64_t page)
{
	uint32_t i;

	for (i = 0; i < r->nr; i++)
		if (page - r->read[i].first < r->read[i].nr)
			return true;
	return false;
}

void replay_read(struct replay *r, uint64_t at_ns, uint64_t first, uint64_t nr,
		 uint64_t marker)
{
	(void)at_ns;
	ASSERT_LT(r->nr, MOST_READS);
	r->read[r->nr].first = first;
	r->read[r->nr].nr = nr;
	r->read[r->nr++].marker = marker;
}

static struct replay machine = {
	.model = { .readahead_pages = 32 },
	.pages = 1 << 20,
};
static const struct predictor_ops *ops;
static void *state;

static void begin(const struct predictor_ops *which)
{
	ops = which;
	state = ops->create(&machine);
	ASSERT_TRUE(state);
}

static void end(void)
{
	EXPECT_EQ(machine.told, machine.nr);
	ops->destroy(state);
}

static void touch_as(uint64_t ip, uint64_t pos, enum mmnf_outcome outcome,
		     bool marker)
{
	struct trace_access access = { .thread = 1, .ip = ip, .pos = pos };
	struct touch touch = { .access = &access,
			       .page = pos / PAGE_BYTES,
			       .outcome = outcome,
			       .marker = marker };

	ops->fault(state, &machine, &touch);
}

static void miss(uint64_t page)
{
	touch_as(1, page * PAGE_BYTES, MMNF_MISS, false);
}

static void hit(uint64_t page)
{
	touch_as(1, page * PAGE_BYTES, MMNF_HIT, false);
}

/* The next read was of [first, first + nr). */
static void expect_read(uint64_t first, uint64_t nr)
{
	ASSERT_LT(machine.told, machine.nr);
	EXPECT_EQ(machine.read[machine.told].first, first);
	EXPECT_EQ(machine.read[machine.told].nr, nr);
	machine.told++;
}

static void expect_marked(uint64_t first, uint64_t nr, uint64_t marker)
{
	expect_read(first, nr);
	EXPECT_EQ(machine.read[machine.told - 1].marker, marker);
}

static void expect_nothing(void)
{
	EXPECT_EQ(machine.told, machine.nr);
	machine.told = machine.nr;
}

/* ---- mainline: 32 pages about a miss, the marker before the last 8 */

TEST(mainline_reads_around)
{
	begin(&predict_mainline);
	miss(100);
	expect_marked(84, 32, 108);
	/* The file's start cuts it on the left only. */
	miss(5);
	expect_marked(0, 32, 24);
	end();
}

TEST(mainline_marker_moves_the_window)
{
	begin(&predict_mainline);
	miss(100);
	expect_marked(84, 32, 108);
	hit(101);
	expect_nothing();
	/* 84 + 32 - 8: the next 32, marked at their first. */
	touch_as(1, 108 * PAGE_BYTES, MMNF_HIT, true);
	expect_marked(116, 32, 116);
	touch_as(1, 116 * PAGE_BYTES, MMNF_LATE, true);
	expect_marked(148, 32, 148);
	end();
}

TEST(mainline_marker_of_another_walk)
{
	begin(&predict_mainline);
	miss(100);
	miss(1000);
	expect_marked(84, 32, 108);
	expect_marked(984, 32, 1008);
	/* Absent from 116 on: 8 pages ahead; 8 + 32, at most 32. */
	touch_as(1, 108 * PAGE_BYTES, MMNF_HIT, true);
	expect_marked(116, 32, 116);
	end();
}

TEST(mainline_marker_before_pages_that_are_there)
{
	begin(&predict_mainline);
	miss(100);
	miss(130);
	miss(1000);
	expect_marked(84, 32, 108);
	expect_marked(114, 32, 138);
	expect_marked(984, 32, 1008);
	/* 109 to 140, all that is looked at, is there: on from the last. */
	touch_as(1, 108 * PAGE_BYTES, MMNF_HIT, true);
	expect_marked(140, 32, 140);
	end();
}

TEST(mainline_marker_at_the_start)
{
	begin(&predict_mainline);
	touch_as(1, 0, MMNF_HIT, true);
	/* It would hit its own marker: the second half is ahead. */
	expect_marked(0, 32, 16);
	end();
}

TEST(mainline_gives_up_after_100_misses)
{
	struct touch t = { 0 };
	uint64_t i;

	begin(&predict_mainline);
	for (i = 1; i <= 100; i++) {
		miss(i * 1000);
		expect_marked(i * 1000 - 16, 32, i * 1000 + 8);
	}
	miss(200000);
	expect_nothing();
	/* 101; one page mapped around: 100, and the miss is the 101st again. */
	ops->mapped(state, &t, 1);
	miss(201000);
	expect_nothing();
	ops->mapped(state, &t, 2);
	miss(202000);
	expect_marked(201984, 32, 202008);
	/* What ->fault finds counts back by one, too. */
	hit(7);
	hit(8);
	miss(203000);
	expect_marked(202984, 32, 203008);
	end();
}

/* ---- Leap: windows of hits + 1, a power of two, at most 8 */

TEST(leap_window_follows_hits)
{
	uint64_t page = 10, i;

	begin(&predict_leap);
	miss(page);
	expect_read(10, 1);
	miss(13);
	expect_read(13, 1);
	expect_read(16, 1);
	for (page = 16; page < 19; page += 3)
		hit(page);
	miss(19); /* 1 hit: 2 */
	expect_read(19, 1);
	expect_read(22, 1);
	expect_read(25, 1);
	hit(22);
	hit(25);
	miss(28); /* 2 hits: 4 */
	expect_read(28, 1);
	for (i = 31; i <= 40; i += 3) {
		expect_read(i, 1);
		hit(i);
	}
	miss(43); /* 4 hits: 8 */
	expect_read(43, 1);
	for (i = 46; i <= 67; i += 3) {
		expect_read(i, 1);
		hit(i);
	}
	miss(70); /* 8 hits: 16, at most 8 */
	expect_read(70, 1);
	for (i = 73; i <= 94; i += 3)
		expect_read(i, 1);
	end();
}

TEST(leap_window_shrinks_by_halves)
{
	uint64_t i, window;

	begin(&predict_leap);
	miss(0);
	expect_read(0, 1);
	miss(5);
	expect_read(5, 1);
	expect_read(10, 1);
	for (i = 10; i <= 45; i += 5)
		hit(i);
	miss(50); /* 8 hits: 8 */
	expect_read(50, 1);
	for (i = 55; i <= 90; i += 5)
		expect_read(i, 1);
	/* No hit, not on the trend of 5: 4, 2, 1, none. */
	for (window = 4, i = 1000; i <= 4000; i += 1000, window /= 2) {
		uint64_t n;

		miss(i);
		expect_read(i, 1);
		for (n = 1; n <= window; n++)
			expect_read(i + 5 * n, 1);
	}
	end();
}

TEST(leap_majority_survives_outliers)
{
	uint64_t page = 100, i;
	int64_t trend;
	struct leap *l;

	begin(&predict_leap);
	l = state;
	hit(page);
	/* 16 deltas: the jump to 10000, eight of -7, seven of 1000. */
	for (i = 0; i < 9; i++)
		hit(page = 10000 - i * 7);
	for (i = 0; i < 7; i++)
		hit(page += 1000);
	EXPECT_EQ(l->nr, 16);
	EXPECT_TRUE(!find_trend(l, &trend));
	hit(page -= 7);
	/* Without the oldest, nine of -7 in 16: a majority. */
	EXPECT_TRUE(find_trend(l, &trend));
	EXPECT_EQ(trend, -7);
	end();
}

/* ---- a stride per instruction */

TEST(ipstride_third_touch_is_steady)
{
	uint64_t i;

	begin(&predict_ipstride);
	miss(0);
	miss(100);
	expect_nothing();
	miss(200);
	expect_read(200, 1);
	for (i = 300; i <= 600; i += 100)
		expect_read(i, 1);
	/* Another instruction's touches change nothing. */
	touch_as(2, 77 * PAGE_BYTES, MMNF_MISS, false);
	hit(300);
	for (i = 400; i <= 700; i += 100)
		expect_read(i, 1);
	end();
}

TEST(ipstride_states)
{
	uint64_t i;

	begin(&predict_ipstride);
	miss(1000);
	miss(900);
	miss(800); /* steady at -100 */
	expect_read(800, 1);
	for (i = 700; i >= 400; i -= 100)
		expect_read(i, 1);
	miss(5000); /* wrong once: initial, the stride stays */
	expect_nothing();
	hit(4900); /* right: steady */
	for (i = 4800; i >= 4500; i -= 100)
		expect_read(i, 1);
	miss(10); /* initial */
	miss(20); /* transient, 10 */
	miss(50); /* no prediction, 30 */
	miss(80); /* right: transient */
	expect_nothing();
	hit(110); /* right: steady */
	for (i = 140; i <= 230; i += 30)
		expect_read(i, 1);
	end();
}

/* ---- Lustre */

TEST(lustre_third_touch_reads_an_rpc_of_strides)
{
	uint64_t i;

	begin(&predict_lustre);
	miss(0);
	miss(100);
	expect_read(0, 1);
	expect_read(100, 1);
	/*
	 * The window is one page and 1023 strides: 102301 pages from 200 on, its
	 * end cut to RPCs of 1024 pages: before 102400.
	 */
	miss(200);
	expect_read(200, 1);
	for (i = 300; i <= 102300; i += 100)
		expect_read(i, 1);
	expect_nothing();
	/* Again 1024 strides with the next touch. */
	hit(300);
	EXPECT_EQ(machine.read[machine.told].first, 102400);
	machine.told = machine.nr;
	end();
}

TEST(lustre_stride_goes_forwards_only)
{
	uint64_t i;

	begin(&predict_lustre);
	for (i = 20; i; i--) {
		miss(i * 1000);
		expect_read(i * 1000, 1);
	}
	end();
}

TEST(lustre_other_stride_starts_anew)
{
	begin(&predict_lustre);
	miss(0);
	miss(100);
	miss(250);
	expect_read(0, 1);
	expect_read(100, 1);
	expect_read(250, 1);
	expect_nothing();
	miss(400); /* the first gap of 150 that is seen after the reset */
	expect_read(400, 1);
	expect_nothing();
	miss(550);
	expect_read(550, 1);
	expect_read(700, 1);
	machine.told = machine.nr;
	end();
}

TEST(lustre_cluster_reads_16_about_the_third_miss)
{
	begin(&predict_lustre);
	miss(1000);
	miss(1010);
	miss(1020);
	expect_read(1000, 1);
	expect_read(1010, 1);
	expect_read(1020, 1);
	/* From 1020 - 8 + 1 on, 16 pages, but for the one missed. */
	expect_read(1013, 7);
	expect_read(1021, 8);
	end();
}

TEST_MAIN
