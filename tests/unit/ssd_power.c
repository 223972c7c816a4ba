// SPDX-License-Identifier: MIT
/* The persistent cache and the power, cut at any moment: see ssd_power.h. */
#include "ssd_power.h"

TEST(cut_at_any_moment)
{
	cut_anywhere();
}

TEST_MAIN
