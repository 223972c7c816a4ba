// SPDX-License-Identifier: MIT
/*
 * mmnf import: an array file into a field, made durable before it returns.
 */
#include "tool.h"

int cmd_import(const struct options *o)
{
	uint64_t at[MMNF_NDIM_MAX];
	struct mmnf_field_info info;
	struct mmnf_field *field;
	ssize_t bytes;
	int ret, nr;

	ret = open_field(o, true, &field, &info);
	if (ret)
		return ret;
	nr = o->at ? parse_list(o->at, at, MMNF_NDIM_MAX) : 0;
	if (o->at && nr != (int)info.ndim) {
		ret = usage_error(o, "--at %s: expected %u coordinates", o->at,
				  info.ndim);
		goto out;
	}
	bytes = mmnf_import(field, o->args[0], o->at ? at : NULL, progress,
			    (void *)"import");
	if (bytes < 0 || mmnf_field_sync(field)) {
		ret = library_failure(o);
		goto out;
	}
	ret = print_result(o, json_pack("{ss ss sI}", "source", o->args[0],
					"field", o->args[1], "bytes",
					(json_int_t)bytes));
out:
	mmnf_field_close(field);
	return ret;
}
