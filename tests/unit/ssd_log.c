// SPDX-License-Identifier: MIT
/*
 * The log of writes where the disk fails, and a sync beside another thread's writes:
 * what was written is read or refused, and never bytes from before it; what was
 * synced is on the servers, or something newer.
 *
 * A cell is 64 bytes of one letter, on a block of its own.
 */
#include <pthread.h>

#include "ssd_server.h"
#include "ssd-internal.h"

#define CHUNK 32768U
#define SPACE (40ULL * CHUNK)
#define CELL 4096ULL

static struct disk disk;
static _Alignas(4096) char memory[4096];
static void (*submit_with)(void *arg, struct mmnf_ssd_io *io);

static int open_cache(struct mmnf_ssd **out)
{
	struct mmnf_ssd_backing backing = server_backing(SPACE);
	struct mmnf_ssd_opts opts = { .bytes = 16 * (CHUNK + 1096),
				      .log_bytes = 400 << 10,
				      .chunk_bytes = CHUNK,
				      .grace_ms = GRACE_NS / 1000000,
				      .no_threads = true };

	if (submit_with)
		backing.submit = submit_with;
	return mmnf_ssd_open(out, &disk.ops, &opts, &backing);
}

static struct mmnf_ssd *begin(void)
{
	struct mmnf_ssd *ssd;

	disk_init(&disk);
	server_init(1);
	ASSERT_EQ(open_cache(&ssd), 0);
	return ssd;
}

static void end(struct mmnf_ssd *ssd)
{
	mmnf_ssd_close(ssd);
	disk_free(&disk);
}

static void put(struct mmnf_ssd *ssd, u64 cell, char letter)
{
	char data[64];

	memset(data, letter, sizeof(data));
	ASSERT_EQ(mmnf_ssd_write(ssd, cell * CELL, sizeof(data), data), 0);
}

/* The letter of a cell, or an error. */
static int get(struct mmnf_ssd *ssd, u64 cell)
{
	struct iovec iov = { memory, CELL };
	u64 ticket;
	int ret = 1;

	while (ret == 1 &&
	       !mmnf_ssd_read(ssd, cell * CELL, CELL, &iov, 1, &ticket)) {
		memcpy(memory, server.now + cell * CELL, CELL);
		ret = mmnf_ssd_came(ssd, cell * CELL, CELL, &iov, 1, ticket);
	}
	return ret < 0 ? ret : memory[0];
}

/* Ten records, each safe in the log, and none on the servers. */
static void write_ten(struct mmnf_ssd *ssd)
{
	u64 i;

	server.fail = 1000;
	for (i = 0; i < 10; i++) {
		put(ssd, i, (char)('A' + i));
		EXPECT_TRUE(mmnf_ssd_work(ssd));
	}
}

static void expect_ten(struct mmnf_ssd *ssd)
{
	int i;

	for (i = 0; i < 10; i++)
		EXPECT_EQ(get(ssd, (u64)i), 'A' + i);
}

/* ---- a disk that fails when the directory is opened */

static void refused_while(const char *name, int error)
{
	struct mmnf_ssd *ssd = begin();

	write_ten(ssd);
	mmnf_ssd_close(ssd);
	server.fail = 0;
	disk.bad_name = name;
	disk.bad_error = error;
	EXPECT_EQ(open_cache(&ssd), error);
	EXPECT_TRUE(strstr(mmnf_last_error(), "is not on the servers yet"));
	disk.bad_name = NULL;
	ASSERT_EQ(open_cache(&ssd), 0);
	expect_ten(ssd);
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	EXPECT_EQ(server.stable[9 * CELL], 'J');
	end(ssd);
}

TEST(log_that_cannot_be_read)
{
	refused_while("log.0", -EIO);
}

TEST(log_that_cannot_be_opened)
{
	struct mmnf_ssd *ssd = begin();

	write_ten(ssd);
	mmnf_ssd_close(ssd);
	disk.bad_name = "log.0";
	disk.bad_error = -EMFILE;
	EXPECT_EQ(open_cache(&ssd), -EIO);
	disk.bad_name = NULL;
	ASSERT_EQ(open_cache(&ssd), 0);
	expect_ten(ssd);
	end(ssd);
}

TEST(head_that_cannot_be_read)
{
	refused_while("log.head", -EIO);
}

TEST(head_that_cannot_be_opened)
{
	refused_while("log.head", -EMFILE);
}

TEST(lock_that_cannot_be_opened)
{
	refused_while("lock", -EMFILE);
}

/* Where there was never a log, all of these only mean that there is no cache. */
TEST(directory_that_cannot_be_used)
{
	static const char *const names[] = { "log.head", "lock" };
	struct mmnf_ssd *ssd;
	u32 i;

	for (i = 0; i < 2; i++) {
		disk_init(&disk);
		server_init(1);
		disk.bad_name = names[i];
		disk.bad_error = -EMFILE;
		ASSERT_EQ(open_cache(&ssd), 0);
		put(ssd, 0, 'A');
		EXPECT_EQ(server.stable[0], 'A');
		EXPECT_EQ(get(ssd, 0), 'A');
		end(ssd);
	}
}

TEST(either_head_that_is_damaged)
{
	struct mmnf_ssd *ssd;
	struct disk_file *f;
	u64 slot, i;

	for (slot = 0; slot < 2; slot++) {
		ssd = begin();
		/* Some generations of it, whose files are gone. */
		for (i = 0; i < 5; i++) {
			put(ssd, i, 'z');
			EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
			EXPECT_TRUE(mmnf_ssd_work(ssd));
		}
		write_ten(ssd);
		mmnf_ssd_close(ssd);
		f = disk_find(&disk, "log.head");
		f->now.data[slot * 512 + 16] ^= 1;
		ASSERT_EQ(open_cache(&ssd), 0);
		expect_ten(ssd);
		end(ssd);
	}
}

/* The last record was thought to be torn, so it must not come back over newer ones. */
TEST(tail_that_was_not_taken)
{
	struct mmnf_ssd *ssd = begin();
	struct disk_file *f;
	u64 last;

	server.fail = 1000;
	put(ssd, 1, 'A');
	put(ssd, 0, 'B');
	mmnf_ssd_close(ssd);
	f = disk_find(&disk, "log.0");
	last = f->now.bytes - 1;
	f->now.data[last] ^= 1;
	ASSERT_EQ(open_cache(&ssd), 0);
	EXPECT_EQ(get(ssd, 0), 0);
	put(ssd, 0, 'N');
	mmnf_ssd_close(ssd);
	ASSERT_TRUE(f->there);
	if (f->now.bytes > last)
		f->now.data[last] ^= 1;
	ASSERT_EQ(open_cache(&ssd), 0);
	EXPECT_EQ(get(ssd, 0), 'N');
	EXPECT_EQ(get(ssd, 1), 'A');
	end(ssd);
}

/* ---- one that fails while it is open */

TEST(bit_that_flips_in_the_log)
{
	struct mmnf_ssd *ssd = begin();
	struct disk_file *f;

	memset(server.now, 'x', 64);
	memset(server.stable, 'x', 64);
	server.fail = 1000;
	put(ssd, 0, 'A');
	put(ssd, 1, 'B');
	f = disk_find(&disk, "log.0");
	f->now.data[48] ^= 0x20;
	EXPECT_EQ(get(ssd, 0), -EIO);
	EXPECT_EQ(get(ssd, 1), 'B');
	server.fail = 0;
	EXPECT_EQ(mmnf_ssd_sync(ssd), -EIO);
	EXPECT_TRUE(strstr(mmnf_last_error(), "log"));
	EXPECT_EQ(server.now[0], 'x');
	/* What replaces it is well. */
	put(ssd, 0, 'C');
	EXPECT_EQ(get(ssd, 0), 'C');
	EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
	EXPECT_EQ(server.stable[0], 'C');
	EXPECT_EQ(server.stable[CELL], 'B');
	end(ssd);
}

static int sync_that_loses(struct mmnf_ssd_disk *ops, int file)
{
	struct disk_file *f = &disk_of(ops)->file[file];

	if (strcmp(f->name, "log.0"))
		return disk_sync(ops, file);
	memset(f->now.data, 0, f->now.bytes);
	return -EIO;
}

TEST(sync_of_the_log_that_fails)
{
	struct mmnf_ssd *ssd = begin();

	memset(server.now, 'x', 64);
	memset(server.stable, 'x', 64);
	disk.ops.sync = sync_that_loses;
	put(ssd, 0, 'A');
	EXPECT_EQ(mmnf_ssd_sync(ssd), -EIO);
	EXPECT_EQ(get(ssd, 0), -EIO);
	EXPECT_EQ(server.now[0], 'x');
	end(ssd);
}

/* ---- a server that is away */

/* A letter in each of so many units of both servers. */
static void put_units(struct mmnf_ssd *ssd, u64 nr)
{
	u64 i;

	for (i = 0; i < nr; i++)
		put(ssd, i * UNIT / CELL, 'A');
}

TEST(server_that_is_away_holds_up_no_other)
{
	struct mmnf_ssd *ssd = begin();
	u64 i, steps;
	u32 dead;

	for (dead = 0; dead < GROUPS; dead++) {
		server.is_dead[dead] = true;
		put_units(ssd, SPACE / UNIT);
		for (steps = 0; steps < 200; steps++) {
			mmnf_ssd_drain_step(ssd);
			mmnf_ssd_nap(10000000);
		}
		for (i = 0; i < SPACE / UNIT; i++)
			EXPECT_EQ(server.stable[i * UNIT],
				  i % GROUPS == dead ? 0 : 'A');
		server.is_dead[dead] = false;
		EXPECT_EQ(mmnf_ssd_sync(ssd), 0);
		memset(server.now, 0, sizeof(server.now));
		memset(server.stable, 0, sizeof(server.stable));
	}
	end(ssd);
}

/* ---- a sync, and another who writes the same */

static struct mmnf_ssd *shared;
static bool is_armed, has_written;
static pthread_t writer;

static void *overwrite(void *arg)
{
	(void)arg;
	put(shared, 0, 'B');
	__atomic_store_n(&has_written, true, __ATOMIC_SEQ_CST);
	return NULL;
}

/* The write of 'A' is on its way: 'B' is written now, or waits. */
static void submit_beside(void *arg, struct mmnf_ssd_io *io)
{
	if (is_armed && io->op == MMNF_SSD_WRITE) {
		is_armed = false;
		ASSERT_EQ(pthread_create(&writer, NULL, overwrite, NULL), 0);
		while (!__atomic_load_n(&has_written, __ATOMIC_SEQ_CST) &&
		       __atomic_load_n(&shared->drain.nr_waiters,
				       __ATOMIC_SEQ_CST) < 2)
			sched_yield();
	}
	server_submit(arg, io);
}

TEST(sync_beside_a_writer)
{
	submit_with = submit_beside;
	shared = begin();
	put(shared, 0, 'A');
	is_armed = true;
	EXPECT_EQ(mmnf_ssd_sync(shared), 0);
	EXPECT_TRUE(server.stable[0] == 'A' || server.stable[0] == 'B');
	ASSERT_EQ(pthread_join(writer, NULL), 0);
	EXPECT_EQ(get(shared, 0), 'B');
	EXPECT_EQ(mmnf_ssd_sync(shared), 0);
	EXPECT_EQ(server.stable[0], 'B');
	submit_with = NULL;
	end(shared);
}

TEST_MAIN
