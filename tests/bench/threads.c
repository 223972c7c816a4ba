// SPDX-License-Identifier: MIT
/*
 * What two threads read by one handle, beside one thread.  One JSON object per line.
 *
 *	threads FOLDER		makes a field of 16 MiB there and reads it
 *
 * All of it is hot and records are of 256 bytes, so that what threads share beside the
 * data shows.  They lie at random places, and are read by mmnf_get(), by
 * mmnf_batch_get() of 1,000 and by a load after one mmnf_activate() each.  memcpy
 * copies the same records from memory of its own: more two processors don't do.
 *
 * One thread and two take turns, each thread on a processor of its own, ROUNDS times,
 * and the best of each counts.  A round in which one of them had to leave its processor
 * does not: it would leave all that is shared to the other.
 */
#include <err.h>
#include <mmnf.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define ROWS 65536ULL
#define N 64ULL
#define ROW_BYTES (N * 4)
#define BATCH 1000
#define ROUNDS 40
#define ROUND_NS 4000000ULL

struct reader {
	uint64_t seed;
	uint64_t done, start_ns, end_ns;
	unsigned int processor;
	bool alone;
	float *out;
	char apart[128]; /* no two in one cache line */
};

static struct mmnf_field *field;
static const char *memory;
static pthread_barrier_t begin;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t random_row(struct reader *r)
{
	r->seed = r->seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (r->seed >> 33) % ROWS;
}

static __attribute__((noreturn)) void fail(void)
{
	errx(1, "%s", mmnf_last_error());
}

static void check(const float *got, uint64_t row)
{
	if (*got != (float)row)
		errx(1, "row %llu begins with %g", (unsigned long long)row,
		     (double)*got);
}

/* ---- reads; each tells how many */

static uint64_t get(struct reader *r)
{
	uint64_t row = random_row(r);
	struct mmnf_box box = { { row }, { 1, N }, { 1, 1 } };

	if (mmnf_get(field, &box, r->out, ROW_BYTES) < 0)
		fail();
	check(r->out, row);
	return 1;
}

static uint64_t batch(struct reader *r)
{
	uint64_t row[BATCH], i;

	for (i = 0; i < BATCH; i++)
		row[i] = random_row(r);
	if (mmnf_batch_get(field, row, BATCH, r->out, BATCH * ROW_BYTES) < 0)
		fail();
	check(r->out, row[0]);
	return BATCH;
}

static uint64_t activate(struct reader *r)
{
	uint64_t at[2] = { random_row(r), 0 };
	const float *p = mmnf_activate(field, at);

	if (!p)
		fail();
	check(p, at[0]);
	return 1;
}

static uint64_t copy(struct reader *r)
{
	uint64_t row = random_row(r);

	memcpy(r->out, memory + row * ROW_BYTES, ROW_BYTES);
	check(r->out, row);
	return 1;
}

static const struct {
	const char *name;
	uint64_t (*read)(struct reader *r);
} cases[] = {
	{ "get", get },
	{ "batch-1000", batch },
	{ "activate", activate },
};

/* ---- measuring */

static uint64_t (*reading)(struct reader *r);

/* How often this thread had to leave its processor to another. */
static long pushed_out(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nivcsw;
}

static void stay_on(unsigned int processor)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(processor, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

/* Stops by itself: nobody else may get a processor to say so. */
static void *work(void *arg)
{
	uint64_t start, i, nr = reading == batch ? 1 : 100;
	struct reader *r = arg;
	long pushed;

	stay_on(r->processor);
	r->done = 0;
	pthread_barrier_wait(&begin);
	pushed = pushed_out();
	start = now_ns();
	do {
		for (i = 0; i < nr; i++)
			r->done += reading(r);
		r->end_ns = now_ns();
	} while (r->end_ns - start < ROUND_NS);
	r->start_ns = start;
	r->alone = pushed_out() != pushed;
	return NULL;
}

/*
 * Reads per microsecond of so many threads, which begin in different places; 0 where
 * one of them stood still for a while, and left all there is to the others.
 */
static double reads_per_us(struct reader *r, unsigned int threads)
{
	uint64_t done = 0, start_ns = UINT64_MAX, end_ns = 0;
	pthread_t thread[2];
	bool alone = false;
	unsigned int i;

	pthread_barrier_init(&begin, NULL, threads);
	for (i = 0; i < threads; i++)
		if (pthread_create(&thread[i], NULL, work, &r[i]))
			errx(1, "no thread");
	for (i = 0; i < threads; i++) {
		pthread_join(thread[i], NULL);
		done += r[i].done;
		alone |= r[i].alone;
		start_ns = r[i].start_ns < start_ns ? r[i].start_ns : start_ns;
		end_ns = r[i].end_ns > end_ns ? r[i].end_ns : end_ns;
	}
	pthread_barrier_destroy(&begin);
	return alone ? 0 : 1e3 * (double)done / (double)(end_ns - start_ns);
}

static void print(const char *what, const char *engine, const char *metric,
		  double value)
{
	printf("{\"bench\": \"threads\", \"case\": \"%s\", \"engine\": \"%s\", "
	       "\"metric\": \"%s\", \"value\": %.4f, \"unit\": \"1/us\", "
	       "\"clock\": \"wall\"}\n",
	       what, engine, metric, value);
	fflush(stdout);
}

static void measure(const char *what, const char *engine,
		    uint64_t (*read)(struct reader *r))
{
	static struct reader r[2] = { { .seed = 1 },
				      { .seed = 2, .processor = 1 } };
	double best[2] = { 0 }, v;
	unsigned int round, i;

	for (i = 0; i < 2; i++)
		if (!r[i].out)
			r[i].out = calloc(BATCH, ROW_BYTES);
	if (!r[0].out || !r[1].out)
		errx(1, "no memory");
	reading = read;
	for (round = 0; round < ROUNDS; round++) {
		for (i = 0; i < 2; i++) {
			v = reads_per_us(r, i + 1);
			best[i] = v > best[i] ? v : best[i];
		}
	}
	if (!best[0] || !best[1]) {
		warnx("%s, %s: others had the processors each time", what,
		      engine);
		return;
	}
	print(what, engine, "reads-1-thread", best[0]);
	print(what, engine, "reads-2-threads", best[1]);
}

static void make(void)
{
	const uint64_t shape[2] = { ROWS, N };
	struct mmnf_box box = { { 0 }, { ROWS, N }, { 1, 1 } };
	float *values = malloc(ROWS * ROW_BYTES);
	uint64_t i;
	MMNF_OPTS(mmnf_open_opts, opts);

	if (!values)
		errx(1, "no memory");
	for (i = 0; i < ROWS * N; i++)
		values[i] = (float)(i / N);
	opts.writable = 1;
	if (mmnf_field_create("threads", MMNF_F32, 2, shape, NULL) ||
	    mmnf_field_open(&field, "threads", &opts) ||
	    mmnf_write(field, &box, values, ROWS * ROW_BYTES) < 0 ||
	    mmnf_field_sync(field))
		fail();
	mmnf_field_close(field);
	memory = (const char *)values;
}

static void measure_engine(const char *name, uint32_t engine)
{
	struct mmnf_box box = { { 0 }, { 1, N }, { 1, 1 } };
	static char row[ROW_BYTES];
	unsigned int i;
	MMNF_OPTS(mmnf_open_opts, opts);

	opts.engine = engine;
	opts.l2_bytes = 2 * ROWS * ROW_BYTES;
	if (mmnf_field_open(&field, "threads", &opts))
		fail();
	for (; box.start[0] < ROWS; box.start[0]++)
		if (mmnf_get(field, &box, row, ROW_BYTES) < 0)
			fail();
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		measure(cases[i].name, name, cases[i].read);
	mmnf_field_close(field);
}

int main(int argc, char **argv)
{
	if (argc != 2 || chdir(argv[1]))
		errx(2, "FOLDER");
	make();
	measure("copy", "memcpy", copy);
	measure_engine("mmap", MMNF_ENGINE_MMAP);
	measure_engine("direct", MMNF_ENGINE_DIRECT);
	return 0;
}
