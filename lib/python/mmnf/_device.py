# SPDX-License-Identifier: MIT
"""Arrays in the memory of a CUDA device, as Field.gather_device() gives them.

Streams are integers: a CUstream, or, as in DLPack, 1 for the legacy default stream
and 2 for that of the thread.  None is no stream: the call waits.
"""
from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _dlpack
from ._library import check, lib

_LEGACY = 1


def stream_of(stream: int | None) -> int | None:
    """As the library takes it: PyTorch and CuPy call the default stream 0, which is
    "wait" there."""
    if stream is None:
        return None
    if not isinstance(stream, int) or isinstance(stream, bool) or not 0 <= stream < 1 << 64:
        raise ValueError(f"stream is {stream!r}: expected None or a CUstream as an integer")
    return stream or _LEGACY


class _Memory:
    """Memory of a device; given back when nobody holds it any more, after the work
    that fills it."""

    def __init__(self, device: int, nbytes: int, stream: int | None) -> None:
        out = ctypes.c_uint64()
        check(lib.mmnf_device_alloc(ctypes.byref(out), device, nbytes))
        self.pointer = out.value
        # At the end of the process others may still look at it.
        weakref.finalize(self, lib.mmnf_device_free, out.value, stream).atexit = False


class DeviceArray:
    """An array in C order in the memory of a CUDA device.

    Made for others to take: by DLPack, as torch.from_dlpack(array) does, or by
    __cuda_array_interface__, as cupy.asarray(array).  Both share the memory and keep
    it.  to_host() copies it out.

    shape, ndim, size, nbytes, dtype: as numpy's.  device: CUDA's number.
    pointer: a CUdeviceptr.  stream: of the work that fills it, which must live as long
    as this; None: it is full.
    """

    def __init__(self, device: int, shape: tuple[int, ...], dtype: np.dtype[Any],
                 stream: int | None) -> None:
        self.device = device
        self.shape = shape
        self.dtype = dtype
        self.stream = stream
        self._memory = _Memory(device, max(self.nbytes, 1), stream)

    @property
    def pointer(self) -> int:
        return self._memory.pointer

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        number = 1
        for extent in self.shape:
            number *= extent
        return number

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __repr__(self) -> str:
        return (f"<mmnf.DeviceArray {list(self.shape)} {self.dtype.name}, device {self.device}, "
                f"{'full' if self.stream is None else f'filled in stream {self.stream:#x}'}>")

    def to_host(self) -> NDArray[Any]:
        """A copy in memory of the host; waits for it."""
        out = np.empty(self.shape, self.dtype)
        check(lib.mmnf_device_read(self.device, out.ctypes.data, self.pointer, self.nbytes,
                                   self.stream))
        return out

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3: stream is what a consumer has to wait for."""
        return {"shape": self.shape, "typestr": self.dtype.str, "strides": None, "version": 3,
                "data": (self.pointer if self.size else 0, False), "stream": self.stream}

    def __dlpack_device__(self) -> tuple[int, int]:
        """(2, device): kDLCUDA."""
        return _dlpack.CUDA, self.device

    def __dlpack__(self, *, stream: int | None = None,
                   max_version: tuple[int, int] | None = None,
                   dl_device: tuple[int, int] | None = None, copy: bool | None = None) -> Any:
        """A DLPack capsule that shares the memory.

        stream: where the consumer will use it, made to wait for what fills it; None:
            the legacy default stream; -1: nobody waits
        dl_device: (1, 0) for a copy in memory of the host
        """
        if dl_device is not None and tuple(dl_device) == (_dlpack.CPU, 0):
            if copy is False:
                raise ValueError("memory of a device is not the host's without a copy")
            return self.to_host().__dlpack__(max_version=max_version)
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(f"array is on device {self.__dlpack_device__()}: expected that or "
                              f"(1, 0) for dl_device, not {tuple(dl_device)}")
        if copy:
            raise BufferError("no copy on the device: copy what was taken")
        if stream == 0:
            raise ValueError("stream is 0, which DLPack leaves open: expected 1 for the legacy "
                             "default stream, 2 for the thread's, -1 for no wait")
        if self.stream is not None and stream != -1:
            consumer = stream_of(stream) or _LEGACY
            check(lib.mmnf_device_order(self.device, self.stream, consumer))
        return _dlpack.capsule(self._memory, self.pointer, self.__dlpack_device__(), self.shape,
                               self.dtype, max_version)


def address_of(out: Any, nbytes: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Where an array of somebody else is, if the result fits it exactly."""
    try:
        found = out.__cuda_array_interface__
    except AttributeError:
        raise TypeError(f"out is {type(out).__name__}: expected an array of a device, with "
                        "__cuda_array_interface__") from None
    if tuple(found["shape"]) != shape or np.dtype(found["typestr"]).itemsize != dtype.itemsize:
        raise ValueError(f"out is {found['typestr']} {list(found['shape'])}: expected "
                         f"{dtype.str} {list(shape)}")
    pointer, read_only = found["data"]
    strides = found.get("strides")
    if strides is not None:
        step = dtype.itemsize
        for axis in range(len(shape) - 1, -1, -1):
            if shape[axis] > 1 and strides[axis] != step:
                raise ValueError("out: expected C order")
            step *= shape[axis]
    if read_only:
        raise ValueError("out: expected writable memory")
    if not pointer and nbytes:
        raise ValueError("out: its address is 0")
    return int(pointer)
