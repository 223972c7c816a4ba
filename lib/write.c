// SPDX-License-Identifier: MIT
/*
 * Copying in: pwrite, so that an error of storage is a return value.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "cache.h"
#include "shard.h"
#include "tier.h"

#define RUN_BYTES (1ULL << 20)

static int write_all(struct mmnf_segment *s, const char *from, u64 bytes,
		     u64 offset)
{
	u64 done = 0;

	while (done < bytes) {
		ssize_t n = pwrite(s->fd, from + done, bytes - done,
				   (off_t)(offset + done));

		if (n > 0)
			done += (u64)n;
		else if (n < 0 && errno != EINTR)
			return mmnf_error_system(
				errno, "writing segment %" PRIu64, s->number);
	}
	return 0;
}

/* Even a write that failed has changed some of it. */
static int put_run(struct mmnf_field *field, struct mmnf_segment *s,
		   const struct mmnf_run *run, const char *src, char *scratch)
{
	const char *from = run->unit ? scratch : src + run->dst;
	int err;

	if (run->unit)
		mmnf_run_gather(run, src, scratch);
	err = write_all(s, from, run->bytes, run->offset);
	mmnf_segment_written(s);
	mmnf_cache_forget(field, run->segment, run->offset, run->bytes);
	return err;
}

static int write_linear(struct mmnf_field *field, struct mmnf_segment *s,
			const struct mmnf_run *run, const char *src,
			char *scratch)
{
	int err = mmnf_lock(field, s, run->offset, run->bytes);

	if (err)
		return err;
	err = put_run(field, s, run, src, scratch);
	mmnf_unlock(s, run->offset, run->bytes);
	return err;
}

/*
 * MMNF_SHARD_STALE: with another segment file the same again; MMNF_SHARD_FULL:
 * with this.
 */
static int write_tiled(struct mmnf_field *field, struct mmnf_segment *s,
		       struct mmnf_run *run, const char *src, char *scratch)
{
	struct mmnf_shard *shard = s->shard;
	int err = MMNF_SHARD_STALE;
	bool bare = false;

	pthread_rwlock_rdlock(&shard->turn);
	if (!shard->stale)
		err = mmnf_shard_begin(field, s, run, &bare);
	if (!err)
		err = put_run(field, s, run, src, scratch);
	if (bare)
		mmnf_shard_end(field, s, run->offset, err);
	pthread_rwlock_unlock(&shard->turn);
	if (err == MMNF_SHARD_FULL) {
		err = mmnf_shard_flush(field, s);
		return err ? err : MMNF_SHARD_FULL;
	}
	if (err != MMNF_SHARD_REPLACE)
		return err;
	err = 0;
	pthread_rwlock_wrlock(&shard->turn);
	if (!shard->stale)
		err = mmnf_shard_replace(field, s);
	pthread_rwlock_unlock(&shard->turn);
	return err ? err : MMNF_SHARD_STALE;
}

/* There is no file, and nobody to lock it against. */
static int write_remote(struct mmnf_field *field, const struct mmnf_run *run,
			const char *src, char *scratch)
{
	const char *from = run->unit ? scratch : src + run->dst;
	int err;

	if (run->unit)
		mmnf_run_gather(run, src, scratch);
	err = mmnf_engine_net_write(field, run->segment, run->offset, from,
				    run->bytes);
	mmnf_cache_forget(field, run->segment, run->offset, run->bytes);
	return err;
}

static int write_run(struct mmnf_field *field, struct mmnf_segment **s,
		     struct mmnf_run *run, const char *src, char *scratch)
{
	int err = 0;

	if (field->remote)
		return write_remote(field, run, src, scratch);
	if (*s && (*s)->number != run->segment) {
		mmnf_segment_put(field, *s);
		*s = NULL;
	}
	for (;;) {
		if (!*s)
			err = mmnf_segment_get(field, run->segment, true, s);
		if (err) {
			*s = NULL;
			return err;
		}
		if (!(*s)->shard)
			return write_linear(field, *s, run, src, scratch);
		err = write_tiled(field, *s, run, src, scratch);
		if (err == MMNF_SHARD_FULL) {
			err = 0;
			continue;
		}
		if (err != MMNF_SHARD_STALE)
			return err;
		mmnf_segment_forget(field, *s);
		mmnf_cache_forget(field, run->segment, 0, (*s)->file_bytes);
		mmnf_segment_put(field, *s);
		*s = NULL;
		err = mmnf_window_refresh(field, run->segment, true);
		if (err)
			return err;
	}
}

int mmnf_write_box(struct mmnf_field *field, const struct mmnf_box *normal,
		   const void *src)
{
	struct mmnf_segment *s = NULL;
	char *scratch = malloc(RUN_BYTES);
	struct mmnf_runs it;
	struct mmnf_run run;
	int err = 0;

	if (!scratch)
		return mmnf_error(ENOMEM, "no memory");
	if (field->store.checksums)
		err = mmnf_check_clear_box(field, normal);
	mmnf_runs_init_mode(&it, mmnf_field_geometry(field), normal, RUN_BYTES,
			    MMNF_RUNS_WRITE);
	while (!err && mmnf_runs_next(&it, &run)) {
		u64 nominal = run.offset;

		err = write_run(field, &s, &run, src, scratch);
		mmnf_gpu_invalidate(field, run.segment, nominal, run.bytes);
	}
	if (s)
		mmnf_segment_put(field, s);
	free(scratch);
	return err;
}

MMNF_EXPORT ssize_t mmnf_write(struct mmnf_field *field,
			       const struct mmnf_box *box, const void *src,
			       size_t src_bytes)
{
	struct mmnf_box normal;
	u64 bytes;
	int err;

	mmnf_error_enter("mmnf_write");
	if (!field->writable)
		return mmnf_error(
			EBADF,
			"field is open read-only: expected open with writable = 1");
	err = mmnf_geometry_box(mmnf_field_geometry(field), box, &normal,
				&bytes);
	if (err)
		return err;
	if (bytes != src_bytes)
		return mmnf_error(EINVAL,
				  "src has %zu bytes: expected %" PRIu64,
				  src_bytes, bytes);
	if (!bytes)
		return 0;
	err = mmnf_write_box(field, &normal, src);
	return err ? err : (ssize_t)bytes;
}
