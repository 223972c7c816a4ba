/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What the core needs from outside, for both sides: fixed-width integers,
 * 64-bit division, single loads and stores, and memset.  The only place that asks
 * which side it is on.
 */
#ifndef MMNF_CORE_PORT_H
#define MMNF_CORE_PORT_H

#ifdef __KERNEL__
#include <linux/compiler.h>
#include <linux/limits.h>
#include <linux/math64.h>
#include <linux/string.h>
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;

#define U64_MAX UINT64_MAX
#define S64_MAX INT64_MAX
#define U32_MAX UINT32_MAX

#define READ_ONCE(x) __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)

static inline u64 div64_u64(u64 dividend, u64 divisor)
{
	return dividend / divisor;
}
#endif

#endif
