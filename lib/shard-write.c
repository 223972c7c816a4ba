// SPDX-License-Identifier: MIT
/*
 * Segments with an index, written.
 *
 * In this order: the tile's bytes, fdatasync, its index entry, the index's
 * checksum.  Entries are only ever added, so whatever is lost, a tile is absent
 * or whole: old, new or fill, never rubbish.  A tile's checksum is durably gone before
 * the tile is written, and comes back when that is durable: what verify calls damaged
 * is no tile whose writer died.  Entries wait until the field is
 * synced, closed, or MMNF_DIRTY_MAX tiles wait; until then the handle owns the
 * tiles it has written (lock.c), in nominal offsets whatever the file's order.
 *
 * A new tile goes to its nominal place.  A file that was packed by others has no
 * room there: it is copied to one that has, which takes its place by rename.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache.h"
#include "shard.h"

#define PIECE_BYTES (1ULL << 20)

static int write_at(int fd, const void *from, u64 bytes, u64 offset)
{
	u64 done = 0;

	while (done < bytes) {
		ssize_t n = pwrite(fd, (const char *)from + done, bytes - done,
				   (off_t)(offset + done));

		if (n > 0)
			done += (u64)n;
		else if (n < 0 && errno != EINTR)
			return -errno;
	}
	return 0;
}

static bool has_crc(const struct mmnf_geometry *g)
{
	return g->index_bytes > g->nr_tiles * sizeof(struct mmnf_entry);
}

int mmnf_shard_init(const struct mmnf_geometry *g, int fd)
{
	u64 at = mmnf_shard_index(g, mmnf_geometry_file_bytes(g)), done, n;
	u64 bytes = g->nr_tiles * sizeof(struct mmnf_entry);
	char *ones = malloc(min_u64(PIECE_BYTES, bytes));
	u32 crc = 0;
	int err = 0;

	if (!ones)
		return -ENOMEM;
	memset(ones, 0xff, min_u64(PIECE_BYTES, bytes));
	for (done = 0; !err && done < bytes; done += n) {
		n = min_u64(PIECE_BYTES, bytes - done);
		crc = mmnf_crc32c(crc, ones, n);
		err = write_at(fd, ones, n, at + done);
	}
	free(ones);
	if (!err && has_crc(g))
		err = write_at(fd, &crc, 4, at + bytes);
	return err;
}

int mmnf_shard_store(const struct mmnf_geometry *g, int fd, u8 *index,
		     u64 file_bytes)
{
	u64 bytes = g->nr_tiles * sizeof(struct mmnf_entry);
	u64 at = mmnf_shard_index(g, file_bytes);
	u32 crc = mmnf_crc32c(0, index, bytes);
	int err = write_at(fd, index, bytes, at);

	return err || !has_crc(g) ? err : write_at(fd, &crc, 4, at + bytes);
}

/* ---- beginning */

static u64 nominal_place(const struct mmnf_geometry *g, u64 tile)
{
	return g->data_offset + tile * g->tile_bytes;
}

/* Is there room for each tile where it belongs?  Looked up once a file. */
static int check_room(struct mmnf_field *field, struct mmnf_segment *s)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	enum mmnf_index_state state;
	char name[MMNF_KEY_MAX];
	u64 nr_present;
	u8 *index;
	int err;

	if (s->shard->checked)
		return 0;
	mmnf_segment_name(field, s->number, name);
	err = mmnf_shard_load(g, s->fd, s->file_bytes, &index);
	if (err)
		return mmnf_error_system(-err, "segment %s: reading its index",
					 name);
	state = mmnf_shard_check(g, index, s->file_bytes, &nr_present);
	free(index);
	if (state == MMNF_INDEX_WRONG)
		return mmnf_error(
			EIO,
			"segment %s: its index is damaged: expected entries inside the file and their checksum",
			name);
	if (state == MMNF_INDEX_PACKED)
		return MMNF_SHARD_REPLACE;
	s->shard->checked = true;
	return 0;
}

/* What lies there may be of a writer that died: a tile begins as fill. */
static int clear_tile(const struct mmnf_geometry *g, int fd, u64 place)
{
	u64 n = min_u64(PIECE_BYTES / g->element_bytes * g->element_bytes,
			g->tile_bytes),
	    done;
	char *fill;
	int err = 0;

	if (g->fill_is_zero &&
	    !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		       (off_t)place, (off_t)g->tile_bytes))
		return 0;
	fill = malloc(n);
	if (!fill)
		return -ENOMEM;
	mmnf_geometry_fill(g, fill, n);
	for (done = 0; !err && done < g->tile_bytes; done += n)
		err = write_at(fd, fill, min_u64(n, g->tile_bytes - done),
			       place + done);
	free(fill);
	return err;
}

/* Makes a locked tile ready to be written, at *place. */
static int prepare_tile(struct mmnf_field *field, struct mmnf_segment *s,
			u64 tile, bool whole, u64 *place, bool *is_new)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 nominal = nominal_place(g, tile);
	struct stat st;
	int err;

	if (!fstat(s->fd, &st) && !st.st_nlink) {
		__atomic_store_n(&s->shard->stale, true, __ATOMIC_RELAXED);
		return MMNF_SHARD_STALE;
	}
	err = mmnf_shard_entry(field, s, tile, place);
	*is_new = !err && *place == MMNF_TILE_ABSENT;
	if (*is_new)
		err = check_room(field, s);
	if (!err && field->store.checksums)
		err = mmnf_check_clear(field, s->number, tile);
	if (err || !*is_new)
		return err;
	*place = nominal;
	err = whole ? 0 : clear_tile(g, s->fd, nominal);
	mmnf_cache_forget(field, s->number, nominal, g->tile_bytes);
	return err ? mmnf_error_system(-err, "writing segment %" PRIu64,
				       s->number) :
		     0;
}

/*
 * The tile's first write since the last flush.  What nobody has cleared is not there
 * for readers before it is written.
 */
static int take_tile(struct mmnf_field *field, struct mmnf_segment *s, u64 tile,
		     bool whole, u64 *place, bool *bare)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 nominal = nominal_place(g, tile);
	struct mmnf_shard *shard = s->shard;
	bool is_new;
	int err;

	err = mmnf_lock(field, s, nominal, g->tile_bytes);
	if (err)
		return err;
	err = prepare_tile(field, s, tile, whole, place, &is_new);
	if (err) {
		mmnf_unlock(s, nominal, g->tile_bytes);
		return err;
	}
	*bare = whole && is_new;
	shard->dirty[shard->nr_dirty++] = (struct mmnf_dirty) { tile, is_new };
	__atomic_store_n(&shard->place[tile],
			 (*bare ? 0 : *place + 1) | MMNF_PLACE_DIRTY,
			 __ATOMIC_RELAXED);
	return 0;
}

/* The tile is not to be named: it is as if it had never been taken. */
static void drop_tile(struct mmnf_field *field, struct mmnf_segment *s,
		      u64 tile)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_shard *shard = s->shard;
	u32 i = 0;

	pthread_mutex_lock(&shard->lock);
	while (shard->dirty[i].tile != tile)
		i++;
	shard->dirty[i] = shard->dirty[--shard->nr_dirty];
	__atomic_store_n(&shard->place[tile], 0, __ATOMIC_RELAXED);
	mmnf_unlock(s, nominal_place(g, tile), g->tile_bytes);
	pthread_mutex_unlock(&shard->lock);
}

void mmnf_shard_end(struct mmnf_field *field, struct mmnf_segment *s,
		    u64 offset, bool failed)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 tile = (offset - g->data_offset) / g->tile_bytes;

	if (failed)
		drop_tile(field, s, tile);
	else
		__atomic_store_n(&s->shard->place[tile],
				 (offset + 1) | MMNF_PLACE_DIRTY,
				 __ATOMIC_RELEASE);
}

int mmnf_shard_begin(struct mmnf_field *field, struct mmnf_segment *s,
		     struct mmnf_run *run, bool *bare)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 from = run->offset - g->data_offset, tile = from / g->tile_bytes;
	u64 place = 0;
	int err = 0;

	*bare = false;
	pthread_mutex_lock(&s->shard->lock);
	if (s->shard->place[tile] & MMNF_PLACE_DIRTY) {
		err = mmnf_shard_entry(field, s, tile, &place);
		/* Another thread is about to write all of it. */
		if (!err && place == MMNF_TILE_ABSENT)
			place = nominal_place(g, tile);
	} else if (s->shard->nr_dirty == MMNF_DIRTY_MAX) {
		err = MMNF_SHARD_FULL;
	} else {
		err = take_tile(field, s, tile, run->bytes == g->tile_bytes,
				&place, bare);
	}
	pthread_mutex_unlock(&s->shard->lock);
	if (!err)
		run->offset = place + from % g->tile_bytes;
	return err;
}

/* ---- flushing */

/* New entries and the checksum of all; the file's others may do so, too. */
static int add_entries(struct mmnf_field *field, struct mmnf_segment *s)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 at = mmnf_shard_index(g, s->file_bytes);
	struct mmnf_shard *shard = s->shard;
	u8 *index;
	int err;
	u32 i;

	mmnf_lock_wait(field, s, at, g->index_bytes);
	err = mmnf_shard_load(g, s->fd, s->file_bytes, &index);
	for (i = 0; !err && i < shard->nr_dirty; i++) {
		u64 tile = shard->dirty[i].tile;
		struct mmnf_entry e = { nominal_place(g, tile), g->tile_bytes };

		if (shard->dirty[i].is_new)
			memcpy(index + tile * sizeof(e), &e, sizeof(e));
	}
	if (!err) {
		err = mmnf_shard_store(g, s->fd, index, s->file_bytes);
		free(index);
	}
	mmnf_unlock(s, at, g->index_bytes);
	return err;
}

static int flush(struct mmnf_field *field, struct mmnf_segment *s)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_shard *shard = s->shard;
	bool any_new = false;
	int err = 0;
	u32 i;

	if (!shard->nr_dirty)
		return 0;
	for (i = 0; i < shard->nr_dirty; i++)
		any_new |= shard->dirty[i].is_new;
	/* Before anything says that they are there, or what they hold. */
	if (any_new || field->store.checksums)
		err = mmnf_segment_settle(field, s);
	if (!err && any_new)
		err = add_entries(field, s);
	for (i = 0; !err && field->store.checksums && i < shard->nr_dirty;
	     i++) {
		u64 tile = shard->dirty[i].tile, place;

		err = mmnf_shard_entry(field, s, tile, &place);
		if (!err)
			err = mmnf_check_set(field, s, tile, place);
	}
	/* What could not be named stays ours, to be tried again. */
	if (err)
		return mmnf_error_system(-err, "flushing segment %" PRIu64,
					 s->number);
	for (i = 0; i < shard->nr_dirty; i++) {
		u64 tile = shard->dirty[i].tile;

		__atomic_and_fetch(&shard->place[tile], ~MMNF_PLACE_DIRTY,
				   __ATOMIC_RELAXED);
		mmnf_unlock(s, nominal_place(g, tile), g->tile_bytes);
	}
	shard->nr_dirty = 0;
	return 0;
}

int mmnf_shard_flush(struct mmnf_field *field, struct mmnf_segment *s)
{
	int err = 0;

	if (!s->shard)
		return 0;
	/* Nobody writes meanwhile: a checksum is of the whole tile. */
	pthread_rwlock_wrlock(&s->shard->turn);
	if (!s->shard->stale)
		err = flush(field, s);
	pthread_rwlock_unlock(&s->shard->turn);
	return err;
}

/* ---- replacing */

static int copy_tile(int to, u64 to_offset, int from, u64 from_offset,
		     u64 bytes, char *piece)
{
	u64 done, n;
	int err = 0;

	for (done = 0; !err && done < bytes; done += n) {
		ssize_t got;

		n = min_u64(PIECE_BYTES, bytes - done);
		got = pread(from, piece, n, (off_t)(from_offset + done));
		if (got != (ssize_t)n)
			return got < 0 ? -errno : -EIO;
		err = write_at(to, piece, n, to_offset + done);
	}
	return err;
}

static int copy_tiles(const struct mmnf_geometry *g, int to,
		      const struct mmnf_segment *s, u8 *index)
{
	char *piece = malloc(PIECE_BYTES);
	int err = piece ? 0 : -ENOMEM;
	u64 tile;

	for (tile = 0; !err && tile < g->nr_tiles; tile++) {
		u64 place = nominal_place(g, tile);
		u64 from = mmnf_shard_place(g, index, s->file_bytes, place);
		struct mmnf_entry e = { place, g->tile_bytes };

		if (from == MMNF_TILE_ABSENT)
			continue;
		if (from == MMNF_TILE_WRONG) {
			err = -EIO;
			break;
		}
		err = copy_tile(to, place, s->fd, from, g->tile_bytes, piece);
		memcpy(index + tile * sizeof(e), &e, sizeof(e));
	}
	free(piece);
	return err;
}

static int write_copy(const struct mmnf_geometry *g, int to,
		      const struct mmnf_segment *s)
{
	u64 bytes = mmnf_geometry_file_bytes(g);
	u8 *index;
	int err;

	err = mmnf_shard_load(g, s->fd, s->file_bytes, &index);
	if (err)
		return err;
	err = ftruncate(to, (off_t)bytes) ? -errno : 0;
	if (!err)
		err = copy_tiles(g, to, s, index);
	if (!err)
		err = mmnf_shard_store(g, to, index, bytes);
	if (!err)
		err = mmnf_segment_sync_data(to);
	free(index);
	return err;
}

int mmnf_shard_replace(struct mmnf_field *field, struct mmnf_segment *s)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	char name[MMNF_KEY_MAX], temporary[MMNF_KEY_MAX + 32];
	int dir = field->store.dir, to, err;

	err = flush(field, s);
	if (!err)
		err = mmnf_lock(field, s, 0, (u64)S64_MAX);
	if (err)
		return err;
	mmnf_segment_name(field, s->number, name);
	snprintf(temporary, sizeof(temporary), "%s.%d.new", name,
		 (int)getpid());
	to = openat(dir, temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC,
		    0666);
	err = to < 0 ? -errno : write_copy(g, to, s);
	if (!err && renameat(dir, temporary, dir, name))
		err = -errno;
	if (to >= 0)
		close(to);
	if (err) {
		unlinkat(dir, temporary, 0);
		mmnf_unlock(s, 0, (u64)S64_MAX);
		return mmnf_error_system(-err, "segment %s: making room in it",
					 name);
	}
	__atomic_store_n(&s->shard->stale, true, __ATOMIC_RELAXED);
	/* What is synced in the new file must not be lost with its name. */
	err = mmnf_segment_sync_name(field, s->number);
	/* No later sync asks for it. */
	if (err)
		mmnf_segment_lost(field, err);
	return err ? mmnf_error_system(-err, "segment %s: its folders", name) :
		     0;
}
