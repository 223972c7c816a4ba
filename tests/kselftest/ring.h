/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A ring of io_uring, driven by its system calls, so that nothing but the kernel's
 * header is needed.  One thread uses it.
 */
#ifndef MMNF_KSELFTEST_RING_H
#define MMNF_KSELFTEST_RING_H

#include "kselftest/util.h"

#include <linux/io_uring.h>
#include <sys/syscall.h>

#define ENTRIES 64

struct ring {
	int fd;
	void *memory;
	size_t bytes, sqe_bytes;
	struct io_uring_sqe *sqes;
	u32 *sq_tail, *sq_array, *cq_head, *cq_tail, mask, cq_mask;
	struct io_uring_cqe *cqes;
	u32 unsubmitted;
};

static const char *ring_open(struct ring *r, u32 flags)
{
	struct io_uring_params p = { .flags = flags };
	size_t bytes;
	char *m;

	r->fd = syscall(SYS_io_uring_setup, ENTRIES, &p);
	if (r->fd < 0)
		return "kernel: no io_uring";
	bytes = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	if (bytes < p.sq_off.array + p.sq_entries * sizeof(u32))
		bytes = p.sq_off.array + p.sq_entries * sizeof(u32);
	m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
		 r->fd, IORING_OFF_SQ_RING);
	r->sqes = mmap(NULL, p.sq_entries * sizeof(*r->sqes),
		       PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd,
		       IORING_OFF_SQES);
	if (m == MAP_FAILED || r->sqes == MAP_FAILED)
		return "kernel: io_uring cannot be mapped";
	r->memory = m;
	r->bytes = bytes;
	r->sqe_bytes = p.sq_entries * sizeof(*r->sqes);
	r->unsubmitted = 0;
	r->sq_tail = (u32 *)(m + p.sq_off.tail);
	r->sq_array = (u32 *)(m + p.sq_off.array);
	r->mask = *(u32 *)(m + p.sq_off.ring_mask);
	r->cq_head = (u32 *)(m + p.cq_off.head);
	r->cq_tail = (u32 *)(m + p.cq_off.tail);
	r->cq_mask = *(u32 *)(m + p.cq_off.ring_mask);
	r->cqes = (struct io_uring_cqe *)(m + p.cq_off.cqes);
	return NULL;
}

static __unused_fn void ring_close(struct ring *r)
{
	munmap(r->memory, r->bytes);
	munmap(r->sqes, r->sqe_bytes);
	close(r->fd);
	r->fd = -1;
}

static struct io_uring_sqe *next_sqe(struct ring *r, __u8 opcode, int fd,
				     u64 user_data)
{
	u32 tail = *r->sq_tail, index = tail & r->mask;
	struct io_uring_sqe *sqe = &r->sqes[index];

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = opcode;
	sqe->fd = fd;
	sqe->user_data = user_data;
	r->sq_array[index] = index;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
	r->unsubmitted++;
	return sqe;
}

static __unused_fn void queue_prefetch(struct ring *r, int dev, const void *arg,
				       u64 user_data)
{
	struct io_uring_sqe *sqe =
		next_sqe(r, IORING_OP_URING_CMD, dev, user_data);
	struct mmnf_uring_cmd cmd = { .arg = (unsigned long)arg };

	sqe->cmd_op = MMNF_IOC_PREFETCH;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
}

static int submit(struct ring *r)
{
	int ret = syscall(SYS_io_uring_enter, r->fd, r->unsubmitted, 0, 0, NULL,
			  0);

	r->unsubmitted = 0;
	return ret;
}

/* The next completion's result; its user_data goes to @user_data if not NULL. */
static int reap(struct ring *r, u64 *user_data)
{
	u32 head = *r->cq_head;
	struct io_uring_cqe *cqe;
	int res;

	while (__atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE) == head)
		syscall(SYS_io_uring_enter, r->fd, 0, 1, IORING_ENTER_GETEVENTS,
			NULL, 0);
	cqe = &r->cqes[head & r->cq_mask];
	res = cqe->res;
	if (user_data)
		*user_data = cqe->user_data;
	__atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
	return res;
}

static __unused_fn int run_one(struct ring *r, int dev, const void *arg)
{
	queue_prefetch(r, dev, arg, 0);
	if (submit(r) != 1)
		return -errno;
	return reap(r, NULL);
}

#endif
