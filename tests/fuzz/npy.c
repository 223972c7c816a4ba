// SPDX-License-Identifier: MIT
/* Headers of .npy. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static char path[] = "a";

	fuzz_format(&mmnf_format_npy, path, NULL, data, size);
	return 0;
}
