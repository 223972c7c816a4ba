/* SPDX-License-Identifier: MIT */
/*
 * `mmnf nbd`: /dev/nbdN, kept alive.
 *
 *	cmd-nbd.c	the command line; list and detach
 *	nbd-attach.c	gateways -> device
 *	nbd-supervise.c	... which is then kept alive
 *	nbd-lock.c	one supervisor a device
 *	nbd-gateway.c	a server: handshake by libnbd, what it exports
 *	nbd-kernel.c	the kernel's end: generic netlink
 *	nbd-queue.c	the device's sysfs: tuning, state
 *
 * The handshake is done in user space.  The socket is then the kernel's alone:
 * nothing here reads it or writes to it, but a duplicate is kept, because it
 * hangs up when the kernel gives the link up.
 */
#ifndef MMNF_NBD_H
#define MMNF_NBD_H

#include <sys/types.h>
#include <time.h>

#include "tool.h"

#define NBD_GATEWAYS_MAX 16
#define NBD_CONNECTIONS_MAX 16
/* The queue's largest request: then a megabyte takes one round trip. */
#define NBD_REQUEST_BYTES (1U << 20)
/* For a handshake: a server that hangs keeps nobody longer. */
#define NBD_HANDSHAKE_S 5

/**
 * struct nbd_export - what a server says it has
 * @size_bytes: of the export
 * @flags: of the handshake, NBD_FLAG_* as the kernel takes them
 * @least_bytes, @most_bytes: of a request; most: NBD_REQUEST_BYTES, or less
 */
struct nbd_export {
	uint64_t size_bytes, flags;
	uint32_t least_bytes, most_bytes;
};

struct nbd_wanted {
	uint32_t index; /* NBD_INDEX_ANY: the kernel chooses */
	uint64_t size_bytes, block_bytes, flags, timeout_s, dead_timeout_s;
	const char *backend;
};

#define NBD_INDEX_ANY UINT32_MAX

/* ---- nbd-gateway.c; text has the reason where a call fails */

#define NBD_TEXT 512

/* NULL, or why the kernel cannot use it. */
const char *nbd_gateway_refuses(const char *uri);

/*
 * A connection past its handshake: its socket, or -errno.  timeout_s bounds the
 * whole.  ends, where not NULL, gets the first and the last 4096 bytes.
 */
#define NBD_END_BYTES 4096

struct nbd_ends {
	char first[NBD_END_BYTES], last[NBD_END_BYTES];
};

int nbd_gateway_connect(const char *uri, uint64_t timeout_s,
			struct nbd_export *export, struct nbd_ends *ends,
			char text[NBD_TEXT]);

/* ---- nbd-kernel.c; all return 0 or -errno */

struct nbd_kernel;

int nbd_kernel_open(struct nbd_kernel **out, char text[NBD_TEXT]);
void nbd_kernel_close(struct nbd_kernel *kernel);

/* Sets wanted->index where it was NBD_INDEX_ANY. */
int nbd_kernel_connect(struct nbd_kernel *kernel, struct nbd_wanted *wanted,
		       const int *sockets, unsigned int nr);
int nbd_kernel_disconnect(struct nbd_kernel *kernel, uint32_t index);

/*
 * Offers a socket in place of a dead one.  1: taken; 0: there is no dead one
 * (yet), and the kernel has dropped it.
 */
int nbd_kernel_offer(struct nbd_kernel *kernel, const struct nbd_wanted *wanted,
		     int socket);

/* What poll() waits on for news of dead links. */
int nbd_kernel_news_fd(const struct nbd_kernel *kernel);

/* Reads the news: was a link of that device among them? */
bool nbd_kernel_news(struct nbd_kernel *kernel, uint32_t index);

/* ---- nbd-queue.c */

/* "/dev/nbd7" -> 7 */
bool nbd_queue_index(const char *device, uint32_t *index);

/* Is it connected?  backend, where not NULL, gets its identifier or "". */
bool nbd_queue_connected(uint32_t index, char *backend, size_t len);
uint64_t nbd_queue_size_bytes(uint32_t index);
uint64_t nbd_queue_block_bytes(uint32_t index);

/* Sets the queue up; what was set, or why not, goes to set. */
void nbd_queue_tune(uint32_t index, const struct nbd_export *export,
		    uint64_t read_ahead_kib, json_t *set);

/* Indices of all devices: nr of them, malloc'ed; -errno. */
int nbd_queue_all(uint32_t **indices);

/* ---- nbd-lock.c: one supervisor a device */

#define NBD_LOCKS "/run/mmnf"

/* A descriptor that holds the lock, or -errno; -EWOULDBLOCK: it is held. */
int nbd_lock_take(uint32_t index);
/* Writes down that it is this process that holds it. */
void nbd_lock_sign(int lock);
/* The pid of the supervisor, 0 for none. */
pid_t nbd_lock_holder(uint32_t index);

/* ---- nbd-supervise.c */

/* @fd: a duplicate of the socket that the kernel has; -1: not known */
struct nbd_link {
	int fd;
	unsigned int gateway;
	bool lost;
	struct timespec lost_at;
};

/* The last trouble that was told of, and when. */
struct nbd_complaint {
	char text[2 * NBD_TEXT];
	struct timespec told_at;
};

/* Whose trouble: a gateway's number, or this. */
#define NBD_KERNEL NBD_GATEWAYS_MAX

struct nbd_attachment {
	const struct options *o;
	struct nbd_kernel *kernel;
	struct nbd_wanted wanted;
	struct nbd_export export;
	char **gateways;
	unsigned int nr_gateways, nr_links, nr_lost, probes;
	struct nbd_link links[NBD_CONNECTIONS_MAX];
	bool to_syslog;
	int lock;
	char backend[1024];
	struct nbd_complaint complaints[NBD_KERNEL + 1];
};

/* A line for people: stderr, or syslog in the background. */
void nbd_tell(const struct nbd_attachment *a, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * NULL, or how an export differs from the one that the device was made of; text
 * may be where that stands.
 */
const char *nbd_mismatch(const struct nbd_attachment *a,
			 const struct nbd_export *export, char *text,
			 size_t len);

/* Returns when the device is detached, with an exit status. */
int nbd_supervise(struct nbd_attachment *a, int signals);

/* ---- nbd-attach.c */

int nbd_attach(const struct options *o);

#endif
