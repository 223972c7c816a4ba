// SPDX-License-Identifier: MIT
/*
 * libcuda.so.1, found at run time: the only file that names a CUDA symbol.
 *
 * cuda.h renames functions by macros, cuMemAlloc to cuMemAlloc_v2; the old names
 * are there, too, with another ABI.  So a symbol's name is always that macro
 * turned to text, and its type that of the declaration: both are those of the
 * header this was compiled with.
 *
 * Without cuda.h cuda-none.c stands in for this file; without nvcc there is no
 * image (the symbol is weak), and only the copy engines work.
 *
 * The library stays loaded once cuInit() succeeded: the driver has threads.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cuda-dl.h"

#if MMNF_HAS_CUDA_H
#include <cuda.h>

#define NAME_(symbol) #symbol
#define NAME(symbol) NAME_(symbol)

#define REQUIRED(X)                  \
	X(cuInit)                    \
	X(cuDriverGetVersion)        \
	X(cuDeviceGetCount)          \
	X(cuDeviceGet)               \
	X(cuDeviceGetName)           \
	X(cuDeviceGetAttribute)      \
	X(cuDevicePrimaryCtxRetain)  \
	X(cuDevicePrimaryCtxRelease) \
	X(cuCtxPushCurrent)          \
	X(cuCtxPopCurrent)           \
	X(cuMemGetInfo)              \
	X(cuMemAlloc)                \
	X(cuMemFree)                 \
	X(cuMemHostAlloc)            \
	X(cuMemFreeHost)             \
	X(cuMemcpyHtoDAsync)         \
	X(cuMemcpyDtoHAsync)         \
	X(cuMemcpyDtoDAsync)         \
	X(cuPointerGetAttributes)    \
	X(cuStreamCreate)            \
	X(cuStreamDestroy)           \
	X(cuStreamSynchronize)       \
	X(cuStreamWaitEvent)         \
	X(cuEventCreate)             \
	X(cuEventDestroy)            \
	X(cuEventRecord)             \
	X(cuEventSynchronize)        \
	X(cuEventElapsedTime)        \
	X(cuModuleLoadData)          \
	X(cuModuleUnload)            \
	X(cuModuleGetFunction)       \
	X(cuLaunchKernel)            \
	X(cuGetErrorName)            \
	X(cuGetErrorString)

/* In the ABI of 13.0, which lost an argument; older headers do without. */
#if CUDA_VERSION >= 13000
#define OPTIONAL(X) X(cuMemcpyBatchAsync)
#else
#define OPTIONAL(X)
#endif

static struct {
	pthread_mutex_t lock; /* of everything here, and of devices[] */
	void *handle;
	pid_t owner;
	int version, nr_devices;
	bool tried;
	char why_not[256];
#define X(symbol) __typeof__(&(symbol)) p_##symbol;
	REQUIRED(X)
	OPTIONAL(X)
#undef X
} cu = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct mmnf_cuda {
	CUdevice device;
	CUcontext context;
	CUmodule module;
	CUfunction kernel[MMNF_NR_KERNELS];
	u32 ordinal, refs, nr_sm;
	bool lost, no_batch;
	char name[128], no_kernels[160];
};

#define DEVICES_MAX 64
static struct mmnf_cuda *devices[DEVICES_MAX];

extern const unsigned char mmnf_gather_image[] __attribute__((weak));

static const char *error_name(CUresult r)
{
	const char *name = NULL;

	if (!cu.p_cuGetErrorName || cu.p_cuGetErrorName(r, &name) || !name)
		return "error";
	return name;
}

/* After these the context still works; after any other it does not. */
static int errno_of(CUresult r)
{
	switch (r) {
	case CUDA_ERROR_OUT_OF_MEMORY:
	case CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES:
		return ENOMEM;
	case CUDA_ERROR_INVALID_VALUE:
	case CUDA_ERROR_INVALID_HANDLE:
	case CUDA_ERROR_INVALID_CONTEXT:
	case CUDA_ERROR_NOT_FOUND:
		return EINVAL;
	case CUDA_ERROR_NOT_SUPPORTED:
	case CUDA_ERROR_INVALID_IMAGE:
	case CUDA_ERROR_NO_BINARY_FOR_GPU:
	case CUDA_ERROR_INVALID_PTX:
	case CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
		return EOPNOTSUPP;
	default:
		return EIO;
	}
}

static int result(struct mmnf_cuda *c, const char *call, CUresult r)
{
	int err;

	if (r == CUDA_SUCCESS)
		return 0;
	err = errno_of(r);
	if (err == EIO)
		__atomic_store_n(&c->lost, true, __ATOMIC_RELAXED);
	return mmnf_error(err, "device %u: %s: %s (%d)%s", c->ordinal, call,
			  error_name(r), (int)r,
			  err == EIO ? ": the device is lost to this process" :
				       "");
}

#define CALL(c, symbol, ...) result(c, #symbol, cu.p_##symbol(__VA_ARGS__))

static bool look_up(const char *path)
{
#define X(symbol)                                                              \
	*(void **)&cu.p_##symbol = dlsym(cu.handle, NAME(symbol));             \
	if (!cu.p_##symbol) {                                                  \
		snprintf(cu.why_not, sizeof(cu.why_not), "%s has no %s", path, \
			 NAME(symbol));                                        \
		return false;                                                  \
	}
	REQUIRED(X)
#undef X
#define X(symbol) *(void **)&cu.p_##symbol = dlsym(cu.handle, NAME(symbol));
	OPTIONAL(X)
#undef X
	return true;
}

static bool start(void)
{
	CUresult r = cu.p_cuInit(0);

	if (r) {
		snprintf(cu.why_not, sizeof(cu.why_not), "cuInit: %s (%d)",
			 r == CUDA_ERROR_STUB_LIBRARY ?
				 "this is the toolkit's stub, no driver" :
				 error_name(r),
			 (int)r);
		return false;
	}
	r = cu.p_cuDriverGetVersion(&cu.version);
	if (!r && cu.version < MMNF_CUDA_DRIVER_MIN) {
		snprintf(cu.why_not, sizeof(cu.why_not),
			 "driver is for CUDA %d.%d: expected %d.%d or later",
			 cu.version / 1000, cu.version % 1000 / 10,
			 MMNF_CUDA_DRIVER_MIN / 1000,
			 MMNF_CUDA_DRIVER_MIN % 1000 / 10);
		return true;
	}
	if (!r)
		r = cu.p_cuDeviceGetCount(&cu.nr_devices);
	if (r)
		snprintf(cu.why_not, sizeof(cu.why_not),
			 "cuDeviceGetCount: %s (%d)", error_name(r), (int)r);
	else if (!cu.nr_devices)
		snprintf(cu.why_not, sizeof(cu.why_not), "no CUDA device");
	return true;
}

/* Once for the process.  The caller holds the lock. */
static void load(void)
{
	const char *path = secure_getenv("MMNF_LIBCUDA");

	if (cu.tried)
		return;
	cu.tried = true;
	cu.owner = getpid();
	if (!path)
		path = "libcuda.so.1";
	cu.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!cu.handle) {
		snprintf(cu.why_not, sizeof(cu.why_not), "%s", dlerror());
		return;
	}
	if (!look_up(path) || !start()) {
		dlclose(cu.handle);
		cu.handle = NULL;
	}
}

u32 mmnf_cuda_count(char *reason, size_t len)
{
	u32 nr;

	pthread_mutex_lock(&cu.lock);
	load();
	nr = cu.why_not[0] ? 0 : (u32)cu.nr_devices;
	snprintf(reason, len, "%s", cu.why_not);
	if (nr && cu.owner != getpid()) {
		snprintf(
			reason, len,
			"CUDA was started before fork(): expected the same process");
		nr = 0;
	}
	pthread_mutex_unlock(&cu.lock);
	return nr;
}

/* Fails softly: without kernels the copy engines do it. */
static void load_kernels(struct mmnf_cuda *c)
{
	static const char *const names[MMNF_NR_KERNELS] = {
		"mmnf_gather_rows_16", "mmnf_gather_rows_4",
		"mmnf_gather_rows_1",  "mmnf_gather_pieces",
		"mmnf_scatter_tiles",
	};
	const char *call = "cuModuleLoadData";
	CUresult r;
	int i;

	if (!mmnf_gather_image) {
		snprintf(c->no_kernels, sizeof(c->no_kernels),
			 "built without nvcc");
		return;
	}
	r = cu.p_cuModuleLoadData(&c->module, mmnf_gather_image);
	if (r)
		c->module = NULL;
	for (i = 0; !r && i < MMNF_NR_KERNELS; i++) {
		call = names[i];
		r = cu.p_cuModuleGetFunction(&c->kernel[i], c->module,
					     names[i]);
	}
	if (r)
		snprintf(c->no_kernels, sizeof(c->no_kernels), "%s: %s (%d)",
			 call, error_name(r), (int)r);
}

static int describe(struct mmnf_cuda *c)
{
	char name[96];
	int nr_sm, err;

	err = CALL(c, cuDeviceGet, &c->device, (int)c->ordinal);
	if (!err)
		err = CALL(c, cuDeviceGetName, name, sizeof(name), c->device);
	if (!err)
		err = CALL(c, cuDeviceGetAttribute, &nr_sm,
			   CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, c->device);
	if (err)
		return err;
	c->nr_sm = (u32)nr_sm;
	snprintf(c->name, sizeof(c->name), "%s, driver %d.%d", name,
		 cu.version / 1000, cu.version % 1000 / 10);
	return 0;
}

static int open_device(u32 ordinal, struct mmnf_cuda **out)
{
	struct mmnf_cuda *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return mmnf_error(ENOMEM, "no memory");
	c->ordinal = ordinal;
	err = describe(c);
	if (!err)
		err = CALL(c, cuDevicePrimaryCtxRetain, &c->context, c->device);
	if (err) {
		free(c);
		return -ENODEV;
	}
	err = mmnf_cuda_enter(c);
	if (err) {
		cu.p_cuDevicePrimaryCtxRelease(c->device);
		free(c);
		return -ENODEV;
	}
	load_kernels(c);
	mmnf_cuda_leave(c);
	devices[ordinal] = c;
	*out = c;
	return 0;
}

int mmnf_cuda_open(u32 ordinal, struct mmnf_cuda **out)
{
	char reason[256];
	u32 nr = mmnf_cuda_count(reason, sizeof(reason));
	int err = 0;

	if (!nr)
		return mmnf_error(ENODEV, "no GPU: %s", reason);
	if (ordinal >= nr || ordinal >= DEVICES_MAX)
		return mmnf_error(ENODEV, "device %u: expected below %u",
				  ordinal, nr);
	pthread_mutex_lock(&cu.lock);
	*out = devices[ordinal];
	if (!*out)
		err = open_device(ordinal, out);
	if (!err)
		(*out)->refs++;
	pthread_mutex_unlock(&cu.lock);
	return err;
}

void mmnf_cuda_close(struct mmnf_cuda *c)
{
	pthread_mutex_lock(&cu.lock);
	if (!--c->refs) {
		devices[c->ordinal] = NULL;
		if (cu.owner == getpid()) {
			if (c->module && !mmnf_cuda_enter(c)) {
				cu.p_cuModuleUnload(c->module);
				mmnf_cuda_leave(c);
			}
			cu.p_cuDevicePrimaryCtxRelease(c->device);
		}
		free(c);
	}
	pthread_mutex_unlock(&cu.lock);
}

const char *mmnf_cuda_name(const struct mmnf_cuda *c)
{
	return c->name;
}

u32 mmnf_cuda_ordinal(const struct mmnf_cuda *c)
{
	return c->ordinal;
}

const char *mmnf_cuda_no_kernels(const struct mmnf_cuda *c)
{
	return c->no_kernels[0] ? c->no_kernels : NULL;
}

bool mmnf_cuda_lost(const struct mmnf_cuda *c)
{
	return __atomic_load_n(&c->lost, __ATOMIC_RELAXED);
}

bool mmnf_cuda_is_mine(const struct mmnf_cuda *c)
{
	(void)c;
	return cu.owner == getpid();
}

int mmnf_cuda_enter(struct mmnf_cuda *c)
{
	return CALL(c, cuCtxPushCurrent, c->context);
}

void mmnf_cuda_leave(struct mmnf_cuda *c)
{
	CUcontext was;

	(void)c;
	cu.p_cuCtxPopCurrent(&was);
}

int mmnf_cuda_memory(struct mmnf_cuda *c, u64 *free_bytes, u64 *total_bytes)
{
	size_t nr_free = 0, total = 0;
	int err = CALL(c, cuMemGetInfo, &nr_free, &total);

	*free_bytes = nr_free;
	*total_bytes = total;
	return err;
}

int mmnf_cuda_alloc(struct mmnf_cuda *c, u64 bytes, u64 *out)
{
	CUdeviceptr p = 0;
	int err = CALL(c, cuMemAlloc, &p, bytes);

	*out = p;
	return err;
}

void mmnf_cuda_free(struct mmnf_cuda *c, u64 p)
{
	if (p)
		CALL(c, cuMemFree, p);
}

int mmnf_cuda_pin(struct mmnf_cuda *c, u64 bytes, void **out)
{
	*out = NULL;
	return CALL(c, cuMemHostAlloc, out, bytes, CU_MEMHOSTALLOC_PORTABLE);
}

void mmnf_cuda_unpin(struct mmnf_cuda *c, void *p)
{
	if (p)
		CALL(c, cuMemFreeHost, p);
}

int mmnf_cuda_stream(struct mmnf_cuda *c, void **out)
{
	return CALL(c, cuStreamCreate, (CUstream *)out, CU_STREAM_NON_BLOCKING);
}

void mmnf_cuda_stream_free(struct mmnf_cuda *c, void *stream)
{
	if (stream)
		CALL(c, cuStreamDestroy, stream);
}

int mmnf_cuda_stream_sync(struct mmnf_cuda *c, void *stream)
{
	return CALL(c, cuStreamSynchronize, stream);
}

int mmnf_cuda_stream_wait(struct mmnf_cuda *c, void *stream, void *event)
{
	return CALL(c, cuStreamWaitEvent, stream, event, 0);
}

int mmnf_cuda_event(struct mmnf_cuda *c, bool timing, void **out)
{
	return CALL(c, cuEventCreate, (CUevent *)out,
		    timing ? CU_EVENT_DEFAULT : CU_EVENT_DISABLE_TIMING);
}

void mmnf_cuda_event_free(struct mmnf_cuda *c, void *event)
{
	if (event)
		CALL(c, cuEventDestroy, event);
}

int mmnf_cuda_record(struct mmnf_cuda *c, void *event, void *stream)
{
	return CALL(c, cuEventRecord, event, stream);
}

int mmnf_cuda_sync(struct mmnf_cuda *c, void *event)
{
	return CALL(c, cuEventSynchronize, event);
}

int mmnf_cuda_elapsed(struct mmnf_cuda *c, void *from, void *to, float *ms)
{
	return CALL(c, cuEventElapsedTime, ms, from, to);
}

int mmnf_cuda_copy_in(struct mmnf_cuda *c, u64 to, const void *from, u64 bytes,
		      void *stream)
{
	return CALL(c, cuMemcpyHtoDAsync, to, from, bytes, stream);
}

int mmnf_cuda_copy_out(struct mmnf_cuda *c, void *to, u64 from, u64 bytes,
		       void *stream)
{
	return CALL(c, cuMemcpyDtoHAsync, to, from, bytes, stream);
}

int mmnf_cuda_copy(struct mmnf_cuda *c, u64 to, u64 from, u64 bytes,
		   void *stream)
{
	return CALL(c, cuMemcpyDtoDAsync, to, from, bytes, stream);
}

/* False where this driver has no such call. */
static bool copy_batch(struct mmnf_cuda *c, const struct mmnf_cuda_copies *l,
		       void *stream, int *err)
{
#if CUDA_VERSION >= 13000
	CUmemcpyAttributes attribute = {
		.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM,
	};
	size_t first = 0;
	CUresult r;

	if (!cu.p_cuMemcpyBatchAsync || c->no_batch || l->is_pageable ||
	    l->nr < 2)
		return false;
	r = cu.p_cuMemcpyBatchAsync((CUdeviceptr *)l->to,
				    (CUdeviceptr *)l->from, l->bytes, l->nr,
				    &attribute, &first, 1, stream);
	if (r == CUDA_ERROR_NOT_SUPPORTED) {
		c->no_batch = true;
		return false;
	}
	*err = result(c, "cuMemcpyBatchAsync", r);
	return true;
#else
	(void)c;
	(void)l;
	(void)stream;
	(void)err;
	return false;
#endif
}

int mmnf_cuda_copy_many(struct mmnf_cuda *c, const struct mmnf_cuda_copies *l,
			bool from_host, void *stream)
{
	int err = 0;
	u32 i;

	if (copy_batch(c, l, stream, &err))
		return err;
	for (i = 0; !err && i < l->nr; i++) {
		if (from_host)
			err = mmnf_cuda_copy_in(c, l->to[i],
						(void *)(uintptr_t)l->from[i],
						l->bytes[i], stream);
		else
			err = mmnf_cuda_copy(c, l->to[i], l->from[i],
					     l->bytes[i], stream);
	}
	return err;
}

/* Blocks enough to fill the device several times over, and no more. */
#define BLOCK_THREADS 256
#define BLOCKS_PER_SM 16

int mmnf_cuda_launch(struct mmnf_cuda *c, enum mmnf_kernel kernel,
		     u64 nr_threads, void **args, void *stream)
{
	u64 blocks = (nr_threads + BLOCK_THREADS - 1) / BLOCK_THREADS;

	blocks = max_u64(1, min_u64(blocks, (u64)c->nr_sm * BLOCKS_PER_SM));
	return CALL(c, cuLaunchKernel, c->kernel[kernel], (unsigned int)blocks,
		    1, 1, BLOCK_THREADS, 1, 1, 0, stream, args, NULL);
}

int mmnf_cuda_range(struct mmnf_cuda *c, u64 p, struct mmnf_cuda_range *out)
{
	CUpointer_attribute what[] = {
		CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
		CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
		CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
		CU_POINTER_ATTRIBUTE_RANGE_SIZE,
	};
	unsigned int type = 0;
	int ordinal = -1;
	CUdeviceptr from = 0;
	size_t bytes = 0;
	void *to[] = { &type, &ordinal, &from, &bytes };
	int err;

	/* An unknown address is no error: its attributes are zero. */
	err = CALL(c, cuPointerGetAttributes, 4, what, to, p);
	out->is_device = type == CU_MEMORYTYPE_DEVICE;
	out->device = (u32)ordinal;
	out->start = from;
	out->bytes = bytes;
	return err;
}

#endif
