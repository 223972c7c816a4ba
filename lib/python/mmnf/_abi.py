# SPDX-License-Identifier: MIT
"""include/mmnf.h in ctypes: structs, enums and prototypes, and nothing that acts.

tests/integration/python_abi.py holds it against the header by a C compiler.
"""
from __future__ import annotations

import ctypes as c

NDIM_MAX = 8
TIERS_MAX = 16

Axes = c.c_uint64 * NDIM_MAX
Strides = c.c_int64 * NDIM_MAX

# enum mmnf_dtype, by the names of mmnf_dtype_name()
DTYPES = {"i8": 1, "u8": 2, "i16": 3, "u16": 4, "i32": 5, "u32": 6, "i64": 7, "u64": 8,
          "f16": 9, "bf16": 10, "f32": 11, "f64": 12}
# enum mmnf_engine, enum mmnf_uring, enum mmnf_l2_policy, enum mmnf_gpu_path
ENGINES = {"auto": 0, "device": 1, "mmap": 2, "direct": 3, "net": 4}
URINGS = {"auto": 0, "off": 1, "sqpoll": 2}
L2_POLICIES = {"default_policy": 0, "lru": 1, "sieve": 2, "s3fifo": 3}
GPU_PATHS = {"auto": 0, "copy": 1, "kernel": 2}

Found = c.CFUNCTYPE(None, c.c_void_p, c.c_char_p)
Progress = c.CFUNCTYPE(None, c.c_void_p, c.c_uint64, c.c_uint64)


class CreateOpts(c.Structure):
    _fields_ = [("size", c.c_size_t), ("segment_bytes", c.c_uint64), ("fill", c.c_void_p),
                ("tile", c.c_void_p), ("checksums", c.c_uint32), ("reserved", c.c_uint32),
                ("net", c.c_void_p), ("nr_net", c.c_uint32), ("reserved2", c.c_uint32),
                ("stripe_bytes", c.c_uint64)]


class OpenOpts(c.Structure):
    _fields_ = [("size", c.c_size_t), ("engine", c.c_uint32), ("writable", c.c_uint32),
                ("max_windows", c.c_uint32), ("prefetch_off", c.c_uint32),
                ("uring", c.c_uint32), ("l2_policy", c.c_uint32), ("l2_bytes", c.c_uint64),
                ("l2_populate", c.c_uint32), ("l2_once", c.c_uint32),
                ("net_connections", c.c_uint32), ("net_depth", c.c_uint32),
                ("net_fail_timeout_ms", c.c_uint32), ("net_request_timeout_ms", c.c_uint32),
                ("net_tls_dir", c.c_char_p), ("net_tls_psk_file", c.c_char_p),
                ("net_tls_username", c.c_char_p),
                ("net_cache_dir", c.c_char_p), ("net_cache_bytes", c.c_uint64),
                ("net_cache_grace_ms", c.c_uint32), ("net_holes_off", c.c_uint32)]


class FieldInfo(c.Structure):
    _fields_ = [("size", c.c_size_t), ("dtype", c.c_uint32), ("ndim", c.c_uint32),
                ("engine", c.c_uint32), ("element_bytes", c.c_uint32), ("shape", Axes),
                ("segment_shape", Axes), ("total_bytes", c.c_uint64),
                ("segment_bytes", c.c_uint64), ("nr_segments", c.c_uint64),
                ("fill", c.c_uint8 * 8), ("engine_reason", c.c_char * 128),
                ("tile_shape", Axes), ("stride_bytes", Strides),
                ("data_offset_bytes", c.c_uint64), ("format", c.c_char * 16)]


class Box(c.Structure):
    _fields_ = [("start", Axes), ("count", Axes), ("step", Strides)]


class GuardOpts(c.Structure):
    _fields_ = [("size", c.c_size_t), ("bad_page", c.c_void_p), ("arg", c.c_void_p),
                ("poison", c.c_void_p)]


class BatchOpts(c.Structure):
    _fields_ = [("size", c.c_size_t), ("depth", c.c_uint32), ("eventfd", c.c_int32)]


class Request(c.Structure):
    _fields_ = [("user_data", c.c_uint64), ("box", c.c_void_p), ("index", c.c_void_p),
                ("nr", c.c_size_t), ("dst", c.c_void_p), ("dst_bytes", c.c_size_t),
                ("deadline_ns", c.c_int64), ("once", c.c_uint32), ("reserved", c.c_uint32),
                ("reserved2", c.c_uint64)]


class Completion(c.Structure):
    _fields_ = [("user_data", c.c_uint64), ("result", c.c_int64)]


class VerifyOpts(c.Structure):
    _fields_ = [("size", c.c_size_t), ("repair", c.c_uint32), ("reserved", c.c_uint32),
                ("found", Found), ("progress", Progress), ("arg", c.c_void_p)]


class VerifyResult(c.Structure):
    _fields_ = [("size", c.c_size_t)] + [(name, c.c_uint64) for name in (
        "nr_segments", "nr_tiles", "nr_checked", "nr_bad", "nr_repaired")]


class Residency(c.Structure):
    _fields_ = [("size", c.c_size_t), ("hot_bytes", c.c_uint64), ("warm_bytes", c.c_uint64),
                ("cold_bytes", c.c_uint64)]


class FieldStats(c.Structure):
    _fields_ = [("size", c.c_size_t)] + [(name, c.c_uint64) for name in (
        "gets", "get_bytes", "windows_mapped", "windows_unmapped", "accesses", "hits",
        "late", "misses", "prefetched_pages", "used_pages", "wasted_pages",
        "pending_pages")]


class NetStats(c.Structure):
    _fields_ = [("size", c.c_size_t)] + [(name, c.c_uint32) for name in (
        "nr_servers", "connections", "connections_up", "window", "in_flight", "queued")] + [
            (name, c.c_uint64) for name in (
                "size_bytes", "reads", "writes", "flushes", "read_bytes", "written_bytes",
                "retries", "requeued", "timeouts", "reconnects", "refused", "failed",
                "latency_p50_ns", "latency_p99_ns", "holes", "hole_bytes", "hole_reads")] + [
                    ("uri", c.c_char * 128), ("cause", c.c_char * 160)]


class Tier(c.Structure):
    _fields_ = [("level", c.c_uint32), ("is_on", c.c_uint32), ("size_bytes", c.c_uint64),
                ("used_bytes", c.c_uint64), ("name", c.c_char * 16), ("text", c.c_char * 232)]


class Tiers(c.Structure):
    _fields_ = [("size", c.c_size_t), ("nr_tiers", c.c_uint32), ("tier", Tier * TIERS_MAX)]


class GpuOpts(c.Structure):
    _fields_ = [("size", c.c_size_t), ("device", c.c_uint32), ("tile_bytes", c.c_uint32),
                ("budget_bytes", c.c_uint64), ("path", c.c_uint32), ("reserved", c.c_uint32)]


class Selection(c.Structure):
    _fields_ = [("size", c.c_size_t), ("index", c.c_void_p), ("nr_index", c.c_size_t),
                ("box", c.c_void_p)]


class GpuStats(c.Structure):
    _fields_ = [("size", c.c_size_t)] + [(name, c.c_uint64) for name in (
        "hits", "late", "misses", "prefetched", "used", "wasted", "pending", "parts",
        "overflow", "read_bytes", "copied_bytes", "scattered_bytes", "gathered_bytes",
        "tile_bytes", "nr_slots", "nr_slots_used")]


# What every library this package can use has: result, arguments.
_P, _Z = c.c_void_p, c.c_size_t
PROTOTYPES: dict[str, tuple[object, list[object]]] = {
    "mmnf_version": (c.c_char_p, []),
    "mmnf_last_error": (c.c_char_p, []),
    "mmnf_field_create": (c.c_int, [c.c_char_p, c.c_int, c.c_uint, _P, _P]),
    "mmnf_field_open": (c.c_int, [_P, c.c_char_p, _P]),
    "mmnf_field_close": (None, [_P]),
    "mmnf_field_info": (c.c_int, [_P, _P]),
    "mmnf_field_stats": (c.c_int, [_P, _P]),
    "mmnf_field_sync": (c.c_int, [_P]),
    "mmnf_field_resize": (c.c_int, [_P, c.c_uint64]),
    "mmnf_field_verify": (c.c_int, [_P, _P, _P]),
    "mmnf_get": (c.c_ssize_t, [_P, _P, _P, _Z]),
    "mmnf_batch_get": (c.c_ssize_t, [_P, _P, _Z, _P, _Z]),
    "mmnf_batch_get_boxes": (c.c_ssize_t, [_P, _P, _Z, _P, _Z]),
    "mmnf_batch_open": (c.c_int, [_P, _P, _P]),
    "mmnf_batch_submit": (c.c_int, [_P, _P, c.c_uint]),
    "mmnf_batch_reap": (c.c_int, [_P, _P, c.c_uint, c.c_uint, c.c_int64]),
    "mmnf_batch_cancel": (c.c_int, [_P, c.c_uint64]),
    "mmnf_batch_close": (None, [_P]),
    "mmnf_write": (c.c_ssize_t, [_P, _P, _P, _Z]),
    "mmnf_prefetch": (c.c_ssize_t, [_P, _P]),
    "mmnf_evict": (c.c_ssize_t, [_P, _P]),
    "mmnf_residency": (c.c_int, [_P, _P, _P]),
    "mmnf_window_pin": (_P, [_P, _P]),
    "mmnf_window_unpin": (c.c_int, [_P, _P]),
    "mmnf_guard_enable": (c.c_int, [_P, _P]),
    "mmnf_guard_disable": (c.c_int, [_P]),
    "mmnf_guard_bad_pages": (c.c_uint64, [_P]),
    "mmnf_import": (c.c_ssize_t, [_P, c.c_char_p, _P, Progress, _P]),
    "mmnf_export": (c.c_ssize_t, [_P, _P, c.c_char_p, c.c_char_p, Progress, _P]),
    "mmnf_tiers_info": (c.c_int, [_P, _P]),
    "mmnf_net_stats": (c.c_int, [_P, c.c_uint32, _P]),
    "mmnf_gpu_enable": (c.c_int, [_P, _P]),
    "mmnf_gpu_forget": (c.c_ssize_t, [_P, _P]),
    "mmnf_gpu_stats": (c.c_int, [_P, c.c_uint32, _P]),
    "mmnf_batch_get_device": (c.c_ssize_t, [_P, _P, c.c_uint64, _Z, _P]),
    "mmnf_prefetch_device": (c.c_ssize_t, [_P, c.c_uint32, _P]),
    "mmnf_device_alloc": (c.c_int, [_P, c.c_uint32, _Z]),
    "mmnf_device_free": (c.c_int, [c.c_uint64, _P]),
    "mmnf_device_order": (c.c_int, [c.c_uint32, _P, _P]),
    "mmnf_device_read": (c.c_ssize_t, [c.c_uint32, _P, c.c_uint64, _Z, _P]),
}
