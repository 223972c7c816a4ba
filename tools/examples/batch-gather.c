// SPDX-License-Identifier: MIT
/*
 * Takes many records out of a table at once, and does not wait for one batch before
 * it asks for the next: two are always under way.
 *
 *	cc batch-gather.c -lmmnf -o batch-gather
 *	./batch-gather words 100000
 */
#include <inttypes.h>
#include <mmnf.h>
#include <stdio.h>
#include <stdlib.h>

#define BATCH 1000
#define UNDER_WAY 2

/* Rows that nobody could foresee, the same each time. */
static uint64_t next_row(uint64_t *state, uint64_t rows)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (*state >> 20) % rows;
}

/* Asks for the next batch, into place @slot. */
static int submit(struct mmnf_batch *batch, float *dst, uint64_t slot,
		  const uint64_t *shape, uint64_t *state)
{
	struct mmnf_request request = {
		.user_data = slot,
		.nr = BATCH,
		.dst = dst,
		.dst_bytes = BATCH * shape[1] * sizeof(float),
	};
	uint64_t row[BATCH], i;

	for (i = 0; i < BATCH; i++)
		row[i] = next_row(state, shape[0]);
	request.index = row; /* copied: it need not stay */
	return mmnf_batch_submit(batch, &request, 1) == 1 ? 0 : -1;
}

static int failed(void)
{
	fprintf(stderr, "%s\n", mmnf_last_error());
	return 1;
}

int main(int argc, char **argv)
{
	struct mmnf_field_info info = { .size = sizeof(info) };
	uint64_t batches, sent, done, state = 42, i;
	struct mmnf_completion completion;
	struct mmnf_batch *batch;
	struct mmnf_field *field;
	float *dst[UNDER_WAY];
	double sum = 0;

	if (argc != 3)
		return fprintf(stderr, "usage: batch-gather FIELD RECORDS\n"),
		       2;
	batches = (strtoull(argv[2], NULL, 10) + BATCH - 1) / BATCH;
	if (mmnf_field_open(&field, argv[1], NULL) ||
	    mmnf_field_info(field, &info) ||
	    mmnf_batch_open(&batch, field, NULL))
		return failed();
	if (info.dtype != MMNF_F32 || info.ndim != 2)
		return fprintf(stderr, "expected a table of f32\n"), 1;
	for (sent = 0; sent < UNDER_WAY; sent++) {
		dst[sent] = malloc(BATCH * info.shape[1] * sizeof(float));
		if (!dst[sent])
			return fprintf(stderr, "out of memory\n"), 1;
	}
	for (sent = 0; sent < UNDER_WAY && sent < batches; sent++)
		if (submit(batch, dst[sent], sent, info.shape, &state))
			return failed();
	for (done = 0; done < batches; done++) {
		uint64_t slot;

		/* Whichever is there first. */
		if (mmnf_batch_reap(batch, &completion, 1, 1, -1) != 1 ||
		    completion.result < 0)
			return failed();
		slot = completion.user_data;
		for (i = 0; i < BATCH * info.shape[1]; i++)
			sum += dst[slot][i];
		if (sent < batches &&
		    submit(batch, dst[slot], slot, info.shape, &state))
			return failed();
		sent += sent < batches;
	}
	printf("%" PRIu64 " records, sum %.17g\n", batches * BATCH, sum);
	mmnf_batch_close(batch);
	mmnf_field_close(field);
	for (i = 0; i < UNDER_WAY; i++)
		free(dst[i]);
	return 0;
}
