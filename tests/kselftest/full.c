// SPDX-License-Identifier: GPL-2.0
/* Reading where memory is short: what is not there is not counted, and who waits is told. */
#include "util.h"

/*
 * A group that is full, but for 512 KiB, of what cannot be taken away; nor can pages whose
 * reads have not started, and those of a range start together.
 */
#define FULL "mmnf-full"
#define ROOM (MIB / 2)
#define ASKED (4 * MIB)
#define HIDDEN_TRIES 60
#define HIDDEN_MS 20000 /* a few, where the kernel is slow */

FIXTURE(full)
{
	int fd, dev, stat;
	char cgroup[128];
	u64 read_before;
	const char *skip;
};

/* Bytes that were read from the disk; what that takes of memory, it has taken before. */
static u64 read_bytes(struct __test_metadata *_metadata, int stat)
{
	unsigned long long sectors = 0;
	char text[256] = "";

	ASSERT_LT(0, pread(stat, text, sizeof(text) - 1, 0));
	ASSERT_EQ(1, sscanf(text, "%*u %*u %llu", &sectors));
	return sectors * 512;
}

/* What is held is gone with the process of the case. */
static void fill_group(struct __test_metadata *_metadata, const char *cgroup)
{
	char path[160], limit[24];
	unsigned long long bytes;
	FILE *f;

	ASSERT_TRUE(enter_cgroup(cgroup));
	ASSERT_NE(MAP_FAILED,
		  mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
	snprintf(path, sizeof(path), "%s/memory.current", cgroup);
	f = fopen(path, "r");
	ASSERT_NE(NULL, f);
	ASSERT_EQ(1, fscanf(f, "%llu", &bytes));
	fclose(f);
	snprintf(limit, sizeof(limit), "%llu", bytes + ROOM);
	ASSERT_EQ(0, put_text(cgroup, "memory.max", limit));
}

FIXTURE_SETUP(full)
{
	struct mmnf_ioc_attach attach;

	self->skip = make_cgroup(self->cgroup, sizeof(self->cgroup), FULL);
	self->fd = make_null_disk(FULL, 16, 0, 64);
	if (self->fd < 0)
		self->skip = "kernel: no null_blk with configfs";
	if (self->skip)
		return;
	attach = vector_of(self->fd, 16 * MIB);
	attach.record_bytes = ASKED;
	self->dev = open_device(_metadata);
	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_ATTACH, &attach));
	self->stat = open("/sys/block/" FULL "/stat", O_RDONLY | O_CLOEXEC);
	self->read_before = read_bytes(_metadata, self->stat);
	fill_group(_metadata, self->cgroup);
}

FIXTURE_TEARDOWN(full)
{
	enter_cgroup("/sys/fs/cgroup");
	put_text(self->cgroup, "memory.max", "max");
	close(self->stat);
	close(self->dev);
	close(self->fd);
	remove_null_disk(FULL);
	rmdir(self->cgroup);
}

static int ask(int dev, u32 flags, u64 start, u64 bytes,
	       struct mmnf_ioc_prefetch *out)
{
	const struct mmnf_range range = { start, bytes };

	*out = (struct mmnf_ioc_prefetch) {
		.size = sizeof(*out),
		.flags = flags,
		.select = { (unsigned long)&range, 1, MMNF_SELECT_RANGES },
	};
	return err_of(ioctl(dev, MMNF_IOC_PREFETCH, out));
}

TEST_F(full, what_is_not_read_is_not_counted)
{
	struct mmnf_ioc_prefetch out;

	if (self->skip)
		SKIP(return, "%s", self->skip);
	ASSERT_EQ(0, ask(self->dev, 0, MIB, ASKED, &out));
	sleep_ms(100);
	EXPECT_LT(0, out.out_queued_bytes);
	EXPECT_GT(ASKED, out.out_queued_bytes);
	EXPECT_EQ(read_bytes(_metadata, self->stat) - self->read_before,
		  out.out_queued_bytes);
	EXPECT_EQ(out.out_queued_bytes,
		  get_stats(_metadata, self->dev).out_manual_pages * PAGE);
}

TEST_F(full, what_is_not_read_ahead_is_not_counted)
{
	u64 deadline = now_ms() + 30000, read;
	struct mmnf_ioc_stats s;
	char *p;

	if (self->skip)
		SKIP(return, "%s", self->skip);
	/* A miss reads its record, and that alone. */
	set_mode(_metadata, self->dev, MMNF_MODE_MANUAL);
	p = map_field(_metadata, self->dev, 0, 16 * MIB, MAP_SHARED);
	/* The group of the mapping pays; who finds no room for what he must have is killed. */
	ASSERT_TRUE(enter_cgroup("/sys/fs/cgroup"));
	load(p + ASKED);
	do {
		sleep_ms(50);
		s = get_stats(_metadata, self->dev);
		read = read_bytes(_metadata, self->stat) - self->read_before;
	} while ((!s.out_prefetched_pages ||
		  s.out_prefetched_pages * PAGE > read) &&
		 now_ms() < deadline);
	log_stats("full", &s);
	EXPECT_LT(0, s.out_prefetched_pages);
	EXPECT_GE(read, s.out_prefetched_pages * PAGE);
	munmap(p, 16 * MIB);
}

TEST_F(full, wait_tells_that_pages_are_absent)
{
	struct mmnf_ioc_prefetch out;

	if (self->skip)
		SKIP(return, "%s", self->skip);
	EXPECT_EQ(ENOMEM, ask(self->dev, MMNF_PREFETCH_WAIT, MIB, ASKED, &out));
	/* What has room comes, in the place of what was before. */
	EXPECT_EQ(0,
		  ask(self->dev, MMNF_PREFETCH_WAIT, 8 * MIB, ROOM / 4, &out));
	EXPECT_EQ(ROOM / 4 / PAGE,
		  resident_pages(_metadata, self->fd, 8 * MIB, ROOM / 4));
}

/* Reads the second half of a disk over and over, until killed. */
static pid_t start_another_reader(int fd)
{
	static char buf[2 * MIB];
	pid_t pid = fork();
	u64 off;

	while (!pid) {
		for (off = 8 * MIB; off < 16 * MIB; off += sizeof(buf))
			pread(fd, buf, sizeof(buf), off);
		posix_fadvise(fd, 8 * MIB, 8 * MIB, POSIX_FADV_DONTNEED);
	}
	return pid;
}

/* What others add to the file meanwhile is not taken for what was asked for. */
TEST_F_TIMEOUT(full, pages_of_others_hide_no_absent_one, 300)
{
	struct mmnf_ioc_prefetch out;
	u32 i, absent = 0, hidden = 0;
	u64 deadline;
	pid_t pid;
	int err;

	if (self->skip)
		SKIP(return, "%s", self->skip);
	/* It pays for its pages itself. */
	ASSERT_TRUE(enter_cgroup("/sys/fs/cgroup"));
	pid = start_another_reader(self->fd);
	ASSERT_LT(0, pid);
	ASSERT_TRUE(enter_cgroup(self->cgroup));
	deadline = now_ms() + HIDDEN_MS;
	for (i = 0; i < HIDDEN_TRIES && now_ms() < deadline; i++) {
		posix_fadvise(self->fd, MIB, 2 * MIB, POSIX_FADV_DONTNEED);
		err = ask(self->dev, MMNF_PREFETCH_WAIT, MIB, 2 * MIB, &out);
		absent += err == ENOMEM;
		hidden += !err &&
			  resident_pages(_metadata, self->fd, MIB, 2 * MIB) *
					  PAGE <
				  out.out_queued_bytes + out.out_resident_bytes;
	}
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, wait_child(pid));
	ksft_print_msg("absent in %u of %u calls\n", absent, i);
	EXPECT_LT(0, absent);
	EXPECT_EQ(0, hidden);
}

MMNF_HARNESS_MAIN
