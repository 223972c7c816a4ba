// SPDX-License-Identifier: MIT
/*
 * lib/core as the module uses it: the same source, around it what kmod/vm.c and
 * kmod/prefetch.c do.  A fault is observed, a plan goes into a bounded queue, and
 * one worker per field turns plans into reads, wake_ns after it was woken.
 */
#include <stdlib.h>

#include <core/pending.h>
#include <core/predict.h>

#include "replay.h"

/* As kmod/vm.c and kmod/internal.h have them. */
#define AROUND_PAGES 16
#define QUEUE_PLANS 32
#define IDLE_HITS 64
#define FORGET_HITS 1024

struct mmnf {
	struct mmnf_table table;
	struct mmnf_pending pending;
	bool alone;
	struct {
		struct mmnf_plan plan;
		uint64_t due_ns;
	} queue[QUEUE_PLANS];
	uint32_t head, nr_queued, nr_idle;
};

static void *mmnf_create(const struct replay *r)
{
	const struct trace_geometry *g = &replay_trace(r)->geometry;
	struct mmnf *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	mmnf_table_init(&m->table, PAGE_BYTES, g->start, g->end,
			g->record_bytes);
	mmnf_table_set_axes(&m->table, g->stride, g->extent, g->ndim);
	mmnf_table_set_file(&m->table, INT64_MAX);
	return m;
}

/* read_absent() of the module, for what is absent of a range. */
static void read_range(struct mmnf *m, struct replay *r, uint64_t at_ns,
		       uint64_t first, uint64_t end)
{
	uint64_t from = first;

	if (end > replay_pages(r))
		end = replay_pages(r);
	for (; first <= end; first++) {
		if (first < end && !replay_present(r, first))
			continue;
		if (first > from) {
			mmnf_pending_add(&m->pending, from, first - from);
			replay_read(r, at_ns, from, first - from, NO_PAGE);
		}
		from = first + 1;
	}
}

/* read_plan() of the module: neighbours in either direction are joined. */
static void read_plan(struct mmnf *m, struct replay *r, uint64_t at_ns,
		      const struct mmnf_plan *plan)
{
	uint64_t n, first = 0, end = 0, from, to, pos;

	for (n = 0; n < mmnf_plan_nr(plan); n++) {
		pos = mmnf_plan_pos(plan, n);
		from = pos / PAGE_BYTES;
		to = (pos + plan->span - 1) / PAGE_BYTES + 1;
		if (from <= end && to >= first && end) {
			first = from < first ? from : first;
			end = to > end ? to : end;
			continue;
		}
		if (end)
			read_range(m, r, at_ns, first, end);
		first = from;
		end = to;
	}
	if (end)
		read_range(m, r, at_ns, first, end);
}

static void mmnf_run(void *state, struct replay *r, uint64_t now_ns)
{
	struct mmnf *m = state;

	while (m->nr_queued && m->queue[m->head].due_ns <= now_ns) {
		read_plan(m, r, m->queue[m->head].due_ns,
			  &m->queue[m->head].plan);
		m->head = (m->head + 1) % QUEUE_PLANS;
		m->nr_queued--;
	}
}

/* Resident data is not looked at for long. */
static void note_idle(struct mmnf *m, bool idle)
{
	m->nr_idle = idle ? m->nr_idle + (m->nr_idle < FORGET_HITS) : 0;
	if (m->nr_idle == FORGET_HITS && m->pending.nr)
		mmnf_pending_forget(&m->pending);
}

static void mmnf_fault(void *state, struct replay *r, const struct touch *t)
{
	struct mmnf_access access = {
		.thread = t->access->thread,
		.ip = t->access->ip,
		.pos = t->access->pos,
		.now_ns = t->now_ns,
		.outcome = t->outcome,
	};
	struct mmnf *m = state;
	struct mmnf_plan plan;
	uint64_t taken;
	bool planned;
	uint32_t tail;

	if (t->around && m->nr_idle >= IDLE_HITS && !m->pending.nr)
		return;
	if (t->around) {
		access.before = (uint32_t)(t->page - t->first);
		access.after = (uint32_t)(t->first + t->nr - 1 - t->page);
	}
	taken = mmnf_pending_take(&m->pending, t->around ? t->first : t->page,
				  t->around ? t->nr : 1);
	access.fresh = taken && t->outcome == MMNF_HIT;
	planned = mmnf_observe(&m->table, &access, &plan);
	m->alone = mmnf_table_alone(&m->table, AROUND_PAGES);
	note_idle(m, t->outcome == MMNF_HIT && !taken && !planned);
	/* The thread's own read is on its way before the worker is awake. */
	if (t->outcome == MMNF_MISS)
		replay_read(r, t->now_ns, t->page, 1, NO_PAGE);
	if (!planned)
		return;
	if (m->nr_queued == QUEUE_PLANS) {
		mmnf_unplan(&m->table);
		return;
	}
	tail = (m->head + m->nr_queued++) % QUEUE_PLANS;
	m->queue[tail].plan = plan;
	m->queue[tail].due_ns = t->now_ns + replay_model(r)->wake_ns;
}

/* FAULT_FLAG_TRIED: the same access, only the pages around it are news. */
static void mmnf_resumed(void *state, const struct touch *t, uint64_t now_ns)
{
	struct mmnf *m = state;

	mmnf_pending_take(&m->pending, t->first, t->nr);
	mmnf_resume(&m->table, t->access->thread, now_ns,
		    (uint32_t)(t->page - t->first),
		    (uint32_t)(t->first + t->nr - 1 - t->page));
}

static bool mmnf_alone(void *state)
{
	return ((struct mmnf *)state)->alone;
}

const struct predictor_ops predict_mmnf = {
	.name = "mmnf",
	.create = mmnf_create,
	.destroy = free,
	.fault = mmnf_fault,
	.resumed = mmnf_resumed,
	.alone = mmnf_alone,
	.run = mmnf_run,
};
