#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mmnf doctor: what it says against what other programs say, and what it makes
of a machine in which something was taken away.  TAP.
"""
import json
import os
import resource
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ["MMNF_SRC"], "tests"))
from toollib import mmnf, ok, refused, run_tests  # noqa: E402

tests = []


def test(function):
    tests.append(function)
    return function


def findings(*args, status=0, **kw):
    done = mmnf("doctor", "--json", *args, **kw)
    assert done.returncode == status, (done.returncode, done.stderr)
    told = json.loads(done.stdout)
    assert told["well"] == (status == 0)
    return {finding["name"]: finding for finding in told["findings"]}


def limited(which, value):
    def limit():
        resource.setrlimit(which, (value, value))
    return limit


@test
def the_machine_is_told_as_it_is():
    found = findings()
    assert os.uname().release in found["kernel"]["text"]
    loaded = os.path.exists("/sys/module/mmnf")
    assert found["module"]["state"] == ("ok" if loaded else "missing")
    assert (found["device"]["state"] == "ok") == os.path.exists("/dev/mmnf")
    flags = open("/proc/cpuinfo", encoding="ascii").read()
    assert found["la57"]["state"] == ("ok" if " la57" in flags else "note")
    assert found["nbd"]["state"] == \
        ("ok" if os.path.exists("/sys/block/nbd0") else "missing")
    assert found["gnuplot"]["state"] == \
        ("ok" if shutil.which("gnuplot") else "missing")
    assert found["gpu"]["text"], found["gpu"]


@test
def the_filesystem_is_told_as_it_is():
    found = findings(".")
    kind = subprocess.run(["stat", "-f", "-c", "%T", "."], text=True, check=True,
                          stdout=subprocess.PIPE).stdout.strip()
    known = {"ext2/ext3": "ext4", "overlayfs": "overlay"}.get(kind, kind)
    if known in ("ext4", "xfs", "btrfs", "tmpfs", "overlay"):
        assert f": {known}" in found["fs"]["text"], (kind, found["fs"])
    if found["fs-holes"]["state"] == "ok":
        with open("holes", "wb") as file:
            file.truncate(1 << 30)
        assert os.stat("holes").st_blocks * 512 < 1 << 20
    assert os.listdir(".") in ([], ["holes"]), os.listdir(".")


@test
def text_and_json_agree():
    text = ok("doctor")
    for name, finding in findings().items():
        lines = [line for line in text.splitlines() if line.split()[1:2] == [name]]
        assert len(lines) == 1 and lines[0].startswith(finding["state"]), lines
        assert finding["mend"] == "" or f"mend: {finding['mend']}" in text


@test
def what_is_taken_away_is_missed_and_mended():
    few = findings(preexec_fn=limited(resource.RLIMIT_NOFILE, 200))["files"]
    assert few["state"] == "missing" and few["mend"] == "ulimit -n 1024", few
    small = findings(preexec_fn=limited(resource.RLIMIT_FSIZE, 3 << 20))
    size = small["fs-size"]
    assert size["state"] == "missing", size
    assert size["mend"].endswith(f"--segment-bytes {3 << 20}"), size
    space = findings(preexec_fn=limited(resource.RLIMIT_AS, 1 << 32))["maps"]
    assert space["state"] == "missing" and "ulimit -v" in space["mend"], space
    no_path = dict(os.environ, PATH="/nowhere")
    plot = findings(env=no_path)["gnuplot"]
    assert plot["state"] == "missing" and "apt-get" in plot["mend"], plot


@test
def status_is_that_of_what_is_needed():
    limit = limited(resource.RLIMIT_NOFILE, 200)
    found = findings("--need", "files,maps", status=1, preexec_fn=limit)
    assert found["files"]["needed"] and found["maps"]["needed"]
    assert not found["gpu"]["needed"]
    findings("--need", "maps", preexec_fn=limit)


@test
def bad_input_is_named():
    refused(2, "--need tape", "doctor", "--need", "tape")
    refused(2, "--need fs-", "doctor", "--need", "files,fs-")
    refused(1, "nowhere", "doctor", "nowhere/at/all")


sys.exit(run_tests(tests))
