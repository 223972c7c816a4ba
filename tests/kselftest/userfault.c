// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd beside a field.  The kernel lets it follow writes to a mapping of
 * whatever kind (UFFD_FEATURE_WP_ASYNC, Linux 6.7), and then maps nothing around a
 * fault: nor may the module.  Everything else it has for its own kinds of memory: for
 * tmpfs by the address of its operations, by Linux 7 by what stands in them.
 */
#include "misses.h"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>

#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

#define MISSING UFFDIO_REGISTER_MODE_MISSING
#define MINOR UFFDIO_REGISTER_MODE_MINOR
#define WP UFFDIO_REGISTER_MODE_WP

/* A userfaultfd that can do this, or -1. */
static int open_userfault(u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0 && !ioctl(fd, UFFDIO_API, &api))
		return fd;
	close(fd);
	return -1;
}

static int err_of_register(int uffd, const char *p, u64 len, u64 mode)
{
	struct uffdio_register range = {
		.range = { (uintptr_t)p, len },
		.mode = mode,
	};

	return err_of(ioctl(uffd, UFFDIO_REGISTER, &range));
}

static int write_protect(int uffd, const char *p, u64 len)
{
	struct uffdio_writeprotect range = {
		.range = { (uintptr_t)p, len },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &range);
}

static int attach_to_write(struct __test_metadata *_metadata, int fd)
{
	struct mmnf_ioc_attach attach = vector_of(fd, BYTES);
	int dev = open_device(_metadata);

	attach.flags = MMNF_ATTACH_WRITE;
	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_ATTACH, &attach));
	return dev;
}

FIXTURE(userfault)
{
	int fd, dev;
	char *p;
	u32 order[GROUPS];
};

/* May be written to: of another, userfaultfd follows nothing. */
FIXTURE_SETUP(userfault)
{
	self->fd = make_field(_metadata, "userfault", BYTES);
	ASSERT_EQ(0, posix_fadvise(self->fd, 0, 0, POSIX_FADV_RANDOM));
	self->dev = attach_to_write(_metadata, self->fd);
	self->p = map_within(_metadata, self->dev, PROT_READ | PROT_WRITE);
	miss(_metadata, self->fd, self->p, self->order);
}

FIXTURE_TEARDOWN(userfault)
{
	munmap(self->p, BYTES);
	close(self->dev);
	close(self->fd);
	remove_field("userfault");
}

#define MAPPED(self) ((self)->p + FIRST * PAGE), ((END - FIRST) * PAGE)

TEST_F(userfault, stops_no_fault)
{
	/* Each with the memory that every kernel grants it of. */
	const struct {
		u64 mode;
		int memory;
	} modes[] = {
		{ MISSING, MAP_SHARED },
		{ MINOR, MAP_SHARED },
		{ WP, MAP_PRIVATE },
		{ MISSING | WP, MAP_PRIVATE },
	};
	int uffd, async;
	char *own;
	unsigned int i;

	async = open_userfault(UFFD_FEATURE_WP_ASYNC);
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		uffd = open_userfault(0);
		ASSERT_LE(0, uffd);
		own = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			   modes[i].memory | MAP_ANONYMOUS, -1, 0);
		EXPECT_EQ(0, err_of_register(uffd, own, PAGE, modes[i].mode));
		EXPECT_EQ(EINVAL,
			  err_of_register(uffd, MAPPED(self), modes[i].mode))
		TH_LOG("mode %llu", modes[i].mode);
		close(uffd);
		if (async >= 0 && modes[i].mode != WP)
			EXPECT_EQ(EINVAL, err_of_register(async, MAPPED(self),
							  modes[i].mode));
	}
	close(async);
}

TEST_F(userfault, follows_no_mapping_for_reading)
{
	int uffd = open_userfault(UFFD_FEATURE_WP_ASYNC);
	char *p;

	if (uffd < 0)
		SKIP(return, "kernel: no UFFD_FEATURE_WP_ASYNC");
	p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
	EXPECT_EQ(EPERM, err_of_register(uffd, p, BYTES, WP));
	munmap(p, BYTES);
	close(uffd);
}

/* The next group that nothing has touched, resident as a whole. */
static u64 next_resident(struct __test_metadata *_metadata,
			 FIXTURE_DATA(userfault) * self, u64 nr)
{
	u64 first = self->order[TOUCHED + nr] * GROUP;

	make_group_resident(_metadata, self->fd, first);
	return first;
}

/* Where a miss is expected the module maps around, else the kernel would. */
TEST_F(userfault, maps_nothing_around)
{
	struct mmnf_ioc_stats s;
	int uffd = open_userfault(UFFD_FEATURE_WP_ASYNC);
	u64 first, i;

	if (uffd < 0)
		SKIP(return, "kernel: no UFFD_FEATURE_WP_ASYNC");
	first = next_resident(_metadata, self, 0);
	touch(_metadata, self->p, first + 7);
	EXPECT_EQ(GROUP, mapped_pages(_metadata, self->p, first, GROUP));
	/* By an absent page misses are expected again. */
	touch(_metadata, self->p, self->order[TOUCHED + 1] * GROUP);
	ASSERT_EQ(0, err_of_register(uffd, MAPPED(self), WP));
	for (i = 2; i < 4; i++) {
		first = next_resident(_metadata, self, i);
		touch(_metadata, self->p, first + 7);
		EXPECT_EQ(1, mapped_pages(_metadata, self->p, first, GROUP));
		touch(_metadata, self->p, first + 8);
		EXPECT_EQ(2, mapped_pages(_metadata, self->p, first, GROUP));
	}
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(TOUCHED + 1, s.out_misses);
	EXPECT_EQ(1 + 4, s.out_hits);
	close(uffd);
	/* It follows no longer, and expects nothing after these hits. */
	first = next_resident(_metadata, self, 4);
	touch(_metadata, self->p, first + 7);
	EXPECT_EQ(GROUP, mapped_pages(_metadata, self->p, first, GROUP));
}

/* Pages absent, resident and mapped; each read, and every third written, too. */
TEST_F(userfault, knows_each_page_written)
{
	int uffd = open_userfault(UFFD_FEATURE_WP_ASYNC);
	u64 nr = 3 * GROUP, kept, i;

	if (uffd < 0)
		SKIP(return, "kernel: no UFFD_FEATURE_WP_ASYNC");
	ASSERT_EQ(0, munmap(self->p, BYTES));
	drop_cache(_metadata, self->fd);
	self->p = map_within(_metadata, self->dev, PROT_READ | PROT_WRITE);
	make_group_resident(_metadata, self->fd, GROUP);
	make_group_resident(_metadata, self->fd, 2 * GROUP);
	touch(_metadata, self->p, 2 * GROUP);
	ASSERT_EQ(0, err_of_register(uffd, MAPPED(self), WP));
	ASSERT_EQ(0, write_protect(uffd, MAPPED(self)));
	for (i = FIRST; i < nr; i++)
		touch(_metadata, self->p, i);
	kept = nr - FIRST;
	EXPECT_EQ(kept, pagemap_pages(_metadata, self->p, FIRST, nr - FIRST,
				      PAGEMAP_PRESENT | PAGEMAP_UFFD_WP));
	for (i = 6; i < nr; i += 3, kept--)
		*(volatile u64 *)(self->p + i * PAGE) = word_at(i * PAGE);
	EXPECT_EQ(kept, pagemap_pages(_metadata, self->p, FIRST, nr - FIRST,
				      PAGEMAP_UFFD_WP));
	for (i = 6; i < nr; i += 3)
		EXPECT_EQ(0, pagemap_pages(_metadata, self->p, i, 1,
					   PAGEMAP_UFFD_WP));
	close(uffd);
}

/* A field on tmpfs: by Linux 7 its holes may be userfaultfd's to fill. */

struct filler {
	int uffd;
	bool end;
	u64 nr_asked;
};

/* Fills what is asked for with the words of its address. */
static void *fill_holes(void *arg)
{
	struct filler *filler = arg;
	struct pollfd poll_for = { .fd = filler->uffd, .events = POLLIN };
	static u64 words[PAGE / 8];
	struct uffd_msg msg;
	u64 i;

	while (!__atomic_load_n(&filler->end, __ATOMIC_RELAXED)) {
		struct uffdio_copy copy = { .src = (uintptr_t)words,
					    .len = PAGE };

		if (poll(&poll_for, 1, 50) != 1 ||
		    read(filler->uffd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		filler->nr_asked++;
		copy.dst = msg.arg.pagefault.address & ~(PAGE - 1);
		for (i = 0; i < PAGE / 8; i++)
			words[i] = word_at(copy.dst + i * 8);
		ioctl(filler->uffd, UFFDIO_COPY, &copy);
	}
	return NULL;
}

TEST(tmpfs_holes_are_asked_for_or_refused)
{
	struct filler filler = { .uffd = open_userfault(0) };
	int fd = memfd_create("userfault", MFD_CLOEXEC), dev, err;
	u64 wrong = 0, off, base;
	pthread_t thread;
	char *p;

	ASSERT_LE(0, filler.uffd);
	ASSERT_EQ(0, ftruncate(fd, BYTES));
	dev = attach_to_write(_metadata, fd);
	p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, dev, 0);
	ASSERT_NE(MAP_FAILED, p);
	err = err_of_register(filler.uffd, p, BYTES, MISSING);
	if (err) {
		EXPECT_EQ(EINVAL, err);
		SKIP(return, "kernel: userfaultfd knows tmpfs by its address");
	}
	ASSERT_EQ(0, pthread_create(&thread, NULL, fill_holes, &filler));
	base = (uintptr_t)p;
	for (off = 0; off < MIB; off += PAGE)
		wrong += load(p + off) != word_at(base + off);
	__atomic_store_n(&filler.end, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	EXPECT_EQ(0, wrong);
	EXPECT_EQ(MIB / PAGE, filler.nr_asked);
	EXPECT_EQ(MIB / PAGE, get_stats(_metadata, dev).out_faults);
	munmap(p, BYTES);
	close(dev);
	close(fd);
	close(filler.uffd);
}

MMNF_HARNESS_MAIN
