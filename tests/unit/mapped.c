// SPDX-License-Identifier: MIT
/*
 * Copies from what was seen in memory: the same bytes as by reads, also after the
 * file has changed, and errors in place of signals.
 */
#include "field_util.h"

#include <internal.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define PAGE 4096ULL
#define ROWS 512ULL
#define ROW (PAGE / 4) /* elements */
#define LIST 100
#define TIMES 4 /* once to read, once to see, then from the mapping */

static const uint64_t shape[2] = { ROWS, ROW };
static uint64_t list[LIST];
static uint32_t got[ROWS * ROW];

static uint32_t value(uint64_t row, uint64_t column, uint32_t salt)
{
	uint64_t x = (row * ROW + column + salt) * 0x9E3779B97F4A7C15ULL;

	return (uint32_t)(x >> 32);
}

static void write_rows(struct mmnf_field *field, uint64_t first, uint64_t nr,
		       uint32_t salt)
{
	struct mmnf_box box = { { first, 0 }, { nr, ROW }, { 1, 1 } };
	uint64_t i;

	for (i = 0; i < nr * ROW; i++)
		got[i] = value(first + i / ROW, i % ROW, salt);
	ASSERT_EQ(mmnf_write(field, &box, got, nr * PAGE),
		  (ssize_t)(nr * PAGE));
	ASSERT_EQ(mmnf_field_sync(field), 0);
}

static void take_row(void *arg, const char *from)
{
	memcpy(arg, from, PAGE);
}

/* Is a row copied from the mapping? */
static bool is_mapped(struct mmnf_field *field, uint64_t row)
{
	struct mmnf_mapped m = { .field = field };
	uint32_t data[ROW];
	bool is = mmnf_mapped_copy(&m, 0, row * PAGE, PAGE, take_row, data);

	EXPECT_EQ(mmnf_mapped_end(&m), 0);
	return is;
}

static struct mmnf_field *make(void)
{
	struct mmnf_field *field;
	uint64_t i;

	scratch();
	if (sysconf(_SC_PAGESIZE) != (long)PAGE)
		SKIP("pages are not 4096 bytes");
	field = make_field("f", MMNF_U32, 2, shape, 0, NULL);
	write_rows(field, 0, ROWS, 1);
	for (i = 0; i < LIST; i++)
		list[i] = rnd() % (ROWS / 2);
	list[LIST - 1] = ROWS / 2;
	return field;
}

static void check_list(struct mmnf_field *field, uint32_t salt)
{
	uint64_t i, bad = 0;

	memset(got, 0xee, sizeof(got));
	ASSERT_EQ(mmnf_batch_get(field, list, LIST, got, sizeof(got)),
		  (ssize_t)(LIST * PAGE));
	for (i = 0; i < LIST * ROW; i++)
		bad += got[i] != value(list[i / ROW], i % ROW, salt);
	EXPECT_EQ(bad, 0);
}

/* Rows in pieces. */
static struct mmnf_box pieces = { { 120, 10 }, { 150, 100 }, { 1, 1 } };

static void check_box(struct mmnf_field *field, uint32_t salt)
{
	uint64_t i, bad = 0;

	memset(got, 0xee, sizeof(got));
	ASSERT_EQ(mmnf_get(field, &pieces, got, sizeof(got)), 150 * 100 * 4);
	for (i = 0; i < 150 * 100; i++)
		bad += got[i] != value(120 + i / 100, 10 + i % 100, salt);
	EXPECT_EQ(bad, 0);
}

static void warm(struct mmnf_field *field)
{
	unsigned int i;

	for (i = 0; i < TIMES; i++) {
		check_list(field, 1);
		check_box(field, 1);
	}
	if (!is_mapped(field, list[0]))
		SKIP("TMPDIR is no file system that is copied from");
}

TEST(what_was_written_since)
{
	struct mmnf_field *field = make();

	warm(field);
	write_rows(field, 0, ROWS, 2);
	check_list(field, 2);
	check_box(field, 2);
	EXPECT_TRUE(is_mapped(field, list[0]));
	mmnf_field_close(field);
}

TEST(what_was_evicted)
{
	struct mmnf_box all = { { 0 }, { ROWS, ROW }, { 1, 1 } };
	struct mmnf_field *field = make();
	MMNF_OPTS(mmnf_residency, where);

	need_disk();
	warm(field);
	EXPECT_GT(mmnf_evict(field, &all), 0);
	EXPECT_TRUE(!is_mapped(field, list[0]));
	EXPECT_EQ(mmnf_residency(field, &all, &where), 0);
	EXPECT_EQ(where.cold_bytes, ROWS * PAGE);
	check_list(field, 1);
	check_box(field, 1);
	mmnf_field_close(field);
}

/* To whole pages, and inside of the last one, whose rest reads as zero then. */
TEST(file_that_was_cut)
{
	static const uint64_t bytes[] = { ROWS / 2 * PAGE,
					  ROWS / 2 * PAGE + 100, 0 };
	struct mmnf_field *field;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		field = make();
		warm(field);
		ASSERT_EQ(truncate("f/c/0/0", (off_t)bytes[i]), 0);
		EXPECT_FAILS(mmnf_batch_get(field, list, LIST, got,
					    sizeof(got)),
			     EIO, "mmnf_batch_get", "expected 2097152");
		EXPECT_FAILS(mmnf_get(field, &pieces, got, sizeof(got)), EIO,
			     "mmnf_get", "expected 2097152");
		/* What is left of it is there. */
		if (bytes[i]) {
			list[LIST - 1] = 0;
			check_list(field, 1);
		}
		mmnf_field_close(field);
	}
}

static long major_faults(void)
{
	struct rusage usage;

	ASSERT_EQ(getrusage(RUSAGE_THREAD, &usage), 0);
	return usage.ru_majflt;
}

#define SMALL 16

/*
 * Small calls, before each of which memory ran out: their copies wait for a few
 * pages, and then are reads.
 */
TEST(small_calls_that_wait)
{
	struct mmnf_field *field = make();
	struct mmnf_segment *s;
	unsigned int i;
	long before;

	need_disk();
	warm(field);
	ASSERT_EQ(mmnf_segment_get(field, 0, false, &s), 0);
	/* Not in the same block of the file. */
	for (i = 0; i < SMALL; i++)
		list[i] = i * 31 % ROWS;
	for (i = 0; i < TIMES; i++)
		ASSERT_EQ(mmnf_batch_get(field, list, SMALL, got, sizeof(got)),
			  (ssize_t)(SMALL * PAGE));
	ASSERT_TRUE(is_mapped(field, list[SMALL - 1]));
	before = major_faults();
	for (i = 0; i < 10; i++) {
		/* As reclaim does. */
		ASSERT_EQ(madvise(s->look, ROWS * PAGE, MADV_DONTNEED), 0);
		ASSERT_EQ(posix_fadvise(s->fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		ASSERT_EQ(mmnf_batch_get(field, list, SMALL, got, sizeof(got)),
			  (ssize_t)(SMALL * PAGE));
	}
	printf("# %ld waits for a page\n", major_faults() - before);
	EXPECT_LE(major_faults() - before, SMALL);
	mmnf_segment_put(field, s);
	mmnf_field_close(field);
}

static void *blocked(void *arg)
{
	struct mmnf_field *field = arg;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	EXPECT_TRUE(!is_mapped(field, list[0]));
	check_list(field, 1);
	ASSERT_EQ(truncate("f/c/0/0", 100), 0);
	EXPECT_FAILS(mmnf_batch_get(field, list, LIST, got, sizeof(got)), EIO,
		     "mmnf_batch_get", "expected 2097152");
	return NULL;
}

TEST(signal_that_is_blocked)
{
	struct mmnf_field *field = make();
	pthread_t thread;

	warm(field);
	ASSERT_EQ(pthread_create(&thread, NULL, blocked, field), 0);
	pthread_join(thread, NULL);
	mmnf_field_close(field);
}

static void never(int signal)
{
	(void)signal;
	_exit(3);
}

/* The program's own handler comes later, and is left alone. */
TEST(handler_of_the_program)
{
	struct sigaction act = { .sa_handler = never }, now;
	struct mmnf_field *field = make();

	warm(field);
	ASSERT_EQ(sigaction(SIGBUS, &act, NULL), 0);
	EXPECT_TRUE(!is_mapped(field, list[0]));
	check_list(field, 1);
	ASSERT_EQ(truncate("f/c/0/0", 100), 0);
	EXPECT_FAILS(mmnf_batch_get(field, list, LIST, got, sizeof(got)), EIO,
		     "mmnf_batch_get", "expected 2097152");
	mmnf_field_close(field);
	ASSERT_EQ(sigaction(SIGBUS, NULL, &now), 0);
	EXPECT_TRUE(now.sa_handler == never);
}

TEST(handler_goes_with_the_field)
{
	struct sigaction before, after;
	struct mmnf_field *field;

	ASSERT_EQ(sigaction(SIGBUS, NULL, &before), 0);
	field = make();
	warm(field);
	mmnf_field_close(field);
	ASSERT_EQ(sigaction(SIGBUS, NULL, &after), 0);
	EXPECT_TRUE(before.sa_handler == after.sa_handler);
}

#define THREADS 4

/* Of cuts in whole pages: what was there, or the zeros of a file made long again. */
static uint64_t nr_neither(const uint32_t *out)
{
	uint64_t i, n = 0;

	for (i = 0; i < LIST * ROW; i++)
		n += out[i] && out[i] != value(list[i / ROW], i % ROW, 1);
	return n;
}

static void *cut_and_copy(void *arg)
{
	struct mmnf_field *field = arg;
	uint32_t *out = (uint32_t *)malloc(LIST * PAGE);
	unsigned int i;

	ASSERT_TRUE(out);
	for (i = 0; i < 200; i++) {
		ssize_t n;

		memset(out, 0xee, LIST * PAGE);
		n = mmnf_batch_get(field, list, LIST, out, LIST * PAGE);
		EXPECT_TRUE(n == (ssize_t)(LIST * PAGE) || n == -EIO);
		if (n > 0)
			EXPECT_EQ(nr_neither(out), 0);
	}
	free(out);
	return NULL;
}

/* While it is cut and made long again: bytes or an error, and no signal. */
TEST(threads_while_it_is_cut)
{
	struct mmnf_field *field = make();
	pthread_t thread[THREADS];
	unsigned int i;

	warm(field);
	for (i = 0; i < THREADS; i++)
		ASSERT_EQ(pthread_create(&thread[i], NULL, cut_and_copy, field),
			  0);
	for (i = 0; i < 100; i++) {
		ASSERT_EQ(truncate("f/c/0/0", PAGE * (i % 7)), 0);
		ASSERT_EQ(truncate("f/c/0/0", ROWS * PAGE), 0);
	}
	for (i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	mmnf_field_close(field);
}

TEST_MAIN
