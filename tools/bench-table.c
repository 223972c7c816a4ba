// SPDX-License-Identifier: MIT
/*
 * mmnf bench --table: what an access costs here, by tier and state.
 *
 * A field is made in the folder, measured and removed: records of a page, each
 * with values that its number foretells, so that every byte that is timed is also
 * compared.  States, of all that is measured: cold, evicted, which is checked;
 * warm, read ahead and not touched; hot, touched before.  To the GPU: cold, from
 * storage; warm, from the page cache; hot, in its memory already.  Wall time, one
 * thread: numbers of one run are to be compared with each other.
 */
#include <errno.h>
#include <ftw.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "tool.h"

#define RECORD_FLOATS 1024
#define RECORD_BYTES (RECORD_FLOATS * 4ULL)
#define RECORDS 32768ULL /* 128 MiB */
#define SINGLES 200
#define BATCH 1000
#define SCAN_RECORDS 256 /* copied at once */
#define L2_BYTES (512ULL << 20)
#define WARM_SECONDS 20

enum what { SINGLE, BATCH_OF_1000, SCAN, NR_WHATS };
enum state { COLD, WARM, HOT, NR_STATES };

static const char *const what_names[] = { "single", "batch-1000", "scan" };
static const char *const state_names[] = { "cold", "warm", "hot" };

/* The GPU's is by way of the mapping. */
static const struct {
	const char *name;
	uint32_t engine;
	bool is_gpu;
} engines[] = {
	{ "mmap", MMNF_ENGINE_MMAP, false },
	{ "device", MMNF_ENGINE_DEVICE, false },
	{ "direct", MMNF_ENGINE_DIRECT, false },
	{ "gpu", MMNF_ENGINE_MMAP, true },
};

#define NR_ENGINES (sizeof(engines) / sizeof(engines[0]))

/**
 * struct table - what was measured, and with what
 * @ns: of one access, of one batch, of one record of a scan; 0: not measured
 * @why: why an engine or a state was not
 * @device: where on the GPU results go; 0: to @data
 */
struct table {
	const char *folder;
	char path[4096];
	float *data;
	uint64_t *index;
	uint64_t device;
	uint64_t nr_wrong;
	double ns[NR_ENGINES][NR_WHATS][NR_STATES];
	char why[NR_ENGINES][232];
	double memory_ns[NR_WHATS];
};

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static float value_of(uint64_t record, uint64_t i)
{
	return (float)((record * 31 + i) % 8191);
}

static void compare(struct table *t, uint64_t record, const float *data)
{
	uint64_t i;

	for (i = 0; i < RECORD_FLOATS; i += 341)
		t->nr_wrong += data[i] != value_of(record, i);
}

/* A permutation of all records that no walk foretells, the same each time. */
static uint64_t scattered(uint64_t i)
{
	uint64_t x = i;
	int round;

	for (round = 0; round < 3; round++) {
		x = (x * 0x5851f42d + 12345) % RECORDS;
		x ^= x >> 7;
	}
	return x % RECORDS;
}

static int make_field(const struct options *o, struct table *t)
{
	uint64_t shape[2] = { RECORDS, RECORD_FLOATS }, first, r, i;
	struct mmnf_box box = { .count = { SCAN_RECORDS, RECORD_FLOATS } };
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;
	int ret = EXIT_SUCCESS;

	opts.engine = MMNF_ENGINE_MMAP;
	opts.writable = 1;
	if (mmnf_field_create(t->path, MMNF_F32, 2, shape, NULL) ||
	    mmnf_field_open(&field, t->path, &opts))
		return library_failure(o);
	for (first = 0; !ret && first < RECORDS; first += SCAN_RECORDS) {
		for (r = 0; r < SCAN_RECORDS; r++)
			for (i = 0; i < RECORD_FLOATS; i++)
				t->data[r * RECORD_FLOATS + i] =
					value_of(first + r, i);
		box.start[0] = first;
		if (mmnf_write(field, &box, t->data,
			       SCAN_RECORDS * RECORD_BYTES) < 0)
			ret = library_failure(o);
		progress((void *)"making the field", first, RECORDS);
	}
	progress((void *)"making the field", RECORDS, RECORDS);
	if (!ret && mmnf_field_sync(field))
		ret = library_failure(o);
	mmnf_field_close(field);
	return ret;
}

static const struct mmnf_box whole = { .count = { RECORDS, RECORD_FLOATS } };

/*
 * Copies a box, or if that is NULL the batch: to the GPU first where the table has
 * memory there, and then, no longer timed, from there to be compared.  0: failed.
 */
static double copy(struct mmnf_field *field, struct table *t,
		   const struct mmnf_box *box)
{
	size_t bytes = (box ? box->count[0] : BATCH) * RECORD_BYTES;
	struct mmnf_selection s = { .size = sizeof(s), .box = box };
	double from, took;
	ssize_t got;

	if (!box) {
		s.index = t->index;
		s.nr_index = BATCH;
	}
	from = now_ns();
	if (t->device)
		got = mmnf_batch_get_device(field, &s, t->device, bytes, NULL);
	else if (box)
		got = mmnf_get(field, box, t->data, bytes);
	else
		got = mmnf_batch_get(field, t->index, BATCH, t->data, bytes);
	took = now_ns() - from;
	if (got >= 0 && t->device)
		got = mmnf_device_read(0, t->data, t->device, bytes, NULL);
	return got < 0 ? 0 : took;
}

static double resident_share(struct mmnf_field *field)
{
	struct mmnf_residency r = { .size = sizeof(r) };

	if (mmnf_residency(field, &whole, &r))
		return -1;
	return (double)(r.hot_bytes + r.warm_bytes) /
	       (double)(RECORDS * RECORD_BYTES);
}

/* Brings the field into a state; NULL, or why it cannot be. */
static const char *bring(struct mmnf_field *field, enum state state,
			 struct table *t)
{
	struct mmnf_box box = { .count = { SCAN_RECORDS, RECORD_FLOATS } };
	struct timespec pause = { 0, 20000000 };
	double end = now_ns() + WARM_SECONDS * 1e9;

	if (state != HOT) {
		if (t->device)
			mmnf_gpu_forget(field, &whole);
		mmnf_evict(field, &whole);
		if (resident_share(field) > 0.01)
			return "what is there cannot be evicted";
	}
	if (state == WARM) {
		mmnf_prefetch(field, &whole);
		while (resident_share(field) < 0.99) {
			if (now_ns() > end)
				return "it is not read ahead in 20 s";
			nanosleep(&pause, NULL);
		}
	}
	if (state == HOT)
		for (; box.start[0] < RECORDS; box.start[0] += SCAN_RECORDS)
			if (!copy(field, t, &box))
				return "it cannot be read";
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* The median of copies of records that lie apart. */
static double measure_singles(struct mmnf_field *field, struct table *t)
{
	struct mmnf_box box = { .count = { 1, RECORD_FLOATS } };
	double took[SINGLES];
	unsigned int i;

	for (i = 0; i < SINGLES; i++) {
		box.start[0] = scattered(i + 7);
		took[i] = copy(field, t, &box);
		if (!took[i])
			return 0;
		compare(t, box.start[0], t->data);
	}
	qsort(took, SINGLES, sizeof(took[0]), by_value);
	return took[SINGLES / 2];
}

static double measure_batch(struct mmnf_field *field, struct table *t)
{
	double took = copy(field, t, NULL);
	unsigned int i;

	for (i = 0; took > 0 && i < BATCH; i++)
		compare(t, t->index[i], t->data + i * RECORD_FLOATS);
	return took;
}

static double measure_scan(struct mmnf_field *field, struct table *t)
{
	struct mmnf_box box = { .count = { SCAN_RECORDS, RECORD_FLOATS } };
	double took = 0, one;

	for (; box.start[0] < RECORDS; box.start[0] += SCAN_RECORDS) {
		one = copy(field, t, &box);
		if (!one)
			return 0;
		took += one;
		compare(t, box.start[0], t->data);
	}
	return took / RECORDS;
}

static double (*const measure[])(struct mmnf_field *field, struct table *t) = {
	measure_singles, measure_batch, measure_scan
};

/* Turns the tier on and takes memory for results; else why[] says why not. */
static bool begin_gpu(struct mmnf_field *field, struct table *t, char *why,
		      size_t len)
{
	struct mmnf_tiers tiers = { .size = sizeof(tiers) };

	if (mmnf_gpu_enable(field, NULL) || mmnf_tiers_info(field, &tiers)) {
		snprintf(why, len, "%s", mmnf_last_error());
		return false;
	}
	/* The tests' driver computes on the CPU: its time says nothing. */
	if (strstr(tiers.tier[0].text, "not a GPU")) {
		snprintf(why, len, "%s", tiers.tier[0].text);
		return false;
	}
	if (mmnf_device_alloc(&t->device, 0, BATCH * RECORD_BYTES)) {
		snprintf(why, len, "%s", mmnf_last_error());
		return false;
	}
	return true;
}

/* Each of it from a state that was brought about for it. */
static int measure_engine(const struct options *o, struct table *t, size_t e)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;
	const char *why = NULL;
	int what, state;

	opts.engine = engines[e].engine;
	opts.l2_bytes = L2_BYTES;
	if (mmnf_field_open(&field, t->path, &opts)) {
		snprintf(t->why[e], sizeof(t->why[e]), "%s", mmnf_last_error());
		return EXIT_SUCCESS;
	}
	if (engines[e].is_gpu &&
	    !begin_gpu(field, t, t->why[e], sizeof(t->why[e]))) {
		mmnf_field_close(field);
		return EXIT_SUCCESS;
	}
	for (state = 0; state < NR_STATES; state++)
		for (what = 0; what < NR_WHATS; what++) {
			why = bring(field, (enum state)state, t);
			if (why) {
				if (!t->why[e][0])
					snprintf(t->why[e], sizeof(t->why[e]),
						 "%s: %s", state_names[state],
						 why);
				break;
			}
			t->ns[e][what][state] = measure[what](field, t);
		}
	mmnf_device_free(t->device, NULL);
	t->device = 0;
	mmnf_field_close(field);
	return t->nr_wrong ? failure(o, "engine %s: wrong values were read",
				     engines[e].name) :
			     EXIT_SUCCESS;
}

/* The floor: the same copies from an array in memory. */
static void measure_memory(struct table *t)
{
	char *from = malloc(RECORDS * RECORD_BYTES), *to = (char *)t->data;
	double start, took[SINGLES];
	uint64_t i;

	if (!from)
		return;
	memset(from, 1, RECORDS * RECORD_BYTES);
	for (i = 0; i < SINGLES; i++) {
		start = now_ns();
		memcpy(to, from + scattered(i + 7) * RECORD_BYTES,
		       RECORD_BYTES);
		took[i] = now_ns() - start;
	}
	qsort(took, SINGLES, sizeof(took[0]), by_value);
	t->memory_ns[SINGLE] = took[SINGLES / 2];
	start = now_ns();
	for (i = 0; i < BATCH; i++)
		memcpy(to + i * RECORD_BYTES, from + t->index[i] * RECORD_BYTES,
		       RECORD_BYTES);
	t->memory_ns[BATCH_OF_1000] = now_ns() - start;
	start = now_ns();
	for (i = 0; i < RECORDS; i += SCAN_RECORDS)
		memcpy(to, from + i * RECORD_BYTES,
		       SCAN_RECORDS * RECORD_BYTES);
	t->memory_ns[SCAN] = (now_ns() - start) / RECORDS;
	free(from);
}

static void machine_line(char *text, size_t len)
{
	char line[256], cpu[128] = "unknown processor", memory[16];
	struct utsname u;
	FILE *from = fopen("/proc/cpuinfo", "re");

	while (from && fgets(line, sizeof(line), from))
		if (sscanf(line, "model name : %127[^\n]", cpu) == 1)
			break;
	if (from)
		fclose(from);
	uname(&u);
	human_bytes((uint64_t)sysconf(_SC_PHYS_PAGES) *
			    (uint64_t)sysconf(_SC_PAGESIZE),
		    memory);
	snprintf(text, len, "%s, %ld threads, %s of memory, Linux %s", cpu,
		 sysconf(_SC_NPROCESSORS_ONLN), memory, u.release);
}

static void duration(double ns, char text[16])
{
	if (ns <= 0)
		snprintf(text, 16, "-");
	else if (ns < 1e4)
		snprintf(text, 16, "%.0f ns", ns);
	else if (ns < 1e7)
		snprintf(text, 16, "%.1f us", ns / 1e3);
	else
		snprintf(text, 16, "%.1f ms", ns / 1e6);
}

static void speed(double ns, uint64_t bytes, char text[24])
{
	char human[16];

	human_bytes(ns > 0 ? (uint64_t)((double)bytes / ns * 1e9) : 0, human);
	snprintf(text, 24, "%s/s", human);
	if (ns <= 0)
		strcpy(text, "-");
}

static void print_row(const char *engine, const char *tier, const char *state,
		      const double *ns, size_t pitch)
{
	char single[16], batch[16], batch_speed[24], scan_speed[24];

	duration(ns[SINGLE * pitch], single);
	duration(ns[BATCH_OF_1000 * pitch], batch);
	speed(ns[BATCH_OF_1000 * pitch], BATCH * RECORD_BYTES, batch_speed);
	speed(ns[SCAN * pitch], RECORD_BYTES, scan_speed);
	printf("%-8s %-23s %-5s %12s %12s %13s %13s\n", engine, tier, state,
	       single, batch, batch_speed, scan_speed);
}

static const char *tier_of(size_t e, int state)
{
	if (state == COLD)
		return "L3 storage";
	if (engines[e].is_gpu && state == HOT)
		return "L1 memory of the GPU";
	return engines[e].engine == MMNF_ENGINE_DIRECT ?
		       "L2 cache of the library" :
		       "L2 page cache";
}

static void put_tiers(const struct table *t)
{
	struct mmnf_tiers tiers = { .size = sizeof(tiers) };
	struct mmnf_field *field;
	uint32_t i;

	if (mmnf_field_open(&field, t->path, NULL))
		return;
	if (!mmnf_tiers_info(field, &tiers))
		for (i = 0; i < tiers.nr_tiers; i++)
			if (tiers.tier[i].level > 2 && !tiers.tier[i].is_on)
				printf("L%u %s: not measured: %s\n",
				       tiers.tier[i].level, tiers.tier[i].name,
				       tiers.tier[i].text);
	mmnf_field_close(field);
}

static void print_table(const struct table *t)
{
	char machine[400];
	size_t e;
	int state;

	machine_line(machine, sizeof(machine));
	printf("%s\nrecords of 4 KiB from 128 MiB in %s; wall time, one thread\n\n"
	       "%-8s %-23s %-5s %12s %12s %13s %13s\n",
	       machine, t->folder, "engine", "tier", "state", "one, median",
	       "1,000 at once", "", "in order");
	print_row("memcpy", "plain memory", "hot", t->memory_ns, 1);
	for (e = 0; e < NR_ENGINES; e++) {
		for (state = 0; state < NR_STATES; state++)
			if (t->ns[e][SINGLE][state] > 0)
				print_row(engines[e].name, tier_of(e, state),
					  state_names[state],
					  &t->ns[e][0][state], NR_STATES);
		if (t->why[e][0])
			printf("%-8s not measured: %s\n", engines[e].name,
			       t->why[e]);
	}
	put_tiers(t);
}

static json_t *line_json(const char *engine, const char *what,
			 const char *state, double ns)
{
	struct utsname u;
	char name[64];

	uname(&u);
	snprintf(name, sizeof(name), "%s@%s", what, state);
	return json_pack("{ss ss ss ss sf ss ss ss}", "bench", "table", "case",
			 name, "engine", engine, "metric",
			 !strcmp(what, "batch-1000") ? "ns_per_batch" :
						       "ns_per_record",
			 "value", ns, "unit", "ns", "clock", "wall", "kernel",
			 u.release);
}

static json_t *table_json(const struct table *t)
{
	json_t *list = json_array(), *missing = json_object();
	char machine[400];
	int what, state;
	size_t e;

	for (what = 0; what < NR_WHATS; what++)
		json_array_append_new(list,
				      line_json("memcpy", what_names[what],
						"hot", t->memory_ns[what]));
	for (e = 0; e < NR_ENGINES; e++) {
		for (what = 0; what < NR_WHATS; what++)
			for (state = 0; state < NR_STATES; state++)
				if (t->ns[e][what][state] > 0)
					json_array_append_new(
						list,
						line_json(
							engines[e].name,
							what_names[what],
							state_names[state],
							t->ns[e][what][state]));
		if (t->why[e][0])
			json_object_set_new(missing, engines[e].name,
					    json_string(t->why[e]));
	}
	machine_line(machine, sizeof(machine));
	return json_pack("{ss so so}", "machine", machine, "not_measured",
			 missing, "results", list);
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

int bench_table(const struct options *o, const char *folder)
{
	struct table *t = calloc(1, sizeof(*t));
	int ret = EXIT_SUCCESS;
	uint64_t i;
	size_t e;

	if (!t)
		return failure(o, "%s", strerror(ENOMEM));
	t->folder = folder;
	t->data = malloc(BATCH * RECORD_BYTES);
	t->index = calloc(BATCH, sizeof(*t->index));
	snprintf(t->path, sizeof(t->path), "%s/mmnf-bench.XXXXXX", folder);
	if (!t->data || !t->index)
		ret = failure(o, "%s", strerror(ENOMEM));
	else if (!mkdtemp(t->path))
		ret = failure(o, "%s: %s", folder, strerror(errno));
	if (!ret) {
		/* The field is a folder in the one that is ours. */
		strncat(t->path, "/f", sizeof(t->path) - strlen(t->path) - 1);
		for (i = 0; i < BATCH; i++)
			t->index[i] = scattered(i + 100000);
		ret = make_field(o, t);
		for (e = 0; !ret && e < NR_ENGINES; e++)
			ret = measure_engine(o, t, e);
		if (!ret) {
			measure_memory(t);
			if (o->json)
				ret = print_result(o, table_json(t));
			else
				print_table(t);
		}
		t->path[strlen(t->path) - 2] = 0;
		nftw(t->path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	}
	free(t->data);
	free(t->index);
	free(t);
	return ret;
}
