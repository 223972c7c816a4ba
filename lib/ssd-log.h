/* SPDX-License-Identifier: MIT */
/* The log's files on the disk: what ssd-log.c writes and ssd-replay.c reads in. */
#ifndef MMNF_SSD_LOG_H
#define MMNF_SSD_LOG_H

#include <inttypes.h>
#include <stdio.h>

#include "ssd-internal.h"

#define SSD_LOG_RECORD_MAGIC 0x7264736d

/* sum: of the rest of this; data_sum: of the bytes behind it */
struct ssd_log_record {
	u32 magic, sum;
	u64 seq, durable, life, offset;
	u32 bytes, data_sum;
};

static inline u32 ssd_log_record_sum(const struct mmnf_ssd *ssd,
				     const struct ssd_log_record *r)
{
	return mmnf_crc32c(ssd->salt, &r->seq,
			   sizeof(*r) - offsetof(struct ssd_log_record, seq));
}

static inline void ssd_log_file_name(u64 number, char name[32])
{
	snprintf(name, 32, "log.%" PRIu64, number);
}

static inline ssize_t ssd_log_read_at(struct mmnf_ssd *ssd, int file, void *to,
				      u64 bytes, u64 offset)
{
	struct iovec iov = { to, bytes };

	return ssd->disk->read(ssd->disk, file, &iov, 1, offset);
}

/* Behind the others; NULL: it cannot be opened. */
struct ssd_log_file *ssd_log_add_file(struct mmnf_ssd *ssd, u64 number);

/* ---- ssd-replay.c */

/* err, with a text that says what cannot be read, and what that means. */
int ssd_log_lost(int err, const char *what);

/* Is there a file?  1, 0 or an error, with text. */
int ssd_log_is_there(struct mmnf_ssd *ssd, const char *name);

/* All files from log.first_number on.  An error with text. */
int ssd_log_replay(struct mmnf_ssd *ssd);

#endif
