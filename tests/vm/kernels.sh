#!/bin/bash
# SPDX-License-Identifier: MIT
# Kernels to test with that are not installed on this machine.
#
#	tests/vm/kernels.sh 6.12	Debian's, from bookworm-backports
#	tests/vm/kernels.sh new		Debian's newest, from trixie-backports
#	tests/vm/kernels.sh debug	Debian's source of 6.1 with debug.config
#
# Nothing of this machine is changed.  A kernel is a folder of its own, laid out
# as a root, in ${XDG_CACHE_HOME:-~/.cache}/mmnf/kernels, where other clones and
# later builds find it:
#
#	boot/vmlinuz-RELEASE  lib/modules/RELEASE/{kernel,build}
#
# build/kernels/NAME links to it; the Makefile and image.py look there.  It is
# made once; to have it made again, remove its folder.  `new` wants a newer
# compiler and C library than this Debian's: its folder is a small Debian, and
# kmake in it is the make to build modules with.
set -euo pipefail
cd "$(dirname "$0")/../.."
name=${1:?6.12, new or debug}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mmnf/kernels
mkdir -p "$cache" build/kernels
exec 9>"$cache/.lock-$name"
flock 9

# apt with one source and lists of its own; the machine's stay as they are.
apt=$cache/apt-$name
from() {
	mkdir -p "$apt/lists/partial" "$apt/cache"
	echo "deb http://deb.debian.org/debian $1 main" >"$apt/sources.list"
	own_apt apt-get update
}

own_apt() {
	"$1" -qq -o Dir::Etc::sourcelist="$apt/sources.list" \
		-o Dir::Etc::sourceparts=- -o Dir::State="$apt" \
		-o Dir::State::status=/dev/null -o Dir::Cache="$apt/cache" \
		-o APT::Sandbox::User=root "${@:2}"
}

# What Debian's metapackage stands for today, as a kernel release.
newest_release() {
	own_apt apt-cache depends linux-headers-amd64 |
		sed -n 's/.*Depends: linux-headers-\([0-9].*\)$/\1/p'
}

# The newest such kernel in the cache, or nothing.
made_before() {
	(cd "$cache" && compgen -G "$1" | grep -v '\.new$' | sort -V |
		tail -1) || :
}

# Make folder $cache/$1 by function $2, whole or not at all, and link to it.
provide() {
	local folder=$cache/$1

	if [ ! -d "$folder" ]; then
		rm -rf "$folder.new"
		mkdir "$folder.new"
		"$2" "$folder.new"
		mv -T "$folder.new" "$folder"
		echo "deps: made the kernel $1 in $cache"
	fi
	ln -sfn "$folder" "build/kernels/$name"
}

# Packages of Debian 12 itself: unpacked, they work where they lie.
make_6_12() {
	local deb common

	(
		cd "$1"
		common=${release%-amd64}
		own_apt apt-get download "linux-image-$release" \
			"linux-headers-$release" "linux-headers-$common-common" \
			"linux-kbuild-$common"
		for deb in *.deb; do
			dpkg-deb -x "$deb" .
		done
		rm -- *.deb
		# The only absolute paths; scripts/ and tools/ are relative links.
		sed -i "s|include /usr/src/|include $cache/$release/usr/src/|" \
			"usr/src/linux-headers-$release/Makefile"
		ln -sfn "../../../usr/src/linux-headers-$release" \
			"lib/modules/$release/build"
		/sbin/depmod -b . "$release"
	)
}

# A Debian of the next release with compiler, headers and the kernel itself.
make_new() {
	local include="make,kmod,gcc-14,binutils" part

	for part in headers modules binary; do
		include+=",linux-$part-$release"
	done
	mmdebstrap --quiet --variant=minbase --include="$include" trixie "$1" \
		"deb http://deb.debian.org/debian trixie main" \
		"deb http://deb.debian.org/debian trixie-backports main"
	rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*
	[ -e "$1/boot/vmlinuz-$release" ] ||
		ln -s "../usr/lib/modules/$release/vmlinuz" "$1/boot/vmlinuz-$release"
	cp tests/vm/kmake "$1/kmake"
}

# What changes the debug kernel, as a short number.
debug_key() {
	{
		grep "^CONFIG_" tests/vm/debug.config | sort
		dpkg-query -W linux-source-6.1
		gcc -dumpfullversion
	} | sha256sum | cut -c-12
}

# Some ten minutes of two cores, and 3 GB while they last.
make_debug() {
	local work=$1/work source object release
	source=$work/linux-source-6.1
	object=$work/object

	echo "deps: building the debug kernel: ten minutes, once" >&2
	mkdir -p "$object"
	tar -xJf /usr/src/linux-source-6.1.tar.xz -C "$work"
	cp tests/vm/debug.config "$work/config"
	# make again, with nothing of the make that called.
	unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES K KVER KDIR
	set -- "$1" make -s -C "$source" O="$object"
	KCONFIG_ALLCONFIG=$work/config "${@:2}" allnoconfig
	nice "${@:2}" -j"$(nproc)" bzImage modules
	release=$("${@:2}" kernelrelease)
	"${@:2}" modules_install INSTALL_MOD_PATH="$1"
	mkdir -p "$1/boot"
	cp "$object/arch/x86/boot/bzImage" "$1/boot/vmlinuz-$release"
	headers "$source" "$object" "$1/lib/modules/$release"
	rm -rf "$work"
}

# What a module is built against: the kernel's own package takes the same.
headers() {
	local source=$1 object=$2 modules=$3

	rm -f "$modules/build" "$modules/source"
	mkdir "$modules/build"
	(
		cd "$source"
		find . arch/x86 -maxdepth 1 -name 'Makefile*'
		find include scripts arch/x86/include \
			-type f -o -type l
	) | tar -c -C "$source" -T - | tar -x -C "$modules/build"
	(
		cd "$object"
		find arch/x86/include include scripts -type f \
			! -name '*.o' ! -name '.*.cmd'
		echo .config Module.symvers tools/objtool/objtool | tr ' ' '\n'
	) | tar -c -C "$object" -T - | tar -x -C "$modules/build"
}

case $name in
6.12)
	release=$(made_before '6.12*')
	if [ -z "$release" ]; then
		from bookworm-backports
		release=$(newest_release)
	fi
	provide "$release" make_6_12
	;;
new)
	release=$(made_before '7.*')
	if [ -z "$release" ]; then
		from trixie-backports
		release=$(newest_release)
	fi
	provide "$release" make_new
	;;
debug)
	provide "debug-$(debug_key)" make_debug
	;;
*)
	echo "kernels: unknown kernel '$name': expected 6.12, new or debug" >&2
	exit 2
	;;
esac
