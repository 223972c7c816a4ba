# SPDX-License-Identifier: MIT
"""In the guest: run kselftest programs one after the other, each with mmnf.ko
inserted before and removed after, and see that nothing of it is left.  A module
among them is one of KUnit: it runs as it is inserted, and reports to the log.

$MMNF_SHARE/plan.json says which; results go to N.json beside it, one by one, so
that a guest that dies takes only the running program with it.
"""
import json
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from run import complaints  # noqa: E402

SHARE = os.environ["MMNF_SHARE"]
KO = os.environ["MMNF_KO"]
KMEMLEAK = "/sys/kernel/debug/kmemleak"
LEFTOVERS = ["/sys/class/misc/mmnf", "/dev/mmnf", "/sys/module/mmnf"]


def shell(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, check=False)


class KernelLog:
    """What the kernel says from now on."""

    def __init__(self):
        self.fd = os.open("/dev/kmsg", os.O_RDWR | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def mark(self, text):
        os.write(self.fd, text.encode())

    def new_lines(self):
        lines = []
        while True:
            try:
                record = os.read(self.fd, 8192).decode(errors="replace")
            except BlockingIOError:
                return lines
            except BrokenPipeError:     # overwritten before it was read
                continue
            lines.append(record.split(";", 1)[-1].rstrip())


def inserted():
    return os.path.exists("/sys/module/mmnf")


def remove():
    """rmmod; what is wrong afterwards.  A worker may hold the module for a
    moment, a leak holds it for good."""
    if not inserted():
        return []
    for _ in range(20):
        done = shell("rmmod", "mmnf")
        if not done.returncode:
            break
        time.sleep(0.1)
    else:
        return [["rmmod failed", done.stdout.splitlines()]]
    return [[f"{path} is left after rmmod", []]
            for path in LEFTOVERS if os.path.exists(path)]


def flat(lines):
    """What KUnit said of its suites, as one report without nesting: a case each,
    whatever its parameters, by the indentation of Linux 6.1."""
    suite, planned, report = "", 0, []
    for line in lines:
        match = re.match(r" {4}(# Subtest: (.*)|1\.\.(\d+)|"
                         r"((?:not )?ok \d+) (?:- )?(.*))$", line)
        if not match:
            report.append(f"# {line.strip()}")
        elif match[2]:
            suite = match[2]
        elif match[3]:
            planned += int(match[3])
        else:
            report.append(f"{match[4]} {suite}.{match[5]}")
    return "\n".join(report + [f"1..{planned}"])


def run_kunit(module, log):
    if not os.path.exists(module):
        return {"output": "1..0 # SKIP kernel: built without KUnit",
                "status": 4, "note": "", "after": []}
    log.new_lines()
    done = shell("insmod", module)
    lines = log.new_lines()
    shell("rmmod", os.path.basename(module)[:-3])
    found = complaints("\n".join(lines + log.new_lines()))
    return {"output": flat(lines), "status": 0,
            "note": done.stdout.strip() if done.returncode else "",
            "after": [["the kernel complained", found]] if found else []}


def run(program, timeout, log):
    if program.endswith(".ko"):
        return run_kunit(program, log)
    result = {"output": "", "status": 1, "note": "", "after": []}
    if not os.path.exists(program):
        result["note"] = f"{program} is not built"
        return result
    if not inserted():
        done = shell("insmod", KO)
        if done.returncode:
            result["note"] = f"insmod: {done.stdout.strip()}"
            return result
    with subprocess.Popen([program], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace",
                          start_new_session=True) as process:
        try:
            result["output"] = process.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            result["note"] = f"no end after {timeout:g} s"
            os.killpg(process.pid, 9)
            result["output"] = process.communicate()[0]
    result["status"] = process.returncode
    result["after"] += remove()
    found = complaints("\n".join(log.new_lines()))
    if found:
        result["after"].append(["the kernel complained", found])
    return result


def leaks():
    """What a debug kernel finds to be lost: nothing young, so the first search
    waits and a second one confirms."""
    if not os.path.exists(KMEMLEAK):
        return ""
    time.sleep(6)
    for _ in range(2):
        try:
            with open(KMEMLEAK, "w", encoding="ascii") as file:
                file.write("scan")
        except PermissionError:     # turned off at boot
            return ""
    with open(KMEMLEAK, encoding="ascii", errors="replace") as file:
        return file.read()


def write(name, text):
    """Whole or not at all: the host may look after the guest died."""
    path = os.path.join(SHARE, name)
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)


def main():
    with open(os.path.join(SHARE, "plan.json"), encoding="utf-8") as file:
        plan = json.load(file)
    log = KernelLog()
    for number, (name, program) in enumerate(plan["tests"]):
        log.mark(f"mmnf-test: {name}")
        write(f"{number}.begun", "")
        write(f"{number}.json", json.dumps(run(program, plan["timeout"], log)))
    # The kernel's log tells of them, too: run.py takes that for a complaint.
    print(leaks())


if __name__ == "__main__":
    main()
