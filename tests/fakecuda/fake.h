/* SPDX-License-Identifier: MIT */
/*
 * A stand-in for libcuda.so.1, for tests only.  It is no GPU, says so in its
 * device's name, and its times mean nothing.
 *
 * It is adversarial: it does as late as the driver's contract allows what that
 * contract leaves open, and ends the process where the contract is broken.
 *
 *	- Work is queued, and done when somebody waits or asks, or now and then:
 *	  the streams' heads in random order, held back by events alone.
 *	- Copies read page-locked memory when they are done, not when called.
 *	- Device memory can't be touched by the host; it starts as 0xff, with
 *	  guard pages around and a canary behind.
 *	- Copies of a batch are done in random order.
 *	- Freeing what queued work still uses ends the process.
 *	- A call needs a current context, and things of another one are refused.
 *	- A forked child may call nothing.
 *
 * state.cc keeps devices, memory and queues; driver.cc is the API, its prototypes
 * from cuda.h; kernels.cc runs the kernels.
 *
 * In the environment, or by the functions below:
 *	MMNF_FAKECUDA_SEED	of everything random
 *	MMNF_FAKECUDA_INIT	what cuInit returns
 *	MMNF_FAKECUDA_DRIVER	the driver's version
 *	MMNF_FAKECUDA_DEVICES	how many; 1
 *	MMNF_FAKECUDA_MEMORY	bytes of each; 64 MiB
 *	MMNF_FAKECUDA_FAIL	call:n=code,...: the nth call of that name fails;
 *				n+: and all after it.  700 to 799 and 999
 *				lose the device, as there
 *	MMNF_FAKECUDA_PLANT	behave as if the caller had left a call out:
 *				wait, event-sync, stream-sync; of one stream by
 *				@number.  lazy is no mistake: nothing is done
 *				before somebody waits
 */
#ifndef MMNF_FAKE_H
#define MMNF_FAKE_H

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

using fake_work = std::function<void(unsigned seed)>;

int fake_kernel_find(const char *name);
unsigned fake_kernel_args(int kernel);
size_t fake_kernel_arg_bytes(int kernel, unsigned i);
fake_work fake_kernel_bind(int kernel, void **args, const unsigned grid[3],
			   const unsigned block[3]);

struct fake_event {
	int device;
	bool timing;
	uint64_t recorded = 0, done = 0;
};

struct fake_span {
	uint64_t start, bytes;
};

struct fake_op {
	fake_work run;
	std::shared_ptr<fake_event> record, wait;
	uint64_t tick = 0;
	std::vector<fake_span> uses;
};

struct fake_stream {
	int device;
	unsigned number; /* streams of this process, in order of creation */
	bool destroyed = false;
	std::deque<fake_op> queue;
};

struct fake_device {
	int retained = 0;
	size_t used = 0, nr_modules = 0;
	CUresult lost = CUDA_SUCCESS;
};

/* One lock for all; the functions below want it held. */
extern std::recursive_mutex fake_lock;
extern std::vector<fake_device> fake_devices;
extern size_t fake_memory_bytes;

[[noreturn]] void fake_die(const char *format, ...)
	__attribute__((format(printf, 1, 2)));
unsigned fake_random();

CUresult fake_init();
/* Counts the call, runs a little of what is queued, fails if it shall. */
CUresult fake_enter(const char *call, bool needs_context = true);
/* The device of the calling thread's context, -1 for none. */
int fake_current();
void fake_push(int device);
bool fake_pop(int *device);

/* Is the mistake planted, for this stream?  "wait@0": for the first alone. */
bool fake_planted(const char *mistake, const fake_stream *s = nullptr);

CUresult fake_memory_new(int device, size_t bytes, CUdeviceptr *out);
CUresult fake_memory_free(int device, CUdeviceptr p);
/* The allocation a range lies in; its device, or -1. */
int fake_memory_find(uint64_t p, size_t bytes, fake_span *whole);
CUresult fake_pinned_new(size_t bytes, void **out);
CUresult fake_pinned_free(void *p);
bool fake_pinned(const void *p, size_t bytes);

CUresult fake_stream_new(int device, CUstream *out);
fake_stream *fake_stream_find(CUstream s);
void fake_stream_queue(fake_stream *s, fake_op op);
void fake_stream_free(fake_stream *s);

CUresult fake_event_new(int device, bool timing, CUevent *out);
std::shared_ptr<fake_event> fake_event_find(CUevent e);
void fake_event_free(CUevent e);

/* Does one thing of those that can be done; false if there is none. */
bool fake_step();
/* Works until it holds. */
void fake_until(const std::function<bool()> &holds);

/* What a device still holds, as text; "" for nothing. */
std::string fake_held(int device);
/* All of it is gone with the context. */
void fake_drop(int device);

#endif
