// SPDX-License-Identifier: MIT
/*
 * Writes through the cache, to servers that crash, lose connections and refuse,
 * by a client that loses power: what was synced is never lost, what was written
 * is what is read, and no read ever goes back in time.
 *
 * Cells of 64 bytes hold the number of the write that they are from.
 *
 * MMNF_SSD_SEEDS: how many lives.
 */
#include "ssd_server.h"

#define CHUNK 32768U
#define NR_CHUNKS 40U
#define SPACE ((u64)NR_CHUNKS * CHUNK)
#define CELLS (SPACE / 64)
#define LOG_BYTES (400U << 10)
#define ON_THE_WAY 4U
#define READ_BYTES 16384U
#define WRITES_MAX 4000U

static struct disk disk;

/* Of each cell: what is seen; the last that was synced. */
static u32 truth[CELLS], synced[CELLS];
/* Of each write: which cells. */
static struct {
	u64 first, nr;
} writes[WRITES_MAX];
static u32 nr_writes;
static u64 nr_compared, nr_synced, nr_again, nr_refused;

static struct {
	bool is_used;
	u64 offset, bytes, ticket;
	char data[READ_BYTES];
} way[ON_THE_WAY];

static struct mmnf_ssd *open_cache(u32 grace_ms)
{
	struct mmnf_ssd_backing backing = server_backing(SPACE);
	struct mmnf_ssd_opts opts = { .bytes = 16 * (CHUNK + 1096),
				      .log_bytes = LOG_BYTES,
				      .chunk_bytes = CHUNK,
				      .grace_ms = grace_ms,
				      .no_threads = true };
	struct mmnf_ssd *ssd;

	ASSERT_EQ(mmnf_ssd_open(&ssd, &disk.ops, &opts, &backing), 0);
	return ssd;
}

static void set_cell(char *to, u32 id)
{
	u32 i;

	for (i = 0; i < 16; i++)
		memcpy(to + 4 * i, &id, 4);
}

static u32 get_cell(const char *from)
{
	u32 first, i, is;

	memcpy(&first, from, 4);
	for (i = 1; i < 16; i++) {
		memcpy(&is, from + 4 * i, 4);
		ASSERT_EQ(is, first);
	}
	return first;
}

static void compare(u64 offset, u64 bytes, const char *data)
{
	u64 i;

	for (i = 0; i < bytes / 64; i++) {
		u64 cell = offset / 64 + i;

		if (get_cell(data + i * 64) == truth[cell])
			continue;
		ktap_failed("# cell %llu is of write %u: expected %u\n",
			    (unsigned long long)cell, get_cell(data + i * 64),
			    truth[cell]);
		_exit(1);
	}
	nr_compared += bytes / 64;
}

static _Alignas(4096) char memory[READ_BYTES];

/* To its end, now. */
static void finish(struct mmnf_ssd *ssd, u64 offset, u64 bytes, u64 ticket)
{
	struct iovec iov = { memory, bytes };
	int ret;

	while ((ret = mmnf_ssd_came(ssd, offset, bytes, &iov, 1, ticket)) ==
	       1) {
		nr_again++;
		if (mmnf_ssd_read(ssd, offset, bytes, &iov, 1, &ticket))
			break;
		memcpy(memory, server.now + offset, bytes);
	}
	if (ret < 0 && disk.is_off)
		return;
	ASSERT_GE(ret, 0);
	compare(offset, bytes, memory);
}

static void read_all(struct mmnf_ssd *ssd)
{
	struct iovec iov = { memory, READ_BYTES };
	u64 offset, ticket;

	for (offset = 0; offset < SPACE; offset += READ_BYTES) {
		if (mmnf_ssd_read(ssd, offset, READ_BYTES, &iov, 1, &ticket)) {
			compare(offset, READ_BYTES, memory);
			continue;
		}
		memcpy(memory, server.now + offset, READ_BYTES);
		finish(ssd, offset, READ_BYTES, ticket);
	}
}

static void read_some(struct mmnf_ssd *ssd)
{
	u64 bytes = (1 + rnd() % 4) * 4096, ticket;
	u64 offset = rnd() % ((SPACE - bytes) / 4096) * 4096;
	struct iovec iov = { memory, bytes };
	u32 w = (u32)(rnd() % ON_THE_WAY);

	if (way[w].is_used) {
		way[w].is_used = false;
		memcpy(memory, way[w].data, way[w].bytes);
		finish(ssd, way[w].offset, way[w].bytes, way[w].ticket);
	}
	if (mmnf_ssd_read(ssd, offset, bytes, &iov, 1, &ticket)) {
		compare(offset, bytes, memory);
		return;
	}
	way[w].is_used = true;
	way[w].offset = offset;
	way[w].bytes = bytes;
	way[w].ticket = ticket;
	memcpy(way[w].data, server.now + offset, bytes);
}

static void write_some(struct mmnf_ssd *ssd)
{
	u64 nr = rnd() % 8 ? 1 + rnd() % 64 : 1 + rnd() % 1200, i;
	u64 first = rnd() % 3 ? rnd() % 2000 : rnd() % (CELLS - nr);
	static char data[1200 * 64];
	u32 id = ++nr_writes;
	int err;

	ASSERT_LT(nr_writes, WRITES_MAX);
	for (i = 0; i < nr; i++)
		set_cell(data + i * 64, id);
	writes[id].first = first;
	writes[id].nr = nr;
	err = mmnf_ssd_write(ssd, first * 64, nr * 64, data);
	if (err) {
		/* In part, perhaps: asked of the next open. */
		ASSERT_TRUE(disk.is_off || server.fail || server.lose);
		nr_refused++;
		disk.is_off = true;
		return;
	}
	for (i = first; i < first + nr; i++)
		truth[i] = id;
}

static void sync_all(struct mmnf_ssd *ssd)
{
	u32 g;

	if (mmnf_ssd_sync(ssd) || disk.is_off)
		return;
	nr_synced++;
	memcpy(synced, truth, sizeof(synced));
	/* Now the servers have it, and may die. */
	for (g = 0; g < GROUPS; g++)
		if (rnd() % 2)
			server_crash(g, 50);
	for (g = 0; g < CELLS; g++)
		ASSERT_EQ(get_cell(server.now + g * 64), truth[g]);
}

/* After the power was off: what was synced, or something newer. */
static void look_again(struct mmnf_ssd *ssd)
{
	struct iovec iov = { memory, 4096 };
	u64 offset, ticket, i;

	for (offset = 0; offset < SPACE; offset += 4096) {
		while (!mmnf_ssd_read(ssd, offset, 4096, &iov, 1, &ticket)) {
			memcpy(memory, server.now + offset, 4096);
			if (!mmnf_ssd_came(ssd, offset, 4096, &iov, 1, ticket))
				break;
		}
		for (i = 0; i < 64; i++) {
			u64 cell = offset / 64 + i;
			u32 id = get_cell(memory + i * 64);

			ASSERT_GE(id, synced[cell]);
			ASSERT_LE(id, nr_writes);
			ASSERT_TRUE(!id ||
				    (cell >= writes[id].first &&
				     cell < writes[id].first + writes[id].nr));
			truth[cell] = id;
		}
	}
}

static void live(u64 nr_steps)
{
	struct mmnf_ssd *ssd = open_cache(GRACE_NS / 1000000);
	u64 i;

	look_again(ssd);
	for (i = 0; i < nr_steps && !disk.is_off; i++) {
		u64 what = rnd() % 32;

		server_run();
		if (what < 14)
			read_some(ssd);
		else if (what < 26)
			write_some(ssd);
		else if (what < 29)
			mmnf_ssd_work(ssd);
		else if (what < 30)
			sync_all(ssd);
		else
			test_clock_ns += (s64)(rnd() % 3000000000);
	}
	if (!disk.is_off)
		read_all(ssd);
	memset(way, 0, sizeof(way));
	if (disk.is_off)
		server.fail = 1000;
	mmnf_ssd_close(ssd);
	server.fail = 0;
}

static bool be_slow;

static void many_lives(u64 crash, u64 lose, u64 fail, u64 room, bool cuts)
{
	const char *text = getenv("MMNF_SSD_SEEDS");
	u64 seeds = text ? strtoull(text, NULL, 0) / 8 + 1 : 16, s, i;
	u64 nr_cut = 0, nr_crashes = 0, nr_late = 0, nr_failed = 0;

	for (s = 1; s <= seeds; s++) {
		seed = s * 104729;
		disk_init(&disk);
		server_init(s % 3 ? 1 : 512);
		memset(truth, 0, sizeof(truth));
		memset(synced, 0, sizeof(synced));
		nr_writes = 0;
		for (i = 0; i < 6; i++) {
			server.crash = crash;
			server.lose = lose;
			server.fail = fail;
			server.is_slow = be_slow;
			disk.room_bytes = room;
			disk_cut_after(&disk,
				       cuts && rnd() % 5 ? 1 + rnd() % 900 : 0);
			live(40 + rnd() % 200);
			nr_cut += disk.is_off;
			disk_power_on(&disk);
		}
		nr_crashes += server.nr_crashes;
		nr_late += server.nr_late;
		nr_failed += server.nr_failed;
		test_clock_ns += 2 * GRACE_NS;
		server_late();
		disk_free(&disk);
	}
	printf("# %llu lives, %llu cuts, %llu crashes of servers, %llu late writes, %llu failed, %llu refused, %llu syncs, %llu cells compared, %llu reads again\n",
	       (unsigned long long)seeds, (unsigned long long)nr_cut,
	       (unsigned long long)nr_crashes, (unsigned long long)nr_late,
	       (unsigned long long)nr_failed, (unsigned long long)nr_refused,
	       (unsigned long long)nr_synced, (unsigned long long)nr_compared,
	       (unsigned long long)nr_again);
	EXPECT_GE(nr_compared, 1000 * seeds);
	EXPECT_GE(nr_synced, seeds);
}

/* ---- the traps, one by one */

static void put(struct mmnf_ssd *ssd, u64 cell, u32 id)
{
	char data[64];

	set_cell(data, id);
	ASSERT_EQ(mmnf_ssd_write(ssd, cell * 64, 64, data), 0);
}

static u32 server_has(u64 cell)
{
	return get_cell(server.now + cell * 64);
}

static u32 reads(struct mmnf_ssd *ssd, u64 cell)
{
	struct iovec iov = { memory, 4096 };
	u64 offset = cell * 64 / 4096 * 4096, ticket;

	while (!mmnf_ssd_read(ssd, offset, 4096, &iov, 1, &ticket)) {
		memcpy(memory, server.now + offset, 4096);
		if (!mmnf_ssd_came(ssd, offset, 4096, &iov, 1, ticket))
			break;
	}
	return get_cell(memory + cell * 64 % 4096);
}

static void wait_out_the_grace(void)
{
	test_clock_ns += 2 * GRACE_NS;
	server_late();
}

static struct mmnf_ssd *begin(void)
{
	disk_init(&disk);
	server_init(1);
	return open_cache(GRACE_NS / 1000000);
}

static void end(struct mmnf_ssd *ssd)
{
	mmnf_ssd_close(ssd);
	disk_free(&disk);
}

/* It dies between the write and the flush, and the flush succeeds after that. */
TEST(flushed_over_another_connection)
{
	struct mmnf_ssd *ssd = begin();
	struct mmnf_ssd_stats s;

	put(ssd, 7, 1);
	server.crash_at_flush = 2;
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	EXPECT_EQ(server_has(7), 1);
	EXPECT_EQ(server.nr_writes, 3);
	mmnf_ssd_stats(ssd, &s);
	EXPECT_EQ(s.resent, 2);
	end(ssd);
}

/* Of this process: the newer one waits until the older cannot come any more. */
TEST(late_write)
{
	struct mmnf_ssd *ssd = begin();
	struct mmnf_ssd_stats s;
	s64 start;

	server.lose_next = 1;
	put(ssd, 7, 1);
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	put(ssd, 7, 2);
	put(ssd, 8, 3); /* not in its way */
	EXPECT_TRUE(mmnf_ssd_work(ssd));
	EXPECT_EQ(server_has(7), 1);
	EXPECT_EQ(server_has(8), 3);
	EXPECT_EQ(reads(ssd, 7), 2);
	start = test_clock_ns;
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	EXPECT_GE(test_clock_ns - start, GRACE_NS / 2);
	EXPECT_EQ(server_has(7), 2);
	wait_out_the_grace();
	EXPECT_EQ(server_has(7), 2);
	mmnf_ssd_stats(ssd, &s);
	EXPECT_GE(s.held, 1);
	end(ssd);
}

/* Both in the log of a process that died with the older one under way. */
TEST(late_write_of_the_dead)
{
	struct mmnf_ssd *ssd = begin();

	server.lose_next = 1;
	server.fail = 1000;
	put(ssd, 7, 1);
	EXPECT_TRUE(mmnf_ssd_work(ssd));
	put(ssd, 7, 2);
	put(ssd, 9, 3);
	EXPECT_TRUE(mmnf_ssd_work(ssd));
	disk.is_off = true;
	mmnf_ssd_close(ssd);
	disk_power_on(&disk);

	server.fail = 0;
	ssd = open_cache(GRACE_NS / 1000000);
	EXPECT_EQ(reads(ssd, 7), 2);
	EXPECT_TRUE(mmnf_ssd_work(ssd));
	EXPECT_EQ(server_has(9), 3);
	EXPECT_NE(server_has(7), 2);
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	EXPECT_EQ(server_has(7), 2);
	wait_out_the_grace();
	EXPECT_EQ(server_has(7), 2);
	end(ssd);
}

/* The older one in the log, the newer one of the process after that. */
TEST(late_write_before_the_next_process)
{
	struct mmnf_ssd *ssd = begin();

	server.lose_next = 1;
	server.fail = 1000;
	put(ssd, 7, 1);
	EXPECT_TRUE(mmnf_ssd_work(ssd));
	disk.is_off = true;
	mmnf_ssd_close(ssd);
	disk_power_on(&disk);

	server.fail = 0;
	ssd = open_cache(GRACE_NS / 1000000);
	put(ssd, 7, 2);
	EXPECT_TRUE(mmnf_ssd_work(ssd));
	EXPECT_NE(server_has(7), 2);
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	wait_out_the_grace();
	EXPECT_EQ(server_has(7), 2);
	end(ssd);
}

TEST(servers_that_are_away)
{
	struct mmnf_ssd *ssd = begin();

	server.fail = 1000;
	put(ssd, 7, 1);
	EXPECT_FAILS(mmnf_ssd_sync(ssd), ETIMEDOUT, "mmnf", "is away");
	EXPECT_EQ(reads(ssd, 7), 1);
	mmnf_ssd_close(ssd);
	ssd = open_cache(GRACE_NS / 1000000);
	EXPECT_EQ(reads(ssd, 7), 1);
	server.fail = 0;
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	EXPECT_EQ(server_has(7), 1);
	EXPECT_TRUE(disk_find(&disk, "log.0")->there);
	/* A newer write might have to wait for it until now. */
	wait_out_the_grace();
	mmnf_ssd_close(ssd);
	EXPECT_TRUE(!disk_find(&disk, "log.0")->there);
	disk_free(&disk);
}

TEST(log_of_another_space)
{
	struct mmnf_ssd_backing other = server_backing(SPACE);
	struct mmnf_ssd_opts opts = { .bytes = 16 * (CHUNK + 1096),
				      .chunk_bytes = CHUNK,
				      .no_threads = true };
	struct mmnf_ssd *ssd = begin(), *no;

	memset(other.identity, 'x', sizeof(other.identity));
	server.fail = 1000;
	put(ssd, 7, 1);
	mmnf_ssd_close(ssd);
	EXPECT_FAILS(mmnf_ssd_open(&no, &disk.ops, &opts, &other), EEXIST,
		     "mmnf", "another space");
	server.fail = 0;
	ssd = open_cache(GRACE_NS / 1000000);
	EXPECT_EQ(reads(ssd, 7), 1);
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	wait_out_the_grace();
	mmnf_ssd_close(ssd);
	EXPECT_EQ(server_has(7), 1);
	ASSERT_EQ(mmnf_ssd_open(&no, &disk.ops, &opts, &other), 0);
	put(no, 7, 2);
	mmnf_ssd_close(no);
	EXPECT_EQ(server_has(7), 2);
	disk_free(&disk);
}

/* What was synced is damaged: said, not passed over. */
TEST(log_that_is_damaged)
{
	u64 round, nr_refused_here = 0;

	for (round = 0; round < 60; round++) {
		struct mmnf_ssd_backing backing = server_backing(SPACE);
		struct mmnf_ssd_opts opts = { .bytes = 16 * (CHUNK + 1096),
					      .chunk_bytes = CHUNK,
					      .no_threads = true };
		struct mmnf_ssd *ssd = begin();
		struct disk_file *f;
		int err;
		u64 i;

		seed = round + 1;
		server.fail = 1000;
		for (i = 0; i < 10; i++) {
			put(ssd, i, 1);
			EXPECT_TRUE(mmnf_ssd_work(ssd));
		}
		mmnf_ssd_close(ssd);
		f = disk_find(&disk, "log.0");
		ASSERT_TRUE(f);
		f->now.data[rnd() % f->now.bytes] ^= (char)(1 << rnd() % 8);
		err = mmnf_ssd_open(&ssd, &disk.ops, &opts, &backing);
		if (err) {
			EXPECT_EQ(err, -EIO);
			EXPECT_TRUE(strstr(mmnf_last_error(), "damaged"));
			nr_refused_here++;
		} else {
			/* The last record: nothing says that it was synced. */
			for (i = 0; i < 9; i++)
				EXPECT_EQ(reads(ssd, i), 1);
			mmnf_ssd_close(ssd);
		}
		disk_free(&disk);
	}
	EXPECT_GE(nr_refused_here, 40);
}

/* ---- lives */

TEST(good_servers)
{
	many_lives(0, 0, 0, 0, false);
}

TEST(power_cuts)
{
	many_lives(0, 0, 0, 0, true);
}

TEST(servers_that_crash)
{
	many_lives(60, 0, 0, 0, false);
}

TEST(writes_that_come_late)
{
	many_lives(0, 40, 0, 0, false);
}

TEST(everything_at_once)
{
	many_lives(30, 20, 0, 0, true);
}

TEST(everything_at_once_and_slow)
{
	be_slow = true;
	many_lives(30, 20, 0, 0, true);
}

TEST(full_disk)
{
	many_lives(30, 10, 0, 200 << 10, true);
}

static bool is_away;

static void submit_or_fail(void *arg, struct mmnf_ssd_io *io)
{
	if (io->op != MMNF_SSD_FLUSH || !is_away) {
		server_submit(arg, io);
		return;
	}
	io->result = -ETIMEDOUT;
	snprintf(io->text, sizeof(io->text), "away");
	io->done(io);
}

/* One failure is told by one sync, and the next flushes again. */
TEST(sync_after_a_flush_that_failed)
{
	struct mmnf_ssd_backing backing = server_backing(SPACE);
	struct mmnf_ssd_opts opts = { .bytes = 16 * (CHUNK + 1096),
				      .log_bytes = LOG_BYTES,
				      .chunk_bytes = CHUNK,
				      .grace_ms = 5000,
				      .no_threads = true };
	struct mmnf_ssd *ssd;
	char data[64] = { 7 };

	disk_init(&disk);
	server_init(1);
	backing.submit = submit_or_fail;
	ASSERT_EQ(mmnf_ssd_open(&ssd, &disk.ops, &opts, &backing), 0);
	ASSERT_EQ(mmnf_ssd_write(ssd, 64 * 7, 64, data), 0);
	is_away = true;
	EXPECT_EQ(mmnf_ssd_sync(ssd), -ETIMEDOUT);
	is_away = false;
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	mmnf_ssd_close(ssd);
}

TEST_MAIN
