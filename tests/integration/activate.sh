#!/bin/bash
# SPDX-License-Identifier: MIT
# mmnf_activate() beside the same arithmetic by hand, in instructions, by each
# compiler there is: the loop over a row is no longer, and an address takes a
# dozen more at most with the axes known, two dozen more without.
set -euo pipefail
cd "$MMNF_SRC"
for cc in "gcc -O2" "gcc -O3" "clang -O2"; do
	command -v "${cc%% *}" >/dev/null || continue
	dir=$(mktemp -d "$TMPDIR/XXXXXX")
	# shellcheck disable=SC2086 # words on purpose
	$cc -Iinclude -o "$dir/activate" tests/bench/activate.c \
		-L"$MMNF_BUILD" -lmmnf -Wl,-rpath,"$MMNF_BUILD"
	"$dir/activate" "$dir" >"$dir/out"
	echo "# $cc"
	sed 's/.*"case": "\([a-z]*\)", "engine": "\([a-z0-9_]*\)".*"value": \([0-9.]*\),.*/\1 \2 \3/' \
		"$dir/out" | awk '
		{ n[$1, $2] = $3; print "#", $0 }
		END {
			hand = n["element", "hand"]
			if (hand < 10 || n["loop", "hand"] < 0.5)
				exit 1
			exit n["loop", "activate_3d"] > n["loop", "hand"] ||
				n["element", "activate_3d"] > hand + 12 ||
				n["element", "activate"] > hand + 24 ||
				n["row", "activate_3d"] > n["row", "hand"] + 16
		}'
done
