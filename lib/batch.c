// SPDX-License-Identifier: MIT
/*
 * Batches: requests that are submitted now and reaped later.
 *
 * A batch is a fetch (fetch.c) with a lock and an eventfd.  Nothing runs in the
 * background but the kernel: what follows from a read that came is done by
 * whoever submits, cancels or reaps next.  The eventfd is readable when there
 * may be something to reap.
 *
 * batch.lock guards all of it and is never held while anybody waits.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fetch.h"

/*
 * An eventfd may be read by its owner behind our back, and another thread may take
 * what this one was told of: look again by then.
 */
#define SLICE_NS (50 * 1000000LL)

struct mmnf_batch {
	pthread_mutex_t lock;
	struct mmnf_field *field;
	struct mmnf_fetch *fetch;
	int eventfd;
	bool own_eventfd;
	bool waits; /* by the engine, not by an eventfd */
	struct mmnf_job *done, **done_end;
};

static int check_opts(const struct mmnf_batch_opts *opts,
		      struct mmnf_batch_opts *o)
{
	int err;

	*o = (struct mmnf_batch_opts) { .size = sizeof(*o) };
	if (opts) {
		err = mmnf_error_opts(opts, opts->size, sizeof(*o),
				      "mmnf_batch_opts");
		if (err)
			return err;
		memcpy(o, opts, min_u64(opts->size, sizeof(*o)));
	}
	if (!o->depth)
		o->depth = MMNF_QUEUE_DEPTH;
	if (o->depth > MMNF_QUEUE_DEPTH_MAX)
		return mmnf_error(EINVAL,
				  "mmnf_batch_opts.depth is %u: expected 1..%d",
				  o->depth, MMNF_QUEUE_DEPTH_MAX);
	return 0;
}

MMNF_EXPORT int mmnf_batch_open(struct mmnf_batch **out,
				struct mmnf_field *field,
				const struct mmnf_batch_opts *opts)
{
	struct mmnf_batch_opts o;
	struct mmnf_batch *b;
	int err;

	mmnf_error_enter("mmnf_batch_open");
	if (!out || !field)
		return mmnf_error(EINVAL, "out and field: expected not NULL");
	*out = NULL;
	err = check_opts(opts, &o);
	if (err)
		return err;
	b = calloc(1, sizeof(*b));
	if (!b)
		return mmnf_error(ENOMEM, "no memory");
	pthread_mutex_init(&b->lock, NULL);
	b->field = field;
	b->done_end = &b->done;
	b->own_eventfd = o.eventfd <= 0;
	b->waits = b->own_eventfd && field->ops->wait;
	b->eventfd = b->waits	    ? -1 :
		     b->own_eventfd ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) :
				      o.eventfd;
	err = b->eventfd < 0 && !b->waits ?
		      mmnf_error_system(errno, "eventfd") :
		      mmnf_fetch_open(&b->fetch, field, o.depth, b->eventfd,
				      false);
	if (err) {
		mmnf_batch_close(b);
		return err;
	}
	*out = b;
	return 0;
}

static void tell(const struct mmnf_batch *b)
{
	u64 one = 1;

	if (b->waits)
		mmnf_fetch_wake(b->fetch);
	else if (write(b->eventfd, &one, sizeof(one)) < 0)
		return; /* full: readable as it is */
}

/* Under the lock.  Does what can be done without waiting. */
static void drive(struct mmnf_batch *b)
{
	struct mmnf_job *job = mmnf_fetch_drive(b->fetch, 0);

	*b->done_end = job;
	while (*b->done_end)
		b->done_end = &(*b->done_end)->next;
	/* An engine's waiting forgets what it was told when it is driven. */
	if (job || (b->waits && b->done))
		tell(b);
}

static int add_boxes(struct mmnf_field *field, struct mmnf_job *job,
		     const struct mmnf_request *r)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 i, bytes;
	int err;

	job->boxes = calloc(r->nr, sizeof(*job->boxes));
	if (!job->boxes)
		return mmnf_error(ENOMEM, "no memory for %zu boxes", r->nr);
	for (i = 0; i < r->nr; i++) {
		job->boxes[i].dst = job->bytes;
		err = mmnf_geometry_box(g, &r->box[i], &job->boxes[i].box,
					&bytes);
		if (err)
			return err;
		if (__builtin_add_overflow(job->bytes, bytes, &job->bytes) ||
		    job->bytes > r->dst_bytes)
			return mmnf_error(ENOSPC,
					  "dst has %zu bytes: box %" PRIu64
					  " does not fit",
					  r->dst_bytes, i);
	}
	job->nr_boxes = r->nr;
	return 0;
}

static int make_job(struct mmnf_batch *b, const struct mmnf_request *r,
		    struct mmnf_job **out)
{
	struct mmnf_job *job;
	int err;

	if (!r->box == !r->index || r->once > 1 || r->reserved || r->reserved2)
		return mmnf_error(
			EINVAL,
			"request: expected either box or index, once 0 or 1, and reserved 0");
	if (!r->dst || !r->nr)
		return mmnf_error(EINVAL, "request: expected dst and nr not 0");
	job = calloc(1, sizeof(*job));
	if (!job)
		return mmnf_error(ENOMEM, "no memory");
	job->dst = r->dst;
	job->user_data = r->user_data;
	job->deadline_ns = r->deadline_ns;
	job->once = r->once;
	err = r->box ? add_boxes(b->field, job, r) :
		       mmnf_io_list(b->field, job, r->index, r->nr,
				    r->dst_bytes);
	if (err) {
		mmnf_job_free(job);
		free(job);
		return err;
	}
	*out = job;
	return 0;
}

MMNF_EXPORT int mmnf_batch_submit(struct mmnf_batch *b,
				  const struct mmnf_request *requests,
				  unsigned int nr)
{
	struct mmnf_job *job = NULL;
	unsigned int i;
	int err = 0;

	mmnf_error_enter("mmnf_batch_submit");
	for (i = 0; i < nr && i < INT32_MAX; i++) {
		err = make_job(b, &requests[i], &job);
		if (err)
			break;
		pthread_mutex_lock(&b->lock);
		mmnf_fetch_add(b->fetch, job);
		pthread_mutex_unlock(&b->lock);
	}
	if (!i)
		return err;
	pthread_mutex_lock(&b->lock);
	drive(b);
	pthread_mutex_unlock(&b->lock);
	return (int)i;
}

static void complete(struct mmnf_batch *b, struct mmnf_job *job,
		     struct mmnf_completion *out)
{
	out->user_data = job->user_data;
	out->result = job->error ? job->error : (int64_t)job->bytes;
	if (job->text)
		mmnf_error_again(job->text);
	else if (job->error)
		mmnf_error_system(-job->error, "request %" PRIu64,
				  job->user_data);
	if (!job->error)
		mmnf_stats_get(b->field, job->bytes);
	mmnf_job_free(job);
	free(job);
}

/* Under the lock.  The eventfd is reset, and set again for what is left. */
static unsigned int collect(struct mmnf_batch *b, struct mmnf_completion *out,
			    unsigned int max)
{
	unsigned int n = 0;
	u64 count;

	if (!b->waits && read(b->eventfd, &count, sizeof(count)) < 0)
		count = 0; /* nothing was there */
	drive(b);
	for (; n < max && b->done; n++) {
		struct mmnf_job *job = b->done;

		b->done = job->next;
		if (!b->done)
			b->done_end = &b->done;
		complete(b, job, &out[n]);
	}
	if (b->done)
		tell(b);
	return n;
}

/* How long to wait before looking again, until end (-1: none); 0: not at all. */
static s64 wait_ns(struct mmnf_batch *b, s64 end)
{
	s64 deadline = mmnf_fetch_deadline(b->fetch);
	s64 now, ns = SLICE_NS;

	if (!deadline && end < 0)
		return ns;
	now = mmnf_now_ns();
	if (deadline && deadline - now < ns)
		ns = deadline > now ? deadline - now : 1;
	if (end >= 0 && end - now < ns)
		ns = end > now ? end - now : 0;
	return ns;
}

MMNF_EXPORT int mmnf_batch_reap(struct mmnf_batch *b,
				struct mmnf_completion *out, unsigned int max,
				unsigned int min, int64_t timeout_ns)
{
	s64 end = timeout_ns < 0 ? -1 : 0, ns;
	unsigned int n = 0;
	bool waiting;

	mmnf_error_enter("mmnf_batch_reap");
	if (timeout_ns > 0 &&
	    __builtin_add_overflow(mmnf_now_ns(), timeout_ns, &end))
		end = -1;
	if (min > max)
		min = max;
	for (;;) {
		struct pollfd pfd = { b->eventfd, POLLIN, 0 };
		struct timespec ts;

		pthread_mutex_lock(&b->lock);
		n += collect(b, out + n, max - n);
		waiting = n < min && mmnf_fetch_has_jobs(b->fetch);
		ns = waiting ? wait_ns(b, end) : 0;
		pthread_mutex_unlock(&b->lock);
		if (!ns)
			return (int)n;
		if (b->waits) {
			mmnf_fetch_wait(b->fetch, ns);
			continue;
		}
		ts.tv_sec = 0;
		ts.tv_nsec = ns;
		ppoll(&pfd, 1, &ts, NULL);
	}
}

MMNF_EXPORT int mmnf_batch_cancel(struct mmnf_batch *b, uint64_t user_data)
{
	u32 n;

	mmnf_error_enter("mmnf_batch_cancel");
	pthread_mutex_lock(&b->lock);
	n = mmnf_fetch_cancel(b->fetch, user_data, false);
	drive(b);
	pthread_mutex_unlock(&b->lock);
	return (int)n;
}

MMNF_EXPORT void mmnf_batch_close(struct mmnf_batch *b)
{
	struct mmnf_job *job;

	if (!b)
		return;
	if (b->fetch) {
		while (!mmnf_fetch_idle(b->fetch)) {
			mmnf_fetch_cancel(b->fetch, 0, true);
			*b->done_end = mmnf_fetch_drive(b->fetch, -1);
			while (*b->done_end)
				b->done_end = &(*b->done_end)->next;
		}
		mmnf_fetch_close(b->fetch);
	}
	while ((job = b->done)) {
		b->done = job->next;
		mmnf_job_free(job);
		free(job);
	}
	if (b->own_eventfd && b->eventfd >= 0)
		close(b->eventfd);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

MMNF_EXPORT ssize_t mmnf_batch_get_boxes(struct mmnf_field *field,
					 const struct mmnf_box *box, size_t nr,
					 void *dst, size_t dst_bytes)
{
	struct mmnf_request r = { .box = box,
				  .nr = nr,
				  .dst_bytes = dst_bytes };
	struct mmnf_job job = { .dst = dst };
	u64 bytes;
	int err;

	mmnf_error_enter("mmnf_batch_get_boxes");
	if (!nr)
		return 0;
	err = add_boxes(field, &job, &r);
	bytes = job.bytes;
	if (err)
		mmnf_job_free(&job);
	else
		err = mmnf_fetch_run(field, &job);
	if (err)
		return err;
	mmnf_stats_get(field, bytes);
	return (ssize_t)bytes;
}
