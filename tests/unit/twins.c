// SPDX-License-Identifier: MIT
/*
 * What several requests of one batch want is read once.  The engine's queue is the
 * real one, with a count of the bytes that it is asked for in front of it.
 */
#include "field_util.h"

#include <tier.h>

#define TILE 4096
#define ROWS 600
#define COLUMNS 600 /* rows of 2,400 bytes: aligned to nothing */
#define ROW_BYTES (COLUMNS * 4)
#define FILE_TILES ((ROWS * ROW_BYTES + TILE - 1) / TILE)

static const struct way {
	uint32_t uring, depth;
} ways[] = {
	{ MMNF_URING_AUTO, 0 },
	{ MMNF_URING_AUTO, 1 },
	{ MMNF_URING_OFF, 3 },
};

#define NR_WAYS (sizeof(ways) / sizeof(ways[0]))

static uint64_t read_bytes;
static bool held; /* nothing comes yet */
static struct mmnf_tier_ops counting;

static u32 count(struct mmnf_queue *q, struct mmnf_read *const *reads, u32 nr)
{
	u32 n = mmnf_queue_file_submit(q, reads, nr), i;

	for (i = 0; i < n; i++)
		read_bytes += reads[i]->bytes;
	return n;
}

static u32 hold(struct mmnf_queue *q, struct mmnf_read **done, u32 max,
		s64 timeout_ns)
{
	return held ? 0 : mmnf_queue_file_reap(q, done, max, timeout_ns);
}

static uint32_t value(uint64_t row, uint64_t column)
{
	uint64_t x = (row * COLUMNS + column + 1) * 0x9E3779B97F4A7C15ULL;

	return (uint32_t)(x >> 32);
}

static void make_rows(void)
{
	static const uint64_t shape[2] = { ROWS, COLUMNS };
	static uint32_t all[ROWS * COLUMNS];
	struct mmnf_box box = { { 0 }, { ROWS, COLUMNS }, { 1, 1 } };
	struct mmnf_field *field;
	uint64_t i;

	scratch();
	for (i = 0; i < ROWS * COLUMNS; i++)
		all[i] = value(i / COLUMNS, i % COLUMNS);
	field = make_field("f", MMNF_U32, 2, shape, 0, NULL);
	ASSERT_EQ(mmnf_write(field, &box, all, sizeof(all)),
		  (ssize_t)sizeof(all));
	ASSERT_EQ(mmnf_field_sync(field), 0);
	mmnf_field_close(field);
}

static struct mmnf_field *open_way(const struct way *way)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	opts.engine = MMNF_ENGINE_DIRECT;
	opts.uring = way->uring;
	opts.l2_bytes = 32 << 20;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	counting = *field->ops;
	counting.submit = count;
	counting.reap = hold;
	field->ops = &counting;
	read_bytes = 0;
	return field;
}

static struct mmnf_batch *open_batch(struct mmnf_field *field,
				     const struct way *way)
{
	MMNF_OPTS(mmnf_batch_opts, opts);
	struct mmnf_batch *batch;

	opts.depth = way->depth;
	ASSERT_EQ(mmnf_batch_open(&batch, field, &opts), 0);
	return batch;
}

#define LISTS 20
#define PER_LIST 50

static uint64_t lists[LISTS][PER_LIST];
static uint32_t got[LISTS][PER_LIST * COLUMNS];
static struct mmnf_request requests[LISTS];

/* Returns the bytes of the tiles that the lists lie in. */
static uint64_t fill_requests(uint64_t rows)
{
	static bool wanted[FILE_TILES];
	uint64_t i, k, first, last, nr = 0;

	memset(got, 0xee, sizeof(got));
	memset(wanted, 0, sizeof(wanted));
	for (i = 0; i < LISTS; i++) {
		for (k = 0; k < PER_LIST; k++) {
			lists[i][k] = rnd() % rows;
			first = lists[i][k] * ROW_BYTES / TILE;
			last = (lists[i][k] * ROW_BYTES + ROW_BYTES - 1) / TILE;
			nr += !wanted[first] + (last > first && !wanted[last]);
			wanted[first] = wanted[last] = true;
		}
		requests[i] = (struct mmnf_request) {
			.user_data = i,
			.index = lists[i],
			.nr = PER_LIST,
			.dst = got[i],
			.dst_bytes = sizeof(got[i]),
		};
	}
	return nr * TILE;
}

static void expect_list(uint64_t i)
{
	uint64_t bad = 0, k;

	for (k = 0; k < PER_LIST * COLUMNS; k++)
		bad += got[i][k] != value(lists[i][k / COLUMNS], k % COLUMNS);
	EXPECT_EQ(bad, 0);
}

TEST(each_tile_is_read_once)
{
	static const uint64_t rows[] = { 1, 20, ROWS };
	struct mmnf_completion done[LISTS];
	uint64_t w, r, i, bytes;

	make_rows();
	for (w = 0; w < NR_WAYS; w++) {
		for (r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
			struct mmnf_field *field = open_way(&ways[w]);
			struct mmnf_batch *batch = open_batch(field, &ways[w]);

			bytes = fill_requests(rows[r]);
			ASSERT_EQ(mmnf_batch_submit(batch, requests, LISTS),
				  LISTS);
			ASSERT_EQ(mmnf_batch_reap(batch, done, LISTS, LISTS,
						  -1),
				  LISTS);
			for (i = 0; i < LISTS; i++) {
				EXPECT_EQ(done[i].result, PER_LIST * ROW_BYTES);
				expect_list(i);
			}
			/* Rows merge over tiles that nobody wanted. */
			if (rows[r] < ROWS)
				EXPECT_EQ(read_bytes, bytes);
			EXPECT_GE(read_bytes, bytes);
			EXPECT_LE(read_bytes, FILE_TILES * TILE);
			mmnf_batch_close(batch);
			mmnf_field_close(field);
		}
	}
}

/* Who reads is not wanted any more: who waits for it gets its bytes all the same. */
TEST(reader_is_cancelled)
{
	struct mmnf_completion done[LISTS];
	uint64_t w, i, nr_cancelled;

	make_rows();
	for (w = 0; w < NR_WAYS; w++) {
		struct mmnf_field *field = open_way(&ways[w]);
		struct mmnf_batch *batch = open_batch(field, &ways[w]);

		fill_requests(20);
		held = true;
		ASSERT_EQ(mmnf_batch_submit(batch, requests, LISTS), LISTS);
		EXPECT_EQ(mmnf_batch_cancel(batch, 0), 1);
		EXPECT_EQ(mmnf_batch_cancel(batch, 7), 1);
		held = false;
		ASSERT_EQ(mmnf_batch_reap(batch, done, LISTS, LISTS, -1),
			  LISTS);
		for (i = nr_cancelled = 0; i < LISTS; i++) {
			nr_cancelled += done[i].result == -ECANCELED;
			if (done[i].result == -ECANCELED)
				continue;
			EXPECT_EQ(done[i].result, PER_LIST * ROW_BYTES);
			expect_list(done[i].user_data);
		}
		EXPECT_EQ(nr_cancelled, 2);
		mmnf_batch_close(batch);
		mmnf_field_close(field);
	}
}

TEST(closed_with_all_under_way)
{
	uint64_t w;

	make_rows();
	for (w = 0; w < NR_WAYS; w++) {
		struct mmnf_field *field = open_way(&ways[w]);
		struct mmnf_batch *batch = open_batch(field, &ways[w]);

		fill_requests(20);
		ASSERT_EQ(mmnf_batch_submit(batch, requests, LISTS), LISTS);
		mmnf_batch_close(batch);
		mmnf_field_close(field);
	}
}

/* A read that fails fails for all who want it. */
TEST(file_is_cut)
{
	struct mmnf_completion done[LISTS];
	uint64_t w, i;

	make_rows();
	for (w = 0; w < NR_WAYS; w++) {
		struct mmnf_field *field = open_way(&ways[w]);
		struct mmnf_batch *batch = open_batch(field, &ways[w]);

		fill_requests(20);
		/* The file is known to be whole, and then cut. */
		ASSERT_EQ(mmnf_batch_get(field, &lists[0][0], 1, got[0],
					 sizeof(got[0])),
			  ROW_BYTES);
		ASSERT_EQ(truncate("f/c/0/0", TILE), 0);
		for (i = 0; i < LISTS; i++)
			lists[i][0] = ROWS - 1;
		ASSERT_EQ(mmnf_batch_submit(batch, requests, LISTS), LISTS);
		ASSERT_EQ(mmnf_batch_reap(batch, done, LISTS, LISTS, -1),
			  LISTS);
		for (i = 0; i < LISTS; i++)
			EXPECT_EQ(done[i].result, -EIO);
		mmnf_batch_close(batch);
		mmnf_field_close(field);
		ASSERT_EQ(truncate("f/c/0/0", ROWS * ROW_BYTES), 0);
	}
}

TEST_MAIN
