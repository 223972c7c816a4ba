// SPDX-License-Identifier: MIT
/*
 * A server that exports the bytes: the handshake, by libnbd, up to the point
 * where the kernel can go on.
 *
 * libnbd asks for simple replies, the only ones that the kernel reads, and has
 * read nothing beyond the last answer when it is ready.  nbd_close() closes its
 * descriptor and says nothing to the server, so a duplicate lives on.  It is
 * never asked to shut down: that would send the server away.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <libnbd.h>
#include <linux/nbd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "nbd.h"

/* Of the protocol; not in every linux/nbd.h. */
#define SEND_WRITE_ZEROES (1 << 6)

const char *nbd_gateway_refuses(const char *uri)
{
	if (!strncmp(uri, "nbds", 4))
		return "the kernel's nbd speaks no TLS: expected nbd:// or "
		       "nbd+unix://, to a TLS proxy of this machine if need be";
	if (strncmp(uri, "nbd:", 4) && strncmp(uri, "nbd+", 4))
		return "expected nbd://HOST[:PORT]/[EXPORT] or "
		       "nbd+unix:///[EXPORT]?socket=PATH";
	return NULL;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int failed(char text[NBD_TEXT], const char *uri)
{
	int err = nbd_get_errno();

	snprintf(text, NBD_TEXT, "%s: %s", uri,
		 nbd_get_error() ? nbd_get_error() : "no reason given");
	return err ? -err : -EIO;
}

/* Until the handle is ready, or the command, where not -1, is done. */
static int wait_ready(struct nbd_handle *h, int64_t command,
		      int64_t deadline_ms)
{
	for (;;) {
		struct pollfd p = { .fd = nbd_aio_get_fd(h) };
		unsigned int way = nbd_aio_get_direction(h);
		int64_t left = deadline_ms - now_ms();
		int done;

		if (nbd_aio_is_dead(h) || nbd_aio_is_closed(h))
			return -1;
		if (command < 0 && nbd_aio_is_ready(h))
			return 0;
		if (command >= 0) {
			done = nbd_aio_command_completed(h, (uint64_t)command);
			if (done)
				return done > 0 ? 0 : -1;
		}
		if (left <= 0)
			return -ETIMEDOUT;
		if (way & LIBNBD_AIO_DIRECTION_READ)
			p.events |= POLLIN;
		if (way & LIBNBD_AIO_DIRECTION_WRITE)
			p.events |= POLLOUT;
		if (poll(&p, 1, (int)left) < 0 && errno != EINTR)
			return -1;
		/* Never both for one answer: the first may change the way. */
		if ((p.revents & (POLLIN | POLLHUP | POLLERR)) &&
		    (way & LIBNBD_AIO_DIRECTION_READ))
			nbd_aio_notify_read(h);
		else if (p.revents & (POLLOUT | POLLHUP | POLLERR))
			nbd_aio_notify_write(h);
	}
}

static int read_end(struct nbd_handle *h, char *to, uint64_t bytes,
		    uint64_t offset, int64_t deadline_ms)
{
	int64_t command =
		nbd_aio_pread(h, to, bytes, offset, NBD_NULL_COMPLETION, 0);

	return command < 0 ? -1 : wait_ready(h, command, deadline_ms);
}

static int read_ends(struct nbd_handle *h, uint64_t size_bytes,
		     uint32_t align_bytes, struct nbd_ends *ends,
		     int64_t deadline_ms)
{
	uint64_t bytes = size_bytes < NBD_END_BYTES ? size_bytes :
						      NBD_END_BYTES;
	uint64_t last = (size_bytes - bytes) / align_bytes * align_bytes;
	int err;

	memset(ends, 0, sizeof(*ends));
	err = read_end(h, ends->first, bytes, 0, deadline_ms);
	return err ? err : read_end(h, ends->last, bytes, last, deadline_ms);
}

static bool has(int answer)
{
	return answer > 0;
}

static uint64_t flags_of(struct nbd_handle *h)
{
	uint64_t flags = NBD_FLAG_HAS_FLAGS;

	if (has(nbd_is_read_only(h)))
		flags |= NBD_FLAG_READ_ONLY;
	if (has(nbd_can_flush(h)))
		flags |= NBD_FLAG_SEND_FLUSH;
	if (has(nbd_can_fua(h)))
		flags |= NBD_FLAG_SEND_FUA;
	if (has(nbd_can_trim(h)))
		flags |= NBD_FLAG_SEND_TRIM;
	if (has(nbd_can_zero(h)))
		flags |= SEND_WRITE_ZEROES;
	if (has(nbd_can_multi_conn(h)))
		flags |= NBD_FLAG_CAN_MULTI_CONN;
	return flags;
}

/* A server that is not asked for them may still answer in chunks. */
static int describe(struct nbd_handle *h, const char *uri,
		    struct nbd_export *export, char text[NBD_TEXT])
{
	int64_t size = nbd_get_size(h), least, most;

	if (size < 0)
		return failed(text, uri);
	least = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM);
	most = nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM);
	export->size_bytes = (uint64_t)size;
	export->least_bytes =
		least > 512 && least < UINT32_MAX ? (uint32_t)least : 512;
	export->most_bytes = most > 0 && most < NBD_REQUEST_BYTES ?
				     (uint32_t)most :
				     NBD_REQUEST_BYTES;
	export->flags = flags_of(h);
	if (!has(nbd_get_structured_replies_negotiated(h)))
		return 0;
	snprintf(text, NBD_TEXT,
		 "%s: the server insists on structured replies, which the "
		 "kernel does not read",
		 uri);
	return -EOPNOTSUPP;
}

/* The kernel's own limit on a silent peer works only while it waits for one. */
static void keep_alive(int fd, uint64_t timeout_s)
{
	int on = 1, idle_s = timeout_s < 30 ? (int)timeout_s : 30, count = 3;

	if (setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)))
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

int nbd_gateway_connect(const char *uri, uint64_t timeout_s,
			struct nbd_export *export, struct nbd_ends *ends,
			char text[NBD_TEXT])
{
	int64_t deadline_ms = now_ms() + (int64_t)timeout_s * 1000;
	struct nbd_handle *h = nbd_create();
	int fd = -1, err;

	if (!h)
		return failed(text, uri);
	if (nbd_set_request_structured_replies(h, false) ||
#ifdef LIBNBD_HAVE_NBD_SET_REQUEST_EXTENDED_HEADERS
	    nbd_set_request_extended_headers(h, false) ||
#endif
	    nbd_set_uri_allow_tls(h, LIBNBD_TLS_DISABLE) ||
	    nbd_aio_connect_uri(h, uri))
		err = -1;
	else
		err = wait_ready(h, -1, deadline_ms);
	if (err == -1)
		err = failed(text, uri);
	else if (err == -ETIMEDOUT)
		snprintf(text, NBD_TEXT, "%s: no handshake within %llu s", uri,
			 (unsigned long long)timeout_s);
	else
		err = describe(h, uri, export, text);
	if (!err && ends && export->size_bytes) {
		err = read_ends(h, export->size_bytes, export->least_bytes,
				ends, deadline_ms);
		if (err == -1)
			err = failed(text, uri);
		else if (err)
			snprintf(text, NBD_TEXT,
				 "%s: first bytes not read within %llu s", uri,
				 (unsigned long long)timeout_s);
	}
	if (!err) {
		fd = fcntl(nbd_aio_get_fd(h), F_DUPFD_CLOEXEC, 3);
		if (fd < 0) {
			err = -errno;
			snprintf(text, NBD_TEXT, "%s: %s", uri, strerror(-err));
		} else {
			keep_alive(fd, timeout_s);
		}
	}
	nbd_close(h);
	return err ? err : fd;
}
