// SPDX-License-Identifier: GPL-2.0
/*
 * Commands and signals: one that does not wait is done however often a timer rings; one
 * that waits ends at a signal; any ends soon when its process is killed.
 */
#include "util.h"

#include <pthread.h>
#include <sys/time.h>

#define BYTES (16 * MIB)
#define PAGES (BYTES / PAGE)

FIXTURE(interrupt)
{
	int fd, dev;
	char *p; /* all pages, mapped: EVICT leaves them */
};

FIXTURE_SETUP(interrupt)
{
	self->fd = make_field(_metadata, "interrupt", BYTES);
	self->dev = attach_field(_metadata, self->fd, BYTES);
	self->p = mmap(NULL, BYTES, PROT_READ, MAP_SHARED | MAP_POPULATE,
		       self->fd, 0);
	ASSERT_NE(MAP_FAILED, self->p);
}

FIXTURE_TEARDOWN(interrupt)
{
	munmap(self->p, BYTES);
	close(self->dev);
	close(self->fd);
	remove_field("interrupt");
}

static volatile sig_atomic_t alarms;

static void on_alarm(int sig __attribute__((unused)))
{
	alarms++;
}

/* SIGALRM after @us microseconds, and each @us again or once. */
static void ring(u64 us, int flags, bool again)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = flags };
	struct itimerval timer = { .it_value.tv_usec = us };

	if (again)
		timer.it_interval = timer.it_value;
	alarms = 0;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

static union {
	struct mmnf_ioc_prefetch prefetch;
	struct mmnf_ioc_evict evict;
	struct mmnf_ioc_residency residency;
} arg;

static int run(int dev, unsigned long command, const struct mmnf_range *list,
	       u32 nr)
{
	const struct mmnf_select select = { (unsigned long)list, nr,
					    MMNF_SELECT_RANGES };

	memset(&arg, 0, sizeof(arg));
	if (command == MMNF_IOC_PREFETCH) {
		arg.prefetch.size = sizeof(arg.prefetch);
		arg.prefetch.select = select;
	} else if (command == MMNF_IOC_EVICT) {
		arg.evict.size = sizeof(arg.evict);
		arg.evict.select = select;
	} else {
		arg.residency.size = sizeof(arg.residency);
		arg.residency.select = select;
	}
	return err_of(ioctl(dev, command, &arg));
}

/* Single pages, no two of them neighbours. */
static struct mmnf_range *make_list(u32 nr, u64 pages)
{
	struct mmnf_range *list = malloc(nr * sizeof(*list));
	u32 i;

	for (i = 0; i < nr; i++)
		list[i] = (struct mmnf_range) { i * 7ULL % PAGES * PAGE,
						pages * PAGE };
	return list;
}

/*
 * A timer that rings again and again, under SA_RESTART: the command is done, and says
 * what it says without.
 */
static void under_a_timer(struct __test_metadata *_metadata, int dev,
			  unsigned long command)
{
	struct mmnf_range *list;
	u64 start, took_ms = 0;
	u32 nr = 1000;
	pid_t pid;

	/* As many as take a while, twice: the first time is no measure. */
	do {
		nr *= 2;
		list = make_list(nr, 1);
		ASSERT_EQ(0, run(dev, command, list, nr));
		start = now_ms();
		ASSERT_EQ(0, run(dev, command, list, nr));
		took_ms = now_ms() - start;
	} while (took_ms < 200 && nr < 500000);
	pid = fork();
	if (!pid) {
		ring(took_ms * 100, SA_RESTART, true);
		if (run(dev, command, list, nr))
			_exit(1);
		if (alarms < 1)
			_exit(2);
		if (command == MMNF_IOC_PREFETCH &&
		    arg.prefetch.out_resident_bytes != nr * PAGE)
			_exit(3);
		if (command == MMNF_IOC_EVICT &&
		    arg.evict.out_mapped_bytes != nr * PAGE)
			_exit(4);
		_exit(0);
	}
	start = now_ms();
	while (now_ms() - start < 20 * took_ms + 5000) {
		int status;

		if (waitpid(pid, &status, WNOHANG) == pid) {
			EXPECT_EQ(0, status);
			return;
		}
		sleep_ms(10);
	}
	kill(pid, SIGKILL);
	wait_child(pid);
	EXPECT_EQ(0, pid)
	TH_LOG("not done after 20 times %llu ms", took_ms);
}

TEST_F(interrupt, prefetch_under_a_timer)
{
	under_a_timer(_metadata, self->dev, MMNF_IOC_PREFETCH);
}

TEST_F(interrupt, evict_under_a_timer)
{
	under_a_timer(_metadata, self->dev, MMNF_IOC_EVICT);
}

TEST_F(interrupt, residency_under_a_timer)
{
	under_a_timer(_metadata, self->dev, MMNF_IOC_RESIDENCY);
}

/* A list that takes minutes. */
TEST_F(interrupt, killed_soon)
{
	const unsigned long commands[] = { MMNF_IOC_PREFETCH, MMNF_IOC_EVICT,
					   MMNF_IOC_RESIDENCY };
	struct mmnf_range *list = make_list(1 << 20, PAGES / 2);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		u64 start;
		pid_t pid = fork();

		if (!pid)
			_exit(run(self->dev, commands[i], list, 1 << 20));
		sleep_ms(50);
		start = now_ms();
		kill(pid, SIGKILL);
		EXPECT_EQ(128 + SIGKILL, wait_child(pid));
		EXPECT_GT(2000, now_ms() - start)
		TH_LOG("command %u", i);
	}
	free(list);
}

/* Killed between looking before and after, it has dropped nothing that it counts. */
TEST_F(interrupt, killed_evict_counts_nothing)
{
	const struct mmnf_range all = { 0, BYTES };
	u64 seed = 5, round;

	for (round = 0; round < 60; round++) {
		pid_t pid = fork();

		while (!pid)
			run(self->dev, MMNF_IOC_EVICT, &all, 1);
		sleep_ms(5 + rng_next(&seed) % 10);
		kill(pid, SIGKILL);
		EXPECT_EQ(128 + SIGKILL, wait_child(pid));
	}
	EXPECT_EQ(PAGES, resident_pages(_metadata, self->fd, 0, BYTES));
	EXPECT_EQ(0, get_stats(_metadata, self->dev).out_evicted_pages);
}

/* Waiting */

#define SLOW "mmnf-interrupt"
#define SLOW_PAGES 16

/* Four reads at a time take half a second. */
TEST_F(interrupt, signal_ends_waiting)
{
	int fd = make_null_disk(SLOW, 4, 500000000, 4), dev, i;
	struct mmnf_range list[SLOW_PAGES];
	struct mmnf_ioc_prefetch wait = {
		.size = sizeof(wait),
		.flags = MMNF_PREFETCH_WAIT,
		.select = { (unsigned long)list, SLOW_PAGES,
			    MMNF_SELECT_RANGES },
	};

	if (fd < 0)
		SKIP(return, "kernel: no null_blk with configfs");
	dev = attach_field(_metadata, fd, 4 * MIB);
	for (i = 0; i < SLOW_PAGES; i++)
		list[i] = (struct mmnf_range) { i * 4 * PAGE, PAGE };
	ring(100000, 0, false);
	EXPECT_EQ(EINTR, err_of(ioctl(dev, MMNF_IOC_PREFETCH, &wait)));
	EXPECT_EQ(1, alarms);

	/* Begun anew it waits on; what rings is never the last word. */
	drop_cache(_metadata, fd);
	ring(20000, SA_RESTART, true);
	EXPECT_EQ(0, err_of(ioctl(dev, MMNF_IOC_PREFETCH, &wait)));
	EXPECT_LE(1, alarms);
	ring(0, SA_RESTART, false);
	EXPECT_EQ(SLOW_PAGES, resident_pages(_metadata, fd, 0, 4 * MIB));
	close(dev);
	close(fd);
	remove_null_disk(SLOW);
}

/*
 * A process that is gone wants nothing read: neither the plans that the worker has not
 * come to, nor the rest of the one it is at.  Up to 32 reads are begun at once; two at a
 * time take 40 ms.
 */
#define WALKERS 8
#define WALK_BYTES (32 * MIB)

/* By pages that are no neighbours. */
static void *walk_on(void *part)
{
	u64 i, sum = 0;

	for (i = 0; i < WALK_BYTES / PAGE / 5; i++)
		sum += load((char *)part + i * 5 * PAGE);
	return (void *)(uintptr_t)sum;
}

TEST_F(interrupt, nothing_is_read_for_who_is_gone)
{
	u64 bytes = WALKERS * WALK_BYTES, before, after, now, i;
	int fd = make_null_disk(SLOW, bytes / MIB, 40000000, 2), dev;
	pid_t pid;

	if (fd < 0)
		SKIP(return, "kernel: no null_blk with configfs");
	dev = attach_field(_metadata, fd, bytes);
	pid = fork();
	if (!pid) {
		char *p = map_field(_metadata, dev, 0, bytes, MAP_SHARED);
		pthread_t walker;

		for (i = 0; i < WALKERS; i++)
			pthread_create(&walker, NULL, walk_on,
				       p + i * WALK_BYTES);
		pause();
	}
	sleep_ms(8000);
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, wait_child(pid));
	before = resident_pages(_metadata, fd, 0, bytes);
	EXPECT_LT(10 * WALKERS, before);
	for (now = before;; now = after) {
		sleep_ms(1500);
		after = resident_pages(_metadata, fd, 0, bytes);
		if (after == now)
			break;
	}
	ksft_print_msg("%llu pages when it was killed, %llu later\n", before,
		       after);
	fflush(stdout);
	EXPECT_GT(40, after - before);
	close(dev);
	close(fd);
	remove_null_disk(SLOW);
}

MMNF_HARNESS_MAIN
