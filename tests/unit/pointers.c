// SPDX-License-Identifier: MIT
/*
 * What pointers show where nothing was written, and where another handle has written
 * since: as mmnf_get() gives it, once that is synced and they are activated again.
 */
#include "field_util.h"

#include <errno.h>
#include <string.h>

static const uint64_t shape[2] = { 64, 16 }, tile[2] = { 8, 8 };

static struct mmnf_field *open_with(const char *path, uint32_t max_windows)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	opts.engine = MMNF_ENGINE_MMAP;
	opts.max_windows = max_windows;
	ASSERT_EQ(mmnf_field_open(&field, path, &opts), 0);
	return field;
}

static double shown(struct mmnf_field *field, uint64_t row, uint64_t column,
		    bool pinned)
{
	uint64_t c[2] = { row, column };
	const void *p = pinned ? mmnf_window_pin(field, c) :
				 mmnf_activate(field, c);
	double v;

	if (!p)
		ktap_failed("# %s\n", mmnf_last_error());
	ASSERT_TRUE(p);
	memcpy(&v, p, sizeof(v));
	if (pinned)
		ASSERT_EQ(mmnf_window_unpin(field, p), 0);
	return v;
}

static double copied(struct mmnf_field *field, uint64_t row, uint64_t column)
{
	struct mmnf_box box = { { row, column }, { 1, 1 }, { 0 } };
	double v;

	ASSERT_EQ(mmnf_get(field, &box, &v, sizeof(v)), sizeof(v));
	return v;
}

static void expect(struct mmnf_field *field, uint64_t row, uint64_t column,
		   double v)
{
	EXPECT_TRUE(copied(field, row, column) == v);
	EXPECT_TRUE(shown(field, row, column, false) == v);
	EXPECT_TRUE(shown(field, row, column, true) == v);
}

static void put(struct mmnf_field *field, uint64_t row, uint64_t column,
		double v)
{
	struct mmnf_box box = { { row, column }, { 1, 1 }, { 0 } };

	ASSERT_EQ(mmnf_write(field, &box, &v, sizeof(v)), sizeof(v));
}

static void make(bool tiled)
{
	MMNF_OPTS(mmnf_create_opts, opts);
	const double fill = 1.5;

	scratch();
	opts.tile = tiled ? tile : NULL;
	opts.segment_bytes = 8 * 16 * sizeof(double);
	opts.fill = &fill;
	ASSERT_EQ(mmnf_field_create("f", MMNF_F64, 2, shape, &opts), 0);
}

/* An index of 16 bytes a tile and 4 before the elements: they lie at 4 modulo 8. */
TEST(fill_behind_an_index_in_front)
{
	static char text[4096];
	struct mmnf_field *field;
	char *end;
	int fd;

	make(true);
	fd = open("f/zarr.json", O_RDONLY);
	ASSERT_GT(read(fd, text, sizeof(text) - 8), 0);
	close(fd);
	end = strstr(text, "\"end\"");
	ASSERT_TRUE(end);
	memmove(end + 7, end + 5, strlen(end + 5) + 1);
	memcpy(end, "\"start\"", 7);
	put_file("f/zarr.json", text, strlen(text));
	field = open_field("f", true);
	EXPECT_EQ(info_of(field).data_offset_bytes % 8, 4);
	/* Of an absent segment, and of absent tiles of one that is there. */
	expect(field, 0, 0, 1.5);
	expect(field, 7, 15, 1.5);
	put(field, 0, 0, 2);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	expect(field, 0, 0, 2);
	expect(field, 0, 1, 1.5);
	expect(field, 0, 8, 1.5);
	expect(field, 7, 15, 1.5);
	expect(field, 63, 15, 1.5);
	mmnf_field_close(field);
}

static void first_write_elsewhere(bool tiled, uint32_t max_windows)
{
	struct mmnf_field *field, *writer;
	uint64_t c[2] = { 9, 3 };
	const double *before;
	uint64_t i;

	make(tiled);
	field = open_with("f", max_windows);
	for (i = 0; i < 64; i += 8)
		expect(field, i, 0, 1.5);
	before = mmnf_activate(field, c);
	writer = open_field("f", true);
	put(writer, 9, 3, 5);
	ASSERT_EQ(mmnf_field_sync(writer), 0);
	expect(field, 9, 3, 5);
	expect(field, 9, 4, 1.5);
	expect(field, 17, 3, 1.5);
	EXPECT_TRUE(tiled ? *before == 1.5 : *before == 5);
	put(writer, 63, 15, 6);
	mmnf_field_close(writer);
	expect(field, 63, 15, 6);
	mmnf_field_close(field);
}

TEST(first_row_written_by_another)
{
	first_write_elsewhere(false, 0);
}

TEST(first_row_written_by_another_seen_through_windows)
{
	first_write_elsewhere(false, 3);
}

TEST(first_tile_written_by_another)
{
	first_write_elsewhere(true, 0);
}

TEST(first_tile_written_by_another_seen_through_windows)
{
	first_write_elsewhere(true, 3);
}

/* It is not as long as it has to be: no fill, an error. */
TEST(segment_that_appears_cut)
{
	struct mmnf_field *field;
	uint64_t c[2] = { 0, 0 };

	make(false);
	field = open_with("f", 0);
	expect(field, 0, 0, 1.5);
	ASSERT_EQ(mkdir("f/c", 0777), 0);
	ASSERT_EQ(mkdir("f/c/0", 0777), 0);
	put_file("f/c/0/0", c, sizeof(c));
	EXPECT_TRUE(!mmnf_activate(field, c));
	EXPECT_TRUE(strstr(mmnf_last_error(), "c/0/0 is 16 bytes"));
	mmnf_field_close(field);
}

TEST_MAIN
