// SPDX-License-Identifier: MIT
/*
 * The two ends of the scale: nothing is foreseen, or everything.
 *
 * none: a miss reads its page, as with MADV_RANDOM (mm/filemap.c of Linux 6.1,
 * do_sync_mmap_readahead(): VM_RAND_READ).
 *
 * oracle: is told the trace beforehand and keeps a window of its pages ahead of the
 * consumer, in the trace's order.
 */
#include <stdlib.h>

#include "replay.h"

static void *none_create(const struct replay *r)
{
	(void)r;
	return malloc(1);
}

static void none_fault(void *state, struct replay *r, const struct touch *t)
{
	(void)state;
	(void)r;
	(void)t;
}

const struct predictor_ops predict_none = {
	.name = "none",
	.create = none_create,
	.destroy = free,
	.fault = none_fault,
};

/* Pages ahead: eight times what the device serves at a time, at least these, and
 * at most half of the memory.
 */
#define ORACLE_PAGES 1024

struct oracle {
	uint64_t next; /* access of the trace to be looked at next */
	uint64_t window;
};

static void *oracle_create(const struct replay *r)
{
	struct oracle *o = calloc(1, sizeof(*o));
	const struct model *model = replay_model(r);

	if (!o)
		return NULL;
	o->window = model->depth * 8;
	if (o->window < ORACLE_PAGES)
		o->window = ORACLE_PAGES;
	if (o->window > model->memory_pages / 2)
		o->window = model->memory_pages / 2;
	return o;
}

/* Fills the window when half of it is used, neighbours in one piece. */
static void oracle_run(void *state, struct replay *r, uint64_t now_ns)
{
	const struct trace *trace = replay_trace(r);
	uint64_t first = 0, nr = 0, page;
	struct oracle *o = state;

	if (o->next >= trace->nr || replay_pending(r) > o->window / 2)
		return;
	if (o->next < replay_accesses(r))
		o->next = replay_accesses(r);
	for (; o->next < trace->nr && replay_pending(r) + nr < o->window;
	     o->next++) {
		page = trace->access[o->next].pos / PAGE_BYTES;
		if ((nr && page - first < nr) || replay_present(r, page))
			continue;
		if (nr && (page == first + nr || page + 1 == first)) {
			first -= page < first;
			nr++;
			continue;
		}
		if (nr)
			replay_read(r, now_ns, first, nr, NO_PAGE);
		first = page;
		nr = 1;
	}
	if (nr)
		replay_read(r, now_ns, first, nr, NO_PAGE);
}

const struct predictor_ops predict_oracle = {
	.name = "oracle",
	.create = oracle_create,
	.destroy = free,
	.fault = none_fault,
	.run = oracle_run,
};
