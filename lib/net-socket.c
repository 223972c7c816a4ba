// SPDX-License-Identifier: MIT
/*
 * Requests and answers of NBD on a plain socket, after libnbd has connected it.
 *
 * libnbd takes a system call for each request, and two and a poll for each answer.
 * For small reads that is most of what they cost.  Here what is to be asked goes out
 * together, and answers come as many as there are:
 *
 *	| head | 4 KiB | head | 4 KiB | he	to the stage; copied to where it is wanted
 *	| rest of 128 KiB | head |		to where it is wanted; the head to the stage
 *
 * Replies are simple ones: see net-conn.c, which leaves to libnbd what is encrypted.
 */
#include <endian.h>
#include <errno.h>
#include <linux/nbd.h>
#include <stdio.h>
#include <sys/socket.h>

#include "net-internal.h"

#define LARGE_BYTES (16ULL << 10) /* of a read: it is not worth a copy */
#define IOVS 64
#define INDEX_BITS \
	16 /* of a cookie: the wire's place; above: a number of its own */

static void fail(struct net_conn *c, bool is_closed, const char *cause)
{
	snprintf(c->cause, sizeof(c->cause), "%s", cause);
	/* See net_conn_late(). */
	c->late = is_closed || c->local ? MMNF_NET_LATE_CLOSED :
					  MMNF_NET_LATE_HUNG;
}

static void fail_system(struct net_conn *c, const char *call)
{
	char cause[96], words[64];

	snprintf(cause, sizeof(cause), "%s: %s", call,
		 strerror_r(errno, words, sizeof(words)));
	fail(c, false, cause);
}

void net_socket_begin(struct net_conn *c, int fd)
{
	c->socket = (struct net_socket) { .is_plain = true, .fd = fd };
	c->socket.sending_end = &c->socket.sending;
}

/* ---- requests */

static u32 command_of(const struct net_wire *w)
{
	return w->op == MMNF_NET_READ  ? NBD_CMD_READ :
	       w->op == MMNF_NET_WRITE ? NBD_CMD_WRITE :
					 NBD_CMD_FLUSH;
}

void net_socket_add(struct net_wire *w)
{
	struct net_conn *c = w->conn;
	struct net_socket *s = &c->socket;
	struct nbd_request request = {
		.magic = htobe32(NBD_REQUEST_MAGIC),
		.type = htobe32(command_of(w) |
				(w->fua ? NBD_CMD_FLAG_FUA : 0)),
	};

	w->cookie = ++s->serial << INDEX_BITS | (u64)(w - c->wires);
	memcpy(request.handle, &w->cookie, sizeof(w->cookie));
	if (w->op != MMNF_NET_FLUSH) {
		request.from = htobe64(w->offset);
		request.len = htobe32((u32)w->bytes);
	}
	memcpy(w->request, &request, sizeof(w->request));
	w->next_sent = NULL;
	*s->sending_end = w;
	s->sending_end = &w->next_sent;
	if (w->op == MMNF_NET_READ) {
		s->nr_reads++;
		s->read_bytes += w->bytes;
	}
}

static u64 payload_bytes(const struct net_wire *w)
{
	return w->op == MMNF_NET_WRITE ? w->bytes : 0;
}

/* So many bytes went out. */
static void advance(struct net_socket *s, u64 bytes)
{
	const struct net_wire *w;
	u64 all;

	for (s->sent += bytes; (w = s->sending); s->sent -= all) {
		all = sizeof(w->request) + payload_bytes(w);
		if (s->sent < all)
			return;
		s->sending = w->next_sent;
	}
	s->sending_end = &s->sending;
}

static u32 gather(const struct net_socket *s, struct iovec *iov)
{
	struct net_wire *w;
	u64 skip = s->sent, all;
	u32 nr = 0;

	for (w = s->sending; w && nr + 2 <= IOVS; w = w->next_sent, skip = 0) {
		if (skip < sizeof(w->request))
			iov[nr++] =
				(struct iovec) { w->request + skip,
						 sizeof(w->request) - skip };
		skip -= min_u64(skip, sizeof(w->request));
		all = payload_bytes(w);
		if (all)
			iov[nr++] =
				(struct iovec) { w->buf + skip, all - skip };
	}
	return nr;
}

bool net_socket_flush(struct net_conn *c)
{
	struct net_socket *s = &c->socket;
	struct iovec iov[IOVS];
	ssize_t n;

	while (s->sending) {
		struct msghdr msg = { .msg_iov = iov,
				      .msg_iovlen = gather(s, iov) };

		n = sendmsg(s->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0) {
			advance(s, (u64)n);
		} else if (errno == EAGAIN) {
			return true;
		} else if (errno != EINTR) {
			fail_system(c, "send");
			return false;
		}
	}
	return true;
}

/* ---- answers */

/* Of the protocol's numbers, which are those of Linux, some may be sent. */
static int errno_of(u32 error)
{
	switch (error) {
	case 0:
	case EPERM:
	case EIO:
	case ENOMEM:
	case ENOSPC:
	case EOVERFLOW:
	case EOPNOTSUPP:
	case ESHUTDOWN:
		return (int)error;
	}
	return EINVAL;
}

static void answered(struct net_conn *c, struct net_wire *w, int error)
{
	struct net_socket *s = &c->socket;

	if (w->op == MMNF_NET_READ) {
		s->nr_reads--;
		s->read_bytes -= w->bytes;
	}
	s->coming = NULL;
	s->nr_came++;
	w->cookie = 0;
	net_wire_answered(w, error);
}

static bool is_being_sent(const struct net_socket *s, const struct net_wire *w)
{
	const struct net_wire *other = s->sending;

	while (other && other != w)
		other = other->next_sent;
	return other;
}

/* Nothing of it is believed: it must be to a request that was sent. */
static bool take_head(struct net_conn *c)
{
	struct net_socket *s = &c->socket;
	struct nbd_reply reply;
	struct net_wire *w;
	u64 cookie, i;

	memcpy(&reply, s->head, sizeof(reply));
	memcpy(&cookie, reply.handle, sizeof(cookie));
	i = cookie & ((1 << INDEX_BITS) - 1);
	w = &c->wires[i];
	if (be32toh(reply.magic) != NBD_REPLY_MAGIC ||
	    i >= c->group->net->opts.depth || !cookie || w->cookie != cookie ||
	    is_being_sent(s, w)) {
		fail(c, false, "it answers what was not asked");
		return false;
	}
	if (reply.error || w->op != MMNF_NET_READ) {
		answered(c, w, errno_of(be32toh(reply.error)));
		return true;
	}
	s->coming = w;
	s->nr_got = 0;
	return true;
}

static bool take_stage(struct net_conn *c, const char *p, u64 bytes)
{
	struct net_socket *s = &c->socket;
	u64 n;

	for (; bytes; bytes -= n, p += n) {
		if (s->coming) {
			n = min_u64(bytes, s->coming->bytes - s->nr_got);
			memcpy(s->coming->buf + s->nr_got, p, n);
			s->nr_got += n;
			if (s->nr_got == s->coming->bytes)
				answered(c, s->coming, 0);
			continue;
		}
		n = min_u64(bytes, sizeof(s->head) - s->nr_head);
		memcpy(s->head + s->nr_head, p, n);
		s->nr_head += (u32)n;
		if (s->nr_head < sizeof(s->head))
			continue;
		s->nr_head = 0;
		if (!take_head(c))
			return false;
	}
	return true;
}

/* 1: and more may be there; 0: that was all; -1: it is broken. */
static int take_some(struct net_conn *c)
{
	struct net_socket *s = &c->socket;
	char *stage = c->group->net->stage;
	struct iovec iov[2];
	struct msghdr msg = { .msg_iov = iov };
	u64 direct = 0, room = NET_STAGE_BYTES;
	ssize_t n;

	if (s->coming) {
		direct = s->coming->bytes - s->nr_got;
		iov[msg.msg_iovlen++] =
			(struct iovec) { s->coming->buf + s->nr_got, direct };
	}
	if (s->read_bytes > s->nr_reads * LARGE_BYTES)
		room = sizeof(s->head) - s->nr_head;
	iov[msg.msg_iovlen++] = (struct iovec) { stage, room };
	do
		n = recvmsg(s->fd, &msg, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n < 0)
		fail_system(c, "recv");
	else if (!n)
		fail(c, true, "it closed the connection");
	if (n <= 0)
		return -1;
	if (direct) {
		direct = min_u64(direct, (u64)n);
		s->nr_got += direct;
		if (s->nr_got == s->coming->bytes)
			answered(c, s->coming, 0);
	}
	if (!take_stage(c, stage, (u64)n - direct))
		return -1;
	/* A head is sent by itself; what follows is about to come. */
	return (u64)n == direct + room || (s->coming && !s->nr_got);
}

bool net_socket_receive(struct net_conn *c, u32 most)
{
	int more;

	c->socket.nr_came = 0;
	do
		more = take_some(c);
	while (more > 0 && (c->socket.nr_came < most || c->socket.coming));
	return more >= 0;
}
