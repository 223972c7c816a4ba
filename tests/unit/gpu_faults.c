// SPDX-License-Identifier: MIT
/*
 * What can be missing or break below the GPU tier: no driver, a stub, an old one,
 * no device, no memory, a device lost in the middle, a fork.  Each ends in the
 * right bytes or in an error that says what it was, and nothing leaks.
 */
#include "gpu_flow.h"

#define RECORD (COLUMNS * 4)

/* What the first tier says in a process with this in its environment. */
static void expect_off(const char *name, const char *value, const char *word)
{
	struct mmnf_tiers tiers = { .size = sizeof(tiers) };
	uint64_t index[3] = { 5, 599, 5 };
	struct mmnf_selection sel = by_index(index, 3);
	uint32_t got[3 * COLUMNS];
	int status;

	fflush(NULL);
	if (!fork()) {
		scratch_path[0] = 0;
		if (name)
			setenv(name, value, 1);
		EXPECT_FAILS(mmnf_gpu_enable(field, NULL), ENODEV,
			     "mmnf_gpu_enable", word);
		EXPECT_EQ(mmnf_tiers_info(field, &tiers), 0);
		EXPECT_EQ(tiers.tier[0].is_on, 0);
		if (!strstr(tiers.tier[0].text, word))
			ktap_failed("# '%s': expected '%s'\n",
				    tiers.tier[0].text, word);
		/* The same bytes without. */
		EXPECT_EQ(mmnf_batch_get_host(field, &sel, got, sizeof(got)),
			  (ssize_t)sizeof(got));
		EXPECT_TRUE(are_records(got, index, 3, COLUMNS));
		exit(0);
	}
	wait(&status);
	EXPECT_EQ(status, 0);
}

TEST(without_a_gpu_the_reason_is_told)
{
	need_fake();
	flow_field();
	expect_off("MMNF_LIBCUDA", "/nonexistent/libcuda.so.1",
		   "cannot open shared object");
	expect_off("MMNF_LIBCUDA", "libm.so.6", "libm.so.6 has no cuInit");
	expect_off("MMNF_FAKECUDA_INIT", "100", "cuInit: CUDA_ERROR_100 (100)");
	expect_off("MMNF_FAKECUDA_INIT", "999", "cuInit: CUDA_ERROR_999 (999)");
	expect_off("MMNF_FAKECUDA_INIT", "34", "toolkit's stub");
	expect_off("MMNF_FAKECUDA_DEVICES", "0", "no CUDA device");
	expect_off("MMNF_FAKECUDA_DRIVER", "10020",
		   "driver is for CUDA 10.2: expected 11.0");
	expect_off("MMNF_FAKECUDA_FAIL", "cuDeviceGetCount:1=999",
		   "cuDeviceGetCount");
	mmnf_field_close(field);
}

/* The stub exports every symbol of its toolkit, so this looks all of ours up. */
TEST(the_toolkits_stub_has_every_symbol_and_is_no_driver)
{
	const char *cuda_home = getenv("CUDA_HOME");
	char stub[300];

	snprintf(stub, sizeof(stub), "%s/lib64/stubs/libcuda.so",
		 cuda_home ? cuda_home : "/usr/local/cuda");
	if (access(stub, R_OK))
		SKIP("no stub of libcuda.so: no CUDA toolkit");
	need_fake();
	flow_field();
	expect_off("MMNF_LIBCUDA", stub, "toolkit's stub");
	mmnf_field_close(field);
}

static const char *fail_spec;

/* Any call may fail: the right bytes, or an error with text; nothing leaks. */
static void batches_with_a_fault(void)
{
	struct mmnf_gpu_opts o = { .size = sizeof(o),
				   .tile_bytes = 4096,
				   .budget_bytes = 300000 };
	uint64_t index[120], i, k, dst;
	struct mmnf_selection sel = by_index(index, 120);
	uint32_t *got = malloc(120 * RECORD);
	void *stream;
	ssize_t n;

	o.path = (uint32_t)(rnd() % 3);
	open_device(0);
	dst = device_alloc(120 * RECORD);
	stream = new_stream();
	fake_say("fakecuda_fail", fail_spec);
	if (mmnf_gpu_enable(field, &o))
		EXPECT_TRUE(strstr(mmnf_last_error(), "mmnf_gpu_enable: "));
	for (k = 0; k < 4; k++) {
		for (i = 0; i < 120; i++)
			index[i] = rnd() % ROWS;
		n = mmnf_batch_get_host(field, &sel, got, 120 * RECORD);
		if (n == 120 * RECORD)
			EXPECT_TRUE(are_records(got, index, 120, COLUMNS));
		else
			EXPECT_TRUE(strstr(mmnf_last_error(), "CUDA_ERROR"));
		n = mmnf_batch_get_device(field, &sel, dst, 120 * RECORD,
					  stream);
		if (n == 120 * RECORD &&
		    !mmnf_cuda_copy_out(cuda, got, dst, 120 * RECORD, stream) &&
		    !mmnf_cuda_stream_sync(cuda, stream))
			EXPECT_TRUE(are_records(got, index, 120, COLUMNS));
		else
			EXPECT_TRUE(mmnf_last_error()[0]);
	}
	mmnf_field_close(field);
	fake_say("fakecuda_fail", "");
	mmnf_cuda_free(cuda, dst);
	mmnf_cuda_stream_free(cuda, stream);
	close_device();
	free(got);
}

/* Each call that a run makes, once each, with each kind of error. */
TEST(any_call_of_the_driver_may_fail)
{
	static const char *const calls[] = {
		"cuCtxPushCurrent",   "cuMemGetInfo",
		"cuMemAlloc",	      "cuMemHostAlloc",
		"cuStreamCreate",     "cuEventCreate",
		"cuMemcpyHtoDAsync",  "cuMemcpyBatchAsync",
		"cuMemcpyDtoHAsync",  "cuPointerGetAttributes",
		"cuEventRecord",      "cuStreamWaitEvent",
		"cuEventSynchronize", "cuStreamSynchronize",
		"cuEventElapsedTime", "cuLaunchKernel",
	};
	static const int errors[] = { 2, 1, 719 };
	const char *more = getenv("MMNF_GPU_SEEDS");
	size_t i, e, nth, most = more ? 24 : 7;
	char spec[80];

	need_fake();
	flow_field();
	for (i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		/* A context that can't be current can't be given back. */
		for (e = i ? 0 : 2; e < 3; e++)
			for (nth = 1; nth <= most; nth += 1 + nth / 4) {
				snprintf(spec, sizeof(spec), "%s:%zu=%d",
					 calls[i], nth, errors[e]);
				fail_spec = spec;
				if (!with_seed(batches_with_a_fault,
					       nth * 16 + 1))
					continue;
				ktap_failed("# %s\n", spec);
			}
	mmnf_field_close(field);
}

/* Every schedule with a device that is lost at some point. */
static void lost_somewhere(void)
{
	static char spec[80];

	snprintf(spec, sizeof(spec), "%s:%d+=719",
		 rnd() % 2 ? "cuLaunchKernel" : "cuMemcpyHtoDAsync",
		 (int)(1 + rnd() % 20));
	fail_spec = spec;
	batches_with_a_fault();
}

TEST(a_device_lost_in_the_middle)
{
	need_fake();
	flow_field();
	for_seeds(lost_somewhere);
	mmnf_field_close(field);
}

static void no_kernels(void)
{
	struct mmnf_tiers tiers = { .size = sizeof(tiers) };

	open_device(0);
	EXPECT_TRUE(mmnf_cuda_no_kernels(cuda) != NULL);
	EXPECT_EQ(mmnf_gpu_enable(field, NULL), 0);
	ASSERT_EQ(mmnf_tiers_info(field, &tiers), 0);
	if (!strstr(tiers.tier[0].text, "no kernels: cuModuleLoadData"))
		ktap_failed("# '%s'\n", tiers.tier[0].text);
	mmnf_field_close(field);
	close_device();
}

/* An image that the driver does not take: copies do it all. */
TEST(without_kernels_the_copy_engine_does_it)
{
	need_fake();
	flow_field();
	setenv("MMNF_FAKECUDA_FAIL", "cuModuleLoadData:1=209", 1);
	for_seeds(random_batches);
	for_seeds(boxes_and_the_host);
	EXPECT_EQ(with_seed(no_kernels, 1), 0);
	setenv("MMNF_FAKECUDA_FAIL", "cuModuleLoadData:1=222", 1);
	EXPECT_EQ(with_seed(no_kernels, 1), 0);
	setenv("MMNF_FAKECUDA_FAIL",
	       "cuModuleLoadData:1=200,cuMemcpyBatchAsync:1=801", 1);
	EXPECT_EQ(with_seed(random_batches, 16), 0);
	mmnf_field_close(field);
}

static void pageable(void)
{
	struct mmnf_tiers tiers = { .size = sizeof(tiers) };

	fake_say("fakecuda_fail", "");
	open_device(0);
	fake_say("fakecuda_fail", "cuMemHostAlloc:1=2");
	EXPECT_EQ(mmnf_gpu_enable(field, NULL), 0);
	ASSERT_EQ(mmnf_tiers_info(field, &tiers), 0);
	if (!strstr(tiers.tier[0].text, "staging is pageable: ") ||
	    !strstr(tiers.tier[0].text, "CUDA_ERROR_2"))
		ktap_failed("# '%s'\n", tiers.tier[0].text);
	mmnf_field_close(field);
	close_device();
}

/* The flow pins one buffer of its own before. */
TEST(pageable_staging_where_pinning_is_refused)
{
	need_fake();
	flow_field();
	EXPECT_EQ(with_seed(pageable, 1), 0);
	setenv("MMNF_FAKECUDA_FAIL", "cuMemHostAlloc:2=2", 1);
	for_seeds(random_batches);
	mmnf_field_close(field);
}

static void forked(void)
{
	struct mmnf_gpu_opts o = { .size = sizeof(o), .budget_bytes = 1 << 20 };
	uint64_t index[2] = { 3, 400 }, p;
	struct mmnf_selection sel = by_index(index, 2);
	struct mmnf_box first = { { 0 }, { 1, COLUMNS }, { 1, 1 } };
	uint32_t got[2 * COLUMNS];
	int status;

	open_device(0);
	ASSERT_EQ(mmnf_gpu_enable(field, &o), 0);
	ASSERT_EQ(mmnf_get_device(field, &p, 0, 0, NULL), 0);
	fflush(NULL);
	if (!fork()) {
		/* The tile is the parent's, and so are its counters. */
		EXPECT_EQ(mmnf_gpu_forget(field, &first), 0);
		EXPECT_FAILS(mmnf_get_device(field, &p, 0, 3, NULL), ENODEV,
			     "mmnf_get_device", "fork()");
		EXPECT_EQ(mmnf_batch_get_host(field, &sel, got, sizeof(got)),
			  (ssize_t)sizeof(got));
		EXPECT_TRUE(are_records(got, index, 2, COLUMNS));
		mmnf_field_close(field);
		_exit(0);
	}
	wait(&status);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(mmnf_batch_get_host(field, &sel, got, sizeof(got)),
		  (ssize_t)sizeof(got));
	EXPECT_TRUE(are_records(got, index, 2, COLUMNS));
	mmnf_field_close(field);
	close_device();
}

TEST(a_forked_child_keeps_off_the_device)
{
	need_fake();
	flow_field();
	EXPECT_EQ(with_seed(forked, 1), 0);
	mmnf_field_close(field);
}

static void cut_file(void)
{
	struct mmnf_gpu_opts o = { .size = sizeof(o),
				   .tile_bytes = 4096,
				   .budget_bytes = 300000 };
	uint64_t index[2] = { 599, 3 }, dst;
	struct mmnf_selection sel = by_index(index, 2), good;

	open_device(0);
	field = value_field(ROWS, COLUMNS, 77 * RECORD);
	ASSERT_EQ(mmnf_gpu_enable(field, &o), 0);
	dst = device_alloc(2 * RECORD);
	ASSERT_EQ(truncate("f/c/7/0", 1000), 0);
	EXPECT_FAILS((int)mmnf_batch_get_device(field, &sel, dst, 2 * RECORD,
						NULL),
		     EIO, "mmnf_batch_get_device", "expected");
	good = by_index(index + 1, 1);
	EXPECT_EQ(mmnf_batch_get_device(field, &good, dst, 2 * RECORD, NULL),
		  RECORD);
	EXPECT_FAILS((int)mmnf_batch_get_device(field, &sel, dst, 2 * RECORD,
						NULL),
		     EIO, "mmnf_batch_get_device", "expected");
	mmnf_field_close(field);
	mmnf_cuda_free(cuda, dst);
	close_device();
	scratch_remove();
}

TEST(a_file_cut_short_is_an_error_each_time)
{
	use_device();
	for_seeds(cut_file);
}

TEST_MAIN
