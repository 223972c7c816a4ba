#!/bin/bash
# SPDX-License-Identifier: MIT
# A petabyte as one mapping, by the device and by the library, in a guest with five
# levels of page tables: only a kernel that starts by its own stub turns them on.
set -euo pipefail
case $KVER in
*-mmnf-debug)
	echo "kernel: with KASAN 6.1 does not start with five levels"
	exit 4
	;;
esac
# shellcheck disable=SC2016 # the guest expands them
exec "$MMNF_SRC/tests/vm/run.py" --packed --timeout 1000 -- '
insmod "$MMNF_KO"
"$MMNF_BUILD/tests/kselftest/petabyte" | tee "$TMPDIR/log"
rmmod mmnf
grep -q "OK  petabyte.as_one_mapping" "$TMPDIR/log" &&
	! grep -q "SKIP\|not ok" "$TMPDIR/log" &&
	mkdir "$TMPDIR/field" &&
	cd "$TMPDIR/field" &&
	"$MMNF_BUILD/tests/vm/windows"'
