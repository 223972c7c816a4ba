// SPDX-License-Identifier: MIT
/*
 * The persistent cache in front of real servers: what was read is there without
 * them, and both ways to lose a write that was acknowledged.
 */
#define KTAP_TIMEOUT 240
#include "net_util.h"

#include <sys/eventfd.h>
#include <sys/mman.h>

#define NR 65536ULL /* u64: 512 KiB */

static uint64_t got[NR], want[NR];
static uint32_t grace_ms = 4000, fail_ms = 30000, request_ms = 10000;
static uint32_t connections; /* 0: as usual */

static struct mmnf_field *open_cached(bool writable)
{
	static const uint64_t shape[1] = { NR };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	if (access("f", F_OK))
		make_remote("f", MMNF_U64, 1, shape, 1, 0);
	opts.writable = writable;
	opts.net_cache_dir = "cache";
	opts.net_cache_bytes = 64 << 20;
	opts.net_cache_grace_ms = grace_ms;
	opts.net_fail_timeout_ms = fail_ms;
	opts.net_request_timeout_ms = request_ms;
	opts.net_connections = connections;
	if (mmnf_field_open(&field, "f", &opts))
		ktap_failed("# %s\n", mmnf_last_error());
	ASSERT_EQ(ktap_shared->failures, 0);
	return field;
}

static ssize_t get(struct mmnf_field *field, uint64_t start, uint64_t nr)
{
	struct mmnf_box box = { { start }, { nr }, { 1 } };

	return mmnf_get(field, &box, got, nr * 8);
}

static void put(struct mmnf_field *field, uint64_t start, uint64_t nr,
		uint64_t value)
{
	struct mmnf_box box = { { start }, { nr }, { 1 } };
	uint64_t i;

	for (i = 0; i < nr; i++)
		want[i] = value;
	ASSERT_EQ(mmnf_write(field, &box, want, nr * 8), (ssize_t)(nr * 8));
}

/* What the server's file has, asked past the library. */
static uint64_t in_file(const char *path, uint64_t index)
{
	uint64_t value = 0;
	int fd = open(path, O_RDONLY);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(pread(fd, &value, 8, (off_t)(index * 8)), 8);
	close(fd);
	return value;
}

TEST(reads_without_the_server)
{
	struct mmnf_field *field;
	uint64_t i;

	need_servers();
	scratch();
	server_start(0, "pattern 512K");
	field = open_cached(false);
	ASSERT_EQ(get(field, 0, NR), (ssize_t)(NR * 8));
	mmnf_field_close(field);

	field = open_cached(false);
	EXPECT_TRUE(ssd_tier(field).is_on);
	EXPECT_EQ(ssd_tier(field).used_bytes, 1 << 20);
	server_kill(0);
	memset(got, 0, sizeof(got));
	ASSERT_EQ(get(field, 0, NR), (ssize_t)(NR * 8));
	for (i = 0; i < NR; i++)
		ASSERT_EQ(got[i], pattern(i, 1, 0));
	EXPECT_TRUE(strstr(ssd_tier(field).text, " 0 misses"));
	mmnf_field_close(field);
}

/*
 * Batches of records of which some are in the cache, some are damaged there, and some
 * were never read: each comes from where it can, with and without an eventfd.
 */
#define RECORD 512ULL
#define NR_RECORDS 4096ULL /* 16 MiB, of which the first half is cached */
#define AT_ONCE 300U

static uint64_t records[AT_ONCE * RECORD];

static struct mmnf_field *open_records(void)
{
	static const uint64_t shape[2] = { NR_RECORDS, RECORD };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	if (access("f", F_OK))
		make_remote("f", MMNF_U64, 2, shape, 1, 0);
	opts.net_cache_dir = "cache";
	opts.net_cache_bytes = 64 << 20;
	opts.l2_bytes = 1 << 20;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	return field;
}

static void read_batch(struct mmnf_field *field, int fd)
{
	struct mmnf_completion done;
	struct mmnf_request request = { 0 };
	MMNF_OPTS(mmnf_batch_opts, opts);
	struct mmnf_batch *batch;
	uint64_t index[AT_ONCE], i, k;

	for (i = 0; i < AT_ONCE; i++)
		index[i] = rnd() % NR_RECORDS;
	opts.eventfd = fd;
	ASSERT_EQ(mmnf_batch_open(&batch, field, &opts), 0);
	request.index = index;
	request.nr = AT_ONCE;
	request.dst = records;
	request.dst_bytes = sizeof(records);
	ASSERT_EQ(mmnf_batch_submit(batch, &request, 1), 1);
	ASSERT_EQ(mmnf_batch_reap(batch, &done, 1, 1, -1), 1);
	ASSERT_EQ(done.result, (int64_t)sizeof(records));
	mmnf_batch_close(batch);
	for (i = 0; i < AT_ONCE; i++)
		for (k = 0; k < RECORD; k++)
			ASSERT_EQ(records[i * RECORD + k],
				  pattern(index[i] * RECORD + k, 1, 0));
}

TEST(cached_damaged_and_never_read)
{
	struct mmnf_field *field;
	uint64_t i, k;
	int fd, told;

	need_servers();
	scratch();
	server_start(0, "pattern 16M");
	field = open_records();
	for (i = 0; i < NR_RECORDS / 2; i += AT_ONCE / 2) {
		struct mmnf_box box = { { i, 0 },
					{ AT_ONCE / 2, RECORD },
					{ 1, 1 } };

		ASSERT_GT(mmnf_get(field, &box, records, sizeof(records)), 0);
	}
	mmnf_field_close(field);

	told = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fd = open("cache/data.0", O_RDWR);
	ASSERT_TRUE(fd >= 0 && told >= 0);
	field = open_records();
	memset(got, 0x5a, 4096);
	for (i = 0; i < 6; i++) {
		for (k = 0; k < 64; k++)
			ASSERT_EQ(pwrite(fd, got, 4096,
					 (off_t)(rnd() % 2048 * 4096)),
				  4096);
		read_batch(field, i % 2 ? told : 0);
	}
	printf("# %s\n", ssd_tier(field).text);
	EXPECT_TRUE(!strstr(ssd_tier(field).text, " 0 bad"));
	EXPECT_TRUE(!strstr(ssd_tier(field).text, " 0 hits"));
	mmnf_field_close(field);
	close(fd);
	close(told);
}

TEST(one_process_has_the_directory)
{
	struct mmnf_field *a, *b;

	need_servers();
	scratch();
	server_start(0, "memory 512K");
	a = open_cached(true);
	b = open_cached(true);
	EXPECT_TRUE(ssd_tier(a).is_on && !ssd_tier(b).is_on);
	EXPECT_TRUE(strstr(ssd_tier(b).text, "another process"));
	put(a, 5, 3, 9);
	EXPECT_EQ(mmnf_field_sync(a), 0);
	EXPECT_EQ(get(b, 5, 3), 24);
	EXPECT_EQ(got[0], 9);
	EXPECT_FAILS(mmnf_write(b, &(struct mmnf_box) { { 0 }, { 1 }, { 1 } },
				want, 8),
		     EBUSY, "mmnf_write", "one writer");
	mmnf_field_close(b);
	mmnf_field_close(a);
}

/*
 * nbdkit keeps writes in a cache of its own and loses them when it is killed; a
 * flush over the next connection succeeds and says nothing.
 */
TEST(flush_after_a_crash)
{
	static const char args[] =
		"--filter=cache file server.img cache=writeback";
	struct mmnf_field *field;
	unsigned int round;

	need_servers();
	scratch();
	put_file("server.img", got, sizeof(got));
	server_start(0, args);
	field = open_cached(true);
	for (round = 1; round <= 3; round++) {
		put(field, 100, 1000, round);
		/* Acknowledged, perhaps; flushed, perhaps. */
		sleep_ms(250 * round);
		server_kill(0);
		server_start(0, args);
		EXPECT_EQ(get(field, 100, 1000), 8000);
		EXPECT_EQ(got[0], round);
		EXPECT_EQ(mmnf_field_sync(field), 0);
		server_kill(0);
		EXPECT_EQ(in_file("server.img", 100), round);
		EXPECT_EQ(in_file("server.img", 1099), round);
		server_start(0, args);
	}
	mmnf_field_close(field);
}

static void wait_for_file(const char *path)
{
	unsigned int i;

	for (i = 0; access(path, F_OK); i++) {
		ASSERT_LT(i, 4000);
		sleep_ms(10);
	}
}

/* A newer write must not be overtaken by one whose connection was given up. */
TEST(write_that_comes_late)
{
	struct mmnf_field *field;

	need_servers();
	scratch();
	put_file("server.img", got, sizeof(got));
	server_start_slow(6, "");
	/* Given up after 4 s, landed 2 s later, 8 s before anything newer goes. */
	fail_ms = 4000;
	request_ms = 2000;
	grace_ms = 10000;
	field = open_cached(true);
	put(field, 512, 8, 'A');
	wait_for_file("asleep");
	put(field, 512, 8, 'B');
	while (get(field, 512, 8) != 64)
		; /* a server that is a script may be too slow */
	EXPECT_EQ(got[0], 'B');
	/* The first write fails in the end, or is sent again: no matter. */
	while (mmnf_field_sync(field))
		EXPECT_TRUE(strstr(mmnf_last_error(), "not on the servers"));
	wait_for_file("landed");
	EXPECT_EQ(in_file("server.img", 512), 'B');
	EXPECT_EQ(in_file("server.img", 519), 'B');
	mmnf_field_close(field);
}

/*
 * Killed while it writes, a hundred times.  Write n puts n into a range, then into
 * the eight words of LAST, so these tell how far it came: all ranges up to there are
 * whole, and of the next one all or nothing is seen.
 */
#define KILLS 100
#define LAST 65000ULL

enum doing { BETWEEN, WRITING, SYNCING, NR_DOING };

struct progress {
	uint64_t begun, synced;
	enum doing doing;
};

static uint64_t range_of(uint64_t n, uint64_t *nr)
{
	*nr = 1 + n % 700;
	return n * 37 % 60000;
}

static void write_for_ever(struct progress *p)
{
	struct mmnf_field *field = open_cached(true);
	uint64_t n, start, nr;

	for (n = p->begun + 1;; n++) {
		start = range_of(n, &nr);
		p->begun = n;
		p->doing = WRITING;
		put(field, start, nr, n);
		put(field, LAST, 8, n);
		p->doing = SYNCING;
		if (n % 5 == 0 && !mmnf_field_sync(field))
			p->synced = n;
		p->doing = BETWEEN;
	}
}

/* Writes (from, to] done. */
static void do_in(uint64_t *words, uint64_t from, uint64_t to)
{
	uint64_t n, start, nr, i;

	for (n = from + 1; n <= to; n++) {
		start = range_of(n, &nr);
		for (i = start; i < start + nr; i++)
			words[i] = n;
	}
	for (i = LAST; to > from && i < LAST + 8; i++)
		words[i] = to;
}

/*
 * In got is what a process left that had begun with write from + 1: should be words,
 * with all that it has done.
 */
static void compare(uint64_t *words, uint64_t from, const struct progress *p)
{
	uint64_t last = got[LAST], start = 0, nr = 0, i;

	EXPECT_GE(last, p->synced);
	EXPECT_GE(last, words[LAST]);
	ASSERT_LE(last, p->begun);
	if (p->begun > from + 1)
		ASSERT_GE(last, p->begun - 1);
	do_in(words, from, last);
	if (p->begun > from)
		start = range_of(p->begun, &nr);
	if (got[start] == p->begun)
		for (i = start; i < start + nr; i++)
			words[i] = p->begun;
	for (i = 0; i < NR; i++)
		ASSERT_EQ(got[i], words[i]);
}

TEST(client_that_is_killed)
{
	struct progress *p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned int round, nr_doing[NR_DOING] = { 0 };
	static uint64_t words[NR];
	struct mmnf_field *field;

	need_servers();
	scratch();
	ASSERT_TRUE(p != MAP_FAILED);
	put_file("server.img", words, sizeof(words));
	/* Few threads: what costs time here is to make and end them. */
	server_start(0, "-t 2 file server.img");
	connections = 1;
	mmnf_field_close(open_cached(false));
	/* So that a process lives to see the end of what it found. */
	grace_ms = 100;
	for (round = 0; round < KILLS; round++) {
		uint64_t before = p->begun, i;
		pid_t pid = fork();

		ASSERT_GE(pid, 0);
		if (!pid)
			write_for_ever(p);
		for (i = 0; p->begun == before && i < 30000; i++)
			sleep_ms(1);
		sleep_ms((unsigned int)(rnd() % (round % 10 ? 40 : 300)));
		kill(pid, SIGKILL);
		ASSERT_EQ(waitpid(pid, NULL, 0), pid);
		nr_doing[p->doing]++;
		/* nbdkit 1.32 may abort where it answers a client that is gone. */
		server_kill(0);
		server_start(0, "-t 2 file server.img");
		/* Read-only: what the log has is seen. */
		field = open_cached(false);
		ASSERT_EQ(get(field, 0, NR), (ssize_t)(NR * 8));
		mmnf_field_close(field);
		compare(words, before, p);
	}
	printf("# %llu writes, %llu synced; killed in a write %u, in a sync %u\n",
	       (unsigned long long)p->begun, (unsigned long long)p->synced,
	       nr_doing[WRITING], nr_doing[SYNCING]);
	EXPECT_GE(words[LAST], 1);
	EXPECT_GE(p->synced, 1);
}

TEST_MAIN
