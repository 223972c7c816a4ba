/* SPDX-License-Identifier: MIT */
/* fill_value of a manifest, as JSON and as the bytes of one element. */
#ifndef MMNF_ZARR_FILL_H
#define MMNF_ZARR_FILL_H

#include <jansson.h>

#include "internal.h"

/* 0, or -EINVAL without text if v is no value of the type. */
int mmnf_zarr_fill_parse(enum mmnf_dtype dtype, const json_t *v, u8 *fill);

/* A new reference, or NULL if JSON readers could not take the number. */
json_t *mmnf_zarr_fill_print(enum mmnf_dtype dtype, const u8 *fill);

#endif
