/* SPDX-License-Identifier: MIT */
/*
 * The persistent cache and the power: at any moment, with any part of what was
 * not synced on the disk, torn anywhere.  Whoever opens the directory again sees
 * the bytes of the space or none.
 *
 * MMNF_SSD_SEEDS: how many lives, of six cuts each.
 */
#ifndef MMNF_TEST_SSD_POWER_H
#define MMNF_TEST_SSD_POWER_H

#include "ssd_disk.h"

#define CHUNK 32768U
#define NR_CHUNKS 40U
#define NR_BLOCKS (NR_CHUNKS * 8U)
#define SPACE (NR_BLOCKS * 4096ULL)
#define READ_BLOCKS 12U
#define ON_THE_WAY 6U

/* A word of the space: its own place, and how often it was written. */
static u32 version[NR_BLOCKS];

static void content(u64 block, u32 v, u64 *to)
{
	u64 i;

	for (i = 0; i < 512; i++)
		to[i] = (block * 512 + i) << 24 | v;
}

/* Reads of the space that have not come yet. */
static struct {
	bool is_used;
	u64 block, nr, ticket;
	u64 data[READ_BLOCKS * 512];
} way[ON_THE_WAY];

static u64 nr_hits, nr_writes;

static struct mmnf_ssd *open_cache(struct disk *d)
{
	struct mmnf_ssd_backing backing = { .bytes = SPACE, .identity = "me" };
	struct mmnf_ssd_opts opts = { .bytes = 16 * (CHUNK + 1096),
				      .chunk_bytes = CHUNK,
				      .no_threads = true };
	struct mmnf_ssd *ssd;

	ASSERT_EQ(mmnf_ssd_open(&ssd, &d->ops, &opts, &backing), 0);
	return ssd;
}

static _Alignas(4096) u64 memory[READ_BLOCKS * 512], expected[512];

/* In pieces, as tiles of L2 are. */
static bool read_blocks(struct mmnf_ssd *ssd, u64 block, u64 nr, u64 *ticket)
{
	struct iovec iov[READ_BLOCKS] = { 0 };
	u32 n = 0;
	u64 i, len;

	for (i = 0; i < nr; i += len) {
		len = 1 + rnd() % (nr - i);
		iov[n++] = (struct iovec) { memory + i * 512, len * 4096 };
	}
	if (!mmnf_ssd_read(ssd, block * 4096, nr * 4096, iov, n, ticket))
		return false;
	for (i = 0; i < nr; i++) {
		content(block + i, version[block + i], expected);
		if (!memcmp(memory + i * 512, expected, 4096))
			continue;
		ktap_failed("# block %llu is %016llx: expected %016llx\n",
			    (unsigned long long)(block + i),
			    (unsigned long long)memory[i * 512],
			    (unsigned long long)expected[0]);
		_exit(1);
	}
	nr_hits++;
	return true;
}

static void come(struct mmnf_ssd *ssd, u32 w)
{
	struct iovec iov = { way[w].data, way[w].nr * 4096 };

	EXPECT_EQ(mmnf_ssd_came(ssd, way[w].block * 4096, iov.iov_len, &iov, 1,
				way[w].ticket),
		  0);
	way[w].is_used = false;
}

static void read_some(struct mmnf_ssd *ssd)
{
	u64 nr = 1 + rnd() % READ_BLOCKS, ticket, i;
	u64 block = rnd() % (NR_BLOCKS - nr);
	u32 w = (u32)(rnd() % ON_THE_WAY);

	/* Half of them in a few chunks, which stay. */
	if (rnd() % 2)
		block %= 48;
	if (way[w].is_used)
		come(ssd, w);
	if (read_blocks(ssd, block, nr, &ticket))
		return;
	way[w].is_used = true;
	way[w].block = block;
	way[w].nr = nr;
	way[w].ticket = ticket;
	for (i = 0; i < nr; i++)
		content(block + i, version[block + i], way[w].data + i * 512);
}

/* The space changes once the cache has forgotten for good. */
static void write_some(struct mmnf_ssd *ssd)
{
	u64 nr = 1 + rnd() % 4, i;
	u64 block = rnd() % (NR_BLOCKS - nr);

	mmnf_ssd_forget(ssd, block * 4096 + rnd() % 4096, (nr - 1) * 4096 + 1);
	if (!mmnf_ssd_work(ssd))
		return;
	for (i = 0; i < nr; i++)
		version[block + i]++;
	nr_writes++;
}

static void live(struct disk *d)
{
	struct mmnf_ssd *ssd = open_cache(d);
	u64 ticket, i, nr = rnd() % 200;

	for (i = 0; i < NR_BLOCKS; i++)
		read_blocks(ssd, i, 1, &ticket);
	for (i = 0; i < nr && !d->is_off; i++) {
		u64 what = rnd() % 20;

		if (what < 16)
			read_some(ssd);
		else if (what < 18)
			mmnf_ssd_work(ssd);
		else
			write_some(ssd);
	}
	memset(way, 0, sizeof(way));
	mmnf_ssd_close(ssd);
}

static void cut_anywhere(void)
{
	const char *text = getenv("MMNF_SSD_SEEDS");
	u64 seeds = text ? strtoull(text, NULL, 0) : 150, s, cut;
	u64 nr_cut = 0;

	for (s = 1; s <= seeds; s++) {
		struct disk *d = malloc(sizeof(*d));

		ASSERT_TRUE(d);
		seed = s * 7919;
		disk_init(d);
		memset(version, 0, sizeof(version));
		for (cut = 0; cut < 6; cut++) {
			disk_cut_after(d, rnd() % 4 ? 1 + rnd() % 400 : 0);
			live(d);
			nr_cut += d->is_off;
			disk_power_on(d);
		}
		disk_free(d);
		free(d);
	}
	printf("# %llu lives, %llu cuts, %llu hits compared, %llu writes\n",
	       (unsigned long long)seeds, (unsigned long long)nr_cut,
	       (unsigned long long)nr_hits, (unsigned long long)nr_writes);
	EXPECT_GE(nr_cut, seeds);
	EXPECT_GE(nr_hits, seeds * 50);
}

#endif
