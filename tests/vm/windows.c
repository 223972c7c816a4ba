// SPDX-License-Identifier: MIT
/*
 * The library's windows with five levels of page tables: a petabyte in segments,
 * all of them mapped, and a petabyte in one file as one map.  Run in a guest by
 * test-petabyte.sh; in the present folder, which needs sparse files.
 */
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <mmnf.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SEGMENTS (1ULL << 14)
#define ROWS (1ULL << 18)
#define COLUMNS (1ULL << 30) /* of 4 bytes: 4 GiB, 16 of them in a segment */
#define BYTES (ROWS * COLUMNS * 4)

static const float *at(struct mmnf_field *f, uint64_t row, uint64_t column)
{
	uint64_t coord[2] = { row, column };
	const float *p = mmnf_activate(f, coord);

	if (!p)
		errx(1, "%s", mmnf_last_error());
	if (!((uintptr_t)p >> 47))
		errx(1, "row %" PRIu64 " is at %p: below 47 bits", row,
		     (const void *)p);
	return p;
}

static struct mmnf_field *open_field(const char *path)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *f;

	opts.engine = MMNF_ENGINE_MMAP;
	opts.writable = 1;
	if (mmnf_field_open(&f, path, &opts))
		errx(1, "%s", mmnf_last_error());
	return f;
}

static void expect(float got, float wanted, const char *what)
{
	if (got != wanted)
		errx(1, "%s is %g: expected %g", what, got, wanted);
}

/* One element in each of three segments; the others are absent. */
static void in_segments(void)
{
	uint64_t shape[2] = { ROWS, COLUMNS }, i;
	const uint64_t row[3] = { 0, ROWS / 2 + 3, ROWS - 1 };
	static const float *p[SEGMENTS];
	MMNF_OPTS(mmnf_field_stats, stats);
	struct mmnf_field *f;

	if (mmnf_field_create("segments", MMNF_F32, 2, shape, NULL))
		errx(1, "%s", mmnf_last_error());
	f = open_field("segments");
	for (i = 0; i < 3; i++) {
		struct mmnf_box box = { { row[i], 5 }, { 1, 1 }, { 1, 1 } };
		float value = (float)i + 1;

		if (mmnf_write(f, &box, &value, sizeof(value)) < 0)
			errx(1, "%s", mmnf_last_error());
	}
	for (i = 0; i < SEGMENTS; i++)
		p[i] = at(f, i * (ROWS / SEGMENTS), 0);
	for (i = 0; i < 3; i++)
		expect(*at(f, row[i], 5), (float)i + 1, "an element");
	expect(p[0][5], 1, "the first pointer");
	for (i = 1; i < SEGMENTS; i += 1024)
		expect(p[i][7], 0, "a hole");
	if (mmnf_field_stats(f, &stats) || stats.windows_mapped != SEGMENTS ||
	    stats.windows_unmapped)
		errx(1, "mapped %" PRIu64 ", unmapped %" PRIu64,
		     stats.windows_mapped, stats.windows_unmapped);
	mmnf_field_close(f);
	printf("%llu segments, all mapped at once\n",
	       (unsigned long long)SEGMENTS);
}

static void in_one_file(void)
{
	const float *first, *last;
	float value = 8;
	struct mmnf_field *f;
	int fd = open("one", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)BYTES) ||
	    pwrite(fd, &value, 4, 0) != 4 ||
	    pwrite(fd, &value, 4, (off_t)BYTES - 4) != 4)
		err(1, "one");
	close(fd);
	f = open_field("one#raw,dtype=f32,shape=262144x1073741824");
	first = at(f, 0, 0);
	last = at(f, ROWS - 1, COLUMNS - 1);
	expect(*first, value, "the first");
	expect(*last, value, "the last");
	expect(*at(f, ROWS / 2, 0), 0, "the middle");
	if (last - first != (ptrdiff_t)(BYTES / 4 - 1))
		errx(1, "first and last are in different maps");
	mmnf_field_close(f);
	printf("%llu bytes, one map\n", (unsigned long long)BYTES);
}

int main(void)
{
	in_segments();
	in_one_file();
	return 0;
}
