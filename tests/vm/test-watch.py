#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mmnf top and mmnf map in the guest, on a field of the kernel under load; what
they show is compared with what was done, and drawn to build/screens.
"""
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

SRC = os.environ["MMNF_SRC"]
sys.path.insert(0, os.path.join(SRC, "tests"))
from toollib import report  # noqa: E402

BUILD = os.environ["MMNF_BUILD"]
RUN = os.path.join(SRC, "tests", "vm", "run.py")
ROWS, COLUMNS, PAGE = 256, 16, 4096

# An element of the first two axes is a page.  "guest" is this program in the guest.
GUEST = f"""
set -e
cd "$TMPDIR"
modprobe -a loop ext4
truncate -s 64M image && mkfs.ext4 -q image && mkdir m && mount -o loop image m
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null || :
cd m
insmod "$MMNF_KO"
"$MMNF" create f --shape {ROWS},{COLUMNS},1024 --dtype f32
"$MMNF" import "$MMNF_SHARE/a.npy" f
export MMNF_LIBRARY="$MMNF_LIB" PYTHONPATH="$MMNF_SRC/lib/python"
"$MMNF_BUILD/venv/bin/python" "$MMNF_SRC/tests/vm/test-watch.py" guest
rmmod mmnf
"""


def tool(*args):
    done = subprocess.run([os.environ["MMNF"], *args], check=True, text=True,
                          stdout=subprocess.PIPE)
    return done.stdout


def guest():
    """Rows 0 to 63 are used, 128 to 143 asked for, 200 on left alone."""
    sys.path.insert(0, os.path.join(SRC, "tests"))
    import mmnf
    from screen import Terminal
    share = os.environ["MMNF_SHARE"]
    tool("evict", "f")
    with mmnf.open("f", engine="device") as field:
        view = field.view(slice(0, 64))
        # Two MiB ahead at most: 32 rows.
        for path in glob.glob("/sys/class/misc/mmnf/fields/*/max_inflight_bytes"):
            with open(path, "w", encoding="ascii") as limit:
                limit.write(str(2 << 20))
        total = sum(float(view[row, column, 0]) for row in range(64)
                    for column in range(COLUMNS))
        field.prefetch(slice(128, 144))
        cells = ("--cells", f"{COLUMNS}x{ROWS}", "--engine", "device")
        for _ in range(100):
            told = tool("map", "f", "--json", *cells)
            state = json.loads(told)
            if all(warm for hot, warm, cold in
                   state["cells"][128 * COLUMNS:144 * COLUMNS]):
                break
        tool("map", "f", "--out", os.path.join(share, "map-guest.png"), *cells)
        top = tool("top", "--once", "--json")
        with Terminal([os.environ["MMNF"], "top", "--seconds", "0.5"], 132, 16) as t:
            t.wait_for("field 1", 120)
            # A page maps its row with it, so rows in order are one dense walk.
            view = field.view(slice(64, 128))
            picture = os.path.join(share, "top-guest.png")
            for column in range(COLUMNS):
                for row in range(64):
                    total += float(view[row, column, 0])
                    if not column:
                        t.read(0.05)
                    if not os.path.exists(picture) and \
                            re.search(r" kernel .*/s +[1-9][0-9.]* [kM]B/s", t.text()):
                        t.save(picture)
            t.wait_for(" ahead: ", 120)
            if not os.path.exists(picture):
                t.save(picture)
            t.press("q")
            assert t.end() == 0
        del view
    with open(os.path.join(share, "seen.json"), "w", encoding="ascii") as out:
        json.dump({"map": state, "top": json.loads(top), "sum": total}, out)


def check(seen):
    cells = [seen["map"]["cells"][row * COLUMNS:(row + 1) * COLUMNS]
             for row in range(ROWS)]
    yield "values_are_right", seen["sum"] == sum(range(128 * COLUMNS)), seen["sum"]
    yield "the_kernel_tells_use", seen["map"]["knows_use"], seen["map"]["knows_use"]
    used = [row for row in range(64) if any(hot != PAGE for hot, _, _ in cells[row])]
    yield "what_is_used_is_hot", not used, f"not hot: {used}"
    asked = [row for row in range(128, 144)
             if any(warm != PAGE for _, warm, _ in cells[row])]
    yield "what_was_read_ahead_is_warm", not asked, f"not warm: {asked}"
    left = [row for row in range(200, ROWS)
            if any(cold != PAGE for _, _, cold in cells[row])]
    yield "the_rest_is_cold", not left, f"not cold: {left}"
    fields = seen["top"]["fields"]
    kernel = [f for f in fields if f["where"] == "kernel"]
    library = [f for f in fields if f["where"] == "library"]
    yield "both_sides_are_seen", len(kernel) == 1 and len(library) == 1, f"{fields}"
    counts = kernel[0]["counts"]
    # Fault-around maps neighbours with a touch: at most a fault a page.
    yield "faults_add_up", \
        0 < counts["accesses"] <= 64 * COLUMNS and counts["accesses"] == \
        counts["hits"] + counts["late"] + counts["misses"], f"{counts}"
    yield "pages_read_ahead_add_up", counts["prefetched_pages"] == \
        counts["used_pages"] + counts["wasted_pages"] + counts["pending_pages"], \
        f"{counts}"
    wait = kernel[0]["latency"]
    yield "latency_is_known", \
        0 < wait["p50_ns"] <= wait["p90_ns"] <= wait["p99_ns"], f"{kernel}"
    streams = kernel[0]["streams"]
    yield "streams_are_seen", streams and \
        {s["thread"] for s in streams} == {library[0]["pid"]}, f"{streams}"
    yield "engine_is_device", library[0]["engine"] == "device", f"{library}"


def main():
    import numpy as np
    with tempfile.TemporaryDirectory() as share:
        pages = np.arange(ROWS * COLUMNS, dtype="<f4").reshape(ROWS, COLUMNS, 1)
        np.save(os.path.join(share, "a.npy"), np.repeat(pages, 1024, axis=2))
        done = subprocess.run([sys.executable, RUN, "--share", share, "--timeout",
                               "1000", "--", GUEST], text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode or not os.path.exists(os.path.join(share, "seen.json")):
            print(done.stdout)
            print(f"1..1\nnot ok 1 guest_ran # status {done.returncode}")
            return 1
        with open(os.path.join(share, "seen.json"), encoding="ascii") as file:
            seen = json.load(file)
        screens = os.path.join(BUILD, "screens")
        os.makedirs(screens, exist_ok=True)
        for name in ("map-guest.png", "top-guest.png", "top-guest.txt"):
            shutil.copy(os.path.join(share, name), os.path.join(screens, name))
    return report(check(seen))


if __name__ == "__main__":
    if sys.argv[1:] == ["guest"]:
        guest()
    else:
        sys.exit(main())
