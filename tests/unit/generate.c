// SPDX-License-Identifier: MIT
/*
 * Generated traces against closed forms; chance against published numbers and its
 * own distribution.
 */
#include <math.h>

#include "ktap.h"

#include "../../tools/generate-lookup.c"
#include "../../tools/generate-walk.c"
#include "../../tools/generate.c"
#include "../../tools/trace.c"

bool parse_u64(const char *text, uint64_t *out)
{
	char *end;

	*out = strtoull(text, &end, 0);
	return end != text && !*end;
}

static struct trace trace;

/* Parameters with blanks between them. */
static bool try(const char *name, const char *params)
{
	char text[256], *list[16], *save = NULL, wrong[200];
	int nr = 0;

	snprintf(text, sizeof(text), "%s", params);
	for (list[0] = strtok_r(text, " ", &save); list[nr];
	     list[nr] = strtok_r(NULL, " ", &save))
		nr++;
	return generate(&trace, name, list, nr, wrong, sizeof(wrong));
}

TEST(nest_is_its_loops)
{
	uint64_t n = 0;
	int i, j, k;

	ASSERT_TRUE(try("nest", "count=3,4,5 stride=1000000,-100000,8192"));
	ASSERT_EQ(trace.nr, 60);
	for (i = 0; i < 3; i++)
		for (j = 0; j < 4; j++)
			for (k = 0; k < 5; k++, n++)
				EXPECT_EQ(trace.access[n].pos,
					  300000 + i * 1000000 - j * 100000 +
						  k * 8192);
	trace_free(&trace);
}

TEST(plane_is_one_touch_per_page)
{
	uint64_t z, page, n = 0;

	/* f32 [4][8][2048], y = 5: rows of two pages. */
	ASSERT_TRUE(try("walk", "shape=4,8,2048 start=0,5,0 count=4,1,2048"));
	ASSERT_EQ(trace.nr, 8);
	for (z = 0; z < 4; z++)
		for (page = 0; page < 2; page++, n++)
			EXPECT_EQ(trace.access[n].pos,
				  (z * 8 + 5) * 8192 + page * 4096);
	EXPECT_EQ(trace.geometry.stride[0], 65536);
	EXPECT_EQ(trace.geometry.stride[1], 8192);
	EXPECT_EQ(trace.geometry.stride[2], 4);
	EXPECT_EQ(trace.geometry.file_bytes, 4 * 65536);
	trace_free(&trace);
}

TEST(walk_goes_by_the_order_of_its_axes)
{
	uint64_t row, col, n = 0;

	/* f32 [5][4096], every 1024th column, columns outermost, rows back. */
	ASSERT_TRUE(try("walk", "shape=5,4096 start=4,0 count=5,4 step=-1,1024 "
				"order=1,0 gap_ns=70"));
	ASSERT_EQ(trace.nr, 20);
	for (col = 0; col < 4; col++)
		for (row = 0; row < 5; row++, n++) {
			EXPECT_EQ(trace.access[n].pos,
				  (4 - row) * 16384 + col * 4096);
			EXPECT_EQ(trace.access[n].gap_ns, 70);
		}
	trace_free(&trace);
}

TEST(touches_of_one_page_are_one_access)
{
	/* 64 touches to a page; the last one's time falls to the next page. */
	ASSERT_TRUE(try("strided", "count=640 stride=64 gap_ns=10"));
	ASSERT_EQ(trace.nr, 10);
	EXPECT_EQ(trace.access[0].gap_ns, 10);
	EXPECT_EQ(trace.access[1].gap_ns, 640);
	EXPECT_EQ(trace.access[1].pos, 4096);
	trace_free(&trace);
}

TEST(plane_across_tiles)
{
	uint64_t n = 0, y, x, z;

	/* 128^3 in tiles of 64^3, z = 70: plane 6 of the second layer's tiles. */
	ASSERT_TRUE(try("tiles", "extent=128 tile=64 axis=0 at=70"));
	/* Each tile's plane is 4096 bytes: a page. */
	ASSERT_EQ(trace.nr, 4);
	for (y = 0; y < 2; y++)
		for (x = 0; x < 2; x++, n++)
			EXPECT_EQ(trace.access[n].pos,
				  (4 + y * 2 + x) * 262144 + 6 * 4096);
	trace_free(&trace);
	/* x = 3: a byte of every row; all pages of every second tile. */
	ASSERT_TRUE(try("tiles", "extent=128 tile=64 axis=2 at=3"));
	ASSERT_EQ(trace.nr, 4 * 64);
	for (n = 0, y = 0; y < 4; y++)
		for (z = 0; z < 64; z++, n++)
			EXPECT_EQ(trace.access[n].pos,
				  y * 524288 + z * 4096 + 3);
	trace_free(&trace);
}

TEST(arrays_and_threads_take_turns)
{
	uint64_t n;

	ASSERT_TRUE(try("arrays", "nr=3 count=2 stride=8192"));
	ASSERT_EQ(trace.nr, 6);
	for (n = 0; n < 6; n++) {
		EXPECT_EQ(trace.access[n].pos, n % 3 * 16384 + n / 3 * 8192);
		EXPECT_EQ(trace.access[n].ip, 0x1000 + n % 3 * 16);
		EXPECT_EQ(trace.access[n].thread, 1);
	}
	trace_free(&trace);
	ASSERT_TRUE(try("threads", "nr=3 count=2 stride=8192"));
	for (n = 0; n < 6; n++) {
		EXPECT_EQ(trace.access[n].pos, n % 3 * 16384 + n / 3 * 8192);
		EXPECT_EQ(trace.access[n].thread, 1 + n % 3);
	}
	trace_free(&trace);
}

/* The numbers of Vigna's splitmix64.c for the seed 1234567. */
TEST(chance_is_splitmix64)
{
	struct gen g = { .random = 1234567 };

	EXPECT_EQ(gen_random(&g), 6457827717110365317ULL);
	EXPECT_EQ(gen_random(&g), 3203168211198807973ULL);
	EXPECT_EQ(gen_random(&g), 9817491932198370423ULL);
	EXPECT_EQ(gen_random(&g), 4593380528125082431ULL);
}

/* Ranks 0, 1 and 10 of 1000 come as often as the power law says. */
static void check_zipf(double alpha)
{
	const uint64_t n = 1000, draws = 400000;
	uint64_t count[1000] = { 0 }, i;
	struct gen g = { .random = 5 };
	static const int ranks[] = { 0, 1, 10 };

	for (i = 0; i < draws; i++)
		count[zipf(&g, n, alpha)]++;
	for (i = 0; i < 3; i++) {
		double a = ranks[i] + 1, b = a + 1, top = n + 1, p;

		p = alpha == 1 ? log(b / a) / log(top) :
				 (pow(b, 1 - alpha) - pow(a, 1 - alpha)) /
					 (pow(top, 1 - alpha) - 1);
		/* Five standard deviations. */
		EXPECT_LT(fabs((double)count[ranks[i]] - p * draws),
			  5 * sqrt(p * (1 - p) * draws));
	}
}

TEST(zipf_keeps_its_law)
{
	check_zipf(1.09);
	check_zipf(0.8);
	check_zipf(1);
}

/* Every rank another row, whatever divides their number. */
TEST(ranks_are_spread_over_all_rows)
{
	static const uint64_t numbers[] = { 1, 2, 3, 5, 10, 63, 2000, 39060 };
	uint32_t i, rank, sum;

	for (i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
		unsigned char *seen = calloc(numbers[i], 1);

		ASSERT_TRUE(seen);
		for (sum = rank = 0; rank < numbers[i]; rank++) {
			uint64_t row = spread(rank, numbers[i]);

			ASSERT_LT(row, numbers[i]);
			sum += !seen[row];
			seen[row] = 1;
		}
		EXPECT_EQ(sum, numbers[i]);
		free(seen);
	}
}

TEST(rows_are_inside_sorted_and_repeatable)
{
	struct trace again;
	uint64_t i;

	ASSERT_TRUE(try("rows",
			"rows=5000 row_bytes=4096 count=900 sorted=1 seed=3"));
	for (i = 0; i < trace.nr; i++) {
		EXPECT_LT(trace.access[i].pos, 5000 * 4096);
		EXPECT_TRUE(!i ||
			    trace.access[i].pos >= trace.access[i - 1].pos);
	}
	again = trace;
	ASSERT_TRUE(try("rows",
			"rows=5000 row_bytes=4096 count=900 sorted=1 seed=3"));
	ASSERT_EQ(again.nr, trace.nr);
	EXPECT_TRUE(!memcmp(again.access, trace.access,
			    trace.nr * sizeof(*trace.access)));
	trace_free(&again);
	trace_free(&trace);
}

/* Criteo: 214 look-ups of a sample. */
TEST(dlrm_has_its_tables)
{
	uint64_t rows = 0, hot = 0;
	size_t i;

	for (i = 0; i < NR_TABLES; i++) {
		rows += criteo[i].rows;
		hot += criteo[i].hot;
	}
	EXPECT_EQ(NR_TABLES, 26);
	EXPECT_EQ(hot, 214);
	ASSERT_TRUE(try("dlrm", "samples=1 row_bytes=4096 alpha=1.09"));
	EXPECT_EQ(trace.geometry.extent[0], rows);
	/* 97.4 GiB at 512 bytes a row. */
	EXPECT_LT(fabs((double)rows * 512 / (1 << 30) - 97.4), 0.05);
	EXPECT_LE(trace.nr, 214);
	trace_free(&trace);
}

TEST(every_workload_has_defaults_that_work)
{
	const struct workload *w;
	uint64_t i;
	size_t l;

	for (l = 0; l < NR_LISTS; l++)
		for (w = lists[l]; w->name; w++) {
			ASSERT_TRUE(try(w->name, ""));
			EXPECT_LT(100, trace.nr);
			for (i = 0; i < trace.nr; i++)
				ASSERT_LT(trace.access[i].pos,
					  trace.geometry.file_bytes);
			trace_free(&trace);
		}
}

TEST_MAIN
