// SPDX-License-Identifier: MIT
/*
 * A selection gathered from the device's slots.
 *
 * It is done in parts.  A part is planned with the lock held, piece after piece
 * until no slot, index room or result room is left: tiles that are there are
 * pinned, the others get a slot.  Then what is missing is read and sent, and one
 * gather is queued behind it; nobody waits for the GPU.  So any selection is
 * done with any number of slots, one at least.
 *
 *	plan (lock) | read, send | wait for tiles that others read | gather (lock)
 *
 * A selection that would turn over more than half of the slots leaves the rest of
 * its tiles at the cold end: it evicts its own, not what others use.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "tier-gpu.h"

/* As gather.cu has it. */
struct piece {
	u64 from, to, bytes;
};

struct place {
	u64 to, bytes;
};

/* Lanes for a row or a piece, as powers of two. */
#define LANES_SHIFT_MAX 5

/* Of the index, 1/16 is for the slots that are filled, the rest for the gather. */
#define MISS_SHARE 64

/**
 * struct part - what is gathered at once
 * @used: slots pinned, each once
 * @late: those of them that somebody else was reading
 * @nr: rows or pieces in the index
 * @first_row: of a part of rows
 */
struct part {
	struct mmnf_gpu *g;
	struct mmnf_gpu_batch *batch;
	struct mmnf_gpu_cursor *c;
	u64 to, result_at, fill, first_row;
	void *host, *stream;
	u64 *held; /* receives an address: nothing is gathered */
	u32 *used, *late;
	struct mmnf_gpu_miss *miss;
	struct place *place; /* of pieces, in the host's result */
	u32 nr_used, nr_late, nr_miss, nr, stamp, word_shift;
	u64 nr_missed; /* of the whole selection */
	u32 max_miss, max_nr;
	bool by_rows, is_cold;
};

struct mmnf_gpu_batch *mmnf_gpu_batch_begin(struct mmnf_gpu *g, int *err)
{
	struct mmnf_gpu_batch *b = NULL;
	bool is_queued;
	int i;

	*err = 0;
	pthread_mutex_lock(&g->lock);
	while (!b) {
		for (i = 0; i < MMNF_GPU_BATCHES; i++)
			if (!g->batch[i].busy &&
			    (!b || g->batch[i].number < b->number))
				b = &g->batch[i];
		if (!b)
			pthread_cond_wait(&g->change, &g->lock);
	}
	b->busy = true;
	is_queued = b->number && !b->done;
	pthread_mutex_unlock(&g->lock);
	if (is_queued)
		*err = mmnf_cuda_sync(g->cuda, b->event);
	pthread_mutex_lock(&g->lock);
	if (*err) {
		b->busy = false;
		b = NULL;
		pthread_cond_broadcast(&g->change);
	} else {
		b->done = true;
	}
	pthread_mutex_unlock(&g->lock);
	return b;
}

int mmnf_gpu_batch_end(struct mmnf_gpu *g, struct mmnf_gpu_batch *b,
		       void *stream)
{
	int err = mmnf_cuda_record(g->cuda, b->event, stream);

	/* Without the event nothing would say when it is over. */
	if (err)
		mmnf_cuda_stream_sync(g->cuda, stream);
	b->number = ++g->last_batch;
	b->done = err;
	b->copy_waits = false;
	b->busy = false;
	pthread_cond_broadcast(&g->change);
	return err;
}

u32 mmnf_gpu_take_slot(struct mmnf_gpu *g, u64 tile)
{
	u32 i = mmnf_slots_next(&g->slots);

	if (i != MMNF_SLOT_NONE && g->slots.slot[i].prefetched)
		g->stats->wasted++;
	return mmnf_slots_take(&g->slots, tile);
}

/* The slot of a tile, pinned for this part; NONE if there is none for it now. */
static u32 use_tile(struct part *p, u64 tile, struct mmnf_slot_entry *e)
{
	struct mmnf_gpu *g = p->g;
	u32 i = e->slot;
	struct mmnf_slot *slot;

	if (i == MMNF_SLOT_NONE) {
		if (p->nr_miss == p->max_miss)
			return i;
		i = mmnf_gpu_take_slot(g, tile);
		if (i == MMNF_SLOT_NONE)
			return i;
		p->miss[p->nr_miss++] = (struct mmnf_gpu_miss) { tile, i };
		e = mmnf_slots_find(&g->slots, tile);
		g->stats->misses++;
	} else {
		mmnf_slots_pin(&g->slots, i);
		slot = &g->slots.slot[i];
		g->stats->used += slot->prefetched;
		slot->prefetched = false;
		if (slot->state == MMNF_SLOT_LOADING) {
			p->late[p->nr_late++] = i;
			g->stats->late++;
		} else {
			p->fill = max_u64(p->fill, slot->fill);
			g->stats->hits++;
		}
	}
	e->stamp = p->stamp;
	p->used[p->nr_used++] = i;
	return i;
}

static u32 tile_slot(struct part *p, u64 tile)
{
	struct mmnf_slot_entry *e = mmnf_slots_find(&p->g->slots, tile);

	return e->stamp == p->stamp ? e->slot : use_tile(p, tile, e);
}

/*
 * Rows of one segment: where they start, and which tile that is.  The loop below
 * runs once for each row of a batch, so it divides for a new segment alone.
 */
struct stretch {
	u64 first, nr, tile, offset;
};

static void stretch_of(const struct mmnf_gpu *g, u64 row, struct stretch *s)
{
	const struct mmnf_geometry *geometry = mmnf_field_geometry(g->field);
	u64 segment = row / geometry->chunk[0];

	s->first = segment * geometry->chunk[0];
	s->nr = geometry->chunk[0];
	s->tile = segment * g->tiles_per_segment;
	s->offset = geometry->data_offset;
}

/* Rows that are looked up together, so that their cache misses overlap. */
#define ROWS_AHEAD 16

static void plan_rows(struct part *p)
{
	struct mmnf_gpu_cursor *c = p->c;
	/* In locals: a store to *from could be one to any of these. */
	const struct mmnf_slots slots = p->g->slots;
	u64 record = c->record_bytes, tile[ROWS_AHEAD];
	u32 stamp = p->stamp, shift = p->g->tile_shift, word = p->word_shift;
	u32 mask = p->g->tile_bytes - 1, offset[ROWS_AHEAD], nr, i;
	const struct mmnf_slot_entry *e[ROWS_AHEAD];
	const u64 *index = c->index + c->next;
	u32 *from = (u32 *)p->batch->host;
	u32 end = (u32)min_u64(c->nr_index - c->next, p->max_nr);
	struct stretch s = { 0 };

	p->first_row = c->next;
	for (; p->nr < end; index += nr) {
		nr = min_u64(end - p->nr, ROWS_AHEAD);
		for (i = 0; i < nr; i++) {
			u64 row = index[i] - s.first, at;

			if (row >= s.nr) {
				stretch_of(p->g, index[i], &s);
				row = index[i] - s.first;
			}
			at = s.offset + row * record;
			tile[i] = s.tile + (at >> shift);
			offset[i] = ((u32)at & mask) >> word;
			e[i] = &slots.entry[mmnf_slots_hash(&slots, tile[i])];
			__builtin_prefetch(e[i]);
		}
		for (i = 0; i < nr; i++) {
			u32 slot = e[i]->slot;

			/* Mostly where it hashes to, and pinned already. */
			if (e[i]->tile != tile[i] || e[i]->stamp != stamp)
				slot = tile_slot(p, tile[i]);
			if (slot == MMNF_SLOT_NONE)
				goto out;
			*from++ = (slot << (shift - word)) + offset[i];
			p->nr++;
		}
	}
out:
	c->next += p->nr;
}

static void plan_pieces(struct part *p)
{
	struct piece *out = (struct piece *)p->batch->host;
	struct mmnf_gpu *g = p->g;
	struct mmnf_gpu_piece piece;
	u64 at = 0;

	while (p->nr < p->max_nr && mmnf_gpu_cursor_peek(p->c, &piece)) {
		u32 slot;

		if (!p->to && at + piece.bytes > g->result_bytes)
			break;
		slot = tile_slot(p, piece.tile);
		if (slot == MMNF_SLOT_NONE)
			break;
		out->from = ((u64)slot << g->tile_shift) + piece.offset;
		out->to = p->to ? piece.to : at;
		out->bytes = piece.bytes;
		out++;
		if (p->place)
			p->place[p->nr] =
				(struct place) { piece.to, piece.bytes };
		p->nr++;
		at += piece.bytes;
		mmnf_gpu_cursor_pass(p->c, &piece);
	}
}

static int by_slot(const void *a, const void *b)
{
	const struct mmnf_gpu_miss *x = a, *y = b;

	return x->slot < y->slot ? -1 : x->slot > y->slot;
}

/* Takes what it can get; waits if it can get nothing. */
static void plan(struct part *p)
{
	struct mmnf_gpu *g = p->g;

	pthread_mutex_lock(&g->lock);
	for (;;) {
		if (!++g->stamp) {
			/* Once in 2^32 parts: no old stamp may look new. */
			u32 i;

			for (i = 0; i < 1U << (64 - g->slots.shift); i++)
				g->slots.entry[i].stamp = 0;
			g->stamp = 1;
		}
		p->stamp = g->stamp;
		p->nr = p->nr_used = p->nr_late = p->nr_miss = 0;
		p->fill = 0;
		if (p->by_rows)
			plan_rows(p);
		else
			plan_pieces(p);
		if (p->nr)
			break;
		pthread_cond_wait(&g->change, &g->lock);
	}
	pthread_mutex_unlock(&g->lock);
	qsort(p->miss, p->nr_miss, sizeof(*p->miss), by_slot);
}

/* With the lock. */
static void unpin(struct part *p)
{
	struct mmnf_slots *slots = &p->g->slots;
	u32 i;

	if (p->is_cold)
		for (i = 0; i < p->nr_miss; i++) {
			mmnf_slots_pin(slots, p->miss[i].slot);
			p->g->stats->overflow++;
		}
	for (i = 0; i < p->nr_used; i++)
		mmnf_slots_unpin(slots, p->used[i], false);
	if (p->is_cold)
		for (i = p->nr_miss; i--;)
			mmnf_slots_unpin(slots, p->miss[i].slot, true);
	pthread_cond_broadcast(&p->g->change);
}

/* 1: one of them could not be read by who tried: try it all again. */
static int await_others(struct part *p)
{
	struct mmnf_gpu *g = p->g;
	u32 i;

	for (i = 0; i < p->nr_late; i++) {
		const struct mmnf_slot *slot = &g->slots.slot[p->late[i]];

		while (slot->state == MMNF_SLOT_LOADING)
			pthread_cond_wait(&g->change, &g->lock);
		if (slot->state == MMNF_SLOT_FAILED)
			return 1;
		p->fill = max_u64(p->fill, slot->fill);
	}
	for (i = 0; i < p->nr_miss; i++)
		p->fill = max_u64(p->fill, g->slots.slot[p->miss[i].slot].fill);
	return 0;
}

static u32 lanes_shift(u64 words)
{
	u32 shift = 0;

	while (shift < LANES_SHIFT_MAX && 1ULL << shift < words)
		shift++;
	return shift;
}

static int launch_rows(struct part *p)
{
	static const enum mmnf_kernel kernels[] = {
		[0] = MMNF_GATHER_ROWS_1,
		[2] = MMNF_GATHER_ROWS_4,
		[4] = MMNF_GATHER_ROWS_16,
	};
	u64 base = p->g->memory, index = p->batch->device, nr = p->nr;
	u64 to = p->to ? p->to + p->first_row * p->c->record_bytes :
			 p->g->result_device;
	u32 words = (u32)(p->c->record_bytes >> p->word_shift);
	u32 shift = lanes_shift(words);
	void *args[] = { &base, &index, &to, &nr, &words, &shift };

	return mmnf_cuda_launch(p->g->cuda, kernels[p->word_shift], nr << shift,
				args, p->stream);
}

static int launch_pieces(struct part *p)
{
	u64 base = p->g->memory, index = p->batch->device, nr = p->nr;
	u64 to = p->to ? p->to : p->g->result_device;
	void *args[] = { &base, &index, &to, &nr };

	return mmnf_cuda_launch(p->g->cuda, MMNF_GATHER_PIECES,
				nr << LANES_SHIFT_MAX, args, p->stream);
}

/* Without kernels: copies on the device, one where pieces join. */
static int copy_pieces(struct part *p)
{
	const struct piece *piece = (struct piece *)p->batch->host;
	u64 to = p->to ? p->to : p->g->result_device;
	struct mmnf_cuda_copies l = { .nr = 0 };
	int err;
	u32 i;

	l.to = malloc(p->nr *
		      (sizeof(*l.to) + sizeof(*l.from) + sizeof(*l.bytes)));
	if (!l.to)
		return mmnf_error(ENOMEM, "no memory for %u copies", p->nr);
	l.from = l.to + p->nr;
	l.bytes = (size_t *)(l.from + p->nr);
	for (i = 0; i < p->nr; i++, piece++) {
		u64 from = p->g->memory + piece->from;
		u32 k = l.nr - 1;

		if (i && l.from[k] + l.bytes[k] == from &&
		    l.to[k] + l.bytes[k] == to + piece->to) {
			l.bytes[k] += piece->bytes;
			continue;
		}
		l.from[l.nr] = from;
		l.to[l.nr] = to + piece->to;
		l.bytes[l.nr++] = piece->bytes;
	}
	err = mmnf_cuda_copy_many(p->g->cuda, &l, false, p->stream);
	free(l.to);
	return err;
}

static u64 index_bytes(const struct part *p)
{
	u64 each = p->by_rows ? sizeof(u32) : sizeof(struct piece);

	return round_up_u64(p->nr * each, 16);
}

static int gather(struct part *p)
{
	struct mmnf_gpu *g = p->g;
	int err = mmnf_gpu_await_fill(g, p->fill, p->stream);

	if (err)
		return err;
	if (p->held) {
		const struct piece *piece = (struct piece *)p->batch->host;

		*p->held = g->memory + piece->from;
		mmnf_slots_pin(&g->slots, p->used[0]);
		g->nr_held += !g->slots.slot[p->used[0]].held++;
		return 0;
	}
	if (mmnf_cuda_no_kernels(g->cuda))
		return copy_pieces(p);
	if (!p->nr_miss)
		err = mmnf_cuda_copy_in(g->cuda, p->batch->device,
					p->batch->host, index_bytes(p),
					p->stream);
	if (err)
		return err;
	return p->by_rows ? launch_rows(p) : launch_pieces(p);
}

/*
 * The result of a part to the host: waited for, then put in its places.  The
 * index is somebody else's by now.
 */
static int deliver(struct part *p)
{
	struct mmnf_gpu *g = p->g;
	const char *from = g->result_host;
	u64 bytes = 0;
	int err;
	u32 i;

	if (p->by_rows)
		bytes = p->nr * p->c->record_bytes;
	else
		for (i = 0; i < p->nr; i++)
			bytes += p->place[i].bytes;
	err = mmnf_cuda_copy_out(g->cuda, g->result_host, g->result_device,
				 bytes, p->stream);
	if (!err)
		err = mmnf_cuda_stream_sync(g->cuda, p->stream);
	if (err)
		return err;
	if (p->by_rows) {
		memcpy((char *)p->host + p->first_row * p->c->record_bytes,
		       from, bytes);
		return 0;
	}
	for (i = 0; i < p->nr; from += p->place[i++].bytes)
		memcpy((char *)p->host + p->place[i].to, from,
		       p->place[i].bytes);
	return 0;
}

/* Brings what is missing; the index goes along. */
static int fill(struct part *p)
{
	bool kernels = !mmnf_cuda_no_kernels(p->g->cuda);
	u64 at = index_bytes(p);
	u32 *slots = (u32 *)(p->batch->host + at), i;

	if (!p->nr_miss)
		return 0;
	for (i = 0; i < p->nr_miss; i++)
		slots[i] = p->miss[i].slot;
	return mmnf_gpu_fill(p->g, p->batch, p->miss, p->nr_miss,
			     kernels ? at + p->nr_miss * sizeof(u32) : 0, at);
}

/* A part that was planned.  1: it must be planned again. */
static int finish(struct part *p)
{
	struct mmnf_gpu *g = p->g;
	u32 i;
	int err = fill(p), again = 0, failed;

	pthread_mutex_lock(&g->lock);
	if (!err)
		again = await_others(p);
	if (!err && !again)
		err = gather(p);
	/* What was queued of a batch that is given up is waited for as well. */
	if (err || again)
		mmnf_gpu_await_fill(g, g->last_fill, p->stream);
	failed = mmnf_gpu_batch_end(g, p->batch, p->stream);
	err = err ? err : failed;
	for (i = 0; i < p->nr_used; i++)
		g->slots.slot[p->used[i]].last_batch = p->batch->number;
	unpin(p);
	g->stats->parts++;
	g->stats->nr_slots_used = g->slots.nr_used;
	pthread_mutex_unlock(&g->lock);
	return err ? err : again;
}

static int do_part(struct part *p)
{
	struct mmnf_gpu *g = p->g;
	struct mmnf_gpu_cursor start = *p->c;
	u64 half = g->slots.nr / 2;
	int err;

	p->batch = mmnf_gpu_batch_begin(g, &err);
	if (err)
		return err;
	p->is_cold = p->nr_missed > half;
	p->max_miss = (u32)max_u64(1, p->is_cold ? half / 4 : g->slots.nr);
	p->max_miss = (u32)min_u64(p->max_miss, g->index_bytes / MISS_SHARE);
	plan(p);
	err = finish(p);
	if (err == 1)
		*p->c = start;
	else if (!err)
		p->nr_missed += p->nr_miss;
	if (!err && !p->to)
		err = deliver(p);
	return err;
}

/* How wide words may be, as a power of two; rows need their number in 32 bits. */
static bool choose_words(struct part *p, u64 to)
{
	u64 bits = p->c->record_bytes | to;

	p->word_shift = bits % 16 == 0 ? 4 : bits % 4 == 0 ? 2 : 0;
	return (u64)p->g->slots.nr << (p->g->tile_shift - p->word_shift) <
	       1ULL << 32;
}

static int part_init(struct part *p)
{
	struct mmnf_gpu *g = p->g;
	u64 room =
		g->index_bytes - g->index_bytes / MISS_SHARE * sizeof(u32) - 16;
	u64 rows = g->result_bytes / max_u64(1, p->c->record_bytes);

	p->by_rows = p->c->by_rows && !p->held &&
		     !mmnf_cuda_no_kernels(g->cuda) &&
		     choose_words(p, p->to ? p->to : g->result_device);
	p->max_nr =
		(u32)(room / (p->by_rows ? sizeof(u32) : sizeof(struct piece)));
	if (!p->to && p->by_rows)
		p->max_nr = (u32)min_u64(p->max_nr, rows);
	p->used = malloc(g->slots.nr * sizeof(*p->used));
	p->late = malloc(g->slots.nr * sizeof(*p->late));
	p->miss = malloc(g->slots.nr * sizeof(*p->miss));
	if (!p->to && !p->by_rows)
		p->place = malloc(p->max_nr * sizeof(*p->place));
	if (p->used && p->late && p->miss && (p->to || p->by_rows || p->place))
		return 0;
	return mmnf_error(ENOMEM, "no memory for a batch");
}

static int do_parts(struct part *p)
{
	struct mmnf_gpu_piece piece;
	int err = part_init(p);

	while (err >= 0 && (p->by_rows ? p->c->next < p->c->nr_index :
					 mmnf_gpu_cursor_peek(p->c, &piece)))
		err = do_part(p);
	free(p->used);
	free(p->late);
	free(p->miss);
	free(p->place);
	return err < 0 ? err : 0;
}

int mmnf_gpu_gather(struct mmnf_gpu *g, struct mmnf_gpu_cursor *c, u64 to,
		    void *host, void *stream)
{
	struct part p = {
		.g = g, .c = c, .to = to, .host = host, .stream = stream
	};

	return do_parts(&p);
}

int mmnf_gpu_hold(struct mmnf_gpu *g, struct mmnf_gpu_cursor *c, u64 *out,
		  void *stream)
{
	struct part p = {
		.g = g, .c = c, .to = g->memory, .stream = stream, .held = out
	};

	return do_parts(&p);
}
