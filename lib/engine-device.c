// SPDX-License-Identifier: MIT
/*
 * Engine device: each window is a mapping of /dev/mmnf with the segment file
 * attached, so that the kernel sees the faults and predicts.
 *
 * One open of the device per mapping; the counters of closed ones are kept in
 * the first part of the field's.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/mmnf.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "publish.h"
#include "tier.h"

#define DEVICE "/dev/mmnf"
#define RANGES_AT_ONCE 64

static int probe(const struct mmnf_field *field, char *reason, size_t len)
{
	struct mmnf_ioc_info info = { .size = sizeof(info) };
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC), err;
	char words[64];

	(void)field;
	if (fd < 0) {
		err = errno;
		snprintf(reason, len, "no " DEVICE ": %s",
			 strerror_r(err, words, sizeof(words)));
		return -err;
	}
	err = ioctl(fd, MMNF_IOC_GET_INFO, &info) ? errno : 0;
	close(fd);
	if (err) {
		snprintf(reason, len, DEVICE " does not answer: %s",
			 strerror_r(err, words, sizeof(words)));
		return -err;
	}
	snprintf(reason, len, DEVICE " answers");
	return 0;
}

static bool add_axis(struct mmnf_ioc_attach *a, u64 extent, s64 stride)
{
	if (extent == 1)
		return true;
	if (a->ndim == MMNF_MAX_NDIM)
		return false;
	a->extent[a->ndim] = extent;
	a->stride_bytes[a->ndim++] = stride;
	return true;
}

/*
 * The axes of a segment: of its tiles, then those inside a tile.  Where they are
 * too many, or the tiles lie in an order of their own, it is a row of bytes.
 */
static void describe(const struct mmnf_geometry *g, u64 file_bytes,
		     struct mmnf_ioc_attach *a)
{
	bool known = g->segment_bytes + g->index_bytes <= file_bytes;
	u32 i;

	a->element_bytes = g->element_bytes;
	a->record_bytes = g->record_bytes;
	a->data_offset_bytes = g->data_offset;
	for (i = 0; i < g->ndim; i++)
		known &= add_axis(a, g->tiles[i],
				  (s64)(g->tile_stride[i] * g->tile_bytes));
	for (i = 0; i < g->ndim; i++)
		known &= add_axis(a, g->tile[i], g->stride_bytes[i]);
	if (known && a->ndim)
		return;
	memset(a->extent, 0, sizeof(a->extent));
	memset(a->stride_bytes, 0, sizeof(a->stride_bytes));
	a->ndim = 1;
	a->element_bytes = 1;
	a->data_offset_bytes = 0;
	a->record_bytes = 0;
	a->extent[0] = file_bytes;
	a->stride_bytes[0] = 1;
}

static int attach(struct mmnf_field *field, int device, int fd, u64 file_bytes)
{
	struct mmnf_ioc_attach a = { .size = sizeof(a) };
	struct mmnf_ioc_policy policy = { .size = sizeof(policy) };

	a.fd = fd;
	describe(mmnf_field_geometry(field), file_bytes, &a);
	if (ioctl(device, MMNF_IOC_ATTACH, &a))
		return -errno;
	policy.mode = MMNF_MODE_MANUAL;
	if (field->prefetch_off && ioctl(device, MMNF_IOC_SET_POLICY, &policy))
		return -errno;
	return 0;
}

static int map(struct mmnf_field *field, int fd, struct mmnf_mapping *m)
{
	int place = m->base ? MAP_FIXED : 0, device, err;
	void *p;

	device = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0)
		return mmnf_error_system(errno, DEVICE);
	err = attach(field, device, fd, m->bytes);
	if (err) {
		close(device);
		return mmnf_error_system(-err,
					 DEVICE ": attaching segment %" PRIu64,
					 m->segment);
	}
	p = mmap(place ? m->base : mmnf_window_hint(field), m->bytes, PROT_READ,
		 MAP_SHARED | place, device, 0);
	if (p == MAP_FAILED) {
		err = errno;
		close(device);
		return mmnf_error_system(
			err, DEVICE ": mapping segment %" PRIu64, m->segment);
	}
	m->base = p;
	m->device = device;
	return 0;
}

static void add_stats(int device, struct mmnf_field_stats *out)
{
	struct mmnf_ioc_stats s = { .size = sizeof(s) };

	if (ioctl(device, MMNF_IOC_GET_STATS, &s))
		return;
	mmnf_count(&out->accesses, s.out_faults);
	mmnf_count(&out->hits, s.out_hits);
	mmnf_count(&out->late, s.out_late);
	mmnf_count(&out->misses, s.out_misses);
	mmnf_count(&out->prefetched_pages, s.out_prefetched_pages);
	mmnf_count(&out->used_pages, s.out_used_pages);
	mmnf_count(&out->wasted_pages, s.out_wasted_pages);
	mmnf_count(&out->pending_pages, s.out_pending_pages);
}

static void unmap(struct mmnf_field *field, struct mmnf_mapping *m)
{
	struct mmnf_field_stats *kept = &field->published->part[0].stats;
	u64 pending = kept->pending_pages;

	munmap(m->base, round_up_u64(m->bytes, mmnf_page_bytes()));
	add_stats(m->device, kept);
	/* What was waiting there will not be used through this mapping. */
	kept->wasted_pages += kept->pending_pages - pending;
	kept->pending_pages = pending;
	close(m->device);
}

/* A device of our own for the call: the mapping's may be closed meanwhile. */
static int device_of(struct mmnf_field *field, u64 segment)
{
	struct mmnf_mapping *m;
	int fd = -1;

	pthread_mutex_lock(&field->windows.lock);
	m = mmnf_window_find(field, segment);
	if (m)
		fd = fcntl(m->device, F_DUPFD_CLOEXEC, 0);
	pthread_mutex_unlock(&field->windows.lock);
	return fd;
}

static void prefetch(struct mmnf_field *field, struct mmnf_segment *s,
		     const struct mmnf_span *ranges, u32 nr)
{
	struct mmnf_range list[RANGES_AT_ONCE];
	int device = device_of(field, s->number);
	u32 done, i, n;

	for (done = 0; done < nr; done += n) {
		struct mmnf_ioc_prefetch p = { .size = sizeof(p) };

		n = nr - done < RANGES_AT_ONCE ? nr - done : RANGES_AT_ONCE;
		for (i = 0; i < n; i++) {
			list[i].start_bytes = ranges[done + i].start;
			list[i].len_bytes = ranges[done + i].bytes;
		}
		p.select.items = (uintptr_t)list;
		p.select.nr_items = n;
		if (device >= 0 && !ioctl(device, MMNF_IOC_PREFETCH, &p))
			continue;
		/* Not mapped: the page cache is the same. */
		for (i = 0; i < n; i++)
			mmnf_hint_willneed(s->fd, list[i].start_bytes,
					   list[i].len_bytes);
	}
	if (device >= 0)
		close(device);
}

/*
 * The kernel tells what any process has in use.  An open of the device of its
 * own: looking at a segment does not map it.
 */
static bool residency(struct mmnf_field *field, struct mmnf_segment *s,
		      const struct mmnf_span *ranges, u32 nr,
		      struct mmnf_residency *out)
{
	int device = open(DEVICE, O_RDWR | O_CLOEXEC);
	struct mmnf_range list[RANGES_AT_ONCE];
	u32 done, i, n;
	bool ok;

	ok = device >= 0 && !attach(field, device, s->fd, s->file_bytes);
	for (done = 0; ok && done < nr; done += n) {
		struct mmnf_ioc_residency r = { .size = sizeof(r) };

		n = nr - done < RANGES_AT_ONCE ? nr - done : RANGES_AT_ONCE;
		for (i = 0; i < n; i++) {
			list[i].start_bytes = ranges[done + i].start;
			list[i].len_bytes = ranges[done + i].bytes;
		}
		r.select.items = (uintptr_t)list;
		r.select.nr_items = n;
		ok = !ioctl(device, MMNF_IOC_RESIDENCY, &r);
		out->hot_bytes += r.out_total.hot_bytes;
		out->warm_bytes += r.out_total.warm_bytes;
		out->cold_bytes +=
			r.out_total.cold_bytes + r.out_total.hole_bytes;
	}
	if (device >= 0)
		close(device);
	return ok;
}

static void stats(struct mmnf_field *field, struct mmnf_field_stats *out)
{
	struct mmnf_windows *w = &field->windows;
	struct mmnf_mapping *m;
	u32 i;

	pthread_mutex_lock(&w->lock);
	for (i = 0; i < w->nr_slots; i++)
		for (m = w->chain[i]; m; m = m->next)
			if (!m->absent)
				add_stats(m->device, out);
	pthread_mutex_unlock(&w->lock);
}

const struct mmnf_tier_ops mmnf_tier_device = {
	.name = "device",
	.align_bytes = 1,
	.probe = probe,
	.map = map,
	.unmap = unmap,
	.prefetch = prefetch,
	.residency = residency,
	.stats = stats,
	.queue_open = mmnf_queue_file_open,
	.queue_close = mmnf_queue_file_close,
	.submit = mmnf_queue_file_submit,
	.reap = mmnf_queue_file_reap,
};
