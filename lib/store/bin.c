// SPDX-License-Identifier: MIT
/*
 * fbin and its kin, of the big-ann-benchmarks: u32 n, u32 d, then n vectors of d
 * elements.  The type is told by the name alone: .fbin, .u8bin, .i8bin, .ibin.
 *
 * The size of the file must be what the header says, or it is no such file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "store/store.h"

#define HEADER_BYTES 8

static const struct {
	const char *suffix;
	enum mmnf_dtype dtype;
} types[] = {
	{ ".fbin", MMNF_F32 },
	{ ".u8bin", MMNF_U8 },
	{ ".i8bin", MMNF_I8 },
	{ ".ibin", MMNF_I32 },
};

#define NR_TYPES (sizeof(types) / sizeof(types[0]))

static size_t type_of(const struct mmnf_source *src)
{
	size_t i;

	for (i = 0; i < NR_TYPES; i++)
		if (mmnf_source_named(src, types[i].suffix))
			break;
	return i;
}

static bool is_bin(const struct mmnf_source *src)
{
	return type_of(src) < NR_TYPES;
}

static int parse_bin(struct mmnf_array *out, struct mmnf_source *src)
{
	const u8 *head = mmnf_source_look(src, 0, HEADER_BYTES);
	u64 bytes;
	int err;

	if (!head)
		return -EINVAL;
	out->dtype = types[type_of(src)].dtype;
	out->ndim = 2;
	out->shape[0] = mmnf_load_u32(head);
	out->shape[1] = mmnf_load_u32(head + 4);
	out->data_offset_bytes = HEADER_BYTES;
	err = mmnf_array_finish(out, false);
	if (err)
		return err;
	bytes = out->shape[0] * (u64)out->stride_bytes[0];
	if (src->file_bytes - HEADER_BYTES != bytes)
		return mmnf_error(EINVAL,
				  "%s: %" PRIu64 " bytes: expected 8 + %" PRIu64
				  " for %" PRIu64 " vectors of %" PRIu64,
				  src->path, src->file_bytes, bytes,
				  out->shape[0], out->shape[1]);
	return 0;
}

/* The name is what the type will be read from. */
static int check_name(const struct mmnf_array *a, const char *path)
{
	struct mmnf_source src = { .path = (char *)path };
	size_t i, named = type_of(&src);

	if (named == NR_TYPES || types[named].dtype == a->dtype)
		return 0;
	for (i = 0; i < NR_TYPES; i++)
		if (types[i].dtype == a->dtype)
			return mmnf_error(
				EINVAL,
				"%s: elements are %s: expected a name that ends in %s",
				path, mmnf_dtype_name(a->dtype),
				types[i].suffix);
	return 0; /* printing says so */
}

static int print_bin(const struct mmnf_array *a, u8 **head, size_t *bytes)
{
	u32 n[2];
	size_t i;

	for (i = 0; i < NR_TYPES && types[i].dtype != a->dtype; i++)
		;
	if (i == NR_TYPES || a->ndim != 2 || a->shape[0] > UINT32_MAX ||
	    a->shape[1] > UINT32_MAX)
		return mmnf_error(
			EOPNOTSUPP,
			"bin: expected two axes of fewer than 2^32 and f32, u8, i8 or i32");
	n[0] = (u32)a->shape[0];
	n[1] = (u32)a->shape[1];
	*head = malloc(HEADER_BYTES);
	if (!*head)
		return mmnf_error(ENOMEM, "no memory");
	memcpy(*head, n, HEADER_BYTES);
	*bytes = HEADER_BYTES;
	return 0;
}

const struct mmnf_format mmnf_format_bin = {
	.name = "fbin",
	.suffix = { ".fbin", ".u8bin", ".i8bin", ".ibin" },
	.check_name = check_name,
	.is = is_bin,
	.parse = parse_bin,
	.print = print_bin,
};
