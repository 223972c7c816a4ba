// SPDX-License-Identifier: MIT
/*
 * zarr.json from outside: a good one with one thing changed at a time.
 */
#include "field_util.h"

#include <errno.h>

/* The parts of a good manifest, each of which a case may replace. */
struct parts {
	const char *format, *node, *shape, *type, *grid, *keys, *fill, *codecs,
		*more;
};

#define REGULAR(chunk) \
	"{\"name\":\"regular\",\"configuration\":{\"chunk_shape\":" chunk "}}"
#define BYTES(endian) \
	"{\"name\":\"bytes\",\"configuration\":{\"endian\":" endian "}}"
#define LITTLE BYTES("\"little\"")
#define TRANSPOSE(order) \
	"{\"name\":\"transpose\",\"configuration\":{\"order\":" order "}}"
#define SHARDED(tile, inner, index, where)                               \
	"\"codecs\":[{\"name\":\"sharding_indexed\",\"configuration\":{" \
	"\"chunk_shape\":" tile ",\"codecs\":[" inner                    \
	"],\"index_codecs\":[" index "],\"index_location\":" where "}}]"
#define DEFAULT_KEYS \
	"{\"name\":\"default\",\"configuration\":{\"separator\":\"/\"}}"

static const struct parts good = {
	"\"zarr_format\":3,",
	"\"node_type\":\"array\",",
	"\"shape\":[10,20],",
	"\"data_type\":\"float32\",",
	"\"chunk_grid\":" REGULAR("[5,20]") ",",
	"\"chunk_key_encoding\":" DEFAULT_KEYS ",",
	"\"fill_value\":0,",
	"\"codecs\":[" LITTLE "]",
	"",
};

static void put_manifest(const char *text)
{
	put_file("f/zarr.json", text, strlen(text));
}

static int open_with(struct mmnf_field **field, const struct parts *with)
{
	const char *const *parts = (const char *const *)with;
	const char *const *good_parts = (const char *const *)&good;
	char text[4096] = "{";
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(*parts); i++)
		strcat(text, parts[i] ? parts[i] : good_parts[i]);
	strcat(text, "}");
	put_manifest(text);
	return mmnf_field_open(field, "f", NULL);
}

static const struct {
	struct parts with;
	int err;
	const char *word;
} bad[] = {
	/* Each key missing. */
	{ { .format = "" }, EINVAL, "zarr_format is missing" },
	{ { .node = "" }, EINVAL, "node_type is missing" },
	{ { .shape = "" }, EINVAL, "shape is missing" },
	{ { .type = "" }, EINVAL, "data_type is missing" },
	{ { .grid = "" }, EINVAL, "chunk_grid.name is missing" },
	{ { .keys = "" }, EINVAL, "chunk_key_encoding is missing" },
	{ { .fill = "" }, EINVAL, "fill_value is missing" },
	{ { .codecs = "\"attributes\":{}" }, EINVAL, "codecs is missing" },

	{ { .format = "\"zarr_format\":2," }, EINVAL, "zarr_format is 2" },
	{ { .format = "\"zarr_format\":\"3\"," }, EINVAL, "zarr_format is" },
	{ { .format = "\"zarr_format\":3.0," }, EINVAL, "zarr_format is 3.0" },
	{ { .node = "\"node_type\":\"group\"," }, EINVAL, "node_type is" },
	{ { .node = "\"node_type\":[]," }, EINVAL, "node_type is []" },

	{ { .shape = "\"shape\":[-10,20]," }, EINVAL, "shape[0] is -10" },
	{ { .shape = "\"shape\":[10,0]," }, EINVAL, "shape[1] is 0" },
	{ { .shape = "\"shape\":[10,20.0]," }, EINVAL, "shape[1] is 20.0" },
	{ { .shape = "\"shape\":[10,\"20\"]," }, EINVAL, "shape[1] is" },
	{ { .shape = "\"shape\":[10,null]," }, EINVAL, "shape[1] is null" },
	{ { .shape = "\"shape\":[true,20]," }, EINVAL, "shape[0] is true" },
	{ { .shape = "\"shape\":[]," }, EINVAL, "shape is []" },
	{ { .shape = "\"shape\":200," }, EINVAL, "shape is 200" },
	{ { .shape = "\"shape\":{\"0\":10}," }, EINVAL, "shape is {" },
	{ { .shape = "\"shape\":[9223372036854775808,20]," },
	  EINVAL,
	  "zarr.json: line 1" },
	{ { .shape = "\"shape\":[1e30,20]," }, EINVAL, "shape[0] is 1" },
	{ { .shape = "\"shape\":[9223372036854775807,20]," },
	  EINVAL,
	  "shape: expected at most 2^63 - 1 bytes" },
	{ { .shape = "\"shape\":[4294967296,4294967296]," },
	  EINVAL,
	  "shape: expected at most 2^63 - 1 bytes" },
	{ { .shape = "\"shape\":[1,1,1,1,1,1,1,1,1]," }, EINVAL, "shape is" },

	{ { .type = "\"data_type\":\"complex64\"," },
	  EOPNOTSUPP,
	  "data_type is \"complex64\"" },
	{ { .type = "\"data_type\":\"bool\"," }, EOPNOTSUPP, "data_type is" },
	{ { .type = "\"data_type\":\"\"," }, EOPNOTSUPP, "data_type is" },
	{ { .type = "\"data_type\":7," }, EINVAL, "data_type is 7" },

	{ { .grid = "\"chunk_grid\":7," }, EINVAL, "chunk_grid.name" },
	{ { .grid = "\"chunk_grid\":{\"name\":\"rectangular\"}," },
	  EOPNOTSUPP,
	  "chunk_grid.name is \"rectangular\"" },
	{ { .grid = "\"chunk_grid\":{\"name\":\"regular\"}," },
	  EINVAL,
	  "chunk_shape is missing" },
	{ { .grid = "\"chunk_grid\":" REGULAR("[5]") "," },
	  EINVAL,
	  "chunk_shape is [5]" },
	{ { .grid = "\"chunk_grid\":" REGULAR("[5,20,1]") "," },
	  EINVAL,
	  "chunk_shape is [5,20,1]" },
	{ { .grid = "\"chunk_grid\":" REGULAR("[0,20]") "," },
	  EINVAL,
	  "chunk_shape[0] is 0" },
	{ { .grid = "\"chunk_grid\":" REGULAR("[5,-20]") "," },
	  EINVAL,
	  "chunk_shape[1] is -20" },
	{ { .grid = "\"chunk_grid\":" REGULAR("[5,9223372036854775807]") "," },
	  EINVAL,
	  "chunk_shape" },
	{ { .grid = "\"chunk_grid\":" REGULAR("[2305843009213693951,20]") "," },
	  EINVAL,
	  "chunk_shape" },

	{ { .keys = "\"chunk_key_encoding\":{\"name\":\"v9\"}," },
	  EOPNOTSUPP,
	  "chunk_key_encoding" },
	{ { .keys = "\"chunk_key_encoding\":{}," },
	  EINVAL,
	  "chunk_key_encoding" },
	{ { .keys = "\"chunk_key_encoding\":{\"name\":\"default\","
		    "\"configuration\":{\"separator\":\"../\"}}," },
	  EINVAL,
	  "chunk_key_encoding.separator is \"../\"" },

	{ { .fill = "\"fill_value\":null," }, EINVAL, "fill_value is null" },
	{ { .fill = "\"fill_value\":\"nan\"," }, EINVAL, "fill_value is" },
	{ { .fill = "\"fill_value\":\"0x7fc000\"," }, EINVAL, "fill_value is" },
	{ { .fill = "\"fill_value\":\"0xnonsense\"," },
	  EINVAL,
	  "fill_value is" },
	{ { .fill = "\"fill_value\":1e39," }, EINVAL, "fill_value is 9.9" },
	{ { .type = "\"data_type\":\"uint8\",", .fill = "\"fill_value\":256," },
	  EINVAL,
	  "fill_value is 256" },
	{ { .type = "\"data_type\":\"uint8\",", .fill = "\"fill_value\":-1," },
	  EINVAL,
	  "fill_value is -1" },
	{ { .type = "\"data_type\":\"int8\",", .fill = "\"fill_value\":128," },
	  EINVAL,
	  "fill_value is 128" },
	{ { .type = "\"data_type\":\"int8\",", .fill = "\"fill_value\":-129," },
	  EINVAL,
	  "fill_value is -129" },
	{ { .type = "\"data_type\":\"uint64\",",
	    .fill = "\"fill_value\":18446744073709551616," },
	  EINVAL,
	  "fill_value is \"18446744073709551616\"" },
	{ { .type = "\"data_type\":\"int64\",",
	    .fill = "\"fill_value\":9223372036854775808," },
	  EINVAL,
	  "fill_value is \"9223372036854775808\"" },
	{ { .type = "\"data_type\":\"int64\",", .fill = "\"fill_value\":0.5," },
	  EINVAL,
	  "fill_value is 0.5" },
	{ { .type = "\"data_type\":\"float16\",",
	    .fill = "\"fill_value\":65536," },
	  EINVAL,
	  "fill_value is 65536" },

	{ { .codecs = "\"codecs\":[]" }, EINVAL, "codecs is []" },
	{ { .codecs = "\"codecs\":\"bytes\"" }, EINVAL, "codecs is" },
	{ { .codecs = "\"codecs\":[7]" }, EINVAL, "codecs is [7]" },
	{ { .codecs = "\"codecs\":[" BYTES("\"big\"") "]" },
	  EOPNOTSUPP,
	  "endian is \"big\"" },
	{ { .codecs = "\"codecs\":[" BYTES("\"middle\"") "]" },
	  EINVAL,
	  "endian is \"middle\"" },
	{ { .codecs = "\"codecs\":[\"bytes\"]" }, EINVAL, "endian is missing" },
	{ { .codecs = "\"codecs\":[" LITTLE ",{\"name\":\"gzip\"}]" },
	  EOPNOTSUPP,
	  "codecs is" },
	{ { .codecs = "\"codecs\":[{\"name\":\"transpose\"}," LITTLE "]" },
	  EINVAL,
	  "transpose.order is missing" },
	{ { .codecs = "\"codecs\":[" TRANSPOSE("[0]") "," LITTLE "]" },
	  EINVAL,
	  "transpose.order is [0]" },
	{ { .codecs = "\"codecs\":[" TRANSPOSE("[1,1]") "," LITTLE "]" },
	  EINVAL,
	  "transpose.order is [1,1]" },
	{ { .codecs = "\"codecs\":[" TRANSPOSE("[2,0]") "," LITTLE "]" },
	  EINVAL,
	  "transpose.order is [2,0]" },
	{ { .codecs = "\"codecs\":[" TRANSPOSE("[1,0]") "]" },
	  EOPNOTSUPP,
	  "codecs is" },
	{ { .codecs = "\"codecs\":[{\"name\":\"sharding_indexed\"}]" },
	  EINVAL,
	  "sharding_indexed.chunk_shape is missing" },
	{ { .codecs = SHARDED("[5]", LITTLE, LITTLE, "\"end\"") },
	  EINVAL,
	  "sharding_indexed.chunk_shape is [5]" },
	{ { .codecs = SHARDED("[3,20]", LITTLE, LITTLE, "\"end\"") },
	  EINVAL,
	  "tile shape[0] is 3" },
	{ { .codecs = SHARDED("[5,0]", LITTLE, LITTLE, "\"end\"") },
	  EINVAL,
	  "chunk_shape[1] is 0" },
	{ { .codecs = SHARDED("[5,20]", "{\"name\":\"zstd\"}", LITTLE,
			      "\"end\"") },
	  EOPNOTSUPP,
	  "sharding_indexed.codecs is" },
	{ { .codecs = SHARDED("[5,20]", LITTLE, BYTES("\"big\""), "\"end\"") },
	  EOPNOTSUPP,
	  "index_codecs[0]" },
	{ { .codecs = SHARDED("[5,20]", LITTLE, "{\"name\":\"gzip\"}",
			      "\"end\"") },
	  EOPNOTSUPP,
	  "index_codecs is" },
	{ { .codecs = SHARDED("[5,20]", LITTLE, LITTLE, "\"middle\"") },
	  EINVAL,
	  "index_location is" },

	{ { .more = ",\"shape\":[10,20]" }, EINVAL, "shape" },
	{ { .more = ",\"colour\":{\"name\":\"blue\"}" },
	  EOPNOTSUPP,
	  "key \"colour\"" },
	{ { .more = ",\"attributes\":7" }, EINVAL, "attributes is 7" },
	{ { .more = ",\"storage_transformers\":[7]" },
	  EOPNOTSUPP,
	  "storage_transformers is [7]" },
};

TEST(each_key_wrong_in_turn)
{
	size_t i;

	scratch();
	ASSERT_EQ(mkdir("f", 0777), 0);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct mmnf_field *field;

		EXPECT_FAILS(open_with(&field, &bad[i].with), bad[i].err,
			     "mmnf_field_open", bad[i].word);
		EXPECT_TRUE(!field);
	}
}

TEST(text_that_is_no_manifest)
{
	static const char *const texts[] = {
		"",
		" ",
		"[]",
		"7",
		"null",
		"\"zarr\"",
		"{",
		"{}x",
		"{\"zarr_format\":}",
		"{\"zarr_format\":3,}",
		"{\"a\":\"\xff\xfe\"}",
		"{\"a\":\"\\u0000\"}",
		"{\"a\":1e999}",
	};
	struct mmnf_field *field;
	char deep[20000];
	size_t i;

	scratch();
	ASSERT_EQ(mkdir("f", 0777), 0);
	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		put_manifest(texts[i]);
		EXPECT_FAILS(mmnf_field_open(&field, "f", NULL), EINVAL,
			     "mmnf_field_open", "zarr.json: ");
	}
	memset(deep, '[', sizeof(deep));
	put_file("f/zarr.json", deep, sizeof(deep));
	EXPECT_FAILS(mmnf_field_open(&field, "f", NULL), EINVAL,
		     "mmnf_field_open", "zarr.json: ");
	put_file("f/zarr.json", "{\0}", 3);
	EXPECT_FAILS(mmnf_field_open(&field, "f", NULL), EINVAL,
		     "mmnf_field_open", "zarr.json: ");
}

TEST(each_cut_of_a_good_one)
{
	const char *const *part = (const char *const *)&good;
	struct mmnf_field *field;
	char text[1024] = "{", cut[1024];
	size_t i, len;

	scratch();
	ASSERT_EQ(mkdir("f", 0777), 0);
	for (i = 0; i < sizeof(good) / sizeof(*part); i++)
		strcat(text, part[i]);
	strcat(text, "}");
	put_manifest(text);
	ASSERT_EQ(mmnf_field_open(&field, "f", NULL), 0);
	mmnf_field_close(field);
	for (len = strlen(text) - 1; len; len--) {
		memcpy(cut, text, len);
		cut[len] = 0;
		put_manifest(cut);
		ASSERT_EQ(mmnf_field_open(&field, "f", NULL), -EINVAL);
	}
}

TEST(manifest_of_another_kind_or_size)
{
	struct mmnf_field *field;

	scratch();
	ASSERT_EQ(mkdir("f", 0777), 0);
	put_manifest("{");
	ASSERT_EQ(truncate("f/zarr.json", 100 << 20), 0);
	EXPECT_FAILS(mmnf_field_open(&field, "f", NULL), EINVAL,
		     "mmnf_field_open",
		     "zarr.json: expected a file of at most");
	ASSERT_EQ(unlink("f/zarr.json"), 0);
	ASSERT_EQ(mkfifo("f/zarr.json", 0666), 0);
	EXPECT_FAILS(mmnf_field_open(&field, "f", NULL), EINVAL,
		     "mmnf_field_open", "zarr.json: expected a file");
	ASSERT_EQ(unlink("f/zarr.json"), 0);
	ASSERT_EQ(mkdir("f/zarr.json", 0777), 0);
	EXPECT_FAILS(mmnf_field_open(&field, "f", NULL), EINVAL,
		     "mmnf_field_open", "zarr.json: expected a file");
	ASSERT_EQ(rmdir("f/zarr.json"), 0);
	ASSERT_EQ(symlink("zarr.json", "f/zarr.json"), 0);
	EXPECT_FAILS(mmnf_field_open(&field, "f", NULL), ELOOP,
		     "mmnf_field_open", "zarr.json");
}

static const struct {
	struct parts with;
	const char *file; /* of element (7, 3), which is at byte 4 * 43 */
	uint64_t nr_segments;
} fine[] = {
	{ { 0 }, "f/c/1/0", 2 },
	{ { .keys = "\"chunk_key_encoding\":{\"name\":\"default\"}," },
	  "f/c/1/0",
	  2 },
	{ { .keys = "\"chunk_key_encoding\":{\"name\":\"default\","
		    "\"configuration\":{\"separator\":\".\"}}," },
	  "f/c.1.0",
	  2 },
	{ { .keys = "\"chunk_key_encoding\":{\"name\":\"v2\"}," }, "f/1.0", 2 },
	{ { .keys = "\"chunk_key_encoding\":{\"name\":\"v2\","
		    "\"configuration\":{\"separator\":\"/\"}}," },
	  "f/1/0",
	  2 },
	{ { .more = ",\"attributes\":{\"zarr_format\":9},"
		    "\"dimension_names\":[\"y\",null],"
		    "\"storage_transformers\":[]" },
	  "f/c/1/0",
	  2 },
	{ { .more = ",\"hint\":{\"must_understand\":false}" }, "f/c/1/0", 2 },
	{ { .fill = "\"fill_value\":\"0x00000000\"," }, "f/c/1/0", 2 },
	/* Rows of 20 where the last segment is not full. */
	{ { .shape = "\"shape\":[8,20]," }, "f/c/1/0", 2 },
	{ { .shape = "\"shape\":[50,20]," }, "f/c/1/0", 10 },
};

TEST(good_ones)
{
	static const uint64_t at[2] = { 7, 3 };
	size_t i;

	scratch();
	for (i = 0; i < sizeof(fine) / sizeof(fine[0]); i++) {
		struct mmnf_box box = { { 7, 3 }, { 1, 1 }, { 0 } };
		static float segment[100];
		struct mmnf_field *field;
		const float *p;
		float v = 0;

		ASSERT_EQ(mkdir("f", 0777), 0);
		mkdir("f/c", 0777);
		mkdir("f/c/1", 0777);
		mkdir("f/1", strstr(fine[i].file, "f/1/") ? 0777 : 0);
		segment[43] = (float)i + 0.25f;
		put_file(fine[i].file, segment, sizeof(segment));
		EXPECT_EQ(open_with(&field, &fine[i].with), 0);
		ASSERT_TRUE(field);
		EXPECT_EQ(info_of(field).nr_segments, fine[i].nr_segments);
		EXPECT_EQ(mmnf_get(field, &box, &v, 4), 4);
		EXPECT_EQ(v, segment[43]);
		p = mmnf_activate(field, at);
		ASSERT_TRUE(p);
		EXPECT_EQ(*p, segment[43]);
		mmnf_field_close(field);
		ASSERT_EQ(nftw("f", scratch_remove_one, 16,
			       FTW_DEPTH | FTW_PHYS),
			  0);
	}
}

static const struct {
	const char *type, *fill;
	unsigned char bytes[8];
} fills[] = {
	{ "int8", "-128", { 0x80 } },
	{ "uint8", "255", { 0xff } },
	{ "int16", "-2", { 0xfe, 0xff } },
	{ "uint16", "65535", { 0xff, 0xff } },
	{ "int32", "-2147483648", { 0, 0, 0, 0x80 } },
	{ "uint32", "4294967295", { 0xff, 0xff, 0xff, 0xff } },
	{ "int64", "-9223372036854775808", { 0, 0, 0, 0, 0, 0, 0, 0x80 } },
	{ "uint64", "256", { 0, 1 } },
	{ "uint64", "9223372036854775808", { 0, 0, 0, 0, 0, 0, 0, 0x80 } },
	{ "uint64",
	  "18446744073709551615",
	  { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff } },
	{ "float16", "1.5", { 0, 0x3e } },
	{ "float16", "\"NaN\"", { 0, 0x7e } },
	{ "float16", "65504", { 0xff, 0x7b } },
	{ "bfloat16", "-2.0", { 0, 0xc0 } },
	{ "float32", "\"-Infinity\"", { 0, 0, 0x80, 0xff } },
	{ "float32", "\"0x7fc01234\"", { 0x34, 0x12, 0xc0, 0x7f } },
	{ "float32", "1", { 0, 0, 0x80, 0x3f } },
	{ "float64", "\"NaN\"", { 0, 0, 0, 0, 0, 0, 0xf8, 0x7f } },
	{ "float64", "-0.0", { 0, 0, 0, 0, 0, 0, 0, 0x80 } },
};

TEST(fills_of_each_type)
{
	struct mmnf_box box = { { 9, 19 }, { 1, 1 }, { 0 } };
	size_t i;

	scratch();
	ASSERT_EQ(mkdir("f", 0777), 0);
	for (i = 0; i < sizeof(fills) / sizeof(fills[0]); i++) {
		char type[64], fill[64];
		struct parts with = { .type = type, .fill = fill };
		unsigned char v[8] = { 0 };
		struct mmnf_field *field;

		snprintf(type, sizeof(type), "\"data_type\":\"%s\",",
			 fills[i].type);
		snprintf(fill, sizeof(fill), "\"fill_value\":%s,",
			 fills[i].fill);
		EXPECT_EQ(open_with(&field, &with), 0);
		ASSERT_TRUE(field);
		EXPECT_EQ(memcmp(info_of(field).fill, fills[i].bytes, 8), 0);
		EXPECT_GT(mmnf_get(field, &box, v, 8), 0);
		EXPECT_EQ(memcmp(v, fills[i].bytes, 8), 0);
		mmnf_field_close(field);
	}
}

/* Above what jansson's integers hold; made, grown and read by others as a number. */
TEST(fill_above_2_to_63)
{
	uint64_t shape[1] = { 3 }, fill = UINT64_MAX - 1, got[5] = { 0 };
	struct mmnf_box box = { { 0 }, { 5 }, { 1 } };
	struct mmnf_field *field;
	char text[4096] = "";
	int fd;

	scratch();
	field = make_field("f", MMNF_U64, 1, shape, 0, &fill);
	ASSERT_EQ(mmnf_field_resize(field, 5), 0);
	mmnf_field_close(field);
	fd = open("f/zarr.json", O_RDONLY);
	ASSERT_GT(read(fd, text, sizeof(text) - 1), 0);
	close(fd);
	EXPECT_TRUE(strstr(text, "\"fill_value\": 18446744073709551614,"));
	field = open_field("f", false);
	EXPECT_EQ(memcmp(info_of(field).fill, &fill, 8), 0);
	EXPECT_EQ(mmnf_get(field, &box, got, sizeof(got)), sizeof(got));
	EXPECT_EQ(got[0], fill);
	EXPECT_EQ(got[4], fill);
	mmnf_field_close(field);
}

TEST_MAIN
