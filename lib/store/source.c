// SPDX-License-Identifier: MIT
/*
 * Files of others: which format, where the data is.
 *
 * PATH#SELECTOR names a tensor in a file of many, or says what a file without a
 * header holds ("#raw,dtype=f32,shape=4x5"): also a block device.  A path that
 * exists as it stands has no selector; else the first '#' before which there is a
 * file begins it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store.h"

/* What is told by a selector or by content before what is told by name. */
static const struct mmnf_format *const formats[] = {
	&mmnf_format_raw,   &mmnf_format_npy, &mmnf_format_gguf,
	&mmnf_format_nrrd,  &mmnf_format_bin, &mmnf_format_safetensors,
	&mmnf_format_nifti,
};

#define NR_FORMATS (sizeof(formats) / sizeof(formats[0]))

int mmnf_array_finish(struct mmnf_array *a, bool fortran)
{
	u64 bytes = mmnf_dtype_bytes(a->dtype);
	u32 i;

	for (i = 0; i < a->ndim; i++) {
		u32 axis = fortran ? i : a->ndim - 1 - i;

		if (!a->shape[axis])
			return mmnf_error(EINVAL,
					  "shape[%u] is 0: expected at least 1",
					  axis);
		a->stride_bytes[axis] = (s64)bytes;
		if (__builtin_mul_overflow(bytes, a->shape[axis], &bytes) ||
		    bytes > (u64)S64_MAX)
			return mmnf_error(
				EINVAL, "shape: expected less than 2^63 bytes");
	}
	return 0;
}

static ssize_t read_at(int fd, u8 *to, size_t bytes, u64 offset)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t n = pread(fd, to + done, bytes - done,
				  (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

const u8 *mmnf_source_look(struct mmnf_source *src, u64 offset, size_t bytes)
{
	ssize_t n;

	if (offset <= src->head_bytes && bytes <= src->head_bytes - offset)
		return src->head + offset;
	if (offset >= src->window_at &&
	    offset - src->window_at <= src->window_bytes &&
	    bytes <= src->window_bytes - (offset - src->window_at))
		return src->window + (offset - src->window_at);
	if (src->fd < 0 || offset > src->file_bytes ||
	    bytes > src->file_bytes - offset) {
		mmnf_error(EINVAL,
			   "header: file is %" PRIu64
			   " bytes: expected %zu more at byte %" PRIu64,
			   src->file_bytes, bytes, offset);
		return NULL;
	}
	if (!src->window)
		src->window = malloc(MMNF_LOOK_MAX);
	if (!src->window) {
		mmnf_error(ENOMEM, "no memory");
		return NULL;
	}
	src->window_bytes = 0;
	n = read_at(src->fd, src->window, MMNF_LOOK_MAX, offset);
	if (n < (ssize_t)bytes) {
		mmnf_error_system(n < 0 ? (int)-n : EIO,
				  "reading at byte %" PRIu64, offset);
		return NULL;
	}
	src->window_at = offset;
	src->window_bytes = (size_t)n;
	return src->window;
}

bool mmnf_source_named(const struct mmnf_source *src, const char *suffix)
{
	size_t n = strlen(suffix), len = strlen(src->path);

	return len > n && !strcmp(src->path + len - n, suffix);
}

/* Cuts the selector off src->path, if there is one. */
static void split(struct mmnf_source *src)
{
	struct stat st;
	char *at;

	src->selector = NULL;
	if (!stat(src->path, &st))
		return;
	for (at = strchr(src->path, '#'); at; at = strchr(at + 1, '#')) {
		*at = 0;
		if (!stat(src->path, &st) && mmnf_file_holds_data(st.st_mode)) {
			src->selector = at + 1;
			return;
		}
		*at = '#';
	}
}

static int open_data(int dir, const char *path, bool writable, u64 *file_bytes)
{
	int flags = writable ? O_RDWR : O_RDONLY, fd, err;

	fd = mmnf_file_open(dir, path, flags);
	if (fd < 0)
		return mmnf_error_system(errno, "%s", path);
	err = mmnf_file_bytes(fd, file_bytes);
	if (!err)
		return fd;
	close(fd);
	return err == -EINVAL ?
		       mmnf_error(
			       EINVAL,
			       "%s: expected a regular file or a block device",
			       path) :
		       mmnf_error_system(-err, "%s", path);
}

int mmnf_source_open(struct mmnf_source *src, const char *name)
{
	ssize_t n;
	int fd;

	memset(src, 0, sizeof(*src));
	src->fd = -1;
	src->path = strdup(name);
	src->head = malloc(MMNF_HEAD_MAX);
	if (!src->path || !src->head) {
		mmnf_source_close(src);
		return mmnf_error(ENOMEM, "%s: no memory", name);
	}
	split(src);
	fd = open_data(AT_FDCWD, src->path, false, &src->file_bytes);
	if (fd < 0) {
		mmnf_source_close(src);
		return fd;
	}
	src->fd = fd;
	/* Else the kernel takes the head for the beginning of a walk. */
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	n = read_at(fd, src->head, MMNF_HEAD_MAX, 0);
	posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL);
	if (n < 0) {
		mmnf_source_close(src);
		return mmnf_error_system((int)-n, "%s", name);
	}
	src->head_bytes = (size_t)n;
	return 0;
}

void mmnf_source_close(struct mmnf_source *src)
{
	if (src->fd >= 0)
		close(src->fd);
	src->fd = -1;
	free(src->window);
	free(src->head);
	free(src->path);
	src->window = src->head = NULL;
	src->path = NULL;
}

int mmnf_source_parse(struct mmnf_source *src,
		      const struct mmnf_format **format, struct mmnf_array *out)
{
	size_t i;

	memset(out, 0, sizeof(*out));
	for (i = 0; i < NR_FORMATS; i++) {
		if (!formats[i]->is(src))
			continue;
		*format = formats[i];
		if (src->selector && formats[i] != &mmnf_format_raw &&
		    formats[i] != &mmnf_format_safetensors &&
		    formats[i] != &mmnf_format_gguf)
			return mmnf_error(
				EINVAL,
				"%s: '#%s': expected no selector, %s holds one array",
				src->path, src->selector, formats[i]->name);
		return formats[i]->parse(out, src);
	}
	if (src->head_bytes >= 2 && src->head[0] == 0x1f &&
	    src->head[1] == 0x8b)
		return mmnf_error(
			EOPNOTSUPP,
			"%s: compressed with gzip: expected it uncompressed",
			src->path);
	return mmnf_error(
		EINVAL,
		"%s: expected .npy or uncompressed .nii, .safetensors, .gguf, .nrrd (by content), .fbin (by name), or #raw,dtype=...,shape=...",
		src->path);
}

/* A name in the folder of the header, and nothing outside of it. */
static int open_beside(const struct mmnf_source *src, const char *name,
		       bool writable, u64 *file_bytes)
{
	const char *slash = strrchr(src->path, '/');
	char *folder;
	int dir, fd;

	if (*name == '/' || !strncmp(name, "../", 3) || strstr(name, "/../"))
		return mmnf_error(
			EOPNOTSUPP,
			"%s: data file is '%s': expected a file in its folder",
			src->path, name);
	folder = slash ? strndup(src->path, (size_t)(slash - src->path) + 1) :
			 strdup(".");
	if (!folder)
		return mmnf_error(ENOMEM, "no memory");
	dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(folder);
	if (dir < 0)
		return mmnf_error_system(errno, "%s: its folder", src->path);
	fd = open_data(dir, name, writable, file_bytes);
	close(dir);
	return fd;
}

/* How many bytes lie from the first element on. */
static u64 data_bytes(const struct mmnf_array *a)
{
	u64 bytes = mmnf_dtype_bytes(a->dtype);
	u32 i;

	/* mmnf_array_finish() has found that this does not overflow. */
	for (i = 0; i < a->ndim; i++)
		bytes *= a->shape[i];
	return bytes;
}

int mmnf_source_take(struct mmnf_source *src, const struct mmnf_array *a,
		     bool writable, struct mmnf_geometry *g, int *fd)
{
	u64 file_bytes = src->file_bytes, offset = a->data_offset_bytes;
	int from = -1, err;

	if (a->data_file[0])
		from = open_beside(src, a->data_file, writable, &file_bytes);
	else if (writable)
		from = open_data(AT_FDCWD, src->path, true, &file_bytes);
	if ((a->data_file[0] || writable) && from < 0)
		return from;
	if (a->data_at_end)
		offset = file_bytes - min_u64(file_bytes, data_bytes(a));
	err = mmnf_geometry_init_file(g, a->dtype, a->ndim, a->shape,
				      a->stride_bytes, offset, file_bytes);
	if (err) {
		if (from >= 0)
			close(from);
		return err;
	}
	if (from < 0) {
		from = src->fd;
		src->fd = -1;
	}
	*fd = from;
	return 0;
}

static bool has_suffix(const struct mmnf_format *format, const char *path)
{
	size_t i, len = strlen(path);

	for (i = 0; i < 4 && format->suffix[i]; i++) {
		size_t n = strlen(format->suffix[i]);

		if (len > n && !strcmp(path + len - n, format->suffix[i]))
			return true;
	}
	return false;
}

const struct mmnf_format *mmnf_format_find(const char *name, const char *path)
{
	size_t i;

	for (i = 0; i < NR_FORMATS; i++)
		if (formats[i]->print &&
		    (name ? !strcmp(name, formats[i]->name) :
			    has_suffix(formats[i], path)))
			return formats[i];
	return NULL;
}
