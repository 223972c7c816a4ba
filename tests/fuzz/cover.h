/* SPDX-License-Identifier: MIT */
/*
 * What of the module a fuzzer's own calls have run through, where the kernel has KCOV
 * (K=debug; only the module is built with it).  Its worker's and io_uring's threads
 * are not seen, so it is the least that was reached.
 *
 * MMNF_FUZZ_COVER names a file for the points: one a line, from the start of .text,
 * for addr2line.
 */
#ifndef MMNF_FUZZ_COVER_H
#define MMNF_FUZZ_COVER_H

#include <linux/kcov.h>
#include <stdio.h>
#include <stdlib.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define COVER_WORDS (1UL << 18)
#define COVER_POINTS (1UL << 16)

static unsigned long
	*cover_area; /* its number of points, then they; NULL: none */
static unsigned long cover_point[COVER_POINTS]; /* by their hash; 0: free */
static unsigned long nr_cover;

static void cover_start(void)
{
	int fd = open("/sys/kernel/debug/kcov", O_RDWR | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, KCOV_INIT_TRACE, COVER_WORDS))
		return;
	cover_area = mmap(NULL, COVER_WORDS * sizeof(*cover_area),
			  PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (cover_area == MAP_FAILED || ioctl(fd, KCOV_ENABLE, KCOV_TRACE_PC))
		cover_area = NULL;
}

static void cover_add(unsigned long point)
{
	unsigned long at = point * 0x9e3779b97f4a7c15ULL >> 48;

	while (cover_point[at] && cover_point[at] != point)
		at = (at + 1) % COVER_POINTS;
	nr_cover += !cover_point[at];
	cover_point[at] = point;
}

/* Takes what has come since the last call. */
static void cover_collect(void)
{
	unsigned long i, nr;

	if (!cover_area)
		return;
	nr = __atomic_exchange_n(cover_area, 0, __ATOMIC_RELAXED);
	for (i = 1; i <= nr; i++)
		cover_add(cover_area[i]);
}

static void cover_print(void)
{
	const char *path = getenv("MMNF_FUZZ_COVER");
	unsigned long start = 0, i;
	FILE *f;

	if (!cover_area)
		return;
	printf("# %lu points of the module were reached\n", nr_cover);
	fflush(stdout);
	f = fopen("/sys/module/mmnf/sections/.text", "r");
	if (f && fscanf(f, "%lx", &start) != 1)
		start = 0;
	if (f)
		fclose(f);
	f = path ? fopen(path, "w") : NULL;
	for (i = 0; f && i < COVER_POINTS; i++)
		if (cover_point[i])
			fprintf(f, "%#lx\n", cover_point[i] - start);
	if (f)
		fclose(f);
}

#endif
