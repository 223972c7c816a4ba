// SPDX-License-Identifier: MIT
/*
 * Pins: pointers that stay good whatever else is activated.
 *
 * A pin is a count on the mapping; window.c keeps what has one.  At most
 * windows.good - 1 mappings have one, so that there is room for another, unless
 * all segments fit anyway.  The one piece of memory that absent tiles show is
 * never unmapped and needs no count.
 *
 * windows.lock guards the counts.
 */
#include <errno.h>
#include <inttypes.h>

#include "internal.h"
#include "tier.h"

static bool is_in(const struct mmnf_mapping *m, const char *p)
{
	return p >= m->base && p < m->base + m->bytes;
}

static bool in_fill_tile(const struct mmnf_field *field, const char *p)
{
	const char *base =
		__atomic_load_n(&field->windows.fill_tile, __ATOMIC_ACQUIRE);

	return base && p >= base &&
	       p < base + mmnf_field_geometry(field)->tile_bytes;
}

static struct mmnf_mapping *hold(struct mmnf_field *field, u64 segment)
{
	struct mmnf_windows *w = &field->windows;
	struct mmnf_mapping *m;

	pthread_mutex_lock(&w->lock);
	m = mmnf_window_use(field, segment);
	if (m && !m->pins && w->nr_pinned + 1 >= w->good &&
	    mmnf_field_geometry(field)->nr_segments > w->good) {
		mmnf_error(EBUSY,
			   "%u segments are pinned: expected fewer than "
			   "max_windows, here %u",
			   w->nr_pinned + 1, w->good);
		m = NULL;
	}
	if (m)
		w->nr_pinned += !m->pins++;
	pthread_mutex_unlock(&w->lock);
	return m;
}

/* With the lock. */
static void release(struct mmnf_windows *w, struct mmnf_mapping *m)
{
	/* As a pinned one it counts as active in this generation already. */
	m->generation = w->generation;
	w->nr_pinned -= !--m->pins;
}

MMNF_EXPORT const void *mmnf_window_pin(struct mmnf_field *field,
					const uint64_t *coord)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_windows *w = &field->windows;
	bool can_map = w->good && field->ops->map, pinned;
	struct mmnf_mapping *m;
	u64 segment, offset;
	const void *p;
	u32 i;

	mmnf_error_enter("mmnf_window_pin");
	for (i = 0; i < g->ndim; i++)
		if (coord[i] >= g->shape[i])
			return mmnf_activate(field, coord); /* says so */
	mmnf_geometry_locate(g, coord, &segment, &offset);
	do {
		m = can_map ? hold(field, segment) : NULL;
		if (can_map && !m)
			return NULL;
		p = mmnf_activate(field, coord);
		if (!m)
			return p; /* NULL, and it says why */
		pthread_mutex_lock(&w->lock);
		/* Not where the file was replaced in between. */
		pinned = p && is_in(m, p);
		if (!pinned)
			release(w, m);
		pthread_mutex_unlock(&w->lock);
	} while (!pinned && p && !in_fill_tile(field, p));
	return p;
}

/* With the lock. */
static struct mmnf_mapping *find(struct mmnf_field *field, const char *p)
{
	struct mmnf_windows *w = &field->windows;
	struct mmnf_mapping *m;
	u32 i;

	for (i = 0; i < w->nr_slots; i++)
		for (m = w->chain[i]; m; m = m->next)
			if (m->pins && is_in(m, p))
				return m;
	return NULL;
}

MMNF_EXPORT int mmnf_window_unpin(struct mmnf_field *field, const void *p)
{
	struct mmnf_windows *w = &field->windows;
	struct mmnf_mapping *m;
	int err = 0;

	mmnf_error_enter("mmnf_window_unpin");
	pthread_mutex_lock(&w->lock);
	m = find(field, p);
	if (m)
		release(w, m);
	else if (!in_fill_tile(field, p))
		err = mmnf_error(EINVAL, "%p: expected a pinned pointer", p);
	pthread_mutex_unlock(&w->lock);
	return err;
}
