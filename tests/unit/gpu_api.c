// SPDX-License-Identifier: MIT
/*
 * The GPU tier as its callers see it: pointers, writes, counters, wrong
 * arguments, several devices, what a batch costs in calls of the driver.
 */
#include "gpu_flow.h"

#define RECORD (COLUMNS * 4)

static void enable(uint32_t device, uint64_t budget, uint32_t path)
{
	struct mmnf_gpu_opts o = { .size = sizeof(o),
				   .device = device,
				   .tile_bytes = 4096,
				   .budget_bytes = budget,
				   .path = path };

	ASSERT_EQ(mmnf_gpu_enable(field, &o), 0);
}

static struct mmnf_gpu_stats gpu_stats_of(uint32_t device)
{
	struct mmnf_gpu_stats s = { .size = sizeof(s) };

	ASSERT_EQ(mmnf_gpu_stats(field, device, &s), 0);
	EXPECT_EQ(s.prefetched, s.used + s.wasted + s.pending);
	EXPECT_LE(s.nr_slots_used, s.nr_slots);
	return s;
}

static void get(const uint64_t *index, size_t nr, uint64_t dst, void *stream)
{
	struct mmnf_selection sel = by_index(index, nr);

	ASSERT_EQ(mmnf_batch_get_device(field, &sel, dst, nr * RECORD, stream),
		  (ssize_t)(nr * RECORD));
}

static void held_pointers(void)
{
	uint64_t p[64], other[200], dst, i, nr = 0;
	uint32_t got[COLUMNS];
	void *stream;
	int err = 0;

	open_device(0);
	enable(0, 200000, 0);
	dst = device_alloc(sizeof(other) / 8 * RECORD);
	stream = new_stream();
	/* Every fourth record is in a tile of its own. */
	while (nr < 64 && !err)
		err = mmnf_get_device(field, &p[nr], 0, 4 * nr, stream), nr++;
	nr--;
	EXPECT_EQ(err, -EBUSY);
	EXPECT_EQ(nr, gpu_stats_of(0).nr_slots / 2);
	for (i = 0; i < 200; i++)
		other[i] = 3 * i;
	get(other, 200, dst, stream);
	for (i = 0; i < nr; i++) {
		uint64_t index = 4 * i;

		fetch(got, p[i], RECORD, stream);
		EXPECT_TRUE(are_records(got, &index, 1, COLUMNS));
		EXPECT_EQ(mmnf_put_device(field, p[i], i & 1 ? stream : NULL),
			  0);
	}
	EXPECT_FAILS(mmnf_put_device(field, p[0], NULL), EINVAL,
		     "mmnf_put_device", "not held");
	EXPECT_FAILS(mmnf_put_device(field, dst, NULL), EINVAL,
		     "mmnf_put_device", "of this field");
	EXPECT_EQ(mmnf_get_device(field, &p[0], 0, 599, NULL), 0);
	EXPECT_EQ(mmnf_put_device(field, p[0], NULL), 0);
	EXPECT_FAILS(mmnf_get_device(field, &p[0], 0, ROWS, NULL), ERANGE,
		     "mmnf_get_device", "0..599");
	EXPECT_FAILS(mmnf_get_device(field, &p[0], 1, 0, NULL), ENODEV,
		     "mmnf_get_device", "device 1");
	mmnf_field_close(field);
	mmnf_cuda_free(cuda, dst);
	mmnf_cuda_stream_free(cuda, stream);
	close_device();
}

TEST(a_held_record_stays_where_it_is)
{
	flow_field();
	for_seeds(held_pointers);
	mmnf_field_close(field);
}

static void writes_are_seen(void)
{
	uint64_t index[40], dst, i;
	uint32_t got[40 * COLUMNS], row[COLUMNS];
	struct mmnf_box box = { { 0, 0 }, { 1, COLUMNS }, { 1, 1 } };
	struct mmnf_box all = { { 0, 0 }, { ROWS, COLUMNS }, { 1, 1 } };
	void *stream;

	open_device(0);
	field = value_field(ROWS, COLUMNS, 77 * RECORD);
	enable(0, 400000, 0);
	dst = device_alloc(sizeof(got));
	stream = new_stream();
	for (i = 0; i < 40; i++)
		index[i] = i * 15;
	get(index, 40, dst, stream);
	for (i = 0; i < COLUMNS; i++)
		row[i] = (uint32_t)~i;
	box.start[0] = 150;
	ASSERT_EQ(mmnf_write(field, &box, row, RECORD), RECORD);
	get(index, 40, dst, stream);
	fetch(got, dst, sizeof(got), stream);
	EXPECT_EQ(memcmp(got + 10 * COLUMNS, row, RECORD), 0);
	EXPECT_TRUE(are_records(got, index, 10, COLUMNS));
	EXPECT_TRUE(are_records(got + 11 * COLUMNS, index + 11, 29, COLUMNS));
	EXPECT_GT(mmnf_gpu_forget(field, &all), 0);
	EXPECT_EQ(gpu_stats_of(0).nr_slots_used, 0);
	EXPECT_EQ(mmnf_gpu_forget(field, &all), 0);
	get(index, 40, dst, stream);
	fetch(got, dst, sizeof(got), stream);
	EXPECT_EQ(memcmp(got + 10 * COLUMNS, row, RECORD), 0);
	/* Queued and not waited for: closing must not take what it uses. */
	get(index, 40, dst, stream);
	mmnf_field_close(field);
	fetch(got, dst, sizeof(got), stream);
	EXPECT_EQ(memcmp(got + 10 * COLUMNS, row, RECORD), 0);
	EXPECT_TRUE(are_records(got, index, 10, COLUMNS));
	mmnf_cuda_free(cuda, dst);
	mmnf_cuda_stream_free(cuda, stream);
	close_device();
	scratch_remove();
}

TEST(writes_are_seen_and_close_waits_for_what_is_queued)
{
	use_device();
	for_seeds(writes_are_seen);
}

static void prefetching(void)
{
	struct mmnf_box box = { { 100, 0 }, { 40, COLUMNS }, { 1, 1 } };
	struct mmnf_selection sel = by_box(&box);
	struct mmnf_gpu_stats s;
	uint32_t *got = malloc(ROWS * RECORD);
	uint64_t index[40], i;
	int turn;

	open_device(0);
	enable(0, 1000000, 0);
	/* 40 records of 1 KiB from 100 on: segment 1, offset 23 KiB. */
	EXPECT_EQ(mmnf_prefetch_device(field, 0, &sel), 11);
	for (turn = 0; turn < 1000; turn++) {
		s = gpu_stats_of(0);
		if (s.prefetched == 11 && s.nr_slots_used == 11)
			break;
		usleep(1000);
	}
	EXPECT_EQ(s.prefetched, 11);
	for (i = 0; i < 40; i++)
		index[i] = 100 + i;
	sel = by_index(index, 40);
	ASSERT_EQ(mmnf_batch_get_host(field, &sel, got, ROWS * RECORD),
		  40 * RECORD);
	EXPECT_TRUE(are_records(got, index, 40, COLUMNS));
	s = gpu_stats_of(0);
	EXPECT_EQ(s.misses, 0);
	EXPECT_EQ(s.hits + s.late, 11);
	EXPECT_EQ(s.used, 11);
	EXPECT_EQ(s.gathered_bytes, 40 * RECORD);
	/* What is asked for and never used is wasted, or pending. */
	box = (struct mmnf_box) { { 200, 0 }, { 300, COLUMNS }, { 1, 1 } };
	sel = by_box(&box);
	EXPECT_GT(mmnf_prefetch_device(field, 0, &sel), 0);
	mmnf_field_close(field);
	close_device();
	free(got);
}

TEST(what_was_prefetched_is_a_hit)
{
	flow_field();
	for_seeds(prefetching);
	mmnf_field_close(field);
}

static void wrong_arguments(void)
{
	struct mmnf_gpu_opts o = { .size = sizeof(o) };
	struct mmnf_box box = { { 0, 0 }, { 1, 1 }, { 1, 1 } };
	uint64_t index[2] = { 0, ROWS }, dst, i;
	struct mmnf_selection sel = by_index(index, 1), bad;
	struct mmnf_tiers tiers = { .size = sizeof(tiers) };
	static char host[4096];

	open_device(0);
	dst = device_alloc(4096);
	EXPECT_FAILS((int)mmnf_batch_get_device(field, &sel, dst, 4096, NULL),
		     ENODEV, "mmnf_batch_get_device", "mmnf_gpu_enable");
	ASSERT_EQ(mmnf_tiers_info(field, &tiers), 0);
	EXPECT_EQ(tiers.nr_tiers, 4);
	EXPECT_EQ(tiers.tier[0].is_on, 0);
	EXPECT_TRUE(strstr(tiers.tier[0].text, "mmnf_gpu_enable"));
	for (i = 0; i < 4; i++)
		EXPECT_EQ(tiers.tier[i].level, i + 1);

	o.tile_bytes = 5000;
	EXPECT_FAILS(mmnf_gpu_enable(field, &o), EINVAL, "mmnf_gpu_enable",
		     "power of two");
	o.tile_bytes = 4096;
	o.budget_bytes = 20000;
	EXPECT_FAILS(mmnf_gpu_enable(field, &o), EINVAL, "mmnf_gpu_enable",
		     "budget is 20000 bytes: expected at least");
	o.budget_bytes = 0;
	o.path = 3;
	EXPECT_FAILS(mmnf_gpu_enable(field, &o), EINVAL, "mmnf_gpu_enable",
		     "path");
	o.path = 0;
	o.device = 64;
	EXPECT_FAILS(mmnf_gpu_enable(field, &o), ENODEV, "mmnf_gpu_enable",
		     "device 64: expected below");
	enable(0, 400000, 0);
	o.device = 0;
	EXPECT_FAILS(mmnf_gpu_enable(field, &o), EALREADY, "mmnf_gpu_enable",
		     "device 0");
	ASSERT_EQ(mmnf_tiers_info(field, &tiers), 0);
	EXPECT_EQ(tiers.tier[0].is_on, 1);
	EXPECT_GT(tiers.tier[0].size_bytes, 0);

	EXPECT_FAILS((int)mmnf_batch_get_device(field, &sel, dst, 1023, NULL),
		     ENOSPC, "mmnf_batch_get_device",
		     "dst has 1023 bytes: expected 1024");
	EXPECT_FAILS((int)mmnf_batch_get_device(field, &sel, dst + 3584, 1024,
						NULL),
		     ENOSPC, "mmnf_batch_get_device",
		     "512 bytes from there: expected 1024");
	EXPECT_FAILS((int)mmnf_batch_get_device(field, &sel, dst + 2, 1024,
						NULL),
		     EINVAL, "mmnf_batch_get_device", "multiple of 4");
	EXPECT_FAILS((int)mmnf_batch_get_device(field, &sel,
						(uint64_t)(uintptr_t)host, 4096,
						NULL),
		     EINVAL, "mmnf_batch_get_device", "not memory of a device");
	sel = by_index(index, 2);
	EXPECT_FAILS((int)mmnf_batch_get_device(field, &sel, dst, 4096, NULL),
		     ERANGE, "mmnf_batch_get_device", "index[1] is 600");
	index[1] = UINT64_MAX;
	EXPECT_FAILS((int)mmnf_batch_get_host(field, &sel, host, 4096), ERANGE,
		     "mmnf_batch_get_host", "index[1]");
	EXPECT_FAILS((int)mmnf_prefetch_device(field, 0, &sel), ERANGE,
		     "mmnf_prefetch_device", "index[1]");
	bad = sel;
	bad.size--;
	EXPECT_FAILS((int)mmnf_batch_get_host(field, &bad, host, 4096), EINVAL,
		     "mmnf_batch_get_host", "mmnf_selection.size");
	bad = sel;
	bad.box = &box;
	EXPECT_FAILS((int)mmnf_batch_get_host(field, &bad, host, 4096), EINVAL,
		     "mmnf_batch_get_host", "expected one of them");
	bad = by_index(NULL, 2);
	EXPECT_FAILS((int)mmnf_batch_get_host(field, &bad, host, 4096), EINVAL,
		     "mmnf_batch_get_host", "index is NULL");
	box.start[1] = COLUMNS;
	sel = by_box(&box);
	EXPECT_FAILS((int)mmnf_batch_get_device(field, &sel, dst, 4096, NULL),
		     ERANGE, "mmnf_batch_get_device", "");
	sel = by_index(NULL, 0);
	EXPECT_EQ(mmnf_batch_get_device(field, &sel, dst, 0, NULL), 0);
	mmnf_field_close(field);
	mmnf_cuda_free(cuda, dst);
	close_device();
}

TEST(wrong_arguments_are_named)
{
	flow_field();
	EXPECT_EQ(with_seed(wrong_arguments, 1), 0);
	mmnf_field_close(field);
}

static void two_devices(void)
{
	struct mmnf_cuda *first;
	uint64_t index[50], dst[2], i, k;
	uint32_t got[50 * COLUMNS];
	struct mmnf_selection sel = by_index(index, 50);
	void *stream[2];

	setenv("MMNF_FAKECUDA_DEVICES", "2", 1);
	open_device(0);
	first = cuda;
	dst[0] = device_alloc(sizeof(got));
	stream[0] = new_stream();
	open_device(1);
	dst[1] = device_alloc(sizeof(got));
	stream[1] = new_stream();
	enable(0, 200000, 0);
	for (i = 0; i < 50; i++)
		index[i] = rnd() % ROWS;
	get(index, 50, dst[0], stream[0]);
	EXPECT_FAILS((int)mmnf_batch_get_device(field, &sel, dst[1],
						sizeof(got), stream[1]),
		     ENODEV, "mmnf_batch_get_device", "device 1: expected");
	enable(1, 300000, 0);
	get(index, 50, dst[1], stream[1]);
	for (k = 2; k--;) {
		fetch(got, dst[k], sizeof(got), stream[k]);
		EXPECT_TRUE(are_records(got, index, 50, COLUMNS));
		mmnf_cuda_free(cuda, dst[k]);
		mmnf_cuda_stream_free(cuda, stream[k]);
		close_device();
		cuda = first;
	}
	EXPECT_EQ(gpu_stats_of(0).gathered_bytes, sizeof(got));
	EXPECT_EQ(gpu_stats_of(1).gathered_bytes, sizeof(got));
	mmnf_field_close(field);
}

TEST(each_device_has_a_cache_of_its_own)
{
	need_fake();
	flow_field();
	for_seeds(two_devices);
	mmnf_field_close(field);
}

/* 1,000 records of 4 KiB, none of them there. */
static void calls_of_a_cold_batch(void)
{
	static const char *const all[] = {
		"cuMemcpyHtoDAsync",   "cuMemcpyBatchAsync",
		"cuMemcpyDtoHAsync",   "cuMemcpyDtoDAsync",
		"cuLaunchKernel",      "cuEventRecord",
		"cuStreamWaitEvent",   "cuEventSynchronize",
		"cuStreamSynchronize",
	};
	uint64_t rows = 4000, columns = 1024, index[1000], dst, i;
	unsigned int nr[sizeof(all) / sizeof(*all)], sum = 0;
	uint32_t *got = malloc(4096000);
	struct mmnf_gpu_opts o = { .size = sizeof(o),
				   .path = MMNF_GPU_PATH_KERNEL };
	struct mmnf_selection sel = by_index(index, 1000);
	void *stream;

	setenv("MMNF_FAKECUDA_MEMORY", "1073741824", 1);
	open_device(0);
	field = value_field(rows, columns, 4096 * 1000);
	o.budget_bytes = 256 << 20;
	ASSERT_EQ(mmnf_gpu_enable(field, &o), 0);
	dst = device_alloc(4096000);
	stream = new_stream();
	/* So that the slots of the second batch are no neighbours. */
	for (i = 0; i < 1000; i++)
		index[i] = i * 4 + 1;
	ASSERT_EQ(mmnf_batch_get_device(field, &sel, dst, 4096000, stream),
		  4096000);
	for (i = 0; i < 500; i++) {
		struct mmnf_box box = { { index[2 * i], 0 },
					{ 1, columns },
					{ 1, 1 } };

		ASSERT_EQ(mmnf_gpu_forget(field, &box), 4096);
	}
	for (i = 0; i < 1000; i++)
		index[i] = i * 4;
	fake_say("fakecuda_fail", "");
	ASSERT_EQ(mmnf_batch_get_device(field, &sel, dst, 4096000, stream),
		  4096000);
	for (i = 0; i < sizeof(all) / sizeof(*all); i++) {
		nr[i] = fake_calls(all[i]);
		sum += nr[i];
		printf("# cold batch of 1,000 x 4 KiB: %u %s\n", nr[i], all[i]);
	}
	printf("# %u calls in all\n", sum);
	EXPECT_LE(nr[0] + nr[1], 2); /* the index, and one chunk */
	EXPECT_EQ(nr[2], 0); /* nothing comes back */
	EXPECT_EQ(nr[3], 0);
	EXPECT_LE(nr[4], 2); /* scatter, gather */
	EXPECT_EQ(nr[7], 0); /* nobody waits */
	EXPECT_EQ(nr[8], 0);
	EXPECT_LE(sum, 10);
	fetch(got, dst, 4096000, stream);
	EXPECT_TRUE(are_records(got, index, 1000, columns));
	mmnf_field_close(field);
	mmnf_cuda_free(cuda, dst);
	mmnf_cuda_stream_free(cuda, stream);
	close_device();
	free(got);
	scratch_remove();
}

TEST(a_cold_batch_takes_few_calls_of_the_driver)
{
	need_fake();
	EXPECT_EQ(with_seed(calls_of_a_cold_batch, 1), 0);
}

TEST_MAIN
