// SPDX-License-Identifier: MIT
/*
 * Keeps an attached device alive until it is told to end (SIGTERM, SIGINT: the
 * device is detached) or somebody else detaches the device.
 *
 *	link lost: its socket hangs up, or the kernel says LINK_DEAD
 *	  -> handshake with the next gateway -> same export? -> RECONFIGURE
 *
 * Meanwhile the kernel holds the requests back, for dead_timeout_s at most.
 *
 * A supervisor that was killed leaves the device as it is.  The next one with
 * the same arguments adopts it: it has no sockets to watch at first and goes by
 * the kernel's news.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include <linux/nbd.h>

#include "nbd.h"

#define BACKOFF_LEAST_MS 10
#define BACKOFF_MOST_MS 250
#define COMPLAIN_S 10
/* After news of a dead link: the kernel marks it a moment later. */
#define PROBES 8

void nbd_tell(const struct nbd_attachment *a, const char *format, ...)
{
	char text[2 * NBD_TEXT + 128];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (a->to_syslog)
		syslog(LOG_NOTICE, "nbd%" PRIu32 ": %s", a->wanted.index, text);
	else
		fprintf(stderr, "mmnf: nbd%" PRIu32 ": %s\n", a->wanted.index,
			text);
}

static double seconds_since(const struct timespec *then)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - then->tv_sec) +
	       (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

/*
 * The same trouble is told once, however often it is met, and another one of the same
 * gateway not before a while has passed.  who: a gateway, or NBD_KERNEL.
 */
static void complain(struct nbd_attachment *a, unsigned int who,
		     const char *text)
{
	struct nbd_complaint *c = &a->complaints[who];

	if (!strcmp(c->text, text) ||
	    (c->told_at.tv_sec && seconds_since(&c->told_at) < COMPLAIN_S))
		return;
	snprintf(c->text, sizeof(c->text), "%s", text);
	clock_gettime(CLOCK_MONOTONIC, &c->told_at);
	nbd_tell(a, "%s", text);
}

/* systemd's notification; nothing where it did not ask for one. */
static void notify(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	size_t len = path ? strlen(path) : 0;
	int fd;

	if (!len || len >= sizeof(to.sun_path))
		return;
	memcpy(to.sun_path, path, len);
	if (*path == '@')
		to.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&to,
	       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
	close(fd);
}

/* ---- links */

/* NULL, or how an export differs from the one that the device was made of. */
const char *nbd_mismatch(const struct nbd_attachment *a,
			 const struct nbd_export *export, char *text,
			 size_t len)
{
	uint64_t lacking = a->export.flags & ~export->flags;

	if (export->size_bytes != a->export.size_bytes) {
		snprintf(text, len,
			 "it exports %" PRIu64 " bytes: expected %" PRIu64,
			 export->size_bytes, a->export.size_bytes);
		return text;
	}
	if (export->least_bytes > a->wanted.block_bytes ||
	    export->most_bytes < a->export.most_bytes) {
		snprintf(text, len,
			 "its requests are of %" PRIu32 " to %" PRIu32
			 " bytes: expected %" PRIu64 " to %" PRIu32,
			 export->least_bytes, export->most_bytes,
			 a->wanted.block_bytes, a->export.most_bytes);
		return text;
	}
	/* A device that is only read needs no more than the bytes. */
	if (!a->o->writable)
		return NULL;
	if (lacking || (export->flags & NBD_FLAG_READ_ONLY)) {
		snprintf(text, len,
			 "its flags are %#" PRIx64 ": expected %#" PRIx64,
			 export->flags, a->export.flags);
		return text;
	}
	return NULL;
}

/* What came of a try. */
#define REVIVED 1
#define NOT_DEAD 0 /* as far as the kernel has noticed */
#define NO_SERVER 2

/*
 * A socket in place of the link's, from the first gateway that has the same
 * export.  One of the above, or -errno: the device is gone.
 */
static int revive(struct nbd_attachment *a, struct nbd_link *l)
{
	char text[NBD_TEXT], words[2 * NBD_TEXT];
	unsigned int try, gateway;
	struct nbd_export export;
	const char *wrong;
	int fd, taken;

	for (try = 0; try < a->nr_gateways; try++) {
		gateway = (l->gateway + try) % a->nr_gateways;
		fd = nbd_gateway_connect(a->gateways[gateway], NBD_HANDSHAKE_S,
					 &export, NULL, text);
		if (fd < 0) {
			complain(a, gateway, text);
			continue;
		}
		wrong = nbd_mismatch(a, &export, text, sizeof(text));
		if (wrong) {
			close(fd);
			snprintf(words, sizeof(words), "%s: refused: %s",
				 a->gateways[gateway], wrong);
			complain(a, gateway, words);
			continue;
		}
		taken = nbd_kernel_offer(a->kernel, &a->wanted, fd);
		if (taken != REVIVED) {
			close(fd);
			return taken;
		}
		if (l->fd >= 0)
			close(l->fd);
		l->fd = fd;
		l->gateway = gateway;
		return REVIVED;
	}
	return NO_SERVER;
}

static void lose(struct nbd_attachment *a, unsigned int number)
{
	struct nbd_link *l = &a->links[number];
	unsigned int i;

	close(l->fd);
	l->fd = -1;
	l->lost = true;
	clock_gettime(CLOCK_MONOTONIC, &l->lost_at);
	/* A server that hangs takes connections all the same: the next first. */
	l->gateway = (l->gateway + 1) % a->nr_gateways;
	a->nr_lost++;
	for (i = 0; i <= NBD_KERNEL; i++)
		*a->complaints[i].text = 0;
	nbd_tell(a, "link %u is lost", number);
}

static void is_back(struct nbd_attachment *a, unsigned int number)
{
	struct nbd_link *l = &a->links[number];

	nbd_tell(a, "link %u is back after %.2f s by %s", number,
		 l->lost ? seconds_since(&l->lost_at) : 0.0,
		 a->gateways[l->gateway]);
	a->nr_lost -= l->lost;
	l->lost = false;
}

static bool is_still_ours(const struct nbd_attachment *a)
{
	char backend[sizeof(a->backend)];

	return nbd_queue_connected(a->wanted.index, backend, sizeof(backend)) &&
	       !strcmp(backend, a->backend);
}

/* Links that the kernel has and this process does not. */
static bool has_unknown(const struct nbd_attachment *a)
{
	unsigned int i;

	for (i = 0; i < a->nr_links; i++)
		if (a->links[i].fd < 0 && !a->links[i].lost)
			return true;
	return false;
}

/* One try for each link that needs it; false: the device is gone. */
static bool revive_all(struct nbd_attachment *a)
{
	unsigned int i;
	int taken;

	for (i = 0; i < a->nr_links; i++) {
		struct nbd_link *l = &a->links[i];

		if (!l->lost && (l->fd >= 0 || !a->probes))
			continue;
		taken = revive(a, l);
		if (taken < 0 && !is_still_ours(a))
			return false;
		if (taken < 0) {
			complain(a, NBD_KERNEL, strerror(-taken));
			taken = NO_SERVER;
		}
		if (taken == REVIVED)
			is_back(a, i);
		if (l->lost || taken == REVIVED)
			continue;
		/* None of the unknown ones is dead, or none can be helped. */
		if (taken == NOT_DEAD)
			a->probes--;
		break;
	}
	if (!has_unknown(a))
		a->probes = 0;
	return true;
}

/* ---- the loop */

static int wait_for_news(struct nbd_attachment *a, int signals, int timeout_ms)
{
	struct pollfd p[NBD_CONNECTIONS_MAX + 2];
	unsigned int i;

	for (i = 0; i < a->nr_links; i++) {
		p[i].fd = a->links[i].fd; /* poll() passes over -1 */
		p[i].events = POLLRDHUP;
	}
	p[i].fd = signals;
	p[i].events = POLLIN;
	p[i + 1].fd = nbd_kernel_news_fd(a->kernel);
	p[i + 1].events = POLLIN;
	if (poll(p, a->nr_links + 2, timeout_ms) < 0)
		return errno == EINTR ? 0 : -errno;
	if (p[i].revents)
		return 1;
	if (p[i + 1].revents && nbd_kernel_news(a->kernel, a->wanted.index))
		a->probes = PROBES;
	for (i = 0; i < a->nr_links; i++)
		if (a->links[i].fd >= 0 && p[i].revents)
			lose(a, i);
	return 0;
}

int nbd_supervise(struct nbd_attachment *a, int signals)
{
	int backoff_ms = BACKOFF_LEAST_MS, stop;
	unsigned int lost;

	notify("READY=1");
	for (;;) {
		lost = a->nr_lost;
		stop = wait_for_news(a, signals,
				     lost || a->probes ? backoff_ms : -1);
		if (stop < 0)
			return failure(a->o, "poll: %s", strerror(-stop));
		if (stop)
			break;
		if (!is_still_ours(a) || !revive_all(a)) {
			nbd_tell(a, "detached by another");
			return EXIT_SUCCESS;
		}
		backoff_ms *= 2;
		if (backoff_ms > BACKOFF_MOST_MS)
			backoff_ms = BACKOFF_MOST_MS;
		if (a->nr_lost > lost || (!a->nr_lost && !a->probes))
			backoff_ms = BACKOFF_LEAST_MS;
	}
	notify("STOPPING=1");
	stop = nbd_kernel_disconnect(a->kernel, a->wanted.index);
	if (stop)
		return failure(a->o, "/dev/nbd%" PRIu32 ": detaching: %s",
			       a->wanted.index, strerror(-stop));
	nbd_tell(a, "detached");
	return EXIT_SUCCESS;
}
