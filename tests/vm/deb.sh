#!/bin/bash
# SPDX-License-Identifier: MIT
# make check-deb: a minimal Debian with nothing but the packages of make deb and what
# they depend on, in a guest: pointer-walk through /dev/mmnf, and Python.
#
# The root is made once by mmdebstrap, ROOT/ in build/deb-root, and is taken again
# as long as the packages are the same; needs root and the network.
# shellcheck disable=SC2012,SC2016 # plain names; the inner shell expands
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$PWD/build/deb-root
packages=$PWD/build/deb
[ "$(id -u)" = 0 ] || { echo "deb: needs root"; exit 4; }

debs=("$packages"/libmmnf0_*.deb "$packages"/libmmnf-dev_*.deb
	"$packages"/mmnf-tools_*.deb "$packages"/python3-mmnf_*.deb)
sum=$(cat "${debs[@]}" | sha256sum | cut -c1-16)
root=$out/$sum
if [ ! -e "$root/made" ]; then
	rm -rf "$out"
	mkdir -p "$out/debs"
	cp "${debs[@]}" "$out/debs"
	mmdebstrap --quiet --variant=minbase \
		--customize-hook="copy-in $out/debs /tmp" \
		--customize-hook='chroot "$1" sh -c "apt-get -qq -y \
			--no-install-recommends install /tmp/debs/*.deb"' \
		bookworm "$root"
	# Built outside, against the packages' own header and library.
	lib=$(dirname "$(find "$root/usr/lib" -name libmmnf.so.0)")
	cc -I"$root/usr/include" -o "$root/usr/bin/pointer-walk" \
		"$root/usr/share/doc/mmnf-tools/examples/pointer-walk.c" \
		-L"$lib" -Wl,-rpath-link,"$lib" -lmmnf \
		-Wl,--allow-shlib-undefined
	touch "$root/made"
fi

# The module: built from the sources that the package mmnf-dkms has.
dpkg-deb -x "$packages"/mmnf-dkms_*.deb "$out/dkms"
kver=${KVER:-$(basename "$(ls -d /lib/modules/6.1*/build | tail -1 | xargs dirname)")}
make -s -C "$out"/dkms/usr/src/mmnf-* modules KVER="$kver"
cp "$out"/dkms/usr/src/mmnf-*/build/kmod/"$kver"/mmnf.ko "$out/mmnf.ko"

exec "${PYTHON:-python3}" tests/vm/run.py --timeout 500 --kver "$kver" -- "
set -e
modprobe -a loop ext4 overlay
mkdir -p /run/r/up /run/r/work /run/r/root
mount -t tmpfs r /run/r && mkdir -p /run/r/up /run/r/work /run/r/root
mount -t overlay -o lowerdir=$root,upperdir=/run/r/up,workdir=/run/r/work r /run/r/root
truncate -s 64M /run/r/image && mkfs.ext4 -q /run/r/image
mkdir -p /run/r/root/data && mount -o loop /run/r/image /run/r/root/data
insmod $out/mmnf.ko
for d in proc sys dev; do mount --rbind /\$d /run/r/root/\$d; done
cat >/run/r/root/try <<'END'
set -e
cd /data
! command -v gcc && ! command -v make
mmnf doctor
mmnf create f --shape 512,1024 --dtype f32
python3 -c 'import mmnf; f = mmnf.open(\"f\", writable=True); f[...] = 3; f.close()'
mmnf evict f
pointer-walk f >walk
cat walk
grep -q '^sum 1572864, engine /dev/mmnf answers' walk
grep -q '^[1-9][0-9]* accesses, [1-9].* missed, [1-9][0-9]* pages read ahead' walk
mmnf create words --shape 2000,16 --dtype f32 --fill 0.25
python3 /usr/share/doc/mmnf-tools/examples/train.py words 5 | grep '^step 4 loss'
mmnf map f --cells 8x4
mmnf top --once
echo all of it ran
END
chroot /run/r/root sh /try
umount /run/r/root/data
rmmod mmnf
"
