// SPDX-License-Identifier: MIT
/*
 * A wire: one request on a connection, for one part or for neighbours that are
 * read together; where its bytes go, and what follows when it is answered.
 */
#include <errno.h>
#include <stdlib.h>

#include "net-internal.h"

/* The memory of a part, if it is in one piece. */
static char *memory_of(const struct mmnf_net_part *part)
{
	const struct iovec *iov = part->io->iov;
	u64 at = part->at;

	for (; at >= iov->iov_len; iov++)
		at -= iov->iov_len;
	return iov->iov_len - at >= part->bytes ? (char *)iov->iov_base + at :
						  NULL;
}

static void copy_part(const struct mmnf_net_part *part, char *buf, bool out)
{
	const struct iovec *iov = part->io->iov;
	u64 at = part->at, left = part->bytes, n;

	for (; at >= iov->iov_len; iov++)
		at -= iov->iov_len;
	for (; left; iov++, at = 0, buf += n, left -= n) {
		char *p = (char *)iov->iov_base + at;

		n = min_u64(iov->iov_len - at, left);
		memcpy(out ? buf : p, out ? p : buf, n);
	}
}

static bool is_transport(int err)
{
	return err == ENOTCONN || err == ESHUTDOWN || err == EPIPE ||
	       err == ECONNRESET || err == ETIMEDOUT || err == ECONNABORTED;
}

static struct net_wire *new_wire(struct net_conn *c, u8 op)
{
	struct net_wire *w = c->spare;

	c->spare = w->next;
	memset(w, 0, sizeof(*w));
	w->conn = c;
	w->op = op;
	return w;
}

static void free_wire(struct net_wire *w)
{
	free(w->bounce);
	w->bounce = NULL;
	w->next = w->conn->spare;
	w->conn->spare = w;
}

/*
 * A part and the neighbours that come right behind it, if their memory does, too; or
 * if they are so small that another request costs more than to copy them.
 */
static void take_parts(struct net_group *g, struct net_queue *q,
		       struct net_wire *w)
{
	struct mmnf_net_part *last = net_queue_take(q), *next;
	u64 most = min_u64(NET_COALESCE_BYTES, g->facts.max_bytes);
	u64 end = last->offset / most * most + most;

	w->parts = last;
	w->offset = last->offset;
	w->bytes = last->bytes;
	if (w->op == MMNF_NET_FLUSH)
		return;
	w->buf = memory_of(last);
	if (w->op != MMNF_NET_READ)
		return;
	while ((next = q->first) && !last->alone && !next->alone &&
	       next->offset == last->offset + last->bytes &&
	       next->offset + next->bytes <= end) {
		if (!w->buf || memory_of(next) != w->buf + w->bytes) {
			if (max_u64(w->bytes, next->bytes) >= NET_PIECE_BYTES)
				break;
			w->buf = NULL;
		}
		last->next = net_queue_take(q);
		last = next;
		w->bytes += next->bytes;
	}
}

/* Where its bytes go to or come from; false: no memory. */
static bool give_memory(struct net_group *g, struct net_wire *w)
{
	u64 block = g->facts.min_block, end = w->offset + w->bytes;
	bool write = w->op == MMNF_NET_WRITE;
	u64 bytes = w->bytes;

	if (w->op == MMNF_NET_FLUSH)
		return true;
	if (!write) {
		w->skip = w->offset & (block - 1);
		w->offset -= w->skip;
		end = min_u64(round_up_u64(end, block), g->facts.bytes);
		w->bytes = end - w->offset;
	}
	if (w->buf && w->bytes == bytes)
		return true;
	w->buf = w->bounce = malloc(w->bytes);
	if (w->buf && write)
		copy_part(w->parts, w->buf, true);
	return w->buf;
}

static void end_wire(struct net_group *g, struct net_wire *w)
{
	w->conn->in_flight--;
	g->in_flight--;
	g->in_flight_prefetch -= w->prefetch;
	free_wire(w);
}

bool net_wire_send(struct net_group *g, struct net_conn *c, struct net_queue *q)
{
	const struct mmnf_net_io *io = q->first->io;
	struct net_wire *w = new_wire(c, io->op);
	enum net_sent sent = NET_REFUSED;
	int err = ENOMEM;

	if (q->first->flushing)
		w->op = MMNF_NET_FLUSH;
	w->prefetch = q == &g->prefetch;
	w->fua = io->fua && g->facts.can_fua;
	take_parts(g, q, w);
	c->in_flight++;
	g->in_flight++;
	g->in_flight_prefetch += w->prefetch;
	w->sent_ns = g->net->now_ns;
	if (give_memory(g, w))
		sent = net_conn_send(w, &err);
	if (sent == NET_SENT) {
		if (c->events != c->wants)
			net_drive_events(c);
		return true;
	}
	if (sent == NET_BROKEN_SENT)
		return false;
	if (sent == NET_REFUSED)
		net_group_refuse(g, w, err ? err : EIO);
	else
		net_group_again(g, w, w->sent_ns);
	end_wire(g, w);
	return sent == NET_REFUSED;
}

/* ---- what comes back */

static u32 bucket_of(u64 ns)
{
	u32 log;

	if (ns < 8)
		return (u32)ns;
	log = 63 - (u32)__builtin_clzll(ns);
	return min_u64((log - 2) * 4 + (ns >> (log - 2) & 3) + 4,
		       NET_BUCKETS - 1);
}

u64 net_percentile(const u64 *latency, u32 percent)
{
	u64 all = 0, seen = 0;
	u32 i;

	for (i = 0; i < NET_BUCKETS; i++)
		all += latency[i];
	if (!all)
		return 0;
	for (i = 0; i < NET_BUCKETS - 1; i++) {
		seen += latency[i];
		if (seen * 100 >= all * percent)
			break;
	}
	/* The upper end of the bucket. */
	return i < 8 ? i : (5ULL + (i - 4) % 4) << ((i - 4) / 4);
}

/* A write, or the flush that makes it one with FUA. */
static void written(struct net_group *g, struct mmnf_net_part *part)
{
	struct mmnf_net_io *io = part->io;

	if (io->op == MMNF_NET_WRITE && io->fua && !g->facts.can_fua) {
		if (!part->flushing || part->epoch != g->epoch) {
			/* Lost meanwhile: the write again, then its flush. */
			part->flushing = !part->flushing;
			part->epoch = g->epoch;
			net_queue_add_first(&g->writes, part);
			return;
		}
	}
	part->epoch = g->epoch;
	net_part_done(g->net, part, 0, NULL);
}

static void came(struct net_group *g, struct net_wire *w, s64 now)
{
	struct mmnf_net_part *part, *next;
	const char *from = w->bounce ? w->bounce + w->skip : NULL;

	w->conn->cause[0] = 0;
	g->count.latency[bucket_of((u64)(now - w->sent_ns))]++;
	if (w->op == MMNF_NET_READ) {
		g->count.reads++;
		g->count.read_bytes += w->bytes;
		net_holes_look(g, w->offset, w->buf, w->bytes);
	} else if (w->op == MMNF_NET_WRITE) {
		g->count.writes++;
		g->count.written_bytes += w->bytes;
	} else {
		g->count.flushes++;
	}
	for (part = w->parts; part; part = next) {
		next = part->next;
		if (w->op != MMNF_NET_READ) {
			written(g, part);
			continue;
		}
		if (from) {
			copy_part(part, (char *)from, false);
			from += part->bytes;
		}
		net_part_done(g->net, part, 0, NULL);
	}
}

void net_wire_settle(struct net_wire *w, s64 now)
{
	struct net_group *g = w->conn->group;
	struct mmnf_net_part *part, *next;

	if (!w->error) {
		came(g, w, now);
	} else if (w->error == ESHUTDOWN && w->conn->state == NET_UP) {
		g->count.requeued++;
		net_group_shutting(g, w, now);
	} else if (is_transport(w->error)) {
		g->count.requeued++;
		if (w->op == MMNF_NET_WRITE)
			w->parts->io->late =
				(u8)max_u64(w->parts->io->late, w->conn->late);
		net_group_again(g, w, now);
	} else {
		for (part = w->parts; part; part = next) {
			next = part->next;
			net_group_error(g, w, part, now);
		}
	}
	end_wire(g, w);
}

void net_settle(struct mmnf_net *net)
{
	struct net_wire *w, *next, *turned = NULL;

	if (!net->settled)
		return;
	for (w = net->settled; w; w = next) {
		next = w->next;
		w->next = turned;
		turned = w;
	}
	net->settled = NULL;
	for (w = turned; w; w = next) {
		next = w->next;
		net_wire_settle(w, net->now_ns);
	}
}
