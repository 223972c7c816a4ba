// SPDX-License-Identifier: MIT
/*
 * One supervisor a device: a lock on /run/mmnf/nbdN.lock, which goes with the
 * process that holds it, and with its child.  The pid in it is for people.
 *
 * The lock is fcntl()'s of an open file, for that can be asked about: whoever took
 * one to see if it is free would be in the way of who wants it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nbd.h"

static int open_lock(uint32_t index, int flags)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), NBD_LOCKS "/nbd%" PRIu32 ".lock", index);
	fd = open(path, flags | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

void nbd_lock_sign(int lock)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());

	/* Shorter than before is the only harm that could be left. */
	if (ftruncate(lock, 0) || pwrite(lock, text, (size_t)len, 0) < 0)
		fprintf(stderr, "mmnf: nbd: the lock is not signed\n");
}

int nbd_lock_take(uint32_t index)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd, err;

	if (mkdir(NBD_LOCKS, 0755) && errno != EEXIST)
		return -errno;
	fd = open_lock(index, O_RDWR | O_CREAT);
	if (fd < 0)
		return fd;
	if (fcntl(fd, F_OFD_SETLK, &lock)) {
		err = errno == EACCES || errno == EAGAIN ? -EWOULDBLOCK :
							   -errno;
		close(fd);
		return err;
	}
	nbd_lock_sign(fd);
	return fd;
}

pid_t nbd_lock_holder(uint32_t index)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open_lock(index, O_RDONLY);
	pid_t pid = 0;
	char text[16];
	ssize_t n;

	if (fd < 0)
		return 0;
	if (!fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK) {
		n = pread(fd, text, sizeof(text) - 1, 0);
		text[n > 0 ? n : 0] = 0;
		pid = (pid_t)strtol(text, NULL, 10);
	}
	close(fd);
	return pid;
}
