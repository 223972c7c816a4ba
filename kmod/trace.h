/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints: every access, every plan, every read started, every page dropped.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM mmnf

#if !defined(MMNF_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define MMNF_TRACE_H

#include <linux/tracepoint.h>

#include "core/predict.h"

TRACE_DEFINE_ENUM(MMNF_HIT);
TRACE_DEFINE_ENUM(MMNF_LATE);
TRACE_DEFINE_ENUM(MMNF_MISS);

/* clang-format off */

TRACE_EVENT(mmnf_fault,
	TP_PROTO(u64 field, const struct mmnf_access *access),
	TP_ARGS(field, access),
	TP_STRUCT__entry(
		__field(u64, field)
		__field(u64, thread)
		__field(u64, ip)
		__field(u64, offset_bytes)
		__field(u32, outcome)
	),
	TP_fast_assign(
		__entry->field = field;
		__entry->thread = access->thread;
		__entry->ip = access->ip;
		__entry->offset_bytes = access->pos;
		__entry->outcome = access->outcome;
	),
	TP_printk("field=%llu thread=%llu ip=0x%llx offset_bytes=%llu %s",
		  __entry->field, __entry->thread, __entry->ip,
		  __entry->offset_bytes,
		  __print_symbolic(__entry->outcome, { MMNF_HIT, "hit" },
				   { MMNF_LATE, "late" },
				   { MMNF_MISS, "miss" }))
);

TRACE_EVENT(mmnf_plan,
	TP_PROTO(u64 field, const struct mmnf_plan *plan, bool queued),
	TP_ARGS(field, plan, queued),
	TP_STRUCT__entry(
		__field(u64, field)
		__field(u64, start_bytes)
		__field(s64, stride_bytes)
		__field(u64, nr)
		__field(u64, span_bytes)
		__field(bool, queued)
	),
	TP_fast_assign(
		__entry->field = field;
		__entry->start_bytes = plan->start;
		__entry->stride_bytes = plan->level[0].stride;
		__entry->nr = mmnf_plan_nr(plan);
		__entry->span_bytes = plan->span;
		__entry->queued = queued;
	),
	TP_printk("field=%llu start_bytes=%llu stride_bytes=%lld nr=%llu span_bytes=%llu %s",
		  __entry->field, __entry->start_bytes, __entry->stride_bytes,
		  __entry->nr, __entry->span_bytes,
		  __entry->queued ? "queued" : "dropped")
);

TRACE_EVENT(mmnf_prefetch,
	TP_PROTO(u64 field, u64 first_page, u64 nr_pages, bool predicted),
	TP_ARGS(field, first_page, nr_pages, predicted),
	TP_STRUCT__entry(
		__field(u64, field)
		__field(u64, first_page)
		__field(u64, nr_pages)
		__field(bool, predicted)
	),
	TP_fast_assign(
		__entry->field = field;
		__entry->first_page = first_page;
		__entry->nr_pages = nr_pages;
		__entry->predicted = predicted;
	),
	TP_printk("field=%llu first_page=%llu nr_pages=%llu %s",
		  __entry->field, __entry->first_page, __entry->nr_pages,
		  __entry->predicted ? "predicted" : "asked")
);

TRACE_EVENT(mmnf_evict,
	TP_PROTO(u64 field, u64 first_page, u64 nr_pages, u64 nr_evicted,
		 u64 nr_stayed),
	TP_ARGS(field, first_page, nr_pages, nr_evicted, nr_stayed),
	TP_STRUCT__entry(
		__field(u64, field)
		__field(u64, first_page)
		__field(u64, nr_pages)
		__field(u64, nr_evicted)
		__field(u64, nr_stayed)
	),
	TP_fast_assign(
		__entry->field = field;
		__entry->first_page = first_page;
		__entry->nr_pages = nr_pages;
		__entry->nr_evicted = nr_evicted;
		__entry->nr_stayed = nr_stayed;
	),
	TP_printk("field=%llu first_page=%llu nr_pages=%llu nr_evicted=%llu nr_stayed=%llu",
		  __entry->field, __entry->first_page, __entry->nr_pages,
		  __entry->nr_evicted, __entry->nr_stayed)
);

/* clang-format on */

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
