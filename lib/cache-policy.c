// SPDX-License-Identifier: MIT
/*
 * Which tile leaves L2: LRU, SIEVE or S3-FIFO.
 *
 *	LRU	a hit goes to the front; the last leaves.
 *	SIEVE	a hit is marked; a hand goes from the oldest to the newest, takes
 *		marks away and evicts the first without (Zhang et al., NSDI 2024).
 *	S3-FIFO	new tiles queue in SMALL, a tenth; those used more than once
 *		there go on to MAIN, the rest leave and are remembered for a
 *		while: if one comes back, it enters MAIN (Yang et al., SOSP 2023).
 *
 * Pinned slots and those being filled are passed over.  After as many as that
 * in a row the answer is NO_SLOT: the caller has other memory, and a search
 * without end under a lock would be a wait.
 */
#include "cache-policy.h"

#define TRIES 64

static void push(struct shard *sh, u32 queue, u32 i)
{
	struct slot_list *l = &sh->list[queue];
	struct slot *s = &sh->slots[i];

	s->queue = (u8)queue;
	s->newer = NO_SLOT;
	s->older = l->newest;
	if (l->newest != NO_SLOT)
		sh->slots[l->newest].newer = i;
	else
		l->oldest = i;
	l->newest = i;
	l->nr++;
}

static void pull(struct shard *sh, u32 i)
{
	struct slot *s = &sh->slots[i];
	struct slot_list *l = &sh->list[s->queue];

	if (sh->hand == i)
		sh->hand = s->newer;
	if (s->newer != NO_SLOT)
		sh->slots[s->newer].older = s->older;
	else
		l->newest = s->older;
	if (s->older != NO_SLOT)
		sh->slots[s->older].newer = s->newer;
	else
		l->oldest = s->newer;
	l->nr--;
}

void mmnf_policy_keep(struct shard *sh, u32 i)
{
	push(sh, sh->slots[i].queue, i);
}

static bool in_use(const struct slot *s)
{
	return slot_state(s) != SLOT_READY ||
	       __atomic_load_n(&s->pins, __ATOMIC_ACQUIRE);
}

static u8 uses_of(const struct slot *s)
{
	return __atomic_load_n(&s->uses, __ATOMIC_RELAXED);
}

static void set_uses(struct slot *s, u32 uses)
{
	__atomic_store_n(&s->uses, (u8)uses, __ATOMIC_RELAXED);
}

static void insert_main(struct shard *sh, u32 i)
{
	set_uses(&sh->slots[i], 0);
	push(sh, QUEUE_MAIN, i);
}

/* What is used much is not written to any more. */
static void mark(struct slot *s)
{
	u8 uses = uses_of(s);

	if (uses < 3)
		set_uses(s, uses + 1);
}

static void lru_hit(struct shard *sh, u32 i)
{
	pull(sh, i);
	push(sh, QUEUE_MAIN, i);
}

static u32 lru_evict(struct shard *sh)
{
	u32 i = sh->list[QUEUE_MAIN].oldest, tries;

	for (tries = 0; i != NO_SLOT && tries < TRIES; tries++) {
		if (!in_use(&sh->slots[i])) {
			pull(sh, i);
			return i;
		}
		i = sh->slots[i].newer;
	}
	return NO_SLOT;
}

/* Twice round: once to take the marks away, once to evict. */
static u32 sieve_evict(struct shard *sh)
{
	u32 used = 0, steps;

	for (steps = 0; steps < 2 * sh->nr_slots && used < TRIES; steps++) {
		struct slot *s;
		u32 i = sh->hand;

		if (i == NO_SLOT)
			i = sh->list[QUEUE_MAIN].oldest;
		if (i == NO_SLOT)
			return NO_SLOT;
		s = &sh->slots[i];
		sh->hand = s->newer;
		if (in_use(s)) {
			used++;
		} else if (uses_of(s)) {
			set_uses(s, 0);
		} else {
			pull(sh, i);
			return i;
		}
	}
	return NO_SLOT;
}

static u64 *ghost(struct shard *sh, mmnf_tile tile)
{
	return &sh->ghosts[ghost_home(sh, tile)];
}

static void s3_insert(struct shard *sh, u32 i)
{
	u64 *g = ghost(sh, sh->slots[i].tile);
	bool came_back = *g == sh->slots[i].tile + 1;

	if (came_back)
		*g = 0;
	set_uses(&sh->slots[i], 0);
	push(sh, came_back ? QUEUE_MAIN : QUEUE_SMALL, i);
}

static void s3_evicted(struct shard *sh, u32 i)
{
	if (sh->slots[i].queue == QUEUE_SMALL)
		*ghost(sh, sh->slots[i].tile) = sh->slots[i].tile + 1;
}

static u32 s3_evict(struct shard *sh)
{
	u32 used = 0, steps;

	for (steps = 0; steps < 5 * sh->nr_slots && used < TRIES; steps++) {
		u32 small = sh->list[QUEUE_SMALL].nr;
		bool from_small = small && (small >= sh->nr_slots / 10 ||
					    !sh->list[QUEUE_MAIN].nr);
		u32 i = sh->list[from_small ? QUEUE_SMALL : QUEUE_MAIN].oldest;
		struct slot *s;

		if (i == NO_SLOT)
			return NO_SLOT;
		s = &sh->slots[i];
		pull(sh, i);
		if (in_use(s)) {
			push(sh, s->queue, i);
			used++;
		} else if (from_small && uses_of(s) > 1) {
			insert_main(sh, i);
		} else if (from_small) {
			return i;
		} else if (uses_of(s)) {
			set_uses(s, uses_of(s) - 1);
			push(sh, QUEUE_MAIN, i);
		} else {
			return i;
		}
	}
	return NO_SLOT;
}

/* By enum mmnf_l2_policy. */
const struct policy mmnf_policies[] = {
	[MMNF_L2_LRU] = { insert_main, lru_hit, NULL, pull, lru_evict, NULL },
	[MMNF_L2_SIEVE] = { insert_main, NULL, mark, pull, sieve_evict, NULL },
	[MMNF_L2_S3FIFO] = { s3_insert, NULL, mark, pull, s3_evict,
			     s3_evicted },
};
