// SPDX-License-Identifier: MIT
/*
 * What the workloads share: parameters, touches, chance.  See generate.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "generate.h"
#include "number.h"
#include "tool.h"

static const struct workload *const lists[] = { workloads_walk,
						workloads_lookup };

#define NR_LISTS (sizeof(lists) / sizeof(lists[0]))

void gen_wrong(struct gen *g, const char *format, ...)
{
	va_list ap;

	if (g->wrong[0])
		return;
	va_start(ap, format);
	vsnprintf(g->wrong, sizeof(g->wrong), format, ap);
	va_end(ap);
}

static const char *value_of(struct gen *g, const char *name)
{
	uint32_t i;

	for (i = 0; i < WORKLOAD_PARAMS && g->workload->param[i].name; i++)
		if (!strcmp(g->workload->param[i].name, name))
			return g->value[i];
	gen_wrong(g, "%s: no such parameter of %s", name, g->workload->name);
	return "0";
}

uint64_t gen_number(struct gen *g, const char *name)
{
	const char *text = value_of(g, name);
	uint64_t v = 0;

	if (!parse_u64(text, &v) || v > INT64_MAX)
		gen_wrong(g, "%s=%s: expected a number", name, text);
	return g->wrong[0] ? 0 : v;
}

double gen_real(struct gen *g, const char *name)
{
	const char *text = value_of(g, name);
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end || !(v >= 0 && v < 1e18))
		gen_wrong(g, "%s=%s: expected a number", name, text);
	return g->wrong[0] ? 0 : v;
}

uint32_t gen_list(struct gen *g, const char *name, int64_t *out)
{
	const char *all = value_of(g, name), *text = all;
	uint32_t nr = 0;
	char *end;

	for (; nr < TRACE_NDIM_MAX; text = end + 1) {
		errno = 0;
		out[nr++] = strtoll(text, &end, number_base(text));
		if (errno || end == text || (*end && *end != ','))
			break;
		if (!*end)
			return g->wrong[0] ? 0 : nr;
	}
	gen_wrong(g, "%s=%s: expected 1 to 8 numbers with commas", name, all);
	return 0;
}

void gen_geometry(struct gen *g, uint32_t ndim, const int64_t *extent,
		  uint64_t element_bytes, uint64_t record_bytes)
{
	struct trace_geometry *geometry = &g->trace->geometry;
	const char *wrong;
	uint32_t i;

	memset(geometry, 0, sizeof(*geometry));
	geometry->ndim = ndim;
	geometry->element_bytes = element_bytes;
	geometry->record_bytes = record_bytes;
	for (i = 0; i < ndim; i++)
		geometry->extent[i] = extent[i] > 0 ? (uint64_t)extent[i] : 0;
	wrong = trace_geometry_finish(geometry, 0);
	if (wrong)
		gen_wrong(g, "%s", wrong);
}

void gen_touch(struct gen *g, uint64_t pos, uint64_t bytes)
{
	struct trace *trace = g->trace;
	uint64_t end = pos + bytes;

	if (end < pos || end > trace->geometry.file_bytes)
		gen_wrong(g, "byte %" PRIu64 " is beyond the field", end);
	while (pos < end && !g->wrong[0]) {
		const struct trace_access *last =
			trace->nr ? &trace->access[trace->nr - 1] : NULL;

		g->carry_ns += g->gap_ns;
		/* More of the page just touched is not another access. */
		if (!last || last->thread != g->thread || last->ip != g->ip ||
		    last->pos / PAGE_BYTES != pos / PAGE_BYTES) {
			if (!trace_add(trace, g->thread, g->ip, pos,
				       g->carry_ns))
				gen_wrong(g,
					  "out of memory, or more than %llu "
					  "accesses",
					  TRACE_MAX);
			g->carry_ns = 0;
		}
		pos = (pos / PAGE_BYTES + 1) * PAGE_BYTES;
	}
}

void gen_nest(struct gen *g, uint64_t start, uint32_t nr_levels,
	      const int64_t *count, const int64_t *stride, uint64_t bytes)
{
	int64_t at[TRACE_NDIM_MAX] = { 0 };
	uint64_t pos = start;
	uint32_t i;

	for (i = 0; i < nr_levels; i++)
		if (count[i] < 1)
			gen_wrong(g, "count: expected at least 1");
	do {
		gen_touch(g, pos, bytes);
		for (i = nr_levels; i > 0; i--) {
			pos += (uint64_t)stride[i - 1];
			if (++at[i - 1] < count[i - 1])
				break;
			pos -= (uint64_t)(stride[i - 1] * count[i - 1]);
			at[i - 1] = 0;
		}
	} while (i && !g->wrong[0]);
}

uint64_t gen_random(struct gen *g)
{
	uint64_t z = g->random += 0x9E3779B97F4A7C15ULL;

	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ULL;
	z = (z ^ z >> 27) * 0x94D049BB133111EBULL;
	return z ^ z >> 31;
}

uint64_t gen_below(struct gen *g, uint64_t bound)
{
	if (!bound) {
		gen_wrong(g, "expected at least 1 to choose from");
		return 0;
	}
	return (uint64_t)((unsigned __int128)gen_random(g) * bound >> 64);
}

double gen_unit(struct gen *g)
{
	return (double)(gen_random(g) >> 11) / 9007199254740992.0;
}

static const struct workload *find(const char *name)
{
	const struct workload *w;
	size_t i;

	for (i = 0; i < NR_LISTS; i++)
		for (w = lists[i]; w->name; w++)
			if (!strcmp(w->name, name))
				return w;
	return NULL;
}

static void set_param(struct gen *g, char *text)
{
	char *value = strchr(text, '=');
	size_t len = value ? (size_t)(value - text) : 0;
	uint32_t i;

	if (!value) {
		gen_wrong(g, "%s: expected NAME=VALUE", text);
		return;
	}
	value++;
	if (len == 6 && !strncmp(text, "gap_ns", len)) {
		if (!parse_u64(value, &g->gap_ns) || g->gap_ns > 1ULL << 40)
			gen_wrong(g, "%s: expected nanoseconds", text);
		return;
	}
	if (len == 4 && !strncmp(text, "seed", len)) {
		if (!parse_u64(value, &g->random))
			gen_wrong(g, "%s: expected a number", text);
		return;
	}
	for (i = 0; i < WORKLOAD_PARAMS && g->workload->param[i].name; i++) {
		const char *name = g->workload->param[i].name;

		if (strlen(name) == len && !strncmp(name, text, len)) {
			g->value[i] = value;
			return;
		}
	}
	gen_wrong(g, "%s: no such parameter of %s", text, g->workload->name);
}

bool generate(struct trace *trace, const char *name, char **params, int nr,
	      char *wrong, size_t size)
{
	struct gen g = { .workload = find(name),
			 .trace = trace,
			 .thread = 1,
			 .ip = 0x1000,
			 .gap_ns = 1000 };
	uint32_t i;
	int n;

	memset(trace, 0, sizeof(*trace));
	if (!g.workload) {
		snprintf(wrong, size, "%s: no such workload; 'help' lists them",
			 name);
		return false;
	}
	for (i = 0; i < WORKLOAD_PARAMS; i++)
		g.value[i] = g.workload->param[i].value;
	for (n = 0; n < nr; n++)
		set_param(&g, params[n]);
	if (!g.wrong[0])
		g.workload->run(&g);
	if (!g.wrong[0] && !trace->nr)
		gen_wrong(&g, "these parameters touch nothing");
	snprintf(wrong, size, "%s", g.wrong);
	return !g.wrong[0];
}

void generate_help(FILE *to)
{
	const struct workload *w;
	size_t i, p;

	for (i = 0; i < NR_LISTS; i++) {
		for (w = lists[i]; w->name; w++) {
			fprintf(to, "%-11s %s\n", w->name, w->help);
			for (p = 0; p < WORKLOAD_PARAMS && w->param[p].name;
			     p++)
				fprintf(to, "  %s=%s%*s%s\n", w->param[p].name,
					w->param[p].value,
					(int)(32 - strlen(w->param[p].name) -
					      strlen(w->param[p].value)),
					" ", w->param[p].help);
		}
	}
	fputs("every workload\n"
	      "  gap_ns=1000                      "
	      "computing before each page\n"
	      "  seed=0                           of what is random\n",
	      to);
}
