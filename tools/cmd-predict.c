// SPDX-License-Identifier: MIT
/*
 * mmnf predict: an access trace through the predictor, without a disk.
 *
 * The model: what is planned is resident from the next access on, and stays.
 * Lines of a trace: THREAD IP OFFSET_BYTES; '#' starts a comment.
 */
#include <errno.h>
#include <string.h>

#include <core/predict.h>

#include "tool.h"

/* Pages that were planned or touched: an open-addressed set that grows. */
struct page_set {
	uint64_t *slot; /* page + 1; 0: free */
	uint64_t nr, room;
};

static uint64_t *set_find(const struct page_set *set, uint64_t page)
{
	uint64_t i = (page * 0x9E3779B97F4A7C15ULL) >> 20;

	while (set->slot[i % set->room] && set->slot[i % set->room] != page + 1)
		i++;
	return &set->slot[i % set->room];
}

static bool set_add(struct page_set *set, uint64_t page)
{
	struct page_set old = *set;
	uint64_t *slot, i;

	if (set->nr * 2 >= set->room) {
		set->room = old.room ? old.room * 2 : 4096;
		set->slot = calloc(set->room, sizeof(*set->slot));
		if (!set->slot) {
			*set = old;
			return false;
		}
		for (i = 0; i < old.room; i++)
			if (old.slot[i])
				*set_find(set, old.slot[i] - 1) = old.slot[i];
		free(old.slot);
	}
	slot = set_find(set, page);
	set->nr += !*slot;
	*slot = page + 1;
	return true;
}

static bool replay_plan(struct page_set *set, const struct mmnf_plan *plan,
			uint64_t grain, uint64_t *nr_pages)
{
	uint64_t n, page, pos;

	for (n = 0; n < mmnf_plan_nr(plan); n++) {
		pos = mmnf_plan_pos(plan, n);
		for (page = pos / grain; page <= (pos + plan->span - 1) / grain;
		     page++) {
			++*nr_pages;
			if (!set_add(set, page))
				return false;
		}
	}
	return true;
}

static int read_option(const struct options *o, const char *name,
		       const char *text, uint64_t *out)
{
	if (text && (!parse_u64(text, out) || !*out))
		return usage_error(o,
				   "--%s %s: expected a number of at least 1",
				   name, text);
	return 0;
}

static int replay(const struct options *o, FILE *from, struct mmnf_table *table,
		  uint64_t grain)
{
	uint64_t nr = 0, hits = 0, planned_pages = 0, pending = 0, line = 0;
	unsigned long long thread, ip, offset;
	struct page_set set = { 0 };
	struct mmnf_plan plan;
	char text[256];
	size_t i;
	int ret = 0;

	if (!set_add(&set, UINT64_MAX - 1))
		return failure(o, "out of memory");
	while (!ret && fgets(text, sizeof(text), from)) {
		struct mmnf_access access = { .outcome = MMNF_MISS };

		line++;
		text[strcspn(text, "#\n")] = 0;
		if (!text[strspn(text, " \t")])
			continue;
		if (sscanf(text, "%lli %lli %lli", (long long *)&thread,
			   (long long *)&ip, (long long *)&offset) != 3 ||
		    offset > INT64_MAX) {
			ret = failure(
				o,
				"%s: line %llu: expected THREAD IP OFFSET_BYTES",
				o->args[0], (unsigned long long)line);
			break;
		}
		nr++;
		if (*set_find(&set, offset / grain)) {
			access.outcome = MMNF_HIT;
			hits++;
		}
		access.thread = thread;
		access.ip = ip;
		access.pos = offset;
		if (!set_add(&set, offset / grain) ||
		    (mmnf_observe(table, &access, &plan) &&
		     !replay_plan(&set, &plan, grain, &planned_pages)))
			ret = failure(o, "out of memory");
	}
	free(set.slot);
	if (ret)
		return ret;
	for (i = 0; i < MMNF_NR_STREAMS; i++)
		pending += table->stream[i].ahead;
	return print_result(
		o, json_pack("{sI sI sI sI sI sI sI sf sf}", "accesses",
			     (json_int_t)nr, "hits", (json_int_t)hits,
			     "planned_pages", (json_int_t)planned_pages,
			     "planned", (json_int_t)table->nr_planned, "used",
			     (json_int_t)table->nr_used, "wasted",
			     (json_int_t)table->nr_wasted, "pending",
			     (json_int_t)pending, "coverage",
			     nr ? (double)hits / (double)nr : 0.0, "accuracy",
			     table->nr_planned ?
				     (double)table->nr_used /
					     (double)table->nr_planned :
				     0.0));
}

int cmd_predict(const struct options *o)
{
	uint64_t grain = 4096, span = 1, end = INT64_MAX, max_depth = 0;
	struct mmnf_table *table;
	FILE *from;
	int ret;

	ret = read_option(o, "grain", o->grain, &grain);
	ret = ret ? ret : read_option(o, "span", o->span, &span);
	ret = ret ? ret : read_option(o, "end", o->end, &end);
	ret = ret ? ret : read_option(o, "max-depth", o->max_depth, &max_depth);
	if (ret)
		return ret;
	if (grain & (grain - 1) || grain > 1ULL << 30 || span > 1ULL << 30 ||
	    end > INT64_MAX || max_depth > 4096)
		return usage_error(
			o, "--grain: a power of two to 1G; --span to 1G; "
			   "--end to 2^63 - 1; --max-depth to 4096");
	table = malloc(sizeof(*table));
	if (!table)
		return failure(o, "out of memory");
	mmnf_table_init(table, grain, 0, end, span);
	if (max_depth) {
		table->limits.max_depth = (uint32_t)max_depth;
		if (table->limits.min_depth > max_depth)
			table->limits.min_depth = (uint32_t)max_depth;
	}
	from = strcmp(o->args[0], "-") ? fopen(o->args[0], "r") : stdin;
	if (!from) {
		free(table);
		return failure(o, "%s: %s", o->args[0], strerror(errno));
	}
	ret = replay(o, from, table, grain);
	if (from != stdin)
		fclose(from);
	free(table);
	return ret;
}
