/* SPDX-License-Identifier: MIT */
/* The laws of predict.h, for the unit tests, KUnit and the fuzzer. */
#ifndef MMNF_TEST_PREDICT_LAW_H
#define MMNF_TEST_PREDICT_LAW_H

#include "core/predict.h"

/* The law that a table breaks, or "". */
static inline const char *mmnf_law_of_table(const struct mmnf_table *table)
{
	u64 rest = table->nr_planned - table->nr_used - table->nr_wasted;
	const struct mmnf_stream *s;
	u32 k;

	for (s = table->stream; s < table->stream + MMNF_NR_STREAMS; s++) {
		rest -= s->at.ahead;
		for (k = 0; k < s->at.nest.nr_levels; k++)
			if (!(s->at.nest.open >> k & 1) &&
			    s->at.nest.level[k].at >= s->at.nest.level[k].nr)
				return "at < nr of every closed level";
	}
	return rest ? "planned = used + wasted + ahead" : "";
}

static inline bool mmnf_law_outside(const struct mmnf_table *table, u64 pos)
{
	return pos < table->start || pos >= table->end;
}

/* May an access at @touched lead to @pos? */
static inline bool mmnf_law_may_plan(const struct mmnf_table *table,
				     u64 touched, u64 pos)
{
	return mmnf_law_outside(table, touched) ? pos < table->file_end :
						  !mmnf_law_outside(table, pos);
}

/*
 * The law that a plan after an access at @touched breaks, or "".  Of huge plans some
 * positions are seen.
 */
static inline const char *mmnf_law_of_plan(const struct mmnf_table *table,
					   u64 touched,
					   const struct mmnf_plan *plan)
{
	const struct mmnf_limits *limits = &table->limits;
	u64 nr = mmnf_plan_nr(plan), budget = limits->max_inflight_bytes;
	u64 pos, n, step = nr / 256 + 1, least = plan->span;

	if (plan->nr_levels > MMNF_NR_LEVELS || !plan->span || !nr)
		return "a plan names positions and bytes";
	if (!plan->nr_levels && nr != 1)
		return "many positions need levels";
	if (nr - 1 > limits->max_depth)
		return "at most max_depth positions ahead";
	for (n = 0; n < nr; n += step) {
		pos = mmnf_plan_pos(plan, n);
		if (!mmnf_law_may_plan(table, touched, pos))
			return "positions lie in the data, or in the file";
	}
	pos = mmnf_plan_pos(plan, nr - 1);
	if (!mmnf_law_may_plan(table, touched, pos))
		return "the last position lies in the data, or in the file";
	if (plan->span !=
	    (mmnf_law_outside(table, touched) ? 1 : table->span)) {
		/* Grains of dense runs: at least one. */
		if (budget > limits->max_window_bytes)
			budget = limits->max_window_bytes;
		least = table->grain;
	}
	if (budget < least)
		budget = least;
	if (nr - 1 > budget / plan->span)
		return "within the bytes in flight";
	return "";
}

#endif
