# SPDX-License-Identifier: MIT
"""mmnf.open() and mmnf.create()."""
from __future__ import annotations

import ctypes
from typing import Any, Sequence

import numpy as np
from numpy.typing import DTypeLike

from . import _abi
from ._dtype import dtype_of, number_of
from ._field import Field
from ._handle import open_handle
from ._library import Path, check, lib, path_bytes, unsigned
from ._net import Net, server_names


def open(path: Path, engine: str | None = None, *, writable: bool = False,
         prefetch: bool = True, max_windows: int = 0, uring: str | None = None,
         l2_policy: str | None = None, l2_bytes: int = 0, l2_populate: bool = False,
         l2_once: bool = False, net: Net | None = None) -> Field:
    """Open a field; it costs the same for a gigabyte and a petabyte.

    path: a Zarr v3 array that is not compressed, or a .npy, .safetensors#NAME,
        .gguf#NAME, .nii, .nrrd, .nhdr, .fbin file or kin, or
        FILE#raw,dtype=f32,shape=10x20; used where it lies.  On a server:
        nbd://HOST/EXPORT#raw,...
    engine: "device" (/dev/mmnf), "mmap", "direct" (io_uring past the page cache) or
        "net" (where the data lies there); None or "auto": the first that can be had
    writable: field[...] = value is allowed
    prefetch: read ahead by prediction
    max_windows: a pointer is good until so many other segments were activated
    uring: "off" reads by pread, "sqpoll" lets a kernel thread poll
    l2_policy, l2_bytes: of the cache of "direct" and "net": "lru", "sieve" or "s3fifo";
        0: a sixteenth of memory.  l2_populate: take it at open, not as it fills.
        l2_once: keep what is read ahead there, and nothing else: for records that are
        read once
    net: options of the network

    Raises mmnf.Error: FileNotFoundError, ValueError where a header is wrong, ...
    """
    options = {"engine": engine, "writable": writable, "prefetch": prefetch,
               "max_windows": max_windows, "uring": uring, "l2_policy": l2_policy,
               "l2_bytes": l2_bytes, "l2_populate": l2_populate,
               "l2_once": l2_once, "net": net}
    return Field(path, open_handle(path, options), options)


def create(path: Path, shape: int | tuple[int, ...], dtype: DTypeLike, *,
           tile: tuple[int, ...] | None = None, fill: Any = None, segment_bytes: int = 0,
           checksums: bool = False, engine: str | None = None,
           servers: str | Sequence[str] | None = None, stripe_bytes: int = 0,
           net: Net | None = None) -> Field:
    """Make an empty field, a Zarr v3 array, and open it writable.

    path: a folder to make
    shape: elements along each of 1 to 8 axes, each at least 1
    dtype: integers and floats of numpy, little-endian, or "bfloat16"
    tile: elements of a tile along each axis; None: C order
    fill: what was never written reads as; None: 0
    segment_bytes: most bytes of a file; 0: 64 GiB, 64 MiB if fill is not 0
    checksums: keep a CRC32C of each tile, for verify()
    servers: the data lies on NBD servers, "URI[,URI...]" each, where several gateways
        lead to the same bytes; nothing is written there.  URIs: nbd://HOST[:PORT]/EXPORT,
        nbd+unix:///EXPORT?socket=PATH, nbds:// and nbds+unix:// with TLS
    stripe_bytes: stripe i is on server i % len(servers); 0: 1 MiB
    engine, net: as of mmnf.open()

    Writes metadata only, however large the field is.  Raises mmnf.Error:
    FileExistsError, ValueError, ...
    """
    extents = tuple(np.atleast_1d(np.asarray(shape, object)))
    if not 1 <= len(extents) <= _abi.NDIM_MAX:
        raise ValueError(f"shape has {len(extents)} axes: expected 1..{_abi.NDIM_MAX}")
    if tile is not None and len(tile) != len(extents):
        raise ValueError(f"tile has {len(tile)} axes: expected {len(extents)}")
    number = number_of(dtype)
    one = np.array([fill], dtype_of(number)) if fill is not None else None
    tiles = _abi.Axes(*(unsigned("tile", n) for n in tile)) if tile is not None else None
    opts = _abi.CreateOpts(
        ctypes.sizeof(_abi.CreateOpts), unsigned("segment_bytes", segment_bytes),
        one.ctypes.data if one is not None else None,
        ctypes.cast(tiles, ctypes.c_void_p) if tiles is not None else None, int(checksums))
    if servers is not None:
        names = server_names(servers)
        opts.net, opts.nr_net = ctypes.addressof(names), len(names)
    opts.stripe_bytes = unsigned("stripe_bytes", stripe_bytes)
    check(lib.mmnf_field_create(path_bytes(path), number, len(extents),
                                _abi.Axes(*(unsigned("shape", n) for n in extents)),
                                ctypes.byref(opts)))
    return open(path, engine, writable=True, net=net)
