/* SPDX-License-Identifier: MIT */
/* Fields whose data lies on the network: how a manifest or a name says so. */
#ifndef MMNF_STORE_ZARR_NET_H
#define MMNF_STORE_ZARR_NET_H

#include <jansson.h>

#include "net.h"

/* attributes.mmnf.net; sets out->net. */
int mmnf_zarr_net_parse(struct mmnf_store *out, const json_t *v);
json_t *mmnf_zarr_net_print(const struct mmnf_net_layout *net);

#endif
