// SPDX-License-Identifier: MIT
/*
 * Where a remote byte space lies: groups of URIs, from text of users and of
 * manifests, which is trusted in nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "net.h"

#define URI_BYTES_MAX 1024
#define STRIPE_MIN (4ULL << 10)
#define STRIPE_MAX (1ULL << 40)

bool mmnf_net_is_uri(const char *name)
{
	static const char *const schemes[] = { "nbd://", "nbds://",
					       "nbd+unix://", "nbds+unix://" };
	size_t i;

	for (i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (!strncmp(name, schemes[i], strlen(schemes[i])))
			return true;
	return false;
}

static int check_uri(const char *uri)
{
	const char *p;

	if (!mmnf_net_is_uri(uri))
		return mmnf_error(
			EINVAL,
			"'%.100s': expected nbd://, nbds://, nbd+unix:// or nbds+unix://",
			uri);
	if (strlen(uri) > URI_BYTES_MAX)
		return mmnf_error(EINVAL,
				  "'%.100s...': expected at most %d characters",
				  uri, URI_BYTES_MAX);
	for (p = uri; *p; p++)
		if (*p <= ' ' || *p > '~')
			return mmnf_error(
				EINVAL,
				"'%.100s': expected %%XX in place of character %d",
				uri, (int)(p - uri) + 1);
	return 0;
}

static int add_gateway(struct mmnf_net_layout *layout, const char *uri)
{
	char **group = layout->uri[layout->nr_groups - 1];
	u32 nr = 0;
	int err = check_uri(uri);

	if (err)
		return err;
	while (group[nr])
		nr++;
	if (nr == MMNF_NET_GATEWAYS_MAX)
		return mmnf_error(EINVAL,
				  "'%.100s': expected at most %d gateways", uri,
				  MMNF_NET_GATEWAYS_MAX);
	group[nr] = strdup(uri);
	return group[nr] ? 0 : mmnf_error(ENOMEM, "no memory");
}

int mmnf_net_layout_add(struct mmnf_net_layout *layout, const char *uris)
{
	char *text, *uri, *rest;
	void *grown;
	int err = 0;

	if (layout->nr_groups == MMNF_NET_GROUPS_MAX)
		return mmnf_error(EINVAL, "servers: expected at most %d",
				  MMNF_NET_GROUPS_MAX);
	grown = realloc(layout->uri,
			(layout->nr_groups + 1) * sizeof(*layout->uri));
	text = strdup(uris);
	if (!grown || !text) {
		if (grown)
			layout->uri = grown;
		free(text);
		return mmnf_error(ENOMEM, "no memory");
	}
	layout->uri = grown;
	memset(layout->uri[layout->nr_groups++], 0, sizeof(*layout->uri));
	for (uri = strtok_r(text, ",", &rest); uri && !err;
	     uri = strtok_r(NULL, ",", &rest))
		err = add_gateway(layout, uri);
	free(text);
	if (!err && !layout->uri[layout->nr_groups - 1][0])
		err = mmnf_error(EINVAL, "'%.100s': expected URI[,URI...]",
				 uris);
	return err;
}

int mmnf_net_layout_check(const struct mmnf_net_layout *layout)
{
	u64 stripe = layout->stripe_bytes;

	if (!layout->nr_groups)
		return mmnf_error(EINVAL, "servers: expected at least one");
	if (layout->nr_groups > 1 &&
	    (stripe < STRIPE_MIN || stripe > STRIPE_MAX || stripe % STRIPE_MIN))
		return mmnf_error(
			EINVAL,
			"stripe is %" PRIu64
			" bytes: expected a multiple of 4096, at most 1 TiB",
			stripe);
	return 0;
}

void mmnf_net_layout_free(struct mmnf_net_layout *layout)
{
	u32 i, k;

	if (!layout)
		return;
	for (i = 0; i < layout->nr_groups; i++)
		for (k = 0; k < MMNF_NET_GATEWAYS_MAX; k++)
			free(layout->uri[i][k]);
	free(layout->uri);
	free(layout);
}
