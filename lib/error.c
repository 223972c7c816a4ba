// SPDX-License-Identifier: MIT
/*
 * The text of the last error, one per thread.
 *
 * Never allocates and never fails; texts longer than the buffer are cut.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "internal.h"

static __thread char text[512];
static __thread const char *function = "mmnf";

void mmnf_error_enter(const char *name)
{
	function = name;
}

static int set(int err, const char *format, va_list args)
{
	int n = snprintf(text, sizeof(text), "%s: ", function);

	vsnprintf(text + n, sizeof(text) - (size_t)n, format, args);
	return -err;
}

int mmnf_error(int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	set(err, format, args);
	va_end(args);
	return -err;
}

int mmnf_error_system(int err, const char *format, ...)
{
	char words[96];
	va_list args;
	size_t n;

	va_start(args, format);
	set(err, format, args);
	va_end(args);
	n = strlen(text);
	snprintf(text + n, sizeof(text) - n, ": %s",
		 strerror_r(err, words, sizeof(words)));
	return -err;
}

void mmnf_error_again(const char *words)
{
	snprintf(text, sizeof(text), "%s", words);
}

int mmnf_error_opts(const void *opts, size_t size, size_t known,
		    const char *name)
{
	const char *p = opts;
	size_t i;

	if (size < sizeof(size_t) || size > 4096)
		return mmnf_error(EINVAL,
				  "%s.size is %zu: expected sizeof, %zu", name,
				  size, known);
	for (i = known; i < size; i++)
		if (p[i])
			return mmnf_error(
				EOPNOTSUPP,
				"%s: unknown member at byte %zu: this library knows %zu bytes",
				name, i, known);
	return 0;
}

MMNF_EXPORT const char *mmnf_last_error(void)
{
	return text;
}

MMNF_EXPORT const char *mmnf_version(void)
{
	return MMNF_VERSION;
}

u64 mmnf_page_bytes(void)
{
	static u64 bytes;

	if (!bytes)
		bytes = (u64)sysconf(_SC_PAGESIZE);
	return bytes;
}
