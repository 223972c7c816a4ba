// SPDX-License-Identifier: MIT
/*
 * Segment files, each for itself: made when first written, opened, made durable.
 *
 * A file appears under its name only at its full length and, where the fill
 * value is not zero, filled, or with its index: a reader never meets a short one, nor
 * does one after a power cut.  A file of any other length is an error for whoever asks
 * for it, so that a cut file is never read as fill.
 *
 * Linux says once that it could not write data out, and then takes it for written.  So
 * that fdatasync() has once said this of a file is kept, and it is not asked again:
 * neither is a later sync told that all is well, nor does an index name a tile that is
 * lost.  So it is whatever the error: file systems pass on that of the write, which may
 * have lacked memory, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "new-file.h"
#include "shard.h"

#define FILL_CHUNK (1 << 20)

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

/*
 * On FUSE and CephFS a signal may come in between.  Afterwards that cannot be told from
 * an EINTR with which data was not written, so none comes.
 */
static int sync_undisturbed(int (*sync)(int fd), int fd)
{
	sigset_t all, before;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = sync(fd) ? -errno : 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return err;
}

int mmnf_segment_sync_data(int fd)
{
	return sync_undisturbed(fdatasync, fd);
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
	/* A name may outlive a power cut that what it names does not. */
	if (!err && (g->indexed || !g->fill_is_zero))
		err = mmnf_segment_sync_data(file.fd);
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

static int open_file(struct mmnf_field *field, const char *key, u64 *bytes)
{
	int flags = field->writable ? O_RDWR : O_RDONLY, fd, err;

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

int mmnf_segment_file_open(struct mmnf_field *field, u64 number, bool create,
			   u64 *bytes, bool *created)
{
	char key[MMNF_KEY_MAX];
	int fd, err;

	*created = false;
	if (field->remote) {
		*bytes = mmnf_field_geometry(field)->segment_bytes;
		return MMNF_NO_FILE;
	}
	mmnf_segment_name(field, number, key);
	fd = open_file(field, key, bytes);
	if (fd != -ENOENT || !create)
		return fd;
	*created = true;
	err = create_file(field, key);
	fd = err ? err : open_file(field, key, bytes);
	return fd == -ENOENT ?
		       mmnf_error(EIO, "segment %s is gone as soon as made",
				  key) :
		       fd;
}

void mmnf_segment_lost(struct mmnf_field *field, int err)
{
	int none = 0;

	__atomic_compare_exchange_n(&field->segments.lost_error, &none, err,
				    false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

/* @lost, under its lock, is what was said of it. */
static int settle(struct mmnf_field *field, struct mmnf_settled *settled,
		  int fd)
{
	int err;

	pthread_mutex_lock(&settled->lock);
	err = settled->lost ? settled->lost : mmnf_segment_sync_data(fd);
	if (err) {
		settled->lost = err;
		mmnf_segment_lost(field, err);
	}
	pthread_mutex_unlock(&settled->lock);
	return err;
}

int mmnf_segment_settle(struct mmnf_field *field, struct mmnf_segment *s)
{
	return settle(field, &s->settled, s->fd);
}

int mmnf_segment_settle_checks(struct mmnf_field *field)
{
	struct mmnf_segments *all = &field->segments;
	u64 zeroed = __atomic_load_n(&all->zeroed, __ATOMIC_SEQ_CST);
	u64 gone = __atomic_load_n(&all->gone, __ATOMIC_SEQ_CST);
	int err;

	err = settle(field, &all->checks_settled, field->store.checks);
	/* No less than another thread has made it meanwhile. */
	while (!err && gone < zeroed &&
	       !__atomic_compare_exchange_n(&all->gone, &gone, zeroed, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	return err;
}

static int sync_folder(struct mmnf_field *field, int fd)
{
	int err;

	err = sync_undisturbed(fsync, fd);
	if (err)
		mmnf_segment_lost(field, err);
	return err;
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
		err = sync_folder(field, fd);
		close(fd);
		if (err)
			return err;
	}
	return sync_folder(field, field->store.dir);
}

/* Files and then the folders that name them. */
static int make_durable(struct mmnf_field *field, struct mmnf_segment *s)
{
	int err;

	err = mmnf_shard_flush(field, s);
	if (!err)
		err = mmnf_segment_settle(field, s);
	if (!err && s->shard && field->store.checksums)
		err = mmnf_segment_settle_checks(field);
	if (!err && s->created)
		err = mmnf_segment_sync_name(field, s->number);
	if (!err)
		s->created = false;
	return err;
}

int mmnf_segment_durable(struct mmnf_field *field, struct mmnf_segment *s)
{
	int err;

	/* What is written from now on is for the next time. */
	if (field->remote ||
	    !__atomic_exchange_n(&s->dirty, false, __ATOMIC_ACQ_REL))
		return 0;
	err = make_durable(field, s);
	if (err)
		mmnf_segment_written(s);
	return err;
}
