// SPDX-License-Identifier: MIT
/*
 * From the log to the servers.  One thread does all of it, in steps:
 *
 *	1  sync the log: only what is safe in it is sent, so that after a crash
 *	   the cache is told to forget whatever a server may have got
 *	2  take what is done: writes that were acked, reads around unaligned ones
 *	3  send what is safe, dirty, not held back and not under way
 *	4  take flushes that are done, start those that are due
 *	5  move what keeps the log's oldest file, if room is short
 *	6  remove files of the log that nobody needs
 *
 * Two writes of one byte are never under way together.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ssd-internal.h"

#define OP_BYTES_MAX (1ULL << 20)
#define SYNC_NS 200000000LL
#define FLUSH_NS 1000000000LL
#define RETRY_NS 1000000000LL
#define TICK_NS 100000000LL
#define NAP_NS 1000000LL

void mmnf_ssd_drain_kick(struct mmnf_ssd *ssd)
{
	ssd->drain.kicks++;
	pthread_cond_signal(&ssd->drain.wake);
}

void mmnf_ssd_drain_hurry(struct mmnf_ssd *ssd, int waiters)
{
	ssd->drain.nr_waiters += (u32)waiters;
	mmnf_ssd_drain_kick(ssd);
}

static bool is_hurried(const struct mmnf_ssd *ssd)
{
	return ssd->drain.nr_waiters || ssd->no_threads ||
	       ssd->log.bytes > ssd->log.bytes_max / 2;
}

static void failed(struct mmnf_ssd *ssd, const struct mmnf_ssd_io *io)
{
	struct ssd_drain *d = &ssd->drain;

	d->error = io->result;
	snprintf(d->text, sizeof(d->text), "%s",
		 io->text[0] ? io->text : strerror(-io->result));
	d->nr_errors++;
	d->flush[io->group].retry_ns = mmnf_ssd_now_ns() + RETRY_NS;
	d->flush[io->group].is_away = true;
	pthread_cond_broadcast(&d->done);
	pthread_cond_broadcast(&ssd->log.room);
}

/* ---- writes */

static bool is_under_way(const struct ssd_drain *d, u64 start, u64 end)
{
	u32 i;

	for (i = 0; i < SSD_OPS; i++)
		if (d->op[i].state != OP_FREE && d->op[i].start < end &&
		    d->op[i].end > start)
			return true;
	return false;
}

/* Up to which record may be sent. */
static u64 limit(const struct mmnf_ssd *ssd)
{
	return ssd->log.is_usable ? ssd->log.durable : ssd->log.seq;
}

static bool may_go(struct mmnf_ssd *ssd, const struct ssd_extent *e)
{
	const struct ssd_drain *d = &ssd->drain;

	if (e->state != EXTENT_DIRTY || e->seq > limit(ssd))
		return false;
	if ((e->held && mmnf_ssd_now_ns() < d->replay_ns) ||
	    mmnf_ssd_hold_blocks(ssd, e->start, e->end, e->seq)) {
		ssd->stats.held++;
		return false;
	}
	return !is_under_way(d, e->start, e->end);
}

static void op_done(struct mmnf_ssd_io *io)
{
	struct ssd_op *op = (struct ssd_op *)io;
	struct mmnf_ssd *ssd = op->ssd;

	pthread_mutex_lock(&ssd->lock);
	op->state = op->state == OP_READING ? OP_READ : OP_DONE;
	mmnf_ssd_drain_kick(ssd);
	pthread_mutex_unlock(&ssd->lock);
}

/* May one more write go to this group? */
static bool has_room(const struct mmnf_ssd *ssd, u32 group, s64 now)
{
	const struct ssd_flush *f = &ssd->drain.flush[group];

	return now >= f->retry_ns &&
	       f->nr_ops < max_u64(SSD_OPS / ssd->backing.nr_groups, 1);
}

static struct ssd_op *free_op(struct ssd_drain *d)
{
	u32 i;

	for (i = 0; i < SSD_OPS; i++)
		if (d->op[i].state == OP_FREE)
			return &d->op[i];
	return NULL;
}

/*
 * An op of extent i and those behind it that touch each other, in one unit; NULL:
 * not now.
 */
static struct ssd_op *gather(struct mmnf_ssd *ssd, u32 i)
{
	struct ssd_op *op = free_op(&ssd->drain);
	u64 align = ssd->backing.align, unit_end;
	struct ssd_dirty *d = &ssd->dirty;
	u32 group, k = i;
	u64 end;

	if (!op || !may_go(ssd, d->e[i]))
		return NULL;
	end = d->e[i]->start;
	unit_end = end + ssd->backing.unit(ssd->backing.arg, end, &group);
	memset(op, 0, sizeof(*op));
	op->start = end / align * align;
	op->number = UINT64_MAX;
	for (; k < d->nr && d->e[k]->start == end && end < unit_end &&
	       end - op->start < OP_BYTES_MAX && may_go(ssd, d->e[k]);
	     k++) {
		if (d->e[k]->end > unit_end &&
		    !mmnf_ssd_dirty_split(d, k, unit_end))
			break;
		end = d->e[k]->end;
		op->number = min_u64(op->number, d->e[k]->file->number);
	}
	op->end = min_u64(round_up_u64(end, align), ssd->backing.bytes);
	if (k == i || is_under_way(&ssd->drain, op->start, op->end))
		return NULL;
	op->io.data = malloc(op->end - op->start);
	if (!op->io.data)
		return NULL;
	op->io.offset = op->start;
	op->io.bytes = op->end - op->start;
	op->io.group = group;
	op->io.done = op_done;
	op->ssd = ssd;
	op->seq = limit(ssd);
	op->state = op->start != d->e[i]->start || op->end != end ? OP_READING :
								    OP_WRITING;
	while (k-- > i) {
		d->e[k]->state = EXTENT_SENT;
		d->e[k]->op = op;
	}
	ssd->drain.nr_busy++;
	ssd->drain.flush[group].nr_ops++;
	return op;
}

/* Its extents: acked, or to be sent again. */
static void end_op(struct mmnf_ssd *ssd, struct ssd_op *op)
{
	struct ssd_drain *d = &ssd->drain;
	struct ssd_dirty *dirty = &ssd->dirty;
	u32 i = mmnf_ssd_dirty_find(dirty, op->start);
	struct ssd_flush *f = &d->flush[op->io.group];

	d->nr_acks++;
	for (; i < dirty->nr && dirty->e[i]->start < op->end; i++) {
		struct ssd_extent *e = dirty->e[i];

		if (e->state != EXTENT_SENT || e->op != op)
			continue;
		e->state = op->io.result ? EXTENT_DIRTY : EXTENT_ACKED;
		e->epoch = op->io.epoch;
		e->group = op->io.group;
		e->acked = d->nr_acks;
		e->op = NULL;
		if (!op->io.result && !f->due_ns)
			f->due_ns = mmnf_ssd_now_ns();
	}
	if (op->io.is_late)
		mmnf_ssd_hold_add(ssd, op->start, op->end, op->seq, op->number,
				  op->io.late_ns);
	f->is_away = false;
	if (op->io.result)
		failed(ssd, &op->io);
	free(op->io.data);
	op->state = OP_FREE;
	d->nr_busy--;
	f->nr_ops--;
}

/* lock is held, and given up. */
static void submit(struct mmnf_ssd *ssd, struct mmnf_ssd_io *io)
{
	pthread_mutex_unlock(&ssd->lock);
	ssd->backing.submit(ssd->backing.arg, io);
	pthread_mutex_lock(&ssd->lock);
}

/* Its bytes from the log, over what was read around them; then off it goes. */
static void write_op(struct mmnf_ssd *ssd, struct ssd_op *op)
{
	struct iovec iov = { op->io.data, op->io.bytes };
	int err;

	op->state = OP_WRITING;
	op->io.op = MMNF_SSD_WRITE;
	err = mmnf_ssd_overlay(ssd, op->start, op->io.bytes, &iov, 1, op->seq);
	if (err) {
		op->io.result = err;
		snprintf(op->io.text, sizeof(op->io.text),
			 "reading the cache's log: %s", strerror(-err));
		end_op(ssd, op);
		return;
	}
	submit(ssd, &op->io);
}

static bool take_writes(struct mmnf_ssd *ssd)
{
	struct ssd_op *op = ssd->drain.op;
	bool any = false;

	for (; op < ssd->drain.op + SSD_OPS; op++) {
		if (op->state == OP_READ && !op->io.result)
			write_op(ssd, op);
		else if (op->state == OP_READ || op->state == OP_DONE)
			end_op(ssd, op);
		else
			continue;
		any = true;
	}
	return any;
}

static bool send_writes(struct mmnf_ssd *ssd)
{
	struct ssd_op *op;
	bool any = false;
	u64 at = 0, start, unit;
	s64 now = mmnf_ssd_now_ns();
	u32 i, group;

	if (ssd->drain.stop)
		return false;
	/* The array changes while an op is sent. */
	while (free_op(&ssd->drain)) {
		i = mmnf_ssd_dirty_find(&ssd->dirty, at);
		while (i < ssd->dirty.nr &&
		       ssd->dirty.e[i]->state != EXTENT_DIRTY)
			i++;
		if (i == ssd->dirty.nr)
			break;
		at = ssd->dirty.e[i]->end;
		start = ssd->dirty.e[i]->start;
		unit = ssd->backing.unit(ssd->backing.arg, start, &group);
		if (!has_room(ssd, group, now)) {
			at = max_u64(at, start + unit);
			continue;
		}
		op = gather(ssd, i);
		if (!op)
			continue;
		at = op->end;
		any = true;
		if (op->state == OP_READING) {
			op->io.op = MMNF_SSD_READ;
			submit(ssd, &op->io);
		} else {
			write_op(ssd, op);
		}
	}
	return any;
}

/* ---- flushes */

static void flush_done(struct mmnf_ssd_io *io)
{
	struct ssd_flush *f = (struct ssd_flush *)io;
	struct mmnf_ssd *ssd = f->ssd;

	pthread_mutex_lock(&ssd->lock);
	f->is_done = true;
	mmnf_ssd_drain_kick(ssd);
	pthread_mutex_unlock(&ssd->lock);
}

/* Is the extent safe on its servers, now that the flush is done? */
static bool is_clean(void *arg, struct ssd_extent *e)
{
	struct ssd_flush *f = arg;

	if (e->state != EXTENT_ACKED || e->group != f->io.group ||
	    e->acked > f->acked)
		return false;
	if (e->epoch != f->io.epoch) {
		e->state = EXTENT_DIRTY;
		f->ssd->stats.resent++;
		return false;
	}
	mmnf_ssd_forget_bytes(f->ssd, e->start, e->end - e->start, true);
	return true;
}

static bool take_flushes(struct mmnf_ssd *ssd)
{
	struct ssd_drain *d = &ssd->drain;
	bool any = false;
	u32 g;

	for (g = 0; g < ssd->backing.nr_groups; g++) {
		struct ssd_flush *f = &d->flush[g];

		if (!f->is_done)
			continue;
		f->is_done = f->is_busy = false;
		d->nr_busy--;
		any = true;
		if (f->io.result) {
			failed(ssd, &f->io);
			if (!f->due_ns)
				f->due_ns = mmnf_ssd_now_ns();
			continue;
		}
		f->is_away = false;
		mmnf_ssd_dirty_remove(&ssd->dirty, is_clean, f);
		d->trim_due = true;
		pthread_cond_broadcast(&d->done);
		pthread_cond_broadcast(&ssd->log.room);
	}
	return any;
}

static bool is_flush_due(const struct mmnf_ssd *ssd, const struct ssd_flush *f)
{
	s64 now = mmnf_ssd_now_ns();

	if (!f->due_ns || f->is_busy || now < f->retry_ns)
		return false;
	return (is_hurried(ssd) && !f->nr_ops) || now - f->due_ns >= FLUSH_NS;
}

static bool send_flushes(struct mmnf_ssd *ssd)
{
	struct ssd_drain *d = &ssd->drain;
	bool any = false;
	u32 g;

	for (g = 0; g < ssd->backing.nr_groups; g++) {
		struct ssd_flush *f = &d->flush[g];

		if (!is_flush_due(ssd, f))
			continue;
		memset(&f->io, 0, sizeof(f->io));
		f->io.op = MMNF_SSD_FLUSH;
		f->io.group = g;
		f->io.done = flush_done;
		f->ssd = ssd;
		f->is_busy = true;
		f->acked = d->nr_acks;
		f->due_ns = 0;
		d->nr_busy++;
		any = true;
		submit(ssd, &f->io);
	}
	return any;
}

/* ---- steps */

static bool sync_log(struct mmnf_ssd *ssd)
{
	struct ssd_drain *d = &ssd->drain;
	s64 now = mmnf_ssd_now_ns();

	if (!ssd->log.is_usable || ssd->log.durable == ssd->log.seq ||
	    (!is_hurried(ssd) && now - d->synced_ns < SYNC_NS))
		return false;
	d->synced_ns = now;
	pthread_mutex_unlock(&ssd->lock);
	mmnf_ssd_log_sync(ssd);
	pthread_mutex_lock(&ssd->lock);
	return true;
}

bool mmnf_ssd_drain_step(struct mmnf_ssd *ssd)
{
	struct ssd_drain *d = &ssd->drain;
	bool any, trim;

	pthread_mutex_lock(&ssd->lock);
	any = sync_log(ssd);
	any |= take_writes(ssd);
	any |= send_writes(ssd);
	any |= take_flushes(ssd);
	any |= send_flushes(ssd);
	pthread_mutex_unlock(&ssd->lock);
	any |= mmnf_ssd_compact(ssd);
	pthread_mutex_lock(&ssd->lock);
	trim = d->trim_due;
	d->trim_due = false;
	pthread_mutex_unlock(&ssd->lock);
	if (trim)
		mmnf_ssd_log_trim(ssd);
	return any;
}

static void wait_for(struct mmnf_ssd *ssd, pthread_cond_t *cond, s64 ns)
{
	s64 at = mmnf_ssd_now_ns() + ns;
	struct timespec until = { at / 1000000000, at % 1000000000 };

	pthread_cond_timedwait(cond, &ssd->lock, &until);
}

static void *run(void *arg)
{
	struct mmnf_ssd *ssd = arg;
	struct ssd_drain *d = &ssd->drain;
	u64 kicks;

	pthread_mutex_lock(&ssd->lock);
	while (!d->stop || d->nr_busy) {
		kicks = d->kicks;
		pthread_mutex_unlock(&ssd->lock);
		mmnf_ssd_drain_step(ssd);
		pthread_mutex_lock(&ssd->lock);
		if (kicks != d->kicks)
			continue;
		/* Files may be kept for a while only because of what is held. */
		d->trim_due = !ssd->dirty.nr && ssd->log.bytes;
		if (ssd->dirty.nr || d->nr_busy || d->trim_due)
			wait_for(ssd, &d->wake, TICK_NS);
		else if (!d->stop)
			pthread_cond_wait(&d->wake, &ssd->lock);
	}
	pthread_mutex_unlock(&ssd->lock);
	return NULL;
}

static bool is_pending(const struct mmnf_ssd *ssd, u64 seq)
{
	u32 i;

	for (i = 0; i < ssd->dirty.nr; i++)
		if (ssd->dirty.e[i]->written <= seq)
			return true;
	return false;
}

int mmnf_ssd_drain_wait(struct mmnf_ssd *ssd, u64 seq)
{
	struct ssd_drain *d = &ssd->drain;
	u64 nr_errors;
	int err = 0;
	u32 g;

	pthread_mutex_lock(&ssd->lock);
	nr_errors = d->nr_errors;
	for (g = 0; d->flush && g < ssd->backing.nr_groups; g++)
		d->flush[g].retry_ns = 0;
	mmnf_ssd_drain_hurry(ssd, 1);
	while (is_pending(ssd, seq)) {
		if (d->nr_errors != nr_errors) {
			err = mmnf_error(-d->error,
					 "not on the servers yet: %s", d->text);
			break;
		}
		if (d->end_ns && mmnf_ssd_now_ns() >= d->end_ns) {
			err = mmnf_error(ETIMEDOUT, "not on the servers yet");
			break;
		}
		if (!ssd->no_threads) {
			wait_for(ssd, &d->done, TICK_NS);
			continue;
		}
		pthread_mutex_unlock(&ssd->lock);
		if (!mmnf_ssd_drain_step(ssd))
			mmnf_ssd_nap(NAP_NS);
		pthread_mutex_lock(&ssd->lock);
	}
	mmnf_ssd_drain_hurry(ssd, -1);
	pthread_mutex_unlock(&ssd->lock);
	return err;
}

int mmnf_ssd_drain_sync(struct mmnf_ssd *ssd)
{
	struct ssd_drain *d = &ssd->drain;
	u64 seq;
	int err;

	/* append: no write is between its look at sync_seq and the end of the log. */
	pthread_mutex_lock(&ssd->log.append);
	pthread_mutex_lock(&ssd->lock);
	seq = ssd->log.seq;
	d->sync_seq = seq;
	d->nr_syncs++;
	pthread_mutex_unlock(&ssd->lock);
	pthread_mutex_unlock(&ssd->log.append);
	err = mmnf_ssd_drain_wait(ssd, seq);
	pthread_mutex_lock(&ssd->lock);
	if (!--d->nr_syncs)
		d->sync_seq = 0;
	pthread_cond_broadcast(&ssd->log.room);
	pthread_mutex_unlock(&ssd->lock);
	return err;
}

bool mmnf_ssd_drain_is_synced(const struct mmnf_ssd *ssd, u64 start, u64 end)
{
	const struct ssd_dirty *dirty = &ssd->dirty;
	u32 i = mmnf_ssd_dirty_find(dirty, start);

	for (; i < dirty->nr && dirty->e[i]->start < end; i++)
		if (dirty->e[i]->written <= ssd->drain.sync_seq)
			return true;
	return false;
}

int mmnf_ssd_drain_open(struct mmnf_ssd *ssd, bool threads)
{
	struct ssd_drain *d = &ssd->drain;
	sigset_t all, before;
	int err;

	d->flush = calloc(ssd->backing.nr_groups + 1, sizeof(*d->flush));
	if (!d->flush)
		return mmnf_error(ENOMEM, "no memory for the cache's log");
	if (mmnf_ssd_hold_replayed(ssd))
		return -ENOMEM;
	if (threads && ssd->backing.submit) {
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &before);
		err = pthread_create(&d->thread, NULL, run, ssd);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
		if (err)
			return mmnf_error(EAGAIN,
					  "no thread for the cache's log");
		d->has_thread = true;
	}
	return 0;
}

void mmnf_ssd_drain_close(struct mmnf_ssd *ssd)
{
	struct ssd_drain *d = &ssd->drain;

	pthread_mutex_lock(&ssd->lock);
	d->stop = true;
	mmnf_ssd_drain_kick(ssd);
	pthread_mutex_unlock(&ssd->lock);
	if (d->has_thread)
		pthread_join(d->thread, NULL);
	else
		while (d->nr_busy)
			if (!mmnf_ssd_drain_step(ssd))
				mmnf_ssd_nap(NAP_NS);
}
