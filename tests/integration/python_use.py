#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""lib/python in a program: what lives how long, views and DLPack, errors and their
words, threads, other processes.  KTAP.
"""
import ast
import asyncio
import concurrent.futures
import errno
import gc
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading

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

SHAPE = (40, 30, 20)


def made(folder, name="f", dtype="f4", **options):
    array = elements(dtype, SHAPE)
    path = os.path.join(folder, name)
    with mmnf.create(path, SHAPE, dtype, **options) as field:
        field[...] = array
    return path, array


def is_mapped(path):
    """Whether this process has a file of that folder in memory."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        return path + "/" in file.read()


def attributes(folder):
    path, array = made(folder, tile=(10, 10, 20))
    with mmnf.open(path) as field:
        assert (field.shape, field.ndim, field.size, field.nbytes, field.itemsize) == (
            array.shape, array.ndim, array.size, array.nbytes, array.itemsize)
        assert field.dtype == array.dtype and len(field) == len(array)
        assert field.format == "zarr" and field.tile == (10, 10, 20) and field.fill == 0
        assert not field.writable and not field.closed and field.path == path
        assert repr(field) == (f"<mmnf.Field {path!r} [40, 30, 20] float32, zarr, "
                               f"engine {field.engine}>")
    assert field.closed and repr(field) == f"<mmnf.Field {path!r}, closed>"
    raises(ValueError, field.__getitem__, 0, text="is closed")
    raises(ValueError, field.__enter__, text="is closed")
    field.close()


def views(folder):
    path, array = made(folder)
    with mmnf.open(path, "mmap") as field:
        for key in (..., 3, (slice(5, 30, 4), slice(None, None, -3)), (-1, None, -1),
                    (slice(None), 7, slice(2, 5)), (1, 2, 3), slice(7, 7)):
            view = field.view(key)
            assert same(view, np.asarray(array[key])), key
            assert not view.flags.writeable or view.size == 0
        assert same(np.asarray(memoryview(field.view(2))), array[2])
        assert np.asarray(field).flags.owndata and same(np.asarray(field), array)
        whole = np.asarray(field, copy=False)
        assert not whole.flags.owndata and same(whole, array)
        raises(ValueError, np.asarray, field, "f8", copy=False, text="without a copy")
        assert same(np.asarray(field, "f8"), array.astype("f8"))
        raises(TypeError, field.view, [1, 2], text="expected integers and slices")
        raises(ValueError, whole.__setitem__, 0, 1)
    # Bytes that are written come up in a view.
    with mmnf.open(path, writable=True) as field:
        view = field.view()
        field[3, 4, 5] = -9
        assert view[3, 4, 5] == -9
    path, array = made(folder, "tiled", tile=(10, 30, 10))
    with mmnf.open(path) as field:
        for key in (slice(10, 20), slice(None), slice(10, 20)), (25, slice(None), slice(3, 9, 2)):
            assert same(field.view(key), array[key]), key
        raises(ValueError, field.view, slice(9, 11), text="axis 0: elements 9..10")
        raises(ValueError, field.view, text="axis 0: elements 0..39 lie in more than one tile")


def views_of_many_segments(folder):
    """Each stays what it was, whatever else is looked at."""
    for name, options, rows in (("f", {"segment_bytes": 2 * 30 * 20 * 4}, 2),
                                ("t", {"segment_bytes": 9600, "tile": (4, 30, 20)}, 4)):
        path, array = made(folder, name, **options)
        for engine in "mmap", "direct":
            with mmnf.open(path, engine) as field:
                assert field.nr_segments == 40 // rows
                seen = [(key, field.view(key)) for first in range(0, 40, rows)
                        for key in (slice(first, first + rows), (first + 1, slice(None, None, -3)))]
                assert same(field[...], array)
                raises(ValueError, field.view, slice(rows - 1, rows + 1),
                       text=f"axis 0: elements {rows - 1}..{rows} lie in more than one tile")
            assert all(same(view, array[key]) for key, view in seen)
            assert is_mapped(path)
            del seen, field
            gc.collect()
            assert not is_mapped(path)
        with mmnf.open(path, "mmap", max_windows=4) as field:
            first = field.view(0)
            for row in range(40):
                assert same(field.view(row), array[row])
            assert same(first, array[0])
            first = [field.view(0)]
            error = raises(mmnf.Error, lambda: first.extend(map(field.view, range(40))),
                           text="expected fewer than max_windows")
            assert all(same(view, array[row]) for row, view in enumerate(first[1:])), error
            first.clear()
            assert same(field.view(39), array[39])


def a_guarded_view(folder):
    """In a process of its own: what is cut away shows the poison, and is counted."""
    program = """if True:
        import mmnf, numpy as np, os, sys
        path = sys.argv[1] + "/a.npy"
        array = np.arange(1 << 20, dtype="f4")
        np.save(path, array)
        field = mmnf.open(path, "mmap")
        field.guard(np.nan)
        view = field.view()
        assert (view[::1024] == array[::1024]).all() and field.bad_pages == 0
        os.truncate(path, 1 << 20)
        good = ((1 << 20) - 128) // 4
        assert (view[:good] == array[:good]).all() and field.bad_pages == 0
        assert np.isnan(view[-10:]).all() and field.bad_pages == 1
        assert np.isnan(view[good + 1024:]).all() and field.bad_pages > 700
        try:
            field.guard()
        except mmnf.Error as error:
            print(error.errno, flush=True)
        field.unguard()
        field.evict()
        other = mmnf.open(path + "#raw,dtype=u8,shape=1048576", "mmap")
        whole = other.view()
        os.truncate(path, 4096)
        whole.sum()
        print("not reached")
    """
    done = subprocess.run([sys.executable, "-c", program, folder], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": os.path.join(SRC, "lib", "python")})
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, f"{errno.EALREADY}\n"), (
        f"{done.returncode}\n{done.stdout}")


def views_outlive_the_field(folder):
    path, array = made(folder)
    field = mmnf.open(path)
    view = field.view(slice(3, 9))
    part = view[::2, 1]
    field.close()
    assert same(view, array[3:9])
    del field, view
    gc.collect()
    assert is_mapped(path) and same(part, array[3:9:2, 1])
    del part
    gc.collect()
    assert not is_mapped(path)
    # Also at the very end of a process, where nothing is collected any more.
    program = ("import mmnf, sys, weakref\nclass Late:\n  def __del__(self): print(view.sum())\n"
               "view = mmnf.open(sys.argv[1]).view()\nlate = Late()\nsys.stdout.flush()\n"
               "import atexit; atexit.register(lambda: print(view.sum()))\n")
    done = subprocess.run([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True,
                          env=os.environ | {"PYTHONPATH": os.path.join(SRC, "lib", "python")},
                          check=True)
    assert set(done.stdout.split()) == {str(array.sum())}, done.stdout


def run_program(program, *arguments):
    done = subprocess.run([sys.executable, "-c", program, *arguments], text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=os.environ | {"PYTHONPATH": os.path.join(SRC, "lib", "python")})
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}"
    return done.stdout


def left_open_at_the_end(folder):
    """What was written is there, whether or not there was a view."""
    path = os.path.join(folder, "f")
    program = """if True:
        import mmnf, sys
        first = mmnf.create(sys.argv[1], (8, 8), "f4", tile=(4, 4))
        first[:4] = 1
        if sys.argv[2] == "view":
            view = first.view((0, 0))
            import atexit
            atexit.register(first.__setitem__, slice(4, 8), 2)
    """
    for how, total in ("plain", 32), ("view", 96):
        assert run_program(program, path + how, how) == ""
        with mmnf.open(path + how) as field:
            assert field[...].sum() == total, (how, field[...])


def daemons_at_the_end(folder):
    """Threads in calls while the interpreter ends, which nobody waits for."""
    path, _ = made(folder)
    program = """if True:
        import mmnf, numpy, sys, threading
        field = mmnf.open(sys.argv[1], sys.argv[2])
        rows = numpy.arange(40).repeat(200)
        under_way = threading.Semaphore(0)

        def gather():
            while True:
                field.gather(rows)
                under_way.release()

        def gathers():
            while True:
                for _ in field.gathers([rows, rows, rows]):
                    under_way.release()

        for work in gather, gather, gathers:
            threading.Thread(target=work, daemon=True).start()
        for _ in range(20):
            under_way.acquire()
    """
    for engine in "mmap", "direct":
        for _ in range(5):
            assert run_program(program, path, engine) == ""


def dlpack(folder):
    path, array = made(folder)
    field = mmnf.open(path, "mmap")
    assert field.__dlpack_device__() == (1, 0)
    shared = np.from_dlpack(field)
    assert same(shared, array)
    copied = np.from_dlpack(field, copy=True)
    assert same(copied, array) and copied.flags.writeable
    field.close()
    assert same(shared, array)
    path, array = made(folder, "tiled", tile=(10, 30, 10))
    with mmnf.open(path) as field:
        assert same(np.from_dlpack(field), array)
        raises(ValueError, np.from_dlpack, field, copy=False, text="without a copy")


def errors(folder):
    path, _ = made(folder)
    error = raises(FileNotFoundError, mmnf.open, path + "x", text="No such file")
    assert isinstance(error, mmnf.Error) and error.errno == errno.ENOENT
    error = raises(FileExistsError, mmnf.create, path, (2,), "f4")
    assert isinstance(error, mmnf.Error) and error.errno == errno.EEXIST
    bad = os.path.join(folder, "bad.npy")
    with open(bad, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00rubbish")
    error = raises(ValueError, mmnf.open, bad, text="mmnf_field_open: ")
    assert isinstance(error, mmnf.Error) and error.errno == errno.EINVAL
    with mmnf.open(path) as field:
        error = raises(mmnf.Error, field.__setitem__, 0, 1, text="mmnf_write")
        assert error.errno == errno.EBADF and not field.closed
        raises(IndexError, field.__getitem__, 40, text="index 40 is out of bounds for axis 0")
        raises(IndexError, field.__getitem__, (0, [3, 30]), text="index 30 is out of bounds for")
        raises(IndexError, field.__getitem__, (0,) * 4, text="field is 3-dimensional, but 4")
        raises(IndexError, field.__getitem__, "name", text="only integers, slices")
        raises(IndexError, field.__getitem__, 1.0, text="only integers, slices")
        raises(IndexError, field.__getitem__, np.ones(39, bool), text="size of axis is 40")
        raises(TypeError, field.__getitem__, slice("a", None), text="slice indices must be")
    for arguments, named, kind, text in (
            (((0,), "f4"), {}, ValueError, "mmnf_field_create"),
            (((-1,), "f4"), {}, ValueError, "shape is -1: expected 0..2^64 - 1"),
            (((2,) * 9, "f4"), {}, ValueError, "shape has 9 axes: expected 1..8"),
            (((), "f4"), {}, ValueError, "shape has 0 axes"),
            (((2, 2), "f4"), {"tile": (2,)}, ValueError, "tile has 1 axes: expected 2"),
            (((2,), "c8"), {}, TypeError, "dtype complex64: expected one of int8"),
            (((2,), ">f4"), {}, TypeError, "little-endian"),
            (((1 << 62, 2), "f8"), {}, OverflowError, "mmnf_field_create"),
            (((2,), "i1"), {"fill": 300}, OverflowError, "300")):
        raises(kind, mmnf.create, os.path.join(folder, "new"), *arguments, text=text, **named)
        assert not os.path.exists(os.path.join(folder, "new"))
    raises(ValueError, mmnf.open, path, "fast", text="engine is 'fast': expected one of auto")
    raises(TypeError, mmnf.open, path, 2, text="engine is 2")
    raises(ValueError, mmnf.open, "a\0b", text="no null byte")
    raises(ValueError, mmnf.open, path, max_windows=1 << 32, text="max_windows")


def a_cut_file_is_an_error(folder):
    path = os.path.join(folder, "a.npy")
    np.save(path, elements("f4", SHAPE))
    with mmnf.open(path, "mmap") as field:
        os.truncate(path, 5000)
        raises(mmnf.Error, field.__getitem__, 39, text="mmnf_get")
        raises(mmnf.Error, field.gather, [39], text="mmnf_batch_get")


def where_the_bytes_are(folder):
    path, array = made(folder)
    with mmnf.open(path, "mmap", prefetch=False) as field:
        assert sum(field.residency()) >= array.nbytes
        before = field.stats()
        assert field.prefetch() >= array.nbytes
        assert field.prefetch(slice(3, 3)) == 0 and field.prefetch([1, -1]) > 0
        assert field[...].nbytes == array.nbytes
        after = field.stats()
        assert after["gets"] == before["gets"] + 1
        assert after["get_bytes"] == before["get_bytes"] + array.nbytes
        assert field.evict() >= 0 and field.evict(slice(0, 0)) == 0
        assert field.residency(slice(0, 0)) == (0, 0, 0)
        raises(TypeError, field.evict, [1], text="evict: expected integers and slices")
        names = [tier.name for tier in field.tiers()]
        assert "ram" in names and "gpu" in names
        assert all(tier.text and 1 <= tier.level <= 4 for tier in field.tiers())


def import_and_export(folder):
    path, array = made(folder)
    calls = []
    with mmnf.open(path) as field:
        assert field.export(os.path.join(folder, "a.npy"), (slice(None, None, -2), 3),
                            progress=lambda done, total: calls.append((done, total))
                            ) == array[::-2, 3:4].nbytes
        assert same(np.load(os.path.join(folder, "a.npy")), array[::-2, 3:4])
        assert calls[-1] == (array[::-2, 3].nbytes,) * 2
        raises(mmnf.Error, field.export, os.path.join(folder, "a.what"), text="mmnf_export")
        raises(TypeError, field.export, os.path.join(folder, "b.npy"), [1])
        # What is under way goes on when the field is closed.
        other = mmnf.open(path)
        assert other.export(os.path.join(folder, "b.npy"),
                            progress=lambda done, total: (other.close(), gc.collect())
                            ) == array.nbytes
        assert other.closed and same(np.load(os.path.join(folder, "b.npy")), array)
        # What the callback raises comes out, later.
        raises(ZeroDivisionError, field.export, os.path.join(folder, "c.npy"),
               progress=lambda done, total: 1 // 0)
    with mmnf.create(os.path.join(folder, "g"), (100, 30, 20), "f4") as field:
        assert field.import_(os.path.join(folder, "a.npy"), (50, 7, 0)) == array[::2, 3].nbytes
        assert same(field[50:70, 7:8], array[::-2, 3:4]) and not field[:50].any()
        raises(ValueError, field.import_, path, (1, 2), text="at has 2 coordinates: expected 3")
        raises(IndexError, field.import_, path, (61, 0, 0))
        field.resize(200)
        assert field.shape == (200, 30, 20) and not field[100:].any()
    with mmnf.open(os.path.join(folder, "g")) as field:
        assert field.shape == (200, 30, 20)


def threads(folder):
    """Several read one field, one closes it: each gets all its bytes or is told.

    It closes it when each has read, and they read until they are told.
    """
    path, array = made(folder)
    field = mmnf.open(path)
    all_read = threading.Barrier(6)

    def work(seed):
        rng, done = np.random.default_rng(seed), 0
        while True:
            rows = rng.integers(40, size=20)
            try:
                assert same(field.gather(rows), array[rows])
                assert same(field[rows[0], ::2], array[rows[0], ::2])
            except ValueError:
                assert seed and field.closed
                return done
            except BaseException:
                all_read.abort()
                field.close()
                raise
            if not done:
                all_read.wait()
            done += 1
            if done == 200 and not seed:
                field.close()
                return done

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert min(pool.map(work, range(6))) >= 1
    gc.collect()
    assert not is_mapped(path)


def writes_during_a_sync(folder):
    """Of another thread: leaving the block makes them durable, too."""
    path, _ = made(folder)
    real, calls = mmnf._library.lib.mmnf_field_sync, []

    def sync(handle):
        error = real(handle)
        calls.append(handle)
        if len(calls) == 1:
            field[0] = 5
        return -errno.EIO if len(calls) == 3 else error

    mmnf._library.lib.mmnf_field_sync = sync
    try:
        with mmnf.open(path, writable=True) as field:
            field[2] = 4
            field.sync()
        assert len(calls) == 2
        with mmnf.open(path, writable=True) as field:
            field[1] = 6
            raises(OSError, field.sync)
        assert len(calls) == 4
    finally:
        mmnf._library.lib.mmnf_field_sync = real


def _sum(field, key):
    return float(field[key].sum())


def other_processes(folder):
    path, array = made(folder)
    with mmnf.open(path, "direct", l2_bytes=64 << 20, l2_policy="lru") as field:
        again = pickle.loads(pickle.dumps(field))
        assert again.engine == "direct" and same(again[...], array)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(_sum, (field, (3, slice(4, 9)))) == float(array[3, 4:9].sum())


def forked(folder):
    """A child has its own handle from the first use on, and leaves the parent's alone
    also when it ends."""
    program = """if True:
        import asyncio, mmnf, numpy as np, os, sys
        path, engine = sys.argv[1:]
        field = mmnf.open(path, engine, writable=True)
        rows, view = np.arange(0, 40, 3), field.view((1, 1, slice(1, 9)))
        expected, seen = field.gather(rows), view.copy()
        asyncio.run(field.agather(rows))
        field[0, 0] = 5
        child = os.fork()
        assert (field.gather(rows)[1:] == expected[1:]).all()
        assert (asyncio.run(field.agather(rows)) == field[::3]).all()
        assert (view == seen).all()
        if not child:
            assert field.stats()["gets"] <= 3, field.stats()
            field[38, 0] = 7  # no row that the parent compares
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        field[1, 0] = 6
        field.close()
        field = mmnf.open(path)
        print(field[0, 0, 0], field[1, 0, 0], field[38, 0, 0], field[2, 2, 2])
    """
    for name, options in (("f", {}), ("t", {"tile": (10, 30, 20)})):
        path, array = made(folder, name, **options)
        for engine in "mmap", "direct":
            done = subprocess.run(
                [sys.executable, "-c", program, path, engine], stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, check=False,
                env=os.environ | {"PYTHONPATH": os.path.join(SRC, "lib", "python")})
            assert (done.returncode, done.stdout) == (0, f"5.0 6.0 7.0 {array[2, 2, 2]}\n"), (
                f"{engine}: {done.returncode}\n{done.stdout}")
    path, array = made(folder, "p")
    with mmnf.open(path, "direct") as field:
        assert same(field[...], array)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            sums = pool.starmap(_sum, [(field, row) for row in range(40)])
        assert sums == [float(array[row].sum()) for row in range(40)]


def without_ml_dtypes(folder):
    """bfloat16 is two raw bytes then, which no arithmetic mistakes for numbers."""
    program = """if True:
        import sys
        sys.modules["ml_dtypes"] = None
        import mmnf, numpy as np
        with mmnf.create(sys.argv[1], (4, 3), "bfloat16") as field:
            assert field.dtype == "V2" and field.fill.tobytes() == bytes(2)
            values = np.arange(12, dtype="f4").reshape(4, 3)
            bits = (values.view("u4") >> 16).astype("u2")
            field[...] = bits.view("V2")
            assert (field[2:, ::-1].view("u2") == bits[2:, ::-1]).all()
            assert field.view().view("u2").tolist() == bits.tolist()
            try:
                field[0] = 1.5
            except TypeError:
                print("refused")
    """
    path = os.path.join(folder, "f")
    done = subprocess.run([sys.executable, "-c", program, path], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": os.path.join(SRC, "lib", "python")})
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stdout
    import ml_dtypes
    with mmnf.open(path) as field:
        assert same(field[...], np.arange(12).reshape(4, 3).astype(ml_dtypes.bfloat16))


def the_readme(folder):
    """What its README shows runs as it stands."""
    with open(os.path.join(SRC, "lib", "python", "README.md"), encoding="utf-8") as file:
        blocks = re.findall(r"^```python\n(.*?)^```", file.read(), re.MULTILINE | re.DOTALL)
    assert blocks
    rows = [5, 42, 42]
    names = {"rows": rows, "lists": [rows, rows], "batch": np.empty((3, 768), "f4")}
    program = compile("".join(blocks), "README.md", "exec",
                      flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    before = os.getcwd()
    os.chdir(folder)
    try:
        asyncio.run(eval(program, names))
    finally:
        os.chdir(before)
    assert names["field"].closed is False
    assert names["batch"].tolist() == [[0.0] * 768, [1.0] * 768, [1.0] * 768]


def a_petabyte(folder):
    path = os.path.join(folder, "f")
    with mmnf.create(path, (1_000_000, 1_000_000, 256), "f4") as field:
        field[500_000, 123_456] = range(256)
        rows = field[[499_999, 500_000], 123_456, 250:]
        assert rows.tolist() == [[0.0] * 6, [250, 251, 252, 253, 254, 255]]
        assert field.nbytes == 1_024_000_000_000_000
        raises(MemoryError, field.__getitem__, ...)
        view = field.view((500_000, slice(123_455, 123_457)))
        assert view.shape == (2, 256) and not view[0].any()
        assert view[1].tolist() == list(range(256))
        raises(ValueError, field.view, slice(None), text="more than one tile")


def main():
    return fieldlib.main([(test.__name__, test, ()) for test in (
        attributes, views, views_of_many_segments, a_guarded_view,
        views_outlive_the_field, left_open_at_the_end, daemons_at_the_end, dlpack, errors,
        a_cut_file_is_an_error, where_the_bytes_are, import_and_export, threads,
        writes_during_a_sync, other_processes, forked, without_ml_dtypes, the_readme,
        a_petabyte)])


if __name__ == "__main__":
    sys.exit(main())
