// SPDX-License-Identifier: MIT
/*
 * The queue of engines whose segments are files on this machine: io_uring, with
 * the files and L2's memory registered, or pread where the kernel refuses it.
 *
 *	submit:	read -> absent? -> done list
 *		     -> sqe -> kernel -> cqe \
 *	reap:	                              -> short? again : given back
 *	        done list ------------------- /
 *
 * Without an eventfd the user comes to reap() for what it wants, so that handing
 * over and waiting are one call there.
 *
 * Files are registered by use, the one longest unused goes first.  The kernel
 * keeps a replaced file alive for the reads in flight, so only what is prepared
 * and not yet handed over must go out before a replacement.
 *
 * Without io_uring a read waits in a list, with the kernel told to start it, and
 * reap() reads the first one.
 *
 * A queue has no lock: one thread at a time.
 */
#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache.h"
#include "tier.h"

#define FILES 64
#define TRIES 3
#define BUFFERS_MAX 8192 /* half of what the kernel takes */
#define BUFFER_BYTES_MAX (1ULL << 30) /* the most that it takes */

struct file {
	u64 id, stamp; /* id of struct mmnf_segment; 0: none */
};

struct file_queue {
	struct mmnf_queue head;
	struct io_uring ring;
	bool uring, fixed_files, fixed_buffers;
	int eventfd;
	char *memory;
	u64 memory_bytes, piece_bytes;
	u32 nr_pieces;
	bool *pieces; /* which are registered */
	bool plain; /* a file is named by number in what is prepared */
	u64 last_id; /* of the last file that was not registered */
	u64 clock, consumed; /* no use of a file after this may be waiting */
	struct file files[FILES];
	struct mmnf_read *done, **done_end; /* not known to the kernel */
	struct mmnf_read *list, **list_end; /* pread: to be read */
};

int mmnf_queue_file_probe(void)
{
	struct io_uring ring;
	int err = io_uring_queue_init(1, &ring, 0);

	if (!err)
		io_uring_queue_exit(&ring);
	return err;
}

static void append(struct mmnf_read ***end, struct mmnf_read *read)
{
	read->next = NULL;
	**end = read;
	*end = &read->next;
}

static struct mmnf_read *take(struct mmnf_read **list, struct mmnf_read ***end)
{
	struct mmnf_read *read = *list;

	if (read) {
		*list = read->next;
		if (!*list)
			*end = list;
	}
	return read;
}

static void tell(const struct file_queue *q)
{
	u64 one = 1;

	if (q->eventfd >= 0 && write(q->eventfd, &one, sizeof(one)) < 0)
		return; /* full: readable as it is */
}

static void finish(struct file_queue *q, struct mmnf_read *read, s64 result)
{
	read->result = result;
	append(&q->done_end, read);
}

/* ---- io_uring */

/* Over the limit of locked memory it is done without. */
static bool register_piece(struct file_queue *q, u64 i)
{
	struct iovec piece = { q->memory + i * q->piece_bytes,
			       min_u64(q->piece_bytes,
				       q->memory_bytes - i * q->piece_bytes) };

	q->pieces[i] = io_uring_register_buffers_update_tag(
			       &q->ring, (unsigned int)i, &piece, NULL, 1) == 1;
	q->fixed_buffers = q->pieces[i];
	return q->pieces[i];
}

/*
 * L2's memory is registered piece by piece, as tiles are read into it; at once
 * where all of it is taken already.
 */
static void open_buffers(struct file_queue *q)
{
	bool at_once = mmnf_cache_is_populated(q->head.field->cache);
	u64 i;

	mmnf_cache_memory(q->head.field->cache, &q->memory, &q->memory_bytes);
	if (!q->memory)
		return;
	for (q->piece_bytes = at_once ? BUFFER_BYTES_MAX : 2ULL << 20;
	     q->memory_bytes / q->piece_bytes >= BUFFERS_MAX;)
		q->piece_bytes *= 2;
	q->nr_pieces = (u32)((q->memory_bytes - 1) / q->piece_bytes + 1);
	q->pieces = calloc(q->nr_pieces, sizeof(*q->pieces));
	q->fixed_buffers = q->pieces && !io_uring_register_buffers_sparse(
						&q->ring, q->nr_pieces);
	for (i = 0; at_once && q->fixed_buffers && i < q->nr_pieces; i++)
		register_piece(q, i);
}

static int open_ring(struct file_queue *q)
{
	struct io_uring_params p = { 0 };
	int err;

	if (q->head.field->sqpoll) {
		p.flags = IORING_SETUP_SQPOLL;
		p.sq_thread_idle = 100; /* ms */
	} else if (q->eventfd < 0) {
		/* Who waits is in the kernel anyway: no interrupts. */
		p.flags = IORING_SETUP_COOP_TASKRUN;
	}
	err = io_uring_queue_init_params(q->head.depth, &q->ring, &p);
	if (err == -EINVAL || (err && q->head.field->sqpoll)) {
		memset(&p, 0, sizeof(p));
		err = io_uring_queue_init_params(q->head.depth, &q->ring, &p);
	}
	if (err)
		return err;
	if (q->eventfd >= 0)
		err = io_uring_register_eventfd(&q->ring, q->eventfd);
	if (err) {
		io_uring_queue_exit(&q->ring);
		return err;
	}
	q->fixed_files = !io_uring_register_files_sparse(&q->ring, FILES);
	open_buffers(q);
	return 0;
}

/* Hands over what is prepared; then the kernel has looked up its files. */
static void flush(struct file_queue *q)
{
	io_uring_submit(&q->ring);
	while (q->ring.flags & IORING_SETUP_SQPOLL &&
	       io_uring_sq_ready(&q->ring))
		sched_yield();
	q->consumed = q->clock;
}

/* Index of a registered file, or -1. */
static int file_index(struct file_queue *q, const struct mmnf_segment *s,
		      int fd)
{
	u32 i, oldest = 0;

	if (!q->fixed_files)
		return -1;
	for (i = 0; i < FILES; i++) {
		if (q->files[i].id == s->id)
			goto found;
		if (q->files[i].stamp < q->files[oldest].stamp)
			oldest = i;
	}
	/* Registering costs a call: not for a file that is read once. */
	if (s->id != q->last_id) {
		q->last_id = s->id;
		return -1;
	}
	i = oldest;
	if (q->files[i].stamp > q->consumed)
		flush(q);
	q->files[i].id = 0;
	if (io_uring_register_files_update(&q->ring, i, &fd, 1) != 1) {
		q->fixed_files = false;
		return -1;
	}
	q->files[i].id = s->id;
found:
	q->files[i].stamp = ++q->clock;
	return (int)i;
}

/* Index of the registered memory that holds all of it, or -1. */
static int buffer_index(struct file_queue *q, const struct iovec *iov)
{
	u64 at = (u64)((char *)iov->iov_base - q->memory);
	u64 i = at / q->piece_bytes;

	if (at >= q->memory_bytes ||
	    i != (at + iov->iov_len - 1) / q->piece_bytes)
		return -1;
	return q->pieces[i] || register_piece(q, i) ? (int)i : -1;
}

static void prepare(struct file_queue *q, struct mmnf_read *read,
		    struct mmnf_segment *s)
{
	int fd = q->head.ops->align_bytes > 1 ?
			 mmnf_segment_direct(q->head.field, s) :
			 s->fd;
	int file = file_index(q, s, fd), buffer;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&q->ring);
	u64 offset = read->offset + read->done;

	/* The ring has room for depth; a submit empties it. */
	while (!sqe) {
		flush(q);
		sqe = io_uring_get_sqe(&q->ring);
	}
	if (file >= 0)
		fd = file;
	else
		q->plain = true;
	buffer = -1;
	if (q->fixed_buffers && read->nr_iov == 1)
		buffer = buffer_index(q, read->iov);
	if (buffer >= 0)
		io_uring_prep_read_fixed(sqe, fd, read->iov->iov_base,
					 (u32)read->iov->iov_len, offset,
					 buffer);
	else if (read->nr_iov == 1)
		io_uring_prep_read(sqe, fd, read->iov->iov_base,
				   (u32)read->iov->iov_len, offset);
	else
		io_uring_prep_readv(sqe, fd, read->iov, read->nr_iov, offset);
	if (file >= 0)
		sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, read);
}

/* Before the segment may be closed, whose number stands in what is prepared. */
static void hand_over(struct file_queue *q)
{
	bool polled = q->ring.flags & IORING_SETUP_SQPOLL;

	if (q->plain || (!polled && q->eventfd >= 0)) {
		flush(q);
		q->plain = false;
	} else if (polled) {
		io_uring_submit(&q->ring);
		if (!io_uring_sq_ready(&q->ring))
			q->consumed = q->clock;
	}
}

/* ---- both */

static void skip_iov(struct mmnf_read *read, u64 bytes)
{
	read->done += bytes;
	while (bytes && bytes >= read->iov->iov_len) {
		bytes -= read->iov->iov_len;
		read->iov++;
		read->nr_iov--;
	}
	if (bytes) {
		read->iov->iov_base = (char *)read->iov->iov_base + bytes;
		read->iov->iov_len -= bytes;
	}
}

/*
 * What a read of the file returned; true: all that there is has come, or an
 * error.  A file that ends too early was cut since it was opened.
 */
static bool account(struct file_queue *q, struct mmnf_read *read, s64 result)
{
	u32 align = q->head.ops->align_bytes;

	if (result == -EINTR || result == -EAGAIN)
		return false;
	/*
	 * What the kernel does in the name of a thread that has ended meanwhile
	 * fails: this one does it in its own.
	 */
	if ((result == -ECANCELED || result == -EFAULT) &&
	    read->tries++ < TRIES)
		return false;
	if (result < 0) {
		read->result = result;
		return true;
	}
	if (read->done + (u64)result >= read->expected) {
		read->result = (s64)read->expected;
		return true;
	}
	if (!result || (u64)result % align) {
		read->result = -EIO;
		return true;
	}
	skip_iov(read, (u64)result);
	return false;
}

static int hold(struct file_queue *q, struct mmnf_segment **s, u64 segment)
{
	if (*s && (*s)->number == segment)
		return 0;
	if (*s)
		mmnf_segment_put(q->head.field, *s);
	*s = NULL;
	return mmnf_segment_get(q->head.field, segment, false, s);
}

static void start(struct file_queue *q, struct mmnf_read *read,
		  struct mmnf_segment **s)
{
	int err = hold(q, s, read->segment);

	if (!err && read->offset >= (*s)->file_bytes)
		err = -EIO;
	if (err) {
		finish(q, read, err);
		return;
	}
	read->expected = min_u64(read->bytes, (*s)->file_bytes - read->offset);
	if (q->uring) {
		prepare(q, read, *s);
	} else {
		if (q->head.ops->align_bytes == 1)
			mmnf_hint_willneed((*s)->fd, read->offset, read->bytes);
		append(&q->list_end, read);
	}
}

u32 mmnf_queue_file_submit(struct mmnf_queue *head,
			   struct mmnf_read *const *reads, u32 nr)
{
	struct file_queue *q = (struct file_queue *)head;
	struct mmnf_segment *s = NULL;
	u32 i;

	for (i = 0; i < nr && head->in_flight < head->depth; i++) {
		reads[i]->done = 0;
		reads[i]->tries = 0;
		head->in_flight++;
		start(q, reads[i], &s);
	}
	if (q->uring)
		hand_over(q);
	if (s)
		mmnf_segment_put(head->field, s);
	if (q->done || q->list)
		tell(q);
	return i;
}

static void again(struct file_queue *q, struct mmnf_read *read)
{
	struct mmnf_segment *s = NULL;

	start(q, read, &s);
	if (q->uring)
		hand_over(q);
	if (s)
		mmnf_segment_put(q->head.field, s);
}

static void collect(struct file_queue *q)
{
	struct io_uring_cqe *cqe;

	while (!io_uring_peek_cqe(&q->ring, &cqe)) {
		struct mmnf_read *read = io_uring_cqe_get_data(cqe);
		s64 result = cqe->res;

		io_uring_cqe_seen(&q->ring, cqe);
		if (account(q, read, result))
			append(&q->done_end, read);
		else
			again(q, read);
	}
}

/* Hands over what is prepared, in any case. */
static void reap_uring(struct file_queue *q, s64 timeout_ns)
{
	struct __kernel_timespec ts = { timeout_ns / 1000000000,
					timeout_ns % 1000000000 };
	struct io_uring_cqe *cqe;
	int err = 0;

	if (!timeout_ns)
		io_uring_submit(&q->ring);
	if (!timeout_ns || !io_uring_sq_ready(&q->ring))
		collect(q);
	while (timeout_ns && !q->done && err >= 0) {
		err = io_uring_submit_and_wait_timeout(
			&q->ring, &cqe, 1, timeout_ns < 0 ? NULL : &ts, NULL);
		if (!io_uring_sq_ready(&q->ring))
			q->consumed = q->clock;
		collect(q); /* also after a signal, or when the time is over */
	}
}

static void reap_pread(struct file_queue *q, s64 timeout_ns)
{
	struct mmnf_read *read = q->list;
	struct mmnf_segment *s = NULL;
	bool end = false;
	int err;

	if (!read)
		return;
	err = hold(q, &s, read->segment);
	while (!err && !end) {
		s64 n = preadv2(s->fd, read->iov, (int)read->nr_iov,
				(off_t)(read->offset + read->done),
				timeout_ns ? 0 : RWF_NOWAIT);

		if (n < 0 && errno == EOPNOTSUPP && !timeout_ns)
			timeout_ns = -1; /* cannot be asked without waiting */
		else if (n < 0 && errno == EAGAIN && !timeout_ns &&
			 !read->tries++)
			break;
		else if (n < 0 && errno == EAGAIN)
			timeout_ns = -1; /* nobody else will read it */
		else
			end = account(q, read, n < 0 ? -errno : n);
	}
	if (s)
		mmnf_segment_put(q->head.field, s);
	if (!err && !end) {
		tell(q);
		return;
	}
	take(&q->list, &q->list_end);
	finish(q, read, err ? err : read->result);
	if (q->list)
		tell(q);
}

u32 mmnf_queue_file_reap(struct mmnf_queue *head, struct mmnf_read **done,
			 u32 max, s64 timeout_ns)
{
	struct file_queue *q = (struct file_queue *)head;
	u32 n = 0;

	if (!q->uring && !q->done)
		reap_pread(q, timeout_ns);
	else if (q->uring)
		reap_uring(q, q->done ? 0 : head->in_flight ? timeout_ns : 0);
	while (n < max && q->done) {
		done[n++] = take(&q->done, &q->done_end);
		head->in_flight--;
	}
	if (q->done)
		tell(q);
	return n;
}

int mmnf_queue_file_open(struct mmnf_field *field, u32 depth, int eventfd,
			 struct mmnf_queue **out)
{
	struct file_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return mmnf_error(ENOMEM, "no memory for a queue of reads");
	q->head = (struct mmnf_queue) { field->ops, field, depth, 0 };
	q->eventfd = eventfd;
	q->done_end = &q->done;
	q->list_end = &q->list;
	/* Refused since the field was opened, or out of memory: the same bytes. */
	q->uring = !field->no_uring && !open_ring(q);
	*out = &q->head;
	return 0;
}

void mmnf_queue_file_close(struct mmnf_queue *head)
{
	struct file_queue *q = (struct file_queue *)head;
	struct mmnf_read *done[16];

	/* A read of a file cannot be taken back: it is waited for. */
	q->list = NULL;
	while (q->uring && head->in_flight)
		mmnf_queue_file_reap(head, done, 16, -1);
	if (q->uring)
		io_uring_queue_exit(&q->ring);
	free(q->pieces);
	free(q);
}
