// SPDX-License-Identifier: MIT
/*
 * Workloads that look up: rows of tables, skewed or not.
 */
#include <math.h>
#include <stdlib.h>

#include "generate.h"

/* A table of rows; its geometry is [rows][row bytes]. */
static void table(struct gen *g, uint64_t rows, uint64_t row_bytes)
{
	int64_t shape[2] = { (int64_t)rows, (int64_t)row_bytes };

	gen_geometry(g, 2, shape, 1, 0);
}

/*
 * A rank from 0 to n - 1, rank k with a probability like (k + 1)^-alpha: the
 * continuous power law over [1, n + 1), inverted and rounded down.  alpha of 1 has
 * a logarithm in place of the power.
 */
static uint64_t zipf(struct gen *g, uint64_t n, double alpha)
{
	double u = gen_unit(g), top = (double)n + 1, x;
	uint64_t rank;

	if (fabs(alpha - 1) < 1e-9)
		x = exp(u * log(top));
	else
		x = pow(1 + u * (pow(top, 1 - alpha) - 1), 1 / (1 - alpha));
	rank = (uint64_t)x - 1;
	return rank < n ? rank : n - 1;
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/*
 * Hot rows are anywhere in a table: ranks are spread by a multiplier.  It has no
 * divisor in common with the number of rows, so that each row has one rank.
 */
static uint64_t spread(uint64_t rank, uint64_t rows)
{
	uint64_t by = 0x9E3779B97F4A7C15ULL % rows;

	while (common_divisor(by, rows) != 1)
		by++;
	return (uint64_t)((unsigned __int128)rank * by % rows);
}

static void run_uniform(struct gen *g)
{
	uint64_t file = gen_number(g, "file"), bytes = gen_number(g, "bytes");
	uint64_t count = gen_number(g, "count"), align = gen_number(g, "align");
	int64_t extent = (int64_t)file;

	gen_geometry(g, 1, &extent, 1, 0);
	if (!align || !bytes || file < bytes)
		gen_wrong(g, "file, bytes, align: expected a read in a file");
	for (; count && !g->wrong[0]; count--)
		gen_touch(g, gen_below(g, (file - bytes) / align + 1) * align,
			  bytes);
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void run_rows(struct gen *g)
{
	uint64_t rows = gen_number(g, "rows"), count = gen_number(g, "count");
	uint64_t bytes = gen_number(g, "row_bytes"), *row = NULL, i;
	double alpha = gen_real(g, "alpha");

	table(g, rows, bytes);
	if (!g->wrong[0] && count <= TRACE_MAX)
		row = calloc(count, sizeof(*row));
	if (!row) {
		gen_wrong(g, "count: more than memory holds");
		return;
	}
	/* Each row once, as in a cache that is loaded before it is used. */
	if (gen_number(g, "warm"))
		gen_touch(g, 0, rows * bytes);
	for (i = 0; i < count && !g->wrong[0]; i++)
		row[i] = spread(alpha > 0 ? zipf(g, rows, alpha) :
					    gen_below(g, rows),
				rows);
	if (gen_number(g, "sorted"))
		qsort(row, count, sizeof(*row), ascending);
	for (i = 0; i < count && !g->wrong[0]; i++)
		gen_touch(g, row[i] * bytes, bytes);
	free(row);
}

/* MLPerf's DLRM v2: rows of each table, and look-ups of each per sample. */
static const struct {
	uint32_t rows, hot;
} criteo[] = {
	{ 40000000, 3 },   { 39060, 2 },     { 17295, 1 },   { 7424, 2 },
	{ 20265, 6 },	   { 3, 1 },	     { 7122, 1 },    { 1543, 1 },
	{ 63, 1 },	   { 40000000, 7 },  { 3067956, 3 }, { 405282, 8 },
	{ 10, 1 },	   { 2209, 6 },	     { 11938, 9 },   { 155, 5 },
	{ 4, 1 },	   { 976, 1 },	     { 14, 1 },	     { 40000000, 12 },
	{ 40000000, 100 }, { 40000000, 27 }, { 590152, 10 }, { 12973, 3 },
	{ 108, 1 },	   { 36, 1 },
};

#define NR_TABLES (sizeof(criteo) / sizeof(criteo[0]))

static void run_dlrm(struct gen *g)
{
	uint64_t row = gen_number(g, "row_bytes"), samples, first, hot;
	double alpha = gen_real(g, "alpha");
	uint64_t rows = 0;
	size_t t;

	for (t = 0; t < NR_TABLES; t++)
		rows += criteo[t].rows;
	table(g, rows, row);
	for (samples = gen_number(g, "samples"); samples && !g->wrong[0];
	     samples--) {
		for (first = 0, t = 0; t < NR_TABLES; t++) {
			/* One embedding call per table: an instruction each. */
			g->ip = 0x1000 + t * 16;
			for (hot = criteo[t].hot; hot; hot--)
				gen_touch(
					g,
					(first +
					 spread(zipf(g, criteo[t].rows, alpha),
						criteo[t].rows)) *
						row,
					row);
			first += criteo[t].rows;
		}
	}
}

/*
 * Neighbour sampling: seeds of a batch, then for each hop the sampled neighbours;
 * features are gathered for all of them, in the order of sampling.
 */
static void run_gnn(struct gen *g)
{
	uint64_t nodes = gen_number(g, "nodes"),
		 row = gen_number(g, "row_bytes");
	uint64_t batches = gen_number(g, "batches"), n, i;
	uint64_t gathered = gen_number(g, "gathered");
	double alpha = gen_real(g, "alpha");

	table(g, nodes, row);
	for (; batches && !g->wrong[0]; batches--) {
		uint64_t seed = gen_below(g, nodes);

		/* Seeds are neighbours in the file, what they lead to is not. */
		for (i = 0; i < gathered && !g->wrong[0]; i++) {
			n = i < gathered / 16 ?
				    (seed + i) % nodes :
				    spread(zipf(g, nodes, alpha), nodes);
			gen_touch(g, n * row, row);
		}
	}
}

/* Activations [tokens][position][width]: shuffled vectors (tensorstore #178). */
static void run_sae(struct gen *g)
{
	uint64_t rows = gen_number(g, "rows"), width = gen_number(g, "width");
	uint64_t positions = gen_number(g, "positions"), count;
	uint64_t row = width * 4, limit = 1ULL << 40;
	int64_t shape[3];

	if (rows > limit || width > limit || positions > 1 << 20) {
		gen_wrong(g, "rows, positions, width: too large");
		return;
	}
	shape[0] = (int64_t)rows;
	shape[1] = (int64_t)positions;
	shape[2] = (int64_t)width;
	gen_geometry(g, 3, shape, 4, gen_number(g, "record"));
	for (count = gen_number(g, "count"); count && !g->wrong[0]; count--)
		gen_touch(g, gen_below(g, rows * positions) * row, row);
}

/*
 * A sparse feed-forward layer after the other, token by token ("LLM in a flash",
 * arXiv 2312.11514): of each layer's bundled rows some, in ascending order.  Which
 * are active changes by a part from token to token.
 */
static void run_ffn(struct gen *g)
{
	uint64_t layers = gen_number(g, "layers"), rows = gen_number(g, "rows");
	uint64_t row = gen_number(g, "row_bytes"), tokens, l, r;
	double active = gen_real(g, "active");
	int64_t shape[3] = { (int64_t)layers, (int64_t)rows, (int64_t)row };

	gen_geometry(g, 3, shape, 1, row);
	for (tokens = gen_number(g, "tokens"); tokens; tokens--)
		for (l = 0; l < layers; l++)
			for (r = 0; r < rows && !g->wrong[0]; r++)
				if (gen_unit(g) < active)
					gen_touch(g, (l * rows + r) * row, row);
}

const struct workload workloads_lookup[] = {
	{ "uniform",
	  "reads anywhere in a file (elasticsearch #147625)",
	  { { "file", "8589934592", "bytes" },
	    { "bytes", "4096", "of each read" },
	    { "align", "4096", "of its start" },
	    { "count", "5000", "reads" } },
	  run_uniform },
	{ "rows",
	  "rows of a table, by a power law",
	  { { "rows", "100000000", "of the table" },
	    { "row_bytes", "512", "of a row" },
	    { "alpha", "1.09", "of the power law; 0: uniform" },
	    { "count", "20000", "look-ups" },
	    { "sorted", "0", "1: in ascending order" },
	    { "warm", "0", "1: the whole table was touched before" } },
	  run_rows },
	{ "dlrm",
	  "Criteo's 26 tables, 214 look-ups a sample",
	  { { "samples", "50", "how many" },
	    { "row_bytes", "512", "of a row" },
	    { "alpha", "1.09", "of the power law" } },
	  run_dlrm },
	{ "gnn",
	  "features of sampled neighbours (IGBH)",
	  { { "nodes", "547306935", "of the graph" },
	    { "row_bytes", "4096", "of a feature" },
	    { "batches", "4", "how many" },
	    { "gathered", "2000", "nodes of a batch" },
	    { "alpha", "0.8", "of the neighbours' power law" } },
	  run_gnn },
	{ "sae",
	  "shuffled activation vectors of f32",
	  { { "rows", "3919360", "contexts" },
	    { "positions", "256", "tokens of a context" },
	    { "width", "3072", "of a vector" },
	    { "record", "0", "bytes that ATTACH is told" },
	    { "count", "3000", "vectors" } },
	  run_sae },
	{ "ffn",
	  "active rows of a sparse network, layer by layer",
	  { { "layers", "32", "of the network" },
	    { "rows", "16384", "of a layer" },
	    { "row_bytes", "16384", "of a bundled row" },
	    { "active", "0.004", "part of the rows" },
	    { "tokens", "2", "how many" } },
	  run_ffn },
	{ 0 },
};
