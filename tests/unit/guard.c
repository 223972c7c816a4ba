// SPDX-License-Identifier: MIT
/*
 * The guard: files are cut under pointers.  What is touched beyond is told to
 * the callback and reads as fill; any other SIGBUS goes where it went before.
 */
#include "field_util.h"

#include <pthread.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define PAGE 4096ULL
#define ROWS 64ULL
#define ROW 1024ULL /* elements: a page */

static struct mmnf_bad_page seen[ROWS];
static unsigned int nr_seen;
static int answer;
static sigjmp_buf out;

static int note(void *arg, const struct mmnf_bad_page *bad)
{
	unsigned int i = __atomic_fetch_add(&nr_seen, 1, __ATOMIC_RELAXED);

	if (i < ROWS)
		seen[i] = *bad;
	if (arg)
		siglongjmp(out, 1);
	return answer;
}

static const uint32_t *row(struct mmnf_field *f, uint64_t i)
{
	uint64_t at[2] = { i, 0 };

	return mmnf_activate(f, at);
}

/* Rows of i + 1, as one file; cut then to some rows. */
static struct mmnf_field *make_rows(const char *name, uint32_t fill)
{
	uint64_t shape[2] = { ROWS, ROW }, i;
	struct mmnf_box box = { .count = { 1, ROW } };
	struct mmnf_field *f;
	uint32_t data[ROW], k;

	f = make_field(name, MMNF_U32, 2, shape, 0, &fill);
	for (i = 0; i < ROWS; i++) {
		for (k = 0; k < ROW; k++)
			data[k] = (uint32_t)i + 1;
		box.start[0] = i;
		ASSERT_EQ(mmnf_write(f, &box, data, sizeof(data)),
			  (ssize_t)sizeof(data));
	}
	ASSERT_EQ(mmnf_field_sync(f), 0);
	return f;
}

static void cut(const char *name, uint64_t rows)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/c/0/0", name);
	ASSERT_EQ(truncate(path, (off_t)(rows * PAGE)), 0);
}

static void guard(struct mmnf_field *f, void *arg, const void *poison)
{
	MMNF_OPTS(mmnf_guard_opts, opts);

	opts.bad_page = note;
	opts.arg = arg;
	opts.poison = poison;
	ASSERT_EQ(mmnf_guard_enable(f, &opts), 0);
}

static struct sigaction sigbus(void)
{
	struct sigaction act;

	ASSERT_EQ(sigaction(SIGBUS, NULL, &act), 0);
	return act;
}

TEST(cut_file_reads_as_fill)
{
	struct mmnf_field *f;
	const uint32_t *p;

	scratch();
	f = make_rows("f", 7);
	p = row(f, 0);
	guard(f, NULL, NULL);
	EXPECT_EQ(p[3 * ROW + 5], 4);
	cut("f", 2);
	EXPECT_EQ(mmnf_guard_bad_pages(f), 0);
	EXPECT_EQ(p[1 * ROW], 2);
	EXPECT_EQ(p[2 * ROW + 9], 7);
	EXPECT_EQ(p[2 * ROW + 10], 7);
	EXPECT_EQ(p[63 * ROW + 1023], 7);
	ASSERT_EQ(nr_seen, 2);
	EXPECT_EQ(mmnf_guard_bad_pages(f), 2);
	EXPECT_TRUE(seen[0].field == f);
	EXPECT_EQ(seen[0].segment, 0);
	EXPECT_EQ(seen[0].offset_bytes, 2 * PAGE);
	EXPECT_EQ(seen[0].page_bytes, PAGE);
	EXPECT_TRUE(seen[0].page == p + 2 * ROW);
	EXPECT_TRUE(seen[0].address == p + 2 * ROW + 9);
	EXPECT_EQ(seen[1].offset_bytes, 63 * PAGE);
	mmnf_field_close(f);
}

/* To evict takes the pages of the file away, and not what is shown for bad ones. */
TEST(poison_is_not_evicted)
{
	struct mmnf_box all = { { 0 }, { ROWS, ROW }, { 1, 1 } };
	uint32_t poison = 0xdeadbeef;
	struct mmnf_field *f;
	const uint32_t *p;

	scratch();
	f = make_rows("f", 0);
	p = row(f, 0);
	guard(f, NULL, &poison);
	cut("f", 1);
	EXPECT_EQ(p[8 * ROW], poison);
	EXPECT_GE(mmnf_evict(f, &all), 0);
	EXPECT_EQ(p[8 * ROW], poison);
	EXPECT_EQ(p[5], 1);
	mmnf_field_close(f);
}

TEST(poison_of_the_caller)
{
	uint32_t poison = 0xdeadbeef, i;
	struct mmnf_field *f;
	const uint32_t *p;

	scratch();
	f = make_rows("f", 0);
	p = row(f, 0);
	guard(f, NULL, &poison);
	cut("f", 1);
	for (i = 0; i < ROW; i++)
		EXPECT_EQ(p[8 * ROW + i], poison);
	EXPECT_EQ(nr_seen, 1);
	mmnf_field_close(f);
}

/* Elements of 8 bytes from byte 13 on: each page begins inside one. */
TEST(poison_where_elements_cross_pages)
{
	uint64_t poison = 0x8877665544332211, i, v;
	MMNF_OPTS(mmnf_guard_opts, opts);
	struct mmnf_field *f;
	const char *p;
	char *data = calloc(1, 13 + 8 * 4096);
	uint64_t at[1] = { 0 };

	scratch();
	put_file("f.bin", data, 13 + 8 * 4096);
	f = open_field("f.bin#raw,dtype=u64,shape=4096,offset=13", false);
	opts.poison = &poison;
	ASSERT_EQ(mmnf_guard_enable(f, &opts), 0);
	p = mmnf_activate(f, at);
	ASSERT_TRUE(p);
	ASSERT_EQ(truncate("f.bin", PAGE), 0);
	for (i = 0; i < 4096; i++) {
		memcpy(&v, p + 8 * i, 8);
		if (13 + 8 * i + 8 <= PAGE)
			EXPECT_EQ(v, 0);
		else if (13 + 8 * i >= PAGE)
			EXPECT_EQ(v, poison);
	}
	EXPECT_EQ(mmnf_guard_bad_pages(f), 8);
	mmnf_field_close(f);
	free(data);
}

TEST(callback_may_jump_out)
{
	struct mmnf_field *f;
	volatile unsigned int jumps = 0;
	const uint32_t *p;

	scratch();
	f = make_rows("f", 0);
	p = row(f, 0);
	guard(f, f, NULL);
	cut("f", 1);
	/* The page stays as it is: the second touch jumps, too. */
	if (sigsetjmp(out, 1))
		jumps++;
	if (jumps < 2)
		EXPECT_EQ(*(volatile const uint32_t *)&p[5 * ROW], 0);
	EXPECT_EQ(jumps, 2);
	EXPECT_EQ(nr_seen, 2);
	mmnf_field_close(f);
}

static volatile int nr_earlier;
static const void *volatile earlier_at;
static volatile sig_atomic_t was_blocked;

static void earlier(int signal, siginfo_t *info, void *context)
{
	sigset_t now;

	(void)context;
	nr_earlier++;
	earlier_at = info->si_addr;
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	was_blocked = sigismember(&now, signal) && sigismember(&now, SIGUSR1);
	if (info->si_code > 0)
		siglongjmp(out, 1);
}

static void set_earlier(void)
{
	struct sigaction act = { .sa_sigaction = earlier };

	sigemptyset(&act.sa_mask);
	sigaddset(&act.sa_mask, SIGUSR1);
	act.sa_flags = SA_SIGINFO;
	ASSERT_EQ(sigaction(SIGBUS, &act, NULL), 0);
}

TEST(what_the_callback_refuses_goes_on)
{
	struct mmnf_field *f;
	const uint32_t *p;

	scratch();
	set_earlier();
	f = make_rows("f", 0);
	p = row(f, 0);
	guard(f, NULL, NULL);
	cut("f", 1);
	answer = 1;
	if (!sigsetjmp(out, 1))
		EXPECT_EQ(*(volatile const uint32_t *)&p[5 * ROW], 99);
	EXPECT_EQ(nr_seen, 1);
	EXPECT_EQ(nr_earlier, 1);
	EXPECT_TRUE(earlier_at == p + 5 * ROW);
	EXPECT_TRUE(was_blocked);
	mmnf_field_close(f);
}

TEST(other_signals_go_to_the_earlier_handler)
{
	struct mmnf_field *f;
	volatile const char *p;
	int fd;

	scratch();
	set_earlier();
	f = make_rows("f", 0);
	row(f, 0);
	guard(f, NULL, NULL);
	fd = open("other", O_RDWR | O_CREAT, 0666);
	ASSERT_EQ(ftruncate(fd, PAGE), 0);
	p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	ASSERT_TRUE(p != MAP_FAILED);
	ASSERT_EQ(ftruncate(fd, 0), 0);
	if (!sigsetjmp(out, 1))
		EXPECT_EQ(*p, 99);
	EXPECT_EQ(nr_earlier, 1);
	EXPECT_TRUE(earlier_at == p);
	raise(SIGBUS);
	EXPECT_EQ(nr_earlier, 2);
	EXPECT_EQ(nr_seen, 0);
	mmnf_field_close(f);
}

/* In a child: how it ends. */
static int ending(void (*act)(void *), void *arg)
{
	pid_t child = fork();
	int status;

	if (!child) {
		act(arg);
		_exit(0);
	}
	ASSERT_EQ(waitpid(child, &status, 0), child);
	return status;
}

static void touch(void *p)
{
	(void)*(volatile uint32_t *)p;
}

static void send(void *p)
{
	(void)p;
	raise(SIGBUS);
}

TEST(default_and_ignored_are_kept)
{
	struct mmnf_field *f;
	const uint32_t *p;
	int status;

	scratch();
	signal(SIGBUS, SIG_DFL);
	f = make_rows("f", 0);
	p = row(f, 0);
	guard(f, NULL, NULL);
	cut("f", 1);
	answer = 1;
	status = ending(touch, (void *)(p + 5 * ROW));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	status = ending(send, NULL);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	ASSERT_EQ(mmnf_guard_disable(f), 0);
	EXPECT_TRUE(sigbus().sa_handler == SIG_DFL);
	signal(SIGBUS, SIG_IGN);
	guard(f, NULL, NULL);
	EXPECT_EQ(ending(send, NULL), 0);
	/* The kernel does not let anybody ignore this one. */
	status = ending(touch, (void *)(p + 5 * ROW));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	/* A child has the guard, too. */
	answer = 0;
	EXPECT_EQ(ending(touch, (void *)(p + 5 * ROW)), 0);
	mmnf_field_close(f);
}

static const uint32_t *inner;

static int touches_another(void *arg, const struct mmnf_bad_page *bad)
{
	(void)arg;
	(void)bad;
	return *(volatile const uint32_t *)inner != 3;
}

TEST(guards_in_guards)
{
	MMNF_OPTS(mmnf_guard_opts, opts);
	struct sigaction act;
	struct mmnf_field *a, *b;
	const uint32_t *p;

	scratch();
	set_earlier();
	a = make_rows("a", 2);
	b = make_rows("b", 3);
	p = row(a, 0);
	inner = row(b, 40);
	opts.bad_page = touches_another;
	ASSERT_EQ(mmnf_guard_enable(a, &opts), 0);
	guard(b, NULL, NULL);
	EXPECT_FAILS(mmnf_guard_enable(a, &opts), EALREADY, "mmnf_guard_enable",
		     "has a guard");
	cut("a", 1);
	cut("b", 1);
	EXPECT_EQ(p[9 * ROW], 2);
	EXPECT_EQ(nr_seen, 1);
	ASSERT_EQ(mmnf_guard_disable(a), 0);
	EXPECT_FAILS(mmnf_guard_disable(a), EINVAL, "mmnf_guard_disable",
		     "no guard");
	EXPECT_EQ(inner[ROW], 3);
	EXPECT_EQ(nr_seen, 2);
	if (!sigsetjmp(out, 1))
		EXPECT_EQ(*(volatile const uint32_t *)&p[10 * ROW], 99);
	EXPECT_EQ(nr_earlier, 1);
	mmnf_field_close(b);
	act = sigbus();
	EXPECT_TRUE(act.sa_sigaction == earlier);
	mmnf_field_close(a);
}

static struct mmnf_field *shared;

static void *toucher(void *arg)
{
	uint64_t i, wrong = 0;

	for (i = 1; i < ROWS; i++)
		wrong += row(shared, i)[(uintptr_t)arg] != 5;
	return (void *)(uintptr_t)wrong;
}

/* All touch the same pages: some meet one that another has just replaced. */
TEST(threads_meet_bad_pages)
{
	pthread_t thread[4];
	uintptr_t i;
	void *wrong;

	scratch();
	shared = make_rows("f", 5);
	row(shared, 0);
	guard(shared, NULL, NULL);
	cut("f", 1);
	for (i = 0; i < 4; i++)
		ASSERT_EQ(pthread_create(&thread[i], NULL, toucher, (void *)i),
			  0);
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(pthread_join(thread[i], &wrong), 0);
		EXPECT_TRUE(!wrong);
	}
	EXPECT_GE(nr_seen, ROWS - 1);
	EXPECT_LE(nr_seen, 4 * (ROWS - 1));
	EXPECT_EQ(mmnf_guard_bad_pages(shared), nr_seen);
	mmnf_field_close(shared);
}

/* Windows that come and go after the guard was set. */
TEST(windows_that_come_later)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	uint64_t shape[2] = { ROWS, ROW }, i, round;
	uint32_t data[ROW] = { 0 };
	struct mmnf_box box = { .count = { 1, ROW } };
	struct mmnf_field *f;
	char path[32];

	scratch();
	f = make_field("f", MMNF_U32, 2, shape, 4 * PAGE, NULL);
	for (i = 0; i < ROWS; i++) {
		data[0] = (uint32_t)i + 1;
		box.start[0] = i;
		ASSERT_GT(mmnf_write(f, &box, data, sizeof(data)), 0);
	}
	mmnf_field_close(f);
	opts.engine = MMNF_ENGINE_MMAP;
	opts.max_windows = 2;
	ASSERT_EQ(mmnf_field_open(&f, "f", &opts), 0);
	guard(f, NULL, NULL);
	for (round = 0; round < 2; round++)
		for (i = 0; i < ROWS / 4; i++) {
			const uint32_t *p = row(f, 4 * i);

			ASSERT_TRUE(p);
			EXPECT_EQ(*p, 4 * i + 1);
			snprintf(path, sizeof(path), "f/c/%d/0", (int)i);
			ASSERT_EQ(truncate(path, PAGE), 0);
			EXPECT_EQ(p[2 * ROW], 0);
			ASSERT_EQ(truncate(path, 4 * PAGE), 0);
		}
	EXPECT_EQ(nr_seen, 2 * ROWS / 4);
	EXPECT_EQ(seen[5].segment, 5);
	mmnf_field_close(f);
}

/* Tiles: an index that is lost says that they are absent. */
TEST(lost_index_reads_as_fill)
{
	MMNF_OPTS(mmnf_create_opts, opts);
	uint64_t shape[2] = { 64, 1024 }, tile[2] = { 1, 1024 }, at[2] = { 9 };
	struct mmnf_box box = { .count = { 64, 1024 } };
	uint32_t fill = 6, *data = malloc(64 * PAGE), i;
	struct mmnf_field *f;
	const uint32_t *p;

	scratch();
	for (i = 0; i < 64 * 1024; i++)
		data[i] = i;
	opts.tile = tile;
	opts.fill = &fill;
	ASSERT_EQ(mmnf_field_create("f", MMNF_U32, 2, shape, &opts), 0);
	f = open_field("f", true);
	ASSERT_GT(mmnf_write(f, &box, data, 64 * PAGE), 0);
	ASSERT_EQ(mmnf_field_sync(f), 0);
	p = mmnf_activate(f, at);
	EXPECT_EQ(p[3], 9 * 1024 + 3);
	guard(f, NULL, NULL);
	cut("f", 2);
	EXPECT_EQ(p[3], fill);
	p = mmnf_activate(f, at);
	ASSERT_TRUE(p);
	EXPECT_EQ(p[3], fill);
	mmnf_field_close(f);
	free(data);
}

static bool stop_guarding;

static void *guard_and_not(void *arg)
{
	struct mmnf_field *f = (struct mmnf_field *)arg;

	while (!__atomic_load_n(&stop_guarding, __ATOMIC_RELAXED)) {
		guard(f, NULL, NULL);
		EXPECT_EQ(mmnf_guard_disable(f), 0);
	}
	return NULL;
}

/* While another thread changes the list of guards: the child can, too. */
TEST(children_of_threads)
{
	struct mmnf_field *f, *g;
	pthread_t thread;
	unsigned int i;
	int status;

	scratch();
	f = make_rows("f", 0);
	g = make_rows("g", 0);
	ASSERT_EQ(pthread_create(&thread, NULL, guard_and_not, f), 0);
	for (i = 0; i < 200; i++) {
		pid_t child = fork();

		if (!child) {
			alarm(60);
			guard(g, NULL, NULL);
			_exit(mmnf_guard_disable(g) ? 1 : 0);
		}
		ASSERT_EQ(waitpid(child, &status, 0), child);
		ASSERT_EQ(status, 0);
	}
	__atomic_store_n(&stop_guarding, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	mmnf_field_close(f);
	mmnf_field_close(g);
}

TEST(what_enable_refuses)
{
	struct {
		struct mmnf_guard_opts opts;
		uint64_t tail;
	} later = { .tail = 1 };
	struct mmnf_field *f;

	scratch();
	f = make_rows("f", 0);
	later.opts.size = sizeof(later);
	EXPECT_FAILS(mmnf_guard_enable(f, &later.opts), EOPNOTSUPP,
		     "mmnf_guard_enable", "mmnf_guard_opts");
	EXPECT_EQ(mmnf_guard_bad_pages(f), 0);
	mmnf_field_close(f);
}

TEST_MAIN
