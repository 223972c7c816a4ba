// SPDX-License-Identifier: MIT
/*
 * Who waits for the sockets: one thread at a time, `driving`.
 *
 * A thread that waits for its requests drives itself, so that a single read
 * costs no change of threads.  Further ones sleep until theirs are done or the
 * one before has what it wanted.  A thread of the net drives what is in flight
 * while nobody waits.
 *
 *	wait()  --- nobody drives? ---> poll -> settle -> done() --.
 *	   ^ asleep until woken                                    |
 *	   '---------- next waiter, or the net's thread <----------'
 *
 * poll, not epoll: whoever sends to a socket that epoll watches, a server of this
 * machine or an interrupt, pays for it with each piece, also while nobody waits; poll
 * costs only who sleeps.  Polled are connections that wait for something, those that
 * did, for WARM more times, and now and then all, which may have been closed.  Who uses
 * one that is not polled kicks whoever sleeps.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net-internal.h"

#define WARM 16
#define GRACE_NS 2000000LL
#define PAUSE_NS 10000000LL
#define BURST_MAX 512

static void add_polled(struct net_conn *c, u8 warm)
{
	struct mmnf_net *net = c->group->net;

	c->warm = (u8)max_u64(c->warm, warm);
	if (c->is_polled)
		return;
	c->is_polled = true;
	c->next_polled = NULL;
	*net->polled_end = c;
	net->polled_end = &c->next_polled;
}

/*
 * libnbd closes the socket when it breaks, and a child after fork() holds a copy of
 * it: whoever polls it then would not be told of its end.
 */
int net_drive_watch(struct net_conn *c)
{
	c->watched = fcntl(net_conn_fd(c), F_DUPFD_CLOEXEC, 0);
	if (c->watched < 0)
		return -errno;
	net_conn_look(c);
	c->life++;
	c->events = 0;
	add_polled(c, WARM);
	return 0;
}

/* After its handle was closed: the server is to see the end of it as well. */
void net_drive_unwatch(struct net_conn *c)
{
	shutdown(c->watched, SHUT_RDWR);
	close(c->watched);
}

void net_drive_kick(struct mmnf_net *net)
{
	u64 one = 1;

	if (write(net->kick, &one, sizeof(one)) < 0)
		return; /* full: readable as it is */
}

/* Once is enough. */
static void wake_driver(struct mmnf_net *net)
{
	if (net->asleep)
		net_drive_kick(net);
	net->asleep = false;
}

void net_drive_events(struct net_conn *c)
{
	if (c->state != NET_UP || c->wants == c->events)
		return;
	add_polled(c, WARM);
	if (c->wants & ~c->events)
		wake_driver(c->group->net);
}

void net_drive_look(struct net_conn *c)
{
	if (c->state != NET_UP)
		return;
	add_polled(c, 1);
	if (!c->events)
		wake_driver(c->group->net);
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
		if (w->file == file) {
			w->is_armed = false;
			net_drive_wake(net, w->done);
		}
}

static void take_conn(struct mmnf_net *net, struct net_conn *c, short events)
{
	if (!net_conn_notify(c, events)) {
		net_settle(net);
		if (c->index == NET_ASKER)
			net_holes_lost(c->group);
		else
			net_group_lost(c);
		return;
	}
	net_settle(net);
	net_group_pump(c->group);
	net_drive_events(c);
}

static bool is_waiting(const struct net_conn *c)
{
	return c->index == NET_ASKER ? c->group->holes.is_asking : c->in_flight;
}

/* False: no memory. */
static bool make_room(struct mmnf_net *net, u32 room)
{
	struct pollfd *pfd = realloc(net->pfd, room * sizeof(*pfd));
	struct net_seen *seen;

	if (!pfd)
		return false;
	net->pfd = pfd;
	seen = realloc(net->seen, room * sizeof(*seen));
	if (!seen)
		return false;
	net->seen = seen;
	net->poll_room = room;
	return true;
}

static u32 gather_conns(struct mmnf_net *net, u32 n)
{
	struct net_conn **at = &net->polled, *c;

	while ((c = *at)) {
		if (is_waiting(c))
			c->warm = WARM;
		if (c->state != NET_UP || !c->warm) {
			c->is_polled = false;
			c->events = 0;
			*at = c->next_polled;
			continue;
		}
		c->warm--;
		c->events = c->wants;
		net->pfd[n] = (struct pollfd) { c->watched, c->events, 0 };
		net->seen[n++] = (struct net_seen) { c, c->life };
		at = &c->next_polled;
	}
	net->polled_end = at;
	return n;
}

static u32 gather_watches(struct mmnf_net *net, u32 n)
{
	struct mmnf_net_watch *w;

	for (w = net->watches; w; w = w->next) {
		if (!w->is_armed)
			continue;
		/* It cannot be polled: then it is looked at without end. */
		if (n == net->poll_room && !make_room(net, 2 * n)) {
			take_watch(net, w->file);
			net_drive_kick(net);
			continue;
		}
		net->pfd[n] = (struct pollfd) { w->file, POLLIN, 0 };
		net->seen[n++].conn = NULL;
	}
	return n;
}

static void take_events(struct mmnf_net *net, u32 nr)
{
	u64 count;
	u32 i;

	if (net->pfd[0].revents && read(net->kick, &count, sizeof(count)) < 0)
		net->pfd[0].revents = 0; /* another has read it */
	for (i = 1; i < nr && !net->stop; i++) {
		struct net_conn *c = net->seen[i].conn;

		if (!net->pfd[i].revents)
			continue;
		if (!c)
			take_watch(net, net->pfd[i].fd);
		else if (c->state == NET_UP && c->life == net->seen[i].life)
			take_conn(net, c, net->pfd[i].revents);
	}
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
	struct timespec ts = { timeout_ns / 1000000000,
			       timeout_ns % 1000000000 };
	s64 from = now;
	u32 nr;
	int n;

	net->driving = true;
	net->driving_waiter = self;
	net->driving_thread = pthread_self();
	nr = gather_watches(net, gather_conns(net, 1));
	net->asleep = true;
	pthread_mutex_unlock(&net->lock);
	if (!from)
		from = mmnf_now_ns();
	n = ppoll(net->pfd, nr, timeout_ns < 0 ? NULL : &ts, NULL);
	pthread_mutex_lock(&net->lock);
	net->asleep = false;
	note_sleep(net, from);
	net->activity++;
	if (n > 0)
		take_events(net, nr);
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
	u32 conns = net->nr_groups * (net->opts.connections + 1);
	sigset_t all, before;
	int err;

	net->polled_end = &net->polled;
	if (!make_room(net, conns + 1))
		return mmnf_error(ENOMEM, "no memory for %u connections",
				  conns);
	net->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (net->kick < 0)
		return mmnf_error_system(errno, "eventfd");
	net->pfd[0] = (struct pollfd) { net->kick, POLLIN, 0 };
	net->seen[0].conn = NULL;
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
	pthread_mutex_lock(&net->lock);
	if (!watch->is_known) {
		watch->next = net->watches;
		net->watches = watch;
		watch->is_known = true;
	}
	if (!watch->is_armed)
		wake_driver(net);
	watch->is_armed = true;
	pthread_mutex_unlock(&net->lock);
}

void mmnf_net_unwatch(struct mmnf_net *net, struct mmnf_net_watch *watch)
{
	struct mmnf_net_watch **at = &net->watches;

	if (!watch->is_known || net->forks != net_forks())
		return;
	pthread_mutex_lock(&net->lock);
	while (*at != watch)
		at = &(*at)->next;
	*at = watch->next;
	/* Or whoever polls it would keep it open. */
	if (watch->is_armed)
		wake_driver(net);
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
