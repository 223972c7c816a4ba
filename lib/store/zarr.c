// SPDX-License-Identifier: MIT
/*
 * The manifest: zarr.json of a Zarr v3 array, in and out.
 *
 * Reads any array whose chunks are uncompressed, little-endian and contiguous
 * (mmnf_geometry_init()), whoever wrote it.  Text from outside is trusted in
 * nothing: every number is checked before it is used, and every error names the
 * key, what it holds and what was expected.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"
#include "new-file.h"
#include "store/zarr-codec.h"
#include "store/zarr-fill.h"
#include "store/zarr-net.h"

#define MANIFEST_MAX (1 << 20)

/* A short printed form of what a key holds. */
static const char *show(const json_t *v, char *buf, size_t len)
{
	char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

	snprintf(buf, len, "%s", text ? text : "missing");
	free(text);
	return buf;
}

int mmnf_zarr_wrong(int err, const char *key, const json_t *v,
		    const char *expected)
{
	char buf[96];

	return mmnf_error(err, "zarr.json: %s is %s: expected %s", key,
			  show(v, buf, sizeof(buf)), expected);
}

int mmnf_zarr_extents(const char *key, const json_t *v, u64 *out, u32 *ndim)
{
	char name[32];
	size_t i, n = json_array_size(v);

	if (!json_is_array(v) || n < 1 || n > MMNF_NDIM_MAX)
		return mmnf_zarr_wrong(EINVAL, key, v,
				       "a list of 1 to 8 integers");
	for (i = 0; i < n; i++) {
		const json_t *e = json_array_get(v, i);

		snprintf(name, sizeof(name), "%s[%zu]", key, i);
		if (!json_is_integer(e) || json_integer_value(e) < 1)
			return mmnf_zarr_wrong(EINVAL, name, e,
					       "an integer from 1 to 2^63 - 1");
		out[i] = (u64)json_integer_value(e);
	}
	*ndim = (u32)n;
	return 0;
}

const char *mmnf_zarr_name(const json_t *v)
{
	if (json_is_string(v))
		return json_string_value(v);
	return json_string_value(json_object_get(v, "name"));
}

static int parse_keys(struct mmnf_store *out, const json_t *v)
{
	const char *name = mmnf_zarr_name(v);
	const json_t *separator;
	const char *s;

	if (!name)
		return mmnf_zarr_wrong(EINVAL, "chunk_key_encoding", v,
				       "an object with a name");
	if (strcmp(name, "default") && strcmp(name, "v2"))
		return mmnf_zarr_wrong(EOPNOTSUPP, "chunk_key_encoding", v,
				       "default or v2");
	out->v2_keys = !strcmp(name, "v2");
	out->separator = out->v2_keys ? '.' : '/';
	separator = json_object_get(json_object_get(v, "configuration"),
				    "separator");
	if (!separator)
		return 0;
	s = json_string_value(separator);
	if (!s || (strcmp(s, "/") && strcmp(s, ".")))
		return mmnf_zarr_wrong(EINVAL, "chunk_key_encoding.separator",
				       separator, "\"/\" or \".\"");
	out->separator = *s;
	return 0;
}

/* The specification: fail on what is not known, unless it says it may be. */
static int check_keys(const json_t *root)
{
	static const char *const known[] = {
		"zarr_format",
		"node_type",
		"shape",
		"data_type",
		"chunk_grid",
		"chunk_key_encoding",
		"fill_value",
		"codecs",
		"attributes",
		"dimension_names",
		"storage_transformers",
	};
	const size_t nr = sizeof(known) / sizeof(known[0]);
	const char *key;
	json_t *v;
	size_t i;

	json_object_foreach((json_t *)root, key, v)
	{
		for (i = 0; i < nr && strcmp(known[i], key); i++)
			;
		if (i < nr ||
		    json_is_false(json_object_get(v, "must_understand")))
			continue;
		return mmnf_error(
			EOPNOTSUPP,
			"zarr.json: key \"%.64s\" is not known: expected keys of a Zarr v3 array",
			key);
	}
	v = json_object_get(root, "attributes");
	if (v && !json_is_object(v))
		return mmnf_zarr_wrong(EINVAL, "attributes", v, "an object");
	v = json_object_get(root, "storage_transformers");
	if (v && (!json_is_array(v) || json_array_size(v)))
		return mmnf_zarr_wrong(EOPNOTSUPP, "storage_transformers", v,
				       "an empty list");
	return 0;
}

/* Attributes of our own; those of others mean nothing here. */
static int parse_ours(struct mmnf_store *out, const json_t *root)
{
	const json_t *ours =
		json_object_get(json_object_get(root, "attributes"), "mmnf");
	const json_t *v = json_object_get(ours, "checksums");
	const char *name = json_string_value(v);

	out->checksums = out->geometry.indexed && name;
	if (v && (!name || strcmp(name, MMNF_CHECKS_NAME)))
		return mmnf_zarr_wrong(EINVAL, "attributes.mmnf.checksums", v,
				       "\"" MMNF_CHECKS_NAME "\"");
	if (out->checksums && out->geometry.tile_bytes < 4)
		return mmnf_zarr_wrong(EINVAL, "attributes.mmnf.checksums", v,
				       "tiles of at least 4 bytes");
	v = json_object_get(ours, "net");
	return v ? mmnf_zarr_net_parse(out, v) : 0;
}

static int parse_array(struct mmnf_store *out, const json_t *root)
{
	const json_t *v, *grid;
	u64 shape[MMNF_NDIM_MAX], chunk[MMNF_NDIM_MAX];
	struct mmnf_codecs codecs;
	const char *name;
	u32 ndim, chunk_ndim;
	int err, dtype;

	v = json_object_get(root, "zarr_format");
	if (!json_is_integer(v) || json_integer_value(v) != 3)
		return mmnf_zarr_wrong(EINVAL, "zarr_format", v, "3");
	v = json_object_get(root, "node_type");
	if (!json_is_string(v) || strcmp(json_string_value(v), "array"))
		return mmnf_zarr_wrong(EINVAL, "node_type", v, "\"array\"");
	err = check_keys(root);
	if (err)
		return err;

	v = json_object_get(root, "data_type");
	name = mmnf_zarr_name(v);
	if (!name)
		return mmnf_zarr_wrong(EINVAL, "data_type", v,
				       "the name of a type");
	dtype = mmnf_dtype_from_zarr(name);
	if (dtype < 0)
		return mmnf_zarr_wrong(
			EOPNOTSUPP, "data_type", v,
			"an integer or floating-point type of 1 to 8 bytes");
	err = mmnf_zarr_extents("shape", json_object_get(root, "shape"), shape,
				&ndim);
	if (err)
		return err;

	grid = json_object_get(root, "chunk_grid");
	v = json_object_get(grid, "name");
	if (!json_is_string(v))
		return mmnf_zarr_wrong(EINVAL, "chunk_grid.name", v,
				       "\"regular\"");
	if (strcmp(json_string_value(v), "regular"))
		return mmnf_zarr_wrong(EOPNOTSUPP, "chunk_grid.name", v,
				       "\"regular\"");
	v = json_object_get(json_object_get(grid, "configuration"),
			    "chunk_shape");
	err = mmnf_zarr_extents("chunk_shape", v, chunk, &chunk_ndim);
	if (err)
		return err;
	if (chunk_ndim != ndim)
		return mmnf_zarr_wrong(EINVAL, "chunk_shape", v,
				       "as many extents as shape has");
	err = mmnf_codecs_parse(&codecs, json_object_get(root, "codecs"), ndim,
				mmnf_dtype_bytes((enum mmnf_dtype)dtype));
	if (!err)
		err = parse_keys(out,
				 json_object_get(root, "chunk_key_encoding"));
	if (!err)
		err = mmnf_geometry_init(&out->geometry, (enum mmnf_dtype)dtype,
					 ndim, shape, chunk,
					 codecs.sharded ? codecs.tile : NULL);
	if (!err && codecs.transposed)
		mmnf_geometry_transpose(&out->geometry, codecs.axis);
	if (!err && codecs.sharded)
		mmnf_geometry_index(&out->geometry, codecs.index_first,
				    codecs.index_crc);
	if (!err)
		err = parse_ours(out, root);
	if (!err) {
		u8 fill[8] = { 0 };

		v = json_object_get(root, "fill_value");
		if (mmnf_zarr_fill_parse((enum mmnf_dtype)dtype, v, fill))
			return mmnf_zarr_wrong(EINVAL, "fill_value", v,
					       "a value of data_type");
		mmnf_geometry_set_fill(&out->geometry, fill);
	}
	return err == -EOVERFLOW ? -EINVAL : err;
}

int mmnf_zarr_parse(struct mmnf_store *out, const char *text, size_t len)
{
	json_error_t where;
	json_t *root;
	int err;

	root = mmnf_zarr_fill_load(text, len, JSON_REJECT_DUPLICATES, &where);
	if (!root)
		return mmnf_error(
			EINVAL,
			"zarr.json: line %d: %s: expected a JSON object",
			where.line, where.text);
	if (json_is_object(root))
		err = parse_array(out, root);
	else
		err = mmnf_error(
			EINVAL,
			"zarr.json: holds a list: expected a JSON object");
	json_decref(root);
	return err;
}

/* The whole of it, for free(); its length or -errno. */
static ssize_t read_text(int dir, const char *path, char **text)
{
	struct stat st;
	ssize_t n;
	int fd;

	fd = mmnf_file_open(dir, "zarr.json", O_RDONLY);
	if (fd < 0)
		return mmnf_error_system(errno, "%s/zarr.json", path);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) ||
	    st.st_size > MANIFEST_MAX) {
		close(fd);
		return mmnf_error(
			EINVAL,
			"%s/zarr.json: expected a file of at most 1 MiB", path);
	}
	*text = malloc(MANIFEST_MAX);
	n = *text ? read(fd, *text, MANIFEST_MAX) : -1;
	if (!*text)
		n = mmnf_error(ENOMEM, "%s/zarr.json: no memory", path);
	else if (n < 0)
		n = mmnf_error_system(errno, "%s/zarr.json", path);
	close(fd);
	if (n < 0)
		free(*text);
	return n;
}

int mmnf_zarr_read(struct mmnf_store *out, const char *path)
{
	char *text;
	ssize_t n = read_text(out->dir, path, &text);
	int err;

	if (n < 0)
		return (int)n;
	err = mmnf_zarr_parse(out, text, (size_t)n);
	free(text);
	return err;
}

json_t *mmnf_zarr_list(const u64 *v, u32 n)
{
	json_t *list = json_array();
	u32 i;

	for (i = 0; i < n; i++)
		json_array_append_new(list, json_integer((json_int_t)v[i]));
	return list;
}

static char *print_manifest(const struct mmnf_geometry *g, bool checksums,
			    const struct mmnf_net_layout *net)
{
	json_t *fill = mmnf_zarr_fill_print(g->dtype, g->fill), *root, *ours;
	char *text = NULL;

	ours = json_pack("{s:s}", "version", MMNF_VERSION);
	if (checksums)
		json_object_set_new(ours, "checksums",
				    json_string(MMNF_CHECKS_NAME));
	if (net)
		json_object_set_new(ours, "net", mmnf_zarr_net_print(net));
	root = json_pack(
		"{s:i, s:s, s:o, s:s, s:{s:s, s:{s:o}}, s:{s:s, s:{s:s}}, s:o, s:o, s:{s:o}}",
		"zarr_format", 3, "node_type", "array", "shape",
		mmnf_zarr_list(g->shape, g->ndim), "data_type",
		mmnf_dtype_zarr(g->dtype), "chunk_grid", "name", "regular",
		"configuration", "chunk_shape",
		mmnf_zarr_list(g->chunk, g->ndim), "chunk_key_encoding", "name",
		"default", "configuration", "separator", "/", "fill_value",
		fill, "codecs", mmnf_codecs_print(g), "attributes", "mmnf",
		ours);
	if (root)
		text = mmnf_zarr_fill_dump(root);
	json_decref(root);
	if (!text)
		mmnf_error(ENOMEM, "zarr.json: no memory");
	return text;
}

char *mmnf_zarr_print(const struct mmnf_geometry *g, bool checksums)
{
	return print_manifest(g, checksums, NULL);
}

/*
 * Files of the folder are replaced by one at a time, where the filesystem can
 * lock folders at all.
 */
static void lock_folder(int dir)
{
	while (flock(dir, LOCK_EX) && errno == EINTR)
		;
}

/* Whoever could read or change the manifest can do so after that. */
static int take_over_rights(int dir, int fd)
{
	struct stat st;

	if (fstatat(dir, "zarr.json", &st, 0))
		return 0;
	if (fchown(fd, st.st_uid, st.st_gid)) {
		/* Only root may give a file away; the rest is the same. */
	}
	return fchmod(fd, st.st_mode & 07777) ? -errno : 0;
}

static int write_text(int fd, const char *text)
{
	size_t len = strlen(text), done = 0;

	while (done < len) {
		ssize_t n = write(fd, text + done, len - done);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			done += (size_t)n;
	}
	return fsync(fd) ? -errno : 0;
}

static int write_manifest(int dir, const char *path, const char *text)
{
	struct mmnf_new_file file;
	int err = mmnf_new_file_open(&file, dir, "zarr.json", 0666);

	if (!err) {
		err = take_over_rights(dir, file.fd);
		if (!err)
			err = write_text(file.fd, text);
		if (!err)
			err = mmnf_new_file_replace(&file);
		mmnf_new_file_close(&file);
	}
	return err ? mmnf_error_system(-err, "%s/zarr.json", path) : 0;
}

int mmnf_zarr_write(const char *path, const struct mmnf_geometry *g,
		    bool checksums, const struct mmnf_net_layout *net)
{
	char *text = print_manifest(g, checksums, net);
	int dir, err;

	if (!text)
		return -ENOMEM;
	if (mkdir(path, 0777)) {
		err = mmnf_error_system(errno, "%s", path);
		free(text);
		return err;
	}
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		err = mmnf_error_system(errno, "%s", path);
	} else {
		err = write_manifest(dir, path, text);
		if (err)
			unlinkat(dir, "zarr.json", 0);
		close(dir);
	}
	if (err)
		rmdir(path);
	free(text);
	return err;
}

void mmnf_zarr_key(const struct mmnf_store *store, u64 segment, char *key)
{
	const struct mmnf_geometry *g = &store->geometry;
	size_t left = MMNF_KEY_MAX;
	int n = 0;
	u32 i;

	if (!store->v2_keys)
		n = snprintf(key, left, "c");
	for (i = 0; i < g->ndim; i++) {
		u64 at = segment / g->segment_stride[i] % g->grid[i];

		key += n;
		left -= (size_t)n;
		if (i || !store->v2_keys) {
			*key++ = store->separator;
			left--;
		}
		n = snprintf(key, left, "%" PRIu64, at);
	}
}

/* Another handle may have changed it since this one was opened. */
static int set_extent(json_t *root, u64 extent)
{
	json_t *shape = json_object_get(root, "shape");
	u64 there = (u64)json_integer_value(json_array_get(shape, 0));

	if (extent < there)
		return mmnf_error(EINVAL,
				  "extent is %" PRIu64
				  ": expected at least the present %" PRIu64,
				  extent, there);
	if (json_array_set_new(shape, 0, json_integer((json_int_t)extent)))
		return mmnf_error(EINVAL, "zarr.json: expected a shape");
	return 0;
}

/* Whatever else stands in the manifest is kept. */
static int change_extent(const struct mmnf_store *store, u64 extent)
{
	char *text, *changed = NULL;
	ssize_t n = read_text(store->dir, store->name, &text);
	json_error_t where;
	json_t *root;
	int err;

	if (n < 0)
		return (int)n;
	root = mmnf_zarr_fill_load(text, (size_t)n, 0, &where);
	free(text);
	err = set_extent(root, extent);
	if (!err)
		changed = mmnf_zarr_fill_dump(root);
	json_decref(root);
	if (!err && !changed)
		err = mmnf_error(ENOMEM, "zarr.json: no memory");
	if (!err)
		err = write_manifest(store->dir, store->name, changed);
	free(changed);
	return err;
}

int mmnf_zarr_resize(const struct mmnf_store *store, u64 extent)
{
	int err;

	lock_folder(store->dir);
	err = change_extent(store, extent);
	flock(store->dir, LOCK_UN);
	return err;
}
