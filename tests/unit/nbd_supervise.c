// SPDX-License-Identifier: MIT
/*
 * `mmnf nbd`: which gateways may take a device over, how often trouble is told, and
 * the lock of a supervisor.  The kernel's end is tested in a guest.
 */
#include "field_util.h"

#include <pthread.h>
#include <sys/wait.h>

/* The tools have a function of this name, too. */
#define open_field tools_open_field
#include "../../tools/nbd.h"
#undef open_field

#undef NBD_LOCKS
#define NBD_LOCKS "locks"

#include "../../tools/nbd-lock.c"
#include "../../tools/nbd-supervise.c"

/* ---- what the supervisor asks of others */

int nbd_gateway_connect(const char *uri, uint64_t timeout_s,
			struct nbd_export *export, struct nbd_ends *ends,
			char text[NBD_TEXT])
{
	(void)uri;
	(void)timeout_s;
	(void)export;
	(void)ends;
	(void)text;
	return -ECONNREFUSED;
}

int nbd_kernel_offer(struct nbd_kernel *kernel, const struct nbd_wanted *wanted,
		     int socket)
{
	(void)kernel;
	(void)wanted;
	(void)socket;
	return 0;
}

int nbd_kernel_disconnect(struct nbd_kernel *kernel, uint32_t index)
{
	(void)kernel;
	(void)index;
	return 0;
}

int nbd_kernel_news_fd(const struct nbd_kernel *kernel)
{
	(void)kernel;
	return -1;
}

bool nbd_kernel_news(struct nbd_kernel *kernel, uint32_t index)
{
	(void)kernel;
	(void)index;
	return false;
}

bool nbd_queue_connected(uint32_t index, char *backend, size_t len)
{
	(void)index;
	if (backend)
		memset(backend, 0, len);
	return true;
}

int failure(const struct options *o, const char *format, ...)
{
	(void)o;
	(void)format;
	return EXIT_FAILURE;
}

/* ---- gateways */

static struct options options;
static struct nbd_attachment attachment = {
	.o = &options,
	.export = { 1 << 20, NBD_FLAG_SEND_FLUSH, 512, 1 << 20 },
	.wanted = { .block_bytes = 1024 },
};

static const char *mismatch(uint64_t bytes, uint64_t flags, uint32_t least,
			    uint32_t most)
{
	struct nbd_export export = { bytes, flags, least, most };
	static char text[NBD_TEXT];

	return nbd_mismatch(&attachment, &export, text, sizeof(text));
}

TEST(sizes_of_requests_that_a_gateway_takes)
{
	const char *words;

	EXPECT_TRUE(!mismatch(1 << 20, 0, 512, 1 << 20));
	EXPECT_TRUE(!mismatch(1 << 20, 0, 1024, 1 << 20));
	words = mismatch(1 << 20, 0, 4096, 1 << 20);
	ASSERT_TRUE(words);
	EXPECT_TRUE(strstr(words, "4096 to 1048576 bytes: expected 1024"));
	words = mismatch(1 << 20, 0, 512, 65536);
	ASSERT_TRUE(words);
	EXPECT_TRUE(strstr(words, "512 to 65536 bytes: expected 1024"));
	words = mismatch(1 << 19, 0, 512, 1 << 20);
	ASSERT_TRUE(words);
	EXPECT_TRUE(strstr(words, "it exports 524288 bytes"));
	options.writable = true;
	EXPECT_TRUE(!mismatch(1 << 20, NBD_FLAG_SEND_FLUSH, 512, 1 << 20));
	words = mismatch(1 << 20, 0, 512, 1 << 20);
	ASSERT_TRUE(words);
	EXPECT_TRUE(strstr(words, "its flags"));
}

/* ---- what is told */

static unsigned int lines_told(void)
{
	FILE *f = fopen("told", "r");
	unsigned int nr = 0;
	int c;

	fflush(stderr);
	while ((c = fgetc(f)) != EOF)
		nr += c == '\n';
	fclose(f);
	return nr;
}

TEST(two_gateways_with_a_trouble_each)
{
	unsigned int i;

	scratch();
	ASSERT_TRUE(freopen("told", "w", stderr));
	for (i = 0; i < 100; i++) {
		complain(&attachment, 0, "first: connection refused");
		complain(&attachment, 1, "second: refused: it exports 1 bytes");
		complain(&attachment, NBD_KERNEL, "no memory");
	}
	EXPECT_EQ(lines_told(), 3);
}

TEST(gateway_whose_trouble_changes)
{
	struct nbd_complaint *c = &attachment.complaints[0];
	unsigned int i;

	scratch();
	ASSERT_TRUE(freopen("told", "w", stderr));
	for (i = 0; i < 100; i++)
		complain(&attachment, 0, i % 2 ? "refused" : "no handshake");
	EXPECT_EQ(lines_told(), 1);
	/* Later it is told of. */
	c->told_at.tv_sec -= COMPLAIN_S + 1;
	complain(&attachment, 0, "refused");
	EXPECT_EQ(lines_told(), 2);
	EXPECT_STREQ(c->text, "refused");
}

/* ---- the lock */

static bool stop;

static void *look(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		nbd_lock_holder(7);
	return arg;
}

TEST(who_lists_is_in_nobody_s_way)
{
	pthread_t thread;
	int i, fd, nr_failed = 0;

	scratch();
	ASSERT_EQ(pthread_create(&thread, NULL, look, NULL), 0);
	for (i = 0; i < 5000; i++) {
		fd = nbd_lock_take(7);
		nr_failed += fd < 0;
		if (fd >= 0)
			close(fd);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	EXPECT_EQ(nr_failed, 0);
}

/* It goes on in a child, as a daemon is one, and ends with it. */
TEST(lock_of_a_process_and_its_child)
{
	int fd, again;
	pid_t child;

	scratch();
	EXPECT_EQ(nbd_lock_holder(7), 0);
	fd = nbd_lock_take(7);
	ASSERT_GE(fd, 0);
	EXPECT_EQ(nbd_lock_holder(7), getpid());
	EXPECT_EQ(nbd_lock_take(7), -EWOULDBLOCK);
	fflush(stdout);
	child = fork();
	if (!child) {
		nbd_lock_sign(fd);
		pause();
		_exit(0);
	}
	close(fd);
	while (nbd_lock_holder(7) != child)
		usleep(1000);
	EXPECT_EQ(nbd_lock_take(7), -EWOULDBLOCK);
	kill(child, SIGKILL);
	ASSERT_EQ(waitpid(child, NULL, 0), child);
	EXPECT_EQ(nbd_lock_holder(7), 0);
	again = nbd_lock_take(7);
	EXPECT_GE(again, 0);
	close(again);
}

TEST_MAIN
