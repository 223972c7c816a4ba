#!/bin/bash
# SPDX-License-Identifier: MIT
# End the daemons whose pid files are in DIR/run, if they still are Ceph's.
set -euo pipefail
dir=${1:?usage: down.sh DIR}

daemons() {
	local file pid name

	for file in "$dir"/run/*.pid; do
		[ -e "$file" ] || continue
		pid=$(cat "$file")
		name=$(cat "/proc/$pid/comm" 2>/dev/null) || continue
		case $name in
		ceph-mon | ceph-osd | ceph-mds) echo "$pid" ;;
		esac
	done
}

for signal in TERM KILL; do
	for pid in $(daemons); do
		kill -s "$signal" "$pid" 2>/dev/null || true
	done
	for _ in $(seq 150); do
		[ -n "$(daemons)" ] || exit 0
		sleep 0.1
	done
done
