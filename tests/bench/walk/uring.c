// SPDX-License-Identifier: MIT
/*
 * The device's limit: every read of the list by io_uring, O_DIRECT, into
 * registered memory, queue_depth of them in flight all the time.
 *
 * The loop consumes in the order of the walk.  New reads are started in batches,
 * as room comes free, so that a system call serves several.
 */
#include <err.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine.h"

#define HUGE_PAGE (2 * MIB)

struct queue {
	struct io_uring ring;
	char *memory;
	bool *done;
	size_t next;
	uint32_t in_flight;
};

/*
 * Of huge pages, in which reads cost least: not as many as chance has it by where the
 * memory begins.
 */
static char *memory_of(size_t bytes)
{
	void *memory;

	if (posix_memalign(&memory, HUGE_PAGE, bytes))
		err(1, "memory for %zu bytes", bytes);
	/* A kernel may have none. */
	madvise(memory, bytes, MADV_HUGEPAGE);
	memset(memory, 0, bytes);
	return memory;
}

static struct queue *queue_of(const struct part *p)
{
	size_t bytes = (p->reads.nr_pages * PAGE + HUGE_PAGE - 1) & -HUGE_PAGE;
	struct queue *q = calloc(1, sizeof(*q));
	struct iovec all;
	int ret;

	q->done = calloc(p->reads.nr, sizeof(*q->done));
	if (!q->done)
		err(1, "reads");
	q->memory = memory_of(bytes);
	ret = io_uring_queue_init(p->queue_depth, &q->ring,
				  IORING_SETUP_SINGLE_ISSUER |
					  IORING_SETUP_DEFER_TASKRUN);
	if (ret)
		errx(1, "io_uring: %s", strerror(-ret));
	all = (struct iovec) { q->memory, bytes };
	ret = io_uring_register_buffers(&q->ring, &all, 1);
	if (!ret)
		ret = io_uring_register_files(&q->ring, &p->fd, 1);
	if (ret)
		errx(1, "io_uring: register: %s", strerror(-ret));
	return q;
}

static void start_reads(const struct part *p, struct queue *q)
{
	while (q->in_flight < p->queue_depth && q->next < p->reads.nr) {
		const struct read *r = &p->reads.read[q->next];
		struct io_uring_sqe *sqe = io_uring_get_sqe(&q->ring);

		io_uring_prep_read_fixed(sqe, 0, q->memory + r->slot * PAGE,
					 (uint32_t)(r->nr_pages * PAGE),
					 r->page * PAGE, 0);
		sqe->flags |= IOSQE_FIXED_FILE;
		sqe->user_data = q->next++;
		q->in_flight++;
	}
}

static void reap(const struct part *p, struct queue *q)
{
	struct io_uring_cqe *cqe;
	unsigned int head, nr = 0;

	io_uring_for_each_cqe(&q->ring, head, cqe)
	{
		const struct read *r = &p->reads.read[cqe->user_data];

		if (cqe->res != (int)(r->nr_pages * PAGE))
			errx(1, "read of page %llu: %s",
			     (unsigned long long)r->page,
			     cqe->res < 0 ? strerror(-cqe->res) : "cut short");
		q->done[cqe->user_data] = true;
		nr++;
	}
	io_uring_cq_advance(&q->ring, nr);
	q->in_flight -= nr;
}

static void wait_for(const struct part *p, struct queue *q, size_t read)
{
	int ret;

	while (!q->done[read]) {
		start_reads(p, q);
		ret = io_uring_submit_and_wait(&q->ring, 1);
		if (ret < 0)
			errx(1, "io_uring: wait: %s", strerror(-ret));
		reap(p, q);
	}
}

void uring_walk(struct part *p)
{
	const uint64_t *pos = p->walk->pos;
	uint64_t wrong = 0;
	struct queue *q = queue_of(p);
	size_t i;

	p->sample->began_ns = now_ns();
	for (i = p->begin; i < p->end; i++) {
		uint32_t read = p->reads.of_touch[i - p->begin].read;
		uint32_t slot = p->reads.of_touch[i - p->begin].slot;

		if (!q->done[read])
			wait_for(p, q, read);
		wrong += *(uint32_t *)(q->memory + slot * PAGE +
				       pos[i] % PAGE) != value_at(pos[i]);
		p->sample->at_ns[i] = now_ns();
	}
	p->sample->ended_ns = now_ns();
	p->sample->wrong = wrong;
	io_uring_queue_exit(&q->ring);
	free(q->memory);
	free(q->done);
	free(q);
}
