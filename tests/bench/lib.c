// SPDX-License-Identifier: MIT
/*
 * The library's benchmark, one case by one engine per run: tests/bench/lib.py
 * runs it, and the peers, on one data set.
 *
 *	lib make FOLDER			the data set: 4 GiB
 *	lib tile FOLDER			the same in tiles: 4 GiB more
 *	lib FOLDER CASE ENGINE cold|hot	nanoseconds per item
 *
 * The field is f32 [1024][1024][1024], its file also read as 2^20 rows of 4 KiB.
 * Engines: mmap and direct are the library's, by mmnf_get() and mmnf_batch_get(),
 * and mmap-tiled and direct-tiled on tiles of 64 x 64 x 64; pointer is memcpy()
 * after one mmnf_activate() per record or box; uring is io_uring with O_DIRECT,
 * registered buffers, 64 at once; memcpy copies from a mapping.  Cold:
 * nothing of the file is in memory before.  Hot: the same once before, and the
 * best pass counts, of as many as PASSES and ENOUGH_NS allow.
 */
#include <err.h>
#include <fcntl.h>
#include <liburing.h>
#include <math.h>
#include <mmnf.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define N 1024ULL
#define ROW_BYTES (N * 4)
#define ROWS (N * N)
#define FILE_BYTES (ROWS * ROW_BYTES)
#define DEPTH 64
#define OUT_BYTES (64ULL << 20)
#define PASSES 5 /* as long as they take less than PASSES_NS */
#define PASSES_NS 1000000000ULL
#define ENOUGH_NS 200000000ULL /* more of them until then */

static const uint64_t volume_shape[3] = { N, N, N },
		      rows_shape[2] = { ROWS, N };
static struct mmnf_field *rows, *volume;
static int file;
static const char *map;
static bool pointers; /* into the field, in place of copies */
static bool warming; /* not measured */
static char *out;
static struct io_uring ring;
static char *buffers;

static uint64_t seed = 1;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545F4914F6CDD1DULL;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static float value(uint64_t place)
{
	return (float)(place * 2654435761U >> 8 & 0xfffff);
}

static void fail(void)
{
	errx(1, "%s", mmnf_last_error());
}

static void make(void)
{
	struct mmnf_box box = { { 0 }, { 0, N, N }, { 1, 1, 1 } };
	struct mmnf_field *f;
	float *plane = malloc(N * ROW_BYTES);
	uint64_t z, i;
	MMNF_OPTS(mmnf_open_opts, opts);

	opts.writable = 1;
	if (!plane ||
	    mmnf_field_create("volume", MMNF_F32, 3, volume_shape, NULL) ||
	    mmnf_field_create("rows", MMNF_F32, 2, rows_shape, NULL) ||
	    mmnf_field_open(&f, "volume", &opts))
		fail();
	box.count[0] = 1;
	for (z = 0; z < N; z++) {
		for (i = 0; i < ROWS; i++)
			plane[i] = value(z * ROWS + i);
		box.start[0] = z;
		if (mmnf_write(f, &box, plane, N * ROW_BYTES) < 0)
			fail();
	}
	if (mmnf_field_sync(f))
		fail();
	mmnf_field_close(f);
	free(plane);
}

static void make_tiled(void)
{
	uint64_t tile[3] = { 64, 64, 64 };
	MMNF_OPTS(mmnf_create_opts, create);
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *f;

	create.tile = tile;
	opts.writable = 1;
	if (mmnf_field_create("tiled", MMNF_F32, 3, volume_shape, &create) ||
	    mmnf_field_open(&f, "tiled", &opts) ||
	    mmnf_import(f, "volume", NULL, NULL, NULL) < 0 ||
	    mmnf_field_sync(f))
		fail();
	mmnf_field_close(f);
}

/* ---- what each engine can do */

static void check(const void *at, uint64_t place)
{
	const float *got = at;
	if (*got != value(place))
		errx(1, "element %llu is %g", (unsigned long long)place, *got);
}

/* Raw reads of 4 KiB, or of bytes each, in any order; then the copies. */
static void uring_rows(const uint64_t *row, uint64_t nr, uint64_t bytes)
{
	struct io_uring_cqe *cqe;
	uint64_t next = 0, done = 0, i;
	unsigned int flying = 0;
	uint64_t of[DEPTH];
	unsigned int idle[DEPTH], nr_idle = DEPTH, at;

	for (i = 0; i < DEPTH; i++)
		idle[i] = (unsigned int)i;
	while (done < nr) {
		while (next < nr && nr_idle) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

			at = idle[--nr_idle];
			of[at] = next;
			io_uring_prep_read_fixed(sqe, 0, buffers + at * bytes,
						 (unsigned int)bytes,
						 row[next] * bytes, 0);
			sqe->flags |= IOSQE_FIXED_FILE;
			io_uring_sqe_set_data64(sqe, at);
			next++;
			flying++;
		}
		io_uring_submit_and_wait(&ring, 1);
		while (!io_uring_peek_cqe(&ring, &cqe)) {
			if (cqe->res != (int)bytes)
				errx(1, "read: %d", cqe->res);
			at = (unsigned int)io_uring_cqe_get_data64(cqe);
			io_uring_cqe_seen(&ring, cqe);
			memcpy(out + of[at] * bytes % OUT_BYTES,
			       buffers + at * bytes, bytes);
			idle[nr_idle++] = at;
			flying--;
			done++;
		}
	}
}

static const char *element(struct mmnf_field *field, const uint64_t *at)
{
	const char *p = mmnf_activate(field, at);

	if (!p)
		fail();
	return p;
}

static void get_rows(const uint64_t *row, uint64_t nr)
{
	uint64_t i;

	if (pointers) {
		for (i = 0; i < nr; i++) {
			uint64_t at[2] = { row[i], 0 };

			memcpy(out + i * ROW_BYTES, element(rows, at),
			       ROW_BYTES);
		}
	} else if (rows) {
		if (mmnf_batch_get(rows, row, nr, out, OUT_BYTES) < 0)
			fail();
	} else if (map) {
		for (i = 0; i < nr; i++)
			memcpy(out + i * ROW_BYTES, map + row[i] * ROW_BYTES,
			       ROW_BYTES);
	} else {
		uring_rows(row, nr, ROW_BYTES);
	}
	for (i = 0; i < nr; i += 97)
		check(out + i * ROW_BYTES, row[i] * N);
}

/* From a mapping: rows as long as the memory is without a gap. */
static void copy_box(const struct mmnf_box *box, const char *from)
{
	uint64_t bytes = box->count[2] * 4, z, y, n = 0;
	uint64_t nr = box->count[1];

	if (bytes == ROW_BYTES) {
		bytes *= nr;
		nr = 1;
	}
	for (z = 0; z < box->count[0]; z++)
		for (y = 0; y < nr; y++, n += bytes)
			memcpy(out + n, from + (z * N + y) * ROW_BYTES, bytes);
}

static bool get_box(const struct mmnf_box *box)
{
	uint64_t start =
		(box->start[0] * N + box->start[1]) * N + box->start[2];
	uint64_t z, y, n = 0, row[64 * 64];

	if (pointers) {
		if (warming && mmnf_prefetch(volume, box) < 0)
			fail();
		copy_box(box, element(volume, box->start));
	} else if (volume) {
		if (mmnf_get(volume, box, out, OUT_BYTES) < 0)
			fail();
	} else if (map) {
		copy_box(box, map + start * 4);
	} else {
		/* Rows, whole: the device reads no less. */
		if (box->count[0] * box->count[1] > 64 * 64)
			return false;
		for (z = 0; z < box->count[0]; z++)
			for (y = 0; y < box->count[1]; y++)
				row[n++] = (box->start[0] + z) * N +
					   box->start[1] + y;
		uring_rows(row, n, ROW_BYTES);
		return true;
	}
	check(out, start);
	return true;
}

/* ---- cases: items done; 0: this engine can't */

static uint64_t one(void)
{
	uint64_t i, row;

	for (i = 0; i < 500; i++) {
		row = rnd() % ROWS;
		if (rows && !pointers) {
			struct mmnf_box box = { { row }, { 1, N }, { 1, 1 } };

			if (mmnf_get(rows, &box, out, ROW_BYTES) < 0)
				fail();
			check(out, row * N);
		} else {
			get_rows(&row, 1);
		}
	}
	return 500;
}

static uint64_t batch(void)
{
	static uint64_t row[1000];
	uint64_t i, k;

	for (i = 0; i < 10; i++) {
		for (k = 0; k < 1000; k++)
			row[k] = rnd() % ROWS;
		get_rows(row, 1000);
	}
	return 10000;
}

static double sum[ROWS], total;

static void zipf_init(void)
{
	uint64_t i;

	for (i = 0; i < ROWS; i++)
		sum[i] = total += pow((double)i + 1, -1.09);
}

static uint64_t zipf(void)
{
	static uint64_t row[1000];
	uint64_t i, k;

	for (i = 0; i < 20; i++) {
		for (k = 0; k < 1000; k++) {
			double x = (double)(rnd() >> 11) / 0x1p53 * total;
			uint64_t low = 0, high = ROWS - 1;

			while (low < high) {
				uint64_t mid = (low + high) / 2;

				if (sum[mid] < x)
					low = mid + 1;
				else
					high = mid;
			}
			row[k] = low * 7919 % ROWS;
		}
		get_rows(row, 1000);
	}
	return 20000;
}

static uint64_t slices(unsigned int axis, uint64_t nr)
{
	struct mmnf_box box;
	uint64_t i, k;

	for (i = 0; i < nr; i++) {
		for (k = 0; k < 3; k++) {
			box.start[k] = k == axis ? rnd() % N : 0;
			box.count[k] = k == axis ? 1 : N;
			box.step[k] = 1;
		}
		if (!get_box(&box))
			return 0;
	}
	return nr;
}

static uint64_t slice_z(void)
{
	return slices(0, 4);
}

static uint64_t slice_y(void)
{
	return slices(1, 4);
}

static uint64_t slice_x(void)
{
	return slices(2, 1);
}

static uint64_t boxes(void)
{
	struct mmnf_box box;
	uint64_t i, k;

	for (i = 0; i < 16; i++) {
		for (k = 0; k < 3; k++) {
			box.start[k] = rnd() % (N - 64);
			box.count[k] = 64;
			box.step[k] = 1;
		}
		get_box(&box);
	}
	return 16;
}

/* An eighth of the field: it fits into the memory of the hot case, too. */
static uint64_t scan(void)
{
	struct mmnf_box box = { { 0 }, { 1, N, N }, { 1, 1, 1 } };
	static uint64_t piece[64];
	uint64_t i, k;

	for (i = 0; i < 128; i++) {
		if (volume || map) {
			box.start[0] = i;
			get_box(&box);
			continue;
		}
		if (i % 2)
			continue; /* 64 pieces of 128 KiB: two planes */
		for (k = 0; k < 64; k++)
			piece[k] = i * 32 + k;
		uring_rows(piece, 64, 128 << 10);
	}
	return 128;
}

static const struct {
	const char *name;
	bool rows; /* by records, else by boxes */
	uint64_t (*run)(void);
} cases[] = {
	{ "get", true, one },	       { "batch-1000", true, batch },
	{ "zipf-1.09", true, zipf },   { "slice-z", false, slice_z },
	{ "slice-y", false, slice_y }, { "slice-x", false, slice_x },
	{ "box-64", false, boxes },    { "scan", false, scan },
};

static void open_engine(const char *engine, bool by_rows)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct iovec iov;

	file = open("volume/c/0/0/0", O_RDONLY | O_DIRECT);
	if (file < 0)
		err(1, "volume/c/0/0/0");
	posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
	if (!strcmp(engine, "memcpy")) {
		map = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, file, 0);
		if (map == MAP_FAILED)
			err(1, "mmap");
		madvise((void *)map, FILE_BYTES, MADV_RANDOM);
	} else if (!strcmp(engine, "uring")) {
		iov.iov_len = DEPTH * (128ULL << 10);
		iov.iov_base = buffers = aligned_alloc(4096, iov.iov_len);
		if (io_uring_queue_init(DEPTH, &ring, 0) ||
		    io_uring_register_files(&ring, &file, 1) ||
		    io_uring_register_buffers(&ring, &iov, 1))
			errx(1, "io_uring");
	} else {
		opts.engine = engine[0] == 'd' ? MMNF_ENGINE_DIRECT :
						 MMNF_ENGINE_MMAP;
		opts.l2_bytes = 512 << 20;
		opts.l2_populate = engine[0] == 'd';
		pointers = !strcmp(engine, "pointer");
		if (mmnf_field_open(by_rows ? &rows : &volume,
				    by_rows		     ? "rows" :
				    strstr(engine, "-tiled") ? "tiled" :
							       "volume",
				    &opts))
			fail();
	}
}

int main(int argc, char **argv)
{
	uint64_t i, pass, start, items = 0, ns, best = UINT64_MAX, spent = 0;
	bool hot;

	if (argc == 3 && !strcmp(argv[1], "make") && !chdir(argv[2])) {
		make();
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], "tile") && !chdir(argv[2])) {
		make_tiled();
		return 0;
	}
	if (argc != 5 || chdir(argv[1]))
		errx(2, "FOLDER CASE ENGINE cold|hot");
	hot = !strcmp(argv[4], "hot");
	out = aligned_alloc(4096, OUT_BYTES);
	if (!out)
		errx(1, "no memory");
	memset(out, 0, OUT_BYTES);
	for (i = 0; strcmp(cases[i].name, argv[2]);)
		if (++i == sizeof(cases) / sizeof(cases[0]))
			errx(2, "%s: no such case", argv[2]);
	if (cases[i].run == zipf)
		zipf_init();
	open_engine(argv[3], cases[i].rows);
	warming = hot;
	if (hot)
		cases[i].run();
	warming = false;
	for (pass = 0;
	     !pass || (hot && spent < (pass < PASSES ? PASSES_NS : ENOUGH_NS));
	     pass++) {
		seed = 1;
		start = now_ns();
		items = cases[i].run();
		ns = now_ns() - start;
		best = ns < best ? ns : best;
		spent += ns;
	}
	if (items)
		printf("%.0f\n", (double)best / (double)items);
	mmnf_field_close(rows);
	mmnf_field_close(volume);
	return 0;
}
