// SPDX-License-Identifier: MIT
/*
 * Who waits while the disk makes data durable: other threads, and children.
 */
#include "durable.h"

#include <sys/wait.h>
#include <time.h>

#define PATIENCE_S 20

static struct mmnf_field *slow;
static bool went_on;
static uint64_t
	dirty; /* the segment that the disk is busy with, if it is read, too */

/* One that is open, one that is not, one that is absent; and another is made. */
static void *use_others(void *arg)
{
	uint32_t bad = 0;

	bad += get(slow, 1) != 1;
	bad += get(slow, 70) != 70;
	bad += get(slow, 79) != 0;
	bad += dirty != UINT64_MAX && get(slow, dirty) != 9;
	bad += put(slow, 75, 75) != 0;
	return bad ? "wrong" : arg;
}

/* The disk has all the time: it waits until others are done, or have waited. */
static void let_others(void)
{
	struct timespec until;
	pthread_t thread;
	void *wrong;

	ASSERT_EQ(pthread_create(&thread, NULL, use_others, NULL), 0);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	went_on = !pthread_timedjoin_np(thread, &wrong, &until);
	EXPECT_TRUE(went_on && !wrong);
}

static void make_slow(bool tiled)
{
	slow = make(tiled, false);
	ASSERT_EQ(put(slow, 1, 1), 0);
	ASSERT_EQ(put(slow, 70, 70), 0);
	ASSERT_EQ(mmnf_field_sync(slow), 0);
	mmnf_field_close(slow);
	slow = open_field("f", true);
	ASSERT_EQ(get(slow, 1), 1);
}

static void sync_slowly(bool tiled)
{
	make_slow(tiled);
	ASSERT_EQ(put(slow, 0, 9), 0);
	dirty = 0;
	while_syncing = let_others;
	ASSERT_EQ(mmnf_field_sync(slow), 0);
	EXPECT_TRUE(went_on);
	ASSERT_EQ(mmnf_field_sync(slow), 0);
	mmnf_field_close(slow);
	EXPECT_EQ(get_anew(0), 9);
	EXPECT_EQ(get_anew(75), 75);
}

TEST(others_go_on_while_rows_are_synced)
{
	sync_slowly(false);
}

TEST(others_go_on_while_tiles_are_synced)
{
	sync_slowly(true);
}

/* Whoever reads from the file that is put aside waits, and sees what is in it. */
TEST(others_go_on_while_a_file_is_put_aside)
{
	uint64_t i;

	make_slow(true);
	ASSERT_EQ(put(slow, 0, 9), 0);
	dirty = UINT64_MAX;
	while_syncing = let_others;
	for (i = 2; while_syncing && i < 70; i++)
		ASSERT_EQ(put(slow, i, (uint32_t)i), 0);
	ASSERT_TRUE(!while_syncing);
	EXPECT_TRUE(went_on);
	EXPECT_EQ(get(slow, 0), 9);
	ASSERT_EQ(mmnf_field_sync(slow), 0);
	for (i = 2; i < 40; i++)
		EXPECT_EQ(get(slow, i), i);
	mmnf_field_close(slow);
}

TEST(others_go_on_while_a_file_is_made)
{
	make_slow(true);
	dirty = UINT64_MAX;
	kind_to_fail = UNNAMED;
	while_syncing = let_others;
	ASSERT_EQ(put(slow, 0, 9), 0);
	EXPECT_TRUE(went_on);
	ASSERT_EQ(mmnf_field_sync(slow), 0);
	mmnf_field_close(slow);
	EXPECT_EQ(get_anew(0), 9);
	EXPECT_EQ(get_anew(75), 75);
}

static pid_t child;

static void *fork_and_read(void *arg)
{
	uint32_t bad = 0;

	child = fork();
	if (child)
		return arg;
	/* The thread is not here that was putting segment 0 aside. */
	alarm(PATIENCE_S);
	bad += get(slow, 0) != 9;
	bad += get(slow, 1) != 1;
	bad += put(slow, 75, 75) != 0;
	bad += mmnf_field_sync(slow) != 0;
	_exit(bad != 0);
}

static void fork_meanwhile(void)
{
	pthread_t thread;

	ASSERT_EQ(pthread_create(&thread, NULL, fork_and_read, NULL), 0);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
}

TEST(a_child_does_not_wait_for_threads_it_has_not)
{
	uint64_t i;
	int status;

	make_slow(false);
	ASSERT_EQ(put(slow, 0, 9), 0);
	ASSERT_EQ(mmnf_field_sync(slow), 0);
	ASSERT_EQ(put(slow, 0, 9), 0);
	while_syncing = fork_meanwhile;
	for (i = 2; while_syncing && i < 70; i++)
		ASSERT_EQ(put(slow, i, (uint32_t)i), 0);
	ASSERT_TRUE(!while_syncing);
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
	mmnf_field_close(slow);
	EXPECT_EQ(get_anew(75), 75);
}

static int run_child(int (*body)(void))
{
	int status;

	child = fork();
	if (!child) {
		alarm(PATIENCE_S);
		_exit(body());
	}
	ASSERT_EQ(waitpid(child, &status, 0), child);
	return status;
}

static int only_close(void)
{
	mmnf_field_close(slow);
	return 0;
}

/* Puts the file of segment 0 aside: what is there reads as itself, never as fill. */
static int read_all(void)
{
	uint64_t i;

	for (i = 1; i < NR_SEGMENTS; i++)
		if (get(slow, i) != 1)
			return 1;
	i = get(slow, 0);
	return i != 9 && i != UINT32_MAX;
}

static void check_tiles_stay(int (*body)(void))
{
	struct mmnf_field *other;
	uint64_t i;

	slow = make(true, false);
	for (i = 1; i < NR_SEGMENTS; i++)
		ASSERT_EQ(put(slow, i, 1), 0);
	ASSERT_EQ(mmnf_field_sync(slow), 0);
	ASSERT_EQ(put(slow, 0, 9), 0);
	EXPECT_EQ(run_child(body), 0);
	other = open_field("f", true);
	EXPECT_EQ(put(other, 0, 8), -EBUSY);
	mmnf_field_close(other);
	EXPECT_EQ(get_anew(0), 0); /* not named yet */
	ASSERT_EQ(mmnf_field_sync(slow), 0);
	mmnf_field_close(slow);
	EXPECT_EQ(get_anew(0), 9);
}

TEST(a_child_leaves_tiles_to_its_parent)
{
	check_tiles_stay(only_close);
	check_tiles_stay(read_all);
}

static pthread_t syncer;
static bool synced;

static void *sync_too(void *arg)
{
	int err = mmnf_field_sync(slow);

	__atomic_store_n(&synced, true, __ATOMIC_SEQ_CST);
	return err ? "failed" : arg;
}

/* A second sync, which is not done before this one is. */
static void begin_another(void)
{
	struct timespec nap = { 0, 50000000 };

	ASSERT_EQ(pthread_create(&syncer, NULL, sync_too, NULL), 0);
	nanosleep(&nap, NULL);
	EXPECT_TRUE(!__atomic_load_n(&synced, __ATOMIC_SEQ_CST));
}

static bool other_failed(void)
{
	void *failed;

	ASSERT_EQ(pthread_join(syncer, &failed), 0);
	return failed;
}

TEST(a_sync_waits_for_another)
{
	slow = make(false, false);
	ASSERT_EQ(put(slow, 0, 9), 0);
	while_syncing = begin_another;
	ASSERT_EQ(mmnf_field_sync(slow), 0);
	EXPECT_TRUE(!other_failed());
	mmnf_field_close(slow);
}

/* What another thread was putting aside was written before, too. */
TEST(a_sync_waits_for_a_file_that_is_put_aside)
{
	uint64_t i;

	slow = make(false, false);
	for (i = 0; i < 64; i++)
		ASSERT_EQ(put(slow, i, 9), 0);
	for (i = 1; i < 64; i++)
		ASSERT_EQ(get(slow, i), 9);
	while_syncing = begin_another;
	nr_to_fail = 1;
	ASSERT_EQ(put(slow, 64, 9), 0);
	EXPECT_TRUE(other_failed());
	mmnf_field_close(slow);
}

TEST_MAIN
