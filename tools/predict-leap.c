// SPDX-License-Identifier: MIT
/*
 * Leap: the majority of the recent deltas.
 *
 * Source: Al Maruf and Chowdhury, "Effectively Prefetching Remote Memory with Leap",
 * USENIX ATC 2020, algorithms 1 (FindTrend) and 2 (GetPrefetchWindowSize,
 * DoPrefetch), with its values: 32 deltas of history, Nsplit 2, windows of at most
 * 8 pages.  Every touch of a page that is not mapped goes into the history, and
 * only a miss prefetches, as in the authors' kernel (mm/swap_state.c).  One history
 * per process, as in the paper.
 */
#include <stdlib.h>

#include "replay.h"

#define HISTORY 32
#define NSPLIT 2
#define MAX_WINDOW 8

struct leap {
	int64_t delta[HISTORY]; /* a ring */
	uint32_t head; /* of the newest */
	uint32_t nr;
	bool any; /* page is valid */
	uint64_t page; /* touched last */
	uint64_t hits; /* of prefetched pages since the last prefetch */
	uint64_t window; /* of the last prefetch */
};

static void *leap_create(const struct replay *r)
{
	(void)r;
	return calloc(1, sizeof(struct leap));
}

static int64_t delta_at(const struct leap *l, uint32_t age)
{
	return l->delta[(l->head + HISTORY - age) % HISTORY];
}

/* Boyer and Moore's majority vote over the newest @nr deltas, then a count. */
static bool majority(const struct leap *l, uint32_t nr, int64_t *out)
{
	uint32_t i, votes = 0, count = 0;
	int64_t candidate = 0;

	for (i = 0; i < nr; i++) {
		if (!votes)
			candidate = delta_at(l, i);
		votes += delta_at(l, i) == candidate ? 1 : -1;
	}
	for (i = 0; i < nr; i++)
		count += delta_at(l, i) == candidate;
	*out = candidate;
	return count >= nr / 2 + 1;
}

static bool find_trend(const struct leap *l, int64_t *trend)
{
	uint32_t w;

	for (w = HISTORY / NSPLIT; w <= HISTORY; w *= 2)
		if (w <= l->nr && majority(l, w, trend))
			return true;
	/* A history that is not full yet is looked at as a whole. */
	return l->nr && l->nr < HISTORY && majority(l, l->nr, trend);
}

static uint64_t window_size(struct leap *l, bool follows)
{
	uint64_t window = 1;

	if (!l->hits) {
		window = follows;
	} else {
		while (window < l->hits + 1)
			window *= 2;
		if (window > MAX_WINDOW)
			window = MAX_WINDOW;
	}
	if (window < l->window / 2)
		window = l->window / 2;
	l->hits = 0;
	l->window = window;
	return window;
}

static void prefetch(struct leap *l, struct replay *r, const struct touch *t)
{
	int64_t trend = 0, step;
	bool found = find_trend(l, &trend);
	uint64_t window, page = t->page, i;

	window = window_size(l, found && delta_at(l, 0) == trend);
	/* Without a trend the latest delta is speculated on. */
	step = found ? trend : l->nr ? delta_at(l, 0) : 0;
	for (i = 0; step && i < window; i++) {
		if (step < 0 && page < -(uint64_t)step)
			break;
		page += (uint64_t)step;
		replay_read(r, t->now_ns, page, 1, NO_PAGE);
	}
}

static void leap_fault(void *state, struct replay *r, const struct touch *t)
{
	struct leap *l = state;

	if (l->any) {
		l->head = (l->head + 1) % HISTORY;
		l->delta[l->head] = (int64_t)(t->page - l->page);
		l->nr += l->nr < HISTORY;
	}
	l->any = true;
	l->page = t->page;
	if (t->outcome != MMNF_MISS) {
		l->hits++;
		return;
	}
	replay_read(r, t->now_ns, t->page, 1, NO_PAGE);
	prefetch(l, r, t);
}

const struct predictor_ops predict_leap = {
	.name = "leap",
	.touched_alone = true,
	.create = leap_create,
	.destroy = free,
	.fault = leap_fault,
};
