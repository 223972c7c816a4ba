// SPDX-License-Identifier: MIT
/*
 * From one field to another, block by block, in bounded memory.
 *
 * A block is a box that both sides like: whole tiles where there are tiles, and
 * long along the axis that is fastest in each file.  It is read packed in C
 * order and written from there.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "internal.h"

#define BLOCK_BYTES (8ULL << 20)
#define BLOCK_BYTES_MAX (256ULL << 20) /* for the sake of whole tiles */
#define ROW_MIN 1024 /* elements along the fastest axes, if there are */

struct copy {
	struct mmnf_field *src, *dst;
	u32 ndim, lead; /* axes of src; dst has so many more before them */
	struct mmnf_box box; /* of src */
	u64 dst_at[MMNF_NDIM_MAX];
	u64 block[MMNF_NDIM_MAX]; /* elements of a whole block */
	u64 at[MMNF_NDIM_MAX]; /* the present one, counted in the box */
};

static u64 block_bytes(const struct copy *c)
{
	u64 bytes = mmnf_field_geometry(c->src)->element_bytes;
	u32 i;

	for (i = 0; i < c->ndim; i++)
		if (__builtin_mul_overflow(bytes, c->block[i], &bytes))
			return UINT64_MAX;
	return bytes;
}

/* At least so many elements along an axis, unless the block gets too large. */
static void widen(struct copy *c, u32 axis, u64 elements, u64 most)
{
	u64 had = c->block[axis];

	elements = min_u64(elements, c->box.count[axis]);
	if (elements <= had)
		return;
	c->block[axis] = elements;
	if (block_bytes(c) > most)
		c->block[axis] = had;
}

static void choose_block(struct copy *c)
{
	const struct mmnf_geometry *src = mmnf_field_geometry(c->src);
	const struct mmnf_geometry *dst = mmnf_field_geometry(c->dst);
	u32 src_fast = src->order[c->ndim - 1];
	u32 dst_fast = dst->order[dst->ndim - 1], i;
	bool grown = true;

	for (i = 0; i < c->ndim; i++)
		c->block[i] = 1;
	for (i = 0; i < c->ndim; i++) {
		if (src->nr_tiles > 1)
			widen(c, i, src->tile[i], BLOCK_BYTES_MAX);
		if (dst->nr_tiles > 1)
			widen(c, i, dst->tile[c->lead + i], BLOCK_BYTES_MAX);
	}
	widen(c, src_fast, ROW_MIN, BLOCK_BYTES);
	if (dst_fast >= c->lead)
		widen(c, dst_fast - c->lead, ROW_MIN, BLOCK_BYTES);
	/* Then as the source lies: what is whole is contiguous. */
	for (i = c->ndim; i-- > 0 && grown;) {
		u32 axis = src->order[i];
		u64 room = BLOCK_BYTES / block_bytes(c);

		if (room > 1)
			widen(c, axis, room * c->block[axis], BLOCK_BYTES);
		grown = c->block[axis] == c->box.count[axis];
	}
}

static bool is_all(const char *packed, u64 bytes, const struct mmnf_geometry *g)
{
	u64 one = g->element_bytes;

	return !memcmp(packed, g->fill, one) &&
	       !memcmp(packed, packed + one, bytes - one);
}

/*
 * Where the fill comes and the fill is, nothing is written: what takes no space
 * takes none afterwards.
 */
static bool is_there(const struct copy *c, const struct mmnf_box *to,
		     const char *packed, char *other, u64 bytes)
{
	const struct mmnf_geometry *dst = mmnf_field_geometry(c->dst);

	return is_all(packed, bytes, dst) &&
	       mmnf_get_box(c->dst, to, other, bytes) == (ssize_t)bytes &&
	       !memcmp(packed, other, bytes);
}

/* Copies the present block by way of two buffers; *bytes are its. */
static int copy_block(const struct copy *c, char *packed, char *other,
		      u64 *bytes)
{
	struct mmnf_box from = c->box, to = { { 0 }, { 0 }, { 0 } };
	const struct mmnf_geometry *dst = mmnf_field_geometry(c->dst);
	struct mmnf_box normal;
	ssize_t n;
	u32 i;
	int err;

	for (i = 0; i < dst->ndim; i++) {
		to.start[i] = c->dst_at[i];
		to.count[i] = to.step[i] = 1;
	}
	for (i = 0; i < c->ndim; i++) {
		u64 count = min_u64(c->block[i], c->box.count[i] - c->at[i]);

		from.start[i] += c->at[i] * (u64)c->box.step[i];
		from.count[i] = count;
		to.start[c->lead + i] += c->at[i];
		to.count[c->lead + i] = count;
	}
	n = mmnf_get_box(c->src, &from, packed, block_bytes(c));
	if (n < 0)
		return (int)n;
	err = mmnf_geometry_box(dst, &to, &normal, bytes);
	if (err || is_there(c, &normal, packed, other, *bytes))
		return err;
	return mmnf_write_box(c->dst, &normal, packed);
}

static int copy_blocks(struct copy *c, u64 total, mmnf_progress *progress,
		       void *arg)
{
	u64 most = block_bytes(c), done = 0, bytes;
	char *packed = malloc(most), *other = malloc(most);
	int err = 0;
	u32 i;

	if (!packed || !other)
		err = mmnf_error(ENOMEM, "no memory for 2 * %" PRIu64 " bytes",
				 most);
	while (!err && done < total) {
		err = copy_block(c, packed, other, &bytes);
		if (err)
			break;
		done += bytes;
		if (progress)
			progress(arg, done, total);
		for (i = c->ndim; i-- > 0;) {
			c->at[i] += c->block[i];
			if (c->at[i] < c->box.count[i])
				break;
			c->at[i] = 0;
		}
	}
	free(packed);
	free(other);
	return err;
}

static int check_place(const struct copy *c)
{
	const struct mmnf_geometry *src = mmnf_field_geometry(c->src);
	const struct mmnf_geometry *dst = mmnf_field_geometry(c->dst);
	u32 i;

	if (src->dtype != dst->dtype)
		return mmnf_error(EINVAL,
				  "source is %s: expected %s as the field",
				  mmnf_dtype_name(src->dtype),
				  mmnf_dtype_name(dst->dtype));
	if (src->ndim > dst->ndim)
		return mmnf_error(
			ERANGE,
			"source has %u axes: expected at most %u as the field",
			src->ndim, dst->ndim);
	for (i = 0; i < dst->ndim; i++) {
		u64 lead = dst->ndim - src->ndim;
		u64 extent = i < lead ? 1 : c->box.count[i - lead];

		if (c->dst_at[i] < dst->shape[i] &&
		    extent <= dst->shape[i] - c->dst_at[i])
			continue;
		return mmnf_error(ERANGE,
				  "axis %u: %" PRIu64 " elements at %" PRIu64
				  ": expected inside 0..%" PRIu64,
				  i, extent, c->dst_at[i], dst->shape[i] - 1);
	}
	return 0;
}

int mmnf_copy(struct mmnf_field *dst, const u64 *dst_at, struct mmnf_field *src,
	      const struct mmnf_box *box, mmnf_progress *progress, void *arg)
{
	struct copy c = { .src = src, .dst = dst };
	u64 total;
	int err;

	err = mmnf_geometry_box(mmnf_field_geometry(src), box, &c.box, &total);
	if (err)
		return err;
	if (dst_at)
		memcpy(c.dst_at, dst_at,
		       mmnf_field_geometry(dst)->ndim * sizeof(*dst_at));
	err = check_place(&c);
	if (err || !total)
		return err;
	c.ndim = mmnf_field_geometry(src)->ndim;
	c.lead = mmnf_field_geometry(dst)->ndim - c.ndim;
	choose_block(&c);
	return copy_blocks(&c, total, progress, arg);
}
