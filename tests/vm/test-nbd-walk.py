# SPDX-License-Identifier: MIT
"""A strided walk of a cold field on a network block device, in virtual time: each
read takes 1 ms at the server, and /dev/mmnf is near the oracle that asks for each
page 64 pages before its touch.  Prints what each way took.

The server is nbdkit in the guest, on the one virtual CPU: what it and the kernel's
nbd cost is in every number, the same for all.
"""
import json
import os
import subprocess
import sys

SRC = os.environ["MMNF_SRC"]
RUN = os.path.join(SRC, "tests", "vm", "run.py")
CASE = "stride-16MiB-forward"
LATENCY = "1ms"
ENGINES = ["mmnf", "willneed", "uring", "madv_random"]
REPEATS = 2     # the better counts: the first also brings in programs
NEAR = 0.9

# Binaries lie in memory before anything is timed, as does the field.
GUEST = f"""
set -e
cd "$TMPDIR"
insmod "$MMNF_KO"
modprobe nbd nbds_max=1
cp "$MMNF_BUILD/tests/bench/walk/walk" walk
truncate -s 32G sparse
./walk fill-case {CASE} sparse
nbdkit -f -t 128 -U "$PWD/socket" --filter=delay file sparse rdelay={LATENCY} &
server=$!
until [ -S socket ]; do sleep 0.1; done
"$MMNF" nbd attach "nbd+unix:///?socket=$PWD/socket" /dev/nbd0 --json >attached &
supervisor=$!
until [ -s attached ]; do sleep 0.1; done
for repeat in $(seq {REPEATS}); do
	./walk run {CASE} {",".join(ENGINES)} /none /dev/nbd0
done
kill "$supervisor"
wait "$supervisor"
kill "$server"
"""


def main():
    done = subprocess.run(
        [sys.executable, RUN, "--icount", "--qemu-arg=-cpu max,erms=off", "--mem", "2G",
         # Of a debug kernel's own nbd over a Unix socket lockdep complains.
         "--append", "sysctl.kernel.prove_locking=0", "--timeout", "1000", "--", GUEST],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()
            if line.startswith('{"case"')]
    if done.returncode or len(rows) != REPEATS * len(ENGINES):
        print(done.stdout)
        print(f"the guest ended with {done.returncode}, {len(rows)} walks")
        return 1
    us = {engine: min(row["ns"] / row["touches"] / 1000 for row in rows
                      if row["engine"] == engine) for engine in ENGINES}
    for engine, value in us.items():
        print(f"# {CASE}, {LATENCY}: {engine}: {value:.1f} us a touch")
    wrong = sum(row["wrong"] for row in rows)
    share = us["willneed"] / us["mmnf"]
    print(f"# {share:.2f} of the oracle's speed, {us['madv_random'] / us['mmnf']:.1f} "
          f"times MADV_RANDOM's")
    if wrong or share < NEAR:
        print(f"expected no wrong value and at least {NEAR} of the oracle: {wrong} wrong, "
              f"{share:.2f}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
