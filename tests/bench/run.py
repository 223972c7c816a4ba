#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The kernel benchmark: /dev/mmnf, foreseeing and told, against stock advice and two
oracles.

    tests/bench/run.py                      all cases on all devices
    tests/bench/run.py 'nest*' '*@10us'     some: globs of CASE or CASE@DEVICE
    tests/bench/run.py -l                   their names
    tests/bench/run.py --engines mmnf,willneed,uring '*'
    tests/bench/run.py --twice 'nest2@*'    twice, and compare

Runs tests/bench/guest.sh in a disposable guest in virtual time: one
instruction is one nanosecond on one virtual CPU, and the disk's latency is a
timer.  The numbers are repeatable and are compared only with each other.

A virtual core is about five times slower than a real one.  So that reads and
instructions weigh as on real hardware, a device of 10 us takes 50 us here;
"100us-unscaled" takes 100 us.  String instructions count once per step, so the
virtual CPU has no fast byte copy (ERMS): a page is copied in 512 steps, not 4096.

Writes build/bench/walk.jsonl, one JSON object per line, and with the case nest2@100us
build/bench/timeline.jsonl, its faults and reads; `mmnf bench --plot` draws either.
Prints the table and the targets.  Exit status 1 if a walk read a wrong byte, a target is missed, or
two runs differ by more than 2 %.
"""
import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
import targets  # noqa: E402
import timeline  # noqa: E402

WALK = os.path.join(TOP, "build", "tests", "bench", "walk", "walk")
RESULTS = os.path.join(TOP, "build", "bench")
ENGINES = ["default", "madv_random", "madv_sequential", "off", "willneed",
           "willneed-causal", "uring", "mmnf", "mmnf-told"]
# Name -> latency in virtual time, fastest first.
DEVICES = {"10us": 50000, "100us-unscaled": 100000, "100us": 500000, "1ms": 5000000}
UNSCALED = "100us-unscaled"
# The walk whose faults and reads are drawn; on the raw disk.
TIMELINE, TIMELINE_FAULTS = ("nest2", "100us"), 640
REPEATS_WITHIN = 0.02
PAGES = ("pages", "prefetched", "used", "wasted", "pending", "warm_pages")


def all_cases():
    """(case, device) pairs in the order of the run."""
    done = subprocess.run([WALK, "list"], stdout=subprocess.PIPE, text=True, check=True)
    for device in DEVICES:
        for line in done.stdout.splitlines():
            case, kind = line.split()
            if kind == "hot" and device != "10us":
                continue
            if device == UNSCALED and not case.startswith(
                    ("stride-", "sequential", "random")):
                continue
            yield case, device


def select(globs):
    chosen = []
    for case, device in all_cases():
        names = (case, f"{case}@{device}")
        if not globs or any(fnmatch.fnmatch(n, g) for n in names for g in globs):
            chosen.append((case, device))
    if not chosen:
        sys.exit(f"bench: no case matches {' '.join(globs)}; see --list")
    return chosen


def run_guest(args, chosen, share):
    """Rows as they come: the walk's JSON objects, with their device."""
    module = os.path.join(TOP, "build", "kmod", args.kver, "mmnf.ko")
    words = [os.path.join(HERE, "guest.sh"), module, WALK, args.engines]
    for device, latency in DEVICES.items():
        cases = [c for c, d in chosen if d == device]
        if TIMELINE in chosen and device == TIMELINE[1]:
            cases.append(f"timeline={TIMELINE[0]}")
        if cases:
            words.append(f"{latency}:{','.join(cases)}")
    command = [sys.executable, os.path.join(TOP, "tests", "vm", "run.py"), "--icount",
               "--qemu-arg=-cpu max,erms=off", "--mem", "4G", "--timeout", "7200",
               "--share", share, "--kver", args.kver, "--", " ".join(words)]
    device = None
    names = {latency: name for name, latency in DEVICES.items()}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as guest:
        for line in guest.stdout:
            if not line.startswith("{"):
                print(line, end="", file=sys.stderr)
                continue
            row = json.loads(line)
            if "latency_ns" in row:
                device = names[row["latency_ns"]]
                continue
            row["device"] = device
            yield row
    if guest.returncode:
        sys.exit(f"bench: the guest ended with {guest.returncode}")


def unit(metric):
    if metric.endswith("_ns") or metric == "ns":
        return "ns"
    return "pages" if metric in PAGES else "1"


def common_members(bench, case, device, engine, args):
    git = subprocess.run(["git", "-C", TOP, "describe", "--always", "--dirty"],
                         stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
    return {"bench": bench, "case": f"{case}@{device}", "engine": engine,
            "clock": "virtual", "kernel": args.kver, "git": git,
            "device_latency_ns": DEVICES[device]}


def write_lines(rows, args, path):
    engines = by_case(rows)
    with open(path, "w", encoding="utf-8") as out:
        for row in rows:
            common = common_members("walk", row["case"], row["device"], row["engine"],
                                    args)
            values = {}
            if not row["engine"].startswith("watched"):
                values["ns_per_touch"] = row["ns"] / row["touches"]
            values.update((k, v) for k, v in row.items()
                          if k not in ("case", "device", "engine", "class"))
            values.update(targets.speeds(engines[row["case"], row["device"]], row))
            for metric, value in values.items():
                out.write(json.dumps({
                    **common, "metric": metric, "value": value,
                    "unit": "ns" if metric == "ns_per_touch" else unit(metric)}) + "\n")


def write_timeline(share, args, path):
    with open(os.path.join(share, "timeline.txt"), encoding="utf-8") as file:
        found = list(timeline.events(file.read(), TIMELINE_FAULTS))
    common = common_members("timeline", *TIMELINE, "mmnf", args)
    with open(path, "w", encoding="utf-8") as out:
        for what, pos, at_ns, end_ns in found:
            out.write(json.dumps({**common, "metric": what, "value": pos,
                                  "unit": "bytes", "at_ns": at_ns,
                                  "end_ns": end_ns}) + "\n")


def by_case(rows):
    found = {}
    for row in rows:
        found.setdefault((row["case"], row["device"]), {})[row["engine"]] = row
    return found


def text_of(target):
    name, value, which, bound = target
    percent = name in ("covered", "wasted", "carry stall", "carry unserved",
                       "bubble")
    shown = f"{value:.2%}" if percent else f"{value:.3g}"
    limit = f"{bound:.3g}"
    if percent:
        limit = f"{bound:.2%}" if name == "carry stall" else f"{bound:.0%}"
    sign = ">=" if which == "least" else "<="
    verdict = f" MISSED {sign} {limit}" if targets.missed(target) else ""
    return f"{name} {shown}{verdict}"


class Report:
    """Prints the table, a case as soon as it is complete."""

    def __init__(self):
        self.cases, self.failed, self.device = {}, [], None

    def finish(self, key):
        case, device = key
        engines = self.cases[key]
        if device != self.device:
            self.device = device
            print(f"\ndevice {device}: {DEVICES[device] // 1000} us in virtual time; "
                  "us per touch")
            print(f"{'':24}" + "".join(
                f"{e.removeprefix('willneed-')[:11]:>12}" for e in ENGINES))
        print(f"{case:24}" + "".join(
            f"{targets.us(engines[e]):12.3f}" if e in engines else f"{'-':>12}"
            for e in ENGINES))
        fastest = self.cases.get((case, "10us"), {})
        found = list(targets.of_case(case, engines, fastest, device == UNSCALED))
        texts = [text_of(t) for t in found]
        causal = targets.foresight(engines)
        if causal:
            texts.insert(1, causal)
        if "watched-willneed" in engines:
            stall = targets.carry_stall(engines["watched-willneed"])
            texts.append(f"willneed's carry stall {stall:.2%}")
        print("    " + ", ".join(texts), flush=True)
        self.failed += [f"{case}@{device}: {text_of(t)}" for t in found
                        if targets.missed(t)]
        self.failed += [f"{case}@{device}: {e}: {r['wrong']} wrong values"
                        for e, r in engines.items() if r["wrong"]]

    def take(self, rows):
        """All rows, as a list; what was missed is in self.failed."""
        taken, pending, last = [], [], None
        for row in rows:
            # A hot case and its sequel on mapped pages come in turns.
            now = row["case"].removesuffix("-mapped"), row["device"]
            if now != last:
                for key in pending:
                    self.finish(key)
                pending, last = [], now
            key = row["case"], row["device"]
            if key not in pending:
                pending.append(key)
            self.cases.setdefault(key, {})[row["engine"]] = row
            taken.append(row)
        for key in pending:
            self.finish(key)
        print(f"\n{len(self.cases)} cases, {len(self.failed)} targets missed")
        return taken


def compare(first, second):
    """Where two runs of the same walks differ too much."""
    again = by_case(second)
    for (case, device), engines in by_case(first).items():
        for engine, row in engines.items():
            other = again[(case, device)][engine]
            ratio = other["ns"] / row["ns"]
            if abs(ratio - 1) > REPEATS_WITHIN:
                yield f"{case}@{device}: {engine}: second run {ratio:.3f} of the first"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("globs", nargs="*", metavar="CASE[@DEVICE]")
    parser.add_argument("-l", "--list", action="store_true")
    parser.add_argument("--twice", action="store_true")
    parser.add_argument("--engines", default="all")
    parser.add_argument("--results", default=RESULTS, metavar="DIR")
    parser.add_argument("--kver", default=os.environ.get("KVER"),
                        required="KVER" not in os.environ)
    args = parser.parse_args()
    chosen = select(args.globs)
    if args.list:
        print(*(f"{case}@{device}" for case, device in chosen), sep="\n")
        return 0
    os.makedirs(args.results, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mmnf-bench.") as share:
        report = Report()
        rows = report.take(run_guest(args, chosen, share))
        if not rows:
            sys.exit("bench: the guest printed no result")
        paths = [os.path.join(args.results, "walk.jsonl")]
        write_lines(rows, args, paths[0])
        if TIMELINE in chosen:
            paths.append(os.path.join(args.results, "timeline.jsonl"))
            write_timeline(share, args, paths[1])
        failed = report.failed
        if args.twice:
            failed += compare(rows, list(run_guest(args, chosen, share)))
    print("bench:", *paths)
    for line in failed:
        print(f"bench: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
