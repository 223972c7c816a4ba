// SPDX-License-Identifier: MIT
/*
 * .npy and .nii files, made here byte by byte: good ones land where they
 * should, bad ones are refused with the reason.
 */
#include "field_util.h"

#include <errno.h>
#include <math.h>

#define MAX 4096

/* An array file in the making. */
static unsigned char file[MAX];
static size_t file_len;

static void put(const void *data, size_t len)
{
	ASSERT_LE(file_len + len, MAX);
	memcpy(file + file_len, data, len);
	file_len += len;
}

/* A header of the given version, padded as numpy pads it. */
static void npy_head(unsigned char version, const char *dict)
{
	const size_t start = version == 1 ? 10 : 12;
	size_t len = strlen(dict) + 1, total = (start + len + 63) / 64 * 64;
	uint32_t said = (uint32_t)(total - start);

	memset(file, ' ', MAX);
	memcpy(file, "\x93NUMPY", 6);
	file[6] = version;
	file[7] = 0;
	memcpy(file + 8, &said, start - 8); /* little-endian, as the library */
	memcpy(file + start, dict, len - 1);
	file[total - 1] = '\n';
	file_len = total;
}

static const char *save(const char *name)
{
	put_file(name, file, file_len);
	return name;
}

/* Element (z, y, x) of [2][3][4]. */
static float value(uint64_t z, uint64_t y, uint64_t x)
{
	return (float)(z * 100 + y * 10 + x) + 0.5f;
}

static void put_values(bool fortran)
{
	uint64_t i;

	for (i = 0; i < 24; i++) {
		float v = fortran ? value(i % 2, i / 2 % 3, i / 6) :
				    value(i / 12, i / 4 % 3, i % 4);

		put(&v, sizeof(v));
	}
}

static const uint64_t shape[4] = { 5, 9, 9, 9 };

static struct mmnf_field *floats(void)
{
	return make_field("f", MMNF_F32, 3, shape + 1, 9 * 9 * 4 * 2, NULL);
}

/* The array at (at), fill all around it. */
static void check_placed(struct mmnf_field *field, const uint64_t *at)
{
	struct mmnf_box all = { { 0 }, { 9, 9, 9 }, { 0 } };
	static float got[9][9][9];
	uint64_t z, y, x, wrong = 0;

	ASSERT_EQ(mmnf_get(field, &all, got, sizeof(got)), sizeof(got));
	for (z = 0; z < 9; z++)
		for (y = 0; y < 9; y++)
			for (x = 0; x < 9; x++) {
				bool in = z - at[0] < 2 && y - at[1] < 3 &&
					  x - at[2] < 4;
				float v = in ? value(z - at[0], y - at[1],
						     x - at[2]) :
					       0;

				wrong += got[z][y][x] != v;
			}
	EXPECT_EQ(wrong, 0);
}

#define DICT(descr, order, shape) \
	"{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape ", }"

static const char *const good_dicts[] = {
	DICT("'<f4'", "False", "(2, 3, 4)"),
	DICT("\"<f4\"", "False", "(2L,3L,4L,)"),
	"{'shape':(2,3,4),'fortran_order':False,'descr':'=f4'}",
	DICT("'<f4'", "True", "(2, 3, 4)"),
};

static uint64_t last_done, last_total, nr_progress;

static void progress(void *arg, uint64_t done, uint64_t total)
{
	EXPECT_EQ(*(int *)arg, 42);
	EXPECT_GT(done, last_done);
	last_done = done;
	last_total = total;
	nr_progress++;
}

TEST(npy_of_each_version_and_order)
{
	static const uint64_t at[3] = { 3, 6, 5 }, origin[3];
	unsigned char version;
	int arg = 42;
	size_t i;

	for (version = 1; version <= 3; version++) {
		for (i = 0; i < 4; i++) {
			struct mmnf_field *field;

			scratch();
			field = floats();
			npy_head(version, good_dicts[i]);
			put_values(i == 3);
			last_done = nr_progress = 0;
			ASSERT_EQ(mmnf_import(field, save("a"), at, progress,
					      &arg),
				  96);
			EXPECT_GT(nr_progress, 0);
			EXPECT_EQ(last_done, 96);
			EXPECT_EQ(last_total, 96);
			check_placed(field, at);
			mmnf_field_close(field);
			scratch_remove();
		}
	}
	/* No place is the origin; bytes behind the data are not read. */
	scratch();
	npy_head(1, good_dicts[0]);
	put_values(false);
	put("tail", 4);
	{
		struct mmnf_field *field = floats();

		ASSERT_EQ(mmnf_import(field, save("a"), NULL, NULL, NULL), 96);
		check_placed(field, origin);
		mmnf_field_close(field);
	}
}

/* More than one block, of a source that is not in the field's order. */
TEST(big_npy_in_fortran_order)
{
	static const uint64_t big[3] = { 2100, 70, 90 };
	const uint64_t bytes = 2100 * 70 * 90;
	struct mmnf_box all = { { 0 }, { 2100, 70, 90 }, { 0 } };
	unsigned char *data = malloc(bytes);
	uint64_t i, wrong = 0;
	struct mmnf_field *field;
	int fd;

	scratch();
	ASSERT_TRUE(data);
	npy_head(1, DICT("'|u1'", "True", "(2100, 70, 90)"));
	fd = open(save("a"), O_WRONLY | O_APPEND);
	for (i = 0; i < bytes; i++)
		data[i] = (unsigned char)(i % 2100 * 7 + i / 2100 % 70 * 31 +
					  i / 147000 * 101);
	ASSERT_EQ(write(fd, data, bytes), bytes);
	close(fd);
	field = make_field("f", MMNF_U8, 3, big, 1000000, NULL);
	ASSERT_EQ(mmnf_import(field, "a", NULL, NULL, NULL), bytes);
	ASSERT_EQ(mmnf_get(field, &all, data, bytes), bytes);
	for (i = 0; i < bytes; i++)
		wrong += data[i] !=
			 (unsigned char)(i / 6300 * 7 + i / 90 % 70 * 31 +
					 i % 90 * 101);
	EXPECT_EQ(wrong, 0);
	mmnf_field_close(field);
	free(data);
}

TEST(what_a_npy_holds)
{
	static const struct {
		const char *dict;
		uint32_t dtype, bytes;
	} types[] = {
		{ DICT("'|u1'", "False", "(7,)"), MMNF_U8, 7 },
		{ DICT("'|i1'", "False", "(7,)"), MMNF_I8, 7 },
		{ DICT("'<i2'", "False", "(7,)"), MMNF_I16, 14 },
		{ DICT("'<u2'", "False", "(7,)"), MMNF_U16, 14 },
		{ DICT("'<i4'", "False", "(7,)"), MMNF_I32, 28 },
		{ DICT("'<u4'", "False", "(7,)"), MMNF_U32, 28 },
		{ DICT("'<i8'", "False", "(7,)"), MMNF_I64, 56 },
		{ DICT("'<u8'", "False", "(7,)"), MMNF_U64, 56 },
		{ DICT("'<f2'", "False", "(7,)"), MMNF_F16, 14 },
		{ DICT("'<f4'", "False", "(7,)"), MMNF_F32, 28 },
		{ DICT("'<f8'", "False", "(7,)"), MMNF_F64, 56 },
	};
	MMNF_OPTS(mmnf_array_info, info);
	static char zero[64];
	size_t i;

	scratch();
	for (i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		npy_head(1, types[i].dict);
		put(zero, types[i].bytes);
		ASSERT_EQ(mmnf_array_info(save("a"), &info), 0);
		EXPECT_EQ(info.dtype, types[i].dtype);
		EXPECT_EQ(info.ndim, 1);
		EXPECT_EQ(info.shape[0], 7);
		EXPECT_EQ(info.stride_bytes[0], types[i].bytes / 7);
		EXPECT_EQ(info.data_offset_bytes, 128);
		EXPECT_STREQ(info.format, "npy");
		/* One byte short of the data. */
		file_len--;
		EXPECT_FAILS(mmnf_array_info(save("a"), &info), EINVAL,
			     "mmnf_array_info", "of data");
	}
}

static const struct {
	const char *dict;
	int err;
	const char *word;
} bad_dicts[] = {
	{ DICT("'>f4'", "False", "(2,)"), EOPNOTSUPP, "little-endian" },
	{ DICT("[('a', '<f4')]", "False", "(2,)"), EOPNOTSUPP, "structure" },
	{ DICT("'|O'", "False", "(2,)"), EOPNOTSUPP, "descr is '|O'" },
	{ DICT("'<c8'", "False", "(2,)"), EOPNOTSUPP, "descr is '<c8'" },
	{ DICT("'|b1'", "False", "(2,)"), EOPNOTSUPP, "descr is '|b1'" },
	{ DICT("''", "False", "(2,)"), EOPNOTSUPP, "descr is ''" },
	{ DICT("'<f4'", "Maybe", "(2,)"), EINVAL, "fortran_order" },
	{ DICT("'<f4'", "False", "(-2,)"), EINVAL, "shape[0]" },
	{ DICT("'<f4'", "False", "(0,)"), EINVAL, "shape[0] is 0" },
	{ DICT("'<f4'", "False", "()"), EINVAL, "shape is ()" },
	{ DICT("'<f4'", "False", "[2]"), EINVAL, "shape" },
	{ DICT("'<f4'", "False", "(2 3)"), EINVAL, "shape" },
	{ DICT("'<f4'", "False", "(2"), EINVAL, "shape" },
	{ DICT("'<f4'", "False", "(99999999999999999999,)"), EINVAL, "shape" },
	{ DICT("'<f4'", "False", "(4611686018427387904,)"), EINVAL, "2^63" },
	{ DICT("'<f4'", "True", "(4294967296,4294967296)"), EINVAL, "2^63" },
	{ DICT("'<f4'", "False", "(1000,)"), EINVAL, "4000 of data" },
	{ DICT("'<f4'", "False", "(1,1,1,1,1,1,1,1,1)"), EOPNOTSUPP, "8 axes" },
	{ "{'descr': '<f4', 'shape': (2,)}", EINVAL, "fortran_order" },
	{ "{'descr': '<f4', 'descr': '<f4'}", EINVAL, "'descr'" },
	{ "{'descr': '<f4', 'more': 1}", EINVAL, "'more'" },
	{ "{'descr'", EINVAL, "header" },
	{ "{'descr': '<f4", EOPNOTSUPP, "descr" },
	{ "{'a\\", EINVAL, "header" },
	{ "{", EINVAL, "header" },
	{ "", EINVAL, "expected a dict" },
	{ "[]", EINVAL, "expected a dict" },
	{ DICT("'<f4'", "False", "(2,)") "x", EINVAL, "behind the dict" },
};

TEST(npy_that_is_wrong)
{
	MMNF_OPTS(mmnf_array_info, info);
	static char data[64];
	size_t i;

	scratch();
	for (i = 0; i < sizeof(bad_dicts) / sizeof(bad_dicts[0]); i++) {
		npy_head(1, bad_dicts[i].dict);
		put(data, sizeof(data));
		EXPECT_FAILS(mmnf_array_info(save("a"), &info),
			     bad_dicts[i].err, "mmnf_array_info",
			     bad_dicts[i].word);
	}
	npy_head(4, good_dicts[0]);
	EXPECT_FAILS(mmnf_array_info(save("a"), &info), EOPNOTSUPP,
		     "mmnf_array_info", "version is 4");
	npy_head(2, good_dicts[0]);
	memset(file + 8, 0xff, 4);
	EXPECT_FAILS(mmnf_array_info(save("a"), &info), EINVAL,
		     "mmnf_array_info", "header length is 4294967295");
	npy_head(1, good_dicts[0]);
	file[8]--; /* the data would start in the header */
	put_values(false);
	EXPECT_EQ(mmnf_array_info(save("a"), &info), 0);
	EXPECT_EQ(info.data_offset_bytes, 127);
	file[8] = 20; /* the dict would end in its middle */
	EXPECT_FAILS(mmnf_array_info(save("a"), &info), EINVAL,
		     "mmnf_array_info", "npy: header");
}

TEST(each_cut_of_a_npy)
{
	MMNF_OPTS(mmnf_array_info, info);
	int version;

	scratch();
	for (version = 1; version <= 3; version++) {
		npy_head((unsigned char)version, good_dicts[0]);
		put_values(false);
		ASSERT_EQ(mmnf_array_info(save("a"), &info), 0);
		while (file_len--)
			ASSERT_EQ(mmnf_array_info(save("a"), &info), -EINVAL);
	}
}

/* ---- NIfTI */

static void put_at(size_t offset, const void *data, size_t len)
{
	memcpy(file + offset, data, len);
}

/* A header for [x, y, z] = 4, 3, 2, of a type and its bits. */
static void nii_head(int16_t type, int16_t bits)
{
	static const int16_t dim[8] = { 3, 4, 3, 2, 1, 1, 1, 1 };
	const int32_t size = 348;
	const float vox_offset = 352;

	memset(file, 0, 352);
	put_at(0, &size, 4);
	put_at(40, dim, sizeof(dim));
	put_at(70, &type, 2);
	put_at(72, &bits, 2);
	put_at(108, &vox_offset, 4);
	put_at(344, "n+1", 4);
	file_len = 352;
}

TEST(nii_of_floats)
{
	static const uint64_t at[3] = { 1, 2, 3 };
	MMNF_OPTS(mmnf_array_info, info);
	struct mmnf_field *field;

	scratch();
	field = floats();
	nii_head(16, 32);
	put_values(false); /* x is the fastest: the last axis */
	ASSERT_EQ(mmnf_array_info(save("a"), &info), 0);
	EXPECT_EQ(info.dtype, MMNF_F32);
	EXPECT_EQ(info.ndim, 3);
	EXPECT_EQ(info.shape[0], 2);
	EXPECT_EQ(info.shape[2], 4);
	EXPECT_EQ(info.stride_bytes[0], 48);
	EXPECT_EQ(info.data_offset_bytes, 352);
	EXPECT_STREQ(info.format, "nifti");
	ASSERT_EQ(mmnf_import(field, "a", at, NULL, NULL), 96);
	check_placed(field, at);
	mmnf_field_close(field);
}

TEST(nii_of_shorts_in_a_deeper_field)
{
	static const uint64_t at[4] = { 4, 7, 6, 5 };
	struct mmnf_box box = { { 4, 7, 6, 5 }, { 1, 2, 3, 4 }, { 0 } };
	struct mmnf_field *field;
	int16_t v[24];
	int i;

	scratch();
	field = make_field("f", MMNF_I16, 4, shape, 0, NULL);
	nii_head(4, 16);
	for (i = 0; i < 24; i++) {
		v[i] = (int16_t)(i * 1000 - 12000);
		put(&v[i], 2);
	}
	ASSERT_EQ(mmnf_import(field, save("a"), at, NULL, NULL), 48);
	memset(v, 0, sizeof(v));
	ASSERT_EQ(mmnf_get(field, &box, v, sizeof(v)), 48);
	for (i = 0; i < 24; i++)
		EXPECT_EQ(v[i], i * 1000 - 12000);
	mmnf_field_close(field);
}

#define CASE(offset, type, value, err, word)     \
	{                                        \
		offset, sizeof(type), err, word, \
		{                                \
			.as_##type = value       \
		}                                \
	}

static const struct {
	size_t offset, len;
	int err;
	const char *word;
	union {
		float as_float;
		int16_t as_int16_t;
		int32_t as_int32_t;
	} value;
} bad_nii[] = {
	CASE(108, float, NAN, EINVAL, "vox_offset is nan"),
	CASE(108, float, INFINITY, EINVAL, "vox_offset is inf"),
	CASE(108, float, 1e30f, EINVAL, "vox_offset is 1e+30"),
	CASE(108, float, 1e15f, EINVAL, "of data"),
	CASE(108, float, -352.0f, EINVAL, "vox_offset is -352"),
	CASE(108, float, 0.0f, EINVAL, "vox_offset is 0"),
	CASE(108, float, 352.5f, EINVAL, "vox_offset is 352.5"),
	CASE(108, float, 353.0f, EINVAL, "of data"),
	CASE(40, int16_t, 0, EINVAL, "dim[0] is 0"),
	CASE(40, int16_t, 8, EINVAL, "dim[0] is 8"),
	CASE(40, int16_t, 9, EINVAL, "dim[0] is 9"),
	CASE(40, int16_t, -3, EINVAL, "dim[0] is -3"),
	CASE(42, int16_t, 0, EINVAL, "dim[1] is 0"),
	CASE(44, int16_t, -3, EINVAL, "dim[2] is -3"),
	CASE(46, int16_t, 32767, EINVAL, "of data"),
	CASE(70, int16_t, 1, EOPNOTSUPP, "datatype is 1"),
	CASE(70, int16_t, 32, EOPNOTSUPP, "datatype is 32"),
	CASE(70, int16_t, -1, EOPNOTSUPP, "datatype is -1"),
	CASE(72, int16_t, 16, EINVAL, "bitpix is 16"),
	CASE(344, int32_t, 0x0031696e, EOPNOTSUPP, ".hdr"),
	CASE(344, int32_t, 0, EINVAL, "magic"),
	CASE(0, int32_t, 0x5c010000, EOPNOTSUPP, "big-endian"),
	CASE(0, int32_t, 540, EINVAL, "expected .npy or"),
	CASE(0, int32_t, 0x00088b1f, EOPNOTSUPP, "gzip"),
};

TEST(nii_that_is_wrong)
{
	MMNF_OPTS(mmnf_array_info, info);
	size_t i;

	scratch();
	for (i = 0; i < sizeof(bad_nii) / sizeof(bad_nii[0]); i++) {
		nii_head(16, 32);
		put_values(false);
		put_at(bad_nii[i].offset, &bad_nii[i].value, bad_nii[i].len);
		EXPECT_FAILS(mmnf_array_info(save("a"), &info), bad_nii[i].err,
			     "mmnf_array_info", bad_nii[i].word);
	}
	nii_head(16, 32);
	put_values(false);
	while (file_len--)
		ASSERT_EQ(mmnf_array_info(save("a"), &info), -EINVAL);
}

/* ---- both */

TEST(imports_that_are_refused)
{
	static const uint64_t edge[3] = { 8, 0, 0 }, far[3] = { UINT64_MAX };
	static const uint64_t fits[3] = { 7, 6, 5 };
	static const uint64_t flat[2] = { 9, 9 };
	struct mmnf_field *field, *other;

	scratch();
	field = floats();
	npy_head(1, good_dicts[0]);
	put_values(false);
	save("a");
	EXPECT_FAILS(mmnf_import(field, "a", edge, NULL, NULL), ERANGE,
		     "mmnf_import", "axis 0: 2 elements at 8");
	EXPECT_FAILS(mmnf_import(field, "a", far, NULL, NULL), ERANGE,
		     "mmnf_import", "axis 0");
	EXPECT_FAILS(mmnf_import(field, "none", NULL, NULL, NULL), ENOENT,
		     "mmnf_import", "none");
	EXPECT_FAILS(mmnf_import(field, ".", NULL, NULL, NULL), ENOENT,
		     "mmnf_import", "zarr.json");
	EXPECT_FAILS(mmnf_import(field, "/dev/null", NULL, NULL, NULL), EINVAL,
		     "mmnf_import", "expected a regular file");
	EXPECT_EQ(access("f/c", F_OK), -1);
	EXPECT_EQ(mmnf_import(field, "a", fits, NULL, NULL), 96);
	mmnf_field_close(field);

	other = make_field("g", MMNF_F64, 3, shape + 1, 0, NULL);
	EXPECT_FAILS(mmnf_import(other, "a", NULL, NULL, NULL), EINVAL,
		     "mmnf_import", "source is f32: expected f64");
	mmnf_field_close(other);
	other = make_field("h", MMNF_F32, 2, flat, 0, NULL);
	EXPECT_FAILS(mmnf_import(other, "a", NULL, NULL, NULL), ERANGE,
		     "mmnf_import", "source has 3 axes: expected at most 2");
	mmnf_field_close(other);
	other = open_field("f", false);
	EXPECT_FAILS(mmnf_import(other, "a", NULL, NULL, NULL), EBADF,
		     "mmnf_import", "read-only");
	mmnf_field_close(other);
}

TEST_MAIN
