// SPDX-License-Identifier: MIT
/* Headers of GGUF: the only tensor, and one by name. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static char path[] = "a";

	fuzz_format(&mmnf_format_gguf, path, NULL, data, size);
	fuzz_format(&mmnf_format_gguf, path, "a", data, size);
	return 0;
}
