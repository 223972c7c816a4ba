# SPDX-License-Identifier: MIT
"""The guest ground itself: it must tell a good run from each kind of bad one,
and hold what the other tests take for granted.
"""
import os
import subprocess
import sys
import tempfile

SRC = os.environ["MMNF_SRC"]
sys.path.insert(0, os.path.join(SRC, "tests"))
from toollib import report  # noqa: E402

RUN = os.path.join(SRC, "tests", "vm", "run.py")

GOOD = """
set -e
test "$(uname -r)" = "$KVER"
test "$(pwd)" = "$MMNF_SRC"
cmp Makefile "$MMNF_SRC/Makefile"
echo written >"$MMNF_SHARE/file"
echo mine >Makefile && grep -q mine Makefile
modprobe -a loop null_blk ext4 xfs
dd if=/dev/zero of="$TMPDIR/image" bs=1M count=0 seek=64 2>/dev/null
mkfs.ext4 -q "$TMPDIR/image" && mkdir "$TMPDIR/m"
mount -o loop "$TMPDIR/image" "$TMPDIR/m" && umount "$TMPDIR/m"
truncate -s 0 "$TMPDIR/image" && truncate -s 400M "$TMPDIR/image"
mkfs.xfs -q "$TMPDIR/image"
mount -o loop "$TMPDIR/image" "$TMPDIR/m" && umount "$TMPDIR/m"
echo to-stderr >/dev/stderr
exit 7
"""


def guest(command, *options):
    done = subprocess.run([sys.executable, RUN, *options, "--", command],
                          cwd=SRC, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout


def check():
    with tempfile.TemporaryDirectory() as share:
        status, output = guest(GOOD, "--share", share)
        yield "status_of_the_command", status == 7, output
        written = os.path.join(share, "file")
        yield "share_is_written", os.path.exists(written), output
        yield "stderr_comes_out", "to-stderr" in output, output
    with open(os.path.join(SRC, "Makefile"), encoding="utf-8") as file:
        yield "host_files_stay", "mine\n" != file.read(), ""
    status, output = guest("echo 'WARNING: made up' >/dev/kmsg", "--icount")
    yield "complaint_is_126", status == 126 and "made up" in output, output
    status, output = guest("echo c >/proc/sysrq-trigger; sleep 60")
    yield "panic_is_125", status == 125 and "panic" in output, output
    for seconds in ("40", "120", "360"):    # a slow machine needs more to boot
        status, output = guest("echo begun; sleep 600", "--timeout", seconds)
        if "begun" in output:
            break
    yield "timeout_is_124", status == 124 and "begun" in output, output
    yield "timeout_shows_the_stack", "NMI" in output, output


if __name__ == "__main__":
    sys.exit(report(check()))
