# SPDX-License-Identifier: MIT
"""/dev/nbdN kept alive by `mmnf nbd attach`, in a guest with nbdkit as the server:
right bytes through /dev/mmnf and every engine, no error and no wrong byte when
servers die, hang, come back or come back wrong, and clean ends.

The servers export nbdkit's pattern: each 8-byte word is its own offset, big-endian.
A reader touches random pages of a mapping of /dev/mmnf the whole time and counts; an
error would kill it by SIGBUS.
"""
import contextlib
import errno
import fcntl
import json
import mmap
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time

SRC = os.environ["MMNF_SRC"]
sys.path.insert(0, os.path.join(SRC, "tests"))
from toollib import MMNF, mmnf, ok, refused, run_tests  # noqa: E402

PETABYTE = 1 << 50
ATTACH = 0xBD81
PATIENCE_S = 180      # of a loaded machine
# What was under way on a dead link is sent again after so long.
SHORT = ("--timeout", "1")
tests = []


def test(function):
    tests.append(function)
    return function


def until(what, condition, seconds=PATIENCE_S):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


class Server:
    """nbdkit on a Unix socket; may be ended and started again."""

    def __init__(self, name, *args):
        self.socket, self.args = os.path.abspath(name), args or ("pattern", "1P")
        self.uri = f"nbd+unix:///?socket={self.socket}"
        self.start()

    def start(self, *args):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        self.process = subprocess.Popen(["nbdkit", "-f", "-U", self.socket,
                                         *(args or self.args)])
        until("the server listens", lambda: os.path.exists(self.socket))

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        self.process.wait()


class Supervisor:
    """mmnf nbd attach in the foreground."""

    def __init__(self, *args):
        self.log = open("supervisor.log", "w+b")
        self.process = subprocess.Popen([MMNF, "nbd", "attach", *args, "--json"],
                                        stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline()
        assert line, self.text()
        self.result = json.loads(line)
        self.device = self.result["device"]

    def text(self):
        with open("supervisor.log", encoding="utf-8") as file:
            return file.read()

    def wait_for(self, words, times=1):
        until(f"{words!r}, in {self.text()!r}",
              lambda: self.text().count(words) >= times)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


class Reader:
    """Random pages of a device through /dev/mmnf, in a process of its own."""

    def __init__(self, device):
        self.process = subprocess.Popen([sys.executable, __file__, "reader", device],
                                        stdout=subprocess.PIPE, text=True)
        self.goes_on()

    def goes_on(self, lines=2):
        """Each line is for pages read after the line before."""
        for _ in range(lines):
            line = self.process.stdout.readline()
            assert line.startswith("pages "), (line, self.process.poll())

    def catch_up(self):
        """Past what was read before now."""
        self.process.send_signal(signal.SIGUSR1)
        line = ""
        while line != "mark\n":
            line = self.process.stdout.readline()
            assert line, self.process.poll()
        self.goes_on()

    def end(self):
        self.process.terminate()
        for line in self.process.stdout:
            last = line
        assert self.process.wait() == 0, self.process.returncode
        return last


def read(device):
    nr_bytes = 1 << 40
    fd = os.open(device, os.O_RDONLY)
    mmnf = os.open("/dev/mmnf", os.O_RDWR)
    fcntl.ioctl(mmnf, ATTACH, bytearray(struct.pack(
        "=IIiIIIQQ8Q8qQ", 176, 0, fd, 1, 8, 0, 0, 0, nr_bytes // 8, *[0] * 7, 8, *[0] * 7,
        0)))
    view = mmap.mmap(mmnf, nr_bytes, mmap.MAP_SHARED, mmap.PROT_READ)
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append("end"))
    signal.signal(signal.SIGUSR1, lambda *_: asked.append("mark"))
    number = random.Random(7)
    pages = 0
    while "end" not in asked:
        if asked:
            print(asked.pop(), flush=True)
        at = number.randrange(nr_bytes // 4096) * 4096 + number.randrange(512) * 8
        got = int.from_bytes(view[at:at + 8], "big")
        if got != at:
            sys.exit(f"byte {at}: {got}")
        pages += 1
        if pages % 20 == 0:
            print("pages", pages, flush=True)
        time.sleep(0.002)
    print("pages", pages, flush=True)


def told(*args):
    return json.loads(ok(*args))


def nbd_refused(status, words, *args):
    refused(status, words, "nbd", *args)


def devices():
    return {d["device"]: d for d in told("nbd", "list", "--json")["devices"]}


@contextlib.contextmanager
def attached(*args, device="/dev/nbd0"):
    supervisor = Supervisor(*args, device)
    try:
        yield supervisor
    finally:
        if supervisor.process.poll() is None:
            assert supervisor.end() == 0, supervisor.text()
        assert device not in devices()


@contextlib.contextmanager
def told_to_systemd(*messages):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("notify")
        manager.settimeout(PATIENCE_S)
        os.environ["NOTIFY_SOCKET"] = os.path.abspath("notify")
        yield
        del os.environ["NOTIFY_SOCKET"]
        for message in messages:
            assert manager.recv(100) == message


def queue(name):
    with open(f"/sys/block/nbd0/queue/{name}", encoding="ascii") as file:
        return file.read().strip()


@test
def petabyte_is_attached_tuned_and_listed():
    server = Server("a")
    with told_to_systemd(b"READY=1", b"STOPPING=1"), \
            attached(server.uri) as supervisor:
        r = supervisor.result
        assert (r["size_bytes"], r["read_only"], r["block_bytes"], r["adopted"]) == \
            (PETABYTE, True, 4096, False), r
        # pattern takes any number of connections; one a processor is of use
        assert r["connections"] == min(os.cpu_count(), 4), r
        fd = os.open("/dev/nbd0", os.O_RDONLY)
        assert os.lseek(fd, 0, os.SEEK_END) == PETABYTE
        os.close(fd)
        assert "[none]" in queue("scheduler")
        shown = {name: int(queue(name))
                 for name in ("max_sectors_kb", "read_ahead_kb", "nr_requests")}
        assert shown == {k: r["queue"][k] for k in shown}, (shown, r)
        assert shown["max_sectors_kb"] == 1024 and shown["nr_requests"] == 128, shown
        row = devices()["/dev/nbd0"]
        assert row["supervisor"] == supervisor.process.pid, row
        assert row["size_bytes"] == PETABYTE and server.uri in row["backend"], row
        nbd_refused(1, "looks after it already", "attach", server.uri, "/dev/nbd0")
    assert "detached" in supervisor.text()
    server.kill(signal.SIGTERM)


@test
def every_engine_has_the_same_bytes():
    server = Server("a")
    with attached(server.uri):
        shape = (1 << 20, 1 << 10, 1 << 17)     # u64: a petabyte
        field = "/dev/nbd0#raw,dtype=u64,shape=" + "x".join(map(str, shape))
        chance = random.Random(1)
        for engine in ("device", "mmap", "direct"):
            assert told("info", field, "--engine", engine, "--json")["engine"] == engine
            for _ in range(2):
                start = [chance.randrange(n - 40) for n in shape]
                step = [chance.randrange(1, 9) for _ in shape]
                count = [chance.randrange(1, 4) for _ in shape]
                box = ",".join(f"{b}:{b + n * s}:{s}"
                               for b, n, s in zip(start, count, step))
                got = told("get", field, box, "--engine", engine, "--json")["values"]
                want = []
                for i in range(count[0]):
                    for j in range(count[1]):
                        for k in range(count[2]):
                            c = [b + n * s for b, n, s in zip(start, (i, j, k), step)]
                            at = ((c[0] * shape[1] + c[1]) * shape[2] + c[2]) * 8
                            want.append(int.from_bytes(at.to_bytes(8, "big"), "little"))
                assert flat(got) == want, (engine, box)
    server.kill(signal.SIGTERM)


def flat(values):
    return [x for v in values for x in flat(v)] if isinstance(values, list) else [values]


@test
def strided_walk_is_foreseen():
    server = Server("a")
    with attached(server.uri):
        rows, row_bytes = 300, 16 << 20
        field = f"/dev/nbd0#raw,dtype=u64,shape=65536x{row_bytes // 8}"
        r = told("scan", field, "--box", f":{rows},0:1", "--engine", "device", "--json")
        want = sum(int.from_bytes((i * row_bytes).to_bytes(8, "big"), "little")
                   for i in range(rows)) & (1 << 64) - 1
        assert r["checksum"] % (1 << 64) == want, r
        assert r["stats"]["misses"] < rows // 10, r
    server.kill(signal.SIGTERM)


@test
def killed_server_comes_back():
    server = Server("a")
    with attached(server.uri, *SHORT) as supervisor:
        reader = Reader("/dev/nbd0")
        for times in (1, 2):
            server.kill()
            supervisor.wait_for("is lost", times * supervisor.result["connections"])
            time.sleep(0.5)
            server.start()
            supervisor.wait_for("is back", times * supervisor.result["connections"])
            reader.catch_up()
        print("#", reader.end().strip())
    server.kill(signal.SIGTERM)


@test
def hung_server_is_dropped_and_taken_again():
    server = Server("a")
    with attached(server.uri, *SHORT) as supervisor:
        reader = Reader("/dev/nbd0")
        server.process.send_signal(signal.SIGSTOP)
        supervisor.wait_for("is lost")
        server.process.send_signal(signal.SIGCONT)
        supervisor.wait_for("is back")
        reader.catch_up()
        print("#", reader.end().strip())
    server.kill(signal.SIGTERM)


@test
def second_gateway_takes_over():
    first, second = Server("a"), Server("b")
    with attached(first.uri, second.uri, *SHORT) as supervisor:
        reader = Reader("/dev/nbd0")
        first.kill()
        supervisor.wait_for(f"by {second.uri}", supervisor.result["connections"])
        reader.catch_up()
        first.start()
        second.kill()
        supervisor.wait_for(f"by {first.uri}", supervisor.result["connections"])
        reader.catch_up()
        reader.end()
    first.kill(signal.SIGTERM)


@test
def gateways_that_differ_are_refused():
    servers = [Server("a"), Server("b", "pattern", "2P"), Server("c", "memory", "1P")]
    nbd_refused(1, "expected 1125899906842624", "attach", servers[0].uri, servers[1].uri,
                "/dev/nbd0")
    nbd_refused(1, "first or last bytes differ", "attach", servers[0].uri, servers[2].uri,
                "/dev/nbd0")
    assert not devices()
    for server in servers:
        server.kill(signal.SIGTERM)


def refused_until_the_right_one_is_back(words, *wrong):
    server = Server("a")
    with attached(server.uri, *SHORT) as supervisor:
        reader = Reader("/dev/nbd0")
        server.kill()
        server.start(*wrong)
        supervisor.wait_for(words)
        assert "is back" not in supervisor.text()
        server.kill()
        server.start()
        supervisor.wait_for("is back")
        reader.catch_up()
        reader.end()
    server.kill(signal.SIGTERM)


@test
def server_of_another_size_is_refused_until_the_right_one_is_back():
    refused_until_the_right_one_is_back(
        f"it exports {2 * PETABYTE} bytes: expected {PETABYTE}", "pattern", "2P")


@test
def server_of_larger_blocks_is_refused_until_the_right_one_is_back():
    refused_until_the_right_one_is_back(
        "its requests are of 65536 to 1048576 bytes: expected 4096",
        "--filter=blocksize-policy", "pattern", "1P", "blocksize-minimum=64K",
        "blocksize-preferred=64K", "blocksize-maximum=1M")


@test
def killed_supervisor_is_followed_by_one_that_adopts():
    server = Server("a")
    first = Supervisor(server.uri, "/dev/nbd0", *SHORT)
    reader = Reader("/dev/nbd0")
    first.end(signal.SIGKILL)
    assert devices()["/dev/nbd0"]["supervisor"] is None
    reader.catch_up()       # nobody is needed as long as nothing happens
    nbd_refused(1, "in use by mmnf ro", "attach", server.uri, "/dev/nbd0", "--timeout", "7")
    with attached(server.uri, *SHORT) as second:
        assert second.result["adopted"] is True
        server.kill()
        time.sleep(0.3)
        server.start()
        second.wait_for("is back", second.result["connections"])
        reader.catch_up()
        reader.end()
    server.kill(signal.SIGTERM)


@test
def detach_ends_the_supervisor_and_a_daemon():
    server = Server("a")
    supervisor = Supervisor(server.uri, "/dev/nbd0")
    assert told("nbd", "detach", "/dev/nbd0", "--json") == \
        {"device": "/dev/nbd0", "still_open": False}
    assert supervisor.process.wait(PATIENCE_S) == 0
    assert "detached by another" in supervisor.text()
    nbd_refused(1, "is not attached", "detach", "/dev/nbd0")
    r = told("nbd", "attach", server.uri, "--auto", "--daemon", "--json")
    pid = devices()[r["device"]]["supervisor"]
    assert pid and os.path.exists(f"/proc/{pid}"), r
    os.kill(pid, signal.SIGTERM)
    until("the daemon detaches", lambda: not devices())
    until("the daemon ends", lambda: not os.path.exists(f"/proc/{pid}"))
    server.kill(signal.SIGTERM)


@test
def requests_fail_when_time_is_up_and_the_device_recovers():
    server = Server("a")
    with attached(server.uri, "--dead-timeout", "1") as supervisor:
        server.kill()
        supervisor.wait_for("is lost")
        fd = os.open("/dev/nbd0", os.O_RDONLY)
        try:
            os.pread(fd, 4096, 1 << 30)
            raise AssertionError("read without a server")
        except OSError as error:
            assert error.errno == errno.EIO, error
        server.start()
        supervisor.wait_for("is back")
        at = 1 << 31
        assert int.from_bytes(os.pread(fd, 8, at), "big") == at
        os.close(fd)
    nbd_refused(2, "--dead-timeout 0", "attach", server.uri, "/dev/nbd0", "--dead-timeout",
                "0")
    server.kill(signal.SIGTERM)


@test
def writing_is_asked_for():
    server = Server("a", "memory", "64M")
    with attached(server.uri):
        try:
            with open("/dev/nbd0", "r+b", buffering=0) as file: # newer kernels refuse
                file.write(bytes(4096))
            raise AssertionError("written")
        except OSError as error:
            assert error.errno in (errno.EPERM, errno.EACCES, errno.EROFS), error
    field = "/dev/nbd0#raw,dtype=f32,shape=1000x1000,offset=4096"
    with attached(server.uri, "--write") as supervisor:
        assert supervisor.result["read_only"] is False
        # more than for reads: a write whose time is up is sent twice
        assert supervisor.result["timeout_s"] == 60
        fd = os.open("/dev/nbd0", os.O_RDWR)
        os.pwrite(fd, struct.pack("<1000f", *range(1000)), 4096 + 4 * 1000 * 500)
        os.fsync(fd)
        os.close(fd)
    with attached(server.uri):
        for engine in ("device", "mmap", "direct"):
            got = told("get", field, "500:501,10:13", "--engine", engine, "--json")
            assert flat(got["values"]) == [10, 11, 12], got
        done = mmnf("get", "/dev/nbd0#raw,dtype=u8,shape=67108865", "0")
        assert done.returncode == 1 and "67108864" in done.stderr, done
    server.kill(signal.SIGTERM)
    read_only = Server("a", "-r", "memory", "64M")
    nbd_refused(1, "read-only", "attach", read_only.uri, "/dev/nbd0", "--write")
    read_only.kill(signal.SIGTERM)


@test
def bad_requests_are_told():
    nbd_refused(1, "no gateway answers", "attach", "nbd+unix:///?socket=/none", "/dev/nbd0")
    nbd_refused(2, "no TLS", "attach", "nbds://localhost/", "/dev/nbd0")
    nbd_refused(2, "expected nbd://", "attach", "http://localhost/", "/dev/nbd0")
    nbd_refused(2, "expected /dev/nbdN", "attach", "nbd://localhost/", "/dev/nbd0p1")
    nbd_refused(2, "--connections 17", "attach", "nbd://localhost/", "/dev/nbd0",
            "--connections", "17")
    nbd_refused(2, "expected attach, list or detach", "show")
    small = Server("a", "memory", "100")
    nbd_refused(1, "100 bytes: expected", "attach", small.uri, "/dev/nbd0")
    small.kill(signal.SIGTERM)
    assert not devices()


def inside():
    os.chdir(os.environ["TMPDIR"])
    subprocess.run(["insmod", os.environ["MMNF_KO"]], check=True)
    subprocess.run(["modprobe", "nbd", "nbds_max=4"], check=True)
    status = run_tests(tests, fresh=False)
    subprocess.run(["modprobe", "-r", "nbd"], check=True)
    subprocess.run(["rmmod", "mmnf"], check=True)
    return status


def main():
    return subprocess.run(
        [sys.executable, os.path.join(SRC, "tests", "vm", "run.py"), "--timeout", "1000",
         # Of a debug kernel's own nbd over a Unix socket lockdep complains.
         "--append", "sysctl.kernel.prove_locking=0",
         "--", sys.executable, os.path.abspath(__file__), "inside"],
        check=False).returncode


if __name__ == "__main__":
    if sys.argv[1:] == ["inside"]:
        sys.exit(inside())
    sys.exit(read(sys.argv[2]) if sys.argv[1:] else main())
