# SPDX-License-Identifier: MIT
"""DLPack capsules of memory of a device, by the C structs of dlpack.h 1.0.

numpy makes those of memory of the host.  What a capsule shows is kept in _alive until
its consumer calls the deleter, or, if nobody took it, until it is collected; both may
happen in any thread.
"""
from __future__ import annotations

import ctypes as c
from typing import Any

import numpy as np

CPU, CUDA = 1, 2  # kDLCPU, kDLCUDA
_VERSION = (1, 0)
_CODES = {"i": 0, "u": 1, "f": 2}
_BFLOAT = 4


class _Tensor(c.Structure):
    _fields_ = [("data", c.c_void_p), ("device_type", c.c_int32), ("device_id", c.c_int32),
                ("ndim", c.c_int32), ("code", c.c_uint8), ("bits", c.c_uint8),
                ("lanes", c.c_uint16), ("shape", c.POINTER(c.c_int64)),
                ("strides", c.POINTER(c.c_int64)), ("byte_offset", c.c_uint64)]


class _Managed(c.Structure):
    _fields_ = [("tensor", _Tensor), ("context", c.c_void_p), ("deleter", c.c_void_p)]


class _Versioned(c.Structure):
    _fields_ = [("major", c.c_uint32), ("minor", c.c_uint32), ("context", c.c_void_p),
                ("deleter", c.c_void_p), ("flags", c.c_uint64), ("tensor", _Tensor)]


_NAMES = {_Managed: b"dltensor", _Versioned: b"dltensor_versioned"}
_alive: dict[int, tuple[Any, ...]] = {}

_api = c.pythonapi
_new = c.PYFUNCTYPE(c.py_object, c.c_void_p, c.c_char_p, c.c_void_p)(("PyCapsule_New", _api))
# Of a capsule that is going: it may not be touched as an object any more.
_is_valid = c.PYFUNCTYPE(c.c_int, c.c_void_p, c.c_char_p)(("PyCapsule_IsValid", _api))
_pointer = c.PYFUNCTYPE(c.c_void_p, c.c_void_p, c.c_char_p)(("PyCapsule_GetPointer", _api))


def _deleter(managed: int) -> None:
    _alive.pop(managed, None)


def _destructor(going: int) -> None:
    """A consumer renames what it takes."""
    for name in _NAMES.values():
        if _is_valid(going, name):
            _alive.pop(_pointer(going, name), None)


_callback = c.CFUNCTYPE(None, c.c_void_p)
_delete, _collect = _callback(_deleter), _callback(_destructor)
# Capsules may go after this module has, at the end of the process.
_api.Py_IncRef(c.py_object(_delete))
_api.Py_IncRef(c.py_object(_collect))


def capsule(owner: Any, pointer: int, device: tuple[int, int], shape: tuple[int, ...],
            dtype: np.dtype[Any], max_version: tuple[int, int] | None) -> Any:
    """A new capsule of an array in C order, which keeps owner."""
    kind = _Versioned if max_version is not None and max_version[0] >= 1 else _Managed
    managed = kind()
    shapes = (c.c_int64 * max(len(shape), 1))(*shape)
    strides = (c.c_int64 * max(len(shape), 1))()
    step = 1
    for axis in range(len(shape) - 1, -1, -1):
        strides[axis] = step
        step *= shape[axis]
    code = _CODES[dtype.kind] if dtype.kind in _CODES else _BFLOAT
    managed.tensor = _Tensor(pointer, *device, len(shape), code, dtype.itemsize * 8, 1,
                             shapes, strides, 0)
    managed.deleter = c.cast(_delete, c.c_void_p).value
    if isinstance(managed, _Versioned):
        managed.major, managed.minor = _VERSION
    address = c.addressof(managed)
    _alive[address] = managed, shapes, strides, owner
    try:
        return _new(address, _NAMES[kind], c.cast(_collect, c.c_void_p))
    except BaseException:
        del _alive[address]
        raise
