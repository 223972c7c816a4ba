# SPDX-License-Identifier: MIT
"""The two petabyte fields: made, filled with the real data, read back."""
import os
import shutil
import time

import numpy as np

import library
import source
from layout import Layout

UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


def size_text(size):
    """Decimal units, three digits."""
    power = 0
    while size >= 999.5 and power < len(UNITS) - 1:
        size /= 1000
        power += 1
    return f"{size:.3g} {UNITS[power]}"


class Sample:
    """Real data and the field it goes into.  read is told the file's path."""

    def __init__(self, name, title, shape, at, fetch, read):
        self.name, self.title, self.shape, self.at = name, title, shape, at
        self.fetch, self.read = fetch, read

    def values(self, folder):
        """The source's values with as many axes as the field."""
        return self.read(self.fetch(folder))


SAMPLES = [
    Sample("brain", "a volume of neurons; inside it the brain of a macaque",
           (1_000_000, 1_000_000, 256), (500_000, 500_000, 0),
           source.brain, source.brain_values),
    Sample("words", "features of 86 billion neurons; inside them 30,522 word vectors",
           (86_000_000_000, 1_000), (42_000_000_000, 0),
           source.words, source.words_values),
]


def disk_bytes(path):
    return sum(os.lstat(os.path.join(folder, name)).st_blocks * 512
               for folder, _, names in os.walk(path) for name in names)


def make(sample, data, folder):
    """A new field with the sample's data in it; prints what it took."""
    path = os.path.join(folder, sample.name + ".zarr")
    shutil.rmtree(path, ignore_errors=True)
    began = time.perf_counter()
    library.create(path, sample.shape)
    created = time.perf_counter()
    empty = disk_bytes(path)
    with library.Field(path, "mmap", writable=True) as field:
        opened = time.perf_counter()
        written = field.add(sample.fetch(data), sample.at)
        total = field.info().total_bytes
    print(f"  {sample.name}: {sample.title}\n"
          f"    created   {list(sample.shape)} f32 = {size_text(total)} "
          f"in {(created - began) * 1e3:.1f} ms, {size_text(empty)} on disk; "
          f"opened in {(opened - created) * 1e3:.1f} ms\n"
          f"    imported  {size_text(written)} at {list(sample.at)}; "
          f"{size_text(disk_bytes(path))} on disk now", flush=True)
    return path


def wrong_values(got, expected):
    """How many differ, bit by bit: NaN is a value like any other."""
    expected = np.ascontiguousarray(expected)
    return int(np.count_nonzero(got.view("<u4") != expected.view("<u4")))


def read_back(sample, data, path, engine, while_mapped=None):
    """Every value twice through the library, by pointer from a cold start and
    copied; the number of wrong ones."""
    expected = sample.values(data)
    Layout(path).drop_cache()
    with library.Field(path, engine) as field:
        reason = field.info().engine_reason.decode()
        by_pointer = copied = first = 0
        for part in field.mapped(sample.at, expected.shape):
            by_pointer += wrong_values(part, expected[first:first + len(part)])
            first += len(part)
        copied += wrong_values(field.get(sample.at, expected.shape), expected)
        # Beside the data and far away nothing was written.
        beside = [a - 1 if a else e for a, e in zip(sample.at, expected.shape)]
        for at in (beside, [0] * len(sample.shape), [e - 1 for e in sample.shape]):
            copied += int(field.get(at, [1] * len(at)).any())
        print(f"  {sample.name}: {expected.size:,} values through the {engine} engine "
              f"({reason}): {by_pointer} wrong by pointer, {copied} wrong copied",
              flush=True)
        if while_mapped:
            while_mapped()
    return by_pointer + copied
