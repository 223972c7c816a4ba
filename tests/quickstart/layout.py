# SPDX-License-Identifier: MIT
"""Where a field's values lie, worked out from its zarr.json alone.

A second opinion beside the library's: what is read at these places is compared
with the source, so the two can't be wrong in the same way by accident.
"""
import json
import os


class Layout:
    def __init__(self, path):
        with open(os.path.join(path, "zarr.json"), encoding="utf-8") as file:
            meta = json.load(file)
        self.path = path
        self.shape = meta["shape"]
        self.chunk = meta["chunk_grid"]["configuration"]["chunk_shape"]
        self.separator = meta["chunk_key_encoding"]["configuration"]["separator"]
        self.stride = [4] * len(self.shape)
        for axis in range(len(self.shape) - 2, -1, -1):
            self.stride[axis] = self.stride[axis + 1] * self.chunk[axis + 1]
        self.row_bytes = self.stride[-2]

    def place(self, at):
        """(file, byte offset) of an element."""
        key = [str(a // c) for a, c in zip(at, self.chunk)]
        offset = sum(a % c * s for a, c, s in zip(at, self.chunk, self.stride))
        return os.path.join(self.path, "c", *self.separator.join(key).split("/")), offset

    def line(self, at, axis, count):
        """Elements at, at + 1, ... along an axis: (offset, stride, number, file),
        one per segment that the line passes."""
        at, lines = list(at), []
        while count:
            path, offset = self.place(at)
            number = min(count, self.chunk[axis] - at[axis] % self.chunk[axis])
            lines.append((offset, self.stride[axis], number, path))
            at[axis] += number
            count -= number
        return lines

    def files(self):
        """Segment files that are there."""
        return sorted(os.path.join(folder, name)
                      for folder, _, names in os.walk(os.path.join(self.path, "c"))
                      for name in names)

    def drop_cache(self):
        """So that what is read next comes from the disk."""
        for path in self.files():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
