# SPDX-License-Identifier: MIT
"""Fields on a real Ceph cluster: a petabyte image behind two NBD gateways (qemu-nbd),
on this machine alone.  `make check-ceph` runs it; not part of make check.

The conformance of the engine net, and faults while four threads read records of
random places and compare them: an OSD is killed, each gateway in turn is killed and
comes back.  No error, no wrong record.  Prints how long the longest read took.
"""
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SRC = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(SRC, "build")
os.environ.setdefault("MMNF_LIBRARY", os.path.join(BUILD, "libmmnf.so"))
sys.path[:0] = [os.path.join(SRC, "tests"), os.path.join(SRC, "lib", "python")]
import mmnf  # noqa: E402
import numpy as np  # noqa: E402
from toollib import run_tests  # noqa: E402

RECORD = 512            # u64: 4 KiB
NR_RECORDS = 1 << 38    # a petabyte
NR_WRITTEN = 400
NR_THREADS = 4
# A killed OSD's place is taken within seconds, a gateway's at once.
LONGEST_S = 30
PATIENCE_S = 60
tests = []


def test(function):
    tests.append(function)
    return function


def until(what, condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.1)


class Gateway:
    def __init__(self, socket, conf):
        self.socket, self.conf = os.path.abspath(socket), conf
        self.uri = f"nbd+unix:///field?socket={self.socket}"
        self.start()

    def start(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        # No cache of its own: two gateways show the same.
        self.process = subprocess.Popen(
            ["qemu-nbd", "-k", self.socket, "-f", "raw", "-t", "-e", "16", "--cache=none",
             "--aio=threads", "-x", "field", f"rbd:rbd/field:conf={self.conf}"])
        until("the gateway listens", lambda: os.path.exists(self.socket))

    def kill(self):
        self.process.kill()
        self.process.wait()


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        self.conf = os.path.join(folder, "ceph.conf")
        subprocess.run([os.path.join(HERE, "up.sh"), folder], check=True)
        self.gateways = [Gateway(name, self.conf) for name in ("a.sock", "b.sock")]

    def nr_osds_up(self):
        done = subprocess.run(["ceph", "-c", self.conf, "osd", "stat", "-f", "json"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              check=True, timeout=PATIENCE_S)
        return json.loads(done.stdout)["num_up_osds"]

    def kill_osd(self, number):
        with open(os.path.join(self.folder, "run", f"osd.{number}.pid"),
                  encoding="ascii") as file:
            os.kill(int(file.read()), signal.SIGKILL)

    def start_osd(self, number):
        subprocess.run(["ceph-osd", "-c", self.conf, "-i", str(number)], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def down(self):
        for gateway in self.gateways:
            gateway.kill()
        subprocess.run([os.path.join(HERE, "down.sh"), self.folder], check=True)


def record(row):
    first = row * RECORD + 1
    return np.arange(first, first + RECORD, dtype="<u8")


class Readers:
    """Threads that read written and empty records of a field, and compare."""

    def __init__(self, field, rows):
        self.field, self.rows = field, rows
        self.read, self.longest, self.wrong = 0, 0.0, []
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(n,))
                        for n in range(NR_THREADS)]
        for thread in self.threads:
            thread.start()

    def run(self, seed):
        chance = random.Random(seed)
        written = set(self.rows)
        while not self.stop.is_set():
            row = chance.choice(self.rows)
            if chance.random() < 0.2:
                row = chance.randrange(NR_RECORDS)
            want = record(row) if row in written else np.zeros(RECORD, "<u8")
            began = time.monotonic()
            try:
                good = np.array_equal(np.asarray(self.field[row]), want)
                words = "wrong bytes"
            except OSError as error:
                good, words = False, str(error)
            with self.lock:
                self.read += 1
                self.longest = max(self.longest, time.monotonic() - began)
                if not good:
                    self.wrong.append((row, words))

    def go_on(self, nr=500):
        wanted = self.read + nr
        until(f"{nr} more records", lambda: self.read >= wanted)

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        print(f"# {self.read} records, the longest took {self.longest:.2f} s")
        assert not self.wrong, self.wrong[:5]
        assert self.longest < LONGEST_S, self.longest


def uris(cluster):
    return ",".join(gateway.uri for gateway in cluster.gateways)


@contextlib.contextmanager
def reading(cluster):
    # So little is cached that every read goes to the servers.
    field = mmnf.open("records", l2_bytes=1 << 18)
    readers = Readers(field, cluster.rows)
    try:
        readers.go_on()
        yield readers
        readers.go_on()
    finally:
        readers.end()
        field.close()


@test
def engines_conform_on_two_gateways(cluster):
    done = subprocess.run(
        [os.path.join(BUILD, "tests", "unit", "net_engine"), "servers_of_the_environment"],
        env=dict(os.environ, MMNF_NET_URIS=uris(cluster)), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout


@test
def petabyte_is_opened_and_written(cluster):
    subprocess.run([os.path.join(BUILD, "mmnf"), "create", "records", "--shape",
                    f"{NR_RECORDS},{RECORD}", "--dtype", "u64", "--net", uris(cluster)],
                   check=True)
    began = time.monotonic()
    field = mmnf.open("records", writable=True)
    print(f"# opened in {time.monotonic() - began:.3f} s")
    assert time.monotonic() - began < 1
    cluster.rows = random.Random(5).sample(range(NR_RECORDS), NR_WRITTEN)
    for row in cluster.rows:
        field[row] = record(row)
    field.sync()
    field.close()
    # Each gateway by itself shows what was written through both.
    for gateway in cluster.gateways:
        name = f"{gateway.uri}#raw,dtype=u64,shape={NR_RECORDS}x{RECORD}"
        with contextlib.closing(mmnf.open(name)) as alone:
            for row in cluster.rows[:20]:
                assert np.array_equal(np.asarray(alone[row]), record(row)), row


@test
def osd_killed_while_reading(cluster):
    with reading(cluster) as readers:
        cluster.kill_osd(0)
        readers.go_on(2000)
        until("the monitor sees it", lambda: cluster.nr_osds_up() == 2)
        readers.go_on()
        cluster.start_osd(0)
        until("it is back", lambda: cluster.nr_osds_up() == 3)


@test
def gateway_lost_and_back(cluster):
    with reading(cluster) as readers:
        for gateway in cluster.gateways:
            gateway.kill()
            readers.go_on()
            gateway.start()
            time.sleep(1)       # for the links to it


@test
def gateway_and_osd_lost_at_once(cluster):
    with reading(cluster) as readers:
        cluster.gateways[0].kill()
        cluster.kill_osd(1)
        readers.go_on(1000)
        cluster.gateways[0].start()
        cluster.start_osd(1)
        until("it is back", lambda: cluster.nr_osds_up() == 3)


def main():
    with tempfile.TemporaryDirectory(prefix="mmnf-ceph.") as folder:
        os.chdir(folder)
        cluster = Cluster(os.path.join(folder, "c"))
        try:
            return run_tests(tests, cluster, fresh=False)
        finally:
            cluster.down()


if __name__ == "__main__":
    sys.exit(main())
