// SPDX-License-Identifier: MIT
/*
 * Codecs: bytes, transpose before it, and sharding_indexed around them.
 *
 *	[bytes]				a chunk is its elements
 *	[transpose, bytes]		in another order of the axes
 *	[sharding_indexed{chunk_shape, codecs: one of the above,
 *	    index_codecs: [bytes] or [bytes, crc32c], index_location}]
 *
 * Whatever compresses, filters or nests further is refused by name.
 */
#include <errno.h>
#include <stdio.h>

#include "store/zarr-codec.h"

static int check_endian(const char *key, const json_t *codec, u32 bytes)
{
	const json_t *endian = json_object_get(
		json_object_get(codec, "configuration"), "endian");
	const char *text = json_string_value(endian);
	char name[64];

	snprintf(name, sizeof(name), "%s.configuration.endian", key);
	if (!endian && bytes == 1)
		return 0;
	if (text &&
	    (!strcmp(text, "little") || (bytes == 1 && !strcmp(text, "big"))))
		return 0;
	return mmnf_zarr_wrong(text && !strcmp(text, "big") ? EOPNOTSUPP :
							      EINVAL,
			       name, endian, "\"little\"");
}

static int parse_transpose(struct mmnf_codecs *out, const json_t *codec,
			   u32 ndim)
{
	const json_t *order = json_object_get(
		json_object_get(codec, "configuration"), "order");
	u32 i, seen = 0;

	if (json_array_size(order) != ndim)
		return mmnf_zarr_wrong(EINVAL, "transpose.order", order,
				       "each axis once");
	for (i = 0; i < ndim; i++) {
		const json_t *v = json_array_get(order, i);
		json_int_t axis = json_integer_value(v);

		if (!json_is_integer(v) || axis < 0 || axis >= ndim ||
		    seen & 1U << axis)
			return mmnf_zarr_wrong(EINVAL, "transpose.order", order,
					       "each axis once");
		seen |= 1U << axis;
		out->axis[i] = (u32)axis;
	}
	out->transposed = true;
	return 0;
}

/* [transpose,] bytes */
static int parse_plain(struct mmnf_codecs *out, const char *key,
		       const json_t *v, u32 ndim, u32 element_bytes)
{
	size_t i = 0, n = json_array_size(v);
	const char *name = mmnf_zarr_name(json_array_get(v, 0));
	char text[64];
	int err = 0;

	if (!json_is_array(v) || !n)
		return mmnf_zarr_wrong(EINVAL, key, v,
				       "a list with codec bytes");
	if (!name)
		return mmnf_zarr_wrong(EINVAL, key, v, "objects with a name");
	if (!strcmp(name, "transpose")) {
		err = parse_transpose(out, json_array_get(v, 0), ndim);
		i++;
	}
	name = mmnf_zarr_name(json_array_get(v, i));
	if (!err && (!name || strcmp(name, "bytes") || n != i + 1))
		err = mmnf_zarr_wrong(
			EOPNOTSUPP, key, v,
			"codec bytes alone (uncompressed chunks), or transpose before it");
	snprintf(text, sizeof(text), "%s[%zu]", key, i);
	return err ? err :
		     check_endian(text, json_array_get(v, i), element_bytes);
}

static int parse_index(struct mmnf_codecs *out, const json_t *set)
{
	const json_t *codecs = json_object_get(set, "index_codecs");
	const json_t *where = json_object_get(set, "index_location");
	const char *first = mmnf_zarr_name(json_array_get(codecs, 0));
	const char *second = mmnf_zarr_name(json_array_get(codecs, 1));
	size_t n = json_array_size(codecs);
	const char *text = json_string_value(where);

	if (!first || strcmp(first, "bytes") || n > 2 ||
	    (n == 2 && (!second || strcmp(second, "crc32c"))))
		return mmnf_zarr_wrong(EOPNOTSUPP, "index_codecs", codecs,
				       "bytes, or bytes and crc32c");
	if (where && (!text || (strcmp(text, "start") && strcmp(text, "end"))))
		return mmnf_zarr_wrong(EINVAL, "index_location", where,
				       "\"start\" or \"end\"");
	out->index_crc = n == 2;
	out->index_first = text && !strcmp(text, "start");
	return check_endian("index_codecs[0]", json_array_get(codecs, 0), 8);
}

static int parse_sharding(struct mmnf_codecs *out, const json_t *codec,
			  u32 ndim, u32 element_bytes)
{
	const json_t *set = json_object_get(codec, "configuration");
	const json_t *shape = json_object_get(set, "chunk_shape");
	u32 axes;
	int err;

	err = mmnf_zarr_extents("sharding_indexed.chunk_shape", shape,
				out->tile, &axes);
	if (err)
		return err;
	if (axes != ndim)
		return mmnf_zarr_wrong(EINVAL, "sharding_indexed.chunk_shape",
				       shape, "as many extents as shape has");
	out->sharded = true;
	err = parse_plain(out, "sharding_indexed.codecs",
			  json_object_get(set, "codecs"), ndim, element_bytes);
	return err ? err : parse_index(out, set);
}

int mmnf_codecs_parse(struct mmnf_codecs *out, const json_t *v, u32 ndim,
		      u32 element_bytes)
{
	const char *name = mmnf_zarr_name(json_array_get(v, 0));

	memset(out, 0, sizeof(*out));
	if (!name || strcmp(name, "sharding_indexed"))
		return parse_plain(out, "codecs", v, ndim, element_bytes);
	if (json_array_size(v) != 1)
		return mmnf_zarr_wrong(EOPNOTSUPP, "codecs", v,
				       "nothing beside sharding_indexed");
	return parse_sharding(out, json_array_get(v, 0), ndim, element_bytes);
}

static json_t *print_bytes(u32 element_bytes)
{
	json_t *bytes = json_pack("{s:s}", "name", "bytes");

	if (element_bytes > 1)
		json_object_set_new(bytes, "configuration",
				    json_pack("{s:s}", "endian", "little"));
	return bytes;
}

json_t *mmnf_codecs_print(const struct mmnf_geometry *g)
{
	json_t *bytes = print_bytes(g->element_bytes);

	if (!g->indexed)
		return json_pack("[o]", bytes);
	return json_pack("[{s:s, s:{s:o, s:[o], s:[o, {s:s}], s:s}}]", "name",
			 "sharding_indexed", "configuration", "chunk_shape",
			 mmnf_zarr_list(g->tile, g->ndim), "codecs", bytes,
			 "index_codecs", print_bytes(8), "name", "crc32c",
			 "index_location", "end");
}
