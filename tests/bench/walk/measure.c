// SPDX-License-Identifier: MIT
/*
 * Medians, stalls and counters as JSON members.
 */
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "case.h"
#include "measure.h"

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

void measure_touches(const struct sample *s, size_t nr)
{
	uint64_t *took = malloc(nr * sizeof(*took));
	size_t i;

	if (!took)
		err(1, "times");
	for (i = 0; i < nr; i++)
		took[i] = s->at_ns[i] - (i ? s->at_ns[i - 1] : s->began_ns);
	qsort(took, nr, sizeof(*took), compare);
	printf(",\"median_ns\":%" PRIu64 ",\"worst_ns\":%" PRIu64, took[nr / 2],
	       took[nr - 1]);
	free(took);
}

void measure_stalls(const struct walk *w, const struct sample *s, size_t nr)
{
	uint64_t all = 0, at_carries = 0, at_first = 0, at_full = 0,
		 carries = 0;
	bool seen[MAX_LEVELS] = { false };
	size_t i;

	for (i = 0; i < nr; i++) {
		all += s->stall_ns[i];
		if (!w->carry[i])
			continue;
		at_carries += s->stall_ns[i];
		carries++;
		if (!seen[w->carry[i]])
			at_first += s->stall_ns[i];
		else if (s->full[i])
			at_full += s->stall_ns[i];
		seen[w->carry[i]] = true;
	}
	printf(",\"stall_ns\":%" PRIu64 ",\"carries\":%" PRIu64
	       ",\"carry_stall_ns\":%" PRIu64 ",\"first_stall_ns\":%" PRIu64
	       ",\"full_stall_ns\":%" PRIu64 ",\"carry_unserved_ns\":%" PRIu64,
	       all, carries, at_carries, at_first, at_full, s->unserved_ns);
}

void measure_counters(const struct mmnf_ioc_stats *end,
		      const struct mmnf_ioc_stats *warm, size_t nr_pages)
{
	printf(",\"faults\":%llu,\"hits\":%llu,\"late\":%llu,\"misses\":%llu"
	       ",\"prefetched\":%llu,\"used\":%llu,\"wasted\":%llu"
	       ",\"pending\":%llu,\"plans\":%llu,\"dropped_plans\":%llu",
	       end->out_faults, end->out_hits, end->out_late, end->out_misses,
	       end->out_prefetched_pages, end->out_used_pages,
	       end->out_wasted_pages, end->out_pending_pages, end->out_plans,
	       end->out_dropped_plans);
	if (warm->size && nr_pages)
		printf(",\"warm_pages\":%zu,\"warm_late\":%llu"
		       ",\"warm_misses\":%llu",
		       nr_pages, end->out_late - warm->out_late,
		       end->out_misses - warm->out_misses);
}
