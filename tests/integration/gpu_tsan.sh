#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/unit/gpu_threads.c under ThreadSanitizer.
set -euo pipefail
fake=$MMNF_BUILD/libmmnf-fakecuda.so
[ -e "$fake" ] || { echo "no fake CUDA driver: it needs cuda.h to build"; exit 4; }
cd "$MMNF_SRC"
make -s tsan-gpu TSAN_OUT="$TMPDIR/gpu_threads"
MMNF_GPU_SEEDS=${MMNF_GPU_TSAN_SEEDS:-20} TSAN_OPTIONS=halt_on_error=1 \
	"$TMPDIR/gpu_threads"
