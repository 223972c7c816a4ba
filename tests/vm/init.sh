#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# shellcheck shell=dash
#
# PID 1 of the test guest.  Stage one, in the initramfs: load the few modules it
# needs, mount the host's root read-only with a tmpfs above it, and go there.
# Stage two: run /run/vm/cmd, leave its status in /run/vm/rc, power off.  The
# host's own files are never written, except through the share.

stop() {
	echo "mmnf-vm: $1" >/dev/kmsg
	busybox sync
	echo o >/proc/sysrq-trigger
	busybox sleep 30
}

stage_one() {
	export PATH=/bin
	mount -t proc proc /proc
	mount -t sysfs sys /sys
	mount -t devtmpfs dev /dev
	while read -r module; do
		insmod "/modules/$module"
	done </modules/order
	p9=version=9p2000.L,trans=virtio,msize=512000

	mount -t 9p -o "ro,cache=loose,$p9" rootfs /lower ||
		stop "cannot mount the host's root"
	mount -t tmpfs -o mode=755,size=75% upper /rw
	mkdir /rw/upper /rw/work
	mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper \
		-o workdir=/rw/work,xino=off,volatile overlay /new

	n=/new
	mkdir -p $n/proc $n/sys $n/dev $n/run
	mount --move /proc $n/proc
	mount --move /sys $n/sys
	mount --move /dev $n/dev
	mount -t tmpfs -o mode=755 run $n/run
	mkdir -p $n/dev/pts $n/dev/shm $n/run/vm $n/run/tmp
	mount -t devpts -o mode=620,ptmxmode=666 devpts $n/dev/pts
	mount -t tmpfs shm $n/dev/shm
	mount -t tmpfs -o mode=1777,size=75% tmp $n/run/tmp
	# devtmpfs does not bring these, and shells write to /dev/stderr.
	ln -sf /proc/self/fd $n/dev/fd
	ln -sf /proc/self/fd/0 $n/dev/stdin
	ln -sf /proc/self/fd/1 $n/dev/stdout
	ln -sf /proc/self/fd/2 $n/dev/stderr
	for fs in debugfs:kernel/debug tracefs:kernel/tracing \
			cgroup2:fs/cgroup configfs:kernel/config; do
		mount -t "${fs%:*}" "${fs%:*}" "$n/sys/${fs#*:}" 2>/dev/null
	done

	mount -t 9p -o "$p9,cache=none,access=any" ctl $n/run/vm ||
		stop "cannot mount the control folder"
	share=$(cat $n/run/vm/share)
	mkdir -p "$n$share"
	mount -t 9p -o "$p9,cache=none,access=any" share "$n$share" ||
		stop "cannot mount the share"
	# A kernel that is not installed brings its modules from elsewhere.
	kver=$(cat $n/run/vm/kver)
	[ -d "$n/lib/modules/$kver" ] ||
		ln -s "$(cat $n/run/vm/modules)" "$n/lib/modules/$kver"
	ip link set lo up
	cp /bin/busybox /init $n/run/
	exec switch_root $n /run/busybox sh /run/init second
}

stage_two() {
	export PATH=/run:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	export HOME=/root LC_ALL=C.UTF-8 TERM=dumb TMPDIR=/run/tmp
	for port in /dev/vport*; do :; done
	echo "mmnf-vm: running the command" >/dev/kmsg
	# A virtio port can be opened once only, and a command may well open
	# /dev/stdout: it gets a pipe.
	{
		busybox setsid bash /run/vm/cmd </dev/null 2>&1
		echo $? >/run/vm/rc
	} | busybox cat >"$port"
	stop "the command ended"
}

if [ "$1" = second ]; then stage_two; else stage_one; fi
