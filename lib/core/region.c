// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Random touches of a small region: a table that fits in a window, in any order.
 *
 *	--o----------o--x-----o-------x----o---- - - - -o--
 *	  low           inside                   high   too far: a new region
 *
 * A touch between those before it says that the region is come back to.  A walk in
 * one direction has no such touch, random ones over anything much larger than the
 * region hardly ever many in a row, and a binary search fewer than it has halves.
 * After so many, each further miss brings the block about it, as large as the
 * kernel's own read-around.  Besides the record, nothing is read that does not lie
 * between two touches.
 *
 * Touches that hop within a region, and are soon elsewhere, look the same.  So blocks
 * are read on credit: each is owed for until touches find what it brought, and a stream
 * that owes as much as the largest region reads no more of them.  What nobody touches
 * of blocks is at most that, and a fixed multiple of what somebody does.
 *
 * Never allocates, sleeps, reads a clock or does I/O; there are no loops.
 */
#include "stream.h"

/* More than the pages that a binary search of the largest region misses. */
#define MIN_INSIDE 12
/* A power of two. */
#define BLOCK_GRAINS 32
/* Of the largest region; what lies in a larger one is hardly ever wanted whole. */
#define REGION_GRAINS 2048
/*
 * What a touch of what was read ahead pays for, at least; and that is half as much again
 * as it made accessible: blocks overlap, and some of their touches come too early.
 */
#define PAID_GRAINS 8

void mmnf_stream_pay(struct mmnf_stream *s, const struct mmnf_access *access)
{
	u64 seen = 1ULL + access->before + access->after;

	if (access->fresh)
		s->owed -= (u32)min_of(s->owed,
				       max_of(PAID_GRAINS, seen + seen / 2));
}

bool mmnf_stream_region(const struct mmnf_table *table, struct mmnf_stream *s,
			u64 pos, struct mmnf_plan *plan)
{
	u64 low = min_of(s->low, pos), high = max_of(s->high, pos), start, end;
	const struct mmnf_limits *limits = &table->limits;
	u64 block = BLOCK_GRAINS * table->grain;

	if (high - low >=
	    min_of(limits->max_window_bytes, REGION_GRAINS * table->grain)) {
		s->low = pos;
		s->high = pos;
		s->inside = 0;
		return false;
	}
	s->inside += low != pos && high != pos && s->inside < MIN_INSIDE;
	s->low = low;
	s->high = high;
	if (s->inside < MIN_INSIDE || s->owed >= REGION_GRAINS ||
	    table->span > block || block > limits->max_window_bytes ||
	    block > limits->max_inflight_bytes)
		return false;
	/* What does not fit in memory would be read again and again. */
	if (table->room && div64_u64(high - low, table->grain) >= table->room)
		return false;
	start = max_of(pos & ~(block - 1), grain_of(table, low));
	end = min_of((pos | (block - 1)), high | (table->grain - 1)) + 1;
	low = mmnf_table_record(table, pos, &high);
	start = min_of(start, grain_of(table, low));
	end = max_of(end, min_of(high, table->end));
	memset(plan, 0, sizeof(*plan));
	plan->start = start;
	plan->nr = 1;
	plan->span = end - start;
	s->owed += (u32)div64_u64(plan->span, table->grain);
	return true;
}
