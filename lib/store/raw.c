// SPDX-License-Identifier: MIT
/*
 * Files without a header: the selector says what is in them.
 *
 *	PATH#raw,dtype=f32,shape=22528x1024,offset=252027
 *
 * offset is of element (0, 0, ...), in bytes, 0 if not given; order=F is the
 * first axis fastest; strides=-4096x4, one signed number of bytes an axis,
 * takes the place of an order.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/store.h"

static bool is_raw(const struct mmnf_source *src)
{
	return src->selector && (!strncmp(src->selector, "raw,", 4) ||
				 !strcmp(src->selector, "raw"));
}

/* "4x5x6" to *nr numbers; false if it is anything else. */
static bool parse_numbers(const char *text, s64 *out, u32 *nr)
{
	char *end;

	for (*nr = 0; *nr < MMNF_NDIM_MAX;) {
		errno = 0;
		out[*nr] = strtoll(text, &end, 10);
		if (errno || end == text || (*end && *end != 'x'))
			return false;
		++*nr;
		if (!*end)
			return true;
		text = end + 1;
	}
	return false;
}

struct request {
	struct mmnf_array *out;
	bool fortran;
	u32 nr_strides;
};

static int parse_item(struct request *r, const char *key, const char *value)
{
	struct mmnf_array *a = r->out;
	s64 n[MMNF_NDIM_MAX];
	u32 nr = 0, i;
	int dtype;

	if (!strcmp(key, "dtype")) {
		dtype = mmnf_dtype_of(value);
		if (dtype < 0)
			return mmnf_error(
				EINVAL,
				"raw: dtype is '%.16s': expected i8 to u64, f16, bf16, f32 or f64",
				value);
		a->dtype = (enum mmnf_dtype)dtype;
		return 0;
	}
	if (!strcmp(key, "order") &&
	    (!strcmp(value, "C") || !strcmp(value, "F"))) {
		r->fortran = *value == 'F';
		return 0;
	}
	if (!parse_numbers(value, n, &nr))
		nr = 0;
	if (!strcmp(key, "offset") && nr == 1 && n[0] >= 0) {
		a->data_offset_bytes = (u64)n[0];
		return 0;
	}
	if (!strcmp(key, "strides") && nr) {
		memcpy(a->stride_bytes, n, nr * sizeof(*n));
		r->nr_strides = nr;
		return 0;
	}
	for (i = 0; i < nr && n[i] > 0; i++)
		a->shape[i] = (u64)n[i];
	if (!strcmp(key, "shape") && nr && i == nr) {
		a->ndim = nr;
		return 0;
	}
	return mmnf_error(
		EINVAL,
		"raw: '%.16s=%.40s': expected dtype=T, shape=NxN..., offset=N, order=C|F or strides=NxN...",
		key, value);
}

static int parse_raw(struct mmnf_array *out, struct mmnf_source *src)
{
	struct request r = { .out = out };
	char *text = strdup(src->selector), *item, *rest;
	s64 strides[MMNF_NDIM_MAX];
	int err = 0;

	if (!text)
		return mmnf_error(ENOMEM, "no memory");
	strtok_r(text, ",", &rest);
	while (!err && (item = strtok_r(NULL, ",", &rest))) {
		char *value = strchr(item, '=');

		if (value)
			*value++ = 0;
		err = parse_item(&r, item, value ? value : "");
	}
	free(text);
	if (err)
		return err;
	if (!out->dtype || !out->ndim)
		return mmnf_error(EINVAL,
				  "raw: expected #raw,dtype=T,shape=NxN...");
	memcpy(strides, out->stride_bytes, sizeof(strides));
	err = mmnf_array_finish(out, r.fortran);
	if (err || !r.nr_strides)
		return err;
	if (r.nr_strides != out->ndim)
		return mmnf_error(
			EINVAL,
			"raw: strides: %u of them: expected %u, as shape",
			r.nr_strides, out->ndim);
	memcpy(out->stride_bytes, strides, sizeof(strides));
	return 0;
}

static int print_raw(const struct mmnf_array *a, u8 **head, size_t *bytes)
{
	(void)a;
	*head = NULL;
	*bytes = 0;
	return 0;
}

const struct mmnf_format mmnf_format_raw = {
	.name = "raw",
	.suffix = { ".raw" },
	.is = is_raw,
	.parse = parse_raw,
	.print = print_raw,
};
