/* SPDX-License-Identifier: MIT */
/*
 * Traces made from a workload's parameters: closed forms, and for random ones a
 * seeded generator, so that the same parameters give the same trace.
 */
#ifndef MMNF_TOOL_GENERATE_H
#define MMNF_TOOL_GENERATE_H

#include "trace.h"

#define WORKLOAD_PARAMS 10

struct gen;

/**
 * struct workload - a kind of trace
 * @param: names, defaults, and what they mean; the first free one ends them
 * @run: adds the accesses and sets the geometry; what is wrong goes to gen_wrong()
 */
struct workload {
	const char *name, *help;
	struct {
		const char *name, *value, *help;
	} param[WORKLOAD_PARAMS];
	void (*run)(struct gen *g);
};

/* Lists of them; each ends with one without a name. */
extern const struct workload workloads_walk[], workloads_lookup[];

/**
 * struct gen - a trace being made
 * @thread, @ip: of the accesses to come
 * @gap_ns: computing before each page that is touched
 */
struct gen {
	const struct workload *workload;
	const char *value[WORKLOAD_PARAMS];
	struct trace *trace;
	uint64_t thread, ip, gap_ns, carry_ns, random;
	char wrong[160];
};

/**
 * generate() - make a trace
 * @name: of a workload
 * @params: NAME=VALUE each; every workload also has gap_ns and seed
 * @wrong: what is wrong, if it fails
 */
bool generate(struct trace *trace, const char *name, char **params, int nr,
	      char *wrong, size_t size);

void generate_help(FILE *to);

/* ---- for workloads; after an error they do nothing and return 0 */

/* A parameter: a number, or as many numbers with commas as there are. */
uint64_t gen_number(struct gen *g, const char *name);
uint32_t gen_list(struct gen *g, const char *name, int64_t *out);
double gen_real(struct gen *g, const char *name);

void gen_wrong(struct gen *g, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Sets the geometry: packed, or a vector of @extent[0] elements. */
void gen_geometry(struct gen *g, uint32_t ndim, const int64_t *extent,
		  uint64_t element_bytes, uint64_t record_bytes);

/* Touches each page of [pos, pos + bytes). */
void gen_touch(struct gen *g, uint64_t pos, uint64_t bytes);

/**
 * gen_nest() - touches @bytes at each position of nested loops
 * @count, @stride: outermost first
 */
void gen_nest(struct gen *g, uint64_t start, uint32_t nr_levels,
	      const int64_t *count, const int64_t *stride, uint64_t bytes);

/* splitmix64: uniform 64 bits; below a bound; in [0, 1). */
uint64_t gen_random(struct gen *g);
uint64_t gen_below(struct gen *g, uint64_t bound);
double gen_unit(struct gen *g);

#endif
