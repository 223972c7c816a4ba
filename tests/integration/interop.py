#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The library and zarr-python read what the other wrote, each type.

Elements are a closed form of their index, made by numpy alone.  KTAP.
"""
import ctypes as c
import os
import shutil
import sys
import tempfile

try:
    import numpy as np
    import zarr
except ImportError as error:
    print("1..0 # SKIP no zarr")
    print(f"no zarr: {error}")
    sys.exit(4)

sys.path.insert(0, os.path.join(os.environ["MMNF_SRC"], "tests", "quickstart"))
import library  # noqa: E402

# enum mmnf_dtype, numpy; zarr-python has no bfloat16.
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "i8", 8: "u8",
         9: "f2", 11: "f4", 12: "f8"}
NR_BOXES = 60
SHAPE = (23, 17, 29)

lib = library.load(os.environ["MMNF_LIB"])
lib.mmnf_write.argtypes = [c.c_void_p] * 3 + [c.c_size_t]
lib.mmnf_write.restype = c.c_ssize_t
lib.mmnf_batch_get.argtypes = [c.c_void_p, c.c_void_p, c.c_size_t, c.c_void_p, c.c_size_t]
lib.mmnf_batch_get.restype = c.c_ssize_t


class CreateOpts(c.Structure):
    _fields_ = [("size", c.c_size_t), ("segment_bytes", c.c_uint64), ("fill", c.c_void_p)]


def check(result):
    assert result >= 0, lib.mmnf_last_error().decode()
    return result


def elements(dtype, shape=SHAPE):
    """Any bits of the type but those of a NaN."""
    index = np.arange(int(np.prod(shape)), dtype="u8")
    mixed = index * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(11)
    if np.dtype(dtype).kind == "f":
        return (mixed % np.uint64(4001)).astype(dtype).reshape(shape) - 2000
    return mixed.astype(dtype).reshape(shape)


def create(path, number, shape, segment_bytes, fill):
    opts = CreateOpts(c.sizeof(CreateOpts), segment_bytes, fill.ctypes.data)
    check(lib.mmnf_field_create(path.encode(), number, len(shape), library.axes(shape),
                                c.byref(opts)))


class Field(library.Field):
    """An open field of any type."""

    def __init__(self, path, dtype, writable=False):
        super().__init__(path, "mmap", writable)
        self.dtype = np.dtype(dtype)

    def write(self, start, values, step=()):
        values = np.ascontiguousarray(values)
        box = library.Box(library.axes(start), library.axes(values.shape),
                          (c.c_int64 * library.NDIM_MAX)(*step))
        done = check(lib.mmnf_write(self.handle, c.byref(box), values.ctypes.data,
                                    values.nbytes))
        assert done == values.nbytes

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


def boxes(rng, shape, backwards):
    """Start, count, step; and numpy's slices of the same."""
    for _ in range(NR_BOXES):
        start, count, step, slices = [], [], [], []
        for n in shape:
            first, stride = int(rng.integers(n)), int(rng.integers(1, 5))
            back = backwards and rng.random() < 0.5
            room = (first if back else n - 1 - first) // stride + 1
            number = int(rng.integers(1, room + 1))
            stride = -stride if back else stride
            stop = first + number * stride
            start.append(first)
            count.append(number)
            step.append(stride)
            slices.append(slice(first, stop if stop >= 0 else None, stride))
        yield start, count, step, tuple(slices)


def same(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def check_ours(path, dtype, expected):
    """Everything in a store that the library reads."""
    rng = np.random.default_rng(7)
    with Field(path, dtype) as field:
        info = field.info()
        assert list(info.shape)[:info.ndim] == list(expected.shape)
        for start, count, step, slices in boxes(rng, expected.shape, True):
            assert same(field.get(start, count, step), expected[slices]), slices
        index = rng.integers(expected.shape[0], size=9)
        assert same(field.records(index, expected.shape), expected[index])


def check_theirs(path, expected):
    rng = np.random.default_rng(8)
    array = zarr.open_array(path, mode="r")
    assert array.shape == expected.shape and array.dtype == expected.dtype
    assert same(np.asarray(array[...]), expected)
    for _, _, _, slices in boxes(rng, expected.shape, False):
        assert same(np.asarray(array[slices]), expected[slices]), slices


def fill_of(dtype):
    return np.array(3 if np.dtype(dtype).kind != "f" else -1.5, dtype)


def zarr_reads_ours(number, dtype, directory):
    """Written in random boxes, segments of three slabs, and the rest is fill."""
    fill, all_of = fill_of(dtype), elements(dtype)
    path = os.path.join(directory, "ours")
    expected = np.full(SHAPE, fill, dtype)
    create(path, number, SHAPE, 3 * 17 * 29 * fill.itemsize, fill)
    with Field(path, dtype, writable=True) as field:
        for start, _, step, slices in boxes(np.random.default_rng(9), (8, 17, 29), True):
            expected[slices] = all_of[slices]
            field.write(start, all_of[slices], step)
    # Axis 0 from 8 on was never written: segments 3 .. 7 are absent.
    assert not os.path.exists(os.path.join(path, "c", "3"))
    check_theirs(path, expected)
    check_ours(path, dtype, expected)


def ours_reads_zarr(dtype, directory):
    """Chunks of whole slabs, rows, parts of rows or boxes; both kinds of keys."""
    expected = elements(dtype)
    expected[5:11] = fill_of(dtype)
    for number, (chunks, keys) in enumerate((
            ((4, 17, 29), {"name": "default", "separator": "/"}),
            ((1, 5, 29), {"name": "default", "separator": "."}),
            ((1, 1, 8), {"name": "v2", "separator": "."}),
            ((5, 4, 7), {"name": "default", "separator": "/"}),
            ((30, 17, 29), {"name": "v2", "separator": "/"}))):
        path = os.path.join(directory, f"theirs{number}")
        array = zarr.create_array(path, shape=SHAPE, chunks=chunks, dtype=dtype,
                                  fill_value=fill_of(dtype)[()], compressors=None,
                                  filters=None, chunk_key_encoding=keys,
                                  config={"write_empty_chunks": False})
        array[...] = expected
        check_ours(path, dtype, expected)
        # And what the library then writes, zarr reads.
        after = expected.copy()
        after[::-3, 2, :] = expected[0, 0, 0]
        with Field(path, dtype, writable=True) as field:
            field.write((22, 2, 0), after[::-3, 2:3, :], (-3, 1, 1))
        check_theirs(path, after)
        check_ours(path, dtype, after)


def refuses_what_zarr_compresses(directory):
    path = os.path.join(directory, "gzip")
    zarr.create_array(path, shape=(10,), chunks=(10,), dtype="f4")
    try:
        library.Field(path)
    except OSError as error:
        assert "codecs" in str(error), error
        return
    raise AssertionError("a compressed store was opened")


def special_fills(directory):
    for number, value in enumerate((np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38)):
        for kind, dtype in ((11, "f4"), (12, "f8")):
            fill = np.array(value, dtype)
            path = os.path.join(directory, f"{dtype}-{number}")
            create(path, kind, (4, 5), 0, fill)
            check_theirs(path, np.full((4, 5), fill))
            theirs = path + "-zarr"
            zarr.create_array(theirs, shape=(4, 5), chunks=(2, 5), dtype=dtype,
                              fill_value=fill[()], compressors=None)
            check_ours(theirs, dtype, np.full((4, 5), fill))


def main():
    tests = [(f"{dtype}_zarr_reads_ours", zarr_reads_ours, (number, dtype))
             for number, dtype in TYPES.items()]
    tests += [(f"{dtype}_ours_reads_zarr", ours_reads_zarr, (dtype,))
              for dtype in TYPES.values()]
    tests += [(fn.__name__, fn, ()) for fn in (refuses_what_zarr_compresses, special_fills)]
    failed = 0
    print(f"KTAP version 1\n1..{len(tests)}")
    for number, (name, fn, args) in enumerate(tests, 1):
        directory = tempfile.mkdtemp(prefix="mmnf-interop-")
        try:
            fn(*args, directory)
            print(f"ok {number} {name}", flush=True)
        except (AssertionError, OSError, ValueError) as error:
            failed += 1
            print(f"# {type(error).__name__}: {error}\nnot ok {number} {name}", flush=True)
        finally:
            shutil.rmtree(directory)
    return int(bool(failed))


sys.exit(main())
