/* SPDX-License-Identifier: MIT */
/* The laws of predict.h as checks, and the tests' source of chance. */
#ifndef MMNF_TEST_PREDICT_CHECK_H
#define MMNF_TEST_PREDICT_CHECK_H

#include "ktap.h"
#include "core/predict.h"

static u64 seed = 1;

static u64 rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545F4914F6CDD1DULL;
}

static void check_table(const struct mmnf_table *table)
{
	u64 sum = table->nr_used + table->nr_wasted;
	int i;

	for (i = 0; i < MMNF_NR_STREAMS; i++)
		sum += table->stream[i].ahead;
	ASSERT_EQ(table->nr_planned, sum);
}

/* Positions lie in the data, at most so many, and within the budget. */
static void check_plan(const struct mmnf_table *table,
		       const struct mmnf_plan *plan)
{
	const struct mmnf_limits *limits = &table->limits;
	u64 nr = mmnf_plan_nr(plan), budget;
	u64 first = mmnf_plan_pos(plan, 0), last = mmnf_plan_pos(plan, nr - 1);

	ASSERT_EQ(plan->nr_levels, 1);
	ASSERT_LE(1, nr);
	ASSERT_LE(table->start, first);
	ASSERT_LE(table->start, last);
	ASSERT_LT(first, table->end);
	ASSERT_LT(last, table->end);
	/* No wrap between them either. */
	ASSERT_EQ((__int128)last - first,
		  (__int128)plan->level[0].stride * (nr - 1));
	if (plan->span == table->grain && table->span != table->grain) {
		ASSERT_LE(nr, limits->max_window_bytes / table->grain);
	} else {
		ASSERT_EQ(plan->span, table->span);
		ASSERT_LE(nr - 1, limits->max_depth);
	}
	budget = limits->max_inflight_bytes;
	if (budget < plan->span)
		budget = plan->span;
	ASSERT_LE((unsigned __int128)(nr - 1) * plan->span, budget);
}

#endif
