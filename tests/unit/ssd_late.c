// SPDX-License-Identifier: MIT
/*
 * Writes that come late, after the cache was opened again: whether its process was
 * killed or has closed it, nothing older comes over what is newer and was synced.
 *
 * Bytes 0 to 64 are A; the write of them was given up, and comes later.
 */
#include "ssd_server.h"
#include "ssd-internal.h"

#define CHUNK 32768U
#define SPACE (40ULL * CHUNK)
#define BYTES 64ULL

static struct disk disk;
static s64 late_ns; /* how long before the time that counts a write is given up */

static void submit(void *arg, struct mmnf_ssd_io *io)
{
	if (io->op == MMNF_SSD_WRITE && late_ns)
		io->late_ns = test_clock_ns + late_ns;
	server_submit(arg, io);
}

static struct mmnf_ssd *open_cache(void)
{
	struct mmnf_ssd_backing backing = server_backing(SPACE);
	struct mmnf_ssd_opts opts = { .bytes = 16 * (CHUNK + 1096),
				      .log_bytes = 400 << 10,
				      .chunk_bytes = CHUNK,
				      .grace_ms = GRACE_NS / 1000000,
				      .no_threads = true };
	struct mmnf_ssd *ssd;

	backing.submit = submit;
	backing.late_ns = late_ns;
	ASSERT_EQ(mmnf_ssd_open(&ssd, &disk.ops, &opts, &backing), 0);
	return ssd;
}

static void put(struct mmnf_ssd *ssd, u64 offset, char value)
{
	char data[BYTES];

	memset(data, value, sizeof(data));
	ASSERT_EQ(mmnf_ssd_write(ssd, offset, sizeof(data), data), 0);
}

/* A is on its way, and to be done after so long. */
static struct mmnf_ssd *begin(u32 align, s64 comes_ns)
{
	struct mmnf_ssd *ssd;
	u32 i;

	disk_init(&disk);
	server_init(align);
	ssd = open_cache();
	put(ssd, 0, 'A');
	server.lose_next = 1;
	for (i = 0; i < 1000 && !server.nr_late; i++)
		mmnf_ssd_drain_step(ssd);
	ASSERT_TRUE(server.late);
	server.late->due_ns = test_clock_ns + comes_ns;
	return ssd;
}

static void wait_for_late(void)
{
	test_clock_ns += 20 * GRACE_NS;
	server_late();
	ASSERT_TRUE(!server.late);
}

/* Who is killed reaches neither its disk nor a server. */
static struct mmnf_ssd *reopen(struct mmnf_ssd *ssd, bool is_killed)
{
	if (is_killed) {
		disk.is_off = true;
		server.fail = 1000;
	}
	mmnf_ssd_close(ssd);
	if (is_killed)
		disk_power_on(&disk);
	server.fail = 0;
	return open_cache();
}

static void end(struct mmnf_ssd *ssd)
{
	mmnf_ssd_close(ssd);
	disk_free(&disk);
}

static void killed(u32 align, u64 offset)
{
	struct mmnf_ssd *ssd;

	late_ns = 0;
	ssd = reopen(begin(align, GRACE_NS / 2), true);
	put(ssd, offset, 'B');
	ASSERT_EQ(mmnf_ssd_sync(ssd), 0);
	wait_for_late();
	EXPECT_EQ(server.now[0], offset ? 'A' : 'B');
	EXPECT_EQ(server.now[offset], 'B');
	end(ssd);
}

TEST(same_bytes)
{
	killed(1, 0);
	killed(512, 0);
}

/* The late one has what was there when it was sent. */
TEST(beside_it_in_its_block)
{
	killed(512, 128);
	killed(512, 512 - BYTES);
}

/* Both in the log of the one that is killed. */
TEST(beside_it_in_the_same_log)
{
	struct mmnf_ssd *ssd;

	late_ns = 0;
	ssd = begin(512, GRACE_NS / 2);
	put(ssd, 128, 'B');
	ASSERT_EQ(mmnf_ssd_log_sync(ssd), 0);
	ssd = reopen(ssd, true);
	ASSERT_EQ(mmnf_ssd_sync(ssd), 0);
	wait_for_late();
	EXPECT_EQ(server.now[0], 'A');
	EXPECT_EQ(server.now[128], 'B');
	end(ssd);
}

/* Its server had longer to do it. */
static void given_up_early(bool is_killed)
{
	struct mmnf_ssd *ssd;

	late_ns = 6 * GRACE_NS;
	ssd = reopen(begin(1, 4 * GRACE_NS), is_killed);
	put(ssd, 0, 'B');
	ASSERT_EQ(mmnf_ssd_sync(ssd), 0);
	wait_for_late();
	EXPECT_EQ(server.now[0], 'B');
	end(ssd);
}

TEST(given_up_early_and_killed)
{
	given_up_early(true);
}

TEST(given_up_early_and_closed)
{
	given_up_early(false);
}

/* Bytes that the late one does not have go at once. */
TEST(elsewhere)
{
	struct mmnf_ssd *ssd;
	s64 from;

	late_ns = 6 * GRACE_NS;
	ssd = reopen(begin(512, 4 * GRACE_NS), true);
	from = test_clock_ns;
	put(ssd, 512, 'B');
	while (server.now[512] != 'B')
		mmnf_ssd_drain_step(ssd);
	EXPECT_LT(test_clock_ns - from, GRACE_NS);
	ASSERT_EQ(mmnf_ssd_sync(ssd), 0);
	wait_for_late();
	end(ssd);
}

TEST_MAIN
