/* SPDX-License-Identifier: MIT */
/*
 * Segments with an index, between shard.c (reading), shard-write.c and verify.c.
 *
 * Locks: shard.turn is held for reading while a tile is written, for writing
 * while the file is flushed or replaced; then shard.lock, which guards place[] against
 * other writers, and dirty[].
 */
#ifndef MMNF_SHARD_H
#define MMNF_SHARD_H

#include "internal.h"

struct mmnf_entry {
	u64 offset, bytes;
};

/**
 * struct mmnf_dirty - a tile that was written and not yet flushed
 * @is_new: the index does not name it yet
 */
struct mmnf_dirty {
	u64 tile;
	bool is_new;
};

#define MMNF_DIRTY_MAX 4096
#define MMNF_PLACE_DIRTY (1ULL << 63)

/**
 * struct mmnf_shard - what is known of an open segment with an index
 * @place: of each tile, plus one, or 0: look it up; and MMNF_PLACE_DIRTY
 * @stale: another file has taken its place
 * @checked: the index has been found sound and nominal
 */
struct mmnf_shard {
	pthread_rwlock_t turn;
	pthread_mutex_t lock;
	u64 *place;
	bool stale, checked;
	u32 nr_dirty;
	struct mmnf_dirty dirty[MMNF_DIRTY_MAX];
};

struct mmnf_shard *mmnf_shard_new(const struct mmnf_geometry *g);
void mmnf_shard_free(struct mmnf_shard *shard);

/* Where the index is in a file of so many bytes. */
static inline u64 mmnf_shard_index(const struct mmnf_geometry *g,
				   u64 file_bytes)
{
	return g->index_first ? 0 : file_bytes - g->index_bytes;
}

/* *place in the file, or MMNF_TILE_ABSENT. */
int mmnf_shard_entry(struct mmnf_field *field, const struct mmnf_segment *s,
		     u64 tile, u64 *place);

/**
 * enum mmnf_index_state - what an index is
 * @MMNF_INDEX_NOMINAL: each tile is absent or at its nominal place
 * @MMNF_INDEX_PACKED: sound, in an order of its own
 * @MMNF_INDEX_TORN: as NOMINAL, but the checksum is of another time: a writer
 *	died between the two.  Each entry is right by itself.
 * @MMNF_INDEX_WRONG: not to be believed
 */
enum mmnf_index_state {
	MMNF_INDEX_NOMINAL,
	MMNF_INDEX_PACKED,
	MMNF_INDEX_TORN,
	MMNF_INDEX_WRONG,
};

/* The whole index, malloc'ed; -errno without text. */
int mmnf_shard_load(const struct mmnf_geometry *g, int fd, u64 file_bytes,
		    u8 **out);
enum mmnf_index_state mmnf_shard_check(const struct mmnf_geometry *g,
				       const u8 *index, u64 file_bytes,
				       u64 *nr_present);

/* ---- shard-write.c */

/* The index of a file without tiles, written; -errno without text. */
int mmnf_shard_init(const struct mmnf_geometry *g, int fd);

/* Puts an index with its checksum; -errno without text. */
int mmnf_shard_store(const struct mmnf_geometry *g, int fd, u8 *index,
		     u64 file_bytes);

#define MMNF_SHARD_REPLACE 1
#define MMNF_SHARD_STALE 2
#define MMNF_SHARD_FULL 3

/*
 * Makes the tile of a run ready to be written, and the run's offset that in the
 * file.  shard.turn is held.  MMNF_SHARD_REPLACE: the file has no room for it:
 * mmnf_shard_replace() and begin again.  MMNF_SHARD_STALE: another handle has
 * done so: get the segment again.  MMNF_SHARD_FULL: mmnf_shard_flush() first.
 * *bare: the tile is new and the run all of it: mmnf_shard_end() when it is written.
 */
int mmnf_shard_begin(struct mmnf_field *field, struct mmnf_segment *s,
		     struct mmnf_run *run, bool *bare);

/*
 * A bare tile is written, at that offset in the file; or that failed, and it is absent
 * as before.  shard.turn is held since it began.
 */
void mmnf_shard_end(struct mmnf_field *field, struct mmnf_segment *s,
		    u64 offset, bool failed);

/*
 * Copies the tiles to a file with room for all, and puts that in its place; s is
 * then stale.  shard.turn is held for writing.
 */
int mmnf_shard_replace(struct mmnf_field *field, struct mmnf_segment *s);

/* Names in the index what was written, and gives up the locks.  Takes turn. */
int mmnf_shard_flush(struct mmnf_field *field, struct mmnf_segment *s);

/* ---- verify.c: checksums of tiles */

/* Unknown until mmnf_check_set(), also after a power cut. */
int mmnf_check_clear(struct mmnf_field *field, u64 segment, u64 tile);

/*
 * The same of all tiles of a box, waiting for the disk once; it needs no lock.  -EBUSY,
 * and nothing is taken away, if another handle has one of them.
 */
int mmnf_check_clear_box(struct mmnf_field *field,
			 const struct mmnf_box *normal);
int mmnf_check_set(struct mmnf_field *field, const struct mmnf_segment *s,
		   u64 tile, u64 place);

#endif
