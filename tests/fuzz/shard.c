// SPDX-License-Identifier: MIT
/*
 * Indexes of shards: the first byte says whether it comes first and has a
 * checksum, the next two how many bytes the tiles before or behind it take.
 */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static const u64 shape[2] = { 40, 24 }, chunk[2] = { 16, 24 },
			 tile[2] = { 8, 8 };
	static u8 index[6 * 16 + 4];
	struct mmnf_geometry g;
	u64 file_bytes, t, nr;
	u8 how;

	if (size < 3)
		return 0;
	how = data[0];
	FUZZ_CHECK(!mmnf_geometry_init(&g, MMNF_U32, 2, shape, chunk, tile));
	mmnf_geometry_index(&g, how & 1, how & 2);
	file_bytes = g.index_bytes + data[1] + data[2] * 256ULL;
	memset(index, 0xff, sizeof(index));
	memcpy(index, data + 3, min_u64(size - 3, sizeof(index)));
	mmnf_shard_check(&g, index, file_bytes, &nr);
	FUZZ_CHECK(nr <= g.nr_tiles);
	for (t = 0; t < g.nr_tiles; t++) {
		u64 nominal = g.data_offset + t * g.tile_bytes + 4;
		u64 at = mmnf_shard_place(&g, index, file_bytes, nominal);

		FUZZ_CHECK(at >= MMNF_TILE_WRONG ||
			   (at >= 4 && at - 4 <= file_bytes &&
			    g.tile_bytes <= file_bytes - (at - 4)));
	}
	return 0;
}
