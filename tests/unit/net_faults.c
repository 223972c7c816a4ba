// SPDX-License-Identifier: MIT
/*
 * Faults of servers under a reader: bytes are right or the call says which server,
 * what and since when; others go on.  Bounds are wide, for a busy machine; what is
 * tested is that there are bounds.
 */
#define KTAP_TIMEOUT 120
#include "net_util.h"

#include <pthread.h>

#define STRIPE (1ULL << 20)
#define EXPORT "pattern 256T"
#define SLOW "--filter=delay pattern 256T rdelay=1ms"

static unsigned int nr_servers;

static struct mmnf_field *open_remote(unsigned int fail_ms,
				      unsigned int request_ms)
{
	static const uint64_t elements[1] = { 1ULL << 44 };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	if (access("f", F_OK))
		make_remote("f", MMNF_U64, 1, elements, nr_servers, STRIPE);
	opts.net_fail_timeout_ms = fail_ms;
	opts.net_request_timeout_ms = request_ms;
	opts.net_connections = 2;
	opts.l2_bytes = 1 << 20;
	if (mmnf_field_open(&field, "f", &opts))
		ktap_failed("# %s\n", mmnf_last_error());
	ASSERT_EQ(ktap_shared->failures, 0);
	return field;
}

/* An element of a server. */
static uint64_t index_on(unsigned int server, uint64_t chance)
{
	uint64_t stripe = chance / 8 % (1ULL << 18) * nr_servers + server;

	return stripe * (STRIPE / 8) + chance % 8 * 4096 + chance % 512;
}

struct reader {
	pthread_t thread;
	struct mmnf_field *field;
	unsigned int server;
	uint64_t seed, done, nr_wrong, nr_failed, longest_ns;
	bool stop;
	char words[512];
};

static void *read_on(void *arg)
{
	struct reader *r = arg;
	uint64_t index, got, from;

	while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		r->seed = r->seed * 6364136223846793005ULL +
			  1442695040888963407ULL;
		index = index_on(r->server, r->seed >> 20);
		from = (uint64_t)now_ns();
		if (read_one(r->field, index, &got) != sizeof(got)) {
			if (!r->nr_failed++)
				snprintf(r->words, sizeof(r->words), "%s",
					 mmnf_last_error());
		} else if (got != pattern(index, nr_servers, STRIPE)) {
			r->nr_wrong++;
		}
		from = (uint64_t)now_ns() - from;
		if (from > r->longest_ns)
			r->longest_ns = from;
		__atomic_fetch_add(&r->done, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

#define READERS 8

static struct reader readers[READERS];

/* Two for each of four servers, or more for fewer. */
static void start_readers(struct mmnf_field *field)
{
	unsigned int i;

	for (i = 0; i < READERS; i++) {
		readers[i] = (struct reader) { .field = field,
					       .server = i % nr_servers,
					       .seed = i };
		ASSERT_EQ(pthread_create(&readers[i].thread, NULL, read_on,
					 &readers[i]),
			  0);
	}
}

static uint64_t done_by(unsigned int server)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < READERS; i++)
		if (readers[i].server == server)
			sum += __atomic_load_n(&readers[i].done,
					       __ATOMIC_RELAXED);
	return sum;
}

/* Until each server has answered so many more. */
static void wait_progress(uint64_t more)
{
	uint64_t before[SERVERS_MAX];
	int64_t end = now_ns() + 60 * 1000000000LL;
	unsigned int i;

	for (i = 0; i < nr_servers; i++)
		before[i] = done_by(i);
	for (i = 0; i < nr_servers; i++)
		while (done_by(i) < before[i] + more) {
			ASSERT_LT(now_ns(), end);
			servers_mend();
			sleep_ms(5);
		}
}

static void stop_readers(uint64_t most_failed)
{
	uint64_t wrong = 0, failed = 0;
	unsigned int i;

	for (i = 0; i < READERS; i++)
		__atomic_store_n(&readers[i].stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < READERS; i++) {
		pthread_join(readers[i].thread, NULL);
		wrong += readers[i].nr_wrong;
		failed += readers[i].nr_failed;
		if (readers[i].nr_failed && !most_failed)
			printf("# %s\n", readers[i].words);
	}
	EXPECT_EQ(wrong, 0);
	EXPECT_LE(failed, most_failed);
}

static void begin(unsigned int nr, const char *kind)
{
	unsigned int i;

	scratch();
	need_servers();
	nr_servers = nr;
	for (i = 0; i < nr; i++)
		server_start(i, kind);
}

TEST(killed_and_started_again)
{
	struct mmnf_field *field;

	begin(4, SLOW);
	field = open_remote(0, 1000);
	start_readers(field);
	wait_progress(50);
	server_kill(2);
	sleep_ms(700);
	server_start(2, SLOW);
	wait_progress(50);
	stop_readers(0);
	EXPECT_GT(server_stats(field, 2).reconnects, 0);
	EXPECT_EQ(server_stats(field, 1).reconnects, 0);
	EXPECT_EQ(server_stats(field, 2).failed, 0);
	mmnf_field_close(field);
}

TEST(stopped_for_a_while)
{
	struct mmnf_field *field;

	begin(4, SLOW);
	field = open_remote(0, 500);
	start_readers(field);
	wait_progress(50);
	server_stop(1);
	sleep_ms(2500);
	kill(servers[1].pid, SIGCONT);
	wait_progress(50);
	stop_readers(0);
	EXPECT_GT(server_stats(field, 1).timeouts, 0);
	mmnf_field_close(field);
}

TEST(one_error_in_twenty)
{
	struct mmnf_field *field;

	begin(1, "--filter=error " EXPORT " error=EIO error-pread-rate=5%");
	field = open_remote(0, 5000);
	start_readers(field);
	wait_progress(4000);
	stop_readers(0);
	EXPECT_GT(server_stats(field, 0).retries, 10);
	EXPECT_EQ(server_stats(field, 0).failed, 0);
	mmnf_field_close(field);
}

TEST(nothing_but_errors)
{
	struct mmnf_field *field;
	uint64_t got;
	int64_t from;

	begin(2, "--filter=error " EXPORT
		 " error=EIO error-pread-rate=100% error-pread-file=broken");
	field = open_remote(0, 5000);
	EXPECT_EQ(read_one(field, index_on(0, 7), &got), 8);
	put_file("broken", "", 0);
	from = now_ns();
	EXPECT_FAILS(read_one(field, index_on(1, 999), &got), EIO, "mmnf_get",
		     "server 1 nbd+unix:///?socket=s1: Input/output error");
	EXPECT_TRUE(strstr(mmnf_last_error(), "7 times"));
	EXPECT_TRUE(strstr(mmnf_last_error(), "reading 4096 bytes at "));
	EXPECT_LT(now_ns() - from, 20 * 1000000000LL);
	unlink("broken");
	EXPECT_EQ(read_one(field, index_on(1, 999), &got), 8);
	EXPECT_EQ(got, pattern(index_on(1, 999), 2, STRIPE));
	mmnf_field_close(field);
}

/*
 * A server that says that it is going down, and stays, is asked now and then, for as
 * long as a request may wait.
 */
TEST(going_down_and_staying)
{
	struct mmnf_net_stats stats;
	struct mmnf_field *field;
	uint64_t got;

	begin(1,
	      "--filter=error " EXPORT
	      " error=ESHUTDOWN error-pread-rate=100% error-pread-file=broken");
	field = open_remote(1000, 5000);
	EXPECT_EQ(read_one(field, 7, &got), 8);
	put_file("broken", "", 0);
	EXPECT_FAILS(read_one(field, 1 << 20, &got), ETIMEDOUT, "mmnf_get",
		     "it says that it is going down");
	stats = server_stats(field, 0);
	printf("# asked %u times\n", (unsigned int)stats.requeued);
	/* 0, 10, 30, 70, 150, 310, 560 and 810 ms after the first. */
	EXPECT_GT(stats.requeued, 0);
	EXPECT_LE(stats.requeued, 8);
	EXPECT_EQ(stats.reconnects, 0);
	unlink("broken");
	EXPECT_EQ(read_one(field, 1 << 20, &got), 8);
	EXPECT_EQ(got, pattern(1 << 20, 1, 0));
	mmnf_field_close(field);
}

/* Then the next gateway to the same bytes is asked. */
TEST(one_gateway_of_two_going_down)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;
	char name[200];
	uint64_t got, i;

	begin(0, "");
	server_start(
		0,
		"--filter=error " EXPORT
		" error=ESHUTDOWN error-pread-rate=100% error-pread-file=broken");
	server_start(1, EXPORT);
	snprintf(name, sizeof(name), "%s,%s#raw,dtype=u64,shape=1048576",
		 servers[0].uri, servers[1].uri);
	opts.net_connections = 2;
	ASSERT_EQ(mmnf_field_open(&field, name, &opts), 0);
	put_file("broken", "", 0);
	for (i = 0; i < 100; i++) {
		ASSERT_EQ(read_one(field, i * 8192, &got), 8);
		EXPECT_EQ(got, pattern(i * 8192, 1, 0));
	}
	EXPECT_EQ(server_stats(field, 0).failed, 0);
	mmnf_field_close(field);
}

/* Reads until it works; false: it does not within a minute. */
static bool comes_back(struct mmnf_field *field, uint64_t index)
{
	int64_t end = now_ns() + 60 * 1000000000LL;
	uint64_t got;

	while (read_one(field, index, &got) != 8) {
		if (now_ns() > end)
			return false;
		servers_mend();
		sleep_ms(20);
	}
	return got == pattern(index, nr_servers, STRIPE);
}

TEST(gone_for_good)
{
	struct mmnf_field *field;
	uint64_t got;
	int64_t from;

	begin(2, EXPORT);
	field = open_remote(3000, 1000);
	EXPECT_EQ(read_one(field, index_on(1, 1), &got), 8);
	server_kill(1);
	from = now_ns();
	EXPECT_FAILS(read_one(field, index_on(1, 77777), &got), ETIMEDOUT,
		     "mmnf_get", "server 1 nbd+unix:///?socket=s1: connect: ");
	EXPECT_TRUE(strstr(mmnf_last_error(), "Connection refused for "));
	EXPECT_GE(now_ns() - from, 900 * 1000000LL);
	EXPECT_LT(now_ns() - from, 20 * 1000000000LL);
	/* Now it is known to be away: nobody waits again. */
	sleep_ms(300);
	from = now_ns();
	EXPECT_EQ(read_one(field, index_on(1, 88888), &got), -ETIMEDOUT);
	EXPECT_LT(now_ns() - from, 900 * 1000000LL);
	EXPECT_EQ(read_one(field, index_on(0, 88888), &got), 8);
	/* Not even the telling of it. */
	EXPECT_EQ(server_stats(field, 1).connections_up, 0);
	EXPECT_TRUE(strstr(server_stats(field, 1).cause, "refused"));
	server_start(1, EXPORT);
	EXPECT_TRUE(comes_back(field, index_on(1, 88888)));
	mmnf_field_close(field);
}

TEST(back_with_another_size)
{
	struct mmnf_field *field;
	uint64_t got;

	begin(2, EXPORT);
	field = open_remote(1500, 500);
	server_kill(0);
	server_start(0, "pattern 128T");
	EXPECT_FAILS(read_one(field, index_on(0, 4242), &got), ETIMEDOUT,
		     "mmnf_get",
		     "now has 140737488355328 bytes: expected 281474976710656");
	EXPECT_GT(server_stats(field, 0).refused, 0);
	EXPECT_EQ(read_one(field, index_on(1, 4242), &got), 8);
	server_kill(0);
	server_start(0, EXPORT);
	EXPECT_TRUE(comes_back(field, index_on(0, 4242)));
	mmnf_field_close(field);
}

/* One gateway of two is lost, comes back, and the other is lost. */
TEST(one_gateway_of_two_lost)
{
	static const uint64_t elements[1] = { 1ULL << 44 };
	MMNF_OPTS(mmnf_create_opts, opts);
	const char *uris[1] = {
		"nbd+unix:///?socket=s0,nbd+unix:///?socket=s1"
	};
	struct mmnf_field *field;

	begin(2, SLOW);
	nr_servers = 1;
	opts.net = uris;
	opts.nr_net = 1;
	ASSERT_EQ(mmnf_field_create("f", MMNF_U64, 1, elements, &opts), 0);
	field = open_remote(0, 1000);
	start_readers(field);
	wait_progress(100);
	server_kill(0);
	wait_progress(400);
	server_start(0, SLOW);
	sleep_ms(100);
	server_kill(1);
	wait_progress(400);
	stop_readers(0);
	EXPECT_EQ(server_stats(field, 0).failed, 0);
	mmnf_field_close(field);
}

static uint64_t rate_of_others(unsigned int ms)
{
	uint64_t before = done_by(0) + done_by(1) + done_by(2);

	sleep_ms(ms);
	return done_by(0) + done_by(1) + done_by(2) - before;
}

/*
 * Its share stops; theirs does not.  How much of their rate they keep is told,
 * and bound loosely here: `make bench-net` has the target.
 */
TEST(one_dead_server_of_four)
{
	struct mmnf_field *field;
	uint64_t before, after;

	begin(4, SLOW);
	field = open_remote(MMNF_NET_FOREVER, 1000);
	start_readers(field);
	wait_progress(50);
	before = rate_of_others(1500);
	server_kill(3);
	sleep_ms(100);
	after = rate_of_others(1500);
	printf("# others: %llu reads before, %llu after\n",
	       (unsigned long long)before, (unsigned long long)after);
	EXPECT_GT(after * 3, before);
	server_start(3, SLOW);
	wait_progress(20);
	stop_readers(0);
	mmnf_field_close(field);
}

TEST(forked_child_has_none)
{
	struct mmnf_field *field;
	uint64_t got;
	int status;
	pid_t pid;

	begin(1, EXPORT);
	field = open_remote(0, 1000);
	EXPECT_EQ(read_one(field, index_on(0, 5), &got), 8);
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(read_one(field, index_on(0, 50), &got) == -ENXIO ? 42 :
									 1);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 42);
	EXPECT_EQ(read_one(field, index_on(0, 50), &got), 8);
	mmnf_field_close(field);
}

/*
 * exit() ends the threads of the net first, for libnbd does not live through it:
 * neither a hang nor a crash.
 */
TEST(exit_while_reading)
{
	unsigned int i;
	int status, n;
	pid_t pid;

	begin(2, SLOW);
	fflush(stdout);
	for (n = 0; n < 3; n++) {
		pid = fork();
		if (!pid) {
			/* What is at exit is the parent's. */
			servers[0].pid = servers[1].pid = 0;
			scratch_path[0] = 0;
			start_readers(open_remote(0, 1000));
			sleep_ms(100 + (unsigned int)n * 50);
			exit(0);
		}
		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		EXPECT_EQ(status, 0);
		/* They may be about to fail: see servers_mend(). */
		for (i = 0; i < 2; i++) {
			server_kill(i);
			server_start(i, SLOW);
		}
	}
}

/*
 * A server that does one thing at a time has a long list of prefetch to do: what
 * somebody waits for does not stand behind it.
 */
TEST(demand_goes_first)
{
	struct mmnf_box box = { { 0 }, { 4 << 20 }, { 1 } };
	static const uint64_t elements[1] = { 1ULL << 44 };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;
	int64_t from, demand;
	uint64_t got;

	begin(1, "-t 1 --filter=delay " EXPORT " rdelay=20ms");
	make_remote("f", MMNF_U64, 1, elements, 1, 0);
	opts.net_connections = 1;
	opts.net_depth = 4;
	opts.l2_bytes = 256 << 20;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	from = now_ns();
	EXPECT_GT(mmnf_prefetch(field, &box), 0);
	while (server_stats(field, 0).queued < 30)
		ASSERT_LT(now_ns() - from, 30 * 1000000000LL);
	demand = now_ns();
	EXPECT_EQ(read_one(field, 1ULL << 30, &got), 8);
	demand = now_ns() - demand;
	EXPECT_EQ(got, pattern(1ULL << 30, 1, 0));
	/* The end of the box comes last. */
	while (server_stats(field, 0).queued ||
	       server_stats(field, 0).in_flight)
		sleep_ms(5);
	printf("# demand %lld ms, all %lld ms\n", (long long)demand / 1000000,
	       (long long)(now_ns() - from) / 1000000);
	EXPECT_LT(demand * 2, now_ns() - from);
	mmnf_field_close(field);
}

/* Closing does not wait for a server that never answers. */
TEST(closed_while_hung)
{
	struct mmnf_box box = { { 0 }, { 1 << 20 }, { 1 } };
	struct mmnf_field *field;
	int64_t from;

	begin(1, EXPORT);
	field = open_remote(MMNF_NET_FOREVER, 100000);
	server_stop(0);
	box.start[0] = 1 << 24;
	EXPECT_GT(mmnf_prefetch(field, &box), 0);
	sleep_ms(100);
	from = now_ns();
	mmnf_field_close(field);
	EXPECT_LT(now_ns() - from, 20 * 1000000000LL);
	kill(servers[0].pid, SIGCONT);
}

/* Nor does a batch, longer than it takes to give a request up. */
TEST(batch_closed_while_hung)
{
	static uint64_t index[200], got[200];
	struct mmnf_request r = {
		.index = index, .nr = 200, .dst = got, .dst_bytes = sizeof(got)
	};
	MMNF_OPTS(mmnf_batch_opts, opts);
	struct mmnf_batch *batch;
	struct mmnf_field *field;
	unsigned int i;
	int64_t from;

	begin(1, EXPORT);
	field = open_remote(MMNF_NET_FOREVER, 500);
	for (i = 0; i < 200; i++)
		index[i] = index_on(0, i * 7919);
	opts.depth = 32;
	ASSERT_EQ(mmnf_batch_open(&batch, field, &opts), 0);
	server_stop(0);
	ASSERT_EQ(mmnf_batch_submit(batch, &r, 1), 1);
	from = now_ns();
	mmnf_batch_close(batch);
	EXPECT_LT(now_ns() - from, 20 * 1000000000LL);
	/* Going on, nbdkit might fail its assertion later: see servers_mend(). */
	server_kill(0);
	server_start(0, EXPORT);
	EXPECT_TRUE(comes_back(field, index[5]));
	mmnf_field_close(field);
}

TEST_MAIN
