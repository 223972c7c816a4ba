// SPDX-License-Identifier: MIT
/*
 * Which pages of a segment's file are in the page cache.
 *
 * By mincore(), on a mapping that the segment keeps for it and for mapped.c; of a
 * file that is too long for that, on one of the part that is asked about.
 *
 * Of a file that the caller neither owns nor may write, mincore() says that all of
 * it is here, and there is no other way to ask: a read that may not wait begins to
 * read.  Such a field is blind: nothing is known to be here, and its predictor goes
 * by what it had read ahead.
 *
 * Nothing is read from the disk here.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

#define KEPT_MAX (1ULL << 39) /* 64 segments of it are 2^45 of 2^47 */

/* Who owns what the user namespace has no name for: there CAP_FOWNER is void. */
#define NOBODY 65534

/* May it do as an owner does, as root may? */
static bool owns_all(void)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

	return !syscall(SYS_capget, &head, data) &&
	       data[CAP_TO_INDEX(CAP_FOWNER)].effective &
		       CAP_TO_MASK(CAP_FOWNER);
}

/* As the kernel asks; that a mount is read-only does not matter to it. */
bool mmnf_resident_may_ask(int fd)
{
	char path[32];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return !fstat(fd, &st) &&
	       (st.st_uid == geteuid() || (st.st_uid != NOBODY && owns_all()) ||
		!faccessat(AT_FDCWD, path, W_OK, AT_EACCESS));
}

bool mmnf_resident_is_known(const struct mmnf_field *field)
{
	return !__atomic_load_n(&field->blind, __ATOMIC_RELAXED);
}

char *mmnf_resident_map(struct mmnf_field *field, struct mmnf_segment *s)
{
	char *base = __atomic_load_n(&s->look, __ATOMIC_ACQUIRE);

	if (base)
		return base;
	pthread_mutex_lock(&field->segments.lock);
	if (!s->look) {
		base = MAP_FAILED;
		if (s->file_bytes <= KEPT_MAX)
			base = mmap(NULL, s->file_bytes, PROT_READ, MAP_SHARED,
				    s->fd, 0);
		if (base != MAP_FAILED)
			madvise(base, s->file_bytes, MADV_RANDOM);
		__atomic_store_n(&s->look, base, __ATOMIC_RELEASE);
	}
	base = s->look;
	pthread_mutex_unlock(&field->segments.lock);
	return base;
}

void mmnf_resident_close(struct mmnf_segment *s)
{
	if (s->look && s->look != MAP_FAILED)
		munmap(s->look, s->file_bytes);
}

void mmnf_resident_pages(struct mmnf_field *field, struct mmnf_segment *s,
			 u64 start, u64 bytes, unsigned char *state)
{
	u64 page = mmnf_page_bytes(), nr = (bytes + page - 1) / page, i;
	char *base, *part = MAP_FAILED;
	bool known = false;

	if (mmnf_resident_is_known(field)) {
		base = mmnf_resident_map(field, s);
		if (base != MAP_FAILED)
			known = !mincore(base + start, bytes, state);
		else
			part = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, s->fd,
				    (off_t)start);
	}
	if (part != MAP_FAILED) {
		known = !mincore(part, bytes, state);
		munmap(part, bytes);
	}
	for (i = 0; i < nr; i++)
		state[i] = known && state[i] & 1;
}
