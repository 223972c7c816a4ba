# SPDX-License-Identifier: MIT
"""Fields whose data lies on NBD servers: what is asked of the network, and how it does."""
from __future__ import annotations

import ctypes
import math
import os
from dataclasses import dataclass
from typing import Any, Sequence

from . import _abi
from ._library import Path, path_bytes, unsigned

_FOREVER = 0xFFFFFFFF


@dataclass(frozen=True)
class Net:
    """Options of mmnf.open() for fields on the network.

    connections: to each server, at most 16; 0: 4
    depth: requests on each at once; 0: 64
    fail_timeout: seconds that a server may be away before a request fails; math.inf;
        None: 30
    request_timeout: seconds that a server may be silent before it is asked anew; None: 5
    tls_dir: of ca-cert.pem, client-cert.pem and client-key.pem; None: the system's
    tls_psk_file, tls_username: "USER:HEXKEY" lines, and which; None: the login name
    cache_dir: a folder on a local disk: what was read is kept there from one open to the
        next, and what is written survives a server that crashes; None: none
    cache_bytes: most of it; 0: 16 GiB
    cache_grace: seconds that a write whose connection was given up may still come; None: 30
    holes: ask servers what reads as zeros, where reads bring zeros
    """
    connections: int = 0
    depth: int = 0
    fail_timeout: float | None = None
    request_timeout: float | None = None
    tls_dir: Path | None = None
    tls_psk_file: Path | None = None
    tls_username: str | None = None
    cache_dir: Path | None = None
    cache_bytes: int = 0
    cache_grace: float | None = None
    holes: bool = True

    def fill(self, opts: _abi.OpenOpts) -> None:
        """Into what mmnf_field_open() takes."""
        opts.net_connections = unsigned("connections", self.connections, 32)
        opts.net_depth = unsigned("depth", self.depth, 32)
        opts.net_fail_timeout_ms = (
            _FOREVER if self.fail_timeout == math.inf else
            _ms("fail_timeout", self.fail_timeout))
        opts.net_request_timeout_ms = _ms("request_timeout", self.request_timeout)
        opts.net_tls_dir = _path(self.tls_dir)
        opts.net_tls_psk_file = _path(self.tls_psk_file)
        opts.net_tls_username = (None if self.tls_username is None else
                                 os.fsencode(self.tls_username))
        opts.net_cache_dir = _path(self.cache_dir)
        opts.net_cache_bytes = unsigned("cache_bytes", self.cache_bytes)
        opts.net_cache_grace_ms = _ms("cache_grace", self.cache_grace)
        opts.net_holes_off = not self.holes


def _path(path: Path | None) -> bytes | None:
    return None if path is None else path_bytes(path)


def _ms(what: str, seconds: float | None) -> int:
    if seconds is None:
        return 0
    if not 0 < seconds < 4e6:
        raise ValueError(f"{what} is {seconds}: expected more than 0 and less than 4,000,000 "
                         "seconds")
    return max(round(seconds * 1000), 1)


def server_names(servers: str | Sequence[str]) -> Any:
    """"URI[,URI...]" of each server, as an array of C strings."""
    names = [servers] if isinstance(servers, str) else list(servers)
    if not names:
        raise ValueError("servers is empty: expected a URI for each server")
    return (ctypes.c_char_p * len(names))(*(path_bytes(name) for name in names))
