// SPDX-License-Identifier: MIT
/*
 * How connections begin and end: with servers that hang, and with others who hold
 * a copy of the socket.  Bounds are wide, for a busy machine.
 */
#define KTAP_TIMEOUT 120
#include "net_util.h"

#include <pthread.h>
#include <sys/resource.h>

#define EXPORT "pattern 1P"

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

static ssize_t read_one(struct mmnf_field *field, uint64_t index, uint64_t *out)
{
	struct mmnf_box box = { { index }, { 1 }, { 1 } };

	return mmnf_get(field, &box, out, sizeof(*out));
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

TEST_MAIN
