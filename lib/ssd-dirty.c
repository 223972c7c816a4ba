// SPDX-License-Identifier: MIT
/*
 * Which bytes of the space are newer in the log: extents in a sorted array.
 *
 *	old	[aaaaaaaaaaaa]     [bbbbb][cccc]
 *	new	     [nnn]            [nnnnnnnnnnn]
 *	then	[aaa][nnn][aa]     [bb][nnnnnnnnnnn]
 *
 * A few ten thousand at most: what is moved at an insertion is pointers.  Memory
 * alone; the caller holds the lock.
 */
#include <stdlib.h>
#include <string.h>

#include "ssd-internal.h"

u32 mmnf_ssd_dirty_find(const struct ssd_dirty *d, u64 start)
{
	u32 low = 0, high = d->nr;

	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (d->e[mid]->end > start)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

bool mmnf_ssd_dirty_overlaps(const struct ssd_dirty *d, u64 start, u64 end)
{
	u32 i = mmnf_ssd_dirty_find(d, start);

	return i < d->nr && d->e[i]->start < end;
}

/* n places from i on become m. */
static void move(struct ssd_dirty *d, u32 i, u32 n, u32 m)
{
	memmove(d->e + i + m, d->e + i + n, (d->nr - i - n) * sizeof(*d->e));
	d->nr = d->nr - n + m;
}

static bool make_room(struct ssd_dirty *d)
{
	u32 room = d->room ? 2 * d->room : 64;
	struct ssd_extent **e;

	if (d->nr + 2 <= d->room)
		return true;
	e = realloc(d->e, room * sizeof(*e));
	if (!e)
		return false;
	d->e = e;
	d->room = room;
	return true;
}

/* An extent's bytes from start on. */
static void cut_front(struct ssd_extent *e, u64 start)
{
	e->at += start - e->start;
	e->start = start;
}

bool mmnf_ssd_dirty_insert(struct ssd_dirty *d, const struct ssd_extent *e)
{
	struct ssd_extent *own = malloc(sizeof(*own));
	struct ssd_extent *tail = malloc(sizeof(*tail));
	u32 i = mmnf_ssd_dirty_find(d, e->start), n, k;

	if (!own || !tail || !make_room(d)) {
		free(own);
		free(tail);
		return false;
	}
	*own = *e;
	d->bytes += e->end - e->start;
	if (i < d->nr && d->e[i]->start < e->start) {
		struct ssd_extent *head = d->e[i];

		d->bytes -= min_u64(head->end, e->end) - e->start;
		if (head->end > e->end) {
			*tail = *head;
			cut_front(tail, e->end);
			head->end = e->start;
			move(d, i + 1, 0, 2);
			d->e[i + 1] = own;
			d->e[i + 2] = tail;
			return true;
		}
		head->end = e->start;
		i++;
	}
	free(tail);
	for (n = 0; i + n < d->nr && d->e[i + n]->end <= e->end; n++)
		d->bytes -= d->e[i + n]->end - d->e[i + n]->start;
	if (i + n < d->nr && d->e[i + n]->start < e->end) {
		d->bytes -= e->end - d->e[i + n]->start;
		cut_front(d->e[i + n], e->end);
	}
	for (k = i; k < i + n; k++)
		free(d->e[k]);
	move(d, i, n, 1);
	d->e[i] = own;
	return true;
}

bool mmnf_ssd_dirty_split(struct ssd_dirty *d, u32 i, u64 at)
{
	struct ssd_extent *tail = malloc(sizeof(*tail));

	if (!tail || !make_room(d)) {
		free(tail);
		return false;
	}
	*tail = *d->e[i];
	cut_front(tail, at);
	d->e[i]->end = at;
	move(d, i + 1, 0, 1);
	d->e[i + 1] = tail;
	return true;
}

void mmnf_ssd_dirty_remove(struct ssd_dirty *d,
			   bool (*go)(void *arg, struct ssd_extent *e),
			   void *arg)
{
	u32 i, n = 0;

	for (i = 0; i < d->nr; i++) {
		struct ssd_extent *e = d->e[i];

		if (go(arg, e)) {
			d->bytes -= e->end - e->start;
			free(e);
		} else {
			d->e[n++] = e;
		}
	}
	d->nr = n;
}

void mmnf_ssd_dirty_free(struct ssd_dirty *d)
{
	u32 i;

	for (i = 0; i < d->nr; i++)
		free(d->e[i]);
	free(d->e);
}
