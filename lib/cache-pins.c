// SPDX-License-Identifier: MIT
/*
 * A hit writes nothing that threads share, or two of them would be slower than
 * one: its pin is not counted in the slot but stands on a board, of which each
 * thread has its own, as long as there are enough.  A thread that ends leaves its
 * board to others, whatever is pinned there; those that fork() left behind do not.
 *
 *	a reader				who takes the slot away
 *	finds the tile in the index		takes the tile out of the index
 *	pins the slot on its board		is the slot on a board?
 *	is the tile still in the index?
 *
 * All of that is sequentially consistent, so at least one sees the other: the
 * reader gives its pin back, or the slot stays.  A pin may be seen that is about to
 * be given back: then the slot stays without need.
 *
 * Open segment files are pinned on boards of their own in the same way (segment.c):
 * there a slot is a place among them.
 */
#include <errno.h>
#include <stdlib.h>

#include "cache-pins.h"

#define BOARDS 64
#define PIN_COUNTED (1U << 31)

int mmnf_boards_open(struct boards *b)
{
	b->board = aligned_alloc(BOARD_BYTES, BOARDS * sizeof(*b->board));
	if (!b->board)
		return -ENOMEM;
	memset(b->board, 0, BOARDS * sizeof(*b->board));
	return 0;
}

void mmnf_boards_close(struct boards *b)
{
	free(b->board);
}

static u32 nr_threads[BOARDS]; /* of each board; of all fields */
static pthread_key_t leaving;
static bool may_leave;

/* @number: of a board, from 1 on */
static void leave(void *number)
{
	__atomic_fetch_sub(&nr_threads[(uintptr_t)number - 1], 1,
			   __ATOMIC_RELAXED);
}

static void init_leaving(void)
{
	__atomic_store_n(&may_leave, !pthread_key_create(&leaving, leave),
			 __ATOMIC_RELAXED);
}

/* Threads may outlive the library: none is to call what is not there any more. */
__attribute__((destructor)) static void close_leaving(void)
{
	if (__atomic_exchange_n(&may_leave, false, __ATOMIC_RELAXED))
		pthread_key_delete(leaving);
}

static u32 threads_of(u32 board)
{
	return __atomic_load_n(&nr_threads[board], __ATOMIC_RELAXED);
}

/* The first of the boards that the fewest threads have; from 1 on. */
static u32 take_board(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	u32 i, best, nr;

	pthread_once(&once, init_leaving);
	do {
		for (i = 1, best = 0; i < BOARDS; i++)
			if (threads_of(i) < threads_of(best))
				best = i;
		nr = threads_of(best);
	} while (!__atomic_compare_exchange_n(&nr_threads[best], &nr, nr + 1,
					      false, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	if (__atomic_load_n(&may_leave, __ATOMIC_RELAXED))
		pthread_setspecific(leaving, (void *)(uintptr_t)(best + 1));
	return best + 1;
}

u32 mmnf_thread_number(void)
{
	static __thread u32 number; /* from 1 on */

	if (!number)
		number = take_board();
	return number - 1;
}

/* The number of this thread's board. */
static u32 own_board(struct boards *b)
{
	u32 used = __atomic_load_n(&b->nr_used, __ATOMIC_ACQUIRE);
	u32 own = mmnf_thread_number();

	/* Before the first pin is there. */
	while (own >= used &&
	       !__atomic_compare_exchange_n(&b->nr_used, &used, own + 1, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
	return own;
}

u32 mmnf_boards_pin(struct boards *b, u32 slot)
{
	u32 own = own_board(b), n;
	struct board *board = &b->board[own];
	u32 i = __atomic_load_n(&board->next, __ATOMIC_RELAXED);

	for (n = 0; n < BOARD_PINS; n++, i++) {
		u32 *at = &board->slot[i % BOARD_PINS], none = 0;

		if (__atomic_load_n(at, __ATOMIC_RELAXED) ||
		    !__atomic_compare_exchange_n(at, &none, slot + 1, false,
						 __ATOMIC_SEQ_CST,
						 __ATOMIC_RELAXED))
			continue;
		__atomic_store_n(&board->next, i + 1, __ATOMIC_RELAXED);
		return own * BOARD_PINS + i % BOARD_PINS;
	}
	return NO_PLACE;
}

bool mmnf_boards_unpin(struct boards *b, u32 place, bool hit)
{
	struct board *board = &b->board[place / BOARD_PINS];
	u32 i = place % BOARD_PINS;

	if (hit)
		__atomic_store_n(&board->hits[i], board->hits[i] + 1,
				 __ATOMIC_RELAXED);
	return __atomic_exchange_n(&board->slot[i], 0, __ATOMIC_SEQ_CST) &
	       PIN_COUNTED;
}

static u32 *slot_at(const struct boards *b, u32 place)
{
	return &b->board[place / BOARD_PINS].slot[place % BOARD_PINS];
}

static u32 nr_places(const struct boards *b)
{
	return BOARD_PINS * __atomic_load_n(&b->nr_used, __ATOMIC_SEQ_CST);
}

bool mmnf_boards_have(const struct boards *b, u32 slot)
{
	u32 nr = nr_places(b), i;

	for (i = 0; i < nr; i++)
		if (__atomic_load_n(slot_at(b, i), __ATOMIC_SEQ_CST) ==
		    slot + 1)
			return true;
	return false;
}

void mmnf_boards_count(struct boards *b, u32 slot, u32 *pins)
{
	u32 nr = nr_places(b), i;

	for (i = 0; i < nr; i++) {
		u32 *at = slot_at(b, i), pinned = slot + 1;

		if (__atomic_load_n(at, __ATOMIC_SEQ_CST) != pinned)
			continue;
		/* First, for it may be given back as soon as it is counted. */
		__atomic_fetch_add(pins, 1, __ATOMIC_RELAXED);
		if (!__atomic_compare_exchange_n(
			    at, &pinned, pinned | PIN_COUNTED, false,
			    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			/* Given back: what was read there was read before. */
			__atomic_fetch_sub(pins, 1, __ATOMIC_RELAXED);
	}
}

u64 mmnf_boards_hits(const struct boards *b)
{
	u32 nr = nr_places(b), i;
	u64 hits = 0;

	for (i = 0; i < nr; i++)
		hits += __atomic_load_n(
			&b->board[i / BOARD_PINS].hits[i % BOARD_PINS],
			__ATOMIC_RELAXED);
	return hits;
}
