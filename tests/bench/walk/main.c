// SPDX-License-Identifier: MIT
/*
 * Walks a file in every way of a case and tells what a touch cost.
 *
 *	walk list				print the names of the cases
 *	walk fill FULL SPARSE			write the data of all cases
 *	walk fill-case CASE SPARSE		of one that is on the device
 *	walk run CASE ENGINE,..|all FULL SPARSE	walk it, one JSON object a line
 *
 * FULL is a file that is written from end to end, SPARSE a device of 32 GiB, of
 * which the pages that cases touch are written; see case.c and engine.h.
 *
 * Each word of the data tells its own place, so that a page from the wrong one is
 * noticed: the exit status is 1.  Before each walk its pages are dropped from the
 * page cache and that is checked, too.  Each engine has a process of its own.
 *
 * Never measures through the library or any other layer.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine.h"

#define MAX_THREADS 4

/*
 * What one touch costs with stock advice does not depend on how many there are:
 * a part of the walk is enough, and saves most of the time of a run.
 */
#define STOCK_TOUCHES 256

static void fill_pages(int fd, const uint64_t *page, size_t nr)
{
	uint64_t word[PAGE / 8], k;
	size_t i;

	for (i = 0; i < nr; i++) {
		for (k = 0; k < PAGE / 8; k++)
			word[k] = (page[i] * PAGE + k * 8) * MIX;
		if (pwrite(fd, word, PAGE, (off_t)(page[i] * PAGE)) !=
		    (ssize_t)PAGE)
			err(1, "write page %" PRIu64, page[i]);
	}
	if (fsync(fd))
		err(1, "fsync");
}

static void fill_all(int fd, uint64_t bytes)
{
	const uint64_t block = MIB;
	uint64_t *word, pos, k;

	if (posix_memalign((void **)&word, PAGE, block) ||
	    posix_fallocate(fd, 0, (off_t)bytes))
		err(1, "allocate");
	for (pos = 0; pos < bytes; pos += block) {
		for (k = 0; k < block / 8; k++)
			word[k] = (pos + k * 8) * MIX;
		if (pwrite(fd, word, block, (off_t)pos) != (ssize_t)block)
			err(1, "write at %" PRIu64, pos);
	}
	if (fsync(fd))
		err(1, "fsync");
	free(word);
}

static int open_data(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);

	if (fd < 0)
		err(1, "%s", path);
	return fd;
}

static void fill_case(const struct bench_case *c, const char *sparse)
{
	int fd = open_data(sparse, O_WRONLY);
	struct walk w = walk_of(c);
	size_t k;

	if (c->data != DATA_SPARSE)
		errx(2, "%s: is not on the device", c->name);
	for (k = 0; k < w.nr; k++)
		w.pos[k] /= PAGE;
	fill_pages(fd, w.pos, w.nr);
	free(w.pos);
	free(w.carry);
	free(w.group);
	close(fd);
}

static void fill(const char *full, const char *sparse)
{
	int fd = open_data(full, O_WRONLY | O_CREAT | O_DIRECT);
	size_t i;

	fill_all(fd, data_bytes[DATA_FULL]);
	close(fd);
	for (i = 0; i < nr_bench_cases; i++)
		if (bench_cases[i].data == DATA_SPARSE)
			fill_case(&bench_cases[i], sparse);
}

static bool page_is_present(int fd, uint64_t pos)
{
	off_t at = (off_t)(pos & ~(PAGE - 1));
	void *map = mmap(NULL, PAGE, PROT_NONE, MAP_SHARED, fd, at);
	unsigned char present;

	if (map == MAP_FAILED || mincore(map, PAGE, &present))
		err(1, "mincore");
	munmap(map, PAGE);
	return present & 1;
}

/* Reads of an earlier walk may still be under way: they hold their pages. */
static void drop_cache(int fd, const struct walk *w)
{
	size_t i = 0, tries;

	for (tries = 0; tries < 100; tries++) {
		if (fsync(fd) || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
			err(1, "drop cache");
		while (i < w->nr && !page_is_present(fd, w->pos[i]))
			i++;
		if (i == w->nr)
			return;
		usleep(10000);
	}
	errx(1, "page at %" PRIu64 " stayed in the page cache", w->pos[i]);
}

static void make_resident(int fd, const struct walk *w)
{
	size_t i;
	char c;

	if (posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM))
		err(1, "fadvise");
	for (i = 0; i < w->nr; i++)
		if (pread(fd, &c, 1, (off_t)w->pos[i]) != 1)
			err(1, "read");
}

/*
 * The kernel hands out memory for pages faster when it has just freed as many: an
 * engine after one that used the page cache would gain, one after another lose.
 */
static void warm_up(const char *path, const struct walk *w)
{
	int fd = open_data(path, O_RDONLY);

	make_resident(fd, w);
	close(fd);
}

/*
 * What dropping leaves for later (nodes of the page cache are freed by RCU some ticks
 * after) is done before a walk begins, not in one and after the other; and it begins at
 * the same time between two ticks, and of a second, at which the kernel looks after
 * itself.  Where time is virtual, idle time is skipped.
 */
static void settle(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec++;
	t.tv_nsec = 100000000;
	errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
	if (errno)
		err(1, "sleep");
}

static enum mmnf_mode mode_of(const struct engine *e)
{
	if (e->off)
		return MMNF_MODE_OFF;
	return e->told ? MMNF_MODE_MANUAL : MMNF_MODE_AUTO;
}

static int attach(int fd, const struct bench_case *c, enum mmnf_mode mode)
{
	struct mmnf_ioc_attach a = { .size = sizeof(a),
				     .fd = fd,
				     .ndim = c->ndim,
				     .element_bytes = 4,
				     .record_bytes = c->record_bytes };
	struct mmnf_ioc_policy p = { .size = sizeof(p), .mode = mode };
	int dev = open("/dev/mmnf", O_RDWR | O_CLOEXEC);
	int64_t stride = 4;
	uint32_t i;

	if (dev < 0)
		err(1, "/dev/mmnf");
	for (i = c->ndim; i-- > 0; stride *= (int64_t)c->extent[i]) {
		a.extent[i] = c->extent[i];
		a.stride_bytes[i] = stride;
	}
	if (ioctl(dev, MMNF_IOC_ATTACH, &a))
		err(1, "attach");
	if (ioctl(dev, MMNF_IOC_SET_POLICY, &p))
		err(1, "policy");
	return dev;
}

/* All threads begin together. */
struct runner {
	struct part part;
	void (*walk)(struct part *p);
	pthread_barrier_t *start;
	pthread_t thread;
};

static void *run_part(void *arg)
{
	struct runner *r = arg;

	pthread_barrier_wait(r->start);
	r->walk(&r->part);
	return NULL;
}

static void run_threads(struct runner *r, uint32_t nr)
{
	pthread_barrier_t start;
	uint32_t t;

	if (nr == 1) {
		r->walk(&r->part);
		return;
	}
	pthread_barrier_init(&start, NULL, nr);
	for (t = 0; t < nr; t++) {
		r[t].start = &start;
		errno = pthread_create(&r[t].thread, NULL, run_part, &r[t]);
		if (errno)
			err(1, "thread");
	}
	for (t = 0; t < nr; t++)
		pthread_join(r[t].thread, NULL);
}

static void print_result(const struct walk *w, const struct engine *e,
			 const struct runner *r, uint32_t nr_threads,
			 const struct rusage *before)
{
	uint64_t began = r[0].part.sample->began_ns, ended = 0, wrong = 0;
	size_t touches = 0, pages = 0, warm_pages;
	struct mmnf_ioc_stats s = { .size = sizeof(s) };
	struct rusage after;
	uint32_t t;

	getrusage(RUSAGE_SELF, &after);
	for (t = 0; t < nr_threads; t++) {
		const struct part *p = &r[t].part;

		began = p->sample->began_ns < began ? p->sample->began_ns :
						      began;
		ended = p->sample->ended_ns > ended ? p->sample->ended_ns :
						      ended;
		wrong += p->sample->wrong;
		touches += p->end - p->begin;
		pages += p->reads.nr_pages;
	}
	printf("{\"case\":\"%s\",\"class\":\"%s\",\"engine\":\"%s\""
	       ",\"touches\":%zu,\"pages\":%zu,\"ns\":%" PRIu64
	       ",\"wrong\":%" PRIu64
	       ",\"major_faults\":%ld,\"minor_faults\":%ld",
	       w->c->name, class_name(w->c->class), e->name, touches, pages,
	       ended - began, wrong, after.ru_majflt - before->ru_majflt,
	       after.ru_minflt - before->ru_minflt);
	if (nr_threads == 1 && r->part.sample->at_ns)
		measure_touches(r->part.sample, touches);
	if (e->watched)
		measure_stalls(w, r->part.sample, touches);
	if (e->device) {
		if (ioctl(r->part.device, MMNF_IOC_GET_STATS, &s))
			err(1, "stats");
		warm_pages =
			nr_threads > 1 || touches <= WARM_UP ?
				0 :
				pages - r->part.reads.of_touch[WARM_UP].slot;
		measure_counters(&s, &r->part.sample->warm, warm_pages);
	}
	printf("}\n");
	fflush(stdout);
	if (wrong)
		errx(1, "%s: %s: %" PRIu64 " wrong values", w->c->name, e->name,
		     wrong);
}

static bool is_stock(const struct engine *e)
{
	return !e->oracle && !e->uring && (!e->device || e->off) &&
	       e->advice != MADV_RANDOM;
}

/* How many touches of each thread's part are walked. */
static size_t touches_of(const struct walk *w, const struct engine *e,
			 size_t part)
{
	size_t most = STOCK_TOUCHES;

	if (w->c->class == CLASS_FLAT || w->c->class == CLASS_HOT ||
	    !is_stock(e))
		return part;
	return part < most ? part : most;
}

static const char *map_data(int fd, const struct engine *e, int dev,
			    uint64_t bytes)
{
	char *map =
		mmap(NULL, bytes, PROT_READ, MAP_SHARED, dev < 0 ? fd : dev, 0);

	if (map == MAP_FAILED)
		err(1, "mmap");
	if (dev < 0 && madvise(map, bytes, e->advice))
		err(1, "madvise");
	return map;
}

static void run_engine(const struct walk *w, const struct engine *e,
		       const char *path)
{
	int fd = open_data(path, O_RDONLY | (e->uring ? O_DIRECT : 0));
	uint32_t nr_threads = w->c->nr_threads ? w->c->nr_threads : 1, t;
	bool is_hot = w->c->class == CLASS_HOT;
	struct runner r[MAX_THREADS] = { 0 };
	struct sample sample[MAX_THREADS] = { 0 };
	uint64_t *at_ns = calloc(2 * w->nr, sizeof(*at_ns));
	bool *full = calloc(w->nr, sizeof(*full));
	size_t part = w->nr / nr_threads;
	const char *map = NULL;
	struct rusage before;
	int dev = -1;

	if (!at_ns || !full)
		err(1, "times");
	memset(at_ns, 1, 2 * w->nr * sizeof(*at_ns)); /* its page faults, now */
	warm_up(path, w);
	drop_cache(fd, w);
	if (is_hot)
		make_resident(fd, w);
	if (e->device)
		dev = attach(fd, w->c, mode_of(e));
	if (!e->uring)
		map = map_data(fd, e, dev, data_bytes[w->c->data]);
	for (t = 0; t < nr_threads; t++) {
		struct part *p = &r[t].part;

		*p = (struct part) {
			.walk = w,
			.begin = t * part,
			.end = t * part + touches_of(w, e, part),
			.queue_depth = ORACLE_AHEAD / nr_threads,
			.sample = &sample[t],
			.map = map,
			.oracle = e->oracle,
			.causal = e->causal,
			.told = e->told,
			.watched = e->watched,
			.device = dev,
			.fd = fd,
		};
		p->reads = reads_of(w, p->begin, p->end, e->causal);
		sample[t].at_ns = is_hot ? NULL : at_ns;
		sample[t].stall_ns = at_ns + w->nr;
		sample[t].full = full;
		if (e->watched)
			p->disk = disk_of(fd);
		r[t].walk = e->uring ? uring_walk : mapping_walk;
	}
	settle();
	getrusage(RUSAGE_SELF, &before);
	run_threads(r, nr_threads);
	print_result(w, e, r, nr_threads, &before);
	if (is_hot) {
		uint64_t least_ns = UINT64_MAX;

		/* What does a load cost now?  Of some, one has no timer tick. */
		for (t = 0; t < 5; t++) {
			mapping_walk(&r->part);
			if (sample->ended_ns - sample->began_ns < least_ns)
				least_ns = sample->ended_ns - sample->began_ns;
		}
		printf("{\"case\":\"%s-mapped\",\"class\":\"hot\""
		       ",\"engine\":\"%s\",\"touches\":%zu,\"ns\":%" PRIu64
		       ",\"wrong\":%" PRIu64 "}\n",
		       w->c->name, e->name, w->nr, least_ns, sample->wrong);
	}
}

static bool is_in(const char *list, const char *name)
{
	size_t len = strlen(name);

	for (; list; list = strchr(list, ',') ? strchr(list, ',') + 1 : NULL)
		if (!strncmp(list, name, len) &&
		    (list[len] == ',' || !list[len]))
			return true;
	return false;
}

/* Since 6.4, a fault under its area's lock that finds a page locked starts anew. */
static bool waits_are_counted(void)
{
	unsigned int major, minor;
	struct utsname u;

	if (uname(&u) || sscanf(u.release, "%u.%u", &major, &minor) != 2)
		err(1, "uname");
	return major < 6 || (major == 6 && minor < 4);
}

static void run(const struct bench_case *c, const char *wanted,
		const char *const *path)
{
	struct walk w = walk_of(c);
	size_t e, nr = 0;

	for (e = 0; e < nr_engines; e++) {
		int status;
		pid_t pid;

		if (strcmp(wanted, "all") && !is_in(wanted, engines[e].name))
			continue;
		nr++;
		if (((engines[e].uring || engines[e].told) &&
		     c->class == CLASS_HOT) ||
		    (engines[e].watched && c->class != CLASS_NEST) ||
		    (engines[e].causal && !c->nr_telling))
			continue;
		if (engines[e].watched && !waits_are_counted()) {
			warnx("%s: %s: skipped: Linux 6.4 and later do not count a wait for another's read as a major fault",
			      c->name, engines[e].name);
			continue;
		}
		fflush(stdout);
		pid = fork();
		if (pid < 0)
			err(1, "fork");
		if (!pid) {
			run_engine(&w, &engines[e], path[c->data]);
			fflush(stdout);
			_exit(0);
		}
		if (waitpid(pid, &status, 0) != pid || status)
			exit(1);
	}
	if (!nr)
		errx(2, "%s: no such engine", wanted);
}

static const struct bench_case *find(const char *name)
{
	size_t i;

	for (i = 0; i < nr_bench_cases; i++)
		if (!strcmp(name, bench_cases[i].name))
			return &bench_cases[i];
	errx(2, "%s: no such case; see walk list", name);
}

int main(int argc, char **argv)
{
	size_t i;

	if (argc == 2 && !strcmp(argv[1], "list")) {
		for (i = 0; i < nr_bench_cases; i++)
			printf("%s %s\n", bench_cases[i].name,
			       class_name(bench_cases[i].class));
		return 0;
	}
	if (argc == 4 && !strcmp(argv[1], "fill")) {
		fill(argv[2], argv[3]);
		return 0;
	}
	if (argc == 4 && !strcmp(argv[1], "fill-case")) {
		fill_case(find(argv[2]), argv[3]);
		return 0;
	}
	if (argc != 6 || strcmp(argv[1], "run"))
		errx(2, "usage: walk list | fill FULL SPARSE | fill-case CASE "
			"SPARSE | run CASE ENGINE,..|all FULL SPARSE");
	run(find(argv[2]), argv[3], (const char *const *)&argv[4]);
	return 0;
}
