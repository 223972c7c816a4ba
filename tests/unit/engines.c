// SPDX-License-Identifier: MIT
/*
 * The same bytes from every engine: boxes, lists, batches and pointers of fields
 * whose elements are a hash of their place, over every engine, way of reading
 * and size of L2 that this machine has, and every way to cut a field.
 */
#define KTAP_TIMEOUT 180 /* on a loaded machine */
#include "conform.h"

#include <pthread.h>

static const struct engine {
	const char *name;
	struct mmnf_open_opts opts;
} engines[] = {
	{ "auto", { .engine = MMNF_ENGINE_AUTO } },
	{ "device", { .engine = MMNF_ENGINE_DEVICE } },
	{ "mmap", { .engine = MMNF_ENGINE_MMAP } },
	{ "mmap, quiet", { .engine = MMNF_ENGINE_MMAP, .prefetch_off = 1 } },
	{ "mmap, pread",
	  { .engine = MMNF_ENGINE_MMAP, .uring = MMNF_URING_OFF } },
	{ "direct", { .engine = MMNF_ENGINE_DIRECT } },
	{ "direct, LRU, small",
	  { .engine = MMNF_ENGINE_DIRECT,
	    .l2_policy = MMNF_L2_LRU,
	    .l2_bytes = 1 << 18 } },
	{ "direct, SIEVE, small",
	  { .engine = MMNF_ENGINE_DIRECT,
	    .l2_policy = MMNF_L2_SIEVE,
	    .l2_bytes = 1 << 18 } },
	{ "direct, S3-FIFO, tiny",
	  { .engine = MMNF_ENGINE_DIRECT,
	    .l2_policy = MMNF_L2_S3FIFO,
	    .l2_bytes = 1 } },
	{ "direct, populated",
	  { .engine = MMNF_ENGINE_DIRECT,
	    .l2_bytes = 1 << 20,
	    .l2_populate = 1 } },
	{ "direct, pread",
	  { .engine = MMNF_ENGINE_DIRECT,
	    .uring = MMNF_URING_OFF,
	    .l2_bytes = 1 << 20 } },
	{ "direct, SQPOLL",
	  { .engine = MMNF_ENGINE_DIRECT,
	    .uring = MMNF_URING_SQPOLL,
	    .l2_bytes = 1 << 20 } },
	{ "direct, once", { .engine = MMNF_ENGINE_DIRECT, .l2_once = 1 } },
	{ "direct, once, pread, tiny",
	  { .engine = MMNF_ENGINE_DIRECT,
	    .uring = MMNF_URING_OFF,
	    .l2_bytes = 1,
	    .l2_once = 1 } },
	{ "direct, once, LRU, quiet",
	  { .engine = MMNF_ENGINE_DIRECT,
	    .prefetch_off = 1,
	    .l2_policy = MMNF_L2_LRU,
	    .l2_once = 1 } },
};

#define NR_ENGINES (sizeof(engines) / sizeof(engines[0]))

static const struct layout layouts[] = {
	{ MMNF_U32, 3, { 40, 33, 70 }, 0, 0, NULL },
	{ MMNF_U32, 3, { 40, 33, 70 }, 4 * 33 * 70 * 7, 0, NULL },
	{ MMNF_U32, 3, { 40, 33, 70 }, 4 * 70 * 10, 7, NULL },
	{ MMNF_U32, 2, { 600, 1024 }, 4096 * 64, 0, NULL },
	{ MMNF_U32, 2, { 25, 30000 }, 0, 0, NULL },
	{ MMNF_U32, 1, { 300001 }, 1 << 16, 9, NULL },
	{ MMNF_U32, 4, { 3, 9, 14, 50 }, 4 * 50 * 14 * 2, 0, NULL },
	{ MMNF_U32, 3, { 40, 33, 70 }, 0, 5, "[16, 11, 32]" },
};

#define NR_LAYOUTS (sizeof(layouts) / sizeof(layouts[0]))
static void put_manifest(const char *path)
{
	char text[1024];

	ASSERT_EQ(mkdir(path, 0777), 0);
	ASSERT_EQ(chdir(path), 0);
	snprintf(text, sizeof(text),
		 "{\"zarr_format\": 3, \"node_type\": \"array\","
		 "\"shape\": [%d, %d, %d], \"data_type\": \"uint32\","
		 "\"chunk_grid\": {\"name\": \"regular\", \"configuration\":"
		 "{\"chunk_shape\": %s}}, \"chunk_key_encoding\": {\"name\":"
		 "\"default\", \"configuration\": {\"separator\": \"/\"}},"
		 "\"fill_value\": %u, \"codecs\": [{\"name\": \"bytes\","
		 "\"configuration\": {\"endian\": \"little\"}}]}",
		 (int)l->shape[0], (int)l->shape[1], (int)l->shape[2], l->chunk,
		 l->fill);
	put_file("zarr.json", text, strlen(text));
	ASSERT_EQ(chdir(".."), 0);
}

static void make_layout(const char *path)
{
	struct mmnf_box box = { { 0 }, { 0 }, { 0 } };
	struct mmnf_field *field;
	uint64_t i, nr = nr_elements() / l->shape[0] * written();

	if (l->chunk)
		put_manifest(path);
	field = l->chunk ? open_field(path, true) :
			   make_field(path, l->dtype, l->ndim, l->shape,
				      l->segment_bytes, &l->fill);
	ASSERT_LE(nr_elements(), ELEMENTS_MAX);
	for (i = 0; i < nr; i++)
		out[i] = value(i);
	for (i = 0; i < l->ndim; i++)
		box.count[i] = i ? l->shape[i] : written();
	ASSERT_EQ(mmnf_write(field, &box, out, nr * 4), (ssize_t)(nr * 4));
	ASSERT_EQ(mmnf_field_sync(field), 0);
	mmnf_field_close(field);
}

static void check_pointer(struct mmnf_field *field)
{
	uint64_t coord[4];
	const uint32_t *p;
	unsigned int i;

	for (i = 0; i < l->ndim; i++)
		coord[i] = rnd() % l->shape[i];
	p = mmnf_activate(field, coord);
	ASSERT_TRUE(p);
	ASSERT_EQ(*p, expected(coord));
}

static struct mmnf_field *open_engine(const struct engine *e, const char *path)
{
	struct mmnf_open_opts opts = e->opts;
	struct mmnf_field *field;
	int err;

	opts.size = sizeof(opts);
	err = mmnf_field_open(&field, path, &opts);
	if (err == -EOPNOTSUPP && opts.engine == MMNF_ENGINE_DEVICE)
		return NULL; /* no module here: in the guest there is */
	ASSERT_EQ(err, 0);
	return field;
}

TEST(same_bytes_from_each)
{
	struct mmnf_field *field;
	unsigned int i, e, n;
	char path[16];

	scratch();
	for (i = 0; i < NR_LAYOUTS; i++) {
		l = &layouts[i];
		snprintf(path, sizeof(path), "f%u", i);
		make_layout(path);
		for (e = 0; e < NR_ENGINES; e++) {
			field = open_engine(&engines[e], path);
			for (n = 0; field && n < 6; n++) {
				check_box(field);
				check_list(field);
				check_pointer(field);
			}
			if (ktap_shared->failures)
				ktap_failed("# layout %u, engine %s\n", i,
					    engines[e].name);
			mmnf_field_close(field);
			if (ktap_shared->failures)
				return;
		}
	}
}

/* What is written through a handle is what it reads, L2 or not. */
TEST(writes_are_seen)
{
	struct mmnf_box box = { { 0 }, { 0 }, { 0 } };
	uint64_t i, nr;
	struct mmnf_open_opts opts;
	struct mmnf_field *field;
	unsigned int e, n;
	char path[16];

	scratch();
	l = &layouts[1];
	for (e = 0; e < NR_ENGINES; e++) {
		if (engines[e].opts.engine == MMNF_ENGINE_DEVICE)
			continue;
		snprintf(path, sizeof(path), "f%u", e);
		make_layout(path);
		opts = engines[e].opts;
		opts.size = sizeof(opts);
		opts.writable = 1;
		ASSERT_EQ(mmnf_field_open(&field, path, &opts), 0);
		for (n = 0; n < 40; n++) {
			box = random_box();
			nr = elements_of(&box);
			ASSERT_GE(mmnf_get(field, &box, out, sizeof(out)), 0);
			for (i = 0; i < nr; i++)
				out[i] = n;
			ASSERT_EQ(mmnf_write(field, &box, out, nr * 4),
				  (ssize_t)(nr * 4));
			memset(out, 0xee, nr * 4);
			ASSERT_EQ(mmnf_get(field, &box, out, nr * 4),
				  (ssize_t)(nr * 4));
			for (i = 0; i < nr; i++)
				ASSERT_EQ(out[i], n);
		}
		mmnf_field_close(field);
	}
}

struct reader {
	pthread_t thread;
	struct mmnf_field *field;
	uint64_t seed, nr_wrong;
};

/* Boxes of one row of axis 1 in this thread's own memory. */
static void *read_boxes(void *arg)
{
	struct reader *r = arg;
	uint32_t row[1024];
	unsigned int n, i;

	for (n = 0; n < 400; n++) {
		struct mmnf_box box = { { 0 }, { 1, 1024 }, { 1, 1 } };

		r->seed = r->seed * 6364136223846793005ULL +
			  1442695040888963407ULL;
		box.start[0] = (r->seed >> 33) % l->shape[0];
		if (n % 16 == 0)
			mmnf_prefetch(r->field, &box);
		if (n % 50 == 0)
			mmnf_evict(r->field, &box);
		if (mmnf_get(r->field, &box, row, sizeof(row)) !=
		    (ssize_t)sizeof(row))
			r->nr_wrong++;
		for (i = 0; i < 1024; i++)
			r->nr_wrong += row[i] != value(box.start[0] * 1024 + i);
	}
	return NULL;
}

TEST(threads_share_a_field)
{
	struct reader readers[4];
	struct mmnf_field *field;
	unsigned int e, i;

	scratch();
	l = &layouts[3];
	make_layout("f");
	for (e = 0; e < NR_ENGINES; e++) {
		field = open_engine(&engines[e], "f");
		for (i = 0; field && i < 4; i++) {
			readers[i] =
				(struct reader) { .field = field, .seed = i };
			ASSERT_EQ(pthread_create(&readers[i].thread, NULL,
						 read_boxes, &readers[i]),
				  0);
		}
		for (i = 0; field && i < 4; i++) {
			pthread_join(readers[i].thread, NULL);
			EXPECT_EQ(readers[i].nr_wrong, 0);
		}
		mmnf_field_close(field);
	}
}

TEST(engine_says_why)
{
	struct mmnf_field *field;
	unsigned int e;

	scratch();
	l = &layouts[0];
	make_layout("f");
	for (e = 0; e < NR_ENGINES; e++) {
		field = open_engine(&engines[e], "f");
		if (!field)
			continue;
		EXPECT_TRUE(info_of(field).engine_reason[0]);
		if (engines[e].opts.engine)
			EXPECT_EQ(info_of(field).engine,
				  engines[e].opts.engine);
		if (engines[e].opts.uring == MMNF_URING_OFF)
			EXPECT_TRUE(
				strstr(info_of(field).engine_reason, "pread"));
		mmnf_field_close(field);
	}
}

/* A file cut under an open field is an error of the call, not a signal. */
TEST(cut_file_is_an_error)
{
	struct mmnf_box box = { { 0 }, { 0 }, { 0 } };
	struct mmnf_field *field;
	unsigned int e, i;
	char path[16];

	scratch();
	l = &layouts[3];
	for (i = 0; i < l->ndim; i++)
		box.count[i] = l->shape[i];
	for (e = 0; e < NR_ENGINES; e++) {
		char file[64];

		snprintf(path, sizeof(path), "f%u", e);
		make_layout(path);
		field = open_engine(&engines[e], path);
		if (!field)
			continue;
		ASSERT_EQ(mmnf_get(field, &box, out, sizeof(out)),
			  (ssize_t)(nr_elements() * 4));
		mmnf_evict(field, &box);
		snprintf(file, sizeof(file), "%s/c/2/0", path);
		ASSERT_EQ(truncate(file, 4096 * 3), 0);
		EXPECT_FAILS(mmnf_get(field, &box, out, sizeof(out)), EIO,
			     "mmnf_get", "expected 262144");
		mmnf_field_close(field);
	}
}

TEST_MAIN
