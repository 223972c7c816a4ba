// SPDX-License-Identifier: MIT
/*
 * Which tile is in which slot of the device, and which goes next.
 *
 * Free slots are taken first.  Pinned ones are in no list, so the victim is the
 * list's oldest end, found at once however many are pinned.
 *
 *	free, free ...    oldest -> cold, least ... most recently used
 *
 * Never asks the driver; the caller holds gpu->lock.
 */
#include <errno.h>
#include <stdlib.h>

#include "tier-gpu.h"

static void link_oldest(struct mmnf_slots *s, u32 i)
{
	struct mmnf_slot *slot = &s->slot[i];

	slot->older = MMNF_SLOT_NONE;
	slot->newer = s->oldest;
	if (s->oldest != MMNF_SLOT_NONE)
		s->slot[s->oldest].older = i;
	else
		s->newest = i;
	s->oldest = i;
}

static void link_newest(struct mmnf_slots *s, u32 i)
{
	struct mmnf_slot *slot = &s->slot[i];

	slot->newer = MMNF_SLOT_NONE;
	slot->older = s->newest;
	if (s->newest != MMNF_SLOT_NONE)
		s->slot[s->newest].newer = i;
	else
		s->oldest = i;
	s->newest = i;
}

static void unlink_slot(struct mmnf_slots *s, u32 i)
{
	const struct mmnf_slot *slot = &s->slot[i];

	if (slot->older != MMNF_SLOT_NONE)
		s->slot[slot->older].newer = slot->newer;
	else
		s->oldest = slot->newer;
	if (slot->newer != MMNF_SLOT_NONE)
		s->slot[slot->newer].older = slot->older;
	else
		s->newest = slot->older;
}

static void link_free(struct mmnf_slots *s, u32 i)
{
	s->slot[i].newer = s->free;
	s->free = i;
}

int mmnf_slots_init(struct mmnf_slots *s, u32 nr)
{
	u32 bits = 1, i;

	while (1ULL << bits < 2ULL * nr)
		bits++;
	memset(s, 0, sizeof(*s));
	s->nr = nr;
	s->shift = 64 - bits;
	s->free = s->oldest = s->newest = MMNF_SLOT_NONE;
	s->entry = malloc(sizeof(*s->entry) << bits);
	s->slot = calloc(nr, sizeof(*s->slot));
	if (!s->entry || !s->slot) {
		mmnf_slots_exit(s);
		return -ENOMEM;
	}
	for (i = 0; i < 1U << bits; i++)
		s->entry[i] = (struct mmnf_slot_entry) { 0, MMNF_SLOT_NONE, 0 };
	/* In order: tiles that come together come to neighbouring slots. */
	for (i = nr; i--;)
		link_free(s, i);
	return 0;
}

void mmnf_slots_exit(struct mmnf_slots *s)
{
	free(s->entry);
	free(s->slot);
	s->entry = NULL;
	s->slot = NULL;
}

/* Closes the gap: what stands behind it moves up if it hashes no later. */
static void remove_entry(struct mmnf_slots *s, u64 tile)
{
	u64 mask = (1ULL << (64 - s->shift)) - 1;
	u64 gap = (u64)(mmnf_slots_find(s, tile) - s->entry), i = gap;

	for (;;) {
		u64 home;

		i = (i + 1) & mask;
		if (s->entry[i].slot == MMNF_SLOT_NONE)
			break;
		home = mmnf_slots_hash(s, s->entry[i].tile);
		if (((i - home) & mask) < ((i - gap) & mask))
			continue;
		s->entry[gap] = s->entry[i];
		gap = i;
	}
	s->entry[gap].slot = MMNF_SLOT_NONE;
	s->entry[gap].stamp = 0;
}

u32 mmnf_slots_take(struct mmnf_slots *s, u64 tile)
{
	struct mmnf_slot_entry *e;
	u32 i = mmnf_slots_next(s);
	struct mmnf_slot *slot;

	if (i == MMNF_SLOT_NONE)
		return i;
	slot = &s->slot[i];
	if (slot->state == MMNF_SLOT_FREE) {
		s->free = slot->newer;
		s->nr_used++;
	} else {
		unlink_slot(s, i);
		remove_entry(s, slot->tile);
	}
	e = mmnf_slots_find(s, tile);
	e->tile = tile;
	e->slot = i;
	e->stamp = 0;
	slot->tile = tile;
	slot->state = MMNF_SLOT_LOADING;
	slot->pins = 1;
	slot->fill = 0;
	slot->stale = slot->prefetched = false;
	return i;
}

void mmnf_slots_pin(struct mmnf_slots *s, u32 slot)
{
	if (!s->slot[slot].pins++)
		unlink_slot(s, slot);
}

void mmnf_slots_unpin(struct mmnf_slots *s, u32 i, bool cold)
{
	struct mmnf_slot *slot = &s->slot[i];

	if (--slot->pins)
		return;
	if (slot->stale) {
		slot->state = MMNF_SLOT_FREE;
		slot->stale = false;
		s->nr_used--;
		link_free(s, i);
	} else if (cold) {
		link_oldest(s, i);
	} else {
		link_newest(s, i);
	}
}

void mmnf_slots_forget(struct mmnf_slots *s, u32 i)
{
	struct mmnf_slot *slot = &s->slot[i];

	if (slot->stale || slot->state == MMNF_SLOT_FREE)
		return;
	remove_entry(s, slot->tile);
	slot->stale = true;
	mmnf_slots_pin(s, i);
	mmnf_slots_unpin(s, i, true);
}
