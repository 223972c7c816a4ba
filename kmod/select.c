// SPDX-License-Identifier: GPL-2.0-only
/*
 * Selections: what PREFETCH, EVICT and RESIDENCY are asked about becomes ranges
 * of pages.
 *
 * A box of an array in a file is a nest of runs.  The axes are sorted by the
 * distance of neighbours; as long as no whole page fits between two runs, an
 * axis makes the run longer, and what is left over is counted through:
 *
 *	delta[1]      |<------------------------->|
 *	delta[0]      |<---->|                    |
 *	file    ......xxx....xxx....xxx...........xxx....xxx....xxx......
 *	runs          |<---- run ------>|         |<---- run ------>|
 *	pages      |       |       |       |       |       |       |
 *
 * Neighbours that share or touch a page are joined before they are handed on, so
 * that such a page is seen once.
 *
 * Memory is one page, whatever the length of the list.  No lock is held, and
 * between runs the walk can be cancelled.
 */
#include <linux/overflow.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

/* How many steps of a box between two looks at the scheduler and for a cancellation. */
#define MMNF_STEPS 1024

/* Neighbours along an axis of a box: @nr of them, @delta bytes apart. */
struct mmnf_axis {
	u64 delta;
	u64 nr;
};

static int may_go_on(void)
{
	cond_resched();
	return mmnf_is_cancelled() ? -ERESTARTSYS : 0;
}

/* Hand on what has been gathered. */
static int flush(struct mmnf_walker *walker)
{
	u32 nr = walker->nr;
	int ret;

	walker->nr = 0;
	ret = nr ? walker->runs(walker, walker->run, nr) : 0;
	return ret ? ret : may_go_on();
}

static int add(struct mmnf_walker *walker, u64 start, u64 end)
{
	pgoff_t first, page_end;
	struct mmnf_run *last;
	int ret;

	end = min(end, walker->size_bytes);
	if (start >= end)
		return 0;
	first = start >> PAGE_SHIFT;
	page_end = ((end - 1) >> PAGE_SHIFT) + 1;
	if (walker->nr) {
		last = &walker->run[walker->nr - 1];
		if (first <= last->end && page_end >= last->first) {
			last->first = min(last->first, first);
			last->end = max(last->end, page_end);
			return 0;
		}
	}
	if (walker->nr == MMNF_RUNS_AT_ONCE) {
		ret = flush(walker);
		if (ret)
			return ret;
	}
	walker->run[walker->nr++] =
		(struct mmnf_run) { .first = first, .end = page_end };
	return 0;
}

static int select_range(struct mmnf_walker *walker, const void *item)
{
	const struct mmnf_range *range = item;
	u64 end;

	if (check_add_overflow(range->start_bytes, range->len_bytes, &end))
		return -EOVERFLOW;
	return add(walker, range->start_bytes, end);
}

static int select_record(struct mmnf_walker *walker, const void *item)
{
	const struct mmnf_ioc_attach *g = &walker->field->geometry;
	const u64 *record = item;
	u64 start, end;

	if (!g->record_bytes)
		return -EINVAL;
	if (check_mul_overflow(*record, g->record_bytes, &start) ||
	    check_add_overflow(start, g->data_offset_bytes, &start))
		return -EOVERFLOW;
	if (start >= walker->field->table.end)
		return -EINVAL;
	/* The last record may be cut; no overflow, ATTACH limits its size. */
	end = min(start + g->record_bytes, walker->field->table.end);
	return add(walker, start, end);
}

/*
 * One axis of a box.  Moves *@start to the lowest byte along it.  ATTACH has
 * checked that the whole array is inside the file, so nothing overflows here
 * that lies inside the array.
 */
static int box_axis(const struct mmnf_ioc_attach *g,
		    const struct mmnf_ioc_box *box, u32 i, u64 *start,
		    struct mmnf_axis *axis)
{
	s64 stride = g->stride_bytes[i], step = box->step[i] ?: 1;
	u64 at = box->start[i], distance = step < 0 ? -(u64)step : step, reach;

	if (at >= g->extent[i])
		return -EINVAL;
	if (check_mul_overflow(box->count[i] - 1, distance, &reach))
		return -EOVERFLOW;
	if (step < 0 ? reach > at : reach >= g->extent[i] - at)
		return -EINVAL;
	/* The end of the axis that comes first in the file. */
	if ((step < 0) != (stride < 0))
		at = step < 0 ? at - reach : at + reach;
	*start += (u64)stride * at;
	axis->nr = box->count[i];
	axis->delta = (stride < 0 ? -(u64)stride : stride) * distance;
	return 0;
}

static void insert_sorted(struct mmnf_axis *axes, u32 nr, struct mmnf_axis axis)
{
	for (; nr && axes[nr - 1].delta > axis.delta; nr--)
		axes[nr] = axes[nr - 1];
	axes[nr] = axis;
}

static int select_runs(struct mmnf_walker *walker, u64 start, u64 run,
		       const struct mmnf_axis *axes, u32 nr_axes)
{
	u64 at[MMNF_MAX_NDIM] = {}, nr_runs = 1, n;
	int ret;
	u32 i;

	for (i = 0; i < nr_axes; i++)
		if (check_mul_overflow(nr_runs, axes[i].nr, &nr_runs) ||
		    nr_runs > MMNF_MAX_RUNS)
			return -EINVAL;
	for (n = 0; n < nr_runs; n++) {
		ret = add(walker, start, start + run);
		if (!ret && n % MMNF_STEPS == MMNF_STEPS - 1)
			ret = may_go_on();
		if (ret)
			return ret;
		for (i = 0; i < nr_axes; i++) {
			start += axes[i].delta;
			if (++at[i] < axes[i].nr)
				break;
			start -= axes[i].delta * axes[i].nr;
			at[i] = 0;
		}
	}
	return 0;
}

static int select_box(struct mmnf_walker *walker, const void *item)
{
	const struct mmnf_ioc_attach *g = &walker->field->geometry;
	u64 start = g->data_offset_bytes, run = g->element_bytes;
	struct mmnf_axis axes[MMNF_MAX_NDIM], axis;
	const struct mmnf_ioc_box *box = item;
	u32 nr_axes = 0, i, inner;
	bool empty = false;
	int ret;

	for (i = 0; i < MMNF_MAX_NDIM; i++) {
		if (i < g->ndim)
			empty |= !box->count[i];
		else if (box->start[i] || box->count[i] || box->step[i])
			return -EINVAL;
	}
	if (empty)
		return 0;
	for (i = 0; i < g->ndim; i++) {
		ret = box_axis(g, box, i, &start, &axis);
		if (ret)
			return ret;
		if (axis.nr > 1 && axis.delta)
			insert_sorted(axes, nr_axes++, axis);
	}
	for (inner = 0; inner < nr_axes; inner++) {
		if (axes[inner].delta >= run + PAGE_SIZE)
			break;
		run += axes[inner].delta * (axes[inner].nr - 1);
	}
	return select_runs(walker, start, run, axes + inner, nr_axes - inner);
}

static const struct {
	size_t bytes;
	int (*fn)(struct mmnf_walker *walker, const void *item);
} kinds[] = {
	[MMNF_SELECT_RANGES] = { sizeof(struct mmnf_range), select_range },
	[MMNF_SELECT_BOXES] = { sizeof(struct mmnf_ioc_box), select_box },
	[MMNF_SELECT_RECORDS] = { sizeof(u64), select_record },
};

static int select_item(struct mmnf_walker *walker, u32 kind, const void *item)
{
	int ret = kinds[kind].fn(walker, item);

	if (ret || !walker->item)
		return ret;
	ret = flush(walker);
	return ret ? ret : walker->item(walker);
}

/* Where pages that are being read fill a group: an error and no dead process. */
static int make_room(struct mmnf_walker *walker, u32 nr, size_t bytes)
{
	if (!walker->items)
		walker->items =
			kmalloc_array(nr, bytes,
				      GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL |
					      __GFP_NOWARN);
	return walker->items ? 0 : -ENOMEM;
}

/*
 * The walker may go again over the same selection; mmnf_select_end() afterwards.
 * Return: 0; -EOPNOTSUPP, -EINVAL, -EOVERFLOW or -EFAULT for a wrong selection;
 * -ENOMEM from the first walk alone; -ERESTARTSYS when it was cancelled; or what an
 * operation of the walker returned.
 */
int mmnf_select_walk(const struct mmnf_select *select,
		     struct mmnf_walker *walker)
{
	struct inode *inode = walker->field->file->f_mapping->host;
	u32 at_once, done, nr, i;
	size_t bytes;
	int ret;

	if (select->kind >= ARRAY_SIZE(kinds))
		return -EOPNOTSUPP;
	if (select->nr_items > MMNF_MAX_ITEMS)
		return -EINVAL;
	if (!select->nr_items)
		return 0;
	bytes = kinds[select->kind].bytes;
	at_once = min_t(u32, PAGE_SIZE / bytes, select->nr_items);
	ret = make_room(walker, at_once, bytes);
	walker->nr = 0;
	walker->size_bytes = i_size_read(inode);
	for (done = 0; !ret && done < select->nr_items; done += nr) {
		nr = min(at_once, select->nr_items - done);
		if (copy_from_user(walker->items,
				   u64_to_user_ptr(select->items + done * bytes),
				   nr * bytes))
			ret = -EFAULT;
		for (i = 0; !ret && i < nr; i++)
			ret = select_item(walker, select->kind,
					  walker->items + i * bytes);
		if (!ret)
			ret = may_go_on();
	}
	if (!ret)
		ret = flush(walker);
	return ret;
}

void mmnf_select_end(struct mmnf_walker *walker)
{
	kfree(walker->items);
	walker->items = NULL;
}
