# SPDX-License-Identifier: MIT
"""Gathers that are awaited: a batch of the library for each field and event loop,
whose eventfd wakes the loop.  Used by the loop's thread alone.
"""
from __future__ import annotations

import asyncio
import weakref

from ._batch import Job, Requests
from ._handle import Handle


class Batch:
    """The requests of one field in one loop."""

    def __init__(self, handle: Handle, loop: asyncio.AbstractEventLoop) -> None:
        self._requests = Requests(handle)
        self._loop = weakref.ref(loop)
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def gather(self, job: Job) -> None:
        """Returns when the job is done; a task that is cancelled leaves it undefined."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        number = self._requests.submit(job)
        if not self._waiting:
            loop.add_reader(self._requests.eventfd, self._reap)
        self._waiting[number] = future
        self._reap()
        try:
            await future
        except asyncio.CancelledError:
            self._requests.cancel(number)
            raise

    def _reap(self) -> None:
        done = True
        while done and self._requests.nr_waiting:
            done = False
            for number, failed in self._requests.reap(False):
                self._finish(number, failed)
                done = True
        loop = self._loop()
        if not self._requests.nr_waiting and loop is not None:
            loop.remove_reader(self._requests.eventfd)

    def _finish(self, number: int, failed: Exception | None) -> None:
        future = self._waiting.pop(number)
        if future.done():  # it was cancelled
            return
        if failed is not None:
            future.set_exception(failed)
        else:
            future.set_result(None)
