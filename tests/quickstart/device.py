#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The part of the quickstart that needs /dev/mmnf: in the guest, or right here.

    device.py TOP KVER [FOLDER]

Loads the module if it is not there.  With FOLDER, the fields are made in it;
without, on a simulated disk: each read takes 100 us, 128 at a time.  Exit status
1 if a value is wrong or a counter breaks its law.
"""
import os
import shutil
import subprocess
import sys
import tempfile

import fields
import walks
from layout import Layout

DISK = {"size": 1024, "memory_backed": 1, "irqmode": 2, "completion_nsec": 100_000,
        "hw_queue_depth": 128, "power": 1}
SYSFS = "/sys/class/misc/mmnf/fields"


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def simulated_disk(folder):
    run("modprobe", "null_blk", "nr_devices=0")
    run("modprobe", "xfs")
    if not os.path.ismount("/sys/kernel/config"):
        run("mount", "-t", "configfs", "none", "/sys/kernel/config")
    config = "/sys/kernel/config/nullb/field"
    os.mkdir(config)
    for name, value in DISK.items():
        with open(f"{config}/{name}", "w", encoding="ascii") as file:
            file.write(str(value))
    run("mkfs.xfs", "-q", "/dev/field")
    run("mount", "/dev/field", folder)


def show_sysfs():
    """The directory of one field, while it is mapped, but for its histogram."""
    top = os.path.join(SYSFS, min(os.listdir(SYSFS), key=int))
    print(f"  {top}:")
    for folder, _, names in sorted(os.walk(top)):
        for name in sorted(set(names) - {"waits"}):
            path = os.path.join(folder, name)
            with open(path, encoding="ascii") as file:
                print(f"    {os.path.relpath(path, top):28} {file.read().strip()}")
    sys.stdout.flush()


def main(top, kver, folder=None):
    data = os.path.join(top, "build", "quickstart")
    loaded = os.path.exists("/dev/mmnf")
    if not loaded:
        run("insmod", os.path.join(top, "build", "kmod", kver, "mmnf.ko"))
    with tempfile.TemporaryDirectory() as scratch:
        # While a guest waits for its host, virtual time runs ahead: what runs
        # while time is taken must not come from there.
        programs = [shutil.copy(os.path.join(top, "build", "tests", "bench", name), scratch)
                    for name in ("axes", "replay")]
        shutil.copy(os.path.join(top, "build", "libmmnf.so.0"), scratch)
        os.environ["LD_LIBRARY_PATH"] = scratch
        if not folder:
            folder = os.path.join(scratch, "disk")
            os.mkdir(folder)
            simulated_disk(folder)
            try:
                failed = work(data, folder, programs, scratch)
            finally:
                run("umount", folder)
        else:
            failed = work(data, folder, programs, scratch)
    if not loaded:
        run("rmmod", "mmnf")
    for line in failed:
        print(f"  WRONG: {line}")
    return 1 if failed else 0


def work(data, folder, programs, scratch):
    axes, replay = programs
    failed, cases = [], []
    for sample, make_walks in zip(fields.SAMPLES, (walks.brain_walks, walks.words_walks)):
        path = fields.make(sample, data, folder)
        layout, values = Layout(path), sample.values(data)
        show = None if cases else show_sysfs
        if fields.read_back(sample, data, path, "device", show):
            failed.append(f"{sample.name}: read back through /dev/mmnf")
        if values.ndim == 3 and walks.axis_walks(axes, "device", layout, sample.at,
                                                 values, scratch):
            failed.append(f"{sample.name}: walk by pointer")
        cases += make_walks(layout, sample.at, values)
    print()
    return failed + walks.compare(replay, cases, scratch)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
