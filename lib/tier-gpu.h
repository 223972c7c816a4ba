/* SPDX-License-Identifier: MIT */
/*
 * L1: tiles of a field's files in the memory of one GPU.
 *
 *	selection -> cursor.c -> pieces (tile, offset, bytes, place in the result)
 *	          -> slots: which slot holds the tile?          gpu-slots.c
 *	    miss  -> read into staging, copy to the slot        gpu-fill.c
 *	    then  -> one gather from slots to the result        gpu-batch.c
 *
 * All device memory is one allocation, never larger than the budget:
 *
 *	| slots: nr x tile | staging x 2 | index x 4 | result for the host |
 *
 * Two orders keep the bytes right, both held by streams and events alone, so
 * that nobody waits for the GPU in between:
 *
 *	read after fill		a gather waits for the last fill of its tiles
 *	fill after read		a fill waits for every batch that read the slots
 *				it overwrites
 *
 * A pin keeps a slot from being chosen for another tile; a batch pins only from
 * its planning until its gather is queued, a pointer of mmnf_get_device() until
 * it is given back.
 *
 * gpu->lock guards everything below but what is said otherwise.  It is not held
 * while data is read or the GPU is waited for.  Who waits for a free slot, an
 * index or a staging buffer holds no pin that others wait for, so nobody waits
 * in a circle: a batch that gets no slot ends its part and gathers what it has.
 */
#ifndef MMNF_TIER_GPU_H
#define MMNF_TIER_GPU_H

#include "cuda-dl.h"

/* ---- gpu-slots.c */

#define MMNF_SLOT_NONE UINT32_MAX

enum mmnf_slot_state {
	MMNF_SLOT_FREE,
	MMNF_SLOT_LOADING, /* somebody reads it; pinned by him */
	MMNF_SLOT_READY, /* its fill is queued: stream order does the rest */
	MMNF_SLOT_FAILED, /* could not be read; pinned by those who waited */
};

/**
 * struct mmnf_slot - room for a tile on the device
 * @tile: what it holds unless free
 * @last_batch: the last batch that reads it
 * @fill: the fill that brings it
 * @older, @newer: neighbours among those that may be evicted; not linked
 *	while pinned
 * @held: pointers of mmnf_get_device() to it
 * @stale: no longer in the index: free once unpinned
 * @prefetched: brought ahead, and not used yet
 */
struct mmnf_slot {
	u64 tile, last_batch, fill;
	u32 pins, held, older, newer;
	u8 state;
	bool stale, prefetched;
};

/* stamp: of the part that has pinned it last, so that a part does it once. */
struct mmnf_slot_entry {
	u64 tile;
	u32 slot, stamp;
};

/**
 * struct mmnf_slots - which tile is where, and who goes next
 *
 * An open-addressed table, at most half full, and a list in order of last use:
 * placement is free and the victim is exactly the least recently used.
 */
struct mmnf_slots {
	u32 nr, nr_used, shift;
	u32 free, oldest, newest;
	struct mmnf_slot_entry *entry;
	struct mmnf_slot *slot;
};

int mmnf_slots_init(struct mmnf_slots *s, u32 nr); /* or -ENOMEM, no text */
void mmnf_slots_exit(struct mmnf_slots *s);

static inline u64 mmnf_slots_hash(const struct mmnf_slots *s, u64 tile)
{
	return tile * 0x9E3779B97F4A7C15ULL >> s->shift;
}

/* The entry of a tile, or the empty one where it would be. */
static inline struct mmnf_slot_entry *
mmnf_slots_find(const struct mmnf_slots *s, u64 tile)
{
	u64 mask = (1ULL << (64 - s->shift)) - 1;
	u64 i = mmnf_slots_hash(s, tile);

	while (s->entry[i].slot != MMNF_SLOT_NONE && s->entry[i].tile != tile)
		i = (i + 1) & mask;
	return &s->entry[i];
}

/* The slot that is taken next, MMNF_SLOT_NONE if all are pinned. */
static inline u32 mmnf_slots_next(const struct mmnf_slots *s)
{
	return s->free != MMNF_SLOT_NONE ? s->free : s->oldest;
}

/*
 * A slot for a tile that is in none: LOADING, pinned once.  Its former tile is
 * gone from the index.  MMNF_SLOT_NONE if all are pinned.
 */
u32 mmnf_slots_take(struct mmnf_slots *s, u64 tile);
void mmnf_slots_pin(struct mmnf_slots *s, u32 slot);
/* cold: the next to be evicted, as if never used. */
void mmnf_slots_unpin(struct mmnf_slots *s, u32 slot, bool cold);
/* Takes a tile out of the index; its slot is free once nobody pins it. */
void mmnf_slots_forget(struct mmnf_slots *s, u32 slot);

/* ---- tier-gpu.c */

#define MMNF_GPU_STAGING 2
#define MMNF_GPU_BATCHES 4

/**
 * struct mmnf_gpu_staging - what is read from lower tiers and copied from here
 * @fill: the last fill from here; @event is recorded behind it
 */
struct mmnf_gpu_staging {
	char *host;
	u64 device, fill;
	void *event;
	bool busy;
};

/**
 * struct mmnf_gpu_batch - a batch between planning and the GPU's end of it
 * @number: in order of recording; 0: never recorded
 * @event: recorded behind its gather
 * @done: known to have passed
 * @copy_waits: the copy stream waits for it already
 */
struct mmnf_gpu_batch {
	u64 number, device;
	char *host;
	void *event;
	bool busy, done, copy_waits;
};

struct mmnf_gpu {
	struct mmnf_field *field;
	struct mmnf_cuda *cuda;
	struct mmnf_gpu *next;
	pthread_mutex_t lock, result_lock;
	pthread_cond_t change; /* a slot, staging or batch became free or ready */
	u32 tile_bytes, tile_shift, nr_held;
	u32 staging_tiles, index_bytes, result_bytes, stamp;
	u64 tiles_per_segment, bytes, memory, result_device;
	void *copy_stream, *own_stream;
	void *host; /* all staging, indices and the result's */
	char *result_host;
	bool pageable, by_kernel;
	char why_pageable[128];
	u64 last_fill, fill_done, last_batch;
	struct mmnf_slots slots;
	struct mmnf_gpu_staging staging[MMNF_GPU_STAGING];
	struct mmnf_gpu_batch batch[MMNF_GPU_BATCHES];
	struct mmnf_gpu_stats *stats, unseen_stats; /* see mmnf_publish_gpu() */
	struct mmnf_gpu_prefetch *prefetch;
};

/* The tier of a field on a device, NULL where it is not on. */
struct mmnf_gpu *mmnf_gpu_find(struct mmnf_field *field, u32 device);
/* What it is, for mmnf_tiers_info(). */
void mmnf_gpu_describe(struct mmnf_gpu *g, struct mmnf_tier *t);
/* 0, or -ENODEV: lost, or this is a child of the process that enabled it. */
int mmnf_gpu_usable(struct mmnf_gpu *g);

/* ---- gpu-fill.c */

/* A tile that is to come: the slot it comes to. */
struct mmnf_gpu_miss {
	u64 tile;
	u32 slot;
};

/**
 * mmnf_gpu_fill() - bring tiles into their slots
 * @miss: LOADING slots, by slot; READY afterwards, or FAILED
 * @index, @index_bytes: of this batch, copied first and in one piece;
 * @slots_at: where the slots of @miss stand in it, for the scatter
 *
 * Without gpu->lock.  On failure the tiles not brought are out of the index.
 */
int mmnf_gpu_fill(struct mmnf_gpu *g, struct mmnf_gpu_batch *b,
		  const struct mmnf_gpu_miss *miss, u32 nr, u64 index_bytes,
		  u64 slots_at);

/* Makes a stream wait for a fill.  With gpu->lock. */
int mmnf_gpu_await_fill(struct mmnf_gpu *g, u64 fill, void *stream);

/* ---- gpu-batch.c */

struct mmnf_gpu_batch *mmnf_gpu_batch_begin(struct mmnf_gpu *g, int *err);
/* Records the event behind what was queued to the stream.  With gpu->lock. */
int mmnf_gpu_batch_end(struct mmnf_gpu *g, struct mmnf_gpu_batch *b,
		       void *stream);

struct mmnf_gpu_cursor;

/**
 * mmnf_gpu_gather() - a selection into memory of the device
 * @to: device address; or 0: the host's @host
 */
int mmnf_gpu_gather(struct mmnf_gpu *g, struct mmnf_gpu_cursor *c, u64 to,
		    void *host, void *stream);

/* The address of the one piece of a selection; its slot stays pinned. */
int mmnf_gpu_hold(struct mmnf_gpu *g, struct mmnf_gpu_cursor *c, u64 *out,
		  void *stream);

/* mmnf_slots_take() that counts what it drops unused.  With gpu->lock. */
u32 mmnf_gpu_take_slot(struct mmnf_gpu *g, u64 tile);

/* ---- gpu-cursor.c */

/* Part of a tile, and where it belongs in the result. */
struct mmnf_gpu_piece {
	u64 tile, offset, bytes, to;
};

/**
 * struct mmnf_gpu_cursor - a selection as pieces
 *
 * Plain data: a copy of it is a place to come back to.
 */
struct mmnf_gpu_cursor {
	const struct mmnf_gpu *g;
	const u64 *index; /* NULL: a box */
	u64 nr_index, next, record_bytes, bytes;
	struct mmnf_box box;
	struct mmnf_runs runs;
	struct mmnf_run run; /* from its present unit on */
	u64 left, run_to; /* of the unit; the place of its record */
	bool is_open; /* runs is under way */
	bool by_rows; /* records are rows: see mmnf_gpu_gather() */
};

int mmnf_gpu_cursor_init(struct mmnf_gpu_cursor *c, struct mmnf_gpu *g,
			 const struct mmnf_selection *selection);
/* The next piece, but leaves it the next; false at the end. */
bool mmnf_gpu_cursor_peek(struct mmnf_gpu_cursor *c,
			  struct mmnf_gpu_piece *piece);
void mmnf_gpu_cursor_pass(struct mmnf_gpu_cursor *c,
			  const struct mmnf_gpu_piece *piece);

#endif
