// SPDX-License-Identifier: MIT
/* Headers of .nii. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static char path[] = "a";

	fuzz_format(&mmnf_format_nifti, path, NULL, data, size);
	return 0;
}
