/* SPDX-License-Identifier: MIT */
/*
 * What the files of the net share.
 *
 *	net.c		requests: cut into parts, done when all parts are
 *	net-open.c	opening and closing
 *	net-group.c	parts of a group: queues, windows, retries, failing
 *	net-wire.c	parts that are one request on a connection
 *	net-holes.c	what a server says reads as zeros
 *	net-conn.c	a connection: the only file that knows libnbd
 *	net-dial.c	threads that look up names
 *	net-keep.c	a thread that connects, and looks at the clock
 *	net-drive.c	who waits for the sockets
 *
 *	part -> queue -> wire -> connection -> settled -> part done -> io done
 *	          ^                                |
 *	          '------- lost, or EIO -----------'
 *
 * net.lock guards all of it, but a connection that is being dialled, which is
 * the keeper's.  It is never held while anybody waits for a socket, nor in done().
 */
#ifndef MMNF_NET_INTERNAL_H
#define MMNF_NET_INTERNAL_H

#include <poll.h>

#include "net.h"

#define NET_COALESCE_BYTES (256ULL << 10) /* neighbours are read together */
#define NET_PIECE_BYTES \
	(32ULL << 10) /* of memory: worth a request of its own */
#define NET_SPREAD 16 /* in flight before the next connection is used */
#define NET_TRIES 6 /* after an error of the server */
#define NET_BACKOFF_NS (10 * 1000000LL)
#define NET_BACKOFF_MAX_NS (250 * 1000000LL)
#define NET_BUCKETS 160
#define NET_ASKER \
	MMNF_NET_CONNS_MAX /* number of the connection that asks for holes */
#define NET_SCOUT \
	(NET_ASKER + 1) /* of that to see if another gateway answers */
#define NET_STATE_ZERO 2 /* of base:allocation */
#define NET_CAUSE_BYTES 160

struct net_queue {
	struct mmnf_net_part *first, **end;
	u32 nr;
};

struct net_group;
struct net_dial;

/**
 * struct net_wire - a request on a connection
 * @parts: linked by next, neighbours on the server
 * @buf: where the bytes go or come from; @bounce if that is not the requests'
 * @skip: bytes before those of the first part
 */
struct net_wire {
	struct net_conn *conn;
	struct mmnf_net_part *parts;
	char *buf, *bounce;
	u64 offset, bytes, skip;
	s64 sent_ns;
	u8 op;
	bool prefetch, fua;
	int error;
	struct net_wire *next, *before;
};

enum net_state { NET_DOWN, NET_DIALLING, NET_UP };

/**
 * struct net_conn - a connection, in its place of a group
 * @gateway: that it is, was or will be connected to
 * @dial: looks up the gateway's name, and starts to connect
 * @watched: a copy of its socket, to poll; while it is up
 * @life: counts the times that it came up
 * @events: that it is polled for; 0: not at all; @wants: that it is to be polled for
 * @is_polled: it is in net.polled, linked by @next_polled; @warm: see net-drive.c
 * @cause: why it was lost or is not there; @blamed: the gateway that it speaks of
 */
struct net_conn {
	struct net_group *group;
	u32 index, gateway, blamed, in_flight, life;
	enum net_state state;
	int watched;
	short events, wants;
	u8 warm;
	bool is_polled;
	struct net_conn *next_polled;
	struct net_dial *dial;
	void *handle;
	u32 failures;
	s64 due_ns, since_ns;
	u8 late;
	bool local; /* a Unix socket */
	bool leaving; /* another gateway is to take its place */
	char cause[NET_CAUSE_BYTES];
	struct net_wire *flying, *spare, *wires;
};

/* What a server says of an export. */
struct net_facts {
	u64 bytes, max_bytes;
	u32 min_block;
	bool read_only, multi_conn, can_flush, can_fua;
};

struct net_hole;

/**
 * struct net_holes - of a group, by offsets on the server; see net-holes.c
 * @hole: @nr in their order, which do not touch; NULL: nobody asked yet
 * @bytes: of them all; @age: counts what was learnt
 * @nr_reads: that were answered here
 * @nr_writes: under way; @nr_changes: times that something was forgotten
 * @nr_skip: reads of zeros before the next question; @next_skip: after one in vain
 * @nr_failures: in a row
 * @at: the zeros that the question is about; it is for @start to @end
 * @ask_bytes: of the next question; @reached: where the last answer ended
 * @is_off: it does not tell; @is_wanted: its connection; @is_asking: an answer
 * @is_refused: the answer makes no sense; @is_dense: it did not reach @at
 */
struct net_holes {
	struct net_hole *hole, *found;
	u32 nr, nr_found, nr_skip, next_skip, nr_failures;
	u64 bytes, age, nr_reads, nr_writes, nr_changes, asked_changes;
	u64 at, start, end, reached, ask_bytes;
	s64 asked_ns;
	bool is_off, is_wanted, is_asking, is_refused, is_dense;
};

struct net_counters {
	u64 reads, writes, flushes, read_bytes, written_bytes;
	u64 retries, requeued, timeouts, reconnects, refused, failed;
	u64 latency[NET_BUCKETS];
};

/**
 * struct net_group - servers that reach the same bytes
 * @nr_conns: 1 until facts are known
 * @down_ns: since when no connection is up, 0: one is
 * @writes: go over connection 0, with flushes
 * @delayed: have a due_ns
 * @nr_heard: answers when the clock was looked at last; @heard_ns: that saw the last
 * @wants_other: reads wait at a gateway that has writes, so another is looked for;
 *	@has_other: the scout's answers
 * @cause: of the last failure, named with its server
 */
struct net_group {
	struct mmnf_net *net;
	u32 index, nr_uris, nr_conns, nr_up;
	char **uri;
	bool known, wants_other, has_other;
	struct net_facts facts;
	struct net_conn conn[NET_SCOUT + 1];
	struct net_holes holes;
	struct net_queue demand, prefetch, writes, delayed;
	u32 in_flight, in_flight_prefetch, nr_rounds;
	u64 epoch, nr_heard;
	s64 down_ns, heard_ns;
	char cause[640];
	s64 cause_ns;
	struct net_counters count;
};

/* What is polled; conn is NULL: a file that is watched, or the kick. */
struct net_seen {
	struct net_conn *conn;
	u32 life;
};

struct net_waiter {
	const bool *done;
	pthread_cond_t cond;
	struct net_waiter *next;
};

struct mmnf_net {
	pthread_mutex_t lock;
	struct mmnf_net_opts opts;
	struct mmnf_net_layout layout;
	u64 bytes;
	u32 forks; /* net_forks() of the process that opened it */
	bool stop, shut;
	u32 nr_groups;
	struct net_group *group;
	struct net_wire *settled;
	struct mmnf_net_io *done, **done_end;
	/* net-drive.c */
	int kick;
	struct mmnf_net_watch *watches;
	struct net_conn *polled, **polled_end;
	struct pollfd *pfd; /* of whoever drives: what @seen says, one by one */
	struct net_seen *seen;
	u32 poll_room;
	bool asleep; /* whoever drives, in poll(); not if it was kicked */
	s64 now_ns; /* when the clock was looked at last */
	bool driving;
	pthread_t driving_thread;
	struct net_waiter *waiters, *driving_waiter;
	u64 nr_background; /* requests that nobody may be waiting for */
	u64 nr_waits;
	u32 nr_burst; /* answers of a connection to take before requests go out */
	s64 woken_ns, slept_ns, all_ns; /* when last, and means */
	bool left; /* nobody has waited lately: seen by the keeper */
	bool soon; /* the driver looks again by itself */
	s64 waited_ns; /* when somebody drove for himself last */
	pthread_cond_t work;
	pthread_t driver;
	/* net-keep.c */
	int nudge; /* eventfd */
	bool keeper_sleeps;
	u64 activity;
	pthread_cond_t settled_down; /* groups are known, or failed */
	pthread_t keeper;
	bool has_keeper, has_driver;
	u32 nr_users; /* whoever opened it, and threads that dial */
	struct net_dial *dials;
	struct mmnf_net *next; /* of all */
};

s64 mmnf_now_ns(void);

/* ---- net-open.c */

/* How many forks led to this process; cheaper to ask than its number. */
u32 net_forks(void);

/* One user less; with the lock, which is given up. */
void net_put(struct mmnf_net *net);

/* ---- net.c: all with net.lock */

/* One part of a request is over; words: of the error, or NULL. */
void net_part_done(struct mmnf_net *net, struct mmnf_net_part *part, int err,
		   const char *words);

/* Calls done() of what is done; lets go of the lock meanwhile. */
void net_run_done(struct mmnf_net *net);

/* ---- net-group.c: all with net.lock */

void net_queue_init(struct net_queue *q);
void net_queue_add(struct net_queue *q, struct mmnf_net_part *part);
void net_queue_add_first(struct net_queue *q, struct mmnf_net_part *part);
struct mmnf_net_part *net_queue_take(struct net_queue *q);

/* Queues a part of a request, or fails it where there is no hope. */
void net_group_add(struct net_group *g, struct mmnf_net_part *part);

/* Sends what there is room for. */
void net_group_pump(struct net_group *g);

/* Fails what has waited too long, moves on what is due.  Next due, or 0. */
s64 net_group_clock(struct net_group *g, s64 now);

/* Gives up on a connection: what was in flight is queued again. */
void net_group_lost(struct net_conn *c);

/* Its parts go back to where they came from. */
void net_group_again(struct net_group *g, struct net_wire *w, s64 now);

/* The server said no: once more after a while, if that may help. */
void net_group_error(struct net_group *g, const struct net_wire *w,
		     struct mmnf_net_part *part, s64 now);

/* The server is going down, but has not closed the connection: after a while. */
void net_group_shutting(struct net_group *g, struct net_wire *w, s64 now);

/* It cannot be sent. */
void net_group_refuse(struct net_group *g, struct net_wire *w, int err);

/* Ends all parts that wait, of one request or of all (NULL). */
u32 net_group_drop(struct net_group *g, const struct mmnf_net_io *io, int err,
		   const char *words);

/* ---- net-wire.c: all with net.lock */

/* The first of a queue, with its neighbours.  False: the connection broke. */
bool net_wire_send(struct net_group *g, struct net_conn *c,
		   struct net_queue *q);

/* It was answered, or its connection was lost. */
void net_wire_settle(struct net_wire *w, s64 now);

/* All that were answered. */
void net_settle(struct mmnf_net *net);

u64 net_percentile(const u64 *latency, u32 percent); /* ns */

/* ---- net-holes.c: all with net.lock */

/* Is all of it in a hole? */
bool net_holes_has(struct net_group *g, u64 offset, u64 bytes);
/* It may be something else from now on. */
void net_holes_forget(struct net_group *g, u64 offset, u64 bytes);
/* These bytes came: if they are zeros, its server may be asked for more. */
void net_holes_look(struct net_group *g, u64 offset, const char *p, u64 bytes);
/* The connection: false: it does not tell, and is to be closed. */
bool net_holes_connected(struct net_group *g);
void net_holes_go_on(struct net_group *g);
void net_holes_failed(struct net_group *g); /* to be dialled */
void net_holes_lost(struct net_group *g); /* while it was up */
void net_holes_clock(struct net_group *g, s64 now);
/* A part of the answer: pairs of bytes and flags; then its end. */
void net_holes_found(struct net_group *g, u64 offset, const u32 *entries,
		     u64 nr);
void net_holes_answered(struct net_group *g, int err);
void net_holes_free(struct net_group *g);

/* ---- net-conn.c */

/*
 * Without the lock: a handle that connects, or NULL with cause, of NET_CAUSE_BYTES.
 * asks: it is for holes.
 */
void *net_conn_dial(const char *uri, const struct mmnf_net_opts *opts,
		    bool asks, char *cause);
/* Does its server tell of holes? */
bool net_conn_tells(const struct net_conn *c);
/* With the lock; the answer goes to net_holes_found(). */
bool net_conn_ask(struct net_conn *c, u64 offset, u64 bytes);
/* What to poll for; false: nothing. */
bool net_conn_poll(const struct net_conn *c, struct pollfd *pfd);
/* Without the lock.  1: connected; 0: not yet; -1 with cause. */
int net_conn_step(struct net_conn *c, short revents, char *cause);
/* With the lock.  0, or -1 with c->cause. */
int net_conn_facts(struct net_conn *c, struct net_facts *facts);

/* What became of a request that was to be sent. */
enum net_sent {
	NET_SENT,
	NET_REFUSED, /* not sent: *err says why */
	NET_BROKEN, /* not sent: the connection is broken */
	NET_BROKEN_SENT, /* sent; then it broke */
};

/* With the lock. */
enum net_sent net_conn_send(struct net_wire *w, int *err);
/* Reads and writes the socket as poll() told; false: it is broken. */
bool net_conn_notify(struct net_conn *c, short events);
void net_conn_look(struct net_conn *c); /* for c->wants, before all else */
int net_conn_fd(const struct net_conn *c);
/* Says goodbye to the server, where nothing is in flight. */
void net_conn_bye(struct net_conn *c);
void net_conn_close(void *handle);

/* ---- net-dial.c */

/* Of the keeper, without the lock: c->handle, or c->dial, or -1 with cause. */
int net_dial_start(struct net_conn *c, char *cause);
/* With the lock.  1: c->handle; 0: not yet; -1 with c->cause. */
int net_dial_take(struct net_conn *c);
/* With the lock: it is not wanted any more. */
void net_dial_forget(struct net_conn *c);
/* In exit(), which libnbd does not live through. */
void net_dial_cancel(struct mmnf_net *net);

/* ---- net-keep.c */

int net_keep_start(struct mmnf_net *net);
/* Something is for the keeper to do; with the lock. */
void net_keep_nudge(struct mmnf_net *net);

/* ---- net-drive.c */

int net_drive_start(struct mmnf_net *net);
/* Puts a connection that is up under watch, or takes it out. */
int net_drive_watch(struct net_conn *c);
void net_drive_unwatch(struct net_conn *c);
/* It waits for an answer, or to write; with the lock. */
void net_drive_events(struct net_conn *c);
/* Is it still there?  Whoever drives is to see; with the lock. */
void net_drive_look(struct net_conn *c);
/* mmnf_net_wake() with the lock. */
void net_drive_wake(struct mmnf_net *net, bool *done);
/* Whoever drives looks around. */
void net_drive_kick(struct mmnf_net *net);
/* Requests are in flight that nobody may wait for; with the lock. */
void net_drive_background(struct mmnf_net *net);

#endif
