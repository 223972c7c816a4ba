// SPDX-License-Identifier: GPL-2.0-only
/*
 * Plans and ranges become page-cache reads of the attached file.
 *
 * Advisory: a read that cannot be started or fails is dropped; the access that
 * needs the data reports the error.  Reads are started for absent pages only,
 * never beyond the end of the file and never in a hole.  Pages are inserted by
 * the kernel's own readahead, so truncate and hole punch see nothing unusual.
 *
 * The worker runs in process context, one plan after the other per field,
 * charged to the memory and I/O groups of the mapping that caused the plan.
 */
#include <linux/backing-dev.h>
#include <linux/blkdev.h>
#include <linux/kthread.h>
#include <linux/memcontrol.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "internal.h"
#include "trace.h"

/* Pages handed to the readahead code at once; between, it may be cancelled. */
#define MMNF_CHUNK_PAGES 512

/* A walk's share of memory. */
#define MMNF_ROOM_PART 8

static struct workqueue_struct *mmnf_prefetch_wq;

int mmnf_prefetch_init(void)
{
	mmnf_prefetch_wq = alloc_workqueue(
		"mmnf", WQ_UNBOUND | WQ_HIGHPRI | WQ_FREEZABLE, 0);
	return mmnf_prefetch_wq ? 0 : -ENOMEM;
}

void mmnf_prefetch_exit(void)
{
	destroy_workqueue(mmnf_prefetch_wq);
}

/*
 * For mmnf_reader_pass(), from the root: the folio at @index or NULL, and the page behind
 * those that its entry holds, which is the end of a slot.
 */
struct folio *mmnf_prefetch_load(struct xa_state *xas, pgoff_t index,
				 pgoff_t *next)
{
	void *entry;

	do {
		xas_set(xas, index);
		entry = xas_load(xas);
	} while (xas_retry(xas, entry));
	if (!entry || xa_is_value(entry) || xa_is_internal(entry))
		return NULL;
	if (!xas_not_node(xas->xa_node))
		*next = (index | ((1UL << xas->xa_node->shift) - 1)) + 1;
	return entry;
}

/* Passes over pages from @first to @end; the first that is not there, or @end or more. */
static pgoff_t pass(struct mmnf_reader *reader, struct xa_state *xas,
		    pgoff_t first, pgoff_t end)
{
	pgoff_t next;

	for (; first < end; first = next) {
		next = mmnf_reader_pass(reader, xas, first);
		if (next == first)
			break;
	}
	return first;
}

/* The first page at or after @first that is there, or @end. */
static pgoff_t next_present(struct address_space *mapping, pgoff_t first,
			    pgoff_t end)
{
	XA_STATE(xas, &mapping->i_pages, first);
	pgoff_t found = end;
	void *entry;

	rcu_read_lock();
	xas_for_each(&xas, entry, end - 1)
	{
		if (xas_retry(&xas, entry) || xa_is_value(entry))
			continue;
		found = max_t(pgoff_t, xas.xa_index, first);
		break;
	}
	rcu_read_unlock();
	return found;
}

/* How many pages of an extent are there; those that are not are taken back. */
static unsigned long take_back(struct mmnf_reader *reader,
			       const struct mmnf_absent *a)
{
	struct mmnf_field *field = reader->field;
	pgoff_t end = a->first + a->nr, first = a->first, next;
	unsigned long nr = a->nr;

	for (;; first = next) {
		XA_STATE(xas, &reader->file->f_mapping->i_pages, first);

		rcu_read_lock();
		first = pass(reader, &xas, first, end);
		rcu_read_unlock();
		if (first >= end)
			return nr;
		next = next_present(reader->file->f_mapping, first, end);
		nr -= next - first;
		if (!reader->predicted)
			continue;
		spin_lock(&field->lock);
		field->stats.out_prefetched_pages -=
			mmnf_pending_take(&field->pending, first, next - first);
		spin_unlock(&field->lock);
	}
}

/*
 * Start the reads of an extent.  Readahead does not tell what it found no memory for,
 * or no room in a limit of the group.  From 6.9 it stops there.  Kernels before go on
 * behind such a page: so the pages of the file are counted, too.  That count is the
 * whole file's, and pages that others add meanwhile may hide those that are missing:
 * who waits has the extent looked at whatever it says.
 * Return: how many reads were started.
 */
static unsigned long start_reads(struct mmnf_reader *reader,
				 const struct mmnf_absent *a)
{
	struct address_space *mapping = reader->file->f_mapping;
	struct file_ra_state ra = { .ra_pages = a->nr };
	DEFINE_READAHEAD(ractl, reader->file, &ra, mapping, a->first);
	unsigned long before = READ_ONCE(mapping->nrpages);

	mmnf_compat_ra(&ractl, a->nr);
	if (likely(!reader->waits &&
		   readahead_index(&ractl) >= a->first + a->nr &&
		   (long)(READ_ONCE(mapping->nrpages) - before) >= (long)a->nr))
		return a->nr;
	return take_back(reader, a);
}

/*
 * Start the reads that were collected.  They are accounted before they start: the
 * consumer may touch a page the moment it appears.  What could not be started is
 * taken back.
 */
void mmnf_prefetch_flush(struct mmnf_reader *reader)
{
	struct mmnf_field *field = reader->field;
	unsigned long started;
	u32 i;

	/* Their requests are allocated together. */
	if (reader->plug)
		reader->plug->nr_ios = max(reader->nr_absent, 1U);
	if (reader->predicted && reader->nr_absent) {
		spin_lock(&field->lock);
		for (i = 0; i < reader->nr_absent; i++) {
			struct mmnf_absent *a = &reader->absent[i];

			field->stats.out_prefetched_pages += a->nr;
			field->stats.out_wasted_pages += mmnf_pending_add(
				&field->pending, a->first, a->nr);
		}
		spin_unlock(&field->lock);
	}
	for (i = 0; i < reader->nr_absent; i++) {
		struct mmnf_absent *a = &reader->absent[i];

		started = start_reads(reader, a);
		reader->nr_queued += started;
		reader->nr_refused += a->nr - started;
		trace_mmnf_prefetch(field->id, a->first, started,
				    reader->predicted);
	}
	reader->nr_absent = 0;
	cond_resched();
}

static void read_absent(struct mmnf_reader *reader, pgoff_t first,
			unsigned long nr)
{
	reader->absent[reader->nr_absent].first = first;
	reader->absent[reader->nr_absent].nr = nr;
	if (++reader->nr_absent < MMNF_NR_ABSENT && !reader->first_alone)
		return;
	mmnf_prefetch_flush(reader);
	if (reader->first_alone) {
		reader->first_alone = false;
		blk_finish_plug(reader->plug);
		blk_start_plug(reader->plug);
	}
}

/* Start reading [first, end), of which the first page is absent. */
static pgoff_t read_pages(struct mmnf_reader *reader, pgoff_t first,
			  pgoff_t end)
{
	pgoff_t next = first + 1;

	if (next < end)
		next = next_present(reader->file->f_mapping, next,
				    min(end, first + MMNF_CHUNK_PAGES));
	read_absent(reader, first, next - first);
	return next;
}

/*
 * The next stretch of data at or after @pos, from the file's own map.  A file
 * with as many blocks as bytes has no holes and is not asked; nor is one whose
 * last answer, kept in @known, does.
 */
void mmnf_prefetch_find_data(struct file *file, struct mmnf_extent *known,
			     loff_t pos, loff_t size, loff_t *start,
			     loff_t *end)
{
	struct inode *inode = file_inode(file);
	loff_t data, hole;

	*start = pos;
	*end = size;
	if (!S_ISREG(inode->i_mode) ||
	    (u64)inode->i_blocks << SECTOR_SHIFT >= size)
		return;
	if (pos >= known->start && pos < known->end) {
		*end = known->end;
		return;
	}
	data = vfs_llseek(file, pos, SEEK_DATA);
	if (data == -ENXIO) {
		*start = size;
		return;
	}
	if (data < 0)
		return;
	hole = vfs_llseek(file, data, SEEK_HOLE);
	*start = max(data, pos);
	/* Punched in between, or a file server that makes no sense: go on. */
	*end = hole > *start ? hole : size;
	known->start = *start;
	known->end = *end;
}

/* Pass over the pages that are there: the file system is not asked about them. */
static u64 skip_present(struct mmnf_reader *reader, u64 start, u64 end)
{
	pgoff_t first = start >> PAGE_SHIFT, next = first, to;
	pgoff_t page_end = DIV_ROUND_UP_ULL(end, PAGE_SIZE);
	XA_STATE(xas, &reader->file->f_mapping->i_pages, first);

	for (;;) {
		to = min(round_down(next + MMNF_CHUNK_PAGES, MMNF_CHUNK_PAGES),
			 page_end);
		rcu_read_lock();
		next = min(pass(reader, &xas, next, to), to);
		rcu_read_unlock();
		if (next < to || to == page_end)
			break;
		xas_reset(&xas);
		cond_resched();
	}
	reader->nr_resident += next - first;
	return max(start, (u64)next << PAGE_SHIFT);
}

/*
 * Read what is absent and not a hole of bytes [start, end).  Stops when cancelled.  The
 * last of the reads may not have started: mmnf_prefetch_flush() does that.
 */
void mmnf_prefetch_bytes(struct mmnf_reader *reader, u64 start, u64 end)
{
	loff_t size = i_size_read(reader->file->f_mapping->host);
	loff_t data_start, data_end;
	pgoff_t first, last;

	if (end > size)
		end = size;
	while (start < end && !mmnf_is_cancelled()) {
		start = skip_present(reader, start, end);
		if (start >= end)
			return;
		mmnf_prefetch_find_data(reader->file, reader->data, start, size,
					&data_start, &data_end);
		first = start >> PAGE_SHIFT;
		if (data_start >= end) {
			reader->nr_hole += DIV_ROUND_UP(end, PAGE_SIZE) - first;
			return;
		}
		reader->nr_hole += (data_start >> PAGE_SHIFT) - first;
		data_end = min_t(u64, data_end, end);
		first = data_start >> PAGE_SHIFT;
		last = (data_end - 1) >> PAGE_SHIFT;
		/* Behind a hole there may be a page. */
		if (first << PAGE_SHIFT > start)
			start = (u64)first << PAGE_SHIFT;
		else
			start = (u64)read_pages(reader, first, last + 1)
				<< PAGE_SHIFT;
	}
}

/* A range of a plan; neighbours in either direction are joined. */
static void read_position(struct mmnf_reader *reader, u64 pos, u64 span)
{
	u64 from = round_down(pos, PAGE_SIZE);
	u64 to = round_up(pos + span, PAGE_SIZE);

	if (from <= reader->end && to >= reader->start && reader->end) {
		reader->start = min(reader->start, from);
		reader->end = max(reader->end, to);
		return;
	}
	if (reader->end)
		mmnf_prefetch_bytes(reader, reader->start, reader->end);
	reader->start = from;
	reader->end = to;
}

/*
 * The page that a fault waits for, on its own and before all that the plan names: a
 * thread that shares its CPU with the worker has not come to its read yet.  It is
 * no read ahead.
 */
static void read_demand(struct mmnf_reader *reader, pgoff_t pgoff)
{
	u64 start = (u64)pgoff << PAGE_SHIFT;

	reader->predicted = false;
	mmnf_prefetch_bytes(reader, start, start + PAGE_SIZE);
	mmnf_prefetch_flush(reader);
	reader->predicted = true;
}

/* Does anybody have the mapping that a plan is for?  Nobody waits for the others. */
static bool is_mapped(const struct mmnf_queued_plan *queued)
{
	return atomic_read(&queued->mapping->nr_areas);
}

/* A walk backwards is read forwards where its positions are neighbours. */
static void read_plan(struct mmnf_reader *reader,
		      const struct mmnf_queued_plan *queued)
{
	const struct mmnf_plan *plan = &queued->plan;
	u64 nr = mmnf_plan_nr(plan), n = 0, row, pos;
	struct blk_plug plug;

	blk_start_plug(&plug);
	reader->plug = &plug;
	while (n < nr && is_mapped(queued)) {
		pos = mmnf_plan_pos(plan, n);
		for (row = mmnf_plan_row(plan, n); row && is_mapped(queued);
		     row--, n++) {
			read_position(reader, pos, plan->span);
			pos += (u64)plan->level[0].stride;
		}
	}
	if (reader->end && is_mapped(queued))
		mmnf_prefetch_bytes(reader, reader->start, reader->end);
	mmnf_prefetch_flush(reader);
	reader->plug = NULL;
	blk_finish_plug(&plug);
}

static void associate_blkcg(struct cgroup_subsys_state *css)
{
#ifdef CONFIG_BLK_CGROUP
	kthread_associate_blkcg(css);
#endif
}

/*
 * One walk may fill an eighth of the memory that is to be had, and of each limit of
 * its group: what is read ahead must not push out itself, nor what others need.
 */
static u64 room_for(struct mem_cgroup *memcg)
{
	u64 pages = max(si_mem_available(), 0L);
#ifdef CONFIG_MEMCG
	struct mem_cgroup *group;

	for (group = memcg; group; group = parent_mem_cgroup(group))
		pages = min3(pages, (u64)READ_ONCE(group->memory.max),
			     (u64)READ_ONCE(group->memory.high));
#endif
	return max(pages / MMNF_ROOM_PART, 1ULL);
}

static bool queue_pop(struct mmnf_field *field, struct mmnf_queued_plan *out)
{
	bool any;

	spin_lock(&field->lock);
	any = field->nr_queued;
	if (any) {
		*out = field->queue[field->queue_head];
		field->queue_head = (field->queue_head + 1) % MMNF_QUEUE_PLANS;
		field->nr_queued--;
	}
	spin_unlock(&field->lock);
	return any;
}

void mmnf_prefetch_work(struct work_struct *work)
{
	struct mmnf_field *field = container_of(work, struct mmnf_field, work);
	struct mmnf_queued_plan queued;
	struct mem_cgroup *memcg;

	while (queue_pop(field, &queued)) {
		struct mmnf_reader reader = {
			.field = field,
			.file = queued.mapping->file,
			.data = &field->data,
			.predicted = true,
		};

		WRITE_ONCE(field->table.room, room_for(queued.mapping->memcg));
		associate_blkcg(queued.mapping->blkcg);
		memcg = set_active_memcg(queued.mapping->memcg);
		if (queued.demand != MMNF_NO_DEMAND)
			read_demand(&reader, queued.demand);
		read_plan(&reader, &queued);
		set_active_memcg(memcg);
		associate_blkcg(NULL);
		/*
		 * Maybe the last reference to the device's file; its release
		 * waits for this work to end before it frees the field.
		 */
		mmnf_vm_put(queued.mapping);
	}
}

/*
 * Under field->lock, in a fault; @demand is the page that it is going to wait for,
 * or MMNF_NO_DEMAND.  Return: true if the worker has to be kicked.
 * A full queue drops the plan: the worker is behind.  What is still wanted of it by the
 * next touch is planned again then.
 */
bool mmnf_prefetch_queue(struct mmnf_mapping *mapping,
			 const struct mmnf_plan *plan, pgoff_t demand)
{
	struct mmnf_field *field = mapping->field;
	u32 tail;

	lockdep_assert_held(&field->lock);
	field->stats.out_plans++;
	if (field->nr_queued == MMNF_QUEUE_PLANS) {
		field->stats.out_dropped_plans++;
		return false;
	}
	tail = (field->queue_head + field->nr_queued) % MMNF_QUEUE_PLANS;
	field->queue[tail].mapping = mapping;
	field->queue[tail].plan = *plan;
	field->queue[tail].demand = demand;
	field->nr_queued++;
	refcount_inc(&mapping->ref);
	return true;
}

void mmnf_prefetch_kick(struct mmnf_field *field)
{
	queue_work(mmnf_prefetch_wq, &field->work);
}
