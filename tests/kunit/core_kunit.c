// SPDX-License-Identifier: GPL-2.0-only
/*
 * The core inside the kernel: the walks of predict_cases.h, which the unit tests
 * walk too, and the set of pending pages against a plain byte per page.  What
 * differs from user space is the compiler's flags, port.h, and KASAN and UBSAN.
 */
#include <kunit/test.h>
#include <linux/module.h>
#include <linux/vmalloc.h>

#include "core/pending.h"
#include "predict_cases.h"

static u64 chance(u64 *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed * 0x2545F4914F6CDD1DULL;
}

static void case_name(const struct mmnf_case *c, char *name)
{
	strscpy(name, c->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(walk, mmnf_cases, case_name);

static void predict_walk(struct kunit *test)
{
	const struct mmnf_case *c = test->param_value;
	struct mmnf_case_run *run = vzalloc(sizeof(*run));
	u8 *pages = vzalloc(MMNF_CASE_PAGES);
	enum mmnf_case_world world;

	if (run && pages) {
		run->pages = pages;
		for (world = 0; world < MMNF_CASE_WORLDS; world++) {
			mmnf_case_walk(run, c, world);
			KUNIT_EXPECT_STREQ(test, run->law, "");
			KUNIT_EXPECT_GT(test, run->nr_touched, 0ULL);
			KUNIT_EXPECT_LE(test, run->nr_misses, c->max_misses);
			KUNIT_EXPECT_LE(test, run->nr_wasted,
					mmnf_case_most_wasted(c, world));
		}
	} else {
		KUNIT_FAIL(test, "no memory");
	}
	vfree(pages);
	vfree(run);
}

/* Any walk over any table, up to the last byte that can be addressed. */
static void predict_laws(struct kunit *test)
{
	struct mmnf_table *table = vzalloc(sizeof(*table));
	u64 seed = 20261125, nr_plans = 0, pos = 0;
	const char *law = "";
	s64 stride = 4096;
	u32 round, step;

	KUNIT_ASSERT_NOT_NULL(test, table);
	for (round = 0; round < 200 && !*law; round++) {
		u64 end = chance(&seed) >> (1 + chance(&seed) % 40);

		mmnf_table_init(table, PAGE_SIZE,
				chance(&seed) % 4 ? 0 : end - end % 1000003,
				end, chance(&seed) >> (1 + chance(&seed) % 62));
		for (step = 0; step < 500 && !*law; step++) {
			struct mmnf_access access = {
				.thread = chance(&seed) % 5,
				.ip = chance(&seed) % 3,
				.pos = pos,
				.after = chance(&seed) % 4 ? 0 : 15,
				.outcome = chance(&seed) % 3,
			};
			struct mmnf_plan plan;

			if (mmnf_observe(table, &access, &plan)) {
				nr_plans++;
				law = mmnf_law_of_plan(table, pos, &plan);
			}
			if (!*law)
				law = mmnf_law_of_table(table);
			pos += stride;
			if (chance(&seed) % 32)
				continue;
			stride = chance(&seed) >> (20 + chance(&seed) % 44);
			if (chance(&seed) % 2)
				stride = -stride;
			pos = table->start;
			if (end > pos && chance(&seed) % 16)
				pos += chance(&seed) % (end - pos);
		}
	}
	vfree(table);
	KUNIT_EXPECT_STREQ(test, law, "");
	KUNIT_EXPECT_GT(test, nr_plans, 100ULL);
}

static struct kunit_case predict_cases[] = { KUNIT_CASE_PARAM(predict_walk,
							      walk_gen_params),
					     KUNIT_CASE(predict_laws),
					     {} };

static struct kunit_suite predict_suite = {
	.name = "mmnf_predict",
	.test_cases = predict_cases,
};

#define PENDING_PAGES 256

static void pending_add_and_take(struct kunit *test)
{
	struct mmnf_pending *pending = vzalloc(sizeof(*pending));

	KUNIT_ASSERT_NOT_NULL(test, pending);
	KUNIT_EXPECT_EQ(test, mmnf_pending_take(pending, 0, 1000), 0ULL);
	KUNIT_EXPECT_EQ(test, mmnf_pending_add(pending, 60, 10), 0ULL);
	KUNIT_EXPECT_EQ(test, pending->nr, 10ULL);
	/* 65 .. 69 again: read twice */
	KUNIT_EXPECT_EQ(test, mmnf_pending_add(pending, 65, 10), 5ULL);
	KUNIT_EXPECT_EQ(test, mmnf_pending_take(pending, 0, 62), 2ULL);
	KUNIT_EXPECT_EQ(test, mmnf_pending_take(pending, 0, 1000), 13ULL);
	KUNIT_EXPECT_EQ(test, pending->nr, 0ULL);
	vfree(pending);
}

/* So few pages that none is forgotten: every answer is exact. */
static void pending_against_bytes(struct kunit *test)
{
	struct mmnf_pending *pending = vzalloc(sizeof(*pending));
	u64 seed = 42, nr = 0, answer, expected = 0;
	u8 *there = kunit_kzalloc(test, PENDING_PAGES, GFP_KERNEL);
	u32 step, i;

	KUNIT_ASSERT_NOT_NULL(test, pending);
	KUNIT_ASSERT_NOT_NULL(test, there);
	for (step = 0; step < 20000; step++) {
		u32 first = chance(&seed) % PENDING_PAGES;
		u32 len = chance(&seed) % (PENDING_PAGES - first + 1);
		bool add = chance(&seed) % 2;

		answer = add ? mmnf_pending_add(pending, first, len) :
			       mmnf_pending_take(pending, first, len);
		for (expected = 0, i = first; i < first + len; i++) {
			expected += there[i];
			nr += add - there[i];
			there[i] = add;
		}
		if (answer != expected || pending->nr != nr)
			break;
	}
	KUNIT_EXPECT_EQ(test, answer, expected);
	KUNIT_EXPECT_EQ(test, pending->nr, nr);
	vfree(pending);
}

/* More groups than fit: what is forgotten is told, and nothing is lost. */
static void pending_forgets_by_count(struct kunit *test)
{
	struct mmnf_pending *pending = vzalloc(sizeof(*pending));
	u64 group, added = 0, lost = 0;

	KUNIT_ASSERT_NOT_NULL(test, pending);
	for (group = 0; group < 4 * MMNF_PENDING_ENTRIES; group++) {
		lost += mmnf_pending_add(pending, group * 64, 3);
		added += 3;
	}
	KUNIT_EXPECT_EQ(test, added, lost + pending->nr);
	KUNIT_EXPECT_GT(test, lost, 0ULL);
	KUNIT_EXPECT_EQ(test, added - lost,
			mmnf_pending_take(pending, 0, U64_MAX >> 12));
	KUNIT_EXPECT_EQ(test, pending->nr, 0ULL);
	vfree(pending);
}

static struct kunit_case pending_cases[] = { KUNIT_CASE(pending_add_and_take),
					     KUNIT_CASE(pending_against_bytes),
					     KUNIT_CASE(
						     pending_forgets_by_count),
					     {} };

static struct kunit_suite pending_suite = {
	.name = "mmnf_pending",
	.test_cases = pending_cases,
};

kunit_test_suites(&predict_suite, &pending_suite);

MODULE_DESCRIPTION("KUnit tests of the core of mmnf");
MODULE_LICENSE("GPL");
