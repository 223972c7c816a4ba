// SPDX-License-Identifier: MIT
/* What may stand behind the '#' of a file without a header. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static u8 file[4096];
	static char path[] = "a";
	char *selector = malloc(size + 1);

	if (!selector)
		return 0;
	memcpy(selector, data, size);
	selector[size] = 0;
	fuzz_format(&mmnf_format_raw, path, selector, file, sizeof(file));
	free(selector);
	return 0;
}
