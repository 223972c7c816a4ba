// SPDX-License-Identifier: MIT
/*
 * The persistent cache in front of the network: its requests are the net's.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "net.h"
#include "ssd.h"

#define CACHE_BYTES (16ULL << 30)

struct request {
	struct mmnf_net_io net; /* first */
	struct iovec iov;
	struct mmnf_ssd_io *io;
};

static u64 unit(void *arg, u64 offset, u32 *group)
{
	return mmnf_net_unit(arg, offset, group);
}

static void done(struct mmnf_net_io *net)
{
	struct request *r = (struct request *)net;
	struct mmnf_ssd_io *io = r->io;

	io->result = net->result;
	io->epoch = net->epoch;
	io->group = net->group;
	io->is_late = net->late == MMNF_NET_LATE_HUNG;
	io->late_ns = net->late_ns;
	if (net->result && net->text)
		snprintf(io->text, sizeof(io->text), "%s", net->text);
	free(r);
	io->done(io);
}

static void submit(void *arg, struct mmnf_ssd_io *io)
{
	static const u8 op[] = {
		[MMNF_SSD_READ] = MMNF_NET_READ,
		[MMNF_SSD_WRITE] = MMNF_NET_WRITE,
		[MMNF_SSD_FLUSH] = MMNF_NET_FLUSH,
	};
	struct request *r = calloc(1, sizeof(*r));
	struct mmnf_net_io *one;

	if (!r) {
		io->result = -ENOMEM;
		io->done(io);
		return;
	}
	r->io = io;
	r->iov = (struct iovec) { io->data, io->bytes };
	/* The cache reads only what is around its writes, to write it back. */
	r->net = (struct mmnf_net_io) {
		.op = op[io->op],
		.fresh = true,
		.offset = io->offset,
		.bytes = io->bytes,
		.iov = &r->iov,
		.nr_iov = io->op != MMNF_SSD_FLUSH,
		.group = io->group,
		.done = done,
	};
	one = &r->net;
	mmnf_net_submit(arg, &one, 1);
}

int mmnf_ssd_net_open(struct mmnf_ssd **out, struct mmnf_net *net,
		      const struct mmnf_open_opts *opts)
{
	struct mmnf_ssd_backing backing = {
		.arg = net,
		.bytes = mmnf_net_bytes(net),
		.nr_groups = mmnf_net_nr_groups(net),
		.align = mmnf_net_align(net),
		.late_ns = mmnf_net_late_ns(net),
		.unit = unit,
		.submit = opts->writable ? submit : NULL,
	};
	struct mmnf_ssd_opts ssd = {
		.bytes = opts->net_cache_bytes ? opts->net_cache_bytes :
						 CACHE_BYTES,
		.grace_ms = opts->net_cache_grace_ms,
	};
	struct mmnf_ssd_disk *disk;
	int err = mmnf_ssd_disk_open(&disk, opts->net_cache_dir);

	if (err)
		return err;
	mmnf_net_identity(net, backing.identity);
	return mmnf_ssd_open(out, disk, &ssd, &backing);
}

char *mmnf_ssd_widen(struct mmnf_net_io *io, struct iovec *whole,
		     u64 space_bytes)
{
	u64 start = io->offset / MMNF_SSD_BLOCK * MMNF_SSD_BLOCK;
	u64 end = min_u64(round_up_u64(io->offset + io->bytes, MMNF_SSD_BLOCK),
			  space_bytes);
	void *bounce;

	if (start == io->offset && end == io->offset + io->bytes)
		return NULL;
	/* Without memory: as it is, and then it is not kept. */
	if (posix_memalign(&bounce, MMNF_SSD_BLOCK, end - start))
		return NULL;
	*whole = (struct iovec) { bounce, end - start };
	io->offset = start;
	io->bytes = end - start;
	io->iov = whole;
	io->nr_iov = 1;
	return bounce;
}

void mmnf_ssd_describe(struct mmnf_ssd *ssd, struct mmnf_tier *tier)
{
	struct mmnf_ssd_stats s;
	char state[160];

	if (!ssd) {
		snprintf(tier->text, sizeof(tier->text),
			 "the field is on the network: no net_cache_dir");
		return;
	}
	mmnf_ssd_stats(ssd, &s);
	tier->is_on = mmnf_ssd_text(ssd, state, sizeof(state));
	tier->size_bytes = s.size_bytes;
	tier->used_bytes = s.used_bytes;
	/* Cut where it is longer, which it may be. */
	if (snprintf(tier->text, sizeof(tier->text),
		     "cache: %s; reads: %" PRIu64 " hits, %" PRIu64
		     " misses; blocks: %" PRIu64 " filled, %" PRIu64
		     " dropped, %" PRIu64 " bad; log: %" PRIu64 " bytes dirty",
		     state, s.hits, s.misses, s.filled, s.dropped, s.bad,
		     s.dirty_bytes) < 0)
		tier->text[0] = 0;
}
