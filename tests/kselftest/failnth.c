// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation and every copy from or to user memory, failed one by one.
 *
 * /proc/thread-self/fail-nth counts a task's points of failure down; the point
 * that brings it to zero fails.  An operation is repeated with n = 1, 2, .. until
 * it ends before its n-th point.  Each time it must succeed, or fail as the ABI
 * says; afterwards it works, and nothing of it is left.
 */
#include "util.h"

#include <sys/wait.h>

#define BYTES (4 * MIB)
#define PROC_FAIL "/proc/thread-self/fail-nth"
#define DEBUGFS "/sys/kernel/debug/"
/* More points than any operation has. */
#define MAX_POINTS 5000

/*
 * The kernel writes to the rseq area of a task that was preempted.  After fork() that page
 * is to be copied first, and if no memory is found for it the task is killed: whether a
 * point of failure falls there is chance.  So there is to be no such area.
 */
static void __attribute__((constructor))
live_without_rseq(int argc, char **argv)
{
	(void)argc;
	if (getenv("GLIBC_TUNABLES"))
		return;
	setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
	execv("/proc/self/exe", argv);
}

FIXTURE(failnth)
{
	int fd, dev, control;
	char *p;
	const char *skip;
};

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int ret = fd < 0 || write(fd, text, strlen(text)) < 0 ? -1 : 0;

	close(fd);
	return ret;
}

/* Allocations that may sleep or take high memory fail, too, without a trace. */
static void fail_all_kinds(void)
{
	put(DEBUGFS "failslab/ignore-gfp-wait", "N");
	put(DEBUGFS "failslab/verbose", "0");
	put(DEBUGFS "fail_page_alloc/ignore-gfp-wait", "N");
	put(DEBUGFS "fail_page_alloc/ignore-gfp-highmem", "N");
	put(DEBUGFS "fail_page_alloc/min-order", "0");
	put(DEBUGFS "fail_page_alloc/verbose", "0");
	put(DEBUGFS "fail_usercopy/verbose", "0");
}

FIXTURE_SETUP(failnth)
{
	self->control = open(PROC_FAIL, O_RDWR | O_CLOEXEC);
	if (self->control < 0 || access(DEBUGFS "failslab", F_OK)) {
		self->skip = "kernel: without fault injection";
		return;
	}
	fail_all_kinds();
	self->fd = make_field(_metadata, "failnth", BYTES);
	self->dev = attach_field(_metadata, self->fd, BYTES);
	self->p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
}

FIXTURE_TEARDOWN(failnth)
{
	if (self->skip)
		return;
	munmap(self->p, BYTES);
	close(self->dev);
	close(self->fd);
	remove_field("failnth");
}

#define SKIP_WITHOUT_INJECTION()                        \
	do {                                            \
		if (self->skip)                         \
			SKIP(return, "%s", self->skip); \
	} while (0)

static void arm(int control, unsigned int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", nth);

	/* Once more if a point that was left has failed this very call. */
	if (pwrite(control, text, len, 0) != len &&
	    pwrite(control, text, len, 0) != len)
		abort();
}

/* Was the point reached?  The asking itself has points of failure. */
static bool reached(int control)
{
	char text[16] = "";
	ssize_t len = pread(control, text, sizeof(text) - 1, 0);

	if (len > 0 && text[0] == '0' && text[1] <= '\n')
		return true;
	arm(control, 0);
	return false;
}

typedef int (*operation)(FIXTURE_DATA(failnth) * self);

/* Fails each point of @op in turn; how many there were. */
static unsigned int sweep(struct __test_metadata *_metadata,
			  FIXTURE_DATA(failnth) * self, const char *name,
			  operation op)
{
	unsigned int nth, failed = 0;
	int ret;

	ASSERT_EQ(0, op(self));
	for (nth = 1; nth < MAX_POINTS; nth++) {
		arm(self->control, nth);
		ret = op(self);
		if (!reached(self->control)) {
			EXPECT_EQ(0, ret);
			break;
		}
		failed += ret != 0;
		EXPECT_TRUE(ret == 0 || ret == ENOMEM || ret == EFAULT ||
			    ret == EAGAIN)
		TH_LOG("%s, point %u: %s", name, nth, strerror(ret));
	}
	EXPECT_LT(nth, MAX_POINTS);
	EXPECT_EQ(0, op(self));
	get_stats(_metadata, self->dev);
	ksft_print_msg("%s: %u points, %u failed it\n", name, nth - 1, failed);
	fflush(stdout);
	EXPECT_LT(0, nth - 1)
	TH_LOG("%s: no point was found", name);
	return nth - 1;
}

static int op_open(FIXTURE_DATA(failnth) * self __unused_fn)
{
	int dev = open(MMNF_DEVICE, O_RDWR | O_CLOEXEC);

	if (dev < 0)
		return errno;
	close(dev);
	return 0;
}

static int op_attach(FIXTURE_DATA(failnth) * self)
{
	struct mmnf_ioc_attach attach = vector_of(self->fd, BYTES);
	int dev = open(MMNF_DEVICE, O_RDWR | O_CLOEXEC), ret;

	if (dev < 0)
		return errno;
	ret = err_of(ioctl(dev, MMNF_IOC_ATTACH, &attach));
	close(dev);
	return ret;
}

static int op_info(FIXTURE_DATA(failnth) * self)
{
	struct mmnf_ioc_info info = { .size = sizeof(info) };

	return err_of(ioctl(self->dev, MMNF_IOC_GET_INFO, &info));
}

static int op_get_policy(FIXTURE_DATA(failnth) * self)
{
	struct mmnf_ioc_policy policy = { .size = sizeof(policy) };

	return err_of(ioctl(self->dev, MMNF_IOC_GET_POLICY, &policy));
}

static int op_set_policy(FIXTURE_DATA(failnth) * self)
{
	struct mmnf_ioc_policy policy = { .size = sizeof(policy),
					  .mode = MMNF_MODE_AUTO };

	return err_of(ioctl(self->dev, MMNF_IOC_SET_POLICY, &policy));
}

static int op_stats(FIXTURE_DATA(failnth) * self)
{
	struct mmnf_ioc_stats stats = { .size = sizeof(stats) };

	return err_of(ioctl(self->dev, MMNF_IOC_GET_STATS, &stats));
}

static struct mmnf_ioc_box some_box(void)
{
	struct mmnf_ioc_box box = { .count = { 64 }, .step = { 4096 } };

	return box;
}

static struct mmnf_select select_of(void *items, u32 nr, u32 kind)
{
	struct mmnf_select select = {
		.items = (u64)(unsigned long)items,
		.nr_items = nr,
		.kind = kind,
	};

	return select;
}

/* Do all pages of a range come within 50 ms? */
static bool comes(FIXTURE_DATA(failnth) * self, const struct mmnf_range *range)
{
	unsigned char there[64];
	u64 deadline = now_ms() + 50, nr = range->len_bytes / PAGE;
	u32 i;

	do {
		if (mincore(self->p + range->start_bytes, range->len_bytes,
			    there))
			return false;
		for (i = 0; i < nr && there[i] & 1; i++)
			;
	} while (i < nr && now_ms() < deadline);
	return i == nr;
}

/*
 * Cold again each time, or there would be nothing to allocate.  What has begun to read
 * has no memory enough only if pages stay absent.
 */
static int op_prefetch(FIXTURE_DATA(failnth) * self)
{
	struct mmnf_range range[2] = { { 0, 256 * 1024 }, { 2 * MIB, 4096 } };
	struct mmnf_ioc_prefetch prefetch = {
		.size = sizeof(prefetch),
		.flags = MMNF_PREFETCH_WAIT,
		.select = select_of(range, 2, MMNF_SELECT_RANGES),
	};
	int ret = err_of(ioctl(self->dev, MMNF_IOC_PREFETCH, &prefetch));

	if (ret == ENOMEM && comes(self, &range[0]) && comes(self, &range[1]))
		return EPROTO;
	return ret;
}

static int op_prefetch_box(FIXTURE_DATA(failnth) * self)
{
	struct mmnf_ioc_box box = some_box();
	struct mmnf_ioc_prefetch prefetch = {
		.size = sizeof(prefetch),
		.select = select_of(&box, 1, MMNF_SELECT_BOXES),
	};

	return err_of(ioctl(self->dev, MMNF_IOC_PREFETCH, &prefetch));
}

static int op_evict(FIXTURE_DATA(failnth) * self)
{
	struct mmnf_range range = { 0, BYTES };
	struct mmnf_ioc_evict evict = {
		.size = sizeof(evict),
		.select = select_of(&range, 1, MMNF_SELECT_RANGES),
	};

	return err_of(ioctl(self->dev, MMNF_IOC_EVICT, &evict));
}

static int op_residency(FIXTURE_DATA(failnth) * self)
{
	struct mmnf_ioc_box box = some_box();
	struct mmnf_state state;
	struct mmnf_ioc_residency residency = {
		.size = sizeof(residency),
		.select = select_of(&box, 1, MMNF_SELECT_BOXES),
		.states = (u64)(unsigned long)&state,
	};

	return err_of(ioctl(self->dev, MMNF_IOC_RESIDENCY, &residency));
}

static int op_mmap(FIXTURE_DATA(failnth) * self)
{
	char *p = mmap(NULL, MIB, PROT_READ, MAP_SHARED, self->dev, MIB);

	if (p == MAP_FAILED)
		return errno;
	/* A point in munmap is one of mmap's, undone. */
	while (munmap(p, MIB))
		if (errno != ENOMEM)
			return errno;
	return 0;
}

/* An area in the middle goes: two are left. */
static int op_split(FIXTURE_DATA(failnth) * self)
{
	char *p = mmap(NULL, MIB, PROT_READ, MAP_SHARED, self->dev, 0);
	int ret;

	if (p == MAP_FAILED)
		return errno;
	ret = err_of(munmap(p + MIB / 2, PAGE));
	while (munmap(p, MIB))
		if (errno != ENOMEM)
			return errno;
	return ret;
}

static int op_fork(FIXTURE_DATA(failnth) * self __unused_fn)
{
	pid_t pid = fork();

	if (pid < 0)
		return errno;
	if (!pid)
		_exit(0);
	return wait_child(pid) ? EIO : 0;
}

/* A fault that finds no memory is run again; a failed read is a SIGBUS. */
static int op_touch(FIXTURE_DATA(failnth) * self)
{
	u64 word;

	if (!try_load(self->p + 3 * MIB, &word))
		return ENOMEM;
	return word == word_at(3 * MIB) ? 0 : EILSEQ;
}

/* Cold for @op: what is mapped goes first. */
static int make_cold(FIXTURE_DATA(failnth) * self)
{
	if (madvise(self->p, BYTES, MADV_DONTNEED))
		return errno;
	return posix_fadvise(self->fd, 0, 0, POSIX_FADV_DONTNEED);
}

#define SWEEP(_name)                                          \
	TEST_F_TIMEOUT(failnth, _name, 600)                   \
	{                                                     \
		SKIP_WITHOUT_INJECTION();                     \
		catch_sigbus();                               \
		sweep(_metadata, self, #_name, op_##_name);   \
		EXPECT_EQ(0, wrong_words(self->p, 0, BYTES)); \
	}

SWEEP(open)
SWEEP(attach)
SWEEP(info)
SWEEP(get_policy)
SWEEP(set_policy)
SWEEP(stats)
SWEEP(residency)
SWEEP(mmap)
SWEEP(split)
SWEEP(fork)

/* The same, each time over cold pages: the making cold is not failed. */
#define SWEEP_COLD(_name)                                           \
	TEST_F_TIMEOUT(failnth, _name, 600)                         \
	{                                                           \
		unsigned int nth, points = 0;                       \
		int ret;                                            \
                                                                    \
		SKIP_WITHOUT_INJECTION();                           \
		catch_sigbus();                                     \
		for (nth = 1; nth < MAX_POINTS; nth++) {            \
			ASSERT_EQ(0, make_cold(self));              \
			arm(self->control, nth);                    \
			ret = op_##_name(self);                     \
			if (!reached(self->control))                \
				break;                              \
			points++;                                   \
			EXPECT_TRUE(ret == 0 || ret == ENOMEM ||    \
				    ret == EFAULT)                  \
			TH_LOG("point %u: %s", nth, strerror(ret)); \
		}                                                   \
		EXPECT_EQ(0, ret);                                  \
		EXPECT_LT(0, points);                               \
		EXPECT_LT(nth, MAX_POINTS);                         \
		ksft_print_msg(#_name ": %u points\n", points);     \
		fflush(stdout);                                     \
		ASSERT_EQ(0, make_cold(self));                      \
		EXPECT_EQ(0, op_##_name(self));                     \
		EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));       \
		get_stats(_metadata, self->dev);                    \
	}

SWEEP_COLD(prefetch)
SWEEP_COLD(prefetch_box)
SWEEP_COLD(evict)
SWEEP_COLD(touch)

/* What the kernel's threads allocate may fail, and that of those to come. */
static void let_workers_fail(void)
{
	struct dirent *entry;
	DIR *proc = opendir("/proc");
	char path[300], text[32];

	while (proc && (entry = readdir(proc))) {
		int fd;

		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		memset(text, 0, sizeof(text));
		if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0 ||
		    (strncmp(text, "kworker", 7) && strcmp(text, "kthreadd\n")))
			text[0] = 0;
		close(fd);
		snprintf(path, sizeof(path), "/proc/%s/make-it-fail",
			 entry->d_name);
		if (text[0])
			put(path, "1");
	}
	closedir(proc);
}

/* That only the marked fail stays set: without it the guest would not live. */
static void fail_often(const char *percent)
{
	put(DEBUGFS "failslab/task-filter", "Y");
	put(DEBUGFS "fail_page_alloc/task-filter", "Y");
	put(DEBUGFS "failslab/times", "-1");
	put(DEBUGFS "fail_page_alloc/times", "-1");
	put(DEBUGFS "failslab/probability", percent);
	put(DEBUGFS "fail_page_alloc/probability", percent);
}

/* Workers read ahead while a fifth of their allocations fails. */
TEST_F_TIMEOUT(failnth, reading_ahead_without_memory, 600)
{
	struct mmnf_ioc_stats s;

	SKIP_WITHOUT_INJECTION();
	catch_sigbus();
	let_workers_fail();
	fail_often("20");
	ASSERT_EQ(0, make_cold(self));
	EXPECT_EQ(0, walk(self->p, 0, 17 * PAGE, BYTES / (17 * PAGE), 0));
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
	fail_often("0");
	s = get_stats(_metadata, self->dev);
	log_stats("reading ahead without memory", &s);
	EXPECT_LT(0, s.out_prefetched_pages);
}

MMNF_HARNESS_MAIN
