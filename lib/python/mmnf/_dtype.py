# SPDX-License-Identifier: MIT
"""Element types: the library's numbers and numpy's dtypes.

numpy has no bfloat16 of its own: it is ml_dtypes.bfloat16 where that package is,
else a dtype of two raw bytes, "V2".  Names are numpy's alone, because its "i8" is
the library's "i64".
"""
from __future__ import annotations

from typing import Any

import numpy as np

from . import _abi


def _bfloat16() -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError:
        return np.dtype("V2")
    known: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return known


def _numpy(name: str) -> np.dtype[Any]:
    if name == "bf16":
        return _bfloat16()
    return np.dtype(f"<{name[0]}{int(name[1:]) // 8}")


_OF_NUMBER = {number: _numpy(name) for name, number in _abi.DTYPES.items()}
_NUMBER = {dtype: number for number, dtype in _OF_NUMBER.items()}


def dtype_of(number: int) -> np.dtype[Any]:
    """numpy's dtype of an enum mmnf_dtype."""
    try:
        return _OF_NUMBER[number]
    except KeyError:
        raise TypeError(f"element type {number}: expected 1..{len(_OF_NUMBER)}; the library "
                        "is newer than this package") from None


def number_of(dtype: Any) -> int:
    """enum mmnf_dtype of "bfloat16" or of anything that numpy takes for a dtype."""
    bfloat16 = isinstance(dtype, str) and dtype == "bfloat16"
    wanted = _bfloat16() if bfloat16 else np.dtype(dtype)
    try:
        return _NUMBER[wanted]
    except KeyError:
        names = ", ".join(known.name for known in _NUMBER if known.kind != "V")
        raise TypeError(f"dtype {wanted}: expected one of {names}, bfloat16; "
                        "little-endian") from None
