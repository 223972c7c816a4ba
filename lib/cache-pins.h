/* SPDX-License-Identifier: MIT */
/*
 * Pins of L2 that no lock guards: see cache-pins.c.
 */
#ifndef MMNF_CACHE_PINS_H
#define MMNF_CACHE_PINS_H

#include "internal.h"

#define NO_PLACE UINT32_MAX /* not on a board: counted in the slot */

#define BOARD_PINS 8

/**
 * struct board_pin - a place for a pin
 * @hits: of those who pinned here; whoever has the place may change it
 * @slot: number + 1; 0: free; PIN_COUNTED: by now it is counted in the slot, too
 */
struct board_pin {
	u64 hits;
	u32 slot;
};

struct board {
	struct board_pin pin[BOARD_PINS];
} __attribute__((aligned(128)));

struct boards {
	struct board *board;
	u32 nr_used; /* beyond are none with a pin */
};

int mmnf_boards_open(struct boards *b); /* or -ENOMEM, no text */
void mmnf_boards_close(struct boards *b);

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
