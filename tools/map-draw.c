// SPDX-License-Identifier: MIT
/*
 * A map as a picture, by cairo: cells, both axes with numbers, a legend.
 */
#include <cairo-svg.h>
#include <cairo.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "map.h"
#include "tool.h"

#define LEFT 130.0
#define RIGHT 40.0
#define TOP 70.0
#define BOTTOM 130.0
#define PLOT_WIDTH 768.0
#define PLOT_HEIGHT 576.0
#define TICKS 5
#define FONT "sans-serif"

static void set_colour(cairo_t *cr, struct map_colour c)
{
	cairo_set_source_rgb(cr, c.red, c.green, c.blue);
}

static void ink(cairo_t *cr)
{
	cairo_set_source_rgb(cr, 0.15, 0.17, 0.20);
}

/* Text whose left, middle or right (0, 0.5, 1) is at x. */
static void put_text(cairo_t *cr, double x, double y, double size,
		     double anchor, const char *text)
{
	cairo_text_extents_t extents;

	cairo_set_font_size(cr, size);
	cairo_text_extents(cr, text, &extents);
	cairo_move_to(cr, x - anchor * extents.x_advance, y);
	cairo_show_text(cr, text);
}

/* 1234567 as "1,234,567". */
static void grouped(uint64_t number, char text[32])
{
	char digits[24];
	size_t len, i, to = 0;

	len = (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, number);
	for (i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			text[to++] = ',';
		text[to++] = digits[i];
	}
	text[to] = 0;
}

static void put_cells(cairo_t *cr, const struct map *map, double height)
{
	double w = PLOT_WIDTH / map->columns, h = height / map->rows;
	unsigned int row, column;

	/* Cells meet at whole pixels or at sharp edges, never half seen. */
	cairo_set_antialias(cr, CAIRO_ANTIALIAS_NONE);
	for (row = 0; row < map->rows; row++)
		for (column = 0; column < map->columns; column++) {
			double x = round(LEFT + column * w);
			double y = round(TOP + row * h);

			set_colour(cr,
				   map_colour(&map->cell[row * map->columns +
							 column]));
			cairo_rectangle(cr, x, y,
					round(LEFT + (column + 1) * w) - x,
					round(TOP + (row + 1) * h) - y);
			cairo_fill(cr);
		}
	cairo_set_antialias(cr, CAIRO_ANTIALIAS_DEFAULT);
	ink(cr);
	cairo_set_line_width(cr, 1);
	cairo_rectangle(cr, LEFT - 0.5, TOP - 0.5, PLOT_WIDTH + 1, height + 1);
	cairo_stroke(cr);
}

static uint64_t position(const struct map *map, int axis, unsigned int tick)
{
	uint64_t i = map_edge(map->box.count[axis], tick, TICKS - 1);

	/* The last tick names the last position. */
	if (i == map->box.count[axis])
		i--;
	return map->box.start[axis] + i * (uint64_t)map->box.step[axis];
}

static void put_axes(cairo_t *cr, const struct map *map, double height)
{
	int row_axis = map_row_axis(map), column_axis = map_column_axis(map);
	char text[64];
	unsigned int i;

	ink(cr);
	for (i = 0; i < TICKS; i++) {
		double x = LEFT + PLOT_WIDTH * i / (TICKS - 1);
		double y = TOP + height * i / (TICKS - 1);

		grouped(position(map, column_axis, i), text);
		cairo_move_to(cr, x, TOP + height + 1);
		cairo_line_to(cr, x, TOP + height + 6);
		cairo_stroke(cr);
		put_text(cr, x, TOP + height + 20, 12, 0.5, text);
		if (row_axis < 0)
			continue;
		grouped(position(map, row_axis, i), text);
		cairo_move_to(cr, LEFT - 6, y);
		cairo_line_to(cr, LEFT - 1, y);
		cairo_stroke(cr);
		put_text(cr, LEFT - 10, y + 4, 12, 1, text);
	}
	snprintf(text, sizeof(text), "axis %d", column_axis);
	put_text(cr, LEFT + PLOT_WIDTH / 2, TOP + height + 40, 13, 0.5, text);
	if (row_axis < 0)
		return;
	cairo_save(cr);
	cairo_translate(cr, 22, TOP + height / 2);
	cairo_rotate(cr, -M_PI / 2);
	put_text(cr, 0, 0, 13, 0.5, "axis 0");
	cairo_restore(cr);
}

static void put_title(cairo_t *cr, const struct map *map)
{
	char text[512], caption[200];
	size_t used = 0;
	uint32_t i;

	ink(cr);
	used = (size_t)snprintf(text, sizeof(text), "%.200s  [", map->field);
	for (i = 0; i < map->info.ndim; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used,
					 "%s%" PRIu64, i ? ", " : "",
					 map->info.shape[i]);
	snprintf(text + used, sizeof(text) - used, "] %s",
		 mmnf_dtype_name(map->info.dtype));
	put_text(cr, LEFT, 32, 17, 0, text);
	map_caption(map, caption, sizeof(caption));
	cairo_set_source_rgb(cr, 0.40, 0.43, 0.48);
	put_text(cr, LEFT, 54, 12, 0, caption);
}

/* A bar from a trace of it to all of it, with its name and bytes. */
static void put_bar(cairo_t *cr, double x, double y,
		    struct map_colour (*colour)(double share), const char *name,
		    double bytes)
{
	const double width = 150, height = 12;
	char text[64], size[16];
	unsigned int i;

	for (i = 0; i < 60; i++) {
		double share = pow(10, -4 + 4.0 * i / 59);

		set_colour(cr, colour(share));
		cairo_rectangle(cr, x + width * i / 60, y, width / 60 + 0.5,
				height);
		cairo_fill(cr);
	}
	ink(cr);
	human_bytes((uint64_t)bytes, size);
	snprintf(text, sizeof(text), "%s  %s", name, size);
	put_text(cr, x, y - 6, 12, 0, text);
	put_text(cr, x, y + height + 14, 10, 0, "0.01 %");
	put_text(cr, x + width, y + height + 14, 10, 1, "100 % of a cell");
}

static void put_legend(cairo_t *cr, const struct map *map, double height)
{
	struct map_cell sum = map_total(map);
	double y = TOP + height + 78;
	char text[64], size[16];

	put_bar(cr, LEFT, y, map_hot, "hot", sum.hot_bytes);
	put_bar(cr, LEFT + 210, y, map_warm, "warm", sum.warm_bytes);
	set_colour(cr, map_cold());
	cairo_rectangle(cr, LEFT + 420, y, 40, 12);
	cairo_fill(cr);
	ink(cr);
	human_bytes((uint64_t)sum.cold_bytes, size);
	snprintf(text, sizeof(text), "cold, or never written  %s", size);
	put_text(cr, LEFT + 420, y - 6, 12, 0, text);
}

static void paint(cairo_t *cr, const struct map *map, double height)
{
	cairo_set_source_rgb(cr, 1, 1, 1);
	cairo_paint(cr);
	cairo_select_font_face(cr, FONT, CAIRO_FONT_SLANT_NORMAL,
			       CAIRO_FONT_WEIGHT_NORMAL);
	put_title(cr, map);
	put_cells(cr, map, height);
	put_axes(cr, map, height);
	put_legend(cr, map, height);
}

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), tail = strlen(end);

	return len > tail && !strcmp(text + len - tail, end);
}

int map_draw(const struct options *o, const struct map *map, const char *out)
{
	double height = map_row_axis(map) < 0 ? 80 : PLOT_HEIGHT;
	double width = LEFT + PLOT_WIDTH + RIGHT;
	bool svg = ends_with(out, ".svg");
	cairo_surface_t *surface;
	cairo_status_t status;
	cairo_t *cr;

	if (!svg && !ends_with(out, ".png"))
		return usage_error(o, "--out %s: expected .png or .svg", out);
	surface =
		svg ? cairo_svg_surface_create(out, width,
					       TOP + height + BOTTOM) :
		      cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)width,
						 (int)(TOP + height + BOTTOM));
	cr = cairo_create(surface);
	paint(cr, map, height);
	status = cairo_status(cr);
	cairo_destroy(cr);
	if (!status && !svg)
		status = cairo_surface_write_to_png(surface, out);
	cairo_surface_finish(surface);
	if (!status)
		status = cairo_surface_status(surface);
	cairo_surface_destroy(surface);
	if (status)
		return failure(o, "%s: %s", out,
			       cairo_status_to_string(status));
	return EXIT_SUCCESS;
}
