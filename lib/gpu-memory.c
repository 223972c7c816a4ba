// SPDX-License-Identifier: MIT
/*
 * Memory of a device for results, for callers that have no CUDA of their own: the
 * Python package, above all.  Fields have nothing to do with it.
 *
 * Each piece keeps its device open, so that it outlives the field that filled it.
 * memory_lock guards the list, and nothing waits under it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "cuda-dl.h"

struct memory {
	struct mmnf_cuda *cuda;
	u64 start, bytes;
	struct memory *next;
};

static pthread_mutex_t memory_lock = PTHREAD_MUTEX_INITIALIZER;
static struct memory *memory;

static int alloc(struct memory *m)
{
	int err = mmnf_cuda_enter(m->cuda);

	if (err)
		return err;
	err = mmnf_cuda_alloc(m->cuda, m->bytes, &m->start);
	mmnf_cuda_leave(m->cuda);
	return err;
}

MMNF_EXPORT int mmnf_device_alloc(uint64_t *out, uint32_t device, size_t bytes)
{
	struct memory *m;
	int err;

	mmnf_error_enter("mmnf_device_alloc");
	if (!out)
		return mmnf_error(EINVAL, "out is NULL");
	*out = 0;
	if (!bytes)
		return mmnf_error(EINVAL, "bytes is 0: expected at least 1");
	m = calloc(1, sizeof(*m));
	if (!m)
		return mmnf_error(ENOMEM, "no memory");
	m->bytes = bytes;
	err = mmnf_cuda_open(device, &m->cuda);
	if (!err) {
		err = alloc(m);
		if (err)
			mmnf_cuda_close(m->cuda);
	}
	if (err) {
		free(m);
		return err;
	}
	pthread_mutex_lock(&memory_lock);
	m->next = memory;
	memory = m;
	pthread_mutex_unlock(&memory_lock);
	*out = m->start;
	return 0;
}

/* Takes it out of the list; NULL, with text, if it is not there. */
static struct memory *take(u64 p)
{
	struct memory **at, *m;

	pthread_mutex_lock(&memory_lock);
	for (at = &memory; *at && (*at)->start != p;)
		at = &(*at)->next;
	m = *at;
	if (m)
		*at = m->next;
	pthread_mutex_unlock(&memory_lock);
	if (!m)
		mmnf_error(EINVAL,
			   "%#" PRIx64
			   " was not given by mmnf_device_alloc(), or is free",
			   p);
	return m;
}

MMNF_EXPORT int mmnf_device_free(uint64_t p, void *stream)
{
	struct memory *m;
	int err = 0;

	mmnf_error_enter("mmnf_device_free");
	if (!p)
		return 0;
	m = take(p);
	if (!m)
		return -EINVAL;
	/* In a forked child it is not there; on a lost device it is gone. */
	if (mmnf_cuda_is_mine(m->cuda)) {
		err = mmnf_cuda_enter(m->cuda);
		if (!err) {
			if (stream)
				err = mmnf_cuda_stream_sync(m->cuda, stream);
			mmnf_cuda_free(m->cuda, p);
			mmnf_cuda_leave(m->cuda);
		}
	}
	mmnf_cuda_close(m->cuda);
	free(m);
	return err;
}

static int order(struct mmnf_cuda *cuda, void *first, void *then)
{
	void *event;
	int err = mmnf_cuda_event(cuda, false, &event);

	if (err)
		return err;
	err = mmnf_cuda_record(cuda, event, first);
	if (!err)
		err = mmnf_cuda_stream_wait(cuda, then, event);
	mmnf_cuda_event_free(cuda, event);
	return err;
}

MMNF_EXPORT int mmnf_device_order(uint32_t device, void *first, void *then)
{
	struct mmnf_cuda *cuda;
	int err;

	mmnf_error_enter("mmnf_device_order");
	if (!first || !then)
		return mmnf_error(EINVAL, "a stream is NULL: the library waits "
					  "for its own");
	if (first == then)
		return 0;
	err = mmnf_cuda_open(device, &cuda);
	if (err)
		return err;
	err = mmnf_cuda_enter(cuda);
	if (!err) {
		err = order(cuda, first, then);
		mmnf_cuda_leave(cuda);
	}
	mmnf_cuda_close(cuda);
	return err;
}

/* In the current context. */
static int read_out(struct mmnf_cuda *cuda, u32 device, void *dst, u64 p,
		    u64 bytes, void *stream)
{
	struct mmnf_cuda_range range = { 0 };
	void *own = NULL;
	int err = mmnf_cuda_range(cuda, p, &range);

	if (!err && (!range.is_device || range.device != device))
		err = mmnf_error(EINVAL,
				 "%#" PRIx64 " is not memory of device %u", p,
				 device);
	if (!err && bytes > range.start + range.bytes - p)
		err = mmnf_error(EINVAL,
				 "%" PRIu64
				 " bytes: its allocation has %" PRIu64
				 " from there",
				 bytes, range.start + range.bytes - p);
	if (!err && !stream)
		err = mmnf_cuda_stream(cuda, &own);
	if (err)
		return err;
	err = mmnf_cuda_copy_out(cuda, dst, p, bytes, stream ? stream : own);
	if (!err)
		err = mmnf_cuda_stream_sync(cuda, stream ? stream : own);
	mmnf_cuda_stream_free(cuda, own);
	return err;
}

MMNF_EXPORT ssize_t mmnf_device_read(uint32_t device, void *dst, uint64_t p,
				     size_t bytes, void *stream)
{
	struct mmnf_cuda *cuda;
	int err;

	mmnf_error_enter("mmnf_device_read");
	if (!dst && bytes)
		return mmnf_error(EINVAL, "dst is NULL: expected %zu bytes",
				  bytes);
	err = mmnf_cuda_open(device, &cuda);
	if (err)
		return err;
	err = mmnf_cuda_enter(cuda);
	if (!err) {
		if (bytes)
			err = read_out(cuda, device, dst, p, bytes, stream);
		mmnf_cuda_leave(cuda);
	}
	mmnf_cuda_close(cuda);
	return err ? err : (ssize_t)bytes;
}
