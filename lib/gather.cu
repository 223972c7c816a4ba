// SPDX-License-Identifier: MIT
/*
 * The kernels of the GPU tier: tiles and records from one place of device memory
 * to another.
 *
 *	  memory of the tier                       caller's memory
 *	+------+------+------+------+            +-----+-----+-----+
 *	| slot |  r2  | slot |r0 r1 |  -gather-> | r0  | r1  | r2  |
 *	+------+------+------+------+            +-----+-----+-----+
 *	    ^-------------^--- scatter -- tiles as they came, one after another
 *
 * Every loop strides by the whole grid, so any grid is right.  No thread knows
 * of another: no barrier, shuffle, atomic or shared memory, so that the same
 * source is also right as plain C++, one thread at a time in any order; that is
 * how tests/fakecuda runs it.  Names are extern "C" for cuda-dl.c.
 */
#include <stdint.h>

/* Lanes that share a piece: neighbours read neighbouring words.  A grid is a
 * multiple of it. */
#define LANES 32

struct mmnf_piece {
	uint64_t from, to, bytes; /* from: in the tier; to: in the result */
};

/*
 * Row r of the result is the `row` words from word from[r] of base on.  2^shift
 * lanes share a row: a division for each word would cost more than the word.
 */
template <typename word>
static __device__ void gather_rows(const word *base, const uint32_t *from,
				   word *to, uint64_t nr, uint32_t row,
				   uint32_t shift)
{
	uint64_t thread = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
	uint64_t step = (uint64_t)gridDim.x * blockDim.x >> shift;
	uint32_t lanes = 1u << shift, lane = (uint32_t)thread & (lanes - 1);

	for (uint64_t r = thread >> shift; r < nr; r += step) {
		const word *f = base + from[r];
		word *t = to + r * row;

		for (uint32_t k = lane; k < row; k += lanes)
			t[k] = f[k];
	}
}

#define GATHER_ROWS(bytes, word)                                         \
	extern "C" __global__ void mmnf_gather_rows_##bytes(             \
		const word *base, const uint32_t *from, word *to,        \
		uint64_t nr, uint32_t row, uint32_t shift)               \
	{                                                                \
		gather_rows(base, from, to, nr, row, shift);             \
	}

GATHER_ROWS(16, uint4)
GATHER_ROWS(4, uint32_t)
GATHER_ROWS(1, uint8_t)

template <typename word>
static __device__ void copy_lane(const uint8_t *from, uint8_t *to,
				 uint64_t bytes, uint32_t lane)
{
	const word *f = (const word *)from;
	word *t = (word *)to;

	for (uint64_t k = lane; k < bytes / sizeof(word); k += LANES)
		t[k] = f[k];
}

extern "C" __global__ void mmnf_gather_pieces(const uint8_t *base,
					      const mmnf_piece *piece,
					      uint8_t *to, uint64_t nr)
{
	uint64_t thread = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
	uint64_t step = (uint64_t)gridDim.x * blockDim.x / LANES;
	uint32_t lane = (uint32_t)(thread % LANES);

	for (uint64_t i = thread / LANES; i < nr; i += step) {
		const uint8_t *f = base + piece[i].from;
		uint8_t *t = to + piece[i].to;
		uint64_t bytes = piece[i].bytes;
		uint64_t bits = (uint64_t)f | (uint64_t)t | bytes;

		if (!(bits & 15))
			copy_lane<uint4>(f, t, bytes, lane);
		else if (!(bits & 3))
			copy_lane<uint32_t>(f, t, bytes, lane);
		else
			copy_lane<uint8_t>(f, t, bytes, lane);
	}
}

/* Tile i of staging goes to slot slot[i]; a tile is 2^shift words of 16 bytes. */
extern "C" __global__ void mmnf_scatter_tiles(uint4 *base, const uint32_t *slot,
					      const uint4 *staging, uint64_t nr,
					      uint32_t shift)
{
	uint64_t step = (uint64_t)gridDim.x * blockDim.x;
	uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
	uint64_t mask = ((uint64_t)1 << shift) - 1;

	for (; i < nr << shift; i += step)
		base[((uint64_t)slot[i >> shift] << shift) + (i & mask)] =
			staging[i];
}
