// SPDX-License-Identifier: MIT
/*
 * mmnf get, mmnf gather: copies of elements, printed or written to a file.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tool.h"

/* What is copied at once; a larger selection belongs into a program. */
#define MOST_BYTES (1ULL << 32)

static int print_elements(const struct options *o, uint32_t dtype,
			  const char *data, uint64_t nr)
{
	unsigned int bytes = mmnf_dtype_bytes(dtype);
	char text[32];
	uint64_t i;

	if (o->json)
		printf("{\"dtype\": \"%s\", \"values\": [",
		       mmnf_dtype_name(dtype));
	for (i = 0; i < nr; i++) {
		element_text(dtype, data + i * bytes, text);
		if (!o->json)
			puts(text);
		else if (strspn(text, "0123456789+-.e") == strlen(text))
			printf("%s%s", i ? ", " : "", text);
		else /* JSON has no NaN and no infinity */
			printf("%s\"%s\"", i ? ", " : "", text);
	}
	if (o->json)
		puts("]}");
	return EXIT_SUCCESS;
}

static int deliver(const struct options *o, const struct mmnf_field_info *info,
		   const uint64_t *shape, const char *data, uint64_t nr)
{
	if (o->out)
		return write_array(o, info->dtype, info->ndim, shape, data,
				   nr * info->element_bytes);
	return print_elements(o, info->dtype, data, nr);
}

int cmd_get(const struct options *o)
{
	const char *text = o->nr_args > 1 ? o->args[1] : o->box;
	struct mmnf_field_info info;
	struct mmnf_field *field;
	const char *wrong;
	struct mmnf_box box;
	char *data = NULL;
	uint64_t nr;
	int ret;

	ret = open_field(o, false, &field, &info);
	if (ret)
		return ret;
	wrong = text ? parse_box(text, &info, &box) :
		       "expected coordinates or a box";
	if (wrong) {
		ret = usage_error(o, "%s: %s", text ? text : o->args[0], wrong);
		goto out;
	}
	nr = box_elements(&box, info.ndim);
	if (nr > MOST_BYTES / info.element_bytes) {
		ret = failure(o, "%s: more than %llu bytes", text, MOST_BYTES);
		goto out;
	}
	data = malloc(nr * info.element_bytes + 1);
	if (!data) {
		ret = failure(o, "out of memory");
		goto out;
	}
	if (mmnf_get(field, &box, data, nr * info.element_bytes) < 0)
		ret = library_failure(o);
	else
		ret = deliver(o, &info, box.count, data, nr);
out:
	free(data);
	mmnf_field_close(field);
	return ret;
}

/* "1,2,3" or @FILE with numbers separated by commas, blanks or lines. */
static int read_indices(const struct options *o, const char *text,
			uint64_t **out, size_t *nr)
{
	size_t room = 0, len = 0;
	uint64_t *list = NULL, *more;
	char *whole = NULL, *item, *rest;
	int ret = 0;
	FILE *from;

	if (*text == '@') {
		from = fopen(text + 1, "r");
		if (!from)
			return failure(o, "%s: %s", text + 1, strerror(errno));
		if (getdelim(&whole, &len, 0, from) < 0) {
			/* What is in the buffer then is nothing of the file. */
			if (ferror(from))
				ret = failure(o, "%s: %s", text + 1,
					      strerror(errno));
			free(whole);
			whole = strdup("");
		}
		fclose(from);
	} else {
		whole = strdup(text);
	}
	if (!ret && !whole)
		ret = failure(o, "out of memory");
	for (item = ret ? NULL : strtok_r(whole, ", \t\r\n", &rest); item;
	     item = strtok_r(NULL, ", \t\r\n", &rest)) {
		if (*nr == room) {
			room = room ? room * 2 : 1024;
			more = realloc(list, room * sizeof(*list));
			if (!more) {
				ret = failure(o, "out of memory");
				break;
			}
			list = more;
		}
		if (!parse_u64(item, &list[(*nr)++])) {
			ret = usage_error(o, "%s: expected an index", item);
			break;
		}
	}
	free(whole);
	if (ret)
		free(list);
	else
		*out = list;
	return ret;
}

int cmd_gather(const struct options *o)
{
	uint64_t record = 1, shape[MMNF_NDIM_MAX], *index = NULL;
	struct mmnf_field_info info;
	struct mmnf_field *field;
	char *data = NULL;
	unsigned int i;
	size_t nr = 0;
	int ret;

	ret = open_field(o, false, &field, &info);
	if (ret)
		return ret;
	ret = read_indices(o, o->args[1], &index, &nr);
	if (ret)
		goto out;
	for (i = 1; i < info.ndim; i++)
		if (__builtin_mul_overflow(record, info.shape[i], &record))
			record = MOST_BYTES;
	if (nr && record > MOST_BYTES / info.element_bytes / nr) {
		ret = failure(o, "%zu records are more than %llu bytes", nr,
			      MOST_BYTES);
		goto out;
	}
	data = malloc(nr * record * info.element_bytes + 1);
	if (!data) {
		ret = failure(o, "out of memory");
		goto out;
	}
	memcpy(shape, info.shape, sizeof(shape));
	shape[0] = nr;
	if (mmnf_batch_get(field, index, nr, data,
			   nr * record * info.element_bytes) < 0)
		ret = library_failure(o);
	else
		ret = deliver(o, &info, shape, data, nr * record);
out:
	free(data);
	free(index);
	mmnf_field_close(field);
	return ret;
}
