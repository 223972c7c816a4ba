// SPDX-License-Identifier: MIT
/*
 * Engine net: segments that lie one behind the other in a remote byte space, read
 * into L2.  No pointers: an error of the network would be a signal.
 *
 *	segment, offset -> position = segment * segment_bytes + offset
 *
 * Reads are queue-net.c's.  With a persistent cache (ssd.h) writes go through its log.
 *
 * Locks: remote.lock guards what was written since the last sync, and what may still
 * come late.  remote.syncing is held outside of it, so that of two syncs each waits for
 * what the other flushes; so is blocks of a server: servers take whole blocks alone, so a
 * write of a part reads the rest of its block before, alone with it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine-net.h"
#include "fetch.h"

#define LATE_TICK_NS 10000000

/* Of a group: writes of this epoch are not on stable storage yet. */
struct unsynced {
	bool any, lost;
	u64 epoch;
};

/* Of a group: shared by writes of whole blocks. */
struct remote_group {
	struct unsynced unsynced;
	pthread_rwlock_t blocks;
};

/* ---- what may come late */

/* What may still come, of a write that has ended: nothing newer goes before. */
static void note_late(struct mmnf_remote *r, u64 start, u64 end,
		      s64 given_up_ns)
{
	s64 now = mmnf_now_ns();
	struct remote_late *l;
	u32 i, n = 0;

	pthread_mutex_lock(&r->lock);
	for (i = 0; i < r->nr_late; i++)
		if (r->late[i].until_ns > now)
			r->late[n++] = r->late[i];
	if (n < REMOTE_LATE) {
		l = &r->late[n++];
		*l = (struct remote_late) { start, end, 0 };
	} else {
		/* Too many to tell apart: the last covers more than it must. */
		l = &r->late[n - 1];
		l->start = min_u64(l->start, start);
		l->end = max_u64(l->end, end);
		given_up_ns = (s64)max_u64((u64)given_up_ns,
					   (u64)(l->until_ns - r->grace_ns));
	}
	l->until_ns = (s64)max_u64((u64)now, (u64)given_up_ns) + r->grace_ns;
	r->nr_late = n;
	pthread_mutex_unlock(&r->lock);
}

/* Nobody knows of it once the field is closed: others may write there then. */
static void wait_for_late(struct mmnf_remote *r)
{
	s64 until_ns = 0, left_ns;
	struct timespec ts;
	u32 i;

	pthread_mutex_lock(&r->lock);
	for (i = 0; i < r->nr_late; i++)
		until_ns =
			(s64)max_u64((u64)until_ns, (u64)r->late[i].until_ns);
	pthread_mutex_unlock(&r->lock);
	while ((left_ns = until_ns - mmnf_now_ns()) > 0) {
		ts = (struct timespec) { left_ns / 1000000000,
					 left_ns % 1000000000 };
		nanosleep(&ts, NULL);
	}
}

static bool is_late(struct mmnf_remote *r, u64 start, u64 end)
{
	s64 now = mmnf_now_ns();
	bool any = false;
	u32 i;

	pthread_mutex_lock(&r->lock);
	for (i = 0; i < r->nr_late; i++)
		any |= r->late[i].start < end && r->late[i].end > start &&
		       r->late[i].until_ns > now;
	pthread_mutex_unlock(&r->lock);
	return any;
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
	u32 i;

	if (!r)
		return mmnf_error(ENOMEM, "no memory");
	pthread_mutex_init(&r->lock, NULL);
	pthread_mutex_init(&r->syncing, NULL);
	r->pid = getpid();
	field->remote = r;
	err = mmnf_net_opts_from(&net_opts, opts);
	r->close_ns = MMNF_NET_CLOSE_NS;
	if (!err && net_opts.fail_timeout_ns)
		r->close_ns = (s64)min_u64((u64)net_opts.fail_timeout_ns,
					   MMNF_NET_CLOSE_NS);
	if (!err)
		err = mmnf_net_open(&r->net, field->store.net, &net_opts,
				    end_of_data(g));
	if (err)
		return err;
	r->grace_ns = (opts->net_cache_grace_ms ? opts->net_cache_grace_ms :
						  MMNF_SSD_GRACE_MS) *
		      1000000LL;
	r->group = calloc(mmnf_net_nr_groups(r->net), sizeof(*r->group));
	if (!r->group)
		return mmnf_error(ENOMEM, "no memory");
	for (i = 0; i < mmnf_net_nr_groups(r->net); i++)
		pthread_rwlock_init(&r->group[i].blocks, NULL);
	return opts->net_cache_dir ? mmnf_ssd_net_open(&r->ssd, r->net, opts) :
				     0;
}

int mmnf_engine_net_fits(const struct mmnf_field *field,
			 const struct mmnf_geometry *g)
{
	u64 bytes = mmnf_net_bytes(field->remote->net), need = end_of_data(g);

	if (bytes >= need)
		return 0;
	return mmnf_error(ENOSPC,
			  "the servers have %" PRIu64
			  " bytes: expected at least %" PRIu64,
			  bytes, need);
}

void mmnf_engine_net_shut(struct mmnf_field *field)
{
	struct mmnf_remote *r = field->remote;

	if (!r)
		return;
	/* What cannot be brought to the servers now stays in the log. */
	if (ssd_of(r)) {
		mmnf_net_hurry(r->net, r->close_ns);
		mmnf_ssd_hurry(r->ssd, r->close_ns);
		mmnf_ssd_sync(r->ssd);
	}
	mmnf_net_shut(r->net);
	if (r->pid == getpid())
		wait_for_late(r);
}

void mmnf_engine_net_close(struct mmnf_field *field)
{
	struct mmnf_remote *r = field->remote;
	u32 i;

	if (!r)
		return;
	for (i = 0; r->group && i < mmnf_net_nr_groups(r->net); i++)
		pthread_rwlock_destroy(&r->group[i].blocks);
	mmnf_ssd_close(ssd_of(r));
	mmnf_net_close(r->net);
	pthread_mutex_destroy(&r->lock);
	pthread_mutex_destroy(&r->syncing);
	free(r->group);
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

void mmnf_engine_net_forget(struct mmnf_field *field, u64 segment, u64 offset,
			    u64 bytes)
{
	struct mmnf_remote *r = field->remote;
	u64 at = position(field, segment, offset);

	mmnf_net_forget(r->net, at, bytes);
	if (ssd_of(r))
		mmnf_ssd_forget(r->ssd, at, bytes);
}

static int explain(struct mmnf_field *field, u64 segment, u64 offset, u64 bytes,
		   int err)
{
	return mmnf_net_explain(field->remote->net,
				position(field, segment, offset), bytes, err);
}

/* ---- writing */

/* What is read here is written back. */
static int do_io(struct mmnf_net *net, struct mmnf_net_io *io, u8 op,
		 u64 offset, void *memory, u64 bytes)
{
	struct iovec iov = { memory, bytes };

	*io = (struct mmnf_net_io) { .op = op,
				     .fresh = true,
				     .offset = offset,
				     .bytes = bytes,
				     .iov = &iov,
				     .nr_iov = 1 };
	return mmnf_net_do(net, io);
}

static void note_write(struct mmnf_remote *r, const struct mmnf_net_io *io)
{
	struct unsynced *u = &r->group[io->group].unsynced;

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

	if (io.late == MMNF_NET_LATE_HUNG)
		note_late(r, offset, offset + bytes, io.late_ns);
	if (!err)
		note_write(r, &io);
	return err;
}

/* A part of a block: read, changed, written. */
static int write_in_block(struct mmnf_remote *r, u64 offset, const char *from,
			  u64 bytes, u32 block)
{
	u64 start = offset / block * block;
	u64 end = min_u64(start + block, mmnf_net_bytes(r->net));
	struct mmnf_net_io io;
	char whole[4096];
	int err;

	err = do_io(r->net, &io, MMNF_NET_READ, start, whole, end - start);
	if (!err) {
		memcpy(whole + (offset - start), from, bytes);
		err = write_blocks(r, start, whole, end - start);
	}
	return err;
}

/*
 * For a write of these bytes, alone or beside those of whole blocks.  Nobody has the lock
 * while he waits for what is late: other places of the server are not late.
 */
static void lock_blocks(struct mmnf_remote *r, pthread_rwlock_t *blocks,
			u64 start, u64 end, bool alone)
{
	struct timespec tick = { 0, LATE_TICK_NS };

	for (;;) {
		if (alone)
			pthread_rwlock_wrlock(blocks);
		else
			pthread_rwlock_rdlock(blocks);
		if (!is_late(r, start, end))
			return;
		pthread_rwlock_unlock(blocks);
		nanosleep(&tick, NULL);
	}
}

int mmnf_engine_net_write(struct mmnf_field *field, u64 segment, u64 offset,
			  const void *from, u64 bytes)
{
	struct mmnf_remote *r = field->remote;
	u32 block = mmnf_net_align(r->net), group;
	u64 at = position(field, segment, offset), done, n;
	pthread_rwlock_t *blocks;
	int err = 0;

	if (ssd_of(r))
		return mmnf_ssd_write(r->ssd, at, bytes, from);
	for (done = 0; done < bytes && !err; done += n) {
		const char *p = (const char *)from + done;
		u64 in_block = (at + done) % block;

		n = min_u64(mmnf_net_unit(r->net, at + done, &group),
			    bytes - done);
		n = min_u64(n, MMNF_NET_IO_BYTES_MAX / block * block);
		blocks = &r->group[group].blocks;
		if (in_block || n < block) {
			n = min_u64(n, block - in_block);
			lock_blocks(r, blocks, at + done - in_block,
				    at + done - in_block + block, true);
			err = write_in_block(r, at + done, p, n, block);
		} else {
			n = n / block * block;
			lock_blocks(r, blocks, at + done, at + done + n, false);
			err = write_blocks(r, at + done, p, n);
		}
		pthread_rwlock_unlock(blocks);
	}
	return err;
}

static int sync_group(struct mmnf_remote *r, u32 group)
{
	struct mmnf_net_io io = { .op = MMNF_NET_FLUSH, .group = group };
	struct unsynced *u = &r->group[group].unsynced, before;
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
	if (r->pid != getpid())
		return mmnf_error(
			ENXIO,
			"the process that opened the field is the one to sync it: expected that, not a child of it");
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
	.queue_open = mmnf_queue_net_open,
	.queue_close = mmnf_queue_net_close,
	.submit = mmnf_queue_net_submit,
	.reap = mmnf_queue_net_reap,
	.cancel = mmnf_queue_net_cancel,
	.wait = mmnf_queue_net_wait,
	.wake = mmnf_queue_net_wake,
	.begin = mmnf_queue_net_begin,
	.end = mmnf_queue_net_end,
	.explain = explain,
};
