"""What may be wrong with an input, said when it is made, or when a solve is asked to land on it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxdiffeq.errors import concrete, real_number
from jaxdiffeq.types import PyTree


def share(value: Any, name: str) -> None:
    if concrete(value) and not (real_number(value) and np.ndim(value) == 0 and 0 < value < 1):
        raise ValueError(f"`{name}` must be a number between 0 and 1, but is {value!r}.")


def rows(values: PyTree, name: str, least: int) -> int:
    """How many rows a table has, the same of every leaf."""
    found = {
        f"values{jax.tree_util.keystr(path)}": np.shape(x) for path, x in jax.tree_util.tree_leaves_with_path(values)
    }
    counts = {shape[0] if shape else -1 for shape in found.values()}
    if len(counts) != 1 or -1 in counts:
        listed = ", ".join(f"`{path}` has shape {shape}" for path, shape in found.items()) or "there are none"
        raise ValueError(f"{name} takes values with one row for every time, but {listed}.")
    (count,) = counts
    if count < least:
        raise ValueError(f"{name} needs {least} rows of values at least, but has {count}.")
    return count


def table(ts: Any, values: PyTree, name: str, least: int) -> None:
    if np.ndim(ts) != 1 or np.iscomplexobj(ts):
        raise ValueError(f"{name} takes a list of times, but `ts` is {ts!r}.")
    count = rows(values, name, least)
    if len(ts) != count:
        raise ValueError(
            f"{name} takes a value for every time, but there are {len(ts)} times and {count} rows of values. What "
            f"holds from the last time on needs a time and a row, too."
        )
    if not concrete(ts):
        return
    given = np.asarray(ts)
    wrong = ~(np.diff(given) > 0)
    if not np.isfinite(given).all():
        i = int(np.argmin(np.isfinite(given)))
        raise ValueError(f"the times of {name} must be finite numbers, but ts[{i}] = {given[i]}.")
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(
            f"the times of {name} must increase, but ts[{i + 1}] = {given[i + 1]} follows ts[{i}] = {given[i]} in "
            f"{given.dtype}. Sort them; two values at one time are a jump, which PiecewiseConstant has at every time."
        )


def slopes(given: PyTree, values: PyTree, kind: str) -> None:
    if given is None:
        return
    if kind != "hermite":
        raise ValueError(f'slopes are given to CubicSpline(kind="hermite"); kind={kind!r} finds its own.')
    shapes = [jax.tree.map(np.shape, tree) for tree in (given, values)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"`slopes` must be shaped like `values`, {shapes[1]}, but are {shapes[0]}.")


def periods_known(known: bool) -> None:
    if not known:
        raise ValueError(
            "how often a SquareWave jumps must be known when a solve is compiled, but its period, its phase or the "
            "span is traced. Give `SquareWave(…, count=n)`, the most periods that the span may hold; or `land=False`."
        )


def periods(fit: bool, count: int | None, held: Any) -> None:
    if not fit:
        most = "a quarter of a million" if count is None else f"`count` = {count}"
        raise ValueError(
            f"the span holds {float(held):.6g} periods of a SquareWave, more than {most}. Give another `count`, or "
            f"`land=False`, which leaves the jumps to the error control."
        )
