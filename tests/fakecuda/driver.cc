// SPDX-License-Identifier: MIT
/*
 * The functions of libcuda.so.1 that cuda-dl.c uses.  A prototype that is not
 * cuda.h's does not compile, and tests/integration/gpu_build.sh compares the
 * exported names with those of the toolkit's stub.
 */
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "fake.h"

#define IMAGE_MAGIC 0xba55ed50u
#define BLOCK_THREADS_MAX 1024
#define GRID_YZ_MAX 65535

#define ENTER(name, ...)                                            \
	std::lock_guard<std::recursive_mutex> guard(fake_lock);     \
	do {                                                        \
		CUresult entered = fake_enter(name, ##__VA_ARGS__); \
		if (entered)                                        \
			return entered;                             \
	} while (0)

namespace
{

/* Contexts are 1 + the device's number. */
CUcontext context_of(int device)
{
	return (CUcontext)(intptr_t)(device + 1);
}

bool is_mine(uint64_t p, size_t bytes)
{
	return fake_memory_find(p, bytes, nullptr) == fake_current();
}

/* The source as the copy will read it: page-locked memory late. */
fake_work copy_in_work(CUdeviceptr to, const void *from, size_t bytes)
{
	if (fake_pinned(from, bytes))
		return [=](unsigned) { memcpy((void *)to, from, bytes); };
	auto copy = std::make_shared<std::vector<char>>(
		(const char *)from, (const char *)from + bytes);
	return [=](unsigned) { memcpy((void *)to, copy->data(), bytes); };
}

bool is_attribute_list(const CUmemcpyAttributes *attribute, const size_t *first,
		       size_t nr, size_t nr_copies)
{
	if (!nr || nr > nr_copies || first[0])
		return false;
	for (size_t i = 0; i < nr; i++)
		if (attribute[i].srcAccessOrder <
			    CU_MEMCPY_SRC_ACCESS_ORDER_STREAM ||
		    attribute[i].srcAccessOrder >
			    CU_MEMCPY_SRC_ACCESS_ORDER_ANY ||
		    (i && first[i] <= first[i - 1]) || first[i] >= nr_copies)
			return false;
	return true;
}

} // namespace

extern "C" {

CUresult CUDAAPI cuInit(unsigned int)
{
	std::lock_guard<std::recursive_mutex> guard(fake_lock);

	return fake_init();
}

CUresult CUDAAPI cuDriverGetVersion(int *version)
{
	const char *v = getenv("MMNF_FAKECUDA_DRIVER");

	*version = v ? atoi(v) : CUDA_VERSION;
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetCount(int *nr)
{
	ENTER("cuDeviceGetCount", false);
	*nr = (int)fake_devices.size();
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGet(CUdevice *device, int ordinal)
{
	ENTER("cuDeviceGet", false);
	if (ordinal < 0 || ordinal >= (int)fake_devices.size())
		return CUDA_ERROR_INVALID_DEVICE;
	*device = ordinal;
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetName(char *name, int len, CUdevice device)
{
	ENTER("cuDeviceGetName", false);
	snprintf(name, (size_t)len, "mmnf fake device %d (CPU, not a GPU)",
		 device);
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetAttribute(int *value, CUdevice_attribute what,
				      CUdevice)
{
	ENTER("cuDeviceGetAttribute", false);
	*value = what == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT ? 2 : 0;
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
	ENTER("cuDevicePrimaryCtxRetain", false);
	fake_devices[device].retained++;
	*context = context_of(device);
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice device)
{
	ENTER("cuDevicePrimaryCtxRelease", false);
	if (fake_devices[device].retained-- < 1)
		fake_die("a primary context released too often");
	if (!fake_devices[device].retained && !fake_held(device).empty())
		fake_die("leaked: %s", fake_held(device).c_str());
	if (!fake_devices[device].retained)
		fake_drop(device);
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxPushCurrent(CUcontext context)
{
	int device = (int)(intptr_t)context - 1;

	ENTER("cuCtxPushCurrent", false);
	if (device < 0 || device >= (int)fake_devices.size() ||
	    !fake_devices[device].retained)
		return CUDA_ERROR_INVALID_CONTEXT;
	fake_push(device);
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxPopCurrent(CUcontext *context)
{
	int device;

	ENTER("cuCtxPopCurrent", false);
	if (!fake_pop(&device))
		return CUDA_ERROR_INVALID_CONTEXT;
	if (context)
		*context = context_of(device);
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemGetInfo(size_t *nr_free, size_t *total)
{
	ENTER("cuMemGetInfo");
	*total = fake_memory_bytes;
	*nr_free = fake_memory_bytes - fake_devices[fake_current()].used;
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemAlloc(CUdeviceptr *p, size_t bytes)
{
	ENTER("cuMemAlloc");
	return fake_memory_new(fake_current(), bytes, p);
}

CUresult CUDAAPI cuMemFree(CUdeviceptr p)
{
	ENTER("cuMemFree");
	return fake_memory_free(fake_current(), p);
}

CUresult CUDAAPI cuMemHostAlloc(void **p, size_t bytes, unsigned int)
{
	ENTER("cuMemHostAlloc");
	return fake_pinned_new(bytes, p);
}

CUresult CUDAAPI cuMemFreeHost(void *p)
{
	ENTER("cuMemFreeHost");
	return fake_pinned_free(p);
}

CUresult CUDAAPI cuMemcpyHtoDAsync(CUdeviceptr to, const void *from,
				   size_t bytes, CUstream stream)
{
	ENTER("cuMemcpyHtoDAsync");
	fake_stream *s = fake_stream_find(stream);

	if (!s)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!is_mine(to, bytes))
		return CUDA_ERROR_INVALID_VALUE;
	fake_op op;
	op.run = copy_in_work(to, from, bytes);
	op.uses = { { to, bytes }, { (uint64_t)from, bytes } };
	fake_stream_queue(s, std::move(op));
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes,
				   CUstream stream)
{
	ENTER("cuMemcpyDtoHAsync");
	fake_stream *s = fake_stream_find(stream);

	if (!s)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!is_mine(from, bytes))
		return CUDA_ERROR_INVALID_VALUE;
	fake_op op;
	op.run = [=](unsigned) { memcpy(to, (void *)from, bytes); };
	op.uses = { { from, bytes }, { (uint64_t)to, bytes } };
	fake_stream_queue(s, std::move(op));
	if (!fake_pinned(to, bytes))
		fake_until([=] { return s->queue.empty(); });
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from,
				   size_t bytes, CUstream stream)
{
	ENTER("cuMemcpyDtoDAsync");
	fake_stream *s = fake_stream_find(stream);

	if (!s)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!is_mine(from, bytes) || !is_mine(to, bytes))
		return CUDA_ERROR_INVALID_VALUE;
	fake_op op;
	op.run = [=](unsigned) { memmove((void *)to, (void *)from, bytes); };
	op.uses = { { from, bytes }, { to, bytes } };
	fake_stream_queue(s, std::move(op));
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemcpyBatchAsync(CUdeviceptr *to, CUdeviceptr *from,
				    size_t *bytes, size_t nr,
				    CUmemcpyAttributes *attribute,
				    size_t *first, size_t nr_attributes,
				    CUstream stream)
{
	ENTER("cuMemcpyBatchAsync");
	fake_stream *s = fake_stream_find(stream);

	if (!s)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!is_attribute_list(attribute, first, nr_attributes, nr))
		return CUDA_ERROR_INVALID_VALUE;
	auto copies = std::make_shared<std::vector<fake_op>>();
	fake_op all;
	for (size_t i = 0; i < nr; i++) {
		uint64_t t = to[i], f = from[i];
		size_t n = bytes[i];

		if (!is_mine(t, n) ||
		    (!is_mine(f, n) && !fake_pinned((void *)f, n)))
			return CUDA_ERROR_INVALID_VALUE;
		fake_op op;
		op.run = [=](unsigned) { memcpy((void *)t, (void *)f, n); };
		copies->push_back(std::move(op));
		all.uses.push_back({ t, n });
		all.uses.push_back({ f, n });
	}
	all.run = [=](unsigned seed) {
		for (size_t i = copies->size(); i; i--) {
			seed = seed * 1664525u + 1013904223u;
			std::swap((*copies)[i - 1], (*copies)[seed % i]);
			(*copies)[i - 1].run(seed);
		}
	};
	fake_stream_queue(s, std::move(all));
	return CUDA_SUCCESS;
}

/* Of an address that is not its own the driver says nothing, and succeeds. */
CUresult CUDAAPI cuPointerGetAttributes(unsigned int nr,
					CUpointer_attribute *what, void **value,
					CUdeviceptr p)
{
	fake_span whole = { 0, 0 };

	ENTER("cuPointerGetAttributes");
	int device = fake_memory_find(p, 0, &whole);
	for (unsigned int i = 0; i < nr; i++) {
		switch (what[i]) {
		case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
			*(unsigned int *)value[i] =
				device >= 0 ? CU_MEMORYTYPE_DEVICE :
				fake_pinned((void *)p, 0) ? CU_MEMORYTYPE_HOST :
							    0;
			break;
		case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
			*(int *)value[i] = device >= 0 ? device : -2;
			break;
		case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
			*(CUdeviceptr *)value[i] = whole.start;
			break;
		case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
			*(size_t *)value[i] = whole.bytes;
			break;
		default:
			return CUDA_ERROR_INVALID_VALUE;
		}
	}
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamCreate(CUstream *stream, unsigned int)
{
	ENTER("cuStreamCreate");
	return fake_stream_new(fake_current(), stream);
}

CUresult CUDAAPI cuStreamDestroy(CUstream stream)
{
	ENTER("cuStreamDestroy");
	fake_stream *s = fake_stream_find(stream);

	if (!s)
		return CUDA_ERROR_INVALID_HANDLE;
	fake_stream_free(s);
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamSynchronize(CUstream stream)
{
	ENTER("cuStreamSynchronize");
	fake_stream *s = fake_stream_find(stream);

	if (!s)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!fake_planted("stream-sync", s))
		fake_until([=] { return s->queue.empty(); });
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int)
{
	ENTER("cuStreamWaitEvent");
	fake_stream *s = fake_stream_find(stream);
	auto e = fake_event_find(event);

	if (!s || !e)
		return CUDA_ERROR_INVALID_HANDLE;
	if (fake_planted("wait", s) || e->done == e->recorded)
		return CUDA_SUCCESS;
	fake_op op;
	op.wait = e;
	op.tick = e->recorded;
	fake_stream_queue(s, std::move(op));
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventCreate(CUevent *event, unsigned int flags)
{
	ENTER("cuEventCreate");
	return fake_event_new(fake_current(),
			      !(flags & CU_EVENT_DISABLE_TIMING), event);
}

CUresult CUDAAPI cuEventDestroy(CUevent event)
{
	ENTER("cuEventDestroy");
	if (!fake_event_find(event))
		return CUDA_ERROR_INVALID_HANDLE;
	fake_event_free(event);
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventRecord(CUevent event, CUstream stream)
{
	ENTER("cuEventRecord");
	fake_stream *s = fake_stream_find(stream);
	auto e = fake_event_find(event);

	if (!s || !e)
		return CUDA_ERROR_INVALID_HANDLE;
	fake_op op;
	op.record = e;
	op.tick = ++e->recorded;
	fake_stream_queue(s, std::move(op));
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventSynchronize(CUevent event)
{
	ENTER("cuEventSynchronize");
	auto e = fake_event_find(event);

	if (!e)
		return CUDA_ERROR_INVALID_HANDLE;
	uint64_t tick = e->recorded;
	if (!fake_planted("event-sync"))
		fake_until([=] { return e->done >= tick; });
	return CUDA_SUCCESS;
}

/* Chance, so that whatever is chosen by time is chosen either way. */
CUresult CUDAAPI cuEventElapsedTime(float *ms, CUevent from, CUevent to)
{
	ENTER("cuEventElapsedTime");
	auto f = fake_event_find(from), t = fake_event_find(to);

	if (!f || !t || !f->timing || !t->timing || !f->recorded ||
	    !t->recorded)
		return CUDA_ERROR_INVALID_HANDLE;
	if (f->done < f->recorded || t->done < t->recorded)
		return CUDA_ERROR_NOT_READY;
	*ms = (float)(1 + fake_random() % 1000) / 1000;
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleLoadData(CUmodule *module, const void *image)
{
	ENTER("cuModuleLoadData");
	if (*(const unsigned int *)image != IMAGE_MAGIC)
		return CUDA_ERROR_INVALID_IMAGE;
	fake_devices[fake_current()].nr_modules++;
	*module = (CUmodule)image;
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleUnload(CUmodule)
{
	ENTER("cuModuleUnload");
	fake_devices[fake_current()].nr_modules--;
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleGetFunction(CUfunction *function, CUmodule,
				     const char *name)
{
	ENTER("cuModuleGetFunction");
	int kernel = fake_kernel_find(name);

	if (kernel < 0)
		return CUDA_ERROR_NOT_FOUND;
	*function = (CUfunction)(intptr_t)(kernel + 1);
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuLaunchKernel(CUfunction function, unsigned int gx,
				unsigned int gy, unsigned int gz,
				unsigned int bx, unsigned int by,
				unsigned int bz, unsigned int, CUstream stream,
				void **args, void **)
{
	ENTER("cuLaunchKernel");
	fake_stream *s = fake_stream_find(stream);
	unsigned int grid[3] = { gx, gy, gz }, block[3] = { bx, by, bz };
	int kernel = (int)(intptr_t)function - 1;

	if (!s || kernel < 0)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!gx || !gy || !gz || !bx || !by || !bz ||
	    (uint64_t)bx * by * bz > BLOCK_THREADS_MAX || gy > GRID_YZ_MAX ||
	    gz > GRID_YZ_MAX)
		return CUDA_ERROR_INVALID_VALUE;
	fake_op op;
	op.run = fake_kernel_bind(kernel, args, grid, block);
	/* An argument that is an address in device memory is used. */
	for (unsigned int i = 0; i < fake_kernel_args(kernel); i++) {
		fake_span whole;
		uint64_t value = 0;

		memcpy(&value, args[i], fake_kernel_arg_bytes(kernel, i));
		if (fake_memory_find(value, 0, &whole) >= 0)
			op.uses.push_back(whole);
	}
	fake_stream_queue(s, std::move(op));
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGetErrorName(CUresult r, const char **name)
{
	static thread_local char text[32];

	snprintf(text, sizeof(text), "CUDA_ERROR_%d", (int)r);
	*name = text;
	return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGetErrorString(CUresult r, const char **text)
{
	return cuGetErrorName(r, text);
}
}
