# SPDX-License-Identifier: MIT
"""Walks over the fields: which there are, what a kind of mapping makes of them.

Each is a loop of plain loads (tests/bench/replay.c) over the values of the real
data, cold, once per kind of mapping; every value is compared with its source.
"""
import json
import os
import subprocess

import numpy as np

ENGINES = [("default", "mmap"), ("madv_random", "mmap, MADV_RANDOM"),
           ("off", "/dev/mmnf, prefetch off"), ("mmnf", "/dev/mmnf, prefetch on"),
           ("willneed", "oracle, told beforehand")]
SEED = 1


class Walk:
    """lines: as Layout.line() gives them; values: the source's, in that order."""

    def __init__(self, title, layout):
        self.title, self.record_bytes = title, layout.row_bytes
        self.lines, self.values = [], []

    def add(self, lines, values):
        self.lines += lines
        self.values.append(np.ascontiguousarray(values, "<f4"))


def brain_walks(layout, at, values):
    depth, height, width = values.shape
    middle = width // 2
    walk = Walk("brain, axis 0: every 16th row's middle through all planes", layout)
    for y in range(0, height, 16):
        walk.add(layout.line((at[0], at[1] + y, at[2] + middle), 0, depth),
                 values[:, y, middle])
    yield walk
    walk = Walk("brain, axis 1: the rows' middles of every 8th plane", layout)
    for z in range(0, depth, 8):
        walk.add(layout.line((at[0] + z, at[1], at[2] + middle), 1, height),
                 values[z, :, middle])
    yield walk
    walk = Walk("brain, axis 2: every value of every 8th plane", layout)
    for z in range(0, depth, 8):
        for y in range(height):
            walk.add(layout.line((at[0] + z, at[1] + y, at[2]), 2, width), values[z, y])
    yield walk


def words_walk(title, layout, at, values, rows):
    walk = Walk(title, layout)
    for row in rows:
        walk.add(layout.line((at[0] + row, at[1]), 1, values.shape[1]), values[row])
    return walk


def words_walks(layout, at, values):
    rows = len(values)
    yield words_walk("words: every 16th vector", layout, at, values, range(0, rows, 16))
    yield words_walk("words: every 64th vector, backwards", layout, at, values,
                     range(rows - 1, -1, -64))
    random = np.random.default_rng(SEED).permutation(rows)[:1000]
    yield words_walk("words: 1,000 random vectors", layout, at, values, random.tolist())


def replay(program, walk, engine, scratch):
    lines, values = (os.path.join(scratch, name) for name in ("lines", "values"))
    with open(lines, "w", encoding="utf-8") as file:
        for line in walk.lines:
            print(*line, file=file)
    np.concatenate(walk.values).tofile(values)
    done = subprocess.run([program, engine, str(walk.record_bytes), lines, values],
                          stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1) or not done.stdout:
        raise SystemExit(f"quickstart: replay {engine} ended with {done.returncode}")
    return json.loads(done.stdout)


def broken_laws(result):
    """What the counters promise, as broken sentences."""
    if "faults" not in result:
        return []
    laws = [("faults = hits + late + misses",
             result["faults"] == result["hits"] + result["late"] + result["misses"]),
            ("prefetched = used + wasted + pending",
             result["prefetched"] == result["used"] + result["wasted"] + result["pending"])]
    return [law for law, holds in laws if not holds]


LEGEND = """\
  Cold loops of plain loads. speed: against mmap. major: faults that waited for the disk.
  read ahead, used, late, wasted: pages that /dev/mmnf read before their touch, those
  touched later, those touched before the disk was done, those never touched.
"""
HEAD = (f"    {'':26}{'ms':>9}{'speed':>8}{'major':>8}{'read ahead':>12}"
        f"{'used':>7}{'late':>7}{'wasted':>8}")


def compare(program, walks, scratch):
    """Run, print the table; a list of what was wrong."""
    wrong = []
    print(LEGEND + HEAD)
    for walk in walks:
        results = {engine: replay(program, walk, engine, scratch)
                   for engine, _ in ENGINES}
        first = results[ENGINES[0][0]]
        print(f"  {walk.title}: {first['values']:,} values on {first['pages']:,} pages")
        for engine, title in ENGINES:
            r = results[engine]
            row = (f"    {title:26}{r['ns'] / 1e6:9.2f}{first['ns'] / r['ns']:7.1f}x"
                   f"{r['major_faults']:8,}")
            if engine == "mmnf":
                # What was waiting when the walk ended was not used either.
                row += (f"{r['prefetched']:12,}{r['used']:7,}{r['late']:7,}"
                        f"{r['wasted'] + r['pending']:8,}")
            if r["stayed"]:
                row += f"   not cold: {r['stayed']:,} pages stayed in memory"
            print(row, flush=True)
            if r["wrong"]:
                wrong.append(f"{walk.title}: {title}: {r['wrong']} wrong values")
            wrong += [f"{walk.title}: {title}: broken: {law}" for law in broken_laws(r)]
    return wrong


def axis_walks(program, engine, layout, at, values, scratch):
    """Every value through mmnf_activate(), along each axis in turn."""
    packed, wrong = os.path.join(scratch, "values"), 0
    np.ascontiguousarray(values).tofile(packed)
    for order in ("0,1,2", "0,2,1", "2,1,0"):
        layout.drop_cache()
        done = subprocess.run([program, engine, layout.path, ",".join(map(str, at)),
                               ",".join(map(str, values.shape)), order, packed],
                              stdout=subprocess.PIPE, text=True)
        if done.returncode not in (0, 1) or not done.stdout:
            raise SystemExit(f"quickstart: axes ended with {done.returncode}")
        r = json.loads(done.stdout)
        print(f"  walk along axis {order[-1]}: {r['values']:,} values by pointer, "
              f"{r['wrong']} wrong; {r['late'] + r['misses']:,} waited for storage",
              flush=True)
        wrong += r["wrong"]
    return wrong
