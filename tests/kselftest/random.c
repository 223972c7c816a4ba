// SPDX-License-Identifier: GPL-2.0
/*
 * Misses without order: where those are to be expected, the fault is asked before what
 * is around is mapped.  Nothing else may differ: what is resident around a touch is
 * mapped with it, and every touch is counted once.
 */
#include "misses.h"

FIXTURE(random)
{
	int fd, dev;
	char *p;
	u32 order[GROUPS];
};

FIXTURE_SETUP(random)
{
	struct mmnf_ioc_stats s;

	self->fd = make_field(_metadata, "random", BYTES);
	ASSERT_EQ(0, posix_fadvise(self->fd, 0, 0, POSIX_FADV_RANDOM));
	self->dev = attach_field(_metadata, self->fd, BYTES);
	self->p = map_within(_metadata, self->dev, PROT_READ);
	miss(_metadata, self->fd, self->p, self->order);
	s = get_stats(_metadata, self->dev);
	ASSERT_EQ(TOUCHED, s.out_misses);
	ASSERT_EQ(0, s.out_prefetched_pages);
}

FIXTURE_TEARDOWN(random)
{
	munmap(self->p, BYTES);
	close(self->dev);
	close(self->fd);
	remove_field("random");
}

TEST_F(random, miss_maps_what_is_resident_around)
{
	u64 first = self->order[TOUCHED] * GROUP;
	struct mmnf_ioc_stats s;

	make_resident(_metadata, self->fd, first + 3);
	make_resident(_metadata, self->fd, first + 9);
	touch(_metadata, self->p, first + 5);
	touch(_metadata, self->p, first + 3);
	touch(_metadata, self->p, first + 9);
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(TOUCHED + 1, s.out_faults);
	EXPECT_EQ(TOUCHED + 1, s.out_misses);
}

TEST_F(random, unexpected_hit_maps_what_is_resident_around)
{
	u64 first = self->order[TOUCHED] * GROUP, i;
	struct mmnf_ioc_stats s;

	make_group_resident(_metadata, self->fd, first);
	for (i = 0; i < GROUP; i++)
		touch(_metadata, self->p, first + (i + 7) % GROUP);
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(TOUCHED + 1, s.out_faults);
	EXPECT_EQ(1, s.out_hits);
}

/* The expectation ends with the predictor: the next hit is one, and no more are asked. */
TEST_F(random, expects_nothing_when_off)
{
	struct mmnf_ioc_stats s;
	u64 first, i, k;

	set_mode(_metadata, self->dev, MMNF_MODE_OFF);
	for (k = 0; k < 3; k++) {
		first = self->order[TOUCHED + k] * GROUP;
		make_group_resident(_metadata, self->fd, first);
		for (i = 0; i < GROUP; i++)
			touch(_metadata, self->p, first + i);
	}
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(TOUCHED + 3, s.out_faults);
	EXPECT_EQ(3, s.out_hits);
}

TEST_F(random, hit_stays_inside_its_mapping)
{
	u64 last = END / GROUP * GROUP;
	struct mmnf_ioc_stats s;

	make_group_resident(_metadata, self->fd, 0);
	make_group_resident(_metadata, self->fd, last);
	touch(_metadata, self->p, FIRST);
	/* By an absent page it is expected again. */
	touch(_metadata, self->p, self->order[TOUCHED] * GROUP);
	touch(_metadata, self->p, END - 1);
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(TOUCHED + 1, s.out_misses);
	EXPECT_EQ(2, s.out_hits);
	EXPECT_EQ(0, mapped_pages(_metadata, self->p, 0, FIRST));
	EXPECT_EQ(GROUP - FIRST,
		  mapped_pages(_metadata, self->p, FIRST, GROUP - FIRST));
	EXPECT_EQ(END - last,
		  mapped_pages(_metadata, self->p, last, END - last));
	EXPECT_EQ(0, mapped_pages(_metadata, self->p, END, last + GROUP - END));
}

/*
 * Hits in another mapping make the field quiet; the first one here ends the expectation
 * nevertheless.  The kernel is told to map more around a fault than the module does.
 */
TEST_F(random, expects_nothing_when_quiet)
{
	const char *dir = "/sys/kernel/debug", *name = "fault_around_bytes";
	u64 first, i, page, nr = 2 * GROUP;
	struct mmnf_ioc_stats s;
	char *other;

	if (put_text(dir, name, "131072"))
		SKIP(return, "kernel: no fault_around_bytes in debugfs");
	make_group_resident(_metadata, self->fd, 0);
	other = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
	for (i = 0; i < 100; i++) {
		touch(_metadata, other, FIRST);
		ASSERT_EQ(0, madvise(other, GROUP * PAGE, MADV_DONTNEED));
	}
	munmap(other, BYTES);
	s = get_stats(_metadata, self->dev);
	ASSERT_EQ(TOUCHED + 100, s.out_faults);
	for (page = nr; page < 4 * nr; page++)
		make_resident(_metadata, self->fd, page);
	ASSERT_EQ(0,
		  madvise(self->p + nr * PAGE, 3 * nr * PAGE, MADV_DONTNEED));
	/* The mapping is aligned to what the module maps. */
	first = ((uintptr_t)self->p / PAGE + 3 * nr - 1) / nr * nr -
		(uintptr_t)self->p / PAGE;
	touch(_metadata, self->p, first - nr);
	touch(_metadata, self->p, first);
	put_text(dir, name, "65536");
	EXPECT_EQ(nr, mapped_pages(_metadata, self->p, first, nr));
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(TOUCHED + 102, s.out_faults);
	EXPECT_EQ(102, s.out_hits);
}

/* A store is the host's, wherever a load is expected to miss. */
TEST_F(random, store_is_one_touch)
{
	u64 first = self->order[TOUCHED] * GROUP, word;
	struct mmnf_ioc_attach attach = vector_of(self->fd, BYTES);
	struct mmnf_ioc_stats s;
	char *p;
	int dev;

	attach.flags = MMNF_ATTACH_WRITE;
	dev = open_device(_metadata);
	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_ATTACH, &attach));
	p = map_within(_metadata, dev, PROT_READ | PROT_WRITE);
	ASSERT_EQ(0, munmap(self->p, BYTES));
	miss(_metadata, self->fd, p, self->order);
	make_resident(_metadata, self->fd, first);
	*(volatile u64 *)(p + first * PAGE) = 1;
	*(volatile u64 *)(p + first * PAGE + 8) = 2;
	ASSERT_EQ(8, pread(self->fd, &word, 8, first * PAGE + 8));
	EXPECT_EQ(2, word);
	s = get_stats(_metadata, dev);
	EXPECT_EQ(TOUCHED + 1, s.out_faults);
	munmap(p, BYTES);
	close(dev);
}

/* ocfs2, like CephFS, leaves each page to a fault. */
TEST(host_without_map_pages)
{
	static u32 order[GROUPS];
	struct mmnf_ioc_stats s;
	int fd, dev, loop;
	char image[64], disk[64], *p;
	u64 first;

	if (shell("modprobe -q ocfs2"))
		SKIP(return, "kernel: no ocfs2");
	if (shell("command -v mkfs.ocfs2 >/dev/null"))
		SKIP(return, "environment: no ocfs2-tools");
	fd = open(ground, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	ASSERT_EQ(0, ftruncate(fd, 200 * MIB));
	snprintf(image, sizeof(image), "/proc/self/fd/%d", fd);
	loop = make_loop(image, disk, sizeof(disk));
	ASSERT_LE(0, loop);
	close(fd);
	ASSERT_EQ(0, shell("mkfs.ocfs2 -q -F -M local -N 1 %s", disk));
	if (mount(disk, ground, "ocfs2", 0, "heartbeat=none"))
		SKIP(return, "kernel: mounts no local ocfs2: %s",
			   strerror(errno));
	close(loop);
	fd = make_field(_metadata, "random", BYTES);
	ASSERT_EQ(0, posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM));
	dev = attach_field(_metadata, fd, BYTES);
	p = map_within(_metadata, dev, PROT_READ);
	miss(_metadata, fd, p, order);
	first = order[TOUCHED] * GROUP;
	make_group_resident(_metadata, fd, first);
	touch(_metadata, p, first + 3);
	touch(_metadata, p, first + 4);
	s = get_stats(_metadata, dev);
	EXPECT_EQ(TOUCHED, s.out_misses);
	EXPECT_EQ(2, s.out_hits);
	EXPECT_EQ(2, mapped_pages(_metadata, p, first, GROUP));
	munmap(p, BYTES);
	close(dev);
	close(fd);
	EXPECT_EQ(0, umount(ground));
}

MMNF_HARNESS_MAIN
