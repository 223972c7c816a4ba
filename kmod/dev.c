// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/mmnf: one field per open, attached once.
 *
 * Every command goes through one table: it copies the caller's struct in,
 * whatever its size, and the same number of bytes out.  Nothing here touches
 * user memory under a lock.
 */
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

/**
 * struct mmnf_device_file - private data of an open /dev/mmnf
 * @field: NULL until ATTACH, then constant
 * @writable: opened for writing
 */
struct mmnf_device_file {
	struct mmnf_field *field;
	bool writable;
};

union mmnf_arg {
	struct mmnf_ioc_info info;
	struct mmnf_ioc_attach attach;
	struct mmnf_ioc_policy policy;
	struct mmnf_ioc_prefetch prefetch;
	struct mmnf_ioc_evict evict;
	struct mmnf_ioc_residency residency;
	struct mmnf_ioc_stats stats;
};

static int mmnf_dev_get_info(struct mmnf_device_file *df, union mmnf_arg *arg)
{
	struct mmnf_ioc_info *info = &arg->info;

	if (info->flags)
		return -EOPNOTSUPP;
	if (info->__reserved)
		return -EINVAL;
	info->out_features = MMNF_FEATURE_PREDICT |
			     MMNF_FEATURE_PREFETCH_RANGES |
			     MMNF_FEATURE_SELECT | MMNF_FEATURE_EVICT |
			     MMNF_FEATURE_RESIDENCY | MMNF_FEATURE_WRITE;
	if (IS_ENABLED(CONFIG_MEMCG))
		info->out_features |= MMNF_FEATURE_MEMCG;
	if (IS_ENABLED(CONFIG_IO_URING))
		info->out_features |= MMNF_FEATURE_URING;
	info->out_page_bytes = PAGE_SIZE;
	info->out_max_ndim = MMNF_MAX_NDIM;
	info->out_max_items = MMNF_MAX_ITEMS;
	info->out_nr_streams = MMNF_NR_STREAMS;
	info->out_max_depth = MMNF_MAX_DEPTH;
	info->out_max_inflight_bytes = MMNF_MAX_INFLIGHT_BYTES;
	return 0;
}

static int mmnf_dev_attach(struct mmnf_device_file *df, union mmnf_arg *arg)
{
	struct mmnf_field *field;

	if (arg->attach.flags & ~MMNF_ATTACH_WRITE)
		return -EOPNOTSUPP;
	if (arg->attach.flags & MMNF_ATTACH_WRITE && !df->writable)
		return -EACCES;
	if (READ_ONCE(df->field))
		return -EBUSY;
	field = mmnf_field_create(&arg->attach);
	if (IS_ERR(field))
		return PTR_ERR(field);
	/* Whoever sees the field by smp_load_acquire() sees it complete. */
	if (cmpxchg(&df->field, NULL, field)) {
		mmnf_field_destroy(field);
		return -EBUSY;
	}
	return 0;
}

static int mmnf_dev_set_policy(struct mmnf_device_file *df, union mmnf_arg *arg)
{
	if (arg->policy.flags || arg->policy.mode > MMNF_MODE_MANUAL)
		return -EOPNOTSUPP;
	if (arg->policy.__reserved)
		return -EINVAL;
	return mmnf_field_set_policy(df->field, &arg->policy);
}

static int mmnf_dev_get_policy(struct mmnf_device_file *df, union mmnf_arg *arg)
{
	if (arg->policy.flags)
		return -EOPNOTSUPP;
	mmnf_field_get_policy(df->field, &arg->policy);
	return 0;
}

static int mmnf_dev_prefetch(struct mmnf_device_file *df, union mmnf_arg *arg)
{
	if (arg->prefetch.flags & ~MMNF_PREFETCH_WAIT)
		return -EOPNOTSUPP;
	return mmnf_hint_prefetch(df->field, &arg->prefetch,
				  arg->prefetch.flags & MMNF_PREFETCH_WAIT);
}

/* As io_uring runs it: done when the data is there. */
static int mmnf_dev_prefetch_wait(struct mmnf_device_file *df,
				  union mmnf_arg *arg)
{
	if (arg->prefetch.flags & ~MMNF_PREFETCH_WAIT)
		return -EOPNOTSUPP;
	return mmnf_hint_prefetch(df->field, &arg->prefetch, true);
}

static int mmnf_dev_evict(struct mmnf_device_file *df, union mmnf_arg *arg)
{
	if (arg->evict.flags)
		return -EOPNOTSUPP;
	return mmnf_hint_evict(df->field, &arg->evict);
}

static int mmnf_dev_residency(struct mmnf_device_file *df, union mmnf_arg *arg)
{
	if (arg->residency.flags)
		return -EOPNOTSUPP;
	return mmnf_hint_residency(df->field, &arg->residency);
}

static int mmnf_dev_get_stats(struct mmnf_device_file *df, union mmnf_arg *arg)
{
	if (arg->stats.flags)
		return -EOPNOTSUPP;
	mmnf_field_get_stats(df->field, &arg->stats);
	return 0;
}

/**
 * struct mmnf_op - a command
 * @cmd: its number
 * @size: of its struct in this kernel
 * @min_size: of its struct in the first version
 * @attached: needs a field
 * @fn: does it; the struct is copied back if it returns 0
 */
struct mmnf_op {
	unsigned int cmd;
	unsigned int size;
	unsigned int min_size;
	bool attached;
	int (*fn)(struct mmnf_device_file *df, union mmnf_arg *arg);
};

#define MMNF_OP(_cmd, _fn, _member, _last, _attached)                        \
	{                                                                    \
		.cmd = _cmd, .size = sizeof(((union mmnf_arg *)0)->_member), \
		.min_size = offsetofend(                                     \
			typeof(((union mmnf_arg *)0)->_member), _last),      \
		.attached = _attached, .fn = _fn,                            \
	}

#define MMNF_IOCTL(_cmd, ...)                          \
	[_IOC_NR(_cmd) - _IOC_NR(MMNF_IOC_GET_INFO)] = \
		MMNF_OP(_cmd, __VA_ARGS__)

static const struct mmnf_op mmnf_ops[] = {
	MMNF_IOCTL(MMNF_IOC_GET_INFO, mmnf_dev_get_info, info,
		   out_max_inflight_bytes, false),
	MMNF_IOCTL(MMNF_IOC_ATTACH, mmnf_dev_attach, attach, out_id, false),
	MMNF_IOCTL(MMNF_IOC_SET_POLICY, mmnf_dev_set_policy, policy,
		   max_inflight_bytes, true),
	MMNF_IOCTL(MMNF_IOC_GET_POLICY, mmnf_dev_get_policy, policy,
		   max_inflight_bytes, true),
	MMNF_IOCTL(MMNF_IOC_PREFETCH, mmnf_dev_prefetch, prefetch,
		   out_hole_bytes, true),
	MMNF_IOCTL(MMNF_IOC_EVICT, mmnf_dev_evict, evict, out_busy_bytes, true),
	MMNF_IOCTL(MMNF_IOC_RESIDENCY, mmnf_dev_residency, residency, out_total,
		   true),
	MMNF_IOCTL(MMNF_IOC_GET_STATS, mmnf_dev_get_stats, stats, out_mappings,
		   true),
};

static const struct mmnf_op mmnf_uring_op =
	MMNF_OP(MMNF_IOC_PREFETCH, mmnf_dev_prefetch_wait, prefetch,
		out_hole_bytes, true);

static int mmnf_dev_run(struct file *file, const struct mmnf_op *op,
			void __user *ptr)
{
	struct mmnf_device_file *df = file->private_data;
	union mmnf_arg arg;
	u32 size;
	int ret;

	if (get_user(size, (u32 __user *)ptr))
		return -EFAULT;
	if (size < op->min_size)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	ret = copy_struct_from_user(&arg, op->size, ptr, size);
	if (ret)
		return ret;
	/* Pairs with cmpxchg() in mmnf_dev_attach(). */
	if (op->attached && !smp_load_acquire(&df->field))
		return -ENXIO;
	ret = op->fn(df, &arg);
	if (ret)
		return ret;
	if (copy_to_user(ptr, &arg, min(size, op->size)))
		return -EFAULT;
	return 0;
}

static long mmnf_dev_ioctl(struct file *file, unsigned int cmd,
			   unsigned long user)
{
	unsigned int nr = _IOC_NR(cmd) - _IOC_NR(MMNF_IOC_GET_INFO);

	if (nr >= ARRAY_SIZE(mmnf_ops) || mmnf_ops[nr].cmd != cmd)
		return -ENOTTY;
	return mmnf_dev_run(file, &mmnf_ops[nr], (void __user *)user);
}

/*
 * Starting a read may sleep, so the submitter is not made to wait for it: one of
 * io_uring's workers, a thread of the same process, runs the command as the
 * ioctl would.  It holds the file, and a cancellation is a signal to it.
 */
static int mmnf_dev_uring_cmd(struct io_uring_cmd *cmd,
			      unsigned int issue_flags)
{
	const struct mmnf_uring_cmd *arg = mmnf_compat_uring_arg(cmd);
	u64 user = READ_ONCE(arg->arg);
	int ret;

	if (cmd->cmd_op != MMNF_IOC_PREFETCH)
		return -ENOTTY;
	if (READ_ONCE(arg->__reserved))
		return -EINVAL;
	if (issue_flags & IO_URING_F_NONBLOCK)
		return -EAGAIN;
	ret = mmnf_dev_run(cmd->file, &mmnf_uring_op, u64_to_user_ptr(user));
	return ret == -ERESTARTSYS ? -EINTR : ret;
}

static int mmnf_dev_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct mmnf_device_file *df = file->private_data;
	/* Pairs with cmpxchg() in mmnf_dev_attach(). */
	struct mmnf_field *field = smp_load_acquire(&df->field);

	if (!field)
		return -ENXIO;
	return mmnf_vm_mmap(field, file, vma);
}

static int mmnf_dev_open(struct inode *inode, struct file *file)
{
	struct mmnf_device_file *df;

	df = kzalloc(sizeof(*df), GFP_KERNEL_ACCOUNT);
	if (!df)
		return -ENOMEM;
	df->writable = file->f_mode & FMODE_WRITE;
	file->private_data = df;
	return 0;
}

/* The last fd and the last mapping are gone: nothing can fault any more. */
static int mmnf_dev_release(struct inode *inode, struct file *file)
{
	struct mmnf_device_file *df = file->private_data;

	if (df->field)
		mmnf_field_destroy(df->field);
	kfree(df);
	return 0;
}

static const struct file_operations mmnf_dev_fops = {
	.owner = THIS_MODULE,
	.open = mmnf_dev_open,
	.release = mmnf_dev_release,
	.unlocked_ioctl = mmnf_dev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.uring_cmd = mmnf_dev_uring_cmd,
	.mmap = mmnf_dev_mmap,
	.get_unmapped_area = thp_get_unmapped_area,
	.llseek = noop_llseek,
};

struct miscdevice mmnf_dev_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "mmnf",
	.fops = &mmnf_dev_fops,
	.mode = 0660,
};
