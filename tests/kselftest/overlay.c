// SPDX-License-Identifier: GPL-2.0
/*
 * A field on overlayfs, whose pages are those of a file of another file system: its walks
 * are foreseen, whether the file lies in the lower or in the upper directory.
 */
#include "util.h"

#define BYTES (8 * MIB)
#define PAGES (BYTES / PAGE)
#define STRIDE (17 * PAGE)
#define TOUCHES (PAGES / 17)
#define WARM_UP 12
#define REST_MS 2

FIXTURE(overlay)
{
	char merged[300];
	int lower, upper;
	bool mounted;
};

FIXTURE_SETUP(overlay)
{
	char options[1024];

	ASSERT_EQ(0,
		  shell("cd %s && mkdir -p lower upper work merged", ground));
	/* Before the mount: below it nothing may change afterwards. */
	self->lower = make_field(_metadata, "lower/low", BYTES);
	self->upper = make_field(_metadata, "upper/up", BYTES);
	snprintf(self->merged, sizeof(self->merged), "%s/merged", ground);
	snprintf(options, sizeof(options),
		 "lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", ground,
		 ground, ground);
	shell("modprobe -q overlay");
	self->mounted = !mount("overlay", self->merged, "overlay", 0, options);
}

FIXTURE_TEARDOWN(overlay)
{
	close(self->lower);
	close(self->upper);
	umount2(self->merged, MNT_DETACH);
	shell("cd %s && rm -rf lower upper work merged", ground);
}

static int open_merged(struct __test_metadata *_metadata, const char *merged,
		       const char *name, int flags)
{
	char path[320];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", merged, name);
	fd = open(path, flags | O_CLOEXEC);
	ASSERT_LE(0, fd);
	return fd;
}

/* @below: the file whose pages those of @name in @merged are. */
static void expect_foreseen(struct __test_metadata *_metadata, int below,
			    const char *merged, const char *name)
{
	struct mmnf_ioc_prefetch ask = { .size = sizeof(ask) };
	struct mmnf_ioc_stats s;
	int fd, dev;
	char *p;

	drop_cache(_metadata, below);
	fd = open_merged(_metadata, merged, name, O_RDONLY);
	dev = attach_field(_metadata, fd, BYTES);
	p = map_field(_metadata, dev, 0, BYTES, MAP_SHARED);
	EXPECT_EQ(0, walk(p, 0, STRIDE, TOUCHES, REST_MS));
	s = get_stats(_metadata, dev);
	log_stats(_metadata->name, &s);
	EXPECT_EQ(TOUCHES, s.out_faults);
	EXPECT_LE(s.out_misses, WARM_UP);
	EXPECT_LE(TOUCHES - WARM_UP, s.out_used_pages);
	EXPECT_LE(resident_pages(_metadata, below, 0, BYTES), TOUCHES + 4);
	/* The pages are not its own. */
	EXPECT_EQ(EOPNOTSUPP, err_of(ioctl(dev, MMNF_IOC_PREFETCH, &ask)));
	munmap(p, BYTES);
	close(dev);
	close(fd);
}

TEST_F(overlay, strided_in_the_lower_directory_is_predicted)
{
	if (!self->mounted)
		SKIP(return, "kernel: no overlayfs");
	expect_foreseen(_metadata, self->lower, self->merged, "low");
}

TEST_F(overlay, strided_in_the_upper_directory_is_predicted)
{
	if (!self->mounted)
		SKIP(return, "kernel: no overlayfs");
	expect_foreseen(_metadata, self->upper, self->merged, "up");
}

/* Copied up while it is mapped: what is mapped stays what it was, as with mmap of the file. */
TEST_F(overlay, copied_up_while_mapped)
{
	int fd, dev, writer;
	u64 other = 1;
	char *p;

	if (!self->mounted)
		SKIP(return, "kernel: no overlayfs");
	fd = open_merged(_metadata, self->merged, "low", O_RDONLY);
	dev = attach_field(_metadata, fd, BYTES);
	p = map_field(_metadata, dev, 0, BYTES, MAP_SHARED);
	EXPECT_EQ(0, walk(p, 0, STRIDE, TOUCHES / 2, 0));
	writer = open_merged(_metadata, self->merged, "low", O_RDWR);
	ASSERT_EQ((ssize_t)sizeof(other),
		  pwrite(writer, &other, sizeof(other), 0));
	EXPECT_EQ(0, walk(p, 0, STRIDE, TOUCHES, 0));
	get_stats(_metadata, dev);
	munmap(p, BYTES);
	close(writer);
	close(dev);
	close(fd);
}

MMNF_HARNESS_MAIN
