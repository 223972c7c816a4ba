/* SPDX-License-Identifier: MIT */
/*
 * Formats of others: one array in one file, used where it lies.
 *
 * A format is a file of this folder and a line in source.c.  Its parser turns a
 * header into an mmnf_array and checks the arithmetic of the header alone;
 * whether the elements lie inside the file is mmnf_geometry_init_file()'s.
 */
#ifndef MMNF_STORE_H
#define MMNF_STORE_H

#include "internal.h"

/**
 * struct mmnf_array - a strided array in a file
 * @data_file: where the data is, beside the header; "": behind it
 * @data_at_end: it is the last of that file, wherever it starts
 */
struct mmnf_array {
	enum mmnf_dtype dtype;
	u32 ndim;
	u64 shape[MMNF_NDIM_MAX];
	s64 stride_bytes[MMNF_NDIM_MAX];
	u64 data_offset_bytes;
	bool data_at_end;
	char data_file[256];
};

#define MMNF_HEAD_MAX (1 << 20)
#define MMNF_LOOK_MAX (64 << 10)

/**
 * struct mmnf_source - a file that is being looked at
 * @path: without the selector
 * @selector: what stands behind the '#', or NULL
 * @fd: -1: the head is all there is
 * @head: the first min(file_bytes, MMNF_HEAD_MAX) bytes
 * @window: room for mmnf_source_look()
 */
struct mmnf_source {
	char *path;
	const char *selector;
	int fd;
	u64 file_bytes;
	u8 *head;
	size_t head_bytes;
	u8 *window;
	u64 window_at;
	size_t window_bytes;
};

struct mmnf_format {
	const char *name;
	const char *suffix[4]; /* of files that are written; the rest NULL */

	/* Do the first bytes, or the name, look like it? */
	bool (*is)(const struct mmnf_source *src);

	int (*parse)(struct mmnf_array *out, struct mmnf_source *src);

	/*
	 * The bytes before the data of an array in C order: malloc'ed, 0 or
	 * -errno.  NULL: the format is not written.
	 */
	int (*print)(const struct mmnf_array *a, u8 **head, size_t *bytes);

	/* Would a file of that name be read as this array?  NULL: yes. */
	int (*check_name)(const struct mmnf_array *a, const char *path);
};

extern const struct mmnf_format mmnf_format_npy, mmnf_format_nifti,
	mmnf_format_safetensors, mmnf_format_gguf, mmnf_format_nrrd,
	mmnf_format_bin, mmnf_format_raw;

/* Strides of a whole array from its shape. */
int mmnf_array_finish(struct mmnf_array *a, bool fortran);

/*
 * So many bytes from an offset, valid until the next look; NULL with text if
 * they are not there.  bytes is at most MMNF_LOOK_MAX.
 */
const u8 *mmnf_source_look(struct mmnf_source *src, u64 offset, size_t bytes);

/* Opens PATH or PATH#SELECTOR and reads the head. */
int mmnf_source_open(struct mmnf_source *src, const char *name);
void mmnf_source_close(struct mmnf_source *src);

/* Does the path end so? */
bool mmnf_source_named(const struct mmnf_source *src, const char *suffix);

/* Chooses the format and parses; sets *format. */
int mmnf_source_parse(struct mmnf_source *src,
		      const struct mmnf_format **format,
		      struct mmnf_array *out);

/*
 * The geometry of the array and the descriptor its data is read from, which
 * becomes the caller's: the source's own or that of the data file.
 */
int mmnf_source_take(struct mmnf_source *src, const struct mmnf_array *a,
		     bool writable, struct mmnf_geometry *g, int *fd);

/* By name ("npy") or else by the suffix of a path; NULL: none. */
const struct mmnf_format *mmnf_format_find(const char *name, const char *path);

static inline u32 mmnf_load_u32(const u8 *p)
{
	u32 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline u64 mmnf_load_u64(const u8 *p)
{
	u64 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

#endif
