// SPDX-License-Identifier: GPL-2.0
/*
 * Unloading: refused while anything is open or mapped, clean afterwards.
 *
 * MMNF_KO names the module's file, to load it again.
 */
#include "util.h"

#include <sys/syscall.h>

#define BYTES (4 * MIB)

static int unload(void)
{
	return err_of(syscall(SYS_delete_module, "mmnf", O_NONBLOCK));
}

static int load_module(void)
{
	int fd = open(getenv("MMNF_KO"), O_RDONLY | O_CLOEXEC), err;

	if (fd < 0)
		return errno;
	err = err_of(syscall(SYS_finit_module, fd, "", 0));
	close(fd);
	return err;
}

/* What was just closed may need a moment until its last reference is gone. */
static int unload_soon(void)
{
	u64 deadline = now_ms() + 5000;
	int err;

	while ((err = unload()) && now_ms() < deadline)
		sleep_ms(5);
	return err;
}

static bool loaded(void)
{
	return !access("/sys/module/mmnf", F_OK);
}

FIXTURE(unload)
{
	int fd;
	const char *skip;
};

FIXTURE_SETUP(unload)
{
	if (!getenv("MMNF_KO"))
		self->skip = "environment: MMNF_KO names no module";
	else if (!loaded())
		self->skip = "kernel: mmnf is not a module here";
	self->fd = make_field(_metadata, "unload", BYTES);
}

/* Whatever happened, the next program finds the module. */
FIXTURE_TEARDOWN(unload)
{
	close(self->fd);
	remove_field("unload");
	if (!self->skip && !loaded())
		load_module();
}

#define SKIP_WITHOUT_MODULE()                           \
	do {                                            \
		if (self->skip)                         \
			SKIP(return, "%s", self->skip); \
	} while (0)

static void expect_clean(struct __test_metadata *_metadata)
{
	EXPECT_FALSE(loaded());
	EXPECT_NE(0, access(MMNF_SYSFS, F_OK));
	EXPECT_NE(0, access(MMNF_DEVICE, F_OK));
	EXPECT_NE(0, access("/sys/kernel/tracing/events/mmnf", F_OK));
}

TEST_F(unload, open_device_refuses)
{
	int dev;

	SKIP_WITHOUT_MODULE();
	dev = open_device(_metadata);
	EXPECT_EQ(EAGAIN, unload());
	EXPECT_TRUE(loaded());
	close(dev);
	EXPECT_EQ(0, unload_soon());
	expect_clean(_metadata);
}

TEST_F(unload, attached_field_refuses)
{
	int dev;

	SKIP_WITHOUT_MODULE();
	dev = attach_field(_metadata, self->fd, BYTES);
	EXPECT_EQ(EAGAIN, unload());
	close(dev);
	EXPECT_EQ(0, unload_soon());
	expect_clean(_metadata);
}

TEST_F(unload, mapping_without_descriptor_refuses)
{
	char *p;
	int dev;

	SKIP_WITHOUT_MODULE();
	dev = attach_field(_metadata, self->fd, BYTES);
	p = map_field(_metadata, dev, 0, BYTES, MAP_SHARED);
	close(dev);
	EXPECT_EQ(EAGAIN, unload());
	/* A part of it is enough. */
	munmap(p, BYTES / 2);
	EXPECT_EQ(EAGAIN, unload());
	EXPECT_EQ(0, wrong_words(p + BYTES / 2, BYTES / 2, BYTES / 2));
	munmap(p + BYTES / 2, BYTES / 2);
	EXPECT_EQ(0, unload_soon());
	expect_clean(_metadata);
}

TEST_F(unload, mapping_of_a_child_refuses)
{
	int dev, ready[2];
	char *p, byte;
	pid_t pid;

	SKIP_WITHOUT_MODULE();
	ASSERT_EQ(0, pipe(ready));
	dev = attach_field(_metadata, self->fd, BYTES);
	p = map_field(_metadata, dev, 0, BYTES, MAP_SHARED);
	pid = fork();
	if (!pid) {
		close(dev);
		write(ready[1], "", 1);
		pause();
	}
	ASSERT_EQ(1, read(ready[0], &byte, 1));
	close(dev);
	munmap(p, BYTES);
	EXPECT_EQ(EAGAIN, unload());
	kill(pid, SIGKILL);
	wait_child(pid);
	EXPECT_EQ(0, unload_soon());
	expect_clean(_metadata);
}

TEST_F(unload, loads_again_and_works)
{
	char *p;
	int dev;

	SKIP_WITHOUT_MODULE();
	ASSERT_EQ(0, unload_soon());
	expect_clean(_metadata);
	ASSERT_EQ(0, load_module());
	dev = attach_field(_metadata, self->fd, BYTES);
	drop_cache(_metadata, self->fd);
	p = map_field(_metadata, dev, 0, BYTES, MAP_SHARED);
	EXPECT_EQ(0, wrong_words(p, 0, BYTES));
	munmap(p, BYTES);
	close(dev);
}

/* The last mapping goes while the worker is reading for it. */
TEST_F(unload, right_after_a_walk)
{
	int round;

	SKIP_WITHOUT_MODULE();
	for (round = 0; round < 15; round++) {
		int dev = attach_field(_metadata, self->fd, BYTES);
		char *p = map_field(_metadata, dev, 0, BYTES, MAP_SHARED);

		drop_cache(_metadata, self->fd);
		close(dev);
		EXPECT_EQ(0, walk(p, 0, 17 * PAGE, 5 + round * 3, 0));
		munmap(p, BYTES);
		ASSERT_EQ(0, unload_soon());
		expect_clean(_metadata);
		ASSERT_EQ(0, load_module());
	}
}

/* Nothing is left of windows that adjoin. */
TEST_F(unload, after_adjoining_windows)
{
	u64 half = BYTES / 2;
	char *p;
	int dev;

	SKIP_WITHOUT_MODULE();
	dev = attach_field(_metadata, self->fd, BYTES);
	p = map_field(_metadata, dev, 0, BYTES, MAP_SHARED);
	ASSERT_EQ(p, mmap(p, half, PROT_READ, MAP_SHARED | MAP_FIXED, dev, 0));
	ASSERT_EQ(p + half, mmap(p + half, half, PROT_READ,
				 MAP_SHARED | MAP_FIXED, dev, half));
	EXPECT_EQ(0, wrong_words(p, 0, BYTES));
	munmap(p, BYTES);
	close(dev);
	EXPECT_EQ(0, unload_soon());
	expect_clean(_metadata);
}

/* Somebody is always in the middle of opening and mapping. */
TEST_F(unload, while_others_try_to_use_it)
{
	u64 deadline = now_ms() + 2000;
	int unloads = 0, status;
	pid_t pid;

	SKIP_WITHOUT_MODULE();
	pid = fork();
	if (!pid) {
		const struct mmnf_range all = { 0, BYTES };
		struct mmnf_ioc_prefetch prefetch = {
			.size = sizeof(prefetch),
			.select = { (unsigned long)&all, 1,
				    MMNF_SELECT_RANGES },
		};
		struct mmnf_ioc_evict evict = { .size = sizeof(evict),
						.select = prefetch.select };
		struct mmnf_ioc_attach attach;
		u64 wrong = 0;

		while (now_ms() < deadline) {
			int dev = open(MMNF_DEVICE, O_RDWR | O_CLOEXEC);
			char *p;

			attach = vector_of(self->fd, BYTES);
			if (dev < 0)
				continue;
			if (ioctl(dev, MMNF_IOC_ATTACH, &attach))
				_exit(1);
			p = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, dev, 0);
			if (ioctl(dev, MMNF_IOC_PREFETCH, &prefetch) ||
			    ioctl(dev, MMNF_IOC_EVICT, &evict))
				_exit(4);
			close(dev);
			if (p == MAP_FAILED)
				_exit(2);
			wrong += walk(p, 0, 17 * PAGE, 20, 0);
			munmap(p, BYTES);
			sleep_ms(1);
		}
		_exit(wrong ? 3 : 0);
	}
	while (now_ms() < deadline) {
		if (!unload()) {
			unloads++;
			ASSERT_EQ(0, load_module());
		}
	}
	status = wait_child(pid);
	EXPECT_EQ(0, status);
	EXPECT_LT(0, unloads);
}

/* Fields of before do not stand in the way of their numbers' next use. */
TEST_F(unload, field_numbers_start_anew)
{
	struct mmnf_ioc_attach first, again;
	int dev;

	SKIP_WITHOUT_MODULE();
	ASSERT_EQ(0, unload_soon());
	ASSERT_EQ(0, load_module());
	first = again = vector_of(self->fd, BYTES);
	dev = open_device(_metadata);
	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_ATTACH, &first));
	close(dev);
	ASSERT_EQ(0, unload_soon());
	ASSERT_EQ(0, load_module());
	dev = open_device(_metadata);
	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_ATTACH, &again));
	EXPECT_EQ(first.out_id, again.out_id);
	close(dev);
}

MMNF_HARNESS_MAIN
