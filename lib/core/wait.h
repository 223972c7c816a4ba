/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Waits by their length: less than 1 us, then four to an octave, as a share of an
 * octave is about what one wait differs from the next.  The last is open.
 */
#ifndef MMNF_CORE_WAIT_H
#define MMNF_CORE_WAIT_H

#include "port.h"

#define MMNF_NR_LENGTHS 128

/* Where a wait is counted. */
static inline u32 mmnf_wait_length(u64 ns)
{
	u64 us4 = div64_u64(ns, 250); /* quarters of a microsecond */
	u32 octave, length;

	if (us4 < 4)
		return 0;
	octave = 63 - (u32)__builtin_clzll(us4);
	length = (octave - 2) * 4 + (u32)(us4 >> (octave - 2) & 3) + 1;
	return length < MMNF_NR_LENGTHS ? length : MMNF_NR_LENGTHS - 1;
}

/* What is counted there is shorter than this. */
static inline u64 mmnf_wait_most_ns(u32 length)
{
	if (!length)
		return 1000;
	return ((u64)(5 + (length - 1) % 4) << (length - 1) / 4) * 250;
}

#endif
