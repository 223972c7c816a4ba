# SPDX-License-Identifier: MIT
"""mmnf record in the guest: a walk whose faults are known in advance, recorded,
replayed; and what it says where it cannot record.  In virtual time: neither the
geometry nor the order of faults depends on how loaded this machine is.
"""
import json
import os
import subprocess
import sys
import tempfile

SRC = os.environ["MMNF_SRC"]
sys.path.insert(0, os.path.join(SRC, "tests"))
from toollib import report  # noqa: E402

RUN = os.path.join(SRC, "tests", "vm", "run.py")
ROWS, STEP, PAGE = 4096, 17, 4096

# Every 17th row of 4 KiB: each touch is a page of its own, out of reach of
# fault-around.
GUEST = f"""
set -e
cd "$TMPDIR"
modprobe -a loop ext4
truncate -s 64M image && mkfs.ext4 -q image && mkdir m && mount -o loop image m
cd m
"$MMNF" create f --shape {ROWS},1024 --dtype f32
"$MMNF" import "$MMNF_SHARE/one.npy" f --at 0,0
WALK="scan f --box ::{STEP},0 --engine device"
try() {{ "$@" >>"$MMNF_SHARE/said" 2>&1 || echo "status $?" >>"$MMNF_SHARE/said"; }}
try "$MMNF" record -- true
insmod "$MMNF_KO"
try setpriv --reuid=65534 --clear-groups "$MMNF" record -- true
try "$MMNF" record 12345 -- true
try "$MMNF" record --out "$TMPDIR/t" -- true
try "$MMNF" record --out "$TMPDIR/t" -- /nowhere/at/all
"$MMNF" record --json --out "$MMNF_SHARE/child" -- "$MMNF" $WALK >"$MMNF_SHARE/summary"
"$MMNF" record --json --out "$MMNF_SHARE/while" --seconds 8 >"$MMNF_SHARE/timed" &
for i in $(seq 100); do
	[ -z "$(ls /sys/kernel/tracing/instances)" ] || break
	sleep 0.2
done
sleep 1
# It lasts a few ms, and the recorder, which looks each ms, comes first.
nice "$MMNF" $WALK >/dev/null
wait $!
test -z "$(ls /sys/kernel/tracing/instances)"
rmmod mmnf
"""


def write_npy(path):
    """One f32 of 1: what is written makes the file, the rest of it stays a hole."""
    head = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little"))
        file.write(head.ljust(117).encode() + b"\n" + b"\0\0\x80\x3f")


def accesses(path):
    head, rows = {}, []
    with open(path, encoding="ascii") as file:
        for line in file:
            if line[0].isdigit():
                rows.append([int(word, 0) for word in line.split()])
            elif line[0] != "#":
                head[line.split()[0]] = line.split()[1]
    return head, rows


def check(share, status, output):
    yield "guest_ran", status == 0, output
    with open(os.path.join(share, "said"), encoding="utf-8") as file:
        said = file.read()
    yield "errors_are_clear", \
        all(text in said for text in
            ("is the module loaded?", "tracing needs root", "12345: no such field",
             "no fault was seen", "/nowhere/at/all: No such file")) and \
        said.count("status 1\n") == 5, said
    with open(os.path.join(share, "summary"), encoding="utf-8") as file:
        summary = json.loads(file.read().splitlines()[-1])
    expected = [i * PAGE for i in range(0, ROWS, STEP)]
    for name in ("child", "while"):
        head, rows = accesses(os.path.join(share, name))
        yield f"{name}_sees_each_page_once", [r[2] for r in rows] == expected, \
            f"{rows}"
        yield f"{name}_sees_one_loop", len({tuple(r[:2]) for r in rows}) == 1, \
            f"{rows[:20]}"
        yield f"{name}_has_the_geometry", \
            head == {"file": str(ROWS * PAGE), "offset": "0", "element": "4",
                     "extent": f"{ROWS},1024", "stride": f"{PAGE},4",
                     "record": head.get("record")}, f"{head}"
    recorded = accesses(os.path.join(share, "child"))[1]
    yield "summary", summary["accesses"] == len(recorded) and not summary["lost"], \
        f"{summary}"
    done = subprocess.run([os.environ["MMNF"], "predict", "--json",
                           os.path.join(share, "child")],
                          stdout=subprocess.PIPE, text=True, check=False)
    replayed = {r["predictor"]: r for r in json.loads(done.stdout)["results"]}
    yield "replay_needs_the_same_pages", \
        replayed["mmnf"]["needed_pages"] == len(expected) and \
        replayed["none"]["misses"] == len(expected) and \
        replayed["mmnf"]["coverage"] > 0.95, f"{replayed}"


def main():
    with tempfile.TemporaryDirectory() as share:
        write_npy(os.path.join(share, "one.npy"))
        done = subprocess.run([sys.executable, RUN, "--icount", "--share", share, "--",
                               GUEST],
                              cwd=SRC, stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.STDOUT, check=False)
        return report(check(share, done.returncode, done.stdout))


if __name__ == "__main__":
    sys.exit(main())
