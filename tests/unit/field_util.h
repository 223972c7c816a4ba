/* SPDX-License-Identifier: MIT */
/* What the tests of the library share: a scratch folder, chance, checks. */
#ifndef MMNF_TEST_FIELD_UTIL_H
#define MMNF_TEST_FIELD_UTIL_H

#include "ktap.h"

#include <fcntl.h>
#include <ftw.h>
#include <mmnf.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static uint64_t seed = 1;

static KTAP_UNUSED uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545F4914F6CDD1DULL;
}

static char scratch_path[256];

static int scratch_remove_one(const char *path, const struct stat *st, int type,
			      struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static void scratch_remove(void)
{
	nftw(scratch_path, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Goes to a new empty folder, which is removed at the end of the test. */
static KTAP_UNUSED void scratch(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(scratch_path, sizeof(scratch_path), "%s/mmnf-XXXXXX",
		 tmp ? tmp : "/tmp");
	ASSERT_TRUE(mkdtemp(scratch_path));
	ASSERT_EQ(chdir(scratch_path), 0);
	atexit(scratch_remove);
}

#define TMPFS 0x01021994

/* For tests that count what is read into pages of 4 KiB. */
static KTAP_UNUSED void need_disk(void)
{
	struct statfs fs;

	if (sysconf(_SC_PAGESIZE) != 4096)
		SKIP("pages are not 4096 bytes");
	ASSERT_EQ(statfs(".", &fs), 0);
	if (fs.f_type == TMPFS)
		SKIP("TMPDIR is a tmpfs: nothing there can be evicted");
}

static KTAP_UNUSED void put_file(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(write(fd, data, len), (ssize_t)len);
	close(fd);
}

/* A failed call: its errno, and a text "function: ..." with a word in it. */
#define EXPECT_FAILS(call, err, function, word)                              \
	do {                                                                 \
		EXPECT_EQ(call, -(err));                                     \
		expect_text(__FILE__, __LINE__, #call, function ": ", word); \
	} while (0)

static KTAP_UNUSED void expect_text(const char *file, int line,
				    const char *call, const char *start,
				    const char *word)
{
	const char *text = mmnf_last_error();

	if (strncmp(text, start, strlen(start)) || !strstr(text, word))
		ktap_failed("# %s:%d: %s\n#\t'%s'\n#\texpected '%s...%s...'\n",
			    file, line, call, text, start, word);
}

static KTAP_UNUSED struct mmnf_field *open_field(const char *path,
						 bool writable)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	opts.engine = MMNF_ENGINE_MMAP;
	opts.writable = writable;
	ASSERT_EQ(mmnf_field_open(&field, path, &opts), 0);
	return field;
}

/* Makes and opens, writable; segment_bytes 0: the default. */
static KTAP_UNUSED struct mmnf_field *
make_field(const char *path, enum mmnf_dtype dtype, unsigned int ndim,
	   const uint64_t *shape, uint64_t segment_bytes, const void *fill)
{
	MMNF_OPTS(mmnf_create_opts, opts);

	opts.segment_bytes = segment_bytes;
	opts.fill = fill;
	ASSERT_EQ(mmnf_field_create(path, dtype, ndim, shape, &opts), 0);
	return open_field(path, true);
}

static KTAP_UNUSED struct mmnf_field_info info_of(struct mmnf_field *field)
{
	MMNF_OPTS(mmnf_field_info, info);

	ASSERT_EQ(mmnf_field_info(field, &info), 0);
	return info;
}

static KTAP_UNUSED struct mmnf_field_stats stats_of(struct mmnf_field *field)
{
	MMNF_OPTS(mmnf_field_stats, stats);

	ASSERT_EQ(mmnf_field_stats(field, &stats), 0);
	return stats;
}

#endif
