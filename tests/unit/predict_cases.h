/* SPDX-License-Identifier: MIT */
/*
 * Walks and what the predictor owes them: one table for the unit tests, KUnit
 * and the fuzzer.  Needs the core alone: no allocation, no output.
 *
 * A walk is a nest of loops over a field, touched page by page in a world where
 * what a plan names is resident at once, or some touches later.  A miss is a page
 * that was not foreseen, and a planned page that is never touched is wasted.
 *
 *	misses <= what the arithmetic of the nest asks for
 *	wasted <= overshoot where a loop ended for the first time
 */
#ifndef MMNF_TEST_PREDICT_CASES_H
#define MMNF_TEST_PREDICT_CASES_H

#include "predict_law.h"

#define CASE_PAGE 4096ULL
#define CASE_LOOPS 5

/**
 * enum mmnf_case_world - what a walk is walked in
 * @MMNF_CASE_SEEN: every touched page faults
 * @MMNF_CASE_AROUND: a fault maps the resident pages around, too: fewer are seen
 * @MMNF_CASE_SLOW: as well, and a page is resident MMNF_CASE_LATENCY touches after it
 *	was planned; a touch before waits for it
 */
enum mmnf_case_world {
	MMNF_CASE_SEEN,
	MMNF_CASE_AROUND,
	MMNF_CASE_SLOW,
	MMNF_CASE_WORLDS,
};

/* One loop of a walk: nr times, stride apart; outermost first. */
struct mmnf_case_loop {
	s64 stride;
	u64 nr;
};

/**
 * struct mmnf_case - a walk
 * @bytes: size of the field
 * @span: bytes of a record, 0: unknown
 * @axes, @stride, @extent: geometry, 0: none
 * @first: byte offset of the walk's first touch
 * @loop: outermost first; unused ones have nr 0
 * @run: bytes touched at each position, page by page; 0: one touch
 * @skip: positions left out at the start (the walk begins in a row's middle)
 * @jitter: each turn of the outermost loop is moved by chance, by less than this
 *	many @jitter_bytes, 0: pages
 * @max_misses: pages not foreseen
 * @ends: loops that end where nothing foretold it, the walk itself included: each
 *	is overshot once, by at most a depth, see mmnf_case_most_wasted()
 * @gaps: pages between runs that are read with them, never touched
 * @max_wasted: pages planned and never touched, gaps and all, where reads take no
 *	time and a depth grows with the walk alone; 0 with @ends: what those allow
 */
struct mmnf_case {
	const char *name;
	u64 bytes, span;
	u32 axes;
	s64 stride[MMNF_NR_AXES];
	u64 extent[MMNF_NR_AXES];
	u64 first;
	struct mmnf_case_loop loop[CASE_LOOPS];
	s64 run;
	u64 skip;
	u64 jitter, jitter_bytes;
	u64 max_misses, max_wasted, gaps;
	u32 ends;
};

#define K(n) ((n)*1024ULL)
#define M(n) ((n)*1024ULL * 1024)
#define P(n) ((n)*CASE_PAGE)

/* [Z][Y][X] f32: strides and extents, for cases with geometry */
#define ZYX(z, y, x)                                              \
	.axes = 3, .stride = { (s64)(y) * (x)*4, (s64)(x)*4, 4 }, \
	.extent = { z, y, x }, .bytes = (u64)(z) * (y) * (x)*4

/*
 * Unknown nests: two equal deltas show a stride (3 misses), and each outer loop
 * is seen to end once and to jump again once (2 misses).  Runs are one more loop.
 */
static const struct mmnf_case mmnf_cases[] = {
	{ .name = "y-plane, a page a row",
	  .bytes = M(1024),
	  .first = P(100),
	  .loop = { { M(4), 256 } },
	  .max_misses = 3 },
	{ .name = "y-plane with geometry",
	  ZYX(256, 1024, 1024),
	  .first = P(100),
	  .loop = { { M(4), 256 } },
	  .max_misses = 2 },
	{ .name = "y-plane, rows of four pages",
	  .bytes = M(2048),
	  .first = P(400),
	  .loop = { { M(8), 256 } },
	  .run = P(4),
	  .max_misses = 8,
	  .max_wasted = 16,
	  .ends = 1 },
	{ .name = "y-plane, rows of odd length",
	  .bytes = 200 * 300 * 10000,
	  .first = 7 * 10000,
	  .loop = { { 300 * 10000, 200 } },
	  .run = 10000,
	  .max_misses = 10,
	  .max_wasted = 16,
	  .ends = 1 },
	{ .name = "y-plane, rows of odd length, backwards",
	  .bytes = 200 * 300 * 10000,
	  .first = 200 * 300 * 10000 - 4,
	  .loop = { { -300 * 10000, 200 } },
	  .run = -10000,
	  .max_misses = 10,
	  .max_wasted = 96,
	  .ends = 1 },
	{ .name = "x-plane, every 16th row, geometry",
	  ZYX(50, 1000, 2048),
	  .first = 4 * 77,
	  .loop = { { 1000 * 8192, 50 }, { 16 * 8192, 63 } },
	  .max_misses = 3 },
	{ .name = "short columns of records of two pages, geometry",
	  .bytes = 64 * K(1000),
	  .span = 8192,
	  .axes = 3,
	  .stride = { K(1000), K(64), 1 },
	  .extent = { 64, 6, 8192 },
	  .loop = { { K(1000), 64 }, { K(64), 6 } },
	  .max_misses = 2,
	  .gaps = 64 * 6 },
	{ .name = "x-plane, every 16th row, the next plane in step",
	  ZYX(256, 1024, 1024),
	  .first = 2048,
	  .loop = { { 1024 * 4096, 256 }, { 16 * 4096, 64 } },
	  .max_misses = 3 },
	{ .name = "every row, half of each plane, geometry",
	  ZYX(50, 96, 200000),
	  .first = 16 * 800000 + 4000,
	  .loop = { { 96 * 800000, 50 }, { 800000, 48 } },
	  .max_misses = 4,
	  .max_wasted = 64,
	  .ends = 1 },
	{ .name = "every quarter of a row, against the order, geometry",
	  ZYX(24, 32, 200000),
	  .first = 4000,
	  .loop = { { 200000, 4 }, { 800000, 32 }, { 32 * 800000, 24 } },
	  .max_misses = 4 },
	{ .name = "short columns, then rows and quarters, backwards, geometry",
	  ZYX(6, 32, 200000),
	  .first = 6 * 32 * 800000 - 196000,
	  .loop = { { -200000, 4 }, { -800000, 32 }, { -32 * 800000, 6 } },
	  .max_misses = 3 },
	{ .name = "x-plane, every 16th row, no geometry",
	  .bytes = 50 * 1000 * 8192ULL,
	  .first = 4 * 77,
	  .loop = { { 1000 * 8192, 50 }, { 16 * 8192, 63 } },
	  .max_misses = 5,
	  .max_wasted = 64,
	  .ends = 1 },
	{ .name = "x-plane backwards, geometry",
	  ZYX(50, 1000, 2048),
	  .first = 50 * 1000 * 8192ULL - 8192,
	  .loop = { { -1000 * 8192, 50 }, { -16 * 8192, 63 } },
	  .max_misses = 3 },
	{ .name = "box, two levels",
	  .bytes = M(1024),
	  .first = M(3) + P(5),
	  .loop = { { M(4), 64 }, { P(2), 64 } },
	  .max_misses = 5,
	  .max_wasted = 64,
	  .ends = 2 },
	{ .name = "box, three levels",
	  .bytes = M(4096),
	  .first = M(3),
	  .loop = { { M(64), 12 }, { M(1), 20 }, { P(3), 16 } },
	  .max_misses = 8,
	  .max_wasted = 128,
	  .ends = 3 },
	{ .name = "four levels",
	  .bytes = M(4096),
	  .first = M(3),
	  .loop = { { M(256), 8 }, { M(16), 8 }, { K(512), 8 }, { P(3), 8 } },
	  .max_misses = 10,
	  .max_wasted = 128,
	  .ends = 4 },
	{ .name = "four levels, signs mixed",
	  .bytes = M(4096),
	  .first = M(2000) + P(99),
	  .loop = { { -(s64)M(200), 8 },
		    { M(16), 8 },
		    { -(s64)K(512), 8 },
		    { P(3), 8 } },
	  .max_misses = 10,
	  .max_wasted = 128,
	  .ends = 4 },
	{ .name = "rows of two",
	  .bytes = M(1024),
	  .first = 0,
	  .loop = { { M(1), 500 }, { P(7), 2 } },
	  .max_misses = 5,
	  .max_wasted = 64,
	  .ends = 2 },
	{ .name = "planes of two rows of two",
	  .bytes = M(1024),
	  .first = 0,
	  .loop = { { M(2), 400 }, { K(512), 2 }, { P(7), 2 } },
	  .max_misses = 11,
	  .max_wasted = 64,
	  .ends = 3 },
	{ .name = "a first row entered in its middle",
	  .bytes = M(1024),
	  .first = 0,
	  .skip = 40,
	  .loop = { { M(4), 100 }, { P(3), 60 } },
	  .max_misses = 7,
	  .max_wasted = 96,
	  .ends = 2 },
	{ .name = "a first row entered in its middle, geometry",
	  ZYX(50, 1024, 2048),
	  .first = 0,
	  .skip = 40,
	  .loop = { { 1024 * 8192, 50 }, { 16 * 8192, 64 } },
	  .max_misses = 3 },
	{ .name = "epochs",
	  .bytes = M(1024),
	  .first = P(3),
	  .loop = { { 0, 4 }, { P(17), 300 } },
	  .max_misses = 4,
	  .max_wasted = 64,
	  .ends = 1 },
	/* One page between two runs is read with them: a page a run. */
	{ .name = "box, three of four pages a row",
	  ZYX(256, 256, 4096),
	  .first = (17 * 256 + 31) * 16384 + 400,
	  .loop = { { M(4), 32 }, { 16384, 32 } },
	  .run = 8192,
	  .max_misses = 16,
	  .max_wasted = 1200,
	  .ends = 3,
	  .gaps = 32 * 32 },
	{ .name = "box backwards, every second row, pieces",
	  ZYX(256, 256, 4096),
	  .first = (60 * 256 + 70) * 16384 + 12000,
	  .loop = { { -(s64)M(4), 32 }, { -2 * 16384, 32 }, { -2400, 4 } },
	  .max_misses = 16,
	  .max_wasted = 96,
	  .ends = 2 },
	/*
	 * A box's first plan, of at most 64 steps of up to three to a run, may be a
	 * page too long at each run, as long as the runs' length is known to the
	 * page only: 21 pages a box.
	 */
	{ .name = "boxes at random, a page a row but across two",
	  ZYX(256, 256, 4096),
	  .first = 0,
	  .loop = { { 0, 24 }, { M(4), 8 }, { 16384, 16 } },
	  .run = 4096,
	  .jitter = 240ULL * 256 * 4096,
	  .jitter_bytes = 4,
	  .max_misses = 24 * 2 + 12,
	  .max_wasted = 256,
	  .ends = 1,
	  .gaps = 24 * 64 / 3 },
	/*
	 * Two touches a row, 2,796 bytes apart.  Every box begins with a miss; in the
	 * first the second row is one, and the second plane.  The first row that
	 * crosses a page is one.
	 */
	{ .name = "boxes at random, ends of rows",
	  ZYX(85, 1024, 3072),
	  .first = 0,
	  .loop = { { 0, 7 }, { M(12), 16 }, { 12288, 32 }, { 2796, 2 } },
	  .jitter = (69ULL * 1024 - 32) * 3072 - 700,
	  .jitter_bytes = 4,
	  .max_misses = 7 + 3,
	  .ends = 1,
	  .gaps = 7 * 64 / 3 },
	{ .name = "a stride of 1.75 pages",
	  .bytes = 401 * 7184,
	  .first = 0,
	  .loop = { { 7184, 400 } },
	  .max_misses = 7,
	  .max_wasted = 400,
	  .ends = 1,
	  .gaps = 399 * 3 / 4 + 1 },
	{ .name = "boxes at random",
	  .bytes = M(4096),
	  .first = 0,
	  .loop = { { M(64), 40 }, { M(1), 16 }, { P(2), 16 } },
	  .jitter = 4000,
	  .max_misses = 2 * 40 + 6,
	  .max_wasted = 64,
	  .ends = 2 },
};

/* No depth is above 64, and none that a known latency asks for at first above 128. */
static inline u64 mmnf_case_most_wasted(const struct mmnf_case *c,
					enum mmnf_case_world world)
{
	u64 depth = world == MMNF_CASE_SLOW ? 128 : 64;
	u64 most = c->gaps + c->ends * depth;

	if (world == MMNF_CASE_SLOW || !c->max_wasted)
		return most;
	return most < c->max_wasted ? most : c->max_wasted;
}

#define MMNF_NR_CASES (sizeof(mmnf_cases) / sizeof(mmnf_cases[0]))

#define MMNF_CASE_LATENCY 40
#define MMNF_CASE_TOUCH_NS 1000

/* Pages being read at a time; one more makes the first of them resident. */
#define MMNF_CASE_READS 4096

struct mmnf_case_read {
	u64 page, due;
};

/**
 * struct mmnf_case_run - a walk under way
 * @pages: a byte per page of the largest case, see MMNF_CASE_PAGES; zeroed
 * @now: touches and waits so far, in touches
 * @nr_misses, @nr_wasted, @nr_touched: pages
 * @nr_late: touches that waited for a page that was foreseen
 * @at_misses: touches at which the first misses happened, for the reader
 * @read: a ring of @nr_reads from @first_read
 * @law: the first that was broken, or ""
 */
#define MMNF_CASE_PAGES (1ULL << 20)
#define MMNF_CASE_NOTED 48

struct mmnf_case_run {
	struct mmnf_table table;
	u8 *pages;
	u64 now, nr_pages, nr_misses, nr_late, nr_wasted, nr_touched,
		nr_planned;
	u64 at_misses[MMNF_CASE_NOTED];
	enum mmnf_case_world world;
	const char *law;
	u32 first_read, nr_reads;
	struct mmnf_case_read read[MMNF_CASE_READS];
};

#define CASE_RESIDENT 1
#define CASE_MAPPED 2
#define CASE_TOUCHED 4
#define CASE_READING 8
#define CASE_AROUND 16 /* pages that a fault maps at once, if resident */

/* The read that was begun first is done. */
static inline void mmnf_case_done(struct mmnf_case_run *run)
{
	struct mmnf_case_read *read = &run->read[run->first_read];

	if (run->now < read->due)
		run->now = read->due;
	run->pages[read->page] ^= CASE_READING | CASE_RESIDENT;
	run->first_read = (run->first_read + 1) % MMNF_CASE_READS;
	run->nr_reads--;
}

static inline void mmnf_case_read_page(struct mmnf_case_run *run, u64 page)
{
	u32 last;

	run->nr_planned++;
	if (run->world != MMNF_CASE_SLOW) {
		run->pages[page] = CASE_RESIDENT;
		return;
	}
	if (run->nr_reads == MMNF_CASE_READS)
		mmnf_case_done(run);
	last = (run->first_read + run->nr_reads++) % MMNF_CASE_READS;
	run->read[last].page = page;
	run->read[last].due = run->now + MMNF_CASE_LATENCY;
	run->pages[page] = CASE_READING;
}

static inline void mmnf_case_read(struct mmnf_case_run *run,
				  const struct mmnf_plan *plan)
{
	u64 n, page, last;

	for (n = 0; n < mmnf_plan_nr(plan); n++) {
		u64 pos = mmnf_plan_pos(plan, n);

		last = (pos + plan->span - 1) / CASE_PAGE;
		for (page = pos / CASE_PAGE; page <= last; page++)
			if (page < run->nr_pages && !run->pages[page])
				mmnf_case_read_page(run, page);
	}
}

/* As the module's map_pages: the resident pages of an aligned window. */
static inline void mmnf_case_map(struct mmnf_case_run *run, u64 page,
				 struct mmnf_access *access)
{
	u64 first = page, last = page, i;

	if (run->world != MMNF_CASE_SEEN &&
	    !mmnf_table_alone(&run->table, CASE_AROUND)) {
		first = page / CASE_AROUND * CASE_AROUND;
		last = first + CASE_AROUND - 1;
	}
	for (i = first; i <= last && i < run->nr_pages; i++)
		if (run->pages[i] & CASE_RESIDENT)
			run->pages[i] |= CASE_MAPPED;
	access->before = (u32)(page - first);
	access->after = (u32)(last - page);
}

static inline enum mmnf_outcome mmnf_case_outcome(struct mmnf_case_run *run,
						  u8 page)
{
	if (page & CASE_RESIDENT)
		return MMNF_HIT;
	if (page & CASE_READING) {
		run->nr_late++;
		return MMNF_LATE;
	}
	if (run->nr_misses < MMNF_CASE_NOTED)
		run->at_misses[run->nr_misses] = run->nr_touched;
	run->nr_misses++;
	return MMNF_MISS;
}

/* The touched page is waited for; a missed one was asked for before the plan. */
static inline void mmnf_case_wait(struct mmnf_case_run *run, u64 number,
				  struct mmnf_access *access, u64 since)
{
	if (access->outcome == MMNF_MISS && run->world == MMNF_CASE_SLOW) {
		while (run->nr_reads && run->read[run->first_read].due <
						since + MMNF_CASE_LATENCY)
			mmnf_case_done(run);
		run->now = since + MMNF_CASE_LATENCY;
	}
	while (run->pages[number] & CASE_READING)
		mmnf_case_done(run);
	run->pages[number] |= CASE_RESIDENT;
	mmnf_case_map(run, number, access);
	mmnf_resume(&run->table, 1, run->now * MMNF_CASE_TOUCH_NS,
		    access->before, access->after);
}

static inline void mmnf_case_touch(struct mmnf_case_run *run, u64 pos)
{
	u64 number = pos / CASE_PAGE, since = ++run->now;
	struct mmnf_access access = { .thread = 1, .ip = 1, .pos = pos };
	u8 *page = &run->pages[number];
	bool mapped, planned;
	const char *law = "";
	struct mmnf_plan plan;

	while (run->nr_reads && run->read[run->first_read].due <= run->now)
		mmnf_case_done(run);
	mapped = *page & CASE_MAPPED;
	access.outcome = mmnf_case_outcome(run, *page);
	access.fresh = *page == CASE_RESIDENT;
	*page |= CASE_TOUCHED;
	run->nr_touched++;
	if (mapped)
		return;
	/* Without a latency there is no pace, and the depths are the least. */
	if (run->world == MMNF_CASE_SLOW)
		access.now_ns = run->now * MMNF_CASE_TOUCH_NS;
	if (access.outcome == MMNF_HIT)
		mmnf_case_map(run, number, &access);
	planned = mmnf_observe(&run->table, &access, &plan);
	if (access.outcome == MMNF_MISS && run->world != MMNF_CASE_SLOW)
		*page |= CASE_RESIDENT;
	if (planned) {
		law = mmnf_law_of_plan(&run->table, pos, &plan);
		mmnf_case_read(run, &plan);
	}
	if (access.outcome != MMNF_HIT)
		mmnf_case_wait(run, number, &access, since);
	if (!*law)
		law = mmnf_law_of_table(&run->table);
	run->law = *run->law ? run->law : law;
}

/* Touch the run of a position: its first byte, then page by page. */
static inline void mmnf_case_touch_run(struct mmnf_case_run *run, u64 pos,
				       s64 bytes)
{
	u64 end = pos + (u64)bytes;

	mmnf_case_touch(run, pos);
	if (bytes > 0)
		for (pos = (pos / CASE_PAGE + 1) * CASE_PAGE; pos < end;
		     pos += CASE_PAGE)
			mmnf_case_touch(run, pos);
	else
		for (pos = pos / CASE_PAGE * CASE_PAGE; bytes && pos > end;
		     pos -= CASE_PAGE)
			mmnf_case_touch(run, pos - 4);
}

/* mmnf_case_walk() - walk a case from its beginning to its end */
static inline void mmnf_case_walk(struct mmnf_case_run *run,
				  const struct mmnf_case *c,
				  enum mmnf_case_world world)
{
	u64 at[CASE_LOOPS] = { 0 }, jitter = 0, chance = 88172645463325252ULL;
	u64 n, skip = c->skip, pos, page;
	u32 loops = 0, k;

	while (loops < CASE_LOOPS && c->loop[loops].nr)
		loops++;
	run->nr_pages = (c->bytes + CASE_PAGE - 1) / CASE_PAGE;
	run->nr_misses = run->nr_wasted = run->nr_touched = run->now = 0;
	run->nr_late = run->nr_planned = run->first_read = run->nr_reads = 0;
	run->world = world;
	run->law = "";
	memset(run->pages, 0, run->nr_pages);
	mmnf_table_init(&run->table, CASE_PAGE, 0, c->bytes, c->span);
	if (c->axes)
		mmnf_table_set_axes(&run->table, c->stride, c->extent, c->axes);
	for (n = 0;; n++) {
		pos = c->first +
		      jitter * (c->jitter_bytes ? c->jitter_bytes : CASE_PAGE);
		for (k = 0; k < loops; k++)
			pos += at[k] * (u64)c->loop[k].stride;
		if (n >= skip)
			mmnf_case_touch_run(run, pos, c->run);
		for (k = loops; k-- > 0;) {
			if (++at[k] < c->loop[k].nr)
				break;
			at[k] = 0;
			if (!k)
				goto out;
		}
		if (!k && c->jitter) {
			chance ^= chance << 13;
			chance ^= chance >> 7;
			chance ^= chance << 17;
			jitter = (chance >> 20) % c->jitter;
		}
	}
out:
	for (page = 0; page < run->nr_pages; page++)
		run->nr_wasted += run->pages[page] &&
				  !(run->pages[page] & CASE_TOUCHED);
}

#undef K
#undef M
#undef P
#undef ZYX

#endif
