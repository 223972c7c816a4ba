// SPDX-License-Identifier: MIT
/*
 * Fields of a petabyte: what making and opening them costs, values at far
 * places, and what is refused.  Boxes are box.c's, storage that fails
 * storage.c's.
 */
#include "field_util.h"

#include <math.h>
#include <time.h>

static const uint64_t cube[3] = { 1000000, 1000000, 256 };
static const uint64_t neurons[2] = { 86000000000, 1000 };
static const uint64_t gigabyte[3] = { 1000, 1000, 256 };

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static long rss_kib(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	long size, resident;

	ASSERT_TRUE(file);
	ASSERT_EQ(fscanf(file, "%ld %ld", &size, &resident), 2);
	fclose(file);
	return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static uint64_t disk_bytes;

static int add_disk_bytes(const char *path, const struct stat *st, int type,
			  struct FTW *at)
{
	(void)path;
	(void)type;
	(void)at;
	disk_bytes += (uint64_t)st->st_blocks * 512;
	return 0;
}

static uint64_t disk_of(const char *path)
{
	disk_bytes = 0;
	ASSERT_EQ(nftw(path, add_disk_bytes, 16, FTW_PHYS), 0);
	return disk_bytes;
}

static struct mmnf_box box_of(unsigned int ndim, const uint64_t *start,
			      const uint64_t *count)
{
	struct mmnf_box box = { { 0 }, { 0 }, { 0 } };

	memcpy(box.start, start, ndim * sizeof(*start));
	memcpy(box.count, count, ndim * sizeof(*count));
	return box;
}

TEST(petabytes_are_made_at_once)
{
	double start;

	scratch();
	start = now();
	ASSERT_EQ(mmnf_field_create("cube", MMNF_F32, 3, cube, NULL), 0);
	ASSERT_EQ(mmnf_field_create("neurons", MMNF_F32, 2, neurons, NULL), 0);
	EXPECT_LT(now() - start, 1.0);
	EXPECT_LT(disk_of("."), 1 << 20);
}

/* Opens once: seconds, and growth of RSS in KiB. */
static double cost_of_open(const char *path, long *growth)
{
	long before = rss_kib();
	struct mmnf_field *field;
	double start = now();

	ASSERT_EQ(mmnf_field_open(&field, path, NULL), 0);
	start = now() - start;
	*growth = rss_kib() - before;
	mmnf_field_close(field);
	return start;
}

/* The quickest of five: another program may have had the processor. */
TEST(petabytes_open_as_a_gigabyte_does)
{
	static const char *const names[] = { "gigabyte", "cube", "neurons" };
	long growth, most[3] = { 0 };
	double best;
	int i, k;

	scratch();
	ASSERT_EQ(mmnf_field_create("gigabyte", MMNF_F32, 3, gigabyte, NULL),
		  0);
	ASSERT_EQ(mmnf_field_create("cube", MMNF_F32, 3, cube, NULL), 0);
	ASSERT_EQ(mmnf_field_create("neurons", MMNF_F32, 2, neurons, NULL), 0);
	cost_of_open("gigabyte", &growth); /* what is loaded once */
	for (i = 0; i < 3; i++) {
		for (best = 1e9, k = 0; k < 5; k++) {
			best = fmin(best, cost_of_open(names[i], &growth));
			if (growth > most[i])
				most[i] = growth;
		}
		EXPECT_LT(best, 0.010);
		EXPECT_LT(most[i], 4096);
		EXPECT_LT(most[i] - most[0], 1024);
	}
}

TEST(info_of_a_petabyte)
{
	struct mmnf_field *field;
	struct mmnf_field_info info;

	scratch();
	field = make_field("f", MMNF_F32, 3, cube, 0, NULL);
	info = info_of(field);
	EXPECT_EQ(info.dtype, MMNF_F32);
	EXPECT_EQ(info.ndim, 3);
	EXPECT_EQ(info.element_bytes, 4);
	EXPECT_EQ(info.shape[0], 1000000);
	EXPECT_EQ(info.shape[2], 256);
	EXPECT_EQ(info.total_bytes, 1024000000000000);
	/* 64 GiB hold 67 slabs of 1 024 000 000 bytes. */
	EXPECT_EQ(info.segment_shape[0], 67);
	EXPECT_EQ(info.segment_bytes, 68608000000);
	EXPECT_EQ(info.nr_segments, 14926);
	EXPECT_EQ(info.engine, MMNF_ENGINE_MMAP);
	EXPECT_STREQ(info.engine_reason, "asked for");
	mmnf_field_close(field);
}

TEST(element_in_the_middle_of_the_cube)
{
	static const uint64_t at[3] = { 500000, 500000, 0 };
	static const uint64_t one[3] = { 1, 1, 256 };
	struct mmnf_box box = box_of(3, at, one);
	float row[256], back[256];
	struct mmnf_field *field;
	const float *p;
	int i;

	scratch();
	field = make_field("f", MMNF_F32, 3, cube, 0, NULL);
	for (i = 0; i < 256; i++)
		row[i] = 500000.5f + (float)i * 3;
	ASSERT_EQ(mmnf_write(field, &box, row, sizeof(row)), 1024);
	EXPECT_LT(disk_of("f"), 1 << 20);
	ASSERT_EQ(mmnf_get(field, &box, back, sizeof(back)), 1024);
	EXPECT_EQ(memcmp(row, back, sizeof(row)), 0);
	p = mmnf_activate(field, at);
	ASSERT_TRUE(p);
	EXPECT_EQ(memcmp(row, p, sizeof(row)), 0);
	/* The row behind it was not written. */
	EXPECT_EQ(p[256], 0.0f);
	mmnf_field_close(field);
}

TEST(neuron_42000000000)
{
	static const uint64_t at[2] = { 42000000000, 0 }, one[2] = { 1, 1000 };
	static const uint64_t list[3] = { 85999999999, 42000000000, 0 };
	struct mmnf_box box = box_of(2, at, one);
	static float row[1000], back[3][1000];
	struct mmnf_field *field;
	const float *p;
	int i, wrong = 0;

	scratch();
	field = make_field("f", MMNF_F32, 2, neurons, 0, NULL);
	for (i = 0; i < 1000; i++)
		row[i] = (float)(i + 1) / 8;
	ASSERT_EQ(mmnf_write(field, &box, row, sizeof(row)), 4000);
	mmnf_field_close(field);

	field = open_field("f", false);
	ASSERT_EQ(mmnf_get(field, &box, back[0], 4000), 4000);
	EXPECT_EQ(memcmp(row, back[0], 4000), 0);
	p = mmnf_activate(field, at);
	ASSERT_TRUE(p);
	EXPECT_EQ(memcmp(row, p, 4000), 0);
	memset(back, 0xff, sizeof(back));
	ASSERT_EQ(mmnf_batch_get(field, list, 3, back, sizeof(back)), 12000);
	EXPECT_EQ(memcmp(row, back[1], 4000), 0);
	for (i = 0; i < 1000; i++)
		wrong += back[0][i] != 0 || back[2][i] != 0;
	EXPECT_EQ(wrong, 0);
	mmnf_field_close(field);
}

TEST(fill_of_what_was_never_written)
{
	static const uint64_t shape[2] = { 3000, 1000 }, at[2] = { 2999, 999 };
	static const uint64_t one[2] = { 1, 1 }, row[2] = { 1, 1000 };
	static const uint64_t first[2] = { 0, 7 };
	const float nan_payload = __builtin_nanf("0x1234"), fills[] = {
		0.0f, 1.5f, NAN, -INFINITY, nan_payload, -0.0f
	};
	struct mmnf_box box = box_of(2, at, one), near;
	float v, written = 42, line[1000];
	struct mmnf_field *field;
	const float *p;
	char name[16];
	int i, k, wrong;

	scratch();
	for (i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		field = make_field(name, MMNF_F32, 2, shape, 1000000,
				   &fills[i]);
		ASSERT_EQ(mmnf_get(field, &box, &v, 4), 4);
		EXPECT_EQ(memcmp(&v, &fills[i], 4), 0);
		p = mmnf_activate(field, at);
		ASSERT_TRUE(p);
		EXPECT_EQ(memcmp(p, &fills[i], 4), 0);
		EXPECT_EQ(memcmp(info_of(field).fill, &fills[i], 4), 0);
		/* One written element; its neighbours keep the fill. */
		near = box_of(2, first, one);
		ASSERT_EQ(mmnf_write(field, &near, &written, 4), 4);
		near = box_of(2, (uint64_t[2]) { 0, 0 }, row);
		ASSERT_EQ(mmnf_get(field, &near, line, 4000), 4000);
		for (k = 0, wrong = 0; k < 1000; k++)
			wrong += memcmp(&line[k], k == 7 ? &written : &fills[i],
					4) != 0;
		EXPECT_EQ(wrong, 0);
		mmnf_field_close(field);
	}
}

/* A window of the fill shows the file once there is one, whoever made it. */
TEST(pointer_sees_later_writes)
{
	static const uint64_t shape[2] = { 64, 1000 }, zero[2] = { 0, 0 };
	static const uint64_t next[2] = { 0, 1 }, one[2] = { 1, 1 };
	struct mmnf_box box = box_of(2, zero, one);
	struct mmnf_field *field, *other;
	const float fill = 3, value[2] = { 7, 8 };
	const float *p;

	scratch();
	field = make_field("f", MMNF_F32, 2, shape, 40000, &fill);
	p = mmnf_activate(field, zero);
	ASSERT_TRUE(p);
	EXPECT_EQ(p[0], 3.0f);
	other = open_field("f", true);
	ASSERT_EQ(mmnf_write(other, &box, &value[0], 4), 4);
	mmnf_field_close(other);
	box = box_of(2, next, one);
	ASSERT_EQ(mmnf_write(field, &box, &value[1], 4), 4);
	EXPECT_EQ(p[0], 7.0f);
	EXPECT_EQ(p[1], 8.0f);
	EXPECT_EQ(p[2], 3.0f);
	mmnf_field_close(field);
}

#define CREATE(path, dtype, ndim, ...)                          \
	mmnf_field_create(path, (enum mmnf_dtype)(dtype), ndim, \
			  (const uint64_t[]) { __VA_ARGS__ }, NULL)

TEST(what_create_refuses)
{
	static const char me[] = "mmnf_field_create: ";
	MMNF_OPTS(mmnf_create_opts, opts);
	const uint64_t two = 2;
	struct {
		struct mmnf_create_opts known;
		uint64_t later;
	} longer = { { 0 }, 1 };

	scratch();
	EXPECT_FAILS(CREATE("f", MMNF_F32, 2, 1ULL << 62, 8), EOVERFLOW,
		     "mmnf_field_create", "shape");
	EXPECT_FAILS(CREATE("f", MMNF_F32, 3, 1ULL << 32, 1ULL << 32, 4),
		     EOVERFLOW, "mmnf_field_create", "shape");
	EXPECT_FAILS(CREATE("f", MMNF_U8, 1, 1ULL << 63), EOVERFLOW,
		     "mmnf_field_create", "shape");
	EXPECT_FAILS(CREATE("f", MMNF_F64, 1, UINT64_MAX), EOVERFLOW,
		     "mmnf_field_create", "shape");
	EXPECT_FAILS(CREATE("f", MMNF_F32, 2, 5, 0), EINVAL,
		     "mmnf_field_create", "shape[1]");
	EXPECT_FAILS(CREATE("f", MMNF_F32, 0, 1), EINVAL, "mmnf_field_create",
		     "ndim is 0");
	EXPECT_FAILS(CREATE("f", MMNF_F32, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1),
		     EINVAL, "mmnf_field_create", "ndim is 9");
	EXPECT_FAILS(CREATE("f", 0, 1, 1), EINVAL, "mmnf_field_create",
		     "dtype");
	EXPECT_FAILS(CREATE("f", 13, 1, 1), EINVAL, "mmnf_field_create",
		     "dtype");
	EXPECT_FAILS(CREATE(NULL, MMNF_F32, 1, 1), EINVAL, "mmnf_field_create",
		     "path");
	EXPECT_FAILS(CREATE("no/f", MMNF_F32, 1, 1), ENOENT,
		     "mmnf_field_create", "no/f");
	opts.segment_bytes = 3;
	EXPECT_FAILS(mmnf_field_create("f", MMNF_F32, 1, &two, &opts), EINVAL,
		     "mmnf_field_create", "segment_bytes is 3");
	opts.size = 1;
	EXPECT_FAILS(mmnf_field_create("f", MMNF_F32, 1, &two, &opts), EINVAL,
		     "mmnf_field_create", "size is 1");
	longer.known.size = sizeof(longer);
	EXPECT_FAILS(mmnf_field_create("f", MMNF_F32, 1, &two, &longer.known),
		     EOPNOTSUPP, "mmnf_field_create", "mmnf_create_opts");
	EXPECT_EQ(access("f", F_OK), -1);
	longer.later = 0;
	EXPECT_EQ(mmnf_field_create("f", MMNF_F32, 1, &two, &longer.known), 0);
	EXPECT_FAILS(mmnf_field_create("f", MMNF_F32, 1, &two, NULL), EEXIST,
		     "mmnf_field_create", "f");
	EXPECT_EQ(strncmp(mmnf_last_error(), me, sizeof(me) - 1), 0);
}

TEST(what_open_refuses)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field = (struct mmnf_field *)8;

	scratch();
	ASSERT_EQ(CREATE("f", MMNF_F32, 1, 10), 0);
	EXPECT_FAILS(mmnf_field_open(&field, "none", NULL), ENOENT,
		     "mmnf_field_open", "none");
	EXPECT_TRUE(!field);
	ASSERT_EQ(mkdir("empty", 0777), 0);
	EXPECT_FAILS(mmnf_field_open(&field, "empty", NULL), ENOENT,
		     "mmnf_field_open", "zarr.json");
	EXPECT_FAILS(mmnf_field_open(&field, "f/zarr.json", NULL), EINVAL,
		     "mmnf_field_open", "f/zarr.json");
	EXPECT_FAILS(mmnf_field_open(NULL, "f", NULL), EINVAL,
		     "mmnf_field_open", "out");
	opts.engine = 99;
	EXPECT_FAILS(mmnf_field_open(&field, "f", &opts), EOPNOTSUPP,
		     "mmnf_field_open", "engine is 99");
	opts.engine = 0;
	opts.l2_populate = 2;
	EXPECT_FAILS(mmnf_field_open(&field, "f", &opts), EINVAL,
		     "mmnf_field_open", "l2_populate and l2_once: expected");
	opts.l2_populate = 0;
	opts.l2_once = 2;
	EXPECT_FAILS(mmnf_field_open(&field, "f", &opts), EINVAL,
		     "mmnf_field_open", "l2_once: expected 0 or 1");
	opts.l2_once = 0;
	opts.writable = 2;
	EXPECT_FAILS(mmnf_field_open(&field, "f", &opts), EINVAL,
		     "mmnf_field_open", "writable");
	mmnf_field_close(NULL);
}

TEST(engine_without_the_device)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;
	struct mmnf_field_info info;

	if (!access("/dev/mmnf", F_OK))
		SKIP("/dev/mmnf is there");
	scratch();
	ASSERT_EQ(CREATE("f", MMNF_F32, 1, 10), 0);
	opts.engine = MMNF_ENGINE_DEVICE;
	EXPECT_FAILS(mmnf_field_open(&field, "f", &opts), EOPNOTSUPP,
		     "mmnf_field_open", "/dev/mmnf");
	ASSERT_EQ(mmnf_field_open(&field, "f", NULL), 0);
	info = info_of(field);
	EXPECT_EQ(info.engine, MMNF_ENGINE_MMAP);
	EXPECT_TRUE(strstr(info.engine_reason, "/dev/mmnf"));
	mmnf_field_close(field);
}

TEST(names_of_types)
{
	int i;

	for (i = MMNF_I8; i <= MMNF_F64; i++)
		EXPECT_EQ(mmnf_dtype_parse(mmnf_dtype_name((enum mmnf_dtype)i)),
			  i);
	EXPECT_EQ(mmnf_dtype_bytes(MMNF_BF16), 2);
	EXPECT_EQ(mmnf_dtype_bytes((enum mmnf_dtype)13), 0);
	EXPECT_TRUE(!mmnf_dtype_name((enum mmnf_dtype)0));
	EXPECT_FAILS(mmnf_dtype_parse("f33"), EINVAL, "mmnf_dtype_parse",
		     "f33");
	EXPECT_FAILS(mmnf_dtype_parse(NULL), EINVAL, "mmnf_dtype_parse",
		     "dtype");
}

TEST_MAIN
