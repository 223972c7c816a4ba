// SPDX-License-Identifier: MIT
/*
 * Fields in tiles: what lies where in a segment file, indexes that are not to be
 * believed, owners of regions, checksums, growth.
 */
#include "field_util.h"

#include <sys/resource.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define ROWS 40ULL
#define COLUMNS 24ULL
#define TILE_BYTES (8 * 8 * 4)
#define NR_TILES 6 /* 2 x 3 of them in a segment of 16 rows */
#define INDEX NR_TILES *TILE_BYTES
#define FILE_BYTES (INDEX + NR_TILES * 16 + 4)

static const uint64_t shape[2] = { ROWS, COLUMNS }, tile[2] = { 8, 8 };
static const uint32_t fill = 7;

static uint32_t value(uint64_t row, uint64_t column)
{
	return (uint32_t)(row * 1000 + column + 100);
}

static struct mmnf_field *make(uint32_t checksums)
{
	MMNF_OPTS(mmnf_create_opts, opts);

	scratch();
	opts.tile = tile;
	opts.segment_bytes = INDEX;
	opts.fill = &fill;
	opts.checksums = checksums;
	ASSERT_EQ(mmnf_field_create("f", MMNF_U32, 2, shape, &opts), 0);
	return open_field("f", true);
}

static struct mmnf_box at(uint64_t row, uint64_t column, uint64_t rows,
			  uint64_t columns)
{
	struct mmnf_box box = { { row, column }, { rows, columns }, { 0 } };

	return box;
}

static ssize_t put(struct mmnf_field *field, struct mmnf_box box)
{
	static uint32_t data[ROWS * COLUMNS];
	uint64_t i, k, n = 0;

	for (i = 0; i < box.count[0]; i++)
		for (k = 0; k < box.count[1]; k++)
			data[n++] = value(box.start[0] + i, box.start[1] + k);
	return mmnf_write(field, &box, data, n * 4);
}

/* Elements of the box are theirs, all others fill: by copies and by pointers. */
static void check(struct mmnf_field *field, struct mmnf_box box)
{
	static uint32_t data[ROWS * COLUMNS];
	struct mmnf_box all = at(0, 0, ROWS, COLUMNS);
	uint64_t c[2];

	ASSERT_EQ(mmnf_get(field, &all, data, sizeof(data)), sizeof(data));
	for (c[0] = 0; c[0] < ROWS; c[0]++) {
		for (c[1] = 0; c[1] < COLUMNS; c[1]++) {
			bool in = c[0] - box.start[0] < box.count[0] &&
				  c[1] - box.start[1] < box.count[1];
			uint32_t want = in ? value(c[0], c[1]) : fill;
			const uint32_t *p = mmnf_activate(field, c);

			ASSERT_TRUE(p);
			ASSERT_EQ(*p, want);
			ASSERT_EQ(data[c[0] * COLUMNS + c[1]], want);
		}
	}
}

static void read_file(const char *path, void *data, size_t bytes)
{
	int fd = open(path, O_RDONLY);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(read(fd, data, bytes + 1), (ssize_t)bytes);
	close(fd);
}

static void poke(const char *path, off_t offset, uint64_t word)
{
	int fd = open(path, O_WRONLY);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(pwrite(fd, &word, 8, offset), 8);
	close(fd);
}

/* Bit by bit, by the definition in RFC 3720. */
static uint32_t crc32c(const unsigned char *p, size_t bytes)
{
	uint32_t crc = UINT32_MAX;
	int k;

	for (; bytes; bytes--, p++)
		for (crc ^= *p, k = 0; k < 8; k++)
			crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
	return ~crc;
}

TEST(a_tile_is_where_its_number_says)
{
	struct mmnf_field *field = make(0);
	struct mmnf_box box = at(3, 9, 2, 3);
	static unsigned char data[FILE_BYTES + 1];
	uint64_t entry[2 * NR_TILES];
	uint32_t element, crc;
	int i;

	ASSERT_EQ(put(field, box), 24);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	check(field, box);
	mmnf_field_close(field);
	read_file("f/c/0/0", data, FILE_BYTES);
	/* Row 3, column 9 is in tile 1 of 2 x 3, row 3, column 1 there. */
	memcpy(&element, data + TILE_BYTES + (3 * 8 + 1) * 4, 4);
	EXPECT_EQ(element, value(3, 9));
	memcpy(&element, data + TILE_BYTES, 4);
	EXPECT_EQ(element, fill);
	memcpy(entry, data + INDEX, sizeof(entry));
	for (i = 0; i < NR_TILES; i++) {
		EXPECT_EQ(entry[2 * i], i == 1 ? TILE_BYTES : UINT64_MAX);
		EXPECT_EQ(entry[2 * i + 1], i == 1 ? TILE_BYTES : UINT64_MAX);
	}
	memcpy(&crc, data + FILE_BYTES - 4, 4);
	EXPECT_EQ(crc, crc32c(data + INDEX, NR_TILES * 16));
	EXPECT_EQ(access("f/c/1/0", F_OK), -1);
}

TEST(row_ends_with_its_tile)
{
	struct mmnf_field *field = make(0);
	uint64_t c[2] = { 3, 5 }, i;

	ASSERT_EQ(put(field, at(0, 0, ROWS, COLUMNS)), ROWS * COLUMNS * 4);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	EXPECT_EQ(mmnf_row_elements(field, c), 3);
	c[1] = 8;
	EXPECT_EQ(mmnf_row_elements(field, c), 8);
	for (i = 0; i < 8; i++)
		EXPECT_EQ(((const uint32_t *)mmnf_activate(field, c))[i],
			  value(3, 8 + i));
	EXPECT_EQ(info_of(field).tile_shape[1], 8);
	EXPECT_EQ(info_of(field).segment_shape[0], 16);
	mmnf_field_close(field);
}

TEST(entries_that_are_wrong)
{
	static const uint64_t bad[][2] = {
		{ FILE_BYTES - TILE_BYTES + 1, TILE_BYTES },
		{ UINT64_MAX - 1, TILE_BYTES },
		{ 1ULL << 63, TILE_BYTES },
		{ 0, TILE_BYTES - 1 },
		{ 0, 0 },
		{ 0, 1ULL << 63 },
	};
	struct mmnf_box box = at(0, 0, 1, 1);
	uint64_t origin[2] = { 0, 0 };
	struct mmnf_field *field;
	uint32_t element;
	size_t i;

	field = make(0);
	ASSERT_EQ(put(field, box), 4);
	mmnf_field_close(field);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		poke("f/c/0/0", INDEX, bad[i][0]);
		poke("f/c/0/0", INDEX + 8, bad[i][1]);
		field = open_field("f", true);
		EXPECT_FAILS(mmnf_get(field, &box, &element, 4), EIO,
			     "mmnf_get", "index entry 0");
		EXPECT_TRUE(!mmnf_activate(field, origin));
		EXPECT_TRUE(strstr(mmnf_last_error(), "index entry 0"));
		EXPECT_FAILS(put(field, box), EIO, "mmnf_write", "index");
		/* The index as a whole is not believed by who adds to it. */
		EXPECT_FAILS(put(field, at(8, 8, 1, 1)), EIO, "mmnf_write",
			     "index is damaged");
		mmnf_field_close(field);
	}
	/* One word of two, as a writer may have left it: absent. */
	poke("f/c/0/0", INDEX, 0);
	poke("f/c/0/0", INDEX + 8, UINT64_MAX);
	field = open_field("f", true);
	check(field, at(0, 0, 0, 0));
	ASSERT_EQ(put(field, box), 4);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	check(field, box);
	mmnf_field_close(field);
	ASSERT_EQ(truncate("f/c/0/0", 99), 0);
	field = open_field("f", false);
	EXPECT_FAILS(mmnf_get(field, &box, &element, 4), EIO, "mmnf_get",
		     "c/0/0 is 99 bytes: expected an index of 100");
	mmnf_field_close(field);
}

TEST(what_a_dead_writer_left_begins_as_fill)
{
	struct mmnf_field *field = make(0);

	ASSERT_EQ(put(field, at(0, 0, 1, 1)), 4);
	mmnf_field_close(field);
	/* Bytes in the slot of tile 4, which the index does not name. */
	poke("f/c/0/0", 4 * TILE_BYTES + 64, 0x1234567812345678);
	field = open_field("f", true);
	check(field, at(0, 0, 1, 1));
	ASSERT_EQ(put(field, at(8, 8, 1, 1)), 4);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	mmnf_field_close(field);
	field = open_field("f", false);
	ASSERT_EQ(*(const uint32_t *)mmnf_activate(
			  field, (uint64_t[]) { 8 + 2, 8 + 0 }),
		  fill);
	mmnf_field_close(field);
}

TEST(one_owner_per_tile)
{
	struct mmnf_field *field = make(0), *other = open_field("f", true);

	ASSERT_EQ(put(field, at(0, 0, 8, 8)), 256);
	EXPECT_FAILS(put(other, at(7, 7, 1, 1)), EBUSY, "mmnf_write",
		     "another handle");
	ASSERT_EQ(put(other, at(8, 8, 1, 1)), 4);
	EXPECT_FAILS(put(field, at(8, 8, 1, 1)), EBUSY, "mmnf_write", "c/0/0");
	ASSERT_EQ(mmnf_field_sync(field), 0);
	ASSERT_EQ(put(other, at(7, 7, 1, 1)), 4);
	mmnf_field_close(other);
	mmnf_field_close(field);
	field = open_field("f", false);
	ASSERT_EQ(*(const uint32_t *)mmnf_activate(field,
						   (uint64_t[]) { 8, 8 }),
		  value(8, 8));
	ASSERT_EQ(*(const uint32_t *)mmnf_activate(field,
						   (uint64_t[]) { 6, 7 }),
		  value(6, 7));
	mmnf_field_close(field);
}

static struct mmnf_verify_result verify(bool repair)
{
	MMNF_OPTS(mmnf_verify_opts, opts);
	MMNF_OPTS(mmnf_verify_result, result);
	struct mmnf_field *field = open_field("f", repair);

	opts.repair = repair;
	ASSERT_EQ(mmnf_field_verify(field, &opts, &result), 0);
	mmnf_field_close(field);
	return result;
}

TEST(verify_finds_a_flipped_bit)
{
	struct mmnf_field *field = make(1);
	struct mmnf_verify_result r;
	uint32_t stored;
	static unsigned char data[FILE_BYTES + 1];
	int fd;

	ASSERT_EQ(put(field, at(0, 0, 20, 20)), 1600);
	mmnf_field_close(field);
	r = verify(false);
	EXPECT_EQ(r.nr_segments, 2);
	EXPECT_EQ(r.nr_tiles, 9);
	EXPECT_EQ(r.nr_checked, 9);
	EXPECT_EQ(r.nr_bad, 0);
	read_file("f/c/0/0", data, FILE_BYTES);
	fd = open("f/tiles.crc32c", O_RDONLY);
	ASSERT_EQ(pread(fd, &stored, 4, 2 * 4), 4);
	close(fd);
	EXPECT_EQ(stored, crc32c(data + 2 * TILE_BYTES, TILE_BYTES));
	poke("f/c/0/0", 2 * TILE_BYTES + 8, 1);
	r = verify(false);
	EXPECT_EQ(r.nr_checked, 9);
	EXPECT_EQ(r.nr_bad, 1);
}

TEST(verify_repairs_a_torn_index)
{
	struct mmnf_field *field = make(0);
	struct mmnf_verify_result r;

	ASSERT_EQ(put(field, at(0, 0, 1, 1)), 4);
	mmnf_field_close(field);
	/* An entry without its checksum, as a writer leaves that dies there. */
	poke("f/c/0/0", INDEX + 3 * 16, 3 * TILE_BYTES);
	poke("f/c/0/0", INDEX + 3 * 16 + 8, TILE_BYTES);
	EXPECT_EQ(verify(false).nr_bad, 1);
	r = verify(true);
	EXPECT_EQ(r.nr_bad, 0);
	EXPECT_EQ(r.nr_repaired, 1);
	EXPECT_EQ(verify(false).nr_bad, 0);
	poke("f/c/0/0", INDEX, 12);
	EXPECT_EQ(verify(true).nr_bad, 1);
}

TEST(growth_along_axis_0)
{
	struct mmnf_field *field = make(0);
	struct mmnf_box last = at(ROWS + 99, 0, 1, COLUMNS);
	uint32_t row[COLUMNS];

	ASSERT_EQ(put(field, at(0, 0, ROWS, COLUMNS)), ROWS * COLUMNS * 4);
	EXPECT_FAILS(mmnf_field_resize(field, ROWS - 1), EINVAL,
		     "mmnf_field_resize", "at least the present 40");
	EXPECT_FAILS(mmnf_field_resize(field, 1ULL << 62), EOVERFLOW,
		     "mmnf_field_resize", "2^63");
	ASSERT_EQ(mmnf_field_resize(field, ROWS + 100), 0);
	ASSERT_EQ(mmnf_get(field, &last, row, sizeof(row)), sizeof(row));
	EXPECT_EQ(row[3], fill);
	ASSERT_EQ(put(field, last), sizeof(row));
	mmnf_field_close(field);
	field = open_field("f", false);
	EXPECT_EQ(info_of(field).shape[0], ROWS + 100);
	ASSERT_EQ(mmnf_get(field, &last, row, sizeof(row)), sizeof(row));
	EXPECT_EQ(row[3], value(ROWS + 99, 3));
	EXPECT_FAILS(mmnf_field_resize(field, ROWS + 200), EBADF,
		     "mmnf_field_resize", "writable");
	EXPECT_EQ(*(const uint32_t *)mmnf_activate(field,
						   (uint64_t[]) { 39, 5 }),
		  value(39, 5));
	mmnf_field_close(field);
}

TEST(what_create_refuses)
{
	MMNF_OPTS(mmnf_create_opts, opts);
	static const uint64_t zero[2] = { 8, 0 }, huge[2] = { 1ULL << 62, 8 };

	scratch();
	opts.tile = zero;
	EXPECT_FAILS(mmnf_field_create("f", MMNF_U32, 2, shape, &opts), EINVAL,
		     "mmnf_field_create", "tile[1] is 0");
	opts.tile = huge;
	EXPECT_FAILS(mmnf_field_create("f", MMNF_U32, 2, shape, &opts), EINVAL,
		     "mmnf_field_create", "2^62");
	opts.tile = tile;
	opts.segment_bytes = 255;
	EXPECT_FAILS(mmnf_field_create("f", MMNF_U32, 2, shape, &opts), EINVAL,
		     "mmnf_field_create", "at least one tile, 256");
	opts.tile = NULL;
	opts.checksums = 1;
	EXPECT_FAILS(mmnf_field_create("f", MMNF_U32, 2, shape, &opts), EINVAL,
		     "mmnf_field_create", "with a tile");
}

/* Fill is mapped from a file of its own, which may be had later. */
TEST(without_a_descriptor_there_is_no_pointer_to_fill)
{
	const uint64_t written[2] = { 0, 0 }, absent[2] = { 0, 8 };
	struct mmnf_field *f = make(0);
	struct rlimit before, none;
	const uint32_t *p;

	ASSERT_EQ(put(f, at(0, 0, 8, 8)), 256);
	mmnf_field_close(f);
	f = open_field("f", false);
	ASSERT_TRUE(mmnf_activate(f, written));
	ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 0;
	ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	EXPECT_TRUE(!mmnf_activate(f, absent));
	EXPECT_TRUE(!mmnf_activate(f, absent));
	ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
	p = mmnf_activate(f, absent);
	ASSERT_TRUE(p);
	EXPECT_EQ(*p, fill);
	mmnf_field_close(f);
}

/* Statistics for others to see are worth no signal. */
TEST(a_limit_on_files_does_not_keep_a_field_shut)
{
	struct rlimit before, none;
	struct mmnf_field *f;

	scratch();
	ASSERT_EQ(mmnf_field_create("f", MMNF_U32, 2, shape, NULL), 0);
	ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
	none = before;
	none.rlim_cur = 0;
	ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &none), 0);
	ASSERT_EQ(mmnf_field_open(&f, "f", NULL), 0);
	ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
	mmnf_field_close(f);
}

/* ---- threads on one handle */

#define WRITERS 3

static struct mmnf_field *shared;
static bool finished;

/* Every WRITERS-th tile, each in two halves; the first writer also syncs. */
static void *writer(void *arg)
{
	uint64_t first = (uint64_t)(uintptr_t)arg, t, half, i;
	uint64_t nr = ROWS / 8 * (COLUMNS / 8);
	uint32_t data[8 * 4];

	for (t = first; t < nr; t += WRITERS) {
		for (half = 0; half < 2; half++) {
			struct mmnf_box box =
				at(t / 3 * 8 + half * 4, t % 3 * 8, 4, 8);

			for (i = 0; i < 32; i++)
				data[i] = value(box.start[0] + i / 8,
						box.start[1] + i % 8);
			if (mmnf_write(shared, &box, data, sizeof(data)) < 0)
				return "write";
		}
		if (!first && mmnf_field_sync(shared))
			return "sync";
	}
	return NULL;
}

/* What is written or fill, by copies and by pointers. */
static void *reader(void *arg)
{
	struct mmnf_box all = at(0, 0, ROWS, COLUMNS);
	uint32_t data[ROWS * COLUMNS], want;
	uint64_t c[2], i;
	const uint32_t *p;

	(void)arg;
	while (!__atomic_load_n(&finished, __ATOMIC_ACQUIRE)) {
		if (mmnf_get(shared, &all, data, sizeof(data)) < 0)
			return "get";
		for (i = 0; i < ROWS * COLUMNS; i++) {
			c[0] = i / COLUMNS;
			c[1] = i % COLUMNS;
			want = value(c[0], c[1]);
			p = mmnf_activate(shared, c);
			if (!p || (*p != fill && *p != want))
				return "pointer";
			if (data[i] != fill && data[i] != want)
				return "copy";
		}
	}
	return NULL;
}

TEST(threads_write_and_read)
{
	pthread_t thread[WRITERS], other;
	void *wrong;
	uintptr_t i;

	shared = make(1);
	ASSERT_EQ(pthread_create(&other, NULL, reader, NULL), 0);
	for (i = 0; i < WRITERS; i++)
		ASSERT_EQ(pthread_create(&thread[i], NULL, writer, (void *)i),
			  0);
	for (i = 0; i < WRITERS; i++) {
		ASSERT_EQ(pthread_join(thread[i], &wrong), 0);
		EXPECT_TRUE(!wrong);
	}
	__atomic_store_n(&finished, true, __ATOMIC_RELEASE);
	ASSERT_EQ(pthread_join(other, &wrong), 0);
	EXPECT_TRUE(!wrong);
	check(shared, at(0, 0, ROWS, COLUMNS));
	mmnf_field_close(shared);
	shared = open_field("f", false);
	check(shared, at(0, 0, ROWS, COLUMNS));
	mmnf_field_close(shared);
}

TEST_MAIN
