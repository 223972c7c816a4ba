// SPDX-License-Identifier: MIT
/*
 * The table of engines, and a walk as the reads that the oracles are told.
 */
#include <err.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine.h"

/* Neighbouring pages up to the kernel's default readahead are one read. */
#define READ_PAGES 32

const struct engine engines[] = {
	{ .name = "default", .advice = MADV_NORMAL },
	{ .name = "madv_random", .advice = MADV_RANDOM },
	{ .name = "madv_sequential", .advice = MADV_SEQUENTIAL },
	{ .name = "off", .device = true, .off = true },
	{ .name = "willneed", .advice = MADV_RANDOM, .oracle = true },
	{ .name = "willneed-causal",
	  .advice = MADV_RANDOM,
	  .oracle = true,
	  .causal = true },
	{ .name = "uring", .uring = true },
	{ .name = "mmnf", .device = true },
	{ .name = "mmnf-told", .device = true, .oracle = true, .told = true },
	{ .name = "watched", .device = true, .watched = true },
	{ .name = "watched-willneed",
	  .advice = MADV_RANDOM,
	  .oracle = true,
	  .watched = true },
};

const size_t nr_engines = sizeof(engines) / sizeof(*engines);

/* Where each page of the data is among those of the part, + 1; 0: not yet. */
static uint32_t *new_slots(const struct walk *w)
{
	return calloc(data_bytes[w->c->data] / PAGE, sizeof(uint32_t));
}

/*
 * After which touch is each one known?  The first records of its group are by none but
 * their own first touch.
 */
static uint32_t *told_by(const struct walk *w, size_t begin, size_t end)
{
	uint64_t bytes = w->c->record_bytes ? w->c->record_bytes : 1;
	uint32_t *told = calloc(end - begin, sizeof(*told));
	struct group {
		uint64_t record;
		uint32_t nr,
			first; /* records so far, first touch of the last */
	} group[UINT8_MAX + 1] = { 0 };
	size_t i;

	if (!told)
		err(1, "reads");
	for (i = begin; i < end; i++) {
		struct group *g = &group[w->group[i]];
		uint64_t record = w->pos[i] / bytes;

		told[i - begin] = g->first;
		if (g->nr >= w->c->nr_telling || (g->nr && record == g->record))
			continue;
		g->nr++;
		g->record = record;
		g->first = (uint32_t)i;
		told[i - begin] = (uint32_t)i;
	}
	return told;
}

struct reads reads_of(const struct walk *w, size_t begin, size_t end,
		      bool causal)
{
	uint32_t *told = causal ? told_by(w, begin, end) : NULL;
	uint32_t *slot_of = new_slots(w), *read_of;
	struct reads r = { 0 };
	struct read *last = NULL;
	size_t i;

	r.read = calloc(end - begin, sizeof(*r.read));
	r.of_touch = calloc(end - begin, sizeof(*r.of_touch));
	read_of = calloc(end - begin, sizeof(*read_of));
	if (!slot_of || !r.read || !r.of_touch || !read_of)
		err(1, "reads");
	for (i = begin; i < end; i++) {
		uint64_t page = w->pos[i] / PAGE;

		if (!slot_of[page]) {
			if (!last || page != last->page + last->nr_pages ||
			    last->nr_pages == READ_PAGES ||
			    (told && last->told_by != told[i - begin])) {
				last = &r.read[r.nr++];
				last->page = page;
				last->slot = (uint32_t)r.nr_pages;
				last->told_by = told ? told[i - begin] : 0;
			}
			last->nr_pages++;
			read_of[r.nr_pages++] = (uint32_t)(r.nr - 1);
			slot_of[page] = (uint32_t)r.nr_pages;
		}
		r.of_touch[i - begin].slot = slot_of[page] - 1;
		r.of_touch[i - begin].read = read_of[slot_of[page] - 1];
	}
	free(told);
	free(read_of);
	free(slot_of);
	return r;
}
