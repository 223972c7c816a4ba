// SPDX-License-Identifier: MIT
/*
 * The open segment files of a field: opened when needed, a bounded number kept open.
 * What is done with each of them is in segment-file.c.
 *
 * segments.lock guards the cache and everything in it but the files' contents.
 * A file with users is not closed.
 *
 * Nobody waits for the disk with the lock.  Of a file that is being opened, made or
 * closed the number stands in opening or leaving meanwhile, and only who wants the
 * same one waits: what was written must not be read, nor locked, in another while it is
 * not closed.  A sync uses each file as a reader does, and then waits for those that
 * others were closing.
 *
 * Readers of one file share nothing that they write: a file that is open is found
 * by its number and pinned without the lock, on the thread's own board
 * (cache-pins.c).
 *
 *	a reader			who closes the file
 *	finds the number		takes the number away
 *	pins its place in open[]	is the place on a board?
 *	is the number still there?
 *
 * So one of the two sees the other: the reader takes the lock instead, or the number
 * is put back.  A file that is not that of its number any more stays in its place,
 * without one, until nobody has it pinned.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cache-pins.h"
#include "readahead.h"
#include "shard.h"

static void close_files(struct mmnf_segment *s)
{
	mmnf_mapped_close(s);
	mmnf_resident_close(s);
	mmnf_readahead_close(s);
	if (s->fd >= 0)
		close(s->fd);
	if (s->direct_fd >= 0 && s->direct_fd != s->fd)
		close(s->direct_fd);
	mmnf_shard_free(s->shard);
	pthread_mutex_destroy(&s->settled.lock);
}

/* ---- leaving */

/*
 * Under the lock, before there is another of ours: in a child of fork() the threads are
 * gone that were at files.  Those are not waited for, nor touched.
 */
static bool forget_gone(struct mmnf_segments *all)
{
	struct mmnf_segment **at = &all->leaving;

	if (all->pid == getpid())
		return false;
	all->pid = getpid();
	all->opening = NULL;
	while (*at) {
		if ((*at)->closing)
			*at = (*at)->next;
		else
			at = &(*at)->next;
	}
	pthread_mutex_init(&all->syncing, NULL);
	pthread_cond_init(&all->turned, NULL);
	return true;
}

/* Under the lock: nobody finds s any more; unlock() closes it. */
static void leave(struct mmnf_segments *all, struct mmnf_segment *s)
{
	forget_gone(all);
	s->left = ++all->nr_left;
	s->next = all->leaving;
	all->leaving = s;
	all->nr_unclosed++;
}

static void unlink_leaving(struct mmnf_segments *all, struct mmnf_segment *s)
{
	struct mmnf_segment **at = &all->leaving;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
}

/*
 * Under the lock, which it gives up meanwhile.  Of a segment whose tiles could not be
 * named its number stays, so that nobody reads fill for them.  A child of fork() shares
 * the locks of tiles with its parent, who names them and gives them up.
 */
static void close_leaving(struct mmnf_field *field)
{
	struct mmnf_segments *all = &field->segments;
	struct mmnf_segment *s = all->leaving;
	bool is_parents, is_lost;
	int err;

	while (s->closing)
		s = s->next;
	s->closing = true;
	all->nr_unclosed--;
	pthread_mutex_unlock(&all->lock);
	is_parents = all->owner != getpid();
	err = is_parents ? 0 : mmnf_segment_durable(field, s);
	if (err)
		mmnf_segment_lost(field, err);
	/* Only place[] knew of its new tiles: in another file they would be absent. */
	is_lost = (err || is_parents) && s->shard && s->shard->nr_dirty;
	close_files(s);
	pthread_mutex_lock(&all->lock);
	unlink_leaving(all, s);
	if (is_lost) {
		s->next = all->lost;
		all->lost = s;
	} else {
		free(s);
	}
	pthread_cond_broadcast(&all->turned);
}

/* Under the lock. */
static int check_lost(const struct mmnf_field *field, u64 number)
{
	const struct mmnf_segment *s = field->segments.lost;
	char name[MMNF_KEY_MAX];

	while (s && s->number != number)
		s = s->next;
	if (!s)
		return 0;
	mmnf_segment_name(field, number, name);
	return mmnf_error(
		EIO,
		"segment %s: what was written is lost: open the field again and write it again",
		name);
}

/* Gives the lock up, and closes what has left: also what others took out. */
static void unlock(struct mmnf_field *field)
{
	struct mmnf_segments *all = &field->segments;

	while (all->nr_unclosed)
		close_leaving(field);
	pthread_mutex_unlock(&all->lock);
}

/* Under the lock, which it gives up meanwhile. */
static void wait_for_others(struct mmnf_field *field)
{
	struct mmnf_segments *all = &field->segments;

	if (forget_gone(all))
		return;
	if (all->nr_unclosed)
		close_leaving(field);
	else
		pthread_cond_wait(&all->turned, &all->lock);
}

/* Is another thread opening, making or closing the file of a number? */
static bool is_busy(const struct mmnf_segments *all, u64 number)
{
	const struct mmnf_opening *o = all->opening;
	const struct mmnf_segment *s = all->leaving;

	while (o && o->number != number)
		o = o->next;
	while (s && s->number != number)
		s = s->next;
	return o || s;
}

/* Do any leave that had left by then? */
static bool any_leaving(const struct mmnf_segments *all, u64 left)
{
	const struct mmnf_segment *s = all->leaving;

	while (s && s->left > left)
		s = s->next;
	return s;
}

bool mmnf_segment_resident(const struct mmnf_segment *s, char *dst, u64 bytes,
			   u64 offset)
{
	struct iovec iov = { dst, bytes };

	return preadv2(s->fd, &iov, 1, (off_t)offset, RWF_NOWAIT) ==
	       (ssize_t)bytes;
}

int mmnf_segment_direct(struct mmnf_field *field, struct mmnf_segment *s)
{
	char path[32];

	pthread_mutex_lock(&field->segments.lock);
	if (s->direct_fd < 0) {
		/* The same file, whatever its name is by now. */
		snprintf(path, sizeof(path), "/proc/self/fd/%d", s->fd);
		s->direct_fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	}
	if (s->direct_fd < 0)
		s->direct_fd = s->fd;
	pthread_mutex_unlock(&field->segments.lock);
	return s->direct_fd;
}

int mmnf_segments_init(struct mmnf_field *field)
{
	struct mmnf_segments *all = &field->segments;

	pthread_mutex_init(&all->lock, NULL);
	pthread_mutex_init(&all->syncing, NULL);
	pthread_mutex_init(&all->checks_settled.lock, NULL);
	pthread_cond_init(&all->turned, NULL);
	all->owner = all->pid = getpid();
	all->boards = calloc(1, sizeof(struct boards));
	return all->boards ? mmnf_boards_open(all->boards) : -ENOMEM;
}

/* From here on, and to none if it is 0, a place is found by number - 1. */
static void set_tag(struct mmnf_segments *all, u32 i, u64 tag)
{
	__atomic_store_n(&all->tag[i], tag, __ATOMIC_SEQ_CST);
}

static u32 home_of(u64 number)
{
	return number % MMNF_SEGMENTS_OPEN;
}

/* The place where a segment is open, or MMNF_SEGMENTS_OPEN. */
static u32 find(const struct mmnf_segments *all, u64 number)
{
	u32 home = home_of(number), n, i;

	for (n = 0; n < MMNF_SEGMENTS_OPEN; n++) {
		i = (home + n) % MMNF_SEGMENTS_OPEN;
		if (__atomic_load_n(&all->tag[i], __ATOMIC_SEQ_CST) ==
		    number + 1)
			return i;
	}
	return MMNF_SEGMENTS_OPEN;
}

/* Under the lock: takes out what is in a place, if nobody uses it. */
static bool leave_place(struct mmnf_segments *all, u32 i)
{
	struct mmnf_segment *s = all->open[i];
	u64 tag = all->tag[i];

	if (s->refs)
		return false;
	set_tag(all, i, 0);
	if (mmnf_boards_have(all->boards, i)) {
		set_tag(all, i, tag);
		return false;
	}
	__atomic_store_n(&all->open[i], NULL, __ATOMIC_RELAXED);
	leave(all, s);
	return true;
}

/* Under the lock: the same of what has lost its number. */
static void leave_lost(struct mmnf_segments *all, u32 i)
{
	if (all->open[i] && !all->tag[i])
		leave_place(all, i);
}

/* An empty place, the home of a number if that is one; or MMNF_SEGMENTS_OPEN. */
static u32 empty_place(const struct mmnf_segments *all, u64 number)
{
	u32 home = home_of(number), n, i;

	for (n = 0; n < MMNF_SEGMENTS_OPEN; n++) {
		i = (home + n) % MMNF_SEGMENTS_OPEN;
		if (!all->open[i])
			return i;
	}
	return MMNF_SEGMENTS_OPEN;
}

/* Of those that are not tried: the one longest unused. */
static u32 oldest_place(const struct mmnf_segments *all, u64 tried)
{
	u64 stamp, least = UINT64_MAX;
	u32 i, oldest = 0;

	for (i = 0; i < MMNF_SEGMENTS_OPEN; i++) {
		stamp = __atomic_load_n(&all->open[i]->stamp, __ATOMIC_RELAXED);
		if (tried >> i & 1 || stamp >= least)
			continue;
		least = stamp;
		oldest = i;
	}
	return oldest;
}

/* Puts s where no file stands, or one that nobody uses, if there is such a place. */
static void keep(struct mmnf_segments *all, struct mmnf_segment *s)
{
	u64 tried = 0;
	u32 i;

	for (i = 0; i < MMNF_SEGMENTS_OPEN; i++)
		leave_lost(all, i);
	i = empty_place(all, s->number);
	while (i == MMNF_SEGMENTS_OPEN && ~tried) {
		u32 oldest = oldest_place(all, tried);

		if (leave_place(all, oldest))
			i = oldest;
		tried |= 1ULL << oldest;
	}
	if (i == MMNF_SEGMENTS_OPEN)
		return;
	s->cached = true;
	s->place = i;
	__atomic_store_n(&all->open[i], s, __ATOMIC_RELAXED);
	set_tag(all, i, s->number + 1);
}

/* Takes fd over, also where there is no memory. */
static struct mmnf_segment *new_segment(struct mmnf_field *field, int fd)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	struct mmnf_segment *s = calloc(1, sizeof(*s));

	if (s && g->indexed)
		s->shard = mmnf_shard_new(g);
	if (!s || (g->indexed && !s->shard)) {
		free(s);
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	s->fd = fd;
	s->direct_fd = -1;
	pthread_mutex_init(&s->settled.lock, NULL);
	return s;
}

/* Time goes on when a file is opened: between two of them nobody writes it again. */
static void use(const struct mmnf_segments *all, struct mmnf_segment *s)
{
	u64 now = __atomic_load_n(&all->clock, __ATOMIC_RELAXED);

	if (__atomic_load_n(&s->stamp, __ATOMIC_RELAXED) != now)
		__atomic_store_n(&s->stamp, now, __ATOMIC_RELAXED);
}

/* Under the lock, which it gives up meanwhile: of a number that is not busy. */
static int open_new(struct mmnf_field *field, u64 number, bool create,
		    struct mmnf_segment **out)
{
	struct mmnf_segments *all = &field->segments;
	struct mmnf_opening self = { .number = number }, **at;
	struct mmnf_segment *s = NULL;
	bool created, is_there;
	u64 bytes = 0;
	int fd;

	forget_gone(all);
	self.next = all->opening;
	all->opening = &self;
	pthread_mutex_unlock(&all->lock);
	fd = mmnf_segment_file_open(field, number, create, &bytes, &created);
	is_there = fd >= 0 || fd == MMNF_NO_FILE;
	if (is_there)
		s = new_segment(field, fd);
	pthread_mutex_lock(&all->lock);
	for (at = &all->opening; *at != &self;)
		at = &(*at)->next;
	*at = self.next;
	pthread_cond_broadcast(&all->turned);
	if (!s)
		return is_there ? mmnf_error(ENOMEM,
					     "segment %" PRIu64 ": no memory",
					     number) :
				  fd;
	s->id = ++all->nr_opened;
	s->number = number;
	s->file_bytes = bytes;
	s->created = s->dirty = created;
	__atomic_store_n(&all->clock, all->clock + 1, __ATOMIC_RELAXED);
	keep(all, s);
	*out = s;
	return 0;
}

int mmnf_segment_get(struct mmnf_field *field, u64 number, bool create,
		     struct mmnf_segment **out)
{
	struct mmnf_segments *all = &field->segments;
	struct mmnf_segment *s = NULL;
	int err = 0;
	u32 i;

	pthread_mutex_lock(&all->lock);
	while ((i = find(all, number)) == MMNF_SEGMENTS_OPEN &&
	       is_busy(all, number))
		wait_for_others(field);
	if (i < MMNF_SEGMENTS_OPEN)
		s = all->open[i];
	else
		err = check_lost(field, number);
	if (!err && !s)
		err = open_new(field, number, create, &s);
	if (err) {
		/* As it is, for the text is to stay; who lets files leave closes them. */
		pthread_mutex_unlock(&all->lock);
		return err;
	}
	s->refs++;
	use(all, s);
	unlock(field);
	*out = s;
	/* Whoever made the file: what is written must be seen in the window. */
	if (!create || field->remote)
		return 0;
	err = mmnf_window_refresh(field, number, false);
	if (err)
		mmnf_segment_put(field, s);
	return err;
}

void mmnf_segment_name(const struct mmnf_field *field, u64 number, char *name)
{
	if (field->store.dir >= 0)
		mmnf_zarr_key(&field->store, number, name);
	else
		snprintf(name, MMNF_KEY_MAX, "%s", field->store.name);
}

void mmnf_segment_forget(struct mmnf_field *field, struct mmnf_segment *s)
{
	struct mmnf_segments *all = &field->segments;

	pthread_mutex_lock(&all->lock);
	if (s->cached)
		set_tag(all, s->place, 0);
	pthread_mutex_unlock(&all->lock);
}

void mmnf_segment_put(struct mmnf_field *field, struct mmnf_segment *s)
{
	struct mmnf_segments *all = &field->segments;

	pthread_mutex_lock(&all->lock);
	if (!--s->refs) {
		if (s->cached)
			leave_lost(all, s->place);
		else
			leave(all, s);
	}
	unlock(field);
}

int mmnf_segment_pin(struct mmnf_field *field, u64 number,
		     struct mmnf_segment_pin *pin)
{
	struct mmnf_segments *all = &field->segments;
	u32 i = find(all, number);

	pin->place = NO_PLACE;
	if (i < MMNF_SEGMENTS_OPEN)
		pin->place = mmnf_boards_pin(all->boards, i);
	if (pin->place == NO_PLACE)
		return mmnf_segment_get(field, number, false, &pin->s);
	pin->i = i;
	if (__atomic_load_n(&all->tag[i], __ATOMIC_SEQ_CST) != number + 1) {
		mmnf_segment_unpin(field, pin);
		pin->place = NO_PLACE;
		return mmnf_segment_get(field, number, false, &pin->s);
	}
	pin->s = __atomic_load_n(&all->open[i], __ATOMIC_RELAXED);
	use(all, pin->s);
	return 0;
}

void mmnf_segment_unpin(struct mmnf_field *field,
			const struct mmnf_segment_pin *pin)
{
	struct mmnf_segments *all = &field->segments;

	if (pin->place == NO_PLACE) {
		mmnf_segment_put(field, pin->s);
		return;
	}
	mmnf_boards_unpin(all->boards, pin->place, false);
	if (__atomic_load_n(&all->tag[pin->i], __ATOMIC_SEQ_CST))
		return;
	/* Who wanted to close it may have seen this pin. */
	pthread_mutex_lock(&all->lock);
	leave_lost(all, pin->i);
	unlock(field);
}

/* In use, so that nobody else closes it. */
static int sync_place(struct mmnf_field *field, u32 i)
{
	struct mmnf_segments *all = &field->segments;
	struct mmnf_segment *s;
	int err;

	pthread_mutex_lock(&all->lock);
	s = all->open[i];
	if (s)
		s->refs++;
	pthread_mutex_unlock(&all->lock);
	if (!s)
		return 0;
	err = mmnf_segment_durable(field, s);
	mmnf_segment_put(field, s);
	return err;
}

static int sync_all(struct mmnf_field *field)
{
	struct mmnf_segments *all = &field->segments;
	int err = 0, e;
	u64 left;
	u32 i;

	for (i = 0; i < MMNF_SEGMENTS_OPEN; i++) {
		e = sync_place(field, i);
		err = err ? err : e;
	}
	pthread_mutex_lock(&all->lock);
	left = all->nr_left;
	while (any_leaving(all, left))
		wait_for_others(field);
	pthread_mutex_unlock(&all->lock);
	return err;
}

int mmnf_segment_sync(struct mmnf_field *field)
{
	struct mmnf_segments *all = &field->segments;
	int err, lost;

	pthread_mutex_lock(&all->lock);
	forget_gone(all);
	pthread_mutex_unlock(&all->lock);
	/* Of two at once the second waits for what the first makes durable. */
	pthread_mutex_lock(&all->syncing);
	err = sync_all(field);
	lost = __atomic_load_n(&all->lost_error, __ATOMIC_ACQUIRE);
	pthread_mutex_unlock(&all->syncing);
	if (lost)
		return mmnf_error_system(
			-lost,
			"sync: what was written since the last that worked may be lost: open the field again and write it again");
	return err ? mmnf_error_system(-err, "sync") : 0;
}

void mmnf_segment_close_all(struct mmnf_field *field)
{
	struct mmnf_segments *all = &field->segments;
	struct mmnf_segment *s;
	u32 i;

	for (i = 0; i < MMNF_SEGMENTS_OPEN; i++) {
		s = all->open[i];
		if (!s)
			continue;
		if (all->owner == getpid())
			mmnf_shard_flush(field, s);
		close_files(s);
		free(s);
	}
	while ((s = all->lost)) {
		all->lost = s->next;
		free(s);
	}
	if (all->boards)
		mmnf_boards_close(all->boards);
	free(all->boards);
	pthread_cond_destroy(&all->turned);
	pthread_mutex_destroy(&all->checks_settled.lock);
	pthread_mutex_destroy(&all->syncing);
	pthread_mutex_destroy(&all->lock);
}
