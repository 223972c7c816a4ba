// SPDX-License-Identifier: MIT
/*
 * mmnf map: where a field's bytes are, hot, warm or cold, over its first two axes.
 *
 * Each cell of the grid is looked at in pieces, in an order that spreads over the
 * cell; all cells get their first piece, then their second, until all is seen or
 * the time is up.  So a picture of a petabyte is a fair sample, and says of how
 * much.  Nothing is read, mapped or changed.
 */
#include <math.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "map.h"
#include "tool.h"

#define PICTURE_COLUMNS 128
#define PICTURE_ROWS 96
#define MOST_CELLS 1000000
#define PIECES 16
#define PIECE_LEAST (4ULL << 20)
#define SECONDS 5

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The part of the box that a cell is. */
static void cell_box(const struct map *map, unsigned int row,
		     unsigned int column, struct mmnf_box *box)
{
	const unsigned int at[2] = { row, column };
	const unsigned int nr[2] = { map->rows, map->columns };
	int axes[2] = { map_row_axis(map), map_column_axis(map) }, i;

	*box = map->box;
	for (i = 0; i < 2; i++) {
		uint64_t from, to;
		int axis = axes[i];

		if (axis < 0)
			continue;
		from = map_edge(map->box.count[axis], at[i], nr[i]);
		to = map_edge(map->box.count[axis], at[i] + 1, nr[i]);
		box->start[axis] += from * (uint64_t)map->box.step[axis];
		box->count[axis] = to - from;
	}
}

/**
 * struct pieces - a box in blocks
 * @size: of a block along each axis
 * @nr: blocks along each axis
 * @total: blocks in all
 * @stride: coprime to @total, near the golden section of it: multiples of it
 *	modulo @total are spread evenly from the first on, and each comes once
 */
struct pieces {
	uint64_t size[MMNF_NDIM_MAX], nr[MMNF_NDIM_MAX];
	uint64_t total, stride;
};

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/* Blocks that are whole along the last axes, of about so many bytes. */
static void cut(struct pieces *p, const struct mmnf_box *box,
		const struct mmnf_field_info *info, uint64_t bytes)
{
	uint64_t left = bytes / info->element_bytes;
	int axis;

	p->total = 1;
	for (axis = (int)info->ndim - 1; axis >= 0; axis--) {
		uint64_t count = box->count[axis];

		p->size[axis] = left < 1 ? 1 : left < count ? left : count;
		p->nr[axis] = (count + p->size[axis] - 1) / p->size[axis];
		if (__builtin_mul_overflow(p->total, p->nr[axis], &p->total))
			p->total = UINT64_MAX;
		left /= p->size[axis];
	}
	p->stride = (uint64_t)((double)p->total * 0.6180339887) | 1;
	while (common_divisor(p->stride, p->total) != 1)
		p->stride++;
}

static void piece(const struct pieces *p, uint64_t turn, unsigned int ndim,
		  const struct mmnf_box *of, struct mmnf_box *box)
{
	uint64_t at =
		(uint64_t)((unsigned __int128)turn * p->stride % p->total);
	int axis;

	*box = *of;
	for (axis = (int)ndim - 1; axis >= 0; axis--) {
		uint64_t from = at % p->nr[axis] * p->size[axis];

		at /= p->nr[axis];
		box->start[axis] += from * (uint64_t)of->step[axis];
		box->count[axis] = of->count[axis] - from < p->size[axis] ?
					   of->count[axis] - from :
					   p->size[axis];
	}
}

/* Piece @turn of a cell; false if it has no such, or on error, which is set. */
static bool look(struct map *map, struct mmnf_field *field, unsigned int i,
		 uint64_t turn, int *error)
{
	struct mmnf_residency r = { .size = sizeof(r) };
	uint64_t bytes = map->info.element_bytes;
	struct map_cell *cell = &map->cell[i];
	struct mmnf_box of, box;
	struct pieces p;

	cell_box(map, i / map->columns, i % map->columns, &of);
	bytes *= box_elements(&of, map->info.ndim);
	bytes = bytes / PIECES > PIECE_LEAST ? bytes / PIECES : PIECE_LEAST;
	cut(&p, &of, &map->info, bytes);
	if (turn >= p.total)
		return false;
	piece(&p, turn, map->info.ndim, &of, &box);
	*error = mmnf_residency(field, &box, &r);
	cell->hot_bytes += (double)r.hot_bytes;
	cell->warm_bytes += (double)r.warm_bytes;
	cell->cold_bytes += (double)r.cold_bytes;
	return !*error;
}

static int look_at_all(struct map *map, struct mmnf_field *field, double limit)
{
	unsigned int nr = map->rows * map->columns, i;
	double end = now() + limit, total;
	struct map_cell sum;
	bool more = true;
	uint64_t turn;
	int error = 0;

	for (turn = 0; more && !error && (!turn || now() < end); turn++)
		for (i = 0, more = false; i < nr && !error; i++) {
			/* The first turn is never cut short. */
			if (turn && !(i & 63) && now() >= end)
				break;
			more |= look(map, field, i, turn, &error);
		}
	sum = map_total(map);
	total = (double)box_elements(&map->box, map->info.ndim) *
		map->info.element_bytes;
	map->sampled =
		total > 0 ? (sum.hot_bytes + sum.warm_bytes + sum.cold_bytes) /
				    total :
			    1;
	return error;
}

struct map_cell map_total(const struct map *map)
{
	struct map_cell sum = { 0, 0, 0 };
	unsigned int i;

	for (i = 0; i < map->rows * map->columns; i++) {
		sum.hot_bytes += map->cell[i].hot_bytes;
		sum.warm_bytes += map->cell[i].warm_bytes;
		sum.cold_bytes += map->cell[i].cold_bytes;
	}
	return sum;
}

void map_caption(const struct map *map, char *text, size_t len)
{
	double total = (double)box_elements(&map->box, map->info.ndim) *
		       map->info.element_bytes;
	char size[16], share[32];

	human_bytes((uint64_t)total, size);
	if (map->sampled > 0.99999)
		snprintf(share, sizeof(share), "all");
	else
		snprintf(share, sizeof(share), "%.3g %%", map->sampled * 100);
	snprintf(text, len, "looked at %s of %s; %s", share, size,
		 map->knows_use ? "hot: used by a program" :
				  "what is in use, only /dev/mmnf could tell");
}

static struct map_colour mix(struct map_colour a, struct map_colour b, double t)
{
	return (struct map_colour) { a.red + (b.red - a.red) * t,
				     a.green + (b.green - a.green) * t,
				     a.blue + (b.blue - a.blue) * t };
}

struct map_colour map_cold(void)
{
	return (struct map_colour) { 0.88, 0.91, 0.95 };
}

struct map_colour map_unseen(void)
{
	return (struct map_colour) { 1, 1, 1 };
}

static double strength(double share)
{
	return share > 0 ? 0.35 + 0.65 * pow(share, 0.25) : 0;
}

struct map_colour map_warm(double share)
{
	return mix(map_cold(), (struct map_colour) { 0.95, 0.62, 0.10 },
		   strength(share));
}

struct map_colour map_hot(double share)
{
	return mix(map_cold(), (struct map_colour) { 0.70, 0.05, 0.12 },
		   strength(share));
}

struct map_colour map_colour(const struct map_cell *c)
{
	double seen = c->hot_bytes + c->warm_bytes + c->cold_bytes, resident;

	if (seen <= 0)
		return map_unseen();
	resident = c->hot_bytes + c->warm_bytes;
	if (resident <= 0)
		return map_cold();
	return mix(map_warm(resident / seen), map_hot(resident / seen),
		   pow(c->hot_bytes / resident, 0.5));
}

/* "WxH"; false if it is none. */
static bool parse_cells(const char *text, struct map *map)
{
	uint64_t columns, rows;
	char *copy = strdup(text), *x = copy ? strchr(copy, 'x') : NULL;
	bool ok = false;

	if (x) {
		*x = 0;
		ok = parse_u64(copy, &columns) && parse_u64(x + 1, &rows) &&
		     columns && rows && columns <= MOST_CELLS &&
		     rows <= MOST_CELLS && columns * rows <= MOST_CELLS;
	}
	if (ok) {
		map->columns = (unsigned int)columns;
		map->rows = (unsigned int)rows;
	}
	free(copy);
	return ok;
}

/* As many cells as are asked for or fit, and no more than there are elements. */
static int choose_cells(const struct options *o, struct map *map)
{
	int row_axis = map_row_axis(map), column_axis = map_column_axis(map);
	struct winsize terminal;

	map->columns = PICTURE_COLUMNS;
	map->rows = PICTURE_ROWS;
	if (!o->out) {
		map->columns = 64;
		map->rows = 32;
		if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &terminal) &&
		    terminal.ws_col > 40 && terminal.ws_row > 12) {
			map->columns = terminal.ws_col - 16u;
			map->rows = 2 * (terminal.ws_row - 8u);
		}
	}
	if (o->cells && !parse_cells(o->cells, map))
		return usage_error(o,
				   "--cells %s: expected COLUMNSxROWS, at most "
				   "%d cells",
				   o->cells, MOST_CELLS);
	if (row_axis < 0)
		map->rows = 1;
	else if (map->box.count[row_axis] < map->rows)
		map->rows = (unsigned int)map->box.count[row_axis];
	if (map->box.count[column_axis] < map->columns)
		map->columns = (unsigned int)map->box.count[column_axis];
	return 0;
}

static json_t *cells_json(const struct map *map)
{
	json_t *list = json_array(), *line;
	unsigned int i;

	for (i = 0; i < map->rows * map->columns; i++) {
		const struct map_cell *c = &map->cell[i];

		line = json_pack("[I, I, I]", (json_int_t)c->hot_bytes,
				 (json_int_t)c->warm_bytes,
				 (json_int_t)c->cold_bytes);
		json_array_append_new(list, line);
	}
	return list;
}

static int show(const struct options *o, const struct map *map)
{
	struct map_cell sum = map_total(map);
	int ret = EXIT_SUCCESS;

	if (o->out)
		ret = map_draw(o, map, o->out);
	if (!ret && o->json)
		return print_result(
			o, json_pack("{ss sI sI sf sb sI sI sI so}", "field",
				     map->field, "columns",
				     (json_int_t)map->columns, "rows",
				     (json_int_t)map->rows, "sampled",
				     map->sampled, "knows_use",
				     (int)map->knows_use, "hot_bytes",
				     (json_int_t)sum.hot_bytes, "warm_bytes",
				     (json_int_t)sum.warm_bytes, "cold_bytes",
				     (json_int_t)sum.cold_bytes, "cells",
				     cells_json(map)));
	if (!ret && o->out)
		printf("%s\n", o->out);
	else if (!ret)
		map_print(map, isatty(STDOUT_FILENO) && !getenv("NO_COLOR"));
	return ret;
}

int cmd_map(const struct options *o)
{
	struct map map = { .field = o->args[0] };
	struct mmnf_field *field;
	uint64_t seconds = SECONDS;
	int ret;

	if (o->seconds && (!parse_u64(o->seconds, &seconds) || !seconds))
		return usage_error(o, "--seconds %s: expected 1 or more",
				   o->seconds);
	ret = open_box(o, &field, &map.info, &map.box);
	if (ret)
		return ret;
	map.knows_use = map.info.engine == MMNF_ENGINE_DEVICE;
	if (!box_elements(&map.box, map.info.ndim))
		ret = usage_error(o, "--box %s: nothing is in it", o->box);
	else
		ret = choose_cells(o, &map);
	if (!ret) {
		map.cell = calloc((size_t)map.rows * map.columns,
				  sizeof(*map.cell));
		if (!map.cell)
			ret = failure(o, "out of memory");
	}
	if (!ret && look_at_all(&map, field, (double)seconds))
		ret = library_failure(o);
	if (!ret)
		ret = show(o, &map);
	free(map.cell);
	mmnf_field_close(field);
	return ret;
}
