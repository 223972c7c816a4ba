// SPDX-License-Identifier: MIT
/*
 * Reads of the persistent cache that are under way together: on a real directory, for
 * the queue asks the kernel itself.  Each word is its own place in the space.
 */
#include "ssd_disk.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

#define CHUNK 32768U
#define BLOCKS 8U
#define NR_CHUNKS 64U
#define NR_BLOCKS ((u64)NR_CHUNKS * BLOCKS)
#define DEPTH 16U
#define LONGEST 20U /* blocks: up to four chunks */

static struct read {
	_Alignas(4096) u64 data[LONGEST * 512];
	struct iovec iov[3];
	u64 block, nr, ticket;
	bool is_busy;
} reads[DEPTH];

static struct mmnf_ssd *open_cache(u64 chunks, bool threads)
{
	struct mmnf_ssd_backing backing = { .bytes = NR_BLOCKS * 4096,
					    .identity = "me" };
	struct mmnf_ssd_opts opts = { .bytes = chunks * (CHUNK + 1096),
				      .chunk_bytes = CHUNK,
				      .no_threads = !threads };
	struct mmnf_ssd_disk *disk;
	struct mmnf_ssd *ssd;

	ASSERT_EQ(mmnf_ssd_disk_open(&disk, "cache"), 0);
	ASSERT_EQ(mmnf_ssd_open(&ssd, disk, &opts, &backing), 0);
	return ssd;
}

static struct mmnf_ssd_queue *open_queue(struct mmnf_ssd *ssd, int fd)
{
	struct mmnf_ssd_queue *q = mmnf_ssd_queue_open(ssd, DEPTH, fd);

	if (!q)
		SKIP("no io_uring");
	return q;
}

static void check(const struct read *r)
{
	u64 i;

	for (i = 0; i < r->nr * 512; i++)
		ASSERT_EQ(r->data[i], r->block * 512 + i);
}

/* What the space answers. */
static void come(struct mmnf_ssd *ssd, struct read *r)
{
	struct iovec iov = { r->data, r->nr * 4096 };
	u64 i;

	for (i = 0; i < r->nr * 512; i++)
		r->data[i] = r->block * 512 + i;
	ASSERT_EQ(mmnf_ssd_came(ssd, r->block * 4096, r->nr * 4096, &iov, 1,
				r->ticket),
		  0);
}

static void fill(struct mmnf_ssd *ssd)
{
	struct read *r = &reads[0];

	r->nr = BLOCKS;
	for (r->block = 0; r->block < NR_BLOCKS; r->block += r->nr) {
		struct iovec iov = { r->data, CHUNK };

		ASSERT_TRUE(!mmnf_ssd_read(ssd, r->block * 4096, CHUNK, &iov, 1,
					   &r->ticket));
		come(ssd, r);
		ASSERT_TRUE(mmnf_ssd_work(ssd));
	}
}

/* In up to three pieces of memory, of whole blocks. */
static void aim(struct read *r)
{
	u64 first, second;

	r->nr = 1 + rnd() % LONGEST;
	r->block = rnd() % (NR_BLOCKS - r->nr + 1);
	memset(r->data, 0xee, r->nr * 4096);
	first = 1 + rnd() % r->nr;
	second = r->nr - first ? 1 + rnd() % (r->nr - first) : 0;
	r->iov[0] = (struct iovec) { r->data, first * 4096 };
	r->iov[1] = (struct iovec) { r->data + first * 512, second * 4096 };
	r->iov[2] = (struct iovec) { r->data + (first + second) * 512,
				     (r->nr - first - second) * 4096 };
}

static u32 nr_iov(const struct read *r)
{
	return r->iov[2].iov_len ? 3 : r->iov[1].iov_len ? 2 : 1;
}

struct counts {
	u64 nr, hits, misses, at_once;
};

/* Over: right, or to be fetched. */
static void end(struct mmnf_ssd *ssd, struct read *r, bool hit,
		struct counts *n)
{
	if (hit)
		check(r);
	else
		come(ssd, r);
	if (hit)
		n->hits++;
	else
		n->misses++;
	r->is_busy = false;
}

static void begin(struct mmnf_ssd *ssd, struct mmnf_ssd_queue *q,
		  struct read *r, struct counts *n)
{
	enum mmnf_ssd_begun begun;

	aim(r);
	n->nr++;
	r->is_busy = true;
	begun = mmnf_ssd_queue_read(q, r->block * 4096, r->nr * 4096, r->iov,
				    nr_iov(r), &r->ticket, r);
	if (begun == MMNF_SSD_UNDER_WAY)
		return;
	n->at_once += begun == MMNF_SSD_HIT;
	end(ssd, r, begun == MMNF_SSD_HIT, n);
}

/* fd: of an eventfd that tells, or -1. */
static struct counts read_some(struct mmnf_ssd *ssd, u64 nr, int fd)
{
	struct mmnf_ssd_queue *q = open_queue(ssd, fd);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct counts n = { 0 };
	struct read *r;
	u64 told;
	u32 i;
	bool hit;

	while (n.nr < nr || mmnf_ssd_queue_under_way(q)) {
		for (i = 0; i < DEPTH && n.nr < nr; i++)
			if (!reads[i].is_busy)
				begin(ssd, q, &reads[i], &n);
		if (fd < 0) {
			mmnf_ssd_queue_wait(
				q, mmnf_ssd_queue_under_way(q) ? -1 : 0);
		} else if (mmnf_ssd_queue_under_way(q)) {
			mmnf_ssd_queue_submit(q);
			ASSERT_EQ(poll(&p, 1, 10000), 1);
			ASSERT_EQ(read(fd, &told, 8), 8);
		}
		while ((r = mmnf_ssd_queue_take(q, &hit)))
			end(ssd, r, hit, &n);
	}
	mmnf_ssd_queue_close(q);
	return n;
}

TEST(many_at_once)
{
	int fd = eventfd(0, EFD_CLOEXEC);
	struct mmnf_ssd *ssd;
	struct counts n;
	u64 hits = 0;
	int way;

	scratch();
	ssd = open_cache(NR_CHUNKS + 16, false);
	fill(ssd);
	for (way = 0; way < 2; way++) {
		n = read_some(ssd, 3000, way ? fd : -1);
		EXPECT_EQ(n.hits, 3000);
		/* Those of three chunks and more are read at once. */
		EXPECT_TRUE(n.at_once > 0 && n.at_once < 2000);
		hits += n.hits;
		EXPECT_EQ(stats_now(ssd).hits, hits);
		EXPECT_EQ(stats_now(ssd).misses, NR_CHUNKS);
	}
	EXPECT_EQ(stats_now(ssd).bad, 0);
	mmnf_ssd_close(ssd);
}

/* Bits that turn under a cache in use: never seen, and kept anew. */
TEST(damaged_while_open)
{
	char junk[4096];
	struct mmnf_ssd *ssd;
	struct counts n;
	u64 i;
	int fd;

	scratch();
	ssd = open_cache(NR_CHUNKS + 16, false);
	fill(ssd);
	fd = open("cache/data.0", O_RDWR);
	ASSERT_GE(fd, 0);
	memset(junk, 0x5a, sizeof(junk));
	for (i = 0; i < 20; i++)
		ASSERT_EQ(pwrite(fd, junk, sizeof(junk),
				 (off_t)(rnd() % NR_BLOCKS * 4096)),
			  4096);
	n = read_some(ssd, 1500, -1);
	EXPECT_TRUE(n.misses > 0);
	EXPECT_TRUE(stats_now(ssd).bad > 0);
	EXPECT_EQ(n.hits + n.misses, n.nr);
	/* The file ends too early. */
	ASSERT_TRUE(mmnf_ssd_work(ssd));
	ASSERT_EQ(ftruncate(fd, 0), 0);
	n = read_some(ssd, 500, -1);
	EXPECT_TRUE(n.misses > 50);
	close(fd);
	mmnf_ssd_close(ssd);
}

/* A cache too small for the space: slots move on under the reads. */
TEST(evicted_by_another_thread)
{
	struct mmnf_ssd *ssd;
	struct counts n;

	scratch();
	ssd = open_cache(24, true);
	n = read_some(ssd, 6000, -1);
	EXPECT_EQ(n.hits + n.misses, n.nr);
	EXPECT_TRUE(n.hits > 0);
	EXPECT_TRUE(stats_now(ssd).evicted_chunks > 0);
	EXPECT_EQ(stats_now(ssd).bad, 0);
	printf("# %llu hits, %llu chunks evicted\n", (unsigned long long)n.hits,
	       (unsigned long long)stats_now(ssd).evicted_chunks);
	mmnf_ssd_close(ssd);
}

TEST_MAIN
