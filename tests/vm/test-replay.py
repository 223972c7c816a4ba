# SPDX-License-Identifier: MIT
"""The replay against the kernel: the same touches of a mapped file, in the guest,
leave the very pages in the page cache that the replay says are read.

mainline: a plain mapping.  mmnf: /dev/mmnf, and a consumer so slow that nothing is
late.  In virtual time: how far a plan reaches depends on how long reads take, and
that must not be this machine's load.

The guest's part is this file, too: it walks each trace over a file on ext4, whose
folios are single pages, and notes what mincore() finds.
"""
import ctypes
import fcntl
import json
import os
import struct
import subprocess
import sys
import tempfile
import time

SRC = os.environ["MMNF_SRC"]
RUN = os.path.join(SRC, "tests", "vm", "run.py")
PAGE = 4096
FILE_BYTES = 64 << 20
PAUSE_NS = 2_000_000
ATTACH = 0xBD81
MAINLINE = {
    "stride_17_pages": "strided count=300",
    "stride_7_pages": "strided count=500 stride=28672",
    "stride_6000_bytes": "strided count=1500 stride=6000",
    "backwards": "strided count=300 stride=40960 reverse=1",
    "sequential": "sequential bytes=8388608",
    "sequential_backwards": "sequential bytes=4194304 reverse=1",
    "nest": "nest count=6,40 stride=4194304,12288",
    "plane": "walk shape=64,256,1024 start=0,100,0 count=64,1,1024",
    "interleaved": "arrays nr=3 count=400 stride=4096",
    "uniform": "uniform file=67108864 count=600",
    "boxes": "boxes shape=64,256,1024 count=4,8,1024 boxes=6",
}
MMNF = {
    "stride_17_pages": "strided count=300",
    "backwards": "strided count=300 stride=69632 reverse=1",
    "sequential": "sequential bytes=4194304",
    "nest": "nest count=4,40 stride=16777216,73728",
    "plane": "walk shape=64,256,1024 start=0,100,0 count=64,1,1024",
    "uniform": "uniform file=67108864 count=200",
}


def read_trace(path):
    head, touched = {}, []
    with open(path, encoding="ascii") as trace:
        for line in trace:
            words = line.split()
            if words[0].isdigit():
                touched.append(int(words[2]))
            elif words[0] != "#":
                head[words[0]] = [int(n) for n in words[1].split(",")]
    return head, touched


def attach(fd, head):
    device = os.open("/dev/mmnf", os.O_RDWR)
    rest = [0] * (8 - len(head["extent"]))
    argument = struct.pack("=IIiIIIQQ8Q8qQ", 176, 0, fd, len(head["extent"]),
                           head["element"][0], 0, head["offset"][0],
                           head["record"][0], *head["extent"], *rest,
                           *head["stride"], *rest, 0)
    fcntl.ioctl(device, ATTACH, bytearray(argument))
    return device


def guest(share):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int,
                          ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    fd = os.open("field", os.O_RDWR | os.O_CREAT)
    for _ in range(FILE_BYTES >> 20):
        os.write(fd, bytes(1 << 20))
    os.fsync(fd)
    for name in sorted(os.listdir(share)):
        device = -1
        head, touched = read_trace(os.path.join(share, name))
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        walked = os.open("field", os.O_RDONLY)  # its own readahead state
        if name.startswith("mmnf."):
            device = attach(walked, head)
        address = libc.mmap(None, FILE_BYTES, 1, 1, walked if device < 0 else device, 0)
        for pos in touched:
            ctypes.c_char.from_address(address + pos).value
            if device >= 0:
                time.sleep(PAUSE_NS / 1e9)
        found = ctypes.create_string_buffer(FILE_BYTES // PAGE)
        time.sleep(0.1)     # for what is read ahead at the end
        libc.mincore(address, FILE_BYTES, found)
        libc.munmap(address, FILE_BYTES)
        os.close(walked)
        if device >= 0:
            os.close(device)
        resident = [n for n, byte in enumerate(found.raw[:FILE_BYTES // PAGE]) if byte & 1]
        with open(os.path.join(share, name + ".json"), "w", encoding="ascii") as out:
            json.dump(resident, out)


def mmnf(*args):
    subprocess.run([os.environ["MMNF"], "predict", *args], check=True,
                   stdout=subprocess.PIPE)


def foreseen(trace, predictor):
    """Pages that the replay reads, by a device so fast that nothing is late."""
    mmnf(trace, "--predictors", predictor, "--timeline", trace + ".line",
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
truncate -s 256M image && mkfs.ext4 -q image && mkdir m && mount -o loop image m
cd m
device=$(basename "$(readlink -f "$(findmnt -no SOURCE .)")")
echo 128 >"/sys/block/$device/queue/read_ahead_kb"
insmod "$MMNF_KO"
python3 {os.path.abspath(__file__)} guest "$MMNF_SHARE"
rmmod mmnf
"""


def main():
    if sys.argv[1:2] == ["guest"]:
        return guest(sys.argv[2])
    if not os.environ["KVER"].startswith("6.1."):
        print(f"kernel: the replay is of 6.1, this is {os.environ['KVER']}")
        return 4
    cases = {f"{predictor}.{name}": params
             for predictor, traces in (("mainline", MAINLINE), ("mmnf", MMNF))
             for name, params in traces.items()}
    print(f"KTAP version 1\n1..{len(cases)}", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as share:
        for name, params in cases.items():
            path = os.path.join(share, name)
            mmnf("--generate", *params.split(), f"gap_ns={PAUSE_NS}", "--out", path)
            with open(path, encoding="ascii") as trace:
                text = trace.read().split("\n", 1)[1]
            with open(path, "w", encoding="ascii") as trace:
                trace.write(f"file {FILE_BYTES}\n{text}")
        done = subprocess.run([sys.executable, RUN, "--icount", "--share", share, "--",
                               GUEST],
                              cwd=SRC, stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            print("# " + "\n# ".join(done.stdout.splitlines()))
        for number, name in enumerate(cases, start=1):
            path = os.path.join(share, name)
            try:
                with open(path + ".json", encoding="ascii") as file:
                    resident = set(json.load(file))
            except FileNotFoundError:
                resident = set()
            wanted = foreseen(path, name.split(".")[0])
            good = resident == wanted and not done.returncode
            if not good:
                failed += 1
                print(f"# {len(resident)} pages, {len(wanted)} foreseen; not foreseen "
                      f"{sorted(resident - wanted)[:12]}, not read "
                      f"{sorted(wanted - resident)[:12]}")
            print(f"{'' if good else 'not '}ok {number} {name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
