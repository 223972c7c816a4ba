// SPDX-License-Identifier: MIT
/*
 * .safetensors: u64 N, N bytes of JSON, then the tensors, in C order, one behind
 * the other without a hole.
 *
 *	{"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
 *
 * The rules are those of the format's reference implementation (tensor.rs): at
 * most 100,000,000 bytes of header, names once, and the tensors' offsets, sorted,
 * tile the rest of the file exactly.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "store/store.h"

#define LENGTH_BYTES 8
#define JSON_MAX 100000000ULL

static const struct {
	const char *name;
	enum mmnf_dtype dtype;
} types[] = {
	{ "I8", MMNF_I8 },   { "U8", MMNF_U8 },	    { "I16", MMNF_I16 },
	{ "U16", MMNF_U16 }, { "I32", MMNF_I32 },   { "U32", MMNF_U32 },
	{ "I64", MMNF_I64 }, { "U64", MMNF_U64 },   { "F16", MMNF_F16 },
	{ "F32", MMNF_F32 }, { "BF16", MMNF_BF16 }, { "F64", MMNF_F64 },
};

#define NR_TYPES (sizeof(types) / sizeof(types[0]))

static bool is_safetensors(const struct mmnf_source *src)
{
	u64 n;

	if (mmnf_source_named(src, ".safetensors"))
		return true;
	if (src->head_bytes < LENGTH_BYTES + 2)
		return false;
	n = mmnf_load_u64(src->head);
	return src->head[LENGTH_BYTES] == '{' && n >= 2 &&
	       n <= src->file_bytes - LENGTH_BYTES;
}

struct piece {
	u64 start, end;
};

static int by_start(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end;
}

static int parse_offsets(const char *name, const json_t *tensor,
			 struct piece *out)
{
	const json_t *v = json_object_get(tensor, "data_offsets");
	const json_t *start = json_array_get(v, 0), *end = json_array_get(v, 1);

	if (json_array_size(v) != 2 || !json_is_integer(start) ||
	    !json_is_integer(end) || json_integer_value(start) < 0 ||
	    json_integer_value(end) < json_integer_value(start))
		return mmnf_error(
			EINVAL,
			"safetensors: '%.64s': data_offsets: expected [start, end]",
			name);
	out->start = (u64)json_integer_value(start);
	out->end = (u64)json_integer_value(end);
	return 0;
}

/* No holes, no overlap: each byte behind the header is one tensor's. */
static int check_pieces(struct piece *pieces, size_t nr, u64 bytes)
{
	u64 at = 0;
	size_t i;

	qsort(pieces, nr, sizeof(*pieces), by_start);
	for (i = 0; i < nr; i++) {
		if (pieces[i].start != at)
			return mmnf_error(
				EINVAL,
				"safetensors: a tensor starts at %" PRIu64
				": expected %" PRIu64
				", the end of the one before",
				pieces[i].start, at);
		at = pieces[i].end;
	}
	if (at != bytes)
		return mmnf_error(EINVAL,
				  "safetensors: tensors end at %" PRIu64
				  ": expected %" PRIu64 ", the end of the file",
				  at, bytes);
	return 0;
}

static int check_all(json_t *root, u64 bytes)
{
	struct piece *pieces =
		calloc(json_object_size(root) + 1, sizeof(*pieces));
	const char *name;
	size_t nr = 0;
	int err = 0;
	json_t *v;

	if (!pieces)
		return mmnf_error(ENOMEM, "safetensors: no memory");
	json_object_foreach(root, name, v)
	{
		if (!strcmp(name, "__metadata__"))
			continue;
		err = parse_offsets(name, v, &pieces[nr++]);
		if (err)
			break;
	}
	if (!err)
		err = check_pieces(pieces, nr, bytes);
	free(pieces);
	return err;
}

static int parse_shape(struct mmnf_array *out, const char *name,
		       const json_t *v)
{
	size_t i;

	if (!json_is_array(v))
		return mmnf_error(
			EINVAL, "safetensors: '%.64s': shape: expected a list",
			name);
	if (!json_array_size(v) || json_array_size(v) > MMNF_NDIM_MAX)
		return mmnf_error(
			EOPNOTSUPP,
			"safetensors: '%.64s' has %zu axes: expected 1 to 8",
			name, json_array_size(v));
	for (i = 0; i < json_array_size(v); i++) {
		const json_t *n = json_array_get(v, i);

		if (!json_is_integer(n) || json_integer_value(n) < 1)
			return mmnf_error(
				EINVAL,
				"safetensors: '%.64s': shape[%zu]: expected an integer from 1 to 2^63 - 1",
				name, i);
		out->shape[i] = (u64)json_integer_value(n);
	}
	out->ndim = (u32)json_array_size(v);
	return 0;
}

static int parse_tensor(struct mmnf_array *out, const char *name,
			const json_t *v, u64 data)
{
	const char *type = json_string_value(json_object_get(v, "dtype"));
	struct piece piece;
	u64 bytes;
	size_t i;
	int err;

	for (i = 0; type && i < NR_TYPES && strcmp(types[i].name, type); i++)
		;
	if (!type || i == NR_TYPES)
		return mmnf_error(
			type ? EOPNOTSUPP : EINVAL,
			"safetensors: '%.64s' is %.16s: expected I8 to U64, F16, BF16, F32 or F64",
			name, type ? type : "without dtype");
	out->dtype = types[i].dtype;
	err = parse_shape(out, name, json_object_get(v, "shape"));
	if (!err)
		err = mmnf_array_finish(out, false);
	if (!err)
		err = parse_offsets(name, v, &piece);
	if (err)
		return err;
	bytes = out->shape[0] * (u64)out->stride_bytes[0];
	if (piece.end - piece.start != bytes)
		return mmnf_error(EINVAL,
				  "safetensors: '%.64s' has %" PRIu64
				  " bytes: expected %" PRIu64 " for its shape",
				  name, piece.end - piece.start, bytes);
	out->data_offset_bytes = data + piece.start;
	return 0;
}

/* The one that is asked for, or the only one. */
static int choose(struct mmnf_array *out, struct mmnf_source *src, json_t *root,
		  u64 data)
{
	const char *name = src->selector, *first = NULL, *key;
	size_t nr = 0;
	json_t *v;

	json_object_foreach(root, key, v)
	{
		if (!strcmp(key, "__metadata__"))
			continue;
		first = first ? first : key;
		nr++;
	}
	if (!name && nr != 1)
		return mmnf_error(
			EINVAL,
			"%s: holds %zu tensors: expected one, or PATH#NAME, as #%.64s",
			src->path, nr, first ? first : "");
	name = name ? name : first;
	v = json_object_get(root, name);
	if (!v || !strcmp(name, "__metadata__"))
		return mmnf_error(
			ENOENT,
			"%s: no tensor '%.64s': expected one of %zu, as '%.64s'",
			src->path, name, nr, first ? first : "");
	return parse_tensor(out, name, v, data);
}

static int parse_json(struct mmnf_array *out, struct mmnf_source *src,
		      const char *text, u64 len)
{
	json_error_t where;
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
	u64 data = LENGTH_BYTES + len;
	int err;

	if (!root)
		return mmnf_error(
			EINVAL,
			"safetensors: byte %d: %s: expected a JSON object",
			where.position, where.text);
	err = json_is_object(root) ?
		      check_all(root, src->file_bytes - data) :
		      mmnf_error(EINVAL,
				 "safetensors: header: expected an object");
	if (!err)
		err = choose(out, src, root, data);
	json_decref(root);
	return err;
}

static int parse_safetensors(struct mmnf_array *out, struct mmnf_source *src)
{
	const u8 *head = mmnf_source_look(src, 0, LENGTH_BYTES);
	u64 len, done;
	char *text;
	int err = 0;

	if (!head)
		return -EINVAL;
	len = mmnf_load_u64(head);
	if (len > JSON_MAX || len > src->file_bytes - LENGTH_BYTES)
		return mmnf_error(
			EINVAL,
			"safetensors: header length is %" PRIu64
			": expected at most %llu, and that it is there",
			len, JSON_MAX);
	if (len <= src->head_bytes - LENGTH_BYTES)
		return parse_json(out, src,
				  (const char *)src->head + LENGTH_BYTES, len);
	/* Its end first: memory only for what is there. */
	if (!mmnf_source_look(src, LENGTH_BYTES + len - 1, 1))
		return -EINVAL;
	text = malloc(len);
	if (!text)
		return mmnf_error(ENOMEM, "safetensors: no memory");
	for (done = 0; !err && done < len;) {
		u64 n = min_u64(len - done, MMNF_LOOK_MAX);
		const u8 *p = mmnf_source_look(src, LENGTH_BYTES + done, n);

		if (p)
			memcpy(text + done, p, n);
		else
			err = -EINVAL;
		done += n;
	}
	if (!err)
		err = parse_json(out, src, text, len);
	free(text);
	return err;
}

static int print_safetensors(const struct mmnf_array *a, u8 **head,
			     size_t *bytes)
{
	u64 total = a->shape[0] * (u64)a->stride_bytes[0], len;
	json_t *shape = json_array(), *root;
	char *text;
	size_t i;

	for (i = 0; i < a->ndim; i++)
		json_array_append_new(shape,
				      json_integer((json_int_t)a->shape[i]));
	for (i = 0; types[i].dtype != a->dtype; i++)
		;
	root = json_pack("{s:{s:s, s:o, s:[iI]}}", "data", "dtype",
			 types[i].name, "shape", shape, "data_offsets", 0,
			 (json_int_t)total);
	text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	/* Spaces until the data starts at a page: it may be mapped. */
	len = text ? round_up_u64(strlen(text) + LENGTH_BYTES, 4096) -
			      LENGTH_BYTES :
		     0;
	*head = text ? malloc(LENGTH_BYTES + len) : NULL;
	if (!*head) {
		free(text);
		return mmnf_error(ENOMEM, "no memory");
	}
	memcpy(*head, &len, LENGTH_BYTES);
	memset(*head + LENGTH_BYTES, ' ', len);
	memcpy(*head + LENGTH_BYTES, text, strlen(text));
	free(text);
	*bytes = LENGTH_BYTES + len;
	return 0;
}

const struct mmnf_format mmnf_format_safetensors = {
	.name = "safetensors",
	.suffix = { ".safetensors" },
	.is = is_safetensors,
	.parse = parse_safetensors,
	.print = print_safetensors,
};
