// SPDX-License-Identifier: MIT
/* fbin and its kin: the first byte chooses the name, the rest is the file. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static char paths[4][8] = { "a.fbin", "a.u8bin", "a.i8bin", "a.ibin" };

	if (size)
		fuzz_format(&mmnf_format_bin, paths[*data % 4], NULL, data + 1,
			    size - 1);
	return 0;
}
