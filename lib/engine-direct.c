// SPDX-License-Identifier: MIT
/*
 * Engine direct: O_DIRECT into L2, which has a bound of its own and is not
 * pushed out by other programs.  Pointers are a plain mapping, as of mmap: they
 * go through the page cache and see the same bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "tier.h"

static int probe(const struct mmnf_field *field, char *reason, size_t len)
{
	char path[48];
	int fd;

	snprintf(reason, len, "asked for");
	if (field->store.file >= 0)
		snprintf(path, sizeof(path), "/proc/self/fd/%d",
			 field->store.file);
	else
		snprintf(path, sizeof(path), "/proc/self/fd/%d/zarr.json",
			 field->store.dir);
	fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0 && errno == EINVAL)
		snprintf(reason + strlen(reason), len - strlen(reason),
			 "; this file system refuses O_DIRECT");
	if (fd >= 0)
		close(fd);
	return 0;
}

const struct mmnf_tier_ops mmnf_tier_direct = {
	.name = "direct",
	.align_bytes = MMNF_DIRECT_ALIGN,
	.cached = true,
	.probe = probe,
	.map = mmnf_mmap_map,
	.unmap = mmnf_mmap_unmap,
	.stats = mmnf_mmap_stats,
	.queue_open = mmnf_queue_file_open,
	.queue_close = mmnf_queue_file_close,
	.submit = mmnf_queue_file_submit,
	.reap = mmnf_queue_file_reap,
};
