// SPDX-License-Identifier: MIT
/*
 * Lustre's readahead of mapped files, the one in production that knows strides.
 *
 * Source: lustre-release, lustre/llite/rw.c: ll_io_read_page(), ras_update(),
 * ras_detect_read_pattern(), ras_detect_cluster_range(),
 * ras_stride_increase_window(), ll_readahead(), ll_read_ahead_pages(), with the
 * defaults of llite_internal.h and RPCs of 4 MiB (osc max_pages_per_rpc).  One
 * state per open file.  Pages read ahead stay not up to date until they are
 * touched, so llite sees the first touch of each.
 *
 *	 stride_offset
 *	    |#####...............|#####...............|#####......
 *	     bytes
 *	    |<----- length ----->|
 *
 * Taken as it is there, with its quirks.  Left out: locks, the limit of all files
 * together, and the asynchronous path, which mapped files do not take.
 */
#include <stdlib.h>

#include "replay.h"

#define MIB_PAGES (1048576 / PAGE_BYTES)
#define RPC_PAGES (4 * MIB_PAGES)
#define MAX_PAGES_PER_FILE (256 * MIB_PAGES)
#define RANGE_PAGES MIB_PAGES
#define MIN_RANGE_PAGES 16ULL
#define LOOSE_PAGES 8ULL

#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIN(a, b) ((a) < (b) ? (a) : (b))

/* Members are ras_* of struct ll_readahead_state. */
struct lustre {
	uint64_t last_read_end_bytes; /* last byte of the access before */
	uint64_t consecutive_bytes;
	uint64_t consecutive_stride_requests;
	uint64_t stride_offset, stride_length, stride_bytes;
	uint64_t window_start, window_pages, next_readahead;
	uint64_t range_min_start, range_max_end;
	uint64_t range_requests, last_range_pages;
	bool need_increase_window;
};

static bool in_window(uint64_t pos, uint64_t point, uint64_t before,
		      uint64_t after)
{
	uint64_t start = point > before ? point - before : 0;

	return start <= pos && pos <= point + after;
}

static bool stride_mode(const struct lustre *ras)
{
	return ras->consecutive_stride_requests > 1;
}

/* Bytes of the pattern in [off, off + length). */
static uint64_t stride_byte_count(const struct lustre *ras, uint64_t off,
				  uint64_t length)
{
	uint64_t start, end, start_left, end_left;
	uint64_t bytes = ras->stride_bytes, st_off = ras->stride_offset;

	start = off > st_off ? off - st_off : 0;
	end = off + length > st_off ? off + length - st_off : 0;
	if (!ras->stride_length || !length || !end)
		return length;
	start_left = start % ras->stride_length;
	start /= ras->stride_length;
	start_left = start_left < bytes ? bytes - start_left : 0;
	end_left = MIN(end % ras->stride_length, bytes);
	end /= ras->stride_length;
	if (start == end)
		return end_left - (bytes - start_left);
	return start_left + bytes * (end - start - 1) + end_left;
}

static uint64_t align_index(const struct lustre *ras, uint64_t index)
{
	uint64_t size = MIN(ras->window_pages, RPC_PAGES);

	return size ? index - index % size : index;
}

static void reset(struct lustre *ras, uint64_t index)
{
	ras->consecutive_bytes = 0;
	ras->window_pages = 0;
	ras->window_start = align_index(ras, index);
	ras->next_readahead = MAX(ras->window_start, index + 1);
}

static void stride_reset(struct lustre *ras)
{
	ras->consecutive_stride_requests = 0;
	ras->stride_length = 0;
	ras->stride_bytes = 0;
}

static bool has_stride(const struct lustre *ras)
{
	return ras->stride_length && ras->stride_bytes &&
	       ras->stride_bytes != ras->stride_length;
}

static bool read_in_stride(const struct lustre *ras, uint64_t pos)
{
	uint64_t gap = pos - ras->last_read_end_bytes - 1;

	if (!has_stride(ras))
		return false;
	if (!gap)
		return ras->consecutive_bytes + PAGE_BYTES <= ras->stride_bytes;
	return ras->stride_length - ras->stride_bytes == gap &&
	       ras->consecutive_bytes == ras->stride_bytes &&
	       PAGE_BYTES <= ras->stride_bytes;
}

static bool index_in_stride(const struct lustre *ras, uint64_t index)
{
	uint64_t pos = index * PAGE_BYTES, offset;

	if (!has_stride(ras))
		return false;
	if (pos < ras->stride_offset)
		return ras->stride_offset - pos < PAGE_BYTES;
	offset = (pos - ras->stride_offset) % ras->stride_length;
	return offset < ras->stride_bytes ||
	       ras->stride_length - offset < PAGE_BYTES;
}

static void stride_init(struct lustre *ras, uint64_t pos)
{
	uint64_t gap = pos - ras->last_read_end_bytes - 1;

	if (pos <= ras->last_read_end_bytes) {
		stride_reset(ras);
		return;
	}
	ras->stride_bytes = ras->consecutive_bytes;
	ras->stride_length = gap + ras->consecutive_bytes;
	ras->consecutive_stride_requests++;
	ras->stride_offset = pos;
}

static void stride_increase_window(struct lustre *ras)
{
	uint64_t end = (ras->window_start + ras->window_pages) * PAGE_BYTES;
	uint64_t inc = RPC_PAGES * PAGE_BYTES;
	uint64_t window = ras->window_pages * PAGE_BYTES, left;

	end = end > ras->stride_offset ? end - ras->stride_offset : 0;
	left = end % ras->stride_length;
	if (left < ras->stride_bytes && ras->stride_bytes - left >= inc) {
		window += inc;
	} else {
		if (left < ras->stride_bytes) {
			window += ras->stride_bytes - left;
			inc -= ras->stride_bytes - left;
		} else {
			window += ras->stride_length - left;
		}
		window += inc / ras->stride_bytes * ras->stride_length +
			  inc % ras->stride_bytes;
	}
	left = stride_byte_count(ras, ras->window_start * PAGE_BYTES, window);
	if ((left + PAGE_BYTES - 1) / PAGE_BYTES <= MAX_PAGES_PER_FILE ||
	    !ras->window_pages)
		ras->window_pages = window / PAGE_BYTES;
}

static void increase_window(struct lustre *ras)
{
	uint64_t window =
		MIN(ras->window_pages + RPC_PAGES, MAX_PAGES_PER_FILE);

	if (stride_mode(ras))
		stride_increase_window(ras);
	else
		ras->window_pages =
			window < RPC_PAGES ? window : align_index(ras, window);
}

/* How many pages of a loosely local cluster were touched. */
static void detect_range(struct lustre *ras, uint64_t index)
{
	uint64_t last_pages = ras->range_max_end - ras->range_min_start + 1;

	if (ras->range_max_end &&
	    in_window(index * PAGE_BYTES, ras->last_read_end_bytes,
		      RANGE_PAGES * PAGE_BYTES, RANGE_PAGES * PAGE_BYTES)) {
		ras->range_requests++;
		ras->range_max_end = MAX(ras->range_max_end, index);
		ras->range_min_start = MIN(ras->range_min_start, index);
		if (ras->range_max_end - ras->range_min_start + 1 <=
		    RANGE_PAGES)
			return;
	}
	ras->last_range_pages = last_pages;
	ras->range_requests = 0;
	ras->range_min_start = index;
	ras->range_max_end = index;
}

static void detect_pattern(struct lustre *ras, uint64_t index)
{
	uint64_t pos = index * PAGE_BYTES, pages;
	bool stride = false;

	if (!in_window(pos, ras->last_read_end_bytes, LOOSE_PAGES * PAGE_BYTES,
		       LOOSE_PAGES * PAGE_BYTES)) {
		if (read_in_stride(ras, pos)) {
			ras->consecutive_bytes = 0;
			stride = ++ras->consecutive_stride_requests > 1;
		} else {
			if (ras->consecutive_stride_requests)
				stride_reset(ras);
			else
				stride_init(ras, pos);
			ras->consecutive_bytes = 0;
			reset(ras, index);
		}
	} else if (stride_mode(ras) && !read_in_stride(ras, pos)) {
		stride_reset(ras);
		ras->window_pages = 0;
		ras->next_readahead = index;
	}
	ras->consecutive_bytes += PAGE_BYTES;
	pages = ras->consecutive_bytes / PAGE_BYTES;
	if ((pages >= RANGE_PAGES && pages % RANGE_PAGES == 0) || stride)
		ras->need_increase_window = true;
	ras->last_read_end_bytes = pos + PAGE_BYTES - 1;
}

/* A miss where a read ahead was thought to be.  False: nothing is read. */
static bool missed_in_window(struct lustre *ras, uint64_t index)
{
	ras->need_increase_window = false;
	if (index_in_stride(ras, index) && stride_mode(ras)) {
		reset(ras, index);
		/* Pages against bytes: so it is there. */
		if (ras->window_start < ras->stride_offset)
			stride_reset(ras);
		return true;
	}
	reset(ras, index);
	stride_reset(ras);
	return false;
}

/* ras_update() for a page of a mapped file */
static void update(struct lustre *ras, uint64_t index, bool hit)
{
	uint64_t pages;

	detect_range(ras, index);
	detect_pattern(ras, index);
	if (!ras->need_increase_window && ras->window_pages <= RANGE_PAGES &&
	    ras->range_requests >= 2) {
		pages = MAX(MIN_RANGE_PAGES, ras->last_range_pages);
		ras->window_pages = hit ? 0 : pages;
		if (!hit)
			index = index < pages / 2 ? 0 : index - pages / 2;
	} else if (!hit && ras->window_pages && index < ras->next_readahead &&
		   in_window(index, ras->window_start, 0, ras->window_pages) &&
		   !missed_in_window(ras, index)) {
		return;
	}
	ras->window_start = align_index(ras, index);
	if (stride_mode(ras)) {
		ras->next_readahead = MAX(index + 1, ras->next_readahead);
		ras->window_start =
			MAX(ras->window_start, ras->stride_offset / PAGE_BYTES);
	} else {
		ras->next_readahead =
			hit ? MAX(ras->next_readahead, ras->window_start) :
			      index + 1;
	}
	if (ras->need_increase_window)
		increase_window(ras);
	ras->need_increase_window = false;
}

/* ll_read_ahead_pages(): [start, end] but @skip; in stride mode without gaps. */
static uint64_t read_pages(const struct lustre *ras, struct replay *r,
			   const struct touch *t, uint64_t start, uint64_t end,
			   uint64_t skip)
{
	uint64_t first = start, nr = 0, left, index, last = 0, offset, pos;

	left = start > end ? 0 : (end - start + 1) * PAGE_BYTES;
	if (stride_mode(ras))
		left = stride_byte_count(ras, start * PAGE_BYTES, left);
	left = (left + PAGE_BYTES - 1) / PAGE_BYTES;
	for (index = start; index <= end && left; index++) {
		if (skip && index == skip)
			continue;
		if (stride_mode(ras) && !index_in_stride(ras, index)) {
			pos = index * PAGE_BYTES;
			offset =
				(pos - ras->stride_offset) % ras->stride_length;
			pos += ras->stride_length - offset;
			if (pos / PAGE_BYTES > index + 1)
				index = pos / PAGE_BYTES - 1;
			continue;
		}
		last = index;
		if (replay_present(r, index))
			continue;
		left--;
		if (nr && index == first + nr) {
			nr++;
			continue;
		}
		if (nr)
			replay_read(r, t->now_ns, first, nr, NO_PAGE);
		first = index;
		nr = 1;
	}
	if (nr)
		replay_read(r, t->now_ns, first, nr, NO_PAGE);
	return last;
}

static void *lustre_create(const struct replay *r)
{
	struct lustre *ras = calloc(1, sizeof(*ras));

	(void)r;
	if (ras)
		reset(ras, 0);
	return ras;
}

static void lustre_fault(void *state, struct replay *r, const struct touch *t)
{
	uint64_t start, end = 0, last, skip = 0, eof = replay_pages(r) - 1;
	struct lustre *ras = state;

	update(ras, t->page, t->outcome != MMNF_MISS);
	if (t->outcome == MMNF_MISS)
		replay_read(r, t->now_ns, t->page, 1, NO_PAGE);
	if (ras->next_readahead < t->page)
		skip = t->page;
	start = ras->next_readahead;
	if (stride_mode(ras))
		start = MAX(start, ras->stride_offset / PAGE_BYTES);
	if (ras->window_pages)
		end = ras->window_start + ras->window_pages - 1;
	if (skip)
		end = start + ras->window_pages - 1;
	if (!end || end < start)
		return;
	if (eof <= end) {
		end = eof;
	} else if (!skip) {
		/* Trimmed to whole RPCs, unless that leaves nothing. */
		last = align_index(ras, end + 1);
		if (last)
			end = last - 1;
	}
	last = read_pages(ras, r, t, start, end, skip);
	if (last)
		ras->next_readahead = last + 1;
}

const struct predictor_ops predict_lustre = {
	.name = "lustre",
	.touched_alone = true,
	.create = lustre_create,
	.destroy = free,
	.fault = lustre_fault,
};
