// SPDX-License-Identifier: MIT
/*
 * The table of cases, and how each becomes a list.  Random ones come from a
 * counter hashed (splitmix64), so that every run has the same list.
 *
 *	volume	[85][1024][3072] f32	rows of 12 KiB, planes of 12 MiB, written
 *	cube	[2048][1024][1024] f32	rows of 4 KiB, planes of 4 MiB, sparse
 *	slab	[..][..][200000] f32	rows of 800,000 bytes: no power of two, no
 *					multiple of a page, sparse
 *
 * Nests are walked against the order in which the data lies, so that the carry
 * at the end of each loop is a jump; "box" is a part of an array in its own
 * order, whose inner loop ends where no edge of the array is.
 */
#include <err.h>
#include <math.h>
#include <stdlib.h>

#include "case.h"

const uint64_t data_bytes[] = { 1024 * MIB, 32 * 1024 * MIB };

static uint64_t random_number(uint64_t i)
{
	uint64_t z = (i + 1) * MIX;

	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
	return z ^ (z >> 31);
}

static void add_to_group(struct walk *w, uint64_t group, uint64_t pos,
			 unsigned int carry)
{
	if (w->nr == w->room) {
		w->room = w->room ? w->room * 2 : 4096;
		w->pos = realloc(w->pos, w->room * sizeof(*w->pos));
		w->carry = realloc(w->carry, w->room * sizeof(*w->carry));
		w->group = realloc(w->group, w->room * sizeof(*w->group));
		if (!w->pos || !w->carry || !w->group)
			err(1, "list");
	}
	w->group[w->nr] = (uint8_t)group;
	w->pos[w->nr] = pos;
	w->carry[w->nr++] = (uint8_t)carry;
}

static void add(struct walk *w, uint64_t pos, unsigned int carry)
{
	add_to_group(w, 0, pos, carry);
}

/* All touches of loops in loops, as an odometer turns. */
static void add_levels(struct walk *w, uint64_t start,
		       const struct level *level)
{
	uint64_t i[MAX_LEVELS] = { 0 };
	unsigned int carry = 0, k;

	for (;;) {
		uint64_t pos = start;

		for (k = 0; k < MAX_LEVELS; k++)
			pos += i[k] * (uint64_t)level[k].stride;
		add(w, pos, carry);
		for (k = 0; k < MAX_LEVELS; k++) {
			if (level[k].nr && ++i[k] < level[k].nr)
				break;
			i[k] = 0;
		}
		carry = k;
		if (k == MAX_LEVELS)
			return;
	}
}

static void list_reverse(struct walk *w)
{
	size_t i, k;

	for (i = 0, k = w->nr - 1; i < k; i++, k--) {
		uint64_t pos = w->pos[i];
		uint8_t group = w->group[i];

		w->pos[i] = w->pos[k];
		w->pos[k] = pos;
		w->group[i] = w->group[k];
		w->group[k] = group;
	}
	/* What began a loop forwards ends it backwards. */
	for (i = 1, k = w->nr - 1; i < k; i++, k--) {
		uint8_t carry = w->carry[i];

		w->carry[i] = w->carry[k];
		w->carry[k] = carry;
	}
}

#define BOXES 8
#define BOX_BYTES 2800

/* Boxes of 16 planes, 32 rows and 700 elements, anywhere in the volume. */
static void list_boxes(struct walk *w)
{
	const uint64_t *extent = w->c->extent;
	uint64_t row = extent[2] * 4, plane = extent[1] * row;
	uint64_t b, z, y, at, pos;

	for (b = 0; b < BOXES; b++) {
		at = random_number(3 * b) % (extent[0] - 16) * plane +
		     random_number(3 * b + 1) % (extent[1] - 32) * row +
		     random_number(3 * b + 2) % (extent[2] - 700) * 4;
		for (z = 0; z < 16; z++) {
			for (y = 0; y < 32; y++) {
				pos = at + z * plane + y * row;
				add_to_group(w, b, pos, !y);
				add_to_group(w, b, pos + BOX_BYTES - 4, 0);
			}
		}
	}
}

/* a[i], b[2 * i], c[n - 1 - i] and d[3 * i] in one loop. */
static void list_interleaved(struct walk *w)
{
	const uint64_t nr = 750, step = 68 * KIB, quarter = 256 * MIB;
	uint64_t i;

	for (i = 0; i < nr; i++) {
		add_to_group(w, 0, i * step, 0);
		add_to_group(w, 1, quarter + 2 * i * step, 0);
		add_to_group(w, 2, 2 * quarter + (nr - 1 - i) * step, 0);
		add_to_group(w, 3, 3 * quarter + 3 * i * step, 0);
	}
}

static void list_random(struct walk *w)
{
	uint64_t i;

	for (i = 0; i < 2000; i++)
		add(w, random_number(i) % w->c->extent[0] * PAGE, 0);
}

/*
 * Rejection-inversion sampling: W. Hormann, G. Derflinger, "Rejection-inversion
 * to generate variates from monotone discrete distributions", ACM TOMACS 6(3),
 * 1996.  Ranks 1 .. nr with probability proportional to rank^-s, s != 1.
 */
static double zipf_h(double x, double s)
{
	return exp((1 - s) * log(x)) / (1 - s);
}

static double zipf_h_inverse(double x, double s)
{
	return exp(log((1 - s) * x) / (1 - s));
}

static uint64_t zipf(uint64_t nr, double s, uint64_t *counter)
{
	double low = zipf_h(1.5, s) - 1, high = zipf_h((double)nr + 0.5, s);
	double u, x, rank;

	for (;;) {
		u = high + (double)(random_number((*counter)++) >> 11) *
				   0x1p-53 * (low - high);
		x = zipf_h_inverse(u, s);
		rank = floor(x + 0.5);
		if (rank < 1)
			rank = 1;
		if (u >= zipf_h(rank + 0.5, s) - exp(-s * log(rank)))
			return (uint64_t)rank;
	}
}

/* Rows of an embedding table; popular rows lie anywhere. */
static void list_zipf(struct walk *w)
{
	uint64_t nr = w->c->extent[0], row = w->c->extent[1] * 4;
	uint64_t counter = 1 << 20, i, pos;

	for (i = 0; i < 3000; i++) {
		pos = random_number(zipf(nr, 1.09, &counter)) % nr * row;
		add(w, pos, 0);
		add(w, pos + row - 4, 0);
	}
}

#define VOLUME                 \
	{                      \
		85, 1024, 3072 \
	}
#define CUBE                     \
	{                        \
		2048, 1024, 1024 \
	}
#define SLAB_ROW 800000

#define STRIDE(name_, data_, bytes, count, reverse_)                  \
	{                                                             \
		.name = name_, .class = CLASS_STRIDED, .data = data_, \
		.ndim = 2, .extent = { count, (bytes) / 4 },          \
		.level = { { bytes, count } }, .reverse = reverse_    \
	}

/* Inner loop over z, then y: 64 steps of 38.4 MB, 48 of 800,000 bytes. */
#define NEST2(name_, reverse_)                                           \
	{                                                                \
		.name = name_, .class = CLASS_NEST, .data = DATA_SPARSE, \
		.ndim = 3, .extent = { 64, 48, 200000 }, .start = 4000,  \
		.level = { { 48 * SLAB_ROW, 64 }, { SLAB_ROW, 48 } },    \
		.reverse = reverse_                                      \
	}

/* z, y, then x by 50,000 elements. */
#define NEST3(name_, reverse_)                                           \
	{                                                                \
		.name = name_, .class = CLASS_NEST, .data = DATA_SPARSE, \
		.ndim = 3, .extent = { 24, 32, 200000 }, .start = 4000,  \
		.level = { { 32 * SLAB_ROW, 24 },                        \
			   { SLAB_ROW, 32 },                             \
			   { SLAB_ROW / 4, 4 } },                        \
		.reverse = reverse_                                      \
	}

/* t, z, y, then x by 50,000 elements. */
#define NEST4(name_, reverse_)                                            \
	{                                                                 \
		.name = name_, .class = CLASS_NEST, .data = DATA_SPARSE,  \
		.ndim = 4, .extent = { 6, 8, 16, 200000 }, .start = 4000, \
		.level = { { 8 * 16 * SLAB_ROW, 6 },                      \
			   { 16 * SLAB_ROW, 8 },                          \
			   { SLAB_ROW, 16 },                              \
			   { SLAB_ROW / 4, 4 } },                         \
		.reverse = reverse_                                       \
	}

const struct bench_case bench_cases[] = {
	STRIDE("stride-17p-forward", DATA_FULL, 68 * KIB, 3000, false),
	STRIDE("stride-17p-backward", DATA_FULL, 68 * KIB, 3000, true),
	STRIDE("stride-1MiB-forward", DATA_FULL, MIB, 1000, false),
	STRIDE("stride-1MiB-backward", DATA_FULL, MIB, 1000, true),
	STRIDE("stride-16MiB-forward", DATA_SPARSE, 16 * MIB, 2000, false),
	STRIDE("stride-16MiB-backward", DATA_SPARSE, 16 * MIB, 2000, true),
	{ .name = "y-plane",
	  .class = CLASS_STRIDED,
	  .data = DATA_SPARSE,
	  .ndim = 3,
	  .extent = CUBE,
	  .start = 517 * 4 * KIB,
	  .level = { { 4 * MIB, 2048 } } },
	{ .name = "x-plane-16th-row",
	  .class = CLASS_STRIDED,
	  .data = DATA_FULL,
	  .ndim = 3,
	  .extent = VOLUME,
	  .start = 1234 * 4,
	  .level = { { 16 * 12 * KIB, 64 * 85 } } },
	{ .name = "64th-row",
	  .class = CLASS_STRIDED,
	  .data = DATA_FULL,
	  .ndim = 3,
	  .extent = VOLUME,
	  .record_bytes = 12 * KIB,
	  .nr_telling = 2,
	  .level = { { PAGE, 3 }, { 64 * 12 * KIB, 16 * 85 } } },
	{ .name = "boxes",
	  .class = CLASS_GROUP,
	  .data = DATA_FULL,
	  .ndim = 3,
	  .extent = VOLUME,
	  .nr_telling = 1,
	  .list = list_boxes },
	NEST2("nest2", false),
	NEST3("nest3", false),
	NEST4("nest4", false),
	NEST2("nest2-reverse", true),
	NEST3("nest3-reverse", true),
	NEST4("nest4-reverse", true),
	/* 48 of 96 rows of 64 planes. */
	{ .name = "nest2-box",
	  .class = CLASS_NEST,
	  .data = DATA_SPARSE,
	  .ndim = 3,
	  .extent = { 64, 96, 200000 },
	  .start = 16 * SLAB_ROW + 4000,
	  .level = { { SLAB_ROW, 48 }, { 96 * SLAB_ROW, 64 } } },
	{ .name = "interleaved-4",
	  .class = CLASS_GROUP,
	  .data = DATA_FULL,
	  .ndim = 2,
	  .extent = { 4, 64 * MIB },
	  .nr_sites = 4,
	  .nr_telling = 2,
	  .list = list_interleaved },
	/* Each thread has its quarter of the file. */
	{ .name = "threads-4",
	  .class = CLASS_GROUP,
	  .data = DATA_FULL,
	  .ndim = 2,
	  .extent = { 4, 64 * MIB },
	  .nr_threads = 4,
	  .nr_telling = 2,
	  .level = { { 68 * KIB, 750 }, { 256 * MIB, 4 } } },
	{ .name = "sequential",
	  .class = CLASS_FLAT,
	  .data = DATA_FULL,
	  .ndim = 1,
	  .extent = { 16384 * 1024 },
	  .level = { { PAGE, 16384 } } },
	{ .name = "random",
	  .class = CLASS_FLAT,
	  .data = DATA_SPARSE,
	  .ndim = 2,
	  .extent = { 8 * 1024 * 1024, 1024 },
	  .list = list_random },
	{ .name = "zipf-rows",
	  .class = CLASS_FLAT,
	  .data = DATA_SPARSE,
	  .ndim = 2,
	  .extent = { 22369600, 384 },
	  .record_bytes = 384 * 4,
	  .list = list_zipf },
	{ .name = "hot-sequential",
	  .class = CLASS_HOT,
	  .data = DATA_FULL,
	  .ndim = 1,
	  .extent = { 16384 * 1024 },
	  .level = { { PAGE, 16384 } } },
	{ .name = "hot-17p",
	  .class = CLASS_HOT,
	  .data = DATA_FULL,
	  .ndim = 2,
	  .extent = { 3000, 17 * 1024 },
	  .level = { { 68 * KIB, 3000 } } },
};

const size_t nr_bench_cases = sizeof(bench_cases) / sizeof(*bench_cases);

const char *class_name(enum class class)
{
	static const char *const names[] = { "strided", "nest", "group", "flat",
					     "hot" };

	return names[class];
}

struct walk walk_of(const struct bench_case *c)
{
	struct walk w = { .c = c };
	size_t i;

	if (c->list)
		c->list(&w);
	else
		add_levels(&w, c->start, c->level);
	if (c->reverse)
		list_reverse(&w);
	for (i = 0; i < w.nr; i++)
		if (w.pos[i] % 4 || w.pos[i] + 4 > data_bytes[c->data])
			errx(1, "%s: touch %zu leaves the data", c->name, i);
	return w;
}
