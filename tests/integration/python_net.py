#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""lib/python and fields on NBD servers, two nbdkits on Unix sockets: the arrays are
numpy's, also after a fork and pickled, and a server that is gone is an error.  KTAP.
"""
import asyncio
import contextlib
import math
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time

try:
    import numpy as np
except ImportError as error:
    print(f"1..0 # SKIP {error}: tests/deps.sh test")
    print(error)
    sys.exit(4)

SRC = os.environ["MMNF_SRC"]
os.environ["MMNF_LIBRARY"] = os.environ["MMNF_LIB"]
sys.path[:0] = [os.path.join(SRC, "tests"), os.path.join(SRC, "lib", "python")]
import fieldlib  # noqa: E402
import mmnf  # noqa: E402
from fieldlib import elements, raises, same  # noqa: E402

SHAPE = (500, 20, 30)


@contextlib.contextmanager
def nbdkits(number):
    """Their URIs and processes."""
    # Not in the test's folder: a socket's path is short.
    folder, running = tempfile.mkdtemp(prefix="mmnf-nbd-", dir="/tmp"), []
    try:
        sockets = [os.path.join(folder, str(one)) for one in range(number)]
        for socket in sockets:
            running.append(subprocess.Popen(["nbdkit", "-f", "-U", socket, "memory", "8M"],
                                            stdin=subprocess.DEVNULL))
        give_up = time.monotonic() + 60
        for socket in sockets:
            while not os.path.exists(socket):
                assert time.monotonic() < give_up, f"nbdkit makes no {socket}"
                time.sleep(0.05)
        yield [f"nbd+unix:///?socket={socket}" for socket in sockets], running
    finally:
        for process in running:
            process.kill()
            process.wait()
        shutil.rmtree(folder)


def _sum(field, row):
    return float(field[row].sum())


def ram_used(field):
    return next(tier.used_bytes for tier in field.tiers() if tier.level == 2)


def like_numpy(folder):
    array, path = elements("f4", SHAPE), os.path.join(folder, "f")
    with nbdkits(2) as (uris, _):
        with mmnf.create(path, SHAPE, "f4", servers=uris, stripe_bytes=65536) as field:
            assert field.engine == "net" and field.writable
            field[...] = array
            field[7, ::2] = -1
        array[7, ::2] = -1
        with mmnf.open(path, net=mmnf.Net(connections=2, depth=8), l2_bytes=64 << 20) as field:
            assert same(field[...], array)
            rows = np.random.default_rng(6).integers(-500, 500, 300)
            assert same(field.gather(rows), array[rows])
            for key in ((slice(None, None, -7), 3, [1, 5]), (rows > 0).nonzero(), (..., 2)):
                assert same(field[key], array[key]), key
            assert same(asyncio.run(field.agather(rows)), array[rows])
            for one, got in zip([rows[:9], rows[9:]], field.gathers([rows[:9], rows[9:]]),
                                strict=True):
                assert same(got, array[one])
            assert ram_used(field) > 0
            stats = field.net_stats()
            assert [one["uri"] for one in stats] == uris
            assert all(one["connections"] == 2 and one["reads"] > 0 and not one["failed"]
                       for one in stats), stats
            assert sum(one["read_bytes"] for one in stats) >= array.nbytes
            assert sum(tier.level == 4 and tier.is_on for tier in field.tiers()) > 0
            raises(mmnf.Error, field.view, 0, text="engine net has no pointers")
            again = pickle.loads(pickle.dumps(field))
            assert same(again[3], array[3])
            with multiprocessing.get_context("fork").Pool(2) as pool:
                sums = pool.starmap(_sum, [(field, row) for row in range(20)])
            assert sums == [float(array[row].sum()) for row in range(20)]
        with mmnf.open(path, l2_once=True, prefetch=False) as field:
            for _ in range(2):
                assert same(field[...], array)
                assert same(field.gather(rows), array[rows])
                assert same(asyncio.run(field.agather(rows)), array[rows])
            assert ram_used(field) == 0


def a_cache_on_disk(folder):
    """What one process has read the next need not ask for."""
    array, path = elements("f4", SHAPE), os.path.join(folder, "f")
    cache = mmnf.Net(cache_dir=os.path.join(folder, "cache"), cache_bytes=64 << 20)
    os.mkdir(cache.cache_dir)
    with nbdkits(1) as (uris, _):
        with mmnf.create(path, SHAPE, "f4", servers=uris[0]) as field:
            field[...] = array
        for number in range(2):
            with mmnf.open(path, net=cache) as field:
                assert same(field[...], array)
                # But for what names the data, all of it came from the disk.
                read = field.net_stats()[0]["read_bytes"]
                assert number == 0 or read < array.nbytes // 10, read


def a_server_that_is_gone(folder):
    path = os.path.join(folder, "f")
    with nbdkits(2) as (uris, processes):
        with mmnf.create(path, (1 << 20,), "f4", servers=uris, stripe_bytes=1 << 20) as field:
            field[::1 << 18] = 3
        with mmnf.open(path, net=mmnf.Net(fail_timeout=0.5)) as field:
            assert field[0] == 3
            processes[1].kill()
            processes[1].wait()
            raises(mmnf.Error, field.__getitem__, (1 << 18) + 5)
            assert field[1 << 19] == 3, "the other server's share"


def refusals(folder):
    path = os.path.join(folder, "f")
    raises(ValueError, mmnf.create, path, (2,), "f4", servers=[], text="expected a URI")
    raises(ValueError, mmnf.create, path, (2,), "f4", servers="http://x", text="http")
    assert not os.path.exists(path)
    for options, text in (({"fail_timeout": -1}, "fail_timeout is -1"),
                          ({"fail_timeout": math.nan}, "fail_timeout is nan"),
                          ({"request_timeout": math.inf}, "request_timeout is inf"),
                          ({"cache_grace": 0}, "cache_grace is 0"),
                          ({"depth": -1}, "depth is -1"), ({"connections": 17}, "16")):
        raises(ValueError, mmnf.open, "nbd://localhost:1/#raw,dtype=f32,shape=4",
               net=mmnf.Net(**options), text=text)
    with mmnf.create(path, (2,), "f4") as field:
        raises(mmnf.Error, field.net_stats)


def main():
    if not shutil.which("nbdkit"):
        print("1..0 # SKIP no nbdkit: tests/deps.sh test")
        print("no nbdkit: tests/deps.sh test")
        return 4
    return fieldlib.main([(test.__name__, test, ()) for test in (
        like_numpy, a_cache_on_disk, a_server_that_is_gone, refusals)])


if __name__ == "__main__":
    sys.exit(main())
