/* SPDX-License-Identifier: MIT */
/*
 * A small test harness for C and C++: one header, one program per subject.
 *
 *	#include "ktap.h"
 *
 *	TEST(stride_of_one_is_sequential)
 *	{
 *		EXPECT_EQ(plan.count, 8);
 *		ASSERT_TRUE(p != NULL);
 *		if (!have_device())
 *			SKIP("no /dev/mmnf");
 *	}
 *
 *	TEST_MAIN
 *
 * Tests register themselves and run in file order, each in a process of its
 * own with a time limit: a crash or a hang is one failure, and no test sees
 * what another left in memory.  EXPECT_ notes a failure and goes on, ASSERT_
 * ends the test.  The report is KTAP on stdout; the program ends with 0 when
 * all passed, 1 when any failed, 4 when all were skipped.
 *
 *	./predict 'stride*'	runs some		./predict -l	lists them
 *
 * Numbers are compared by value whatever their types: -1 never equals
 * UINT64_MAX.  It never retries and knows nothing of what is tested.
 */
#ifndef MMNF_KTAP_H
#define MMNF_KTAP_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Seconds for one test; the environment's KTAP_TIMEOUT goes first. */
#ifndef KTAP_TIMEOUT
#define KTAP_TIMEOUT 60
#endif

#define KTAP_FAIL 1
#define KTAP_SKIP 4

#define KTAP_UNUSED __attribute__((unused))

__extension__ typedef __int128 ktap_wide;

struct ktap_test {
	const char *name;
	void (*fn)(void);
	struct ktap_test *next;
};

/* What a test's process tells its parent beside its exit status. */
struct ktap_shared {
	int failures;
	char skip[256];
};

static struct ktap_test *ktap_first, **ktap_last = &ktap_first;
static struct ktap_shared *ktap_shared;

static inline void ktap_register(struct ktap_test *test)
{
	*ktap_last = test;
	ktap_last = &test->next;
}

#define TEST(test)                                                          \
	static void test_##test(void);                                      \
	static struct ktap_test ktap_##test = { #test, test_##test, NULL }; \
	__attribute__((constructor)) static void ktap_register_##test(void) \
	{                                                                   \
		ktap_register(&ktap_##test);                                \
	}                                                                   \
	static void test_##test(void)

#define TEST_MAIN                             \
	int main(int argc, char **argv)       \
	{                                     \
		return ktap_main(argc, argv); \
	}

/* ---- a value of any type, as the checks see it */

enum ktap_kind { KTAP_INTEGER, KTAP_REAL, KTAP_POINTER };

struct ktap_value {
	enum ktap_kind kind;
	ktap_wide integer;
	long double real;
};

static inline struct ktap_value ktap_integer(ktap_wide x)
{
	struct ktap_value v = { KTAP_INTEGER, x, 0 };

	return v;
}

static inline struct ktap_value ktap_real(long double x)
{
	struct ktap_value v = { KTAP_REAL, 0, x };

	return v;
}

static inline struct ktap_value ktap_pointer(const volatile void *x)
{
	struct ktap_value v = { KTAP_POINTER, (ktap_wide)(size_t)x, 0 };

	return v;
}

#ifdef __cplusplus
template <typename T> static inline struct ktap_value ktap_value(T x)
{
	return ktap_integer((ktap_wide)x);
}
template <typename T> static inline struct ktap_value ktap_value(T *x)
{
	return ktap_pointer(x);
}
static inline struct ktap_value ktap_value(float x)
{
	return ktap_real(x);
}
static inline struct ktap_value ktap_value(double x)
{
	return ktap_real(x);
}
static inline struct ktap_value ktap_value(long double x)
{
	return ktap_real(x);
}
#else
/* Of pointers, only the bare ones; a typed one is compared by EXPECT_TRUE. */
#define ktap_value(x) \
	_Generic((x),                                                         \
		 float: ktap_real,                                            \
		 double: ktap_real,                                           \
		 long double: ktap_real,                                      \
		 void *: ktap_pointer,                                        \
		 const void *: ktap_pointer,                                  \
		 char *: ktap_pointer,                                        \
		 const char *: ktap_pointer,                                  \
		 default: ktap_integer)(x)
#endif

static inline void ktap_format(char *out, size_t len, struct ktap_value v)
{
	unsigned long long magnitude;

	if (v.kind == KTAP_REAL) {
		snprintf(out, len, "%.17Lg", v.real);
		return;
	}
	magnitude =
		(unsigned long long)(v.integer < 0 ? -v.integer : v.integer);
	if (v.kind == KTAP_POINTER)
		snprintf(out, len, "%#llx", magnitude);
	else if (magnitude < 4096)
		snprintf(out, len, "%s%llu", v.integer < 0 ? "-" : "",
			 magnitude);
	else
		snprintf(out, len, "%s%llu (%#llx)", v.integer < 0 ? "-" : "",
			 magnitude, magnitude);
}

/* Neither less, equal nor greater holds for a NaN: each check but NE fails. */
static inline int ktap_holds(const char *op, struct ktap_value a,
			     struct ktap_value b)
{
	int less, equal;

	if (a.kind == KTAP_REAL || b.kind == KTAP_REAL) {
		long double x = a.kind == KTAP_REAL ? a.real : a.integer;
		long double y = b.kind == KTAP_REAL ? b.real : b.integer;

		if (x != x || y != y)
			return !strcmp(op, "!=");
		less = x < y;
		equal = x == y;
	} else {
		less = a.integer < b.integer;
		equal = a.integer == b.integer;
	}
	if (!strcmp(op, "=="))
		return equal;
	if (!strcmp(op, "!="))
		return !equal;
	if (!strcmp(op, "<"))
		return less;
	if (!strcmp(op, "<="))
		return less || equal;
	return !less && !equal;
}

__attribute__((format(printf, 1, 2))) static inline void
ktap_failed(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	fflush(stdout);
	__atomic_fetch_add(&ktap_shared->failures, 1, __ATOMIC_RELAXED);
}

static inline int ktap_check(const char *file, int line, const char *op,
			     const char *a_text, struct ktap_value a,
			     const char *b_text, struct ktap_value b)
{
	char a_value[80], b_value[80];

	if (ktap_holds(op, a, b))
		return 1;
	ktap_format(a_value, sizeof(a_value), a);
	ktap_format(b_value, sizeof(b_value), b);
	ktap_failed("# %s:%d: expected %s %s %s\n#\t%s = %s\n#\t%s = %s\n",
		    file, line, a_text, op, b_text, a_text, a_value, b_text,
		    b_value);
	return 0;
}

static inline int ktap_check_true(const char *file, int line, const char *text,
				  int holds)
{
	if (!holds)
		ktap_failed("# %s:%d: expected %s\n", file, line, text);
	return holds;
}

static inline int ktap_check_str(const char *file, int line, const char *a_text,
				 const char *a, const char *b_text,
				 const char *b)
{
	if (a && b && !strcmp(a, b))
		return 1;
	ktap_failed("# %s:%d: expected %s equal to %s\n#\t'%s'\n#\t'%s'\n",
		    file, line, a_text, b_text, a ? a : "(null)",
		    b ? b : "(null)");
	return 0;
}

/* Without exit handlers: a leak report after a failed ASSERT would mislead. */
#define KTAP_ASSERT(check)                \
	do {                              \
		if (!(check))             \
			_exit(KTAP_FAIL); \
	} while (0)

#define KTAP_COMPARE(a, op, b)                                     \
	ktap_check(__FILE__, __LINE__, #op, #a, ktap_value(a), #b, \
		   ktap_value(b))
#define KTAP_STREQ(a, b) ktap_check_str(__FILE__, __LINE__, #a, a, #b, b)
#define KTAP_TRUE(x) ktap_check_true(__FILE__, __LINE__, #x, !!(x))

#define EXPECT_EQ(a, b) ((void)KTAP_COMPARE(a, ==, b))
#define EXPECT_NE(a, b) ((void)KTAP_COMPARE(a, !=, b))
#define EXPECT_LT(a, b) ((void)KTAP_COMPARE(a, <, b))
#define EXPECT_LE(a, b) ((void)KTAP_COMPARE(a, <=, b))
#define EXPECT_GT(a, b) ((void)KTAP_COMPARE(a, >, b))
#define EXPECT_GE(a, b) ((void)KTAP_COMPARE(b, <=, a))
#define EXPECT_TRUE(x) ((void)KTAP_TRUE(x))
#define EXPECT_STREQ(a, b) ((void)KTAP_STREQ(a, b))

#define ASSERT_EQ(a, b) KTAP_ASSERT(KTAP_COMPARE(a, ==, b))
#define ASSERT_NE(a, b) KTAP_ASSERT(KTAP_COMPARE(a, !=, b))
#define ASSERT_LT(a, b) KTAP_ASSERT(KTAP_COMPARE(a, <, b))
#define ASSERT_LE(a, b) KTAP_ASSERT(KTAP_COMPARE(a, <=, b))
#define ASSERT_GT(a, b) KTAP_ASSERT(KTAP_COMPARE(a, >, b))
#define ASSERT_GE(a, b) KTAP_ASSERT(KTAP_COMPARE(b, <=, a))
#define ASSERT_TRUE(x) KTAP_ASSERT(KTAP_TRUE(x))
#define ASSERT_STREQ(a, b) KTAP_ASSERT(KTAP_STREQ(a, b))

/* Ends the test; the reason is a printf format. */
#define SKIP(...)                                                      \
	do {                                                           \
		snprintf(ktap_shared->skip, sizeof(ktap_shared->skip), \
			 __VA_ARGS__);                                 \
		fflush(NULL);                                          \
		_exit(ktap_shared->failures ? KTAP_FAIL : KTAP_SKIP);  \
	} while (0)

/* ---- running */

static inline int ktap_run(const struct ktap_test *test, int nr)
{
	const char *limit = getenv("KTAP_TIMEOUT");
	int seconds = limit ? atoi(limit) : KTAP_TIMEOUT;
	int status;
	pid_t pid;

	memset(ktap_shared, 0, sizeof(*ktap_shared));
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		alarm(seconds);
		test->fn();
		exit(ktap_shared->failures ? KTAP_FAIL : 0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		printf("not ok %d %s # %s\n", nr, test->name, strerror(errno));
		return KTAP_FAIL;
	}
	kill(-pid, SIGKILL); /* what the test started and forgot */
	if (WIFEXITED(status) && WEXITSTATUS(status) == KTAP_SKIP) {
		printf("ok %d %s # SKIP %s\n", nr, test->name,
		       ktap_shared->skip);
		return KTAP_SKIP;
	}
	if (WIFEXITED(status) && !WEXITSTATUS(status)) {
		printf("ok %d %s\n", nr, test->name);
		return 0;
	}
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		printf("# %s: no end after %d s\n", test->name, seconds);
	else if (WIFSIGNALED(status))
		printf("# %s: %s\n", test->name, strsignal(WTERMSIG(status)));
	else if (!ktap_shared->failures)
		printf("# %s: exit status %d\n", test->name,
		       WEXITSTATUS(status));
	printf("not ok %d %s\n", nr, test->name);
	return KTAP_FAIL;
}

static inline int ktap_selected(const struct ktap_test *test, int argc,
				char **argv)
{
	int i;

	for (i = 1; i < argc; i++)
		if (!fnmatch(argv[i], test->name, 0))
			return 1;
	return argc < 2;
}

static KTAP_UNUSED int ktap_main(int argc, char **argv)
{
	int nr = 0, nr_failed = 0, nr_skipped = 0, total = 0;
	struct ktap_test *test;

	if (argc == 2 && !strcmp(argv[1], "-l")) {
		for (test = ktap_first; test; test = test->next)
			puts(test->name);
		return 0;
	}
	ktap_shared = (struct ktap_shared *)mmap(NULL, sizeof(*ktap_shared),
						 PROT_READ | PROT_WRITE,
						 MAP_SHARED | MAP_ANONYMOUS, -1,
						 0);
	if (ktap_shared == MAP_FAILED) {
		perror("Bail out! mmap");
		return KTAP_FAIL;
	}
	for (test = ktap_first; test; test = test->next)
		total += ktap_selected(test, argc, argv);
	printf("KTAP version 1\n1..%d\n", total);
	for (test = ktap_first; test; test = test->next) {
		int status;

		if (!ktap_selected(test, argc, argv))
			continue;
		status = ktap_run(test, ++nr);
		nr_failed += status == KTAP_FAIL;
		nr_skipped += status == KTAP_SKIP;
	}
	fflush(stdout);
	if (nr_failed || !total)
		return KTAP_FAIL;
	return nr_skipped == total ? KTAP_SKIP : 0;
}

#endif /* MMNF_KTAP_H */
