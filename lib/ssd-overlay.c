// SPDX-License-Identifier: MIT
/*
 * What the log has of some bytes, laid over what the space or nobody had of them.
 * The files are read without the lock; they are kept until that is over.
 */
#include <errno.h>
#include <stdlib.h>

#include "ssd-internal.h"

/* From a place of the log into memory that may lie in pieces. */
static int lay_over(struct mmnf_ssd *ssd, const struct ssd_extent *e,
		    u64 offset, u64 end, const struct iovec *iov, u32 nr_iov)
{
	u64 start = max_u64(e->start, offset), at = offset;
	u64 stop = min_u64(e->end, end), from, n;
	struct iovec to;

	for (; nr_iov && at < stop; nr_iov--, iov++) {
		u64 piece_end = at + iov->iov_len;

		from = max_u64(at, start);
		if (piece_end > from) {
			n = min_u64(piece_end, stop) - from;
			to.iov_base = (char *)iov->iov_base + (from - at);
			to.iov_len = n;
			if (ssd->disk->read(ssd->disk, e->file->file, &to, 1,
					    e->at + (from - e->start)) !=
			    (ssize_t)n)
				return -EIO;
		}
		at = piece_end;
	}
	return 0;
}

int mmnf_ssd_overlay(struct mmnf_ssd *ssd, u64 offset, u64 bytes,
		     const struct iovec *iov, u32 nr_iov, u64 seq_max)
{
	const struct ssd_dirty *d = &ssd->dirty;
	u32 i, first = mmnf_ssd_dirty_find(d, offset), nr = 0;
	u64 end = offset + bytes;
	struct ssd_extent *copy;
	int err = 0;

	while (first + nr < d->nr && d->e[first + nr]->start < end)
		nr++;
	copy = malloc((nr + 1) * sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	for (i = 0; i < nr; i++) {
		copy[i] = *d->e[first + i];
		copy[i].file->users++;
	}
	pthread_mutex_unlock(&ssd->lock);
	for (i = 0; i < nr && !err; i++)
		if (copy[i].seq <= seq_max)
			err = lay_over(ssd, &copy[i], offset, end, iov, nr_iov);
	pthread_mutex_lock(&ssd->lock);
	for (i = 0; i < nr; i++)
		mmnf_ssd_log_put(ssd, copy[i].file);
	free(copy);
	return err;
}
