# SPDX-License-Identifier: MIT
"""What the tests of the tool share: running it, and reporting by TAP."""
import os
import subprocess
import sys
import tempfile

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


def run_tests(tests):
    """Each in a fresh folder; the exit status."""
    failed = 0
    print(f"TAP version 13\n1..{len(tests)}")
    for number, function in enumerate(tests, 1):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                function()
                print(f"ok {number} {function.__name__}")
            except AssertionError as error:
                failed += 1
                print(f"# {error}\nnot ok {number} {function.__name__}")
            os.chdir("/")
        sys.stdout.flush()
    return 1 if failed else 0
