// SPDX-License-Identifier: MIT
/*
 * A map in the terminal: two cells a character where there are colours, one
 * letter a cell where there are none.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "map.h"
#include "tool.h"

#define LABEL 14

static bool true_colours(void)
{
	const char *term = getenv("COLORTERM");

	return term && (strstr(term, "truecolor") || strstr(term, "24bit"));
}

/* Select graphic rendition of a colour: 38 before, 48 behind. */
static void put_colour(unsigned int which, struct map_colour c)
{
	if (true_colours())
		printf("\033[%u;2;%.0f;%.0f;%.0fm", which, c.red * 255,
		       c.green * 255, c.blue * 255);
	else
		printf("\033[%u;5;%.0fm", which,
		       16 + 36 * (double)(int)(c.red * 5 + 0.5) +
			       6 * (double)(int)(c.green * 5 + 0.5) +
			       (double)(int)(c.blue * 5 + 0.5));
}

static void put_reset(bool colours)
{
	if (colours)
		printf("\033[0m");
}

static char letter(const struct map_cell *c)
{
	double seen = c->hot_bytes + c->warm_bytes + c->cold_bytes;

	if (seen <= 0)
		return ' ';
	if (c->hot_bytes > 0)
		return c->hot_bytes / seen > 0.5 ? '#' : '+';
	if (c->warm_bytes > 0)
		return c->warm_bytes / seen > 0.5 ? 'o' : '-';
	return '.';
}

/* The position where a row of cells begins, every few rows. */
static void put_label(const struct map *map, unsigned int row,
		      unsigned int every)
{
	int axis = map_row_axis(map);
	uint64_t at;

	if (axis < 0 || row % every) {
		printf("%*s ", LABEL, "");
		return;
	}
	at = map->box.start[axis] +
	     map_edge(map->box.count[axis], row, map->rows) *
		     (uint64_t)map->box.step[axis];
	printf("%*" PRIu64 " ", LABEL, at);
}

static void put_columns(const struct map *map)
{
	int axis = map_column_axis(map);
	uint64_t first = map->box.start[axis];
	uint64_t last = first + (map->box.count[axis] - 1) *
					(uint64_t)map->box.step[axis];
	char text[24];
	int room;

	snprintf(text, sizeof(text), "%" PRIu64, last);
	room = (int)map->columns - (int)strlen(text);
	printf("%*s %-*" PRIu64 "%s\n", LABEL, "", room > 1 ? room : 1, first,
	       room > 1 ? text : "");
}

static void put_patch(bool colours, struct map_colour c, const char *letters,
		      const char *name)
{
	if (colours) {
		put_colour(48, c);
		printf("  ");
		put_reset(true);
		printf(" %s   ", name);
	} else {
		printf("%s %s   ", letters, name);
	}
}

static void put_legend(const struct map *map, bool colours)
{
	struct map_cell sum = map_total(map);
	char text[200], bytes[3][16];

	human_bytes((uint64_t)sum.hot_bytes, bytes[0]);
	human_bytes((uint64_t)sum.warm_bytes, bytes[1]);
	human_bytes((uint64_t)sum.cold_bytes, bytes[2]);
	printf("%*s ", LABEL, "");
	snprintf(text, sizeof(text), "hot %s", bytes[0]);
	put_patch(colours, map_hot(1), "#+", text);
	snprintf(text, sizeof(text), "warm %s", bytes[1]);
	put_patch(colours, map_warm(1), "o-", text);
	snprintf(text, sizeof(text), "cold %s", bytes[2]);
	put_patch(colours, map_cold(), ".", text);
	map_caption(map, text, sizeof(text));
	printf("\n%*s %s\n", LABEL, "", text);
}

void map_print(const struct map *map, bool colours)
{
	unsigned int row, column, step = colours ? 2 : 1;

	printf("%*s %s: %s%s\n", LABEL, "", map->field,
	       map->info.ndim > 1 ? "axis 0 down, axis 1 across" : "axis 0",
	       map->info.ndim > 2 ? ", all of the axes behind them" : "");
	put_columns(map);
	for (row = 0; row < map->rows; row += step) {
		const struct map_cell *upper = &map->cell[row * map->columns];
		const struct map_cell *lower =
			row + 1 < map->rows ? upper + map->columns : NULL;

		put_label(map, row, 4 * step);
		for (column = 0; column < map->columns; column++) {
			if (!colours) {
				putchar(letter(&upper[column]));
				continue;
			}
			put_colour(38, map_colour(&upper[column]));
			if (lower)
				put_colour(48, map_colour(&lower[column]));
			printf("\u2580");
		}
		put_reset(colours);
		putchar('\n');
	}
	put_legend(map, colours);
}
