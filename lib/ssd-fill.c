// SPDX-License-Identifier: MIT
/*
 * Filling, and what makes it last.
 *
 *	came() --copy--> queue --filler--> data.N --checkpoint--> records, slots
 *
 * One filler at a time: a thread, or mmnf_ssd_work().  It alone takes slots that
 * are ready, and writes data only to blocks that are not valid.
 *
 * A checkpoint, each second or 64 chunks:
 *
 *	1  choose slots to be given up, copy the records that are new	lock
 *	2  fdatasync of the data that these records speak of
 *	3  write them; clear the records of slots given up
 *	4  fdatasync of records and slots; now the cleared slots are ready
 *
 * so a record on the disk never speaks of data that is not, and new data is never
 * in a slot whose old record may come back.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ssd-internal.h"

#define QUEUE_BYTES (16ULL << 20)
#define DIRTY_MAX 64
#define PERIOD_NS 1000000000LL
#define PAUSE_NS 10000000000LL
#define READY_MIN 64

/* ---- checkpoint */

struct writing {
	u32 slot;
	struct ssd_record r;
};

/* The slots file's word for a slot. */
static int write_hint(struct mmnf_ssd *ssd, u32 slot, u64 chunk_plus_1)
{
	return ssd->disk->write(ssd->disk, ssd->slots_file, &chunk_plus_1,
				sizeof(chunk_plus_1),
				slot * sizeof(chunk_plus_1));
}

static int clear(struct mmnf_ssd *ssd, u32 slot)
{
	static const char zero[SSD_RECORD_HEAD];
	int err = ssd->disk->write(ssd->disk, ssd->records_file, zero,
				   sizeof(zero),
				   slot * sizeof(struct ssd_record));

	return err ? err : write_hint(ssd, slot, 0);
}

/* Records that are new; lock is held.  They come back as WRITING. */
static struct writing *collect(struct mmnf_ssd *ssd, u32 *nr)
{
	struct writing *w = malloc((ssd->nr_dirty + 1) * sizeof(*w));
	struct ssd_entry *e = ssd->entries;
	u64 chunk;

	*nr = 0;
	for (; w && e < ssd->entries + SSD_SETS * SSD_WAYS; e++) {
		if (e->state != ENTRY_DIRTY)
			continue;
		e->state = ENTRY_WRITING;
		mmnf_ssd_index_chunk(&ssd->index, e->slot, &chunk);
		e->r.chunk = chunk + 1;
		e->r.sum = mmnf_ssd_record_sum(ssd, &e->r);
		w[*nr].slot = e->slot;
		w[(*nr)++].r = e->r;
	}
	if (w)
		ssd->nr_dirty = 0;
	return w;
}

static int sync_data(struct mmnf_ssd *ssd, const u64 *dirty)
{
	int err = 0;
	u32 i;

	for (i = 0; i < SSD_FILES_MAX && !err; i++)
		if (dirty[i / 64] >> i % 64 & 1)
			err = ssd->disk->sync(ssd->disk, ssd->data_file[i]);
	return err;
}

static int write_map(struct mmnf_ssd *ssd, const struct writing *w, u32 nr,
		     u32 clearing)
{
	int err = 0;

	for (; nr && !err; nr--, w++) {
		err = ssd->disk->write(ssd->disk, ssd->records_file, &w->r,
				       sizeof(w->r), w->slot * sizeof(w->r));
		if (!err)
			err = write_hint(ssd, w->slot, w->r.chunk);
	}
	for (; clearing != SSD_NO_SLOT && !err;
	     clearing = mmnf_ssd_index_next(&ssd->index, clearing))
		err = clear(ssd, clearing);
	if (!err)
		err = ssd->disk->sync(ssd->disk, ssd->records_file);
	if (!err)
		err = ssd->disk->sync(ssd->disk, ssd->slots_file);
	return err;
}

/* What step 1 dropped has no entry; who came back to be dirty stays so. */
static void written(struct mmnf_ssd *ssd, u32 clearing)
{
	struct ssd_entry *e = ssd->entries;
	u32 next;

	for (; e < ssd->entries + SSD_SETS * SSD_WAYS; e++)
		if (e->state == ENTRY_WRITING)
			e->state = ENTRY_CLEAN;
	for (; clearing != SSD_NO_SLOT; clearing = next) {
		next = mmnf_ssd_index_next(&ssd->index, clearing);
		mmnf_ssd_index_cleared(&ssd->index, clearing);
	}
	ssd->generation++;
	ssd->stats.nr_checkpoints++;
}

/* Gives slots up until enough are ready or will be. */
static void make_room(struct mmnf_ssd *ssd)
{
	struct ssd_index *x = &ssd->index;
	u32 want = READY_MIN, nr = x->nr_ready + x->nr_clearing;
	struct ssd_entry *e;
	u64 chunk;

	/* A small cache keeps most of what it has. */
	if (want > x->nr_slots / 4)
		want = x->nr_slots / 4;
	if (nr >= want)
		return;
	ssd->stats.evicted_chunks += mmnf_ssd_index_evict(x, want - nr);
	for (e = ssd->entries; e < ssd->entries + SSD_SETS * SSD_WAYS; e++)
		if (e->state != ENTRY_EMPTY &&
		    !mmnf_ssd_index_chunk(x, e->slot, &chunk))
			mmnf_ssd_entry_remove(ssd, e->slot);
}

static bool checkpoint(struct mmnf_ssd *ssd, bool need_room)
{
	u64 dirty[SSD_FILES_MAX / 64];
	struct writing *w;
	u32 nr, clearing;
	int err;

	pthread_mutex_lock(&ssd->lock);
	if (ssd->off) {
		pthread_mutex_unlock(&ssd->lock);
		return false;
	}
	if (need_room)
		make_room(ssd);
	w = collect(ssd, &nr);
	if (!w) {
		mmnf_ssd_off(ssd, "no memory for a checkpoint");
		pthread_mutex_unlock(&ssd->lock);
		return false;
	}
	clearing = mmnf_ssd_index_take_clearing(&ssd->index);
	memcpy(dirty, ssd->data_dirty, sizeof(dirty));
	memset(ssd->data_dirty, 0, sizeof(dirty));
	pthread_mutex_unlock(&ssd->lock);

	err = sync_data(ssd, dirty);
	if (!err && (nr || clearing != SSD_NO_SLOT))
		err = write_map(ssd, w, nr, clearing);
	free(w);

	pthread_mutex_lock(&ssd->lock);
	if (err)
		mmnf_ssd_off(ssd, "writing records: %s", strerror(-err));
	else
		written(ssd, clearing);
	err = ssd->off;
	pthread_mutex_unlock(&ssd->lock);
	return !err;
}

static bool turn(struct mmnf_ssd *ssd, bool need_room)
{
	bool ok;

	pthread_mutex_lock(&ssd->turn);
	ok = checkpoint(ssd, need_room);
	pthread_mutex_unlock(&ssd->turn);
	return ok;
}

bool mmnf_ssd_checkpoint(struct mmnf_ssd *ssd)
{
	return turn(ssd, false);
}

/* ---- filling */

void mmnf_ssd_fill_queue(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
			 const struct iovec *iov, u32 nr_iov, u64 ticket)
{
	u64 whole = bytes / MMNF_SSD_BLOCK * MMNF_SSD_BLOCK, left, n;
	struct ssd_job *job;
	char *to;

	if (!whole || offset % MMNF_SSD_BLOCK)
		return;
	if (ssd->queued_bytes + whole > QUEUE_BYTES ||
	    ssd->paused_until_ns > mmnf_ssd_now_ns()) {
		ssd->stats.dropped += whole / MMNF_SSD_BLOCK;
		return;
	}
	job = malloc(sizeof(*job));
	if (job && posix_memalign((void **)&job->data, MMNF_SSD_BLOCK, whole)) {
		free(job);
		job = NULL;
	}
	if (!job) {
		ssd->stats.dropped += whole / MMNF_SSD_BLOCK;
		return;
	}
	to = job->data;
	for (left = whole; left && nr_iov; left -= n, nr_iov--, iov++) {
		n = min_u64(left, iov->iov_len);
		memcpy(to, iov->iov_base, n);
		to += n;
	}
	job->offset = offset;
	job->bytes = whole;
	job->ticket = ticket;
	job->next = NULL;
	*ssd->jobs_end = job;
	ssd->jobs_end = &job->next;
	ssd->queued_bytes += whole;
	pthread_cond_signal(&ssd->wake);
}

/* A live slot for the chunk, and its entry; lock is held.  NULL: not now. */
static struct ssd_entry *place(struct mmnf_ssd *ssd, u64 chunk, u32 *slot)
{
	struct ssd_entry *e = mmnf_ssd_entry_get(ssd, chunk, slot);

	if (e || *slot != SSD_NO_SLOT || ssd->off)
		return e;
	*slot = mmnf_ssd_index_take_ready(&ssd->index);
	if (*slot == SSD_NO_SLOT)
		return NULL;
	e = mmnf_ssd_entry_add(ssd, *slot);
	if (!e) {
		mmnf_ssd_index_cleared(&ssd->index, *slot);
		return NULL;
	}
	e->r.chunk = chunk + 1;
	mmnf_ssd_index_insert(&ssd->index, *slot, chunk);
	return e;
}

static bool is_wanted(struct mmnf_ssd *ssd, u64 chunk, u64 ticket)
{
	return !ssd->off && *ssd_stamp(&ssd->forgotten, chunk) <= ticket;
}

/* The disk has no room: what is here stays, and new data waits a while. */
static void write_failed(struct mmnf_ssd *ssd, int err)
{
	if (err == -ENOSPC || err == -EDQUOT || err == -EFBIG)
		ssd->paused_until_ns = mmnf_ssd_now_ns() + PAUSE_NS;
	else
		mmnf_ssd_failed(ssd, err, "writing");
}

/* Blocks [first, first + nr), none of them valid. */
static void fill_blocks(struct mmnf_ssd *ssd, u64 chunk, u32 slot, u32 first,
			u32 nr, const char *data, u64 ticket)
{
	u64 block = chunk * ssd->chunk_blocks + first, offset;
	u32 sum[SSD_BLOCKS_MAX], i, now;
	struct ssd_entry *e;
	int err, file;

	file = ssd_data_file(ssd, slot, &offset);
	for (i = 0; i < nr; i++)
		sum[i] = mmnf_ssd_block_sum(ssd, block + i,
					    data + i * MMNF_SSD_BLOCK);
	err = ssd->disk->write(ssd->disk, file, data, nr * MMNF_SSD_BLOCK,
			       offset + first * MMNF_SSD_BLOCK);
	pthread_mutex_lock(&ssd->lock);
	if (err) {
		ssd->stats.dropped += nr;
		write_failed(ssd, err);
	} else if (is_wanted(ssd, chunk, ticket)) {
		e = mmnf_ssd_entry_get(ssd, chunk, &now);
		if (e && now == slot) {
			for (i = first; i < first + nr; i++) {
				e->r.valid[i / 64] |= 1ULL << i % 64;
				e->r.block_sum[i] = sum[i - first];
			}
			mmnf_ssd_entry_dirty(ssd, e);
			i = slot / SSD_FILE_SLOTS;
			ssd->data_dirty[i / 64] |= 1ULL << i % 64;
			ssd->stats.filled += nr;
		}
	}
	pthread_mutex_unlock(&ssd->lock);
}

static void fill_chunk(struct mmnf_ssd *ssd, u64 chunk, u32 first, u32 nr,
		       const char *data, u64 ticket)
{
	u64 valid[SSD_BLOCKS_MAX / 64];
	struct ssd_entry *e = NULL;
	u32 tries, slot, i, n;

	pthread_mutex_lock(&ssd->lock);
	for (tries = 0; !e && tries < 2 && is_wanted(ssd, chunk, ticket);
	     tries++) {
		e = place(ssd, chunk, &slot);
		if (e || tries)
			break;
		pthread_mutex_unlock(&ssd->lock);
		turn(ssd, true);
		pthread_mutex_lock(&ssd->lock);
	}
	if (e)
		memcpy(valid, e->r.valid, sizeof(valid));
	else
		ssd->stats.dropped += nr;
	pthread_mutex_unlock(&ssd->lock);
	for (i = first; e && i < first + nr; i += n) {
		bool is_valid = valid[i / 64] >> i % 64 & 1;

		for (n = 1;
		     i + n < first + nr &&
		     (valid[(i + n) / 64] >> (i + n) % 64 & 1) == is_valid;
		     n++)
			;
		if (!is_valid)
			fill_blocks(ssd, chunk, slot, i, n,
				    data + (i - first) * MMNF_SSD_BLOCK,
				    ticket);
	}
}

static void fill(struct mmnf_ssd *ssd, const struct ssd_job *job)
{
	u64 at, n;

	for (at = 0; at < job->bytes; at += n) {
		u64 offset = job->offset + at;
		u64 in_chunk = offset % ssd->chunk_bytes;

		n = min_u64(job->bytes - at, ssd->chunk_bytes - in_chunk);
		fill_chunk(ssd, ssd_chunk(ssd, offset),
			   (u32)(in_chunk / MMNF_SSD_BLOCK),
			   (u32)(n / MMNF_SSD_BLOCK), job->data + at,
			   job->ticket);
	}
}

/* The oldest job; lock is held. */
static struct ssd_job *take(struct mmnf_ssd *ssd)
{
	struct ssd_job *job = ssd->jobs;

	if (!job)
		return NULL;
	ssd->jobs = job->next;
	if (!ssd->jobs)
		ssd->jobs_end = &ssd->jobs;
	ssd->queued_bytes -= job->bytes;
	return job;
}

static void free_job(struct ssd_job *job)
{
	if (job)
		free(job->data);
	free(job);
}

static bool is_due(const struct mmnf_ssd *ssd)
{
	return ssd->nr_dirty >= DIRTY_MAX ||
	       (ssd->nr_dirty &&
		mmnf_ssd_now_ns() - ssd->dirty_since_ns >= PERIOD_NS);
}

static void wait(struct mmnf_ssd *ssd)
{
	s64 at = ssd->dirty_since_ns + PERIOD_NS;
	struct timespec until = { at / 1000000000, at % 1000000000 };

	if (ssd->nr_dirty)
		pthread_cond_timedwait(&ssd->wake, &ssd->lock, &until);
	else
		pthread_cond_wait(&ssd->wake, &ssd->lock);
}

static void *run(void *arg)
{
	struct mmnf_ssd *ssd = arg;
	struct ssd_job *job;

	pthread_mutex_lock(&ssd->lock);
	while (!ssd->off && (!ssd->stop || ssd->jobs)) {
		bool due = is_due(ssd);

		job = take(ssd);
		if (!job && !due) {
			wait(ssd);
			continue;
		}
		pthread_mutex_unlock(&ssd->lock);
		if (job)
			fill(ssd, job);
		free_job(job);
		if (due)
			turn(ssd, false);
		pthread_mutex_lock(&ssd->lock);
	}
	pthread_mutex_unlock(&ssd->lock);
	return NULL;
}

bool mmnf_ssd_work(struct mmnf_ssd *ssd)
{
	struct ssd_job *job;

	for (;;) {
		pthread_mutex_lock(&ssd->lock);
		job = ssd->has_thread ? NULL : take(ssd);
		pthread_mutex_unlock(&ssd->lock);
		if (!job)
			break;
		fill(ssd, job);
		free_job(job);
	}
	while (ssd->no_threads && ssd->backing.submit && !ssd->is_others &&
	       mmnf_ssd_drain_step(ssd))
		;
	return turn(ssd, false);
}

int mmnf_ssd_fill_start(struct mmnf_ssd *ssd)
{
	sigset_t all, before;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&ssd->thread, NULL, run, ssd);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err)
		return -err;
	ssd->has_thread = true;
	return 0;
}

void mmnf_ssd_fill_stop(struct mmnf_ssd *ssd)
{
	if (ssd->has_thread) {
		pthread_mutex_lock(&ssd->lock);
		ssd->stop = true;
		pthread_cond_broadcast(&ssd->wake);
		pthread_mutex_unlock(&ssd->lock);
		pthread_join(ssd->thread, NULL);
	}
	while (ssd->jobs)
		free_job(take(ssd));
}
