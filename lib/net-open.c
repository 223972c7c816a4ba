// SPDX-License-Identifier: MIT
/*
 * Opening and closing a remote byte space.  It is open when each of its groups
 * was connected to once: then it is known how long it is.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "net-internal.h"

#define CONNECTIONS 4
#define DEPTH 64
#define FAIL_TIMEOUT_MS 30000
#define REQUEST_TIMEOUT_MS 5000

int mmnf_net_opts_from(struct mmnf_net_opts *net,
		       const struct mmnf_open_opts *o)
{
	u64 ms = o->net_fail_timeout_ms;

	if (o->net_connections > MMNF_NET_CONNS_MAX ||
	    o->net_depth > MMNF_NET_DEPTH_MAX)
		return mmnf_error(
			EINVAL,
			"mmnf_open_opts: net_connections is %u and net_depth %u: expected at most %d and %d",
			o->net_connections, o->net_depth, MMNF_NET_CONNS_MAX,
			MMNF_NET_DEPTH_MAX);
	net->writable = o->writable;
	net->holes_off = o->net_holes_off;
	net->connections = o->net_connections ? o->net_connections :
						CONNECTIONS;
	net->depth = o->net_depth ? o->net_depth : DEPTH;
	if (ms == MMNF_NET_FOREVER)
		net->fail_timeout_ns = 0;
	else
		net->fail_timeout_ns =
			(s64)(ms ? ms : FAIL_TIMEOUT_MS) * 1000000;
	ms = o->net_request_timeout_ms ? o->net_request_timeout_ms :
					 REQUEST_TIMEOUT_MS;
	net->request_timeout_ns = (s64)ms * 1000000;
	net->tls_dir = o->net_tls_dir;
	net->tls_psk_file = o->net_tls_psk_file;
	net->tls_username = o->net_tls_username;
	return 0;
}

#define DRAIN_NS (250 * 1000000LL)
#define OPEN_ROUNDS 5 /* a third of a second, where they are refused at once */

static int new_group(struct mmnf_net *net, u32 index)
{
	struct net_group *g = &net->group[index];
	u32 i, k;

	g->net = net;
	g->index = index;
	g->uri = net->layout.uri[index];
	while (g->nr_uris < MMNF_NET_GATEWAYS_MAX && g->uri[g->nr_uris])
		g->nr_uris++;
	g->nr_conns = 1;
	g->down_ns = mmnf_now_ns();
	g->facts.max_bytes = MMNF_NET_IO_BYTES_MAX;
	g->facts.min_block = 1;
	net_queue_init(&g->demand);
	net_queue_init(&g->prefetch);
	net_queue_init(&g->writes);
	net_queue_init(&g->delayed);
	for (i = NET_ASKER; i <= NET_SCOUT; i++) {
		g->conn[i].group = g;
		g->conn[i].index = i;
	}
	for (i = 0; i < net->opts.connections; i++) {
		struct net_conn *c = &g->conn[i];

		c->group = g;
		c->index = i;
		c->gateway = i % g->nr_uris;
		c->wires = calloc(net->opts.depth, sizeof(*c->wires));
		if (!c->wires)
			return -ENOMEM;
		for (k = 0; k < net->opts.depth; k++) {
			c->wires[k].next = c->spare;
			c->spare = &c->wires[k];
		}
	}
	return 0;
}

static int copy_layout(struct mmnf_net *net,
		       const struct mmnf_net_layout *layout)
{
	u32 i, k;

	net->layout = *layout;
	net->layout.uri = calloc(layout->nr_groups, sizeof(*layout->uri));
	net->group = calloc(layout->nr_groups, sizeof(*net->group));
	net->nr_groups = layout->nr_groups;
	if (!net->layout.uri || !net->group)
		return -ENOMEM;
	for (i = 0; i < layout->nr_groups; i++)
		for (k = 0; k < MMNF_NET_GATEWAYS_MAX && layout->uri[i][k];
		     k++) {
			net->layout.uri[i][k] = strdup(layout->uri[i][k]);
			if (!net->layout.uri[i][k])
				return -ENOMEM;
		}
	for (i = 0; i < layout->nr_groups; i++)
		if (new_group(net, i))
			return -ENOMEM;
	return 0;
}

static char *copy_text(const char *text, int *err)
{
	char *copy = text ? strdup(text) : NULL;

	if (text && !copy)
		*err = -ENOMEM;
	return copy;
}

static int init(struct mmnf_net *net, const struct mmnf_net_layout *layout,
		const struct mmnf_net_opts *opts)
{
	int err = 0;

	pthread_mutex_init(&net->lock, NULL);
	pthread_cond_init(&net->work, NULL);
	pthread_cond_init(&net->settled_down, NULL);
	net->kick = net->nudge = -1;
	net->forks = net_forks();
	net->nr_users = 1;
	net->done_end = &net->done;
	net->opts = *opts;
	net->opts.tls_dir = copy_text(opts->tls_dir, &err);
	net->opts.tls_psk_file = copy_text(opts->tls_psk_file, &err);
	net->opts.tls_username = copy_text(opts->tls_username, &err);
	if (!err)
		err = copy_layout(net, layout);
	return err ? mmnf_error(ENOMEM, "no memory for %u servers",
				layout->nr_groups) :
		     0;
}

/*
 * Until each group is known or has failed at all its gateways some times: a
 * server may just be starting.
 */
static int wait_known(struct mmnf_net *net)
{
	bool wait_for_ever = !net->opts.fail_timeout_ns;
	int err = 0;
	u32 i;

	pthread_mutex_lock(&net->lock);
	for (i = 0; i < net->nr_groups && !err; i++) {
		struct net_group *g = &net->group[i];

		while (!g->known &&
		       (wait_for_ever || g->nr_rounds < OPEN_ROUNDS))
			pthread_cond_wait(&net->settled_down, &net->lock);
		if (!g->known)
			err = mmnf_error(ECONNREFUSED, "%s", g->cause);
	}
	pthread_mutex_unlock(&net->lock);
	return err;
}

static int measure(struct mmnf_net *net, u64 need_bytes)
{
	u64 stripe = net->layout.stripe_bytes, least = UINT64_MAX, bytes;
	u32 i, shortest = 0;

	for (i = 0; i < net->nr_groups; i++) {
		bytes = net->group[i].facts.bytes;
		if (net->nr_groups > 1)
			bytes = bytes / stripe * stripe;
		if (bytes < least)
			shortest = i;
		least = min_u64(least, bytes);
	}
	if (__builtin_mul_overflow(least, net->nr_groups, &net->bytes) ||
	    net->bytes > (u64)S64_MAX)
		net->bytes = (u64)S64_MAX;
	if (net->bytes >= need_bytes)
		return 0;
	return mmnf_error(EINVAL,
			  "server %u %s has %" PRIu64
			  " bytes: expected at least %" PRIu64,
			  shortest, net->group[shortest].uri[0],
			  net->group[shortest].facts.bytes,
			  need_bytes / net->nr_groups);
}

/*
 * libnbd does not live through exit() while a thread is in it: all nets come to
 * rest before.
 */
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct mmnf_net *all;

static void rest(struct mmnf_net *net)
{
	pthread_mutex_lock(&net->lock);
	net->stop = true;
	net_keep_nudge(net);
	pthread_cond_signal(&net->work);
	net_drive_kick(net);
	pthread_mutex_unlock(&net->lock);
	if (net->has_keeper)
		pthread_join(net->keeper, NULL);
	if (net->has_driver)
		pthread_join(net->driver, NULL);
	net->has_keeper = net->has_driver = false;
}

static void rest_all(void)
{
	struct mmnf_net *net;

	pthread_mutex_lock(&all_lock);
	for (net = all; net; net = net->next)
		if (net->forks == net_forks()) {
			/* Whoever waits is told, and whoever comes. */
			mmnf_net_shut(net);
			rest(net);
			net_dial_cancel(net);
		}
	pthread_mutex_unlock(&all_lock);
}

static u32 nr_forks;

u32 net_forks(void)
{
	return nr_forks;
}

static void forked(void)
{
	nr_forks++;
	/* Of the parent; a thread that had it is not here. */
	pthread_mutex_init(&all_lock, NULL);
	all = NULL;
}

/* A fork() that is under way does not run what is registered meanwhile. */
static __attribute__((constructor)) void tell_of_forks(void)
{
	pthread_atfork(NULL, NULL, forked);
}

static void list_add(struct mmnf_net *net)
{
	static bool registered;

	pthread_mutex_lock(&all_lock);
	if (!registered)
		registered = !atexit(rest_all);
	net->next = all;
	all = net;
	pthread_mutex_unlock(&all_lock);
}

static void list_remove(const struct mmnf_net *net)
{
	struct mmnf_net **at;

	pthread_mutex_lock(&all_lock);
	for (at = &all; *at && *at != net; at = &(*at)->next)
		;
	if (*at)
		*at = net->next;
	pthread_mutex_unlock(&all_lock);
}

int mmnf_net_open(struct mmnf_net **out, const struct mmnf_net_layout *layout,
		  const struct mmnf_net_opts *opts, u64 need_bytes)
{
	struct mmnf_net *net;
	int err;

	*out = NULL;
	if (mmnf_net_missing())
		return mmnf_error(EOPNOTSUPP, "%s: %s", layout->uri[0][0],
				  mmnf_net_missing());
	net = calloc(1, sizeof(*net));
	if (!net)
		return mmnf_error(ENOMEM, "no memory");
	err = init(net, layout, opts);
	if (!err)
		err = net_drive_start(net);
	if (!err)
		list_add(net);
	if (!err)
		err = net_keep_start(net);
	if (!err)
		err = wait_known(net);
	if (!err)
		err = measure(net, need_bytes);
	if (!err && opts->writable && mmnf_net_read_only(net))
		err = mmnf_error(EROFS, "%s: the server exports it read-only",
				 layout->uri[0][0]);
	if (err) {
		mmnf_net_close(net);
		return err;
	}
	*out = net;
	return 0;
}

/* With the lock: afterwards no memory of a request is touched. */
static void shut_group(struct net_group *g)
{
	u32 i;

	for (i = 0; i < g->net->opts.connections; i++) {
		struct net_conn *c = &g->conn[i];

		if (c->state != NET_UP)
			continue;
		if (!c->in_flight)
			net_conn_bye(c);
		net_group_lost(c);
	}
	if (g->conn[NET_ASKER].state == NET_UP) {
		net_conn_bye(&g->conn[NET_ASKER]);
		net_holes_lost(g);
	}
	net_group_drop(g, NULL, -ECANCELED, "closed");
}

static u32 count_in_flight(struct mmnf_net *net)
{
	u32 i, n = 0;

	pthread_mutex_lock(&net->lock);
	for (i = 0; i < net->nr_groups; i++)
		n += net->group[i].in_flight;
	pthread_mutex_unlock(&net->lock);
	return n;
}

/* Answers that are on their way: servers do not like to be left with them. */
static void drain(struct mmnf_net *net)
{
	s64 end = mmnf_now_ns() + DRAIN_NS;
	bool never = false;

	while (count_in_flight(net) && mmnf_now_ns() < end)
		mmnf_net_wait(net, &never, DRAIN_NS / 50);
}

void mmnf_net_shut(struct mmnf_net *net)
{
	u32 i;

	if (!net || net->forks != net_forks())
		return;
	pthread_mutex_lock(&net->lock);
	net->shut = true;
	for (i = 0; net->group && i < net->nr_groups; i++)
		if (net->group[i].net)
			net_group_drop(&net->group[i], NULL, -ECANCELED,
				       "closed");
	net_run_done(net);
	pthread_mutex_unlock(&net->lock);
	if (net->group)
		drain(net);
	pthread_mutex_lock(&net->lock);
	for (i = 0; net->group && i < net->nr_groups; i++)
		if (net->group[i].net)
			shut_group(&net->group[i]);
	net_run_done(net);
	pthread_mutex_unlock(&net->lock);
}

static void free_net(struct mmnf_net *net)
{
	u32 i, k;

	for (i = 0; net->group && i < net->nr_groups; i++) {
		net_holes_free(&net->group[i]);
		for (k = 0; k < net->opts.connections; k++)
			free(net->group[i].conn[k].wires);
	}
	for (i = 0; net->layout.uri && i < net->nr_groups; i++)
		for (k = 0; k < MMNF_NET_GATEWAYS_MAX; k++)
			free(net->layout.uri[i][k]);
	if (net->kick >= 0)
		close(net->kick);
	if (net->nudge >= 0)
		close(net->nudge);
	free(net->layout.uri);
	free(net->group);
	free(net->pfd);
	free(net->seen);
	free((char *)net->opts.tls_dir);
	free((char *)net->opts.tls_psk_file);
	free((char *)net->opts.tls_username);
	pthread_cond_destroy(&net->work);
	pthread_cond_destroy(&net->settled_down);
	pthread_mutex_destroy(&net->lock);
	free(net);
}

void net_put(struct mmnf_net *net)
{
	bool last = !--net->nr_users;

	pthread_mutex_unlock(&net->lock);
	if (last)
		free_net(net);
}

void mmnf_net_close(struct mmnf_net *net)
{
	u32 i, k;

	/* A forked child leaves its parent's connections alone. */
	if (!net || net->forks != net_forks())
		return;
	list_remove(net);
	mmnf_net_shut(net);
	rest(net);
	/* Those that were being dialled. */
	pthread_mutex_lock(&net->lock);
	for (i = 0; net->group && i < net->nr_groups; i++)
		for (k = 0; k <= NET_SCOUT; k++) {
			struct net_conn *c = &net->group[i].conn[k];

			net_dial_forget(c);
			if (c->handle)
				net_conn_close(c->handle);
		}
	net_put(net);
}
