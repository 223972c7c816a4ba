#!/bin/bash
# SPDX-License-Identifier: MIT
# What can be known of the GPU tier without a GPU: what the kernels were built for,
# that every assembler takes the PTX, that the fake driver invents nothing; and
# builds without nvcc and without cuda.h, which link, run and say what is missing.
set -euo pipefail
home=${CUDA_HOME:-/usr/local/cuda}
nvcc=$(command -v nvcc || echo "$home/bin/nvcc")

skip() {
	echo "$1"
	exit 4
}

expect() { # WHERE WHAT
	grep -qF "$2" "$1" || { echo "no '$2' in:"; cat "$1"; exit 1; }
}

build() { # ARGUMENTS: only what differs is built anew
	rm -f build/lib/cuda-*.o build/libmmnf.so*
	nice make -s "$@" lib tools
}

"$MMNF" create "$TMPDIR/f" --shape 100,100 --dtype f32 >/dev/null

# Without both: no place of this machine must be looked at.
mkdir "$TMPDIR/src"
cp -r "$MMNF_SRC"/{Makefile,dkms.conf,include,lib,tools} "$TMPDIR/src"
cd "$TMPDIR/src"
nice make -s -j2 CUDA_HOME=/nonexistent NVCC= CUDA_INCLUDE= CFLAGS=-O1 lib tools
build/mmnf tiers "$TMPDIR/f" >out
expect out "L1 gpu  off"
expect out "no GPU: built without cuda.h"
[ ! -e build/lib/gather.o ]
[ -e "$home/include/cuda.h" ] || skip "no cuda.h: no more than that can be built"

# Without nvcc: the copy engine.
build NVCC= CFLAGS=-O1
nm build/libmmnf.so | grep " [rR] mmnf_gather_image" && exit 1
MMNF_LIBCUDA=$MMNF_BUILD/libmmnf-fakecuda.so build/mmnf tiers "$TMPDIR/f" >out
expect out "L1 gpu  on"
expect out "by copy engine; no kernels: built without nvcc"
[ -x "$nvcc" ] || skip "no nvcc: kernels were not built"

# With both, as everybody has it.
MMNF_LIBCUDA=$MMNF_BUILD/libmmnf-fakecuda.so "$MMNF" tiers "$TMPDIR/f" >out
expect out "L1 gpu  on"
expect out "not a GPU"
grep -q "no kernels" out && exit 1

cd "$MMNF_BUILD/lib"
for sm in 75 80 90 100 120; do
	"${nvcc%nvcc}ptxas" -arch=sm_$sm -o "$TMPDIR/$sm.cubin" gather.ptx
done
stub=$home/lib64/stubs/libcuda.so
symbols() {
	nm -D --defined-only "$1" | awk '$3 ~ /^cu[A-Z]/ { print $3 }' | sort
}
if [ -e "$stub" ]; then
	symbols "$MMNF_BUILD/libmmnf-fakecuda.so" >"$TMPDIR/fake"
	symbols "$stub" >"$TMPDIR/stub"
	invented=$(comm -23 "$TMPDIR/fake" "$TMPDIR/stub")
	[ -z "$invented" ] || { echo "not of CUDA: $invented"; exit 1; }
	[ "$(wc -l <"$TMPDIR/fake")" -gt 30 ]
fi

cuobjdump=$(command -v cuobjdump ||
	{ find "${nvcc%/nvcc}" "$MMNF_BUILD/cuda" -name cuobjdump || :; } 2>/dev/null |
	head -1)
[ -n "$cuobjdump" ] || skip "no cuobjdump: tests/deps.sh test"
{
	"$cuobjdump" --list-elf gather.fatbin
	"$cuobjdump" --list-ptx gather.fatbin
} | sed 's/.*\.\(sm_.*\)/\1/' | sort | tr '\n' ' ' >"$TMPDIR/targets"
cat "$TMPDIR/targets"
[ "$(cat "$TMPDIR/targets")" = \
	"sm_100.cubin sm_75.cubin sm_75.ptx sm_80.cubin sm_90.cubin " ]
