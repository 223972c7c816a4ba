// SPDX-License-Identifier: MIT
/*
 * mmnf doctor: what the file system at a path can do, tried on a file without a
 * name that takes no space.  It is gone when this program is.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "doctor.h"
#include "tool.h"

#define SEGMENT_BYTES (64ULL << 30) /* the default of mmnf_field_create() */
#define BLOCK 4096

/**
 * struct filesystem - of a path
 * @fd: the file without a name, or -1 and @error
 * @path: a folder
 */
struct filesystem {
	char *path;
	int fd, error;
	struct statfs st;
};

static const struct {
	long magic;
	const char *name;
	const char *large_folios; /* since which Linux; NULL: none */
} types[] = {
	{ 0x58465342, "xfs", "5.18" },	 { 0xef53, "ext4", "6.16" },
	{ 0x9123683e, "btrfs", "6.17" }, { 0x01021994, "tmpfs", "6.14" },
	{ 0x794c7630, "overlay", NULL }, { 0x6969, "nfs", "6.13" },
	{ 0xf2f52010, "f2fs", NULL },	 { 0x00c36400, "ceph", NULL },
	{ 0x2fc12fc1, "zfs", NULL },	 { 0x01021997, "9p", NULL },
	{ 0x65735546, "fuse", NULL },
};

#define NR_TYPES (sizeof(types) / sizeof(types[0]))
#define TMPFS 0x01021994

static size_t type_of(const struct filesystem *fs)
{
	size_t i;

	for (i = 0; i < NR_TYPES; i++)
		if (types[i].magic == (long)(uint32_t)fs->st.f_type)
			break;
	return i;
}

/* A folder's own, else that of the folder a file lies in. */
static char *folder_of(const char *path)
{
	char *folder = strdup(path), *slash;
	struct stat st;

	if (!folder || (!stat(path, &st) && S_ISDIR(st.st_mode)))
		return folder;
	slash = strrchr(folder, '/');
	if (!slash)
		strcpy(folder, ".");
	else if (slash == folder)
		strcpy(folder, "/");
	else
		*slash = 0;
	return folder;
}

struct filesystem *filesystem_open(const char *path)
{
	struct filesystem *fs = calloc(1, sizeof(*fs));

	if (!fs)
		return NULL;
	fs->path = *path ? folder_of(path) : NULL;
	if (!fs->path || statfs(fs->path, &fs->st)) {
		free(fs->path);
		free(fs);
		return NULL;
	}
	fs->fd = open(fs->path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	fs->error = errno;
	return fs;
}

void filesystem_close(struct filesystem *fs)
{
	if (fs->fd >= 0)
		close(fs->fd);
	free(fs->path);
	free(fs);
}

static bool not_tried(const struct filesystem *fs, struct finding *f)
{
	if (fs->fd < 0)
		finding_set(f, FINDING_NOTE,
			    "not tried: no file without a name in %s: %s",
			    fs->path, strerror(fs->error));
	return fs->fd < 0;
}

void doctor_fs_type(const struct filesystem *fs, struct finding *f)
{
	size_t type = type_of(fs);
	char free_text[16];

	human_bytes((uint64_t)fs->st.f_bavail * (uint64_t)fs->st.f_bsize,
		    free_text);
	if (type == NR_TYPES)
		finding_set(f, FINDING_NOTE,
			    "%s: type 0x%lx, not tried with mmnf; %s free",
			    fs->path, (long)fs->st.f_type, free_text);
	else if (fs->st.f_type == TMPFS)
		finding_set(f, FINDING_NOTE,
			    "%s: tmpfs, memory already: nothing is read ahead; "
			    "%s free",
			    fs->path, free_text);
	else
		finding_set(f, FINDING_OK, "%s: %s, %s free", fs->path,
			    types[type].name, free_text);
}

void doctor_fs_size(const struct filesystem *fs, struct finding *f)
{
	uint64_t least = 0, most = INT64_MAX, middle;
	char text[16];

	if (not_tried(fs, f))
		return;
	signal(SIGXFSZ, SIG_IGN); /* EFBIG says it, too */
	while (least < most) {
		middle = least + (most - least) / 2 + 1;
		if (ftruncate(fs->fd, (off_t)middle))
			most = middle - 1;
		else
			least = middle;
	}
	if (ftruncate(fs->fd, 0))
		f->state = FINDING_MISSING;
	human_bytes(least, text);
	if (least >= SEGMENT_BYTES) {
		finding_set(f, FINDING_OK, "files of up to %s", text);
		return;
	}
	finding_set(f, FINDING_MISSING,
		    "files of up to %s: smaller than a segment of 64 GiB",
		    text);
	finding_mend(f, "mmnf create ... --segment-bytes %llu",
		     (unsigned long long)(least / BLOCK * BLOCK));
}

void doctor_fs_holes(const struct filesystem *fs, struct finding *f)
{
	const off_t bytes = 64 << 20, at = 32 << 20;
	struct stat st;
	off_t data;

	if (not_tried(fs, f))
		return;
	if (ftruncate(fs->fd, bytes) || pwrite(fs->fd, "x", 1, at) != 1 ||
	    fstat(fs->fd, &st)) {
		finding_set(f, FINDING_MISSING, "a file cannot be written: %s",
			    strerror(errno));
		return;
	}
	data = lseek(fs->fd, 0, SEEK_DATA);
	if ((uint64_t)st.st_blocks * 512 >= (uint64_t)bytes)
		finding_set(
			f, FINDING_MISSING,
			"holes take space: a field takes what it could hold");
	else if (data <= 0 || data > at)
		finding_set(f, FINDING_NOTE,
			    "holes take no space, and cannot be found "
			    "(SEEK_DATA): they are read ahead like data");
	else
		finding_set(f, FINDING_OK,
			    "what was never written takes no space");
	if (ftruncate(fs->fd, 0))
		f->state = FINDING_MISSING;
}

void doctor_fs_direct(const struct filesystem *fs, struct finding *f)
{
	char name[64];
	void *block;
	ssize_t done = -1;
	int fd, err;

	if (not_tried(fs, f))
		return;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fs->fd);
	fd = open(name, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (fd >= 0 && !posix_memalign(&block, BLOCK, BLOCK)) {
		memset(block, 0, BLOCK);
		if (pwrite(fs->fd, block, BLOCK, 0) == BLOCK &&
		    !fdatasync(fs->fd))
			done = pread(fd, block, BLOCK, 0);
		err = errno;
		free(block);
	} else {
		err = errno;
	}
	if (fd >= 0)
		close(fd);
	if (done == BLOCK)
		finding_set(f, FINDING_OK, "O_DIRECT works: engine direct");
	else
		finding_set(f, FINDING_MISSING,
			    "no O_DIRECT (%s): engine direct reads through the "
			    "page cache",
			    strerror(err));
}

void doctor_fs_folios(const struct filesystem *fs, struct finding *f)
{
	size_t type = type_of(fs);

	if (type == NR_TYPES || !types[type].large_folios)
		finding_set(f, FINDING_NOTE,
			    "page cache by single pages, as far as is known");
	else
		finding_set(f, FINDING_NOTE,
			    "%s has large folios since Linux %s",
			    types[type].name, types[type].large_folios);
}
