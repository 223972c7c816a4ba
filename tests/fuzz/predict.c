// SPDX-License-Identifier: MIT
/*
 * The predictor, given any touches of any field: the laws of predict.h hold, and
 * the same touches give the same plans.
 *
 * The input's head makes a table (sizes, records, geometry, limits); the rest is
 * moves of eight walkers, four bytes each: most go on along their nest of
 * strides, so that the fuzzer finds deep states and not noise alone.
 *
 *	make fuzz F=predict S=60		new inputs for so many seconds
 */
#include <stdio.h>
#include <stdlib.h>

#include "../unit/predict_cases.h"

#define WALKERS 8

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

struct head {
	u64 start, end, span, inflight_bytes, window_bytes;
	u32 min_depth, max_depth, room;
	u8 grain, shift, nr_axes, axis_shift[3], unlimited, pad;
	uint16_t extent[3];
	s64 jump[3];
};

struct walker {
	u64 pos;
	u8 at[2];
};

static void broken(const char *law)
{
	if (!*law)
		return;
	fprintf(stderr, "law: %s\n", law);
	abort();
}

static u64 fill(void *to, u64 bytes, const u8 **data, size_t *size)
{
	u64 n = *size < bytes ? *size : bytes;

	memset(to, 0, bytes);
	memcpy(to, *data, n);
	*data += n;
	*size -= n;
	return n;
}

static void make_table(struct mmnf_table *table, struct head *h)
{
	s64 stride[3];
	u64 extent[3];
	u32 i;

	h->end = (h->end & S64_MAX) >> h->shift % 40;
	h->start = h->end ? h->start % (h->end + 1) : 0;
	mmnf_table_init(table, h->grain & 1 ? 65536 : 4096, h->start, h->end,
			(h->span & S64_MAX) >> h->shift % 60);
	for (i = 0; i < 3; i++) {
		stride[i] = (s64)(1ULL << h->axis_shift[i] % 50);
		if (h->axis_shift[i] & 64)
			stride[i] = -stride[i];
		extent[i] = h->extent[i] + 1;
	}
	mmnf_table_set_axes(table, stride, extent, h->nr_axes % 4);
	if (h->grain & 2)
		mmnf_table_set_file(table, h->grain & 4 ? h->end : S64_MAX);
	if (h->unlimited & 1)
		return;
	table->limits.min_depth = h->min_depth ? h->min_depth : 1;
	table->limits.max_depth = h->max_depth < table->limits.min_depth ?
					  table->limits.min_depth :
					  h->max_depth;
	table->limits.max_window_bytes = h->window_bytes;
	table->limits.max_inflight_bytes = h->inflight_bytes;
	table->room = h->room;
}

/* One of three jumps, nested, or anywhere. */
static void move(struct walker *w, const struct head *h, u8 how, u8 number)
{
	switch (how % 8) {
	case 0:
		w->pos = h->end ? (w->pos ^ h->end) * (number + 1) % h->end :
				  number;
		break;
	case 1:
		w->pos += number * 4096ULL;
		break;
	default:
		if (++w->at[0] <= number % 16)
			w->pos += (u64)h->jump[0];
		else if (w->at[0] = 0, ++w->at[1] <= number / 16)
			w->pos += (u64)h->jump[1];
		else
			w->at[1] = 0, w->pos += (u64)h->jump[2];
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static const u32 around[] = { 0, 0, 7, 15, 511, U32_MAX, 1, 0 };
	static struct mmnf_table table, twin;
	struct walker walkers[WALKERS] = { 0 };
	struct mmnf_plan plan, twin_plan;
	struct mmnf_access access = { 0 };
	u8 op[4];
	struct head h;
	bool planned;
	u32 i;

	fill(&h, sizeof(h), &data, &size);
	make_table(&table, &h);
	twin = table;
	for (i = 0; i < WALKERS; i++)
		walkers[i].pos = h.start + (h.end - h.start) / WALKERS * i;
	while (fill(op, sizeof(op), &data, &size) == sizeof(op)) {
		struct walker *w = &walkers[op[0] % WALKERS];

		move(w, &h, op[1], op[2]);
		access.thread = op[0] / WALKERS % 3;
		access.ip = op[0] % WALKERS / 2 + op[3] % 2;
		access.pos = w->pos;
		access.now_ns += op[1] * 1000;
		access.before = around[op[3] / 2 % 8];
		access.after = around[op[3] / 16 % 8];
		access.outcome = op[3] % 3;
		access.fresh = op[0] >> 7;
		planned = mmnf_observe(&table, &access, &plan);
		broken(mmnf_law_of_table(&table));
		if (planned)
			broken(mmnf_law_of_plan(&table, access.pos, &plan));
		if (planned != mmnf_observe(&twin, &access, &twin_plan) ||
		    (planned && memcmp(&plan, &twin_plan, sizeof(plan))))
			broken("the same touches give the same plans");
		if (planned && op[2] >= 224) {
			mmnf_unplan(&table);
			mmnf_unplan(&twin);
			broken(mmnf_law_of_table(&table));
		}
		if (access.outcome == MMNF_HIT)
			continue;
		access.now_ns += op[2] * 1000;
		mmnf_resume(&table, access.thread, access.now_ns, access.before,
			    access.after);
		mmnf_resume(&twin, access.thread, access.now_ns, access.before,
			    access.after);
		broken(mmnf_law_of_table(&table));
	}
	return 0;
}
