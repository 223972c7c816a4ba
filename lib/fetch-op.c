// SPDX-License-Identifier: MIT
/*
 * Operations: some runs of a job that lie together, read at once, then spread
 * over the job's destination.
 *
 *	page cache:	one read, into dst or into the op's scratch
 *	L2:		its tiles, each pinned, claimed and read, or in scratch;
 *			one read per row of tiles that have to be read
 *	past L2:	one read into the op's scratch, if no tile of it is in L2
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "fetch-internal.h"

#define GAP_BYTES 4096 /* merged although not wanted: read anyway */
#define SKIP_MAX 31
#define TOUCH_AHEAD 8 /* ops: about the time that memory needs */

/* Finds the words for a read that failed. */
static void read_failed(struct mmnf_fetch *f, const struct op *op)
{
	char name[MMNF_KEY_MAX];
	struct mmnf_segment *s;
	u64 bytes;

	if (f->field->ops->explain) {
		f->field->ops->explain(f->field, op->segment, op->offset,
				       op->bytes, -op->error);
		mmnf_job_fail(op->job, op->error);
		return;
	}
	/* A file that can't be opened has words of its own. */
	if (mmnf_segment_get(f->field, op->segment, false, &s)) {
		mmnf_job_fail(op->job, op->error);
		return;
	}
	mmnf_segment_name(f->field, op->segment, name);
	if (op->error == -EIO && !mmnf_file_bytes(s->fd, &bytes) &&
	    bytes != s->file_bytes)
		mmnf_error(EIO,
			   "segment %s is %" PRIu64 " bytes: expected %" PRIu64,
			   name, bytes, s->file_bytes);
	else
		mmnf_error_system(-op->error,
				  "reading segment %s at byte %" PRIu64, name,
				  op->offset);
	mmnf_segment_put(f->field, s);
	mmnf_job_fail(op->job, op->error);
}

/* Bytes of an op's tiles, from a place that need not lie in one of them. */
static void copy_tiles(const struct op *op, u64 at, char *dst, u64 bytes)
{
	u64 n;

	for (; bytes; bytes -= n, dst += n, at += n) {
		n = min_u64(bytes, MMNF_TILE_BYTES - at % MMNF_TILE_BYTES);
		memcpy(dst,
		       op->tile[at / MMNF_TILE_BYTES] + at % MMNF_TILE_BYTES,
		       n);
	}
}

static void spread_run(const struct op *op, const struct mmnf_run *run)
{
	u64 from = run->offset - op->offset, at;
	char *dst = op->job->dst + run->dst;

	if (!op->nr_tiles) {
		mmnf_run_scatter(run, op->to + from, op->job->dst);
		return;
	}
	if (!run->unit) {
		copy_tiles(op, from, dst, run->bytes);
		return;
	}
	for (at = 0; at < run->bytes; at += run->file_stride) {
		copy_tiles(op, from + at, dst, run->unit);
		dst += run->dst_stride;
	}
}

static void spread(struct mmnf_fetch *f, const struct op *op)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(f->field);
	const struct mmnf_job *job = op->job;
	u32 i;

	if (!job->dst || (op->to_dst && !op->absent))
		return;
	for (i = op->first; i < op->first + op->nr; i++) {
		if (op->absent)
			mmnf_run_fill(g, &job->runs[i], job->dst);
		else
			spread_run(op, &job->runs[i]);
	}
}

/* ---- operations */

static void op_end(struct mmnf_fetch *f, struct op *op)
{
	u32 i;

	if (op->job) {
		if (op->error && !op->job->stop)
			read_failed(f, op);
		else if (!op->job->error && !op->job->stop)
			spread(f, op);
		op->job->nr_ops--;
	}
	for (i = 0; i < op->nr_tiles; i++)
		if (op->state[i] == TILE_PINNED)
			mmnf_cache_put(f->field->cache, op->pin[i]);
	op->twin = false;
	op->next = f->free;
	f->free = op;
}

/* Is an op reading a tile for L2? */
static bool is_reading(const struct op *op, u64 segment, u64 offset)
{
	u64 n = (offset - op->offset) / MMNF_TILE_BYTES;

	return op->pending && op->segment == segment && offset >= op->offset &&
	       n < op->nr_tiles && op->state[n] == TILE_FILL;
}

/* Those that wait for it; what came meanwhile is looked for again at once. */
static struct op **place_of_twin(struct mmnf_fetch *f, const struct op *op)
{
	u32 i = 0;

	while (op->state[i] != TILE_TWIN)
		i++;
	return is_reading(op->reader, op->segment,
			  op->offset + i * MMNF_TILE_BYTES) ?
		       &op->reader->twins :
		       &f->twins;
}

/* All reads of it are done. */
static void op_came(struct mmnf_fetch *f, struct op *op)
{
	struct op **at;

	if (!op->job || op->error || op->absent || !(op->twin || op->busy)) {
		op_end(f, op);
		return;
	}
	at = op->twin ? place_of_twin(f, op) : &f->parked;
	op->next = *at;
	*at = op;
}

void mmnf_op_read_done(struct mmnf_fetch *f, const struct mmnf_read *read)
{
	struct op *op = read->owner, *twin;
	bool ok = read->result >= 0;
	u64 i;

	if (read->result == -ENOENT)
		op->absent = true;
	else if (!ok && !op->error)
		op->error = (int)read->result;
	for (i = (read->offset - op->offset) / MMNF_TILE_BYTES;
	     op->nr_tiles &&
	     op->offset + i * MMNF_TILE_BYTES < read->offset + read->bytes;
	     i++) {
		if (op->state[i] == TILE_FILL) {
			mmnf_cache_filled(f->field->cache, op->pin[i], ok);
			op->state[i] = TILE_PINNED;
			f->nr_fills--;
		} else {
			op->state[i] = TILE_READY;
		}
	}
	op->pending--;
	while ((twin = op->twins)) {
		op->twins = twin->next;
		twin->next = f->twins;
		f->twins = twin;
	}
	if (!op->pending)
		op_came(f, op);
}

static void add_read(struct mmnf_fetch *f, struct op *op, u32 n,
		     const struct mmnf_read *read)
{
	op->read[n] = *read;
	op->read[n].owner = op;
	op->read[n].ahead = !op->job->dst;
	op->job->reads = true;
	op->pending++;
	f->todo[f->nr_todo++] = &op->read[n];
}

/* One read per row of tiles that have to be read. */
static void read_tiles(struct mmnf_fetch *f, struct op *op)
{
	struct mmnf_read read = { 0 };
	struct iovec *iov = op->iov; /* the next one */
	u32 i, n = 0;

	for (i = 0; i <= op->nr_tiles; i++) {
		if (i == op->nr_tiles || (op->state[i] != TILE_FILL &&
					  op->state[i] != TILE_SCRATCH)) {
			if (read.bytes)
				add_read(f, op, n++, &read);
			read.bytes = 0;
			continue;
		}
		if (!read.bytes) {
			read.segment = op->segment;
			read.offset = op->offset + i * MMNF_TILE_BYTES;
			read.iov = iov;
			read.nr_iov = 0;
		}
		read.bytes += MMNF_TILE_BYTES;
		if (read.nr_iov &&
		    (char *)iov[-1].iov_base + iov[-1].iov_len == op->tile[i]) {
			iov[-1].iov_len += MMNF_TILE_BYTES;
			continue;
		}
		*iov++ = (struct iovec) { op->tile[i], MMNF_TILE_BYTES };
		read.nr_iov++;
	}
}

/* The op of this fetch that is reading a tile, or NULL. */
static struct op *reader(struct mmnf_fetch *f, u64 segment, u64 offset)
{
	u32 i;

	for (i = 0; i < f->depth && f->nr_fills; i++)
		if (is_reading(&f->ops[i], segment, offset))
			return &f->ops[i];
	return NULL;
}

/*
 * Which of its tiles are on their way ahead: those are kept, or who reads ahead would
 * read them again.
 */
static void ask_ahead(const struct mmnf_fetch *f, struct op *op)
{
	if (!op->asked)
		op->coming = mmnf_ahead_tiles(f->field, op->segment, op->offset,
					      op->bytes);
	op->asked = true;
}

/* Nothing of an op that is to keep nothing is in L2, or on its way there. */
static bool may_go_past(const struct mmnf_fetch *f, struct op *op)
{
	const struct mmnf_cache *cache = f->field->cache;

	if (mmnf_cache_knows(cache, op->segment, op->offset, op->bytes))
		return false;
	ask_ahead(f, op);
	/* Again: what came in between is seen all the same. */
	return !op->coming &&
	       !mmnf_cache_knows(cache, op->segment, op->offset, op->bytes);
}

static void look_up(struct mmnf_fetch *f, struct op *op, u32 i, bool may_wait)
{
	struct mmnf_cache *cache = f->field->cache;
	u64 offset = op->offset + i * MMNF_TILE_BYTES;
	mmnf_tile tile = mmnf_cache_tile(cache, op->segment, offset);
	bool claim = !op->job->once, again = !op->asked;
	enum mmnf_cache_state state;
	struct op *twin;

	state = mmnf_cache_get(cache, tile, claim, f->driven, &op->pin[i]);
	if (state == MMNF_CACHE_FULL && !claim) {
		ask_ahead(f, op);
		claim = op->coming >> i & 1;
		/* What came before that answer is there now. */
		if (claim || again)
			state = mmnf_cache_get(cache, tile, claim, f->driven,
					       &op->pin[i]);
	}
	if (state == MMNF_CACHE_HIT || state == MMNF_CACHE_FILL) {
		op->tile[i] = mmnf_cache_data(cache, op->pin[i]);
		op->state[i] = state == MMNF_CACHE_HIT ? TILE_PINNED :
							 TILE_FILL;
		f->nr_fills += state == MMNF_CACHE_FILL;
	} else if (!op->job->dst) {
		op->state[i] = TILE_NONE;
	} else if (state == MMNF_CACHE_BUSY &&
		   (twin = reader(f, op->segment, offset))) {
		op->state[i] = TILE_TWIN;
		if (!op->twin)
			op->reader = twin;
		op->twin = true;
	} else if (state == MMNF_CACHE_BUSY && may_wait && f->driven) {
		op->state[i] = TILE_BUSY;
		op->busy = true;
	} else {
		op->tile[i] = op->scratch + i * MMNF_TILE_BYTES;
		op->state[i] = TILE_SCRATCH;
	}
}

static void look_again(struct mmnf_fetch *f, struct op *op)
{
	u32 i;

	op->twin = op->asked = false;
	for (i = 0; i < op->nr_tiles; i++)
		if (op->state[i] == TILE_TWIN)
			look_up(f, op, i, true);
	read_tiles(f, op);
	if (!op->pending)
		op_came(f, op);
}

void mmnf_op_untwin(struct mmnf_fetch *f)
{
	struct op *op, *next = f->twins;

	f->twins = NULL;
	while ((op = next)) {
		next = op->next;
		if (!op->job) {
			op_end(f, op);
		} else if (f->nr_todo + f->queue->in_flight < f->depth) {
			look_again(f, op);
		} else {
			op->next = f->twins;
			f->twins = op;
		}
	}
}

void mmnf_op_unpark(struct mmnf_fetch *f)
{
	struct mmnf_cache *cache = f->field->cache;
	struct op *op = f->parked;
	u32 i;

	f->parked = op->next;
	op->busy = op->asked = false;
	for (i = 0; i < op->nr_tiles; i++)
		if (op->state[i] == TILE_BUSY)
			mmnf_cache_wait(
				cache,
				mmnf_cache_tile(cache, op->segment,
						op->offset +
							i * MMNF_TILE_BYTES));
	for (i = 0; i < op->nr_tiles; i++)
		if (op->state[i] == TILE_BUSY)
			look_up(f, op, i, false);
	read_tiles(f, op);
	if (!op->pending)
		op_came(f, op);
}

/* How many runs from the next on go together, and the bytes from first to last. */
static u32 merge(const struct mmnf_fetch *f, const struct mmnf_job *job,
		 u64 *end, bool *in_place)
{
	const struct mmnf_run *first = &job->runs[job->next_run], *run = first;
	u64 pitch = f->cached ? MMNF_TILE_BYTES : 1;
	u64 start = first->offset / pitch * pitch, e;
	u32 n = 1;

	*end = first->offset + first->bytes;
	*in_place = !first->unit;
	for (; job->next_run + n < job->nr_runs; n++) {
		run++;
		e = run->offset + run->bytes;
		if (run->segment != first->segment ||
		    run->offset / pitch * pitch >
			    (f->cached ? round_up_u64(*end, pitch) :
					 *end + GAP_BYTES) ||
		    max_u64(e, *end) > start + MMNF_FETCH_RUN_BYTES)
			break;
		*in_place &= !run->unit && run->offset == *end &&
			     run->dst - first->dst ==
				     run->offset - first->offset;
		*end = max_u64(*end, e);
	}
	return n;
}

static void spread_mapped(void *arg, const char *from)
{
	const struct op *op = arg;
	u32 i;

	for (i = op->first; i < op->first + op->nr; i++) {
		const struct mmnf_run *run = &op->job->runs[i];

		mmnf_run_scatter(run, from + (run->offset - op->offset),
				 op->job->dst);
	}
}

/*
 * Copies what is in the page cache already: cheaper than by the queue.  After a
 * miss some ops go without asking, more after each, so that cold data is asked
 * for in vain once in a while only.  Not where somebody expects that nothing is
 * copied before reap.
 */
static bool resident(struct mmnf_fetch *f, struct op *op, u64 bytes)
{
	struct mmnf_segment_pin pin;
	bool is;

	if (f->driven && mmnf_mapped_copy(&f->mapped, op->segment, op->offset,
					  bytes, spread_mapped, op)) {
		op->to_dst = true; /* it is there */
		return true;
	}
	if (!f->driven || f->skip) {
		f->skip -= f->skip > 0;
		return false;
	}
	if (mmnf_segment_pin(f->field, op->segment, &pin))
		return false; /* the queue will meet it, too */
	is = mmnf_segment_resident(pin.s, op->to, bytes, op->offset);
	if (is)
		mmnf_mapped_seen(f->field, pin.s, op->offset, bytes);
	mmnf_segment_unpin(f->field, &pin);
	f->skip_next = is ? 0 : min_u64(2 * f->skip_next + 1, SKIP_MAX);
	f->skip = f->skip_next;
	return is;
}

static void touch_ahead(const struct mmnf_fetch *f, const struct mmnf_job *job)
{
	const struct mmnf_cache *cache = f->field->cache;
	const struct mmnf_run *run = &job->runs[job->next_run + TOUCH_AHEAD];

	if (job->next_run + TOUCH_AHEAD < job->nr_runs &&
	    (!job->once || mmnf_cache_used(cache)))
		mmnf_cache_touch(cache,
				 mmnf_cache_tile(cache, run->segment,
						 run->offset),
				 !job->once);
}

/*
 * All of it by one read.  Into dst only where reads of files always go there: a read
 * cannot be taken back, so that a deadline would have to wait for it.
 */
static void read_past(struct mmnf_fetch *f, struct op *op, u64 end,
		      bool in_place)
{
	const struct mmnf_run *first = &op->job->runs[op->first];
	u32 align = f->field->ops->align_bytes;
	struct mmnf_read read = { .segment = op->segment,
				  .iov = op->iov,
				  .nr_iov = 1 };

	op->offset = first->offset - first->offset % align;
	op->bytes = round_up_u64(end - op->offset, align);
	op->to_dst = in_place && !f->cached;
	op->to = op->to_dst ? op->job->dst + first->dst : op->scratch;
	op->iov[0] = (struct iovec) { op->to, op->bytes };
	read.offset = op->offset;
	read.bytes = op->bytes;
	if (!f->cached && resident(f, op, op->bytes))
		op_end(f, op);
	else
		add_read(f, op, 0, &read);
}

void mmnf_op_start(struct mmnf_fetch *f, struct mmnf_job *job)
{
	const struct mmnf_run *first = &job->runs[job->next_run];
	struct op *op = f->free;
	bool in_place;
	u64 end;
	u32 i;

	f->free = op->next;
	op->job = job;
	op->first = job->next_run;
	op->nr = merge(f, job, &end, &in_place);
	op->segment = first->segment;
	op->absent = op->busy = op->to_dst = op->twin = op->asked = false;
	op->error = 0;
	op->pending = op->nr_tiles = 0;
	job->next_run += op->nr;
	job->nr_ops++;
	if (f->cached)
		touch_ahead(f, job);
	op->offset = first->offset - first->offset % MMNF_TILE_BYTES;
	op->bytes = round_up_u64(end - op->offset, MMNF_TILE_BYTES);
	if (!f->cached || (job->once && may_go_past(f, op))) {
		read_past(f, op, end, in_place);
		return;
	}
	op->nr_tiles = (u32)(op->bytes / MMNF_TILE_BYTES);
	for (i = 0; i < op->nr_tiles; i++)
		look_up(f, op, i, true);
	read_tiles(f, op);
	if (!op->pending)
		op_came(f, op);
}
