// SPDX-License-Identifier: MIT
/*
 * Reads over NBD by the library and by a plain loop of libnbd, in turn: net.py
 * starts the servers and makes the table.
 *
 *	net random URI DEPTH READS ROUNDS	4 KiB records at random places: by both
 *						without and with keeping them
 *	net walk URI STRIDE READS ROUNDS	records in a stride, cold, one by one;
 *						the loop is told all beforehand
 *	net scan URI BYTES READS ROUNDS		so many bytes in a row at once, by the
 *						library in boxes of 32 MiB
 *	net open URI ROUNDS
 *	net share SECONDS URI...		reads each 100 ms of each server
 *
 * The server is nbdkit's `pattern`, so each record is checked, after its side's time
 * was taken.  JSON lines.
 */
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <libnbd.h>
#include <mmnf.h>

#define RECORD 4096
#define RECORDS (1ULL << 38) /* of a petabyte */
#define DEPTH_MAX 1024
#define CONNS 4
#define WALK_DEPTH 64
#define STRIPE (1ULL << 20)
#define SCAN_DEPTH 16
#define SCAN_BOX (32ULL << 20)
#define L2_BYTES (64ULL << 20)
#define HUGE_BYTES (2ULL << 20)

static uint64_t seed = 88172645463325252ULL;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double from_wall, from_cpu, spent_cpu;

static void begin(void)
{
	from_cpu = cpu_seconds();
	from_wall = now();
}

/* Seconds since; those of the processor are in spent_cpu. */
static double end(void)
{
	double wall = now() - from_wall;

	spent_cpu = cpu_seconds() - from_cpu;
	return wall;
}

static size_t read_bytes = RECORD; /* of a read of the loop */

/* What both read into: one behind the other. */
static char *all;

/* It is there already when it is read into. */
static void make_room(unsigned int nr)
{
	all = malloc(nr * read_bytes);
	if (!all)
		errx(1, "no memory");
	memset(all, 1, nr * read_bytes);
}

static void check(const char *record, uint64_t at)
{
	uint64_t first, last;

	memcpy(&first, record, 8);
	memcpy(&last, record + RECORD - 8, 8);
	if (__builtin_bswap64(first) != at ||
	    __builtin_bswap64(last) != at + RECORD - 8)
		errx(1, "wrong bytes at %" PRIu64, at);
}

/* Each record that was read from the places of a list.  Then none is right any more. */
static void check_all(const uint64_t *list, unsigned int nr)
{
	unsigned int i;
	size_t at;

	for (i = 0; i < nr; i++)
		for (at = 0; at < read_bytes; at += RECORD)
			check(all + i * read_bytes + at, list[i] + at);
	memset(all, 1, nr * read_bytes);
}

/* ---- libnbd */

/* to: what was read is copied there; NULL: it was read there */
struct slot {
	char *data, *to;
	bool done;
};

static int nr_open;
static struct nbd_handle *handle[CONNS];
static struct slot slots[DEPTH_MAX];

static void raw_open(const char *uri, int conns)
{
	for (nr_open = 0; nr_open < conns; nr_open++) {
		struct nbd_handle *h = nbd_create();

		nbd_set_request_structured_replies(h, false);
		nbd_set_pread_initialize(h, false);
		if (!h || nbd_connect_uri(h, uri))
			errx(1, "%s", nbd_get_error());
		handle[nr_open] = h;
	}
}

static void raw_close(void)
{
	while (nr_open)
		nbd_close(handle[--nr_open]);
}

static int raw_done(void *user, int *error)
{
	struct slot *s = user;

	if (*error)
		errx(1, "libnbd: %s", strerror(*error));
	if (s->to)
		memcpy(s->to, s->data, read_bytes);
	s->done = true;
	return 1;
}

/* As much memory as L2 has, for a loop that keeps what it reads; or NULL. */
static char *keep;
static uint64_t keep_at;

static void raw_start(struct slot *s, int conn, uint64_t at, char *to)
{
	nbd_completion_callback done = { .callback = raw_done, .user_data = s };

	s->data = to;
	s->to = NULL;
	if (keep) {
		s->to = to;
		s->data = keep + keep_at;
		keep_at = (keep_at + read_bytes) % L2_BYTES;
	}
	s->done = false;
	if (nbd_aio_pread(handle[conn], s->data, read_bytes, at, done, 0) < 0)
		errx(1, "%s", nbd_get_error());
}

static void raw_wait(void)
{
	struct pollfd pfd[CONNS];
	int i;

	for (i = 0; i < nr_open; i++) {
		unsigned int d = nbd_aio_get_direction(handle[i]);

		pfd[i] = (struct pollfd) { .fd = nbd_aio_get_fd(handle[i]) };
		if (d & LIBNBD_AIO_DIRECTION_READ)
			pfd[i].events |= POLLIN;
		if (d & LIBNBD_AIO_DIRECTION_WRITE)
			pfd[i].events |= POLLOUT;
	}
	poll(pfd, (nfds_t)nr_open, -1);
	for (i = 0; i < nr_open; i++) {
		if (pfd[i].revents & POLLIN)
			nbd_aio_notify_read(handle[i]);
		else if (pfd[i].revents & POLLOUT)
			nbd_aio_notify_write(handle[i]);
	}
}

/* Places in a list, up to depth at once; seconds. */
static double raw_reads(const uint64_t *list, unsigned int nr,
			unsigned int depth)
{
	unsigned int started = 0, done = 0, i;

	begin();
	for (i = 0; i < depth; i++)
		slots[i].done = true;
	while (done < nr) {
		for (i = 0; i < depth && started < nr; i++)
			if (slots[i].done) {
				raw_start(&slots[i], (int)i % nr_open,
					  list[started],
					  all + started * read_bytes);
				started++;
			}
		raw_wait();
		for (done = started, i = 0; i < depth; i++)
			done -= !slots[i].done;
	}
	return end();
}

/* ---- the library */

static struct mmnf_field *field;

static struct mmnf_field *open_field(const char *uri, uint64_t l2_bytes,
				     bool once)
{
	struct mmnf_field *f;
	MMNF_OPTS(mmnf_open_opts, opts);
	char name[1200];

	opts.l2_bytes = l2_bytes;
	opts.l2_populate = 1;
	opts.l2_once = once;
	snprintf(name, sizeof(name), "%s#raw,dtype=u64,shape=%lldx512", uri,
		 (long long)RECORDS);
	if (mmnf_field_open(&f, name, &opts))
		errx(1, "%s", mmnf_last_error());
	return f;
}

static void field_open(const char *uri, uint64_t l2_bytes)
{
	field = open_field(uri, l2_bytes, false);
}

static double one_by_one(const uint64_t *list, unsigned int nr)
{
	struct mmnf_box box = { { 0 }, { 1, 512 }, { 1, 1 } };
	unsigned int i;

	begin();
	for (i = 0; i < nr; i++) {
		box.start[0] = list[i] / RECORD;
		if (mmnf_get(field, &box, all + (size_t)i * RECORD, RECORD) !=
		    RECORD)
			errx(1, "%s", mmnf_last_error());
	}
	return end();
}

static struct mmnf_batch *open_batch(struct mmnf_field *f, unsigned int depth)
{
	MMNF_OPTS(mmnf_batch_opts, opts);
	struct mmnf_batch *batch;

	opts.depth = depth;
	if (mmnf_batch_open(&batch, f, &opts))
		errx(1, "%s", mmnf_last_error());
	return batch;
}

/* One request for all: so many are read at once. */
static double batched(struct mmnf_batch *batch, const uint64_t *list,
		      unsigned int nr)
{
	size_t bytes = (size_t)nr * RECORD;
	struct mmnf_completion came = { 0 };
	struct mmnf_request r = { .nr = nr, .dst_bytes = bytes };
	uint64_t *index = malloc(nr * sizeof(*index));
	unsigned int i;
	double wall;

	if (!index)
		errx(1, "no memory");
	for (i = 0; i < nr; i++)
		index[i] = list[i] / RECORD;
	r.index = index;
	r.dst = all;
	begin();
	if (mmnf_batch_submit(batch, &r, 1) != 1 ||
	    mmnf_batch_reap(batch, &came, 1, 1, -1) != 1 ||
	    came.result != (int64_t)bytes)
		errx(1, "%s", mmnf_last_error());
	wall = end();
	free(index);
	return wall;
}

/* ---- cases */

static void report(const char *engine, unsigned int nr, double seconds)
{
	printf("{\"engine\": \"%s\", \"reads\": %u, \"seconds\": %.6f, \"cpu_us_per_read\": %.2f}\n",
	       engine, nr, seconds, spent_cpu * 1e6 / nr);
	fflush(stdout);
}

/* What was read from the places of a list, and in which time. */
static void came(const char *engine, const uint64_t *list, unsigned int nr,
		 double seconds)
{
	check_all(list, nr);
	report(engine, nr, seconds);
}

static void scatter(uint64_t *list, unsigned int nr)
{
	while (nr)
		list[--nr] = rnd() % RECORDS * RECORD;
}

/* A field and what reads it; opened once, as the connections of the loop are. */
struct side {
	struct mmnf_field *field;
	struct mmnf_batch *batch;
};

static struct side open_side(const char *uri, bool once, unsigned int depth)
{
	struct side s = { open_field(uri, L2_BYTES, once), NULL };

	s.batch = depth == 1 ? NULL : open_batch(s.field, depth);
	return s;
}

static void close_side(struct side *s)
{
	mmnf_batch_close(s->batch);
	mmnf_field_close(s->field);
}

static double by_library(const struct side *s, const uint64_t *list,
			 unsigned int nr)
{
	field = s->field;
	return s->batch ? batched(s->batch, list, nr) : one_by_one(list, nr);
}

static void run_random(const char *uri, unsigned int depth, unsigned int nr,
		       unsigned int rounds)
{
	struct side once = open_side(uri, true, depth);
	struct side keeps = open_side(uri, false, depth);
	uint64_t *list = malloc(nr * sizeof(*list));
	char *memory = aligned_alloc(HUGE_BYTES, L2_BYTES);

	make_room(nr);
	if (!memory)
		errx(1, "no memory");
	madvise(memory, L2_BYTES, MADV_HUGEPAGE);
	memset(memory, 1, L2_BYTES);
	/* As many connections as the library uses for so many. */
	raw_open(uri, depth > 16 ? CONNS : 1);
	while (list && rounds--) {
		scatter(list, nr);
		came("libnbd", list, nr, raw_reads(list, nr, depth));
		scatter(list, nr);
		came("mmnf", list, nr, by_library(&once, list, nr));
		scatter(list, nr);
		keep = memory;
		came("libnbd-keeps", list, nr, raw_reads(list, nr, depth));
		keep = NULL;
		scatter(list, nr);
		came("mmnf-keeps", list, nr, by_library(&keeps, list, nr));
	}
	raw_close();
	close_side(&once);
	close_side(&keeps);
	free(memory);
	free(list);
}

static void run_walk(const char *uri, uint64_t stride, unsigned int nr,
		     unsigned int rounds)
{
	uint64_t *list = malloc(nr * sizeof(*list)), first = 1 << 20;
	unsigned int i, round;

	make_room(nr);
	for (round = 0; list && round < rounds; round++) {
		for (i = 0; i < nr; i++)
			list[i] = (first + i * stride) * RECORD;
		first += nr * stride;
		raw_open(uri, CONNS);
		came("oracle", list, nr, raw_reads(list, nr, WALK_DEPTH));
		raw_close();
		field_open(uri, L2_BYTES);
		came("mmnf", list, nr, one_by_one(list, nr));
		mmnf_field_close(field);
	}
	free(list);
}

/* Cold bytes in a row, into memory. */
static double in_boxes(uint64_t from, uint64_t bytes)
{
	struct mmnf_box box = { { 0 }, { 0, 512 }, { 1, 1 } };
	uint64_t at, n;

	begin();
	for (at = 0; at < bytes; at += n) {
		n = bytes - at < SCAN_BOX ? bytes - at : SCAN_BOX;
		box.start[0] = (from + at) / RECORD;
		box.count[0] = n / RECORD;
		if (mmnf_get(field, &box, all + at, n) != (ssize_t)n)
			errx(1, "%s", mmnf_last_error());
	}
	return end();
}

/* The place behind the last. */
static uint64_t in_a_row(uint64_t *list, unsigned int nr, uint64_t from)
{
	unsigned int i;

	for (i = 0; i < nr; i++, from += read_bytes)
		list[i] = from;
	return from;
}

static void run_scan(const char *uri, size_t bytes, unsigned int nr,
		     unsigned int rounds)
{
	uint64_t *list = malloc(nr * sizeof(*list)), from = 1ULL << 40;

	read_bytes = bytes;
	make_room(nr);
	field_open(uri, L2_BYTES);
	raw_open(uri, 1);
	while (list && rounds--) {
		from = in_a_row(list, nr, from);
		came("libnbd", list, nr, raw_reads(list, nr, SCAN_DEPTH));
		from = in_a_row(list, nr, from);
		came("mmnf", list, nr, in_boxes(list[0], nr * bytes));
	}
	raw_close();
	mmnf_field_close(field);
	free(list);
}

static void run_open(const char *uri, unsigned int rounds)
{
	double wall;

	while (rounds--) {
		begin();
		field_open(uri, 1 << 20);
		wall = end();
		report("mmnf", 1, wall);
		mmnf_field_close(field);
	}
}

#define SERVERS 4

static uint64_t count[SERVERS];
static bool stop;

/* Two reads at once of one server. */
static void *read_share(void *arg)
{
	uint64_t server = (uintptr_t)arg % SERVERS, at, x = (uintptr_t)arg + 1;
	struct mmnf_box box = { { 0 }, { 1, 512 }, { 1, 1 } };
	char record[RECORD];

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		at = ((x >> 30) % (1 << 24) * SERVERS + server) * STRIPE;
		box.start[0] = at / RECORD + x % 7;
		if (mmnf_get(field, &box, record, RECORD) == RECORD)
			__atomic_fetch_add(&count[server], 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void run_share(double seconds, char **uris)
{
	static const uint64_t shape[2] = { RECORDS / 4, 512 };
	MMNF_OPTS(mmnf_create_opts, create);
	MMNF_OPTS(mmnf_open_opts, opts);
	char path[64];
	pthread_t threads[2 * SERVERS];
	double until;
	uintptr_t i;

	create.net = (const char *const *)uris;
	create.nr_net = SERVERS;
	create.stripe_bytes = STRIPE;
	opts.net_fail_timeout_ms = MMNF_NET_FOREVER;
	snprintf(path, sizeof(path), "/tmp/mmnf-share-%d", (int)getpid());
	if (mmnf_field_create(path, MMNF_U64, 2, shape, &create) ||
	    mmnf_field_open(&field, path, &opts))
		errx(1, "%s", mmnf_last_error());
	for (i = 0; i < 2 * SERVERS; i++)
		pthread_create(&threads[i], NULL, read_share, (void *)i);
	for (until = now() + seconds; now() < until;) {
		struct timespec ts = { 0, 100 * 1000000L };

		nanosleep(&ts, NULL);
		printf("{\"seconds\": %.3f, \"reads\": [%" PRIu64 ", %" PRIu64
		       ", %" PRIu64 ", %" PRIu64 "]}\n",
		       seconds - (until - now()), count[0], count[1], count[2],
		       count[3]);
		fflush(stdout);
	}
	strcat(path, "/zarr.json");
	unlink(path);
	path[strlen(path) - strlen("/zarr.json")] = 0;
	rmdir(path);
	_exit(0); /* one of the threads may wait for ever */
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";

	if (!strcmp(what, "random") && argc == 6)
		run_random(argv[2], (unsigned int)atoi(argv[3]),
			   (unsigned int)atoi(argv[4]),
			   (unsigned int)atoi(argv[5]));
	else if (!strcmp(what, "walk") && argc == 6)
		run_walk(argv[2], strtoull(argv[3], NULL, 0),
			 (unsigned int)atoi(argv[4]),
			 (unsigned int)atoi(argv[5]));
	else if (!strcmp(what, "scan") && argc == 6)
		run_scan(argv[2], strtoull(argv[3], NULL, 0),
			 (unsigned int)atoi(argv[4]),
			 (unsigned int)atoi(argv[5]));
	else if (!strcmp(what, "open") && argc == 4)
		run_open(argv[2], (unsigned int)atoi(argv[3]));
	else if (!strcmp(what, "share") && argc == 3 + SERVERS)
		run_share(atof(argv[2]), argv + 3);
	else
		errx(2, "random URI DEPTH READS ROUNDS | walk URI STRIDE READS "
			"ROUNDS | scan URI BYTES READS ROUNDS | open URI "
			"ROUNDS | share SECONDS URI...");
	return 0;
}
