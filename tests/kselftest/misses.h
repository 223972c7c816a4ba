/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A walk without order, of misses alone, and what is mapped of it.
 *
 * The field is cut into groups of the 16 pages that a fault may map; each is touched
 * once at most, so that every touch is a fault.
 */
#ifndef MMNF_KSELFTEST_MISSES_H
#define MMNF_KSELFTEST_MISSES_H

#include "util.h"

#define BYTES (32 * MIB)
/* As many pages as the kernel maps around a fault. */
#define GROUP 16
/* Those that are mapped whole. */
#define GROUPS (BYTES / PAGE / GROUP - 2)
/* Touched by miss(); the others are left for the tests. */
#define TOUCHED 200
/* What is mapped begins and ends within a group. */
#define FIRST 5
#define END (BYTES / PAGE - FIRST)

/* One instruction for every touch: the predictor tells walks apart by it. */
static __attribute__((noinline)) void touch(struct __test_metadata *_metadata,
					    const char *p, u64 page)
{
	EXPECT_EQ(word_at(page * PAGE), load(p + page * PAGE));
}

/* The field's start; what is not of the mapping is anonymous. */
static __unused_fn char *map_within(struct __test_metadata *_metadata, int dev,
				    int prot)
{
	u64 align = GROUP * PAGE;
	char *p = mmap(NULL, BYTES + align, PROT_READ,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, p);
	p = (char *)(((uintptr_t)p + align - 1) & ~(align - 1));
	ASSERT_EQ(p + FIRST * PAGE,
		  mmap(p + FIRST * PAGE, (END - FIRST) * PAGE, prot,
		       MAP_SHARED | MAP_FIXED, dev, FIRST * PAGE));
	return p;
}

/* So many misses that the next one is expected to be one, too. */
static __unused_fn void miss(struct __test_metadata *_metadata, int fd,
			     const char *p, u32 *order)
{
	u64 state = 88172645463325252ULL, i;

	drop_cache(_metadata, fd);
	for (i = 0; i < GROUPS; i++)
		order[i] = i + 1;
	for (i = 0; i < TOUCHED; i++) {
		u64 j = i + rng_next(&state) % (GROUPS - i);
		u32 swap = order[i];

		order[i] = order[j];
		order[j] = swap;
		touch(_metadata, p, order[i] * GROUP);
	}
}

/* Reads a page past the mapping, alone. */
static void make_resident(struct __test_metadata *_metadata, int fd, u64 page)
{
	u64 word;

	ASSERT_EQ(sizeof(word), pread(fd, &word, sizeof(word), page * PAGE));
}

static __unused_fn void make_group_resident(struct __test_metadata *_metadata,
					    int fd, u64 first)
{
	u64 i;

	for (i = 0; i < GROUP; i++)
		make_resident(_metadata, fd, first + i);
}

#define PAGEMAP_PRESENT (1ULL << 63)
#define PAGEMAP_UFFD_WP (1ULL << 57)

/* Pages of [first, first + nr) whose entry in pagemap has all of @bits. */
static __unused_fn u64 pagemap_pages(struct __test_metadata *_metadata,
				     const char *p, u64 first, u64 nr, u64 bits)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	u64 entry, found = 0, i;

	ASSERT_LE(0, fd);
	for (i = 0; i < nr; i++) {
		off_t page = (uintptr_t)p / PAGE + first + i;

		ASSERT_EQ(sizeof(entry), pread(fd, &entry, sizeof(entry),
					       page * sizeof(entry)));
		found += (entry & bits) == bits;
	}
	close(fd);
	return found;
}

static __unused_fn u64 mapped_pages(struct __test_metadata *_metadata,
				    const char *p, u64 first, u64 nr)
{
	return pagemap_pages(_metadata, p, first, nr, PAGEMAP_PRESENT);
}

#endif
