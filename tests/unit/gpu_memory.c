// SPDX-License-Identifier: MIT
/*
 * Memory of a device by way of the library alone: a gather into it, its order among
 * streams, what it outlives, wrong arguments.
 */
#include "gpu_flow.h"

#define RECORD (COLUMNS * 4)

static void gathered_without_cuda(void)
{
	struct mmnf_gpu_opts o = any_opts();
	uint64_t index[50], dst, i;
	struct mmnf_selection sel = by_index(index, 50);
	uint32_t *got = malloc(sizeof(index) / 8 * RECORD);
	void *first, *then;

	/* A context of the test's own, for the streams. */
	open_device(0);
	first = new_stream();
	then = new_stream();
	ASSERT_EQ(mmnf_gpu_enable(field, &o), 0);
	ASSERT_EQ(mmnf_device_alloc(&dst, 0, 50 * RECORD), 0);
	EXPECT_EQ(dst % 256, 0);
	for (i = 0; i < 50; i++)
		index[i] = rnd() % ROWS;
	/* The reader's stream knows of the gather by the order alone. */
	ASSERT_EQ(mmnf_batch_get_device(field, &sel, dst, 50 * RECORD, first),
		  50 * RECORD);
	EXPECT_EQ(mmnf_device_order(0, first, then), 0);
	EXPECT_EQ(mmnf_device_read(0, got, dst, 50 * RECORD, then),
		  50 * RECORD);
	EXPECT_TRUE(are_records(got, index, 50, COLUMNS));
	/* Queued, not waited for; the memory is given back all the same. */
	ASSERT_EQ(mmnf_batch_get_device(field, &sel, dst, 50 * RECORD, first),
		  50 * RECORD);
	EXPECT_EQ(mmnf_device_free(dst, first), 0);
	/* Without a stream the result is there. */
	ASSERT_EQ(mmnf_device_alloc(&dst, 0, 50 * RECORD), 0);
	ASSERT_EQ(mmnf_batch_get_device(field, &sel, dst, 50 * RECORD, NULL),
		  50 * RECORD);
	mmnf_field_close(field);
	mmnf_cuda_stream_free(cuda, first);
	mmnf_cuda_stream_free(cuda, then);
	close_device();
	/* And outlives the field: nobody else has the device open now. */
	memset(got, 0, 50 * RECORD);
	EXPECT_EQ(mmnf_device_read(0, got, dst + RECORD, 49 * RECORD, NULL),
		  49 * RECORD);
	EXPECT_TRUE(are_records(got, index + 1, 49, COLUMNS));
	EXPECT_EQ(mmnf_device_free(dst, NULL), 0);
	free(got);
}

TEST(a_result_needs_no_cuda_and_outlives_its_field)
{
	flow_field();
	for_seeds(gathered_without_cuda);
	mmnf_field_close(field);
}

static void wrong_arguments(void)
{
	uint64_t p, q;
	char got[16];

	EXPECT_FAILS(mmnf_device_alloc(NULL, 0, 1), EINVAL, "mmnf_device_alloc",
		     "out");
	EXPECT_FAILS(mmnf_device_alloc(&p, 0, 0), EINVAL, "mmnf_device_alloc",
		     "at least 1");
	EXPECT_FAILS(mmnf_device_alloc(&p, 7, 1), ENODEV, "mmnf_device_alloc",
		     "device 7");
	EXPECT_FAILS(mmnf_device_alloc(&p, 0, 1ULL << 60), ENOMEM,
		     "mmnf_device_alloc", "cuMemAlloc");
	EXPECT_EQ(p, 0);
	ASSERT_EQ(mmnf_device_alloc(&p, 0, 1000), 0);
	ASSERT_EQ(mmnf_device_alloc(&q, 0, 1000), 0);
	EXPECT_FAILS(mmnf_device_read(0, got, p + 990, 11, NULL), EINVAL,
		     "mmnf_device_read", "10 from there");
	EXPECT_FAILS(mmnf_device_read(0, got, 16, 1, NULL), EINVAL,
		     "mmnf_device_read", "not memory of device 0");
	EXPECT_FAILS(mmnf_device_read(0, NULL, p, 1, NULL), EINVAL,
		     "mmnf_device_read", "dst");
	EXPECT_EQ(mmnf_device_read(0, NULL, p, 0, NULL), 0);
	EXPECT_FAILS(mmnf_device_order(0, NULL, got), EINVAL,
		     "mmnf_device_order", "NULL");
	EXPECT_EQ(mmnf_device_order(0, got, got), 0);
	EXPECT_FAILS(mmnf_device_free(p + 1, NULL), EINVAL, "mmnf_device_free",
		     "was not given");
	EXPECT_EQ(mmnf_device_free(p, NULL), 0);
	EXPECT_FAILS(mmnf_device_free(p, NULL), EINVAL, "mmnf_device_free",
		     "is free");
	EXPECT_EQ(mmnf_device_free(0, NULL), 0);
	EXPECT_EQ(mmnf_device_free(q, NULL), 0);
}

TEST(wrong_arguments_are_refused)
{
	need_fake();
	EXPECT_EQ(with_seed(wrong_arguments, 1), 0);
}

TEST(without_a_device_there_is_no_memory)
{
	uint64_t p = 1;

	setenv("MMNF_LIBCUDA", "/nonexistent/libcuda.so", 1);
	EXPECT_FAILS(mmnf_device_alloc(&p, 0, 1), ENODEV, "mmnf_device_alloc",
		     "no GPU");
	EXPECT_EQ(p, 0);
}

TEST_MAIN
