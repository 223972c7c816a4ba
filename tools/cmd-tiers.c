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

int cmd_tiers(const struct options *o)
{
	struct mmnf_tiers tiers = { .size = sizeof(tiers) };
	json_t *list = json_array();
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
	mmnf_field_close(field);
	if (!o->json || ret) {
		json_decref(list);
		return ret;
	}
	return print_result(o, json_pack("{ss so}", "field", o->args[0],
					 "tiers", list));
}
