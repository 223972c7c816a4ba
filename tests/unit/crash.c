// SPDX-License-Identifier: MIT
/*
 * A writer that is killed, 200 times at random points: whoever opens the field
 * then sees in each element what was there before, or what the writer was
 * writing, and nothing else.
 *
 * An element holds its own index and the number of the writer; 0 is nobody.
 */
#include "field_util.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#define ROWS 96ULL
#define COLUMNS 512ULL
#define NR (ROWS * COLUMNS)
#define KILLS 50 /* of each of four layouts */

static const uint64_t shape[2] = { ROWS, COLUMNS }, tile[2] = { 8, 128 };
static uint32_t before[NR], after[NR], rows[8 * COLUMNS];

static uint32_t value(uint32_t writer, uint64_t index)
{
	return writer << 24 | (uint32_t)index;
}

/* Bands of rows in an order of its own, some with a sync behind them. */
static void write_all(uint32_t writer)
{
	struct mmnf_field *field = open_field("f", true);
	struct mmnf_box box = { { 0 }, { 0, COLUMNS }, { 0 } };
	uint64_t band, i;

	for (band = 0; band < 16; band++) {
		box.start[0] = (band * 7 + writer) % 16 * 6;
		box.count[0] = 6;
		for (i = 0; i < 6 * COLUMNS; i++)
			rows[i] = value(writer, box.start[0] * COLUMNS + i);
		ASSERT_EQ(mmnf_write(field, &box, rows, 6 * COLUMNS * 4),
			  6 * COLUMNS * 4);
		if (band % 3 == writer % 3)
			ASSERT_EQ(mmnf_field_sync(field), 0);
	}
	mmnf_field_close(field);
}

static void read_all(uint32_t *to)
{
	struct mmnf_field *field = open_field("f", false);
	struct mmnf_box all = { { 0 }, { ROWS, COLUMNS }, { 0 } };
	uint64_t c[2];

	ASSERT_EQ(mmnf_get(field, &all, to, NR * 4), NR * 4);
	for (c[0] = 0; c[0] < ROWS; c[0]++) {
		for (c[1] = 0; c[1] < COLUMNS; c[1] += 128) {
			const uint32_t *p = mmnf_activate(field, c);

			ASSERT_TRUE(p);
			ASSERT_TRUE(!memcmp(p, to + c[0] * COLUMNS + c[1],
					    128 * 4));
		}
	}
	mmnf_field_close(field);
}

static void nap(uint64_t ns)
{
	struct timespec t = { 0, (long)ns };

	nanosleep(&t, NULL);
}

/* Returns what the elements of the writer came to. */
static uint64_t compare(uint32_t writer)
{
	uint64_t i, nr_new = 0;

	read_all(after);
	for (i = 0; i < NR; i++) {
		bool is_new = after[i] == value(writer, i);

		nr_new += is_new;
		if (is_new || after[i] == before[i])
			continue;
		ktap_failed("# element %llu is %08x: expected %08x or %08x\n",
			    (unsigned long long)i, after[i], before[i],
			    value(writer, i));
		return 0;
	}
	memcpy(before, after, sizeof(before));
	return nr_new;
}

static void repair(void)
{
	MMNF_OPTS(mmnf_verify_opts, opts);
	MMNF_OPTS(mmnf_verify_result, result);
	struct mmnf_field *field = open_field("f", true);

	opts.repair = 1;
	ASSERT_EQ(mmnf_field_verify(field, &opts, &result), 0);
	EXPECT_EQ(result.nr_bad, 0);
	mmnf_field_close(field);
}

static void kill_writers(bool tiled, uint32_t fill)
{
	MMNF_OPTS(mmnf_create_opts, opts);
	uint64_t i, cut = 0, longest = 20000000, nr_new;
	uint32_t writer;

	scratch();
	opts.tile = tiled ? tile : NULL;
	opts.segment_bytes = 32 * COLUMNS * 4;
	opts.fill = &fill;
	ASSERT_EQ(mmnf_field_create("f", MMNF_U32, 2, shape, &opts), 0);
	for (i = 0; i < NR; i++)
		before[i] = fill;
	for (writer = 1; writer <= KILLS; writer++) {
		pid_t pid = fork();
		int status;

		ASSERT_GE(pid, 0);
		if (!pid) {
			write_all(writer);
			_exit(0);
		}
		nap(1 + rnd() % longest);
		kill(pid, SIGKILL);
		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		ASSERT_TRUE(WIFSIGNALED(status) || !WEXITSTATUS(status));
		/* Aim at the time in which it is at work. */
		longest = WIFSIGNALED(status) ? longest + longest / 8 :
						longest - longest / 4;
		if (longest > 500000000)
			longest = 500000000;
		nr_new = compare(writer);
		cut += nr_new && nr_new < NR;
		if (writer % 5 == 0)
			repair();
	}
	/* Some died in the middle, or nothing was tested. */
	EXPECT_GE(cut, 3);
	write_all(KILLS + 1);
	EXPECT_EQ(compare(KILLS + 1), NR);
	repair();
}

TEST(linear)
{
	kill_writers(false, 0);
}

TEST(linear_with_fill)
{
	kill_writers(false, 0xfefefefe);
}

TEST(tiles)
{
	kill_writers(true, 0);
}

TEST(tiles_with_fill)
{
	kill_writers(true, 0xfefefefe);
}

TEST_MAIN
