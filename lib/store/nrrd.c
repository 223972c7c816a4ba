// SPDX-License-Identifier: MIT
/*
 * NRRD with encoding raw: a text header, then the data; or the header alone
 * (.nhdr), which names the file of the data.
 *
 *	NRRD0004
 *	# a comment
 *	type: float
 *	dimension: 3
 *	sizes: 128 206 168		fastest first
 *	encoding: raw
 *	endian: little
 *	data file: brain.raw		detached
 *	byte skip: 16			-1: the data is the end of the file
 *					an empty line ends the header
 *
 * From teem's definition of the format.  Data files must be in the header's
 * folder; lists and patterns of them are refused.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "store/store.h"

#define LINE_MAX_BYTES 1024

static const struct {
	const char *names; /* between spaces */
	enum mmnf_dtype dtype;
} types[] = {
	{ "|float|", MMNF_F32 },
	{ "|double|", MMNF_F64 },
	{ "|unsigned char|uchar|uint8|uint8_t|", MMNF_U8 },
	{ "|signed char|int8|int8_t|", MMNF_I8 },
	{ "|short|short int|signed short|signed short int|int16|int16_t|",
	  MMNF_I16 },
	{ "|ushort|unsigned short|unsigned short int|uint16|uint16_t|",
	  MMNF_U16 },
	{ "|int|signed int|int32|int32_t|", MMNF_I32 },
	{ "|uint|unsigned int|uint32|uint32_t|", MMNF_U32 },
	{ "|longlong|long long|long long int|signed long long|signed long long int|int64|int64_t|",
	  MMNF_I64 },
	{ "|ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t|",
	  MMNF_U64 },
};

#define NR_TYPES (sizeof(types) / sizeof(types[0]))

struct header {
	struct mmnf_array *out;
	const char *path;
	bool type, sizes, raw, little, big;
	u64 ndim; /* as said; 0: not yet */
	s64 byte_skip;
};

static bool is_nrrd(const struct mmnf_source *src)
{
	return src->head_bytes >= 9 && !memcmp(src->head, "NRRD000", 7);
}

static int parse_type(struct header *h, const char *value)
{
	char wanted[40];
	size_t i;

	if (snprintf(wanted, sizeof(wanted), "|%s|", value) <
	    (int)sizeof(wanted))
		for (i = 0; i < NR_TYPES; i++) {
			if (!strstr(types[i].names, wanted))
				continue;
			h->out->dtype = types[i].dtype;
			h->type = true;
			return 0;
		}
	return mmnf_error(
		EOPNOTSUPP,
		"nrrd: type is '%.40s': expected an integer or floating-point type of 1 to 8 bytes",
		value);
}

/* A number from text on, which is moved behind it. */
static bool take_number(const char **text, s64 *out)
{
	char *end;

	errno = 0;
	*out = strtoll(*text, &end, 10);
	if (errno || end == *text || (*end && *end != ' ' && *end != '\t'))
		return false;
	*text = end + strspn(end, " \t");
	return true;
}

static int parse_sizes(struct header *h, const char *value)
{
	u64 sizes[MMNF_NDIM_MAX];
	u32 n = 0, i;
	s64 size;

	while (*value) {
		if (n == MMNF_NDIM_MAX || !take_number(&value, &size) ||
		    size < 1)
			return mmnf_error(
				EINVAL,
				"nrrd: sizes: expected 1 to 8 integers from 1 on, '%.40s' is left",
				value);
		sizes[n++] = (u64)size;
	}
	if (!n || (h->ndim && n != h->ndim))
		return mmnf_error(
			EINVAL,
			"nrrd: sizes: %u of them: expected dimension, %" PRIu64,
			n, h->ndim);
	for (i = 0; i < n; i++)
		h->out->shape[i] = sizes[n - 1 - i];
	h->out->ndim = n;
	h->sizes = true;
	return 0;
}

static int parse_data_file(struct header *h, const char *value)
{
	if (!strncmp(value, "LIST", 4) || strchr(value, '%'))
		return mmnf_error(
			EOPNOTSUPP,
			"nrrd: data file is '%.64s': expected one file", value);
	if (!*value || strlen(value) >= sizeof(h->out->data_file))
		return mmnf_error(
			EINVAL,
			"nrrd: data file: expected a name of 1 to 255 bytes");
	strcpy(h->out->data_file, value);
	return 0;
}

static bool is_field(const char *name, const char *a, const char *b)
{
	return !strcasecmp(name, a) || !strcasecmp(name, b);
}

static int parse_field(struct header *h, const char *name, const char *value)
{
	s64 n = 0;

	if (is_field(name, "type", "type"))
		return parse_type(h, value);
	if (is_field(name, "sizes", "sizes"))
		return parse_sizes(h, value);
	if (is_field(name, "data file", "datafile"))
		return parse_data_file(h, value);
	if (is_field(name, "encoding", "encoding")) {
		h->raw = !strcasecmp(value, "raw");
		return h->raw ?
			       0 :
			       mmnf_error(
				       EOPNOTSUPP,
				       "nrrd: encoding is '%.40s': expected raw",
				       value);
	}
	if (is_field(name, "endian", "endian")) {
		h->little = !strcasecmp(value, "little");
		h->big = !strcasecmp(value, "big");
		return 0;
	}
	if (is_field(name, "dimension", "dimension")) {
		if (!take_number(&value, &n) || *value || n < 1 ||
		    n > MMNF_NDIM_MAX)
			return mmnf_error(
				EINVAL,
				"nrrd: dimension is '%.40s': expected 1 to 8",
				value);
		h->ndim = (u64)n;
		return 0;
	}
	if (is_field(name, "byte skip", "byteskip")) {
		if (!take_number(&value, &n) || *value || n < -1)
			return mmnf_error(
				EINVAL,
				"nrrd: byte skip: expected a number from -1 on");
		h->byte_skip = n;
		return 0;
	}
	if (is_field(name, "line skip", "lineskip")) {
		if (!take_number(&value, &n) || *value || n)
			return mmnf_error(
				EOPNOTSUPP,
				"nrrd: line skip is '%.40s': expected 0",
				value);
	}
	return 0; /* what it means is not needed to find the elements */
}

/* "field: value"; comments and "key:=value" are passed over. */
static int parse_line(struct header *h, char *line)
{
	char *colon = strchr(line, ':'), *end = line + strlen(line);

	while (end > line && (end[-1] == ' ' || end[-1] == '\t'))
		*--end = 0;
	if (*line == '#' || (colon && colon[1] == '='))
		return 0;
	if (!colon)
		return mmnf_error(
			EINVAL, "nrrd: line '%.40s': expected \"field: value\"",
			line);
	*colon = 0;
	return parse_field(h, line, colon + 1 + strspn(colon + 1, " \t"));
}

/* *at: behind the header. */
static int parse_lines(struct header *h, const struct mmnf_source *src,
		       size_t *at)
{
	char line[LINE_MAX_BYTES];
	bool first = true;
	int err;

	while (*at < src->head_bytes) {
		const u8 *from = src->head + *at;
		size_t left = src->head_bytes - *at, len;
		const u8 *end = memchr(from, '\n', left);

		len = end ? (size_t)(end - from) : left;
		*at += len + !!end;
		if (len && from[len - 1] == '\r')
			len--;
		if (!len)
			return 0;
		if (len >= sizeof(line) || memchr(from, 0, len))
			return mmnf_error(
				EINVAL,
				"nrrd: header: expected lines of text of fewer than %d bytes",
				LINE_MAX_BYTES);
		memcpy(line, from, len);
		line[len] = 0;
		err = first ? 0 : parse_line(h, line);
		if (err)
			return err;
		first = false;
	}
	if (src->head_bytes < src->file_bytes)
		return mmnf_error(EINVAL,
				  "nrrd: header: expected less than 1 MiB");
	return 0; /* a detached one may end with the file */
}

static int parse_nrrd(struct mmnf_array *out, struct mmnf_source *src)
{
	struct header h = { .out = out, .path = src->path };
	size_t at = 0;
	int err;

	err = parse_lines(&h, src, &at);
	if (err)
		return err;
	if (!h.type || !h.sizes || !h.raw)
		return mmnf_error(
			EINVAL,
			"nrrd: header: expected type, sizes and encoding");
	if (h.ndim && h.ndim != out->ndim)
		return mmnf_error(
			EINVAL,
			"nrrd: sizes: %u of them: expected dimension, %" PRIu64,
			out->ndim, h.ndim);
	if (mmnf_dtype_bytes(out->dtype) > 1 && !h.little)
		return mmnf_error(h.big ? EOPNOTSUPP : EINVAL,
				  "nrrd: endian is %s: expected little",
				  h.big ? "big" : "missing");
	err = mmnf_array_finish(out, false);
	if (err)
		return err;
	out->data_at_end = h.byte_skip < 0;
	out->data_offset_bytes = out->data_file[0] ? 0 : at;
	if (h.byte_skip > 0 &&
	    __builtin_add_overflow(out->data_offset_bytes, (u64)h.byte_skip,
				   &out->data_offset_bytes))
		return mmnf_error(EINVAL,
				  "nrrd: byte skip: expected inside the file");
	return 0;
}

#define ALIGN_BYTES 64U

static int print_nrrd(const struct mmnf_array *a, u8 **head, size_t *bytes)
{
	char sizes[MMNF_NDIM_MAX * 21 + 1] = "", name[32], lines[512];
	size_t len = 0, t;
	char *text;
	u32 i;
	int n;

	for (t = 0; t < NR_TYPES && types[t].dtype != a->dtype; t++)
		;
	if (t == NR_TYPES)
		return mmnf_error(
			EOPNOTSUPP,
			"nrrd has no type %s: expected another format",
			mmnf_dtype_name(a->dtype));
	for (i = a->ndim; i-- > 0;)
		len += (size_t)snprintf(sizes + len, sizeof(sizes) - len,
					" %" PRIu64, a->shape[i]);
	snprintf(name, sizeof(name), "%.*s",
		 (int)strcspn(types[t].names + 1, "|"), types[t].names + 1);
	n = snprintf(lines, sizeof(lines),
		     "NRRD0004\ntype: %s\ndimension: %u\nsizes:%s\n"
		     "encoding: raw\nendian: little\n",
		     name, a->ndim, sizes);
	/* A comment of blanks, so that pointers to elements are aligned. */
	n = asprintf(&text, "%s#%*s\n\n", lines,
		     (int)(-(unsigned int)(n + 3) % ALIGN_BYTES), "");
	if (n < 0)
		return mmnf_error(ENOMEM, "no memory");
	*head = (u8 *)text;
	*bytes = (size_t)n;
	return 0;
}

const struct mmnf_format mmnf_format_nrrd = {
	.name = "nrrd",
	.suffix = { ".nrrd" },
	.is = is_nrrd,
	.parse = parse_nrrd,
	.print = print_nrrd,
};
