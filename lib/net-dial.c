// SPDX-License-Identifier: MIT
/*
 * Dialling: the begin of a connection, up to where a socket can be waited for.
 *
 * Looking up a name may take as long as the resolver likes, and nobody can call it
 * off.  So each name is looked up by a thread of its own, which may outlive the
 * connection's patience, and the net: whoever is the last frees the net.  For one
 * connection a gateway's name is looked up once at a time, so threads do not pile up.
 *
 *	start --> thread: libnbd looks up, connects --> is_done --> the keeper takes it
 *	                       '-- nobody waits any more --> closed
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "net-internal.h"

#define CANCELLED_NS 1000000000LL

/**
 * struct net_dial - a thread that dials; net.lock guards all but what it dials
 * @conn: that it dials for, if conn->dial is still this
 */
struct net_dial {
	struct net_conn *conn;
	u32 gateway;
	pthread_t thread;
	bool is_done;
	void *handle;
	char cause[NET_CAUSE_BYTES];
	struct net_dial *next; /* of the net's whose threads run */
};

static bool has_name(const char *uri)
{
	return strncmp(uri, "nbd+unix://", 11) &&
	       strncmp(uri, "nbds+unix://", 12);
}

static void end(void *arg)
{
	struct net_dial *d = arg, **at;
	struct mmnf_net *net = d->conn->group->net;

	pthread_mutex_lock(&net->lock);
	for (at = &net->dials; *at != d; at = &(*at)->next)
		;
	*at = d->next;
	d->is_done = true;
	pthread_cond_broadcast(&net->settled_down);
	if (d->conn->dial == d) {
		net_keep_nudge(net);
	} else {
		net_conn_close(d->handle);
		free(d);
	}
	net_put(net);
}

static void *run(void *arg)
{
	struct net_dial *d = arg;
	const struct net_group *g = d->conn->group;
	int state;

	pthread_cleanup_push(end, d);
	d->handle = net_conn_dial(g->uri[d->gateway], &g->net->opts,
				  d->conn->index == NET_ASKER, d->cause);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	pthread_cleanup_pop(1);
	return NULL;
}

/* A look-up for it that nobody waits for any more. */
static struct net_dial *find(const struct net_conn *c)
{
	struct net_dial *d;

	for (d = c->group->net->dials; d; d = d->next)
		if (d->conn == c && d->gateway == c->gateway)
			return d;
	return NULL;
}

/* With the lock. */
static int start_thread(struct net_conn *c)
{
	struct mmnf_net *net = c->group->net;
	struct net_dial *d = calloc(1, sizeof(*d));
	sigset_t all, before;
	pthread_attr_t attr;
	int err;

	if (!d)
		return -ENOMEM;
	d->conn = c;
	d->gateway = c->gateway;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&d->thread, &attr, run, d);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	if (err) {
		free(d);
		return -err;
	}
	d->next = net->dials;
	net->dials = d;
	net->nr_users++;
	c->dial = d;
	return 0;
}

int net_dial_start(struct net_conn *c, char *cause)
{
	const char *uri = c->group->uri[c->gateway];
	struct mmnf_net *net = c->group->net;
	int err = 0;

	if (!has_name(uri)) {
		c->handle = net_conn_dial(uri, &net->opts,
					  c->index == NET_ASKER, cause);
		return c->handle ? 0 : -1;
	}
	pthread_mutex_lock(&net->lock);
	c->dial = find(c);
	if (!c->dial && start_thread(c)) {
		snprintf(cause, NET_CAUSE_BYTES,
			 "no thread to look up its name");
		err = -1;
	}
	pthread_mutex_unlock(&net->lock);
	return err;
}

int net_dial_take(struct net_conn *c)
{
	struct net_dial *d = c->dial;

	if (!d->is_done)
		return 0;
	c->dial = NULL;
	c->handle = d->handle;
	memcpy(c->cause, d->cause, sizeof(c->cause));
	free(d);
	return c->handle ? 1 : -1;
}

void net_dial_forget(struct net_conn *c)
{
	struct net_dial *d = c->dial;

	c->dial = NULL;
	if (d && d->is_done) {
		net_conn_close(d->handle);
		free(d);
	}
}

void net_dial_cancel(struct mmnf_net *net)
{
	s64 at = mmnf_now_ns() + CANCELLED_NS;
	struct timespec until = { at / 1000000000, at % 1000000000 };
	const struct net_dial *d;

	pthread_mutex_lock(&net->lock);
	for (d = net->dials; d; d = d->next)
		pthread_cancel(d->thread);
	while (net->dials &&
	       !pthread_cond_clockwait(&net->settled_down, &net->lock,
				       CLOCK_MONOTONIC, &until))
		;
	pthread_mutex_unlock(&net->lock);
}
