/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * The ABI of /dev/mmnf.
 *
 * A field is an n-dimensional array in one file or block device.  A program
 *
 *	dev = open("/dev/mmnf", O_RDWR);
 *	ioctl(dev, MMNF_IOC_ATTACH, &attach);	once per open: names the file
 *	p = mmap(NULL, len, PROT_READ, MAP_SHARED, dev, offset);
 *
 * and then reads p[i].  Offset in the mapping is offset in the file.  Pages are
 * those of the file's own page cache.  The module watches the faults and reads
 * ahead what the walk will touch next; the other commands steer and watch it.
 *
 * Rules that hold for every command
 *
 *  - The argument points to a struct whose first word is its size in bytes as
 *    the caller knows it.  A shorter struct is extended with zeros; a longer
 *    one is accepted if its unknown tail is zero.
 *  - `flags` and reserved words must be zero unless a flag is named here.
 *  - Members named out_* are written by the kernel.
 *  - Numbers are never reused.
 *
 * errno, for every command
 *
 *	ENOTTY		unknown command
 *	E2BIG		non-zero bytes in a tail that this kernel does not know
 *	EOPNOTSUPP	unknown flag or mode, or a kind of file that cannot be used
 *	EINVAL		wrong value; struct shorter than its first version
 *	EOVERFLOW	arithmetic on the given numbers overflows
 *	EBADF		fd is closed, O_PATH, or neither regular file nor block device
 *	EACCES		fd was not opened for reading
 *	ENXIO		nothing is attached to this open of the device yet
 *	EBUSY		something is attached already
 *	EFAULT		bad pointer
 *	EINTR		a fatal signal came while waiting
 *
 * mmap: ENXIO before ATTACH; EACCES for PROT_EXEC and for PROT_WRITE; otherwise
 * what the mmap of the attached file returns.  Access beyond the end of the
 * file and read errors raise SIGBUS, as for any mapped file.
 */
#ifndef _LINUX_MMNF_H
#define _LINUX_MMNF_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define MMNF_IOC_TYPE 0xBD

#define MMNF_IOC_GET_INFO _IO(MMNF_IOC_TYPE, 0x80)
#define MMNF_IOC_ATTACH _IO(MMNF_IOC_TYPE, 0x81)
#define MMNF_IOC_SET_POLICY _IO(MMNF_IOC_TYPE, 0x82)
#define MMNF_IOC_GET_POLICY _IO(MMNF_IOC_TYPE, 0x83)
#define MMNF_IOC_PREFETCH _IO(MMNF_IOC_TYPE, 0x84)
#define MMNF_IOC_GET_STATS _IO(MMNF_IOC_TYPE, 0x87)

#define MMNF_MAX_NDIM 8

/* What the running module can do; bits of mmnf_ioc_info.out_features. */
#define MMNF_FEATURE_PREDICT (1ULL << 0) /* reads ahead by itself */
#define MMNF_FEATURE_PREFETCH_RANGES (1ULL << 1) /* MMNF_IOC_PREFETCH */
#define MMNF_FEATURE_MEMCG (1ULL << 2) /* charged to the mapping's owner */

/**
 * struct mmnf_ioc_info - MMNF_IOC_GET_INFO
 * @size: sizeof(struct mmnf_ioc_info)
 * @flags: 0
 * @out_features: MMNF_FEATURE_* bits
 * @out_page_bytes: granularity of residency, bytes
 * @out_max_ndim: most dimensions of a geometry
 * @out_max_ranges: most ranges in one MMNF_IOC_PREFETCH
 * @out_nr_streams: concurrent walks followed per field
 * @out_max_depth: upper bound of mmnf_ioc_policy.max_depth
 * @__reserved: 0
 * @out_max_inflight_bytes: upper bound of mmnf_ioc_policy.max_inflight_bytes
 *
 * Works before ATTACH.
 */
struct mmnf_ioc_info {
	__u32 size;
	__u32 flags;
	__aligned_u64 out_features;
	__u32 out_page_bytes;
	__u32 out_max_ndim;
	__u32 out_max_ranges;
	__u32 out_nr_streams;
	__u32 out_max_depth;
	__u32 __reserved;
	__aligned_u64 out_max_inflight_bytes;
};

/**
 * struct mmnf_ioc_attach - MMNF_IOC_ATTACH
 * @size: sizeof(struct mmnf_ioc_attach)
 * @flags: 0
 * @fd: the file or block device, open for reading.  The module opens it again
 *	with the caller's credentials and keeps that; @fd may be closed.
 * @ndim: 1 .. MMNF_MAX_NDIM
 * @element_bytes: size of one element, bytes, at least 1
 * @__reserved: 0
 * @data_offset_bytes: where element (0, 0, ...) starts in the file
 * @record_bytes: what one access usually needs whole, for example a row, in
 *	bytes; records tile the data from @data_offset_bytes.  0: unknown.
 *	On a miss the whole record is read, not the touched page alone.
 * @extent: number of elements along each of the @ndim axes, each at least 1
 * @stride_bytes: signed distance between neighbours along each axis, bytes;
 *	element i starts at @data_offset_bytes + sum(i[k] * @stride_bytes[k])
 * @out_id: the field's number, its directory under
 *	/sys/class/misc/mmnf/fields/
 *
 * Every element must lie inside the file as it is now (EINVAL).  A file cut
 * short later raises SIGBUS where it is touched.
 */
struct mmnf_ioc_attach {
	__u32 size;
	__u32 flags;
	__s32 fd;
	__u32 ndim;
	__u32 element_bytes;
	__u32 __reserved;
	__aligned_u64 data_offset_bytes;
	__aligned_u64 record_bytes;
	__aligned_u64 extent[MMNF_MAX_NDIM];
	__aligned_s64 stride_bytes[MMNF_MAX_NDIM];
	__aligned_u64 out_id;
};

/**
 * enum mmnf_mode - who decides what is read ahead
 * @MMNF_MODE_OFF: nobody here: mappings made in this mode behave exactly as
 *	mappings of the file itself, with the kernel's own readahead
 * @MMNF_MODE_AUTO: the predictor (default)
 * @MMNF_MODE_MANUAL: only MMNF_IOC_PREFETCH; a miss reads its record alone
 */
enum mmnf_mode {
	MMNF_MODE_OFF = 0,
	MMNF_MODE_AUTO = 1,
	MMNF_MODE_MANUAL = 2,
};

/**
 * struct mmnf_ioc_policy - MMNF_IOC_SET_POLICY, MMNF_IOC_GET_POLICY
 * @size: sizeof(struct mmnf_ioc_policy)
 * @flags: 0
 * @mode: enum mmnf_mode.  The change between OFF and the others reaches
 *	mappings that are made afterwards; their host readahead is fixed at mmap.
 * @min_depth: accesses planned ahead when a walk is first recognised
 * @max_depth: most accesses planned ahead of one strided walk, at least
 *	@min_depth
 * @__reserved: 0
 * @max_window_bytes: most bytes planned ahead of one sequential walk
 * @max_inflight_bytes: most bytes planned ahead of one walk of any kind
 *
 * SET reads a zero in a number as "leave as it is"; mode is always set.
 */
struct mmnf_ioc_policy {
	__u32 size;
	__u32 flags;
	__u32 mode;
	__u32 min_depth;
	__u32 max_depth;
	__u32 __reserved;
	__aligned_u64 max_window_bytes;
	__aligned_u64 max_inflight_bytes;
};

/**
 * struct mmnf_range - half-open byte range of the file
 * @start_bytes: first byte
 * @len_bytes: length; the part beyond the end of the file is ignored
 */
struct mmnf_range {
	__aligned_u64 start_bytes;
	__aligned_u64 len_bytes;
};

#define MMNF_PREFETCH_WAIT (1U << 0) /* return when the data is resident */

/**
 * struct mmnf_ioc_prefetch - MMNF_IOC_PREFETCH
 * @size: sizeof(struct mmnf_ioc_prefetch)
 * @flags: 0 or MMNF_PREFETCH_WAIT
 * @ranges: user pointer to @nr_ranges of struct mmnf_range
 * @nr_ranges: 0 .. mmnf_ioc_info.out_max_ranges
 * @__reserved: 0
 * @out_queued_bytes: bytes for which a read was started by this call
 * @out_resident_bytes: bytes of touched pages that were there already, read in
 *	or on their way
 * @out_hole_bytes: bytes skipped because the file has no data there
 *
 * Read errors are not reported here: the access that needs the data reports
 * them.  Charged to the caller's memory cgroup.
 */
struct mmnf_ioc_prefetch {
	__u32 size;
	__u32 flags;
	__aligned_u64 ranges;
	__u32 nr_ranges;
	__u32 __reserved;
	__aligned_u64 out_queued_bytes;
	__aligned_u64 out_resident_bytes;
	__aligned_u64 out_hole_bytes;
};

/**
 * struct mmnf_ioc_stats - MMNF_IOC_GET_STATS, one consistent snapshot
 * @size: sizeof(struct mmnf_ioc_stats)
 * @flags: 0
 * @out_faults: page faults on the field's mappings; a retried fault is one
 * @out_hits: of these: page was resident and up to date
 * @out_late: of these: page was being read
 * @out_misses: of these: page was absent
 * @out_prefetched_pages: pages for which the predictor started a read
 * @out_used_pages: of these: mapped by a fault afterwards
 * @out_wasted_pages: of these: given up, reclaimed before use, or forgotten
 * @out_pending_pages: of these: waiting to be used
 * @out_plans: plans handed to the worker
 * @out_dropped_plans: plans dropped because the worker was too far behind
 * @out_manual_pages: pages for which MMNF_IOC_PREFETCH started a read
 * @out_mappings: live mappings
 *
 * Laws: faults = hits + late + misses;
 * prefetched = used + wasted + pending.
 */
struct mmnf_ioc_stats {
	__u32 size;
	__u32 flags;
	__aligned_u64 out_faults;
	__aligned_u64 out_hits;
	__aligned_u64 out_late;
	__aligned_u64 out_misses;
	__aligned_u64 out_prefetched_pages;
	__aligned_u64 out_used_pages;
	__aligned_u64 out_wasted_pages;
	__aligned_u64 out_pending_pages;
	__aligned_u64 out_plans;
	__aligned_u64 out_dropped_plans;
	__aligned_u64 out_manual_pages;
	__aligned_u64 out_mappings;
};

#endif /* _LINUX_MMNF_H */
