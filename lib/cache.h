/* SPDX-License-Identifier: MIT */
/*
 * L2: tiles of segment files in memory, for engines under which no page cache
 * lies.  See cache.c for how, here for what.
 *
 *	           get() FILL              filled(true)          get() HIT, pinned
 *	(unknown) ------------> filling --------------> ready <-------------------
 *	     ^                     | filled(false),       | evicted while not
 *	     |                     | drop() before it     | pinned, drop()
 *	     '---------------------+----------------------'
 *
 * A slot that is pinned stays what it is and where it is.  A tile that is
 * dropped while pinned is unknown at once; its slot is free after the last pin.
 */
#ifndef MMNF_CACHE_H
#define MMNF_CACHE_H

#include "internal.h"

#define MMNF_TILE_BYTES 4096

/* Number of a tile in its field, segments in a row. */
typedef u64 mmnf_tile;

#define MMNF_NO_TILE UINT64_MAX

enum mmnf_cache_state {
	MMNF_CACHE_HIT, /* the slot is pinned and holds the tile */
	MMNF_CACHE_FILL, /* the slot is pinned: read the tile, then filled() */
	MMNF_CACHE_BUSY, /* somebody else is reading it; no slot */
	MMNF_CACHE_FULL, /* not here, and every slot is in use: no slot */
};

/* Of a slot; its inside is cache.c's. */
struct mmnf_pin {
	u32 slot, place;
};

struct mmnf_cache_stats {
	u64 hits, misses, evicted, full;
};

struct mmnf_cache;

/*
 * bytes is rounded to some slots; segment_tiles is the pitch of segments in
 * numbers of tiles.  -ENOMEM, with text.
 */
int mmnf_cache_open(struct mmnf_cache **out, u64 bytes, u32 policy,
		    u64 segment_tiles);
void mmnf_cache_close(struct mmnf_cache *cache);

/* Takes all memory now, before anybody uses the cache.  -ENOMEM, with text. */
int mmnf_cache_populate(struct mmnf_cache *cache);
bool mmnf_cache_is_populated(const struct mmnf_cache *cache);

/*
 * The tile at an offset of a segment's file, or MMNF_NO_TILE if none has a
 * number there: such bytes are never kept, and get() answers FULL.
 */
mmnf_tile mmnf_cache_tile(const struct mmnf_cache *cache, u64 segment,
			  u64 offset);

/*
 * Looks a tile up; claims a slot for it if it is not there and @claim.  Without
 * @claim the answer is HIT, BUSY or FULL, and FULL as mmnf_cache_knows() tells.
 * @driven: the filler goes on reading until it has filled, whatever others do,
 *	so that they may wait for it
 */
enum mmnf_cache_state mmnf_cache_get(struct mmnf_cache *cache, mmnf_tile tile,
				     bool claim, bool driven,
				     struct mmnf_pin *pin);

/* After FILL, once.  Those who get the tile from now on see it, if ok. */
void mmnf_cache_filled(struct mmnf_cache *cache, struct mmnf_pin pin, bool ok);

/* Unpins; in any thread. */
void mmnf_cache_put(struct mmnf_cache *cache, struct mmnf_pin pin);

/*
 * Waits until a tile that was BUSY is no longer being filled.  False at once if
 * its filler is not driven.
 */
bool mmnf_cache_wait(struct mmnf_cache *cache, mmnf_tile tile);

/* What slots take that hold a tile, or are to: filled, being filled, or pinned. */
u64 mmnf_cache_used(const struct mmnf_cache *cache);

/* Counts that where it can be seen; before anybody else uses the cache. */
void mmnf_cache_show(struct mmnf_cache *cache, u64 *used_bytes);

/* Forgets a tile; was it there? */
bool mmnf_cache_drop(struct mmnf_cache *cache, mmnf_tile tile);

/*
 * Drops what lies in these bytes, after they were written or to make room, and
 * tells how many tiles it were.  A field without L2 is fine.
 */
u64 mmnf_cache_forget(struct mmnf_field *field, u64 segment, u64 offset,
		      u64 bytes);

/*
 * Has any tile of these bytes a slot, filled or being filled?  For whoever reads past
 * the cache: mostly without a lock, so a tile that another's eviction is moving in the
 * index may be overlooked.
 */
bool mmnf_cache_knows(const struct mmnf_cache *cache, u64 segment, u64 offset,
		      u64 bytes);

/* Is this byte there?  Not counted as a use; without a cache it is not. */
bool mmnf_cache_has(struct mmnf_cache *cache, u64 segment, u64 offset);

char *mmnf_cache_data(const struct mmnf_cache *cache, struct mmnf_pin pin);

/* The one mapping that all tiles lie in; NULL and 0 for no cache. */
void mmnf_cache_memory(const struct mmnf_cache *cache, char **base, u64 *bytes);

/* Ask for the memory that such a get() of this tile will look at. */
void mmnf_cache_touch(const struct mmnf_cache *cache, mmnf_tile tile,
		      bool claim);
/* And, somewhat later, for its bytes from @at on, if it is there. */
void mmnf_cache_touch_data(const struct mmnf_cache *cache, mmnf_tile tile,
			   u64 at);

void mmnf_cache_stats(struct mmnf_cache *cache, struct mmnf_cache_stats *out);

#endif
