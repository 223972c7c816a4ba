/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every difference between the supported kernels, 6.1 to 7.3, and the only file
 * that asks for a version.  Forced in before everything by Kbuild; the code is
 * written for the newest kernel.
 */
#ifndef MMNF_COMPAT_H
#define MMNF_COMPAT_H

#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/version.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
#include <linux/io_uring/cmd.h>
#endif

/*
 * struct folio_batch has moved by 7.2, but <linux/writeback.h> includes it since
 * 6.9.  Drop when the minimum is 7.2.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
#include <linux/writeback.h>
#else
#include <linux/pagevec.h>
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "mmnf needs Linux 6.1 or later"
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 4, 0)
#error "mmnf is not known to work on kernels after 7.3"
#endif

/* Drop when the minimum is 6.17: vfs_mmap() also knows .mmap_prepare. */
static inline int mmnf_compat_mmap(struct file *file,
				   struct vm_area_struct *vma)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0)
	return can_mmap_file(file) ? vfs_mmap(file, vma) : -ENODEV;
#else
	return file->f_op->mmap ? call_mmap(file, vma) : -ENODEV;
#endif
}

/* Drop when the minimum is 6.3: vm_flags became write-protected. */
static inline void mmnf_compat_vm_flags_mod(struct vm_area_struct *vma,
					    unsigned long set,
					    unsigned long clear)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_mod(vma, set, clear);
#else
	vma->vm_flags = (vma->vm_flags | set) & ~clear;
#endif
}

/*
 * Drop when the minimum is 7.0: until then page_cache_ra_unbounded() takes the
 * invalidate lock itself, and taking it twice can deadlock behind a writer.
 */
static inline void mmnf_compat_ra(struct readahead_control *ractl,
				  unsigned long nr_pages)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
	filemap_invalidate_lock_shared(ractl->mapping);
	page_cache_ra_unbounded(ractl, nr_pages, 0);
	filemap_invalidate_unlock_shared(ractl->mapping);
#else
	page_cache_ra_unbounded(ractl, nr_pages, 0);
#endif
}

/*
 * The folio at @index with a reference, or NULL.  Drop when the minimum is 6.6:
 * an absent folio is NULL before and an error pointer since.
 */
static inline struct folio *mmnf_compat_get_folio(struct address_space *mapping,
						  pgoff_t index)
{
	struct folio *folio = filemap_get_folio(mapping, index);

	return IS_ERR_OR_NULL(folio) ? NULL : folio;
}

/*
 * Is the folio locked?  Without a reference it may be part of another by now, which
 * folio_test_locked() does not allow.  Drop the version when the minimum is 6.18: the
 * flags became a struct.
 */
static inline bool mmnf_compat_is_locked(const struct folio *folio)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0)
	return test_bit(PG_locked, &folio->flags.f);
#else
	return test_bit(PG_locked, &folio->flags);
#endif
}

/*
 * What the kernel holds while it calls map_pages.  Drop when the minimum is 6.4: until
 * then nothing, and XFS sleeps there.
 */
static inline void mmnf_compat_map_pages_lock(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	rcu_read_lock();
#endif
}

static inline void mmnf_compat_map_pages_unlock(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	rcu_read_unlock();
#endif
}

/* Drop when the minimum is 6.3: the mount's idmap was a user namespace. */
static inline bool mmnf_compat_owner(struct file *file)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	return inode_owner_or_capable(file_mnt_idmap(file), file_inode(file));
#else
	return inode_owner_or_capable(file_mnt_user_ns(file), file_inode(file));
#endif
}

/*
 * Whoever fills the file when it is used is told at mmap, of the file that is mapped:
 * that is the device's.  Drop when the minimum is 6.14.
 */
static inline bool mmnf_compat_is_managed(struct file *file)
{
#ifdef FMODE_FSNOTIFY_HSM
	return FMODE_FSNOTIFY_HSM(file->f_mode);
#else
	return false;
#endif
}

/* Drop when the minimum is 6.5: the sqe itself was not shown before. */
static inline const void *mmnf_compat_uring_arg(const struct io_uring_cmd *cmd)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	return cmd->sqe->cmd;
#else
	return cmd->cmd;
#endif
}

#endif
