// SPDX-License-Identifier: MIT
/*
 * The persistent cache, warm, beside a plain file of the same bytes on the same
 * disk: the same reads of both, in turns, in one run, by threads that wait for each
 * and by one with 64 under way in an io_uring.  Both O_DIRECT where the filesystem
 * can; both look at every word: whoever reads it first waits for the
 * memory, and with the cache that is its checksum.
 *
 *	ssd DIR [MIB [ROUNDS]]
 *
 * One JSON object a line: microseconds a read, by the clock and of processors,
 * medians of the rounds, and the plain file's time over the cache's (1: as fast).
 */
#include <err.h>
#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "ssd.h"

#define ROUNDS_MAX 999
#define FILL_BYTES (128ULL << 10)
#define THREADS_MAX 8
#define DEPTH 64

static u64 space_bytes;
static struct mmnf_ssd *ssd;
static int plain;

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* Each word is its own place. */
static void content(u64 offset, u64 *to, u64 bytes)
{
	u64 i;

	for (i = 0; i < bytes / 8; i++)
		to[i] = offset + 8 * i;
}

static bool is_content(u64 offset, const u64 *data, u64 bytes)
{
	u64 i, wrong = 0;

	for (i = 0; i < bytes / 8; i++)
		wrong |= data[i] ^ (offset + 8 * i);
	return !wrong;
}

static void *memory(u64 bytes)
{
	void *p;

	if (posix_memalign(&p, 4096, bytes))
		errx(1, "no memory");
	return p;
}

static void fill(const char *dir)
{
	struct mmnf_ssd_backing backing = { .bytes = space_bytes };
	struct mmnf_ssd_opts opts = { .bytes = 2 * space_bytes + (64 << 20),
				      .no_threads = true };
	struct mmnf_ssd_disk *disk;
	u64 *data = memory(FILL_BYTES), at, ticket;
	struct iovec iov = { data, FILL_BYTES };
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/cache", dir);
	if (mmnf_ssd_disk_open(&disk, path) ||
	    mmnf_ssd_open(&ssd, disk, &opts, &backing))
		errx(1, "%s", mmnf_last_error());
	snprintf(path, sizeof(path), "%s/plain", dir);
	plain = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
	if (plain < 0)
		plain = open(path, O_RDWR | O_CREAT, 0600);
	if (plain < 0)
		err(1, "%s", path);
	for (at = 0; at < space_bytes; at += FILL_BYTES) {
		content(at, data, FILL_BYTES);
		if (pwrite(plain, data, FILL_BYTES, (off_t)at) !=
		    (ssize_t)FILL_BYTES)
			err(1, "%s", path);
		if (mmnf_ssd_read(ssd, at, FILL_BYTES, &iov, 1, &ticket))
			continue;
		content(at, data, FILL_BYTES);
		mmnf_ssd_came(ssd, at, FILL_BYTES, &iov, 1, ticket);
		if (!mmnf_ssd_work(ssd))
			errx(1, "the cache is off");
	}
	if (fsync(plain))
		err(1, "%s", path);
	free(data);
}

struct job {
	pthread_t thread;
	bool is_plain;
	u64 seed, bytes, nr;
};

static u64 next_place(struct job *job)
{
	job->seed = job->seed * 6364136223846793005 + 1442695040888963407;
	return (job->seed >> 20) % (space_bytes / job->bytes) * job->bytes;
}

static void *read_some(void *arg)
{
	struct job *job = arg;
	u64 *data = memory(job->bytes), i, ticket;
	struct iovec iov = { data, job->bytes };

	for (i = 0; i < job->nr; i++) {
		u64 at = next_place(job);

		if (job->is_plain) {
			if (pread(plain, data, job->bytes, (off_t)at) !=
			    (ssize_t)job->bytes)
				err(1, "plain file");
		} else if (!mmnf_ssd_read(ssd, at, job->bytes, &iov, 1,
					  &ticket)) {
			errx(1, "a miss at byte %llu", (unsigned long long)at);
		}
		if (!is_content(at, data, job->bytes))
			errx(1, "wrong bytes at %llu", (unsigned long long)at);
	}
	free(data);
	return NULL;
}

/* ---- many under way, of one thread */

struct slot {
	u64 *data, at;
	struct iovec iov;
};

static struct slot slots[DEPTH];
static struct mmnf_ssd_queue *queue;
static struct io_uring ring;

static void open_queues(u64 bytes)
{
	u32 i;

	queue = mmnf_ssd_queue_open(ssd, DEPTH, -1);
	if (!queue || io_uring_queue_init(DEPTH, &ring, 0))
		errx(1, "no io_uring here");
	for (i = 0; i < DEPTH; i++) {
		slots[i].data = memory(bytes);
		slots[i].iov = (struct iovec) { slots[i].data, bytes };
	}
}

static void close_queues(void)
{
	u32 i;

	mmnf_ssd_queue_close(queue);
	io_uring_queue_exit(&ring);
	for (i = 0; i < DEPTH; i++)
		free(slots[i].data);
}

static void begin(bool is_plain, struct slot *slot)
{
	u64 ticket, bytes = slot->iov.iov_len;
	struct io_uring_sqe *sqe;

	if (is_plain) {
		sqe = io_uring_get_sqe(&ring);
		io_uring_prep_read(sqe, plain, slot->data, (u32)bytes,
				   slot->at);
		io_uring_sqe_set_data(sqe, slot);
	} else if (mmnf_ssd_queue_read(queue, slot->at, bytes, &slot->iov, 1,
				       &ticket, slot) != MMNF_SSD_UNDER_WAY) {
		errx(1, "a miss at byte %llu", (unsigned long long)slot->at);
	}
}

/* One that has come, or NULL. */
static struct slot *take(bool is_plain)
{
	struct io_uring_cqe *cqe;
	struct slot *slot;
	bool right;

	if (!is_plain) {
		slot = mmnf_ssd_queue_take(queue, &right);
	} else if (!io_uring_peek_cqe(&ring, &cqe)) {
		slot = io_uring_cqe_get_data(cqe);
		right = cqe->res == (int)slot->iov.iov_len;
		io_uring_cqe_seen(&ring, cqe);
	} else {
		return NULL;
	}
	if (slot &&
	    (!right || !is_content(slot->at, slot->data, slot->iov.iov_len)))
		errx(1, "wrong bytes at %llu", (unsigned long long)slot->at);
	return slot;
}

static void begin_next(struct job *job, struct slot *slot)
{
	slot->at = next_place(job);
	begin(job->is_plain, slot);
}

static void read_many(struct job *job)
{
	u64 left = job->nr, under_way = 0;
	struct io_uring_cqe *cqe;
	struct slot *slot;

	for (; under_way < DEPTH && left; under_way++, left--)
		begin_next(job, &slots[under_way]);
	while (under_way) {
		slot = take(job->is_plain);
		if (slot && left) {
			begin_next(job, slot);
			left--;
		} else if (slot) {
			under_way--;
		} else if (job->is_plain) {
			io_uring_submit_and_wait_timeout(&ring, &cqe, 1, NULL,
							 NULL);
		} else {
			mmnf_ssd_queue_wait(queue, -1);
		}
	}
}

static double now_cpu_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void run_threads(const struct job *one, u32 threads)
{
	struct job job[THREADS_MAX];
	u32 i;

	for (i = 0; i < threads; i++) {
		job[i] = *one;
		job[i].seed += i;
		job[i].nr /= threads;
		if (pthread_create(&job[i].thread, NULL, read_some, &job[i]))
			errx(1, "no thread");
	}
	for (i = 0; i < threads; i++)
		pthread_join(job[i].thread, NULL);
}

/* Microseconds a read; *cpu: of the processors.  No threads: many under way. */
static double run(struct job *job, u32 threads, double *cpu)
{
	double from = now_us(), cpu_from = now_cpu_us();

	if (threads)
		run_threads(job, threads);
	else
		read_many(job);
	*cpu = (now_cpu_us() - cpu_from) / (double)job->nr;
	return (now_us() - from) / (double)job->nr;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void say(const char *engine, u64 bytes, u32 threads, const char *metric,
		double value, const char *unit)
{
	printf("{\"bench\":\"ssd\",\"case\":\"random %llu KiB, %u %s\",\"engine\":\"%s\",\"metric\":\"%s\",\"value\":%.3f,\"unit\":\"%s\",\"clock\":\"wall\"}\n",
	       (unsigned long long)bytes >> 10, threads ? threads : DEPTH,
	       threads ? "threads" : "under way", engine, metric, value, unit);
}

/* Many short turns: what else the machine does meets both. */
static void compare(u64 bytes, u32 threads, u32 rounds)
{
	double time[2][ROUNDS_MAX], cpu[2][ROUNDS_MAX];
	u64 nr = (threads ? threads : DEPTH / 4) * (bytes > 65536 ? 20 : 40);
	u32 i, k;

	for (i = 0; i < 2 * rounds; i++) {
		struct job job = { .seed = i * 64, .bytes = bytes, .nr = nr };

		k = (i / 2 + i) % 2; /* each is first in turn */
		job.is_plain = k;
		time[k][i / 2] = run(&job, threads, &cpu[k][i / 2]);
	}
	for (k = 0; k < 2; k++) {
		qsort(time[k], rounds, sizeof(**time), by_value);
		qsort(cpu[k], rounds, sizeof(**cpu), by_value);
		say(k ? "plain file" : "cache", bytes, threads, "time",
		    time[k][rounds / 2], "us/read");
		say(k ? "plain file" : "cache", bytes, threads, "processor",
		    cpu[k][rounds / 2], "us/read");
	}
	say("cache", bytes, threads, "speed",
	    time[1][rounds / 2] / time[0][rounds / 2], "of plain file");
}

int main(int argc, char **argv)
{
	u64 mib = argc > 2 ? strtoull(argv[2], NULL, 0) : 256;
	u32 rounds = argc > 3 ? (u32)strtoul(argv[3], NULL, 0) : 99, t;
	u64 bytes;

	if (argc < 2 || mib < 16 || mib > 1 << 20 || !rounds ||
	    rounds > ROUNDS_MAX)
		errx(2,
		     "usage: ssd DIR [MIB [ROUNDS]]: expected 16 to 2^20 MiB, 1 to %d rounds",
		     ROUNDS_MAX);
	space_bytes = mib << 20;
	fill(argv[1]);
	for (bytes = 4096; bytes <= 128 << 10; bytes *= 32) {
		for (t = 1; t <= 4; t *= 4)
			compare(bytes, t, rounds);
		open_queues(bytes);
		compare(bytes, 0, rounds);
		close_queues();
	}
	mmnf_ssd_close(ssd);
	close(plain);
	return 0;
}
