# SPDX-License-Identifier: MIT
"""numpy arrays over the mapped memory of a field.

A segment is mapped as a whole, and inside one of its tiles elements lie at fixed
strides; so a box that lies in one tile is an array without a copy.  A field that is
not in tiles has one tile per segment, most often one in all.
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


def why_not(info: _abi.FieldInfo, selection: Selection) -> str | None:
    """Why a box is no piece of memory that stays where it is."""
    if info.nr_segments > 1:
        return (f"field has {info.nr_segments} segments, which may be unmapped: expected one; "
                "create it with larger segment_bytes, or copy")
    for axis, (start, count, step) in enumerate(
            zip(selection.start, selection.count, selection.step)):
        tile = info.tile_shape[axis]
        if start // tile != (start + (count - 1) * step) // tile:
            return (f"axis {axis}: elements {start}..{start + (count - 1) * step} lie in more "
                    f"than one tile of {tile}: expected a box inside one; or copy")
    return None


def view(handle: Handle, selection: Selection, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A read-only array; ValueError where there is none without a copy."""
    if selection.is_empty:
        return np.empty(selection.shape, dtype)
    info = handle.info()
    why = why_not(info, selection)
    if why:
        raise ValueError(f"no view without a copy: {why}")
    address = lib.mmnf_activate_tiled(handle.pointer, _abi.Axes(*selection.start))
    if not address:
        raise error(5, last_error())
    strides = tuple(info.stride_bytes[axis] * step
                    for axis, step in enumerate(selection.step))
    raw = np.asarray(_Memory(handle, {
        "version": 3, "typestr": dtype.str, "shape": tuple(selection.count), "strides": strides,
        "data": (address, True)}))
    handle.keep_at_exit()
    return raw.view(dtype).reshape(selection.shape)
