// SPDX-License-Identifier: MIT
/*
 * CRC32C (Castagnoli, RFC 3720): of shard indexes, by the Zarr specification,
 * and of tiles.  By the processor where it can, else by eight tables.
 */
#include "internal.h"

#define POLYNOMIAL 0x82f63b78 /* reflected */

static u32 tables[8][256];

static __attribute__((constructor)) void make_tables(void)
{
	u32 i, k;

	for (i = 0; i < 256; i++) {
		u32 crc = i;

		for (k = 0; k < 8; k++)
			crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
		tables[0][i] = crc;
	}
	for (i = 0; i < 256; i++)
		for (k = 1; k < 8; k++)
			tables[k][i] = tables[0][tables[k - 1][i] & 255] ^
				       tables[k - 1][i] >> 8;
}

static u32 by_tables(u32 crc, const u8 *p, u64 bytes)
{
	for (; bytes >= 8; bytes -= 8, p += 8) {
		u64 v;

		memcpy(&v, p, 8);
		v ^= crc;
		crc = tables[7][v & 255] ^ tables[6][v >> 8 & 255] ^
		      tables[5][v >> 16 & 255] ^ tables[4][v >> 24 & 255] ^
		      tables[3][v >> 32 & 255] ^ tables[2][v >> 40 & 255] ^
		      tables[1][v >> 48 & 255] ^ tables[0][v >> 56];
	}
	for (; bytes; bytes--)
		crc = tables[0][(crc ^ *p++) & 255] ^ crc >> 8;
	return crc;
}

#ifdef __x86_64__
static __attribute__((target("sse4.2"))) u32 by_processor(u32 crc, const u8 *p,
							  u64 bytes)
{
	u64 wide = crc;

	for (; bytes >= 8; bytes -= 8, p += 8) {
		u64 v;

		memcpy(&v, p, 8);
		wide = __builtin_ia32_crc32di(wide, v);
	}
	crc = (u32)wide;
	for (; bytes; bytes--)
		crc = __builtin_ia32_crc32qi(crc, *p++);
	return crc;
}
#endif

u32 mmnf_crc32c(u32 crc, const void *data, u64 bytes)
{
	crc = ~crc;
#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2"))
		return ~by_processor(crc, data, bytes);
#endif
	return ~by_tables(crc, data, bytes);
}
