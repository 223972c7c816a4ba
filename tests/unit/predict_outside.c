// SPDX-License-Identifier: MIT
/*
 * Walks over what of the file is not the array: foreseen as bytes, without records and
 * axes, and taken for no walk of the array's, nor the other way round.
 */
#include "predict_check.h"

#define PAGE 4096ULL
#define MIB (1024ULL * 1024)

/* 16 MiB, of which the array is 4 .. 8 MiB, in records of two pages. */
#define START (4 * MIB + 96)
#define END (8 * MIB)
#define FILE_END (16 * MIB)

static struct mmnf_table table;
static u8 resident[FILE_END / PAGE];
static u64 nr_misses, nr_planned, now_ns;

static void begin(u64 file_end)
{
	const s64 stride[] = { 64 * 1024, 8 };
	const u64 extent[] = { (END - START) / (64 * 1024), 512 };

	mmnf_table_init(&table, PAGE, START, END, 2 * PAGE);
	mmnf_table_set_axes(&table, stride, extent, 2);
	mmnf_table_set_file(&table, file_end);
	memset(resident, 0, sizeof(resident));
	nr_misses = nr_planned = 0;
	now_ns = 0;
}

static void touch(u64 pos)
{
	u64 page = pos / PAGE, n, last;
	struct mmnf_access access = { .thread = 1,
				      .ip = 1,
				      .pos = pos,
				      .now_ns = now_ns += 1000,
				      .outcome = resident[page] ? MMNF_HIT :
								  MMNF_MISS,
				      .fresh = resident[page] == 1 };
	struct mmnf_plan plan;

	nr_misses += !resident[page];
	resident[page] = 2;
	if (mmnf_observe(&table, &access, &plan)) {
		check_plan(&table, pos, &plan);
		for (n = 0; n < mmnf_plan_nr(&plan); n++) {
			u64 at = mmnf_plan_pos(&plan, n);

			last = (at + plan.span - 1) / PAGE;
			for (page = at / PAGE;
			     page <= last && page < FILE_END / PAGE; page++) {
				nr_planned += !resident[page];
				resident[page] += !resident[page];
			}
		}
	}
	check_table(&table);
	if (access.outcome == MMNF_HIT)
		return;
	mmnf_resume(&table, 1, now_ns += 100000, 0, 0);
	check_table(&table);
}

static void walk(u64 pos, s64 stride, u64 nr)
{
	for (; nr--; pos += (u64)stride)
		touch(pos);
}

TEST(sequential_behind)
{
	begin(FILE_END);
	walk(END, PAGE, (FILE_END - END) / PAGE);
	EXPECT_LE(nr_misses, 4);
}

TEST(sequential_before_backwards)
{
	begin(FILE_END);
	walk(START - PAGE, -(s64)PAGE, START / PAGE);
	EXPECT_LE(nr_misses, 4);
	/* Nothing lies before the file. */
	EXPECT_EQ(nr_planned + nr_misses, START / PAGE);
}

TEST(strided_ends_with_the_file)
{
	begin(FILE_END);
	walk(END + 100, 7 * PAGE, (FILE_END - END) / PAGE / 7);
	EXPECT_LE(nr_misses, 3);
	/* A record of the array's is no record here. */
	EXPECT_LE(nr_planned + nr_misses, (FILE_END - END) / PAGE / 7 + 1);
}

/* To what is below the limit, though a file's end is not known. */
TEST(open_end)
{
	begin(S64_MAX);
	walk(END, PAGE, (FILE_END - END) / PAGE);
	EXPECT_LE(nr_misses, 4);
}

TEST(a_miss_alone_reads_no_record)
{
	begin(FILE_END);
	touch(2 * MIB);
	touch(FILE_END - MIB);
	EXPECT_EQ(nr_planned, 0);
}

TEST(is_not_seen_unless_told)
{
	begin(0);
	walk(END, PAGE, 100);
	walk(0, PAGE, 100);
	EXPECT_EQ(nr_misses, 200);
	EXPECT_EQ(table.nr_streams, 0);
}

/* One instruction goes through both in turns. */
TEST(both_at_once)
{
	u64 i, nr = 200;

	begin(FILE_END);
	for (i = 0; i < nr; i++) {
		touch(START + i * 5 * PAGE);
		touch(END + MIB + i * 7 * PAGE);
	}
	EXPECT_LE(nr_misses, 10);
	EXPECT_GT(nr_planned, nr);
}

/* The array's walk ends with the array, one from outside leads on into it. */
TEST(across_the_bounds)
{
	u64 page;

	begin(FILE_END);
	walk(START, 3 * PAGE, (END - START) / PAGE / 3);
	/* The last record may be cut. */
	for (page = END / PAGE + 2; page < FILE_END / PAGE; page++)
		EXPECT_EQ(resident[page], 0);
	begin(FILE_END);
	walk(0, PAGE, FILE_END / PAGE);
	EXPECT_LE(nr_misses, 12);
}

/* Waits of both kinds teach, and are told to the walk that waited. */
TEST(waits_teach)
{
	begin(FILE_END);
	walk(END, 9 * PAGE, 20);
	EXPECT_EQ(table.latency_ns, 100000);
	EXPECT_GT(table.stream[table.recent].pace_ns, 0);
}

TEST_MAIN
