/* SPDX-License-Identifier: MIT */
/* The laws of predict.h as checks, and the tests' source of chance. */
#ifndef MMNF_TEST_PREDICT_CHECK_H
#define MMNF_TEST_PREDICT_CHECK_H

#include "ktap.h"
#include "predict_cases.h"

static u64 seed = 1;

static inline u64 rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545F4914F6CDD1DULL;
}

static inline void check_table(const struct mmnf_table *table)
{
	ASSERT_STREQ(mmnf_law_of_table(table), "");
}

static inline void check_plan(const struct mmnf_table *table, u64 touched,
			      const struct mmnf_plan *plan)
{
	ASSERT_STREQ(mmnf_law_of_plan(table, touched, plan), "");
}

#endif
