// SPDX-License-Identifier: MIT
/*
 * mmnf info: what a field is.  With --disk also what it occupies, which looks at
 * every file.
 */
#include <fts.h>
#include <string.h>
#include <sys/stat.h>

#include "tool.h"

/* Without what selects a part of a file. */
static void cut_selector(char *path)
{
	struct stat st;
	char *at;

	if (!stat(path, &st))
		return;
	for (at = strchr(path, '#'); at; at = strchr(at + 1, '#')) {
		*at = 0;
		if (!stat(path, &st))
			return;
		*at = '#';
	}
}

static int disk_bytes(const struct options *o, uint64_t *bytes,
		      uint64_t *nr_files)
{
	char *path = strdup(o->args[0]), *paths[] = { path, NULL };
	FTSENT *entry;
	FTS *tree;

	if (!path)
		return failure(o, "out of memory");
	cut_selector(path);
	tree = fts_open(paths, FTS_PHYSICAL, NULL);
	free(path);
	if (!tree)
		return failure(o, "%s: cannot be listed", o->args[0]);
	while ((entry = fts_read(tree))) {
		if (entry->fts_info == FTS_DP)
			continue;
		if (entry->fts_info == FTS_F)
			++*nr_files;
		if (entry->fts_statp)
			*bytes += (uint64_t)entry->fts_statp->st_blocks * 512;
	}
	fts_close(tree);
	return 0;
}

int cmd_info(const struct options *o)
{
	uint64_t on_disk = 0, nr_files = 0;
	struct mmnf_field_info info;
	struct mmnf_field *field;
	char text[16];
	json_t *result;
	int ret;

	ret = open_field(o, false, &field, &info);
	if (ret)
		return ret;
	human_bytes(info.total_bytes, text);
	result = json_pack("{ss ss so sI ss so sI sI ss ss}", "field",
			   o->args[0], "dtype", mmnf_dtype_name(info.dtype),
			   "shape", json_numbers(info.shape, info.ndim),
			   "total_bytes", (json_int_t)info.total_bytes, "total",
			   text, "segment_shape",
			   json_numbers(info.segment_shape, info.ndim),
			   "segment_bytes", (json_int_t)info.segment_bytes,
			   "nr_segments", (json_int_t)info.nr_segments,
			   "engine", engine_name(info.engine), "engine_reason",
			   info.engine_reason);
	json_object_set_new(result, "format", json_string(info.format));
	json_object_set_new(result, "tile_shape",
			    json_numbers(info.tile_shape, info.ndim));
	json_object_set_new(result, "data_offset_bytes",
			    json_integer((json_int_t)info.data_offset_bytes));
	if (o->disk) {
		ret = disk_bytes(o, &on_disk, &nr_files);
		json_object_set_new(result, "disk_bytes",
				    json_integer((json_int_t)on_disk));
		json_object_set_new(result, "nr_files",
				    json_integer((json_int_t)nr_files));
	}
	mmnf_field_close(field);
	if (ret) {
		json_decref(result);
		return ret;
	}
	return print_result(o, result);
}
