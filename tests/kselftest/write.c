// SPDX-License-Identifier: GPL-2.0
/* Writable mappings: who may have one, and what becomes of what is stored. */
#include "util.h"

#include <linux/fiemap.h>
#include <sys/syscall.h>

#define BYTES (2 * MIB)
#define STORED 0x0123456789abcdefULL

#define F_SEAL_WRITE_ 8
#define F_SEAL_FUTURE_WRITE_ 16

static int attach_write(int dev, int fd, u64 bytes, u64 *id)
{
	struct mmnf_ioc_attach attach = vector_of(fd, bytes);
	int err;

	attach.flags = MMNF_ATTACH_WRITE;
	err = err_of(ioctl(dev, MMNF_IOC_ATTACH, &attach));
	if (id)
		*id = attach.out_id;
	return err;
}

static int map_errno(int dev, int prot, int flags)
{
	void *p = mmap(NULL, PAGE, prot, flags, dev, 0);

	if (p == MAP_FAILED)
		return errno;
	munmap(p, PAGE);
	return 0;
}

#define RW (PROT_READ | PROT_WRITE)

static inline void store(void *p, u64 value)
{
	*(volatile u64 *)p = value;
}

FIXTURE(write)
{
	int fd, dev;
	u64 id;
	char *p;
};

FIXTURE_SETUP(write)
{
	self->fd = make_field(_metadata, "write", BYTES);
	drop_cache(_metadata, self->fd);
	self->dev = open_device(_metadata);
	ASSERT_EQ(0, attach_write(self->dev, self->fd, BYTES, &self->id));
	self->p = mmap(NULL, BYTES, RW, MAP_SHARED, self->dev, 0);
	ASSERT_NE(MAP_FAILED, self->p)
	TH_LOG("%s", strerror(errno));
}

FIXTURE_TEARDOWN(write)
{
	munmap(self->p, BYTES);
	close(self->dev);
	close(self->fd);
	remove_field("write");
}

static u64 word_in_file(int fd, u64 pos)
{
	u64 value = 0;

	return pread(fd, &value, sizeof(value), pos) == sizeof(value) ? value :
									0;
}

TEST_F(write, stored_is_read_by_all)
{
	u64 wrong = 0, pos;
	char *q;

	for (pos = 0; pos < BYTES; pos += 3 * PAGE)
		store(self->p + pos, STORED ^ pos);
	q = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, q);
	for (pos = 0; pos < BYTES; pos += 3 * PAGE) {
		wrong += word_in_file(self->fd, pos) != (STORED ^ pos);
		wrong += load(q + pos) != (STORED ^ pos);
		wrong += load(q + pos + 8) != word_at(pos + 8);
	}
	EXPECT_EQ(0, wrong);
	munmap(q, BYTES);
}

TEST_F(write, survives_the_page_cache)
{
	u64 wrong = 0, pos;

	for (pos = 0; pos < BYTES; pos += PAGE)
		store(self->p + pos, STORED ^ pos);
	munmap(self->p, BYTES);
	drop_cache(_metadata, self->fd);
	for (pos = 0; pos < BYTES; pos += PAGE)
		wrong += word_in_file(self->fd, pos) != (STORED ^ pos);
	EXPECT_EQ(0, wrong);
	self->p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
	for (pos = 0; pos < BYTES; pos += PAGE)
		wrong += load(self->p + pos) != (STORED ^ pos);
	EXPECT_EQ(0, wrong);
}

/* Where a byte of the file lies in the image below the file system. */
static u64 place_in_image(int fd, u64 pos)
{
	struct {
		struct fiemap map;
		struct fiemap_extent extent[1];
	} arg = { .map = { .fm_start = pos,
			   .fm_length = 1,
			   .fm_flags = FIEMAP_FLAG_SYNC,
			   .fm_extent_count = 1 } };

	if (ioctl(fd, FS_IOC_FIEMAP, &arg) || arg.map.fm_mapped_extents != 1)
		return 0;
	return arg.extent[0].fe_physical + pos - arg.extent[0].fe_logical;
}

/* What msync() has returned for is on the device, not only in memory. */
TEST_F(write, msync_is_durable)
{
	const u64 pos = 77 * PAGE + 32;
	char image[300];
	u64 place;
	int fd;

	if (getenv("MMNF_TEST_DIR"))
		SKIP(return, "environment: not on the image of this program");
	snprintf(image, sizeof(image), "%s.img", ground);
	fd = open(image, O_RDONLY);
	ASSERT_LE(0, fd);
	place = place_in_image(self->fd, pos);
	ASSERT_NE(0, place);
	EXPECT_EQ(word_at(pos), word_in_file(fd, place));
	store(self->p + pos, STORED);
	ASSERT_EQ(0, msync(self->p + 77 * PAGE, PAGE, MS_SYNC));
	EXPECT_EQ(STORED, word_in_file(fd, place));
	close(fd);
}

TEST_F(write, changes_the_time_of_the_file)
{
	struct stat before, after;

	ASSERT_EQ(0, fstat(self->fd, &before));
	sleep_ms(20);
	store(self->p, STORED);
	ASSERT_EQ(0, fstat(self->fd, &after));
	EXPECT_TRUE(after.st_mtim.tv_sec != before.st_mtim.tv_sec ||
		    after.st_mtim.tv_nsec != before.st_mtim.tv_nsec);
}

/* A store to a page that was read is no access of its own; to another it is. */
TEST_F(write, write_faults_are_counted_once)
{
	struct mmnf_ioc_stats s;

	set_mode(_metadata, self->dev, MMNF_MODE_MANUAL);
	EXPECT_EQ(word_at(0), load(self->p));
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(1, s.out_faults);
	EXPECT_EQ(1, s.out_misses);
	store(self->p, STORED);
	store(self->p + 8, STORED);
	EXPECT_EQ(1, get_stats(_metadata, self->dev).out_faults);
	/* Clean again, mapped read-only: the next store is told to the host. */
	ASSERT_EQ(0, msync(self->p, PAGE, MS_SYNC));
	store(self->p, STORED + 1);
	EXPECT_EQ(1, get_stats(_metadata, self->dev).out_faults);
	store(self->p + 100 * PAGE, STORED);
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(2, s.out_faults);
	EXPECT_EQ(2, s.out_misses);
	EXPECT_EQ(0, s.out_hits);
}

/* A walk of stores is foreseen as one of loads. */
TEST_F(write, walk_of_stores_is_read_ahead)
{
	struct mmnf_ioc_stats s;
	u64 i;

	for (i = 0; i < 100; i++) {
		store(self->p + i * 5 * PAGE, STORED);
		sleep_ms(1);
	}
	s = get_stats(_metadata, self->dev);
	log_stats("stores", &s);
	EXPECT_EQ(100, s.out_faults);
	EXPECT_LT(40, s.out_hits);
	EXPECT_LT(40, s.out_used_pages);
}

TEST_F(write, waits_for_a_frozen_file_system)
{
	int dir = open(ground, O_RDONLY | O_DIRECTORY), ready[2], done;
	siginfo_t info = {};
	char byte;
	pid_t pid;

	ASSERT_LE(0, dir);
	ASSERT_EQ(0, pipe(ready));
	EXPECT_EQ(word_at(9 * PAGE), load(self->p + 9 * PAGE));
	ASSERT_EQ(0, ioctl(dir, FIFREEZE, 0))
	TH_LOG("freeze: %s", strerror(errno));
	pid = fork();
	if (!pid) {
		write(ready[1], "", 1);
		store(self->p + 9 * PAGE, STORED);
		_exit(0);
	}
	read(ready[0], &byte, 1);
	sleep_ms(300);
	done = waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT);
	EXPECT_EQ(0, done);
	EXPECT_EQ(0, info.si_pid)
	TH_LOG("stored to a frozen file system");
	ASSERT_EQ(0, ioctl(dir, FITHAW, 0));
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_EQ(STORED, word_in_file(self->fd, 9 * PAGE));
	close(dir);
}

/* Beyond the end, and where there is no room: SIGBUS, and no more than that. */
TEST_F(write, holes_are_filled)
{
	u64 big = 16 * MIB;
	struct stat before, after;
	int fd, dev;
	char *p;

	fd = make_field(_metadata, "hole", 0);
	ASSERT_EQ(0, ftruncate(fd, big));
	dev = open_device(_metadata);
	ASSERT_EQ(0, attach_write(dev, fd, big, NULL));
	p = mmap(NULL, big, RW, MAP_SHARED, dev, 0);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, fstat(fd, &before));
	EXPECT_EQ(0, load(p + 5 * MIB));
	store(p + 5 * MIB, STORED);
	ASSERT_EQ(0, msync(p, big, MS_SYNC));
	ASSERT_EQ(0, fstat(fd, &after));
	EXPECT_LT(before.st_blocks, after.st_blocks);
	EXPECT_EQ(STORED, word_in_file(fd, 5 * MIB));
	EXPECT_EQ(0, word_in_file(fd, 5 * MIB + PAGE));
	munmap(p, big);
	close(dev);
	close(fd);
	remove_field("hole");
}

TEST_F(write, truncate_and_punch_below)
{
	u64 value;

	catch_sigbus();
	store(self->p + 3 * PAGE, STORED);
	store(self->p + 300 * PAGE, STORED);
	ASSERT_EQ(0, fallocate(self->fd,
			       FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       3 * PAGE, PAGE));
	EXPECT_EQ(0, load(self->p + 3 * PAGE));
	store(self->p + 3 * PAGE, STORED + 1);
	EXPECT_EQ(STORED + 1, word_in_file(self->fd, 3 * PAGE));
	ASSERT_EQ(0, ftruncate(self->fd, 200 * PAGE));
	EXPECT_FALSE(try_load(self->p + 300 * PAGE, &value));
	EXPECT_TRUE(try_load(self->p + 3 * PAGE, &value));
}

TEST_F(write, fork_split_and_move)
{
	pid_t pid;
	char *q;

	ASSERT_EQ(0, munmap(self->p + BYTES / 4, BYTES / 4));
	q = mremap(self->p + BYTES / 2, BYTES / 2, BYTES / 2, MREMAP_MAYMOVE);
	ASSERT_NE(MAP_FAILED, q);
	pid = fork();
	if (!pid) {
		store(q, STORED);
		store(self->p, STORED);
		_exit(0);
	}
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_EQ(STORED, load(q));
	EXPECT_EQ(STORED, load(self->p));
	EXPECT_EQ(STORED, word_in_file(self->fd, BYTES / 2));
	munmap(q, BYTES / 2);
}

TEST_F(write, mprotect_down_and_up)
{
	ASSERT_EQ(0, mprotect(self->p, PAGE, PROT_READ));
	ASSERT_EQ(0, mprotect(self->p, PAGE, RW));
	store(self->p, STORED);
	EXPECT_EQ(EACCES,
		  err_of(mprotect(self->p, PAGE, PROT_READ | PROT_EXEC)));
	EXPECT_EQ(EACCES, map_errno(self->dev, RW | PROT_EXEC, MAP_SHARED));
}

/* What was mapped for reading stays for reading, even for a writable field. */
TEST_F(write, read_only_mapping_does_not_grow)
{
	char *p = map_field(_metadata, self->dev, 0, PAGE, MAP_SHARED);

	EXPECT_EQ(EACCES, err_of(mprotect(p, PAGE, RW)));
	munmap(p, PAGE);
	p = map_field(_metadata, self->dev, 0, PAGE, MAP_PRIVATE);
	EXPECT_EQ(EACCES, err_of(mprotect(p, PAGE, RW)));
	munmap(p, PAGE);
	EXPECT_EQ(EOPNOTSUPP, map_errno(self->dev, RW, MAP_PRIVATE));
	EXPECT_EQ(0, map_errno(self->dev, PROT_WRITE, MAP_SHARED));
}

TEST_F(write, sysfs_says_so)
{
	char path[200], text[4] = "";
	int fd;

	snprintf(path, sizeof(path), MMNF_SYSFS "/fields/%llu/writable",
		 self->id);
	fd = open(path, O_RDONLY);
	EXPECT_EQ(2, read(fd, text, sizeof(text)));
	EXPECT_STREQ("1\n", text);
	close(fd);
}

/* Rights */

FIXTURE(rights)
{
	int fd, dev;
	char path[300];
};

FIXTURE_SETUP(rights)
{
	self->fd = make_field(_metadata, "rights", BYTES);
	self->dev = open_device(_metadata);
	snprintf(self->path, sizeof(self->path), "%s/rights", ground);
}

FIXTURE_TEARDOWN(rights)
{
	close(self->dev);
	close(self->fd);
	remove_field("rights");
}

TEST_F(rights, need_a_writable_file_and_device)
{
	int ro = open(self->path, O_RDONLY), dev = open(MMNF_DEVICE, O_RDONLY);

	EXPECT_EQ(EACCES, attach_write(self->dev, ro, BYTES, NULL));
	EXPECT_EQ(EACCES, attach_write(dev, self->fd, BYTES, NULL));
	close(ro);
	close(dev);
	ro = open(self->path, O_WRONLY);
	EXPECT_EQ(EACCES, attach_write(self->dev, ro, BYTES, NULL));
	close(ro);
	/* A failed try leaves the open as it was. */
	EXPECT_EQ(0, attach_write(self->dev, self->fd, BYTES, NULL));
	EXPECT_EQ(0, map_errno(self->dev, RW, MAP_SHARED));
}

static int change_flags(int fd, int set, int clear)
{
	int flags;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags))
		return -1;
	flags = (flags | set) & ~clear;
	return ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

TEST_F(rights, append_only_and_immutable_eperm)
{
	static const int flags[] = { FS_APPEND_FL, FS_IMMUTABLE_FL };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		int dev = open_device(_metadata);

		/* attached before: refused when it is mapped */
		ASSERT_EQ(0, attach_write(dev, self->fd, BYTES, NULL));
		ASSERT_EQ(0, change_flags(self->fd, flags[i], 0));
		EXPECT_EQ(EPERM,
			  attach_write(self->dev, self->fd, BYTES, NULL));
		EXPECT_EQ(EPERM, map_errno(dev, RW, MAP_SHARED));
		EXPECT_EQ(0, map_errno(dev, PROT_READ, MAP_SHARED));
		ASSERT_EQ(0, change_flags(self->fd, 0, flags[i]));
		EXPECT_EQ(0, map_errno(dev, RW, MAP_SHARED));
		close(dev);
	}
}

/* A field that may be written keeps its file system from becoming read-only. */
TEST_F(rights, remount_read_only_ebusy)
{
	if (getenv("MMNF_TEST_DIR"))
		SKIP(return, "environment: not a mount of this program");
	ASSERT_EQ(0, attach_write(self->dev, self->fd, BYTES, NULL));
	close(self->fd);
	self->fd = -1;
	EXPECT_EQ(EBUSY, err_of(mount(NULL, ground, NULL,
				      MS_REMOUNT | MS_RDONLY, NULL)));
}

FIXTURE(seal)
{
	int fd, dev;
};

FIXTURE_SETUP(seal)
{
	self->fd = syscall(SYS_memfd_create, "seal", 2U /* ALLOW_SEALING */);
	ASSERT_LE(0, self->fd);
	fill_field(_metadata, self->fd, 0, 4 * PAGE);
	self->dev = open_device(_metadata);
	ASSERT_EQ(0, attach_write(self->dev, self->fd, 4 * PAGE, NULL));
}

FIXTURE_TEARDOWN(seal)
{
	close(self->dev);
	close(self->fd);
}

static int seal(int fd, int seals)
{
	return err_of(fcntl(fd, F_ADD_SEALS, seals));
}

TEST_F(seal, sealed_is_not_mapped_writable)
{
	int dev;

	ASSERT_EQ(0, seal(self->fd, F_SEAL_WRITE_));
	EXPECT_EQ(EPERM, map_errno(self->dev, RW, MAP_SHARED));
	EXPECT_EQ(0, map_errno(self->dev, PROT_READ, MAP_SHARED));
	EXPECT_EQ(EPERM, map_errno(self->fd, RW, MAP_SHARED));
	dev = open_device(_metadata);
	EXPECT_EQ(EPERM, attach_write(dev, self->fd, 4 * PAGE, NULL));
	close(dev);
}

TEST_F(seal, mapped_writable_is_not_sealed)
{
	char *p = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, self->dev, 0), *q;
	int ready[2], go[2];
	char byte;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(EBUSY, seal(self->fd, F_SEAL_WRITE_));
	/* A part, a moved part, and a child's copy are enough. */
	ASSERT_EQ(0, munmap(p, PAGE));
	EXPECT_EQ(EBUSY, seal(self->fd, F_SEAL_WRITE_));
	ASSERT_EQ(0, munmap(p + 2 * PAGE, PAGE));
	q = mremap(p + 3 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_EQ(0, munmap(p + PAGE, PAGE));
	EXPECT_EQ(EBUSY, seal(self->fd, F_SEAL_WRITE_));
	ASSERT_EQ(0, mprotect(q, PAGE, PROT_READ));
	EXPECT_EQ(EBUSY, seal(self->fd, F_SEAL_WRITE_));
	ASSERT_EQ(0, pipe(ready));
	ASSERT_EQ(0, pipe(go));
	pid = fork();
	if (!pid) {
		write(ready[1], "", 1);
		read(go[0], &byte, 1);
		_exit(0);
	}
	read(ready[0], &byte, 1);
	ASSERT_EQ(0, munmap(q, 2 * PAGE));
	EXPECT_EQ(EBUSY, seal(self->fd, F_SEAL_WRITE_));
	write(go[1], "", 1);
	EXPECT_EQ(0, wait_child(pid));
	/* Nothing is left of it. */
	EXPECT_EQ(0, seal(self->fd, F_SEAL_WRITE_));
	EXPECT_EQ(EPERM, map_errno(self->dev, RW, MAP_SHARED));
}

/* What is refused counts for nothing. */
TEST_F(seal, refused_mappings_are_not_counted)
{
	int i;

	for (i = 0; i < 50; i++) {
		ASSERT_EQ(EACCES,
			  map_errno(self->dev, RW | PROT_EXEC, MAP_SHARED));
		ASSERT_EQ(EOPNOTSUPP, map_errno(self->dev, RW, MAP_PRIVATE));
		ASSERT_EQ(0, map_errno(self->dev, RW, MAP_SHARED));
		ASSERT_EQ(0, map_errno(self->dev, PROT_READ, MAP_SHARED));
	}
	EXPECT_EQ(0, seal(self->fd, F_SEAL_WRITE_));
}

TEST_F(seal, sealed_against_future_writing)
{
	char *p = mmap(NULL, PAGE, RW, MAP_SHARED, self->dev, 0), *q;

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, seal(self->fd, F_SEAL_FUTURE_WRITE_));
	/* The one that is there may go on. */
	store(p, STORED);
	EXPECT_EQ(STORED, word_in_file(self->fd, 0));
	EXPECT_EQ(EPERM, map_errno(self->dev, RW, MAP_SHARED));
	q = map_field(_metadata, self->dev, 0, PAGE, MAP_SHARED);
	EXPECT_EQ(EACCES, err_of(mprotect(q, PAGE, RW)));
	munmap(p, PAGE);
	munmap(q, PAGE);
}

MMNF_HARNESS_MAIN
