// SPDX-License-Identifier: MIT
/*
 * mmnf top: the machine and the kernel's fields, from /proc and sysfs; those of
 * processes are top-library.c's.
 */
#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tool.h"
#include "top.h"

#define FIELDS "/sys/class/misc/mmnf/fields"
#define STREAMS "/sys/kernel/debug/mmnf"

struct top_field *top_add(struct top *top)
{
	if (top->nr_fields == top->room) {
		unsigned int room = top->room ? top->room * 2 : 16;
		struct top_field *more =
			realloc(top->field, room * sizeof(*more));

		if (!more)
			return NULL;
		top->field = more;
		top->room = room;
	}
	memset(&top->field[top->nr_fields], 0, sizeof(*top->field));
	return &top->field[top->nr_fields++];
}

void top_free(struct top *top)
{
	free(top->field);
	memset(top, 0, sizeof(*top));
}

/* The first line of FIELDS/ID/NAME; false if there is none. */
static bool read_text(uint64_t id, const char *name, char *text, size_t len)
{
	char path[128];
	FILE *from;
	bool ok;

	snprintf(path, sizeof(path), FIELDS "/%" PRIu64 "/%s", id, name);
	from = fopen(path, "re");
	if (!from)
		return false;
	ok = fgets(text, (int)len, from);
	fclose(from);
	if (ok)
		text[strcspn(text, "\n")] = 0;
	return ok;
}

static uint64_t read_number(uint64_t id, const char *name)
{
	uint64_t number = 0;
	char text[64];

	if (read_text(id, name, text, sizeof(text)))
		parse_u64(text, &number);
	return number;
}

/* As many numbers of a line as there are, or as there is room for. */
static uint32_t read_numbers(uint64_t id, const char *name, uint64_t *numbers,
			     uint32_t room)
{
	char text[4096], *at = text, *end;
	uint32_t nr = 0;

	if (!read_text(id, name, text, sizeof(text)))
		return 0;
	for (; nr < room; nr++, at = end) {
		numbers[nr] = strtoull(at, &end, 10);
		if (end == at)
			break;
	}
	return nr;
}

/*
 * A line is "thread ip pos depth ahead dense stride:nr ...", innermost loop first;
 * nr 0 has no known end.
 */
static bool parse_stream(char *line, struct mmnf_published_stream *s)
{
	uint64_t number[6];
	char *rest, *word = strtok_r(line, " \n", &rest);
	int i;

	for (i = 0; i < 6; i++, word = strtok_r(NULL, " \n", &rest)) {
		if (!word)
			return false;
		number[i] = strtoull(word, NULL, 0);
	}
	s->thread = number[0];
	s->ip = number[1];
	s->pos_bytes = number[2];
	s->depth = (uint32_t)number[3];
	s->ahead = (uint32_t)number[4];
	s->dense = (int32_t)number[5];
	for (; word && s->nr_levels < MMNF_NR_LEVELS;
	     word = strtok_r(NULL, " \n", &rest)) {
		char *colon = strchr(word, ':');

		if (!colon)
			return false;
		s->level[s->nr_levels].stride_bytes = strtoll(word, NULL, 10);
		s->level[s->nr_levels].nr = strtoull(colon + 1, NULL, 10);
		if (!s->level[s->nr_levels].nr)
			s->level[s->nr_levels].nr = UINT64_MAX;
		s->nr_levels++;
	}
	return true;
}

/* Root's alone: they show threads and addresses. */
static void read_streams(struct top_field *f)
{
	char path[128], line[512];
	FILE *from;

	snprintf(path, sizeof(path), STREAMS "/%" PRIu64 "/streams", f->id);
	from = fopen(path, "re");
	if (!from)
		return;
	f->has_streams = true;
	while (f->nr_streams < MMNF_PUBLISH_STREAMS &&
	       fgets(line, sizeof(line), from)) {
		struct mmnf_published_stream *s = &f->stream[f->nr_streams];

		memset(s, 0, sizeof(*s));
		if (parse_stream(line, s))
			f->nr_streams++;
	}
	fclose(from);
}

static void read_field(struct top_field *f)
{
	struct top_counts *c = &f->counts;

	f->is_kernel = true;
	f->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	snprintf(f->key, sizeof(f->key), "kernel %" PRIu64, f->id);
	snprintf(f->name, sizeof(f->name), "field %" PRIu64, f->id);
	snprintf(f->command, sizeof(f->command), "kernel");
	if (!read_text(f->id, "mode", f->engine, sizeof(f->engine)))
		return;
	f->ndim = read_numbers(f->id, "shape", f->shape, MMNF_NDIM_MAX);
	f->element_bytes = (uint32_t)read_number(f->id, "element_bytes");
	f->total_bytes = read_number(f->id, "size_bytes");
	c->hits = read_number(f->id, "stats/hits");
	c->late = read_number(f->id, "stats/late");
	c->misses = read_number(f->id, "stats/misses");
	c->accesses = c->hits + c->late + c->misses;
	c->prefetched_pages = read_number(f->id, "stats/prefetched_pages");
	c->used_pages = read_number(f->id, "stats/used_pages");
	c->wasted_pages = read_number(f->id, "stats/wasted_pages");
	c->pending_pages = read_number(f->id, "stats/pending_pages");
	read_numbers(f->id, "stats/waits", f->waits, MMNF_NR_LENGTHS);
	read_streams(f);
}

static bool collect_kernel(struct top *top)
{
	struct dirent *entry;
	DIR *dir = opendir(FIELDS);
	struct top_field *f;

	if (!dir)
		return true;
	while ((entry = readdir(dir))) {
		uint64_t id;

		if (!isdigit((unsigned char)entry->d_name[0]) ||
		    !parse_u64(entry->d_name, &id))
			continue;
		f = top_add(top);
		if (!f) {
			closedir(dir);
			return false;
		}
		f->id = id;
		read_field(f);
		if (!f->engine[0]) /* gone meanwhile */
			top->nr_fields--;
	}
	closedir(dir);
	return true;
}

static void collect_memory(struct top *top)
{
	FILE *from = fopen("/proc/meminfo", "re");
	unsigned long long kib;
	char line[256];

	while (from && fgets(line, sizeof(line), from)) {
		if (sscanf(line, "MemTotal: %llu", &kib) == 1)
			top->memory_bytes = kib << 10;
		else if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
			top->available_bytes = kib << 10;
		else if (sscanf(line, "Cached: %llu", &kib) == 1)
			top->cached_bytes = kib << 10;
	}
	if (from)
		fclose(from);
}

/* By name, then by who: rows stay where they are from sample to sample. */
static int by_name(const void *a, const void *b)
{
	const struct top_field *x = a, *y = b;
	int order = (int)y->is_kernel - (int)x->is_kernel;

	if (!order && x->is_kernel)
		return x->id < y->id ? -1 : x->id > y->id;
	if (!order)
		order = strcmp(x->name, y->name);
	return order ? order : strcmp(x->key, y->key);
}

bool top_collect(struct top *top)
{
	struct timespec now;

	memset(top, 0, sizeof(*top));
	clock_gettime(CLOCK_MONOTONIC, &now);
	top->at_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	collect_memory(top);
	if (!collect_kernel(top) || !top_collect_library(top)) {
		top_free(top);
		return false;
	}
	if (top->nr_fields)
		qsort(top->field, top->nr_fields, sizeof(*top->field), by_name);
	return true;
}

const struct top_field *top_find(const struct top *top, const char *key)
{
	unsigned int i;

	for (i = 0; top && i < top->nr_fields; i++)
		if (!strcmp(top->field[i].key, key))
			return &top->field[i];
	return NULL;
}

uint64_t top_wait_ns(const struct top_field *field,
		     const struct top_field *before, double part)
{
	uint64_t nr[MMNF_NR_LENGTHS], total = 0, seen = 0;
	uint32_t i;

	for (i = 0; i < MMNF_NR_LENGTHS; i++) {
		nr[i] = field->waits[i];
		if (before && before->waits[i] <= nr[i])
			nr[i] -= before->waits[i];
		total += nr[i];
	}
	for (i = 0; i < MMNF_NR_LENGTHS; i++) {
		seen += nr[i];
		if (total && (double)seen >= part * (double)total)
			return mmnf_wait_most_ns(i);
	}
	return 0;
}

void top_nest(const struct mmnf_published_stream *s, char *text, size_t len)
{
	size_t used = 0;
	uint32_t i;

	text[0] = 0;
	for (i = 0; i < s->nr_levels && i < MMNF_NR_LEVELS && used < len; i++) {
		int64_t stride = s->level[i].stride_bytes;
		char bytes[16];

		human_bytes(stride < 0 ? -(uint64_t)stride : (uint64_t)stride,
			    bytes);
		used += (size_t)snprintf(text + used, len - used, "%s%s%s",
					 i ? ", " : "",
					 stride < 0 ? "-" :
					 stride	    ? "+" :
						      "",
					 stride ? bytes : "again");
		if (s->level[i].nr != UINT64_MAX && used < len)
			used += (size_t)snprintf(text + used, len - used,
						 " x %" PRIu64, s->level[i].nr);
	}
	if (!s->nr_levels)
		snprintf(text, len, "%s",
			 s->dense > 0 ? "sequential" :
			 s->dense < 0 ? "sequential, backwards" :
					"no walk seen");
}
