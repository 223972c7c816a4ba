// SPDX-License-Identifier: MIT
/*
 * mmnf top: two samples become the numbers of a row.
 */
#include <inttypes.h>
#include <string.h>

#include "tool.h"
#include "top.h"

void top_duration(uint64_t ns, char text[16])
{
	if (!ns)
		snprintf(text, 16, "-");
	else if (ns < 10000)
		snprintf(text, 16, "%.1f us", (double)ns / 1e3);
	else if (ns < 1000000)
		snprintf(text, 16, "%.0f us", (double)ns / 1e3);
	else if (ns < 1000000000)
		snprintf(text, 16, "%.1f ms", (double)ns / 1e6);
	else
		snprintf(text, 16, "%.1f s", (double)ns / 1e9);
}

void top_shape(const struct top_field *f, char *text, size_t len)
{
	size_t used = 0;
	uint32_t i;

	text[0] = 0;
	for (i = 0; i < f->ndim && used < len; i++)
		used += (size_t)snprintf(text + used, len - used, "%s%" PRIu64,
					 i ? "x" : "", f->shape[i]);
	if (used < len && f->element_bytes)
		snprintf(text + used, len - used, " of %u B", f->element_bytes);
}

void top_tier(const struct top_field *f, char *text, size_t len)
{
	char size[16], used[16];

	human_bytes(f->l2_bytes, size);
	human_bytes(f->l2_used_bytes, used);
	if (f->l2_bytes)
		snprintf(text, len, "L2: %s of %s", used, size);
	else
		snprintf(text, len, "page cache");
}

void top_gpu(const struct mmnf_published_gpu *gpu, char *text, size_t len)
{
	const struct mmnf_gpu_stats *s = &gpu->stats;
	double all = (double)s->hits + (double)s->late + (double)s->misses;
	double percent = all > 0 ? 100 / all : 0;
	char size[16], used[16], read[16], gathered[16];

	human_bytes(s->nr_slots * s->tile_bytes, size);
	human_bytes(s->nr_slots_used * s->tile_bytes, used);
	human_bytes(s->read_bytes, read);
	human_bytes(s->gathered_bytes, gathered);
	snprintf(
		text, len,
		"L1, GPU %u: %s of %s; hit %.0f%%, late %.0f%%, miss %.0f%%; %s read, %s gathered; %s",
		gpu->device, used, size, (double)s->hits * percent,
		(double)s->late * percent, (double)s->misses * percent, read,
		gathered, gpu->name);
}

static void rate_text(double bytes, char text[16])
{
	char human[16];

	human_bytes((uint64_t)bytes, human);
	snprintf(text, 16, "%.12s/s", human);
}

static void count_rate(double rate, char text[16])
{
	if (rate >= 1e6)
		snprintf(text, 16, "%.1fM/s", rate / 1e6);
	else if (rate >= 1e4)
		snprintf(text, 16, "%.1fk/s", rate / 1e3);
	else
		snprintf(text, 16, "%.0f/s", rate);
}

/* Counters never fall; whatever a page says, no share is above 1. */
static uint64_t since(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0;
}

static double share(uint64_t part, uint64_t whole)
{
	return whole ? (double)part / (double)whole : 0;
}

void top_row(const struct top *top, const struct top *before,
	     const struct top_field *f, struct top_row *row)
{
	static const struct top_counts none;
	const struct top_field *b = top_find(before, f->key);
	const struct top_counts *c = &f->counts, *from = b ? &b->counts : &none;
	uint64_t hits = since(c->hits, from->hits);
	uint64_t late = since(c->late, from->late);
	uint64_t misses = since(c->misses, from->misses);
	uint64_t all = hits + late + misses;
	uint64_t used = since(c->used_pages, from->used_pages);
	uint64_t wasted = since(c->wasted_pages, from->wasted_pages);
	double seconds = before ? (double)(top->at_ns - before->at_ns) / 1e9 :
				  0;

	memset(row, 0, sizeof(*row));
	row->hit = share(hits, all);
	row->late = share(late, all);
	row->miss = share(misses, all);
	row->used = share(used, used + wasted);
	row->wasted = share(wasted, used + wasted);
	strcpy(row->accesses, "-");
	strcpy(row->ahead, "-");
	strcpy(row->got, "-");
	if (seconds > 0 && b) {
		count_rate((double)all / seconds, row->accesses);
		rate_text((double)since(c->prefetched_pages,
					from->prefetched_pages) *
				  (double)f->page_bytes / seconds,
			  row->ahead);
		if (!f->is_kernel)
			rate_text((double)since(c->get_bytes, from->get_bytes) /
					  seconds,
				  row->got);
	}
	human_bytes(c->pending_pages * f->page_bytes, row->pending);
	top_duration(top_wait_ns(f, b, 0.5), row->half);
	top_duration(top_wait_ns(f, b, 0.99), row->most);
}
