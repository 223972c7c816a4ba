# SPDX-License-Identifier: MIT
"""The runner does not believe incomplete reports: made-up outputs against what
tests/ktap.py makes of them, ktap.h's own programs through a compiler, and guests
that die.
"""
import contextlib
import importlib.machinery
import importlib.util
import io
import os
import subprocess
import sys
import tempfile

SRC = os.environ["MMNF_SRC"]
sys.path.insert(0, os.path.join(SRC, "tests"))
sys.path.insert(1, os.path.join(SRC, "tests", "vm"))
import ktap  # noqa: E402
import run as vm_run  # noqa: E402
from toollib import report  # noqa: E402

# name, output, exit status, note, (passed, failed, skipped)
REPORTS = [
    ("all_passed", "KTAP version 1\n1..2\nok 1 a\nok 2 b\n", 0, "", (2, 0, 0)),
    ("one_failed", "1..2\nok 1 a\nnot ok 2 b\n", 1, "", (1, 1, 0)),
    ("one_skipped", "1..2\nok 1 a\nok 2 b # SKIP why\n", 0, "", (1, 0, 1)),
    ("all_skipped", "1..1\nok 1 a # SKIP why\n", 4, "", (0, 0, 1)),
    ("plan_not_kept", "1..3\nok 1 a\n", 0, "", (1, 1, 0)),
    ("more_than_planned", "1..1\nok 1 a\nok 2 b\n", 0, "", (2, 1, 0)),
    ("no_plan", "ok 1 a\n", 0, "", (1, 1, 0)),
    ("empty_plan", "1..0\n", 0, "", (0, 1, 0)),
    ("crash_at_the_end", "1..1\nok 1 a\n", -11, "", (1, 1, 0)),
    ("crash_before_all", "", -11, "", (0, 1, 0)),
    ("unexplained_status", "1..1\nok 1 a\n", 3, "", (1, 1, 0)),
    ("timeout", "1..2\nok 1 a\n", -15, "no end after 1 s", (1, 1, 0)),
    ("bail_out", "1..1\nok 1 a\nBail out! disk\n", 0, "", (1, 1, 0)),
    ("plain_passed", "hello\n", 0, "", (1, 0, 0)),
    ("plain_failed", "hello\n", 2, "", (0, 1, 0)),
    ("plain_skipped", "no gpu\n", 4, "", (0, 0, 1)),
    ("skip_all_kselftest", "TAP version 13\n1..0 # SKIP no device\n", 4, "",
     (0, 0, 1)),
    ("harness_6_1_skip", "TAP version 13\n1..1\n#  RUN           f.a ...\n"
     "#      SKIP      why\n#            OK  f.a\nok 1 # SKIP why\n", 0, "",
     (0, 0, 1)),
]

PROGRAM = """
#include "ktap.h"
#include <stdint.h>
TEST(passes) { EXPECT_EQ(7, (uint64_t)7); EXPECT_LT(-1, UINT64_MAX); }
TEST(wraps) { EXPECT_EQ(-1, UINT64_MAX); }
TEST(near) { EXPECT_EQ(0.1 + 0.2, 0.3); }
TEST(not_a_number) { EXPECT_LE(0.0 / 0.0, 1.0); }
TEST(stops) { ASSERT_STREQ("a", "b"); _exit(0); }
TEST(crashes) { raise(SIGSEGV); }
TEST(hangs) { pause(); }
TEST(skips) { SKIP("no %s", "reason"); }
TEST(fails_then_skips) { EXPECT_TRUE(0); SKIP("no reason"); }
TEST_MAIN
"""
EXPECTED = {"passes": "passed", "skips": "skipped", "wraps": "failed",
            "near": "failed", "not_a_number": "failed", "stops": "failed",
            "crashes": "failed", "hangs": "failed",
            "fails_then_skips": "failed"}

# Linux 6.12: the byte before the next one is what was run.
OOPS = """[  230.665326] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI
[  230.666038] RIP: 0010:ttwu_do_activate+0x8d/0x220
[  230.666496] Code: 89 e2 48 89 de 18 00 00 00 00 66 <90> 48 8b 83 a8 02 00
[  230.666570] RSP: 0018:ffffc90000100f48 EFLAGS: 00000006
"""
LOGS = [
    ("breakpoint_is_gone", OOPS, True),
    ("breakpoint_is_there", OOPS.replace("66 <90>", "cc <90>"), False),
    ("linux_6_1", OOPS.replace("Oops: int3", "int3"), True),
    ("other_oops", OOPS.replace("int3", "invalid opcode"), False),
    ("no_code", OOPS.replace("Code", "Text"), False),
    ("no_oops", "", False),
]


def check_guests():
    for name, log, want in LOGS:
        yield name, vm_run.is_tripped(log) == want, log
    loader = importlib.machinery.SourceFileLoader(
        "runner", os.path.join(SRC, "tests", "run"))
    runner = importlib.util.module_from_spec(
        importlib.util.spec_from_loader("runner", loader))
    loader.exec_module(runner)
    for nr_trips, want in ((0, ["passed"] * 3), (1, ["passed"] * 3),
                           (2, ["passed", "failed", "passed"])):
        trips = [None] * nr_trips

        def boot(names, *_):
            for name in names:
                if name == "b" and trips:
                    yield name, trips.pop()
                    return
                yield name, [ktap.Case("", "passed", "")]

        runner.guest_boot = boot
        with contextlib.redirect_stdout(io.StringIO()):
            got = dict(runner.run_guest(["a", "b", "c"], {}, 1, ""))
        verdicts = [got[name][0].verdict for name in "abc"]
        yield f"tripped_{nr_trips}_times", verdicts == want, f"{verdicts}"


def check_reports():
    for name, output, status, note, want in REPORTS:
        cases = ktap.cases(output, status, note)
        got = tuple(sum(case.verdict == verdict for case in cases)
                    for verdict in ("passed", "failed", "skipped"))
        yield name, got == want, f"expected {want}, got {got}"
    named = ktap.cases(REPORTS[-1][1], 0)[0]
    yield ("harness_6_1_skip_has_name",
           (named.name, named.reason) == ("f.a", "why"), f"{named}")


def check_harness(compiler, suffix, standard):
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "t" + suffix)
        with open(source, "w", encoding="ascii") as file:
            file.write(PROGRAM)
        subprocess.run([compiler, "-std=" + standard, "-Wall", "-Wextra",
                        "-Werror", "-I" + os.path.join(SRC, "tests"), source,
                        "-o", source + ".out"], check=True)
        done = subprocess.run([source + ".out"], stdout=subprocess.PIPE,
                              env=dict(os.environ, KTAP_TIMEOUT="1"),
                              text=True, check=False)
    cases = ktap.cases(done.stdout, done.returncode)
    got = {case.name: case.verdict for case in cases}
    yield f"ktap_h_by_{compiler}", got == EXPECTED, f"{got}"


def main():
    results = list(check_reports()) + list(check_guests())
    results += check_harness("gcc", ".c", "gnu11")
    results += check_harness("g++", ".cc", "c++11")
    return report(results)


if __name__ == "__main__":
    sys.exit(main())
