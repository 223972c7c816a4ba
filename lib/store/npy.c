// SPDX-License-Identifier: MIT
/*
 * .npy, format versions 1 to 3: a magic number, a length, and a Python dict
 * literal that names descr, fortran_order and shape.
 *
 * The literal is read by a parser of just that grammar; anything else in it is
 * an error.  Never reads beyond the header it was given.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/store.h"

static bool is_npy(const struct mmnf_source *src)
{
	return src->head_bytes >= 10 && !memcmp(src->head, "\x93NUMPY", 6);
}

struct cursor {
	const char *at, *end;
};

static void skip_space(struct cursor *c)
{
	while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' ||
				  *c->at == '\t' || *c->at == '\r'))
		c->at++;
}

static bool take(struct cursor *c, char what)
{
	skip_space(c);
	if (c->at == c->end || *c->at != what)
		return false;
	c->at++;
	return true;
}

static bool take_string(struct cursor *c, char *out, size_t size)
{
	size_t n = 0;
	char quote;

	skip_space(c);
	if (c->at == c->end || (*c->at != '\'' && *c->at != '"'))
		return false;
	quote = *c->at++;
	while (c->at < c->end && *c->at != quote) {
		if (n + 1 == size || *c->at == '\\')
			return false;
		out[n++] = *c->at++;
	}
	out[n] = 0;
	return take(c, quote);
}

static bool take_word(struct cursor *c, const char *word)
{
	size_t n = strlen(word);

	skip_space(c);
	if ((size_t)(c->end - c->at) < n || memcmp(c->at, word, n))
		return false;
	c->at += n;
	return true;
}

static bool take_number(struct cursor *c, u64 *out)
{
	bool any = false;

	skip_space(c);
	*out = 0;
	while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
		if (__builtin_mul_overflow(*out, 10, out) ||
		    __builtin_add_overflow(*out, (u64)(*c->at - '0'), out) ||
		    *out > (u64)S64_MAX)
			return false;
		c->at++;
		any = true;
	}
	if (c->at < c->end && *c->at == 'L') /* as Python 2 wrote them */
		c->at++;
	return any;
}

static int parse_shape(struct mmnf_array *out, struct cursor *c)
{
	if (!take(c, '('))
		return mmnf_error(EINVAL, "npy: shape: expected a tuple");
	while (!take(c, ')')) {
		if (out->ndim == MMNF_NDIM_MAX)
			return mmnf_error(
				EOPNOTSUPP,
				"npy: shape: expected at most 8 axes");
		if (!take_number(c, &out->shape[out->ndim++]))
			return mmnf_error(
				EINVAL,
				"npy: shape[%u]: expected an integer from 1 to 2^63 - 1",
				out->ndim - 1);
		if (!take(c, ',')) {
			if (take(c, ')'))
				break;
			return mmnf_error(EINVAL,
					  "npy: shape: expected ',' or ')'");
		}
	}
	if (!out->ndim)
		return mmnf_error(
			EINVAL, "npy: shape is (): expected at least one axis");
	return 0;
}

static const struct {
	const char *code;
	enum mmnf_dtype dtype;
} codes[] = {
	{ "i1", MMNF_I8 },  { "u1", MMNF_U8 },	{ "i2", MMNF_I16 },
	{ "u2", MMNF_U16 }, { "i4", MMNF_I32 }, { "u4", MMNF_U32 },
	{ "i8", MMNF_I64 }, { "u8", MMNF_U64 }, { "f2", MMNF_F16 },
	{ "f4", MMNF_F32 }, { "f8", MMNF_F64 },
};

#define NR_CODES (sizeof(codes) / sizeof(codes[0]))

static int parse_descr(struct mmnf_array *out, struct cursor *c)
{
	char descr[16];
	u32 i;

	if (!take_string(c, descr, sizeof(descr)))
		return mmnf_error(
			EOPNOTSUPP,
			"npy: descr: expected a plain type, not a structure");
	for (i = 0; i < NR_CODES; i++) {
		u32 bytes = mmnf_dtype_bytes(codes[i].dtype);

		if (!descr[0] || strcmp(descr + 1, codes[i].code))
			continue;
		if (bytes > 1 && (*descr == '>' || *descr == '!'))
			return mmnf_error(
				EOPNOTSUPP,
				"npy: descr is '%s': expected little-endian",
				descr);
		if (!strchr(bytes > 1 ? "<=" : "|<>=", *descr))
			break;
		out->dtype = codes[i].dtype;
		return 0;
	}
	return mmnf_error(
		EOPNOTSUPP,
		"npy: descr is '%s': expected an integer or floating-point type of 1 to 8 bytes",
		descr);
}

static int parse_dict(struct mmnf_array *out, struct cursor *c, bool *fortran)
{
	bool descr = false, order = false, shape = false;
	char key[24];
	int err = 0;

	if (!take(c, '{'))
		return mmnf_error(EINVAL, "npy: header: expected a dict");
	while (!err && !take(c, '}')) {
		if (!take_string(c, key, sizeof(key)) || !take(c, ':'))
			return mmnf_error(EINVAL,
					  "npy: header: expected 'key': value");
		if (!strcmp(key, "descr") && !descr) {
			descr = true;
			err = parse_descr(out, c);
		} else if (!strcmp(key, "shape") && !shape) {
			shape = true;
			err = parse_shape(out, c);
		} else if (!strcmp(key, "fortran_order") && !order) {
			order = true;
			*fortran = take_word(c, "True");
			if (!*fortran && !take_word(c, "False"))
				err = mmnf_error(
					EINVAL,
					"npy: fortran_order: expected True or False");
		} else {
			err = mmnf_error(
				EINVAL,
				"npy: header: key '%s': expected descr, fortran_order and shape, once each",
				key);
		}
		if (!err && !take(c, ',')) {
			if (take(c, '}'))
				break;
			return mmnf_error(EINVAL,
					  "npy: header: expected ',' or '}'");
		}
	}
	if (!err && !(descr && order && shape))
		err = mmnf_error(
			EINVAL,
			"npy: header: expected descr, fortran_order and shape");
	return err;
}

static int parse_npy(struct mmnf_array *out, struct mmnf_source *src)
{
	const u8 *head = src->head;
	size_t len = src->head_bytes;
	u8 version = head[6];
	size_t start = version == 1 ? 10 : 12;
	bool fortran = false;
	struct cursor c;
	u64 bytes;
	int err;

	if (version < 1 || version > 3)
		return mmnf_error(EOPNOTSUPP,
				  "npy: version is %u: expected 1, 2 or 3",
				  version);
	if (len < start)
		return mmnf_error(EINVAL, "npy: header is cut short");
	bytes = (u64)head[8] | (u64)head[9] << 8;
	if (version > 1)
		bytes |= (u64)head[10] << 16 | (u64)head[11] << 24;
	if (bytes > len - start)
		return mmnf_error(
			EINVAL,
			"npy: header length is %llu: expected at most %zu",
			(unsigned long long)bytes, len - start);
	c.at = (const char *)head + start;
	c.end = c.at + bytes;
	err = parse_dict(out, &c, &fortran);
	if (err)
		return err;
	skip_space(&c);
	if (c.at != c.end)
		return mmnf_error(
			EINVAL,
			"npy: header: expected nothing behind the dict");
	out->data_offset_bytes = start + bytes;
	return mmnf_array_finish(out, fortran);
}

/* Version 1, padded with spaces so that the data starts at a multiple of 64. */
static int print_npy(const struct mmnf_array *a, u8 **head, size_t *bytes)
{
	char shape[MMNF_NDIM_MAX * 21 + 1] = "", dict[320];
	size_t len = 0, i, code, total;
	char *text;

	for (code = 0; code < NR_CODES && codes[code].dtype != a->dtype; code++)
		;
	if (code == NR_CODES)
		return mmnf_error(
			EOPNOTSUPP,
			".npy has no type %s: expected another format",
			mmnf_dtype_name(a->dtype));
	for (i = 0; i < a->ndim; i++)
		len += (size_t)snprintf(shape + len, sizeof(shape) - len,
					"%" PRIu64 ",", a->shape[i]);
	len = (size_t)snprintf(
		dict, sizeof(dict),
		"{'descr': '%c%s', 'fortran_order': False, 'shape': (%s), }",
		mmnf_dtype_bytes(a->dtype) > 1 ? '<' : '|', codes[code].code,
		shape);
	total = round_up_u64(10 + len + 1, 64);
	text = malloc(total);
	if (!text)
		return mmnf_error(ENOMEM, "no memory");
	memset(text, ' ', total);
	memcpy(text, "\x93NUMPY\x01\x00", 8);
	text[8] = (char)((total - 10) & 255);
	text[9] = (char)((total - 10) >> 8);
	memcpy(text + 10, dict, len);
	text[total - 1] = '\n';
	*head = (u8 *)text;
	*bytes = total;
	return 0;
}

const struct mmnf_format mmnf_format_npy = {
	.name = "npy",
	.suffix = { ".npy" },
	.is = is_npy,
	.parse = parse_npy,
	.print = print_npy,
};
