// SPDX-License-Identifier: GPL-2.0
/* What faults count, and what the predictor makes of the common walks. */
#include "util.h"

#include <pthread.h>
#include <sys/time.h>
#include <sys/utsname.h>

#define BYTES (16 * MIB)
#define PAGES (BYTES / PAGE)

/*
 * 17 pages: no two touches share the 16 aligned pages that one fault may map, so
 * that every touch of a cold or a warm file is one fault.
 */
#define STRIDE (17 * PAGE)
#define TOUCHES (PAGES / 17)

/*
 * Touches until a walk is known, and until the first reads are done; the walker
 * rests between touches, so it is not the machine's speed that is tested.
 */
#define WARM_UP 12
#define REST_MS 2

FIXTURE(walk)
{
	int fd, dev;
	char *p;
};

FIXTURE_SETUP(walk)
{
	self->fd = make_field(_metadata, "walk", BYTES);
	drop_cache(_metadata, self->fd);
	self->dev = attach_field(_metadata, self->fd, BYTES);
	self->p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
}

FIXTURE_TEARDOWN(walk)
{
	munmap(self->p, BYTES);
	close(self->dev);
	close(self->fd);
	remove_field("walk");
}

/* The same file again, cold, mapped anew in a mode. */
static void restart(struct __test_metadata *_metadata,
		    FIXTURE_DATA(walk) * self, u32 mode, u64 record_bytes)
{
	struct mmnf_ioc_attach attach = vector_of(self->fd, BYTES);

	munmap(self->p, BYTES);
	close(self->dev);
	drop_cache(_metadata, self->fd);
	attach.record_bytes = record_bytes;
	self->dev = open_device(_metadata);
	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_ATTACH, &attach));
	set_mode(_metadata, self->dev, mode);
	self->p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
}

/* One touch in each of @nr different groups of 16 pages, in random order. */
static u64 random_walk(const char *p, u64 nr)
{
	u64 state = 88172645463325252ULL, wrong = 0, i, j;
	u32 order[PAGES / 16];

	for (i = 0; i < PAGES / 16; i++)
		order[i] = i;
	for (i = 0; i < nr; i++) {
		u64 pos;
		u32 swap;

		j = i + rng_next(&state) % (PAGES / 16 - i);
		swap = order[i];
		order[i] = order[j];
		order[j] = swap;
		pos = (order[i] * 16 + rng_next(&state) % 16) * PAGE +
		      rng_next(&state) % 512 * 8;
		wrong += load(p + pos) != word_at(pos);
	}
	return wrong;
}

TEST_F(walk, every_touch_is_one_fault_forwards)
{
	struct mmnf_ioc_stats s;

	EXPECT_EQ(0, walk(self->p, 0, STRIDE, TOUCHES, 0));
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(TOUCHES, s.out_faults);
	/* All of them mapped now: again costs nothing. */
	EXPECT_EQ(0, walk(self->p, 0, STRIDE, TOUCHES, 0));
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(TOUCHES, s.out_faults);
}

TEST_F(walk, every_touch_is_one_fault_backwards)
{
	struct mmnf_ioc_stats s;

	EXPECT_EQ(0, walk(self->p, (TOUCHES - 1) * STRIDE, -(s64)STRIDE,
			  TOUCHES, 0));
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(TOUCHES, s.out_faults);
}

TEST_F(walk, every_touch_is_one_fault_in_random_order)
{
	struct mmnf_ioc_stats s;

	EXPECT_EQ(0, random_walk(self->p, PAGES / 16));
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(PAGES / 16, s.out_faults);
}

/*
 * Over a resident file, of which 16 pages around a touch are mapped with it.  By
 * Linux 7 a fault may map a folio of the file system's whole, of 2 MiB at most.
 */
static u64 fewest_faults(u64 nr)
{
	struct utsname name;

	return !uname(&name) && atoi(name.release) >= 7 ? BYTES / (2 * MIB) :
							  nr;
}

TEST_F(walk, resident_file_hits_only)
{
	struct mmnf_ioc_stats s;
	static char buf[MIB];
	u64 off;

	/* Read, not written: some pages carry the host's readahead marker. */
	for (off = 0; off < BYTES; off += MIB)
		ASSERT_EQ((ssize_t)MIB, pread(self->fd, buf, MIB, off));
	ASSERT_EQ(PAGES, resident_pages(_metadata, self->fd, 0, BYTES));
	EXPECT_EQ(0, walk(self->p, 0, STRIDE, TOUCHES, 0));
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(s.out_faults, s.out_hits);
	EXPECT_LE(fewest_faults(TOUCHES), s.out_faults);
	EXPECT_GE(TOUCHES, s.out_faults);
	EXPECT_EQ(0, s.out_prefetched_pages);
}

TEST_F(walk, sequential_resident_maps_around)
{
	struct mmnf_ioc_stats s;
	static char buf[MIB];
	u64 off;

	for (off = 0; off < BYTES; off += MIB)
		ASSERT_EQ((ssize_t)MIB, pread(self->fd, buf, MIB, off));
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(s.out_faults, s.out_hits);
	/* 16 pages a fault, but for the pages with a marker. */
	EXPECT_LE(fewest_faults(PAGES / 16), s.out_faults);
	EXPECT_LE(s.out_faults, PAGES / 4);
}

TEST_F(walk, cold_manual_misses_only)
{
	struct mmnf_ioc_stats s;

	restart(_metadata, self, MMNF_MODE_MANUAL, 0);
	EXPECT_EQ(0, walk(self->p, 0, STRIDE, TOUCHES, 0));
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(TOUCHES, s.out_misses);
	EXPECT_EQ(TOUCHES, s.out_faults);
	EXPECT_EQ(0, s.out_prefetched_pages);
	/* No blind read-around: what was touched is what was read. */
	EXPECT_EQ(TOUCHES, resident_pages(_metadata, self->fd, 0, BYTES));
}

TEST_F(walk, off_is_the_host_alone)
{
	struct mmnf_ioc_stats s;

	restart(_metadata, self, MMNF_MODE_OFF, 0);
	EXPECT_EQ(0, walk(self->p, 0, STRIDE, TOUCHES, 0));
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(0, s.out_prefetched_pages);
	EXPECT_EQ(0, s.out_plans);
	/* The host reads around each miss. */
	EXPECT_LT(2 * TOUCHES, resident_pages(_metadata, self->fd, 0, BYTES));
}

static void expect_predicted(struct __test_metadata *_metadata,
			     const struct mmnf_ioc_stats *s, u64 walks,
			     u64 touches)
{
	log_stats(_metadata->name, s);
	EXPECT_EQ(touches, s->out_faults);
	EXPECT_LE(s->out_misses, WARM_UP * walks);
	EXPECT_LE(touches - WARM_UP * walks, s->out_used_pages);
	/* The walk ends where the field ends, and plans stay inside. */
	EXPECT_LE(s->out_wasted_pages + s->out_pending_pages, 4 * walks);
	EXPECT_EQ(0, s->out_dropped_plans);
}

TEST_F(walk, strided_forwards_is_predicted)
{
	struct mmnf_ioc_stats s;

	EXPECT_EQ(0, walk(self->p, 0, STRIDE, TOUCHES, REST_MS));
	s = get_stats(_metadata, self->dev);
	expect_predicted(_metadata, &s, 1, TOUCHES);
	/* Not a page more than touched or planned was read. */
	EXPECT_LE(resident_pages(_metadata, self->fd, 0, BYTES),
		  TOUCHES + s.out_wasted_pages + s.out_pending_pages);
}

TEST_F(walk, strided_backwards_is_predicted)
{
	struct mmnf_ioc_stats s;

	EXPECT_EQ(0, walk(self->p, (TOUCHES - 1) * STRIDE, -(s64)STRIDE,
			  TOUCHES, REST_MS));
	s = get_stats(_metadata, self->dev);
	expect_predicted(_metadata, &s, 1, TOUCHES);
}

TEST_F(walk, wide_stride_is_predicted)
{
	struct mmnf_ioc_stats s;

	/* 61 pages and some bytes: the page pattern is not even. */
	EXPECT_EQ(0, walk(self->p, 0, 61 * PAGE + 1000, 67, REST_MS));
	s = get_stats(_metadata, self->dev);
	expect_predicted(_metadata, &s, 1, 67);
}

TEST_F(walk, sequential_is_predicted)
{
	struct mmnf_ioc_stats s;
	u64 pos;

	/* A rest now and then: the worker's lead is tested, not its speed. */
	for (pos = 0; pos < BYTES; pos += 16 * PAGE) {
		EXPECT_EQ(0, walk(self->p, pos, PAGE, 16, 0));
		rest(self->p + pos + 16 * PAGE, 1);
	}
	s = get_stats(_metadata, self->dev);
	log_stats("sequential", &s);
	EXPECT_LE(s.out_misses, PAGES / 50);
	EXPECT_LE(PAGES * 9 / 10, s.out_used_pages);
	EXPECT_LE(s.out_wasted_pages, PAGES / 50);
}

TEST_F(walk, sequential_backwards_is_predicted)
{
	struct mmnf_ioc_stats s;

	u64 pos;

	/* A rest now and then: the worker's lead is tested, not its speed. */
	for (pos = BYTES; pos; pos -= 16 * PAGE) {
		EXPECT_EQ(0, walk(self->p, pos - PAGE, -(s64)PAGE, 16, 0));
		rest(self->p + pos - 17 * PAGE, 1);
	}
	s = get_stats(_metadata, self->dev);
	log_stats("sequential backwards", &s);
	EXPECT_LE(s.out_misses, PAGES / 50);
	EXPECT_LE(s.out_wasted_pages, PAGES / 50);
}

TEST_F(walk, random_reads_nothing_ahead)
{
	struct mmnf_ioc_stats s;

	EXPECT_EQ(0, random_walk(self->p, PAGES / 16));
	sleep_ms(50);
	s = get_stats(_metadata, self->dev);
	log_stats("random", &s);
	EXPECT_LE(s.out_prefetched_pages, PAGES / 16 / 20);
	EXPECT_LE(resident_pages(_metadata, self->fd, 0, BYTES),
		  PAGES / 16 + PAGES / 16 / 20);
}

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/*
 * By Linux 7 khugepaged reads what is absent of 2 MiB around a page, if let.  It comes
 * when it likes; MADV_COLLAPSE asks the same of an area, and does it at once.
 */
TEST_F(walk, khugepaged_reads_nothing_around)
{
	EXPECT_EQ(0, random_walk(self->p, 20));
	sleep_ms(50);
	EXPECT_EQ(EINVAL, err_of(madvise(self->p, BYTES, MADV_COLLAPSE)));
	EXPECT_LE(resident_pages(_metadata, self->fd, 0, BYTES), 20 + 1);
}

/* With records, a miss brings its whole record, and only that. */
TEST_F(walk, miss_reads_its_record)
{
	const u64 record = 12 * PAGE, pos = 5 * record + 7 * PAGE;
	u64 deadline = now_ms() + 2000;

	restart(_metadata, self, MMNF_MODE_MANUAL, record);
	EXPECT_EQ(word_at(pos), load(self->p + pos));
	while (resident_pages(_metadata, self->fd, 5 * record, record) < 12 &&
	       now_ms() < deadline)
		sleep_ms(10);
	EXPECT_EQ(12, resident_pages(_metadata, self->fd, 5 * record, record));
	EXPECT_EQ(12, resident_pages(_metadata, self->fd, 0, BYTES));
	get_stats(_metadata, self->dev);
}

struct walker {
	const char *p;
	u64 start, stride, nr, wrong;
};

static void *walk_in_thread(void *arg)
{
	struct walker *w = arg;

	w->wrong = walk(w->p, w->start, w->stride, w->nr, REST_MS);
	return NULL;
}

TEST_F(walk, two_threads_are_two_walks)
{
	struct walker w[2] = {
		{ self->p, 0, 17 * PAGE, PAGES / 2 / 17, 0 },
		{ self->p, BYTES / 2, 23 * PAGE, PAGES / 2 / 23, 0 },
	};
	struct mmnf_ioc_stats s;
	pthread_t thread[2];
	int i;

	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, walk_in_thread,
					    &w[i]));
	for (i = 0; i < 2; i++) {
		pthread_join(thread[i], NULL);
		EXPECT_EQ(0, w[i].wrong);
	}
	s = get_stats(_metadata, self->dev);
	log_stats("two threads", &s);
	EXPECT_EQ(w[0].nr + w[1].nr, s.out_faults);
	EXPECT_LE(s.out_misses, 2 * WARM_UP);
	EXPECT_LE(w[0].nr + w[1].nr - 2 * WARM_UP, s.out_used_pages);
}

/* a[i] and b[j] in one loop: two instructions, so two walks. */
TEST_F(walk, two_instructions_are_two_walks)
{
	const char *a = self->p, *b = self->p + BYTES / 2;
	u64 wrong = 0, nr = PAGES / 2 / 23, i;
	struct mmnf_ioc_stats s;

	for (i = 0; i < nr; i++) {
		u64 x = load(a + i * 17 * PAGE);
		u64 y = load(b + i * 23 * PAGE);

		wrong += x != word_at(i * 17 * PAGE);
		wrong += y != word_at(BYTES / 2 + i * 23 * PAGE);
		rest(a + (i + 1) * 17 * PAGE, REST_MS);
		rest(b + (i + 1) * 23 * PAGE, REST_MS);
	}
	EXPECT_EQ(0, wrong);
	s = get_stats(_metadata, self->dev);
	log_stats("two instructions", &s);
	EXPECT_EQ(2 * nr, s.out_faults);
	EXPECT_LE(s.out_misses, 2 * WARM_UP);
	EXPECT_LE(2 * nr - 2 * WARM_UP, s.out_used_pages);
}

/* Pages without use that a walker's blocks may have; more for each page of use. */
#define CREDIT 2048
#define BLOCK 32
#define PAID_MOST (16 + 16 / 2)

/*
 * All of 4 MiB in an order by chance, then of 4 MiB more: each block serves the touches
 * of its pages, 16 in a fault, so the next is read, too.
 */
TEST_F(walk, small_regions_are_read_in_blocks)
{
	u64 nr = PAGES / 4, wrong = 0, i, at;
	struct mmnf_ioc_stats s;

	for (i = 0; i < 2 * nr; i++) {
		/* Odd factors: each page of a region once, in no order. */
		at = (i / nr * nr + (i * i * 32 + i * 421) % nr) * PAGE;
		wrong += load(self->p + at) != word_at(at);
		rest(self->p + at, 1);
	}
	EXPECT_EQ(0, wrong);
	s = get_stats(_metadata, self->dev);
	log_stats("small regions", &s);
	/* A dozen or two to see it, then a block each, and some twice. */
	EXPECT_LE(s.out_misses, 2 * (30 + 2 * nr / BLOCK));
	EXPECT_LE(2 * nr * 3 / 4, s.out_used_pages);
}

/* A page of each block, in pairs of descending order: blocks serve nobody. */
TEST_F(walk, blocks_without_use_end)
{
	u64 nr = PAGES / BLOCK, wrong = 0, i, at;
	struct mmnf_ioc_stats s;

	for (i = 0; i < nr; i++) {
		at = ((i ^ 1) * BLOCK + i * i * 7 % BLOCK) * PAGE;
		wrong += load(self->p + at) != word_at(at);
		rest(self->p + at, REST_MS);
	}
	EXPECT_EQ(0, wrong);
	s = get_stats(_metadata, self->dev);
	log_stats("no use", &s);
	EXPECT_LE(s.out_prefetched_pages,
		  CREDIT + BLOCK + PAID_MOST * (s.out_hits + s.out_late));
}

/* A snapshot taken at any time obeys the laws; get_stats() looks. */
TEST_F(walk, laws_hold_while_walking)
{
	struct walker w[2] = {
		{ self->p, 0, 17 * PAGE, PAGES / 2 / 17, 0 },
		{ self->p, BYTES / 2, 3 * PAGE, PAGES / 2 / 3, 0 },
	};
	pthread_t thread[2];
	int i;

	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, walk_in_thread,
					    &w[i]));
	for (i = 0; i < 100; i++) {
		get_stats(_metadata, self->dev);
		sleep_ms(5);
	}
	for (i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	get_stats(_metadata, self->dev);
}

/* What was read ahead and dropped before use is waste, not use. */
TEST_F(walk, dropped_before_use_is_wasted)
{
	struct mmnf_ioc_stats s;
	u64 nr = 40;

	EXPECT_EQ(0, walk(self->p, 0, STRIDE, nr, REST_MS));
	sleep_ms(50);
	s = get_stats(_metadata, self->dev);
	ASSERT_LT(0, s.out_pending_pages);
	/* The pages ahead are not mapped: they can go, those touched cannot. */
	ASSERT_EQ(0,
		  posix_fadvise(self->fd, nr * STRIDE, 0, POSIX_FADV_DONTNEED));
	set_mode(_metadata, self->dev, MMNF_MODE_MANUAL);
	EXPECT_EQ(0,
		  walk(self->p, nr * STRIDE, STRIDE, s.out_pending_pages, 0));
	EXPECT_LE(s.out_wasted_pages + s.out_pending_pages,
		  get_stats(_metadata, self->dev).out_wasted_pages);
}

static void on_alarm(int sig)
{
	(void)sig;
}

#define SLOW "mmnf-fault"

/*
 * A signal while a fault waits for its page: the instruction is run again, and is
 * still one access.  A read takes a fifth of a second.
 */
TEST(fault_cut_short_by_a_signal_is_one)
{
	const struct itimerval soon = { .it_value = { 0, 50000 } };
	struct sigaction action = { .sa_handler = on_alarm };
	int fd = make_null_disk(SLOW, 8, 200000000, 64), dev, i;
	struct mmnf_ioc_stats s;
	char *p;

	if (fd < 0)
		SKIP(return, "kernel: no null_blk with configfs");
	dev = attach_field(_metadata, fd, 8 * MIB);
	set_mode(_metadata, dev, MMNF_MODE_MANUAL);
	p = map_field(_metadata, dev, 0, 8 * MIB, MAP_SHARED);
	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	for (i = 1; i <= 4; i++) {
		ASSERT_EQ(0, setitimer(ITIMER_REAL, &soon, NULL));
		load(p + i * STRIDE);
		s = get_stats(_metadata, dev);
		EXPECT_EQ(i, s.out_faults);
		EXPECT_EQ(i, s.out_misses);
	}
	/* Once more, with nothing to wait for: that is an access of its own. */
	ASSERT_EQ(0, madvise(p, 8 * MIB, MADV_DONTNEED));
	load(p + 4 * STRIDE);
	EXPECT_EQ(1, get_stats(_metadata, dev).out_hits);
	munmap(p, 8 * MIB);
	close(dev);
	close(fd);
	remove_null_disk(SLOW);
}

static void *punch(void *arg)
{
	const struct mmnf_range *hole = arg;
	int fd = open("/dev/" SLOW, O_RDWR | O_CLOEXEC);

	/* What matters is the page cache: the disk may refuse. */
	fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		  hole->start_bytes, hole->len_bytes);
	close(fd);
	return NULL;
}

/*
 * A hit, among many that are counted alone, whose page is locked: it comes again,
 * and is still one access.  Who punches a part of a page that is being written holds
 * its lock until it is; a write takes a fifth of a second.
 */
TEST(quiet_hit_that_waits_for_its_page_is_one)
{
	int fd = make_null_disk(SLOW, 8, 200000000, 64), out, dev, i;
	static const char page[PAGE] = { 1 };
	pthread_t thread;
	char *p;

	if (fd < 0)
		SKIP(return, "kernel: no null_blk with configfs");
	out = open("/dev/" SLOW, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, out);
	dev = attach_field(_metadata, fd, 8 * MIB);
	set_mode(_metadata, dev, MMNF_MODE_MANUAL);
	p = map_field(_metadata, dev, 0, 8 * MIB, MAP_SHARED);
	ASSERT_EQ((ssize_t)PAGE, pwrite(out, page, PAGE, 0));
	for (i = 0; i < 100; i++) {
		load(p);
		ASSERT_EQ(0, madvise(p, PAGE, MADV_DONTNEED));
	}
	EXPECT_EQ(100, get_stats(_metadata, dev).out_hits);
	for (i = 1; i <= 4; i++) {
		u64 pos = i * STRIDE;
		struct mmnf_range hole = { pos + PAGE / 2, 512 };

		ASSERT_EQ((ssize_t)PAGE, pwrite(out, page, PAGE, pos));
		ASSERT_EQ(0, sync_file_range(out, pos, PAGE,
					     SYNC_FILE_RANGE_WRITE));
		ASSERT_EQ(0, pthread_create(&thread, NULL, punch, &hole));
		sleep_ms(50);
		load(p + pos);
		EXPECT_EQ(100 + i, get_stats(_metadata, dev).out_faults);
		pthread_join(thread, NULL);
	}
	EXPECT_EQ(0, get_stats(_metadata, dev).out_misses);
	munmap(p, 8 * MIB);
	close(dev);
	close(out);
	close(fd);
	remove_null_disk(SLOW);
}

MMNF_HARNESS_MAIN
