#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The library, zarr-python and tensorstore read and write what the others wrote:
each type, regular chunks and shards.  KTAP.
"""
import os
import sys

try:
    import ml_dtypes
    import numpy as np
    import tensorstore as ts
    import zarr
    from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, TransposeCodec
except ImportError as error:
    print(f"1..0 # SKIP {error}: tests/deps.sh test")
    print(error)
    sys.exit(4)

sys.path.insert(0, os.path.join(os.environ["MMNF_SRC"], "tests"))
import fieldlib  # noqa: E402
from fieldlib import Field, boxes, check_ours, create, elements, refused, same  # noqa: E402

SHAPE = (23, 17, 29)
TYPES = fieldlib.TYPES
# zarr-python has no bfloat16, tensorstore has.
ALL = {**TYPES, fieldlib.BF16: ml_dtypes.bfloat16}


def fill_of(dtype):
    return np.array(3 if np.dtype(dtype).kind in "iu" else -1.5, dtype)


def tensorstore(path, **create_with):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}, **create_with}
    return ts.open(spec, open=True, create=bool(create_with)).result()


def check_zarr(path, expected, number=2):
    rng = np.random.default_rng(8)
    array = zarr.open_array(path, mode="r")
    assert array.shape == expected.shape and array.dtype == expected.dtype
    assert same(np.asarray(array[...]), expected)
    for _, _, _, slices in boxes(rng, expected.shape, False, number):
        assert same(np.asarray(array[slices]), expected[slices]), slices


def check_tensorstore(path, expected, number=6):
    rng = np.random.default_rng(8)
    array = tensorstore(path)
    assert same(array.read().result(), expected)
    for _, _, _, slices in boxes(rng, expected.shape, False, number):
        got = array[slices].read().result()
        assert got.tobytes() == expected[slices].tobytes(), slices


def check_all(path, dtype, expected):
    check_ours(path, dtype, expected)
    check_tensorstore(path, expected)
    if np.dtype(dtype) != ml_dtypes.bfloat16:
        check_zarr(path, expected)


def written_by_each(path, dtype, expected):
    """The store goes round; each writes a part that the others then see."""
    rng = np.random.default_rng(10)
    writers = ["ours", "tensorstore", "ours", "zarr", "ours"]
    if np.dtype(dtype) == ml_dtypes.bfloat16:
        writers.remove("zarr")
    values = elements(dtype, (101,) + expected.shape[1:])[101 - expected.shape[0]:]
    for writer in writers:
        for start, _, step, slices in boxes(rng, expected.shape, False, 2):
            expected[slices] = values[slices]
            if writer == "ours":
                with Field(path, dtype, writable=True) as field:
                    field.write(start, values[slices], step)
                    # Before it is synced: by this handle's copies.
                    assert same(field.get(start, values[slices].shape, step), values[slices])
            elif writer == "zarr":
                zarr.open_array(path, mode="r+")[slices] = values[slices]
            else:
                tensorstore(path)[slices] = values[slices]
        check_ours(path, dtype, expected, fieldlib.MMAP)
        check_tensorstore(path, expected, 2)
    check_all(path, dtype, expected)


def ours(number, dtype, folder):
    """Written in random boxes, in segments of three slabs, or in tiles."""
    fill, all_of = fill_of(dtype), elements(dtype, SHAPE)
    for name, tile, segment in (("linear", None, 3 * 17 * 29), ("tiled", (4, 8, 16), 512 * 6),
                                ("one", (3, 17, 29), 0)):
        path = os.path.join(folder, name)
        expected = np.full(SHAPE, fill, dtype)
        create(path, number, SHAPE, segment * fill.itemsize, fill, tile)
        check_ours(path, dtype, expected, fieldlib.MMAP)
        with Field(path, dtype, writable=True) as field:
            for start, _, step, slices in boxes(np.random.default_rng(9), (8, 17, 29), True, 3):
                expected[slices] = all_of[slices]
                field.write(start, all_of[slices], step)
            assert same(field.get((0, 0, 0), SHAPE), expected)
        check_tensorstore(path, expected)
        assert not os.path.exists(os.path.join(path, "c", "7"))
        written_by_each(path, dtype, expected)


def regular(dtype, folder):
    """Chunks of whole slabs, rows, parts of rows or boxes; both kinds of keys."""
    expected = elements(dtype, SHAPE)
    expected[5:11] = fill_of(dtype)
    for number, (chunks, keys) in enumerate((
            ((4, 17, 29), {"name": "default", "separator": "/"}),
            ((1, 5, 29), {"name": "default", "separator": "."}),
            ((5, 4, 7), {"name": "default", "separator": "/"}),
            ((30, 17, 29), {"name": "v2", "separator": "/"}))):
        path = os.path.join(folder, f"theirs{number}")
        array = zarr.create_array(path, shape=SHAPE, chunks=chunks, dtype=dtype,
                                  fill_value=fill_of(dtype)[()], compressors=None,
                                  filters=None, chunk_key_encoding=keys,
                                  config={"write_empty_chunks": False})
        array[...] = expected
        check_ours(path, dtype, expected)
        # And what the library then writes, zarr reads.
        after = expected.copy()
        after[::-3, 2, :] = expected[0, 0, 0]
        with Field(path, dtype, writable=True) as field:
            field.write((22, 2, 0), after[::-3, 2:3, :], (-3, 1, 1))
        check_zarr(path, after)
        check_ours(path, dtype, after)


def sharded(dtype, folder):
    """Index first or last, with and without its checksum, chunks missing, any
    order of the axes."""
    expected = elements(dtype, SHAPE)
    expected[5:11] = fill_of(dtype)
    expected[:, 4:8, 8:] = fill_of(dtype)
    for number, (location, crc, order) in enumerate((
            ("end", True, None), ("start", True, None), ("end", False, (2, 0, 1)),
            ("start", False, (1, 2, 0)))):
        path = os.path.join(folder, f"theirs{number}")
        inner = [BytesCodec()]
        if order:
            inner.insert(0, TransposeCodec(order=order))
        codec = ShardingCodec(chunk_shape=(4, 4, 8), codecs=inner, index_location=location,
                              index_codecs=[BytesCodec()] + [Crc32cCodec()] * crc)
        array = zarr.create_array(path, shape=SHAPE, chunks=(8, 20, 16), dtype=dtype,
                                  fill_value=fill_of(dtype)[()], serializer=codec,
                                  compressors=None, filters=None,
                                  config={"write_empty_chunks": False})
        array[...] = expected
        check_ours(path, dtype, expected)
        written_by_each(path, dtype, expected.copy())


def by_tensorstore(dtype, folder):
    """What tensorstore made, in shards and in regular chunks."""
    dtype = np.dtype(dtype)
    expected = elements(dtype, SHAPE)
    expected[::5] = fill_of(dtype)
    little = [{"name": "bytes", "configuration": {"endian": "little"}}]
    shards = [{"name": "sharding_indexed", "configuration": {
        "chunk_shape": [2, 5, 8], "codecs": little,
        "index_codecs": little + [{"name": "crc32c"}], "index_location": "start"}}]
    for number, (codecs, chunks) in enumerate(((little, (8, 5, 29)), (shards, (6, 20, 32)))):
        path = os.path.join(folder, f"ts{number}")
        array = tensorstore(path, metadata={
            "shape": SHAPE, "data_type": dtype.name, "fill_value": float(fill_of(dtype)),
            "codecs": codecs, "chunk_grid": {"name": "regular",
                                             "configuration": {"chunk_shape": chunks}}}
            if dtype.kind not in "iu" else {
                "shape": SHAPE, "data_type": dtype.name, "fill_value": int(fill_of(dtype)),
                "codecs": codecs, "chunk_grid": {"name": "regular",
                                                 "configuration": {"chunk_shape": chunks}}})
        array[...] = expected
        check_ours(path, dtype, expected)
        written_by_each(path, dtype, expected)


def many_tiles(folder):
    """More tiles than wait for one flush, pointers across all of them."""
    shape = (130, 70, 3)
    values = elements("i2", shape)
    path = os.path.join(folder, "f")
    create(path, 3, shape, 0, None, (1, 1, 3))
    with Field(path, "i2", writable=True) as field:
        field.write((0, 0, 0), values)
        assert same(field.get((0, 0, 0), shape), values)
    check_all(path, "i2", values)


def refuses_what_is_not_handled(folder):
    path = os.path.join(folder, "gzip")
    zarr.create_array(path, shape=(10,), chunks=(10,), dtype="f4")
    refused(path, "codecs")
    path = os.path.join(folder, "inner")
    zarr.create_array(path, shape=(16,), chunks=(4,), shards=(8,), dtype="f4")
    refused(path, "codecs")
    path = os.path.join(folder, "nested")
    inner = ShardingCodec(chunk_shape=(2,), codecs=[BytesCodec()])
    zarr.create_array(path, shape=(16,), chunks=(8,), dtype="f4", compressors=None,
                      serializer=ShardingCodec(chunk_shape=(4,), codecs=[inner]))
    refused(path, "codecs")


def special_fills(folder):
    for number, value in enumerate((np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38)):
        for kind, dtype in ((11, "f4"), (12, "f8")):
            fill = np.array(value, dtype)
            for tile in None, (2, 2):
                path = os.path.join(folder, f"{dtype}-{number}-{bool(tile)}")
                create(path, kind, (4, 5), 0, fill, tile)
                check_zarr(path, np.full((4, 5), fill))
                check_tensorstore(path, np.full((4, 5), fill))
            theirs = path + "-zarr"
            zarr.create_array(theirs, shape=(4, 5), chunks=(2, 5), dtype=dtype,
                              fill_value=fill[()], compressors=None)
            check_ours(theirs, dtype, np.full((4, 5), fill))


def large_fills(folder):
    """Integers that not every JSON library has."""
    for number, value in enumerate((2**63, 2**64 - 1)):
        expected = np.full((4, 5), value, "u8")
        path = os.path.join(folder, f"ours-{number}")
        create(path, 8, (4, 5), 0, np.array(value, "u8"), None)
        check_zarr(path, expected)
        check_tensorstore(path, expected)
        path = os.path.join(folder, f"theirs-{number}")
        zarr.create_array(path, shape=(4, 5), chunks=(2, 5), dtype="u8", fill_value=value,
                          compressors=None)
        check_ours(path, "u8", expected)


def main():
    some = TYPES if os.environ.get("MMNF_ALL") else {2: "u1", 3: "i2", 11: "f4", 8: "u8"}
    tests = [(f"ours_{np.dtype(t).name}", ours, (n, t)) for n, t in ALL.items()]
    tests += [(f"sharded_{t}", sharded, (t,)) for t in TYPES.values()]
    tests += [(f"regular_{t}", regular, (t,)) for t in some.values()]
    tests += [(f"tensorstore_{np.dtype(t).name}", by_tensorstore, (t,)) for t in ALL.values()]
    tests += [(fn.__name__, fn, ()) for fn in (
        many_tiles, refuses_what_is_not_handled, special_fills, large_fills)]
    return fieldlib.main(tests)


sys.exit(main())
