# SPDX-License-Identifier: MIT
"""The runner does not believe incomplete reports: made-up outputs against what
tests/ktap.py makes of them, and ktap.h's own programs through a compiler.
"""
import os
import subprocess
import sys
import tempfile

SRC = os.environ["MMNF_SRC"]
sys.path.insert(0, os.path.join(SRC, "tests"))
import ktap  # noqa: E402
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
    results = list(check_reports())
    results += check_harness("gcc", ".c", "gnu11")
    results += check_harness("g++", ".cc", "c++11")
    return report(results)


if __name__ == "__main__":
    sys.exit(main())
