// SPDX-License-Identifier: MIT
/*
 * Which engine a field gets and why, and what it needs besides: L2, a predictor
 * in the library, a pool of queues.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "cache.h"
#include "fetch.h"

#define L2_MIN (64ULL << 20)
#define L2_MAX (1ULL << 30)
#define L2_POLICY MMNF_L2_S3FIFO /* see mmnf.3 */

static const struct mmnf_tier_ops *const engines[] = {
	[MMNF_ENGINE_DEVICE] = &mmnf_tier_device,
	[MMNF_ENGINE_MMAP] = &mmnf_tier_mmap,
	[MMNF_ENGINE_DIRECT] = &mmnf_tier_direct,
	[MMNF_ENGINE_NET] = &mmnf_tier_net,
};

#define NR_ENGINES (sizeof(engines) / sizeof(engines[0]))

static int choose(struct mmnf_field *field, u32 wanted)
{
	char *reason = field->engine_reason;
	size_t len = sizeof(field->engine_reason);
	int err;

	if (wanted >= NR_ENGINES)
		return mmnf_error(
			EOPNOTSUPP,
			"engine is %u: expected AUTO, DEVICE, MMAP, DIRECT or NET",
			wanted);
	if (!wanted && field->store.net)
		wanted = MMNF_ENGINE_NET;
	if (wanted && (wanted == MMNF_ENGINE_NET) != !!field->store.net)
		return mmnf_error(EOPNOTSUPP, "engine %s: the field is on %s",
				  engines[wanted]->name,
				  field->store.net ? "the network" :
						     "local files");
	field->engine = wanted ? wanted : MMNF_ENGINE_DEVICE;
	err = engines[field->engine]->probe(field, reason, len);
	if (err && wanted)
		return mmnf_error(EOPNOTSUPP, "engine %s: %s",
				  engines[wanted]->name, reason);
	if (err)
		field->engine = MMNF_ENGINE_MMAP;
	field->ops = engines[field->engine];
	return 0;
}

/* Reads without io_uring are right, too, but one says so. */
static void choose_reads(struct mmnf_field *field,
			 const struct mmnf_open_opts *opts)
{
	size_t used = strlen(field->engine_reason);
	size_t len = sizeof(field->engine_reason) - used;
	char *end = field->engine_reason + used, words[64];
	int err = 0;

	if (field->store.net)
		return;
	if (opts->uring != MMNF_URING_OFF)
		err = mmnf_queue_file_probe();
	field->no_uring = opts->uring == MMNF_URING_OFF || err;
	field->sqpoll = opts->uring == MMNF_URING_SQPOLL;
	if (err)
		snprintf(end, len, "; reads by pread: io_uring is refused: %s",
			 strerror_r(-err, words, sizeof(words)));
	else if (field->no_uring)
		snprintf(end, len, "; reads by pread: asked for");
}

static u64 default_l2_bytes(void)
{
	u64 memory = (u64)sysconf(_SC_PHYS_PAGES) * mmnf_page_bytes();

	return min_u64(max_u64(memory / 16, L2_MIN), L2_MAX);
}

static int open_l2(struct mmnf_field *field, const struct mmnf_open_opts *opts)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	u64 bytes = opts->l2_bytes ? opts->l2_bytes : default_l2_bytes();
	u64 tiles = (g->segment_bytes + g->index_bytes) / MMNF_TILE_BYTES + 1;
	int err;

	/* Where an index places tiles, others may have left gaps. */
	if (g->indexed)
		tiles *= 2;
	err = mmnf_cache_open(&field->cache, bytes,
			      opts->l2_policy ? opts->l2_policy : L2_POLICY,
			      tiles);
	if (!err && opts->l2_populate)
		err = mmnf_cache_populate(field->cache);
	return err;
}

int mmnf_tier_open(struct mmnf_field *field, const struct mmnf_open_opts *opts)
{
	int err;

	if (opts->uring > MMNF_URING_SQPOLL || opts->l2_policy > MMNF_L2_S3FIFO)
		return mmnf_error(
			EINVAL,
			"mmnf_open_opts: uring is %u and l2_policy %u: expected at most %d and %d",
			opts->uring, opts->l2_policy, MMNF_URING_SQPOLL,
			MMNF_L2_S3FIFO);
	err = choose(field, opts->engine);
	if (err)
		return err;
	choose_reads(field, opts);
	if (field->store.net)
		err = mmnf_engine_net_open(field, opts);
	if (err)
		return err;
	if (field->ops->cached)
		err = open_l2(field, opts);
	if (!err && field->engine != MMNF_ENGINE_DEVICE &&
	    !field->prefetch_off && mmnf_walk_init(field))
		err = mmnf_error(ENOMEM, "no memory");
	if (!err && field->cache && opts->l2_populate)
		err = mmnf_fetch_pool_fill(field);
	return err;
}

void mmnf_tier_close(struct mmnf_field *field)
{
	mmnf_engine_net_shut(field);
	mmnf_ahead_close(field);
	mmnf_fetch_pool_close(field);
	mmnf_engine_net_close(field);
	mmnf_cache_close(field->cache);
}
