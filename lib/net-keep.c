// SPDX-License-Identifier: MIT
/*
 * The keeper: a thread that brings connections up and looks at the clock.
 *
 * A connection that is dialled is the keeper's, without a lock; once up it is
 * handed to the group.  One that fails goes on with the next gateway.
 *
 *	down --due--> dialling --ready, same export--> up
 *	  ^               |                            |
 *	  '---- failed, other export, too slow         '-- lost --> down
 *
 * A server that comes back must be what it was: with another size it is refused
 * until it is right again.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "net-internal.h"

#define TICK_MIN_NS (5 * 1000000LL)
#define TICK_MAX_NS (100 * 1000000LL)
#define FIRST_NS (250 * 1000000ULL)
#define REFUSED_NS (1000 * 1000000LL)
#define QUIET_TICKS 10 /* then it sleeps until there is something to do */

void net_keep_nudge(struct mmnf_net *net)
{
	u64 one = 1;

	net->keeper_sleeps = false;
	if (write(net->nudge, &one, sizeof(one)) < 0)
		return; /* full: readable as it is */
}

/* Not all connections of a group in the same moment. */
static s64 jitter(const struct net_conn *c, s64 ns)
{
	u64 x = (u64)c->due_ns + c->index * 0x9E3779B97F4A7C15ULL;

	x ^= x >> 29;
	x *= 0xBF58476D1CE4E5B9ULL;
	return ns - ns / 4 + (s64)((x >> 32) % (u64)(ns / 2 + 1));
}

/* With the lock.  cause: what was said without it; NULL: c->cause is right. */
static void failed(struct net_conn *c, s64 now, s64 wait, const char *cause)
{
	struct net_group *g = c->group;

	net_dial_forget(c);
	if (c->handle)
		net_conn_close(c->handle);
	c->handle = NULL;
	c->state = NET_DOWN;
	if (cause)
		snprintf(c->cause, sizeof(c->cause), "%s", cause);
	if (!g->known)
		snprintf(g->cause, sizeof(g->cause), "server %u %.140s: %s",
			 g->index, g->uri[c->gateway], c->cause);
	c->blamed = c->gateway;
	c->failures++;
	if (c->index == NET_ASKER)
		net_holes_failed(g);
	if (!wait)
		wait = (s64)min_u64((u64)NET_BACKOFF_NS
					    << min_u64(c->failures - 1, 10),
				    NET_BACKOFF_MAX_NS);
	c->due_ns = now + jitter(c, wait);
	if (++c->gateway < g->nr_uris) {
		/* The next one of them at once, in the first round. */
		if (c->failures < g->nr_uris)
			c->due_ns = now;
		return;
	}
	c->gateway = 0;
	if (!c->index && c->failures >= g->nr_uris) {
		g->nr_rounds++;
		pthread_cond_broadcast(&g->net->settled_down);
	}
}

/* Is it what it was?  With the lock. */
static bool check_facts(struct net_conn *c, const struct net_facts *facts)
{
	struct net_group *g = c->group;

	if (!g->known)
		return true;
	if (facts->bytes != g->facts.bytes)
		snprintf(c->cause, sizeof(c->cause),
			 "now has %" PRIu64 " bytes: expected %" PRIu64,
			 facts->bytes, g->facts.bytes);
	else if (facts->read_only && g->net->opts.writable)
		snprintf(c->cause, sizeof(c->cause),
			 "is now read-only: expected to write to it");
	else if (g->net->opts.writable && g->facts.can_flush &&
		 !facts->can_flush)
		snprintf(
			c->cause, sizeof(c->cause),
			"now cannot be told to flush: expected to write to it");
	else if (g->net->opts.writable && g->nr_conns > 1 && !facts->multi_conn)
		snprintf(
			c->cause, sizeof(c->cause),
			"now cannot have several connections: expected to write to it by %u",
			g->nr_conns);
	else if (facts->min_block > g->facts.min_block ||
		 facts->max_bytes < g->facts.max_bytes)
		snprintf(c->cause, sizeof(c->cause),
			 "now wants other sizes of requests than before");
	else
		return true;
	g->count.refused++;
	return false;
}

/*
 * Where one connection does not see what another has written there is only one.
 * With the lock.
 */
static void learn(struct net_group *g, const struct net_facts *facts)
{
	u32 i;

	if (g->known) {
		g->facts.can_flush = facts->can_flush;
		g->facts.can_fua = facts->can_fua;
		return;
	}
	g->facts = *facts;
	g->known = true;
	/* It speaks for one server, not for all gateways to its bytes. */
	if (!g->net->opts.writable || (facts->multi_conn && g->nr_uris == 1))
		g->nr_conns = g->net->opts.connections;
	for (i = 1; i < g->nr_conns; i++)
		g->conn[i].due_ns = 0;
	pthread_cond_broadcast(&g->net->settled_down);
}

/* A gateway answers; that is all that is asked of it. */
static void scouted(struct net_conn *c, s64 now)
{
	struct net_group *g = c->group;

	g->has_other = g->wants_other && c->gateway != g->conn[0].gateway;
	net_conn_bye(c);
	net_conn_close(c->handle);
	c->handle = NULL;
	c->state = NET_DOWN;
	c->failures = 0;
	c->due_ns = now;
}

static void connected(struct net_conn *c, s64 now)
{
	struct net_group *g = c->group;
	struct net_facts facts;
	int err;

	if (g->net->shut || net_conn_facts(c, &facts) ||
	    !check_facts(c, &facts)) {
		failed(c, now, REFUSED_NS, NULL);
		return;
	}
	if (c->index == NET_SCOUT) {
		scouted(c, now);
		return;
	}
	if (c->index != NET_ASKER) {
		learn(g, &facts);
	} else if (!net_holes_connected(g)) {
		snprintf(c->cause, sizeof(c->cause), "it tells of no holes");
		failed(c, now, REFUSED_NS, NULL);
		return;
	}
	c->state = NET_UP;
	err = net_drive_watch(c);
	if (err) {
		snprintf(c->cause, sizeof(c->cause),
			 "its socket cannot be watched: %s", strerror(-err));
		failed(c, now, REFUSED_NS, NULL);
		return;
	}
	c->cause[0] = 0;
	c->blamed = c->gateway;
	if (c->index == NET_ASKER) {
		c->failures = 0;
		net_holes_go_on(g);
		return;
	}
	if (c->since_ns)
		g->count.reconnects++;
	c->since_ns = now;
	g->nr_up++;
	g->down_ns = 0;
	net_group_pump(g);
}

/*
 * How long it may take.  As long as nobody has answered, and there are others to be
 * asked, not so long: an open is not to wait for a gateway that hangs.
 */
static s64 patience(const struct net_conn *c)
{
	const struct net_group *g = c->group;
	s64 ns = g->net->opts.request_timeout_ns;

	if (!g->known && c->failures + 1 < g->nr_uris)
		ns = (s64)min_u64((u64)ns, FIRST_NS);
	return ns;
}

static void dial(struct net_conn *c)
{
	struct mmnf_net *net = c->group->net;
	s64 now = mmnf_now_ns();
	char cause[NET_CAUSE_BYTES];

	c->due_ns = now + patience(c);
	if (!net_dial_start(c, cause))
		return;
	pthread_mutex_lock(&net->lock);
	failed(c, now, 0, cause);
	net_run_done(net);
	pthread_mutex_unlock(&net->lock);
}

static void step(struct net_conn *c, short revents, s64 now)
{
	struct mmnf_net *net = c->group->net;
	char cause[NET_CAUSE_BYTES];
	int ready = c->handle ? net_conn_step(c, revents, cause) : 0;

	if (!ready && now < c->due_ns)
		return;
	if (!ready)
		snprintf(cause, sizeof(cause),
			 c->dial ? "its name is being looked up" :
				   "no answer to the connection");
	pthread_mutex_lock(&net->lock);
	/* Others have looked at the clock since. */
	now = net->now_ns = mmnf_now_ns();
	if (ready > 0)
		connected(c, now);
	else
		failed(c, now, 0, cause);
	net_settle(net);
	net_run_done(net);
	pthread_mutex_unlock(&net->lock);
}

/**
 * struct round - what the keeper does next
 * @conn: those that are its own: to be dialled, or being dialled
 * @next_ns: when there is something to do; 0: not by itself
 */
struct round {
	struct pollfd *pfd;
	struct net_conn **conn;
	u32 nr, quiet;
	u64 nr_waits; /* when it last looked */
	s64 next_ns;
};

static void sooner(struct round *r, s64 ns)
{
	if (!r->next_ns || ns < r->next_ns)
		r->next_ns = ns;
}

/* With the lock. */
static void take_conn(struct round *r, struct net_conn *c, s64 now)
{
	int got;

	if (c->state == NET_DOWN && c->due_ns <= now)
		c->state = NET_DIALLING;
	got = c->dial ? net_dial_take(c) : 0;
	if (got < 0)
		failed(c, now, 0, NULL);
	else if (got) /* the server has its time from here */
		c->due_ns = now + patience(c);
	if (c->state == NET_DIALLING)
		r->conn[r->nr++] = c;
	else if (c->state == NET_DOWN)
		sooner(r, c->due_ns);
}

static void take_own(struct round *r, struct net_group *g, s64 now)
{
	struct net_conn *asker = &g->conn[NET_ASKER];
	struct net_conn *scout = &g->conn[NET_SCOUT];
	u32 i;

	for (i = 0; i < g->nr_conns; i++)
		take_conn(r, &g->conn[i], now);
	if (g->holes.is_wanted || asker->state == NET_DIALLING)
		take_conn(r, asker, now);
	if (scout->state == NET_DOWN && scout->gateway == g->conn[0].gateway)
		scout->gateway = (scout->gateway + 1) % g->nr_uris;
	if ((g->wants_other && !g->has_other) || scout->state == NET_DIALLING)
		take_conn(r, scout, now);
}

/* With the lock.  While nothing goes on the clock is not looked at. */
static void look_at_clock(struct mmnf_net *net, struct round *r, s64 now)
{
	s64 tick = net->opts.request_timeout_ns, due;
	bool busy = net->activity;
	u32 i;

	if (net->opts.fail_timeout_ns)
		tick = (s64)min_u64((u64)tick, (u64)net->opts.fail_timeout_ns);
	tick = (s64)max_u64(min_u64((u64)tick / 8, TICK_MAX_NS), TICK_MIN_NS);
	for (i = 0; i < net->nr_groups; i++) {
		struct net_group *g = &net->group[i];

		due = net_group_clock(g, now);
		if (due)
			sooner(r, due);
		busy |= g->in_flight || g->demand.first || g->prefetch.first ||
			g->writes.first;
	}
	/* A program that asks, and looks at its answers much later. */
	net->left = busy && net->nr_waits == r->nr_waits;
	r->nr_waits = net->nr_waits;
	net_drive_background(net);
	r->quiet = busy ? 0 : r->quiet + 1;
	net->activity = 0;
	net->keeper_sleeps = r->quiet > QUIET_TICKS;
	if (!net->keeper_sleeps)
		sooner(r, now + tick);
}

/* Dials, and waits for what is dialled or for the next thing to do. */
static void wait_for(struct mmnf_net *net, struct round *r)
{
	u32 i, nr = 0;
	int ms = -1;
	s64 now;
	u64 n;

	for (i = 0; i < r->nr; i++) {
		struct net_conn *c = r->conn[i];

		if (!c->handle && !c->dial)
			dial(c);
		r->pfd[nr].fd = -1;
		r->pfd[nr].revents = 0;
		if (c->dial || (c->handle && net_conn_poll(c, &r->pfd[nr])))
			r->conn[nr++] = c;
		sooner(r, c->due_ns);
	}
	r->nr = nr;
	r->pfd[nr] = (struct pollfd) { net->nudge, POLLIN, 0 };
	now = mmnf_now_ns();
	if (r->next_ns)
		ms = r->next_ns <= now ?
			     0 :
			     (int)((r->next_ns - now) / 1000000 + 1);
	poll(r->pfd, nr + 1, ms);
	if (r->pfd[nr].revents && read(net->nudge, &n, sizeof(n)) < 0)
		return; /* not there any more */
}

static void *keep(void *arg)
{
	struct mmnf_net *net = arg;
	u32 most = net->nr_groups * (net->opts.connections + 2), i;
	struct round r = { 0 };
	s64 now;

	r.pfd = calloc(most + 1, sizeof(*r.pfd));
	r.conn = calloc(most, sizeof(*r.conn));
	pthread_mutex_lock(&net->lock);
	while (r.pfd && r.conn && !net->stop) {
		now = net->now_ns = mmnf_now_ns();
		r.next_ns = 0;
		r.nr = 0;
		for (i = 0; i < net->nr_groups; i++)
			take_own(&r, &net->group[i], now);
		look_at_clock(net, &r, now);
		net_settle(net);
		net_run_done(net);
		pthread_mutex_unlock(&net->lock);
		wait_for(net, &r);
		now = mmnf_now_ns();
		for (i = 0; i < r.nr; i++)
			step(r.conn[i], r.pfd[i].revents, now);
		pthread_mutex_lock(&net->lock);
	}
	pthread_mutex_unlock(&net->lock);
	free(r.pfd);
	free(r.conn);
	return NULL;
}

int net_keep_start(struct mmnf_net *net)
{
	sigset_t all, before;
	int err;

	net->nudge = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (net->nudge < 0)
		return mmnf_error_system(errno, "eventfd");
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&net->keeper, NULL, keep, net);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	net->has_keeper = !err;
	return err ? mmnf_error_system(err, "a thread for the network") : 0;
}
