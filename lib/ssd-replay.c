// SPDX-License-Identifier: MIT
/*
 * Reading the log in: which records count, and which were never there.  An error of
 * the disk is none of both: then nothing is known of what was written, and the open
 * fails.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ssd-log.h"

#define SEARCH_BYTES 65536

int ssd_log_lost(int err, const char *what)
{
	return mmnf_error(
		-err,
		"cache: %s: %s: expected to read what was written and is not on the servers yet; to go on without that, remove the directory",
		what, strerror(-err));
}

int ssd_log_is_there(struct mmnf_ssd *ssd, const char *name)
{
	int err = ssd->disk->exists(ssd->disk, name);

	if (!err)
		return 1;
	return err == -ENOENT ? 0 : ssd_log_lost(err, name);
}

/* Is there a record behind pos that says seq had been synced?  Or an error. */
static int was_durable(struct mmnf_ssd *ssd, const struct ssd_log_file *f,
		       u64 pos, u64 seq)
{
	char *buf = malloc(SEARCH_BYTES);
	struct ssd_log_record r;
	bool found = false;
	ssize_t n = 1;
	u64 at;

	if (!buf)
		return -ENOMEM;
	for (; !found && n > 0; pos += SEARCH_BYTES - sizeof(r)) {
		n = ssd_log_read_at(ssd, f->file, buf, SEARCH_BYTES, pos);
		for (at = 0; n > 0 && !found && at + sizeof(r) <= (u64)n;
		     at += 8) {
			memcpy(&r, buf + at, sizeof(r));
			found = r.magic == SSD_LOG_RECORD_MAGIC &&
				r.sum == ssd_log_record_sum(ssd, &r) &&
				r.life >= ssd->log.life && r.durable >= seq;
		}
	}
	free(buf);
	return n < 0 ? (int)n : found;
}

static bool is_next(const struct mmnf_ssd *ssd, const struct ssd_log_record *r)
{
	u64 in_chunk = r->offset % ssd->chunk_bytes;

	return r->magic == SSD_LOG_RECORD_MAGIC &&
	       r->sum == ssd_log_record_sum(ssd, r) &&
	       r->seq == ssd->log.seq + 1 && r->life >= ssd->log.life &&
	       r->bytes && r->bytes <= ssd->chunk_bytes - in_chunk &&
	       r->offset < ssd->backing.bytes &&
	       r->bytes <= ssd->backing.bytes - r->offset;
}

/* The record at pos: 1, 0: there is none that is right; or an error. */
static int read_record(struct mmnf_ssd *ssd, const struct ssd_log_file *f,
		       u64 pos, struct ssd_log_record *r, void *data)
{
	ssize_t n = ssd_log_read_at(ssd, f->file, r, sizeof(*r), pos);

	if (n != sizeof(*r) || !is_next(ssd, r))
		return n < 0 ? (int)n : 0;
	n = ssd_log_read_at(ssd, f->file, data, r->bytes, pos + sizeof(*r));
	if (n < 0)
		return (int)n;
	return n == (ssize_t)r->bytes &&
	       r->data_sum == mmnf_crc32c(ssd->salt, data, r->bytes);
}

static int take_record(struct mmnf_ssd *ssd, struct ssd_log_file *f,
		       const struct ssd_log_record *r, u64 pos)
{
	struct ssd_extent e = { .start = r->offset,
				.end = r->offset + r->bytes,
				.seq = r->seq,
				.written = r->seq,
				.at = pos + sizeof(*r),
				.record = { pos + sizeof(*r), r->bytes,
					    r->data_sum },
				.file = f };
	u64 align = ssd->backing.align;

	/* What was before may have been sent, and was by whole blocks. */
	e.held = mmnf_ssd_dirty_overlaps(&ssd->dirty, e.start / align * align,
					 round_up_u64(e.end, align));
	if (!mmnf_ssd_dirty_insert(&ssd->dirty, &e))
		return mmnf_error(ENOMEM, "no memory for the cache's log");
	mmnf_ssd_forget_bytes(ssd, e.start, r->bytes, true);
	ssd->log.seq = r->seq;
	ssd->log.life = r->life;
	return 0;
}

static int scan(struct mmnf_ssd *ssd, struct ssd_log_file *f)
{
	char *data = malloc(ssd->chunk_bytes);
	struct ssd_log_record r = { 0 };
	char text[80];
	u64 pos = 0;
	int err, ret = data ? 1 : -ENOMEM;

	f->first_seq = ssd->log.seq + 1;
	while (ret > 0 && (ret = read_record(ssd, f, pos, &r, data)) > 0) {
		err = take_record(ssd, f, &r, pos);
		if (err) {
			free(data);
			return err;
		}
		pos += sizeof(r) + round_up_u64(r.bytes, 8);
	}
	free(data);
	f->bytes = pos;
	ssd->log.bytes += pos;
	if (!ret)
		ret = was_durable(ssd, f, pos, ssd->log.seq + 1);
	if (!ret)
		return 0;
	snprintf(text, sizeof(text), "file log.%" PRIu64 ", byte %" PRIu64 "%s",
		 f->number, pos, ret > 0 ? ", is damaged" : "");
	return ssd_log_lost(ret > 0 ? -EIO : ret, text);
}

int ssd_log_replay(struct mmnf_ssd *ssd)
{
	struct ssd_log *log = &ssd->log;
	u64 number = log->first_number;
	struct ssd_log_file *f;
	char name[32];
	int err = 0;

	for (;; number++) {
		ssd_log_file_name(number, name);
		err = ssd_log_is_there(ssd, name);
		if (err <= 0)
			break;
		f = ssd_log_add_file(ssd, number);
		err = f ? scan(ssd, f) : ssd_log_lost(-EIO, name);
		if (err)
			break;
	}
	log->next_number = number;
	return err;
}
