// SPDX-License-Identifier: MIT
/*
 * A window that is dropped while other threads are in the handler of bad pages: it
 * waits for them, and they get the processor.
 */
#include "ktap.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#include "internal.h"

#define PAGE 4096ULL

static bool stop;

static s64 clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void load_from(void *arg, const char *from)
{
	*(volatile char *)arg = *(const volatile char *)from;
}

static void *load_for_ever(void *page)
{
	char byte;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		mmnf_guard_copy(load_from, &byte, page);
	return NULL;
}

/* On one processor: who waits for a handler lets it have that. */
TEST(dropped_by_a_thread_of_higher_priority)
{
	struct sched_param high = { 1 }, low = { 0 };
	struct timespec nap = { 0, 20000 };
	s64 from, longest = 0;
	struct mmnf_guarded *bad, *r;
	pthread_t thread;
	cpu_set_t one;
	char *page;
	int i;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED,
		    memfd_create("cut", MFD_CLOEXEC), 0);
	ASSERT_TRUE(page != MAP_FAILED);
	bad = mmnf_guard_range(page, PAGE);
	ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
	ASSERT_EQ(pthread_create(&thread, NULL, load_for_ever, page), 0);
	if (sched_setscheduler(0, SCHED_FIFO, &high))
		SKIP("no SCHED_FIFO: %s", strerror(errno));
	for (i = 0; i < 3000; i++) {
		r = mmnf_guard_range(&nap, sizeof(nap));
		nanosleep(&nap, NULL);
		from = clock_ns();
		mmnf_guard_range_drop(r);
		from = clock_ns() - from;
		longest = from > longest ? from : longest;
	}
	ASSERT_EQ(sched_setscheduler(0, SCHED_OTHER, &low), 0);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	printf("# %lld us at most\n", (long long)longest / 1000);
	/* Throttled, it would get the processor after some 950 ms. */
	EXPECT_LT(longest, 800 * 1000000LL);
	mmnf_guard_range_drop(bad);
	munmap(page, PAGE);
}

TEST_MAIN
