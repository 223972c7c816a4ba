// SPDX-License-Identifier: MIT
/*
 * Segment files: opened when needed, a bounded number kept open, made when
 * first written.
 *
 * A file appears under its name only at its full length and, where the fill
 * value is not zero, filled: a reader never meets a short one.  A file of any
 * other length is an error for whoever asks for it, so that a cut file is never
 * read as fill.
 *
 * segments.lock guards the cache and everything in it but the files' contents.
 * A file with users is not closed.
 *
 * Readers of one file share nothing that they write: a file that is open is found
 * by its number and pinned without the lock, on the thread's own board
 * (cache-pins.c).
 *
 *	a reader			who closes the file
 *	finds the number		takes the number away
 *	pins its place in open[]	is the place on a board?
 *	is the number still there?
 *
 * So one of the two sees the other: the reader takes the lock instead, or the number
 * is put back.  A file that is not that of its number any more stays in its place,
 * without one, until nobody has it pinned.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cache-pins.h"
#include "new-file.h"
#include "readahead.h"
#include "shard.h"

#define FILL_CHUNK (1 << 20)
#define NO_FILE (-4096) /* no errno: the segment is there, and no file is */

static int fill_file(struct mmnf_field *field, int fd)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 len = min_u64(FILL_CHUNK, g->segment_bytes), done = 0;
	char *buf = malloc(len);
	int err = 0;

	if (!buf)
		return -ENOMEM;
	mmnf_geometry_fill(g, buf, len);
	while (!err && done < g->segment_bytes) {
		ssize_t n = pwrite(fd, buf,
				   min_u64(len, g->segment_bytes - done),
				   (off_t)done);

		/* len is a multiple of the element, so is any full write */
		if (n < 0 && errno != EINTR)
			err = -errno;
		else if (n > 0)
			done += (u64)n / g->element_bytes * g->element_bytes;
	}
	free(buf);
	return err;
}

/* Makes the folders above a key. */
static int make_dirs(int dir, char *key)
{
	char *slash;

	for (slash = strchr(key, '/'); slash; slash = strchr(slash + 1, '/')) {
		int err;

		*slash = 0;
		err = mkdirat(dir, key, 0777) && errno != EEXIST ? -errno : 0;
		*slash = '/';
		if (err)
			return err;
	}
	return 0;
}

static int create_file(struct mmnf_field *field, char *key)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 bytes = mmnf_geometry_file_bytes(g);
	struct mmnf_new_file file;
	int err;

	err = make_dirs(field->store.dir, key);
	if (!err)
		err = mmnf_new_file_open(&file, field->store.dir, key, 0666);
	if (err)
		return mmnf_error_system(-err, "segment %s", key);
	err = ftruncate(file.fd, (off_t)bytes) ? -errno : 0;
	if (!err && g->indexed)
		err = mmnf_shard_init(g, file.fd);
	else if (!err && !g->fill_is_zero)
		err = fill_file(field, file.fd);
	/* Unlike a rename, a link does not replace what another has made. */
	if (!err)
		err = mmnf_new_file_link(&file);
	mmnf_new_file_close(&file);
	return err && err != -EEXIST ?
		       mmnf_error_system(-err,
					 "segment %s of %" PRIu64 " bytes", key,
					 bytes) :
		       0;
}

/* Is a file as long as its segment?  That of others may be longer. */
static int check_length(const struct mmnf_field *field, const char *key,
			u64 bytes)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	bool plain = field->store.dir < 0;

	if (g->indexed) {
		if (bytes >= g->index_bytes && bytes <= (u64)S64_MAX)
			return 0;
		return mmnf_error(EIO,
				  "segment %s is %" PRIu64
				  " bytes: expected an index of %" PRIu64,
				  key, bytes, g->index_bytes);
	}
	if (plain ? bytes >= g->segment_bytes : bytes == g->segment_bytes)
		return 0;
	return mmnf_error(EIO,
			  "segment %s is %" PRIu64 " bytes: expected %" PRIu64,
			  key, bytes, g->segment_bytes);
}

/* Returns the descriptor, -ENOENT without text, or -errno. */
static int open_file(struct mmnf_field *field, const char *key, u64 *bytes)
{
	int flags = field->writable ? O_RDWR : O_RDONLY, fd, err;

	if (field->remote) {
		*bytes = mmnf_field_geometry(field)->segment_bytes;
		return NO_FILE;
	}
	if (field->store.file >= 0)
		fd = fcntl(field->store.file, F_DUPFD_CLOEXEC, 0);
	else
		fd = mmnf_file_open(field->store.dir, key, flags);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return -ENOENT;
	if (fd < 0)
		return mmnf_error_system(errno, "segment %s", key);
	err = mmnf_file_bytes(fd, bytes);
	if (err == -EINVAL)
		err = mmnf_error(
			EIO,
			"segment %s: expected a regular file or a block device",
			key);
	else if (err)
		err = mmnf_error_system(-err, "segment %s", key);
	else
		err = check_length(field, key, *bytes);
	if (err) {
		close(fd);
		return err;
	}
	if (!mmnf_resident_may_ask(fd))
		__atomic_store_n(&field->blind, true, __ATOMIC_RELAXED);
	/* Here the library predicts; the kernel's guesses would only add. */
	if (field->walk || field->prefetch_off)
		posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	return fd;
}

int mmnf_segment_sync_name(struct mmnf_field *field, u64 number)
{
	char key[MMNF_KEY_MAX], *slash;
	int fd, err;

	mmnf_zarr_key(&field->store, number, key);
	while ((slash = strrchr(key, '/'))) {
		*slash = 0;
		fd = openat(field->store.dir, key,
			    O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		err = fsync(fd) ? -errno : 0;
		close(fd);
		if (err)
			return err;
	}
	return fsync(field->store.dir) ? -errno : 0;
}

/* Files and then the folders that name them. */
static int make_durable(struct mmnf_field *field, struct mmnf_segment *s)
{
	int err;

	err = mmnf_shard_flush(field, s);
	if (err)
		return err;
	if (fdatasync(s->fd))
		return -errno;
	if (s->shard && field->store.checksums &&
	    fdatasync(field->store.checks))
		return -errno;
	err = s->created ? mmnf_segment_sync_name(field, s->number) : 0;
	if (!err)
		s->created = false;
	return err;
}

/* What is written from now on is for the next time. */
static int sync_one(struct mmnf_field *field, struct mmnf_segment *s)
{
	int err;

	if (field->remote ||
	    !__atomic_exchange_n(&s->dirty, false, __ATOMIC_ACQ_REL))
		return 0;
	err = make_durable(field, s);
	if (err)
		mmnf_segment_written(s);
	return err;
}

static void discard(struct mmnf_segment *s)
{
	mmnf_mapped_close(s);
	mmnf_resident_close(s);
	mmnf_readahead_close(s);
	if (s->fd >= 0)
		close(s->fd);
	if (s->direct_fd >= 0 && s->direct_fd != s->fd)
		close(s->direct_fd);
	mmnf_shard_free(s->shard);
	free(s);
}

static void release(struct mmnf_field *field, struct mmnf_segment *s)
{
	int err = sync_one(field, s);

	if (err)
		field->segments.lost_error = err;
	discard(s);
}

bool mmnf_segment_resident(const struct mmnf_segment *s, char *dst, u64 bytes,
			   u64 offset)
{
	struct iovec iov = { dst, bytes };

	return preadv2(s->fd, &iov, 1, (off_t)offset, RWF_NOWAIT) ==
	       (ssize_t)bytes;
}

int mmnf_segment_direct(struct mmnf_field *field, struct mmnf_segment *s)
{
	char path[32];

	pthread_mutex_lock(&field->segments.lock);
	if (s->direct_fd < 0) {
		/* The same file, whatever its name is by now. */
		snprintf(path, sizeof(path), "/proc/self/fd/%d", s->fd);
		s->direct_fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	}
	if (s->direct_fd < 0)
		s->direct_fd = s->fd;
	pthread_mutex_unlock(&field->segments.lock);
	return s->direct_fd;
}

int mmnf_segments_init(struct mmnf_field *field)
{
	pthread_mutex_init(&field->segments.lock, NULL);
	field->segments.boards = calloc(1, sizeof(struct boards));
	return field->segments.boards ?
		       mmnf_boards_open(field->segments.boards) :
		       -ENOMEM;
}

/* From here on, and to none if it is 0, a place is found by number - 1. */
static void set_tag(struct mmnf_segments *all, u32 i, u64 tag)
{
	__atomic_store_n(&all->tag[i], tag, __ATOMIC_SEQ_CST);
}

static u32 home_of(u64 number)
{
	return number % MMNF_SEGMENTS_OPEN;
}

/* The place where a segment is open, or MMNF_SEGMENTS_OPEN. */
static u32 find(const struct mmnf_segments *all, u64 number)
{
	u32 home = home_of(number), n, i;

	for (n = 0; n < MMNF_SEGMENTS_OPEN; n++) {
		i = (home + n) % MMNF_SEGMENTS_OPEN;
		if (__atomic_load_n(&all->tag[i], __ATOMIC_SEQ_CST) ==
		    number + 1)
			return i;
	}
	return MMNF_SEGMENTS_OPEN;
}

/* Under the lock: closes what is in a place, if nobody uses it. */
static bool close_place(struct mmnf_field *field, u32 i)
{
	struct mmnf_segments *all = &field->segments;
	struct mmnf_segment *s = all->open[i];
	u64 tag = all->tag[i];

	if (s->refs)
		return false;
	set_tag(all, i, 0);
	if (mmnf_boards_have(all->boards, i)) {
		set_tag(all, i, tag);
		return false;
	}
	__atomic_store_n(&all->open[i], NULL, __ATOMIC_RELAXED);
	release(field, s);
	return true;
}

/* Under the lock: the same of what has lost its number. */
static void close_lost(struct mmnf_field *field, u32 i)
{
	if (field->segments.open[i] && !field->segments.tag[i])
		close_place(field, i);
}

/* An empty place, the home of a number if that is one; or MMNF_SEGMENTS_OPEN. */
static u32 empty_place(const struct mmnf_segments *all, u64 number)
{
	u32 home = home_of(number), n, i;

	for (n = 0; n < MMNF_SEGMENTS_OPEN; n++) {
		i = (home + n) % MMNF_SEGMENTS_OPEN;
		if (!all->open[i])
			return i;
	}
	return MMNF_SEGMENTS_OPEN;
}

/* Of those that are not tried: the one longest unused. */
static u32 oldest_place(const struct mmnf_segments *all, u64 tried)
{
	u64 stamp, least = UINT64_MAX;
	u32 i, oldest = 0;

	for (i = 0; i < MMNF_SEGMENTS_OPEN; i++) {
		stamp = __atomic_load_n(&all->open[i]->stamp, __ATOMIC_RELAXED);
		if (tried >> i & 1 || stamp >= least)
			continue;
		least = stamp;
		oldest = i;
	}
	return oldest;
}

/* Puts s where no file stands, or one that nobody uses, if there is such a place. */
static void keep(struct mmnf_field *field, struct mmnf_segment *s)
{
	struct mmnf_segments *all = &field->segments;
	u64 tried = 0;
	u32 i;

	for (i = 0; i < MMNF_SEGMENTS_OPEN; i++)
		close_lost(field, i);
	i = empty_place(all, s->number);
	while (i == MMNF_SEGMENTS_OPEN && ~tried) {
		u32 oldest = oldest_place(all, tried);

		if (close_place(field, oldest))
			i = oldest;
		tried |= 1ULL << oldest;
	}
	if (i == MMNF_SEGMENTS_OPEN)
		return;
	s->cached = true;
	s->place = i;
	__atomic_store_n(&all->open[i], s, __ATOMIC_RELAXED);
	set_tag(all, i, s->number + 1);
}

/* Takes fd over, also where there is no memory. */
static struct mmnf_segment *new_segment(struct mmnf_field *field, int fd)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_segment *s = calloc(1, sizeof(*s));

	if (s && g->indexed)
		s->shard = mmnf_shard_new(g);
	if (!s || (g->indexed && !s->shard)) {
		free(s);
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	s->fd = fd;
	s->direct_fd = -1;
	return s;
}

/* Time goes on when a file is opened: between two of them nobody writes it again. */
static void use(const struct mmnf_segments *all, struct mmnf_segment *s)
{
	u64 now = __atomic_load_n(&all->clock, __ATOMIC_RELAXED);

	if (__atomic_load_n(&s->stamp, __ATOMIC_RELAXED) != now)
		__atomic_store_n(&s->stamp, now, __ATOMIC_RELAXED);
}

int mmnf_segment_get(struct mmnf_field *field, u64 number, bool create,
		     struct mmnf_segment **out)
{
	struct mmnf_segments *all = &field->segments;
	struct mmnf_segment *s = NULL;
	char key[MMNF_KEY_MAX];
	bool created = false;
	u64 bytes = 0;
	int fd, err;
	u32 i;

	pthread_mutex_lock(&all->lock);
	i = find(all, number);
	if (i < MMNF_SEGMENTS_OPEN)
		s = all->open[i];
	if (!s) {
		mmnf_segment_name(field, number, key);
		fd = open_file(field, key, &bytes);
		if (fd == -ENOENT && create) {
			created = true;
			err = create_file(field, key);
			fd = err ? err : open_file(field, key, &bytes);
			if (fd == -ENOENT)
				fd = mmnf_error(
					EIO,
					"segment %s is gone as soon as made",
					key);
		}
		if (fd >= 0 || fd == NO_FILE)
			s = new_segment(field, fd);
		if ((fd >= 0 || fd == NO_FILE) && !s)
			fd = mmnf_error(ENOMEM, "segment %s: no memory", key);
		if (!s) {
			pthread_mutex_unlock(&all->lock);
			return fd;
		}
		s->id = ++all->nr_opened;
		s->number = number;
		s->file_bytes = bytes;
		s->created = s->dirty = created;
		__atomic_store_n(&all->clock, all->clock + 1, __ATOMIC_RELAXED);
		keep(field, s);
	}
	s->refs++;
	use(all, s);
	pthread_mutex_unlock(&all->lock);
	*out = s;
	/* Whoever made the file: what is written must be seen in the window. */
	if (!create || field->remote)
		return 0;
	err = mmnf_window_refresh(field, number, false);
	if (err)
		mmnf_segment_put(field, s);
	return err;
}

void mmnf_segment_name(const struct mmnf_field *field, u64 number, char *name)
{
	if (field->store.dir >= 0)
		mmnf_zarr_key(&field->store, number, name);
	else
		snprintf(name, MMNF_KEY_MAX, "%s", field->store.name);
}

void mmnf_segment_forget(struct mmnf_field *field, struct mmnf_segment *s)
{
	struct mmnf_segments *all = &field->segments;

	pthread_mutex_lock(&all->lock);
	if (s->cached)
		set_tag(all, s->place, 0);
	pthread_mutex_unlock(&all->lock);
}

void mmnf_segment_put(struct mmnf_field *field, struct mmnf_segment *s)
{
	pthread_mutex_lock(&field->segments.lock);
	if (!--s->refs) {
		if (s->cached)
			close_lost(field, s->place);
		else
			release(field, s);
	}
	pthread_mutex_unlock(&field->segments.lock);
}

int mmnf_segment_pin(struct mmnf_field *field, u64 number,
		     struct mmnf_segment_pin *pin)
{
	struct mmnf_segments *all = &field->segments;
	u32 i = find(all, number);

	pin->place = NO_PLACE;
	if (i < MMNF_SEGMENTS_OPEN)
		pin->place = mmnf_boards_pin(all->boards, i);
	if (pin->place == NO_PLACE)
		return mmnf_segment_get(field, number, false, &pin->s);
	pin->i = i;
	if (__atomic_load_n(&all->tag[i], __ATOMIC_SEQ_CST) != number + 1) {
		mmnf_segment_unpin(field, pin);
		pin->place = NO_PLACE;
		return mmnf_segment_get(field, number, false, &pin->s);
	}
	pin->s = __atomic_load_n(&all->open[i], __ATOMIC_RELAXED);
	use(all, pin->s);
	return 0;
}

void mmnf_segment_unpin(struct mmnf_field *field,
			const struct mmnf_segment_pin *pin)
{
	struct mmnf_segments *all = &field->segments;

	if (pin->place == NO_PLACE) {
		mmnf_segment_put(field, pin->s);
		return;
	}
	mmnf_boards_unpin(all->boards, pin->place, false);
	if (__atomic_load_n(&all->tag[pin->i], __ATOMIC_SEQ_CST))
		return;
	/* Who wanted to close it may have seen this pin. */
	pthread_mutex_lock(&all->lock);
	close_lost(field, pin->i);
	pthread_mutex_unlock(&all->lock);
}

int mmnf_segment_sync(struct mmnf_field *field)
{
	struct mmnf_segments *all = &field->segments;
	int err, first;
	u32 i;

	pthread_mutex_lock(&all->lock);
	first = all->lost_error;
	all->lost_error = 0;
	for (i = 0; i < MMNF_SEGMENTS_OPEN; i++) {
		err = all->open[i] ? sync_one(field, all->open[i]) : 0;
		if (err && !first)
			first = err;
	}
	pthread_mutex_unlock(&all->lock);
	return first ? mmnf_error_system(-first, "sync") : 0;
}

void mmnf_segment_close_all(struct mmnf_field *field)
{
	struct mmnf_segments *all = &field->segments;
	u32 i;

	for (i = 0; i < MMNF_SEGMENTS_OPEN; i++) {
		struct mmnf_segment *s = all->open[i];

		if (!s)
			continue;
		mmnf_shard_flush(field, s);
		discard(s);
	}
	if (all->boards)
		mmnf_boards_close(all->boards);
	free(all->boards);
	pthread_mutex_destroy(&all->lock);
}
