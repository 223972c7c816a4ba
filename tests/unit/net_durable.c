// SPDX-License-Identifier: MIT
/*
 * What was written to servers that lose it: sync says so, once for all, or the log of
 * the persistent cache writes it again.  Nobody else would tell.
 */
#define KTAP_TIMEOUT 120
#include "nbd_server.h"

#include <net.h>

#define NR 512ULL /* u64: a page */

static const struct mmnf_box page = { { 4096 }, { NR }, { 1 } };
static const uint64_t data[NR] = { 1, 2, 3 };

/* On server 0, which is running. */
static struct mmnf_field *open_writable(const char *cache)
{
	static const uint64_t elements[1] = { 1 << 20 };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	if (access("f", F_OK))
		make_remote("f", MMNF_U64, 1, elements, 1, 0);
	opts.writable = 1;
	opts.net_fail_timeout_ms = 1000;
	opts.net_request_timeout_ms = 1000;
	opts.net_cache_dir = cache;
	opts.net_cache_bytes = cache ? 64 << 20 : 0;
	if (mmnf_field_open(&field, "f", &opts))
		ktap_failed("# %s\n", mmnf_last_error());
	ASSERT_EQ(ktap_shared->failures, 0);
	return field;
}

static ssize_t write_page(struct mmnf_field *field)
{
	return mmnf_write(field, &page, data, sizeof(data));
}

static void begin(const char *args)
{
	need_servers();
	scratch();
	server_start(0, args);
}

TEST(lost_before_the_flush)
{
	struct mmnf_field *field;

	begin("memory 1G");
	field = open_writable(NULL);
	ASSERT_EQ(write_page(field), 4096);
	EXPECT_EQ(mmnf_field_sync(field), 0);
	ASSERT_EQ(write_page(field), 4096);
	server_kill(0);
	server_start(0, "memory 1G");
	EXPECT_FAILS(mmnf_field_sync(field), EIO, "mmnf_field_sync",
		     "server 0 was lost between a write and its flush");
	ASSERT_EQ(write_page(field), 4096);
	EXPECT_EQ(mmnf_field_sync(field), 0);
	mmnf_field_close(field);
}

/* A sync after one that failed flushes what that one did not. */
TEST(failed_sync_is_not_forgotten)
{
	struct mmnf_field *field;
	int64_t end;
	int ret;

	begin("memory 1G");
	field = open_writable(NULL);
	ASSERT_EQ(write_page(field), 4096);
	server_kill(0);
	EXPECT_EQ(mmnf_field_sync(field), -ETIMEDOUT);
	server_start(0, "memory 1G");
	end = now_ns() + 60 * 1000000000LL;
	while ((ret = mmnf_field_sync(field)) == -ETIMEDOUT)
		ASSERT_LT(now_ns(), end);
	EXPECT_EQ(ret, -EIO);
	EXPECT_TRUE(strstr(mmnf_last_error(), "was lost between a write"));
	EXPECT_EQ(mmnf_field_sync(field), 0);
	mmnf_field_close(field);
}

/* ---- the net alone: which writes a flush covers */

static struct mmnf_net *net;
static bool is_done;

static void done(struct mmnf_net_io *io)
{
	(void)io;
	mmnf_net_wake(net, &is_done);
}

/* nbdkit's plugin in Python: 16 MiB in its memory, and what a test adds. */
static void begin_script(const char *text)
{
	FILE *script;

	need_servers();
	scratch();
	script = fopen("disk.py", "w");
	ASSERT_TRUE(script);
	fprintf(script,
		"API_VERSION = 2\n"
		"import errno, nbdkit, os, time\n"
		"disk = bytearray(16 << 20)\n"
		"def open(readonly): return 1\n"
		"def get_size(h): return len(disk)\n"
		"def pread(h, buf, offset, flags):\n"
		"    buf[:] = disk[offset:offset + len(buf)]\n"
		"%s",
		text);
	ASSERT_EQ(fclose(script), 0);
	server_start(0, "python disk.py");
}

static void open_net_of(const char *uris, int64_t fail_timeout_ns)
{
	struct mmnf_net_opts opts = { .writable = true,
				      .connections = 1,
				      .depth = 64,
				      .fail_timeout_ns = fail_timeout_ns,
				      .request_timeout_ns = 30 * 1000000000LL };
	struct mmnf_net_layout *layout = calloc(1, sizeof(*layout));

	ASSERT_TRUE(layout);
	ASSERT_EQ(mmnf_net_layout_add(layout, uris), 0);
	ASSERT_EQ(mmnf_net_open(&net, layout, &opts, 0), 0);
	mmnf_net_layout_free(layout);
	is_done = false;
}

static void open_net(void)
{
	open_net_of(servers[0].uri, 60 * 1000000000LL);
}

static int64_t late_ns_of(const char *uris, int64_t fail_timeout_ns)
{
	int64_t late_ns;

	open_net_of(uris, fail_timeout_ns);
	late_ns = mmnf_net_late_ns(net);
	mmnf_net_close(net);
	return late_ns;
}

/* How much longer than the grace time writes are held back after an open. */
TEST(late_time_is_that_of_the_life_before)
{
	char both[160];

	begin("memory 1M");
	server_start(1, "memory 1M");
	snprintf(both, sizeof(both), "%s,%s", servers[0].uri, servers[1].uri);
	EXPECT_EQ(late_ns_of(servers[0].uri, 10000000000LL), 0);
	EXPECT_EQ(late_ns_of(both, 10000000000LL), 10000000000LL);
	/* It waits for ever; but its close has waited for half a minute. */
	EXPECT_EQ(late_ns_of(both, 0), 30000000000LL);
}

/*
 * A write that the net cuts in two: the first part is acknowledged and lost with its
 * server, the second one is written to the server after it.  A flush of that server
 * does not cover the write.
 */
TEST(write_in_parts_across_a_crash)
{
	static char from[8192] = { 'A' };
	struct iovec iov = { from, sizeof(from) };
	struct mmnf_net_io flush = { .op = MMNF_NET_FLUSH };
	struct mmnf_net_io io = { .op = MMNF_NET_WRITE,
				  .offset = (4 << 20) - 4096,
				  .bytes = sizeof(from),
				  .iov = &iov,
				  .nr_iov = 1,
				  .done = done };
	struct mmnf_net_io *one = &io;
	int64_t end = now_ns() + 30 * 1000000000LL;

	begin_script(
		"def pwrite(h, buf, offset, flags):\n"
		"    if offset >= 4 << 20 and not os.path.exists('once'):\n"
		"        os.mkdir('once')\n"
		"        time.sleep(100)\n"
		"    disk[offset:offset + len(buf)] = buf\n"
		"def flush(h, flags): pass\n");
	open_net();
	mmnf_net_submit(net, &one, 1);
	while (access("once", F_OK) || io.nr_parts != 1) {
		ASSERT_LT(now_ns(), end);
		ASSERT_TRUE(!mmnf_net_wait(net, &is_done, 20000000));
	}
	server_kill(0);
	server_start(0, "python disk.py");
	ASSERT_TRUE(mmnf_net_wait(net, &is_done, -1));
	EXPECT_EQ(io.result, 0);
	ASSERT_EQ(mmnf_net_do(net, &flush), 0);
	EXPECT_TRUE(io.epoch != flush.epoch);
	mmnf_net_close(net);
}

/* A server's kernel drops what it failed to write: then the next flush succeeds. */
TEST(flush_that_failed_is_not_believed)
{
	static char from[4096] = { 'A' };
	struct iovec iov = { from, sizeof(from) };
	struct mmnf_net_io flush = { .op = MMNF_NET_FLUSH };
	struct mmnf_net_io io = { .op = MMNF_NET_WRITE,
				  .bytes = sizeof(from),
				  .iov = &iov,
				  .nr_iov = 1 };

	begin_script("nr = 0\n"
		     "def pwrite(h, buf, offset, flags): pass\n"
		     "def flush(h, flags):\n"
		     "    global nr\n"
		     "    nr += 1\n"
		     "    if nr == 1:\n"
		     "        nbdkit.set_error(errno.EIO)\n"
		     "        raise RuntimeError('once')\n");
	open_net();
	ASSERT_EQ(mmnf_net_do(net, &io), 0);
	ASSERT_EQ(mmnf_net_do(net, &flush), 0);
	EXPECT_TRUE(io.epoch != flush.epoch);
	mmnf_net_close(net);
}

static u8 late_of_write(void)
{
	static char from[4096] = { 'A' };
	struct iovec iov = { from, sizeof(from) };
	struct mmnf_net_io io = { .op = MMNF_NET_WRITE,
				  .offset = PAGE_AT,
				  .bytes = sizeof(from),
				  .iov = &iov,
				  .nr_iov = 1,
				  .done = done };
	struct mmnf_net_io *one = &io;

	is_done = false;
	mmnf_net_submit(net, &one, 1);
	while (!mmnf_net_wait(net, &is_done, 20000000))
		servers_mend();
	EXPECT_EQ(io.result, 0);
	return io.late;
}

/* The server lives, and may go on with what it was told. */
TEST(connection_that_is_cut_on_this_side)
{
	need_servers();
	scratch();
	nbd_server_start(0, NBD_GARBLED);
	open_net();
	EXPECT_EQ(late_of_write(), MMNF_NET_LATE_HUNG);
	EXPECT_EQ(late_of_write(), MMNF_NET_LATE_NONE);
	mmnf_net_close(net);
}

/* A server that is killed closes it. */
TEST(connection_that_the_server_closes)
{
	begin_script("def pwrite(h, buf, offset, flags):\n"
		     "    if not os.path.exists('once'):\n"
		     "        os.mkdir('once')\n"
		     "        os.kill(os.getpid(), 9)\n"
		     "def flush(h, flags): pass\n");
	open_net();
	EXPECT_EQ(late_of_write(), MMNF_NET_LATE_CLOSED);
	mmnf_net_close(net);
}

/* ---- with the persistent cache */

/* The lock of its directory is the field's, not that of whoever was forked since. */
TEST(child_does_not_keep_the_directory)
{
	struct mmnf_field *field;
	pid_t child;

	begin("memory 1G");
	field = open_writable("cache");
	fflush(stdout);
	child = fork();
	if (!child) {
		pause();
		_exit(0);
	}
	mmnf_field_close(field);
	field = open_writable("cache");
	EXPECT_EQ(write_page(field), 4096);
	EXPECT_EQ(mmnf_field_sync(field), 0);
	mmnf_field_close(field);
	kill(child, SIGKILL);
	ASSERT_EQ(waitpid(child, NULL, 0), child);
}

#define STRIPE (1ULL << 20)
#define STRIPES 32
#define LOG_BYTES (16ULL << 20) /* of the smallest cache */

/* One server of two is away with 64 bytes in the log, which is filled three times. */
TEST(others_are_written_while_a_server_is_away)
{
	static const uint64_t elements[1] = { STRIPES * STRIPE / 8 };
	static const char image[] = "file a.img";
	static uint64_t unit[STRIPE / 8];
	struct mmnf_box box = { { 0 }, { 8 }, { 1 } };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;
	uint64_t got = 0, i;
	int fd;

	need_servers();
	scratch();
	put_file("a.img", "", 0);
	ASSERT_EQ(truncate("a.img", STRIPES / 2 * STRIPE), 0);
	server_start(0, image);
	server_start(1, "memory 16M");
	make_remote("f", MMNF_U64, 1, elements, 2, STRIPE);
	opts.writable = 1;
	opts.net_fail_timeout_ms = 1000;
	opts.net_cache_dir = "cache";
	opts.net_cache_bytes = 64 << 20;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	server_kill(0);
	ASSERT_EQ(mmnf_write(field, &box, data, 64), 64);
	box.count[0] = STRIPE / 8;
	for (i = 1; i <= 3 * LOG_BYTES / STRIPE; i++) {
		unit[0] = i;
		box.start[0] = (2 * i + 1) % STRIPES * STRIPE / 8;
		if (mmnf_write(field, &box, unit, STRIPE) != (ssize_t)STRIPE)
			ktap_failed("# write %llu: %s\n", (unsigned long long)i,
				    mmnf_last_error());
		ASSERT_EQ(ktap_shared->failures, 0);
	}
	server_start(0, image);
	while (mmnf_field_sync(field))
		EXPECT_TRUE(strstr(mmnf_last_error(), "not on the servers"));
	fd = open("a.img", O_RDONLY);
	ASSERT_EQ(pread(fd, &got, sizeof(got), 8), 8);
	EXPECT_EQ(got, data[1]);
	close(fd);
	mmnf_field_close(field);
}

static struct mmnf_field *left_open;

static void close_it(void)
{
	mmnf_field_close(left_open);
}

/* As a static object of C++ does.  Registered first, it comes after the net's end. */
TEST(closed_while_the_process_ends)
{
	int status;
	pid_t child;

	ASSERT_EQ(atexit(close_it), 0);
	begin("memory 1G");
	fflush(stdout);
	child = fork();
	if (!child) {
		/* The server and the folder are the parent's to remove. */
		servers[0].pid = 0;
		scratch_path[0] = 0;
		alarm(30);
		left_open = open_writable("cache");
		exit(write_page(left_open) != 4096);
	}
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
}

TEST_MAIN
