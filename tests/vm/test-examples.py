#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The examples that go through /dev/mmnf, in a guest: pointer-walk with the engine
device, prefetch-uring on a file of which every byte is known.
"""
import os
import subprocess
import sys
import tempfile

import numpy as np

SRC, BUILD = os.environ["MMNF_SRC"], os.environ["MMNF_BUILD"]
RUN = os.path.join(SRC, "tests", "vm", "run.py")
FILE_MIB, STEP_MIB, PART_MIB = 64, 16, 1

GUEST = """
set -e
cd "$TMPDIR"
modprobe -a loop ext4
truncate -s 160M image && mkfs.ext4 -q image && mkdir m && mount -o loop image m
cp "$MMNF_SHARE/data" m/data
"$MMNF" import "$MMNF_SHARE/a.npy" m/f
sync && echo 3 >/proc/sys/vm/drop_caches
insmod "$MMNF_KO"
"$MMNF_SHARE/prefetch-uring" m/data >"$MMNF_SHARE/uring"
"$MMNF_SHARE/pointer-walk" m/f >"$MMNF_SHARE/walk"
rmmod mmnf
"""


def compiled(name, share):
    subprocess.run(["cc", "-std=gnu11", "-O2", "-I" + os.path.join(SRC, "include"),
                    "-I" + os.path.join(SRC, "include", "uapi"),
                    os.path.join(SRC, "tools", "examples", name + ".c"), "-o",
                    os.path.join(share, name), "-L" + BUILD, "-lmmnf", "-luring",
                    "-Wl,-rpath," + BUILD], check=True)


def main():
    values = (np.arange(64 * 64 * 256) % 997).astype("<f4").reshape(64, 64, 256)
    data = np.arange(FILE_MIB << 20, dtype="u4").astype("u1")
    data[::STEP_MIB << 20] = range(7, 7 + FILE_MIB // STEP_MIB)
    with tempfile.TemporaryDirectory() as share:
        np.save(os.path.join(share, "a.npy"), values)
        data.tofile(os.path.join(share, "data"))
        for name in ("pointer-walk", "prefetch-uring"):
            compiled(name, share)
        done = subprocess.run([sys.executable, RUN, "--share", share, "--timeout",
                               "1000", "--", GUEST], text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        print(done.stdout)
        if done.returncode:
            return 1

        def read(name):
            with open(os.path.join(share, name), encoding="ascii") as file:
                return file.read()

        parts = FILE_MIB // STEP_MIB
        wanted = f"{parts} parts, {parts * PART_MIB << 20} bytes read meanwhile, " \
                 f"sum {sum(range(7, 7 + parts))}\n"
        assert read("uring") == wanted, (read("uring"), wanted)
        walk = read("walk")
        assert f"sum {int(values.sum(dtype='f8'))}," in walk, walk
        assert "/dev/mmnf answers" in walk, walk
    return 0


sys.exit(main())
