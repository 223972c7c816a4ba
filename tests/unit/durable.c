// SPDX-License-Identifier: MIT
/*
 * Linux says once that it could not make data durable, and takes it for written: what
 * the library then says, and what it leaves on disk.  In which order it asks for
 * checksums, tiles and names.
 */
#include "durable.h"

#include <time.h>

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

/* Fill would be wrong, and nobody would say so. */
TEST(tiles_that_were_lost_when_their_file_was_put_aside)
{
	struct mmnf_field *field = make(true, false);
	uint64_t i;

	ASSERT_EQ(put(field, 0, 9), 0);
	nr_to_fail = 1;
	for (i = 1; i < NR_SEGMENTS; i++)
		ASSERT_EQ(put(field, i, (uint32_t)i), 0);
	ASSERT_EQ(nr_to_fail, 0);
	for (i = 0; i < 2; i++) {
		struct mmnf_box box = segment(0);

		EXPECT_FAILS(mmnf_get(field, &box, data, sizeof(data)), EIO,
			     "mmnf_get", "segment c/0/0: what was written is");
		EXPECT_FAILS(put(field, 0, 8), EIO, "mmnf_write", "lost");
	}
	EXPECT_EQ(get(field, 1), 1);
	check_lost(field);
	EXPECT_EQ(get_anew(0), 0);
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

/* File systems pass on what a write met: whichever it is, the data may be lost. */
TEST(whatever_the_storage_says_is_kept)
{
	static const int errors[] = { ENOMEM, EAGAIN, EINTR };
	unsigned int i;

	for (i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
		struct mmnf_field *field = make(true, false);

		error_to_fail = errors[i];
		ASSERT_EQ(put(field, 0, 9), 0);
		nr_to_fail = 1;
		EXPECT_EQ(mmnf_field_sync(field), -errors[i]);
		EXPECT_EQ(mmnf_field_sync(field), -errors[i]);
		EXPECT_EQ(nr_to_fail, 0);
		mmnf_field_close(field);
		EXPECT_EQ(get_anew(0), 0);
	}
}

static int nr_signals, nr_signals_amid;

static void count_signal(int signal)
{
	(void)signal;
	nr_signals++;
}

static void be_disturbed(void)
{
	raise(SIGUSR1);
	nr_signals_amid = nr_signals;
}

/* On FUSE and CephFS it would end the call. */
TEST(no_signal_comes_in_between)
{
	struct sigaction act = { .sa_handler = count_signal };
	struct mmnf_field *field = make(true, false);

	ASSERT_EQ(sigaction(SIGUSR1, &act, NULL), 0);
	ASSERT_EQ(put(field, 0, 9), 0);
	while_syncing = be_disturbed;
	EXPECT_EQ(mmnf_field_sync(field), 0);
	EXPECT_EQ(nr_signals_amid, 0);
	EXPECT_EQ(nr_signals, 1);
	mmnf_field_close(field);
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

/* Half of the first tile. */
static int put_half(struct mmnf_field *field, uint64_t row, uint32_t value)
{
	struct mmnf_box box = { { row, 0 }, { 2, 512 }, { 0 } };
	uint32_t half[2 * 512];
	ssize_t n;
	uint32_t i;

	for (i = 0; i < 2 * 512; i++)
		half[i] = value;
	n = mmnf_write(field, &box, half, sizeof(half));
	return n == sizeof(half) ? 0 : (int)n;
}

static struct mmnf_field *shared;
static pthread_t other;

static void *put_other_half(void *arg)
{
	return put_half(shared, 2, 11) ? "failed" : arg;
}

/* It is done meanwhile, or waits. */
static void begin_other_half(void)
{
	struct timespec nap = { 0, 300000000 };

	ASSERT_EQ(pthread_create(&other, NULL, put_other_half, NULL), 0);
	nanosleep(&nap, NULL);
}

TEST(a_checksum_that_another_thread_took_away_is_waited_for)
{
	void *failed;

	shared = make(true, true);
	ASSERT_EQ(put(shared, 0, 9), 0);
	ASSERT_EQ(mmnf_field_sync(shared), 0);
	see_nothing();
	watch_order = true;
	while_syncing = begin_other_half;
	ASSERT_EQ(put_half(shared, 0, 10), 0);
	ASSERT_EQ(pthread_join(other, &failed), 0);
	EXPECT_TRUE(!failed);
	EXPECT_TRUE(!wrong_order);
	watch_order = false;
	mmnf_field_close(shared);
	expect_clean(4);
}

TEST(a_checksum_that_is_not_durably_gone_keeps_its_tile)
{
	struct mmnf_field *field = make(true, true);

	ASSERT_EQ(put(field, 0, 9), 0);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	nr_to_fail = 1;
	EXPECT_FAILS(put(field, 0, 10), EIO, "mmnf_write", "tiles.crc32c");
	EXPECT_FAILS(put(field, 0, 10), EIO, "mmnf_write", "tiles.crc32c");
	mmnf_field_close(field);
	EXPECT_EQ(get_anew(0), 9);
}

TEST(a_write_that_is_refused_takes_no_checksum_away)
{
	struct mmnf_field *field = make(true, true), *second;

	ASSERT_EQ(put(field, 0, 9), 0);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	ASSERT_EQ(put_half(field, 0, 10), 0);
	second = open_field("f", true);
	EXPECT_EQ(put(second, 0, 11), -EBUSY);
	mmnf_field_close(second);
	expect_clean(3); /* one is being written */
	mmnf_field_close(field);
	expect_clean(4);
}

static void write_and_sync(void)
{
	ASSERT_EQ(put(shared, 0, 10), 0);
	ASSERT_EQ(mmnf_field_sync(shared), 0);
}

static void only_write(void)
{
	ASSERT_EQ(put(shared, 0, 10), 0);
}

static void verify_meanwhile(void (*write)(void), uint64_t nr_checked)
{
	MMNF_OPTS(mmnf_verify_result, result);

	shared = make(true, true);
	ASSERT_EQ(put(shared, 0, 9), 0);
	ASSERT_EQ(mmnf_field_sync(shared), 0);
	before_reading = write;
	ASSERT_EQ(mmnf_field_verify(shared, NULL, &result), 0);
	EXPECT_TRUE(!before_reading);
	EXPECT_EQ(result.nr_bad, 0);
	EXPECT_EQ(result.nr_checked, nr_checked);
	mmnf_field_close(shared);
}

TEST(verify_takes_no_writer_for_damage)
{
	verify_meanwhile(write_and_sync, 4);
	verify_meanwhile(only_write, 0);
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

TEST_MAIN
