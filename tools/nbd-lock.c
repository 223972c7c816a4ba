// SPDX-License-Identifier: MIT
/*
 * One supervisor a device: a lock on /run/mmnf/nbdN.lock, which goes with the
 * process that holds it.  The pid in it is for people.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
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
	int fd, err;

	if (mkdir(NBD_LOCKS, 0755) && errno != EEXIST)
		return -errno;
	fd = open_lock(index, O_RDWR | O_CREAT);
	if (fd < 0)
		return fd;
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		err = -errno;
		close(fd);
		return err;
	}
	nbd_lock_sign(fd);
	return fd;
}

pid_t nbd_lock_holder(uint32_t index)
{
	int fd = open_lock(index, O_RDONLY);
	pid_t pid = 0;
	char text[16];
	ssize_t n;

	if (fd < 0)
		return 0;
	if (flock(fd, LOCK_SH | LOCK_NB)) {
		n = pread(fd, text, sizeof(text) - 1, 0);
		text[n > 0 ? n : 0] = 0;
		pid = (pid_t)strtol(text, NULL, 10);
	}
	close(fd);
	return pid;
}
