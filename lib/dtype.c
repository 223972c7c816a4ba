// SPDX-License-Identifier: MIT
/*
 * Element types: sizes, and names here and in Zarr v3.
 */
#include <errno.h>

#include "internal.h"

static const struct {
	const char *name, *zarr;
	u32 bytes;
	bool is_float;
} types[] = {
	[MMNF_I8] = { "i8", "int8", 1, false },
	[MMNF_U8] = { "u8", "uint8", 1, false },
	[MMNF_I16] = { "i16", "int16", 2, false },
	[MMNF_U16] = { "u16", "uint16", 2, false },
	[MMNF_I32] = { "i32", "int32", 4, false },
	[MMNF_U32] = { "u32", "uint32", 4, false },
	[MMNF_I64] = { "i64", "int64", 8, false },
	[MMNF_U64] = { "u64", "uint64", 8, false },
	[MMNF_F16] = { "f16", "float16", 2, true },
	[MMNF_BF16] = { "bf16", "bfloat16", 2, true },
	[MMNF_F32] = { "f32", "float32", 4, true },
	[MMNF_F64] = { "f64", "float64", 8, true },
};

#define NR_TYPES (sizeof(types) / sizeof(types[0]))

static bool known(enum mmnf_dtype dtype)
{
	return (u32)dtype >= MMNF_I8 && (u32)dtype < NR_TYPES;
}

MMNF_EXPORT unsigned int mmnf_dtype_bytes(enum mmnf_dtype dtype)
{
	return known(dtype) ? types[dtype].bytes : 0;
}

MMNF_EXPORT const char *mmnf_dtype_name(enum mmnf_dtype dtype)
{
	return known(dtype) ? types[dtype].name : NULL;
}

int mmnf_dtype_of(const char *name)
{
	u32 i;

	for (i = MMNF_I8; i < NR_TYPES; i++)
		if (!strcmp(types[i].name, name))
			return (int)i;
	return -EINVAL;
}

MMNF_EXPORT int mmnf_dtype_parse(const char *name)
{
	int dtype = name ? mmnf_dtype_of(name) : -EINVAL;

	if (dtype >= 0)
		return dtype;
	mmnf_error_enter("mmnf_dtype_parse");
	return mmnf_error(
		EINVAL,
		"dtype is '%s': expected i8 u8 i16 u16 i32 u32 i64 u64 f16 bf16 f32 or f64",
		name ? name : "(null)");
}

const char *mmnf_dtype_zarr(enum mmnf_dtype dtype)
{
	return types[dtype].zarr;
}

int mmnf_dtype_from_zarr(const char *name)
{
	u32 i;

	for (i = MMNF_I8; i < NR_TYPES; i++)
		if (!strcmp(types[i].zarr, name))
			return (int)i;
	return -EINVAL;
}

bool mmnf_dtype_is_float(enum mmnf_dtype dtype)
{
	return types[dtype].is_float;
}
