// SPDX-License-Identifier: MIT
/* Waits by their length: each nanosecond has one place, a quarter of an octave. */
#include "core/wait.h"

#include "ktap.h"

TEST(bounds_as_written_up)
{
	static const u64 bounds_ns[] = { 1000, 1250, 1500, 1750, 2000,
					 2500, 3000, 3500, 4000, 5000 };
	u32 i;

	for (i = 0; i < sizeof(bounds_ns) / sizeof(*bounds_ns); i++)
		EXPECT_EQ(mmnf_wait_most_ns(i), bounds_ns[i]);
}

TEST(no_gap_and_no_overlap)
{
	u32 i;

	EXPECT_EQ(mmnf_wait_length(0), 0);
	for (i = 0; i < MMNF_NR_LENGTHS - 1; i++) {
		EXPECT_EQ(mmnf_wait_length(mmnf_wait_most_ns(i) - 1), i);
		EXPECT_EQ(mmnf_wait_length(mmnf_wait_most_ns(i)), i + 1);
		EXPECT_TRUE(mmnf_wait_most_ns(i + 1) <=
			    mmnf_wait_most_ns(i) + mmnf_wait_most_ns(i) / 4);
	}
	EXPECT_EQ(mmnf_wait_length(U64_MAX), MMNF_NR_LENGTHS - 1);
}

TEST_MAIN
