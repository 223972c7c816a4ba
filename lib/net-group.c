// SPDX-License-Identifier: MIT
/*
 * A group: requests for its bytes wait here, go out as far as the window of its
 * connections allows, and come back here when a connection is lost or the server
 * has an error.
 *
 * Demand goes first, and a quarter of the window is never prefetch's.  Each
 * group has a window of its own, so a dead server stops nobody else.
 *
 * What ends a request besides its bytes: an error that another try would not
 * change; NET_TRIES errors of the server; being older than the fail timeout; and
 * at once, while no server of the group was to be reached for that long.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "net-internal.h"

void net_queue_init(struct net_queue *q)
{
	q->first = NULL;
	q->end = &q->first;
	q->nr = 0;
}

void net_queue_add(struct net_queue *q, struct mmnf_net_part *part)
{
	part->next = NULL;
	*q->end = part;
	q->end = &part->next;
	q->nr++;
}

void net_queue_add_first(struct net_queue *q, struct mmnf_net_part *part)
{
	part->next = q->first;
	if (!q->first)
		q->end = &part->next;
	q->first = part;
	q->nr++;
}

struct mmnf_net_part *net_queue_take(struct net_queue *q)
{
	struct mmnf_net_part *part = q->first;

	q->first = part->next;
	if (!q->first)
		q->end = &q->first;
	q->nr--;
	part->next = NULL;
	return part;
}

static struct net_queue *queue_of(struct net_group *g,
				  const struct mmnf_net_part *part)
{
	if (part->io->op != MMNF_NET_READ)
		return &g->writes;
	return part->io->priority == MMNF_NET_PREFETCH ? &g->prefetch :
							 &g->demand;
}

/* ---- failing */

static const char *verb(const struct mmnf_net_io *io)
{
	return io->op == MMNF_NET_READ	? "reading" :
	       io->op == MMNF_NET_WRITE ? "writing" :
					  "flushing";
}

/* Server, cause, age; then what was asked for. */
static void fail(struct net_group *g, struct mmnf_net_part *part, int err,
		 const char *cause)
{
	const struct mmnf_net_io *io = part->io;
	char words[800];
	int n;

	g->count.failed++;
	g->cause_ns = mmnf_now_ns();
	n = snprintf(words, sizeof(words), "%s; %s", cause, verb(io));
	if (io->op != MMNF_NET_FLUSH && n > 0 && (size_t)n < sizeof(words))
		snprintf(words + n, sizeof(words) - (size_t)n,
			 " %" PRIu64 " bytes at %" PRIu64, io->bytes,
			 io->offset);
	net_part_done(g->net, part, err, words);
}

static void name_cause(struct net_group *g, const struct net_conn *c,
		       const char *cause, double seconds)
{
	snprintf(g->cause, sizeof(g->cause), "server %u %.140s: %s for %.1f s",
		 g->index, g->uri[c->blamed], cause, seconds);
}

/* Why no connection is up, and since when; or for how long a part has waited. */
static void name_down(struct net_group *g, const struct mmnf_net_part *part,
		      s64 now)
{
	struct net_conn *c = &g->conn[0];
	s64 since = g->down_ns ? g->down_ns : part->born_ns;
	u32 i;

	for (i = 0; !c->cause[0] && i < g->nr_conns; i++)
		c = &g->conn[i];
	name_cause(g, c,
		   c->cause[0] ? c->cause :
		   g->nr_up    ? "too slow" :
				 "not connected yet",
		   (double)(now - since) / 1e9);
}

/* Was nobody to be reached for so long that waiting is no use? */
static bool is_hopeless(const struct net_group *g, s64 now)
{
	s64 limit = g->net->opts.fail_timeout_ns;

	return limit && g->down_ns && now - g->down_ns >= limit;
}

void net_group_add(struct net_group *g, struct mmnf_net_part *part)
{
	if (g->net->shut) {
		net_part_done(g->net, part, -ECANCELED, "closed");
		return;
	}
	if (g->down_ns && is_hopeless(g, part->born_ns)) {
		name_down(g, part, part->born_ns);
		fail(g, part, -ETIMEDOUT, g->cause);
		return;
	}
	net_queue_add(queue_of(g, part), part);
}

/* Again, by a connection that is up.  Its age bounds it. */
static void again(struct net_group *g, struct mmnf_net_part *part, s64 now)
{
	s64 limit = g->net->opts.fail_timeout_ns;

	part->due_ns = 0;
	if (part->io->cancelled) {
		net_part_done(g->net, part, -ECANCELED, "cancelled");
		return;
	}
	if (g->net->shut) {
		net_part_done(g->net, part, -ECANCELED, "closed");
		return;
	}
	if (limit && now - part->born_ns >= limit) {
		name_down(g, part, now);
		fail(g, part, -ETIMEDOUT, g->cause);
		return;
	}
	net_queue_add_first(queue_of(g, part), part);
}

/* Once more after a while, which doubles with each time before. */
static void delay(struct net_group *g, struct mmnf_net_part *part, s64 now,
		  u32 times)
{
	part->due_ns = now;
	if (times)
		part->due_ns += (s64)min_u64((u64)NET_BACKOFF_NS
						     << min_u64(times - 1, 10),
					     NET_BACKOFF_MAX_NS);
	net_queue_add(&g->delayed, part);
	net_keep_nudge(g->net);
}

void net_group_shutting(struct net_group *g, struct net_wire *w, s64 now)
{
	struct net_conn *c = w->conn;
	struct mmnf_net_part *part, *next;

	snprintf(c->cause, sizeof(c->cause), "it says that it is going down");
	c->leaving = g->nr_uris > 1;
	if (w->op == MMNF_NET_FLUSH)
		g->epoch++;
	for (part = w->parts; part; part = next) {
		next = part->next;
		delay(g, part, now, ++part->delays);
	}
}

void net_group_error(struct net_group *g, const struct net_wire *w,
		     struct mmnf_net_part *part, s64 now)
{
	char words[64], cause[96];
	int err = w->error;

	/* What it failed to write it may have dropped: the next may succeed. */
	if (w->op == MMNF_NET_FLUSH)
		g->epoch++;
	if ((err == EIO || err == ENOMEM) && part->tries < NET_TRIES) {
		g->count.retries++;
		part->alone = true;
		/* The first may have been chance. */
		delay(g, part, now, part->tries++);
		return;
	}
	snprintf(cause, sizeof(cause), "%s from the server, %u times",
		 strerror_r(err, words, sizeof(words)), part->tries + 1);
	name_cause(g, w->conn, cause, (double)(now - part->born_ns) / 1e9);
	fail(g, part, -err, g->cause);
}

void net_group_again(struct net_group *g, struct net_wire *w, s64 now)
{
	struct mmnf_net_part *part, *next, *turned = NULL;

	for (part = w->parts; part; part = next) {
		next = part->next;
		part->next = turned;
		turned = part;
	}
	for (part = turned; part; part = next) {
		next = part->next;
		again(g, part, now);
	}
}

void net_group_refuse(struct net_group *g, struct net_wire *w, int err)
{
	struct mmnf_net_part *part, *next;
	char words[64], cause[80];

	snprintf(cause, sizeof(cause), "%s",
		 strerror_r(err, words, sizeof(words)));
	name_cause(g, w->conn, cause, 0);
	for (part = w->parts; part; part = next) {
		next = part->next;
		fail(g, part, -err, g->cause);
	}
}

/*
 * Connections are filled one behind the other, so that few requests cost few
 * system calls, and beyond NET_SPREAD evenly: many servers work on so many of
 * each connection at once.
 */
static struct net_conn *pick(struct net_group *g)
{
	u32 depth = g->net->opts.depth, i;
	struct net_conn *best = NULL;

	for (i = 0; i < g->nr_conns; i++) {
		struct net_conn *c = &g->conn[i];

		if (c->state != NET_UP || c->leaving || c->in_flight >= depth)
			continue;
		if (c->in_flight < NET_SPREAD)
			return c;
		if (!best || c->in_flight < best->in_flight)
			best = c;
	}
	return best;
}

static bool may_prefetch(const struct net_group *g)
{
	u32 window = g->nr_up * g->net->opts.depth;

	return g->in_flight_prefetch < window - window / 4;
}

/* A flush without one to ask for is done: the server keeps nothing back. */
static void skip_flush(struct net_group *g)
{
	struct mmnf_net_part *part = net_queue_take(&g->writes);

	part->epoch = g->epoch;
	net_part_done(g->net, part, 0, NULL);
}

void net_group_pump(struct net_group *g)
{
	struct net_conn *writer = &g->conn[0], *c;

	while (g->writes.first && writer->state == NET_UP && !writer->leaving &&
	       writer->in_flight < g->net->opts.depth) {
		const struct mmnf_net_part *part = g->writes.first;

		if ((part->flushing || part->io->op == MMNF_NET_FLUSH) &&
		    !g->facts.can_flush)
			skip_flush(g);
		else if (!net_wire_send(g, writer, &g->writes))
			net_group_lost(writer);
	}
	while (g->demand.first && (c = pick(g)))
		if (!net_wire_send(g, c, &g->demand))
			net_group_lost(c);
	while (g->prefetch.first && !g->demand.first && may_prefetch(g) &&
	       (c = pick(g)))
		if (!net_wire_send(g, c, &g->prefetch))
			net_group_lost(c);
}

/* ---- the end of a connection */

void net_group_lost(struct net_conn *c)
{
	struct net_group *g = c->group;
	s64 now = mmnf_now_ns(), wait = NET_BACKOFF_NS;
	struct net_wire *w;

	c->state = NET_DOWN;
	/* Before the requests it had: none may be written to any more. */
	net_conn_close(c->handle);
	c->handle = NULL;
	net_drive_unwatch(c);
	net_settle(g->net);
	while ((w = c->flying)) {
		c->flying = w->next;
		w->error = ENOTCONN;
		net_wire_settle(w, now);
	}
	/* One that does not last is not taken up again at once. */
	if (now - c->since_ns > 1000000000LL)
		c->failures = 0;
	c->failures++;
	wait = (s64)min_u64((u64)wait << min_u64(c->failures - 1, 10),
			    NET_BACKOFF_MAX_NS);
	c->due_ns = now + wait;
	c->late = MMNF_NET_LATE_NONE;
	c->leaving = false;
	if (c == g->conn)
		g->epoch++;
	if (!--g->nr_up)
		g->down_ns = now;
	net_keep_nudge(g->net);
}

/* ---- the clock */

static void fail_old(struct net_group *g, struct net_queue *q, s64 now)
{
	s64 limit = g->net->opts.fail_timeout_ns;
	struct mmnf_net_part *part, *next;
	struct net_queue old = *q;

	if (!limit || !q->first)
		return;
	net_queue_init(q);
	for (part = old.first; part; part = next) {
		next = part->next;
		if (now - part->born_ns < limit) {
			net_queue_add(q, part);
			continue;
		}
		if (g->nr_up)
			name_cause(g, &g->conn[0],
				   g->conn[0].cause[0] ? g->conn[0].cause :
							 "too slow",
				   (double)limit / 1e9);
		else
			name_down(g, part, now);
		fail(g, part, -ETIMEDOUT, g->cause);
	}
}

/*
 * Does nothing come from a server that reads wait for?  Those count, too, that find
 * no room beside the writes, or are not sent to one that is going down; and what was
 * foreseen, which a walk waits for.
 */
static bool is_silent(const struct net_group *g, const struct net_conn *c,
		      s64 now)
{
	s64 oldest = now, since;
	const struct net_wire *w;

	for (w = c->flying; w; w = w->next)
		if (w->op == MMNF_NET_READ && w->sent_ns < oldest)
			oldest = w->sent_ns;
	if (g->demand.first &&
	    (c->leaving || c->in_flight >= g->net->opts.depth) &&
	    g->demand.first->born_ns < oldest)
		oldest = g->demand.first->born_ns;
	/* Nor was it to be heard before it was connected to. */
	since = (s64)max_u64(max_u64((u64)oldest, (u64)g->heard_ns),
			     (u64)c->since_ns);
	return now - since >= g->net->opts.request_timeout_ns;
}

/* The server may still do its writes, as long as one that is not given up early. */
static void note_late(const struct net_group *g, const struct net_conn *c)
{
	const struct net_wire *w;

	for (w = c->flying; w; w = w->next)
		if (w->op == MMNF_NET_WRITE)
			w->parts->io->late_ns = (s64)max_u64(
				(u64)w->parts->io->late_ns,
				(u64)(w->sent_ns +
				      g->net->opts.fail_timeout_ns));
}

/* Is there another gateway for the reads, whatever becomes of the writes here? */
static bool may_leave_writes(struct net_group *g, const struct net_conn *c,
			     s64 now)
{
	if (g->nr_uris < 2 || !g->net->opts.fail_timeout_ns ||
	    !is_silent(g, c, now))
		return false;
	g->wants_other = true;
	return g->has_other;
}

/*
 * A server that does not answer: what was asked of it is asked elsewhere.  While
 * a write is in flight that is put off, for nobody could tell whether the server
 * goes on to write it; unless reads wait, and another gateway that has their bytes
 * answers.
 */
static void drop_hung(struct net_group *g, struct net_conn *c, s64 now)
{
	const struct mmnf_net_opts *opts = &g->net->opts;
	s64 limit = opts->request_timeout_ns, oldest = now;
	const struct net_wire *w;
	u32 next = (c->gateway + 1) % g->nr_uris;

	for (w = c->flying; w; w = w->next) {
		if (w->op != MMNF_NET_READ)
			limit = opts->fail_timeout_ns;
		if (w->sent_ns < oldest)
			oldest = w->sent_ns;
	}
	if (!limit || now - oldest < limit) {
		if (!may_leave_writes(g, c, now))
			return;
		next = g->conn[NET_SCOUT].gateway;
	}
	note_late(g, c);
	g->count.timeouts++;
	snprintf(c->cause, sizeof(c->cause), "no answer");
	c->late = MMNF_NET_LATE_HUNG;
	net_group_lost(c);
	/* It would take the next connection, too, and hang. */
	c->gateway = next;
}

/*
 * A server that is going down, where another gateway leads to the same bytes.
 * Nobody could tell what becomes of writes that are in flight: they are waited for.
 */
static void leave(struct net_group *g, struct net_conn *c)
{
	const struct net_wire *w;

	for (w = c->flying; w; w = w->next)
		if (w->op != MMNF_NET_READ)
			return;
	net_group_lost(c);
	c->gateway = (c->gateway + 1) % g->nr_uris;
}

static void look_for_hung(struct net_group *g, s64 now)
{
	bool wanted = g->wants_other;
	u32 i;

	g->wants_other = false;
	for (i = 0; i < g->nr_conns; i++)
		if (g->conn[i].state == NET_UP && g->conn[i].flying)
			drop_hung(g, &g->conn[i], now);
	if (g->wants_other && !wanted)
		net_keep_nudge(g->net);
	g->has_other &= g->wants_other;
}

/* Has a server answered since the clock was looked at last? */
static void note_heard(struct net_group *g, s64 now)
{
	u64 nr = g->count.reads + g->count.writes + g->count.flushes;

	if (nr != g->nr_heard)
		g->heard_ns = now;
	g->nr_heard = nr;
}

s64 net_group_clock(struct net_group *g, s64 now)
{
	struct mmnf_net_part *part, *next;
	struct net_queue later;
	s64 due = 0;
	u32 i;

	note_heard(g, now);
	look_for_hung(g, now);
	for (i = 0; i < g->nr_conns; i++)
		if (g->conn[i].state == NET_UP && g->conn[i].leaving)
			leave(g, &g->conn[i]);
	for (i = 0; i < g->nr_conns; i++)
		net_drive_look(&g->conn[i]);
	later = g->delayed;
	net_queue_init(&g->delayed);
	for (part = later.first; part; part = next) {
		next = part->next;
		if (part->due_ns <= now) {
			again(g, part, now);
			continue;
		}
		net_queue_add(&g->delayed, part);
		due = due ? (s64)min_u64((u64)due, (u64)part->due_ns) :
			    part->due_ns;
	}
	net_holes_clock(g, now);
	fail_old(g, &g->demand, now);
	fail_old(g, &g->prefetch, now);
	fail_old(g, &g->writes, now);
	net_group_pump(g);
	return due;
}

static u32 drop_queue(struct net_group *g, struct net_queue *q,
		      const struct mmnf_net_io *io, int err, const char *words)
{
	struct net_queue old = *q;
	struct mmnf_net_part *part, *next;
	u32 n = 0;

	net_queue_init(q);
	for (part = old.first; part; part = next) {
		next = part->next;
		if (io && part->io != io) {
			net_queue_add(q, part);
			continue;
		}
		net_part_done(g->net, part, err, words);
		n++;
	}
	return n;
}

u32 net_group_drop(struct net_group *g, const struct mmnf_net_io *io, int err,
		   const char *words)
{
	return drop_queue(g, &g->demand, io, err, words) +
	       drop_queue(g, &g->prefetch, io, err, words) +
	       drop_queue(g, &g->writes, io, err, words) +
	       drop_queue(g, &g->delayed, io, err, words);
}
