// SPDX-License-Identifier: MIT
/*
 * mmnf top: fields that are open in the library of running processes.
 *
 * /proc/PID/fd shows their pages (lib/publish.h) for those processes that this
 * user may look into.  A page is copied with pread() and may hold anything: its
 * numbers are only printed, its texts are made printable.
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"
#include "top.h"

#define LINK "/memfd:" MMNF_PUBLISH_NAME " "

/* Whatever a terminal would obey, and bytes that are no text, become '?'. */
static void make_printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || (unsigned char)*text > '~')
			*text = '?';
}

static void copy_text(char *to, size_t len, const char *from, size_t most)
{
	snprintf(to, len, "%.*s", (int)strnlen(from, most), from);
	make_printable(to);
}

static void copy_streams(struct top_field *f, struct mmnf_published *p)
{
	uint32_t i;

	f->has_streams = true;
	for (i = 0; i < MMNF_PUBLISH_STREAMS; i++) {
		struct mmnf_published_stream *s = &p->stream[i];

		/* Odd: caught in the middle of a change. */
		if (!s->thread || s->seq & 1 || s->nr_levels > MMNF_NR_LEVELS)
			continue;
		f->stream[f->nr_streams++] = *s;
	}
}

static void copy_gpus(struct top_field *f, struct mmnf_published *p)
{
	uint32_t i;

	for (i = 0; i < MMNF_PUBLISH_GPUS; i++) {
		struct mmnf_published_gpu *to = &f->gpu[f->nr_gpus];

		if (p->gpu[i].on != 1)
			continue;
		*to = p->gpu[i];
		copy_text(to->name, sizeof(to->name), p->gpu[i].name,
			  sizeof(p->gpu[i].name));
		f->nr_gpus++;
	}
}

static void copy_field(struct top_field *f, struct mmnf_published *p)
{
	struct mmnf_field_stats stats = mmnf_published_sum(p);
	struct top_counts *c = &f->counts;

	f->ndim = p->ndim <= MMNF_NDIM_MAX ? p->ndim : 0;
	memcpy(f->shape, p->shape, sizeof(f->shape));
	f->element_bytes = mmnf_dtype_bytes(p->dtype);
	f->total_bytes = p->total_bytes;
	f->page_bytes = p->page_bytes;
	copy_text(f->name, sizeof(f->name), p->path, sizeof(p->path));
	snprintf(f->engine, sizeof(f->engine), "%s", engine_name(p->engine));
	f->l2_bytes = p->l2_bytes;
	f->l2_used_bytes = p->l2_used_bytes;
	c->hits = stats.hits;
	c->late = stats.late;
	c->misses = stats.misses;
	c->accesses = c->hits + c->late + c->misses;
	c->prefetched_pages = stats.prefetched_pages;
	c->used_pages = stats.used_pages;
	c->wasted_pages = stats.wasted_pages;
	if (c->used_pages + c->wasted_pages <= c->prefetched_pages)
		c->pending_pages =
			c->prefetched_pages - c->used_pages - c->wasted_pages;
	c->gets = stats.gets;
	c->get_bytes = stats.get_bytes;
	memcpy(f->waits, p->waits, sizeof(f->waits));
	copy_gpus(f, p);
	copy_streams(f, p);
}

/* Opens and copies; 1: added, 0: not one, -1: out of memory. */
static int add_field(struct top *top, int pid, const char *path)
{
	struct mmnf_published page;
	struct top_field *f;
	struct stat st;
	char key[48];
	ssize_t got;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return 0;
	got = pread(fd, &page, sizeof(page), 0);
	if (fstat(fd, &st))
		got = -1;
	close(fd);
	/* Another version's page may be another struct. */
	if (got != sizeof(page) || page.magic != MMNF_PUBLISH_MAGIC ||
	    page.bytes != sizeof(page) || page.ready != 1)
		return 0;
	/* Parent and child of a fork() have one page: it is told once. */
	snprintf(key, sizeof(key), "page %" PRIu64, (uint64_t)st.st_ino);
	if (top_find(top, key))
		return 0;
	f = top_add(top);
	if (!f)
		return -1;
	f->pid = pid;
	snprintf(f->key, sizeof(f->key), "%s", key);
	copy_field(f, &page);
	return 1;
}

static void name_command(struct top *top, unsigned int first, int pid)
{
	char path[64], text[32] = "?";
	FILE *from;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	from = fopen(path, "re");
	if (from && fgets(text, sizeof(text), from))
		text[strcspn(text, "\n")] = 0;
	if (from)
		fclose(from);
	make_printable(text);
	for (; first < top->nr_fields; first++)
		snprintf(top->field[first].command,
			 sizeof(top->field[first].command), "%s", text);
}

static bool collect_process(struct top *top, int pid)
{
	unsigned int first = top->nr_fields;
	char folder[64], path[128], link[64];
	struct dirent *entry;
	int added = 0;
	ssize_t len;
	DIR *dir;

	snprintf(folder, sizeof(folder), "/proc/%d/fd", pid);
	dir = opendir(folder);
	if (!dir)
		return true;
	while (added >= 0 && (entry = readdir(dir))) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "%s/%.20s", folder, entry->d_name);
		len = readlink(path, link, sizeof(link));
		if (len > (ssize_t)strlen(LINK) &&
		    !strncmp(link, LINK, strlen(LINK)))
			added = add_field(top, pid, path);
	}
	closedir(dir);
	if (top->nr_fields > first) {
		top->nr_processes++;
		name_command(top, first, pid);
	}
	return added >= 0;
}

bool top_collect_library(struct top *top)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	bool ok = true;

	while (ok && dir && (entry = readdir(dir)))
		if (isdigit((unsigned char)entry->d_name[0]) &&
		    atoi(entry->d_name) != getpid())
			ok = collect_process(top, atoi(entry->d_name));
	if (dir)
		closedir(dir);
	return ok;
}
