# SPDX-License-Identifier: MIT
"""The GPU tier of a field: the methods of Field that need a CUDA device.

Without a device each raises mmnf.Error with errno ENODEV, whose text says what is
missing; Field.tiers() says the same.
"""
from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from . import _abi
from ._device import DeviceArray, address_of, stream_of
from ._handle import Handle
from ._index import Selection, parse, parse_box
from ._library import check, choice, lib, unsigned


class GpuTier:
    """Base of Field."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def _open(self) -> Handle:
        raise NotImplementedError

    def gpu_enable(self, device: int = 0, *, tile_bytes: int = 0, budget_bytes: int = 0,
                   path: str | None = None) -> None:
        """Keep tiles of the field in the memory of a CUDA device, from now on.

        device: CUDA's number; once for each
        tile_bytes: what comes and goes at once, a power of two from 4 KiB to 2 MiB; 0:
            of a record, at most 64 KiB
        budget_bytes: most memory of the device; 0: half of what is free
        path: "copy" or "kernel"; None: whichever is faster
        """
        opts = _abi.GpuOpts(ctypes.sizeof(_abi.GpuOpts), unsigned("device", device, 32),
                            unsigned("tile_bytes", tile_bytes, 32),
                            unsigned("budget_bytes", budget_bytes),
                            choice("path", path, _abi.GPU_PATHS))
        check(lib.mmnf_gpu_enable(self._open(), ctypes.byref(opts)))

    def gather_device(self, index: Any, out: Any = None, *, device: int = 0,
                      stream: int | None = None) -> Any:
        """Records or a box, in the memory of a device where the tier is on.

        index: integers along axis 0, for whole records; or integers and slices, for
            one box
        out: receives them: an array of the device with __cuda_array_interface__, of
            PyTorch, CuPy or this package, in C order, with the shape that numpy would
            give and elements of the same size; None: a new DeviceArray on device
        stream: the work is queued there, and the call returns when that is done; a
            CUstream as an integer, 0 for the default stream.  None: returns when the
            result is there

        Returns out.
        """
        handle = self._open()
        selection, chosen = self._chosen(index)
        queue = stream_of(stream)
        shape = selection.shape
        nbytes = int(np.prod(shape, dtype=object)) * self.dtype.itemsize
        if out is None:
            out = DeviceArray(unsigned("device", device, 32), shape, self.dtype, queue)
            pointer = out.pointer
        else:
            pointer = address_of(out, nbytes, shape, self.dtype)
        if nbytes:
            check(lib.mmnf_batch_get_device(handle, ctypes.byref(chosen), pointer,
                                            nbytes, queue))
        return out

    def _chosen(self, index: Any) -> tuple[Selection, _abi.Selection]:
        """The second points into the first and what hangs on it."""
        selection = parse(index, self.shape)
        chosen = _abi.Selection(ctypes.sizeof(_abi.Selection))
        records = selection.records(self.shape)
        if records is not None and not selection.lead_to:
            chosen.index, chosen.nr_index = records.ctypes.data, records.size
            chosen.keep = records
        elif selection.arrays or selection.nr_boxes != 1:
            if not selection.is_empty:
                raise TypeError("index: expected one array of whole records, or integers and "
                                "slices")
        else:
            chosen.keep = _abi.Box.from_buffer_copy(selection.box())
            chosen.box = ctypes.addressof(chosen.keep)
        return selection, chosen

    def prefetch_device(self, index: Any, device: int = 0) -> int:
        """Start bringing records or a box to a device, and do not wait.

        Returns the tiles that were queued or there already.
        """
        handle = self._open()
        selection, chosen = self._chosen(index)
        if selection.is_empty:
            return 0
        return check(lib.mmnf_prefetch_device(handle, unsigned("device", device, 32),
                                              ctypes.byref(chosen)))

    def gpu_forget(self, index: Any = ...) -> int:
        """Drop a box from all devices, for instance because another process wrote it.

        Returns the bytes dropped.
        """
        handle = self._open()
        selection = parse_box(index, self.shape, "gpu_forget")
        if selection.is_empty:
            return 0
        return check(lib.mmnf_gpu_forget(handle, selection.box()))

    def gpu_stats(self, device: int = 0) -> dict[str, int]:
        """Counters of the tier on one device, by the names of struct mmnf_gpu_stats."""
        out = _abi.GpuStats(ctypes.sizeof(_abi.GpuStats))
        check(lib.mmnf_gpu_stats(self._open(), unsigned("device", device, 32),
                                 ctypes.byref(out)))
        return {name: getattr(out, name) for name, *_ in out._fields_ if name != "size"}
