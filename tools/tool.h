/* SPDX-License-Identifier: MIT */
/*
 * What the sub-commands share: options, boxes, output.
 *
 * Exit status of every sub-command: EXIT_SUCCESS, EXIT_FAILURE (it was tried and
 * failed) or EXIT_USAGE (it was asked wrongly).  Results go to stdout, as text
 * or, with --json, as one JSON object; messages and progress go to stderr.
 */
#ifndef MMNF_TOOL_H
#define MMNF_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include <mmnf.h>

#include "number.h"

#define EXIT_USAGE 2

/* Options that more than one sub-command has; a command names those it takes. */
struct options {
	const char *command;
	bool json, help;
	const char *shape, *dtype, *fill; /* create */
	const char *segment_bytes, *tile; /* create, import */
	const char *format; /* export */
	const char *at; /* import */
	const char *box, *order; /* get, gather, scan, prefetch, evict */
	const char *out; /* get, gather, predict, record */
	const char *seconds; /* record, map, top */
	const char *engine, *prefetch; /* where a field is opened */
	const char *net_timeout, *tls_dir, *tls_psk_file, *tls_username;
	const char *net_cache, *net_cache_bytes;
	const char *net[256], *stripe; /* create */
	unsigned int nr_net;
	const char *generate, *model, *predictors, *timeline; /* predict */
	const char *need; /* doctor */
	const char *cells; /* map */
	const char *prometheus; /* top */
	bool once; /* top */
	bool disk; /* info */
	bool checksums; /* create, import */
	bool repair; /* verify */
	const char *connections, *timeout, *dead_timeout,
		*read_ahead_kb; /* nbd */
	bool automatic, daemon, force, writable; /* nbd */
	bool plot, table; /* bench */
	int nr_args;
	char **args;
};

/* A sub-command; its arguments, as --help shows them, name its options. */
struct command {
	const char *name;
	int (*run)(const struct options *o);
	int least_args, most_args;
	const char *args, *help;
};

/* An option and where in struct options its value, or that it is there, goes. */
struct option_place {
	const char *name;
	size_t at;
	bool has_value;
};

/* Both end with a NULL name. */
extern const struct command commands[];
extern const struct option_place option_places[];

bool command_takes(const struct command *c, const char *option);

int cmd_create(const struct options *o);
int cmd_import(const struct options *o);
int cmd_export(const struct options *o);
int cmd_verify(const struct options *o);
int cmd_resize(const struct options *o);
int cmd_info(const struct options *o);
int cmd_get(const struct options *o);
int cmd_gather(const struct options *o);
int cmd_scan(const struct options *o);
int cmd_prefetch(const struct options *o);
int cmd_evict(const struct options *o);
int cmd_stat(const struct options *o);
int cmd_tiers(const struct options *o);
int cmd_predict(const struct options *o);
int cmd_record(const struct options *o);
int cmd_top(const struct options *o);
int cmd_map(const struct options *o);
int cmd_doctor(const struct options *o);
int cmd_completion(const struct options *o);
int cmd_bench(const struct options *o);
int cmd_nbd(const struct options *o);

/* "mmnf: COMMAND: ..." on stderr; returns what the command should exit with. */
int usage_error(const struct options *o, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
int failure(const struct options *o, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* The same with mmnf_last_error(). */
int library_failure(const struct options *o);

/* Decimal, or 0x..; may end in K, M, G, T or P (powers of 1024). */
bool parse_u64(const char *text, uint64_t *out);
/* "1,2,3"; returns how many, -1 if it is no list or longer than most. */
int parse_list(const char *text, uint64_t *out, unsigned int most);

/**
 * parse_box() - numpy's slices
 * @text: axes separated by commas, each an index, start:stop or
 *	start:stop:step; negative numbers count from the end; axes left out at
 *	the end are whole; NULL is the whole field
 *
 * Returns NULL, or what is wrong.
 */
const char *parse_box(const char *text, const struct mmnf_field_info *info,
		      struct mmnf_box *box);
uint64_t box_elements(const struct mmnf_box *box, unsigned int ndim);

/* --segment-bytes, --checksums and --tile, kept in tile; 0 or an exit status. */
int layout_options(const struct options *o, unsigned int ndim,
		   struct mmnf_create_opts *opts, uint64_t *tile);

/* Opens the field args[0] with the options given; 0 or an exit status. */
int open_field(const struct options *o, bool writable,
	       struct mmnf_field **field, struct mmnf_field_info *info);
/* The same for reading, and --box of it. */
int open_box(const struct options *o, struct mmnf_field **field,
	     struct mmnf_field_info *info, struct mmnf_box *box);

const char *engine_name(uint32_t engine);
json_t *json_numbers(const uint64_t *numbers, unsigned int nr);
json_t *stats_json(struct mmnf_field *field);
/* "1.02 PB" */
void human_bytes(uint64_t bytes, char text[16]);

/* Prints an object: as JSON, or its members a line each.  Takes it over. */
int print_result(const struct options *o, json_t *result);

/* One element as text; returns its value as a double for sums. */
double element_value(uint32_t dtype, const void *p);
void element_text(uint32_t dtype, const void *p, char text[32]);

/* A bar on stderr if that is a terminal; total 0 ends it. */
void progress(void *what, uint64_t done_bytes, uint64_t total_bytes);

/* .npy if the name ends so, raw bytes otherwise; "-" is stdout. */
int write_array(const struct options *o, uint32_t dtype, unsigned int ndim,
		const uint64_t *shape, const void *data, size_t bytes);

#endif
