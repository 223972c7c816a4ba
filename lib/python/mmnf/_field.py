# SPDX-License-Identifier: MIT
"""Field: an open field that is indexed like a numpy array.

Invariants: shape is that of the handle.  Every method takes the handle once, so
that close() in another thread does not matter to it.  All calls into the library
let other Python threads run.
"""
from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import sys
import weakref
from types import TracebackType
from typing import Any, Callable, Iterable, Iterator, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _abi, _view, _write
from ._async import Batch
from ._batch import Job, in_order
from ._dtype import dtype_of
from ._gpu import GpuTier
from ._handle import Callback, Handle, open_handle
from ._index import BOX, Selection, parse, parse_box, parse_records
from ._library import Path, check, lib, path_bytes, unsigned

Progress = Callable[[int, int], object]
_living: weakref.WeakSet[Field] = weakref.WeakSet()
_ENGINE_NAMES = {number: name for name, number in _abi.ENGINES.items()}


class Residency(NamedTuple):
    """Bytes of a box by where they are, counted in whole pages.

    hot: resident and mapped by this process; warm: resident, not touched through this
    field yet; cold: on storage only, or never written.
    """
    hot_bytes: int
    warm_bytes: int
    cold_bytes: int


class Tier(NamedTuple):
    """One place where bytes of a field may be.

    level: 1 GPU, 2 RAM, 3 local storage, 4 network.  size_bytes and used_bytes are 0
    where they are not known or the tier is off; text says what it is, or why it is
    off.
    """
    level: int
    name: str
    is_on: bool
    size_bytes: int
    used_bytes: int
    text: str


class Verified(NamedTuple):
    """What Field.verify() found: findings has a line for each."""
    nr_segments: int
    nr_tiles: int
    nr_checked: int
    nr_bad: int
    nr_repaired: int
    findings: list[str]


class Field(GpuTier):
    """An array on disk, up to a petabyte, indexed like a numpy array.

    Made by mmnf.open() and mmnf.create().  field[index] copies out, with numpy's
    meaning of integers, slices of any step, ..., None, integer arrays and masks;
    field[index] = value copies in where the field was opened writable.  A read that
    fails is an mmnf.Error, never a signal.  A batch, that is an index with an array in
    it, is one call of the library: its reads are all started before the first copy.

    Safe to use from several threads at once, but for resize().  A child of fork(), as
    of multiprocessing, opens it again by its path at the first use there, and so does a
    process that it is pickled to; the GPU tier is off there.  A with block closes it,
    and so does the end of its last reference.  What is still open when the interpreter
    ends is made durable then.

    path: as given.  shape, ndim, size, nbytes, itemsize, dtype: as numpy's.
    engine: "device", "mmap", "direct" or "net"; engine_reason: why that one.
    format: "zarr", "npy", "safetensors", ...  tile: shape of a tile.
    segment: shape of a segment, which is one file.  writable.
    """

    def __init__(self, path: Path, handle: Handle, options: dict[str, Any]) -> None:
        self.path = path
        self._handle: Handle | None = handle
        self._options = options
        self._is_dirty = False
        self._batches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Batch] = (
            weakref.WeakKeyDictionary())
        self._take(handle.info())
        _living.add(self)

    def _take(self, info: _abi.FieldInfo) -> None:
        ndim: int = info.ndim
        self.ndim = ndim
        self.shape: tuple[int, ...] = tuple(info.shape[:ndim])
        self.tile: tuple[int, ...] = tuple(info.tile_shape[:ndim])
        self.segment: tuple[int, ...] = tuple(info.segment_shape[:ndim])
        self.dtype = dtype_of(info.dtype)
        self.engine: str = _ENGINE_NAMES.get(info.engine, f"engine {info.engine}")
        self.engine_reason: str = info.engine_reason.decode("utf-8", "replace")
        self.format: str = info.format.decode("utf-8", "replace")
        self.nr_segments: int = info.nr_segments
        self._fill = bytes(info.fill)

    @property
    def writable(self) -> bool:
        return bool(self._options.get("writable"))

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements, whether on disk or not."""
        return self.size * self.itemsize

    @property
    def size(self) -> int:
        """How many elements."""
        number = 1
        for extent in self.shape:
            number *= extent
        return number

    @property
    def fill(self) -> Any:
        """What was never written reads as this."""
        return np.frombuffer(self._fill, self.dtype, 1)[0]

    # ---- open and closed

    @property
    def closed(self) -> bool:
        return self._handle is None

    def _open(self) -> Handle:
        handle = self._handle
        if handle is None:
            raise ValueError(f"field {os.fspath(self.path)!r} is closed")
        if not handle.is_mine:
            handle = self._open_again()
        return handle

    def _open_again(self) -> Handle:
        """In a child of fork().  What the parent wrote it will make durable itself."""
        handle = self._handle = open_handle(self.path, self._options)
        self._batches = weakref.WeakKeyDictionary()
        self._is_dirty = False
        return handle

    def sync(self) -> None:
        """Make all writes through this field durable."""
        self._make_durable(self._open())

    def _make_durable(self, handle: Handle) -> None:
        # Before: what another thread writes meanwhile is for the next time.
        self._is_dirty = False
        try:
            check(lib.mmnf_field_sync(handle))
        except BaseException:
            self._is_dirty = True
            raise

    def close(self) -> None:
        """Make writes durable, if there were any, and close.  Twice is fine.

        Arrays of view() stay good: the memory is unmapped when the last one goes.
        """
        handle, self._handle = self._handle, None
        self._batches.clear()
        if handle is not None and handle.is_mine and self._is_dirty:
            self._make_durable(handle)

    def _end(self) -> None:
        """At the end of the process, where daemon threads may still be in calls."""
        handle = self._handle
        if handle is None or not handle.is_mine:
            return
        if self._is_dirty:
            self.sync()
        if self.engine == "net":
            # Servers and the cache on disk get their farewell, if nobody is there.
            self._handle = None
            if sys.getrefcount(handle) <= 2:
                handle.close_now()

    def __enter__(self) -> Field:
        self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        path = os.fspath(self.path)
        if self.closed:
            return f"<mmnf.Field {path!r}, closed>"
        return (f"<mmnf.Field {path!r} {list(self.shape)} {self.dtype.name}, {self.format}, "
                f"engine {self.engine}{', writable' if self.writable else ''}>")

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens it by its path, with the same options."""
        self._open()
        return Field._again, (self.path, self._options)

    @classmethod
    def _again(cls, path: Path, options: dict[str, Any]) -> Field:
        return cls(path, open_handle(path, options), options)

    # ---- copies

    def _read(self, handle: Handle, selection: Selection, out: NDArray[Any]) -> None:
        if selection.is_empty:
            return
        to, room = out.__array_interface__["data"][0], out.nbytes
        if not selection.arrays:
            check(lib.mmnf_get(handle, selection.box(), to, room))
            return
        records = selection.records(self.shape)
        if records is not None:
            check(lib.mmnf_batch_get(handle, records.ctypes.data, records.size, to,
                                     room))
            return
        for boxes in selection.boxes():
            done = check(lib.mmnf_batch_get_boxes(handle, boxes.ctypes.data,
                                                  boxes.size, to, room))
            to, room = to + done, room - done

    def __getitem__(self, key: Any) -> Any:
        """A copy of the elements that numpy would give for the same index."""
        handle = self._open()
        selection = parse(key, self.shape)
        out = np.empty(selection.shape, self.dtype)
        self._read(handle, selection, out)
        return out[()] if selection.is_scalar else selection.turn(out)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Copy in, cast and broadcast as numpy does.  Durable after sync() or close().

        An array in the index costs a write for each of its elements.
        """
        handle = self._open()
        self._is_dirty = self.writable
        try:
            _write.write(handle, parse(key, self.shape), value, self.dtype)
        finally:  # a sync may have come in between
            self._is_dirty = self.writable

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        """Its records along axis 0, one after the other."""
        for index in range(self.shape[0]):
            yield self[index]

    def gather(self, rows: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Records along axis 0, in one call.

        rows: a list of integers in any order; repeats are allowed, negative ones count
            from the end
        out: receives them; C-contiguous, of shape [len(rows), *shape[1:]] and the
            field's dtype; None: a new array

        Returns out.  IndexError if a row is outside.
        """
        handle = self._open()
        selection = parse_records(rows, self.shape)
        out = self._out(selection.shape, out)
        self._read(handle, selection, out)
        return out

    async def agather(self, rows: ArrayLike, out: NDArray[Any] | None = None, *,
                      once: bool = False) -> NDArray[Any]:
        """gather() for asyncio: the loop goes on while the reads are under way.

        once: as open()'s l2_once, for this request: what it reads and is not in L2
            ("direct", "net") is not kept there

        Many may be awaited at once.  Where a task is cancelled its reads are, too; what
        out holds is then undefined.  Keep out alone until this returns.
        """
        handle = self._open()
        selection = parse_records(rows, self.shape)
        out = self._out(selection.shape, out)
        records = selection.records(self.shape)
        if records is None or selection.is_empty:
            return out
        loop = asyncio.get_running_loop()
        batch = self._batches.get(loop)
        if batch is None:
            batch = self._batches[loop] = Batch(handle, loop)
        await batch.gather(Job(records, out, once))
        return out

    def gathers(self, lists: Iterable[ArrayLike], ahead: int = 2, *,
                once: bool = False) -> Iterator[NDArray[Any]]:
        """gather() of one list of rows after the other, as a training loop wants them.

        The next lists are taken early, ahead of them, and their reads are under way
        while the caller works with one.  Each comes in a new array.  once: as for
        agather(): for shuffled epochs.
        """
        handle = self._open()
        if ahead < 0:
            raise ValueError(f"ahead is {ahead}: expected 0 or more")

        def jobs() -> Iterator[Job]:
            for rows in lists:
                selection = parse_records(rows, self.shape)
                records = selection.records(self.shape)
                yield Job(np.empty(0, np.uint64) if records is None else records,
                          np.empty(selection.shape, self.dtype), once)

        return in_order(handle, jobs(), ahead)

    def _out(self, shape: tuple[int, ...], out: NDArray[Any] | None) -> NDArray[Any]:
        if out is None:
            return np.empty(shape, self.dtype)
        if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != self.dtype:
            found = f"{out.dtype} {list(out.shape)}" if isinstance(out, np.ndarray) else type(out)
            raise ValueError(f"out is {found}: expected {self.dtype} {list(shape)}")
        if not out.flags.c_contiguous or not out.flags.writeable:
            raise ValueError("out: expected a writable array in C order")
        return out

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """The whole field as an array: a copy; with copy=False view(), or ValueError."""
        if copy is False:
            if dtype is not None and np.dtype(dtype) != self.dtype:
                raise ValueError(f"no {np.dtype(dtype)} of a field of {self.dtype} without a copy")
            return self.view()
        whole: NDArray[Any] = self[...]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    # ---- without a copy

    def view(self, index: Any = ...) -> NDArray[Any]:
        """A read-only array over the mapped memory, without a copy.

        index: integers, slices, ... and None that select one box inside one tile; where
            a field is not in tiles, inside one segment, most often all of it.
            ValueError where that is not so.

        Nothing is read here: touching an element does it, on every engine by way of
        the page cache.  "device" watches the touches and reads ahead; on the others call
        prefetch() before.  A view shows later writes, but not tiles and segments that
        were first written after it was made.  It stays good after close().  Views of
        fewer than max_windows segments can be there at once.

        A read error, or a file that is cut short, raises SIGBUS at the touch, which ends
        the process, unless there is a guard(); field[index] does not.
        """
        handle = self._open()
        selection = parse_box(index, self.shape, "view")
        if selection.is_empty:
            return np.empty(selection.shape, self.dtype)
        return _view.view(handle, selection, self.dtype)

    def guard(self, poison: Any = None) -> None:
        """No signal where a view meets a page that can't be read: the page shows poison.

        poison: an element; None: the fill value.  For floats a NaN says it best.

        Look at bad_pages after a piece of work: 0 says that all of it was data.
        Installs a handler of SIGBUS; others, such as faulthandler's, have to be there
        before.
        """
        handle = self._open()
        one = None if poison is None else np.array([poison], self.dtype)
        opts = _abi.GuardOpts(ctypes.sizeof(_abi.GuardOpts), None, None,
                              None if one is None else one.ctypes.data)
        check(lib.mmnf_guard_enable(handle, ctypes.byref(opts)))

    def unguard(self) -> None:
        """As without guard(), which also ends with the field."""
        check(lib.mmnf_guard_disable(self._open()))

    @property
    def bad_pages(self) -> int:
        """Touches of pages that could not be read, since guard()."""
        number: int = lib.mmnf_guard_bad_pages(self._open())
        return number

    def __dlpack__(self, **options: Any) -> Any:
        """A DLPack capsule of the whole: of view() where there is one and the consumer
        takes read-only memory, else of a copy."""
        if not options.get("copy"):
            try:
                return self.view().__dlpack__(**options)
            except (ValueError, BufferError):
                if options.get("copy") is False:
                    raise
        return self[...].__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """(1, 0): memory of the host."""
        return 1, 0

    # ---- where the bytes are

    def prefetch(self, index: Any = ...) -> int:
        """Start reading elements and do not wait.  Any index that field[index] takes.

        Returns the bytes that were queued or there already.  Errors of the storage
        are left to the access that needs the data.
        """
        handle = self._open()
        selection = parse(index, self.shape)
        if selection.is_empty:
            return 0
        if not selection.arrays:
            return check(lib.mmnf_prefetch(handle, selection.box()))
        return sum(check(lib.mmnf_prefetch(handle, boxes.ctypes.data + at))
                   for boxes in selection.boxes()
                   for at in range(0, boxes.nbytes, BOX.itemsize))

    def evict(self, index: Any = ...) -> int:
        """Drop clean, unmapped pages of a box from memory.

        Returns the bytes that were resident before and are not now.
        """
        handle = self._open()
        selection = parse_box(index, self.shape, "evict")
        if selection.is_empty:
            return 0
        return check(lib.mmnf_evict(handle, selection.box()))

    def residency(self, index: Any = ...) -> Residency:
        """Where a box is now.  For files that the caller neither owns nor may write,
        Linux tells nothing."""
        handle = self._open()
        selection = parse_box(index, self.shape, "residency")
        out = _abi.Residency(ctypes.sizeof(_abi.Residency))
        if not selection.is_empty:
            check(lib.mmnf_residency(handle, selection.box(),
                                     ctypes.byref(out)))
        return Residency(out.hot_bytes, out.warm_bytes, out.cold_bytes)

    def tiers(self) -> list[Tier]:
        """The places where bytes of the field may be, nearest first."""
        out = _abi.Tiers(ctypes.sizeof(_abi.Tiers))
        check(lib.mmnf_tiers_info(self._open(), ctypes.byref(out)))
        return [Tier(tier.level, tier.name.decode("utf-8", "replace"), bool(tier.is_on),
                     tier.size_bytes, tier.used_bytes, tier.text.decode("utf-8", "replace"))
                for tier in out.tier[:out.nr_tiers]]

    def stats(self) -> dict[str, int]:
        """Counters since open, by the names of struct mmnf_field_stats."""
        out = _abi.FieldStats(ctypes.sizeof(_abi.FieldStats))
        check(lib.mmnf_field_stats(self._open(), ctypes.byref(out)))
        return {name: getattr(out, name) for name, *_ in out._fields_ if name != "size"}

    def net_stats(self) -> list[dict[str, Any]]:
        """Counters of each server of a field on the network, by the names of struct
        mmnf_net_stats."""
        handle = self._open()
        found: list[dict[str, Any]] = []
        out = _abi.NetStats(ctypes.sizeof(_abi.NetStats), 1)
        while len(found) < out.nr_servers:
            check(lib.mmnf_net_stats(handle, len(found), ctypes.byref(out)))
            one = {name: getattr(out, name) for name, *_ in out._fields_ if name != "size"}
            found.append({name: value.decode("utf-8", "replace") if isinstance(value, bytes)
                          else value for name, value in one.items()})
        return found

    # ---- the whole field

    def import_(self, source: Path, at: tuple[int, ...] | None = None,
                progress: Progress | None = None) -> int:
        """Copy a file of any format that mmnf.open() takes into this field.

        at: where its first element goes; None: the origin.  An array of fewer axes is
            placed along the last ones.
        progress: called now and then with bytes done and in all

        Returns the bytes of elements written.
        """
        handle, callback = self._open(), Callback(progress)
        if at is not None and len(at) != self.ndim:
            raise ValueError(f"at has {len(at)} coordinates: expected {self.ndim}")
        origin = _abi.Axes(*(unsigned("at", where) for where in at)) if at is not None else None
        self._is_dirty = self.writable
        try:
            done = check(lib.mmnf_import(handle, path_bytes(source), origin,
                                         callback.progress, None))
        finally:
            self._is_dirty = self.writable
        callback.finish()
        return done

    def export(self, path: Path, index: Any = ..., format: str | None = None,
               progress: Progress | None = None) -> int:
        """Copy a box into a file of another format.

        path: appears, or replaces another file, when it is whole and durable
        format: "npy", "safetensors", "nrrd", "nifti", "fbin" or "raw"; None: by the
            suffix of path

        Axes of integers stay, with an extent of 1.  Returns the bytes of elements
        written.
        """
        handle, callback = self._open(), Callback(progress)
        box = parse_box(index, self.shape, "export").box()
        done = check(lib.mmnf_export(handle, box, path_bytes(path),
                                     format.encode() if format is not None else None,
                                     callback.progress, None))
        callback.finish()
        return done

    def resize(self, extent: int) -> None:
        """More elements along axis 0; they read as fill.  No other call may use the
        field meanwhile."""
        handle = self._open()
        check(lib.mmnf_field_resize(handle, unsigned("extent", extent)))
        self._take(handle.info())

    def verify(self, repair: bool = False) -> Verified:
        """Look at everything a field has on disk: lengths, indexes, checksums.

        repair: write the checksum of an index anew where a writer died before it did
        """
        findings: list[str] = []
        found = _abi.Found(lambda _arg, text: findings.append(text.decode("utf-8", "replace")))
        options = _abi.VerifyOpts(ctypes.sizeof(_abi.VerifyOpts), int(repair), 0, found)
        out = _abi.VerifyResult(ctypes.sizeof(_abi.VerifyResult))
        check(lib.mmnf_field_verify(self._open(), ctypes.byref(options),
                                    ctypes.byref(out)))
        return Verified(out.nr_segments, out.nr_tiles, out.nr_checked, out.nr_bad,
                        out.nr_repaired, findings)


def _end() -> None:
    for field in list(_living):
        try:
            field._end()  # pylint: disable=protected-access
        except Exception:  # pylint: disable=broad-except
            sys.excepthook(*sys.exc_info())  # the others, too


atexit.register(_end)
