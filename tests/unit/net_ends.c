// SPDX-License-Identifier: MIT
/*
 * How connections begin and end: with servers that hang, and with others who hold
 * a copy of the socket.  Bounds are wide, for a busy machine.
 */
#define KTAP_TIMEOUT 120
#include "net_util.h"

#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>

#define EXPORT "pattern 1P"
#define STRIPE (1ULL << 20)

/*
 * The resolver, for libnbd: "storeN" is server N, by its Unix socket.  It can be made
 * to hang, where a real one does.
 */
static bool resolver_hangs;
static unsigned int nr_hanging;

int getaddrinfo(const char *node, const char *service,
		const struct addrinfo *hints, struct addrinfo **out)
{
	struct addrinfo *ai = calloc(1, sizeof(*ai));
	struct sockaddr_un *addr = calloc(1, sizeof(*addr));

	(void)service;
	(void)hints;
	if (!ai || !addr || strncmp(node, "store", 5))
		abort();
	if (__atomic_load_n(&resolver_hangs, __ATOMIC_ACQUIRE))
		__atomic_add_fetch(&nr_hanging, 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(&resolver_hangs, __ATOMIC_ACQUIRE))
		poll(NULL, 0, 10);
	addr->sun_family = AF_UNIX;
	snprintf(addr->sun_path, sizeof(addr->sun_path), "s%s", node + 5);
	ai->ai_family = AF_UNIX;
	ai->ai_socktype = SOCK_STREAM;
	ai->ai_addr = (struct sockaddr *)addr;
	ai->ai_addrlen = sizeof(*addr);
	*out = ai;
	return 0;
}

void freeaddrinfo(struct addrinfo *ai)
{
	free(ai->ai_addr);
	free(ai);
}

/* Server 0 is gone, and looking up its name does not end. */
static void hang(struct mmnf_field *field)
{
	struct mmnf_box box = { { 4096 }, { 4096 }, { 1 } };
	int64_t end = now_ns() + 60 * 1000000000LL;

	__atomic_store_n(&resolver_hangs, true, __ATOMIC_RELEASE);
	kill(servers[0].pid, SIGKILL);
	EXPECT_GT(mmnf_prefetch(field, &box), 0);
	while (!__atomic_load_n(&nr_hanging, __ATOMIC_ACQUIRE)) {
		ASSERT_LT(now_ns(), end);
		sleep_ms(5);
	}
}

static const uint64_t elements[1] = { 1ULL << 44 };

static struct mmnf_field *open_remote(const char *path, unsigned int fail_ms)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	opts.net_fail_timeout_ms = fail_ms;
	opts.net_connections = 2;
	if (mmnf_field_open(&field, path, &opts))
		ktap_failed("# %s\n", mmnf_last_error());
	ASSERT_EQ(ktap_shared->failures, 0);
	return field;
}

struct reader {
	pthread_t thread;
	struct mmnf_field *field;
	uint64_t index, got;
	ssize_t result;
};

static void *read_thread(void *arg)
{
	struct reader *r = arg;

	r->result = read_one(r->field, r->index, &r->got);
	return NULL;
}

static int64_t cpu_ns(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000LL +
	       (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000LL;
}

/*
 * A child after fork() holds copies of the sockets: whoever waits for a dead server
 * sleeps all the same.
 */
TEST(forked_child_holds_the_sockets)
{
	struct reader r = { .index = 1 << 20 };
	int64_t spent;
	uint64_t got;
	pid_t child;

	scratch();
	need_servers();
	server_start(0, EXPORT);
	make_remote("f", MMNF_U64, 1, elements, 1, 0);
	r.field = open_remote("f", MMNF_NET_FOREVER);
	ASSERT_EQ(read_one(r.field, 5, &got), 8);
	fflush(stdout);
	child = fork();
	if (!child) {
		pause();
		_exit(0);
	}
	server_kill(0);
	ASSERT_EQ(pthread_create(&r.thread, NULL, read_thread, &r), 0);
	sleep_ms(200);
	spent = cpu_ns();
	sleep_ms(1500);
	spent = cpu_ns() - spent;
	printf("# %lld ms of the processor in 1500\n",
	       (long long)spent / 1000000);
	EXPECT_LT(spent, 300 * 1000000LL);
	server_start(0, EXPORT);
	ASSERT_EQ(pthread_join(r.thread, NULL), 0);
	EXPECT_EQ(r.result, 8);
	EXPECT_EQ(r.got, pattern(r.index, 1, 0));
	mmnf_field_close(r.field);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

/*
 * However long requests may wait, closing does not wait for ever: the log keeps what
 * the server does not have, and the next open sends it.
 */
TEST(close_leaves_it_to_the_log)
{
	static const uint64_t data[512] = { 3, 1, 4, 1, 5 };
	struct mmnf_box page = { { 512 }, { 512 }, { 1 } };
	static const uint64_t few[1] = { 1 << 20 };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;
	uint64_t got[512];
	int64_t took;

	scratch();
	need_servers();
	server_start(0, "memory 1G");
	make_remote("f", MMNF_U64, 1, few, 1, 0);
	opts.writable = 1;
	opts.net_fail_timeout_ms = MMNF_NET_FOREVER;
	opts.net_cache_dir = "cache";
	opts.net_cache_bytes = 64 << 20;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	server_kill(0);
	ASSERT_EQ(mmnf_write(field, &page, data, sizeof(data)), sizeof(data));
	took = now_ns();
	mmnf_field_close(field);
	took = now_ns() - took;
	printf("# closed after %lld ms\n", (long long)took / 1000000);
	EXPECT_LT(took, 80 * 1000000000LL);
	server_start(0, "memory 1G");
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	EXPECT_EQ(mmnf_field_sync(field), 0);
	mmnf_field_close(field);
	/* By another road. */
	opts.net_cache_dir = NULL;
	opts.net_cache_bytes = 0;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	EXPECT_EQ(mmnf_get(field, &page, got, sizeof(got)), sizeof(got));
	EXPECT_EQ(memcmp(got, data, sizeof(data)), 0);
	mmnf_field_close(field);
}

/* Where a request waits for less than that, so does closing. */
TEST(close_waits_as_long_as_a_request)
{
	struct mmnf_box page = { { 512 }, { 512 }, { 1 } };
	static const uint64_t few[1] = { 1 << 20 };
	static const uint64_t data[512] = { 2, 7, 1, 8, 2 };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;
	int64_t took;

	scratch();
	need_servers();
	server_start(0, "memory 1G");
	make_remote("f", MMNF_U64, 1, few, 1, 0);
	opts.writable = 1;
	opts.net_fail_timeout_ms = 500;
	opts.net_cache_dir = "cache";
	opts.net_cache_bytes = 64 << 20;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	/* It takes the write, and never answers. */
	server_stop(0);
	ASSERT_EQ(mmnf_write(field, &page, data, sizeof(data)), sizeof(data));
	took = now_ns();
	mmnf_field_close(field);
	took = now_ns() - took;
	printf("# closed after %lld ms\n", (long long)took / 1000000);
	EXPECT_LT(took, 20 * 1000000000LL);
	kill(servers[0].pid, SIGCONT);
}

/* Two servers in stripes, the first by its name. */
static struct mmnf_field *open_named(void)
{
	MMNF_OPTS(mmnf_create_opts, opts);
	const char *uris[2] = { "nbd://store0", servers[1].uri };

	opts.net = uris;
	opts.nr_net = 2;
	opts.stripe_bytes = 1 << 20;
	if (access("f", F_OK))
		ASSERT_EQ(mmnf_field_create("f", MMNF_U64, 1, elements, &opts),
			  0);
	return open_remote("f", 0);
}

TEST(name_that_hangs_holds_up_nobody_else)
{
	const uint64_t second = (1 << 20) / 8;
	struct mmnf_field *field;
	int64_t from;
	uint64_t got;

	scratch();
	need_servers();
	server_start(0, EXPORT);
	server_start(1, EXPORT);
	field = open_named();
	ASSERT_EQ(read_one(field, 5, &got), 8);
	EXPECT_EQ(got, pattern(5, 2, 1 << 20));
	hang(field);
	/* The other server is reconnected to. */
	server_kill(1);
	server_start(1, EXPORT);
	from = now_ns();
	EXPECT_EQ(read_one(field, second + 70000, &got), 8);
	EXPECT_EQ(got, pattern(second + 70000, 2, 1 << 20));
	EXPECT_LT(now_ns() - from, 20 * 1000000000LL);
	/* One look-up of a connection at a time. */
	sleep_ms(1000);
	EXPECT_LE(__atomic_load_n(&nr_hanging, __ATOMIC_ACQUIRE), 2);
	/* Nor does it hold up the end; what is left of it ends by itself. */
	from = now_ns();
	mmnf_field_close(field);
	EXPECT_LT(now_ns() - from, 20 * 1000000000LL);
	server_kill(0);
	server_start(0, EXPORT);
	__atomic_store_n(&resolver_hangs, false, __ATOMIC_RELEASE);
	field = open_named();
	EXPECT_EQ(read_one(field, 6, &got), 8);
	mmnf_field_close(field);
}

/* A thread that is cancelled in exit() leaves what libnbd had for it. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libnbd\nleak:libxml2\nleak:getaddrinfo\nleak:vasprintf\n";
}

TEST(exit_while_a_name_hangs)
{
	int status;
	pid_t pid;

	scratch();
	need_servers();
	server_start(0, EXPORT);
	server_start(1, EXPORT);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		hang(open_named());
		/* What is at exit is the parent's. */
		servers[1].pid = 0;
		scratch_path[0] = 0;
		exit(0);
	}
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
}

/* Two gateways to the same bytes. */
static void make_gateways(void)
{
	MMNF_OPTS(mmnf_create_opts, create);
	const char *uris[1];
	char both[200];

	scratch();
	need_servers();
	server_start(0, EXPORT);
	server_start(1, EXPORT);
	snprintf(both, sizeof(both), "%s,%s", servers[0].uri, servers[1].uri);
	uris[0] = both;
	create.net = uris;
	create.nr_net = 1;
	ASSERT_EQ(mmnf_field_create("f", MMNF_U64, 1, elements, &create), 0);
}

/* The first takes connections and says nothing. */
TEST(open_while_a_gateway_hangs)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;
	int64_t took;
	uint64_t got;

	make_gateways();
	server_stop(0);
	opts.net_request_timeout_ms = 60000;
	took = now_ns();
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	took = now_ns() - took;
	printf("# open in %lld ms\n", (long long)took / 1000000);
	EXPECT_LT(took, 30 * 1000000000LL);
	EXPECT_EQ(read_one(field, 7, &got), 8);
	EXPECT_EQ(got, pattern(7, 1, 0));
	mmnf_field_close(field);
}

/* It hangs once connected to: not asked again before the other. */
TEST(gateway_that_comes_to_hang)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;
	int64_t took = 0;
	uint64_t got;
	int tries;

	make_gateways();
	opts.net_connections = 1;
	opts.net_request_timeout_ms = 5000;
	/* A slow machine may have been given the other gateway: then nothing hangs. */
	for (tries = 0; tries < 5 && took < 4000 * 1000000LL; tries++) {
		kill(servers[0].pid, SIGCONT);
		ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
		server_stop(0);
		took = now_ns();
		EXPECT_EQ(read_one(field, 7, &got), 8);
		took = now_ns() - took;
		printf("# read in %lld ms\n", (long long)took / 1000000);
		EXPECT_EQ(got, pattern(7, 1, 0));
		mmnf_field_close(field);
	}
	EXPECT_GT(took, 4000 * 1000000LL);
	EXPECT_LT(took, 2 * 5000 * 1000000LL);
}

static struct mmnf_field *open_striped(void)
{
	scratch();
	need_servers();
	server_start(0, EXPORT);
	server_start(1, EXPORT);
	make_remote("f", MMNF_U64, 1, elements, 2, STRIPE);
	return open_remote("f", 60000);
}

/* Places of one server, in which nobody sees an order. */
static void read_from(struct mmnf_field *field, unsigned int server, uint64_t n)
{
	uint64_t at = (n * n * 2 + server) * (STRIPE / 8), got;

	EXPECT_EQ(read_one(field, at, &got), 8);
	EXPECT_EQ(got, pattern(at, 2, STRIPE));
}

static uint64_t hung; /* a place that nobody else reads */

static void *read_hung(void *field)
{
	read_from(field, 0, 4096 + hung++);
	return NULL;
}

/* How long a read from server 1 takes while a thread waits for server 0, in vain. */
static int64_t read_beside(struct mmnf_field *field, uint64_t try)
{
	uint64_t first = try * 64 + 1, n;
	pthread_t thread;
	int64_t took;

	for (n = first; n < first + 63; n++)
		read_from(field, 0, n);
	server_stop(0);
	ASSERT_EQ(pthread_create(&thread, NULL, read_hung, field), 0);
	sleep_ms(50);
	took = now_ns();
	read_from(field, 1, first);
	took = now_ns() - took;
	kill(servers[0].pid, SIGCONT);
	pthread_join(thread, NULL);
	return took;
}

/*
 * Who sleeps does not poll what was idle for long: he is told.  The keeper, who has
 * all polled each 100 ms, would do half as well.
 */
TEST(read_beside_one_that_hangs)
{
	struct mmnf_field *field = open_striped();
	unsigned int i, nr_quick = 0;

	for (i = 0; i < 15; i++)
		nr_quick += read_beside(field, i) < 20 * 1000000LL;
	EXPECT_GE(nr_quick, 9);
	mmnf_field_close(field);
}

/* Nobody asks it for anything. */
TEST(death_of_an_idle_server_is_seen)
{
	struct mmnf_field *field = open_striped();
	int64_t end;
	uint64_t n;

	for (n = 1; n <= 64; n++)
		read_from(field, 0, n);
	EXPECT_GT(server_stats(field, 1).connections_up, 0);
	server_kill(1);
	end = now_ns() + 10 * 1000000000LL;
	while (server_stats(field, 1).connections_up && now_ns() < end) {
		read_from(field, 0, n++);
		sleep_ms(5);
	}
	EXPECT_EQ(server_stats(field, 1).connections_up, 0);
	mmnf_field_close(field);
}

static bool readers_stop;

static void *read_on(void *arg)
{
	struct mmnf_box box = { { 0 }, { 1 }, { 1 } };
	uint64_t got;

	while (!__atomic_load_n(&readers_stop, __ATOMIC_RELAXED)) {
		box.start[0] += 1 << 20;
		read_one(arg, box.start[0], &got);
	}
	return NULL;
}

/* In the child nobody gives back what a thread of the parent has locked. */
TEST(children_ask_and_close_while_threads_read)
{
	struct mmnf_field *field;
	pthread_t thread[2];
	int i, status;
	pid_t child;

	scratch();
	need_servers();
	server_start(0, EXPORT);
	make_remote("f", MMNF_U64, 1, elements, 1, 0);
	field = open_remote("f", 30000);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(pthread_create(&thread[i], NULL, read_on, field), 0);
	fflush(stdout);
	for (i = 0; i < 150; i++) {
		child = fork();
		if (!child) {
			MMNF_OPTS(mmnf_tiers, tiers);

			alarm(20);
			mmnf_tiers_info(field, &tiers);
			mmnf_field_close(field);
			_exit(0);
		}
		ASSERT_EQ(waitpid(child, &status, 0), child);
		ASSERT_EQ(status, 0);
	}
	__atomic_store_n(&readers_stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(pthread_join(thread[i], NULL), 0);
	mmnf_field_close(field);
}

TEST_MAIN
