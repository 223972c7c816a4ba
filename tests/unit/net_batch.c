// SPDX-License-Identifier: MIT
/*
 * Batches on the network that several threads reap: who waits without end is not
 * left waiting when another takes what it waits for, or a deadline comes; who waits
 * for some time, no longer.
 */
#define KTAP_TIMEOUT 120
#include "engine-net.h"
#include "net-internal.h"
#include "net_util.h"

#include <pthread.h>

#define PAGE_ELEMENTS 512ULL
#define ROUNDS 100

static const uint64_t elements[1] = { 1ULL << 27 };

static struct mmnf_field *field;
static struct mmnf_batch *batch;
static struct mmnf_completion last; /* of wait_for_one() */
static bool stop, stop_others;

static void open_server(const char *args)
{
	MMNF_OPTS(mmnf_open_opts, opts);

	scratch();
	need_servers();
	server_start(0, args);
	make_remote("f", MMNF_U64, 1, elements, 1, 0);
	opts.net_holes_off = 1;
	opts.prefetch_off = 1;
	opts.l2_bytes = 1 << 20;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
}

static void submit(uint64_t page, uint64_t *dst, int64_t deadline_ns)
{
	struct mmnf_box box = { { page * PAGE_ELEMENTS }, { 1 }, { 1 } };
	struct mmnf_request r = { .user_data = page,
				  .box = &box,
				  .nr = 1,
				  .dst = dst,
				  .dst_bytes = 8,
				  .deadline_ns = deadline_ns };

	ASSERT_EQ(mmnf_batch_submit(batch, &r, 1), 1);
}

static void *wait_for_one(void *arg)
{
	mmnf_batch_reap(batch, &last, 1, 1, -1);
	return arg;
}

static void *take_all(void *arg)
{
	struct mmnf_completion c;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		usleep(200);
		mmnf_batch_reap(batch, &c, 1, 0, 0);
	}
	return arg;
}

/* So that it is mostly this thread that takes answers from the socket. */
static void *get_others(void *arg)
{
	uint64_t i, got;

	for (i = 0; !__atomic_load_n(&stop_others, __ATOMIC_RELAXED); i++)
		read_one(field, (100000 + i % 50000) * PAGE_ELEMENTS, &got);
	return arg;
}

TEST(another_takes_it)
{
	pthread_t waits, takes, others;
	unsigned int i;
	uint64_t got;

	open_server("--filter=delay memory 1G rdelay=5ms");
	ASSERT_EQ(pthread_create(&others, NULL, get_others, NULL), 0);
	for (i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(mmnf_batch_open(&batch, field, NULL), 0);
		submit(i * 7919ULL % 200000, &got, 0);
		__atomic_store_n(&stop, false, __ATOMIC_RELAXED);
		ASSERT_EQ(pthread_create(&waits, NULL, wait_for_one, NULL), 0);
		/* Mostly it waits by now; else the round shows nothing. */
		sleep_ms(1);
		ASSERT_EQ(pthread_create(&takes, NULL, take_all, NULL), 0);
		sleep_ms(15);
		__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
		pthread_join(takes, NULL);
		/* One of the two has it, and there is no other. */
		pthread_join(waits, NULL);
		mmnf_batch_close(batch);
	}
	__atomic_store_n(&stop_others, true, __ATOMIC_RELAXED);
	pthread_join(others, NULL);
	mmnf_field_close(field);
}

/* The server stands still: nothing ends but by its deadline. */
TEST(deadline_comes_while_another_waits)
{
	struct mmnf_completion c;
	pthread_t waits;
	uint64_t got[2];

	open_server("memory 1G");
	ASSERT_EQ(mmnf_batch_open(&batch, field, NULL), 0);
	server_stop(0);
	submit(1, &got[0], 0);
	ASSERT_EQ(pthread_create(&waits, NULL, wait_for_one, NULL), 0);
	sleep_ms(100);
	submit(2, &got[1], now_ns() + 100000000);
	pthread_join(waits, NULL);
	EXPECT_EQ(last.user_data, 2);
	EXPECT_EQ(last.result, -ETIMEDOUT);
	ASSERT_EQ(kill(servers[0].pid, SIGCONT), 0);
	EXPECT_EQ(mmnf_batch_reap(batch, &c, 1, 1, -1), 1);
	EXPECT_EQ(c.user_data, 1);
	EXPECT_EQ(c.result, 8);
	mmnf_batch_close(batch);
	mmnf_field_close(field);
}

#define TIMEOUT_NS 200000000LL

static int64_t wait_began_ns, wait_ended_ns;

static void *wait_in_vain(void *arg)
{
	const bool never = false;
	struct mmnf_net *net = arg;

	__atomic_store_n(&wait_began_ns, now_ns(), __ATOMIC_RELEASE);
	EXPECT_TRUE(!mmnf_net_wait(net, &never, TIMEOUT_NS));
	wait_ended_ns = now_ns();
	return NULL;
}

/*
 * While another holds the net's lock for most of the time: waiting anew from then on
 * would take TIMEOUT_NS more.
 */
TEST(timeout_counts_from_the_call)
{
	int64_t unlocked_ns;
	struct mmnf_net *net;
	pthread_t waits;

	open_server("memory 1G");
	net = field->remote->net;
	pthread_mutex_lock(&net->lock);
	ASSERT_EQ(pthread_create(&waits, NULL, wait_in_vain, net), 0);
	while (!__atomic_load_n(&wait_began_ns, __ATOMIC_ACQUIRE))
		sleep_ms(1);
	while (now_ns() < wait_began_ns + TIMEOUT_NS / 20 * 19)
		sleep_ms(1);
	unlocked_ns = now_ns();
	pthread_mutex_unlock(&net->lock);
	pthread_join(waits, NULL);
	EXPECT_GE(wait_ended_ns - wait_began_ns, TIMEOUT_NS);
	EXPECT_LT(wait_ended_ns - unlocked_ns, TIMEOUT_NS);
	mmnf_field_close(field);
}

/*
 * Of indices that differ in few digits or all, with repeats, up, down and in no order: in
 * the request they are sorted, at their place they are not.
 */
TEST(long_lists_of_a_petabyte)
{
#define LONGEST 3000ULL
	static uint64_t index[LONGEST], got[LONGEST];
	static const uint64_t mask[] = { 0, 0xff, 0x7fffff, (1ULL << 47) - 1,
					 0x3fULL << 41 };
	static const uint64_t length[] = { 1, 500, 513, LONGEST };
	uint64_t m, n, k, i, bad;
	MMNF_OPTS(mmnf_open_opts, opts);
	char name[128];

	scratch();
	need_servers();
	server_start(0, "pattern 1P");
	opts.l2_once = 1;
	snprintf(name, sizeof(name), "%s#raw,dtype=u64,shape=%llu",
		 servers[0].uri, 1ULL << 47);
	ASSERT_EQ(mmnf_field_open(&field, name, &opts), 0);
	for (m = 0; m < 5; m++) {
		for (n = 0; n < 4; n++) {
			for (i = 0; i < length[n]; i++) {
				k = m == 2 ? i * 911 : ~i * 911;
				index[i] = (m == 3 ? rnd() : k) & mask[m];
				if (m == 4)
					index[i] = rnd() & mask[m];
			}
			memset(got, 0xee, sizeof(got));
			ASSERT_EQ(mmnf_batch_get(field, index, length[n], got,
						 sizeof(got)),
				  (ssize_t)(length[n] * 8));
			for (i = bad = 0; i < length[n]; i++)
				bad += got[i] != pattern(index[i], 1, 0);
			EXPECT_EQ(bad, 0);
		}
	}
	mmnf_field_close(field);
}

TEST_MAIN
