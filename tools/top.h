/* SPDX-License-Identifier: MIT */
/*
 * What `mmnf top` knows of all fields now, between who looks and who shows.
 */
#ifndef MMNF_TOP_H
#define MMNF_TOP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <mmnf.h>

#include "publish.h"

struct options;

/* Totals since the field was opened or attached. */
struct top_counts {
	uint64_t accesses, hits, late, misses;
	uint64_t prefetched_pages, used_pages, wasted_pages, pending_pages;
	uint64_t gets, get_bytes; /* copied out by the library */
};

/**
 * struct top_field - a field of the kernel or of a process
 * @key: tells it from all others, and from those that were there before
 * @is_kernel: attached to /dev/mmnf; else open in the library of @pid
 * @id: its number, of the kernel's
 * @name: path, or for the kernel's "field ID"
 * @engine: the library's; for the kernel's the mode of prediction
 * @l2_bytes, @l2_used_bytes: of the library's cache; 0: the page cache serves
 * @waits: by length: of the library's gets and batches, of the kernel's faults
 * @has_streams: the streams may be seen
 */
struct top_field {
	char key[48];
	bool is_kernel, has_streams;
	uint64_t id;
	int pid;
	char command[32], name[512], engine[16];
	uint32_t ndim, element_bytes;
	uint64_t shape[MMNF_NDIM_MAX];
	uint64_t total_bytes, page_bytes, l2_bytes, l2_used_bytes;
	struct top_counts counts;
	uint64_t waits[MMNF_NR_LENGTHS];
	unsigned int nr_gpus, nr_streams;
	struct mmnf_published_gpu gpu[MMNF_PUBLISH_GPUS];
	struct mmnf_published_stream stream[MMNF_PUBLISH_STREAMS];
};

/**
 * struct top - a sample
 * @at_ns: when, CLOCK_MONOTONIC
 * @nr_processes: with fields open in the library
 * @memory_bytes: of the machine; @available_bytes, @cached_bytes of it
 */
struct top {
	uint64_t at_ns;
	unsigned int nr_fields, room, nr_processes;
	struct top_field *field;
	uint64_t memory_bytes, available_bytes, cached_bytes;
};

/* top-collect.c: false: out of memory. */
bool top_collect(struct top *top);
void top_free(struct top *top);
/* A place for one more; NULL: out of memory. */
struct top_field *top_add(struct top *top);

/* top-library.c: fields of running processes that this user may look into. */
bool top_collect_library(struct top *top);

/* The field in a sample before, or NULL. */
const struct top_field *top_find(const struct top *top, const char *key);

/*
 * The longest of the shortest @part (0..1) of the waits between two samples, in
 * ns; before may be NULL; 0: there were none.
 */
uint64_t top_wait_ns(const struct top_field *field,
		     const struct top_field *before, double part);

/* "+4.10 kB x 16, +1.05 MB x 64, again": the loops, innermost first. */
void top_nest(const struct mmnf_published_stream *s, char *text, size_t len);

/**
 * struct top_row - a field as the table shows it
 * @hit, @late, @miss: of the accesses between two samples, or of all where there
 *	is no sample before; together 1, or 0 if there were none
 * @used, @wasted: of the pages read ahead that are decided
 * @texts: below, "-" where nothing is known
 */
struct top_row {
	double hit, late, miss, used, wasted;
	char accesses[16], ahead[16], got[16]; /* a second; bytes */
	char pending[16]; /* bytes */
	char half[16], most[16]; /* latency: of 50 %, of 99 % */
};

/* top-row.c */
void top_row(const struct top *top, const struct top *before,
	     const struct top_field *f, struct top_row *row);

/* "125 us" */
void top_duration(uint64_t ns, char text[16]);

/* "page cache", "L2: 1.20 MB of 1.07 GB" */
void top_tier(const struct top_field *f, char *text, size_t len);

/* "L1, GPU 0: 1.20 MB of 4.29 GB; hit 98%, late 0%, miss 2%; ...; NAME" */
void top_gpu(const struct mmnf_published_gpu *gpu, char *text, size_t len);

/* "1,000 x 256 f32": as far as there is room. */
void top_shape(const struct top_field *f, char *text, size_t len);

/* top-print.c: all as JSON; a plain table; Prometheus' text format. */
json_t *top_json(const struct top *top, const struct top *before);
void top_print(const struct top *top, const struct top *before, FILE *to);
void top_prometheus(const struct top *top, FILE *to);

/* top-screen.c: until q is pressed; an exit status. */
int top_screen(const struct options *o, double seconds);

#endif
