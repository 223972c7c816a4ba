// SPDX-License-Identifier: MIT
/* The cache's clock; tests have another. */
#include <time.h>

#include "ssd-internal.h"

s64 mmnf_ssd_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

void mmnf_ssd_nap(s64 ns)
{
	struct timespec t = { ns / 1000000000, ns % 1000000000 };

	nanosleep(&t, NULL);
}
