// SPDX-License-Identifier: GPL-2.0
/* ATTACH: which files, which geometries, how often. */
#include "util.h"

#include <pthread.h>
#include <sys/fanotify.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define BYTES (16 * PAGE)

FIXTURE(attach)
{
	int dev, fd;
	struct mmnf_ioc_attach good;
};

FIXTURE_SETUP(attach)
{
	self->fd = make_field(_metadata, "attach", BYTES);
	self->dev = open_device(_metadata);
	self->good = vector_of(self->fd, BYTES);
}

FIXTURE_TEARDOWN(attach)
{
	close(self->dev);
	close(self->fd);
	remove_field("attach");
}

static int attach(int dev, const struct mmnf_ioc_attach *arg)
{
	struct mmnf_ioc_attach copy = *arg;

	return err_of(ioctl(dev, MMNF_IOC_ATTACH, &copy));
}

static int attach_fd(int dev, int fd)
{
	struct mmnf_ioc_attach arg = vector_of(fd, 8);

	return attach(dev, &arg);
}

TEST_F(attach, good_file_ok)
{
	struct mmnf_ioc_attach arg = self->good;
	struct stat st;
	char path[256];

	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_ATTACH, &arg));
	snprintf(path, sizeof(path), MMNF_SYSFS "/fields/%llu", arg.out_id);
	EXPECT_EQ(0, stat(path, &st));
	/* Nothing but out_id is written. */
	arg.out_id = 0;
	EXPECT_EQ(0, memcmp(&arg, &self->good, sizeof(arg)));
}

TEST_F(attach, second_attach_ebusy)
{
	ASSERT_EQ(0, attach(self->dev, &self->good));
	EXPECT_EQ(EBUSY, attach(self->dev, &self->good));
	/* The first one stays. */
	get_stats(_metadata, self->dev);
}

TEST_F(attach, failed_attach_leaves_the_open_usable)
{
	struct mmnf_ioc_stats stats = { .size = sizeof(stats) };
	struct mmnf_ioc_attach bad = self->good;

	bad.extent[0]++;
	ASSERT_EQ(EINVAL, attach(self->dev, &bad));
	EXPECT_EQ(ENXIO, err_of(ioctl(self->dev, MMNF_IOC_GET_STATS, &stats)));
	EXPECT_EQ(0, attach(self->dev, &self->good));
}

TEST_F(attach, two_opens_of_one_file_are_two_fields)
{
	struct mmnf_ioc_attach one = self->good, two = self->good;
	int other = open_device(_metadata);

	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_ATTACH, &one));
	ASSERT_EQ(0, ioctl(other, MMNF_IOC_ATTACH, &two));
	EXPECT_NE(one.out_id, two.out_id);
	close(other);
}

TEST_F(attach, fd_may_be_closed_afterwards)
{
	char *p;

	ASSERT_EQ(0, attach(self->dev, &self->good));
	close(self->fd);
	self->fd = -1;
	p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
	EXPECT_EQ(0, wrong_words(p, 0, BYTES));
	munmap(p, BYTES);
}

TEST_F(attach, position_of_the_fd_does_not_move)
{
	const struct mmnf_range range = { 0, 2 * BYTES };
	struct mmnf_ioc_prefetch prefetch = {
		.size = sizeof(prefetch),
		.flags = MMNF_PREFETCH_WAIT,
		.select.items = (unsigned long)&range,
		.select.nr_items = 1,
	};

	/* With a hole at its end the file is asked where its data lies. */
	ASSERT_EQ(0, ftruncate(self->fd, 2 * BYTES));
	ASSERT_EQ(4321, lseek(self->fd, 4321, SEEK_SET));
	ASSERT_EQ(0, attach(self->dev, &self->good));
	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_PREFETCH, &prefetch));
	EXPECT_EQ(4321, lseek(self->fd, 0, SEEK_CUR));
}

TEST_F(attach, read_only_fd_ok)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/attach", ground);
	fd = open(path, O_RDONLY);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, attach_fd(self->dev, fd));
	close(fd);
}

/* The descriptor must do for reading, whoever owns the file. */
TEST_F(attach, write_only_fd_eacces)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/attach", ground);
	fd = open(path, O_WRONLY);
	ASSERT_LE(0, fd);
	EXPECT_EQ(EACCES, attach_fd(self->dev, fd));
	close(fd);
}

TEST_F(attach, closed_fd_ebadf)
{
	int fd = dup(self->fd);

	close(fd);
	EXPECT_EQ(EBADF, attach_fd(self->dev, fd));
	EXPECT_EQ(EBADF, attach_fd(self->dev, -1));
	EXPECT_EQ(EBADF, attach_fd(self->dev, 1 << 30));
}

TEST_F(attach, o_path_fd_ebadf)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/attach", ground);
	fd = open(path, O_PATH);
	ASSERT_LE(0, fd);
	EXPECT_EQ(EBADF, attach_fd(self->dev, fd));
	close(fd);
}

TEST_F(attach, directory_ebadf)
{
	int fd = open(ground, O_RDONLY | O_DIRECTORY);

	ASSERT_LE(0, fd);
	EXPECT_EQ(EBADF, attach_fd(self->dev, fd));
	close(fd);
}

TEST_F(attach, pipe_and_socket_ebadf)
{
	int ends[2];

	ASSERT_EQ(0, pipe(ends));
	EXPECT_EQ(EBADF, attach_fd(self->dev, ends[0]));
	close(ends[0]);
	close(ends[1]);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	EXPECT_EQ(EBADF, attach_fd(self->dev, ends[0]));
	close(ends[0]);
	close(ends[1]);
}

TEST_F(attach, character_device_ebadf)
{
	static const char *const names[] = { "/dev/null", "/dev/zero",
					     MMNF_DEVICE };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		int fd = open(names[i], O_RDWR);

		ASSERT_LE(0, fd);
		EXPECT_EQ(EBADF, attach_fd(self->dev, fd))
		TH_LOG("%s", names[i]);
		close(fd);
	}
	EXPECT_EQ(EBADF, attach_fd(self->dev, self->dev));
}

#ifndef FAN_PRE_ACCESS
#define FAN_PRE_ACCESS 0x00100000
#endif

/* What fills it would be told of a mapping of the device, and not of the file's. */
TEST_F(attach, file_filled_on_use_eopnotsupp)
{
	int watch =
		fanotify_init(FAN_CLASS_PRE_CONTENT | FAN_CLOEXEC, O_RDONLY);
	char path[64];

	if (watch < 0)
		SKIP(return, "kernel: fanotify_init: %s", strerror(errno));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fd);
	if (fanotify_mark(watch, FAN_MARK_ADD, FAN_PRE_ACCESS, AT_FDCWD, path))
		SKIP(return, "kernel: FAN_PRE_ACCESS: %s", strerror(errno));
	EXPECT_EQ(EOPNOTSUPP, attach_fd(self->dev, self->fd));
	close(watch);
	EXPECT_EQ(0, attach_fd(self->dev, self->fd));
}

TEST_F(attach, hugetlb_file_eopnotsupp)
{
	int fd = syscall(SYS_memfd_create, "huge", 4U /* MFD_HUGETLB */);

	if (fd < 0 || ftruncate(fd, 2 * MIB))
		SKIP(return, "kernel: no hugetlbfs file: %s", strerror(errno));
	EXPECT_EQ(EOPNOTSUPP, attach_fd(self->dev, fd));
	close(fd);
}

TEST_F(attach, memfd_ok)
{
	int fd = syscall(SYS_memfd_create, "field", 0);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, PAGE));
	EXPECT_EQ(0, attach_fd(self->dev, fd));
	close(fd);
}

TEST_F(attach, dax_file_eopnotsupp)
{
	char dir[300], path[320];
	int fd, try;

	shell("modprobe -q nd_e820; modprobe -q nd_pmem");
	for (try = 0; try < 20 && access("/dev/pmem0", F_OK); try++)
		sleep_ms(10);
	if (access("/dev/pmem0", F_OK))
		SKIP(return, "kernel: no DAX device");
	snprintf(dir, sizeof(dir), "%s/dax", ground);
	snprintf(path, sizeof(path), "%s/file", dir);
	mkdir(dir, 0700);
	if (shell("mkfs.ext4 -q -F -b 4096 /dev/pmem0") ||
	    mount("/dev/pmem0", dir, "ext4", 0, "dax=always"))
		SKIP(return, "kernel: no DAX filesystem");
	fd = open(path, O_RDWR | O_CREAT, 0600);
	ASSERT_LE(0, fd);
	fill_field(_metadata, fd, 0, BYTES);
	EXPECT_EQ(EOPNOTSUPP, attach_fd(self->dev, fd));
	close(fd);
	umount2(dir, MNT_DETACH);
}

TEST_F(attach, empty_file_einval)
{
	int fd = make_field(_metadata, "empty", 0);

	EXPECT_EQ(EINVAL, attach_fd(self->dev, fd));
	close(fd);
	remove_field("empty");
}

TEST_F(attach, flag_and_reserved)
{
	struct mmnf_ioc_attach arg = self->good;

	arg.flags = 1U << 31;
	EXPECT_EQ(EOPNOTSUPP, attach(self->dev, &arg));
	arg.flags = 0;
	arg.__reserved = 1;
	EXPECT_EQ(EINVAL, attach(self->dev, &arg));
	arg.__reserved = 0;
	EXPECT_EQ(0, attach(self->dev, &arg));
}

struct geometry {
	const char *what;
	int err;
	u32 ndim, element;
	u64 offset, record;
	u64 extent[MMNF_MAX_NDIM];
	s64 stride[MMNF_MAX_NDIM];
};

#define S64_MAX_ 0x7fffffffffffffffLL

/* BYTES is 65536. */
static const struct geometry geometries[] = {
	{ "one element", 0, 1, 8, 0, 0, { 1 }, { 8 } },
	{ "the whole file as one element", 0, 1, 65536, 0, 0, { 1 }, { 0 } },
	{ "up to the end", 0, 1, 8, 0, 0, { 8192 }, { 8 } },
	{ "last byte", 0, 1, 1, 65535, 0, { 1 }, { 1 } },
	{ "odd sizes", 0, 2, 3, 1, 7, { 11, 7 }, { 555, 5 } },
	/* 1 + 13106 * 5 + 5 = 65536 */
	{ "odd, up to the end", 0, 1, 5, 1, 0, { 13107 }, { 5 } },
	{ "8 axes",
	  0,
	  8,
	  8,
	  0,
	  0,
	  { 2, 2, 2, 2, 2, 2, 2, 2 },
	  { 1024, 512, 256, 128, 64, 32, 16, 8 } },
	{ "stride 0", 0, 2, 8, 0, 0, { 1000, 10 }, { 0, 8 } },
	{ "negative stride inside", 0, 1, 8, 65528, 0, { 8192 }, { -8 } },
	{ "negative and positive", 0, 2, 8, 32768, 0, { 9, 4096 }, { -4096, 8 } },
	{ "record of a row", 0, 2, 8, 0, 4096, { 16, 512 }, { 4096, 8 } },

	{ "ndim 0", EINVAL, 0, 8, 0, 0, { 1 }, { 8 } },
	{ "ndim 9",
	  EINVAL,
	  9,
	  8,
	  0,
	  0,
	  { 1, 1, 1, 1, 1, 1, 1, 1 },
	  { 8, 8, 8, 8, 8, 8, 8, 8 } },
	{ "ndim ~0", EINVAL, ~0U, 8, 0, 0, { 1 }, { 8 } },
	{ "extent 0", EINVAL, 1, 8, 0, 0, { 0 }, { 8 } },
	{ "inner extent 0", EINVAL, 2, 8, 0, 0, { 4, 0 }, { 8, 8 } },
	{ "element_bytes 0", EINVAL, 1, 0, 0, 0, { 1 }, { 8 } },

	{ "one element too many", EINVAL, 1, 8, 0, 0, { 8193 }, { 8 } },
	{ "one byte too far", EINVAL, 1, 8, 1, 0, { 8192 }, { 8 } },
	{ "element reaches over the end", EINVAL, 1, 9, 0, 0, { 8192 }, { 8 } },
	{ "offset at the end", EINVAL, 1, 1, 65536, 0, { 1 }, { 1 } },
	{ "row stride too wide", EINVAL, 2, 8, 0, 0, { 17, 512 }, { 4096, 8 } },
	{ "leaves at the front", EINVAL, 1, 8, 65520, 0, { 8192 }, { -8 } },
	{ "leaves at the front by a byte", EINVAL, 1, 1, 6, 0, { 8 }, { -1 } },
	{ "leaves at both ends",
	  EINVAL,
	  2,
	  8,
	  32768,
	  0,
	  { 10, 8192 },
	  { -4096, 8 } },

	{ "extent * stride", EOVERFLOW, 1, 8, 0, 0, { 1ULL << 62 }, { 8 } },
	{ "extent ~0", EOVERFLOW, 1, 8, 0, 0, { ~0ULL }, { 8 } },
	{ "-extent * stride", EOVERFLOW, 1, 8, 0, 0, { 1ULL << 62 }, { -8 } },
	/* Each axis alone fits; wrapped, the sum would be 6 and look harmless. */
	{ "sum of axes",
	  EOVERFLOW,
	  3,
	  8,
	  0,
	  0,
	  { 2, 2, 9 },
	  { S64_MAX_, S64_MAX_, 1 } },
	{ "offset + element", EOVERFLOW, 1, 8, ~0ULL - 3, 0, { 1 }, { 8 } },
};

TEST_F(attach, geometries)
{
	unsigned int i, k;

	for (i = 0; i < ARRAY_SIZE(geometries); i++) {
		const struct geometry *g = &geometries[i];
		struct mmnf_ioc_attach arg = { .size = sizeof(arg),
					       .fd = self->fd };
		int dev = open_device(_metadata);

		arg.ndim = g->ndim;
		arg.element_bytes = g->element;
		arg.data_offset_bytes = g->offset;
		arg.record_bytes = g->record;
		for (k = 0; k < MMNF_MAX_NDIM; k++) {
			arg.extent[k] = g->extent[k];
			arg.stride_bytes[k] = g->stride[k];
		}
		EXPECT_EQ(g->err, attach(dev, &arg))
		TH_LOG("%s", g->what);
		close(dev);
	}
}

/* Of several threads on one open exactly one attaches. */
struct racer {
	pthread_barrier_t *start;
	int dev, err;
	const struct mmnf_ioc_attach *arg;
};

static void *race(void *p)
{
	struct racer *r = p;

	pthread_barrier_wait(r->start);
	r->err = attach(r->dev, r->arg);
	return NULL;
}

TEST_F(attach, concurrent_attach_one_wins)
{
	pthread_barrier_t start;
	int round, i;

	ASSERT_EQ(0, pthread_barrier_init(&start, NULL, 4));
	for (round = 0; round < 30; round++) {
		struct racer racers[4];
		pthread_t threads[4];
		int won = 0, busy = 0, dev = open_device(_metadata);

		for (i = 0; i < 4; i++) {
			racers[i] =
				(struct racer) { &start, dev, 0, &self->good };
			ASSERT_EQ(0, pthread_create(&threads[i], NULL, race,
						    &racers[i]));
		}
		for (i = 0; i < 4; i++) {
			pthread_join(threads[i], NULL);
			won += racers[i].err == 0;
			busy += racers[i].err == EBUSY;
		}
		EXPECT_EQ(1, won);
		EXPECT_EQ(3, busy);
		close(dev);
	}
}

MMNF_HARNESS_MAIN
