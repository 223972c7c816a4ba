// SPDX-License-Identifier: MIT
/*
 * mmnf record: the faults of a live field as a trace.
 *
 * The tracepoint mmnf_fault is read from a trace instance of our own, so nobody
 * else's tracing is touched, and it is removed at the end.  The geometry comes from
 * sysfs while the field is there.
 *
 * What is seen is what faults: pages that a fault maps around itself are not
 * touched again.  The gap of an access is known when the access before it did not
 * wait; else the last one known is written.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tool.h"
#include "trace.h"

#define FIELDS "/sys/class/misc/mmnf/fields"
#define BUFFER_KIB "8192" /* per processor: about 80,000 faults */
#define POLL_MS 50
#define LOOK_MS 1

/* Who faulted before, and when; threads share an entry only if there are many. */
struct before {
	uint64_t thread, ns, gap_ns;
	bool known, waited;
};

#define NR_BEFORE 1024

/* A field that may be gone when its first fault is read. */
struct seen {
	uint64_t id;
	struct trace_geometry geometry;
};

#define NR_SEEN 64

struct recorder {
	const struct options *o;
	char dir[128]; /* of the instance */
	uint64_t field, others; /* 0: none yet; faults of other fields */
	bool has_geometry;
	struct seen seen[NR_SEEN];
	struct trace trace;
	bool full;
	char line[1024];
	size_t len;
	struct before before[NR_BEFORE];
};

static volatile sig_atomic_t interrupted;

static void on_signal(int signal)
{
	(void)signal;
	interrupted = 1;
}

static const char *tracing(void)
{
	return access("/sys/kernel/debug/tracing/instances", F_OK) ?
		       "/sys/kernel/tracing" :
		       "/sys/kernel/debug/tracing";
}

static bool put(const char *dir, const char *name, const char *text)
{
	char path[256];
	bool good;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return false;
	good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return good;
}

/* The first line of a field's attribute, blanks as commas. */
static bool attribute(uint64_t id, const char *name, char *text, size_t size)
{
	char path[128], *at;
	FILE *from;

	snprintf(path, sizeof(path), FIELDS "/%" PRIu64 "/%s", id, name);
	from = fopen(path, "re");
	if (!from || !fgets(text, (int)size, from))
		text[0] = 0;
	if (from)
		fclose(from);
	text[strcspn(text, "\n")] = 0;
	for (at = text; *at; at++)
		*at = *at == ' ' ? ',' : *at;
	return text[0];
}

/* As the head of a trace, which its reader checks. */
static bool read_geometry(uint64_t id, struct trace_geometry *geometry)
{
	static const struct {
		const char *key, *name;
	} keys[] = {
		{ "file", "size_bytes" },
		{ "offset", "data_offset_bytes" },
		{ "element", "element_bytes" },
		{ "extent", "shape" },
		{ "stride", "stride_bytes" },
		{ "record", "record_bytes" },
	};
	char text[2048] = "", value[256], wrong[128];
	struct trace trace;
	size_t i, len = 0;
	bool good;
	FILE *from;

	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (!attribute(id, keys[i].name, value, sizeof(value)))
			return false;
		len += (size_t)snprintf(text + len, sizeof(text) - len,
					"%s %s\n", keys[i].key, value);
	}
	snprintf(text + len, sizeof(text) - len, "0 0 0\n");
	from = fmemopen(text, strlen(text), "r");
	if (!from)
		return false;
	good = trace_read(&trace, from, wrong, sizeof(wrong));
	fclose(from);
	*geometry = trace.geometry;
	trace_free(&trace);
	return good;
}

/* Notes the fields that are there, as long as none is chosen. */
static void look_at_fields(struct recorder *r)
{
	struct dirent *entry;
	DIR *dir = opendir(FIELDS);
	uint64_t id;

	while (dir && (entry = readdir(dir))) {
		struct seen *seen;

		if (!parse_u64(entry->d_name, &id))
			continue;
		seen = &r->seen[id % NR_SEEN];
		/* Numbers are used again: what is there now counts. */
		if (read_geometry(id, &seen->geometry))
			seen->id = id;
	}
	if (dir)
		closedir(dir);
}

static void choose_field(struct recorder *r, uint64_t id)
{
	const struct seen *seen = &r->seen[id % NR_SEEN];

	r->field = id;
	r->has_geometry = seen->id == id;
	if (r->has_geometry)
		r->trace.geometry = seen->geometry;
	else
		r->has_geometry = read_geometry(id, &r->trace.geometry);
}

static struct before *before_of(struct recorder *r, uint64_t thread)
{
	struct before *b = &r->before[thread % NR_BEFORE];

	if (b->thread != thread)
		memset(b, 0, sizeof(*b));
	b->thread = thread;
	return b;
}

/* ... SECONDS.MICROSECONDS: mmnf_fault: field=... */
static void note_line(struct recorder *r, char *line)
{
	uint64_t field, thread, ip, pos, seconds, micros, ns;
	char outcome[8], *at = strstr(line, ": mmnf_fault: field=");
	struct before *b;

	if (!at || sscanf(at,
			  ": mmnf_fault: field=%" SCNu64 " thread=%" SCNu64
			  " ip=0x%" SCNx64 " offset_bytes=%" SCNu64 " %7s",
			  &field, &thread, &ip, &pos, outcome) != 5)
		return;
	*at = 0;
	at = strrchr(line, ' ');
	if (!at || sscanf(at, " %" SCNu64 ".%" SCNu64, &seconds, &micros) != 2)
		return;
	ns = seconds * 1000000000 + micros * 1000;
	if (!r->field)
		choose_field(r, field);
	if (field != r->field) {
		r->others++;
		return;
	}
	b = before_of(r, thread);
	if (b->known && !b->waited && ns >= b->ns)
		b->gap_ns = ns - b->ns;
	if (!trace_add(&r->trace, thread, ip, pos, b->gap_ns))
		r->full = true;
	b->ns = ns;
	b->known = true;
	b->waited = strcmp(outcome, "hit") != 0;
}

/* Whatever has come through the pipe; false when nothing has. */
static bool drain(struct recorder *r, int pipe)
{
	ssize_t got =
		read(pipe, r->line + r->len, sizeof(r->line) - 1 - r->len);
	char *line = r->line, *end;

	if (got <= 0)
		return false;
	r->len += (size_t)got;
	r->line[r->len] = 0;
	while ((end = strchr(line, '\n'))) {
		*end = 0;
		note_line(r, line);
		line = end + 1;
	}
	r->len -= (size_t)(line - r->line);
	if (r->len == sizeof(r->line) - 1)
		r->len = 0; /* no line of ours is so long */
	memmove(r->line, line, r->len);
	return true;
}

/* Events that the kernel had no room for, of all processors. */
static uint64_t lost_events(const struct recorder *r)
{
	char path[512], line[128];
	struct dirent *entry;
	uint64_t lost = 0, n;
	FILE *from;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/per_cpu", r->dir);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/per_cpu/%s/stats", r->dir,
			 entry->d_name);
		from = fopen(path, "re");
		while (from && fgets(line, sizeof(line), from))
			if (sscanf(line, "overrun: %" SCNu64, &n) == 1 ||
			    sscanf(line, "dropped events: %" SCNu64, &n) == 1)
				lost += n;
		if (from)
			fclose(from);
	}
	if (dir)
		closedir(dir);
	return lost;
}

/* An instance that traces; 0 or an exit status. */
static int start_tracing(struct recorder *r, int *pipe)
{
	const struct options *o = r->o;
	const char *root = tracing();
	char path[256], filter[64];
	int ret;

	snprintf(path, sizeof(path), "%s/instances", root);
	if (access(path, F_OK))
		return failure(o,
			       errno == EACCES ?
				       "%s: tracing needs root" :
				       "%s: no tracefs here: mount -t "
				       "tracefs tracefs /sys/kernel/tracing",
			       path);
	if (access(path, W_OK))
		return failure(o, "%s: tracing needs root", path);
	snprintf(path, sizeof(path), "%s/events/mmnf/mmnf_fault", root);
	if (access(path, F_OK))
		return failure(o, "%s: no such event: is the module loaded?",
			       path);
	snprintf(r->dir, sizeof(r->dir), "%s/instances/mmnf-record-%d", root,
		 (int)getpid());
	if (mkdir(r->dir, 0700)) {
		ret = failure(o, "%s: %s", r->dir, strerror(errno));
		r->dir[0] = 0;
		return ret;
	}
	snprintf(filter, sizeof(filter), "field == %" PRIu64, r->field);
	snprintf(path, sizeof(path), "%s/trace_pipe", r->dir);
	if (!put(r->dir, "trace_clock", "mono") ||
	    !put(r->dir, "buffer_size_kb", BUFFER_KIB) ||
	    !put(r->dir, "buffer_percent", "0") ||
	    (r->field &&
	     !put(r->dir, "events/mmnf/mmnf_fault/filter", filter)) ||
	    (*pipe = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)) < 0 ||
	    !put(r->dir, "events/mmnf/mmnf_fault/enable", "1"))
		return failure(o, "%s: %s", r->dir, strerror(errno));
	return 0;
}

static void stop_tracing(struct recorder *r, int pipe)
{
	if (pipe >= 0)
		close(pipe);
	if (!r->dir[0])
		return;
	put(r->dir, "events/mmnf/mmnf_fault/enable", "0");
	rmdir(r->dir);
}

static pid_t start_command(const struct options *o, char **argv)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	execvp(argv[0], argv);
	failure(o, "%s: %s", argv[0], strerror(errno));
	_exit(127);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Until the command ends, the time is up, or a signal comes; its status. */
static int follow(struct recorder *r, int pipe, pid_t pid, uint64_t seconds)
{
	struct pollfd poller = { .fd = pipe, .events = POLLIN };
	uint64_t until_ms = now_ms() + seconds * 1000;
	bool ended = false;
	int status = 0;

	while (!interrupted && !ended && !r->full &&
	       !(seconds && now_ms() >= until_ms)) {
		ended = pid > 0 && waitpid(pid, &status, WNOHANG) == pid;
		if (!r->field)
			look_at_fields(r);
		if (!ended &&
		    poll(&poller, 1, r->field ? POLL_MS : LOOK_MS) < 0 &&
		    errno != EINTR)
			break;
		while (drain(r, pipe) && !r->full)
			;
	}
	put(r->dir, "events/mmnf/mmnf_fault/enable", "0");
	while (drain(r, pipe) && !r->full)
		;
	if (pid > 0 && !ended) {
		kill(pid, SIGTERM);
		waitpid(pid, &status, 0);
		return 0;
	}
	return status;
}

static int write_trace(struct recorder *r, uint64_t lost, int status)
{
	const struct options *o = r->o;
	const char *out = o->out ? o->out : "-", *wrong;
	uint64_t i, most_pos = 0;
	FILE *to;
	bool bad;

	if (!r->trace.nr)
		return failure(o, "no fault was seen%s",
			       r->field ? " in this field" : "");
	for (i = 0; i < r->trace.nr; i++)
		if (r->trace.access[i].pos > most_pos)
			most_pos = r->trace.access[i].pos;
	if (!r->has_geometry)
		fprintf(stderr,
			"mmnf: record: field %" PRIu64 " went before its "
			"geometry was read: written as a vector\n",
			r->field);
	wrong = trace_geometry_finish(&r->trace.geometry, most_pos);
	if (wrong)
		return failure(o, "field %" PRIu64 ": %s", r->field, wrong);
	if (lost)
		fprintf(stderr,
			"mmnf: record: %" PRIu64 " faults were lost: they came "
			"faster than they were read\n",
			lost);
	if (r->others)
		fprintf(stderr,
			"mmnf: record: %" PRIu64 " faults of other fields than "
			"%" PRIu64 " left out\n",
			r->others, r->field);
	if (r->full)
		fprintf(stderr, "mmnf: record: stopped: the trace is full\n");
	to = strcmp(out, "-") ? fopen(out, "w") : stdout;
	if (!to)
		return failure(o, "%s: %s", out, strerror(errno));
	trace_write(&r->trace, to);
	bad = fflush(to) || ferror(to);
	if (to != stdout)
		bad |= fclose(to) != 0;
	if (bad)
		return failure(o, "%s: %s", out, strerror(errno));
	if (status)
		return failure(o, "the command ended with %s %d",
			       WIFEXITED(status) ? "status" : "signal",
			       WIFEXITED(status) ? WEXITSTATUS(status) :
						   WTERMSIG(status));
	if (to == stdout)
		return EXIT_SUCCESS;
	return print_result(o, json_pack("{sI sI sI}", "field",
					 (json_int_t)r->field, "accesses",
					 (json_int_t)r->trace.nr, "lost",
					 (json_int_t)lost));
}

int cmd_record(const struct options *o)
{
	struct recorder *r = calloc(1, sizeof(*r));
	struct sigaction action = { .sa_handler = on_signal };
	uint64_t seconds = 0, lost = 0;
	int ret, pipe = -1, status = 0, skip;
	pid_t pid = 0;

	if (!r)
		return failure(o, "out of memory");
	r->o = o;
	skip = o->nr_args && parse_u64(o->args[0], &r->field);
	if (skip && !r->field)
		ret = usage_error(o, "%s: expected a field's number",
				  o->args[0]);
	else if (o->seconds && (!parse_u64(o->seconds, &seconds) || !seconds ||
				seconds > 1 << 30))
		ret = usage_error(o, "--seconds %s: expected at least 1",
				  o->seconds);
	else
		ret = start_tracing(r, &pipe);
	if (!ret && skip) {
		choose_field(r, r->field);
		if (!r->has_geometry)
			ret = failure(o, FIELDS "/%s: no such field",
				      o->args[0]);
	}
	if (!ret) {
		sigaction(SIGINT, &action, NULL);
		sigaction(SIGTERM, &action, NULL);
		if (o->nr_args > skip)
			pid = start_command(o, o->args + skip);
		if (pid < 0)
			ret = failure(o, "fork: %s", strerror(errno));
	}
	if (!ret) {
		status = follow(r, pipe, pid, seconds);
		lost = lost_events(r);
	}
	stop_tracing(r, pipe);
	if (!ret)
		ret = write_trace(r, lost, status);
	trace_free(&r->trace);
	free(r);
	return ret;
}
