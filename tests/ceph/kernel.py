# SPDX-License-Identifier: MIT
"""Fields by the kernel's own clients of Ceph, through /dev/mmnf: a petabyte image as
/dev/rbd0, and files on a mounted CephFS.  `make check-ceph` runs it; not part of make
check.

The cluster is made on this machine and ended, then it is started again in a guest that
has both its daemons and its clients: one monitor, one OSD in memory, one MDS.
"""
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SRC = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(SRC, "build")
sys.path[:0] = [os.path.join(SRC, "tests"), os.path.join(SRC, "tests", "vm")]
MONITOR = "127.0.0.1:16789"
PAGE = 4096
NR_PAGES = 4096                         # 16 MiB of data
IMAGE_PAGES = 1 << 38                   # a petabyte
FIRST_PAGE = (1 << 33) - NR_PAGES       # the last that pointers reach: 2^45 bytes
DATA = f"dtype=u64,shape={NR_PAGES}x512"
RBD = f"/dev/rbd0#raw,{DATA},offset={FIRST_PAGE * PAGE}"
IMAGE = f"/dev/rbd0#raw,dtype=u64,shape={IMAGE_PAGES}x512"   # too large for pointers
FILE = f"files/f#raw,{DATA}"
PATIENCE_S = 240
tests = []


def test(function):
    tests.append(function)
    return function


def told(*args):
    return json.loads(ok(*args, "--json"))


def flat(values):
    return [x for v in values for x in flat(v)] if isinstance(values, list) else [values]


def forget(path):
    """Drops the client's pages; dirty ones are written first."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


# ---- what each of both must do

def same_bytes(path, field, first=0):
    chance = random.Random(3)
    for engine in ("device", "mmap", "direct"):
        forget(path)
        for _ in range(3):
            row, column = chance.randrange(NR_PAGES - 50), chance.randrange(500)
            got = told("get", field,
                       f"{first + row}:{first + row + 50}:7,{column}:{column + 9}",
                       "--engine", engine)["values"]
            want = [word(r * PAGE + c * 8) for r in range(row, row + 50, 7)
                    for c in range(column, column + 9)]
            assert flat(got) == want, (engine, row, column)


def foreseen(path, field, used=0.9):
    for step in (17, -23):
        forget(path)
        rows = range(NR_PAGES)[::step]
        r = told("scan", field, "--box", f"::{step},0:1", "--engine", "device")
        stats = r["stats"]
        print(f"# {path}, every {step}th page: {len(rows)} touches, {stats['misses']} misses, "
              f"{stats['late']} late, {stats['used_pages']} used, "
              f"{stats['wasted_pages']} wasted", flush=True)
        assert r["checksum"] == sum(word(n * PAGE) for n in rows) & (1 << 64) - 1, r
        assert stats["misses"] * 20 < len(rows), r
        assert stats["used_pages"] >= used * len(rows), r
        assert stats["wasted_pages"] + stats["pending_pages"] < 0.1 * len(rows), r


def waits_for_an_osd(path, field, osd):
    """It hangs for a while, with a walk under way."""
    forget(path)
    rows = range(NR_PAGES)[::31]
    os.kill(osd, signal.SIGSTOP)
    with subprocess.Popen(
            [os.environ["MMNF"], "scan", field, "--box", "::31,0:1", "--engine", "device",
             "--json"], stdout=subprocess.PIPE, text=True) as walk:
        try:
            time.sleep(10)
            assert walk.poll() is None, "a walk was over without the OSD"
            os.kill(osd, signal.SIGCONT)
            r = json.loads(walk.communicate(timeout=PATIENCE_S)[0])
        finally:
            os.kill(osd, signal.SIGCONT)
            walk.kill()
    assert walk.returncode == 0
    assert r["checksum"] == sum(word(n * PAGE) for n in rows) & (1 << 64) - 1, r


# ---- /dev/rbd0

@test
def rbd_has_the_same_bytes_by_every_engine(_):
    same_bytes("/dev/rbd0", IMAGE, FIRST_PAGE)


@test
def rbd_has_its_last_page_and_zeros_before(_):
    for row in (0, IMAGE_PAGES // 3, IMAGE_PAGES - 2):
        assert flat(told("get", IMAGE, f"{row},0:4")["values"]) == [0] * 4
    want = [word(8 * n) for n in range(508, 512)]
    assert flat(told("get", IMAGE, f"{IMAGE_PAGES - 1},508:512")["values"]) == want


@test
def rbd_walks_are_foreseen(_):
    foreseen("/dev/rbd0", RBD)


@test
def rbd_waits_for_an_osd(osd):
    waits_for_an_osd("/dev/rbd0", RBD, osd)


# ---- CephFS

@test
def files_have_the_same_bytes_by_every_engine(_):
    same_bytes("files/f", FILE)


@test
def files_walks_are_foreseen(_):
    # CephFS reads more than it is asked for: some pages are there before their turn.
    foreseen("files/f", FILE, used=0.1)


@test
def files_wait_for_an_osd(osd):
    waits_for_an_osd("files/f", FILE, osd)


@test
def files_hold_a_field_that_is_made_there(_):
    with open("in.raw", "wb") as file:
        file.write(b"".join(word(8 * n).to_bytes(8, "little") for n in range(600)))
    ok("create", "files/zarr", "--shape", "100000000,30", "--dtype", "u64")
    ok("import", "in.raw#raw,dtype=u64,shape=20x30", "files/zarr", "--at", "70000000,0")
    forget("files/zarr/c/0/0" if os.path.exists("files/zarr/c/0/0") else "files/zarr")
    for engine in ("device", "mmap", "direct"):
        got = told("get", "files/zarr", "70000019,25:30", "--engine", engine)["values"]
        assert flat(got) == [word(8 * n) for n in range(595, 600)], (engine, got)


# ---- the guest

def up(what, condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"not within {PATIENCE_S} s: {what}"
        time.sleep(1)


def run(*command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def start_cluster(folder):
    """What was made outside; the OSD's process."""
    os.environ["CEPH_CONF"] = os.path.join(folder, "ceph.conf")
    # Where it is in the cluster was said outside; this machine has no name.
    for daemon in (("ceph-mon", "-i", "a"),
                   ("ceph-osd", "-i", "0", "--osd-crush-update-on-start=false"),
                   ("ceph-mds", "-i", "a")):
        run(*daemon)
    with open(os.path.join(folder, "run", "osd.0.pid"), encoding="ascii") as file:
        return int(file.read())


def map_image():
    """As `rbd map` does, which would wait for udev."""
    with open("/sys/bus/rbd/add_single_major", "w", encoding="ascii") as file:
        file.write(f"{MONITOR} name=admin rbd field")
    up("/dev/rbd0", lambda: os.path.exists("/dev/rbd0"))


def mount_files():
    """Refused, with no route to a host, until the MDS is active."""
    mount = ["mount", "-i", "-t", "ceph", f"{MONITOR}:/", "files", "-o", "name=admin"]
    up("CephFS", lambda: subprocess.run(mount, stdin=subprocess.DEVNULL,
                                        check=False).returncode == 0)


def inside(folder):
    began = time.monotonic()
    os.chdir(os.environ["TMPDIR"])
    osd = start_cluster(folder)
    run("modprobe", "-a", "rbd", "ceph")
    run("insmod", os.environ["MMNF_KO"])
    map_image()
    os.mkdir("files")
    mount_files()
    data = os.path.join(folder, "data")
    for first, count in ((FIRST_PAGE, NR_PAGES), (IMAGE_PAGES - 1, 1)):
        run("dd", f"if={data}", "of=/dev/rbd0", f"bs={PAGE}", f"count={count}",
            f"seek={first}", "conv=notrunc,fsync", "status=none")
    run("cp", data, "files/f")
    print(f"# up after {time.monotonic() - began:.0f} s", flush=True)
    status = run_tests(tests, osd, fresh=False)
    run("umount", "-i", "files")
    with open("/sys/bus/rbd/remove_single_major", "w", encoding="ascii") as file:
        file.write("0")
    run("rmmod", "mmnf")
    return status


def main():
    with tempfile.TemporaryDirectory(prefix="mmnf-ceph.") as folder:
        cluster = os.path.join(folder, "c")
        subprocess.run([os.path.join(HERE, "up.sh"), cluster, "guest"], check=True)
        subprocess.run([os.path.join(HERE, "down.sh"), cluster], check=True)
        offsets = np.arange(0, NR_PAGES * PAGE, 8, dtype="<u8")
        (offsets * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)).tofile(
            os.path.join(cluster, "data"))
        return subprocess.run(
            [sys.executable, os.path.join(SRC, "tests", "vm", "run.py"), "--mem", "3G",
             "--timeout", "1200", "--", sys.executable, os.path.abspath(__file__), "inside",
             cluster], check=False).returncode


if __name__ == "__main__":
    os.environ.setdefault("MMNF", os.path.join(BUILD, "mmnf"))
    from toollib import ok, run_tests, word   # noqa: E402
    if sys.argv[1:]:
        sys.exit(inside(sys.argv[2]))
    import numpy as np                  # the guest has no time for it
    import image
    os.environ["KVER"] = os.environ.get("KVER") or image.default_kver("")
    os.environ.setdefault("MMNF_KO", os.path.join(BUILD, "kmod", os.environ["KVER"], "mmnf.ko"))
    sys.exit(main())
