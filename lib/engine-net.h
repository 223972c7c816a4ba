/* SPDX-License-Identifier: MIT */
/* What engine-net.c and queue-net.c share. */
#ifndef MMNF_ENGINE_NET_H
#define MMNF_ENGINE_NET_H

#include <unistd.h>

#include "net.h"
#include "ssd.h"
#include "tier.h"

struct remote_group;

#define REMOTE_LATE 64U

/* Until then a write that was given up may still change these bytes. */
struct remote_late {
	u64 start, end;
	s64 until_ns;
};

struct mmnf_remote {
	struct mmnf_net *net;
	struct mmnf_ssd *ssd; /* NULL: none was asked for; see ssd_of() */
	pid_t pid;
	s64 close_ns; /* how long it may take to close it */
	pthread_mutex_t lock, syncing; /* syncing: outside of lock */
	struct remote_group *group;
	struct remote_late late[REMOTE_LATE];
	u32 nr_late;
	s64 grace_ns;
};

/* The cache; a child after fork() has none. */
static inline struct mmnf_ssd *ssd_of(const struct mmnf_remote *r)
{
	return r->ssd && r->pid == getpid() ? r->ssd : NULL;
}

static inline u64 position(const struct mmnf_field *field, u64 segment,
			   u64 offset)
{
	return segment * mmnf_field_geometry(field)->segment_bytes + offset;
}

/* ---- queue-net.c: as struct mmnf_tier_ops says */

int mmnf_queue_net_open(struct mmnf_field *field, u32 depth, int eventfd,
			struct mmnf_queue **out);
void mmnf_queue_net_close(struct mmnf_queue *head);
u32 mmnf_queue_net_submit(struct mmnf_queue *head,
			  struct mmnf_read *const *reads, u32 nr);
u32 mmnf_queue_net_reap(struct mmnf_queue *head, struct mmnf_read **done,
			u32 max, s64 timeout_ns);
void mmnf_queue_net_cancel(struct mmnf_queue *head);
void mmnf_queue_net_wait(struct mmnf_queue *head, s64 timeout_ns);
void mmnf_queue_net_wake(struct mmnf_queue *head);
bool mmnf_queue_net_begin(struct mmnf_field *field, const struct mmnf_run *run,
			  struct mmnf_alone *alone);
int mmnf_queue_net_end(struct mmnf_field *field, const struct mmnf_run *run,
		       struct mmnf_alone *alone, char *dst);

#endif
