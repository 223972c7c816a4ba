// SPDX-License-Identifier: GPL-2.0
/*
 * Over resident data a fault maps what is around, whatever was done before: a walk that
 * was better off without must not leave the next one a fault for every page.
 */
#include "util.h"

#include <sys/resource.h>

#define BYTES (16 * MIB)
#define PAGES (BYTES / PAGE)
#define AROUND 16 /* pages that a fault maps at once */

/* No two touches share the pages of one fault. */
#define STRIDE (20 * PAGE)
#define TOUCHES (PAGES / 20)
/* Hits in a row that are looked at, see vm.c. */
#define IDLE_HITS 64

FIXTURE(resident)
{
	int fd, dev;
	char *p;
};

FIXTURE_SETUP(resident)
{
	u64 word, page;

	self->fd = make_field(_metadata, "resident", BYTES);
	drop_cache(_metadata, self->fd);
	/* Page by page: none carries a marker of the host's. */
	ASSERT_EQ(0, posix_fadvise(self->fd, 0, 0, POSIX_FADV_RANDOM));
	for (page = 0; page < PAGES; page++)
		ASSERT_EQ((ssize_t)sizeof(word),
			  pread(self->fd, &word, sizeof(word), page * PAGE));
	self->dev = attach_field(_metadata, self->fd, BYTES);
	self->p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
}

FIXTURE_TEARDOWN(resident)
{
	munmap(self->p, BYTES);
	close(self->dev);
	close(self->fd);
	remove_field("resident");
}

/* Faults of a walk through it all. */
static u64 sweep(struct __test_metadata *_metadata, const char *p)
{
	struct rusage before, after;

	getrusage(RUSAGE_SELF, &before);
	EXPECT_EQ(0, walk(p, 0, PAGE, PAGES, 0));
	getrusage(RUSAGE_SELF, &after);
	return after.ru_minflt - before.ru_minflt;
}

TEST_F(resident, sweep_alone)
{
	EXPECT_LE(sweep(_metadata, self->p), PAGES / AROUND + 8);
}

/* What the strided walk mapped while it was looked at is a page each. */
TEST_F(resident, sweep_after_a_strided_walk)
{
	u64 faults;

	EXPECT_EQ(0, walk(self->p, 0, STRIDE, TOUCHES, 0));
	faults = sweep(_metadata, self->p);
	ksft_print_msg("%llu faults\n", faults);
	EXPECT_LE(faults, PAGES / AROUND + 2 * IDLE_HITS);
}

TEST_F(resident, sweep_after_a_strided_walk_before_it_is_quiet)
{
	u64 faults;

	EXPECT_EQ(0, walk(self->p, 0, STRIDE, IDLE_HITS / 2, 0));
	faults = sweep(_metadata, self->p);
	ksft_print_msg("%llu faults\n", faults);
	EXPECT_LE(faults, PAGES / AROUND + 2 * IDLE_HITS);
}

/* In a mode that looks at no walk, none is waited for to end. */
TEST_F(resident, sweep_in_another_mode)
{
	static const u32 modes[] = { MMNF_MODE_MANUAL, MMNF_MODE_OFF };
	u64 faults, i;

	for (i = 0; i < 2; i++) {
		set_mode(_metadata, self->dev, MMNF_MODE_AUTO);
		EXPECT_EQ(0, walk(self->p, 0, STRIDE, IDLE_HITS / 2, 0));
		set_mode(_metadata, self->dev, modes[i]);
		faults = sweep(_metadata, self->p);
		ksft_print_msg("mode %u: %llu faults\n", modes[i], faults);
		EXPECT_LE(faults, PAGES / AROUND + 2 * IDLE_HITS);
		ASSERT_EQ(0, madvise(self->p, BYTES, MADV_DONTNEED));
	}
}

MMNF_HARNESS_MAIN
