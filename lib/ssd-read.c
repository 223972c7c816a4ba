// SPDX-License-Identifier: MIT
/*
 * Reads of the cache.  A slot is not pinned while it is read: if it is given to
 * another chunk meanwhile, the checksums do not fit, and that is a miss.
 */
#include <string.h>

#include "ssd-internal.h"

#define IOV_MAX_HERE 64

/* Blocks [first, first + nr) of a chunk, and what their checksums should be. */
struct piece {
	u64 chunk;
	u32 first, nr, slot;
	u32 sum[SSD_BLOCKS_MAX];
};

/* All valid? */
static bool look_up(struct mmnf_ssd *ssd, struct piece *p)
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
static void is_bad(struct mmnf_ssd *ssd, const struct piece *p, u32 i)
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

/* The next pieces of memory, of bytes in all. */
static u32 cut(const struct iovec **iov, u32 *nr, u64 *at, u64 bytes,
	       struct iovec *out)
{
	u32 n = 0;

	while (bytes && *nr && n < IOV_MAX_HERE) {
		u64 len = min_u64((*iov)->iov_len - *at, bytes);

		if (len % MMNF_SSD_BLOCK)
			return 0;
		out[n++] =
			(struct iovec) { (char *)(*iov)->iov_base + *at, len };
		bytes -= len;
		*at += len;
		if (*at == (*iov)->iov_len) {
			++*iov;
			--*nr;
			*at = 0;
		}
	}
	return bytes ? 0 : n;
}

static bool is_right(struct mmnf_ssd *ssd, const struct piece *p,
		     const struct iovec *iov, u32 nr_iov)
{
	u64 block = p->chunk * ssd->chunk_blocks + p->first, at;
	u32 i, n = 0;

	for (i = 0; i < nr_iov; i++) {
		for (at = 0; at < iov[i].iov_len; at += MMNF_SSD_BLOCK, n++) {
			if (mmnf_ssd_block_sum(ssd, block + n,
					       (char *)iov[i].iov_base + at) ==
			    p->sum[n])
				continue;
			is_bad(ssd, p, n);
			return false;
		}
	}
	return true;
}

static bool read_piece(struct mmnf_ssd *ssd, struct piece *p,
		       const struct iovec *iov, u32 nr_iov)
{
	u64 offset;
	ssize_t n;
	int file;

	if (!nr_iov || !look_up(ssd, p))
		return false;
	file = ssd_data_file(ssd, p->slot, &offset);
	n = ssd->disk->read(ssd->disk, file, iov, nr_iov,
			    offset + p->first * MMNF_SSD_BLOCK);
	if (n < 0) {
		pthread_mutex_lock(&ssd->lock);
		mmnf_ssd_failed(ssd, (int)n, "reading");
		pthread_mutex_unlock(&ssd->lock);
	}
	if (n != (ssize_t)(p->nr * MMNF_SSD_BLOCK)) {
		is_bad(ssd, p, 0);
		return false;
	}
	return is_right(ssd, p, iov, nr_iov);
}

static bool read_all(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		     const struct iovec *iov, u32 nr_iov)
{
	struct iovec part[IOV_MAX_HERE];
	struct piece p;
	u64 at = 0, n;

	/* The end of the space, where it is no whole block, is never kept. */
	if (offset % MMNF_SSD_BLOCK || bytes % MMNF_SSD_BLOCK)
		return false;
	for (; bytes; bytes -= n, offset += n) {
		p.chunk = ssd_chunk(ssd, offset);
		p.first = (u32)(offset % ssd->chunk_bytes / MMNF_SSD_BLOCK);
		n = min_u64(bytes,
			    ssd->chunk_bytes - offset % ssd->chunk_bytes);
		p.nr = (u32)(n / MMNF_SSD_BLOCK);
		if (!read_piece(ssd, &p, part,
				cut(&iov, &nr_iov, &at, n, part)))
			return false;
	}
	return true;
}

/* All of it in the log; lock is held, and given up meanwhile. */
static bool read_log(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		     const struct iovec *iov, u32 nr_iov)
{
	const struct ssd_dirty *d = &ssd->dirty;
	u64 end = offset + bytes, at = offset;
	u32 i;

	for (i = mmnf_ssd_dirty_find(d, offset); i < d->nr && at < end; i++) {
		if (d->e[i]->start > at)
			return false;
		at = d->e[i]->end;
	}
	return at >= end &&
	       !mmnf_ssd_overlay(ssd, offset, bytes, iov, nr_iov, UINT64_MAX);
}

bool mmnf_ssd_read(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		   const struct iovec *iov, u32 nr_iov, u64 *ticket)
{
	bool hit = false, is_dirty;

	pthread_mutex_lock(&ssd->lock);
	*ticket = ssd->clock;
	is_dirty = mmnf_ssd_dirty_overlaps(&ssd->dirty, offset, offset + bytes);
	if (is_dirty)
		hit = read_log(ssd, offset, bytes, iov, nr_iov);
	pthread_mutex_unlock(&ssd->lock);
	if (!is_dirty)
		hit = read_all(ssd, offset, bytes, iov, nr_iov);
	mmnf_count(hit ? &ssd->stats.hits : &ssd->stats.misses, 1);
	if (hit)
		mmnf_count(&ssd->stats.hit_bytes, bytes);
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

void mmnf_ssd_forget(struct mmnf_ssd *ssd, u64 offset, u64 bytes)
{
	pthread_mutex_lock(&ssd->lock);
	mmnf_ssd_forget_bytes(ssd, offset, bytes, false);
	pthread_mutex_unlock(&ssd->lock);
}
