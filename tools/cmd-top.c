// SPDX-License-Identifier: MIT
/*
 * mmnf top: what goes on in all fields, those attached to the kernel and those
 * open in processes: live, once, or for Prometheus.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tool.h"
#include "top.h"

#define SECONDS 1.0

static void wait_for(double seconds)
{
	struct timespec t = { (time_t)seconds,
			      (long)((seconds - (double)(time_t)seconds) *
				     1e9) };

	nanosleep(&t, NULL);
}

/* Whole or not at all: collectors read it at any time. */
static int write_prometheus(const struct options *o, const struct top *top)
{
	char name[4096];
	struct stat st;
	FILE *to;
	int fd;

	if (!strcmp(o->prometheus, "-")) {
		top_prometheus(top, stdout);
		return EXIT_SUCCESS;
	}
	if (snprintf(name, sizeof(name), "%s.XXXXXX", o->prometheus) >=
	    (int)sizeof(name))
		return usage_error(o, "--prometheus: the name is too long");
	/* A device is nothing to put a file in place of. */
	if (!lstat(o->prometheus, &st) && !S_ISREG(st.st_mode))
		return failure(o, "%s: expected a regular file", o->prometheus);
	fd = mkstemp(name);
	to = fd < 0 ? NULL : fdopen(fd, "w");
	if (!to)
		return failure(o, "%s: %s", name, strerror(errno));
	top_prometheus(top, to);
	fchmod(fd, 0644);
	if (ferror(to) | fclose(to) || rename(name, o->prometheus)) {
		unlink(name);
		return failure(o, "%s: %s", o->prometheus, strerror(errno));
	}
	return EXIT_SUCCESS;
}

static int show(const struct options *o, const struct top *now,
		const struct top *before)
{
	if (o->prometheus)
		return write_prometheus(o, now);
	if (o->json) {
		json_t *all = top_json(now, before);

		if (!all)
			return failure(o, "out of memory");
		json_dumpf(all, stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(all);
	} else {
		top_print(now, before, stdout);
	}
	return fflush(stdout) ? failure(o, "%s", strerror(errno)) :
				EXIT_SUCCESS;
}

/* A sample, or one every so often until a signal comes. */
static int print_samples(const struct options *o, double seconds, bool once)
{
	struct top now = { 0 }, before = { 0 };
	int ret = EXIT_SUCCESS;

	do {
		top_free(&before);
		before = now;
		if (!top_collect(&now))
			return failure(o, "out of memory");
		ret = show(o, &now, before.at_ns ? &before : NULL);
		if (!ret && !once)
			wait_for(seconds);
	} while (!ret && !once);
	top_free(&now);
	top_free(&before);
	return ret;
}

int cmd_top(const struct options *o)
{
	double seconds = SECONDS;
	char *end;

	if (o->seconds) {
		seconds = strtod(o->seconds, &end);
		if (end == o->seconds || *end || !(seconds >= 0.1) ||
		    seconds > 86400)
			return usage_error(
				o, "--seconds %s: expected 0.1 to 86400",
				o->seconds);
	}
	if (o->once || o->json || o->prometheus || !isatty(STDOUT_FILENO) ||
	    !isatty(STDIN_FILENO))
		return print_samples(o, seconds,
				     o->once ||
					     (o->prometheus && !o->seconds) ||
					     (!o->json && !o->prometheus));
	return top_screen(o, seconds);
}
