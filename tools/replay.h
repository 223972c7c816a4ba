/* SPDX-License-Identifier: MIT */
/*
 * Replays a trace through a predictor, in virtual time: no clock is read, and the
 * same trace and model give the same numbers.
 *
 *	access --mapped--> goes on
 *	   '- fault: map_pages --mapped--> predictor told, goes on
 *	        '- predictor told, reads what it wants -> demand read -> wait
 *
 * The consumer.  Each thread of the trace computes for the access's gap, then
 * touches.  A page that is not mapped faults: first the resident pages around it
 * are mapped, as the kernel's do_fault_around() does in aligned groups of
 * around_pages; if the touched one is not among them the thread waits for its read.
 * A page costs cpu_ns to be allocated, inserted and asked for: of the thread, where
 * the fault reads, or of the worker.  What a thread spends so, and waiting for a
 * read, is the stall time; fault_ns is not.
 *
 * The device.  depth requests are served at a time, in the order in which they came,
 * each for latency_ns; then their pages cross one link, page_ns each.  A request
 * is up to request_pages neighbouring pages, and all of them are there when it
 * ends.  A demand has no priority.
 *
 * The page cache.  memory_pages, the least recently touched goes first; what is
 * being read stays.  Folios are of one page.
 */
#ifndef MMNF_TOOL_REPLAY_H
#define MMNF_TOOL_REPLAY_H

#include <core/predict.h>

#include "trace.h"

#define NO_PAGE UINT64_MAX

/**
 * struct model - the machine
 * @latency_ns: of a request, without its transfer
 * @depth: requests served at a time, at least 1
 * @page_ns: transfer of one page
 * @request_pages: most pages in one request, at least 1
 * @fault_ns: processor time of a fault
 * @cpu_ns: processor time of starting the read of one page; a buffered read takes
 *	about twice the default for it
 * @wake_ns: from a plan to its first read, where a worker reads; mmnf alone has one
 * @around_pages: the kernel's fault_around_bytes in pages, a power of two; 1: off
 * @memory_pages: size of the page cache
 * @readahead_pages: the kernel's read_ahead_kb in pages; mainline alone
 */
struct model {
	uint64_t latency_ns, depth, page_ns, request_pages;
	uint64_t fault_ns, cpu_ns, wake_ns, around_pages, memory_pages;
	uint64_t readahead_pages;
};

extern const struct model model_default;

/**
 * struct touch - a fault, as a predictor sees it
 * @access: who and where
 * @page: of the access
 * @now_ns: when
 * @outcome: what was found
 * @around: map_pages has mapped the page; ->fault of the host was not called
 * @marker: the page had PG_readahead, which is cleared by this touch
 * @first, @nr: the pages that map_pages looked at
 */
struct touch {
	const struct trace_access *access;
	uint64_t page, now_ns;
	enum mmnf_outcome outcome;
	bool around, marker;
	uint64_t first, nr;
};

struct replay;

/**
 * struct predictor_ops - one predictor
 * @name: as in the table
 * @touched_alone: pages read ahead are not mapped around until they are touched,
 *	so that the predictor sees each
 * @create: NULL if out of memory
 * @fault: a fault; may read; a missed page that is still absent afterwards is read
 * @mapped: map_pages looked at the touch's pages and found @found of them there;
 *	also after a wait.  Optional.
 * @resumed: the wait is over, and map_pages has looked again.  Optional.
 * @alone: map the touched page without its neighbours.  Optional.
 * @run: called before each access: what a worker had to do by now.  Optional.
 */
struct predictor_ops {
	const char *name;
	bool touched_alone;
	void *(*create)(const struct replay *replay);
	void (*destroy)(void *state);
	void (*fault)(void *state, struct replay *replay,
		      const struct touch *touch);
	void (*mapped)(void *state, const struct touch *touch, uint64_t found);
	void (*resumed)(void *state, const struct touch *touch,
			uint64_t now_ns);
	bool (*alone)(void *state);
	void (*run)(void *state, struct replay *replay, uint64_t now_ns);
};

extern const struct predictor_ops predict_none, predict_mainline,
	predict_lustre, predict_leap, predict_ipstride, predict_mmnf,
	predict_oracle;

/**
 * struct replay_result - what came out
 * @accesses: of the trace
 * @faults: = hits + late + misses
 * @needed_pages: pages touched for the first time since they were read
 * @demand_pages: of these: read because they were touched
 * @used_pages: of these: read ahead; needed = demand + used
 * @ahead_pages: pages read ahead = used + wasted
 * @stall_ns: starting reads and waiting for them, all threads
 * @total_ns: until the last thread ended
 */
struct replay_result {
	uint64_t accesses, faults, hits, late, misses;
	uint64_t needed_pages, demand_pages, used_pages;
	uint64_t ahead_pages, wasted_pages;
	uint64_t stall_ns, total_ns;
};

/**
 * replay_run() - the whole trace
 * @timeline: NULL, or where each fault and each read is told, a line each:
 *	PREDICTOR TIME_NS hit|late|miss PAGE THREAD IP, and
 *	PREDICTOR TIME_NS read|demand PAGE PAGES READY_NS
 * Return: false if out of memory.
 */
bool replay_run(const struct predictor_ops *ops, const struct trace *trace,
		const struct model *model, FILE *timeline,
		struct replay_result *result);

/* ---- what a predictor may ask and do */

const struct trace *replay_trace(const struct replay *replay);
const struct model *replay_model(const struct replay *replay);
/* Accesses that were begun, and pages read ahead that are not touched yet. */
uint64_t replay_accesses(const struct replay *replay);
uint64_t replay_pending(const struct replay *replay);

/* Pages of the file. */
uint64_t replay_pages(const struct replay *replay);

/* Is the page in the cache, read or being read? */
bool replay_present(const struct replay *replay, uint64_t page);

/**
 * replay_read() - start reading what is absent of [first, first + nr)
 * @at_ns: when; if its reader is still busy, then after that.  The reader is the
 *	thread in ->fault, and a worker in ->run
 * @marker: gets PG_readahead if its read is started by this; or NO_PAGE
 *
 * What lies beyond the file is left out.  Pages that are there split the read.
 */
void replay_read(struct replay *replay, uint64_t at_ns, uint64_t first,
		 uint64_t nr, uint64_t marker);

#endif
