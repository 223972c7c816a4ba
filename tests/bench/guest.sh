#!/bin/bash
# SPDX-License-Identifier: MIT
# In the guest: make the simulated devices, run every case on every engine,
# print one JSON object per walk with its case.
#
#	guest.sh MODULE WALK LATENCY_NS
#
# Two null_blk disks whose timer completes each read after LATENCY_NS, 128 deep:
# one with ext4 and a file written in full, one raw and sparse where a walk of
# 16 MiB steps has room.  Binaries are copied first: while the guest waits for
# the host, virtual time runs ahead.
set -eu
module=$1 walk=/run/walk latency_ns=$3

cp "$2" "$walk"
insmod "$module"
modprobe null_blk nr_devices=0
modprobe crc32c_generic
modprobe ext4
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config

disk() { # NAME MIB
	local dir=/sys/kernel/config/nullb/$1
	mkdir "$dir"
	echo "$2" >"$dir/size"
	echo 1 >"$dir/memory_backed"
	echo 2 >"$dir/irqmode"
	echo "$latency_ns" >"$dir/completion_nsec"
	echo 128 >"$dir/hw_queue_depth"
	echo 1 >"$dir/power"
	echo 128 >"/sys/block/$1/queue/read_ahead_kb"
}

KIB=1024 MIB=$((1024 * 1024))
NR=1000
disk fs $((NR + 200))
disk raw $((16 * (NR + 1)))
mkfs.ext4 -q -O ^has_journal /dev/fs
mkdir -p /run/fs
mount /dev/fs /run/fs
file=/run/fs/field
"$walk" fill $file 0 4096 $(((NR + 1) * MIB / 4096))
"$walk" fill /dev/raw 0 $((16 * MIB)) $NR

run() { # CASE FILE START STRIDE NR
	local case=$1 engine
	shift
	for engine in default madv_random madv_sequential willneed off mmnf; do
		echo "{\"case\":\"$case\",\"result\":$("$walk" $engine "$@")}"
	done
}

for step in 17p:$((68 * KIB)):$file 1MiB:$MIB:$file 16MiB:$((16 * MIB)):/dev/raw; do
	IFS=: read -r name bytes path <<<"$step"
	run "stride-$name-forward" "$path" 0 "$bytes" $NR
	run "stride-$name-backward" "$path" $((bytes * (NR - 1))) "-$bytes" $NR
done
run sequential $file 0 4096 16384
run random $file random $((NR * MIB / 4096)) 2000

umount /run/fs
rmmod mmnf
