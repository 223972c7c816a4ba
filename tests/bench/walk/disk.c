// SPDX-License-Identifier: MIT
/*
 * See disk.h.
 */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "disk.h"

static int open_attribute(dev_t dev, const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(dev),
		 minor(dev), name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		err(1, "%s", path);
	return fd;
}

/* "   12        0": the sum of up to two numbers. */
static unsigned int read_sum(int fd)
{
	unsigned int a = 0, b = 0;
	char text[64];
	ssize_t got = pread(fd, text, sizeof(text) - 1, 0);

	if (got <= 0)
		err(1, "attribute of a disk");
	text[got] = 0;
	if (sscanf(text, "%u %u", &a, &b) < 1)
		errx(1, "attribute of a disk: %s: expected a number", text);
	return a + b;
}

struct disk disk_of(int fd)
{
	struct disk disk;
	struct stat st;
	int slots;

	if (fstat(fd, &st))
		err(1, "stat");
	if (S_ISBLK(st.st_mode))
		st.st_dev = st.st_rdev;
	slots = open_attribute(st.st_dev, "mq/0/nr_tags");
	disk.nr_slots = read_sum(slots);
	close(slots);
	disk.inflight = open_attribute(st.st_dev, "inflight");
	return disk;
}

bool disk_is_full(const struct disk *disk, size_t nr_left)
{
	size_t most = disk->nr_slots - disk->nr_slots / 16;

	return read_sum(disk->inflight) >= (nr_left < most ? nr_left : most);
}
