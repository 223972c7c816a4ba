/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The module's structures, in the order in which a fault meets them.
 *
 *	struct file of /dev/mmnf	fd or mapping keep it alive
 *	  `- mmnf_device_file		one per open
 *	       `- mmnf_field		from ATTACH until the last fd and mapping go
 *	            `- file		the attached file, opened again privately
 *	vma->vm_ops
 *	  `- mmnf_mapping		one per mmap, shared by its splits and forks;
 *					holds the struct file of /dev/mmnf
 *
 * Locks: field->lock is the only one.  It is a leaf, taken in the fault path, the
 * worker, ioctls and sysfs; nothing sleeps, allocates or touches user memory
 * under it.
 */
#ifndef MMNF_INTERNAL_H
#define MMNF_INTERNAL_H

#include <linux/fs.h>
#include <linux/kobject.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/refcount.h>
#include <linux/sched/signal.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include <linux/mmnf.h>

#include "core/pending.h"
#include "core/predict.h"
#include "core/wait.h"

#define MMNF_MAX_ITEMS (1U << 20)
#define MMNF_MAX_RUNS (1ULL << 24)
#define MMNF_MAX_DEPTH 4096
#define MMNF_MAX_INFLIGHT_BYTES (1ULL << 30)
#define MMNF_MAX_RECORD_BYTES (1ULL << 30)
#define MMNF_QUEUE_PLANS 32
#define MMNF_NR_WAITS 128
#define MMNF_NR_LAST 8

/* In a policy inside the module: leave the mode as it is; no ABI value. */
#define MMNF_MODE_KEEP U32_MAX

struct mmnf_field;

/**
 * struct mmnf_mapping - one mmap of a field
 * @ref: virtual memory areas and queued plans
 * @nr_areas: virtual memory areas alone
 * @writable: holds a writable mapping of @file, against sealing
 * @can_read_ahead: the filesystem of @file has a page cache reader
 * @alone: map the touched page without its neighbours; a hint, no lock
 * @last: pages touched alone and unseen by the predictor, by thread number; a hint, no lock
 * @absent: the touched page is hardly there: look for it alone first; a hint, no lock
 * @field: the field; alive because @owner is
 * @owner: the open file of /dev/mmnf
 * @file: the file that is mapped (overlayfs may have put its real file here)
 * @host: the operations of that file's filesystem
 * @ops: a copy of them with ours in place
 * @memcg: who pays for pages read ahead for this mapping
 * @blkcg: whose I/O limits hold for them
 */
struct mmnf_mapping {
	refcount_t ref;
	atomic_t nr_areas;
	bool writable;
	bool can_read_ahead;
	bool alone;
	bool absent;
	pgoff_t last[MMNF_NR_LAST];
	struct mmnf_field *field;
	struct file *owner;
	struct file *file;
	const struct vm_operations_struct *host;
	struct vm_operations_struct ops;
	struct mem_cgroup *memcg;
	struct cgroup_subsys_state *blkcg;
};

#define MMNF_NO_DEMAND ULONG_MAX

/* A plan, and the absent page that its fault waits for: that comes first. */
struct mmnf_queued_plan {
	struct mmnf_mapping *mapping;
	struct mmnf_plan plan;
	pgoff_t demand;
};

/* Bytes of a file, half-open. */
struct mmnf_extent {
	loff_t start, end;
};

/* A fault that may have to wait and be run again: thread 0 is nobody. */
struct mmnf_wait {
	u32 thread;
	pgoff_t pgoff;
	u64 since_ns; /* 0: its page was there */
};

/**
 * struct mmnf_field - an attached file
 * @kobj: its sysfs directory; also its lifetime
 * @id: number of that directory
 * @file: private open of the attached file, for writing if that was asked for
 * @geometry: as given to ATTACH
 * @size_bytes: of the file at ATTACH
 * @has_cache: hints can act on it: its filesystem has a page cache reader, and no mmap
 *	has put another file in its place, whose pages are mapped then; no lock
 * @debug: its directory in debugfs, or an error
 * @lock: everything below
 * @mode: enum mmnf_mode
 * @table: the predictor
 * @pending: pages read ahead and not used yet
 * @stats: counters; out_pending_pages is taken from @pending
 * @nr_idle: hits in a row that used nothing read ahead and led to no plan
 * @nr_quiet_hits: hits that were counted here alone, see vm.c
 * @wait: faults that may come again, by thread number
 * @waits: how many waited so long, see core/wait.h
 * @plan: the one that is being made; no stack is cleared for it
 * @queue: plans for the worker, a ring of @nr_queued from @queue_head
 * @work: the worker; runs once at a time per field
 * @data: bytes last seen not to be a hole; worker only
 */
struct mmnf_field {
	struct kobject kobj;
	u64 id;
	struct file *file;
	struct mmnf_ioc_attach geometry;
	u64 size_bytes;
	bool has_cache;
	struct dentry *debug;

	spinlock_t lock; /* of everything below */
	u32 mode;
	struct mmnf_table table;
	struct mmnf_pending pending;
	struct mmnf_ioc_stats stats;
	u32 nr_idle;
	struct mmnf_wait wait[MMNF_NR_WAITS];
	u64 waits[MMNF_NR_LENGTHS];
	struct mmnf_plan plan;
	u32 queue_head, nr_queued;
	struct mmnf_queued_plan queue[MMNF_QUEUE_PLANS];

	atomic64_t nr_quiet_hits;
	struct work_struct work;
	struct mmnf_extent data;
};

/* Absent pages whose reads are started together. */
#define MMNF_NR_ABSENT 32

struct mmnf_absent {
	pgoff_t first;
	unsigned long nr;
};

/**
 * struct mmnf_reader - where pages are being read into
 * @field: the field
 * @file: the file to read
 * @data: what is known of its holes
 * @plug: what holds the requests back, or NULL
 * @first_alone: but not the first, which is waited for first; needs @plug
 * @predicted: account the pages as read ahead by the predictor
 * @waits: the caller will wait for what is still being read
 * @unread: something of that was found
 * @nr_queued: pages whose read was started
 * @nr_refused: pages for which there was no memory
 * @nr_resident: pages found present
 * @nr_hole: pages skipped because the file has no data there
 * @start, @end: bytes of a plan that wait for a neighbour; @end 0: none
 * @nr_absent: of @absent, collected and not started yet
 */
struct mmnf_reader {
	struct mmnf_field *field;
	struct file *file;
	struct mmnf_extent *data;
	struct blk_plug *plug;
	bool first_alone, predicted, waits, unread;
	u64 nr_queued, nr_refused, nr_resident, nr_hole;
	u64 start, end;
	u32 nr_absent;
	struct mmnf_absent absent[MMNF_NR_ABSENT];
};

/*
 * Must the command end?  What does not wait goes on at any signal but a fatal one: begun
 * anew each time that a timer rings, it would never be done.  A worker of io_uring gets
 * no signals but those that cancel.
 */
static inline bool mmnf_is_cancelled(void)
{
	return current->flags & PF_IO_WORKER ? signal_pending(current) :
					       fatal_signal_pending(current);
}

/* Pages of a file, half-open. */
struct mmnf_run {
	pgoff_t first, end;
};

#define MMNF_RUNS_AT_ONCE 32

/**
 * struct mmnf_walker - who wants to see a selection
 * @field: the field
 * @runs: called for the selected pages, none of them beyond the end of the file;
 *	an error ends the walk
 * @item: called after the runs of each item; NULL: runs of neighbouring items
 *	may be joined
 * @items: a part of the list, from the first walk until mmnf_select_end()
 * @size_bytes: of the file when the walk began
 * @nr: of @run, not handed on yet
 * @run: the last one may still grow
 */
struct mmnf_walker {
	struct mmnf_field *field;
	int (*runs)(struct mmnf_walker *walker, const struct mmnf_run *run,
		    u32 nr);
	int (*item)(struct mmnf_walker *walker);
	void *items;
	u64 size_bytes;
	u32 nr;
	struct mmnf_run run[MMNF_RUNS_AT_ONCE];
};

/* dev.c: the device and its ioctls */
extern struct miscdevice mmnf_dev_misc;

/* field.c: a field's life, policy and counters */
struct mmnf_field *mmnf_field_create(struct mmnf_ioc_attach *attach);
int mmnf_field_may_write(struct file *file);
void mmnf_field_destroy(struct mmnf_field *field);
void mmnf_field_release(struct kobject *kobj);
void mmnf_field_get_policy(struct mmnf_field *field,
			   struct mmnf_ioc_policy *policy);
int mmnf_field_set_policy(struct mmnf_field *field,
			  const struct mmnf_ioc_policy *policy);
void mmnf_field_get_stats(struct mmnf_field *field,
			  struct mmnf_ioc_stats *stats);

/* vm.c: mappings and their faults */
int mmnf_vm_mmap(struct mmnf_field *field, struct file *owner,
		 struct vm_area_struct *vma);
void mmnf_vm_put(struct mmnf_mapping *mapping);

/* prefetch.c: plans and ranges become reads */
int mmnf_prefetch_init(void);
void mmnf_prefetch_exit(void);
void mmnf_prefetch_work(struct work_struct *work);
bool mmnf_prefetch_queue(struct mmnf_mapping *mapping,
			 const struct mmnf_plan *plan, pgoff_t demand);
void mmnf_prefetch_kick(struct mmnf_field *field);
void mmnf_prefetch_find_data(struct file *file, struct mmnf_extent *known,
			     loff_t pos, loff_t size, loff_t *start,
			     loff_t *end);
struct folio *mmnf_prefetch_load(struct xa_state *xas, pgoff_t index,
				 pgoff_t *next);
void mmnf_prefetch_bytes(struct mmnf_reader *reader, u64 start, u64 end);
void mmnf_prefetch_flush(struct mmnf_reader *reader);

/*
 * The page behind the one at @index, or behind more that are there with it; @index itself
 * if it is not there.  Under RCU, and with no more than a look where it is a neighbour of
 * what was passed before in the same section.
 *
 * A folio of many pages is one entry and others that point to it.  These stay when the
 * folio goes, so they say nothing of it: what they point to does.  The folio may be going,
 * too: nothing is touched but its lock, which tells whether it is still being read.
 */
static inline pgoff_t mmnf_reader_pass(struct mmnf_reader *reader,
				       struct xa_state *xas, pgoff_t index)
{
	struct xa_node *node = xas->xa_node;
	pgoff_t next = index + 1;
	void *entry;

	if (!xas_not_node(node) && !node->shift &&
	    (index ^ xas->xa_index) < XA_CHUNK_SIZE) {
		entry = xa_entry(xas->xa, node, index & XA_CHUNK_MASK);
		if (xa_is_sibling(entry))
			entry = xa_entry(xas->xa, node, xa_to_sibling(entry));
		if (xa_is_internal(entry))
			entry = mmnf_prefetch_load(xas, index, &next);
	} else {
		entry = mmnf_prefetch_load(xas, index, &next);
	}
	if (!entry || xa_is_value(entry))
		return index;
	if (reader->waits && !reader->unread)
		reader->unread = mmnf_compat_is_locked(entry);
	return next;
}

/* select.c: ranges, boxes and records become pages */
int mmnf_select_walk(const struct mmnf_select *select,
		     struct mmnf_walker *walker);
void mmnf_select_end(struct mmnf_walker *walker);

/* hint.c: what the program asks for */
int mmnf_hint_prefetch(struct mmnf_field *field,
		       struct mmnf_ioc_prefetch *prefetch, bool wait);
int mmnf_hint_evict(struct mmnf_field *field, struct mmnf_ioc_evict *evict);
int mmnf_hint_residency(struct mmnf_field *field,
			struct mmnf_ioc_residency *residency);

/* sysfs.c: a directory per field */
void mmnf_sysfs_init(struct kobject *parent);
void mmnf_sysfs_exit(void);
int mmnf_sysfs_add(struct mmnf_field *field);

/* debugfs.c: the streams of a field, for root */
void mmnf_debugfs_init(void);
void mmnf_debugfs_exit(void);
void mmnf_debugfs_add(struct mmnf_field *field);
void mmnf_debugfs_remove(struct mmnf_field *field);

#endif
