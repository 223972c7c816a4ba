/* SPDX-License-Identifier: MIT */
/*
 * Two ways through the GPU tier that the tests of it run: under many schedules of
 * the driver, and with mistakes planted.  The field is made before, once.
 */
#ifndef MMNF_TEST_GPU_FLOW_H
#define MMNF_TEST_GPU_FLOW_H

#include "gpu_util.h"

#define ROWS 600
#define COLUMNS 256 /* records of 1 KiB */

static struct mmnf_field *field;

/* Segments that end inside tiles. */
static KTAP_UNUSED void flow_field(void)
{
	use_device();
	field = value_field(ROWS, COLUMNS, 77 * COLUMNS * 4);
}

static KTAP_UNUSED struct mmnf_gpu_opts any_opts(void)
{
	struct mmnf_gpu_opts o = { .size = sizeof(o), .tile_bytes = 4096 };

	/* From 4 slots to all of the field; mostly too few. */
	o.budget_bytes = 80000 + rnd() % (rnd() % 4 ? 100000 : 1000000);
	o.path = (uint32_t)(rnd() % 3);
	return o;
}

static KTAP_UNUSED void random_batches(void)
{
	struct mmnf_gpu_opts o = any_opts();
	void *stream[2];
	uint64_t dst[2], index[2][300];
	size_t nr[2], bytes = sizeof(index[0]) / 8 * COLUMNS * 4;
	uint32_t *got;
	int i, k;

	open_device(0);
	ASSERT_EQ(mmnf_cuda_pin(cuda, bytes, (void **)&got), 0);
	ASSERT_EQ(mmnf_gpu_enable(field, &o), 0);
	for (i = 0; i < 2; i++) {
		stream[i] = new_stream();
		dst[i] = device_alloc(bytes);
	}
	for (k = 0; k < 8; k++) {
		i = k & 1;
		if (k >= 2) {
			fetch(got, dst[i], nr[i] * COLUMNS * 4, stream[i]);
			ASSERT_TRUE(are_records(got, index[i], nr[i], COLUMNS));
		}
		for (nr[i] = 0; nr[i] < 1 + rnd() % 300; nr[i]++)
			index[i][nr[i]] = rnd() % ROWS;
		struct mmnf_selection sel = by_index(index[i], nr[i]);

		ASSERT_EQ(mmnf_batch_get_device(field, &sel, dst[i], bytes,
						stream[i]),
			  (ssize_t)(nr[i] * COLUMNS * 4));
	}
	for (i = 0; i < 2; i++) {
		fetch(got, dst[i], nr[i] * COLUMNS * 4, stream[i]);
		EXPECT_TRUE(are_records(got, index[i], nr[i], COLUMNS));
	}
	mmnf_field_close(field);
	for (i = 0; i < 2; i++) {
		mmnf_cuda_free(cuda, dst[i]);
		mmnf_cuda_stream_free(cuda, stream[i]);
	}
	mmnf_cuda_unpin(cuda, got);
	close_device();
}

static KTAP_UNUSED void boxes_and_the_host(void)
{
	struct mmnf_gpu_opts o = any_opts();
	size_t bytes = ROWS * COLUMNS * 4;
	uint32_t *got = malloc(bytes), *want = malloc(bytes);
	uint64_t dst;
	int k;

	open_device(0);
	ASSERT_EQ(mmnf_gpu_enable(field, &o), 0);
	dst = device_alloc(bytes);
	for (k = 0; k < 4; k++) {
		struct mmnf_box box = { { rnd() % ROWS, rnd() % COLUMNS },
					{ 0 },
					{ 1 + (int64_t)(rnd() % 3),
					  1 + (int64_t)(rnd() % 3) } };
		struct mmnf_selection sel = by_box(&box);
		ssize_t n;

		box.count[0] = (ROWS - box.start[0] - 1) / box.step[0] + 1;
		if (box.count[0] > 60)
			box.count[0] = 60;
		box.count[1] = (COLUMNS - box.start[1] - 1) / box.step[1] + 1;
		n = mmnf_get(field, &box, want, bytes);
		ASSERT_GT(n, 0);
		ASSERT_EQ(want[0],
			  value_at(box.start[0] * COLUMNS + box.start[1]));
		memset(got, 0, bytes);
		ASSERT_EQ(mmnf_batch_get_device(field, &sel, dst, bytes, NULL),
			  n);
		void *stream = new_stream();

		fetch(got, dst, (uint64_t)n, stream);
		mmnf_cuda_stream_free(cuda, stream);
		EXPECT_EQ(memcmp(got, want, (size_t)n), 0);
		memset(got, 0, bytes);
		ASSERT_EQ(mmnf_batch_get_host(field, &sel, got, bytes), n);
		EXPECT_EQ(memcmp(got, want, (size_t)n), 0);
	}
	mmnf_field_close(field);
	mmnf_cuda_free(cuda, dst);
	close_device();
	free(got);
	free(want);
}

#endif
