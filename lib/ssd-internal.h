/* SPDX-License-Identifier: MIT */
/*
 * What the files of the cache share; see ssd.h.
 *
 *	ssd.c		open, close, texts
 *	ssd-disk.c	files of a directory
 *	ssd-index.c	chunk -> slot, and which slot is given up; memory only
 *	ssd-record.c	valid bits and checksums of a slot; some in memory
 *	ssd-read.c	reads, and what was fetched instead
 *	ssd-queue.c	reads that are under way together
 *	ssd-fill.c	the filler thread and the checkpoint
 *	ssd-dirty.c	which bytes are newer in the log; memory only
 *	ssd-log.c	the log's files; ssd-log.h
 *	ssd-replay.c	reading them in
 *	ssd-compact.c	what keeps the oldest file, moved to the end
 *	ssd-write.c	writes and sync
 *	ssd-overlay.c	what the log has, over what came from the servers
 *	ssd-drain.c	from the log to the servers
 *	ssd-hold.c	what must wait
 *
 * Locks, outermost first: log.append (the end of the log), turn (one checkpoint at
 * a time), lock (everything in memory).  The disk is never waited for with lock
 * held.
 */
#ifndef MMNF_SSD_INTERNAL_H
#define MMNF_SSD_INTERNAL_H

#include "ssd.h"

#define SSD_BLOCKS_MAX 256 /* of a chunk */
#define SSD_NO_SLOT UINT32_MAX
#define SSD_STAMPS 4096
#define SSD_FILE_SLOTS (1U << 20) /* of a data file: ext4 ends at 16 TiB */
#define SSD_FILES_MAX 1024

/* ---- ssd-clock.c */

s64 mmnf_ssd_now_ns(void);
void mmnf_ssd_nap(s64 ns);

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

/*
 * When something happened to a chunk, by a clock that both count with.  Chunks
 * share stamps: then something is done again without need.
 */
struct ssd_stamps {
	u64 of[SSD_STAMPS];
};

/* A copy that waits for the filler. */
struct ssd_job {
	u64 offset, bytes, ticket;
	char *data;
	struct ssd_job *next;
};

/* ---- ssd-dirty.c */

enum extent_state { EXTENT_DIRTY, EXTENT_SENT, EXTENT_ACKED };

/* The data of a record: where, how much, its sum. */
struct ssd_data {
	u64 at;
	u32 bytes, sum;
};

/**
 * struct ssd_extent - bytes of the space that are in the log
 * @seq, @record: of their record, whose data the sum is of
 * @written: of the record that they were written with, if that was moved since
 * @file, @at: where they are
 * @held: an older write of these bytes may be under way from a process that died
 * @op: SENT: with which
 * @group, @epoch, @acked: ACKED: by whom, and when, see ssd_drain.nr_acks
 */
struct ssd_extent {
	u64 start, end, seq, written, at, epoch, acked;
	struct ssd_data record;
	struct ssd_log_file *file;
	u32 group;
	u8 state;
	bool held;
	const void *op;
};

#define SSD_EXTENTS_MAX 65536U

/* Sorted, none overlaps another, none crosses a chunk. */
struct ssd_dirty {
	struct ssd_extent **e;
	u32 nr, room;
	u64 bytes;
};

/* The first that ends behind start. */
u32 mmnf_ssd_dirty_find(const struct ssd_dirty *d, u64 start);
bool mmnf_ssd_dirty_overlaps(const struct ssd_dirty *d, u64 start, u64 end);

/*
 * Takes the extent over; of older ones what it does not cover stays.  False: no
 * memory, nothing has changed.
 */
bool mmnf_ssd_dirty_insert(struct ssd_dirty *d, const struct ssd_extent *e);

/* Those that go(arg, e) is true for. */
void mmnf_ssd_dirty_remove(struct ssd_dirty *d,
			   bool (*go)(void *arg, struct ssd_extent *e),
			   void *arg);

/* Cuts extent i in two; false: no memory. */
bool mmnf_ssd_dirty_split(struct ssd_dirty *d, u32 i, u64 at);
void mmnf_ssd_dirty_free(struct ssd_dirty *d);

/* ---- ssd-log.c */

/* users: readers without the lock; closed when it is dead and has none. */
struct ssd_log_file {
	u64 number, bytes, first_seq;
	int file;
	u32 users;
	bool is_dead;
	struct ssd_log_file *next;
};

/**
 * struct ssd_log - the end of the log
 * @append: whoever adds to it
 * @files: oldest first; @last is appended to, NULL: a new one is needed
 * @seq, @durable: of the last record, and of the last that is safe
 * @life: number of this open
 * @generation: of the head
 * @first_number, @first_seq: of the first file and record that count
 * @next_number: of the next file
 * @synced_number: files before that are safe
 * @names_dirty: a file's name may not be safe yet
 * @is_usable: may be appended to
 * @compact_ns: no compaction before
 */
struct ssd_log {
	pthread_mutex_t append;
	pthread_cond_t room;
	struct ssd_log_file *files, *last;
	u64 seq, durable, life, generation, first_seq, bytes, bytes_max;
	u64 first_number, next_number, synced_number;
	s64 compact_ns;
	int head_file;
	bool is_usable, names_dirty, has_life;
	char why[160];
};

/*
 * Whose is it?  -EEXIST: another space's, or another error, with text: what was written
 * and is not on the servers cannot be read, so nothing may.
 */
int mmnf_ssd_log_open(struct mmnf_ssd *ssd);

/* For who may not look into it: there may be something. */
bool mmnf_ssd_log_may_be(struct mmnf_ssd *ssd);

/* Reads it in: what it has is dirty, and not in the cache.  -errno with text. */
int mmnf_ssd_log_load(struct mmnf_ssd *ssd);
void mmnf_ssd_log_close(struct mmnf_ssd *ssd);

/* Writes a record; append is held.  Its place; the caller makes it dirty. */
int mmnf_ssd_log_append(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
			const void *data, struct ssd_extent *out);

/* A record that was appended counts; lock is held.  False: no memory. */
bool mmnf_ssd_log_take(struct mmnf_ssd *ssd, const struct ssd_extent *e);

/* The oldest file that more than extents needs, or UINT64_MAX; lock is held. */
u64 mmnf_ssd_log_pinned(const struct mmnf_ssd *ssd);

/* All records so far are safe; no lock is held. */
int mmnf_ssd_log_sync(struct mmnf_ssd *ssd);

/* Nothing is appended any more; what is in it is still sent.  No lock is held. */
void mmnf_ssd_log_off(struct mmnf_ssd *ssd, int err, const char *doing);

/* Removes files whose records are all done with; no lock is held. */
void mmnf_ssd_log_trim(struct mmnf_ssd *ssd);

/* The same by whoever holds append; has the log nothing now? */
bool mmnf_ssd_log_empty(struct mmnf_ssd *ssd);

/* One reader less of a file; lock is held. */
void mmnf_ssd_log_put(struct mmnf_ssd *ssd, struct ssd_log_file *f);

/* ---- ssd-compact.c */

/* A step of it, if it is time; true: something was moved.  No lock is held. */
bool mmnf_ssd_compact(struct mmnf_ssd *ssd);

/* Not again for a while, and nobody waits for it; no lock is held. */
void mmnf_ssd_compact_failed(struct mmnf_ssd *ssd, int err);

/* Will there be room in the log, whatever becomes of who is away?  lock is held. */
bool mmnf_ssd_compact_helps(const struct mmnf_ssd *ssd);

/* ---- ssd-overlay.c */

/* The record of an extent, whole; -EIO: it is not what was written. */
int mmnf_ssd_record_read(struct mmnf_ssd *ssd, const struct ssd_extent *e,
			 char *data);

/*
 * What the log has of these bytes up to a record, laid over memory; lock is held,
 * and given up meanwhile.  -EIO: a record cannot be read, or is damaged; -ENOMEM.
 */
int mmnf_ssd_overlay(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		     const struct iovec *iov, u32 nr_iov, u64 seq_max);

/* ---- ssd-drain.c */

#define SSD_OPS 16
#define SSD_HOLDS 256

enum op_state { OP_FREE, OP_READING, OP_READ, OP_WRITING, OP_DONE };

/**
 * struct ssd_op - a write under way
 * @start, @end: aligned; at their ends may be bytes of others, or of the space
 * @seq: it has nothing newer
 * @number: of the oldest file that it came from
 */
struct ssd_op {
	struct mmnf_ssd_io io; /* first */
	struct mmnf_ssd *ssd;
	u64 start, end, seq, number;
	u8 state;
};

/* Bytes for which newer records than seq must wait until then. */
struct ssd_hold {
	u64 start, end, seq, number;
	s64 until_ns;
};

/**
 * struct ssd_flush - of a group: the flush, and what is under way to it
 * @acked: a flush under way covers what was acked before that
 * @nr_ops: writes under way: its part of all, so that a server that does not answer
 *	leaves room to the others
 * @retry_ns: nothing is sent before
 * @is_away: the last request of it failed
 * @due_ns: when something was first acked since the last flush; 0: nothing was
 */
struct ssd_flush {
	struct mmnf_ssd_io io; /* first */
	struct mmnf_ssd *ssd;
	bool is_busy, is_done, is_away;
	u32 nr_ops;
	u64 acked;
	s64 retry_ns, due_ns;
};

/**
 * struct ssd_drain - what is under way to the servers
 * @wake: for the thread: something was written, or is done; @kicks counts
 * @done: for those who wait for the servers
 * @nr_busy: ops and flushes
 * @nr_acks: so far
 * @nr_waiters: in sync, or for room
 * @sync_seq: records that a sync waits for end here; 0: none does, and @nr_syncs
 *	do.  What they wrote is not overwritten meanwhile
 * @nr_errors: final ones; @error and @text are of the last
 * @trim_due: files may have become free
 * @replayed: ranges of a log that was found, sorted, with records up to
 *	@replay_seq; until @replay_ns newer bytes for them wait
 */
struct ssd_drain {
	pthread_t thread;
	bool has_thread, stop, trim_due;
	pthread_cond_t wake, done;
	struct ssd_op op[SSD_OPS];
	struct ssd_flush *flush; /* of each group */
	struct ssd_hold hold[SSD_HOLDS];
	struct ssd_hold *replayed;
	u32 nr_holds, nr_replayed, nr_busy, nr_waiters, nr_syncs;
	u64 nr_acks, nr_errors, kicks, replay_seq, sync_seq;
	s64 replay_ns, grace_ns, synced_ns;
	s64 end_ns; /* nobody waits longer; 0: as long as it takes */
	int error;
	char text[160];
};

int mmnf_ssd_drain_open(struct mmnf_ssd *ssd, bool threads);
void mmnf_ssd_drain_close(struct mmnf_ssd *ssd);

/* A step of it, for whoever has no thread; true: something was done. */
bool mmnf_ssd_drain_step(struct mmnf_ssd *ssd);

/* One more who waits, or one less; lock is held. */
void mmnf_ssd_drain_hurry(struct mmnf_ssd *ssd, int waiters);

/* There is something to do; lock is held. */
void mmnf_ssd_drain_kick(struct mmnf_ssd *ssd);

/* Until the servers have everything up to seq; no lock is held. */
int mmnf_ssd_drain_wait(struct mmnf_ssd *ssd, u64 seq);

/*
 * Until they have everything that there is; no lock is held.  Writes of the same
 * bytes wait for that, or there would be no moment at which the servers have what
 * was synced, or something newer.
 */
int mmnf_ssd_drain_sync(struct mmnf_ssd *ssd);

/* Does a sync wait for some of these bytes?  lock is held. */
bool mmnf_ssd_drain_is_synced(const struct mmnf_ssd *ssd, u64 start, u64 end);

/* ---- ssd-hold.c; lock is held */

/*
 * Holds back what is newer than record seq; file number is kept as long.  Until the
 * grace time is over, from now or from given_up_ns on, whichever is later.
 */
void mmnf_ssd_hold_add(struct mmnf_ssd *ssd, u64 start, u64 end, u64 seq,
		       u64 number, s64 given_up_ns);

/* The log that was found at open: whoever wrote it may have sent it. */
int mmnf_ssd_hold_replayed(struct mmnf_ssd *ssd);

/* Must bytes of record seq wait? */
bool mmnf_ssd_hold_blocks(struct mmnf_ssd *ssd, u64 start, u64 end, u64 seq);

/* Until then something is held back; or it is over. */
s64 mmnf_ssd_hold_end_ns(const struct mmnf_ssd *ssd);

/**
 * struct mmnf_ssd - the cache of a space
 * @off: nothing is read or kept any more; @why says why.  Set once.
 * @paused_until_ns: the disk was full: nothing is kept until then
 * @nr_errors: of the disk
 * @salt: what every checksum begins with
 * @generation: changes whenever records have been written
 * @is_others: another process has the directory
 * @is_poisoned: off, and nobody will take what is on the disk for good
 * @nr_dirty: entries; since @dirty_since_ns
 */
struct mmnf_ssd {
	pthread_mutex_t lock, turn;
	pthread_cond_t wake;
	struct mmnf_ssd_disk *disk;
	struct mmnf_ssd_backing backing;
	bool off, stop, has_thread, was_dropped, no_threads, is_poisoned,
		is_others;
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
	u64 clock;
	struct ssd_stamps forgotten, drained;
	struct ssd_dirty dirty;
	struct ssd_log log;
	struct ssd_drain drain;
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

/* Where the cache is off: that it is not used again either.  -errno, no text. */
int mmnf_ssd_poison(struct mmnf_ssd *ssd);

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

static inline u64 *ssd_stamp(struct ssd_stamps *stamps, u64 chunk)
{
	return &stamps->of[chunk * 0x9e3779b97f4a7c15 >> 52];
}

/* ---- ssd-read.c */

#define SSD_PIECE_IOV 64

/**
 * struct ssd_piece - blocks of one chunk, read at once
 * @first, @nr: of the chunk's blocks
 * @file, @at: where they are
 * @sum: what their checksums should be
 */
struct ssd_piece {
	u64 chunk, at;
	u32 first, nr, slot, nr_iov;
	int file;
	u32 sum[SSD_BLOCKS_MAX];
	struct iovec iov[SSD_PIECE_IOV];
};

/* What is left to be read: bytes from offset on, into memory from done on. */
struct ssd_rest {
	u64 offset, bytes, done;
	const struct iovec *iov;
	u32 nr_iov;
};

/*
 * The next piece of a read, whose result is for piece_read(); false: its blocks are
 * not all here, and then neither are those of the whole read.
 */
bool mmnf_ssd_piece_take(struct mmnf_ssd *ssd, struct ssd_rest *rest,
			 struct ssd_piece *p);

/* result: as of disk->read().  True: the bytes are there, and are right. */
bool mmnf_ssd_piece_read(struct mmnf_ssd *ssd, const struct ssd_piece *p,
			 ssize_t result);

/*
 * True: the log has some of it, so nobody but the log can answer: *hit says if it
 * did.
 */
bool mmnf_ssd_read_log(struct mmnf_ssd *ssd, const struct ssd_rest *all,
		       u64 *ticket, bool *hit);

/* A read is over. */
void mmnf_ssd_count_read(struct mmnf_ssd *ssd, u64 bytes, bool hit);

/*
 * Forgets; lock is held.  drained: the log has lost these bytes, too, and a read
 * that is under way may have missed them.
 */
void mmnf_ssd_forget_bytes(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
			   bool drained);

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
