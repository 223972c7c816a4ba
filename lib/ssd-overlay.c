// SPDX-License-Identifier: MIT
/*
 * What the log has of some bytes, laid over what the space or nobody had of them.
 * The files are read without the lock; they are kept until that is over.
 *
 * A record is read whole, for its sum: a disk that has lost or changed what it said
 * it had must not give readers and servers zeros or worse.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ssd-internal.h"

int mmnf_ssd_record_read(struct mmnf_ssd *ssd, const struct ssd_extent *e,
			 char *data)
{
	struct iovec iov = { data, e->record.bytes };

	if (ssd->disk->read(ssd->disk, e->file->file, &iov, 1, e->record.at) !=
		    (ssize_t)e->record.bytes ||
	    mmnf_crc32c(ssd->salt, data, e->record.bytes) != e->record.sum)
		return -EIO;
	return 0;
}

/* An extent's bytes, from data on, into memory that may lie in pieces. */
static void lay_over(const struct ssd_extent *e, const char *data, u64 offset,
		     u64 end, const struct iovec *iov, u32 nr_iov)
{
	u64 start = max_u64(e->start, offset), at = offset;
	u64 stop = min_u64(e->end, end), from;

	for (; nr_iov && at < stop; nr_iov--, iov++) {
		u64 piece_end = at + iov->iov_len;

		from = max_u64(at, start);
		if (piece_end > from)
			memcpy((char *)iov->iov_base + (from - at),
			       data + (from - e->start),
			       min_u64(piece_end, stop) - from);
		at = piece_end;
	}
}

int mmnf_ssd_overlay(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		     const struct iovec *iov, u32 nr_iov, u64 seq_max)
{
	const struct ssd_dirty *d = &ssd->dirty;
	u32 i, first = mmnf_ssd_dirty_find(d, offset), nr = 0;
	u64 end = offset + bytes;
	struct ssd_extent *copy;
	char *data;
	int err = 0;

	while (first + nr < d->nr && d->e[first + nr]->start < end)
		nr++;
	if (!nr)
		return 0;
	copy = malloc(nr * sizeof(*copy));
	data = malloc(ssd->chunk_bytes);
	if (!copy || !data) {
		free(copy);
		free(data);
		return -ENOMEM;
	}
	for (i = 0; i < nr; i++) {
		copy[i] = *d->e[first + i];
		copy[i].file->users++;
	}
	pthread_mutex_unlock(&ssd->lock);
	for (i = 0; i < nr && !err; i++) {
		const struct ssd_extent *e = &copy[i];

		if (e->seq > seq_max)
			continue;
		err = mmnf_ssd_record_read(ssd, e, data);
		if (!err)
			lay_over(e, data + (e->at - e->record.at), offset, end,
				 iov, nr_iov);
	}
	pthread_mutex_lock(&ssd->lock);
	for (i = 0; i < nr; i++)
		mmnf_ssd_log_put(ssd, copy[i].file);
	free(copy);
	free(data);
	return err;
}
