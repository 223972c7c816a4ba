// SPDX-License-Identifier: GPL-2.0
/* The commands of /dev/mmnf but ATTACH: rules of all, and what each refuses. */
#include "util.h"

#include <stddef.h>
#include <sys/syscall.h>

#define LAYOUT(type, member, offset)                            \
	_Static_assert(offsetof(struct type, member) == offset, \
		       #type "." #member)

/* The same numbers for 32-bit and 64-bit programs, on every machine. */
LAYOUT(mmnf_ioc_info, size, 0);
LAYOUT(mmnf_ioc_info, flags, 4);
LAYOUT(mmnf_ioc_info, out_features, 8);
LAYOUT(mmnf_ioc_info, out_page_bytes, 16);
LAYOUT(mmnf_ioc_info, out_max_ndim, 20);
LAYOUT(mmnf_ioc_info, out_max_items, 24);
LAYOUT(mmnf_ioc_info, out_nr_streams, 28);
LAYOUT(mmnf_ioc_info, out_max_depth, 32);
LAYOUT(mmnf_ioc_info, out_max_inflight_bytes, 40);
_Static_assert(sizeof(struct mmnf_ioc_info) == 48, "info");
LAYOUT(mmnf_ioc_attach, fd, 8);
LAYOUT(mmnf_ioc_attach, ndim, 12);
LAYOUT(mmnf_ioc_attach, element_bytes, 16);
LAYOUT(mmnf_ioc_attach, data_offset_bytes, 24);
LAYOUT(mmnf_ioc_attach, record_bytes, 32);
LAYOUT(mmnf_ioc_attach, extent, 40);
LAYOUT(mmnf_ioc_attach, stride_bytes, 104);
LAYOUT(mmnf_ioc_attach, out_id, 168);
_Static_assert(sizeof(struct mmnf_ioc_attach) == 176, "attach");
LAYOUT(mmnf_ioc_policy, mode, 8);
LAYOUT(mmnf_ioc_policy, min_depth, 12);
LAYOUT(mmnf_ioc_policy, max_depth, 16);
LAYOUT(mmnf_ioc_policy, max_window_bytes, 24);
LAYOUT(mmnf_ioc_policy, max_inflight_bytes, 32);
_Static_assert(sizeof(struct mmnf_ioc_policy) == 40, "policy");
LAYOUT(mmnf_range, len_bytes, 8);
_Static_assert(sizeof(struct mmnf_range) == 16, "range");
LAYOUT(mmnf_select, items, 0);
LAYOUT(mmnf_select, nr_items, 8);
LAYOUT(mmnf_select, kind, 12);
_Static_assert(sizeof(struct mmnf_select) == 16, "select");
LAYOUT(mmnf_ioc_box, count, 64);
LAYOUT(mmnf_ioc_box, step, 128);
_Static_assert(sizeof(struct mmnf_ioc_box) == 192, "box");
LAYOUT(mmnf_ioc_prefetch, select, 8);
LAYOUT(mmnf_ioc_prefetch, out_queued_bytes, 24);
LAYOUT(mmnf_ioc_prefetch, out_resident_bytes, 32);
LAYOUT(mmnf_ioc_prefetch, out_hole_bytes, 40);
_Static_assert(sizeof(struct mmnf_ioc_prefetch) == 48, "prefetch");
LAYOUT(mmnf_ioc_evict, select, 8);
LAYOUT(mmnf_ioc_evict, out_evicted_bytes, 24);
LAYOUT(mmnf_ioc_evict, out_dirty_bytes, 32);
LAYOUT(mmnf_ioc_evict, out_mapped_bytes, 40);
LAYOUT(mmnf_ioc_evict, out_busy_bytes, 48);
_Static_assert(sizeof(struct mmnf_ioc_evict) == 56, "evict");
LAYOUT(mmnf_state, warm_bytes, 8);
LAYOUT(mmnf_state, cold_bytes, 16);
LAYOUT(mmnf_state, hole_bytes, 24);
_Static_assert(sizeof(struct mmnf_state) == 32, "state");
LAYOUT(mmnf_ioc_residency, select, 8);
LAYOUT(mmnf_ioc_residency, states, 24);
LAYOUT(mmnf_ioc_residency, out_total, 32);
_Static_assert(sizeof(struct mmnf_ioc_residency) == 64, "residency");
LAYOUT(mmnf_ioc_stats, out_faults, 8);
LAYOUT(mmnf_ioc_stats, out_misses, 32);
LAYOUT(mmnf_ioc_stats, out_prefetched_pages, 40);
LAYOUT(mmnf_ioc_stats, out_pending_pages, 64);
LAYOUT(mmnf_ioc_stats, out_mappings, 96);
LAYOUT(mmnf_ioc_stats, out_evicted_pages, 104);
_Static_assert(sizeof(struct mmnf_ioc_stats) == 112, "stats");

static int call(int dev, unsigned long command, void *arg)
{
	return err_of(ioctl(dev, command, arg));
}

/* An open device, before ATTACH. */
FIXTURE(fresh)
{
	int dev;
};

FIXTURE_SETUP(fresh)
{
	self->dev = open_device(_metadata);
}

FIXTURE_TEARDOWN(fresh)
{
	close(self->dev);
}

TEST_F(fresh, info_outputs_are_sane)
{
	struct mmnf_ioc_info info = { .size = sizeof(info) };

	ASSERT_EQ(0, call(self->dev, MMNF_IOC_GET_INFO, &info));
	EXPECT_EQ(sizeof(info), info.size);
	EXPECT_EQ(MMNF_FEATURE_PREDICT | MMNF_FEATURE_PREFETCH_RANGES,
		  info.out_features & (MMNF_FEATURE_PREDICT |
				       MMNF_FEATURE_PREFETCH_RANGES));
	EXPECT_EQ(0, info.out_features & ~0xffULL);
	EXPECT_EQ(sysconf(_SC_PAGESIZE), info.out_page_bytes);
	EXPECT_EQ(MMNF_MAX_NDIM, info.out_max_ndim);
	EXPECT_LE(64, info.out_max_items);
	EXPECT_LE(1, info.out_nr_streams);
	EXPECT_LE(1, info.out_max_depth);
	EXPECT_EQ(0, info.__reserved);
	EXPECT_LE(PAGE, info.out_max_inflight_bytes);
}

TEST_F(fresh, info_longer_with_zero_tail_ok)
{
	struct {
		struct mmnf_ioc_info info;
		u64 tail[4];
	} arg = { .info.size = sizeof(arg) };

	EXPECT_EQ(0, call(self->dev, MMNF_IOC_GET_INFO, &arg));
	EXPECT_EQ(4096, arg.info.out_page_bytes);
	EXPECT_EQ(0, arg.tail[0] | arg.tail[1] | arg.tail[2] | arg.tail[3]);
}

TEST_F(fresh, info_nonzero_tail_e2big)
{
	struct {
		struct mmnf_ioc_info info;
		u64 tail[4];
	} arg = { .info.size = sizeof(arg), .tail = { 0, 0, 0, 1ULL << 63 } };

	EXPECT_EQ(E2BIG, call(self->dev, MMNF_IOC_GET_INFO, &arg));
}

TEST_F(fresh, info_below_first_version_einval)
{
	struct mmnf_ioc_info info = {};
	static const u32 sizes[] = { 0, 1, 4, 7 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		info.size = sizes[i];
		EXPECT_EQ(EINVAL, call(self->dev, MMNF_IOC_GET_INFO, &info))
		TH_LOG("size %u", sizes[i]);
	}
}

/* Whether a size is old enough to be known or not, nothing beyond it is written. */
TEST_F(fresh, info_shorter_writes_nothing_beyond)
{
	struct mmnf_ioc_info info;
	u32 size;

	for (size = 8; size < sizeof(info); size += 8) {
		const unsigned char *byte = (unsigned char *)&info;
		unsigned int i, dirty = 0;
		int err;

		memset(&info, 0xa5, sizeof(info));
		memset(&info, 0, size);
		info.size = size;
		err = call(self->dev, MMNF_IOC_GET_INFO, &info);
		if (err)
			EXPECT_EQ(EINVAL, err);
		for (i = size; i < sizeof(info); i++)
			dirty += byte[i] != 0xa5;
		EXPECT_EQ(0, dirty)
		TH_LOG("size %u", size);
	}
}

TEST_F(fresh, info_flag_eopnotsupp)
{
	struct mmnf_ioc_info info = { .size = sizeof(info), .flags = 1U << 31 };

	EXPECT_EQ(EOPNOTSUPP, call(self->dev, MMNF_IOC_GET_INFO, &info));
}

TEST_F(fresh, info_reserved_einval)
{
	struct mmnf_ioc_info info = { .size = sizeof(info), .__reserved = 1 };

	EXPECT_EQ(EINVAL, call(self->dev, MMNF_IOC_GET_INFO, &info));
}

TEST_F(fresh, info_bad_pointer_efault)
{
	char *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct mmnf_ioc_info *info = (void *)(p + PAGE - 16);

	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(EFAULT, call(self->dev, MMNF_IOC_GET_INFO, NULL));
	EXPECT_EQ(EFAULT, call(self->dev, MMNF_IOC_GET_INFO, (void *)-4096L));
	/* The size can be read, the rest of the struct cannot. */
	ASSERT_EQ(0, munmap(p + PAGE, PAGE));
	info->size = sizeof(*info);
	EXPECT_EQ(EFAULT, call(self->dev, MMNF_IOC_GET_INFO, info));
	/* It can be read, but not written. */
	info = (void *)p;
	info->size = sizeof(*info);
	ASSERT_EQ(0, mprotect(p, PAGE, PROT_READ));
	EXPECT_EQ(EFAULT, call(self->dev, MMNF_IOC_GET_INFO, info));
}

TEST_F(fresh, unknown_command_enotty)
{
	struct mmnf_ioc_info info = { .size = sizeof(info) };
	static const unsigned long commands[] = {
		_IO(MMNF_IOC_TYPE, 0x00),
		_IO(MMNF_IOC_TYPE, 0x7f),
		_IO(MMNF_IOC_TYPE, 0x88),
		_IO(MMNF_IOC_TYPE, 0xff),
		_IO(MMNF_IOC_TYPE + 1, 0x80),
		_IO(0, 0x80),
		/* A direction or a size in the number makes it another one. */
		_IOWR(MMNF_IOC_TYPE, 0x80, struct mmnf_ioc_info),
		/* FIBMAP, which the VFS answers for regular files only */
		_IO(0x00, 1),
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(commands); i++)
		EXPECT_EQ(ENOTTY, call(self->dev, commands[i], &info))
	TH_LOG("command %#lx", commands[i]);
}

TEST_F(fresh, commands_before_attach_enxio)
{
	struct mmnf_ioc_policy policy = { .size = sizeof(policy),
					  .mode = MMNF_MODE_AUTO };
	struct mmnf_ioc_prefetch prefetch = { .size = sizeof(prefetch) };
	struct mmnf_ioc_evict evict = { .size = sizeof(evict) };
	struct mmnf_ioc_residency residency = { .size = sizeof(residency) };
	struct mmnf_ioc_stats stats = { .size = sizeof(stats) };

	EXPECT_EQ(ENXIO, call(self->dev, MMNF_IOC_EVICT, &evict));
	EXPECT_EQ(ENXIO, call(self->dev, MMNF_IOC_RESIDENCY, &residency));
	EXPECT_EQ(ENXIO, call(self->dev, MMNF_IOC_GET_POLICY, &policy));
	EXPECT_EQ(ENXIO, call(self->dev, MMNF_IOC_SET_POLICY, &policy));
	EXPECT_EQ(ENXIO, call(self->dev, MMNF_IOC_PREFETCH, &prefetch));
	EXPECT_EQ(ENXIO, call(self->dev, MMNF_IOC_GET_STATS, &stats));
}

/* An attached field of 64 pages. */
FIXTURE(attached)
{
	int fd, dev;
	struct mmnf_ioc_info info;
};

FIXTURE_SETUP(attached)
{
	self->fd = make_field(_metadata, "ioctl", 64 * PAGE);
	self->dev = attach_field(_metadata, self->fd, 64 * PAGE);
	self->info.size = sizeof(self->info);
	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_GET_INFO, &self->info));
}

FIXTURE_TEARDOWN(attached)
{
	close(self->dev);
	close(self->fd);
	remove_field("ioctl");
}

TEST_F(attached, flags_eopnotsupp)
{
	struct mmnf_ioc_policy policy = { .size = sizeof(policy),
					  .flags = 1,
					  .mode = MMNF_MODE_AUTO };
	struct mmnf_ioc_prefetch prefetch = { .size = sizeof(prefetch),
					      .flags = 2 };
	struct mmnf_ioc_evict evict = { .size = sizeof(evict), .flags = 1 };
	struct mmnf_ioc_residency residency = { .size = sizeof(residency),
						.flags = 1 };
	struct mmnf_ioc_stats stats = { .size = sizeof(stats), .flags = 1 };

	EXPECT_EQ(EOPNOTSUPP, call(self->dev, MMNF_IOC_EVICT, &evict));
	EXPECT_EQ(EOPNOTSUPP, call(self->dev, MMNF_IOC_RESIDENCY, &residency));
	EXPECT_EQ(EOPNOTSUPP, call(self->dev, MMNF_IOC_SET_POLICY, &policy));
	EXPECT_EQ(EOPNOTSUPP, call(self->dev, MMNF_IOC_GET_POLICY, &policy));
	EXPECT_EQ(EOPNOTSUPP, call(self->dev, MMNF_IOC_PREFETCH, &prefetch));
	EXPECT_EQ(EOPNOTSUPP, call(self->dev, MMNF_IOC_GET_STATS, &stats));
}

TEST_F(attached, sizes_checked_by_every_command)
{
	static const unsigned long commands[] = {
		MMNF_IOC_GET_INFO,   MMNF_IOC_ATTACH,	 MMNF_IOC_SET_POLICY,
		MMNF_IOC_GET_POLICY, MMNF_IOC_PREFETCH,	 MMNF_IOC_EVICT,
		MMNF_IOC_RESIDENCY,  MMNF_IOC_GET_STATS,
	};
	static union {
		u32 size;
		unsigned char byte[512];
	} arg;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		memset(&arg, 0, sizeof(arg));
		EXPECT_EQ(EINVAL, call(self->dev, commands[i], &arg))
		TH_LOG("command %#lx, size 0", commands[i]);
		arg.size = 4;
		EXPECT_EQ(EINVAL, call(self->dev, commands[i], &arg))
		TH_LOG("command %#lx, size 4", commands[i]);
		arg.size = sizeof(arg);
		arg.byte[511] = 1;
		EXPECT_EQ(E2BIG, call(self->dev, commands[i], &arg))
		TH_LOG("command %#lx, tail", commands[i]);
		EXPECT_EQ(EFAULT, call(self->dev, commands[i], NULL))
		TH_LOG("command %#lx, NULL", commands[i]);
	}
}

TEST_F(attached, default_policy_is_auto_within_limits)
{
	struct mmnf_ioc_policy policy = get_policy(_metadata, self->dev);

	EXPECT_EQ(MMNF_MODE_AUTO, policy.mode);
	EXPECT_LE(1, policy.min_depth);
	EXPECT_LE(policy.min_depth, policy.max_depth);
	EXPECT_LE(policy.max_depth, self->info.out_max_depth);
	EXPECT_LE(PAGE, policy.max_window_bytes);
	EXPECT_LE(policy.max_inflight_bytes, self->info.out_max_inflight_bytes);
	EXPECT_LE(PAGE, policy.max_inflight_bytes);
}

TEST_F(attached, policy_round_trip)
{
	struct mmnf_ioc_policy set = {
		.size = sizeof(set),
		.mode = MMNF_MODE_MANUAL,
		.min_depth = 3,
		.max_depth = 5,
		.max_window_bytes = 3 * 65536,
		.max_inflight_bytes = 5 * 65536,
	};
	struct mmnf_ioc_policy got;

	ASSERT_EQ(0, call(self->dev, MMNF_IOC_SET_POLICY, &set));
	got = get_policy(_metadata, self->dev);
	EXPECT_EQ(0, memcmp(&set, &got, sizeof(set)));
}

TEST_F(attached, policy_zero_leaves_as_it_is)
{
	struct mmnf_ioc_policy before,
		set = { .size = sizeof(set), .mode = MMNF_MODE_OFF };
	struct mmnf_ioc_policy got;

	before = get_policy(_metadata, self->dev);
	ASSERT_EQ(0, call(self->dev, MMNF_IOC_SET_POLICY, &set));
	got = get_policy(_metadata, self->dev);
	EXPECT_EQ(MMNF_MODE_OFF, got.mode);
	before.mode = MMNF_MODE_OFF;
	EXPECT_EQ(0, memcmp(&before, &got, sizeof(got)));
}

TEST_F(attached, policy_wrong_values_change_nothing)
{
	struct mmnf_ioc_policy before = get_policy(_metadata, self->dev);
	struct mmnf_ioc_policy got;
	const struct {
		const char *what;
		struct mmnf_ioc_policy policy;
		int err;
	} cases[] = {
		{ "mode 3", { .mode = 3 }, EOPNOTSUPP },
		{ "mode ~0", { .mode = ~0U }, EOPNOTSUPP },
		{ "reserved", { .mode = 0, .__reserved = 1 }, EINVAL },
		{ "min > max", { .min_depth = 9, .max_depth = 8 }, EINVAL },
		{ "min > max as it is",
		  { .min_depth = before.max_depth + 1 },
		  EINVAL },
		{ "max_depth over the limit",
		  { .max_depth = self->info.out_max_depth + 1 },
		  EINVAL },
		{ "max_depth ~0", { .max_depth = ~0U }, EINVAL },
		{ "max_inflight over the limit",
		  { .max_inflight_bytes =
			    self->info.out_max_inflight_bytes + 1 },
		  EINVAL },
		{ "max_inflight ~0", { .max_inflight_bytes = ~0ULL }, EINVAL },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mmnf_ioc_policy policy = cases[i].policy;

		policy.size = sizeof(policy);
		EXPECT_EQ(cases[i].err,
			  call(self->dev, MMNF_IOC_SET_POLICY, &policy))
		TH_LOG("%s", cases[i].what);
		got = get_policy(_metadata, self->dev);
		EXPECT_EQ(0, memcmp(&before, &got, sizeof(got)))
		TH_LOG("%s", cases[i].what);
	}
}

TEST_F(attached, policy_limits_themselves_ok)
{
	struct mmnf_ioc_policy policy = {
		.size = sizeof(policy),
		.mode = MMNF_MODE_AUTO,
		.min_depth = 1,
		.max_depth = self->info.out_max_depth,
		.max_inflight_bytes = self->info.out_max_inflight_bytes,
	};

	EXPECT_EQ(0, call(self->dev, MMNF_IOC_SET_POLICY, &policy));
	policy.min_depth = self->info.out_max_depth;
	EXPECT_EQ(0, call(self->dev, MMNF_IOC_SET_POLICY, &policy));
	policy.min_depth = policy.max_depth = 1;
	EXPECT_EQ(0, call(self->dev, MMNF_IOC_SET_POLICY, &policy));
}

static int prefetch(int dev, const void *ranges, u32 nr,
		    struct mmnf_ioc_prefetch *out)
{
	*out = (struct mmnf_ioc_prefetch) {
		.size = sizeof(*out),
		.flags = MMNF_PREFETCH_WAIT,
		.select.items = (unsigned long)ranges,
		.select.nr_items = nr,
	};
	return call(dev, MMNF_IOC_PREFETCH, out);
}

TEST_F(attached, prefetch_wrong_values)
{
	struct mmnf_ioc_prefetch out = { .size = sizeof(out),
					 .select.kind = 3 };
	struct mmnf_range range = { 0, PAGE };
	const struct mmnf_range overflow[] = {
		{ ~0ULL - 10, 100 },
		{ 1, ~0ULL },
		{ 1ULL << 63, 1ULL << 63 },
	};
	struct mmnf_range *many;
	unsigned int i;

	EXPECT_EQ(EOPNOTSUPP, call(self->dev, MMNF_IOC_PREFETCH, &out));
	EXPECT_EQ(EFAULT, prefetch(self->dev, NULL, 1, &out));
	EXPECT_EQ(EFAULT, prefetch(self->dev, (void *)-4096L, 1, &out));
	for (i = 0; i < ARRAY_SIZE(overflow); i++)
		EXPECT_EQ(EOVERFLOW, prefetch(self->dev, &overflow[i], 1, &out))
	TH_LOG("range %u", i);
	EXPECT_EQ(EINVAL, prefetch(self->dev, &range, ~0U, &out));
	many = calloc(self->info.out_max_items + 1UL, sizeof(*many));
	ASSERT_NE(NULL, many);
	EXPECT_EQ(EINVAL, prefetch(self->dev, many,
				   self->info.out_max_items + 1, &out));
	EXPECT_EQ(0, prefetch(self->dev, many, self->info.out_max_items, &out));
	free(many);
}

TEST_F(attached, prefetch_of_nothing_ok)
{
	const struct mmnf_range nothing[] = {
		{ 0, 0 },
		{ 64 * PAGE, PAGE }, /* beyond the end of the file */
		{ 1ULL << 50, 1ULL << 40 },
	};
	struct mmnf_ioc_prefetch out;

	EXPECT_EQ(0, prefetch(self->dev, NULL, 0, &out));
	EXPECT_EQ(0, out.out_queued_bytes | out.out_resident_bytes |
			     out.out_hole_bytes);
	EXPECT_EQ(0, prefetch(self->dev, nothing, 3, &out));
	EXPECT_EQ(0, out.out_queued_bytes | out.out_resident_bytes |
			     out.out_hole_bytes);
}

TEST_F(attached, stats_start_at_zero)
{
	struct mmnf_ioc_stats s = { .size = sizeof(s) }, zero = s;

	EXPECT_EQ(0, call(self->dev, MMNF_IOC_GET_STATS, &s));
	EXPECT_EQ(0, memcmp(&zero, &s, sizeof(s)));
}

#ifdef __x86_64__
/* A system call as a 32-bit program makes it. */
static int call32(int number, int a, unsigned int b, unsigned int c)
{
	int ret;

	asm volatile("int $0x80"
		     : "=a"(ret)
		     : "a"(number), "b"(a), "c"(b), "d"(c)
		     : "memory", "r8", "r9", "r10", "r11");
	return ret;
}

#define NR32_GETPID 20
#define NR32_IOCTL 54

TEST_F(attached, commands_from_a_32_bit_program)
{
	struct low {
		struct mmnf_ioc_info info;
		struct mmnf_ioc_prefetch prefetch;
		struct mmnf_ioc_residency residency;
		struct mmnf_ioc_evict evict;
		struct mmnf_range range;
		struct mmnf_state state;
	} * low;
	u32 at;
	pid_t pid = fork();

	if (!pid)
		_exit(call32(NR32_GETPID, 0, 0, 0) != getpid());
	if (wait_child(pid))
		SKIP(return, "kernel: no 32-bit system calls");
	low = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	ASSERT_NE(MAP_FAILED, low);
	at = (unsigned long)low;
	low->info.size = sizeof(low->info);
	ASSERT_EQ(0, call32(NR32_IOCTL, self->dev, MMNF_IOC_GET_INFO,
			    at + offsetof(struct low, info)));
	EXPECT_EQ(0, memcmp(&low->info, &self->info, sizeof(low->info)));
	low->range.len_bytes = 64 * PAGE;
	low->prefetch.size = sizeof(low->prefetch);
	low->prefetch.select.items = at + offsetof(struct low, range);
	low->prefetch.select.nr_items = 1;
	ASSERT_EQ(0, call32(NR32_IOCTL, self->dev, MMNF_IOC_PREFETCH,
			    at + offsetof(struct low, prefetch)));
	/* Just written, so all of it is in the page cache. */
	EXPECT_EQ(64 * PAGE, low->prefetch.out_resident_bytes);
	low->residency.size = sizeof(low->residency);
	low->residency.select = low->prefetch.select;
	low->residency.states = at + offsetof(struct low, state);
	ASSERT_EQ(0, call32(NR32_IOCTL, self->dev, MMNF_IOC_RESIDENCY,
			    at + offsetof(struct low, residency)));
	EXPECT_EQ(64 * PAGE, low->state.hot_bytes + low->state.warm_bytes);
	low->evict.size = sizeof(low->evict);
	low->evict.select = low->prefetch.select;
	ASSERT_EQ(0, call32(NR32_IOCTL, self->dev, MMNF_IOC_EVICT,
			    at + offsetof(struct low, evict)));
	EXPECT_EQ(64 * PAGE, low->evict.out_evicted_bytes);
}
#endif

MMNF_HARNESS_MAIN
