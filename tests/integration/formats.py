#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Files of numpy, safetensors, nibabel, gguf and pynrrd are used where they lie,
and what the library exports they read.  KTAP.
"""
import os
import sys

try:
    import gguf
    import ml_dtypes
    import nibabel
    import nrrd
    import numpy as np
    import safetensors
    import safetensors.numpy
except ImportError as error:
    print(f"1..0 # SKIP {error}: tests/deps.sh test")
    print(error)
    sys.exit(4)

sys.path.insert(0, os.path.join(os.environ["MMNF_SRC"], "tests"))
import fieldlib  # noqa: E402
from fieldlib import Field, check_ours, elements, raises, refused, same  # noqa: E402

SHAPE = (11, 13, 17)
TYPES = fieldlib.TYPES
ALL = {**TYPES, fieldlib.BF16: ml_dtypes.bfloat16}


def npy(dtype, folder):
    values = elements(dtype, SHAPE)
    for version in ((1, 0), (2, 0), (3, 0)):
        for order in "CF":
            path = os.path.join(folder, f"{version[0]}{order}.npy")
            with open(path, "wb") as file:
                np.lib.format.write_array(file, np.asarray(values, order=order), version)
            check_ours(path, dtype, values)
    with Field(path, dtype) as field:
        info = field.info()
        # Fortran order: the first axis is the fastest.
        assert info.stride_bytes[0] == np.dtype(dtype).itemsize
        assert info.format == b"npy" and info.nr_segments == 1
        for order in "CF":
            field.give(os.path.join(folder, "out.npy"))
            back = np.load(os.path.join(folder, "out.npy"), mmap_mode="r")
            assert same(np.array(back), values)


def safe(number, dtype, folder):
    """Tensors at offsets that are no multiple of anything."""
    path = os.path.join(folder, "a.safetensors")
    values = elements(dtype, SHAPE)
    safetensors.numpy.save_file({"a": np.arange(3, dtype="u1"), "layer.0#w": values,
                                 "z": elements("f4", (5, 7))}, path, {"made": "here"})
    check_ours(path + "#layer.0#w", dtype, values)
    check_ours(path + "#z", "f4", elements("f4", (5, 7)))
    refused(path, "holds 3 tensors")
    refused(path + "#none", "no tensor 'none'")
    with Field(path + "#layer.0#w", dtype) as field:
        assert field.info().dtype == number
        out = os.path.join(folder, "out.safetensors")
        field.give(out)
    with safetensors.safe_open(out, "numpy") as file:
        assert list(file.keys()) == ["data"]
        assert same(file.get_tensor("data"), values)
    check_ours(out, dtype, values)


def nifti(dtype, folder):
    values = elements(dtype, SHAPE)
    for kind in nibabel.Nifti1Image, nibabel.Nifti2Image:
        path = os.path.join(folder, f"{kind.__name__}.nii")
        # nibabel's axes are fastest first.
        nibabel.save(kind(values.T, np.eye(4), dtype=np.dtype(dtype)), path)
        check_ours(path, dtype, values)
    with Field(path, dtype) as field:
        field.give(os.path.join(folder, "out.nii"))
    back = nibabel.load(os.path.join(folder, "out.nii"))
    assert same(np.ascontiguousarray(np.asarray(back.dataobj.get_unscaled()).T), values)


def nifti_of_many(folder):
    """An extent that NIfTI-1 cannot say."""
    values = elements("i2", (2, 40000))
    np.save(os.path.join(folder, "a.npy"), values)
    with Field(os.path.join(folder, "a.npy"), "i2") as field:
        field.give(os.path.join(folder, "out.nii"))
    back = nibabel.load(os.path.join(folder, "out.nii"))
    assert isinstance(back, nibabel.Nifti2Image)
    assert same(np.ascontiguousarray(np.asarray(back.dataobj.get_unscaled()).T), values)
    check_ours(os.path.join(folder, "out.nii"), "i2", values)


def nrrds(dtype, folder):
    values = elements(dtype, SHAPE)
    for name in "a.nrrd", "b.nhdr":
        path = os.path.join(folder, name)
        nrrd.write(path, values, {"encoding": "raw"}, index_order="C")
        check_ours(path, dtype, values)
    with Field(path, dtype) as field:
        field.give(os.path.join(folder, "out.nrrd"))
    back, _ = nrrd.read(os.path.join(folder, "out.nrrd"), index_order="C")
    assert same(np.ascontiguousarray(back), values)


def nrrd_with_skips(folder):
    values = elements("i4", (5, 6))
    head = "NRRD0005\r\n# a comment\r\nkey:=value\r\ntype: int32\r\ndimension: 2\r\n" \
           "sizes: 6 5\r\nencoding: raw\r\nendian: little\r\n"
    for skip, before, after in ((7, 7, 3), (-1, 100, 0)):
        path = os.path.join(folder, f"{skip}.nhdr")
        with open(os.path.join(folder, f"{skip}.dat"), "wb") as file:
            file.write(b"x" * before + values.tobytes() + b"y" * after)
        with open(path, "w", encoding="ascii", newline="") as file:
            file.write(f"{head}byte skip: {skip}\r\ndata file: {skip}.dat\r\n")
        check_ours(path, "i4", values)
    for name, word in (("/etc/passwd", "in its folder"), ("../a", "in its folder"),
                       ("LIST", "one file"), ("a%d.raw 1 2 1", "one file")):
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{head}data file: {name}\n")
        refused(path, word)


def ggufs(folder):
    """Beside one in quantised blocks, and behind lists of strings."""
    path = os.path.join(folder, "a.gguf")
    writer = gguf.GGUFWriter(path, "test")
    writer.add_array("tokens", [f"token {n}" for n in range(5000)])
    writer.add_array("scores", [n / 2 for n in range(5000)])
    writer.add_string("name", "tensors")
    writer.add_custom_alignment(64)
    tensors = {f"t.{t}": elements(t, (3, 5, 7)) for t in ("f4", "f2", "f8", "i1", "i2", "i4",
                                                         "i8")}
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    bf16 = elements(ml_dtypes.bfloat16, (6, 10))
    writer.add_tensor("t.bf16", bf16.view("u1"), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.add_tensor("t.q8", gguf.quants.quantize(elements("f4", (4, 64)),
                                                   gguf.GGMLQuantizationType.Q8_0),
                      raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for name, values in tensors.items():
        check_ours(f"{path}#{name}", values.dtype, values)
    check_ours(f"{path}#t.bf16", bf16.dtype, bf16)
    refused(f"{path}#t.q8", "of type 8: expected plain elements")
    refused(path, "holds 9 tensors")


def bins(folder):
    for suffix, dtype in ((".fbin", "f4"), (".u8bin", "u1"), (".i8bin", "i1"), (".ibin", "i4")):
        path = os.path.join(folder, "a" + suffix)
        values = elements(dtype, (100, 7))
        with open(path, "wb") as file:
            np.array(values.shape, "<u4").tofile(file)
            values.tofile(file)
        check_ours(path, dtype, values)
        with Field(path, dtype) as field:
            field.give(os.path.join(folder, "out"), "fbin")
            field.give(os.path.join(folder, "named" + suffix))
            other = os.path.join(folder, "wrong" + (".ibin" if dtype == "f4" else ".fbin"))
            for form in None, "fbin":
                raises(OSError, field.give, other, form, text=f"ends in {suffix}")
            assert not os.path.exists(other)
        for name in "out", "named" + suffix:
            with open(path, "rb") as a, open(os.path.join(folder, name), "rb") as b:
                assert a.read() == b.read()
        with open(path, "ab") as file:
            file.write(b"x")
        refused(path, "expected 8 + ")


def raws(dtype, folder):
    """At an odd offset, in either order, by strides of any sign."""
    dtype = np.dtype(dtype)
    number = [n for n, t in ALL.items() if np.dtype(t) == dtype][0]
    name = fieldlib.lib.mmnf_dtype_name
    name.restype = fieldlib.c.c_char_p
    values = elements(dtype, (12, 10, 9))
    path = os.path.join(folder, "a#b.bin")
    with open(path, "wb") as file:
        file.write(b"odd" + values.tobytes())
    kind = f"{path}#raw,dtype={name(number).decode()}"
    check_ours(f"{kind},shape=12x10x9,offset=3", dtype, values)
    check_ours(f"{kind},shape=9x10x12,offset=3,order=F", dtype, values.T)
    flat = values.reshape(-1)
    size = dtype.itemsize
    # Every third, backwards; and windows that overlap.
    check_ours(f"{kind},shape=300,offset={3 + 899 * size},strides={-3 * size}", dtype,
               flat[899::-3])
    check_ours(f"{kind},shape=50x20,offset=3,strides={size * 7}x{size}", dtype,
               np.lib.stride_tricks.as_strided(flat, (50, 20), (size * 7, size)))
    refused(f"{kind},shape=12x10x10,offset=3", "of data")
    refused(f"{kind},shape=300,offset=3,strides=-{size}", "of data")
    refused(f"{kind},shape=0", "shape=0")
    with Field(f"{kind},shape=12x10x9,offset=3", dtype) as field:
        field.give(os.path.join(folder, "out.raw"), start=(1, 2, 3), count=(4, 5, 6))
    back = np.fromfile(os.path.join(folder, "out.raw"), dtype).reshape(4, 5, 6)
    assert same(back, np.ascontiguousarray(values[1:5, 2:7, 3:9]))


def written_in_place(folder):
    path = os.path.join(folder, "a.npy")
    values = np.asarray(elements("i4", SHAPE), order="F")
    np.save(path, values)
    changed = values.copy()
    changed[9:2:-2, ::3, 4:] = 7
    with Field(path, "i4", writable=True) as field:
        field.write((9, 0, 4), changed[9:2:-2, ::3, 4:], (-2, 3, 1))
    assert same(np.load(path), changed)


def imported_from_each(folder):
    """Into fields whose segments cut every way."""
    values = elements("f4", (40, 50, 60))
    np.save(os.path.join(folder, "c.npy"), values)
    np.save(os.path.join(folder, "f.npy"), np.asfortranarray(values))
    safetensors.numpy.save_file({"a": values}, os.path.join(folder, "a.safetensors"))
    for number, source in enumerate(("c.npy", "f.npy", "a.safetensors#a")):
        path = os.path.join(folder, f"f{number}")
        fieldlib.create(path, 11, (60, 50, 60), 100000)
        with Field(path, "f4", writable=True) as field:
            assert field.take(os.path.join(folder, source), (20, 0, 0)) == values.nbytes
        check_ours(path, "f4", np.concatenate([np.zeros((20, 50, 60), "f4"), values]))


def main():
    tests = [(f"npy_{t}", npy, (t,)) for t in TYPES.values()]
    tests += [(f"safetensors_{np.dtype(t).name}", safe, (n, t)) for n, t in ALL.items()]
    tests += [(f"nifti_{t}", nifti, (t,)) for t in TYPES.values() if t != "f2"]
    tests += [(f"nrrd_{t}", nrrds, (t,)) for t in TYPES.values() if t != "f2"]
    tests += [(f"raw_{np.dtype(t).name}", raws, (t,)) for t in ALL.values()]
    tests += [(fn.__name__, fn, ()) for fn in (
        nifti_of_many, nrrd_with_skips, ggufs, bins, written_in_place, imported_from_each)]
    return fieldlib.main(tests)


sys.exit(main())
