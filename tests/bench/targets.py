# SPDX-License-Identifier: MIT
"""What each class of case has to reach, and whether it did.

A target is (text, value, least or most, bound).  Speeds are ratios of times in the
same run: 1.5 x willneed is one and a half times as fast as that oracle.

No causal predictor knows where the next box lies, nor a stride by its first touch:
beside willneed stands an oracle that is told no more than a walk has shown, for the
cases of several walks.  It is no target: it tells whether what willneed is missed by
could have been foreseen.

Nobody tells mmnf where a walk goes: that is predicted.  mmnf-told is: by a program that
knows the list as willneed does, and asks with one command for 32 reads where willneed
needs a call for each; what it is faster by is what a batch in the kernel saves.  Where
the disk is the limit both wait for 64 reads in flight, and they tie.

The waits at the ends of rows ("carry stall") are held to 2 % of the time, or to what
the oracle waits there, which is told the whole walk beforehand.  Where the disk is the
limit, foresight does not help: the walk takes as long as its reads, the loop waits
nearly all of the time, and carries have their share of that or more, as the reads come
in bunches.  Where it has time, "bubble" holds everywhere.  A carry whose read is done
may still wait for the CPU: "carry unserved" bounds that.  On the disk of 1 ms the oracle, 64 reads ahead, waits 80 % of the time at
the ends of nest2's rows of 64, and 22 to 25 % at those of nest3 and nest4.
"""
MOST_CARRY_STALL = 0.02

# Told beforehand where a walk goes, and told what it has shown by then.
WILLNEED = ["willneed", "willneed-causal"]

STOCK = ["default", "madv_random", "madv_sequential"]

# mmnf foresees what a walk has shown where it is so fast beside the oracle of that.
FORESIGHT = 0.98

# Nearer to each other, two walks tie; so far two runs of one may differ.
TIE = 0.98

# Where both oracles take this much longer than on the fastest device of the run, they
# wait for the device and not for their own instructions.
DEVICE_IS_LIMIT = 1.25


def us(row):
    return row["ns"] / row["touches"] / 1000


def speed(rows, other, engine="mmnf"):
    return us(rows[other]) / us(rows[engine])


def speeds(rows, row):
    """What of row beside its times is written: mmnf's speed against the oracles that
    use a mapping, as far as they were run; if told, against willneed's alone."""
    if row["engine"] in ("mmnf", "mmnf-told"):
        for oracle in WILLNEED if row["engine"] == "mmnf" else WILLNEED[:1]:
            if oracle in rows:
                yield f"x_{oracle}", speed(rows, oracle, row["engine"])


def device_is_limit(rows, fastest):
    return all(oracle in rows and oracle in fastest
               and us(rows[oracle]) >= DEVICE_IS_LIMIT * us(fastest[oracle])
               for oracle in ("uring", "willneed"))


def covered(row):
    """Of the pages touched after the warm-up those that were asked for before."""
    return 1 - row["warm_misses"] / row["warm_pages"]


def wasted(row):
    """Of the pages read ahead those that nobody touched."""
    useless = row["wasted"] + row["pending"]
    return useless / row["prefetched"] if row["prefetched"] else 0


def carry_stall(row):
    """Of the time, the part that carries waited for reads."""
    return row["carry_stall_ns"] / row["ns"]


def carry_unserved(row):
    """Of the time, the part that carries were ready to run after a read's time."""
    return row["carry_unserved_ns"] / row["ns"]


def most_carry_stall(rows):
    oracle = rows.get("watched-willneed")
    return max(MOST_CARRY_STALL, carry_stall(oracle) if oracle else 0)


def bubble(row):
    """The same after the warm-up: without the first end of each loop, and where a
    read could have been begun earlier: without waits for a disk that was full, or had
    all that was left to read."""
    ns = row["carry_stall_ns"] - row["first_stall_ns"] - row["full_stall_ns"]
    return ns / row["ns"]


def of_told(rows):
    """Of mmnf-told.  Where uring, which has next to nothing to do beside its reads, is no
    faster than willneed, both wait for as many reads in flight."""
    if all(engine in rows for engine in ("mmnf-told", "willneed")):
        ties = "uring" in rows and us(rows["uring"]) >= TIE * us(rows["willneed"])
        least = TIE if ties else 1.0
        yield "told x willneed", speed(rows, "willneed", "mmnf-told"), "least", least


def of_case(case, rows, fastest, unscaled):
    """Targets of a case whose engines gave rows, as far as the engines they need
    were run; fastest: the rows of the same case on the fastest device."""
    if "mmnf" not in rows:
        return
    mmnf = rows["mmnf"]
    kind = mmnf["class"]
    if kind == "hot":
        if "default" in rows:
            cost = us(mmnf) / us(rows["default"])
            yield "instructions / default", cost, "most", 1.02
        return
    if kind == "flat":
        if all(engine in rows for engine in STOCK):
            best = min(STOCK, key=lambda e: us(rows[e]))
            yield f"x {best}", speed(rows, best), "least", 1.0
        return
    if "willneed" in rows:
        yield "x willneed", speed(rows, "willneed"), "least", 1.0
    yield from of_told(rows)
    if device_is_limit(rows, fastest):
        yield "x uring", speed(rows, "uring"), "least", 0.95
    if kind in ("strided", "nest"):
        if "default" in rows:
            yield "x default", speed(rows, "default"), "least", 10
        yield "covered", covered(mmnf), "least", 0.99
        yield "wasted", wasted(mmnf), "most", 0.01
        if "watched" in rows:
            yield ("carry stall", carry_stall(rows["watched"]), "most",
                   most_carry_stall(rows))
            yield "bubble", bubble(rows["watched"]), "most", MOST_CARRY_STALL
            yield ("carry unserved", carry_unserved(rows["watched"]), "most",
                   MOST_CARRY_STALL)
    if unscaled and case.startswith("stride-") and "madv_random" in rows:
        yield "x madv_random", speed(rows, "madv_random"), "least", 4.5


def foresight(rows):
    """Of a case that was walked with willneed-causal: mmnf's speed beside it, and why
    willneed is missed where it is; "" of any other."""
    if not all(engine in rows for engine in ("mmnf", "willneed-causal")):
        return ""
    causal = speed(rows, "willneed-causal")
    text = f"x willneed-causal {causal:.3g}"
    if "willneed" not in rows or speed(rows, "willneed") >= 1:
        return text
    if causal < FORESIGHT:
        return f"{text}: below {FORESIGHT}, more could be foreseen"
    if us(rows["willneed-causal"]) <= us(rows["willneed"]):
        return f"{text}: no lack of foresight, it is as fast as willneed"
    return f"{text}: what a walk has not shown yet cannot be asked for"


def missed(target):
    _, value, which, bound = target
    return value < bound if which == "least" else value > bound
