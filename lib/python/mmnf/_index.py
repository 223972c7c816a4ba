# SPDX-License-Identifier: MIT
"""numpy's index expressions as boxes.

parse() takes what stands between the brackets and the shape of a field, and gives
a Selection: which boxes to read, how the packed result is to be turned.  Nothing
is read here.  The meaning is numpy's, with its exceptions: IndexError where a
coordinate is outside or no index, TypeError where a slice has no numbers.

Integers, slices, None and Ellipsis make one box.  Where an integer array or a mask
is among them, each element of the arrays, broadcast against each other, makes a
box; an integer beside an array counts as one of them.  The axes of the broadcast
stand first in the result, or, where all arrays are neighbours, in their place.
"""
from __future__ import annotations

import operator
import struct
from typing import Any, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from . import _abi

BOX = np.dtype([("start", "<u8", _abi.NDIM_MAX), ("count", "<u8", _abi.NDIM_MAX),
                ("step", "<i8", _abi.NDIM_MAX)])
_BOXES = 16384  # made at a time: 3 MiB
_pack = struct.Struct(f"={2 * _abi.NDIM_MAX}Q{_abi.NDIM_MAX}q").pack
_ZEROES, _ONES = (0,) * _abi.NDIM_MAX, (1,) * _abi.NDIM_MAX

Shape = tuple[int, ...]


class Selection:
    """What an index means for a field of one shape.

    start, count, step: of the box, per axis of the field; of each box, where there
        are arrays
    arrays: (axis, coordinates) that differ from box to box, each of nr_boxes
        elements; count is 1 on these axes
    shape: of the result as it is read: the broadcast of the arrays, then the slices
        and new axes
    nr_lead, lead_to: so many first axes of that move there
    is_scalar: the result is one element and no array
    """

    __slots__ = ("start", "count", "step", "shape", "arrays", "nr_boxes", "nr_lead",
                 "lead_to", "is_scalar")

    def __init__(self, start: Sequence[int], count: Sequence[int], step: Sequence[int],
                 shape: Shape, arrays: tuple[tuple[int, NDArray[np.int64]], ...] = (),
                 nr_boxes: int = 1, nr_lead: int = 0, lead_to: int = 0,
                 is_scalar: bool = False) -> None:
        self.start, self.count, self.step, self.shape = start, count, step, shape
        self.arrays, self.nr_boxes = arrays, nr_boxes
        self.nr_lead, self.lead_to, self.is_scalar = nr_lead, lead_to, is_scalar

    @property
    def is_empty(self) -> bool:
        return self.nr_boxes == 0 or 0 in self.count

    def box(self) -> bytes:
        """The one box, where there are no arrays, as a struct mmnf_box."""
        rest = _ZEROES[len(self.start):]
        return _pack(*self.start, *rest, *self.count, *rest, *self.step, *rest)

    def boxes(self) -> Iterator[NDArray[Any]]:
        """All boxes in order, some thousands at a time, as an array of BOX."""
        for first in range(0, self.nr_boxes, _BOXES):
            made = np.zeros(min(_BOXES, self.nr_boxes - first), BOX)
            ndim = len(self.start)
            made["start"][:, :ndim] = self.start
            made["count"][:, :ndim] = self.count
            made["step"][:, :ndim] = self.step
            for axis, values in self.arrays:
                made["start"][:, axis] = values[first:first + _BOXES]
            yield made

    def records(self, shape: Shape) -> NDArray[np.uint64] | None:
        """Indices along axis 0, where whole records are selected by an array."""
        if len(self.arrays) != 1 or self.arrays[0][0] != 0:
            return None
        whole = all(self.count[axis] == n and (self.step[axis] == 1 or n == 1)
                    for axis, n in enumerate(shape) if axis)
        return np.ascontiguousarray(self.arrays[0][1]).view(np.uint64) if whole else None

    def turn(self, read: NDArray[Any]) -> NDArray[Any]:
        """From the order of reading to numpy's."""
        if not self.lead_to:
            return read
        lead = range(self.nr_lead)
        return np.moveaxis(read, lead, [self.lead_to + axis for axis in lead])

    def turn_back(self, values: NDArray[Any]) -> NDArray[Any]:
        """From numpy's order to that of reading."""
        if not self.lead_to:
            return values
        lead = range(self.nr_lead)
        return np.moveaxis(values, [self.lead_to + axis for axis in lead], lead)

    @property
    def turned_shape(self) -> Shape:
        """Shape of the result in numpy's order."""
        lead, rest = self.shape[:self.nr_lead], self.shape[self.nr_lead:]
        return rest[:self.lead_to] + lead + rest[self.lead_to:]


def _outside(value: int, axis: int, size: int) -> IndexError:
    return IndexError(f"index {value} is out of bounds for axis {axis} with size {size}")


def _coordinate(value: int, axis: int, size: int) -> int:
    if not -size <= value < size:
        raise _outside(value, axis, size)
    return value + size if value < 0 else value


def _not_an_index() -> IndexError:
    return IndexError("only integers, slices (`:`), ellipsis (`...`), newaxis (`None`) and "
                      "integer or boolean arrays are valid indices")


def _as_index(item: Any) -> Any:
    """slice, None, Ellipsis, int, or an array of bool or of integers."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    if isinstance(item, (bool, np.bool_)):
        return np.asarray(item)
    if not isinstance(item, np.ndarray) or item.ndim == 0:
        try:
            return operator.index(item)
        except TypeError:
            pass
    array = np.asarray(item)
    if array.size == 0 and not isinstance(item, np.ndarray):
        array = array.astype(np.int64)
    if array.dtype.kind not in "biu":
        raise _not_an_index()
    return array


def _nr_axes(item: Any) -> int:
    """So many axes of the field an item takes."""
    if item is None or item is Ellipsis:
        return 0
    if isinstance(item, np.ndarray) and item.dtype.kind == "b":
        return item.ndim
    return 1


def _expand(key: Any, ndim: int) -> list[Any]:
    """The items, with the Ellipsis written out: it stands as a list of slices, also
    where it is empty, because it parts arrays all the same."""
    items = [_as_index(item) for item in (key if isinstance(key, tuple) else (key,))]
    given = sum(map(_nr_axes, items))
    if given > ndim:
        raise IndexError(f"too many indices for field: field is {ndim}-dimensional, but "
                         f"{given} were indexed")
    rest = [slice(None)] * (ndim - given)
    dots = [at for at, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if not dots:
        return items + rest
    return items[:dots[0]] + [rest] + items[dots[0] + 1:]


def _mask(mask: NDArray[np.bool_], axis: int, shape: Shape) -> list[NDArray[Any]]:
    """The coordinates where a mask of one or several axes is true."""
    for number, size in enumerate(mask.shape):
        if size != shape[axis + number]:
            raise IndexError(
                f"boolean index did not match field along axis {axis + number}; size of axis "
                f"is {shape[axis + number]} but size of corresponding boolean axis is {size}")
    return list(np.nonzero(mask))


def _coordinates(values: NDArray[Any], axis: int, size: int) -> NDArray[np.int64]:
    """Indices along an axis, checked, none negative."""
    for extreme in int(values.min()), int(values.max()):
        if not -size <= extreme < size:
            raise _outside(extreme, axis, size)
    signed = values.astype(np.int64)
    return np.where(signed < 0, signed + size, signed)


class _Parser:
    """Walks the items once; see the head of the file."""

    def __init__(self, shape: Shape) -> None:
        ndim = len(shape)
        self.shape = shape
        self.axis = 0
        self.start, self.count, self.step = [0] * ndim, [1] * ndim, [1] * ndim
        self.rest: list[int] = []  # extents of slices and new axes
        self.arrays: list[tuple[int, NDArray[Any]]] = []
        self.dims: list[tuple[int, ...]] = []  # shapes of all that is broadcast
        self.has_array = False
        self.lead_to = 0
        self.parted = False  # something stands between the arrays
        self.behind = False  # and something stood behind the last one

    def take_slice(self, item: slice) -> None:
        start, stop, step = item.indices(self.shape[self.axis])
        number = len(range(start, stop, step))
        self.start[self.axis] = start if number else 0
        self.count[self.axis] = number
        self.step[self.axis] = step
        self.rest.append(number)
        self.axis += 1
        self.behind = bool(self.dims)

    def take_new_axis(self) -> None:
        self.rest.append(1)
        self.behind = bool(self.dims)

    def _broadcast(self, shape: tuple[int, ...]) -> None:
        if not self.dims:
            self.lead_to = len(self.rest)
        self.parted |= self.behind
        self.dims.append(shape)

    def take_int(self, item: int) -> None:
        self.start[self.axis] = _coordinate(item, self.axis, self.shape[self.axis])
        self._broadcast(())
        self.axis += 1

    def take_array(self, item: NDArray[Any]) -> None:
        self.has_array = True
        if item.dtype.kind == "b" and not item.ndim:
            self._broadcast((int(item),))  # an axis of one or no element
            return
        found = _mask(item, self.axis, self.shape) if item.dtype.kind == "b" else [item]
        for values in found:
            self.arrays.append((self.axis, values))
            self._broadcast(values.shape)
            self.axis += 1

    def take(self, item: Any) -> None:
        if isinstance(item, list):
            for one in item:
                self.take_slice(one)
            self.behind = bool(self.dims)
        elif item is None:
            self.take_new_axis()
        elif isinstance(item, slice):
            self.take_slice(item)
        elif isinstance(item, np.ndarray):
            self.take_array(item)
        else:
            self.take_int(item)

    def selection(self, is_scalar: bool) -> Selection:
        start, count, step = self.start, self.count, self.step
        if not self.has_array:
            return Selection(start, count, step, tuple(self.rest), is_scalar=is_scalar)
        try:
            lead = np.broadcast_shapes(*self.dims)
        except ValueError:
            shapes = " ".join(map(str, self.dims))
            raise IndexError("shape mismatch: indexing arrays could not be broadcast "
                             f"together with shapes {shapes}") from None
        nr_boxes = 1
        for extent in lead:
            nr_boxes *= extent
        # As numpy: where no element is left, the others' coordinates don't matter.
        arrays = tuple(
            (axis, np.broadcast_to(_coordinates(values, axis, self.shape[axis]), lead).ravel())
            for axis, values in self.arrays) if nr_boxes else ()
        return Selection(start, count, step, lead + tuple(self.rest), arrays, nr_boxes,
                         len(lead), 0 if self.parted else self.lead_to)


def _plain(key: Any, shape: Shape) -> Selection | None:
    """The same where there are but integers and slices, which is most often so and
    ought to be fast."""
    items = key if type(key) is tuple else (key,)
    if len(items) > len(shape):
        return None
    start, count, step, rest = [], [], [], []
    for item, size in zip(items, shape):
        if type(item) is int:
            if not -size <= item < size:
                return None
            start.append(item + size if item < 0 else item)
            count.append(1)
            step.append(1)
        elif type(item) is slice:
            first, stop, stride = item.indices(size)
            number = len(range(first, stop, stride))
            start.append(first if number else 0)
            count.append(number)
            step.append(stride)
            rest.append(number)
        else:
            return None
    behind = shape[len(items):]
    start += _ZEROES[:len(behind)]
    step += _ONES[:len(behind)]
    return Selection(start, [*count, *behind], step, (*rest, *behind),
                     is_scalar=not rest and not behind)


def parse(key: Any, shape: Shape) -> Selection:
    """The meaning of field[key] for a field of that shape."""
    plain = _plain(key, shape)
    if plain is not None:
        return plain
    parser = _Parser(shape)
    items = _expand(key, len(shape))
    for item in items:
        parser.take(item)
    return parser.selection(all(isinstance(item, int) for item in items))


def parse_box(key: Any, shape: Shape, what: str) -> Selection:
    """The same where only one box will do."""
    selection = parse(key, shape)
    if selection.nr_lead or selection.nr_boxes != 1 or selection.arrays:
        raise TypeError(f"{what}: expected integers and slices, not arrays")
    return selection


def parse_records(rows: Any, shape: Shape) -> Selection:
    """A list of records along axis 0."""
    array = np.asarray(rows)
    if array.ndim != 1 or array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"rows of {array.dtype} and shape {array.shape}: expected a list of "
                        "integers")
    return parse(array.astype(np.int64) if not array.size else array, shape)
