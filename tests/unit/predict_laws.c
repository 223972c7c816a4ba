// SPDX-License-Identifier: MIT
/*
 * The laws of predict.h under 1.5 million accesses of chance: walks of any
 * stride in tables of any size, up to the last byte that can be addressed.
 */
#include "predict_check.h"

static u64 pick_u64(void)
{
	u64 v = rnd() >> rnd() % 64;

	return rnd() % 8 ? v : U64_MAX - v;
}

static void random_table(struct mmnf_table *table)
{
	u64 grain = rnd() % 4 ? 4096 : 65536;
	u64 end = (rnd() % 4 ? rnd() >> (1 + rnd() % 40) :
			       (u64)S64_MAX - rnd() % 100000);
	u64 start = rnd() % 2 ? 0 :
				(rnd() % 2 ? rnd() % (end + 1) :
					     end - end % 1000003);
	u64 span = rnd() % 3 ? rnd() % 200000 : rnd() >> (1 + rnd() % 62);

	mmnf_table_init(table, grain, start, end, span);
	if (rnd() % 2)
		mmnf_table_set_file(table, rnd() % 2 ? S64_MAX :
						       end + (S64_MAX - end) %
								       1000003);
	if (rnd() % 2)
		return;
	table->limits.min_depth = 1 + (u32)(rnd() >> (32 + rnd() % 31));
	table->limits.max_depth = (u32)(rnd() >> (32 + rnd() % 31));
	if (table->limits.max_depth < table->limits.min_depth)
		table->limits.max_depth = table->limits.min_depth;
	table->limits.max_window_bytes = pick_u64();
	table->limits.max_inflight_bytes = pick_u64();
}

struct walker {
	u64 thread, ip, pos;
	s64 stride;
};

static void random_walker(struct walker *k, const struct mmnf_table *table)
{
	u64 len = table->end - table->start;

	k->thread = rnd() % 5;
	k->ip = rnd() % 7;
	k->pos = rnd() % 16 ? table->start + (len ? rnd() % len : 0) : rnd();
	switch (rnd() % 5) {
	case 0:
		k->stride = (s64)table->grain;
		break;
	case 1:
		k->stride = (s64)(table->span * (rnd() % 100));
		break;
	case 2:
		k->stride = (s64)(rnd() % 10000);
		break;
	default:
		k->stride = (s64)(rnd() >> (1 + rnd() % 62));
	}
	if (rnd() % 2)
		k->stride = -k->stride;
}

TEST(laws_hold_for_any_walk)
{
	static struct mmnf_table table, twin;
	struct mmnf_plan plan, twin_plan;
	const u32 covers[] = { 0, 0, 0, 1, 7, 15, 511, U32_MAX };
	struct walker walkers[8];
	u64 nr_plans = 0;
	int round, step, i;
	bool planned;

	seed = 20261124;
	for (round = 0; round < 1000; round++) {
		random_table(&table);
		twin = table;
		for (i = 0; i < 8; i++)
			random_walker(&walkers[i], &table);
		for (step = 0; step < 1500; step++) {
			struct walker *k = &walkers[rnd() % 8];
			struct mmnf_access access = {
				.thread = k->thread,
				.ip = k->ip + (rnd() % 8 == 0),
				.pos = k->pos,
				.before = covers[rnd() % 8],
				.after = covers[rnd() % 8],
				.outcome = (enum mmnf_outcome)(rnd() % 3),
				.fresh = rnd() % 4 == 0,
			};

			planned = mmnf_observe(&table, &access, &plan);
			check_table(&table);
			if (planned) {
				check_plan(&table, access.pos, &plan);
				nr_plans++;
			}
			/* The same input gives the same plan. */
			ASSERT_EQ(mmnf_observe(&twin, &access, &twin_plan),
				  planned);
			if (planned)
				ASSERT_TRUE(!memcmp(&plan, &twin_plan,
						    sizeof(plan)));
			if (planned && rnd() % 8 == 0) {
				mmnf_unplan(&table);
				mmnf_unplan(&twin);
				check_table(&table);
			}
			k->pos += (u64)k->stride;
			if (rnd() % 4 == 0)
				k->pos += (u64)k->stride * (rnd() % 20);
			if (rnd() % 64 == 0)
				random_walker(k, &table);
		}
		ASSERT_TRUE(!memcmp(&table, &twin, sizeof(table)));
	}
	/* Not vacuous. */
	EXPECT_GT(nr_plans, 10000);
}

TEST_MAIN
