/* SPDX-License-Identifier: MIT */
/*
 * L3 of a field whose bytes lie on the network: a directory on a local SSD with
 * the bytes that were read before, and with writes that the servers may not have
 * on stable storage yet.
 *
 *	read    mmnf_ssd_read()  --- all there ---> done
 *	               | not there
 *	               v
 *	        the network, then mmnf_ssd_came() --- copy ---> filler thread
 *
 * A block of 4096 bytes is served from here only if its checksum, which knows
 * the block's place in the space and the space's identity, is right: whatever
 * happened to the disk, the machine or the process, a read is right or a miss.
 * An error of the cache's disk is a miss, too, and never one of the field.
 *
 *	header		identity, version, size of a chunk
 *	slots		u64 for each slot: chunk + 1, or 0; a hint, the record decides
 *	records		1088 bytes for each slot: chunk, valid bits, checksums, and
 *			a checksum over all that
 *	data.N		slots of 1 MiB, a million in each file
 *	log.head, log.N	writes that the servers may not have for good: ssd-log.c
 *	lock		locked by the one process that uses the directory
 *
 * Order on the disk: data, fdatasync, records and slots, fdatasync.  A slot's
 * record is cleared and synced before other data is written to the slot.  What
 * was not on the disk when the power went is fetched again.
 *
 * Writes.  mmnf_ssd_write() puts them into the log, and reads see them from then
 * on; in the background they go to the servers.  A server may acknowledge a write,
 * die, and come back without it, and a flush then succeeds all the same.  So a
 * write leaves the log only after a flush over the same connection that
 * acknowledged it; else it is sent again:
 *
 *	write --> DIRTY --log synced, sent--> SENT --acked--> ACKED --flushed--> gone
 *	            ^                           |               |
 *	            '-------- failed -----------'--- another ---'
 *	                                             epoch
 *
 * What the oldest file of the log has for a server that is away is moved to the end,
 * as long as that is no more than half of the log: others go on.
 *
 * And a write whose connection was given up may reach the storage later than what
 * was written next.  So newer bytes for its place are held back for a grace time.
 * The same holds for what was in the log of a process that died.
 *
 * All functions are thread-safe.
 */
#ifndef MMNF_SSD_H
#define MMNF_SSD_H

#include <sys/uio.h>

#include "internal.h"

struct mmnf_ssd;

#define MMNF_SSD_BLOCK 4096ULL
#define MMNF_SSD_CHUNKS_MIN 16ULL

/**
 * struct mmnf_ssd_disk - files of the cache's directory
 *
 * Functions return -errno without text; a file is a number from open().  Whole
 * requests are done or none: see mmnf_ssd_disk_open() for the real one.  Tests
 * have another that loses power.
 *
 * @read: short only at the end of the file; the count
 * @direct: reads and writes of this file go past the page cache if they can
 * @reserve: makes the file as long, with room for all of it where the filesystem
 *	can do that
 */
struct mmnf_ssd_disk {
	bool has_descriptors; /* a file is one, as the kernel knows it */
	int (*open)(struct mmnf_ssd_disk *disk, const char *name, bool direct);
	void (*close)(struct mmnf_ssd_disk *disk, int file);
	s64 (*bytes)(struct mmnf_ssd_disk *disk, int file);
	ssize_t (*read)(struct mmnf_ssd_disk *disk, int file,
			const struct iovec *iov, u32 nr_iov, u64 offset);
	int (*write)(struct mmnf_ssd_disk *disk, int file, const void *data,
		     u64 bytes, u64 offset);
	int (*sync)(struct mmnf_ssd_disk *disk, int file);
	int (*truncate)(struct mmnf_ssd_disk *disk, int file, u64 bytes);
	int (*reserve)(struct mmnf_ssd_disk *disk, int file, u64 bytes);
	int (*remove)(struct mmnf_ssd_disk *disk, const char *name);
	int (*exists)(struct mmnf_ssd_disk *disk, const char *name);
	int (*sync_names)(struct mmnf_ssd_disk *disk);
	int (*lock)(struct mmnf_ssd_disk *disk);
	void (*end)(struct mmnf_ssd_disk *disk);
};

/* ---- ssd-disk.c: a directory; made if it is missing.  -errno with text. */
int mmnf_ssd_disk_open(struct mmnf_ssd_disk **out, const char *path);

enum mmnf_ssd_op { MMNF_SSD_READ, MMNF_SSD_WRITE, MMNF_SSD_FLUSH };

/**
 * struct mmnf_ssd_io - a request to the space
 * @offset, @bytes, @data: of reads and writes; a write lies in one unit and is
 *	aligned as the backing wants it
 * @group: of a flush and of a write
 * @done: to be called once it is over, in any thread, perhaps inside submit()
 * @result: 0 or -errno
 * @epoch: of writes and flushes: of the connection that it came over
 * @is_late: of writes: an attempt was given up that may still reach the storage;
 *	@late_ns: to be taken for one that was given up not before that
 * @text: of an error
 */
struct mmnf_ssd_io {
	u8 op;
	bool is_late;
	u32 group;
	int result;
	u64 offset, bytes, epoch;
	s64 late_ns;
	void *data;
	void (*done)(struct mmnf_ssd_io *io);
	char text[160];
};

#define MMNF_SSD_GRACE_MS \
	30000 /* how long a write that was given up may come */

/**
 * struct mmnf_ssd_opts - how the cache is kept
 * @bytes: most bytes of data and records; at least MMNF_SSD_CHUNKS_MIN chunks.  May
 *	differ from one open to the next
 * @log_bytes: most bytes of the log; 0: an eighth of @bytes, 16 MiB to 1 GiB
 * @chunk_bytes: 32 KiB .. 1 MiB, a power of two; 0: 1 MiB
 * @grace_ms: how long a write that was given up may still come; 0: 30 s
 * @no_threads: nothing runs in the background: mmnf_ssd_work() does it, for tests
 */
struct mmnf_ssd_opts {
	u64 bytes, log_bytes;
	u32 chunk_bytes, grace_ms;
	bool no_threads;
};

/**
 * struct mmnf_ssd_backing - the space whose bytes are kept
 * @bytes: of the space
 * @identity: differs where the bytes behind may differ
 * @nr_groups: of servers; a flush is of one
 * @align: of writes, a power of two, at most MMNF_SSD_BLOCK
 * @late_ns: a write may be given up so long before the time that counts as that, as
 *	@late_ns of struct mmnf_ssd_io tells; so after a crash that is waited for, too
 * @unit: the group of a byte, and how many bytes from there on are of its unit
 * @submit: starts a request and does not wait.  NULL: the space is read-only; what
 *	the log has is seen and stays
 */
struct mmnf_ssd_backing {
	void *arg;
	u64 bytes;
	u8 identity[32];
	u32 nr_groups, align;
	s64 late_ns;
	u64 (*unit)(void *arg, u64 offset, u32 *group);
	void (*submit)(void *arg, struct mmnf_ssd_io *io);
};

/**
 * mmnf_ssd_open() - use a directory
 * @disk: taken over, also on failure
 *
 * A directory that cannot be used, because another process has it or its disk
 * is full or broken, is no error: all reads are misses, and mmnf_ssd_text() says
 * why.  What belongs to another space is dropped.  It is one if there may be a log
 * that cannot be read: bytes from before what it has would be read, and written over.
 *
 * Return: 0; -EINVAL, -ENOMEM; -EEXIST: the log has writes for another space;
 * -EIO: the log has lost writes that had been synced; or why it cannot be read.
 * With text.
 */
int mmnf_ssd_open(struct mmnf_ssd **out, struct mmnf_ssd_disk *disk,
		  const struct mmnf_ssd_opts *opts,
		  const struct mmnf_ssd_backing *backing);

/*
 * NULL is fine.  Writes down what it knows, and tries to bring what was written to
 * the servers; what they cannot take stays in the log for the next open.
 */
void mmnf_ssd_close(struct mmnf_ssd *ssd);

/**
 * mmnf_ssd_read() - read what is here
 * @offset: a multiple of MMNF_SSD_BLOCK, as are @bytes and the pieces of @iov and,
 *	of these, the addresses; up to the end of the space
 * @ticket: for mmnf_ssd_came()
 *
 * May wait for the local disk, never for the network.
 *
 * Return: true if all bytes are there; else the memory is undefined.
 */
bool mmnf_ssd_read(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		   const struct iovec *iov, u32 nr_iov, u64 *ticket);

/* ---- ssd-queue.c: reads of the cache that are under way together, by io_uring */

struct mmnf_ssd_queue;

/*
 * For up to depth reads, of one thread at a time.  eventfd is written when one has
 * come; -1: none.  NULL: not here; mmnf_ssd_read() is.
 */
struct mmnf_ssd_queue *mmnf_ssd_queue_open(struct mmnf_ssd *ssd, u32 depth,
					   int eventfd);

/* NULL is fine.  Nothing may be under way. */
void mmnf_ssd_queue_close(struct mmnf_ssd_queue *q);

enum mmnf_ssd_begun { MMNF_SSD_MISS, MMNF_SSD_HIT, MMNF_SSD_UNDER_WAY };

/*
 * mmnf_ssd_read() that does not wait for the data: owner comes out of
 * mmnf_ssd_queue_take() if it is UNDER_WAY.  Begun by the next submit() or wait().
 */
enum mmnf_ssd_begun mmnf_ssd_queue_read(struct mmnf_ssd_queue *q, u64 offset,
					u64 bytes, const struct iovec *iov,
					u32 nr_iov, u64 *ticket, void *owner);
void mmnf_ssd_queue_submit(struct mmnf_ssd_queue *q);

/* One that has come, or NULL; hit: as mmnf_ssd_read() returns it. */
void *mmnf_ssd_queue_take(struct mmnf_ssd_queue *q, bool *hit);

u32 mmnf_ssd_queue_under_way(const struct mmnf_ssd_queue *q);

/* Until one has come; -1: for ever.  Or the file is asked, which is readable then. */
void mmnf_ssd_queue_wait(struct mmnf_ssd_queue *q, s64 timeout_ns);
int mmnf_ssd_queue_file(const struct mmnf_ssd_queue *q);

/* ---- ssd-read.c */

/**
 * mmnf_ssd_came() - bytes that mmnf_ssd_read() had not came from the space
 * @ticket: that of mmnf_ssd_read(), called before they were asked for
 *
 * Copies what shall be kept and does not wait.
 *
 * Return: 0; 1 if a write has overtaken the read: begin again with
 * mmnf_ssd_read(); -EIO if a write that only the log has cannot be read.
 */
int mmnf_ssd_came(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		  const struct iovec *iov, u32 nr_iov, u64 ticket);

/**
 * mmnf_ssd_write() - write
 * @offset, @bytes: any, inside the space
 *
 * Waits while the log is full, and while another thread syncs what it replaces.
 * Where the log cannot take it, it goes to the servers and is flushed before this
 * returns.  Writes that overlap, of several
 * threads at once, end in some order.
 *
 * Return: 0: reads see it; -EINVAL, -EBADF (read-only), -EBUSY (another process
 * has the directory), or what the servers said; with text.
 */
int mmnf_ssd_write(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		   const void *data);

/**
 * mmnf_ssd_sync() - wait until the servers have all that was written, for good
 * Return: 0, or why not: it stays in the log, and is tried again.  With text.
 */
int mmnf_ssd_sync(struct mmnf_ssd *ssd);

/* From now on nobody waits for the servers longer than that. */
void mmnf_ssd_hurry(struct mmnf_ssd *ssd, s64 ns);

/*
 * Forgets what lies in these bytes; a block that comes later is kept again.
 * Bytes that are on their way here are not kept.
 */
void mmnf_ssd_forget(struct mmnf_ssd *ssd, u64 offset, u64 bytes);

/*
 * Fills what is queued and writes down what is known: what is in the cache now
 * is so after a crash, and what was forgotten stays so.  False: the disk failed;
 * the cache is off.
 */
bool mmnf_ssd_work(struct mmnf_ssd *ssd);

/*
 * Counters since open.  hits + misses is the number of reads; filled, evicted
 * and so on are blocks, of chunks where it says so.
 */
struct mmnf_ssd_stats {
	u64 hits, misses, hit_bytes;
	u64 filled, dropped; /* dropped: not kept: the filler was busy */
	u64 evicted_chunks, nr_checkpoints;
	u64 bad; /* found damaged on the disk: fetched again */
	u64 size_bytes, used_bytes; /* of chunks */
	u64 memory_bytes; /* of index, records and queue */
	u64 written_bytes, log_bytes, dirty_bytes; /* log: in files now */
	u64 resent; /* writes: sent again after an epoch had changed */
	u64 held; /* writes: times that one was held back */
	u64 moved_bytes; /* of the log, from its oldest file to its end */
};

void mmnf_ssd_stats(struct mmnf_ssd *ssd, struct mmnf_ssd_stats *out);

/* What it is, or why it is off; false: it is off. */
bool mmnf_ssd_text(struct mmnf_ssd *ssd, char *text, size_t len);

/* ---- ssd-net.c */

struct mmnf_net;
struct mmnf_net_io;

/* By net_cache_dir and so on; with text. */
int mmnf_ssd_net_open(struct mmnf_ssd **out, struct mmnf_net *net,
		      const struct mmnf_open_opts *opts);

/*
 * Makes a read one of whole blocks, into memory that is returned, for free(); NULL:
 * it is as it was.
 */
char *mmnf_ssd_widen(struct mmnf_net_io *io, struct iovec *whole,
		     u64 space_bytes);

/* NULL is fine. */
void mmnf_ssd_describe(struct mmnf_ssd *ssd, struct mmnf_tier *tier);

#endif
