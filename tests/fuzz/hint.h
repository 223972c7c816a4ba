/* SPDX-License-Identifier: MIT */
/*
 * Hints of the ABI fuzzer, by ioctl and by io_uring.
 *
 * The ring's commands run beside all that follows: on a descriptor that may be
 * closed, a mapping that may go, and items in memory that others write meanwhile.
 */
#ifndef MMNF_FUZZ_HINT_H
#define MMNF_FUZZ_HINT_H

#include "fuzz/world.h"
#include "kselftest/ring.h"

/* Items that are nearly right, in a list that may end before they do. */
static struct mmnf_select some_select(const struct device *d)
{
	static union {
		struct mmnf_range range[16];
		struct mmnf_ioc_box box[16];
		u64 record[16];
	} items;
	struct mmnf_select select = { .nr_items = rnd(one_in(4) ? 17 : 4),
				      .kind = rnd(3) };
	u64 i;

	/* Nearly always of a kind that the geometry knows. */
	if ((select.kind == MMNF_SELECT_BOXES && d->ndim != 3) ||
	    (select.kind == MMNF_SELECT_RECORDS && !d->has_records))
		select.kind = rnd(one_in(8) ? 3 : 1);
	memset(&items, 0, sizeof(items));
	for (i = 0; i < 16; i++) {
		struct mmnf_range *range = &items.range[i];
		struct mmnf_ioc_box *box = &items.box[i];

		if (select.kind == MMNF_SELECT_RANGES) {
			range->start_bytes = rnd(FILE_BYTES);
			range->len_bytes = rnd(FILE_BYTES / 4);
		} else if (select.kind == MMNF_SELECT_RECORDS) {
			items.record[i] = rnd(20);
		} else {
			box->start[0] = rnd(16);
			box->count[0] = 1 + rnd(8);
			box->step[0] = (s64)rnd(5) - 2;
			box->start[1] = rnd(16);
			box->count[1] = rnd(32);
			box->count[2] = rnd(512);
		}
	}
	spoil(&items, sizeof(items));
	/* In the guarded pages' middle, where place() does not write. */
	memcpy(guarded + PAGE, &items, sizeof(items));
	select.items = (u64)(unsigned long)guarded + PAGE;
	if (one_in(32))
		select.nr_items = odd_number();
	if (one_in(64))
		select.items = odd_number();
	return select;
}

static void op_hint(struct __test_metadata *_metadata)
{
	struct device *d = some_device();
	union {
		u32 size;
		struct mmnf_ioc_prefetch prefetch;
		struct mmnf_ioc_evict evict;
		struct mmnf_ioc_residency residency;
	} arg = {};
	struct mmnf_select select = some_select(d);
	unsigned long cmd;
	size_t size;

	switch (rnd(3)) {
	case 0:
		cmd = MMNF_IOC_PREFETCH;
		size = sizeof(arg.prefetch);
		arg.prefetch.flags = one_in(4) ? MMNF_PREFETCH_WAIT : 0;
		arg.prefetch.select = select;
		break;
	case 1:
		cmd = MMNF_IOC_EVICT;
		size = sizeof(arg.evict);
		arg.evict.select = select;
		break;
	default:
		cmd = MMNF_IOC_RESIDENCY;
		size = sizeof(arg.residency);
		arg.residency.select = select;
		if (one_in(2))
			arg.residency.states = (unsigned long)guarded;
	}
	arg.size = size;
	spoil(&arg, size);
	/* Not near what is mapped: it would be written there, as was asked. */
	if (cmd == MMNF_IOC_RESIDENCY &&
	    arg.residency.states >> 32 == (u64)(unsigned long)guarded >> 32)
		arg.residency.states = (unsigned long)guarded + rnd(PAGE);
	TRACE("hint %td cmd %lx kind %u items %u", d - device, cmd, select.kind,
	      select.nr_items);
	call(_metadata, d->fd, cmd, place(&arg, size));
}

static struct ring ring = { .fd = -1 };
static u32 nr_in_flight;

/* Of a command that cancels others: its result may be their number. */
#define CANCEL ENTRIES

static void reap_all(struct __test_metadata *_metadata)
{
	u64 user;
	int res;

	for (; nr_in_flight; nr_in_flight--) {
		res = reap(&ring, &user);
		nr_async_ok += !res && user != CANCEL;
		EXPECT_TRUE(is_documented(-res) || res == -ECANCELED ||
			    (user == CANCEL &&
			     (res > 0 || res == -EALREADY || res == -ENOENT)))
		TH_LOG("operation %llu: io_uring: %s", done, strerror(-res));
	}
}

static void close_ring(void)
{
	if (ring.fd >= 0)
		ring_close(&ring);
	nr_in_flight = 0;
}

static void queue_hint(u32 slot)
{
	static struct mmnf_ioc_prefetch arg[ENTRIES];
	struct mmnf_uring_cmd cmd = { .arg = (unsigned long)&arg[slot] };
	struct device *d = some_device();
	struct io_uring_sqe *sqe;

	arg[slot] = (struct mmnf_ioc_prefetch) {
		.size = sizeof(arg[slot]),
		.flags = rnd(2),
		.select = some_select(d),
	};
	spoil(&arg[slot], sizeof(arg[slot]));
	if (one_in(16))
		spoil(&cmd, sizeof(cmd));
	sqe = next_sqe(&ring, IORING_OP_URING_CMD, d->fd, slot);
	sqe->cmd_op = one_in(32) ? odd_number() : MMNF_IOC_PREFETCH;
	/* All but "no completion": they are counted. */
	if (one_in(4))
		sqe->flags = rnd(IOSQE_CQE_SKIP_SUCCESS);
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	TRACE("ring: hint to %td as %u", d - device, slot);
}

static void op_uring(struct __test_metadata *_metadata)
{
	u32 nr = 1 + rnd(4);
	int ret;

	if (one_in(16)) {
		TRACE("ring: close with %u", nr_in_flight);
		close_ring();
	}
	if (ring.fd < 0 && ring_open(&ring, IORING_SETUP_SUBMIT_ALL)) {
		close_ring();
		return;
	}
	if (one_in(4) || nr_in_flight + nr > ENTRIES) {
		TRACE("ring: wait for %u", nr_in_flight);
		reap_all(_metadata);
	}
	if (one_in(4)) {
		TRACE("ring: cancel");
		next_sqe(&ring, IORING_OP_ASYNC_CANCEL, -1, CANCEL)
			->cancel_flags = IORING_ASYNC_CANCEL_ANY |
					 IORING_ASYNC_CANCEL_ALL;
		nr = 1;
	} else {
		for (u32 i = 0; i < nr; i++)
			queue_hint(nr_in_flight + i);
	}
	ret = submit(&ring);
	EXPECT_EQ(nr, ret)
	TH_LOG("operation %llu: %s", done, strerror(errno));
	nr_in_flight += nr;
}

#endif
