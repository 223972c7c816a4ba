// SPDX-License-Identifier: MIT
/*
 * Opening, printing and writing for all sub-commands.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

static void message(const struct options *o, const char *format, va_list ap)
{
	fprintf(stderr, "mmnf: %s: ", o->command);
	vfprintf(stderr, format, ap);
	fputc('\n', stderr);
}

int usage_error(const struct options *o, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	message(o, format, ap);
	va_end(ap);
	return EXIT_USAGE;
}

int failure(const struct options *o, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	message(o, format, ap);
	va_end(ap);
	return EXIT_FAILURE;
}

int library_failure(const struct options *o)
{
	return failure(o, "%s", mmnf_last_error());
}

const char *engine_name(uint32_t engine)
{
	return engine == MMNF_ENGINE_DEVICE ? "device" :
	       engine == MMNF_ENGINE_MMAP   ? "mmap" :
	       engine == MMNF_ENGINE_DIRECT ? "direct" :
	       engine == MMNF_ENGINE_NET    ? "net" :
					      "auto";
}

static bool parse_timeout(const char *text, struct mmnf_open_opts *opts)
{
	char *end;
	double seconds = strtod(text, &end);

	if (!strcmp(text, "forever")) {
		opts->net_fail_timeout_ms = MMNF_NET_FOREVER;
		return true;
	}
	if (end == text || *end || !(seconds >= 0.001 && seconds <= 1e6))
		return false;
	opts->net_fail_timeout_ms = (uint32_t)(seconds * 1000);
	/* Some tries should fit in. */
	if (seconds < 20)
		opts->net_request_timeout_ms = (uint32_t)(seconds * 250) + 1;
	return true;
}

int open_field(const struct options *o, bool writable,
	       struct mmnf_field **field, struct mmnf_field_info *info)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	const char *path = o->args[!strcmp(o->command, "import")];

	opts.writable = writable;
	if (o->engine && !strcmp(o->engine, "device"))
		opts.engine = MMNF_ENGINE_DEVICE;
	else if (o->engine && !strcmp(o->engine, "mmap"))
		opts.engine = MMNF_ENGINE_MMAP;
	else if (o->engine && !strcmp(o->engine, "direct"))
		opts.engine = MMNF_ENGINE_DIRECT;
	else if (o->engine && !strcmp(o->engine, "net"))
		opts.engine = MMNF_ENGINE_NET;
	else if (o->engine && strcmp(o->engine, "auto"))
		return usage_error(
			o,
			"--engine %s: expected auto, device, mmap, direct or net",
			o->engine);
	if (o->prefetch && !strcmp(o->prefetch, "off"))
		opts.prefetch_off = 1;
	else if (o->prefetch && strcmp(o->prefetch, "on"))
		return usage_error(o, "--prefetch %s: expected on or off",
				   o->prefetch);
	opts.net_tls_dir = o->tls_dir;
	opts.net_tls_psk_file = o->tls_psk_file;
	opts.net_tls_username = o->tls_username;
	opts.net_cache_dir = o->net_cache;
	if (o->net_cache_bytes &&
	    !parse_u64(o->net_cache_bytes, &opts.net_cache_bytes))
		return usage_error(o, "--net-cache-bytes %s: expected a number",
				   o->net_cache_bytes);
	if (o->net_timeout && !parse_timeout(o->net_timeout, &opts))
		return usage_error(
			o, "--net-timeout %s: expected seconds or 'forever'",
			o->net_timeout);
	if (mmnf_field_open(field, path, &opts))
		return library_failure(o);
	info->size = sizeof(*info);
	if (mmnf_field_info(*field, info)) {
		mmnf_field_close(*field);
		return library_failure(o);
	}
	return 0;
}

int open_box(const struct options *o, struct mmnf_field **field,
	     struct mmnf_field_info *info, struct mmnf_box *box)
{
	int ret = open_field(o, false, field, info);
	const char *wrong;

	if (ret)
		return ret;
	wrong = parse_box(o->box, info, box);
	if (!wrong)
		return EXIT_SUCCESS;
	mmnf_field_close(*field);
	return usage_error(o, "--box %s: %s", o->box, wrong);
}

json_t *json_numbers(const uint64_t *numbers, unsigned int nr)
{
	json_t *list = json_array();
	unsigned int i;

	for (i = 0; i < nr; i++)
		json_array_append_new(list,
				      json_integer((json_int_t)numbers[i]));
	return list;
}

json_t *stats_json(struct mmnf_field *field)
{
	struct mmnf_field_stats s = { .size = sizeof(s) };

	if (mmnf_field_stats(field, &s))
		return json_object();
	return json_pack("{sI sI sI sI sI sI sI sI sI}", "accesses",
			 (json_int_t)s.accesses, "hits", (json_int_t)s.hits,
			 "late", (json_int_t)s.late, "misses",
			 (json_int_t)s.misses, "prefetched_pages",
			 (json_int_t)s.prefetched_pages, "used_pages",
			 (json_int_t)s.used_pages, "wasted_pages",
			 (json_int_t)s.wasted_pages, "pending_pages",
			 (json_int_t)s.pending_pages, "windows_mapped",
			 (json_int_t)s.windows_mapped);
}

void human_bytes(uint64_t bytes, char text[16])
{
	static const char units[] = " kMGTPE";
	double v = (double)bytes;
	unsigned int unit = 0;

	while (v >= 1000 && unit < 6) {
		v /= 1000;
		unit++;
	}
	if (unit)
		snprintf(text, 16, "%.2f %cB", v, units[unit]);
	else
		snprintf(text, 16, "%u B", (unsigned int)bytes);
}

static void print_members(const json_t *object, const char *prefix)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)object, key, value)
	{
		char name[64], *text;

		snprintf(name, sizeof(name), "%s%s", prefix, key);
		if (json_is_object(value)) {
			snprintf(name, sizeof(name), "%s%s.", prefix, key);
			print_members(value, name);
			continue;
		}
		if (json_is_string(value)) {
			printf("%-28s %s\n", name, json_string_value(value));
			continue;
		}
		text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT |
						 JSON_REAL_PRECISION(12));
		printf("%-28s %s\n", name, text ? text : "?");
		free(text);
	}
}

int print_result(const struct options *o, json_t *result)
{
	if (!result)
		return failure(o, "out of memory");
	if (o->json) {
		json_dumpf(result, stdout, JSON_REAL_PRECISION(17));
		putchar('\n');
	} else {
		print_members(result, "");
	}
	json_decref(result);
	return EXIT_SUCCESS;
}

static double half_value(uint16_t h)
{
	int exponent = h >> 10 & 31;
	double m = h & 1023, v;

	if (exponent == 31)
		v = m != 0 ? NAN : INFINITY;
	else if (exponent)
		v = ldexp(m + 1024, exponent - 25);
	else
		v = ldexp(m, -24);
	return h >> 15 ? -v : v;
}

double element_value(uint32_t dtype, const void *p)
{
	union {
		int8_t i8;
		uint8_t u8;
		int16_t i16;
		uint16_t u16;
		int32_t i32;
		uint32_t u32;
		int64_t i64;
		uint64_t u64;
		float f32;
		double f64;
	} v;

	uint32_t bits;

	memcpy(&v, p, mmnf_dtype_bytes(dtype));
	switch (dtype) {
	case MMNF_I8:
		return v.i8;
	case MMNF_U8:
		return v.u8;
	case MMNF_I16:
		return v.i16;
	case MMNF_U16:
		return v.u16;
	case MMNF_I32:
		return v.i32;
	case MMNF_U32:
		return v.u32;
	case MMNF_I64:
		return (double)v.i64;
	case MMNF_U64:
		return (double)v.u64;
	case MMNF_F16:
		return half_value(v.u16);
	case MMNF_BF16:
		bits = (uint32_t)v.u16 << 16;
		memcpy(&v.f32, &bits, sizeof(bits));
		return v.f32;
	case MMNF_F32:
		return v.f32;
	default:
		return v.f64;
	}
}

void element_text(uint32_t dtype, const void *p, char text[32])
{
	int64_t i64;
	uint64_t u64;

	if (dtype == MMNF_I64) {
		memcpy(&i64, p, 8);
		snprintf(text, 32, "%" PRId64, i64);
	} else if (dtype == MMNF_U64) {
		memcpy(&u64, p, 8);
		snprintf(text, 32, "%" PRIu64, u64);
	} else {
		/* As many digits as tell two neighbours apart. */
		snprintf(text, 32, "%.*g",
			 dtype == MMNF_F64  ? 17 :
			 dtype == MMNF_F32  ? 9 :
			 dtype == MMNF_F16  ? 5 :
			 dtype == MMNF_BF16 ? 4 :
					      10,
			 element_value(dtype, p));
	}
}

void progress(void *what, uint64_t done_bytes, uint64_t total_bytes)
{
	static int last = -1;
	int percent = total_bytes ? (int)(done_bytes * 100.0 / total_bytes) :
				    100;

	if (!isatty(STDERR_FILENO) || percent == last)
		return;
	last = percent;
	fprintf(stderr, "\r%s [%-40.*s] %3d %%%s", (const char *)what,
		percent * 40 / 100, "########################################",
		percent, percent == 100 ? "\n" : "");
}

static const char *npy_descr(uint32_t dtype)
{
	switch (dtype) {
	case MMNF_I8:
		return "|i1";
	case MMNF_U8:
		return "|u1";
	case MMNF_I16:
		return "<i2";
	case MMNF_U16:
		return "<u2";
	case MMNF_I32:
		return "<i4";
	case MMNF_U32:
		return "<u4";
	case MMNF_I64:
		return "<i8";
	case MMNF_U64:
		return "<u8";
	case MMNF_F16:
		return "<f2";
	case MMNF_F32:
		return "<f4";
	case MMNF_F64:
		return "<f8";
	default:
		return NULL; /* numpy has no bfloat16 */
	}
}

/* Format version 1.0: magic, length, a Python dict padded to 64 bytes. */
static void write_npy_header(FILE *to, const char *descr, unsigned int ndim,
			     const uint64_t *shape)
{
	char text[512];
	unsigned int i;
	int len, total;

	len = snprintf(text, sizeof(text),
		       "{'descr': '%s', 'fortran_order': False, 'shape': (",
		       descr);
	for (i = 0; i < ndim; i++)
		len += snprintf(text + len, sizeof(text) - len, "%" PRIu64 ",",
				shape[i]);
	len += snprintf(text + len, sizeof(text) - len, "), }");
	total = (10 + len + 1 + 63) / 64 * 64 - 10;
	fwrite("\x93NUMPY\x01\x00", 1, 8, to);
	fputc(total & 255, to);
	fputc(total >> 8, to);
	fprintf(to, "%-*s\n", total - 1, text);
}

int write_array(const struct options *o, uint32_t dtype, unsigned int ndim,
		const uint64_t *shape, const void *data, size_t bytes)
{
	size_t len = strlen(o->out);
	bool npy = len > 4 && !strcmp(o->out + len - 4, ".npy");
	const char *descr = npy_descr(dtype);
	FILE *to;
	bool bad;

	if (npy && !descr)
		return failure(o, "%s: .npy has no type %s; use a raw file",
			       o->out, mmnf_dtype_name(dtype));
	to = strcmp(o->out, "-") ? fopen(o->out, "wb") : stdout;
	if (!to)
		return failure(o, "%s: %s", o->out, strerror(errno));
	if (npy)
		write_npy_header(to, descr, ndim, shape);
	fwrite(data, 1, bytes, to);
	bad = ferror(to);
	if (to != stdout)
		bad |= fclose(to) != 0;
	if (bad)
		return failure(o, "%s: %s", o->out, strerror(errno));
	return 0;
}
