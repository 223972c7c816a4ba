// SPDX-License-Identifier: MIT
/*
 * Walks a box of a float32 field element by element through mmnf_activate(), in
 * any order of its axes, and checks each value.
 *
 *	axes ENGINE FIELD START COUNT ORDER VALUES
 *
 * ENGINE: device or mmap.  START, COUNT, ORDER: a number per axis, with commas;
 * ORDER names the axes from the slowest to the fastest.  VALUES: a file with the
 * box's values, packed in C order.  Prints one JSON object; the exit status is 1
 * if a value is wrong.
 */
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <mmnf.h>

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void numbers(const char *text, uint64_t *out, uint32_t nr)
{
	char *end = (char *)text;
	uint32_t i;

	for (i = 0; i < nr; i++) {
		out[i] = strtoull(text, &end, 10);
		if (end == text || *end != (i + 1 < nr ? ',' : '\0'))
			errx(2, "expected %u numbers with commas", nr);
		text = end + 1;
	}
}

static uint32_t *read_values(const char *path, uint64_t nr)
{
	FILE *in = fopen(path, "rbe");
	uint32_t *values = malloc(nr * sizeof(*values));

	if (!in || !values)
		err(1, "%s", path);
	if (fread(values, sizeof(*values), nr, in) != nr || fgetc(in) != EOF)
		errx(2, "%s: expected %" PRIu64 " values", path, nr);
	fclose(in);
	return values;
}

/* Like an odometer; the fastest axis is the last of order. */
static int step(uint64_t *i, const uint64_t *count, const uint64_t *order,
		uint32_t ndim)
{
	uint32_t k = ndim;

	while (k-- > 0) {
		if (++i[order[k]] < count[order[k]])
			return 1;
		i[order[k]] = 0;
	}
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t start[MMNF_NDIM_MAX], count[MMNF_NDIM_MAX];
	uint64_t order[MMNF_NDIM_MAX], i[MMNF_NDIM_MAX] = { 0 };
	struct mmnf_field_stats stats = { .size = sizeof(stats) };
	struct mmnf_field_info info = { .size = sizeof(info) };
	uint64_t nr = 1, wrong = 0, began, ns, at[MMNF_NDIM_MAX];
	struct mmnf_open_opts opts = { .size = sizeof(opts) };
	struct mmnf_field *field;
	uint32_t *values, k;

	if (argc != 7)
		errx(2, "usage: axes ENGINE FIELD START COUNT ORDER VALUES");
	opts.engine = strcmp(argv[1], "mmap") ? MMNF_ENGINE_DEVICE :
						MMNF_ENGINE_MMAP;
	if (mmnf_field_open(&field, argv[2], &opts) ||
	    mmnf_field_info(field, &info))
		errx(1, "%s", mmnf_last_error());
	numbers(argv[3], start, info.ndim);
	numbers(argv[4], count, info.ndim);
	numbers(argv[5], order, info.ndim);
	for (k = 0; k < info.ndim; k++) {
		nr *= count[k];
		if (order[k] >= info.ndim)
			errx(2, "%s: expected the numbers of the axes",
			     argv[5]);
	}
	values = read_values(argv[6], nr);

	began = now_ns();
	do {
		const uint32_t *p;
		uint64_t n = 0;

		for (k = 0; k < info.ndim; k++) {
			at[k] = start[k] + i[k];
			n = n * count[k] + i[k];
		}
		p = mmnf_activate(field, at);
		if (!p)
			errx(1, "%s", mmnf_last_error());
		wrong += *p != values[n];
	} while (step(i, count, order, info.ndim));
	ns = now_ns() - began;

	if (mmnf_field_stats(field, &stats))
		errx(1, "%s", mmnf_last_error());
	printf("{\"engine\":\"%s\",\"values\":%" PRIu64 ",\"wrong\":%" PRIu64
	       ",\"ns\":%" PRIu64 ",\"accesses\":%" PRIu64 ",\"hits\":%" PRIu64
	       ",\"late\":%" PRIu64 ",\"misses\":%" PRIu64
	       ",\"prefetched\":%" PRIu64 ",\"used\":%" PRIu64
	       ",\"wasted\":%" PRIu64 ",\"pending\":%" PRIu64 "}\n",
	       argv[1], nr, wrong, ns, stats.accesses, stats.hits, stats.late,
	       stats.misses, stats.prefetched_pages, stats.used_pages,
	       stats.wasted_pages, stats.pending_pages);
	mmnf_field_close(field);
	free(values);
	return wrong != 0;
}
