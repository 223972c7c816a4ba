#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The examples for bpftrace and perf, run in a guest: what they show of a walk is
what the module counted.
"""
import ctypes
import fcntl
import mmap
import os
import re
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLE = os.path.join(os.environ["MMNF_SRC"], "tools/examples/walks.bt")
# Further apart than the kernel maps around a fault.
PAGE, PAGES, STRIDE = 4096, 1024, 17


def ioctl_number(nr):
    return 0xBD << 8 | nr


class Attach(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("flags", ctypes.c_uint32),
                ("fd", ctypes.c_int32), ("ndim", ctypes.c_uint32),
                ("element_bytes", ctypes.c_uint32),
                ("reserved", ctypes.c_uint32),
                ("data_offset_bytes", ctypes.c_uint64),
                ("record_bytes", ctypes.c_uint64),
                ("extent", ctypes.c_uint64 * 8),
                ("stride_bytes", ctypes.c_int64 * 8),
                ("out_id", ctypes.c_uint64)]


def walk():
    """Touch every STRIDEth page; the field's number and its counters."""
    with open("/run/field", "wb") as file:
        file.write(bytes(PAGES * PAGE))
        file.flush()
        os.fsync(file.fileno())
    with open("/run/field", "rb") as file:
        attach = Attach(fd=file.fileno(), ndim=1, element_bytes=1)
        attach.size = ctypes.sizeof(attach)
        attach.extent[0] = PAGES * PAGE
        attach.stride_bytes[0] = 1
        dev = os.open("/dev/mmnf", os.O_RDWR)
        fcntl.ioctl(dev, ioctl_number(0x81), attach)
    field = mmap.mmap(dev, PAGES * PAGE, prot=mmap.PROT_READ)
    for page in range(0, PAGES, STRIDE):
        assert field[page * PAGE] == 0
    path = f"/sys/class/misc/mmnf/fields/{attach.out_id}/stats/faults"
    with open(path, encoding="ascii") as file:
        print(attach.out_id, file.read().strip(), flush=True)


def walk_apart():
    shown = subprocess.run([sys.executable, __file__, "walk"], check=True,
                           stdout=subprocess.PIPE, text=True).stdout
    number, faults = shown.split()
    return int(number), int(faults)


def bpftrace():
    with subprocess.Popen(["bpftrace", EXAMPLE], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as process:
        # The time of its first second: then all probes are attached.
        begun = ""
        while not re.search(r"^\d\d:\d\d:\d\d$", begun, re.M):
            line = process.stdout.readline()
            assert line, begun
            begun += line
        number, faults = walk_apart()
        process.send_signal(signal.SIGINT)
        text = process.communicate(timeout=600)[0]
    # The last table is printed at the end.
    last = {}
    for key, outcome, count in re.findall(
            r"^@faults\[(\d+, \d+, \d+), (\d)\]: (\d+)$", text, re.M):
        if key.startswith(f"{number},"):
            last[key, outcome] = int(count)
    assert sum(last.values()) == faults > 0, (last, faults, text)
    distance = re.findall(rf"^@distance_bytes\[{number}, .*\]: (-?\d+)$", text,
                          re.M)
    assert str(STRIDE * PAGE) in distance, text
    print(f"bpftrace: {faults} faults, as counted")


def perf():
    done = subprocess.run(
        ["perf", "trace", "-e", "mmnf:mmnf_fault", "--", sys.executable,
         __file__, "walk"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, check=False)
    number, faults = done.stdout.split()
    lines = re.findall(rf"mmnf:mmnf_fault.*field[=:] ?{number}\b", done.stderr)
    assert len(lines) == int(faults) > 0, (faults, done.stderr)
    print(f"perf trace: {faults} faults, as counted")


def inside():
    """Headers that lie in a kernel's own root are not where bpftrace looks."""
    headers = f"/lib/modules/{os.uname().release}/build/include/linux/kconfig.h"
    has_headers = os.path.exists(os.path.realpath(headers)) or \
        os.path.exists(headers.replace("/build/", "/source/"))
    subprocess.run(["insmod", os.environ["MMNF_KO"]], check=True)
    perf()
    if has_headers:
        bpftrace()
    subprocess.run(["rmmod", "mmnf"], check=True)
    if not has_headers:
        print("kernel: bpftrace finds no headers of it; perf trace was run")
        return 4
    return 0


def main():
    for name in ("bpftrace", "perf"):
        if subprocess.run(["sh", "-c", f"command -v {name}"], check=False,
                          stdout=subprocess.DEVNULL).returncode:
            print(f"no {name}: tests/deps.sh test")
            return 4
    return subprocess.run(
        [sys.executable, os.path.join(HERE, "run.py"), "--timeout", "1000",
         "--", sys.executable, os.path.abspath(__file__), "inside"],
        check=False).returncode


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]]() if sys.argv[1:] else main())
