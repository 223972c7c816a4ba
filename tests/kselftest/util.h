/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the programs here share.
 *
 * Field files are made on a ground: the directory that MMNF_TEST_DIR names, else
 * an ext4 on a loop device on a tmpfs, made anew in a mount namespace of the
 * program's own, so that nothing of it outlives the program.  The ground must
 * be a filesystem whose clean pages can be dropped: not a tmpfs.
 *
 * Every 8-byte word of a field is a function of its own offset that is never
 * zero, so that a misplaced page, a stale page and a hole can be told apart.
 */
#ifndef MMNF_KSELFTEST_UTIL_H
#define MMNF_KSELFTEST_UTIL_H

#include "kselftest_harness.h"

/*
 * Seconds for a case.  An emulated kernel that watches itself, on a busy machine, is
 * a hundred times slower than what the harness has in mind; tests/run has its own
 * limit for the program.
 */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 240

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

#include <linux/mmnf.h>

typedef __u64 u64;
typedef __s64 s64;
typedef __u32 u32;

#define MMNF_DEVICE "/dev/mmnf"
#define MMNF_SYSFS "/sys/class/misc/mmnf"
#define PAGE 4096UL
#define MIB (1UL << 20)

#define __unused_fn __attribute__((unused))

/* Directory of the field files; set before the first case runs. */
static char ground[256];

static inline u64 word_at(u64 off)
{
	return (off + 1) * 0x9e3779b97f4a7c15ULL;
}

static inline u64 rng_next(u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static inline void sleep_ms(unsigned int ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000L };

	nanosleep(&t, NULL);
}

static inline u64 now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ULL + t.tv_nsec / 1000000;
}

/* The errno of a call that returned @ret, 0 if it did not fail. */
static inline int err_of(long ret)
{
	return ret == -1 ? errno : 0;
}

static __unused_fn int shell(const char *format, ...)
{
	char command[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command);
}

/* Writes a text to a file of a pseudo file system; -1 and errno if refused. */
static __unused_fn int put_text(const char *dir, const char *name,
				const char *text)
{
	char path[512];
	ssize_t done;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return -1;
	done = write(fd, text, strlen(text));
	close(fd);
	return done < 0 ? -1 : 0;
}

/* Memory cgroups */

/* A new cgroup with a memory controller; NULL, or why there is none. */
static __unused_fn const char *make_cgroup(char *path, size_t size,
					   const char *name)
{
	const char *root = "/sys/fs/cgroup";
	char controllers[256] = "";
	int fd;

	snprintf(path, size, "%s/%s", root, name);
	fd = open("/sys/fs/cgroup/cgroup.controllers", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		read(fd, controllers, sizeof(controllers) - 1);
		close(fd);
	}
	if (!strstr(controllers, "memory") ||
	    put_text(root, "cgroup.subtree_control", "+memory") ||
	    (mkdir(path, 0700) && errno != EEXIST))
		return "kernel: no memory controller of cgroup v2";
	return NULL;
}

static __unused_fn bool enter_cgroup(const char *cgroup)
{
	return !put_text(cgroup, "cgroup.procs", "0");
}

/* A number of a cgroup's memory.stat. */
static __unused_fn u64 memory_stat(const char *cgroup, const char *what)
{
	char path[256], key[64];
	unsigned long long value;
	u64 found = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/memory.stat", cgroup);
	f = fopen(path, "r");
	while (f && fscanf(f, "%63s %llu", key, &value) == 2)
		if (!strcmp(key, what))
			found = value;
	if (f)
		fclose(f);
	return found;
}

/* Disks of which nothing is kept: each read gives zeros, after a time. */

#define NULL_DISKS "/sys/kernel/config/nullb"

static __unused_fn void remove_null_disk(const char *name)
{
	char dir[128];

	snprintf(dir, sizeof(dir), NULL_DISKS "/%s", name);
	put_text(dir, "power", "0");
	rmdir(dir);
}

/* All zero; @depth reads at a time take @read_ns each.  A descriptor for reading, or -1. */
static __unused_fn int make_null_disk(const char *name, u64 mib, u64 read_ns,
				      unsigned int depth)
{
	const struct {
		const char *name;
		u64 value;
	} settings[] = {
		{ "size", mib },
		{ "memory_backed", 1 },
		{ "irqmode", read_ns ? 2 : 0 },
		{ "completion_nsec", read_ns },
		{ "hw_queue_depth", depth },
		{ "submit_queues", 1 },
		{ "power", 1 },
	};
	char path[128], text[24];
	int fd, i, try;

	system("modprobe -q null_blk nr_devices=0");
	if (access(NULL_DISKS, F_OK))
		mount("none", "/sys/kernel/config", "configfs", 0, NULL);
	snprintf(path, sizeof(path), NULL_DISKS "/%s", name);
	if (mkdir(path, 0700))
		return -1;
	for (i = 0; i < (int)ARRAY_SIZE(settings); i++) {
		snprintf(text, sizeof(text), "%llu",
			 (unsigned long long)settings[i].value);
		if (put_text(path, settings[i].name, text))
			return -1;
	}
	snprintf(path, sizeof(path), "/dev/%s", name);
	/* devtmpfs makes it in its own time. */
	for (try = 0; try < 100; try++) {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			return fd;
		sleep_ms(10);
	}
	return -1;
}

/* Files */

static __unused_fn void fill_field(struct __test_metadata *_metadata, int fd,
				   u64 start, u64 end)
{
	static u64 words[8192];
	u64 off, len, i;

	for (off = start; off < end; off += len) {
		len = end - off < sizeof(words) ? end - off : sizeof(words);
		for (i = 0; i < len; i += 8)
			words[i / 8] = word_at(off + i);
		ASSERT_EQ((ssize_t)len, pwrite(fd, words, len, off));
	}
}

/* A new field file on the ground, on stable storage and in the page cache. */
static __unused_fn int make_field(struct __test_metadata *_metadata,
				  const char *name, u64 bytes)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", ground, name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ASSERT_LE(0, fd)
	TH_LOG("%s: %s", path, strerror(errno));
	fill_field(_metadata, fd, 0, bytes);
	ASSERT_EQ(0, fdatasync(fd));
	return fd;
}

static __unused_fn void remove_field(const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", ground, name);
	unlink(path);
}

/* Resident pages of a byte range of a file. */
static __unused_fn u64 resident_pages(struct __test_metadata *_metadata, int fd,
				      u64 off, u64 len)
{
	u64 nr = (len + PAGE - 1) / PAGE, resident = 0, i;
	unsigned char *vec = malloc(nr);
	void *p = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, off);

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, mincore(p, len, vec));
	for (i = 0; i < nr; i++)
		resident += vec[i] & 1;
	munmap(p, len);
	free(vec);
	return resident;
}

/* Makes a whole file cold; no page of it may be mapped. */
static __unused_fn void drop_cache(struct __test_metadata *_metadata, int fd)
{
	u64 bytes, left = 0;
	struct stat st;
	int try;

	ASSERT_EQ(0, fstat(fd, &st));
	bytes = st.st_size;
	if (S_ISBLK(st.st_mode))
		ASSERT_EQ(0, ioctl(fd, BLKGETSIZE64, &bytes));
	ASSERT_EQ(0, fdatasync(fd));
	/* A page whose read or unmapping is just ending survives one call. */
	for (try = 0; try < 50; try++) {
		ASSERT_EQ(0, posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
		left = resident_pages(_metadata, fd, 0, bytes);
		if (!left)
			return;
		sleep_ms(10);
	}
	ASSERT_EQ(0, left)
	TH_LOG("the ground must be able to drop pages");
}

/* The device */

static __unused_fn int open_device(struct __test_metadata *_metadata)
{
	int dev = open(MMNF_DEVICE, O_RDWR | O_CLOEXEC);

	ASSERT_LE(0, dev)
	TH_LOG(MMNF_DEVICE ": %s", strerror(errno));
	return dev;
}

/* A vector of 8-byte elements from the start of a file. */
static inline struct mmnf_ioc_attach vector_of(int fd, u64 bytes)
{
	struct mmnf_ioc_attach attach = {
		.size = sizeof(attach),
		.fd = fd,
		.ndim = 1,
		.element_bytes = 8,
		.extent = { bytes / 8 },
		.stride_bytes = { 8 },
	};

	return attach;
}

/* Opens the device and attaches the first @bytes of a file. */
static __unused_fn int attach_field(struct __test_metadata *_metadata, int fd,
				    u64 bytes)
{
	struct mmnf_ioc_attach attach = vector_of(fd, bytes);
	int dev = open_device(_metadata);

	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_ATTACH, &attach))
	TH_LOG("attach: %s", strerror(errno));
	return dev;
}

static __unused_fn char *map_field(struct __test_metadata *_metadata, int dev,
				   u64 off, u64 len, int flags)
{
	char *p = mmap(NULL, len, PROT_READ, flags, dev, off);

	ASSERT_NE(MAP_FAILED, p)
	TH_LOG("mmap: %s", strerror(errno));
	return p;
}

static __unused_fn struct mmnf_ioc_policy
get_policy(struct __test_metadata *_metadata, int dev)
{
	struct mmnf_ioc_policy policy = { .size = sizeof(policy) };

	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_GET_POLICY, &policy));
	return policy;
}

static __unused_fn void set_mode(struct __test_metadata *_metadata, int dev,
				 u32 mode)
{
	struct mmnf_ioc_policy policy = { .size = sizeof(policy),
					  .mode = mode };

	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_SET_POLICY, &policy));
}

/* A snapshot of the counters, which must obey their laws whenever taken. */
static __unused_fn struct mmnf_ioc_stats
get_stats(struct __test_metadata *_metadata, int dev)
{
	struct mmnf_ioc_stats s = { .size = sizeof(s) };

	ASSERT_EQ(0, ioctl(dev, MMNF_IOC_GET_STATS, &s));
	EXPECT_EQ(s.out_faults, s.out_hits + s.out_late + s.out_misses)
	TH_LOG("faults %llu hits %llu late %llu misses %llu", s.out_faults,
	       s.out_hits, s.out_late, s.out_misses);
	EXPECT_EQ(s.out_prefetched_pages,
		  s.out_used_pages + s.out_wasted_pages + s.out_pending_pages)
	TH_LOG("prefetched %llu used %llu wasted %llu pending %llu",
	       s.out_prefetched_pages, s.out_used_pages, s.out_wasted_pages,
	       s.out_pending_pages);
	return s;
}

static __unused_fn void log_stats(const char *what,
				  const struct mmnf_ioc_stats *s)
{
	ksft_print_msg("%s: faults %llu hits %llu late %llu misses %llu, "
		       "prefetched %llu used %llu wasted %llu pending %llu, "
		       "plans %llu dropped %llu manual %llu mappings %llu\n",
		       what, s->out_faults, s->out_hits, s->out_late,
		       s->out_misses, s->out_prefetched_pages,
		       s->out_used_pages, s->out_wasted_pages,
		       s->out_pending_pages, s->out_plans, s->out_dropped_plans,
		       s->out_manual_pages, s->out_mappings);
	fflush(stdout);
}

/* Touching memory */

static inline u64 load(const void *p)
{
	return *(const volatile u64 *)p;
}

/* Words of [off, off + len) of the field, mapped at @p, that are not right. */
static __unused_fn u64 wrong_words(const char *p, u64 off, u64 len)
{
	u64 wrong = 0, i;

	for (i = 0; i + 8 <= len; i += 8)
		wrong += load(p + i) != word_at(off + i);
	return wrong;
}

static __unused_fn u64 nonzero_words(const char *p, u64 len)
{
	u64 nonzero = 0, i;

	for (i = 0; i + 8 <= len; i += 8)
		nonzero += load(p + i) != 0;
	return nonzero;
}

/* A rest, of 50 ms at most, until a busy machine's worker has read what is next. */
static __unused_fn void rest(const char *next, unsigned int ms)
{
	void *page = (void *)((uintptr_t)next & ~(PAGE - 1));
	u64 deadline = now_ms() + 50;
	unsigned char there = 0;

	do
		sleep_ms(ms);
	while (!mincore(page, 1, &there) && !(there & 1) &&
	       now_ms() < deadline);
}

/* Touches @nr words, @stride bytes apart, of a field mapped whole at @p. */
static __unused_fn u64 walk(const char *p, u64 start, s64 stride, u64 nr,
			    unsigned int pause_ms)
{
	u64 wrong = 0, pos = start, i;

	for (i = 0; i < nr; i++, pos += stride) {
		wrong += load(p + pos) != word_at(pos);
		if (pause_ms)
			rest(p + pos + stride, pause_ms);
	}
	return wrong;
}

static __thread sigjmp_buf bus_env;
static __thread volatile sig_atomic_t bus_armed;

static __unused_fn void bus_handler(int sig)
{
	if (bus_armed)
		siglongjmp(bus_env, 1);
	signal(sig, SIG_DFL);
	raise(sig);
}

static __unused_fn void catch_sigbus(void)
{
	struct sigaction action = { .sa_handler = bus_handler };

	sigaction(SIGBUS, &action, NULL);
}

/* Loads a word; false if that raised SIGBUS.  After catch_sigbus(). */
static __unused_fn bool try_load(const void *p, u64 *value)
{
	bool ok = false;

	if (!sigsetjmp(bus_env, 1)) {
		bus_armed = 1;
		*value = load(p);
		ok = true;
	}
	bus_armed = 0;
	return ok;
}

/* Runs a child to its end; its exit status, 128 + signal if it was killed. */
static __unused_fn int wait_child(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The ground */

/*
 * Puts a file on a free loop device, which goes away with its last user.  Returns
 * an open descriptor of the device and its path, or -1.
 */
static __unused_fn int make_loop(const char *image, char *path, size_t size)
{
	int control, number, backing, fd, try;

	shell("modprobe -q loop");
	for (try = 0; try < 20; try++) {
		struct loop_config config = {
			.info = { .lo_flags = LO_FLAGS_AUTOCLEAR },
		};

		control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
		if (control < 0)
			return -1;
		number = ioctl(control, LOOP_CTL_GET_FREE);
		close(control);
		snprintf(path, size, "/dev/loop%d", number);
		backing = open(image, O_RDWR | O_CLOEXEC);
		fd = open(path, O_RDWR | O_CLOEXEC);
		config.fd = backing;
		if (number >= 0 && fd >= 0 && backing >= 0 &&
		    !ioctl(fd, LOOP_CONFIGURE, &config)) {
			close(backing);
			return fd;
		}
		close(backing);
		close(fd);
		/* Somebody else was given the same number. */
		sleep_ms(10);
	}
	return -1;
}

/* Mounts a new filesystem of @mib MiB at @dir, its image being @dir.img. */
static __unused_fn int mount_image(const char *dir, const char *type,
				   const char *mkfs, unsigned int mib)
{
	char image[300], device[64];
	int fd, ret;

	snprintf(image, sizeof(image), "%s.img", dir);
	fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, mib * MIB))
		return -1;
	close(fd);
	if (shell("%s %s", mkfs, image))
		return -1;
	fd = make_loop(image, device, sizeof(device));
	if (fd < 0)
		return -1;
	mkdir(dir, 0700);
	ret = mount(device, dir, type, 0, NULL);
	close(fd);
	return ret;
}

static __unused_fn void make_ground(void)
{
	const char *given = getenv("MMNF_TEST_DIR");
	char base[] = "/tmp/mmnf-XXXXXX";

	if (access(MMNF_DEVICE, F_OK))
		ksft_exit_skip("kernel: no " MMNF_DEVICE "\n");
	if (given) {
		snprintf(ground, sizeof(ground), "%s", given);
		return;
	}
	if (geteuid())
		ksft_exit_skip("environment: not root\n");
	if (unshare(CLONE_NEWNS) ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    !mkdtemp(base) ||
	    mount("mmnf-test", base, "tmpfs", 0, "size=75%,mode=700"))
		ksft_exit_fail_msg("no ground: %s\n", strerror(errno));
	snprintf(ground, sizeof(ground), "%s/ext4", base);
	if (mount_image(ground, "ext4", "mkfs.ext4 -q -F -O ^has_journal", 256))
		ksft_exit_skip("environment: no ext4 on a loop device\n");
}

static __unused_fn void leave_ground(void)
{
	char *end = strrchr(ground, '/');

	if (getenv("MMNF_TEST_DIR") || !end || strncmp(ground, "/tmp/", 5))
		return;
	umount2(ground, MNT_DETACH);
	*end = 0;
	umount2(ground, MNT_DETACH);
	rmdir(ground);
}

#define MMNF_HARNESS_MAIN                                                  \
	static void __attribute__((constructor))                           \
	__constructor_order_last(void)                                     \
	{                                                                  \
		if (!__constructor_order)                                  \
			__constructor_order = _CONSTRUCTOR_ORDER_BACKWARD; \
	}                                                                  \
	int main(int argc, char **argv)                                    \
	{                                                                  \
		make_ground();                                             \
		atexit(leave_ground);                                      \
		return test_harness_run(argc, argv);                       \
	}

#endif
