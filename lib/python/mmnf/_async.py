# SPDX-License-Identifier: MIT
"""Gathers that are awaited: a batch of the library for each field and event loop.

The batch's eventfd wakes the loop; no thread is behind it.  A request's memory is
kept here until its completion, whatever becomes of the task that waits, because the
library writes there till then.  Used by the loop's thread alone.
"""
from __future__ import annotations

import asyncio
import ctypes
import os
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _abi
from ._errors import error
from ._handle import Handle
from ._library import check, last_error, lib

_MAX = 64  # completions taken at once


class _Owned:
    """What lives until the batch is closed."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.pointer = ctypes.c_void_p()
        self.memory: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}
        opts = _abi.BatchOpts(ctypes.sizeof(_abi.BatchOpts), 0, self.eventfd)
        try:
            check(lib.mmnf_batch_open(ctypes.byref(self.pointer), handle.pointer,
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


class Batch:
    """The requests of one field in one loop."""

    def __init__(self, handle: Handle, loop: asyncio.AbstractEventLoop) -> None:
        self._owned = _Owned(handle)
        self._loop = weakref.ref(loop)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._last = 0
        weakref.finalize(self, self._owned.close)

    async def gather(self, records: NDArray[np.uint64], out: NDArray[Any]) -> None:
        """Returns when out is full; a task that is cancelled leaves it undefined."""
        loop = asyncio.get_running_loop()
        self._last += 1
        number = self._last
        request = _abi.Request(number, None, records.ctypes.data, records.size,
                               out.ctypes.data, out.nbytes)
        future: asyncio.Future[None] = loop.create_future()
        self._owned.memory[number] = records, out
        try:
            check(lib.mmnf_batch_submit(self._owned.pointer, ctypes.byref(request), 1))
        except BaseException:
            del self._owned.memory[number]
            raise
        if not self._waiting:
            loop.add_reader(self._owned.eventfd, self._reap)
        self._waiting[number] = future
        self._reap()
        try:
            await future
        except asyncio.CancelledError:
            lib.mmnf_batch_cancel(self._owned.pointer, number)
            raise

    def _reap(self) -> None:
        done = (_abi.Completion * _MAX)()
        while self._owned.memory:
            number = check(lib.mmnf_batch_reap(self._owned.pointer, done, _MAX, 0, 0))
            text = last_error()
            for completion in done[:number]:
                self._finish(completion.user_data, completion.result, text)
            if number < _MAX:
                break
        loop = self._loop()
        if not self._owned.memory and loop is not None:
            loop.remove_reader(self._owned.eventfd)

    def _finish(self, number: int, result: int, text: str) -> None:
        self._owned.memory.pop(number, None)
        future = self._waiting.pop(number, None)
        if future is None or future.done():
            return
        if result < 0:
            future.set_exception(error(-result, text))
        else:
            future.set_result(None)
