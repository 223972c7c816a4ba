// SPDX-License-Identifier: MIT
/* zarr.json: grids, codecs, fill values, names of segments. */
#include "fuzz.h"
#include "net.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct mmnf_store store = { .dir = -1 }, again = { .dir = -1 };
	const struct mmnf_geometry *g = &store.geometry;
	char key[MMNF_KEY_MAX];
	int err = mmnf_zarr_parse(&store, (const char *)data, size);

	if (err) {
		fuzz_refused(err);
		mmnf_net_layout_free(store.net);
		return 0;
	}
	fuzz_runs(g, g->segment_bytes);
	mmnf_zarr_key(&store, g->nr_segments - 1, key);
	FUZZ_CHECK(strlen(key) < MMNF_KEY_MAX);
	/* What is printed says the same, whatever the fill was. */
	if (!store.geometry.indexed) {
		char *text = mmnf_zarr_print(g, false);

		if (text)
			FUZZ_CHECK(
				!mmnf_zarr_parse(&again, text, strlen(text)));
		free(text);
	}
	mmnf_net_layout_free(store.net);
	mmnf_net_layout_free(again.net);
	return 0;
}
