// SPDX-License-Identifier: MIT
/*
 * Engine mmap: a plain mapping of the segment file.  Needs nothing but the
 * file.  The kernel is told not to guess; walk.c does.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>

#include "readahead.h"
#include "tier.h"

static int probe(const struct mmnf_field *field, char *reason, size_t len)
{
	(void)field;
	snprintf(reason, len, "asked for");
	return 0;
}

int mmnf_mmap_map(struct mmnf_field *field, int fd, struct mmnf_mapping *m)
{
	int place = m->base ? MAP_FIXED : 0;
	void *p;

	p = mmap(place ? m->base : mmnf_window_hint(field), m->bytes, PROT_READ,
		 MAP_SHARED | place, fd, 0);
	if (p == MAP_FAILED)
		return mmnf_error_system(errno, "mapping segment %" PRIu64,
					 m->segment);
	madvise(p, m->bytes, MADV_RANDOM);
	m->base = p;
	return 0;
}

void mmnf_mmap_unmap(struct mmnf_field *field, struct mmnf_mapping *m)
{
	(void)field;
	munmap(m->base, round_up_u64(m->bytes, mmnf_page_bytes()));
}

static void prefetch(struct mmnf_field *field, struct mmnf_segment *s,
		     const struct mmnf_span *ranges, u32 nr)
{
	struct mmnf_given given;
	u64 start, end;
	u32 i;

	for (i = 0; i < nr; i++) {
		start = ranges[i].start;
		end = start + ranges[i].bytes;
		mmnf_readahead(field, s, start, end, false, &given);
		if (given.end > given.start) {
			mmnf_hint_willneed(s->fd, start, given.start - start);
			start = given.end;
		}
		mmnf_hint_willneed(s->fd, start, end - start);
	}
}

void mmnf_mmap_stats(struct mmnf_field *field, struct mmnf_field_stats *out)
{
	if (field->walk)
		mmnf_walk_stats(field, out);
}

const struct mmnf_tier_ops mmnf_tier_mmap = {
	.name = "mmap",
	.align_bytes = 1,
	.probe = probe,
	.map = mmnf_mmap_map,
	.unmap = mmnf_mmap_unmap,
	.prefetch = prefetch,
	.stats = mmnf_mmap_stats,
	.queue_open = mmnf_queue_file_open,
	.queue_close = mmnf_queue_file_close,
	.submit = mmnf_queue_file_submit,
	.reap = mmnf_queue_file_reap,
};
