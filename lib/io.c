// SPDX-License-Identifier: MIT
/*
 * Copying out and waiting for it.  What is in memory is taken at once; one piece that
 * is not, and all there is, may be read by the calling thread without a queue.  The rest
 * is a job of fetch.c, driven by that thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "fetch.h"

/* True if the run is in memory: then it is copied. */
static bool take(struct mmnf_field *field, const struct mmnf_segment *s,
		 const struct mmnf_run *run, char *dst)
{
	if (field->cache)
		return mmnf_fetch_take(field, run, dst);
	return !run->unit && mmnf_segment_resident(s, dst + run->dst,
						   run->bytes, run->offset);
}

/*
 * One piece from the page cache needs no queue.  Of what goes wrong the fetch
 * that follows says why.
 */
static bool wait_for(const struct mmnf_field *field,
		     const struct mmnf_segment *s, const struct mmnf_run *run,
		     char *dst)
{
	return !field->cache && !run->unit &&
	       pread(s->fd, dst + run->dst, run->bytes, (off_t)run->offset) ==
		       (ssize_t)run->bytes;
}

/* One piece from elsewhere may need none, either. */
static bool begin(struct mmnf_field *field, const struct mmnf_run *run,
		  struct mmnf_alone *read)
{
	return field->ops->begin && !run->unit &&
	       field->ops->begin(field, run, read);
}

/*
 * The first run of a box: most boxes have no other, and it is @alone.  Here the
 * predictor learns of the access, before anybody waits, but not before the read
 * is on its way.  1: done with; 0: it has to be fetched, and is placed; or -errno.
 */
static int take_first(struct mmnf_field *field, struct mmnf_run *run,
		      bool alone, char *dst, const void *ip)
{
	struct mmnf_segment *s;
	u64 nominal = run->offset;
	struct mmnf_alone read;
	bool begun = false;
	int taken, err;

	err = mmnf_segment_get(field, run->segment, false, &s);
	if (err && err != -ENOENT)
		return err;
	taken = err ? 1 : mmnf_segment_place(field, s, run);
	if (taken > 0)
		mmnf_run_fill(mmnf_field_geometry(field), run, dst);
	if (!taken) {
		taken = take(field, s, run, dst);
		if (!taken && alone)
			begun = begin(field, run, &read);
		if (field->walk &&
		    !mmnf_walk_again(field, run->segment, nominal, ip))
			mmnf_walk_touch(field, run->segment, nominal,
					run->offset, ip,
					taken ? MMNF_HERE : MMNF_ABSENT, false);
		if (begun)
			taken = field->ops->end(field, run, &read, dst);
		else if (!taken && alone)
			taken = wait_for(field, s, run, dst);
	}
	if (!err)
		mmnf_segment_put(field, s);
	return taken;
}

static int fetch_run(struct mmnf_field *field, const struct mmnf_run *run,
		     char *dst)
{
	struct mmnf_job job = { .dst = dst, .nr_given = 1 };

	job.given = malloc(sizeof(*run));
	if (!job.given)
		return mmnf_error(ENOMEM, "no memory");
	*job.given = *run;
	return mmnf_fetch_run(field, &job);
}

static ssize_t get(struct mmnf_field *field, const struct mmnf_box *box,
		   void *dst, size_t dst_bytes, const void *ip)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_job job = { .dst = dst };
	struct mmnf_run run;
	int taken, err = 0;
	u64 bytes;

	err = mmnf_geometry_box(g, box, &job.box, &bytes);
	if (err)
		return err;
	if (bytes > dst_bytes)
		return mmnf_error(ENOSPC,
				  "dst has %zu bytes: expected %" PRIu64,
				  dst_bytes, bytes);
	mmnf_runs_init(&job.it, g, &job.box, MMNF_FETCH_RUN_BYTES);
	if (!mmnf_runs_next(&job.it, &run))
		return 0;
	job.bytes = bytes;
	taken = take_first(field, &run, job.it.end, dst, ip);
	if (taken < 0)
		return taken;
	if (!job.it.end) {
		job.it_valid = taken;
		job.next_wanted = taken;
		job.ip = ip;
		err = mmnf_fetch_run(field, &job);
	} else if (!taken) {
		err = fetch_run(field, &run, dst);
	}
	if (err)
		return err;
	mmnf_count(&field->stats->gets, 1);
	mmnf_count(&field->stats->get_bytes, bytes);
	return (ssize_t)bytes;
}

ssize_t mmnf_get_box(struct mmnf_field *field, const struct mmnf_box *box,
		     void *dst, size_t dst_bytes)
{
	return get(field, box, dst, dst_bytes, __builtin_return_address(0));
}

MMNF_EXPORT ssize_t mmnf_get(struct mmnf_field *field,
			     const struct mmnf_box *box, void *dst,
			     size_t dst_bytes)
{
	mmnf_error_enter("mmnf_get");
	return get(field, box, dst, dst_bytes, __builtin_return_address(0));
}
