// SPDX-License-Identifier: MIT
/*
 * A file that gets its name when it is whole.
 *
 * Until then it has none where the filesystem can do that, and goes with its last
 * descriptor; else one that nobody else has.  So what a writer that died has left
 * never stands in the way of another.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

#include "new-file.h"

/* In the same folder, whatever the name that it will get. */
static int choose_name(struct mmnf_new_file *f)
{
	const char *slash = strrchr(f->path, '/');
	int folder = slash ? (int)(slash - f->path) + 1 : 0;
	u64 number;

	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return -EIO;
	if ((size_t)folder + 32 > sizeof(f->temporary))
		return -ENAMETOOLONG;
	snprintf(f->temporary, sizeof(f->temporary),
		 "%.*s.mmnf-%016" PRIx64 ".new", folder, f->path, number);
	return 0;
}

static int open_folder(const struct mmnf_new_file *f, int flags,
		       unsigned int mode)
{
	const char *slash = strrchr(f->path, '/');
	char folder[sizeof(f->temporary)] = ".";

	if (slash)
		snprintf(folder, sizeof(folder), "%.*s",
			 (int)(slash - f->path) + 1, f->path);
	return openat(f->dir, folder, flags | O_CLOEXEC, mode);
}

/* "/proc/self/fd/N" is what gives it a name. */
static int open_nameless(struct mmnf_new_file *f, unsigned int mode)
{
	if (access("/proc/self/fd", X_OK))
		return -1;
	return open_folder(f, O_RDWR | O_TMPFILE, mode);
}

int mmnf_new_file_open(struct mmnf_new_file *f, int dir, const char *path,
		       unsigned int mode)
{
	int err;

	f->dir = dir;
	f->path = path;
	f->temporary[0] = 0;
	f->fd = open_nameless(f, mode);
	if (f->fd >= 0)
		return 0;
	do {
		err = choose_name(f);
		if (err)
			return err;
		f->fd = openat(dir, f->temporary,
			       O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	} while (f->fd < 0 && errno == EEXIST);
	return f->fd < 0 ? -errno : 0;
}

static int link_to(const struct mmnf_new_file *f, const char *path)
{
	char from[32];

	if (f->temporary[0])
		return linkat(f->dir, f->temporary, f->dir, path, 0) ? -errno :
								       0;
	snprintf(from, sizeof(from), "/proc/self/fd/%d", f->fd);
	return linkat(AT_FDCWD, from, f->dir, path, AT_SYMLINK_FOLLOW) ?
		       -errno :
		       0;
}

int mmnf_new_file_link(struct mmnf_new_file *f)
{
	return link_to(f, f->path);
}

static int name_it(struct mmnf_new_file *f)
{
	struct mmnf_new_file named = *f;
	int err;

	do {
		err = choose_name(&named);
		if (!err)
			err = link_to(f, named.temporary);
	} while (err == -EEXIST);
	if (!err)
		memcpy(f->temporary, named.temporary, sizeof(f->temporary));
	return err;
}

static int sync_folder(const struct mmnf_new_file *f)
{
	int folder = open_folder(f, O_RDONLY | O_DIRECTORY, 0), err;

	if (folder < 0)
		return -errno;
	err = fsync(folder) ? -errno : 0;
	close(folder);
	return err;
}

int mmnf_new_file_replace(struct mmnf_new_file *f)
{
	int err = f->temporary[0] ? 0 : name_it(f);

	if (!err && renameat(f->dir, f->temporary, f->dir, f->path))
		err = -errno;
	if (!err)
		f->temporary[0] = 0;
	return err ? err : sync_folder(f);
}

void mmnf_new_file_close(struct mmnf_new_file *f)
{
	if (f->temporary[0])
		unlinkat(f->dir, f->temporary, 0);
	close(f->fd);
}
