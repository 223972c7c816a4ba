# SPDX-License-Identifier: MIT
"""An open field of the library, closed when nobody holds it any more.

A Field, each array over mapped memory, and each call under way hold it; so
Field.close() in one thread pulls no memory from under another, and an array
outlives its Field.

At the end of the process no handle is closed that may be in use: a daemon thread can be
in a call as late as that, and arrays may be looked at.  What was written is made durable
(_field.py), and the rest goes with the process.

A child of fork() has its parent's handles, and must leave them alone: rings and locks
in them are shared or may be held.  It neither uses nor closes them.
"""
from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, Callable

from . import _abi
from ._library import Path, check, choice, lib, path_bytes, unsigned


_nr_forks = 0  # between the first process and this one


def _forked() -> None:
    global _nr_forks
    _nr_forks += 1


os.register_at_fork(after_in_child=_forked)


class Mine:
    """Tells whether this is the process that made it."""

    __slots__ = ("_made_after",)

    def __init__(self) -> None:
        self._made_after = _nr_forks

    @property
    def is_mine(self) -> bool:
        return self._made_after == _nr_forks


def _close(pointer: ctypes.c_void_p, mine: Mine) -> None:
    if mine.is_mine:
        lib.mmnf_field_close(pointer)


class Handle(Mine):
    """Owns a struct mmnf_field *, and is passed for it: so a call holds it, too."""

    __slots__ = ("__weakref__", "_as_parameter_", "_close")

    def __init__(self, pointer: ctypes.c_void_p) -> None:
        super().__init__()
        self._as_parameter_ = pointer
        self._close = weakref.finalize(self, _close, pointer, Mine())
        self._close.atexit = False

    def close_now(self) -> None:
        """By its only holder, where the finalizer may not be run any more."""
        if self._close.detach():
            _close(self._as_parameter_, self)

    def info(self) -> _abi.FieldInfo:
        info = _abi.FieldInfo(ctypes.sizeof(_abi.FieldInfo))
        check(lib.mmnf_field_info(self, ctypes.byref(info)))
        return info


def open_handle(path: Path, options: dict[str, Any]) -> Handle:
    """options: the arguments of mmnf.open()"""
    opts = _abi.OpenOpts(
        ctypes.sizeof(_abi.OpenOpts), choice("engine", options["engine"], _abi.ENGINES),
        int(options["writable"]), unsigned("max_windows", options["max_windows"], 32),
        int(not options["prefetch"]), choice("uring", options["uring"], _abi.URINGS),
        choice("l2_policy", options["l2_policy"], _abi.L2_POLICIES),
        unsigned("l2_bytes", options["l2_bytes"]), int(options["l2_populate"]),
        int(options["l2_once"]))
    if options["net"] is not None:
        options["net"].fill(opts)
    pointer = ctypes.c_void_p()
    check(lib.mmnf_field_open(ctypes.byref(pointer), path_bytes(path), ctypes.byref(opts)))
    return Handle(pointer)


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
