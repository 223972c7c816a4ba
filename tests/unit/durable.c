// SPDX-License-Identifier: MIT
/*
 * Storage that fails to make data durable, or takes its time.  Linux says once that it
 * could not write, and takes the data for written: what the library then says, and
 * what it leaves on disk.  In which order it asks for checksums and tiles.  And who
 * waits while the disk does.
 *
 * pwrite(), fdatasync(), fsync() and linkat() of the library are taken here first.
 */
#include "field_util.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define COLUMNS 1024ULL
#define SEGMENT_ROWS 8ULL
#define SEGMENT_ELEMENTS (SEGMENT_ROWS * COLUMNS)
#define NR_SEGMENTS 80ULL /* more than are kept open */
#define TILE_BYTES (4 * 512 * 4)

static const uint64_t shape[2] = { SEGMENT_ROWS * NR_SEGMENTS, COLUMNS };
static const uint64_t tile[2] = { 4, 512 };
static __thread uint32_t data[SEGMENT_ELEMENTS];

/* ---- calls taken */

enum { SEGMENT, CHECKS, UNNAMED, NR_FILES };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of tick and seen */
static uint64_t tick;
static struct {
	uint64_t first_write, last_write, last_sync;
	uint32_t nr_writes, nr_syncs;
} seen[NR_FILES];
static bool watch_order, wrong_order;
static uint32_t nr_named, nr_named_too_early;
static __thread int nr_to_fail; /* so many fdatasync() of this thread */
static __thread int nr_folders_to_fail; /* so many fsync() of it */
static int error_to_fail = EIO;
static int kind_to_fail = SEGMENT; /* or, of files with a name, any */
static void (*while_syncing)(void); /* called in the next one */

/* A segment that is being made has no name, or one that is not its own. */
static bool is_unnamed(int fd, const struct stat *st)
{
	char link[32], path[4096] = "";

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return !st->st_nlink || (readlink(link, path, sizeof(path) - 1) > 0 &&
				 strstr(path, "/.mmnf-"));
}

static int kind_of(int fd)
{
	struct stat st, checks;

	if (fstat(fd, &st))
		return SEGMENT;
	if (is_unnamed(fd, &st))
		return UNNAMED;
	return !stat("f/tiles.crc32c", &checks) && st.st_ino == checks.st_ino ?
		       CHECKS :
		       SEGMENT;
}

/*
 * Of tiles that the index names: a checksum is durably gone before its tile is written,
 * and the tile is durable before there is one again.
 */
static void look_at_order(int kind, const void *from, size_t bytes)
{
	const int other = kind == CHECKS ? SEGMENT : CHECKS;
	uint32_t crc = 1;

	if (kind == CHECKS && bytes == sizeof(crc))
		memcpy(&crc, from, sizeof(crc));
	if (crc && seen[other].last_sync < seen[other].last_write)
		wrong_order = true;
}

ssize_t pwrite(int fd, const void *from, size_t bytes, off_t offset)
{
	int kind = kind_of(fd);

	pthread_mutex_lock(&lock);
	if (watch_order && kind != UNNAMED)
		look_at_order(kind, from, bytes);
	seen[kind].last_write = ++tick;
	if (!seen[kind].first_write)
		seen[kind].first_write = tick;
	seen[kind].nr_writes++;
	pthread_mutex_unlock(&lock);
	return syscall(SYS_pwrite64, fd, from, bytes, offset);
}

int fdatasync(int fd)
{
	int kind = kind_of(fd);
	bool is_meant = (kind == UNNAMED) == (kind_to_fail == UNNAMED);
	void (*call)(void) = NULL;

	if (is_meant)
		call = __atomic_exchange_n(&while_syncing, NULL,
					   __ATOMIC_SEQ_CST);
	if (call)
		call();
	if (is_meant && nr_to_fail) {
		nr_to_fail--;
		errno = error_to_fail;
		return -1;
	}
	pthread_mutex_lock(&lock);
	seen[kind].last_sync = ++tick;
	seen[kind].nr_syncs++;
	pthread_mutex_unlock(&lock);
	return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	if (nr_folders_to_fail) {
		nr_folders_to_fail--;
		errno = error_to_fail;
		return -1;
	}
	return (int)syscall(SYS_fsync, fd);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to,
	   int flags)
{
	pthread_mutex_lock(&lock);
	nr_named++;
	if (seen[UNNAMED].last_sync < seen[UNNAMED].last_write)
		nr_named_too_early++;
	pthread_mutex_unlock(&lock);
	return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
}

static void see_nothing(void)
{
	memset(seen, 0, sizeof(seen));
	tick = 0;
}

/* ---- fields */

static struct mmnf_field *make(bool tiled, bool checks)
{
	MMNF_OPTS(mmnf_create_opts, opts);

	scratch();
	opts.tile = tiled ? tile : NULL;
	opts.segment_bytes = SEGMENT_ELEMENTS * 4;
	opts.checksums = checks;
	ASSERT_EQ(mmnf_field_create("f", MMNF_U32, 2, shape, &opts), 0);
	return open_field("f", true);
}

static struct mmnf_box segment(uint64_t nr)
{
	struct mmnf_box box = { { nr * SEGMENT_ROWS, 0 },
				{ SEGMENT_ROWS, COLUMNS },
				{ 0 } };

	return box;
}

static int put(struct mmnf_field *field, uint64_t nr, uint32_t value)
{
	struct mmnf_box box = segment(nr);
	ssize_t n;
	uint64_t i;

	for (i = 0; i < SEGMENT_ELEMENTS; i++)
		data[i] = value;
	n = mmnf_write(field, &box, data, sizeof(data));
	return n == sizeof(data) ? 0 : (int)n;
}

/* What all elements of a segment are; UINT32_MAX: they differ, or can't be read. */
static uint32_t get(struct mmnf_field *field, uint64_t nr)
{
	static __thread uint32_t got[SEGMENT_ELEMENTS];
	struct mmnf_box box = segment(nr);
	uint64_t i;

	if (mmnf_get(field, &box, got, sizeof(got)) != sizeof(got))
		return UINT32_MAX;
	for (i = 1; i < SEGMENT_ELEMENTS; i++)
		if (got[i] != got[0])
			return UINT32_MAX;
	return got[0];
}

static uint32_t get_anew(uint64_t nr)
{
	struct mmnf_field *field = open_field("f", false);
	uint32_t value = get(field, nr);

	mmnf_field_close(field);
	return value;
}

static void expect_clean(uint64_t nr_checked)
{
	MMNF_OPTS(mmnf_verify_result, result);
	struct mmnf_field *field = open_field("f", false);

	ASSERT_EQ(mmnf_field_verify(field, NULL, &result), 0);
	EXPECT_EQ(result.nr_bad, 0);
	EXPECT_EQ(result.nr_checked, nr_checked);
	mmnf_field_close(field);
}

/* ---- what is lost stays lost */

#define EXPECT_LOST(field) \
	EXPECT_FAILS(mmnf_field_sync(field), EIO, "mmnf_field_sync", "open")

static void check_lost(struct mmnf_field *field)
{
	EXPECT_LOST(field);
	/* The kernel would say by now that all is well. */
	EXPECT_LOST(field);
	/* What comes after is no proof of what came before. */
	ASSERT_EQ(put(field, 1, 5), 0);
	EXPECT_LOST(field);
	mmnf_field_close(field);
}

static void check_written_again(void)
{
	struct mmnf_field *field = open_field("f", true);

	ASSERT_EQ(put(field, 0, 6), 0);
	EXPECT_EQ(mmnf_field_sync(field), 0);
	mmnf_field_close(field);
	EXPECT_EQ(get_anew(0), 6);
}

TEST(rows_that_were_lost)
{
	struct mmnf_field *field = make(false, false);

	ASSERT_EQ(put(field, 0, 9), 0);
	nr_to_fail = 1;
	check_lost(field);
	check_written_again();
}

TEST(tiles_that_were_lost_are_not_named)
{
	struct mmnf_field *field = make(true, false);

	ASSERT_EQ(put(field, 0, 9), 0);
	nr_to_fail = 1;
	check_lost(field);
	/* They were in one segment. */
	EXPECT_EQ(get_anew(0), 0);
	EXPECT_EQ(get_anew(1), 5);
	check_written_again();
}

TEST(tiles_that_were_lost_have_no_checksum)
{
	struct mmnf_field *field = make(true, true);

	ASSERT_EQ(put(field, 0, 9), 0);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	ASSERT_EQ(put(field, 0, 10), 0);
	nr_to_fail = 1;
	check_lost(field);
	expect_clean(4); /* of the other segment */
	check_written_again();
	expect_clean(8);
}

TEST(rows_that_were_lost_when_their_file_was_put_aside)
{
	struct mmnf_field *field = make(false, false);
	uint64_t i;

	ASSERT_EQ(put(field, 0, 9), 0);
	nr_to_fail = 1;
	for (i = 1; i < NR_SEGMENTS; i++)
		ASSERT_EQ(put(field, i, (uint32_t)i), 0);
	ASSERT_EQ(nr_to_fail, 0);
	check_lost(field);
	check_written_again();
}

TEST(checksums_that_were_lost)
{
	struct mmnf_field *field = make(true, true);

	ASSERT_EQ(put(field, 0, 9), 0);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	nr_to_fail = 1;
	EXPECT_FAILS(put(field, 0, 10), EIO, "mmnf_write", "tiles.crc32c");
	EXPECT_LOST(field);
	EXPECT_LOST(field);
	mmnf_field_close(field);
	EXPECT_EQ(get_anew(0), 9);
	check_written_again();
}

TEST(folders_that_were_lost)
{
	struct mmnf_field *field = make(false, false);

	ASSERT_EQ(put(field, 0, 9), 0);
	nr_folders_to_fail = 1;
	check_lost(field);
	check_written_again();
}

/* ---- what is not lost is tried again */

static void check_tried_again(int err, int result)
{
	struct mmnf_field *field = make(true, true);

	error_to_fail = err;
	ASSERT_EQ(put(field, 0, 9), 0);
	nr_to_fail = 1;
	EXPECT_EQ(mmnf_field_sync(field), result);
	EXPECT_EQ(mmnf_field_sync(field), 0);
	ASSERT_EQ(put(field, 1, 9), 0);
	nr_folders_to_fail = 1;
	EXPECT_EQ(mmnf_field_sync(field), result);
	EXPECT_EQ(mmnf_field_sync(field), 0);
	/* Of the checksums. */
	nr_to_fail = 1;
	EXPECT_EQ(put(field, 0, 10), result);
	EXPECT_EQ(put(field, 0, 10), 0);
	EXPECT_EQ(mmnf_field_sync(field), 0);
	EXPECT_EQ(nr_to_fail + nr_folders_to_fail, 0);
	mmnf_field_close(field);
	EXPECT_EQ(get_anew(0), 10);
	expect_clean(8);
}

TEST(a_signal_that_came_in_between)
{
	check_tried_again(EINTR, 0);
}

TEST(a_sync_that_had_no_memory)
{
	check_tried_again(ENOMEM, -ENOMEM);
}

/* ---- checksums and tiles */

TEST(tiles_without_a_checksum_wait_for_nothing)
{
	struct mmnf_field *field = make(true, true);

	see_nothing();
	ASSERT_EQ(put(field, 0, 9), 0);
	EXPECT_EQ(seen[CHECKS].nr_writes, 0);
	EXPECT_EQ(seen[CHECKS].nr_syncs, 0);
	mmnf_field_close(field);
}

TEST(checksums_are_durably_gone_before_their_tiles)
{
	struct mmnf_field *field = make(true, true);

	ASSERT_EQ(put(field, 0, 9), 0);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	expect_clean(4);
	see_nothing();
	watch_order = true;
	ASSERT_EQ(put(field, 0, 10), 0);
	EXPECT_TRUE(!wrong_order);
	/* Four tiles, and the disk waited for once. */
	EXPECT_EQ(seen[CHECKS].nr_writes, 4);
	EXPECT_EQ(seen[CHECKS].nr_syncs, 1);
	EXPECT_LT(seen[CHECKS].last_sync, seen[SEGMENT].first_write);
	ASSERT_EQ(put(field, 0, 11), 0);
	EXPECT_EQ(seen[CHECKS].nr_syncs, 1);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	EXPECT_TRUE(!wrong_order);
	EXPECT_EQ(seen[CHECKS].nr_writes, 8);
	EXPECT_LT(seen[CHECKS].last_write, seen[CHECKS].last_sync);
	watch_order = false;
	mmnf_field_close(field);
	expect_clean(4);
}

/* ---- segments that are made */

static struct mmnf_field *make_filled(void)
{
	MMNF_OPTS(mmnf_create_opts, opts);
	const uint32_t fill = 7;

	scratch();
	opts.fill = &fill;
	opts.segment_bytes = SEGMENT_ELEMENTS * 4;
	ASSERT_EQ(mmnf_field_create("f", MMNF_U32, 2, shape, &opts), 0);
	return open_field("f", true);
}

static void check_named(struct mmnf_field *field, uint32_t nr_syncs)
{
	see_nothing();
	nr_named = 0;
	ASSERT_EQ(put(field, 0, 9), 0);
	EXPECT_EQ(nr_named, 1);
	EXPECT_EQ(nr_named_too_early, 0);
	EXPECT_EQ(seen[UNNAMED].nr_syncs, nr_syncs);
	mmnf_field_close(field);
}

/* After a power cut there is no index of zeroes, nor zeroes in place of fill. */
TEST(segments_are_durable_before_they_have_a_name)
{
	check_named(make(true, false), 1);
	check_named(make_filled(), 1);
}

TEST(segments_of_zeroes_are_not_waited_for)
{
	check_named(make(false, false), 0);
}

TEST(a_segment_that_is_not_durable_gets_no_name)
{
	struct mmnf_field *field = make(true, false);

	kind_to_fail = UNNAMED;
	nr_to_fail = 1;
	EXPECT_FAILS(put(field, 0, 9), EIO, "mmnf_write", "segment");
	EXPECT_EQ(get(field, 0), 0);
	/* Nothing of it is left that could be lost. */
	ASSERT_EQ(put(field, 0, 9), 0);
	EXPECT_EQ(mmnf_field_sync(field), 0);
	mmnf_field_close(field);
	EXPECT_EQ(get_anew(0), 9);
}

/* ---- who waits for a slow disk */

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
