// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Time: how long the storage takes for a read, and the consumer for a step.
 *
 * Never allocates, sleeps, reads a clock or does I/O; loops are bounded by
 * MMNF_NR_STREAMS.  What is not told, or is 0, is unknown and teaches nothing.
 */
#include "stream.h"

/* A stop of the consumer is not its pace. */
#define MAX_PACE_NS 1000000000ULL

/* Of times: one that was interrupted, or waited for a CPU, is soon forgotten. */
static u64 smoothed(u64 mean, u64 sample)
{
	if (!mean)
		return sample;
	return mean - mean / 4 + min_of(sample, 2 * mean + 8) / 4;
}

void mmnf_stream_time(struct mmnf_stream *s, const struct mmnf_access *access,
		      u64 steps)
{
	u64 pace;

	if (access->now_ns && s->ready_ns && access->now_ns > s->ready_ns &&
	    access->now_ns - s->ready_ns < MAX_PACE_NS) {
		pace = access->now_ns - s->ready_ns;
		if (steps > 1)
			pace = div64_u64(pace, steps);
		s->pace_ns = smoothed(s->pace_ns, max_of(pace, 1));
	}
	s->touched_ns = access->now_ns;
	s->ready_ns = access->outcome == MMNF_HIT ? access->now_ns : 0;
	s->missed = access->outcome == MMNF_MISS;
}

/* Inside the data or outside. */
static bool is_of(const struct mmnf_stream *s, u64 thread)
{
	return (s->thread & ~MMNF_OUTSIDE) == thread;
}

/* That of a thread's last touch; others may have touched since. */
static struct mmnf_stream *stream_latest(struct mmnf_table *table, u64 thread)
{
	struct mmnf_stream *latest = &table->stream[table->recent], *s;
	u32 i;

	if (latest->seen && is_of(latest, thread))
		return latest;
	latest = NULL;
	for (i = 0; i < table->nr_streams; i++) {
		s = &table->stream[i];
		if (s->seen && is_of(s, thread) && s->ip &&
		    (!latest || s->seen > latest->seen))
			latest = s;
	}
	return latest;
}

static void resume_pass(struct mmnf_table *table, struct mmnf_stream *s,
			u32 before, u32 after)
{
	struct mmnf_data data;

	if (s->thread & MMNF_OUTSIDE) {
		mmnf_table_go_outside(table, &data);
		mmnf_stream_pass(table, s, before, after);
		mmnf_table_come_back(table, &data);
	} else {
		mmnf_stream_pass(table, s, before, after);
	}
}

void mmnf_resume(struct mmnf_table *table, u64 thread, u64 now_ns, u32 before,
		 u32 after)
{
	struct mmnf_stream *recent = stream_latest(table, thread), *s;
	u64 touched_ns;
	u32 i;

	if (!recent)
		return;
	touched_ns = recent->touched_ns;
	if (!recent->passed && recent->at.ahead)
		resume_pass(table, recent, before, after);
	/* Around what was absent, only what was planned can have come. */
	recent->at.before = 0;
	recent->at.after = 0;
	if (recent->ready_ns || !touched_ns || now_ns <= touched_ns)
		return;
	if (recent->missed)
		table->latency_ns =
			smoothed(table->latency_ns, now_ns - touched_ns);
	recent->ready_ns = now_ns;
	for (i = 0; i < table->nr_streams; i++) {
		s = &table->stream[i];
		if (!s->seen || !is_of(s, thread) || s == recent)
			continue;
		/* The touch may be that of two streams: see observe_thread(). */
		if (s->touched_ns == touched_ns)
			s->ready_ns = now_ns;
		/* A wait for another walk's read is not this one's pace. */
		else if (s->ready_ns && s->ready_ns <= touched_ns)
			s->ready_ns += now_ns - touched_ns;
	}
}
