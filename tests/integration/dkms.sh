#!/bin/bash
# SPDX-License-Identifier: MIT
# make dkms, in folders of the test's own: the module is built from nothing but
# what DKMS is given, and installed; a second time works, too.
set -euo pipefail
mkdir -p "$TMPDIR"/{src,tree} "$TMPDIR/modules/$KVER"
[ -d "/lib/modules/$KVER/build" ] || { echo "no headers for $KVER"; exit 4; }
command -v dkms >/dev/null || { echo "no dkms: tests/deps.sh test"; exit 4; }

dkms="dkms --sourcetree $TMPDIR/src --dkmstree $TMPDIR/tree \
	--installtree $TMPDIR/modules"
for _ in 1 2; do
	make -C "$MMNF_SRC" dkms KVER="$KVER" DKMS="$dkms" \
		DKMS_SOURCES="$TMPDIR/src"
	find "$TMPDIR/modules/$KVER/updates/dkms" -name 'mmnf.ko*' | grep .
done
[ ! -e "$TMPDIR/src/mmnf/build" ]
