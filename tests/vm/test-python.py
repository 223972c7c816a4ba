#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""lib/python on the engine device, in a guest: the same arrays as numpy's by copy, by
view and from several threads, and the kernel has seen the view's touches.
"""
import concurrent.futures
import importlib.util
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = os.path.join(HERE, os.pardir, "integration", "python.py")


def inside():
    subprocess.run(["insmod", os.environ["MMNF_KO"]], check=True)
    spec = importlib.util.spec_from_file_location("against_numpy", PYTHON)
    against = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(against)
    mmnf, same = against.mmnf, against.same
    folder = os.environ["TMPDIR"]
    array = against.elements("f4", (40, 30, 256))
    for name, options in (("linear", {}), ("tiled", {"tile": (8, 8, 256)})):
        path = os.path.join(folder, name)
        with mmnf.create(path, array.shape, "f4", engine="device", **options) as field:
            field[...] = array
            assert same(field[...], array), "by the handle that wrote"
        with mmnf.open(path, "device") as field:
            assert field.engine == "device"
            against.check_reads(field, array, 1, 100)
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                got = pool.map(field.gather, [[row, 3, -row] for row in range(12)])
                for row, one in enumerate(got):
                    assert same(one, array[[row, 3, -row]])
            assert field.prefetch(slice(5, 9)) > 0
    with mmnf.open(os.path.join(folder, "linear"), "device") as field:
        before = field.stats()["accesses"]
        view = field.view()
        assert same(view[::-7, 3], array[::-7, 3]) and same(view, array)
        assert field.stats()["accesses"] > before, field.stats()
        residency = field.residency()
        assert residency.hot_bytes > 0, residency
    assert same(view, array), "after close"
    del view, field
    path = os.path.join(folder, "segments")
    with mmnf.create(path, array.shape, "f4", segment_bytes=4 * array[0].nbytes) as field:
        field[...] = array
    with mmnf.open(path, "device") as field:
        views = [field.view(slice(first, first + 4)) for first in range(0, 40, 4)]
        assert same(field[...], array)
    for number, view in enumerate(views):
        assert same(view, array[4 * number:4 * number + 4]), f"segment {number}"
    # The kernel has nothing of them any more.
    del views, view, field
    subprocess.run(["rmmod", "mmnf"], check=True)


def main():
    python = os.path.join(os.environ["MMNF_BUILD"], "venv", "bin", "python")
    if not os.path.exists(python):
        print("no build/venv: tests/deps.sh test")
        return 4
    return subprocess.run(
        [sys.executable, os.path.join(HERE, "run.py"), "--timeout", "1000", "--", python,
         os.path.abspath(__file__), "inside"], check=False).returncode


if __name__ == "__main__":
    if sys.argv[1:]:
        inside()
    else:
        sys.exit(main())
