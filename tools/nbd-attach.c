// SPDX-License-Identifier: MIT
/*
 * mmnf nbd attach: from servers to a device, which this process then keeps
 * alive (nbd-supervise.c).
 *
 * The device always has a limit for the time that the kernel waits for a new
 * link.  Without one, requests would fail whenever a server restarts; so it is
 * never left out unasked.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <syslog.h>
#include <unistd.h>

#include <linux/nbd.h>

#include "nbd.h"

/* Requests are of sizes that all gateways take. */
static void widen_blocks(struct nbd_export *all, const struct nbd_export *one)
{
	if (one->least_bytes > all->least_bytes)
		all->least_bytes = one->least_bytes;
	if (one->most_bytes < all->most_bytes)
		all->most_bytes = one->most_bytes;
}

/*
 * The export is that of the first gateway that answers.  The others must have
 * the same ends; one that does not answer now may do so later.
 */
static int look_at_gateways(struct nbd_attachment *a, unsigned int *first)
{
	static struct nbd_ends ends, others;
	struct nbd_export export;
	char text[NBD_TEXT];
	bool found = false;
	const char *wrong;
	unsigned int i;
	int fd;

	for (i = 0; i < a->nr_gateways; i++) {
		fd = nbd_gateway_connect(a->gateways[i], NBD_HANDSHAKE_S,
					 &export, found ? &others : &ends,
					 text);
		if (fd < 0) {
			nbd_tell(a, "%s", text);
			continue;
		}
		close(fd);
		if (!found) {
			found = true;
			*first = i;
			a->export = export;
			continue;
		}
		widen_blocks(&a->export, &export);
		a->wanted.block_bytes = a->export.least_bytes;
		wrong = nbd_mismatch(a, &export, text, sizeof(text));
		if (!wrong && memcmp(&ends, &others, sizeof(ends)))
			wrong = "its first or last bytes differ";
		if (wrong)
			return failure(a->o, "%s: is not the same as %s: %s",
				       a->gateways[i], a->gateways[*first],
				       wrong);
	}
	return found ? 0 : failure(a->o, "no gateway answers");
}

/* The largest that divides the size: the kernel would cut off the rest. */
static int choose_block(struct nbd_attachment *a)
{
	uint64_t block = 4096, size = a->export.size_bytes;

	while (block > 512 && size % block)
		block /= 2;
	if (a->export.least_bytes > 4096)
		return failure(a->o,
			       "%s: blocks of %" PRIu32
			       " bytes: expected at most 4096",
			       a->gateways[0], a->export.least_bytes);
	if (block < a->export.least_bytes)
		block = a->export.least_bytes;
	if (size < block || size > INT64_MAX)
		return failure(a->o,
			       "%s: %" PRIu64 " bytes: expected %" PRIu64
			       " to 2^63 - 1",
			       a->gateways[0], size, block);
	if (size % block)
		nbd_tell(a,
			 "the last %" PRIu64
			 " bytes are no whole block: cut off",
			 size % block);
	a->wanted.block_bytes = block;
	a->wanted.size_bytes = size / block * block;
	return 0;
}

static int number_option(const struct options *o, const char *name,
			 const char *text, uint64_t least, uint64_t most,
			 uint64_t *value)
{
	if (!text)
		return 0;
	if (!parse_u64(text, value) || *value < least || *value > most)
		return usage_error(o,
				   "--%s %s: expected %" PRIu64 " to %" PRIu64,
				   name, text, least, most);
	return 0;
}

/* The kernel counts in jiffies, in an int. */
#define TIMEOUT_MOST_S 1000000
/*
 * The kernel sends what was under way on a dead link again when its time is up,
 * and not before: so this is what a reader waits for at a restart.  A write that
 * is sent again may still be carried out by a server that only hung, after newer
 * ones: that gets longer.
 */
#define TIMEOUT_READ_S 5
#define TIMEOUT_WRITE_S 60
#define DEAD_TIMEOUT_S 600

static int parse(struct nbd_attachment *a, uint64_t *connections,
		 uint64_t *read_ahead_kib)
{
	const struct options *o = a->o;
	const char *device, *wrong;
	unsigned int i;
	int err;

	a->gateways = o->args + 1;
	a->nr_gateways = (unsigned int)o->nr_args - 1 - !o->automatic;
	a->wanted.index = NBD_INDEX_ANY;
	device = o->args[o->nr_args - 1];
	if (!o->automatic && !nbd_queue_index(device, &a->wanted.index))
		return usage_error(o, "%s: expected /dev/nbdN, or --auto",
				   device);
	if (!a->nr_gateways || a->nr_gateways > NBD_GATEWAYS_MAX)
		return usage_error(o, "%u URIs: expected 1 to %u",
				   a->nr_gateways, NBD_GATEWAYS_MAX);
	for (i = 0; i < a->nr_gateways; i++) {
		wrong = nbd_gateway_refuses(a->gateways[i]);
		if (wrong)
			return usage_error(o, "%s: %s", a->gateways[i], wrong);
	}
	a->wanted.timeout_s = o->writable ? TIMEOUT_WRITE_S : TIMEOUT_READ_S;
	a->wanted.dead_timeout_s = DEAD_TIMEOUT_S;
	err = number_option(o, "connections", o->connections, 1,
			    NBD_CONNECTIONS_MAX, connections);
	if (!err)
		err = number_option(o, "timeout", o->timeout, 1, TIMEOUT_MOST_S,
				    &a->wanted.timeout_s);
	if (!err)
		err = number_option(o, "dead-timeout", o->dead_timeout, 0,
				    TIMEOUT_MOST_S, &a->wanted.dead_timeout_s);
	if (!err)
		err = number_option(o, "read-ahead-kb", o->read_ahead_kb, 0,
				    32768, read_ahead_kib);
	if (!err && !a->wanted.dead_timeout_s && !o->force)
		return usage_error(
			o, "--dead-timeout 0: whenever the server restarts, "
			   "reads would fail at once and mappings die of "
			   "SIGBUS; --force does it all the same");
	return err;
}

/* Says in sysfs whose device it is; only the same may go on with it. */
static int name_backend(struct nbd_attachment *a)
{
	int len = snprintf(a->backend, sizeof(a->backend),
			   "mmnf %s %u %" PRIu64 " %" PRIu64,
			   a->o->writable ? "rw" : "ro", a->nr_links,
			   a->wanted.timeout_s, a->wanted.dead_timeout_s);
	unsigned int i;

	for (i = 0; i < a->nr_gateways && len < (int)sizeof(a->backend); i++)
		len += snprintf(a->backend + len, sizeof(a->backend) - len,
				" %s", a->gateways[i]);
	a->wanted.backend = a->backend;
	if (len < (int)sizeof(a->backend))
		return 0;
	return failure(a->o, "URIs: %d bytes: expected less than %zu", len,
		       sizeof(a->backend));
}

/* 1: it is ours and nobody looks after it; 0: it is free. */
static int look_at_device(struct nbd_attachment *a)
{
	char backend[sizeof(a->backend)];
	uint64_t size = nbd_queue_size_bytes(a->wanted.index);
	uint64_t block = nbd_queue_block_bytes(a->wanted.index);

	if (!nbd_queue_connected(a->wanted.index, backend, sizeof(backend)))
		return 0;
	if (!strcmp(backend, a->backend) && size == a->wanted.size_bytes &&
	    block != a->wanted.block_bytes) {
		failure(a->o,
			"/dev/nbd%" PRIu32 ": has blocks of %" PRIu64
			" bytes, its servers want %" PRIu64
			": expected the same",
			a->wanted.index, block, a->wanted.block_bytes);
		return -EBUSY;
	}
	if (!strcmp(backend, a->backend) && size == a->wanted.size_bytes)
		return 1;
	if (!strcmp(backend, a->backend)) {
		failure(a->o,
			"/dev/nbd%" PRIu32 ": has %" PRIu64
			" bytes, its servers %" PRIu64 ": expected the same",
			a->wanted.index, size, a->wanted.size_bytes);
		return -EBUSY;
	}
	failure(a->o, "/dev/nbd%" PRIu32 ": in use by %s: expected a free one",
		a->wanted.index, *backend ? backend : "another program");
	return -EBUSY;
}

static int lock_device(struct nbd_attachment *a)
{
	a->lock = nbd_lock_take(a->wanted.index);
	if (a->lock == -EWOULDBLOCK)
		return failure(a->o,
			       "/dev/nbd%" PRIu32
			       ": process %d looks after it already",
			       a->wanted.index,
			       (int)nbd_lock_holder(a->wanted.index));
	if (a->lock < 0)
		return failure(a->o, NBD_LOCKS ": %s", strerror(-a->lock));
	return 0;
}

/* New sockets and a new device of them; 0 or an exit status. */
static int connect_device(struct nbd_attachment *a, unsigned int gateway)
{
	int sockets[NBD_CONNECTIONS_MAX], err;
	struct nbd_export export;
	char text[NBD_TEXT];
	unsigned int i;

	for (i = 0; i < a->nr_links; i++) {
		struct nbd_link *l = &a->links[i];

		l->gateway = gateway;
		l->fd = nbd_gateway_connect(a->gateways[gateway],
					    NBD_HANDSHAKE_S, &export, NULL,
					    text);
		if (l->fd < 0)
			return failure(a->o, "%s", text);
		if (nbd_mismatch(a, &export, text, sizeof(text)))
			return failure(a->o, "%s: %s", a->gateways[gateway],
				       text);
		sockets[i] = l->fd;
	}
	err = nbd_kernel_connect(a->kernel, &a->wanted, sockets, a->nr_links);
	if (err == -EPERM)
		return failure(a->o, "not permitted: expected root");
	if (err)
		return failure(a->o, "connecting the device: %s",
			       strerror(-err));
	return 0;
}

static int report(const struct nbd_attachment *a, uint64_t read_ahead_kib,
		  bool adopted)
{
	json_t *gateways = json_array(), *set = json_object();
	char device[32];
	unsigned int i;
	int err;

	for (i = 0; i < a->nr_gateways; i++)
		json_array_append_new(gateways, json_string(a->gateways[i]));
	snprintf(device, sizeof(device), "/dev/nbd%" PRIu32, a->wanted.index);
	nbd_queue_tune(a->wanted.index, &a->export, read_ahead_kib, set);
	err = print_result(
		a->o,
		json_pack("{ss sI sI sb sb sI sI sI so so}", "device", device,
			  "size_bytes", (json_int_t)a->wanted.size_bytes,
			  "block_bytes", (json_int_t)a->wanted.block_bytes,
			  "read_only", !!(a->wanted.flags & NBD_FLAG_READ_ONLY),
			  "adopted", adopted, "connections",
			  (json_int_t)a->nr_links, "timeout_s",
			  (json_int_t)a->wanted.timeout_s, "dead_timeout_s",
			  (json_int_t)a->wanted.dead_timeout_s, "gateways",
			  gateways, "queue", set));
	/* Whoever waits for it does not wait for the end. */
	fflush(stdout);
	return err;
}

/* The parent ends; the child has everything but the terminal. */
static int into_background(struct nbd_attachment *a)
{
	pid_t pid;
	int null;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return failure(a->o, "fork: %s", strerror(errno));
	if (pid)
		_exit(EXIT_SUCCESS);
	setsid();
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
	}
	openlog("mmnf", LOG_PID, LOG_DAEMON);
	a->to_syslog = true;
	nbd_lock_sign(a->lock);
	return 0;
}

static int run(struct nbd_attachment *a)
{
	uint64_t connections = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t read_ahead_kib = 128;
	char text[NBD_TEXT];
	unsigned int gateway = 0, i;
	sigset_t set;
	int err, signals, adopted = 0;

	/* The kernel has a queue a processor; more links would be idle. */
	if (connections > 4)
		connections = 4;
	err = parse(a, &connections, &read_ahead_kib);
	if (err)
		return err;
	if (nbd_kernel_open(&a->kernel, text))
		return failure(a->o, "%s", text);
	err = look_at_gateways(a, &gateway);
	if (err)
		return err;
	if (a->o->writable && (a->export.flags & NBD_FLAG_READ_ONLY))
		return failure(a->o, "%s: read-only: expected no --write",
			       a->gateways[gateway]);
	err = choose_block(a);
	if (err)
		return err;
	a->wanted.flags = a->export.flags;
	if (!a->o->writable)
		a->wanted.flags |= NBD_FLAG_READ_ONLY;
	if (!(a->export.flags & NBD_FLAG_CAN_MULTI_CONN))
		connections = 1;
	a->nr_links = (unsigned int)connections;
	for (i = 0; i < a->nr_links; i++)
		a->links[i].fd = -1;
	err = name_backend(a);
	if (err)
		return err;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		return failure(a->o, "signalfd: %s", strerror(errno));
	if (!a->o->automatic) {
		err = lock_device(a);
		if (err)
			return err;
		adopted = look_at_device(a);
		if (adopted < 0)
			return EXIT_FAILURE;
	}
	a->probes = (unsigned int)adopted;
	if (!adopted) {
		err = connect_device(a, gateway);
		if (!err && a->o->automatic) {
			err = lock_device(a);
			if (err) /* nobody would look after it */
				nbd_kernel_disconnect(a->kernel,
						      a->wanted.index);
		}
		if (err)
			return err;
	}
	err = report(a, read_ahead_kib, adopted > 0);
	if (!err && a->o->daemon)
		err = into_background(a);
	if (err)
		return err;
	return nbd_supervise(a, signals);
}

int nbd_attach(const struct options *o)
{
	struct nbd_attachment *a = calloc(1, sizeof(*a));
	int err;

	if (!a)
		return failure(o, "no memory");
	a->o = o;
	err = run(a);
	nbd_kernel_close(a->kernel);
	free(a);
	return err;
}
