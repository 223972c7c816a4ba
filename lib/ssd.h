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
 *	lock		locked by the one process that uses the directory
 *
 * Order on the disk: data, fdatasync, records and slots, fdatasync.  A slot's
 * record is cleared and synced before other data is written to the slot.  What
 * was not on the disk when the power went is fetched again.
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

/**
 * struct mmnf_ssd_opts - how the cache is kept
 * @bytes: most bytes of data and records; at least MMNF_SSD_CHUNKS_MIN chunks.  May
 *	differ from one open to the next
 * @chunk_bytes: 32 KiB .. 1 MiB, a power of two; 0: 1 MiB
 * @no_threads: nothing runs in the background: mmnf_ssd_work() does it, for tests
 */
struct mmnf_ssd_opts {
	u64 bytes;
	u32 chunk_bytes;
	bool no_threads;
};

/**
 * struct mmnf_ssd_backing - the space whose bytes are kept
 * @bytes: of the space
 * @identity: differs where the bytes behind may differ
 */
struct mmnf_ssd_backing {
	void *arg;
	u64 bytes;
	u8 identity[32];
};

/**
 * mmnf_ssd_open() - use a directory
 * @disk: taken over, also on failure
 *
 * A directory that cannot be used, because another process has it or its disk
 * is full or broken, is no error: all reads are misses, and mmnf_ssd_text() says
 * why.  What belongs to another space is dropped.
 *
 * Return: 0, -EINVAL, -ENOMEM; with text.
 */
int mmnf_ssd_open(struct mmnf_ssd **out, struct mmnf_ssd_disk *disk,
		  const struct mmnf_ssd_opts *opts,
		  const struct mmnf_ssd_backing *backing);

/* NULL is fine.  Writes down what it knows; never fails. */
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

/**
 * mmnf_ssd_came() - bytes that mmnf_ssd_read() had not came from the space
 * @ticket: that of mmnf_ssd_read(), called before they were asked for
 *
 * Copies what shall be kept and does not wait.
 *
 * Return: true; false if a write has overtaken the read: begin again with
 * mmnf_ssd_read().
 */
bool mmnf_ssd_came(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		   const struct iovec *iov, u32 nr_iov, u64 ticket);

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
};

void mmnf_ssd_stats(struct mmnf_ssd *ssd, struct mmnf_ssd_stats *out);

/* What it is, or why it is off; false: it is off. */
bool mmnf_ssd_text(struct mmnf_ssd *ssd, char *text, size_t len);

#endif
