// SPDX-License-Identifier: MIT
/*
 * Walks a file through a mapping and tells what an access cost.
 *
 *	walk fill FILE START STRIDE NR		write the pages that will be walked
 *	walk ENGINE FILE START STRIDE NR	walk them, one touch per position
 *	walk ENGINE FILE random PAGES NR	NR uniform random pages of the first
 *						PAGES pages
 *
 * ENGINE: default, madv_random, madv_sequential (plain mappings with that
 * advice), off, mmnf (through /dev/mmnf without and with prediction), willneed
 * (an oracle: a plain mapping, the program itself asks 64 accesses ahead).
 *
 * Every 8-byte word at offset o of the data is o * MIX, so a page from the wrong
 * place is noticed: the exit status is 1.  Before each walk the file's pages are
 * dropped from the page cache and that is checked, too.  Prints one JSON object.
 *
 * Never measures through the library or any other layer: loads only.
 */
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <linux/mmnf.h>

#define MIX 0x9E3779B97F4A7C15ULL
#define PAGE 4096ULL
#define ORACLE_AHEAD 64

struct walk {
	bool random;
	uint64_t start, pages;
	int64_t stride;
	uint64_t nr;
	uint64_t seed;
};

/* Position i; random ones come from a counter hashed (splitmix64). */
static uint64_t walk_pos(const struct walk *w, uint64_t i)
{
	uint64_t z;

	if (!w->random)
		return w->start + (uint64_t)w->stride * i;
	z = (i + 1) * MIX;
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
	return (z ^ (z >> 31)) % w->pages * PAGE;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t v = strtoull(text, &end, 0);

	if (*end || !*text)
		errx(2, "%s: expected a number", text);
	return v;
}

static void fill(int fd, const struct walk *w)
{
	uint64_t page[PAGE / 8];
	uint64_t i, k, pos;

	for (i = 0; i < w->nr; i++) {
		pos = walk_pos(w, i) & ~(PAGE - 1);
		for (k = 0; k < PAGE / 8; k++)
			page[k] = (pos + k * 8) * MIX;
		if (pwrite(fd, page, PAGE, pos) != (ssize_t)PAGE)
			err(1, "write at %" PRIu64, pos);
	}
	if (fsync(fd))
		err(1, "fsync");
}

static void drop_cache(int fd, uint64_t bytes)
{
	size_t nr = bytes / PAGE, i, left = 0;
	unsigned char *present;
	void *map;

	if (fsync(fd) || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
		err(1, "drop cache");
	map = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, fd, 0);
	present = malloc(nr);
	if (map == MAP_FAILED || !present || mincore(map, bytes, present))
		err(1, "mincore");
	for (i = 0; i < nr; i++)
		left += present[i] & 1;
	munmap(map, bytes);
	free(present);
	if (left)
		errx(1, "%zu pages stayed in the page cache", left);
}

/*
 * The field that is walked: an array [NR][STRIDE / 8] of 8-byte words, of which
 * the walk touches column 0; for random pages [PAGES][512].
 */
static int attach(int fd, const struct walk *w, bool off)
{
	struct mmnf_ioc_attach a = {
		.size = sizeof(a), .fd = fd, .ndim = 2, .element_bytes = 8
	};
	uint64_t row = w->random     ? PAGE :
		       w->stride < 0 ? -(uint64_t)w->stride :
				       (uint64_t)w->stride;
	struct mmnf_ioc_policy p = { .size = sizeof(p), .mode = MMNF_MODE_OFF };
	int dev = open("/dev/mmnf", O_RDWR | O_CLOEXEC);

	if (dev < 0)
		err(1, "/dev/mmnf");
	a.extent[0] = w->random ? w->pages : w->nr;
	a.stride_bytes[0] = row;
	a.extent[1] = row / 8;
	a.stride_bytes[1] = 8;
	if (ioctl(dev, MMNF_IOC_ATTACH, &a))
		err(1, "attach");
	if (off && ioctl(dev, MMNF_IOC_SET_POLICY, &p))
		err(1, "policy");
	return dev;
}

static const struct {
	const char *name;
	int advice;
	bool device, off, oracle;
} engines[] = {
	{ .name = "default", .advice = MADV_NORMAL },
	{ .name = "madv_random", .advice = MADV_RANDOM },
	{ .name = "madv_sequential", .advice = MADV_SEQUENTIAL },
	{ .name = "off", .device = true, .off = true },
	{ .name = "mmnf", .device = true },
	{ .name = "willneed", .advice = MADV_RANDOM, .oracle = true },
};

static void ask(const char *map, uint64_t pos)
{
	if (madvise((void *)(map + (pos & ~(PAGE - 1))), PAGE, MADV_WILLNEED))
		err(1, "MADV_WILLNEED");
}

/* The loop that is timed; the oracle pays for its own advice. */
static uint64_t touch(const char *map, const struct walk *w, bool oracle)
{
	uint64_t i, pos, wrong = 0;

	for (i = 0; oracle && i < ORACLE_AHEAD && i < w->nr; i++)
		ask(map, walk_pos(w, i));
	for (i = 0; i < w->nr; i++) {
		if (oracle && i + ORACLE_AHEAD < w->nr)
			ask(map, walk_pos(w, i + ORACLE_AHEAD));
		pos = walk_pos(w, i);
		wrong += *(const volatile uint64_t *)(map + pos) != pos * MIX;
	}
	return wrong;
}

int main(int argc, char **argv)
{
	struct mmnf_ioc_stats s = { .size = sizeof(s) };
	uint64_t bytes, began, ns, wrong;
	struct rusage before, after;
	struct walk w = { 0 };
	int fd, dev = -1;
	size_t e;
	char *map;

	if (argc != 6)
		errx(2,
		     "usage: walk fill|ENGINE FILE START|random STRIDE|PAGES NR");
	w.random = !strcmp(argv[3], "random");
	if (w.random) {
		w.pages = number(argv[4]);
	} else {
		w.start = number(argv[3]);
		w.stride = (int64_t)number(argv[4]);
	}
	w.nr = number(argv[5]);
	if (w.random && !w.pages)
		errx(2, "PAGES: expected at least 1");
	fd = open(argv[2],
		  (strcmp(argv[1], "fill") ? O_RDONLY : O_RDWR | O_CREAT) |
			  O_CLOEXEC,
		  0644);
	if (fd < 0)
		err(1, "%s", argv[2]);
	if (!strcmp(argv[1], "fill")) {
		fill(fd, &w);
		return 0;
	}
	for (e = 0; e < sizeof(engines) / sizeof(*engines); e++)
		if (!strcmp(engines[e].name, argv[1]))
			break;
	if (e == sizeof(engines) / sizeof(*engines))
		errx(2, "%s: no such engine", argv[1]);
	bytes = lseek(fd, 0, SEEK_END);
	if (!w.nr || walk_pos(&w, 0) >= bytes ||
	    walk_pos(&w, w.nr - 1) >= bytes)
		errx(2, "the walk leaves the file of %" PRIu64 " bytes", bytes);

	drop_cache(fd, bytes);
	if (engines[e].device)
		dev = attach(fd, &w, engines[e].off);
	map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, dev < 0 ? fd : dev, 0);
	if (map == MAP_FAILED)
		err(1, "mmap");
	if (dev < 0 && madvise(map, bytes, engines[e].advice))
		err(1, "madvise");

	getrusage(RUSAGE_SELF, &before);
	began = now_ns();
	wrong = touch(map, &w, engines[e].oracle);
	ns = now_ns() - began;
	getrusage(RUSAGE_SELF, &after);
	if (dev >= 0 && ioctl(dev, MMNF_IOC_GET_STATS, &s))
		err(1, "stats");

	printf("{\"engine\":\"%s\",\"accesses\":%" PRIu64 ",\"ns\":%" PRIu64
	       ",\"wrong\":%" PRIu64
	       ",\"major_faults\":%ld,\"minor_faults\":%ld",
	       argv[1], w.nr, ns, wrong, after.ru_majflt - before.ru_majflt,
	       after.ru_minflt - before.ru_minflt);
	if (dev >= 0)
		printf(",\"faults\":%llu,\"hits\":%llu,\"late\":%llu,"
		       "\"misses\":%llu,\"prefetched\":%llu,\"used\":%llu,"
		       "\"wasted\":%llu,\"pending\":%llu",
		       s.out_faults, s.out_hits, s.out_late, s.out_misses,
		       s.out_prefetched_pages, s.out_used_pages,
		       s.out_wasted_pages, s.out_pending_pages);
	printf("}\n");
	return wrong != 0;
}
