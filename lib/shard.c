// SPDX-License-Identifier: MIT
/*
 * Segments with an index, read: which tiles are there, and where.
 *
 *	| tile 0 | tile 1 | ... | index: {offset, bytes} per tile | crc32c |
 *
 * Fields of our own keep tile t at data_offset + t * tile_bytes; others pack
 * theirs in any order, so each entry is looked at.  An entry with a word of all
 * ones is an absent tile; whatever else it says is checked against the file.
 *
 * place[] remembers the tiles that are known to be there, which for a file does
 * not change; an absent one is looked up again each time.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "shard.h"

static u64 check_entry(const struct mmnf_geometry *g, struct mmnf_entry e,
		       u64 file_bytes)
{
	/* One word may be seen before the other while it is being set. */
	if (e.offset == UINT64_MAX || e.bytes == UINT64_MAX)
		return MMNF_TILE_ABSENT;
	if (e.bytes != g->tile_bytes || e.offset > file_bytes ||
	    e.bytes > file_bytes - e.offset)
		return MMNF_TILE_WRONG;
	return e.offset;
}

u64 mmnf_shard_place(const struct mmnf_geometry *g, const void *index,
		     u64 file_bytes, u64 nominal)
{
	u64 from = nominal - g->data_offset, place;
	struct mmnf_entry entry;

	memcpy(&entry,
	       (const char *)index + from / g->tile_bytes * sizeof(entry),
	       sizeof(entry));
	place = check_entry(g, entry, file_bytes);
	if (place >= MMNF_TILE_WRONG)
		return place;
	return place + from % g->tile_bytes;
}

int mmnf_shard_wrong(struct mmnf_field *field, u64 segment, u64 nominal)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	char name[MMNF_KEY_MAX];

	mmnf_segment_name(field, segment, name);
	return mmnf_error(EIO,
			  "segment %s: index entry %" PRIu64
			  ": expected %" PRIu64 " bytes inside the file",
			  name, (nominal - g->data_offset) / g->tile_bytes,
			  g->tile_bytes);
}

struct mmnf_shard *mmnf_shard_new(const struct mmnf_geometry *g)
{
	struct mmnf_shard *shard = calloc(1, sizeof(*shard));

	if (!shard)
		return NULL;
	pthread_mutex_init(&shard->lock, NULL);
	pthread_rwlock_init(&shard->turn, NULL);
	/* Pages of it that are not touched take no memory. */
	shard->place = calloc(g->nr_tiles, sizeof(*shard->place));
	if (shard->place)
		return shard;
	free(shard);
	return NULL;
}

void mmnf_shard_free(struct mmnf_shard *shard)
{
	if (!shard)
		return;
	free(shard->place);
	free(shard);
}

int mmnf_shard_entry(struct mmnf_field *field, const struct mmnf_segment *s,
		     u64 tile, u64 *place)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 *known = &s->shard->place[tile];
	u64 v = __atomic_load_n(known, __ATOMIC_RELAXED) & ~MMNF_PLACE_DIRTY;
	struct mmnf_entry entry;
	ssize_t n;

	*place = v - 1;
	if (v)
		return 0;
	n = pread(s->fd, &entry, sizeof(entry),
		  (off_t)(mmnf_shard_index(g, s->file_bytes) +
			  tile * sizeof(entry)));
	if (n != (ssize_t)sizeof(entry))
		return mmnf_error_system(
			n < 0 ? errno : EIO,
			"reading the index of segment %" PRIu64, s->number);
	*place = check_entry(g, entry, s->file_bytes);
	if (*place == MMNF_TILE_WRONG)
		return mmnf_shard_wrong(field, s->number,
					g->data_offset + tile * g->tile_bytes);
	v = 0;
	if (*place != MMNF_TILE_ABSENT)
		__atomic_compare_exchange_n(known, &v, *place + 1, false,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED);
	return 0;
}

int mmnf_segment_place(struct mmnf_field *field, struct mmnf_segment *s,
		       struct mmnf_run *run)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 from, place;
	int err;

	if (!g->indexed)
		return 0;
	from = run->offset - g->data_offset;
	err = mmnf_shard_entry(field, s, from / g->tile_bytes, &place);
	if (err)
		return err;
	if (place == MMNF_TILE_ABSENT)
		return 1;
	run->offset = place + from % g->tile_bytes;
	return 0;
}

int mmnf_shard_load(const struct mmnf_geometry *g, int fd, u64 file_bytes,
		    u8 **out)
{
	u64 at = mmnf_shard_index(g, file_bytes), done = 0;
	u8 *index = malloc(g->index_bytes);

	if (!index)
		return -ENOMEM;
	while (done < g->index_bytes) {
		ssize_t n = pread(fd, index + done, g->index_bytes - done,
				  (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int err = n < 0 ? -errno : -EIO;

			free(index);
			return err;
		}
		done += (u64)n;
	}
	*out = index;
	return 0;
}

enum mmnf_index_state mmnf_shard_check(const struct mmnf_geometry *g,
				       const u8 *index, u64 file_bytes,
				       u64 *nr_present)
{
	bool nominal = file_bytes == mmnf_geometry_file_bytes(g);
	u32 stored;
	u64 t;

	*nr_present = 0;
	for (t = 0; t < g->nr_tiles; t++) {
		u64 place = g->data_offset + t * g->tile_bytes;
		u64 at = mmnf_shard_place(g, index, file_bytes, place);

		if (at == MMNF_TILE_WRONG)
			return MMNF_INDEX_WRONG;
		*nr_present += at != MMNF_TILE_ABSENT;
		nominal &= at == MMNF_TILE_ABSENT || at == place;
	}
	if (g->index_bytes > g->nr_tiles * sizeof(struct mmnf_entry)) {
		memcpy(&stored, index + g->index_bytes - 4, 4);
		if (stored != mmnf_crc32c(0, index, g->index_bytes - 4))
			return nominal ? MMNF_INDEX_TORN : MMNF_INDEX_WRONG;
	}
	return nominal ? MMNF_INDEX_NOMINAL : MMNF_INDEX_PACKED;
}
