// SPDX-License-Identifier: MIT
/*
 * Fields of any format into fields and files of another.
 *
 * Both sides are opened as fields, so what can be opened in place can be
 * imported, and a file to export to is a header and a field behind it.  Bytes
 * are copied as they are; scale factors of a format are not applied.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "new-file.h"
#include "store/store.h"

static void whole(const struct mmnf_geometry *g, struct mmnf_box *box)
{
	u32 i;

	memset(box, 0, sizeof(*box));
	for (i = 0; i < g->ndim; i++)
		box->count[i] = g->shape[i];
}

static int open_source(struct mmnf_field **out, const char *path)
{
	MMNF_OPTS(mmnf_open_opts, opts);

	int err;

	/* Read once, in order: no engine is better.  On the network there is one. */
	opts.engine = MMNF_ENGINE_MMAP;
	err = mmnf_field_open_quiet(out, path, &opts);
	if (err == -EOPNOTSUPP) {
		opts.engine = MMNF_ENGINE_NET;
		err = mmnf_field_open_quiet(out, path, &opts);
	}
	return err;
}

MMNF_EXPORT int mmnf_array_info(const char *src, struct mmnf_array_info *out)
{
	struct mmnf_array_info info = { .size = sizeof(info) };
	const struct mmnf_geometry *g;
	struct mmnf_field *field;
	int err;

	mmnf_error_enter("mmnf_array_info");
	if (!src || out->size != sizeof(*out))
		return mmnf_error(EINVAL,
				  "src or size: expected a path and %zu",
				  sizeof(*out));
	err = open_source(&field, src);
	if (err)
		return err;
	g = mmnf_field_geometry(field);
	info.dtype = g->dtype;
	info.ndim = g->ndim;
	memcpy(info.shape, g->shape, sizeof(info.shape));
	memcpy(info.stride_bytes, g->stride_bytes, sizeof(info.stride_bytes));
	info.data_offset_bytes = g->data_offset;
	snprintf(info.format, sizeof(info.format), "%s", field->store.format);
	mmnf_field_close(field);
	*out = info;
	return 0;
}

MMNF_EXPORT ssize_t mmnf_import(struct mmnf_field *field, const char *src,
				const uint64_t *at,
				void (*progress)(void *arg, uint64_t done_bytes,
						 uint64_t total_bytes),
				void *arg)
{
	struct mmnf_field *from;
	struct mmnf_box box;
	ssize_t bytes;
	int err;

	mmnf_error_enter("mmnf_import");
	if (!field->writable)
		return mmnf_error(
			EBADF,
			"field is open read-only: expected open with writable = 1");
	err = open_source(&from, src);
	if (err)
		return err;
	whole(mmnf_field_geometry(from), &box);
	bytes = (ssize_t)mmnf_field_geometry(from)->total_bytes;
	err = mmnf_copy(field, at, from, &box, progress, arg);
	mmnf_field_close(from);
	return err ? err : bytes;
}

/* The header, and as many bytes behind it as the array has. */
static int put_head(int fd, const u8 *head, size_t bytes, u64 data_bytes)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t n = write(fd, head + done, bytes - done);

		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && errno != EINTR)
			return -errno;
	}
	return ftruncate(fd, (off_t)(bytes + data_bytes)) ? -errno : 0;
}

static int fill_file(struct mmnf_field *field, const struct mmnf_box *box,
		     const char *path, const struct mmnf_geometry *g, int fd,
		     mmnf_progress *progress, void *arg)
{
	struct mmnf_field *to;
	int err, own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (own < 0)
		return mmnf_error_system(errno, "%s", path);
	err = mmnf_field_open_made(&to, path, g, own);
	if (err)
		return err;
	err = mmnf_copy(to, NULL, field, box, progress, arg);
	if (!err)
		err = mmnf_segment_sync(to);
	mmnf_field_close(to);
	return err;
}

/* Writes the whole file, which has its name after that. */
static int write_file(struct mmnf_field *field, const struct mmnf_box *box,
		      const char *path, const struct mmnf_format *format,
		      const struct mmnf_array *a, mmnf_progress *progress,
		      void *arg)
{
	u64 data = a->shape[0] * (u64)a->stride_bytes[0];
	struct mmnf_new_file file;
	struct mmnf_geometry g;
	size_t bytes = 0;
	u8 *head = NULL;
	int err;

	err = format->print(a, &head, &bytes);
	if (!err)
		err = mmnf_geometry_init_file(&g, a->dtype, a->ndim, a->shape,
					      a->stride_bytes, bytes,
					      bytes + data);
	if (err)
		goto out;
	err = mmnf_new_file_open(&file, AT_FDCWD, path, 0666);
	if (err) {
		err = mmnf_error_system(-err, "%s", path);
		goto out;
	}
	err = put_head(file.fd, head, bytes, data);
	if (err)
		err = mmnf_error_system(-err, "%s", path);
	else
		err = fill_file(field, box, path, &g, file.fd, progress, arg);
	if (!err && (err = mmnf_new_file_replace(&file)))
		mmnf_error_system(-err, "%s", path);
	mmnf_new_file_close(&file);
out:
	free(head);
	return err;
}

/* A device, or what a link leads to, is nothing to put a file in place of. */
static int check_place(const char *path)
{
	struct stat st;

	if (lstat(path, &st) || S_ISREG(st.st_mode))
		return 0;
	return mmnf_error(
		EINVAL, "%s: expected a regular file, or that nothing is there",
		path);
}

MMNF_EXPORT ssize_t mmnf_export(struct mmnf_field *field,
				const struct mmnf_box *box, const char *dst,
				const char *format,
				void (*progress)(void *arg, uint64_t done_bytes,
						 uint64_t total_bytes),
				void *arg)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_array a = { .dtype = g->dtype, .ndim = g->ndim };
	const struct mmnf_format *to;
	struct mmnf_box normal, all;
	u64 bytes;
	int err;

	mmnf_error_enter("mmnf_export");
	if (!dst)
		return mmnf_error(EINVAL, "dst: expected not NULL");
	to = mmnf_format_find(format, dst);
	if (!to)
		return mmnf_error(
			EINVAL,
			"%s: format '%s': expected npy, safetensors, nrrd, nifti, fbin or raw, or a name that ends so",
			dst, format ? format : "");
	whole(g, &all);
	err = mmnf_geometry_box(g, box ? box : &all, &normal, &bytes);
	if (!err && !bytes)
		err = mmnf_error(EINVAL, "box is empty: expected elements");
	memcpy(a.shape, normal.count, sizeof(a.shape));
	if (!err)
		err = mmnf_array_finish(&a, false);
	if (!err && to->check_name)
		err = to->check_name(&a, dst);
	if (err)
		return err;
	err = check_place(dst);
	if (!err)
		err = write_file(field, &normal, dst, to, &a, progress, arg);
	return err ? err : (ssize_t)bytes;
}
