// SPDX-License-Identifier: MIT
/*
 * Fetching: jobs are cut into runs, runs sorted and merged into operations,
 * operations read by the engine's queue, and what comes is spread over the
 * destination.
 *
 *	job -> up to ROUND_RUNS runs -> sort -> op, op, op -> reads -> queue
 *	                                         |
 *	page cache:	one read, into dst or the op's scratch
 *	L2:		its tiles:  hit | claimed, to be read | busy | no slot
 *			            pin | tile's memory       | wait | scratch
 *
 * Records that repeat or touch are in one op: read once.  A tile that another op of
 * the fetch is reading, for another job perhaps, is waited for and not read again.
 *
 * Nothing here can be stuck for want of memory: an op whose tiles get no slots
 * has scratch of its own.  Nor for others: a fetch that is `driven` waits for a
 * tile that another driven one is filling only when it has nothing under way
 * itself, so there is no circle; else it reads the tile again.
 *
 * A job that is stopped is done when no op of it writes to dst any more.  Ops
 * that read into tiles or scratch go on without it.
 *
 * No lock: one thread at a time.
 */

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fetch-internal.h"

s64 mmnf_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void stop(struct mmnf_fetch *f, struct mmnf_job *job, int err)
{
	u32 i;

	if (job->stop)
		return;
	job->stop = err;
	for (i = 0; i < f->depth; i++) {
		struct op *op = &f->ops[i];

		if (op->job != job || !(op->pending || op->twin) || op->to_dst)
			continue;
		op->job = NULL;
		job->nr_ops--;
	}
}

static void check_deadlines(struct mmnf_fetch *f)
{
	s64 now = f->nr_deadlines ? mmnf_now_ns() : 0;
	struct mmnf_job *job;

	for (job = f->jobs; now && job; job = job->next)
		if (job->deadline_ns && now >= job->deadline_ns)
			stop(f, job, -ETIMEDOUT);
}

/* Is there a run of it to start now? */
static bool has_run(struct mmnf_fetch *f, struct mmnf_job *job)
{
	if (job->stop || job->error)
		return false;
	if (job->next_run < job->nr_runs)
		return true;
	/* Ops under way look into the runs of this round. */
	return !job->nr_ops && mmnf_job_refill(f, job);
}

static void retire(struct mmnf_fetch *f, struct mmnf_job **at)
{
	struct mmnf_job *job = *at;

	*at = job->next;
	if (!*at)
		f->jobs_end = at;
	if (job->deadline_ns)
		f->nr_deadlines--;
	if (job->stop && !job->error)
		job->error = job->stop;
	job->done = true;
	job->next = NULL;
	*f->done_end = job;
	f->done_end = &job->next;
}

/* Starts ops as long as there is room; jobs in their order. */
static void start_ops(struct mmnf_fetch *f)
{
	struct mmnf_job **at = &f->jobs;

	while (*at) {
		struct mmnf_job *job = *at;

		while (f->nr_todo + f->queue->in_flight < f->depth && f->free &&
		       has_run(f, job))
			mmnf_op_start(f, job);
		if (!job->nr_ops && !has_run(f, job)) {
			retire(f, at);
			continue;
		}
		if (!f->free || f->nr_todo + f->queue->in_flight >= f->depth)
			return;
		at = &job->next;
	}
}

static void submit(struct mmnf_fetch *f)
{
	u32 n;

	if (!f->nr_todo)
		return;
	n = f->queue->ops->submit(f->queue, f->todo, f->nr_todo);
	f->nr_todo -= n;
	memmove(f->todo, f->todo + n, f->nr_todo * sizeof(*f->todo));
}

static void issue(struct mmnf_fetch *f)
{
	do {
		if (f->twins)
			mmnf_op_untwin(f);
		start_ops(f);
		submit(f);
		if (f->nr_todo || f->queue->in_flight || !f->parked)
			return;
		mmnf_op_unpark(f);
	} while (true);
}

void mmnf_fetch_add(struct mmnf_fetch *f, struct mmnf_job *job)
{
	job->next = NULL;
	job->done = false;
	job->once = (job->once || f->field->l2_once) && job->dst;
	*f->jobs_end = job;
	f->jobs_end = &job->next;
	if (job->deadline_ns)
		f->nr_deadlines++;
}

struct mmnf_job *mmnf_fetch_drive(struct mmnf_fetch *f, s64 timeout_ns)
{
	struct mmnf_read *came[64];
	struct mmnf_job *done;
	u32 n, i;

	check_deadlines(f);
	issue(f);
	do {
		n = f->queue->ops->reap(f->queue, came, 64,
					f->done ? 0 : timeout_ns);
		for (i = 0; i < n; i++)
			mmnf_op_read_done(f, came[i]);
		timeout_ns = 0;
	} while (n == 64);
	check_deadlines(f);
	issue(f);
	done = f->done;
	f->done = NULL;
	f->done_end = &f->done;
	return done;
}

u32 mmnf_fetch_cancel(struct mmnf_fetch *f, u64 user_data, bool all)
{
	struct mmnf_job *job;
	u32 n = 0;

	for (job = f->jobs; job; job = job->next) {
		if (job->stop || (!all && job->user_data != user_data))
			continue;
		stop(f, job, -ECANCELED);
		n++;
	}
	if (all && f->queue->ops->cancel)
		f->queue->ops->cancel(f->queue);
	return n;
}

s64 mmnf_fetch_deadline(const struct mmnf_fetch *f)
{
	const struct mmnf_job *job;
	s64 nearest = 0;

	for (job = f->jobs; f->nr_deadlines && job; job = job->next)
		if (job->deadline_ns && !job->stop &&
		    (!nearest || job->deadline_ns < nearest))
			nearest = job->deadline_ns;
	return nearest;
}

void mmnf_fetch_wait(struct mmnf_fetch *f, s64 timeout_ns)
{
	f->queue->ops->wait(f->queue, timeout_ns);
}

void mmnf_fetch_wake(struct mmnf_fetch *f)
{
	if (f->queue->ops->wake)
		f->queue->ops->wake(f->queue);
}

bool mmnf_fetch_has_jobs(const struct mmnf_fetch *f)
{
	return f->jobs;
}

bool mmnf_fetch_idle(const struct mmnf_fetch *f)
{
	return !f->jobs && !f->nr_todo && !f->queue->in_flight;
}

/* ---- fetches */

int mmnf_fetch_open(struct mmnf_fetch **out, struct mmnf_field *field,
		    u32 depth, int eventfd, bool driven)
{
	struct mmnf_fetch *f = calloc(1, sizeof(*f));
	int err = 0;
	u32 i;

	if (!f)
		return mmnf_error(ENOMEM, "no memory");
	f->field = f->mapped.field = field;
	f->pid = getpid();
	f->depth = depth;
	f->driven = driven;
	f->cached = field->ops->cached;
	f->jobs_end = &f->jobs;
	f->done_end = &f->done;
	f->scratch_bytes = depth * MMNF_READ_BYTES_MAX;
	f->scratch = mmap(NULL, f->scratch_bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (f->scratch == MAP_FAILED)
		f->scratch = NULL;
	f->ops = calloc(depth, sizeof(*f->ops));
	/* One op may be started when all but one place are taken. */
	f->todo = calloc(depth + MMNF_READ_TILES_MAX, sizeof(*f->todo));
	if (!f->scratch || !f->ops || !f->todo)
		err = mmnf_error(ENOMEM, "no memory for %u reads", depth);
	else
		err = field->ops->queue_open(field, depth, eventfd, &f->queue);
	if (err) {
		mmnf_fetch_close(f);
		return err;
	}
	for (i = depth; i-- > 0;) {
		f->ops[i].fetch = f;
		f->ops[i].scratch = f->scratch + i * MMNF_READ_BYTES_MAX;
		f->ops[i].next = f->free;
		f->free = &f->ops[i];
	}
	*out = f;
	return 0;
}

/* Jobs must be done; reads that nobody waits for are waited for. */
void mmnf_fetch_close(struct mmnf_fetch *f)
{
	if (!f)
		return;
	while (f->queue && !mmnf_fetch_idle(f)) {
		mmnf_fetch_cancel(f, 0, true);
		mmnf_fetch_drive(f, -1);
	}
	if (f->queue)
		f->queue->ops->queue_close(f->queue);
	if (f->scratch)
		munmap(f->scratch, f->scratch_bytes);
	free(f->spare);
	free(f->ops);
	free(f->todo);
	free(f);
}

static int pool_get(struct mmnf_field *field, struct mmnf_fetch **out)
{
	struct mmnf_pool *pool = &field->pool;
	struct mmnf_fetch *f = NULL;

	pthread_mutex_lock(&pool->lock);
	if (pool->nr)
		f = pool->idle[--pool->nr];
	pthread_mutex_unlock(&pool->lock);
	/* A parent's queue is its own: the child leaves it alone. */
	if (!f || f->pid != getpid())
		return mmnf_fetch_open(out, field, MMNF_QUEUE_DEPTH, -1, true);
	*out = f;
	return 0;
}

static void pool_put(struct mmnf_field *field, struct mmnf_fetch *f)
{
	struct mmnf_pool *pool = &field->pool;

	pthread_mutex_lock(&pool->lock);
	if (pool->nr < MMNF_POOL) {
		pool->idle[pool->nr++] = f;
		f = NULL;
	}
	pthread_mutex_unlock(&pool->lock);
	mmnf_fetch_close(f);
}

int mmnf_fetch_pool_fill(struct mmnf_field *field)
{
	struct mmnf_fetch *f;
	int err = pool_get(field, &f);

	if (!err)
		pool_put(field, f);
	return err;
}

void mmnf_fetch_pool_close(struct mmnf_field *field)
{
	while (field->pool.nr)
		mmnf_fetch_close(field->pool.idle[--field->pool.nr]);
	pthread_mutex_destroy(&field->pool.lock);
}

/* What is wanted now goes first, unless it was asked for before. */
static void read_ahead(struct mmnf_fetch *f, struct mmnf_job *job)
{
	struct mmnf_field *field = f->field;

	if (!job->ip || !field->walk ||
	    mmnf_boxes_ahead(field, &job->box, job->bytes, job->ip, false))
		return;
	mmnf_fetch_drive(f, 0);
	/* Also of a read that came before this thread ran again. */
	if (job->reads || !job->done)
		mmnf_boxes_ahead(field, &job->box, job->bytes, job->ip, true);
}

int mmnf_fetch_run(struct mmnf_field *field, struct mmnf_job *job)
{
	u64 began_ns = mmnf_publish_now();
	struct mmnf_fetch *f;
	int err;

	err = pool_get(field, &f);
	if (!err) {
		mmnf_fetch_add(f, job);
		read_ahead(f, job);
		while (!job->done)
			mmnf_fetch_drive(f, -1);
		err = mmnf_mapped_end(&f->mapped);
		/* Large enough that the next job should not allocate it. */
		if (!f->spare && job->room == MMNF_ROUND_RUNS) {
			f->spare = job->runs;
			job->runs = NULL;
		}
		pool_put(field, f);
		if (job->error)
			err = job->error;
		mmnf_publish_wait(field, mmnf_publish_now() - began_ns);
	}
	mmnf_job_free(job);
	return err;
}

bool mmnf_fetch_take(struct mmnf_field *field, const struct mmnf_run *run,
		     char *dst)
{
	struct mmnf_cache *cache = field->cache;
	u64 at = run->offset, end = run->offset + run->bytes, n;
	char *to = dst + run->dst;
	struct mmnf_pin pin;

	if (run->unit || (field->l2_once && !mmnf_cache_used(cache)))
		return false;
	for (; at < end; at += n, to += n) {
		mmnf_tile tile = mmnf_cache_tile(cache, run->segment, at);

		n = min_u64(end - at, MMNF_TILE_BYTES - at % MMNF_TILE_BYTES);
		if (mmnf_cache_get(cache, tile, false, false, &pin) !=
		    MMNF_CACHE_HIT)
			return false;
		memcpy(to, mmnf_cache_data(cache, pin) + at % MMNF_TILE_BYTES,
		       n);
		mmnf_cache_put(cache, pin);
	}
	return true;
}
