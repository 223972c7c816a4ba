// SPDX-License-Identifier: MIT
/*
 * Batches: requests submitted and reaped, many at once, by threads, with an
 * eventfd, cancelled, too late, wrong.  Elements are a hash of their place.
 */
#include "field_util.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <time.h>

#define ROWS 4096
#define COLUMNS 600 /* rows of 2,400 bytes: aligned to nothing */
#define ROW_BYTES (COLUMNS * 4)

static const struct way {
	uint32_t engine, uring;
	uint64_t l2_bytes;
	uint32_t once;
} ways[] = {
	{ MMNF_ENGINE_MMAP, MMNF_URING_AUTO, 0, 0 },
	{ MMNF_ENGINE_MMAP, MMNF_URING_OFF, 0, 0 },
	{ MMNF_ENGINE_DIRECT, MMNF_URING_AUTO, 32 << 20, 0 },
	{ MMNF_ENGINE_DIRECT, MMNF_URING_AUTO, 1, 0 },
	{ MMNF_ENGINE_DIRECT, MMNF_URING_OFF, 1 << 20, 0 },
	{ MMNF_ENGINE_DIRECT, MMNF_URING_AUTO, 32 << 20, 1 },
	{ MMNF_ENGINE_DIRECT, MMNF_URING_OFF, 1 << 20, 1 },
};

#define NR_WAYS (sizeof(ways) / sizeof(ways[0]))

static uint32_t value(uint64_t row, uint64_t column)
{
	uint64_t x = (row * COLUMNS + column + 1) * 0x9E3779B97F4A7C15ULL;

	return (uint32_t)(x >> 32);
}

static void make_rows(void)
{
	static const uint64_t shape[2] = { ROWS, COLUMNS };
	struct mmnf_field *field;
	struct mmnf_box box = { { 0 }, { ROWS, COLUMNS }, { 1, 1 } };
	uint32_t *all = (uint32_t *)malloc((size_t)ROWS * ROW_BYTES);
	uint64_t i;

	scratch();
	ASSERT_TRUE(all);
	for (i = 0; i < (uint64_t)ROWS * COLUMNS; i++)
		all[i] = value(i / COLUMNS, i % COLUMNS);
	field = make_field("f", MMNF_U32, 2, shape, 1000 * ROW_BYTES, NULL);
	ASSERT_EQ(mmnf_write(field, &box, all, (size_t)ROWS * ROW_BYTES),
		  (ssize_t)ROWS * ROW_BYTES);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	mmnf_field_close(field);
	free(all);
}

static struct mmnf_field *open_way(const struct way *way)
{
	struct mmnf_box all = { { 0 }, { ROWS, COLUMNS }, { 1, 1 } };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	opts.engine = way->engine;
	opts.uring = way->uring;
	opts.l2_bytes = way->l2_bytes;
	opts.l2_once = way->once;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	EXPECT_GE(mmnf_evict(field, &all), 0);
	return field;
}

static struct mmnf_batch *open_batch(struct mmnf_field *field, uint32_t depth,
				     int fd)
{
	MMNF_OPTS(mmnf_batch_opts, opts);
	struct mmnf_batch *batch;

	opts.depth = depth;
	opts.eventfd = fd;
	ASSERT_EQ(mmnf_batch_open(&batch, field, &opts), 0);
	return batch;
}

static void expect_rows(const uint64_t *index, size_t nr, const uint32_t *got)
{
	uint64_t bad = 0;
	size_t i, k;

	for (i = 0; i < nr; i++)
		for (k = 0; k < COLUMNS; k++)
			bad += *got++ != value(index[i], k);
	EXPECT_EQ(bad, 0);
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

#define LISTS 24
#define PER_LIST 100

static uint64_t lists[LISTS][PER_LIST];
static uint32_t got[LISTS][PER_LIST * COLUMNS];
static struct mmnf_request requests[LISTS];

/* Lists with repeats; every third one in a narrow part, to share pages. */
static void fill_requests(void)
{
	unsigned int i, k;

	memset(got, 0xee, sizeof(got));
	for (i = 0; i < LISTS; i++) {
		for (k = 0; k < PER_LIST; k++)
			lists[i][k] = rnd() % (i % 3 ? ROWS : 60);
		requests[i] = (struct mmnf_request) {
			.user_data = i,
			.index = lists[i],
			.nr = PER_LIST,
			.dst = got[i],
			.dst_bytes = sizeof(got[i]),
		};
	}
}

TEST(lists_come_back_whole)
{
	struct mmnf_completion done[LISTS];
	unsigned int w, i, seen;

	make_rows();
	for (w = 0; w < NR_WAYS; w++) {
		struct mmnf_field *field = open_way(&ways[w]);
		struct mmnf_batch *batch = open_batch(field, w % 2 ? 5 : 0, 0);

		fill_requests();
		ASSERT_EQ(mmnf_batch_submit(batch, requests, LISTS), LISTS);
		ASSERT_EQ(mmnf_batch_reap(batch, done, LISTS, LISTS, -1),
			  LISTS);
		for (i = seen = 0; i < LISTS; i++) {
			EXPECT_EQ(done[i].result, PER_LIST * ROW_BYTES);
			seen |= 1U << done[i].user_data;
			expect_rows(lists[i], PER_LIST, got[i]);
		}
		EXPECT_EQ(seen, (1U << LISTS) - 1);
		EXPECT_EQ(mmnf_batch_reap(batch, done, LISTS, LISTS, -1), 0);
		mmnf_batch_close(batch);
		mmnf_field_close(field);
	}
}

TEST(boxes_come_back_whole)
{
	struct mmnf_box box[3] = {
		{ { 10, 5 }, { 3, 7 }, { 2, 3 } },
		{ { 4000, 0 }, { 0, 4 }, { 1, 1 } }, /* empty */
		{ { 12, 8 }, { 900, 1 }, { 1, 1 } }, /* across segments */
	};
	uint32_t out[21 + 900];
	struct mmnf_completion c;
	unsigned int w, i;

	make_rows();
	for (w = 0; w < NR_WAYS; w++) {
		struct mmnf_field *field = open_way(&ways[w]);
		struct mmnf_batch *batch = open_batch(field, 0, 0);
		struct mmnf_request r = { .user_data = 7,
					  .box = box,
					  .nr = 3,
					  .dst = out,
					  .dst_bytes = sizeof(out) };

		memset(out, 0xee, sizeof(out));
		if (w % 2) {
			EXPECT_EQ(mmnf_batch_get_boxes(field, box, 3, out,
						       sizeof(out)),
				  (ssize_t)sizeof(out));
		} else {
			ASSERT_EQ(mmnf_batch_submit(batch, &r, 1), 1);
			ASSERT_EQ(mmnf_batch_reap(batch, &c, 1, 1, -1), 1);
			EXPECT_EQ(c.user_data, 7);
			EXPECT_EQ(c.result, (int64_t)sizeof(out));
		}
		for (i = 0; i < 21; i++)
			EXPECT_EQ(out[i], value(10 + i / 7 * 2, 5 + i % 7 * 3));
		for (i = 0; i < 900; i++)
			EXPECT_EQ(out[21 + i], value(12 + i, 8));
		mmnf_batch_close(batch);
		mmnf_field_close(field);
	}
}

TEST(wrong_requests_are_refused)
{
	struct mmnf_field *field;
	struct mmnf_batch *batch;
	uint64_t index = ROWS;
	struct mmnf_box box = { { 0 }, { 1, 1 }, { 1, 1 } };
	struct mmnf_request r = { .nr = 1, .dst = got, .dst_bytes = 16 };
	MMNF_OPTS(mmnf_batch_opts, opts);

	make_rows();
	field = open_way(&ways[0]);
	opts.depth = 100000;
	EXPECT_FAILS(mmnf_batch_open(&batch, field, &opts), EINVAL,
		     "mmnf_batch_open", "depth is 100000");
	EXPECT_TRUE(!batch);
	batch = open_batch(field, 0, 0);
	EXPECT_FAILS(mmnf_batch_submit(batch, &r, 1), EINVAL,
		     "mmnf_batch_submit", "either box or index");
	r.index = &index;
	EXPECT_FAILS(mmnf_batch_submit(batch, &r, 1), ENOSPC,
		     "mmnf_batch_submit", "dst has 16 bytes");
	r.dst_bytes = ROW_BYTES;
	EXPECT_FAILS(mmnf_batch_submit(batch, &r, 1), ERANGE,
		     "mmnf_batch_submit", "index[0] is 4096");
	r.box = &box;
	EXPECT_FAILS(mmnf_batch_submit(batch, &r, 1), EINVAL,
		     "mmnf_batch_submit", "either box or index");
	r.index = NULL;
	box.start[1] = COLUMNS;
	EXPECT_FAILS(mmnf_batch_submit(batch, &r, 1), ERANGE,
		     "mmnf_batch_submit", "axis 1");
	r.reserved2 = 1;
	EXPECT_FAILS(mmnf_batch_submit(batch, &r, 1), EINVAL,
		     "mmnf_batch_submit", "reserved 0");
	r.reserved2 = 0;
	r.once = 2;
	EXPECT_FAILS(mmnf_batch_submit(batch, &r, 1), EINVAL,
		     "mmnf_batch_submit", "once 0 or 1");
	mmnf_batch_close(batch);
	mmnf_batch_close(NULL);
	mmnf_field_close(field);
}

/* Each request ends once: with its bytes, or cancelled, and then never again. */
TEST(cancelled_and_late_requests_end)
{
	struct mmnf_completion done[LISTS];
	unsigned int w, i, cancelled;
	int n;

	make_rows();
	for (w = 0; w < NR_WAYS; w++) {
		struct mmnf_field *field = open_way(&ways[w]);
		struct mmnf_batch *batch = open_batch(field, 2, 0);

		fill_requests();
		requests[LISTS - 1].deadline_ns = 1; /* long ago */
		ASSERT_EQ(mmnf_batch_submit(batch, requests, LISTS), LISTS);
		cancelled = 0;
		for (i = 10; i < 20; i++)
			cancelled += (unsigned int)mmnf_batch_cancel(batch, i);
		EXPECT_EQ(mmnf_batch_cancel(batch, 999), 0);
		n = mmnf_batch_reap(batch, done, LISTS, LISTS, -1);
		ASSERT_EQ(n, LISTS);
		for (i = 0; i < LISTS; i++) {
			uint64_t at = done[i].user_data;

			if (done[i].result == -ECANCELED) {
				EXPECT_TRUE(at >= 10 && at < 20);
				cancelled--;
			} else if (at == LISTS - 1) {
				EXPECT_EQ(done[i].result, -ETIMEDOUT);
			} else {
				EXPECT_EQ(done[i].result, PER_LIST * ROW_BYTES);
				expect_rows(lists[at], PER_LIST, got[at]);
			}
		}
		EXPECT_EQ(cancelled, 0);
		/* Left to close: it waits for what is under way. */
		ASSERT_EQ(mmnf_batch_submit(batch, requests, LISTS), LISTS);
		mmnf_batch_close(batch);
		mmnf_field_close(field);
	}
}

TEST(eventfd_tells)
{
	struct mmnf_completion done[LISTS];
	unsigned int w;

	make_rows();
	for (w = 0; w < NR_WAYS; w++) {
		struct mmnf_field *field = open_way(&ways[w]);
		int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), n = 0;
		struct mmnf_batch *batch = open_batch(field, 0, fd);
		struct pollfd pfd = { fd, POLLIN, 0 };

		EXPECT_EQ(poll(&pfd, 1, 0), 0);
		fill_requests();
		ASSERT_EQ(mmnf_batch_submit(batch, requests, LISTS), LISTS);
		while (n < LISTS) {
			ASSERT_EQ(poll(&pfd, 1, 10000), 1);
			n += mmnf_batch_reap(batch, done, 3, 0, 0);
		}
		EXPECT_EQ(n, LISTS);
		mmnf_batch_close(batch);
		close(fd);
		mmnf_field_close(field);
	}
}

TEST(reap_waits_no_longer_than_asked)
{
	struct mmnf_field *field;
	struct mmnf_completion c;
	struct mmnf_batch *batch;
	int64_t start;

	make_rows();
	field = open_way(&ways[0]);
	batch = open_batch(field, 0, 0);
	start = now_ns();
	EXPECT_EQ(mmnf_batch_reap(batch, &c, 1, 1, -1), 0);
	EXPECT_LT(now_ns() - start, 5000000000LL);
	mmnf_batch_close(batch);
	mmnf_field_close(field);
}

static struct mmnf_batch *shared;
static unsigned int nr_reaped, nr_wrong;

/* Submits for itself, reaps whatever comes. */
static void *submit_and_reap(void *arg)
{
	uint64_t first = (uintptr_t)arg, index[8][16], i, k;
	uint32_t *mine = (uint32_t *)malloc(8UL * 16 * ROW_BYTES);
	struct mmnf_completion done[8];
	int n;

	for (i = 0; mine && i < 8; i++) {
		struct mmnf_request r = { .user_data = first * 8 + i,
					  .index = index[i],
					  .nr = 16,
					  .dst = mine + i * 16 * COLUMNS,
					  .dst_bytes = 16UL * ROW_BYTES };

		for (k = 0; k < 16; k++)
			index[i][k] =
				(first * 997 + i * 131 + k * k * 7) % ROWS;
		if (mmnf_batch_submit(shared, &r, 1) != 1)
			__atomic_fetch_add(&nr_wrong, 1, __ATOMIC_RELAXED);
	}
	while (__atomic_load_n(&nr_reaped, __ATOMIC_ACQUIRE) < 4 * 8) {
		n = mmnf_batch_reap(shared, done, 8, 1, 10000000);
		for (i = 0; (int)i < n; i++)
			if (done[i].result != 16 * ROW_BYTES)
				__atomic_fetch_add(&nr_wrong, 1,
						   __ATOMIC_RELAXED);
		__atomic_fetch_add(&nr_reaped, (unsigned int)n,
				   __ATOMIC_RELEASE);
	}
	for (i = 0; mine && i < 8; i++)
		for (k = 0; k < 16UL * COLUMNS; k++)
			if (mine[i * 16 * COLUMNS + k] !=
			    value(index[i][k / COLUMNS], k % COLUMNS))
				__atomic_fetch_add(&nr_wrong, 1,
						   __ATOMIC_RELAXED);
	free(mine);
	return NULL;
}

TEST(threads_share_a_batch)
{
	pthread_t threads[4];
	unsigned int w;
	uintptr_t i;

	make_rows();
	for (w = 0; w < NR_WAYS; w++) {
		struct mmnf_field *field = open_way(&ways[w]);

		shared = open_batch(field, 16, 0);
		nr_reaped = 0;
		for (i = 0; i < 4; i++)
			ASSERT_EQ(pthread_create(&threads[i], NULL,
						 submit_and_reap, (void *)i),
				  0);
		for (i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
		EXPECT_EQ(nr_reaped, 4 * 8);
		EXPECT_EQ(nr_wrong, 0);
		mmnf_batch_close(shared);
		mmnf_field_close(field);
	}
}

/* The thread that submitted may be gone before its reads are done. */
static void *submit_only(void *arg)
{
	if (mmnf_batch_submit((struct mmnf_batch *)arg, requests, LISTS) !=
	    LISTS)
		nr_wrong++;
	return NULL;
}

TEST(submitter_may_end_first)
{
	struct mmnf_completion done[LISTS];
	unsigned int w, i;
	pthread_t thread;

	make_rows();
	for (w = 0; w < NR_WAYS; w++) {
		struct mmnf_field *field = open_way(&ways[w]);
		struct mmnf_batch *batch = open_batch(field, 0, 0);

		fill_requests();
		ASSERT_EQ(pthread_create(&thread, NULL, submit_only, batch), 0);
		pthread_join(thread, NULL);
		EXPECT_EQ(nr_wrong, 0);
		ASSERT_EQ(mmnf_batch_reap(batch, done, LISTS, LISTS, -1),
			  LISTS);
		for (i = 0; i < LISTS; i++) {
			EXPECT_EQ(done[i].result, PER_LIST * ROW_BYTES);
			expect_rows(lists[i], PER_LIST, got[i]);
		}
		mmnf_batch_close(batch);
		mmnf_field_close(field);
	}
}

TEST(errors_name_the_file)
{
	struct mmnf_completion c;
	unsigned int w;

	make_rows();
	for (w = 0; w < NR_WAYS; w++) {
		struct mmnf_field *field;
		struct mmnf_batch *batch;

		ASSERT_EQ(truncate("f/c/1/0", 1000 * ROW_BYTES), 0);
		field = open_way(&ways[w]);
		batch = open_batch(field, 0, 0);
		fill_requests();
		/* Known to be whole when it is opened, cut since. */
		lists[0][0] = 1999;
		ASSERT_EQ(mmnf_batch_get(field, lists[0], 1, got[0],
					 sizeof(got[0])),
			  ROW_BYTES);
		ASSERT_EQ(truncate("f/c/1/0", 4096), 0);
		lists[0][0] = 1998;
		lists[0][1] = 1500;
		requests[0].nr = 2;
		ASSERT_EQ(mmnf_batch_submit(batch, requests, 1), 1);
		ASSERT_EQ(mmnf_batch_reap(batch, &c, 1, 1, -1), 1);
		EXPECT_EQ(c.result, -EIO);
		EXPECT_TRUE(strstr(mmnf_last_error(), "expected 2400000"));
		mmnf_batch_close(batch);
		mmnf_field_close(field);
	}
}

TEST_MAIN
