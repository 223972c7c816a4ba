// SPDX-License-Identifier: MIT
/*
 * Numbers, lists and boxes from the command line.  Everything is checked against
 * the field before arithmetic.
 */
#include <errno.h>
#include <string.h>

#include "tool.h"

bool parse_u64(const char *text, uint64_t *out)
{
	static const char units[] = "KMGTP";
	const char *unit;
	unsigned long long v;
	char *end;
	int shift;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	v = strtoull(text, &end, number_base(text));
	if (errno)
		return false;
	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		shift = 10 * (int)(unit - units + 1);
		if (v > UINT64_MAX >> shift)
			return false;
		v <<= shift;
		end++;
	}
	*out = v;
	return !*end;
}

int parse_list(const char *text, uint64_t *out, unsigned int most)
{
	char item[32];
	unsigned int nr = 0;
	size_t len;

	for (;;) {
		len = strcspn(text, ",");
		if (nr == most || len >= sizeof(item))
			return -1;
		memcpy(item, text, len);
		item[len] = 0;
		if (!parse_u64(item, &out[nr++]))
			return -1;
		if (!text[len])
			return (int)nr;
		text += len + 1;
	}
}

/* A signed bound at *text; *given tells whether there was one. */
static bool parse_bound(const char **text, int64_t *out, bool *given)
{
	char *end;

	*given = false;
	if (**text == ':' || **text == ',' || !**text)
		return true;
	errno = 0;
	*out = strtoll(*text, &end, 10);
	if (errno || end == *text)
		return false;
	*text = end;
	*given = true;
	return true;
}

/* numpy's rule: from the end if negative, then clipped to the axis. */
static int64_t clip(int64_t v, int64_t extent, int64_t low, int64_t high)
{
	if (v < 0)
		v = v < -extent ? -1 : v + extent;
	return v < low ? low : v > high ? high : v;
}

static const char *parse_axis(const char **text, int64_t extent,
			      uint64_t *start, uint64_t *count, int64_t *step)
{
	int64_t from = 0, to = 0, by = 1;
	bool has_from, has_to = false, has_by = false;

	if (!parse_bound(text, &from, &has_from))
		return "expected an index or start:stop:step";
	if (**text != ':') {
		if (!has_from)
			return "expected an index or start:stop:step";
		if (from < -extent || from >= extent)
			return "index is outside of the field";
		*start = (uint64_t)(from < 0 ? from + extent : from);
		*count = 1;
		*step = 1;
		return NULL;
	}
	++*text;
	if (!parse_bound(text, &to, &has_to))
		return "expected a stop after ':'";
	if (**text == ':') {
		++*text;
		if (!parse_bound(text, &by, &has_by))
			return "expected a step after ':'";
	}
	if (has_by && !by)
		return "step is zero";
	if (by > 0) {
		from = has_from ? clip(from, extent, 0, extent) : 0;
		to = has_to ? clip(to, extent, 0, extent) : extent;
		*count = to > from ? ((uint64_t)(to - from) - 1) / by + 1 : 0;
	} else {
		from = has_from ? clip(from, extent, -1, extent - 1) :
				  extent - 1;
		to = has_to ? clip(to, extent, -1, extent - 1) : -1;
		*count = from > to ?
				 ((uint64_t)(from - to) - 1) / -(uint64_t)by +
					 1 :
				 0;
	}
	*start = *count ? (uint64_t)from : 0;
	*step = by;
	return NULL;
}

const char *parse_box(const char *text, const struct mmnf_field_info *info,
		      struct mmnf_box *box)
{
	const char *wrong;
	unsigned int i;

	memset(box, 0, sizeof(*box));
	for (i = 0; i < info->ndim; i++) {
		box->count[i] = info->shape[i];
		box->step[i] = 1;
	}
	for (i = 0; text && *text; i++) {
		if (i == info->ndim)
			return "more axes than the field has";
		wrong = parse_axis(&text, (int64_t)info->shape[i],
				   &box->start[i], &box->count[i],
				   &box->step[i]);
		if (wrong)
			return wrong;
		if (*text && *text != ',')
			return "expected ',' between axes";
		if (*text == ',' && !*++text)
			return "expected an axis after ','";
	}
	return NULL;
}

uint64_t box_elements(const struct mmnf_box *box, unsigned int ndim)
{
	uint64_t nr = 1;
	unsigned int i;

	for (i = 0; i < ndim; i++)
		if (__builtin_mul_overflow(nr, box->count[i], &nr))
			return UINT64_MAX;
	return nr;
}
