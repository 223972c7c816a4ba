// SPDX-License-Identifier: GPL-2.0
/* Mapping a field: rights, extent and the bytes that are seen. */
#include "util.h"

#include <sys/syscall.h>

#define BYTES (2 * MIB)

/* What a mapping may do; the file has 16 pages and 200 bytes. */
FIXTURE(rights)
{
	int fd, dev;
};

#define SMALL (16 * PAGE + 200)

FIXTURE_SETUP(rights)
{
	self->fd = make_field(_metadata, "rights", SMALL);
	self->dev = attach_field(_metadata, self->fd, SMALL);
	catch_sigbus();
}

FIXTURE_TEARDOWN(rights)
{
	close(self->dev);
	close(self->fd);
	remove_field("rights");
}

static int map_errno(int dev, int prot, int flags)
{
	void *p = mmap(NULL, PAGE, prot, flags, dev, 0);

	if (p == MAP_FAILED)
		return errno;
	munmap(p, PAGE);
	return 0;
}

TEST_F(rights, before_attach_enxio)
{
	int dev = open_device(_metadata);

	EXPECT_EQ(ENXIO, map_errno(dev, PROT_READ, MAP_SHARED));
	EXPECT_EQ(ENXIO, map_errno(dev, PROT_READ, MAP_PRIVATE));
	close(dev);
}

TEST_F(rights, read_only_shared_and_private_ok)
{
	EXPECT_EQ(0, map_errno(self->dev, PROT_READ, MAP_SHARED));
	EXPECT_EQ(0, map_errno(self->dev, PROT_READ, MAP_PRIVATE));
	EXPECT_EQ(0, map_errno(self->dev, PROT_NONE, MAP_SHARED));
}

TEST_F(rights, exec_eacces)
{
	EXPECT_EQ(EACCES,
		  map_errno(self->dev, PROT_READ | PROT_EXEC, MAP_SHARED));
	EXPECT_EQ(EACCES,
		  map_errno(self->dev, PROT_READ | PROT_EXEC, MAP_PRIVATE));
	EXPECT_EQ(EACCES, map_errno(self->dev, PROT_EXEC, MAP_SHARED));
}

TEST_F(rights, write_refused)
{
	EXPECT_EQ(EACCES,
		  map_errno(self->dev, PROT_READ | PROT_WRITE, MAP_SHARED));
	EXPECT_EQ(EOPNOTSUPP,
		  map_errno(self->dev, PROT_READ | PROT_WRITE, MAP_PRIVATE));
}

TEST_F(rights, mprotect_gains_nothing)
{
	static const int flags[] = { MAP_SHARED, MAP_PRIVATE };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		char *p = map_field(_metadata, self->dev, 0, PAGE, flags[i]);

		EXPECT_EQ(EACCES,
			  err_of(mprotect(p, PAGE, PROT_READ | PROT_WRITE)));
		EXPECT_EQ(EACCES,
			  err_of(mprotect(p, PAGE, PROT_READ | PROT_EXEC)));
		EXPECT_EQ(0, mprotect(p, PAGE, PROT_NONE));
		EXPECT_EQ(0, mprotect(p, PAGE, PROT_READ));
		EXPECT_EQ(0, wrong_words(p, 0, PAGE));
		munmap(p, PAGE);
	}
}

TEST_F(rights, read_only_device_ok)
{
	struct mmnf_ioc_attach attach = vector_of(self->fd, SMALL);
	int dev = open(MMNF_DEVICE, O_RDONLY);

	ASSERT_LE(0, dev);
	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_ATTACH, &attach));
	EXPECT_EQ(0, map_errno(dev, PROT_READ, MAP_SHARED));
	close(dev);
}

/* The mapping alone keeps everything alive. */
TEST_F(rights, outlives_its_descriptors)
{
	char *p = map_field(_metadata, self->dev, 0, SMALL, MAP_SHARED);

	drop_cache(_metadata, self->fd);
	close(self->dev);
	close(self->fd);
	self->dev = self->fd = -1;
	EXPECT_EQ(0, wrong_words(p, 0, SMALL));
	munmap(p, SMALL);
}

TEST_F(rights, beyond_end_of_file_sigbus_there_only)
{
	char *p = map_field(_metadata, self->dev, 0, 20 * PAGE, MAP_SHARED);
	u64 value, i;

	EXPECT_EQ(0, wrong_words(p, 0, SMALL));
	/* The rest of the last page reads as zeros. */
	EXPECT_EQ(0, nonzero_words(p + SMALL, 17 * PAGE - SMALL));
	for (i = 17; i < 20; i++)
		EXPECT_FALSE(try_load(p + i * PAGE, &value));
	ASSERT_TRUE(try_load(p + 16 * PAGE, &value));
	EXPECT_EQ(word_at(16 * PAGE), value);
	munmap(p, 20 * PAGE);
}

TEST_F(rights, whole_mapping_beyond_end_sigbus)
{
	char *p = map_field(_metadata, self->dev, 1024 * MIB, PAGE, MAP_SHARED);
	u64 value;

	EXPECT_FALSE(try_load(p, &value));
	munmap(p, PAGE);
}

TEST_F(rights, mappings_are_counted)
{
	char *p, *q;

	p = map_field(_metadata, self->dev, 0, SMALL, MAP_SHARED);
	EXPECT_EQ(1, get_stats(_metadata, self->dev).out_mappings);
	q = map_field(_metadata, self->dev, 0, SMALL, MAP_PRIVATE);
	EXPECT_EQ(2, get_stats(_metadata, self->dev).out_mappings);
	munmap(p, SMALL);
	EXPECT_EQ(1, get_stats(_metadata, self->dev).out_mappings);
	munmap(q, SMALL);
	EXPECT_EQ(0, get_stats(_metadata, self->dev).out_mappings);
}

/* A refused mapping leaves no trace. */
TEST_F(rights, refused_mapping_is_not_counted)
{
	int i;

	for (i = 0; i < 100; i++)
		ASSERT_EQ(EACCES, map_errno(self->dev, PROT_WRITE, MAP_SHARED));
	EXPECT_EQ(0, get_stats(_metadata, self->dev).out_mappings);
}

/*
 * A sealed memfd stays sealed: a shared mapping of it through the device must
 * not make room for a writable one of the memfd itself.
 */
TEST_F(rights, sealed_memfd_stays_sealed)
{
	int fd = syscall(SYS_memfd_create, "sealed", 2U /* ALLOW_SEALING */);
	int dev;
	char *p;

	ASSERT_LE(0, fd);
	fill_field(_metadata, fd, 0, PAGE);
	ASSERT_EQ(0, fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	ASSERT_EQ(EPERM, map_errno(fd, PROT_READ | PROT_WRITE, MAP_SHARED));
	dev = attach_field(_metadata, fd, PAGE);
	p = map_field(_metadata, dev, 0, PAGE, MAP_SHARED);
	EXPECT_EQ(0, wrong_words(p, 0, PAGE));
	EXPECT_EQ(EPERM, map_errno(fd, PROT_READ | PROT_WRITE, MAP_SHARED));
	munmap(p, PAGE);
	EXPECT_EQ(EPERM, map_errno(fd, PROT_READ | PROT_WRITE, MAP_SHARED));
	close(dev);
	close(fd);
}

/* What is seen, whatever the file lies on. */
FIXTURE(content)
{
	int fd, dev;
	u64 bytes;
	char path[300];
	const char *skip;
};

enum backing { EXT4, XFS, TMPFS, BLOCK };

FIXTURE_VARIANT(content)
{
	enum backing backing;
};

FIXTURE_VARIANT_ADD(content, ext4) {
	.backing = EXT4,
};

FIXTURE_VARIANT_ADD(content, xfs) {
	.backing = XFS,
};

FIXTURE_VARIANT_ADD(content, tmpfs) {
	.backing = TMPFS,
};

FIXTURE_VARIANT_ADD(content, block_device) {
	.backing = BLOCK,
};

/* The directory beside the ground, which is on a tmpfs, or the ground itself. */
static void beside_ground(char *path, size_t size, const char *name)
{
	snprintf(path, size, "%s%s/%s", ground,
		 getenv("MMNF_TEST_DIR") ? "" : "/..", name);
}

/* Made by the first case that needs it, for all of them. */
static const char *xfs_file(char *path, size_t size)
{
	char dir[280];

	beside_ground(dir, sizeof(dir), "xfs");
	snprintf(path, size, "%s/content", dir);
	if (access(dir, F_OK) && mount_image(dir, "xfs", "mkfs.xfs -q -f", 320))
		return "kernel: no XFS on a loop device";
	return NULL;
}

static const char *tmpfs_file(char *path, size_t size)
{
	char dir[280];

	beside_ground(dir, sizeof(dir), "tmpfs");
	snprintf(path, size, "%s/content", dir);
	if (access(dir, F_OK) &&
	    (mkdir(dir, 0700) || mount("t", dir, "tmpfs", 0, NULL)))
		return "kernel: no tmpfs";
	return NULL;
}

FIXTURE_SETUP(content)
{
	self->fd = self->dev = -1;
	/* An end within a page, where the backing can have one. */
	self->bytes = BYTES + (variant->backing == BLOCK ? 0 : 200);
	switch (variant->backing) {
	case XFS:
		self->skip = xfs_file(self->path, sizeof(self->path));
		break;
	case TMPFS:
		self->skip = tmpfs_file(self->path, sizeof(self->path));
		break;
	default:
		beside_ground(self->path, sizeof(self->path), "content");
		if (variant->backing == EXT4)
			snprintf(self->path, sizeof(self->path), "%s/content",
				 ground);
	}
	if (self->skip)
		return;
	self->fd = open(self->path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	ASSERT_LE(0, self->fd);
	fill_field(_metadata, self->fd, 0, self->bytes);
	if (variant->backing == BLOCK) {
		char device[64];
		int loop = make_loop(self->path, device, sizeof(device));

		close(self->fd);
		self->fd = loop;
		if (loop < 0) {
			self->skip = "kernel: no loop device";
			return;
		}
	}
	if (variant->backing != TMPFS)
		drop_cache(_metadata, self->fd);
	self->dev = attach_field(_metadata, self->fd, self->bytes);
}

FIXTURE_TEARDOWN(content)
{
	close(self->dev);
	close(self->fd);
	unlink(self->path);
}

#define SKIP_WITHOUT_BACKING()                          \
	do {                                            \
		if (self->skip)                         \
			SKIP(return, "%s", self->skip); \
	} while (0)

TEST_F(content, shared_equals_formula)
{
	char *p;

	SKIP_WITHOUT_BACKING();
	p = map_field(_metadata, self->dev, 0, self->bytes, MAP_SHARED);
	EXPECT_EQ(0, wrong_words(p, 0, self->bytes));
	munmap(p, self->bytes);
}

TEST_F(content, private_equals_formula)
{
	char *p;

	SKIP_WITHOUT_BACKING();
	p = map_field(_metadata, self->dev, 0, self->bytes, MAP_PRIVATE);
	EXPECT_EQ(0, wrong_words(p, 0, self->bytes));
	munmap(p, self->bytes);
}

TEST_F(content, every_mode_equals_formula)
{
	u32 mode;
	char *p;

	SKIP_WITHOUT_BACKING();
	for (mode = MMNF_MODE_OFF; mode <= MMNF_MODE_MANUAL; mode++) {
		set_mode(_metadata, self->dev, mode);
		p = map_field(_metadata, self->dev, 0, self->bytes, MAP_SHARED);
		/* Backwards by pages, then all of it. */
		EXPECT_EQ(0,
			  walk(p, BYTES - PAGE, -(s64)PAGE, BYTES / PAGE, 0));
		EXPECT_EQ(0, wrong_words(p, 0, self->bytes));
		munmap(p, self->bytes);
		if (variant->backing != TMPFS)
			drop_cache(_metadata, self->fd);
	}
	get_stats(_metadata, self->dev);
}

TEST_F(content, several_mappings_of_one_open)
{
	char *p[4];
	int i;

	SKIP_WITHOUT_BACKING();
	for (i = 0; i < 4; i++)
		p[i] = map_field(_metadata, self->dev, 0, self->bytes,
				 i & 1 ? MAP_PRIVATE : MAP_SHARED);
	munmap(p[0], self->bytes);
	for (i = 1; i < 4; i++)
		EXPECT_EQ(0, wrong_words(p[i], 0, self->bytes));
	for (i = 1; i < 4; i++)
		munmap(p[i], self->bytes);
}

TEST_F(content, mapping_at_an_offset)
{
	static const u64 offs[] = { PAGE, 15 * PAGE, 17 * PAGE, MIB,
				    BYTES - PAGE };
	unsigned int i;

	SKIP_WITHOUT_BACKING();
	for (i = 0; i < ARRAY_SIZE(offs); i++) {
		u64 len = self->bytes - offs[i];
		char *p = map_field(_metadata, self->dev, offs[i], len,
				    MAP_SHARED);

		EXPECT_EQ(0, wrong_words(p, offs[i], len))
		TH_LOG("offset %llu", offs[i]);
		munmap(p, len);
	}
}

TEST_F(content, same_as_a_mapping_of_the_file)
{
	char *p, *q;

	SKIP_WITHOUT_BACKING();
	p = map_field(_metadata, self->dev, 0, self->bytes, MAP_SHARED);
	q = mmap(NULL, self->bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
		 self->fd, 0);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(0, memcmp(p, q, self->bytes));
	/* One page cache: what is stored there is seen here at once. */
	*(volatile u64 *)(q + 5 * PAGE) = 1;
	EXPECT_EQ(1, load(p + 5 * PAGE));
	munmap(q, self->bytes);
	munmap(p, self->bytes);
}

TEST_F(content, end_of_file_sigbus)
{
	u64 pages = (self->bytes + PAGE - 1) / PAGE, value;
	char *p;

	SKIP_WITHOUT_BACKING();
	catch_sigbus();
	p = map_field(_metadata, self->dev, 0, (pages + 2) * PAGE, MAP_SHARED);
	EXPECT_FALSE(try_load(p + pages * PAGE, &value));
	ASSERT_TRUE(try_load(p + (pages - 1) * PAGE, &value));
	EXPECT_EQ(word_at((pages - 1) * PAGE), value);
	munmap(p, (pages + 2) * PAGE);
}

MMNF_HARNESS_MAIN
