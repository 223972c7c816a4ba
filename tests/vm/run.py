#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run a command in a disposable guest whose root is this machine's root.

    tests/vm/run.py -- 'uname -r'
    tests/vm/run.py --share out -- 'insmod x.ko && ./test > out/log'

The guest is emulated (QEMU TCG; KVM is never used, so the result is the same
everywhere), sees every file of this machine read-only at its own path with a
tmpfs above, and may write for good only in the share.  Variables named MMNF*
and KVER are passed on; TMPDIR is a tmpfs.

Exit status: that of the command, or
    124  time is up (an NMI is sent first: the stuck stack is in the console log)
    125  the guest died
    126  the command succeeded, but the kernel complained (WARN, BUG, lockdep...)
    123  the guest died of the emulation, not of what it ran: begin again
"""
import argparse
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import image  # noqa: E402

TRIPPED, TIMEOUT, DIED, SPLAT = 123, 124, 125, 126

COMPLAINT = re.compile(
    r"Kernel panic|BUG:|Oops|general protection fault|WARNING:|"
    r"KASAN:|KFENCE:|KCSAN:|UBSAN:|INFO: task .* blocked|"
    r"possible (circular|recursive|irq lock inversion)|"
    r"inconsistent lock state|suspicious RCU|DEBUG_LOCKS_WARN|"
    r"soft lockup|hard LOCKUP|rcu.*detected stall|"
    r"kmemleak: [1-9]|unreferenced object|refcount_t:|"
    r"list_(add|del) corruption|scheduling while atomic|"
    r"[Bb]ad (page|rss)|Unable to handle")
# The kernel changes its code, as tracing does, under a breakpoint that is gone before
# the next change.  An emulated CPU that has translated the breakpoint just then may
# run it later: it dies of one, and in memory there is none before the next byte.
BREAKPOINT = re.compile(r"int3: 0000 \[#1\].*?Code: [0-9a-f ]*?([0-9a-f]{2}) "
                        r"<[0-9a-f]{2}>", re.DOTALL)
STARTED = "mmnf-vm: running the command"
# Two clocks of the guest disagree at its start, because this machine stopped it in
# between; the kernel takes the wrong one, and its time runs many times too fast.
WRONG_CLOCK = "PIT calibration deviates from HPET"

# oops=panic and panic=-1 with -no-reboot end QEMU at once instead of leaving a
# half-dead guest to the timeout.
BOOT = ("console=ttyS0 ignore_loglevel panic=-1 oops=panic tsc=reliable "
        "no_timer_check unknown_nmi_panic=1")
# Emulated and watched, a kernel may take its time.
DEBUG_BOOT = ("kmemleak=on sysctl.kernel.hung_task_timeout_secs=60 "
              "watchdog_thresh=30 workqueue.watchdog_thresh=120 "
              "rcupdate.rcu_cpu_stall_timeout=120")


def complaints(log):
    return [line for line in log.splitlines() if COMPLAINT.search(line)]


def is_tripped(log):
    died_of = BREAKPOINT.search(log)
    return bool(died_of) and died_of.group(1) != "cc"


def folder(tag, path, readonly=False):
    """A host folder for the guest.  multidevs: "/" spans file systems."""
    options = f"local,id={tag},path={path},security_model=none,multidevs=remap"
    return ["-fsdev", options + (",readonly=on" if readonly else ""),
            "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


class Guest:
    """One boot: start() it, then finish() it."""

    def __init__(self, args, control, console):
        self.args, self.control, self.console = args, control, console
        self.qmp = os.path.join(control, "qmp")

    def command_line(self, out_fd):
        args = self.args
        if args.icount:
            # One instruction is one nanosecond, and idle time is skipped.
            machine = ["-accel", "tcg,thread=single", "-smp", "1",
                       "-icount", "shift=0,sleep=off"]
        else:
            machine = ["-accel", "tcg,thread=multi", "-smp", str(args.smp)]
        cpu, watch = "max", ""
        if image.is_debug(args.kver):
            # 6.1 with KASAN trips over five levels of page tables at its start.
            cpu, watch = "max,la57=off", DEBUG_BOOT
        line = ["qemu-system-x86_64", "-nodefaults", "-no-user-config",
                "-machine", "q35", "-cpu", cpu, "-m", args.mem,
                "-display", "none", "-no-reboot", *machine,
                "-kernel", image.kernel(args.kver, args.packed),
                "-initrd", image.initrd(args.kver),
                "-append", f"{BOOT} {watch} {args.append}",
                "-serial", f"file:{self.console}",
                "-qmp", f"unix:{self.qmp},server=on,wait=off",
                # Not a stdio chardev: with stdin at its end QEMU takes that
                # for closed, and the guest's writes hang.
                "-add-fd", f"fd={out_fd},set=9",
                "-chardev", "file,id=out,path=/dev/fdset/9,append=on",
                "-device", "virtio-serial-pci",
                "-device", "virtserialport,chardev=out,name=out"]
        line += folder("rootfs", "/", readonly=True)
        line += folder("ctl", self.control) + folder("share", args.share)
        for argument in args.qemu_arg:
            line += shlex.split(argument)
        return line

    def start(self):
        open(self.console, "w", encoding="ascii").close()
        self.output, write_end = os.pipe()
        try:
            self.process = subprocess.Popen(
                self.command_line(write_end), stdin=subprocess.DEVNULL,
                stdout=sys.stderr, pass_fds=[write_end])
        finally:
            os.close(write_end)

    def kill(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def inject_nmi(self):
        """Makes the guest print where each CPU is, and panic."""
        try:
            with socket.socket(socket.AF_UNIX) as monitor:
                monitor.settimeout(20)
                monitor.connect(self.qmp)
                for command in ("qmp_capabilities", "inject-nmi"):
                    monitor.recv(4096)
                    monitor.send(b'{"execute":"%s"}\n' % command.encode())
                self.process.wait(60)
        except (OSError, subprocess.TimeoutExpired):
            pass

    def finish(self, deadline):
        """Copies the command's output until the guest ends; its status."""
        expired = started = False
        while True:
            if not started:
                log = self.log()
                started = STARTED in log
                if WRONG_CLOCK in log and not started:
                    self.kill()
                    break
            left = deadline - time.monotonic()
            if left <= 0:
                expired = True
                self.inject_nmi()
                self.kill()
                break
            if select.select([self.output], [], [], min(left, 1))[0]:
                data = os.read(self.output, 65536)
                if not data:
                    self.process.wait()
                    break
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            elif self.process.poll() is not None:
                break
        os.close(self.output)
        try:
            with open(os.path.join(self.control, "rc"),
                      encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError):
            return TIMEOUT if expired else DIED

    def log(self):
        with open(self.console, encoding="utf-8", errors="replace") as file:
            return file.read()


def write_control(control, args):
    passed = {name: value for name, value in os.environ.items()
              if name.startswith("MMNF") and name.isidentifier()}
    passed["KVER"] = args.kver
    passed["MMNF_SHARE"] = args.share
    words = args.command
    command = words[0] if len(words) == 1 else shlex.join(words)
    with open(os.path.join(control, "cmd"), "w", encoding="utf-8") as file:
        for name, value in sorted(passed.items()):
            file.write(f"export {name}={shlex.quote(value)}\n")
        file.write(f"cd {shlex.quote(os.getcwd())}\n{command}\n")
    for name, text in (("share", args.share), ("kver", args.kver),
                       ("modules", image.modules_folder(args.kver))):
        with open(os.path.join(control, name), "w", encoding="utf-8") as file:
            file.write(text)


def run(args):
    """Boot, run, report; the exit status.  A guest that dies before it comes to
    the command is booted again: emulation under load trips now and then."""
    deadline = time.monotonic() + args.timeout
    for attempt in (1, 2, 3):
        with tempfile.TemporaryDirectory(prefix="mmnf-vm.") as control:
            console = args.console or os.path.join(control, "console")
            write_control(control, args)
            guest = Guest(args, control, console)
            guest.start()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, lambda n, _: sys.exit(128 + n))
            try:
                status = guest.finish(deadline)
            finally:
                if guest.process.poll() is None:
                    guest.kill()
            log = guest.log()
        if status != DIED or STARTED in log or attempt == 3:
            break
        print("vm: the guest died before the command; once more",
              file=sys.stderr)
    found = complaints(log)
    if found:
        print("vm: the kernel complained:", *found[:10], sep="\n  ",
              file=sys.stderr)
        if not status and not args.allow_splat:
            status = SPLAT
    if status == DIED and is_tripped(log):
        status = TRIPPED
    if status in (TRIPPED, TIMEOUT, DIED):
        print("vm: end of the console:", *log.splitlines()[-60:], sep="\n  ",
              file=sys.stderr)
    return status


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kver", default=os.environ.get("KVER") or None,
                        help="kernel release, the start of one, or a name of\n"
                        "kernels.sh: 6.1, 6.12, new, debug")
    parser.add_argument("--mem", default="1G")
    parser.add_argument("--smp", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=1000, help="seconds")
    parser.add_argument("--share", help="folder that the guest may write to;\n"
                        "same path inside, also as $MMNF_SHARE")
    parser.add_argument("--console", help="keep the kernel's log here")
    parser.add_argument("--icount", action="store_true",
                        help="virtual time: one CPU, one instruction = 1 ns")
    parser.add_argument("--packed", action="store_true",
                        help="boot the kernel by its own stub: five levels of\n"
                        "page tables, seconds more")
    parser.add_argument("--append", default="", help="for the kernel")
    parser.add_argument("--qemu-arg", action="append", default=[])
    parser.add_argument("--allow-splat", action="store_true",
                        help="show what the kernel complains of, no 126")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args(argv)
    if not args.kver or not image.vmlinuz(args.kver):
        args.kver = image.default_kver(args.kver or "")
    if not args.kver:
        parser.error("no installed kernel with its modules: make deps")
    if not shutil.which("qemu-system-x86_64"):
        parser.error("no qemu-system-x86_64: make deps")
    return args


def main(argv=None):
    args = parse(argv)
    with tempfile.TemporaryDirectory(prefix="mmnf-share.") as scratch:
        args.share = os.path.abspath(args.share or scratch)
        return run(args)


if __name__ == "__main__":
    sys.exit(main())
