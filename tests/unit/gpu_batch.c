// SPDX-License-Identifier: MIT
/*
 * Batches by way of the GPU tier: every element compared with its closed form,
 * for caches of every size, under 200 schedules of an adversarial fake driver
 * (MMNF_GPU_SEEDS for more), or on a real device with MMNF_TEST_GPU=1.
 */
#include "gpu_flow.h"

TEST(random_batches_on_two_streams_give_every_element)
{
	flow_field();
	for_seeds(random_batches);
	mmnf_field_close(field);
}

TEST(boxes_are_those_of_mmnf_get)
{
	flow_field();
	for_seeds(boxes_and_the_host);
	mmnf_field_close(field);
}

static const char *name;
static uint32_t engine;

/*
 * Records of u32 [100, 60], whatever the layout and the engine.  Opened here: the
 * direct engine's cache is not for a forked child.
 */
static void same_bytes(void)
{
	struct mmnf_open_opts open = { .size = sizeof(open), .engine = engine };
	struct mmnf_gpu_opts o = any_opts();
	uint64_t index[80], i;
	struct mmnf_selection sel = by_index(index, 80);
	uint32_t *got = malloc(80 * 240);
	struct mmnf_box box = { { 3, 7 }, { 40, 11 }, { 2, 3 } };
	struct mmnf_selection boxed = by_box(&box);
	uint32_t want[40 * 11];

	open_device(0);
	ASSERT_EQ(mmnf_field_open(&field, name, &open), 0);
	ASSERT_EQ(mmnf_gpu_enable(field, &o), 0);
	for (i = 0; i < 80; i++)
		index[i] = rnd() % 100;
	ASSERT_EQ(mmnf_batch_get_host(field, &sel, got, 80 * 240), 80 * 240);
	EXPECT_TRUE(are_records(got, index, 80, 60));
	ASSERT_EQ(mmnf_get(field, &box, want, sizeof(want)),
		  (ssize_t)sizeof(want));
	ASSERT_EQ(mmnf_batch_get_host(field, &boxed, got, 80 * 240),
		  (ssize_t)sizeof(want));
	EXPECT_EQ(memcmp(got, want, sizeof(want)), 0);
	EXPECT_EQ(want[0], value_at(3 * 60 + 7));
	mmnf_field_close(field);
	close_device();
	free(got);
}

static void fill_100_by_60(struct mmnf_field *f)
{
	struct mmnf_box all = { { 0, 0 }, { 100, 60 }, { 1, 1 } };
	uint32_t data[6000], i;

	for (i = 0; i < 6000; i++)
		data[i] = value_at(i);
	ASSERT_EQ(mmnf_write(f, &all, data, sizeof(data)),
		  (ssize_t)sizeof(data));
	mmnf_field_close(f);
}

TEST(tiled_fields_and_the_direct_engine)
{
	static const uint32_t engines[] = { MMNF_ENGINE_MMAP,
					    MMNF_ENGINE_DIRECT };
	uint64_t shape[2] = { 100, 60 }, tile[2] = { 16, 8 };
	struct mmnf_create_opts o = { .size = sizeof(o), .tile = tile };
	struct mmnf_open_opts open = { .size = sizeof(open) };
	size_t i;

	use_device();
	scratch();
	ASSERT_EQ(mmnf_field_create("linear", MMNF_U32, 2, shape, NULL), 0);
	fill_100_by_60(open_field("linear", true));
	ASSERT_EQ(mmnf_field_create("tiled", MMNF_U32, 2, shape, &o), 0);
	fill_100_by_60(open_field("tiled", true));
	for (i = 0; i < 4; i++) {
		name = i % 2 ? "tiled" : "linear";
		engine = open.engine = engines[i / 2];
		if (mmnf_field_open(&field, name, &open)) {
			printf("# %s\n", mmnf_last_error());
			continue;
		}
		mmnf_field_close(field);
		for_seeds(same_bytes);
	}
}

/* A column-major .npy, used in place: elements of a record lie apart. */
TEST(a_fortran_ordered_file_in_place)
{
	static const char head[] =
		"\x93NUMPY\x01\x00\x76\x00{'descr': '<u4', 'fortran_order': True, 'shape': (100, 60), }";
	static char file[128 + 24000];
	uint32_t r, c, v;

	use_device();
	scratch();
	memset(file, ' ', 128);
	memcpy(file, head, sizeof(head) - 1);
	file[127] = '\n';
	for (r = 0; r < 100; r++)
		for (c = 0; c < 60; c++) {
			v = value_at(r * 60 + c);
			memcpy(file + 128 + 4 * (c * 100 + r), &v, 4);
		}
	put_file("f.npy", file, sizeof(file));
	name = "f.npy";
	for_seeds(same_bytes);
}

TEST_MAIN
