# SPDX-License-Identifier: MIT
"""Finds and loads libmmnf, once; what it refuses becomes an exception.

Looked for in this order: the file that MMNF_LIBRARY names, and then nothing else;
beside this file; where the dynamic loader looks; in build/ of the source tree
that this file is in.
"""
from __future__ import annotations

import ctypes
import os

from . import _abi
from ._errors import error

Path = str | os.PathLike[str]

_NAME = "libmmnf.so.0"
_VERSION = (0, 1)  # the oldest that will do


def _places() -> list[str]:
    named = os.environ.get("MMNF_LIBRARY")
    if named:
        return [named]
    here = os.path.dirname(os.path.abspath(__file__))
    tree = os.path.normpath(os.path.join(here, "..", "..", "..", "build", _NAME))
    return [os.path.join(here, _NAME), _NAME, tree]


def _refuses(library: ctypes.CDLL) -> str | None:
    """Why this library will not do."""
    try:
        library.mmnf_version.restype = ctypes.c_char_p
        version = library.mmnf_version().decode("ascii", "replace")
    except AttributeError:
        return "is not libmmnf: it has no mmnf_version()"
    wanted = ".".join(map(str, _VERSION))
    try:
        known = tuple(map(int, version.split(".")[:2]))
    except ValueError:
        return f"has version {version!r}: expected {wanted} or later"
    if known < _VERSION:
        return f"is version {version}: expected {wanted} or later"
    for name, (result, arguments) in _abi.PROTOTYPES.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            return f"is version {version} and has no {name}(): expected a later one"
        function.restype, function.argtypes = result, arguments
    return None


def _load() -> ctypes.CDLL:
    tried = []
    for place in _places():
        try:
            library = ctypes.CDLL(place)
        except OSError as refused:
            text = str(refused)
            tried.append(text if text.startswith(place) else f"{place}: {text}")
            continue
        why = _refuses(library)
        if not why:
            return library
        tried.append(f"{place} {why}")
    raise ImportError(
        "mmnf: no usable libmmnf; tried:\n  " + "\n  ".join(tried) + "\n"
        "expected it installed (make install), or MMNF_LIBRARY=/path/to/" + _NAME)


lib = _load()


def last_error() -> str:
    """The text of this thread's last failed call."""
    text: bytes = lib.mmnf_last_error()
    return text.decode("utf-8", "replace")


def check(result: int) -> int:
    """The result of a call, if it is none of an error."""
    if result < 0:
        raise error(-result, last_error())
    return result


def version() -> str:
    """Version of the library in use, "MAJOR.MINOR.PATCH"."""
    text: bytes = lib.mmnf_version()
    return text.decode("ascii", "replace")


def path_bytes(path: Path) -> bytes:
    """A path as the library takes it."""
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError(f"path {path!r}: expected no null byte")
    return raw


def choice(what: str, name: str | None, names: dict[str, int]) -> int:
    """The number of a name; None is the first."""
    if name is None:
        return 0
    if not isinstance(name, str):
        raise TypeError(f"{what} is {name!r}: expected one of {', '.join(names)}")
    if name not in names:
        raise ValueError(f"{what} is {name!r}: expected one of {', '.join(names)}")
    return names[name]


def unsigned(what: str, value: int, bits: int = 64) -> int:
    """A count that fits into an unsigned integer of the library."""
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{what} is {value}: expected 0..2^{bits} - 1")
    return value
