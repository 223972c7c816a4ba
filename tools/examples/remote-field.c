// SPDX-License-Identifier: MIT
/*
 * Reads a table that lies on an NBD server, by records, without its being mounted
 * or attached here.
 *
 *	cc remote-field.c -lmmnf -o remote-field
 *	nbdkit -U /tmp/socket file words.raw
 *	./remote-field 'nbd+unix:///?socket=/tmp/socket' 1000 64
 */
#include <inttypes.h>
#include <mmnf.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int failed(void)
{
	fprintf(stderr, "%s\n", mmnf_last_error());
	return 1;
}

int main(int argc, char **argv)
{
	struct mmnf_net_stats stats = { .size = sizeof(stats) };
	MMNF_OPTS(mmnf_open_opts, opts);
	uint64_t rows, width, *row, i;
	struct timespec from, to;
	struct mmnf_field *field;
	double sum = 0;
	char name[1024];
	size_t bytes;
	float *data;

	if (argc != 4)
		return fprintf(stderr, "usage: remote-field URI ROWS WIDTH\n"),
		       2;
	rows = strtoull(argv[2], NULL, 10);
	width = strtoull(argv[3], NULL, 10);
	snprintf(name, sizeof(name),
		 "%s#raw,dtype=f32,shape=%" PRIu64 "x%" PRIu64, argv[1], rows,
		 width);
	opts.net_fail_timeout_ms = 10000; /* a server that is away for longer */
	if (mmnf_field_open(&field, name, &opts))
		return failed();
	bytes = rows * width * sizeof(float);
	row = calloc(rows, sizeof(*row));
	data = malloc(bytes);
	if (!row || !data)
		return fprintf(stderr, "out of memory\n"), 1;
	for (i = 0; i < rows; i++)
		row[i] = rows - 1 - i;
	clock_gettime(CLOCK_MONOTONIC, &from);
	/* One call for all: requests for many records are under way at once. */
	if (mmnf_batch_get(field, row, rows, data, bytes) < 0 ||
	    mmnf_net_stats(field, 0, &stats))
		return failed();
	clock_gettime(CLOCK_MONOTONIC, &to);
	for (i = 0; i < rows * width; i++)
		sum += data[i];
	printf("%" PRIu64 " records, sum %.17g, in %.1f ms\n", rows, sum,
	       (double)(to.tv_sec - from.tv_sec) * 1e3 +
		       (double)(to.tv_nsec - from.tv_nsec) / 1e6);
	mmnf_field_close(field);
	free(row);
	free(data);
	return 0;
}
