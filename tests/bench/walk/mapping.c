// SPDX-License-Identifier: MIT
/*
 * The loop over a mapping: loads only, and the advice of the oracle.
 */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine.h"

static void ask(const struct part *p, size_t read)
{
	const struct read *r = &p->reads.read[read];

	if (madvise((void *)(p->map + r->page * PAGE), r->nr_pages * PAGE,
		    MADV_WILLNEED))
		err(1, "MADV_WILLNEED");
}

/*
 * With one command for many: when queue_depth reads are no longer asked for, half as
 * many more.  A walk that waits for each read has queue_depth in flight, too: they are
 * counted from @i, the first touch to wait, as the command is given before the others.
 */
static size_t tell_ahead(const struct part *p, size_t i, size_t last,
			 size_t asked)
{
	size_t end = p->reads.of_touch[i - p->begin].read + p->queue_depth;
	size_t least = p->reads.of_touch[last - p->begin].read + 1;
	struct mmnf_range range[2 * ORACLE_AHEAD];
	struct mmnf_ioc_prefetch prefetch = {
		.size = sizeof(prefetch),
		.select = { .items = (uintptr_t)range },
	};

	if (asked == p->reads.nr || asked >= end)
		return asked;
	end += (p->queue_depth + 1) / 2 - 1;
	if (end < least)
		end = least;
	for (; asked < p->reads.nr && asked < end; asked++) {
		const struct read *r = &p->reads.read[asked];

		range[prefetch.select.nr_items++] =
			(struct mmnf_range) { r->page * PAGE,
					      r->nr_pages * PAGE };
	}
	if (ioctl(p->device, MMNF_IOC_PREFETCH, &prefetch))
		err(1, "prefetch");
	return asked;
}

/*
 * Before touches @i .. @last: keep queue_depth reads asked for beyond those of the
 * touches, as far as they are known; what is not is read by its touch.
 */
static size_t ask_ahead(const struct part *p, size_t i, size_t last,
			size_t asked)
{
	size_t read = p->reads.of_touch[last - p->begin].read;

	if (p->told)
		return tell_ahead(p, i, last, asked);
	for (; asked < p->reads.nr && asked < read + p->queue_depth; asked++) {
		if (!p->causal || p->reads.read[asked].told_by < i)
			ask(p, asked);
		else if (asked > read)
			break;
	}
	return asked;
}

static void note_warm(struct part *p)
{
	p->sample->warm.size = sizeof(p->sample->warm);
	if (ioctl(p->device, MMNF_IOC_GET_STATS, &p->sample->warm))
		err(1, "stats");
}

#define LOAD(i)                                                                \
	do {                                                                   \
		uint32_t v_;                                                   \
		const char *p_ = p->map + pos[i];                              \
		/* Each use is an instruction of its own. */                   \
		asm volatile("movl (%1), %0" : "=r"(v_) : "r"(p_) : "memory"); \
		wrong += v_ != value_at(pos[i]);                               \
	} while (0)

/* As a compiler writes a[i] + b[i] + c[i] + d[i]: four loads in the loop. */
static uint64_t walk_sites(struct part *p)
{
	const uint64_t *pos = p->walk->pos;
	uint64_t *at = p->sample->at_ns, wrong = 0;
	size_t i, asked = 0;

	for (i = p->begin; i + 4 <= p->end; i += 4) {
		if (p->oracle)
			asked = ask_ahead(p, i, i + 3, asked);
		if (i - p->begin == WARM_UP && p->device >= 0)
			note_warm(p);
		LOAD(i);
		at[i] = now_ns();
		LOAD(i + 1);
		at[i + 1] = now_ns();
		LOAD(i + 2);
		at[i + 2] = now_ns();
		LOAD(i + 3);
		at[i + 3] = now_ns();
	}
	return wrong;
}

static uint64_t walk_one_site(struct part *p)
{
	const uint64_t *pos = p->walk->pos;
	uint64_t *at = p->sample->at_ns, wrong = 0;
	size_t i, asked = 0;

	for (i = p->begin; i < p->end; i++) {
		if (p->oracle)
			asked = ask_ahead(p, i, i, asked);
		if (i - p->begin == WARM_UP && p->device >= 0)
			note_warm(p);
		LOAD(i);
		at[i] = now_ns();
	}
	return wrong;
}

static long waits_so_far(void)
{
	struct rusage r;

	/* A fault that waited for a read of somebody else counts as major, too. */
	getrusage(RUSAGE_THREAD, &r);
	return r.ru_majflt;
}

/* How long the thread was ready to run and had no CPU. */
static uint64_t unserved_ns(int schedstat)
{
	unsigned long long ran, waited;
	char text[64];
	ssize_t got = pread(schedstat, text, sizeof(text) - 1, 0);

	if (got <= 0)
		err(1, "schedstat");
	text[got] = 0;
	if (sscanf(text, "%llu %llu", &ran, &waited) != 2)
		errx(1, "schedstat: %s: expected two times", text);
	return waited;
}

/*
 * The worker may have the only CPU for longer than a touch's read takes, to start the
 * reads of what follows, which is to be done by somebody: a thread that is ready to
 * run for longer than a read takes does not wait for one.  The first touch tells how
 * long that is: nothing is asked for before it.  But by the oracle, which has no worker.
 */
static uint64_t no_stall_ns(const struct part *p, size_t i, uint64_t unserved)
{
	const uint64_t *stall = p->sample->stall_ns;
	uint64_t read = stall[p->begin];

	if (p->oracle)
		return 0;
	if (unserved > stall[i])
		unserved = stall[i];
	return unserved > read ? unserved - read : 0;
}

static uint64_t walk_watched(struct part *p)
{
	int schedstat =
		open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	const uint64_t *pos = p->walk->pos;
	uint64_t wrong = 0, from, unserved = 0, none;
	long waits = waits_so_far(), waited;
	size_t i, asked = 0, nr_left;

	if (schedstat < 0)
		err(1, "/proc/thread-self/schedstat");
	for (i = p->begin; i < p->end; i++) {
		if (p->oracle)
			asked = ask_ahead(p, i, i, asked);
		if (p->walk->carry[i]) {
			nr_left = p->reads.nr_pages -
				  p->reads.of_touch[i - p->begin].slot;
			p->sample->full[i] = disk_is_full(&p->disk, nr_left);
			unserved = unserved_ns(schedstat);
		}
		from = now_ns();
		LOAD(i);
		p->sample->at_ns[i] = now_ns();
		waited = waits_so_far();
		p->sample->stall_ns[i] =
			waited == waits ? 0 : p->sample->at_ns[i] - from;
		waits = waited;
		/* By a read of no time, all would be forgiven. */
		if (i == p->begin && !p->oracle && !p->sample->stall_ns[i])
			errx(1,
			     "the first touch: no major fault: expected data that is not resident");
		if (p->walk->carry[i] && p->sample->stall_ns[i]) {
			unserved = unserved_ns(schedstat) - unserved;
			none = no_stall_ns(p, i, unserved);
			p->sample->stall_ns[i] -= none;
			p->sample->unserved_ns += none;
		}
	}
	close(schedstat);
	return wrong;
}

/* No stamps: each touch of resident data costs less than one. */
static uint64_t walk_hot(struct part *p)
{
	const uint64_t *pos = p->walk->pos;
	uint64_t wrong = 0;
	size_t i;

	for (i = p->begin; i < p->end; i++)
		LOAD(i);
	return wrong;
}

void mapping_walk(struct part *p)
{
	p->sample->began_ns = now_ns();
	if (!p->sample->at_ns)
		p->sample->wrong = walk_hot(p);
	else if (p->watched)
		p->sample->wrong = walk_watched(p);
	else if (p->walk->c->nr_sites == 4)
		p->sample->wrong = walk_sites(p);
	else
		p->sample->wrong = walk_one_site(p);
	p->sample->ended_ns = now_ns();
}
