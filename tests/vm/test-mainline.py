# SPDX-License-Identifier: MIT
"""The replay's mainline against the kernel: the same touches of a mapped file, in
the guest, leave the very pages in the page cache that the replay says are read.

The guest's part is this file, too: it walks each trace over a sparse file on ext4,
whose folios are single pages, and notes what mincore() finds.
"""
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time

SRC = os.environ["MMNF_SRC"]
RUN = os.path.join(SRC, "tests", "vm", "run.py")
PAGE = 4096
TRACES = {
    "stride_17_pages": "strided count=300",
    "stride_7_pages": "strided count=500 stride=28672",
    "stride_6000_bytes": "strided count=1500 stride=6000",
    "backwards": "strided count=300 stride=40960 reverse=1",
    "sequential": "sequential bytes=8388608",
    "sequential_backwards": "sequential bytes=4194304 reverse=1",
    "nest": "nest count=6,40 stride=4194304,12288",
    "plane": "walk shape=64,256,1024 start=0,100,0 count=64,1,1024",
    "interleaved": "arrays nr=3 count=400 stride=4096",
    "uniform": "uniform file=134217728 count=600",
    "boxes": "boxes shape=64,256,1024 count=4,8,1024 boxes=6",
}


def guest(share):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int,
                          ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    for name in TRACES:
        size, touched = 0, []
        with open(os.path.join(share, name), encoding="ascii") as trace:
            for line in trace:
                words = line.split()
                if words[0] == "file":
                    size = -(-int(words[1]) // PAGE) * PAGE
                elif words[0].isdigit():
                    touched.append(int(words[2]))
        fd = os.open(name, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, size)
        address = libc.mmap(None, size, 1, 1, fd, 0)
        for pos in touched:
            ctypes.c_char.from_address(address + pos).value
        found = ctypes.create_string_buffer(size // PAGE)
        time.sleep(0.1)     # for what is read ahead at the end
        libc.mincore(address, size, found)
        libc.munmap(address, size)
        os.close(fd)
        os.unlink(name)
        resident = [n for n, byte in enumerate(found.raw[:size // PAGE]) if byte & 1]
        with open(os.path.join(share, name + ".json"), "w", encoding="ascii") as out:
            json.dump(resident, out)


def mmnf(*args):
    subprocess.run([os.environ["MMNF"], "predict", *args], check=True,
                   stdout=subprocess.PIPE)


def foreseen(trace):
    """Pages that the replay reads; a device without latency, so that nothing is
    still being read when it is touched."""
    mmnf(trace, "--predictors", "mainline", "--timeline", trace + ".line",
         "--model", "latency_ns=0,page_ns=0,cpu_ns=0")
    pages = set()
    with open(trace + ".line", encoding="ascii") as line:
        for words in map(str.split, line):
            if words[2] in ("read", "demand"):
                pages.update(range(int(words[3]), int(words[3]) + int(words[4])))
    return pages


GUEST = f"""
set -e
cd "$TMPDIR"
modprobe -a loop ext4
truncate -s 4G image && mkfs.ext4 -q image && mkdir m && mount -o loop image m
cd m
device=$(basename "$(readlink -f "$(findmnt -no SOURCE .)")")
echo 128 >"/sys/block/$device/queue/read_ahead_kb"
python3 {os.path.abspath(__file__)} guest "$MMNF_SHARE"
"""


def main():
    if sys.argv[1:2] == ["guest"]:
        return guest(sys.argv[2])
    if not os.environ["KVER"].startswith("6.1."):
        print(f"kernel: the replay is of 6.1, this is {os.environ['KVER']}")
        return 4
    print(f"KTAP version 1\n1..{len(TRACES)}", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as share:
        for name, params in TRACES.items():
            mmnf("--generate", *params.split(), "--out", os.path.join(share, name))
        done = subprocess.run([sys.executable, RUN, "--share", share, "--", GUEST],
                              cwd=SRC, stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.STDOUT, check=False)
        for number, name in enumerate(TRACES, start=1):
            path = os.path.join(share, name)
            try:
                with open(path + ".json", encoding="ascii") as file:
                    resident = set(json.load(file))
            except FileNotFoundError:
                print("# " + "\n# ".join(done.stdout.splitlines()))
                resident = set()
            wanted = foreseen(path)
            good = resident == wanted
            if not good:
                failed += 1
                print(f"# {len(resident)} pages, {len(wanted)} foreseen; not foreseen "
                      f"{sorted(resident - wanted)[:12]}, not read "
                      f"{sorted(wanted - resident)[:12]}")
            print(f"{'' if good else 'not '}ok {number} {name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
