#!/bin/bash
# SPDX-License-Identifier: MIT
# A Ceph cluster on the loopback, of Debian's packages, as root: one monitor, three
# OSDs that keep two copies, and an image of a petabyte.
#
#	up.sh DIR		everything is in DIR; does nothing if it is up
#	up.sh DIR guest		to be ended and taken into a guest: one OSD, which keeps all
#				in memory and writes it to DIR at its end, and a file system
#	down.sh DIR		ends what runs there, and no other
#
# Without authentication, so on the loopback alone.  No manager: nothing that is
# tested asks it.  The monitor has addresses of both protocols: with the old one
# alone no OSD comes up.
set -euo pipefail
dir=$(realpath -m "${1:?usage: up.sh DIR [guest]}")
conf=$dir/ceph.conf
nr_osds=3 copies=2 store=bluestore fast_end=true grace=20
[ "${2:-}" != guest ] || {
	nr_osds=1 copies=1 store=memstore fast_end=false
	# An OSD may read for 0.8 of that after it was last heard of.  One that hangs for
	# longer, as an emulated one does at times, answers no read for minutes.
	grace=600
}
export CEPH_CONF=$conf

ceph_says() {
	timeout 60 ceph "$@"
}

nr_up() {
	timeout 20 ceph osd stat -f json 2>/dev/null |
		sed -n 's/.*"num_up_osds":\([0-9]*\).*/\1/p'
}

if [ -e "$conf" ] && [ "$(nr_up)" = $nr_osds ]; then
	echo "up already: $conf"
	exit 0
fi
"$(dirname "$0")/down.sh" "$dir"
rm -rf "$dir"
mkdir -p "$dir/mon" "$dir/run"
fsid=$(cat /proc/sys/kernel/random/uuid)
addresses='[v2:127.0.0.1:13300,v1:127.0.0.1:16789]'

cat >"$conf" <<END
[global]
fsid = $fsid
mon host = $addresses
public addr = 127.0.0.1
ms bind ipv4 = true
ms bind ipv6 = false
auth cluster required = none
auth service required = none
auth client required = none
run dir = $dir/run
admin socket = $dir/run/\$name.\$pid.asok
pid file = $dir/run/\$name.pid
log file = $dir/\$name.log
mon cluster log file = $dir/cluster.log
setuser match path =
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail crit = 1
mon data avail warn = 2
osd heartbeat grace = $grace
osd pool default size = $copies
osd pool default min size = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
[mon.a]
mon data = $dir/mon/a
[osd]
osd objectstore = $store
osd fast shutdown = $fast_end
memstore device bytes = 2147483648
osd data = $dir/osd.\$id
bluestore block size = 8589934592
bluestore block create = true
bluestore cache autotune = false
bluestore cache size = 67108864
osd memory target = 939524096
osd class load list = *
osd class default list = *
[mds]
mds data = $dir/mds
[client]
rbd default features = 1
rbd cache = false
END

monmaptool --create --clobber --fsid "$fsid" --addv a "$addresses" \
	"$dir/monmap" >/dev/null
ceph-mon --mkfs -i a --monmap "$dir/monmap"
ceph-mon -i a
ceph_says mon stat >/dev/null
for id in $(seq 0 $((nr_osds - 1))); do
	mkdir -p "$dir/osd.$id"
	uuid=$(cat /proc/sys/kernel/random/uuid)
	ceph_says osd new "$uuid" "$id" >/dev/null
	ceph-osd -i "$id" --mkfs --osd-uuid "$uuid" >>"$dir/mkfs.log" 2>&1
	ceph-osd -i "$id" >>"$dir/start.log" 2>&1
done
for _ in $(seq 240); do
	[ "$(nr_up)" = $nr_osds ] && break
	sleep 0.5
done
[ "$(nr_up)" = $nr_osds ] || {
	echo "ceph: $(nr_up) of $nr_osds OSDs are up; see $dir/*.log" >&2
	exit 1
}
ceph_says osd pool create rbd 8 8 replicated >/dev/null 2>&1
ceph_says osd pool application enable rbd rbd >/dev/null 2>&1
# Layering alone: nothing that two gateways would take from each other.
timeout 120 rbd create --size 1P --image-feature layering rbd/field
if [ $store = memstore ]; then
	mkdir "$dir/mds"
	for pool in files.meta files.data; do
		ceph_says osd pool create $pool 8 8 replicated >/dev/null 2>&1
	done
	ceph_says fs new files files.meta files.data >/dev/null 2>&1
	ceph-mds -i a >>"$dir/start.log" 2>&1
	for _ in $(seq 240); do
		ceph_says mds stat | grep -q up:active && break
		sleep 0.5
	done
	ceph_says mds stat | grep -q up:active
fi
echo "up: $conf"
