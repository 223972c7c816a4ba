/* SPDX-License-Identifier: MIT */
/*
 * Storage that fails to make data durable, or takes its time, and fields on it.
 *
 * pread(), pwrite(), fdatasync(), fsync() and linkat() of the library are taken here first.
 */
#include "field_util.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>

#define COLUMNS 1024ULL
#define SEGMENT_ROWS 8ULL
#define SEGMENT_ELEMENTS (SEGMENT_ROWS * COLUMNS)
#define NR_SEGMENTS 80ULL /* more than are kept open */
#define TILE_BYTES (4 * 512 * 4)

static const uint64_t shape[2] = { SEGMENT_ROWS * NR_SEGMENTS, COLUMNS };
static const uint64_t tile[2] = { 4, 512 };
static __thread uint32_t data[SEGMENT_ELEMENTS];

/* ---- calls taken */

enum { SEGMENT, CHECKS, UNNAMED, NR_FILES };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of tick and seen */
static uint64_t tick;
static struct {
	uint64_t first_write, last_write, last_sync;
	uint32_t nr_writes, nr_syncs;
} seen[NR_FILES];
static bool watch_order, wrong_order;
static uint32_t nr_named, nr_named_too_early;
static __thread int nr_to_fail; /* so many fdatasync() of this thread */
static __thread int nr_folders_to_fail; /* so many fsync() of it */
static int error_to_fail = EIO;
static int kind_to_fail = SEGMENT; /* or, of files with a name, any */
static void (*while_syncing)(void); /* called in the next one */
static void (*before_reading)(void); /* called before the next tile is read */

/* A segment that is being made has no name, or one that is not its own. */
static bool is_unnamed(int fd, const struct stat *st)
{
	char link[32], path[4096] = "";

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return !st->st_nlink || (readlink(link, path, sizeof(path) - 1) > 0 &&
				 strstr(path, "/.mmnf-"));
}

static int kind_of(int fd)
{
	struct stat st, checks;

	if (fstat(fd, &st))
		return SEGMENT;
	if (is_unnamed(fd, &st))
		return UNNAMED;
	return !stat("f/tiles.crc32c", &checks) && st.st_ino == checks.st_ino ?
		       CHECKS :
		       SEGMENT;
}

/*
 * Of tiles that the index names: a checksum is durably gone before its tile is written,
 * and the tile is durable before there is one again.
 */
static void look_at_order(int kind, const void *from, size_t bytes)
{
	const int other = kind == CHECKS ? SEGMENT : CHECKS;
	uint32_t crc = 1;

	if (kind == CHECKS && bytes == sizeof(crc))
		memcpy(&crc, from, sizeof(crc));
	if (crc && seen[other].last_sync < seen[other].last_write)
		wrong_order = true;
}

ssize_t pread(int fd, void *to, size_t bytes, off_t offset)
{
	void (*call)(void) = NULL;

	if (bytes == TILE_BYTES)
		call = __atomic_exchange_n(&before_reading, NULL,
					   __ATOMIC_SEQ_CST);
	if (call)
		call();
	return syscall(SYS_pread64, fd, to, bytes, offset);
}

ssize_t pwrite(int fd, const void *from, size_t bytes, off_t offset)
{
	int kind = kind_of(fd);

	pthread_mutex_lock(&lock);
	if (watch_order && kind != UNNAMED)
		look_at_order(kind, from, bytes);
	seen[kind].last_write = ++tick;
	if (!seen[kind].first_write)
		seen[kind].first_write = tick;
	seen[kind].nr_writes++;
	pthread_mutex_unlock(&lock);
	return syscall(SYS_pwrite64, fd, from, bytes, offset);
}

int fdatasync(int fd)
{
	int kind = kind_of(fd);
	bool is_meant = (kind == UNNAMED) == (kind_to_fail == UNNAMED);
	void (*call)(void) = NULL;

	if (is_meant)
		call = __atomic_exchange_n(&while_syncing, NULL,
					   __ATOMIC_SEQ_CST);
	if (call)
		call();
	if (is_meant && nr_to_fail) {
		nr_to_fail--;
		errno = error_to_fail;
		return -1;
	}
	pthread_mutex_lock(&lock);
	seen[kind].last_sync = ++tick;
	seen[kind].nr_syncs++;
	pthread_mutex_unlock(&lock);
	return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	if (nr_folders_to_fail) {
		nr_folders_to_fail--;
		errno = error_to_fail;
		return -1;
	}
	return (int)syscall(SYS_fsync, fd);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to,
	   int flags)
{
	pthread_mutex_lock(&lock);
	nr_named++;
	if (seen[UNNAMED].last_sync < seen[UNNAMED].last_write)
		nr_named_too_early++;
	pthread_mutex_unlock(&lock);
	return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
}

static KTAP_UNUSED void see_nothing(void)
{
	memset(seen, 0, sizeof(seen));
	tick = 0;
}

/* ---- fields */

static KTAP_UNUSED struct mmnf_field *make(bool tiled, bool checks)
{
	MMNF_OPTS(mmnf_create_opts, opts);

	scratch();
	opts.tile = tiled ? tile : NULL;
	opts.segment_bytes = SEGMENT_ELEMENTS * 4;
	opts.checksums = checks;
	ASSERT_EQ(mmnf_field_create("f", MMNF_U32, 2, shape, &opts), 0);
	return open_field("f", true);
}

static struct mmnf_box segment(uint64_t nr)
{
	struct mmnf_box box = { { nr * SEGMENT_ROWS, 0 },
				{ SEGMENT_ROWS, COLUMNS },
				{ 0 } };

	return box;
}

static KTAP_UNUSED int put(struct mmnf_field *field, uint64_t nr,
			   uint32_t value)
{
	struct mmnf_box box = segment(nr);
	ssize_t n;
	uint64_t i;

	for (i = 0; i < SEGMENT_ELEMENTS; i++)
		data[i] = value;
	n = mmnf_write(field, &box, data, sizeof(data));
	return n == sizeof(data) ? 0 : (int)n;
}

/* What all elements of a segment are; UINT32_MAX: they differ, or can't be read. */
static KTAP_UNUSED uint32_t get(struct mmnf_field *field, uint64_t nr)
{
	static __thread uint32_t got[SEGMENT_ELEMENTS];
	struct mmnf_box box = segment(nr);
	uint64_t i;

	if (mmnf_get(field, &box, got, sizeof(got)) != sizeof(got))
		return UINT32_MAX;
	for (i = 1; i < SEGMENT_ELEMENTS; i++)
		if (got[i] != got[0])
			return UINT32_MAX;
	return got[0];
}

static KTAP_UNUSED uint32_t get_anew(uint64_t nr)
{
	struct mmnf_field *field = open_field("f", false);
	uint32_t value = get(field, nr);

	mmnf_field_close(field);
	return value;
}

static KTAP_UNUSED void expect_clean(uint64_t nr_checked)
{
	MMNF_OPTS(mmnf_verify_result, result);
	struct mmnf_field *field = open_field("f", false);

	ASSERT_EQ(mmnf_field_verify(field, NULL, &result), 0);
	EXPECT_EQ(result.nr_bad, 0);
	EXPECT_EQ(result.nr_checked, nr_checked);
	mmnf_field_close(field);
}
