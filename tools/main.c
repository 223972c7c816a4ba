// SPDX-License-Identifier: MIT
/*
 * mmnf: one program, a table of sub-commands, one file each.
 */
#include <getopt.h>
#include <stddef.h>
#include <string.h>

#include "tool.h"

const struct command commands[] = {
	{ "create", cmd_create, 1, 1,
	  "FIELD --shape N,N,... --dtype T [--tile N,N,... [--checksums]] [--segment-bytes N] [--fill V]\n"
	  "            or with data on NBD servers: --net URI[,GATEWAY,...] [--net ...] [--stripe N]",
	  "make an empty field" },
	{ "import", cmd_import, 2, 2,
	  "SRC FIELD [--at i,j,...] [--tile N,N,... [--checksums]]",
	  "copy a file or field into a field, made if it is not there" },
	{ "export", cmd_export, 2, 2, "FIELD FILE [--box BOX] [--format F]",
	  "copy a box into a .npy, .safetensors, .nrrd, .nii, .fbin or raw file" },
	{ "verify", cmd_verify, 1, 1, "FIELD [--repair]",
	  "check lengths, indexes and checksums on disk" },
	{ "resize", cmd_resize, 2, 2, "FIELD N", "make axis 0 longer" },
	{ "info", cmd_info, 1, 1, "FIELD [--disk] [--engine E]",
	  "shape, sizes, engine" },
	{ "get", cmd_get, 1, 2, "FIELD i,j,...|BOX [--out FILE] [--engine E]",
	  "print elements, or write them as raw or .npy" },
	{ "gather", cmd_gather, 2, 2,
	  "FIELD i,i,...|@FILE [--out FILE] [--engine E]",
	  "the records with these indices along axis 0" },
	{ "scan", cmd_scan, 1, 1,
	  "FIELD [--box BOX] [--order AXES] [--engine E] [--prefetch on|off]",
	  "walk a box by pointers: sum, time, faults" },
	{ "prefetch", cmd_prefetch, 1, 1, "FIELD [--box BOX] [--engine E]",
	  "start reading a box" },
	{ "evict", cmd_evict, 1, 1, "FIELD [--box BOX] [--engine E]",
	  "drop a box from the page cache" },
	{ "tiers", cmd_tiers, 1, 1, "FIELD [--engine E]",
	  "GPU, RAM, storage, network: which are on, and why not" },
	{ "stat", cmd_stat, 0, 1, "[ID]", "counters of the fields attached" },
	{ "predict", cmd_predict, 0, 32,
	  "TRACE|- | --generate WORKLOAD [NAME=VALUE ...] [--model NAME=N,...]\n"
	  "            [--predictors P,...] [--timeline FILE] [--out FILE]",
	  "replay an access trace through the predictor and its peers" },
	{ "record", cmd_record, 0, 4096,
	  "[ID] [--out FILE] [--seconds N] [-- COMMAND ...]",
	  "take a trace of the faults of an attached field" },
	{ "top", cmd_top, 0, 0, "[--seconds N] [--once] [--prometheus FILE|-]",
	  "what goes on in all fields now, live" },
	{ "map", cmd_map, 1, 1,
	  "FIELD [--out FILE] [--box BOX] [--cells WxH] [--seconds N] [--engine E]",
	  "draw what is hot, warm and cold, as .png, .svg or here" },
	{ "doctor", cmd_doctor, 0, 1, "[PATH] [--need NAME,...]",
	  "what this machine has, what is missing, what mends it" },
	{ "nbd", cmd_nbd, 1, 32,
	  "attach URI... /dev/nbdN|--auto [--write] [--connections N] [--timeout S]\n"
	  "            [--dead-timeout S] [--read-ahead-kb N] [--daemon] [--force]\n"
	  "            | list | detach /dev/nbdN [--force]",
	  "network block devices that survive their servers" },
	{ "bench", cmd_bench, 0, 1,
	  "[RESULTS.jsonl] [--plot [--out FILE]] | [FOLDER] --table",
	  "show or draw what `make bench` measured; measure tiers here" },
	{ "completion", cmd_completion, 1, 1, "bash|zsh|fish",
	  "what a shell needs to complete all this" },
	{ NULL, NULL, 0, 0, NULL, NULL },
};

static void print_usage(FILE *to)
{
	const struct command *c;

	fprintf(to, "usage: mmnf COMMAND [--json] ...\n\n");
	for (c = commands; c->name; c++)
		fprintf(to, "  %-10s %s\n             %s\n", c->name, c->args,
			c->help);
	fprintf(to,
		"\nBOX is numpy's: 0:10,5,::2   T is i8..u64, f16, bf16, "
		"f32, f64\n"
		"E is auto, device, mmap, direct, net\n"
		"FIELD may be on NBD servers: --net-timeout SECONDS|forever, --tls-dir DIR,\n"
		"  --tls-psk-file FILE, --tls-username NAME; --net-cache DIR keeps what was\n"
		"  read on a local SSD, at most --net-cache-bytes N of it\n"
		"Exit status: 0 done, 1 failed, 2 asked wrongly.\n"
		"`mmnf COMMAND --help` shows one; man mmnf says more.\n");
}

static bool is_in_args(const struct command *c, const char *option)
{
	size_t len = strlen(option);
	const char *at = c->args;

	while ((at = strstr(at, "--"))) {
		at += 2;
		if (!strncmp(at, option, len) && at[len] != '-' &&
		    (at[len] < 'a' || at[len] > 'z'))
			return true;
	}
	return false;
}

static void print_command(const struct command *c)
{
	const struct option_place *place;
	const char *lead = "\n            for a field on NBD servers also";

	printf("usage: mmnf %s %s%s[--json]", c->name, c->args,
	       *c->args ? " " : "");
	for (place = option_places; place->name; place++) {
		if (!command_takes(c, place->name) ||
		    is_in_args(c, place->name))
			continue;
		printf("%s --%s", lead, place->name);
		lead = "";
	}
	printf("\n\n  %s\n", c->help);
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

/* All options but --json and --help, by their names. */
const struct option_place option_places[] = {
#define TEXT(name, member)                                   \
	{                                                    \
		name, offsetof(struct options, member), true \
	}
#define FLAG(name, member)                                    \
	{                                                     \
		name, offsetof(struct options, member), false \
	}
	TEXT("at", at),
	FLAG("auto", automatic),
	TEXT("box", box),
	TEXT("cells", cells),
	FLAG("checksums", checksums),
	TEXT("connections", connections),
	FLAG("daemon", daemon),
	TEXT("dead-timeout", dead_timeout),
	FLAG("disk", disk),
	TEXT("dtype", dtype),
	TEXT("engine", engine),
	TEXT("fill", fill),
	FLAG("force", force),
	TEXT("format", format),
	TEXT("generate", generate),
	TEXT("model", model),
	TEXT("need", need),
	TEXT("net", net),
	TEXT("net-cache", net_cache),
	TEXT("net-cache-bytes", net_cache_bytes),
	TEXT("net-timeout", net_timeout),
	FLAG("once", once),
	TEXT("order", order),
	TEXT("out", out),
	FLAG("plot", plot),
	TEXT("predictors", predictors),
	TEXT("prefetch", prefetch),
	TEXT("prometheus", prometheus),
	TEXT("read-ahead-kb", read_ahead_kb),
	FLAG("repair", repair),
	TEXT("seconds", seconds),
	TEXT("segment-bytes", segment_bytes),
	TEXT("shape", shape),
	TEXT("stripe", stripe),
	FLAG("table", table),
	TEXT("tile", tile),
	TEXT("timeline", timeline),
	TEXT("timeout", timeout),
	TEXT("tls-dir", tls_dir),
	TEXT("tls-psk-file", tls_psk_file),
	TEXT("tls-username", tls_username),
	FLAG("write", writable),
#undef TEXT
#undef FLAG
	{ NULL, 0, false },
};

/*
 * "[--out FILE]" in the arguments of a command says that it takes it; "FIELD",
 * that it takes what a field on the network may need.
 */
bool command_takes(const struct command *c, const char *option)
{
	if (!strncmp(option, "net-", 4) || !strncmp(option, "tls-", 4))
		return strstr(c->args, "FIELD");
	return is_in_args(c, option);
}

static const struct option_place *option_named(const char *name)
{
	const struct option_place *place = option_places;

	while (strcmp(place->name, name))
		place++;
	return place;
}

#define OPTIONS_MAX 64

static int parse_options(struct options *o, const struct command *command,
			 int argc, char **argv)
{
	struct option longs[OPTIONS_MAX + 3] = { { 0 } };
	const struct option_place *place;
	int nr = 0, c;

	for (place = option_places; place->name && nr < OPTIONS_MAX; place++)
		longs[nr++] = (struct option) { place->name, place->has_value,
						NULL, 0 };
	longs[nr] = (struct option) { "json", no_argument, NULL, 'j' };
	longs[nr + 1] = (struct option) { "help", no_argument, NULL, 'h' };
	hide_negative(argc, argv);
	while ((c = getopt_long(argc, argv, "o:", longs, &nr)) != -1) {
		if (c == '?')
			return EXIT_USAGE; /* getopt has said what */
		if (c == 'j')
			o->json = true;
		if (c == 'h')
			o->help = true;
		if (c && c != 'o')
			continue;
		place = c ? option_named("out") : &option_places[nr];
		if (!command_takes(command, place->name))
			return usage_error(
				o, "there is no --%s here; usage: mmnf %s %s",
				place->name, command->name, command->args);
		if (!strcmp(place->name, "net")) {
			if (o->nr_net == sizeof(o->net) / sizeof(o->net[0]))
				return usage_error(o, "--net: too many");
			o->net[o->nr_net++] = optarg;
			continue;
		}
		if (place->has_value)
			*(const char **)((char *)o + place->at) = optarg;
		else
			*(bool *)((char *)o + place->at) = true;
	}
	o->nr_args = argc - optind;
	o->args = argv + optind;
	return 0;
}

int main(int argc, char **argv)
{
	const struct command *c = commands;
	struct options o = { 0 };
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
	while (c->name && strcmp(argv[1], c->name))
		c++;
	if (!c->name) {
		fprintf(stderr, "mmnf: %s: no such command; see mmnf --help\n",
			argv[1]);
		return EXIT_USAGE;
	}
	o.command = c->name;
	ret = parse_options(&o, c, argc - 1, argv + 1);
	if (!ret && o.help) {
		print_command(c);
		return EXIT_SUCCESS;
	}
	if (!ret && (o.nr_args < c->least_args || o.nr_args > c->most_args))
		ret = usage_error(&o, "usage: mmnf %s %s", c->name, c->args);
	if (!ret)
		ret = c->run(&o);
	if (fflush(stdout) || ferror(stdout)) {
		perror("mmnf: standard output");
		ret = EXIT_FAILURE;
	}
	return ret;
}
