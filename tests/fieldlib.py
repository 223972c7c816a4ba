# SPDX-License-Identifier: MIT
"""What the tests share that compare the library with other programs: fields of
any type and engine, random boxes, and running the tests as KTAP.

Elements are a closed form of their index, made by numpy alone.
"""
import ctypes as c
import errno
import os
import shutil
import sys
import tempfile
import traceback

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "quickstart"))
import library  # noqa: E402

# enum mmnf_dtype and numpy's types.
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "i8", 8: "u8",
         9: "f2", 11: "f4", 12: "f8"}
BF16 = 10
MMAP = library.ENGINES["mmap"]
NR_BOXES = 20

lib = library.load(os.environ["MMNF_LIB"])
lib.mmnf_write.argtypes = [c.c_void_p] * 3 + [c.c_size_t]
lib.mmnf_write.restype = c.c_ssize_t
lib.mmnf_batch_get.argtypes = [c.c_void_p, c.c_void_p, c.c_size_t, c.c_void_p, c.c_size_t]
lib.mmnf_batch_get.restype = c.c_ssize_t
lib.mmnf_activate_tiled.argtypes = [c.c_void_p, c.c_void_p]
lib.mmnf_activate_tiled.restype = c.c_void_p
lib.mmnf_export.argtypes = [c.c_void_p, c.c_void_p, c.c_char_p, c.c_char_p] + [c.c_void_p] * 2
lib.mmnf_export.restype = c.c_ssize_t


class CreateOpts(c.Structure):
    _fields_ = [("size", c.c_size_t), ("segment_bytes", c.c_uint64), ("fill", c.c_void_p),
                ("tile", c.c_void_p), ("checksums", c.c_uint32), ("reserved", c.c_uint32)]


def check(result):
    if result < 0:
        raise OSError(-result, lib.mmnf_last_error().decode())
    return result


def elements(dtype, shape):
    """Any bits of the type but those of a NaN."""
    index = np.arange(int(np.prod(shape)), dtype="u8")
    mixed = index * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(11)
    if np.dtype(dtype).kind not in "iu":
        return ((mixed % np.uint64(4001)).astype("f4") - 2000).astype(dtype).reshape(shape)
    return mixed.astype(dtype).reshape(shape)


def create(path, number, shape, segment_bytes=0, fill=None, tile=None, checksums=False):
    tile = library.axes(tile) if tile else None
    opts = CreateOpts(c.sizeof(CreateOpts), segment_bytes,
                      fill.ctypes.data if fill is not None else None,
                      c.cast(tile, c.c_void_p) if tile else None, int(checksums), 0)
    check(lib.mmnf_field_create(path.encode(), number, len(shape), library.axes(shape),
                                c.byref(opts)))


class Field(library.Field):
    """An open field of any type."""

    def __init__(self, path, dtype, writable=False, engine=MMAP):
        opts = library.OpenOpts(c.sizeof(library.OpenOpts), engine, int(writable), 0, 0)
        self.handle = c.c_void_p()
        check(lib.mmnf_field_open(c.byref(self.handle), path.encode(), c.byref(opts)))
        self.dtype = np.dtype(dtype)

    def write(self, start, values, step=()):
        values = np.ascontiguousarray(values)
        box = library.Box(library.axes(start), library.axes(values.shape),
                          (c.c_int64 * library.NDIM_MAX)(*step))
        done = check(lib.mmnf_write(self.handle, c.byref(box), values.ctypes.data,
                                    values.nbytes))
        assert done == values.nbytes

    def sync(self):
        check(lib.mmnf_field_sync(self.handle))

    def get(self, start, count, step=()):
        out = np.empty(count, self.dtype)
        box = library.Box(library.axes(start), library.axes(count),
                          (c.c_int64 * library.NDIM_MAX)(*step))
        done = check(lib.mmnf_get(self.handle, c.byref(box), out.ctypes.data, out.nbytes))
        assert done == out.nbytes
        return out

    def records(self, index, shape):
        index = np.array(index, "u8")
        out = np.empty((len(index), *shape[1:]), self.dtype)
        check(lib.mmnf_batch_get(self.handle, index.ctypes.data, len(index),
                                 out.ctypes.data, out.nbytes))
        return out

    def element(self, coord):
        """By a pointer."""
        at = library.axes(coord)
        address = lib.mmnf_activate_tiled(self.handle, c.byref(at))
        if not address:
            raise OSError(lib.mmnf_last_error().decode())
        return np.frombuffer(c.string_at(address, self.dtype.itemsize), self.dtype)[0]

    def take(self, source, at=None):
        """Import; the bytes written."""
        return check(lib.mmnf_import(self.handle, source.encode(),
                                     library.axes(at) if at else None, None, None))

    def give(self, path, form=None, start=None, count=None):
        """Export the whole, or a box."""
        box = library.Box(library.axes(start), library.axes(count)) if start else None
        return check(lib.mmnf_export(self.handle, c.byref(box) if box else None,
                                     path.encode(), form.encode() if form else None,
                                     None, None))


def boxes(rng, shape, backwards, number=NR_BOXES):
    """Start, count, step; and numpy's slices of the same."""
    for _ in range(number):
        start, count, step, slices = [], [], [], []
        for n in shape:
            first, stride = int(rng.integers(n)), int(rng.integers(1, 5))
            back = backwards and rng.random() < 0.5
            room = (first if back else n - 1 - first) // stride + 1
            many = int(rng.integers(1, room + 1))
            stride = -stride if back else stride
            stop = first + many * stride
            start.append(first)
            count.append(many)
            step.append(stride)
            slices.append(slice(first, stop if stop >= 0 else None, stride))
        yield start, count, step, tuple(slices)


def same(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def engines(path):
    """Those that can be used here, by opening with each."""
    for engine in range(1, 9):
        try:
            with Field(path, "u1", engine=engine):
                yield engine
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise


def check_ours(path, dtype, expected, engine=None):
    """Everything in a field, by copies and by pointers, with each engine."""
    for number in [engine] if engine else engines(path):
        rng = np.random.default_rng(7)
        with Field(path, dtype, engine=number) as field:
            info = field.info()
            assert list(info.shape)[:info.ndim] == list(expected.shape)
            whole = field.get([0] * expected.ndim, expected.shape)
            assert same(whole, np.ascontiguousarray(expected)), "the whole"
            for start, count, step, slices in boxes(rng, expected.shape, True):
                assert same(field.get(start, count, step), expected[slices]), slices
                last = [s + (n - 1) * d for s, n, d in zip(start, count, step)]
                for coord in start, last:
                    value = expected[tuple(coord)]
                    assert field.element(coord).tobytes() == value.tobytes(), coord
            index = rng.integers(expected.shape[0], size=9)
            assert same(field.records(index, expected.shape), expected[index])


def raises(kind, function, *arguments, text="", **named):
    """The exception that the call must raise, with the text in it."""
    try:
        got = function(*arguments, **named)
    except kind as error:
        assert text in str(error), f"{text!r} is not in: {error}"
        return error
    raise AssertionError(f"{function}{arguments}: {got} instead of {kind}")


def refused(path, word):
    try:
        with Field(path, "u1"):
            pass
    except OSError as error:
        assert word in str(error), error
        return
    raise AssertionError(f"{path} was opened")


def main(tests):
    """Runs (name, function, arguments), each with a scratch folder for its last
    argument; prints KTAP."""
    failed = 0
    print(f"KTAP version 1\n1..{len(tests)}")
    for number, (name, function, arguments) in enumerate(tests, 1):
        directory = tempfile.mkdtemp(prefix="mmnf-interop-")
        try:
            function(*arguments, directory)
            print(f"ok {number} {name}", flush=True)
        except Exception:  # whatever a peer raises is a failed test
            failed += 1
            for line in traceback.format_exc().splitlines():
                print(f"# {line}")
            print(f"not ok {number} {name}", flush=True)
        finally:
            shutil.rmtree(directory)
    return int(bool(failed))
