// SPDX-License-Identifier: GPL-2.0
/*
 * Commands that meet large folios: those of XFS, which every kernel has there for a
 * file that is read from end to end, and the entries that they leave in the page cache
 * when they are reclaimed.
 */
#include "util.h"

#define BYTES (16 * MIB)
#define PAGES (BYTES / PAGE)
#define CHUNK 64UL /* entries of a node of the page cache */
#define KPF_COMPOUND_TAIL 16

#define ROOT "/sys/fs/cgroup"

FIXTURE(large)
{
	int fd, dev;
	char dir[300], path[320], cgroup[128];
	char *probe; /* for mincore() alone */
	bool tail[PAGES + 1]; /* not the first page of its folio */
};

/* Reads the file by itself, as a program does that knows nothing of mmnf. */
static void read_through(struct __test_metadata *_metadata, const char *path)
{
	static char buf[64 << 10];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	u64 pos;

	ASSERT_LE(0, fd);
	for (pos = 0; pos < BYTES; pos += sizeof(buf))
		ASSERT_EQ((ssize_t)sizeof(buf),
			  pread(fd, buf, sizeof(buf), pos));
	close(fd);
}

static void read_page(struct __test_metadata *_metadata, const char *path,
		      u64 page)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char buf[PAGE];

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM));
	ASSERT_EQ((ssize_t)PAGE, pread(fd, buf, PAGE, page * PAGE));
	close(fd);
}

/* Which pages are the tails of a folio; all are resident. */
static void find_folios(struct __test_metadata *_metadata, int fd, bool *tail)
{
	int map = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int flags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	char *p =
		mmap(NULL, BYTES, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	u64 i, entry, word;

	ASSERT_LE(0, map);
	ASSERT_LE(0, flags);
	ASSERT_NE(MAP_FAILED, p);
	for (i = 0; i < PAGES; i++) {
		load(p + i * PAGE);
		ASSERT_EQ(8, pread(map, &entry, 8,
				   (uintptr_t)p / PAGE * 8 + i * 8));
		ASSERT_EQ(8, pread(flags, &word, 8,
				   (entry & ((1ULL << 55) - 1)) * 8));
		tail[i] = word >> KPF_COMPOUND_TAIL & 1;
	}
	tail[PAGES] = false;
	munmap(p, BYTES);
	close(flags);
	close(map);
}

static u64 head_of(const bool *tail, u64 page)
{
	while (tail[page])
		page--;
	return page;
}

static u64 end_of(const bool *tail, u64 page)
{
	do
		page++;
	while (tail[page]);
	return page;
}

FIXTURE_SETUP(large)
{
	/* Whoever reads pays, and gives back when told to. */
	ASSERT_EQ(NULL, make_cgroup(self->cgroup, sizeof(self->cgroup),
				    "mmnf-large"));
	ASSERT_TRUE(enter_cgroup(self->cgroup));
	shell("modprobe -q xfs");
	snprintf(self->dir, sizeof(self->dir), "%s/../large", ground);
	ASSERT_EQ(0, mount_image(self->dir, "xfs", "mkfs.xfs -q -f", 320));
	snprintf(self->path, sizeof(self->path), "%s/field", self->dir);
	self->fd = open(self->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_LE(0, self->fd);
	fill_field(_metadata, self->fd, 0, BYTES);
	drop_cache(_metadata, self->fd);
	self->dev = attach_field(_metadata, self->fd, BYTES);
	self->probe = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, self->probe);
	read_through(_metadata, self->path);
	ASSERT_EQ(PAGES, resident_pages(_metadata, self->fd, 0, BYTES));
	find_folios(_metadata, self->fd, self->tail);
}

FIXTURE_TEARDOWN(large)
{
	munmap(self->probe, BYTES);
	close(self->dev);
	close(self->fd);
	umount2(self->dir, MNT_DETACH);
	shell("rm -f %s.img", self->dir);
	enter_cgroup(ROOT);
	rmdir(self->cgroup);
}

static bool is_resident(const char *probe, u64 page)
{
	unsigned char there = 0;

	mincore((void *)(probe + page * PAGE), PAGE, &there);
	return there & 1;
}

/* Takes the pages away as a lack of memory does: what is left are shadows. */
static void reclaim(struct __test_metadata *_metadata, const char *cgroup,
		    int fd)
{
	u64 left = PAGES;
	int try;

	for (try = 0; left && try < 100; try++) {
		put_text(cgroup, "memory.reclaim", "16M");
		left = resident_pages(_metadata, fd, 0, BYTES);
	}
	ASSERT_EQ(0, left);
}

static struct mmnf_ioc_prefetch prefetch(struct __test_metadata *_metadata,
					 int dev, u32 flags,
					 const struct mmnf_range *range, u32 nr)
{
	struct mmnf_ioc_prefetch out = {
		.size = sizeof(out),
		.flags = flags,
		.select = { (unsigned long)range, nr, MMNF_SELECT_RANGES },
	};

	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_PREFETCH, &out));
	return out;
}

/* A folio of at least @least pages that ends where a node of the page cache goes on. */
static u64 find_folio(struct __test_metadata *_metadata, const bool *tail,
		      u64 least)
{
	u64 page, end;

	for (page = 512; page < PAGES; page = end) {
		end = end_of(tail, page);
		if (!tail[page] && end - page >= least && end % CHUNK)
			return page;
	}
	ASSERT_EQ(0, least)
	TH_LOG("XFS made no large folios");
	return 0;
}

/* What lies behind a large folio is not taken for a part of it. */
TEST_F(large, range_from_the_middle_of_a_folio)
{
	u64 head = find_folio(_metadata, self->tail, 4);
	u64 end = end_of(self->tail, head), part = (end - head) / 2;
	const struct mmnf_range range = { (end - part) * PAGE,
					  2 * part * PAGE };
	struct mmnf_ioc_prefetch out;

	ASSERT_EQ(0, posix_fadvise(self->fd, end * PAGE, MIB,
				   POSIX_FADV_DONTNEED));
	ASSERT_EQ(part, resident_pages(_metadata, self->fd, (end - part) * PAGE,
				       2 * part * PAGE));
	out = prefetch(_metadata, self->dev, MMNF_PREFETCH_WAIT, &range, 1);
	EXPECT_EQ(part * PAGE, out.out_queued_bytes)
	TH_LOG("folio of pages %llu to %llu", head, end);
	EXPECT_EQ(part * PAGE, out.out_resident_bytes);
	EXPECT_EQ(2 * part,
		  resident_pages(_metadata, self->fd, (end - part) * PAGE,
				 2 * part * PAGE));
}

/*
 * In one node of the page cache: a page that is there, and the last of a folio that is
 * reclaimed.  The pages are asked for in one command.
 */
static void ask_for_a_reclaimed_tail(struct __test_metadata *_metadata,
				     FIXTURE_DATA(large) * self, u32 flags)
{
	u64 chunk, there, gone, nr = 0;

	reclaim(_metadata, self->cgroup, self->fd);
	for (chunk = 512; chunk < PAGES; chunk += CHUNK) {
		struct mmnf_range range[2] = { { chunk * PAGE, PAGE },
					       { (chunk + CHUNK - 1) * PAGE,
						 PAGE } };
		struct mmnf_ioc_prefetch out;

		there = chunk;
		gone = chunk + CHUNK - 1;
		if (!self->tail[gone] || head_of(self->tail, gone) <= there)
			continue;
		read_page(_metadata, self->path, there);
		if (is_resident(self->probe, gone))
			continue;
		nr++;
		out = prefetch(_metadata, self->dev, flags, range, 2);
		EXPECT_EQ(PAGE, out.out_queued_bytes)
		TH_LOG("pages %llu and %llu", there, gone);
		EXPECT_EQ(PAGE, out.out_resident_bytes);
		sleep_ms(flags & MMNF_PREFETCH_WAIT ? 0 : 100);
		EXPECT_TRUE(is_resident(self->probe, gone));
	}
	EXPECT_LT(0, nr)
	TH_LOG("XFS left nothing of large folios");
}

TEST_F(large, tail_of_a_reclaimed_folio_is_read)
{
	ask_for_a_reclaimed_tail(_metadata, self, 0);
}

TEST_F(large, tail_of_a_reclaimed_folio_is_waited_for)
{
	ask_for_a_reclaimed_tail(_metadata, self, MMNF_PREFETCH_WAIT);
}

/*
 * EVICT leaves no folio that lies in the selection, wherever that begins: 2048 pages from
 * the second page of a folio on.  What stays shares its folio with pages outside.
 */
TEST_F(large, evict_drops_whole_folios)
{
	u64 start = find_folio(_metadata, self->tail, 4) + 1,
	    end = start + 2048;
	const struct mmnf_range range = { start * PAGE, 2048 * PAGE };
	u64 first = end_of(self->tail, start), last = head_of(self->tail, end);
	struct mmnf_ioc_evict out = {
		.size = sizeof(out),
		.select = { (unsigned long)&range, 1, MMNF_SELECT_RANGES },
	};

	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_EVICT, &out));
	EXPECT_EQ((last - first) * PAGE, out.out_evicted_bytes);
	EXPECT_EQ((first - start + end - last) * PAGE, out.out_busy_bytes);
	EXPECT_EQ(0, out.out_dirty_bytes | out.out_mapped_bytes);
	EXPECT_EQ(0, resident_pages(_metadata, self->fd, first * PAGE,
				    (last - first) * PAGE));
	EXPECT_EQ(PAGES - (last - first),
		  resident_pages(_metadata, self->fd, 0, BYTES));
}

/* As a race: folios go and come while ranges are asked for. */
TEST_F(large, folios_go_while_they_are_asked_for)
{
	u64 until = now_ms() + 3000;
	struct mmnf_range range[32];
	pid_t pid;
	u64 i;

	/* Two runs in each node of the page cache, from the middle of folios. */
	for (i = 0; i < 32; i++)
		range[i] =
			(struct mmnf_range) { (i * 32 + 17) * PAGE, 15 * PAGE };
	pid = fork();
	if (!pid) {
		while (now_ms() < until) {
			put_text(self->cgroup, "memory.reclaim", "4M");
			posix_fadvise(self->fd, 0, MIB, POSIX_FADV_DONTNEED);
			read_through(_metadata, self->path);
		}
		_exit(0);
	}
	while (now_ms() < until)
		prefetch(_metadata, self->dev, MMNF_PREFETCH_WAIT, range, 32);
	EXPECT_EQ(0, wait_child(pid));
}

MMNF_HARNESS_MAIN
