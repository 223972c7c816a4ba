// SPDX-License-Identifier: MIT
/*
 * mmnf tiers: where bytes of a field may be, and why a tier is off.  The GPU tier
 * is turned on for the moment, with its defaults on device 0, so that it is told
 * as a program would get it.
 */
#include <string.h>

#include "tool.h"

static json_t *tier_json(const struct mmnf_tier *t)
{
	return json_pack("{sI ss sb sI sI ss}", "level", (json_int_t)t->level,
			 "name", t->name, "on", (int)t->is_on, "size_bytes",
			 (json_int_t)t->size_bytes, "used_bytes",
			 (json_int_t)t->used_bytes, "text", t->text);
}

static void print_tier(const struct mmnf_tier *t)
{
	char size[16] = "";

	if (t->size_bytes)
		human_bytes(t->size_bytes, size);
	printf("L%u %-4s %-4s %10s  %s\n", t->level, t->name,
	       t->is_on ? "on" : "off", size, t->text);
}

static json_t *server_json(const struct mmnf_net_stats *s)
{
	return json_pack(
		"{ss sb si si si sI sI sI sI sI sI sI sI sI sI sI sI ss}",
		"uri", s->uri, "up", s->connections_up > 0, "connections",
		(int)s->connections, "connections_up", (int)s->connections_up,
		"window", (int)s->window, "size_bytes",
		(json_int_t)s->size_bytes, "reads", (json_int_t)s->reads,
		"read_bytes", (json_int_t)s->read_bytes, "retries",
		(json_int_t)s->retries, "reconnects", (json_int_t)s->reconnects,
		"timeouts", (json_int_t)s->timeouts, "failed",
		(json_int_t)s->failed, "latency_p50_ns",
		(json_int_t)s->latency_p50_ns, "latency_p99_ns",
		(json_int_t)s->latency_p99_ns, "holes", (json_int_t)s->holes,
		"hole_bytes", (json_int_t)s->hole_bytes, "hole_reads",
		(json_int_t)s->hole_reads, "cause", s->cause);
}

static void print_server(unsigned int i, const struct mmnf_net_stats *s)
{
	char size[16];

	human_bytes(s->size_bytes, size);
	printf("   %-4u %-4s %10s  %s: %u of %u connections, window %u, p50 %.3f ms, p99 %.3f ms%s%s\n",
	       i, s->connections_up ? "up" : "down", size, s->uri,
	       s->connections_up, s->connections, s->window,
	       (double)s->latency_p50_ns / 1e6, (double)s->latency_p99_ns / 1e6,
	       s->cause[0] ? "; " : "", s->cause);
}

/* Elements here and there, so that there is a latency to tell. */
static void sample(struct mmnf_field *field, const struct mmnf_field_info *info)
{
	struct mmnf_box one = { { 0 }, { 0 }, { 0 } };
	unsigned int i, n;
	uint64_t element;

	for (i = 0; i < info->ndim; i++)
		one.count[i] = 1;
	for (n = 0; n < 64; n++) {
		for (i = 0; i < info->ndim; i++)
			one.start[i] =
				(uint64_t)((double)info->shape[i] * n / 64);
		if (mmnf_get(field, &one, &element, sizeof(element)) < 0)
			break;
	}
}

/* A line for each server; for --json a list, else NULL. */
static json_t *servers(const struct options *o, struct mmnf_field *field)
{
	struct mmnf_net_stats s = { .size = sizeof(s) };
	json_t *list = o->json ? json_array() : NULL;
	unsigned int i;

	for (i = 0; !mmnf_net_stats(field, i, &s); i++) {
		if (o->json)
			json_array_append_new(list, server_json(&s));
		else
			print_server(i, &s);
	}
	return list;
}

int cmd_tiers(const struct options *o)
{
	struct mmnf_tiers tiers = { .size = sizeof(tiers) };
	json_t *list = json_array(), *all;
	struct mmnf_field_info info;
	struct mmnf_field *field;
	char why[256] = "";
	uint32_t i;
	int ret;

	ret = open_field(o, false, &field, &info);
	if (ret) {
		json_decref(list);
		return ret;
	}
	if (info.engine == MMNF_ENGINE_NET)
		sample(field, &info);
	if (mmnf_gpu_enable(field, NULL))
		snprintf(why, sizeof(why), "%s", mmnf_last_error());
	if (mmnf_tiers_info(field, &tiers))
		ret = library_failure(o);
	/* A device that is there and could not be used. */
	if (why[0] && !ret && !strstr(tiers.tier[0].text, "no GPU"))
		snprintf(tiers.tier[0].text, sizeof(tiers.tier[0].text), "%.*s",
			 (int)sizeof(tiers.tier[0].text) - 1, why);
	for (i = 0; i < tiers.nr_tiers; i++) {
		json_array_append_new(list, tier_json(&tiers.tier[i]));
		if (!o->json)
			print_tier(&tiers.tier[i]);
	}
	all = servers(o, field);
	mmnf_field_close(field);
	if (!o->json || ret) {
		json_decref(list);
		json_decref(all);
		return ret;
	}
	return print_result(o, json_pack("{ss so so}", "field", o->args[0],
					 "tiers", list, "servers", all));
}
