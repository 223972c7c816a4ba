# SPDX-License-Identifier: MIT
"""An open field of the library, closed when nobody holds it any more.

A Field, each array over mapped memory, and each call under way hold it; so
Field.close() in one thread pulls no memory from under another, and an array
outlives its Field.
"""
from __future__ import annotations

import ctypes
import weakref
from typing import Callable

from . import _abi
from ._library import check, lib


class Handle:
    """Owns a struct mmnf_field *."""

    __slots__ = ("__weakref__", "pointer", "_close")

    def __init__(self, pointer: ctypes.c_void_p) -> None:
        self.pointer = pointer
        self._close = weakref.finalize(self, lib.mmnf_field_close, pointer)

    def keep_at_exit(self) -> None:
        """The memory stays mapped until the process is gone: arrays may be looked at
        as late as that."""
        self._close.atexit = False

    def info(self) -> _abi.FieldInfo:
        info = _abi.FieldInfo(ctypes.sizeof(_abi.FieldInfo))
        check(lib.mmnf_field_info(self.pointer, ctypes.byref(info)))
        return info


class Callback:
    """A Python function for the library to call; what it raises is kept and raised
    when the library has returned, which it can't be made to do earlier."""

    def __init__(self, function: Callable[[int, int], object] | None) -> None:
        self.raised: BaseException | None = None
        self._function = function
        self.progress = _abi.Progress(self._call) if function else _abi.Progress()

    def _call(self, _arg: object, done: int, total: int) -> None:
        if self.raised is None and self._function is not None:
            try:
                self._function(done, total)
            except BaseException as raised:  # not past C
                self.raised = raised

    def finish(self) -> None:
        if self.raised is not None:
            raise self.raised
