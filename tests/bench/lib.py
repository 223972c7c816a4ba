#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The library's benchmark: wall time on this machine, the library beside others.

    tests/bench/lib.py                  all cases
    tests/bench/lib.py 'batch*' 'box*'  some; l2 and threads are two, too
    BENCH_ROUNDS=1 tests/bench/lib.py   quick, and worth less

On 4 GiB of f32, [1024][1024][1024], with 1 GiB of memory for each run (by a
control group; without one, the file's pages are dropped before each).

Ours: copies by the engines mmap and direct; the same from a field in tiles of
64 x 64 x 64; and, where the data is hot, pointer: plain loads after one
mmnf_activate() per record or box, as one does with numpy.memmap.  Peers: raw io_uring, a memcpy loop,
numpy.memmap with and without MADV_RANDOM, h5py (on the same file, as external
storage), and zarr-python and tensorstore on the same values in chunks of
64 x 64 x 64.  So the targets set the best way of ours beside the best peer, and
say which they are: who has a field chooses its layout as who has a Zarr array does.

Each case is run ROUNDS times by all engines in turn, and the best time of each
counts: what others do on the machine at the time only ever adds.  Hot cases are
repeated in each process PASSES times, for at most PASSES_S, and as often as fits into
ENOUGH_S: a few milliseconds of memory are as much chance as those of a disk.  An
engine that takes longer than SLOW gets one round, one that takes less than QUICK four
times as many: a tenth of a second of a disk is chance.  One that takes longer than
TIMEOUT, or is killed for want of memory, is left out and named.  `direct` has the
memory of its L2 from open on, as io_uring has its buffers.

Writes build/bench/lib.jsonl and prints a table and the targets: ratios of one
run, since wall time on a shared machine is not repeatable.
"""
import fnmatch
import importlib.util
import itertools
import json
import mmap
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
LIB = os.path.join(TOP, "build", "tests", "bench", "lib")
THREADS = os.path.join(TOP, "build", "tests", "bench", "threads")
CACHE = os.path.join(TOP, "build", "tests", "bench", "cache")
RESULTS = os.path.join(TOP, "build", "bench")
DATA = os.environ.get("BENCH_DATA", os.path.join(TOP, "build", "bench", "data"))
N = 1024
CASES = ["get", "batch-1000", "zipf-1.09", "slice-z", "slice-y", "slice-x", "box-64",
         "scan"]
TILED = ["mmap-tiled", "direct-tiled"]
OURS = ["mmap", "direct", "pointer"] + TILED
NATIVE = OURS + ["uring", "memcpy"]
PEERS = ["memmap", "memmap-random", "h5py", "zarr", "tensorstore"]
CHUNKED = ("zarr", "tensorstore")
MODULES = ["numpy", "h5py", "zarr", "tensorstore"]
LIMIT = 1 << 30
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SLOW, QUICK = 10, 2  # seconds, start and all
TIMEOUT = 60
PASSES, PASSES_S, ENOUGH_S = 5, 1, 0.2  # as lib.c has them


class Group:
    """A control group of LIMIT bytes, version 1 or 2; none where it can't be had."""

    def __init__(self):
        self.path = None
        for root, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                           ("/sys/fs/cgroup", "memory.max")):
            path = os.path.join(root, "mmnf-bench")
            try:
                os.makedirs(path, exist_ok=True)
                with open(os.path.join(path, name), "w", encoding="ascii") as out:
                    out.write(str(LIMIT))
                self.path = path
                return
            except OSError:
                continue

    def enter(self):
        if self.path:
            with open(os.path.join(self.path, "cgroup.procs"), "w",
                      encoding="ascii") as out:
                out.write(str(os.getpid()))


def drop(path):
    for folder, _, names in os.walk(path):
        for name in names:
            fd = os.open(os.path.join(folder, name), os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def prepare(peers):
    raw = os.path.join(DATA, "volume", "c", "0", "0", "0")
    if not os.path.exists(raw):
        os.makedirs(DATA, exist_ok=True)
        print("bench: writing 4 GiB", file=sys.stderr)
        subprocess.run([LIB, "make", DATA], check=True)
    rows = os.path.join(DATA, "rows", "c", "0", "0")
    if not os.path.exists(rows):
        os.makedirs(os.path.dirname(rows))
        os.link(raw, rows)
    if not os.path.exists(os.path.join(DATA, "tiled.done")):
        shutil.rmtree(os.path.join(DATA, "tiled"), ignore_errors=True)
        print("bench: writing 4 GiB in tiles", file=sys.stderr)
        subprocess.run([LIB, "tile", DATA], check=True)
        with open(os.path.join(DATA, "tiled.done"), "w", encoding="ascii"):
            pass
    chunks = os.path.join(DATA, "chunks")
    if set(peers) & set(CHUNKED) and not os.path.exists(chunks + "/done"):
        import numpy
        import tensorstore
        print("bench: writing 4 GiB in chunks", file=sys.stderr)
        source = numpy.memmap(raw, "<f4", "r", shape=(N, N, N))
        store = tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": chunks}},
            create=True, delete_existing=True, dtype="float32", shape=[N, N, N],
            chunk_layout=tensorstore.ChunkLayout(chunk_shape=[64, 64, 64])).result()
        for z in range(0, N, 64):
            store[z:z + 64].write(source[z:z + 64]).result()
        with open(chunks + "/done", "w", encoding="ascii"):
            pass


# ---- a peer in a process of its own

def peer_array(engine):
    import numpy
    raw = os.path.join(DATA, "volume", "c", "0", "0", "0")
    if engine.startswith("memmap"):
        array = numpy.memmap(raw, "<f4", "r", shape=(N, N, N))
        if engine == "memmap-random":
            array._mmap.madvise(mmap.MADV_RANDOM)
        return array, lambda selection: numpy.array(array[selection])
    if engine == "h5py":
        import h5py
        file = h5py.File(os.path.join(DATA, f"h5-{os.getpid()}"), "w", driver="core",
                         backing_store=False)
        array = file.create_dataset("a", (N, N, N), "<f4",
                                    external=[(raw, 0, N * N * N * 4)])
        return array, lambda selection: array[selection]
    chunks = os.path.join(DATA, "chunks")
    if engine == "zarr":
        import zarr
        array = zarr.open_array(chunks, mode="r")
        return array, lambda selection: array[selection]
    import tensorstore
    array = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": chunks}},
        context=tensorstore.Context({"cache_pool": {"total_bytes_limit": 512 << 20}}),
        open=True, read=True).result()
    return array, lambda selection: array[selection].read().result()


def peer_rows(engine, array, z, y):
    """Rows (z, y), by what each library has for a list."""
    import numpy
    if engine.startswith("memmap"):
        return numpy.asarray(array[z, y])
    if engine == "tensorstore":
        return array.vindex[z, y].read().result()
    if engine == "zarr":
        return array.get_orthogonal_selection((z, y)) if len(z) == 1 else \
            numpy.stack([array[a, b] for a, b in zip(z, y)])
    return numpy.stack([array[a, b] for a, b in zip(z, y)])


def peer_case(engine, case, array, get, weight):
    """Items done."""
    import numpy
    rng = numpy.random.default_rng(1)

    def check(got, z, y, x):
        place = (z * N + y) * N + x
        assert float(got) == (place * 2654435761 % 2**64 >> 8 & 0xfffff), (z, y, x, got)

    def lists(rounds, draw):
        for _ in range(rounds):
            row = draw()
            got = peer_rows(engine, array, row // N, row % N)
            check(got[0, 0], int(row[0] // N), int(row[0] % N), 0)
        return rounds * 1000

    def slices(axis, count):
        for _ in range(count):
            at = [slice(None)] * 3
            at[axis] = int(rng.integers(N))
            got = get(tuple(at))
            start = [0 if isinstance(a, slice) else a for a in at]
            check(got[0, 0], *start)
        return count

    slow = engine == "zarr"  # a second per list: fewer rounds
    if case == "get":
        count = 50 if slow else 500
        for row in rng.integers(N * N, size=count):
            got = get((int(row) // N, int(row) % N))
            check(got[0], int(row) // N, int(row) % N, 0)
        return count
    if case == "batch-1000":
        return lists(1 if engine in CHUNKED + ("h5py",) else 10,
                     lambda: rng.integers(N * N, size=1000))
    if case == "zipf-1.09":
        return lists(1 if engine in CHUNKED + ("h5py",) else 20,
                     lambda: numpy.searchsorted(weight, rng.random(1000)) * 7919 % (N * N))
    if case.startswith("slice"):
        axis = "zyx".index(case[-1])
        return slices(axis, 1 if axis == 2 or slow else 4)
    if case == "box-64":
        for _ in range(16):
            z, y, x = (int(v) for v in rng.integers(N - 64, size=3))
            got = get((slice(z, z + 64), slice(y, y + 64), slice(x, x + 64)))
            check(got[0, 0, 0], z, y, x)
        return 16
    step = 64 if engine in CHUNKED else 1  # a chunk is read whole
    for z in range(0, 128, step):
        check(get(slice(z, z + step))[0, 0, 0], z, 0, 0)
    return 128


def peer_main(case, engine, state):
    import numpy
    array, get = peer_array(engine)
    weight = numpy.cumsum(numpy.arange(1, N * N + 1) ** -1.09)
    weight /= weight[-1]
    if state == "hot":
        peer_case(engine, case, array, get, weight)
    best, spent = float("inf"), 0
    for done in itertools.count(1):
        start = time.perf_counter()
        items = peer_case(engine, case, array, get, weight)
        took = time.perf_counter() - start
        best = min(best, took / items)
        spent += took
        if state != "hot" or spent >= (PASSES_S if done < PASSES else ENOUGH_S):
            break
    print(best * 1e9)


# ---- the run

def measure(group, case, engine, state):
    """Nanoseconds per item, or None: this engine can't, or not in time."""
    if engine in NATIVE:
        command = [LIB, DATA, case, engine, state]
    else:
        command = [sys.executable, __file__, "--peer", case, engine, state]
    drop(DATA)
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True,
                              timeout=TIMEOUT, preexec_fn=group.enter)
    except subprocess.TimeoutExpired:
        why = f"takes longer than {TIMEOUT} s"
    except subprocess.CalledProcessError as error:
        # The memory is part of the question, the library's own failure is not.
        if error.returncode != -signal.SIGKILL or engine in NATIVE:
            raise
        why = "needs more memory than there is"
    else:
        return float(done.stdout) if done.stdout.strip() else None
    print(f"\r\033[K{case}, {state}: {engine} {why}: left out")
    return None


def measure_all(group, case, state):
    """The best of each engine."""
    best, left = {}, [e for e in NATIVE + PEERS if wanted(case, e, state)]
    slowest = {}
    for number in range(4 * ROUNDS):
        for engine in list(left):
            if number >= ROUNDS and slowest[engine] > QUICK:
                left.remove(engine)
                continue
            print(f"\r\033[K{case}, {state}: {engine}, round {number + 1}", end="",
                  file=sys.stderr)
            start = time.monotonic()
            value = measure(group, case, engine, state)
            took = time.monotonic() - start
            slowest[engine] = max(took, slowest.get(engine, took))
            if value is None or took > SLOW:
                left.remove(engine)
            if value is not None:
                best[engine] = min(value, best.get(engine, value))
    print("\r\033[K", end="", file=sys.stderr)
    return best


def measure_l2():
    """Its lines, and its metrics of a hit."""
    done = subprocess.run([CACHE], stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return done.stdout, {l["metric"]: l["value"] for l in lines if l["case"] == "hit"}


def measure_threads():
    """Its lines, and two threads over one of each case and engine."""
    with tempfile.TemporaryDirectory(dir=DATA) as folder:
        done = subprocess.run([THREADS, folder], stdout=subprocess.PIPE, text=True,
                              check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    rate = {(l["case"], l["engine"], l["metric"]): l["value"] for l in lines}
    return done.stdout, {key[:2]: rate[key[:2] + ("reads-2-threads",)] / one
                         for key, one in rate.items() if key[2] == "reads-1-thread"}


def targets(ns, hit, threads):
    """(what, ratio or None, at least)"""
    for (case, engine), ratio in threads.items():
        if engine != "memcpy":
            yield f"{case}, hot: {engine}, two threads / one", ratio, 1.5

    if hit:
        yield "L2 hit, median: 100 ns / it", 100 / hit["hit-median"], 1.0
        yield "L2 hits: two threads / one", hit["hits-2-threads"] / hit["hits-1-thread"], 1.5

    def ratio(key, other):
        return ns[other] / ns[key] if ns.get(key) and ns.get(other) else None

    def best(case, state, engines):
        """(time, engine), or None"""
        return min(((ns[case, e, state], e) for e in engines if ns.get((case, e, state))),
                   default=None)

    yield ("batch of 1,000, cold: direct / raw io_uring",
           ratio(("batch-1000", "direct", "cold"), ("batch-1000", "uring", "cold")), 0.95)
    yield ("batch of 1,000, hot: direct / memcpy loop",
           ratio(("batch-1000", "direct", "hot"), ("batch-1000", "memcpy", "hot")), 0.9)
    for case in CASES:
        for state in ("cold", "hot"):
            ours, peer = best(case, state, OURS), best(case, state, PEERS)
            if ours and peer:
                yield f"{case}, {state}: {ours[1]} / {peer[1]}", peer[0] / ours[0], 1.0


def table(ns, chosen):
    engines = NATIVE + PEERS
    print(f"\n{'us per item':18}" + "".join(f"{e:>14}" for e in engines))
    for case in chosen:
        for state in ("cold", "hot"):
            cells = [ns.get((case, e, state)) for e in engines]
            print(f"{case + ' ' + state:18}" +
                  "".join(f"{v / 1e3:14.1f}" if v else f"{'-':>14}" for v in cells))


def wanted(case, engine, state):
    if engine == "pointer" and state == "cold":
        return False  # one page after the other, as memmap-random
    if engine in TILED and case != "box-64" and not case.startswith("slice"):
        return False
    if engine == "memcpy":
        return state == "hot" and case not in ("slice-x", "scan")
    if engine == "uring" and (state == "hot" or case.startswith("slice")):
        return False
    # One slice along x touches every page: more than the memory there is.
    return not (state == "hot" and case == "slice-x")


def main():
    if sys.argv[1:2] == ["--peer"]:
        peer_main(*sys.argv[2:])
        return 0
    globs = sys.argv[1:] or ["*"]
    chosen = [c for c in CASES if any(fnmatch.fnmatch(c, g) for g in globs)]
    group = Group()
    print("memory: " + (f"1 GiB by {group.path}" if group.path else
                        "no control group: pages are dropped before each run"))
    git = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=TOP, text=True,
                         stdout=subprocess.PIPE, check=False).stdout.strip()
    ns, hit, threads = {}, {}, {}
    if chosen:
        missing = [m for m in MODULES if not importlib.util.find_spec(m)]
        if missing:
            sys.exit(f"bench: {sys.executable} has no {', '.join(missing)}: expected "
                     "the peers that `make bench-lib` installs")
        prepare(PEERS)
    os.makedirs(RESULTS, exist_ok=True)
    with open(os.path.join(RESULTS, "lib.jsonl"), "w", encoding="utf-8") as out:
        for case, state in itertools.product(chosen, ("cold", "hot")):
            for engine, value in measure_all(group, case, state).items():
                ns[case, engine, state] = value
                print(json.dumps({
                    "bench": "lib", "case": f"{case}@{state}", "engine": engine,
                    "metric": "time", "value": round(value), "unit": "ns/item",
                    "clock": "wall", "kernel": platform.release(), "git": git}),
                    file=out, flush=True)
        if any(fnmatch.fnmatch("l2", g) for g in globs):
            lines, hit = measure_l2()
            out.write(lines)
            print(lines, end="")
        if any(fnmatch.fnmatch("threads", g) for g in globs):
            os.makedirs(DATA, exist_ok=True)
            lines, threads = measure_threads()
            out.write(lines)
            print(lines, end="")
    if chosen:
        table(ns, chosen)
        print()
    missed = 0
    for what, ratio, least in targets(ns, hit, threads):
        if ratio is None:
            continue
        missed += ratio < least
        print(f"{'met   ' if ratio >= least else 'MISSED'} {ratio:8.2f} >= {least:.2f}  {what}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
