# SPDX-License-Identifier: MIT
"""Gathers that are under way while Python does something else: batches of the library.

Requests owns one; _async.py awaits what it gives, in_order() hands it out one after
the other.  No thread is behind them: the kernel reads, and what follows from a read is
done by who submits, cancels or reaps next.
"""
from __future__ import annotations

import atexit
import collections
import ctypes
import os
import weakref
from typing import Any, Iterable, Iterator, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _abi
from ._errors import error
from ._handle import Handle
from ._library import check, last_error, lib

_MAX = 64  # completions taken at once


class Job(NamedTuple):
    """Indices of records, and where they go; once: they go past L2."""
    records: NDArray[np.uint64]
    out: NDArray[Any]
    once: bool


class _Owned:
    """What lives until the batch is closed."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.pointer = ctypes.c_void_p()
        self.memory: dict[int, Job] = {}
        opts = _abi.BatchOpts(ctypes.sizeof(_abi.BatchOpts), 0, self.eventfd)
        try:
            check(lib.mmnf_batch_open(ctypes.byref(self.pointer), handle,
                                      ctypes.byref(opts)))
        except BaseException:
            os.close(self.eventfd)
            raise

    def close(self) -> None:
        if not self.handle.is_mine:
            return
        lib.mmnf_batch_close(self.pointer)
        os.close(self.eventfd)
        self.memory.clear()


_living: weakref.WeakSet[_Owned] = weakref.WeakSet()


def _keep_memory() -> None:
    """A daemon thread may be in a batch at the end of the process, so it stays open, and
    what is read then still goes where it should."""
    for owned in list(_living):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owned))


atexit.register(_keep_memory)


class Requests:
    """Used by one thread at a time.  The memory of a request is kept until its
    completion, because the library writes there till then.
    """

    def __init__(self, handle: Handle) -> None:
        self._owned = _Owned(handle)
        self._last = 0
        weakref.finalize(self, self._owned.close).atexit = False
        _living.add(self._owned)

    @property
    def eventfd(self) -> int:
        """Readable when there may be something to reap."""
        return self._owned.eventfd

    @property
    def nr_waiting(self) -> int:
        return len(self._owned.memory)

    def submit(self, job: Job) -> int:
        """Start one; its number."""
        self._last += 1
        request = _abi.Request(self._last, None, job.records.ctypes.data, job.records.size,
                               job.out.ctypes.data, job.out.nbytes, 0, int(job.once))
        self._owned.memory[self._last] = job
        try:
            check(lib.mmnf_batch_submit(self._owned.pointer, ctypes.byref(request), 1))
        except BaseException:
            del self._owned.memory[self._last]
            raise
        return self._last

    def cancel(self, number: int) -> None:
        """It still has a completion."""
        lib.mmnf_batch_cancel(self._owned.pointer, number)

    def reap(self, wait: bool) -> list[tuple[int, Exception | None]]:
        """Numbers of those that are done, and how they failed; wait for one, or take
        what there is."""
        done = (_abi.Completion * _MAX)()
        number = check(lib.mmnf_batch_reap(self._owned.pointer, done, _MAX, int(wait),
                                           -1 if wait else 0))
        text = last_error()
        for completion in done[:number]:
            self._owned.memory.pop(completion.user_data, None)
        return [(completion.user_data,
                 error(-completion.result, text) if completion.result < 0 else None)
                for completion in done[:number]]


def in_order(handle: Handle, jobs: Iterable[Job], ahead: int) -> Iterator[NDArray[Any]]:
    """Each job's array when it is full, in order, while so many next ones are read.

    Where the next job can't be made, those before it come first.
    """
    requests = Requests(handle)
    waiting: collections.deque[tuple[int, NDArray[Any]]] = collections.deque()
    finished: dict[int, Exception | None] = {}

    def first() -> NDArray[Any]:
        number, out = waiting.popleft()
        while number and number not in finished:
            finished.update(requests.reap(True))
        failed = finished.pop(number, None)
        if failed is not None:
            raise failed
        return out

    more, refused = iter(jobs), None
    while True:
        try:
            job = next(more)
            number = requests.submit(job) if job.out.size else 0
        except StopIteration:
            break
        except Exception as raised:
            refused = raised
            break
        waiting.append((number, job.out))
        if len(waiting) > ahead:
            yield first()
    while waiting:
        yield first()
    if refused is not None:
        raise refused
