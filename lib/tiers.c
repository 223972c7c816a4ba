// SPDX-License-Identifier: MIT
/* Which tiers a field has: what mmnf_tiers_info() tells. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "cache.h"
#include "net.h"
#include "tier-gpu.h"
#include "tier.h"

static struct mmnf_tier *add(struct mmnf_tiers *out, u32 level,
			     const char *name)
{
	struct mmnf_tier *t = &out->tier[out->nr_tiers++];

	t->level = level;
	snprintf(t->name, sizeof(t->name), "%s", name);
	return t;
}

/* Leaves room for the three others. */
static void add_gpus(struct mmnf_field *field, struct mmnf_tiers *out)
{
	struct mmnf_gpu *g = __atomic_load_n(&field->gpu, __ATOMIC_ACQUIRE);
	struct mmnf_tier *t;
	char why[200];
	u32 nr;

	for (; g && out->nr_tiers < MMNF_TIERS_MAX - 3; g = g->next)
		mmnf_gpu_describe(g, add(out, 1, "gpu"));
	if (out->nr_tiers)
		return;
	t = add(out, 1, "gpu");
	nr = mmnf_cuda_count(why, sizeof(why));
	if (nr)
		snprintf(t->text, sizeof(t->text),
			 "%u device%s; off: expected mmnf_gpu_enable()", nr,
			 nr > 1 ? "s" : "");
	else
		snprintf(t->text, sizeof(t->text), "no GPU: %s", why);
}

MMNF_EXPORT int mmnf_tiers_info(struct mmnf_field *field,
				struct mmnf_tiers *out)
{
	const struct mmnf_geometry *g = mmnf_field_geometry(field);
	size_t size = out->size;
	struct mmnf_tier *t;
	char *base;

	mmnf_error_enter("mmnf_tiers_info");
	if (size != sizeof(*out))
		return mmnf_error(EINVAL, "size is %zu: expected %zu", size,
				  sizeof(*out));
	memset(out, 0, sizeof(*out));
	out->size = size;
	add_gpus(field, out);
	t = add(out, 2, "ram");
	t->is_on = 1;
	mmnf_cache_memory(field->cache, &base, &t->size_bytes);
	t->used_bytes = mmnf_cache_used(field->cache);
	if (!base)
		t->size_bytes =
			(u64)sysconf(_SC_PHYS_PAGES) * mmnf_page_bytes();
	snprintf(t->text, sizeof(t->text), "%s%s, engine %s: %s",
		 base ? "cache of the library" : "page cache",
		 base && field->l2_once ? " for what is read ahead" : "",
		 field->ops->name, field->engine_reason);
	t = add(out, 3, "ssd");
	if (field->remote) {
		mmnf_engine_net_describe_ssd(field, t);
		mmnf_engine_net_describe(field, add(out, 4, "net"));
		return 0;
	}
	t->is_on = 1;
	t->size_bytes = g->total_bytes;
	snprintf(t->text, sizeof(t->text), "segment files");
	t = add(out, 4, "net");
	snprintf(t->text, sizeof(t->text), "the field is on local files%s%s",
		 mmnf_net_missing() ? "; " : "",
		 mmnf_net_missing() ? mmnf_net_missing() : "");
	return 0;
}
