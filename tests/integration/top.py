#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mmnf top: fields of running processes, counted by them and told from outside;
the live screen in a terminal, drawn to build/screens.  TAP.
"""
import json
import os
import stat
import subprocess
import sys
import time

SRC = os.environ["MMNF_SRC"]
sys.path.insert(0, os.path.join(SRC, "tests"))
try:
    import numpy as np
    from prometheus_client.parser import text_string_to_metric_families
    from screen import Terminal
except ImportError as missing:
    print(f"1..0 # SKIP {missing}")
    print(missing)
    sys.exit(4)

from toollib import MMNF, ok, refused, run_tests  # noqa: E402

SCREENS = os.path.join(os.environ["MMNF_BUILD"], "screens")
ROWS, COLUMNS = 64, 1024
tests = []

# A process of the library: opens the field, does what is asked, line by line.
LOAD = r"""
#include <mmnf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct mmnf_open_opts opts = { .size = sizeof(opts) };
	struct mmnf_box box = { .count = { 1, 1024 } };
	static float row[1024], batch[64 * 1024];
	struct mmnf_selection sel = { .size = sizeof(sel) };
	uint64_t index[64], i, device;
	struct mmnf_field *f;
	char line[64];

	opts.engine = (uint32_t)atoi(argv[2]);
	if (argc < 3 || mmnf_field_open(&f, argv[1], &opts))
		return fprintf(stderr, "%s\n", mmnf_last_error()), 1;
	puts("open");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (!strncmp(line, "get", 3))
			for (i = 0; i < 64; i++) {
				box.start[0] = i;
				mmnf_get(f, &box, row, sizeof(row));
			}
		for (i = 0; i < 64; i++)
			index[i] = 63 - i;
		if (!strncmp(line, "batch", 5))
			mmnf_batch_get(f, index, 64, batch, sizeof(batch));
		sel.index = index;
		sel.nr_index = 64;
		if (!strncmp(line, "gpu", 3) &&
		    (mmnf_gpu_enable(f, NULL) ||
		     mmnf_device_alloc(&device, 0, sizeof(batch)) ||
		     mmnf_batch_get_device(f, &sel, device, sizeof(batch), NULL) < 0 ||
		     mmnf_batch_get_device(f, &sel, device, sizeof(batch), NULL) < 0))
			return fprintf(stderr, "%s\n", mmnf_last_error()), 1;
		if (!strncmp(line, "fork", 4) && !fork()) {
			sleep(600);
			_exit(0);
		}
		puts("done");
		fflush(stdout);
	}
	mmnf_field_close(f);
	puts("closed");
	fflush(stdout);
	pause();
}
"""


def test(function):
    tests.append(function)
    return function


class Load:
    def __init__(self, field, engine=2, env=None):
        if not os.path.exists("load"):
            with open("load.c", "w", encoding="ascii") as out:
                out.write(LOAD)
            build = os.environ["MMNF_BUILD"]
            subprocess.run(["gcc", "-I" + os.path.join(SRC, "include"), "load.c", "-o",
                            "load", "-L" + build, "-lmmnf", "-Wl,-rpath," + build],
                           check=True)
        self.process = subprocess.Popen(
            ["./load", field, str(engine)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, start_new_session=True,
            env=dict(os.environ, **(env or {})))
        self.pid = self.process.pid
        self.expect("open")

    def expect(self, word):
        line = self.process.stdout.readline()
        assert line == word + "\n", line

    def ask(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        self.expect("done")

    def close(self):
        self.process.stdin.close()
        self.expect("closed")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.killpg(self.pid, 9)
        self.process.wait()


def field():
    np.save("a.npy", np.ones((ROWS, COLUMNS), "<f4"))
    ok("create", "f", "--shape", f"{ROWS},{COLUMNS}", "--dtype", "f32")
    ok("import", "a.npy", "f")


def fields(pid=None):
    told = json.loads(ok("top", "--once", "--json"))["fields"]
    return [f for f in told if pid is None or f.get("pid") == pid]


def one(pid):
    found = fields(pid)
    assert len(found) == 1, found
    return found[0]


@test
def what_a_process_counts_is_told():
    field()
    with Load("f") as load:
        f = one(load.pid)
        assert f["where"] == "library" and f["engine"] == "mmap", f
        assert f["name"] == os.path.realpath("f") and f["command"] == "load", f
        assert f["shape"] == [ROWS, COLUMNS] and f["element_bytes"] == 4, f
        assert f["total_bytes"] == ROWS * COLUMNS * 4, f
        assert not any(f["counts"].values()), f
        load.ask("get")
        c = one(load.pid)["counts"]
        assert c["gets"] == ROWS and c["get_bytes"] == ROWS * COLUMNS * 4, c
        # A row is a page, and each has one caller: each get is an access.
        assert c["accesses"] == ROWS == c["hits"] + c["late"] + c["misses"], c
        load.ask("batch")
        f = one(load.pid)
        assert f["counts"]["gets"] == ROWS + 1, f
        # The batch is timed: some wait was counted, in the order of percentiles.
        wait = f["latency"]
        assert 0 < wait["p50_ns"] <= wait["p90_ns"] <= wait["p99_ns"], wait
        load.close()
        assert not fields(load.pid)


@test
def walks_are_told_with_their_loops():
    field()
    ok("evict", "f")
    with Load("f", engine=3) as load:
        load.ask("get")
        f = one(load.pid)
        # A row is a tile, and all were read.
        assert f["l2_used_bytes"] >= ROWS * COLUMNS * 4, f
        assert f["l2_used_bytes"] <= f["l2_bytes"], f
        # Row after row, a page each: one walk, seen as soon as it missed.
        walks = [s for s in f["streams"] if s["dense"] == 1 or s["levels"]]
        assert walks and walks[0]["thread"] == load.pid, f["streams"]


@test
def tiers_tell_what_they_hold():
    """L1 over the fake driver, which names itself: two gathers of the same rows."""
    driver = os.path.join(os.environ["MMNF_BUILD"], "libmmnf-fakecuda.so")
    if not os.path.exists(driver):
        print("# no CUDA headers, no fake driver: L1 is not looked at")
        return
    field()
    with Load("f", env={"MMNF_LIBCUDA": driver}) as load:
        assert one(load.pid)["gpus"] == []
        load.ask("gpu")
        gpu, = one(load.pid)["gpus"]
        assert gpu["device"] == 0 and "fake" in gpu["name"].lower(), gpu
        nr_tiles = ROWS * COLUMNS * 4 // gpu["tile_bytes"]
        assert gpu["misses"] == nr_tiles == gpu["nr_slots_used"], gpu
        assert gpu["hits"] >= gpu["misses"] and gpu["late"] == 0, gpu
        assert gpu["gathered_bytes"] == 2 * ROWS * COLUMNS * 4, gpu
        families = {f.name: f for f in text_string_to_metric_families(
            ok("top", "--prometheus", "-"))}
        used = [s for s in families["mmnf_gpu_nr_slots_used"].samples
                if s.labels["pid"] == str(load.pid)]
        assert used[0].value == nr_tiles and used[0].labels["device"] == "0", used
        with Terminal([MMNF, "top", "--seconds", "0.5"], 132, 12) as t:
            t.wait_for("L1, GPU 0")
            t.save(os.path.join(SCREENS, "top-gpu.png"))
            t.press("q")
            assert t.end() == 0


@test
def who_does_not_want_is_not_seen():
    field()
    with Load("f", env={"MMNF_STATS": "0"}) as load:
        load.ask("get")
        assert not fields(load.pid)


@test
def a_forked_field_is_told_once():
    field()
    with Load("f") as load:
        load.ask("fork")
        named = [f for f in fields() if f["name"] == os.path.realpath("f")]
        assert len(named) == 1, named


@test
def others_cannot_write_to_the_page():
    field()
    with Load("f") as load:
        folder = f"/proc/{load.pid}/fd"
        page = next(os.path.join(folder, fd) for fd in os.listdir(folder)
                    if "mmnf-field" in os.readlink(os.path.join(folder, fd)))
        fd = os.open(page, os.O_RDWR)
        for change in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0),
                       lambda: os.ftruncate(fd, 1 << 20)):
            try:
                change()
            except PermissionError:
                continue
            raise AssertionError("the page can be changed from outside")
        os.close(fd)


@test
def pages_may_lie():
    """A process that shows whatever it likes: told or left out, never obeyed."""
    field()
    with Load("f") as load:
        folder = f"/proc/{load.pid}/fd"
        page = next(os.path.join(folder, fd) for fd in os.listdir(folder)
                    if "mmnf-field" in os.readlink(os.path.join(folder, fd)))
        with open(page, "rb") as file:
            good = file.read()
    noise = np.random.default_rng(7)
    for turn in range(30):
        data = bytearray(good)
        if turn:
            # Behind magic, length and the flag that it is ready.
            where = noise.integers(16, len(data), 400)
            for i in where:
                data[i] = noise.integers(256)
        fd = os.memfd_create("mmnf-field")
        os.write(fd, bytes(data) if turn % 5 != 4 else bytes(data[:100 * turn]))
        text = ok("top", "--once")
        assert "\x1b" not in text and "\x00" not in text, text
        json.loads(ok("top", "--once", "--json"))
        list(text_string_to_metric_families(ok("top", "--prometheus", "-")))
        os.close(fd)


@test
def prometheus_reads_it():
    field()
    with Load("f") as load:
        load.ask("get")
        load.ask("batch")
        ok("top", "--prometheus", "m.prom")
        os.mkfifo("pipe")
        refused(1, "regular file", "top", "--prometheus", "pipe")
        assert stat.S_ISFIFO(os.stat("pipe").st_mode)
        assert os.listdir(".").count("m.prom") == 1 and \
            not [n for n in os.listdir(".") if n.startswith("m.prom.")]
        assert os.stat("m.prom").st_mode & 0o777 == 0o644
        with open("m.prom", encoding="utf-8") as file:
            text = file.read()
        families = {f.name: f for f in text_string_to_metric_families(text)}
        mine = {name: [s for s in family.samples if s.labels.get("pid") == str(load.pid)]
                for name, family in families.items()}
        assert families["mmnf_gets"].type == "counter", families.keys()
        assert mine["mmnf_gets"][0].value == ROWS + 1, mine["mmnf_gets"]
        assert mine["mmnf_get_bytes"][0].value == 2 * ROWS * COLUMNS * 4
        assert mine["mmnf_gets"][0].labels["field"] == os.path.realpath("f")
        assert families["mmnf_wait_seconds"].type == "histogram"
        buckets = [s.value for s in mine["mmnf_wait_seconds"] if "le" in s.labels]
        assert buckets == sorted(buckets) and buckets[-1] >= 1, buckets
        for family in families.values():
            assert family.documentation, family


@test
def rates_are_of_the_interval():
    field()
    with Load("f") as load:
        top = subprocess.Popen([MMNF, "top", "--json", "--seconds", "0.2"], text=True,
                               stdout=subprocess.PIPE)
        json.loads(top.stdout.readline())
        load.ask("get")
        gets = 0
        for _ in range(50):
            sample = json.loads(top.stdout.readline())
            assert sample["interval_ns"] >= 0.2e9, sample["interval_ns"]
            f = [f for f in sample["fields"] if f.get("pid") == load.pid][0]
            gets += f["counts"]["gets"] - f["counts_before"]["gets"]
            if gets:
                break
        top.kill()
        top.wait()
        top.stdout.close()
        assert gets == ROWS, gets


@test
def the_screen_is_live():
    """Two processes under load, in a terminal; keys; a picture."""
    np.save("b.npy", np.ones((2048, 64, 64), "<f4"))
    ok("create", "brain", "--shape", "2048,64,64", "--dtype", "f32")
    ok("import", "b.npy", "brain")
    ok("create", "words", "--shape", f"{ROWS},{COLUMNS}", "--dtype", "f32")
    np.save("a.npy", np.ones((ROWS, COLUMNS), "<f4"))
    ok("import", "a.npy", "words")
    ok("evict", "brain")
    walk = subprocess.Popen(
        ["sh", "-c", f"while :; do {MMNF} evict brain; {MMNF} scan brain --engine direct "
         "--order 1,0,2 --box :,::4,:; done"], start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with Load("words") as load, \
                Terminal([MMNF, "top", "--seconds", "0.5"], 132, 18) as t:
            text = t.wait_for(str(load.pid))
            assert "mmnf top" in text and "HIT" in text, text
            assert f"{ROWS}x{COLUMNS} of 4 B" in text, text
            end = time.monotonic() + 60
            while time.monotonic() < end:
                load.ask("get")
                load.ask("batch")
                t.read(0.3)
                text = t.text()
                rows = [line for line in text.splitlines() if str(load.pid) in line]
                if rows and "100%" in rows[0] and "B/s" in rows[0] and "+16.38 kB" in text:
                    break
            else:
                raise AssertionError(text)
            t.save(os.path.join(SCREENS, "top.png"))
            t.press("t")
            t.wait_for(lambda text: f"{ROWS}x{COLUMNS}" not in text)
            t.resize(80, 18)
            t.press("s")
            t.wait_for("by name")
            t.save(os.path.join(SCREENS, "top-80.png"))
            t.press("q")
            assert t.end() == 0
    finally:
        os.killpg(walk.pid, 9)
        walk.wait()


@test
def the_map_is_drawn_in_a_terminal():
    np.save("b.npy", np.ones((512, 64, 64), "<f4"))
    ok("create", "f", "--shape", "2048,64,64", "--dtype", "f32")
    ok("import", "b.npy", "f", "--at", "700,0,0")
    with Terminal([MMNF, "map", "f"], 100, 30) as t:
        assert t.end() == 0
        text = t.wait_for("looked at all")
        assert "\u2580" * 64 in text and "hot" in text, text
        t.save(os.path.join(SCREENS, "map-terminal.png"))


@test
def bad_input_is_named():
    refused(2, "--seconds 0", "top", "--once", "--seconds", "0")
    refused(2, "--seconds x", "top", "--once", "--seconds", "x")
    refused(1, "nowhere/m", "top", "--prometheus", "nowhere/m")
    refused(2, "usage", "top", "f")


sys.exit(run_tests(tests))
