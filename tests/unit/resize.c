// SPDX-License-Identifier: MIT
/*
 * Growth and the manifest: what another handle, a writer that died and a server
 * have to do with it.
 */
#include "field_util.h"
#include "net_util.h"

static const uint64_t shape[2] = { 10, 4 };

static uint64_t rows_of(const char *path)
{
	struct mmnf_field *field = open_field(path, false);
	uint64_t rows = info_of(field).shape[0];

	mmnf_field_close(field);
	return rows;
}

/* What one handle has added another does not cut off. */
TEST(never_less_than_others_have_made_it)
{
	struct mmnf_box last = { { 999, 0 }, { 1, 4 }, { 1, 1 } };
	float row[4] = { 1, 2, 3, 4 }, got[4] = { 0 };
	struct mmnf_field *a, *b;

	scratch();
	a = make_field("f", MMNF_F32, 2, shape, 0, NULL);
	b = open_field("f", true);
	ASSERT_EQ(mmnf_field_resize(b, 1000), 0);
	ASSERT_EQ(mmnf_write(b, &last, row, sizeof(row)), sizeof(row));
	ASSERT_EQ(mmnf_field_sync(b), 0);
	mmnf_field_close(b);
	EXPECT_FAILS(mmnf_field_resize(a, 20), EINVAL, "mmnf_field_resize",
		     "at least the present 1000");
	EXPECT_EQ(info_of(a).shape[0], 10);
	EXPECT_EQ(rows_of("f"), 1000);
	ASSERT_EQ(mmnf_field_resize(a, 1000), 0);
	EXPECT_EQ(mmnf_get(a, &last, got, sizeof(got)), sizeof(got));
	EXPECT_EQ(memcmp(got, row, sizeof(row)), 0);
	mmnf_field_close(a);
	EXPECT_EQ(rows_of("f"), 1000);
}

/* Neither what it was called once nor what is in it matters. */
TEST(what_a_dead_writer_has_left)
{
	struct mmnf_field *field;

	scratch();
	field = make_field("f", MMNF_F32, 2, shape, 0, NULL);
	put_file("f/.zarr.json.new", "{", 1);
	EXPECT_EQ(mmnf_field_resize(field, 20), 0);
	mmnf_field_close(field);
	EXPECT_EQ(rows_of("f"), 20);
}

TEST(who_may_read_the_manifest)
{
	struct mmnf_field *field;
	struct stat st;

	scratch();
	field = make_field("f", MMNF_F32, 2, shape, 0, NULL);
	ASSERT_EQ(chmod("f/zarr.json", 0600), 0);
	ASSERT_EQ(mmnf_field_resize(field, 20), 0);
	ASSERT_EQ(stat("f/zarr.json", &st), 0);
	EXPECT_EQ(st.st_mode & 07777, 0600);
	if (!geteuid()) {
		ASSERT_EQ(chown("f/zarr.json", 1234, 4321), 0);
		ASSERT_EQ(mmnf_field_resize(field, 30), 0);
		ASSERT_EQ(stat("f/zarr.json", &st), 0);
		EXPECT_EQ(st.st_uid, 1234);
		EXPECT_EQ(st.st_gid, 4321);
	}
	mmnf_field_close(field);
}

/* The field on the network must still open afterwards. */
TEST(no_further_than_the_servers)
{
	static const uint64_t remote[2] = { 64, 1024 };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	scratch();
	need_servers();
	server_start(0, "memory 1M");
	make_remote("f", MMNF_F32, 2, remote, 1, 0);
	opts.writable = 1;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	EXPECT_FAILS(mmnf_field_resize(field, 512), ENOSPC, "mmnf_field_resize",
		     "expected at least 2097152");
	EXPECT_EQ(mmnf_field_resize(field, 256), 0);
	mmnf_field_close(field);
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	EXPECT_EQ(info_of(field).shape[0], 256);
	mmnf_field_close(field);
}

TEST_MAIN
