// SPDX-License-Identifier: MIT
/*
 * mmnf import, mmnf export: a field of any format into another, made durable
 * before they return.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"

/* Is there something that mmnf_field_open() would take this name for? */
static bool is_there(const char *name)
{
	char *path = strdup(name), *at;
	struct stat st;
	bool found;

	if (!path)
		return true; /* opening it says what is wrong */
	found = strstr(name, "://") || !access(name, F_OK) || errno != ENOENT;
	for (at = strchr(path, '#'); at && !found; at = strchr(at + 1, '#')) {
		*at = 0;
		found = !stat(path, &st) && !S_ISDIR(st.st_mode);
		*at = '#';
	}
	free(path);
	return found;
}

/* A field as the source is, where there is none yet. */
static int create_like(const struct options *o)
{
	MMNF_OPTS(mmnf_array_info, info);
	MMNF_OPTS(mmnf_create_opts, opts);
	uint64_t tile[MMNF_NDIM_MAX];
	int ret;

	if (mmnf_array_info(o->args[0], &info))
		return library_failure(o);
	ret = layout_options(o, info.ndim, &opts, tile);
	if (ret)
		return ret;
	if (mmnf_field_create(o->args[1], info.dtype, info.ndim, info.shape,
			      &opts))
		return library_failure(o);
	return 0;
}

int cmd_import(const struct options *o)
{
	uint64_t at[MMNF_NDIM_MAX];
	struct mmnf_field_info info;
	struct mmnf_field *field;
	ssize_t bytes;
	int ret, nr;

	if (!o->at && !is_there(o->args[1])) {
		ret = create_like(o);
		if (ret)
			return ret;
	}
	ret = open_field(o, true, &field, &info);
	if (ret)
		return ret;
	nr = o->at ? parse_list(o->at, at, MMNF_NDIM_MAX) : 0;
	if (o->at && nr != (int)info.ndim) {
		ret = usage_error(o, "--at %s: expected %u coordinates", o->at,
				  info.ndim);
		goto out;
	}
	bytes = mmnf_import(field, o->args[0], o->at ? at : NULL, progress,
			    (void *)"import");
	if (bytes < 0 || mmnf_field_sync(field)) {
		ret = library_failure(o);
		goto out;
	}
	ret = print_result(o, json_pack("{ss ss sI}", "source", o->args[0],
					"field", o->args[1], "bytes",
					(json_int_t)bytes));
out:
	mmnf_field_close(field);
	return ret;
}

int cmd_export(const struct options *o)
{
	struct mmnf_field_info info;
	struct mmnf_field *field;
	struct mmnf_box box;
	ssize_t bytes;
	int ret;

	ret = open_box(o, &field, &info, &box);
	if (ret)
		return ret;
	bytes = mmnf_export(field, &box, o->args[1], o->format, progress,
			    (void *)"export");
	if (bytes < 0)
		ret = library_failure(o);
	else
		ret = print_result(o, json_pack("{ss ss sI}", "field",
						o->args[0], "file", o->args[1],
						"bytes", (json_int_t)bytes));
	mmnf_field_close(field);
	return ret;
}
