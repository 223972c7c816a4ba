// SPDX-License-Identifier: MIT
/*
 * One writer per region: open-file-description locks on ranges of segment files.
 *
 * They keep handles apart, in one process or in many, and go with the file's
 * descriptor, so a killed writer leaves none.  Threads of one handle share them.
 * Where the filesystem has no such locks, nothing is locked.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#include "internal.h"

static int lock_range(int fd, int type, u64 start, u64 bytes, bool wait)
{
	struct flock lock = {
		.l_type = (short)type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)start,
		.l_len = (off_t)bytes,
	};
	int err;

	do
		err = fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lock) ?
			      errno :
			      0;
	while (err == EINTR);
	if (err == EAGAIN || err == EACCES)
		return -EBUSY;
	return err == EDEADLK || err == ENOMEM ? -err : 0;
}

static int busy(const struct mmnf_field *field, const struct mmnf_segment *s,
		u64 start, u64 bytes)
{
	char name[MMNF_KEY_MAX];

	mmnf_segment_name(field, s->number, name);
	return mmnf_error(
		EBUSY,
		"segment %s: bytes %" PRIu64 " to %" PRIu64
		" are being written by another handle: expected one writer per region",
		name, start, start + bytes - 1);
}

int mmnf_lock(struct mmnf_field *field, const struct mmnf_segment *s, u64 start,
	      u64 bytes)
{
	int err = lock_range(s->fd, F_WRLCK, start, bytes, false);
	char name[MMNF_KEY_MAX];

	if (!err)
		return 0;
	if (err == -EBUSY)
		return busy(field, s, start, bytes);
	mmnf_segment_name(field, s->number, name);
	return mmnf_error_system(-err, "segment %s: locking", name);
}

int mmnf_lock_look(const struct mmnf_field *field, const struct mmnf_segment *s,
		   u64 start, u64 bytes)
{
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)start,
		.l_len = (off_t)bytes,
	};

	if (fcntl(s->fd, F_OFD_GETLK, &lock) || lock.l_type == F_UNLCK)
		return 0;
	return busy(field, s, start, bytes);
}

void mmnf_lock_wait(const struct mmnf_field *field,
		    const struct mmnf_segment *s, u64 start, u64 bytes)
{
	lock_range(s->fd, field->writable ? F_WRLCK : F_RDLCK, start, bytes,
		   true);
}

void mmnf_unlock(const struct mmnf_segment *s, u64 start, u64 bytes)
{
	lock_range(s->fd, F_UNLCK, start, bytes, false);
}
