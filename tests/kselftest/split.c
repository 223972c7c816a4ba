// SPDX-License-Identifier: GPL-2.0
/* One mapping becomes several areas, in one process or two, and is used oddly. */
#include "util.h"

#include <sys/uio.h>

#define BYTES (4 * MIB)

FIXTURE(split)
{
	int fd, dev;
	char *p;
};

FIXTURE_SETUP(split)
{
	self->fd = make_field(_metadata, "split", BYTES);
	drop_cache(_metadata, self->fd);
	self->dev = attach_field(_metadata, self->fd, BYTES);
	self->p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
}

FIXTURE_TEARDOWN(split)
{
	munmap(self->p, BYTES);
	close(self->dev);
	close(self->fd);
	remove_field("split");
}

static u64 mappings(struct __test_metadata *_metadata, int dev)
{
	return get_stats(_metadata, dev).out_mappings;
}

TEST_F(split, fork_parent_unmaps_first)
{
	int go[2];
	char byte;
	pid_t pid;

	ASSERT_EQ(0, pipe(go));
	pid = fork();
	if (!pid) {
		read(go[0], &byte, 1);
		_exit(wrong_words(self->p, 0, BYTES) != 0);
	}
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES / 2));
	munmap(self->p, BYTES);
	/* fork made no new mapping, and the child still has this one. */
	EXPECT_EQ(1, mappings(_metadata, self->dev));
	write(go[1], "", 1);
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_EQ(0, mappings(_metadata, self->dev));
}

TEST_F(split, fork_child_unmaps_first)
{
	pid_t pid = fork();

	if (!pid) {
		u64 wrong = wrong_words(self->p, 0, BYTES / 2);

		munmap(self->p, BYTES);
		_exit(wrong != 0);
	}
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_EQ(1, mappings(_metadata, self->dev));
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
}

TEST_F(split, fork_both_read_at_once)
{
	pid_t pid[3];
	int i;

	for (i = 0; i < 3; i++) {
		pid[i] = fork();
		if (!pid[i])
			_exit(wrong_words(self->p, 0, BYTES) != 0);
	}
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
	for (i = 0; i < 3; i++)
		EXPECT_EQ(0, wait_child(pid[i]));
	get_stats(_metadata, self->dev);
}

TEST_F(split, unmap_in_the_middle)
{
	const u64 third = BYTES / 4;

	ASSERT_EQ(0, munmap(self->p + third, third));
	EXPECT_EQ(1, mappings(_metadata, self->dev));
	EXPECT_EQ(0, wrong_words(self->p, 0, third));
	EXPECT_EQ(0, wrong_words(self->p + 2 * third, 2 * third,
				 BYTES - 2 * third));
	ASSERT_EQ(0, munmap(self->p, third));
	EXPECT_EQ(1, mappings(_metadata, self->dev));
	ASSERT_EQ(0, munmap(self->p + 3 * third, third));
	EXPECT_EQ(0, wrong_words(self->p + 2 * third, 2 * third, third));
	ASSERT_EQ(0, munmap(self->p + 2 * third, third));
	EXPECT_EQ(0, mappings(_metadata, self->dev));
}

TEST_F(split, mprotect_splits)
{
	ASSERT_EQ(0, mprotect(self->p + MIB, MIB, PROT_NONE));
	EXPECT_EQ(0, wrong_words(self->p, 0, MIB));
	EXPECT_EQ(0, wrong_words(self->p + 2 * MIB, 2 * MIB, 2 * MIB));
	ASSERT_EQ(0, mprotect(self->p + MIB, MIB, PROT_READ));
	EXPECT_EQ(0, wrong_words(self->p + MIB, MIB, MIB));
	EXPECT_EQ(1, mappings(_metadata, self->dev));
}

TEST_F(split, mremap_shrinks)
{
	ASSERT_EQ(self->p, mremap(self->p, BYTES, MIB, 0));
	EXPECT_EQ(0, wrong_words(self->p, 0, MIB));
	EXPECT_EQ(1, mappings(_metadata, self->dev));
}

TEST_F(split, mremap_grows_in_place)
{
	/* The room behind the shrunken mapping is free. */
	ASSERT_EQ(self->p, mremap(self->p, BYTES, MIB, 0));
	ASSERT_EQ(self->p, mremap(self->p, MIB, BYTES, 0));
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
	EXPECT_EQ(1, mappings(_metadata, self->dev));
}

TEST_F(split, mremap_moves)
{
	char *room = mmap(NULL, 2 * BYTES, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *p;

	ASSERT_NE(MAP_FAILED, room);
	EXPECT_EQ(0, wrong_words(self->p, 0, MIB));
	p = mremap(self->p, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, room);
	ASSERT_EQ(room, p);
	EXPECT_EQ(0, wrong_words(p, 0, BYTES));
	EXPECT_EQ(1, mappings(_metadata, self->dev));
	/* A part of it somewhere else again */
	p = mremap(room + MIB, MIB, MIB, MREMAP_MAYMOVE | MREMAP_FIXED,
		   room + BYTES + MIB);
	ASSERT_EQ(room + BYTES + MIB, p);
	EXPECT_EQ(0, wrong_words(p, MIB, MIB));
	EXPECT_EQ(0, wrong_words(room, 0, MIB));
	EXPECT_EQ(1, mappings(_metadata, self->dev));
	munmap(room, 2 * BYTES);
	EXPECT_EQ(0, mappings(_metadata, self->dev));
}

/* mremap() with an old size of zero makes a second mapping of the same pages. */
TEST_F(split, mremap_duplicates)
{
	char *p = mremap(self->p, 0, BYTES, MREMAP_MAYMOVE);

	ASSERT_NE(MAP_FAILED, p);
	munmap(self->p, BYTES);
	EXPECT_EQ(0, wrong_words(p, 0, BYTES));
	munmap(p, BYTES);
	EXPECT_EQ(0, mappings(_metadata, self->dev));
}

TEST_F(split, mapped_over)
{
	char *p = mmap(self->p + MIB, MIB, PROT_READ, MAP_SHARED | MAP_FIXED,
		       self->dev, 0);

	/* The start of the field a second time, in the middle of it */
	ASSERT_EQ(self->p + MIB, p);
	EXPECT_EQ(0, wrong_words(p, 0, MIB));
	EXPECT_EQ(0, wrong_words(self->p, 0, MIB));
	EXPECT_EQ(0, wrong_words(self->p + 2 * MIB, 2 * MIB, 2 * MIB));
	EXPECT_EQ(2, mappings(_metadata, self->dev));
}

/* Neighbouring mappings stay two: each has its own field to tell. */
TEST_F(split, neighbours_do_not_merge)
{
	int other = attach_field(_metadata, self->fd, BYTES);
	char *p = mmap(self->p + MIB, BYTES - MIB, PROT_READ,
		       MAP_SHARED | MAP_FIXED, other, MIB);

	ASSERT_EQ(self->p + MIB, p);
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
	EXPECT_EQ(1, mappings(_metadata, self->dev));
	EXPECT_EQ(1, mappings(_metadata, other));
	EXPECT_LT(0, get_stats(_metadata, self->dev).out_faults);
	EXPECT_LT(0, get_stats(_metadata, other).out_faults);
	close(other);
}

/* What the kernel says of the area at an address, as of a pair that it compares. */
static void area_flags(struct __test_metadata *_metadata, const char *p,
		       char *flags, size_t size)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512], start[32];
	bool here = false;

	ASSERT_NE(NULL, f);
	snprintf(start, sizeof(start), "%lx-", (unsigned long)p);
	flags[0] = 0;
	while (!flags[0] && fgets(line, sizeof(line), f)) {
		here |= !strncmp(line, start, strlen(start));
		if (here && !strncmp(line, "VmFlags:", 8))
			snprintf(flags, size, "%.200s", line);
	}
	fclose(f);
	EXPECT_NE(0, flags[0]);
}

/*
 * Windows of one field that adjoin, as their bytes do, are mappings all the same.  Some
 * kernels would join those that are alike (6.3 to 6.11), and then forget one.
 */
TEST_F(split, adjoining_windows_do_not_merge)
{
	char flags[4][256];
	u64 i, len = BYTES / 4;

	for (i = 0; i < 4; i++)
		ASSERT_EQ(self->p + i * len,
			  mmap(self->p + i * len, len, PROT_READ,
			       MAP_SHARED | MAP_FIXED, self->dev, i * len));
	EXPECT_EQ(4, mappings(_metadata, self->dev));
	for (i = 0; i < 4; i++) {
		area_flags(_metadata, self->p + i * len, flags[i],
			   sizeof(flags[i]));
		if (i)
			EXPECT_STRNE(flags[i - 1], flags[i]);
	}
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
	/* One in the middle again. */
	munmap(self->p + len, len);
	EXPECT_EQ(3, mappings(_metadata, self->dev));
	ASSERT_EQ(self->p + len, mmap(self->p + len, len, PROT_READ,
				      MAP_SHARED | MAP_FIXED, self->dev, len));
	EXPECT_EQ(4, mappings(_metadata, self->dev));
	munmap(self->p, BYTES);
	EXPECT_EQ(0, mappings(_metadata, self->dev));
}

TEST_F(split, madvise_dontneed_faults_again)
{
	struct mmnf_ioc_stats before, after;

	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
	before = get_stats(_metadata, self->dev);
	ASSERT_EQ(0, madvise(self->p, BYTES, MADV_DONTNEED));
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
	after = get_stats(_metadata, self->dev);
	EXPECT_LE(before.out_faults + BYTES / PAGE / 16, after.out_faults);
	EXPECT_EQ(before.out_misses, after.out_misses);
}

TEST_F(split, madvise_advice_is_taken)
{
	static const int advice[] = { MADV_RANDOM,   MADV_SEQUENTIAL,
				      MADV_NORMAL,   MADV_WILLNEED,
				      MADV_HUGEPAGE, MADV_NOHUGEPAGE,
				      MADV_DONTDUMP, MADV_COLD };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(advice); i++) {
		int err = err_of(madvise(self->p, MIB, advice[i]));

		EXPECT_EQ(0, err)
		TH_LOG("advice %d: %s", advice[i], strerror(err));
		EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
		madvise(self->p, BYTES, MADV_DONTNEED);
	}
	get_stats(_metadata, self->dev);
}

TEST_F(split, madvise_populate_read)
{
	ASSERT_EQ(0, madvise(self->p, BYTES, 22 /* MADV_POPULATE_READ */));
	EXPECT_EQ(BYTES / PAGE, resident_pages(_metadata, self->fd, 0, BYTES));
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
	get_stats(_metadata, self->dev);
}

TEST_F(split, map_populate)
{
	struct mmnf_ioc_stats before;
	char *p = map_field(_metadata, self->dev, 0, BYTES,
			    MAP_SHARED | MAP_POPULATE);

	EXPECT_EQ(BYTES / PAGE, resident_pages(_metadata, self->fd, 0, BYTES));
	before = get_stats(_metadata, self->dev);
	EXPECT_EQ(0, wrong_words(p, 0, BYTES));
	/* All of it is mapped: no fault is left. */
	EXPECT_EQ(before.out_faults,
		  get_stats(_metadata, self->dev).out_faults);
	munmap(p, BYTES);
}

TEST_F(split, mlock_keeps_pages)
{
	ASSERT_EQ(0, mlock(self->p, MIB));
	posix_fadvise(self->fd, 0, 0, POSIX_FADV_DONTNEED);
	EXPECT_EQ(MIB / PAGE, resident_pages(_metadata, self->fd, 0, MIB));
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
	ASSERT_EQ(0, munlock(self->p, MIB));
}

/* The kernel itself touches the mapping, in a system call. */
TEST_F(split, write_from_the_mapping)
{
	int ends[2];
	char buf[4096];
	u64 off;

	ASSERT_EQ(0, pipe(ends));
	for (off = 0; off < MIB; off += sizeof(buf)) {
		ASSERT_EQ((ssize_t)sizeof(buf),
			  write(ends[1], self->p + off, sizeof(buf)));
		ASSERT_EQ((ssize_t)sizeof(buf),
			  read(ends[0], buf, sizeof(buf)));
		EXPECT_EQ(0, wrong_words(buf, off, sizeof(buf)));
	}
	get_stats(_metadata, self->dev);
}

TEST_F(split, read_into_the_mapping_efault)
{
	EXPECT_EQ(EFAULT, err_of(pread(self->fd, self->p, PAGE, PAGE)));
	EXPECT_EQ(0, wrong_words(self->p, 0, PAGE));
}

/* The file is written from its own mapping: one lock, two sides. */
TEST_F(split, write_to_the_file_from_its_mapping)
{
	ASSERT_EQ((ssize_t)MIB, pwrite(self->fd, self->p + 2 * MIB, MIB, 0));
	EXPECT_EQ(0, wrong_words(self->p, 2 * MIB, MIB));
}

TEST_F(split, process_vm_readv_through_it)
{
	static char buf[MIB];
	struct iovec local = { buf, sizeof(buf) };
	struct iovec remote = { self->p + MIB, sizeof(buf) };
	int done[2];
	pid_t pid;

	ASSERT_EQ(0, pipe(done));
	pid = fork();
	if (!pid) {
		char byte;

		read(done[0], &byte, 1);
		_exit(0);
	}
	/* Another process' mapping, cold there */
	EXPECT_EQ((ssize_t)sizeof(buf),
		  process_vm_readv(pid, &local, 1, &remote, 1, 0));
	EXPECT_EQ(0, wrong_words(buf, MIB, sizeof(buf)));
	write(done[1], "", 1);
	wait_child(pid);
	get_stats(_metadata, self->dev);
}

TEST_F(split, proc_mem_read)
{
	static char buf[PAGE];
	int fd = open("/proc/self/mem", O_RDONLY);

	ASSERT_LE(0, fd);
	EXPECT_EQ((ssize_t)PAGE,
		  pread(fd, buf, PAGE, (unsigned long)self->p + 5 * PAGE));
	EXPECT_EQ(0, wrong_words(buf, 5 * PAGE, PAGE));
	close(fd);
}

/* A debugger may not write either: there is no private copy to write to. */
TEST_F(split, proc_mem_write_fails)
{
	char *p = map_field(_metadata, self->dev, 0, PAGE, MAP_PRIVATE);
	int fd = open("/proc/self/mem", O_RDWR);
	u64 word = 0;

	ASSERT_LE(0, fd);
	EXPECT_NE(8, pwrite(fd, &word, 8, (unsigned long)self->p));
	EXPECT_EQ(word_at(0), load(self->p));
	EXPECT_NE(8, pwrite(fd, &word, 8, (unsigned long)p));
	EXPECT_EQ(word_at(0), load(p));
	close(fd);
	munmap(p, PAGE);
}

TEST_F(split, two_processes_open_it_each)
{
	pid_t pid[2];
	int i;

	for (i = 0; i < 2; i++) {
		pid[i] = fork();
		if (!pid[i]) {
			int dev = attach_field(_metadata, self->fd, BYTES);
			char *p =
				map_field(_metadata, dev, 0, BYTES, MAP_SHARED);

			_exit(wrong_words(p, 0, BYTES) != 0);
		}
	}
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, wait_child(pid[i]));
	EXPECT_EQ(1, mappings(_metadata, self->dev));
}

MMNF_HARNESS_MAIN
