// SPDX-License-Identifier: MIT
/*
 * The predictor of engines that the kernel does not predict for: accesses
 * through the library go into lib/core, and of its plans what is not here yet is
 * read: into L2 for those who copy where there is one, else into the page cache.
 *
 * One range of positions for the field: one is segment * segment_bytes + offset, so a
 * walk goes on across segments.  An access to the page of the same caller's
 * previous access is counted and otherwise passed over.  A page that was read
 * ahead and is not resident when touched is late; any other absent page is a
 * miss.  Where nobody tells what is resident, what was read ahead is thought to be.
 * Where the walk is dense the kernel's readahead takes over (readahead.c): what it
 * reads counts as read ahead when it begins to, beyond the plan, too.
 * Of a page that was found here when a plan named it the predictor learns as of one
 * that was read ahead, so that it goes on over what is resident; it is not counted.
 *
 * Each thread has a table of its own, as long as there are enough: streams are of one
 * thread anyway, and who reads what is here waits for nobody.  Pages that were read
 * ahead or found are the field's: by whom does not matter to who wants them.
 *
 * A walker's lock guards its table, walk.lock pending and found, which are looked at
 * without it, too.  Plans are carried out without either, so that nobody waits for
 * another's reading ahead.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "cache-pins.h"
#include "cache.h"
#include "readahead.h"
#include "tier.h"

#define LOOK_PAGES 512
#define FAR_BYTES (16ULL << 20)

static struct mmnf_walker *new_walker(struct mmnf_field *field, u32 number)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_walker *walker = calloc(1, sizeof(*walker));
	u64 page = mmnf_page_bytes(), l2_bytes;
	char *memory;

	if (!walker)
		return NULL;
	pthread_mutex_init(&walker->lock, NULL);
	walker->number = number;
	mmnf_table_init(&walker->table, page, g->data_offset,
			g->nr_segments * g->segment_bytes, g->record_bytes);
	/* As the module does with the memory to be had: most of L2 is not ahead. */
	mmnf_cache_memory(field->cache, &memory, &l2_bytes);
	if (memory)
		walker->table.room = max_u64(l2_bytes / 8 / page, 1);
	return walker;
}

static void free_walker(struct mmnf_walker *walker)
{
	if (walker)
		pthread_mutex_destroy(&walker->lock);
	free(walker);
}

struct mmnf_walker *mmnf_walk_walker(struct mmnf_field *field)
{
	u32 number = mmnf_thread_number() % MMNF_WALKERS;
	struct mmnf_walker **at = &field->walk->walker[number];
	struct mmnf_walker *walker = __atomic_load_n(at, __ATOMIC_ACQUIRE);
	struct mmnf_walker *made;

	if (walker)
		return walker;
	made = new_walker(field, number);
	if (!made)
		return field->walk->walker[0];
	if (__atomic_compare_exchange_n(at, &walker, made, false,
					__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return made;
	free_walker(made); /* another was faster */
	return walker;
}

int mmnf_walk_init(struct mmnf_field *field)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 page = mmnf_page_bytes();
	static u64 last_id;
	struct mmnf_walk *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	pthread_mutex_init(&w->lock, NULL);
	w->id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
	w->pages_per_segment =
		round_up_u64(g->segment_bytes + g->index_bytes, page) / page;
	field->walk = w;
	w->walker[0] = new_walker(field, 0);
	return w->walker[0] ? 0 : -ENOMEM;
}

void mmnf_walk_exit(struct mmnf_field *field)
{
	struct mmnf_walk *w = field->walk;
	u32 i;

	for (i = 0; w && i < MMNF_WALKERS; i++)
		free_walker(w->walker[i]);
	if (w)
		pthread_mutex_destroy(&w->lock);
	free(w);
}

void mmnf_walk_fit(struct mmnf_field *field)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_walk *w = field->walk;
	struct mmnf_walker *walker;
	u32 i;

	for (i = 0; w && i < MMNF_WALKERS; i++) {
		walker = __atomic_load_n(&w->walker[i], __ATOMIC_ACQUIRE);
		if (!walker)
			continue;
		pthread_mutex_lock(&walker->lock);
		walker->table.end = g->nr_segments * g->segment_bytes;
		pthread_mutex_unlock(&walker->lock);
	}
}

bool mmnf_walk_again(struct mmnf_field *field, u64 segment, u64 offset,
		     const void *ip)
{
	static __thread struct {
		u64 id, page;
		const void *ip;
	} recent[8];
	struct mmnf_walk *w = field->walk;
	u64 page = segment * w->pages_per_segment + offset / mmnf_page_bytes();
	u32 i = ((uintptr_t)ip >> 2 ^ (uintptr_t)ip >> 7 ^ w->id) & 7;

	if (recent[i].id == w->id && recent[i].ip == ip &&
	    recent[i].page == page) {
		mmnf_count(&mmnf_stats(field)->hits, 1);
		return true;
	}
	recent[i].id = w->id;
	recent[i].ip = ip;
	recent[i].page = page;
	return false;
}

/* Neighbouring pages that a plan named: were they asked for, or here? */
static void note(struct mmnf_field *field, u64 segment, u64 start, u64 nr,
		 bool here)
{
	struct mmnf_field_stats *stats = mmnf_stats(field);
	struct mmnf_walk *w = field->walk;
	u64 first = segment * w->pages_per_segment + start / mmnf_page_bytes();

	pthread_mutex_lock(&w->lock);
	if (here) {
		mmnf_pending_add(&w->found, first, nr);
	} else {
		mmnf_count(&stats->prefetched_pages, nr);
		mmnf_count(&stats->wasted_pages,
			   mmnf_pending_add(&w->pending, first, nr));
	}
	pthread_mutex_unlock(&w->lock);
}

/* A byte per page: 1 if it is where it would be read to, or on its way there. */
static void look(struct mmnf_field *field, struct mmnf_segment *s, u64 start,
		 u64 bytes, bool pointer, unsigned char *here)
{
	u64 page = mmnf_page_bytes(), i;

	if (!field->ops->cached || pointer) {
		mmnf_resident_pages(field, s, start, bytes, here);
		return;
	}
	/* In this order: what comes in between is seen all the same. */
	mmnf_ahead_look(field, s->number, start, bytes, here);
	for (i = 0; i * page < bytes; i++)
		here[i] |= mmnf_cache_has(field->cache, s->number,
					  start + i * page);
}

/* In place of where a page is: there is no more to do for it. */
#define GIVEN 2

/* Notes the pages of a part; here[] begins with it. */
static void note_part(struct mmnf_field *field, u64 segment, u64 start, u64 nr,
		      const unsigned char *here)
{
	u64 page = mmnf_page_bytes(), i, last;

	for (i = 0; i < nr; i = last) {
		for (last = i + 1; last < nr && here[last] == here[i];)
			last++;
		if (here[i] != GIVEN)
			note(field, segment, start + i * page, last - i,
			     here[i]);
	}
}

/**
 * struct ask - what is to be read, for whom
 * @pointer: through the page cache, also where the engine has an L2
 * @dense: the walk goes on through all bytes behind it, which is still to be told
 * @segment, @at: where the walk is
 * @end: of the piece of the file
 * @given: what of it is left to the kernel
 */
struct ask {
	bool pointer, dense;
	u64 segment, at, end;
	struct mmnf_given given;
};

static bool into_l2(const struct mmnf_field *field, const struct ask *ask)
{
	return field->ops->cached && !ask->pointer;
}

/* Of a dense walk: the kernel's readahead reads what it takes of a piece and beyond. */
static void give(struct mmnf_field *field, struct mmnf_segment *s, u64 start,
		 struct ask *ask)
{
	struct mmnf_given *given = &ask->given;
	u64 page = mmnf_page_bytes();

	ask->dense = false;
	mmnf_readahead(field, s, start, ask->end, true, given);
	if (given->read_end > given->read_start)
		note(field, s->number, given->read_start,
		     (given->read_end - given->read_start) / page, false);
}

/*
 * Reads what is absent of at most LOOK_PAGES pages, from the first such page to
 * the last: what lies between is passed over by whoever reads.  False: not now.
 */
static bool read_part(struct mmnf_field *field, struct mmnf_segment *s,
		      u64 start, u64 bytes, struct ask *ask)
{
	bool l2 = into_l2(field, ask);
	u64 page = mmnf_page_bytes(), nr = (bytes + page - 1) / page;
	u64 first = 0, after = nr, end, at, i;
	unsigned char here[LOOK_PAGES];

	look(field, s, start, bytes, ask->pointer, here);
	if (ask->dense && !l2)
		give(field, s, start, ask);
	for (i = 0; i < nr; i++)
		if (start + i * page >= ask->given.start &&
		    start + i * page < ask->given.end)
			here[i] = GIVEN;
	while (first < nr && here[first])
		first++;
	while (after > first && here[after - 1])
		after--;
	note_part(field, s->number, start, first, here);
	note_part(field, s->number, start + after * page, nr - after,
		  here + after);
	at = start + first * page;
	end = start + min_u64(bytes, after * page);
	for (; at < end && mmnf_hint_data(s->fd, &at, end, &bytes);
	     at += bytes) {
		bytes += at % page;
		at -= at % page;
		if (!l2)
			mmnf_hint_willneed(s->fd, at, bytes);
		else if (!mmnf_ahead_add(field, s->number, at, bytes))
			return false;
		note_part(field, s->number, at, (bytes + page - 1) / page,
			  here + (at - start) / page);
	}
	return true;
}

/* Bytes of the file, from the page in which they begin.  False: not now. */
static bool read_file(struct mmnf_field *field, struct mmnf_segment *s,
		      u64 start, u64 end, struct ask ask)
{
	u64 page = mmnf_page_bytes(), n;

	start -= start % page;
	end = min_u64(end, s->file_bytes);
	ask.end = end;
	/* A page here and there would only cut the kernel's folios. */
	if (!ask.dense && !into_l2(field, &ask) && ask.segment == s->number &&
	    mmnf_readahead_follows(field, s, ask.at, start))
		return true;
	for (; start < end; start += n) {
		n = min_u64(end - start, LOOK_PAGES * page);
		if (!read_part(field, s, start, n, &ask))
			return false;
	}
	return true;
}

/*
 * From nominal offsets to those of the file.  Tiles that are neighbours there too
 * are one piece of it: all of a range, unless somebody else wrote the segment.
 *
 *	nominal   | tile 0 | tile 1 | tile 2 |
 *	file      | tile 2 | tile 0 | tile 1 |    pieces: 0 and 1, 2
 *
 * False: not now.
 */
static bool read_range(struct mmnf_field *field, u64 segment, u64 start,
		       u64 bytes, struct ask ask)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 end = min_u64(start + bytes, g->segment_bytes), first = 0,
	    after = 0;
	struct mmnf_run run = { .segment = segment };
	struct mmnf_segment_pin pin;
	bool more = true;

	if (!bytes || mmnf_segment_pin(field, segment, &pin))
		return true;
	if (g->indexed)
		start = max_u64(start, g->data_offset);
	for (; more && start < end; start += run.bytes) {
		run.offset = start;
		run.bytes = end - start;
		if (g->indexed)
			run.bytes = min_u64(run.bytes,
					    g->tile_bytes -
						    (start - g->data_offset) %
							    g->tile_bytes);
		if (mmnf_segment_place(field, pin.s, &run))
			continue;
		if (run.offset != after) {
			more = read_file(field, pin.s, first, after, ask);
			first = run.offset;
		}
		after = run.offset + run.bytes;
	}
	more = more && read_file(field, pin.s, first, after, ask);
	mmnf_segment_unpin(field, &pin);
	return more;
}

bool mmnf_walk_read(struct mmnf_field *field, u64 segment, u64 nominal,
		    u64 bytes)
{
	struct ask ask = { .dense = true };

	return read_range(field, segment, nominal, bytes, ask);
}

/*
 * Neighbouring positions are read in one piece.  After one for which there is no room
 * there is none for those further away.
 */
static void carry_out(struct mmnf_field *field, const struct mmnf_plan *plan,
		      struct ask ask)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 i, nr = mmnf_plan_nr(plan), page = mmnf_page_bytes();
	u64 segment = 0, start = 0, end = 0;

	for (i = 0; i < nr; i++) {
		u64 pos = mmnf_plan_pos(plan, i);
		u64 in = pos / g->segment_bytes;
		u64 from = pos % g->segment_bytes / page * page;
		u64 to = min_u64(pos % g->segment_bytes + plan->span,
				 g->segment_bytes);

		to = round_up_u64(to, page);
		if (end && in == segment && from <= end && to >= start) {
			start = min_u64(start, from);
			end = max_u64(end, to);
			continue;
		}
		if (!read_range(field, segment, start, end - start, ask))
			return;
		segment = in;
		start = from;
		end = to;
	}
	read_range(field, segment, start, end - start, ask);
}

/* Under the lock: does the walk go on through all bytes, forwards, and far? */
static bool is_dense(const struct mmnf_table *table,
		     const struct mmnf_plan *plan)
{
	const struct mmnf_level *l = &plan->level[0];

	if (mmnf_table_dense(table))
		return true;
	return plan->nr_levels && l->stride == (s64)plan->span &&
	       mmnf_level_row(l, 0) > FAR_BYTES / plan->span;
}

/* Was a page read ahead, or found?  It is not any more. */
static void take(struct mmnf_field *field, u64 segment, u64 offset,
		 bool *expected, bool *found)
{
	struct mmnf_walk *w = field->walk;
	u64 page = segment * w->pages_per_segment + offset / mmnf_page_bytes();

	*expected = mmnf_pending_has(&w->pending, page);
	*found = mmnf_pending_has(&w->found, page);
	if (!*expected && !*found)
		return;
	pthread_mutex_lock(&w->lock);
	*expected = mmnf_pending_take(&w->pending, page, 1);
	*found = mmnf_pending_take(&w->found, page, 1);
	if (*expected)
		mmnf_count(&mmnf_stats(field)->used_pages, 1);
	pthread_mutex_unlock(&w->lock);
}

void mmnf_walk_touch(struct mmnf_field *field, u64 segment, u64 nominal,
		     u64 offset, const void *ip, enum mmnf_seen seen,
		     bool pointer)
{
	static __thread pid_t thread;
	struct mmnf_field_stats *stats = mmnf_stats(field);
	struct ask ask = { .pointer = pointer,
			   .segment = segment,
			   .at = offset };
	struct mmnf_access access = { 0 };
	struct mmnf_walker *walker;
	bool planned, resident, expected, found;
	struct mmnf_plan plan;

	if (!thread)
		thread = gettid();
	access.thread = (u64)thread;
	access.ip = (uintptr_t)ip;
	access.pos =
		segment * mmnf_field_geometry(field)->segment_bytes + nominal;
	take(field, segment, offset, &expected, &found);
	resident = seen == MMNF_HERE || (seen == MMNF_UNKNOWN && expected);
	access.outcome = resident ? MMNF_HIT : expected ? MMNF_LATE : MMNF_MISS;
	access.fresh = resident && (expected || found);
	mmnf_count(access.outcome == MMNF_HIT  ? &stats->hits :
		   access.outcome == MMNF_LATE ? &stats->late :
						 &stats->misses,
		   1);
	walker = mmnf_walk_walker(field);
	pthread_mutex_lock(&walker->lock);
	planned = mmnf_observe(&walker->table, &access, &plan);
	ask.dense = planned && is_dense(&walker->table, &plan);
	/* Where something is read anyway, it costs nothing to say so. */
	if (planned || access.outcome != MMNF_HIT)
		mmnf_publish_stream(field, walker);
	pthread_mutex_unlock(&walker->lock);
	if (planned)
		carry_out(field, &plan, ask);
}

void mmnf_walk_used(struct mmnf_field *field, u64 segment, u64 nominal,
		    u64 bytes)
{
	u64 page = mmnf_page_bytes(), first = nominal / page;
	struct mmnf_walk *w = field->walk;

	pthread_mutex_lock(&w->lock);
	mmnf_count(&mmnf_stats(field)->used_pages,
		   mmnf_pending_take(&w->pending,
				     segment * w->pages_per_segment + first,
				     (nominal + bytes - 1) / page - first + 1));
	pthread_mutex_unlock(&w->lock);
}

bool mmnf_walk_pending(struct mmnf_field *field)
{
	struct mmnf_walk *w = field->walk;
	bool pending;

	pthread_mutex_lock(&w->lock);
	pending = w->pending.nr;
	pthread_mutex_unlock(&w->lock);
	return pending;
}

void mmnf_walk_stats(struct mmnf_field *field, struct mmnf_field_stats *stats)
{
	struct mmnf_walk *w = field->walk;

	pthread_mutex_lock(&w->lock);
	*stats = mmnf_stats_sum(field);
	stats->accesses = stats->hits + stats->late + stats->misses;
	stats->pending_pages = w->pending.nr;
	pthread_mutex_unlock(&w->lock);
}
