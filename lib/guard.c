// SPDX-License-Identifier: MIT
/*
 * The guard: a page of a field that cannot be read is told to a callback and
 * shows the fill value, instead of killing the program.
 *
 *	load -> SIGBUS -> handler -> a guarded window? -- no --> earlier handler
 *	                                  | yes
 *	                              callback -- refuses ------> earlier handler
 *	                                  | 0
 *	                       page of fill in its place -> the load again
 *
 * One handler for the process, from the first guard on.  It takes no lock and
 * allocates nothing of the program's: it finds the window in a list of ranges
 * whose entries are written before their start is, and whose memory is never
 * given back.  What it takes from a guard it takes while `nr_running` counts
 * it, so that a guard is freed only when no handler looks at it; the callback
 * runs later, and may leave by siglongjmp().
 *
 * The library's own copies from memory (mapped.c) are guarded by the same handler:
 * their ranges have no guard, and a bad page there ends the copy by siglongjmp().
 *
 * guard_lock guards list, handler and guards; inside windows.lock.
 */
#include <errno.h>
#include <linux/futex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "internal.h"

#define RANGES 256

/*
 * struct mmnf_guarded - a window in memory
 * @start: 0 while the rest is not valid
 * @index, @index_end: where an index of tiles lies, which must read as absent
 * @guard: NULL: a range of mmnf_guard_range()
 */
struct mmnf_guarded {
	uintptr_t start, end, index, index_end;
	u64 segment;
	struct mmnf_guard *guard;
	struct mmnf_guarded *next_free;
};

struct block {
	struct block *next;
	struct mmnf_guarded range[RANGES];
};

/* What the handler goes by; never changed. */
struct reaction {
	struct mmnf_field *field;
	int (*bad_page)(void *arg, const struct mmnf_bad_page *bad);
	void *arg;
	u64 data_offset;
	u32 element_bytes;
	u8 shown[8];
	bool shown_is_zero;
};

struct mmnf_guard {
	struct reaction reaction;
	u64 nr_bad; /* atomic */
};

static pthread_mutex_t guard_lock = PTHREAD_MUTEX_INITIALIZER;
static struct block *blocks;
static struct mmnf_guarded *free_ranges;
static u32 nr_guards, nr_running; /* guards: and ranges without one */
static bool is_awaited; /* that nr_running is 0 */
static struct sigaction earlier;
static bool installed;
static __thread sigjmp_buf *copying; /* where this thread's copy ends */

/* ---- in the handler */

/* As the earlier handler would have been called. */
static void pass_on(int signal, siginfo_t *info, void *context)
{
	struct sigaction act = earlier, standard = { .sa_handler = SIG_DFL };
	sigset_t mask = act.sa_mask, before;

	if (!(act.sa_flags & SA_SIGINFO) && act.sa_handler == SIG_IGN &&
	    info->si_code <= 0)
		return;
	if (!(act.sa_flags & SA_SIGINFO) &&
	    (act.sa_handler == SIG_DFL || act.sa_handler == SIG_IGN)) {
		/* The load meets it again, and a signal sent is sent again. */
		sigaction(signal, &standard, NULL);
		if (info->si_code <= 0)
			raise(signal);
		return;
	}
	if (!(act.sa_flags & SA_NODEFER))
		sigaddset(&mask, signal);
	pthread_sigmask(SIG_BLOCK, &mask, &before);
	if (act.sa_flags & SA_SIGINFO)
		act.sa_sigaction(signal, info, context);
	else
		act.sa_handler(signal);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/*
 * The window with an address, as it was at one moment: it may be dropped meanwhile,
 * which changes its start.
 */
static bool find(uintptr_t at, struct mmnf_guarded *out, struct reaction *how)
{
	const struct block *b = __atomic_load_n(&blocks, __ATOMIC_ACQUIRE);
	u32 i;

	for (; b; b = b->next) {
		for (i = 0; i < RANGES; i++) {
			const struct mmnf_guarded *r = &b->range[i];
			uintptr_t start;

			start = __atomic_load_n(&r->start, __ATOMIC_SEQ_CST);
			if (!start || at < start || at >= r->end)
				continue;
			*out = (struct mmnf_guarded) {
				.start = start,
				.end = r->end,
				.index = r->index,
				.index_end = r->index_end,
				.segment = r->segment,
				.guard = r->guard,
			};
			if (!r->guard)
				return true;
			__atomic_fetch_add(&r->guard->nr_bad, 1,
					   __ATOMIC_RELAXED);
			*how = r->guard->reaction;
			return true;
		}
	}
	return false;
}

/* Puts memory of our own where the page is; false: there is none. */
static bool replace(const struct mmnf_guarded *r, const struct reaction *how,
		    uintptr_t page, u64 offset)
{
	u64 bytes = mmnf_page_bytes(), i;
	bool plain = how->shown_is_zero && page + bytes <= r->index;
	u8 *p;

	/* What is private is zero again after MADV_DONTNEED, which evicts. */
	p = mmap(plain ? (void *)page : NULL, bytes,
		 PROT_READ | (plain ? 0 : PROT_WRITE),
		 (plain ? MAP_PRIVATE | MAP_FIXED : MAP_SHARED) | MAP_ANONYMOUS,
		 -1, 0);
	if (p == MAP_FAILED)
		return false;
	if (plain)
		return true;
	/* Elements need not begin where pages do. */
	for (i = 0; i < bytes; i++)
		p[i] = page + i >= r->index && page + i < r->index_end ?
			       0xff :
			       how->shown[(offset + i + how->element_bytes -
					   how->data_offset %
						   how->element_bytes) %
					  how->element_bytes];
	if (!mprotect(p, bytes, PROT_READ) &&
	    mremap(p, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
		   (void *)page) != MAP_FAILED)
		return true;
	munmap(p, bytes);
	return false;
}

/* What was blocked before the signal. */
static const sigset_t *mask_of(const void *context)
{
	return &((const ucontext_t *)context)->uc_sigmask;
}

/* Its turn to look at the list is over. */
static void leave(void)
{
	/* Who waits has said so before he looked. */
	if (!__atomic_sub_fetch(&nr_running, 1, __ATOMIC_SEQ_CST) &&
	    __atomic_load_n(&is_awaited, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &nr_running, FUTEX_WAKE_PRIVATE, 1, NULL,
			NULL, 0);
}

static void handler(int signal, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr;
	u64 bytes = mmnf_page_bytes();
	struct mmnf_bad_page bad = { .size = sizeof(bad) };
	struct mmnf_guarded range = { 0 };
	struct reaction how = { 0 };
	int saved = errno;
	bool ours;

	__atomic_fetch_add(&nr_running, 1, __ATOMIC_SEQ_CST);
	ours = info->si_code > 0 && find(at, &range, &how);
	leave();
	if (ours && !range.guard) {
		/* Nobody but mmnf_guard_copy() knows an address in there. */
		errno = saved;
		if (copying) {
			pthread_sigmask(SIG_SETMASK, mask_of(context), NULL);
			siglongjmp(*copying, 1);
		}
		ours = false;
	}
	if (ours) {
		bad.field = how.field;
		bad.address = (const void *)at;
		bad.page = (const void *)(at - at % bytes);
		bad.page_bytes = bytes;
		bad.segment = range.segment;
		bad.offset_bytes = at - at % bytes - range.start;
		errno = saved;
		ours = (!how.bad_page || !how.bad_page(how.arg, &bad)) &&
		       replace(&range, &how, at - at % bytes, bad.offset_bytes);
	}
	if (!ours)
		pass_on(signal, info, context);
	errno = saved;
}

/* ---- outside */

/* A forked child has the list in one piece, and no handler of another thread. */
static void before_fork(void)
{
	pthread_mutex_lock(&guard_lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&guard_lock);
}

static void in_child(void)
{
	nr_running = 0;
	pthread_mutex_unlock(&guard_lock);
}

/*
 * Before anybody can hold the lock: a fork() that is under way does not run what
 * is registered meanwhile.
 */
static __attribute__((constructor)) void tell_of_forks(void)
{
	pthread_atfork(before_fork, after_fork, in_child);
}

static int install(void)
{
	struct sigaction act = { .sa_sigaction = handler };

	if (installed)
		return 0;
	sigemptyset(&act.sa_mask);
	act.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
	if (sigaction(SIGBUS, NULL, &earlier) || sigaction(SIGBUS, &act, NULL))
		return -errno;
	installed = true;
	return 0;
}

/* Stays where a later handler may pass on to it. */
static void uninstall(void)
{
	struct sigaction now;

	if (sigaction(SIGBUS, NULL, &now) || !(now.sa_flags & SA_SIGINFO) ||
	    now.sa_sigaction != handler)
		return;
	sigaction(SIGBUS, &earlier, NULL);
	installed = false;
}

static struct mmnf_guarded *new_range(void)
{
	struct mmnf_guarded *r = free_ranges;
	struct block *b;
	u32 i;

	if (r) {
		free_ranges = r->next_free;
		return r;
	}
	b = calloc(1, sizeof(*b));
	if (!b)
		return NULL;
	for (i = 1; i < RANGES; i++) {
		b->range[i].next_free = free_ranges;
		free_ranges = &b->range[i];
	}
	b->next = blocks;
	__atomic_store_n(&blocks, b, __ATOMIC_RELEASE);
	return &b->range[0];
}

void mmnf_guard_window(struct mmnf_field *field, struct mmnf_mapping *m)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_guarded *r;
	uintptr_t base = (uintptr_t)m->base;

	mmnf_guard_drop(m);
	pthread_mutex_lock(&guard_lock);
	r = field->guard && !m->absent ? new_range() : NULL;
	if (r) {
		r->end = base + round_up_u64(m->bytes, mmnf_page_bytes());
		r->index = r->index_end = r->end;
		if (g->indexed) {
			r->index = g->index_first ?
					   base :
					   base + m->bytes - g->index_bytes;
			r->index_end = r->index + g->index_bytes;
		}
		r->segment = m->segment;
		r->guard = field->guard;
		__atomic_store_n(&r->start, base, __ATOMIC_RELEASE);
		m->guarded = r;
	}
	pthread_mutex_unlock(&guard_lock);
}

/* Asleep: a thread of higher priority would keep the processor from a handler. */
static void wait_for_handlers(void)
{
	u32 nr;

	__atomic_store_n(&is_awaited, true, __ATOMIC_SEQ_CST);
	while ((nr = __atomic_load_n(&nr_running, __ATOMIC_SEQ_CST)))
		syscall(SYS_futex, &nr_running, FUTEX_WAIT_PRIVATE, nr, NULL,
			NULL, 0);
	__atomic_store_n(&is_awaited, false, __ATOMIC_SEQ_CST);
}

/* With the lock. */
static void drop(struct mmnf_guarded *r)
{
	__atomic_store_n(&r->start, 0, __ATOMIC_SEQ_CST);
	/* Who has just found it may still be reading it. */
	wait_for_handlers();
	r->next_free = free_ranges;
	free_ranges = r;
}

void mmnf_guard_drop(struct mmnf_mapping *m)
{
	if (!m->guarded)
		return;
	pthread_mutex_lock(&guard_lock);
	drop(m->guarded);
	m->guarded = NULL;
	pthread_mutex_unlock(&guard_lock);
}

struct mmnf_guarded *mmnf_guard_range(const void *base, u64 bytes)
{
	struct mmnf_guarded *r = NULL;

	pthread_mutex_lock(&guard_lock);
	if (!install())
		r = new_range();
	if (r) {
		*r = (struct mmnf_guarded) { .end = (uintptr_t)base + bytes };
		__atomic_store_n(&r->start, (uintptr_t)base, __ATOMIC_RELEASE);
	}
	nr_guards += r != NULL;
	pthread_mutex_unlock(&guard_lock);
	return r;
}

void mmnf_guard_range_drop(struct mmnf_guarded *r)
{
	pthread_mutex_lock(&guard_lock);
	drop(r);
	if (!--nr_guards)
		uninstall();
	pthread_mutex_unlock(&guard_lock);
}

bool mmnf_guard_can_copy(void)
{
	struct sigaction now;
	sigset_t blocked;

	return !sigaction(SIGBUS, NULL, &now) && now.sa_flags & SA_SIGINFO &&
	       now.sa_sigaction == handler &&
	       !pthread_sigmask(SIG_BLOCK, NULL, &blocked) &&
	       !sigismember(&blocked, SIGBUS);
}

bool mmnf_guard_copy(mmnf_copy_fn *copy, void *arg, const char *from)
{
	sigjmp_buf *outer = copying, here;

	/* Saving what is blocked would be a system call: the handler restores it. */
	if (sigsetjmp(here, 0)) {
		copying = outer;
		return false;
	}
	copying = &here;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	copy(arg, from);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	copying = outer;
	return true;
}

static struct mmnf_guard *new_guard(struct mmnf_field *field,
				    const struct mmnf_guard_opts *opts)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_guard *guard = calloc(1, sizeof(*guard));
	struct reaction *how;
	u32 i;

	if (!guard)
		return NULL;
	how = &guard->reaction;
	how->field = field;
	how->bad_page = opts->bad_page;
	how->arg = opts->arg;
	how->element_bytes = g->element_bytes;
	how->data_offset = g->data_offset;
	memcpy(how->shown, opts->poison ? opts->poison : g->fill,
	       g->element_bytes);
	how->shown_is_zero = true;
	for (i = 0; i < g->element_bytes; i++)
		how->shown_is_zero &= !how->shown[i];
	return guard;
}

MMNF_EXPORT int mmnf_guard_enable(struct mmnf_field *field,
				  const struct mmnf_guard_opts *opts)
{
	struct mmnf_guard_opts o = { .size = sizeof(o) };
	struct mmnf_guard *guard;
	int err = 0;

	mmnf_error_enter("mmnf_guard_enable");
	if (opts) {
		err = mmnf_error_opts(opts, opts->size, sizeof(o),
				      "mmnf_guard_opts");
		if (err)
			return err;
		memcpy(&o, opts, min_u64(opts->size, sizeof(o)));
	}
	guard = new_guard(field, &o);
	if (!guard)
		return mmnf_error(ENOMEM, "no memory");
	pthread_mutex_lock(&guard_lock);
	if (field->guard)
		err = mmnf_error(EALREADY, "the field has a guard");
	else
		err = install();
	if (!err) {
		field->guard = guard;
		nr_guards++;
	}
	pthread_mutex_unlock(&guard_lock);
	if (err) {
		free(guard);
		return err == -EALREADY ? err :
					  mmnf_error_system(-err, "SIGBUS");
	}
	mmnf_window_guard(field);
	return 0;
}

/* The windows have been dropped, or are about to go with the field. */
static int remove_guard(struct mmnf_field *field)
{
	struct mmnf_guard *guard;

	pthread_mutex_lock(&guard_lock);
	guard = field->guard;
	field->guard = NULL;
	if (guard && !--nr_guards)
		uninstall();
	pthread_mutex_unlock(&guard_lock);
	if (!guard)
		return -EINVAL;
	mmnf_window_guard(field);
	free(guard);
	return 0;
}

MMNF_EXPORT int mmnf_guard_disable(struct mmnf_field *field)
{
	mmnf_error_enter("mmnf_guard_disable");
	return remove_guard(field) ?
		       mmnf_error(EINVAL, "the field has no guard") :
		       0;
}

MMNF_EXPORT uint64_t mmnf_guard_bad_pages(const struct mmnf_field *field)
{
	u64 nr = 0;

	pthread_mutex_lock(&guard_lock);
	if (field->guard)
		nr = __atomic_load_n(&field->guard->nr_bad, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&guard_lock);
	return nr;
}

void mmnf_guard_close(struct mmnf_field *field)
{
	if (field->guard)
		remove_guard(field);
}
