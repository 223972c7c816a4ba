// SPDX-License-Identifier: MIT
/*
 * NIfTI-1, single file, uncompressed (.nii).
 *
 * The file's first axis is its fastest; axes are given slowest first, and
 * trailing axes of one element are dropped.  scl_slope and scl_inter are not
 * applied: the stored numbers are what is imported.
 */
#include <errno.h>
#include <math.h>

#include "internal.h"

#define HEADER_BYTES 348
#define SWAPPED 0x5c010000 /* 348 of the other byte order */

/* Byte offsets in the header. */
#define OFF_DIM 40
#define OFF_DATATYPE 70
#define OFF_BITPIX 72
#define OFF_VOX_OFFSET 108
#define OFF_MAGIC 344

static u32 size_of_header(const u8 *head)
{
	u32 n;

	memcpy(&n, head, sizeof(n));
	return n;
}

static bool is_nifti(const u8 *head, size_t len)
{
	return len >= 4 && (size_of_header(head) == HEADER_BYTES ||
			    size_of_header(head) == SWAPPED);
}

static int parse_type(struct mmnf_array *out, const u8 *head)
{
	static const struct {
		int16_t code;
		enum mmnf_dtype dtype;
	} codes[] = {
		{ 2, MMNF_U8 },	   { 4, MMNF_I16 },   { 8, MMNF_I32 },
		{ 16, MMNF_F32 },  { 64, MMNF_F64 },  { 256, MMNF_I8 },
		{ 512, MMNF_U16 }, { 768, MMNF_U32 },
	};
	int16_t code, bitpix;
	u32 i;

	memcpy(&code, head + OFF_DATATYPE, 2);
	memcpy(&bitpix, head + OFF_BITPIX, 2);
	for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		if (codes[i].code != code)
			continue;
		out->dtype = codes[i].dtype;
		if (bitpix == (int)mmnf_dtype_bytes(out->dtype) * 8)
			return 0;
		return mmnf_error(
			EINVAL,
			"nifti: bitpix is %d: expected %u for datatype %d",
			bitpix, mmnf_dtype_bytes(out->dtype) * 8, code);
	}
	return mmnf_error(
		EOPNOTSUPP,
		"nifti: datatype is %d: expected 2 4 8 16 64 256 512 or 768",
		code);
}

static int parse_dims(struct mmnf_array *out, const u8 *head)
{
	int16_t dim[8];
	int i, nr;

	memcpy(dim, head + OFF_DIM, sizeof(dim));
	if (dim[0] < 1 || dim[0] > 7)
		return mmnf_error(
			EINVAL, "nifti: dim[0] is %d: expected 1 to 7", dim[0]);
	for (i = 1; i <= dim[0]; i++)
		if (dim[i] < 1)
			return mmnf_error(
				EINVAL,
				"nifti: dim[%d] is %d: expected at least 1", i,
				dim[i]);
	for (nr = dim[0]; nr > 1 && dim[nr] == 1; nr--)
		;
	out->ndim = (u32)nr;
	for (i = 0; i < nr; i++)
		out->shape[i] = (u64)dim[nr - i];
	return 0;
}

static int parse_nifti(struct mmnf_array *out, const u8 *head, size_t len,
		       u64 file_bytes)
{
	float offset;
	int err;

	if (size_of_header(head) == SWAPPED)
		return mmnf_error(EOPNOTSUPP,
				  "nifti: big-endian: expected little-endian");
	if (len < HEADER_BYTES)
		return mmnf_error(
			EINVAL,
			"nifti: file is %zu bytes: expected a header of 348",
			len);
	if (!memcmp(head + OFF_MAGIC, "ni1", 4))
		return mmnf_error(
			EOPNOTSUPP,
			"nifti: header alone (.hdr): expected a single file (.nii)");
	if (memcmp(head + OFF_MAGIC, "n+1", 4))
		return mmnf_error(EINVAL,
				  "nifti: magic: expected \"n+1\" at byte 344");
	err = parse_dims(out, head);
	if (!err)
		err = parse_type(out, head);
	if (err)
		return err;
	memcpy(&offset, head + OFF_VOX_OFFSET, sizeof(offset));
	/* Written so that a NaN fails; beyond 2^62 a cast is not defined. */
	if (!(offset >= HEADER_BYTES && offset < 0x1p62f) ||
	    offset != floorf(offset))
		return mmnf_error(
			EINVAL,
			"nifti: vox_offset is %g: expected a whole number of bytes, at least 348",
			(double)offset);
	out->data_offset_bytes = (u64)offset;
	return mmnf_array_finish(out, false, file_bytes);
}

const struct mmnf_format mmnf_format_nifti = {
	.name = "nifti",
	.is = is_nifti,
	.parse = parse_nifti,
};
