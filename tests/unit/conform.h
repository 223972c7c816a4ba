/* SPDX-License-Identifier: MIT */
/*
 * What every engine must do: boxes, lists and hints over fields whose elements
 * are a hash of their place.  `l` is the layout that is looked at.
 */
#ifndef MMNF_TEST_CONFORM_H
#define MMNF_TEST_CONFORM_H

#include "field_util.h"

struct layout {
	enum mmnf_dtype dtype;
	unsigned int ndim;
	uint64_t shape[4], segment_bytes;
	uint32_t fill; /* elements start[0] .. are absent where it is odd */
	const char *chunk; /* of a manifest of its own; NULL: created */
};

#define ELEMENTS_MAX (1 << 20)

static uint32_t out[ELEMENTS_MAX];

static const struct layout *l;

static uint64_t nr_elements(void)
{
	uint64_t nr = 1;
	unsigned int i;

	for (i = 0; i < l->ndim; i++)
		nr *= l->shape[i];
	return nr;
}

static uint32_t value(uint64_t place)
{
	uint64_t x = (place + 1) * 0x9E3779B97F4A7C15ULL;

	return (uint32_t)(x >> 32) | 1; /* never a fill value of 0 */
}

/* The last third of axis 0 is never written where there is a fill value. */
static uint64_t written(void)
{
	return l->fill ? l->shape[0] - l->shape[0] / 3 : l->shape[0];
}

static uint32_t expected(const uint64_t *coord)
{
	uint64_t place = 0;
	unsigned int i;

	for (i = 0; i < l->ndim; i++)
		place = place * l->shape[i] + coord[i];
	return coord[0] < written() ? value(place) : l->fill;
}

static struct mmnf_box random_box(void)
{
	struct mmnf_box box = { { 0 }, { 0 }, { 0 } };
	unsigned int i;

	for (i = 0; i < l->ndim; i++) {
		uint64_t n = l->shape[i], step = rnd() % 4 ? 1 : 1 + rnd() % 5;

		box.start[i] = rnd() % n;
		box.count[i] = 1 + rnd() % ((n - 1 - box.start[i]) / step + 1);
		box.step[i] = (int64_t)step;
		if (rnd() % 5)
			continue;
		box.start[i] += (box.count[i] - 1) * step;
		box.step[i] = -box.step[i];
	}
	return box;
}

/* How many elements of a packed box are wrong. */
static uint64_t wrong(const struct mmnf_box *box, const uint32_t *got)
{
	uint64_t index[4] = { 0 }, coord[4], bad = 0;
	unsigned int i;

	for (;;) {
		for (i = 0; i < l->ndim; i++)
			coord[i] = box->start[i] +
				   index[i] * (uint64_t)box->step[i];
		bad += *got++ != expected(coord);
		for (i = l->ndim; i-- > 0;) {
			if (++index[i] < box->count[i])
				break;
			index[i] = 0;
		}
		if (i == (unsigned int)-1)
			return bad;
	}
}

static uint64_t elements_of(const struct mmnf_box *box)
{
	uint64_t nr = 1;
	unsigned int i;

	for (i = 0; i < l->ndim; i++)
		nr *= box->count[i];
	return nr;
}

static void check_box(struct mmnf_field *field)
{
	struct mmnf_box box = random_box();
	uint64_t bytes = elements_of(&box) * 4;

	memset(out, 0xee, bytes);
	if (rnd() % 4 == 0)
		EXPECT_GE(mmnf_prefetch(field, &box), 0);
	ASSERT_EQ(mmnf_get(field, &box, out, bytes), (ssize_t)bytes);
	ASSERT_EQ(wrong(&box, out), 0);
	if (rnd() % 8 == 0)
		EXPECT_GE(mmnf_evict(field, &box), 0);
}

static void check_list(struct mmnf_field *field)
{
	uint64_t record = nr_elements() / l->shape[0], nr, i, index[300];
	struct mmnf_box box = { { 0 }, { 0 }, { 0 } };

	nr = 1 + rnd() % 300;
	if (nr > ELEMENTS_MAX / record)
		nr = ELEMENTS_MAX / record;
	for (i = 0; i < nr; i++)
		index[i] = rnd() % l->shape[0];
	memset(out, 0xee, nr * record * 4);
	ASSERT_EQ(mmnf_batch_get(field, index, nr, out, nr * record * 4),
		  (ssize_t)(nr * record * 4));
	for (i = 0; i < l->ndim; i++) {
		box.count[i] = i ? l->shape[i] : 1;
		box.step[i] = 1;
	}
	for (i = 0; i < nr; i++) {
		box.start[0] = index[i];
		ASSERT_EQ(wrong(&box, out + i * record), 0);
	}
}

/* A bit of everything. */
static KTAP_UNUSED void check_field(struct mmnf_field *field,
				    unsigned int rounds)
{
	for (; rounds; rounds--) {
		check_box(field);
		check_list(field);
	}
}

#endif
