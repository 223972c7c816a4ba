// SPDX-License-Identifier: MIT
/*
 * Does the fake driver catch mistakes?  Each is planted: either the fake ignores a
 * call of the library, as if the library had left it out, or the mistake is made
 * here.  A test that passes with the mistake in it would prove nothing.
 */
#include "gpu_flow.h"

#include <signal.h>

#define SEEDS 24

static void expect_caught(const char *mistake, void (*flow)(void),
			  uint64_t at_least)
{
	uint64_t caught;

	need_fake();
	flow_field();
	setenv("MMNF_FAKECUDA_PLANT", mistake, 1);
	caught = nr_failing(flow, SEEDS);
	printf("# %s: caught by %llu of %d seeds\n", mistake,
	       (unsigned long long)caught, SEEDS);
	EXPECT_GE(caught, at_least);
	setenv("MMNF_FAKECUDA_PLANT", "", 1);
	EXPECT_EQ(nr_failing(flow, 2), 0);
	mmnf_field_close(field);
}

/* Streams by number: 0 is the tier's copies, 2 and 3 the caller's. */
TEST(a_gather_that_does_not_wait_for_its_tiles)
{
	expect_caught("wait@2", random_batches, SEEDS / 2);
}

TEST(a_slot_overwritten_while_it_is_read)
{
	expect_caught("wait@0", random_batches, SEEDS / 10);
}

TEST(staging_and_index_reused_too_early)
{
	expect_caught("event-sync", random_batches, SEEDS / 2);
}

TEST(a_result_read_before_it_is_there)
{
	expect_caught("stream-sync@1", boxes_and_the_host, SEEDS / 2);
}

/* The rest is made here, by a caller of the driver. */
static void thread_without_context(void)
{
	uint64_t p;

	open_device(0);
	mmnf_cuda_leave(cuda);
	exit(mmnf_cuda_alloc(cuda, 4096, &p) ? KTAP_FAIL : 0);
}

static void host_reads_device_memory(void)
{
	open_device(0);
	printf("%d\n", *(volatile int *)(uintptr_t)device_alloc(4096));
	exit(0);
}

static void memory_freed_in_use(void)
{
	static char from[4096];
	uint64_t p;
	int i;

	open_device(0);
	p = device_alloc(4096);
	void *stream = new_stream();

	for (i = 0; i < 64; i++)
		mmnf_cuda_copy_in(cuda, p, from, 4096, stream);
	mmnf_cuda_free(cuda, p);
	exit(0);
}

static void pinned_memory_freed_in_use(void)
{
	uint64_t p;
	void *from;
	int i;

	open_device(0);
	p = device_alloc(4096);
	void *stream = new_stream();

	ASSERT_EQ(mmnf_cuda_pin(cuda, 4096, &from), 0);
	for (i = 0; i < 64; i++)
		mmnf_cuda_copy_in(cuda, p, from, 4096, stream);
	mmnf_cuda_unpin(cuda, from);
	exit(0);
}

/* Writes one word past the end, which is inside the last page. */
static void kernel_writes_behind(void)
{
	uint64_t p, nr = 1, index;
	uint32_t row = 5, shift = 0;
	void *stream, *args[] = { &index, &index, &p, &nr, &row, &shift };
	static uint32_t zero[8];

	open_device(0);
	p = device_alloc(16);
	index = device_alloc(sizeof(zero));
	stream = new_stream();
	mmnf_cuda_copy_in(cuda, index, zero, sizeof(zero), stream);
	mmnf_cuda_launch(cuda, MMNF_GATHER_ROWS_4, 1, args, stream);
	mmnf_cuda_stream_sync(cuda, stream);
	mmnf_cuda_free(cuda, p);
	exit(0);
}

static void leaves_memory(void)
{
	open_device(0);
	device_alloc(4096);
	close_device();
	exit(0);
}

static void other_device(void)
{
	static char from[64];
	uint64_t p;

	setenv("MMNF_FAKECUDA_DEVICES", "2", 1);
	open_device(0);
	p = device_alloc(4096);
	open_device(1);
	exit(mmnf_cuda_copy_in(cuda, p, from, 64, new_stream()) ? KTAP_FAIL :
								  0);
}

static void child_uses_it(void)
{
	uint64_t p;
	int status;

	open_device(0);
	if (!fork()) {
		mmnf_cuda_alloc(cuda, 4096, &p);
		_exit(0);
	}
	wait(&status);
	exit(status ? KTAP_FAIL : 0);
}

TEST(what_a_caller_of_the_driver_can_do_wrong)
{
	static const struct {
		const char *name;
		void (*mistake)(void);
	} all[] = {
		{ "no context", thread_without_context },
		{ "host reads device memory", host_reads_device_memory },
		{ "memory freed in use", memory_freed_in_use },
		{ "pinned memory freed in use", pinned_memory_freed_in_use },
		{ "kernel writes behind an allocation", kernel_writes_behind },
		{ "a leak", leaves_memory },
		{ "memory of another device", other_device },
		{ "use after fork", child_uses_it },
	};
	size_t i;

	need_fake();
	for (i = 0; i < sizeof(all) / sizeof(*all); i++) {
		uint64_t caught = nr_failing(all[i].mistake, 8);

		printf("# %s: caught by %llu of 8 seeds\n", all[i].name,
		       (unsigned long long)caught);
		EXPECT_EQ(caught, 8);
	}
}

TEST_MAIN
