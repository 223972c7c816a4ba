/* SPDX-License-Identifier: MIT */
/*
 * Where elements lie, between geometry.c and runs.c: arithmetic alone, no file is
 * looked at.
 *
 *	shape, chunk, tile --geometry--> segment and offset of an element
 *	box --runs--> pieces of segments, in the order of the files
 *
 * A geometry does not change while its field is open, but for growing along axis 0.
 */
#ifndef MMNF_GEOMETRY_H
#define MMNF_GEOMETRY_H

#include <mmnf.h>

#include "core/port.h"

/* ---- geometry.c */

/**
 * struct mmnf_geometry - a field's shape and where its elements lie
 * @chunk: elements of one segment (one file) along each axis
 * @tile: elements of one tile; divides @chunk
 * @grid: segments along each axis
 * @tiles: tiles of one segment along each axis
 * @segment_stride: in segments, C order over the whole grid
 * @tile_stride: in tiles, C order over a segment
 * @stride_bytes: inside a tile, signed
 * @order: axes from the largest stride to the smallest
 * @data_offset: of element (0, 0, ...) of tile 0 in a segment's file
 * @segment_bytes: end of the last tile in a segment's file
 * @index_bytes: of the table of tiles that the file has besides; 0: none
 * @record_bytes: a row of the fastest axis if that is at most 1 MiB, else 0
 * @flat: one tile per segment and one axis, @split, that is cut: chunk[] is 1
 *	before it and grid[] is 1 behind it.  mmnf_activate() is then inline.
 * @index_first: the index lies before the tiles, not behind them
 * @indexed: a segment's index tells where a tile is.  Offsets are nominal until
 *	mmnf_segment_place() has been asked: tile t at
 *	data_offset + t * tile_bytes.
 *
 *	element -> segment, tile in it, place in that:
 *	c / chunk     c % chunk / tile     c % tile * stride_bytes
 *
 * Invariants: total_bytes and nr_segments * (segment_bytes + index_bytes) are at
 * most S64_MAX, so positions and offsets never overflow.
 */
struct mmnf_geometry {
	enum mmnf_dtype dtype;
	u32 ndim, split, element_bytes;
	bool flat, indexed, index_first, fill_is_zero;
	u8 fill[8];
	u64 shape[MMNF_NDIM_MAX];
	u64 chunk[MMNF_NDIM_MAX];
	u64 tile[MMNF_NDIM_MAX];
	u64 grid[MMNF_NDIM_MAX];
	u64 tiles[MMNF_NDIM_MAX];
	u64 segment_stride[MMNF_NDIM_MAX];
	u64 tile_stride[MMNF_NDIM_MAX];
	s64 stride_bytes[MMNF_NDIM_MAX];
	u32 order[MMNF_NDIM_MAX];
	u64 data_offset, tile_bytes, nr_tiles;
	u64 total_bytes, segment_bytes, index_bytes, nr_segments, record_bytes;
};

/*
 * From a shape, a chunk shape and a tile shape, or NULL for a tile per chunk;
 * fill is left zero.
 */
int mmnf_geometry_init(struct mmnf_geometry *g, enum mmnf_dtype dtype,
		       unsigned int ndim, const u64 *shape, const u64 *chunk,
		       const u64 *tile);

/*
 * One strided array in one file, element (0, 0, ...) at data_offset.  Every
 * element must lie inside file_bytes.
 */
int mmnf_geometry_init_file(struct mmnf_geometry *g, enum mmnf_dtype dtype,
			    unsigned int ndim, const u64 *shape,
			    const s64 *stride_bytes, u64 data_offset,
			    u64 file_bytes);

/*
 * The chunk shape of the native layout for at most segment_bytes per file: one
 * run of elements, or of tiles where tile is not NULL, in C order.
 */
int mmnf_geometry_cut(enum mmnf_dtype dtype, unsigned int ndim,
		      const u64 *shape, const u64 *tile, u64 segment_bytes,
		      u64 *chunk);

/* In a tile, axis axis[k] is the k-th slowest. */
void mmnf_geometry_transpose(struct mmnf_geometry *g, const u32 *axis);

/* Where the index of a segment is, and whether a CRC32C follows it. */
void mmnf_geometry_index(struct mmnf_geometry *g, bool first, bool crc);

/* Of a segment's file that has every tile at its nominal place. */
static inline u64 mmnf_geometry_file_bytes(const struct mmnf_geometry *g)
{
	return g->segment_bytes + (g->index_first ? 0 : g->index_bytes);
}

/* More elements along axis 0. */
int mmnf_geometry_grow(struct mmnf_geometry *g, u64 extent);

/* Segment and nominal offset of an element that is inside. */
void mmnf_geometry_locate(const struct mmnf_geometry *g, const u64 *coord,
			  u64 *segment, u64 *offset);

void mmnf_geometry_set_fill(struct mmnf_geometry *g, const void *fill);
void mmnf_geometry_fill(const struct mmnf_geometry *g, void *dst, u64 bytes);

/*
 * Checks a box and writes it in normal form: no step is 0, and a step is 1
 * where there is one element.  *bytes is what its elements take.
 */
int mmnf_geometry_box(const struct mmnf_geometry *g, const struct mmnf_box *box,
		      struct mmnf_box *normal, u64 *bytes);

/* ---- runs.c */

/**
 * struct mmnf_run - bytes of a segment that belong to a box
 * @segment: number
 * @offset: of the first byte; see mmnf_geometry.indexed
 * @bytes: from there on
 * @dst: where the first of them goes in the packed box
 * @unit: 0: @bytes in one piece.  Else pieces of @unit bytes:
 * @file_stride: from one piece to the next inside @bytes
 * @dst_stride: from one piece to the next in the packed box
 *
 *	file   [unit]..gap..[unit]..gap..[unit]		bytes, read as a whole
 *	box    [unit]   [unit]   [unit]			or the other way round
 */
struct mmnf_run {
	u64 segment, offset, bytes, dst;
	u32 unit, file_stride;
	s64 dst_stride;
};

/*
 * Is a box, in normal form and not empty, one piece of a tile?  Then that is its only
 * run, found without walking.
 */
bool mmnf_run_is_whole(const struct mmnf_geometry *g,
		       const struct mmnf_box *normal, struct mmnf_run *run);

/* From what was read at the run's offset to its places in the packed box. */
void mmnf_run_scatter(const struct mmnf_run *run, const void *from, void *box);
/* And back: @run has no gaps, as those of MMNF_RUNS_WRITE. */
void mmnf_run_gather(const struct mmnf_run *run, const void *box, void *to);
/* The same places with the fill value. */
void mmnf_run_fill(const struct mmnf_geometry *g, const struct mmnf_run *run,
		   void *box);

/**
 * enum mmnf_runs_mode - what the runs are for
 * @MMNF_RUNS_READ: gaps of less than a page are read and thrown away
 * @MMNF_RUNS_WRITE: no byte that is not the box's is in a run
 * @MMNF_RUNS_COVER: hints: runs cover the box with gaps of less than a page;
 *	they are never in pieces, and @dst means nothing
 */
enum mmnf_runs_mode { MMNF_RUNS_READ, MMNF_RUNS_WRITE, MMNF_RUNS_COVER };

/* Along each axis: the box's elements [at, at + n), counted in the box. */
struct mmnf_part {
	u64 at[MMNF_NDIM_MAX], n[MMNF_NDIM_MAX];
};

/**
 * struct mmnf_runs - a box as runs: segment by segment, tile by tile, and inside
 *	a tile in the order of the file
 * @in_segment: what of the box is in the present segment
 * @in_tile: and in the present tile
 * @axis: axes order[0 .. axis) are counted by @index, the rest is one run
 * @pos: bytes, or pieces, of that run that were handed out
 */
struct mmnf_runs {
	const struct mmnf_geometry *g;
	enum mmnf_runs_mode mode;
	bool end;
	u32 axis, file_stride;
	s64 dst_stride;
	u64 unit, nr, pos, limit, last_segment;
	u64 segment, offset, dst;
	struct mmnf_box box;
	u64 dst_pitch[MMNF_NDIM_MAX];
	u64 index[MMNF_NDIM_MAX];
	struct mmnf_part in_segment, in_tile;
};

/* limit: most bytes of one run, at least 4096 */
void mmnf_runs_init_mode(struct mmnf_runs *it, const struct mmnf_geometry *g,
			 const struct mmnf_box *normal, u64 limit,
			 enum mmnf_runs_mode mode);

static inline void mmnf_runs_init(struct mmnf_runs *it,
				  const struct mmnf_geometry *g,
				  const struct mmnf_box *normal, u64 limit)
{
	mmnf_runs_init_mode(it, g, normal, limit, MMNF_RUNS_READ);
}

bool mmnf_runs_next(struct mmnf_runs *it, struct mmnf_run *run);

/* Passes over the runs that follow in the segment of the last one. */
void mmnf_runs_skip_segment(struct mmnf_runs *it);

#endif
