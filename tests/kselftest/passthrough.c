// SPDX-License-Identifier: GPL-2.0
/*
 * A field on FUSE that passes through to a file of another file system: FUSE has
 * readahead, but what is mapped are the pages of the other file.
 *
 * The file system is one file, served by a child.
 */
#include "util.h"

#include <linux/fuse.h>
#include <sys/wait.h>

#define BYTES (8 * MIB)
#define PAGES (BYTES / PAGE)

/* Of Linux 6.9, where the header is older. */
#define PASSTHROUGH_HIGH (1U << (37 - 32))
#define OPEN_PASSTHROUGH (1U << 7)
#define BACKING_OPEN _IOW(229, 1, struct backing_map)

struct backing_map {
	__s32 fd;
	u32 flags;
	u64 padding;
};

struct init_out {
	u32 major, minor, max_readahead, flags;
	__u16 max_background, congestion_threshold;
	u32 max_write, time_gran;
	__u16 max_pages, map_alignment;
	u32 high_flags, max_stack_depth, unused[6];
};

struct open_out {
	u64 fh;
	u32 open_flags;
	__s32 backing_id;
};

FIXTURE(passthrough)
{
	int below, told[2];
	pid_t server;
	char path[300];
	const char *skip;
};

static void answer(int fuse, u64 unique, int error, const void *out,
		   size_t bytes)
{
	char reply[256];
	struct fuse_out_header head = {
		.len = sizeof(head) + bytes,
		.error = error,
		.unique = unique,
	};

	memcpy(reply, &head, sizeof(head));
	memcpy(reply + sizeof(head), out, bytes);
	write(fuse, reply, head.len);
}

/* Tells by @told whether the kernel can pass through. */
static void answer_init(int fuse, u64 unique, const struct fuse_init_in *in,
			int told)
{
	const struct init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = 36,
		.flags = FUSE_INIT_EXT,
		.max_write = PAGE,
		.high_flags = PASSTHROUGH_HIGH,
		.max_stack_depth = 1,
	};
	char can = in->flags2 & PASSTHROUGH_HIGH ? 'y' : 'n';

	answer(fuse, unique, 0, &out, sizeof(out));
	write(told, &can, 1);
}

static void serve(int fuse, int below, int told)
{
	static char request[64 * 1024];
	const struct fuse_in_header *head = (void *)request;
	struct backing_map map = { .fd = below };
	struct open_out opened = { .open_flags = OPEN_PASSTHROUGH };
	struct fuse_attr_out attr = {
		.attr_valid = 3600,
		.attr = { .ino = 1,
			  .size = BYTES,
			  .blocks = BYTES / 512,
			  .mode = S_IFREG | 0600,
			  .nlink = 1,
			  .blksize = PAGE },
	};

	while (read(fuse, request, sizeof(request)) > 0) {
		switch (head->opcode) {
		case FUSE_INIT:
			answer_init(fuse, head->unique, (void *)(head + 1),
				    told);
			break;
		case FUSE_GETATTR:
			answer(fuse, head->unique, 0, &attr, sizeof(attr));
			break;
		case FUSE_OPEN:
			if (!opened.backing_id)
				opened.backing_id =
					ioctl(fuse, BACKING_OPEN, &map);
			answer(fuse, head->unique, 0, &opened, sizeof(opened));
			break;
		case FUSE_RELEASE:
			answer(fuse, head->unique, 0, NULL, 0);
			break;
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
		case FUSE_INTERRUPT:
			break;
		default:
			answer(fuse, head->unique, -ENOSYS, NULL, 0);
		}
	}
	_exit(0);
}

FIXTURE_SETUP(passthrough)
{
	char options[128], can = 'n';
	int fuse;

	self->server = -1;
	self->below = make_field(_metadata, "below", BYTES);
	close(make_field(_metadata, "front", 0));
	snprintf(self->path, sizeof(self->path), "%s/front", ground);
	shell("modprobe -q fuse");
	fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=100600,user_id=0,group_id=0", fuse);
	if (fuse < 0 || mount("mmnf", self->path, "fuse", 0, options)) {
		self->skip = "kernel: no FUSE";
		return;
	}
	ASSERT_EQ(0, pipe(self->told));
	self->server = fork();
	if (!self->server)
		serve(fuse, self->below, self->told[1]);
	close(fuse);
	close(self->told[1]);
	ASSERT_EQ(1, read(self->told[0], &can, 1));
	if (can != 'y')
		self->skip = "kernel: FUSE passes nothing through";
}

FIXTURE_TEARDOWN(passthrough)
{
	umount2(self->path, MNT_DETACH);
	if (self->server > 0) {
		kill(self->server, SIGKILL);
		wait_child(self->server);
	}
	close(self->below);
	remove_field("front");
	remove_field("below");
}

TEST_F(passthrough, hints_are_refused_once_it_is_mapped)
{
	struct mmnf_ioc_residency look = { .size = sizeof(look) };
	struct mmnf_ioc_prefetch ask = { .size = sizeof(ask) };
	struct mmnf_ioc_evict evict = { .size = sizeof(evict) };
	struct stat st;
	int fd, dev;
	char *p;

	if (self->skip)
		SKIP(return, "%s", self->skip);
	drop_cache(_metadata, self->below);
	fd = open(self->path, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	/* The size of a root is not known before. */
	ASSERT_EQ(0, fstat(fd, &st));
	ASSERT_EQ(BYTES, (u64)st.st_size);
	dev = attach_field(_metadata, fd, BYTES);
	EXPECT_EQ(0, err_of(ioctl(dev, MMNF_IOC_PREFETCH, &ask)));
	p = map_field(_metadata, dev, 0, BYTES, MAP_SHARED);
	EXPECT_EQ(0, wrong_words(p, 0, BYTES));
	EXPECT_EQ(PAGES, resident_pages(_metadata, self->below, 0, BYTES));
	EXPECT_EQ(EOPNOTSUPP, err_of(ioctl(dev, MMNF_IOC_PREFETCH, &ask)));
	EXPECT_EQ(EOPNOTSUPP, err_of(ioctl(dev, MMNF_IOC_EVICT, &evict)));
	EXPECT_EQ(EOPNOTSUPP, err_of(ioctl(dev, MMNF_IOC_RESIDENCY, &look)));
	munmap(p, BYTES);
	close(dev);
	close(fd);
}

MMNF_HARNESS_MAIN
