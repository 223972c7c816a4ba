// SPDX-License-Identifier: MIT
/*
 * mmnf top for scripts: JSON, a plain table, Prometheus' text format.
 */
#include <inttypes.h>
#include <string.h>

#include "tool.h"
#include "top.h"

#define NR(value) ((json_int_t)(value))

static const struct {
	const char *name;
	size_t place;
	bool is_gauge;
} gpu_counts[] = {
#define COUNT(name)                                                 \
	{                                                           \
#name, offsetof(struct mmnf_gpu_stats, name), false \
	}
#define GAUGE(name)                                                \
	{                                                          \
#name, offsetof(struct mmnf_gpu_stats, name), true \
	}
	COUNT(hits),	       COUNT(late),	    COUNT(misses),
	COUNT(prefetched),     COUNT(used),	    COUNT(wasted),
	COUNT(read_bytes),     COUNT(copied_bytes), COUNT(scattered_bytes),
	COUNT(gathered_bytes), GAUGE(tile_bytes),   GAUGE(nr_slots),
	GAUGE(nr_slots_used),
#undef COUNT
#undef GAUGE
};

#define NR_GPU_COUNTS (sizeof(gpu_counts) / sizeof(gpu_counts[0]))

static uint64_t gpu_count(const struct mmnf_published_gpu *gpu, size_t k)
{
	uint64_t value;

	memcpy(&value, (const char *)&gpu->stats + gpu_counts[k].place,
	       sizeof(value));
	return value;
}

static json_t *stream_json(const struct mmnf_published_stream *s)
{
	json_t *levels = json_array();
	uint32_t i;

	for (i = 0; i < s->nr_levels; i++)
		json_array_append_new(
			levels,
			s->level[i].nr == UINT64_MAX ?
				json_pack("{sI sn}", "stride_bytes",
					  NR(s->level[i].stride_bytes), "nr") :
				json_pack("{sI sI}", "stride_bytes",
					  NR(s->level[i].stride_bytes), "nr",
					  NR(s->level[i].nr)));
	return json_pack("{sI sI sI sI sI si so}", "thread", NR(s->thread),
			 "ip", NR(s->ip), "pos_bytes", NR(s->pos_bytes),
			 "depth", NR(s->depth), "ahead", NR(s->ahead), "dense",
			 (int)s->dense, "levels", levels);
}

static json_t *counts_json(const struct top_counts *c)
{
	return json_pack("{sI sI sI sI sI sI sI sI sI sI}", "accesses",
			 NR(c->accesses), "hits", NR(c->hits), "late",
			 NR(c->late), "misses", NR(c->misses),
			 "prefetched_pages", NR(c->prefetched_pages),
			 "used_pages", NR(c->used_pages), "wasted_pages",
			 NR(c->wasted_pages), "pending_pages",
			 NR(c->pending_pages), "gets", NR(c->gets), "get_bytes",
			 NR(c->get_bytes));
}

static json_t *latency_json(const struct top_field *f,
			    const struct top_field *before)
{
	return json_pack("{sI sI sI}", "p50_ns",
			 NR(top_wait_ns(f, before, 0.5)), "p90_ns",
			 NR(top_wait_ns(f, before, 0.9)), "p99_ns",
			 NR(top_wait_ns(f, before, 0.99)));
}

static json_t *gpus_json(const struct top_field *f)
{
	json_t *gpus = json_array();
	unsigned int i;
	size_t k;

	for (i = 0; i < f->nr_gpus; i++) {
		json_t *o = json_pack("{sI ss}", "device", NR(f->gpu[i].device),
				      "name", f->gpu[i].name);

		for (k = 0; k < NR_GPU_COUNTS; k++)
			json_object_set_new(
				o, gpu_counts[k].name,
				json_integer(NR(gpu_count(&f->gpu[i], k))));
		json_array_append_new(gpus, o);
	}
	return gpus;
}

static json_t *field_json(const struct top_field *f,
			  const struct top_field *before)
{
	json_t *o = json_pack("{ss ss ss ss sI sI sI sI sI so so so so}",
			      "where", f->is_kernel ? "kernel" : "library",
			      "name", f->name, "command", f->command, "engine",
			      f->engine, "l2_bytes", NR(f->l2_bytes),
			      "l2_used_bytes", NR(f->l2_used_bytes),
			      "total_bytes", NR(f->total_bytes),
			      "element_bytes", NR(f->element_bytes),
			      "page_bytes", NR(f->page_bytes), "shape",
			      json_numbers(f->shape, f->ndim), "counts",
			      counts_json(&f->counts), "latency",
			      latency_json(f, before), "gpus", gpus_json(f));
	json_t *streams = json_array();
	unsigned int i;

	if (f->is_kernel)
		json_object_set_new(o, "id", json_integer(NR(f->id)));
	else
		json_object_set_new(o, "pid", json_integer(f->pid));
	for (i = 0; i < f->nr_streams; i++)
		json_array_append_new(streams, stream_json(&f->stream[i]));
	json_object_set_new(o, "streams",
			    f->has_streams ? streams : json_null());
	if (!f->has_streams)
		json_decref(streams);
	if (before)
		json_object_set_new(o, "counts_before",
				    counts_json(&before->counts));
	return o;
}

json_t *top_json(const struct top *top, const struct top *before)
{
	json_t *fields = json_array();
	unsigned int i;

	for (i = 0; i < top->nr_fields; i++)
		json_array_append_new(
			fields,
			field_json(&top->field[i],
				   top_find(before, top->field[i].key)));
	return json_pack("{sI sI sI sI sI so}", "at_ns", NR(top->at_ns),
			 "interval_ns",
			 NR(before ? top->at_ns - before->at_ns : 0),
			 "memory_bytes", NR(top->memory_bytes),
			 "available_bytes", NR(top->available_bytes),
			 "page_cache_bytes", NR(top->cached_bytes), "fields",
			 fields);
}

void top_print(const struct top *top, const struct top *before, FILE *to)
{
	unsigned int i;

	fprintf(to, "%-32s %-20s %-7s %6s %6s %6s %7s %12s %12s %9s %9s\n",
		"FIELD", "WHO", "ENGINE", "HIT%", "LATE%", "MISS%", "WASTED%",
		"AHEAD", "GOT", "p50", "p99");
	for (i = 0; i < top->nr_fields; i++) {
		const struct top_field *f = &top->field[i];
		struct top_row row;
		char who[48];

		top_row(top, before, f, &row);
		if (f->is_kernel)
			snprintf(who, sizeof(who), "kernel");
		else
			snprintf(who, sizeof(who), "%.12s %d", f->command,
				 f->pid);
		fprintf(to,
			"%-32s %-20s %-7s %6.1f %6.1f %6.1f %7.1f %12s %12s %9s %9s\n",
			f->name, who, f->engine, row.hit * 100, row.late * 100,
			row.miss * 100, row.wasted * 100, row.ahead, row.got,
			row.half, row.most);
	}
	if (!top->nr_fields)
		fprintf(to, "no field is attached or open\n");
}

/* A label's value: backslash, quote and newline are escaped. */
static void put_label(FILE *to, const char *name, const char *value)
{
	fprintf(to, "%s=\"", name);
	for (; *value; value++) {
		if (*value == '\n') {
			fputs("\\n", to);
			continue;
		}
		if (*value == '"' || *value == '\\')
			fputc('\\', to);
		fputc(*value, to);
	}
	fputc('"', to);
}

/* @name, @value: one more label, or NULL. */
static void put_labels(FILE *to, const struct top_field *f, const char *name,
		       const char *value)
{
	char number[24] = "";

	fputc('{', to);
	put_label(to, "id", f->key);
	fputc(',', to);
	put_label(to, "where", f->is_kernel ? "kernel" : "library");
	fputc(',', to);
	put_label(to, "field", f->name);
	fputc(',', to);
	if (!f->is_kernel)
		snprintf(number, sizeof(number), "%d", f->pid);
	put_label(to, "pid", number);
	fputc(',', to);
	put_label(to, "command", f->command);
	fputc(',', to);
	put_label(to, "engine", f->engine);
	if (name && value) {
		fputc(',', to);
		put_label(to, name, value);
	}
	fputc('}', to);
}

static const struct {
	const char *name, *type, *help;
	size_t place; /* in struct top_field */
} metrics[] = {
#define COUNT(name, type, help, member)                                      \
	{                                                                    \
		"mmnf_" name, type, help, offsetof(struct top_field, member) \
	}
	COUNT("accesses_total", "counter",
	      "Accesses that were observed: faults, or pages touched through the library",
	      counts.accesses),
	COUNT("hits_total", "counter",
	      "Accesses that found their page resident", counts.hits),
	COUNT("late_total", "counter",
	      "Accesses that found their page being read ahead", counts.late),
	COUNT("misses_total", "counter", "Accesses that found nothing",
	      counts.misses),
	COUNT("prefetched_pages_total", "counter", "Pages read ahead",
	      counts.prefetched_pages),
	COUNT("used_pages_total", "counter",
	      "Pages read ahead and touched afterwards", counts.used_pages),
	COUNT("wasted_pages_total", "counter", "Pages read ahead and given up",
	      counts.wasted_pages),
	COUNT("pending_pages", "gauge", "Pages read ahead and not yet touched",
	      counts.pending_pages),
	COUNT("gets_total", "counter", "Copies out of the field by the library",
	      counts.gets),
	COUNT("get_bytes_total", "counter", "Bytes copied out by the library",
	      counts.get_bytes),
	COUNT("l2_bytes", "gauge",
	      "Size of the library's cache, 0 where the page cache serves",
	      l2_bytes),
	COUNT("l2_used_bytes", "gauge", "Bytes of it that hold data",
	      l2_used_bytes),
#undef COUNT
};

#define NR_METRICS (sizeof(metrics) / sizeof(metrics[0]))

static void put_bucket(FILE *to, const struct top_field *f, const char *most,
		       uint64_t nr)
{
	fputs(most ? "mmnf_wait_seconds_bucket" : "mmnf_wait_seconds_count",
	      to);
	put_labels(to, f, most ? "le" : NULL, most);
	fprintf(to, " %" PRIu64 "\n", nr);
}

/* Cumulative, as Prometheus wants it; bounds of whole octaves are enough. */
static void put_histogram(FILE *to, const struct top_field *f)
{
	uint64_t seen = 0;
	char most[24];
	uint32_t i;

	for (i = 0; i < MMNF_NR_LENGTHS; i++) {
		seen += f->waits[i];
		if (i % 4 || i == MMNF_NR_LENGTHS - 1)
			continue;
		snprintf(most, sizeof(most), "%g",
			 (double)mmnf_wait_most_ns(i) / 1e9);
		put_bucket(to, f, most, seen);
	}
	put_bucket(to, f, "+Inf", seen);
	put_bucket(to, f, NULL, seen);
}

static void put_gpu_family(FILE *to, const struct top *top, size_t k)
{
	const char *end = gpu_counts[k].is_gauge ? "" : "_total";
	const char *name = gpu_counts[k].name;
	unsigned int i, g;
	char device[16];

	fprintf(to, "# HELP mmnf_gpu_%s%s See mmnf_gpu_stats()\n", name, end);
	fprintf(to, "# TYPE mmnf_gpu_%s%s %s\n", name, end,
		gpu_counts[k].is_gauge ? "gauge" : "counter");
	for (i = 0; i < top->nr_fields; i++) {
		const struct top_field *f = &top->field[i];

		for (g = 0; g < f->nr_gpus; g++) {
			snprintf(device, sizeof(device), "%u",
				 f->gpu[g].device);
			fprintf(to, "mmnf_gpu_%s%s", name, end);
			put_labels(to, f, "device", device);
			fprintf(to, " %" PRIu64 "\n", gpu_count(&f->gpu[g], k));
		}
	}
}

void top_prometheus(const struct top *top, FILE *to)
{
	unsigned int i;
	size_t m;

	for (m = 0; m < NR_METRICS; m++) {
		fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", metrics[m].name,
			metrics[m].help, metrics[m].name, metrics[m].type);
		for (i = 0; i < top->nr_fields; i++) {
			const struct top_field *f = &top->field[i];
			uint64_t value;

			memcpy(&value, (const char *)f + metrics[m].place,
			       sizeof(value));
			fputs(metrics[m].name, to);
			put_labels(to, f, NULL, NULL);
			fprintf(to, " %" PRIu64 "\n", value);
		}
	}
	fprintf(to, "# HELP mmnf_wait_seconds Faults, and gets and batches of "
		    "the library, that were not served from memory at once\n"
		    "# TYPE mmnf_wait_seconds histogram\n");
	for (i = 0; i < top->nr_fields; i++)
		put_histogram(to, &top->field[i]);
	for (m = 0; m < NR_GPU_COUNTS; m++)
		put_gpu_family(to, top, m);
}
