// SPDX-License-Identifier: MIT
/*
 * The machine of the replay: threads, page cache, device.  See replay.h.
 *
 * Threads take turns by their virtual time, so whatever happens happens in order;
 * of two at the same time the one that came first in the trace goes first.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "replay.h"

const struct model model_default = {
	.latency_ns = 100000,
	.depth = 64,
	.page_ns = 1000,
	.request_pages = 256,
	.fault_ns = 500,
	.cpu_ns = 250,
	.wake_ns = 2000,
	.around_pages = 16,
	.memory_pages = 1 << 20,
	.readahead_pages = 32,
};

/* A page in the cache; next: of the same bucket, or free. */
struct page {
	uint64_t page, ready_ns;
	uint32_t next, newer, older;
	bool mapped, marker, ahead, touched;
};

#define NONE UINT32_MAX

struct thread {
	uint64_t id, time_ns;
	uint64_t next; /* index of its next access */
	bool ended;
};

struct replay {
	const struct predictor_ops *ops;
	const struct trace *trace;
	const struct model *model;
	struct replay_result *result;
	FILE *timeline;
	void *state;
	bool no_memory;

	uint64_t file_pages;
	uint64_t demand; /* page whose read is a demand */
	uint64_t pending;

	struct page *pages;
	uint32_t *bucket;
	uint32_t nr_pages, room, free, newest, oldest;

	uint64_t *slot; /* when each is free, a heap: the first is the least */
	uint64_t link_ns; /* when the link is free */
	uint64_t busy_ns; /* when who reads is free */
	uint64_t worker_ns; /* when the worker is */

	struct thread *threads;
	uint32_t nr_threads;
	uint64_t *follows; /* index of the same thread's next access */
};

/* ---- page cache */

static uint32_t *bucket_of(const struct replay *r, uint64_t page)
{
	return &r->bucket[(page * 0x9E3779B97F4A7C15ULL) >> 32 & (r->room - 1)];
}

static struct page *cache_find(const struct replay *r, uint64_t page)
{
	uint32_t i;

	for (i = *bucket_of(r, page); i != NONE; i = r->pages[i].next)
		if (r->pages[i].page == page)
			return &r->pages[i];
	return NULL;
}

static void lru_remove(struct replay *r, struct page *p)
{
	if (p->newer == NONE)
		r->newest = p->older;
	else
		r->pages[p->newer].older = p->older;
	if (p->older == NONE)
		r->oldest = p->newer;
	else
		r->pages[p->older].newer = p->newer;
}

static void lru_add(struct replay *r, struct page *p)
{
	uint32_t i = (uint32_t)(p - r->pages);

	p->newer = NONE;
	p->older = r->newest;
	if (r->newest == NONE)
		r->oldest = i;
	else
		r->pages[r->newest].newer = i;
	r->newest = i;
}

static void cache_drop(struct replay *r, struct page *p)
{
	uint32_t i = (uint32_t)(p - r->pages);
	uint32_t *at = bucket_of(r, p->page);

	while (*at != i)
		at = &r->pages[*at].next;
	*at = p->next;
	lru_remove(r, p);
	if (p->ahead && !p->touched) {
		r->result->wasted_pages++;
		r->pending--;
	}
	p->next = r->free;
	r->free = i;
	r->nr_pages--;
}

/* The least recently touched that is read goes. */
static void cache_shrink(struct replay *r, uint64_t now_ns)
{
	uint32_t i = r->oldest;

	while (i != NONE && r->pages[i].ready_ns > now_ns)
		i = r->pages[i].newer;
	if (i != NONE)
		cache_drop(r, &r->pages[i]);
}

static bool cache_grow(struct replay *r)
{
	uint32_t room = r->room ? r->room * 2 : 1 << 12, i;
	struct page *pages = realloc(r->pages, room * sizeof(*pages));
	uint32_t *bucket;

	if (pages)
		r->pages = pages;
	bucket = pages ? realloc(r->bucket, room * sizeof(*bucket)) : NULL;
	if (!bucket || room > 1U << 30) {
		r->bucket = bucket ? bucket : r->bucket;
		r->no_memory = true;
		return false;
	}
	r->bucket = bucket;
	/* Full: nothing is free, so every entry below is in use. */
	memset(bucket, 0xff, room * sizeof(*bucket));
	for (i = r->room; i < room; i++)
		pages[i].next = i + 1 < room ? i + 1 : NONE;
	r->free = r->room;
	i = r->room;
	r->room = room;
	while (i-- > 0) {
		uint32_t *at = bucket_of(r, pages[i].page);

		pages[i].next = *at;
		*at = i;
	}
	return true;
}

static struct page *cache_add(struct replay *r, uint64_t page, uint64_t now_ns)
{
	struct page *p;
	uint32_t *at;

	if (r->nr_pages >= r->model->memory_pages)
		cache_shrink(r, now_ns);
	if (r->free == NONE && !cache_grow(r))
		return NULL;
	p = &r->pages[r->free];
	r->free = p->next;
	memset(p, 0, sizeof(*p));
	p->page = page;
	at = bucket_of(r, page);
	p->next = *at;
	*at = (uint32_t)(p - r->pages);
	lru_add(r, p);
	r->nr_pages++;
	return p;
}

/* ---- device */

/* Takes the slot that is free first until @until_ns. */
static void slot_take(struct replay *r, uint64_t until_ns)
{
	uint64_t i = 0, child, depth = r->model->depth;

	for (; (child = 2 * i + 1) < depth; i = child) {
		if (child + 1 < depth && r->slot[child + 1] < r->slot[child])
			child++;
		if (r->slot[child] >= until_ns)
			break;
		r->slot[i] = r->slot[child];
	}
	r->slot[i] = until_ns;
}

/* Return: when the last of @nr pages is there. */
static uint64_t device_read(struct replay *r, uint64_t at_ns, uint64_t nr)
{
	uint64_t begun = r->slot[0] > at_ns ? r->slot[0] : at_ns;
	uint64_t done = begun + r->model->latency_ns;

	if (done < r->link_ns)
		done = r->link_ns;
	done += nr * r->model->page_ns;
	r->link_ns = done;
	slot_take(r, done);
	return done;
}

/* ---- what predictors call */

const struct trace *replay_trace(const struct replay *r)
{
	return r->trace;
}

const struct model *replay_model(const struct replay *r)
{
	return r->model;
}

uint64_t replay_accesses(const struct replay *r)
{
	return r->result->accesses;
}

uint64_t replay_pending(const struct replay *r)
{
	return r->pending;
}

uint64_t replay_pages(const struct replay *r)
{
	return r->file_pages;
}

bool replay_present(const struct replay *r, uint64_t page)
{
	return cache_find(r, page);
}

static void read_absent(struct replay *r, uint64_t at_ns, uint64_t first,
			uint64_t nr, uint64_t marker)
{
	uint64_t done;

	if (r->busy_ns < at_ns)
		r->busy_ns = at_ns;
	r->busy_ns += nr * r->model->cpu_ns;
	done = device_read(r, r->busy_ns, nr);
	if (r->timeline)
		fprintf(r->timeline,
			"%s %" PRIu64 " %s %" PRIu64 " %" PRIu64 " %" PRIu64
			"\n",
			r->ops->name, r->busy_ns,
			first == r->demand && nr == 1 ? "demand" : "read",
			first, nr, done);
	for (; nr; nr--, first++) {
		struct page *p = cache_add(r, first, at_ns);

		if (!p)
			return;
		p->ready_ns = done;
		p->marker = first == marker;
		p->ahead = first != r->demand;
		r->result->ahead_pages += p->ahead;
		r->pending += p->ahead;
	}
}

void replay_read(struct replay *r, uint64_t at_ns, uint64_t first, uint64_t nr,
		 uint64_t marker)
{
	uint64_t from = first, end;

	if (first >= r->file_pages)
		return;
	end = nr > r->file_pages - first ? r->file_pages : first + nr;
	for (; first < end; first++) {
		bool present = cache_find(r, first);

		if (!present && first - from < r->model->request_pages)
			continue;
		if (first > from)
			read_absent(r, at_ns, from, first - from, marker);
		from = first + present;
	}
	if (first > from)
		read_absent(r, at_ns, from, first - from, marker);
}

/* ---- consumer */

/* Who waits for a read maps the page when it is there. */
static bool is_mapped(const struct page *p, uint64_t now_ns)
{
	return p->mapped && p->ready_ns <= now_ns;
}

/* As the module's clip_to_record(): of the pages around those of the record. */
static void record_of(const struct replay *r, struct touch *t)
{
	const struct trace_geometry *g = &r->trace->geometry;
	uint64_t pos = t->page * PAGE_BYTES, around = r->model->around_pages;
	uint64_t first = t->page, last = first;

	if (g->record_bytes > 1 && pos >= g->start) {
		pos -= (pos - g->start) % g->record_bytes;
		first = pos / PAGE_BYTES;
		last = (pos + g->record_bytes - 1) / PAGE_BYTES;
	}
	if (first < (t->page & ~(around - 1)))
		first = t->page & ~(around - 1);
	if (last > (t->page | (around - 1)))
		last = t->page | (around - 1);
	t->first = first;
	t->nr = (last < r->file_pages ? last + 1 : r->file_pages) - first;
}

/* The kernel's map_pages: maps what is there around a page. */
static void map_around(struct replay *r, struct touch *t, uint64_t now_ns)
{
	uint64_t around = r->model->around_pages, found = 0, page;

	if (around == 1)
		return;
	if (r->ops->alone && r->ops->alone(r->state)) {
		record_of(r, t);
	} else {
		t->first = t->page & ~(around - 1);
		t->nr = around < r->file_pages - t->first ?
				around :
				r->file_pages - t->first;
	}
	for (page = t->first; page < t->first + t->nr; page++) {
		struct page *p = cache_find(r, page);

		if (!p || p->ready_ns > now_ns || p->marker ||
		    (r->ops->touched_alone && p->ahead && !p->touched &&
		     page != t->page))
			continue;
		p->mapped = true;
		found++;
	}
	if (r->ops->mapped)
		r->ops->mapped(r->state, t, found);
}

static void use(struct replay *r, struct page *p)
{
	if (!p->touched) {
		p->touched = true;
		r->result->needed_pages++;
		r->result->demand_pages += !p->ahead;
		r->result->used_pages += p->ahead;
		r->pending -= p->ahead;
	}
	lru_remove(r, p);
	lru_add(r, p);
}

static void tell_fault(const struct replay *r, const struct touch *t)
{
	static const char *const names[] = {
		[MMNF_HIT] = "hit", [MMNF_LATE] = "late", [MMNF_MISS] = "miss"
	};

	fprintf(r->timeline,
		"%s %" PRIu64 " %s %" PRIu64 " %" PRIu64 " 0x%" PRIx64 "\n",
		r->ops->name, t->now_ns, names[t->outcome], t->page,
		t->access->thread, t->access->ip);
}

/* Returns when the thread goes on. */
static uint64_t fault(struct replay *r, const struct trace_access *access,
		      uint64_t now_ns)
{
	struct touch t = { .access = access,
			   .page = access->pos / PAGE_BYTES,
			   .now_ns = now_ns + r->model->fault_ns,
			   .first = access->pos / PAGE_BYTES,
			   .nr = 1 };
	struct replay_result *result = r->result;
	struct page *p = cache_find(r, t.page);
	uint64_t ready_ns;

	result->faults++;
	now_ns = t.now_ns;
	map_around(r, &t, now_ns);
	t.around = p && is_mapped(p, now_ns);
	if (!p) {
		t.outcome = MMNF_MISS;
		result->misses++;
	} else if (p->ready_ns > now_ns) {
		t.outcome = MMNF_LATE;
		result->late++;
	} else {
		t.outcome = MMNF_HIT;
		result->hits++;
	}
	if (r->timeline)
		tell_fault(r, &t);
	if (p) {
		t.marker = p->marker;
		p->marker = false;
	}
	r->demand = p ? NO_PAGE : t.page;
	r->busy_ns = now_ns;
	r->ops->fault(r->state, r, &t);
	if (!cache_find(r, t.page))
		replay_read(r, now_ns, t.page, 1, NO_PAGE);
	r->demand = NO_PAGE;
	p = cache_find(r, t.page);
	if (!p)
		return now_ns; /* out of memory */
	p->mapped = true;
	ready_ns = p->ready_ns > r->busy_ns ? p->ready_ns : r->busy_ns;
	if (ready_ns <= now_ns)
		return now_ns;
	/* The kernel runs a fault that waited again, from the start. */
	result->stall_ns += ready_ns - now_ns;
	map_around(r, &t, ready_ns);
	if (r->ops->resumed)
		r->ops->resumed(r->state, &t, ready_ns);
	return ready_ns;
}

static void step(struct replay *r, struct thread *t)
{
	const struct trace_access *access = &r->trace->access[t->next];
	uint64_t now_ns = t->time_ns;
	struct page *p;

	if (r->ops->run) {
		r->busy_ns = r->worker_ns;
		r->ops->run(r->state, r, now_ns);
		r->worker_ns = r->busy_ns;
	}
	r->result->accesses++;
	p = cache_find(r, access->pos / PAGE_BYTES);
	if (!p || !is_mapped(p, now_ns)) {
		now_ns = fault(r, access, now_ns);
		p = cache_find(r, access->pos / PAGE_BYTES);
	}
	if (p)
		use(r, p);
	t->time_ns = now_ns;
	t->next = r->follows[t->next];
	if (now_ns > r->result->total_ns)
		r->result->total_ns = now_ns;
	if (t->next == UINT64_MAX)
		t->ended = true;
	else
		t->time_ns += r->trace->access[t->next].gap_ns;
}

/* Finds the threads, and links the accesses of each. */
static bool threads_init(struct replay *r)
{
	const struct trace *trace = r->trace;
	uint64_t i, *last = NULL;
	uint32_t n, room = 0;
	void *grown;

	r->follows = malloc(trace->nr * sizeof(*r->follows));
	for (i = 0; r->follows && i < trace->nr; i++) {
		r->follows[i] = UINT64_MAX;
		for (n = 0; n < r->nr_threads; n++)
			if (r->threads[n].id == trace->access[i].thread)
				break;
		if (n < r->nr_threads) {
			r->follows[last[n]] = i;
			last[n] = i;
			continue;
		}
		if (n == room) {
			room = room ? room * 2 : 16;
			grown = realloc(r->threads, room * sizeof(*r->threads));
			if (grown)
				r->threads = grown;
			grown = grown ? realloc(last, room * sizeof(*last)) :
					NULL;
			if (!grown) {
				free(last);
				return false;
			}
			last = grown;
		}
		r->threads[n] = (struct thread) {
			.id = trace->access[i].thread,
			.time_ns = trace->access[i].gap_ns,
			.next = i,
		};
		last[n] = i;
		r->nr_threads++;
	}
	free(last);
	return r->follows;
}

static struct thread *next_thread(struct replay *r)
{
	struct thread *next = NULL;
	uint32_t i;

	for (i = 0; i < r->nr_threads; i++) {
		struct thread *t = &r->threads[i];

		if (!t->ended && (!next || t->time_ns < next->time_ns))
			next = t;
	}
	return next;
}

bool replay_run(const struct predictor_ops *ops, const struct trace *trace,
		const struct model *model, FILE *timeline,
		struct replay_result *result)
{
	struct replay r = {
		.ops = ops,
		.trace = trace,
		.model = model,
		.result = result,
		.timeline = timeline,
		.file_pages = (trace->geometry.file_bytes + PAGE_BYTES - 1) /
			      PAGE_BYTES,
		.demand = NO_PAGE,
		.free = NONE,
		.newest = NONE,
		.oldest = NONE,
	};
	struct thread *t;
	bool good = false;

	memset(result, 0, sizeof(*result));
	r.slot = calloc(model->depth, sizeof(*r.slot));
	if (r.slot && cache_grow(&r) && threads_init(&r)) {
		r.state = ops->create(&r);
		good = r.state;
	}
	while (good && (t = next_thread(&r))) {
		step(&r, t);
		good = !r.no_memory;
	}
	result->wasted_pages += r.pending;
	if (r.state)
		ops->destroy(r.state);
	free(r.slot);
	free(r.pages);
	free(r.bucket);
	free(r.threads);
	free(r.follows);
	return good;
}
