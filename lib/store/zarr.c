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
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"
#include "store/zarr-fill.h"

#define MANIFEST_MAX (1 << 20)

/* A short printed form of what a key holds. */
static const char *show(const json_t *v, char *buf, size_t len)
{
	char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

	snprintf(buf, len, "%s", text ? text : "missing");
	free(text);
	return buf;
}

static int wrong(int err, const char *key, const json_t *v,
		 const char *expected)
{
	char buf[96];

	return mmnf_error(err, "zarr.json: %s is %s: expected %s", key,
			  show(v, buf, sizeof(buf)), expected);
}

static int parse_extents(const char *key, const json_t *v, u64 *out, u32 *ndim)
{
	char name[32];
	size_t i, n = json_array_size(v);

	if (!json_is_array(v) || n < 1 || n > MMNF_NDIM_MAX)
		return wrong(EINVAL, key, v, "a list of 1 to 8 integers");
	for (i = 0; i < n; i++) {
		const json_t *e = json_array_get(v, i);

		snprintf(name, sizeof(name), "%s[%zu]", key, i);
		if (!json_is_integer(e) || json_integer_value(e) < 1)
			return wrong(EINVAL, name, e,
				     "an integer from 1 to 2^63 - 1");
		out[i] = (u64)json_integer_value(e);
	}
	*ndim = (u32)n;
	return 0;
}

/* Extensions are objects with a name, or, where nothing is set, the name. */
static const char *extension_name(const json_t *v)
{
	if (json_is_string(v))
		return json_string_value(v);
	return json_string_value(json_object_get(v, "name"));
}

static int parse_codecs(const json_t *v, u32 element_bytes)
{
	const json_t *codec = json_array_get(v, 0), *endian;
	const char *name;
	size_t i;

	if (!json_is_array(v) || !json_array_size(v))
		return wrong(EINVAL, "codecs", v, "a list with codec bytes");
	for (i = 0; i < json_array_size(v); i++) {
		const json_t *c = json_array_get(v, i);

		name = extension_name(c);
		if (!name)
			return wrong(EINVAL, "codecs", v,
				     "objects with a name");
		if (i || strcmp(name, "bytes"))
			return wrong(EOPNOTSUPP, "codecs", v,
				     "codec bytes alone (uncompressed chunks)");
	}
	endian = json_object_get(json_object_get(codec, "configuration"),
				 "endian");
	if (!endian && element_bytes == 1)
		return 0;
	if (!json_is_string(endian))
		return wrong(EINVAL, "codecs[0].configuration.endian", endian,
			     "\"little\"");
	if (!strcmp(json_string_value(endian), "little") ||
	    (element_bytes == 1 && !strcmp(json_string_value(endian), "big")))
		return 0;
	if (!strcmp(json_string_value(endian), "big"))
		return wrong(EOPNOTSUPP, "codecs[0].configuration.endian",
			     endian, "\"little\"");
	return wrong(EINVAL, "codecs[0].configuration.endian", endian,
		     "\"little\"");
}

static int parse_keys(struct mmnf_store *out, const json_t *v)
{
	const char *name = extension_name(v);
	const json_t *separator;
	const char *s;

	if (!name)
		return wrong(EINVAL, "chunk_key_encoding", v,
			     "an object with a name");
	if (strcmp(name, "default") && strcmp(name, "v2"))
		return wrong(EOPNOTSUPP, "chunk_key_encoding", v,
			     "default or v2");
	out->v2_keys = !strcmp(name, "v2");
	out->separator = out->v2_keys ? '.' : '/';
	separator = json_object_get(json_object_get(v, "configuration"),
				    "separator");
	if (!separator)
		return 0;
	s = json_string_value(separator);
	if (!s || (strcmp(s, "/") && strcmp(s, ".")))
		return wrong(EINVAL, "chunk_key_encoding.separator", separator,
			     "\"/\" or \".\"");
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
		return wrong(EINVAL, "attributes", v, "an object");
	v = json_object_get(root, "storage_transformers");
	if (v && (!json_is_array(v) || json_array_size(v)))
		return wrong(EOPNOTSUPP, "storage_transformers", v,
			     "an empty list");
	return 0;
}

static int parse_array(struct mmnf_store *out, const json_t *root)
{
	const json_t *v, *grid;
	u64 shape[MMNF_NDIM_MAX], chunk[MMNF_NDIM_MAX];
	const char *name;
	u32 ndim, chunk_ndim;
	int err, dtype;

	v = json_object_get(root, "zarr_format");
	if (!json_is_integer(v) || json_integer_value(v) != 3)
		return wrong(EINVAL, "zarr_format", v, "3");
	v = json_object_get(root, "node_type");
	if (!json_is_string(v) || strcmp(json_string_value(v), "array"))
		return wrong(EINVAL, "node_type", v, "\"array\"");
	err = check_keys(root);
	if (err)
		return err;

	v = json_object_get(root, "data_type");
	name = extension_name(v);
	if (!name)
		return wrong(EINVAL, "data_type", v, "the name of a type");
	dtype = mmnf_dtype_from_zarr(name);
	if (dtype < 0)
		return wrong(
			EOPNOTSUPP, "data_type", v,
			"an integer or floating-point type of 1 to 8 bytes");
	err = parse_extents("shape", json_object_get(root, "shape"), shape,
			    &ndim);
	if (err)
		return err;

	grid = json_object_get(root, "chunk_grid");
	v = json_object_get(grid, "name");
	if (!json_is_string(v))
		return wrong(EINVAL, "chunk_grid.name", v, "\"regular\"");
	if (strcmp(json_string_value(v), "regular"))
		return wrong(EOPNOTSUPP, "chunk_grid.name", v, "\"regular\"");
	v = json_object_get(json_object_get(grid, "configuration"),
			    "chunk_shape");
	err = parse_extents("chunk_shape", v, chunk, &chunk_ndim);
	if (err)
		return err;
	if (chunk_ndim != ndim)
		return wrong(EINVAL, "chunk_shape", v,
			     "as many extents as shape has");
	err = parse_codecs(json_object_get(root, "codecs"),
			   mmnf_dtype_bytes((enum mmnf_dtype)dtype));
	if (!err)
		err = parse_keys(out,
				 json_object_get(root, "chunk_key_encoding"));
	if (!err)
		err = mmnf_geometry_init(&out->geometry, (enum mmnf_dtype)dtype,
					 ndim, shape, chunk, NULL);
	if (!err) {
		u8 fill[8] = { 0 };

		v = json_object_get(root, "fill_value");
		if (mmnf_zarr_fill_parse((enum mmnf_dtype)dtype, v, fill))
			return wrong(EINVAL, "fill_value", v,
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

	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
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

int mmnf_zarr_read(struct mmnf_store *out, const char *path)
{
	struct stat st;
	char *text;
	ssize_t n;
	int fd, err;

	/* O_NONBLOCK: whatever stands there, opening it does not hang. */
	fd = openat(out->dir, "zarr.json", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return mmnf_error_system(errno, "%s/zarr.json", path);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) ||
	    st.st_size > MANIFEST_MAX) {
		close(fd);
		return mmnf_error(
			EINVAL,
			"%s/zarr.json: expected a file of at most 1 MiB", path);
	}
	text = malloc(MANIFEST_MAX);
	n = text ? read(fd, text, MANIFEST_MAX) : -1;
	if (!text)
		err = mmnf_error(ENOMEM, "%s/zarr.json: no memory", path);
	else if (n < 0)
		err = mmnf_error_system(errno, "%s/zarr.json", path);
	else
		err = mmnf_zarr_parse(out, text, (size_t)n);
	free(text);
	close(fd);
	return err;
}

static json_t *extents(const u64 *v, u32 n)
{
	json_t *list = json_array();
	u32 i;

	for (i = 0; i < n; i++)
		json_array_append_new(list, json_integer((json_int_t)v[i]));
	return list;
}

char *mmnf_zarr_print(const struct mmnf_geometry *g)
{
	json_t *fill = mmnf_zarr_fill_print(g->dtype, g->fill), *root, *bytes;
	char *text = NULL;

	if (!fill) {
		mmnf_error(
			EOPNOTSUPP,
			"fill is above 2^63 - 1: expected a number that JSON readers take");
		return NULL;
	}
	bytes = json_pack("{s:s}", "name", "bytes");
	if (g->element_bytes > 1)
		json_object_set_new(bytes, "configuration",
				    json_pack("{s:s}", "endian", "little"));
	root = json_pack(
		"{s:i, s:s, s:o, s:s, s:{s:s, s:{s:o}}, s:{s:s, s:{s:s}}, s:o, s:[o], s:{s:{s:s}}}",
		"zarr_format", 3, "node_type", "array", "shape",
		extents(g->shape, g->ndim), "data_type",
		mmnf_dtype_zarr(g->dtype), "chunk_grid", "name", "regular",
		"configuration", "chunk_shape", extents(g->chunk, g->ndim),
		"chunk_key_encoding", "name", "default", "configuration",
		"separator", "/", "fill_value", fill, "codecs", bytes,
		"attributes", "mmnf", "version", MMNF_VERSION);
	if (root)
		text = json_dumps(root,
				  JSON_INDENT(1) | JSON_REAL_PRECISION(17));
	json_decref(root);
	if (!text)
		mmnf_error(ENOMEM, "zarr.json: no memory");
	return text;
}

static int write_manifest(int dir, const char *path, const char *text)
{
	size_t len = strlen(text), done = 0;
	int fd, err = 0;

	fd = openat(dir, ".zarr.json.new",
		    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0)
		return mmnf_error_system(errno, "%s/zarr.json", path);
	while (!err && done < len) {
		ssize_t n = write(fd, text + done, len - done);

		if (n < 0 && errno != EINTR)
			err = mmnf_error_system(errno, "%s/zarr.json", path);
		else if (n > 0)
			done += (size_t)n;
	}
	if (!err && fsync(fd))
		err = mmnf_error_system(errno, "%s/zarr.json", path);
	close(fd);
	if (!err && renameat(dir, ".zarr.json.new", dir, "zarr.json"))
		err = mmnf_error_system(errno, "%s/zarr.json", path);
	if (!err && fsync(dir))
		err = mmnf_error_system(errno, "%s", path);
	if (err) {
		unlinkat(dir, ".zarr.json.new", 0);
		unlinkat(dir, "zarr.json", 0);
	}
	return err;
}

int mmnf_zarr_write(const char *path, const struct mmnf_geometry *g)
{
	char *text = mmnf_zarr_print(g);
	int dir, err;

	if (!text)
		return g->dtype == MMNF_U64 ? -EOPNOTSUPP : -ENOMEM;
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
