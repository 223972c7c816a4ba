// SPDX-License-Identifier: GPL-2.0
/*
 * A field of a petabyte: an XFS file with data at its ends and in its middle.
 * As one mapping where the kernel runs five levels of page tables, else window by
 * window.
 */
#include "util.h"

#define TIB (1ULL << 40)
#define BYTES (1024 * TIB)
#define ISLAND (64 * PAGE)

FIXTURE(petabyte)
{
	char dir[300];
	int fd, dev;
};

static const u64 island[] = { 0, 400 * TIB + 12345 * PAGE, BYTES - ISLAND };

FIXTURE_SETUP(petabyte)
{
	char path[320];
	int i;

	shell("modprobe -q xfs");
	snprintf(self->dir, sizeof(self->dir), "%s/../xfs", ground);
	ASSERT_EQ(0, mount_image(self->dir, "xfs", "mkfs.xfs -q -f", 320));
	snprintf(path, sizeof(path), "%s/field", self->dir);
	self->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, ftruncate(self->fd, BYTES));
	for (i = 0; i < 3; i++)
		fill_field(_metadata, self->fd, island[i], island[i] + ISLAND);
	ASSERT_EQ(0, fdatasync(self->fd));
	posix_fadvise(self->fd, 0, 0, POSIX_FADV_DONTNEED);
	self->dev = attach_field(_metadata, self->fd, BYTES);
}

FIXTURE_TEARDOWN(petabyte)
{
	close(self->dev);
	close(self->fd);
	umount2(self->dir, MNT_DETACH);
}

/* Islands are right; beside them is a hole. */
static void check_islands(struct __test_metadata *_metadata, const char *p,
			  u64 start, u64 end)
{
	int i;

	for (i = 0; i < 3; i++) {
		if (island[i] < start || island[i] >= end)
			continue;
		EXPECT_EQ(0, wrong_words(p + island[i] - start, island[i],
					 ISLAND));
		if (island[i] + ISLAND < end)
			EXPECT_EQ(0, load(p + island[i] + ISLAND - start));
	}
}

TEST_F(petabyte, window_by_window)
{
	const u64 window = TIB;
	int i;

	for (i = 0; i < 3; i++) {
		u64 start = island[i] / window * window;
		char *p = map_field(_metadata, self->dev, start, window,
				    MAP_SHARED);

		check_islands(_metadata, p, start, start + window);
		ASSERT_EQ(0, munmap(p, window));
	}
	get_stats(_metadata, self->dev);
}

TEST_F(petabyte, as_one_mapping)
{
	/* Beyond 47 bits one has to ask. */
	void *hint = (void *)(1UL << 52);
	char *p = mmap(hint, BYTES, PROT_READ, MAP_SHARED, self->dev, 0);

	if (p == MAP_FAILED && errno == ENOMEM)
		SKIP(return, "kernel: four levels of page tables");
	ASSERT_NE(MAP_FAILED, p);
	check_islands(_metadata, p, 0, BYTES);
	/* Across the middle, forwards and back, by a tebibyte. */
	EXPECT_EQ(0, load(p + 600 * TIB));
	EXPECT_EQ(0, load(p + 599 * TIB));
	get_stats(_metadata, self->dev);
	ASSERT_EQ(0, munmap(p, BYTES));
}

MMNF_HARNESS_MAIN
