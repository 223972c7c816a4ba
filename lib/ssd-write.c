// SPDX-License-Identifier: MIT
/*
 * Writes: into the log, and where that cannot be, through to the servers.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ssd-internal.h"

#define THROUGH_TRIES 16
#define NAP_NS 10000000

/* What is in one chunk goes into one record; append is held. */
static int log_piece(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		     const void *data)
{
	struct ssd_log *log = &ssd->log;
	struct ssd_extent e;
	int err = mmnf_ssd_log_append(ssd, offset, bytes, data, &e);

	pthread_mutex_lock(&ssd->lock);
	if (err) {
		snprintf(log->why, sizeof(log->why), "appending to the log: %s",
			 strerror(-err));
	} else if (mmnf_ssd_log_take(ssd, &e)) {
		ssd->stats.written_bytes += bytes;
		mmnf_ssd_forget_bytes(ssd, offset, bytes, false);
		mmnf_ssd_drain_kick(ssd);
	} else {
		err = -ENOMEM;
	}
	pthread_mutex_unlock(&ssd->lock);
	return err;
}

static bool is_full(const struct mmnf_ssd *ssd, u64 bytes)
{
	return ssd->log.is_usable && ssd->log.bytes &&
	       (ssd->log.bytes + bytes > ssd->log.bytes_max ||
		ssd->dirty.nr + 2 > SSD_EXTENTS_MAX);
}

/*
 * After an error: what may come late keeps its file until then, and the file has its
 * time to go; but that is not waited for always anew.
 */
static s64 end_of_patience(const struct mmnf_ssd *ssd)
{
	s64 grace_ns = ssd->drain.grace_ns;

	return (s64)max_u64((u64)(mmnf_ssd_now_ns() + grace_ns),
			    (u64)mmnf_ssd_hold_end_ns(ssd)) +
	       grace_ns;
}

/* Of a log that stays full: its own trouble, or that of a server; lock is held. */
static int tell_full(const struct mmnf_ssd *ssd)
{
	const struct ssd_log *log = &ssd->log;

	if (mmnf_ssd_now_ns() < log->compact_ns)
		return mmnf_error(EIO, "the cache's log is full: %s", log->why);
	return mmnf_error(-ssd->drain.error, "the cache's log is full: %s",
			  ssd->drain.text);
}

/*
 * Until the log has room for these bytes and no sync waits for what they replace;
 * append is held, and given up meanwhile.
 */
static int wait_for_turn(struct mmnf_ssd *ssd, u64 offset, u64 bytes)
{
	struct ssd_log *log = &ssd->log;
	u64 nr_errors;
	s64 until_ns = 0;
	int err = 0;

	pthread_mutex_lock(&ssd->lock);
	nr_errors = ssd->drain.nr_errors;
	while (is_full(ssd, bytes + 64) ||
	       mmnf_ssd_drain_is_synced(ssd, offset, offset + bytes)) {
		if (ssd->drain.nr_errors != nr_errors && !until_ns)
			until_ns = end_of_patience(ssd);
		/* A sync ends by itself. */
		if (until_ns && is_full(ssd, bytes + 64) &&
		    (!mmnf_ssd_compact_helps(ssd) ||
		     mmnf_ssd_now_ns() >= until_ns)) {
			err = tell_full(ssd);
			break;
		}
		pthread_mutex_unlock(&log->append);
		mmnf_ssd_drain_hurry(ssd, 1);
		if (ssd->no_threads) {
			ssd->drain.trim_due = true;
			pthread_mutex_unlock(&ssd->lock);
			if (!mmnf_ssd_drain_step(ssd))
				mmnf_ssd_nap(NAP_NS);
			pthread_mutex_lock(&ssd->lock);
		} else {
			pthread_cond_wait(&log->room, &ssd->lock);
		}
		mmnf_ssd_drain_hurry(ssd, -1);
		pthread_mutex_unlock(&ssd->lock);
		pthread_mutex_lock(&log->append);
		pthread_mutex_lock(&ssd->lock);
	}
	pthread_mutex_unlock(&ssd->lock);
	return err;
}

/* ---- through to the servers */

struct wait {
	struct mmnf_ssd_io io;
	struct mmnf_ssd *ssd;
	bool is_done;
};

static void io_done(struct mmnf_ssd_io *io)
{
	struct wait *w = (struct wait *)io;

	pthread_mutex_lock(&w->ssd->lock);
	w->is_done = true;
	pthread_cond_broadcast(&w->ssd->drain.done);
	pthread_mutex_unlock(&w->ssd->lock);
}

static int do_io(struct mmnf_ssd *ssd, struct wait *w)
{
	w->ssd = ssd;
	w->io.done = io_done;
	ssd->backing.submit(ssd->backing.arg, &w->io);
	pthread_mutex_lock(&ssd->lock);
	while (!w->is_done) {
		if (!ssd->no_threads) {
			pthread_cond_wait(&ssd->drain.done, &ssd->lock);
			continue;
		}
		pthread_mutex_unlock(&ssd->lock);
		mmnf_ssd_nap(NAP_NS);
		pthread_mutex_lock(&ssd->lock);
	}
	pthread_mutex_unlock(&ssd->lock);
	if (w->io.result)
		return mmnf_error(-w->io.result, "%s", w->io.text);
	return 0;
}

/* Aligned bytes of one unit, until a flush has covered them. */
static int put_unit(struct mmnf_ssd *ssd, u64 offset, u64 bytes, void *data)
{
	u32 tries;
	int err;

	for (tries = 0; tries < THROUGH_TRIES; tries++) {
		struct wait write = { .io = { .op = MMNF_SSD_WRITE,
					      .offset = offset,
					      .bytes = bytes,
					      .data = data } };
		struct wait flush = { .io = { .op = MMNF_SSD_FLUSH } };

		ssd->backing.unit(ssd->backing.arg, offset, &write.io.group);
		flush.io.group = write.io.group;
		err = do_io(ssd, &write);
		if (write.io.is_late) {
			pthread_mutex_lock(&ssd->lock);
			mmnf_ssd_hold_add(ssd, offset, offset + bytes,
					  ssd->log.seq, UINT64_MAX,
					  write.io.late_ns);
			pthread_mutex_unlock(&ssd->lock);
		}
		if (!err)
			err = do_io(ssd, &flush);
		if (err)
			return err;
		if (flush.io.epoch == write.io.epoch)
			return 0;
	}
	return mmnf_error(EIO, "the connection was lost %u times in a row",
			  THROUGH_TRIES);
}

/* With what is around it, so that it is aligned. */
static int put_aligned(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		       const void *data)
{
	u64 align = ssd->backing.align;
	u64 start = offset / align * align;
	u64 end = min_u64(round_up_u64(offset + bytes, align),
			  ssd->backing.bytes);
	struct wait read = { .io = { .op = MMNF_SSD_READ,
				     .offset = start,
				     .bytes = end - start } };
	char *buf = malloc(end - start);
	int err = buf ? 0 : mmnf_error(ENOMEM, "no memory");

	read.io.data = buf;
	if (!err && (start != offset || end != offset + bytes))
		err = do_io(ssd, &read);
	if (!err) {
		memcpy(buf + (offset - start), data, bytes);
		err = put_unit(ssd, start, end - start, buf);
	}
	free(buf);
	return err;
}

/* Until nothing is held back. */
static void wait_for_holds(struct mmnf_ssd *ssd)
{
	bool is_held;

	for (;;) {
		pthread_mutex_lock(&ssd->lock);
		is_held = mmnf_ssd_now_ns() < mmnf_ssd_hold_end_ns(ssd);
		pthread_mutex_unlock(&ssd->lock);
		if (!is_held)
			return;
		mmnf_ssd_nap(NAP_NS);
	}
}

/*
 * Everything that was written goes to the servers, and the log on the disk ends,
 * or the next open would write it again; append is held.
 */
static int empty_log(struct mmnf_ssd *ssd)
{
	u64 seq;
	int err;

	pthread_mutex_lock(&ssd->lock);
	seq = ssd->log.seq;
	pthread_mutex_unlock(&ssd->lock);
	err = mmnf_ssd_drain_wait(ssd, seq);
	if (err)
		return err;
	wait_for_holds(ssd);
	if (mmnf_ssd_log_empty(ssd))
		return 0;
	return mmnf_error(
		EIO,
		"the cache's directory cannot be changed: %s: expected to remove what is in its log",
		ssd->log.why);
}

/* append is held all the while. */
static int through(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		   const void *data)
{
	const char *from = data;
	u64 n;
	u32 group;
	int err = empty_log(ssd);

	if (err)
		return err;
	pthread_mutex_lock(&ssd->lock);
	mmnf_ssd_forget_bytes(ssd, offset, bytes, true);
	pthread_mutex_unlock(&ssd->lock);
	if (!mmnf_ssd_checkpoint(ssd) && mmnf_ssd_poison(ssd))
		err = mmnf_error(
			EIO,
			"the cache's directory cannot be changed: %s: expected that it forgets what is overwritten",
			ssd->why);
	for (; !err && bytes; bytes -= n, offset += n, from += n) {
		n = ssd->backing.unit(ssd->backing.arg, offset, &group);
		n = min_u64(min_u64(n, bytes), ssd->chunk_bytes);
		err = put_aligned(ssd, offset, n, from);
	}
	/* Without a log nobody would know of a write that comes late. */
	wait_for_holds(ssd);
	/* Reads that were under way may have the bytes from before. */
	pthread_mutex_lock(&ssd->lock);
	mmnf_ssd_forget_bytes(ssd, offset - (u64)(from - (const char *)data),
			      (u64)(from - (const char *)data) + bytes, true);
	pthread_mutex_unlock(&ssd->lock);
	return err;
}

/* ---- what others call */

static int check(struct mmnf_ssd *ssd, u64 offset, u64 bytes)
{
	if (offset > ssd->backing.bytes || bytes > ssd->backing.bytes - offset)
		return mmnf_error(EINVAL,
				  "%" PRIu64 " bytes at %" PRIu64
				  ": expected less than %" PRIu64,
				  bytes, offset, ssd->backing.bytes);
	if (!ssd->backing.submit)
		return mmnf_error(EBADF, "the space is read-only");
	if (ssd->is_others)
		return mmnf_error(
			EBUSY,
			"another process uses the cache's directory: expected one writer");
	return 0;
}

int mmnf_ssd_write(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		   const void *data)
{
	struct ssd_log *log = &ssd->log;
	const char *from = data;
	int err = check(ssd, offset, bytes);
	u64 n;

	if (err || !bytes)
		return err;
	pthread_mutex_lock(&log->append);
	for (; !err && bytes; bytes -= n, offset += n, from += n) {
		bool is_usable;

		n = min_u64(bytes,
			    ssd->chunk_bytes - offset % ssd->chunk_bytes);
		err = wait_for_turn(ssd, offset, n);
		if (err)
			break;
		pthread_mutex_lock(&ssd->lock);
		is_usable = log->is_usable;
		pthread_mutex_unlock(&ssd->lock);
		if (!is_usable || log_piece(ssd, offset, n, from))
			err = through(ssd, offset, n, from);
	}
	pthread_mutex_unlock(&log->append);
	return err;
}

void mmnf_ssd_hurry(struct mmnf_ssd *ssd, s64 ns)
{
	pthread_mutex_lock(&ssd->lock);
	ssd->drain.end_ns = mmnf_ssd_now_ns() + ns;
	pthread_mutex_unlock(&ssd->lock);
}

int mmnf_ssd_sync(struct mmnf_ssd *ssd)
{
	if (!ssd->backing.submit || ssd->is_others)
		return 0;
	return mmnf_ssd_drain_sync(ssd);
}
