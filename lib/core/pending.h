/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The pages that were read ahead and not used yet: a set of page numbers in
 * fixed memory, so that every page read ahead is later counted as used, wasted
 * or pending, exactly once.
 *
 * 64 neighbouring pages share an entry; an entry lives in one bucket of four,
 * found by hash, so every operation looks at four entries per 64 pages.  A full
 * bucket forgets its entries in turn: the forgotten pages count as wasted.
 *
 * The caller serialises all but mmnf_pending_has().
 */
#ifndef MMNF_CORE_PENDING_H
#define MMNF_CORE_PENDING_H

#include "port.h"

#define MMNF_PENDING_ENTRIES 2048
#define MMNF_PENDING_WAYS 4

struct mmnf_pending_entry {
	u64 group; /* page / 64 */
	u64 pages; /* one bit each; 0: free */
};

/**
 * struct mmnf_pending - the set; all zero is empty
 * @nr: pages in it
 * @turn: whose turn it is to be forgotten
 */
struct mmnf_pending {
	u64 nr;
	u32 turn;
	struct mmnf_pending_entry entry[MMNF_PENDING_ENTRIES];
};

/**
 * mmnf_pending_add() - pages [first, first + nr) were read ahead
 * Return: pages forgotten for it, and pages that were in the set already
 * (read ahead before, reclaimed, and read again): both are wasted reads.
 */
u64 mmnf_pending_add(struct mmnf_pending *pending, u64 first, u64 nr);

/**
 * mmnf_pending_take() - remove pages [first, first + nr)
 * Return: how many of them were in the set.
 */
u64 mmnf_pending_take(struct mmnf_pending *pending, u64 first, u64 nr);

/**
 * mmnf_pending_has() - is a page in the set?
 *
 * May be called while others change the set: then the answer may be from before
 * or after, also of other pages of the same bucket.
 */
bool mmnf_pending_has(const struct mmnf_pending *pending, u64 page);

/**
 * mmnf_pending_forget() - empty the set
 * Return: how many pages were in it.
 */
u64 mmnf_pending_forget(struct mmnf_pending *pending);

#endif
