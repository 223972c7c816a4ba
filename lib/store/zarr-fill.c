// SPDX-License-Identifier: MIT
/*
 * fill_value by the Zarr v3 specification: integers as JSON integers; floats as
 * numbers, "NaN", "Infinity", "-Infinity", or "0x" and the bits in hexadecimal,
 * which is how a NaN with a payload is kept.
 *
 * jansson's integers end at 2^63 - 1.  A fill_value above, which uint64 has, is put
 * in quotes before jansson sees the text, and loses them after jansson wrote it.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "half.h"
#include "store/zarr-fill.h"

static void put(enum mmnf_dtype dtype, u64 bits, u8 *fill)
{
	memcpy(fill, &bits, mmnf_dtype_bytes(dtype));
}

static u64 float_bits(enum mmnf_dtype dtype, double v)
{
	u64 bits = 0;
	float f;

	switch (dtype) {
	case MMNF_F16:
		return mmnf_half_to_f16(v);
	case MMNF_BF16:
		return mmnf_half_to_bf16(v);
	case MMNF_F32:
		f = (float)v;
		memcpy(&bits, &f, 4);
		return bits;
	default:
		memcpy(&bits, &v, 8);
		return bits;
	}
}

static double float_value(enum mmnf_dtype dtype, u64 bits)
{
	double v;
	float f;

	switch (dtype) {
	case MMNF_F16:
		return mmnf_half_from_f16((uint16_t)bits);
	case MMNF_BF16:
		return mmnf_half_from_bf16((uint16_t)bits);
	case MMNF_F32:
		memcpy(&f, &bits, 4);
		return f;
	default:
		memcpy(&v, &bits, 8);
		return v;
	}
}

/* The quiet NaN of each type, which is what "NaN" stands for. */
static u64 nan_bits(enum mmnf_dtype dtype)
{
	switch (dtype) {
	case MMNF_F16:
		return 0x7e00;
	case MMNF_BF16:
		return 0x7fc0;
	case MMNF_F32:
		return 0x7fc00000;
	default:
		return 0x7ff8000000000000;
	}
}

static int parse_float(enum mmnf_dtype dtype, const json_t *v, u8 *fill)
{
	const char *s = json_string_value(v);
	u32 digits = mmnf_dtype_bytes(dtype) * 2;
	double value;
	u64 bits;

	if (json_is_number(v)) {
		value = json_number_value(v);
		bits = float_bits(dtype, value);
		if (isinf(float_value(dtype, bits)))
			return -EINVAL;
	} else if (!s) {
		return -EINVAL;
	} else if (!strcmp(s, "NaN")) {
		bits = nan_bits(dtype);
	} else if (!strcmp(s, "Infinity")) {
		bits = float_bits(dtype, INFINITY);
	} else if (!strcmp(s, "-Infinity")) {
		bits = float_bits(dtype, -INFINITY);
	} else {
		if (strncmp(s, "0x", 2) || strlen(s) != digits + 2 ||
		    strspn(s + 2, "0123456789abcdefABCDEF") != digits)
			return -EINVAL;
		bits = strtoull(s + 2, NULL, 16);
	}
	put(dtype, bits, fill);
	return 0;
}

/* Is it a number from 2^63 to 2^64 - 1, in quotes? */
static bool parse_large(const json_t *v, u64 *n)
{
	const char *s = json_string_value(v);

	if (!s || strspn(s, "0123456789") != strlen(s))
		return false;
	errno = 0;
	*n = strtoull(s, NULL, 10);
	return !errno && *n > (u64)S64_MAX;
}

int mmnf_zarr_fill_parse(enum mmnf_dtype dtype, const json_t *v, u8 *fill)
{
	u32 bits = mmnf_dtype_bytes(dtype) * 8;
	bool is_signed = dtype == MMNF_I8 || dtype == MMNF_I16 ||
			 dtype == MMNF_I32 || dtype == MMNF_I64;
	json_int_t n;
	u64 large;

	if (mmnf_dtype_is_float(dtype))
		return parse_float(dtype, v, fill);
	if (dtype == MMNF_U64 && parse_large(v, &large)) {
		put(dtype, large, fill);
		return 0;
	}
	if (!json_is_integer(v))
		return -EINVAL;
	n = json_integer_value(v);
	if (is_signed && bits < 64 &&
	    (n < -(1LL << (bits - 1)) || n >= 1LL << (bits - 1)))
		return -EINVAL;
	if (!is_signed && (n < 0 || (bits < 64 && n >= 1LL << bits)))
		return -EINVAL;
	put(dtype, (u64)n, fill);
	return 0;
}

json_t *mmnf_zarr_fill_print(enum mmnf_dtype dtype, const u8 *fill)
{
	u32 bytes = mmnf_dtype_bytes(dtype);
	char digits[24];
	u64 bits = 0;
	double v;

	memcpy(&bits, fill, bytes);
	switch (dtype) {
	case MMNF_I8:
		return json_integer((int8_t)bits);
	case MMNF_I16:
		return json_integer((int16_t)bits);
	case MMNF_I32:
		return json_integer((int32_t)bits);
	case MMNF_I64:
		return json_integer((int64_t)bits);
	case MMNF_U8:
	case MMNF_U16:
	case MMNF_U32:
		return json_integer((json_int_t)bits);
	case MMNF_U64:
		if (bits <= (u64)S64_MAX)
			return json_integer((json_int_t)bits);
		snprintf(digits, sizeof(digits), "%" PRIu64, bits);
		return json_string(digits);
	default:
		break;
	}
	v = float_value(dtype, bits);
	if (isfinite(v))
		return json_real(v);
	if (isinf(v))
		return json_string(v < 0 ? "-Infinity" : "Infinity");
	if (bits == nan_bits(dtype))
		return json_string("NaN");
	snprintf(digits, sizeof(digits), "0x%0*" PRIx64, (int)bytes * 2, bits);
	return json_string(digits);
}

#define KEY "\"fill_value\""

/* Goes back over white space; text[0 .. at) is left. */
static size_t back(const char *text, size_t at)
{
	while (at && text[at - 1] && strchr(" \t\r\n", text[at - 1]))
		at--;
	return at;
}

/* Where the digits that end at a place begin, if they are a fill_value; else 0. */
static size_t number_of_key(const char *text, size_t end)
{
	size_t start = end, at;

	while (start && text[start - 1] >= '0' && text[start - 1] <= '9')
		start--;
	at = back(text, start);
	if (start == end || !at || text[at - 1] != ':')
		return 0;
	at = back(text, at - 1);
	return at >= strlen(KEY) && !memcmp(text + at - strlen(KEY), KEY,
					    strlen(KEY)) ?
		       start :
		       0;
}

json_t *mmnf_zarr_fill_load(const char *text, size_t len, size_t flags,
			    json_error_t *where)
{
	json_t *root = json_loadb(text, len, flags, where);
	size_t start = 0, end = (size_t)where->position, nr;
	char *quoted;

	if (root || json_error_code(where) != json_error_numeric_overflow)
		return root;
	if (end <= len)
		start = number_of_key(text, end);
	quoted = start ? malloc(len + 2) : NULL;
	if (!quoted)
		return NULL;
	nr = end - start;
	memcpy(quoted, text, start);
	quoted[start] = '"';
	memcpy(quoted + start + 1, text + start, nr);
	quoted[end + 1] = '"';
	memcpy(quoted + end + 2, text + end, len - end);
	root = json_loadb(quoted, len + 2, flags, where);
	free(quoted);
	return root;
}

char *mmnf_zarr_fill_dump(const json_t *root)
{
	char *text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
	const json_t *fill = json_object_get(root, "fill_value");
	char quoted[64], *at;
	u64 n;
	int nr;

	if (!text || !parse_large(fill, &n))
		return text;
	nr = snprintf(quoted, sizeof(quoted), KEY ": \"%" PRIu64 "\"", n);
	at = strstr(text, quoted);
	if (!at)
		return text;
	at += strlen(KEY ": ");
	nr -= (int)strlen(KEY ": ");
	memmove(at, at + 1, (size_t)nr - 2);
	memmove(at + nr - 2, at + nr, strlen(at + nr) + 1);
	return text;
}
