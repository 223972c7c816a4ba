// SPDX-License-Identifier: MIT
/*
 * What sysfs says of a network block device, and what is set there.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "nbd.h"

/* As many as the driver has tags for. */
#define NR_REQUESTS 128

bool nbd_queue_index(const char *device, uint32_t *index)
{
	const char *digits = device + strlen("/dev/nbd");
	uint64_t n;

	if (strncmp(device, "/dev/nbd", strlen("/dev/nbd")) ||
	    !isdigit((unsigned char)*digits) ||
	    strspn(digits, "0123456789") != strlen(digits) ||
	    !parse_u64(digits, &n) || n > 65535)
		return false;
	*index = (uint32_t)n;
	return true;
}

static int open_attribute(uint32_t index, const char *name, int flags)
{
	char path[96];

	snprintf(path, sizeof(path), "/sys/block/nbd%" PRIu32 "/%s", index,
		 name);
	return open(path, flags | O_CLOEXEC);
}

/* Its text without the line's end; false: there is no such attribute. */
static bool read_attribute(uint32_t index, const char *name, char *text,
			   size_t len)
{
	int fd = open_attribute(index, name, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, len - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	text[strcspn(text, "\n")] = 0;
	return n >= 0;
}

static int write_attribute(uint32_t index, const char *name, const char *text)
{
	int fd = open_attribute(index, name, O_WRONLY), err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

bool nbd_queue_connected(uint32_t index, char *backend, size_t len)
{
	char pid[32];

	if (backend && !read_attribute(index, "backend", backend, len))
		*backend = 0;
	return read_attribute(index, "pid", pid, sizeof(pid));
}

uint64_t nbd_queue_size_bytes(uint32_t index)
{
	char text[32];
	uint64_t sectors;

	if (!read_attribute(index, "size", text, sizeof(text)) ||
	    !parse_u64(text, &sectors))
		return 0;
	return sectors * 512;
}

uint64_t nbd_queue_block_bytes(uint32_t index)
{
	char text[32];
	uint64_t bytes;

	if (!read_attribute(index, "queue/logical_block_size", text,
			    sizeof(text)) ||
	    !parse_u64(text, &bytes))
		return 0;
	return bytes;
}

/* What it is afterwards; with the reason where that is not what was wanted. */
static void set_number(uint32_t index, const char *name, uint64_t wanted,
		       json_t *set)
{
	char path[64], text[32];
	uint64_t got = 0;
	int err;

	snprintf(path, sizeof(path), "queue/%s", name);
	snprintf(text, sizeof(text), "%" PRIu64, wanted);
	err = write_attribute(index, path, text);
	if (err)
		fprintf(stderr,
			"mmnf: nbd: /sys/block/nbd%" PRIu32
			"/%s: %s not set: %s\n",
			index, path, text, strerror(-err));
	if (read_attribute(index, path, text, sizeof(text)) &&
	    parse_u64(text, &got))
		json_object_set_new(set, name, json_integer((json_int_t)got));
}

void nbd_queue_tune(uint32_t index, const struct nbd_export *export,
		    uint64_t read_ahead_kib, json_t *set)
{
	char text[64];

	if (write_attribute(index, "queue/scheduler", "none"))
		fprintf(stderr,
			"mmnf: nbd: nbd%" PRIu32 ": no scheduler 'none'\n",
			index);
	if (read_attribute(index, "queue/scheduler", text, sizeof(text)))
		json_object_set_new(set, "scheduler", json_string(text));
	set_number(index, "max_sectors_kb", export->most_bytes / 1024, set);
	set_number(index, "read_ahead_kb", read_ahead_kib, set);
	set_number(index, "nr_requests", NR_REQUESTS, set);
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

int nbd_queue_all(uint32_t **indices)
{
	DIR *folder = opendir("/sys/block");
	struct dirent *entry;
	uint32_t *all = NULL;
	int nr = 0;

	if (!folder)
		return -errno;
	while ((entry = readdir(folder))) {
		uint32_t index, *more;
		char device[300];

		snprintf(device, sizeof(device), "/dev/%s", entry->d_name);
		if (!nbd_queue_index(device, &index))
			continue;
		more = reallocarray(all, (size_t)nr + 1, sizeof(*all));
		if (!more) {
			free(all);
			closedir(folder);
			return -ENOMEM;
		}
		all = more;
		all[nr++] = index;
	}
	closedir(folder);
	if (all)
		qsort(all, (size_t)nr, sizeof(*all), compare);
	*indices = all;
	return nr;
}
