// SPDX-License-Identifier: MIT
/*
 * Who waits for the sockets: one thread at a time, `driving`.
 *
 * A thread that waits for its requests drives itself, so that a single read
 * costs no change of threads.  Further ones sleep until theirs are done or the
 * one before has what it wanted.  A thread of the net drives what is in flight
 * while nobody waits.
 *
 *	wait()  --- nobody drives? ---> epoll_wait -> settle -> done() --.
 *	   ^ asleep until woken                                          |
 *	   '------------- next waiter, or the net's thread <-------------'
 *
 * epoll, because whoever drives may end or change: a poll that io_uring has
 * under way belongs to the thread that submitted it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net-internal.h"

#define EVENTS 32
#define KICK UINT64_MAX
#define WATCH (1ULL << 63) /* and the file's number */
#define GRACE_NS 2000000LL
#define PAUSE_NS 10000000LL
#define BURST_MAX 512

/*
 * libnbd closes the socket when it breaks, and a child after fork() holds a copy of
 * it: epoll would go on to tell of it, with nothing left to call it off by.
 */
int net_drive_watch(struct net_conn *c)
{
	struct mmnf_net *net = c->group->net;
	struct epoll_event e = { 0 };
	int err;

	c->watched = fcntl(net_conn_fd(c), F_DUPFD_CLOEXEC, 0);
	if (c->watched < 0)
		return -errno;
	net_conn_look(c);
	c->events = c->wants;
	e.events = c->events;
	e.data.u64 = (u64)c->group->index << 32 | c->index;
	if (!epoll_ctl(net->epoll, EPOLL_CTL_ADD, c->watched, &e))
		return 0;
	err = -errno;
	close(c->watched);
	return err;
}

/* After its handle was closed: the server is to see the end of it as well. */
void net_drive_unwatch(struct net_conn *c)
{
	epoll_ctl(c->group->net->epoll, EPOLL_CTL_DEL, c->watched, NULL);
	shutdown(c->watched, SHUT_RDWR);
	close(c->watched);
}

void net_drive_events(struct net_conn *c)
{
	struct epoll_event e = { 0 };

	if (c->state != NET_UP || c->wants == c->events)
		return;
	c->events = c->wants;
	e.events = c->events;
	e.data.u64 = (u64)c->group->index << 32 | c->index;
	epoll_ctl(c->group->net->epoll, EPOLL_CTL_MOD, c->watched, &e);
}

void net_drive_kick(struct mmnf_net *net)
{
	u64 one = 1;

	if (write(net->kick, &one, sizeof(one)) < 0)
		return; /* full: readable as it is */
}

/* Tells whoever waits for it. */
void net_drive_wake(struct mmnf_net *net, bool *done)
{
	struct net_waiter *w;

	__atomic_store_n(done, true, __ATOMIC_RELEASE);
	for (w = net->waiters; w && w->done != done; w = w->next)
		;
	if (w && w != net->driving_waiter)
		pthread_cond_signal(&w->cond);
	else if (w && !pthread_equal(net->driving_thread, pthread_self()))
		net_drive_kick(net);
}

/* The file may be another's by now, who then looks in vain. */
static void take_watch(struct mmnf_net *net, int file)
{
	struct mmnf_net_watch *w;

	for (w = net->watches; w; w = w->next)
		if (w->file == file)
			net_drive_wake(net, w->done);
}

static void take_event(struct mmnf_net *net, const struct epoll_event *e)
{
	struct net_conn *c;
	u64 n;

	if (e->data.u64 == KICK) {
		if (read(net->kick, &n, sizeof(n)) < 0)
			return; /* another has read it */
		return;
	}
	if (e->data.u64 & WATCH) {
		take_watch(net, (int)(u32)e->data.u64);
		return;
	}
	c = &net->group[e->data.u64 >> 32].conn[(u32)e->data.u64];
	/* Of the connection before: then the socket has nothing to say. */
	if (c->state != NET_UP)
		return;
	if (!net_conn_notify(c, e->events)) {
		net_settle(net);
		if (c->index == NET_ASKER)
			net_holes_lost(c->group);
		else
			net_group_lost(c);
		return;
	}
	net_settle(net);
	net_group_pump(c->group);
	if (c->state == NET_UP)
		net_drive_events(c);
}

/*
 * While answers are read, no request takes their place.  Where the drivers sleep for
 * a quarter of their time or more, servers are what is waited for: then requests go
 * out after each answer; else after many, which costs less.
 */
static void note_sleep(struct mmnf_net *net, s64 from)
{
	s64 now = mmnf_now_ns(), all = now - net->woken_ns;

	net->woken_ns = net->now_ns = now;
	if (all > PAUSE_NS)
		return;
	net->slept_ns += (now - from - net->slept_ns) / 16;
	net->all_ns += (all - net->all_ns) / 16;
	net->nr_burst = net->slept_ns > net->all_ns / 4 ? 1 : BURST_MAX;
}

/* With the lock, which is let go of meanwhile; now: 0: not known. */
static void drive(struct mmnf_net *net, struct net_waiter *self, s64 timeout_ns,
		  s64 now)
{
	struct epoll_event events[EVENTS];
	struct timespec ts = { timeout_ns / 1000000000,
			       timeout_ns % 1000000000 };
	s64 from = now;
	int i, n;

	net->driving = true;
	net->driving_waiter = self;
	net->driving_thread = pthread_self();
	pthread_mutex_unlock(&net->lock);
	if (!from)
		from = mmnf_now_ns();
	n = epoll_pwait2(net->epoll, events, EVENTS,
			 timeout_ns < 0 ? NULL : &ts, NULL);
	/* Before Linux 5.11; and filters of calls refuse what they do not know. */
	if (n < 0 && errno != EINTR)
		n = epoll_wait(net->epoll, events, EVENTS,
			       timeout_ns < 0 ? -1 :
						(int)(timeout_ns / 1000000));
	pthread_mutex_lock(&net->lock);
	note_sleep(net, from);
	net->activity++;
	for (i = 0; i < n && !net->stop; i++)
		take_event(net, &events[i]);
	net_run_done(net);
	net->driving = false;
	net->driving_waiter = NULL;
}

/* Is there something for the net's thread? */
static bool is_left(const struct mmnf_net *net)
{
	return !net->driving && !net->waiters &&
	       (net->nr_background || net->left);
}

void net_drive_background(struct mmnf_net *net)
{
	if (is_left(net) && !net->soon)
		pthread_cond_signal(&net->work);
}

/* Whoever should drive now. */
static void hand_over(struct mmnf_net *net)
{
	if (!net->driving && net->waiters)
		pthread_cond_signal(&net->waiters->cond);
	else
		net_drive_background(net);
}

static void sleep_until(struct mmnf_net *net, pthread_cond_t *cond, s64 end_ns)
{
	struct timespec ts = { end_ns / 1000000000, end_ns % 1000000000 };

	if (end_ns < 0)
		pthread_cond_wait(cond, &net->lock);
	else
		pthread_cond_clockwait(cond, &net->lock, CLOCK_MONOTONIC, &ts);
}

/*
 * Those who waited a moment ago are about to wait again: it leaves the sockets
 * to them, if they do.
 */
static void *work(void *arg)
{
	struct mmnf_net *net = arg;

	pthread_mutex_lock(&net->lock);
	while (!net->stop) {
		if (!is_left(net)) {
			sleep_until(net, &net->work, -1);
		} else if (mmnf_now_ns() - net->waited_ns < GRACE_NS) {
			net->soon = true;
			sleep_until(net, &net->work, net->waited_ns + GRACE_NS);
			net->soon = false;
		} else {
			drive(net, NULL, -1, 0);
			hand_over(net);
		}
	}
	pthread_mutex_unlock(&net->lock);
	return NULL;
}

int net_drive_start(struct mmnf_net *net)
{
	struct epoll_event e = { .events = EPOLLIN, .data.u64 = KICK };
	sigset_t all, before;
	int err;

	net->epoll = epoll_create1(EPOLL_CLOEXEC);
	net->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (net->epoll < 0 || net->kick < 0 ||
	    epoll_ctl(net->epoll, EPOLL_CTL_ADD, net->kick, &e))
		return mmnf_error_system(errno, "epoll");
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&net->driver, NULL, work, net);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	net->has_driver = !err;
	return err ? mmnf_error_system(err, "a thread for the network") : 0;
}

static bool is_true(const bool *flag)
{
	return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

void mmnf_net_wake(struct mmnf_net *net, bool *done)
{
	/* A forked child's lock may be held by a thread that it does not have. */
	if (net->forks != net_forks()) {
		__atomic_store_n(done, true, __ATOMIC_RELEASE);
		return;
	}
	pthread_mutex_lock(&net->lock);
	net_drive_wake(net, done);
	pthread_mutex_unlock(&net->lock);
}

void mmnf_net_watch(struct mmnf_net *net, struct mmnf_net_watch *watch)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLONESHOT,
				 .data.u64 = WATCH | (u32)watch->file };
	int op = watch->is_known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	pthread_mutex_lock(&net->lock);
	if (!watch->is_known) {
		watch->next = net->watches;
		net->watches = watch;
		watch->is_known = true;
	}
	/* It cannot be watched: then it is looked at without end. */
	if (epoll_ctl(net->epoll, op, watch->file, &e))
		net_drive_wake(net, watch->done);
	pthread_mutex_unlock(&net->lock);
}

void mmnf_net_unwatch(struct mmnf_net *net, struct mmnf_net_watch *watch)
{
	struct mmnf_net_watch **at = &net->watches;

	/* Of a forked child epoll would forget the parent's. */
	if (!watch->is_known || net->forks != net_forks())
		return;
	pthread_mutex_lock(&net->lock);
	while (*at != watch)
		at = &(*at)->next;
	*at = watch->next;
	epoll_ctl(net->epoll, EPOLL_CTL_DEL, watch->file, NULL);
	pthread_mutex_unlock(&net->lock);
}

static void leave(struct mmnf_net *net, const struct net_waiter *w)
{
	struct net_waiter **at = &net->waiters;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
}

bool mmnf_net_wait(struct mmnf_net *net, const bool *done, s64 timeout_ns)
{
	/* Never destroyed: who signals it holds the lock, and so is done with it. */
	struct net_waiter self = { .done = done,
				   .cond = PTHREAD_COND_INITIALIZER };
	s64 end = -1, now = 0;

	if (is_true(done) || net->forks != net_forks())
		return is_true(done);
	if (timeout_ns >= 0)
		end = (now = mmnf_now_ns()) + timeout_ns;
	/* Waiting for the lock counts: what is left of the time is less then. */
	if (pthread_mutex_trylock(&net->lock)) {
		pthread_mutex_lock(&net->lock);
		now = 0;
	}
	net->left = false;
	net->nr_waits++;
	self.next = net->waiters;
	net->waiters = &self;
	while (!is_true(done)) {
		if (end >= 0 && !now)
			now = mmnf_now_ns();
		if (end >= 0 && now >= end)
			break;
		if (net->driving || net->stop)
			sleep_until(net, &self.cond, end);
		else
			drive(net, &self, end < 0 ? -1 : end - now, now);
		now = 0;
	}
	leave(net, &self);
	if (net->nr_background)
		net->waited_ns = mmnf_now_ns();
	hand_over(net);
	pthread_mutex_unlock(&net->lock);
	return is_true(done);
}
