#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tool: every sub-command, its exit status, its JSON, and bad input.

Expected values come from numpy or from arithmetic.  KTAP.
"""
import json
import os
import sys

try:
    import numpy as np
except ImportError:
    print("1..0 # SKIP no numpy")
    print("no numpy")
    sys.exit(4)

sys.path.insert(0, os.path.join(os.environ["MMNF_SRC"], "tests"))
from toollib import mmnf, ok, refused, run_tests  # noqa: E402

tests = []


def test(fn):
    tests.append(fn)
    return fn


def array():
    return (np.arange(5 * 6 * 7) * 3 - 100).astype("<f4").reshape(5, 6, 7)


def field_with(name, at="100,200,3"):
    np.save("a.npy", array())
    ok("create", name, "--shape", "1000,1000,64", "--dtype", "f32",
       "--segment-bytes", "16M")
    ok("import", "a.npy", name, "--at", at)


@test
def petabyte_is_made_and_described():
    ok("create", "v", "--shape", "1000000,1000000,256", "--dtype", "f32")
    info = json.loads(ok("info", "v", "--json", "--disk"))
    assert info["shape"] == [1000000, 1000000, 256]
    assert info["total_bytes"] == 10**12 * 256 * 4
    assert info["disk_bytes"] < 1 << 20
    assert info["engine"] in ("device", "mmap") and info["engine_reason"]


@test
def import_get_and_out_agree_with_numpy():
    field_with("f")
    box = "98:106,200:206:2,::-1"
    want = np.zeros((1000, 1000, 64), "<f4")
    want[100:105, 200:206, 3:10] = array()
    ok("get", "f", box, "--out", "c.npy")
    got = np.load("c.npy")
    assert got.dtype == np.dtype("<f4")
    assert np.array_equal(got, want[98:106, 200:206:2, ::-1])
    ok("get", "f", box, "--out", "c.raw")
    assert np.array_equal(np.fromfile("c.raw", "<f4"), got.ravel())
    printed = json.loads(ok("get", "f", "-896,202,5:8", "--json"))["values"]
    assert printed == want[-896, 202, 5:8].tolist()


@test
def fortran_order_is_imported():
    a = np.asfortranarray(array())
    np.save("fortran.npy", a)
    ok("create", "f", "--shape", "5,6,7", "--dtype", "f32")
    ok("import", "fortran.npy", "f")
    ok("get", "f", ":,:,:", "--out", "c.npy")
    assert np.array_equal(np.load("c.npy"), a)


@test
def gather_keeps_the_order_given():
    np.save("t.npy", np.arange(40 * 10, dtype="<i4").reshape(40, 10))
    ok("create", "t", "--shape", "40,10", "--dtype", "i32")
    ok("import", "t.npy", "t")
    with open("list", "w") as out:
        out.write("7, 3\n39 7\n")
    ok("gather", "t", "@list", "--out", "g.npy")
    assert np.array_equal(np.load("g.npy"), np.load("t.npy")[[7, 3, 39, 7]])
    values = json.loads(ok("gather", "t", "2", "--json"))["values"]
    assert values == list(range(20, 30))


@test
def numbers_are_decimal_with_zeros_in_front():
    np.save("t.npy", np.arange(40, dtype="<i4"))
    for item in "000012", "12", "0xc":
        with open("list", "w") as out:
            out.write(item)
        assert json.loads(ok("gather", "t.npy", "@list", "--json"))["values"] == [12]
    ok("create", "f", "--shape", "010", "--dtype", "i16", "--fill", "-010")
    assert json.loads(ok("get", "f", "::", "--json"))["values"] == [-10] * 10
    ok("create", "g", "--shape", "0x10", "--dtype", "u8", "--fill", "010")
    assert json.loads(ok("get", "g", "::", "--json"))["values"] == [10] * 16
    for dtype in "u8", "u64":
        for fill in ("--fill", "-5"), ("--fill=-5",):
            refused(2, "expected a " + dtype, "create", "h", "--shape", "3", "--dtype", dtype,
                    *fill)
    trace = "file 100000\n" + "".join(f"1 1 {i:05}\n" for i in range(0, 90000, 4096))
    assert json.loads(ok("predict", "-", "--json", input=trace))["accesses"] == 22


@test
def an_empty_list_is_no_index():
    np.save("t.npy", np.arange(40, dtype="<i4"))
    with open("list", "w"):
        pass
    # Fresh memory is no text.
    there = os.environ | {"MALLOC_PERTURB_": "206"}
    assert json.loads(ok("gather", "t.npy", "@list", "--json", env=there))["values"] == []


@test
def a_named_part_of_a_file_is_imported_into():
    np.save("a.npy", np.arange(6, dtype="<f4").reshape(2, 3))
    np.zeros(6, "<f4").tofile("disk.img")
    name = "disk.img#raw,dtype=f32,shape=2x3"
    ok("import", "a.npy", name)
    assert np.fromfile("disk.img", "<f4").tolist() == list(range(6))
    assert sorted(os.listdir(".")) == ["a.npy", "disk.img"]
    ok("export", "a.npy", "b.safetensors")
    refused(1, "b.safetensors", "import", "a.npy", "b.safetensors#nothing")
    refused(1, "nbd+unix", "import", "a.npy", "nbd+unix:///?socket=/nowhere#raw,dtype=f32,shape=6")
    assert sorted(os.listdir(".")) == ["a.npy", "b.safetensors", "disk.img"]


@test
def scan_sums_whatever_the_order():
    field_with("f")
    for order in ("0,1,2", "2,0,1"):
        for prefetch in ("on", "off"):
            r = json.loads(ok("scan", "f", "--box", "100:105,200:206,3:10", "--order", order,
                              "--engine", "mmap", "--prefetch", prefetch, "--json"))
            bits = array().view("<u4").astype("u8").sum()
            assert r["elements"] == 210 and r["sum"] == float(array().sum(dtype="f8"))
            assert r["checksum"] == int(bits), r


@test
def scan_sums_what_is_no_number():
    for value, word in ((np.nan, "nan"), (np.inf, "inf")):
        np.save("odd.npy", np.array([1, value, 2], "<f4"))
        assert json.loads(ok("scan", "odd.npy", "--json"))["sum"].lstrip("-") == word
        assert word in ok("scan", "odd.npy")


@test
def prefetch_and_evict_move_the_box():
    field_with("f", "0,0,0")
    box = ["--box", "0:5,0:6,:"]
    gone = json.loads(ok("evict", "f", *box, "--json"))
    assert gone["warm_bytes"] == 0 and gone["hot_bytes"] == 0, gone
    there = json.loads(ok("prefetch", "f", *box, "--json"))
    assert there["bytes"] >= 5 * 6 * 64 * 4


@test
def fill_is_read_where_nothing_was_written():
    ok("create", "f", "--shape", "10,10", "--dtype", "f64", "--fill", "nan")
    assert json.loads(ok("get", "f", "3,3", "--json"))["values"] == ["nan"]
    ok("create", "i", "--shape", "10,10", "--dtype", "i16", "--fill", "-7")
    assert json.loads(ok("get", "i", "9,0:2", "--json"))["values"] == [-7, -7]


@test
def predict_follows_a_stride():
    trace = f"file {1000 * 69632}\n# thread ip offset\n" + \
        "".join(f"1 0x400 {i * 69632} 1000\n" for i in range(1000))
    r = json.loads(ok("predict", "-", "--json", input=trace))
    assert r["accesses"] == 1000 and r["model"]["latency_ns"] == 100000
    for p in r["results"]:
        assert p["faults"] == p["hits"] + p["late"] + p["misses"], p
        assert p["ahead_pages"] == p["used_pages"] + p["wasted_pages"], p
        assert p["needed_pages"] == 1000, p
    by = {p["predictor"]: p for p in r["results"]}
    # 1,000 times: 250 ns to start it, 100 us, 1 us for the page.
    assert by["none"]["stall_ns"] == 1000 * 101250
    assert by["mmnf"]["coverage"] >= 0.99 and by["mmnf"]["accuracy"] == 1
    assert by["oracle"]["stall_ns"] < by["mmnf"]["stall_ns"] < by["leap"]["stall_ns"]


@test
def predict_repeats_and_writes_what_it_reads():
    args = ["--generate", "rows", "count=500", "seed=7"]
    ok("predict", *args, "--out", "t")
    made, read = ok("predict", "--json", *args), ok("predict", "--json", "t")
    assert made == read
    ok("predict", "--generate", "rows", "count=500", "seed=8", "--out", "u")
    with open("t") as t, open("u") as u:
        lines = t.read().splitlines()
        assert lines != u.read().splitlines()
    assert "extent 100000000,512" in lines and "element 1" in lines
    ok("predict", "t", "--predictors", "none", "--timeline", "line")
    with open("line") as line:
        words = [row.split() for row in line]
    assert [w[2] for w in words[:2]] == ["miss", "demand"], words[:2]
    assert words[0][3] == words[1][3] and int(words[1][5]) == int(words[1][1]) + 101000
    one = ok("predict", "t", "--predictors", "leap,none")
    assert [line.split()[0] for line in one.splitlines()[2:]] == ["none", "leap"]
    assert "strided" in ok("predict", "--generate", "help")


@test
def predict_names_what_is_wrong():
    def trace(text):
        with open("t", "w") as out:
            out.write(text)

    for text, what in (("1 2\n", "line 1: expected THREAD IP"), ("1 2 3 4 5\n", "line 1"),
                       ("", "no access"), ("1 2 -3\n", "line 1"), ("pages 3\n", "expected file"),
                       ("file 10\n1 1 10\n", "beyond its end"), ("1 1 1\nfile 3\n", "before"),
                       ("extent 3,4\nstride 1\n1 1 1\n", "as many"),
                       ("extent 4\nstride -8\n1 1 1\n", "before the file's start"),
                       ("extent 1,1,1,1,1,1,1,1,1\n1 1 1\n", "1 to 8"),
                       ("extent 4294967296,4294967296\n1 1 1\n", "2^63"),
                       ("extent 0\n1 1 1\n", "at least 1"), ("element 8\nfile 4\n1 1 1\n", "small"),
                       ("1 1 99999999999999999999\n", "line 1")):
        trace(text)
        refused(1, what, "predict", "t")
    trace("1 1 1\n")
    refused(2, "depth=N, N from 1", "predict", "t", "--model", "depth=0")
    refused(2, "power of two", "predict", "t", "--model", "around_pages=3")
    refused(2, "latency_ns", "predict", "t", "--model", "latency=3")
    refused(2, "mainline", "predict", "t", "--predictors", "linux")
    refused(2, "no such workload", "predict", "--generate", "nothing")
    refused(2, "no such parameter", "predict", "--generate", "rows", "n=3")
    refused(2, "expected NAME=VALUE", "predict", "--generate", "rows", "3")
    refused(2, "expected a number", "predict", "--generate", "rows", "rows=x")
    refused(2, "as many", "predict", "--generate", "nest", "count=1,2,3")
    refused(2, "expected inside 0 to 255", "predict", "--generate", "walk", "count=257,1,1")
    refused(2, "2^63", "predict", "--generate", "walk", "shape=9999999999,9999999999,9")
    refused(2, "TRACE", "predict")
    refused(2, "--seconds 0", "record", "--seconds", "0")
    refused(2, "field's number", "record", "0")
    refused(1, "nowhere", "predict", "nowhere")


@test
def files_are_used_where_they_lie():
    np.save("a.npy", np.asfortranarray(array()))
    info = json.loads(ok("info", "a.npy", "--json"))
    assert info["format"] == "npy" and info["shape"] == [5, 6, 7], info
    sums = json.loads(ok("scan", "a.npy", "--order", "2,0,1", "--json"))
    assert sums["sum"] == float(array().sum(dtype="f8")), sums
    ok("export", "a.npy", "b.safetensors", "--box", "1:4,:,2")
    for name in "b.safetensors#data", "f":
        if name == "f":
            ok("import", "b.safetensors", "f")
        ok("get", name, "::", "--out", "b.npy")
        assert (np.load("b.npy") == array()[1:4, :, 2:3]).all()
    refused(1, "format", "export", "f", "c.tiff")
    refused(1, "nowhere/", "export", "f", "nowhere/c.npy")
    assert sorted(os.listdir(".")) == ["a.npy", "b.npy", "b.safetensors", "f"]


@test
def tiles_are_made_checked_and_grown():
    np.save("a.npy", array())
    ok("import", "a.npy", "f", "--tile", "2,4,4", "--checksums")
    info = json.loads(ok("info", "f", "--json"))
    assert info["tile_shape"] == [2, 4, 4], info
    counts = json.loads(ok("verify", "f", "--json"))
    assert counts == {"field": "f", "segments": 1, "tiles": 12, "checked": 12, "bad": 0,
                      "repaired": 0}, counts
    ok("resize", "f", "9")
    refused(1, "at least the present 9", "resize", "f", "8")
    ok("get", "f", "::", "--out", "b.npy")
    assert (np.load("b.npy") == np.concatenate([array(), np.zeros((4, 6, 7), "<f4")])).all()
    with open("f/c/0/0/0", "r+b") as file:
        file.seek(130)
        byte = file.read(1)
        file.seek(130)
        file.write(bytes([byte[0] ^ 1]))
    done = mmnf("verify", "f")
    assert done.returncode == 1 and "tile 1: CRC32C is" in done.stderr, done


@test
def what_was_repaired_is_no_failure():
    np.save("a.npy", array())
    ok("import", "a.npy", "f", "--tile", "2,4,4")
    with open("f/c/0/0/0", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    assert mmnf("verify", "f").returncode == 1
    assert json.loads(ok("verify", "f", "--repair", "--json"))["repaired"] == 1
    ok("verify", "f")


@test
def parts_of_files_have_a_size_on_disk():
    np.arange(30000, dtype="<f4").tofile("disk.img")
    info = json.loads(ok("info", "disk.img#raw,dtype=f32,shape=30000", "--disk", "--json"))
    assert info["nr_files"] == 1
    assert info["disk_bytes"] == os.stat("disk.img").st_blocks * 512 > 0


@test
def nrrd_elements_are_aligned():
    for rows in range(1, 12):
        np.save("a.npy", np.arange(rows * 3, dtype="<f8").reshape(rows, 3))
        ok("export", "a.npy", "b.nrrd")
        info = json.loads(ok("info", "b.nrrd", "--json"))
        assert info["data_offset_bytes"] % 64 == 0 and info["shape"] == [rows, 3], info
        assert json.loads(ok("get", "b.nrrd", "::", "--json"))["values"] == list(range(rows * 3))


@test
def what_takes_no_space_takes_none_afterwards():
    ok("create", "f", "--shape", "64,1024,1024", "--dtype", "f32")
    ok("export", "f", "x.npy")
    ok("import", "x.npy", "g", "--tile", "16,64,64")
    for name in "x.npy", "g":
        info = json.loads(ok("info", name, "--disk", "--json"))
        assert info["total_bytes"] == 256 << 20 and info["disk_bytes"] < 1 << 20, info
    # But where there is something else the fill is written.
    np.save("a.npy", np.arange(12, dtype="<f4"))
    np.save("zero.npy", np.zeros(12, "<f4"))
    ok("import", "a.npy", "h")
    ok("import", "zero.npy", "h")
    assert json.loads(ok("get", "h", ":", "--json"))["values"] == [0] * 12


@test
def bad_input_is_named():
    np.save("a.npy", array())
    np.save("d.npy", array().astype("<f8"))
    ok("create", "f", "--shape", "5,6,7", "--dtype", "f32")
    refused(2, "bogus", "bogus")
    refused(2, "--shape", "create", "g", "--dtype", "f32")
    refused(2, "--shape 0x", "create", "g", "--dtype", "f32", "--shape", "0x")
    refused(2, "--dtype", "create", "g", "--dtype", "f33", "--shape", "3")
    refused(2, "--fill 300", "create", "g", "--dtype", "u8", "--shape", "3", "--fill", "300")
    refused(1, "exists", "create", "f", "--dtype", "u8", "--shape", "3")
    refused(1, "", "create", "g", "--dtype", "f64", "--shape", "4294967296,4294967296")
    assert not os.path.exists("g")
    refused(1, "nowhere", "info", "nowhere")
    refused(2, "outside", "get", "f", "5,0,0")
    refused(2, "more axes", "get", "f", "0,0,0,0")
    refused(2, "step is zero", "get", "f", "::0,0,0")
    refused(2, "--order", "scan", "f", "--order", "0,0,1")
    refused(2, "--engine", "scan", "f", "--engine", "tape")
    refused(2, "--at", "import", "a.npy", "f", "--at", "1,2")
    refused(1, "", "import", "a.npy", "f", "--at", "1,0,0")
    refused(1, "", "import", "d.npy", "f")
    refused(1, "", "import", "nowhere.npy", "f")
    refused(1, "", "gather", "f", "5")
    with open("f/zarr.json", "w") as out:
        out.write("{ no json")
    refused(1, "zarr.json", "info", "f")


if __name__ == "__main__":
    sys.exit(run_tests(tests))
