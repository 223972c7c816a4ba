// SPDX-License-Identifier: MIT
/*
 * mmnf.h in C++11: it comes first, so it must stand alone; then what in it is
 * code, as a C++ program uses it.
 */
#include <mmnf.h>

#include "ktap.h"

static_assert(offsetof(mmnf_box, count) == 64, "layout as in C");
static_assert(offsetof(mmnf_box, step) == 128, "layout as in C");
static_assert(sizeof(mmnf_view) == 24 + 2 * 64 + 8, "layout as in C");

TEST(options)
{
	MMNF_OPTS(mmnf_create_opts, create);
	MMNF_OPTS(mmnf_open_opts, open);
	MMNF_OPTS(mmnf_residency, where);

	EXPECT_EQ(create.size, sizeof(create));
	EXPECT_EQ(create.segment_bytes, 0);
	EXPECT_TRUE(!create.fill);
	EXPECT_EQ(open.size, sizeof(open));
	EXPECT_EQ(open.engine, MMNF_ENGINE_AUTO);
	EXPECT_EQ(open.writable, 0);
	EXPECT_EQ(where.size, sizeof(where));
}

TEST(activate)
{
	static const uint64_t shape[2] = { 100, 200 };
	static const uint64_t at[2] = { 42, 17 };
	char remove[80], path[] = "/tmp/mmnf-XXXXXX", inside[64];
	MMNF_OPTS(mmnf_open_opts, opts);
	mmnf_box box = mmnf_box();
	const double value = 2.5;
	mmnf_field *field;

	ASSERT_TRUE(mkdtemp(path));
	snprintf(inside, sizeof(inside), "%s/f", path);
	ASSERT_EQ(mmnf_field_create(inside, MMNF_F64, 2, shape, nullptr), 0);
	opts.writable = 1;
	ASSERT_EQ(mmnf_field_open(&field, inside, &opts), 0);
	box.start[0] = 42;
	box.start[1] = 17;
	box.count[0] = box.count[1] = 1;
	EXPECT_EQ(mmnf_write(field, &box, &value, 8), 8);
	const double *p = static_cast<const double *>(mmnf_activate(field, at));
	ASSERT_TRUE(p);
	EXPECT_EQ(*p, 2.5);
	EXPECT_EQ(p[1], 0);
	mmnf_field_close(field);
	snprintf(remove, sizeof(remove), "rm -r %s", path);
	EXPECT_EQ(system(remove), 0);
}

TEST_MAIN
