// SPDX-License-Identifier: GPL-2.0
/* /sys/class/misc/mmnf/fields/ID: what it shows, takes and gives away. */
#include "util.h"

#include <ftw.h>
#include <inttypes.h>

#define BYTES (1 * MIB)
#define NOBODY 65534

/* A name that must not be seen anywhere. */
#define SECRET "needle-in-the-haystack"

FIXTURE(sysfs)
{
	int fd, dev;
	struct mmnf_ioc_attach attach;
	char dir[256];
};

FIXTURE_SETUP(sysfs)
{
	self->fd = make_field(_metadata, SECRET, BYTES);
	self->dev = open_device(_metadata);
	/* 100 x 20 elements, the first axis running backwards */
	self->attach = (struct mmnf_ioc_attach) {
		.size = sizeof(self->attach),
		.fd = self->fd,
		.ndim = 2,
		.element_bytes = 4,
		.data_offset_bytes = 99 * 10000 + 8,
		.record_bytes = 80,
		.extent = { 100, 20 },
		.stride_bytes = { -10000, 4 },
	};
	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_ATTACH, &self->attach));
	snprintf(self->dir, sizeof(self->dir), MMNF_SYSFS "/fields/%llu",
		 self->attach.out_id);
}

FIXTURE_TEARDOWN(sysfs)
{
	close(self->dev);
	close(self->fd);
	remove_field(SECRET);
}

/* The text of a file without its newline; "" if it cannot be read. */
static const char *text_of(const char *dir, const char *name)
{
	static char text[4097];
	char path[400];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY);
	len = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	text[len < 0 ? 0 : len] = 0;
	if (len > 0 && text[len - 1] == '\n')
		text[len - 1] = 0;
	return text;
}

static u64 number_of(const char *dir, const char *name)
{
	const char *text = text_of(dir, name);
	char *end;
	u64 value = strtoull(text, &end, 10);

	return *text && !*end ? value : ~0ULL - 1;
}

/* errno of writing a text */
static int store(const char *dir, const char *name, const char *text)
{
	char path[400];
	int fd, err;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return errno;
	err = write(fd, text, strlen(text)) < 0 ? errno : 0;
	close(fd);
	return err;
}

static bool gone(const char *dir)
{
	u64 deadline = now_ms() + 2000;

	/* The last reference may be dropped by a process that is just ending. */
	while (!access(dir, F_OK)) {
		if (now_ms() > deadline)
			return false;
		sleep_ms(5);
	}
	return true;
}

TEST_F(sysfs, geometry_as_attached)
{
	EXPECT_STREQ("2", text_of(self->dir, "ndim"));
	EXPECT_STREQ("4", text_of(self->dir, "element_bytes"));
	EXPECT_STREQ("100 20", text_of(self->dir, "shape"));
	EXPECT_STREQ("-10000 4", text_of(self->dir, "stride_bytes"));
	EXPECT_STREQ("990008", text_of(self->dir, "data_offset_bytes"));
	EXPECT_STREQ("80", text_of(self->dir, "record_bytes"));
	EXPECT_STREQ("1048576", text_of(self->dir, "size_bytes"));
	EXPECT_STREQ("0", text_of(self->dir, "writable"));
}

TEST_F(sysfs, directory_goes_with_the_descriptor)
{
	EXPECT_EQ(0, access(self->dir, F_OK));
	close(self->dev);
	self->dev = -1;
	EXPECT_TRUE(gone(self->dir));
}

TEST_F(sysfs, directory_stays_while_mapped)
{
	char *p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);

	close(self->dev);
	self->dev = -1;
	sleep_ms(100);
	EXPECT_EQ(0, access(self->dir, F_OK));
	EXPECT_EQ(1, number_of(self->dir, "stats/mappings"));
	munmap(p, BYTES);
	EXPECT_TRUE(gone(self->dir));
}

TEST_F(sysfs, directory_goes_with_a_killed_process)
{
	struct mmnf_ioc_attach attach = self->attach;
	char dir[256];
	int ready[2];
	pid_t pid;

	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	if (!pid) {
		int dev = open_device(_metadata);

		ioctl(dev, MMNF_IOC_ATTACH, &attach);
		map_field(_metadata, dev, 0, BYTES, MAP_SHARED);
		write(ready[1], &attach.out_id, sizeof(attach.out_id));
		pause();
	}
	ASSERT_EQ((ssize_t)sizeof(attach.out_id),
		  read(ready[0], &attach.out_id, sizeof(attach.out_id)));
	snprintf(dir, sizeof(dir), MMNF_SYSFS "/fields/%llu", attach.out_id);
	EXPECT_EQ(0, access(dir, F_OK));
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, wait_child(pid));
	EXPECT_TRUE(gone(dir));
}

/* A file that is open while its field goes neither blocks nor crashes. */
TEST_F(sysfs, open_file_of_a_gone_field_is_harmless)
{
	char path[300], text[64];
	int fd;

	snprintf(path, sizeof(path), "%s/stats/faults", self->dir);
	fd = open(path, O_RDONLY);
	ASSERT_LE(0, fd);
	close(self->dev);
	self->dev = -1;
	ASSERT_TRUE(gone(self->dir));
	EXPECT_EQ(ENODEV, err_of(read(fd, text, sizeof(text))));
	close(fd);
}

TEST_F(sysfs, mode_round_trip)
{
	static const char *const names[] = { "off", "auto", "manual" };
	u32 mode;

	EXPECT_STREQ("auto", text_of(self->dir, "mode"));
	for (mode = 0; mode < 3; mode++) {
		EXPECT_EQ(0, store(self->dir, "mode", names[mode]));
		EXPECT_EQ(mode, get_policy(_metadata, self->dev).mode);
		EXPECT_STREQ(names[mode], text_of(self->dir, "mode"));
	}
	EXPECT_EQ(0, store(self->dir, "mode", "auto\n"));
	set_mode(_metadata, self->dev, MMNF_MODE_MANUAL);
	EXPECT_STREQ("manual", text_of(self->dir, "mode"));
}

TEST_F(sysfs, limits_round_trip)
{
	struct mmnf_ioc_policy policy;

	EXPECT_EQ(0, store(self->dir, "min_depth", "3\n"));
	EXPECT_EQ(0, store(self->dir, "max_depth", "77"));
	EXPECT_EQ(0, store(self->dir, "max_window_bytes", "131072"));
	EXPECT_EQ(0, store(self->dir, "max_inflight_bytes", "262144"));
	policy = get_policy(_metadata, self->dev);
	EXPECT_EQ(3, policy.min_depth);
	EXPECT_EQ(77, policy.max_depth);
	EXPECT_EQ(131072, policy.max_window_bytes);
	EXPECT_EQ(262144, policy.max_inflight_bytes);
	EXPECT_EQ(MMNF_MODE_AUTO, policy.mode);
	EXPECT_EQ(3, number_of(self->dir, "min_depth"));
	EXPECT_EQ(77, number_of(self->dir, "max_depth"));
	EXPECT_EQ(131072, number_of(self->dir, "max_window_bytes"));
	EXPECT_EQ(262144, number_of(self->dir, "max_inflight_bytes"));
}

TEST_F(sysfs, rubbish_einval_and_no_change)
{
	static const char *const limits[] = { "min_depth", "max_depth",
					      "max_window_bytes",
					      "max_inflight_bytes" };
	static const char *const rubbish[] = {
		"x", "-1", "1 2", "0x", "1.5", "99999999999999999999999",
		"0", " ",
	};
	struct mmnf_ioc_policy before = get_policy(_metadata, self->dev);
	struct mmnf_ioc_policy after;
	unsigned int i, k;

	for (i = 0; i < ARRAY_SIZE(limits); i++) {
		for (k = 0; k < ARRAY_SIZE(rubbish); k++) {
			int err = store(self->dir, limits[i], rubbish[k]);

			/* A number that fits no integer may say so. */
			EXPECT_TRUE(err == EINVAL || err == ERANGE)
			TH_LOG("%s <- '%s': %d", limits[i], rubbish[k], err);
		}
	}
	EXPECT_EQ(EINVAL, store(self->dir, "mode", "sometimes"));
	EXPECT_EQ(EINVAL, store(self->dir, "mode", "1"));
	EXPECT_EQ(EINVAL, store(self->dir, "mode", "autox"));
	EXPECT_EQ(EINVAL, store(self->dir, "min_depth", "1000000"));
	EXPECT_EQ(EINVAL, store(self->dir, "max_depth", "4000000000"));
	after = get_policy(_metadata, self->dev);
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(after)));
}

TEST_F(sysfs, facts_are_read_only_even_for_root)
{
	static const char *const names[] = { "ndim",	      "shape",
					     "stride_bytes",  "size_bytes",
					     "writable",      "stats/faults",
					     "stats/mappings" };
	struct stat st;
	char path[400];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", self->dir, names[i]);
		ASSERT_EQ(0, stat(path, &st))
		TH_LOG("%s", names[i]);
		EXPECT_EQ(0444, st.st_mode & 07777);
		EXPECT_NE(0, store(self->dir, names[i], "1"));
	}
}

TEST_F(sysfs, others_may_look_but_not_set)
{
	static const char *const names[] = { "mode", "min_depth", "max_depth",
					     "max_window_bytes",
					     "max_inflight_bytes" };
	pid_t pid = fork();
	unsigned int i;

	if (!pid) {
		if (setgid(NOBODY) || setuid(NOBODY))
			_exit(100);
		for (i = 0; i < ARRAY_SIZE(names); i++)
			if (store(self->dir, names[i], "1") != EACCES)
				_exit(i + 1);
		if (!*text_of(self->dir, "mode"))
			_exit(101);
		_exit(0);
	}
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_STREQ("auto", text_of(self->dir, "mode"));
}

TEST_F(sysfs, counters_equal_get_stats)
{
	char *p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
	const struct mmnf_range range = { 0, 128 * 1024 };
	struct mmnf_ioc_prefetch prefetch = {
		.size = sizeof(prefetch),
		.flags = MMNF_PREFETCH_WAIT,
		.select.items = (unsigned long)&range,
		.select.nr_items = 1,
	};
	struct mmnf_ioc_stats s;

	drop_cache(_metadata, self->fd);
	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_PREFETCH, &prefetch));
	EXPECT_EQ(0, walk(p, 0, 3 * PAGE, 33, 2));
	/* The worker has come to rest when nothing changes any more. */
	sleep_ms(100);
	s = get_stats(_metadata, self->dev);
	EXPECT_LT(0, s.out_faults);
	EXPECT_LT(0, s.out_prefetched_pages);
	EXPECT_EQ(32, s.out_manual_pages);
#define SAME(name) EXPECT_EQ(s.out_##name, number_of(self->dir, "stats/" #name))
	SAME(faults);
	SAME(hits);
	SAME(late);
	SAME(misses);
	SAME(prefetched_pages);
	SAME(used_pages);
	SAME(wasted_pages);
	SAME(pending_pages);
	SAME(plans);
	SAME(dropped_plans);
	SAME(manual_pages);
	SAME(evicted_pages);
	SAME(mappings);
	munmap(p, BYTES);
}

/* Alone on its field, each fault that found nothing or what is being read waited. */
TEST_F(sysfs, waits_are_those_of_late_and_missed)
{
	char *p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
	struct mmnf_ioc_stats s;
	unsigned int nr = 0;
	const char *at;
	u64 sum = 0;
	char *end;

	drop_cache(_metadata, self->fd);
	EXPECT_EQ(0, walk(p, 0, 5 * PAGE, 40, 0));
	s = get_stats(_metadata, self->dev);
	for (at = text_of(self->dir, "stats/waits"); *at; at = end, nr++) {
		sum += strtoull(at, &end, 10);
		ASSERT_NE(at, end);
	}
	EXPECT_EQ(128, nr);
	EXPECT_LT(0, s.out_misses);
	EXPECT_EQ(s.out_late + s.out_misses, sum);
	/* What is resident is not waited for. */
	EXPECT_EQ(0, walk(p, 0, 5 * PAGE, 40, 0));
	munmap(p, BYTES);
	p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
	EXPECT_EQ(0, walk(p, 0, 5 * PAGE, 40, 0));
	for (at = text_of(self->dir, "stats/waits"); *at; at = end)
		sum -= strtoull(at, &end, 10);
	EXPECT_EQ(0, sum);
	munmap(p, BYTES);
}

/* One value per file: a line, and at most ndim numbers in it. */
static unsigned int nr_files;
static const char *odd_file;

static int look_at(const char *path, const struct stat *st, int type,
		   struct FTW *at __attribute__((unused)))
{
	char text[4097], link[4096];
	ssize_t len;
	int fd;

	if (type == FTW_SL) {
		len = readlink(path, link, sizeof(link) - 1);
		link[len < 0 ? 0 : len] = 0;
		if (strstr(link, SECRET))
			odd_file = strdup(path);
	}
	if (type != FTW_F || !(st->st_mode & 0444))
		return 0;
	fd = open(path, O_RDONLY);
	len = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	close(fd);
	if (len < 0)
		return 0;
	text[len] = 0;
	nr_files++;
	if (strstr(text, SECRET) || strstr(text, ground) ||
	    !strchr(text, '\n') || strchr(text, '\n') != text + len - 1)
		odd_file = strdup(path);
	return 0;
}

/* A walk of every 17th page of a field without axes: debugfs has its stride. */
TEST_F(sysfs, streams_are_for_root)
{
	struct mmnf_ioc_attach attach = vector_of(self->fd, BYTES);
	int dev = open_device(_metadata);
	const char *debug = "/sys/kernel/debug";
	char dir[256], path[300], want[64];
	struct stat st;
	char *p;

	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_ATTACH, &attach));
	mount("debugfs", debug, "debugfs", 0, NULL);
	snprintf(dir, sizeof(dir), "%s/mmnf/%llu", debug, attach.out_id);
	snprintf(path, sizeof(path), "%s/streams", dir);
	if (access(debug, F_OK) || stat(path, &st))
		SKIP(close(dev); return, "kernel: no debugfs");
	EXPECT_EQ(0400, st.st_mode & 07777);
	EXPECT_STREQ("", text_of(dir, "streams"));
	drop_cache(_metadata, self->fd);
	p = map_field(_metadata, dev, 0, BYTES, MAP_SHARED);
	EXPECT_EQ(0, walk(p, 0, 17 * PAGE, 12, 0));
	snprintf(want, sizeof(want), " %d:0", (int)(17 * PAGE));
	EXPECT_EQ(getpid(), strtol(text_of(dir, "streams"), NULL, 10));
	EXPECT_NE(NULL, strstr(text_of(dir, "streams"), want))
	TH_LOG("%s", text_of(dir, "streams"));
	munmap(p, BYTES);
	close(dev);
	EXPECT_TRUE(gone(dir));
}

TEST_F(sysfs, one_line_per_file_and_no_path)
{
	char *p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);

	EXPECT_EQ(0, walk(p, 0, PAGE, 20, 0));
	ASSERT_EQ(0, nftw(self->dir, look_at, 16, FTW_PHYS));
	EXPECT_LE(24, nr_files);
	EXPECT_EQ(NULL, odd_file)
	TH_LOG("%s", odd_file);
	munmap(p, BYTES);
}

TEST_F(sysfs, readers_of_a_field_that_goes)
{
	int round;
	pid_t pid = fork();

	/* A reader over all fields all the time. */
	if (!pid) {
		for (;;)
			nftw(MMNF_SYSFS "/fields", look_at, 16, FTW_PHYS);
	}
	for (round = 0; round < 50; round++) {
		struct mmnf_ioc_attach attach = self->attach;
		int dev = open_device(_metadata);

		ASSERT_EQ(0, ioctl(dev, MMNF_IOC_ATTACH, &attach));
		close(dev);
	}
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, wait_child(pid));
	EXPECT_EQ(0, access(self->dir, F_OK));
}

MMNF_HARNESS_MAIN
