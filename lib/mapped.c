// SPDX-License-Identifier: MIT
/*
 * Copying from the page cache by plain loads, where it was found a short while ago:
 * a read costs a look-up in the kernel for each piece, a load costs nothing.
 *
 *	read that may not wait -> found -> its pages are noted as seen
 *	all pages seen -> copied from a mapping -> bad page? -> read after all
 *	                                        -> file cut? -> error
 *
 * A page that was seen may be gone, and then a load waits for it, one page at a
 * time.  So it is looked now and then, and when a call ends, whether loads had to
 * wait: if so, nothing of the segment counts as seen any more.  Only for calls that
 * wait anyway.
 *
 * A page that can't be read raises SIGBUS, which guard.c turns into the end of the
 * copy.  Where a file was cut in the middle of a page the rest of it reads as zero
 * and raises nothing, so its length is asked for after the copies.
 *
 * Not on file systems that look for others' changes when they are read, and not
 * when they are mapped.
 *
 * seen.bits is read and written without a lock: what is lost or comes too late is a
 * read more, or a wait.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/vfs.h>

#include "internal.h"

#define XFS_MAGIC 0x58465342 /* linux/magic.h has them not in all versions */
#define F2FS_MAGIC 0xF2F52010
#define FIRST_BYTES \
	(16ULL << 10) /* copied before the first look at the waits */
#define LOOK_BYTES (128ULL << 10) /* copied from one look to the next */
#define FORGET_BYTES (64ULL << 20) /* dropped at once: all is forgotten */

/**
 * struct mmnf_seen_pages - the pages of a segment that were seen in memory
 * @bits: one each; NULL: the file can't be copied from
 * @range: of the guard
 */
struct mmnf_seen_pages {
	u64 *bits, bytes;
	struct mmnf_guarded *range;
};

static u64 nr_pages(u64 bytes)
{
	return (bytes + mmnf_page_bytes() - 1) / mmnf_page_bytes();
}

/* Does a mapping of the file show what a read would? */
static bool is_coherent(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return false;
	switch ((u32)fs.f_type) {
	case EXT4_SUPER_MAGIC:
	case XFS_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case F2FS_MAGIC:
	case TMPFS_MAGIC: /* and where block devices stand */
		return true;
	}
	return false;
}

static struct mmnf_seen_pages *open_seen(struct mmnf_field *field,
					 struct mmnf_segment *s)
{
	struct mmnf_seen_pages *seen = calloc(1, sizeof(*seen));
	char *base = MAP_FAILED;
	void *bits;

	if (!seen)
		return NULL;
	if (is_coherent(s->fd))
		base = mmnf_resident_map(field, s);
	if (base == MAP_FAILED)
		return seen;
	/* What is not touched takes no memory. */
	seen->bytes = (nr_pages(s->file_bytes) + 63) / 64 * sizeof(u64);
	bits = mmap(NULL, seen->bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (bits == MAP_FAILED)
		return seen;
	seen->range = mmnf_guard_range(base, nr_pages(s->file_bytes) *
						     mmnf_page_bytes());
	if (seen->range)
		seen->bits = bits;
	else
		munmap(bits, seen->bytes);
	return seen;
}

/* NULL: nothing of it was seen. */
static struct mmnf_seen_pages *seen_of(const struct mmnf_segment *s)
{
	struct mmnf_seen_pages *seen =
		__atomic_load_n(&s->mapped, __ATOMIC_ACQUIRE);

	return seen && seen->bits ? seen : NULL;
}

void mmnf_mapped_seen(struct mmnf_field *field, struct mmnf_segment *s,
		      u64 offset, u64 bytes)
{
	struct mmnf_seen_pages *seen =
		__atomic_load_n(&s->mapped, __ATOMIC_ACQUIRE);
	u64 page = mmnf_page_bytes(), i, last = (offset + bytes - 1) / page;
	struct mmnf_seen_pages *none = NULL;

	if (!seen) {
		seen = open_seen(field, s);
		if (seen && !__atomic_compare_exchange_n(
				    &s->mapped, &none, seen, false,
				    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
			struct mmnf_segment lost = { .mapped = seen };

			mmnf_mapped_close(&lost); /* another was faster */
		}
		seen = seen_of(s);
	}
	if (!seen || !seen->bits || last >= nr_pages(s->file_bytes))
		return;
	for (i = offset / page; i <= last; i++) {
		u64 bit = 1ULL << i % 64, *word = &seen->bits[i / 64];

		if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit))
			__atomic_fetch_or(word, bit, __ATOMIC_RELAXED);
	}
}

static bool all_seen(const struct mmnf_seen_pages *seen, u64 first, u64 last)
{
	u64 i, mask;

	for (i = first / 64; i <= last / 64; i++) {
		mask = i == first / 64 ? UINT64_MAX << first % 64 : UINT64_MAX;
		if (i == last / 64)
			mask &= UINT64_MAX >> (63 - last % 64);
		if (mask & ~__atomic_load_n(&seen->bits[i], __ATOMIC_RELAXED))
			return false;
	}
	return true;
}

static void forget(struct mmnf_seen_pages *seen)
{
	madvise(seen->bits, seen->bytes, MADV_DONTNEED);
}

static long major_faults(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) ? 0 : usage.ru_majflt;
}

static bool may(struct mmnf_mapped *m)
{
	if (!m->may) {
		m->may = mmnf_guard_can_copy() ? 1 : -1;
		m->major = major_faults();
		m->look_bytes = FIRST_BYTES;
	}
	return m->may > 0;
}

/* Copies that had to wait were none to make. */
static void look(struct mmnf_mapped *m, struct mmnf_seen_pages *seen)
{
	m->bytes = 0;
	m->look_bytes = LOOK_BYTES;
	if (major_faults() == m->major)
		return;
	m->may = -1;
	forget(seen);
}

static int leave(struct mmnf_mapped *m)
{
	struct mmnf_segment *s = m->s;
	char name[MMNF_KEY_MAX];
	u64 bytes;
	int err = 0;

	if (!s)
		return 0;
	if (m->bytes)
		look(m, seen_of(s));
	if (m->end && !mmnf_file_bytes(s->fd, &bytes) && bytes < m->end) {
		mmnf_segment_name(m->field, s->number, name);
		err = mmnf_error(EIO,
				 "segment %s is %" PRIu64
				 " bytes: expected %" PRIu64,
				 name, bytes, s->file_bytes);
	}
	mmnf_segment_put(m->field, s);
	m->s = NULL;
	m->end = 0;
	return err;
}

bool mmnf_mapped_copy(struct mmnf_mapped *m, u64 segment, u64 offset, u64 bytes,
		      mmnf_copy_fn *copy, void *arg)
{
	u64 page = mmnf_page_bytes();
	struct mmnf_seen_pages *seen;

	if (m->s && m->s->number != segment && !m->error)
		m->error = leave(m);
	if (m->may < 0 || m->error)
		return false;
	if (!m->s && mmnf_segment_get(m->field, segment, false, &m->s)) {
		m->s = NULL;
		return false;
	}
	seen = seen_of(m->s);
	if (!seen || !bytes || offset + bytes > m->s->file_bytes ||
	    !all_seen(seen, offset / page, (offset + bytes - 1) / page) ||
	    !may(m) || !mmnf_guard_copy(copy, arg, m->s->look + offset))
		return false;
	m->end = max_u64(m->end, offset + bytes);
	m->bytes += bytes;
	if (m->bytes >= m->look_bytes)
		look(m, seen);
	return true;
}

void mmnf_mapped_touch(const struct mmnf_mapped *m, u64 segment, u64 offset)
{
	const char *at;

	if (m->may <= 0 || !m->s || m->s->number != segment || !seen_of(m->s) ||
	    offset >= m->s->file_bytes)
		return;
	at = m->s->look + offset;
	__builtin_prefetch(at);
	__builtin_prefetch(at + 64);
	__builtin_prefetch(at + 128);
	__builtin_prefetch(at + 192);
}

int mmnf_mapped_end(struct mmnf_mapped *m)
{
	int err = leave(m);

	if (m->error)
		err = m->error;
	*m = (struct mmnf_mapped) { .field = m->field };
	return err;
}

void mmnf_mapped_drop(struct mmnf_segment *s, u64 offset, u64 bytes)
{
	struct mmnf_seen_pages *seen = seen_of(s);
	u64 page = mmnf_page_bytes(), i;

	if (!seen)
		return;
	if (bytes >= FORGET_BYTES)
		forget(seen);
	for (i = offset / page;
	     bytes < FORGET_BYTES && i < nr_pages(offset + bytes) &&
	     i < nr_pages(s->file_bytes);
	     i++)
		__atomic_fetch_and(&seen->bits[i / 64], ~(1ULL << i % 64),
				   __ATOMIC_RELAXED);
	/* Pages that are mapped would not go. */
	madvise(s->look + offset, bytes, MADV_DONTNEED);
}

void mmnf_mapped_close(struct mmnf_segment *s)
{
	struct mmnf_seen_pages *seen = s->mapped;

	if (!seen)
		return;
	if (seen->range)
		mmnf_guard_range_drop(seen->range);
	if (seen->bits)
		munmap(seen->bits, seen->bytes);
	free(seen);
	s->mapped = NULL;
}
