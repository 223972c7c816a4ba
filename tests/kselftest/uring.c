// SPDX-License-Identifier: GPL-2.0
/*
 * PREFETCH by io_uring: done when the data is resident, cancellable, and right
 * when the descriptor, the ring or the process goes first.
 */
#include "kselftest/ring.h"

#define BYTES (8 * MIB)
#define PAGES (BYTES / PAGE)

FIXTURE(uring)
{
	int fd, dev;
	struct ring ring;
	struct mmnf_range all;
	struct mmnf_ioc_prefetch arg;
	const char *skip;
};

FIXTURE_SETUP(uring)
{
	self->fd = make_field(_metadata, "uring", BYTES);
	drop_cache(_metadata, self->fd);
	self->dev = attach_field(_metadata, self->fd, BYTES);
	self->skip = ring_open(&self->ring, 0);
	self->all = (struct mmnf_range) { 0, BYTES };
	self->arg = (struct mmnf_ioc_prefetch) {
		.size = sizeof(self->arg),
		.select = { (unsigned long)&self->all, 1, MMNF_SELECT_RANGES },
	};
}

FIXTURE_TEARDOWN(uring)
{
	close(self->ring.fd);
	close(self->dev);
	close(self->fd);
	remove_field("uring");
}

#define SKIP_WITHOUT_URING()                            \
	do {                                            \
		if (self->skip)                         \
			SKIP(return, "%s", self->skip); \
	} while (0)

TEST_F(uring, feature_is_told)
{
	struct mmnf_ioc_info info = { .size = sizeof(info) };

	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_GET_INFO, &info));
	EXPECT_EQ(!self->skip, !!(info.out_features & MMNF_FEATURE_URING));
}

TEST_F(uring, completes_when_resident)
{
	SKIP_WITHOUT_URING();
	ASSERT_EQ(0, run_one(&self->ring, self->dev, &self->arg));
	EXPECT_EQ(BYTES, self->arg.out_queued_bytes);
	EXPECT_EQ(0, self->arg.flags);
	EXPECT_EQ(PAGES, resident_pages(_metadata, self->fd, 0, BYTES));
	ASSERT_EQ(0, run_one(&self->ring, self->dev, &self->arg));
	EXPECT_EQ(0, self->arg.out_queued_bytes);
	EXPECT_EQ(BYTES, self->arg.out_resident_bytes);
}

TEST_F(uring, errors_as_of_the_ioctl)
{
	struct mmnf_ioc_prefetch arg = self->arg;
	int fresh = open_device(_metadata);
	struct mmnf_uring_cmd cmd = { .arg = (unsigned long)&arg };
	struct io_uring_sqe *sqe;

	SKIP_WITHOUT_URING();
	EXPECT_EQ(-ENXIO, run_one(&self->ring, fresh, &arg));
	close(fresh);
	EXPECT_EQ(-EFAULT, run_one(&self->ring, self->dev, NULL));
	EXPECT_EQ(-EFAULT, run_one(&self->ring, self->dev, (void *)-4096L));
	arg.size = 4;
	EXPECT_EQ(-EINVAL, run_one(&self->ring, self->dev, &arg));
	arg.size = sizeof(arg);
	arg.flags = 2;
	EXPECT_EQ(-EOPNOTSUPP, run_one(&self->ring, self->dev, &arg));
	arg.flags = MMNF_PREFETCH_WAIT;
	EXPECT_EQ(0, run_one(&self->ring, self->dev, &arg));
	arg.select.kind = 3;
	EXPECT_EQ(-EOPNOTSUPP, run_one(&self->ring, self->dev, &arg));
	arg.select.kind = 0;
	sqe = next_sqe(&self->ring, IORING_OP_URING_CMD, self->dev, 0);
	sqe->cmd_op = MMNF_IOC_GET_INFO;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	ASSERT_EQ(1, submit(&self->ring));
	EXPECT_EQ(-ENOTTY, reap(&self->ring, NULL));
	cmd.__reserved = 1;
	sqe = next_sqe(&self->ring, IORING_OP_URING_CMD, self->dev, 0);
	sqe->cmd_op = MMNF_IOC_PREFETCH;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	ASSERT_EQ(1, submit(&self->ring));
	EXPECT_EQ(-EINVAL, reap(&self->ring, NULL));
}

TEST_F(uring, many_at_once)
{
	struct mmnf_ioc_prefetch arg[ENTRIES];
	struct mmnf_range part[ENTRIES];
	u64 seen = 0, i;

	SKIP_WITHOUT_URING();
	for (i = 0; i < ENTRIES; i++) {
		part[i] = (struct mmnf_range) { i * BYTES / ENTRIES,
						BYTES / ENTRIES };
		arg[i] = self->arg;
		arg[i].select.items = (unsigned long)&part[i];
		queue_prefetch(&self->ring, self->dev, &arg[i], i);
	}
	ASSERT_EQ(ENTRIES, submit(&self->ring));
	for (i = 0; i < ENTRIES; i++) {
		u64 user;

		EXPECT_EQ(0, reap(&self->ring, &user));
		EXPECT_EQ(BYTES / ENTRIES,
			  resident_pages(_metadata, self->fd,
					 part[user].start_bytes,
					 part[user].len_bytes) *
				  PAGE);
		seen |= 1ULL << user;
	}
	EXPECT_EQ(~0ULL, seen);
}

TEST_F(uring, by_a_polling_thread)
{
	struct ring r;
	u64 deadline = now_ms() + 10000;

	SKIP_WITHOUT_URING();
	ASSERT_EQ(NULL, ring_open(&r, IORING_SETUP_SQPOLL));
	queue_prefetch(&r, self->dev, &self->arg, 7);
	syscall(SYS_io_uring_enter, r.fd, 1, 0, IORING_ENTER_SQ_WAKEUP, NULL,
		0);
	while (__atomic_load_n(r.cq_tail, __ATOMIC_ACQUIRE) == *r.cq_head &&
	       now_ms() < deadline)
		sleep_ms(1);
	EXPECT_EQ(0, reap(&r, NULL));
	EXPECT_EQ(PAGES, resident_pages(_metadata, self->fd, 0, BYTES));
	close(r.fd);
}

TEST_F(uring, descriptor_closed_first)
{
	SKIP_WITHOUT_URING();
	queue_prefetch(&self->ring, self->dev, &self->arg, 0);
	ASSERT_EQ(1, submit(&self->ring));
	close(self->dev);
	self->dev = -1;
	EXPECT_EQ(0, reap(&self->ring, NULL));
	EXPECT_EQ(PAGES, resident_pages(_metadata, self->fd, 0, BYTES));
}

/* A disk that takes its time, so that commands are caught in the middle. */
#define SLOW "mmnf-slow"
#define SLOW_MIB 64

FIXTURE(slow)
{
	int fd, dev;
	struct ring ring;
	struct mmnf_range *list;
	struct mmnf_ioc_prefetch arg;
	u64 id;
	const char *skip;
};

/* 200 pages far apart: 2 seconds of reading. */
#define SLOW_READS 200

FIXTURE_SETUP(slow)
{
	struct mmnf_ioc_attach attach;
	u32 i;

	self->dev = -1;
	self->skip = ring_open(&self->ring, 0);
	self->list = calloc(SLOW_READS, sizeof(*self->list));
	/* one read at a time, 10 ms each */
	self->fd = make_null_disk(SLOW, SLOW_MIB, 10000000, 1);
	if (self->fd < 0 && !self->skip)
		self->skip = "kernel: no null_blk with configfs";
	if (self->skip)
		return;
	attach = vector_of(self->fd, SLOW_MIB * MIB);
	self->dev = open_device(_metadata);
	ASSERT_EQ(0, ioctl(self->dev, MMNF_IOC_ATTACH, &attach));
	self->id = attach.out_id;
	for (i = 0; i < SLOW_READS; i++)
		self->list[i] = (struct mmnf_range) { i * 64 * PAGE, PAGE };
	self->arg = (struct mmnf_ioc_prefetch) {
		.size = sizeof(self->arg),
		.select = { (unsigned long)self->list, SLOW_READS,
			    MMNF_SELECT_RANGES },
	};
}

FIXTURE_TEARDOWN(slow)
{
	close(self->ring.fd);
	close(self->dev);
	close(self->fd);
	free(self->list);
	remove_null_disk(SLOW);
}

static bool field_gone(u64 id)
{
	u64 deadline = now_ms() + 20000;
	char dir[128];

	snprintf(dir, sizeof(dir), MMNF_SYSFS "/fields/%llu", id);
	while (!access(dir, F_OK)) {
		if (now_ms() > deadline)
			return false;
		sleep_ms(10);
	}
	return true;
}

TEST_F(slow, does_not_hold_up_its_submitter)
{
	u64 start = now_ms(), submitted;

	SKIP_WITHOUT_URING();
	queue_prefetch(&self->ring, self->dev, &self->arg, 0);
	ASSERT_EQ(1, submit(&self->ring));
	submitted = now_ms() - start;
	EXPECT_EQ(0, reap(&self->ring, NULL));
	EXPECT_GT(500, submitted);
	EXPECT_LT(1500, now_ms() - start);
	EXPECT_EQ(SLOW_READS * PAGE, self->arg.out_queued_bytes);
}

TEST_F(slow, cancelled_in_the_middle)
{
	struct io_uring_sqe *sqe;
	u64 start, user = 0;
	int i, res[3] = {};

	SKIP_WITHOUT_URING();
	queue_prefetch(&self->ring, self->dev, &self->arg, 1);
	ASSERT_EQ(1, submit(&self->ring));
	sleep_ms(200);
	start = now_ms();
	sqe = next_sqe(&self->ring, IORING_OP_ASYNC_CANCEL, -1, 2);
	sqe->addr = 1;
	ASSERT_EQ(1, submit(&self->ring));
	for (i = 0; i < 2; i++) {
		int r = reap(&self->ring, &user);

		ASSERT_TRUE(user == 1 || user == 2);
		res[user] = r;
	}
	EXPECT_GT(1300, now_ms() - start);
	EXPECT_TRUE(res[1] == -EINTR || res[1] == -ECANCELED)
	TH_LOG("command: %d", res[1]);
	EXPECT_TRUE(res[2] == 0 || res[2] == -EALREADY)
	TH_LOG("cancel: %d", res[2]);
	/* The ring and the field go on. */
	self->arg.select.nr_items = 1;
	EXPECT_EQ(0, run_one(&self->ring, self->dev, &self->arg));
}

TEST_F(slow, ring_closed_first)
{
	SKIP_WITHOUT_URING();
	queue_prefetch(&self->ring, self->dev, &self->arg, 0);
	ASSERT_EQ(1, submit(&self->ring));
	sleep_ms(100);
	munmap(self->ring.memory, PAGE);
	close(self->ring.fd);
	self->ring.fd = -1;
	get_stats(_metadata, self->dev);
	close(self->dev);
	self->dev = -1;
	EXPECT_TRUE(field_gone(self->id));
}

TEST_F(slow, process_killed_first)
{
	int ready[2];
	char byte;
	pid_t pid;

	SKIP_WITHOUT_URING();
	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	if (!pid) {
		struct ring r;
		int i;

		if (ring_open(&r, 0))
			_exit(1);
		for (i = 0; i < 16; i++)
			queue_prefetch(&r, self->dev, &self->arg, i);
		if (submit(&r) != 16)
			_exit(2);
		write(ready[1], "", 1);
		pause();
	}
	ASSERT_EQ(1, read(ready[0], &byte, 1));
	close(self->dev);
	self->dev = -1;
	sleep_ms(50);
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, wait_child(pid));
	EXPECT_TRUE(field_gone(self->id));
}

MMNF_HARNESS_MAIN
