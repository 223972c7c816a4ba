// SPDX-License-Identifier: MIT
/*
 * Prefetch, evict and residency of a box: hints and questions about the page
 * cache, in whole pages.
 *
 * Nothing here changes what is read.  Absent segments are passed over in one
 * step, so a box over a whole sparse petabyte costs one look per segment.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"
#include "cache.h"
#include "tier.h"

#define SPANS 256
#define PROBE_PAGES 4096
#define HINT_BYTES (128ULL << 10)

/*
 * The kernel cuts one call off at the larger of the device's readahead and its
 * best request; 128 KiB is what every device takes.
 */
static void advise_willneed(int fd, u64 offset, u64 bytes)
{
	u64 done, n;

	for (done = 0; done < bytes; done += n) {
		n = min_u64(bytes - done, HINT_BYTES);
		posix_fadvise(fd, (off_t)(offset + done), (off_t)n,
			      POSIX_FADV_WILLNEED);
	}
}

bool mmnf_hint_data(int fd, u64 *start, u64 end, u64 *bytes)
{
	off_t data = lseek(fd, (off_t)*start, SEEK_DATA), hole;

	if (data < 0 && errno != ENXIO) /* not known here: all is data */
		data = (off_t)*start;
	if (data < 0 || (u64)data >= end)
		return false;
	hole = lseek(fd, data, SEEK_HOLE);
	*start = (u64)data;
	*bytes = (hole > data ? min_u64((u64)hole, end) : end) - *start;
	return true;
}

void mmnf_hint_willneed(int fd, u64 offset, u64 bytes)
{
	u64 end = offset + bytes;

	for (; mmnf_hint_data(fd, &offset, end, &bytes); offset += bytes)
		advise_willneed(fd, offset, bytes);
}

/* What is done with the spans of one segment. */
typedef void spans_fn(struct mmnf_field *field, struct mmnf_segment *s,
		      const struct mmnf_span *spans, u32 nr, u64 *bytes);

static void start_reading(struct mmnf_field *field, struct mmnf_segment *s,
			  const struct mmnf_span *spans, u32 nr, u64 *bytes)
{
	u32 i;

	if (!field->ops->cached)
		field->ops->prefetch(field, s, spans, nr);
	for (i = 0; i < nr; i++)
		if (!field->ops->cached ||
		    mmnf_ahead_add(field, s->number, spans[i].start,
				   spans[i].bytes))
			*bytes += spans[i].bytes;
}

/* Adds a run as pages; false if there is no room. */
static bool add_span(const struct mmnf_segment *s, struct mmnf_span *spans,
		     u32 *nr, const struct mmnf_run *run)
{
	u64 page = mmnf_page_bytes(), start = run->offset / page * page;
	u64 end = min_u64(round_up_u64(run->offset + run->bytes, page),
			  s->file_bytes);
	struct mmnf_span *last = *nr ? &spans[*nr - 1] : NULL;

	if (last && start >= last->start &&
	    start <= last->start + last->bytes) {
		if (end > last->start + last->bytes)
			last->bytes = end - last->start;
		return true;
	}
	if (*nr == SPANS)
		return false;
	spans[*nr] = (struct mmnf_span) { start, end - start };
	++*nr;
	return true;
}

/* Hands the pages of a box out, segment by segment, until bytes reach most. */
static int each_segment(struct mmnf_field *field, const struct mmnf_box *box,
			u64 most, spans_fn *fn, u64 *bytes)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_span spans[SPANS];
	struct mmnf_segment *s = NULL;
	struct mmnf_box normal;
	struct mmnf_runs it;
	struct mmnf_run run;
	u32 nr = 0;
	int err;

	err = mmnf_geometry_box(g, box, &normal, bytes);
	if (err)
		return err;
	if (!*bytes)
		return 0;
	*bytes = 0;
	mmnf_runs_init_mode(&it, g, &normal, most, MMNF_RUNS_COVER);
	while (*bytes < most && mmnf_runs_next(&it, &run)) {
		if (s && s->number != run.segment) {
			fn(field, s, spans, nr, bytes);
			nr = 0;
			mmnf_segment_put(field, s);
			s = NULL;
		}
		if (!s && mmnf_segment_get(field, run.segment, false, &s)) {
			s = NULL;
			mmnf_runs_skip_segment(&it);
			continue;
		}
		if (mmnf_segment_place(field, s, &run) ||
		    add_span(s, spans, &nr, &run))
			continue;
		fn(field, s, spans, nr, bytes);
		nr = 0;
		add_span(s, spans, &nr, &run);
	}
	if (s) {
		fn(field, s, spans, nr, bytes);
		mmnf_segment_put(field, s);
	}
	return 0;
}

MMNF_EXPORT ssize_t mmnf_prefetch(struct mmnf_field *field,
				  const struct mmnf_box *box)
{
	/* More than half of memory would push out its own beginning. */
	u64 most = (u64)sysconf(_SC_PHYS_PAGES) / 2 * mmnf_page_bytes();
	char *memory;
	u64 bytes;
	int err;

	mmnf_error_enter("mmnf_prefetch");
	mmnf_cache_memory(field->cache, &memory, &bytes);
	if (memory)
		most = max_u64(bytes / 2, MMNF_TILE_BYTES);
	err = each_segment(field, box, most, start_reading, &bytes);
	return err ? err : (ssize_t)bytes;
}

static u64 resident_pages(struct mmnf_field *field, struct mmnf_segment *s,
			  const struct mmnf_span *span)
{
	unsigned char state[PROBE_PAGES];
	u64 page = mmnf_page_bytes(), done, n, i, sum = 0;

	for (done = 0; done < span->bytes; done += n) {
		n = min_u64(span->bytes - done, PROBE_PAGES * page);
		mmnf_resident_pages(field, s, span->start + done, n, state);
		for (i = 0; i < (n + page - 1) / page; i++)
			sum += state[i];
	}
	return sum;
}

static void drop(struct mmnf_field *field, struct mmnf_segment *s,
		 const struct mmnf_span *spans, u32 nr, u64 *bytes)
{
	u64 page = mmnf_page_bytes(), before, after;
	struct mmnf_mapping *m;
	u32 i;

	for (i = 0; i < nr; i++) {
		u64 len = round_up_u64(spans[i].bytes, page);

		before = resident_pages(field, s, &spans[i]);
		/* Pages that this handle maps would not go. */
		pthread_mutex_lock(&field->windows.lock);
		m = mmnf_window_find(field, s->number);
		if (m)
			madvise(m->base + spans[i].start, len, MADV_DONTNEED);
		pthread_mutex_unlock(&field->windows.lock);
		mmnf_mapped_drop(s, spans[i].start, len);
		posix_fadvise(s->fd, (off_t)spans[i].start, (off_t)len,
			      POSIX_FADV_DONTNEED);
		after = resident_pages(field, s, &spans[i]);
		if (after < before)
			*bytes += (before - after) * page;
		/* Before L2, which a read of a known hole would fill again. */
		if (field->remote)
			mmnf_engine_net_forget(field, s->number, spans[i].start,
					       spans[i].bytes);
		*bytes += MMNF_TILE_BYTES * mmnf_cache_forget(field, s->number,
							      spans[i].start,
							      spans[i].bytes);
	}
}

MMNF_EXPORT ssize_t mmnf_evict(struct mmnf_field *field,
			       const struct mmnf_box *box)
{
	u64 bytes;
	int err;

	mmnf_error_enter("mmnf_evict");
	err = each_segment(field, box, S64_MAX, drop, &bytes);
	return err ? err : (ssize_t)bytes;
}

/* The states of PROBE_PAGES neighbouring pages of one segment. */
struct probe {
	u64 segment, first;
	int pagemap;
	unsigned char resident[PROBE_PAGES];
	u64 mapped[PROBE_PAGES];
};

#define PAGEMAP_PRESENT (1ULL << 63)

static void probe_load(struct mmnf_field *field, struct probe *p,
		       struct mmnf_segment *s, u64 number)
{
	u64 page = mmnf_page_bytes(), start, bytes;
	struct mmnf_mapping *m;
	char *base;

	p->segment = s->number;
	p->first = number / PROBE_PAGES * PROBE_PAGES;
	start = p->first * page;
	bytes = min_u64(s->file_bytes - start, PROBE_PAGES * page);
	memset(p->mapped, 0, sizeof(p->mapped));
	mmnf_resident_pages(field, s, start, bytes, p->resident);
	pthread_mutex_lock(&field->windows.lock);
	m = mmnf_window_find(field, s->number);
	base = m ? m->base + start : NULL;
	pthread_mutex_unlock(&field->windows.lock);
	if (base && pread(p->pagemap, p->mapped,
			  (bytes + page - 1) / page * sizeof(u64),
			  (off_t)((uintptr_t)base / page * sizeof(u64))) < 0)
		memset(p->mapped, 0, sizeof(p->mapped));
}

static void classify(struct mmnf_field *field, struct probe *p,
		     struct mmnf_segment *s, const struct mmnf_run *run,
		     struct mmnf_residency *out)
{
	u64 page = mmnf_page_bytes(), end = run->offset + run->bytes, at, n, i;

	for (at = run->offset; at < end; at += n) {
		u64 number = at / page;

		n = min_u64(end, (number + 1) * page) - at;
		if (p->segment != s->number || number < p->first ||
		    number >= p->first + PROBE_PAGES)
			probe_load(field, p, s, number);
		i = number - p->first;
		if (mmnf_cache_has(field->cache, s->number, at)) {
			out->hot_bytes += n;
			continue;
		}
		if (p->mapped[i] & PAGEMAP_PRESENT)
			out->hot_bytes += n;
		else if (p->resident[i])
			out->warm_bytes += n;
	}
}

/* The data of a run; what was never written is cold, however much it is. */
static void classify_data(struct mmnf_field *field, struct probe *p,
			  struct mmnf_segment *s, const struct mmnf_run *run,
			  struct mmnf_residency *out)
{
	u64 start = run->offset, end = start + run->bytes, bytes;
	struct mmnf_run part = *run;

	if (run->bytes < HINT_BYTES) {
		classify(field, p, s, run, out);
		return;
	}
	for (; mmnf_hint_data(s->fd, &start, end, &bytes); start += bytes) {
		part.offset = start;
		part.bytes = bytes;
		classify(field, p, s, &part, out);
	}
}

static void classify_box(struct mmnf_field *field, struct probe *p,
			 const struct mmnf_box *normal,
			 struct mmnf_residency *out)
{
	struct mmnf_segment *s = NULL;
	struct mmnf_runs it;
	struct mmnf_run run;

	mmnf_runs_init_mode(&it, mmnf_field_geometry(field), normal, S64_MAX,
			    MMNF_RUNS_WRITE);
	while (mmnf_runs_next(&it, &run)) {
		if (s && s->number != run.segment) {
			mmnf_segment_put(field, s);
			s = NULL;
		}
		if (!s && mmnf_segment_get(field, run.segment, false, &s)) {
			s = NULL;
			mmnf_runs_skip_segment(&it);
			continue;
		}
		if (!mmnf_segment_place(field, s, &run))
			classify_data(field, p, s, &run, out);
	}
	if (s)
		mmnf_segment_put(field, s);
}

/**
 * struct asked - a box of which the engine tells where it is
 * @bytes: of the runs in segments that are there
 * @pages: where their pages are, in bytes
 */
struct asked {
	struct mmnf_span spans[SPANS];
	u32 nr;
	bool known;
	u64 bytes;
	struct mmnf_residency pages;
};

static void ask_engine(struct mmnf_field *field, struct asked *a,
		       struct mmnf_segment *s)
{
	if (s && a->nr && a->known)
		a->known = field->ops->residency(field, s, a->spans, a->nr,
						 &a->pages);
	a->nr = 0;
}

static void ask_about_box(struct mmnf_field *field, struct asked *a,
			  const struct mmnf_box *normal)
{
	struct mmnf_segment *s = NULL;
	struct mmnf_runs it;
	struct mmnf_run run;

	mmnf_runs_init_mode(&it, mmnf_field_geometry(field), normal, S64_MAX,
			    MMNF_RUNS_WRITE);
	while (a->known && mmnf_runs_next(&it, &run)) {
		if (s && s->number != run.segment) {
			ask_engine(field, a, s);
			mmnf_segment_put(field, s);
			s = NULL;
		}
		if (!s && mmnf_segment_get(field, run.segment, false, &s)) {
			s = NULL;
			mmnf_runs_skip_segment(&it);
			continue;
		}
		if (mmnf_segment_place(field, s, &run))
			continue;
		a->bytes += run.bytes;
		if (add_span(s, a->spans, &a->nr, &run))
			continue;
		ask_engine(field, a, s);
		add_span(s, a->spans, &a->nr, &run);
	}
	ask_engine(field, a, s);
	if (s)
		mmnf_segment_put(field, s);
}

/* Pages are whole, the box need not be: its bytes are shared out as theirs. */
static bool residency_of_engine(struct mmnf_field *field,
				const struct mmnf_box *normal,
				struct mmnf_residency *out)
{
	struct asked *a = calloc(1, sizeof(*a));
	u64 pages;
	bool known;

	if (!a)
		return false;
	a->known = true;
	ask_about_box(field, a, normal);
	known = a->known;
	pages = a->pages.hot_bytes + a->pages.warm_bytes + a->pages.cold_bytes;
	if (known && pages) {
		out->hot_bytes = (u64)((unsigned __int128)a->bytes *
				       a->pages.hot_bytes / pages);
		out->warm_bytes = (u64)((unsigned __int128)a->bytes *
					a->pages.warm_bytes / pages);
	}
	free(a);
	return known;
}

MMNF_EXPORT int mmnf_residency(struct mmnf_field *field,
			       const struct mmnf_box *box,
			       struct mmnf_residency *out)
{
	struct mmnf_residency sum = { .size = sizeof(sum) };
	struct mmnf_box normal;
	struct probe *p;
	u64 bytes;
	int err;

	mmnf_error_enter("mmnf_residency");
	if (out->size != sizeof(*out))
		return mmnf_error(EINVAL, "size is %zu: expected %zu",
				  out->size, sizeof(*out));
	err = mmnf_geometry_box(mmnf_field_geometry(field), box, &normal,
				&bytes);
	if (err)
		return err;
	if (bytes && field->ops->residency &&
	    residency_of_engine(field, &normal, &sum))
		goto out;
	p = malloc(sizeof(*p));
	if (!p)
		return mmnf_error(ENOMEM, "no memory");
	p->segment = UINT64_MAX;
	p->first = 0;
	/* Without /proc nothing is known to be mapped: warm, then. */
	p->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (bytes)
		classify_box(field, p, &normal, &sum);
	if (p->pagemap >= 0)
		close(p->pagemap);
	free(p);
out:
	sum.cold_bytes = bytes - sum.hot_bytes - sum.warm_bytes;
	*out = sum;
	return 0;
}
