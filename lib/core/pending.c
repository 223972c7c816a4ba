// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * See pending.h.  Never allocates or sleeps; bounded by four look-ups per
 * 64 pages.
 */
#include "pending.h"

#define GROUP_PAGES 64
#define NR_BUCKETS (MMNF_PENDING_ENTRIES / MMNF_PENDING_WAYS)

static u64 count_bits(u64 v)
{
	u64 nr = 0;

	for (; v; v &= v - 1)
		nr++;
	return nr;
}

/* Bits [bit, bit + nr) of a group. */
static u64 group_mask(u64 bit, u64 nr)
{
	u64 mask = nr == GROUP_PAGES ? U64_MAX : ((u64)1 << nr) - 1;

	return mask << bit;
}

/* How many of nr pages from first lie in its group. */
static u64 group_room(u64 first, u64 nr)
{
	u64 room = GROUP_PAGES - first % GROUP_PAGES;

	return nr < room ? nr : room;
}

static u64 bucket_of(u64 group)
{
	/* Fibonacci hashing: the high bits of the product are well mixed. */
	u64 hash = (group * 0x9E3779B97F4A7C15ULL) >> 32;

	return hash % NR_BUCKETS * MMNF_PENDING_WAYS;
}

/* The first of the ways that are free is used: who looks for it finds it soonest. */
static u64 group_add(struct mmnf_pending *pending, u64 group, u64 mask)
{
	struct mmnf_pending_entry *bucket = &pending->entry[bucket_of(group)];
	struct mmnf_pending_entry *slot = NULL, *e;
	u64 lost = 0;
	u32 way;

	for (way = MMNF_PENDING_WAYS; way-- > 0;) {
		e = &bucket[way];
		if (!e->pages) {
			slot = e;
		} else if (e->group == group) {
			lost = count_bits(e->pages & mask);
			WRITE_ONCE(e->pages, e->pages | mask);
			WRITE_ONCE(pending->nr,
				   pending->nr + count_bits(mask) - lost);
			return lost;
		}
	}
	if (!slot) {
		slot = &bucket[pending->turn++ % MMNF_PENDING_WAYS];
		lost = count_bits(slot->pages);
	}
	WRITE_ONCE(slot->group, group);
	WRITE_ONCE(slot->pages, mask);
	WRITE_ONCE(pending->nr, pending->nr + count_bits(mask) - lost);
	return lost;
}

static u64 group_take(struct mmnf_pending *pending, u64 group, u64 mask)
{
	struct mmnf_pending_entry *bucket = &pending->entry[bucket_of(group)];
	struct mmnf_pending_entry *e;
	u64 taken;

	for (e = bucket; e < bucket + MMNF_PENDING_WAYS; e++) {
		if (e->group != group || !e->pages)
			continue;
		taken = count_bits(e->pages & mask);
		WRITE_ONCE(e->pages, e->pages & ~mask);
		WRITE_ONCE(pending->nr, pending->nr - taken);
		return taken;
	}
	return 0;
}

/* Single pages are most of what is added, and of what is taken. */
u64 mmnf_pending_add(struct mmnf_pending *pending, u64 first, u64 nr)
{
	u64 lost = 0, n;

	if (nr == 1)
		return group_add(pending, first / GROUP_PAGES,
				 (u64)1 << first % GROUP_PAGES);
	for (; nr; first += n, nr -= n) {
		n = group_room(first, nr);
		lost += group_add(pending, first / GROUP_PAGES,
				  group_mask(first % GROUP_PAGES, n));
	}
	return lost;
}

u64 mmnf_pending_take(struct mmnf_pending *pending, u64 first, u64 nr)
{
	u64 taken = 0, n;

	if (nr == 1 && pending->nr)
		return group_take(pending, first / GROUP_PAGES,
				  (u64)1 << first % GROUP_PAGES);
	for (; nr && pending->nr; first += n, nr -= n) {
		n = group_room(first, nr);
		taken += group_take(pending, first / GROUP_PAGES,
				    group_mask(first % GROUP_PAGES, n));
	}
	return taken;
}

bool mmnf_pending_has(const struct mmnf_pending *pending, u64 page)
{
	u64 group = page / GROUP_PAGES, bit = page % GROUP_PAGES;
	const struct mmnf_pending_entry *bucket =
		&pending->entry[bucket_of(group)];
	u32 way;

	if (!READ_ONCE(pending->nr))
		return false;
	for (way = 0; way < MMNF_PENDING_WAYS; way++)
		if (READ_ONCE(bucket[way].group) == group &&
		    READ_ONCE(bucket[way].pages) >> bit & 1)
			return true;
	return false;
}

u64 mmnf_pending_forget(struct mmnf_pending *pending)
{
	u64 nr = pending->nr;

	memset(pending, 0, sizeof(*pending));
	return nr;
}
