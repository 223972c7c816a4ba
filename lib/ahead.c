// SPDX-License-Identifier: MIT
/*
 * Reading ahead into L2: a thread of the field takes ranges from a bounded list
 * and fetches them without a destination.
 *
 * Whoever asks never waits: a full list drops what is asked for.  Errors are
 * dropped, too: who needs the data will meet them.  The thread starts at the
 * first range and ends with the field.
 *
 * What was asked for is known by its ranges until all of its job has come, so that a
 * walk whose data is late does not ask for it again: without a processor the thread
 * may be a whole walk behind.  What came and left L2 again in that time is taken for
 * coming, and missed.
 *
 * ahead.lock guards the list and the ranges; nothing is read under it.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "fetch.h"

#define SPANS 1024
#define WAKE_BELOW 32
#define NET_DEPTH \
	(2 * MMNF_QUEUE_DEPTH) /* a round trip is longer than a disk's */

/* @job: NULL: in the list */
struct range {
	u64 segment, start, end;
	const struct mmnf_job *job;
};

/*
 * @range: what is on its way: what was taken before there were SPANS, the last of it
 *	all of a list, and the list
 */
struct mmnf_ahead {
	pthread_mutex_t lock;
	pthread_cond_t more;
	pthread_t thread;
	pid_t pid; /* of the process that has the thread */
	bool stop;
	u32 first, nr;
	u64 nr_under_way; /* of those that were taken; the thread's to change */
	struct mmnf_field *field;
	struct mmnf_fetch *fetch; /* while it may be woken */
	struct mmnf_run run[SPANS];
	u32 nr_ranges;
	struct range range[3 * SPANS];
};

/* Under the lock: what the list held belongs to a job. */
static void give_ranges(struct mmnf_ahead *a, const struct mmnf_job *job)
{
	u32 i;

	for (i = a->nr_ranges; i && !a->range[i - 1].job; i--)
		a->range[i - 1].job = job;
}

/* Under the lock: it is done with; NULL: with the list. */
static void drop_ranges(struct mmnf_ahead *a, const struct mmnf_job *job)
{
	u32 i, kept = 0;

	for (i = 0; i < a->nr_ranges; i++)
		if (a->range[i].job != job)
			a->range[kept++] = a->range[i];
	a->nr_ranges = kept;
}

/* Under the lock, of what is in the list. */
static void add_range(struct mmnf_ahead *a, u64 segment, u64 start, u64 end)
{
	struct range *last = a->nr_ranges ? &a->range[a->nr_ranges - 1] : NULL;

	if (last && !last->job && last->segment == segment &&
	    last->end == start)
		last->end = end;
	else
		a->range[a->nr_ranges++] =
			(struct range) { segment, start, end, NULL };
}

/* What was asked for since; waits for it if there is nothing else to do. */
static struct mmnf_job *take(struct mmnf_ahead *a, bool wait)
{
	struct mmnf_job *job = NULL;
	u32 i;

	pthread_mutex_lock(&a->lock);
	while (wait && !a->nr && !a->stop)
		pthread_cond_wait(&a->more, &a->lock);
	if (a->nr && !a->stop)
		job = calloc(1, sizeof(*job));
	if (job)
		job->given = calloc(a->nr, sizeof(*job->given));
	if (job && job->given) {
		job->nr_given = a->nr;
		for (i = 0; i < a->nr; i++)
			job->given[i] = a->run[(a->first + i) % SPANS];
		a->nr_under_way += a->nr;
		give_ranges(a, job);
	} else if (a->nr) {
		free(job);
		job = NULL;
		drop_ranges(a, NULL);
	}
	a->first = a->nr = 0;
	pthread_mutex_unlock(&a->lock);
	return job;
}

/* Frees jobs that are done. */
static void put(struct mmnf_ahead *a, struct mmnf_job *done)
{
	struct mmnf_job *next;

	for (; done; done = next) {
		next = done->next;
		pthread_mutex_lock(&a->lock);
		a->nr_under_way -= done->nr_given;
		drop_ranges(a, done);
		pthread_mutex_unlock(&a->lock);
		mmnf_job_free(done);
		free(done);
	}
}

static bool stopped(struct mmnf_ahead *a)
{
	return __atomic_load_n(&a->stop, __ATOMIC_RELAXED);
}

/*
 * What is asked for while reads are under way joins them: a walk's plans come one
 * after the other, and none is to wait for the last read of the one before.
 */
static void *work(void *arg)
{
	struct mmnf_ahead *a = arg;
	struct mmnf_fetch *f;
	struct mmnf_job *job;

	mmnf_error_enter("mmnf_prefetch");
	if (mmnf_fetch_open(&f, a->field,
			    a->field->remote ? NET_DEPTH : MMNF_QUEUE_DEPTH, -1,
			    true))
		return NULL; /* the list fills up, and then all is dropped */
	pthread_mutex_lock(&a->lock);
	a->fetch = f;
	pthread_mutex_unlock(&a->lock);
	while (!stopped(a)) {
		job = a->nr_under_way < SPANS ?
			      take(a, !mmnf_fetch_has_jobs(f)) :
			      NULL;
		if (job)
			mmnf_fetch_add(f, job);
		if (mmnf_fetch_has_jobs(f))
			put(a, mmnf_fetch_drive(f, -1));
	}
	pthread_mutex_lock(&a->lock);
	a->fetch = NULL;
	pthread_mutex_unlock(&a->lock);
	mmnf_fetch_cancel(f, 0, true);
	while (mmnf_fetch_has_jobs(f))
		put(a, mmnf_fetch_drive(f, -1));
	mmnf_fetch_close(f);
	return NULL;
}

/* A thread that takes none of the program's signals. */
static int start(struct mmnf_ahead *a)
{
	sigset_t all, before;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	a->pid = getpid();
	err = pthread_create(&a->thread, NULL, work, a);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -err;
}

static struct mmnf_ahead *get(struct mmnf_field *field)
{
	struct mmnf_ahead *a;

	pthread_mutex_lock(&field->pool.lock);
	a = field->ahead;
	if (!a) {
		a = calloc(1, sizeof(*a));
		if (a) {
			a->field = field;
			pthread_mutex_init(&a->lock, NULL);
			pthread_cond_init(&a->more, NULL);
			if (start(a)) {
				free(a);
				a = NULL;
			}
		}
		__atomic_store_n(&field->ahead, a, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&field->pool.lock);
	return a;
}

bool mmnf_ahead_add(struct mmnf_field *field, u64 segment, u64 offset,
		    u64 bytes)
{
	struct mmnf_ahead *a = get(field);
	bool taken;

	if (!a || !bytes)
		return false;
	pthread_mutex_lock(&a->lock);
	taken = a->nr < SPANS;
	if (taken) {
		add_range(a, segment, offset, offset + bytes);
		a->run[(a->first + a->nr++) % SPANS] = (struct mmnf_run) {
			.segment = segment, .offset = offset, .bytes = bytes
		};
	}
	pthread_cond_signal(&a->more);
	/* With less under way there is not always one that ends soon. */
	if (a->fetch && a->nr_under_way && a->nr_under_way < WAKE_BELOW)
		mmnf_fetch_wake(a->fetch);
	pthread_mutex_unlock(&a->lock);
	return taken;
}

static struct mmnf_ahead *if_any(struct mmnf_field *field)
{
	return __atomic_load_n(&field->ahead, __ATOMIC_ACQUIRE);
}

u64 mmnf_ahead_tiles(struct mmnf_field *field, u64 segment, u64 start,
		     u64 bytes)
{
	struct mmnf_ahead *a = if_any(field);
	u64 end = start + bytes, tiles = 0, first, last;
	u32 i;

	if (!a)
		return 0;
	pthread_mutex_lock(&a->lock);
	for (i = 0; i < a->nr_ranges; i++) {
		const struct range *r = &a->range[i];

		if (r->segment != segment || r->start >= end || r->end <= start)
			continue;
		first = (max_u64(r->start, start) - start) / MMNF_TILE_BYTES;
		last = (min_u64(r->end, end) - 1 - start) / MMNF_TILE_BYTES;
		tiles |= (~0ULL >> (63 - (last - first))) << first;
	}
	pthread_mutex_unlock(&a->lock);
	return tiles;
}

void mmnf_ahead_look(struct mmnf_field *field, u64 segment, u64 start,
		     u64 bytes, unsigned char *coming)
{
	u64 page = mmnf_page_bytes(), end = start + bytes, at;
	struct mmnf_ahead *a = if_any(field);
	u32 i;

	memset(coming, 0, (bytes + page - 1) / page);
	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	for (i = 0; i < a->nr_ranges; i++) {
		const struct range *r = &a->range[i];

		if (r->segment != segment || r->start >= end || r->end <= start)
			continue;
		at = r->start > start ? round_up_u64(r->start - start, page) :
					0;
		for (; at < bytes && start + at < r->end; at += page)
			coming[at / page] = 1;
	}
	pthread_mutex_unlock(&a->lock);
}

void mmnf_ahead_close(struct mmnf_field *field)
{
	struct mmnf_ahead *a = field->ahead;

	/* In a child it is not there, and may have left the lock locked. */
	if (!a || a->pid != getpid())
		return;
	pthread_mutex_lock(&a->lock);
	__atomic_store_n(&a->stop, true, __ATOMIC_RELAXED);
	pthread_cond_signal(&a->more);
	if (a->fetch)
		mmnf_fetch_wake(a->fetch);
	pthread_mutex_unlock(&a->lock);
	pthread_join(a->thread, NULL);
	pthread_mutex_destroy(&a->lock);
	pthread_cond_destroy(&a->more);
	free(a);
}
