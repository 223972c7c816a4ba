// SPDX-License-Identifier: MIT
/*
 * What elements can lie in: a regular file or a block device, each with a length.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "internal.h"

bool mmnf_file_holds_data(unsigned int mode)
{
	return S_ISREG(mode) || S_ISBLK(mode);
}

int mmnf_file_open(int dir, const char *path, int flags)
{
	int fd = openat(dir, path, flags | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	/* The lease is given back now, or taken from who does not. */
	if (fd < 0 && errno == EAGAIN && !fstatat(dir, path, &st, 0) &&
	    mmnf_file_holds_data(st.st_mode))
		fd = openat(dir, path, flags | O_CLOEXEC);
	return fd;
}

int mmnf_file_bytes(int fd, u64 *bytes)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (!mmnf_file_holds_data(st.st_mode))
		return -EINVAL;
	*bytes = (u64)st.st_size;
	if (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, bytes))
		return -errno;
	return 0;
}
