"""Orders and colours of the unknowns of a sparse system, found once, before anything is traced.

Shapes: a pattern is two arrays of indices, i and j, of the entries that may differ from zero, the diagonal included.
"""

from __future__ import annotations

from itertools import chain

import numpy as np


def entries(n: int, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair once, row by row."""
    return np.divmod(np.unique(i.astype(np.int64) * n + j), n)


def _rows(n: int, i: np.ndarray, j: np.ndarray) -> list[np.ndarray]:
    """The columns of each row."""
    by_row = np.argsort(i, kind="stable")
    return np.split(j[by_row], np.searchsorted(i[by_row], np.arange(1, n)))


def _neighbours(n: int, i: np.ndarray, j: np.ndarray) -> list[np.ndarray]:
    return _rows(n, *entries(n, np.append(i, j), np.append(j, i)))


def colours(n: int, i: np.ndarray, j: np.ndarray, order: np.ndarray) -> np.ndarray:
    """A colour for each column, so that no row has two columns of one colour.

    Greedily, in the given order. If neighbours are close in it, a band takes no more colours than it is wide.

    Source: Coleman, Moré, SIAM J. Numer. Anal. 20 (1983) 187.
    """
    rows, columns = _rows(n, i, j), _rows(n, j, i)
    colour = np.full(n, -1)
    for c in order:
        taken = set(np.concatenate([colour[rows[r]] for r in columns[c]]).tolist())
        colour[c] = next(x for x in range(n + 1) if x not in taken)
    return colour


def _levels(start: int, around: list[np.ndarray], seen: np.ndarray) -> list[list[int]]:
    """Breadth first from `start`, the unknowns with few neighbours first; marks what it has `seen`."""
    levels, seen[start] = [[start]], True
    while levels[-1]:
        level = []
        for v in levels[-1]:
            new = [int(x) for x in around[v] if not seen[x]]
            new.sort(key=lambda x: len(around[x]))
            seen[new] = True
            level += new
        levels.append(level)
    return levels[:-1]


def groups(n: int, i: np.ndarray, j: np.ndarray) -> list[list[int]]:
    """The unknowns in groups that do not see each other."""
    around, seen = _neighbours(n, i, j), np.zeros(n, bool)
    return [sorted(chain(*_levels(v, around, seen))) for v in range(n) if not seen[v]]


def reverse_cuthill_mckee(n: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """An order in which neighbours are close. Source: Cuthill, McKee, Proc. 24th ACM Conf. (1969) 157; George 1971."""
    around, seen, order = _neighbours(n, i, j), np.zeros(n, bool), []
    for v in np.argsort([len(a) for a in around], kind="stable"):
        if seen[v]:
            continue
        start, depth = int(v), 0
        while True:  # towards an end of the graph: George, Liu, ACM Trans. Math. Softw. 5 (1979) 284
            levels = _levels(start, around, seen.copy())
            if len(levels) <= depth:
                break
            depth, start = len(levels), min(levels[-1], key=lambda x: len(around[x]))
        order += chain(*_levels(start, around, seen))
    return np.array(order[::-1])


def bandwidth(order: np.ndarray, i: np.ndarray, j: np.ndarray) -> int:
    place = np.argsort(order)
    return int(np.max(np.abs(place[i] - place[j])))
