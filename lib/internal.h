/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the library share.  Nothing here is visible outside.
 *
 * Locks, outermost first: windows.lock, segments.lock, walk.lock.  None is held
 * while data is read.
 *
 * Errors: a function that returns -errno has set the text of
 * mmnf_last_error(), unless its comment says otherwise.
 */
#ifndef MMNF_INTERNAL_H
#define MMNF_INTERNAL_H

#include <mmnf.h>
#include <pthread.h>

#include "core/pending.h"
#include "core/predict.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "fields are little-endian and mapped as they are"
#endif

#define MMNF_EXPORT MMNF_API

static inline u64 min_u64(u64 a, u64 b)
{
	return a < b ? a : b;
}

static inline u64 max_u64(u64 a, u64 b)
{
	return a > b ? a : b;
}

static inline u64 round_up_u64(u64 v, u64 to)
{
	return (v + to - 1) / to * to;
}

u64 mmnf_page_bytes(void);

/* ---- error.c */

/* Names the public function on whose behalf this thread works from now on. */
void mmnf_error_enter(const char *function);

/* Sets the text to "function: ..." and returns -err. */
int mmnf_error(int err, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* As mmnf_error(), with ": " and the system's words for err at the end. */
int mmnf_error_system(int err, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Checks an options struct's size and that its unknown tail is zero. */
int mmnf_error_opts(const void *opts, size_t size, size_t known,
		    const char *name);

/* ---- dtype.c */

const char *mmnf_dtype_zarr(enum mmnf_dtype dtype);
int mmnf_dtype_from_zarr(const char *name); /* or -EINVAL, no text */
bool mmnf_dtype_is_float(enum mmnf_dtype dtype);

/* ---- geometry.c */

/**
 * struct mmnf_geometry - a field's shape and how it is cut into segments
 * @split: the axis that is cut; chunk[] is 1 before it, and the grid is 1
 *	after it, so that a segment is one run of C-order bytes
 * @stride_bytes: for axes >= @split, inside a segment
 * @segment_stride: for axes <= @split, in segments
 * @record_bytes: a row of the last axis if that is at most 1 MiB, else 0
 *
 * Invariants: total_bytes and nr_segments * segment_bytes are at most S64_MAX,
 * so positions and offsets never overflow.
 */
struct mmnf_geometry {
	enum mmnf_dtype dtype;
	u32 ndim, split, element_bytes;
	u64 shape[MMNF_NDIM_MAX];
	u64 chunk[MMNF_NDIM_MAX];
	u64 grid[MMNF_NDIM_MAX];
	u64 stride_bytes[MMNF_NDIM_MAX];
	u64 segment_stride[MMNF_NDIM_MAX];
	u64 total_bytes, segment_bytes, nr_segments, record_bytes;
	u8 fill[8];
	bool fill_is_zero;
};

/* From a shape and a chunk shape; fill is left zero. */
int mmnf_geometry_init(struct mmnf_geometry *g, enum mmnf_dtype dtype,
		       unsigned int ndim, const u64 *shape, const u64 *chunk);

/* The chunk shape of the native layout for at most segment_bytes per file. */
int mmnf_geometry_cut(enum mmnf_dtype dtype, unsigned int ndim,
		      const u64 *shape, u64 segment_bytes, u64 *chunk);

void mmnf_geometry_set_fill(struct mmnf_geometry *g, const void *fill);
void mmnf_geometry_fill(const struct mmnf_geometry *g, void *dst, u64 bytes);

/*
 * Checks a box and writes it in normal form: no step is 0, and a step is 1
 * where there is one element.  *bytes is what its elements take.
 */
int mmnf_geometry_box(const struct mmnf_geometry *g, const struct mmnf_box *box,
		      struct mmnf_box *normal, u64 *bytes);

/* ---- runs.c */

/* bytes at offset of a segment, which belong at dst of the packed box */
struct mmnf_run {
	u64 segment, offset, bytes, dst;
};

/**
 * struct mmnf_runs - the contiguous pieces of a box, in C order
 * @axis: axes before it are counted by @index; the rest is one run
 * @limit: most bytes of one piece
 */
struct mmnf_runs {
	const struct mmnf_geometry *g;
	struct mmnf_box box;
	u32 axis;
	bool end;
	u64 index[MMNF_NDIM_MAX];
	u64 run_bytes, pos, limit, last_segment;
};

void mmnf_runs_init(struct mmnf_runs *it, const struct mmnf_geometry *g,
		    const struct mmnf_box *normal, u64 limit);
bool mmnf_runs_next(struct mmnf_runs *it, struct mmnf_run *run);

/* Passes over the runs that follow in the segment of the last one. */
void mmnf_runs_skip_segment(struct mmnf_runs *it);

/*
 * The box that covers @box with no gap smaller than @gap bytes inside: for
 * hints, whose unit is the page.
 */
void mmnf_runs_cover(const struct mmnf_geometry *g, struct mmnf_box *box,
		     u64 gap);

/* ---- store/zarr.c */

struct mmnf_zarr {
	struct mmnf_geometry geometry;
	bool v2_keys; /* no leading "c" */
	char separator;
};

int mmnf_zarr_parse(struct mmnf_zarr *out, const char *text, size_t len);
int mmnf_zarr_read(struct mmnf_zarr *out, int dir, const char *path);
char *mmnf_zarr_print(const struct mmnf_geometry *g); /* malloc; NULL: text */
int mmnf_zarr_write(const char *path, const struct mmnf_geometry *g);

#define MMNF_KEY_MAX (MMNF_NDIM_MAX * 21 + 2)
void mmnf_zarr_key(const struct mmnf_zarr *zarr, u64 segment, char *key);

/* ---- import.c */

/**
 * struct mmnf_array - a strided array in a plain file
 */
struct mmnf_array {
	enum mmnf_dtype dtype;
	u32 ndim;
	u64 shape[MMNF_NDIM_MAX];
	s64 stride_bytes[MMNF_NDIM_MAX];
	u64 data_offset_bytes;
};

/**
 * struct mmnf_format - a file format that can be read as an array
 * @is: do the first bytes look like it?
 * @parse: header to array; file_bytes bounds what the header may promise
 *
 * @head holds the first min(file_bytes, MMNF_HEAD_MAX) bytes.
 */
struct mmnf_format {
	const char *name;
	bool (*is)(const u8 *head, size_t len);
	int (*parse)(struct mmnf_array *out, const u8 *head, size_t len,
		     u64 file_bytes);
};

#define MMNF_HEAD_MAX (1 << 20)

extern const struct mmnf_format mmnf_format_npy, mmnf_format_nifti;

/* Fills strides from the shape and checks the data against the file's size. */
int mmnf_array_finish(struct mmnf_array *a, bool fortran, u64 file_bytes);

/* ---- segment.c */

/**
 * struct mmnf_segment - an open segment file
 * @refs: users; 0: may be closed
 */
struct mmnf_segment {
	u64 number, stamp;
	u32 refs;
	int fd;
	bool cached, dirty, created;
};

#define MMNF_SEGMENTS_OPEN 64

struct mmnf_segments {
	pthread_mutex_t lock;
	u64 clock;
	int lost_error; /* an fsync at eviction failed: sync must say so */
	struct mmnf_segment *open[MMNF_SEGMENTS_OPEN];
};

struct mmnf_field;

/*
 * Opens a segment file, or makes it.  -ENOENT, without text, if it is absent
 * and create is false.
 */
int mmnf_segment_get(struct mmnf_field *field, u64 number, bool create,
		     struct mmnf_segment **out);
void mmnf_segment_put(struct mmnf_field *field, struct mmnf_segment *s);
int mmnf_segment_sync(struct mmnf_field *field);
void mmnf_segment_close_all(struct mmnf_field *field);

/* ---- window.c */

/**
 * struct mmnf_mapping - a segment in memory
 * @device: the open device behind it, -1 for none
 * @generation: when it was last activated; see window.c
 */
struct mmnf_mapping {
	u64 segment, generation;
	char *base;
	int device;
	bool absent;
	struct mmnf_mapping *next;
};

struct mmnf_windows {
	pthread_mutex_t lock;
	u32 nr_slots, good, nr_active, nr_mapped;
	u64 generation;
	struct mmnf_mapping **chain;
	int pattern; /* memfd of the fill value, -1 until needed */
	u64 pattern_bytes;
};

int mmnf_window_init(struct mmnf_field *field, u32 max_windows);
void mmnf_window_exit(struct mmnf_field *field);

/* A segment file has appeared: show it where its absence was mapped. */
int mmnf_window_refresh(struct mmnf_field *field, u64 segment);

/*
 * Where a segment is mapped from a file, or NULL.  The caller holds
 * windows.lock.
 */
struct mmnf_mapping *mmnf_window_find(struct mmnf_field *field, u64 segment);

/* ---- walk.c: the predictor of the mmap engine */

struct mmnf_walk {
	pthread_mutex_t lock;
	u64 id, pages_per_segment;
	u64 hits, late, misses;
	u64 nr_prefetched, nr_used, nr_wasted;
	struct mmnf_table table;
	struct mmnf_pending pending;
};

int mmnf_walk_init(struct mmnf_field *field);

/* Was this page this caller's previous one?  Counts the access if so. */
bool mmnf_walk_again(struct mmnf_field *field, u64 segment, u64 offset,
		     const void *ip);
void mmnf_walk_touch(struct mmnf_field *field, u64 segment, u64 offset,
		     const void *ip, bool resident);
void mmnf_walk_stats(struct mmnf_field *field, struct mmnf_field_stats *stats);

/* ---- field.c */

struct mmnf_tier_ops;

struct mmnf_field {
	struct mmnf_view view; /* first: mmnf_activate() looks there */
	struct mmnf_zarr zarr;
	int dir;
	bool writable, prefetch_off;
	u32 engine;
	char engine_reason[128];
	const struct mmnf_tier_ops *ops;
	struct mmnf_segments segments;
	struct mmnf_windows windows;
	struct mmnf_walk *walk; /* NULL: nothing is observed */
	struct mmnf_field_stats stats; /* atomic adds; DEVICE: of closed maps */
};

static inline const struct mmnf_geometry *
mmnf_field_geometry(const struct mmnf_field *field)
{
	return &field->zarr.geometry;
}

static inline void mmnf_count(u64 *counter, u64 n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

/* ---- io.c */

int mmnf_io_write(struct mmnf_field *field, const struct mmnf_box *normal,
		  const void *src);

/* ---- hint.c */

/*
 * The first data at or behind *start: a hole needs no reading, and read ahead
 * it would fill memory with zeroes.  False if there is none before end.
 */
bool mmnf_hint_data(int fd, u64 *start, u64 end, u64 *bytes);

/* Starts reading the data in a part of a file, in pieces the kernel takes. */
void mmnf_hint_willneed(int fd, u64 offset, u64 bytes);

#endif
