// SPDX-License-Identifier: MIT
/*
 * Array files into fields: which format, and the copy.
 *
 * The file is read in blocks of at most 8 MiB whose shape suits both sides:
 * long along the source's fastest axis and along the field's.  Bytes are copied
 * as they are; scale factors of a format are not applied.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

#define BLOCK_BYTES (8ULL << 20)
#define ROW_MIN 1024 /* elements along the field's axis, if there are */

static const struct mmnf_format *const formats[] = {
	&mmnf_format_npy,
	&mmnf_format_nifti,
};

int mmnf_array_finish(struct mmnf_array *a, bool fortran, u64 file_bytes)
{
	u64 bytes = mmnf_dtype_bytes(a->dtype);
	u32 i;

	for (i = 0; i < a->ndim; i++) {
		u32 axis = fortran ? i : a->ndim - 1 - i;

		if (!a->shape[axis])
			return mmnf_error(EINVAL,
					  "shape[%u] is 0: expected at least 1",
					  axis);
		a->stride_bytes[axis] = (s64)bytes;
		if (__builtin_mul_overflow(bytes, a->shape[axis], &bytes) ||
		    bytes > (u64)S64_MAX)
			return mmnf_error(
				EINVAL, "shape: expected less than 2^63 bytes");
	}
	if (a->data_offset_bytes > file_bytes ||
	    bytes > file_bytes - a->data_offset_bytes)
		return mmnf_error(EINVAL,
				  "file is %" PRIu64 " bytes: expected %" PRIu64
				  " of header and %" PRIu64 " of data",
				  file_bytes, a->data_offset_bytes, bytes);
	return 0;
}

static int parse_head(struct mmnf_array *out, const char **name, const u8 *head,
		      size_t len, u64 file_bytes, const char *src)
{
	u32 i;

	for (i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		if (!formats[i]->is(head, len))
			continue;
		*name = formats[i]->name;
		return formats[i]->parse(out, head, len, file_bytes);
	}
	if (len >= 2 && head[0] == 0x1f && head[1] == 0x8b)
		return mmnf_error(
			EOPNOTSUPP,
			"%s: compressed with gzip: expected it uncompressed",
			src);
	return mmnf_error(EINVAL,
			  "%s: expected .npy or uncompressed .nii (by content)",
			  src);
}

/* Returns the open file or -errno. */
static int open_array(struct mmnf_array *out, const char **name,
		      const char *src)
{
	struct stat st;
	ssize_t n;
	u8 *head;
	int fd, err;

	memset(out, 0, sizeof(*out));
	fd = open(src, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return mmnf_error_system(errno, "%s", src);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return mmnf_error(EINVAL, "%s: expected a regular file", src);
	}
	head = malloc(MMNF_HEAD_MAX);
	n = head ? pread(fd, head, MMNF_HEAD_MAX, 0) : -1;
	if (n < 0)
		err = mmnf_error_system(head ? errno : ENOMEM, "%s", src);
	else
		err = parse_head(out, name, head, (size_t)n, (u64)st.st_size,
				 src);
	free(head);
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

MMNF_EXPORT int mmnf_array_info(const char *src, struct mmnf_array_info *out)
{
	struct mmnf_array_info info = { .size = sizeof(info) };
	const char *name = "";
	struct mmnf_array a;
	int fd;

	mmnf_error_enter("mmnf_array_info");
	if (!src || out->size != sizeof(*out))
		return mmnf_error(EINVAL,
				  "src or size: expected a path and %zu",
				  sizeof(*out));
	fd = open_array(&a, &name, src);
	if (fd < 0)
		return fd;
	close(fd);
	info.dtype = a.dtype;
	info.ndim = a.ndim;
	memcpy(info.shape, a.shape, sizeof(info.shape));
	memcpy(info.stride_bytes, a.stride_bytes, sizeof(info.stride_bytes));
	info.data_offset_bytes = a.data_offset_bytes;
	snprintf(info.format, sizeof(info.format), "%s", name);
	*out = info;
	return 0;
}

struct copy {
	const struct mmnf_array *a;
	int fd;
	u32 fast; /* the source's axis of smallest stride */
	u64 block[MMNF_NDIM_MAX]; /* extents of a whole block */
	u64 at[MMNF_NDIM_MAX], count[MMNF_NDIM_MAX]; /* the present one */
	char *packed, *raw;
};

static void choose_block(struct copy *c)
{
	const struct mmnf_array *a = c->a;
	u64 room = BLOCK_BYTES / mmnf_dtype_bytes(a->dtype);
	u32 last = a->ndim - 1, i;

	for (i = 0; i < a->ndim; i++) {
		c->block[i] = 1;
		if (a->stride_bytes[i] < a->stride_bytes[c->fast])
			c->fast = i;
	}
	if (c->fast != last) {
		c->block[last] = min_u64(a->shape[last], ROW_MIN);
		room /= c->block[last];
	}
	/* The rest in the order of the source: what is whole is contiguous. */
	for (i = 0; i < a->ndim; i++) {
		u32 axis = c->fast == last ? last - i : i;

		if (axis == last && c->fast != last)
			continue;
		c->block[axis] = min_u64(a->shape[axis], room);
		room /= c->block[axis];
		if (c->block[axis] < a->shape[axis])
			break;
	}
}

static int read_source(const struct copy *c, char *dst, u64 bytes, u64 offset)
{
	u64 done = 0;

	while (done < bytes) {
		ssize_t n = pread(c->fd, dst + done, bytes - done,
				  (off_t)(offset + done));

		if (!n)
			return mmnf_error(
				EIO,
				"source ends at byte %" PRIu64
				": expected the data its header promises",
				offset + done);
		if (n < 0 && errno != EINTR)
			return mmnf_error_system(errno, "reading the source");
		if (n > 0)
			done += (u64)n;
	}
	return 0;
}

/* Reads the present block and packs it in C order. */
static int read_block(const struct copy *c, u64 bytes)
{
	const struct mmnf_array *a = c->a;
	u64 elem = mmnf_dtype_bytes(a->dtype), index[MMNF_NDIM_MAX] = { 0 };
	u64 from = a->data_offset_bytes, span = elem, done, offset;
	bool in_order = true;
	u32 i;
	int err;

	for (i = 0; i < a->ndim; i++) {
		from += c->at[i] * (u64)a->stride_bytes[i];
		span += (c->count[i] - 1) * (u64)a->stride_bytes[i];
	}
	in_order = c->fast == a->ndim - 1;
	if (span == bytes && in_order)
		return read_source(c, c->packed, bytes, from);
	/* As one piece if that reads no more than twice what is wanted. */
	if (span <= 2 * BLOCK_BYTES && span <= 2 * bytes) {
		err = read_source(c, c->raw, span, from);
		if (err)
			return err;
	} else {
		span = 0;
	}
	for (done = 0; done < bytes; done += elem) {
		offset = 0;
		for (i = 0; i < a->ndim; i++)
			offset += index[i] * (u64)a->stride_bytes[i];
		if (span) {
			memcpy(c->packed + done, c->raw + offset, elem);
		} else if (!index[c->fast]) {
			/* A run along the fast axis, spread over the block. */
			u64 pitch = elem, k;

			for (i = a->ndim - 1; i > c->fast; i--)
				pitch *= c->count[i];
			err = read_source(c, c->raw, c->count[c->fast] * elem,
					  from + offset);
			if (err)
				return err;
			for (k = 0; k < c->count[c->fast]; k++)
				memcpy(c->packed + done + k * pitch,
				       c->raw + k * elem, elem);
		}
		for (i = a->ndim; i-- > 0;) {
			if (++index[i] < c->count[i])
				break;
			index[i] = 0;
		}
	}
	return 0;
}

static int place(const struct mmnf_field *field, const struct mmnf_array *a,
		 const u64 *at, struct mmnf_box *whole)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u32 lead, i;

	if (a->dtype != g->dtype)
		return mmnf_error(EINVAL,
				  "source is %s: expected %s as the field",
				  mmnf_dtype_name(a->dtype),
				  mmnf_dtype_name(g->dtype));
	if (a->ndim > g->ndim)
		return mmnf_error(
			ERANGE,
			"source has %u axes: expected at most %u as the field",
			a->ndim, g->ndim);
	lead = g->ndim - a->ndim;
	memset(whole, 0, sizeof(*whole));
	for (i = 0; i < g->ndim; i++) {
		u64 extent = i < lead ? 1 : a->shape[i - lead];

		whole->start[i] = at ? at[i] : 0;
		whole->count[i] = extent;
		whole->step[i] = 1;
		if (whole->start[i] >= g->shape[i] ||
		    extent > g->shape[i] - whole->start[i])
			return mmnf_error(ERANGE,
					  "axis %u: %" PRIu64
					  " elements at %" PRIu64
					  ": expected inside 0..%" PRIu64,
					  i, extent, whole->start[i],
					  g->shape[i] - 1);
	}
	return 0;
}

static int copy_blocks(struct mmnf_field *field, struct copy *c,
		       const struct mmnf_box *whole, u64 total,
		       void (*progress)(void *, uint64_t, uint64_t), void *arg)
{
	u32 lead = mmnf_field_geometry(field)->ndim - c->a->ndim, i;
	u64 done = 0, bytes;
	int err;

	for (;;) {
		struct mmnf_box box = *whole;

		bytes = mmnf_dtype_bytes(c->a->dtype);
		for (i = 0; i < c->a->ndim; i++) {
			c->count[i] =
				min_u64(c->block[i], c->a->shape[i] - c->at[i]);
			bytes *= c->count[i];
			box.start[lead + i] += c->at[i];
			box.count[lead + i] = c->count[i];
		}
		err = read_block(c, bytes);
		if (!err)
			err = mmnf_write_box(field, &box, c->packed);
		if (err)
			return err;
		done += bytes;
		if (progress)
			progress(arg, done, total);
		for (i = c->a->ndim; i-- > 0;) {
			c->at[i] += c->block[i];
			if (c->at[i] < c->a->shape[i])
				break;
			c->at[i] = 0;
		}
		if (i == UINT32_MAX)
			return 0;
	}
}

MMNF_EXPORT ssize_t mmnf_import(struct mmnf_field *field, const char *src,
				const uint64_t *at,
				void (*progress)(void *arg, uint64_t done_bytes,
						 uint64_t total_bytes),
				void *arg)
{
	const char *name = "";
	struct mmnf_array a;
	struct mmnf_box whole;
	struct copy c = { .a = &a };
	u64 total = 0;
	u32 i;
	int err;

	mmnf_error_enter("mmnf_import");
	if (!field->writable)
		return mmnf_error(
			EBADF,
			"field is open read-only: expected open with writable = 1");
	c.fd = open_array(&a, &name, src);
	if (c.fd < 0)
		return c.fd;
	err = place(field, &a, at, &whole);
	if (!err) {
		choose_block(&c);
		c.packed = malloc(BLOCK_BYTES);
		c.raw = malloc(2 * BLOCK_BYTES);
		if (!c.packed || !c.raw)
			err = mmnf_error(ENOMEM, "no memory");
		total = mmnf_dtype_bytes(a.dtype);
		for (i = 0; i < a.ndim; i++)
			total *= a.shape[i];
	}
	if (!err)
		err = copy_blocks(field, &c, &whole, total, progress, arg);
	free(c.packed);
	free(c.raw);
	close(c.fd);
	return err ? err : (ssize_t)total;
}
