// SPDX-License-Identifier: MIT
/*
 * Engine net: segments that lie one behind the other in a remote byte space, read
 * into L2.  No pointers: an error of the network would be a signal.
 *
 *	segment, offset -> position = segment * segment_bytes + offset
 *
 * A queue is a list of requests of the net and a list of those that are done.
 * Whoever waits for one drives the net; with an eventfd the net's thread does.
 *
 * With a persistent cache (ssd.h) reads look there first, and writes go through its
 * log.  It knows blocks of 4096 bytes of the space: a read that does not begin or
 * end with one goes by way of memory of its own.
 *
 * Locks: queue.lock guards the list of what is done, and is outside of the net's.
 * remote.lock guards what was written since the last sync, and one write at a time
 * that has to read before, because servers take whole blocks alone; remote.syncing is
 * held outside of it, so that of two syncs each waits for what the other flushes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "net.h"
#include "ssd.h"
#include "tier.h"

#define CLOSE_NS 30000000000LL /* as long as a request waits by default */

/* Of a group: writes of this epoch are not on stable storage yet. */
struct unsynced {
	bool any, lost;
	u64 epoch;
};

struct mmnf_remote {
	struct mmnf_net *net;
	struct mmnf_ssd *ssd; /* NULL: none was asked for; see ssd_of() */
	pid_t pid;
	pthread_mutex_t lock, syncing; /* syncing: outside of lock */
	struct unsynced *unsynced;
};

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
	struct mmnf_read *done, **done_end;
	struct net_read *reads, *spare;
};

/* The cache; a child after fork() has none. */
static struct mmnf_ssd *ssd_of(const struct mmnf_remote *r)
{
	return r->ssd && r->pid == getpid() ? r->ssd : NULL;
}

static u64 position(const struct mmnf_field *field, u64 segment, u64 offset)
{
	return segment * mmnf_field_geometry(field)->segment_bytes + offset;
}

/* ---- opening */

static u64 end_of_data(const struct mmnf_geometry *g)
{
	u64 last[MMNF_NDIM_MAX], segment, offset;
	u32 i;

	if (g->nr_segments == 1)
		return g->segment_bytes;
	for (i = 0; i < g->ndim; i++)
		last[i] = g->shape[i] - 1;
	mmnf_geometry_locate(g, last, &segment, &offset);
	return segment * g->segment_bytes + offset + g->element_bytes;
}

int mmnf_engine_net_open(struct mmnf_field *field,
			 const struct mmnf_open_opts *opts)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_remote *r = calloc(1, sizeof(*r));
	struct mmnf_net_opts net_opts;
	int err;

	if (!r)
		return mmnf_error(ENOMEM, "no memory");
	pthread_mutex_init(&r->lock, NULL);
	pthread_mutex_init(&r->syncing, NULL);
	r->pid = getpid();
	field->remote = r;
	err = mmnf_net_opts_from(&net_opts, opts);
	if (!err)
		err = mmnf_net_open(&r->net, field->store.net, &net_opts,
				    end_of_data(g));
	if (err)
		return err;
	r->unsynced = calloc(mmnf_net_nr_groups(r->net), sizeof(*r->unsynced));
	if (!r->unsynced)
		return mmnf_error(ENOMEM, "no memory");
	return opts->net_cache_dir ? mmnf_ssd_net_open(&r->ssd, r->net, opts) :
				     0;
}

void mmnf_engine_net_shut(struct mmnf_field *field)
{
	struct mmnf_remote *r = field->remote;

	if (!r)
		return;
	/* What cannot be brought to the servers now stays in the log. */
	if (ssd_of(r)) {
		mmnf_net_hurry(r->net, CLOSE_NS);
		mmnf_ssd_sync(r->ssd);
	}
	mmnf_net_shut(r->net);
}

void mmnf_engine_net_close(struct mmnf_field *field)
{
	struct mmnf_remote *r = field->remote;

	if (!r)
		return;
	mmnf_ssd_close(ssd_of(r));
	mmnf_net_close(r->net);
	pthread_mutex_destroy(&r->lock);
	pthread_mutex_destroy(&r->syncing);
	free(r->unsynced);
	free(r);
	field->remote = NULL;
}

static int probe(const struct mmnf_field *field, char *reason, size_t len)
{
	snprintf(reason, len, "the field is on the network: %u server%s",
		 field->store.net->nr_groups,
		 field->store.net->nr_groups > 1 ? "s" : "");
	return 0;
}

static void stats(struct mmnf_field *field, struct mmnf_field_stats *out)
{
	if (field->walk)
		mmnf_walk_stats(field, out);
}

void mmnf_engine_net_describe(struct mmnf_field *field, struct mmnf_tier *tier)
{
	tier->is_on = 1;
	tier->size_bytes = mmnf_net_bytes(field->remote->net);
	mmnf_net_describe(field->remote->net, tier->text, sizeof(tier->text));
}

void mmnf_engine_net_describe_ssd(struct mmnf_field *field,
				  struct mmnf_tier *tier)
{
	mmnf_ssd_describe(ssd_of(field->remote), tier);
}

MMNF_EXPORT int mmnf_net_stats(struct mmnf_field *field, uint32_t server,
			       struct mmnf_net_stats *stats)
{
	struct mmnf_net_stats out = { .size = sizeof(out) };

	mmnf_error_enter("mmnf_net_stats");
	if (stats->size != sizeof(*stats))
		return mmnf_error(EINVAL, "size is %zu: expected %zu",
				  stats->size, sizeof(*stats));
	if (!field->remote)
		return mmnf_error(EOPNOTSUPP, "the field is on local files");
	out.nr_servers = mmnf_net_nr_groups(field->remote->net);
	if (server >= out.nr_servers)
		return mmnf_error(ERANGE, "server is %u: expected below %u",
				  server, out.nr_servers);
	mmnf_net_group_stats(field->remote->net, server, &out);
	*stats = out;
	return 0;
}

static int explain(struct mmnf_field *field, u64 segment, u64 offset, u64 bytes,
		   int err)
{
	return mmnf_net_explain(field->remote->net,
				position(field, segment, offset), bytes, err);
}

/* ---- reading */

static void tell(const struct net_queue_head *q)
{
	u64 one = 1;

	if (q->eventfd >= 0 && write(q->eventfd, &one, sizeof(one)) < 0)
		return; /* full: readable as it is */
}

/* Over: its memory is as wanted. */
static void give_back(struct net_read *r, s64 result)
{
	struct net_queue_head *q = r->queue;
	struct mmnf_read *read = r->read;

	free(r->bounce);
	r->bounce = NULL;
	read->result = result;
	read->next = NULL;
	pthread_mutex_lock(&q->lock);
	r->next = q->spare;
	q->spare = r;
	*q->done_end = read;
	q->done_end = &read->next;
	tell(q);
	/* With the lock: without it the queue may be gone. */
	if (!__atomic_load_n(&q->ready, __ATOMIC_RELAXED))
		mmnf_net_wake(q->head.field->remote->net, &q->ready);
	pthread_mutex_unlock(&q->lock);
}

/* All bytes of the request are there. */
static void arrived(struct net_read *r)
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
	give_back(r, (s64)read->expected);
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
		arrived(r);
	}
}

static void prepare(struct net_queue_head *q, struct net_read *r,
		    struct mmnf_read *read)
{
	struct mmnf_field *field = q->head.field;
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 at = position(field, read->segment, read->offset);

	/* A tile at the end has more room than there are bytes. */
	read->expected = min_u64(read->bytes, g->segment_bytes - read->offset);
	read->expected = min_u64(read->expected,
				 mmnf_net_bytes(field->remote->net) - at);
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

static u32 submit(struct mmnf_queue *head, struct mmnf_read *const *reads,
		  u32 nr)
{
	struct net_queue_head *q = (struct net_queue_head *)head;
	struct mmnf_remote *remote = head->field->remote;
	struct mmnf_net_io *ios[64];
	struct net_read *r;
	u32 i, n = 0;

	for (i = 0; i < nr && head->in_flight < head->depth; i++) {
		pthread_mutex_lock(&q->lock);
		r = q->spare;
		q->spare = r->next;
		pthread_mutex_unlock(&q->lock);
		prepare(q, r, reads[i]);
		head->in_flight++;
		if (ssd_of(remote) && read_ssd(remote->ssd, r)) {
			arrived(r);
			continue;
		}
		ios[n++] = &r->io;
		if (n < 64)
			continue;
		mmnf_net_submit(remote->net, ios, n);
		n = 0;
	}
	if (n)
		mmnf_net_submit(remote->net, ios, n);
	return i;
}

static u32 take(struct net_queue_head *q, struct mmnf_read **done, u32 max)
{
	u32 n = 0;

	pthread_mutex_lock(&q->lock);
	while (n < max && q->done) {
		done[n++] = q->done;
		q->done = q->done->next;
	}
	if (!q->done) {
		q->done_end = &q->done;
		__atomic_store_n(&q->ready, false, __ATOMIC_RELAXED);
	} else {
		tell(q);
	}
	pthread_mutex_unlock(&q->lock);
	q->head.in_flight -= n;
	return n;
}

static u32 reap(struct mmnf_queue *head, struct mmnf_read **done, u32 max,
		s64 timeout_ns)
{
	struct net_queue_head *q = (struct net_queue_head *)head;
	u32 n = take(q, done, max);

	if (n || !timeout_ns || !head->in_flight)
		return n;
	mmnf_net_wait(head->field->remote->net, &q->ready, timeout_ns);
	return take(q, done, max);
}

static void cancel(struct mmnf_queue *head)
{
	struct net_queue_head *q = (struct net_queue_head *)head;
	u32 i;

	for (i = 0; head->in_flight && i < head->depth; i++)
		mmnf_net_cancel(head->field->remote->net, &q->reads[i].io);
}

static void wait_ready(struct mmnf_queue *head, s64 timeout_ns)
{
	struct net_queue_head *q = (struct net_queue_head *)head;

	mmnf_net_wait(head->field->remote->net, &q->ready, timeout_ns);
}

static void wake(struct mmnf_queue *head)
{
	struct net_queue_head *q = (struct net_queue_head *)head;

	mmnf_net_wake(head->field->remote->net, &q->ready);
}

static int queue_open(struct mmnf_field *field, u32 depth, int eventfd,
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
	*out = &q->head;
	return 0;
}

static void queue_close(struct mmnf_queue *head)
{
	struct net_queue_head *q = (struct net_queue_head *)head;
	struct mmnf_read *done[16];

	cancel(head);
	while (head->in_flight)
		reap(head, done, 16, -1);
	pthread_mutex_destroy(&q->lock);
	free(q->reads);
	free(q);
}

/* ---- writing */

static int do_io(struct mmnf_net *net, struct mmnf_net_io *io, u8 op,
		 u64 offset, void *memory, u64 bytes)
{
	struct iovec iov = { memory, bytes };

	*io = (struct mmnf_net_io) { .op = op,
				     .offset = offset,
				     .bytes = bytes,
				     .iov = &iov,
				     .nr_iov = 1 };
	return mmnf_net_do(net, io);
}

static void note_write(struct mmnf_remote *r, const struct mmnf_net_io *io)
{
	struct unsynced *u = &r->unsynced[io->group];

	pthread_mutex_lock(&r->lock);
	u->lost |= u->any && u->epoch != io->epoch;
	u->any = true;
	u->epoch = io->epoch;
	pthread_mutex_unlock(&r->lock);
}

static int write_blocks(struct mmnf_remote *r, u64 offset, const char *from,
			u64 bytes)
{
	struct mmnf_net_io io;
	int err =
		do_io(r->net, &io, MMNF_NET_WRITE, offset, (void *)from, bytes);

	if (!err)
		note_write(r, &io);
	return err;
}

/* A part of a block: read, changed, written. */
static int write_in_block(struct mmnf_remote *r, u64 offset, const char *from,
			  u64 bytes, u32 block)
{
	static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
	u64 start = offset / block * block;
	u64 end = min_u64(start + block, mmnf_net_bytes(r->net));
	struct mmnf_net_io io;
	char whole[4096];
	int err;

	pthread_mutex_lock(&turn);
	err = do_io(r->net, &io, MMNF_NET_READ, start, whole, end - start);
	if (!err) {
		memcpy(whole + (offset - start), from, bytes);
		err = write_blocks(r, start, whole, end - start);
	}
	pthread_mutex_unlock(&turn);
	return err;
}

int mmnf_engine_net_write(struct mmnf_field *field, u64 segment, u64 offset,
			  const void *from, u64 bytes)
{
	struct mmnf_remote *r = field->remote;
	u32 block = mmnf_net_align(r->net), group;
	u64 at = position(field, segment, offset), done, n;
	int err = 0;

	if (ssd_of(r))
		return mmnf_ssd_write(r->ssd, at, bytes, from);
	for (done = 0; done < bytes && !err; done += n) {
		const char *p = (const char *)from + done;
		u64 in_block = (at + done) % block;

		n = min_u64(mmnf_net_unit(r->net, at + done, &group),
			    bytes - done);
		n = min_u64(n, MMNF_NET_IO_BYTES_MAX / block * block);
		if (in_block || n < block) {
			n = min_u64(n, block - in_block);
			err = write_in_block(r, at + done, p, n, block);
			continue;
		}
		n = n / block * block;
		err = write_blocks(r, at + done, p, n);
	}
	return err;
}

static int sync_group(struct mmnf_remote *r, u32 group)
{
	struct mmnf_net_io io = { .op = MMNF_NET_FLUSH, .group = group };
	struct unsynced *u = &r->unsynced[group], before;
	int err;

	pthread_mutex_lock(&r->lock);
	before = *u;
	*u = (struct unsynced) { 0 };
	pthread_mutex_unlock(&r->lock);
	if (!before.any)
		return 0;
	err = mmnf_net_do(r->net, &io);
	if (err) {
		/* Still to be flushed, and the next sync is to say so. */
		pthread_mutex_lock(&r->lock);
		u->lost |= before.lost || (u->any && u->epoch != before.epoch);
		if (!u->any)
			u->epoch = before.epoch;
		u->any = true;
		pthread_mutex_unlock(&r->lock);
		return err;
	}
	if (!before.lost && before.epoch == io.epoch)
		return 0;
	return mmnf_error(
		EIO,
		"server %u was lost between a write and its flush: what was written since the sync before may be gone",
		group);
}

int mmnf_engine_net_sync(struct mmnf_field *field)
{
	struct mmnf_remote *r = field->remote;
	int err = 0, e;
	u32 i;

	if (ssd_of(r))
		return mmnf_ssd_sync(r->ssd);
	/* Of two at once the second waits for what the first flushes. */
	pthread_mutex_lock(&r->syncing);
	for (i = 0; i < mmnf_net_nr_groups(r->net); i++) {
		e = sync_group(r, i);
		err = err ? err : e;
	}
	pthread_mutex_unlock(&r->syncing);
	return err;
}

const struct mmnf_tier_ops mmnf_tier_net = {
	.name = "net",
	.align_bytes = 1,
	.cached = true,
	.probe = probe,
	.stats = stats,
	.queue_open = queue_open,
	.queue_close = queue_close,
	.submit = submit,
	.reap = reap,
	.cancel = cancel,
	.wait = wait_ready,
	.wake = wake,
	.explain = explain,
};
