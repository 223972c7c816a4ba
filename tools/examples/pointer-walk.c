// SPDX-License-Identifier: MIT
/*
 * Walks a field by pointers, the last axis across all others, and sums it: the
 * order that is worst for a disk.  What comes next is read while this adds.
 *
 *	cc pointer-walk.c -lmmnf -o pointer-walk
 *	./pointer-walk cortex
 */
#include <inttypes.h>
#include <mmnf.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	struct mmnf_field_stats stats = { .size = sizeof(stats) };
	struct mmnf_field_info info = { .size = sizeof(info) };
	uint64_t at[MMNF_NDIM_MAX] = { 0 }, records = 1, i, rest;
	struct mmnf_field *field;
	double sum = 0;
	float value;
	int axis;

	if (argc != 2)
		return fprintf(stderr, "usage: pointer-walk FIELD\n"), 2;
	if (mmnf_field_open(&field, argv[1], NULL) ||
	    mmnf_field_info(field, &info))
		return fprintf(stderr, "%s\n", mmnf_last_error()), 1;
	if (info.dtype != MMNF_F32)
		return fprintf(stderr, "%s: expected f32\n", argv[1]), 1;
	for (axis = 0; axis < (int)info.ndim - 1; axis++)
		records *= info.shape[axis];
	axis = (int)info.ndim - 1;
	for (; at[axis] < info.shape[axis]; at[axis]++)
		for (i = 0; i < records; i++) {
			const float *p;
			int a = axis;

			for (rest = i; a--; rest /= info.shape[a])
				at[a] = rest % info.shape[a];
			p = mmnf_activate(field, at);
			if (!p)
				return fprintf(stderr, "%s\n",
					       mmnf_last_error()),
				       1;
			memcpy(&value, p, sizeof(value));
			sum += value;
		}
	mmnf_field_stats(field, &stats);
	printf("sum %.17g, engine %s\n", sum, info.engine_reason);
	printf("%" PRIu64 " accesses, %" PRIu64 " missed, %" PRIu64
	       " pages read ahead, %" PRIu64 " in vain\n",
	       stats.accesses, stats.misses, stats.prefetched_pages,
	       stats.wasted_pages);
	mmnf_field_close(field);
	return 0;
}
