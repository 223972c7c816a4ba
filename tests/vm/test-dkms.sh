#!/bin/bash
# SPDX-License-Identifier: MIT
# DKMS from its install to modprobe, a walk, and its remove, with DKMS's own folders:
# those of a guest.  What takes long under emulation is spared: DKMS compiles
# before, on this machine, in folders of the test's own (integration/dkms has more of
# that), and the guest is given the result as it lies; and of the kernel's modules
# the guest has those alone that the walk needs, for depmod reads each.
# With MMNF_DKMS_COMPILE=1 the guest is given the sources alone, and compiles: seven
# minutes and more.
set -euo pipefail
[ -d "/lib/modules/$KVER/build" ] ||
	{ echo "kernel: $KVER is not installed here"; exit 4; }
command -v dkms >/dev/null || { echo "no dkms: tests/deps.sh test"; exit 1; }
mkdir "$TMPDIR"/{src,tree,modules}
compile=${MMNF_DKMS_COMPILE:-}
timeout_s=${compile:+3600}
timeout_s=${timeout_s:-1000}
own="dkms --sourcetree $TMPDIR/src --dkmstree $TMPDIR/tree \
	--installtree $TMPDIR/modules"
# Everything that `make dkms` does, less the install.
cat >"$TMPDIR/dkms" <<-EOF
	#!/bin/sh
	[ "\$1" = install ] && { shift; set -- build "\$@"; }
	exec $own "\$@"
EOF
chmod +x "$TMPDIR/dkms"
[ -n "$compile" ] || make -C "$MMNF_SRC" dkms KVER="$KVER" \
	DKMS="$TMPDIR/dkms" DKMS_SOURCES="$TMPDIR/src" \
	MODULES_LOAD="$TMPDIR/load"

export MMNF_DKMS=$TMPDIR
MMNF_VERSION=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' "$MMNF_SRC/dkms.conf")
export MMNF_VERSION
# shellcheck disable=SC2016 # the guest expands them
exec "$MMNF_SRC/tests/vm/run.py" --mem 1280M \
	--timeout "$timeout_s" -- '
set -ex
have=/lib/modules/$KVER
few=$TMPDIR/modules
mkdir "$few"
cp -a "$have"/modules.builtin* "$have/modules.order" "$few"
ln -s "$(readlink -f "$have/build")" "$few/build"
for module in loop ext4 null_blk; do
	modprobe --show-depends "$module" | while read -r _ path _; do
		[ ! -f "$path" ] || install -D "$path" "$few/${path#"$have/"}"
	done
done
mount --bind "$few" "$have"
depmod "$KVER"
if [ -n "$MMNF_DKMS_COMPILE" ]; then
	make -C "$MMNF_SRC" dkms
else
	cp -a "$MMNF_DKMS/src/mmnf-$MMNF_VERSION" /usr/src/
	mkdir -p /var/lib/dkms
	cp -a "$MMNF_DKMS/tree/mmnf" /var/lib/dkms/
	ln -sfn "/usr/src/mmnf-$MMNF_VERSION" \
		"/var/lib/dkms/mmnf/$MMNF_VERSION/source"
	dkms install "mmnf/$MMNF_VERSION" -k "$KVER"
fi
dkms status | grep "^mmnf/$MMNF_VERSION, $KVER, x86_64: installed"
modprobe mmnf
[ "$(cat /sys/module/mmnf/version)" = "$MMNF_VERSION" ]
"$MMNF_BUILD/tests/kselftest/prefetch" | tee "$TMPDIR/log"
grep "^# Totals: pass:[1-9][0-9]* fail:0" "$TMPDIR/log"
rmmod mmnf
make -C "$MMNF_SRC" dkms-remove
[ -z "$(dkms status -m mmnf)" ]
[ ! -e "/usr/src/mmnf-$MMNF_VERSION" ]
! modprobe mmnf 2>"$TMPDIR/err"
grep "not found" "$TMPDIR/err"
! find "/lib/modules/$KVER/" -name "mmnf.ko*" | grep .'
