#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""lib/python against numpy: what field[index] is, array[index] must be, in value,
shape, type and exception; for every dtype, format and engine.  KTAP.
"""
import os
import sys

try:
    import ml_dtypes
    import numpy as np
    import safetensors.numpy
except ImportError as error:
    print(f"1..0 # SKIP {error}: tests/deps.sh test")
    print(error)
    sys.exit(4)

SRC = os.environ["MMNF_SRC"]
os.environ["MMNF_LIBRARY"] = os.environ["MMNF_LIB"]
sys.path[:0] = [os.path.join(SRC, "tests"), os.path.join(SRC, "lib", "python")]
import fieldlib  # noqa: E402
import mmnf  # noqa: E402
from fieldlib import elements, raises, same  # noqa: E402

DTYPES = [np.dtype(t) for t in fieldlib.TYPES.values()] + [np.dtype(ml_dtypes.bfloat16)]
SHAPE = (13, 9, 6, 5)
ENGINES = ["mmap", "direct"] + (["device"] if os.access("/dev/mmnf", os.R_OK) else [])


def some_slice(rng, size):
    def edge():
        return None if rng.random() < 0.3 else int(rng.integers(-size - 3, size + 4))

    step = int(rng.integers(1, 4)) * (1 if rng.random() < 0.6 else -1)
    return slice(edge(), edge(), None if rng.random() < 0.3 else step)


def some_array(rng, size, number):
    """Integers that broadcast with others of the same number, seldom outside."""
    low, high = (-size, size) if rng.random() < 0.98 else (-size - 1, size + 1)
    shape = [(number,), (1,), (2, number), (2, 1)][rng.choice(4, p=[0.6, 0.1, 0.2, 0.1])]
    values = rng.integers(low, high, shape)
    kind = rng.random()
    if kind < 0.4:
        return values.tolist()
    return values.astype("i4") if kind < 0.6 else values


def some_mask(rng, sizes, number):
    mask = np.zeros(int(np.prod(sizes)), bool)
    mask[rng.permutation(mask.size)[:number]] = True
    return mask.reshape(sizes)


def some_int(rng, size):
    value = int(rng.integers(-size, size)) if rng.random() < 0.99 else size
    return [int, np.int64, np.uint8 if value >= 0 else np.int8, np.array][rng.integers(4)](value)


def some_key(rng, shape, arrays):
    """A random index; arrays: how likely an item is one."""
    key, axis, number, dots = [], 0, int(rng.integers(0, 4)), False
    many = int(rng.integers(0, len(shape) + 1))
    while axis < many:
        kind, size = rng.random(), shape[axis]
        if kind < arrays * 0.7:
            key.append(some_array(rng, size, number))
        elif kind < arrays * 0.85:
            key.append(some_mask(rng, (size,), number))
        elif kind < arrays and axis + 1 < many:
            key.append(some_mask(rng, shape[axis:axis + 2], number))
            axis += 1
        elif kind < arrays + (1 - arrays) * 0.4:
            key.append(some_int(rng, size))
        else:
            key.append(some_slice(rng, size))
        axis += 1
        if rng.random() < 0.15:
            key.append(None)
        if rng.random() < 0.1 and not dots:
            key.append(...)
            dots, axis = True, max(axis, int(rng.integers(axis, len(shape) + 1)))
        if rng.random() < 0.01:
            key.append(bool(rng.random() < 0.7))
    return key[0] if len(key) == 1 and rng.random() < 0.5 else tuple(key)


def result(array, key):
    try:
        return array[key], None
    except (IndexError, TypeError, ValueError) as error:
        return None, type(error)


def check_reads(field, array, seed, number, arrays=0.3):
    """How many indices numpy took, too: they must not all be errors."""
    rng, good = np.random.default_rng(seed), 0
    for _ in range(number):
        key = some_key(rng, array.shape, arrays)
        expected, refused = result(array, key)
        if refused:
            try:
                got = field[key]
            except refused:
                continue
            raise AssertionError(f"{key}: {got} instead of {refused}")
        got = field[key]
        assert type(got) is type(expected), f"{key}: {type(got)}, not {type(expected)}"
        assert same(got, expected), f"{key}: {got}\nexpected {expected}"
        good += 1
    assert good > number * 0.7, f"numpy took {good} of {number} indices"


def check_writes(field, array, seed, number):
    rng = np.random.default_rng(seed)
    for turn in range(number):
        key = some_key(rng, array.shape, 0.2)
        wanted, refused = result(array, key)
        values = elements(array.dtype, np.shape(wanted) if not refused else ())
        # numpy takes no array for a single element, the field does.
        values = [values, values.tolist(), 7, values[None]][
            int(rng.integers(4 if values.ndim else 3))]
        if refused:
            try:
                field[key] = 7
            except refused:
                continue
            raise AssertionError(f"{key}: written instead of {refused}")
        try:
            array[key] = values
        except ValueError:  # [] is flat, whatever it was the list of
            raises(ValueError, field.__setitem__, key, values)
            continue
        field[key] = values
        if turn % 8 == 0:
            assert same(field[...], array), key
    assert same(field[...], array)


def basic_and_fancy(folder):
    """3,000 indices of a field of four axes, with and without arrays."""
    array = elements("f4", SHAPE)
    path = os.path.join(folder, "f")
    with mmnf.create(path, SHAPE, "f4") as field:
        field[...] = array
        check_reads(field, array, 1, 1500, 0)
        check_reads(field, array, 2, 1500)


def tiled(folder):
    array = elements("i2", SHAPE)
    path = os.path.join(folder, "f")
    with mmnf.create(path, SHAPE, "i2", tile=(4, 3, 2, 5), checksums=True) as field:
        assert field.tile == (4, 3, 2, 5)
        field[...] = array
        check_reads(field, array, 3, 500)
        field.sync()
        found = field.verify()
        assert found.nr_bad == 0 and not found.findings and found.nr_checked == found.nr_tiles > 0
    with mmnf.open(path, "mmap") as field:
        check_reads(field, array, 4, 500)


def each_dtype(folder):
    for number, dtype in enumerate(DTYPES):
        array = elements(dtype, SHAPE)
        path = os.path.join(folder, f"f{number}")
        fill = 3 if dtype.kind in "iu" else -1.5
        with mmnf.create(path, SHAPE, dtype, fill=fill, segment_bytes=4096) as field:
            assert field.dtype == dtype and field.fill == np.array(fill, dtype)
            assert field.fill.dtype == dtype
            assert same(field[:2], np.full((2, *SHAPE[1:]), fill, dtype))
            field[1:-1] = array[1:-1]
            array[[0, -1]] = fill
            check_reads(field, array, 5, 60)


def each_engine(folder):
    array = elements("u2", SHAPE)
    path = os.path.join(folder, "f")
    for number, options in enumerate(({}, {"tile": (5, 5, 5, 5)}, {"segment_bytes": 4096})):
        where = path + str(number)
        with mmnf.create(where, SHAPE, "u2", **options) as field:
            field[...] = array
        for engine in ENGINES:
            with mmnf.open(where, engine) as field:
                assert field.engine == engine and field.engine_reason
                check_reads(field, array, 6, 150)


def each_format(folder):
    array = elements("f4", SHAPE)
    for number, one in enumerate((array, np.asfortranarray(array))):
        path = os.path.join(folder, f"{number}.npy")
        np.save(path, one)
        with mmnf.open(path) as field:
            assert field.format == "npy" and same(field[...], array)
            check_reads(field, array, 7, 200)
            for key in (slice(None), slice(3, 9, 2), (..., slice(None, None, -1)), (4, None, 2)):
                assert same(field.view(key), array[key]), key
    path = os.path.join(folder, "model.safetensors")
    safetensors.numpy.save_file({"a": elements("i8", (3, 4)), "b": array}, path)
    with mmnf.open(path + "#b", "direct") as field:
        assert field.format == "safetensors"
        check_reads(field, array, 8, 200)
    path = os.path.join(folder, "brain.nii")
    with mmnf.open(os.path.join(folder, "0.npy")) as field:
        assert field.export(path) == array.nbytes
    with mmnf.open(path) as field:
        assert field.format == "nifti"
        check_reads(field, array, 9, 200)
    path = os.path.join(folder, "raw")
    array.tofile(path)
    with mmnf.open(f"{path}#raw,dtype=f32,shape={'x'.join(map(str, SHAPE))}") as field:
        check_reads(field, array, 10, 200)


def writes(folder):
    for number, options in enumerate(({}, {"tile": (4, 3, 2, 5)}, {"segment_bytes": 4096})):
        array = np.zeros(SHAPE, "i4")
        with mmnf.create(os.path.join(folder, f"f{number}"), SHAPE, "i4", **options) as field:
            check_writes(field, array, 11 + number, 150)
        with mmnf.open(os.path.join(folder, f"f{number}")) as field:
            assert same(field[...], array)


def writes_in_pieces(folder):
    """A value too large to be packed at once, broadcast and transposed."""
    shape = (3, 3 << 20, 5)
    with mmnf.create(os.path.join(folder, "f"), shape, "f4") as field:
        row = np.arange(5, dtype="f8")
        field[...] = row
        assert same(field[1, 3000000], row.astype("f4"))
        column = elements("f4", (3, 5, 3 << 20)).transpose(0, 2, 1)
        field[::-1] = column
        for at in (0, 1, (3 << 20) - 1, 1 << 19):
            assert same(field[:, at], column[::-1, at])


def records(folder):
    array = elements("f2", (1000, 7))
    with mmnf.create(os.path.join(folder, "f"), array.shape, "f2") as field:
        field[...] = array
        rng = np.random.default_rng(12)
        for rows in ([], [5], [-1, 0, -1], rng.integers(-1000, 1000, 1000),
                     rng.integers(1000, size=3000).astype("u8")):
            out = np.empty((len(rows), 7), "f2")
            expected = array[np.asarray(rows, "i8")]
            assert field.gather(rows, out) is out and same(out, expected)
            assert same(field.gather(rows), expected) and same(field[list(rows)], expected)
        for rows, refused in (([1000], IndexError), ([-1001], IndexError), ([[1]], TypeError),
                              ([1.5], TypeError), ([True], TypeError), (3, TypeError)):
            raises(refused, field.gather, rows)
        for out in np.empty((2, 7), "f4"), np.empty((3, 7), "f2"), np.empty((7, 2), "f2").T, []:
            raises(ValueError, field.gather, [1, 2], out)
        assert len(field) == 1000 and same(np.array(list(field)), array)


def main():
    return fieldlib.main([(test.__name__, test, ()) for test in (
        basic_and_fancy, tiled, each_dtype, each_engine, each_format, writes,
        writes_in_pieces, records)])


if __name__ == "__main__":
    sys.exit(main())
