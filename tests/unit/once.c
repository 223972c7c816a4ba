// SPDX-License-Identifier: MIT
/*
 * Reads that keep nothing: what is read for a caller goes past L2, what is read ahead
 * does not and is taken from there.  What was read, the server counts, or a count in
 * front of the engine's queue; what is kept, the tier and mmnf_residency() tell.
 */
#define KTAP_TIMEOUT 120
#include "net_util.h"

#include <tier.h>

#define TILE 4096ULL
#define TILE_ELEMENTS 512ULL
#define NR_TILES 2048ULL
#define ELEMENTS (NR_TILES * TILE_ELEMENTS)
#define BOX_ELEMENTS (40 * TILE_ELEMENTS)
#define SINGLES 100
/* What fills L2 lies in a row, and behind what is read. */
#define L2_BYTES (8ULL << 20)
#define FILL_TILES 1536ULL
#define FIELD_TILES (NR_TILES + FILL_TILES)

static struct mmnf_field *field;
static uint64_t got[BOX_ELEMENTS];
static const char shape[] = "raw,dtype=u64,shape=1835008"; /* FIELD_TILES */

static uint64_t l2_used(void)
{
	MMNF_OPTS(mmnf_tiers, tiers);
	uint32_t i;

	ASSERT_EQ(mmnf_tiers_info(field, &tiers), 0);
	for (i = 0; i < tiers.nr_tiers && tiers.tier[i].level != 2; i++)
		;
	ASSERT_LT(i, tiers.nr_tiers);
	return tiers.tier[i].used_bytes;
}

static struct mmnf_residency where(uint64_t first, uint64_t nr)
{
	struct mmnf_box box = { { first }, { nr }, { 1 } };
	MMNF_OPTS(mmnf_residency, r);

	ASSERT_EQ(mmnf_residency(field, &box, &r), 0);
	return r;
}

static void open_with(const char *name, const struct mmnf_open_opts *opts)
{
	struct mmnf_open_opts o = *opts;

	o.size = sizeof(o);
	o.net_holes_off = 1;
	if (mmnf_field_open(&field, name, &o))
		ktap_failed("# %s\n", mmnf_last_error());
	ASSERT_EQ(ktap_shared->failures, 0);
}

static void open_net(const char *server, const struct mmnf_open_opts *opts)
{
	uint64_t elements[1] = { ELEMENTS };

	scratch();
	need_servers();
	server_start(0, server);
	if (strstr(server, "14M"))
		elements[0] = FIELD_TILES * TILE_ELEMENTS;
	make_remote("f", MMNF_U64, 1, elements, 1, 0);
	open_with("f", opts);
}

/* A file of the same bytes as the server's. */
static void make_file(const char *path, uint64_t bytes)
{
	static uint64_t all[FIELD_TILES * TILE_ELEMENTS];
	uint64_t i;

	for (i = 0; i < bytes / 8; i++)
		all[i] = pattern(i, 1, 0);
	put_file(path, all, bytes);
}

/* ---- how it is read */

static void get(uint64_t first, uint64_t nr)
{
	struct mmnf_box box = { { first }, { nr }, { 1 } };
	uint64_t i, bad = 0;
	ssize_t n;

	memset(got, 0xee, nr * 8);
	n = mmnf_get(field, &box, got, nr * 8);
	if (n < 0)
		printf("# %s\n", mmnf_last_error());
	ASSERT_EQ(n, (ssize_t)(nr * 8));
	for (i = 0; i < nr; i++)
		bad += got[i] != pattern(first + i, 1, 0);
	EXPECT_EQ(bad, 0);
}

static void get_list(const uint64_t *index, uint64_t nr)
{
	uint64_t i, bad = 0;

	memset(got, 0xee, nr * 8);
	ASSERT_EQ(mmnf_batch_get(field, index, nr, got, nr * 8),
		  (ssize_t)(nr * 8));
	for (i = 0; i < nr; i++)
		bad += got[i] != pattern(index[i], 1, 0);
	EXPECT_EQ(bad, 0);
}

static void get_batch(const uint64_t *index, uint64_t nr, uint32_t once)
{
	struct mmnf_request r = { .index = index,
				  .nr = nr,
				  .dst = got,
				  .dst_bytes = nr * 8,
				  .once = once };
	struct mmnf_completion c;
	struct mmnf_batch *batch;
	uint64_t i, bad = 0;

	memset(got, 0xee, nr * 8);
	ASSERT_EQ(mmnf_batch_open(&batch, field, NULL), 0);
	ASSERT_EQ(mmnf_batch_submit(batch, &r, 1), 1);
	ASSERT_EQ(mmnf_batch_reap(batch, &c, 1, 1, -1), 1);
	ASSERT_EQ(c.result, (int64_t)(nr * 8));
	for (i = 0; i < nr; i++)
		bad += got[i] != pattern(index[i], 1, 0);
	EXPECT_EQ(bad, 0);
	mmnf_batch_close(batch);
}

/* One element of each fourth tile or so, in no order, the field's last among them. */
static void scatter(uint64_t *index)
{
	uint64_t i;

	for (i = 0; i < SINGLES; i++)
		index[i] = ((i * 37 + 11) % SINGLES * 4 + 1) * TILE_ELEMENTS +
			   i * 61 % TILE_ELEMENTS;
	index[SINGLES / 2] = ELEMENTS - 1;
}

static void read_all_ways(void)
{
	uint64_t index[SINGLES], i;

	scatter(index);
	for (i = 0; i < SINGLES; i++)
		get(index[i], 1);
	get_list(index, SINGLES);
	get_batch(index, SINGLES, 0);
	get(5 * TILE_ELEMENTS + 3, 1000);
	get(700 * TILE_ELEMENTS - 9, BOX_ELEMENTS);
}

static void prefetch(uint64_t tile, uint64_t nr)
{
	struct mmnf_box box = { { tile * TILE_ELEMENTS },
				{ nr * TILE_ELEMENTS },
				{ 1 } };
	unsigned int tries;

	ASSERT_EQ(mmnf_prefetch(field, &box), (ssize_t)(nr * TILE));
	for (tries = 0; tries < 10000; tries++) {
		if (where(box.start[0], box.count[0]).hot_bytes == nr * TILE)
			return;
		usleep(1000);
	}
	ASSERT_TRUE(false);
}

/* ---- nothing is kept */

/* Of an index in rows a search without the lock often ends without an answer. */
static void fill(void)
{
	prefetch(NR_TILES, FILL_TILES);
}

/* Of what was read nothing is in L2, and of what was there all. */
static void nothing_came_or_went(uint64_t filled)
{
	EXPECT_EQ(l2_used(), filled * TILE);
	EXPECT_EQ(where(0, ELEMENTS).hot_bytes, 0);
	if (filled)
		EXPECT_EQ(where(ELEMENTS, filled * TILE_ELEMENTS).hot_bytes,
			  filled * TILE);
}

static void nothing_is_kept(uint64_t filled)
{
	uint64_t index[SINGLES], i, before, bytes = 0;
	struct mmnf_net_stats from, to;

	for (i = 0; i < 3; i++) {
		before = server_stats(field, 0).read_bytes;
		read_all_ways();
		before = server_stats(field, 0).read_bytes - before;
		/* The next time as much as the first. */
		if (i)
			EXPECT_EQ(before, bytes);
		bytes = before;
		nothing_came_or_went(filled);
	}
	/* No more than is wanted. */
	scatter(index);
	from = server_stats(field, 0);
	for (i = 0; i < SINGLES; i++)
		get(i * 977, 1);
	get_list(index, SINGLES);
	get_batch(index, SINGLES, 0);
	to = server_stats(field, 0);
	EXPECT_EQ(to.reads - from.reads, 3 * SINGLES);
	EXPECT_EQ(to.read_bytes - from.read_bytes, 3 * SINGLES * 8);
	nothing_came_or_went(filled);
}

TEST(nothing_is_kept_of_a_server)
{
	struct mmnf_open_opts opts = { .l2_once = 1,
				       .prefetch_off = 1,
				       .l2_bytes = L2_BYTES };

	open_net("pattern 14M", &opts);
	nothing_is_kept(0);
	fill();
	nothing_is_kept(FILL_TILES);
	mmnf_field_close(field);
}

static uint64_t read_bytes;
static struct mmnf_tier_ops counting;

static u32 count(struct mmnf_queue *q, struct mmnf_read *const *reads, u32 nr)
{
	u32 n = mmnf_queue_file_submit(q, reads, nr), i;

	for (i = 0; i < n; i++)
		__atomic_fetch_add(&read_bytes, reads[i]->bytes,
				   __ATOMIC_RELAXED);
	return n;
}

static void count_reads(void)
{
	counting = *field->ops;
	counting.submit = count;
	field->ops = &counting;
}

static void nothing_is_kept_of_the_file(uint64_t filled)
{
	uint64_t k;

	read_all_ways();
	nothing_came_or_went(filled);
	read_bytes = 0;
	for (k = 0; k < SINGLES; k++)
		get(k % 10, 1);
	/* O_DIRECT: whole blocks, each time anew. */
	EXPECT_EQ(read_bytes, SINGLES * TILE);
	nothing_came_or_went(filled);
}

TEST(nothing_is_kept_of_a_file)
{
	struct mmnf_open_opts opts = { .engine = MMNF_ENGINE_DIRECT,
				       .l2_once = 1,
				       .prefetch_off = 1,
				       .l2_bytes = L2_BYTES };
	char name[64];
	uint64_t i;

	scratch();
	make_file("file", FIELD_TILES * TILE);
	snprintf(name, sizeof(name), "file#%s", shape);
	for (i = 0; i < 4; i++) {
		opts.uring = i % 2 ? MMNF_URING_OFF : MMNF_URING_AUTO;
		opts.l2_policy = i / 2 ? MMNF_L2_LRU : 0;
		open_with(name, &opts);
		/* Before there is a queue. */
		count_reads();
		nothing_is_kept_of_the_file(0);
		fill();
		nothing_is_kept_of_the_file(FILL_TILES);
		mmnf_field_close(field);
	}
}

TEST(a_request_may_ask_for_it)
{
	struct mmnf_open_opts opts = { .prefetch_off = 1 };
	uint64_t index[SINGLES];

	scatter(index);
	open_net("pattern 8M", &opts);
	get_batch(index, SINGLES, 1);
	EXPECT_EQ(l2_used(), 0);
	get_batch(index, SINGLES, 0);
	EXPECT_EQ(l2_used(), SINGLES * TILE);
	mmnf_field_close(field);
}

TEST(it_is_said)
{
	struct mmnf_open_opts opts = { .l2_once = 1 };
	MMNF_OPTS(mmnf_tiers, tiers);
	uint32_t i;

	open_net("pattern 8M", &opts);
	ASSERT_EQ(mmnf_tiers_info(field, &tiers), 0);
	for (i = 0; i < tiers.nr_tiers; i++)
		if (tiers.tier[i].level == 2)
			EXPECT_TRUE(strstr(tiers.tier[i].text,
					   "for what is read ahead"));
	mmnf_field_close(field);
}

/* ---- what is in L2 is taken from there */

TEST(what_is_there_is_taken_from_there)
{
	struct mmnf_open_opts opts = { .l2_once = 1, .prefetch_off = 1 };
	uint64_t before, i, list[10];

	open_net("pattern 8M", &opts);
	prefetch(10, 10);
	before = server_stats(field, 0).read_bytes;
	for (i = 0; i < 10; i++) {
		list[i] = (10 + i) * TILE_ELEMENTS + i * 51;
		get(list[i], 1);
	}
	get_list(list, 10);
	get_batch(list, 10, 0);
	get(10 * TILE_ELEMENTS, 10 * TILE_ELEMENTS);
	EXPECT_EQ(server_stats(field, 0).read_bytes, before);
	/* Of a box that begins before and ends behind, the rest. */
	get(5 * TILE_ELEMENTS, 21 * TILE_ELEMENTS);
	EXPECT_EQ(server_stats(field, 0).read_bytes - before, 11 * TILE);
	EXPECT_EQ(l2_used(), 10 * TILE);
	mmnf_field_close(field);
}

/*
 * Each tile comes once, whoever reads it: the walk, past L2, or what is read ahead of it,
 * also where the walk was faster than that.
 */
static void walk(uint64_t nr)
{
	struct mmnf_open_opts opts = { .l2_once = 1 };
	struct mmnf_field_stats stats;
	uint64_t at;

	open_net("--filter=delay pattern 8M rdelay=1ms", &opts);
	for (at = 0; at < ELEMENTS; at += nr)
		get(at, nr);
	EXPECT_EQ(server_stats(field, 0).read_bytes, ELEMENTS * 8);
	stats = stats_of(field);
	EXPECT_GT(stats.prefetched_pages, ELEMENTS / nr / 2);
	EXPECT_EQ(l2_used(), stats.prefetched_pages * TILE);
	mmnf_field_close(field);
}

TEST(a_walk_of_tiles_reads_each_once)
{
	walk(TILE_ELEMENTS);
}

TEST(a_walk_of_boxes_reads_each_once)
{
	walk(16 * TILE_ELEMENTS);
}

#define AHEAD 300ULL /* more than are read ahead at once */

static void *get_last(void *arg)
{
	(void)arg;
	get((AHEAD - 1) * 2 * TILE_ELEMENTS, 1);
	return NULL;
}

/* While a server says nothing the last of what is to be read ahead is not begun. */
TEST(what_is_to_be_read_ahead_is_read_once)
{
	struct mmnf_open_opts opts = { .l2_once = 1, .prefetch_off = 1 };
	struct mmnf_request r = { .nr = 1, .dst = got, .dst_bytes = 8 };
	uint64_t i, index = (AHEAD - 2) * 2 * TILE_ELEMENTS;
	struct mmnf_completion c;
	struct mmnf_batch *batch;
	pthread_t thread;

	open_net("pattern 8M", &opts);
	ASSERT_EQ(mmnf_batch_open(&batch, field, NULL), 0);
	server_stop(0);
	for (i = 0; i < AHEAD; i++) {
		struct mmnf_box box = { { i * 2 * TILE_ELEMENTS },
					{ TILE_ELEMENTS },
					{ 1 } };

		ASSERT_EQ(mmnf_prefetch(field, &box), (ssize_t)TILE);
	}
	r.index = &index;
	ASSERT_EQ(mmnf_batch_submit(batch, &r, 1), 1);
	pthread_create(&thread, NULL, get_last, NULL);
	sleep_ms(50);
	ASSERT_EQ(kill(servers[0].pid, SIGCONT), 0);
	pthread_join(thread, NULL);
	ASSERT_EQ(mmnf_batch_reap(batch, &c, 1, 1, -1), 1);
	EXPECT_EQ(c.result, 8);
	for (i = 0; i < AHEAD; i++)
		prefetch(2 * i, 1);
	EXPECT_EQ(server_stats(field, 0).read_bytes, AHEAD * TILE);
	EXPECT_EQ(l2_used(), AHEAD * TILE);
	mmnf_batch_close(batch);
	mmnf_field_close(field);
}

/* ---- requests that end before their reads */

/* Until nothing is under way; who waits for a read of his own drives the others. */
static void wait_for_server(void)
{
	int64_t end = now_ns() + 30 * 1000000000LL;
	struct mmnf_net_stats s;

	do {
		ASSERT_LT(now_ns(), end);
		get(3, 1);
		sleep_ms(1);
		s = server_stats(field, 0);
	} while (s.in_flight + s.queued);
}

TEST(what_comes_late_is_dropped)
{
	static uint64_t untouched[2][BOX_ELEMENTS];
	struct mmnf_open_opts opts = { .l2_once = 1, .prefetch_off = 1 };
	struct mmnf_box box = { { 100 }, { BOX_ELEMENTS }, { 1 } };
	uint64_t index[SINGLES], i, bad = 0;
	struct mmnf_net_stats s;
	struct mmnf_completion c[2];
	struct mmnf_request r[2] = {
		{ .user_data = 0, .index = index, .nr = SINGLES },
		{ .user_data = 1, .box = &box, .nr = 1 },
	};
	struct mmnf_batch *batch;

	open_net("pattern 8M", &opts);
	ASSERT_EQ(mmnf_batch_open(&batch, field, NULL), 0);
	scatter(index);
	server_stop(0);
	for (i = 0; i < 2; i++) {
		r[i].dst = untouched[i];
		r[i].dst_bytes = sizeof(untouched[i]);
	}
	r[0].deadline_ns = now_ns() + 50 * 1000000LL;
	/* Of all the list a first part is under way, of the box nothing or a part. */
	ASSERT_EQ(mmnf_batch_submit(batch, r, 2), 2);
	ASSERT_EQ(mmnf_batch_reap(batch, c, 1, 1, -1), 1);
	EXPECT_EQ(c[0].user_data, 0);
	EXPECT_EQ(c[0].result, -ETIMEDOUT);
	EXPECT_EQ(mmnf_batch_cancel(batch, 1), 1);
	ASSERT_EQ(mmnf_batch_reap(batch, c, 1, 1, -1), 1);
	EXPECT_EQ(c[0].user_data, 1);
	EXPECT_EQ(c[0].result, -ECANCELED);
	memset(untouched, 0x77, sizeof(untouched));
	s = server_stats(field, 0);
	ASSERT_EQ(s.in_flight + s.queued, MMNF_QUEUE_DEPTH);
	ASSERT_EQ(kill(servers[0].pid, SIGCONT), 0);
	wait_for_server();
	EXPECT_EQ(mmnf_batch_reap(batch, c, 1, 0, 0), 0);
	for (i = 0; i < 2 * BOX_ELEMENTS; i++)
		bad += untouched[i / BOX_ELEMENTS][i % BOX_ELEMENTS] !=
		       0x7777777777777777ULL;
	EXPECT_EQ(bad, 0);
	EXPECT_EQ(l2_used(), 0);
	/* Its memory serves others. */
	get_batch(index, SINGLES, 0);
	mmnf_batch_close(batch);
	mmnf_field_close(field);
}

/* ---- ends and errors */

/* 10,000 bytes: the last tile is no whole one, nor is it of O_DIRECT's blocks. */
TEST(the_end_of_the_field)
{
	static const struct mmnf_open_opts opts[] = {
		{ .engine = MMNF_ENGINE_DIRECT, .l2_once = 1 },
		{ .engine = MMNF_ENGINE_DIRECT,
		  .l2_once = 1,
		  .uring = MMNF_URING_OFF },
		{ .engine = MMNF_ENGINE_NET, .l2_once = 1 },
		{ .engine = MMNF_ENGINE_NET, .l2_once = 1, .prefetch_off = 1 },
	};
	uint64_t i, last[3] = { 1249, 1023, 1024 };
	char name[128];

	scratch();
	make_file("file", 10000);
	for (i = 0; i < 4; i++) {
		if (i == 2) {
			need_servers();
			server_start(0, "pattern 10000");
		}
		snprintf(name, sizeof(name), "%s#raw,dtype=u64,shape=1250",
			 i < 2 ? "file" : servers[0].uri);
		open_with(name, &opts[i]);
		get(1249, 1);
		get(1000, 250);
		get(0, 1250);
		get_list(last, 3);
		get_batch(last, 3, 0);
		mmnf_field_close(field);
	}
}

TEST(a_file_that_was_cut)
{
	struct mmnf_open_opts opts = { .engine = MMNF_ENGINE_DIRECT,
				       .l2_once = 1,
				       .prefetch_off = 1 };
	uint64_t index[2] = { ELEMENTS - 1, ELEMENTS - 9000 }, i;

	scratch();
	make_file("file", ELEMENTS * 8);
	for (i = 0; i < 2; i++) {
		opts.uring = i ? MMNF_URING_OFF : MMNF_URING_AUTO;
		make_file("file", ELEMENTS * 8);
		open_with("file#raw,dtype=u64,shape=1048576", &opts);
		get(index[0], 1);
		ASSERT_EQ(truncate("file", ELEMENTS * 8 - 8192), 0);
		EXPECT_FAILS(mmnf_batch_get(field, index, 2, got, 16), EIO,
			     "mmnf_batch_get", "expected 8388608");
		EXPECT_FAILS(read_one(field, index[0], got), EIO, "mmnf_get",
			     "expected 8388608");
		get(index[1], 1);
		EXPECT_EQ(l2_used(), 0);
		mmnf_field_close(field);
	}
}

TEST(a_server_that_fails_and_one_that_is_gone)
{
	struct mmnf_open_opts opts = { .l2_once = 1,
				       .prefetch_off = 1,
				       .net_fail_timeout_ms = 300 };
	uint64_t index[2] = { 7, 70000 }, i;

	open_net("--filter=error pattern 8M error-pread=EINVAL "
		 "error-pread-rate=100% error-file=fail",
		 &opts);
	put_file("fail", "", 0);
	EXPECT_FAILS(read_one(field, 7, got), EINVAL, "mmnf_get", "server 0");
	EXPECT_FAILS(mmnf_batch_get(field, index, 2, got, 16), EINVAL,
		     "mmnf_batch_get", "server 0");
	ASSERT_EQ(unlink("fail"), 0);
	get(7, 1);
	get_list(index, 2);
	server_kill(0);
	EXPECT_FAILS(read_one(field, 7, got), ETIMEDOUT, "mmnf_get",
		     "server 0");
	EXPECT_FAILS(mmnf_batch_get(field, index, 2, got, 16), ETIMEDOUT,
		     "mmnf_batch_get", "server 0");
	server_start(0, servers[0].args);
	for (i = 0; read_one(field, 7, got) < 0; i++) {
		ASSERT_LT(i, 1000);
		sleep_ms(10);
	}
	get_list(index, 2);
	EXPECT_EQ(l2_used(), 0);
	mmnf_field_close(field);
}

TEST_MAIN
