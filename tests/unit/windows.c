// SPDX-License-Identifier: MIT
/* Windows: pins, and what they leave to others. */
#include "field_util.h"

#include <pthread.h>

#define SEGMENTS 40ULL
#define ROW 1024ULL

/* SEGMENTS rows of a page, a segment each, of i + 1. */
static struct mmnf_field *open_rows(uint32_t max_windows)
{
	uint64_t shape[2] = { SEGMENTS, ROW }, i;
	struct mmnf_box box = { .count = { 1, ROW } };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *f;
	uint32_t data[ROW] = { 0 };

	scratch();
	f = make_field("f", MMNF_U32, 2, shape, 4 * ROW, NULL);
	for (i = 0; i < SEGMENTS; i++) {
		data[0] = (uint32_t)i + 1;
		box.start[0] = i;
		ASSERT_GT(mmnf_write(f, &box, data, sizeof(data)), 0);
	}
	mmnf_field_close(f);
	opts.engine = MMNF_ENGINE_MMAP;
	opts.max_windows = max_windows;
	ASSERT_EQ(mmnf_field_open(&f, "f", &opts), 0);
	return f;
}

static const uint32_t *row(struct mmnf_field *f, uint64_t i)
{
	uint64_t at[2] = { i, 0 };

	return mmnf_activate(f, at);
}

static const uint32_t *pin(struct mmnf_field *f, uint64_t i)
{
	uint64_t at[2] = { i, 0 };

	return mmnf_window_pin(f, at);
}

static uint64_t nr_mapped(struct mmnf_field *f)
{
	struct mmnf_field_stats stats = stats_of(f);

	return stats.windows_mapped - stats.windows_unmapped;
}

TEST(pinned_pointers_stay)
{
	struct mmnf_field *f = open_rows(4);
	const uint32_t *p[3];
	uint64_t i, round;

	for (i = 0; i < 3; i++)
		ASSERT_TRUE(p[i] = pin(f, 10 * i));
	for (round = 0; round < 3; round++)
		for (i = 0; i < SEGMENTS; i++) {
			EXPECT_EQ(*row(f, i), i + 1);
			ASSERT_LE(nr_mapped(f), 8);
		}
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(*p[i], 10 * i + 1);
		EXPECT_TRUE(row(f, 10 * i) == p[i]);
		EXPECT_EQ(mmnf_window_unpin(f, p[i]), 0);
	}
	mmnf_field_close(f);
}

TEST(one_place_is_left_for_others)
{
	struct mmnf_field *f = open_rows(3);
	const uint32_t *p, *q;

	ASSERT_TRUE(p = pin(f, 0));
	ASSERT_TRUE(q = pin(f, 1));
	EXPECT_TRUE(!pin(f, 2));
	EXPECT_EQ(
		strcmp(mmnf_last_error(),
		       "mmnf_window_pin: 3 segments are pinned: expected fewer "
		       "than max_windows, here 3"),
		0);
	/* The same segment again is no other window; each is given back. */
	EXPECT_TRUE(pin(f, 0) == p);
	EXPECT_EQ(mmnf_window_unpin(f, p), 0);
	EXPECT_EQ(mmnf_window_unpin(f, p + 1), 0);
	EXPECT_FAILS(mmnf_window_unpin(f, p), EINVAL, "mmnf_window_unpin",
		     "expected a pinned pointer");
	ASSERT_TRUE(p = pin(f, 2));
	EXPECT_EQ(*p, 3);
	EXPECT_EQ(*q, 2);
	mmnf_field_close(f);
}

TEST(all_may_be_pinned_where_all_fit)
{
	struct mmnf_field *f = open_rows(SEGMENTS);
	const uint32_t *p[SEGMENTS];
	uint64_t i;

	for (i = 0; i < SEGMENTS; i++)
		ASSERT_TRUE(p[i] = pin(f, i));
	for (i = 0; i < SEGMENTS; i++)
		EXPECT_EQ(*p[i], i + 1);
	EXPECT_EQ(stats_of(f).windows_unmapped, 0);
	mmnf_field_close(f);
}

/* What was unpinned is good for as long as if activated at that moment. */
TEST(unpinned_is_as_activated)
{
	struct mmnf_field *f = open_rows(4);
	const uint32_t *p;
	uint64_t i;

	ASSERT_TRUE(p = pin(f, 0));
	for (i = 1; i < SEGMENTS; i++)
		row(f, i);
	ASSERT_EQ(mmnf_window_unpin(f, p), 0);
	for (i = 1; i < 4; i++) {
		row(f, i);
		EXPECT_EQ(*p, 1);
	}
	for (i = 1; i < SEGMENTS; i++)
		row(f, i);
	EXPECT_FAILS(mmnf_window_unpin(f, p), EINVAL, "mmnf_window_unpin",
		     "expected a pinned pointer");
	mmnf_field_close(f);
}

/* One segment that grows to SEGMENTS: the handle is then as if opened anew. */
TEST(growth_makes_room_for_windows)
{
	uint64_t shape[2] = { 1, ROW }, i;
	struct mmnf_box box = { .count = { 1, ROW } };
	const uint32_t *p, *first, *p0;
	uint32_t data[ROW] = { 0 };
	struct mmnf_field *f;

	scratch();
	f = make_field("f", MMNF_U32, 2, shape, 4 * ROW, NULL);
	ASSERT_TRUE(p0 = row(f, 0));
	ASSERT_EQ(mmnf_field_resize(f, SEGMENTS), 0);
	for (i = 0; i < SEGMENTS; i++) {
		data[0] = (uint32_t)i + 1;
		box.start[0] = i;
		ASSERT_GT(mmnf_write(f, &box, data, sizeof(data)), 0);
	}
	first = row(f, 0);
	EXPECT_TRUE(first == p0);
	for (i = 0; i < SEGMENTS; i++) {
		ASSERT_TRUE(p = row(f, i));
		EXPECT_EQ(*p, i + 1);
	}
	EXPECT_EQ(stats_of(f).windows_unmapped, 0);
	EXPECT_EQ(*first, 1);
	for (i = 0; i < SEGMENTS; i++)
		EXPECT_TRUE(pin(f, i));
	mmnf_field_close(f);
}

TEST(coordinates_outside)
{
	struct mmnf_field *f = open_rows(4);

	EXPECT_TRUE(!pin(f, SEGMENTS));
	expect_text(__FILE__, __LINE__, "pin", "mmnf_", "axis 0 is outside");
	mmnf_field_close(f);
}

/* In tiles: there, absent, and retired by a writer. */
TEST(pins_in_tiles)
{
	MMNF_OPTS(mmnf_create_opts, create);
	MMNF_OPTS(mmnf_open_opts, opts);
	uint64_t shape[2] = { 8, 2048 }, tile[2] = { 1, 1024 };
	uint64_t there[2] = { 0, 0 }, absent[2] = { 0, 1024 };
	struct mmnf_box box = { .count = { 1, 1024 } };
	uint32_t fill = 9, data[1024] = { 5 };
	const uint32_t *p, *q, *r;
	struct mmnf_field *f;

	scratch();
	create.tile = tile;
	create.fill = &fill;
	create.segment_bytes = 4 * 2048 + 1;
	ASSERT_EQ(mmnf_field_create("f", MMNF_U32, 2, shape, &create), 0);
	opts.engine = MMNF_ENGINE_MMAP;
	opts.writable = 1;
	opts.max_windows = 4;
	ASSERT_EQ(mmnf_field_open(&f, "f", &opts), 0);
	ASSERT_TRUE(r = mmnf_window_pin(f, there));
	EXPECT_EQ(*r, 9);
	ASSERT_GT(mmnf_write(f, &box, data, sizeof(data)), 0);
	ASSERT_EQ(mmnf_field_sync(f), 0);
	ASSERT_TRUE(p = mmnf_window_pin(f, there));
	ASSERT_TRUE(q = mmnf_window_pin(f, absent));
	EXPECT_EQ(*p, 5);
	EXPECT_EQ(*q, 9);
	EXPECT_EQ(*r, 9); /* as mmnf_activate() says: activate again */
	EXPECT_EQ(mmnf_window_unpin(f, r), 0);
	EXPECT_EQ(mmnf_window_unpin(f, q), 0);
	EXPECT_EQ(mmnf_window_unpin(f, p), 0);
	EXPECT_FAILS(mmnf_window_unpin(f, p), EINVAL, "mmnf_window_unpin",
		     "expected a pinned pointer");
	mmnf_field_close(f);
}

static struct mmnf_field *shared;

static void *pinner(void *arg)
{
	uint64_t x = (uintptr_t)arg, i, wrong = 0;

	for (i = 0; i < 3000; i++) {
		const uint32_t *p;

		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		p = pin(shared, (x >> 33) % SEGMENTS);
		if (!p)
			continue; /* the others have all pins */
		row(shared, (x >> 40) % SEGMENTS);
		wrong += *p != (x >> 33) % SEGMENTS + 1;
		wrong += mmnf_window_unpin(shared, p) != 0;
	}
	return (void *)(uintptr_t)wrong;
}

TEST(threads_pin)
{
	pthread_t thread[4];
	uintptr_t i;
	void *wrong;

	shared = open_rows(4);
	for (i = 0; i < 4; i++)
		ASSERT_EQ(pthread_create(&thread[i], NULL, pinner,
					 (void *)(i + 1)),
			  0);
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(pthread_join(thread[i], &wrong), 0);
		EXPECT_TRUE(!wrong);
	}
	EXPECT_LE(nr_mapped(shared), 8);
	mmnf_field_close(shared);
}

TEST_MAIN
