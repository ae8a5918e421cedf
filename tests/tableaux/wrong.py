"""Tables with wrong numbers in them, which the tests have to notice."""

import numpy as np


def nudged(row, i=0, by=1e-6):
    return (*row[:i], row[i] + by, *row[i + 1 :])


def shifted(row, rng):
    """Another row of the same sum, about 1e-6 away."""
    change = rng.normal(size=len(row))
    return tuple((np.array(row) + 1e-6 * (change - change.mean())).tolist())


def with_row(rows, i, row):
    return (*rows[:i], row, *rows[i + 1 :])
