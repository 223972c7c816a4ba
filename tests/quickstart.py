#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The main job once, on real data: run by `make quickstart`.

Two petabyte fields get real data, are read back through the library alone and
through /dev/mmnf, every value compared with its source, and walked through every
kind of mapping for the table of what reading ahead wins.

The device is used right here if this kernel can load the module, else in a
disposable guest in virtual time: one instruction is one nanosecond, and the disk
is a timer.  Its numbers are compared only with each other.

Exit status 0: every value was right; 1: not; 2: something is missing.
"""
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(HERE, "quickstart"))
PROGRAMS = ["build/tests/bench/axes", "build/tests/bench/replay"]


def heading(text):
    print(f"\n{text}", flush=True)


def module_can_load(kver):
    """Is the device here, or can this very kernel load the module?"""
    if os.access("/dev/mmnf", os.R_OK | os.W_OK):
        return True
    if os.uname().release != kver or os.geteuid():
        return False
    module = os.path.join(TOP, "build", "kmod", kver, "mmnf.ko")
    if subprocess.run(["insmod", module], stderr=subprocess.DEVNULL).returncode:
        return False
    subprocess.run(["rmmod", "mmnf"], check=True)
    return True


def device_part(data, kver):
    script = [sys.executable, os.path.join(HERE, "quickstart", "device.py"), TOP, kver]
    if module_can_load(kver):
        heading("3. Through /dev/mmnf, in this kernel (times are wall time)")
        with tempfile.TemporaryDirectory(dir=data) as folder:
            return subprocess.run(script + [folder]).returncode
    heading(f"3. Through /dev/mmnf, in a guest with Linux {kver}\n"
            "   (times are virtual: one instruction = 1 ns; simulated disk, 100 us a read)")
    return subprocess.run([sys.executable, os.path.join(HERE, "vm", "run.py"), "--icount",
                           "--mem", "2G", "--timeout", "1800", "--kver", kver, "--",
                           *script]).returncode


def main():
    kver = os.environ.get("KVER")
    if not kver:
        print("quickstart: run me by `make quickstart`", file=sys.stderr)
        return 2
    began = time.monotonic()
    os.chdir(TOP)
    subprocess.run(["make", "-s", *PROGRAMS], check=True)
    # Only now: the library is there, and this Python has numpy.
    import fields
    import walks
    from layout import Layout

    data = os.path.join(TOP, "build", "quickstart")
    os.makedirs(data, exist_ok=True)
    failed = []

    heading("1. Real data")
    for sample in fields.SAMPLES:
        values = sample.values(data)
        print(f"  {os.path.relpath(sample.fetch(data), TOP)}: {list(values.shape)} f32, "
              f"{fields.size_text(values.nbytes)}", flush=True)

    heading("2. Through the library alone: no module, no root")
    for sample in fields.SAMPLES:
        path = fields.make(sample, data, data)
        if fields.read_back(sample, data, path, "mmap"):
            failed.append(sample.name)
        values = sample.values(data)
        if values.ndim == 3:
            with tempfile.TemporaryDirectory(dir=data) as scratch:
                if walks.axis_walks(os.path.join(TOP, PROGRAMS[0]), "mmap", Layout(path),
                                    sample.at, values, scratch):
                    failed.append(f"{sample.name}, by pointer")

    status = device_part(data, kver)
    if status:
        failed.append(f"/dev/mmnf (status {status})")
    took = f"in {time.monotonic() - began:.0f} s"
    if failed:
        heading(f"quickstart: FAILED {took}: " + "; ".join(failed))
        return 1
    heading(f"quickstart: every value was right, {took}. The fields stay in "
            f"{os.path.relpath(data, TOP)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
