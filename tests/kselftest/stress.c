// SPDX-License-Identifier: GPL-2.0
/*
 * Everything at once: threads that map, touch, unmap, move, fork, cut, punch,
 * write, evict, prefetch, detach, kill and reload at random, over the same
 * files and, in part, the same descriptors and mappings.
 *
 * MMNF_STRESS_SECONDS says how long, 15 by default; it goes on where something has
 * not come by then.  MMNF_STRESS_SEED is the seed, though threads make each run
 * another one.  What a thread maps for itself it checks word by word: the word of the
 * offset, or zero where the file was cut or punched.
 */
#include "util.h"

#include <pthread.h>
#include <sys/syscall.h>

#define NR_THREADS 8
#define NR_SHARED 4
#define NR_FILES 3
#define BYTES (8 * MIB)
#define RELOAD_MS 4000

static int file[NR_FILES];
static int shared_dev[NR_SHARED];
static char *shared_map[NR_SHARED];
static volatile bool stop;
static u64 nr_done, nr_words, nr_wrong, nr_bus, nr_killed, nr_reloads;
/* Held for reading by who needs the module; reloading waits for all of them. */
static pthread_rwlock_t module_use =
	PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

#define COUNT(counter) __atomic_fetch_add(&(counter), 1, __ATOMIC_RELAXED)
#define READ(counter) __atomic_load_n(&(counter), __ATOMIC_RELAXED)

static u64 rnd(u64 *seed, u64 below)
{
	return (rng_next(seed) >> 11) % below;
}

static void check_word(const char *p, u64 off)
{
	u64 word;

	if (!try_load(p, &word)) {
		COUNT(nr_bus);
		return;
	}
	COUNT(nr_words);
	if (word && word != word_at(off)) {
		COUNT(nr_wrong);
		ksft_print_msg("at %llx stands %llx\n", off, word);
	}
}

static int open_attached(int fd)
{
	struct mmnf_ioc_attach attach = vector_of(fd, BYTES);
	int dev = open(MMNF_DEVICE, O_RDWR | O_CLOEXEC);

	if (dev >= 0 && ioctl(dev, MMNF_IOC_ATTACH, &attach)) {
		close(dev);
		return -1;
	}
	return dev;
}

/* A walk over a mapping of one's own, with all that may befall one. */
static void walk_own(u64 *seed)
{
	int dev = open_attached(file[rnd(seed, NR_FILES)]);
	u64 off = rnd(seed, BYTES / 2 / PAGE) * PAGE, len = BYTES / 2;
	u64 stride = (1 + rnd(seed, 40)) * PAGE, pos;
	char *p, *moved;

	if (dev < 0)
		return;
	p = mmap(NULL, len, PROT_READ, MAP_SHARED, dev, off);
	if (rnd(seed, 2)) {
		close(dev);
		dev = -1;
	}
	if (p == MAP_FAILED)
		goto out;
	for (pos = 0; pos < len && !stop; pos += stride)
		check_word(p + pos, off + pos);
	switch (rnd(seed, 4)) {
	case 0:
		munmap(p + len / 2, PAGE);
		check_word(p, off);
		break;
	case 1:
		moved = mremap(p, len, len / 2, MREMAP_MAYMOVE);
		if (moved != MAP_FAILED)
			p = moved;
		break;
	case 2:
		madvise(p, len, MADV_DONTNEED);
		check_word(p + PAGE, off + PAGE);
		break;
	}
	munmap(p, len);
out:
	close(dev);
}

/* A child with mappings of its own and its parent's, killed at any moment. */
static void fork_and_kill(u64 *seed)
{
	int which = rnd(seed, NR_FILES), i;
	u64 pos;
	pid_t pid = fork();

	if (pid < 0)
		return;
	if (!pid) {
		int dev = open_attached(file[which]);
		char *p = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, dev, 0);

		for (i = 0; i < 1000 && p != MAP_FAILED; i++)
			for (pos = 0; pos < BYTES; pos += 17 * PAGE)
				check_word(p + pos, pos);
		_exit(0);
	}
	sleep_ms(rnd(seed, 20));
	kill(pid, SIGKILL);
	wait_child(pid);
	COUNT(nr_killed);
}

static void change_file(struct __test_metadata *_metadata, u64 *seed)
{
	int fd = file[rnd(seed, NR_FILES)];
	u64 off = rnd(seed, BYTES / PAGE) * PAGE, len = 16 * PAGE;

	switch (rnd(seed, 5)) {
	case 0:
		if (!ftruncate(fd, off))
			ftruncate(fd, BYTES);
		break;
	case 1:
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off,
			  len);
		break;
	case 2:
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		break;
	case 3:
		fdatasync(fd);
		break;
	default:
		for (len += off; off < len && off < BYTES; off += 8) {
			u64 word = word_at(off);

			if (pwrite(fd, &word, 8, off) != 8)
				break;
			off += PAGE - 8;
		}
	}
	(void)_metadata;
}

static void hint_shared(u64 *seed)
{
	int dev = shared_dev[rnd(seed, NR_SHARED)];
	struct mmnf_range range = { rnd(seed, BYTES), rnd(seed, BYTES) };
	struct mmnf_select select = {
		.items = (u64)(unsigned long)&range,
		.nr_items = 1,
	};
	struct mmnf_ioc_prefetch prefetch = {
		.size = sizeof(prefetch),
		.flags = rnd(seed, 2) ? MMNF_PREFETCH_WAIT : 0,
		.select = select,
	};
	struct mmnf_ioc_evict evict = { .size = sizeof(evict),
					.select = select };
	struct mmnf_ioc_residency residency = { .size = sizeof(residency),
						.select = select };
	struct mmnf_ioc_policy policy = { .size = sizeof(policy),
					  .mode = rnd(seed, 3),
					  .max_depth = 8 + rnd(seed, 500) };

	switch (rnd(seed, 4)) {
	case 0:
		ioctl(dev, MMNF_IOC_PREFETCH, &prefetch);
		break;
	case 1:
		ioctl(dev, MMNF_IOC_EVICT, &evict);
		break;
	case 2:
		ioctl(dev, MMNF_IOC_RESIDENCY, &residency);
		break;
	default:
		ioctl(dev, MMNF_IOC_SET_POLICY, &policy);
	}
}

/* Descriptors and mappings that others use at this moment come and go. */
static void change_shared(u64 *seed)
{
	int i = rnd(seed, NR_SHARED), old;
	char *p;

	if (rnd(seed, 2)) {
		old = __atomic_exchange_n(
			&shared_dev[i],
			open_attached(file[rnd(seed, NR_FILES)]),
			__ATOMIC_SEQ_CST);
		close(old);
		return;
	}
	p = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, shared_dev[i], 0);
	p = __atomic_exchange_n(&shared_map[i], p, __ATOMIC_SEQ_CST);
	if (p && p != MAP_FAILED)
		munmap(p, BYTES);
}

/* Its owner may take it away meanwhile: only that nothing breaks is looked at. */
static void touch_shared(u64 *seed)
{
	char *p = shared_map[rnd(seed, NR_SHARED)];
	u64 word, i;

	if (!p || p == MAP_FAILED)
		return;
	for (i = 0; i < 32; i++)
		try_load(p + rnd(seed, BYTES / PAGE) * PAGE, &word);
}

static void drop_shared(void)
{
	int i;

	for (i = 0; i < NR_SHARED; i++) {
		close(shared_dev[i]);
		shared_dev[i] = -1;
		if (shared_map[i] && shared_map[i] != MAP_FAILED)
			munmap(shared_map[i], BYTES);
		shared_map[i] = NULL;
	}
}

static int remove_module(void)
{
	return err_of(syscall(SYS_delete_module, "mmnf", O_NONBLOCK));
}

static int insert_module(void)
{
	int fd = open(getenv("MMNF_KO"), O_RDONLY | O_CLOEXEC);
	int err = err_of(syscall(SYS_finit_module, fd, "", 0));

	close(fd);
	return err;
}

/* Mostly refused; now and then with nobody there, and then it must work. */
static void reload(struct __test_metadata *_metadata)
{
	int try, err;

	if (!getenv("MMNF_KO"))
		return;
	err = remove_module();
	if (!err)
		EXPECT_EQ(0, insert_module());
	pthread_rwlock_wrlock(&module_use);
	drop_shared();
	for (try = 0; try < 1000 && (err = remove_module()); try++)
		sleep_ms(5);
	EXPECT_EQ(0, err)
	TH_LOG("rmmod with no user left: %s", strerror(err));
	if (!err) {
		EXPECT_EQ(0, insert_module());
		COUNT(nr_reloads);
	}
	pthread_rwlock_unlock(&module_use);
}

struct job {
	struct __test_metadata *metadata;
	u64 seed;
	bool reloads;
};

static void *run(void *arg)
{
	struct job *job = arg;
	u64 *seed = &job->seed, reload_ms = now_ms() + RELOAD_MS;

	while (!stop) {
		pthread_rwlock_rdlock(&module_use);
		switch (rnd(seed, 16)) {
		case 0 ... 4:
			walk_own(seed);
			break;
		case 5:
			fork_and_kill(seed);
			break;
		case 6 ... 7:
			change_file(job->metadata, seed);
			break;
		case 8 ... 10:
			hint_shared(seed);
			break;
		case 11 ... 12:
			change_shared(seed);
			break;
		default:
			touch_shared(seed);
		}
		pthread_rwlock_unlock(&module_use);
		COUNT(nr_done);
		if (job->reloads && now_ms() > reload_ms) {
			reload(job->metadata);
			reload_ms = now_ms() + RELOAD_MS;
		}
	}
	return NULL;
}

static u64 number(const char *name, u64 otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/*
 * Has each thing that is asked for come?  A kernel that watches itself, on a busy
 * machine, may do two operations in a second, one in sixteen of them a kill.
 */
static bool was_all_done(void)
{
	return READ(nr_words) && READ(nr_killed) &&
	       (READ(nr_reloads) || !getenv("MMNF_KO"));
}

/* So many times as long at most. */
#define LONGER 8

FIXTURE(stress) {};

FIXTURE_SETUP(stress)
{
}

FIXTURE_TEARDOWN(stress)
{
}

TEST_F_TIMEOUT(stress, everything_at_once, 86400)
{
	u64 seconds = number("MMNF_STRESS_SECONDS", 15), start_ms, i;
	struct sigaction action = { .sa_handler = bus_handler };
	pthread_t thread[NR_THREADS];
	struct job job[NR_THREADS];
	char name[16];

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	for (i = 0; i < NR_FILES; i++) {
		snprintf(name, sizeof(name), "stress%llu", i);
		file[i] = make_field(_metadata, name, BYTES);
	}
	for (i = 0; i < NR_SHARED; i++)
		shared_dev[i] = open_attached(file[i % NR_FILES]);
	for (i = 0; i < NR_THREADS; i++) {
		job[i].metadata = _metadata;
		job[i].reloads = !i;
		job[i].seed = (number("MMNF_STRESS_SEED", 1) + i) *
				      0x9e3779b97f4a7c15ULL |
			      1;
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, run, &job[i]));
	}
	start_ms = now_ms();
	do
		sleep_ms(100);
	while (now_ms() < start_ms + seconds * 1000 ||
	       (!was_all_done() &&
		now_ms() < start_ms + seconds * 1000 * LONGER));
	seconds = (now_ms() - start_ms) / 1000;
	stop = true;
	for (i = 0; i < NR_THREADS; i++)
		pthread_join(thread[i], NULL);
	drop_shared();
	ksft_print_msg(
		"%llu operations in %llu s, %llu words right, %llu beyond "
		"the end, %llu killed, %llu reloads\n",
		nr_done, seconds, nr_words, nr_bus, nr_killed, nr_reloads);
	fflush(stdout);
	EXPECT_EQ(0, nr_wrong);
	EXPECT_LT(0, nr_words);
	EXPECT_LT(0, nr_killed);
	EXPECT_TRUE(nr_reloads || !getenv("MMNF_KO"));
	for (i = 0; i < 250 && !shell("ls " MMNF_SYSFS "/fields | grep -q .");
	     i++)
		sleep_ms(20);
	EXPECT_NE(0, shell("ls " MMNF_SYSFS "/fields | grep ."));
}

MMNF_HARNESS_MAIN
