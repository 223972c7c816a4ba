# SPDX-License-Identifier: MIT
"""A tensor far larger than memory, indexed like a numpy array.

    import mmnf

    with mmnf.create("words", (86_000_000_000, 1000), "float32") as field:
        field[42] = range(1000)

    field = mmnf.open("words")          # also .npy, .safetensors#NAME, .nii, ...
    field[42, ::-2]                     # a numpy array: a copy
    field.gather([7, 10**9, 7])         # many records in one call
    field.view(slice(40, 50))           # no copy: memory that reads when touched

Everything here is a thin layer over libmmnf.
"""
from ._device import DeviceArray
from ._errors import (AccessError, DeadlineError, Error, ExistsError, InvalidError,
                      NotFoundError, OutsideError, TooLargeError)
from ._field import Field, Residency, Tier, Verified
from ._library import version
from ._make import create, open
from ._net import Net

__all__ = ["AccessError", "DeadlineError", "DeviceArray", "Error", "ExistsError", "Field",
           "InvalidError", "Net", "NotFoundError", "OutsideError", "Residency", "Tier",
           "TooLargeError", "Verified", "create", "open", "version"]
