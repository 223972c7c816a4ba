// SPDX-License-Identifier: MIT
/*
 * mmnf prefetch, mmnf evict: a box into the page cache, and out of it.  Both
 * tell where the box is afterwards.
 */
#include "tool.h"

static int with_box(const struct options *o,
		    ssize_t (*act)(struct mmnf_field *field,
				   const struct mmnf_box *box))
{
	struct mmnf_residency r = { .size = sizeof(r) };
	struct mmnf_field_info info;
	struct mmnf_field *field;
	struct mmnf_box box;
	ssize_t bytes;
	int ret;

	ret = open_box(o, &field, &info, &box);
	if (ret)
		return ret;
	bytes = act(field, &box);
	if (bytes < 0 || mmnf_residency(field, &box, &r)) {
		ret = library_failure(o);
		goto out;
	}
	ret = print_result(o, json_pack("{sI sI sI sI}", "bytes",
					(json_int_t)bytes, "hot_bytes",
					(json_int_t)r.hot_bytes, "warm_bytes",
					(json_int_t)r.warm_bytes, "cold_bytes",
					(json_int_t)r.cold_bytes));
out:
	mmnf_field_close(field);
	return ret;
}

int cmd_prefetch(const struct options *o)
{
	return with_box(o, mmnf_prefetch);
}

int cmd_evict(const struct options *o)
{
	return with_box(o, mmnf_evict);
}
