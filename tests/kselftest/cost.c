// SPDX-License-Identifier: GPL-2.0
/*
 * What hints cost for what is resident, as a part of what reading it costs.
 *
 * The pages are those of a disk that holds nothing (null_blk reads zeros), so
 * memory has to hold the page cache alone.  MMNF_COST_PAGES sets how many; the
 * default is made for the guest of `make check`.
 *
 * The promise is a twentieth.  It is held to where time is counted instructions
 * (vm/cost); a clock that runs on while others have the CPU is asked for a fifth.
 */
#include "util.h"

#define DISK "mmnf-cost"

static u64 nr_pages(void)
{
	const char *given = getenv("MMNF_COST_PAGES");

	return given ? strtoull(given, NULL, 0) & ~63ULL : 1 << 15;
}

static u64 limit_part(void)
{
	const char *clock = getenv("MMNF_CLOCK");

	return clock && !strcmp(clock, "virtual") ? 20 : 5;
}

static u64 cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

/* Runs of one page in rows of two: 32 planes of pages / 64 rows. */
FIXTURE(cost)
{
	int fd, dev;
	u64 pages;
	char *p;
	const char *skip;
};

FIXTURE_SETUP(cost)
{
	struct mmnf_ioc_attach attach = {
		.size = sizeof(attach),
		.ndim = 3,
		.element_bytes = 8,
	};
	struct mmnf_range all;
	struct mmnf_ioc_prefetch in = { .size = sizeof(in),
					.flags = MMNF_PREFETCH_WAIT };

	self->dev = -1;
	self->pages = nr_pages();
	self->fd = make_null_disk(DISK, self->pages * PAGE / MIB + 1, 0, 64);
	if (self->fd < 0) {
		self->skip = "kernel: no null_blk with configfs";
		return;
	}
	attach.fd = self->fd;
	attach.extent[0] = 32;
	attach.extent[1] = self->pages / 64;
	attach.extent[2] = 1024;
	attach.stride_bytes[0] = self->pages / 32 * PAGE;
	attach.stride_bytes[1] = 2 * PAGE;
	attach.stride_bytes[2] = 8;
	self->dev = open_device(_metadata);
	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_ATTACH, &attach));
	all = (struct mmnf_range) { 0, self->pages * PAGE };
	in.select.items = (unsigned long)&all;
	in.select.nr_items = 1;
	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_PREFETCH, &in));
	ASSERT_EQ(self->pages * PAGE,
		  in.out_queued_bytes + in.out_resident_bytes);
	self->p = mmap(NULL, self->pages * PAGE, PROT_READ, MAP_SHARED,
		       self->fd, 0);
	ASSERT_NE(MAP_FAILED, self->p);
}

FIXTURE_TEARDOWN(cost)
{
	munmap(self->p, self->pages * PAGE);
	close(self->dev);
	close(self->fd);
	remove_null_disk(DISK);
}

/* The least of many: CPU time of asking for a box that is resident. */
static u64 ask_ns(struct __test_metadata *_metadata, int dev, u32 flags,
		  const struct mmnf_ioc_box *box, u64 bytes)
{
	u64 least = ~0ULL, start, ns;
	int i;

	for (i = 0; i < 16; i++) {
		struct mmnf_ioc_prefetch p = {
			.size = sizeof(p),
			.flags = flags,
			.select = { (unsigned long)box, 1, MMNF_SELECT_BOXES },
		};

		start = cpu_ns();
		ASSERT_EQ(0, ioctl(dev, MMNF_IOC_PREFETCH, &p));
		ns = cpu_ns() - start;
		EXPECT_EQ(bytes, p.out_resident_bytes);
		EXPECT_EQ(0, p.out_queued_bytes | p.out_hole_bytes);
		least = ns < least ? ns : least;
	}
	return least;
}

/* CPU time of loading each word of every @step-th page, mapped already or not. */
static u64 read_ns(char *p, u64 pages, u64 step)
{
	u64 sum = 0, start = cpu_ns(), i, k;

	for (i = 0; i < pages; i += step)
		for (k = 0; k < PAGE; k += 8)
			sum += load(p + i * PAGE + k);
	return cpu_ns() - start + (sum & 0);
}

static void expect_cheap(struct __test_metadata *_metadata, const char *what,
			 u64 ask, u64 read, u64 pages)
{
	ksft_print_msg(
		"%s: %llu pages in one call, %llu ns, reading %llu ns a page, "
		"%llu.%02llu %%\n",
		what, pages, ask / pages, read / pages, ask * 100 / read,
		ask * 10000 / read % 100);
	fflush(stdout);
	EXPECT_GE(read / limit_part(), ask);
}

TEST_F(cost, box_of_neighbouring_pages)
{
	struct mmnf_ioc_box box = {};
	u64 ask, wait, read;

	if (self->skip)
		SKIP(return, "%s", self->skip);
	box.count[0] = 32;
	box.count[1] = self->pages / 64;
	box.count[2] = 1024;
	ask = ask_ns(_metadata, self->dev, 0, &box, self->pages * PAGE);
	wait = ask_ns(_metadata, self->dev, MMNF_PREFETCH_WAIT, &box,
		      self->pages * PAGE);
	read = read_ns(self->p, self->pages, 1);
	expect_cheap(_metadata, "whole", ask, read, self->pages);
	expect_cheap(_metadata, "whole, with WAIT", wait, read, self->pages);
}

TEST_F(cost, box_of_single_pages)
{
	struct mmnf_ioc_box box = {};
	u64 ask, wait, read;

	if (self->skip)
		SKIP(return, "%s", self->skip);
	box.count[0] = 32;
	box.count[1] = self->pages / 64;
	box.count[2] = 512;
	ask = ask_ns(_metadata, self->dev, 0, &box, self->pages / 2 * PAGE);
	wait = ask_ns(_metadata, self->dev, MMNF_PREFETCH_WAIT, &box,
		      self->pages / 2 * PAGE);
	read = read_ns(self->p, self->pages, 2);
	expect_cheap(_metadata, "every other page", ask, read, self->pages / 2);
	expect_cheap(_metadata, "every other page, with WAIT", wait, read,
		     self->pages / 2);
}

MMNF_HARNESS_MAIN
