// SPDX-License-Identifier: MIT
/*
 * Which chunk is in which slot, in memory alone.
 *
 *	tag	state 2 bits, used 1 bit, then the chunk, or the next of a list
 *
 *	UNKNOWN --evict--> CLEARING --cleared--> READY --take, insert--> LIVE
 *	                      ^                                           |
 *	                      '------------------ drop, evict ------------'
 *
 * UNKNOWN is what nobody has looked at since open: its record on the disk may
 * be anything.  Those go first.  Then eviction is CLOCK: a slot that was used since the hand passed it
 * is passed once more.
 *
 * Never touches the disk; the caller holds the lock.
 */
#include <errno.h>
#include <stdlib.h>

#include "ssd-internal.h"

#define STATE (3ULL << 62)
#define UNKNOWN 0ULL
#define LIVE (1ULL << 62)
#define CLEARING (2ULL << 62)
#define READY (3ULL << 62)
#define USED (1ULL << 61)
#define REST (USED - 1)

/* Load of at most 2/3. */
static u64 table_len(u32 nr_slots)
{
	return nr_slots + nr_slots / 2ULL + 2;
}

int mmnf_ssd_index_open(struct ssd_index *x, u32 nr_slots)
{
	x->nr_slots = nr_slots;
	x->table_len = table_len(nr_slots);
	x->clearing = x->ready = SSD_NO_SLOT;
	x->tag = calloc(nr_slots, sizeof(*x->tag));
	x->table = calloc(x->table_len, sizeof(*x->table));
	return x->tag && x->table ?
		       0 :
		       mmnf_error(ENOMEM, "no memory for an index of %u chunks",
				  nr_slots);
}

void mmnf_ssd_index_close(struct ssd_index *x)
{
	free(x->tag);
	free(x->table);
}

u64 mmnf_ssd_index_bytes(const struct ssd_index *x)
{
	return x->nr_slots * sizeof(*x->tag) + x->table_len * sizeof(*x->table);
}

static u64 home(const struct ssd_index *x, u64 chunk)
{
	u64 hash = chunk * 0x9e3779b97f4a7c15;

	hash ^= hash >> 32;
	hash *= 0xd6e8feb86659fd93;
	return (u64)((unsigned __int128)hash * x->table_len >> 64);
}

static u64 next_place(const struct ssd_index *x, u64 place)
{
	return place + 1 == x->table_len ? 0 : place + 1;
}

/* Where the chunk is in the table, or the empty place where it would be. */
static u64 lookup(const struct ssd_index *x, u64 chunk)
{
	u64 place = home(x, chunk);

	while (x->table[place] && (x->tag[x->table[place] - 1] & REST) != chunk)
		place = next_place(x, place);
	return place;
}

u32 mmnf_ssd_index_find(const struct ssd_index *x, u64 chunk)
{
	u32 slot = x->table[lookup(x, chunk)];

	return slot ? slot - 1 : SSD_NO_SLOT;
}

void mmnf_ssd_index_use(struct ssd_index *x, u32 slot)
{
	x->tag[slot] |= USED;
}

bool mmnf_ssd_index_chunk(const struct ssd_index *x, u32 slot, u64 *chunk)
{
	*chunk = x->tag[slot] & REST;
	return (x->tag[slot] & STATE) == LIVE;
}

void mmnf_ssd_index_insert(struct ssd_index *x, u32 slot, u64 chunk)
{
	x->table[lookup(x, chunk)] = slot + 1;
	x->tag[slot] = LIVE | chunk;
	x->nr_live++;
}

/*
 * What follows moves up, unless it would come before its home:
 *
 *	...[hole][a][b][ ]	a moves if its home is not behind the hole
 */
static void remove_place(struct ssd_index *x, u64 hole)
{
	u64 place = hole;

	for (;;) {
		u64 at, from_hole, from_home;

		place = next_place(x, place);
		if (!x->table[place])
			break;
		at = home(x, x->tag[x->table[place] - 1] & REST);
		from_hole = (place + x->table_len - hole) % x->table_len;
		from_home = (place + x->table_len - at) % x->table_len;
		if (from_home < from_hole)
			continue;
		x->table[hole] = x->table[place];
		hole = place;
	}
	x->table[hole] = 0;
}

void mmnf_ssd_index_drop(struct ssd_index *x, u32 slot)
{
	if ((x->tag[slot] & STATE) == LIVE) {
		remove_place(x, lookup(x, x->tag[slot] & REST));
		x->nr_live--;
	}
	x->tag[slot] = CLEARING | x->clearing;
	x->clearing = slot;
	x->nr_clearing++;
}

u32 mmnf_ssd_index_take_clearing(struct ssd_index *x)
{
	u32 first = x->clearing;

	x->clearing = SSD_NO_SLOT;
	x->nr_clearing = 0;
	return first;
}

u32 mmnf_ssd_index_next(const struct ssd_index *x, u32 slot)
{
	return (u32)x->tag[slot];
}

void mmnf_ssd_index_cleared(struct ssd_index *x, u32 slot)
{
	x->tag[slot] = READY | x->ready;
	x->ready = slot;
	x->nr_ready++;
}

u32 mmnf_ssd_index_take_ready(struct ssd_index *x)
{
	u32 slot = x->ready;

	if (slot != SSD_NO_SLOT) {
		x->ready = (u32)x->tag[slot];
		x->nr_ready--;
	}
	return slot;
}

u32 mmnf_ssd_index_evict(struct ssd_index *x, u32 nr)
{
	u64 steps = 2ULL * x->nr_slots;
	u32 nr_evicted = 0;

	for (; nr && x->fresh < x->nr_slots; x->fresh++) {
		if ((x->tag[x->fresh] & STATE) != UNKNOWN)
			continue;
		mmnf_ssd_index_drop(x, x->fresh);
		nr--;
	}
	for (; nr && steps; steps--) {
		u32 slot = x->hand;

		x->hand = slot + 1 == x->nr_slots ? 0 : slot + 1;
		if ((x->tag[slot] & STATE) != LIVE)
			continue;
		if (x->tag[slot] & USED) {
			x->tag[slot] &= ~USED;
		} else {
			mmnf_ssd_index_drop(x, slot);
			nr_evicted++;
			nr--;
		}
	}
	return nr_evicted;
}
