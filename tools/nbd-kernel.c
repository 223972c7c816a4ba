// SPDX-License-Identifier: MIT
/*
 * The kernel's end of a network block device: the generic netlink family "nbd".
 *
 * RECONFIGURE answers 0 also when it found no dead socket to replace and dropped
 * the new one.  A socket that was taken has the device's timeout as its own send
 * timeout, and one that was not has none: so a device always has a timeout.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <linux/nbd-netlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>

#include "nbd.h"

struct nbd_kernel {
	struct nl_sock *ask, *news;
	int family;
	uint32_t watched; /* by nbd_kernel_news() */
	bool dead;
};

static int on_news(struct nl_msg *message, void *arg)
{
	struct nbd_kernel *kernel = arg;
	struct nlattr *attr[NBD_ATTR_MAX + 1];

	if (genlmsg_hdr(nlmsg_hdr(message))->cmd != NBD_CMD_LINK_DEAD ||
	    genlmsg_parse(nlmsg_hdr(message), 0, attr, NBD_ATTR_MAX, NULL))
		return NL_OK;
	if (attr[NBD_ATTR_INDEX] &&
	    nla_get_u32(attr[NBD_ATTR_INDEX]) == kernel->watched)
		kernel->dead = true;
	return NL_OK;
}

int nbd_kernel_open(struct nbd_kernel **out, char text[NBD_TEXT])
{
	struct nbd_kernel *kernel = calloc(1, sizeof(*kernel));
	int group, err;

	*out = NULL;
	if (!kernel) {
		snprintf(text, NBD_TEXT, "no memory");
		return -ENOMEM;
	}
	kernel->ask = nl_socket_alloc();
	kernel->news = nl_socket_alloc();
	err = kernel->ask && kernel->news ? genl_connect(kernel->ask) :
					    -NLE_NOMEM;
	if (!err)
		err = genl_connect(kernel->news);
	if (err) {
		snprintf(text, NBD_TEXT, "generic netlink: %s",
			 nl_geterror(err));
		nbd_kernel_close(kernel);
		return -EIO;
	}
	kernel->family = genl_ctrl_resolve(kernel->ask, NBD_GENL_FAMILY_NAME);
	group = genl_ctrl_resolve_grp(kernel->ask, NBD_GENL_FAMILY_NAME,
				      NBD_GENL_MCAST_GROUP_NAME);
	if (kernel->family < 0 || group < 0 ||
	    nl_socket_add_membership(kernel->news, group)) {
		snprintf(text, NBD_TEXT,
			 "this kernel has no nbd: expected its module, "
			 "'modprobe nbd'");
		nbd_kernel_close(kernel);
		return -ENODEV;
	}
	nl_socket_disable_seq_check(kernel->news);
	nl_socket_set_nonblocking(kernel->news);
	nl_socket_modify_cb(kernel->news, NL_CB_VALID, NL_CB_CUSTOM, on_news,
			    kernel);
	*out = kernel;
	return 0;
}

void nbd_kernel_close(struct nbd_kernel *kernel)
{
	if (!kernel)
		return;
	nl_socket_free(kernel->ask);
	nl_socket_free(kernel->news);
	free(kernel);
}

/* What comes back for one request: its answer, and then how it went. */
struct answer {
	uint32_t index;
	bool ended;
	int err;
};

static int on_valid(struct nl_msg *message, void *arg)
{
	struct nlattr *attr[NBD_ATTR_MAX + 1];
	struct answer *answer = arg;

	if (!genlmsg_parse(nlmsg_hdr(message), 0, attr, NBD_ATTR_MAX, NULL) &&
	    attr[NBD_ATTR_INDEX])
		answer->index = nla_get_u32(attr[NBD_ATTR_INDEX]);
	return NL_OK;
}

static int on_end(struct nl_msg *message, void *arg)
{
	struct answer *answer = arg;

	(void)message;
	answer->ended = true;
	return NL_STOP;
}

static int on_error(struct sockaddr_nl *from, struct nlmsgerr *e, void *arg)
{
	struct answer *answer = arg;

	(void)from;
	answer->ended = true;
	answer->err = e->error;
	return NL_STOP;
}

/* Sends a message, which it takes over, and waits for what the kernel says. */
static int ask(struct nbd_kernel *kernel, struct nl_msg *message,
	       uint32_t *index)
{
	struct nl_cb *cb = nl_cb_alloc(NL_CB_DEFAULT);
	struct answer answer = { .index = NBD_INDEX_ANY };
	int err = cb ? nl_send_auto(kernel->ask, message) : -NLE_NOMEM;

	nlmsg_free(message);
	if (cb) {
		nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_valid, &answer);
		nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, on_end, &answer);
		nl_cb_err(cb, NL_CB_CUSTOM, on_error, &answer);
	}
	while (err >= 0 && !answer.ended)
		err = nl_recvmsgs(kernel->ask, cb);
	nl_cb_put(cb);
	if (answer.ended)
		err = answer.err;
	else if (err < 0)
		err = err == -NLE_NOMEM ? -ENOMEM : -EIO;
	if (!err && index && answer.index != NBD_INDEX_ANY)
		*index = answer.index;
	return err;
}

static struct nl_msg *request(struct nbd_kernel *kernel, uint8_t command)
{
	struct nl_msg *message = nlmsg_alloc();

	if (message && !genlmsg_put(message, NL_AUTO_PORT, NL_AUTO_SEQ,
				    kernel->family, 0, 0, command, 0)) {
		nlmsg_free(message);
		return NULL;
	}
	return message;
}

static int put_sockets(struct nl_msg *message, const int *sockets,
		       unsigned int nr)
{
	struct nlattr *list = nla_nest_start(message, NBD_ATTR_SOCKETS), *item;
	unsigned int i;

	for (i = 0; list && i < nr; i++) {
		item = nla_nest_start(message, NBD_SOCK_ITEM);
		if (!item ||
		    nla_put_u32(message, NBD_SOCK_FD, (uint32_t)sockets[i]))
			return -NLE_NOMEM;
		nla_nest_end(message, item);
	}
	if (!list)
		return -NLE_NOMEM;
	nla_nest_end(message, list);
	return 0;
}

/* A u64 without the padding that libnl would put in newer attributes. */
static int put_u64(struct nl_msg *message, int type, uint64_t value)
{
	return nla_put(message, type, sizeof(value), &value);
}

int nbd_kernel_connect(struct nbd_kernel *kernel, struct nbd_wanted *wanted,
		       const int *sockets, unsigned int nr)
{
	struct nl_msg *message = request(kernel, NBD_CMD_CONNECT);
	int err = message ? 0 : -1;

	if (!err && wanted->index != NBD_INDEX_ANY)
		err = nla_put_u32(message, NBD_ATTR_INDEX, wanted->index);
	if (err || put_u64(message, NBD_ATTR_SIZE_BYTES, wanted->size_bytes) ||
	    put_u64(message, NBD_ATTR_BLOCK_SIZE_BYTES, wanted->block_bytes) ||
	    put_u64(message, NBD_ATTR_TIMEOUT, wanted->timeout_s) ||
	    put_u64(message, NBD_ATTR_DEAD_CONN_TIMEOUT,
		    wanted->dead_timeout_s) ||
	    put_u64(message, NBD_ATTR_SERVER_FLAGS, wanted->flags) ||
	    nla_put_string(message, NBD_ATTR_BACKEND_IDENTIFIER,
			   wanted->backend) ||
	    put_sockets(message, sockets, nr)) {
		nlmsg_free(message);
		return -ENOMEM;
	}
	return ask(kernel, message, &wanted->index);
}

int nbd_kernel_disconnect(struct nbd_kernel *kernel, uint32_t index)
{
	struct nl_msg *message = request(kernel, NBD_CMD_DISCONNECT);

	if (!message || nla_put_u32(message, NBD_ATTR_INDEX, index)) {
		nlmsg_free(message);
		return -ENOMEM;
	}
	return ask(kernel, message, NULL);
}

static bool has_send_timeout(int socket)
{
	struct timeval t = { 0 };
	socklen_t len = sizeof(t);

	return !getsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &t, &len) &&
	       (t.tv_sec || t.tv_usec);
}

int nbd_kernel_offer(struct nbd_kernel *kernel, const struct nbd_wanted *wanted,
		     int socket)
{
	struct nl_msg *message = request(kernel, NBD_CMD_RECONFIGURE);
	int err;

	if (!message || nla_put_u32(message, NBD_ATTR_INDEX, wanted->index) ||
	    nla_put_string(message, NBD_ATTR_BACKEND_IDENTIFIER,
			   wanted->backend) ||
	    put_sockets(message, &socket, 1)) {
		nlmsg_free(message);
		return -ENOMEM;
	}
	err = ask(kernel, message, NULL);
	return err ? err : has_send_timeout(socket);
}

int nbd_kernel_news_fd(const struct nbd_kernel *kernel)
{
	return nl_socket_get_fd(kernel->news);
}

bool nbd_kernel_news(struct nbd_kernel *kernel, uint32_t index)
{
	int err;

	kernel->watched = index;
	kernel->dead = false;
	do
		err = nl_recvmsgs_default(kernel->news);
	while (!err);
	/* Some were lost: it may have been among them. */
	return kernel->dead || err != -NLE_AGAIN;
}
