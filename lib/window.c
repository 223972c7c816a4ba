// SPDX-License-Identifier: MIT
/*
 * Windows: the segments that are in memory, so that a petabyte is pointed into
 * from 47 bits.
 *
 * Where all segments fit, view.base[] has one address for each, which never
 * changes once it is there: mmnf_activate() looks there.  Else table[] is read
 * without a lock, one entry per slot.
 *
 * The mappings themselves hang in chain[] of the same slot.  An entry may
 * be overwritten by a neighbour of its slot at any time, a mapping not.
 *
 * A pointer stays good until `good` other segments have been activated.  Since
 * the fast path leaves no trace, time is cut into generations: one ends when
 * `good` different segments were activated in it.  Then whatever was not
 * activated in it is unmapped, and the table is cleared so that the first use
 * in the next generation is seen here.  So at most 2 * good are mapped.
 *
 * Where the field has an index, a pointer is resolved through it each time, in
 * the mapping itself; an absent tile is one piece of memory that shows the fill
 * value.  When a segment file appears or is replaced there, its old mapping is
 * retired: what pointers show does not change under them.
 *
 * A segment without a file is not in the table, and is looked for each time it is
 * activated: another handle may have made it.
 *
 * A pinned mapping is active in each generation, so that the bound holds and
 * there is room for one more.
 *
 * How many are good, and the memory of the tables: window-fit.c.
 *
 * windows.lock guards all but the reading of the table.  An entry is changed in
 * the order tag = 0, the rest, tag, so a reader that meets the same tag before
 * and after has what belongs to it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"
#include "tier.h"

#define PATTERN_MIN (2ULL << 20)
#define PATTERN_MAX (64ULL << 20)

/* Where the table of tiles is in memory; an absent segment has none. */
static const char *index_of(const struct mmnf_field *field,
			    const struct mmnf_mapping *m)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);

	if (!g->indexed || m->absent)
		return NULL;
	return g->index_first ? m->base : m->base + m->bytes - g->index_bytes;
}

static struct mmnf_window *entry_of(const struct mmnf_windows *w, u64 segment)
{
	return &w->table[segment & (w->nr_slots - 1)];
}

/* An absent segment is not: each time it is looked whether it is there by now. */
static void publish(struct mmnf_field *field, const struct mmnf_mapping *m)
{
	struct mmnf_window *entry = entry_of(&field->windows, m->segment);

	if (m->absent)
		return;
	__atomic_store_n(&entry->tag, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&entry->base, m->base, __ATOMIC_RELEASE);
	__atomic_store_n(&entry->bytes, m->bytes, __ATOMIC_RELEASE);
	__atomic_store_n(&entry->index, index_of(field, m), __ATOMIC_RELEASE);
	__atomic_store_n(&entry->tag, m->segment + 1, __ATOMIC_RELEASE);
	if (field->view.direct)
		__atomic_store_n(
			&field->view.base[m->segment],
			m->base + mmnf_field_geometry(field)->data_offset,
			__ATOMIC_RELEASE);
}

static void unmap(struct mmnf_field *field, struct mmnf_mapping *m)
{
	mmnf_guard_drop(m);
	if (m->absent)
		munmap(m->base, round_up_u64(m->bytes, mmnf_page_bytes()));
	else
		field->ops->unmap(field, m);
	mmnf_count(&mmnf_stats(field)->windows_unmapped, 1);
	field->windows.nr_mapped--;
	free(m);
}

static void end_generation(struct mmnf_field *field,
			   const struct mmnf_mapping *wanted)
{
	struct mmnf_windows *w = &field->windows;
	u32 i;

	for (i = 0; i < w->nr_slots; i++) {
		struct mmnf_mapping **at = &w->chain[i], *m;

		__atomic_store_n(&w->table[i].tag, 0, __ATOMIC_RELEASE);
		while ((m = *at)) {
			if (m->generation == w->generation || m == wanted ||
			    m->pins) {
				at = &m->next;
				continue;
			}
			*at = m->next;
			unmap(field, m);
		}
	}
	w->generation++;
	w->nr_active = w->nr_pinned;
}

/* Behind an index in front, elements need not lie at multiples of their size. */
static u64 fill_phase(const struct mmnf_field *field)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);

	return g->data_offset % g->element_bytes;
}

/* Fill that is not zero is one small file, mapped again and again. */
static int pattern_open(struct mmnf_field *field)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 bytes = PATTERN_MIN, phase = fill_phase(field);
	struct mmnf_windows *w = &field->windows;
	char *p;
	int fd;

	while (bytes < PATTERN_MAX && bytes * 32 < mmnf_window_bytes(field))
		bytes *= 2;
	fd = memfd_create("mmnf-fill", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	p = ftruncate(fd, (off_t)bytes) ?
		    MAP_FAILED :
		    mmap(NULL, bytes, PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		int err = -errno;

		close(fd);
		return err;
	}
	mmnf_geometry_fill(g, p + phase, bytes - phase);
	/* The end of an element: the file is mapped behind itself, too. */
	memcpy(p, p + g->element_bytes, phase);
	munmap(p, bytes);
	w->pattern = fd;
	w->pattern_bytes = bytes;
	return 0;
}

/* Memory of whole pages that shows the fill value, from fill_phase() on. */
static int map_fill(struct mmnf_field *field, u64 bytes, char **out)
{
	struct mmnf_windows *w = &field->windows;
	char *base;
	u64 at;
	int err;

	base = mmap(mmnf_window_hint(field), bytes, PROT_READ,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return -errno;
	*out = base;
	if (mmnf_field_geometry(field)->fill_is_zero)
		return 0;
	err = w->pattern < 0 ? pattern_open(field) : 0;
	for (at = 0; !err && at < bytes; at += w->pattern_bytes)
		if (mmap(base + at, min_u64(w->pattern_bytes, bytes - at),
			 PROT_READ, MAP_SHARED | MAP_FIXED, w->pattern,
			 0) == MAP_FAILED)
			err = -errno;
	if (err) {
		munmap(base, bytes);
		*out = NULL;
	}
	return err;
}

static int map_absent(struct mmnf_field *field, struct mmnf_mapping *m)
{
	if (m->base) /* its file has come and gone */
		return 0;
	m->absent = true;
	m->bytes = mmnf_window_bytes(field);
	return map_fill(field, m->bytes, &m->base);
}

static int map_segment(struct mmnf_field *field, struct mmnf_mapping *m)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_segment *s;
	int err;

	err = mmnf_segment_get(field, m->segment, false, &s);
	if (err == -ENOENT) {
		err = map_absent(field, m);
		return err ? mmnf_error_system(-err,
					       "segment %" PRIu64
					       ": mapping its fill",
					       m->segment) :
			     0;
	}
	if (err)
		return err;
	/* What lies behind the elements, maybe most of a device, is not needed. */
	m->bytes = g->indexed ?
			   s->file_bytes :
			   min_u64(s->file_bytes, mmnf_geometry_file_bytes(g));
	err = field->ops->map(field, s->fd, m);
	if (!err) {
		m->absent = false;
		mmnf_guard_window(field, m);
	}
	mmnf_segment_put(field, s);
	return err;
}

static struct mmnf_mapping *add(struct mmnf_field *field, u64 segment)
{
	struct mmnf_windows *w = &field->windows;
	struct mmnf_mapping *m = calloc(1, sizeof(*m));
	struct mmnf_mapping **at = &w->chain[segment & (w->nr_slots - 1)];

	if (!m) {
		mmnf_error(ENOMEM, "no memory");
		return NULL;
	}
	m->segment = segment;
	m->device = -1;
	if (map_segment(field, m)) {
		free(m);
		return NULL;
	}
	m->next = *at;
	*at = m;
	w->nr_mapped++;
	mmnf_count(&mmnf_stats(field)->windows_mapped, 1);
	return m;
}

static struct mmnf_mapping *lookup(struct mmnf_field *field, u64 segment)
{
	struct mmnf_windows *w = &field->windows;
	struct mmnf_mapping *m = w->chain[segment & (w->nr_slots - 1)];

	while (m && (m->segment != segment || m->retired))
		m = m->next;
	return m;
}

struct mmnf_mapping *mmnf_window_find(struct mmnf_field *field, u64 segment)
{
	struct mmnf_mapping *m = lookup(field, segment);

	return m && !m->absent ? m : NULL;
}

/* The table must not lead there any more. */
static void retire(struct mmnf_field *field, struct mmnf_mapping *m)
{
	struct mmnf_window *entry = entry_of(&field->windows, m->segment);

	m->retired = true;
	__atomic_store_n(&entry->tag, 0, __ATOMIC_RELEASE);
}

int mmnf_window_refresh(struct mmnf_field *field, u64 segment, bool replaced)
{
	struct mmnf_mapping *m;
	int err = 0;

	pthread_mutex_lock(&field->windows.lock);
	m = lookup(field, segment);
	if (m && (m->absent || replaced)) {
		if (mmnf_field_geometry(field)->indexed)
			retire(field, m);
		else
			err = map_segment(field, m);
	}
	pthread_mutex_unlock(&field->windows.lock);
	return err;
}

/* Another handle may have made the file since. */
static int look_again(struct mmnf_field *field, struct mmnf_mapping *m)
{
	struct mmnf_segment *s;
	int err;

	if (!mmnf_field_geometry(field)->indexed)
		return map_segment(field, m);
	err = mmnf_segment_get(field, m->segment, false, &s);
	if (err)
		return err == -ENOENT ? 0 : err;
	mmnf_segment_put(field, s);
	retire(field, m);
	return 0;
}

static struct mmnf_mapping *activate(struct mmnf_field *field, u64 segment)
{
	struct mmnf_windows *w = &field->windows;
	struct mmnf_mapping *m = lookup(field, segment);
	bool mapped;

	if (m && m->absent) {
		if (look_again(field, m))
			return NULL;
		m = lookup(field, segment);
	}
	mapped = m;
	if (!m || (m->generation != w->generation && !m->pins)) {
		if (w->nr_active >= w->good)
			end_generation(field, m);
		if (!mapped)
			m = add(field, segment);
		if (!m)
			return NULL;
		m->generation = w->generation;
		w->nr_active++;
	}
	publish(field, m);
	return m;
}

struct mmnf_mapping *mmnf_window_use(struct mmnf_field *field, u64 segment)
{
	return activate(field, segment);
}

/*
 * What the predictor is told of a touch.  A tile that is not where it would be
 * by its number is still told by its number: the walk is one through the field.
 */
static void observe(struct mmnf_field *field, u64 segment, u64 nominal,
		    u64 offset, const char *at, const void *ip)
{
	enum mmnf_seen seen = MMNF_UNKNOWN;
	u64 page = mmnf_page_bytes();
	unsigned char here = 1;

	if (mmnf_walk_again(field, segment, nominal, ip))
		return;
	if (mmnf_resident_is_known(field)) {
		mincore((void *)(at - (uintptr_t)at % page), page, &here);
		seen = here & 1 ? MMNF_HERE : MMNF_ABSENT;
	}
	mmnf_walk_touch(field, segment, nominal, offset, ip, seen, true);
}

/* With the lock; for whom, is told to the predictor. */
static const void *slow(struct mmnf_field *field, u64 segment, u64 offset,
			const void *ip)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	const struct mmnf_mapping *m;
	const char *base = NULL;
	bool absent = false;

	mmnf_error_enter("mmnf_activate");
	if (segment >= g->nr_segments || offset >= g->segment_bytes) {
		mmnf_error(ERANGE, "segment %" PRIu64 " is outside", segment);
		return NULL;
	}
	if (!field->ops->map) {
		mmnf_error(EOPNOTSUPP,
			   "engine %s has no pointers: expected mmnf_get()",
			   field->ops->name);
		return NULL;
	}
	if (!field->windows.good) {
		mmnf_error(
			EOPNOTSUPP,
			"a segment is %" PRIu64
			" bytes: expected at most 2^45 for pointers; mmnf_get() works",
			g->segment_bytes);
		return NULL;
	}
	pthread_mutex_lock(&field->windows.lock);
	m = activate(field, segment);
	if (m) {
		base = m->base;
		absent = m->absent;
	}
	pthread_mutex_unlock(&field->windows.lock);
	if (base && field->walk && !absent)
		observe(field, segment, offset, offset, base + offset, ip);
	return base ? base + offset : NULL;
}

MMNF_EXPORT const void *mmnf_activate_slow(struct mmnf_field *field,
					   uint64_t segment, uint64_t offset)
{
	return slow(field, segment, offset, __builtin_return_address(0));
}

/* A window entry as it was at one moment; false if it is another segment's. */
static bool read_entry(const struct mmnf_field *field, u64 segment,
		       struct mmnf_window *out)
{
	const struct mmnf_window *entry = entry_of(&field->windows, segment);

	out->tag = __atomic_load_n(&entry->tag, __ATOMIC_ACQUIRE);
	out->base = __atomic_load_n(&entry->base, __ATOMIC_ACQUIRE);
	out->bytes = __atomic_load_n(&entry->bytes, __ATOMIC_ACQUIRE);
	out->index = __atomic_load_n(&entry->index, __ATOMIC_ACQUIRE);
	return out->tag == segment + 1 &&
	       __atomic_load_n(&entry->tag, __ATOMIC_ACQUIRE) == out->tag;
}

/* The same with the lock: maps the segment if need be. */
static bool load_entry(struct mmnf_field *field, u64 segment,
		       struct mmnf_window *out)
{
	const struct mmnf_mapping *m;

	pthread_mutex_lock(&field->windows.lock);
	m = activate(field, segment);
	if (m)
		*out = (struct mmnf_window) { segment + 1, m->base, m->bytes,
					      index_of(field, m) };
	pthread_mutex_unlock(&field->windows.lock);
	return m;
}

static u64 fill_tile_bytes(const struct mmnf_field *field)
{
	return round_up_u64(mmnf_field_geometry(field)->tile_bytes +
				    fill_phase(field),
			    mmnf_page_bytes());
}

static const char *fill_tile(struct mmnf_field *field)
{
	struct mmnf_windows *w = &field->windows;
	char *base = __atomic_load_n(&w->fill_tile, __ATOMIC_ACQUIRE);
	int err = 0;

	if (base)
		return base;
	pthread_mutex_lock(&w->lock);
	if (!w->fill_tile)
		err = map_fill(field, fill_tile_bytes(field), &base);
	if (base)
		__atomic_store_n(&w->fill_tile, base + fill_phase(field),
				 __ATOMIC_RELEASE);
	base = w->fill_tile;
	pthread_mutex_unlock(&w->lock);
	if (err)
		mmnf_error_system(-err, "mapping the fill of a tile");
	return base;
}

/* Of a tile that this handle has written and not synced, so that no index has it. */
static u64 written_place(struct mmnf_field *field, u64 segment, u64 nominal)
{
	struct mmnf_run run = { .segment = segment, .offset = nominal };
	struct mmnf_segment *s;
	int absent;

	if (!field->writable || mmnf_segment_get(field, segment, false, &s))
		return MMNF_TILE_ABSENT;
	absent = mmnf_segment_place(field, s, &run);
	mmnf_segment_put(field, s);
	return absent ? MMNF_TILE_ABSENT : run.offset;
}

static const void *any(struct mmnf_field *field, const u64 *coord,
		       const void *ip)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 segment, nominal, place;
	struct mmnf_window w;
	const char *at;
	bool known;
	u32 i;

	for (i = 0; i < g->ndim; i++) {
		if (coord[i] < g->shape[i])
			continue;
		mmnf_error_enter("mmnf_activate");
		mmnf_error(
			ERANGE,
			"coordinate of axis %u is outside: expected 0..%" PRIu64,
			i, g->shape[i] - 1);
		return NULL;
	}
	mmnf_geometry_locate(g, coord, &segment, &nominal);
	known = read_entry(field, segment, &w);
	if (!g->indexed && known && !field->walk)
		return w.base + nominal;
	if (!g->indexed || !field->windows.good)
		return slow(field, segment, nominal, ip);
	if (!known) {
		mmnf_error_enter("mmnf_activate");
		if (!load_entry(field, segment, &w))
			return NULL;
	}
	if (!w.index)
		return w.base + nominal;
	place = mmnf_shard_place(g, w.index, w.bytes, nominal);
	if (place == MMNF_TILE_ABSENT)
		place = written_place(field, segment, nominal);
	if (place == MMNF_TILE_ABSENT) {
		at = fill_tile(field);
		return at ? at + (nominal - g->data_offset) % g->tile_bytes :
			    NULL;
	}
	if (place == MMNF_TILE_WRONG) {
		mmnf_error_enter("mmnf_activate");
		mmnf_shard_wrong(field, segment, nominal);
		return NULL;
	}
	at = w.base + place;
	if (field->walk)
		observe(field, segment, nominal, place, at, ip);
	return at;
}

MMNF_EXPORT const void *mmnf_activate_tiled(struct mmnf_field *field,
					    const uint64_t *coord)
{
	return any(field, coord, __builtin_return_address(0));
}

void mmnf_window_guard(struct mmnf_field *field)
{
	struct mmnf_windows *w = &field->windows;
	struct mmnf_mapping *m;
	u32 i;

	pthread_mutex_lock(&w->lock);
	for (i = 0; i < w->nr_slots; i++)
		for (m = w->chain[i]; m; m = m->next)
			mmnf_guard_window(field, m);
	pthread_mutex_unlock(&w->lock);
}

MMNF_EXPORT const void *mmnf_activate_other(struct mmnf_field *field,
					    uint32_t ndim, uint64_t c0,
					    uint64_t c1, uint64_t c2)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 coord[3] = { c0, c1, c2 };

	if (ndim == g->ndim)
		return any(field, coord, __builtin_return_address(0));
	mmnf_error_enter("mmnf_activate");
	mmnf_error(EINVAL, "the field has %u axes: expected %u", g->ndim, ndim);
	return NULL;
}

void mmnf_window_exit(struct mmnf_field *field)
{
	struct mmnf_windows *w = &field->windows;
	u32 i;

	for (i = 0; w->chain && i < w->nr_slots; i++) {
		while (w->chain[i]) {
			struct mmnf_mapping *m = w->chain[i];

			w->chain[i] = m->next;
			unmap(field, m);
		}
	}
	if (w->fill_tile)
		munmap(w->fill_tile - fill_phase(field),
		       fill_tile_bytes(field));
	if (w->pattern >= 0)
		close(w->pattern);
	free(w->chain);
	free(w->table);
	free(field->view.base);
}
