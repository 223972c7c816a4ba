// SPDX-License-Identifier: MIT
/*
 * mmnf predict: an access trace, or one made from a workload's parameters, through
 * the predictor and its peers, without a disk.
 */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "generate.h"
#include "replay.h"
#include "tool.h"

static const struct predictor_ops *const predictors[] = {
	&predict_none,	   &predict_mainline, &predict_lustre, &predict_leap,
	&predict_ipstride, &predict_mmnf,     &predict_oracle,
};

#define NR_PREDICTORS (sizeof(predictors) / sizeof(predictors[0]))

/* The numbers of a model, and what --model takes for each. */
static const struct {
	const char *name;
	size_t at;
	uint64_t least, most;
} model_values[] = {
#define VALUE(member, least, most)                                   \
	{                                                            \
#member, offsetof(struct model, member), least, most \
	}
	VALUE(latency_ns, 0, 1ULL << 40), VALUE(depth, 1, 1 << 16),
	VALUE(page_ns, 0, 1ULL << 40),	  VALUE(request_pages, 1, 1 << 20),
	VALUE(fault_ns, 0, 1ULL << 40),	  VALUE(cpu_ns, 0, 1ULL << 40),
	VALUE(wake_ns, 0, 1ULL << 40),	  VALUE(around_pages, 1, 512),
	VALUE(memory_pages, 64, 1 << 29), VALUE(readahead_pages, 0, 1 << 20),
#undef VALUE
};

#define NR_VALUES (sizeof(model_values) / sizeof(model_values[0]))

static uint64_t *model_value(const struct model *model, size_t i)
{
	return (uint64_t *)((char *)model + model_values[i].at);
}

/* A NAME=N of --model. */
static int set_model(const struct options *o, struct model *model,
		     const char *name, const char *text)
{
	uint64_t v;
	size_t i;

	for (i = 0; i < NR_VALUES; i++)
		if (!strcmp(model_values[i].name, name))
			break;
	if (i == NR_VALUES)
		return usage_error(o,
				   "--model %s: expected latency_ns, depth, "
				   "page_ns, request_pages, fault_ns, cpu_ns, "
				   "wake_ns, around_pages, memory_pages or "
				   "readahead_pages, =N",
				   name);
	if (!text || !parse_u64(text, &v) || v < model_values[i].least ||
	    v > model_values[i].most)
		return usage_error(o,
				   "--model %s: expected %s=N, N from %" PRIu64
				   " to %" PRIu64,
				   name, name, model_values[i].least,
				   model_values[i].most);
	*model_value(model, i) = v;
	if (model->around_pages & (model->around_pages - 1))
		return usage_error(o,
				   "--model around_pages=%s: expected a power "
				   "of two",
				   text);
	return 0;
}

static int read_model(const struct options *o, struct model *model)
{
	char *text, *item, *value, *save = NULL;
	int ret = 0;

	*model = model_default;
	text = strdup(o->model ? o->model : "");
	if (!text)
		return failure(o, "out of memory");
	for (item = strtok_r(text, ",", &save); item && !ret;
	     item = strtok_r(NULL, ",", &save)) {
		value = strchr(item, '=');
		if (value)
			*value++ = 0;
		ret = set_model(o, model, item, value);
	}
	free(text);
	return ret;
}

/* Which predictors --predictors names; all if it is not there. */
static int read_chosen(const struct options *o, bool *chosen)
{
	char *text, *item, *save = NULL;
	size_t i;
	int ret = 0;

	for (i = 0; i < NR_PREDICTORS; i++)
		chosen[i] = !o->predictors;
	text = strdup(o->predictors ? o->predictors : "");
	if (!text)
		return failure(o, "out of memory");
	for (item = strtok_r(text, ",", &save); item && !ret;
	     item = strtok_r(NULL, ",", &save)) {
		for (i = 0; i < NR_PREDICTORS; i++)
			if (!strcmp(predictors[i]->name, item))
				break;
		if (i < NR_PREDICTORS)
			chosen[i] = true;
		else
			ret = usage_error(o,
					  "--predictors %s: expected none, "
					  "mainline, lustre, leap, ipstride, "
					  "mmnf or oracle",
					  item);
	}
	free(text);
	return ret;
}

static int load(const struct options *o, struct trace *trace)
{
	char wrong[200];
	bool good;
	FILE *from;

	if (o->generate) {
		good = generate(trace, o->generate, o->args, o->nr_args, wrong,
				sizeof(wrong));
		return good ? 0 :
			      usage_error(o, "--generate %s: %s", o->generate,
					  wrong);
	}
	from = strcmp(o->args[0], "-") ? fopen(o->args[0], "r") : stdin;
	if (!from)
		return failure(o, "%s: %s", o->args[0], strerror(errno));
	good = trace_read(trace, from, wrong, sizeof(wrong));
	if (from != stdin)
		fclose(from);
	return good ? 0 : failure(o, "%s: %s", o->args[0], wrong);
}

static int save(const struct options *o, const struct trace *trace)
{
	FILE *to = strcmp(o->out, "-") ? fopen(o->out, "w") : stdout;
	bool bad = !to;

	if (to) {
		trace_write(trace, to);
		bad = ferror(to);
		if (to != stdout)
			bad |= fclose(to) != 0;
	}
	return bad ? failure(o, "%s: %s", o->out, strerror(errno)) : 0;
}

static double part(uint64_t of, uint64_t all)
{
	return all ? (double)of / (double)all : 0;
}

static json_t *result_json(const char *name, const struct replay_result *r)
{
	return json_pack("{ss sI sI sI sI sI sI sI sI sI sf sf sI sI}",
			 "predictor", name, "faults", (json_int_t)r->faults,
			 "hits", (json_int_t)r->hits, "late",
			 (json_int_t)r->late, "misses", (json_int_t)r->misses,
			 "needed_pages", (json_int_t)r->needed_pages,
			 "read_pages",
			 (json_int_t)(r->demand_pages + r->ahead_pages),
			 "ahead_pages", (json_int_t)r->ahead_pages,
			 "used_pages", (json_int_t)r->used_pages,
			 "wasted_pages", (json_int_t)r->wasted_pages,
			 "coverage", part(r->used_pages, r->needed_pages),
			 "accuracy", part(r->used_pages, r->ahead_pages),
			 "stall_ns", (json_int_t)r->stall_ns, "total_ns",
			 (json_int_t)r->total_ns);
}

static void print_row(const char *name, const struct replay_result *r)
{
	printf("%-9s %7.2f%% %7.2f%% %9" PRIu64 " %9" PRIu64 " %8" PRIu64
	       " %8" PRIu64 " %12.3f %12.3f\n",
	       name, 100 * part(r->used_pages, r->needed_pages),
	       100 * part(r->used_pages, r->ahead_pages),
	       r->demand_pages + r->ahead_pages, r->wasted_pages, r->late,
	       r->misses, (double)r->stall_ns / 1e6, (double)r->total_ns / 1e6);
}

static int run(const struct options *o, const struct trace *trace,
	       const struct model *model, const bool *chosen, FILE *timeline)
{
	json_t *rows = json_array(), *values, *result;
	struct replay_result r;
	size_t i;

	if (!o->json)
		printf("%" PRIu64 " accesses; latency %" PRIu64
		       " ns, depth %" PRIu64 ", %" PRIu64 " ns a page\n"
		       "predictor coverage accuracy      read    wasted     "
		       "late   misses     stall ms     total ms\n",
		       trace->nr, model->latency_ns, model->depth,
		       model->page_ns);
	for (i = 0; i < NR_PREDICTORS; i++) {
		if (!chosen[i])
			continue;
		if (!replay_run(predictors[i], trace, model, timeline, &r)) {
			json_decref(rows);
			return failure(o, "out of memory");
		}
		if (o->json)
			json_array_append_new(
				rows, result_json(predictors[i]->name, &r));
		else
			print_row(predictors[i]->name, &r);
	}
	if (!o->json) {
		json_decref(rows);
		return EXIT_SUCCESS;
	}
	values = json_object();
	for (i = 0; i < NR_VALUES; i++)
		json_object_set_new(
			values, model_values[i].name,
			json_integer((json_int_t)*model_value(model, i)));
	result = json_pack("{sI so so}", "accesses", (json_int_t)trace->nr,
			   "model", values, "results", rows);
	return print_result(o, result);
}

static int run_and_tell(const struct options *o, const struct trace *trace,
			const struct model *model, const bool *chosen)
{
	FILE *timeline = o->timeline ? fopen(o->timeline, "w") : NULL;
	bool bad = o->timeline && !timeline;
	int ret = 0;

	if (!bad)
		ret = run(o, trace, model, chosen, timeline);
	if (timeline) {
		bad = ferror(timeline);
		bad |= fclose(timeline) != 0;
	}
	return bad ? failure(o, "%s: %s", o->timeline, strerror(errno)) : ret;
}

int cmd_predict(const struct options *o)
{
	struct trace trace = { 0 };
	bool chosen[NR_PREDICTORS];
	struct model model;
	int ret;

	if (o->generate && !strcmp(o->generate, "help")) {
		generate_help(stdout);
		return EXIT_SUCCESS;
	}
	if (!o->generate && o->nr_args != 1)
		return usage_error(o, "expected one TRACE, or --generate");
	ret = read_model(o, &model);
	if (!ret)
		ret = read_chosen(o, chosen);
	if (!ret)
		ret = load(o, &trace);
	if (!ret)
		ret = o->out ? save(o, &trace) :
			       run_and_tell(o, &trace, &model, chosen);
	trace_free(&trace);
	return ret;
}
