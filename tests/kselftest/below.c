// SPDX-License-Identifier: GPL-2.0
/*
 * What may go wrong below the field: a device that cannot read a sector, and a
 * memory group far smaller than the walk.
 *
 * MMNF_WALK_MIB is the length of the walk in the group, 512 by default.
 */
#include "util.h"

#include <sys/wait.h>

#define BYTES (8 * MIB)
#define DM "mmnf-below"
#define SECTORS (BYTES / 512)
/* The page that cannot be read, in the middle of others. */
#define BAD (3 * MIB + 5 * PAGE)

FIXTURE(eio)
{
	int image, below, fd, dev;
	char loop[64];
	char *p;
};

/* A device-mapper table: all of the loop device, but for one page if @bad. */
static int set_table(const char *verb, const char *loop, bool bad)
{
	u64 start = BAD / 512, end = (BAD + PAGE) / 512;

	if (!bad)
		return shell("echo '0 %lu linear %s 0' | dmsetup %s " DM,
			     SECTORS, loop, verb);
	return shell("printf '0 %llu linear %s 0\\n%llu %llu error\\n"
		     "%llu %llu linear %s %llu\\n' | dmsetup %s " DM,
		     start, loop, start, end - start, end, SECTORS - end, loop,
		     end, verb);
}

static int swap_table(const char *loop, bool bad)
{
	return shell("dmsetup suspend " DM) || set_table("load", loop, bad) ||
	       shell("dmsetup resume " DM);
}

FIXTURE_SETUP(eio)
{
	char image[300];

	if (shell("modprobe -q dm-mod && command -v dmsetup >/dev/null"))
		SKIP(return, "environment: no dmsetup");
	self->image = make_field(_metadata, "below", BYTES);
	snprintf(image, sizeof(image), "%s/below", ground);
	self->below = make_loop(image, self->loop, sizeof(self->loop));
	ASSERT_LE(0, self->below);
	ASSERT_EQ(0, set_table("create", self->loop, false));
	shell("dmsetup mknodes " DM);
	self->fd = open("/dev/mapper/" DM, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fd);
	self->dev = attach_field(_metadata, self->fd, BYTES);
	self->p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
	catch_sigbus();
}

FIXTURE_TEARDOWN(eio)
{
	munmap(self->p, BYTES);
	close(self->dev);
	close(self->fd);
	shell("dmsetup remove --retry " DM);
	close(self->below);
	close(self->image);
	remove_field("below");
}

/* Pages in a folio with one that cannot be read fail with it. */
static bool may_fail[BYTES / PAGE];

/* All pages but those hold their words; whether the bad one could be read. */
static bool read_all(struct __test_metadata *_metadata, const char *p,
		     s64 stride)
{
	u64 pos = stride < 0 ? BYTES - PAGE : 0, word, nr;
	bool good = true;

	for (nr = BYTES / PAGE; nr; nr--, pos += stride) {
		bool ok = try_load(p + pos, &word);

		if (pos == BAD)
			good = ok;
		EXPECT_TRUE(ok || may_fail[pos / PAGE])
		TH_LOG("page %llu raised SIGBUS", pos / PAGE);
		if (ok)
			EXPECT_EQ(word_at(pos), word);
	}
	return good;
}

/* Which pages fail in a mapping of the device below, walked in the same way. */
static void ask_the_host(struct __test_metadata *_metadata,
			 FIXTURE_DATA(eio) * self)
{
	int fd = open("/dev/mapper/" DM, O_RDONLY | O_CLOEXEC);
	char *p = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, fd, 0);
	u64 i, word, nr = 0;

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, swap_table(self->loop, true));
	drop_cache(_metadata, self->fd);
	for (i = 0; i < BYTES / PAGE; i++)
		nr += may_fail[i] = !try_load(p + i * PAGE, &word);
	munmap(p, BYTES);
	close(fd);
	ASSERT_EQ(0, swap_table(self->loop, false));
	drop_cache(_metadata, self->fd);
	EXPECT_TRUE(may_fail[BAD / PAGE]);
	ksft_print_msg("%llu pages fail in the host's own mapping\n", nr);
}

static void check_bad_page(struct __test_metadata *_metadata,
			   FIXTURE_DATA(eio) * self, s64 stride)
{
	struct mmnf_range all = { 0, BYTES };
	struct mmnf_ioc_prefetch prefetch = {
		.size = sizeof(prefetch),
		.flags = MMNF_PREFETCH_WAIT,
		.select = { .items = (unsigned long)&all, .nr_items = 1 },
	};

	ASSERT_EQ(0, swap_table(self->loop, true));
	ASSERT_EQ(0, madvise(self->p, BYTES, MADV_DONTNEED));
	drop_cache(_metadata, self->fd);
	EXPECT_FALSE(read_all(_metadata, self->p, stride));
	/* Once more: it stays so, and a hint is no demand. */
	EXPECT_EQ(0, ioctl(self->dev, MMNF_IOC_PREFETCH, &prefetch));
	EXPECT_FALSE(read_all(_metadata, self->p, stride));
	get_stats(_metadata, self->dev);

	ASSERT_EQ(0, swap_table(self->loop, false));
	EXPECT_TRUE(read_all(_metadata, self->p, stride));
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
	get_stats(_metadata, self->dev);
}

/* With the predictor each page is a folio, and one fails alone. */
TEST_F(eio, one_page_fails_forwards)
{
	may_fail[BAD / PAGE] = true;
	check_bad_page(_metadata, self, PAGE);
}

TEST_F(eio, one_page_fails_backwards)
{
	may_fail[BAD / PAGE] = true;
	check_bad_page(_metadata, self, -(s64)PAGE);
}

TEST_F(eio, one_page_fails_without_the_predictor)
{
	set_mode(_metadata, self->dev, MMNF_MODE_OFF);
	munmap(self->p, BYTES);
	ask_the_host(_metadata, self);
	self->p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
	check_bad_page(_metadata, self, PAGE);
}

/* The group */

#define GROUP "/sys/fs/cgroup/mmnf-below"
#define GROUP_BYTES (32 * MIB)

static u64 number_in(const char *path, const char *key)
{
	char line[256], name[64];
	unsigned long long value, found = 0;
	FILE *f = fopen(path, "r");

	while (f && fgets(line, sizeof(line), f)) {
		if (!*key && sscanf(line, "%llu", &value) == 1)
			found = value;
		if (sscanf(line, "%63s %llu", name, &value) == 2 &&
		    !strcmp(name, key))
			found = value;
	}
	if (f)
		fclose(f);
	return found;
}

static int walk_in_group(u64 bytes, s64 stride)
{
	int fd = open("/dev/nullb0", O_RDONLY | O_CLOEXEC), dev;
	struct mmnf_ioc_attach attach = vector_of(fd, bytes);
	u64 nr, pos;
	char *p;

	if (shell("echo %d >" GROUP "/cgroup.procs", getpid()))
		return 2;
	dev = open(MMNF_DEVICE, O_RDWR | O_CLOEXEC);
	if (ioctl(dev, MMNF_IOC_ATTACH, &attach))
		return 3;
	p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, dev, 0);
	if (p == MAP_FAILED)
		return 4;
	nr = bytes / (stride < 0 ? -stride : stride);
	for (pos = stride < 0 ? bytes - PAGE : 0; nr; nr--, pos += stride)
		load(p + pos);
	return 0;
}

/* Nothing is charged to anybody else, and nobody is killed. */
FIXTURE(group) {};

FIXTURE_SETUP(group)
{
}

FIXTURE_TEARDOWN(group)
{
}

TEST_F_TIMEOUT(group, walk_stays_inside, 3600)
{
	const char *given = getenv("MMNF_WALK_MIB");
	u64 bytes = (given ? strtoull(given, NULL, 0) : 512) * MIB, peak,
	    cached;
	const s64 stride[] = { PAGE, -17 * (s64)PAGE, 17 * PAGE };
	unsigned int i;
	pid_t pid;

	if (shell("modprobe -q null_blk nr_devices=1 gb=%llu queue_mode=2 "
		  "irqmode=0 2>/dev/null",
		  (bytes + 1024 * MIB - 1) >> 30) ||
	    access("/dev/nullb0", F_OK))
		SKIP(return, "kernel: no null_blk, or it is in use");
	shell("echo +memory >/sys/fs/cgroup/cgroup.subtree_control");
	ASSERT_EQ(0, mkdir(GROUP, 0755));
	ASSERT_EQ(0, shell("echo %lu >" GROUP "/memory.max", GROUP_BYTES));
	cached = number_in("/proc/meminfo", "Cached:") * 1024;
	for (i = 0; i < 3; i++) {
		pid = fork();
		if (!pid)
			_exit(walk_in_group(bytes, stride[i]));
		EXPECT_EQ(0, wait_child(pid));
	}
	peak = number_in(GROUP "/memory.peak", "");
	ksft_print_msg(
		"%llu MiB walked three ways, peak %llu KiB, max %llu times, "
		"%llu pages read by its faults\n",
		bytes / MIB, peak / 1024,
		number_in(GROUP "/memory.events", "max"),
		number_in(GROUP "/memory.stat", "pgmajfault"));
	fflush(stdout);
	EXPECT_GE(GROUP_BYTES, peak);
	EXPECT_LT(GROUP_BYTES / 2, peak);
	EXPECT_LT(0, number_in(GROUP "/memory.events", "max"));
	EXPECT_EQ(0, number_in(GROUP "/memory.events", "oom_kill"));
	EXPECT_GT(cached + 2 * GROUP_BYTES,
		  number_in("/proc/meminfo", "Cached:") * 1024);
	EXPECT_EQ(0, rmdir(GROUP));
	shell("rmmod null_blk");
}

MMNF_HARNESS_MAIN
