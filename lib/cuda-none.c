// SPDX-License-Identifier: MIT
/* What cuda-dl.c is where cuda.h was not there to compile it with: no device. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "cuda-dl.h"

#if !MMNF_HAS_CUDA_H

u32 mmnf_cuda_count(char *reason, size_t len)
{
	snprintf(reason, len, "built without cuda.h");
	return 0;
}

int mmnf_cuda_open(u32 ordinal, struct mmnf_cuda **out)
{
	(void)ordinal;
	*out = NULL;
	return mmnf_error(ENODEV, "no GPU: built without cuda.h");
}

/* The rest wants what open() never gives: it is there to be linked. */
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define NEVER(type, name, ...) \
	type name(__VA_ARGS__) \
	{                      \
		abort();       \
	}

NEVER(void, mmnf_cuda_close, struct mmnf_cuda *c)
NEVER(const char *, mmnf_cuda_name, const struct mmnf_cuda *c)
NEVER(u32, mmnf_cuda_ordinal, const struct mmnf_cuda *c)
NEVER(const char *, mmnf_cuda_no_kernels, const struct mmnf_cuda *c)
NEVER(bool, mmnf_cuda_lost, const struct mmnf_cuda *c)
NEVER(bool, mmnf_cuda_is_mine, const struct mmnf_cuda *c)
NEVER(int, mmnf_cuda_enter, struct mmnf_cuda *c)
NEVER(void, mmnf_cuda_leave, struct mmnf_cuda *c)
NEVER(int, mmnf_cuda_memory, struct mmnf_cuda *c, u64 *f, u64 *t)
NEVER(int, mmnf_cuda_alloc, struct mmnf_cuda *c, u64 n, u64 *out)
NEVER(void, mmnf_cuda_free, struct mmnf_cuda *c, u64 p)
NEVER(int, mmnf_cuda_pin, struct mmnf_cuda *c, u64 n, void **out)
NEVER(void, mmnf_cuda_unpin, struct mmnf_cuda *c, void *p)
NEVER(int, mmnf_cuda_stream, struct mmnf_cuda *c, void **out)
NEVER(void, mmnf_cuda_stream_free, struct mmnf_cuda *c, void *s)
NEVER(int, mmnf_cuda_stream_sync, struct mmnf_cuda *c, void *s)
NEVER(int, mmnf_cuda_stream_wait, struct mmnf_cuda *c, void *s, void *e)
NEVER(int, mmnf_cuda_event, struct mmnf_cuda *c, bool timing, void **out)
NEVER(void, mmnf_cuda_event_free, struct mmnf_cuda *c, void *e)
NEVER(int, mmnf_cuda_record, struct mmnf_cuda *c, void *e, void *s)
NEVER(int, mmnf_cuda_sync, struct mmnf_cuda *c, void *e)
NEVER(int, mmnf_cuda_elapsed, struct mmnf_cuda *c, void *a, void *b, float *ms)
NEVER(int, mmnf_cuda_copy_in, struct mmnf_cuda *c, u64 to, const void *from,
      u64 n, void *s)
NEVER(int, mmnf_cuda_copy_out, struct mmnf_cuda *c, void *to, u64 from, u64 n,
      void *s)
NEVER(int, mmnf_cuda_copy, struct mmnf_cuda *c, u64 to, u64 from, u64 n,
      void *s)
NEVER(int, mmnf_cuda_copy_many, struct mmnf_cuda *c,
      const struct mmnf_cuda_copies *l, bool from_host, void *s)
NEVER(int, mmnf_cuda_launch, struct mmnf_cuda *c, enum mmnf_kernel k, u64 n,
      void **args, void *s)
NEVER(int, mmnf_cuda_range, struct mmnf_cuda *c, u64 p,
      struct mmnf_cuda_range *out)

#endif
