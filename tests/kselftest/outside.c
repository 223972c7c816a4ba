// SPDX-License-Identifier: GPL-2.0
/*
 * A field whose array is a part of its file: what lies before and behind it is read
 * ahead of walks as well, as bytes, and neither's walks lead into what the other is.
 */
#include "util.h"

#include <sys/resource.h>

#define BYTES (24 * MIB)
#define START (8 * MIB) /* of the array, not a page's start */
#define FIRST (START + 128)
#define END (16 * MIB)
#define PAGES (8 * MIB / PAGE)

#define STRIDE (17 * PAGE)
#define TOUCHES (PAGES / 17)
#define WARM_UP 12
#define REST_MS 2

FIXTURE(outside)
{
	int fd, dev;
	char *p;
};

FIXTURE_SETUP(outside)
{
	struct mmnf_ioc_attach attach;

	self->fd = make_field(_metadata, "outside", BYTES);
	drop_cache(_metadata, self->fd);
	attach = vector_of(self->fd, END - FIRST);
	attach.data_offset_bytes = FIRST;
	self->dev = open_device(_metadata);
	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_ATTACH, &attach));
	self->p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
}

FIXTURE_TEARDOWN(outside)
{
	munmap(self->p, BYTES);
	close(self->dev);
	close(self->fd);
	remove_field("outside");
}

static u64 major_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_majflt;
}

/* Page after page; a rest now and then tests the worker's lead, not its speed. */
static void expect_sequential(struct __test_metadata *_metadata, const char *p,
			      int dev, u64 from)
{
	u64 before = major_faults(), pos;
	struct mmnf_ioc_stats s;

	for (pos = from; pos < from + PAGES * PAGE; pos += 16 * PAGE) {
		EXPECT_EQ(0, walk(p, pos, PAGE, 16, 0));
		if (pos + 16 * PAGE < from + PAGES * PAGE)
			rest(p + pos + 16 * PAGE, 1);
	}
	s = get_stats(_metadata, dev);
	log_stats(_metadata->name, &s);
	EXPECT_LE(major_faults() - before, PAGES / 20);
	EXPECT_LE(s.out_misses, PAGES / 50);
	EXPECT_LE(PAGES * 9 / 10, s.out_used_pages);
}

TEST_F(outside, sequential_behind_is_predicted)
{
	expect_sequential(_metadata, self->p, self->dev, END);
}

TEST_F(outside, sequential_before_is_predicted)
{
	expect_sequential(_metadata, self->p, self->dev, 0);
}

TEST_F(outside, sequential_of_what_the_file_grew_by_is_predicted)
{
	fill_field(_metadata, self->fd, BYTES, BYTES + PAGES * PAGE);
	ASSERT_EQ(0, fsync(self->fd));
	drop_cache(_metadata, self->fd);
	munmap(self->p, BYTES);
	self->p = map_field(_metadata, self->dev, 0, BYTES + PAGES * PAGE,
			    MAP_SHARED);
	expect_sequential(_metadata, self->p, self->dev, BYTES);
	munmap(self->p + BYTES, PAGES * PAGE);
}

TEST_F(outside, strided_is_predicted)
{
	struct mmnf_ioc_stats s;

	EXPECT_EQ(0, walk(self->p, END, STRIDE, TOUCHES, REST_MS));
	s = get_stats(_metadata, self->dev);
	log_stats(_metadata->name, &s);
	EXPECT_EQ(TOUCHES, s.out_faults);
	EXPECT_LE(s.out_misses, WARM_UP);
	EXPECT_LE(TOUCHES - WARM_UP, s.out_used_pages);
	/* It ends where the file does. */
	EXPECT_LE(s.out_wasted_pages + s.out_pending_pages, 4);
}

/* One that comes from outside is learned anew, one that is of the array ends with it. */
TEST_F(outside, array_ends_where_it_did)
{
	struct mmnf_ioc_stats s;

	EXPECT_EQ(0, walk(self->p, START, STRIDE, TOUCHES, REST_MS));
	s = get_stats(_metadata, self->dev);
	log_stats(_metadata->name, &s);
	EXPECT_LE(s.out_misses, WARM_UP);
	EXPECT_EQ(0, resident_pages(_metadata, self->fd, 0, START));
	EXPECT_EQ(0, resident_pages(_metadata, self->fd, END, BYTES - END));
}

TEST_F(outside, random_reads_what_was_touched)
{
	u64 state = 88172645463325252ULL, i, nr = 10;

	for (i = 0; i < nr; i++) {
		u64 group = (i * 61 + rng_next(&state) % 8) % (PAGES / 16);
		u64 pos = END + (group * 16 + rng_next(&state) % 16) * PAGE;

		EXPECT_EQ(word_at(pos), load(self->p + pos));
	}
	EXPECT_LE(resident_pages(_metadata, self->fd, 0, BYTES), nr);
}

TEST_F(outside, manual_is_not_read_ahead)
{
	struct mmnf_ioc_stats s;

	set_mode(_metadata, self->dev, MMNF_MODE_MANUAL);
	EXPECT_EQ(0, walk(self->p, END, STRIDE, TOUCHES, 0));
	s = get_stats(_metadata, self->dev);
	EXPECT_EQ(TOUCHES, s.out_misses);
	EXPECT_EQ(0, s.out_prefetched_pages);
}

MMNF_HARNESS_MAIN
