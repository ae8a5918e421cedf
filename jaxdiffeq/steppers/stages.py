"""Stages as a loop that is written out, except inside of kernels: see `scan`.

There, the program of one stage serves all of them: it compiles two to four times as fast as a step written out, and so
does its derivative, which runs no slower. A step that nothing is differentiated through is a little faster written out.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Of all stages, the latest first, with zeros for those to come: each stage finds them in the same places.
Slopes = tuple[jax.Array, ...]


def nothing_yet(stages: int, like: jax.Array) -> Slopes:
    return (jnp.zeros_like(like),) * stages


def table(rows: Sequence[Sequence[float]], stages: int, dtype: Any) -> tuple[np.ndarray, ...]:
    """Some rows of a tableau, each with its last entry first, filled up with zeros: `stages` columns [len(rows)]."""
    filled = [[*reversed(row), *[0.0] * (stages - len(row))] for row in rows]
    return tuple(np.array(filled, dtype).reshape(-1, stages).T)


def combined(weights: Sequence[jax.Array], slopes: Slopes) -> jax.Array:
    """Σᵢ weightsᵢ slopesᵢ."""
    return functools.reduce(operator.add, [w * k for w, k in zip(weights, slopes, strict=True)])


def push(slopes: Slopes, latest: jax.Array) -> Slopes:
    return latest, *slopes[:-1]


def in_order(slopes: Slopes) -> list[jax.Array]:
    return list(reversed(slopes))
