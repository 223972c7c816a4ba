// SPDX-License-Identifier: MIT
/*
 * GGUF 2 and 3, little-endian: key-value pairs, tensor descriptions, tensors.
 *
 *	"GGUF" u32 version u64 nr_tensors u64 nr_kv
 *	nr_kv      x  string key, u32 type, value
 *	nr_tensors x  string name, u32 ndim, u64 dims[] (fastest first),
 *		      u32 type, u64 offset
 *	padding to general.alignment (32 if not said), then the tensors
 *
 * From ggml's gguf.md.  Tensors of plain elements are opened by name; those in
 * quantised blocks are refused.  Every step forward consumes bytes of the file,
 * so no count in it makes the parser run longer than the file is.
 */
#include <errno.h>
#include <inttypes.h>

#include "store/store.h"

#define NAME_MAX_BYTES 1024
#define ALIGNMENT_DEFAULT 32
#define NESTING_MAX 4

enum { KV_U32 = 4, KV_STRING = 8, KV_ARRAY = 9, NR_KV_TYPES = 13 };

/* Bytes of a value, by type; 0: of a length of its own. */
static const u8 kv_bytes[NR_KV_TYPES] = {
	1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8
};

static const struct {
	u32 code;
	enum mmnf_dtype dtype;
} types[] = {
	{ 0, MMNF_F32 },  { 1, MMNF_F16 },  { 24, MMNF_I8 },  { 25, MMNF_I16 },
	{ 26, MMNF_I32 }, { 27, MMNF_I64 }, { 28, MMNF_F64 }, { 30, MMNF_BF16 },
};

#define NR_TYPES (sizeof(types) / sizeof(types[0]))

struct reader {
	struct mmnf_source *src;
	u64 at;
	int err;
};

static bool is_gguf(const struct mmnf_source *src)
{
	return src->head_bytes >= 8 && !memcmp(src->head, "GGUF", 4);
}

/* The next bytes; NULL once anything was wrong. */
static const u8 *take(struct reader *r, size_t bytes)
{
	const u8 *p = r->err ? NULL : mmnf_source_look(r->src, r->at, bytes);

	if (!p)
		r->err = -EINVAL;
	else
		r->at += bytes;
	return p;
}

static u32 take_u32(struct reader *r)
{
	const u8 *p = take(r, 4);

	return p ? mmnf_load_u32(p) : 0;
}

static u64 take_u64(struct reader *r)
{
	const u8 *p = take(r, 8);

	return p ? mmnf_load_u64(p) : 0;
}

static void skip(struct reader *r, u64 nr, u64 bytes)
{
	u64 n;

	if (r->err)
		return;
	if (__builtin_mul_overflow(nr, bytes, &n) ||
	    n > r->src->file_bytes - r->at)
		r->err = mmnf_error(
			EINVAL,
			"gguf: byte %" PRIu64 ": %" PRIu64
			" values: expected fewer than the file holds",
			r->at, nr);
	else
		r->at += n;
}

static void take_name(struct reader *r, char *name, const char *what)
{
	u64 len = take_u64(r);
	const u8 *p;

	name[0] = 0;
	if (!r->err && len >= NAME_MAX_BYTES)
		r->err = mmnf_error(EINVAL,
				    "gguf: %s of %" PRIu64
				    " bytes: expected fewer than %d",
				    what, len, NAME_MAX_BYTES);
	p = take(r, r->err ? 0 : len);
	if (!p)
		return;
	memcpy(name, p, len);
	name[len] = 0;
}

static void skip_value(struct reader *r, u32 type, u32 nesting)
{
	u64 nr, i;

	if (type >= NR_KV_TYPES || nesting > NESTING_MAX) {
		r->err = mmnf_error(EINVAL,
				    "gguf: byte %" PRIu64
				    ": value type is %u: %s",
				    r->at, type,
				    nesting > NESTING_MAX ?
					    "expected fewer lists in lists" :
					    "expected 0 to 12");
	} else if (type == KV_STRING) {
		skip(r, take_u64(r), 1);
	} else if (type == KV_ARRAY) {
		type = take_u32(r);
		nr = take_u64(r);
		if (type < NR_KV_TYPES && kv_bytes[type]) {
			skip(r, nr, kv_bytes[type]);
			return;
		}
		for (i = 0; !r->err && i < nr; i++)
			skip_value(r, type, nesting + 1);
	} else {
		skip(r, 1, kv_bytes[type]);
	}
}

static void parse_pairs(struct reader *r, u64 nr, u64 *alignment)
{
	char key[NAME_MAX_BYTES];
	u64 i;

	*alignment = ALIGNMENT_DEFAULT;
	for (i = 0; !r->err && i < nr; i++) {
		u32 type;

		take_name(r, key, "a key");
		type = take_u32(r);
		if (r->err)
			return;
		if (strcmp(key, "general.alignment") || type != KV_U32) {
			skip_value(r, type, 0);
			continue;
		}
		*alignment = take_u32(r);
		if (!r->err && (!*alignment || (*alignment & (*alignment - 1))))
			r->err =
				mmnf_error(EINVAL,
					   "gguf: general.alignment is %" PRIu64
					   ": expected a power of two",
					   *alignment);
	}
}

struct tensor {
	char name[NAME_MAX_BYTES];
	u32 ndim, type;
	u64 dims[MMNF_NDIM_MAX], offset;
};

static void take_tensor(struct reader *r, struct tensor *t)
{
	u32 i;

	take_name(r, t->name, "a tensor's name");
	t->ndim = take_u32(r);
	if (!r->err && (t->ndim < 1 || t->ndim > MMNF_NDIM_MAX))
		r->err = mmnf_error(
			EINVAL, "gguf: '%.64s' has %u axes: expected 1 to 8",
			t->name, t->ndim);
	for (i = 0; !r->err && i < t->ndim; i++)
		t->dims[i] = take_u64(r);
	t->type = take_u32(r);
	t->offset = take_u64(r);
}

static int describe(struct mmnf_array *out, const struct tensor *t)
{
	u32 i;

	for (i = 0; i < NR_TYPES && types[i].code != t->type; i++)
		;
	if (i == NR_TYPES)
		return mmnf_error(
			EOPNOTSUPP,
			"gguf: '%.64s' is of type %u: expected plain elements (F32 0, F16 1, I8 24, I16 25, I32 26, I64 27, F64 28, BF16 30)",
			t->name, t->type);
	out->dtype = types[i].dtype;
	out->ndim = t->ndim;
	for (i = 0; i < t->ndim; i++)
		out->shape[i] = t->dims[t->ndim - 1 - i];
	return mmnf_array_finish(out, false);
}

/* Leaves the tensor that is asked for, or the only one, in *found. */
static int find_tensor(struct reader *r, u64 nr, struct tensor *found)
{
	const char *name = r->src->selector;
	char first[NAME_MAX_BYTES] = "";
	struct tensor t;
	bool any = false;
	u64 i;

	for (i = 0; !r->err && i < nr; i++) {
		take_tensor(r, &t);
		if (r->err)
			break;
		if (!i)
			memcpy(first, t.name, sizeof(first));
		if (name ? any || strcmp(name, t.name) : i)
			continue;
		*found = t;
		any = true;
	}
	if (r->err)
		return r->err;
	if (!name && nr != 1)
		return mmnf_error(
			EINVAL,
			"%s: holds %" PRIu64
			" tensors: expected one, or PATH#NAME, as #%.64s",
			r->src->path, nr, first);
	if (!any)
		return mmnf_error(
			ENOENT,
			"%s: no tensor '%.64s': expected one of %" PRIu64
			", as '%.64s'",
			r->src->path, name, nr, first);
	return 0;
}

static int parse_gguf(struct mmnf_array *out, struct mmnf_source *src)
{
	struct reader r = { src, 4, 0 };
	u64 nr_tensors, nr_pairs, alignment, data;
	u32 version = take_u32(&r);
	struct tensor t;
	int err;

	if (version && !(version & 0xffff))
		return mmnf_error(EOPNOTSUPP,
				  "gguf: big-endian: expected little-endian");
	if (version != 2 && version != 3)
		return mmnf_error(EOPNOTSUPP,
				  "gguf: version is %u: expected 2 or 3",
				  version);
	nr_tensors = take_u64(&r);
	nr_pairs = take_u64(&r);
	parse_pairs(&r, nr_pairs, &alignment);
	err = find_tensor(&r, nr_tensors, &t);
	if (!err)
		err = describe(out, &t);
	if (err)
		return err;
	data = round_up_u64(r.at, alignment);
	if (t.offset % alignment)
		return mmnf_error(EINVAL,
				  "gguf: '%.64s': offset is %" PRIu64
				  ": expected a multiple of %" PRIu64,
				  t.name, t.offset, alignment);
	if (__builtin_add_overflow(data, t.offset, &out->data_offset_bytes))
		return mmnf_error(EINVAL,
				  "gguf: '%.64s': offset is %" PRIu64
				  ": expected inside the file",
				  t.name, t.offset);
	return 0;
}

const struct mmnf_format mmnf_format_gguf = {
	.name = "gguf",
	.is = is_gguf,
	.parse = parse_gguf,
};
