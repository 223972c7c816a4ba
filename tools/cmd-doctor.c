// SPDX-License-Identifier: MIT
/*
 * mmnf doctor: what of this machine mmnf could use, what is missing, and the one
 * command that mends it.  Looks, and changes nothing.
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "doctor.h"
#include "tool.h"

static const struct {
	const char *name;
	void (*look)(struct finding *f);
} machine[] = {
	{ "kernel", doctor_kernel },	 { "module", doctor_module },
	{ "device", doctor_device },	 { "group", doctor_group },
	{ "io_uring", doctor_io_uring }, { "memlock", doctor_memlock },
	{ "files", doctor_files },	 { "maps", doctor_maps },
	{ "la57", doctor_la57 },	 { "gpu", doctor_gpu },
	{ "nbd", doctor_nbd },		 { "libnbd", doctor_libnbd },
	{ "gnuplot", doctor_gnuplot },
};

static const struct {
	const char *name;
	void (*look)(const struct filesystem *fs, struct finding *f);
} of_path[] = {
	{ "fs", doctor_fs_type },	   { "fs-size", doctor_fs_size },
	{ "fs-holes", doctor_fs_holes },   { "fs-direct", doctor_fs_direct },
	{ "fs-folios", doctor_fs_folios },
};

#define NR_MACHINE (sizeof(machine) / sizeof(machine[0]))
#define NR_OF_PATH (sizeof(of_path) / sizeof(of_path[0]))

static const char *const state_names[] = {
	[FINDING_OK] = "ok",
	[FINDING_MISSING] = "missing",
	[FINDING_NOTE] = "note",
};

void finding_set(struct finding *f, enum finding_state state,
		 const char *format, ...)
{
	va_list ap;

	f->state = state;
	va_start(ap, format);
	vsnprintf(f->text, sizeof(f->text), format, ap);
	va_end(ap);
}

void finding_mend(struct finding *f, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(f->mend, sizeof(f->mend), format, ap);
	va_end(ap);
}

bool there_is(const char *path)
{
	return !access(path, F_OK);
}

void first_line(const char *path, char *text, size_t len)
{
	FILE *from = fopen(path, "re");

	text[0] = 0;
	if (!from)
		return;
	if (!fgets(text, (int)len, from))
		text[0] = 0;
	text[strcspn(text, "\n")] = 0;
	fclose(from);
}

/* Is it one of the names that --need has? */
static bool is_needed(const struct options *o, const char *name)
{
	const char *at = o->need;
	size_t len = strlen(name);

	while (at && *at) {
		if (!strncmp(at, name, len) && (at[len] == ',' || !at[len]))
			return true;
		at = strchr(at, ',');
		at += at != NULL;
	}
	return false;
}

/* NULL, or a name of --need that is none. */
static const char *unknown_name(const struct options *o, char name[64])
{
	const char *at = o->need;
	size_t i;

	while (at) {
		bool known = false;

		snprintf(name, 64, "%.*s", (int)strcspn(at, ","), at);
		for (i = 0; i < NR_MACHINE; i++)
			known |= !strcmp(name, machine[i].name);
		for (i = 0; i < NR_OF_PATH; i++)
			known |= !strcmp(name, of_path[i].name);
		if (!known)
			return name;
		at = strchr(at, ',');
		at += at != NULL;
	}
	return NULL;
}

/* Prints a finding, or adds it to the list; true if it is needed and missing. */
static bool report(const struct options *o, json_t *list, const char *name,
		   const struct finding *f)
{
	bool needed = is_needed(o, name);

	if (o->json)
		json_array_append_new(
			list,
			json_pack("{ss ss ss ss sb}", "name", name, "state",
				  state_names[f->state], "text", f->text,
				  "mend", f->mend, "needed", (int)needed));
	else
		printf("%-8s %-10s %s%s%s\n", state_names[f->state], name,
		       f->text,
		       f->mend[0] ? "\n                    mend: " : "",
		       f->mend);
	return needed && f->state == FINDING_MISSING;
}

int cmd_doctor(const struct options *o)
{
	const char *path = o->nr_args ? o->args[0] : ".";
	json_t *list = json_array();
	bool unwell = false;
	struct filesystem *fs;
	char name[64];
	size_t i;

	if (unknown_name(o, name)) {
		json_decref(list);
		return usage_error(o, "--need %s: expected names of findings",
				   name);
	}
	fs = filesystem_open(path);
	if (!fs) {
		json_decref(list);
		return failure(o, "%s: %s", path, strerror(errno));
	}
	for (i = 0; i < NR_MACHINE; i++) {
		struct finding f = { FINDING_NOTE, "", "" };

		machine[i].look(&f);
		unwell |= report(o, list, machine[i].name, &f);
	}
	for (i = 0; i < NR_OF_PATH; i++) {
		struct finding f = { FINDING_NOTE, "", "" };

		of_path[i].look(fs, &f);
		unwell |= report(o, list, of_path[i].name, &f);
	}
	filesystem_close(fs);
	if (o->json)
		print_result(o, json_pack("{sb so}", "well", (int)!unwell,
					  "findings", list));
	else
		json_decref(list);
	return unwell ? EXIT_FAILURE : EXIT_SUCCESS;
}
