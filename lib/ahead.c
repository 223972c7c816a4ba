// SPDX-License-Identifier: MIT
/*
 * Reading ahead into L2: a thread of the field takes ranges from a bounded list
 * and fetches them without a destination.
 *
 * Whoever asks never waits: a full list drops what is asked for.  Errors are
 * dropped, too: who needs the data will meet them.  The thread starts at the
 * first range and ends with the field.
 *
 * ahead.lock guards the list; nothing is read under it.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "fetch.h"

#define SPANS 1024

struct mmnf_ahead {
	pthread_mutex_t lock;
	pthread_cond_t more;
	pthread_t thread;
	bool stop;
	u32 first, nr;
	struct mmnf_field *field;
	struct mmnf_run run[SPANS];
};

static struct mmnf_run *take(struct mmnf_ahead *a, u32 *nr)
{
	struct mmnf_run *given;
	u32 i;

	pthread_mutex_lock(&a->lock);
	while (!a->nr && !a->stop)
		pthread_cond_wait(&a->more, &a->lock);
	given = a->stop ? NULL : calloc(a->nr, sizeof(*given));
	*nr = a->nr;
	for (i = 0; given && i < a->nr; i++)
		given[i] = a->run[(a->first + i) % SPANS];
	a->first = a->nr = 0;
	pthread_mutex_unlock(&a->lock);
	return given;
}

static bool stopped(struct mmnf_ahead *a)
{
	return __atomic_load_n(&a->stop, __ATOMIC_RELAXED);
}

static void *work(void *arg)
{
	struct mmnf_ahead *a = arg;
	struct mmnf_fetch *f;
	struct mmnf_job job;
	u32 nr;

	mmnf_error_enter("mmnf_prefetch");
	if (mmnf_fetch_open(&f, a->field, MMNF_QUEUE_DEPTH, -1, true))
		return NULL; /* the list fills up, and then all is dropped */
	while (!stopped(a)) {
		memset(&job, 0, sizeof(job));
		job.given = take(a, &nr);
		job.nr_given = nr;
		if (!job.given)
			continue;
		mmnf_fetch_add(f, &job);
		while (!job.done) {
			mmnf_fetch_drive(f, -1);
			if (stopped(a))
				mmnf_fetch_cancel(f, 0, true);
		}
		mmnf_job_free(&job);
	}
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
		field->ahead = a;
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
	if (taken)
		a->run[(a->first + a->nr++) % SPANS] = (struct mmnf_run) {
			.segment = segment, .offset = offset, .bytes = bytes
		};
	pthread_cond_signal(&a->more);
	pthread_mutex_unlock(&a->lock);
	return taken;
}

void mmnf_ahead_close(struct mmnf_field *field)
{
	struct mmnf_ahead *a = field->ahead;

	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	__atomic_store_n(&a->stop, true, __ATOMIC_RELAXED);
	pthread_cond_signal(&a->more);
	pthread_mutex_unlock(&a->lock);
	pthread_join(a->thread, NULL);
	pthread_mutex_destroy(&a->lock);
	pthread_cond_destroy(&a->more);
	free(a);
}
