# SPDX-License-Identifier: MIT
"""What tests written in Python share: running the tool, and reporting by KTAP."""
import contextlib
import os
import subprocess
import tempfile
import time
import traceback

MMNF = os.environ.get("MMNF", "")
SRC = os.environ.get("MMNF_SRC", "")


def mmnf(*args, **kw):
    return subprocess.run([MMNF, *args], text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)


def ok(*args, **kw):
    done = mmnf(*args, **kw)
    assert done.returncode == 0, \
        f"mmnf {' '.join(args)}: {done.returncode}: {done.stderr}"
    return done.stdout


def refused(status, text, *args, **kw):
    done = mmnf(*args, **kw)
    assert done.returncode == status, \
        f"mmnf {' '.join(args)}: {done.returncode}, not {status}"
    assert text in done.stderr, f"{text!r} is not in {done.stderr!r}"
    assert done.stderr.startswith("mmnf: "), done.stderr
    assert not done.stdout, done.stdout


def word(offset):
    """Of test data in files, at a multiple of 8."""
    return (offset * 0x9E3779B97F4A7C15 + 1) & (1 << 64) - 1


def run_tests(tests, *arguments, fresh=True):
    """Each is called with the arguments, in a fresh folder or where this stands; the
    exit status.  Whatever one raises, the next is worth its run."""
    failed = 0
    print(f"KTAP version 1\n1..{len(tests)}", flush=True)
    for number, function in enumerate(tests, 1):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() if fresh else contextlib.nullcontext() as folder:
            if folder:
                os.chdir(folder)
            try:
                function(*arguments)
                verdict = "ok"
            except Exception:  # pylint: disable=broad-except
                failed += 1
                verdict = "not ok"
                print("# " + traceback.format_exc().strip().replace("\n", "\n# "))
            if folder:
                os.chdir("/")
        print(f"# {time.monotonic() - began:.1f} s\n{verdict} {number} {function.__name__}",
              flush=True)
    return 1 if failed else 0


def report(checks):
    """What checks yield, a name, whether it is so, and why not; the exit status."""
    number = failed = 0
    print("KTAP version 1", flush=True)
    for number, (name, good, why) in enumerate(checks, start=1):
        failed += not good
        if not good:
            print("# " + "\n# ".join(str(why).splitlines()))
        print(f"{'' if good else 'not '}ok {number} {name}", flush=True)
    print(f"1..{number}")
    return 1 if failed else 0
