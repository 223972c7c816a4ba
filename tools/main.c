// SPDX-License-Identifier: MIT
/*
 * mmnf: one program, a table of sub-commands, one file each.
 */
#include <getopt.h>
#include <stddef.h>
#include <string.h>

#include "tool.h"

static const struct {
	const char *name;
	int (*run)(const struct options *o);
	int least_args, most_args;
	const char *args, *help;
} commands[] = {
	{ "create", cmd_create, 1, 1,
	  "FIELD --shape N,N,... --dtype T [--tile N,N,... [--checksums]] [--segment-bytes N] [--fill V]",
	  "make an empty field" },
	{ "import", cmd_import, 2, 2,
	  "SRC FIELD [--at i,j,...] [--tile N,N,... [--checksums]]",
	  "copy a file or field into a field, made if it is not there" },
	{ "export", cmd_export, 2, 2, "FIELD FILE [--box BOX] [--format F]",
	  "copy a box into a .npy, .safetensors, .nrrd, .nii, .fbin or raw file" },
	{ "verify", cmd_verify, 1, 1, "FIELD [--repair]",
	  "check lengths, indexes and checksums on disk" },
	{ "resize", cmd_resize, 2, 2, "FIELD N", "make axis 0 longer" },
	{ "info", cmd_info, 1, 1, "FIELD [--disk]", "shape, sizes, engine" },
	{ "get", cmd_get, 1, 2, "FIELD i,j,...|BOX [--out FILE]",
	  "print elements, or write them as raw or .npy" },
	{ "gather", cmd_gather, 2, 2, "FIELD i,i,...|@FILE [--out FILE]",
	  "the records with these indices along axis 0" },
	{ "scan", cmd_scan, 1, 1,
	  "FIELD [--box BOX] [--order AXES] [--engine E] [--prefetch on|off]",
	  "walk a box by pointers: sum, time, faults" },
	{ "prefetch", cmd_prefetch, 1, 1, "FIELD [--box BOX]",
	  "start reading a box" },
	{ "evict", cmd_evict, 1, 1, "FIELD [--box BOX]",
	  "drop a box from the page cache" },
	{ "tiers", cmd_tiers, 1, 1, "FIELD",
	  "GPU, RAM, storage, network: which are on, and why not" },
	{ "stat", cmd_stat, 0, 1, "[ID]", "counters of the fields attached" },
	{ "predict", cmd_predict, 0, 32,
	  "TRACE|- | --generate WORKLOAD [NAME=VALUE ...] [--model NAME=N,...]\n"
	  "            [--predictors P,...] [--timeline FILE] [--out FILE]",
	  "replay an access trace through the predictor and its peers" },
	{ "record", cmd_record, 0, 4096,
	  "[ID] [--out FILE] [--seconds N] [-- COMMAND ...]",
	  "take a trace of the faults of an attached field" },
	{ "bench", cmd_bench, 0, 1, "[RESULTS.jsonl] [--plot [--out FILE]]",
	  "show or draw what `make bench` measured" },
};

#define NR_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_usage(FILE *to)
{
	size_t i;

	fprintf(to, "usage: mmnf COMMAND [--json] ...\n\n");
	for (i = 0; i < NR_COMMANDS; i++)
		fprintf(to, "  %-9s %s\n            %s\n", commands[i].name,
			commands[i].args, commands[i].help);
	fprintf(to, "\nBOX is numpy's: 0:10,5,::2   T is i8..u64, f16, bf16, "
		    "f32, f64\n"
		    "E is auto, device, mmap, direct\n"
		    "Exit status: 0 done, 1 failed, 2 asked wrongly.\n");
}

/*
 * "-3,0" is an index, not an option: a blank hides it from getopt, which numbers
 * may begin with anyway.
 */
static void hide_negative(int argc, char **argv)
{
	int i;

	for (i = 1; i < argc && strcmp(argv[i], "--"); i++) {
		char *text;

		if (argv[i][0] != '-' || argv[i][1] < '0' || argv[i][1] > '9')
			continue;
		if (asprintf(&text, " %s", argv[i]) > 0)
			argv[i] = text;
	}
}

/* Options with a value, in the order of their names. */
static const struct {
	const char *name;
	size_t place;
} texts[] = {
#define TEXT(name, member)                             \
	{                                              \
		name, offsetof(struct options, member) \
	}
	TEXT("at", at),
	TEXT("box", box),
	TEXT("dtype", dtype),
	TEXT("engine", engine),
	TEXT("fill", fill),
	TEXT("format", format),
	TEXT("generate", generate),
	TEXT("model", model),
	TEXT("order", order),
	TEXT("out", out),
	TEXT("predictors", predictors),
	TEXT("prefetch", prefetch),
	TEXT("seconds", seconds),
	TEXT("segment-bytes", segment_bytes),
	TEXT("shape", shape),
	TEXT("tile", tile),
	TEXT("timeline", timeline),
#undef TEXT
};

#define NR_TEXTS (sizeof(texts) / sizeof(texts[0]))

/* Options without one. */
static const struct {
	const char *name;
	size_t place;
} flags[] = {
#define FLAG(name, member)                             \
	{                                              \
		name, offsetof(struct options, member) \
	}
	FLAG("checksums", checksums), FLAG("disk", disk),
	FLAG("json", json),	      FLAG("plot", plot),
	FLAG("repair", repair),
#undef FLAG
};

#define NR_FLAGS (sizeof(flags) / sizeof(flags[0]))

static int parse_options(struct options *o, int argc, char **argv)
{
	struct option longs[NR_TEXTS + NR_FLAGS + 1] = { { 0 } };
	size_t i;
	int c;

	for (i = 0; i < NR_TEXTS; i++)
		longs[i] = (struct option) { texts[i].name, required_argument,
					     NULL, (int)i };
	for (i = 0; i < NR_FLAGS; i++)
		longs[NR_TEXTS + i] = (struct option) { flags[i].name,
							no_argument, NULL,
							(int)(NR_TEXTS + i) };
	hide_negative(argc, argv);
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == '?')
			return EXIT_USAGE; /* getopt has said what */
		if ((size_t)c < NR_TEXTS)
			*(const char **)((char *)o + texts[c].place) = optarg;
		else
			*(bool *)((char *)o + flags[c - NR_TEXTS].place) = true;
	}
	o->nr_args = argc - optind;
	o->args = argv + optind;
	return 0;
}

int main(int argc, char **argv)
{
	struct options o = { 0 };
	size_t i;
	int ret;

	if (argc < 2) {
		print_usage(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
		print_usage(stdout);
		return EXIT_SUCCESS;
	}
	if (!strcmp(argv[1], "--version")) {
		printf("mmnf %s\n", mmnf_version());
		return EXIT_SUCCESS;
	}
	for (i = 0; i < NR_COMMANDS; i++)
		if (!strcmp(argv[1], commands[i].name))
			break;
	if (i == NR_COMMANDS) {
		fprintf(stderr, "mmnf: %s: no such command; see mmnf --help\n",
			argv[1]);
		return EXIT_USAGE;
	}
	o.command = commands[i].name;
	ret = parse_options(&o, argc - 1, argv + 1);
	if (!ret && (o.nr_args < commands[i].least_args ||
		     o.nr_args > commands[i].most_args))
		ret = usage_error(&o, "usage: mmnf %s %s", o.command,
				  commands[i].args);
	if (!ret)
		ret = commands[i].run(&o);
	if (fflush(stdout) || ferror(stdout)) {
		perror("mmnf: standard output");
		ret = EXIT_FAILURE;
	}
	return ret;
}
