/* SPDX-License-Identifier: MIT */
/*
 * What the files of the cache share; see ssd.h.
 *
 *	ssd.c		open, close, texts
 *	ssd-disk.c	files of a directory
 *	ssd-index.c	chunk -> slot, and which slot is given up; memory only
 *	ssd-record.c	valid bits and checksums of a slot; some in memory
 *	ssd-read.c	reads, and what was fetched instead
 *	ssd-fill.c	the filler thread and the checkpoint
 *
 * Locks, outermost first: turn (one checkpoint at a time), lock (everything in
 * memory).  The disk is never waited for with lock held.
 */
#ifndef MMNF_SSD_INTERNAL_H
#define MMNF_SSD_INTERNAL_H

#include "ssd.h"

#define SSD_BLOCKS_MAX 256 /* of a chunk */
#define SSD_NO_SLOT UINT32_MAX
#define SSD_STAMPS 4096
#define SSD_FILE_SLOTS (1U << 20) /* of a data file: ext4 ends at 16 TiB */
#define SSD_FILES_MAX 1024

/* ---- ssd-index.c */

/**
 * struct ssd_index - which chunk is in which slot
 * @tag: of each slot, see ssd-index.c
 * @table: open addressing, linear probing; slot + 1, 0: empty
 * @hand: of CLOCK
 * @fresh: no slot before it is unknown
 * @clearing, @ready: first of the lists, or SSD_NO_SLOT
 *
 * 8 bytes of tag and 6 of table for each slot: 14 MiB for each TiB of chunks.
 */
struct ssd_index {
	u64 *tag;
	u32 *table;
	u64 table_len;
	u32 nr_slots, hand, fresh, clearing, ready;
	u32 nr_live, nr_clearing, nr_ready;
};

int mmnf_ssd_index_open(struct ssd_index *x, u32 nr_slots);
void mmnf_ssd_index_close(struct ssd_index *x);
u64 mmnf_ssd_index_bytes(const struct ssd_index *x);

/* The slot of a chunk, or SSD_NO_SLOT. */
u32 mmnf_ssd_index_find(const struct ssd_index *x, u64 chunk);
void mmnf_ssd_index_use(struct ssd_index *x, u32 slot);

/* The chunk of a slot that is live; false: it is not. */
bool mmnf_ssd_index_chunk(const struct ssd_index *x, u32 slot, u64 *chunk);

/* A slot with nothing in it becomes live. */
void mmnf_ssd_index_insert(struct ssd_index *x, u32 slot, u64 chunk);

/* A live slot, or one nobody knows, must be cleared on the disk before its use. */
void mmnf_ssd_index_drop(struct ssd_index *x, u32 slot);

/* Takes the list of slots to be cleared away: SSD_NO_SLOT at its end. */
u32 mmnf_ssd_index_take_clearing(struct ssd_index *x);
u32 mmnf_ssd_index_next(const struct ssd_index *x, u32 slot);

/* It has been cleared: may be taken. */
void mmnf_ssd_index_cleared(struct ssd_index *x, u32 slot);
u32 mmnf_ssd_index_take_ready(struct ssd_index *x);

/* Drops up to nr slots, those first that hold nothing.  How many were live. */
u32 mmnf_ssd_index_evict(struct ssd_index *x, u32 nr);

/* ---- ssd-record.c */

/**
 * struct ssd_record - of a slot, as on the disk
 * @sum: of this, from @chunk on, begun with the identity
 * @chunk: + 1; 0: nothing here
 */
struct ssd_record {
	u32 magic, sum;
	u64 chunk;
	u64 reserved[2];
	u64 valid[SSD_BLOCKS_MAX / 64];
	u32 block_sum[SSD_BLOCKS_MAX];
};

_Static_assert(sizeof(struct ssd_record) == 1088, "as on the disk");

/* So much zeroed ends a record; never in two sectors. */
#define SSD_RECORD_HEAD 64

/* DIRTY: not on the disk yet; WRITING: on its way there.  Both stay. */
enum entry_state { ENTRY_EMPTY, ENTRY_CLEAN, ENTRY_WRITING, ENTRY_DIRTY };

struct ssd_entry {
	u32 slot;
	u8 state, used;
	struct ssd_record r;
};

#define SSD_WAYS 4
#define SSD_SETS 512

/* One hash of chunks to few stamps: see mmnf_ssd_stamp(). */
struct ssd_stamps {
	u64 now, of[SSD_STAMPS];
};

/* A copy that waits for the filler. */
struct ssd_job {
	u64 offset, bytes, ticket;
	char *data;
	struct ssd_job *next;
};

/**
 * struct mmnf_ssd - the cache of a space
 * @off: nothing is read or kept any more; @why says why.  Set once.
 * @paused_until_ns: the disk was full: nothing is kept until then
 * @nr_errors: of the disk
 * @salt: what every checksum begins with
 * @generation: changes whenever records have been written
 * @nr_dirty: entries; since @dirty_since_ns
 */
struct mmnf_ssd {
	pthread_mutex_t lock, turn;
	pthread_cond_t wake;
	struct mmnf_ssd_disk *disk;
	struct mmnf_ssd_backing backing;
	bool off, stop, has_thread, was_dropped;
	char why[160];
	s64 paused_until_ns;
	u32 nr_errors, salt, chunk_blocks, chunk_bytes, nr_dirty;
	s64 dirty_since_ns;
	u64 generation;
	struct ssd_index index;
	struct ssd_entry *entries; /* SSD_SETS x SSD_WAYS */
	int slots_file, records_file; /* -1: not open */
	int data_file[SSD_FILES_MAX];
	u32 nr_data_files;
	u64 data_dirty[SSD_FILES_MAX / 64];
	struct ssd_stamps stamps;
	struct ssd_job *jobs, **jobs_end;
	u64 queued_bytes;
	pthread_t thread;
	struct mmnf_ssd_stats stats;
};

/* ---- ssd.c */

/* Turns the cache off, for good; lock is held. */
void mmnf_ssd_off(struct mmnf_ssd *ssd, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* An error of the disk: one more, and perhaps one too many; lock is held. */
void mmnf_ssd_failed(struct mmnf_ssd *ssd, int err, const char *doing);

s64 mmnf_ssd_now_ns(void);

static inline u64 ssd_chunk(const struct mmnf_ssd *ssd, u64 offset)
{
	return offset / ssd->chunk_bytes;
}

/* The file of a slot, and its place there. */
static inline int ssd_data_file(const struct mmnf_ssd *ssd, u32 slot,
				u64 *offset)
{
	*offset = (u64)(slot % SSD_FILE_SLOTS) * ssd->chunk_bytes;
	return ssd->data_file[slot / SSD_FILE_SLOTS];
}

/*
 * Bytes of a chunk that were forgotten later than a ticket was given must not be
 * kept with it.  Chunks share stamps: then a few are not kept without need.
 */
static inline u64 *mmnf_ssd_stamp(struct mmnf_ssd *ssd, u64 chunk)
{
	return &ssd->stamps.of[chunk * 0x9e3779b97f4a7c15 >> 52];
}

/* ---- ssd-record.c */

u32 mmnf_ssd_block_sum(const struct mmnf_ssd *ssd, u64 block, const void *data);
u32 mmnf_ssd_record_sum(const struct mmnf_ssd *ssd, const struct ssd_record *r);

static inline bool ssd_is_valid(const struct ssd_record *r, u32 block)
{
	return r->valid[block / 64] >> block % 64 & 1;
}

/* In memory, or NULL. */
struct ssd_entry *mmnf_ssd_entry_find(struct mmnf_ssd *ssd, u32 slot);

/* A place for a slot that has none; NULL: all are on their way to the disk. */
struct ssd_entry *mmnf_ssd_entry_add(struct mmnf_ssd *ssd, u32 slot);
void mmnf_ssd_entry_remove(struct mmnf_ssd *ssd, u32 slot);
void mmnf_ssd_entry_dirty(struct mmnf_ssd *ssd, struct ssd_entry *e);

/*
 * The slot of a chunk and its record, which is read if it must be; lock is held
 * and given up meanwhile.  NULL: the chunk is not here (*slot is SSD_NO_SLOT), or
 * there is no place for its record now.
 */
struct ssd_entry *mmnf_ssd_entry_get(struct mmnf_ssd *ssd, u64 chunk,
				     u32 *slot);

/* Gives the slot up: what is in it is not to be trusted, or not wanted. */
void mmnf_ssd_slot_drop(struct mmnf_ssd *ssd, u32 slot);

/* ---- ssd-fill.c */

/* lock is not held; false: the cache is off. */
bool mmnf_ssd_checkpoint(struct mmnf_ssd *ssd);

int mmnf_ssd_fill_start(struct mmnf_ssd *ssd);
void mmnf_ssd_fill_stop(struct mmnf_ssd *ssd);

/* Copies and queues; lock is held. */
void mmnf_ssd_fill_queue(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
			 const struct iovec *iov, u32 nr_iov, u64 ticket);

#endif
