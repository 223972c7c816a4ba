// SPDX-License-Identifier: MIT
/*
 * L1, the GPU tier.
 *
 *	gpu device [FOLDER]	what the device does: copies in by size and path,
 *				gathers against its own copies, batches cold and
 *				hot.  The fake driver of the tests is refused:
 *				exit status 4
 *	gpu host [FOLDER]	what a batch costs the host where all tiles are
 *				there: 10^6 rows of 512 bytes.  The driver may be
 *				the fake one, for nothing it does is timed but
 *				being called; MMNF_FAKECUDA_PLANT=lazy keeps it
 *				from doing queued work meanwhile
 *
 * One JSON object per line.  Every batch is compared with the closed form of the
 * field's elements, outside the timing; a wrong one ends it.
 */
#include <cuda-dl.h>
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define COLUMNS 128 /* f32: rows of 512 bytes */
#define ROW_BYTES (COLUMNS * 4)
#define RUNS 20

static struct mmnf_cuda *cuda;
static void *stream;
static char folder[512];

/* What the host works is told by its processor's time: others use the machine. */
static double now(bool host)
{
	struct timespec t;

	clock_gettime(host ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void must(int ret)
{
	if (ret < 0)
		errx(1, "%s", mmnf_last_error());
}

static void say(const char *name, const char *engine, const char *metric,
		double value, const char *unit)
{
	printf("{\"bench\":\"gpu\",\"case\":\"%s\",\"engine\":\"%s\",\"metric\":\"%s\",\"value\":%g,\"unit\":\"%s\",\"clock\":\"%s\",\"device\":\"%s\"}\n",
	       name, engine, metric, value, unit,
	       strstr(metric, "cpu") ? "cpu" : "wall", mmnf_cuda_name(cuda));
	fflush(stdout);
}

static uint64_t rnd(void)
{
	static uint64_t s = 88172645463325252ULL;

	s ^= s << 13;
	s ^= s >> 7;
	s ^= s << 17;
	return s;
}

static float value_at(uint64_t i)
{
	return (float)(i % 16777213);
}

static struct mmnf_field *make_field(uint64_t rows)
{
	uint64_t shape[2] = { rows, COLUMNS }, row, c;
	struct mmnf_open_opts o = { .size = sizeof(o), .writable = 1 };
	struct mmnf_field *field;
	float data[64 * COLUMNS];

	must(mmnf_field_create(folder, MMNF_F32, 2, shape, NULL));
	must(mmnf_field_open(&field, folder, &o));
	for (row = 0; row < rows; row += 64) {
		struct mmnf_box box = { { row, 0 }, { 64, COLUMNS }, { 1, 1 } };

		for (c = 0; c < 64 * COLUMNS; c++)
			data[c] = value_at(row * COLUMNS + c);
		must((int)mmnf_write(field, &box, data, sizeof(data)));
	}
	return field;
}

static void check(uint64_t dst, const uint64_t *index, size_t nr)
{
	float *got = malloc(nr * ROW_BYTES);
	size_t i, c;

	must(mmnf_cuda_copy_out(cuda, got, dst, nr * ROW_BYTES, stream));
	must(mmnf_cuda_stream_sync(cuda, stream));
	for (i = 0; i < nr; i++)
		for (c = 0; c < COLUMNS; c++)
			if (got[i * COLUMNS + c] !=
			    value_at(index[i] * COLUMNS + c))
				errx(1, "row %zu of index %" PRIu64 " is wrong",
				     i, index[i]);
	free(got);
}

/* Seconds of a batch, the best of some; of the host, or until it is there. */
static double time_batch(struct mmnf_field *field, uint64_t dst,
			 const uint64_t *index, size_t nr, int runs, bool host,
			 bool cold)
{
	struct mmnf_selection sel = { sizeof(sel), index, nr, NULL };
	struct mmnf_box all = { { 0 }, { 0 }, { 0 } };
	struct mmnf_field_info info = { .size = sizeof(info) };
	double best = 1e9;
	int i;

	must(mmnf_field_info(field, &info));
	all.count[0] = info.shape[0];
	all.count[1] = COLUMNS;
	for (i = 0; i < runs; i++) {
		double start, end;

		/* The fake's work goes through our cache, a GPU's does not. */
		if (host)
			must(mmnf_batch_get_device(field, &sel, dst,
						   nr * ROW_BYTES, stream) < 0 ?
				     -1 :
				     0);

		if (cold)
			must((int)(mmnf_gpu_forget(field, &all) < 0));
		start = now(host);
		must(mmnf_batch_get_device(field, &sel, dst, nr * ROW_BYTES,
					   stream) < 0 ?
			     -1 :
			     0);
		end = now(host);
		must(mmnf_cuda_stream_sync(cuda, stream));
		if (!host)
			end = now(host);
		best = end - start < best ? end - start : best;
	}
	check(dst, index, nr);
	return best;
}

static uint64_t *random_rows(size_t nr, uint64_t rows)
{
	uint64_t *index = malloc(nr * sizeof(*index));
	size_t i;

	for (i = 0; i < nr; i++)
		index[i] = rnd() % rows;
	return index;
}

static void host_work(void)
{
	size_t nr = 1000000;
	uint64_t rows = 1 << 18, *index = random_rows(nr, rows), dst;
	struct mmnf_gpu_opts o = { .size = sizeof(o), .tile_bytes = 16384 };
	struct mmnf_field *field = make_field(rows);
	double s;

	o.budget_bytes = rows * ROW_BYTES + (128ULL << 20);
	must(mmnf_gpu_enable(field, &o));
	must(mmnf_cuda_alloc(cuda, nr * ROW_BYTES, &dst));
	s = time_batch(field, dst, index, nr, 6, true, false);
	say("all hit, 10^6 rows of 512 B", "mmnf", "host_cpu_ms_per_batch",
	    s * 1e3, "ms");
	mmnf_field_close(field);
	mmnf_cuda_free(cuda, dst);
	free(index);
}

/* GB/s of 64 MiB in pieces of that size, by copies and by one copy and scatter. */
static void copy_in(uint64_t size)
{
	uint64_t bytes = 64 << 20, nr = bytes / size, dst, staging, slots, i;
	uint32_t shift = (uint32_t)__builtin_ctzll(size) - 4, *slot;
	struct mmnf_cuda_copies l = { .nr = (uint32_t)nr };
	void *args[] = { &dst, &slots, &staging, &nr, &shift };
	double best[2] = { 1e9, 1e9 }, start;
	char *host, name[32];
	int run;

	must(mmnf_cuda_alloc(cuda, 2 * bytes, &dst));
	must(mmnf_cuda_alloc(cuda, bytes, &staging));
	must(mmnf_cuda_alloc(cuda, nr * 4, &slots));
	must(mmnf_cuda_pin(cuda, bytes, (void **)&host));
	must(mmnf_cuda_pin(cuda, nr * 4, (void **)&slot));
	l.to = malloc(nr * 8);
	l.from = malloc(nr * 8);
	l.bytes = malloc(nr * 8);
	for (i = 0; i < nr; i++) {
		slot[i] = (uint32_t)(2 * i);
		l.to[i] = dst + 2 * i * size;
		l.from[i] = (uintptr_t)host + i * size;
		l.bytes[i] = size;
	}
	for (run = 0; run < RUNS; run++) {
		start = now(false);
		must(mmnf_cuda_copy_many(cuda, &l, true, stream));
		must(mmnf_cuda_stream_sync(cuda, stream));
		best[0] = now(false) - start < best[0] ? now(false) - start :
							 best[0];
		start = now(false);
		must(mmnf_cuda_copy_in(cuda, slots, slot, nr * 4, stream));
		must(mmnf_cuda_copy_in(cuda, staging, host, bytes, stream));
		must(mmnf_cuda_launch(cuda, MMNF_SCATTER_TILES, bytes / 16,
				      args, stream));
		must(mmnf_cuda_stream_sync(cuda, stream));
		best[1] = now(false) - start < best[1] ? now(false) - start :
							 best[1];
	}
	snprintf(name, sizeof(name), "copy in, %" PRIu64 " B", size);
	say(name, "copies", "gb_per_s", (double)bytes / best[0] / 1e9, "GB/s");
	say(name, "scatter", "gb_per_s", (double)bytes / best[1] / 1e9, "GB/s");
	free(l.to);
	free(l.from);
	free(l.bytes);
	mmnf_cuda_free(cuda, dst);
	mmnf_cuda_free(cuda, staging);
	mmnf_cuda_free(cuda, slots);
	mmnf_cuda_unpin(cuda, host);
	mmnf_cuda_unpin(cuda, slot);
}

static void copy_peak(uint64_t bytes)
{
	uint64_t from, to;
	double best = 1e9;
	int run;

	must(mmnf_cuda_alloc(cuda, bytes, &from));
	must(mmnf_cuda_alloc(cuda, bytes, &to));
	for (run = 0; run < RUNS; run++) {
		double start = now(false);

		must(mmnf_cuda_copy(cuda, to, from, bytes, stream));
		must(mmnf_cuda_stream_sync(cuda, stream));
		best = now(false) - start < best ? now(false) - start : best;
	}
	say("copy on the device, 512 MB", "copies", "gb_per_s",
	    (double)bytes / best / 1e9, "GB/s");
	mmnf_cuda_free(cuda, from);
	mmnf_cuda_free(cuda, to);
}

static void device_work(void)
{
	static const size_t batch[] = { 1, 1000, 1000000 };
	uint64_t rows = 1 << 21, dst, size;
	struct mmnf_gpu_opts o = { .size = sizeof(o), .tile_bytes = 65536 };
	struct mmnf_field *field;
	size_t i;

	for (size = 4096; size <= 2 << 20; size *= 2)
		copy_in(size);
	copy_peak(batch[2] * ROW_BYTES);
	field = make_field(rows);
	o.budget_bytes = rows * ROW_BYTES + (256ULL << 20);
	must(mmnf_gpu_enable(field, &o));
	must(mmnf_cuda_alloc(cuda, batch[2] * ROW_BYTES, &dst));
	for (i = 0; i < sizeof(batch) / sizeof(*batch); i++) {
		uint64_t *index = random_rows(batch[i], rows);
		char name[48];
		double s;

		snprintf(name, sizeof(name), "%zu random rows of 512 B",
			 batch[i]);
		s = time_batch(field, dst, index, batch[i], 3, false, true);
		say(name, "cold", "us_per_batch", s * 1e6, "us");
		s = time_batch(field, dst, index, batch[i], RUNS, false, false);
		say(name, "hot", "us_per_batch", s * 1e6, "us");
		say(name, "hot", "gb_per_s",
		    (double)batch[i] * ROW_BYTES / s / 1e9, "GB/s");
		free(index);
	}
	mmnf_field_close(field);
	mmnf_cuda_free(cuda, dst);
}

int main(int argc, char **argv)
{
	bool host = argc > 1 && !strcmp(argv[1], "host");

	if (argc < 2 || (!host && strcmp(argv[1], "device")))
		errx(2, "usage: gpu device|host [FOLDER]");
	snprintf(folder, sizeof(folder), "%s/field",
		 argc > 2 ? argv[2] : "/tmp");
	if (mmnf_cuda_open(0, &cuda)) {
		printf("%s\n", mmnf_last_error());
		return 4;
	}
	if (!host && strstr(mmnf_cuda_name(cuda), "not a GPU")) {
		printf("%s: nothing to measure\n", mmnf_cuda_name(cuda));
		mmnf_cuda_close(cuda);
		return 4;
	}
	must(mmnf_cuda_enter(cuda));
	must(mmnf_cuda_stream(cuda, &stream));
	if (host)
		host_work();
	else
		device_work();
	mmnf_cuda_stream_free(cuda, stream);
	mmnf_cuda_leave(cuda);
	mmnf_cuda_close(cuda);
	return 0;
}
