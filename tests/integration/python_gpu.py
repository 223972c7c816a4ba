#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""lib/python and the GPU tier, over the fake driver (tests/fakecuda): it runs what is
queued as late and in as odd an order as CUDA allows, and ends the process at the first
thing that breaks CUDA's rules.  KTAP; each test is a process, under several seeds.
"""
import ctypes
import errno
import gc
import os
import subprocess
import sys

try:
    import ml_dtypes
    import numpy as np
except ImportError as error:
    print(f"1..0 # SKIP {error}: tests/deps.sh test")
    print(error)
    sys.exit(4)

SRC = os.environ["MMNF_SRC"]
FAKE = os.path.join(os.environ["MMNF_BUILD"], "libmmnf-fakecuda.so")
os.environ["MMNF_LIBRARY"] = os.environ["MMNF_LIB"]
os.environ.setdefault("MMNF_LIBCUDA", FAKE)
sys.path[:0] = [os.path.join(SRC, "tests"), os.path.join(SRC, "lib", "python")]
import fieldlib  # noqa: E402
import mmnf  # noqa: E402
from fieldlib import elements, raises, same  # noqa: E402

SHAPE = (400, 16, 8)
SEEDS = int(os.environ.get("MMNF_GPU_SEEDS", "6"))


def made(folder, dtype="f4"):
    array = elements(dtype, SHAPE)
    path = os.path.join(folder, "f")
    with mmnf.create(path, SHAPE, dtype) as field:
        field[...] = array
    return mmnf.open(path), array


def streams(number):
    """Streams of the test's own, as a program with CUDA has them."""
    cuda = ctypes.CDLL(os.environ["MMNF_LIBCUDA"])
    context = ctypes.c_void_p()
    assert not cuda.cuInit(0)
    assert not cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    assert not cuda.cuCtxPushCurrent_v2(context)
    made_streams = []
    for _ in range(number):
        stream = ctypes.c_void_p()
        assert not cuda.cuStreamCreate(ctypes.byref(stream), 1)
        made_streams.append(stream.value)
    return cuda, made_streams


def gathers(folder):
    field, array = made(folder)
    field.gpu_enable(tile_bytes=4096, budget_bytes=200000)
    _, (one, two) = streams(2)
    rng = np.random.default_rng(1)
    for turn in range(12):
        rows = rng.integers(-400, 400, int(rng.integers(1, 120)))
        stream = (None, one, two)[turn % 3]
        got = field.gather_device(rows, stream=stream)
        assert isinstance(got, mmnf.DeviceArray) and got.shape == (len(rows), *SHAPE[1:])
        assert same(got.to_host(), array[rows])
    for key in (..., 3, (slice(5, 300, 7), slice(None, None, -3)), (4, None, -1, slice(2, 5)),
                (1, 2, 3), np.array([[1, 2], [3, -4]]), np.arange(400) % 9 == 2, slice(3, 3), []):
        expected = np.asarray(array[key])
        assert same(field.gather_device(key).to_host(), expected), key
    raises(TypeError, field.gather_device, (slice(None), [1, 2]), text="whole records")
    raises(IndexError, field.gather_device, [400])
    raises(ValueError, field.gather_device, [1], stream=-1, text="CUstream")
    raises(ValueError, field.gather_device, [1], device=-1, text="device is -1")
    error = raises(mmnf.Error, field.gather_device, [1], device=3, text="device 3")
    assert error.errno == errno.ENODEV
    stats = field.gpu_stats()
    assert stats["gathered_bytes"] > 0 and stats["hits"] + stats["misses"] > 0
    assert field.prefetch_device([1, 2, 3]) > 0 and field.gpu_forget() > 0
    assert any(tier.name == "gpu" and tier.is_on for tier in field.tiers())


def out_of_others(folder):
    """Memory of somebody else by __cuda_array_interface__, here of this package."""
    field, array = made(folder)
    field.gpu_enable()
    rows = [7, 3, 7]
    out = field.gather_device([0, 0, 0])
    assert field.gather_device(rows, out) is out and same(out.to_host(), array[rows])
    interface = out.__cuda_array_interface__
    assert interface["typestr"] == "<f4" and interface["shape"] == (3, 16, 8)
    assert interface["data"] == (out.pointer, False) and interface["stream"] is None

    class Other:
        def __init__(self, **changed):
            self.__cuda_array_interface__ = interface | changed

    packed = (512, 32, 4)
    assert field.gather_device(rows, Other(strides=packed)) is not None
    for changed, text in (({"shape": (3, 8, 16)}, "expected <f4 [3, 16, 8]"),
                          ({"typestr": "<f8"}, "is <f8"),
                          ({"strides": (512, 4, 64)}, "C order"),
                          ({"data": (out.pointer, True)}, "writable"),
                          ({"data": (0, False)}, "address is 0")):
        raises(ValueError, field.gather_device, rows, Other(**changed), text=text)
    raises(TypeError, field.gather_device, rows, np.empty((3, 16, 8), "f4"), text="out is ndarray")


class Capsule(ctypes.Structure):
    """DLManagedTensor of dlpack.h, as far as a consumer looks."""
    _fields_ = [("data", ctypes.c_uint64), ("device", ctypes.c_int32 * 2), ("ndim", ctypes.c_int32),
                ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("offset", ctypes.c_uint64),
                ("context", ctypes.c_void_p),
                ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p))]


def consume(capsule):
    """What PyTorch does: takes the tensor and renames the capsule."""
    api = ctypes.pythonapi
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
    address = api.PyCapsule_GetPointer(capsule, b"dltensor")
    assert not api.PyCapsule_SetName(capsule, b"used_dltensor")
    return Capsule.from_address(address), address


def dlpack(folder):
    field, array = made(folder)
    field.gpu_enable(tile_bytes=4096, budget_bytes=200000)
    cuda, (producer, consumer) = streams(2)
    rows = list(range(0, 400, 3))
    got = field.gather_device(rows, stream=producer)
    assert got.__dlpack_device__() == (2, 0)
    # The consumer's stream has to wait for the producer's: nothing else says so.
    tensor, address = consume(got.__dlpack__(stream=consumer))
    pointer = got.pointer
    assert tensor.data == pointer and list(tensor.device) == [2, 0] and tensor.offset == 0
    assert (tensor.code, tensor.bits, tensor.lanes, tensor.ndim) == (2, 32, 1, 3)
    assert tensor.shape[:3] == [len(rows), 16, 8] and tensor.strides[:3] == [128, 8, 1]
    nbytes = len(rows) * 512
    pinned = ctypes.c_void_p()
    assert not cuda.cuMemHostAlloc(ctypes.byref(pinned), ctypes.c_size_t(nbytes), 0)
    assert not cuda.cuMemcpyDtoHAsync_v2(pinned, ctypes.c_uint64(pointer), ctypes.c_size_t(nbytes),
                                         ctypes.c_void_p(consumer))
    assert not cuda.cuStreamSynchronize(ctypes.c_void_p(consumer))
    assert ctypes.string_at(pinned, nbytes) == array[rows].tobytes()
    # It outlives the array and the field.
    field.close()
    del got, field
    gc.collect()
    whole = ctypes.c_size_t()
    ask = (ctypes.c_int * 1)(12)  # CU_POINTER_ATTRIBUTE_RANGE_SIZE
    where = (ctypes.c_void_p * 1)(ctypes.addressof(whole))
    assert not cuda.cuPointerGetAttributes(1, ask, where, ctypes.c_uint64(pointer))
    assert whole.value == nbytes
    tensor.deleter(address)  # the last that holds it
    whole.value = 0
    assert not cuda.cuPointerGetAttributes(1, ask, where, ctypes.c_uint64(pointer))
    assert whole.value == 0, "the memory is still there"


def dlpack_rules(folder):
    field, array = made(folder)
    field.gpu_enable()
    got = field.gather_device([5, 6])
    # numpy takes it by way of the host.
    assert same(np.from_dlpack(got, device="cpu"), array[5:7])
    raises(ValueError, got.__dlpack__, dl_device=(1, 0), copy=False, text="without a copy")
    raises(BufferError, got.__dlpack__, dl_device=(2, 1), text="device (2, 0)")
    raises(BufferError, got.__dlpack__, copy=True)
    raises(ValueError, got.__dlpack__, stream=0, text="stream is 0")
    # Capsules that nobody took give the memory back.
    for version in None, (0, 8), (1, 0), (1, 3):
        capsule = got.__dlpack__(stream=-1, max_version=version)
        named = "dltensor_versioned" if version and version[0] else "dltensor"
        assert f'"{named}"' in repr(capsule), capsule
        del capsule
    gc.collect()
    from mmnf import _dlpack
    assert not _dlpack._alive
    assert len(got) == 2 and got.ndim == 3 and got.size == 256 and got.nbytes == 1024
    assert repr(got) == "<mmnf.DeviceArray [2, 16, 8] float32, device 0, full>"


def bfloat16(folder):
    field, array = made(folder, ml_dtypes.bfloat16)
    field.gpu_enable()
    got = field.gather_device([1, 399])
    assert same(got.to_host(), array[[1, 399]])
    tensor, address = consume(got.__dlpack__())
    assert (tensor.code, tensor.bits) == (4, 16)
    tensor.deleter(address)


def outlives_the_process_quietly(folder):
    """Arrays and capsules that are there at the very end are no crash."""
    field, array = made(folder)
    field.gpu_enable()
    keep.append(field.gather_device([3]))
    keep.append(keep[0].__dlpack__())
    keep.append(field)
    assert same(keep[0].to_host(), array[[3]])


keep = []


def without_a_device(folder):
    field, _ = made(folder)
    for function, arguments in ((field.gpu_enable, ()), (field.gather_device, ([1],))):
        error = raises(mmnf.Error, function, *arguments, text="no GPU: ")
        assert error.errno == errno.ENODEV
    assert not any(tier.name == "gpu" and tier.is_on for tier in field.tiers())


TESTS = {test.__name__: test for test in (
    gathers, out_of_others, dlpack, dlpack_rules, bfloat16, outlives_the_process_quietly,
    without_a_device)}


# What the order of the device's work can spoil; the rest is run twice.
ORDERED = ("gathers", "dlpack")


def in_a_process(name, folder):
    for seed in range(1, (SEEDS if name in ORDERED else 2) + 1):
        where = os.path.join(folder, str(seed))
        os.mkdir(where)
        environment = os.environ | {"MMNF_FAKECUDA_SEED": str(seed)}
        if seed % 2:  # nothing is done on a stream before somebody waits for it
            environment["MMNF_FAKECUDA_PLANT"] = "lazy"
        if name == "without_a_device":
            environment["MMNF_LIBCUDA"] = "/nonexistent/libcuda.so"
        done = subprocess.run([sys.executable, __file__, name, where], env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False)
        assert not done.returncode, f"seed {seed}: status {done.returncode}\n{done.stdout}"


def main():
    if len(sys.argv) == 3:
        TESTS[sys.argv[1]](sys.argv[2])
        return 0
    if not os.path.exists(FAKE):
        print("1..0 # SKIP no fake CUDA driver: it needs cuda.h to build")
        print("no fake CUDA driver: it needs cuda.h to build")
        return 4
    return fieldlib.main([(name, in_a_process, (name,)) for name in TESTS])


if __name__ == "__main__":
    sys.exit(main())
