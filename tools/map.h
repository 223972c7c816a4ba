/* SPDX-License-Identifier: MIT */
/*
 * A map of where a field's bytes are, between who looks and who draws.
 */
#ifndef MMNF_MAP_H
#define MMNF_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include <mmnf.h>

struct options;

/* A cell, a rectangle over the first two axes; bytes of what was looked at. */
struct map_cell {
	double hot_bytes, warm_bytes, cold_bytes;
};

/**
 * struct map - a grid of cells over the first two axes of a box
 * @field: its name
 * @box: what is drawn
 * @ndim: of the field; 1: the axis lies along x, and there is one row
 * @rows, @columns: of cells; rows lie along axis 0, columns along axis 1
 * @cell: rows after rows
 * @sampled: share of the box's bytes that was looked at, 0 to 1
 * @knows_use: hot means used by anybody, not by this program alone
 */
struct map {
	const char *field;
	struct mmnf_field_info info;
	struct mmnf_box box;
	unsigned int rows, columns;
	struct map_cell *cell;
	double sampled;
	bool knows_use;
};

/* What is at cell @i of @n along a box's axis: [from, to) of its positions. */
static inline uint64_t map_edge(uint64_t count, unsigned int i, unsigned int n)
{
	return (uint64_t)((unsigned __int128)count * i / n);
}

/* The axis of rows, and that of columns; the field may have the latter alone. */
static inline int map_row_axis(const struct map *map)
{
	return map->info.ndim > 1 ? 0 : -1;
}

static inline int map_column_axis(const struct map *map)
{
	return map->info.ndim > 1 ? 1 : 0;
}

struct map_colour {
	double red, green, blue;
};

/*
 * Hot outshines warm, warm outshines cold: a share too small to be drawn true is
 * still seen.  Brightness grows with the fourth root of the share.
 */
struct map_colour map_colour(const struct map_cell *cell);

/* Colours of a cell that is hot, warm or cold by this share alone. */
struct map_colour map_hot(double share);
struct map_colour map_warm(double share);
struct map_colour map_cold(void);
struct map_colour map_unseen(void);

/* Sums over all cells. */
struct map_cell map_total(const struct map *map);

/* "looked at 12.5 % of 1.02 PB" and what hot and warm mean here. */
void map_caption(const struct map *map, char *text, size_t len);

/* Draws to the file, .png or .svg by its name; an exit status. */
int map_draw(const struct options *o, const struct map *map, const char *out);

/* Prints to stdout: in colours if @colours. */
void map_print(const struct map *map, bool colours);

#endif
