/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the library share.  Nothing here is visible outside.
 *
 * Locks, outermost first: windows.lock, segments.lock, walk.lock; guard_lock, of
 * guard.c, inside the first two; that of a walker with no other.  None is held
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
#include "geometry.h"
#include "segment.h"

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

/* Sets the text to one that mmnf_last_error() gave before, elsewhere. */
void mmnf_error_again(const char *words);

/* Checks an options struct's size and that its unknown tail is zero. */
int mmnf_error_opts(const void *opts, size_t size, size_t known,
		    const char *name);

/* ---- dtype.c */

const char *mmnf_dtype_zarr(enum mmnf_dtype dtype);
int mmnf_dtype_from_zarr(const char *name); /* or -EINVAL, no text */
int mmnf_dtype_of(const char *name); /* "f32"; the same */
bool mmnf_dtype_is_float(enum mmnf_dtype dtype);

/* ---- crc32c.c */

/* Goes on from crc; 0 begins. */
u32 mmnf_crc32c(u32 crc, const void *data, u64 bytes);

/* ---- crc32c-block.c */

/* A checksum of 4096 bytes, of its own kind. */
u32 mmnf_crc32c_block(u32 crc, const void *block);

/* ---- store/zarr.c */

struct mmnf_net_layout;

/**
 * struct mmnf_store - where a field lies
 * @format: "zarr", or that of a plain file
 * @dir: the folder of a Zarr array, or -1
 * @file: the file with the data of a plain file, or -1
 * @checks: the file of checksums, or -1
 * @net: where the data lies, if that is on the network; else NULL
 * @name: of that in messages
 * @v2_keys: names of segments have no leading "c"
 * @checksums: of tiles are kept in the file MMNF_CHECKS_NAME
 */
struct mmnf_store {
	struct mmnf_geometry geometry;
	struct mmnf_net_layout *net;
	const char *format;
	int dir, file, checks;
	char *name;
	bool v2_keys, checksums;
	char separator;
};

#define MMNF_CHECKS_NAME "tiles.crc32c"

int mmnf_zarr_parse(struct mmnf_store *out, const char *text, size_t len);
int mmnf_zarr_read(struct mmnf_store *out, const char *path);
/* malloc; NULL: text */
char *mmnf_zarr_print(const struct mmnf_geometry *g, bool checksums);
/* net: where the data will lie; NULL: in files here */
int mmnf_zarr_write(const char *path, const struct mmnf_geometry *g,
		    bool checksums, const struct mmnf_net_layout *net);

/*
 * Changes the first extent of the manifest, and nothing else in it; -EINVAL if
 * that is less than what stands there by now.
 */
int mmnf_zarr_resize(const struct mmnf_store *store, u64 extent);

#define MMNF_KEY_MAX (MMNF_NDIM_MAX * 21 + 2)
void mmnf_zarr_key(const struct mmnf_store *store, u64 segment, char *key);

/* ---- file.c */

/* Of a stat's st_mode: has it bytes at offsets? */
bool mmnf_file_holds_data(unsigned int mode);

/*
 * openat(); sets errno and no text.  Whatever stands there, a FIFO or a socket, it
 * does not hang; a file that somebody has a lease on is waited for.
 */
int mmnf_file_open(int dir, const char *path, int flags);

/*
 * The length of an open regular file or block device.  0 or -errno without text;
 * -EINVAL: it is neither.
 */
int mmnf_file_bytes(int fd, u64 *bytes);

/* ---- copy.c */

/* Called now and then, and at the end, with bytes done and in all. */
typedef void mmnf_progress(void *arg, uint64_t done_bytes,
			   uint64_t total_bytes);

/*
 * Copies a box of src to the same shape at a place in dst, in blocks that suit
 * both.  src may have fewer axes: they are the last of dst.
 */
int mmnf_copy(struct mmnf_field *dst, const u64 *dst_at, struct mmnf_field *src,
	      const struct mmnf_box *box, mmnf_progress *progress, void *arg);

/* ---- resident.c */

/* Does mincore() say of a file what is so? */
bool mmnf_resident_may_ask(int fd);
/* Of all files of the field that were opened? */
bool mmnf_resident_is_known(const struct mmnf_field *field);

/*
 * A byte per page from start, a multiple of a page: 1 if it is known to be in the
 * page cache, else 0.  The range is inside the file.
 */
void mmnf_resident_pages(struct mmnf_field *field, struct mmnf_segment *s,
			 u64 start, u64 bytes, unsigned char *state);
void mmnf_resident_close(struct mmnf_segment *s);

/* The whole file in memory; MAP_FAILED, for good, if it can't be. */
char *mmnf_resident_map(struct mmnf_field *field, struct mmnf_segment *s);

/* ---- mapped.c */

typedef void mmnf_copy_fn(void *arg, const char *from);

/**
 * struct mmnf_mapped - a call that may copy from what is mapped
 * @s: the segment that it is at; NULL: none yet
 * @end: of what it copied there
 * @bytes: copied since it was looked whether copies have to wait
 * @look_bytes: after so many it is looked again
 * @may: 0: not known yet, 1: it may, -1: not any more
 * @major: the thread's page faults then that had to wait
 * @error: a file that it has left was cut
 */
struct mmnf_mapped {
	struct mmnf_field *field;
	struct mmnf_segment *s;
	u64 end, bytes, look_bytes;
	int may, error;
	long major;
};

/*
 * Calls a function for bytes of a file that were seen in memory a short while ago:
 * it may take them, and no others.  False: not seen, or gone.
 */
bool mmnf_mapped_copy(struct mmnf_mapped *m, u64 segment, u64 offset, u64 bytes,
		      mmnf_copy_fn *copy, void *arg);

/* Asks for the memory that a copy from there will need. */
void mmnf_mapped_touch(const struct mmnf_mapped *m, u64 segment, u64 offset);

/* Then it may begin again.  0, or -EIO if a file was cut under its copies. */
int mmnf_mapped_end(struct mmnf_mapped *m);

/* A read that may not wait has just found it. */
void mmnf_mapped_seen(struct mmnf_field *field, struct mmnf_segment *s,
		      u64 offset, u64 bytes);

/* Whole pages that somebody wants out of memory. */
void mmnf_mapped_drop(struct mmnf_segment *s, u64 offset, u64 bytes);
void mmnf_mapped_close(struct mmnf_segment *s);

/* ---- window.c */

/**
 * struct mmnf_mapping - a segment in memory
 * @bytes: length of the mapping
 * @device: the open device behind it, -1 for none
 * @generation: when it was last activated; see window.c
 * @pins: pointers that mmnf_window_pin() gave
 * @retired: there is a newer one of the segment: kept for pointers into it
 * @guarded: what guard.c knows of it; NULL: nothing
 */
struct mmnf_mapping {
	u64 segment, generation, bytes;
	char *base;
	int device;
	u32 pins;
	bool absent, retired;
	struct mmnf_guarded *guarded;
	struct mmnf_mapping *next;
};

/* An entry of the table that is read without a lock; see window.c. */
struct mmnf_window {
	u64 tag; /* segment + 1; 0 while empty or changing */
	const char *base; /* start of the segment's file in memory */
	u64 bytes; /* length of the file there */
	const char *index; /* table of its tiles; NULL: none */
};

struct mmnf_windows {
	pthread_mutex_t lock;
	struct mmnf_window *table; /* of nr_slots */
	u32 nr_slots, good, nr_active, nr_mapped, nr_pinned;
	u32 most; /* as the caller wants it, 0: the default */
	bool wide; /* beyond the 47 bits that all processes have */
	u64 generation;
	struct mmnf_mapping **chain;
	int pattern; /* memfd of the fill value, -1 until needed */
	u64 pattern_bytes;
	char *fill_tile; /* what absent tiles of present segments look like */
};

int mmnf_window_init(struct mmnf_field *field, u32 max_windows);
/* After the geometry has grown, and nobody else uses the field; or -ENOMEM. */
int mmnf_window_fit(struct mmnf_field *field);
/* Of a segment without a file, and what most of the others take. */
u64 mmnf_window_bytes(const struct mmnf_field *field);
void mmnf_window_exit(struct mmnf_field *field);

/*
 * A segment file has appeared, or another took its place: later pointers go
 * there.  Earlier ones follow where the field is flat.
 */
int mmnf_window_refresh(struct mmnf_field *field, u64 segment, bool replaced);

/*
 * Where a segment is mapped from a file, or NULL.  The caller holds
 * windows.lock.
 */
struct mmnf_mapping *mmnf_window_find(struct mmnf_field *field, u64 segment);

/* Where a segment is mapped, after mapping it if need be; NULL with text. */
struct mmnf_mapping *mmnf_window_use(struct mmnf_field *field, u64 segment);

/* window-fit.c: where a new mapping is to be looked for, a hint for mmap(). */
void *mmnf_window_hint(const struct mmnf_field *field);

/* Tells guard.c of all mappings, after field->guard has changed. */
void mmnf_window_guard(struct mmnf_field *field);

/* ---- guard.c */

struct mmnf_guard;

/* A window was mapped, or its file changed; and before it is unmapped. */
void mmnf_guard_window(struct mmnf_field *field, struct mmnf_mapping *m);
void mmnf_guard_drop(struct mmnf_mapping *m);

void mmnf_guard_close(struct mmnf_field *field);

/*
 * Memory of which a bad page ends mmnf_guard_copy(), instead of the program.  NULL:
 * it can't be.  To be dropped before it is unmapped.
 */
struct mmnf_guarded *mmnf_guard_range(const void *base, u64 bytes);
void mmnf_guard_range_drop(struct mmnf_guarded *range);

/* Would SIGBUS come to the guard, in this thread? */
bool mmnf_guard_can_copy(void);

/*
 * Calls a function that takes nothing but from a range of mmnf_guard_range().  False:
 * it ended somewhere in between, at a page that can't be read.
 */
bool mmnf_guard_copy(mmnf_copy_fn *copy, void *arg, const char *from);

/* ---- walk.c: the predictor of the mmap engine */

#define MMNF_BOX_WALKS 8

/**
 * struct mmnf_box_walk - boxes that one caller got one after the other
 * @seen: when, for LRU; 0: free
 * @box: the last one
 * @delta: from the one before, in elements
 * @alike: moves in a row that let the next one be expected
 * @ahead: boxes beyond the last that were asked for
 */
struct mmnf_box_walk {
	u64 thread, seen;
	const void *ip;
	struct mmnf_box box;
	s64 delta[MMNF_NDIM_MAX];
	u32 alike, ahead;
};

#define MMNF_WALKERS 16

/* What is known of the walks of one thread, or of some.  Its lock guards it all. */
struct mmnf_walker {
	pthread_mutex_t lock;
	u32 number;
	u64 nr_boxes;
	struct mmnf_table table;
	struct mmnf_box_walk boxes[MMNF_BOX_WALKS];
};

/**
 * struct mmnf_walk - the predictor of a field
 * @found: pages that a plan named and that were here already
 * @walker: by mmnf_thread_number(); all but the first when needed
 */
struct mmnf_walk {
	pthread_mutex_t lock;
	u64 id, pages_per_segment;
	struct mmnf_pending pending, found;
	struct mmnf_walker *walker[MMNF_WALKERS];
};

int mmnf_walk_init(struct mmnf_field *field);
/* After the geometry has grown. */
void mmnf_walk_fit(struct mmnf_field *field);
void mmnf_walk_exit(struct mmnf_field *field);

/* That of this thread. */
struct mmnf_walker *mmnf_walk_walker(struct mmnf_field *field);

/* Was this page this caller's previous one?  Counts the access if so. */
bool mmnf_walk_again(struct mmnf_field *field, u64 segment, u64 offset,
		     const void *ip);

enum mmnf_seen { MMNF_ABSENT, MMNF_HERE, MMNF_UNKNOWN };

/*
 * @offset: in the file, where @nominal has been placed
 * @pointer: through the page cache, also where the engine has an L2
 */
void mmnf_walk_touch(struct mmnf_field *field, u64 segment, u64 nominal,
		     u64 offset, const void *ip, enum mmnf_seen seen,
		     bool pointer);
void mmnf_walk_stats(struct mmnf_field *field, struct mmnf_field_stats *stats);

/*
 * Reads ahead what is absent of bytes that a copy will want, and counts it.  False:
 * there is no room for more.
 */
bool mmnf_walk_read(struct mmnf_field *field, u64 segment, u64 nominal,
		    u64 bytes);
/* Is there anything that was read ahead and not used? */
bool mmnf_walk_pending(struct mmnf_field *field);
/* They were wanted; not of fields with an index. */
void mmnf_walk_used(struct mmnf_field *field, u64 segment, u64 nominal,
		    u64 bytes);

/* ---- boxes.c */

/*
 * A box in normal form is got, by ip; with @waits it has to be waited for, and was
 * told of already.  Reads ahead of the walk it is part of; true: of a walk that was
 * expected to come here, or, with @waits, of any.
 */
bool mmnf_boxes_ahead(struct mmnf_field *field, const struct mmnf_box *box,
		      u64 bytes, const void *ip, bool waits);

/* ---- fetch.c */

#define MMNF_POOL 8

struct mmnf_fetch;

/* Fetches of calls that wait, kept for the next such call. */
struct mmnf_pool {
	pthread_mutex_t lock;
	u32 nr;
	struct mmnf_fetch *idle[MMNF_POOL];
};

/* ---- field.c */

/* mmnf_field_open() without its mmnf_error_enter(). */
int mmnf_field_open_quiet(struct mmnf_field **out, const char *path,
			  const struct mmnf_open_opts *opts);

/* A plain file of a known geometry, writable; takes fd over, also on failure. */
int mmnf_field_open_made(struct mmnf_field **out, const char *name,
			 const struct mmnf_geometry *g, int fd);

struct mmnf_tier_ops;
struct mmnf_cache;
struct mmnf_ahead;
struct mmnf_remote;

struct mmnf_field {
	struct mmnf_view view; /* first: mmnf_activate() looks there */
	struct mmnf_store store;
	bool writable, prefetch_off, no_uring, sqpoll;
	bool l2_once; /* what is read for a caller goes past L2 */
	bool blind; /* some file's residency is not told; see resident.c */
	u32 engine;
	char engine_reason[128];
	const struct mmnf_tier_ops *ops;
	struct mmnf_segments segments;
	struct mmnf_windows windows;
	struct mmnf_cache *cache; /* NULL: the engine has no use for L2 */
	struct mmnf_remote *remote; /* engine net; NULL: the field is here */
	struct mmnf_pool pool;
	struct mmnf_ahead *ahead; /* NULL until needed; pool.lock */
	struct mmnf_walk *walk; /* NULL: nothing is observed */
	struct mmnf_guard *guard; /* NULL: a bad page is a signal */
	struct mmnf_gpu *gpu; /* of each device that is enabled */
	struct mmnf_published *published; /* with the counters; publish.h */
	int published_fd;
};

static inline const struct mmnf_geometry *
mmnf_field_geometry(const struct mmnf_field *field)
{
	return &field->store.geometry;
}

static inline void mmnf_count(u64 *counter, u64 n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

/* ---- publish.c */

struct mmnf_published;

int mmnf_publish_open(struct mmnf_field *field); /* or -ENOMEM, no text */
void mmnf_publish_field(struct mmnf_field *field, const char *path);
void mmnf_publish_close(struct mmnf_field *field);
/* Where the counters of its tier on a device lie; NULL: no room for more. */
struct mmnf_gpu_stats *mmnf_publish_gpu(struct mmnf_field *field, u32 device,
					const char *name);

/* This thread's part of the counters, for mmnf_count(); DEVICE: of closed maps. */
struct mmnf_field_stats *mmnf_stats(const struct mmnf_field *field);
/* A get or batch has succeeded. */
void mmnf_stats_get(const struct mmnf_field *field, u64 bytes);
struct mmnf_field_stats mmnf_stats_sum(const struct mmnf_field *field);

u64 mmnf_publish_now(void);
/* A get or batch is done that took so long. */
void mmnf_publish_wait(struct mmnf_field *field, u64 ns);
/* The stream that was used last; under the walker's lock. */
void mmnf_publish_stream(struct mmnf_field *field,
			 const struct mmnf_walker *walker);

/* ---- shard.c: segments with an index */

/* What the index says, where it is no place in the file. */
#define MMNF_TILE_ABSENT (UINT64_MAX)
#define MMNF_TILE_WRONG (UINT64_MAX - 1)

/* The place of a nominal offset by an index in memory. */
u64 mmnf_shard_place(const struct mmnf_geometry *g, const void *index,
		     u64 file_bytes, u64 nominal);

/* Sets the text for MMNF_TILE_WRONG. */
int mmnf_shard_wrong(struct mmnf_field *field, u64 segment, u64 nominal);

/* ---- io.c */

/* mmnf_get() without its mmnf_error_enter(). */
ssize_t mmnf_get_box(struct mmnf_field *field, const struct mmnf_box *box,
		     void *dst, size_t dst_bytes);

/* ---- lock.c */

/* -EBUSY if another handle has any of it; takes nothing. */
int mmnf_lock_look(const struct mmnf_field *field, const struct mmnf_segment *s,
		   u64 start, u64 bytes);

/* -EBUSY if another handle has any of it; the range becomes this handle's. */
int mmnf_lock(struct mmnf_field *field, const struct mmnf_segment *s, u64 start,
	      u64 bytes);
/* No other handle is writing it, until mmnf_unlock(). */
void mmnf_lock_wait(const struct mmnf_field *field,
		    const struct mmnf_segment *s, u64 start, u64 bytes);
void mmnf_unlock(const struct mmnf_segment *s, u64 start, u64 bytes);

/* ---- write.c */

int mmnf_write_box(struct mmnf_field *field, const struct mmnf_box *normal,
		   const void *src);

/* ---- tier-gpu.c, gpu.c */

void mmnf_gpu_close(struct mmnf_field *field);

/* A part of a segment was written: drops it.  Returns bytes dropped. */
u64 mmnf_gpu_invalidate(struct mmnf_field *field, u64 segment, u64 offset,
			u64 bytes);

/* ---- hint.c */

/*
 * The first data at or behind *start: a hole needs no reading, and read ahead
 * it would fill memory with zeroes.  False if there is none before end.
 */
bool mmnf_hint_data(int fd, u64 *start, u64 end, u64 *bytes);

/* Starts reading the data in a part of a file, in pieces the kernel takes. */
void mmnf_hint_willneed(int fd, u64 offset, u64 bytes);

#endif
