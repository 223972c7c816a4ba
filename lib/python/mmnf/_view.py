# SPDX-License-Identifier: MIT
"""numpy arrays over the mapped memory of a field.

A segment is mapped as a whole, and inside one of its tiles elements lie at fixed
strides; so a box that lies in one tile is an array without a copy.  A field that is
not in tiles has one tile per segment, most often one in all.

A handle may unmap a segment when another one is wanted.  So the handle of a view is one
by which no second segment is: that of the field, where it has but one, else a handle of
the segment's own.
"""
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _abi
from ._errors import error
from ._handle import Handle
from ._index import Selection
from ._library import last_error, lib


class _Memory:
    """The base of an array: keeps the field open."""

    def __init__(self, handle: Handle, interface: dict[str, Any]) -> None:
        self.handle = handle
        self.__array_interface__ = interface


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
    address = lib.mmnf_activate_tiled(handle, _abi.Axes(*selection.start))
    if not address:
        raise error(5, last_error())
    strides = tuple(info.stride_bytes[axis] * step
                    for axis, step in enumerate(selection.step))
    raw = np.asarray(_Memory(handle, {
        "version": 3, "typestr": dtype.str, "shape": tuple(selection.count), "strides": strides,
        "data": (address, True)}))
    handle.keep_at_exit()
    return raw.view(dtype).reshape(selection.shape)
