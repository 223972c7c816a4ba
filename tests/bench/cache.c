// SPDX-License-Identifier: MIT
/*
 * L2 by itself: misses of each replacement policy on made-up traces, and what a
 * hit costs.  One JSON object per line.
 *
 *	cache policies		simulation: no clock, the same everywhere
 *	cache hit		wall time: median of a hit, and hits of two threads
 *
 * Traces over 1,000,000 tiles, 3,000,000 accesses each, caches of 1 % and 10 %:
 * zipf (exponents 1.09 and 0.8, ranks scattered), scan (zipf, every tenth access
 * part of a scan), loop (round a range a quarter larger than the cache).
 */
#include <err.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Its inside is not the library's interface. */
#include "../../lib/cache.c"
#include "../../lib/cache-pins.c"
#include "../../lib/cache-policy.c"

#define TILES 1000000
#define ACCESSES 3000000
#define HIT_TILES 30000
#define HITS 2000000

int mmnf_error(int err, const char *format, ...)
{
	(void)format;
	return -err;
}

int mmnf_error_system(int err, const char *format, ...)
{
	(void)format;
	return -err;
}

static u64 seed = 1;

static u64 rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545F4914F6CDD1DULL;
}

static double *table;

static void zipf_init(double exponent)
{
	double sum = 0;
	u32 i;

	for (i = 0; i < TILES; i++)
		table[i] = sum += pow(i + 1, -exponent);
	for (i = 0; i < TILES; i++)
		table[i] /= sum;
}

static u64 zipf(void)
{
	double x = (double)(rnd() >> 11) / 9007199254740992.0;
	u32 low = 0, high = TILES - 1;

	while (low < high) {
		u32 mid = (low + high) / 2;

		if (table[mid] < x)
			low = mid + 1;
		else
			high = mid;
	}
	return (u64)low * 7919 % TILES; /* 7919 is prime */
}

enum trace { ZIPF, SCAN, LOOP };

static u64 next(enum trace trace, u64 i, u64 slots)
{
	if (trace == LOOP)
		return i % (slots + slots / 4);
	if (trace == SCAN && i % 10 == 0)
		return TILES + i;
	return zipf();
}

static double miss_ratio(enum trace trace, u32 policy, u64 slots)
{
	struct mmnf_cache *c;
	u64 i, misses = 0;
	struct mmnf_pin pin;

	if (mmnf_cache_open(&c, slots * MMNF_TILE_BYTES, policy, 1ULL << 50))
		errx(1, "no memory");
	seed = 1;
	for (i = 0; i < ACCESSES; i++) {
		if (mmnf_cache_get(c, next(trace, i, slots), true, false,
				   &pin) == MMNF_CACHE_FILL) {
			mmnf_cache_filled(c, pin, true);
			misses += i >= ACCESSES / 3; /* warm by then */
		}
		mmnf_cache_put(c, pin);
	}
	mmnf_cache_close(c);
	return (double)misses / (ACCESSES - ACCESSES / 3);
}

static void policies(void)
{
	static const struct {
		const char *name;
		enum trace trace;
		double exponent;
	} traces[] = {
		{ "zipf-1.09", ZIPF, 1.09 }, { "zipf-0.8", ZIPF, 0.8 },
		{ "scan-1.09", SCAN, 1.09 }, { "scan-0.8", SCAN, 0.8 },
		{ "loop", LOOP, 1.09 },
	};
	static const char *const names[] = { [MMNF_L2_LRU] = "lru",
					     [MMNF_L2_SIEVE] = "sieve",
					     [MMNF_L2_S3FIFO] = "s3-fifo" };
	u32 t, percent, p;

	for (t = 0; t < sizeof(traces) / sizeof(traces[0]); t++) {
		zipf_init(traces[t].exponent);
		for (percent = 1; percent <= 10; percent += 9)
			for (p = MMNF_L2_LRU; p <= MMNF_L2_S3FIFO; p++)
				printf("{\"bench\": \"l2\", \"case\": \"%s@%u%%\", "
				       "\"engine\": \"%s\", \"metric\": \"misses\", "
				       "\"value\": %.4f, \"unit\": \"ratio\", "
				       "\"clock\": \"none\"}\n",
				       traces[t].name, percent, names[p],
				       miss_ratio(traces[t].trace, p,
						  TILES / 100 * percent));
		fflush(stdout);
	}
}

/* ---- what a hit costs */

static struct mmnf_cache *shared;

static u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000000000 + (u64)ts.tv_nsec;
}

/* Nanoseconds per hit over many; a value of the tile is read, too. */
static double hits(u64 *x, u32 nr, u64 *sum)
{
	u64 start = now_ns();
	struct mmnf_pin pin;
	u32 i;

	for (i = 0; i < nr; i++) {
		*x = *x * 6364136223846793005ULL + 1442695040888963407ULL;
		if (mmnf_cache_get(shared, (*x >> 33) % HIT_TILES, false, false,
				   &pin) != MMNF_CACHE_HIT)
			errx(1, "a tile is gone");
		*sum += (u64)*mmnf_cache_data(shared, pin);
		mmnf_cache_put(shared, pin);
	}
	return (double)(now_ns() - start) / nr;
}

static void *hit_thread(void *arg)
{
	u64 x = (uintptr_t)arg, sum = 0;

	hits(&x, HITS, &sum);
	return NULL;
}

static double hits_per_us(unsigned int threads)
{
	pthread_t thread[8];
	u64 start = now_ns();
	uintptr_t i;

	for (i = 0; i < threads; i++)
		if (pthread_create(&thread[i], NULL, hit_thread,
				   (void *)(i + 1)))
			errx(1, "no thread");
	for (i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	return 1e3 * threads * HITS / (double)(now_ns() - start);
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void print_hit(const char *metric, double value, const char *unit)
{
	printf("{\"bench\": \"l2\", \"case\": \"hit\", \"engine\": \"s3-fifo\", "
	       "\"metric\": \"%s\", \"value\": %.3f, \"unit\": \"%s\", "
	       "\"clock\": \"wall\"}\n",
	       metric, value, unit);
}

static void hit(void)
{
	static double sample[2000];
	u64 x = 1, sum = 0;
	struct mmnf_pin pin;
	u32 i, round;
	double one = 0, two = 0, v;

	if (mmnf_cache_open(&shared, 3ULL * HIT_TILES * MMNF_TILE_BYTES,
			    MMNF_L2_S3FIFO, 1ULL << 50))
		errx(1, "no memory");
	for (i = 0; i < HIT_TILES; i++) {
		if (mmnf_cache_get(shared, i, true, false, &pin) !=
		    MMNF_CACHE_FILL)
			errx(1, "a tile is there");
		memset(mmnf_cache_data(shared, pin), (int)i, MMNF_TILE_BYTES);
		mmnf_cache_filled(shared, pin, true);
		mmnf_cache_put(shared, pin);
	}
	hits(&x, HITS, &sum);
	for (i = 0; i < 2000; i++)
		sample[i] = hits(&x, 200, &sum);
	qsort(sample, 2000, sizeof(sample[0]), by_value);
	print_hit("hit-median", sample[1000], "ns");
	print_hit("hit-p99", sample[1980], "ns");
	for (round = 0; round < 5; round++) {
		v = hits_per_us(1);
		one = v > one ? v : one;
		v = hits_per_us(2);
		two = v > two ? v : two;
	}
	print_hit("hits-1-thread", one, "1/us");
	print_hit("hits-2-threads", two, "1/us");
	mmnf_cache_close(shared);
	if (sum == 1)
		puts("");
}

int main(int argc, char **argv)
{
	table = malloc(TILES * sizeof(*table));
	if (!table)
		errx(1, "no memory");
	if (argc < 2 || !strcmp(argv[1], "hit"))
		hit();
	if (argc < 2 || !strcmp(argv[1], "policies"))
		policies();
	free(table);
	return 0;
}
