// SPDX-License-Identifier: MIT
/*
 * Storage and memory under a field: files that are cut, full disks, windows
 * that come and go, and what of a box is in memory.
 */
#include "field_util.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <sys/vfs.h>
#include <time.h>

#define PAGE 4096ULL
#define NR_PAGES 64ULL

/* 64 pages a segment, one row of 1024 elements a page. */
static const uint64_t shape[2] = { 640, 1024 };

static uint32_t value(uint64_t row, uint64_t column)
{
	return (uint32_t)(row * 1000003 + column * 17 + 1);
}

static struct mmnf_box rows(uint64_t first, uint64_t nr)
{
	struct mmnf_box box = { { first, 0 }, { nr, 1024 }, { 1, 1 } };

	return box;
}

static ssize_t write_row(struct mmnf_field *field, uint64_t row)
{
	struct mmnf_box box = rows(row, 1);
	uint32_t line[1024];
	uint64_t i;

	for (i = 0; i < 1024; i++)
		line[i] = value(row, i);
	return mmnf_write(field, &box, line, sizeof(line));
}

static bool row_is_right(const uint32_t *line, uint64_t row)
{
	uint64_t i;

	for (i = 0; i < 1024; i++)
		if (line[i] != value(row, i))
			return false;
	return true;
}

static struct mmnf_field *make_rows(const void *fill)
{
	return make_field("f", MMNF_U32, 2, shape, NR_PAGES * PAGE, fill);
}

static struct mmnf_field *make_written(uint64_t nr)
{
	struct mmnf_field *field = make_rows(NULL);
	uint64_t row;

	for (row = 0; row < nr; row++)
		ASSERT_EQ(write_row(field, row), PAGE);
	return field;
}

/* ---- files that are not as they should be */

static void check_refused(struct mmnf_field *field, const char *word)
{
	struct mmnf_box last = rows(63, 1);
	uint64_t row = 0, at[2] = { 0, 0 };
	static uint32_t line[1024];

	EXPECT_FAILS(mmnf_get(field, &last, line, sizeof(line)), EIO,
		     "mmnf_get", word);
	EXPECT_FAILS(mmnf_batch_get(field, &row, 1, line, sizeof(line)), EIO,
		     "mmnf_batch_get", word);
	EXPECT_TRUE(!mmnf_activate(field, at));
	EXPECT_TRUE(strstr(mmnf_last_error(), word));
	/* The other segments are as they were. */
	last = rows(64, 1);
	ASSERT_EQ(mmnf_get(field, &last, line, sizeof(line)), PAGE);
	EXPECT_TRUE(row_is_right(line, 64));
}

TEST(segment_of_another_length)
{
	static const off_t lengths[] = { 0, 1, 63 * 4096, 64 * 4096 - 1,
					 64 * 4096 + 1 };
	struct mmnf_field *field;
	size_t i;

	scratch();
	mmnf_field_close(make_written(65));
	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		ASSERT_EQ(truncate("f/c/0/0", lengths[i]), 0);
		field = open_field("f", true);
		check_refused(field, "c/0/0 is");
		EXPECT_FAILS(write_row(field, 0), EIO, "mmnf_write",
			     "c/0/0 is");
		mmnf_field_close(field);
	}
}

/* It was whole when it was opened: an error, not a signal. */
TEST(segment_cut_under_an_open_field)
{
	static uint32_t line[3 * 1024];
	struct mmnf_box box = rows(63, 1);
	uint64_t list[3] = { 62, 64, 63 };
	struct mmnf_field *field;

	scratch();
	field = make_written(65);
	ASSERT_EQ(mmnf_get(field, &box, line, sizeof(line)), PAGE);
	ASSERT_EQ(truncate("f/c/0/0", 63 * 4096 + 100), 0);
	EXPECT_FAILS(mmnf_get(field, &box, line, sizeof(line)), EIO, "mmnf_get",
		     "c/0/0 is 258148 bytes: expected 262144");
	EXPECT_FAILS(mmnf_batch_get(field, list, 3, line, sizeof(line)), EIO,
		     "mmnf_batch_get", "c/0/0");
	box = rows(62, 1);
	ASSERT_EQ(mmnf_get(field, &box, line, sizeof(line)), PAGE);
	EXPECT_TRUE(row_is_right(line, 62));
	mmnf_field_close(field);
}

TEST(segment_that_is_no_file)
{
	struct mmnf_field *field;

	scratch();
	mmnf_field_close(make_written(65));
	ASSERT_EQ(unlink("f/c/0/0"), 0);
	ASSERT_EQ(mkfifo("f/c/0/0", 0666), 0);
	field = open_field("f", false);
	check_refused(field, "c/0/0: expected a regular file");
	mmnf_field_close(field);
}

/* ---- a full disk */

static void small_disk(const char *options)
{
	scratch();
	if (unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mkdir("disk", 0777) || mount("tmpfs", "disk", "tmpfs", 0, options))
		SKIP("no mount: %s", strerror(errno));
	ASSERT_EQ(chdir("disk"), 0);
}

static int nr_entries(const char *path)
{
	struct dirent *e;
	DIR *dir = opendir(path);
	int nr = 0;

	ASSERT_TRUE(dir);
	while ((e = readdir(dir)))
		nr += e->d_name[0] != '.';
	closedir(dir);
	return nr;
}

TEST(disk_that_fills_up)
{
	static uint32_t line[1024];
	struct mmnf_field *field;
	uint64_t row, nr;
	ssize_t n = 0;

	small_disk("size=1m");
	field = make_rows(NULL);
	for (nr = 0; nr < 640; nr++) {
		n = write_row(field, nr);
		if (n != (ssize_t)PAGE)
			break;
	}
	/* A mebibyte, less the manifest and the folders. */
	EXPECT_GT(nr, 200);
	EXPECT_LT(nr, 257);
	EXPECT_EQ(n, -ENOSPC);
	EXPECT_EQ(strncmp(mmnf_last_error(), "mmnf_write: ", 12), 0);
	for (row = 0; row < nr; row++) {
		struct mmnf_box box = rows(row, 1);
		uint64_t at[2] = { row, 0 };
		const uint32_t *p = mmnf_activate(field, at);

		ASSERT_EQ(mmnf_get(field, &box, line, sizeof(line)), PAGE);
		ASSERT_TRUE(row_is_right(line, row));
		ASSERT_TRUE(p && row_is_right(p, row));
	}
	mmnf_field_close(field);
}

TEST(filled_segment_that_does_not_fit)
{
	const uint32_t fill = 7;
	static uint32_t line[1024];
	struct mmnf_box box = rows(256, 1);
	struct mmnf_field *field;
	uint64_t i;

	small_disk("size=900k");
	field = make_rows(&fill);
	for (i = 0; i < 3; i++)
		ASSERT_EQ(write_row(field, i * 64), PAGE);
	EXPECT_FAILS(write_row(field, 256), ENOSPC, "mmnf_write", "c/4/0");
	/* Nothing of it is left: it still reads as fill. */
	ASSERT_EQ(mmnf_get(field, &box, line, sizeof(line)), PAGE);
	EXPECT_EQ(line[0], 7);
	EXPECT_EQ(line[1023], 7);
	EXPECT_EQ(access("f/c/4", F_OK) ? 0 : nr_entries("f/c/4"), 0);
	box = rows(128, 1);
	ASSERT_EQ(mmnf_get(field, &box, line, sizeof(line)), PAGE);
	EXPECT_TRUE(row_is_right(line, 128));
	mmnf_field_close(field);
}

static unsigned int nr_files(const char *folder)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	unsigned int nr = 0;

	ASSERT_TRUE(dir);
	while ((entry = readdir(dir)))
		nr += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
	closedir(dir);
	return nr;
}

static void be_killed(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
	(void)arg;
	(void)done_bytes;
	(void)total_bytes;
	kill(getpid(), SIGKILL);
}

/* Names that a process of the same number gave, which died before it was done. */
TEST(nothing_that_was_left_is_in_the_way)
{
	const uint32_t fill = 7;
	struct mmnf_field *field;
	char name[64];
	int i, status;
	pid_t child;

	scratch();
	field = make_field("f", MMNF_U32, 2, shape, 0, &fill);
	ASSERT_EQ(mkdir("f/c", 0777), 0);
	ASSERT_EQ(mkdir("f/c/0", 0777), 0);
	for (i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "f/c/0/0.%d.%d.new", getpid(), i);
		put_file(name, "", 0);
	}
	snprintf(name, sizeof(name), ".x.raw.%d.new", getpid());
	put_file(name, "", 0);
	EXPECT_EQ(write_row(field, 3), 4096);
	EXPECT_GT(mmnf_export(field, NULL, "x.raw", NULL, NULL, NULL), 0);
	mmnf_field_close(field);

	/* And where files need no name, nothing is left. */
	i = open(".", O_RDWR | O_TMPFILE, 0600);
	if (i < 0)
		return;
	close(i);
	ASSERT_EQ(mkdir("out", 0777), 0);
	child = fork();
	if (!child) {
		field = open_field("f", false);
		mmnf_export(field, NULL, "out/x.raw", NULL, be_killed, NULL);
		_exit(0);
	}
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_EQ(nr_files("out"), 0);
}

TEST(only_a_regular_file_is_replaced)
{
	struct mmnf_field *field;
	struct stat st;

	scratch();
	field = make_field("f", MMNF_U32, 2, shape, 0, NULL);
	put_file("old", "x", 1);
	ASSERT_EQ(symlink("old", "link.raw"), 0);
	ASSERT_EQ(mkfifo("pipe.raw", 0600), 0);
	EXPECT_FAILS(mmnf_export(field, NULL, "link.raw", NULL, NULL, NULL),
		     EINVAL, "mmnf_export", "expected a regular file");
	EXPECT_FAILS(mmnf_export(field, NULL, "pipe.raw", NULL, NULL, NULL),
		     EINVAL, "mmnf_export", "expected a regular file");
	EXPECT_FAILS(mmnf_export(field, NULL, "f", "raw", NULL, NULL), EINVAL,
		     "mmnf_export", "expected a regular file");
	EXPECT_TRUE(!lstat("link.raw", &st) && S_ISLNK(st.st_mode));
	EXPECT_TRUE(!lstat("pipe.raw", &st) && S_ISFIFO(st.st_mode));
	EXPECT_GT(mmnf_export(field, NULL, "old", "raw", NULL, NULL), 0);
	EXPECT_TRUE(!lstat("old", &st) && st.st_size == 640 * 4096);
	mmnf_field_close(field);
}

TEST(field_that_does_not_fit)
{
	static char block[4096];
	int fd;

	small_disk("size=64k");
	fd = open("ballast", O_WRONLY | O_CREAT, 0666);
	ASSERT_GE(fd, 0);
	while (write(fd, block, sizeof(block)) > 0)
		;
	ASSERT_EQ(errno, ENOSPC);
	close(fd);
	EXPECT_FAILS(mmnf_field_create("f", MMNF_U32, 2, shape, NULL), ENOSPC,
		     "mmnf_field_create", "f");
	EXPECT_EQ(access("f", F_OK), -1);
}

/* ---- windows */

static void walk_windows(bool predict)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	const uint32_t *before = NULL;
	struct mmnf_field_stats stats;
	struct mmnf_field *field;
	uint64_t last = 0;
	int i;

	opts.engine = MMNF_ENGINE_MMAP;
	opts.max_windows = 2;
	opts.prefetch_off = !predict;
	ASSERT_EQ(mmnf_field_open(&field, "f", &opts), 0);
	seed = 5;
	for (i = 0; i < 2000; i++) {
		uint64_t row = i < 20 ? (uint64_t)i * 32 : rnd() % 640;
		uint64_t at[2] = { row, 0 };
		const uint32_t *p = mmnf_activate(field, at);

		ASSERT_TRUE(p);
		ASSERT_TRUE(row_is_right(p, row));
		/* One other segment since: two are promised. */
		ASSERT_TRUE(!before || row_is_right(before, last));
		before = p;
		last = row;
		stats = stats_of(field);
		ASSERT_LE(stats.windows_mapped - stats.windows_unmapped, 4);
	}
	EXPECT_GT(stats.windows_unmapped, 100);
	mmnf_field_close(field);
}

TEST(two_windows_for_ten_segments)
{
	scratch();
	mmnf_field_close(make_written(640));
	walk_windows(false);
	walk_windows(true);
}

/* ---- what is in memory */

static struct mmnf_residency where(struct mmnf_field *field,
				   const struct mmnf_box *box)
{
	MMNF_OPTS(mmnf_residency, r);

	ASSERT_EQ(mmnf_residency(field, box, &r), 0);
	return r;
}

#define EXPECT_WHERE(box, hot, warm, cold)                    \
	do {                                                  \
		struct mmnf_residency at = where(field, box); \
                                                              \
		EXPECT_EQ(at.hot_bytes, hot);                 \
		EXPECT_EQ(at.warm_bytes, warm);               \
		EXPECT_EQ(at.cold_bytes, cold);               \
	} while (0)

TEST(hot_warm_and_cold)
{
	struct mmnf_box all = rows(0, 128), half = rows(0, 32);
	struct mmnf_box odd = { { 3, 5 }, { 1, 100 }, { 1, 1 } };
	struct mmnf_box far = rows(600, 40);
	struct mmnf_field *field;
	uint64_t row;

	scratch();
	need_disk();
	field = make_written(128);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	EXPECT_WHERE(&all, 0, 128 * PAGE, 0);
	EXPECT_WHERE(&far, 0, 0, 40 * PAGE);
	EXPECT_EQ(mmnf_evict(field, &all), 128 * PAGE);
	EXPECT_WHERE(&all, 0, 0, 128 * PAGE);
	EXPECT_EQ(mmnf_evict(field, &all), 0);
	EXPECT_EQ(mmnf_prefetch(field, &far), 0);

	/* By whole pages, at once, without waiting: so wait here. */
	EXPECT_EQ(mmnf_prefetch(field, &half), 32 * PAGE);
	for (row = 0; row < 500 && where(field, &half).warm_bytes < 32 * PAGE;
	     row++)
		nanosleep(&(struct timespec) { 0, 10000000 }, NULL);
	EXPECT_WHERE(&half, 0, 32 * PAGE, 0);
	EXPECT_EQ(mmnf_prefetch(field, &odd), PAGE);
	EXPECT_WHERE(&odd, 0, 400, 0);

	for (row = 0; row < 128; row++) {
		uint64_t at[2] = { row, 0 };
		const uint32_t *p = mmnf_activate(field, at);

		ASSERT_TRUE(p && row_is_right(p, row));
	}
	EXPECT_WHERE(&all, 128 * PAGE, 0, 0);
	EXPECT_WHERE(&odd, 400, 0, 0);
	EXPECT_EQ(mmnf_evict(field, &half), 32 * PAGE);
	EXPECT_WHERE(&half, 0, 0, 32 * PAGE);
	EXPECT_WHERE(&all, 96 * PAGE, 0, 32 * PAGE);
	mmnf_field_close(field);
}

/* A walk over a sparse segment must not fill memory with its holes. */
TEST(holes_are_not_read_ahead)
{
	static uint32_t line[1024];
	struct mmnf_box all = rows(0, 64), box;
	struct mmnf_field *field;
	uint64_t row;

	scratch();
	need_disk();
	field = make_rows(NULL);
	for (row = 0; row < 64; row += 32)
		ASSERT_EQ(write_row(field, row), PAGE);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	ASSERT_EQ(mmnf_evict(field, &all), 2 * PAGE);
	ASSERT_GE(mmnf_prefetch(field, &all), 0);
	for (row = 0; row < 500 && where(field, &all).warm_bytes < 2 * PAGE;
	     row++)
		nanosleep(&(struct timespec) { 0, 10000000 }, NULL);
	EXPECT_WHERE(&all, 0, 2 * PAGE, 62 * PAGE);
	ASSERT_EQ(mmnf_evict(field, &all), 2 * PAGE);
	for (row = 0; row < 16; row++) {
		box = rows(row, 1);
		ASSERT_EQ(mmnf_get(field, &box, line, sizeof(line)), PAGE);
	}
	/* 0 .. 15 were asked for; of the rest, 32 alone has data. */
	EXPECT_LE(where(field, &all).warm_bytes, 17 * PAGE);
	EXPECT_LE(stats_of(field).prefetched_pages, 2);
	mmnf_field_close(field);
}

TEST(counters_add_up)
{
	static uint32_t line[1024];
	struct mmnf_field *field;
	struct mmnf_field_stats s;
	struct mmnf_box all = rows(0, 640);
	uint64_t row;

	scratch();
	need_disk();
	field = make_written(640);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	ASSERT_EQ(mmnf_evict(field, &all), 640 * PAGE);
	for (row = 0; row < 640; row += 2) {
		struct mmnf_box box = rows(row, 1);

		ASSERT_EQ(mmnf_get(field, &box, line, sizeof(line)), PAGE);
		ASSERT_TRUE(row_is_right(line, row));
	}
	s = stats_of(field);
	EXPECT_EQ(s.gets, 320);
	EXPECT_EQ(s.get_bytes, 320 * PAGE);
	EXPECT_EQ(s.accesses, 320);
	EXPECT_EQ(s.accesses, s.hits + s.late + s.misses);
	EXPECT_GT(s.prefetched_pages, 0);
	EXPECT_EQ(s.prefetched_pages,
		  s.used_pages + s.wasted_pages + s.pending_pages);
	mmnf_field_close(field);
}

/* As an NFS server has for what its client writes; gives it back when asked. */
static void hold_lease(const char *path, int told)
{
	int fd = open(path, O_RDWR), got;
	sigset_t asked;

	sigemptyset(&asked);
	sigaddset(&asked, SIGIO);
	sigprocmask(SIG_BLOCK, &asked, NULL);
	if (fd < 0 || fcntl(fd, F_SETLEASE, F_WRLCK) ||
	    write(told, "y", 1) != 1)
		_exit(1);
	sigwait(&asked, &got);
	usleep(100000);
	_exit(fcntl(fd, F_SETLEASE, F_UNLCK) != 0);
}

TEST(waits_for_a_lease)
{
	static uint32_t line[1024];
	struct mmnf_field *field;
	struct mmnf_box box = rows(3, 1);
	int pipes[2], status;
	char ready = 0;
	pid_t pid;

	scratch();
	field = make_written(NR_PAGES);
	mmnf_field_close(field);
	ASSERT_EQ(pipe(pipes), 0);
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid)
		hold_lease("f/c/0/0", pipes[1]);
	close(pipes[1]);
	if (read(pipes[0], &ready, 1) != 1) {
		waitpid(pid, NULL, 0);
		SKIP("no leases on this file system");
	}
	field = open_field("f", false);
	ASSERT_EQ(mmnf_get(field, &box, line, sizeof(line)), PAGE);
	EXPECT_TRUE(row_is_right(line, 3));
	mmnf_field_close(field);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
	close(pipes[0]);
}

TEST_MAIN
