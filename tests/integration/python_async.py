#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Field.agather(): many at once in one loop, cancelled, in several loops, without
io_uring, after the field was closed; Field.gathers(): one after the other.  KTAP.
"""
import asyncio
import gc
import os
import sys
import threading

try:
    import numpy as np
except ImportError as error:
    print(f"1..0 # SKIP {error}: tests/deps.sh test")
    print(error)
    sys.exit(4)

SRC = os.environ["MMNF_SRC"]
os.environ["MMNF_LIBRARY"] = os.environ["MMNF_LIB"]
sys.path[:0] = [os.path.join(SRC, "tests"), os.path.join(SRC, "lib", "python")]
import fieldlib  # noqa: E402
import mmnf  # noqa: E402
from fieldlib import elements, same  # noqa: E402

SHAPE = (3000, 300)
OPTIONS = ({"engine": "mmap"}, {"engine": "direct"}, {"engine": "mmap", "uring": "off"},
           {"engine": "direct", "uring": "off"})


def made(folder):
    array = elements("f4", SHAPE)
    path = os.path.join(folder, "f")
    with mmnf.create(path, SHAPE, "f4") as field:
        field[...] = array
    return path, array


def cold(path):
    with mmnf.open(path, "mmap") as field:
        field.evict()


def descriptors():
    return len(os.listdir("/proc/self/fd"))


async def many(field, array, number):
    rng = np.random.default_rng(3)
    rows = [rng.integers(-SHAPE[0], SHAPE[0], int(rng.integers(0, 200))) for _ in range(number)]
    for one, got in zip(rows, await asyncio.gather(*map(field.agather, rows))):
        assert same(got, array[one])
    out = np.empty((2, SHAPE[1]), "f4")
    assert await field.agather([5, -5], out) is out and same(out, array[[5, -5]])


def gathers(folder):
    path, array = made(folder)
    before = descriptors()
    for options in OPTIONS:
        for number in (1, 300):
            cold(path)
            with mmnf.open(path, **options) as field:
                asyncio.run(many(field, array, number))
                asyncio.run(many(field, array, 2))
        del field
        gc.collect()
        assert descriptors() == before, f"{descriptors()} descriptors, {before} before"


def refusals(folder):
    path, _ = made(folder)

    async def refused(kind, *arguments):
        try:
            await field.agather(*arguments)
        except kind:
            return
        raise AssertionError(f"{arguments} were taken")

    async def all_of_them():
        await refused(IndexError, [3000])
        await refused(TypeError, [[1]])
        await refused(ValueError, [1], np.empty((1, 300), "f8"))
        assert (await field.agather([])).shape == (0, 300)

    with mmnf.open(path) as field:
        asyncio.run(all_of_them())
    asyncio.run(refused(ValueError, [1]))


def an_error_comes_to_its_task(folder):
    path = os.path.join(folder, "a.npy")
    array = elements("f4", SHAPE)
    np.save(path, array)

    async def main():
        got = await asyncio.gather(*(field.agather([row]) for row in (0, 2999, 1)),
                                   return_exceptions=True)
        assert same(got[0], array[[0]]) and same(got[2], array[[1]])
        assert isinstance(got[1], mmnf.Error), got[1]

    for options in OPTIONS[:2]:
        with mmnf.open(path, **options) as field:
            assert same(field[0], array[0])  # the file is open now
            os.truncate(path, 300 * 4 * 100)
            asyncio.run(main())
        np.save(path, array)


def cancelled(folder):
    """What was cancelled is over; the others get theirs, and the memory stays until
    nobody writes there."""
    path, array = made(folder)

    async def main():
        rng = np.random.default_rng(4)
        rows = [rng.integers(SHAPE[0], size=500) for _ in range(60)]
        tasks = [asyncio.ensure_future(field.agather(one)) for one in rows]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        for number, got in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
            if isinstance(got, asyncio.CancelledError):
                assert number % 3 == 0
            else:  # cancelled, perhaps, when it was done already
                assert same(got, array[rows[number]])
        try:
            await asyncio.wait_for(field.agather(rows[0]), 0)
        except TimeoutError:
            pass
        assert same(await field.agather(rows[1]), array[rows[1]])

    for options in OPTIONS:
        cold(path)
        with mmnf.open(path, **options) as field:
            asyncio.run(main())


def closed_meanwhile(folder):
    path, array = made(folder)

    async def main(field):
        tasks = [asyncio.ensure_future(field.agather([row, 7])) for row in range(50)]
        await asyncio.sleep(0)
        field.close()
        for row, got in enumerate(await asyncio.gather(*tasks)):
            assert same(got, array[[row, 7]])

    before = descriptors()
    for options in OPTIONS:
        cold(path)
        asyncio.run(main(mmnf.open(path, **options)))
        gc.collect()
    assert descriptors() == before


def left_alone(folder):
    """A loop that ends while reads are under way."""
    path, array = made(folder)

    async def main():
        task = asyncio.ensure_future(field.agather(np.arange(3000)))
        await asyncio.sleep(0)
        return task

    for options in OPTIONS:
        cold(path)
        with mmnf.open(path, **options) as field:
            asyncio.run(main())
            assert same(field[2999], array[2999])
    gc.collect()


def loops_of_threads(folder):
    path, array = made(folder)
    failed = []
    with mmnf.open(path, "direct") as field:
        def work():
            try:
                for _ in range(3):
                    asyncio.run(many(field, array, 20))
            except BaseException as error:  # told by the main thread
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]


def one_after_the_other(folder):
    path, array = made(folder)
    before = descriptors()
    rng = np.random.default_rng(5)
    lists = [rng.integers(-SHAPE[0], SHAPE[0], int(rng.integers(0, 200))) for _ in range(90)]
    for options in OPTIONS:
        cold(path)
        with mmnf.open(path, **options) as field:
            for ahead in 0, 1, 7, 200:
                taken = []
                got = field.gathers((taken.append(1) or one for one in lists), ahead)
                for number, one in enumerate(lists):
                    assert same(next(got), array[one])
                    assert len(taken) == min(number + 1 + ahead, len(lists))
                assert next(got, None) is None
            # Not to the end.
            assert same(next(field.gathers(lists)), array[lists[0]])
            # What is wrong comes in its turn.
            got = field.gathers([[1, 2], [3], [SHAPE[0]], [4]], 50)
            assert same(next(got), array[[1, 2]]) and same(next(got), array[[3]])
            try:
                next(got)
                raise AssertionError("no IndexError")
            except IndexError:
                pass
            assert next(got, None) is None
            # In a generator that outlives the field's close.
            got = field.gathers(lists[:3])
        assert all(same(one, array[rows]) for one, rows in zip(got, lists, strict=False))
        del got, field
        gc.collect()
    assert descriptors() == before


def in_l2(field):
    """Bytes there; what was read ahead comes in its own time."""
    return sum(tier.used_bytes for tier in field.tiers() if tier.level == 2)


def once(folder):
    """Past L2, request by request; what is there is taken from there."""
    path, array = made(folder)
    rows = list(range(0, SHAPE[0], 3))
    with mmnf.open(path, "direct", prefetch=False) as field:
        for _ in range(2):
            assert same(asyncio.run(field.agather(rows, once=True)), array[rows])
            for got in field.gathers([rows, rows[::-1]], once=True):
                assert got.shape == (len(rows), SHAPE[1])
            assert in_l2(field) == 0
        assert same(asyncio.run(field.agather(rows[:9])), array[rows[:9]])
        used = in_l2(field)
        assert used > 0
        assert same(next(field.gathers([rows], once=True)), array[rows])
        assert in_l2(field) == used
        assert same(next(field.gathers([rows])), array[rows])
        assert in_l2(field) > used


def main():
    return fieldlib.main([(test.__name__, test, ()) for test in (
        gathers, refusals, an_error_comes_to_its_task, cancelled, closed_meanwhile, left_alone,
        loops_of_threads, one_after_the_other, once)])


if __name__ == "__main__":
    sys.exit(main())
