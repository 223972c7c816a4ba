// SPDX-License-Identifier: MIT
/*
 * Writes to servers that hang, or beside others who write: nothing older comes over
 * what is newer, one server's trouble is not another's, and what others wrote is seen
 * after an eviction.
 */
#define KTAP_TIMEOUT 240
#include "net_util.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define NR 65536ULL /* u64: 512 KiB */

static const uint64_t shape[1] = { NR };
static uint64_t buffer[NR];

static struct mmnf_box eight(uint64_t at)
{
	return (struct mmnf_box) { { at }, { 8 }, { 1 } };
}

static ssize_t put(struct mmnf_field *field, uint64_t at, uint64_t value)
{
	struct mmnf_box box = eight(at);
	uint64_t data[8];
	int i;

	for (i = 0; i < 8; i++)
		data[i] = value;
	return mmnf_write(field, &box, data, sizeof(data));
}

static uint64_t get(struct mmnf_field *field, uint64_t at)
{
	struct mmnf_box box = eight(at);
	uint64_t data[8] = { 0 };

	if (mmnf_get(field, &box, data, sizeof(data)) != sizeof(data))
		ktap_failed("# %s\n", mmnf_last_error());
	return data[0];
}

static struct mmnf_field *open_writable(const char *cache)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	opts.writable = 1;
	opts.net_cache_dir = cache;
	opts.net_cache_bytes = cache ? 64 << 20 : 0;
	opts.net_fail_timeout_ms = 2000;
	opts.net_request_timeout_ms = 1000;
	opts.net_cache_grace_ms = 20000;
	if (mmnf_field_open(&field, "f", &opts))
		ktap_failed("# %s\n", mmnf_last_error());
	ASSERT_EQ(ktap_shared->failures, 0);
	return field;
}

static void begin(const char *server)
{
	need_servers();
	scratch();
	put_file("server.img", buffer, sizeof(buffer));
	server_start(0, server);
	make_remote("f", MMNF_U64, 1, shape, 1, 0);
}

#define BLOCKS \
	"blocksize-minimum=512 blocksize-preferred=4096 blocksize-maximum=1M"

static void *overwrite(void *field)
{
	while (put(field, 512, 'B') < 0)
		; /* a server that is a script may be too slow */
	return NULL;
}

/* Over the late one's bytes another thread writes, and meanwhile this one elsewhere. */
static void late_write(const char *filter)
{
	struct mmnf_box box = eight(512);
	struct mmnf_field *field;
	pthread_t thread;

	need_servers();
	scratch();
	put_file("server.img", buffer, sizeof(buffer));
	server_start_slow(10, filter);
	make_remote("f", MMNF_U64, 1, shape, 1, 0);
	field = open_writable(NULL);
	EXPECT_EQ(put(field, 512, 'A'), -ETIMEDOUT);
	ASSERT_EQ(pthread_create(&thread, NULL, overwrite, field), 0);
	sleep_ms(500); /* so that it waits */
	while (put(field, 1024, 'C') < 0)
		;
	EXPECT_NE(access("landed", F_OK), 0);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	EXPECT_EQ(access("landed", F_OK), 0);
	while (mmnf_field_sync(field))
		;
	mmnf_evict(field, &box);
	EXPECT_EQ(get(field, 512), 'B');
	mmnf_field_close(field);
}

TEST(late_write_without_a_cache)
{
	late_write("");
}

/* A block is read, changed and written: that is not held up elsewhere either. */
TEST(late_write_of_a_part_of_a_block)
{
	late_write(BLOCKS);
}

/* ---- two gateways to one file, of which one hangs */

#define FAIL_MS 10000
#define AT 512ULL

static uint64_t in_image(void)
{
	uint64_t value = 0;
	int fd = open("server.img", O_RDONLY);

	ASSERT_EQ(pread(fd, &value, sizeof(value), AT * 8), 8);
	close(fd);
	return value;
}

static struct mmnf_field *open_gateways(const char *cache)
{
	MMNF_OPTS(mmnf_create_opts, create);
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;
	const char *uri;
	char both[160];

	snprintf(both, sizeof(both), "%s,%s", servers[0].uri, servers[1].uri);
	uri = both;
	create.net = &uri;
	create.nr_net = 1;
	if (access("g", F_OK))
		ASSERT_EQ(mmnf_field_create("g", MMNF_U64, 1, shape, &create),
			  0);
	opts.writable = 1;
	opts.net_cache_dir = cache;
	opts.net_cache_bytes = cache ? 64 << 20 : 0;
	opts.net_fail_timeout_ms = FAIL_MS;
	opts.net_request_timeout_ms = 1000;
	opts.net_cache_grace_ms = 1000;
	ASSERT_EQ(mmnf_field_open(&field, "g", &opts), 0);
	return field;
}

static void *write_old(void *field)
{
	EXPECT_EQ(put(field, AT, 'A'), 64);
	return NULL;
}

static void *write_new(void *field)
{
	EXPECT_EQ(put(field, AT, 'B'), 64);
	EXPECT_EQ(mmnf_field_sync(field), 0);
	return NULL;
}

/*
 * A write is under way to the gateway that hangs.  A busy machine may have been given
 * the other one: then it comes to its end.
 */
static struct mmnf_field *hang(const char *cache, pthread_t *writer)
{
	struct mmnf_field *field;
	int tries;

	for (tries = 0;; tries++) {
		ASSERT_LT(tries, 5);
		field = open_gateways(cache);
		server_stop(0);
		ASSERT_EQ(pthread_create(writer, NULL, write_old, field), 0);
		sleep_ms(800);
		if (!in_image())
			return field;
		kill(servers[0].pid, SIGCONT);
		ASSERT_EQ(pthread_join(*writer, NULL), 0);
		ASSERT_EQ(put(field, AT, 0), 64);
		ASSERT_EQ(mmnf_field_sync(field), 0);
		mmnf_field_close(field);
	}
}

/* Reads have the other gateway; the write comes late, over nothing newer. */
static void one_gateway_hangs(const char *cache)
{
	static const uint64_t marker[8] = { 'X' };
	struct mmnf_field *field;
	pthread_t writer;
	int64_t from;
	int fd;

	begin("file server.img");
	server_start(1, "file server.img");
	field = hang(cache, &writer);
	from = now_ns();
	EXPECT_EQ(get(field, 60000), 0);
	printf("# read in %lld ms\n", (long long)(now_ns() - from) / 1000000);
	EXPECT_LT(now_ns() - from, FAIL_MS / 2 * 1000000LL);
	ASSERT_EQ(pthread_join(writer, NULL), 0);
	while (in_image() != 'A')
		sleep_ms(10);
	fd = open("server.img", O_WRONLY);
	ASSERT_EQ(pwrite(fd, marker, sizeof(marker), AT * 8), 64);
	close(fd);
	ASSERT_EQ(pthread_create(&writer, NULL, write_new, field), 0);
	/* Longer than the grace time, and the server's time is not over. */
	sleep_ms(3000);
	EXPECT_EQ(in_image(), 'X');
	kill(servers[0].pid, SIGCONT);
	while (in_image() == 'X')
		sleep_ms(10);
	EXPECT_EQ(in_image(), 'A');
	ASSERT_EQ(pthread_join(writer, NULL), 0);
	EXPECT_EQ(in_image(), 'B');
	mmnf_field_close(field);
}

TEST(gateway_that_hangs_with_a_write)
{
	one_gateway_hangs(NULL);
}

TEST(gateway_that_hangs_with_a_write_of_the_cache)
{
	one_gateway_hangs("cache");
}

static void *go_on(void *arg)
{
	sleep_ms(3000);
	kill(servers[0].pid, SIGCONT);
	return arg;
}

/* Who opens the field next writes over nothing that may still come. */
static void reopened(const char *cache)
{
	struct mmnf_field *field;
	pthread_t writer, waker;

	begin("file server.img");
	server_start(1, "file server.img");
	field = hang(cache, &writer);
	EXPECT_EQ(get(field, 60000), 0);
	ASSERT_EQ(pthread_join(writer, NULL), 0);
	EXPECT_EQ(mmnf_field_sync(field), 0);
	EXPECT_EQ(in_image(), 'A');
	/* Longer than the grace time, and the server's time is not over. */
	ASSERT_EQ(pthread_create(&waker, NULL, go_on, NULL), 0);
	mmnf_field_close(field);
	field = open_gateways(cache);
	write_new(field);
	ASSERT_EQ(pthread_join(waker, NULL), 0);
	sleep_ms(1000);
	EXPECT_EQ(in_image(), 'B');
	mmnf_field_close(field);
}

TEST(reopened_while_a_write_may_come)
{
	reopened(NULL);
}

TEST(reopened_while_a_write_of_the_cache_may_come)
{
	reopened("cache");
}

static void *stand_still(void *arg)
{
	sleep_ms(2500);
	kill(servers[0].pid, SIGCONT);
	sleep_ms(300);
	if (servers[1].pid > 0)
		kill(servers[1].pid, SIGCONT);
	return arg;
}

/* No gateway answers for a while: it would help no read to give the write up. */
static void none_answers(bool is_dead)
{
	struct mmnf_field *field;
	pthread_t writer, waker;
	int64_t from;

	begin("file server.img");
	server_start(1, "file server.img");
	field = open_gateways(NULL);
	server_stop(0);
	if (is_dead)
		server_kill(1);
	else
		server_stop(1);
	ASSERT_EQ(pthread_create(&writer, NULL, write_old, field), 0);
	ASSERT_EQ(pthread_create(&waker, NULL, stand_still, NULL), 0);
	EXPECT_EQ(get(field, 60000), 0);
	ASSERT_EQ(pthread_join(writer, NULL), 0);
	ASSERT_EQ(pthread_join(waker, NULL), 0);
	from = now_ns();
	EXPECT_EQ(put(field, AT, 'B'), 64);
	EXPECT_LT(now_ns() - from, FAIL_MS / 2 * 1000000LL);
	mmnf_field_close(field);
}

TEST(gateways_that_stand_still)
{
	none_answers(false);
}

TEST(gateway_that_stands_still_beside_a_dead_one)
{
	none_answers(true);
}

/* It has a write under way, and says to reads that it is going down. */
TEST(gateway_that_goes_down_with_a_write)
{
	struct mmnf_field *field;
	pthread_t writer;
	int64_t from;

	begin("--filter=error --filter=delay file server.img wdelay=100 error=ESHUTDOWN error-pread-rate=100% error-pread-file=broken");
	server_start(1, "file server.img");
	field = open_gateways(NULL);
	ASSERT_EQ(pthread_create(&writer, NULL, write_old, field), 0);
	sleep_ms(500);
	put_file("broken", "", 0);
	from = now_ns();
	EXPECT_EQ(get(field, 60000), 0);
	EXPECT_LT(now_ns() - from, FAIL_MS / 2 * 1000000LL);
	ASSERT_EQ(pthread_join(writer, NULL), 0);
	mmnf_field_close(field);
}

/* It is gone, but what it was to write it may have passed on. */
TEST(gateway_that_is_killed_with_a_write)
{
	struct mmnf_field *field;
	pthread_t writer;
	int64_t from;

	begin("file server.img");
	server_start(1, "file server.img");
	field = hang(NULL, &writer);
	from = now_ns();
	server_kill(0);
	ASSERT_EQ(pthread_join(writer, NULL), 0);
	EXPECT_EQ(in_image(), 'A');
	EXPECT_EQ(put(field, AT, 'B'), 64);
	/* The grace time is 1 s. */
	EXPECT_GE(now_ns() - from, 1000 * 1000000LL);
	EXPECT_EQ(in_image(), 'B');
	mmnf_field_close(field);
}

static void *write_one(void *field)
{
	uint64_t value = 1;
	struct mmnf_box box = { { 1 }, { 1 }, { 1 } };

	mmnf_write(field, &box, &value, sizeof(value));
	return NULL;
}

/* Servers that take whole blocks only: a part of one is read, changed and written. */
TEST(parts_of_blocks_of_a_server_that_hangs)
{
	static const char blocks[] =
		"--filter=blocksize-policy memory 512K " BLOCKS;
	MMNF_OPTS(mmnf_create_opts, create);
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *hung, *well;
	const char *uri;
	pthread_t thread;
	int64_t from;

	begin(blocks);
	server_start(1, blocks);
	uri = servers[1].uri;
	create.net = &uri;
	create.nr_net = 1;
	ASSERT_EQ(mmnf_field_create("g", MMNF_U64, 1, shape, &create), 0);
	opts.writable = 1;
	opts.net_fail_timeout_ms = 10000;
	ASSERT_EQ(mmnf_field_open(&hung, "f", &opts), 0);
	ASSERT_EQ(mmnf_field_open(&well, "g", &opts), 0);
	server_stop(0);
	ASSERT_EQ(pthread_create(&thread, NULL, write_one, hung), 0);
	sleep_ms(300);
	from = now_ns();
	EXPECT_EQ(put(well, 1, 7), 64);
	EXPECT_LT(now_ns() - from, 5 * 1000000000LL);
	ASSERT_EQ(kill(servers[0].pid, SIGCONT), 0);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	mmnf_field_close(hung);
	mmnf_field_close(well);
}

#define ROUNDS 300

static void *write_parts(void *field)
{
	struct mmnf_box box = { { 0 }, { 1 }, { 1 } };
	uint64_t i;

	for (i = 1; i <= ROUNDS; i++)
		ASSERT_EQ(mmnf_write(field, &box, &i, sizeof(i)), 8);
	return NULL;
}

/* One thread writes a block's first word, another all of the block. */
TEST(parts_beside_whole_blocks)
{
	struct mmnf_box block = { { 0 }, { 64 }, { 1 } };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;
	uint64_t data[64], i, k;
	pthread_t thread;

	begin("--filter=blocksize-policy memory 512K " BLOCKS);
	opts.writable = 1;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	ASSERT_EQ(pthread_create(&thread, NULL, write_parts, field), 0);
	for (i = 1; i <= ROUNDS; i++) {
		for (k = 0; k < 64; k++)
			data[k] = i;
		ASSERT_EQ(mmnf_write(field, &block, data, sizeof(data)),
			  (ssize_t)sizeof(data));
		ASSERT_EQ(mmnf_get(field, &block, data, sizeof(data)),
			  (ssize_t)sizeof(data));
		for (k = 1; k < 64; k++)
			ASSERT_EQ(data[k], i);
	}
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	mmnf_field_close(field);
}

TEST(what_others_wrote_is_seen_after_an_eviction)
{
	struct mmnf_box box = { { 0 }, { NR }, { 1 } };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field, *other;

	begin("file server.img");
	opts.net_cache_dir = "cache";
	opts.net_cache_bytes = 64 << 20;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	EXPECT_EQ(get(field, 512), 0);
	/* Until it is on the disk. */
	while (strstr(ssd_tier(field).text, " 0 filled"))
		sleep_ms(10);
	other = open_writable(NULL);
	EXPECT_EQ(put(other, 512, 7), 64);
	EXPECT_EQ(mmnf_field_sync(other), 0);
	mmnf_field_close(other);
	EXPECT_EQ(get(field, 512), 0);
	ASSERT_GE(mmnf_evict(field, &box), 0);
	EXPECT_EQ(get(field, 512), 7);
	mmnf_field_close(field);
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	EXPECT_EQ(get(field, 512), 7);
	mmnf_field_close(field);
}

/*
 * A writer's child outlives it: the directory is free, and the log is read by who comes
 * next.  The child cannot sync what is not its own.
 */
struct family {
	bool is_open, may_write;
	pid_t child;
	int sync;
};

static void be_parent(struct family *family)
{
	struct mmnf_field *field = open_writable("cache");
	pid_t child;

	__atomic_store_n(&family->is_open, true, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&family->may_write, __ATOMIC_SEQ_CST))
		sleep_ms(1);
	put(field, 512, 7);
	child = fork();
	if (child)
		family->child = child;
	else
		__atomic_store_n(&family->sync, mmnf_field_sync(field),
				 __ATOMIC_SEQ_CST);
	for (;;)
		pause();
}

TEST(child_of_a_writer_that_was_killed)
{
	struct family *family = mmap(NULL, sizeof(*family),
				     PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct mmnf_field *field;
	pid_t parent;

	ASSERT_TRUE(family != MAP_FAILED);
	family->sync = 1;
	begin("file server.img");
	fflush(stdout);
	parent = fork();
	if (!parent)
		be_parent(family);
	while (!__atomic_load_n(&family->is_open, __ATOMIC_SEQ_CST))
		sleep_ms(1);
	server_stop(0);
	__atomic_store_n(&family->may_write, true, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&family->sync, __ATOMIC_SEQ_CST) == 1 ||
	       !__atomic_load_n(&family->child, __ATOMIC_SEQ_CST))
		sleep_ms(1);
	EXPECT_EQ(family->sync, -ENXIO);
	ASSERT_GT(family->child, 0);
	kill(parent, SIGKILL);
	ASSERT_EQ(waitpid(parent, NULL, 0), parent);
	server_kill(0);
	server_start(0, "file server.img");
	field = open_writable("cache");
	EXPECT_EQ(get(field, 512), 7);
	EXPECT_EQ(mmnf_field_sync(field), 0);
	kill(family->child, SIGKILL);
	mmnf_field_close(field);
	munmap(family, sizeof(*family));
}

TEST_MAIN
