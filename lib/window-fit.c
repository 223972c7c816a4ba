// SPDX-License-Identifier: MIT
/*
 * How many windows are good for a field, and tables for so many.
 *
 * Never fewer than there were: a field only grows, and what is mapped stays so.
 *
 * With five levels of page tables windows lie above 47 bits, where a petabyte
 * fits as a whole, and by default none is ever unmapped.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "internal.h"

#define GOOD_DEFAULT 512
#define GOOD_MAX 16384
#define SPACE_BYTES (1ULL << 46) /* of the 2^47 a process has */
#define WIDE_BYTES (1ULL << 55) /* of the 2^56 with five levels (LA57) */
#define WIDE_HINT (1ULL << 48) /* who asks for nothing above gets nothing */

u64 mmnf_window_bytes(const struct mmnf_field *field)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);

	return round_up_u64(mmnf_geometry_file_bytes(g), mmnf_page_bytes());
}

/* Does this process get addresses above 47 bits? */
static bool has_wide_space(void)
{
	u64 page = mmnf_page_bytes();
	void *p = mmap((void *)WIDE_HINT, page, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	bool has = p != MAP_FAILED && (uintptr_t)p >> 47;

	if (p != MAP_FAILED)
		munmap(p, page);
	return has;
}

void *mmnf_window_hint(const struct mmnf_field *field)
{
	return field->windows.wide ? (void *)WIDE_HINT : NULL;
}

static u32 choose_good(struct mmnf_field *field)
{
	struct mmnf_windows *w = &field->windows;
	u64 nr_segments = mmnf_field_geometry(field)->nr_segments;
	u64 good = w->most ? min_u64(w->most, GOOD_MAX) : GOOD_DEFAULT;
	u64 space = SPACE_BYTES, bytes = mmnf_window_bytes(field);
	struct rlimit files;

	if (nr_segments > good || bytes > SPACE_BYTES / 2 ||
	    nr_segments > SPACE_BYTES / 2 / bytes)
		w->wide = has_wide_space();
	if (w->wide) {
		space = WIDE_BYTES;
		good = w->most ? good : GOOD_MAX;
	}
	good = min_u64(good, space / 2 / bytes);
	/* An open device stands behind each mapping: leave half to others. */
	if (field->engine == MMNF_ENGINE_DEVICE &&
	    !getrlimit(RLIMIT_NOFILE, &files))
		good = min_u64(good, max_u64(files.rlim_cur / 4, 1));
	return (u32)max_u64(min_u64(good, nr_segments), w->good);
}

/* The tables start empty: the first use of a segment publishes it again. */
static void move_mappings(const struct mmnf_windows *from,
			  struct mmnf_windows *to)
{
	u32 i;

	for (i = 0; i < from->nr_slots; i++)
		while (from->chain[i]) {
			struct mmnf_mapping *m = from->chain[i], **at;

			at = &to->chain[m->segment & (to->nr_slots - 1)];
			from->chain[i] = m->next;
			m->next = *at;
			*at = m;
		}
}

int mmnf_window_fit(struct mmnf_field *field)
{
	struct mmnf_windows *w = &field->windows, next = { 0 };
	const char **base;

	next.good = choose_good(field);
	for (next.nr_slots = 1; next.nr_slots < 2 * next.good;)
		next.nr_slots *= 2;
	next.chain = calloc(next.nr_slots, sizeof(*next.chain));
	next.table = calloc(next.nr_slots, sizeof(*next.table));
	base = calloc(max_u64(next.good, 1), sizeof(*base));
	if (!next.chain || !next.table || !base) {
		free(next.chain);
		free(next.table);
		free(base);
		return -ENOMEM;
	}
	move_mappings(w, &next);
	free(w->chain);
	free(w->table);
	free(field->view.base);
	w->chain = next.chain;
	w->table = next.table;
	w->good = next.good;
	w->nr_slots = next.nr_slots;
	field->view.base = base;
	return 0;
}

int mmnf_window_init(struct mmnf_field *field, u32 max_windows)
{
	struct mmnf_windows *w = &field->windows;

	pthread_mutex_init(&w->lock, NULL);
	w->pattern = -1;
	w->generation = 1;
	w->most = max_windows;
	return mmnf_window_fit(field);
}
