// SPDX-License-Identifier: MIT
/*
 * mmnf bench: the results of `make bench` as a table or as pictures; --table is
 * bench-table.c's.
 *
 * Reads lines of JSON, each {"bench", "case", "engine", "metric", "value", "unit",
 * ..}.  Two kinds of lines are of interest: metrics whose name begins with
 * "ns_per_", and the bench "timeline", whose value is a position in the file and
 * which carry at_ns and end_ns, too.  A case may be named CASE@DEVICE.
 */
#include <errno.h>
#include <string.h>

#include "bench.h"
#include "tool.h"

#define RESULTS "build/bench/walk.jsonl"

/* Position of a name in a list, which it joins if it is new. */
static int place(struct names *names, const char *name, size_t len)
{
	unsigned int i;

	for (i = 0; i < names->nr; i++)
		if (strlen(names->name[i]) == len &&
		    !strncmp(names->name[i], name, len))
			return (int)i;
	if (names->nr == BENCH_NAMES)
		return -1;
	names->name[names->nr] = strndup(name, len);
	return names->name[names->nr] ? (int)names->nr++ : -1;
}

static const char *text_of(const json_t *line, const char *key)
{
	const char *text = json_string_value(json_object_get(line, key));

	return text ? text : "";
}

static bool take_event(struct bench *b, const json_t *line)
{
	struct bench_event *e;

	if (b->nr_events == b->room) {
		size_t room = b->room ? b->room * 2 : 1024;

		e = realloc(b->event, room * sizeof(*e));
		if (!e)
			return false;
		b->event = e;
		b->room = room;
	}
	e = &b->event[b->nr_events++];
	snprintf(e->what, sizeof(e->what), "%s", text_of(line, "metric"));
	snprintf(b->timeline, sizeof(b->timeline), "%s", text_of(line, "case"));
	snprintf(b->clock, sizeof(b->clock), "%s", text_of(line, "clock"));
	e->pos = json_number_value(json_object_get(line, "value"));
	e->at_ns = json_number_value(json_object_get(line, "at_ns"));
	e->end_ns = json_number_value(json_object_get(line, "end_ns"));
	return true;
}

static bool take_time(struct bench *b, const json_t *line)
{
	const char *name = text_of(line, "case"), *at = strchr(name, '@');
	size_t len = at ? (size_t)(at - name) : strlen(name);
	const char *device = at ? at + 1 : "";
	int d = place(&b->devices, device, strlen(device));
	int c = place(&b->cases, name, len);
	const char *engine = text_of(line, "engine");
	int e = place(&b->engines, engine, strlen(engine));

	if (d < 0 || c < 0 || e < 0)
		return false;
	b->ns[d][c][e] = json_number_value(json_object_get(line, "value"));
	snprintf(b->metric, sizeof(b->metric), "%s", text_of(line, "metric"));
	snprintf(b->clock, sizeof(b->clock), "%s", text_of(line, "clock"));
	return true;
}

static int read_lines(const struct options *o, const char *path,
		      struct bench *b)
{
	FILE *in = fopen(path, "r");
	unsigned int number = 0;
	char text[4096];
	int ret = 0;

	if (!in)
		return failure(o, "%s: %s", path, strerror(errno));
	while (!ret && fgets(text, sizeof(text), in)) {
		json_error_t error;
		json_t *line = json_loads(text, 0, &error);
		bool fits = true;

		number++;
		if (!json_is_object(line))
			ret = failure(o,
				      "%s: line %u: expected a JSON object: %s",
				      path, number, error.text);
		else if (!strcmp(text_of(line, "bench"), "timeline"))
			fits = take_event(b, line);
		else if (!strncmp(text_of(line, "metric"), "ns_per_", 7))
			fits = take_time(b, line);
		if (!fits)
			ret = failure(
				o,
				"%s: line %u: more than %d cases, engines "
				"or devices",
				path, number, BENCH_NAMES);
		json_decref(line);
	}
	if (!ret && ferror(in))
		ret = failure(o, "%s: %s", path, strerror(errno));
	fclose(in);
	if (!ret && !b->cases.nr && !b->nr_events)
		ret = failure(o, "%s: no results in it", path);
	return ret;
}

static void print_table(const struct bench *b)
{
	unsigned int d, c, e;

	for (d = 0; d < b->devices.nr; d++) {
		printf("%s%-24s", d ? "\n" : "", b->devices.name[d]);
		for (e = 0; e < b->engines.nr; e++)
			printf(" %15s", b->engines.name[e]);
		printf("\n");
		for (c = 0; c < b->cases.nr; c++) {
			bool any = false;

			for (e = 0; e < b->engines.nr; e++)
				any |= b->ns[d][c][e] > 0;
			if (!any)
				continue;
			printf("%-24s", b->cases.name[c]);
			for (e = 0; e < b->engines.nr; e++)
				if (b->ns[d][c][e] > 0)
					printf(" %15.1f", b->ns[d][c][e]);
				else
					printf(" %15s", "-");
			printf("\n");
		}
	}
	if (b->cases.nr)
		printf("\n%s, %s time\n", b->metric, b->clock);
	if (b->nr_events)
		printf("timeline of %s: %zu events; --plot draws it\n",
		       b->timeline, b->nr_events);
}

static void free_names(struct names *names)
{
	while (names->nr)
		free(names->name[--names->nr]);
}

int cmd_bench(const struct options *o)
{
	const char *path = o->nr_args ? o->args[0] : RESULTS;
	struct bench *b;
	int ret;

	if (o->table && o->plot)
		return usage_error(o,
				   "--table measures, --plot draws what was");
	if (o->table)
		return bench_table(o, o->nr_args ? o->args[0] : ".");
	b = calloc(1, sizeof(*b));
	if (!b)
		return failure(o, "%s", strerror(ENOMEM));
	if (o->out && !o->plot)
		ret = usage_error(o, "--out is for --plot");
	else
		ret = read_lines(o, path, b);
	if (!ret && o->plot)
		ret = bench_plot(o, path, b);
	else if (!ret)
		print_table(b);
	free_names(&b->devices);
	free_names(&b->cases);
	free_names(&b->engines);
	free(b->event);
	free(b);
	return ret;
}
