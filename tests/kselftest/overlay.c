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
	bool mounted;
};

FIXTURE_SETUP(overlay)
{
	char options[1024];

	ASSERT_EQ(0,
		  shell("cd %s && mkdir -p lower upper work merged", ground));
	snprintf(self->merged, sizeof(self->merged), "%s/merged", ground);
	snprintf(options, sizeof(options),
		 "lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", ground,
		 ground, ground);
	shell("modprobe -q overlay");
	self->mounted = !mount("overlay", self->merged, "overlay", 0, options);
}

FIXTURE_TEARDOWN(overlay)
{
	umount2(self->merged, MNT_DETACH);
	shell("cd %s && rm -rf lower upper work merged", ground);
}

/* @name: of the file from the ground; @below: that it is seen through overlayfs. */
static void expect_foreseen(struct __test_metadata *_metadata, const char *name,
			    const char *merged)
{
	int below = make_field(_metadata, name, BYTES), fd, dev;
	struct mmnf_ioc_prefetch ask = { .size = sizeof(ask) };
	struct mmnf_ioc_stats s;
	char path[320], *p;

	drop_cache(_metadata, below);
	snprintf(path, sizeof(path), "%s/field", merged);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
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
	close(below);
}

TEST_F(overlay, strided_in_the_lower_directory_is_predicted)
{
	if (!self->mounted)
		SKIP(return, "kernel: no overlayfs");
	expect_foreseen(_metadata, "lower/field", self->merged);
}

TEST_F(overlay, strided_in_the_upper_directory_is_predicted)
{
	if (!self->mounted)
		SKIP(return, "kernel: no overlayfs");
	expect_foreseen(_metadata, "upper/field", self->merged);
}

/* Copied up while it is mapped: what is mapped stays what it was, as with mmap of the file. */
TEST_F(overlay, copied_up_while_mapped)
{
	int below, fd, dev, writer;
	u64 other = 1;
	char path[320], *p;

	if (!self->mounted)
		SKIP(return, "kernel: no overlayfs");
	below = make_field(_metadata, "lower/field", BYTES);
	snprintf(path, sizeof(path), "%s/field", self->merged);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	dev = attach_field(_metadata, fd, BYTES);
	p = map_field(_metadata, dev, 0, BYTES, MAP_SHARED);
	EXPECT_EQ(0, walk(p, 0, STRIDE, TOUCHES / 2, 0));
	writer = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, writer);
	ASSERT_EQ((ssize_t)sizeof(other),
		  pwrite(writer, &other, sizeof(other), 0));
	EXPECT_EQ(0, walk(p, 0, STRIDE, TOUCHES, 0));
	get_stats(_metadata, dev);
	munmap(p, BYTES);
	close(writer);
	close(dev);
	close(fd);
	close(below);
}

MMNF_HARNESS_MAIN
