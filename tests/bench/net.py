#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The network: the library beside a plain loop of libnbd, wall time.

    tests/bench/net.py                  all cases
    tests/bench/net.py 'random*'        some

Servers are nbdkit's `pattern`, 1 PB, on Unix sockets of this machine, with and
without a delay of 1 ms.  Both sides read the same number of records in turn,
ROUNDS times, into the same memory.  Neither looks at what came while its time runs:
each record is checked after it, and overwritten.  Connections, fields and batches are
opened before, except those of walk, which begins cold.  Shown are the best time of each
and their ratio, and the median of the ratios of each round, whose halves the same
neighbours disturb; that is the one that has a target.  At a depth of 1 without a delay
the time is the scheduler's, for both.

    random      4 KiB records at random places, so many at once.  The library reads
                them with l2_once: as the loop it keeps nothing.  At a depth of 1 it
                gets one after the other, at others all by one request
    kept        the same records, by a library that keeps them in L2, which it does
                unless told otherwise; the loop is the one above that keeps nothing.
                "keeping" is the ratio of that loop if it reads into 64 MiB of memory
                in turn and copies from there: whoever keeps what he reads pays as
                much.  There is no target
    scan        256 KiB in a row, 16 at once in the loop; boxes of 32 MiB by the
                library, which go through L2, too; there is no target: 10 Gbit/s
                are 1,250 MB/s
    walk        every 17th record, one after the other, cold; the oracle is a
                loop of libnbd with 64 at once that is told all beforehand
    open        of the petabyte
    share       four servers, two readers each; one is killed: what the readers of
                the other three still get

Writes build/bench/net.jsonl, prints a table and the targets.
"""
import fnmatch
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
NET = os.path.join(TOP, "build", "tests", "bench", "net")
RESULTS = os.path.join(TOP, "build", "bench")
ROUNDS = 31
# case: engine measured against, arguments, server, least ratio
CASES = {
    "random-1-0ms": ("libnbd", ["random", "{}", "1", "1000"], 0, 0.95),
    "random-16-0ms": ("libnbd", ["random", "{}", "16", "2000"], 0, 0.95),
    "random-64-0ms": ("libnbd", ["random", "{}", "64", "2000"], 0, 0.95),
    "random-1-1ms": ("libnbd", ["random", "{}", "1", "100"], 1, 0.95),
    "random-16-1ms": ("libnbd", ["random", "{}", "16", "1000"], 1, 0.95),
    "random-64-1ms": ("libnbd", ["random", "{}", "64", "4000"], 1, 0.95),
    "scan-0ms": ("libnbd", ["scan", "{}", "262144", "512"], 0, None),
    "scan-1ms": ("libnbd", ["scan", "{}", "262144", "512"], 1, None),
    "walk-1ms": ("oracle", ["walk", "{}", "17", "6000"], 1, 0.9),
}


def server(folder, name, *args):
    path = os.path.join(folder, name)
    child = subprocess.Popen(["nbdkit", "-f", "-U", path, *args],
                             stderr=subprocess.DEVNULL)
    while not os.path.exists(path):
        assert child.poll() is None, f"nbdkit {args} ended"
        time.sleep(0.01)
    return child, f"nbd+unix:///?socket={path}"


def git():
    done = subprocess.run(["git", "-C", TOP, "rev-parse", "--short", "HEAD"],
                          stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.strip()


class Report:
    def __init__(self):
        os.makedirs(RESULTS, exist_ok=True)
        self.file = open(os.path.join(RESULTS, "net.jsonl"), "w",
                         encoding="ascii")
        self.targets = []

    def add(self, case, engine, metric, value, unit):
        self.file.write(json.dumps({
            "bench": "net", "case": case, "engine": engine, "metric": metric,
            "value": value, "unit": unit, "clock": "wall",
            "kernel": platform.release(), "git": git()}) + "\n")

    def target(self, text, met):
        self.targets.append(f"{'met   ' if met else 'missed'} {text}")


def lines(*args):
    done = subprocess.run([NET, *args], stdout=subprocess.PIPE, text=True,
                          check=True, timeout=300)
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(report, case, uris):
    peer, args, delay, least = CASES[case]
    times, cpu = {}, {}
    for seen in lines(*[a.format(uris[delay]) for a in args], str(ROUNDS)):
        engine = seen["engine"]
        times.setdefault(engine, []).append(seen["seconds"] * 1e6 / seen["reads"])
        cpu.setdefault(engine, []).append(seen["cpu_us_per_read"])
    for engine, values in times.items():
        report.add(case, engine, "read", min(values), "us")
        report.add(case, engine, "cpu", min(cpu[engine]), "us")

    def median(engine):
        ratio = statistics.median(a / b for a, b in zip(times[peer], times[engine]))
        report.add(case, engine, "ratio", ratio, "ratio")
        return ratio

    def line(name, engine, keeping=""):
        ratio, best = median(engine), min(times[peer]) / min(times[engine])
        print(f"{name:16} {min(times[peer]):9.1f} {min(times[engine]):9.1f} "
              f"{best:7.2f} {ratio:7.2f} {min(cpu[peer]):9.1f} {min(cpu[engine]):9.1f} "
              f"{keeping}", flush=True)
        return ratio

    ratio = line(case, "mmnf")
    if "mmnf-keeps" in times:
        line("       kept", "mmnf-keeps", f"{median('libnbd-keeps'):8.2f}")
    if least:
        report.target(f"{case}: {ratio:.2f} of {peer}, expected {least}",
                      ratio >= least)


def share(report, folder):
    """Reads of the others in 2 s before and after one of four is killed."""
    args = ("--filter=delay", "pattern", "256T", "rdelay=1ms")
    four = [server(folder, f"share{i}", *args) for i in range(4)]
    reader = subprocess.Popen([NET, "share", "5", *[uri for _, uri in four]],
                              stdout=subprocess.PIPE, text=True)
    time.sleep(2.5)
    four[3][0].send_signal(signal.SIGKILL)
    seen = [json.loads(line) for line in reader.stdout]
    reader.wait()
    for child, _ in four:
        child.kill()
        child.wait()

    def rate(first, last):
        part = [s for s in seen if first <= s["seconds"] <= last]
        reads = [sum(s["reads"][:3]) for s in part]
        steps = [b - a for a, b in zip(reads, reads[1:])]
        return statistics.median(steps)

    before, after = rate(0.3, 2.4), rate(2.7, 4.9)
    dead = seen[-1]["reads"][3] - [s for s in seen if s["seconds"] > 3][0]["reads"][3]
    report.add("share", "mmnf", "others_kept", after / before, "ratio")
    print(f"share: the others {before:.0f} reads in 0.1 s before, {after:.0f} after; "
          f"the dead one {dead} in all")
    report.target(f"share: the others keep {after / before:.2f}, expected 0.8",
                  after / before >= 0.8)


def main():
    wanted = sys.argv[1:] or ["*"]
    report = Report()

    def is_wanted(case):
        return any(fnmatch.fnmatch(case, pattern) for pattern in wanted)

    with tempfile.TemporaryDirectory() as folder:
        fast, fast_uri = server(folder, "fast", "pattern", "1P")
        slow, slow_uri = server(folder, "slow", "-t", "64", "--filter=delay",
                                "pattern", "1P", "rdelay=1ms")
        try:
            print(f"{'µs a read':16} {'peer':>9} {'mmnf':>9} {'ratio':>7} {'median':>7} "
                  f"{'peer cpu':>9} {'mmnf cpu':>9}  keeping")
            for case in filter(is_wanted, CASES):
                compare(report, case, (fast_uri, slow_uri))
            if is_wanted("open"):
                best = min(line["seconds"] for line in lines("open", fast_uri, "5"))
                report.add("open", "mmnf", "open", best, "s")
                print(f"open of 1 PB: {best * 1000:.1f} ms")
                report.target(f"open: {best:.4f} s, expected 1", best < 1)
            if is_wanted("share"):
                share(report, folder)
        finally:
            for child in (fast, slow):
                child.kill()
                child.wait()
    print("\n".join(report.targets))


if __name__ == "__main__":
    main()
