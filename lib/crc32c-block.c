// SPDX-License-Identifier: MIT
/*
 * A checksum of 4096 bytes: CRC32C of the CRC32C of its four quarters, which are
 * done side by side.  One sum alone waits for the instruction's latency, three
 * cycles for 8 bytes; for the cache's disk nobody asks for the standard one.
 *
 * What a disk has just written into memory is in no processor's cache, and that is
 * most of the time.  The four places of a page are too many for the processor to see
 * them coming, so the block behind is asked for: there is one as a rule, and else it
 * is no harm.
 */
#include "internal.h"

#define QUARTER 1024

#ifdef __x86_64__
static __attribute__((target("sse4.2"))) void by_processor(u32 crc, const u8 *p,
							   u32 sum[4])
{
	u64 a = crc, b = crc, c = crc, d = crc, v[4];
	u32 at;

	for (at = 0; at < QUARTER; at += 8) {
		__builtin_prefetch(p + 4 * QUARTER + 4 * at);
		memcpy(&v[0], p + at, 8);
		memcpy(&v[1], p + QUARTER + at, 8);
		memcpy(&v[2], p + 2 * QUARTER + at, 8);
		memcpy(&v[3], p + 3 * QUARTER + at, 8);
		a = __builtin_ia32_crc32di(a, v[0]);
		b = __builtin_ia32_crc32di(b, v[1]);
		c = __builtin_ia32_crc32di(c, v[2]);
		d = __builtin_ia32_crc32di(d, v[3]);
	}
	sum[0] = ~(u32)a;
	sum[1] = ~(u32)b;
	sum[2] = ~(u32)c;
	sum[3] = ~(u32)d;
}
#endif

u32 mmnf_crc32c_block(u32 crc, const void *block)
{
	const u8 *p = block;
	u32 sum[4], i;

#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2")) {
		by_processor(~crc, p, sum);
		return mmnf_crc32c(crc, sum, sizeof(sum));
	}
#endif
	for (i = 0; i < 4; i++)
		sum[i] = mmnf_crc32c(crc, p + QUARTER * i, QUARTER);
	return mmnf_crc32c(crc, sum, sizeof(sum));
}
