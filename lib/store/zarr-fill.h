/* SPDX-License-Identifier: MIT */
/* fill_value of a manifest, as JSON and as the bytes of one element. */
#ifndef MMNF_ZARR_FILL_H
#define MMNF_ZARR_FILL_H

#include <jansson.h>

#include "internal.h"

/* 0, or -EINVAL without text if v is no value of the type. */
int mmnf_zarr_fill_parse(enum mmnf_dtype dtype, const json_t *v, u8 *fill);

/* A new reference, or NULL: no memory. */
json_t *mmnf_zarr_fill_print(enum mmnf_dtype dtype, const u8 *fill);

/*
 * json_loadb() and json_dumps() of a manifest whose fill_value may be above
 * 2^63 - 1, which jansson's integers are not: between the two it is a string.
 */
json_t *mmnf_zarr_fill_load(const char *text, size_t len, size_t flags,
			    json_error_t *where);
char *mmnf_zarr_fill_dump(const json_t *root);

#endif
