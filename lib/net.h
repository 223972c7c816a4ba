/* SPDX-License-Identifier: MIT */
/*
 * A remote byte space: what engine-net.c and the persistent cache ask of the
 * network.
 *
 *	space	|u0|u1|u2|u3|u4|...		stripe units of stripe_bytes
 *	group	  0  1  2  0  1			unit u lies in group u % nr_groups,
 *						at u / nr_groups * stripe_bytes
 *	gateways of a group: servers that reach the same bytes
 *
 * Requests are asynchronous: submitted in any thread, done once, in some thread
 * (the library's or one that waits).  Nothing is to be retried above: a request
 * that fails has failed after its time, with a text.
 *
 * Durability.  All writes and flushes of a group go over one connection.  Its
 * epoch is a number that changes whenever that connection is lost.  A write
 * that was done with epoch e is on stable storage once a flush of its group,
 * submitted after that, is done with the same e.  With another: write it again.
 */
#ifndef MMNF_NET_H
#define MMNF_NET_H

#include <sys/uio.h>

#include "internal.h"

enum mmnf_net_op { MMNF_NET_READ, MMNF_NET_WRITE, MMNF_NET_FLUSH };
enum mmnf_net_priority { MMNF_NET_DEMAND, MMNF_NET_PREFETCH };

/*
 * Can an earlier attempt of a write still reach the storage, after what is
 * written next?  Its connection was lost with the write in flight:
 */
enum mmnf_net_late {
	MMNF_NET_LATE_NONE,
	/*
	 * The one server closed it, or died: it is drained.  Not where the server
	 * left the write to others, as one that was started again may have.
	 */
	MMNF_NET_LATE_CLOSED,
	/* Given up here, or passed on by a gateway: it may still be applied. */
	MMNF_NET_LATE_HUNG,
};

#define MMNF_NET_IO_BYTES_MAX (4ULL << 20)

/**
 * struct mmnf_net_part - what of a request goes to one group; the net's
 * @offset: on the server
 * @at: in the memory of the request
 * @due_ns: not before; 0: now
 * @alone: failed as a part of something larger
 * @flushing: the write was acknowledged, its flush is under way
 * @tries: errors of the server; @delays: times that it was going down
 */
struct mmnf_net_part {
	struct mmnf_net_io *io;
	struct mmnf_net_part *next;
	u64 offset, bytes, at, epoch;
	s64 born_ns, due_ns;
	u32 tries, delays;
	bool alone, flushing;
};

/**
 * struct mmnf_net_io - one request; the net's from submit() until done()
 * @op, @priority: enums above; priority is of reads
 * @fua: of a write: done() means that it is on stable storage
 * @fresh: of a read: from the server, also where it said that there is a hole, since
 *	others may have written there.  What is read to be written back is that
 * @awaited: the submitter goes on to mmnf_net_wait() before long, so that no other
 *	thread has to be woken for it; set by mmnf_net_begin()
 * @offset, @bytes: in the space, any alignment; 1 .. MMNF_NET_IO_BYTES_MAX, inside
 *	the space.  A write lies in one stripe unit: see mmnf_net_unit(), and is
 *	aligned to mmnf_net_align()
 * @iov, @nr_iov: memory, @bytes in all; the caller's array, unchanged
 * @group: of a flush, set by the caller; of a write, set by submit()
 * @done: called once, without locks; may submit, must not wait or close.  NULL: see
 *	mmnf_net_begin()
 * @owner: for the caller
 * @result: 0 or -errno: -ECANCELED, -ETIMEDOUT, -EIO...
 * @epoch: of writes and flushes, when done; see above
 * @began_ns: CLOCK_MONOTONIC, of submit(), before it waited for others
 * @late: of writes, also of failed ones
 * @late_ns: of one that was HUNG: it is to be taken for one that was given up not
 *	before that
 * @text: of an error, for humans; good in done() only.  Without done() it is
 *	mmnf_net_end() that has it
 *
 * Writes that overlap and are under way together are done in any order, or mixed:
 * the caller sees to that.
 */
struct mmnf_net_io {
	u8 op, priority, fua, late;
	bool awaited, fresh;
	u32 group, nr_iov;
	u64 offset, bytes;
	const struct iovec *iov;
	void (*done)(struct mmnf_net_io *io);
	void *owner;
	int result;
	u64 epoch;
	s64 began_ns, late_ns;
	const char *text;
	/* the net's */
	u32 nr_parts;
	bool cancelled, over;
	char *words;
	struct mmnf_net_io *next;
	struct mmnf_net_part first;
};

#define MMNF_NET_GROUPS_MAX 256
#define MMNF_NET_GATEWAYS_MAX 16
#define MMNF_NET_CONNS_MAX 16
#define MMNF_NET_DEPTH_MAX 1024

/**
 * struct mmnf_net_layout - where a space lies
 * @uri: of gateway k of group g at [g][k]; NULL behind the last
 */
struct mmnf_net_layout {
	u32 nr_groups;
	u64 stripe_bytes;
	char *(*uri)[MMNF_NET_GATEWAYS_MAX + 1];
};

/* Adds a group from "URI,URI"; -EINVAL with text, -ENOMEM. */
int mmnf_net_layout_add(struct mmnf_net_layout *layout, const char *uris);
int mmnf_net_layout_check(const struct mmnf_net_layout *layout);
void mmnf_net_layout_free(struct mmnf_net_layout *layout); /* NULL is fine */

/* Is it the name of something on the network? */
bool mmnf_net_is_uri(const char *name);

/* store/zarr-net.c: "URI[,URI...]#raw,..." */
int mmnf_net_raw(struct mmnf_store *out, const char *name);

/* Built with libnbd?  NULL, or why not. */
const char *mmnf_net_missing(void);

/**
 * struct mmnf_net_opts - as of mmnf_open_opts, with the defaults filled in
 * @fail_timeout_ns: 0: never
 */
struct mmnf_net_opts {
	bool writable, holes_off;
	u32 connections, depth;
	s64 fail_timeout_ns, request_timeout_ns;
	const char *tls_dir, *tls_psk_file, *tls_username;
};

/* Of a field that is opened, with what it does not say filled in. */
int mmnf_net_opts_from(struct mmnf_net_opts *net,
		       const struct mmnf_open_opts *o);

struct mmnf_net;

/*
 * Connects to each group.  @layout is copied.  -errno with text: what a server
 * said, or that the space is not as long as need_bytes.
 */
int mmnf_net_open(struct mmnf_net **out, const struct mmnf_net_layout *layout,
		  const struct mmnf_net_opts *opts, u64 need_bytes);

/* From now on a request waits so long at most, whatever opts said. */
void mmnf_net_hurry(struct mmnf_net *net, s64 fail_timeout_ns);

/* Requests under way and to come are done with -ECANCELED. */
void mmnf_net_shut(struct mmnf_net *net);
void mmnf_net_close(struct mmnf_net *net);

u64 mmnf_net_bytes(const struct mmnf_net *net); /* of the space */
u32 mmnf_net_nr_groups(const struct mmnf_net *net);
bool mmnf_net_read_only(const struct mmnf_net *net);
u32 mmnf_net_align(const struct mmnf_net *net); /* of writes; 1 .. 4096 */

/* The fail timeout of who closes and has none, or a longer one. */
#define MMNF_NET_CLOSE_NS 30000000000LL

/*
 * So long after it was given up, or its process has died, a write may count as one that
 * was given up only then: see mmnf_net_io.late_ns.  Where there is no fail timeout, a
 * close gives up.
 */
s64 mmnf_net_late_ns(const struct mmnf_net *net);

/* The group of an offset, and how many bytes there are to the end of its unit. */
u64 mmnf_net_unit(const struct mmnf_net *net, u64 offset, u32 *group);

/*
 * 32 bytes that differ where the bytes behind may differ: URIs, which name
 * exports, sizes, stripes.
 */
void mmnf_net_identity(const struct mmnf_net *net, u8 digest[32]);

/* The epoch of a group now. */
u64 mmnf_net_epoch(struct mmnf_net *net, u32 group);

/*
 * Reads of what a server said is a hole get zeros without it, unless they are fresh,
 * until that is written through this net or forgotten.
 */
void mmnf_net_forget(struct mmnf_net *net, u64 offset, u64 bytes);

/* Never waits. */
void mmnf_net_submit(struct mmnf_net *net, struct mmnf_net_io *const *ios,
		     u32 nr);

/*
 * Parts of it that were not sent yet are given up: it is done with -ECANCELED,
 * maybe inside this call.  What is in flight takes its course, but is not sent
 * again.  False: nothing was given up.
 */
bool mmnf_net_cancel(struct mmnf_net *net, struct mmnf_net_io *io);

/*
 * Helps on until *done is true, which a done() sets by mmnf_net_wake(), or
 * timeout_ns is over (-1: never).  Returns *done.  Many threads may do so.
 */
bool mmnf_net_wait(struct mmnf_net *net, const bool *done, s64 timeout_ns);
void mmnf_net_wake(struct mmnf_net *net, bool *done);

/* A file that somebody waits for as well as for requests; see mmnf_net_watch(). */
struct mmnf_net_watch {
	int file;
	bool is_known, is_armed;
	bool *done;
	struct mmnf_net_watch *next;
};

/*
 * Once: when the file is readable, now or later, *done becomes true, as by
 * mmnf_net_wake().  Begun with both false; unwatch() before the file is closed.
 */
void mmnf_net_watch(struct mmnf_net *net, struct mmnf_net_watch *watch);
void mmnf_net_unwatch(struct mmnf_net *net, struct mmnf_net_watch *watch);

/*
 * A request without done(), and its end, in one thread: what is done between goes
 * on while the server works.  The error has text.
 */
void mmnf_net_begin(struct mmnf_net *net, struct mmnf_net_io *io);
int mmnf_net_end(struct mmnf_net *net, struct mmnf_net_io *io);
/* Both. */
int mmnf_net_do(struct mmnf_net *net, struct mmnf_net_io *io);

/* Why reads in this place fail, as text of mmnf_last_error(); returns -err. */
int mmnf_net_explain(struct mmnf_net *net, u64 offset, u64 bytes, int err);

/* "4 servers, 16 of 16 connections, ..." */
void mmnf_net_describe(struct mmnf_net *net, char *text, size_t len);

struct mmnf_net_stats;

/* Of a group; text is its state in words. */
void mmnf_net_group_stats(struct mmnf_net *net, u32 group,
			  struct mmnf_net_stats *out);

#endif
