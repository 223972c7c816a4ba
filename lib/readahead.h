/* SPDX-License-Identifier: MIT */
/* The kernel's own readahead, for who goes through all bytes of a part of a file. */
#ifndef MMNF_READAHEAD_H
#define MMNF_READAHEAD_H

#include "internal.h"

/**
 * struct mmnf_given - what of a piece of a file is left to the kernel
 * @start, @end: it reads this, or has; empty: nothing
 * @read_start, @read_end: what it has begun to read now, maybe beyond the piece
 */
struct mmnf_given {
	u64 start, end, read_start, read_end;
};

/*
 * A piece is wanted in memory, to read it where the last one ended.  The rest is the
 * caller's to ask for.  @walk: it is part of one that goes on; else no more is wanted
 */
void mmnf_readahead(struct mmnf_field *field, struct mmnf_segment *s, u64 start,
		    u64 end, bool walk, struct mmnf_given *given);

/* Does who is at a place follow a stretch that the kernel reads, and start is ahead? */
bool mmnf_readahead_follows(struct mmnf_field *field, struct mmnf_segment *s,
			    u64 at, u64 start);
void mmnf_readahead_close(struct mmnf_segment *s);

#endif
