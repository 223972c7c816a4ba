// SPDX-License-Identifier: MIT
/*
 * Reads that keep nothing, of records in Fortran order: their pieces lie between those of
 * others.  What was read, a count in front of the engine's queue tells.
 */
#include "net_util.h"

#include <tier.h>

#define ROWS 512ULL
#define COLUMNS 1024ULL

static struct mmnf_field *field;
static uint64_t read_bytes, nr_reads;
static struct mmnf_tier_ops counting;

static u32 count(struct mmnf_queue *q, struct mmnf_read *const *reads, u32 nr)
{
	u32 n = mmnf_queue_file_submit(q, reads, nr), i;

	for (i = 0; i < n; i++)
		read_bytes += reads[i]->bytes;
	nr_reads += n;
	return n;
}

static void open_file(const struct mmnf_open_opts *opts)
{
	struct mmnf_open_opts o = *opts;

	o.size = sizeof(o);
	if (mmnf_field_open(&field, "file#raw,dtype=u64,shape=512x1024,order=F",
			    &o))
		ktap_failed("# %s\n", mmnf_last_error());
	ASSERT_EQ(ktap_shared->failures, 0);
	counting = *field->ops;
	counting.submit = count;
	field->ops = &counting;
	read_bytes = nr_reads = 0;
}

static uint64_t hot_bytes(void)
{
	struct mmnf_box box = { { 0 }, { ROWS, COLUMNS }, { 1, 1 } };
	MMNF_OPTS(mmnf_residency, r);

	ASSERT_EQ(mmnf_residency(field, &box, &r), 0);
	return r.hot_bytes;
}

/*
 * Each row is a word of each 4096 bytes.  All of them are more than one round: what a
 * round brought the next one takes from L2.  A few are not.
 */
TEST(what_rounds_share_goes_through_l2)
{
	static uint64_t rows[ROWS * COLUMNS];
	struct mmnf_open_opts opts = { .engine = MMNF_ENGINE_DIRECT,
				       .prefetch_off = 1,
				       .l2_bytes = 64 << 20 };
	uint64_t list[ROWS], i, c, bad = 0;

	scratch();
	for (i = 0; i < ROWS * COLUMNS; i++)
		rows[i] = pattern(i, 1, 0);
	put_file("file", rows, sizeof(rows));
	for (i = 0; i < ROWS; i++)
		list[i] = (i * 37 + 5) % ROWS;
	for (opts.l2_once = 0; opts.l2_once < 2; opts.l2_once++) {
		open_file(&opts);
		ASSERT_EQ(mmnf_batch_get(field, list, ROWS, rows, sizeof(rows)),
			  (ssize_t)sizeof(rows));
		for (i = 0; i < ROWS; i++)
			for (c = 0; c < COLUMNS; c++)
				bad += rows[i * COLUMNS + c] !=
				       pattern(c * ROWS + list[i], 1, 0);
		EXPECT_EQ(bad, 0);
		EXPECT_EQ(read_bytes, ROWS * COLUMNS * 8);
		EXPECT_EQ(nr_reads, 32); /* of 128 KiB */
		EXPECT_EQ(hot_bytes(), ROWS * COLUMNS * 8);
		mmnf_field_close(field);
	}
	opts.l2_once = 1;
	open_file(&opts);
	ASSERT_EQ(mmnf_batch_get(field, list, 4, rows, sizeof(rows)),
		  (ssize_t)(4 * COLUMNS * 8));
	EXPECT_EQ(read_bytes, ROWS * COLUMNS * 8);
	EXPECT_EQ(hot_bytes(), 0);
	mmnf_field_close(field);
}

TEST_MAIN
