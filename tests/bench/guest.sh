#!/bin/bash
# SPDX-License-Identifier: MIT
# In the guest: make the simulated devices, fill them, and for each latency walk
# the cases on every engine.  Prints a line {"latency_ns":N} and then one JSON
# object per walk.
#
#	guest.sh MODULE WALK ENGINE,..|all LATENCY_NS:CASE,CASE...  ...
#
# A case timeline=CASE is walked once more by mmnf alone, with the tracepoints on;
# the trace is left in $MMNF_SHARE/timeline.txt.
#
# Two null_blk disks, 128 deep, whose timer completes each read after LATENCY_NS:
# one with ext4 and a file written in full, one raw, huge and sparse.  They are
# filled once, without latency; switching a disk off and on keeps what it holds.
# Binaries are copied first: while the guest waits for the host, virtual time runs
# ahead.  Walks have their memory at the same addresses, and none is the first to wake
# a worker, for which the kernel starts a thread.
set -eu
module=$1 walk=/run/walk
fixed="setarch -R $walk"
engines=$3
cp "$2" "$walk"
shift 3
insmod "$module"
modprobe null_blk nr_devices=0
# ext4 asks for it by name; by Linux 7 it is no module.
modprobe -q crc32c_generic || :
modprobe ext4
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
nullb=/sys/kernel/config/nullb whole=/run/whole/field sparse=/dev/sparse

disk() { # NAME MIB
	mkdir "$nullb/$1"
	echo "$2" >"$nullb/$1/size"
	echo 1 >"$nullb/$1/memory_backed"
	echo 128 >"$nullb/$1/hw_queue_depth"
	echo 4096 >"$nullb/$1/blocksize"
}

power_on() { # IRQMODE LATENCY_NS
	local name
	for name in whole sparse; do
		echo "$1" >"$nullb/$name/irqmode"
		echo "$2" >"$nullb/$name/completion_nsec"
		echo 1 >"$nullb/$name/power"
		echo 128 >"/sys/block/$name/queue/read_ahead_kb"
	done
}

power_off() {
	echo 0 >$nullb/whole/power
	echo 0 >$nullb/sparse/power
}

trace() { # CASE
	local event dir=/sys/kernel/tracing
	mountpoint -q $dir || mount -t tracefs tracefs $dir
	echo mono >$dir/trace_clock
	echo 16384 >$dir/buffer_size_kb
	for event in mmnf/mmnf_fault block/block_rq_issue \
		block/block_rq_complete; do
		echo 1 >"$dir/events/$event/enable"
	done
	$fixed run "$1" mmnf $whole $sparse >/dev/null
	echo 0 >$dir/events/enable
	cat $dir/trace >"$MMNF_SHARE/timeline.txt"
}

disk whole 1100
disk sparse $((33 * 1024))
power_on 0 0
mkfs.ext4 -q -O ^has_journal /dev/whole
mkdir -p /run/whole
mount /dev/whole /run/whole
"$walk" fill $whole $sparse
$fixed run 64th-row mmnf $whole $sparse >/dev/null
umount /run/whole
power_off

for arg; do
	power_on 2 "${arg%%:*}"
	mount -o noatime /dev/whole /run/whole
	echo "{\"latency_ns\":${arg%%:*}}"
	IFS=, read -ra cases <<<"${arg#*:}"
	for name in "${cases[@]}"; do
		# How a read's pages lie in memory shall not depend on what ran before.
		echo 1 >/proc/sys/vm/compact_memory
		case $name in
		timeline=*) trace "${name#*=}" ;;
		*) $fixed run "$name" "$engines" $whole $sparse ;;
		esac
	done
	umount /run/whole
	power_off
done
rmmod mmnf
