// SPDX-License-Identifier: MIT
/*
 * mmnf: one program, a table of sub-commands, one file each.
 */
#include <getopt.h>
#include <string.h>

#include "tool.h"

static const struct {
	const char *name;
	int (*run)(const struct options *o);
	int least_args, most_args;
	const char *args, *help;
} commands[] = {
	{ "create", cmd_create, 1, 1,
	  "FIELD --shape N,N,... --dtype T [--segment-bytes N] [--fill V]",
	  "make an empty field" },
	{ "import", cmd_import, 2, 2, "SRC FIELD [--at i,j,...]",
	  "copy a .npy or .nii file into a field" },
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
	{ "stat", cmd_stat, 0, 1, "[ID]", "counters of the fields attached" },
	{ "predict", cmd_predict, 0, 32,
	  "TRACE|- | --generate WORKLOAD [NAME=VALUE ...] [--model NAME=N,...]\n"
	  "            [--predictors P,...] [--timeline FILE] [--out FILE]",
	  "replay an access trace through the predictor and its peers" },
	{ "record", cmd_record, 0, 4096,
	  "[ID] [--out FILE] [--seconds N] [-- COMMAND ...]",
	  "take a trace of the faults of an attached field" },
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
		    "f32, f64   E is auto, device, mmap\n"
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

static int parse_options(struct options *o, int argc, char **argv)
{
	enum { JSON = 1, DISK, TEXT };
	static const struct option longs[] = {
		{ "json", no_argument, NULL, JSON },
		{ "disk", no_argument, NULL, DISK },
		{ "shape", required_argument, NULL, TEXT },
		{ "dtype", required_argument, NULL, TEXT + 1 },
		{ "fill", required_argument, NULL, TEXT + 2 },
		{ "segment-bytes", required_argument, NULL, TEXT + 3 },
		{ "at", required_argument, NULL, TEXT + 4 },
		{ "box", required_argument, NULL, TEXT + 5 },
		{ "order", required_argument, NULL, TEXT + 6 },
		{ "out", required_argument, NULL, TEXT + 7 },
		{ "engine", required_argument, NULL, TEXT + 8 },
		{ "prefetch", required_argument, NULL, TEXT + 9 },
		{ "generate", required_argument, NULL, TEXT + 10 },
		{ "model", required_argument, NULL, TEXT + 11 },
		{ "predictors", required_argument, NULL, TEXT + 12 },
		{ "seconds", required_argument, NULL, TEXT + 13 },
		{ "timeline", required_argument, NULL, TEXT + 14 },
		{ 0 },
	};
	const char **text[] = {
		&o->shape,	&o->dtype,    &o->fill,	    &o->segment_bytes,
		&o->at,		&o->box,      &o->order,    &o->out,
		&o->engine,	&o->prefetch, &o->generate, &o->model,
		&o->predictors, &o->seconds,  &o->timeline,
	};
	int c;

	hide_negative(argc, argv);
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == JSON)
			o->json = true;
		else if (c == DISK)
			o->disk = true;
		else if (c >= TEXT && c < TEXT + 15)
			*text[c - TEXT] = optarg;
		else
			return EXIT_USAGE; /* getopt has said what */
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
