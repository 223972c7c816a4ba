// SPDX-License-Identifier: MIT
/*
 * Counters where others can see them: publish.h says how.
 *
 * No thread, no file system, nothing per access: the counters lie in the shared
 * page from the start.  Where there is no memfd, or with MMNF_STATS=0 in the
 * environment, they lie in memory of our own and nobody sees them.
 *
 * A child after fork() counts on in the same page: a field is one, however many
 * processes use the handle.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "cache-pins.h"
#include "cache.h"
#include "publish.h"
#include "tier.h"

/* Of linux/memfd.h and linux/fcntl.h; older C libraries lack some. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)

static int make_file(void)
{
	const char *wanted = getenv("MMNF_STATS");
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	struct rlimit longest;
	int fd;

	if (wanted && !strcmp(wanted, "0"))
		return -1;
	/* Above it ftruncate() would end the process by SIGXFSZ. */
	if (getrlimit(RLIMIT_FSIZE, &longest) ||
	    longest.rlim_cur < sizeof(struct mmnf_published))
		return -1;
	fd = memfd_create(MMNF_PUBLISH_NAME, flags | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create(MMNF_PUBLISH_NAME, flags);
	if (fd >= 0 && ftruncate(fd, sizeof(struct mmnf_published))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

int mmnf_publish_open(struct mmnf_field *field)
{
	size_t bytes = sizeof(struct mmnf_published);
	struct mmnf_published *p = MAP_FAILED;
	int fd = make_file();

	if (fd >= 0)
		p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			 0);
	/* Who could write to it, or cut it, could hurt: then it is not shown. */
	if (fd >= 0 && (p == MAP_FAILED || fcntl(fd, F_ADD_SEALS, SEALS))) {
		if (p != MAP_FAILED)
			munmap(p, bytes);
		p = MAP_FAILED;
		close(fd);
		fd = -1;
	}
	if (p == MAP_FAILED)
		p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	field->published = p;
	field->published_fd = fd;
	return 0;
}

/* All that does not change; the last of it makes the page valid. */
void mmnf_publish_field(struct mmnf_field *field, const char *path)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_published *p = field->published;
	struct timespec now;
	char whole[PATH_MAX], *memory;

	clock_gettime(CLOCK_REALTIME, &now);
	p->magic = MMNF_PUBLISH_MAGIC;
	p->bytes = sizeof(*p);
	p->opened_ns = (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
	p->engine = field->engine;
	p->dtype = g->dtype;
	p->ndim = g->ndim;
	p->writable = field->writable;
	memcpy(p->shape, g->shape, sizeof(p->shape));
	p->total_bytes = g->total_bytes;
	p->page_bytes = mmnf_page_bytes();
	mmnf_cache_memory(field->cache, &memory, &p->l2_bytes);
	if (field->cache)
		mmnf_cache_show(field->cache, &p->l2_used_bytes);
	snprintf(p->format, sizeof(p->format), "%s", field->store.format);
	snprintf(p->engine_reason, sizeof(p->engine_reason), "%s",
		 field->engine_reason);
	snprintf(p->path, sizeof(p->path), "%.511s",
		 realpath(path, whole) ? whole : path);
	__atomic_store_n(&p->ready, 1, __ATOMIC_RELEASE);
}

struct mmnf_gpu_stats *mmnf_publish_gpu(struct mmnf_field *field, u32 device,
					const char *name)
{
	struct mmnf_published_gpu *gpu = field->published->gpu;
	u32 i;

	for (i = 0; i < MMNF_PUBLISH_GPUS; i++) {
		if (gpu[i].on)
			continue;
		gpu[i].device = device;
		snprintf(gpu[i].name, sizeof(gpu[i].name), "%s", name);
		__atomic_store_n(&gpu[i].on, 1, __ATOMIC_RELEASE);
		return &gpu[i].stats;
	}
	return NULL;
}

void mmnf_publish_close(struct mmnf_field *field)
{
	if (field->published)
		munmap(field->published, sizeof(*field->published));
	if (field->published_fd >= 0)
		close(field->published_fd);
}

struct mmnf_field_stats *mmnf_stats(const struct mmnf_field *field)
{
	u32 part = mmnf_thread_number() % MMNF_PUBLISH_PARTS;

	return &field->published->part[part].stats;
}

void mmnf_stats_get(const struct mmnf_field *field, u64 bytes)
{
	struct mmnf_field_stats *stats = mmnf_stats(field);

	mmnf_count(&stats->gets, 1);
	mmnf_count(&stats->get_bytes, bytes);
}

struct mmnf_field_stats mmnf_stats_sum(const struct mmnf_field *field)
{
	return mmnf_published_sum(field->published);
}

u64 mmnf_publish_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

void mmnf_publish_wait(struct mmnf_field *field, u64 ns)
{
	mmnf_count(&field->published->waits[mmnf_wait_length(ns)], 1);
}

void mmnf_publish_stream(struct mmnf_field *field,
			 const struct mmnf_walker *walker)
{
	const struct mmnf_table *table = &walker->table;
	const struct mmnf_stream *s = &table->stream[table->recent];
	u32 i = walker->number * (MMNF_PUBLISH_STREAMS / MMNF_WALKERS), seq;
	struct mmnf_level level[MMNF_NR_LEVELS];
	struct mmnf_published_stream *to;

	if (table->recent >= MMNF_PUBLISH_STREAMS || field->published_fd < 0)
		return;
	to = &field->published
		      ->stream[(i + table->recent) % MMNF_PUBLISH_STREAMS];
	seq = __atomic_load_n(&to->seq, __ATOMIC_RELAXED);
	/*
	 * Where another walker's stream is being written, that is shown.  Acquire:
	 * nothing below is seen before the number is odd.
	 */
	if (seq & 1 ||
	    !__atomic_compare_exchange_n(&to->seq, &seq, seq + 1, false,
					 __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		return;
	to->thread = s->thread;
	to->ip = s->ip;
	to->pos_bytes = s->at.last;
	to->depth = s->depth;
	to->ahead = s->at.ahead;
	to->dense = s->dense;
	to->nr_levels = mmnf_nest_levels(&s->at.nest, level);
	for (i = 0; i < to->nr_levels; i++) {
		to->level[i].stride_bytes = level[i].stride;
		to->level[i].nr = level[i].nr;
	}
	__atomic_fetch_add(&to->seq, 1, __ATOMIC_RELEASE);
}
