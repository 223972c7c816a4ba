// SPDX-License-Identifier: MIT
/*
 * What mmnf_activate() costs beside the same arithmetic by hand, in instructions:
 * counted one by one by a parent that traces.  No clock, the same everywhere;
 * tests/integration/activate.sh holds it to its targets.
 *
 * On a field of three axes and several segments that all have data (one without is
 * looked for each time, as another program may have made it), opened without prediction, as a
 * field on /dev/mmnf is: there the kernel observes.  By hand means: coordinates
 * inside, one division for the segment, a table of addresses, is it mapped.
 */
#include <err.h>
#include <mmnf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS 64
#define NOINLINE __attribute__((noinline))

static struct mmnf_field *volatile field;
static volatile float sink;

/* What a program without the library would keep. */
struct hand {
	uint64_t extent[3], stride[3], pitch;
	const char *base[64];
};

static struct hand hand_state;
static struct hand *volatile hand = &hand_state;

/* Would map what is not mapped. */
static const void *NOINLINE by_hand_slow(struct hand *h, uint64_t z, uint64_t y,
					 uint64_t x)
{
	h->base[0] = NULL;
	errx(1, "%g %g %g: outside, or not mapped", (double)z, (double)y,
	     (double)x);
}

static inline const void *by_hand(struct hand *h, uint64_t z, uint64_t y,
				  uint64_t x)
{
	const char *base = NULL;
	uint64_t position = 0;

	if (__builtin_expect(z < h->extent[0] && y < h->extent[1] &&
				     x < h->extent[2],
			     1)) {
		position =
			z * h->stride[0] + y * h->stride[1] + x * h->stride[2];
		base = h->base[position / h->pitch];
	}
	if (__builtin_expect(!base, 0))
		return by_hand_slow(h, z, y, x);
	return base + position % h->pitch;
}

/* ---- CALLS elements by each, anywhere */

static uint64_t place[CALLS][3];

static void NOINLINE elements_by_hand(void)
{
	struct hand *h = hand;
	uint64_t i;

	for (i = 0; i < CALLS; i++)
		sink = *(const float *)by_hand(h, place[i][0], place[i][1],
					       place[i][2]);
}

static void NOINLINE elements_3d(void)
{
	struct mmnf_field *f = field;
	uint64_t i;

	for (i = 0; i < CALLS; i++)
		sink = *(const float *)mmnf_activate_3d(
			f, place[i][0], place[i][1], place[i][2]);
}

static void NOINLINE elements_any(void)
{
	struct mmnf_field *f = field;
	uint64_t i;

	for (i = 0; i < CALLS; i++)
		sink = *(const float *)mmnf_activate(f, place[i]);
}

/* ---- a row of n elements, once activated */

static float NOINLINE sum_by_hand(uint64_t n)
{
	const float *p = by_hand(hand, 3, 5, 0);
	float sum = 0;
	uint64_t i;

	for (i = 0; i < n; i++)
		sum += p[i];
	return sum;
}

static float NOINLINE sum_activated(uint64_t n)
{
	const float *p = mmnf_activate_3d(field, 3, 5, 0);
	float sum = 0;
	uint64_t i;

	for (i = 0; i < n; i++)
		sum += p[i];
	return sum;
}

static void rows_by_hand(void)
{
	sink = sum_by_hand(256);
}

static void short_by_hand(void)
{
	sink = sum_by_hand(128);
}

static void rows_activated(void)
{
	sink = sum_activated(256);
}

static void short_activated(void)
{
	sink = sum_activated(128);
}

static void nothing(void)
{
}

/* ---- counting */

/* Instructions from one stop to the next: fn and the same few around it. */
static long steps(void (*fn)(void))
{
	pid_t child;
	long n = 0;
	int status;

	fn(); /* maps and binds what the first call does */
	fflush(stdout);
	child = fork();
	if (!child) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		fn();
		raise(SIGSTOP);
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		err(1, "fork");
	do {
		if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) ||
		    waitpid(child, &status, 0) != child)
			err(1, "ptrace");
		n++;
	} while (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
		errx(1, "the child ended: status %#x", status);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	return n;
}

static void open_all(void)
{
	uint64_t shape[3] = { 16, 256, 256 }, at[3] = { 0 };
	MMNF_OPTS(mmnf_create_opts, create);
	MMNF_OPTS(mmnf_open_opts, opts);
	MMNF_OPTS(mmnf_field_info, info);
	struct mmnf_box box = { { 0 }, { 1, 1, 1 }, { 1, 1, 1 } };
	const float one = 1;
	struct mmnf_field *f;
	uint64_t segment;
	unsigned int i, k;

	create.segment_bytes = 2 * 256 * 256 * 4;
	opts.engine = MMNF_ENGINE_MMAP;
	opts.prefetch_off = opts.writable = 1;
	if (mmnf_field_create("field", MMNF_F32, 3, shape, &create) ||
	    mmnf_field_open(&f, "field", &opts) || mmnf_field_info(f, &info))
		errx(1, "%s", mmnf_last_error());
	for (i = 0; i < 3; i++) {
		hand->extent[i] = shape[i];
		hand->stride[i] = (uint64_t)info.stride_bytes[i];
	}
	hand->pitch = info.segment_bytes;
	field = f;
	for (i = 0; i < CALLS; i++)
		for (k = 0; k < 3; k++)
			place[i][k] = (i * 7919 + k * 104729) % shape[k];
	for (segment = 0; segment < info.nr_segments; segment++) {
		at[0] = box.start[0] = segment * info.segment_shape[0];
		if (mmnf_write(f, &box, &one, sizeof(one)) != sizeof(one))
			errx(1, "%s", mmnf_last_error());
		hand->base[segment] = mmnf_activate(f, at);
		if (!hand->base[segment])
			errx(1, "%s", mmnf_last_error());
	}
}

static void print(const char *engine, const char *metric, double value)
{
	printf("{\"bench\": \"activate\", \"case\": \"%s\", \"engine\": \"%s\", "
	       "\"metric\": \"instructions\", \"value\": %.2f, "
	       "\"unit\": \"1/item\", \"clock\": \"none\"}\n",
	       metric, engine, value);
}

int main(int argc, char **argv)
{
	long empty;

	if (argc != 2 || chdir(argv[1]))
		errx(2, "FOLDER");
	open_all();
	empty = steps(nothing);
	print("hand", "element",
	      (double)(steps(elements_by_hand) - empty) / CALLS);
	print("activate_3d", "element",
	      (double)(steps(elements_3d) - empty) / CALLS);
	print("activate", "element",
	      (double)(steps(elements_any) - empty) / CALLS);
	print("hand", "loop",
	      (double)(steps(rows_by_hand) - steps(short_by_hand)) / 128);
	print("activate_3d", "loop",
	      (double)(steps(rows_activated) - steps(short_activated)) / 128);
	print("hand", "row", (double)(steps(rows_by_hand) - empty));
	print("activate_3d", "row", (double)(steps(rows_activated) - empty));
	mmnf_field_close(field);
	return 0;
}
