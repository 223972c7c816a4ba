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
 *  - Members named out_* are written by the kernel, and by a command that succeeds
 *    alone: after an error they are what they were.
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
 *	EACCES		fd was not opened for what is asked
 *	ENXIO		nothing is attached to this open of the device yet
 *	EBUSY		something is attached already
 *	EPERM		not told to strangers, see MMNF_IOC_RESIDENCY; writing to a
 *			file that is append-only, immutable or sealed
 *	ENOMEM		no memory; of MMNF_PREFETCH_WAIT: not enough for the selection
 *	EFAULT		bad pointer
 *	EINTR		a signal came while MMNF_PREFETCH_WAIT had to wait, or it was
 *			a fatal one
 *
 * mmap: ENXIO before ATTACH; EACCES for PROT_EXEC, and for PROT_WRITE without
 * MMNF_ATTACH_WRITE; EOPNOTSUPP for a MAP_PRIVATE that is writable; otherwise
 * what the mmap of the attached file returns.  A mapping made without PROT_WRITE
 * never becomes writable.  Access beyond the end of the file and read errors
 * raise SIGBUS, as for any mapped file.
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
#define MMNF_IOC_EVICT _IO(MMNF_IOC_TYPE, 0x85)
#define MMNF_IOC_RESIDENCY _IO(MMNF_IOC_TYPE, 0x86)
#define MMNF_IOC_GET_STATS _IO(MMNF_IOC_TYPE, 0x87)

#define MMNF_MAX_NDIM 8

/* What the running module can do; bits of mmnf_ioc_info.out_features. */
#define MMNF_FEATURE_PREDICT (1ULL << 0) /* reads ahead by itself */
#define MMNF_FEATURE_PREFETCH_RANGES (1ULL << 1) /* MMNF_IOC_PREFETCH */
#define MMNF_FEATURE_MEMCG (1ULL << 2) /* charged to the mapping's owner */
#define MMNF_FEATURE_SELECT (1ULL << 3) /* boxes and records, not ranges only */
#define MMNF_FEATURE_EVICT (1ULL << 4) /* MMNF_IOC_EVICT */
#define MMNF_FEATURE_RESIDENCY (1ULL << 5) /* MMNF_IOC_RESIDENCY */
#define MMNF_FEATURE_URING (1ULL << 6) /* struct mmnf_uring_cmd */
#define MMNF_FEATURE_WRITE (1ULL << 7) /* MMNF_ATTACH_WRITE */

/**
 * struct mmnf_ioc_info - MMNF_IOC_GET_INFO
 * @size: sizeof(struct mmnf_ioc_info)
 * @flags: 0
 * @out_features: MMNF_FEATURE_* bits
 * @out_page_bytes: granularity of residency, bytes
 * @out_max_ndim: most dimensions of a geometry
 * @out_max_items: most items in one struct mmnf_select
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
	__u32 out_max_items;
	__u32 out_nr_streams;
	__u32 out_max_depth;
	__u32 __reserved;
	__aligned_u64 out_max_inflight_bytes;
};

#define MMNF_ATTACH_WRITE (1U << 0) /* mappings may be writable */

/**
 * struct mmnf_ioc_attach - MMNF_IOC_ATTACH
 * @size: sizeof(struct mmnf_ioc_attach)
 * @flags: 0 or MMNF_ATTACH_WRITE, for which @fd and the device must be open for
 *	reading and writing (EACCES) and the file neither append-only nor
 *	immutable (EPERM)
 * @fd: the file or block device, open for reading.  The module opens it again
 *	with the caller's credentials and keeps that; @fd may be closed.
 * @ndim: 1 .. MMNF_MAX_NDIM
 * @element_bytes: size of one element, bytes, at least 1
 * @__reserved: 0
 * @data_offset_bytes: where element (0, 0, ...) starts in the file
 * @record_bytes: what one access usually needs whole, for example a row, in
 *	bytes; records tile the data from @data_offset_bytes.  0: unknown.
 *	On a miss the whole record is read, not the touched page alone.  The
 *	file's bytes outside the array are of no record.
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
 * enum mmnf_select_kind - what the items of a selection are
 * @MMNF_SELECT_RANGES: struct mmnf_range, byte ranges of the file
 * @MMNF_SELECT_BOXES: struct mmnf_ioc_box, boxes of the attached array
 * @MMNF_SELECT_RECORDS: __u64, numbers of records: record i starts at
 *	data_offset_bytes + i * record_bytes and is record_bytes long, as given
 *	to ATTACH, where record_bytes must not have been 0
 */
enum mmnf_select_kind {
	MMNF_SELECT_RANGES = 0,
	MMNF_SELECT_BOXES = 1,
	MMNF_SELECT_RECORDS = 2,
};

/**
 * struct mmnf_select - a part of a field, for PREFETCH, EVICT and RESIDENCY
 * @items: user pointer to @nr_items items
 * @nr_items: 0 .. mmnf_ioc_info.out_max_items
 * @kind: enum mmnf_select_kind
 *
 * The pages that hold a byte of an item are meant, whole.  Items are taken in
 * the order given; what lies beyond the end of the file is ignored.  A wrong
 * item ends the command; those before it may have been acted upon.
 *
 * The list is read a page at a time, whatever its length.  What does not wait
 * goes on at any signal but a fatal one.  A signal ends MMNF_PREFETCH_WAIT with
 * EINTR where it would have to wait, or begins it anew under SA_RESTART.
 */
struct mmnf_select {
	__aligned_u64 items;
	__u32 nr_items;
	__u32 kind;
};

/**
 * struct mmnf_range - half-open byte range of the file
 * @start_bytes: first byte
 * @len_bytes: length
 */
struct mmnf_range {
	__aligned_u64 start_bytes;
	__aligned_u64 len_bytes;
};

/**
 * struct mmnf_ioc_box - elements @start + i * @step, 0 <= i < @count, along each
 * axis of the attached array
 * @start: coordinates of the first element
 * @count: elements along each axis; a 0 makes the box empty
 * @step: signed distance along each axis, elements; 0 is read as 1
 *
 * Zero beyond ndim.  Every element must be one of the array (EINVAL).  The box
 * is gone through in the order of the file, runs that share or touch a page
 * being taken as one; a box that falls into more than 2^24 runs is refused
 * (EINVAL).
 */
struct mmnf_ioc_box {
	__aligned_u64 start[MMNF_MAX_NDIM];
	__aligned_u64 count[MMNF_MAX_NDIM];
	__aligned_s64 step[MMNF_MAX_NDIM];
};

#define MMNF_PREFETCH_WAIT (1U << 0) /* return when the data is resident */

/**
 * struct mmnf_ioc_prefetch - MMNF_IOC_PREFETCH
 * @size: sizeof(struct mmnf_ioc_prefetch)
 * @flags: 0 or MMNF_PREFETCH_WAIT
 * @select: what to read
 * @out_queued_bytes: bytes for which a read was started by this call
 * @out_resident_bytes: bytes of selected pages that were there already, read in
 *	or on their way
 * @out_hole_bytes: bytes skipped because the file has no data there
 *
 * Nothing is read, asked of the file system or allocated for what is resident.
 * Read errors are not reported here: the access that needs the data reports
 * them.  Charged to the caller's memory cgroup.
 *
 * For what finds no memory, or no room in a limit of that cgroup, no read is
 * started, nor is it counted as queued.  With MMNF_PREFETCH_WAIT that is ENOMEM, when
 * the rest has been read.  Without it, before Linux 6.9, that is known by the number of
 * resident pages of the whole file: what others read of it meanwhile may be counted.
 */
struct mmnf_ioc_prefetch {
	__u32 size;
	__u32 flags;
	struct mmnf_select select;
	__aligned_u64 out_queued_bytes;
	__aligned_u64 out_resident_bytes;
	__aligned_u64 out_hole_bytes;
};

/**
 * struct mmnf_uring_cmd - MMNF_IOC_PREFETCH by io_uring
 * @arg: user pointer to a struct mmnf_ioc_prefetch
 * @__reserved: 0
 *
 * The cmd[] of an sqe with opcode IORING_OP_URING_CMD, the device's fd, and
 * cmd_op MMNF_IOC_PREFETCH.  It is the same command, with MMNF_PREFETCH_WAIT
 * understood: the cqe comes when the data is resident, its res being 0 or
 * -errno.  The struct and the list must stay until then.
 *
 * It can be cancelled, which takes effect at the next page (-ECANCELED before
 * its start, -EINTR later).  The fd may be closed while it runs.
 */
struct mmnf_uring_cmd {
	__aligned_u64 arg;
	__aligned_u64 __reserved;
};

/**
 * struct mmnf_ioc_evict - MMNF_IOC_EVICT
 * @size: sizeof(struct mmnf_ioc_evict)
 * @flags: 0
 * @select: what to drop from the page cache
 * @out_evicted_bytes: bytes that were resident and are not now
 * @out_dirty_bytes: bytes that stayed because they are not yet on storage
 * @out_mapped_bytes: bytes that stayed because a process has them mapped
 * @out_busy_bytes: bytes that stayed for any other reason: being read, or held
 *	for a moment by another user of the page cache
 *
 * Drops clean, unmapped pages and nothing else: no data is lost, and no mapping
 * changes.  Pages are dropped by folio: one that a folio shares with pages
 * outside the selection stays with them.
 */
struct mmnf_ioc_evict {
	__u32 size;
	__u32 flags;
	struct mmnf_select select;
	__aligned_u64 out_evicted_bytes;
	__aligned_u64 out_dirty_bytes;
	__aligned_u64 out_mapped_bytes;
	__aligned_u64 out_busy_bytes;
};

/**
 * struct mmnf_state - where the bytes of an item are, by whole pages
 * @hot_bytes: resident and in use: mapped by a process, or touched through a
 *	mapping or read() since they came
 * @warm_bytes: resident or being read, and not used yet
 * @cold_bytes: on storage only
 * @hole_bytes: neither resident nor on storage: the file has no data there
 *
 * Where pages share a folio, use is that of the folio.
 */
struct mmnf_state {
	__aligned_u64 hot_bytes;
	__aligned_u64 warm_bytes;
	__aligned_u64 cold_bytes;
	__aligned_u64 hole_bytes;
};

/**
 * struct mmnf_ioc_residency - MMNF_IOC_RESIDENCY
 * @size: sizeof(struct mmnf_ioc_residency)
 * @flags: 0
 * @select: what to look at
 * @states: user pointer to room for select.nr_items of struct mmnf_state, one
 *	for each item; 0: the sum is enough
 * @out_total: sum over the items
 *
 * Changes nothing.  As mincore(), tells only those who own the attached file or
 * may write to it (EPERM): for others it would show what strangers read.
 */
struct mmnf_ioc_residency {
	__u32 size;
	__u32 flags;
	struct mmnf_select select;
	__aligned_u64 states;
	struct mmnf_state out_total;
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
 * @out_evicted_pages: pages that MMNF_IOC_EVICT dropped
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
	__aligned_u64 out_evicted_pages;
};

#endif /* _LINUX_MMNF_H */
