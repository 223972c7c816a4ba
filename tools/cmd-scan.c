// SPDX-License-Identifier: MIT
/*
 * mmnf scan: walks every element of a box by pointers, in the order of axes that
 * is asked for, and tells what it cost and what was read ahead.
 *
 * A read error under the mapping ends the program by SIGBUS, as it would any
 * other that uses pointers.
 */
#include <math.h>
#include <string.h>
#include <time.h>

#include "tool.h"

/* Axes, slowest first; the field's own order if none is given. */
static bool parse_order(const char *text, unsigned int ndim,
			unsigned int *order)
{
	uint64_t axes[MMNF_NDIM_MAX];
	unsigned int i, seen = 0;

	for (i = 0; i < ndim; i++)
		order[i] = i;
	if (!text)
		return true;
	if (parse_list(text, axes, MMNF_NDIM_MAX) != (int)ndim)
		return false;
	for (i = 0; i < ndim; i++) {
		if (axes[i] >= ndim || seen & 1U << axes[i])
			return false;
		seen |= 1U << axes[i];
		order[i] = (unsigned int)axes[i];
	}
	return true;
}

/* Where there are no pointers, a copy. */
static const void *element(struct mmnf_field *field,
			   const struct mmnf_field_info *info,
			   const uint64_t *at, uint64_t *copy)
{
	struct mmnf_box one = { { 0 }, { 0 }, { 0 } };
	unsigned int i;

	if (info->engine != MMNF_ENGINE_NET)
		return mmnf_activate(field, at);
	for (i = 0; i < info->ndim; i++) {
		one.start[i] = at[i];
		one.count[i] = 1;
	}
	return mmnf_get(field, &one, copy, sizeof(*copy)) < 0 ? NULL : copy;
}

struct scan {
	uint64_t nr, checksum;
	double sum;
};

static bool scan_box(struct mmnf_field *field,
		     const struct mmnf_field_info *info,
		     const struct mmnf_box *box, const unsigned int *order,
		     struct scan *scan)
{
	uint64_t n[MMNF_NDIM_MAX] = { 0 }, at[MMNF_NDIM_MAX], bits, copy;
	uint64_t total = box_elements(box, info->ndim);
	const void *p;
	unsigned int axis;
	int level;

	memcpy(at, box->start, sizeof(at));
	for (scan->nr = 0; scan->nr < total; scan->nr++) {
		p = element(field, info, at, &copy);
		if (!p)
			return false;
		bits = 0;
		memcpy(&bits, p, info->element_bytes);
		scan->checksum += bits;
		scan->sum += element_value(info->dtype, &bits);
		for (level = (int)info->ndim - 1; level >= 0; level--) {
			axis = order[level];
			at[axis] += (uint64_t)box->step[axis];
			if (++n[axis] < box->count[axis])
				break;
			n[axis] = 0;
			at[axis] = box->start[axis];
		}
		if (!(scan->nr & 0xffff))
			progress((void *)"scan", scan->nr, total);
	}
	progress((void *)"scan", total, total);
	return true;
}

/* JSON has no NaN and no infinity: they are words, as in mmnf get. */
static json_t *number(double v)
{
	char text[32];

	snprintf(text, sizeof(text), "%g", v);
	return isfinite(v) ? json_real(v) : json_string(text);
}

int cmd_scan(const struct options *o)
{
	unsigned int order[MMNF_NDIM_MAX];
	struct timespec from, to;
	struct mmnf_field_info info;
	struct scan scan = { 0 };
	struct mmnf_field *field;
	struct mmnf_box box;
	double seconds;
	int ret;

	ret = open_box(o, &field, &info, &box);
	if (ret)
		return ret;
	if (!parse_order(o->order, info.ndim, order)) {
		ret = usage_error(
			o, "--order %s: expected each of the %u axes once",
			o->order, info.ndim);
		goto out;
	}
	clock_gettime(CLOCK_MONOTONIC, &from);
	if (!scan_box(field, &info, &box, order, &scan)) {
		ret = library_failure(o);
		goto out;
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	seconds = (double)(to.tv_sec - from.tv_sec) +
		  (double)(to.tv_nsec - from.tv_nsec) / 1e9;
	ret = print_result(
		o, json_pack("{ss sI so sI sf sf so}", "engine",
			     engine_name(info.engine), "elements",
			     (json_int_t)scan.nr, "sum", number(scan.sum),
			     "checksum", (json_int_t)scan.checksum, "seconds",
			     seconds, "ns_per_element",
			     scan.nr ? seconds * 1e9 / (double)scan.nr : 0.0,
			     "stats", stats_json(field)));
out:
	mmnf_field_close(field);
	return ret;
}
