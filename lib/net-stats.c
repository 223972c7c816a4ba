// SPDX-License-Identifier: MIT
/* What the net tells of itself: a line for people, counters of each server. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "net-internal.h"

void mmnf_net_describe(struct mmnf_net *net, char *text, size_t len)
{
	u64 latency[NET_BUCKETS] = { 0 }, read = 0, retries = 0, again = 0;
	u32 up = 0, all = 0, servers = 0, flushless = 0, i, k;
	int n;

	/* A thread that had the lock when it forked is not here. */
	if (net->forks != net_forks()) {
		snprintf(text, len, "%u servers, of the process that forked",
			 net->nr_groups);
		return;
	}
	pthread_mutex_lock(&net->lock);
	for (i = 0; i < net->nr_groups; i++) {
		const struct net_group *g = &net->group[i];

		servers += g->nr_up > 0;
		flushless += g->known && !g->facts.can_flush;
		up += g->nr_up;
		all += g->nr_conns;
		read += g->count.read_bytes;
		retries += g->count.retries;
		again += g->count.reconnects;
		for (k = 0; k < NET_BUCKETS; k++)
			latency[k] += g->count.latency[k];
	}
	n = snprintf(text, len,
		     "%u of %u servers up, %u of %u connections of %u requests",
		     servers, net->nr_groups, up, all, net->opts.depth);
	if (net->opts.writable && flushless && n > 0 && (size_t)n < len)
		n += snprintf(
			text + n, len - (size_t)n,
			"; %u cannot be told to flush: what it has acknowledged is taken as safe",
			flushless);
	if (read && n > 0 && (size_t)n < len)
		snprintf(text + n, len - (size_t)n,
			 "; %" PRIu64 " bytes read, p50 %.3f ms, p99 %.3f ms, "
			 "%" PRIu64 " retries, %" PRIu64 " reconnects",
			 read, (double)net_percentile(latency, 50) / 1e6,
			 (double)net_percentile(latency, 99) / 1e6, retries,
			 again);
	pthread_mutex_unlock(&net->lock);
}

void mmnf_net_group_stats(struct mmnf_net *net, u32 group,
			  struct mmnf_net_stats *out)
{
	const struct net_group *g = &net->group[group];
	const struct net_conn *c = &g->conn[0];
	u32 i;

	if (net->forks != net_forks())
		return;
	pthread_mutex_lock(&net->lock);
	for (i = 0; c->state != NET_UP && i < g->nr_conns; i++)
		c = &g->conn[i];
	out->connections = g->nr_conns;
	out->connections_up = g->nr_up;
	out->window = g->nr_up * net->opts.depth;
	out->in_flight = g->in_flight;
	out->queued =
		g->demand.nr + g->prefetch.nr + g->writes.nr + g->delayed.nr;
	out->size_bytes = g->facts.bytes;
	out->reads = g->count.reads;
	out->writes = g->count.writes;
	out->flushes = g->count.flushes;
	out->read_bytes = g->count.read_bytes;
	out->written_bytes = g->count.written_bytes;
	out->retries = g->count.retries;
	out->requeued = g->count.requeued;
	out->timeouts = g->count.timeouts;
	out->reconnects = g->count.reconnects;
	out->refused = g->count.refused;
	out->failed = g->count.failed;
	out->latency_p50_ns = net_percentile(g->count.latency, 50);
	out->latency_p99_ns = net_percentile(g->count.latency, 99);
	out->holes = g->holes.nr;
	out->hole_bytes = g->holes.bytes;
	out->hole_reads = g->holes.nr_reads;
	snprintf(out->uri, sizeof(out->uri), "%s", g->uri[c->gateway]);
	snprintf(out->cause, sizeof(out->cause), "%s",
		 g->nr_up ? "" : c->cause);
	pthread_mutex_unlock(&net->lock);
}
