// SPDX-License-Identifier: MIT
/*
 * mmnf create: metadata of an empty field.
 */
#include <errno.h>
#include <string.h>

#include "tool.h"

/* The fill as the bytes of one element: little-endian, as the host is. */
static bool parse_fill(const char *text, int dtype, void *out)
{
	unsigned int bytes = mmnf_dtype_bytes(dtype);
	bool is_signed = dtype == MMNF_I8 || dtype == MMNF_I16 ||
			 dtype == MMNF_I32 || dtype == MMNF_I64;
	long long i;
	unsigned long long u;
	char *end;
	float f;
	double d;

	/* A negative number came with a blank in front. */
	text += strspn(text, " ");
	errno = 0;
	if (dtype == MMNF_F64) {
		d = strtod(text, &end);
		memcpy(out, &d, sizeof(d));
	} else if (dtype == MMNF_F32) {
		f = strtof(text, &end);
		memcpy(out, &f, sizeof(f));
	} else if (dtype == MMNF_F16 || dtype == MMNF_BF16) {
		/* Bits as 0x....; rounding to 16 bits is not done here. */
		u = strtoull(text, &end, 16);
		if (strncmp(text, "0x", 2) || u > 0xffff)
			return false;
		memcpy(out, &u, 2);
	} else if (is_signed) {
		i = strtoll(text, &end, number_base(text));
		if (bytes < 8 && (i < -(1LL << (bytes * 8 - 1)) ||
				  i >= 1LL << (bytes * 8 - 1)))
			return false;
		memcpy(out, &i, bytes);
	} else {
		if (*text == '-')
			return false;
		u = strtoull(text, &end, number_base(text));
		if (bytes < 8 && u >> (bytes * 8))
			return false;
		memcpy(out, &u, bytes);
	}
	return end != text && !*end && errno != ERANGE;
}

int layout_options(const struct options *o, unsigned int ndim,
		   struct mmnf_create_opts *opts, uint64_t *tile)
{
	if (o->segment_bytes &&
	    !parse_u64(o->segment_bytes, &opts->segment_bytes))
		return usage_error(o, "--segment-bytes %s: expected a number",
				   o->segment_bytes);
	opts->checksums = o->checksums;
	if (!o->tile)
		return 0;
	if (parse_list(o->tile, tile, MMNF_NDIM_MAX) != (int)ndim)
		return usage_error(o, "--tile %s: expected %u numbers", o->tile,
				   ndim);
	opts->tile = tile;
	return 0;
}

int cmd_create(const struct options *o)
{
	MMNF_OPTS(mmnf_create_opts, opts);
	uint64_t shape[MMNF_NDIM_MAX], tile[MMNF_NDIM_MAX], fill = 0;
	int ndim, dtype, ret;

	if (!o->shape || !o->dtype)
		return usage_error(o, "--shape and --dtype are needed");
	ndim = parse_list(o->shape, shape, MMNF_NDIM_MAX);
	if (ndim < 1)
		return usage_error(o,
				   "--shape %s: expected 1 to %d numbers "
				   "separated by commas",
				   o->shape, MMNF_NDIM_MAX);
	dtype = mmnf_dtype_parse(o->dtype);
	if (dtype < 0)
		return usage_error(o,
				   "--dtype %s: expected i8, u8 ... i64, u64, "
				   "f16, bf16, f32 or f64",
				   o->dtype);
	ret = layout_options(o, (unsigned int)ndim, &opts, tile);
	if (ret)
		return ret;
	if (o->fill) {
		if (!parse_fill(o->fill, dtype, &fill))
			return usage_error(
				o, "--fill %s: expected a %s%s", o->fill,
				o->dtype,
				dtype == MMNF_F16 || dtype == MMNF_BF16 ?
					" as its bits, 0x0000 to 0xffff" :
					"");
		opts.fill = &fill;
	}
	opts.net = o->net;
	opts.nr_net = o->nr_net;
	if (o->stripe && !o->nr_net)
		return usage_error(o, "--stripe: expected with --net");
	if (o->stripe && !parse_u64(o->stripe, &opts.stripe_bytes))
		return usage_error(o, "--stripe %s: expected a number",
				   o->stripe);
	if (mmnf_field_create(o->args[0], dtype, ndim, shape, &opts))
		return library_failure(o);
	if (!o->json)
		return EXIT_SUCCESS;
	return print_result(o, json_pack("{ss so}", "field", o->args[0],
					 "shape", json_numbers(shape, ndim)));
}
