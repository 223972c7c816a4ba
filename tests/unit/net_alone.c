// SPDX-License-Identifier: MIT
/*
 * Gets of one tile of the net, which the calling thread reads by itself: beside others
 * that want the same tile, that write it, that push it out, and with a server that
 * fails or is gone.
 */
#define KTAP_TIMEOUT 120
#include "internal.h"

#include "core/wait.h"
#include "net_util.h"
#include "publish.h"

#include <pthread.h>

#define TILE_ELEMENTS 512ULL
#define NR_TILES 16384ULL
#define THREADS 8
#define EXPORT "pattern 64M"
/* The error comes after the delay: others wait for the tile meanwhile. */
#define FAILING                                                 \
	"--filter=delay --filter=error pattern 64M rdelay=5ms " \
	"error-pread=EINVAL error-file=fail error-pread-rate="

static struct mmnf_field *field;
static bool stop;

static void open_server(const char *args, struct mmnf_open_opts *opts)
{
	static const uint64_t elements[1] = { NR_TILES * TILE_ELEMENTS };

	if (!access("f", F_OK))
		server_kill(0);
	server_start(0, args);
	if (access("f", F_OK))
		make_remote("f", MMNF_U64, 1, elements, 1, 0);
	opts->net_holes_off = 1;
	opts->prefetch_off = 1;
	if (mmnf_field_open(&field, "f", opts))
		ktap_failed("# %s\n", mmnf_last_error());
	ASSERT_EQ(ktap_shared->failures, 0);
}

static uint64_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return *seed >> 20;
}

/* ---- one tile, wanted by all at the same time */

static struct single {
	pthread_t thread;
	uint64_t index, got;
	ssize_t result;
	bool is_named; /* the error names the server */
} singles[THREADS];

static void *get_single(void *arg)
{
	struct single *s = arg;

	s->result = read_one(field, s->index, &s->got);
	s->is_named = s->result < 0 && strstr(mmnf_last_error(), "server 0");
	return NULL;
}

/* Returns how many got it; the others were told that it is invalid, and by whom. */
static unsigned int get_together(uint64_t tile)
{
	unsigned int i, nr = 0;

	for (i = 0; i < THREADS; i++) {
		singles[i].index = tile * TILE_ELEMENTS + i * 61;
		ASSERT_EQ(pthread_create(&singles[i].thread, NULL, get_single,
					 &singles[i]),
			  0);
	}
	for (i = 0; i < THREADS; i++) {
		pthread_join(singles[i].thread, NULL);
		if (singles[i].result < 0) {
			EXPECT_EQ(singles[i].result, -EINVAL);
			EXPECT_TRUE(singles[i].is_named);
			continue;
		}
		EXPECT_EQ(singles[i].result, 8);
		EXPECT_EQ(singles[i].got, pattern(singles[i].index, 1, 0));
		nr++;
	}
	return nr;
}

TEST(threads_want_one_tile)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	uint64_t before;
	unsigned int i;

	scratch();
	need_servers();
	opts.l2_bytes = 1 << 20;
	open_server("--filter=delay " EXPORT " rdelay=5ms", &opts);
	before = server_stats(field, 0).reads;
	for (i = 0; i < 30; i++)
		EXPECT_EQ(get_together(i * 7), THREADS);
	/* Whoever was first has read it for all. */
	EXPECT_EQ(server_stats(field, 0).reads - before, 30);
	mmnf_field_close(field);
}

static void set_failing(bool fails)
{
	int fd;

	if (!fails) {
		ASSERT_EQ(unlink("fail"), 0);
		return;
	}
	fd = open("fail", O_CREAT | O_WRONLY, 0666);
	ASSERT_GE(fd, 0);
	close(fd);
}

/* An error is that of one read: who waits for the tile tries for himself. */
static void wait_for_one_that_fails(uint32_t once)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	unsigned int i, nr = 0;

	scratch();
	need_servers();
	opts.l2_bytes = 1 << 20;
	opts.l2_once = once;
	open_server(FAILING "100%", &opts);
	for (i = 0; i < 5; i++) {
		set_failing(true);
		EXPECT_EQ(get_together(i * 7), 0);
		set_failing(false);
		EXPECT_EQ(get_together(i * 7), THREADS);
	}
	mmnf_field_close(field);
	open_server(FAILING "50%", &opts);
	set_failing(true);
	/* All fail in one of 256: here and there the first does and another does not. */
	for (i = 0; i < 20; i++)
		nr += get_together(i * 7);
	EXPECT_GT(nr, 0);
	set_failing(false);
	for (i = 0; i < 20; i++)
		EXPECT_EQ(get_together(i * 7), THREADS);
	mmnf_field_close(field);
}

TEST(threads_wait_for_one_that_fails)
{
	wait_for_one_that_fails(0);
}

TEST(threads_read_past_l2_what_fails)
{
	wait_for_one_that_fails(1);
}

/* ---- any tiles, in a loop */

struct reader {
	pthread_t thread;
	uint64_t seed, most, done, nr_wrong, nr_failed;
	char words[512];
};

static struct reader readers[THREADS + 2];

static void note(struct reader *r, ssize_t got, bool is_right)
{
	if (got < 0 && !r->nr_failed)
		snprintf(r->words, sizeof(r->words), "%s", mmnf_last_error());
	if (got < 0)
		__atomic_fetch_add(&r->nr_failed, 1, __ATOMIC_RELAXED);
	else if (!is_right)
		r->nr_wrong++;
	else
		__atomic_fetch_add(&r->done, 1, __ATOMIC_RELAXED);
}

static bool goes_on(const struct reader *r)
{
	return !__atomic_load_n(&stop, __ATOMIC_RELAXED) &&
	       (!r->most || r->done + r->nr_failed < r->most);
}

static void *read_singles(void *arg)
{
	struct reader *r = arg;
	uint64_t index, got = 0;
	ssize_t n;

	while (goes_on(r)) {
		index = next_random(&r->seed) % (64 * TILE_ELEMENTS);
		n = read_one(field, index, &got);
		note(r, n, got == pattern(index, 1, 0));
	}
	return NULL;
}

/* Boxes of up to 16 tiles, by way of a queue. */
static void *read_boxes(void *arg)
{
	static __thread uint64_t got[16 * TILE_ELEMENTS];
	struct reader *r = arg;
	uint64_t i, from, nr, nr_right;
	ssize_t n;

	while (goes_on(r)) {
		nr = next_random(&r->seed) % (16 * TILE_ELEMENTS) + 1;
		from = next_random(&r->seed) % (64 * TILE_ELEMENTS - nr);
		n = mmnf_get(field,
			     &(struct mmnf_box) { { from }, { nr }, { 1 } },
			     got, sizeof(got));
		nr_right = 0;
		for (i = 0; i < nr; i++)
			nr_right += got[i] == pattern(from + i, 1, 0);
		note(r, n, nr_right == nr);
	}
	return NULL;
}

/* Each for so many calls; 0: until stop. */
static void start_readers(unsigned int nr_boxes, uint64_t most)
{
	unsigned int i;

	for (i = 0; i < THREADS + nr_boxes; i++) {
		readers[i] = (struct reader) { .seed = i, .most = most };
		ASSERT_EQ(pthread_create(&readers[i].thread, NULL,
					 i < THREADS ? read_singles :
						       read_boxes,
					 &readers[i]),
			  0);
	}
}

/* Returns how many calls failed; expected: some do. */
static uint64_t join_readers(unsigned int nr_boxes, bool expected)
{
	uint64_t failed = 0;
	unsigned int i;

	for (i = 0; i < THREADS + nr_boxes; i++) {
		pthread_join(readers[i].thread, NULL);
		EXPECT_EQ(readers[i].nr_wrong, 0);
		failed += readers[i].nr_failed;
		if (readers[i].nr_failed && !expected)
			printf("# %s\n", readers[i].words);
	}
	return failed;
}

static void read_with_little_memory(uint32_t once)
{
	MMNF_OPTS(mmnf_open_opts, opts);

	scratch();
	need_servers();
	opts.l2_once = once;
	opts.l2_bytes = 1; /* the least there is */
	open_server(EXPORT, &opts);
	start_readers(2, 200);
	EXPECT_EQ(join_readers(2, false), 0);
	mmnf_field_close(field);
	opts.net_connections = 1;
	opts.net_depth = 1;
	open_server(EXPORT, &opts);
	start_readers(2, 100);
	EXPECT_EQ(join_readers(2, false), 0);
	mmnf_field_close(field);
}

TEST(threads_with_little_memory)
{
	read_with_little_memory(0);
}

TEST(threads_read_past_l2)
{
	read_with_little_memory(1);
}

static void wait_for_more(uint64_t (*count)(void))
{
	uint64_t before = count();
	int64_t end = now_ns() + 60 * 1000000000LL;

	while (count() == before) {
		ASSERT_LT(now_ns(), end);
		sleep_ms(5);
	}
}

static uint64_t nr_failed(void)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < THREADS; i++)
		sum += __atomic_load_n(&readers[i].nr_failed, __ATOMIC_RELAXED);
	return sum;
}

/* By those that are the last to have got something. */
static uint64_t least_done(void)
{
	uint64_t least = UINT64_MAX, done;
	unsigned int i;

	for (i = 0; i < THREADS; i++) {
		done = __atomic_load_n(&readers[i].done, __ATOMIC_RELAXED);
		least = done < least ? done : least;
	}
	return least;
}

/* Each is told why in turn, while the server is dialled again and again. */
static void read_of_a_server_that_is_gone(uint32_t once)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	unsigned int i;

	scratch();
	need_servers();
	opts.l2_bytes = 1; /* the least there is */
	opts.net_fail_timeout_ms = 200;
	opts.l2_once = once;
	open_server(EXPORT, &opts);
	start_readers(0, 0);
	for (i = 0; i < 2; i++) {
		wait_for_more(least_done);
		server_kill(0);
		wait_for_more(nr_failed);
		sleep_ms(300);
		server_start(0, EXPORT);
	}
	wait_for_more(least_done);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	EXPECT_GT(join_readers(0, true), 0);
	mmnf_field_close(field);
}

TEST(threads_of_a_server_that_is_gone)
{
	read_of_a_server_that_is_gone(0);
}

TEST(threads_past_l2_of_a_server_that_is_gone)
{
	read_of_a_server_that_is_gone(1);
}

/* ---- a tile that is written */

#define NR_WRITTEN 4

static uint64_t begun[NR_WRITTEN], written[NR_WRITTEN]; /* versions */

/* What is read was written by then, and is no older than what was there before. */
static void *read_versions(void *arg)
{
	struct reader *r = arg;
	uint64_t i, low, high, got = 0;
	ssize_t n;

	while (goes_on(r)) {
		i = next_random(&r->seed) % NR_WRITTEN;
		low = __atomic_load_n(&written[i], __ATOMIC_ACQUIRE);
		n = read_one(field, i * 61, &got);
		high = __atomic_load_n(&begun[i], __ATOMIC_ACQUIRE);
		note(r, n, low <= got && got <= high);
	}
	return NULL;
}

static void read_what_is_written(uint32_t once)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_box tile = { { 0 }, { TILE_ELEMENTS }, { 1 } };
	uint64_t version, got = 0, nr_stale = 0, before;
	unsigned int i;

	scratch();
	need_servers();
	opts.writable = 1;
	opts.l2_bytes = 1 << 20;
	opts.l2_once = once;
	open_server("memory 64M", &opts);
	before = server_stats(field, 0).reads;
	for (i = 0; i < THREADS; i++) {
		readers[i] = (struct reader) { .seed = i };
		ASSERT_EQ(pthread_create(&readers[i].thread, NULL,
					 read_versions, &readers[i]),
			  0);
	}
	for (version = 1; version <= 300; version++) {
		struct mmnf_box one;

		i = version % NR_WRITTEN;
		one = (struct mmnf_box) { { i * 61 }, { 1 }, { 1 } };
		/* Every other write meets a tile that is being read. */
		if (version % 2)
			EXPECT_GE(mmnf_evict(field, &tile), 0);
		__atomic_store_n(&begun[i], version, __ATOMIC_RELEASE);
		ASSERT_EQ(mmnf_write(field, &one, &version, 8), 8);
		__atomic_store_n(&written[i], version, __ATOMIC_RELEASE);
		if (!(version % 2))
			EXPECT_GE(mmnf_evict(field, &tile), 0);
		EXPECT_EQ(read_one(field, i * 61, &got), 8);
		nr_stale += got != version;
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	EXPECT_EQ(join_readers(0, false), 0);
	EXPECT_EQ(nr_stale, 0);
	/* That it was read at all: from memory it is right without this. */
	EXPECT_GT(server_stats(field, 0).reads - before, 150);
	mmnf_field_close(field);
}

TEST(threads_read_what_is_written)
{
	read_what_is_written(0);
}

TEST(threads_read_past_l2_what_is_written)
{
	read_what_is_written(1);
}

/* ---- how long it took */

/* Of those that are published, about as long or longer. */
static uint64_t nr_waits_of(uint64_t ns)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = mmnf_wait_length(ns); i < MMNF_NR_LENGTHS; i++)
		sum += field->published->waits[i];
	return sum;
}

#define DELAY_NS 100000000ULL

static void wait_for_the_server(uint32_t once)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	uint64_t i, got, most = 0, ns;

	opts.l2_bytes = 1 << 20;
	opts.l2_once = once;
	open_server("--filter=delay " EXPORT " rdelay=100ms", &opts);
	for (i = 0; i < 5; i++) {
		ns = (uint64_t)now_ns();
		EXPECT_EQ(read_one(field, i * TILE_ELEMENTS, &got), 8);
		ns = (uint64_t)now_ns() - ns;
		most = ns > most ? ns : most;
	}
	EXPECT_EQ(nr_waits_of(0), 5);
	EXPECT_EQ(nr_waits_of(DELAY_NS), 5);
	EXPECT_EQ(nr_waits_of(mmnf_wait_most_ns(mmnf_wait_length(most))), 0);
	mmnf_field_close(field);
}

TEST(wait_is_as_long_as_the_server_takes)
{
	scratch();
	need_servers();
	wait_for_the_server(0);
	wait_for_the_server(1);
}

static uint64_t measured[MMNF_NR_LENGTHS]; /* by length */

static void *measure_singles(void *arg)
{
	uint64_t seed = (uint64_t)(uintptr_t)arg, i, got, index;
	int64_t ns;

	for (i = 0; i < 500; i++) {
		index = next_random(&seed) % (NR_TILES * TILE_ELEMENTS);
		ns = now_ns();
		EXPECT_EQ(read_one(field, index, &got), 8);
		ns = now_ns() - ns;
		__atomic_fetch_add(&measured[mmnf_wait_length((uint64_t)ns)], 1,
				   __ATOMIC_RELAXED);
	}
	return NULL;
}

static uint64_t median_ns(const uint64_t *lengths)
{
	uint64_t sum = 0, nr = 0;
	unsigned int i;

	for (i = 0; i < MMNF_NR_LENGTHS; i++)
		nr += lengths[i];
	for (i = 0; sum <= nr / 2; i++)
		sum += lengths[i];
	return mmnf_wait_most_ns(i - 1);
}

/*
 * Of many threads, whose answers are taken by one of them, each waits also until it
 * runs again.
 */
TEST(wait_of_threads_is_until_they_run)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	pthread_t threads[4 * THREADS];
	uint64_t i, here, shown;

	scratch();
	need_servers();
	opts.l2_once = 1;
	open_server(EXPORT, &opts);
	for (i = 0; i < 4 * THREADS; i++)
		ASSERT_EQ(pthread_create(&threads[i], NULL, measure_singles,
					 (void *)(uintptr_t)i),
			  0);
	for (i = 0; i < 4 * THREADS; i++)
		pthread_join(threads[i], NULL);
	here = median_ns(measured);
	shown = median_ns(field->published->waits);
	printf("# measured %llu us, published %llu us\n",
	       (unsigned long long)here / 1000,
	       (unsigned long long)shown / 1000);
	EXPECT_GT(shown, here / 3 * 2);
	EXPECT_LE(shown, here);
	mmnf_field_close(field);
}

/* ---- a forked child */

/* What it is refused at once did not take long. */
TEST(forked_child_has_not_waited)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	uint64_t got;
	int status;
	pid_t pid;

	scratch();
	need_servers();
	open_server(EXPORT, &opts);
	EXPECT_EQ(read_one(field, 5, &got), 8);
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(read_one(field, 50 * TILE_ELEMENTS, &got) != -ENXIO ? 1 :
		      nr_waits_of(60 * 1000000000ULL)			  ? 2 :
									    42);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	ASSERT_TRUE(WIFEXITED(status));
	EXPECT_EQ(WEXITSTATUS(status), 42);
	mmnf_field_close(field);
}

TEST_MAIN
