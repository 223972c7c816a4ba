// SPDX-License-Identifier: MIT
/*
 * The files of a cache's directory: plain system calls, each done to its end.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ssd.h"

struct directory {
	struct mmnf_ssd_disk disk; /* first */
	int fd, lock;
};

static struct directory *of(struct mmnf_ssd_disk *disk)
{
	return (struct directory *)disk;
}

static int open_file(struct mmnf_ssd_disk *disk, const char *name, bool direct)
{
	int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
	int fd = -1;

	if (direct)
		fd = openat(of(disk)->fd, name, flags | O_DIRECT, 0600);
	if (fd < 0)
		fd = openat(of(disk)->fd, name, flags, 0600);
	return fd < 0 ? -errno : fd;
}

static void close_file(struct mmnf_ssd_disk *disk, int file)
{
	(void)disk;
	close(file);
}

static s64 bytes_of(struct mmnf_ssd_disk *disk, int file)
{
	struct stat st;

	(void)disk;
	return fstat(file, &st) ? -errno : st.st_size;
}

static ssize_t read_file(struct mmnf_ssd_disk *disk, int file,
			 const struct iovec *iov, u32 nr_iov, u64 offset)
{
	ssize_t n;

	(void)disk;
	do
		n = preadv(file, iov, (int)nr_iov, (off_t)offset);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static int write_file(struct mmnf_ssd_disk *disk, int file, const void *data,
		      u64 bytes, u64 offset)
{
	const char *from = data;

	(void)disk;
	while (bytes) {
		ssize_t n = pwrite(file, from, bytes, (off_t)offset);

		if (n > 0) {
			from += n;
			offset += (u64)n;
			bytes -= (u64)n;
		} else if (!n) {
			return -EIO;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

static int sync_file(struct mmnf_ssd_disk *disk, int file)
{
	(void)disk;
	return fdatasync(file) ? -errno : 0;
}

static int truncate_file(struct mmnf_ssd_disk *disk, int file, u64 bytes)
{
	(void)disk;
	return ftruncate(file, (off_t)bytes) ? -errno : 0;
}

static int reserve(struct mmnf_ssd_disk *disk, int file, u64 bytes)
{
	struct stat st;

	if (!fallocate(file, 0, 0, (off_t)bytes))
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	if (fstat(file, &st))
		return -errno;
	return (u64)st.st_size < bytes ? truncate_file(disk, file, bytes) : 0;
}

static int remove_file(struct mmnf_ssd_disk *disk, const char *name)
{
	return unlinkat(of(disk)->fd, name, 0) ? -errno : 0;
}

static int exists(struct mmnf_ssd_disk *disk, const char *name)
{
	return faccessat(of(disk)->fd, name, F_OK, AT_SYMLINK_NOFOLLOW) ?
		       -errno :
		       0;
}

static int sync_names(struct mmnf_ssd_disk *disk)
{
	return fsync(of(disk)->fd) ? -errno : 0;
}

/* Goes with the descriptor, so with the process however it ends. */
static int lock_directory(struct mmnf_ssd_disk *disk)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct directory *d = of(disk);

	d->lock = openat(d->fd, "lock",
			 O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (d->lock < 0)
		return -errno;
	if (!fcntl(d->lock, F_OFD_SETLK, &lock))
		return 0;
	return errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
}

static void end(struct mmnf_ssd_disk *disk)
{
	struct flock unlock = { .l_type = F_UNLCK, .l_whence = SEEK_SET };
	struct directory *d = of(disk);

	/* A child after fork() has the descriptor, too. */
	if (d->lock >= 0) {
		fcntl(d->lock, F_OFD_SETLK, &unlock);
		close(d->lock);
	}
	close(d->fd);
	free(d);
}

int mmnf_ssd_disk_open(struct mmnf_ssd_disk **out, const char *path)
{
	struct directory *d = calloc(1, sizeof(*d));
	int err;

	*out = NULL;
	if (!d)
		return mmnf_error(ENOMEM, "no memory");
	d->disk = (struct mmnf_ssd_disk) {
		.has_descriptors = true,
		.open = open_file,
		.close = close_file,
		.bytes = bytes_of,
		.read = read_file,
		.write = write_file,
		.sync = sync_file,
		.truncate = truncate_file,
		.reserve = reserve,
		.remove = remove_file,
		.exists = exists,
		.sync_names = sync_names,
		.lock = lock_directory,
		.end = end,
	};
	d->lock = -1;
	if (mkdir(path, 0700) && errno != EEXIST) {
		err = errno;
		free(d);
		return mmnf_error_system(err, "cache directory %s: making it",
					 path);
	}
	d->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->fd < 0) {
		err = errno;
		free(d);
		return mmnf_error_system(err, "cache directory %s", path);
	}
	*out = &d->disk;
	return 0;
}
