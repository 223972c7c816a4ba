// SPDX-License-Identifier: GPL-2.0
/*
 * PREFETCH, EVICT and RESIDENCY of boxes, records and ranges: what is selected,
 * against a model that looks at each element, and what is told about it.
 */
#include "util.h"

/* An array of 40 planes of 24 rows of 96 elements, the planes running backwards. */
#define NDIM 3
#define ELEMENT 24
#define OFFSET 520
#define PLANE 120000
#define ROW 4712
static const u64 extent[NDIM] = { 40, 24, 96 };
static const s64 stride[NDIM] = { -PLANE, ROW, ELEMENT };
#define FIRST (OFFSET + 39 * PLANE)
#define BYTES (OFFSET + 40 * PLANE)
#define PAGES ((BYTES + PAGE - 1) / PAGE)
#define RECORD 1000

FIXTURE(hint)
{
	int fd, dev;
	unsigned char *want, *vec;
	char *probe;
};

FIXTURE_SETUP(hint)
{
	struct mmnf_ioc_attach attach = {
		.size = sizeof(attach),
		.ndim = NDIM,
		.element_bytes = ELEMENT,
		.data_offset_bytes = FIRST,
		.record_bytes = RECORD,
	};
	u32 i;

	for (i = 0; i < NDIM; i++) {
		attach.extent[i] = extent[i];
		attach.stride_bytes[i] = stride[i];
	}
	self->fd = make_field(_metadata, "hint", BYTES);
	self->dev = open_device(_metadata);
	attach.fd = self->fd;
	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_ATTACH, &attach));
	drop_cache(_metadata, self->fd);
	self->want = calloc(PAGES, 1);
	self->vec = calloc(PAGES, 1);
	/* For mincore() alone: never touched. */
	self->probe = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, self->probe);
}

FIXTURE_TEARDOWN(hint)
{
	munmap(self->probe, BYTES);
	free(self->want);
	free(self->vec);
	close(self->dev);
	close(self->fd);
	remove_field("hint");
}

static int prefetch(int dev, u32 kind, const void *items, u32 nr,
		    struct mmnf_ioc_prefetch *out)
{
	*out = (struct mmnf_ioc_prefetch) {
		.size = sizeof(*out),
		.flags = MMNF_PREFETCH_WAIT,
		.select = { (unsigned long)items, nr, kind },
	};
	return err_of(ioctl(dev, MMNF_IOC_PREFETCH, out));
}

static int evict(int dev, u32 kind, const void *items, u32 nr,
		 struct mmnf_ioc_evict *out)
{
	*out = (struct mmnf_ioc_evict) {
		.size = sizeof(*out),
		.select = { (unsigned long)items, nr, kind },
	};
	return err_of(ioctl(dev, MMNF_IOC_EVICT, out));
}

static int residency(int dev, u32 kind, const void *items, u32 nr,
		     struct mmnf_state *states, struct mmnf_ioc_residency *out)
{
	*out = (struct mmnf_ioc_residency) {
		.size = sizeof(*out),
		.select = { (unsigned long)items, nr, kind },
		.states = (unsigned long)states,
	};
	return err_of(ioctl(dev, MMNF_IOC_RESIDENCY, out));
}

static void want_bytes(unsigned char *want, u64 start, u64 end)
{
	u64 page;

	for (page = start / PAGE; page <= (end - 1) / PAGE; page++)
		want[page] = 1;
}

/* The model: each element by itself. */
static void want_box(unsigned char *want, const struct mmnf_ioc_box *box)
{
	u64 i, k, l;

	for (i = 0; i < box->count[0]; i++)
		for (k = 0; k < box->count[1]; k++)
			for (l = 0; l < box->count[2]; l++) {
				const u64 n[] = { i, k, l };
				u64 pos = FIRST, d;

				for (d = 0; d < NDIM; d++) {
					s64 step = box->step[d] ?: 1;

					pos += stride[d] * (s64)(box->start[d] +
								 step * n[d]);
				}
				want_bytes(want, pos, pos + ELEMENT);
			}
}

static u64 nr_wanted(const unsigned char *want)
{
	u64 nr = 0, i;

	for (i = 0; i < PAGES; i++)
		nr += want[i];
	return nr;
}

/* Pages whose residency is not the wanted one. */
static u64 nr_different(struct __test_metadata *_metadata, const char *probe,
			unsigned char *vec, const unsigned char *want)
{
	u64 nr = 0, i;

	ASSERT_EQ(0, mincore((void *)probe, BYTES, vec));
	for (i = 0; i < PAGES; i++)
		nr += (vec[i] & 1) != want[i];
	return nr;
}

static void random_box(u64 *seed, struct mmnf_ioc_box *box)
{
	u32 d;

	memset(box, 0, sizeof(*box));
	for (d = 0; d < NDIM; d++) {
		u64 step = 1 + rng_next(seed) % 5, most;

		box->start[d] = rng_next(seed) % extent[d];
		box->step[d] = step;
		most = 1 + (extent[d] - 1 - box->start[d]) / step;
		if (rng_next(seed) % 2) {
			box->step[d] = -(s64)step;
			most = 1 + box->start[d] / step;
		}
		if (step == 1 && rng_next(seed) % 2 && box->step[d] > 0)
			box->step[d] = 0;
		box->count[d] = 1 + rng_next(seed) % most;
	}
}

TEST_F(hint, random_boxes_against_each_element)
{
	u64 seed = 20260101, round;

	for (round = 0; round < 40; round++) {
		struct mmnf_ioc_prefetch out;
		struct mmnf_ioc_evict gone;
		struct mmnf_ioc_box box;
		u64 nr;

		random_box(&seed, &box);
		memset(self->want, 0, PAGES);
		want_box(self->want, &box);
		nr = nr_wanted(self->want);
		ASSERT_EQ(0, prefetch(self->dev, MMNF_SELECT_BOXES, &box, 1,
				      &out));
		EXPECT_EQ(nr * PAGE, out.out_queued_bytes);
		EXPECT_EQ(0, out.out_resident_bytes | out.out_hole_bytes);
		EXPECT_EQ(0, nr_different(_metadata, self->probe, self->vec,
					  self->want))
		TH_LOG("round %llu: %llu,%llu,%llu +%llu,%llu,%llu *%lld,%lld,%lld",
		       round, box.start[0], box.start[1], box.start[2],
		       box.count[0], box.count[1], box.count[2], box.step[0],
		       box.step[1], box.step[2]);
		ASSERT_EQ(0, prefetch(self->dev, MMNF_SELECT_BOXES, &box, 1,
				      &out));
		EXPECT_EQ(0, out.out_queued_bytes);
		EXPECT_EQ(nr * PAGE, out.out_resident_bytes);
		ASSERT_EQ(0,
			  evict(self->dev, MMNF_SELECT_BOXES, &box, 1, &gone));
		EXPECT_EQ(nr * PAGE, gone.out_evicted_bytes)
		TH_LOG("dirty %llu mapped %llu busy %llu", gone.out_dirty_bytes,
		       gone.out_mapped_bytes, gone.out_busy_bytes);
		memset(self->want, 0, PAGES);
		EXPECT_EQ(0, nr_different(_metadata, self->probe, self->vec,
					  self->want));
	}
}

/* Evicting a box leaves what is around it. */
TEST_F(hint, evict_box_leaves_the_rest)
{
	const struct mmnf_range all = { 0, BYTES };
	u64 seed = 4711, round, nr;

	for (round = 0; round < 10; round++) {
		struct mmnf_ioc_prefetch out;
		struct mmnf_ioc_evict gone;
		struct mmnf_ioc_box box;
		u64 i;

		ASSERT_EQ(0, prefetch(self->dev, MMNF_SELECT_RANGES, &all, 1,
				      &out));
		EXPECT_EQ(PAGES * PAGE,
			  out.out_queued_bytes + out.out_resident_bytes);
		random_box(&seed, &box);
		memset(self->want, 0, PAGES);
		want_box(self->want, &box);
		nr = nr_wanted(self->want);
		for (i = 0; i < PAGES; i++)
			self->want[i] = !self->want[i];
		ASSERT_EQ(0,
			  evict(self->dev, MMNF_SELECT_BOXES, &box, 1, &gone));
		EXPECT_EQ(nr * PAGE, gone.out_evicted_bytes);
		EXPECT_EQ(0, nr_different(_metadata, self->probe, self->vec,
					  self->want));
	}
}

TEST_F(hint, wrong_boxes)
{
	const struct {
		const char *what;
		struct mmnf_ioc_box box;
		int err;
	} cases[] = {
#define BOX(...) { __VA_ARGS__ }
		{ "the whole array", BOX({ 0 }, { 40, 24, 96 }, { 0 }), 0 },
		{ "the last element", BOX({ 39, 23, 95 }, { 1, 1, 1 }, { 0 }),
		  0 },
		{ "nothing", BOX({ 39, 99, 95 }, { 1, 0, ~0ULL }, { 0 }), 0 },
		{ "backwards from the end",
		  BOX({ 39, 23, 95 }, { 40, 24, 96 }, { -1, -1, -1 }), 0 },
		{ "a step that is not taken",
		  BOX({ 0 }, { 1, 1, 1 }, { -(1LL << 62), 1LL << 62, 7 }), 0 },
		{ "an axis too many", BOX({ 0 }, { 1, 1, 1, 1 }, { 0 }),
		  EINVAL },
		{ "a step of no axis",
		  BOX({ 0 }, { 1, 1, 1 }, { 0, 0, 0, 0, 0, 0, 0, 1 }), EINVAL },
		{ "start at the extent", BOX({ 40 }, { 1, 1, 1 }, { 0 }),
		  EINVAL },
		{ "one too many", BOX({ 1 }, { 40, 1, 1 }, { 0 }), EINVAL },
		{ "steps up to the end", BOX({ 0 }, { 14, 1, 1 }, { 3 }), 0 },
		{ "steps over the end", BOX({ 1 }, { 14, 1, 1 }, { 3 }),
		  EINVAL },
		{ "before the start", BOX({ 5 }, { 7, 1, 1 }, { -1 }), EINVAL },
		{ "count ~0", BOX({ 0 }, { ~0ULL, 1, 1 }, { 0 }), EINVAL },
		{ "count * step",
		  BOX({ 0 }, { 1ULL << 33, 1, 1 }, { 1LL << 33 }), EOVERFLOW },
		{ "the least step",
		  BOX({ 0 }, { 3, 1, 1 }, { -(1LL << 62) * 2 }), EOVERFLOW },
#undef BOX
	};
	struct mmnf_ioc_residency where;
	struct mmnf_ioc_prefetch out;
	struct mmnf_ioc_evict gone;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct mmnf_ioc_box *box = &cases[i].box;

		EXPECT_EQ(cases[i].err,
			  prefetch(self->dev, MMNF_SELECT_BOXES, box, 1, &out))
		TH_LOG("%s", cases[i].what);
		EXPECT_EQ(cases[i].err,
			  evict(self->dev, MMNF_SELECT_BOXES, box, 1, &gone))
		TH_LOG("%s", cases[i].what);
		EXPECT_EQ(cases[i].err, residency(self->dev, MMNF_SELECT_BOXES,
						  box, 1, NULL, &where))
		TH_LOG("%s", cases[i].what);
	}
}

TEST_F(hint, records_read_what_is_listed)
{
	/* The last record is the rest: less than a whole one. */
	const u64 span = 40 * PLANE, last = (BYTES - FIRST) / RECORD;
	u64 list[300], seed = 99, i;
	struct mmnf_ioc_prefetch out;
	struct mmnf_ioc_evict gone;

	ASSERT_LT(last, span / RECORD);
	for (i = 0; i < 300; i++) {
		u64 start, end;

		list[i] = i ? rng_next(&seed) % (last / 2) : 0;
		start = FIRST + list[i] * RECORD;
		end = start + RECORD < BYTES ? start + RECORD : BYTES;
		want_bytes(self->want, start, end);
	}
	ASSERT_EQ(0, prefetch(self->dev, MMNF_SELECT_RECORDS, list, 300, &out));
	EXPECT_EQ(nr_wanted(self->want) * PAGE, out.out_queued_bytes);
	EXPECT_EQ(0,
		  nr_different(_metadata, self->probe, self->vec, self->want));
	ASSERT_EQ(0, evict(self->dev, MMNF_SELECT_RECORDS, list, 300, &gone));
	EXPECT_EQ(nr_wanted(self->want) * PAGE, gone.out_evicted_bytes);
	list[0] = last + 1;
	EXPECT_EQ(EINVAL,
		  prefetch(self->dev, MMNF_SELECT_RECORDS, list, 1, &out));
	list[0] = ~0ULL;
	EXPECT_EQ(EOVERFLOW,
		  prefetch(self->dev, MMNF_SELECT_RECORDS, list, 1, &out));
}

TEST_F(hint, records_need_a_record_size)
{
	int dev = attach_field(_metadata, self->fd, BYTES / 8 * 8);
	struct mmnf_ioc_prefetch out;
	u64 record = 0;

	EXPECT_EQ(EINVAL, prefetch(dev, MMNF_SELECT_RECORDS, &record, 1, &out));
	close(dev);
}

TEST_F(hint, evict_says_what_stayed_and_why)
{
	const struct mmnf_range all = { 0, 64 * PAGE };
	struct mmnf_ioc_prefetch out;
	struct mmnf_ioc_evict gone;
	char *p;
	u64 i;

	ASSERT_EQ(0, prefetch(self->dev, MMNF_SELECT_RANGES, &all, 1, &out));
	/* 5 pages mapped, 3 others written to. */
	p = mmap(NULL, 5 * PAGE, PROT_READ, MAP_SHARED | MAP_POPULATE, self->fd,
		 8 * PAGE);
	ASSERT_NE(MAP_FAILED, p);
	for (i = 20; i < 23; i++)
		ASSERT_EQ(1, pwrite(self->fd, "", 1, i * PAGE));
	ASSERT_EQ(0, evict(self->dev, MMNF_SELECT_RANGES, &all, 1, &gone));
	EXPECT_EQ(3 * PAGE, gone.out_dirty_bytes);
	EXPECT_EQ(5 * PAGE, gone.out_mapped_bytes);
	EXPECT_EQ(0, gone.out_busy_bytes);
	EXPECT_EQ((64 - 8) * PAGE, gone.out_evicted_bytes);
	EXPECT_EQ(8, resident_pages(_metadata, self->fd, 0, 64 * PAGE));
	EXPECT_EQ(64 - 8, get_stats(_metadata, self->dev).out_evicted_pages);
	munmap(p, 5 * PAGE);
	ASSERT_EQ(0, fdatasync(self->fd));
	ASSERT_EQ(0, evict(self->dev, MMNF_SELECT_RANGES, &all, 1, &gone));
	EXPECT_EQ(8 * PAGE, gone.out_evicted_bytes);
	EXPECT_EQ(0, gone.out_dirty_bytes | gone.out_mapped_bytes |
			     gone.out_busy_bytes);
	/* Nothing left: nothing dropped. */
	ASSERT_EQ(0, evict(self->dev, MMNF_SELECT_RANGES, &all, 1, &gone));
	EXPECT_EQ(0, gone.out_evicted_bytes);
}

/* What was read ahead and is evicted unused is wasted, not pending for ever. */
TEST_F(hint, evicted_pages_are_not_pending)
{
	const struct mmnf_range all = { 0, BYTES };
	struct mmnf_ioc_evict gone;
	struct mmnf_ioc_stats s;
	char *p;

	p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
	EXPECT_EQ(0, walk(p, 0, 4 * PAGE, 40, 2));
	sleep_ms(50);
	s = get_stats(_metadata, self->dev);
	EXPECT_LT(0, s.out_pending_pages);
	munmap(p, BYTES);
	ASSERT_EQ(0, evict(self->dev, MMNF_SELECT_RANGES, &all, 1, &gone));
	EXPECT_EQ(0, resident_pages(_metadata, self->fd, 0, BYTES));
	EXPECT_EQ(0, get_stats(_metadata, self->dev).out_pending_pages);
}

TEST_F(hint, residency_hot_warm_cold)
{
	/* four quarters of 32 pages: mapped, read(), read ahead, untouched */
	struct mmnf_range part[4] = { { 0, 32 * PAGE },
				      { 32 * PAGE, 32 * PAGE },
				      { 64 * PAGE, 32 * PAGE },
				      { 96 * PAGE, 32 * PAGE } };
	struct mmnf_state state[4];
	struct mmnf_ioc_residency out;
	struct mmnf_ioc_prefetch in;
	static char buf[32 * PAGE];
	char *p;
	int i;

	ASSERT_EQ(0, prefetch(self->dev, MMNF_SELECT_RANGES, part, 3, &in));
	p = map_field(_metadata, self->dev, 0, 32 * PAGE, MAP_SHARED);
	EXPECT_EQ(0, wrong_words(p, 0, 32 * PAGE));
	ASSERT_EQ((ssize_t)sizeof(buf),
		  pread(self->fd, buf, sizeof(buf), 32 * PAGE));
	ASSERT_EQ(0, residency(self->dev, MMNF_SELECT_RANGES, part, 4, state,
			       &out));
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(i < 2 ? 32 * PAGE : 0, state[i].hot_bytes)
		TH_LOG("part %d", i);
		EXPECT_EQ(i == 2 ? 32 * PAGE : 0, state[i].warm_bytes);
		EXPECT_EQ(i == 3 ? 32 * PAGE : 0, state[i].cold_bytes);
		EXPECT_EQ(0, state[i].hole_bytes);
	}
	EXPECT_EQ(64 * PAGE, out.out_total.hot_bytes);
	EXPECT_EQ(32 * PAGE, out.out_total.warm_bytes);
	EXPECT_EQ(32 * PAGE, out.out_total.cold_bytes);
	EXPECT_EQ(0, out.out_total.hole_bytes);
	/* Looking changes nothing. */
	ASSERT_EQ(0, residency(self->dev, MMNF_SELECT_RANGES, part, 4, NULL,
			       &out));
	EXPECT_EQ(32 * PAGE, out.out_total.warm_bytes);
	EXPECT_EQ(96, resident_pages(_metadata, self->fd, 0, 128 * PAGE));
	EXPECT_EQ(EFAULT, residency(self->dev, MMNF_SELECT_RANGES, part, 4,
				    (void *)8UL, &out));
	munmap(p, 32 * PAGE);
}

TEST_F(hint, residency_of_holes)
{
	const u64 part = MIB, tebibyte = 1ULL << 40;
	const struct mmnf_range range[] = {
		{ 0, 4 * part },
		{ part / 2, part },
		{ part, part },
		{ 0, ~0ULL },
		{ tebibyte - PAGE, 7 * PAGE },
	};
	struct mmnf_ioc_residency out;
	struct mmnf_state state[5];
	struct mmnf_ioc_evict gone;
	int fd, dev;

	/* data, hole, data, hole up to a tebibyte */
	fd = make_field(_metadata, "sparse", part);
	fill_field(_metadata, fd, 2 * part, 3 * part);
	ASSERT_EQ(0, ftruncate(fd, tebibyte));
	ASSERT_EQ(0, fdatasync(fd));
	dev = attach_field(_metadata, fd, tebibyte);
	ASSERT_EQ(0, evict(dev, MMNF_SELECT_RANGES, &range[3], 1, &gone));
	EXPECT_EQ(2 * part, gone.out_evicted_bytes);
	ASSERT_EQ(0, residency(dev, MMNF_SELECT_RANGES, range, 5, state, &out));
	EXPECT_EQ(0, out.out_total.hot_bytes | out.out_total.warm_bytes);
	EXPECT_EQ(2 * part, state[0].cold_bytes);
	EXPECT_EQ(2 * part, state[0].hole_bytes);
	EXPECT_EQ(part / 2, state[1].cold_bytes);
	EXPECT_EQ(part / 2, state[1].hole_bytes);
	EXPECT_EQ(0, state[2].cold_bytes);
	EXPECT_EQ(part, state[2].hole_bytes);
	EXPECT_EQ(2 * part, state[3].cold_bytes);
	EXPECT_EQ(tebibyte - 2 * part, state[3].hole_bytes);
	EXPECT_EQ(PAGE, state[4].hole_bytes);
	close(dev);
	close(fd);
	remove_field("sparse");
}

/* Who may read but not write would learn what others read. */
TEST_F(hint, residency_not_for_strangers)
{
	pid_t pid;

	ASSERT_EQ(0, fchmod(self->fd, 0444));
	pid = fork();
	if (!pid) {
		const struct mmnf_range all = { 0, BYTES };
		struct mmnf_ioc_residency out;
		struct mmnf_ioc_prefetch in;

		if (setgid(65534) || setuid(65534))
			_exit(1);
		if (residency(self->dev, MMNF_SELECT_RANGES, &all, 1, NULL,
			      &out) != EPERM)
			_exit(2);
		_exit(prefetch(self->dev, MMNF_SELECT_RANGES, &all, 1, &in));
	}
	EXPECT_EQ(0, wait_child(pid));
}

/* A list of a million items is read, however little memory there is for it. */
TEST_F(hint, longest_list)
{
	const u32 most = 1U << 20;
	u64 *list = malloc((most + 1UL) * sizeof(*list)), i;
	struct mmnf_ioc_prefetch out;

	ASSERT_NE(NULL, list);
	for (i = 0; i <= most; i++)
		list[i] = i % 100;
	ASSERT_EQ(0,
		  prefetch(self->dev, MMNF_SELECT_RECORDS, list, most, &out));
	EXPECT_LE(100UL * RECORD, out.out_queued_bytes);
	EXPECT_EQ(EINVAL, prefetch(self->dev, MMNF_SELECT_RECORDS, list,
				   most + 1, &out));
	EXPECT_EQ(EINVAL,
		  prefetch(self->dev, MMNF_SELECT_RECORDS, list, ~0U, &out));
	/* The last one only is wrong. */
	list[most - 1] = ~0ULL;
	EXPECT_EQ(EOVERFLOW,
		  prefetch(self->dev, MMNF_SELECT_RECORDS, list, most, &out));
	free(list);
}

TEST_F(hint, too_many_runs_einval)
{
	/* 8 axes of 16 elements with the same stride, overlapping */
	struct mmnf_ioc_attach attach = {
		.size = sizeof(attach),
		.fd = self->fd,
		.ndim = 8,
		.element_bytes = 8,
	};
	struct mmnf_ioc_box box = {};
	struct mmnf_ioc_prefetch out;
	int dev = open_device(_metadata), i;

	for (i = 0; i < 8; i++) {
		attach.extent[i] = 16;
		attach.stride_bytes[i] = 3 * PAGE + i * PAGE;
		box.count[i] = 16;
	}
	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_ATTACH, &attach));
	EXPECT_EQ(EINVAL, prefetch(dev, MMNF_SELECT_BOXES, &box, 1, &out));
	for (i = 5; i < 8; i++)
		box.count[i] = 1;
	EXPECT_EQ(0, prefetch(dev, MMNF_SELECT_BOXES, &box, 1, &out));
	close(dev);
}

MMNF_HARNESS_MAIN
