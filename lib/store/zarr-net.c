// SPDX-License-Identifier: MIT
/*
 * Fields whose data lies on the network:
 *
 *	"attributes": {"mmnf": {"net": {
 *		"uris": [["nbd://a/x", "nbd://a2/x"], ["nbd://b/x"]],
 *		"stripe_bytes": 1048576}}}
 *
 * a list of servers, each a list of gateways to the same bytes; or, without a
 * manifest, URI[,URI...]#raw,dtype=T,shape=NxN...
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/store.h"
#include "store/zarr-codec.h"
#include "store/zarr-net.h"

#define KEY "attributes.mmnf.net"

static int parse_gateways(struct mmnf_net_layout *net, const char *key,
			  const json_t *list)
{
	char *all = NULL;
	size_t i, len = 0;
	FILE *to;
	int err;

	if (!json_is_array(list) || !json_array_size(list))
		return mmnf_zarr_wrong(EINVAL, key, list, "a list of URIs");
	for (i = 0; i < json_array_size(list); i++) {
		const json_t *v = json_array_get(list, i);

		if (!json_is_string(v) || strchr(json_string_value(v), ',') ||
		    strlen(json_string_value(v)) != json_string_length(v))
			return mmnf_zarr_wrong(EINVAL, key, v,
					       "URIs without a comma");
	}
	to = open_memstream(&all, &len);
	for (i = 0; to && i < json_array_size(list); i++)
		fprintf(to, "%s%s", i ? "," : "",
			json_string_value(json_array_get(list, i)));
	if (!to || fclose(to))
		err = mmnf_error(ENOMEM, "no memory");
	else
		err = mmnf_net_layout_add(net, all);
	free(all);
	return err;
}

static int parse(struct mmnf_net_layout *net, const json_t *v)
{
	const json_t *uris = json_object_get(v, "uris");
	const json_t *stripe = json_object_get(v, "stripe_bytes");
	const char *name;
	json_t *value;
	char key[48];
	size_t i;
	int err = 0;

	json_object_foreach((json_t *)v, name, value)
	{
		if (strcmp(name, "uris") && strcmp(name, "stripe_bytes"))
			return mmnf_error(
				EOPNOTSUPP,
				"zarr.json: " KEY
				": key \"%.64s\" is not known: expected uris and stripe_bytes",
				name);
	}
	if (!json_is_array(uris) || !json_array_size(uris))
		return mmnf_zarr_wrong(EINVAL, KEY ".uris", uris,
				       "a list of lists of URIs");
	if (stripe &&
	    (!json_is_integer(stripe) || json_integer_value(stripe) < 1))
		return mmnf_zarr_wrong(EINVAL, KEY ".stripe_bytes", stripe,
				       "a multiple of 4096");
	net->stripe_bytes = (u64)json_integer_value(stripe);
	for (i = 0; i < json_array_size(uris) && !err; i++) {
		snprintf(key, sizeof(key), KEY ".uris[%zu]", i);
		err = parse_gateways(net, key, json_array_get(uris, i));
	}
	return err ? err : mmnf_net_layout_check(net);
}

int mmnf_zarr_net_parse(struct mmnf_store *out, const json_t *v)
{
	int err;

	if (!json_is_object(v))
		return mmnf_zarr_wrong(EINVAL, KEY, v, "an object");
	if (out->geometry.indexed)
		return mmnf_error(
			EOPNOTSUPP,
			"zarr.json: " KEY
			": expected an array without the codec sharding_indexed");
	out->net = calloc(1, sizeof(*out->net));
	if (!out->net)
		return mmnf_error(ENOMEM, "no memory");
	err = parse(out->net, v);
	if (err) {
		mmnf_net_layout_free(out->net);
		out->net = NULL;
	}
	return err;
}

json_t *mmnf_zarr_net_print(const struct mmnf_net_layout *net)
{
	json_t *uris = json_array(), *group;
	u32 i, k;

	for (i = 0; i < net->nr_groups; i++) {
		group = json_array();
		for (k = 0; net->uri[i][k]; k++)
			json_array_append_new(group,
					      json_string(net->uri[i][k]));
		json_array_append_new(uris, group);
	}
	return json_pack("{s:o, s:I}", "uris", uris, "stripe_bytes",
			 (json_int_t)net->stripe_bytes);
}

static int parse_raw(struct mmnf_store *out, char *name)
{
	struct mmnf_array a = { 0 };
	struct mmnf_source src = { .fd = -1 };
	char *selector = strstr(name, "#raw");
	int err;

	if (!selector)
		return mmnf_error(
			EINVAL,
			"'%.100s': expected URI#raw,dtype=T,shape=NxN...",
			name);
	*selector = 0;
	src.path = name;
	src.selector = selector + 1;
	err = mmnf_net_layout_add(out->net, name);
	if (!err)
		err = mmnf_format_raw.parse(&a, &src);
	/* How long the export is, is checked when it is connected. */
	if (!err)
		err = mmnf_geometry_init_file(&out->geometry, a.dtype, a.ndim,
					      a.shape, a.stride_bytes,
					      a.data_offset_bytes,
					      (u64)S64_MAX - 4);
	return err;
}

int mmnf_net_raw(struct mmnf_store *out, const char *name)
{
	char *copy = strdup(name);
	int err;

	out->format = "raw";
	out->name = strdup(name);
	out->net = calloc(1, sizeof(*out->net));
	if (!copy || !out->net || !out->name)
		err = mmnf_error(ENOMEM, "no memory");
	else
		err = parse_raw(out, copy);
	free(copy);
	return err;
}
