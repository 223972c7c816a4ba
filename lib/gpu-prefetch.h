/* SPDX-License-Identifier: MIT */
/*
 * Tiles brought to a device ahead of their use, by a thread of the tier.
 *
 * A bounded queue of tile numbers; what does not fit is dropped, and so is what
 * could not be read.  The thread evicts nothing to make more than an eighth of
 * the slots hold tiles that nobody has used yet.
 */
#ifndef MMNF_GPU_PREFETCH_H
#define MMNF_GPU_PREFETCH_H

#include "tier-gpu.h"

/* Ends the thread, if there is one. */
void mmnf_gpu_prefetch_stop(struct mmnf_gpu *g);

/* Tiles that are there, or queued for it; the first call starts the thread. */
u64 mmnf_gpu_prefetch_ask(struct mmnf_gpu *g, struct mmnf_gpu_cursor *c);

#endif
