// SPDX-License-Identifier: GPL-2.0-only
/*
 * A mapping: the attached file's own mapping, with its faults observed.
 *
 *	fault --> map_pages: host maps what is resident ---- mapped: a hit
 *	              `- not mapped -> fault: late or missed -> host reads
 *
 * A host without map_pages has only the second, also for what is resident.  While
 * misses are to be expected, the second comes first, and asks the host to map what is
 * resident after all.
 *
 * The virtual memory area belongs to the attached file (vm_file, i_mmap), so
 * truncate, hole punch, reclaim and writeback work as for any mapping of it.
 * Only the operations differ: a private copy of the host's with open, close,
 * fault and map_pages replaced.  Making a mapped page writable is left to the
 * host (page_mkwrite), which waits for a frozen file system and finds room on
 * storage; it is no access of its own.
 *
 * The fault path sleeps and allocates nothing of its own and changes no memory
 * map state, but that it keeps the page table which the kernel has brought along; it
 * takes field->lock for a bounded time.  map_pages runs under RCU where the kernel has
 * it so, whoever asks: a host's may sleep on older ones.
 */
#include <linux/backing-dev.h>
#include <linux/blk-cgroup.h>
#include <linux/cgroup.h>
#include <linux/file.h>
#include <linux/memcontrol.h>
#include <linux/pagemap.h>
#include <linux/ptrace.h>
#include <linux/sched/task_stack.h>
#include <linux/slab.h>
#include <linux/userfaultfd_k.h>

#include <asm/pgalloc.h>

#include "internal.h"
#include "trace.h"

static struct mmnf_mapping *mapping_of(struct vm_area_struct *vma)
{
	return container_of(vma->vm_ops, struct mmnf_mapping, ops);
}

/* The instruction whose access faulted; in the kernel, the system call's. */
static unsigned long user_ip(void)
{
	if (current->flags & (PF_KTHREAD | PF_IO_WORKER))
		return 0;
	return instruction_pointer(task_pt_regs(current));
}

/* As many pages as the kernel maps around a fault; see fault_around_bytes. */
#define MMNF_AROUND_PAGES 16

/*
 * Over data that is all resident the predictor has nothing to do, and a fault is
 * cheap enough for its look to be felt.  After so many hits in a row that told it
 * nothing, hits are only counted, until something is absent again ..
 */
#define MMNF_IDLE_HITS 64
/* .. and what was read ahead and not used by then is given up. */
#define MMNF_FORGET_HITS 1024

static bool is_quiet(const struct mmnf_field *field)
{
	return READ_ONCE(field->nr_idle) >= MMNF_IDLE_HITS &&
	       !READ_ONCE(field->pending.nr) && !trace_mmnf_fault_enabled();
}

static void note_idle(struct mmnf_field *field, bool idle)
{
	u32 nr = idle ? min(field->nr_idle + 1, MMNF_FORGET_HITS) : 0;

	if (nr != field->nr_idle)
		WRITE_ONCE(field->nr_idle, nr);
	if (nr == MMNF_FORGET_HITS && field->pending.nr)
		field->stats.out_wasted_pages +=
			mmnf_pending_forget(&field->pending);
}

/* How long it was; what its thread does next to its page is another access. */
static void wait_end(struct mmnf_field *field, struct mmnf_wait *wait)
{
	u64 now_ns;

	if (wait->since_ns) {
		now_ns = max(ktime_get_mono_fast_ns(), wait->since_ns);
		field->waits[mmnf_wait_length(now_ns - wait->since_ns)]++;
	}
	WRITE_ONCE(wait->thread, 0);
}

/*
 * Is this fault one that has been counted?  The kernel runs a fault again after
 * waiting, and says so by FAULT_FLAG_TRIED.  Not always: under the lock of an area
 * alone, one that found its page locked, be it read already or not, comes again
 * without the flag; and where a signal came meanwhile, or another's call upon the
 * thread that is delivered like one (io_uring's), the instruction itself is run again.
 */
static bool mmnf_vm_counted(struct mmnf_field *field,
			    const struct vm_fault *vmf,
			    const struct mmnf_access *access, bool may_wait)
{
	u32 thread = access->thread;
	struct mmnf_wait *wait = &field->wait[thread % MMNF_NR_WAITS];
	bool again = wait->thread == thread && wait->pgoff == vmf->pgoff;
	bool counted = again || vmf->flags & FAULT_FLAG_TRIED;

	if (may_wait && !again) {
		WRITE_ONCE(wait->thread, thread);
		WRITE_ONCE(wait->pgoff, vmf->pgoff);
		wait->since_ns = counted || access->outcome == MMNF_HIT ?
					 0 :
					 access->now_ns;
	} else if (!may_wait && again) {
		wait_end(field, wait);
	}
	return counted;
}

/* The same, asked without the lock, of the thread's own slot: it may be. */
static bool may_be_again(const struct mmnf_field *field, pgoff_t pgoff)
{
	u32 thread = task_pid_nr(current);
	const struct mmnf_wait *wait = &field->wait[thread % MMNF_NR_WAITS];

	return READ_ONCE(wait->thread) == thread &&
	       READ_ONCE(wait->pgoff) == pgoff;
}

/* Of the next touch, by what was made of the last one. */
static void expect_next(struct mmnf_mapping *mapping, bool alone, bool absent)
{
	if (mapping->alone != alone)
		WRITE_ONCE(mapping->alone, alone);
	if (mapping->absent != absent)
		WRITE_ONCE(mapping->absent, absent);
}

/*
 * The same where nobody looks at walks, because all is resident as it seems: two touches
 * of a thread that would have shared a fault are none of the walk that was alone.
 */
static void expect_quiet(struct mmnf_mapping *mapping, pgoff_t pgoff)
{
	pgoff_t *last = &mapping->last[task_pid_nr(current) % MMNF_NR_LAST];
	bool alone = READ_ONCE(mapping->alone);

	if (alone) {
		alone = pgoff - READ_ONCE(*last) + MMNF_AROUND_PAGES >
			2 * MMNF_AROUND_PAGES;
		WRITE_ONCE(*last, pgoff);
	}
	expect_next(mapping, alone, false);
}

/* The fault is not to be run again. */
static void mmnf_vm_waited(struct mmnf_field *field, const struct vm_fault *vmf)
{
	u32 thread = task_pid_nr(current);
	struct mmnf_wait *wait = &field->wait[thread % MMNF_NR_WAITS];

	spin_lock(&field->lock);
	if (wait->thread == thread && wait->pgoff == vmf->pgoff)
		wait_end(field, wait);
	spin_unlock(&field->lock);
}

/*
 * Account an access and let the predictor see it.  Pages first .. first + nr - 1
 * are those that this fault made, or will make, accessible: counted as used
 * with it, because no other fault will tell.
 *
 * A fault that the kernel runs a second time after waiting is the same access:
 * only the pages around it are news.  @may_wait: the host has yet to be asked.
 */
static void mmnf_vm_observe(struct mmnf_mapping *mapping, struct vm_fault *vmf,
			    enum mmnf_outcome outcome, pgoff_t first,
			    unsigned long nr, bool may_wait)
{
	struct mmnf_field *field = mapping->field;
	struct mmnf_access access = {
		.thread = task_pid_nr(current),
		.ip = user_ip(),
		.pos = ((u64)vmf->pgoff << PAGE_SHIFT) +
		       offset_in_page(vmf->real_address),
		.before = vmf->pgoff - first,
		.after = first + nr - 1 - vmf->pgoff,
		.outcome = outcome,
	};
	bool counted, alone = false, absent = false, kick = false;
	bool planned = false;
	struct mmnf_plan *plan = &field->plan;
	u64 taken = 0;

	if (outcome != MMNF_HIT || vmf->flags & FAULT_FLAG_TRIED ||
	    mmnf_table_timed(&field->table))
		access.now_ns = ktime_get_mono_fast_ns();
	spin_lock(&field->lock);
	if (field->pending.nr)
		taken = mmnf_pending_take(&field->pending, first, nr);
	/* Read ahead, yet absent: reclaimed before it was used. */
	if (outcome == MMNF_MISS)
		field->stats.out_wasted_pages += taken;
	else
		field->stats.out_used_pages += taken;
	access.fresh = taken && outcome == MMNF_HIT;
	counted = mmnf_vm_counted(field, vmf, &access, may_wait);
	if (counted) {
		mmnf_resume(&field->table, access.thread, access.now_ns,
			    access.before, access.after);
	} else {
		field->stats.out_faults++;
		if (outcome == MMNF_HIT)
			field->stats.out_hits++;
		else if (outcome == MMNF_LATE)
			field->stats.out_late++;
		else
			field->stats.out_misses++;

		if (!mapping->can_read_ahead)
			planned = false;
		else if (field->mode == MMNF_MODE_AUTO)
			planned = mmnf_observe(&field->table, &access, plan);
		else if (field->mode == MMNF_MODE_MANUAL &&
			 outcome == MMNF_MISS)
			planned = mmnf_record_plan(&field->table, access.pos,
						   plan);
		if (planned) {
			kick = mmnf_prefetch_queue(mapping, plan,
						   outcome == MMNF_MISS ?
							   vmf->pgoff :
							   MMNF_NO_DEMAND);
			trace_mmnf_plan(field->id, plan, kick);
			if (!kick && field->mode == MMNF_MODE_AUTO)
				mmnf_unplan(&field->table);
		}
		note_idle(field, outcome == MMNF_HIT && !taken && !planned);
		if (field->mode == MMNF_MODE_AUTO && mapping->can_read_ahead) {
			alone = mmnf_table_alone(&field->table,
						 MMNF_AROUND_PAGES);
			absent = outcome == MMNF_MISS &&
				 mapping->host->map_pages &&
				 mmnf_table_lost(&field->table);
		}
		expect_next(mapping, alone, absent);
	}
	spin_unlock(&field->lock);

	if (!counted)
		trace_mmnf_fault(field->id, &access);
	if (kick)
		mmnf_prefetch_kick(field);
}

/* Of the pages around a fault those of its record, which may be its page alone. */
static void clip_to_record(const struct mmnf_field *field, pgoff_t pgoff,
			   pgoff_t *start, pgoff_t *end)
{
	u64 first, last;

	first = mmnf_table_record(&field->table, (u64)pgoff << PAGE_SHIFT,
				  &last);
	*start = max_t(pgoff_t, *start,
		       min_t(pgoff_t, pgoff, first >> PAGE_SHIFT));
	*end = min_t(pgoff_t, *end,
		     max_t(pgoff_t, pgoff, (last - 1) >> PAGE_SHIFT));
}

static bool is_absent(const struct mmnf_mapping *mapping, pgoff_t pgoff)
{
	void *entry = xa_load(&mapping->file->f_mapping->i_pages, pgoff);

	return !entry || xa_is_value(entry);
}

/*
 * The kernel brings a page table along where there is none yet, and takes it away again
 * where the fault has to wait, to bring another one when it is run again: this one
 * stays.  Where a large page could be mapped as one there must be none, but what is
 * absent is read page by page.  An empty one says no more than none, to userfaultfd, too.
 */
static void keep_page_table(struct vm_fault *vmf)
{
	struct mm_struct *mm = vmf->vma->vm_mm;
	spinlock_t *lock; /* of the entry for it */

	if (!vmf->prealloc_pte || vmf->vma->vm_flags & VM_HUGEPAGE)
		return;
	lock = pmd_lock(mm, vmf->pmd);
	if (pmd_none(*vmf->pmd)) {
		mm_inc_nr_ptes(mm);
		/* It is zeroed before it is seen. */
		smp_wmb();
		pmd_populate(mm, vmf->pmd, vmf->prealloc_pte);
		vmf->prealloc_pte = NULL;
	}
	spin_unlock(lock);
}

/* The host maps what is there; a hit if that is what was touched. */
static vm_fault_t map_resident(struct mmnf_mapping *mapping,
			       struct vm_fault *vmf, pgoff_t start_pgoff,
			       pgoff_t end_pgoff)
{
	vm_fault_t ret;

	/* Nothing around is resident, and looking for it costs at each page. */
	if (READ_ONCE(mapping->alone))
		clip_to_record(mapping->field, vmf->pgoff, &start_pgoff,
			       &end_pgoff);
	ret = mapping->host->map_pages(vmf, start_pgoff, end_pgoff);
	if (!(ret & VM_FAULT_NOPAGE))
		return ret;
	if (is_quiet(mapping->field) && !(vmf->flags & FAULT_FLAG_TRIED) &&
	    !may_be_again(mapping->field, vmf->pgoff)) {
		atomic64_inc(&mapping->field->nr_quiet_hits);
		expect_quiet(mapping, vmf->pgoff);
	} else {
		mmnf_vm_observe(mapping, vmf, MMNF_HIT, start_pgoff,
				end_pgoff - start_pgoff + 1, false);
	}
	return ret;
}

/* Would the kernel have had what is around mapped, but for our saying that it's absent? */
static bool may_map_around(const struct mmnf_mapping *mapping,
			   const struct vm_fault *vmf)
{
	return READ_ONCE(mapping->absent) && mapping->host->map_pages &&
	       !(vmf->flags & (FAULT_FLAG_TRIED | FAULT_FLAG_WRITE)) &&
	       !uffd_disable_fault_around(vmf->vma);
}

/*
 * As the kernel asks of map_pages, but for fault_around_bytes in debugfs: what is set
 * there is not shown to modules.
 */
static vm_fault_t map_resident_around(struct mmnf_mapping *mapping,
				      struct vm_fault *vmf)
{
	unsigned long around = MMNF_AROUND_PAGES * PAGE_SIZE - 1;
	unsigned long first = max(vmf->address & ~around, vmf->vma->vm_start);
	unsigned long last = min(vmf->address | around, vmf->vma->vm_end - 1);
	vm_fault_t ret;

	mmnf_compat_map_pages_lock();
	ret = map_resident(mapping, vmf,
			   vmf->pgoff - ((vmf->address - first) >> PAGE_SHIFT),
			   vmf->pgoff + ((last - vmf->address) >> PAGE_SHIFT));
	mmnf_compat_map_pages_unlock();
	return ret;
}

static vm_fault_t mmnf_vm_map_pages(struct vm_fault *vmf, pgoff_t start_pgoff,
				    pgoff_t end_pgoff)
{
	struct mmnf_mapping *mapping = mapping_of(vmf->vma);

	/* Looked for in vain; what is around is mapped when the page is read. */
	if (READ_ONCE(mapping->absent) && !(vmf->flags & FAULT_FLAG_TRIED))
		return 0;
	return map_resident(mapping, vmf, start_pgoff, end_pgoff);
}

static vm_fault_t mmnf_vm_fault(struct vm_fault *vmf)
{
	struct mmnf_mapping *mapping = mapping_of(vmf->vma);
	enum mmnf_outcome outcome = MMNF_MISS;
	struct folio *folio;
	vm_fault_t ret;

	if (!is_absent(mapping, vmf->pgoff)) {
		if (may_map_around(mapping, vmf)) {
			ret = map_resident_around(mapping, vmf);
			if (ret)
				return ret;
		}
		folio = mmnf_compat_get_folio(mapping->file->f_mapping,
					      vmf->pgoff);
		if (folio) {
			outcome = folio_test_uptodate(folio) ? MMNF_HIT :
							       MMNF_LATE;
			folio_put(folio);
		}
	} else if (mapping->can_read_ahead) {
		keep_page_table(vmf);
	}
	mmnf_vm_observe(mapping, vmf, outcome, vmf->pgoff, 1, true);
	ret = mapping->host->fault(vmf);
	/* Else the area's lock is dropped, and the mapping may be gone. */
	if (!(ret & VM_FAULT_RETRY))
		mmnf_vm_waited(mapping->field, vmf);
	return ret;
}

void mmnf_vm_put(struct mmnf_mapping *mapping)
{
	struct file *owner = mapping->owner;

	if (!refcount_dec_and_test(&mapping->ref))
		return;
	mem_cgroup_put(mapping->memcg);
	if (mapping->blkcg)
		css_put(mapping->blkcg);
	fput(mapping->file);
	kfree(mapping);
	/* Last: this may be what keeps the field, and so the module, alive. */
	fput(owner);
}

/* fork, split and move make another area of the same mapping */
static void mmnf_vm_open(struct vm_area_struct *vma)
{
	struct mmnf_mapping *mapping = mapping_of(vma);

	refcount_inc(&mapping->ref);
	atomic_inc(&mapping->nr_areas);
	if (mapping->host->open)
		mapping->host->open(vma);
}

static void mmnf_vm_close(struct vm_area_struct *vma)
{
	struct mmnf_mapping *mapping = mapping_of(vma);
	struct mmnf_field *field = mapping->field;

	if (mapping->host->close)
		mapping->host->close(vma);
	if (atomic_dec_and_test(&mapping->nr_areas)) {
		if (mapping->writable)
			mapping_unmap_writable(mapping->file->f_mapping);
		spin_lock(&field->lock);
		field->stats.out_mappings--;
		spin_unlock(&field->lock);
	}
	vma->vm_ops = mapping->host;
	mmnf_vm_put(mapping);
}

static struct cgroup_subsys_state *blkcg_of_current(void)
{
#ifdef CONFIG_BLK_CGROUP
	return task_get_css(current, io_cgrp_id);
#else
	return NULL;
#endif
}

static int may_map(struct mmnf_field *field, unsigned long vm_flags)
{
	if (vm_flags & VM_EXEC)
		return -EACCES;
	if (!(vm_flags & VM_WRITE))
		return 0;
	/* Its copies would be pages that no counter of the field knows. */
	if (!(vm_flags & VM_SHARED))
		return -EOPNOTSUPP;
	return mmnf_field_may_write(field->file);
}

/*
 * Its faults are of the page cache: not DAX, which may lie below overlayfs.  map_pages
 * is for that; where there is none (CephFS), readahead tells.
 */
static bool maps_page_cache(const struct vm_area_struct *vma)
{
	const struct vm_operations_struct *ops = vma->vm_ops;

	return ops && ops->fault && !IS_DAX(file_inode(vma->vm_file)) &&
	       (ops->map_pages || vma->vm_file->f_mapping->a_ops->readahead);
}

/*
 * The host's own mmap, then what the kernel asked the device's file for, asked
 * of the file that is mapped instead.
 */
static int map_host(struct file *file, struct vm_area_struct *vma, bool write)
{
	int ret;

	vma_set_file(vma, file);
	ret = mmnf_compat_mmap(file, vma);
	if (ret)
		return ret;
	if (!maps_page_cache(vma))
		ret = -EOPNOTSUPP;
	/*
	 * Linking the area into i_mmap counts it as writable without a look at
	 * the seals.  Ours is counted with a look, and until the last area is
	 * gone, so that no seal can come in between.
	 */
	else if (write)
		ret = mapping_map_writable(vma->vm_file->f_mapping);
	if (ret && vma->vm_ops && vma->vm_ops->close)
		vma->vm_ops->close(vma);
	return ret;
}

/*
 * An area that looks like the one before it is joined to that by kernels which try so
 * again after mmap has changed its flags (6.3 to 6.11), and goes without a call of
 * close.  So the two differ, in a flag that means nothing for a mapping of a file which
 * has no private copies.
 */
static void make_unlike_before(struct vm_area_struct *vma)
{
	struct vm_area_struct *before =
		find_vma(vma->vm_mm, vma->vm_start ? vma->vm_start - 1 : 0);

	if (!before || before->vm_end != vma->vm_start ||
	    before->vm_file != vma->vm_file)
		return;
	if (before->vm_flags & VM_NORESERVE)
		mmnf_compat_vm_flags_mod(vma, 0, VM_NORESERVE);
	else
		mmnf_compat_vm_flags_mod(vma, VM_NORESERVE, 0);
}

int mmnf_vm_mmap(struct mmnf_field *field, struct file *owner,
		 struct vm_area_struct *vma)
{
	bool write = vma->vm_flags & VM_WRITE;
	struct mmnf_mapping *mapping;
	unsigned long advice;
	int ret;

	ret = may_map(field, vma->vm_flags);
	if (ret)
		return ret;
	mapping = kzalloc(sizeof(*mapping), GFP_KERNEL_ACCOUNT);
	if (!mapping)
		return -ENOMEM;

	/*
	 * Unless it is to be written now, as mmap does for a file that is open
	 * for reading only: the device may be open for writing, hosts take these
	 * flags at their word, and a seal against future writing was asked of the
	 * device's file, which has none.
	 *
	 * Kernels before 6.7 without the backport to 6.1 and 6.6 count the device's
	 * file as mapped writable before they call us, and take that back by the flags
	 * as they are after: so its count, which guards nothing but seals that it can't
	 * have, grows by one here, and mmap fails with EPERM after 2^31 of them, until
	 * the module is loaded again.  To take it back here would be once too often on
	 * the others, of which the version does not tell, and fail at once.
	 */
	mmnf_compat_vm_flags_mod(
		vma, 0, VM_MAYEXEC | (write ? 0 : VM_SHARED | VM_MAYWRITE));
	ret = map_host(field->file, vma, write);
	if (ret) {
		kfree(mapping);
		return ret;
	}
	/* As FUSE does with passthrough, though it has readahead: hints would miss. */
	if (vma->vm_file->f_mapping != field->file->f_mapping)
		WRITE_ONCE(field->has_cache, false);
	refcount_set(&mapping->ref, 1);
	atomic_set(&mapping->nr_areas, 1);
	mapping->writable = write;
	mapping->field = field;
	mapping->owner = get_file(owner);
	mapping->file = get_file(vma->vm_file);
	mapping->can_read_ahead = vma->vm_file->f_mapping->a_ops->readahead;
	mapping->memcg = get_mem_cgroup_from_mm(vma->vm_mm);
	mapping->blkcg = blkcg_of_current();
	mapping->host = vma->vm_ops;
	mapping->ops = *vma->vm_ops;
	mapping->ops.open = mmnf_vm_open;
	mapping->ops.close = mmnf_vm_close;
	mapping->ops.fault = mmnf_vm_fault;
	if (mapping->host->map_pages)
		mapping->ops.map_pages = mmnf_vm_map_pages;

	/*
	 * With the predictor on, a miss shall read its page and no blind
	 * neighbourhood: neither the fault itself nor later khugepaged, which
	 * reads what is absent of 2 MiB around one page.  OFF leaves the host
	 * as it is.  It cannot be changed later: faults must not touch vm_flags.
	 */
	spin_lock(&field->lock);
	advice = field->mode == MMNF_MODE_OFF || !mapping->can_read_ahead ?
			 0 :
			 VM_RAND_READ | VM_NOHUGEPAGE;
	field->stats.out_mappings++;
	spin_unlock(&field->lock);
	mmnf_compat_vm_flags_mod(vma, advice, 0);
	make_unlike_before(vma);
	vma->vm_ops = &mapping->ops;
	return 0;
}
