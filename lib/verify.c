// SPDX-License-Identifier: MIT
/*
 * Checksums of tiles, and the look at everything a field has on disk.
 *
 * tiles.crc32c holds four bytes for each tile the field could have, tile t of
 * segment s at (s * nr_tiles + t) * 4; it is as sparse as the field.  0 is a tile
 * that has none: never written, or written and not yet synced.  A checksum that
 * happens to be 0 is kept as all ones.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "shard.h"

#define PIECE_BYTES (1ULL << 20)
#define LOOKS_MAX 8

static off_t check_offset(const struct mmnf_geometry *g, u64 segment, u64 tile)
{
	return (off_t)((segment * g->nr_tiles + tile) * 4);
}

static int put_check(struct mmnf_field *field, u64 segment, u64 tile, u32 crc)
{
	off_t at = check_offset(mmnf_field_geometry(field), segment, tile);

	if (pwrite(field->store.checks, &crc, 4, at) == 4)
		return 0;
	return mmnf_error_system(errno, MMNF_CHECKS_NAME);
}

static int get_check(const struct mmnf_field *field, u64 segment, u64 tile,
		     u32 *crc)
{
	off_t at = check_offset(mmnf_field_geometry(field), segment, tile);
	ssize_t n;

	*crc = 0;
	n = pread(field->store.checks, crc, 4, at);
	return n < 0 ? mmnf_error_system(errno, MMNF_CHECKS_NAME) : 0;
}

/*
 * A checksum of 0 may not be durable yet, of another thread or of a write that failed.
 * @nr_zeroing is raised before one is taken away and lowered when @zeroed counts it:
 * whoever reads 0 sees the one or the other.
 */
static int drop_check(struct mmnf_field *field, u64 segment, u64 tile)
{
	struct mmnf_segments *all = &field->segments;
	u32 crc;
	int err = get_check(field, segment, tile, &crc);

	if (err || !crc)
		return err;
	__atomic_add_fetch(&all->nr_zeroing, 1, __ATOMIC_SEQ_CST);
	err = put_check(field, segment, tile, 0);
	__atomic_add_fetch(&all->zeroed, 1, __ATOMIC_SEQ_CST);
	__atomic_sub_fetch(&all->nr_zeroing, 1, __ATOMIC_SEQ_CST);
	return err;
}

/* Waits for the disk if some checksum that was taken away is not durably gone. */
static int settle(struct mmnf_field *field)
{
	struct mmnf_segments *all = &field->segments;
	bool any = __atomic_load_n(&all->nr_zeroing, __ATOMIC_SEQ_CST);
	u64 zeroed = __atomic_load_n(&all->zeroed, __ATOMIC_SEQ_CST);
	int err;

	if (!any && zeroed == __atomic_load_n(&all->gone, __ATOMIC_SEQ_CST))
		return 0;
	err = mmnf_segment_settle_checks(field);
	return err ? mmnf_error_system(-err, MMNF_CHECKS_NAME) : 0;
}

int mmnf_check_clear(struct mmnf_field *field, u64 segment, u64 tile)
{
	int err = drop_check(field, segment, tile);

	return err ? err : settle(field);
}

struct clearing {
	struct mmnf_field *field;
	const struct mmnf_box *box;
	struct mmnf_segment *s; /* that a look at its locks got; NULL: none */
	bool any;
};

typedef int tile_fn(struct clearing *c, u64 segment, u64 tile);

static int each_tile(struct clearing *c, tile_fn *fn)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(c->field);
	u64 last_segment = UINT64_MAX, last_tile = 0;
	struct mmnf_runs it;
	struct mmnf_run run;
	int err = 0;

	mmnf_runs_init_mode(&it, g, c->box, PIECE_BYTES, MMNF_RUNS_WRITE);
	while (!err && mmnf_runs_next(&it, &run)) {
		u64 tile = (run.offset - g->data_offset) / g->tile_bytes;

		if (run.segment == last_segment && tile == last_tile)
			continue;
		err = fn(c, run.segment, tile);
		last_segment = run.segment;
		last_tile = tile;
	}
	return err;
}

static int find_check(struct clearing *c, u64 segment, u64 tile)
{
	u32 crc = 0;
	int err = c->any ? 0 : get_check(c->field, segment, tile, &crc);

	c->any |= crc != 0;
	return err;
}

static int find_owner(struct clearing *c, u64 segment, u64 tile)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(c->field);
	int err = 0;

	if (c->s && c->s->number != segment) {
		mmnf_segment_put(c->field, c->s);
		c->s = NULL;
	}
	if (!c->s)
		err = mmnf_segment_get(c->field, segment, false, &c->s);
	if (err) {
		c->s = NULL;
		return err == -ENOENT ? 0 : err;
	}
	return mmnf_lock_look(c->field, c->s,
			      g->data_offset + tile * g->tile_bytes,
			      g->tile_bytes);
}

static int drop_one(struct clearing *c, u64 segment, u64 tile)
{
	return drop_check(c->field, segment, tile);
}

/*
 * A write that is refused is to take nothing away.  It is not locked yet: who comes in
 * between finds a tile without a checksum, which is no damage.
 */
int mmnf_check_clear_box(struct mmnf_field *field,
			 const struct mmnf_box *normal)
{
	struct clearing c = { .field = field, .box = normal };
	int err = each_tile(&c, find_check);

	if (!err && c.any)
		err = each_tile(&c, find_owner);
	if (!err && c.any)
		err = each_tile(&c, drop_one);
	if (c.s)
		mmnf_segment_put(field, c.s);
	return err ? err : settle(field);
}

static int tile_crc(const struct mmnf_geometry *g, int fd, u64 place, u32 *crc)
{
	char *piece = malloc(PIECE_BYTES);
	u64 done, n;
	int err = piece ? 0 : -ENOMEM;

	*crc = 0;
	for (done = 0; !err && done < g->tile_bytes; done += n) {
		ssize_t got;

		n = min_u64(PIECE_BYTES, g->tile_bytes - done);
		got = pread(fd, piece, n, (off_t)(place + done));
		if (got == (ssize_t)n)
			*crc = mmnf_crc32c(*crc, piece, n);
		else
			err = got < 0 ? -errno : -EIO;
	}
	free(piece);
	return err;
}

int mmnf_check_set(struct mmnf_field *field, const struct mmnf_segment *s,
		   u64 tile, u64 place)
{
	u32 crc;
	int err = tile_crc(mmnf_field_geometry(field), s->fd, place, &crc);

	if (err)
		return mmnf_error_system(-err, "reading segment %" PRIu64,
					 s->number);
	return put_check(field, s->number, tile, crc ? crc : UINT32_MAX);
}

/* ---- verify */

struct look {
	struct mmnf_field *field;
	struct mmnf_verify_opts opts;
	struct mmnf_verify_result *out;
};

static __attribute__((format(printf, 2, 3))) void found(struct look *l,
							const char *format, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (l->opts.found)
		l->opts.found(l->opts.arg, text);
}

static u32 stored_check(const struct look *l, u64 segment, u64 tile)
{
	u32 stored = 0;

	if (l->field->store.checks < 0 ||
	    pread(l->field->store.checks, &stored, 4,
		  check_offset(mmnf_field_geometry(l->field), segment, tile)) !=
		    4)
		return 0;
	return stored;
}

/*
 * Compares a tile with its checksum, which is *stored; 0: there is none.  A writer takes
 * it away first and puts it back last: what differs is looked at again until both are
 * what they were, and one that never rests has no checksum.
 */
static int compare_tile(const struct look *l, const struct mmnf_segment *s,
			u64 tile, u64 place, u32 *stored, u32 *crc)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(l->field);
	u32 last_stored = 0, last_crc = 0;
	int err, i;

	for (i = 0; i < LOOKS_MAX; i++) {
		*stored = stored_check(l, s->number, tile);
		if (!*stored)
			return 0;
		err = tile_crc(g, s->fd, place, crc);
		if (err || *stored == (*crc ? *crc : UINT32_MAX))
			return err;
		if (*stored == last_stored && *crc == last_crc)
			return 0;
		last_stored = *stored;
		last_crc = *crc;
	}
	*stored = 0;
	return 0;
}

static void check_tile(struct look *l, const struct mmnf_segment *s,
		       const char *name, const u8 *index, u64 tile)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(l->field);
	u64 nominal = g->data_offset + tile * g->tile_bytes;
	u64 place = mmnf_shard_place(g, index, s->file_bytes, nominal);
	u32 stored, crc = 0;
	int err;

	if (place == MMNF_TILE_ABSENT)
		return;
	l->out->nr_tiles++;
	if (place == MMNF_TILE_WRONG) {
		l->out->nr_bad++;
		found(l, "segment %s: tile %" PRIu64 ": index entry is wrong",
		      name, tile);
		return;
	}
	err = compare_tile(l, s, tile, place, &stored, &crc);
	if (!stored)
		return;
	l->out->nr_checked++;
	if (!err && stored == (crc ? crc : UINT32_MAX))
		return;
	l->out->nr_bad++;
	if (err)
		found(l, "segment %s: tile %" PRIu64 ": cannot be read", name,
		      tile);
	else
		found(l,
		      "segment %s: tile %" PRIu64
		      ": CRC32C is %08x: expected %08x",
		      name, tile, crc, stored);
}

/*
 * The index as it is between two writers, written anew where that is wanted.  Whoever
 * adds to it waits: threads of this handle by the turn, others by the lock.
 */
static u8 *look_at_index(struct look *l, struct mmnf_segment *s,
			 enum mmnf_index_state *state, bool *repaired)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(l->field);
	u64 at = mmnf_shard_index(g, s->file_bytes), nr;
	u8 *index = NULL;

	pthread_rwlock_rdlock(&s->shard->turn);
	mmnf_lock_wait(l->field, s, at, g->index_bytes);
	if (!mmnf_shard_load(g, s->fd, s->file_bytes, &index)) {
		*state = mmnf_shard_check(g, index, s->file_bytes, &nr);
		*repaired = *state == MMNF_INDEX_TORN && l->opts.repair &&
			    !mmnf_shard_store(g, s->fd, index, s->file_bytes);
	}
	mmnf_unlock(s, at, g->index_bytes);
	pthread_rwlock_unlock(&s->shard->turn);
	if (index && *repaired)
		mmnf_segment_written(s);
	return index;
}

static void check_index(struct look *l, struct mmnf_segment *s,
			const char *name)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(l->field);
	enum mmnf_index_state state = MMNF_INDEX_WRONG;
	bool repaired = false;
	u8 *index = look_at_index(l, s, &state, &repaired);
	u64 tile;

	if (!index) {
		l->out->nr_bad++;
		found(l, "segment %s: index: cannot be read", name);
		return;
	}
	if (repaired) {
		l->out->nr_repaired++;
		found(l, "segment %s: checksum of its index written anew",
		      name);
	} else if (state == MMNF_INDEX_TORN || state == MMNF_INDEX_WRONG) {
		l->out->nr_bad++;
		found(l, "segment %s: index: %s", name,
		      state == MMNF_INDEX_TORN ?
			      "its checksum is of another time (--repair)" :
			      "damaged");
	}
	for (tile = 0; tile < g->nr_tiles; tile++)
		check_tile(l, s, name, index, tile);
	free(index);
}

static void check_segment(struct look *l, u64 number)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(l->field);
	struct mmnf_segment *s;
	char name[MMNF_KEY_MAX];
	int err;

	err = mmnf_segment_get(l->field, number, false, &s);
	if (err == -ENOENT)
		return;
	l->out->nr_segments++;
	if (err) {
		l->out->nr_bad++;
		found(l, "%s", mmnf_last_error());
		return;
	}
	mmnf_segment_name(l->field, number, name);
	if (g->indexed)
		check_index(l, s, name);
	mmnf_segment_put(l->field, s);
}

MMNF_EXPORT int mmnf_field_verify(struct mmnf_field *field,
				  const struct mmnf_verify_opts *opts,
				  struct mmnf_verify_result *result)
{
	struct mmnf_verify_result out = { .size = sizeof(out) };
	struct look l = { .field = field, .out = &out };
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 number;
	int err;

	mmnf_error_enter("mmnf_field_verify");
	l.opts.size = sizeof(l.opts);
	if (result->size != sizeof(*result))
		return mmnf_error(EINVAL, "result: size is %zu: expected %zu",
				  result->size, sizeof(*result));
	if (opts) {
		err = mmnf_error_opts(opts, opts->size, sizeof(*opts),
				      "mmnf_verify_opts");
		if (err)
			return err;
		memcpy(&l.opts, opts, min_u64(opts->size, sizeof(*opts)));
	}
	if (l.opts.repair && !field->writable)
		return mmnf_error(
			EBADF,
			"field is open read-only: expected open with writable = 1");
	for (number = 0; number < g->nr_segments; number++) {
		check_segment(&l, number);
		if (l.opts.progress)
			l.opts.progress(l.opts.arg, number + 1, g->nr_segments);
	}
	*result = out;
	return 0;
}
