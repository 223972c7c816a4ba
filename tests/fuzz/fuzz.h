/* SPDX-License-Identifier: MIT */
/*
 * What the fuzz targets share.  Each is one parser, given any bytes: it may
 * refuse them with a text, or return what holds: every run of the array lies
 * inside the file and inside the packed box.
 *
 *	make fuzz F=npy S=60		new inputs for so many seconds
 *	make check T=fuzz/npy		the corpus once, and every one kept since
 */
#ifndef MMNF_FUZZ_H
#define MMNF_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "shard.h"
#include "store/store.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define FUZZ_CHECK(x)                                                      \
	do {                                                               \
		if (!(x)) {                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, \
				#x);                                       \
			abort();                                           \
		}                                                          \
	} while (0)

/* A refusal has a text that says who, what and what was expected. */
static inline void fuzz_refused(int err)
{
	FUZZ_CHECK(err < 0 && err > -4096);
	FUZZ_CHECK(strlen(mmnf_last_error()) > 10);
}

/* The first runs of the whole array, and of its last element. */
static inline void fuzz_runs(const struct mmnf_geometry *g, u64 file_bytes)
{
	struct mmnf_box box = { { 0 }, { 0 }, { 0 } }, normal;
	struct mmnf_runs it;
	struct mmnf_run run;
	u64 bytes;
	int pass, i;
	u32 axis;

	for (pass = 0; pass < 2; pass++) {
		for (axis = 0; axis < g->ndim; axis++) {
			box.start[axis] = pass ? g->shape[axis] - 1 : 0;
			box.count[axis] = pass ? 1 : g->shape[axis];
		}
		FUZZ_CHECK(!mmnf_geometry_box(g, &box, &normal, &bytes));
		mmnf_runs_init(&it, g, &normal, 1 << 20);
		for (i = 0; i < 8 && mmnf_runs_next(&it, &run); i++) {
			FUZZ_CHECK(run.bytes && run.bytes <= 1 << 20);
			FUZZ_CHECK(run.segment < g->nr_segments);
			FUZZ_CHECK(run.offset <= file_bytes &&
				   run.bytes <= file_bytes - run.offset);
			FUZZ_CHECK(run.dst < bytes);
		}
		FUZZ_CHECK(i);
	}
}

/* A file in memory; then the same beginning of a far larger one. */
static inline void fuzz_format(const struct mmnf_format *format, char *path,
			       const char *selector, const u8 *data,
			       size_t size)
{
	struct mmnf_source src = { .path = path, .selector = selector };
	struct mmnf_geometry g;
	struct mmnf_array a;
	int pass, err;

	src.fd = -1;
	src.head = (u8 *)data;
	src.head_bytes = size;
	for (pass = 0; pass < 2; pass++) {
		src.file_bytes = pass ? 1ULL << 40 : size;
		memset(&a, 0, sizeof(a));
		if (!format->is(&src))
			continue;
		err = format->parse(&a, &src);
		if (err) {
			fuzz_refused(err);
			continue;
		}
		err = mmnf_geometry_init_file(&g, a.dtype, a.ndim, a.shape,
					      a.stride_bytes,
					      a.data_offset_bytes,
					      src.file_bytes);
		if (err)
			fuzz_refused(err);
		else
			fuzz_runs(&g, src.file_bytes);
	}
	free(src.window);
}

#endif
