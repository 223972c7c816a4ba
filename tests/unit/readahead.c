// SPDX-License-Identifier: MIT
/*
 * Dense walks are left to the kernel's readahead, and nothing else is: who goes through
 * all bytes is not asked for with WILLNEED after the beginning, and who does not reads
 * what he touches.
 *
 * The expected numbers are those of the file's pages, and of the device's readahead.
 */
#include "field_util.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define PAGE 4096
#define MIB (1ULL << 20)
#define PIECE (4 * MIB)
#define FILE_BYTES (96 * MIB)
#define PAGES (FILE_BYTES / PAGE)
#define PIECE_PAGES (PIECE / PAGE)
/* As pieces of 4 MiB, and as pages. */
#define PIECES "dense.bin#raw,dtype=u8,shape=24x4194304"
#define SINGLE "dense.bin#raw,dtype=u8,shape=24576x4096"
/* How much is asked for without a gap before the kernel is. */
#define SETTLED MIB
#define NR_CACHESTAT 451

static uint64_t asked; /* bytes, by WILLNEED */

/* In place of libc's. */
int posix_fadvise(int fd, off_t offset, off_t bytes, int advice)
{
	if (advice == POSIX_FADV_WILLNEED)
		__atomic_add_fetch(&asked, (uint64_t)bytes, __ATOMIC_RELAXED);
	return syscall(SYS_fadvise64, fd, offset, bytes, advice) ? errno : 0;
}

static int value(uint64_t page)
{
	return (int)(page % 251);
}

/* In memory or on their way there. */
static uint64_t pages_in(uint64_t first, uint64_t nr)
{
	uint64_t range[2] = { first * PAGE, nr * PAGE }, stat[5] = { 0 };
	int fd = open("dense.bin", O_RDONLY);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(syscall(NR_CACHESTAT, fd, range, stat, 0), 0);
	close(fd);
	return stat[0];
}

/* Data on disk; of the pages from `hole` on there is none. */
static void make_file(uint64_t hole)
{
	uint64_t range[2] = { 0, 1 }, stat[5], i;
	static char page[PAGE];
	int fd;

	scratch();
	need_disk();
	fd = open("dense.bin", O_RDWR | O_CREAT | O_EXCL, 0644);
	ASSERT_GE(fd, 0);
	if (syscall(NR_CACHESTAT, fd, range, stat, 0))
		SKIP("the kernel does not tell where its readahead is: expected 6.5");
	for (i = 0; i < hole; i++) {
		memset(page, value(i), sizeof(page));
		ASSERT_EQ(write(fd, page, sizeof(page)), PAGE);
	}
	ASSERT_EQ(ftruncate(fd, FILE_BYTES), 0);
	ASSERT_EQ(fsync(fd), 0);
	close(fd);
}

static void drop(void)
{
	int fd = open("dense.bin", O_RDONLY), tries;

	ASSERT_GE(fd, 0);
	for (tries = 0; tries < 1000 && pages_in(0, PAGES); tries++) {
		ASSERT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		usleep(1000);
	}
	ASSERT_EQ(pages_in(0, PAGES), 0);
	close(fd);
}

/* Nothing is in memory then: who opens a file looks at its beginning. */
static struct mmnf_field *open_cold(const char *path, bool prefetch_off)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	opts.engine = MMNF_ENGINE_MMAP;
	opts.prefetch_off = prefetch_off;
	ASSERT_EQ(mmnf_field_open(&field, path, &opts), 0);
	drop();
	return field;
}

/* Of the device. */
static uint64_t window_pages(void)
{
	unsigned long kib;
	char path[64];
	struct stat st;
	FILE *f;

	ASSERT_EQ(stat("dense.bin", &st), 0);
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb",
		 major(st.st_dev), minor(st.st_dev));
	f = fopen(path, "r");
	if (!f)
		SKIP("the readahead of the device is not told");
	ASSERT_EQ(fscanf(f, "%lu", &kib), 1);
	fclose(f);
	return kib / 4;
}

static void touch(struct mmnf_field *field, uint64_t row)
{
	uint64_t at[2] = { row, 0 };
	const uint8_t *p = mmnf_activate(field, at);

	ASSERT_TRUE(p);
	ASSERT_EQ(*p, value(row));
}

static void prefetch(struct mmnf_field *field, uint64_t piece, uint64_t nr)
{
	struct mmnf_box box = { { piece, 0 }, { nr, PIECE }, { 1, 1 } };

	ASSERT_EQ(mmnf_prefetch(field, &box), (ssize_t)(nr * PIECE));
}

/* Until a piece has been read: what is on its way can't be evicted. */
static void wait_for(uint64_t piece)
{
	static uint8_t data[PIECE];
	int fd = open("dense.bin", O_RDONLY);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), 0);
	ASSERT_EQ(pread(fd, data, PIECE, (off_t)(piece * PIECE)), PIECE);
	close(fd);
}

static void expect_stats_add_up(struct mmnf_field *field)
{
	struct mmnf_field_stats stats = stats_of(field);

	EXPECT_EQ(stats.accesses, stats.hits + stats.late + stats.misses);
	EXPECT_EQ(stats.prefetched_pages,
		  stats.used_pages + stats.wasted_pages + stats.pending_pages);
}

/*
 * WILLNEED brings the first MiB, and as much as its plans reach ahead of that; each page
 * that was not missed was read ahead once, whoever read it.
 */
TEST(dense_walk)
{
	struct mmnf_field_stats stats;
	struct mmnf_field *field;
	uint64_t row;

	make_file(PAGES);
	field = open_cold(SINGLE, false);
	for (row = 0; row < PAGES; row++)
		touch(field, row);
	EXPECT_LE(asked, 4 * MIB);
	stats = stats_of(field);
	EXPECT_EQ(stats.accesses, PAGES);
	EXPECT_LE(stats.misses, 64);
	EXPECT_EQ(stats.prefetched_pages + stats.misses, PAGES);
	EXPECT_EQ(stats.used_pages, stats.prefetched_pages);
	expect_stats_add_up(field);
	mmnf_field_close(field);
}

/* Two windows beyond its end, and the plan that began the last of them. */
TEST(dense_walk_that_ends)
{
	struct mmnf_field *field;
	uint64_t row, window;

	make_file(PAGES);
	window = window_pages();
	if (2 * window > PAGES / 3)
		SKIP("the device's readahead is a third of the file");
	field = open_cold(SINGLE, false);
	for (row = 0; row < PAGES / 3; row++)
		touch(field, row);
	EXPECT_LE(pages_in(0, PAGES), PAGES / 3 + 2 * window + MIB / PAGE);
	expect_stats_add_up(field);
	mmnf_field_close(field);
}

TEST(walk_of_copies)
{
	struct mmnf_box box = { { 0 }, { 1, PIECE }, { 1, 1 } };
	struct mmnf_field *field;
	static uint8_t data[PIECE];

	make_file(PAGES);
	field = open_cold(PIECES, false);
	for (; box.start[0] < FILE_BYTES / PIECE; box.start[0]++) {
		ASSERT_EQ(mmnf_get(field, &box, data, PIECE), PIECE);
		ASSERT_EQ(data[PIECE - 1],
			  value((box.start[0] + 1) * PIECE_PAGES - 1));
	}
	/* The first two of them, before it is known where this goes. */
	EXPECT_LE(asked, 3 * PIECE);
	expect_stats_add_up(field);
	mmnf_field_close(field);
}

/* Every second page: half of them, but for the few that the end of a plan adds. */
TEST(strided_walk)
{
	struct mmnf_field *field;
	uint64_t row, in;

	make_file(PAGES);
	field = open_cold(SINGLE, false);
	for (row = 0; row < PAGES; row += 4)
		touch(field, row);
	in = pages_in(0, PAGES);
	EXPECT_GE(in, PAGES / 4);
	EXPECT_LE(in, PAGES / 4 + 8);
	expect_stats_add_up(field);
	mmnf_field_close(field);
}

TEST(backward_walk)
{
	struct mmnf_field *field;
	uint64_t row;

	make_file(PAGES);
	field = open_cold(SINGLE, false);
	for (row = PAGES; row-- > PAGES / 2;)
		touch(field, row);
	/* Each page but those that were missed at the beginning. */
	EXPECT_GE(asked + stats_of(field).misses * PAGE, FILE_BYTES / 2);
	mmnf_field_close(field);
}

/* Also after a dense walk, which the kernel's descriptor remembers. */
TEST(random_touches)
{
	struct mmnf_field *field;
	uint64_t row, i, before, missed, absent = 0;

	make_file(PAGES);
	field = open_cold(SINGLE, false);
	for (row = 0; row < 4 * MIB / PAGE; row++)
		touch(field, row);
	before = pages_in(0, PAGES);
	missed = stats_of(field).misses;
	for (i = 0; i < 500; i++) {
		row = PAGES / 2 + rnd() % (PAGES / 2);
		absent += !pages_in(row, 1);
		touch(field, row);
	}
	EXPECT_GT(absent, 400);
	EXPECT_EQ(pages_in(0, PAGES) - before, absent);
	EXPECT_EQ(stats_of(field).misses - missed, absent);
	mmnf_field_close(field);
}

/* What a program asks for piece by piece, each where the last one ended. */
TEST(pieces)
{
	struct mmnf_field *field;
	uint64_t window, i, in;

	make_file(PAGES);
	window = window_pages();
	field = open_cold(PIECES, false);
	for (i = 0; i < 5; i++)
		prefetch(field, i, 1);
	/* The first, and a few pages behind which the kernel begins. */
	EXPECT_LE(asked, PIECE + 16 * PAGE);
	in = pages_in(0, PAGES);
	EXPECT_EQ(pages_in(0, 5 * PIECE_PAGES), 5 * PIECE_PAGES);
	EXPECT_LE(in, 5 * PIECE_PAGES + window);
	mmnf_field_close(field);
}

/* Not where the program has said that it alone reads ahead. */
TEST(pieces_without_prefetch)
{
	struct mmnf_field *field;
	uint64_t i;

	make_file(PAGES);
	field = open_cold(PIECES, true);
	for (i = 0; i < 5; i++)
		prefetch(field, i, 1);
	EXPECT_EQ(pages_in(0, PAGES), 5 * PIECE_PAGES);
	mmnf_field_close(field);
}

/* Four pieces of 256 KiB are a MiB: with the fifth the kernel begins. */
TEST(pieces_of_a_mib)
{
	struct mmnf_box box = { { 0 }, { 64, PAGE }, { 1, 1 } };
	struct mmnf_field *field;

	make_file(PAGES);
	if (window_pages() < 32)
		SKIP("the device's readahead is less than 128 KiB");
	field = open_cold(SINGLE, false);
	for (; box.start[0] < SETTLED / PAGE; box.start[0] += 64)
		ASSERT_EQ(mmnf_prefetch(field, &box), 64 * PAGE);
	EXPECT_EQ(asked, SETTLED);
	EXPECT_EQ(pages_in(0, PAGES), SETTLED / PAGE);
	ASSERT_EQ(mmnf_prefetch(field, &box), 64 * PAGE);
	EXPECT_LE(asked, SETTLED + 16 * PAGE);
	EXPECT_GE(pages_in(0, PAGES), SETTLED / PAGE + 64);
	mmnf_field_close(field);
}

/* Of a walk, too, each page comes from a miss or from WILLNEED until then. */
TEST(walk_of_less_than_a_mib)
{
	uint64_t row, before = 0, in;
	struct mmnf_field *field;

	make_file(PAGES);
	field = open_cold(SINGLE, false);
	for (row = 0; row < PAGES; row++) {
		touch(field, row);
		in = pages_in(0, PAGES);
		if (in > SETTLED / PAGE)
			break;
		before = in;
		EXPECT_LE(in, asked / PAGE + stats_of(field).misses);
	}
	EXPECT_GT(before, 0);
	EXPECT_GT(asked, 0);
	EXPECT_LT(row, PAGES);
	mmnf_field_close(field);
}

/* Who is done with a piece and evicts it does not get it again. */
TEST(pieces_evicted_behind)
{
	struct mmnf_box box = { { 0 }, { 1, PIECE }, { 1, 1 } };
	struct mmnf_field *field;
	uint64_t again = 0, i;

	make_file(PAGES);
	field = open_cold(PIECES, false);
	for (i = 0; i < 16; i++) {
		prefetch(field, i, 1);
		EXPECT_EQ(pages_in(i * PIECE_PAGES, PIECE_PAGES), PIECE_PAGES);
		if (i)
			again += pages_in(0, i * PIECE_PAGES);
		box.start[0] = i;
		wait_for(i);
		ASSERT_GE(mmnf_evict(field, &box), 0);
	}
	EXPECT_EQ(again, 0);
	mmnf_field_close(field);
}

static uint64_t nr_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	uint64_t nr = 0;

	ASSERT_TRUE(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

#define ROWS 24
#define ROW_BYTES (3 * MIB)

static uint8_t ones[ROW_BYTES];

/* A segment a row, full of ones. */
static struct mmnf_field *open_rows(void)
{
	struct mmnf_box row = { { 0, 0 }, { 1, ROW_BYTES }, { 1, 1 } };
	static const uint64_t shape[2] = { ROWS, ROW_BYTES };
	MMNF_OPTS(mmnf_create_opts, create);
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	scratch();
	memset(ones, 1, sizeof(ones));
	create.segment_bytes = ROW_BYTES;
	ASSERT_EQ(mmnf_field_create("f", MMNF_U8, 2, shape, &create), 0);
	opts.engine = MMNF_ENGINE_MMAP;
	opts.writable = true;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	for (; row.start[0] < ROWS; row.start[0]++)
		ASSERT_EQ(mmnf_write(field, &row, ones, ROW_BYTES), ROW_BYTES);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	return field;
}

/* One descriptor a segment, and 8 more of those gone through last. */
TEST(descriptors)
{
	struct mmnf_box box = { { 0, 0 }, { 1, MIB }, { 1, 1 } };
	struct mmnf_field *field = open_rows();
	uint64_t before = nr_descriptors();

	/* Single boxes need none. */
	for (; box.start[0] < ROWS; box.start[0]++)
		ASSERT_EQ(mmnf_prefetch(field, &box), MIB);
	EXPECT_EQ(nr_descriptors(), before);
	for (box.start[0] = 0; box.start[0] < ROWS; box.start[0]++)
		for (box.start[1] = 0; box.start[1] < ROW_BYTES;
		     box.start[1] += MIB)
			ASSERT_EQ(mmnf_prefetch(field, &box), MIB);
	EXPECT_LE(nr_descriptors(), before + 8);
	mmnf_field_close(field);
	EXPECT_LE(nr_descriptors(), before - ROWS);
}

/* Goes through all rows twice: what it has evicted is read again. */
static void *walker(void *arg)
{
	struct mmnf_box box = { { 0, 0 }, { 1, MIB / 2 }, { 1, 1 } };
	uint8_t *data = malloc(MIB / 2);
	struct mmnf_field *field = arg;
	uintptr_t nr_wrong = !data, row;

	for (row = 0; data && row < 2 * ROWS; row++) {
		box.start[0] = row % ROWS;
		for (box.start[1] = 0; box.start[1] < ROW_BYTES;
		     box.start[1] += MIB / 2) {
			nr_wrong += mmnf_prefetch(field, &box) != MIB / 2;
			nr_wrong += mmnf_get(field, &box, data, MIB / 2) !=
					    MIB / 2 ||
				    memcmp(data, ones, MIB / 2) != 0;
			nr_wrong += mmnf_evict(field, &box) < 0;
		}
	}
	free(data);
	return (void *)nr_wrong;
}

TEST(threads)
{
	struct mmnf_field *field = open_rows();
	pthread_t thread[4];
	void *nr_wrong;
	uint32_t i;

	for (i = 0; i < 4; i++)
		ASSERT_EQ(pthread_create(&thread[i], NULL, walker, field), 0);
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(pthread_join(thread[i], &nr_wrong), 0);
		EXPECT_EQ((uintptr_t)nr_wrong, 0);
	}
	expect_stats_add_up(field);
	mmnf_field_close(field);
}

TEST(pieces_without_a_descriptor)
{
	struct rlimit before, none;
	struct mmnf_field *field;
	uint64_t i;

	make_file(PAGES);
	field = open_cold(PIECES, false);
	prefetch(field, 0, 1);
	ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 0;
	ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	for (i = 1; i < 5; i++)
		prefetch(field, i, 1);
	ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
	EXPECT_EQ(asked, 5 * PIECE);
	EXPECT_EQ(pages_in(0, PAGES), 5 * PIECE_PAGES);
	mmnf_field_close(field);
}

/* Neighbours of 64 KiB here and there are no walk. */
TEST(small_pieces)
{
	struct mmnf_box box = { { 0 }, { 16, PAGE }, { 1, 1 } };
	struct mmnf_field *field;
	uint64_t i;

	make_file(PAGES);
	field = open_cold(SINGLE, false);
	for (i = 0; i < 20; i++) {
		box.start[0] = 1000 * i + i % 2 * 16 - i % 2 * 1000;
		ASSERT_EQ(mmnf_prefetch(field, &box), 16 * PAGE);
	}
	EXPECT_EQ(pages_in(0, PAGES), 20 * 16);
	mmnf_field_close(field);
}

TEST(pieces_with_gaps)
{
	struct mmnf_field *field;
	uint64_t i;

	make_file(PAGES);
	field = open_cold(PIECES, false);
	for (i = 0; i < 12; i++)
		prefetch(field, 2 * i, 1);
	EXPECT_EQ(pages_in(0, PAGES), 12 * PIECE_PAGES);
	mmnf_field_close(field);
}

/* Not a page more, though most of it is the kernel's to read. */
TEST(much_at_once)
{
	struct mmnf_field *field;

	make_file(PAGES);
	field = open_cold(PIECES, false);
	prefetch(field, 2, 17);
	EXPECT_LE(asked, 16 * MIB + 16 * PAGE);
	EXPECT_EQ(pages_in(2 * PIECE_PAGES, 17 * PIECE_PAGES),
		  17 * PIECE_PAGES);
	EXPECT_EQ(pages_in(0, PAGES), 17 * PIECE_PAGES);
	mmnf_field_close(field);
}

/* A hole would be filled with zeroes. */
TEST(pieces_before_a_hole)
{
	struct mmnf_box box = { { 0 }, { 1, PIECE }, { 1, 1 } };
	uint64_t data = 7 * PIECE_PAGES + 100;
	struct mmnf_field *field;

	make_file(data);
	field = open_cold(PIECES, false);
	for (; box.start[0] < 9; box.start[0]++)
		ASSERT_EQ(mmnf_prefetch(field, &box), PIECE);
	EXPECT_EQ(pages_in(0, PAGES), data);
	mmnf_field_close(field);
}

/* What came and is gone again is read again, in the stretch and behind it. */
TEST(pieces_after_evict)
{
	struct mmnf_box all = { { 0 }, { 24, PIECE }, { 1, 1 } };
	struct mmnf_field *field;
	uint64_t i;

	make_file(PAGES);
	field = open_cold(PIECES, false);
	for (i = 0; i < 5; i++)
		prefetch(field, i, 1);
	ASSERT_GE(mmnf_evict(field, &all), 0);
	drop();
	prefetch(field, 5, 1);
	EXPECT_EQ(pages_in(5 * PIECE_PAGES, PIECE_PAGES), PIECE_PAGES);
	prefetch(field, 4, 1);
	EXPECT_EQ(pages_in(4 * PIECE_PAGES, PIECE_PAGES), PIECE_PAGES);
	mmnf_field_close(field);
}

/*
 * A touch of each piece is a walk of pages 4 MiB apart, which must not be read one
 * by one before the kernel comes there: its folios would end at them.
 */
TEST(touches_of_pieces)
{
	uint64_t at[2] = { 0, 0 }, window;
	struct mmnf_field *field;

	make_file(PAGES);
	window = window_pages();
	if (window > 2 * PIECE_PAGES)
		SKIP("the device's readahead is more than two pieces");
	field = open_cold(PIECES, false);
	for (; at[0] < 12; at[0]++) {
		prefetch(field, at[0], 1);
		ASSERT_TRUE(mmnf_activate(field, at));
	}
	EXPECT_EQ(pages_in(15 * PIECE_PAGES, 9 * PIECE_PAGES), 0);
	mmnf_field_close(field);
}

TEST_MAIN
