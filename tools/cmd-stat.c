// SPDX-License-Identifier: MIT
/*
 * mmnf stat: what sysfs shows of the fields that are attached now.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

#define FIELDS "/sys/class/misc/mmnf/fields"

/* Every value of a directory as a member; numbers as numbers. */
static json_t *read_directory(const char *path, int depth)
{
	json_t *object = json_object();
	struct dirent *entry;
	DIR *dir = opendir(path);

	if (!dir) {
		json_decref(object);
		return NULL;
	}
	while ((entry = readdir(dir))) {
		char name[512], text[256];
		uint64_t number;
		json_t *value = NULL;
		FILE *from;

		/* The histogram is `mmnf top`'s to read. */
		if (entry->d_name[0] == '.' || !strcmp(entry->d_name, "waits"))
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (entry->d_type == DT_DIR) {
			if (depth)
				value = read_directory(name, depth - 1);
		} else if ((from = fopen(name, "r"))) {
			if (fgets(text, sizeof(text), from)) {
				text[strcspn(text, "\n")] = 0;
				value = parse_u64(text, &number) ?
						json_integer(
							(json_int_t)number) :
						json_string(text);
			}
			fclose(from);
		}
		if (value)
			json_object_set_new(object, entry->d_name, value);
	}
	closedir(dir);
	return object;
}

int cmd_stat(const struct options *o)
{
	char path[300];
	uint64_t id;
	json_t *all;

	if (o->nr_args) {
		if (!parse_u64(o->args[0], &id))
			return usage_error(o, "%s: expected a field's number",
					   o->args[0]);
		snprintf(path, sizeof(path), "%s/%s", FIELDS, o->args[0]);
		all = read_directory(path, 1);
	} else {
		snprintf(path, sizeof(path), "%s", FIELDS);
		all = read_directory(path, 2);
	}
	if (!all)
		return failure(o, "%s: %s (is the module loaded?)", path,
			       strerror(errno));
	return print_result(o, all);
}
