// SPDX-License-Identifier: MIT
/*
 * Reads of the cache's data that are under way together, in an io_uring.
 *
 *	read -> pieces, by ssd-read.c -> sqe -> kernel -> cqe -> checksums -> owner
 *
 * What the log has is read at once: it is small, and new.  So is a record that is not
 * in memory, and a read of more pieces than two.
 *
 * No lock: one thread at a time.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#include "ssd-internal.h"

#define PIECES 2 /* a read of the engine's is shorter than a chunk */

struct get;

struct part {
	struct ssd_piece piece; /* first */
	struct get *get;
};

/* is_bad: one of its parts did not come, or is not what it should be. */
struct get {
	struct part part[PIECES];
	u32 nr_parts, nr_left;
	u64 bytes;
	void *owner;
	bool is_bad;
	struct get *next;
};

struct mmnf_ssd_queue {
	struct mmnf_ssd *ssd;
	struct io_uring ring;
	u32 under_way;
	struct get *gets, *spare;
};

struct mmnf_ssd_queue *mmnf_ssd_queue_open(struct mmnf_ssd *ssd, u32 depth,
					   int eventfd)
{
	struct mmnf_ssd_queue *q;
	u32 i;

	if (!ssd->disk->has_descriptors)
		return NULL;
	q = calloc(1, sizeof(*q));
	if (!q)
		return NULL;
	q->ssd = ssd;
	q->gets = calloc(depth, sizeof(*q->gets));
	if (!q->gets || io_uring_queue_init(PIECES * depth, &q->ring, 0)) {
		free(q->gets);
		free(q);
		return NULL;
	}
	for (i = 0; i < depth; i++) {
		q->gets[i].next = q->spare;
		q->spare = &q->gets[i];
	}
	if (eventfd >= 0 && io_uring_register_eventfd(&q->ring, eventfd)) {
		mmnf_ssd_queue_close(q);
		return NULL;
	}
	return q;
}

void mmnf_ssd_queue_close(struct mmnf_ssd_queue *q)
{
	if (!q)
		return;
	io_uring_queue_exit(&q->ring);
	free(q->gets);
	free(q);
}

static void prepare(struct mmnf_ssd_queue *q, struct part *part)
{
	/* There is room for all pieces. */
	struct io_uring_sqe *sqe = io_uring_get_sqe(&q->ring);
	const struct ssd_piece *p = &part->piece;

	if (p->nr_iov == 1)
		io_uring_prep_read(sqe, p->file, p->iov->iov_base,
				   (u32)p->iov->iov_len, p->at);
	else
		io_uring_prep_readv(sqe, p->file, p->iov, p->nr_iov, p->at);
	io_uring_sqe_set_data(sqe, part);
}

enum mmnf_ssd_begun mmnf_ssd_queue_read(struct mmnf_ssd_queue *q, u64 offset,
					u64 bytes, const struct iovec *iov,
					u32 nr_iov, u64 *ticket, void *owner)
{
	struct ssd_rest rest = {
		.offset = offset, .bytes = bytes, .iov = iov, .nr_iov = nr_iov
	};
	struct mmnf_ssd *ssd = q->ssd;
	struct get *get = q->spare;
	bool hit;
	u32 i;

	if (!get ||
	    ssd_chunk(ssd, offset + bytes - 1) - ssd_chunk(ssd, offset) >=
		    PIECES)
		return mmnf_ssd_read(ssd, offset, bytes, iov, nr_iov, ticket) ?
			       MMNF_SSD_HIT :
			       MMNF_SSD_MISS;
	if (mmnf_ssd_read_log(ssd, &rest, ticket, &hit)) {
		mmnf_ssd_count_read(ssd, bytes, hit);
		return hit ? MMNF_SSD_HIT : MMNF_SSD_MISS;
	}
	for (i = 0; rest.bytes; i++) {
		if (!mmnf_ssd_piece_take(ssd, &rest, &get->part[i].piece)) {
			mmnf_ssd_count_read(ssd, bytes, false);
			return MMNF_SSD_MISS;
		}
		get->part[i].get = get;
	}
	q->spare = get->next;
	get->nr_left = i;
	get->bytes = bytes;
	get->owner = owner;
	get->is_bad = false;
	while (i--)
		prepare(q, &get->part[i]);
	q->under_way++;
	return MMNF_SSD_UNDER_WAY;
}

void mmnf_ssd_queue_submit(struct mmnf_ssd_queue *q)
{
	if (io_uring_sq_ready(&q->ring))
		io_uring_submit(&q->ring);
}

/* A part has come; its read, if it was the last. */
static struct get *came(struct mmnf_ssd_queue *q, const struct part *part,
			ssize_t result)
{
	const struct ssd_piece *p = &part->piece;
	struct mmnf_ssd_disk *disk = q->ssd->disk;
	struct get *get = part->get;

	/* Nothing that the disk has to do with: its thread has ended, or so. */
	if (result == -ECANCELED || result == -EFAULT || result == -EINTR ||
	    result == -EAGAIN)
		result = disk->read(disk, p->file, p->iov, p->nr_iov, p->at);
	if (!mmnf_ssd_piece_read(q->ssd, p, result))
		get->is_bad = true;
	return --get->nr_left ? NULL : get;
}

void *mmnf_ssd_queue_take(struct mmnf_ssd_queue *q, bool *hit)
{
	struct io_uring_cqe *cqe;
	struct get *get = NULL;

	while (!get && q->under_way && !io_uring_peek_cqe(&q->ring, &cqe)) {
		const struct part *part = io_uring_cqe_get_data(cqe);
		ssize_t result = cqe->res;

		io_uring_cqe_seen(&q->ring, cqe);
		get = came(q, part, result);
	}
	if (!get)
		return NULL;
	*hit = !get->is_bad;
	mmnf_ssd_count_read(q->ssd, get->bytes, *hit);
	get->next = q->spare;
	q->spare = get;
	q->under_way--;
	return get->owner;
}

u32 mmnf_ssd_queue_under_way(const struct mmnf_ssd_queue *q)
{
	return q->under_way;
}

/* A signal ends it, too. */
void mmnf_ssd_queue_wait(struct mmnf_ssd_queue *q, s64 timeout_ns)
{
	struct __kernel_timespec ts = { timeout_ns / 1000000000,
					timeout_ns % 1000000000 };
	struct io_uring_cqe *cqe;

	io_uring_submit_and_wait_timeout(&q->ring, &cqe, 1,
					 timeout_ns < 0 ? NULL : &ts, NULL);
}

int mmnf_ssd_queue_file(const struct mmnf_ssd_queue *q)
{
	return q->ring.ring_fd;
}
