// SPDX-License-Identifier: MIT
/*
 * mmnf top in a terminal, by ncurses.
 *
 *	title: time, counts, memory
 *	a row per field: who, a bar of hits, late and misses, rates, latency
 *	below it, with t, a line per stream: its loops, and how far ahead
 *	keys
 */
#include <inttypes.h>
#include <locale.h>
#include <ncurses.h>
#include <string.h>
#include <time.h>

#include "tool.h"
#include "top.h"

#define BAR 12
/* Columns from which on there is room for more of them. */
#define MIDDLE 96
#define WIDE 126
#define NAME_MOST 60

enum { GOOD = 1, FAIR, BAD, HEAD, DIM };

/**
 * struct screen - what is shown, and how
 * @first: the first field shown
 * @order: how rows are sorted: by name, or the busiest first
 */
struct screen {
	struct top now, before;
	double seconds;
	bool streams, busiest;
	unsigned int first;
	int line;
};

static void put_colour(int colour, bool on)
{
	if (has_colors()) {
		if (on)
			attron(COLOR_PAIR(colour));
		else
			attroff(COLOR_PAIR(colour));
	}
}

static void put_title(const struct screen *s)
{
	char memory[16], available[16], cached[16], clock[16];
	unsigned int kernel = 0, i;
	time_t t = time(NULL);
	struct tm local;

	for (i = 0; i < s->now.nr_fields; i++)
		kernel += s->now.field[i].is_kernel;
	strftime(clock, sizeof(clock), "%H:%M:%S", localtime_r(&t, &local));
	human_bytes(s->now.memory_bytes, memory);
	human_bytes(s->now.available_bytes, available);
	human_bytes(s->now.cached_bytes, cached);
	attron(A_BOLD);
	mvprintw(0, 0, "mmnf top");
	attroff(A_BOLD);
	printw("  %s   every %g s   %u attached to the kernel, %u open in %u "
	       "process%s",
	       clock, s->seconds, kernel, s->now.nr_fields - kernel,
	       s->now.nr_processes, s->now.nr_processes == 1 ? "" : "es");
	mvprintw(1, 0, "memory %s, %s available, %s page cache", memory,
		 available, cached);
}

/* As many characters of it as its share, at least one if it is not nothing. */
static void put_bar(const struct top_row *row)
{
	const double shares[3] = { row->hit, row->late, row->miss };
	const int colours[3] = { GOOD, FAIR, BAD };
	const char *letters = "#+!";
	int width[3], left = BAR, i, n;

	for (i = 2; i >= 0; i--) {
		width[i] = (int)(shares[i] * BAR + 0.5);
		if (shares[i] > 0 && !width[i])
			width[i] = 1;
		if (width[i] > left || (!i && shares[0] > 0))
			width[i] = left;
		left -= width[i];
	}
	for (i = 0; i < 3; i++) {
		put_colour(colours[i], true);
		if (has_colors())
			attron(A_REVERSE);
		for (n = 0; n < width[i]; n++)
			addch(has_colors() ? ' ' : (chtype)letters[i]);
		if (has_colors())
			attroff(A_REVERSE);
		put_colour(colours[i], false);
	}
	for (n = 0; n < left; n++)
		addch('.');
}

/* The end of a long name says more than its beginning. */
static void put_name(const char *name, int width)
{
	int len = (int)strlen(name);

	if (len <= width)
		printw("%-*s", width, name);
	else
		printw("..%s", name + len - (width - 2));
}

/* What the other columns leave. */
static int name_width(void)
{
	int rest = 15 + BAR + 1 + 4 * 5 + 13;

	if (COLS >= MIDDLE)
		rest += 8 + 10;
	if (COLS >= WIDE)
		rest += 13 + 9 + 9;
	return COLS - rest < 12	       ? 12 :
	       COLS - rest > NAME_MOST ? NAME_MOST :
					 COLS - rest;
}

static void put_head(void)
{
	put_colour(HEAD, true);
	attron(A_BOLD);
	mvprintw(3, 0, "%-*s %-14s", name_width(), "FIELD", "WHO");
	if (COLS >= MIDDLE)
		printw(" %-7s", "ENGINE");
	printw(" %-*s  HIT LATE MISS WAST", BAR, "");
	if (COLS >= MIDDLE)
		printw(" %9s", "ACCESSES");
	printw(" %12s", "READ AHEAD");
	if (COLS >= WIDE)
		printw(" %12s %8s %8s", "COPIED", "p50", "p99");
	clrtoeol();
	attroff(A_BOLD);
	put_colour(HEAD, false);
}

/* Few are not none, and nearly all are not all. */
static void put_share(double share)
{
	if (share > 0 && share < 0.005)
		printw("  <1%%");
	else if (share < 1 && share >= 0.995)
		printw(" >99%%");
	else
		printw(" %3.0f%%", share * 100);
}

static void put_percent(double share, double bad_from)
{
	int colour = share >= bad_from ? BAD : share > 0 ? FAIR : DIM;

	put_colour(colour, true);
	put_share(share);
	put_colour(colour, false);
}

static void put_field(struct screen *s, const struct top_field *f)
{
	struct top_row row;
	char who[48];

	top_row(&s->now, s->before.at_ns ? &s->before : NULL, f, &row);
	if (f->is_kernel)
		snprintf(who, sizeof(who), "kernel");
	else
		snprintf(who, sizeof(who), "%.7s %d", f->command, f->pid);
	move(s->line++, 0);
	put_name(f->name, name_width());
	printw(" %-14.14s ", who);
	if (COLS >= MIDDLE)
		printw("%-7.7s ", f->engine);
	put_bar(&row);
	put_share(row.hit);
	put_percent(row.late, 0.5);
	put_percent(row.miss, 0.5);
	put_percent(row.wasted, 0.2);
	if (COLS >= MIDDLE)
		printw(" %9s", row.accesses);
	printw(" %12s", row.ahead);
	if (COLS >= WIDE)
		printw(" %12s %8s %8s", row.got, row.half, row.most);
	clrtoeol();
}

static void put_shape(struct screen *s, const struct top_field *f)
{
	char shape[96], tier[64], gpu[256], size[16], pending[16];
	unsigned int i;

	top_tier(f, tier, sizeof(tier));
	top_shape(f, shape, sizeof(shape));
	human_bytes(f->total_bytes, size);
	human_bytes(f->counts.pending_pages * f->page_bytes, pending);
	put_colour(DIM, true);
	mvprintw(s->line++, 2, "%s, %s; %s; %s read ahead and waiting%s", shape,
		 size, tier, pending,
		 f->has_streams ? "" : "; its streams are root's to see");
	clrtoeol();
	for (i = 0; i < f->nr_gpus && s->line < LINES - 1; i++) {
		top_gpu(&f->gpu[i], gpu, sizeof(gpu));
		mvprintw(s->line++, 2, "%.*s", COLS - 2, gpu);
		clrtoeol();
	}
	put_colour(DIM, false);
}

static void put_stream(struct screen *s,
		       const struct mmnf_published_stream *stream)
{
	char nest[160], at[16];

	top_nest(stream, nest, sizeof(nest));
	human_bytes(stream->pos_bytes, at);
	mvprintw(s->line++, 4,
		 "%" PRIu64 "@%" PRIx64 "  at %s, %u of %u ahead: %.*s",
		 stream->thread, stream->ip, at, stream->ahead, stream->depth,
		 COLS > 60 ? COLS - 60 : 20, nest);
	clrtoeol();
}

static double busy(const struct screen *s, const struct top_field *f)
{
	const struct top_field *b = top_find(&s->before, f->key);

	return (double)(f->counts.accesses + f->counts.gets) -
	       (b ? (double)(b->counts.accesses + b->counts.gets) : 0);
}

static void sort_busiest(struct screen *s)
{
	struct top_field *field = s->now.field, kept;
	unsigned int i, j;

	for (i = 1; i < s->now.nr_fields; i++) {
		kept = field[i];
		for (j = i; j && busy(s, &field[j - 1]) < busy(s, &kept); j--)
			field[j] = field[j - 1];
		field[j] = kept;
	}
}

static void draw(struct screen *s)
{
	unsigned int i, j;

	erase();
	put_title(s);
	put_head();
	s->line = 4;
	if (s->busiest)
		sort_busiest(s);
	for (i = s->first; i < s->now.nr_fields && s->line < LINES - 1; i++) {
		const struct top_field *f = &s->now.field[i];

		put_field(s, f);
		if (!s->streams)
			continue;
		if (s->line < LINES - 1)
			put_shape(s, f);
		for (j = 0; j < f->nr_streams && s->line < LINES - 1; j++)
			put_stream(s, &f->stream[j]);
	}
	if (!s->now.nr_fields)
		mvprintw(5, 2,
			 "No field is attached or open in a process that "
			 "this user may look into.");
	put_colour(DIM, true);
	mvprintw(LINES - 1, 0,
		 "q quit   t streams   s %s   + - interval   up down scroll",
		 s->busiest ? "by name" : "busiest first");
	put_colour(DIM, false);
	refresh();
}

static void set_up(void)
{
	setlocale(LC_ALL, "");
	cbreak();
	noecho();
	keypad(stdscr, TRUE);
	curs_set(0);
	if (!has_colors())
		return;
	start_color();
	use_default_colors();
	init_pair(GOOD, COLOR_GREEN, -1);
	init_pair(FAIR, COLOR_YELLOW, -1);
	init_pair(BAD, COLOR_RED, -1);
	init_pair(HEAD, COLOR_CYAN, -1);
	init_pair(DIM, COLORS > 8 ? 244 : COLOR_WHITE, -1);
}

/* False: end. */
static bool obey(struct screen *s, int key)
{
	switch (key) {
	case 'q':
	case 3: /* Ctrl-C where it is no signal */
		return false;
	case 't':
		s->streams = !s->streams;
		break;
	case 's':
		s->busiest = !s->busiest;
		break;
	case '+':
		s->seconds *= 2;
		break;
	case '-':
		s->seconds = s->seconds > 0.25 ? s->seconds / 2 : 0.25;
		break;
	case KEY_DOWN:
		s->first += s->first + 1 < s->now.nr_fields;
		break;
	case KEY_UP:
		s->first -= s->first > 0;
		break;
	default:
		break;
	}
	return true;
}

int top_screen(const struct options *o, double seconds)
{
	struct screen s = { .seconds = seconds, .streams = true };
	SCREEN *terminal = newterm(NULL, stdout, stdin);
	struct timespec now;
	int64_t left_ms;
	bool ok = true;
	int key;

	if (!terminal)
		return failure(o, "this terminal cannot be used: try --once");
	set_up();
	while (ok) {
		top_free(&s.before);
		s.before = s.now;
		ok = top_collect(&s.now);
		if (!ok)
			break;
		if (s.first >= s.now.nr_fields)
			s.first = 0;
		draw(&s);
		do {
			clock_gettime(CLOCK_MONOTONIC, &now);
			left_ms = (int64_t)(s.seconds * 1e3) -
				  ((int64_t)now.tv_sec * 1000 +
				   now.tv_nsec / 1000000 -
				   (int64_t)(s.now.at_ns / 1000000));
			timeout(left_ms > 0 ? (int)left_ms : 0);
			key = getch();
			if (key == ERR)
				break;
			if (!obey(&s, key)) {
				ok = false;
				break;
			}
			draw(&s);
		} while (left_ms > 0);
	}
	endwin();
	delscreen(terminal);
	top_free(&s.now);
	top_free(&s.before);
	return EXIT_SUCCESS;
}
