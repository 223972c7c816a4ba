# SPDX-License-Identifier: MIT
"""A field file on an NFS mount, in a guest that is the server, too: every engine has
its bytes, the device foresees walks, and files that get shorter, longer or are written
meanwhile are seen as NFS shows them.

The kernel serves an exported tmpfs by NFS 4.2 on the loopback; tests/deps.sh unpacks
the programs that set it up.
"""
import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time

SRC = os.environ["MMNF_SRC"]
sys.path.insert(0, os.path.join(SRC, "tests"))
from toollib import ok, run_tests, word  # noqa: E402

NFS = os.path.join(SRC, "build", "nfs")
ATTACH = 0xBD81
PAGE = 4096
NR_PAGES = 8192
tests = []


def test(function):
    tests.append(function)
    return function


def write_file(path):
    """Outside: a guest takes minutes."""
    offsets = np.arange(0, NR_PAGES * PAGE, 8, dtype="<u8")
    (offsets * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)).tofile(path)


def serve():
    """Exports ./export at ./mnt."""
    bin_path = os.path.join(NFS, "usr", "sbin")
    lib = [os.path.join(NFS, "lib/x86_64-linux-gnu"),
           os.path.join(NFS, "usr/lib/x86_64-linux-gnu")]
    env = dict(os.environ, LD_LIBRARY_PATH=":".join(lib))

    def run(*command):
        subprocess.run(command, check=True, env=env)

    run("modprobe", "-a", "nfsd", "nfsv4")
    for folder in ("/var/lib/nfs/v4recovery", "export", "mnt"):
        os.makedirs(folder, exist_ok=True)
    for file in ("/var/lib/nfs/etab", "/var/lib/nfs/rmtab", "/etc/exports"):
        open(file, "w", encoding="ascii").close()
    subprocess.run(["cp", os.path.join(NFS, "etc/netconfig"), "/etc"], check=True)
    run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    # Not with this output: the guest would wait for its end.
    subprocess.Popen([os.path.join(bin_path, "rpc.mountd"), "-F", "-N", "2", "-N", "3"],
                     env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run(os.path.join(bin_path, "exportfs"), "-o",
        "rw,fsid=0,no_root_squash,insecure,no_subtree_check",
        f"127.0.0.1:{os.path.abspath('export')}")
    # Nobody has anything to reclaim: the shortest grace, and its end where it can be
    # ended (a server that remembers no clients cannot, by Linux 7).
    with open("/proc/fs/nfsd/nfsv4gracetime", "w", encoding="ascii") as file:
        file.write("10")
    run(os.path.join(bin_path, "rpc.nfsd"), "-N", "3", "-V", "4.2", "-H", "127.0.0.1", "4")
    with contextlib.suppress(OSError), \
            open("/proc/fs/nfsd/v4_end_grace", "w", encoding="ascii") as file:
        file.write("Y")
    run("mount", "-i", "-t", "nfs4", "127.0.0.1:/", "mnt", "-o",
        "addr=127.0.0.1,clientaddr=127.0.0.1,vers=4.2")


def stop_serving():
    subprocess.run(["umount", "mnt"], check=True)
    with open("/proc/fs/nfsd/threads", "w", encoding="ascii") as file:
        file.write("0")


def forget(path):
    """Drops the client's pages; dirty ones are written first."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def told(*args):
    return json.loads(ok(*args, "--json"))


def flat(values):
    return [x for v in values for x in flat(v)] if isinstance(values, list) else [values]


def device_map(path, nr_bytes):
    fd = os.open(path, os.O_RDONLY)
    device = os.open("/dev/mmnf", os.O_RDWR)
    fcntl.ioctl(device, ATTACH, bytearray(struct.pack(
        "=IIiIIIQQ8Q8qQ", 176, 0, fd, 1, 8, 0, 0, 0, nr_bytes // 8, *[0] * 7, 8, *[0] * 7,
        0)))
    os.close(fd)
    view = mmap.mmap(device, nr_bytes, mmap.MAP_SHARED, mmap.PROT_READ)
    os.close(device)
    return view


def at(view, offset):
    return struct.unpack_from("<Q", view, offset)[0]


def field():
    return f"mnt/f#raw,dtype=u64,shape={NR_PAGES}x512"


@test
def every_engine_has_the_same_bytes():
    chance = random.Random(3)
    for engine in ("device", "mmap", "direct"):
        forget("mnt/f")
        for _ in range(3):
            row, column = chance.randrange(NR_PAGES - 50), chance.randrange(500)
            got = told("get", field(), f"{row}:{row + 50}:7,{column}:{column + 9}",
                       "--engine", engine)["values"]
            want = [word(r * PAGE + c * 8) for r in range(row, row + 50, 7)
                    for c in range(column, column + 9)]
            assert flat(got) == want, (engine, row, column)


@test
def walks_are_foreseen():
    for step in (17, -23):
        forget("mnt/f")
        box = f"::{step},0:1"
        r = told("scan", field(), "--box", box, "--engine", "device")
        rows = range(NR_PAGES)[::step]
        assert r["checksum"] == sum(word(n * PAGE) for n in rows) & (1 << 64) - 1, r
        stats = r["stats"]
        assert stats["misses"] * 20 < len(rows), r
        assert stats["used_pages"] > 0.9 * len(rows), r
        assert stats["wasted_pages"] + stats["pending_pages"] < 0.1 * len(rows), r


@test
def a_box_is_read_beforehand():
    forget("mnt/f")
    ok("prefetch", field(), "--box", "100:200")
    view = device_map("mnt/f", NR_PAGES * PAGE)
    end = time.monotonic() + 60
    path = "/proc/self/mountstats"

    def sent():
        with open(path, encoding="ascii") as file:
            text = file.read().split(" fstype nfs4 ")[1]
        line = next(x for x in text.splitlines() if x.strip().startswith("READ:"))
        return int(line.split()[1])

    # Pages that come by themselves, in a while: no READ is sent for them.
    fd = os.open("mnt/f", os.O_RDONLY)
    while resident(fd, 100, 100) < 100:
        assert time.monotonic() < end
        time.sleep(0.05)
    before = sent()
    assert [at(view, n * PAGE) for n in range(100, 200)] == \
        [word(n * PAGE) for n in range(100, 200)]
    assert sent() == before
    os.close(fd)
    view.close()


def resident(fd, first, nr):
    """How many of those pages are in the client's page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
                          ctypes.c_int, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    found = ctypes.create_string_buffer(nr)
    address = libc.mmap(None, nr * PAGE, mmap.PROT_READ, mmap.MAP_SHARED, fd, first * PAGE)
    assert not libc.mincore(address, nr * PAGE, found)
    libc.munmap(address, nr * PAGE)
    return sum(byte & 1 for byte in found.raw[:nr])


@test
def what_is_cut_off_is_an_error_and_what_is_added_zero():
    view = device_map("mnt/f", NR_PAGES * PAGE)
    assert at(view, 5000 * PAGE) == word(5000 * PAGE)
    os.truncate("mnt/f", 4096 * PAGE)
    assert at(view, 4095 * PAGE) == word(4095 * PAGE)
    for page in (5000, 8000):       # one was resident, one not
        child = os.fork()
        if not child:
            at(view, page * PAGE)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert os.WTERMSIG(status) == signal.SIGBUS, (page, status)
    os.truncate("mnt/f", NR_PAGES * PAGE)
    assert at(view, 5000 * PAGE) == 0 and at(view, 8000 * PAGE) == 0
    assert at(view, 4095 * PAGE) == word(4095 * PAGE)
    view.close()


@test
def a_field_is_made_and_written_there():
    with open("in.raw", "wb") as file:
        file.write(struct.pack("<600f", *range(600)))
    ok("create", "mnt/zarr", "--shape", "1000000,30", "--dtype", "f32")
    ok("import", "in.raw#raw,dtype=f32,shape=20x30", "mnt/zarr", "--at", "700000,0")
    for place in ("mnt/zarr", "export/zarr"):       # as the client and the server see it
        got = told("get", place, "700019,25:30")["values"]
        assert flat(got) == [595, 596, 597, 598, 599], (place, got)
    got = told("get", "mnt/zarr", "700010,0:3", "--engine", "device")["values"]
    assert flat(got) == [300, 301, 302], got


def inside(file):
    os.chdir(os.environ["TMPDIR"])
    serve()
    subprocess.run(["cp", file, "export/f"], check=True)
    subprocess.run(["insmod", os.environ["MMNF_KO"]], check=True)
    status = run_tests(tests, fresh=False)
    stop_serving()
    subprocess.run(["rmmod", "mmnf"], check=True)
    return status


def main():
    if not image.has_module(os.environ["KVER"], "nfsd"):
        print("kernel: no nfsd")
        return 4
    if not os.path.exists(os.path.join(NFS, "etc/netconfig")):
        print("no build/nfs: tests/deps.sh test")
        return 4
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "f")
        write_file(file)
        return subprocess.run(
            [sys.executable, os.path.join(SRC, "tests", "vm", "run.py"), "--timeout",
             "1000", "--", sys.executable, os.path.abspath(__file__), "inside", file],
            check=False).returncode


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(inside(sys.argv[2]))
    import numpy as np      # the guest has no time for it
    sys.path.insert(0, os.path.join(SRC, "tests", "vm"))
    import image
    sys.exit(main())
