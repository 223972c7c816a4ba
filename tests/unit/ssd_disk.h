/* SPDX-License-Identifier: MIT */
/*
 * A disk in memory that loses power: for tests of the persistent cache.
 *
 * What was written is seen at once and is safe after a sync.  When the power goes,
 * each sector of each write since the last sync is there or not by chance, as is
 * each truncation and each new or removed name.
 *
 *	disk_cut_after(d, n)	power goes at the n-th change from now
 *	disk_power_on(d)	what survived is what there is
 */
#ifndef MMNF_TEST_SSD_DISK_H
#define MMNF_TEST_SSD_DISK_H

#include "field_util.h"
#include "ssd.h"

#define DISK_FILES 4096
#define SECTOR 512

static KTAP_UNUSED struct mmnf_ssd_stats stats_now(struct mmnf_ssd *ssd)
{
	struct mmnf_ssd_stats s;

	mmnf_ssd_stats(ssd, &s);
	return s;
}

struct disk_change {
	bool is_truncate;
	u64 offset, bytes;
	char *data;
	struct disk_change *next;
};

struct disk_image {
	char *data;
	u64 bytes, room;
};

struct disk_file {
	char name[32];
	bool there, was_there; /* now; at the last sync_names() */
	struct disk_image now, safe;
	struct disk_change *first, **last;
};

struct disk {
	struct mmnf_ssd_disk ops; /* first */
	struct disk_file file[DISK_FILES];
	u32 nr_files;
	u64 left; /* changes until the power goes */
	bool is_off, is_locked;
	u64 room_bytes; /* 0: no limit */
	int read_error; /* of data files */
	const char *bad_name; /* that file, or "lock", cannot be opened or read */
	int bad_error;
	u64 nr_changes;
};

static void image_fit(struct disk_image *m, u64 bytes)
{
	if (bytes > m->room) {
		m->room = bytes + bytes / 2;
		m->data = realloc(m->data, m->room);
		ASSERT_TRUE(m->data);
	}
	if (bytes > m->bytes)
		memset(m->data + m->bytes, 0, bytes - m->bytes);
	m->bytes = bytes;
}

static void image_put(struct disk_image *m, u64 offset, const void *data,
		      u64 bytes)
{
	if (offset + bytes > m->bytes)
		image_fit(m, offset + bytes);
	if (bytes)
		memcpy(m->data + offset, data, bytes);
}

static struct disk *disk_of(struct mmnf_ssd_disk *ops)
{
	return (struct disk *)ops;
}

/* One more change; false: the power has gone. */
static bool disk_step(struct disk *d)
{
	d->nr_changes++;
	if (!d->is_off && d->left && !--d->left)
		d->is_off = true;
	return !d->is_off;
}

static struct disk_file *disk_find(struct disk *d, const char *name)
{
	u32 i;

	for (i = 0; i < d->nr_files; i++)
		if (!strcmp(d->file[i].name, name))
			return &d->file[i];
	return NULL;
}

static void disk_forget_changes(struct disk_file *f)
{
	struct disk_change *c;

	while ((c = f->first)) {
		f->first = c->next;
		free(c->data);
		free(c);
	}
	f->last = &f->first;
}

static bool disk_is_bad(const struct disk *d, const char *name)
{
	return d->bad_name && !strcmp(d->bad_name, name);
}

static int disk_open(struct mmnf_ssd_disk *ops, const char *name, bool direct)
{
	struct disk *d = disk_of(ops);
	struct disk_file *f = disk_find(d, name);

	(void)direct;
	if (disk_is_bad(d, name) && d->bad_error == -EMFILE)
		return d->bad_error;
	if (!f) {
		ASSERT_LT(d->nr_files, DISK_FILES);
		f = &d->file[d->nr_files++];
		snprintf(f->name, sizeof(f->name), "%s", name);
		f->last = &f->first;
	}
	if (!f->there) {
		if (!disk_step(d))
			return -EIO;
		f->there = true;
		image_fit(&f->now, 0);
	}
	return (int)(f - d->file);
}

static void disk_close(struct mmnf_ssd_disk *ops, int file)
{
	(void)ops;
	(void)file;
}

static s64 disk_bytes(struct mmnf_ssd_disk *ops, int file)
{
	return (s64)disk_of(ops)->file[file].now.bytes;
}

static ssize_t disk_read(struct mmnf_ssd_disk *ops, int file,
			 const struct iovec *iov, u32 nr_iov, u64 offset)
{
	struct disk *d = disk_of(ops);
	struct disk_image *m = &d->file[file].now;
	ssize_t done = 0;
	u64 n;

	if (d->is_off)
		return -EIO;
	if (d->read_error && !strncmp(d->file[file].name, "data", 4))
		return d->read_error;
	if (disk_is_bad(d, d->file[file].name))
		return d->bad_error;
	for (; nr_iov && offset < m->bytes; nr_iov--, iov++, offset += n) {
		n = min_u64(iov->iov_len, m->bytes - offset);
		memcpy(iov->iov_base, m->data + offset, n);
		done += (ssize_t)n;
	}
	return done;
}

static void disk_note(struct disk_file *f, bool is_truncate, u64 offset,
		      const void *data, u64 bytes)
{
	struct disk_change *c = calloc(1, sizeof(*c));

	ASSERT_TRUE(c);
	c->is_truncate = is_truncate;
	c->offset = offset;
	c->bytes = bytes;
	if (bytes) {
		c->data = malloc(bytes);
		ASSERT_TRUE(c->data);
		memcpy(c->data, data, bytes);
	}
	*f->last = c;
	f->last = &c->next;
}

static int disk_write(struct mmnf_ssd_disk *ops, int file, const void *data,
		      u64 bytes, u64 offset)
{
	struct disk *d = disk_of(ops);
	struct disk_file *f = &d->file[file];
	bool was_off = d->is_off, on = disk_step(d);
	u64 used = 0;
	u32 i;

	for (i = 0; i < d->nr_files; i++)
		used += d->file[i].now.bytes;
	if (on && d->room_bytes && offset + bytes > f->now.bytes &&
	    used + offset + bytes - f->now.bytes > d->room_bytes)
		return -ENOSPC;
	/* The write in which the power went may be there in part. */
	if (!was_off)
		disk_note(f, false, offset, data, bytes);
	if (!on)
		return -EIO;
	image_put(&f->now, offset, data, bytes);
	return 0;
}

static int disk_truncate(struct mmnf_ssd_disk *ops, int file, u64 bytes)
{
	struct disk *d = disk_of(ops);

	if (!disk_step(d))
		return -EIO;
	disk_note(&d->file[file], true, bytes, NULL, 0);
	image_fit(&d->file[file].now, bytes);
	return 0;
}

static int disk_reserve(struct mmnf_ssd_disk *ops, int file, u64 bytes)
{
	if (disk_of(ops)->file[file].now.bytes >= bytes)
		return 0;
	return disk_truncate(ops, file, bytes);
}

static int disk_sync(struct mmnf_ssd_disk *ops, int file)
{
	struct disk *d = disk_of(ops);
	struct disk_file *f = &d->file[file];

	if (!disk_step(d))
		return -EIO;
	disk_forget_changes(f);
	image_fit(&f->safe, f->now.bytes);
	image_put(&f->safe, 0, f->now.data, f->now.bytes);
	return 0;
}

static int disk_remove(struct mmnf_ssd_disk *ops, const char *name)
{
	struct disk *d = disk_of(ops);
	struct disk_file *f = disk_find(d, name);

	if (!f || !f->there)
		return -ENOENT;
	if (!disk_step(d))
		return -EIO;
	f->there = false;
	disk_note(f, true, 0, NULL, 0);
	image_fit(&f->now, 0);
	return 0;
}

static int disk_exists(struct mmnf_ssd_disk *ops, const char *name)
{
	struct disk_file *f = disk_find(disk_of(ops), name);

	return f && f->there ? 0 : -ENOENT;
}

static int disk_sync_names(struct mmnf_ssd_disk *ops)
{
	struct disk *d = disk_of(ops);
	u32 i;

	if (!disk_step(d))
		return -EIO;
	for (i = 0; i < d->nr_files; i++)
		d->file[i].was_there = d->file[i].there;
	return 0;
}

static int disk_lock(struct mmnf_ssd_disk *ops)
{
	struct disk *d = disk_of(ops);

	if (disk_is_bad(d, "lock"))
		return d->bad_error;
	if (d->is_locked)
		return -EBUSY;
	d->is_locked = true;
	return 0;
}

static void disk_end(struct mmnf_ssd_disk *ops)
{
	disk_of(ops)->is_locked = false;
}

static KTAP_UNUSED void disk_init(struct disk *d)
{
	memset(d, 0, sizeof(*d));
	d->ops = (struct mmnf_ssd_disk) {
		.open = disk_open,
		.close = disk_close,
		.bytes = disk_bytes,
		.read = disk_read,
		.write = disk_write,
		.sync = disk_sync,
		.truncate = disk_truncate,
		.reserve = disk_reserve,
		.remove = disk_remove,
		.exists = disk_exists,
		.sync_names = disk_sync_names,
		.lock = disk_lock,
		.end = disk_end,
	};
}

/* 0: never. */
static KTAP_UNUSED void disk_cut_after(struct disk *d, u64 changes)
{
	d->left = changes;
}

/* percent: how likely it is that a change since the last sync is there. */
static void disk_survive(struct disk_file *f, u64 percent)
{
	struct disk_change *c;
	u64 at, n;

	for (c = f->first; c; c = c->next) {
		if (c->is_truncate) {
			if (rnd() % 100 < percent)
				image_fit(&f->safe, c->offset);
			continue;
		}
		for (at = 0; at < c->bytes; at += n) {
			n = min_u64(c->bytes - at,
				    SECTOR - (c->offset + at) % SECTOR);
			if (rnd() % 100 < percent)
				image_put(&f->safe, c->offset + at,
					  c->data + at, n);
		}
	}
	disk_forget_changes(f);
	image_fit(&f->now, f->safe.bytes);
	image_put(&f->now, 0, f->safe.data, f->safe.bytes);
}

static KTAP_UNUSED void disk_power_on(struct disk *d)
{
	static const u64 likely[] = { 0, 20, 50, 80, 100 };
	u32 i;

	for (i = 0; i < d->nr_files; i++) {
		struct disk_file *f = &d->file[i];

		if (f->there != f->was_there)
			f->there = rnd() % 2 ? f->there : f->was_there;
		f->was_there = f->there;
		disk_survive(f, likely[rnd() % 5]);
		if (!f->there) {
			image_fit(&f->now, 0);
			image_fit(&f->safe, 0);
		}
	}
	d->is_off = d->is_locked = false;
	d->left = 0;
}

static KTAP_UNUSED void disk_free(struct disk *d)
{
	u32 i;

	for (i = 0; i < d->nr_files; i++) {
		disk_forget_changes(&d->file[i]);
		free(d->file[i].now.data);
		free(d->file[i].safe.data);
	}
}

#endif
