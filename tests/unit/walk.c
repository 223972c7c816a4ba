// SPDX-License-Identifier: MIT
/*
 * What the library reads ahead of walks that it predicts itself: into the memory
 * where it is looked for, each page once, and nothing that is there already.
 *
 * The expected numbers are those of the file's pages.
 */
#include "field_util.h"

#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 2048
#define PAGE 4096
#define PART 1024
#define ROWS 512
#define ROW (PAGES * PAGE / ROWS)
#define FIELD "walk.bin#raw,dtype=u8,shape=512x16384"
#define NOBODY 65534

/* Set: without io_uring a thread that reads ahead waits before it reads. */
static bool hold;
static bool held; /* one waits */

/* In place of libc's. */
ssize_t preadv2(int fd, const struct iovec *iov, int nr, off_t offset,
		int flags)
{
	while (gettid() != getpid() &&
	       __atomic_load_n(&hold, __ATOMIC_RELAXED)) {
		__atomic_store_n(&held, true, __ATOMIC_RELAXED);
		usleep(1000);
	}
	return syscall(SYS_preadv2, fd, iov, nr, (long)offset, 0L, flags);
}

static int value(uint64_t row)
{
	return (int)(row % 251);
}

/* Data on disk and not in memory. */
static void make_file(void)
{
	static char page[PAGE];
	uint64_t i;
	int fd;

	scratch();
	need_disk();
	ASSERT_EQ(chmod(scratch_path, 0755), 0);
	fd = open("walk.bin", O_WRONLY | O_CREAT | O_EXCL, 0644);
	ASSERT_GE(fd, 0);
	for (i = 0; i < PAGES; i++) {
		memset(page, value(i * PAGE / ROW), sizeof(page));
		ASSERT_EQ(write(fd, page, sizeof(page)), PAGE);
	}
	ASSERT_EQ(fsync(fd), 0);
	ASSERT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	close(fd);
}

static struct mmnf_field *open_engine(uint32_t engine)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	opts.engine = engine;
	opts.l2_bytes = 64 << 20;
	ASSERT_EQ(mmnf_field_open(&field, FIELD, &opts), 0);
	return field;
}

static void touch(struct mmnf_field *field, uint64_t row, uint64_t column)
{
	uint64_t at[2] = { row, column };
	const uint8_t *p = mmnf_activate(field, at);

	ASSERT_TRUE(p);
	ASSERT_EQ(*p, value(row));
}

static void copy(struct mmnf_field *field, uint64_t row, uint64_t column)
{
	struct mmnf_box box = { { row, column }, { 1, PART }, { 1, 1 } };
	static uint8_t data[PART];

	ASSERT_EQ(mmnf_get(field, &box, data, sizeof(data)), PART);
	ASSERT_EQ(data[PART - 1], value(row));
}

typedef void one_fn(struct mmnf_field *field, uint64_t row, uint64_t column);

/*
 * Column by column: a page is passed in four walks, one after the other.  How many
 * pages were read ahead?
 */
static uint64_t walk(struct mmnf_field *field, one_fn *one)
{
	struct mmnf_field_stats stats;
	uint64_t row, column;

	for (column = 0; column < ROW; column += PART)
		for (row = 0; row < ROWS; row++)
			one(field, row, column);
	stats = stats_of(field);
	EXPECT_EQ(stats.accesses, PAGES * PAGE / PART);
	EXPECT_EQ(stats.accesses, stats.hits + stats.late + stats.misses);
	EXPECT_EQ(stats.prefetched_pages,
		  stats.used_pages + stats.wasted_pages + stats.pending_pages);
	EXPECT_GT(stats.prefetched_pages, PAGES / 2);
	EXPECT_LE(stats.misses, PAGES / 4);
	return stats.prefetched_pages;
}

static void walk_engine(uint32_t engine, one_fn *one)
{
	struct mmnf_field *field;

	make_file();
	field = open_engine(engine);
	EXPECT_LE(walk(field, one), 2 * PAGES);
	mmnf_field_close(field);
}

TEST(pointers_by_mmap)
{
	walk_engine(MMNF_ENGINE_MMAP, touch);
}

TEST(pointers_by_direct)
{
	walk_engine(MMNF_ENGINE_DIRECT, touch);
}

/* L2 is for copies: a pointer does not look there. */
TEST(pointers_by_direct_are_read_for)
{
	MMNF_OPTS(mmnf_residency, where);
	struct mmnf_box ahead = { { 0 }, { 1, PAGE }, { 1, 1 } };
	struct mmnf_field *field, *other;
	uint64_t row = 0, tries;

	make_file();
	field = open_engine(MMNF_ENGINE_DIRECT);
	other = open_engine(MMNF_ENGINE_MMAP);
	while (row < ROWS - 1 && !stats_of(field).pending_pages)
		touch(field, row++, 0);
	ASSERT_GT(stats_of(field).pending_pages, 0);
	ahead.start[0] = row;
	for (tries = 0; tries < 1000 && !where.warm_bytes; tries++) {
		ASSERT_EQ(mmnf_residency(other, &ahead, &where), 0);
		usleep(10000);
	}
	EXPECT_EQ(where.warm_bytes, PAGE);
	mmnf_field_close(other);
	mmnf_field_close(field);
}

TEST(copies_by_mmap)
{
	walk_engine(MMNF_ENGINE_MMAP, copy);
}

TEST(copies_by_direct)
{
	walk_engine(MMNF_ENGINE_DIRECT, copy);
}

/*
 * The thread that reads ahead waits with the last row, and what the walk asks for stays
 * on the list: each page once, though it is not in L2 when the next column comes.
 */
TEST(copies_ask_once_for_what_is_late)
{
	struct mmnf_box last = { { ROWS - 1, 0 }, { 1, ROW }, { 1, 1 } };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field_stats stats;
	struct mmnf_field *field;
	uint64_t row, column, tries;

	make_file();
	opts.engine = MMNF_ENGINE_DIRECT;
	opts.uring = MMNF_URING_OFF;
	opts.l2_bytes = 64 << 20;
	ASSERT_EQ(mmnf_field_open(&field, FIELD, &opts), 0);
	__atomic_store_n(&hold, true, __ATOMIC_RELAXED);
	ASSERT_EQ(mmnf_prefetch(field, &last), ROW);
	for (tries = 0;
	     tries < 20000 && !__atomic_load_n(&held, __ATOMIC_RELAXED);
	     tries++)
		usleep(1000);
	ASSERT_TRUE(__atomic_load_n(&held, __ATOMIC_RELAXED));
	for (column = 0; column < ROW; column += PART)
		for (row = 0; row < ROWS - 1; row++)
			copy(field, row, column);
	stats = stats_of(field);
	__atomic_store_n(&hold, false, __ATOMIC_RELAXED);
	EXPECT_GT(stats.prefetched_pages, PAGES / 8);
	EXPECT_LE(stats.prefetched_pages, PAGES);
	mmnf_field_close(field);
}

#define REGION 1792 /* pages */

/* Copies of a byte by chance, all in a small region: are they read in blocks? */
static uint64_t read_ahead_of_region(uint64_t l2_bytes, uint64_t nr)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_box box = { { 0 }, { 1, 1 }, { 1, 1 } };
	uint64_t seed = 20261126, ahead;
	struct mmnf_field *field;
	uint8_t data;

	make_file();
	opts.engine = MMNF_ENGINE_DIRECT;
	opts.l2_bytes = l2_bytes;
	/* A page each row, for a miss brings its row. */
	ASSERT_EQ(mmnf_field_open(&field,
				  "walk.bin#raw,dtype=u8,shape=2048x4096",
				  &opts),
		  0);
	while (nr--) {
		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		box.start[0] = (seed >> 33) % REGION;
		ASSERT_EQ(mmnf_get(field, &box, &data, 1), 1);
		ASSERT_EQ(data, value(box.start[0] * PAGE / ROW));
	}
	ahead = stats_of(field).prefetched_pages;
	mmnf_field_close(field);
	return ahead;
}

TEST(a_region_that_fits_in_l2_is_read_in_blocks)
{
	EXPECT_GT(read_ahead_of_region(64 << 20, 4000), REGION / 2);
}

/* Blocks would push each other out, and be read again and again. */
TEST(a_region_that_does_not_fit_in_l2_is_not)
{
	EXPECT_LT(read_ahead_of_region(4 << 20, 4000), REGION / 2);
}

/* Boxes of many rows, each the neighbour of the one before. */
#define SLAB 64

static void get_slab(struct mmnf_field *field, uint64_t row)
{
	struct mmnf_box box = { { row, 0 }, { SLAB, ROW }, { 1, 1 } };
	static uint8_t data[SLAB][ROW];
	uint64_t i;

	ASSERT_EQ(mmnf_get(field, &box, data, sizeof(data)), sizeof(data));
	for (i = 0; i < SLAB; i++)
		ASSERT_EQ(data[i][ROW - 1], value(row + i));
}

static void walk_slabs(uint32_t engine)
{
	struct mmnf_field_stats stats;
	struct mmnf_field *field;
	uint64_t row, asked;

	make_file();
	field = open_engine(engine);
	get_slab(field, 0);
	/* No more than the rest of a record. */
	EXPECT_LE(stats_of(field).prefetched_pages, ROW / PAGE);
	get_slab(field, SLAB);
	/* Two of them: it is known where this goes, to the end of the field. */
	asked = stats_of(field).prefetched_pages;
	EXPECT_GE(asked, (ROWS - 2 * SLAB) * ROW / PAGE);
	for (row = 2 * SLAB; row < ROWS; row += SLAB)
		get_slab(field, row);
	stats = stats_of(field);
	EXPECT_EQ(stats.prefetched_pages,
		  stats.used_pages + stats.wasted_pages + stats.pending_pages);
	EXPECT_EQ(stats.pending_pages, 0);
	EXPECT_GE(stats.used_pages, (ROWS - 2 * SLAB) * ROW / PAGE);
	/* What is here is not asked for again. */
	asked = stats.prefetched_pages;
	for (row = 0; row < ROWS; row += SLAB)
		get_slab(field, row);
	EXPECT_EQ(stats_of(field).prefetched_pages, asked);
	mmnf_field_close(field);
}

TEST(boxes_by_mmap)
{
	walk_slabs(MMNF_ENGINE_MMAP);
}

TEST(boxes_by_direct)
{
	walk_slabs(MMNF_ENGINE_DIRECT);
}

/* To whoever neither owns a file nor may write it mincore() says it is all here. */
static void walk_as_nobody(void)
{
	MMNF_OPTS(mmnf_residency, where);
	struct mmnf_box all = { { 0 }, { ROWS, ROW }, { 1, 1 } };
	struct mmnf_field *field = open_engine(MMNF_ENGINE_MMAP);

	EXPECT_EQ(mmnf_residency(field, &all, &where), 0);
	EXPECT_EQ(where.cold_bytes, PAGES * PAGE);
	walk(field, touch);
	EXPECT_EQ(mmnf_residency(field, &all, &where), 0);
	EXPECT_EQ(where.hot_bytes, PAGES * PAGE);
	mmnf_field_close(field);
}

TEST(pointers_of_others)
{
	pid_t child;
	int status;

	if (geteuid())
		SKIP("needs root, to become somebody else");
	make_file();
	child = fork();
	ASSERT_GE(child, 0);
	if (!child) {
		/* Who has changed its user has to ask for its own /proc. */
		if (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY) ||
		    prctl(PR_SET_DUMPABLE, 1))
			_exit(1);
		walk_as_nobody();
		_exit(0);
	}
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
}

/* Nothing can be written there, but root owns all: mincore() tells it the truth. */
TEST(pages_of_others_where_nothing_can_be_written)
{
	MMNF_OPTS(mmnf_residency, where);
	struct mmnf_box all = { { 0 }, { ROWS, ROW }, { 1, 1 } };
	struct mmnf_field *field;

	if (geteuid())
		SKIP("needs root, to mount");
	make_file();
	ASSERT_EQ(chown("walk.bin", 1, 1), 0);
	if (unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		SKIP("mounts can't be unshared here");
	ASSERT_EQ(mount("walk.bin", "walk.bin", NULL, MS_BIND, NULL), 0);
	ASSERT_EQ(mount(NULL, "walk.bin", NULL,
			MS_BIND | MS_REMOUNT | MS_RDONLY, NULL),
		  0);
	field = open_engine(MMNF_ENGINE_MMAP);
	copy(field, 0, 0);
	EXPECT_EQ(mmnf_residency(field, &all, &where), 0);
	EXPECT_GE(where.warm_bytes, PAGE);
	EXPECT_GT(mmnf_evict(field, &all), 0);
	mmnf_field_close(field);
	EXPECT_EQ(umount("walk.bin"), 0);
}

/*
 * A shard as others may write it: tile t, a page, is not where its number says but
 * at page PAGES - 1 - t.  What is read ahead are the pages of the tiles that come.
 */
#define SHARD                                                               \
	"{\"zarr_format\":3,\"node_type\":\"array\",\"shape\":[2048,4096]," \
	"\"data_type\":\"uint8\",\"fill_value\":0,\"chunk_grid\":"          \
	"{\"name\":\"regular\",\"configuration\":"                          \
	"{\"chunk_shape\":[2048,4096]}},\"chunk_key_encoding\":"            \
	"{\"name\":\"default\",\"configuration\":{\"separator\":\"/\"}},"   \
	"\"codecs\":[{\"name\":\"sharding_indexed\",\"configuration\":"     \
	"{\"chunk_shape\":[1,4096],"                                        \
	"\"codecs\":[{\"name\":\"bytes\"}],\"index_location\":\"end\","     \
	"\"index_codecs\":[{\"name\":\"bytes\",\"configuration\":"          \
	"{\"endian\":\"little\"}}]}}]}"

static void make_shard(void)
{
	static uint8_t data[PAGES][PAGE];
	uint64_t index[PAGES][2], t;
	int fd;

	scratch();
	need_disk();
	for (t = 0; t < PAGES; t++) {
		index[t][0] = (PAGES - 1 - t) * PAGE;
		index[t][1] = PAGE;
		memset(data[PAGES - 1 - t], value(t), PAGE);
	}
	ASSERT_EQ(mkdir("shard", 0777), 0);
	ASSERT_EQ(mkdir("shard/c", 0777), 0);
	ASSERT_EQ(mkdir("shard/c/0", 0777), 0);
	put_file("shard/zarr.json", SHARD, strlen(SHARD));
	fd = open("shard/c/0/0", O_RDWR | O_CREAT | O_EXCL, 0666);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(write(fd, data, sizeof(data)), sizeof(data));
	ASSERT_EQ(write(fd, index, sizeof(index)), sizeof(index));
	ASSERT_EQ(fsync(fd), 0);
	ASSERT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	close(fd);
}

/* A page of what comes is asked for, at most a second. */
static void wait_for(struct mmnf_field *field, uint64_t row)
{
	struct mmnf_box box = { { row, 0 }, { 1, PAGE }, { 1, 1 } };
	MMNF_OPTS(mmnf_residency, where);
	uint64_t tries;

	for (tries = 0; tries < 1000; tries++) {
		ASSERT_EQ(mmnf_residency(field, &box, &where), 0);
		if (!where.cold_bytes)
			break;
		usleep(1000);
	}
}

static void walk_shard(uint32_t engine, one_fn *one)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field_stats stats;
	struct mmnf_field *field;
	uint64_t row;

	make_shard();
	opts.engine = engine;
	ASSERT_EQ(mmnf_field_open(&field, "shard", &opts), 0);
	for (row = 0; row < PAGES / 2; row += 3) {
		/* Nobody is late for these. */
		if (row / 3 >= 128 && row / 3 < 160)
			wait_for(field, row);
		one(field, row, 0);
	}
	stats = stats_of(field);
	EXPECT_EQ(stats.wasted_pages, 0);
	EXPECT_GE(stats.used_pages, PAGES / 2 / 3 - 8);
	EXPECT_LE(stats.misses, 8);
	/* Late are those that were still on their way, and all that went elsewhere. */
	EXPECT_GE(stats.hits, 32);
	mmnf_field_close(field);
}

TEST(pointers_into_a_shard_of_others)
{
	walk_shard(MMNF_ENGINE_MMAP, touch);
}

TEST(copies_from_a_shard_of_others)
{
	walk_shard(MMNF_ENGINE_DIRECT, copy);
}

/* ---- beyond the end that there was when the handle was opened */

static struct mmnf_field *make_small(void)
{
	static const uint64_t shape[2] = { 64, PAGE };

	scratch();
	need_disk();
	return make_field("f", MMNF_U8, 2, shape, 64 * PAGE, NULL);
}

/* To 1024 rows of a page, of which none is in memory. */
static void grow(struct mmnf_field *field)
{
	struct mmnf_box all = { .count = { 1024, PAGE } };
	struct mmnf_box one = { .count = { 1, PAGE } };
	static unsigned char page[PAGE];

	ASSERT_EQ(mmnf_field_resize(field, 1024), 0);
	memset(page, 7, sizeof(page));
	for (one.start[0] = 0; one.start[0] < 1024; one.start[0]++)
		ASSERT_EQ(mmnf_write(field, &one, page, PAGE), PAGE);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	ASSERT_GE(mmnf_evict(field, &all), 1024 * PAGE / 2);
}

/* 180 rows, behind the end that was; how many could not be read. */
static uint64_t walk_grown(struct mmnf_field *field)
{
	struct mmnf_box one = { .start = { 128 }, .count = { 1, PAGE } };
	unsigned char page[PAGE];
	uint64_t wrong = 0;

	for (; one.start[0] < 1024; one.start[0] += 5)
		wrong += mmnf_get(field, &one, page, PAGE) != PAGE;
	return wrong;
}

static void expect_foreseen(struct mmnf_field *field,
			    const struct mmnf_field_stats *before)
{
	struct mmnf_field_stats after = stats_of(field);

	EXPECT_EQ(after.accesses - before->accesses, 180);
	EXPECT_LE(after.misses - before->misses, 10);
}

TEST(a_walk_through_what_has_grown)
{
	struct mmnf_field *field = make_small();
	struct mmnf_field_stats before;

	grow(field);
	before = stats_of(field);
	EXPECT_EQ(walk_grown(field), 0);
	expect_foreseen(field, &before);
	mmnf_field_close(field);
}

static struct mmnf_field *grown;
static pthread_barrier_t turn;

static void *walk_when_grown(void *arg)
{
	struct mmnf_box one = { .count = { 1, PAGE } };
	unsigned char page[PAGE];
	uint64_t wrong = mmnf_get(grown, &one, page, PAGE) != PAGE;

	(void)arg;
	pthread_barrier_wait(&turn);
	pthread_barrier_wait(&turn);
	return (void *)(uintptr_t)(wrong + walk_grown(grown));
}

/* The same by a thread that had walked before. */
TEST(a_thread_walks_through_what_has_grown)
{
	struct mmnf_box one = { .count = { 1, PAGE } };
	static unsigned char page[PAGE];
	struct mmnf_field_stats before;
	pthread_t thread;
	void *wrong;

	grown = make_small();
	ASSERT_EQ(mmnf_write(grown, &one, page, PAGE), PAGE);
	ASSERT_EQ(mmnf_get(grown, &one, page, PAGE), PAGE);
	pthread_barrier_init(&turn, NULL, 2);
	ASSERT_EQ(pthread_create(&thread, NULL, walk_when_grown, NULL), 0);
	pthread_barrier_wait(&turn);
	grow(grown);
	before = stats_of(grown);
	pthread_barrier_wait(&turn);
	ASSERT_EQ(pthread_join(thread, &wrong), 0);
	EXPECT_TRUE(!wrong);
	expect_foreseen(grown, &before);
	pthread_barrier_destroy(&turn);
	mmnf_field_close(grown);
}

TEST_MAIN
