// SPDX-License-Identifier: MIT
/*
 * The kernel's own readahead, for stretches of a file that are asked for piece by
 * piece, each from the end of the one before.  It reads in windows of its own size
 * and, where the file system has them, in large folios, which a mapping then shows
 * with few entries.  What is asked for with POSIX_FADV_WILLNEED comes page by page.
 *
 *	asked for   |-- piece --|-- piece --|-- piece --|
 *	WILLNEED    |...........|
 *	the kernel              |w|window|    window    |    window    |
 *	                                                ^ mark         ^ edge
 *
 * The kernel reads its next window when somebody reads at the mark of the last one.
 * That is done here, by reads of one byte that do not wait, on a descriptor that is
 * used for nothing else: the others are POSIX_FADV_RANDOM and stay so.  cachestat()
 * tells where a window ends; where it can't be asked nothing is done here.  Few such
 * descriptors are open, those of the segments that were gone through last.
 *
 * A walk has a window under way while it is in the one before, so that up to two of
 * them are read beyond its end.  Of what a program asks for piece by piece the window
 * that the last piece ends in is read, and the next one when it copies from there; of
 * much that it asks for at once, not a page more.
 *
 * Not before SETTLED_BYTES were asked for without a gap, and not where a hole is near:
 * it would be filled with zeroes.
 *
 * segments.lock guards what is known of a segment's stretches; who is at one has
 * marked it busy and holds no lock.  In a child of fork() it may stay so, and is read
 * with WILLNEED then.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "readahead.h"

#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

#define SETTLED_BYTES (1ULL << 20)
#define WINDOW_BYTES (16ULL << 20) /* no window is thought to be larger */
#define MUCH_BYTES (4 * WINDOW_BYTES) /* at once: needs no piece before it */
#define STRETCHES 4
#define DESCRIPTORS 8 /* of a field, and those in use right now */
#define NOT_OPEN (-1)
#define REFUSED (-2) /* the kernel can't be asked */

/**
 * struct stretch - what was asked for without a gap
 * @start, @end: of it; @end 0: free
 * @mark: where the kernel's last window begins
 * @edge: where it ends; 0: the kernel does not read here
 * @data_end: no hole before it
 * @seen: when it was asked for last, for LRU
 * @busy: somebody is at it
 * @handed: when that was so, it was left to the kernel
 */
struct stretch {
	u64 start, end, mark, edge, data_end, seen;
	bool busy, handed;
};

/* Of a segment.  @fd: or NOT_OPEN, as long as nothing has settled, or REFUSED */
struct mmnf_readahead {
	int fd;
	u64 nr_asked;
	struct stretch stretches[STRETCHES];
};

/* Pages of a part of the file that are in the page cache, or on their way there. */
static bool count_pages(int fd, u64 start, u64 bytes, u64 *nr)
{
	struct {
		u64 start, bytes;
	} range = { start, bytes };
	struct {
		u64 nr_cache, nr_dirty, nr_writeback, nr_evicted, nr_recent;
	} stat = { 0 };

	if (syscall(SYS_cachestat, fd, &range, &stat, 0))
		return false;
	*nr = stat.nr_cache;
	return true;
}

/* The end of the pages that are there, or on their way, from one on; as far as asked. */
static u64 end_of_pages(int fd, u64 start, u64 most_bytes)
{
	u64 page = mmnf_page_bytes(), most = 0, low = 0, nr, middle;

	if (!count_pages(fd, start, most_bytes, &most) || !most)
		return start;
	/* Mostly there are no others behind them. */
	for (middle = most; low < most; middle = low + (most - low + 1) / 2) {
		if (!count_pages(fd, start, middle * page, &nr))
			return start;
		if (nr == middle)
			low = middle;
		else
			most = middle - 1;
	}
	return start + low * page;
}

/* Tells the kernel's readahead that somebody is here.  False: it is not told that way. */
static bool touch(int fd, u64 offset)
{
	char byte;
	struct iovec iov = { &byte, 1 };

	return preadv2(fd, &iov, 1, (off_t)offset, RWF_NOWAIT) >= 0 ||
	       errno == EAGAIN;
}

/* Is all data as far as a window from here may reach? */
static bool is_data(int fd, struct stretch *t, u64 from, u64 file_bytes)
{
	off_t hole;

	if (t->data_end >= min_u64(from + WINDOW_BYTES, file_bytes))
		return true;
	hole = lseek(fd, (off_t)from, SEEK_HOLE);
	if (hole < 0 && errno == ENXIO)
		return false;
	t->data_end = hole < 0 ? U64_MAX : (u64)hole; /* unknown: all is */
	return t->data_end >= min_u64(from + WINDOW_BYTES, file_bytes);
}

/*
 * Makes the kernel begin.  What follows a few pages that are there is sequential to it,
 * and the fewer they are the sooner its folios grow: those before are cut off by
 * a page that is asked for last.
 *
 *	there | at | asked for | first window, its mark the last page | next ..
 */
static bool begin(int fd, struct stretch *t, u64 start, u64 end, u64 file_bytes,
		  struct mmnf_given *given)
{
	u64 page = mmnf_page_bytes(), at = end_of_pages(fd, start, end - start);
	u64 first = at + 3 * page;

	if (first >= end || !is_data(fd, t, at, file_bytes))
		return false;
	given->start = given->read_start = at;
	mmnf_hint_willneed(fd, at + page, 2 * page);
	touch(fd, first);
	mmnf_hint_willneed(fd, at, page);
	t->mark = end_of_pages(fd, first, 2 * WINDOW_BYTES);
	if (t->mark < first + 2 * page)
		return false;
	touch(fd, t->mark - page);
	t->edge = end_of_pages(fd, t->mark, 2 * WINDOW_BYTES);
	return t->edge > t->mark;
}

/* Is all of a part there, or on its way? */
static bool is_there(int fd, u64 start, u64 end)
{
	u64 page = mmnf_page_bytes(), nr;

	return end <= start || (count_pages(fd, start, end - start, &nr) &&
				nr >= (end - start) / page);
}

/*
 * What came may be gone again.  Who evicts what he is done with evicts marks, too: a
 * read at one would bring back what lies behind him.
 */
static bool is_gone(int fd, const struct stretch *t, u64 start, u64 end,
		    bool walk)
{
	if (!is_there(fd, start, min_u64(t->edge, end)))
		return true;
	return (walk ? t->mark : t->edge) < end &&
	       !is_there(fd, t->mark, t->mark + mmnf_page_bytes());
}

/* Has the kernel go on, up to the end or less. */
static void go_on(int fd, struct stretch *t, u64 start, u64 end, u64 file_bytes,
		  bool walk, struct mmnf_given *given)
{
	u64 edge;

	if (t->edge && is_gone(fd, t, start, end, walk))
		t->edge = 0;
	given->start = start;
	given->read_start = t->edge;
	if (!t->edge) {
		if (!begin(fd, t, start, end, file_bytes, given)) {
			t->edge = 0;
			return;
		}
	}
	given->end = end;
	given->read_end = t->edge;
	while ((walk ? t->mark : t->edge) < end && t->edge < file_bytes) {
		edge = t->edge;
		if (is_data(fd, t, edge, file_bytes))
			touch(fd, t->mark);
		t->edge = end_of_pages(fd, edge, 2 * WINDOW_BYTES);
		t->mark = edge;
		if (t->edge > edge) {
			given->read_end = t->edge;
			continue;
		}
		t->edge = 0; /* it begins again with the next piece */
		given->end = min_u64(edge, end);
		break;
	}
}

/* Under the lock; NULL: no memory. */
static struct mmnf_readahead *get(struct mmnf_segment *s)
{
	if (!s->readahead) {
		s->readahead = calloc(1, sizeof(*s->readahead));
		if (s->readahead)
			s->readahead->fd = NOT_OPEN;
	}
	return s->readahead;
}

/* Under the lock.  Who is at a stretch may have pinned the segment where no one counts. */
static bool is_used(const struct mmnf_segment *s)
{
	u32 i;

	for (i = 0; i < STRETCHES; i++)
		if (s->readahead->stretches[i].busy)
			return true;
	return s->refs;
}

/* Under the lock: closes the one that nobody uses for longest if there are many. */
static void make_room(struct mmnf_field *field)
{
	struct mmnf_segment *oldest = NULL, *s;
	u32 nr = 0, i;

	for (i = 0; i < MMNF_SEGMENTS_OPEN; i++) {
		s = field->segments.open[i];
		if (!s || !s->readahead || s->readahead->fd < 0)
			continue;
		nr++;
		if (!is_used(s) && (!oldest || s->stamp < oldest->stamp))
			oldest = s;
	}
	if (nr >= DESCRIPTORS && oldest)
		mmnf_readahead_close(oldest);
}

/* Under the lock: can the kernel be asked? */
static bool has_descriptor(struct mmnf_field *field, struct mmnf_segment *s)
{
	struct mmnf_readahead *r = s->readahead;
	char path[32];
	u64 nr;

	if (r->fd != NOT_OPEN)
		return r->fd >= 0;
	make_room(field);
	/* The same file, whatever its name is by now. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->fd);
	r->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (r->fd >= 0 && count_pages(r->fd, 0, 1, &nr) &&
	    touch(r->fd, s->file_bytes))
		return true;
	if (r->fd >= 0)
		close(r->fd);
	r->fd = REFUSED;
	return false;
}

/*
 * Under the lock: the stretch that a piece goes on, maybe from before its end, or a new
 * one; NULL: all are busy.
 */
static struct stretch *find(struct mmnf_readahead *r, u64 start, u64 end)
{
	struct stretch *oldest = NULL, *t;
	u32 i;

	for (i = 0; i < STRETCHES; i++) {
		t = &r->stretches[i];
		if (start >= t->start && start <= t->end && end > t->end) {
			t->end = end;
			t->seen = ++r->nr_asked;
			return t;
		}
		if (!t->busy && (!oldest || t->seen < oldest->seen))
			oldest = t;
	}
	if (oldest)
		*oldest = (struct stretch) { .start = start,
					     .end = end,
					     .seen = ++r->nr_asked };
	return oldest;
}

/* To be given back; NULL: it is for others to read. */
static struct stretch *take(struct mmnf_field *field, struct mmnf_segment *s,
			    u64 start, u64 end, bool much)
{
	struct mmnf_readahead *r;
	struct stretch *t = NULL;

	pthread_mutex_lock(&field->segments.lock);
	r = get(s);
	if (r && r->fd != REFUSED)
		t = find(r, start, end);
	if (t && (t->busy || (start - t->start < SETTLED_BYTES && !much)))
		t = NULL;
	if (t && !has_descriptor(field, s))
		t = NULL;
	if (t)
		t->busy = true;
	pthread_mutex_unlock(&field->segments.lock);
	return t;
}

void mmnf_readahead(struct mmnf_field *field, struct mmnf_segment *s, u64 start,
		    u64 end, bool walk, struct mmnf_given *given)
{
	bool much = !walk && end - start >= MUCH_BYTES;
	struct stretch *t = NULL;

	memset(given, 0, sizeof(*given));
	/* Who reads ahead alone says where it ends. */
	if (walk || much || !field->prefetch_off)
		t = take(field, s, start, end, much);
	if (!t)
		return;
	if (much)
		end -= WINDOW_BYTES;
	go_on(s->readahead->fd, t, start, end, s->file_bytes, walk, given);
	pthread_mutex_lock(&field->segments.lock);
	t->busy = false;
	t->handed = t->edge;
	pthread_mutex_unlock(&field->segments.lock);
}

bool mmnf_readahead_follows(struct mmnf_field *field, struct mmnf_segment *s,
			    u64 at, u64 start)
{
	struct mmnf_readahead *r;
	bool follows = false;
	u32 i;

	pthread_mutex_lock(&field->segments.lock);
	r = s->readahead;
	for (i = 0; r && i < STRETCHES && !follows; i++) {
		const struct stretch *t = &r->stretches[i];

		follows = t->seen == r->nr_asked && t->handed &&
			  at >= t->start && at < t->end && start >= t->end;
	}
	pthread_mutex_unlock(&field->segments.lock);
	return follows;
}

void mmnf_readahead_close(struct mmnf_segment *s)
{
	if (s->readahead && s->readahead->fd >= 0)
		close(s->readahead->fd);
	free(s->readahead);
	s->readahead = NULL;
}
