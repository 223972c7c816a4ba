# SPDX-License-Identifier: MIT
"""A trace of one walk as faults and reads.

Takes the kernel's text of mmnf_fault, block_rq_issue and block_rq_complete.  The
walk must be over the raw disk, where a sector's place is the place in the file.
"""
import re

LINE = re.compile(r"\s(?P<s>\d+)\.(?P<us>\d{6}): (?P<event>\w+): (?P<rest>.*)")
FAULT = re.compile(r"offset_bytes=(\d+) (hit|late|miss)")
# "252,0 RA 4096 () 8192 + 8 [kworker/u2:0]", without the bytes when it completes
REQUEST = re.compile(r"\d+,\d+ R\w* (?:\d+ )?\(.*?\) (\d+) \+ (\d+) \[")
SECTOR_BYTES = 512


def events(text, nr_faults):
    """(what, position, start ns, end ns) up to that many faults, by time."""
    started, faults = {}, 0
    for line in text.splitlines():
        found = LINE.search(line)
        if not found:
            continue
        at_ns = int(found["s"]) * 10**9 + int(found["us"]) * 1000
        if found["event"] == "mmnf_fault":
            fault = FAULT.search(found["rest"])
            faults += 1
            if faults > nr_faults:
                return
            yield fault[2], int(fault[1]), at_ns, at_ns
            continue
        request = REQUEST.search(found["rest"])
        if not request:
            continue
        sector = int(request[1])
        if found["event"] == "block_rq_issue":
            started[sector] = at_ns
        elif sector in started:
            yield "read", sector * SECTOR_BYTES, started.pop(sector), at_ns
