/* SPDX-License-Identifier: MIT */
/*
 * Results of a benchmark, between `mmnf bench` and what draws them.
 */
#ifndef MMNF_BENCH_H
#define MMNF_BENCH_H

#include <stddef.h>

#define BENCH_NAMES 64

struct options;

struct names {
	unsigned int nr;
	char *name[BENCH_NAMES];
};

/* Something that happened in one walk. */
struct bench_event {
	char what[16]; /* hit, late, miss: a fault; read: from at_ns to end_ns */
	double pos; /* offset in the file, bytes */
	double at_ns, end_ns;
};

/**
 * struct bench - what the lines of a file of results say
 * @ns: time per touch by device, case and engine; 0: not measured
 * @metric, @clock: of @ns
 * @timeline: the case whose events these are
 */
struct bench {
	struct names devices, cases, engines;
	double ns[BENCH_NAMES][BENCH_NAMES][BENCH_NAMES];
	char metric[32], clock[16];
	char timeline[64];
	struct bench_event *event;
	size_t nr_events, room;
};

/**
 * bench_plot() - draw with gnuplot
 * @path: where the results are from; the picture lies beside it, as .svg, unless
 *	o->out names another place, .svg or .png
 *
 * Returns an exit status.
 */
int bench_plot(const struct options *o, const char *path,
	       const struct bench *b);

/* bench-table.c: measures in a folder and prints; an exit status. */
int bench_table(const struct options *o, const char *folder);

#endif
