#!/bin/bash
# SPDX-License-Identifier: MIT
# The tests of the GPU tier on a real device, where there is one: `make check-gpu`.
# Without ASan, whose shadow the driver's own mappings would hit; compute-sanitizer
# looks at the device's side instead.
set -euo pipefail
unset MMNF_LIBCUDA
export MMNF_TEST_GPU=1
"$MMNF" create "$TMPDIR/f" --shape 100,100 --dtype f32 >/dev/null
tier=$("$MMNF" tiers "$TMPDIR/f" | grep '^L1')
case $tier in
*" on "*) echo "$tier" ;;
*) echo "no real GPU: ${tier##*no GPU: }"; exit 4 ;;
esac
cd "$MMNF_SRC"
make -s plain-gpu PLAIN_OUT="$TMPDIR"
for test in batch api faults memory threads; do
	"$TMPDIR/gpu_$test"
done
sanitizer=$(command -v compute-sanitizer ||
	echo "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
if [ -x "$sanitizer" ]; then
	for tool in memcheck racecheck initcheck; do
		"$sanitizer" --tool $tool --target-processes all \
			--error-exitcode 1 "$TMPDIR/gpu_batch"
	done
else
	echo "# no compute-sanitizer: only the tests themselves were run"
fi
build/tests/bench/gpu device "$TMPDIR"
