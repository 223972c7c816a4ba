// SPDX-License-Identifier: MIT
/*
 * The queue of engine net: requests of the net, reads of the persistent cache's disk,
 * and a list of those that are done.
 *
 *	submit:	read -> cache: there?  -- its disk --> right? --.
 *		                  | no                    | no  |
 *		                  '---> net <-------------'     |
 *	reap:	                         '----> done list <-----'
 *
 * Whoever waits for a request drives the net; with an eventfd the net's thread does.
 * Who waits for the cache's disk alone waits there, else for both with the net.
 *
 * One read that somebody waits for goes past the queue, where there is no such cache.
 *
 * The cache knows blocks of 4096 bytes of the space: a read that does not begin or
 * end with one goes by way of memory of its own.
 *
 * Locks: queue.lock guards the list of what is done, and is outside of the net's.
 */
#include <errno.h>
#include <stdlib.h>

#include "engine-net.h"

/* bounce: of io.bytes, around what is wanted; ticket: of mmnf_ssd_read() */
struct net_read {
	struct mmnf_net_io io;
	char *bounce;
	struct iovec whole;
	u64 ticket;
	struct mmnf_read *read;
	struct net_queue_head *queue;
	struct net_read *next;
};

struct net_queue_head {
	struct mmnf_queue head;
	pthread_mutex_t lock;
	int eventfd;
	bool ready; /* there is something in done, or was */
	struct mmnf_ssd_queue *ssd; /* NULL: the cache is read at once */
	struct mmnf_net_watch watch; /* of its file */
	struct net_read *done, **done_end;
	struct net_read *reads,
		*spare; /* spare: the user's, without the lock */
};

static void tell(const struct net_queue_head *q)
{
	u64 one = 1;

	if (q->eventfd >= 0 && write(q->eventfd, &one, sizeof(one)) < 0)
		return; /* full: readable as it is */
}

/* Over: its memory is as wanted; queue.lock is held. */
static void finish(struct net_read *r, s64 result)
{
	struct net_queue_head *q = r->queue;

	r->read->result = result;
	r->next = NULL;
	*q->done_end = r;
	q->done_end = &r->next;
}

/* The same, and whoever waits is told. */
static void give_back(struct net_read *r, s64 result)
{
	struct net_queue_head *q = r->queue;

	free(r->bounce);
	r->bounce = NULL;
	pthread_mutex_lock(&q->lock);
	finish(r, result);
	tell(q);
	/* With the lock: without it the queue may be gone. */
	if (!__atomic_load_n(&q->ready, __ATOMIC_RELAXED))
		mmnf_net_wake(q->head.field->remote->net, &q->ready);
	pthread_mutex_unlock(&q->lock);
}

/* All bytes of the request are there: now they are where they are wanted. */
static s64 arrived(struct net_read *r)
{
	const struct mmnf_read *read = r->read;
	u64 left = read->expected, n;
	const char *from;
	u32 i;

	if (r->bounce) {
		from = r->bounce +
		       position(r->queue->head.field, read->segment,
				read->offset) -
		       r->io.offset;
		for (i = 0; left; i++, left -= n, from += n) {
			n = min_u64(left, read->iov[i].iov_len);
			memcpy(read->iov[i].iov_base, from, n);
		}
	}
	return (s64)read->expected;
}

static bool read_ssd(struct mmnf_ssd *ssd, struct net_read *r)
{
	return mmnf_ssd_read(ssd, r->io.offset, r->io.bytes, r->io.iov,
			     r->io.nr_iov, &r->ticket);
}

static void came(struct mmnf_net_io *io)
{
	struct net_read *r = io->owner;
	struct mmnf_remote *remote = r->queue->head.field->remote;
	int err = io->result;

	if (!err && ssd_of(remote))
		err = mmnf_ssd_came(remote->ssd, io->offset, io->bytes, io->iov,
				    io->nr_iov, r->ticket);
	if (err < 0) {
		give_back(r, err);
	} else if (err && !read_ssd(remote->ssd, r)) {
		/* A write overtook it. */
		mmnf_net_submit(remote->net, &io, 1);
	} else {
		give_back(r, arrived(r));
	}
}

/* A tile at the end has more room than there are bytes. */
static u64 bytes_there(const struct mmnf_field *field, u64 segment, u64 offset,
		       u64 bytes)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);

	return min_u64(min_u64(bytes, g->segment_bytes - offset),
		       mmnf_net_bytes(field->remote->net) -
			       position(field, segment, offset));
}

static void prepare(struct net_queue_head *q, struct net_read *r,
		    struct mmnf_read *read)
{
	struct mmnf_field *field = q->head.field;
	u64 at = position(field, read->segment, read->offset);

	read->expected =
		bytes_there(field, read->segment, read->offset, read->bytes);
	r->read = read;
	r->io = (struct mmnf_net_io) {
		.op = MMNF_NET_READ,
		.priority = read->ahead ? MMNF_NET_PREFETCH : MMNF_NET_DEMAND,
		.awaited = q->eventfd < 0,
		.offset = at,
		.bytes = read->expected,
		.iov = read->iov,
		.nr_iov = read->nr_iov,
		.done = came,
		.owner = r,
	};
	if (ssd_of(field->remote))
		r->bounce = mmnf_ssd_widen(&r->io, &r->whole,
					   mmnf_net_bytes(field->remote->net));
}

/* Does the cache see to it? */
static bool ask_ssd(struct net_queue_head *q, struct net_read *r)
{
	struct mmnf_ssd *ssd = ssd_of(q->head.field->remote);
	enum mmnf_ssd_begun begun;

	if (!ssd)
		return false;
	if (q->ssd)
		begun = mmnf_ssd_queue_read(q->ssd, r->io.offset, r->io.bytes,
					    r->io.iov, r->io.nr_iov, &r->ticket,
					    r);
	else
		begun = read_ssd(ssd, r) ? MMNF_SSD_HIT : MMNF_SSD_MISS;
	if (begun == MMNF_SSD_HIT)
		give_back(r, arrived(r));
	return begun != MMNF_SSD_MISS;
}

u32 mmnf_queue_net_submit(struct mmnf_queue *head,
			  struct mmnf_read *const *reads, u32 nr)
{
	struct net_queue_head *q = (struct net_queue_head *)head;
	struct mmnf_remote *remote = head->field->remote;
	struct mmnf_net_io *ios[64];
	struct net_read *r;
	u32 i, n = 0;

	for (i = 0; i < nr && head->in_flight < head->depth; i++) {
		r = q->spare;
		q->spare = r->next;
		prepare(q, r, reads[i]);
		head->in_flight++;
		if (ask_ssd(q, r))
			continue;
		ios[n++] = &r->io;
		if (n < 64)
			continue;
		mmnf_net_submit(remote->net, ios, n);
		n = 0;
	}
	if (n)
		mmnf_net_submit(remote->net, ios, n);
	/* Else reap() comes, which can wait with the same call. */
	if (q->ssd && q->eventfd >= 0)
		mmnf_ssd_queue_submit(q->ssd);
	return i;
}

/* What has come from the cache's disk; what it was wrong about goes to the net. */
static void collect(struct net_queue_head *q)
{
	struct mmnf_net *net = q->head.field->remote->net;
	struct mmnf_net_io *io;
	struct net_read *r;
	bool hit;
	s64 n;

	while ((r = mmnf_ssd_queue_take(q->ssd, &hit))) {
		if (!hit) {
			io = &r->io;
			mmnf_net_submit(net, &io, 1);
			continue;
		}
		n = arrived(r);
		free(r->bounce);
		r->bounce = NULL;
		pthread_mutex_lock(&q->lock);
		finish(r, n);
		pthread_mutex_unlock(&q->lock);
	}
}

static u32 take(struct net_queue_head *q, struct mmnf_read **done, u32 max)
{
	struct net_read *r;
	u32 n = 0;

	/* Before it is looked: what comes later tells anew. */
	__atomic_store_n(&q->ready, false, __ATOMIC_SEQ_CST);
	if (q->ssd)
		collect(q);
	pthread_mutex_lock(&q->lock);
	while (n < max && q->done) {
		r = q->done;
		q->done = r->next;
		done[n++] = r->read;
		r->next = q->spare;
		q->spare = r;
	}
	if (!q->done) {
		q->done_end = &q->done;
	} else {
		__atomic_store_n(&q->ready, true, __ATOMIC_RELAXED);
		tell(q);
	}
	pthread_mutex_unlock(&q->lock);
	q->head.in_flight -= n;
	return n;
}

void mmnf_queue_net_wait(struct mmnf_queue *head, s64 timeout_ns)
{
	struct net_queue_head *q = (struct net_queue_head *)head;

	mmnf_net_wait(head->field->remote->net, &q->ready, timeout_ns);
}

/* Begins what is prepared; whoever waits with the net is told of its end, too. */
static void start_ssd(struct net_queue_head *q)
{
	mmnf_ssd_queue_submit(q->ssd);
	if (q->eventfd < 0 && mmnf_ssd_queue_under_way(q->ssd))
		mmnf_net_watch(q->head.field->remote->net, &q->watch);
}

u32 mmnf_queue_net_reap(struct mmnf_queue *head, struct mmnf_read **done,
			u32 max, s64 timeout_ns)
{
	struct net_queue_head *q = (struct net_queue_head *)head;
	u32 n = take(q, done, max);
	bool waits = !n && timeout_ns && head->in_flight;

	if (waits && q->ssd &&
	    mmnf_ssd_queue_under_way(q->ssd) == head->in_flight) {
		mmnf_ssd_queue_wait(q->ssd, timeout_ns);
	} else {
		if (q->ssd)
			start_ssd(q);
		if (waits)
			mmnf_queue_net_wait(head, timeout_ns);
	}
	return waits ? take(q, done, max) : n;
}

void mmnf_queue_net_cancel(struct mmnf_queue *head)
{
	struct net_queue_head *q = (struct net_queue_head *)head;
	u32 i;

	for (i = 0; head->in_flight && i < head->depth; i++)
		mmnf_net_cancel(head->field->remote->net, &q->reads[i].io);
}

void mmnf_queue_net_wake(struct mmnf_queue *head)
{
	struct net_queue_head *q = (struct net_queue_head *)head;

	mmnf_net_wake(head->field->remote->net, &q->ready);
}

int mmnf_queue_net_open(struct mmnf_field *field, u32 depth, int eventfd,
			struct mmnf_queue **out)
{
	struct net_queue_head *q = calloc(1, sizeof(*q));
	u32 i;

	if (q)
		q->reads = calloc(depth, sizeof(*q->reads));
	if (!q || !q->reads) {
		free(q);
		return mmnf_error(ENOMEM, "no memory for a queue of reads");
	}
	q->head = (struct mmnf_queue) { field->ops, field, depth, 0 };
	pthread_mutex_init(&q->lock, NULL);
	q->eventfd = eventfd;
	q->done_end = &q->done;
	for (i = 0; i < depth; i++) {
		q->reads[i].queue = q;
		q->reads[i].next = q->spare;
		q->spare = &q->reads[i];
	}
	if (ssd_of(field->remote))
		q->ssd =
			mmnf_ssd_queue_open(field->remote->ssd, depth, eventfd);
	if (q->ssd)
		q->watch = (struct mmnf_net_watch) {
			.file = mmnf_ssd_queue_file(q->ssd), .done = &q->ready
		};
	*out = &q->head;
	return 0;
}

void mmnf_queue_net_close(struct mmnf_queue *head)
{
	struct net_queue_head *q = (struct net_queue_head *)head;
	struct mmnf_read *done[16];

	mmnf_queue_net_cancel(head);
	while (head->in_flight)
		mmnf_queue_net_reap(head, done, 16, -1);
	mmnf_net_unwatch(head->field->remote->net, &q->watch);
	mmnf_ssd_queue_close(q->ssd);
	pthread_mutex_destroy(&q->lock);
	free(q->reads);
	free(q);
}

/* ---- without a queue */

/* A slot for the tile.  False: it has one by now, or there is none. */
static bool claim(struct mmnf_cache *cache, u64 segment, u64 offset,
		  struct mmnf_pin *pin)
{
	enum mmnf_cache_state state;

	state = mmnf_cache_get(cache, mmnf_cache_tile(cache, segment, offset),
			       true, true, pin);
	if (state == MMNF_CACHE_HIT)
		mmnf_cache_put(cache, *pin);
	return state == MMNF_CACHE_FILL;
}

bool mmnf_queue_net_begin(struct mmnf_field *field, const struct mmnf_run *run,
			  struct mmnf_alone *alone)
{
	u64 at = run->offset % MMNF_TILE_BYTES, from = run->offset - at, bytes;
	struct mmnf_cache *cache = field->cache;

	if (at + run->bytes > MMNF_TILE_BYTES || field->remote->ssd)
		return false;
	/*
	 * What is not kept is claimed only if it is on its way ahead: who reads it
	 * there would read it again.  In this order: what came in between is known.
	 */
	alone->past = field->l2_once &&
		      !mmnf_ahead_tiles(field, run->segment, from, 1);
	if (alone->past ? mmnf_cache_knows(cache, run->segment, from, 1) :
			  !claim(cache, run->segment, from, &alone->pin))
		return false;
	if (alone->past) {
		alone->data = alone->scratch;
		from = run->offset;
		bytes = run->bytes;
		alone->iov = (struct iovec) { alone->data, bytes };
	} else {
		alone->data = mmnf_cache_data(cache, alone->pin) + at;
		bytes = bytes_there(field, run->segment, from, MMNF_TILE_BYTES);
		alone->iov = (struct iovec) { alone->data - at, bytes };
	}
	alone->io = (struct mmnf_net_io) {
		.op = MMNF_NET_READ,
		.priority = MMNF_NET_DEMAND,
		.offset = position(field, run->segment, from),
		.bytes = bytes,
		.iov = &alone->iov,
		.nr_iov = 1,
	};
	mmnf_net_begin(field->remote->net, &alone->io);
	return true;
}

/* While the server works: it is about to be written. */
static void touch(const char *p, u64 bytes)
{
	u64 i;

	for (i = 0; i < bytes; i += 64)
		__builtin_prefetch(p + i, 1);
}

int mmnf_queue_net_end(struct mmnf_field *field, const struct mmnf_run *run,
		       struct mmnf_alone *alone, char *dst)
{
	u64 now;
	int err;

	if (!alone->past)
		touch(alone->iov.iov_base, alone->iov.iov_len);
	touch(dst + run->dst, run->bytes);
	err = mmnf_net_end(field->remote->net, &alone->io);
	/* Not when the answer came: this thread has waited until it ran again. */
	now = mmnf_publish_now();
	if (!alone->past)
		mmnf_cache_filled(field->cache, alone->pin, !err);
	if (!err)
		memcpy(dst + run->dst, alone->data, run->bytes);
	if (!alone->past)
		mmnf_cache_put(field->cache, alone->pin);
	mmnf_publish_wait(field, now - (u64)alone->io.began_ns);
	return err ? err : 1;
}
