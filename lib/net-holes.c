// SPDX-License-Identifier: MIT
/*
 * Holes: what a server says reads as zeros is not read from it.
 *
 * Nobody is asked beforehand: a petabyte has too many.  A read that came back as zeros
 * alone asks for what lies around it, by a connection of its own, which is made then;
 * one question of a group at a time, and nobody waits for the answer.
 *
 *	read: zeros --> skip some? --> asker up? --> NBD_CMD_BLOCK_STATUS --> table
 *	                                  | no
 *	                                  '--> the keeper dials it
 *
 * A question that found nothing is followed by fewer, so fields full of zeros that are
 * stored cost their servers little.
 *
 * A hole that is known is as a tile in L2: what others write there is not seen before
 * it is forgotten.  What is written through this net is: a write forgets first, and an
 * answer that a write may have overtaken is thrown away.
 */
#include <stdlib.h>

#include "net-internal.h"

#define HOLES_MAX 1024
#define FOUND_MAX 128
#define HOLE_BYTES_MIN (64ULL << 10) /* shorter ones are not worth a place */
#define LOOK_BYTES_MIN 4096
#define ASK_BYTES_MIN (64ULL << 20)
#define ASK_BYTES_MAX (2ULL << 30)
#define SKIP_MAX 1024
#define FAILURES_MAX 3

struct net_hole {
	u64 start, end, age;
};

/* The first that ends behind an offset, or nr. */
static u32 find(const struct net_holes *h, u64 offset)
{
	u32 low = 0, high = h->nr, mid;

	while (low < high) {
		mid = low + (high - low) / 2;
		if (h->hole[mid].end > offset)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

static void take_out(struct net_holes *h, u32 first, u32 nr)
{
	u32 i;

	if (!nr)
		return;
	for (i = first; i < first + nr; i++)
		h->bytes -= h->hole[i].end - h->hole[i].start;
	h->nr -= nr;
	memmove(&h->hole[first], &h->hole[first + nr],
		(h->nr - first) * sizeof(*h->hole));
}

static void put_in(struct net_holes *h, struct net_hole hole)
{
	u32 i, at, oldest = 0;

	if (hole.end - hole.start < HOLE_BYTES_MIN)
		return;
	if (h->nr == HOLES_MAX) {
		for (i = 1; i < h->nr; i++)
			if (h->hole[i].age < h->hole[oldest].age)
				oldest = i;
		take_out(h, oldest, 1);
	}
	at = find(h, hole.start);
	memmove(&h->hole[at + 1], &h->hole[at],
		(h->nr - at) * sizeof(*h->hole));
	h->hole[at] = hole;
	h->nr++;
	h->bytes += hole.end - hole.start;
}

/* With those that it overlaps or touches it becomes one. */
static void add(struct net_holes *h, u64 start, u64 end)
{
	u32 first = find(h, start ? start - 1 : 0), last = first;

	for (; last < h->nr && h->hole[last].start <= end; last++) {
		start = min_u64(start, h->hole[last].start);
		end = max_u64(end, h->hole[last].end);
	}
	take_out(h, first, last - first);
	put_in(h, (struct net_hole) { start, end, ++h->age });
}

void net_holes_forget(struct net_group *g, u64 offset, u64 bytes)
{
	struct net_holes *h = &g->holes;
	struct net_hole hole;
	u64 end;
	u32 i;

	h->nr_changes++;
	if (__builtin_add_overflow(offset, bytes, &end))
		end = UINT64_MAX;
	while ((i = find(h, offset)) < h->nr && h->hole[i].start < end) {
		hole = h->hole[i];
		take_out(h, i, 1);
		if (hole.start < offset)
			put_in(h, (struct net_hole) { hole.start, offset,
						      hole.age });
		if (hole.end > end)
			put_in(h,
			       (struct net_hole) { end, hole.end, hole.age });
	}
}

static bool is_known(const struct net_holes *h, u64 offset, u64 bytes)
{
	u32 i = find(h, offset);

	return i < h->nr && h->hole[i].start <= offset &&
	       h->hole[i].end - offset >= bytes;
}

bool net_holes_has(struct net_group *g, u64 offset, u64 bytes)
{
	bool has = is_known(&g->holes, offset, bytes);

	g->holes.nr_reads += has;
	return has;
}

/* ---- asking */

static struct net_conn *asker(struct net_group *g)
{
	return &g->conn[NET_ASKER];
}

/* Where one connection does not see what another wrote there is no second one. */
static bool may_ask(const struct net_group *g)
{
	const struct mmnf_net_opts *opts = &g->net->opts;

	return !opts->holes_off && !g->holes.is_off && !g->net->shut &&
	       !g->holes.nr_writes &&
	       (!opts->writable || (g->facts.multi_conn && g->nr_uris == 1));
}

/* No more by this connection; the next question makes another. */
static void hang_up(struct net_group *g)
{
	struct net_holes *h = &g->holes;
	struct net_conn *c = asker(g);

	h->is_wanted = h->is_asking = false;
	c->state = NET_DOWN;
	if (c->handle)
		net_conn_close(c->handle);
	c->handle = NULL;
}

static bool send_question(struct net_group *g)
{
	struct net_holes *h = &g->holes;
	u64 start = h->at, bytes;

	/* What lies before it is of use, too, where the server says so much. */
	if (!h->is_dense)
		start -= start % h->ask_bytes;
	start -= start % g->facts.min_block;
	bytes = min_u64(h->ask_bytes, g->facts.bytes - start);
	bytes -= bytes % g->facts.min_block;
	h->is_asking = true;
	h->is_refused = false;
	h->nr_found = 0;
	h->start = h->reached = start;
	h->end = start + bytes;
	h->asked_changes = h->nr_changes;
	h->asked_ns = mmnf_now_ns();
	return bytes && net_conn_ask(asker(g), start, bytes);
}

static void ask(struct net_group *g)
{
	struct net_conn *c = asker(g);

	if (c->state != NET_UP) {
		g->holes.is_wanted = true;
		net_keep_nudge(g->net);
	} else if (send_question(g)) {
		net_drive_events(c);
	} else {
		net_holes_lost(g);
	}
}

static u64 first_word(const char *p, u64 bytes)
{
	u64 word = 0;

	memcpy(&word, p, min_u64(bytes, sizeof(word)));
	return word;
}

void net_holes_look(struct net_group *g, u64 offset, const char *p, u64 bytes)
{
	struct net_holes *h = &g->holes;

	/* All that it costs those who have no zeros; a few bytes are often 0. */
	if (bytes < LOOK_BYTES_MIN || first_word(p, bytes))
		return;
	/* What is known was sent before the answer came. */
	if (h->is_wanted || h->is_asking || !may_ask(g) ||
	    is_known(h, offset, bytes))
		return;
	if (h->nr_skip) {
		h->nr_skip--;
		return;
	}
	/* Each byte is as the one before. */
	if (memcmp(p, p + 1, bytes - 1))
		return;
	if (!h->hole) {
		h->hole = calloc(HOLES_MAX, sizeof(*h->hole));
		h->found = calloc(FOUND_MAX, sizeof(*h->found));
		h->ask_bytes = ASK_BYTES_MIN;
		h->is_off = !h->hole || !h->found;
		if (h->is_off)
			return;
	}
	h->at = offset;
	ask(g);
}

bool net_holes_connected(struct net_group *g)
{
	struct net_holes *h = &g->holes;

	h->is_wanted = false;
	if (!net_conn_tells(asker(g))) {
		h->is_off = true;
		return false;
	}
	return true;
}

void net_holes_go_on(struct net_group *g)
{
	if (!may_ask(g) || g->holes.is_asking)
		return;
	ask(g);
}

void net_holes_failed(struct net_group *g)
{
	struct net_holes *h = &g->holes;

	h->is_wanted = h->is_asking = false;
	h->is_off |= ++h->nr_failures == FAILURES_MAX;
}

void net_holes_lost(struct net_group *g)
{
	struct net_conn *c = asker(g);

	hang_up(g);
	net_drive_unwatch(c);
	net_holes_failed(g);
	c->due_ns = mmnf_now_ns() + NET_BACKOFF_MAX_NS;
}

void net_holes_clock(struct net_group *g, s64 now)
{
	s64 limit = g->net->opts.request_timeout_ns;

	if (g->holes.is_asking && asker(g)->state == NET_UP &&
	    now - g->holes.asked_ns >= limit)
		net_holes_lost(g);
}

void net_holes_free(struct net_group *g)
{
	free(g->holes.hole);
	free(g->holes.found);
}

/* ---- the answer: nothing in it is believed that the question did not ask */

void net_holes_found(struct net_group *g, u64 offset, const u32 *entries,
		     u64 nr)
{
	struct net_holes *h = &g->holes;
	u64 i, at = offset, end;

	h->is_refused |= offset != h->start;
	for (i = 0; i + 1 < nr && at < h->end; i += 2, at = end) {
		/* It may be longer than what was asked for. */
		end = min_u64(at + entries[i], h->end);
		if (end == at) {
			h->is_refused = true;
			return;
		}
		h->reached = end;
		if (entries[i + 1] & NET_STATE_ZERO && h->nr_found < FOUND_MAX)
			h->found[h->nr_found++] =
				(struct net_hole) { at, end, 0 };
	}
}

void net_holes_answered(struct net_group *g, int err)
{
	struct net_holes *h = &g->holes;
	u32 nr = err || h->is_refused ? 0 : h->nr_found, i;
	bool is_useful = false, is_whole = false;

	h->is_asking = false;
	/* A connection that is lost ends its question, too, with an error. */
	if (!err)
		h->nr_failures = 0;
	if (h->nr_writes || h->nr_changes != h->asked_changes)
		return;
	for (i = 0; i < nr; i++) {
		const struct net_hole *f = &h->found[i];

		add(h, f->start, f->end);
		is_useful |= f->start <= h->at && f->end > h->at;
		is_whole |= f->start == h->start && f->end == h->end;
	}
	h->is_dense = !is_useful && h->reached <= h->at;
	h->ask_bytes = is_whole ? min_u64(4 * h->ask_bytes, ASK_BYTES_MAX) :
				  ASK_BYTES_MIN;
	h->next_skip = is_useful ? 0 :
				   (u32)min_u64(2 * h->next_skip + 1, SKIP_MAX);
	h->nr_skip = h->next_skip;
}
