// SPDX-License-Identifier: MIT
/*
 * Copying out: pread, so that an error of storage is a return value.
 *
 * A box of many pieces is read in rounds.  A round sorts its pieces into file
 * order, merges neighbours, takes what is resident, starts reading all the rest
 * and only then waits: the device sees the whole round at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "internal.h"

#define ROUND_RUNS 8192
#define ROUND_BYTES (64ULL << 20)
#define EXTENT_BYTES (1ULL << 20) /* most bytes of a merged read */
#define EXTENT_GAP 4096 /* merged although not wanted: read anyway */
#define CALL_BYTES (1ULL << 30)

/* Sorted runs [first, first + nr) that are read by one call. */
struct extent {
	u32 first, nr;
	u64 offset, bytes;
	bool done;
};

struct round {
	struct mmnf_field *field;
	char *dst, *scratch;
	u32 nr_runs, nr_extents;
	u64 bytes;
	struct mmnf_run *runs;
	struct extent *extents;
};

static int cut_short(struct mmnf_field *field, const struct mmnf_segment *s)
{
	char key[MMNF_KEY_MAX];
	struct stat st = { 0 };

	fstat(s->fd, &st);
	mmnf_segment_name(field, s->number, key);
	return mmnf_error(EIO,
			  "segment %s is %" PRIu64 " bytes: expected %" PRIu64,
			  key, (u64)st.st_size,
			  mmnf_field_geometry(field)->segment_bytes);
}

static int read_all(struct mmnf_field *field, const struct mmnf_segment *s,
		    char *dst, u64 bytes, u64 offset)
{
	u64 done = 0;

	while (done < bytes) {
		ssize_t n = pread(s->fd, dst + done,
				  min_u64(bytes - done, CALL_BYTES),
				  (off_t)(offset + done));

		if (n > 0)
			done += (u64)n;
		else if (!n)
			return cut_short(field, s);
		else if (errno != EINTR)
			return mmnf_error_system(errno,
						 "reading segment %" PRIu64
						 " at byte %" PRIu64,
						 s->number, offset + done);
	}
	return 0;
}

/* All of it if it can be had without waiting. */
static bool read_resident(const struct mmnf_segment *s, char *dst, u64 bytes,
			  u64 offset)
{
	struct iovec iov = { dst, bytes };

	return bytes <= CALL_BYTES && preadv2(s->fd, &iov, 1, (off_t)offset,
					      RWF_NOWAIT) == (ssize_t)bytes;
}

/* Opens a segment if *s is another one; NULL: absent. */
static int switch_to(struct mmnf_field *field, struct mmnf_segment **s,
		     bool *absent, u64 *at, u64 number)
{
	int err;

	if (*at == number)
		return 0;
	if (*s)
		mmnf_segment_put(field, *s);
	*s = NULL;
	*at = number;
	err = mmnf_segment_get(field, number, false, s);
	*absent = err == -ENOENT;
	return *absent ? 0 : err;
}

static int by_offset(const void *a, const void *b)
{
	const struct mmnf_run *x = a, *y = b;

	if (x->segment != y->segment)
		return x->segment < y->segment ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static void merge(struct round *r)
{
	struct extent *e = NULL;
	u32 i;

	qsort(r->runs, r->nr_runs, sizeof(*r->runs), by_offset);
	r->nr_extents = 0;
	for (i = 0; i < r->nr_runs; i++) {
		const struct mmnf_run *run = &r->runs[i];
		u64 end = run->offset + run->bytes;

		if (e && run->segment == r->runs[e->first].segment &&
		    run->offset <= e->offset + e->bytes + EXTENT_GAP &&
		    end <= e->offset + EXTENT_BYTES) {
			e->nr++;
			e->bytes = max_u64(e->bytes, end - e->offset);
			continue;
		}
		e = &r->extents[r->nr_extents++];
		*e = (struct extent) { i, 1, run->offset, run->bytes, false };
	}
}

static void scatter(const struct round *r, const struct extent *e)
{
	u32 i;

	for (i = e->first; i < e->first + e->nr; i++)
		mmnf_run_scatter(&r->runs[i],
				 r->scratch + (r->runs[i].offset - e->offset),
				 r->dst);
}

static int read_extent(struct round *r, struct extent *e,
		       struct mmnf_segment *s, bool wait)
{
	const struct mmnf_run *first = &r->runs[e->first];
	bool direct = e->nr == 1 && !first->unit;
	char *to = direct ? r->dst + first->dst : r->scratch;
	int err = 0;

	if (wait)
		err = read_all(r->field, s, to, e->bytes, e->offset);
	else if (!read_resident(s, to, e->bytes, e->offset))
		return 0;
	if (err)
		return err;
	if (!direct)
		scatter(r, e);
	e->done = true;
	return 0;
}

enum pass { TAKE_RESIDENT, START, WAIT };

static int run_pass(struct round *r, enum pass pass)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(r->field);
	struct mmnf_segment *s = NULL;
	u64 at = UINT64_MAX;
	bool absent = false;
	int err = 0;
	u32 i, k;

	for (i = 0; !err && i < r->nr_extents; i++) {
		struct extent *e = &r->extents[i];

		if (e->done)
			continue;
		err = switch_to(r->field, &s, &absent, &at,
				r->runs[e->first].segment);
		if (err)
			break;
		if (absent) {
			for (k = e->first; k < e->first + e->nr; k++)
				mmnf_run_fill(g, &r->runs[k], r->dst);
			e->done = true;
		} else if (pass == START) {
			mmnf_hint_willneed(s->fd, e->offset, e->bytes);
		} else {
			err = read_extent(r, e, s, pass == WAIT);
		}
	}
	if (s)
		mmnf_segment_put(r->field, s);
	return err;
}

/* From nominal offsets to those in the files; what is absent is done with. */
static int place(struct round *r)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(r->field);
	struct mmnf_segment *s = NULL;
	u64 at = UINT64_MAX;
	bool absent = false;
	u32 i, kept = 0;
	int err = 0;

	if (!g->indexed)
		return 0;
	for (i = 0; !err && i < r->nr_runs; i++) {
		struct mmnf_run *run = &r->runs[i];
		int missing = 1;

		err = switch_to(r->field, &s, &absent, &at, run->segment);
		if (!err && !absent)
			missing = mmnf_segment_place(r->field, s, run);
		if (missing < 0)
			err = missing;
		else if (!err && missing)
			mmnf_run_fill(g, run, r->dst);
		else if (!err)
			r->runs[kept++] = *run;
	}
	r->nr_runs = kept;
	if (s)
		mmnf_segment_put(r->field, s);
	return err;
}

static int round_end(struct round *r)
{
	int err;

	err = place(r);
	if (err)
		return err;
	merge(r);
	err = run_pass(r, TAKE_RESIDENT);
	if (!err)
		err = run_pass(r, START);
	if (!err)
		err = run_pass(r, WAIT);
	r->nr_runs = 0;
	r->bytes = 0;
	return err;
}

static int round_begin(struct round *r, struct mmnf_field *field, void *dst)
{
	memset(r, 0, sizeof(*r));
	r->field = field;
	r->dst = dst;
	r->scratch = malloc(EXTENT_BYTES);
	r->runs = malloc(ROUND_RUNS * sizeof(*r->runs));
	r->extents = malloc(ROUND_RUNS * sizeof(*r->extents));
	if (r->scratch && r->runs && r->extents)
		return 0;
	return mmnf_error(ENOMEM, "no memory for a round of reads");
}

static void round_free(struct round *r)
{
	free(r->scratch);
	free(r->runs);
	free(r->extents);
}

static int round_add(struct round *r, struct mmnf_runs *it, u64 dst)
{
	struct mmnf_run run;
	int err = 0;

	while (!err && mmnf_runs_next(it, &run)) {
		run.dst += dst;
		r->runs[r->nr_runs++] = run;
		r->bytes += run.bytes;
		if (r->nr_runs == ROUND_RUNS || r->bytes >= ROUND_BYTES)
			err = round_end(r);
	}
	return err;
}

/*
 * The first piece of a box: most boxes have no other.  Here the predictor
 * learns of the access, before anybody waits.
 */
static int read_first(struct mmnf_field *field, struct mmnf_run *run, char *dst,
		      const void *ip)
{
	struct mmnf_segment *s;
	char *scratch = NULL, *to = dst + run->dst;
	u64 nominal = run->offset;
	bool resident;
	int err;

	err = mmnf_segment_get(field, run->segment, false, &s);
	if (err == -ENOENT) {
		mmnf_run_fill(mmnf_field_geometry(field), run, dst);
		return 0;
	}
	if (err)
		return err;
	err = mmnf_segment_place(field, s, run);
	if (err > 0)
		mmnf_run_fill(mmnf_field_geometry(field), run, dst);
	if (!err && run->unit) {
		to = scratch = malloc(run->bytes);
		if (!scratch)
			err = mmnf_error(ENOMEM, "no memory");
	}
	if (err) {
		mmnf_segment_put(field, s);
		return err < 0 ? err : 0;
	}
	resident = read_resident(s, to, run->bytes, run->offset);
	if (field->walk && !mmnf_walk_again(field, run->segment, nominal, ip))
		mmnf_walk_touch(field, run->segment, nominal, ip, resident);
	if (!resident)
		err = read_all(field, s, to, run->bytes, run->offset);
	if (!err && scratch)
		mmnf_run_scatter(run, scratch, dst);
	free(scratch);
	mmnf_segment_put(field, s);
	return err;
}

static ssize_t get(struct mmnf_field *field, const struct mmnf_box *box,
		   void *dst, size_t dst_bytes, const void *ip)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_box normal;
	struct mmnf_runs it;
	struct mmnf_run run;
	struct round r;
	u64 bytes;
	int err;

	err = mmnf_geometry_box(g, box, &normal, &bytes);
	if (err)
		return err;
	if (bytes > dst_bytes)
		return mmnf_error(ENOSPC,
				  "dst has %zu bytes: expected %" PRIu64,
				  dst_bytes, bytes);
	mmnf_runs_init(&it, g, &normal, EXTENT_BYTES);
	if (!mmnf_runs_next(&it, &run))
		return 0;
	err = read_first(field, &run, dst, ip);
	if (!err && !it.end) {
		err = round_begin(&r, field, dst);
		if (!err)
			err = round_add(&r, &it, 0);
		if (!err)
			err = round_end(&r);
		round_free(&r);
	}
	if (err)
		return err;
	mmnf_count(&field->stats.gets, 1);
	mmnf_count(&field->stats.get_bytes, bytes);
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

struct wanted {
	u64 index, place;
};

static int by_index(const void *a, const void *b)
{
	const struct wanted *x = a, *y = b;

	return x->index < y->index ? -1 : x->index > y->index;
}

static int sort_list(const struct mmnf_geometry *g, const u64 *index, size_t nr,
		     struct wanted **out)
{
	struct wanted *list = calloc(nr, sizeof(*list));
	size_t i;

	if (!list)
		return mmnf_error(ENOMEM, "no memory for %zu indices", nr);
	for (i = 0; i < nr; i++) {
		list[i] = (struct wanted) { index[i], i };
		if (index[i] < g->shape[0])
			continue;
		free(list);
		return mmnf_error(ERANGE,
				  "index[%zu] is %" PRIu64
				  ": expected inside 0..%" PRIu64,
				  i, index[i], g->shape[0] - 1);
	}
	qsort(list, nr, sizeof(*list), by_index);
	*out = list;
	return 0;
}

MMNF_EXPORT ssize_t mmnf_batch_get(struct mmnf_field *field,
				   const uint64_t *index, size_t nr_index,
				   void *dst, size_t dst_bytes)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 record = g->total_bytes / g->shape[0], bytes;
	struct mmnf_box box = { { 0 }, { 0 }, { 0 } };
	struct wanted *list = NULL;
	struct mmnf_runs it;
	struct round r;
	size_t i;
	int err;
	u32 axis;

	mmnf_error_enter("mmnf_batch_get");
	if (!nr_index)
		return 0;
	if (__builtin_mul_overflow(record, nr_index, &bytes) ||
	    bytes > dst_bytes)
		return mmnf_error(
			ENOSPC,
			"dst has %zu bytes: expected %zu records of %" PRIu64,
			dst_bytes, nr_index, record);
	err = sort_list(g, index, nr_index, &list);
	if (err)
		return err;
	for (axis = 0; axis < g->ndim; axis++) {
		box.count[axis] = axis ? g->shape[axis] : 1;
		box.step[axis] = 1;
	}
	err = round_begin(&r, field, dst);
	for (i = 0; !err && i < nr_index; i++) {
		box.start[0] = list[i].index;
		mmnf_runs_init(&it, g, &box, EXTENT_BYTES);
		err = round_add(&r, &it, list[i].place * record);
	}
	if (!err)
		err = round_end(&r);
	round_free(&r);
	free(list);
	if (err)
		return err;
	mmnf_count(&field->stats.gets, 1);
	mmnf_count(&field->stats.get_bytes, bytes);
	return (ssize_t)bytes;
}
