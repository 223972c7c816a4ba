// SPDX-License-Identifier: GPL-2.0
/*
 * Misses without order: where those are to be expected, the fault is asked before what
 * is around is mapped.  Nothing else may differ: what is resident around a touch is
 * mapped with it, and every touch is counted once.
 */
#include "util.h"

#define BYTES (32 * MIB)
/* As many pages as the kernel maps around a fault. */
#define GROUP 16
#define GROUPS (BYTES / PAGE / GROUP)
/* Touched by prepare(); the others are left for the tests. */
#define TOUCHED 200

FIXTURE(random)
{
	int fd, dev;
	char *p;
	u32 order[GROUPS];
};

/* So many misses that the next one is expected to be one, too. */
FIXTURE_SETUP(random)
{
	u64 state = 88172645463325252ULL, i;
	struct mmnf_ioc_stats s;

	self->fd = make_field(_metadata, "random", BYTES);
	ASSERT_EQ(0, posix_fadvise(self->fd, 0, 0, POSIX_FADV_RANDOM));
	drop_cache(_metadata, self->fd);
	self->dev = attach_field(_metadata, self->fd, BYTES);
	self->p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
	for (i = 0; i < GROUPS; i++)
		self->order[i] = i;
	for (i = 0; i < TOUCHED; i++) {
		u64 j = i + rng_next(&state) % (GROUPS - i);
		u32 swap = self->order[i];

		self->order[i] = self->order[j];
		self->order[j] = swap;
		ASSERT_EQ(word_at(self->order[i] * GROUP * PAGE),
			  load(self->p + self->order[i] * GROUP * PAGE));
	}
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

/* Reads a page past the mapping, alone. */
static void make_resident(struct __test_metadata *_metadata, int fd, u64 page)
{
	u64 word;

	ASSERT_EQ(sizeof(word), pread(fd, &word, sizeof(word), page * PAGE));
}

static void touch(struct __test_metadata *_metadata, const char *p, u64 page)
{
	EXPECT_EQ(word_at(page * PAGE), load(p + page * PAGE));
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

	for (i = 0; i < GROUP; i++)
		make_resident(_metadata, self->fd, first + i);
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
		for (i = 0; i < GROUP; i++)
			make_resident(_metadata, self->fd, first + i);
		for (i = 0; i < GROUP; i++)
			touch(_metadata, self->p, first + i);
	}
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(TOUCHED + 3, s.out_faults);
	EXPECT_EQ(3, s.out_hits);
}

/* At both ends of a mapping that begins and ends within a group. */
TEST_F(random, hit_stays_inside_its_mapping)
{
	u64 first = self->order[TOUCHED] * GROUP, i;
	struct mmnf_ioc_stats s;
	char *part;

	part = map_field(_metadata, self->dev, (first + 5) * PAGE, 6 * PAGE,
			 MAP_SHARED);
	for (i = 0; i < GROUP; i++)
		make_resident(_metadata, self->fd, first + i);
	for (i = 0; i < 6; i++)
		EXPECT_EQ(word_at((first + 5 + i) * PAGE),
			  load(part + i * PAGE));
	munmap(part, 6 * PAGE);
	/* By an absent page it is expected again. */
	touch(_metadata, self->p, self->order[TOUCHED + 1] * GROUP);
	EXPECT_EQ(0, munmap(self->p + (first + 7) * PAGE, PAGE));
	touch(_metadata, self->p, first + 6);
	touch(_metadata, self->p, first + 8);
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(s.out_faults, s.out_hits + s.out_late + s.out_misses);
	EXPECT_EQ(TOUCHED + 1, s.out_misses);
}

/* A store is the host's, wherever a load is expected to miss. */
TEST_F(random, store_is_one_touch)
{
	u64 first = self->order[TOUCHED] * GROUP;
	struct mmnf_ioc_attach attach = vector_of(self->fd, BYTES);
	struct mmnf_ioc_stats s;
	u64 i, word;
	char *p;
	int dev;

	attach.flags = MMNF_ATTACH_WRITE;
	dev = open_device(_metadata);
	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_ATTACH, &attach));
	p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, dev, 0);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, munmap(self->p, BYTES));
	drop_cache(_metadata, self->fd);
	for (i = 0; i < TOUCHED; i++)
		touch(_metadata, p, self->order[i] * GROUP + 1);
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

MMNF_HARNESS_MAIN
