// SPDX-License-Identifier: MIT
/*
 * Threads on one field by way of the GPU tier: batches, pointers, writes of the
 * same bytes and prefetches at once, with a cache that holds a part of it.
 * tests/integration/gpu_tsan.sh builds this with TSan as well.
 */
#include "gpu_flow.h"

#include <pthread.h>

#define THREADS 4
#define RECORD (COLUMNS * 4)

static void *run_batches(void *arg)
{
	uint64_t s = (uint64_t)(uintptr_t)arg, index[60], i, k, dst, p;
	struct mmnf_selection sel = by_index(index, 60);
	uint32_t *got = malloc(60 * RECORD);
	void *stream;

	ASSERT_EQ(mmnf_cuda_enter(cuda), 0);
	dst = device_alloc(60 * RECORD);
	stream = new_stream();
	for (k = 0; k < 6; k++) {
		for (i = 0; i < 60; i++) {
			s = s * 6364136223846793005ULL + 1442695040888963407ULL;
			index[i] = (s >> 33) % ROWS;
		}
		if (k == 2)
			EXPECT_GE(mmnf_prefetch_device(field, 0, &sel), 0);
		ASSERT_EQ(mmnf_batch_get_device(field, &sel, dst, 60 * RECORD,
						k & 1 ? stream : NULL),
			  60 * RECORD);
		fetch(got, dst, 60 * RECORD, stream);
		EXPECT_TRUE(are_records(got, index, 60, COLUMNS));
		ASSERT_EQ(mmnf_batch_get_host(field, &sel, got, 60 * RECORD),
			  60 * RECORD);
		EXPECT_TRUE(are_records(got, index, 60, COLUMNS));
		ASSERT_EQ(mmnf_get_device(field, &p, 0, index[0], stream), 0);
		fetch(got, p, RECORD, stream);
		EXPECT_TRUE(are_records(got, index, 1, COLUMNS));
		ASSERT_EQ(mmnf_put_device(field, p, stream), 0);
	}
	mmnf_cuda_free(cuda, dst);
	mmnf_cuda_stream_free(cuda, stream);
	mmnf_cuda_leave(cuda);
	free(got);
	return NULL;
}

/* Writes what is there, so that whatever is read is right. */
static void *run_writes(void *arg)
{
	struct mmnf_box box = { { 0, 0 }, { 1, COLUMNS }, { 1, 1 } };
	uint32_t row[COLUMNS], i, k;

	(void)arg;
	for (k = 0; k < 60; k++) {
		box.start[0] = k * 7 % ROWS;
		for (i = 0; i < COLUMNS; i++)
			row[i] = value_at(box.start[0] * COLUMNS + i);
		EXPECT_EQ(mmnf_write(field, &box, row, RECORD), RECORD);
	}
	return NULL;
}

static void threads_on_a_field(void)
{
	struct mmnf_gpu_opts o = any_opts();
	pthread_t thread[THREADS + 1];
	uint64_t i;

	open_device(0);
	/* Four pointers at most are held at once. */
	o.budget_bytes += 60000;
	ASSERT_EQ(mmnf_gpu_enable(field, &o), 0);
	for (i = 0; i < THREADS; i++)
		ASSERT_EQ(pthread_create(&thread[i], NULL, run_batches,
					 (void *)(uintptr_t)(i + seed)),
			  0);
	ASSERT_EQ(pthread_create(&thread[i], NULL, run_writes, NULL), 0);
	for (i = 0; i <= THREADS; i++)
		pthread_join(thread[i], NULL);
	mmnf_field_close(field);
	close_device();
}

TEST(threads_on_one_field)
{
	flow_field();
	for_seeds(threads_on_a_field);
	mmnf_field_close(field);
}

TEST_MAIN
