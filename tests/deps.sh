#!/bin/bash
# SPDX-License-Identifier: MIT
# Install what is missing, and only that: Debian packages by apt-get, Python
# packages into build/venv, a few files of the kernel's source into build/linux.
# Asks nothing, prints a line per thing installed, says nothing when all is
# there.  Never upgrades a package that is present, except to give the newest
# kernel its headers.
#
#	tests/deps.sh			all
#	tests/deps.sh build test	some of: build test lint quickstart
#	tests/deps.sh bench		what the library's benchmark compares with
#	tests/deps.sh ceph		what make check-ceph brings up
#	tests/deps.sh kselftest		only the kernel's test harness header
#	tests/deps.sh kernel-6.12	a kernel of tests/vm/kernels.sh
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A packages=(
	[build]="gcc make pkg-config libjansson-dev liburing-dev linux-headers-amd64
		libcairo2-dev libncurses-dev libnbd-dev libgnutls28-dev
		libnl-genl-3-dev"
	[test]="g++ qemu-system-x86 linux-image-amd64 busybox-static kmod
		xz-utils zstd python3 python3-venv e2fsprogs xfsprogs
		gnuplot-nox dkms dmsetup linux-source-6.1
		bpftrace linux-perf fonts-dejavu-core zsh fish
		debhelper dh-dkms dpkg-dev
		nbdkit nbdkit-plugin-python gnutls-bin ocfs2-tools"
	[lint]="clang-format cppcheck shellcheck sparse groff mandoc perl
		clang libclang-rt-14-dev linux-source-6.1"
	[quickstart]="mricron-data"
	[bench]="gcc"
	[ceph]="ceph-mon ceph-osd ceph-mds ceph-common ceph-base qemu-utils qemu-block-extra"
	[deb]="debhelper dh-dkms dpkg-dev mmdebstrap"
	[kselftest]="linux-source-6.1 xz-utils"
	[kernel-6.12]="gcc-12 pahole"
	[kernel-new]="mmdebstrap"
	[kernel-debug]="linux-source-6.1 xz-utils flex bison bc libelf-dev
		libssl-dev lz4"
)

apt=(apt-get -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0)
updated=

is_installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = \
		installed ]
}

# Debian's messages are shown only when something went wrong.
quietly() {
	local log
	log=$(mktemp)
	if ! DEBIAN_FRONTEND=noninteractive "$@" >"$log" 2>&1 </dev/null; then
		cat "$log" >&2
		rm -f "$log"
		echo "deps: failed: $*" >&2
		return 1
	fi
	rm -f "$log"
}

apt_install() {
	local package missing=()

	for package in "$@"; do
		is_installed "$package" || missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	apt_get_install "${missing[@]}"
}

apt_get_install() {
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "deps: missing, and only root on Debian can install it: $*" \
			>&2
		return 1
	fi
	if [ -z "$updated" ]; then
		quietly "${apt[@]}" update
		updated=1
	fi
	quietly "${apt[@]}" install -y --no-install-recommends "$@"
	printf 'deps: installed %s\n' "$@"
}

# The guest boots the kernel that the module is built for.
kernel_with_headers() {
	local build kver

	for build in /lib/modules/*/build; do
		kver=${build#/lib/modules/}
		kver=${kver%/build}
		[ -d "$build/" ] || continue
		[ -e "/boot/vmlinuz-$kver" ] && return 0
		[ -e "/usr/lib/modules/$kver/vmlinuz" ] && return 0
	done
	apt_get_install linux-image-amd64 linux-headers-amd64
}

# checkpatch and kselftest's harness are in no package of their own.
linux_files() {
	local archive=/usr/src/linux-source-6.1.tar.xz dir=build/linux
	local file files=(scripts/checkpatch.pl scripts/spelling.txt
		scripts/const_structs.checkpatch
		tools/testing/selftests/kselftest.h
		tools/testing/selftests/kselftest_harness.h)

	for file in "${files[@]}"; do
		[ -e "$dir/$file" ] && continue
		mkdir -p build
		rm -rf "$dir" "$dir.$$"
		mkdir "$dir.$$"
		tar -xJf "$archive" -C "$dir.$$" --strip-components=1 \
			--occurrence=1 "${files[@]/#/linux-source-6.1/}"
		mv -T "$dir.$$" "$dir"
		echo "deps: took ${#files[@]} files of $archive to $dir"
		return 0
	done
}

venv() {
	local wanted=("numpy>=1.26,<3" "zarr>=3,<4" tensorstore safetensors
		nibabel gguf pynrrd ml_dtypes "mypy==2.4.*" wheel pyte pillow
		prometheus_client)

	[ "$(cat build/venv/.packages 2>/dev/null)" = "${wanted[*]}" ] &&
		return 0
	mkdir -p build
	rm -rf build/venv
	/usr/bin/python3 -m venv build/venv
	quietly build/venv/bin/python -m pip install -q \
		--disable-pip-version-check "${wanted[@]}"
	echo "${wanted[*]}" >build/venv/.packages
	printf 'deps: installed %s in build/venv\n' "${wanted[@]}"
}

# Lists what kernels were built for; the toolkit itself may come without it.
cuobjdump() {
	local nvcc=${CUDA_HOME:-/usr/local/cuda}/bin/nvcc

	[ -x "$nvcc" ] || command -v nvcc >/dev/null || return 0
	[ -x "${nvcc%nvcc}cuobjdump" ] && return 0
	[ -n "$(find build/cuda -name cuobjdump 2>/dev/null)" ] && return 0
	quietly build/venv/bin/python -m pip install -q --no-deps \
		--disable-pip-version-check --target build/cuda \
		"nvidia-cuda-cuobjdump>=13,<14"
	echo "deps: installed nvidia-cuda-cuobjdump in build/cuda"
}

# The programs that set the kernel's NFS server up, for a guest: installed, they
# would serve this machine.
nfs_server() {
	local folder=build/nfs.$$ package wanted=(nfs-kernel-server nfs-common
		libtirpc-common libtirpc3 libwrap0)

	[ -e build/nfs/etc/netconfig ] && return 0
	mkdir -p "$folder"
	(
		cd "$folder"
		quietly "${apt[@]}" -o APT::Sandbox::User=root download \
			"${wanted[@]}"
	)
	for package in "$folder"/*.deb; do
		dpkg-deb -x "$package" "$folder"
	done
	rm -rf "$folder"/*.deb build/nfs
	mv -T "$folder" build/nfs
	echo "deps: unpacked ${wanted[*]} in build/nfs"
}

# What only the library's benchmark compares with.
peers() {
	build/venv/bin/python -c 'import h5py' 2>/dev/null && return 0
	quietly build/venv/bin/python -m pip install -q \
		--disable-pip-version-check h5py
	printf 'deps: installed h5py in build/venv\n'
}

[ $# -gt 0 ] || set -- build test lint quickstart
for group; do
	if [ -z "${packages[$group]-}" ]; then
		echo "deps: unknown group '$group'" >&2
		exit 2
	fi
	# shellcheck disable=SC2086 # words on purpose
	apt_install ${packages[$group]}
	case $group in
	test) kernel_with_headers ;;
	esac
	case $group in
	kselftest | test | lint) linux_files ;;
	esac
	case $group in
	test | quickstart) venv ;;
	bench) venv && peers ;;
	kernel-*) tests/vm/kernels.sh "${group#kernel-}" ;;
	esac
	case $group in
	test) cuobjdump && nfs_server ;;
	esac
done
