/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the GPU tier share: a device, the fake one unless
 * MMNF_TEST_GPU=1, a field whose every element is a function of its index, and
 * seeds.
 */
#ifndef MMNF_TEST_GPU_UTIL_H
#define MMNF_TEST_GPU_UTIL_H

#define KTAP_TIMEOUT 240
#include "field_util.h"

#include <cuda-dl.h>
#include <dlfcn.h>

#define GPU_SEEDS 200

static KTAP_UNUSED bool on_real_gpu(void)
{
	const char *real = getenv("MMNF_TEST_GPU");

	return real && !strcmp(real, "1");
}

static KTAP_UNUSED const char *fake_path(void)
{
	const char *build = getenv("MMNF_BUILD");
	char path[512], *absolute;

	snprintf(path, sizeof(path), "%s/libmmnf-fakecuda.so",
		 build ? build : "build");
	absolute = realpath(path, NULL);
	if (!absolute)
		SKIP("no fake CUDA driver: it needs cuda.h to build");
	return absolute;
}

/* Must come before the first call that looks for a device. */
static KTAP_UNUSED void use_device(void)
{
	const char *path;

	if (on_real_gpu())
		return;
	path = fake_path();
	setenv("MMNF_LIBCUDA", path, 1);
	free((void *)path);
}

static KTAP_UNUSED void need_fake(void)
{
	if (on_real_gpu())
		SKIP("on a real GPU nothing is injected");
	use_device();
}

/* A function of the fake that is not CUDA's. */
static KTAP_UNUSED void *fake_function(const char *name)
{
	void *handle = dlopen(getenv("MMNF_LIBCUDA"), RTLD_NOW | RTLD_NOLOAD);

	return handle ? dlsym(handle, name) : NULL;
}

static KTAP_UNUSED unsigned int fake_calls(const char *name)
{
	unsigned int (*calls)(const char *) =
		(unsigned int (*)(const char *))fake_function("fakecuda_calls");

	return calls ? calls(name) : 0;
}

static KTAP_UNUSED void fake_say(const char *function, const char *text)
{
	void (*say)(const char *) =
		(void (*)(const char *))fake_function(function);

	if (say)
		say(text);
}

/* Element i of every test's field. */
static KTAP_UNUSED uint32_t value_at(uint64_t i)
{
	return (uint32_t)((i + 1) * 0x9E3779B1u);
}

/* A field of u32, [rows, columns], written in full; segments of segment_bytes. */
static KTAP_UNUSED struct mmnf_field *
value_field(uint64_t rows, uint64_t columns, uint64_t segment_bytes)
{
	uint64_t shape[2] = { rows, columns }, i;
	struct mmnf_create_opts o = { .size = sizeof(o) };
	struct mmnf_box box = { { 0 }, { rows, columns }, { 1, 1 } };
	struct mmnf_field *field;
	uint32_t *data = malloc(rows * columns * 4);

	scratch();
	o.segment_bytes = segment_bytes;
	ASSERT_EQ(mmnf_field_create("f", MMNF_U32, 2, shape, &o), 0);
	field = open_field("f", true);
	for (i = 0; i < rows * columns; i++)
		data[i] = value_at(i);
	ASSERT_EQ(mmnf_write(field, &box, data, rows * columns * 4),
		  (ssize_t)(rows * columns * 4));
	free(data);
	return field;
}

/* The device of a test: memory and streams of the caller. */
static struct mmnf_cuda *cuda;

static KTAP_UNUSED void open_device(uint32_t ordinal)
{
	int err = mmnf_cuda_open(ordinal, &cuda);

	if (err && on_real_gpu())
		SKIP("%s", mmnf_last_error());
	ASSERT_EQ(err, 0);
	ASSERT_EQ(mmnf_cuda_enter(cuda), 0);
}

static KTAP_UNUSED void close_device(void)
{
	mmnf_cuda_leave(cuda);
	mmnf_cuda_close(cuda);
}

static KTAP_UNUSED uint64_t device_alloc(uint64_t bytes)
{
	uint64_t p;

	ASSERT_EQ(mmnf_cuda_alloc(cuda, bytes, &p), 0);
	return p;
}

static KTAP_UNUSED void *new_stream(void)
{
	void *stream;

	ASSERT_EQ(mmnf_cuda_stream(cuda, &stream), 0);
	return stream;
}

/* What is at a device address, in the order of a stream. */
static KTAP_UNUSED void fetch(void *to, uint64_t from, uint64_t bytes,
			      void *stream)
{
	ASSERT_EQ(mmnf_cuda_copy_out(cuda, to, from, bytes, stream), 0);
	ASSERT_EQ(mmnf_cuda_stream_sync(cuda, stream), 0);
}

static KTAP_UNUSED struct mmnf_selection by_index(const uint64_t *index,
						  size_t nr)
{
	struct mmnf_selection sel = { sizeof(sel), index, nr, NULL };

	return sel;
}

static KTAP_UNUSED struct mmnf_selection by_box(const struct mmnf_box *box)
{
	struct mmnf_selection sel = { sizeof(sel), NULL, 0, box };

	return sel;
}

/* Are these the records with those indices, `columns` elements each? */
static KTAP_UNUSED bool are_records(const uint32_t *got, const uint64_t *index,
				    size_t nr, uint64_t columns)
{
	size_t i;
	uint64_t c;

	for (i = 0; i < nr; i++)
		for (c = 0; c < columns; c++)
			if (got[i * columns + c] !=
			    value_at(index[i] * columns + c)) {
				ktap_failed(
					"# record %zu, index %llu, element %llu: %#x, expected %#x\n",
					i, (unsigned long long)index[i],
					(unsigned long long)c,
					got[i * columns + c],
					value_at(index[i] * columns + c));
				return false;
			}
	return true;
}

static KTAP_UNUSED uint64_t nr_seeds(void)
{
	const char *n = getenv("MMNF_GPU_SEEDS");

	return on_real_gpu() ? 1 : n ? strtoull(n, NULL, 0) : GPU_SEEDS;
}

/* 0 if it passed with that seed, in a process of its own. */
static KTAP_UNUSED int with_seed(void (*test)(void), uint64_t s)
{
	char text[24];
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		int before = ktap_shared->failures;

		snprintf(text, sizeof(text), "%llu", (unsigned long long)s);
		setenv("MMNF_FAKECUDA_SEED", text, 1);
		seed = s * 0x9E3779B97F4A7C15ULL | 1;
		scratch_path[0] = 0; /* the parent's folder is not ours */
		test();
		/* The search for leaks takes longer than the rest. */
		if (s % 16 != 1)
			_exit(ktap_shared->failures > before);
		exit(ktap_shared->failures > before);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return status;
}

/* How many of the seeds 1..nr fail; what they say is not shown. */
static KTAP_UNUSED uint64_t nr_failing(void (*test)(void), uint64_t nr)
{
	int out = dup(1), err = dup(2), null = open("/dev/null", O_WRONLY);
	int failures = ktap_shared->failures;
	uint64_t s, failing = 0;

	fflush(NULL);
	dup2(null, 1);
	dup2(null, 2);
	for (s = 1; s <= nr; s++)
		failing += with_seed(test, s) != 0;
	dup2(out, 1);
	dup2(err, 2);
	close(out);
	close(err);
	close(null);
	ktap_shared->failures = failures;
	return failing;
}

static KTAP_UNUSED void for_seeds_up_to(void (*test)(void), uint64_t last)
{
	uint64_t s;

	for (s = 1; s <= last; s++) {
		int status = with_seed(test, s);

		if (WIFEXITED(status) && WEXITSTATUS(status) == KTAP_SKIP)
			_exit(KTAP_SKIP);
		if (status) {
			ktap_failed("# seed %llu: %s %d\n",
				    (unsigned long long)s,
				    WIFSIGNALED(status) ? "signal" : "exit",
				    WIFSIGNALED(status) ? WTERMSIG(status) :
							  WEXITSTATUS(status));
			return;
		}
	}
}

/* Under every schedule; or, for what has little to do with it, under some. */
static KTAP_UNUSED void for_seeds(void (*test)(void))
{
	for_seeds_up_to(test, nr_seeds());
}

#endif
