#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mmnf bench on made-up results: the table, the pictures, bad input; and the
benchmark's own arithmetic.  KTAP.
"""
import json
import os
import re
import sys

SRC = os.environ["MMNF_SRC"]
sys.path[:0] = [os.path.join(SRC, "tests"), os.path.join(SRC, "tests", "bench")]
import targets  # noqa: E402
import timeline  # noqa: E402
from toollib import mmnf, refused, run_tests  # noqa: E402

tests = []


def test(function):
    tests.append(function)
    return function


def bench(*args):
    return mmnf("bench", *args)


def bench_refused(status, text, *args):
    refused(status, text, "bench", *args)


def write(path, lines):
    with open(path, "w", encoding="utf-8") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)


def times():
    for d, device in enumerate(("fast", "slow")):
        for c, case in enumerate(("plane", "it's a nest")):
            for e, engine in enumerate(("default", "mmnf", "other")):
                yield {"bench": "walk", "case": f"{case}@{device}", "engine": engine,
                       "metric": "ns_per_touch", "value": 1000.5 + 100 * d + 10 * c + e,
                       "unit": "ns", "clock": "virtual"}
                yield {"bench": "walk", "case": f"{case}@{device}", "engine": engine,
                       "metric": "wrong", "value": 77777, "unit": "1"}


def events():
    for i in range(20):
        for what, end in (("read", 5000), ("hit", 0), ("late", 0), ("miss", 0)):
            yield {"bench": "timeline", "case": "walk@fast", "metric": what,
                   "value": i << 20, "unit": "bytes", "at_ns": i * 1000,
                   "end_ns": i * 1000 + end, "clock": "virtual"}


@test
def table_has_every_time():
    write("walk.jsonl", times())
    done = bench("walk.jsonl")
    assert done.returncode == 0, done.stderr
    for line in times():
        if line["metric"] == "ns_per_touch":
            assert f" {line['value']:.1f}" in done.stdout, line
    assert "77777" not in done.stdout, done.stdout


@test
def times_are_drawn():
    write("walk.jsonl", times())
    done = bench("walk.jsonl", "--plot")
    assert done.returncode == 0 and done.stdout == "walk.svg\n", done
    with open("walk.svg", encoding="utf-8") as file:
        picture = file.read()
    for text in ("plane", "nest", "fast", "slow", "default", "mmnf", "other"):
        assert text in picture, text
    done = bench("walk.jsonl", "--plot", "--out", "p.png")
    assert done.returncode == 0, done.stderr
    with open("p.png", "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"


@test
def timeline_is_drawn():
    write("t.jsonl", events())
    done = bench("t.jsonl", "--plot")
    assert done.returncode == 0 and done.stdout == "t.svg\n", done
    with open("t.svg", encoding="utf-8") as file:
        picture = file.read()
    assert "walk@fast" in picture
    # Each fault is a point: a reference to the point's shape.
    assert len(re.findall(r"<use ", picture)) >= 60, picture[:2000]


@test
def tiers_are_measured_here():
    os.mkdir("here")
    # The fake driver, where it is built, must not be measured.
    fake = os.path.join(os.environ["MMNF_BUILD"], "libmmnf-fakecuda.so")
    os.environ["MMNF_LIBCUDA"] = fake
    done = bench("here", "--table", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    by_engine = {}
    for line in told["results"]:
        assert line["bench"] == "table" and line["clock"] == "wall", line
        assert line["value"] > 0 and line["unit"] == "ns", line
        by_engine.setdefault(line["engine"], set()).add(line["case"])
    assert by_engine["memcpy"] == {"single@hot", "batch-1000@hot", "scan@hot"}
    every = {f"{what}@{state}" for what in ("single", "batch-1000", "scan")
             for state in ("cold", "warm", "hot")}
    for engine in ("mmap", "direct"):
        # Where files cannot be evicted, that is said; what is hot always can be.
        missing = every - by_engine[engine]
        assert not missing or told["not_measured"][engine], (engine, missing)
        assert "single@hot" in by_engine[engine], by_engine
    assert ("device" in by_engine) != ("device" in told["not_measured"]), told
    assert "gpu" not in by_engine, by_engine
    assert ("not a GPU" if os.path.exists(fake) else "no GPU") in \
        told["not_measured"]["gpu"], told
    assert os.listdir("here") == [], os.listdir("here")
    bench_refused(1, "nowhere", "nowhere", "--table")
    bench_refused(2, "--table measures", "--table", "--plot")


@test
def bad_input_is_refused():
    bench_refused(1, "absent.jsonl: No such file", "absent.jsonl")
    with open("bad.jsonl", "w", encoding="utf-8") as out:
        out.write('{"bench":"walk"}\n[1]\n')
    bench_refused(1, "bad.jsonl: line 2: expected a JSON object", "bad.jsonl")
    with open("bad.jsonl", "w", encoding="utf-8") as out:
        out.write('{"bench":"walk"\n')
    bench_refused(1, "bad.jsonl: line 1", "bad.jsonl")
    write("empty.jsonl", [])
    bench_refused(1, "empty.jsonl: no results", "empty.jsonl")
    write("many.jsonl", [{"bench": "walk", "case": f"c{i}", "engine": "e",
                          "metric": "ns_per_touch", "value": 1} for i in range(65)])
    bench_refused(1, "many.jsonl: line 65", "many.jsonl")
    write("walk.jsonl", times())
    bench_refused(2, "expected .svg or .png", "walk.jsonl", "--plot", "--out", "x.pdf")
    bench_refused(2, "--out", "walk.jsonl", "--out", "x.svg")


def row(kind, touches, ns, **more):
    return {"class": kind, "touches": touches, "ns": ns, **more}


@test
def targets_are_ratios():
    rows = {"default": row("nest", 100, 20000), "willneed": row("nest", 1000, 20000),
            "uring": row("nest", 1000, 10000),
            "mmnf": row("nest", 1000, 16000, warm_pages=400, warm_misses=5,
                        prefetched=800, wasted=4, pending=8),
            "watched": row("nest", 1000, 17000, carry_stall_ns=8500, first_stall_ns=3400,
                           full_stall_ns=4250, carry_unserved_ns=510)}
    found = {t[0]: (t[1], targets.missed(t))
             for t in targets.of_case("n", rows, {"uring": rows["uring"]}, False)}
    assert found == {"x willneed": (1.25, False), "x default": (12.5, False),
                     "covered": (0.9875, True), "wasted": (0.015, True),
                     "carry stall": (0.5, True), "bubble": (0.05, True),
                     "carry unserved": (0.03, True)}, found
    stalls = {"watched-willneed": row("nest", 1000, 20000, carry_stall_ns=10000)}
    found = [t for t in targets.of_case("n", {**rows, **stalls}, {}, False)
             if t[0] == "carry stall"]
    assert found == [("carry stall", 0.5, "most", 0.5)], found
    stalls["watched-willneed"]["carry_stall_ns"] = 100
    found = [t for t in targets.of_case("n", {**rows, **stalls}, {}, False)
             if t[0] == "carry stall"]
    assert found == [("carry stall", 0.5, "most", 0.02)], found
    causal = {"willneed-causal": row("nest", 1000, 12000)}
    assert "x willneed-causal" not in [
        t[0] for t in targets.of_case("n", {**rows, **causal}, {}, False)]
    assert not targets.foresight(rows)
    assert targets.foresight({**rows, **causal}) == "x willneed-causal 0.75"
    missed = {**rows, "willneed": row("nest", 1000, 15000)}
    for ns, why in ((15520, "below 0.98, more could be foreseen"),
                    (15840, "what a walk has not shown yet cannot be asked for")):
        text = targets.foresight({**missed, "willneed-causal": row("nest", 1000, ns)})
        assert text == f"x willneed-causal {ns / 16000:.3g}: {why}", text
    # That oracle is not slower than willneed: it does not excuse what is missed.
    missed = {**rows, "willneed": row("nest", 1000, 15900),
              "willneed-causal": row("nest", 1000, 15840)}
    assert targets.foresight(missed).endswith("it is as fast as willneed")
    found = dict(targets.speeds({**rows, **causal}, {**rows["mmnf"], "engine": "mmnf"}))
    assert found == {"x_willneed": 1.25, "x_willneed-causal": 0.75}, found
    assert not list(targets.speeds(rows, {**rows["uring"], "engine": "uring"}))
    fast = {"uring": row("nest", 1000, 7000), "willneed": row("nest", 1000, 19000)}
    assert "x uring" not in [t[0] for t in targets.of_case("n", rows, fast, False)]
    fast["willneed"] = row("nest", 1000, 12000)
    found = {t[0]: t[1] for t in targets.of_case("n", rows, fast, False)}
    assert found["x uring"] == 0.625, found


@test
def told_is_held_to_willneed():
    rows = {"willneed": row("nest", 1000, 12000), "mmnf": row("nest", 1000, 10000,
            warm_pages=400, warm_misses=0, prefetched=400, wasted=0, pending=0),
            "mmnf-told": row("nest", 1000, 12200), "uring": row("nest", 1000, 9000)}

    def told():
        return [(t[2], t[3], targets.missed(t))
                for t in targets.of_case("n", rows, {}, False)
                if t[0] == "told x willneed"]

    assert told() == [("least", 1.0, True)], told()
    # All wait for the disk: within what two runs of one walk may differ by.
    rows["uring"]["ns"] = 11800
    assert told() == [("least", 0.98, False)], told()
    rows["mmnf-told"]["ns"] = 12300
    assert told() == [("least", 0.98, True)], told()
    rows["uring"]["ns"] = 11700
    rows["mmnf-told"]["ns"] = 8000
    assert told() == [("least", 1.0, False)], told()
    found = dict(targets.speeds(rows, {**rows["mmnf-told"], "engine": "mmnf-told"}))
    assert found == {"x_willneed": 1.5}, found


@test
def trace_becomes_events():
    text = """# tracer: nop
            walk-300     [000] .....    12.000100: mmnf_fault: field=0 thread=300 ip=0x401f offset_bytes=8192 miss
     kworker/u2:1-40     [000] .....    12.000150: block_rq_issue: 252,1 R 4096 () 16 + 8 [kworker/u2:1]
     kworker/u2:1-40     [000] .....    12.000160: block_rq_issue: 252,1 RA 4096 () 800 + 8 [kworker/u2:1]
          <idle>-0       [000] ..s..    12.000650: block_rq_complete: 252,1 R () 16 + 8 [0]
            walk-300     [000] .....    12.000700: mmnf_fault: field=0 thread=300 ip=0x401f offset_bytes=12288 hit
            walk-300     [000] .....    12.000800: mmnf_fault: field=0 thread=300 ip=0x401f offset_bytes=16384 late
"""
    assert list(timeline.events(text, 2)) == [
        ("miss", 8192, 12000100000, 12000100000),
        ("read", 8192, 12000150000, 12000650000),
        ("hit", 12288, 12000700000, 12000700000)]


if __name__ == "__main__":
    sys.exit(run_tests(tests, fresh=False))
