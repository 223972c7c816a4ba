// SPDX-License-Identifier: MIT
/*
 * What is held back.  A connection was given up with a write under way, or a
 * process died with some: until the grace time is over, such a write may reach the
 * storage, and what is newer in its place must not be there before.
 */
#include <errno.h>
#include <stdlib.h>

#include "ssd-internal.h"

void mmnf_ssd_hold_add(struct mmnf_ssd *ssd, u64 start, u64 end, u64 seq,
		       u64 number, s64 given_up_ns)
{
	struct ssd_drain *d = &ssd->drain;
	s64 now = mmnf_ssd_now_ns(), until;
	struct ssd_hold *h;
	u32 i, n = 0;

	for (i = 0; i < d->nr_holds; i++)
		if (d->hold[i].until_ns > now)
			d->hold[n++] = d->hold[i];
	d->nr_holds = n;
	until = (s64)max_u64((u64)now, (u64)given_up_ns) + d->grace_ns;
	if (n < SSD_HOLDS) {
		h = &d->hold[d->nr_holds++];
		*h = (struct ssd_hold) { start, end, seq, number, 0 };
	} else {
		/* Too many to tell apart: the last covers more than it must. */
		h = &d->hold[n - 1];
		h->start = min_u64(h->start, start);
		h->end = max_u64(h->end, end);
		h->seq = min_u64(h->seq, seq);
		h->number = min_u64(h->number, number);
	}
	h->until_ns = (s64)max_u64((u64)h->until_ns, (u64)until);
}

static bool was_replayed(const struct ssd_drain *d, u64 start, u64 end)
{
	u32 low = 0, high = d->nr_replayed;

	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (d->replayed[mid].end > start)
			high = mid;
		else
			low = mid + 1;
	}
	return low < d->nr_replayed && d->replayed[low].start < end;
}

bool mmnf_ssd_hold_blocks(struct mmnf_ssd *ssd, u64 start, u64 end, u64 seq)
{
	const struct ssd_drain *d = &ssd->drain;
	s64 now = mmnf_ssd_now_ns();
	u32 i;

	for (i = 0; i < d->nr_holds; i++)
		if (d->hold[i].start < end && d->hold[i].end > start &&
		    seq > d->hold[i].seq && now < d->hold[i].until_ns)
			return true;
	return now < d->replay_ns && seq > d->replay_seq &&
	       was_replayed(d, start, end);
}

s64 mmnf_ssd_hold_end_ns(const struct mmnf_ssd *ssd)
{
	const struct ssd_drain *d = &ssd->drain;
	s64 end_ns = d->nr_replayed ? d->replay_ns : 0;
	u32 i;

	for (i = 0; i < d->nr_holds; i++)
		end_ns = (s64)max_u64((u64)end_ns, (u64)d->hold[i].until_ns);
	return end_ns;
}

/* By the blocks that were sent; joined where they touch. */
int mmnf_ssd_hold_replayed(struct mmnf_ssd *ssd)
{
	struct ssd_drain *d = &ssd->drain;
	u64 align = ssd->backing.align, start, end;
	struct ssd_hold *last = NULL;
	u32 i;

	if (!ssd->dirty.nr)
		return 0;
	d->replayed = malloc(ssd->dirty.nr * sizeof(*d->replayed));
	if (!d->replayed)
		return mmnf_error(ENOMEM, "no memory for the cache's log");
	for (i = 0; i < ssd->dirty.nr; i++) {
		start = ssd->dirty.e[i]->start / align * align;
		end = round_up_u64(ssd->dirty.e[i]->end, align);
		if (last && last->end >= start) {
			last->end = end;
			continue;
		}
		last = &d->replayed[d->nr_replayed++];
		*last = (struct ssd_hold) { .start = start, .end = end };
	}
	d->replay_seq = ssd->log.seq;
	/* When it was given up nobody knows. */
	d->replay_ns = mmnf_ssd_now_ns() + ssd->backing.late_ns + d->grace_ns;
	return 0;
}
