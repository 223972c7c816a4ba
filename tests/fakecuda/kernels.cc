// SPDX-License-Identifier: MIT
/*
 * lib/gather.cu for the CPU: the very source that nvcc compiles, one thread at a
 * time, in a permuted order.
 *
 * That is right for kernels whose threads do not know of each other.  It says
 * nothing of the machine code, the memory model, warps or speed of a GPU.
 */
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>

#include "fake.h"

#define __global__
#define __device__

struct dim3 {
	unsigned x, y, z;
};

struct alignas(16) uint4 {
	unsigned x, y, z, w;
};

static thread_local dim3 blockIdx, threadIdx, blockDim, gridDim;

#include "../../lib/gather.cu"

namespace
{

using body = std::function<void()>;

/* Arguments are copied when launched, as the driver does. */
template <class... A, size_t... I>
body with_args(void (*kernel)(A...), void **args, std::index_sequence<I...>)
{
	std::tuple<A...> copy(*static_cast<A *>(args[I])...);

	return [=] { std::apply(kernel, copy); };
}

template <class... A> body with_args(void (*kernel)(A...), void **args)
{
	return with_args(kernel, args, std::index_sequence_for<A...> {});
}

struct entry {
	const char *name;
	std::vector<size_t> arg_bytes;
	body (*make)(void **);
};

template <class... A> std::vector<size_t> sizes(void (*)(A...))
{
	return { sizeof(A)... };
}

#define KERNEL(f)                                                            \
	{                                                                    \
#f, sizes(f), [](void **args) { return with_args(f, args); } \
	}

const entry table[] = {
	KERNEL(mmnf_gather_rows_16), KERNEL(mmnf_gather_rows_4),
	KERNEL(mmnf_gather_rows_1),  KERNEL(mmnf_gather_pieces),
	KERNEL(mmnf_scatter_tiles),
};

uint64_t gcd(uint64_t a, uint64_t b)
{
	return b ? gcd(b, a % b) : a;
}

void run_grid(const body &thread, dim3 grid, dim3 block, unsigned seed)
{
	uint64_t per_block = (uint64_t)block.x * block.y * block.z;
	uint64_t nr = per_block * grid.x * grid.y * grid.z;
	uint64_t step = (seed * 2654435761ull) % nr | 1, at = seed % nr, i;

	while (gcd(step, nr) != 1)
		step += 2;
	gridDim = grid;
	blockDim = block;
	for (i = 0; i < nr; i++, at = (at + step) % nr) {
		unsigned b = (unsigned)(at / per_block);
		unsigned t = (unsigned)(at % per_block);

		blockIdx = { b % grid.x, b / grid.x % grid.y,
			     b / grid.x / grid.y };
		threadIdx = { t % block.x, t / block.x % block.y,
			      t / block.x / block.y };
		thread();
	}
}

} // namespace

int fake_kernel_find(const char *name)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++)
		if (!strcmp(table[i].name, name))
			return (int)i;
	return -1;
}

unsigned fake_kernel_args(int kernel)
{
	return (unsigned)table[kernel].arg_bytes.size();
}

size_t fake_kernel_arg_bytes(int kernel, unsigned i)
{
	return table[kernel].arg_bytes[i];
}

fake_work fake_kernel_bind(int kernel, void **args, const unsigned grid[3],
			   const unsigned block[3])
{
	dim3 g = { grid[0], grid[1], grid[2] };
	dim3 b = { block[0], block[1], block[2] };
	body thread = table[kernel].make(args);

	return [=](unsigned seed) { run_grid(thread, g, b, seed); };
}
