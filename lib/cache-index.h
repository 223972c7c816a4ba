/* SPDX-License-Identifier: MIT */
/*
 * The index of a shard of L2: open addressing, searched from a tile's home on.
 * Changed under the shard's lock; looked at without it, too.
 */
#ifndef MMNF_CACHE_INDEX_H
#define MMNF_CACHE_INDEX_H

#include "cache-policy.h"

#define NEAR_SHIFT 3 /* tiles in one cache line of the index */
#define PROBES 8 /* without the lock; few tiles stand farther from home */

/* Other bits of the hash than the shard's. */
static inline u64 index_home(const struct shard *sh, mmnf_tile tile)
{
	u64 near = tile & ((1 << NEAR_SHIFT) - 1);

	return ((tile_hash(tile >> NEAR_SHIFT) >> 8 << NEAR_SHIFT) + near) &
	       sh->index_mask;
}

/* Where the tile stands in the index, or the free entry it would take. */
static inline u64 *index_find(const struct shard *sh, mmnf_tile tile)
{
	u64 i = index_home(sh, tile), entry;

	for (; (entry = sh->index[i]); i = (i + 1) & sh->index_mask)
		if (entry >> 32 == (u32)tile &&
		    sh->slots[(u32)entry - 1].tile == tile)
			break;
	return &sh->index[i];
}

/* Without the lock: where it stands and what stood there, or NULL: unknown. */
static inline const u64 *index_find_unlocked(const struct shard *sh,
					     mmnf_tile tile, u64 *entry)
{
	u64 i = index_home(sh, tile), n;

	for (n = 0; n < PROBES; n++, i = (i + 1) & sh->index_mask) {
		*entry = __atomic_load_n(&sh->index[i], __ATOMIC_ACQUIRE);
		if (!*entry)
			return NULL;
		if (*entry >> 32 == (u32)tile)
			return &sh->index[i];
	}
	return NULL;
}

/* Readers without the lock look at an entry again when they have pinned. */
static inline void index_set(u64 *entry, u64 value)
{
	__atomic_store_n(entry, value, __ATOMIC_SEQ_CST);
}

/* Closes the gap, so that no search ends too early. */
static inline void index_remove(struct shard *sh, mmnf_tile tile)
{
	u64 gap = (u64)(index_find(sh, tile) - sh->index), i = gap, entry, home;

	if (!sh->index[gap])
		return;
	while ((entry = sh->index[i = (i + 1) & sh->index_mask])) {
		home = index_home(sh, sh->slots[(u32)entry - 1].tile);
		if (((i - home) & sh->index_mask) >=
		    ((i - gap) & sh->index_mask)) {
			index_set(&sh->index[gap], entry);
			gap = i;
		}
	}
	index_set(&sh->index[gap], 0);
}

#endif
