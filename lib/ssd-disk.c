// SPDX-License-Identifier: MIT
/*
 * The files of a cache's directory: plain system calls, each done to its end.
 *
 * A child after fork() gives the lock up at once: it has no cache, and the lock must
 * go with the process that has.  locked_lock guards the list of those who have one.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ssd.h"

struct directory {
	struct mmnf_ssd_disk disk; /* first */
	int fd, lock;
	struct directory *next; /* that has its lock open */
};

static pthread_mutex_t locked_lock = PTHREAD_MUTEX_INITIALIZER;
static struct directory *locked;

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

static void before_fork(void)
{
	pthread_mutex_lock(&locked_lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&locked_lock);
}

static void in_child(void)
{
	for (; locked; locked = locked->next) {
		close(locked->lock);
		locked->lock = -1;
	}
	pthread_mutex_unlock(&locked_lock);
}

/* A fork() that is under way does not run what is registered meanwhile. */
static __attribute__((constructor)) void tell_of_forks(void)
{
	pthread_atfork(before_fork, after_fork, in_child);
}

/* Goes with the descriptor, so with the process however it ends. */
static int lock_directory(struct mmnf_ssd_disk *disk)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct directory *d = of(disk);

	pthread_mutex_lock(&locked_lock);
	d->lock = openat(d->fd, "lock",
			 O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (d->lock >= 0) {
		d->next = locked;
		locked = d;
	}
	pthread_mutex_unlock(&locked_lock);
	if (d->lock < 0)
		return -errno;
	if (!fcntl(d->lock, F_OFD_SETLK, &lock))
		return 0;
	return errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
}

static void end(struct mmnf_ssd_disk *disk)
{
	struct directory *d = of(disk), **p = &locked;

	pthread_mutex_lock(&locked_lock);
	while (*p && *p != d)
		p = &(*p)->next;
	if (*p)
		*p = d->next;
	if (d->lock >= 0)
		close(d->lock);
	pthread_mutex_unlock(&locked_lock);
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
