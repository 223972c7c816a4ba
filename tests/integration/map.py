#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mmnf map: each cell against mincore() of the file, and the pictures' pixels.
TAP.
"""
import ctypes
import json
import mmap
import os
import re
import sys
import time

try:
    import numpy as np
    from PIL import Image
except ImportError:
    print("1..0 # SKIP no numpy or Pillow")
    print("no numpy or Pillow")
    sys.exit(4)

sys.path.insert(0, os.path.join(os.environ["MMNF_SRC"], "tests"))
from toollib import ok, refused, run_tests  # noqa: E402

ROWS, COLUMNS, PAGE = 96, 8, 4096
COLD = (224, 232, 242)
tests = []


def test(function):
    tests.append(function)
    return function


def field(name="f"):
    """An element of the first two axes is a page: its residency is known."""
    np.save("a.npy", np.ones((ROWS, COLUMNS, PAGE // 4), "<f4"))
    ok("create", name, "--shape", f"{ROWS},{COLUMNS},{PAGE // 4}", "--dtype", "f32")
    ok("import", "a.npy", name)
    return f"{name}/c/0/0/0"


def resident(path):
    """Per page, by mincore()."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    size = os.stat(path).st_size
    states = (ctypes.c_ubyte * (size // PAGE))()
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), size) as m:
        view = ctypes.c_char.from_buffer(m)
        status = libc.mincore(ctypes.addressof(view), size, states)
        del view
        assert status == 0, os.strerror(ctypes.get_errno())
    return np.frombuffer(states, "u1").reshape(ROWS, COLUMNS).astype(int) & 1


def told(path, *args):
    """What was printed, and what was resident meanwhile, which did not change."""
    for _ in range(20):
        before = resident(path)
        printed = ok("map", "f", *args)
        if (resident(path) == before).all():
            return printed, before
        time.sleep(0.1)
    raise AssertionError("the page cache does not come to rest")


def told_json(path, *args):
    printed, pages = told(path, "--json", *args)
    return json.loads(printed), pages


@test
def cells_are_what_mincore_says():
    path = field()
    ok("evict", "f")
    ok("prefetch", "f", "--box", "20:50,2:6")
    for cells in ("8x96", "4x32", "3x7", "1x1"):
        columns, rows = map(int, cells.split("x"))
        r, pages = told_json(path, "--cells", cells, "--engine", "mmap")
        assert (r["columns"], r["rows"], r["sampled"]) == (columns, rows, 1), r
        for i, (hot, warm, cold) in enumerate(r["cells"]):
            y, x = divmod(i, columns)
            part = pages[ROWS * y // rows:ROWS * (y + 1) // rows,
                         COLUMNS * x // columns:COLUMNS * (x + 1) // columns]
            assert hot + warm == part.sum() * PAGE, (i, hot, warm, part)
            assert hot + warm + cold == part.size * PAGE, (i, cold, part)


@test
def a_box_is_looked_at_alone():
    path = field()
    r, pages = told_json(path, "--box", "10:90:2,::-1", "--cells", "1000x1000")
    assert (r["rows"], r["columns"]) == (40, COLUMNS), r
    got = np.array(r["cells"])[:, :2].sum(axis=1).reshape(40, COLUMNS)
    assert (got == pages[10:90:2, ::-1] * PAGE).all()


@test
def a_petabyte_is_drawn():
    ok("create", "f", "--shape", "1000000,1000000,256", "--dtype", "f32")
    np.save("b.npy", np.ones((4, 1000, 256), "<f4"))
    ok("import", "b.npy", "f", "--at", "500000,250000,0")
    r = json.loads(ok("map", "f", "--json", "--cells", "16x16", "--seconds", "60"))
    resident_bytes = np.array(r["cells"])[:, :2].sum(axis=1).reshape(16, 16)
    assert r["sampled"] == 1 and resident_bytes[8, 4] == resident_bytes.sum(), r
    assert r["hot_bytes"] + r["warm_bytes"] + r["cold_bytes"] == 10**12 * 1024
    # The whole segment holds 4,000 KiB at most; what is dirty is resident.
    assert 0 < resident_bytes.sum() <= 4 * 1000 * 1024, resident_bytes.sum()


@test
def pictures_show_the_cells():
    path = field()
    ok("evict", "f")
    ok("prefetch", "f", "--box", "0:48")
    printed, pages = told(path, "-o", "m.png", "--cells", "8x96", "--engine", "mmap")
    assert printed == "m.png\n", printed
    picture = Image.open("m.png").convert("RGB")
    # Middles of the cells; the plot is 768 x 576 at (130, 70).
    for y in range(0, ROWS, 5):
        for x in range(COLUMNS):
            pixel = picture.getpixel((130 + 96 * x + 48, 70 + 6 * y + 3))
            cold = all(abs(a - b) < 3 for a, b in zip(pixel, COLD))
            assert cold != bool(pages[y, x]), (y, x, pixel, pages[y, x])
    ok("map", "f", "--out", "m.svg", "--cells", "8x96")
    with open("m.svg", encoding="utf-8") as file:
        text = file.read()
    assert text.startswith("<?xml") and len(re.findall("<path", text)) >= 8 * 96
    # A picture for the reader of the test's output, and a line on a terminal.
    screens = os.path.join(os.environ["MMNF_BUILD"], "screens")
    os.makedirs(screens, exist_ok=True)
    picture.save(os.path.join(screens, "map.png"))


@test
def text_has_a_letter_for_each_cell():
    path = field()
    ok("evict", "f")
    lines = ok("map", "f", "--cells", "8x12", "--engine", "mmap").splitlines()
    rows = [line[15:] for line in lines[2:14]]
    assert all(len(row) == 8 and set(row) <= set(".o-") for row in rows), lines
    one = ok("map", "a.npy#raw,dtype=u8,shape=393216", "--cells", "10x3").splitlines()
    assert len(one[2][15:]) == 10, one
    del path


@test
def bad_input_is_named():
    field()
    refused(2, "--cells 3", "map", "f", "--cells", "3")
    refused(2, "--cells 0x3", "map", "f", "--cells", "0x3")
    refused(2, "--cells 9999999x9", "map", "f", "--cells", "9999999x9")
    refused(2, ".png or .svg", "map", "f", "--out", "m.pdf")
    refused(1, "nowhere", "map", "f", "--out", "nowhere/m.png")
    refused(2, "--seconds 0", "map", "f", "--seconds", "0")
    refused(2, "nothing is in it", "map", "f", "--box", "3:3")
    refused(2, "there is no --order", "map", "f", "--order", "0,1,2")
    refused(1, "nowhere", "map", "nowhere")


sys.exit(run_tests(tests))
