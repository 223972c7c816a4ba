// SPDX-License-Identifier: MIT
/*
 * A job as rounds of runs in file order.
 *
 * A round is at most MMNF_ROUND_RUNS runs and about ROUND_BYTES, so that a job takes
 * the same memory whatever its size.  Runs of fields with an index are placed
 * here, and filled where their tile is absent.
 */
#include <errno.h>
#include <stdlib.h>

#include "fetch-internal.h"

#define ROUND_BYTES (64ULL << 20)

void mmnf_job_fail(struct mmnf_job *job, int err)
{
	if (job->error)
		return;
	job->error = err;
	job->text = strdup(mmnf_last_error());
}

static int by_offset(const void *a, const void *b)
{
	const struct mmnf_run *x = a, *y = b;

	if (x->segment != y->segment)
		return x->segment < y->segment ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static bool next_run(struct mmnf_fetch *f, struct mmnf_job *job,
		     struct mmnf_run *run)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(f->field);
	u64 nr = job->list ? job->nr_list : job->boxes ? job->nr_boxes : 1;
	u64 dst;

	if (job->given) {
		if (job->next_wanted == job->nr_given)
			return false;
		*run = job->given[job->next_wanted];
		if (!run->unit) {
			run->offset += job->given_pos;
			run->dst += job->given_pos;
			run->bytes = min_u64(run->bytes - job->given_pos,
					     MMNF_FETCH_RUN_BYTES);
			job->given_pos += run->bytes;
		}
		if (run->unit ||
		    job->given_pos == job->given[job->next_wanted].bytes) {
			job->next_wanted++;
			job->given_pos = 0;
		}
		return true;
	}
	if (job->records.bytes && job->records.bytes <= MMNF_FETCH_RUN_BYTES) {
		const struct mmnf_wanted *w = &job->list[job->next_wanted];

		if (job->next_wanted == nr)
			return false;
		job->next_wanted++;
		*run = mmnf_record_run(&job->records, w->index, w->place);
		return true;
	}
	while (!job->it_valid || !mmnf_runs_next(&job->it, run)) {
		const struct mmnf_box *box = &job->box;

		if (job->next_wanted == nr)
			return false;
		if (job->list)
			job->box.start[0] = job->list[job->next_wanted].index;
		if (job->boxes)
			box = &job->boxes[job->next_wanted].box;
		job->next_wanted++;
		job->it_valid = true;
		mmnf_runs_init(&job->it, g, box, MMNF_FETCH_RUN_BYTES);
	}
	if (job->boxes)
		run->dst += job->boxes[job->next_wanted - 1].dst;
	if (job->list) {
		dst = job->list[job->next_wanted - 1].place;
		run->dst += dst * (job->bytes / job->nr_list);
	}
	return true;
}

/* From nominal offsets to those in the files; what is absent is done with. */
static int place(struct mmnf_fetch *f, struct mmnf_job *job)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(f->field);
	struct mmnf_segment *s = NULL;
	u32 i, kept = 0;
	int err = 0;

	for (i = 0; i < job->nr_runs && err >= 0; i++) {
		struct mmnf_run *run = &job->runs[i];

		if (s && s->number != run->segment) {
			mmnf_segment_put(f->field, s);
			s = NULL;
		}
		err = s ? 0 :
			  mmnf_segment_get(f->field, run->segment, false, &s);
		if (!err)
			err = mmnf_segment_place(f->field, s, run);
		if (!err)
			job->runs[kept++] = *run;
		else if (err == -ENOENT || err > 0)
			mmnf_run_fill(g, run, job->dst);
		if (err == -ENOENT)
			err = 0;
	}
	job->nr_runs = kept;
	if (s)
		mmnf_segment_put(f->field, s);
	return err < 0 ? err : 0;
}

/* Half a megabyte is too much for each of many small jobs. */
static u32 room_of(const struct mmnf_job *job)
{
	u64 nr = job->list ? job->nr_list : job->nr_given;

	if ((!job->list && !job->given) || nr >= MMNF_ROUND_RUNS / 8)
		return MMNF_ROUND_RUNS;
	/* A read of one record: little enough for malloc() to have at hand. */
	if (nr == 1 && job->given && job->given->bytes <= MMNF_FETCH_RUN_BYTES)
		return 1;
	return (u32)max_u64(nr * 8, 64);
}

/* Of one record or box, but not where the run before it ended. */
static bool is_piece(const struct mmnf_job *job, u64 wanted,
		     const struct mmnf_run *run)
{
	return wanted && job->next_wanted == wanted &&
	       (run[0].segment != run[-1].segment ||
		run[0].offset != run[-1].offset + run[-1].bytes);
}

/* For another run.  What would have to be read twice is worth the memory. */
static bool has_room(struct mmnf_job *job, u32 n, bool pieces)
{
	struct mmnf_run *runs;

	if (n < job->room)
		return true;
	if (!job->once || !pieces || job->room == MMNF_ROUND_RUNS)
		return false;
	runs = realloc(job->runs, MMNF_ROUND_RUNS * sizeof(*runs));
	if (!runs)
		return false;
	job->runs = runs;
	job->room = MMNF_ROUND_RUNS;
	return true;
}

bool mmnf_job_refill(struct mmnf_fetch *f, struct mmnf_job *job)
{
	bool sorted = true, pieces = false, more;
	u64 bytes = 0, wanted;
	u32 n = 0;
	int err;

	if (!job->runs && f->spare) {
		job->runs = f->spare;
		job->room = MMNF_ROUND_RUNS;
		f->spare = NULL;
	}
	if (!job->runs) {
		job->room = room_of(job);
		job->runs = malloc(job->room * sizeof(*job->runs));
	}
	if (!job->runs) {
		mmnf_job_fail(job,
			      mmnf_error(ENOMEM,
					 "no memory for a round of reads"));
		return false;
	}
	do {
		more = true;
		while (bytes < ROUND_BYTES && has_room(job, n, pieces)) {
			struct mmnf_run *run = &job->runs[n];

			wanted = job->next_wanted;
			more = next_run(f, job, run);
			if (!more)
				break;
			pieces |= n && is_piece(job, wanted, run);
			sorted &= !n || by_offset(&run[-1], run) <= 0;
			bytes += run->bytes;
			n++;
		}
		if (!n)
			return false;
		/* Of what this round reads the next one wants the bytes between. */
		if (more && pieces && !sorted)
			job->once = false;
		job->nr_runs = n;
		job->next_run = n = 0;
		bytes = 0;
		err = 0;
		if (mmnf_field_geometry(f->field)->indexed && !job->given) {
			err = place(f, job);
			sorted = false;
		}
	} while (!err && !job->nr_runs);
	if (err) {
		job->nr_runs = 0;
		mmnf_job_fail(job, err);
		return false;
	}
	if (!sorted)
		qsort(job->runs, job->nr_runs, sizeof(*job->runs), by_offset);
	return true;
}

void mmnf_job_free(struct mmnf_job *job)
{
	free(job->list);
	free(job->boxes);
	free(job->given);
	free(job->runs);
	free(job->text);
}
