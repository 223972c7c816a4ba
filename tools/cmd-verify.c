// SPDX-License-Identifier: MIT
/*
 * mmnf verify: everything a field has on disk, a line for each finding.
 * mmnf resize: more elements along axis 0.
 */
#include "tool.h"

static void print_finding(void *what, const char *text)
{
	(void)what;
	fprintf(stderr, "mmnf: verify: %s\n", text);
}

int cmd_verify(const struct options *o)
{
	MMNF_OPTS(mmnf_verify_result, result);
	MMNF_OPTS(mmnf_verify_opts, opts);
	struct mmnf_field_info info;
	struct mmnf_field *field;
	int ret;

	ret = open_field(o, o->repair, &field, &info);
	if (ret)
		return ret;
	opts.repair = o->repair;
	opts.found = print_finding;
	opts.progress = progress;
	opts.arg = (void *)"verify";
	ret = mmnf_field_verify(field, &opts, &result);
	mmnf_field_close(field);
	if (ret)
		return library_failure(o);
	ret = print_result(o, json_pack("{ss sI sI sI sI sI}", "field",
					o->args[0], "segments",
					(json_int_t)result.nr_segments, "tiles",
					(json_int_t)result.nr_tiles, "checked",
					(json_int_t)result.nr_checked, "bad",
					(json_int_t)result.nr_bad, "repaired",
					(json_int_t)result.nr_repaired));
	return !ret && result.nr_bad ? EXIT_FAILURE : ret;
}

int cmd_resize(const struct options *o)
{
	struct mmnf_field_info info;
	struct mmnf_field *field;
	uint64_t extent;
	int ret;

	if (!parse_u64(o->args[1], &extent))
		return usage_error(o, "%s: expected an extent", o->args[1]);
	ret = open_field(o, true, &field, &info);
	if (ret)
		return ret;
	ret = mmnf_field_resize(field, extent) ? library_failure(o) : 0;
	info.shape[0] = extent;
	mmnf_field_close(field);
	if (ret || !o->json)
		return ret;
	return print_result(o,
			    json_pack("{ss so}", "field", o->args[0], "shape",
				      json_numbers(info.shape, info.ndim)));
}
