/* SPDX-License-Identifier: MIT */
/*
 * The CUDA driver as the GPU tier needs it, found at run time.
 *
 * Nothing here needs a CUDA header, and cuda-dl.c is the only file that names a
 * CUDA symbol.  Device addresses are u64, streams and events are void *: they
 * are CUdeviceptr, CUstream and CUevent.
 *
 * Functions return 0 or -errno with text: -ENOMEM where memory ran out, -EINVAL
 * where the driver refused an argument, -EIO where the device is lost; from then
 * on mmnf_cuda_lost() tells so and nothing works but giving back.  Between
 * mmnf_cuda_enter() and mmnf_cuda_leave() the device's primary context is the
 * calling thread's current one; all but open, close, count and reason want that.
 */
#ifndef MMNF_CUDA_DL_H
#define MMNF_CUDA_DL_H

#include "internal.h"

#if !defined(MMNF_NO_CUDA) && __has_include(<cuda.h>)
#define MMNF_HAS_CUDA_H 1
#else
#define MMNF_HAS_CUDA_H 0
#endif

/* The oldest driver that has every symbol used, as cuDriverGetVersion says it. */
#define MMNF_CUDA_DRIVER_MIN 11000

struct mmnf_cuda;

/* How many devices there are; 0, with why in reason, if there are none. */
u32 mmnf_cuda_count(char *reason, size_t len);

/*
 * Retains the primary context of a device and loads the kernels, once for all
 * fields of the process.  -ENODEV where that can't be, with text.
 */
int mmnf_cuda_open(u32 ordinal, struct mmnf_cuda **out);
void mmnf_cuda_close(struct mmnf_cuda *c);

/* "NVIDIA H100, driver 13.0" */
const char *mmnf_cuda_name(const struct mmnf_cuda *c);
u32 mmnf_cuda_ordinal(const struct mmnf_cuda *c);
/* Why launches can't be had; NULL if they can. */
const char *mmnf_cuda_no_kernels(const struct mmnf_cuda *c);
bool mmnf_cuda_lost(const struct mmnf_cuda *c);
/* Is this the process that opened it?  A forked child must keep off. */
bool mmnf_cuda_is_mine(const struct mmnf_cuda *c);

int mmnf_cuda_enter(struct mmnf_cuda *c);
void mmnf_cuda_leave(struct mmnf_cuda *c);

int mmnf_cuda_memory(struct mmnf_cuda *c, u64 *free_bytes, u64 *total_bytes);
int mmnf_cuda_alloc(struct mmnf_cuda *c, u64 bytes, u64 *out);
void mmnf_cuda_free(struct mmnf_cuda *c, u64 p);
/* Page-locked memory of the host. */
int mmnf_cuda_pin(struct mmnf_cuda *c, u64 bytes, void **out);
void mmnf_cuda_unpin(struct mmnf_cuda *c, void *p);

int mmnf_cuda_stream(struct mmnf_cuda *c, void **out);
void mmnf_cuda_stream_free(struct mmnf_cuda *c, void *stream);
int mmnf_cuda_stream_sync(struct mmnf_cuda *c, void *stream);
int mmnf_cuda_stream_wait(struct mmnf_cuda *c, void *stream, void *event);

int mmnf_cuda_event(struct mmnf_cuda *c, bool timing, void **out);
void mmnf_cuda_event_free(struct mmnf_cuda *c, void *event);
int mmnf_cuda_record(struct mmnf_cuda *c, void *event, void *stream);
int mmnf_cuda_sync(struct mmnf_cuda *c, void *event);
int mmnf_cuda_elapsed(struct mmnf_cuda *c, void *from, void *to, float *ms);

int mmnf_cuda_copy_in(struct mmnf_cuda *c, u64 to, const void *from, u64 bytes,
		      void *stream);
int mmnf_cuda_copy_out(struct mmnf_cuda *c, void *to, u64 from, u64 bytes,
		       void *stream);
int mmnf_cuda_copy(struct mmnf_cuda *c, u64 to, u64 from, u64 bytes,
		   void *stream);

/*
 * Copies that have no order among themselves, in one call where the driver has
 * one; addresses of the host count as u64.  Sources are read in stream order,
 * and page-locked unless is_pageable.
 */
struct mmnf_cuda_copies {
	u64 *to, *from;
	size_t *bytes;
	u32 nr;
	bool is_pageable;
};

int mmnf_cuda_copy_many(struct mmnf_cuda *c, const struct mmnf_cuda_copies *l,
			bool from_host, void *stream);

/* The kernels of gather.cu, by their order there. */
enum mmnf_kernel {
	MMNF_GATHER_ROWS_16,
	MMNF_GATHER_ROWS_4,
	MMNF_GATHER_ROWS_1,
	MMNF_GATHER_PIECES,
	MMNF_SCATTER_TILES,
	MMNF_NR_KERNELS,
};

/* nr_threads is what the work can keep busy; the grid follows from it. */
int mmnf_cuda_launch(struct mmnf_cuda *c, enum mmnf_kernel kernel,
		     u64 nr_threads, void **args, void *stream);

/**
 * struct mmnf_cuda_range - what the driver knows of an address
 * @is_device: memory of a device, allocated through CUDA
 * @device: whose
 * @start, @bytes: the allocation it lies in
 */
struct mmnf_cuda_range {
	bool is_device;
	u32 device;
	u64 start, bytes;
};

int mmnf_cuda_range(struct mmnf_cuda *c, u64 p, struct mmnf_cuda_range *out);

#endif
