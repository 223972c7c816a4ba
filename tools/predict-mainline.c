// SPDX-License-Identifier: MIT
/*
 * The kernel's readahead of mapped files without advice.
 *
 * Source: Linux 6.1, mm/filemap.c (do_sync_mmap_readahead, do_async_mmap_readahead,
 * filemap_map_pages) and mm/readahead.c (ondemand_readahead).  One state per open
 * file, for all its threads:
 *
 *	miss			read-around: ra_pages about the page, of which the
 *				last quarter's first page gets PG_readahead
 *	PG_readahead touched	the window moves on behind what was read
 *	far more misses		than hits: no more read-around (mmap_miss)
 *
 * A window starts with [start, start + size); its marker is at
 * start + size - async_size.
 */
#include <stdlib.h>

#include "replay.h"

#define MMAP_LOTSAMISS 100

struct mainline {
	uint64_t start, size, async_size; /* pages */
	uint64_t max_pages;
	uint64_t mmap_miss;
};

static void *mainline_create(const struct replay *r)
{
	struct mainline *ra = calloc(1, sizeof(*ra));

	if (ra)
		ra->max_pages = replay_model(r)->readahead_pages;
	return ra;
}

/* get_next_ra_size(): four times while small, then twice, up to the most. */
static uint64_t next_size(const struct mainline *ra)
{
	if (ra->size < ra->max_pages / 16)
		return 4 * ra->size;
	if (ra->size <= ra->max_pages / 2)
		return 2 * ra->size;
	return ra->max_pages;
}

static void submit(const struct mainline *ra, struct replay *r,
		   const struct touch *t)
{
	replay_read(r, t->now_ns, ra->start, ra->size,
		    ra->start + ra->size - ra->async_size);
}

static void read_around(struct mainline *ra, struct replay *r,
			const struct touch *t)
{
	if (ra->mmap_miss < MMAP_LOTSAMISS * 10)
		ra->mmap_miss++;
	if (ra->mmap_miss > MMAP_LOTSAMISS)
		return;
	ra->start = t->page > ra->max_pages / 2 ? t->page - ra->max_pages / 2 :
						  0;
	ra->size = ra->max_pages;
	ra->async_size = ra->max_pages / 4;
	submit(ra, r, t);
}

/*
 * page_cache_next_miss(): the first absent page of [first, first + nr); if there is
 * none, 6.1 returns the last page that it looked at.
 */
static uint64_t next_miss(const struct replay *r, uint64_t first, uint64_t nr)
{
	uint64_t page = first;

	while (page + 1 < first + nr && replay_present(r, page))
		page++;
	return page;
}

/* ondemand_readahead() for a marked page, asked for ra_pages. */
static void read_ahead(struct mainline *ra, struct replay *r,
		       const struct touch *t)
{
	uint64_t start;

	if (!t->page) {
		/* Start of file: get_init_ra_size(max, max) is max. */
		ra->start = 0;
		ra->size = ra->max_pages;
		ra->async_size = ra->size;
	} else if (t->page == ra->start + ra->size - ra->async_size ||
		   t->page == ra->start + ra->size) {
		ra->start += ra->size;
		if (ra->size < next_size(ra))
			ra->size = next_size(ra);
		ra->async_size = ra->size;
	} else {
		/* Another walk's marker: its window ends at the next hole. */
		start = next_miss(r, t->page + 1, ra->max_pages);
		ra->start = start;
		ra->size = start - t->page + ra->max_pages;
		ra->size = next_size(ra);
		ra->async_size = ra->size;
	}
	/* Would this read hit its own marker at once? */
	if (t->page == ra->start && ra->size == ra->async_size) {
		if (ra->size + next_size(ra) <= ra->max_pages) {
			ra->async_size = next_size(ra);
			ra->size += ra->async_size;
		} else {
			ra->size = ra->max_pages;
			ra->async_size = ra->max_pages / 2;
		}
	}
	submit(ra, r, t);
}

static void mainline_fault(void *state, struct replay *r, const struct touch *t)
{
	struct mainline *ra = state;

	/* map_pages has served it: ->fault does not see it. */
	if (t->around || !ra->max_pages)
		return;
	if (t->outcome == MMNF_MISS) {
		read_around(ra, r, t);
		return;
	}
	if (ra->mmap_miss)
		ra->mmap_miss--;
	if (t->marker)
		read_ahead(ra, r, t);
}

static void mainline_mapped(void *state, const struct touch *t, uint64_t found)
{
	struct mainline *ra = state;

	(void)t;
	ra->mmap_miss -= found < ra->mmap_miss ? found : ra->mmap_miss;
}

const struct predictor_ops predict_mainline = {
	.name = "mainline",
	.create = mainline_create,
	.destroy = free,
	.fault = mainline_fault,
	.mapped = mainline_mapped,
};
