#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The kernel benchmark: /dev/mmnf against stock advice and an oracle.

    tests/bench/run.py [--latency-ns 100000] [--kver V]

Runs tests/bench/guest.sh in a disposable guest in virtual time: one
instruction is one nanosecond on one virtual CPU, and the disk's latency is a
timer.  The numbers are repeatable and are compared only with each other.

Writes build/bench/stride.jsonl, one JSON object per line; prints the table and
the targets.  Exit status 1 if a walk read a wrong byte or a target is missed.
"""
import argparse
import json
import os
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENGINES = ["default", "madv_random", "madv_sequential", "off", "willneed", "mmnf"]
STOCK = ["default", "madv_random", "madv_sequential"]


def targets(case):
    """(engines to compare with, least speed of mmnf relative to the best)."""
    if case.startswith("stride"):
        return [(["default"], 10), (["madv_random"], 4.5), (["willneed"], 1.0)]
    return [(STOCK, 0.97)]


def run_guest(args):
    module = os.path.join(TOP, "build", "kmod", args.kver, "mmnf.ko")
    walk = os.path.join(TOP, "build", "tests", "bench", "walk")
    guest = os.path.join(TOP, "tests", "bench", "guest.sh")
    command = [sys.executable, os.path.join(TOP, "tests", "vm", "run.py"), "--icount",
               "--mem", "4G", "--timeout", "900", "--kver", args.kver, "--",
               f"{guest} {module} {walk} {args.latency_ns}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"bench: the guest ended with {done.returncode}\n{done.stdout}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def write_lines(rows, args, path):
    git = subprocess.run(["git", "-C", TOP, "describe", "--always", "--dirty"],
                         stdout=subprocess.PIPE, text=True).stdout.strip()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as out:
        for row in rows:
            result = row["result"]
            common = {"bench": "stride", "case": row["case"], "engine": result["engine"],
                      "clock": "virtual", "kernel": args.kver, "git": git,
                      "device_latency_ns": args.latency_ns}
            metrics = [("ns_per_access", result["ns"] / result["accesses"], "ns")]
            metrics += [(k, v, "pages" if k in ("prefetched", "used", "wasted", "pending")
                         else "1") for k, v in result.items()
                        if k not in ("engine", "accesses", "ns")]
            for metric, value, unit in metrics:
                out.write(json.dumps({**common, "metric": metric, "value": value,
                                      "unit": unit}) + "\n")


def report(rows):
    cases = {}
    for row in rows:
        cases.setdefault(row["case"], {})[row["result"]["engine"]] = row["result"]
    print(f"{'us per access, virtual time':26}" + "".join(f"{e:>17}" for e in ENGINES))
    failed = []
    for case, by_engine in cases.items():
        us = {e: r["ns"] / r["accesses"] / 1000 for e, r in by_engine.items()}
        print(f"{case:26}" + "".join(f"{us[e]:17.2f}" for e in ENGINES))
        for engines, least in targets(case):
            best = min(engines, key=us.get)
            speed = us[best] / us["mmnf"]
            verdict = "ok" if speed >= least else "MISSED"
            print(f"{'':26}  {speed:6.2f} x {best} (target {least}) {verdict}")
            if speed < least:
                failed.append(f"{case}: {speed:.2f} x {best}, target {least}")
        failed += [f"{case}: {e}: {r['wrong']} wrong values"
                   for e, r in by_engine.items() if r["wrong"]]
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency-ns", type=int, default=100000)
    parser.add_argument("--kver", default=os.environ.get("KVER"), required="KVER" not in os.environ)
    args = parser.parse_args()
    rows = run_guest(args)
    if not rows:
        sys.exit("bench: the guest printed no result")
    path = os.path.join(TOP, "build", "bench", "stride.jsonl")
    write_lines(rows, args, path)
    failed = report(rows)
    print(f"bench: {path}")
    for line in failed:
        print(f"bench: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
