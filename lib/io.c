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

/*
 * The first run of a box: most boxes have no other, and it is @alone.  Here the
 * predictor learns of the access, before anybody waits, but not before the read
 * is on its way.  1: done with; 0: it has to be fetched, and is placed; or -errno.
 * @read: for one that needs no queue; NULL: none is
 */
static int take_first(struct mmnf_field *field, struct mmnf_run *run,
		      bool alone, char *dst, const void *ip,
		      struct mmnf_alone *read)
{
	struct mmnf_segment_pin pin = { 0 };
	u64 nominal = run->offset;
	bool begun = false;
	int taken, err = 0;

	/* On the network none is absent, or has an index. */
	if (!field->remote)
		err = mmnf_segment_pin(field, run->segment, &pin);
	if (err && err != -ENOENT)
		return err;
	taken = err ? 1 : pin.s ? mmnf_segment_place(field, pin.s, run) : 0;
	if (taken > 0)
		mmnf_run_fill(mmnf_field_geometry(field), run, dst);
	if (!taken) {
		taken = take(field, pin.s, run, dst);
		if (!taken && read && !run->unit)
			begun = field->ops->begin(field, run, read);
		if (field->walk &&
		    !mmnf_walk_again(field, run->segment, nominal, ip))
			mmnf_walk_touch(field, run->segment, nominal,
					run->offset, ip,
					taken ? MMNF_HERE : MMNF_ABSENT, false);
		if (begun)
			taken = field->ops->end(field, run, read, dst);
		else if (!taken && alone)
			taken = wait_for(field, pin.s, run, dst);
	}
	if (pin.s)
		mmnf_segment_unpin(field, &pin);
	return taken;
}

/* The read has room for a tile: on no stack that does not need it. */
static __attribute__((noinline)) int take_or_read(struct mmnf_field *field,
						  struct mmnf_run *run,
						  char *dst, const void *ip)
{
	struct mmnf_alone read;

	return take_first(field, run, true, dst, ip, &read);
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

static int get_run(struct mmnf_field *field, struct mmnf_run *run, char *dst,
		   const void *ip)
{
	int taken = field->ops->begin ?
			    take_or_read(field, run, dst, ip) :
			    take_first(field, run, true, dst, ip, NULL);

	if (taken < 0)
		return taken;
	return taken ? 0 : fetch_run(field, run, dst);
}

static int get_runs(struct mmnf_field *field, const struct mmnf_box *normal,
		    u64 bytes, char *dst, const void *ip)
{
	struct mmnf_job job = { .dst = dst, .box = *normal, .bytes = bytes };
	struct mmnf_run run;
	int taken;

	mmnf_runs_init(&job.it, mmnf_field_geometry(field), normal,
		       MMNF_FETCH_RUN_BYTES);
	mmnf_runs_next(&job.it, &run);
	if (job.it.end)
		return get_run(field, &run, dst, ip);
	taken = take_first(field, &run, false, dst, ip, NULL);
	if (taken < 0)
		return taken;
	job.it_valid = taken;
	job.next_wanted = taken;
	job.ip = ip;
	return mmnf_fetch_run(field, &job);
}

static ssize_t get(struct mmnf_field *field, const struct mmnf_box *box,
		   void *dst, size_t dst_bytes, const void *ip)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_box normal;
	struct mmnf_run run;
	u64 bytes;
	int err;

	err = mmnf_geometry_box(g, box, &normal, &bytes);
	if (err)
		return err;
	if (bytes > dst_bytes)
		return mmnf_error(ENOSPC,
				  "dst has %zu bytes: expected %" PRIu64,
				  dst_bytes, bytes);
	if (!bytes)
		return 0;
	if (bytes <= MMNF_FETCH_RUN_BYTES &&
	    mmnf_run_is_whole(g, &normal, &run))
		err = get_run(field, &run, dst, ip);
	else
		err = get_runs(field, &normal, bytes, dst, ip);
	if (err)
		return err;
	mmnf_stats_get(field, bytes);
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
