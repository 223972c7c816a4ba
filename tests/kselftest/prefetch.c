// SPDX-License-Identifier: GPL-2.0
/* MMNF_IOC_PREFETCH, and who pays for what is read ahead. */
#include "util.h"

#define BYTES (16 * MIB)
#define PAGES (BYTES / PAGE)

FIXTURE(prefetch)
{
	int fd, dev;
};

FIXTURE_SETUP(prefetch)
{
	self->fd = make_field(_metadata, "prefetch", BYTES);
	drop_cache(_metadata, self->fd);
	self->dev = attach_field(_metadata, self->fd, BYTES);
}

FIXTURE_TEARDOWN(prefetch)
{
	close(self->dev);
	close(self->fd);
	remove_field("prefetch");
}

static struct mmnf_ioc_prefetch prefetch(struct __test_metadata *_metadata,
					 int dev, u32 flags,
					 const struct mmnf_range *range, u32 nr)
{
	struct mmnf_ioc_prefetch arg = {
		.size = sizeof(arg),
		.flags = flags,
		.select.items = (unsigned long)range,
		.select.nr_items = nr,
	};

	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_PREFETCH, &arg))
	TH_LOG("prefetch: %s", strerror(errno));
	return arg;
}

TEST_F(prefetch, wait_makes_all_resident)
{
	const struct mmnf_range all = { 0, BYTES };
	struct mmnf_ioc_prefetch out;
	struct mmnf_ioc_stats s;
	char *p;

	out = prefetch(_metadata, self->dev, MMNF_PREFETCH_WAIT, &all, 1);
	EXPECT_EQ(BYTES, out.out_queued_bytes);
	EXPECT_EQ(0, out.out_resident_bytes);
	EXPECT_EQ(0, out.out_hole_bytes);
	EXPECT_EQ(PAGES, resident_pages(_metadata, self->fd, 0, BYTES));
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(PAGES, s.out_manual_pages);
	/* Asked for, not predicted. */
	EXPECT_EQ(0, s.out_prefetched_pages);

	p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
	EXPECT_EQ(0, wrong_words(p, 0, BYTES));
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(s.out_faults, s.out_hits);
	munmap(p, BYTES);
}

TEST_F(prefetch, second_call_queues_nothing)
{
	const struct mmnf_range all = { 0, BYTES };
	struct mmnf_ioc_prefetch out;

	prefetch(_metadata, self->dev, MMNF_PREFETCH_WAIT, &all, 1);
	out = prefetch(_metadata, self->dev, 0, &all, 1);
	EXPECT_EQ(0, out.out_queued_bytes);
	EXPECT_EQ(BYTES, out.out_resident_bytes);
	EXPECT_EQ(PAGES, get_stats(_metadata, self->dev).out_manual_pages);
}

/* Pages on their way count as resident: nothing is read twice. */
#define SLOW "mmnf-wait"

/* In short runs and in a long one; a read takes a fifth of a second. */
TEST_F(prefetch, wait_also_for_what_is_being_read)
{
	static const struct mmnf_range items[][3] = {
		{ { 0, PAGE }, { 2 * PAGE, PAGE }, { 4 * PAGE, 3 * PAGE } },
		{ { MIB, 70 * PAGE } },
	};
	static const u32 nr[] = { 3, 1 }, pages[] = { 5, 70 };
	int fd = make_null_disk(SLOW, 8, 200000000, 64), dev, i;
	struct mmnf_ioc_prefetch out;

	if (fd < 0)
		SKIP(return, "kernel: no null_blk with configfs");
	dev = attach_field(_metadata, fd, 8 * MIB);
	for (i = 0; i < 2; i++) {
		out = prefetch(_metadata, dev, 0, items[i], nr[i]);
		EXPECT_EQ(pages[i] * PAGE, out.out_queued_bytes);
		out = prefetch(_metadata, dev, MMNF_PREFETCH_WAIT, items[i],
			       nr[i]);
		EXPECT_EQ(pages[i] * PAGE, out.out_resident_bytes);
		EXPECT_EQ(pages[i],
			  resident_pages(_metadata, fd, items[i][0].start_bytes,
					 70 * PAGE));
	}
	close(dev);
	close(fd);
	remove_null_disk(SLOW);
}

TEST_F(prefetch, without_wait_becomes_resident)
{
	const struct mmnf_range all = { 0, BYTES };
	struct mmnf_ioc_prefetch first, second;
	u64 deadline = now_ms() + 5000;

	first = prefetch(_metadata, self->dev, 0, &all, 1);
	second = prefetch(_metadata, self->dev, 0, &all, 1);
	EXPECT_EQ(BYTES, first.out_queued_bytes);
	EXPECT_EQ(BYTES, second.out_resident_bytes);
	while (resident_pages(_metadata, self->fd, 0, BYTES) < PAGES &&
	       now_ms() < deadline)
		sleep_ms(20);
	EXPECT_EQ(PAGES, resident_pages(_metadata, self->fd, 0, BYTES));
}

TEST_F(prefetch, list_reads_what_is_listed_and_no_more)
{
	struct mmnf_range range[64];
	struct mmnf_ioc_prefetch out;
	u64 i;

	for (i = 0; i < 64; i++)
		range[i] = (struct mmnf_range) { (63 - i) * 17 * PAGE, PAGE };
	out = prefetch(_metadata, self->dev, MMNF_PREFETCH_WAIT, range, 64);
	EXPECT_EQ(64 * PAGE, out.out_queued_bytes);
	EXPECT_EQ(64, resident_pages(_metadata, self->fd, 0, BYTES));
	for (i = 0; i < 64; i++)
		EXPECT_EQ(1, resident_pages(_metadata, self->fd, i * 17 * PAGE,
					    PAGE));
}

TEST_F(prefetch, overlapping_ranges_are_read_once)
{
	const struct mmnf_range range[] = {
		{ 0, 8 * PAGE },
		{ 4 * PAGE, 8 * PAGE },
		{ 0, 12 * PAGE },
	};
	struct mmnf_ioc_prefetch out;

	out = prefetch(_metadata, self->dev, MMNF_PREFETCH_WAIT, range, 3);
	EXPECT_EQ(12 * PAGE, out.out_queued_bytes);
	/* Neighbours in the list are joined: each page is counted once. */
	EXPECT_EQ(0, out.out_resident_bytes);
	EXPECT_EQ(12, resident_pages(_metadata, self->fd, 0, BYTES));
}

/* Named again after others: by then it is on its way. */
TEST_F(prefetch, pages_named_twice_are_read_once)
{
	const struct mmnf_range range[] = {
		{ 0, 4 * PAGE },	 { 40 * PAGE, PAGE },
		{ 3 * PAGE, 3 * PAGE },	 { 80 * PAGE, PAGE },
		{ 40 * PAGE, 2 * PAGE },
	};
	struct mmnf_ioc_prefetch out;

	out = prefetch(_metadata, self->dev, 0, range, 5);
	EXPECT_EQ(9 * PAGE, out.out_queued_bytes);
	EXPECT_EQ(2 * PAGE, out.out_resident_bytes);
	EXPECT_EQ(9, get_stats(_metadata, self->dev).out_manual_pages);
}

TEST_F(prefetch, partly_resident_reads_the_rest)
{
	const struct mmnf_range all = { 0, 64 * PAGE };
	struct mmnf_range range[2] = { { 3 * PAGE, PAGE },
				       { 40 * PAGE, 5 * PAGE } };
	struct mmnf_ioc_prefetch out;

	prefetch(_metadata, self->dev, MMNF_PREFETCH_WAIT, range, 2);
	out = prefetch(_metadata, self->dev, MMNF_PREFETCH_WAIT, &all, 1);
	EXPECT_EQ(6 * PAGE, out.out_resident_bytes);
	EXPECT_EQ(58 * PAGE, out.out_queued_bytes);
	EXPECT_EQ(64, resident_pages(_metadata, self->fd, 0, BYTES));
}

/* Bytes are rounded outwards to pages. */
TEST_F(prefetch, single_bytes_touch_their_pages)
{
	const struct mmnf_range range[] = {
		{ 5 * PAGE + 4095, 1 },
		{ 9 * PAGE + 4095, 2 },
		{ BYTES - 1, 100 },
	};
	struct mmnf_ioc_prefetch out;

	out = prefetch(_metadata, self->dev, MMNF_PREFETCH_WAIT, range, 3);
	EXPECT_EQ(4 * PAGE, out.out_queued_bytes);
	EXPECT_EQ(4, resident_pages(_metadata, self->fd, 0, BYTES));
	EXPECT_EQ(1, resident_pages(_metadata, self->fd, 5 * PAGE, PAGE));
	EXPECT_EQ(2, resident_pages(_metadata, self->fd, 9 * PAGE, 2 * PAGE));
}

TEST_F(prefetch, part_beyond_the_end_is_ignored)
{
	const struct mmnf_range range = { BYTES - 2 * PAGE, 1ULL << 40 };
	struct mmnf_ioc_prefetch out;

	out = prefetch(_metadata, self->dev, MMNF_PREFETCH_WAIT, &range, 1);
	EXPECT_EQ(2 * PAGE, out.out_queued_bytes);
	EXPECT_EQ(0, out.out_resident_bytes);
	EXPECT_EQ(0, out.out_hole_bytes);
}

TEST_F(prefetch, holes_are_skipped)
{
	const u64 part = 4 * MIB;
	const struct mmnf_range all = { 0, 4 * part };
	struct mmnf_ioc_prefetch out;
	int fd, dev;
	char *p;

	/* data, hole, data, hole up to the end */
	fd = make_field(_metadata, "sparse", part);
	fill_field(_metadata, fd, 2 * part, 3 * part);
	ASSERT_EQ(0, ftruncate(fd, 4 * part));
	drop_cache(_metadata, fd);
	dev = attach_field(_metadata, fd, 4 * part);
	out = prefetch(_metadata, dev, MMNF_PREFETCH_WAIT, &all, 1);
	EXPECT_EQ(2 * part, out.out_queued_bytes);
	EXPECT_EQ(2 * part, out.out_hole_bytes);
	EXPECT_EQ(0, out.out_resident_bytes);
	EXPECT_EQ(part / PAGE, resident_pages(_metadata, fd, 0, part));
	EXPECT_EQ(0, resident_pages(_metadata, fd, part, part));
	EXPECT_EQ(part / PAGE, resident_pages(_metadata, fd, 2 * part, part));
	EXPECT_EQ(0, resident_pages(_metadata, fd, 3 * part, part));

	p = map_field(_metadata, dev, 0, 4 * part, MAP_SHARED);
	EXPECT_EQ(0, wrong_words(p, 0, part));
	EXPECT_EQ(0, nonzero_words(p + part, part));
	EXPECT_EQ(0, wrong_words(p + 2 * part, 2 * part, part));
	EXPECT_EQ(0, nonzero_words(p + 3 * part, part));
	munmap(p, 4 * part);
	close(dev);
	close(fd);
	remove_field("sparse");
}

/* A sparse file far larger than memory costs neither memory nor time. */
TEST_F(prefetch, hole_of_a_tebibyte)
{
	const u64 bytes = 1ULL << 40;
	struct mmnf_range range = { 0, bytes };
	struct mmnf_ioc_prefetch out;
	u64 value, start;
	int fd, dev;
	char *p;

	fd = make_field(_metadata, "sparse", 0);
	ASSERT_EQ(0, ftruncate(fd, bytes));
	fill_field(_metadata, fd, bytes - PAGE, bytes);
	drop_cache(_metadata, self->fd);
	ASSERT_EQ(0, fdatasync(fd));
	ASSERT_EQ(0, posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	dev = attach_field(_metadata, fd, bytes);
	start = now_ms();
	out = prefetch(_metadata, dev, 0, &range, 1);
	EXPECT_EQ(PAGE, out.out_queued_bytes + out.out_resident_bytes);
	EXPECT_EQ(bytes - PAGE, out.out_hole_bytes);
	EXPECT_GT(2000, now_ms() - start);
	start = now_ms();
	prefetch(_metadata, dev, MMNF_PREFETCH_WAIT, &range, 1);
	EXPECT_GT(2000, now_ms() - start);
	p = map_field(_metadata, dev, 0, bytes, MAP_SHARED);
	EXPECT_EQ(0, wrong_words(p + bytes - PAGE, bytes - PAGE, PAGE));
	value = load(p + bytes / 2);
	EXPECT_EQ(0, value);
	munmap(p, bytes);
	close(dev);
	close(fd);
	remove_field("sparse");
}

/* It is for every mode, and for a device that is not mapped. */
TEST_F(prefetch, works_in_every_mode)
{
	u32 mode;

	for (mode = MMNF_MODE_OFF; mode <= MMNF_MODE_MANUAL; mode++) {
		const struct mmnf_range range = { mode * MIB, MIB };
		struct mmnf_ioc_prefetch out;

		set_mode(_metadata, self->dev, mode);
		out = prefetch(_metadata, self->dev, MMNF_PREFETCH_WAIT, &range,
			       1);
		EXPECT_EQ(MIB, out.out_queued_bytes);
	}
	EXPECT_EQ(3 * MIB / PAGE,
		  resident_pages(_metadata, self->fd, 0, BYTES));
}

/* Memory cgroups */

FIXTURE(memcg)
{
	int fd;
	char cgroup[128];
	const char *skip;
};

FIXTURE_SETUP(memcg)
{
	self->skip =
		make_cgroup(self->cgroup, sizeof(self->cgroup), "mmnf-test");
	self->fd = make_field(_metadata, "memcg", BYTES);
	drop_cache(_metadata, self->fd);
}

FIXTURE_TEARDOWN(memcg)
{
	close(self->fd);
	remove_field("memcg");
	/* Pages charged to it keep it busy until they are gone. */
	rmdir(self->cgroup);
}

/*
 * The reads of the worker, which runs outside every cgroup, are paid by whom the
 * mapping belongs to.
 */
TEST_F(memcg, walker_pays_for_what_is_read_ahead)
{
	u64 charged, resident;
	pid_t pid;

	if (self->skip)
		SKIP(return, "%s", self->skip);
	pid = fork();
	if (!pid) {
		struct mmnf_ioc_stats s;
		int dev;
		char *p;

		if (!enter_cgroup(self->cgroup))
			_exit(1);
		dev = attach_field(_metadata, self->fd, BYTES);
		p = map_field(_metadata, dev, 0, BYTES, MAP_SHARED);
		if (walk(p, 0, PAGE, PAGES, 0))
			_exit(2);
		s = get_stats(_metadata, dev);
		log_stats("memcg", &s);
		/* Without reading ahead nothing would be shown. */
		_exit(s.out_prefetched_pages > PAGES / 2 ? 0 : 3);
	}
	ASSERT_EQ(0, wait_child(pid));
	charged = memory_stat(self->cgroup, "file");
	resident = resident_pages(_metadata, self->fd, 0, BYTES) * PAGE;
	EXPECT_EQ(BYTES, resident);
	EXPECT_LE(resident - MIB, charged);
}

TEST_F(memcg, caller_pays_for_what_he_asks_for)
{
	pid_t pid;

	if (self->skip)
		SKIP(return, "%s", self->skip);
	pid = fork();
	if (!pid) {
		const struct mmnf_range all = { 0, BYTES };
		int dev = attach_field(_metadata, self->fd, BYTES);

		if (!enter_cgroup(self->cgroup))
			_exit(1);
		prefetch(_metadata, dev, MMNF_PREFETCH_WAIT, &all, 1);
		_exit(0);
	}
	ASSERT_EQ(0, wait_child(pid));
	EXPECT_LE(BYTES - MIB, memory_stat(self->cgroup, "file"));
}

/* Reading ahead stays within the limit and kills nobody. */
TEST_F(memcg, limit_holds)
{
	pid_t pid;

	if (self->skip)
		SKIP(return, "%s", self->skip);
	ASSERT_EQ(0, put_text(self->cgroup, "memory.max", "6291456"));
	pid = fork();
	if (!pid) {
		u64 wrong;
		int dev;
		char *p;

		if (!enter_cgroup(self->cgroup))
			_exit(1);
		dev = attach_field(_metadata, self->fd, BYTES);
		p = map_field(_metadata, dev, 0, BYTES, MAP_SHARED);
		wrong = walk(p, 0, PAGE, PAGES, 0);
		wrong += walk(p, 0, 3 * PAGE, PAGES / 3, 0);
		get_stats(_metadata, dev);
		_exit(wrong ? 2 : memory_stat(self->cgroup, "file") > 6 * MIB);
	}
	EXPECT_EQ(0, wait_child(pid));
	put_text(self->cgroup, "memory.max", "max");
}

MMNF_HARNESS_MAIN
