// SPDX-License-Identifier: MIT
/*
 * Walks the files of a field through one kind of mapping, checks each value and
 * tells what the walk cost.
 *
 *	replay ENGINE RECORD_BYTES LINES VALUES
 *
 * LINES: text, "START STRIDE NR PATH" each, in bytes; the walk in its order.
 * VALUES: the 4-byte values that must be found there, in the same order.
 *
 * ENGINE: default, madv_random (plain mappings), off, mmnf (through /dev/mmnf
 * without and with prediction), willneed (an oracle: plain mappings with
 * MADV_RANDOM, the program asks for each page 64 pages before it comes there).
 *
 * Before the walk the pages of every file are dropped from the page cache; how many
 * stayed there is told.  Prints one JSON object; the exit status is 1 if a value is
 * wrong.  walk.c is the same for one file of made-up data.
 */
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <linux/mmnf.h>

#define PAGE 4096ULL
#define ORACLE_AHEAD 64
#define MAX_FILES 64
#define PATH_BYTES 4096

struct file {
	char path[PATH_BYTES];
	uint64_t bytes;
	int fd, dev;
	const char *map;
};

static const struct engine {
	const char *name;
	int advice;
	bool device, off, oracle;
} engines[] = {
	{ .name = "default", .advice = MADV_NORMAL },
	{ .name = "madv_random", .advice = MADV_RANDOM },
	{ .name = "off", .device = true, .off = true },
	{ .name = "mmnf", .device = true },
	{ .name = "willneed", .advice = MADV_RANDOM, .oracle = true },
};

static struct file files[MAX_FILES];
static unsigned int nr_files;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/*
 * The pages that stayed, for memory is where a tmpfs keeps its files.  Only the
 * extents of data are looked at: these files are mostly holes.
 */
static uint64_t drop_cache(const struct file *f)
{
	off_t data, hole = 0;
	uint64_t left = 0;

	if (fsync(f->fd) || posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED))
		err(1, "%s: drop cache", f->path);
	while ((data = lseek(f->fd, hole, SEEK_DATA)) >= 0) {
		unsigned char *present;
		size_t bytes, nr, i;
		void *map;

		hole = lseek(f->fd, data, SEEK_HOLE);
		data &= ~(off_t)(PAGE - 1);
		bytes = hole - data;
		nr = (bytes + PAGE - 1) / PAGE;
		present = malloc(nr);
		map = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, f->fd, data);
		if (!present || map == MAP_FAILED ||
		    mincore(map, bytes, present))
			err(1, "%s: mincore", f->path);
		for (i = 0; i < nr; i++)
			left += present[i] & 1;
		munmap(map, bytes);
		free(present);
	}
	return left;
}

static int attach(const struct file *f, uint64_t record_bytes, bool off)
{
	struct mmnf_ioc_attach a = {
		.size = sizeof(a), .fd = f->fd, .ndim = 1, .element_bytes = 4
	};
	struct mmnf_ioc_policy p = { .size = sizeof(p), .mode = MMNF_MODE_OFF };
	int dev = open("/dev/mmnf", O_RDWR | O_CLOEXEC);

	if (dev < 0)
		err(1, "/dev/mmnf");
	a.record_bytes = record_bytes;
	a.extent[0] = f->bytes / 4;
	a.stride_bytes[0] = 4;
	if (ioctl(dev, MMNF_IOC_ATTACH, &a))
		err(1, "%s: attach", f->path);
	if (off && ioctl(dev, MMNF_IOC_SET_POLICY, &p))
		err(1, "%s: policy", f->path);
	return dev;
}

static struct file *file_of(const char *path)
{
	struct stat st;
	struct file *f;
	unsigned int i;

	for (i = nr_files; i > 0; i--)
		if (!strcmp(files[i - 1].path, path))
			return &files[i - 1];
	if (nr_files == MAX_FILES)
		errx(2, "more than %d files", MAX_FILES);
	f = &files[nr_files++];
	snprintf(f->path, sizeof(f->path), "%s", path);
	f->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (f->fd < 0 || fstat(f->fd, &st))
		err(1, "%s", path);
	f->bytes = st.st_size;
	return f;
}

static uint64_t map_file(struct file *f, const struct engine *e,
			 uint64_t record_bytes)
{
	uint64_t left = drop_cache(f);
	void *map;

	f->dev = e->device ? attach(f, record_bytes, e->off) : -1;
	map = mmap(NULL, f->bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE,
		   e->device ? f->dev : f->fd, 0);
	if (map == MAP_FAILED)
		err(1, "%s: mmap", f->path);
	if (!e->device && madvise(map, f->bytes, e->advice))
		err(1, "%s: madvise", f->path);
	f->map = map;
	return left;
}

/* Two passes, to know the number first; positions become addresses later. */
struct touch {
	unsigned int file;
	uint64_t pos;
};

static size_t read_lines(const char *path, struct touch *out)
{
	FILE *lines = fopen(path, "re");
	char name[PATH_BYTES];
	uint64_t start, nr, i;
	size_t total = 0;
	int64_t stride;
	int got;

	if (!lines)
		err(1, "%s", path);
	while ((got = fscanf(lines,
			     "%" SCNu64 " %" SCNd64 " %" SCNu64 " %4095[^\n]",
			     &start, &stride, &nr, name)) == 4) {
		unsigned int f = (unsigned int)(file_of(name) - files);

		for (i = 0; i < nr; i++) {
			uint64_t pos = start + (uint64_t)stride * i;

			if (pos % 4 || pos + 4 > files[f].bytes)
				errx(2, "%s: %s: no value at %" PRIu64, path,
				     name, pos);
			if (out) {
				out[total + i].file = f;
				out[total + i].pos = pos;
			}
		}
		total += nr;
	}
	if (got != EOF || ferror(lines))
		errx(2, "%s: expected START STRIDE NR PATH", path);
	fclose(lines);
	return total;
}

static uint32_t *read_values(const char *path, size_t nr)
{
	FILE *in = fopen(path, "rbe");
	uint32_t *values = malloc(nr * sizeof(*values));

	if (!in || !values)
		err(1, "%s", path);
	if (fread(values, sizeof(*values), nr, in) != nr || fgetc(in) != EOF)
		errx(2, "%s: expected %zu values", path, nr);
	fclose(in);
	return values;
}

/* The pages of the walk, each where the walk comes to it, and one NULL more. */
static char **pages_of(const char *const *at, size_t nr, size_t *nr_pages)
{
	char **pages = calloc(nr + 1, sizeof(*pages));
	size_t i, n = 0;

	if (!pages)
		err(1, "pages");
	for (i = 0; i < nr; i++) {
		char *page = (char *)((uintptr_t)at[i] & ~(PAGE - 1));

		if (!n || pages[n - 1] != page)
			pages[n++] = page;
	}
	*nr_pages = n;
	return pages;
}

static void ask(char *page)
{
	if (madvise(page, PAGE, MADV_WILLNEED))
		err(1, "MADV_WILLNEED");
}

/* The loop that is timed; the oracle pays for its own advice. */
static uint64_t touch(const char *const *at, const uint32_t *values, size_t nr,
		      char *const *pages, size_t nr_pages, bool oracle)
{
	size_t i, page = 0, asked = 0;
	uint64_t wrong = 0;

	while (oracle && asked < ORACLE_AHEAD && asked < nr_pages)
		ask(pages[asked++]);
	for (i = 0; i < nr; i++) {
		if (at[i] - pages[page] < 0 ||
		    at[i] - pages[page] >= (ptrdiff_t)PAGE) {
			page++;
			if (oracle && asked < nr_pages)
				ask(pages[asked++]);
		}
		wrong += *(const volatile uint32_t *)at[i] != values[i];
	}
	return wrong;
}

static struct mmnf_ioc_stats add_stats(void)
{
	struct mmnf_ioc_stats sum = { 0 };
	unsigned int i;

	for (i = 0; i < nr_files; i++) {
		struct mmnf_ioc_stats s = { .size = sizeof(s) };

		if (ioctl(files[i].dev, MMNF_IOC_GET_STATS, &s))
			err(1, "stats");
		sum.out_faults += s.out_faults;
		sum.out_hits += s.out_hits;
		sum.out_late += s.out_late;
		sum.out_misses += s.out_misses;
		sum.out_prefetched_pages += s.out_prefetched_pages;
		sum.out_used_pages += s.out_used_pages;
		sum.out_wasted_pages += s.out_wasted_pages;
		sum.out_pending_pages += s.out_pending_pages;
	}
	return sum;
}

int main(int argc, char **argv)
{
	const struct engine *e = NULL;
	uint64_t began, ns, wrong, left = 0;
	struct rusage before, after;
	struct touch *touches;
	uint32_t *values;
	size_t nr, nr_pages, i;
	const char **at;
	unsigned int f;
	char **pages;

	if (argc != 5)
		errx(2, "usage: replay ENGINE RECORD_BYTES LINES VALUES");
	for (i = 0; i < sizeof(engines) / sizeof(*engines); i++)
		if (!strcmp(engines[i].name, argv[1]))
			e = &engines[i];
	if (!e)
		errx(2, "%s: no such engine", argv[1]);

	nr = read_lines(argv[3], NULL);
	touches = calloc(nr, sizeof(*touches));
	at = calloc(nr, sizeof(*at));
	if (!nr || !touches || !at)
		errx(2, "%s: no walk", argv[3]);
	read_lines(argv[3], touches);
	values = read_values(argv[4], nr);
	for (f = 0; f < nr_files; f++)
		left += map_file(&files[f], e, strtoull(argv[2], NULL, 0));
	for (i = 0; i < nr; i++)
		at[i] = files[touches[i].file].map + touches[i].pos;
	pages = pages_of(at, nr, &nr_pages);

	getrusage(RUSAGE_SELF, &before);
	began = now_ns();
	wrong = touch(at, values, nr, pages, nr_pages, e->oracle);
	ns = now_ns() - began;
	getrusage(RUSAGE_SELF, &after);

	printf("{\"engine\":\"%s\",\"values\":%zu,\"pages\":%zu,\"ns\":%" PRIu64
	       ",\"wrong\":%" PRIu64 ",\"stayed\":%" PRIu64
	       ",\"major_faults\":%ld",
	       argv[1], nr, nr_pages, ns, wrong, left,
	       after.ru_majflt - before.ru_majflt);
	if (e->device) {
		struct mmnf_ioc_stats s = add_stats();

		printf(",\"faults\":%llu,\"hits\":%llu,\"late\":%llu,"
		       "\"misses\":%llu,\"prefetched\":%llu,\"used\":%llu,"
		       "\"wasted\":%llu,\"pending\":%llu",
		       s.out_faults, s.out_hits, s.out_late, s.out_misses,
		       s.out_prefetched_pages, s.out_used_pages,
		       s.out_wasted_pages, s.out_pending_pages);
	}
	printf("}\n");
	return wrong != 0;
}
