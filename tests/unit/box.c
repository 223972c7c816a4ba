// SPDX-License-Identifier: MIT
/*
 * Boxes, lists and pointers against an array in memory: random boxes of random
 * steps, written and read over every way to cut a field into segments.
 */
#define KTAP_TIMEOUT 180 /* on a loaded machine */
#include "field_util.h"

#include <errno.h>
#include <fetch.h>
#include <geometry.h>

#define MODEL_BYTES (1 << 20)

/* The same field twice: ours, and its elements in C order. */
static struct {
	struct mmnf_field *field;
	unsigned int ndim, bytes;
	uint64_t shape[MMNF_NDIM_MAX];
	uint64_t nr;
} m;
static unsigned char model[MODEL_BYTES], packed[MODEL_BYTES], out[MODEL_BYTES];

static const struct config {
	enum mmnf_dtype dtype;
	unsigned int ndim;
	uint64_t shape[MMNF_NDIM_MAX];
	uint64_t segment_bytes;
} configs[] = {
	/* One segment; cut along each axis; one element each; odd pages. */
	{ MMNF_U32, 3, { 23, 17, 29 }, 0 },
	{ MMNF_F32, 3, { 23, 17, 29 }, 4 * 17 * 29 * 5 },
	{ MMNF_I32, 3, { 23, 17, 29 }, 4 * 29 * 6 },
	{ MMNF_U32, 3, { 7, 5, 29 }, 4 * 9 },
	{ MMNF_U32, 3, { 5, 4, 6 }, 4 },
	{ MMNF_U8, 1, { 100003 }, 4096 },
	{ MMNF_I8, 1, { 10007 }, 10007 },
	{ MMNF_F64, 2, { 131, 257 }, 8 * 257 * 10 },
	{ MMNF_U64, 2, { 1, 5000 }, 8 * 777 },
	{ MMNF_F16, 4, { 5, 1, 9, 33 }, 2 * 33 * 4 },
	{ MMNF_BF16, 5, { 3, 4, 5, 6, 7 }, 2 * 7 * 6 * 5 * 3 },
	{ MMNF_I16, 8, { 2, 3, 2, 3, 2, 3, 2, 3 }, 2 * 3 * 2 * 2 },
};

#define NR_CONFIGS (sizeof(configs) / sizeof(configs[0]))

static uint64_t element_of(const struct mmnf_box *box, const uint64_t *index)
{
	uint64_t at = 0;
	unsigned int i;

	for (i = 0; i < m.ndim; i++) {
		int64_t step = box->step[i] ? box->step[i] : 1;

		at = at * m.shape[i] + (uint64_t)((int64_t)box->start[i] +
						  (int64_t)index[i] * step);
	}
	return at;
}

/* Copies between the model and a packed box; returns bytes. */
static uint64_t model_box(const struct mmnf_box *box, unsigned char *buf,
			  bool write)
{
	uint64_t index[MMNF_NDIM_MAX] = { 0 }, done = 0;
	unsigned int i;

	for (i = 0; i < m.ndim; i++)
		if (!box->count[i])
			return 0;
	for (;;) {
		unsigned char *e = model + element_of(box, index) * m.bytes;

		if (write)
			memcpy(e, buf + done, m.bytes);
		else
			memcpy(buf + done, e, m.bytes);
		done += m.bytes;
		for (i = m.ndim; i-- > 0;) {
			if (++index[i] < box->count[i])
				break;
			index[i] = 0;
		}
		if (i > m.ndim)
			return done;
	}
}

static struct mmnf_box random_box(void)
{
	struct mmnf_box box = { { 0 }, { 0 }, { 0 } };
	unsigned int i;

	for (i = 0; i < m.ndim; i++) {
		uint64_t n = m.shape[i], start = rnd() % n, room, step;
		bool back = rnd() % 3 == 0;

		if (rnd() % 3 == 0) { /* the whole axis */
			box.start[i] = back ? n - 1 : 0;
			box.count[i] = n;
			box.step[i] = back ? -1 : (int64_t)(rnd() % 2);
			continue;
		}
		room = back ? start : n - 1 - start;
		step = 1 + (rnd() % 2 ? rnd() % (room + 1) : rnd() % 3);
		box.start[i] = start;
		box.count[i] = 1 + rnd() % (room / step + 1);
		box.step[i] = back ? -(int64_t)step : (int64_t)step;
		if (rnd() % 64 == 0)
			box.count[i] = 0;
	}
	return box;
}

static void check_get(const struct mmnf_box *box)
{
	uint64_t bytes = model_box(box, packed, false);

	memset(out, 0xa5, bytes + 8);
	ASSERT_EQ(mmnf_get(m.field, box, out, bytes), bytes);
	ASSERT_EQ(memcmp(out, packed, bytes), 0);
	ASSERT_EQ(out[bytes], 0xa5);
}

static void write_random(const struct mmnf_box *box)
{
	uint64_t bytes, i;

	bytes = model_box(box, packed, false);
	for (i = 0; i < bytes; i++)
		packed[i] = (unsigned char)rnd();
	model_box(box, packed, true);
	ASSERT_EQ(mmnf_write(m.field, box, packed, bytes), bytes);
}

static void check_activate(void)
{
	uint64_t at[MMNF_NDIM_MAX], index[MMNF_NDIM_MAX] = { 0 };
	struct mmnf_box box = { { 0 }, { 0 }, { 0 } };
	const void *p;
	unsigned int i;

	for (i = 0; i < m.ndim; i++)
		box.start[i] = at[i] = rnd() % m.shape[i];
	p = mmnf_activate(m.field, at);
	ASSERT_TRUE(p);
	ASSERT_EQ(memcmp(p, model + element_of(&box, index) * m.bytes, m.bytes),
		  0);
	if (m.ndim == 2)
		ASSERT_TRUE(mmnf_activate_2d(m.field, at[0], at[1]) == p);
	if (m.ndim == 3)
		ASSERT_TRUE(mmnf_activate_3d(m.field, at[0], at[1], at[2]) ==
			    p);
}

static void check_list(void)
{
	uint64_t record = m.nr / m.shape[0] * m.bytes, list[16], i;
	uint64_t nr = 1 + rnd() % 16;

	if (nr * record > sizeof(out))
		nr = 1;
	for (i = 0; i < nr; i++)
		list[i] = rnd() % m.shape[0];
	ASSERT_EQ(mmnf_batch_get(m.field, list, nr, out, nr * record),
		  nr * record);
	for (i = 0; i < nr; i++)
		ASSERT_EQ(memcmp(out + i * record, model + list[i] * record,
				 record),
			  0);
}

static void begin(const struct config *c, const void *fill)
{
	uint64_t i;

	scratch();
	seed = 12345;
	memset(&m, 0, sizeof(m));
	m.ndim = c->ndim;
	m.bytes = mmnf_dtype_bytes(c->dtype);
	memcpy(m.shape, c->shape, sizeof(m.shape));
	for (m.nr = 1, i = 0; i < m.ndim; i++)
		m.nr *= m.shape[i];
	ASSERT_LE(m.nr * m.bytes, MODEL_BYTES - 8);
	for (i = 0; i < m.nr * m.bytes; i++)
		model[i] = ((const unsigned char *)fill)[i % m.bytes];
	m.field = make_field("f", c->dtype, c->ndim, c->shape, c->segment_bytes,
			     fill);
}

/* 250 boxes of each kind over each way to cut: 3000 read, 600 written. */
/* Once where the library predicts, and once where nobody does. */
static void read_again(bool prefetch_off)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_box box;
	int i;

	opts.engine = MMNF_ENGINE_MMAP;
	opts.prefetch_off = prefetch_off;
	ASSERT_EQ(mmnf_field_open(&m.field, "f", &opts), 0);
	for (i = 0; i < 40; i++) {
		box = random_box();
		check_get(&box);
		check_activate();
	}
	if (m.ndim != 2) {
		EXPECT_TRUE(!mmnf_activate_2d(m.field, 0, 0));
		expect_text(__FILE__, __LINE__, "2d",
			    "mmnf_activate: ", "axes: expected 2");
	}
	if (m.ndim != 3)
		EXPECT_TRUE(!mmnf_activate_3d(m.field, 0, 0, 0));
	mmnf_field_close(m.field);
}

static void against_the_model(const void *fill)
{
	size_t k;
	int i;

	for (k = 0; k < NR_CONFIGS; k++) {
		struct mmnf_box box;

		begin(&configs[k], fill);
		for (i = 0; i < 250; i++) {
			if (i % 5 == 0) {
				box = random_box();
				write_random(&box);
			}
			box = random_box();
			check_get(&box);
			check_activate();
			if (i % 4 == 0)
				check_list();
		}
		ASSERT_EQ(mmnf_field_sync(m.field), 0);
		mmnf_field_close(m.field);
		read_again(false);
		read_again(true);
		scratch_remove();
	}
}

TEST(random_boxes_over_zero)
{
	against_the_model("\0\0\0\0\0\0\0");
}

/* Bytes that are a number in each type. */
TEST(random_boxes_over_a_fill)
{
	against_the_model("\x01\x02\x03\x04\x05\x06\x07\x08");
}

static void write_all(uint32_t (*value)(uint64_t element))
{
	struct mmnf_box box = { { 0 }, { 0 }, { 0 } };
	uint64_t i;

	for (i = 0; i < m.nr; i++)
		((uint32_t *)packed)[i] = value(i);
	memcpy(box.count, m.shape, sizeof(box.count));
	ASSERT_EQ(mmnf_write(m.field, &box, packed, m.nr * 4), m.nr * 4);
}

static uint32_t closed_form(uint64_t element)
{
	return (uint32_t)(element * 2654435761U + 99);
}

/* Slices as numpy writes them, expected values from the index alone. */
TEST(slices_of_a_closed_form)
{
	static const uint32_t zero;
	static const struct mmnf_box boxes[] = {
		{ { 4, 3, 2 }, { 10, 5, 7 }, { 1, 1, 1 } },
		{ { 22, 16, 28 }, { 23, 17, 29 }, { -1, -1, -1 } },
		{ { 22, 0, 1 }, { 8, 17, 14 }, { -3, 0, 2 } },
		{ { 0, 8, 28 }, { 2, 1, 3 }, { 22, -5, -14 } },
		{ { 7, 7, 7 }, { 1, 1, 1 }, { INT64_MIN, INT64_MAX, 0 } },
	};
	uint64_t a, b, c, at, wrong;
	const uint32_t *got = (const uint32_t *)out;
	size_t i;

	begin(&configs[2], &zero);
	write_all(closed_form);
	for (i = 0; i < sizeof(boxes) / sizeof(boxes[0]); i++) {
		const struct mmnf_box *x = &boxes[i];

		ASSERT_GT(mmnf_get(m.field, x, out, sizeof(out)), 0);
		for (at = wrong = a = 0; a < x->count[0]; a++)
			for (b = 0; b < x->count[1]; b++)
				for (c = 0; c < x->count[2]; c++) {
					uint64_t index[3] = { a, b, c };

					wrong += got[at++] !=
						 closed_form(
							 element_of(x, index));
				}
		EXPECT_EQ(wrong, 0);
	}
	mmnf_field_close(m.field);
}

#define BOX(...) (&(const struct mmnf_box) { __VA_ARGS__ })

TEST(empty_boxes)
{
	static const uint32_t zero;

	begin(&configs[0], &zero);
	EXPECT_EQ(mmnf_get(m.field, BOX({ 1, 2, 3 }, { 4, 0, 5 }, { 0 }), NULL,
			   0),
		  0);
	EXPECT_EQ(mmnf_write(m.field, BOX({ 1, 2, 3 }, { 0, 1, 1 }, { 0 }),
			     NULL, 0),
		  0);
	EXPECT_EQ(mmnf_batch_get(m.field, NULL, 0, NULL, 0), 0);
	EXPECT_EQ(mmnf_prefetch(m.field, BOX({ 0 }, { 0 }, { 0 })), 0);
	EXPECT_EQ(mmnf_evict(m.field, BOX({ 0 }, { 0 }, { 0 })), 0);
	EXPECT_EQ(access("f/c", F_OK), -1);
	mmnf_field_close(m.field);
}

TEST(boxes_that_leave_the_field)
{
	static const uint32_t zero;
	static const struct mmnf_box bad[] = {
		{ { 23, 0, 0 }, { 1, 1, 1 }, { 0 } },
		{ { 0, 0, 29 }, { 1, 1, 1 }, { 0 } },
		{ { 0, 0, 0 }, { 24, 1, 1 }, { 0 } },
		{ { 1, 0, 0 }, { 23, 1, 1 }, { 1, 1, 1 } },
		{ { 0, 0, 0 }, { 1, 3, 1 }, { 1, 9, 1 } },
		{ { 0, 3, 0 }, { 1, 5, 1 }, { 1, -1, 1 } },
		{ { 0, 0, 0 }, { 2, 1, 1 }, { INT64_MAX, 1, 1 } },
		{ { 22, 0, 0 }, { 2, 1, 1 }, { INT64_MIN, 1, 1 } },
		{ { 0, 0, 0 }, { UINT64_MAX, 1, 1 }, { INT64_MAX, 1, 1 } },
		{ { UINT64_MAX, 0, 0 }, { UINT64_MAX, 1, 1 }, { -1, 1, 1 } },
		{ { 5, 0, 0 }, { 3, 1, 1 }, { 1LL << 63, 1, 1 } },
	};
	MMNF_OPTS(mmnf_residency, where);
	uint64_t at[3] = { 0, 17, 0 }, list[2] = { 22, 23 };
	size_t i;

	begin(&configs[0], &zero);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		EXPECT_FAILS(mmnf_get(m.field, &bad[i], out, sizeof(out)),
			     ERANGE, "mmnf_get", "box leaves axis");
		EXPECT_FAILS(mmnf_write(m.field, &bad[i], packed, 4), ERANGE,
			     "mmnf_write", "box leaves axis");
		EXPECT_FAILS(mmnf_prefetch(m.field, &bad[i]), ERANGE,
			     "mmnf_prefetch", "box leaves axis");
		EXPECT_FAILS(mmnf_evict(m.field, &bad[i]), ERANGE, "mmnf_evict",
			     "box leaves axis");
		EXPECT_FAILS(mmnf_residency(m.field, &bad[i], &where), ERANGE,
			     "mmnf_residency", "box leaves axis");
	}
	EXPECT_TRUE(!mmnf_activate(m.field, at));
	EXPECT_STREQ(
		mmnf_last_error(),
		"mmnf_activate: coordinate of axis 1 is outside: expected 0..16");
	EXPECT_FAILS(mmnf_batch_get(m.field, list, 2, out, sizeof(out)), ERANGE,
		     "mmnf_batch_get", "index[1] is 23");
	EXPECT_EQ(access("f/c", F_OK), -1);
	mmnf_field_close(m.field);
}

TEST(buffers_of_the_wrong_size)
{
	static const uint32_t zero;
	const struct mmnf_box *box = BOX({ 0 }, { 2, 2, 2 }, { 0 });
	uint64_t list[2] = { 0, 1 };
	uint64_t record = 17 * 29 * 4;

	begin(&configs[0], &zero);
	EXPECT_FAILS(mmnf_get(m.field, box, out, 31), ENOSPC, "mmnf_get",
		     "dst has 31 bytes: expected 32");
	EXPECT_EQ(mmnf_get(m.field, box, out, 33), 32);
	EXPECT_FAILS(mmnf_batch_get(m.field, list, 2, out, 2 * record - 1),
		     ENOSPC, "mmnf_batch_get", "2 records of 1972");
	EXPECT_FAILS(mmnf_batch_get(m.field, list, SIZE_MAX / 8, out, 5),
		     ENOSPC, "mmnf_batch_get", "dst");
	EXPECT_FAILS(mmnf_write(m.field, box, packed, 31), EINVAL, "mmnf_write",
		     "src has 31 bytes: expected 32");
	EXPECT_FAILS(mmnf_write(m.field, box, packed, 33), EINVAL, "mmnf_write",
		     "src has 33 bytes: expected 32");
	mmnf_field_close(m.field);
	m.field = open_field("f", false);
	EXPECT_FAILS(mmnf_write(m.field, box, packed, 32), EBADF, "mmnf_write",
		     "read-only");
	mmnf_field_close(m.field);
}

TEST(structs_of_the_wrong_size)
{
	static const uint32_t zero;
	struct mmnf_field_info info = { .size = 8 };
	struct mmnf_field_stats stats = { .size = 0 };
	struct mmnf_residency where = { .size = sizeof(where) + 8 };

	begin(&configs[0], &zero);
	EXPECT_FAILS(mmnf_field_info(m.field, &info), EINVAL, "mmnf_field_info",
		     "size is 8");
	EXPECT_FAILS(mmnf_field_stats(m.field, &stats), EINVAL,
		     "mmnf_field_stats", "size is 0");
	EXPECT_FAILS(mmnf_residency(m.field, BOX({ 0 }, { 0 }, { 0 }), &where),
		     EINVAL, "mmnf_residency", "size is");
	mmnf_field_close(m.field);
}

/* A box that is one piece of a tile is found without walking, and no other is. */
TEST(one_piece_is_one_run)
{
	uint64_t shape[4], chunk[4], tile[4], bytes, n, nr = 0;
	unsigned int ndim, i, swap[4];
	struct mmnf_geometry g;
	struct mmnf_runs it;
	bool is_one;

	for (n = 0; n < 200000; n++) {
		struct mmnf_box box = { { 0 }, { 0 }, { 0 } }, normal;
		struct mmnf_run run = { 0 }, whole;

		ndim = (unsigned int)(rnd() % 4) + 1;
		for (i = 0; i < ndim; i++) {
			tile[i] = rnd() % 4 + 1;
			chunk[i] = tile[i] * (rnd() % 3 + 1);
			shape[i] = chunk[i] + rnd() % 9;
			swap[i] = i;
		}
		ASSERT_EQ(mmnf_geometry_init(&g, MMNF_U16, ndim, shape, chunk,
					     tile),
			  0);
		i = (unsigned int)(rnd() % ndim);
		swap[0] = i;
		swap[i] = 0;
		mmnf_geometry_transpose(&g, swap);
		for (i = 0; i < ndim; i++) {
			box.start[i] = rnd() % shape[i];
			box.count[i] =
				rnd() % 2 ?
					1 :
					rnd() % (shape[i] - box.start[i]) + 1;
			box.step[i] = rnd() % 8 ? 1 : 2;
			if (rnd() % 4)
				continue;
			box.start[i] -= box.start[i] % tile[i];
			box.count[i] = shape[i] - box.start[i];
			if (box.count[i] > tile[i])
				box.count[i] = tile[i];
		}
		if (mmnf_geometry_box(&g, &box, &normal, &bytes))
			continue;
		mmnf_runs_init(&it, &g, &normal, 1 << 20);
		ASSERT_TRUE(mmnf_runs_next(&it, &run));
		is_one = !run.unit && run.bytes == bytes;
		nr += is_one;
		ASSERT_EQ(mmnf_run_is_whole(&g, &normal, &whole), is_one);
		if (is_one)
			ASSERT_TRUE(!memcmp(&run, &whole, sizeof(run)));
	}
	/* Both happened. */
	EXPECT_GT(nr, n / 10);
	EXPECT_LT(nr, n / 10 * 9);
}

static int by_value(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Each of them once, in the order of qsort(), with the place that it had. */
static void sort_list(struct mmnf_field *field, uint64_t *index, uint64_t nr)
{
	bool *seen = calloc(nr, sizeof(*seen));
	struct mmnf_job job = { 0 };
	uint64_t i, place, bad = 0;

	ASSERT_TRUE(seen);
	ASSERT_EQ(mmnf_io_list(field, &job, index, nr, nr), 0);
	ASSERT_EQ(job.nr_list, nr);
	for (i = 0; i < nr; i++) {
		place = job.list[i].place;
		ASSERT_LT(place, nr);
		bad += seen[place] || index[place] != job.list[i].index;
		seen[place] = true;
	}
	qsort(index, nr, sizeof(*index), by_value);
	for (i = 0; i < nr; i++)
		bad += job.list[i].index != index[i];
	EXPECT_EQ(bad, 0);
	mmnf_job_free(&job);
	free(seen);
}

/* Indices that differ in so many bits: with repeats where these are few. */
TEST(lists_are_sorted)
{
	static const uint64_t differ[] = {
		0,
		0xff,
		(1ULL << 20) - 1,
		(1ULL << 31) - 1,
		(1ULL << 36) - 1,
		(1ULL << 47) - 1,
		(1ULL << 61) - 1,
		0x3fULL << 41,
		0x3ffULL << 48 | 0x3ff, /* nothing in between */
	};
	static const uint64_t lengths[] = {
		2, 511, 512, 513, 3000, 8192, 20000
	};
	static const uint64_t shape[1] = { 1ULL << 61 };
	static const uint64_t chunk[1] = { 1ULL << 40 };
	static struct mmnf_field field; /* no more than its geometry */
	static uint64_t index[20000];
	uint64_t d, n, i, same;

	ASSERT_EQ(mmnf_geometry_init(&field.store.geometry, MMNF_U8, 1, shape,
				     chunk, NULL),
		  0);
	for (d = 0; d < sizeof(differ) / sizeof(differ[0]); d++) {
		for (n = 0; n < sizeof(lengths) / sizeof(lengths[0]); n++) {
			same = rnd() % shape[0] & ~differ[d];
			for (i = 0; i < lengths[n]; i++)
				index[i] = same | (rnd() & differ[d]);
			sort_list(&field, index, lengths[n]);
		}
	}
}

TEST_MAIN
