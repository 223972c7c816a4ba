// SPDX-License-Identifier: MIT
/*
 * Compaction of the log: bytes for a server that is away, and all that is written to
 * the other one meanwhile.  What was written is what is read, what was safe in the log
 * stays so whenever the power goes, and no sync says that the servers have what they
 * have not.
 *
 * Cells of 64 bytes hold the number of the write that they are from.  Those of group 0
 * lie in even units.
 *
 * MMNF_SSD_SEEDS: how many lives.
 */
#include "ssd_server.h"
#include "ssd-internal.h"

#define CHUNK 32768U
#define SPACE (40ULL * CHUNK)
#define CELLS (SPACE / 64)
#define LOG_BYTES (400ULL << 10)
#define UNIT_CELLS (UNIT / 64)

static struct disk disk;
static _Alignas(4096) char memory[4096];

/* Of each cell: what is seen; the last that is safe in the log or on a server. */
static u32 truth[CELLS], safe[CELLS], nr_writes;

static void (*submit_with)(void *arg, struct mmnf_ssd_io *io);

static struct mmnf_ssd *open_cache(void)
{
	struct mmnf_ssd_backing backing = server_backing(SPACE);
	struct mmnf_ssd_opts opts = { .bytes = 16 * (CHUNK + 1096),
				      .log_bytes = LOG_BYTES,
				      .chunk_bytes = CHUNK,
				      .grace_ms = GRACE_NS / 1000000,
				      .no_threads = true };
	struct mmnf_ssd *ssd;
	int err;

	if (submit_with)
		backing.submit = submit_with;
	err = mmnf_ssd_open(&ssd, &disk.ops, &opts, &backing);
	if (err && disk.is_off) {
		/* The power went meanwhile. */
		disk_power_on(&disk);
		err = mmnf_ssd_open(&ssd, &disk.ops, &opts, &backing);
	}
	ASSERT_EQ(err, 0);
	return ssd;
}

static struct mmnf_ssd *begin(void)
{
	disk_init(&disk);
	server_init(1);
	memset(truth, 0, sizeof(truth));
	memset(safe, 0, sizeof(safe));
	nr_writes = 0;
	return open_cache();
}

static void end(struct mmnf_ssd *ssd)
{
	mmnf_ssd_close(ssd);
	disk_free(&disk);
}

static u32 get_cell(const char *from)
{
	u32 id;

	memcpy(&id, from, sizeof(id));
	return id;
}

/* nr cells of one write. */
static int put(struct mmnf_ssd *ssd, u64 cell, u64 nr)
{
	static char data[UNIT];
	u32 id = nr_writes + 1;
	u64 i;
	int err;

	for (i = 0; i < nr * 64; i += sizeof(id))
		memcpy(data + i, &id, sizeof(id));
	err = mmnf_ssd_write(ssd, cell * 64, nr * 64, data);
	if (err)
		return err;
	nr_writes++;
	for (i = cell; i < cell + nr; i++)
		truth[i] = id;
	return 0;
}

/* The page of a cell, into memory. */
static void get_page(struct mmnf_ssd *ssd, u64 cell)
{
	struct iovec iov = { memory, 4096 };
	u64 offset = cell * 64, ticket;

	while (!mmnf_ssd_read(ssd, offset, 4096, &iov, 1, &ticket)) {
		memcpy(memory, server.now + offset, 4096);
		if (!mmnf_ssd_came(ssd, offset, 4096, &iov, 1, ticket))
			break;
	}
}

static void compare(struct mmnf_ssd *ssd)
{
	u64 cell;

	for (cell = 0; cell < CELLS; cell++) {
		if (cell % 64 == 0)
			get_page(ssd, cell);
		ASSERT_EQ(get_cell(memory + cell % 64 * 64), truth[cell]);
	}
}

/* Units of group 1, so many bytes in all. */
static void write_others(struct mmnf_ssd *ssd, u64 bytes)
{
	u64 i;

	for (i = 0; i < bytes / UNIT; i++)
		ASSERT_EQ(put(ssd, (i * 2 + 1) % (SPACE / UNIT) * UNIT_CELLS,
			      UNIT_CELLS),
			  0);
}

static void bytes_of_the_dead(u64 nr, u64 step)
{
	struct mmnf_ssd *ssd = begin();
	u64 i;

	server.is_dead[0] = true;
	for (i = 0; i < nr; i++)
		ASSERT_EQ(put(ssd, i * step * 2 * UNIT_CELLS, step ? 8 : 1), 0);
	write_others(ssd, 3 * LOG_BYTES);
	compare(ssd);
	EXPECT_GT(stats_now(ssd).moved_bytes, 0);
	EXPECT_EQ(get_cell(server.now), 0);
	EXPECT_EQ(mmnf_ssd_sync(ssd), -ETIMEDOUT);
	server.is_dead[0] = false;
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	for (i = 0; i < CELLS; i++)
		ASSERT_EQ(get_cell(server.stable + i * 64), truth[i]);
	end(ssd);
}

TEST(others_are_written_for_three_times_the_log)
{
	bytes_of_the_dead(1, 0);
}

TEST(many_places_of_the_server_that_is_away)
{
	bytes_of_the_dead(30, 1);
}

/* A record that was moved is newer than the sync: its bytes are not. */
TEST(moved_while_a_sync_waits)
{
	struct mmnf_ssd *ssd = begin();
	u32 i;

	server.is_dead[0] = true;
	ASSERT_EQ(put(ssd, 0, 1), 0);
	write_others(ssd, LOG_BYTES / 5 * 4);
	EXPECT_EQ(stats_now(ssd).moved_bytes, 0);
	for (i = 0; i < 20; i++)
		EXPECT_EQ(mmnf_ssd_sync(ssd), -ETIMEDOUT);
	EXPECT_GT(stats_now(ssd).moved_bytes, 0);
	server.is_dead[0] = false;
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	EXPECT_EQ(get_cell(server.stable), 1);
	end(ssd);
}

/* They are acked, and the server is gone before they are flushed. */
TEST(acked_and_not_flushed)
{
	struct mmnf_ssd *ssd = begin();

	ASSERT_EQ(put(ssd, 0, 1), 0);
	while (get_cell(server.now) != 1)
		mmnf_ssd_drain_step(ssd);
	if (get_cell(server.stable) != 1)
		server_crash(0, 100);
	server.is_dead[0] = true;
	write_others(ssd, 3 * LOG_BYTES);
	compare(ssd);
	server.is_dead[0] = false;
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	EXPECT_EQ(get_cell(server.stable), 1);
	end(ssd);
}

/* More than half of the log is for the one that is away: then it is full, and says so. */
TEST(too_much_for_the_server_that_is_away)
{
	struct mmnf_ssd *ssd = begin();
	u64 i;
	int err = 0;

	server.is_dead[0] = true;
	for (i = 0; i < LOG_BYTES / UNIT && !err; i++)
		err = put(ssd, i * 2 * UNIT_CELLS, UNIT_CELLS);
	EXPECT_EQ(err, -ETIMEDOUT);
	EXPECT_TRUE(strstr(mmnf_last_error(), "log is full"));
	EXPECT_GE(i, LOG_BYTES / UNIT / 2);
	compare(ssd);
	server.is_dead[0] = false;
	EXPECT_EQ(put(ssd, 0, 1), 0);
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	end(ssd);
}

static void submit_late(void *arg, struct mmnf_ssd_io *io)
{
	io->is_late = io->op == MMNF_SSD_WRITE && server.is_dead[io->group];
	server_submit(arg, io);
}

/*
 * It takes writes and never does them, so each may come late, and their file is needed
 * for that.  Who writes to the others is told after a while.
 */
TEST(server_that_takes_writes_and_hangs)
{
	struct mmnf_ssd *ssd;
	s64 from = 0;
	u64 i;
	int err = 0;

	submit_with = submit_late;
	ssd = begin();
	server.is_dead[0] = true;
	ASSERT_EQ(put(ssd, 0, 1), 0);
	for (i = 0; i < 6 * LOG_BYTES / UNIT && !err; i++) {
		from = test_clock_ns;
		err = put(ssd, (i * 2 + 1) % (SPACE / UNIT) * UNIT_CELLS,
			  UNIT_CELLS);
	}
	EXPECT_EQ(err, -ETIMEDOUT);
	EXPECT_GE(test_clock_ns - from, GRACE_NS);
	EXPECT_LE(test_clock_ns - from, 4 * GRACE_NS);
	compare(ssd);
	server.is_dead[0] = false;
	/* One that was under way has failed. */
	if (mmnf_ssd_sync(ssd))
		EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	EXPECT_EQ(get_cell(server.stable), 1);
	submit_with = NULL;
	end(ssd);
}

static void submit_late_once(void *arg, struct mmnf_ssd_io *io)
{
	if (io->op == MMNF_SSD_WRITE && server.is_dead[io->group] &&
	    !server.nr_failed) {
		io->is_late = true;
		io->late_ns = test_clock_ns + 4 * GRACE_NS;
	}
	server_submit(arg, io);
}

/* It was given up early, so for long it may come; then the others go on. */
TEST(given_up_long_before_the_grace_time)
{
	struct mmnf_ssd *ssd;

	submit_with = submit_late_once;
	ssd = begin();
	server.is_dead[0] = true;
	ASSERT_EQ(put(ssd, 0, 1), 0);
	write_others(ssd, 3 * LOG_BYTES);
	compare(ssd);
	server.is_dead[0] = false;
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	EXPECT_EQ(get_cell(server.stable), 1);
	submit_with = NULL;
	end(ssd);
}

static ssize_t (*read_with)(struct mmnf_ssd_disk *, int, const struct iovec *,
			    u32, u64);
static u64 nr_read_bytes;

static ssize_t count_read(struct mmnf_ssd_disk *d, int file,
			  const struct iovec *iov, u32 nr_iov, u64 offset)
{
	ssize_t n = read_with(d, file, iov, nr_iov, offset);

	if (n > 0)
		nr_read_bytes += (u64)n;
	return n;
}

/* What is left of a record in many places is read once. */
TEST(pieces_of_one_record)
{
	struct mmnf_ssd *ssd = begin();
	u64 i;

	server.is_dead[0] = true;
	ASSERT_EQ(put(ssd, 0, UNIT_CELLS), 0);
	for (i = 0; i < UNIT_CELLS; i += 2)
		ASSERT_EQ(put(ssd, i, 1), 0);
	ssd->log.compact_ns = INT64_MAX;
	write_others(ssd, LOG_BYTES / 5 * 4);
	for (i = 0; i < 20; i++)
		EXPECT_EQ(mmnf_ssd_sync(ssd), -ETIMEDOUT);
	EXPECT_EQ(stats_now(ssd).moved_bytes, 0);
	ssd->log.compact_ns = 0;
	read_with = disk.ops.read;
	disk.ops.read = count_read;
	while (mmnf_ssd_compact(ssd))
		;
	EXPECT_GE(stats_now(ssd).moved_bytes, UNIT);
	EXPECT_LE(nr_read_bytes, 4 * UNIT);
	printf("# %llu bytes were read\n", (unsigned long long)nr_read_bytes);
	disk.ops.read = read_with;
	compare(ssd);
	end(ssd);
}

/* What it would move is damaged: it stays where it is, and the log is full one day. */
TEST(damaged_in_the_oldest_file)
{
	struct mmnf_ssd *ssd = begin();
	u64 i;
	int err = 0;

	server.is_dead[0] = true;
	ASSERT_EQ(put(ssd, 0, 1), 0);
	disk_find(&disk, "log.0")->now.data[48] ^= 0x20;
	for (i = 0; i < 6 * LOG_BYTES / UNIT && !err; i++)
		err = put(ssd, (i * 2 + 1) % (SPACE / UNIT) * UNIT_CELLS,
			  UNIT_CELLS);
	EXPECT_EQ(err, -EIO);
	EXPECT_TRUE(strstr(mmnf_last_error(), "compacting the log"));
	/* What replaces it is well. */
	server.is_dead[0] = false;
	EXPECT_EQ(put(ssd, 0, 1), 0);
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	EXPECT_EQ(get_cell(server.stable), nr_writes);
	end(ssd);
}

/* ---- at any moment */

/* After the power was off: what was safe, or something newer. */
static void look_again(struct mmnf_ssd *ssd)
{
	u64 cell;

	for (cell = 0; cell < CELLS; cell++) {
		u32 id;

		if (cell % 64 == 0)
			get_page(ssd, cell);
		id = get_cell(memory + cell % 64 * 64);
		ASSERT_GE(id, safe[cell]);
		ASSERT_LE(id, nr_writes + 1);
		truth[cell] = id;
	}
	/* One that was refused may be there. */
	nr_writes++;
}

static u64 nr_refused;

static void write_some(struct mmnf_ssd *ssd)
{
	u64 unit = rnd() % 8 ? rnd() % (SPACE / UNIT) | 1 :
			       rnd() % 4 * 2; /* few of the dead */
	u64 nr = unit & 1 ? UNIT_CELLS : 1 + rnd() % 8;
	u64 at = rnd() % (UNIT_CELLS - nr + 1);

	if (put(ssd, unit % (SPACE / UNIT) * UNIT_CELLS + at, nr)) {
		/*
		 * Each look at this clock takes 20 ms, so time may be up.  In part,
		 * perhaps: asked of the next open.
		 */
		ASSERT_TRUE(disk.is_off || server.is_dead[0]);
		nr_refused += !disk.is_off;
		disk.is_off = true;
	}
}

static u64 nr_moved, nr_cut, nr_synced;

/* Then the servers have it, and may die. */
static void sync_all(struct mmnf_ssd *ssd)
{
	u64 i;

	if (mmnf_ssd_sync(ssd) || disk.is_off)
		return;
	nr_synced++;
	memcpy(safe, truth, sizeof(safe));
	server_crash(0, 50);
	server_crash(1, 50);
	for (i = 0; i < CELLS; i++)
		ASSERT_EQ(get_cell(server.now + i * 64), truth[i]);
}

static void live(void)
{
	struct mmnf_ssd *ssd = open_cache();
	u64 i, nr = 50 + rnd() % 150;

	look_again(ssd);
	for (i = 0; i < nr && !disk.is_off; i++) {
		if (rnd() % 24 == 0) {
			server.is_dead[0] = rnd() % 8;
			test_clock_ns += (s64)(rnd() % 3000000000);
		} else if (rnd() % 12 == 0) {
			if (!mmnf_ssd_log_sync(ssd) && !disk.is_off)
				memcpy(safe, truth, sizeof(safe));
		} else if (rnd() % 20 == 0) {
			sync_all(ssd);
		} else {
			write_some(ssd);
		}
	}
	if (!disk.is_off)
		compare(ssd);
	nr_moved += stats_now(ssd).moved_bytes;
	nr_cut += disk.is_off;
	server.is_dead[0] = server.is_dead[1] = true;
	mmnf_ssd_close(ssd);
	server.is_dead[0] = server.is_dead[1] = false;
}

TEST(cut_at_any_moment)
{
	const char *text = getenv("MMNF_SSD_SEEDS");
	u64 seeds = text ? strtoull(text, NULL, 0) / 8 + 1 : 16, s, i;

	for (s = 1; s <= seeds; s++) {
		seed = s * 15485863;
		end(begin());
		disk_init(&disk);
		server.is_slow = s % 2;
		server.lose = s % 3 ? 0 : 20;
		for (i = 0; i < 6; i++) {
			disk_cut_after(&disk, rnd() % 6 ? 1 + rnd() % 900 : 0);
			live();
			disk_power_on(&disk);
		}
		test_clock_ns += 2 * GRACE_NS;
		server_late();
		disk_free(&disk);
	}
	printf("# %llu lives, %llu cuts, %llu syncs, %llu refused, %llu bytes moved\n",
	       (unsigned long long)seeds, (unsigned long long)nr_cut,
	       (unsigned long long)nr_synced, (unsigned long long)nr_refused,
	       (unsigned long long)nr_moved);
	EXPECT_GE(nr_cut, seeds);
	EXPECT_GE(nr_moved, seeds * 64);
}

TEST_MAIN
