// SPDX-License-Identifier: GPL-2.0
/*
 * What a user of the device must not get: more rights to a file than his
 * descriptor has, more memory than his share, anything of the kernel's or of
 * strangers'.  Rights to write are in write.c, to execute in mmap.c, lists and
 * signals in hint.c, unloading in unload.c.
 */
#include "util.h"

#include <ftw.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define BYTES (1 * MIB)
#define NOBODY 65534
#define SECRET "needle-in-the-haystack"

FIXTURE(security)
{
	int fd, dev;
	char path[300];
};

FIXTURE_SETUP(security)
{
	self->fd = make_field(_metadata, SECRET, BYTES);
	self->dev = open_device(_metadata);
	snprintf(self->path, sizeof(self->path), "%s/" SECRET, ground);
}

FIXTURE_TEARDOWN(security)
{
	close(self->dev);
	close(self->fd);
	remove_field(SECRET);
}

static int attach(int dev, int fd, u32 flags)
{
	struct mmnf_ioc_attach arg = vector_of(fd, BYTES);

	arg.flags = flags;
	return err_of(ioctl(dev, MMNF_IOC_ATTACH, &arg));
}

/* Descriptors of others */

static int send_fds(int socket, int *fds, int nr)
{
	char control[CMSG_SPACE(4 * sizeof(int))] = {}, byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = CMSG_SPACE(nr * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(nr * sizeof(int));
	memcpy(CMSG_DATA(c), fds, nr * sizeof(int));
	return sendmsg(socket, &msg, 0) == 1 ? 0 : -1;
}

static int receive_fds(int socket, int *fds, int nr)
{
	char control[CMSG_SPACE(4 * sizeof(int))] = {}, byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };

	if (recvmsg(socket, &msg, 0) != 1 || !CMSG_FIRSTHDR(&msg))
		return -1;
	memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&msg)), nr * sizeof(int));
	return 0;
}

/* Of a file that he may not open: read with a descriptor for reading, no more. */
TEST_F(security, passed_descriptor_gives_what_it_gave)
{
	int ends[2], fds[3];
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	pid = fork();
	if (!pid) {
		int got[3];
		char *p;

		if (setgid(NOBODY) || setuid(NOBODY))
			_exit(1);
		if (open(self->path, O_RDONLY) >= 0)
			_exit(2);
		if (receive_fds(ends[1], got, 3))
			_exit(3);
		/* the file for writing only, and for reading only */
		if (attach(got[0], got[1], 0) != EACCES)
			_exit(4);
		if (attach(got[0], got[2], MMNF_ATTACH_WRITE) != EACCES)
			_exit(5);
		if (attach(got[0], got[2], 0))
			_exit(6);
		p = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, got[0], 0);
		if (p == MAP_FAILED || wrong_words(p, 0, BYTES))
			_exit(7);
		if (mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			 got[0], 0) != MAP_FAILED)
			_exit(8);
		_exit(!mprotect(p, BYTES, PROT_READ | PROT_WRITE));
	}
	fds[0] = open_device(_metadata);
	fds[1] = open(self->path, O_WRONLY);
	fds[2] = open(self->path, O_RDONLY);
	ASSERT_EQ(0, send_fds(ends[0], fds, 3));
	EXPECT_EQ(0, wait_child(pid));
}

/* An attached device that is passed on is a view of that field, and no key. */
TEST_F(security, passed_device_shows_its_field_only)
{
	pid_t pid;

	ASSERT_EQ(0, attach(self->dev, self->fd, 0));
	pid = fork();
	if (!pid) {
		char *p;

		if (setgid(NOBODY) || setuid(NOBODY))
			_exit(1);
		if (open(MMNF_DEVICE, O_RDWR) >= 0)
			_exit(2);
		p = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, self->dev, 0);
		if (p == MAP_FAILED || wrong_words(p, 0, BYTES))
			_exit(3);
		_exit(attach(self->dev, self->fd, 0) != EBUSY);
	}
	EXPECT_EQ(0, wait_child(pid));
}

TEST_F(security, close_on_exec)
{
	char path[64];
	pid_t pid;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->dev);
	ASSERT_EQ(0, attach(self->dev, self->fd, 0));
	pid = fork();
	if (!pid) {
		struct mmnf_ioc_stats s = { .size = sizeof(s) };

		/* The child has it, what the child executes has it not. */
		if (ioctl(self->dev, MMNF_IOC_GET_STATS, &s))
			_exit(100);
		execlp("test", "test", "!", "-e", path, NULL);
		_exit(101);
	}
	EXPECT_EQ(0, wait_child(pid));
	get_stats(_metadata, self->dev);
}

/* Security modules are asked when the file is opened again. */
TEST_F(security, landlock_is_asked)
{
	const struct landlock_ruleset_attr rules = {
		.handled_access_fs = LANDLOCK_ACCESS_FS_READ_FILE |
				     LANDLOCK_ACCESS_FS_WRITE_FILE,
	};
	pid_t pid;
	int status;

	pid = fork();
	if (!pid) {
		struct landlock_path_beneath_attr beneath = {
			.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE,
		};
		int dev[2] = { self->dev, open(MMNF_DEVICE, O_RDWR) };
		int inner, outer = syscall(SYS_landlock_create_ruleset, &rules,
					   sizeof(rules), 0);
		char byte;

		if (outer < 0)
			_exit(errno == ENOSYS || errno == EOPNOTSUPP ? 99 : 1);
		/* First reading alone is allowed, then nothing. */
		beneath.parent_fd = open(ground, O_PATH);
		if (syscall(SYS_landlock_add_rule, outer,
			    LANDLOCK_RULE_PATH_BENEATH, &beneath, 0))
			_exit(2);
		inner = syscall(SYS_landlock_create_ruleset, &rules,
				sizeof(rules), 0);
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		if (syscall(SYS_landlock_restrict_self, outer, 0))
			_exit(3);
		if (attach(dev[0], self->fd, MMNF_ATTACH_WRITE) != EACCES)
			_exit(4);
		if (attach(dev[0], self->fd, 0))
			_exit(5);
		if (syscall(SYS_landlock_restrict_self, inner, 0))
			_exit(6);
		if (pread(self->fd, &byte, 1, 0) != 1)
			_exit(7);
		_exit(attach(dev[1], self->fd, 0) != EACCES);
	}
	status = wait_child(pid);
	if (status == 99)
		SKIP(return, "kernel: no Landlock");
	EXPECT_EQ(0, status);
}

/* Outputs */

static bool is_kernel_address(u64 value)
{
	return value >= 0xffff800000000000ULL;
}

static u64 kernel_addresses(const void *p, size_t bytes)
{
	const u64 *word = p;
	u64 nr = 0, i;

	for (i = 0; i < bytes / 8; i++)
		nr += is_kernel_address(word[i]);
	return nr;
}

TEST_F(security, no_kernel_address_in_structs)
{
	const struct mmnf_range all = { 0, BYTES };
	const struct mmnf_select select = { (unsigned long)&all, 1, 0 };
	struct mmnf_state states[2] = {};
	struct mmnf_ioc_info info = { .size = sizeof(info) };
	struct mmnf_ioc_attach attach = vector_of(self->fd, BYTES);
	struct mmnf_ioc_policy policy = { .size = sizeof(policy) };
	struct mmnf_ioc_stats stats = { .size = sizeof(stats) };
	struct mmnf_ioc_prefetch prefetch = { .size = sizeof(prefetch),
					      .select = select };
	struct mmnf_ioc_evict evict = { .size = sizeof(evict),
					.select = select };
	struct mmnf_ioc_residency residency = {
		.size = sizeof(residency),
		.select = select,
		.states = (unsigned long)states,
	};

#define LOOK(command, arg)                                         \
	do {                                                       \
		EXPECT_EQ(0, ioctl(self->dev, command, &arg));     \
		EXPECT_EQ(0, kernel_addresses(&arg, sizeof(arg))); \
	} while (0)
	LOOK(MMNF_IOC_GET_INFO, info);
	LOOK(MMNF_IOC_ATTACH, attach);
	LOOK(MMNF_IOC_GET_POLICY, policy);
	LOOK(MMNF_IOC_PREFETCH, prefetch);
	LOOK(MMNF_IOC_EVICT, evict);
	LOOK(MMNF_IOC_RESIDENCY, residency);
	LOOK(MMNF_IOC_GET_STATS, stats);
#undef LOOK
	EXPECT_EQ(0, kernel_addresses(states, sizeof(states)));
}

/* A path, a kernel address, or the caller's process number in a text. */
static bool tells_too_much(const char *text)
{
	const char *at;

	if (strstr(text, SECRET) || strstr(text, ground))
		return true;
	for (at = text; *at; at++)
		if (strspn(at, "0123456789abcdefABCDEF") >= 16 &&
		    is_kernel_address(strtoull(at, NULL, 16)))
			return true;
	return false;
}

static unsigned int nr_texts;
static char *odd_text;

static int look_at(const char *path, const struct stat *st, int type,
		   struct FTW *at __attribute__((unused)))
{
	char text[4097];
	ssize_t len;
	int fd;

	if (type != FTW_F || !(st->st_mode & 0444))
		return 0;
	fd = open(path, O_RDONLY | O_NONBLOCK);
	len = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	close(fd);
	if (len < 0)
		return 0;
	text[len] = 0;
	nr_texts++;
	if (tells_too_much(text) && !odd_text)
		odd_text = strdup(path);
	return 0;
}

TEST_F(security, nothing_told_in_sysfs_and_traces)
{
	const char *dir = "/sys/kernel/tracing/instances/mmnf-security";
	const struct mmnf_range all = { 0, BYTES };
	struct mmnf_ioc_evict evict = { .size = sizeof(evict) };
	struct mmnf_ioc_prefetch prefetch = { .size = sizeof(prefetch) };
	char path[300];
	bool traced;
	char *p;

	ASSERT_EQ(0, attach(self->dev, self->fd, 0));
	drop_cache(_metadata, self->fd);
	traced = !mkdir(dir, 0700) && !put_text(dir, "events/mmnf/enable", "1");
	p = map_field(_metadata, self->dev, 0, BYTES, MAP_SHARED);
	EXPECT_EQ(0, walk(p, 0, 3 * PAGE, 60, 1));
	munmap(p, BYTES);
	evict.select.items = (unsigned long)&all;
	evict.select.nr_items = 1;
	prefetch.select = evict.select;
	EXPECT_EQ(0, ioctl(self->dev, MMNF_IOC_PREFETCH, &prefetch));
	EXPECT_EQ(0, ioctl(self->dev, MMNF_IOC_EVICT, &evict));
	/* /sys/class/misc/mmnf is a link. */
	ASSERT_EQ(0, nftw(MMNF_SYSFS "/.", look_at, 16, FTW_PHYS));
	/* At the least the field's own. */
	EXPECT_LE(26, nr_texts);
	EXPECT_EQ(NULL, odd_text)
	TH_LOG("%s", odd_text);
	if (!traced)
		SKIP(return, "kernel: no tracefs");
	snprintf(path, sizeof(path), "%s/trace", dir);
	{
		static char text[1 << 20];
		int fd = open(path, O_RDONLY);
		size_t len = 0;
		ssize_t n;

		while ((n = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
			len += n;
		close(fd);
		EXPECT_NE(NULL, strstr(text, "mmnf_evict: "));
		EXPECT_FALSE(tells_too_much(text));
	}
	put_text(dir, "events/mmnf/enable", "0");
	rmdir(dir);
}

/* Memory */

FIXTURE(limits)
{
	int fd;
	char cgroup[128];
	const char *skip;
};

FIXTURE_SETUP(limits)
{
	self->fd = make_field(_metadata, "limits", BYTES);
	self->skip =
		make_cgroup(self->cgroup, sizeof(self->cgroup), "mmnf-limits");
}

FIXTURE_TEARDOWN(limits)
{
	close(self->fd);
	remove_field("limits");
	rmdir(self->cgroup);
}

#define NR_FIELDS 200

/* At most 64 KiB a field, and charged to the one who attaches. */
TEST_F(limits, memory_of_a_field)
{
	u64 used[2] = {};
	int pipes[2];
	pid_t pid;

	if (self->skip)
		SKIP(return, "%s", self->skip);
	ASSERT_EQ(0, pipe(pipes));
	pid = fork();
	if (!pid) {
		int i;

		if (!enter_cgroup(self->cgroup))
			_exit(1);
		for (i = 0; i < NR_FIELDS + 10; i++) {
			int dev = open(MMNF_DEVICE, O_RDWR);

			/* The first ones warm up caches. */
			if (i == 10)
				used[0] = memory_stat(self->cgroup, "kernel");
			if (dev < 0 || attach(dev, self->fd, 0))
				_exit(2);
		}
		used[1] = memory_stat(self->cgroup, "kernel");
		write(pipes[1], used, sizeof(used));
		_exit(0);
	}
	ASSERT_EQ(0, wait_child(pid));
	ASSERT_EQ((ssize_t)sizeof(used), read(pipes[0], used, sizeof(used)));
	ksft_print_msg("%llu bytes of kernel memory a field\n",
		       (used[1] - used[0]) / NR_FIELDS);
	fflush(stdout);
	EXPECT_GE(65536, (used[1] - used[0]) / NR_FIELDS);
	/* The table of pending pages alone is 32 KiB. */
	EXPECT_LE(32768, (used[1] - used[0]) / NR_FIELDS);
}

TEST_F(limits, descriptors_of_a_user)
{
	const struct rlimit limit = { 256, 256 };
	pid_t pid;

	pid = fork();
	if (!pid) {
		int i, err = 0;

		setrlimit(RLIMIT_NOFILE, &limit);
		for (i = 0; i < 10000 && !err; i++)
			if (open(MMNF_DEVICE, O_RDWR) < 0)
				err = errno;
		_exit(err != EMFILE || i > 256);
	}
	EXPECT_EQ(0, wait_child(pid));
}

/*
 * With descriptors enough, the memory of the group is what ends it: by an error,
 * or, if the page that was too much is none of ours, by a signal in the group.
 */
TEST_F(limits, memory_of_10000_fields)
{
	const struct rlimit limit = { 20000, 20000 };
	int pipes[2], status;
	u32 nr = 0;
	pid_t pid;

	if (self->skip)
		SKIP(return, "%s", self->skip);
	ASSERT_EQ(0, put_text(self->cgroup, "memory.max", "33554432"));
	ASSERT_EQ(0, pipe(pipes));
	pid = fork();
	if (!pid) {
		int err = 0;
		u32 i;

		setrlimit(RLIMIT_NOFILE, &limit);
		if (!enter_cgroup(self->cgroup))
			_exit(1);
		for (i = 1; i <= 10000 && !err; i++) {
			int dev = open(MMNF_DEVICE, O_RDWR);

			err = dev < 0 ? errno : attach(dev, self->fd, 0);
			write(pipes[1], &i, sizeof(i));
		}
		_exit(err == ENOMEM ? 0 : 2);
	}
	close(pipes[1]);
	while (read(pipes[0], &status, sizeof(status)) == sizeof(status))
		nr = status;
	status = wait_child(pid);
	EXPECT_TRUE(status == 0 || status == 128 + SIGKILL)
	TH_LOG("status %d", status);
	ksft_print_msg("%u fields in 32 MiB, then %s\n", nr,
		       status ? "killed" : "ENOMEM");
	fflush(stdout);
	EXPECT_LT(100, nr);
	EXPECT_GT(1100, nr);
	/* The next one finds everything as it was. */
	close(attach_field(_metadata, self->fd, BYTES));
}

/* What goes away below */

FIXTURE(below)
{
	char dir[280];
};

FIXTURE_SETUP(below)
{
	snprintf(self->dir, sizeof(self->dir), "%s/below", ground);
	catch_sigbus();
}

FIXTURE_TEARDOWN(below)
{
	umount2(self->dir, MNT_DETACH);
	rmdir(self->dir);
}

TEST_F(below, file_removed)
{
	int fd = make_field(_metadata, "gone", BYTES), dev;
	char *p;

	dev = attach_field(_metadata, fd, BYTES);
	remove_field("gone");
	drop_cache(_metadata, fd);
	close(fd);
	p = map_field(_metadata, dev, 0, BYTES, MAP_SHARED);
	EXPECT_EQ(0, wrong_words(p, 0, BYTES));
	munmap(p, BYTES);
	close(dev);
}

TEST_F(below, file_system_unmounted)
{
	struct mmnf_ioc_attach arg;
	int fd, dev = open_device(_metadata);
	char path[300];
	char *p;

	ASSERT_EQ(0, mount_image(self->dir, "ext4",
				 "mkfs.ext4 -q -F -O ^has_journal", 8));
	snprintf(path, sizeof(path), "%s/file", self->dir);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	ASSERT_LE(0, fd);
	fill_field(_metadata, fd, 0, BYTES);
	arg = vector_of(fd, BYTES);
	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_ATTACH, &arg));
	drop_cache(_metadata, fd);
	close(fd);
	/* Busy with the field alone; detached, it lives on for the field. */
	EXPECT_EQ(EBUSY, err_of(umount(self->dir)));
	p = map_field(_metadata, dev, 0, BYTES, MAP_SHARED);
	close(dev);
	EXPECT_EQ(EBUSY, err_of(umount(self->dir)));
	EXPECT_EQ(0, umount2(self->dir, MNT_DETACH));
	EXPECT_EQ(0, wrong_words(p, 0, BYTES));
	munmap(p, BYTES);
	unlink(strcat(self->dir, ".img"));
}

TEST_F(below, file_system_free_after_the_field)
{
	struct mmnf_ioc_attach arg;
	int fd, dev = open_device(_metadata), try;
	char path[300];
	char *p;

	ASSERT_EQ(0, mount_image(self->dir, "ext4",
				 "mkfs.ext4 -q -F -O ^has_journal", 8));
	snprintf(path, sizeof(path), "%s/file", self->dir);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	ASSERT_LE(0, fd);
	fill_field(_metadata, fd, 0, BYTES);
	arg = vector_of(fd, BYTES);
	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_ATTACH, &arg));
	drop_cache(_metadata, fd);
	p = map_field(_metadata, dev, 0, BYTES, MAP_SHARED);
	EXPECT_EQ(0, walk(p, 0, 5 * PAGE, 50, 0));
	close(fd);
	munmap(p, BYTES);
	close(dev);
	/* The worker may be on its way out. */
	for (try = 0; try < 100 && umount(self->dir); try++)
		sleep_ms(10);
	EXPECT_GT(100, try);
}

/* The disk goes, the descriptors stay: errors, and an end. */
TEST_F(below, device_removed)
{
	int fd = make_null_disk("mmnf-gone", 16, 0, 64), dev;
	const struct mmnf_range all = { 0, 16 * MIB };
	struct mmnf_ioc_prefetch prefetch = {
		.size = sizeof(prefetch),
		.flags = MMNF_PREFETCH_WAIT,
		.select = { (unsigned long)&all, 1, MMNF_SELECT_RANGES },
	};
	u64 value;
	char *p;

	if (fd < 0)
		SKIP(return, "kernel: no null_blk with configfs");
	dev = attach_field(_metadata, fd, 16 * MIB);
	p = map_field(_metadata, dev, 0, 16 * MIB, MAP_SHARED);
	load(p);
	close(fd);
	remove_null_disk("mmnf-gone");
	EXPECT_FALSE(try_load(p + 8 * MIB, &value));
	ioctl(dev, MMNF_IOC_PREFETCH, &prefetch);
	EXPECT_EQ(0, prefetch.out_resident_bytes & (PAGE - 1));
	get_stats(_metadata, dev);
	munmap(p, 16 * MIB);
	close(dev);
}

MMNF_HARNESS_MAIN
