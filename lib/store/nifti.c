// SPDX-License-Identifier: MIT
/*
 * NIfTI-1 and NIfTI-2, single file, uncompressed (.nii).
 *
 * The file's first axis is its fastest; axes are given slowest first, and
 * trailing axes of one element are dropped.  scl_slope and scl_inter are not
 * applied: the stored numbers are what is seen.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "store/store.h"

/* Sizes of the two headers, and the first as the other byte order has it. */
#define BYTES_1 348
#define BYTES_2 540
#define SWAPPED_1 0x5c010000
#define SWAPPED_2 0x1c020000

/* Byte offsets in the headers. */
enum {
	DIM_1 = 40,
	DATATYPE_1 = 70,
	BITPIX_1 = 72,
	PIXDIM_1 = 76,
	VOX_OFFSET_1 = 108,
	MAGIC_1 = 344,
	MAGIC_2 = 4,
	DATATYPE_2 = 12,
	BITPIX_2 = 14,
	DIM_2 = 16,
	PIXDIM_2 = 104,
	VOX_OFFSET_2 = 168,
};

#define MAGIC_TEXT_2 "n+2\0\r\n\032\n"
#define DATA_OFFSET_1 352
#define DATA_OFFSET_2 544

static const struct {
	int16_t code;
	enum mmnf_dtype dtype;
} codes[] = {
	{ 2, MMNF_U8 },	    { 4, MMNF_I16 },   { 8, MMNF_I32 },
	{ 16, MMNF_F32 },   { 64, MMNF_F64 },  { 256, MMNF_I8 },
	{ 512, MMNF_U16 },  { 768, MMNF_U32 }, { 1024, MMNF_I64 },
	{ 1280, MMNF_U64 },
};

#define NR_CODES (sizeof(codes) / sizeof(codes[0]))

static bool is_nifti(const struct mmnf_source *src)
{
	u32 n = src->head_bytes >= 4 ? mmnf_load_u32(src->head) : 0;

	return n == BYTES_1 || n == SWAPPED_1 ||
	       ((n == BYTES_2 || n == SWAPPED_2) && src->head_bytes >= 12 &&
		!memcmp(src->head + MAGIC_2 + 4, &MAGIC_TEXT_2[4], 4));
}

static int parse_type(struct mmnf_array *out, const u8 *datatype,
		      const u8 *bits)
{
	int16_t code, bitpix;
	u32 i;

	memcpy(&code, datatype, 2);
	memcpy(&bitpix, bits, 2);
	for (i = 0; i < NR_CODES; i++) {
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
		"nifti: datatype is %d: expected 2 4 8 16 64 256 512 768 1024 or 1280",
		code);
}

/* dim[0] is how many of the others count. */
struct dims {
	s64 dim[8];
};

static int parse_dims(struct mmnf_array *out, const struct dims *dims)
{
	const s64 *dim = dims->dim;
	int i, nr;

	if (dim[0] < 1 || dim[0] > 7)
		return mmnf_error(EINVAL,
				  "nifti: dim[0] is %" PRId64
				  ": expected 1 to 7",
				  dim[0]);
	for (i = 1; i <= dim[0]; i++)
		if (dim[i] < 1)
			return mmnf_error(EINVAL,
					  "nifti: dim[%d] is %" PRId64
					  ": expected at least 1",
					  i, dim[i]);
	for (nr = (int)dim[0]; nr > 1 && dim[nr] == 1; nr--)
		;
	out->ndim = (u32)nr;
	for (i = 0; i < nr; i++)
		out->shape[i] = (u64)dim[nr - i];
	return 0;
}

static int parse_1(struct mmnf_array *out, const u8 *head)
{
	struct dims dims;
	float offset;
	int i, err;

	if (!memcmp(head + MAGIC_1, "ni1", 4))
		return mmnf_error(
			EOPNOTSUPP,
			"nifti: header alone (.hdr): expected a single file (.nii)");
	if (memcmp(head + MAGIC_1, "n+1", 4))
		return mmnf_error(EINVAL,
				  "nifti: magic: expected \"n+1\" at byte 344");
	for (i = 0; i < 8; i++) {
		int16_t d;

		memcpy(&d, head + DIM_1 + 2 * i, sizeof(d));
		dims.dim[i] = d;
	}
	err = parse_dims(out, &dims);
	if (!err)
		err = parse_type(out, head + DATATYPE_1, head + BITPIX_1);
	if (err)
		return err;
	memcpy(&offset, head + VOX_OFFSET_1, sizeof(offset));
	/* Written so that a NaN fails; beyond 2^62 a cast is not defined. */
	if (!(offset >= BYTES_1 && offset < 0x1p62f) ||
	    offset != floorf(offset))
		return mmnf_error(
			EINVAL,
			"nifti: vox_offset is %g: expected a whole number of bytes, at least 348",
			(double)offset);
	out->data_offset_bytes = (u64)offset;
	return 0;
}

static int parse_2(struct mmnf_array *out, const u8 *head)
{
	struct dims dims;
	s64 offset;
	int err;

	if (memcmp(head + MAGIC_2, MAGIC_TEXT_2, 8))
		return mmnf_error(
			EOPNOTSUPP,
			"nifti: magic: expected \"n+2\", a single file (.nii)");
	memcpy(dims.dim, head + DIM_2, sizeof(dims.dim));
	err = parse_dims(out, &dims);
	if (!err)
		err = parse_type(out, head + DATATYPE_2, head + BITPIX_2);
	if (err)
		return err;
	memcpy(&offset, head + VOX_OFFSET_2, sizeof(offset));
	if (offset < BYTES_2)
		return mmnf_error(EINVAL,
				  "nifti: vox_offset is %" PRId64
				  ": expected at least 540",
				  offset);
	out->data_offset_bytes = (u64)offset;
	return 0;
}

static int parse_nifti(struct mmnf_array *out, struct mmnf_source *src)
{
	u32 n = mmnf_load_u32(src->head);
	int err;

	if (n == SWAPPED_1 || n == SWAPPED_2)
		return mmnf_error(EOPNOTSUPP,
				  "nifti: big-endian: expected little-endian");
	if (src->head_bytes < n)
		return mmnf_error(
			EINVAL,
			"nifti: file is %zu bytes: expected a header of %u",
			src->head_bytes, n);
	err = n == BYTES_1 ? parse_1(out, src->head) : parse_2(out, src->head);
	return err ? err : mmnf_array_finish(out, false);
}

/* The pixels' sizes are not known here: 1. */
static void print_1(const struct mmnf_array *a, int16_t code, u8 *head)
{
	const int16_t bits = (int16_t)(mmnf_dtype_bytes(a->dtype) * 8);
	const float offset = DATA_OFFSET_1, one = 1;
	const u32 bytes = BYTES_1;
	u32 i;

	memcpy(head, &bytes, 4);
	for (i = 0; i < 8; i++) {
		int16_t d = 1;

		if (!i)
			d = (int16_t)a->ndim;
		else if (i <= a->ndim)
			d = (int16_t)a->shape[a->ndim - i];
		memcpy(head + DIM_1 + 2 * i, &d, 2);
		memcpy(head + PIXDIM_1 + 4 * i, &one, 4);
	}
	memcpy(head + DATATYPE_1, &code, 2);
	memcpy(head + BITPIX_1, &bits, 2);
	memcpy(head + VOX_OFFSET_1, &offset, 4);
	memcpy(head + MAGIC_1, "n+1", 4);
}

static void print_2(const struct mmnf_array *a, int16_t code, u8 *head)
{
	const int16_t bits = (int16_t)(mmnf_dtype_bytes(a->dtype) * 8);
	const s64 offset = DATA_OFFSET_2;
	const u32 bytes = BYTES_2;
	const double one = 1;
	u32 i;

	memcpy(head, &bytes, 4);
	memcpy(head + MAGIC_2, MAGIC_TEXT_2, 8);
	for (i = 0; i < 8; i++) {
		s64 d = 1;

		if (!i)
			d = (s64)a->ndim;
		else if (i <= a->ndim)
			d = (s64)a->shape[a->ndim - i];
		memcpy(head + DIM_2 + 8 * i, &d, 8);
		memcpy(head + PIXDIM_2 + 8 * i, &one, 8);
	}
	memcpy(head + DATATYPE_2, &code, 2);
	memcpy(head + BITPIX_2, &bits, 2);
	memcpy(head + VOX_OFFSET_2, &offset, 8);
}

static int print_nifti(const struct mmnf_array *a, u8 **head, size_t *bytes)
{
	bool small = true;
	u32 i, code;

	for (code = 0; code < NR_CODES && codes[code].dtype != a->dtype; code++)
		;
	if (code == NR_CODES || a->ndim > 7)
		return mmnf_error(
			EOPNOTSUPP,
			"nifti has no type %s, or not %u axes: expected another format",
			mmnf_dtype_name(a->dtype), a->ndim);
	for (i = 0; i < a->ndim; i++)
		small &= a->shape[i] <= INT16_MAX;
	*bytes = small ? DATA_OFFSET_1 : DATA_OFFSET_2;
	*head = calloc(1, *bytes);
	if (!*head)
		return mmnf_error(ENOMEM, "no memory");
	if (small)
		print_1(a, codes[code].code, *head);
	else
		print_2(a, codes[code].code, *head);
	return 0;
}

const struct mmnf_format mmnf_format_nifti = {
	.name = "nifti",
	.suffix = { ".nii" },
	.is = is_nifti,
	.parse = parse_nifti,
	.print = print_nifti,
};
