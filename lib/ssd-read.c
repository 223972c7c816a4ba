// SPDX-License-Identifier: MIT
/*
 * Reads of the cache.  A slot is not pinned while it is read: if it is given to
 * another chunk meanwhile, the checksums do not fit, and that is a miss.
 */
#include <string.h>

#include "ssd-internal.h"

/* All valid? */
static bool look_up(struct mmnf_ssd *ssd, struct ssd_piece *p)
{
	struct ssd_entry *e;
	u32 i;

	pthread_mutex_lock(&ssd->lock);
	e = ssd->off ? NULL : mmnf_ssd_entry_get(ssd, p->chunk, &p->slot);
	for (i = 0; e && i < p->nr; i++) {
		if (!ssd_is_valid(&e->r, p->first + i))
			e = NULL;
		else
			p->sum[i] = e->r.block_sum[p->first + i];
	}
	if (e)
		mmnf_ssd_index_use(&ssd->index, p->slot);
	pthread_mutex_unlock(&ssd->lock);
	return e;
}

/*
 * A block was not what its record says.  Either all is as it was, and the disk is
 * wrong: the record goes.  Or the slot has moved on.
 */
static void is_bad(struct mmnf_ssd *ssd, const struct ssd_piece *p, u32 i)
{
	u32 slot = SSD_NO_SLOT;
	struct ssd_entry *e;

	pthread_mutex_lock(&ssd->lock);
	e = ssd->off ? NULL : mmnf_ssd_entry_get(ssd, p->chunk, &slot);
	if (e && slot == p->slot && ssd_is_valid(&e->r, p->first + i) &&
	    e->r.block_sum[p->first + i] == p->sum[i]) {
		ssd->stats.bad++;
		mmnf_ssd_slot_drop(ssd, slot);
	}
	pthread_mutex_unlock(&ssd->lock);
}

/* Memory for the piece; false: it is in pieces that are no blocks, or too many. */
static bool cut(struct ssd_rest *rest, struct ssd_piece *p)
{
	u64 bytes = p->nr * MMNF_SSD_BLOCK;

	p->nr_iov = 0;
	while (bytes && rest->nr_iov && p->nr_iov < SSD_PIECE_IOV) {
		u64 n = min_u64(rest->iov->iov_len - rest->done, bytes);

		if (n % MMNF_SSD_BLOCK)
			return false;
		p->iov[p->nr_iov++] = (struct iovec) {
			(char *)rest->iov->iov_base + rest->done, n
		};
		bytes -= n;
		rest->done += n;
		if (rest->done == rest->iov->iov_len) {
			rest->iov++;
			rest->nr_iov--;
			rest->done = 0;
		}
	}
	return !bytes;
}

bool mmnf_ssd_piece_take(struct mmnf_ssd *ssd, struct ssd_rest *rest,
			 struct ssd_piece *p)
{
	u64 in_chunk = rest->offset % ssd->chunk_bytes;
	u64 bytes = min_u64(rest->bytes, ssd->chunk_bytes - in_chunk), at;

	/* The end of the space, where it is no whole block, is never kept. */
	if (in_chunk % MMNF_SSD_BLOCK || bytes % MMNF_SSD_BLOCK)
		return false;
	p->chunk = ssd_chunk(ssd, rest->offset);
	p->first = (u32)(in_chunk / MMNF_SSD_BLOCK);
	p->nr = (u32)(bytes / MMNF_SSD_BLOCK);
	if (!cut(rest, p) || !look_up(ssd, p))
		return false;
	p->file = ssd_data_file(ssd, p->slot, &at);
	p->at = at + p->first * MMNF_SSD_BLOCK;
	rest->offset += bytes;
	rest->bytes -= bytes;
	return true;
}

static bool is_right(struct mmnf_ssd *ssd, const struct ssd_piece *p)
{
	u64 block = p->chunk * ssd->chunk_blocks + p->first, at;
	u32 i, n = 0;

	for (i = 0; i < p->nr_iov; i++) {
		const char *data = p->iov[i].iov_base;

		for (at = 0; at < p->iov[i].iov_len;
		     at += MMNF_SSD_BLOCK, n++) {
			if (mmnf_ssd_block_sum(ssd, block + n, data + at) ==
			    p->sum[n])
				continue;
			is_bad(ssd, p, n);
			return false;
		}
	}
	return true;
}

bool mmnf_ssd_piece_read(struct mmnf_ssd *ssd, const struct ssd_piece *p,
			 ssize_t result)
{
	if (result < 0) {
		pthread_mutex_lock(&ssd->lock);
		mmnf_ssd_failed(ssd, (int)result, "reading");
		pthread_mutex_unlock(&ssd->lock);
	}
	if (result != (ssize_t)(p->nr * MMNF_SSD_BLOCK)) {
		is_bad(ssd, p, 0);
		return false;
	}
	return is_right(ssd, p);
}

static bool read_all(struct mmnf_ssd *ssd, struct ssd_rest *rest)
{
	struct mmnf_ssd_disk *d = ssd->disk;
	struct ssd_piece p;

	while (rest->bytes)
		if (!mmnf_ssd_piece_take(ssd, rest, &p) ||
		    !mmnf_ssd_piece_read(
			    ssd, &p, d->read(d, p.file, p.iov, p.nr_iov, p.at)))
			return false;
	return true;
}

/* All of it in the log; lock is held, and given up meanwhile. */
static bool lay_over(struct mmnf_ssd *ssd, const struct ssd_rest *all)
{
	const struct ssd_dirty *d = &ssd->dirty;
	u64 end = all->offset + all->bytes, at = all->offset;
	u32 i;

	for (i = mmnf_ssd_dirty_find(d, at); i < d->nr && at < end; i++) {
		if (d->e[i]->start > at)
			return false;
		at = d->e[i]->end;
	}
	return at >= end &&
	       !mmnf_ssd_overlay(ssd, all->offset, all->bytes, all->iov,
				 all->nr_iov, UINT64_MAX);
}

bool mmnf_ssd_read_log(struct mmnf_ssd *ssd, const struct ssd_rest *all,
		       u64 *ticket, bool *hit)
{
	bool is_dirty;

	pthread_mutex_lock(&ssd->lock);
	*ticket = ssd->clock;
	is_dirty = mmnf_ssd_dirty_overlaps(&ssd->dirty, all->offset,
					   all->offset + all->bytes);
	*hit = is_dirty && lay_over(ssd, all);
	pthread_mutex_unlock(&ssd->lock);
	return is_dirty;
}

void mmnf_ssd_count_read(struct mmnf_ssd *ssd, u64 bytes, bool hit)
{
	mmnf_count(hit ? &ssd->stats.hits : &ssd->stats.misses, 1);
	if (hit)
		mmnf_count(&ssd->stats.hit_bytes, bytes);
}

bool mmnf_ssd_read(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		   const struct iovec *iov, u32 nr_iov, u64 *ticket)
{
	struct ssd_rest rest = {
		.offset = offset, .bytes = bytes, .iov = iov, .nr_iov = nr_iov
	};
	bool hit;

	if (!mmnf_ssd_read_log(ssd, &rest, ticket, &hit))
		hit = read_all(ssd, &rest);
	mmnf_ssd_count_read(ssd, bytes, hit);
	return hit;
}

/* Has the log lost something that the space may not have had yet? */
static bool was_overtaken(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
			  u64 ticket)
{
	u64 chunk = ssd_chunk(ssd, offset);

	for (; chunk <= ssd_chunk(ssd, offset + bytes - 1); chunk++)
		if (*ssd_stamp(&ssd->drained, chunk) > ticket)
			return true;
	return false;
}

int mmnf_ssd_came(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		  const struct iovec *iov, u32 nr_iov, u64 ticket)
{
	int ret = 0;

	pthread_mutex_lock(&ssd->lock);
	if (was_overtaken(ssd, offset, bytes, ticket))
		ret = 1;
	else if (mmnf_ssd_dirty_overlaps(&ssd->dirty, offset, offset + bytes))
		ret = mmnf_ssd_overlay(ssd, offset, bytes, iov, nr_iov,
				       UINT64_MAX);
	else if (!ssd->off)
		mmnf_ssd_fill_queue(ssd, offset, bytes, iov, nr_iov, ticket);
	pthread_mutex_unlock(&ssd->lock);
	return ret;
}

/* Where the record is not at hand the whole chunk goes: that needs no disk. */
static void forget_in_chunk(struct mmnf_ssd *ssd, u64 chunk, u32 first,
			    u32 last)
{
	u32 slot = mmnf_ssd_index_find(&ssd->index, chunk), i;
	struct ssd_entry *e;

	*ssd_stamp(&ssd->forgotten, chunk) = ssd->clock;
	if (slot == SSD_NO_SLOT)
		return;
	e = mmnf_ssd_entry_find(ssd, slot);
	if (!e) {
		mmnf_ssd_slot_drop(ssd, slot);
		return;
	}
	for (i = first; i <= last; i++) {
		if (!ssd_is_valid(&e->r, i))
			continue;
		e->r.valid[i / 64] &= ~(1ULL << i % 64);
		mmnf_ssd_entry_dirty(ssd, e);
	}
}

void mmnf_ssd_forget_bytes(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
			   bool drained)
{
	u64 end = offset + bytes, n;

	ssd->clock++;
	for (; offset < end; offset += n) {
		u64 in_chunk = offset % ssd->chunk_bytes;
		u64 chunk = ssd_chunk(ssd, offset);

		n = min_u64(end - offset, ssd->chunk_bytes - in_chunk);
		if (drained)
			*ssd_stamp(&ssd->drained, chunk) = ssd->clock;
		if (!ssd->off)
			forget_in_chunk(
				ssd, chunk, (u32)(in_chunk / MMNF_SSD_BLOCK),
				(u32)((in_chunk + n - 1) / MMNF_SSD_BLOCK));
	}
}

/* More than the cache has: slot by slot, and where it ends in a chunk, all of that. */
static void forget_slots(struct mmnf_ssd *ssd, u64 offset, u64 bytes)
{
	u64 first = ssd_chunk(ssd, offset), chunk;
	u64 last = ssd_chunk(ssd, offset + bytes - 1);
	u32 i;

	ssd->clock++;
	for (i = 0; i < SSD_STAMPS; i++)
		ssd->forgotten.of[i] = ssd->clock;
	for (i = 0; !ssd->off && i < ssd->index.nr_slots; i++)
		if (mmnf_ssd_index_chunk(&ssd->index, i, &chunk) &&
		    chunk >= first && chunk <= last)
			mmnf_ssd_slot_drop(ssd, i);
}

void mmnf_ssd_forget(struct mmnf_ssd *ssd, u64 offset, u64 bytes)
{
	pthread_mutex_lock(&ssd->lock);
	if (bytes / ssd->chunk_bytes > ssd->index.nr_slots)
		forget_slots(ssd, offset, bytes);
	else
		mmnf_ssd_forget_bytes(ssd, offset, bytes, false);
	pthread_mutex_unlock(&ssd->lock);
}
