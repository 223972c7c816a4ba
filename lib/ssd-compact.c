// SPDX-License-Identifier: MIT
/*
 * Compaction of the log: what its oldest file has and the servers do not is appended
 * anew, so that the file can go.
 *
 *	log.3 [..A......]  log.4 [.......]  log.5 [...      ]
 *	         '------------------------------------->A
 *
 * Else a few bytes for a server that is away would keep all that was written to the
 * others after them, until the log is full.
 *
 * It moves nothing while more than the bytes themselves needs the file: a write under
 * way, or one that may come late.  After a crash such a write must be found under what
 * is newer.  The file goes by mmnf_ssd_log_trim(), which syncs the log before: when the
 * power goes, the bytes are in the one file or in the other, or in both.
 *
 * Where more than half of the log is bytes that the servers do not have, to move them
 * would make no room: nothing is done then.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ssd-internal.h"

#define STEP_BYTES \
	(1ULL << 20) /* then whoever waits for the log's end has a turn */
#define RECORD_BYTES_MAX 64ULL /* beside its data */
#define RETRY_NS 1000000000LL

static u64 log_bytes(u64 data_bytes, u32 nr_records)
{
	return data_bytes + nr_records * RECORD_BYTES_MAX;
}

bool mmnf_ssd_compact_helps(const struct mmnf_ssd *ssd)
{
	const struct ssd_dirty *d = &ssd->dirty;
	u32 i, group, nr = 0;
	u64 bytes = 0;

	/* What the others have to get will be gone. */
	for (i = 0; i < d->nr; i++) {
		ssd->backing.unit(ssd->backing.arg, d->e[i]->start, &group);
		if (!ssd->drain.flush[group].is_away)
			continue;
		bytes += d->e[i]->end - d->e[i]->start;
		nr++;
	}
	return ssd->log.is_usable && nr <= SSD_EXTENTS_MAX / 2 &&
	       log_bytes(bytes, nr) <= ssd->log.bytes_max / 2 &&
	       mmnf_ssd_now_ns() >= ssd->log.compact_ns;
}

/* DIRTY, or acked by a server that does not flush now. */
static bool may_move(const struct mmnf_ssd *ssd, const struct ssd_extent *e,
		     s64 now)
{
	return e->state == EXTENT_DIRTY ||
	       (e->state == EXTENT_ACKED &&
		now < ssd->drain.flush[e->group].retry_ns);
}

/* The file to be moved, or NULL; lock is held. */
static struct ssd_log_file *victim(struct mmnf_ssd *ssd)
{
	struct ssd_log_file *f = ssd->log.files;
	s64 now = mmnf_ssd_now_ns();
	u32 i;

	if (ssd->drain.stop || !ssd->log.is_usable || !f ||
	    f == ssd->log.last || now < ssd->log.compact_ns ||
	    ssd->log.bytes <= ssd->log.bytes_max / 4 * 3 ||
	    log_bytes(ssd->dirty.bytes, ssd->dirty.nr) >
		    ssd->log.bytes_max / 2 ||
	    mmnf_ssd_log_pinned(ssd) <= f->number)
		return NULL;
	for (i = 0; i < ssd->dirty.nr; i++)
		if (ssd->dirty.e[i]->file == f &&
		    !may_move(ssd, ssd->dirty.e[i], now))
			return NULL;
	return f;
}

static bool is_same(const struct ssd_extent *a, const struct ssd_extent *b)
{
	return a->start == b->start && a->end == b->end && a->seq == b->seq &&
	       a->file == b->file && a->state == b->state;
}

/* What is left of a large record may be many pieces: it is kept, and read once. */
struct last_record {
	char *data; /* behind it, of chunk_bytes: what is moved whole */
	bool is_there;
	u64 number, at; /* of its file, in it */
};

/* *from: where its record is then. */
static int read_record(struct mmnf_ssd *ssd, const struct ssd_extent *e,
		       struct last_record *last, const char **from)
{
	int err;

	if (e->record.bytes == e->end - e->start) {
		*from = last->data + ssd->chunk_bytes;
		return mmnf_ssd_record_read(ssd, e,
					    last->data + ssd->chunk_bytes);
	}
	*from = last->data;
	if (last->is_there && last->number == e->file->number &&
	    last->at == e->record.at)
		return 0;
	err = mmnf_ssd_record_read(ssd, e, last->data);
	last->is_there = !err;
	last->number = e->file->number;
	last->at = e->record.at;
	return err;
}

/*
 * Extent i; lock is held, and given up meanwhile.  What has become of it since decides
 * if the new record counts.  1: it was moved; 0: it was not; -errno.
 */
static int move(struct mmnf_ssd *ssd, u32 i, struct last_record *last)
{
	struct ssd_extent e = *ssd->dirty.e[i], moved;
	const char *from;
	int err;

	e.file->users++;
	pthread_mutex_unlock(&ssd->lock);
	err = read_record(ssd, &e, last, &from);
	if (!err)
		err = mmnf_ssd_log_append(ssd, e.start, e.end - e.start,
					  from + (e.at - e.record.at), &moved);
	pthread_mutex_lock(&ssd->lock);
	mmnf_ssd_log_put(ssd, e.file);
	if (err)
		return err;
	i = mmnf_ssd_dirty_find(&ssd->dirty, e.start);
	if (i == ssd->dirty.nr || !is_same(ssd->dirty.e[i], &e))
		return 0;
	moved.written = e.written;
	moved.held = e.held;
	if (!mmnf_ssd_log_take(ssd, &moved))
		return -ENOMEM;
	ssd->stats.moved_bytes += e.end - e.start;
	return 1;
}

/* Some of a file; lock and append are held.  1: something was moved; 0, -errno. */
static int move_some(struct mmnf_ssd *ssd, const struct ssd_log_file *f)
{
	struct ssd_dirty *d = &ssd->dirty;
	struct last_record last = { .data = malloc(2UL * ssd->chunk_bytes) };
	u64 at = 0, from = ssd->log.bytes;
	int ret = 0, any = 0;
	u32 i;

	if (!last.data)
		return -ENOMEM;
	while (ret >= 0 && ssd->log.bytes - from < STEP_BYTES) {
		for (i = mmnf_ssd_dirty_find(d, at);
		     i < d->nr && d->e[i]->file != f;)
			i++;
		if (i == d->nr) {
			ssd->drain.trim_due = true;
			break;
		}
		at = d->e[i]->end;
		ret = move(ssd, i, &last);
		any |= ret > 0;
	}
	free(last.data);
	return ret < 0 ? ret : any;
}

void mmnf_ssd_compact_failed(struct mmnf_ssd *ssd, int err)
{
	struct ssd_log *log = &ssd->log;

	pthread_mutex_lock(&ssd->lock);
	log->compact_ns = mmnf_ssd_now_ns() + RETRY_NS;
	snprintf(log->why, sizeof(log->why), "compacting the log: %s",
		 strerror(-err));
	pthread_cond_broadcast(&log->room);
	pthread_mutex_unlock(&ssd->lock);
}

bool mmnf_ssd_compact(struct mmnf_ssd *ssd)
{
	struct ssd_log *log = &ssd->log;
	struct ssd_log_file *f;
	int ret = 0;

	/* Whoever has it may wait for the caller; there is a next time. */
	if (pthread_mutex_trylock(&log->append))
		return false;
	pthread_mutex_lock(&ssd->lock);
	f = victim(ssd);
	if (f)
		ret = move_some(ssd, f);
	if (ret > 0)
		mmnf_ssd_drain_kick(ssd);
	pthread_mutex_unlock(&ssd->lock);
	if (ret < 0)
		mmnf_ssd_compact_failed(ssd, ret);
	pthread_mutex_unlock(&log->append);
	return ret > 0;
}
