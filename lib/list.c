// SPDX-License-Identifier: MIT
/*
 * Records by a list of indices.
 *
 *	index -> in memory? -> copied, in the order of the list
 *	         else       -> job of fetch.c, in the order of the file
 *
 * Where a record is one piece of a file, it is found by arithmetic, and what is in
 * memory needs no order.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "fetch.h"

#define GROUP 8 /* records of L2 that are pinned together */
#define DATA_AHEAD 3 /* records: about the time that memory needs */
#define SKIP_MAX 31
#define DIGIT_BITS 11
#define DIGITS (1U << DIGIT_BITS)

/**
 * struct records - a list of them, to be taken from memory
 * @mapped: where there is no L2
 */
struct records {
	struct mmnf_field *field;
	const u64 *index;
	u64 nr;
	struct mmnf_records at;
	struct mmnf_mapped mapped;
};

struct copy {
	char *to;
	u64 bytes;
};

static int by_index(const void *a, const void *b)
{
	const struct mmnf_wanted *x = a, *y = b;

	return x->index < y->index ? -1 : x->index > y->index;
}

/*
 * By the digits of the index that differ, from the last on: cheaper than qsort() from
 * DIGITS / 4 entries on, and the more so the longer the list and the fewer the digits.
 * False: there is no memory for it.
 */
static bool sort_by_digits(struct mmnf_wanted *list, u64 nr)
{
	struct mmnf_wanted *other, *from = list, *to, *turn;
	u64 differ = 0, *count, i, sum, n;
	u32 shift, d;

	/* Not on a stack that is the caller's. */
	other = to = malloc(nr * sizeof(*other) + DIGITS * sizeof(*count));
	if (!other)
		return false;
	count = (u64 *)(other + nr);
	for (i = 1; i < nr; i++)
		differ |= list[i].index ^ list[0].index;
	for (shift = 0; shift < 64 && differ >> shift; shift += DIGIT_BITS) {
		if (!(differ >> shift & (DIGITS - 1)))
			continue;
		memset(count, 0, DIGITS * sizeof(*count));
		for (i = 0; i < nr; i++)
			count[from[i].index >> shift & (DIGITS - 1)]++;
		for (d = 0, sum = 0; d < DIGITS; d++, sum += n) {
			n = count[d];
			count[d] = sum;
		}
		for (i = 0; i < nr; i++)
			to[count[from[i].index >> shift & (DIGITS - 1)]++] =
				from[i];
		turn = from;
		from = to;
		to = turn;
	}
	if (from != list)
		memcpy(list, from, nr * sizeof(*list));
	free(other);
	return true;
}

static void sort(struct mmnf_wanted *list, u64 nr)
{
	if (nr < DIGITS / 4 || !sort_by_digits(list, nr))
		qsort(list, nr, sizeof(*list), by_index);
}

static void one_record(const struct mmnf_geometry *g, struct mmnf_box *box)
{
	u32 axis;

	for (axis = 0; axis < g->ndim; axis++) {
		box->start[axis] = 0;
		box->count[axis] = axis ? g->shape[axis] : 1;
		box->step[axis] = 1;
	}
}

/* False: a record is in pieces, or has to be looked up in an index. */
static bool find_records(const struct mmnf_geometry *g, struct mmnf_records *at)
{
	struct mmnf_box box = { { 0 }, { 0 }, { 0 } };
	struct mmnf_runs it;
	struct mmnf_run run;

	if (!g->flat || g->split || g->indexed)
		return false;
	one_record(g, &box);
	mmnf_runs_init(&it, g, &box, S64_MAX);
	if (!mmnf_runs_next(&it, &run) || run.unit || !it.end)
		return false;
	*at = (struct mmnf_records) { .bytes = run.bytes,
				      .offset = run.offset,
				      .chunk = g->chunk[0],
				      .stride = (u64)g->stride_bytes[0] };
	return true;
}

static int check_list(const struct mmnf_geometry *g, const u64 *index, u64 nr,
		      u64 dst_bytes, u64 *bytes)
{
	u64 record = g->total_bytes / g->shape[0], i;

	if (__builtin_mul_overflow(record, nr, bytes) || *bytes > dst_bytes)
		return mmnf_error(ENOSPC,
				  "dst has %" PRIu64 " bytes: expected %" PRIu64
				  " records of %" PRIu64,
				  dst_bytes, nr, record);
	for (i = 0; i < nr; i++)
		if (index[i] >= g->shape[0])
			return mmnf_error(ERANGE,
					  "index[%" PRIu64 "] is %" PRIu64
					  ": expected inside 0..%" PRIu64,
					  i, index[i], g->shape[0] - 1);
	return 0;
}

/* A job of records that are listed already, placed, and in any order. */
static void finish_job(const struct mmnf_geometry *g, struct mmnf_job *job,
		       u64 record)
{
	bool sorted = true;
	u64 i;

	for (i = 1; i < job->nr_list; i++)
		sorted &= job->list[i - 1].index <= job->list[i].index;
	if (!sorted)
		sort(job->list, job->nr_list);
	job->bytes = record * job->nr_list;
	one_record(g, &job->box);
	find_records(g, &job->records);
}

int mmnf_io_list(struct mmnf_field *field, struct mmnf_job *job,
		 const u64 *index, u64 nr, u64 dst_bytes)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 i, bytes;
	int err;

	err = check_list(g, index, nr, dst_bytes, &bytes);
	if (err)
		return err;
	job->list = malloc(nr * sizeof(*job->list));
	if (!job->list)
		return mmnf_error(ENOMEM, "no memory for %" PRIu64 " indices",
				  nr);
	job->nr_list = nr;
	for (i = 0; i < nr; i++)
		job->list[i] = (struct mmnf_wanted) { index[i], i };
	finish_job(g, job, bytes / nr);
	return 0;
}

/* ---- what is in memory */

static struct mmnf_run place(const struct records *r, u64 i)
{
	return mmnf_record_run(&r->at, r->index[i], i);
}

static void copy_record(void *arg, const char *from)
{
	const struct copy *c = arg;

	memcpy(c->to, from, c->bytes);
}

/* Asks for what copying the records to come will need. */
static void touch_ahead(const struct records *r, u64 i)
{
	const struct mmnf_cache *cache = r->field->cache;
	struct mmnf_run run;

	if (!cache) {
		if (i + DATA_AHEAD < r->nr) {
			run = place(r, i + DATA_AHEAD);
			mmnf_mapped_touch(&r->mapped, run.segment, run.offset);
		}
		return;
	}
	if (i + 2 * GROUP < r->nr) {
		run = place(r, i + 2 * GROUP);
		mmnf_cache_touch(
			cache, mmnf_cache_tile(cache, run.segment, run.offset),
			false);
	}
	if (i + GROUP < r->nr) {
		run = place(r, i + GROUP);
		mmnf_cache_touch_data(
			cache, mmnf_cache_tile(cache, run.segment, run.offset),
			run.offset % MMNF_TILE_BYTES);
	}
}

/* A bit for each of a group that was in memory. */
static u32 take_mapped(struct records *r, u64 first, u32 nr, char *dst)
{
	u32 i, taken = 0;

	for (i = 0; i < nr; i++) {
		struct mmnf_run run = place(r, first + i);
		struct copy c = { dst + run.dst, run.bytes };

		touch_ahead(r, first + i);
		if (mmnf_mapped_copy(&r->mapped, run.segment, run.offset,
				     run.bytes, copy_record, &c))
			taken |= 1U << i;
	}
	return taken;
}

/*
 * First all of a group are pinned, then all are copied: a pin waits for the stores
 * before it, so that no copy would begin before the one before has ended.
 */
static u32 take_cached(struct records *r, u64 first, u32 nr, char *dst)
{
	struct mmnf_cache *cache = r->field->cache;
	u32 i, pinned = 0, taken = 0;
	struct mmnf_pin pin[GROUP];
	const char *from[GROUP];

	for (i = 0; i < nr; i++)
		touch_ahead(r, first + i);
	for (i = 0; i < nr; i++) {
		struct mmnf_run run = place(r, first + i);
		u64 in_tile = run.offset % MMNF_TILE_BYTES;

		if (in_tile + run.bytes > MMNF_TILE_BYTES) {
			taken |= (u32)mmnf_fetch_take(r->field, &run, dst) << i;
		} else if (mmnf_cache_get(cache,
					  mmnf_cache_tile(cache, run.segment,
							  run.offset),
					  false, false,
					  &pin[i]) == MMNF_CACHE_HIT) {
			pinned |= 1U << i;
			from[i] = mmnf_cache_data(cache, pin[i]) + in_tile;
		}
	}
	for (i = 0; i < nr; i++)
		if (pinned >> i & 1)
			memcpy(dst + (first + i) * r->at.bytes, from[i],
			       r->at.bytes);
	for (i = 0; i < nr; i++)
		if (pinned >> i & 1)
			mmnf_cache_put(cache, pin[i]);
	return taken | pinned;
}

/*
 * Copies what is in memory and lists the rest.  After a group without any some are
 * listed without asking, more after each: cold data is asked for in vain once in a
 * while only.
 */
static u64 take_records(struct records *r, char *dst, struct mmnf_wanted *rest)
{
	u64 i, k, n = 0, skip = 0, skip_next = 0;

	for (i = 0; i < r->nr; i += GROUP) {
		u32 taken = 0, nr = (u32)min_u64(r->nr - i, GROUP);

		if (skip) {
			skip--;
		} else {
			taken = r->field->cache ? take_cached(r, i, nr, dst) :
						  take_mapped(r, i, nr, dst);
			skip_next =
				taken ? 0 :
					min_u64(2 * skip_next + 1, SKIP_MAX);
			skip = skip_next;
		}
		for (k = 0; k < nr; k++)
			if (!(taken >> k & 1))
				rest[n++] =
					(struct mmnf_wanted) { r->index[i + k],
							       i + k };
	}
	return n;
}

/* The same records as a job, without those that were copied at once. */
static int make_job(struct mmnf_field *field, struct mmnf_job *job,
		    const u64 *index, u64 nr, u64 dst_bytes, u64 *bytes)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct records r = { .index = index, .nr = nr };
	int err;

	if (!find_records(g, &r.at)) {
		err = mmnf_io_list(field, job, index, nr, dst_bytes);
		*bytes = job->bytes;
		return err;
	}
	r.field = r.mapped.field = field;
	err = check_list(g, index, nr, dst_bytes, bytes);
	if (err)
		return err;
	job->list = malloc(nr * sizeof(*job->list));
	if (!job->list)
		return mmnf_error(ENOMEM, "no memory for %" PRIu64 " indices",
				  nr);
	job->nr_list = take_records(&r, job->dst, job->list);
	finish_job(g, job, r.at.bytes);
	err = mmnf_mapped_end(&r.mapped);
	if (err)
		mmnf_job_free(job);
	return err;
}

MMNF_EXPORT ssize_t mmnf_batch_get(struct mmnf_field *field,
				   const uint64_t *index, size_t nr_index,
				   void *dst, size_t dst_bytes)
{
	struct mmnf_job job = { .dst = dst };
	u64 bytes;
	int err;

	mmnf_error_enter("mmnf_batch_get");
	if (!nr_index)
		return 0;
	err = make_job(field, &job, index, nr_index, dst_bytes, &bytes);
	if (err)
		return err;
	if (job.nr_list)
		err = mmnf_fetch_run(field, &job);
	else
		mmnf_job_free(&job);
	if (err)
		return err;
	mmnf_stats_get(field, bytes);
	return (ssize_t)bytes;
}
