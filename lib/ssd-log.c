// SPDX-License-Identifier: MIT
/*
 * The log of writes: files log.N, appended to, one behind the other; and log.head,
 * which says where they begin.
 *
 *	log.head	twice, in two sectors; the right one of the higher generation
 *	log.N		[record][data][record][data]...		8-byte aligned
 *
 * A record has the next number of all.  The first that is wrong ends its file: it
 * was never synced, nor was anything behind it, and the next open goes on in a
 * new file with that number.  An open has a number, too, its life, so that what
 * an earlier life left and lost is not taken for what came later.  If a record
 * further on says that a wrong one had been synced, then the disk has lost data
 * that was promised, and the open fails.
 *
 * Files go oldest first, when all their records are done with and the cache has
 * forgotten for good what they wrote.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ssd-log.h"

#define HEAD_MAGIC 0x64686c666e6d6d31
#define HEAD_STEP 512
#define FILE_BYTES_MAX (64ULL << 20)
#define STRAYS 16

struct head {
	u64 magic, generation, first_number, first_seq, life;
	u8 identity[32];
	u32 reserved, sum;
};

static u32 head_sum(const struct head *h)
{
	return mmnf_crc32c(0, h, offsetof(struct head, sum));
}

/* ---- the head */

/* The head that counts; its magic is 0 where there is none.  Errors have no text. */
static int read_head(struct mmnf_ssd *ssd, struct head *out)
{
	struct head h;
	ssize_t n;
	u64 i;

	for (i = 0; i < 2; i++) {
		n = ssd_log_read_at(ssd, ssd->log.head_file, &h, sizeof(h),
				    i * HEAD_STEP);
		if (n < 0)
			return (int)n;
		if (n == sizeof(h) && h.magic == HEAD_MAGIC &&
		    h.sum == head_sum(&h) && h.generation >= out->generation)
			*out = h;
	}
	return 0;
}

/*
 * One sector after the other, so that one of them is right if the power goes; then
 * both are the same, and one may be damaged.
 */
static int put_head(struct mmnf_ssd *ssd, const struct head *h)
{
	struct mmnf_ssd_disk *d = ssd->disk;
	int err = 0;
	u64 i;

	for (i = 0; i < 2 && !err; i++) {
		err = d->write(d, ssd->log.head_file, h, sizeof(*h),
			       (h->generation + i) % 2 * HEAD_STEP);
		if (!err)
			err = d->sync(d, ssd->log.head_file);
	}
	return err;
}

/* life is the generation of the head that began it. */
static int write_head(struct mmnf_ssd *ssd, u64 generation)
{
	struct ssd_log *log = &ssd->log;
	struct head h = { .magic = HEAD_MAGIC,
			  .generation = generation,
			  .first_number = log->first_number,
			  .first_seq = log->first_seq,
			  .life = log->life };
	int err;

	memcpy(h.identity, ssd->backing.identity, sizeof(h.identity));
	h.sum = head_sum(&h);
	err = put_head(ssd, &h);
	if (!err)
		log->generation = generation;
	return err;
}

/* ---- files */

struct ssd_log_file *ssd_log_add_file(struct mmnf_ssd *ssd, u64 number)
{
	struct ssd_log_file *f = calloc(1, sizeof(*f)), **p = &ssd->log.files;
	char name[32];

	if (!f)
		return NULL;
	ssd_log_file_name(number, name);
	f->number = number;
	f->file = ssd->disk->open(ssd->disk, name, false);
	if (f->file < 0) {
		free(f);
		return NULL;
	}
	while (*p)
		p = &(*p)->next;
	*p = f;
	return f;
}

static void close_file(struct mmnf_ssd *ssd, struct ssd_log_file *f)
{
	ssd->disk->close(ssd->disk, f->file);
	free(f);
}

void mmnf_ssd_log_put(struct mmnf_ssd *ssd, struct ssd_log_file *f)
{
	if (!--f->users && f->is_dead)
		close_file(ssd, f);
}

/*
 * Names of files that went may still be there; and of some that were made when the
 * power went, behind one whose name was lost.
 */
static void remove_strays(struct mmnf_ssd *ssd)
{
	u64 number = ssd->log.first_number;
	char name[32];

	while (number--) {
		ssd_log_file_name(number, name);
		if (ssd->disk->exists(ssd->disk, name) ||
		    ssd->disk->remove(ssd->disk, name))
			break;
	}
	for (number = 0; number < STRAYS; number++) {
		ssd_log_file_name(ssd->log.next_number + number, name);
		if (!ssd->disk->exists(ssd->disk, name))
			ssd->disk->remove(ssd->disk, name);
	}
}

/* ---- opening */

int mmnf_ssd_log_open(struct mmnf_ssd *ssd)
{
	struct ssd_log *log = &ssd->log;
	int there = ssd_log_is_there(ssd, "log.head"), err;
	struct head h = { 0 };
	char name[32];

	if (there < 0)
		return there;
	log->head_file = ssd->disk->open(ssd->disk, "log.head", false);
	if (log->head_file < 0 && there)
		return ssd_log_lost(log->head_file, "log.head");
	if (log->head_file < 0) {
		mmnf_ssd_log_off(ssd, log->head_file, "opening it");
		return 0;
	}
	err = read_head(ssd, &h);
	if (err)
		return ssd_log_lost(err, "log.head");
	if (!h.magic)
		return 0;
	log->generation = h.generation;
	log->first_number = h.first_number;
	log->first_seq = h.first_seq;
	log->seq = h.first_seq - 1;
	ssd_log_file_name(h.first_number, name);
	there = ssd_log_is_there(ssd, name);
	if (there > 0 &&
	    memcmp(h.identity, ssd->backing.identity, sizeof(h.identity)))
		return mmnf_error(
			EEXIST,
			"cache: the directory has writes for another space: expected that to be opened again, or the directory removed");
	return there < 0 ? there : 0;
}

bool mmnf_ssd_log_may_be(struct mmnf_ssd *ssd)
{
	return ssd->disk->exists(ssd->disk, "log.head") != -ENOENT;
}

int mmnf_ssd_log_load(struct mmnf_ssd *ssd)
{
	struct ssd_log *log = &ssd->log;
	int err;

	if (log->head_file < 0)
		return 0;
	err = log->first_seq ? ssd_log_replay(ssd) : 0;
	if (err)
		return err;
	log->durable = log->seq;
	log->life = max_u64(log->life, log->generation) + 1;
	log->is_usable = true;
	return 0;
}

void mmnf_ssd_log_close(struct mmnf_ssd *ssd)
{
	struct ssd_log_file *f;

	while ((f = ssd->log.files)) {
		ssd->log.files = f->next;
		close_file(ssd, f);
	}
	if (ssd->log.head_file >= 0)
		ssd->disk->close(ssd->disk, ssd->log.head_file);
}

/* ---- appending */

/* What was not taken at open is not to be taken at another, over what comes now. */
static int cut_tails(struct mmnf_ssd *ssd)
{
	struct mmnf_ssd_disk *d = ssd->disk;
	struct ssd_log_file *f;
	int err = 0;

	for (f = ssd->log.files; f && !err; f = f->next) {
		if (d->bytes(d, f->file) <= (s64)f->bytes)
			continue;
		err = d->truncate(d, f->file, f->bytes);
		if (!err)
			err = d->sync(d, f->file);
	}
	return err;
}

/* The head says whose log it is before the log has anything. */
static int begin_life(struct mmnf_ssd *ssd)
{
	struct ssd_log *log = &ssd->log;
	int err;

	if (!log->first_seq)
		log->first_seq = log->seq + 1;
	err = cut_tails(ssd);
	if (!err)
		err = write_head(ssd, max_u64(log->life, log->generation + 1));
	if (!err) {
		remove_strays(ssd);
		err = ssd->disk->sync_names(ssd->disk);
	}
	log->has_life = !err;
	return err;
}

static int next_file(struct mmnf_ssd *ssd)
{
	struct ssd_log *log = &ssd->log;
	struct ssd_log_file *f;
	int err;

	/* lock: readers follow the list */
	pthread_mutex_lock(&ssd->lock);
	f = ssd_log_add_file(ssd, log->next_number);
	pthread_mutex_unlock(&ssd->lock);
	if (!f)
		return -EIO;
	/* One of this number may have been left by a life that was cut short. */
	err = ssd->disk->truncate(ssd->disk, f->file, 0);
	pthread_mutex_lock(&ssd->lock);
	log->next_number++;
	log->names_dirty = true;
	f->first_seq = log->seq + 1;
	log->last = err ? NULL : f;
	pthread_mutex_unlock(&ssd->lock);
	return err;
}

int mmnf_ssd_log_append(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
			const void *data, struct ssd_extent *out)
{
	struct ssd_log *log = &ssd->log;
	struct ssd_log_record r = { .magic = SSD_LOG_RECORD_MAGIC,
				    .seq = log->seq + 1,
				    .life = log->life,
				    .offset = offset,
				    .bytes = (u32)bytes };
	struct ssd_log_file *f;
	int err = log->has_life ? 0 : begin_life(ssd);

	if (!err && (!log->last || log->last->bytes >= FILE_BYTES_MAX ||
		     log->last->bytes >= log->bytes_max / 4))
		err = next_file(ssd);
	if (err)
		return err;
	f = log->last;
	pthread_mutex_lock(&ssd->lock);
	r.durable = log->durable;
	pthread_mutex_unlock(&ssd->lock);
	r.data_sum = mmnf_crc32c(ssd->salt, data, bytes);
	r.sum = ssd_log_record_sum(ssd, &r);
	err = ssd->disk->write(ssd->disk, f->file, data, bytes,
			       f->bytes + sizeof(r));
	if (!err)
		err = ssd->disk->write(ssd->disk, f->file, &r, sizeof(r),
				       f->bytes);
	if (err)
		return err;
	*out = (struct ssd_extent) { .start = offset,
				     .end = offset + bytes,
				     .seq = r.seq,
				     .written = r.seq,
				     .at = f->bytes + sizeof(r),
				     .record = { f->bytes + sizeof(r), r.bytes,
						 r.data_sum },
				     .file = f };
	return 0;
}

bool mmnf_ssd_log_take(struct mmnf_ssd *ssd, const struct ssd_extent *e)
{
	u64 bytes = e->at - e->file->bytes + round_up_u64(e->record.bytes, 8);

	if (!mmnf_ssd_dirty_insert(&ssd->dirty, e))
		return false;
	e->file->bytes += bytes;
	ssd->log.bytes += bytes;
	ssd->log.seq = e->seq;
	return true;
}

void mmnf_ssd_log_off(struct mmnf_ssd *ssd, int err, const char *doing)
{
	pthread_mutex_lock(&ssd->lock);
	ssd->log.is_usable = false;
	snprintf(ssd->log.why, sizeof(ssd->log.why), "log is off: %s: %s",
		 doing, strerror(-err));
	pthread_mutex_unlock(&ssd->lock);
}

int mmnf_ssd_log_sync(struct mmnf_ssd *ssd)
{
	struct ssd_log *log = &ssd->log;
	struct ssd_log_file *f;
	bool names;
	u64 seq, number;
	int err = 0;

	pthread_mutex_lock(&ssd->lock);
	seq = log->seq;
	number = log->synced_number;
	names = log->names_dirty;
	log->names_dirty = false;
	for (f = log->files; f && !err; f = f->next) {
		if (f->number < number)
			continue;
		number = f->number;
		f->users++;
		pthread_mutex_unlock(&ssd->lock);
		err = ssd->disk->sync(ssd->disk, f->file);
		pthread_mutex_lock(&ssd->lock);
		f->users--;
	}
	pthread_mutex_unlock(&ssd->lock);
	if (!err && names)
		err = ssd->disk->sync_names(ssd->disk);
	pthread_mutex_lock(&ssd->lock);
	if (!err) {
		log->durable = max_u64(log->durable, seq);
		log->synced_number = number;
	} else {
		log->names_dirty = true;
	}
	pthread_mutex_unlock(&ssd->lock);
	if (err)
		mmnf_ssd_log_off(ssd, err, "syncing it");
	return err;
}

/* ---- trimming */

u64 mmnf_ssd_log_pinned(const struct mmnf_ssd *ssd)
{
	u64 number = UINT64_MAX;
	s64 now = mmnf_ssd_now_ns();
	u32 i;

	for (i = 0; i < SSD_OPS; i++)
		if (ssd->drain.op[i].state != OP_FREE)
			number = min_u64(number, ssd->drain.op[i].number);
	for (i = 0; i < ssd->drain.nr_holds; i++)
		if (ssd->drain.hold[i].until_ns > now)
			number = min_u64(number, ssd->drain.hold[i].number);
	if (ssd->drain.nr_replayed && ssd->drain.replay_ns > now)
		number = min_u64(number, ssd->log.first_number);
	return number;
}

/* The oldest file that is still needed; lock is held. */
static u64 oldest_needed(const struct mmnf_ssd *ssd)
{
	u64 number = mmnf_ssd_log_pinned(ssd);
	u32 i;

	for (i = 0; i < ssd->dirty.nr; i++)
		number = min_u64(number, ssd->dirty.e[i]->file->number);
	return number;
}

/* Takes the files before number off the list; lock is held. */
static struct ssd_log_file *take_files(struct ssd_log *log, u64 number)
{
	struct ssd_log_file *first = log->files, **p = &log->files;

	while (*p && (*p)->number < number) {
		if (*p == log->last)
			log->last = NULL;
		log->bytes -= (*p)->bytes;
		p = &(*p)->next;
	}
	log->files = *p;
	*p = NULL;
	pthread_cond_broadcast(&log->room);
	return first;
}

static void remove_files(struct mmnf_ssd *ssd, struct ssd_log_file *f)
{
	struct ssd_log_file *next;
	char name[32];

	for (; f; f = next) {
		next = f->next;
		ssd_log_file_name(f->number, name);
		ssd->disk->remove(ssd->disk, name);
		pthread_mutex_lock(&ssd->lock);
		f->is_dead = true;
		if (!f->users)
			close_file(ssd, f);
		pthread_mutex_unlock(&ssd->lock);
	}
}

/*
 * append is held, so that no record comes in between.  The records that replace
 * some of those that go must be safe, and so must what the cache forgot.
 */
static void trim(struct mmnf_ssd *ssd)
{
	struct ssd_log *log = &ssd->log;
	struct ssd_log_file *f;
	u64 number;
	bool is_safe;

	pthread_mutex_lock(&ssd->lock);
	number = min_u64(oldest_needed(ssd), log->next_number);
	f = log->files;
	/* Where it is off, what replaces some of it may not be safe. */
	if (!f || f->number >= number || (!log->is_usable && ssd->dirty.nr)) {
		pthread_mutex_unlock(&ssd->lock);
		return;
	}
	is_safe = log->durable == log->seq || !log->is_usable;
	pthread_mutex_unlock(&ssd->lock);
	if (!is_safe && mmnf_ssd_log_sync(ssd))
		return;
	if (!mmnf_ssd_checkpoint(ssd) && mmnf_ssd_poison(ssd)) {
		mmnf_ssd_compact_failed(ssd, -EIO);
		return;
	}
	while (f && f->number < number)
		f = f->next;
	log->first_number = number;
	log->first_seq = f ? f->first_seq : log->seq + 1;
	/* Files may go only if the head no longer begins with them. */
	if (log->has_life ? write_head(ssd, log->generation + 1) :
			    begin_life(ssd)) {
		mmnf_ssd_log_off(ssd, -EIO, "writing its head");
		return;
	}
	pthread_mutex_lock(&ssd->lock);
	f = take_files(log, number);
	pthread_mutex_unlock(&ssd->lock);
	remove_files(ssd, f);
}

bool mmnf_ssd_log_empty(struct mmnf_ssd *ssd)
{
	bool is_empty;

	trim(ssd);
	pthread_mutex_lock(&ssd->lock);
	is_empty = !ssd->log.files;
	pthread_mutex_unlock(&ssd->lock);
	return is_empty;
}

void mmnf_ssd_log_trim(struct mmnf_ssd *ssd)
{
	/* Whoever has it may wait for the caller; there is a next time. */
	if (pthread_mutex_trylock(&ssd->log.append))
		return;
	trim(ssd);
	pthread_mutex_unlock(&ssd->log.append);
}
