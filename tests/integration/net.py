#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tool on fields that lie on NBD servers: made, described, read, written; and
manifests and names that are wrong.  Values are those of nbdkit's plugin pattern: the
8 bytes at offset o are o in big-endian.  KTAP.
"""
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.environ["MMNF_SRC"], "tests"))
from toollib import mmnf, ok, refused, run_tests  # noqa: E402

STRIPE = 65536
tests = []
children = []


def test(fn):
    tests.append(fn)
    return fn


def server(name, *args):
    """Returns the process and its URI; the socket is in this folder."""
    child = subprocess.Popen(["nbdkit", "-f", "-U", name, *args],
                             stderr=subprocess.DEVNULL)
    children.append(child)
    end = time.monotonic() + 30
    while not os.path.exists(name):
        assert child.poll() is None and time.monotonic() < end, name
        time.sleep(0.01)
    return child, f"nbd+unix:///?socket={os.path.abspath(name)}"


def pattern(index, nr, stripe=STRIPE):
    """Element of u64 behind nr servers in stripes."""
    at = index * 8
    if nr > 1:
        at = at // stripe // nr * stripe + at % stripe
    return struct.unpack("<Q", struct.pack(">Q", at))[0]


def elements(text):
    return [int(word) for word in text.split()]


@test
def stripes_are_made_and_read():
    uris = [server(f"s{i}", "pattern", "256T")[1] for i in range(4)]
    nets = [word for uri in uris for word in ("--net", uri)]
    ok("create", "f", "--shape", "1000000000,1000,100", "--dtype", "u64",
       *nets, "--stripe", "64K")
    with open("f/zarr.json", encoding="utf-8") as file:
        net = json.load(file)["attributes"]["mmnf"]["net"]
    assert net == {"uris": [[uri] for uri in uris], "stripe_bytes": STRIPE}, net
    info = json.loads(ok("info", "f", "--json"))
    assert (info["engine"], info["total_bytes"]) == ("net", 8 * 10 ** 14), info
    for row in (0, 1, 12345, 999999999):
        first = (row * 1000 + 999) * 100
        got = elements(ok("get", "f", f"{row},999,:"))
        assert got == [pattern(first + i, 4) for i in range(100)], row
    got = elements(ok("gather", "f", "777", "--out", "row"))
    assert not got
    with open("row", "rb") as file:
        record = file.read()
    first = 777 * 100000
    assert record == b"".join(struct.pack("<Q", pattern(first + i, 4))
                              for i in range(100000))
    scan = json.loads(ok("scan", "f", "--box", "0:40:3,0:1000:50,7", "--json"))
    want = sum(pattern((i * 1000 + k) * 100 + 7, 4)
               for i in range(0, 40, 3) for k in range(0, 1000, 50))
    assert (scan["checksum"] - want) % 2 ** 64 == 0, scan
    ok("prefetch", "f", "--box", "0,0:10,:")
    ok("evict", "f", "--box", "0,0:10,:")


@test
def tiers_tell_of_each_server():
    child, uri = server("t0", "pattern", "1G")
    _, other = server("t1", "pattern", "1G")
    ok("create", "t", "--shape", "1000,1000", "--dtype", "u64", "--net",
       f"{uri},{other}", "--net", other)
    tiers = json.loads(ok("tiers", "t", "--json"))
    four = [t for t in tiers["tiers"] if t["level"] == 4]
    assert len(four) == 1 and four[0]["on"], tiers
    assert "2 of 2 servers up" in four[0]["text"], four
    assert len(tiers["servers"]) == 2, tiers
    for s in tiers["servers"]:
        assert s["up"] and s["reads"] > 0 and s["latency_p50_ns"] > 0, s
        assert s["latency_p50_ns"] <= s["latency_p99_ns"], s
        assert s["size_bytes"] == 1 << 30, s
    child.send_signal(signal.SIGKILL)
    child.wait()
    os.unlink("t0")
    tiers = json.loads(ok("tiers", "t", "--json"))
    assert tiers["servers"][0]["uri"] == other, tiers


@test
def written_and_read_by_another_way():
    _, uri = server("w0", "memory", "1M")
    raw = uri + "#raw,dtype=u16,shape=100x200,offset=4096"
    shutil.rmtree("w", ignore_errors=True)
    ok("create", "w", "--shape", "100,200", "--dtype", "u16", "--net", uri)
    with open("values", "wb") as file:
        file.write(bytes(i * 7 % 251 for i in range(40000)))
    ok("import", "values#raw,dtype=u16,shape=100x200", "w")
    ok("get", "w", "::", "--out", "again")
    with open("values", "rb") as a, open("again", "rb") as b:
        values = a.read()
        assert values == b.read()
    # The same bytes from byte 4096 on, without a manifest.
    got = elements(ok("get", raw, "0,0:5"))
    assert got == list(struct.unpack("<5H", values[4096:4106])), got


@test
def what_is_wrong_is_named():
    _, uri = server("b0", "pattern", "1M")
    create = ("create", "b", "--shape", "10,10", "--dtype", "u8")
    refused(1, "expected nbd://, nbds://", *create, "--net", "http://x/")
    refused(1, "expected nbd://, nbds://", *create, "--net", uri + ",/etc")
    refused(1, "expected URI[,URI...]", *create, "--net", "")
    refused(1, "expected %XX in place", *create, "--net", "nbd://a b/")
    refused(1, "multiple of 4096", *create, "--net", uri, "--net", uri,
            "--stripe", "1000")
    refused(1, "expected neither with net", *create, "--net", uri, "--fill",
            "3")
    refused(2, "expected with --net", *create, "--stripe", "4096")
    assert not os.path.exists("b")
    refused(1, "expected at least 2000000", "info",
            uri + "#raw,dtype=u8,shape=2000000")
    refused(1, "expected URI#raw", "info", uri)
    refused(1, "No such file", "info",
            "nbd+unix:///?socket=/nowhere#raw,dtype=u8,shape=1")
    refused(1, "the field is on the network", "scan", "--engine", "mmap",
            uri + "#raw,dtype=u8,shape=1")
    refused(2, "seconds or 'forever'", "info", "--net-timeout", "soon",
            uri + "#raw,dtype=u8,shape=1")


@test
def hostile_manifests_are_refused():
    _, uri = server("h0", "pattern", "1M")
    ok("create", "h", "--shape", "10,10", "--dtype", "u8", "--net", uri)
    with open("h/zarr.json", encoding="utf-8") as file:
        good = json.load(file)
    cases = [
        (7, "attributes.mmnf.net is 7: expected an object"),
        ({}, "uris is missing"),
        ({"uris": []}, "a list of lists"),
        ({"uris": [[]]}, "uris[0] is []"),
        ({"uris": [uri]}, "uris[0] is"),
        ({"uris": [[1]]}, "URIs without a comma"),
        ({"uris": [["a\u0000b"]]}, "zarr.json"),
        ({"uris": [[uri + "," + uri]]}, "URIs without a comma"),
        ({"uris": [["file:///etc/passwd"]]}, "expected nbd://"),
        ({"uris": [["nbd+ssh://x/"]]}, "expected nbd://"),
        ({"uris": [["nbd+unix:///?socket=" + "x" * 2000]]}, "at most 1024"),
        ({"uris": [[uri] * 17]}, "at most 16 gateways"),
        ({"uris": [[uri]] * 257, "stripe_bytes": 4096}, "at most 256"),
        ({"uris": [[uri], [uri]]}, "multiple of 4096"),
        ({"uris": [[uri], [uri]], "stripe_bytes": -4096}, "stripe_bytes is -4096"),
        ({"uris": [[uri], [uri]], "stripe_bytes": 2 ** 62}, "at most 1 TiB"),
        ({"uris": [[uri]], "stripe_bytes": "1"}, "stripe_bytes is"),
        ({"uris": [[uri]], "tls": "off"}, "is not known"),
        # libnbd reads a file that a URI names only for who allows it.
        ({"uris": [["nbds+unix:///?socket=/x&tls-psk-file=/etc/passwd"]]},
         "server 0"),
    ]
    for net, text in cases:
        good["attributes"]["mmnf"]["net"] = net
        with open("h/zarr.json", "w", encoding="utf-8") as file:
            json.dump(good, file)
        refused(1, text, "info", "h")


def main():
    if not shutil.which("nbdkit"):
        print("1..0 # SKIP no nbdkit\nno nbdkit")
        return 4
    probe = mmnf("info", "nbd+unix:///?socket=/#raw,dtype=u8,shape=1")
    if "without libnbd" in probe.stderr:
        print("1..0 # SKIP built without libnbd\nbuilt without libnbd")
        return 4
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        status = run_tests(tests, fresh=False)
        for child in children:
            child.kill()
            child.wait()
        os.chdir("/")
    return status


if __name__ == "__main__":
    sys.exit(main())
