// SPDX-License-Identifier: MIT
/* Segment files: how many are open, and how long those are that have users. */
#include "field_util.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "internal.h"
#include "readahead.h"

#define SEGMENTS (3 * MMNF_SEGMENTS_OPEN)
#define ROW 1024ULL
#define ROW_BYTES (4 * ROW)
#define READERS 4
#define READS 2000

static struct mmnf_field *field;

/* SEGMENTS rows of a page, a segment each, of i + 1. */
static void open_rows(void)
{
	uint64_t shape[2] = { SEGMENTS, ROW }, i;
	struct mmnf_box box = { .count = { 1, ROW } };
	MMNF_OPTS(mmnf_open_opts, opts);
	uint32_t data[ROW];

	scratch();
	field = make_field("f", MMNF_U32, 2, shape, ROW_BYTES, NULL);
	for (i = 0; i < SEGMENTS; i++) {
		data[0] = data[ROW - 1] = (uint32_t)i + 1;
		box.start[0] = i;
		ASSERT_GT(mmnf_write(field, &box, data, sizeof(data)), 0);
	}
	mmnf_field_close(field);
	opts.engine = MMNF_ENGINE_MMAP;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
}

static uint32_t nr_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	uint32_t nr = 0;

	ASSERT_TRUE(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

/* What a row's two ends say; 0: they differ. */
static uint32_t row(uint64_t i)
{
	struct mmnf_box box = { { i }, { 1, ROW }, { 1, 1 } };
	uint32_t data[ROW] = { 0 };

	if (mmnf_get(field, &box, data, sizeof(data)) != ROW_BYTES)
		return 0;
	return data[0] == data[ROW - 1] ? data[0] : 0;
}

static uint32_t first_of(const struct mmnf_segment *s)
{
	uint32_t value = 0;

	EXPECT_EQ(pread(s->fd, &value, sizeof(value), 0), sizeof(value));
	return value;
}

TEST(some_stay_open)
{
	uint32_t before, i, round;

	open_rows();
	before = nr_files();
	for (round = 0; round < 2; round++)
		for (i = 0; i < SEGMENTS; i++) {
			ASSERT_EQ(row(i), i + 1);
			ASSERT_LE(nr_files(), before + MMNF_SEGMENTS_OPEN);
		}
	EXPECT_EQ(nr_files(), before + MMNF_SEGMENTS_OPEN);
	for (i = 0; i < 100; i++)
		ASSERT_EQ(row(SEGMENTS - 1), SEGMENTS);
	EXPECT_EQ(field->segments.nr_opened, 2 * SEGMENTS);
	mmnf_field_close(field);
}

TEST(one_that_was_used_since_stays)
{
	uint32_t i;

	open_rows();
	for (i = 0; i < SEGMENTS; i++) {
		ASSERT_EQ(row(i), i + 1);
		ASSERT_EQ(row(0), 1);
	}
	EXPECT_EQ(field->segments.nr_opened, SEGMENTS);
	mmnf_field_close(field);
}

TEST(a_pinned_one_is_not_closed)
{
	struct mmnf_segment_pin pin[2];
	uint32_t i;
	u64 id;

	open_rows();
	ASSERT_EQ(row(5), 6);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(mmnf_segment_pin(field, 5, &pin[i]), 0);
	EXPECT_TRUE(pin[0].s == pin[1].s);
	EXPECT_EQ(pin[0].s->refs, 0);
	id = pin[0].s->id;
	for (i = 10; i < SEGMENTS; i++)
		ASSERT_EQ(row(i), i + 1);
	EXPECT_EQ(first_of(pin[0].s), 6);
	mmnf_segment_unpin(field, &pin[0]);
	for (i = 10; i < SEGMENTS; i++)
		ASSERT_EQ(row(i), i + 1);
	EXPECT_EQ(first_of(pin[1].s), 6);
	EXPECT_EQ(pin[1].s->id, id);
	mmnf_segment_unpin(field, &pin[1]);
	for (i = 10; i < SEGMENTS; i++)
		ASSERT_EQ(row(i), i + 1);
	ASSERT_EQ(mmnf_segment_pin(field, 5, &pin[0]), 0);
	EXPECT_NE(pin[0].s->id, id);
	mmnf_segment_unpin(field, &pin[0]);
	mmnf_field_close(field);
}

/* More than a board has room for, and more than may stay open. */
TEST(any_number_of_pins)
{
	static struct mmnf_segment_pin pin[SEGMENTS];
	uint32_t before, i;

	open_rows();
	before = nr_files();
	for (i = 0; i < SEGMENTS; i++)
		ASSERT_EQ(mmnf_segment_pin(field, i, &pin[i]), 0);
	for (i = 0; i < SEGMENTS; i++)
		EXPECT_EQ(first_of(pin[i].s), i + 1);
	for (i = 0; i < SEGMENTS; i++)
		mmnf_segment_unpin(field, &pin[i]);
	EXPECT_LE(nr_files(), before + MMNF_SEGMENTS_OPEN);
	mmnf_field_close(field);
}

/* It is not the file of its number any more: the next user opens that. */
TEST(one_that_is_replaced_goes_with_its_last_user)
{
	struct mmnf_segment_pin pin, other;
	struct mmnf_segment *s;
	uint32_t before;

	open_rows();
	ASSERT_EQ(row(5), 6);
	before = nr_files();
	ASSERT_EQ(mmnf_segment_pin(field, 5, &pin), 0);
	ASSERT_EQ(mmnf_segment_get(field, 5, false, &s), 0);
	ASSERT_TRUE(s == pin.s);
	mmnf_segment_forget(field, s);
	ASSERT_EQ(mmnf_segment_pin(field, 5, &other), 0);
	EXPECT_NE(other.s->id, s->id);
	EXPECT_EQ(nr_files(), before + 1);
	mmnf_segment_put(field, s);
	EXPECT_EQ(nr_files(), before + 1);
	EXPECT_EQ(first_of(pin.s), 6);
	mmnf_segment_unpin(field, &pin);
	EXPECT_EQ(nr_files(), before);
	mmnf_segment_unpin(field, &other);
	mmnf_field_close(field);
}

/* Of the child of a fork(), which has to be over in time. */
static void expect_ok(pid_t child)
{
	int status = -1;

	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
}

static bool rows_are_right(void)
{
	uint32_t i, wrong = 0;

	for (i = 0; i < SEGMENTS; i++)
		wrong += row(i) != i + 1;
	return !wrong;
}

/* Its pins are the child's as well: each gives its own back. */
TEST(pins_of_a_fork)
{
	static struct mmnf_segment_pin pin[12]; /* a board has room for 8 */
	uint32_t before, i, wrong = 0;
	pid_t child;

	open_rows();
	before = nr_files();
	ASSERT_TRUE(rows_are_right());
	for (i = 0; i < 12; i++)
		ASSERT_EQ(mmnf_segment_pin(field, i, &pin[i]), 0);
	child = fork();
	if (!child) {
		alarm(30);
		wrong += !rows_are_right();
		for (i = 0; i < 12; i++)
			wrong += first_of(pin[i].s) != i + 1;
		for (i = 0; i < 12; i++)
			mmnf_segment_unpin(field, &pin[i]);
		wrong += !rows_are_right();
		wrong += nr_files() > before + MMNF_SEGMENTS_OPEN;
		mmnf_field_close(field);
		_exit(wrong != 0);
	}
	expect_ok(child);
	EXPECT_TRUE(rows_are_right());
	for (i = 0; i < 12; i++) {
		EXPECT_EQ(first_of(pin[i].s), i + 1);
		mmnf_segment_unpin(field, &pin[i]);
	}
	EXPECT_TRUE(rows_are_right());
	EXPECT_LE(nr_files(), before + MMNF_SEGMENTS_OPEN);
	mmnf_field_close(field);
}

static pthread_barrier_t forked;

static void *pin_and_wait(void *arg)
{
	struct mmnf_segment_pin pin;
	int err = mmnf_segment_pin(field, 5, &pin);

	pthread_barrier_wait(&forked); /* it is pinned */
	pthread_barrier_wait(&forked); /* and the child was there */
	if (!err)
		mmnf_segment_unpin(field, &pin);
	return err ? "failed" : arg;
}

/* They are never given back in the child: their places are not to be had there. */
TEST(pins_of_threads_that_a_fork_leaves_behind)
{
	pthread_t thread;
	uint32_t before;
	void *failed;
	pid_t child;

	open_rows();
	before = nr_files();
	ASSERT_EQ(row(5), 6);
	ASSERT_EQ(pthread_barrier_init(&forked, NULL, 2), 0);
	ASSERT_EQ(pthread_create(&thread, NULL, pin_and_wait, NULL), 0);
	pthread_barrier_wait(&forked);
	child = fork();
	if (!child) {
		bool right;

		alarm(30);
		right = rows_are_right() && rows_are_right() &&
			nr_files() <= before + MMNF_SEGMENTS_OPEN;
		mmnf_field_close(field);
		_exit(!right);
	}
	expect_ok(child);
	EXPECT_TRUE(rows_are_right());
	pthread_barrier_wait(&forked);
	ASSERT_EQ(pthread_join(thread, &failed), 0);
	EXPECT_TRUE(!failed);
	EXPECT_TRUE(rows_are_right());
	mmnf_field_close(field);
}

#define LARGE_BYTES (2ULL << 20)
#define NR_LARGE 12

static void (*while_advised)(void);

/* In place of libc's. */
int posix_fadvise(int fd, off_t offset, off_t bytes, int advice)
{
	void (*call)(void) = while_advised;

	if (advice == POSIX_FADV_WILLNEED && call) {
		while_advised = NULL;
		call();
	}
	return syscall(SYS_fadvise64, fd, offset, bytes, advice) ? errno : 0;
}

/* Two pieces, the second of which is left to the kernel's readahead. */
static void read_ahead(uint64_t i)
{
	struct mmnf_segment_pin pin;
	struct mmnf_given given;

	/* Open already, so that nobody counts the pin. */
	ASSERT_EQ(mmnf_segment_get(field, i, false, &pin.s), 0);
	mmnf_segment_put(field, pin.s);
	ASSERT_EQ(mmnf_segment_pin(field, i, &pin), 0);
	mmnf_readahead(field, pin.s, 0, LARGE_BYTES / 2, true, &given);
	mmnf_readahead(field, pin.s, LARGE_BYTES / 2, LARGE_BYTES, true,
		       &given);
	mmnf_segment_unpin(field, &pin);
}

static void read_ahead_in_others(void)
{
	uint64_t i;

	for (i = 1; i < NR_LARGE; i++)
		read_ahead(i);
}

/* More segments than have a descriptor for it; it was the one longest unused. */
TEST(a_pinned_one_keeps_its_readahead)
{
	uint64_t shape[2] = { NR_LARGE, LARGE_BYTES }, i;
	struct mmnf_box box = { .count = { 1, LARGE_BYTES } };
	static char data[LARGE_BYTES];
	MMNF_OPTS(mmnf_open_opts, opts);
	char name[16];
	int fd;

	scratch();
	need_disk();
	field = make_field("f", MMNF_U8, 2, shape, LARGE_BYTES, NULL);
	for (i = 0; i < NR_LARGE; i++) {
		box.start[0] = i;
		ASSERT_GT(mmnf_write(field, &box, data, sizeof(data)), 0);
	}
	ASSERT_EQ(mmnf_field_sync(field), 0);
	mmnf_field_close(field);
	for (i = 0; i < NR_LARGE; i++) {
		snprintf(name, sizeof(name), "f/c/%d/0", (int)i);
		fd = open(name, O_RDONLY);
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		close(fd);
	}
	opts.engine = MMNF_ENGINE_MMAP;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	while_advised = read_ahead_in_others;
	read_ahead(0);
	if (while_advised)
		SKIP("the kernel does not tell where its readahead is: expected 6.5");
	mmnf_field_close(field);
}

static void *reader(void *arg)
{
	uint64_t x = (uintptr_t)arg, i, wrong = 0;

	for (i = 0; i < READS; i++) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		wrong += row((x >> 33) % SEGMENTS) != (x >> 33) % SEGMENTS + 1;
	}
	return (void *)(uintptr_t)wrong;
}

static void *replacer(void *arg)
{
	struct mmnf_segment *s;
	uint64_t i, wrong = 0;

	(void)arg;
	for (i = 0; i < READS; i++) {
		if (mmnf_segment_get(field, i % SEGMENTS, false, &s)) {
			wrong++;
			continue;
		}
		mmnf_segment_forget(field, s);
		wrong += first_of(s) != i % SEGMENTS + 1;
		mmnf_segment_put(field, s);
	}
	return (void *)(uintptr_t)wrong;
}

TEST(threads_read_what_others_close)
{
	pthread_t thread[READERS + 1];
	uint32_t before, i;
	uintptr_t k;
	void *wrong;
	MMNF_OPTS(mmnf_field_stats, stats);

	open_rows();
	before = nr_files();
	for (k = 0; k <= READERS; k++)
		ASSERT_EQ(pthread_create(&thread[k], NULL,
					 k < READERS ? reader : replacer,
					 (void *)(k + 1)),
			  0);
	for (i = 0; i < 100; i++)
		EXPECT_LE(nr_files(),
			  before + MMNF_SEGMENTS_OPEN + READERS + 2);
	for (k = 0; k <= READERS; k++) {
		ASSERT_EQ(pthread_join(thread[k], &wrong), 0);
		EXPECT_TRUE(!wrong);
	}
	EXPECT_LE(nr_files(), before + MMNF_SEGMENTS_OPEN);
	ASSERT_EQ(mmnf_field_stats(field, &stats), 0);
	EXPECT_EQ(stats.gets, READERS * READS);
	EXPECT_EQ(stats.get_bytes, READERS * READS * ROW_BYTES);
	mmnf_field_close(field);
}

TEST_MAIN
