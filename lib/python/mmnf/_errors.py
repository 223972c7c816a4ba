# SPDX-License-Identifier: MIT
"""What the library refuses, as exceptions.

Every one is an mmnf.Error, so an OSError with errno and the library's own text;
where Python has a word of its own for it, it is that, too.
"""
from __future__ import annotations

import errno


class Error(OSError):
    """The library failed: .errno and .strerror tell how and what was expected."""


class NotFoundError(Error, FileNotFoundError):
    """ENOENT: there is no such field."""


class ExistsError(Error, FileExistsError):
    """EEXIST: the path of a new field is taken."""


class AccessError(Error, PermissionError):
    """EACCES, EPERM, EROFS: the file may not be used so."""


class OutsideError(Error, IndexError):
    """ERANGE: elements outside the field."""


class InvalidError(Error, ValueError):
    """EINVAL: a wrong argument, or a file that is not what its name says."""


class TooLargeError(Error, OverflowError):
    """EOVERFLOW: more than 2^63 - 1 bytes."""


class DeadlineError(Error, TimeoutError):
    """ETIMEDOUT: not done by the deadline."""


_BY_ERRNO: dict[int, type[Error]] = {
    errno.ENOENT: NotFoundError,
    errno.EEXIST: ExistsError,
    errno.EACCES: AccessError,
    errno.EPERM: AccessError,
    errno.EROFS: AccessError,
    errno.ERANGE: OutsideError,
    errno.EINVAL: InvalidError,
    errno.EOVERFLOW: TooLargeError,
    errno.ETIMEDOUT: DeadlineError,
}


def error(number: int, text: str) -> Error:
    """The exception of an errno."""
    return _BY_ERRNO.get(number, Error)(number, text)
