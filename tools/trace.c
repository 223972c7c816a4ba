// SPDX-License-Identifier: MIT
/*
 * Traces are read, checked and written.  See trace.h.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "number.h"
#include "trace.h"

bool trace_add(struct trace *trace, uint64_t thread, uint64_t ip, uint64_t pos,
	       uint64_t gap_ns)
{
	struct trace_access *access;
	uint64_t room;

	if (trace->nr == trace->room) {
		room = trace->room ? trace->room * 2 : 4096;
		if (room > TRACE_MAX)
			return false;
		access = realloc(trace->access, room * sizeof(*access));
		if (!access)
			return false;
		trace->access = access;
		trace->room = room;
	}
	access = &trace->access[trace->nr++];
	access->thread = thread;
	access->ip = ip;
	access->pos = pos;
	access->gap_ns = gap_ns;
	return true;
}

void trace_free(struct trace *trace)
{
	free(trace->access);
	memset(trace, 0, sizeof(*trace));
}

/* The next number of a line; *text goes behind it.  False if there is none. */
static bool next_number(char **text, bool is_signed, uint64_t *out)
{
	char *end;

	*text += strspn(*text, " \t");
	if (!isdigit((unsigned char)**text) && !(is_signed && **text == '-'))
		return false;
	errno = 0;
	*out = is_signed ? (uint64_t)strtoll(*text, &end, number_base(*text)) :
			   strtoull(*text, &end, number_base(*text));
	if (errno || end == *text || (*end && !strchr(" \t,", *end)))
		return false;
	*text = end;
	return true;
}

static bool at_end(const char *text)
{
	return !text[strspn(text, " \t\r")];
}

/* "1,2,3" up to the line's end; returns how many, 0 if it is no list. */
static uint32_t number_list(char *text, bool is_signed, uint64_t *out)
{
	uint32_t nr = 0;

	do {
		if (nr == TRACE_NDIM_MAX ||
		    !next_number(&text, is_signed, &out[nr++]))
			return 0;
	} while (*text == ',' && text++);
	return at_end(text) ? nr : 0;
}

/* A line of the head.  Returns what was expected, or NULL. */
static const char *head_line(struct trace_geometry *g, char *text)
{
	const struct {
		const char *name;
		uint64_t *value;
	} bytes[] = {
		{ "file", &g->file_bytes },
		{ "offset", &g->offset_bytes },
		{ "element", &g->element_bytes },
		{ "record", &g->record_bytes },
	};
	uint64_t stride[TRACE_NDIM_MAX] = { 0 };
	size_t len = strcspn(text, " \t");
	char *rest = text + len;
	uint32_t nr, i;

	for (i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++) {
		if (strlen(bytes[i].name) != len ||
		    strncmp(text, bytes[i].name, len))
			continue;
		return next_number(&rest, false, bytes[i].value) &&
				       at_end(rest) ?
			       NULL :
			       "a number of bytes";
	}
	if (len == 6 && !strncmp(text, "extent", len)) {
		nr = number_list(rest, false, g->extent);
	} else if (len == 6 && !strncmp(text, "stride", len)) {
		nr = number_list(rest, true, stride);
		for (i = 0; i < nr; i++)
			g->stride[i] = (int64_t)stride[i];
	} else {
		return "file, offset, element, extent, stride or record";
	}
	if (!nr || (g->ndim && g->ndim != nr))
		return "1 to 8 numbers with commas, as many in extent as in "
		       "stride";
	g->ndim = nr;
	return NULL;
}

const char *trace_geometry_finish(struct trace_geometry *g, uint64_t most_pos)
{
	bool packed = true, vector = !g->ndim;
	uint64_t below = 0, above = 0, reach, step;
	uint32_t i;

	if (!g->element_bytes)
		g->element_bytes = 1;
	if (vector) {
		uint64_t end = g->file_bytes ? g->file_bytes : most_pos + 1;

		if (end < g->offset_bytes ||
		    end - g->offset_bytes < g->element_bytes)
			return "file: too small for offset and element";
		g->ndim = 1;
		g->extent[0] = (end - g->offset_bytes) / g->element_bytes;
	}
	for (i = 0; i < g->ndim; i++) {
		packed &= !g->stride[i];
		if (!g->extent[i])
			return "extent: expected at least 1 along each axis";
	}
	step = g->element_bytes;
	for (i = g->ndim; packed && i-- > 0;) {
		if (step > INT64_MAX)
			return "extent: more than 2^63 bytes";
		g->stride[i] = (int64_t)step;
		if (__builtin_mul_overflow(step, g->extent[i], &step))
			return "extent: more than 2^63 bytes";
	}
	for (i = 0; i < g->ndim; i++) {
		step = g->stride[i] < 0 ? -(uint64_t)g->stride[i] :
					  (uint64_t)g->stride[i];
		if (__builtin_mul_overflow(g->extent[i] - 1, step, &reach) ||
		    __builtin_add_overflow(g->stride[i] < 0 ? below : above,
					   reach,
					   g->stride[i] < 0 ? &below : &above))
			return "extent and stride: more than 2^64 bytes";
	}
	if (below > g->offset_bytes)
		return "stride: elements lie before the file's start";
	g->start = g->offset_bytes - below;
	if (__builtin_add_overflow(g->offset_bytes, above, &g->end) ||
	    __builtin_add_overflow(g->end, g->element_bytes, &g->end) ||
	    g->end > INT64_MAX)
		return "extent and stride: more than 2^63 bytes";
	if (!g->file_bytes)
		g->file_bytes = g->end > most_pos ? g->end : most_pos + 1;
	if (g->end > g->file_bytes)
		return "file: smaller than offset, extent and stride say";
	if (g->file_bytes > INT64_MAX || most_pos >= g->file_bytes)
		return "file: an access lies beyond its end";
	if (g->record_bytes > 1ULL << 30)
		return "record: expected at most 1 GiB";
	return NULL;
}

/* Drops what did not fit into the text; false if that was no comment's end. */
static bool rest_of_line(const char *text, size_t size, FILE *from)
{
	int c = 0;

	if (strlen(text) + 1 < size || text[size - 2] == '\n')
		return true;
	while (c != EOF && c != '\n')
		c = getc(from);
	return strchr(text, '#');
}

/* An access; returns what was expected, or NULL. */
static const char *access_line(struct trace *trace, char *text)
{
	uint64_t v[4] = { 0 };

	if (!next_number(&text, false, &v[0]) ||
	    !next_number(&text, false, &v[1]) ||
	    !next_number(&text, false, &v[2]) || v[2] >= INT64_MAX ||
	    v[0] == UINT64_MAX ||
	    (!at_end(text) && !next_number(&text, false, &v[3])) ||
	    v[3] >> 48 || !at_end(text))
		return "THREAD IP OFFSET_BYTES [GAP_NS]";
	if (!trace_add(trace, v[0], v[1], v[2], v[3]))
		return "fewer accesses: out of memory, or more than 2^26";
	return NULL;
}

/* A line without its end and comment; returns what was expected, or NULL. */
static const char *any_line(struct trace *trace, char *text)
{
	text[strcspn(text, "#\r\n")] = 0;
	text += strspn(text, " \t");
	if (!*text)
		return NULL;
	if (!isalpha((unsigned char)*text))
		return access_line(trace, text);
	return trace->nr ? "the head before the first access" :
			   head_line(&trace->geometry, text);
}

bool trace_read(struct trace *trace, FILE *from, char *wrong, size_t size)
{
	uint64_t most_pos = 0, line = 0;
	const char *what = NULL;
	char text[512];

	memset(trace, 0, sizeof(*trace));
	while (!what && fgets(text, sizeof(text), from)) {
		line++;
		what = rest_of_line(text, sizeof(text), from) ?
			       any_line(trace, text) :
			       "a line of at most 510 characters";
		if (trace->nr && trace->access[trace->nr - 1].pos > most_pos)
			most_pos = trace->access[trace->nr - 1].pos;
	}
	if (what) {
		snprintf(wrong, size, "line %" PRIu64 ": expected %s", line,
			 what);
		return false;
	}
	if (ferror(from)) {
		snprintf(wrong, size, "%s", strerror(errno));
		return false;
	}
	what = trace->nr ? trace_geometry_finish(&trace->geometry, most_pos) :
			   "no access in it";
	if (what)
		snprintf(wrong, size, "%s", what);
	return !what;
}

void trace_write_geometry(const struct trace_geometry *g, FILE *to)
{
	uint32_t i;

	fprintf(to, "file %" PRIu64 "\noffset %" PRIu64 "\nelement %" PRIu64,
		g->file_bytes, g->offset_bytes, g->element_bytes);
	for (i = 0; i < g->ndim; i++)
		fprintf(to, "%s%" PRIu64, i ? "," : "\nextent ", g->extent[i]);
	for (i = 0; i < g->ndim; i++)
		fprintf(to, "%s%" PRId64, i ? "," : "\nstride ", g->stride[i]);
	fprintf(to, "\nrecord %" PRIu64 "\n", g->record_bytes);
}

void trace_write(const struct trace *trace, FILE *to)
{
	uint64_t i;

	trace_write_geometry(&trace->geometry, to);
	fputs("# thread ip offset_bytes gap_ns\n", to);
	for (i = 0; i < trace->nr; i++) {
		const struct trace_access *a = &trace->access[i];

		fprintf(to,
			"%" PRIu64 " 0x%" PRIx64 " %" PRIu64 " %" PRIu64 "\n",
			a->thread, a->ip, a->pos, a->gap_ns);
	}
}
