// SPDX-License-Identifier: MIT
/*
 * What mmnf_field_sync() promises: when it returns 0, what was written before it is
 * durable and seen by others, whatever other threads do with the handle meanwhile.
 * And that what others do between two steps of a write, a sync or a repair does no
 * harm, nor storage that fails in between.
 *
 * Calls that the library makes are taken here first, and others put in there.
 */
#include "field_util.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>

#define COLUMNS 1024ULL
#define SEGMENT_ROWS 8ULL
#define NR_SEGMENTS 80ULL /* more than are kept open */

static const uint64_t shape[2] = { SEGMENT_ROWS * NR_SEGMENTS, COLUMNS };
static const uint64_t tile[2] = { 4, 512 };
static const uint32_t fill = 7;
static uint32_t data[SEGMENT_ROWS * COLUMNS];

/* ---- calls taken */

static struct mmnf_field
	*syncs; /* synced when the next step of a write is done */
static int sync_result = 1;
static uint64_t tick, last_write, last_sync;

static void other_sync(void)
{
	struct mmnf_field *field = syncs;

	syncs = NULL;
	if (field)
		sync_result = mmnf_field_sync(field);
}

/* Called before the next pwrite(). */
static void (*in_between)(void);
/* Bytes that still fit on the disk, if it is full then. */
static size_t room = SIZE_MAX;

ssize_t pwrite(int fd, const void *from, size_t bytes, off_t offset)
{
	void (*call)(void) = in_between;
	ssize_t n;

	in_between = NULL;
	if (call)
		call();
	if (!room) {
		errno = ENOSPC;
		return -1;
	}
	if (bytes > room)
		bytes = room;
	if (room != SIZE_MAX)
		room -= bytes;
	n = syscall(SYS_pwrite64, fd, from, bytes, offset);
	last_write = ++tick;
	return n;
}

/* Of the file of checksums, and of any folder. */
static uint64_t last_check_sync, last_folder_sync;

static bool is_checks(int fd)
{
	struct stat st, checks;

	return !fstat(fd, &st) && !stat("f/tiles.crc32c", &checks) &&
	       st.st_ino == checks.st_ino;
}

int fsync(int fd)
{
	struct stat st;

	if (!fstat(fd, &st) && S_ISDIR(st.st_mode))
		last_folder_sync = ++tick;
	return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	last_sync = ++tick;
	if (is_checks(fd))
		last_check_sync = tick;
	return (int)syscall(SYS_fdatasync, fd);
}

/* Between two runs of a box: lock.c gives up that of a linear segment. */
int fcntl(int fd, int command, ...)
{
	static int (*real)(int, int, ...);
	va_list ap;
	void *arg;
	int n;

	va_start(ap, command);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "fcntl");
	n = real(fd, command, arg);
	if (command == F_OFD_SETLK &&
	    ((const struct flock *)arg)->l_type == F_UNLCK)
		other_sync();
	return n;
}

/* The same of tiles. */
int pthread_rwlock_unlock(pthread_rwlock_t *lock)
{
	static int (*real)(pthread_rwlock_t *);
	int err;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "pthread_rwlock_unlock");
	err = real(lock);
	other_sync();
	return err;
}

/* ---- one thread writes, another syncs */

static struct mmnf_field *make(bool tiled)
{
	MMNF_OPTS(mmnf_create_opts, opts);

	scratch();
	opts.tile = tiled ? tile : NULL;
	opts.segment_bytes = SEGMENT_ROWS * COLUMNS * 4;
	opts.fill = &fill;
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

/* All of a segment but a column, so in many runs; a sync comes behind the first. */
static void write_and_sync_between(struct mmnf_field *field)
{
	struct mmnf_box box = segment(0);
	uint64_t i;

	box.count[1]--;
	for (i = 0; i < SEGMENT_ROWS * COLUMNS; i++)
		data[i] = 9;
	syncs = field;
	ASSERT_EQ(mmnf_write(field, &box, data, SEGMENT_ROWS * 4 * 1023),
		  SEGMENT_ROWS * 4 * 1023);
	ASSERT_EQ(sync_result, 0);
}

static uint64_t nr_missing(void)
{
	struct mmnf_field *field = open_field("f", false);
	struct mmnf_box box = segment(0);
	uint64_t i, nr = 0;

	box.count[1]--;
	ASSERT_EQ(mmnf_get(field, &box, data, SEGMENT_ROWS * 4 * 1023),
		  SEGMENT_ROWS * 4 * 1023);
	for (i = 0; i < SEGMENT_ROWS * 1023; i++)
		nr += data[i] != 9;
	mmnf_field_close(field);
	return nr;
}

TEST(rows_written_while_another_syncs)
{
	struct mmnf_field *field = make(false);

	write_and_sync_between(field);
	ASSERT_LT(last_sync, last_write);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	EXPECT_GT(last_sync, last_write);
	last_sync = 0;
	/* Nothing since: nothing to do. */
	ASSERT_EQ(mmnf_field_sync(field), 0);
	EXPECT_EQ(last_sync, 0);
	mmnf_field_close(field);
	EXPECT_EQ(nr_missing(), 0);
}

TEST(tiles_written_while_another_syncs)
{
	struct mmnf_field *field = make(true);

	write_and_sync_between(field);
	ASSERT_GT(nr_missing(), 0);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	EXPECT_GT(last_sync, last_write);
	EXPECT_EQ(nr_missing(), 0);
	mmnf_field_close(field);
}

TEST(tiles_written_while_another_syncs_then_put_aside)
{
	struct mmnf_field *field = make(true);
	struct mmnf_box box;
	uint64_t i;

	write_and_sync_between(field);
	for (i = 1; i < NR_SEGMENTS; i++) {
		box = segment(i);
		box.count[0] = box.count[1] = 1;
		ASSERT_EQ(mmnf_write(field, &box, data, 4), 4);
	}
	ASSERT_EQ(mmnf_field_sync(field), 0);
	mmnf_field_close(field);
	EXPECT_EQ(nr_missing(), 0);
}

/* ---- writes that fail */

#define TILE_BYTES (4 * 512 * 4)

static struct mmnf_box whole_tile(uint64_t column)
{
	struct mmnf_box box = { { 0, column * 512 }, { 4, 512 }, { 0 } };

	return box;
}

static bool all_are(struct mmnf_field *field, struct mmnf_box box, uint32_t v)
{
	static uint32_t got[TILE_BYTES / 4];
	uint64_t c[2], i;
	const uint32_t *p;

	ASSERT_EQ(mmnf_get(field, &box, got, TILE_BYTES), TILE_BYTES);
	for (i = 0; i < TILE_BYTES / 4; i++) {
		c[0] = box.start[0] + i / 512;
		c[1] = box.start[1] + i % 512;
		p = mmnf_activate(field, c);
		ASSERT_TRUE(p);
		if (got[i] != v || *p != v)
			return false;
	}
	return true;
}

/* A field with one tile, and what a dead writer left in the place of the next. */
static struct mmnf_field *make_with_remains(void)
{
	struct mmnf_field *field = make(true);
	struct mmnf_box box = whole_tile(0);
	int fd;

	memset(data, 1, sizeof(data));
	ASSERT_EQ(mmnf_write(field, &box, data, TILE_BYTES), TILE_BYTES);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	fd = open("f/c/0/0", O_WRONLY);
	ASSERT_EQ(write(fd, memset(data, 0xee, sizeof(data)), 2 * TILE_BYTES),
		  2 * TILE_BYTES);
	close(fd);
	for (fd = 0; fd < (int)(sizeof(data) / 4); fd++)
		data[fd] = 9;
	return field;
}

static void check_failed_tile(struct mmnf_field *field)
{
	struct mmnf_box box = whole_tile(1);
	struct mmnf_field *other;

	EXPECT_TRUE(all_are(field, box, fill));
	ASSERT_EQ(mmnf_field_sync(field), 0);
	other = open_field("f", true);
	EXPECT_TRUE(all_are(other, box, fill));
	/* It belongs to nobody. */
	ASSERT_EQ(mmnf_write(other, &box, data, TILE_BYTES), TILE_BYTES);
	mmnf_field_close(other);
	EXPECT_TRUE(all_are(field, box, 9));
}

TEST(new_tile_of_which_half_was_written)
{
	struct mmnf_field *field = make_with_remains();
	struct mmnf_box box = whole_tile(1);

	room = TILE_BYTES / 2;
	EXPECT_FAILS(mmnf_write(field, &box, data, TILE_BYTES), ENOSPC,
		     "mmnf_write", "writing segment 0");
	room = SIZE_MAX;
	check_failed_tile(field);
	mmnf_field_close(field);
}

TEST(new_tile_that_could_not_be_cleared)
{
	struct mmnf_field *field = make_with_remains();
	struct mmnf_box box = whole_tile(1);

	box.count[0] = 1;
	room = TILE_BYTES / 2;
	EXPECT_FAILS(mmnf_write(field, &box, data, 512 * 4), ENOSPC,
		     "mmnf_write", "writing segment 0");
	room = SIZE_MAX;
	check_failed_tile(field);
	mmnf_field_close(field);
}

/* It was written before: of that the failed write takes only what it reached. */
TEST(tile_of_which_half_was_written_again)
{
	struct mmnf_field *field = make_with_remains();
	struct mmnf_box box = whole_tile(1);
	uint32_t got[TILE_BYTES / 4];

	ASSERT_EQ(mmnf_write(field, &box, data, TILE_BYTES), TILE_BYTES);
	room = TILE_BYTES / 2;
	memset(data, 2, sizeof(data));
	EXPECT_FAILS(mmnf_write(field, &box, data, TILE_BYTES), ENOSPC,
		     "mmnf_write", "writing segment 0");
	room = SIZE_MAX;
	mmnf_field_close(field);
	field = open_field("f", false);
	ASSERT_EQ(mmnf_get(field, &box, got, TILE_BYTES), TILE_BYTES);
	EXPECT_EQ(got[TILE_BYTES / 8 - 1], 0x02020202);
	EXPECT_EQ(got[TILE_BYTES / 8], 9);
	mmnf_field_close(field);
}

static struct mmnf_field *looked_at;
static bool saw_fill;

static void look(void)
{
	saw_fill = all_are(looked_at, whole_tile(1), fill);
}

TEST(new_tile_is_fill_until_it_is_written)
{
	struct mmnf_field *field = looked_at = make_with_remains();
	struct mmnf_box box = whole_tile(1);

	in_between = look;
	ASSERT_EQ(mmnf_write(field, &box, data, TILE_BYTES), TILE_BYTES);
	EXPECT_TRUE(saw_fill);
	EXPECT_TRUE(all_are(field, box, 9));
	mmnf_field_close(field);
}

/* ---- a writer between two steps of a repair */

static struct mmnf_field *writer;
static pthread_t thread;
static bool was_locked;

static void *write_and_sync(void *arg)
{
	struct mmnf_box box = whole_tile(1);

	if (mmnf_write(writer, &box, data, TILE_BYTES) != TILE_BYTES ||
	    mmnf_field_sync(writer))
		return "failed";
	return arg;
}

/* It has to wait where it would be in the way, so only there others go on. */
static void write_in_between(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open("f/c/0/0", O_RDWR);

	lock.l_start = 4 * TILE_BYTES;
	ASSERT_EQ(fcntl(fd, F_OFD_GETLK, &lock), 0);
	close(fd);
	was_locked = lock.l_type != F_UNLCK;
	ASSERT_EQ(pthread_create(&thread, NULL, write_and_sync, NULL), 0);
	if (!was_locked)
		pthread_join(thread, NULL);
}

TEST(tile_synced_in_the_midst_of_a_repair)
{
	MMNF_OPTS(mmnf_verify_opts, opts);
	MMNF_OPTS(mmnf_verify_result, result);
	struct mmnf_field *field;
	uint32_t wrong = 0;
	void *failed;
	int fd;

	writer = make_with_remains();
	fd = open("f/c/0/0", O_WRONLY);
	ASSERT_EQ(pwrite(fd, &wrong, 4, lseek(fd, -4, SEEK_END)), 4);
	close(fd);
	field = open_field("f", true);
	opts.repair = 1;
	in_between = write_in_between;
	ASSERT_EQ(mmnf_field_verify(field, &opts, &result), 0);
	EXPECT_EQ(result.nr_repaired, 1);
	if (was_locked) {
		ASSERT_EQ(pthread_join(thread, &failed), 0);
		ASSERT_TRUE(!failed);
	}
	EXPECT_TRUE(all_are(field, whole_tile(1), 9));
	ASSERT_EQ(mmnf_field_verify(field, NULL, &result), 0);
	EXPECT_EQ(result.nr_bad, 0);
	mmnf_field_close(field);
	mmnf_field_close(writer);
}

/* ---- what else has to be durable */

TEST(checksums_are_synced)
{
	MMNF_OPTS(mmnf_create_opts, opts);
	struct mmnf_box box = whole_tile(0);
	struct mmnf_field *field;

	scratch();
	opts.tile = tile;
	opts.segment_bytes = SEGMENT_ROWS * COLUMNS * 4;
	opts.checksums = 1;
	ASSERT_EQ(mmnf_field_create("f", MMNF_U32, 2, shape, &opts), 0);
	field = open_field("f", true);
	ASSERT_EQ(mmnf_write(field, &box, data, TILE_BYTES), TILE_BYTES);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	EXPECT_GT(last_check_sync, last_write);
	ASSERT_EQ(mmnf_write(field, &box, data, TILE_BYTES), TILE_BYTES);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	EXPECT_GT(last_check_sync, last_write);
	mmnf_field_close(field);
}

/* One tile and an index: no room for others, so the file is replaced. */
TEST(name_of_a_packed_segment_with_new_room_is_synced)
{
	struct mmnf_field *field = make(true);
	struct mmnf_box box = whole_tile(0);
	static char file[5 * TILE_BYTES];
	int fd;

	ASSERT_EQ(mmnf_write(field, &box, data, TILE_BYTES), TILE_BYTES);
	mmnf_field_close(field);
	fd = open("f/c/0/0", O_RDWR);
	ASSERT_EQ(pread(fd, file, 4 * 16 + 4, 4 * TILE_BYTES), 4 * 16 + 4);
	ASSERT_EQ(pwrite(fd, file, 4 * 16 + 4, TILE_BYTES), 4 * 16 + 4);
	ASSERT_EQ(ftruncate(fd, TILE_BYTES + 4 * 16 + 4), 0);
	close(fd);
	field = open_field("f", true);
	box = whole_tile(1);
	last_folder_sync = 0;
	ASSERT_EQ(mmnf_write(field, &box, data, TILE_BYTES), TILE_BYTES);
	EXPECT_GT(last_folder_sync, 0);
	EXPECT_LT(last_folder_sync, last_write);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	mmnf_field_close(field);
}

TEST(name_of_an_export_is_synced)
{
	struct mmnf_field *field = make(false);
	struct mmnf_box box = { { 0 }, { 1, 8 }, { 1, 1 } };

	last_folder_sync = 0;
	ASSERT_EQ(mmnf_export(field, &box, "out.npy", NULL, NULL, NULL), 32);
	EXPECT_GT(last_folder_sync, last_write);
	mmnf_field_close(field);
}

TEST_MAIN
