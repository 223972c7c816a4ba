// SPDX-License-Identifier: MIT
/*
 * What servers say of their holes: reads there go nowhere, what is written is seen,
 * and servers that do not tell, or tell what makes no sense, are read as ever.
 */
#define KTAP_TIMEOUT 180
#include "nbd_server.h"

#include <pthread.h>

#define PAGE_ELEMENTS 512ULL
#define MEMORY "--filter=log memory 1G logfile=log"

static const uint64_t elements[1] = { 1ULL << 27 };

static unsigned int request_timeout_ms;

/* Of fields of the tests; how: 'r', 'w', 'o' for holes_off, 'c' for 'w' with a cache. */
static struct mmnf_field *open_as(char how)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	opts.writable = how == 'w' || how == 'c';
	opts.net_cache_dir = how == 'c' ? "cache" : NULL;
	opts.net_cache_bytes = how == 'c' ? 64 << 20 : 0;
	opts.net_holes_off = how == 'o';
	opts.net_request_timeout_ms = request_timeout_ms;
	opts.l2_bytes = 1 << 20;
	opts.prefetch_off = 1;
	if (mmnf_field_open(&field, "f", &opts))
		ktap_failed("# %s\n", mmnf_last_error());
	ASSERT_EQ(ktap_shared->failures, 0);
	return field;
}

static unsigned int nr_logged(const char *what)
{
	char line[512];
	unsigned int n = 0;
	FILE *log = fopen("log", "r");

	while (log && fgets(line, sizeof(line), log))
		n += strstr(line, what) != NULL;
	if (log)
		fclose(log);
	return n;
}

static uint64_t read_page(struct mmnf_field *field, uint64_t page)
{
	uint64_t got = 1;

	EXPECT_EQ(read_one(field, page * PAGE_ELEMENTS, &got), 8);
	return got;
}

/* Reads pages, each once and in no order, from this one on until holes are known. */
static void learn(struct mmnf_field *field, unsigned int server, uint64_t from)
{
	int64_t end = now_ns() + 60 * 1000000000LL;
	uint64_t i;

	for (i = 0; !server_stats(field, server).holes; i++) {
		ASSERT_LT(now_ns(), end);
		EXPECT_EQ(read_page(field, from + i * 37 % 1024), 0);
	}
}

TEST(reads_in_a_hole_go_nowhere)
{
	struct mmnf_net_stats before, after;
	struct mmnf_field *field;
	unsigned int i;

	scratch();
	need_servers();
	server_start(0, MEMORY);
	make_remote("f", MMNF_U64, 1, elements, 1, 0);
	field = open_as('r');
	learn(field, 0, 4096);
	before = server_stats(field, 0);
	/* 16,384 pages are what is asked for first. */
	for (i = 0; i < 1000; i++)
		EXPECT_EQ(read_page(field, i * 7919 % 16384), 0);
	after = server_stats(field, 0);
	EXPECT_EQ(after.reads, before.reads);
	EXPECT_GE(after.hole_reads, before.hole_reads + 700);
	EXPECT_EQ(nr_logged(" Read id="), after.reads);
	EXPECT_EQ(nr_logged(" Extents id="), 1);
	/* Beyond: one read, one question, more of it. */
	EXPECT_EQ(read_page(field, 200000), 0);
	EXPECT_EQ(server_stats(field, 0).reads, after.reads + 1);
	learn(field, 0, 0);
	mmnf_field_close(field);
	field = open_as('o');
	for (i = 0; i < 100; i++)
		EXPECT_EQ(read_page(field, i), 0);
	EXPECT_EQ(server_stats(field, 0).holes, 0);
	mmnf_field_close(field);
}

TEST(what_is_written_there_is_seen)
{
	struct mmnf_field *field;
	struct mmnf_box one = { { 0 }, { 1 }, { 1 } };
	static uint64_t model[32768];
	uint64_t page;
	unsigned int i;

	scratch();
	need_servers();
	server_start(0, MEMORY);
	make_remote("f", MMNF_U64, 1, elements, 1, 0);
	field = open_as('w');
	learn(field, 0, 0);
	for (i = 0; i < 500; i++) {
		page = i * 7919ULL % 16384;
		model[page] = i + 1;
		one.start[0] = page * PAGE_ELEMENTS;
		ASSERT_EQ(mmnf_write(field, &one, &model[page], 8), 8);
		EXPECT_EQ(read_page(field, page), model[page]);
		EXPECT_EQ(read_page(field, page ^ 1), model[page ^ 1]);
		/* It may ask again: what is said then is not to hide the write. */
		EXPECT_EQ(read_page(field, 16384 + page), 0);
	}
	for (page = 0; page < 32768; page++)
		EXPECT_EQ(read_page(field, page), model[page]);
	EXPECT_GT(server_stats(field, 0).hole_reads, 0);
	mmnf_field_close(field);
}

TEST(what_others_write_is_seen_after_evict)
{
	struct mmnf_box one = { { 77 * PAGE_ELEMENTS }, { 1 }, { 1 } };
	struct mmnf_field *field, *other;
	uint64_t value = 42;

	scratch();
	need_servers();
	server_start(0, MEMORY);
	make_remote("f", MMNF_U64, 1, elements, 1, 0);
	field = open_as('r');
	learn(field, 0, 4096);
	EXPECT_EQ(read_page(field, 77), 0);
	other = open_as('w');
	ASSERT_EQ(mmnf_write(other, &one, &value, 8), 8);
	ASSERT_EQ(mmnf_field_sync(other), 0);
	mmnf_field_close(other);
	EXPECT_GE(mmnf_evict(field, &one), 0);
	EXPECT_EQ(server_stats(field, 0).holes, 2);
	EXPECT_EQ(read_page(field, 77), 42);
	mmnf_field_close(field);
}

/*
 * Servers take blocks of 4096 bytes.  A write of 8 bytes leaves alone what another
 * has put beside it, in a hole that the writer knows; so it is, by way of the cache.
 */
TEST(what_others_write_beside)
{
	struct mmnf_box theirs = { { 77 * PAGE_ELEMENTS }, { 1 }, { 1 } };
	struct mmnf_box ours = { { 77 * PAGE_ELEMENTS + 1 }, { 1 }, { 1 } };
	const char *how;

	scratch();
	need_servers();
	for (how = "wc"; *how; how++) {
		uint64_t value = 42, mine = 43, got = 0;
		struct mmnf_field *field, *other;

		server_start(0, "--filter=blocksize-policy memory 1G"
				" blocksize-minimum=4096"
				" blocksize-preferred=4096"
				" blocksize-maximum=32M"
				" blocksize-error-policy=error");
		if (*how == 'w')
			make_remote("f", MMNF_U64, 1, elements, 1, 0);
		field = open_as(*how);
		learn(field, 0, 4096);
		other = open_as('w');
		ASSERT_EQ(mmnf_write(other, &theirs, &value, 8), 8);
		ASSERT_EQ(mmnf_field_sync(other), 0);
		mmnf_field_close(other);
		ASSERT_EQ(mmnf_write(field, &ours, &mine, 8), 8);
		ASSERT_EQ(mmnf_field_sync(field), 0);
		mmnf_field_close(field);
		field = open_as('o');
		EXPECT_EQ(mmnf_get(field, &theirs, &got, 8), 8);
		EXPECT_EQ(got, 42);
		EXPECT_EQ(mmnf_get(field, &ours, &got, 8), 8);
		EXPECT_EQ(got, 43);
		mmnf_field_close(field);
		server_kill(0);
	}
}

static struct {
	struct mmnf_field *field;
	uint64_t page;
	bool stop;
} reading;

static void *read_on(void *arg)
{
	uint64_t got;

	while (!__atomic_load_n(&reading.stop, __ATOMIC_RELAXED))
		read_one(reading.field,
			 PAGE_ELEMENTS * __atomic_load_n(&reading.page,
							 __ATOMIC_RELAXED),
			 &got);
	return arg;
}

/* While another thread reads it, which brings it into L2 again. */
TEST(evicted_while_it_is_read)
{
	struct mmnf_field *field, *other;
	uint64_t value = 42, stale = 0;
	pthread_t thread;
	unsigned int i;

	scratch();
	need_servers();
	server_start(0, "memory 1G");
	make_remote("f", MMNF_U64, 1, elements, 1, 0);
	field = reading.field = open_as('r');
	learn(field, 0, 4096);
	other = open_as('w');
	ASSERT_EQ(pthread_create(&thread, NULL, read_on, NULL), 0);
	for (i = 0; i < 1000; i++) {
		uint64_t page = 14000 - i * 2;
		struct mmnf_box one = { { page * PAGE_ELEMENTS },
					{ 1 },
					{ 1 } };
		struct mmnf_box box = { { page * PAGE_ELEMENTS },
					{ 2048 * PAGE_ELEMENTS },
					{ 1 } };

		__atomic_store_n(&reading.page, page, __ATOMIC_RELAXED);
		ASSERT_EQ(mmnf_write(other, &one, &value, 8), 8);
		ASSERT_EQ(mmnf_field_sync(other), 0);
		EXPECT_GE(mmnf_evict(field, &box), 0);
		stale += read_page(field, page) != value;
	}
	__atomic_store_n(&reading.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	EXPECT_EQ(stale, 0);
	mmnf_field_close(other);
	mmnf_field_close(field);
}

/* Random writes of two clients and reads, over stripes of which most are holes. */
TEST(stripes_with_holes)
{
	static uint64_t model[1 << 15];
	struct mmnf_box page = { { 0 }, { 1 }, { 1 } };
	struct mmnf_field *field, *other;
	uint64_t seed = 1, at, i;

	scratch();
	need_servers();
	for (i = 0; i < 4; i++)
		server_start((unsigned int)i, "memory 1G");
	make_remote("f", MMNF_U64, 1, elements, 4, 256 << 10);
	field = open_as('w');
	for (i = 0; i < 20000; i++) {
		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		at = (seed >> 33) % (1 << 15);
		page.start[0] = at * PAGE_ELEMENTS;
		if (i % 50 == 49) {
			model[at] = i;
			ASSERT_EQ(mmnf_write(field, &page, &i, 8), 8);
		}
		if (i % 2000 == 1999) {
			model[at] = i;
			other = open_as('w');
			ASSERT_EQ(mmnf_write(other, &page, &i, 8), 8);
			ASSERT_EQ(mmnf_field_sync(other), 0);
			mmnf_field_close(other);
			EXPECT_GE(mmnf_evict(field, &page), 0);
		}
		EXPECT_EQ(read_page(field, at), model[at]);
	}
	for (i = 0, at = 0; i < 4; i++)
		at += server_stats(field, (unsigned int)i).hole_reads;
	printf("# %u reads in holes\n", (unsigned int)at);
	EXPECT_GT(at, 1000);
	mmnf_field_close(field);
}

/* A few bytes are 0 in the densest of fields, and no reason to ask. */
TEST(reads_of_a_few_zeros_ask_nothing)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;
	uint64_t got[PAGE_ELEMENTS], i;
	struct mmnf_box box = { { 0 }, { PAGE_ELEMENTS - 1 }, { 1 } };

	scratch();
	need_servers();
	server_start(0, MEMORY);
	make_remote("f", MMNF_U64, 1, elements, 1, 0);
	opts.l2_once = 1;
	opts.prefetch_off = 1;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	for (i = 0; i < 300; i++) {
		box.start[0] = i * 7919 * PAGE_ELEMENTS % elements[0];
		EXPECT_EQ(mmnf_get(field, &box, got, sizeof(got)), 4088);
	}
	sleep_ms(100);
	EXPECT_EQ(nr_logged(" Extents id="), 0);
	/* A whole page is. */
	box.count[0] = PAGE_ELEMENTS;
	for (i = 0; i < 300 && !server_stats(field, 0).holes; i++) {
		box.start[0] = i * 7919 * PAGE_ELEMENTS % elements[0];
		EXPECT_EQ(mmnf_get(field, &box, got, sizeof(got)), 4096);
		sleep_ms(10);
	}
	EXPECT_GT(nr_logged(" Extents id="), 0);
	mmnf_field_close(field);
}

/* Those that say nothing of holes, and those that have none, are asked seldom. */
TEST(servers_that_do_not_tell)
{
	static const char *const kinds[] = {
		"--no-sr " MEMORY,
		"--filter=noextents " MEMORY,
		"--filter=log --filter=limit memory 1G limit=4 logfile=log",
	};
	struct mmnf_field *field;
	unsigned int i, k;

	scratch();
	need_servers();
	server_start(0, "memory 1G");
	make_remote("f", MMNF_U64, 1, elements, 1, 0);
	server_kill(0);
	for (k = 0; k < 3; k++) {
		unlink("log");
		server_start(0, kinds[k]);
		field = open_as('r');
		/* Or the question would be among the clients that are let in. */
		for (i = 0; server_stats(field, 0).connections_up < 4; i++) {
			ASSERT_LT(i, 1000);
			sleep_ms(10);
		}
		for (i = 0; i < 3000; i++)
			EXPECT_EQ(read_page(field, i * 7919ULL % 200000), 0);
		EXPECT_EQ(server_stats(field, 0).hole_reads, 0);
		EXPECT_EQ(server_stats(field, 0).failed, 0);
		EXPECT_EQ(server_stats(field, 0).reconnects, 0);
		/* After 1, 2, 4, 8 .. 1024 reads. */
		EXPECT_LE(nr_logged(" Extents id="), 12);
		mmnf_field_close(field);
		server_kill(0);
	}
}

/* Where a second connection need not see what the first has written. */
TEST(one_connection_alone)
{
	struct mmnf_field *field;
	unsigned int i;

	scratch();
	need_servers();
	server_start(0,
		     "--filter=multi-conn " MEMORY " multi-conn-mode=disable");
	make_remote("f", MMNF_U64, 1, elements, 1, 0);
	field = open_as('w');
	for (i = 0; i < 100; i++)
		EXPECT_EQ(read_page(field, i * 7919ULL % 200000), 0);
	EXPECT_EQ(nr_logged(" Extents id="), 0);
	EXPECT_EQ(nr_logged(" Connect export="), 1);
	mmnf_field_close(field);
}

TEST(answers_that_make_no_sense)
{
	static const uint64_t data = 0x5555555555555555ULL;
	struct mmnf_net_stats stats;
	struct mmnf_field *field;
	unsigned int i, k;
	uint64_t page;

	scratch();
	need_servers();
	/* So that the silent one is given up. */
	request_timeout_ms = 500;
	for (k = 0; k < NBD_MANNERS; k++) {
		nbd_server_start(0, (enum manner)k);
		if (!k)
			make_remote("f", MMNF_U64, 1, elements, 1, 0);
		field = open_as('r');
		for (i = 0; i < 3000; i++) {
			/* Of 512 MiB: half of them zeros. */
			page = i * 7919ULL % (1 << 17);
			ASSERT_EQ(read_page(field, page),
				  page < DATA_AT / 4096 ? 0 : data);
		}
		stats = server_stats(field, 0);
		printf("# manner %u: %u holes, %u reads there\n", k,
		       (unsigned int)stats.holes,
		       (unsigned int)stats.hole_reads);
		if (k == NBD_HONEST || k == NBD_TOO_LONG) {
			EXPECT_GT(stats.hole_reads, 0);
			EXPECT_LE(stats.hole_bytes, DATA_AT);
		} else {
			EXPECT_EQ(stats.holes, 0);
		}
		EXPECT_EQ(stats.failed, 0);
		mmnf_field_close(field);
		server_kill(0);
	}
}

/* By which its server hangs up: not without end, whatever else it answers. */
TEST(questions_that_cost_a_connection)
{
	int64_t end = now_ns() + 3 * 1000000000LL;
	struct mmnf_field *field;
	uint64_t i;

	scratch();
	need_servers();
	nbd_server_start(0, NBD_HANG_UP);
	make_remote("f", MMNF_U64, 1, elements, 1, 0);
	field = open_as('r');
	for (i = 0; now_ns() < end; i++)
		EXPECT_EQ(read_page(field, i * 7919ULL % 65536), 0);
	EXPECT_LE(__atomic_load_n(&nbd_shared->nr_asked, __ATOMIC_ACQUIRE), 3);
	EXPECT_EQ(server_stats(field, 0).failed, 0);
	mmnf_field_close(field);
	server_kill(0);
}

/* A write while the answer is on its way, which does not know of it. */
TEST(write_overtakes_the_answer)
{
	struct mmnf_box one = { { PAGE_AT / 8 }, { 1 }, { 1 } };
	int64_t end = now_ns() + 60 * 1000000000LL;
	struct mmnf_field *field;
	uint64_t value = 7, page;

	scratch();
	need_servers();
	nbd_server_start(0, NBD_LATE);
	make_remote("f", MMNF_U64, 1, elements, 1, 0);
	field = open_as('w');
	for (page = 0;
	     !__atomic_load_n(&nbd_shared->nr_asked, __ATOMIC_ACQUIRE);
	     page++) {
		ASSERT_LT(now_ns(), end);
		EXPECT_EQ(read_page(field, 1000 + page % 10000), 0);
	}
	ASSERT_EQ(mmnf_write(field, &one, &value, 8), 8);
	while (!__atomic_load_n(&nbd_shared->nr_answered, __ATOMIC_ACQUIRE)) {
		ASSERT_LT(now_ns(), end);
		sleep_ms(10);
	}
	/* These take the answer in. */
	for (page = 0; page < 100; page++)
		EXPECT_EQ(read_page(field, 20000 + page), 0);
	EXPECT_EQ(read_page(field, PAGE_AT / 4096), value);
	mmnf_field_close(field);
}

TEST_MAIN
