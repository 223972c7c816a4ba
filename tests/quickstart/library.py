# SPDX-License-Identifier: MIT
"""libmmnf from Python: just what the quickstart needs of include/mmnf.h."""
import ctypes as c
import os

import numpy as np

NDIM_MAX = 8
F32 = 11
ENGINES = {"auto": 0, "device": 1, "mmap": 2}
Axes = c.c_uint64 * NDIM_MAX


class OpenOpts(c.Structure):
    _fields_ = [("size", c.c_size_t), ("engine", c.c_uint32), ("writable", c.c_uint32),
                ("max_windows", c.c_uint32), ("prefetch_off", c.c_uint32)]


class Box(c.Structure):
    _fields_ = [("start", Axes), ("count", Axes), ("step", c.c_int64 * NDIM_MAX)]


class Info(c.Structure):
    _fields_ = [("size", c.c_size_t), ("dtype", c.c_uint32), ("ndim", c.c_uint32),
                ("engine", c.c_uint32), ("element_bytes", c.c_uint32),
                ("shape", Axes), ("segment_shape", Axes), ("total_bytes", c.c_uint64),
                ("segment_bytes", c.c_uint64), ("nr_segments", c.c_uint64),
                ("fill", c.c_uint8 * 8), ("engine_reason", c.c_char * 128),
                ("tile_shape", Axes), ("stride_bytes", c.c_int64 * NDIM_MAX),
                ("data_offset_bytes", c.c_uint64), ("format", c.c_char * 16)]


class Stats(c.Structure):
    _fields_ = [("size", c.c_size_t)] + [(name, c.c_uint64) for name in (
        "gets", "get_bytes", "windows_mapped", "windows_unmapped", "accesses", "hits",
        "late", "misses", "prefetched_pages", "used_pages", "wasted_pages",
        "pending_pages")]


def load(path):
    lib = c.CDLL(path)
    lib.mmnf_last_error.restype = c.c_char_p
    lib.mmnf_field_create.argtypes = [c.c_char_p, c.c_int, c.c_uint, c.c_void_p, c.c_void_p]
    lib.mmnf_field_open.argtypes = [c.c_void_p, c.c_char_p, c.c_void_p]
    lib.mmnf_activate_slow.restype = c.c_void_p
    lib.mmnf_activate_slow.argtypes = [c.c_void_p, c.c_uint64, c.c_uint64]
    lib.mmnf_field_close.argtypes = [c.c_void_p]
    lib.mmnf_field_close.restype = None
    for name, types in (("mmnf_field_info", 2), ("mmnf_field_stats", 2),
                        ("mmnf_field_sync", 1)):
        getattr(lib, name).argtypes = [c.c_void_p] * types
    for name, types in (("mmnf_get", [c.c_void_p] * 3 + [c.c_size_t]),
                        ("mmnf_import", [c.c_void_p, c.c_char_p] + [c.c_void_p] * 3)):
        getattr(lib, name).argtypes = types
        getattr(lib, name).restype = c.c_ssize_t
    return lib


_lib = load(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..",
                         "build", "libmmnf.so"))


def _check(result):
    if result < 0:
        raise OSError(-result, _lib.mmnf_last_error().decode())
    return result


def axes(values):
    return Axes(*values)


def create(path, shape):
    _check(_lib.mmnf_field_create(path.encode(), F32, len(shape), axes(shape), None))


class Field:
    """An open float32 field."""

    def __init__(self, path, engine="auto", writable=False):
        opts = OpenOpts(c.sizeof(OpenOpts), ENGINES[engine], int(writable), 0, 0)
        self.handle = c.c_void_p()
        _check(_lib.mmnf_field_open(c.byref(self.handle), path.encode(), c.byref(opts)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        _lib.mmnf_field_close(self.handle)

    def info(self):
        info = Info(c.sizeof(Info))
        _check(_lib.mmnf_field_info(self.handle, c.byref(info)))
        return info

    def stats(self):
        stats = Stats(c.sizeof(Stats))
        _check(_lib.mmnf_field_stats(self.handle, c.byref(stats)))
        return stats

    def add(self, source, at):
        """Import an array file; the bytes written."""
        done = _check(_lib.mmnf_import(self.handle, source.encode(), axes(at), None, None))
        _check(_lib.mmnf_field_sync(self.handle))
        return done

    def get(self, start, count, step=()):
        """A box as an array."""
        box = Box(axes(start), axes(count), (c.c_int64 * NDIM_MAX)(*step))
        out = np.empty(count, "<f4")
        got = _check(_lib.mmnf_get(self.handle, c.byref(box),
                                   out.ctypes.data_as(c.c_void_p), out.nbytes))
        if got != out.nbytes:
            raise OSError(f"mmnf_get: {got} of {out.nbytes} bytes")
        return out

    def pointer(self, segment, offset):
        """Address of a byte of a segment: what mmnf_activate() comes to."""
        address = _lib.mmnf_activate_slow(self.handle, segment, offset)
        if not address:
            raise OSError(_lib.mmnf_last_error().decode())
        return address

    def mapped(self, start, count):
        """A box as arrays over the mapping itself, one per segment on axis 0."""
        info, at, left = self.info(), start[0], count[0]
        chunk = list(info.segment_shape)[:info.ndim]
        stride = [info.element_bytes] * info.ndim
        for axis in range(info.ndim - 2, -1, -1):
            stride[axis] = stride[axis + 1] * chunk[axis + 1]
        if chunk[1:] != list(info.shape)[1:info.ndim]:
            raise ValueError("mapped: segments are expected to split axis 0 only")
        while left:
            number = min(left, chunk[0] - at % chunk[0])
            first = (at % chunk[0], *start[1:])
            offset = sum(f * s for f, s in zip(first, stride))
            shape = (number, *count[1:])
            length = sum((n - 1) * s for n, s in zip(shape, stride)) + info.element_bytes
            memory = (c.c_char * length).from_address(self.pointer(at // chunk[0], offset))
            yield np.ndarray(shape, "<f4", memory, 0, stride)
            at, left = at + number, left - number
