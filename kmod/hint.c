// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hints of the program: read this ahead, drop that, where is it now?
 *
 * All run in the caller's context, on selections (select.c), and may be given
 * up at any page: nothing here is needed for the right bytes to be read.
 * Looking and dropping take a reference on a folio for a moment; no lock is
 * held, no mapping and no dirty page is touched.
 */
#include <linux/blkdev.h>
#include <linux/fadvise.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "internal.h"
#include "trace.h"

/*
 * Pages that are dropped, and counted before and after, at once, beginning at a multiple
 * of it: no folio is larger, so none lies in two such parts, which would drop neither.
 */
#define MMNF_EVICT_PAGES max(512UL, 1UL << (PMD_SHIFT - PAGE_SHIFT))

/* How often in one command new pages are taken from the lists that hold them. */
#define MMNF_DRAINS 8

static u64 bytes_of(u64 nr_pages)
{
	return nr_pages << PAGE_SHIFT;
}

/* PREFETCH */

struct mmnf_prefetch_walker {
	struct mmnf_walker walker;
	struct mmnf_reader reader;
};

static bool is_present(struct mmnf_reader *reader, struct xa_state *xas,
		       const struct mmnf_run *run)
{
	pgoff_t index = run->first, next;

	for (; index < run->end; index = next) {
		next = mmnf_reader_pass(reader, xas, index);
		if (next == index)
			return false;
	}
	return true;
}

/* How many of the first short runs are there. */
static u32 nr_present(struct mmnf_reader *reader, const struct mmnf_run *run,
		      u32 nr)
{
	XA_STATE(xas, &reader->file->f_mapping->i_pages, 0);
	u32 i;

	rcu_read_lock();
	for (i = 0; i < nr; i++) {
		if (run[i].end - run[i].first > XA_CHUNK_SIZE ||
		    !is_present(reader, &xas, &run[i]))
			break;
		reader->nr_resident += run[i].end - run[i].first;
	}
	rcu_read_unlock();
	return i;
}

/* Is a page of the run one whose read is yet to start, and so not there? */
static bool is_collected(const struct mmnf_reader *reader,
			 const struct mmnf_run *run)
{
	const struct mmnf_absent *a = reader->absent;
	const struct mmnf_absent *end = a + reader->nr_absent;

	for (; a < end; a++)
		if (run->first < a->first + a->nr && a->first < run->end)
			return true;
	return false;
}

static int prefetch_runs(struct mmnf_walker *walker, const struct mmnf_run *run,
			 u32 nr)
{
	struct mmnf_prefetch_walker *w =
		container_of(walker, struct mmnf_prefetch_walker, walker);
	struct mmnf_reader *reader = &w->reader;
	pgoff_t low = ULONG_MAX, high = 0;
	u32 i;

	for (i = 0; i < nr; i++) {
		i += nr_present(reader, run + i, nr - i);
		if (i == nr)
			break;
		/* Mostly they go one way. */
		if (run[i].first < high && run[i].end > low &&
		    is_collected(reader, &run[i]))
			mmnf_prefetch_flush(reader);
		low = min(low, run[i].first);
		high = max(high, run[i].end);
		mmnf_prefetch_bytes(reader, bytes_of(run[i].first),
				    bytes_of(run[i].end));
	}
	mmnf_prefetch_flush(reader);
	return 0;
}

/* Where there is nothing to wait for, a signal does not matter. */
static int wait_for(struct folio *folio)
{
	if (!folio_test_locked(folio))
		return 0;
	if (signal_pending(current) || folio_wait_locked_killable(folio))
		return -ERESTARTSYS;
	return 0;
}

struct mmnf_wait_walker {
	struct mmnf_walker walker;
	struct mmnf_extent data;
	bool refused, absent;
};

/* No page is there: does the file have data, which should have been read? */
static void look_for_data(struct mmnf_wait_walker *w, pgoff_t first,
			  pgoff_t end)
{
	struct file *file = w->walker.field->file;
	loff_t size = i_size_read(file->f_mapping->host), start, data_end;

	if (!w->refused || w->absent || bytes_of(first) >= size)
		return;
	mmnf_prefetch_find_data(file, &w->data, bytes_of(first), size, &start,
				&data_end);
	w->absent = start < min_t(u64, bytes_of(end), size);
}

/*
 * Wait until the pages that are there are read; errors are not ours.  Goes from
 * one folio to the next; what lies between is nothing to wait for.
 */
static int wait_run(struct mmnf_wait_walker *w, const struct mmnf_run *run)
{
	struct address_space *mapping = w->walker.field->file->f_mapping;
	pgoff_t next = run->first, seen = run->first;
	struct folio_batch batch;
	struct folio *folio;
	unsigned int i;
	int ret = 0;

	folio_batch_init(&batch);
	while (!ret &&
	       filemap_get_folios(mapping, &next, run->end - 1, &batch)) {
		for (i = 0; i < folio_batch_count(&batch) && !ret; i++) {
			folio = batch.folios[i];
			if (folio->index > seen)
				look_for_data(w, seen, folio->index);
			seen = folio->index + folio_nr_pages(folio);
			ret = wait_for(folio);
		}
		folio_batch_release(&batch);
		cond_resched();
		if (!ret && mmnf_is_cancelled())
			ret = -ERESTARTSYS;
	}
	if (!ret && seen < run->end)
		look_for_data(w, seen, run->end);
	return ret;
}

static int wait_runs(struct mmnf_walker *walker, const struct mmnf_run *run,
		     u32 nr)
{
	struct mmnf_wait_walker *w =
		container_of(walker, struct mmnf_wait_walker, walker);
	int ret = 0;

	for (; nr && !ret; run++, nr--)
		ret = wait_run(w, run);
	return ret;
}

/*
 * After the walk of @reading, with its memory: there may be no more.
 * @refused: for some there was no memory: -ENOMEM if a page is absent.  What was taken
 * away again has been there.
 */
static int wait_all(const struct mmnf_walker *reading,
		    const struct mmnf_select *select, bool refused)
{
	struct mmnf_wait_walker w = {
		.walker = { .field = reading->field,
			    .runs = wait_runs,
			    .items = reading->items },
		.refused = refused,
	};
	int ret = mmnf_select_walk(select, &w.walker);

	return ret || !w.absent ? ret : -ENOMEM;
}

int mmnf_hint_prefetch(struct mmnf_field *field,
		       struct mmnf_ioc_prefetch *prefetch, bool wait)
{
	struct mmnf_extent data = {};
	struct mmnf_prefetch_walker w = {
		.walker = { .field = field, .runs = prefetch_runs },
		.reader = { .field = field,
			    .file = field->file,
			    .data = &data,
			    .waits = wait },
	};
	struct blk_plug plug;
	int ret;

	if (!READ_ONCE(field->has_cache))
		return -EOPNOTSUPP;
	blk_start_plug(&plug);
	w.reader.plug = &plug;
	w.reader.first_alone = true;
	ret = mmnf_select_walk(&prefetch->select, &w.walker);
	w.reader.plug = NULL;
	blk_finish_plug(&plug);

	spin_lock(&field->lock);
	field->stats.out_manual_pages += w.reader.nr_queued;
	spin_unlock(&field->lock);
	prefetch->out_queued_bytes = bytes_of(w.reader.nr_queued);
	prefetch->out_resident_bytes = bytes_of(w.reader.nr_resident);
	prefetch->out_hole_bytes = bytes_of(w.reader.nr_hole);
	if (!ret && wait &&
	    (w.reader.nr_queued || w.reader.nr_refused || w.reader.unread))
		ret = wait_all(&w.walker, &prefetch->select,
			       w.reader.nr_refused);
	mmnf_select_end(&w.walker);
	return ret;
}

/* Looking */

/**
 * struct mmnf_look - pages of a range that are resident
 * @nr_resident: all, also those being read
 * @nr_used: of these: mapped, or touched since they came
 * @nr_dirty: of these: not yet on storage
 * @nr_mapped: of these, clean: mapped by a process
 * @nr_single: of these, neither dirty nor mapped: folios of one page
 * @single: one of those
 */
struct mmnf_look {
	u64 nr_resident, nr_used, nr_dirty, nr_mapped, nr_single;
	pgoff_t single;
};

static u64 pages_within(struct folio *folio, pgoff_t first, pgoff_t end)
{
	pgoff_t from = max(folio->index, first);
	pgoff_t to = min(folio->index + folio_nr_pages(folio), end);

	/* A folio that was truncated meanwhile may have any index. */
	return to > from ? to - from : 0;
}

static void look_at_folio(struct mmnf_look *look, struct folio *folio, u64 nr)
{
	bool mapped = folio_mapped(folio);

	look->nr_resident += nr;
	if (mapped || folio_test_referenced(folio) || folio_test_active(folio))
		look->nr_used += nr;
	if (folio_test_dirty(folio) || folio_test_writeback(folio)) {
		look->nr_dirty += nr;
	} else if (mapped) {
		look->nr_mapped += nr;
	} else if (!folio_test_large(folio)) {
		look->nr_single += nr;
		look->single = folio->index;
	}
}

/*
 * Look at the folios of [first, end), and let @absent see what lies between; no
 * lock is held then.
 */
static int look_at(struct address_space *mapping, pgoff_t first, pgoff_t end,
		   struct mmnf_look *look,
		   void (*absent)(void *arg, pgoff_t first, pgoff_t end),
		   void *arg)
{
	struct folio_batch batch;
	pgoff_t next = first;
	unsigned int i;

	folio_batch_init(&batch);
	while (filemap_get_folios(mapping, &next, end - 1, &batch)) {
		for (i = 0; i < folio_batch_count(&batch); i++) {
			struct folio *folio = batch.folios[i];
			u64 nr = pages_within(folio, first, end);
			pgoff_t index = clamp(folio->index, first, end);

			if (!nr)
				continue;
			if (absent && first < index)
				absent(arg, first, index);
			look_at_folio(look, folio, nr);
			first = index + nr;
		}
		folio_batch_release(&batch);
		cond_resched();
		if (mmnf_is_cancelled())
			return -ERESTARTSYS;
	}
	if (absent && first < end)
		absent(arg, first, end);
	return 0;
}

/* EVICT */

struct mmnf_evict_walker {
	struct mmnf_walker walker;
	struct mmnf_look stayed;
	u64 nr_evicted;
	u32 nr_drains;
};

/* The first page of [first, end) that is resident; @end if none is. */
static pgoff_t first_resident(struct address_space *mapping, pgoff_t first,
			      pgoff_t end)
{
	struct folio_batch batch;
	pgoff_t next = first;

	folio_batch_init(&batch);
	if (filemap_get_folios(mapping, &next, end - 1, &batch))
		end = clamp(batch.folios[0]->index, first, end);
	folio_batch_release(&batch);
	return end;
}

/* What was read ahead, not used, and is gone now, is given up. */
static void forget(void *arg, pgoff_t first, pgoff_t end)
{
	struct mmnf_field *field = arg;

	spin_lock(&field->lock);
	field->stats.out_wasted_pages +=
		mmnf_pending_take(&field->pending, first, end - first);
	spin_unlock(&field->lock);
}

static int evict_chunk(struct mmnf_evict_walker *w, pgoff_t first, pgoff_t end)
{
	struct mmnf_field *field = w->walker.field;
	struct address_space *mapping = field->file->f_mapping;
	struct mmnf_look before = {}, after = {};
	u64 evicted;
	int ret;

	ret = look_at(mapping, first, end, &before, NULL, NULL);
	if (ret)
		return ret;
	invalidate_mapping_pages(mapping, first, end - 1);
	ret = look_at(mapping, first, end, &after, forget, field);
	/*
	 * A page that was read just now is still held by the list on which a CPU
	 * collects new pages; large folios are not collected.  fadvise empties
	 * the lists of this CPU, and of all if that does not help; asked about
	 * one clean page it does nothing else.
	 */
	while (!ret && after.nr_single && w->nr_drains < MMNF_DRAINS) {
		w->nr_drains++;
		vfs_fadvise(field->file, bytes_of(after.single), PAGE_SIZE,
			    POSIX_FADV_DONTNEED);
		invalidate_mapping_pages(mapping, first, end - 1);
		memset(&after, 0, sizeof(after));
		ret = look_at(mapping, first, end, &after, forget, field);
	}
	/* Looked at in part, it tells nothing. */
	if (ret)
		return ret;
	evicted =
		before.nr_resident - min(before.nr_resident, after.nr_resident);
	w->nr_evicted += evicted;
	w->stayed.nr_resident += after.nr_resident;
	w->stayed.nr_dirty += after.nr_dirty;
	w->stayed.nr_mapped += after.nr_mapped;
	trace_mmnf_evict(field->id, first, end - first, evicted,
			 after.nr_resident);
	return 0;
}

static int evict_runs(struct mmnf_walker *walker, const struct mmnf_run *run,
		      u32 nr)
{
	struct mmnf_evict_walker *w =
		container_of(walker, struct mmnf_evict_walker, walker);
	struct address_space *mapping = walker->field->file->f_mapping;
	pgoff_t first, to;
	int ret = 0;

	for (; nr; run++, nr--) {
		for (first = run->first; !ret && first < run->end; first = to) {
			first = first_resident(mapping, first, run->end);
			to = min(round_down(first, MMNF_EVICT_PAGES) +
					 MMNF_EVICT_PAGES,
				 run->end);
			if (first < run->end)
				ret = evict_chunk(w, first, to);
		}
	}
	return ret;
}

int mmnf_hint_evict(struct mmnf_field *field, struct mmnf_ioc_evict *evict)
{
	struct mmnf_evict_walker w = {
		.walker = { .field = field, .runs = evict_runs },
	};
	int ret;

	if (!READ_ONCE(field->has_cache))
		return -EOPNOTSUPP;
	ret = mmnf_select_walk(&evict->select, &w.walker);
	mmnf_select_end(&w.walker);

	spin_lock(&field->lock);
	field->stats.out_evicted_pages += w.nr_evicted;
	spin_unlock(&field->lock);
	evict->out_evicted_bytes = bytes_of(w.nr_evicted);
	evict->out_dirty_bytes = bytes_of(w.stayed.nr_dirty);
	evict->out_mapped_bytes = bytes_of(w.stayed.nr_mapped);
	evict->out_busy_bytes = bytes_of(
		w.stayed.nr_resident - w.stayed.nr_dirty - w.stayed.nr_mapped);
	return ret;
}

/* RESIDENCY */

struct mmnf_residency_walker {
	struct mmnf_walker walker;
	struct mmnf_extent data;
	struct mmnf_state item, total;
	struct mmnf_state __user *states;
};

/* Cold where the file has data. */
static void add_absent(void *arg, pgoff_t first, pgoff_t end)
{
	struct mmnf_residency_walker *w = arg;
	loff_t size = w->walker.size_bytes, start, data_end;
	pgoff_t cold;

	while (first < end && !mmnf_is_cancelled()) {
		mmnf_prefetch_find_data(w->walker.field->file, &w->data,
					bytes_of(first), size, &start,
					&data_end);
		cold = start < size ? min_t(u64, start >> PAGE_SHIFT, end) :
				      end;
		w->item.hole_bytes += bytes_of(cold - first);
		first = min_t(u64, DIV_ROUND_UP_ULL(data_end, PAGE_SIZE), end);
		first = max(first, cold);
		w->item.cold_bytes += bytes_of(first - cold);
	}
}

static int residency_runs(struct mmnf_walker *walker,
			  const struct mmnf_run *run, u32 nr)
{
	struct mmnf_residency_walker *w =
		container_of(walker, struct mmnf_residency_walker, walker);
	struct mmnf_look look = {};
	int ret = 0;

	for (; nr && !ret; run++, nr--)
		ret = look_at(walker->field->file->f_mapping, run->first,
			      run->end, &look, add_absent, w);
	w->item.hot_bytes += bytes_of(look.nr_used);
	w->item.warm_bytes += bytes_of(look.nr_resident - look.nr_used);
	return ret;
}

static int residency_item(struct mmnf_walker *walker)
{
	struct mmnf_residency_walker *w =
		container_of(walker, struct mmnf_residency_walker, walker);

	w->total.hot_bytes += w->item.hot_bytes;
	w->total.warm_bytes += w->item.warm_bytes;
	w->total.cold_bytes += w->item.cold_bytes;
	w->total.hole_bytes += w->item.hole_bytes;
	if (w->states && copy_to_user(w->states++, &w->item, sizeof(w->item)))
		return -EFAULT;
	memset(&w->item, 0, sizeof(w->item));
	return 0;
}

/*
 * What is resident shows what others read, so mincore() and cachestat() tell
 * those only who could know it anyway.
 */
static bool may_look(struct file *file)
{
	return mmnf_compat_owner(file) || !file_permission(file, MAY_WRITE);
}

int mmnf_hint_residency(struct mmnf_field *field,
			struct mmnf_ioc_residency *residency)
{
	struct mmnf_residency_walker w = {
		.walker = { .field = field,
			    .runs = residency_runs,
			    .item = residency_item },
		.states = u64_to_user_ptr(residency->states),
	};
	int ret;

	if (!READ_ONCE(field->has_cache))
		return -EOPNOTSUPP;
	if (!may_look(field->file))
		return -EPERM;
	ret = mmnf_select_walk(&residency->select, &w.walker);
	mmnf_select_end(&w.walker);
	residency->out_total = w.total;
	return ret;
}
