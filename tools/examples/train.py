#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A training loop over an embedding table that need not fit in memory.

    python3 train.py words 200

Rows of the table are gathered for a step while the step before is computed; the
table itself is written back, row by row.  The task: learn which of two halves of
the table a row is from, by a logistic regression whose inputs, the embeddings, are
trained as well.  As is usual, a row may be used as it was up to two steps before.
"""
import sys

import mmnf
import numpy as np

BATCH, RATE = 256, 0.5


def lists_of(rows: int, steps: int) -> "list[np.ndarray]":
    """The same rows in each run; none comes twice in one step."""
    chance = np.random.default_rng(1)
    return [np.unique(chance.integers(0, rows, BATCH)) for _ in range(steps)]


def main(path: str, steps: int) -> None:
    with mmnf.open(path, writable=True) as table:
        rows, width = table.shape
        weights = np.zeros(width)
        lists = lists_of(rows, steps)
        # Two lists are read ahead of the one that is worked on.
        for step, (row, x) in enumerate(zip(lists, table.gathers(lists, ahead=2))):
            wanted = row < rows // 2
            guess = 1 / (1 + np.exp(-(x @ weights)))
            error = guess - wanted
            loss = -np.mean(np.log(np.where(wanted, guess, 1 - guess) + 1e-9))
            gradient = np.outer(error, weights)
            weights -= RATE * error @ x / len(row)
            for r, change in zip(row, gradient):
                table[int(r)] = table[int(r)] - RATE * change.astype(table.dtype)
            if step % max(1, steps // 10) == 0 or step == steps - 1:
                print(f"step {step} loss {loss:.4f}")
        table.sync()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: train.py FIELD STEPS")
    main(sys.argv[1], int(sys.argv[2]))
