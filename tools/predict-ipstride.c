// SPDX-License-Identifier: MIT
/*
 * A stride per instruction: the reference prediction table.
 *
 * Source: Chen and Baer, "Effective Hardware-Based Data Prefetching for
 * High-Performance Processors", IEEE Transactions on Computers 44(5), 1995: the
 * table and its four states.  A steady entry prefetches; four strides ahead rather
 * than one, as stride prefetchers do today (gem5's StridePrefetcher: degree 4),
 * because a page costs a read and not a line.
 *
 *	          right           right
 *	initial ---------> steady <--------- transient
 *	   |  ^-- wrong -----'                  ^  |
 *	   '---------- wrong: new stride -------|--'  wrong: new stride
 *	                                        |        |
 *	                                      right      v
 *	                                        '---- no prediction
 */
#include <stdlib.h>

#include "replay.h"

#define ENTRIES 64
#define DEGREE 4

enum state { FREE, INITIAL, TRANSIENT, STEADY, NO_PREDICTION };

struct entry {
	uint64_t ip, pos, seen;
	int64_t stride;
	enum state state;
};

struct ipstride {
	uint64_t clock;
	struct entry entry[ENTRIES];
};

static void *ipstride_create(const struct replay *r)
{
	(void)r;
	return calloc(1, sizeof(struct ipstride));
}

/* The entry of an instruction, or the one unused for longest, made free. */
static struct entry *entry_of(struct ipstride *s, uint64_t ip)
{
	struct entry *oldest = &s->entry[0];
	uint32_t i;

	for (i = 0; i < ENTRIES; i++) {
		struct entry *e = &s->entry[i];

		if (e->state != FREE && e->ip == ip)
			return e;
		if (e->seen < oldest->seen)
			oldest = e;
	}
	oldest->state = FREE;
	oldest->ip = ip;
	return oldest;
}

static enum state next_state(enum state state, bool right)
{
	switch (state) {
	case INITIAL:
		return right ? STEADY : TRANSIENT;
	case TRANSIENT:
		return right ? STEADY : NO_PREDICTION;
	case STEADY:
		return right ? STEADY : INITIAL;
	default:
		return right ? TRANSIENT : NO_PREDICTION;
	}
}

static void ipstride_fault(void *state, struct replay *r, const struct touch *t)
{
	struct ipstride *s = state;
	struct entry *e = entry_of(s, t->access->ip);
	uint64_t pos = t->access->pos;
	int64_t delta = (int64_t)(pos - e->pos);
	bool right = delta == e->stride;
	uint32_t i;

	e->seen = ++s->clock;
	if (e->state == FREE) {
		e->state = INITIAL;
		e->stride = 0;
		e->pos = pos;
		return;
	}
	/* A steady entry keeps its stride when it is wrong for once. */
	if (!right && e->state != STEADY)
		e->stride = delta;
	e->state = next_state(e->state, right);
	e->pos = pos;
	if (e->state != STEADY || !e->stride)
		return;
	if (t->outcome == MMNF_MISS)
		replay_read(r, t->now_ns, t->page, 1, NO_PAGE);
	for (i = 0; i < DEGREE; i++) {
		if (e->stride < 0 && pos < -(uint64_t)e->stride)
			break;
		pos += (uint64_t)e->stride;
		replay_read(r, t->now_ns, pos / PAGE_BYTES, 1, NO_PAGE);
	}
}

const struct predictor_ops predict_ipstride = {
	.name = "ipstride",
	.touched_alone = true,
	.create = ipstride_create,
	.destroy = free,
	.fault = ipstride_fault,
};
