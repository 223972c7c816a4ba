// SPDX-License-Identifier: GPL-2.0
/*
 * The queue of the worker, when it is full: what does not fit is dropped and counted, and
 * nobody waits for it.  What was dropped is asked for again by the next miss.
 */
#include "util.h"

#include <pthread.h>

/* Reads go one at a time, so the worker is behind as soon as many ask. */
#define SLOW "mmnf-queue"
#define READ_NS 50000000
#define QUEUE_PLANS 32
#define NR_THREADS 80
#define RECORD (8 * PAGE)
#define DISTANCE (32 * PAGE)
#define MIBS 16

FIXTURE(queue)
{
	int fd, dev;
	char *p;
};

FIXTURE_SETUP(queue)
{
	struct mmnf_ioc_attach attach;

	self->fd = make_null_disk(SLOW, MIBS, READ_NS, 1);
	if (self->fd < 0)
		return;
	attach = vector_of(self->fd, MIBS * MIB);
	attach.record_bytes = RECORD;
	self->dev = open_device(_metadata);
	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_ATTACH, &attach));
	/* A miss reads its record, and that alone: a plan for each. */
	set_mode(_metadata, self->dev, MMNF_MODE_MANUAL);
	self->p = map_field(_metadata, self->dev, 0, MIBS * MIB, MAP_SHARED);
}

FIXTURE_TEARDOWN(queue)
{
	if (self->fd < 0)
		return;
	munmap(self->p, MIBS * MIB);
	close(self->dev);
	close(self->fd);
	remove_null_disk(SLOW);
}

static void *touch(void *p)
{
	return (void *)(uintptr_t)load(p);
}

/* All at once; words that are not those of the disk. */
static u64 touch_records(struct __test_metadata *_metadata, char *p)
{
	pthread_t thread[NR_THREADS];
	void *word;
	u64 wrong = 0;
	u32 i;

	for (i = 0; i < NR_THREADS; i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, touch,
					    p + i * DISTANCE));
	for (i = 0; i < NR_THREADS; i++) {
		ASSERT_EQ(0, pthread_join(thread[i], &word));
		wrong += word != NULL;
	}
	return wrong;
}

/* Pages of the records that are there, when no more come; in @whole the whole records. */
static u64 settle(struct __test_metadata *_metadata, int fd, u64 *whole)
{
	u64 before, nr = 0, i, there;

	do {
		before = nr;
		sleep_ms(10 * READ_NS / 1000000);
		for (nr = 0, *whole = 0, i = 0; i < NR_THREADS; i++) {
			there = resident_pages(_metadata, fd, i * DISTANCE,
					       RECORD);
			nr += there;
			*whole += there == RECORD / PAGE;
		}
	} while (nr != before);
	return nr;
}

/* A record is there, or comes within ten seconds. */
static bool comes(struct __test_metadata *_metadata, int fd, u64 record)
{
	u64 deadline = now_ms() + 10000;

	while (resident_pages(_metadata, fd, record * DISTANCE, RECORD) <
	       RECORD / PAGE) {
		if (now_ms() > deadline)
			return false;
		sleep_ms(10);
	}
	return true;
}

TEST_F(queue, what_does_not_fit_is_dropped_and_asked_for_again)
{
	struct mmnf_ioc_stats s, then;
	u64 whole, i;

	if (self->fd < 0)
		SKIP(return, "kernel: no null_blk with configfs");
	EXPECT_EQ(0, touch_records(_metadata, self->p));
	settle(_metadata, self->fd, &whole);
	s = get_stats(_metadata, self->dev);
	log_stats("full", &s);
	EXPECT_EQ(s.out_misses, s.out_plans);
	EXPECT_LT(0, s.out_dropped_plans);
	EXPECT_LE(s.out_dropped_plans, NR_THREADS - QUEUE_PLANS);
	/* Each plan was either carried out, or dropped and nothing of it read. */
	EXPECT_EQ(s.out_plans - s.out_dropped_plans, whole);
	EXPECT_EQ(whole * (RECORD / PAGE - 1), s.out_prefetched_pages);

	/* One after the other, the next page of each finds what was dropped absent. */
	for (i = 0; i < NR_THREADS; i++) {
		EXPECT_EQ(0, load(self->p + i * DISTANCE + PAGE));
		EXPECT_TRUE(comes(_metadata, self->fd, i));
	}
	then = get_stats(_metadata, self->dev);
	log_stats("again", &then);
	EXPECT_EQ(s.out_dropped_plans, then.out_dropped_plans);
	EXPECT_EQ(s.out_dropped_plans, then.out_plans - s.out_plans);
}

/* The mapping goes while its plans wait: nothing more is read for them. */
TEST_F(queue, plans_end_with_their_mapping)
{
	struct mmnf_ioc_stats s;
	u64 whole;

	if (self->fd < 0)
		SKIP(return, "kernel: no null_blk with configfs");
	EXPECT_EQ(0, touch_records(_metadata, self->p));
	munmap(self->p, MIBS * MIB);
	settle(_metadata, self->fd, &whole);
	s = get_stats(_metadata, self->dev);
	log_stats("unmapped", &s);
	EXPECT_EQ(0, s.out_mappings);
	EXPECT_LT(s.out_prefetched_pages,
		  (s.out_plans - s.out_dropped_plans) * (RECORD / PAGE - 1));
	self->p = map_field(_metadata, self->dev, 0, MIBS * MIB, MAP_SHARED);
}

MMNF_HARNESS_MAIN
