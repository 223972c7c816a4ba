// SPDX-License-Identifier: MIT
/*
 * Opening a cache's directory: whose it is, what of it is of use, how many slots
 * it has now.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ssd-internal.h"

#define MAGIC 0x64737366666e6d6d /* "mmnffssd" */
#define VERSION 1
#define CHUNK_BYTES (1U << 20)
#define LOG_BYTES_MIN (16ULL << 20)
#define LOG_BYTES_MAX (1ULL << 30)
#define ERRORS_MAX 64
#define HINTS 8192 /* read at once */

/* In one sector; written when the directory gets its identity. */
struct header {
	u64 magic;
	u32 version, chunk_bytes;
	u64 space_bytes;
	u8 identity[32];
	u32 reserved, sum;
};

void mmnf_ssd_off(struct mmnf_ssd *ssd, const char *format, ...)
{
	va_list args;

	if (ssd->off)
		return;
	ssd->off = true;
	va_start(args, format);
	vsnprintf(ssd->why, sizeof(ssd->why), format, args);
	va_end(args);
}

void mmnf_ssd_failed(struct mmnf_ssd *ssd, int err, const char *doing)
{
	if (++ssd->nr_errors >= ERRORS_MAX)
		mmnf_ssd_off(ssd, "%u errors of the disk, the last %s: %s",
			     ssd->nr_errors, doing, strerror(-err));
}

int mmnf_ssd_poison(struct mmnf_ssd *ssd)
{
	int err;

	if (ssd->is_poisoned)
		return 0;
	err = ssd->disk->remove(ssd->disk, "header");
	if (!err || err == -ENOENT)
		err = ssd->disk->sync_names(ssd->disk);
	ssd->is_poisoned = !err;
	return err;
}

/* ---- the header */

static u32 header_sum(const struct header *h)
{
	return mmnf_crc32c(0, h, offsetof(struct header, sum));
}

static void make_header(const struct mmnf_ssd *ssd, struct header *h)
{
	memset(h, 0, sizeof(*h));
	h->magic = MAGIC;
	h->version = VERSION;
	h->chunk_bytes = ssd->chunk_bytes;
	h->space_bytes = ssd->backing.bytes;
	memcpy(h->identity, ssd->backing.identity, sizeof(h->identity));
	h->sum = header_sum(h);
}

/*
 * Nothing of what was there may be taken for this space's: the header comes when
 * all else is gone for good.
 */
static int begin_anew(struct mmnf_ssd *ssd, int file, const struct header *h)
{
	struct mmnf_ssd_disk *d = ssd->disk;
	int err = d->truncate(d, ssd->slots_file, 0);
	u32 i;

	if (!err)
		err = d->truncate(d, ssd->records_file, 0);
	for (i = 0; i < ssd->nr_data_files && !err; i++)
		err = d->truncate(d, ssd->data_file[i], 0);
	if (!err)
		err = d->sync(d, ssd->slots_file);
	if (!err)
		err = d->sync(d, ssd->records_file);
	if (!err)
		err = d->write(d, file, h, sizeof(*h), 0);
	if (!err)
		err = d->sync(d, file);
	return err ? err : d->sync_names(d);
}

static int check_header(struct mmnf_ssd *ssd)
{
	struct header is, should;
	struct iovec iov = { &is, sizeof(is) };
	int file = ssd->disk->open(ssd->disk, "header", false);
	ssize_t n;
	int err = 0;

	if (file < 0)
		return file;
	make_header(ssd, &should);
	n = ssd->disk->read(ssd->disk, file, &iov, 1, 0);
	if (n != sizeof(is) || memcmp(&is, &should, sizeof(is))) {
		ssd->was_dropped = n == sizeof(is) && is.magic == MAGIC &&
				   is.sum == header_sum(&is);
		err = begin_anew(ssd, file, &should);
	}
	ssd->disk->close(ssd->disk, file);
	return err;
}

/* ---- the slots */

/* Two slots of one chunk: which of them is right is not known any more. */
static void load_hint(struct mmnf_ssd *ssd, u32 slot, u64 chunk)
{
	u32 other;

	if (chunk > (ssd->backing.bytes - 1) / ssd->chunk_bytes)
		return;
	other = mmnf_ssd_index_find(&ssd->index, chunk);
	if (other == SSD_NO_SLOT) {
		mmnf_ssd_index_insert(&ssd->index, slot, chunk);
	} else {
		mmnf_ssd_index_drop(&ssd->index, other);
		mmnf_ssd_index_drop(&ssd->index, slot);
	}
}

static int load(struct mmnf_ssd *ssd)
{
	u64 *hint = malloc(HINTS * sizeof(*hint));
	struct iovec iov = { hint, HINTS * sizeof(*hint) };
	u64 slot = 0;
	ssize_t n = 1, i;

	if (!hint)
		return -ENOMEM;
	while (n > 0 && slot < ssd->index.nr_slots) {
		n = ssd->disk->read(ssd->disk, ssd->slots_file, &iov, 1,
				    slot * sizeof(*hint));
		for (i = 0; i < n / (ssize_t)sizeof(*hint); i++)
			if (hint[i] && slot + (u64)i < ssd->index.nr_slots)
				load_hint(ssd, (u32)(slot + (u64)i),
					  hint[i] - 1);
		slot += HINTS;
	}
	free(hint);
	return n < 0 ? (int)n : 0;
}

/* As long as the slots are now; what was behind them is forgotten. */
static int fit(struct mmnf_ssd *ssd)
{
	u64 slots = ssd->index.nr_slots * sizeof(u64);
	u64 records = ssd->index.nr_slots * sizeof(struct ssd_record);
	struct mmnf_ssd_disk *d = ssd->disk;
	s64 is = d->bytes(d, ssd->slots_file);
	u64 end;
	int err = 0;

	if (is < 0)
		return (int)is;
	if ((u64)is > slots) {
		err = d->truncate(d, ssd->slots_file, slots);
		if (!err)
			err = d->truncate(d, ssd->records_file, records);
		ssd_data_file(ssd, ssd->index.nr_slots - 1, &end);
		if (!err)
			err = d->truncate(
				d, ssd->data_file[ssd->nr_data_files - 1],
				end + ssd->chunk_bytes);
	}
	if (!err)
		err = d->reserve(d, ssd->slots_file, slots);
	return err ? err : d->reserve(d, ssd->records_file, records);
}

/* ---- opening */

static int open_files(struct mmnf_ssd *ssd)
{
	struct mmnf_ssd_disk *d = ssd->disk;
	char name[16];
	u32 i;

	ssd->slots_file = d->open(d, "slots", false);
	if (ssd->slots_file < 0)
		return ssd->slots_file;
	ssd->records_file = d->open(d, "records", false);
	if (ssd->records_file < 0)
		return ssd->records_file;
	for (i = 0; i <= (ssd->index.nr_slots - 1) / SSD_FILE_SLOTS; i++) {
		snprintf(name, sizeof(name), "data.%u", i);
		ssd->data_file[i] = d->open(d, name, true);
		if (ssd->data_file[i] < 0)
			return ssd->data_file[i];
		ssd->nr_data_files++;
	}
	/* Of a larger cache; one that is still in the way is found next time. */
	for (; i < SSD_FILES_MAX; i++) {
		snprintf(name, sizeof(name), "data.%u", i);
		if (d->exists(d, name) || d->remove(d, name))
			break;
	}
	return 0;
}

static void close_files(struct mmnf_ssd *ssd)
{
	struct mmnf_ssd_disk *d = ssd->disk;
	u32 i;

	if (ssd->slots_file >= 0)
		d->close(d, ssd->slots_file);
	if (ssd->records_file >= 0)
		d->close(d, ssd->records_file);
	for (i = 0; i < ssd->nr_data_files; i++)
		d->close(d, ssd->data_file[i]);
}

/* Whatever goes wrong here turns the cache off. */
static void use_cache(struct mmnf_ssd *ssd)
{
	int err = open_files(ssd);

	if (!err)
		err = check_header(ssd);
	if (!err)
		err = fit(ssd);
	if (!err)
		err = load(ssd);
	if (!err)
		err = ssd->disk->sync_names(ssd->disk);
	if (err)
		mmnf_ssd_off(ssd, "opening it: %s", strerror(-err));
	else if (ssd->index.nr_clearing)
		mmnf_ssd_checkpoint(ssd);
}

static int use_directory(struct mmnf_ssd *ssd, bool threads)
{
	int err = ssd->disk->lock(ssd->disk);

	if (err && err != -EBUSY && mmnf_ssd_log_may_be(ssd))
		return mmnf_error(
			-err,
			"cache: locking the directory: %s: expected to read what was written and is not on the servers yet",
			strerror(-err));
	if (err) {
		ssd->is_others = err == -EBUSY;
		mmnf_ssd_off(ssd, "%s",
			     ssd->is_others ?
				     "another process uses the directory" :
				     strerror(-err));
		mmnf_ssd_log_off(ssd, err, "locking the directory");
		return 0;
	}
	err = mmnf_ssd_log_open(ssd);
	if (err)
		return err;
	use_cache(ssd);
	err = mmnf_ssd_log_load(ssd);
	if (!err)
		err = mmnf_ssd_drain_open(ssd, threads);
	if (!err && threads && !ssd->off && mmnf_ssd_fill_start(ssd))
		mmnf_ssd_off(ssd, "no thread to fill it");
	return err;
}

static int check(const struct mmnf_ssd_opts *opts,
		 const struct mmnf_ssd_backing *backing)
{
	u32 chunk = opts->chunk_bytes ? opts->chunk_bytes : CHUNK_BYTES;

	if (chunk < 8 * MMNF_SSD_BLOCK || chunk > CHUNK_BYTES ||
	    (chunk & (chunk - 1)))
		return mmnf_error(
			EINVAL,
			"cache: chunks of %u bytes: expected a power of two, 32768 to 1048576",
			chunk);
	if (opts->bytes < MMNF_SSD_CHUNKS_MIN * chunk)
		return mmnf_error(EINVAL,
				  "cache of %" PRIu64
				  " bytes: expected at least %llu",
				  opts->bytes, MMNF_SSD_CHUNKS_MIN * chunk);
	if (!backing->bytes || backing->bytes > INT64_MAX)
		return mmnf_error(EINVAL,
				  "cache of a space of %" PRIu64
				  " bytes: expected 1 to 2^63 - 1",
				  backing->bytes);
	return 0;
}

static void close_all(struct mmnf_ssd *ssd)
{
	close_files(ssd);
	mmnf_ssd_log_close(ssd);
	ssd->disk->end(ssd->disk);
	mmnf_ssd_index_close(&ssd->index);
	mmnf_ssd_dirty_free(&ssd->dirty);
	free(ssd->entries);
	free(ssd->drain.flush);
	free(ssd->drain.replayed);
	pthread_cond_destroy(&ssd->wake);
	pthread_cond_destroy(&ssd->log.room);
	pthread_cond_destroy(&ssd->drain.wake);
	pthread_cond_destroy(&ssd->drain.done);
	pthread_mutex_destroy(&ssd->log.append);
	pthread_mutex_destroy(&ssd->lock);
	pthread_mutex_destroy(&ssd->turn);
	free(ssd);
}

static u32 nr_slots(const struct mmnf_ssd *ssd, u64 bytes)
{
	u64 each = ssd->chunk_bytes + sizeof(struct ssd_record) + sizeof(u64);
	u64 chunks = (ssd->backing.bytes - 1) / ssd->chunk_bytes + 1;

	/* A quarter more than there are chunks: some are always being cleared. */
	return (u32)min_u64(min_u64(bytes / each, chunks + chunks / 4 + 8),
			    (u64)SSD_FILE_SLOTS * SSD_FILES_MAX);
}

static void init_locks(struct mmnf_ssd *ssd)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&ssd->lock, NULL);
	pthread_mutex_init(&ssd->turn, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&ssd->wake, &attr);
	pthread_mutex_init(&ssd->log.append, NULL);
	pthread_cond_init(&ssd->log.room, &attr);
	pthread_cond_init(&ssd->drain.wake, &attr);
	pthread_cond_init(&ssd->drain.done, &attr);
	pthread_condattr_destroy(&attr);
}

/* Everything but memory and files. */
static void init(struct mmnf_ssd *ssd, struct mmnf_ssd_disk *disk,
		 const struct mmnf_ssd_opts *opts,
		 const struct mmnf_ssd_backing *backing)
{
	u64 log_bytes = opts->log_bytes;

	if (!log_bytes)
		log_bytes = min_u64(max_u64(opts->bytes / 8, LOG_BYTES_MIN),
				    LOG_BYTES_MAX);
	init_locks(ssd);
	ssd->disk = disk;
	ssd->backing = *backing;
	if (!backing->align)
		ssd->backing.align = 1;
	ssd->chunk_bytes = opts->chunk_bytes ? opts->chunk_bytes : CHUNK_BYTES;
	ssd->chunk_blocks = ssd->chunk_bytes / MMNF_SSD_BLOCK;
	ssd->no_threads = opts->no_threads;
	ssd->salt =
		mmnf_crc32c(0, backing->identity, sizeof(backing->identity));
	ssd->slots_file = ssd->records_file = ssd->log.head_file = -1;
	ssd->jobs_end = &ssd->jobs;
	ssd->log.bytes_max = log_bytes;
	ssd->drain.grace_ns =
		(opts->grace_ms ? opts->grace_ms : MMNF_SSD_GRACE_MS) *
		1000000LL;
}

int mmnf_ssd_open(struct mmnf_ssd **out, struct mmnf_ssd_disk *disk,
		  const struct mmnf_ssd_opts *opts,
		  const struct mmnf_ssd_backing *backing)
{
	int err = check(opts, backing);
	struct mmnf_ssd *ssd = err ? NULL : calloc(1, sizeof(*ssd));

	*out = NULL;
	if (!ssd) {
		disk->end(disk);
		return err ? err : mmnf_error(ENOMEM, "no memory for a cache");
	}
	init(ssd, disk, opts, backing);
	ssd->entries = calloc(SSD_SETS * SSD_WAYS, sizeof(*ssd->entries));
	err = mmnf_ssd_index_open(&ssd->index, nr_slots(ssd, opts->bytes));
	if (!err && !ssd->entries)
		err = mmnf_error(ENOMEM, "no memory for a cache");
	if (!err)
		err = use_directory(ssd, !opts->no_threads);
	if (err) {
		close_all(ssd);
		return err;
	}
	*out = ssd;
	return 0;
}

void mmnf_ssd_close(struct mmnf_ssd *ssd)
{
	if (!ssd)
		return;
	mmnf_ssd_sync(ssd);
	mmnf_ssd_drain_close(ssd);
	mmnf_ssd_fill_stop(ssd);
	if (ssd->backing.submit && !ssd->is_others)
		mmnf_ssd_log_trim(ssd);
	if (ssd->slots_file >= 0)
		mmnf_ssd_checkpoint(ssd);
	close_all(ssd);
}

void mmnf_ssd_stats(struct mmnf_ssd *ssd, struct mmnf_ssd_stats *out)
{
	pthread_mutex_lock(&ssd->lock);
	*out = ssd->stats;
	out->hits = __atomic_load_n(&ssd->stats.hits, __ATOMIC_RELAXED);
	out->misses = __atomic_load_n(&ssd->stats.misses, __ATOMIC_RELAXED);
	out->hit_bytes =
		__atomic_load_n(&ssd->stats.hit_bytes, __ATOMIC_RELAXED);
	out->size_bytes = (u64)ssd->index.nr_slots * ssd->chunk_bytes;
	out->used_bytes = (u64)ssd->index.nr_live * ssd->chunk_bytes;
	out->memory_bytes = sizeof(*ssd) + mmnf_ssd_index_bytes(&ssd->index) +
			    SSD_SETS * SSD_WAYS * sizeof(struct ssd_entry) +
			    ssd->queued_bytes +
			    ssd->dirty.nr * sizeof(struct ssd_extent) +
			    ssd->dirty.room * sizeof(*ssd->dirty.e);
	out->log_bytes = ssd->log.bytes;
	out->dirty_bytes = ssd->dirty.bytes;
	pthread_mutex_unlock(&ssd->lock);
}

bool mmnf_ssd_text(struct mmnf_ssd *ssd, char *text, size_t len)
{
	bool on;

	pthread_mutex_lock(&ssd->lock);
	on = !ssd->off;
	if (!on)
		snprintf(text, len, "off: %s", ssd->why);
	else
		snprintf(text, len, "%s%s",
			 ssd->was_dropped ?
				 "began anew: it was of another space" :
				 "on",
			 ssd->paused_until_ns > mmnf_ssd_now_ns() ?
				 "; the disk is full: nothing is added" :
				 "");
	pthread_mutex_unlock(&ssd->lock);
	return on;
}
