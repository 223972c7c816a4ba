/* SPDX-License-Identifier: MIT */
/* What the ABI fuzzer plays with: devices, mappings of them and files below. */
#ifndef MMNF_FUZZ_WORLD_H
#define MMNF_FUZZ_WORLD_H

#include "fuzz/chance.h"
#include "kselftest/util.h"

#include <sys/socket.h>
#include <sys/time.h>

#define NR_DEVICES 6
#define NR_MAPS 12
#define NR_FILES 8

enum { F_WHOLE, F_SPARSE, F_MEMORY, F_READ_ONLY, F_PATH, F_FOLDER, F_SOCKET };

struct device {
	int fd; /* -1: closed */
	int file; /* -1: nothing is attached */
	bool write, has_records;
	u32 ndim;
};

struct map {
	char *p; /* NULL: none */
	u64 off, len;
	bool write;
};

static struct device device[NR_DEVICES];
static struct map map[NR_MAPS];
static int file[NR_FILES], pass[2];
static u64 done, nr_ok, nr_async_ok, nr_words, nr_bus;
static bool trace;

#define TRACE(...)                                \
	do {                                      \
		if (trace) {                      \
			printf("# %llu: ", done); \
			printf(__VA_ARGS__);      \
			printf("\n");             \
			fflush(stdout);           \
		}                                 \
	} while (0)

static bool is_documented(int err)
{
	switch (err) {
	case 0:
	case ENOTTY:
	case E2BIG:
	case EOPNOTSUPP:
	case EINVAL:
	case EOVERFLOW:
	case EBADF:
	case EACCES:
	case ENXIO:
	case EBUSY:
	case EPERM:
	case EFAULT:
	case EINTR:
	case ENOMEM:
		return true;
	}
	return false;
}

static void on_alarm(int sig)
{
	(void)sig;
}

/* A hint may have much to do: it is given some time, as a caller would. */
static int call(struct __test_metadata *_metadata, int fd, unsigned long cmd,
		void *arg)
{
	const struct itimerval soon = { .it_value = { 0, 50000 } };
	const struct itimerval never = {};
	int err;

	setitimer(ITIMER_REAL, &soon, NULL);
	err = err_of(ioctl(fd, cmd, arg));
	setitimer(ITIMER_REAL, &never, NULL);
	nr_ok += !err;
	EXPECT_TRUE(is_documented(err))
	TH_LOG("operation %llu: ioctl %#lx: %s", done, cmd, strerror(err));
	return err;
}

/* Nearly always one that has a file, if there is one. */
static struct device *some_device(void)
{
	struct device *d = &device[rnd(NR_DEVICES)];

	while (d->file < 0 && !one_in(16))
		d = &device[rnd(NR_DEVICES)];
	return d;
}

static void make_files(struct __test_metadata *_metadata)
{
	char path[300];
	int pair[2], i;

	file[F_WHOLE] = make_field(_metadata, "whole", FILE_BYTES);
	file[F_SPARSE] = make_field(_metadata, "sparse", MIB);
	ASSERT_EQ(0, ftruncate(file[F_SPARSE], SPARSE_BYTES));
	file[F_MEMORY] = memfd_create("memory", MFD_CLOEXEC);
	fill_field(_metadata, file[F_MEMORY], 0, FILE_BYTES);
	snprintf(path, sizeof(path), "%s/whole", ground);
	file[F_READ_ONLY] = open(path, O_RDONLY | O_CLOEXEC);
	file[F_PATH] = open(path, O_PATH | O_CLOEXEC);
	file[F_FOLDER] = open(ground, O_RDONLY | O_CLOEXEC);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	file[F_SOCKET] = pair[0];
	file[F_SOCKET + 1] = 9999;
	for (i = 0; i < F_SOCKET; i++)
		ASSERT_LE(0, file[i]);
}

#endif
