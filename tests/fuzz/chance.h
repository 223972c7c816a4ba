/* SPDX-License-Identifier: MIT */
/* Numbers of chance, more often near the edges than chance would have it. */
#ifndef MMNF_FUZZ_CHANCE_H
#define MMNF_FUZZ_CHANCE_H

#include "kselftest/util.h"

static u64 seed;
static char *guarded; /* two pages, and one that is not there */

#define SPARSE_BYTES (64ULL << 30)
#define FILE_BYTES (2 * MIB)

static u64 rnd(u64 below)
{
	return below ? (rng_next(&seed) >> 11) % below : 0;
}

static bool one_in(u64 n)
{
	return !rnd(n);
}

static u64 odd_number(void)
{
	static const u64 edges[] = {
		0,
		1,
		2,
		7,
		8,
		4095,
		4096,
		4097,
		MIB,
		FILE_BYTES,
		SPARSE_BYTES,
		1ULL << 31,
		(1ULL << 32) - 1,
		1ULL << 32,
		(1ULL << 63) - 1,
		1ULL << 63,
		~0ULL,
		~0ULL - 4095,
	};

	switch (rnd(4)) {
	case 0:
		return edges[rnd(sizeof(edges) / sizeof(*edges))];
	case 1:
		return rnd(64);
	case 2:
		return -rnd(64);
	default:
		return rng_next(&seed) >> rnd(64);
	}
}

/* One time in three, one word of a struct becomes something else. */
static void spoil(void *what, size_t size)
{
	u64 value;

	while (one_in(3)) {
		value = odd_number();
		if (one_in(2))
			memcpy((char *)what + rnd(size / 8) * 8, &value, 8);
		else
			memcpy((char *)what + rnd(size / 4) * 4, &value, 4);
	}
}

/* Where the kernel is told to find a struct: nearly always there, whole. */
static void *place(const void *what, size_t size)
{
	char *at = guarded + 2 * PAGE - size;

	if (one_in(2))
		at = guarded + rnd(64) * 8;
	memcpy(at, what, size);
	if (one_in(64))
		at = guarded + 2 * PAGE - rnd(size);
	else if (one_in(64))
		at = (char *)odd_number();
	return at;
}

#endif
