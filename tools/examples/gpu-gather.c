// SPDX-License-Identifier: MIT
/*
 * Gathers records into GPU memory through the GPU tier, twice: the second time
 * they are there already.  Without a GPU the same call for the host gives the
 * same bytes.
 *
 *	cc gpu-gather.c -lmmnf -o gpu-gather
 *	./gpu-gather words 1000
 */
#include <inttypes.h>
#include <mmnf.h>
#include <stdio.h>
#include <stdlib.h>

static int failed(void)
{
	fprintf(stderr, "%s\n", mmnf_last_error());
	return 1;
}

/* From the field to the device, and a copy back to look at it. */
static int gather(struct mmnf_field *field, const struct mmnf_selection *s,
		  float *host, size_t bytes)
{
	uint64_t device;
	int err;

	if (mmnf_device_alloc(&device, 0, bytes))
		return -1;
	/* With a stream of the caller's own this would not wait. */
	err = mmnf_batch_get_device(field, s, device, bytes, NULL) < 0 ||
	      mmnf_device_read(0, host, device, bytes, NULL) < 0;
	mmnf_device_free(device, NULL);
	return -err;
}

int main(int argc, char **argv)
{
	struct mmnf_selection selection = { .size = sizeof(selection) };
	struct mmnf_gpu_stats stats = { .size = sizeof(stats) };
	struct mmnf_field_info info = { .size = sizeof(info) };
	struct mmnf_field *field;
	uint64_t *row, nr, i;
	size_t bytes;
	double sum = 0;
	float *host;

	if (argc != 3)
		return fprintf(stderr, "usage: gpu-gather FIELD RECORDS\n"), 2;
	nr = strtoull(argv[2], NULL, 10);
	if (mmnf_field_open(&field, argv[1], NULL) ||
	    mmnf_field_info(field, &info))
		return failed();
	if (info.dtype != MMNF_F32 || info.ndim != 2 || nr > info.shape[0])
		return fprintf(stderr, "expected a table of f32, and no more "
				       "records than it has\n"),
		       1;
	bytes = nr * info.shape[1] * sizeof(float);
	row = calloc(nr, sizeof(*row));
	host = malloc(bytes);
	if (!row || !host)
		return fprintf(stderr, "out of memory\n"), 1;
	for (i = 0; i < nr; i++)
		row[i] = info.shape[0] - 1 - i * (info.shape[0] / nr);
	selection.index = row;
	selection.nr_index = nr;
	if (mmnf_gpu_enable(field, NULL)) {
		printf("%s: by the host\n", mmnf_last_error());
		if (mmnf_batch_get_host(field, &selection, host, bytes) < 0)
			return failed();
	} else {
		if (gather(field, &selection, host, bytes) ||
		    gather(field, &selection, host, bytes) ||
		    mmnf_gpu_stats(field, 0, &stats))
			return failed();
		printf("on the GPU: %" PRIu64 " tiles hit, %" PRIu64
		       " missed\n",
		       stats.hits, stats.misses);
	}
	for (i = 0; i < nr * info.shape[1]; i++)
		sum += host[i];
	printf("%" PRIu64 " records, sum %.17g\n", nr, sum);
	mmnf_field_close(field);
	free(host);
	free(row);
	return 0;
}
