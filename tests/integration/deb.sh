#!/bin/bash
# SPDX-License-Identifier: MIT
# make deb: what is in the packages, and a program and Python on nothing but them.
set -euo pipefail
command -v dpkg-buildpackage >/dev/null || { echo "no dpkg-buildpackage"; exit 4; }
command -v dh_dkms >/dev/null || { echo "no dh_dkms"; exit 4; }
log=$TMPDIR/log
make -s -C "$MMNF_SRC" deb >"$log" 2>&1 || { tail -40 "$log"; exit 1; }
if grep -E "warning|dh_missing" "$log" | grep -v "^   dh_missing"; then exit 1; fi

declare -A wanted=(
	[libmmnf0]="/libmmnf.so.0"
	[libmmnf-dev]="/usr/include/mmnf.h /usr/include/linux/mmnf.h /libmmnf.so
		/pkgconfig/mmnf.pc /man3/mmnf.3.gz"
	[mmnf-tools]="/usr/bin/mmnf /man1/mmnf.1.gz /man4/mmnf.4.gz /man7/mmnf.7.gz
		/usr/lib/udev/rules.d/99-mmnf.rules /sysusers.d/mmnf.conf
		/completions/mmnf /_mmnf /mmnf.fish /examples/train.py"
	[mmnf-dkms]="/dkms.conf /kmod/main.c /lib/core/predict.c
		/usr/lib/modules-load.d/mmnf.conf"
	[python3-mmnf]="/dist-packages/mmnf/__init__.py")
root=$TMPDIR/root
for package in "${!wanted[@]}"; do
	deb=$(ls "$MMNF_BUILD"/deb/"$package"_*.deb)
	# A list first: grep -q would end dpkg-deb early.
	list=$(dpkg-deb -c "$deb")
	for file in ${wanted[$package]}; do
		grep -q "$file\( -> .*\)\?$" <<<"$list" ||
			{ echo "$package: no $file"; exit 1; }
	done
	dpkg-deb -x "$deb" "$root"
done
[ "$(dpkg-deb -f "$MMNF_BUILD"/deb/mmnf-tools_*.deb Version)" = \
	"$("$MMNF" --version | cut -d' ' -f2)" ]
dpkg-deb -f "$MMNF_BUILD"/deb/libmmnf0_*.deb Depends | grep -q libjansson

# Nothing of the tree from here on.
lib=$(dirname "$(find "$root" -name libmmnf.so.0)")
cc -Wall -Werror -I"$root/usr/include" -o "$TMPDIR/walk" \
	"$root/usr/share/doc/mmnf-tools/examples/pointer-walk.c" -L"$lib" -lmmnf
export LD_LIBRARY_PATH=$lib MMNF_LIBRARY=$lib/libmmnf.so.0
export PYTHONPATH=$root/usr/lib/python3/dist-packages
tool=$root/usr/bin/mmnf
"$tool" create f --shape 64,8 --dtype f32 --fill 2
"$TMPDIR/walk" f | grep -q "^sum 1024,"
"$tool" create words --shape 2000,16 --dtype f32 --fill 0.25
"$MMNF_BUILD/venv/bin/python" -c 'import mmnf, sys
assert mmnf.__file__.startswith(sys.argv[1]), mmnf.__file__' "$root"
cp "$root/usr/share/doc/mmnf-tools/examples/train.py" .
"$MMNF_BUILD/venv/bin/python" train.py words 5 | grep -q "^step 4 loss"
