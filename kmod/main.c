// SPDX-License-Identifier: GPL-2.0-only
/*
 * mmnf: fields far larger than memory, mapped through /dev/mmnf.
 *
 * The parts in the order of a fault:
 *
 *	dev.c		/dev/mmnf: open, ioctl, mmap
 *	field.c		an attached file: geometry, policy, counters
 *	vm.c		a mapping: its faults are observed and passed to the host
 *	prefetch.c	plans become page-cache reads
 *	hint.c		what the program asks for: prefetch, evict, residency
 *	select.c	boxes and records become ranges of pages
 *	sysfs.c		what can be watched and set
 *	debugfs.c	what root can see of the predictor
 *	../lib/core	the predictor and its accounts
 */
#include <linux/module.h>

#include "internal.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

static int __init mmnf_init(void)
{
	int ret;

	ret = mmnf_prefetch_init();
	if (ret)
		return ret;
	mmnf_debugfs_init();
	ret = misc_register(&mmnf_dev_misc);
	if (ret) {
		mmnf_debugfs_exit();
		mmnf_prefetch_exit();
		return ret;
	}
	mmnf_sysfs_init(&mmnf_dev_misc.this_device->kobj);
	return 0;
}

static void __exit mmnf_exit(void)
{
	mmnf_sysfs_exit();
	misc_deregister(&mmnf_dev_misc);
	mmnf_debugfs_exit();
	mmnf_prefetch_exit();
}

module_init(mmnf_init);
module_exit(mmnf_exit);

MODULE_DESCRIPTION("Fields far larger than memory, read ahead by their walk");
MODULE_VERSION(MMNF_VERSION);
MODULE_LICENSE("GPL");
