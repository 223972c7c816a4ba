/* SPDX-License-Identifier: MIT */
/* The codecs of a manifest: how a chunk's elements became the bytes of a file. */
#ifndef MMNF_ZARR_CODEC_H
#define MMNF_ZARR_CODEC_H

#include <jansson.h>

#include "internal.h"

/**
 * struct mmnf_codecs - what is handled of them
 * @sharded: chunks are cut into tiles, with an index
 * @tile: their shape, if so
 * @transposed: axis @axis[k] is the k-th of the bytes, slowest first
 * @index_crc: four bytes of CRC32C follow the index
 */
struct mmnf_codecs {
	bool sharded, transposed, index_first, index_crc;
	u64 tile[MMNF_NDIM_MAX];
	u32 axis[MMNF_NDIM_MAX];
};

int mmnf_codecs_parse(struct mmnf_codecs *out, const json_t *v, u32 ndim,
		      u32 element_bytes);

/* A new reference; NULL: no memory. */
json_t *mmnf_codecs_print(const struct mmnf_geometry *g);

/* ---- zarr.c: shared with it */

/* Sets "zarr.json: KEY is VALUE: expected ..." and returns -err. */
int mmnf_zarr_wrong(int err, const char *key, const json_t *v,
		    const char *expected);
int mmnf_zarr_extents(const char *key, const json_t *v, u64 *out, u32 *ndim);
json_t *mmnf_zarr_list(const u64 *v, u32 n);

/* Extensions are objects with a name, or, where nothing is set, the name. */
const char *mmnf_zarr_name(const json_t *v);

#endif
