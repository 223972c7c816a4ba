// SPDX-License-Identifier: MIT
/*
 * A connection to an NBD server: what libnbd does for the net, and the only file
 * that knows libnbd.  Built without it, nothing connects and says so.
 *
 * A handle is one socket and one life: a connection that is lost is closed and
 * dialled anew.  libnbd runs no completion of what is in flight when a handle is
 * closed, so requests are kept in lists of our own.
 *
 * Replies are simple ones, which take fewer system calls than structured ones,
 * and memory is not cleared before a read: on an error nobody looks at it.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "net-internal.h"

#ifdef MMNF_NO_NBD

#define MISSING "the library was built without libnbd"

const char *mmnf_net_missing(void)
{
	return MISSING;
}

void mmnf_net_identity(const struct mmnf_net *net, u8 digest[32])
{
	(void)net;
	memset(digest, 0, 32);
}

void *net_conn_dial(const char *uri, const struct mmnf_net_opts *opts,
		    bool asks, char *cause)
{
	(void)uri;
	(void)opts;
	(void)asks;
	snprintf(cause, sizeof(MISSING), MISSING);
	return NULL;
}

bool net_conn_tells(const struct net_conn *c)
{
	(void)c;
	return false;
}

bool net_conn_ask(struct net_conn *c, u64 offset, u64 bytes)
{
	(void)c;
	(void)offset;
	(void)bytes;
	return false;
}

bool net_conn_poll(const struct net_conn *c, struct pollfd *pfd)
{
	(void)c;
	(void)pfd;
	return false;
}

int net_conn_step(struct net_conn *c, short revents, char *cause)
{
	(void)c;
	(void)revents;
	(void)cause;
	return -1;
}

int net_conn_facts(struct net_conn *c, struct net_facts *facts)
{
	(void)c;
	(void)facts;
	return -1;
}

enum net_sent net_conn_send(struct net_wire *w, int *err)
{
	(void)w;
	*err = EOPNOTSUPP;
	return NET_BROKEN;
}

bool net_conn_notify(struct net_conn *c, short events)
{
	(void)c;
	(void)events;
	return false;
}

void net_conn_look(struct net_conn *c)
{
	(void)c;
}

int net_conn_fd(const struct net_conn *c)
{
	(void)c;
	return -1;
}

void net_conn_bye(struct net_conn *c)
{
	(void)c;
}

void net_conn_close(void *handle)
{
	(void)handle;
}

#else

#include <gnutls/crypto.h>
#include <libnbd.h>
#include <stdlib.h>

#define LEAST_BLOCK_MAX 4096
#define USER_TIMEOUT_MIN_MS 1000

const char *mmnf_net_missing(void)
{
	return NULL;
}

void mmnf_net_identity(const struct mmnf_net *net, u8 digest[32])
{
	size_t len = 0, room = 64;
	char *text = NULL;
	FILE *to;
	u32 i, k;

	memset(digest, 0, 32);
	to = open_memstream(&text, &room);
	if (!to)
		return;
	fprintf(to, "mmnf net 1\n%llu\n",
		(unsigned long long)net->layout.stripe_bytes);
	for (i = 0; i < net->nr_groups; i++) {
		fprintf(to, "%llu",
			(unsigned long long)net->group[i].facts.bytes);
		for (k = 0; k < net->group[i].nr_uris; k++)
			fprintf(to, " %s", net->group[i].uri[k]);
		fputc('\n', to);
	}
	len = (size_t)ftell(to);
	if (!fclose(to))
		gnutls_hash_fast(GNUTLS_DIG_SHA256, text, len, digest);
	free(text);
}

/* libnbd's words without the name of its function. */
static void take_cause(char *cause)
{
	const char *words = nbd_get_error(), *colon;

	if (!words)
		words = "lost";
	colon = strncmp(words, "nbd_", 4) ? NULL : strstr(words, ": ");
	snprintf(cause, NET_CAUSE_BYTES, "%.150s", colon ? colon + 2 : words);
}

static bool set_up(struct nbd_handle *h, const struct mmnf_net_opts *opts,
		   bool asks)
{
	return !nbd_set_uri_allow_transports(
		       h, LIBNBD_ALLOW_TRANSPORT_TCP |
				  LIBNBD_ALLOW_TRANSPORT_UNIX) &&
	       !nbd_set_uri_allow_local_file(h, false) &&
	       !nbd_set_request_structured_replies(h, asks) &&
	       (!asks ||
		!nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION)) &&
	       !nbd_set_pread_initialize(h, false) &&
	       (!opts->tls_dir ||
		!nbd_set_tls_certificates(h, opts->tls_dir)) &&
	       (!opts->tls_psk_file ||
		!nbd_set_tls_psk_file(h, opts->tls_psk_file)) &&
	       (!opts->tls_username ||
		!nbd_set_tls_username(h, opts->tls_username));
}

void *net_conn_dial(const char *uri, const struct mmnf_net_opts *opts,
		    bool asks, char *cause)
{
	struct nbd_handle *h = nbd_create();

	if (h && set_up(h, opts, asks) && !nbd_aio_connect_uri(h, uri))
		return h;
	take_cause(cause);
	nbd_close(h);
	return NULL;
}

bool net_conn_poll(const struct net_conn *c, struct pollfd *pfd)
{
	unsigned int direction = nbd_aio_get_direction(c->handle);

	pfd->fd = nbd_aio_get_fd(c->handle);
	pfd->events = 0;
	if (direction & LIBNBD_AIO_DIRECTION_READ)
		pfd->events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		pfd->events |= POLLOUT;
	return pfd->fd >= 0;
}

/* Each question costs about a tenth of a request. */
static unsigned int look(struct net_conn *c)
{
	unsigned int direction = nbd_aio_get_direction(c->handle);

	c->wants = (direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
		   (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0);
	return direction;
}

static bool is_over(const struct net_conn *c)
{
	return nbd_aio_is_dead(c->handle) || nbd_aio_is_closed(c->handle);
}

/* What the socket has to say. */
static int notify(struct net_conn *c, bool in, bool out, bool hup,
		  unsigned int direction)
{
	if ((in || hup) && direction & LIBNBD_AIO_DIRECTION_READ)
		return nbd_aio_notify_read(c->handle);
	if ((out || hup) && direction & LIBNBD_AIO_DIRECTION_WRITE)
		return nbd_aio_notify_write(c->handle);
	return hup ? -1 : 0;
}

int net_conn_step(struct net_conn *c, short revents, char *cause)
{
	if (revents &&
	    (notify(c, revents & POLLIN, revents & POLLOUT,
		    revents & (POLLHUP | POLLERR | POLLNVAL), look(c)) ||
	     is_over(c))) {
		take_cause(cause);
		return -1;
	}
	return nbd_aio_is_ready(c->handle);
}

/* A peer that is gone without a word is noticed by the kernel, too. */
static void set_socket(struct net_conn *c)
{
	int fd = nbd_aio_get_fd(c->handle), on = 1, idle = 10;
	s64 ms = c->group->net->opts.request_timeout_ns / 1000000;
	int user_ms = (int)max_u64(USER_TIMEOUT_MIN_MS, (u64)ms);

	c->local =
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	if (c->local)
		return;
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_ms,
		   sizeof(user_ms));
}

int net_conn_facts(struct net_conn *c, struct net_facts *facts)
{
	struct nbd_handle *h = c->handle;
	s64 bytes = nbd_get_size(h);
	s64 least = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM);
	s64 most = nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM);

	if (bytes < 0) {
		snprintf(c->cause, sizeof(c->cause),
			 "its size is not below 2^63");
		return -1;
	}
	if (least > LEAST_BLOCK_MAX || (least > 0 && least & (least - 1)) ||
	    (most > 0 && most < LEAST_BLOCK_MAX)) {
		snprintf(
			c->cause, sizeof(c->cause),
			"its blocks are %lld to %lld bytes: expected a least of at most 4096 and a most of at least that",
			(long long)least, (long long)most);
		return -1;
	}
	facts->bytes = (u64)bytes;
	facts->min_block = least > 0 ? (u32)least : 1;
	facts->max_bytes = MMNF_NET_IO_BYTES_MAX;
	if (most > 0)
		facts->max_bytes = min_u64((u64)most, facts->max_bytes) /
				   LEAST_BLOCK_MAX * LEAST_BLOCK_MAX;
	facts->read_only = nbd_is_read_only(h) == 1;
	facts->multi_conn = nbd_can_multi_conn(h) == 1;
	facts->can_flush = nbd_can_flush(h) == 1;
	facts->can_fua = nbd_can_fua(h) == 1;
	set_socket(c);
	return 0;
}

/*
 * Only a server that closes the connection has nothing of ours left to do.  On
 * a network anything between may have cut it, and an answer that makes no sense
 * cuts it here.  A gateway of several has passed on what it was to write.
 */
static u8 late_of(const struct net_conn *c)
{
	int err = nbd_get_errno();

	if (c->group->nr_uris > 1)
		return MMNF_NET_LATE_HUNG;
	if (nbd_aio_is_closed(c->handle) ||
	    (c->local && (err == ECONNRESET || err == EPIPE)))
		return MMNF_NET_LATE_CLOSED;
	return MMNF_NET_LATE_HUNG;
}

/* Under net.lock, as all use of a handle that is up. */
static int completed(void *user, int *error)
{
	struct net_wire *w = user;
	struct mmnf_net *net = w->conn->group->net;

	w->error = *error;
	/* Out of those in flight, into those that are settled. */
	if (w->before)
		w->before->next = w->next;
	else
		w->conn->flying = w->next;
	if (w->next)
		w->next->before = w->before;
	w->next = net->settled;
	net->settled = w;
	return 1;
}

enum net_sent net_conn_send(struct net_wire *w, int *err)
{
	nbd_completion_callback done = { .callback = completed,
					 .user_data = w };
	struct net_conn *c = w->conn;
	u32 fua = w->fua ? LIBNBD_CMD_FLAG_FUA : 0;
	s64 cookie;

	w->before = NULL;
	w->next = c->flying;
	if (w->next)
		w->next->before = w;
	c->flying = w;
	if (w->op == MMNF_NET_READ)
		cookie = nbd_aio_pread(c->handle, w->buf, w->bytes, w->offset,
				       done, 0);
	else if (w->op == MMNF_NET_WRITE)
		cookie = nbd_aio_pwrite(c->handle, w->buf, w->bytes, w->offset,
					done, fua);
	else
		cookie = nbd_aio_flush(c->handle, done, 0);
	/* It waits for something: then it is not over. */
	if (cookie >= 0 && (look(c) || !is_over(c)))
		return NET_SENT;
	*err = nbd_get_errno();
	if (is_over(c)) {
		take_cause(c->cause);
		c->late = late_of(c);
	}
	/* Completed, with an error, or never taken? */
	if (cookie >= 0 || c->flying != w)
		return NET_BROKEN_SENT;
	c->flying = w->next;
	if (w->next)
		w->next->before = NULL;
	return is_over(c) ? NET_BROKEN : NET_REFUSED;
}

bool net_conn_tells(const struct net_conn *c)
{
	return nbd_can_meta_context(c->handle,
				    LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
}

/* Both under net.lock. */
static int found(void *user, const char *context, u64 offset, u32 *entries,
		 size_t nr, int *error)
{
	(void)error;
	if (!strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION))
		net_holes_found(user, offset, entries, nr);
	return 0;
}

static int answered(void *user, int *error)
{
	net_holes_answered(user, *error);
	return 1;
}

bool net_conn_ask(struct net_conn *c, u64 offset, u64 bytes)
{
	nbd_extent_callback some = { .callback = found, .user_data = c->group };
	nbd_completion_callback end = { .callback = answered,
					.user_data = c->group };

	if (nbd_aio_block_status(c->handle, bytes, offset, some, end, 0) < 0)
		return false;
	return look(c) || !is_over(c);
}

/*
 * libnbd reads one answer at a time.  Where one came there are often more: to ask
 * the socket itself is cheaper than to poll first.  Not amid a request that is
 * being sent: told to read without need, libnbd forgets the rest of it.
 */
bool net_conn_notify(struct net_conn *c, short events)
{
	const struct mmnf_net *net = c->group->net;
	const struct net_wire *last;
	u32 more = (u32)min_u64(net->nr_burst, c->in_flight / 2 + 1);
	unsigned int direction = look(c);
	int err;

	do {
		last = net->settled;
		err = notify(c, events & POLLIN, events & POLLOUT,
			     events & (POLLHUP | POLLERR | POLLNVAL),
			     direction);
		direction = look(c);
	} while (!err && net->settled != last && c->flying && more-- > 1 &&
		 direction == LIBNBD_AIO_DIRECTION_READ);
	if (!err && (direction || !is_over(c)))
		return true;
	take_cause(c->cause);
	c->late = late_of(c);
	return false;
}

void net_conn_look(struct net_conn *c)
{
	look(c);
}

int net_conn_fd(const struct net_conn *c)
{
	return nbd_aio_get_fd(c->handle);
}

void net_conn_bye(struct net_conn *c)
{
	if (nbd_aio_is_ready(c->handle))
		nbd_aio_disconnect(c->handle, 0);
}

void net_conn_close(void *handle)
{
	nbd_close(handle);
}

#endif
