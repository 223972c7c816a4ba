// SPDX-License-Identifier: GPL-2.0
/* The file is cut, punched, written and removed under its mapping. */
#include "util.h"

#include <linux/falloc.h>
#include <pthread.h>

#define BYTES (4 * MIB)

FIXTURE(truncate)
{
	int fd, dev;
	char *p;
};

FIXTURE_SETUP(truncate)
{
	self->fd = make_field(_metadata, "truncate", BYTES);
	drop_cache(_metadata, self->fd);
	self->dev = attach_field(_metadata, self->fd, BYTES);
	self->p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
	catch_sigbus();
}

FIXTURE_TEARDOWN(truncate)
{
	munmap(self->p, BYTES);
	close(self->dev);
	close(self->fd);
	remove_field("truncate");
}

static u64 pages_that_raise_sigbus(const char *p, u64 len)
{
	u64 raised = 0, value, off;

	for (off = 0; off < len; off += PAGE)
		raised += !try_load(p + off, &value);
	return raised;
}

TEST_F(truncate, cut_cold_sigbus_beyond)
{
	ASSERT_EQ(0, ftruncate(self->fd, MIB + 200));
	EXPECT_EQ(0, wrong_words(self->p, 0, MIB + 200));
	EXPECT_EQ(0, nonzero_words(self->p + MIB + 200, PAGE - 200));
	EXPECT_EQ((3 * MIB - PAGE) / PAGE,
		  pages_that_raise_sigbus(self->p + MIB + PAGE,
					  3 * MIB - PAGE));
}

TEST_F(truncate, cut_while_mapped_sigbus_beyond)
{
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
	ASSERT_EQ(0, ftruncate(self->fd, MIB));
	EXPECT_EQ(3 * MIB / PAGE,
		  pages_that_raise_sigbus(self->p + MIB, 3 * MIB));
	EXPECT_EQ(0, wrong_words(self->p, 0, MIB));
	get_stats(_metadata, self->dev);
}

TEST_F(truncate, cut_to_nothing_sigbus_everywhere)
{
	EXPECT_EQ(0, wrong_words(self->p, 0, MIB));
	ASSERT_EQ(0, ftruncate(self->fd, 0));
	EXPECT_EQ(BYTES / PAGE, pages_that_raise_sigbus(self->p, BYTES));
}

TEST_F(truncate, extended_again_reads_zeros)
{
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
	ASSERT_EQ(0, ftruncate(self->fd, MIB + 200));
	ASSERT_EQ(0, ftruncate(self->fd, BYTES));
	EXPECT_EQ(0, wrong_words(self->p, 0, MIB + 200));
	EXPECT_EQ(0, nonzero_words(self->p + MIB + 200, BYTES - MIB - 200));
}

/* The mapping may be longer than the file was: it grows into it. */
TEST_F(truncate, appended_data_appears)
{
	char *p = map_field(_metadata, self->dev, 0, 2 * BYTES, MAP_SHARED);
	u64 value;

	EXPECT_FALSE(try_load(p + BYTES, &value));
	fill_field(_metadata, self->fd, BYTES, 2 * BYTES);
	EXPECT_EQ(0, wrong_words(p, 0, 2 * BYTES));
	munmap(p, 2 * BYTES);
}

TEST_F(truncate, punched_hole_is_zero_at_once)
{
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
	ASSERT_EQ(0, fallocate(self->fd,
			       FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       MIB + 8, MIB));
	EXPECT_EQ(0, wrong_words(self->p, 0, MIB + 8));
	EXPECT_EQ(0, nonzero_words(self->p + MIB + 8, MIB));
	EXPECT_EQ(0,
		  wrong_words(self->p + 2 * MIB + 8, 2 * MIB + 8, 2 * MIB - 8));
}

/* What is predicted into the hole is not read, and the walk goes on behind it. */
TEST_F(truncate, walk_across_a_hole)
{
	u64 wrong = 0, pos, value;

	ASSERT_EQ(0, fallocate(self->fd,
			       FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, MIB,
			       MIB));
	for (pos = 0; pos < BYTES; pos += 5 * PAGE) {
		value = load(self->p + pos);
		if (pos >= MIB && pos < 2 * MIB)
			wrong += value != 0;
		else
			wrong += value != word_at(pos);
	}
	EXPECT_EQ(0, wrong);
	get_stats(_metadata, self->dev);
}

TEST_F(truncate, unlinked_file_stays)
{
	remove_field("truncate");
	close(self->fd);
	self->fd = -1;
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
}

TEST_F(truncate, replaced_file_is_another_file)
{
	int other;

	remove_field("truncate");
	other = make_field(_metadata, "truncate", MIB);
	ASSERT_EQ(0, ftruncate(other, 0));
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
	close(other);
}

TEST_F(truncate, written_data_is_seen)
{
	static u64 ones[512];
	u64 i, wrong = 0;

	memset(ones, 0xff, sizeof(ones));
	EXPECT_EQ(0, wrong_words(self->p, 0, MIB));
	/* Once where it is mapped, once where it is cold. */
	ASSERT_EQ((ssize_t)PAGE, pwrite(self->fd, ones, PAGE, 16 * PAGE));
	ASSERT_EQ((ssize_t)PAGE, pwrite(self->fd, ones, PAGE, 2 * MIB));
	for (i = 0; i < PAGE; i += 8) {
		wrong += load(self->p + 16 * PAGE + i) != ~0ULL;
		wrong += load(self->p + 2 * MIB + i) != ~0ULL;
	}
	EXPECT_EQ(0, wrong);
	EXPECT_EQ(0, wrong_words(self->p, 0, 16 * PAGE));
	EXPECT_EQ(0, wrong_words(self->p + 2 * MIB + PAGE, 2 * MIB + PAGE,
				 BYTES - 2 * MIB - PAGE));
}

/*
 * Walkers read while the file is cut, extended, punched and read ahead.  Words
 * are only ever removed, so each one read is that of its offset or zero, and
 * a load raises SIGBUS or not: never a word of another place.
 */
struct walker {
	const char *p;
	s64 stride;
	u64 deadline;
	u64 loads, right, wrong;
};

static void *walk_until(void *arg)
{
	struct walker *w = arg;
	u64 value, pos = 0;

	while (now_ms() < w->deadline) {
		int i;

		for (i = 0; i < 64; i++, pos = (pos + w->stride) % BYTES) {
			if (!try_load(w->p + pos, &value))
				continue;
			w->loads++;
			w->right += value == word_at(pos);
			w->wrong += value && value != word_at(pos);
		}
		/* So that there is something to fault again. */
		madvise((void *)w->p, BYTES, MADV_DONTNEED);
	}
	return NULL;
}

struct changer {
	int fd, dev;
	u64 deadline;
	u64 changes, failed;
};

static void *change_until(void *arg)
{
	struct changer *c = arg;
	u64 state = 4711;

	while (now_ms() < c->deadline) {
		u64 off = rng_next(&state) % BYTES & ~7ULL;
		u64 len = rng_next(&state) % (BYTES - off) + 1;
		const struct mmnf_range range = { off, len };
		struct mmnf_ioc_prefetch prefetch = {
			.size = sizeof(prefetch),
			.select.items = (unsigned long)&range,
			.select.nr_items = 1,
		};
		static u64 words[4096];
		int err = 0;
		u64 i;

		switch (rng_next(&state) % 8) {
		case 0:
			err = ftruncate(c->fd, off) || ftruncate(c->fd, BYTES);
			break;
		case 1:
		case 2:
			err = fallocate(c->fd,
					FALLOC_FL_PUNCH_HOLE |
						FALLOC_FL_KEEP_SIZE,
					off, len);
			break;
		case 3:
			err = ioctl(c->dev, MMNF_IOC_PREFETCH, &prefetch);
			break;
		case 4:
			fdatasync(c->fd);
			posix_fadvise(c->fd, 0, 0, POSIX_FADV_DONTNEED);
			break;
		default:
			/* The right words back, whole: no torn ones. */
			len = BYTES - off < sizeof(words) ? BYTES - off :
							    sizeof(words);
			for (i = 0; i < len; i += 8)
				words[i / 8] = word_at(off + i);
			err = pwrite(c->fd, words, len, off) != (ssize_t)len;
		}
		c->changes++;
		c->failed += err != 0;
	}
	return NULL;
}

TEST_F(truncate, walkers_see_their_words_or_zeros)
{
	u64 deadline = now_ms() + 3000;
	struct walker w[2] = {
		{ self->p, 17 * PAGE, deadline, 0, 0, 0 },
		{ self->p, PAGE, deadline, 0, 0, 0 },
	};
	struct changer c = { self->fd, self->dev, deadline, 0, 0 };
	pthread_t thread[3];
	int i;

	for (i = 0; i < 2; i++)
		ASSERT_EQ(0,
			  pthread_create(&thread[i], NULL, walk_until, &w[i]));
	ASSERT_EQ(0, pthread_create(&thread[2], NULL, change_until, &c));
	for (i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	for (i = 0; i < 2; i++) {
		ksft_print_msg("walker %d: %llu loads, %llu right\n", i,
			       w[i].loads, w[i].right);
		EXPECT_EQ(0, w[i].wrong);
		EXPECT_LT(0, w[i].right);
	}
	ksft_print_msg("%llu changes\n", c.changes);
	EXPECT_LT(10, c.changes);
	EXPECT_EQ(0, c.failed);
	get_stats(_metadata, self->dev);
	/* At rest again, the mapping is the file. */
	ASSERT_EQ(0, ftruncate(self->fd, BYTES));
	fill_field(_metadata, self->fd, 0, BYTES);
	EXPECT_EQ(0, wrong_words(self->p, 0, BYTES));
}

MMNF_HARNESS_MAIN
