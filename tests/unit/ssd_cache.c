// SPDX-License-Identifier: MIT
/*
 * The persistent cache: what is kept, what is not, and what it does when its
 * directory is damaged, full, smaller than before, another's, or in use.
 */
#include "ssd_disk.h"

#include <sys/wait.h>
#include <time.h>

#define CHUNK 32768U
#define BLOCKS (CHUNK / 4096U)
#define NR_CHUNKS 64U
#define SPACE ((u64)NR_CHUNKS * CHUNK)

static _Alignas(4096) u64 memory[64 * 512], expected[512];
static struct disk disk;

/* Each word is its own place in the space. */
static void content(u64 block, u64 *to)
{
	u64 i;

	for (i = 0; i < 512; i++)
		to[i] = block * 512 + i;
}

static u64 budget(u64 chunks)
{
	return chunks * (CHUNK + 1096);
}

static struct mmnf_ssd *open_on(struct mmnf_ssd_disk *d, u64 chunks,
				bool threads, const char *identity)
{
	struct mmnf_ssd_backing backing = { .bytes = SPACE };
	struct mmnf_ssd_opts opts = { .bytes = budget(chunks),
				      .chunk_bytes = CHUNK,
				      .no_threads = !threads };
	struct mmnf_ssd *ssd;

	snprintf((char *)backing.identity, sizeof(backing.identity), "%s",
		 identity);
	ASSERT_EQ(mmnf_ssd_open(&ssd, d, &opts, &backing), 0);
	return ssd;
}

static struct mmnf_ssd *open_cache(u64 chunks)
{
	return open_on(&disk.ops, chunks, false, "me");
}

/* Is it there?  Then it is right. */
static bool has(struct mmnf_ssd *ssd, u64 block, u64 nr, u64 *ticket)
{
	struct iovec iov = { memory, nr * 4096 };
	u64 i;

	if (!mmnf_ssd_read(ssd, block * 4096, nr * 4096, &iov, 1, ticket))
		return false;
	for (i = 0; i < nr; i++) {
		content(block + i, expected);
		ASSERT_TRUE(!memcmp(memory + i * 512, expected, 4096));
	}
	return true;
}

static bool is_kept(struct mmnf_ssd *ssd, u64 block)
{
	u64 ticket;

	return has(ssd, block, 1, &ticket);
}

static void come(struct mmnf_ssd *ssd, u64 block, u64 nr, u64 ticket)
{
	struct iovec iov = { memory, nr * 4096 };
	u64 i;

	for (i = 0; i < nr; i++)
		content(block + i, memory + i * 512);
	ASSERT_EQ(mmnf_ssd_came(ssd, block * 4096, nr * 4096, &iov, 1, ticket),
		  0);
}

static void fetch(struct mmnf_ssd *ssd, u64 block, u64 nr)
{
	u64 ticket;

	if (!has(ssd, block, nr, &ticket))
		come(ssd, block, nr, ticket);
}

static u64 count_kept(struct mmnf_ssd *ssd)
{
	u64 i, n = 0;

	for (i = 0; i < NR_CHUNKS * BLOCKS; i++)
		n += is_kept(ssd, i);
	return n;
}

TEST(kept_over_a_close)
{
	struct mmnf_ssd *ssd;
	u64 ticket;

	disk_init(&disk);
	ssd = open_cache(32);
	fetch(ssd, 5, 11);
	EXPECT_TRUE(!is_kept(ssd, 5));
	EXPECT_TRUE(mmnf_ssd_work(ssd));
	EXPECT_TRUE(has(ssd, 5, 11, &ticket));
	EXPECT_TRUE(!has(ssd, 5, 12, &ticket));
	EXPECT_TRUE(!has(ssd, 4, 2, &ticket));
	EXPECT_EQ(stats_now(ssd).hits, 1);
	EXPECT_EQ(stats_now(ssd).misses, 4);
	EXPECT_EQ(stats_now(ssd).filled, 11);
	mmnf_ssd_close(ssd);

	ssd = open_cache(32);
	EXPECT_EQ(count_kept(ssd), 11);
	/* What is there is not written again. */
	fetch(ssd, 4, 13);
	EXPECT_TRUE(mmnf_ssd_work(ssd));
	EXPECT_EQ(stats_now(ssd).filled, 2);
	EXPECT_EQ(count_kept(ssd), 13);
	mmnf_ssd_close(ssd);
	disk_free(&disk);
}

TEST(evicts_and_keeps_what_is_used)
{
	struct mmnf_ssd *ssd;
	u64 i;

	disk_init(&disk);
	ssd = open_cache(16);
	for (i = 0; i < NR_CHUNKS; i++) {
		fetch(ssd, i * BLOCKS, BLOCKS);
		EXPECT_TRUE(mmnf_ssd_work(ssd));
		EXPECT_TRUE(is_kept(ssd, 0));
	}
	EXPECT_GE(count_kept(ssd), 8 * BLOCKS);
	EXPECT_LE(count_kept(ssd), 16 * BLOCKS);
	EXPECT_GE(stats_now(ssd).evicted_chunks, NR_CHUNKS - 16);
	mmnf_ssd_close(ssd);
	disk_free(&disk);
}

TEST(forgets_for_good)
{
	struct mmnf_ssd *ssd;
	u64 ticket;

	disk_init(&disk);
	ssd = open_cache(32);
	fetch(ssd, 0, 32);
	EXPECT_TRUE(mmnf_ssd_work(ssd));
	mmnf_ssd_forget(ssd, 3 * 4096 + 100, 4096); /* parts of 3 and 4 */
	EXPECT_TRUE(!is_kept(ssd, 3) && !is_kept(ssd, 4));
	EXPECT_TRUE(is_kept(ssd, 2) && is_kept(ssd, 5));
	/* On the way when it was forgotten: not kept. */
	EXPECT_TRUE(!has(ssd, 3, 2, &ticket));
	mmnf_ssd_forget(ssd, 3 * 4096, 1);
	come(ssd, 3, 2, ticket);
	EXPECT_TRUE(mmnf_ssd_work(ssd));
	EXPECT_TRUE(!is_kept(ssd, 3));
	fetch(ssd, 3, 1);
	EXPECT_TRUE(mmnf_ssd_work(ssd));
	EXPECT_TRUE(is_kept(ssd, 3));
	mmnf_ssd_close(ssd);
	ssd = open_cache(32);
	EXPECT_TRUE(is_kept(ssd, 3) && !is_kept(ssd, 4) && is_kept(ssd, 5));
	/* Its record is not in memory: the chunk goes. */
	mmnf_ssd_close(ssd);
	ssd = open_cache(32);
	mmnf_ssd_forget(ssd, 9 * 4096, 1);
	EXPECT_TRUE(mmnf_ssd_work(ssd));
	mmnf_ssd_close(ssd);
	ssd = open_cache(32);
	EXPECT_TRUE(!is_kept(ssd, 9) && is_kept(ssd, 16));
	mmnf_ssd_close(ssd);
	disk_free(&disk);
}

TEST(of_another_space)
{
	struct mmnf_ssd *ssd;
	char text[200];

	disk_init(&disk);
	ssd = open_cache(32);
	fetch(ssd, 0, 32);
	mmnf_ssd_work(ssd);
	mmnf_ssd_close(ssd);
	ssd = open_on(&disk.ops, 32, false, "you");
	EXPECT_TRUE(mmnf_ssd_text(ssd, text, sizeof(text)));
	EXPECT_TRUE(strstr(text, "another space"));
	EXPECT_EQ(count_kept(ssd), 0);
	mmnf_ssd_close(ssd);
	ssd = open_cache(32);
	EXPECT_EQ(count_kept(ssd), 0);
	mmnf_ssd_close(ssd);
	disk_free(&disk);
}

TEST(smaller_and_larger)
{
	struct mmnf_ssd *ssd;
	u64 kept;

	disk_init(&disk);
	ssd = open_cache(64);
	fetch(ssd, 0, 64);
	mmnf_ssd_work(ssd);
	fetch(ssd, 64, 64);
	mmnf_ssd_work(ssd);
	fetch(ssd, 128, 64);
	mmnf_ssd_work(ssd);
	EXPECT_EQ(count_kept(ssd), 192);
	mmnf_ssd_close(ssd);
	ssd = open_cache(16);
	kept = count_kept(ssd);
	EXPECT_LE(kept, 16 * BLOCKS);
	EXPECT_EQ(stats_now(ssd).bad, 0);
	EXPECT_LE(disk_find(&disk, "data.0")->now.bytes, 16 * CHUNK);
	mmnf_ssd_close(ssd);
	ssd = open_cache(64);
	EXPECT_EQ(count_kept(ssd), kept);
	fetch(ssd, 256, 64);
	mmnf_ssd_work(ssd);
	EXPECT_EQ(count_kept(ssd), kept + 64);
	mmnf_ssd_close(ssd);
	disk_free(&disk);
}

/* A read finds one damaged chunk at a time. */
static void fetch_all_of(struct mmnf_ssd *ssd, u64 block, u64 nr)
{
	u64 i;

	for (i = 0; i < nr; i += 4) {
		fetch(ssd, block + i, 4);
		mmnf_ssd_work(ssd);
	}
}

/* Any bit anywhere: right bytes or a miss, and it can be kept again. */
TEST(flipped_bits)
{
	static const char *const name[] = { "header", "slots", "records",
					    "data.0" };
	u64 round, nr_bad = 0, nr_lost = 0;

	seed = 42;
	for (round = 0; round < 200; round++) {
		struct disk_file *f;
		struct mmnf_ssd *ssd;
		u64 kept, i;

		disk_init(&disk);
		ssd = open_cache(64);
		fetch(ssd, 0, 64);
		mmnf_ssd_work(ssd);
		fetch(ssd, 100, 64);
		mmnf_ssd_close(ssd);
		f = disk_find(&disk, name[round % 4]);
		for (i = 0; i < 1 + rnd() % 20; i++)
			f->now.data[rnd() % f->now.bytes] ^=
				(char)(1U << rnd() % 8);
		ssd = open_cache(64);
		kept = count_kept(ssd);
		nr_lost += 128 - kept;
		nr_bad += stats_now(ssd).bad;
		fetch_all_of(ssd, 0, 64);
		fetch_all_of(ssd, 100, 64);
		EXPECT_EQ(count_kept(ssd), 128);
		mmnf_ssd_close(ssd);
		disk_free(&disk);
	}
	printf("# %llu blocks damaged, %llu lost\n", (unsigned long long)nr_bad,
	       (unsigned long long)nr_lost);
	EXPECT_GE(nr_bad, 20);
}

TEST(full_disk)
{
	struct mmnf_ssd *ssd;
	char text[200];
	u64 i;

	disk_init(&disk);
	ssd = open_cache(32);
	fetch(ssd, 0, 32);
	mmnf_ssd_work(ssd);
	disk.room_bytes = 1;
	for (i = 32; i < 480; i += 32)
		fetch(ssd, i, 32);
	EXPECT_TRUE(mmnf_ssd_work(ssd));
	EXPECT_TRUE(mmnf_ssd_text(ssd, text, sizeof(text)));
	EXPECT_TRUE(strstr(text, "full"));
	EXPECT_EQ(count_kept(ssd), 32);
	EXPECT_GE(stats_now(ssd).dropped, 32);
	mmnf_ssd_close(ssd);

	/* From the beginning: it cannot even have its records. */
	disk_free(&disk);
	disk_init(&disk);
	disk.room_bytes = 1;
	ssd = open_cache(32);
	EXPECT_TRUE(!mmnf_ssd_text(ssd, text, sizeof(text)));
	EXPECT_TRUE(strstr(text, "No space left"));
	fetch(ssd, 0, 32);
	EXPECT_EQ(count_kept(ssd), 0);
	mmnf_ssd_close(ssd);
	disk_free(&disk);
}

TEST(disk_that_cannot_read)
{
	struct mmnf_ssd *ssd;
	char text[200];
	u64 i;

	disk_init(&disk);
	ssd = open_cache(64);
	fetch_all_of(ssd, 0, 64);
	disk.read_error = -EIO;
	EXPECT_EQ(count_kept(ssd), 0);
	EXPECT_EQ(stats_now(ssd).bad, 64 / BLOCKS);
	disk.read_error = 0;
	EXPECT_TRUE(mmnf_ssd_text(ssd, text, sizeof(text)));
	fetch_all_of(ssd, 0, 64);
	EXPECT_EQ(count_kept(ssd), 64);
	disk.read_error = -EIO;
	for (i = 0; i < 8; i++) {
		fetch_all_of(ssd, 0, 64);
		is_kept(ssd, 0);
	}
	EXPECT_TRUE(!mmnf_ssd_text(ssd, text, sizeof(text)));
	EXPECT_TRUE(strstr(text, "64 errors"));
	EXPECT_EQ(count_kept(ssd), 0);
	mmnf_ssd_close(ssd);
	disk_free(&disk);
}

TEST(one_process)
{
	struct mmnf_ssd_disk *first, *second;
	struct mmnf_ssd *a, *b;
	char text[200];

	scratch();
	ASSERT_EQ(mmnf_ssd_disk_open(&first, "cache"), 0);
	ASSERT_EQ(mmnf_ssd_disk_open(&second, "cache"), 0);
	a = open_on(first, 32, true, "me");
	b = open_on(second, 32, true, "me");
	EXPECT_TRUE(mmnf_ssd_text(a, text, sizeof(text)));
	EXPECT_TRUE(!mmnf_ssd_text(b, text, sizeof(text)));
	EXPECT_TRUE(strstr(text, "another process"));
	fetch(b, 0, 32);
	fetch(a, 0, 32);
	EXPECT_EQ(count_kept(b), 0);
	mmnf_ssd_close(b);
	mmnf_ssd_close(a);
	ASSERT_EQ(mmnf_ssd_disk_open(&first, "cache"), 0);
	a = open_on(first, 32, false, "me");
	EXPECT_EQ(count_kept(a), 32);
	mmnf_ssd_close(a);
	EXPECT_FAILS(mmnf_ssd_disk_open(&first, "no/such/place"), ENOENT,
		     "mmnf", "no/such/place");
}

TEST(wrong_options)
{
	struct mmnf_ssd_backing backing = { .bytes = SPACE };
	struct mmnf_ssd_opts opts = { .bytes = 16 << 20, .no_threads = true };
	struct mmnf_ssd *ssd;

	disk_init(&disk);
	EXPECT_EQ(mmnf_ssd_open(&ssd, &disk.ops, &opts, &backing), 0);
	mmnf_ssd_close(ssd);
	opts.bytes--;
	EXPECT_FAILS(mmnf_ssd_open(&ssd, &disk.ops, &opts, &backing), EINVAL,
		     "mmnf", "16777216");
	opts.bytes = 64 << 20;
	opts.chunk_bytes = 48 << 10;
	EXPECT_FAILS(mmnf_ssd_open(&ssd, &disk.ops, &opts, &backing), EINVAL,
		     "mmnf", "49152");
	opts.chunk_bytes = 0;
	backing.bytes = 0;
	EXPECT_FAILS(mmnf_ssd_open(&ssd, &disk.ops, &opts, &backing), EINVAL,
		     "mmnf", "space");
	disk_free(&disk);
}

/* Fetches until it is killed. */
static void fill_for_ever(u64 round, int started)
{
	struct mmnf_ssd_disk *d;
	struct mmnf_ssd *ssd;

	seed = round + 1;
	ASSERT_EQ(mmnf_ssd_disk_open(&d, "cache"), 0);
	ssd = open_on(d, 24, true, "me");
	ASSERT_EQ(write(started, "", 1), 1);
	for (;;) {
		u64 nr = 1 + rnd() % 33;

		fetch(ssd, rnd() % (NR_CHUNKS * BLOCKS - nr), nr);
		if (rnd() % 16 == 0)
			mmnf_ssd_work(ssd);
	}
}

TEST(killed_a_hundred_times)
{
	u64 round, nr_kept = 0, kept = 0, longest_ns = 20000000;

	scratch();
	for (round = 0; round < 100; round++) {
		struct timespec nap = { 0 };
		struct mmnf_ssd_disk *d;
		struct mmnf_ssd *ssd;
		int started[2];
		char byte;
		pid_t pid;

		ASSERT_EQ(pipe(started), 0);
		pid = fork();
		ASSERT_GE(pid, 0);
		if (!pid)
			fill_for_ever(round, started[1]);
		ASSERT_EQ(read(started[0], &byte, 1), 1);
		nap.tv_nsec = (long)(rnd() % longest_ns);
		nanosleep(&nap, NULL);
		kill(pid, SIGKILL);
		ASSERT_EQ(waitpid(pid, NULL, 0), pid);
		close(started[0]);
		close(started[1]);
		ASSERT_EQ(mmnf_ssd_disk_open(&d, "cache"), 0);
		ssd = open_on(d, 24, false, "me");
		kept = count_kept(ssd);
		nr_kept += kept;
		EXPECT_EQ(stats_now(ssd).bad, 0);
		mmnf_ssd_close(ssd);
		/* Aim at the time in which it is at work. */
		if (!kept && longest_ns < 300000000)
			longest_ns *= 2;
	}
	printf("# %llu blocks compared\n", (unsigned long long)nr_kept);
	EXPECT_GE(nr_kept, 100);
}

/* Of each block: what the space has, and what nobody may see less of. */
static u64 has_version[NR_CHUNKS * BLOCKS], sure_version[NR_CHUNKS * BLOCKS];
static struct mmnf_ssd *shared;
static u64 nr_seen;
static bool is_over;

static void *write_versions(void *arg)
{
	struct timespec nap = { 0, 50000 };
	u64 i, state = 1;

	(void)arg;
	for (i = 0;
	     i < 2000 || __atomic_load_n(&nr_seen, __ATOMIC_SEQ_CST) < 2000;
	     i++) {
		u64 block = (state = state * 6364136223846793005 + 1) >> 55;
		u64 v = has_version[block] + 1;

		__atomic_store_n(&has_version[block], v, __ATOMIC_SEQ_CST);
		mmnf_ssd_forget(shared, block * 4096, 4096);
		__atomic_store_n(&sure_version[block], v, __ATOMIC_SEQ_CST);
		if (i % 64 == 0)
			EXPECT_TRUE(mmnf_ssd_work(shared));
		nanosleep(&nap, NULL);
	}
	__atomic_store_n(&is_over, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static void *read_versions(void *arg)
{
	u64 state = (u64)(uintptr_t)arg, i, ticket;
	_Alignas(4096) u64 data[512];
	struct iovec iov = { data, 4096 };

	while (!__atomic_load_n(&is_over, __ATOMIC_SEQ_CST)) {
		u64 block = (state = state * 6364136223846793005 + 1) >> 55;
		u64 sure =
			__atomic_load_n(&sure_version[block], __ATOMIC_SEQ_CST);

		if (mmnf_ssd_read(shared, block * 4096, 4096, &iov, 1,
				  &ticket)) {
			EXPECT_EQ(data[0] >> 32, block);
			EXPECT_GE(data[0] & UINT32_MAX, sure);
			EXPECT_EQ(data[511], data[0]);
			__atomic_fetch_add(&nr_seen, 1, __ATOMIC_SEQ_CST);
			continue;
		}
		sure = __atomic_load_n(&has_version[block], __ATOMIC_SEQ_CST);
		for (i = 0; i < 512; i++)
			data[i] = block << 32 | sure;
		EXPECT_EQ(mmnf_ssd_came(shared, block * 4096, 4096, &iov, 1,
					ticket),
			  0);
	}
	return NULL;
}

TEST(threads_that_read_and_write)
{
	struct mmnf_ssd_disk *d;
	pthread_t thread[4];
	u64 i;

	scratch();
	ASSERT_EQ(mmnf_ssd_disk_open(&d, "cache"), 0);
	shared = open_on(d, 40, true, "me");
	for (i = 0; i < 4; i++)
		ASSERT_EQ(pthread_create(&thread[i], NULL,
					 i ? read_versions : write_versions,
					 (void *)(uintptr_t)i),
			  0);
	for (i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	EXPECT_EQ(stats_now(shared).bad, 0);
	mmnf_ssd_close(shared);
}

TEST(memory_of_a_tebibyte)
{
	struct mmnf_ssd_backing backing = { .bytes = 1ULL << 50 };
	struct mmnf_ssd_opts opts = {
		.bytes = (1ULL << 40) + (1ULL << 20) * 1096, .no_threads = true
	};
	struct mmnf_ssd *small, *large;
	u64 more;

	disk_init(&disk);
	ASSERT_EQ(mmnf_ssd_open(&large, &disk.ops, &opts, &backing), 0);
	EXPECT_EQ(stats_now(large).size_bytes, 1ULL << 40);
	more = stats_now(large).memory_bytes;
	mmnf_ssd_close(large);
	disk_free(&disk);
	disk_init(&disk);
	opts.bytes = 64 << 20;
	ASSERT_EQ(mmnf_ssd_open(&small, &disk.ops, &opts, &backing), 0);
	printf("# a cache of 1 TiB: %llu bytes of memory, of 64 MiB: %llu\n",
	       (unsigned long long)more,
	       (unsigned long long)stats_now(small).memory_bytes);
	EXPECT_LE(more, 20 << 20);
	mmnf_ssd_close(small);
	disk_free(&disk);
}

TEST_MAIN
