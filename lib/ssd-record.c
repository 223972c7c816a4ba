// SPDX-License-Identifier: MIT
/*
 * Records of slots: which blocks are valid, and their checksums.  All are on the
 * disk; in memory there are some 2000, in sets of four by slot.
 *
 *	      read, add             dirty()            checkpoint
 *	EMPTY ----------> CLEAN ------------> DIRTY ----------------> WRITING
 *	  ^                 |  ^                ^                        |  |
 *	  '---- another ----'  '----------------+------ written ---------'  |
 *	                                        '--------- dirty() ---------'
 *
 * An entry that the disk does not have yet is never pushed out, so whoever reads
 * a record from the disk reads the last one, or finds that ssd->generation has
 * changed and reads again.
 */
#include <string.h>

#include "ssd-internal.h"

#define MAGIC 0x64735343

u32 mmnf_ssd_block_sum(const struct mmnf_ssd *ssd, u64 block, const void *data)
{
	u64 place[2] = { ssd->salt, block };

	return mmnf_crc32c_block(mmnf_crc32c(0, place, sizeof(place)), data);
}

u32 mmnf_ssd_record_sum(const struct mmnf_ssd *ssd, const struct ssd_record *r)
{
	return mmnf_crc32c(ssd->salt, &r->chunk,
			   sizeof(*r) - offsetof(struct ssd_record, chunk));
}

static struct ssd_entry *set_of(struct mmnf_ssd *ssd, u32 slot)
{
	return ssd->entries + slot % SSD_SETS * SSD_WAYS;
}

struct ssd_entry *mmnf_ssd_entry_find(struct mmnf_ssd *ssd, u32 slot)
{
	struct ssd_entry *e = set_of(ssd, slot);
	u32 i;

	for (i = 0; i < SSD_WAYS; i++, e++) {
		if (e->state == ENTRY_EMPTY || e->slot != slot)
			continue;
		e->used = 1;
		return e;
	}
	return NULL;
}

static bool may_go(const struct ssd_entry *e)
{
	return e->state == ENTRY_EMPTY || e->state == ENTRY_CLEAN;
}

/* Second chance: one pass takes who was not used since, the next anybody. */
struct ssd_entry *mmnf_ssd_entry_add(struct mmnf_ssd *ssd, u32 slot)
{
	struct ssd_entry *set = set_of(ssd, slot), *e;
	u32 i;

	for (i = 0; i < 2 * SSD_WAYS; i++) {
		e = &set[i % SSD_WAYS];
		if (!may_go(e))
			continue;
		if (e->state == ENTRY_EMPTY || !e->used) {
			memset(e, 0, sizeof(*e));
			e->slot = slot;
			e->state = ENTRY_CLEAN;
			e->used = 1;
			e->r.magic = MAGIC;
			return e;
		}
		e->used = 0;
	}
	return NULL;
}

void mmnf_ssd_entry_remove(struct mmnf_ssd *ssd, u32 slot)
{
	struct ssd_entry *e = mmnf_ssd_entry_find(ssd, slot);

	if (!e)
		return;
	if (e->state == ENTRY_DIRTY)
		ssd->nr_dirty--;
	e->state = ENTRY_EMPTY;
}

void mmnf_ssd_entry_dirty(struct mmnf_ssd *ssd, struct ssd_entry *e)
{
	if (e->state == ENTRY_DIRTY)
		return;
	e->state = ENTRY_DIRTY;
	if (!ssd->nr_dirty++)
		ssd->dirty_since_ns = mmnf_ssd_now_ns();
}

void mmnf_ssd_slot_drop(struct mmnf_ssd *ssd, u32 slot)
{
	mmnf_ssd_entry_remove(ssd, slot);
	mmnf_ssd_index_drop(&ssd->index, slot);
}

static bool is_right(const struct mmnf_ssd *ssd, const struct ssd_record *r,
		     u64 chunk)
{
	return r->magic == MAGIC && r->chunk == chunk + 1 &&
	       r->sum == mmnf_ssd_record_sum(ssd, r);
}

struct ssd_entry *mmnf_ssd_entry_get(struct mmnf_ssd *ssd, u64 chunk, u32 *slot)
{
	struct ssd_record r;
	struct iovec iov = { &r, sizeof(r) };
	struct ssd_entry *e;
	u64 generation;
	ssize_t n;

	for (;;) {
		*slot = mmnf_ssd_index_find(&ssd->index, chunk);
		if (*slot == SSD_NO_SLOT)
			return NULL;
		e = mmnf_ssd_entry_find(ssd, *slot);
		if (e)
			return e;
		generation = ssd->generation;
		pthread_mutex_unlock(&ssd->lock);
		n = ssd->disk->read(ssd->disk, ssd->records_file, &iov, 1,
				    *slot * sizeof(r));
		pthread_mutex_lock(&ssd->lock);
		if (ssd->off) {
			*slot = SSD_NO_SLOT;
			return NULL;
		}
		if (generation != ssd->generation ||
		    mmnf_ssd_index_find(&ssd->index, chunk) != *slot ||
		    mmnf_ssd_entry_find(ssd, *slot))
			continue;
		if (n < 0)
			mmnf_ssd_failed(ssd, (int)n, "reading a record");
		if (n == sizeof(r) && is_right(ssd, &r, chunk))
			break;
		/* The hint was one of a record that did not come to the disk. */
		mmnf_ssd_slot_drop(ssd, *slot);
		*slot = SSD_NO_SLOT;
		return NULL;
	}
	e = mmnf_ssd_entry_add(ssd, *slot);
	if (e)
		e->r = r;
	return e;
}
