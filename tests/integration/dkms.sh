#!/bin/bash
# SPDX-License-Identifier: MIT
# make dkms, in folders of the test's own: the module is built from nothing but
# what DKMS is given, and installed; as a new version, which takes the old one's
# place; and removed, with nothing left.
set -euo pipefail
mkdir -p "$TMPDIR"/{src,tree,new} "$TMPDIR/modules/$KVER"
[ -d "/lib/modules/$KVER/build" ] || { echo "no headers for $KVER"; exit 4; }
command -v dkms >/dev/null || { echo "no dkms: tests/deps.sh test"; exit 4; }

dkms="dkms --sourcetree $TMPDIR/src --dkmstree $TMPDIR/tree \
	--installtree $TMPDIR/modules"
run() {
	make -C "$1" "$2" KVER="$KVER" DKMS="$dkms" DKMS_SOURCES="$TMPDIR/src" \
		MODULES_LOAD="$TMPDIR/load"
}
installed() {
	find "$TMPDIR/modules/$KVER" -name 'mmnf.ko*' | grep .
}

run "$MMNF_SRC" dkms
installed
[ ! -e "$TMPDIR/src/mmnf/build" ]
[ "$(cat "$TMPDIR/load/mmnf.conf")" = mmnf ]

(cd "$MMNF_SRC" && cp -r --parents Kbuild Makefile dkms.conf kmod lib/core \
	include LICENSES "$TMPDIR/new")
sed -i 's/^PACKAGE_VERSION=.*/PACKAGE_VERSION="99.0"/' "$TMPDIR/new/dkms.conf"
run "$TMPDIR/new" dkms
[ "$(modinfo -F version "$(installed)")" = 99.0 ]
[ "$($dkms status | wc -l)" = 1 ]

run "$TMPDIR/new" dkms-remove
if installed; then exit 1; fi
[ -z "$($dkms status)" ]
[ -z "$(find "$TMPDIR/src" "$TMPDIR/load" -mindepth 1)" ]

# A kernel that it is not made for is refused in one sentence.
for kernel in 5.10.0-1-amd64 7.4.0; do
	make -C "$MMNF_SRC" -s dkms KVER=$kernel DKMS=false \
		2>"$TMPDIR/err" && exit 1
	grep "^mmnf: kernel '$kernel' is none of" "$TMPDIR/err"
done
