// SPDX-License-Identifier: MIT
/* Headers of .safetensors: the only tensor, and one by name. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static char path[] = "a.safetensors";

	fuzz_format(&mmnf_format_safetensors, path, NULL, data, size);
	fuzz_format(&mmnf_format_safetensors, path, "a", data, size);
	return 0;
}
