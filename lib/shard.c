// SPDX-License-Identifier: MIT
/*
 * Segments with an index: which tiles are there, and where.
 *
 *	| tile 0 | tile 1 | ... | index: {offset, bytes} per tile | crc32c |
 *
 * Fields of our own keep tile t at data_offset + t * tile_bytes; others pack
 * theirs in any order, so each entry is looked at.  An entry with a word of all
 * ones is an absent tile; whatever else it says is checked against the file.
 */
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "internal.h"

struct entry {
	u64 offset, bytes;
};

#define ENTRY_BYTES sizeof(struct entry)

/* Where the entry of a tile is in the file. */
static u64 entry_offset(const struct mmnf_geometry *g, u64 file_bytes, u64 tile)
{
	u64 index = g->index_first ? 0 : file_bytes - g->index_bytes;

	return index + tile * ENTRY_BYTES;
}

static u64 check_entry(const struct mmnf_geometry *g, struct entry e,
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
	struct entry entry;

	memcpy(&entry, (const char *)index + from / g->tile_bytes * ENTRY_BYTES,
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

int mmnf_segment_place(struct mmnf_field *field, struct mmnf_segment *s,
		       struct mmnf_run *run)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct entry entry;
	u64 from, place;
	ssize_t n;

	if (!g->indexed)
		return 0;
	from = run->offset - g->data_offset;
	n = pread(s->fd, &entry, sizeof(entry),
		  (off_t)entry_offset(g, s->file_bytes, from / g->tile_bytes));
	if (n != (ssize_t)sizeof(entry))
		return mmnf_error_system(
			n < 0 ? errno : EIO,
			"reading the index of segment %" PRIu64, s->number);
	place = check_entry(g, entry, s->file_bytes);
	if (place == MMNF_TILE_ABSENT)
		return 1;
	if (place == MMNF_TILE_WRONG)
		return mmnf_shard_wrong(field, s->number, run->offset);
	run->offset = place + from % g->tile_bytes;
	return 0;
}
