// SPDX-License-Identifier: MIT
/*
 * Results of a benchmark as pictures, drawn by gnuplot.
 *
 *	times		a panel per device, a row per case, a dot per engine on a
 *			logarithmic scale: the further left, the faster
 *	timeline	file offset over time: each read a bar from when it was
 *			started to when it was done, each fault a dot at its end
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "bench.h"
#include "tool.h"

#define PANEL_COLUMNS 2
#define ROW_PIXELS 21
#define PANEL_PIXELS 620
/* Title and axis of a panel; names of its rows; the key below all panels. */
#define FRAME_PIXELS 100
#define LABEL_PIXELS 185.0
#define KEY_PIXELS 75

/* Okabe and Ito's palette: told apart by everybody. */
static const struct look {
	const char *engine, *colour;
	int point;
	double size;
} looks[] = {
	{ "default", "#999999", 6, 0.8 },
	{ "madv_random", "#E69F00", 8, 0.8 },
	{ "madv_sequential", "#CC79A7", 10, 0.8 },
	{ "off", "#BBBBBB", 1, 0.7 },
	{ "willneed", "#56B4E9", 4, 0.8 },
	{ "willneed-causal", "#0072B2", 12, 0.8 },
	{ "uring", "#000000", 2, 0.8 },
	{ "mmnf", "#D55E00", 7, 0.9 },
	{ "mmnf-told", "#009E73", 5, 0.8 },
};

#define NR_LOOKS (sizeof(looks) / sizeof(looks[0]))

static struct look look_of(const char *engine, unsigned int number)
{
	size_t i;

	for (i = 0; i < NR_LOOKS; i++)
		if (!strcmp(looks[i].engine, engine))
			return looks[i];
	return (struct look) { engine, looks[number % NR_LOOKS].colour,
			       (int)(number % 14) + 1, 0.8 };
}

/* In single quotes; gnuplot's enhanced text is off. */
static void put_text(FILE *to, const char *text)
{
	fputc('\'', to);
	for (; *text; text++) {
		if (*text == '\'')
			fputc('\'', to);
		fputc(*text, to);
	}
	fputc('\'', to);
}

static bool ends_with(const char *text, const char *tail)
{
	size_t n = strlen(text), t = strlen(tail);

	return n >= t && !strcmp(text + n - t, tail);
}

static void put_terminal(FILE *to, const char *out, unsigned int width,
			 unsigned int height)
{
	fprintf(to, "set terminal %s size %u,%u noenhanced font 'Sans,%d'\n",
		ends_with(out, ".png") ? "pngcairo" :
					 "svg background rgb 'white'",
		width, height, 11);
	fprintf(to, "set output ");
	put_text(to, out);
	fprintf(to, "\n");
}

static bool is_measured(const struct bench *b, unsigned int d, unsigned int c)
{
	unsigned int e;

	for (e = 0; e < b->engines.nr; e++)
		if (b->ns[d][c][e] > 0)
			return true;
	return false;
}

static unsigned int rows_of(const struct bench *b, unsigned int d)
{
	unsigned int c, nr = 0;

	for (c = 0; c < b->cases.nr; c++)
		nr += is_measured(b, d, c);
	return nr;
}

/* A panel's points, a block per engine: microseconds and row. */
static void put_points(FILE *to, const struct bench *b, unsigned int d)
{
	unsigned int c, e, row;

	for (e = 0; e < b->engines.nr; e++) {
		fprintf(to, "$points_%u_%u << EOD\n", d, e);
		for (c = 0, row = 0; c < b->cases.nr; c++) {
			if (!is_measured(b, d, c))
				continue;
			row++;
			if (b->ns[d][c][e] > 0)
				fprintf(to, "%g %u\n", b->ns[d][c][e] / 1000,
					row);
		}
		/* A block without points would end the plot. */
		fprintf(to, "NaN NaN\nEOD\n");
	}
}

static void put_panel(FILE *to, const struct bench *b, unsigned int d)
{
	unsigned int c, e, row = 0;

	put_points(to, b, d);
	fprintf(to, "set title ");
	put_text(to, b->devices.name[d]);
	fprintf(to, " font ',13'\nset yrange [%u.7:0.3]\nset ytics scale 0 (",
		rows_of(b, d));
	for (c = 0; c < b->cases.nr; c++) {
		if (!is_measured(b, d, c))
			continue;
		fprintf(to, "%s", row++ ? ", " : "");
		put_text(to, b->cases.name[c]);
		fprintf(to, " %u", row);
	}
	fprintf(to, ")\nplot ");
	for (e = 0; e < b->engines.nr; e++) {
		struct look look = look_of(b->engines.name[e], e);

		fprintf(to,
			"%s$points_%u_%u using 1:2 with points pt %d ps %g "
			"lw 1.5 lc rgb '%s' title ",
			e ? ", " : "", d, e, look.point, look.size,
			look.colour);
		put_text(to, b->engines.name[e]);
	}
	fprintf(to, "\n");
}

static void put_times(FILE *to, const struct bench *b, const char *out)
{
	unsigned int columns, lines, most = 0, d, width, height, panel;

	columns = b->devices.nr < PANEL_COLUMNS ? b->devices.nr : PANEL_COLUMNS;
	lines = (b->devices.nr + columns - 1) / columns;
	for (d = 0; d < b->devices.nr; d++)
		if (rows_of(b, d) > most)
			most = rows_of(b, d);
	panel = most * ROW_PIXELS + FRAME_PIXELS;
	width = columns * PANEL_PIXELS;
	height = lines * panel + KEY_PIXELS;
	put_terminal(to, out, width, height);
	fprintf(to,
		"set multiplot layout %u,%u margins screen %g, screen %g, "
		"screen %g, screen %g spacing screen %g, screen %g\n",
		lines, columns, LABEL_PIXELS / width, 1 - 20.0 / width,
		(KEY_PIXELS + 50.0) / height, 1 - 40.0 / height,
		(LABEL_PIXELS + 20) / width, (FRAME_PIXELS - 5.0) / height);
	fprintf(to,
		"set logscale x\nset grid xtics mxtics ytics lt 1 lw 0.5 lc rgb "
		"'#dddddd'\nset border 1 lc rgb '#888888'\n"
		"set xtics nomirror textcolor rgb 'black'\n"
		"set ytics textcolor rgb 'black'\nset format x '%%g'\n"
		"set key at screen 0.5, screen %g center center horizontal "
		"samplen 1\n",
		KEY_PIXELS / 2.0 / height);
	fprintf(to, "set xlabel 'us per touch, %s time (less is better)'\n",
		b->clock);
	for (d = 0; d < b->devices.nr; d++) {
		put_panel(to, b, d);
		fprintf(to, "unset key\n");
	}
	fprintf(to, "unset multiplot\n");
}

static const struct {
	const char *what, *title, *style;
} kinds[] = {
	{ "read", "read: from start to end",
	  "using 1:2:($3-$1):(0) with vectors nohead lw 1.6 lc rgb '#9ecae9'" },
	{ "hit", "fault: resident",
	  "with points pt 7 ps 0.35 lc rgb '#009E73'" },
	{ "late", "fault: being read",
	  "with points pt 7 ps 0.6 lc rgb '#E69F00'" },
	{ "miss", "fault: absent", "with points pt 7 ps 0.8 lc rgb '#D50000'" },
};

#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void put_timeline(FILE *to, const struct bench *b, const char *out)
{
	double least = b->event[0].at_ns;
	size_t i, k;

	for (i = 0; i < b->nr_events; i++)
		if (b->event[i].at_ns < least)
			least = b->event[i].at_ns;
	for (k = 0; k < NR_KINDS; k++) {
		fprintf(to, "$%s << EOD\n", kinds[k].what);
		for (i = 0; i < b->nr_events; i++) {
			const struct bench_event *e = &b->event[i];

			if (strcmp(e->what, kinds[k].what))
				continue;
			fprintf(to, "%.6f %.6f %.6f\n",
				(e->at_ns - least) / 1e6, e->pos / (1 << 20),
				(e->end_ns - least) / 1e6);
		}
		fprintf(to, "NaN NaN NaN\nEOD\n");
	}
	put_terminal(to, out, 1240, 620);
	fprintf(to, "set title 'Faults and reads of %s, %s time'\n",
		b->timeline, b->clock);
	fprintf(to, "set xlabel 'time, ms'\nset ylabel 'offset in the file, "
		    "MiB'\n"
		    "set grid lt 1 lw 0.5 lc rgb '#dddddd'\n"
		    "set border 3 lc rgb '#888888'\nset tics nomirror\n"
		    "set key outside top right\nplot ");
	for (k = 0; k < NR_KINDS; k++)
		fprintf(to, "%s$%s %s title '%s'", k ? ", " : "", kinds[k].what,
			kinds[k].style, kinds[k].title);
	fprintf(to, "\n");
}

/* "a/b.jsonl" becomes "a/b.svg" unless the name is given. */
static char *name_of(const struct options *o, const char *path)
{
	size_t len = strlen(path);
	char *name;

	if (o->out)
		return strdup(o->out);
	if (ends_with(path, ".jsonl"))
		len -= strlen(".jsonl");
	return asprintf(&name, "%.*s.svg", (int)len, path) < 0 ? NULL : name;
}

int bench_plot(const struct options *o, const char *path, const struct bench *b)
{
	char *name = name_of(o, path);
	FILE *to;
	int status, ret = EXIT_SUCCESS;

	if (!name)
		return failure(o, "%s", strerror(ENOMEM));
	if (!ends_with(name, ".svg") && !ends_with(name, ".png")) {
		ret = usage_error(o, "--out %s: expected .svg or .png", name);
		free(name);
		return ret;
	}
	signal(SIGPIPE, SIG_IGN);
	to = popen("gnuplot", "we");
	if (!to) {
		ret = failure(o, "gnuplot: %s", strerror(errno));
		free(name);
		return ret;
	}
	if (b->nr_events)
		put_timeline(to, b, name);
	else
		put_times(to, b, name);
	status = pclose(to);
	if (status == 127 << 8)
		ret = failure(o, "gnuplot is not installed");
	else if (status)
		ret = failure(o, "gnuplot ended with status %d", status);
	else
		printf("%s\n", name);
	free(name);
	return ret;
}
