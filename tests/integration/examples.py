#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tools/examples: each is compiled as its head says and run on a field whose sums
are known.  What needs the device is run in a guest, by vm/examples.  TAP.
"""
import glob
import os
import shutil
import subprocess
import sys
import time

SRC = os.environ["MMNF_SRC"]
sys.path.insert(0, os.path.join(SRC, "tests"))
try:
    import numpy as np
except ImportError:
    print("1..0 # SKIP no numpy")
    print("no numpy")
    sys.exit(4)
from toollib import ok, run_tests  # noqa: E402

EXAMPLES = os.path.join(SRC, "tools", "examples")
BUILD = os.environ["MMNF_BUILD"]
tests = []


def test(function):
    tests.append(function)
    return function


def compiled(name, folder="."):
    program = os.path.join(folder, name)
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror",
             "-I" + os.path.join(SRC, "include"),
             "-I" + os.path.join(SRC, "include", "uapi")]
    subprocess.run(["cc", *flags, os.path.join(EXAMPLES, name + ".c"), "-o", program,
                    "-L" + BUILD, "-lmmnf", "-luring", "-Wl,-rpath," + BUILD],
                   check=True)
    return os.path.abspath(program)


def run(*command, status=0, **kw):
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=False, **kw)
    assert done.returncode == status, (command, done.returncode, done.stderr)
    return done.stdout if status == 0 else done.stderr


def table(rows=4096, width=32):
    """Whole numbers: their sums are exact in any order."""
    values = (np.arange(rows * width) % 1009).astype("<f4").reshape(rows, width)
    np.save("words.npy", values)
    ok("import", "words.npy", "words")
    return values


def sum_in(text):
    return float(text.split("sum ")[1].split()[0].rstrip(","))


@test
def every_example_is_tested():
    names = {os.path.basename(p) for p in glob.glob(os.path.join(EXAMPLES, "*"))}
    assert names == {"pointer-walk.c", "batch-gather.c", "gpu-gather.c",
                     "remote-field.c", "prefetch-uring.c", "train.py", "walks.bt"}, names
    with open(os.path.join(SRC, "tests/vm/test-tracing.py"), encoding="utf-8") as file:
        assert "walks.bt" in file.read()
    with open(os.path.join(SRC, "tests/vm/test-examples.py"), encoding="utf-8") as file:
        assert "prefetch-uring" in file.read()


@test
def pointer_walk():
    values = (np.arange(20 * 30 * 40) % 997).astype("<f4").reshape(20, 30, 40)
    np.save("a.npy", values)
    walk = compiled("pointer-walk")
    assert sum_in(run(walk, "a.npy")) == values.sum(dtype="f8")
    ok("import", "a.npy", "f")
    text = run(walk, "f")
    assert sum_in(text) == values.sum(dtype="f8") and "accesses" in text, text
    assert "usage" in run(walk, status=2)
    assert "nowhere" in run(walk, "nowhere", status=1)


@test
def batch_gather():
    values = table()
    state, rows = 42, []
    for _ in range(5 * 1000):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        rows.append((state >> 20) % len(values))
    text = run(compiled("batch-gather"), "words", "5000")
    assert text.startswith("5000 records"), text
    assert sum_in(text) == values[rows].sum(dtype="f8"), text


@test
def gpu_gather():
    values = table()
    text = run(compiled("gpu-gather"), "words", "100")
    rows = [len(values) - 1 - i * (len(values) // 100) for i in range(100)]
    assert "by the host" in text or "on the GPU" in text, text
    assert sum_in(text) == values[rows].sum(dtype="f8"), text


@test
def remote_field():
    if not shutil.which("nbdkit"):
        print("# no nbdkit")
        return
    values = table()
    values.tofile("words.raw")
    with subprocess.Popen(["nbdkit", "-f", "-r", "-U", "socket", "file", "words.raw"]) as server:
        try:
            for _ in range(600):
                if os.path.exists("socket"):
                    break
                time.sleep(0.1)
            text = run(compiled("remote-field"),
                       f"nbd+unix:///?socket={os.path.abspath('socket')}",
                       str(len(values)), str(values.shape[1]))
            assert sum_in(text) == values.sum(dtype="f8"), text
        finally:
            server.kill()
    # The server is gone: an error that says so, not a hang.
    gone = run("./remote-field", f"nbd+unix:///?socket={os.path.abspath('nowhere')}",
               "4", "4", status=1)
    assert "nowhere" in gone or "No such file" in gone or "connect" in gone, gone


@test
def train():
    chance = np.random.default_rng(3)
    np.save("words.npy", chance.normal(0, 0.3, (2000, 16)).astype("<f4"))
    ok("import", "words.npy", "words")
    env = dict(os.environ, MMNF_LIBRARY=os.environ["MMNF_LIB"],
               PYTHONPATH=os.path.join(SRC, "lib", "python"))
    text = run(sys.executable, os.path.join(EXAMPLES, "train.py"), "words", "300", env=env)
    losses = [float(line.split()[-1]) for line in text.splitlines()]
    assert len(losses) == 11 and losses[-1] < 0.7 * losses[0], losses
    # What was learned is in the table.
    ok("get", "words", "::", "--out", "after.npy")
    assert not np.array_equal(np.load("words.npy"), np.load("after.npy"))


@test
def prefetch_uring():
    program = compiled("prefetch-uring")
    if not os.path.exists("/dev/mmnf"):
        assert "/dev/mmnf" in run(program, program, status=1)


sys.exit(run_tests(tests))
