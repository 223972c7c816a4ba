// SPDX-License-Identifier: GPL-2.0-only
/*
 * A field: the attached file with its geometry, policy and counters.
 *
 * Opens nothing by path and never exceeds the rights of the descriptor it was
 * given.  The kernel never parses the file: it checks the geometry's arithmetic.
 * Memory per field is bounded: one struct mmnf_field.
 */
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/idr.h>
#include <linux/magic.h>
#include <linux/overflow.h>
#include <linux/shmem_fs.h>
#include <linux/vmalloc.h>

#include "internal.h"

static DEFINE_IDA(mmnf_field_ids);

static_assert(sizeof(struct mmnf_field) <= 64 * 1024);

/*
 * Is every element inside [0, size_bytes)?  Strides are signed: an axis reaches
 * from its first element to its last in one direction or the other.
 */
static int geometry_check(const struct mmnf_ioc_attach *g, u64 size_bytes)
{
	u64 below = 0, above = 0, last;
	u32 i;

	if (g->__reserved || !g->ndim || g->ndim > MMNF_MAX_NDIM ||
	    !g->element_bytes || g->record_bytes > MMNF_MAX_RECORD_BYTES)
		return -EINVAL;
	for (i = 0; i < g->ndim; i++) {
		s64 stride = g->stride_bytes[i];
		u64 step = stride < 0 ? -(u64)stride : stride;
		u64 *side = stride < 0 ? &below : &above;
		u64 reach;

		if (!g->extent[i])
			return -EINVAL;
		if (check_mul_overflow(g->extent[i] - 1, step, &reach) ||
		    check_add_overflow(*side, reach, side))
			return -EOVERFLOW;
	}
	for (; i < MMNF_MAX_NDIM; i++)
		if (g->extent[i] || g->stride_bytes[i])
			return -EINVAL;
	if (check_add_overflow(g->data_offset_bytes, above, &last) ||
	    check_add_overflow(last, (u64)g->element_bytes, &last))
		return -EOVERFLOW;
	if (below > g->data_offset_bytes || last > size_bytes)
		return -EINVAL;
	return 0;
}

/* The file itself: of a kind that has a page cache we can read into. */
static int file_check(struct file *file)
{
	struct inode *inode = file_inode(file);

	if (!S_ISREG(inode->i_mode) && !S_ISBLK(inode->i_mode))
		return -EBADF;
	if (!(file->f_mode & FMODE_READ))
		return -EACCES;
	if (IS_DAX(file->f_mapping->host) ||
	    inode->i_sb->s_magic == HUGETLBFS_MAGIC)
		return -EOPNOTSUPP;
	return 0;
}

/*
 * F_SEAL_FUTURE_WRITE leaves no trace in the mapping.  Where mmap asks for it
 * before it calls the file's own mmap, it asks the device's file.
 */
static bool sealed_against_writing(struct inode *inode)
{
	return IS_ENABLED(CONFIG_SHMEM) &&
	       inode->i_sb->s_magic == TMPFS_MAGIC &&
	       READ_ONCE(SHMEM_I(inode)->seals) &
		       (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE);
}

/* May what lies in the file be changed at any place?  As open() and mmap() ask. */
int mmnf_field_may_write(struct file *file)
{
	struct inode *inode = file_inode(file);

	if (!(file->f_mode & FMODE_WRITE))
		return -EACCES;
	if (IS_APPEND(inode) || IS_IMMUTABLE(inode) ||
	    sealed_against_writing(inode))
		return -EPERM;
	if (IS_SWAPFILE(file->f_mapping->host))
		return -ETXTBSY;
	return 0;
}

/*
 * A private open: its own position and readahead state, opened with the
 * caller's credentials so that security modules see it.
 */
static struct file *file_reopen(int fd, bool write)
{
	struct file *file, *private;
	int ret;

	file = fget(fd);
	if (!file)
		return ERR_PTR(-EBADF);
	ret = file_check(file);
	if (!ret && write)
		ret = mmnf_field_may_write(file);
	private = ret ? ERR_PTR(ret) :
			dentry_open(&file->f_path,
				    (write ? O_RDWR : O_RDONLY) | O_LARGEFILE,
				    current_cred());
	fput(file);
	if (!IS_ERR(private) && mmnf_compat_is_managed(private)) {
		fput(private);
		private = ERR_PTR(-EOPNOTSUPP);
	}
	return private;
}

struct mmnf_field *mmnf_field_create(struct mmnf_ioc_attach *attach)
{
	u64 start, end, below = 0;
	struct mmnf_field *field;
	int ret, id;
	u32 i;

	/*
	 * By pages, or it would be rounded up to 64 KiB; where memory is short, an
	 * error and no dead process.
	 */
	field = __vmalloc(sizeof(*field), GFP_KERNEL_ACCOUNT | __GFP_ZERO |
						  __GFP_RETRY_MAYFAIL |
						  __GFP_NOWARN);
	if (!field)
		return ERR_PTR(-ENOMEM);
	field->file =
		file_reopen(attach->fd, attach->flags & MMNF_ATTACH_WRITE);
	if (IS_ERR(field->file)) {
		ret = PTR_ERR(field->file);
		goto out_free;
	}
	field->size_bytes = i_size_read(field->file->f_mapping->host);
	ret = geometry_check(attach, field->size_bytes);
	if (ret)
		goto out_file;

	spin_lock_init(&field->lock);
	INIT_WORK(&field->work, mmnf_prefetch_work);
	field->mode = MMNF_MODE_AUTO;
	field->has_cache = field->file->f_mapping->a_ops->readahead;
	field->geometry = *attach;

	/* The bytes that the elements span, whatever the strides' signs. */
	end = attach->data_offset_bytes + attach->element_bytes;
	for (i = 0; i < attach->ndim; i++) {
		s64 stride = attach->stride_bytes[i];
		u64 n = attach->extent[i] - 1;

		if (stride < 0)
			below += n * -(u64)stride;
		else
			end += n * stride;
	}
	start = attach->data_offset_bytes - below;
	mmnf_table_init(&field->table, PAGE_SIZE, start, end,
			attach->record_bytes);
	mmnf_table_set_axes(&field->table, attach->stride_bytes, attach->extent,
			    attach->ndim);
	/* Up to any end that the file may come to have. */
	mmnf_table_set_file(&field->table, S64_MAX);

	id = ida_alloc_min(&mmnf_field_ids, 1, GFP_KERNEL);
	if (id < 0) {
		ret = id;
		goto out_file;
	}
	field->id = id;
	ret = mmnf_sysfs_add(field);
	if (ret) {
		/* The kobject is live: it owns the memory, the id and the file. */
		kobject_put(&field->kobj);
		return ERR_PTR(ret);
	}
	mmnf_debugfs_add(field);
	attach->out_id = field->id;
	return field;

out_file:
	fput(field->file);
out_free:
	vfree(field);
	return ERR_PTR(ret);
}

/*
 * Never fails.  Called without locks when no mapping is left; plans that are
 * still queued hold a mapping, which holds the caller's file, so the queue is
 * empty, but the worker may be on its way out.
 */
void mmnf_field_destroy(struct mmnf_field *field)
{
	cancel_work_sync(&field->work);
	mmnf_debugfs_remove(field);
	kobject_del(&field->kobj);
	kobject_put(&field->kobj);
}

void mmnf_field_release(struct kobject *kobj)
{
	struct mmnf_field *field = container_of(kobj, struct mmnf_field, kobj);

	ida_free(&mmnf_field_ids, field->id);
	fput(field->file);
	vfree(field);
}

void mmnf_field_get_policy(struct mmnf_field *field,
			   struct mmnf_ioc_policy *policy)
{
	spin_lock(&field->lock);
	policy->mode = field->mode;
	policy->min_depth = field->table.limits.min_depth;
	policy->max_depth = field->table.limits.max_depth;
	policy->__reserved = 0;
	policy->max_window_bytes = field->table.limits.max_window_bytes;
	policy->max_inflight_bytes = field->table.limits.max_inflight_bytes;
	spin_unlock(&field->lock);
}

int mmnf_field_set_policy(struct mmnf_field *field,
			  const struct mmnf_ioc_policy *policy)
{
	struct mmnf_limits limits;
	int ret = -EINVAL;

	spin_lock(&field->lock);
	limits = field->table.limits;
	if (policy->min_depth)
		limits.min_depth = policy->min_depth;
	if (policy->max_depth)
		limits.max_depth = policy->max_depth;
	if (policy->max_window_bytes)
		limits.max_window_bytes = policy->max_window_bytes;
	if (policy->max_inflight_bytes)
		limits.max_inflight_bytes = policy->max_inflight_bytes;
	if (limits.min_depth <= limits.max_depth &&
	    limits.max_depth <= MMNF_MAX_DEPTH &&
	    limits.max_window_bytes <= MMNF_MAX_INFLIGHT_BYTES &&
	    limits.max_inflight_bytes <= MMNF_MAX_INFLIGHT_BYTES) {
		field->table.limits = limits;
		if (policy->mode != MMNF_MODE_KEEP)
			field->mode = policy->mode;
		ret = 0;
	}
	spin_unlock(&field->lock);
	return ret;
}

void mmnf_field_get_stats(struct mmnf_field *field,
			  struct mmnf_ioc_stats *stats)
{
	u32 size = stats->size;
	u64 quiet;

	spin_lock(&field->lock);
	*stats = field->stats;
	quiet = atomic64_read(&field->nr_quiet_hits);
	stats->out_faults += quiet;
	stats->out_hits += quiet;
	stats->out_pending_pages = field->pending.nr;
	spin_unlock(&field->lock);
	stats->size = size;
	stats->flags = 0;
}
