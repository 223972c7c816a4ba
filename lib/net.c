// SPDX-License-Identifier: MIT
/*
 * Requests for a remote byte space: cut into parts along its stripes, done when
 * all parts are.  Of several errors the first is told.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "net-internal.h"

u64 mmnf_net_bytes(const struct mmnf_net *net)
{
	return net->bytes;
}

u32 mmnf_net_nr_groups(const struct mmnf_net *net)
{
	return net->nr_groups;
}

u64 mmnf_net_unit(const struct mmnf_net *net, u64 offset, u32 *group)
{
	u64 stripe = net->layout.stripe_bytes;

	if (net->nr_groups == 1) {
		*group = 0;
		return net->bytes - offset;
	}
	*group = (u32)(offset / stripe % net->nr_groups);
	return stripe - offset % stripe;
}

static u64 server_offset(const struct mmnf_net *net, u64 offset)
{
	u64 stripe = net->layout.stripe_bytes;

	if (net->nr_groups == 1)
		return offset;
	return offset / stripe / net->nr_groups * stripe + offset % stripe;
}

bool mmnf_net_read_only(const struct mmnf_net *net)
{
	u32 i;

	for (i = 0; i < net->nr_groups; i++)
		if (net->group[i].facts.read_only)
			return true;
	return false;
}

s64 mmnf_net_late_ns(const struct mmnf_net *net)
{
	u32 i;

	for (i = 0; i < net->nr_groups; i++)
		if (net->group[i].nr_uris > 1)
			return net->opts.fail_timeout_ns ?
				       net->opts.fail_timeout_ns :
				       MMNF_NET_CLOSE_NS;
	return 0;
}

u32 mmnf_net_align(const struct mmnf_net *net)
{
	u32 i, most = 1;

	for (i = 0; i < net->nr_groups; i++)
		most = (u32)max_u64(most, net->group[i].facts.min_block);
	return most;
}

u64 mmnf_net_epoch(struct mmnf_net *net, u32 group)
{
	u64 epoch;

	pthread_mutex_lock(&net->lock);
	epoch = net->group[group].epoch;
	pthread_mutex_unlock(&net->lock);
	return epoch;
}

/* ---- requests */

void net_part_done(struct mmnf_net *net, struct mmnf_net_part *part, int err,
		   const char *words)
{
	struct mmnf_net_io *io = part->io;

	if (err && !io->result) {
		io->result = err;
		io->words = words ? strdup(words) : NULL;
	}
	if (io->op == MMNF_NET_WRITE) {
		net->group[io->group].holes.nr_writes--;
		net->group[io->group].holes.nr_changes++;
	}
	/* Of several parts the oldest: a flush must cover them all. */
	if (io->op != MMNF_NET_READ)
		io->epoch = min_u64(io->epoch, part->epoch);
	if (part != &io->first)
		free(part);
	if (--io->nr_parts)
		return;
	if (!io->awaited)
		net->nr_background--;
	if (!io->done) {
		net_drive_wake(net, &io->over);
		return;
	}
	io->next = NULL;
	*net->done_end = io;
	net->done_end = &io->next;
}

void net_run_done(struct mmnf_net *net)
{
	struct mmnf_net_io *io;

	while ((io = net->done)) {
		net->done = NULL;
		net->done_end = &net->done;
		pthread_mutex_unlock(&net->lock);
		while (io) {
			struct mmnf_net_io *next = io->next;
			char *words = io->words;

			io->text = words ? words : "";
			io->done(io);
			/* The io may be gone. */
			free(words);
			io = next;
		}
		pthread_mutex_lock(&net->lock);
	}
}

static void clear(const struct iovec *iov, u64 at, u64 bytes)
{
	u64 n;

	for (; at >= iov->iov_len; iov++)
		at -= iov->iov_len;
	for (; bytes; iov++, at = 0, bytes -= n) {
		n = min_u64(iov->iov_len - at, bytes);
		memset((char *)iov->iov_base + at, 0, n);
	}
}

static void add_part(struct mmnf_net *net, struct mmnf_net_io *io, u32 group,
		     u64 at, u64 bytes, s64 now)
{
	struct mmnf_net_part *part = &io->first;
	struct net_group *g = &net->group[group];

	/* The last one is in the request itself. */
	if (at + bytes < io->bytes)
		part = malloc(sizeof(*part));
	if (!part) {
		if (!io->result)
			io->result = -ENOMEM;
		io->nr_parts--;
		return;
	}
	*part = (struct mmnf_net_part) {
		.io = io,
		.offset = server_offset(net, io->offset + at),
		.at = at,
		.bytes = bytes,
		.born_ns = now,
	};
	if (io->op == MMNF_NET_WRITE) {
		net_holes_forget(g, part->offset, bytes);
		g->holes.nr_writes++;
	} else if (io->op == MMNF_NET_READ && !io->fresh &&
		   net_holes_has(g, part->offset, bytes)) {
		clear(io->iov, at, bytes);
		net_part_done(net, part, 0, NULL);
		return;
	}
	net_group_add(g, part);
}

/* Up to where memory in one piece begins or ends: what is read there is not copied. */
static u64 piece_bytes(const struct mmnf_net_io *io, u64 at)
{
	const struct iovec *iov = io->iov, *end = io->iov + io->nr_iov;
	u64 bytes = 0, piece;

	for (; at >= iov->iov_len; iov++)
		at -= iov->iov_len;
	for (; iov < end; iov++, at = 0, bytes += piece) {
		piece = iov->iov_len - at;
		if (piece >= NET_PIECE_BYTES)
			return bytes ? bytes : piece;
	}
	return bytes;
}

/* Bytes of the part that begins there, and its group. */
static u64 part_bytes(const struct mmnf_net *net, const struct mmnf_net_io *io,
		      u64 at, u32 *group)
{
	u64 n = mmnf_net_unit(net, io->offset + at, group);
	u64 most = net->group[*group].facts.max_bytes;

	/* Inside of what the server takes, also rounded to its blocks. */
	most -= server_offset(net, io->offset + at) % most;
	n = min_u64(min_u64(n, io->bytes - at), most);
	if (io->op == MMNF_NET_READ && io->nr_iov > 1)
		n = min_u64(n, piece_bytes(io, at));
	return n;
}

/* All parts are counted first: the last one to be done ends the request. */
static void start(struct mmnf_net *net, struct mmnf_net_io *io, s64 now)
{
	u32 group = io->group;
	u64 at, n;

	io->result = 0;
	io->text = "";
	io->words = NULL;
	io->cancelled = false;
	io->late = MMNF_NET_LATE_NONE;
	io->late_ns = 0;
	io->epoch = UINT64_MAX;
	io->nr_parts = 0;
	if (!io->awaited)
		net->nr_background++;
	if (io->op == MMNF_NET_FLUSH) {
		io->bytes = 0;
		io->nr_parts = 1;
		add_part(net, io, group, 0, 0, now);
		return;
	}
	n = part_bytes(net, io, 0, &group);
	if (n == io->bytes) {
		io->group = group;
		io->nr_parts = 1;
		add_part(net, io, group, 0, n, now);
		return;
	}
	for (at = 0; at < io->bytes; at += n, io->nr_parts++)
		n = part_bytes(net, io, at, &group);
	/* Its epoch is of one connection. */
	mmnf_net_unit(net, io->offset, &io->group);
	assert(io->op != MMNF_NET_WRITE || io->group == group);
	for (at = 0; at < io->bytes; at += n) {
		n = part_bytes(net, io, at, &group);
		add_part(net, io, group, at, n, now);
	}
}

static void pump(struct mmnf_net *net)
{
	u32 i;

	for (i = 0; i < net->nr_groups; i++)
		if (net->group[i].demand.first || net->group[i].writes.first ||
		    net->group[i].prefetch.first)
			net_group_pump(&net->group[i]);
}

#define CHILD \
	"a forked child has no network: expected it to open the field itself"

/* A forked child would write into its parent's connections. */
static void refuse_child(struct mmnf_net_io *io)
{
	io->result = -ENXIO;
	io->began_ns = mmnf_now_ns();
	io->text = CHILD;
	io->words = NULL;
	if (io->done)
		io->done(io);
	else
		io->over = true;
}

void mmnf_net_submit(struct mmnf_net *net, struct mmnf_net_io *const *ios,
		     u32 nr)
{
	s64 now = 0;
	u32 i;

	if (net->forks != net_forks()) {
		for (i = 0; i < nr; i++)
			refuse_child(ios[i]);
		return;
	}
	if (pthread_mutex_trylock(&net->lock)) {
		now = mmnf_now_ns();
		pthread_mutex_lock(&net->lock);
	}
	net->now_ns = mmnf_now_ns();
	net->activity++;
	for (i = 0; i < nr; i++) {
		ios[i]->began_ns = now ? now : net->now_ns;
		start(net, ios[i], net->now_ns);
	}
	/* Nothing is sent any more by a process that is in exit(). */
	if (!net->stop)
		pump(net);
	net_settle(net);
	net_run_done(net);
	if (net->keeper_sleeps)
		net_keep_nudge(net);
	if (net->nr_background)
		net_drive_background(net);
	pthread_mutex_unlock(&net->lock);
}

/* More than that where there are several servers: whole rows of stripe units. */
void mmnf_net_forget(struct mmnf_net *net, u64 offset, u64 bytes)
{
	u64 start = offset, end = offset + bytes, row;
	u32 i;

	if (net->forks != net_forks())
		return;
	row = net->layout.stripe_bytes * net->nr_groups;
	if (net->nr_groups > 1) {
		start = start / row * net->layout.stripe_bytes;
		end = ((end - 1) / row + 1) * net->layout.stripe_bytes;
	}
	pthread_mutex_lock(&net->lock);
	for (i = 0; bytes && i < net->nr_groups; i++)
		net_holes_forget(&net->group[i], start, end - start);
	pthread_mutex_unlock(&net->lock);
}

void mmnf_net_hurry(struct mmnf_net *net, s64 fail_timeout_ns)
{
	s64 *limit = &net->opts.fail_timeout_ns;

	pthread_mutex_lock(&net->lock);
	if (!*limit || *limit > fail_timeout_ns)
		*limit = fail_timeout_ns;
	net_keep_nudge(net);
	pthread_mutex_unlock(&net->lock);
}

bool mmnf_net_cancel(struct mmnf_net *net, struct mmnf_net_io *io)
{
	u32 i, n = 0;

	if (net->forks != net_forks())
		return false;
	pthread_mutex_lock(&net->lock);
	io->cancelled = true;
	for (i = 0; i < net->nr_groups && io->nr_parts; i++)
		n += net_group_drop(&net->group[i], io, -ECANCELED,
				    "cancelled");
	net_run_done(net);
	pthread_mutex_unlock(&net->lock);
	return n;
}

void mmnf_net_begin(struct mmnf_net *net, struct mmnf_net_io *io)
{
	io->done = NULL;
	io->over = false;
	io->awaited = true;
	mmnf_net_submit(net, &io, 1);
}

int mmnf_net_end(struct mmnf_net *net, struct mmnf_net_io *io)
{
	int err;

	mmnf_net_wait(net, &io->over, -1);
	if (!io->result)
		return 0;
	err = mmnf_error(-io->result, "%s", io->words ? io->words : io->text);
	free(io->words);
	return err;
}

int mmnf_net_do(struct mmnf_net *net, struct mmnf_net_io *io)
{
	mmnf_net_begin(net, io);
	return mmnf_net_end(net, io);
}

int mmnf_net_explain(struct mmnf_net *net, u64 offset, u64 bytes, int err)
{
	const struct net_group *last = NULL;
	char cause[640] = "";
	u64 at, n;
	u32 group;

	if (net->forks != net_forks())
		return mmnf_error(err, CHILD);
	/* Of the groups it went to, the one that failed last. */
	pthread_mutex_lock(&net->lock);
	for (at = offset; at < min_u64(offset + bytes, net->bytes); at += n) {
		n = mmnf_net_unit(net, at, &group);
		if (net->group[group].cause_ns &&
		    (!last || net->group[group].cause_ns > last->cause_ns))
			last = &net->group[group];
	}
	if (last)
		memcpy(cause, last->cause, sizeof(cause));
	pthread_mutex_unlock(&net->lock);
	if (!last)
		return mmnf_error_system(err,
					 "reading %" PRIu64
					 " bytes at %" PRIu64,
					 bytes, offset);
	return mmnf_error(err, "%s; reading %" PRIu64 " bytes at %" PRIu64,
			  cause, bytes, offset);
}
