# SPDX-License-Identifier: MIT
"""numpy arrays over the mapped memory of a field.

A segment is mapped as a whole, and inside one of its tiles elements lie at fixed
strides; so a box that lies in one tile is an array without a copy.  A field that is
not in tiles has one tile per segment, most often one in all.

A handle may unmap a segment when another one is wanted, unless it is pinned: an array
holds a pin of its segment.
"""
from __future__ import annotations

import errno
import weakref
from typing import Any, Sequence

import numpy as np
from numpy.typing import NDArray

from . import _abi
from ._errors import error
from ._handle import Handle
from ._index import Selection
from ._library import last_error, lib


def _unpin(handle: Handle, address: int) -> None:
    if handle.is_mine:
        lib.mmnf_window_unpin(handle, address)


class _Memory:
    """The base of an array: keeps the field open and the segment mapped."""

    def __init__(self, handle: Handle, start: Sequence[int]) -> None:
        address = lib.mmnf_window_pin(handle, _abi.Axes(*start))
        if not address:
            raise error(errno.EIO, last_error())
        self.address: int = address
        self.__array_interface__: dict[str, Any] = {}
        # At the end of the process arrays may be looked at as late as that.
        weakref.finalize(self, _unpin, handle, address).atexit = False


def _why_not(info: _abi.FieldInfo, selection: Selection) -> str | None:
    """Why a box is no one piece of memory."""
    for axis, (start, count, step) in enumerate(
            zip(selection.start, selection.count, selection.step)):
        tile, last = info.tile_shape[axis], start + (count - 1) * step
        if start // tile != last // tile:
            return (f"axis {axis}: elements {start}..{last} lie in more than one tile of {tile}: "
                    "expected a box inside one; or copy")
    return None


def view(handle: Handle, selection: Selection, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A read-only array; ValueError where there is none without a copy."""
    info = handle.info()
    why = _why_not(info, selection)
    if why:
        raise ValueError(f"no view without a copy: {why}")
    memory = _Memory(handle, selection.start)
    memory.__array_interface__ = {
        "version": 3, "typestr": dtype.str, "shape": tuple(selection.count),
        "strides": tuple(info.stride_bytes[axis] * step
                         for axis, step in enumerate(selection.step)),
        "data": (memory.address, True)}
    return np.asarray(memory).view(dtype).reshape(selection.shape)
