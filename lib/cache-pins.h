/* SPDX-License-Identifier: MIT */
/*
 * Pins that no lock guards, of slots of L2 or of open segment files: see
 * cache-pins.c.
 */
#ifndef MMNF_CACHE_PINS_H
#define MMNF_CACHE_PINS_H

#include "internal.h"

#define NO_PLACE UINT32_MAX /* not on a board: counted in the slot */

#define BOARD_PINS 8
#define BOARD_BYTES 256

/**
 * struct board - places for pins, so far from the next board that a processor which
 * fetches the line behind its own does not take that from another
 * @hits: of those who pinned there; whoever has the place may change it
 * @slot: number + 1; 0: free; PIN_COUNTED: by now it is counted in the slot, too
 * @next: the place that is likely to be free, counted on
 */
struct board {
	u64 hits[BOARD_PINS];
	u32 slot[BOARD_PINS], next;
} __attribute__((aligned(BOARD_BYTES)));

struct boards {
	struct board *board;
	u32 nr_used; /* beyond are none with a pin */
};

int mmnf_boards_open(struct boards *b); /* or -ENOMEM, no text */
void mmnf_boards_close(struct boards *b);

/* From 0 on; few threads that run at the same time have one together. */
u32 mmnf_thread_number(void);

/* Where this thread has pinned a slot, or NO_PLACE: its board is full. */
u32 mmnf_boards_pin(struct boards *b, u32 slot);

/* Takes a pin back; was it a hit?  True: it is for the caller to count down. */
bool mmnf_boards_unpin(struct boards *b, u32 place, bool hit);

/* Has anybody a slot pinned, which can't be found any more? */
bool mmnf_boards_have(const struct boards *b, u32 slot);

/* Counts the pins of such a slot, from now on, in *pins. */
void mmnf_boards_count(struct boards *b, u32 slot, u32 *pins);

u64 mmnf_boards_hits(const struct boards *b);

#endif
