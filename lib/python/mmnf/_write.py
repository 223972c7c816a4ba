# SPDX-License-Identifier: MIT
"""field[index] = value: the value as numpy would assign it, box by box."""
from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _abi
from ._handle import Handle
from ._index import BOX, Selection, Shape
from ._library import check, lib

# A value that has to be copied to be packed is copied in pieces of about that.
_PIECE_BYTES = 64 << 20


def _spread(value: Any, dtype: np.dtype[Any], shape: Shape) -> NDArray[Any]:
    """The value in every place it goes to; ValueError if it does not fit."""
    array = np.asarray(value) if isinstance(value, np.ndarray) else np.asarray(value, dtype)
    while array.ndim > len(shape) and array.shape[0] == 1:
        array = array[0]
    try:
        spread = np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"could not broadcast input array from shape {np.shape(value)} "
                         f"into shape {shape}") from None
    return spread


def _write_box(handle: Handle, box: _abi.Box, values: NDArray[Any],
               dtype: np.dtype[Any]) -> None:
    """values has the box's counts for its shape."""
    ready = values.dtype == dtype and values.flags.c_contiguous
    if not ready and values.size * dtype.itemsize > _PIECE_BYTES:
        axis = int(np.argmax(np.array(values.shape) > 1))
        half = values.shape[axis] // 2
        for part, first, number in ((values[(slice(None),) * axis + (slice(half),)], 0, half),
                                    (values[(slice(None),) * axis + (slice(half, None),)], half,
                                     values.shape[axis] - half)):
            piece = _abi.Box.from_buffer_copy(box)
            piece.start[axis] = box.start[axis] + first * box.step[axis]
            piece.count[axis] = number
            _write_box(handle, piece, part, dtype)
        return
    packed = values if ready else np.ascontiguousarray(values.astype(dtype))
    check(lib.mmnf_write(handle, ctypes.byref(box), packed.ctypes.data, packed.nbytes))


def write(handle: Handle, selection: Selection, value: Any, dtype: np.dtype[Any]) -> None:
    """Each box in turn, so that of repeated coordinates the last one stays."""
    values = selection.turn_back(_spread(value, dtype, selection.turned_shape))
    if selection.is_empty:
        return
    if not selection.arrays:
        _write_box(handle, _abi.Box.from_buffer_copy(selection.box()),
                   values.reshape(selection.count), dtype)
        return
    values = values.reshape((selection.nr_boxes, *selection.count))
    number = 0
    for boxes in selection.boxes():
        for at in range(0, boxes.nbytes, BOX.itemsize):
            box = _abi.Box.from_address(boxes.ctypes.data + at)
            _write_box(handle, box, values[number], dtype)
            number += 1
