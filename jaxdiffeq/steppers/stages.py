"""Stages in turn: written out, or as one loop for a smaller program.

The loop is written out in turn except inside of kernels, see `scan`. There, the program of one stage serves all of
them: it compiles two to four times as fast as a step written out, and so does its derivative, which runs no slower. A
step that nothing is differentiated through is a little faster written out, with no operation for a zero of the tableau.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.engine.interpolant import combine
from jaxdiffeq.primitives.scan import scan

# Of all stages, the latest first, with zeros for those to come: each stage finds them in the same places.
Slopes = tuple[jax.Array, ...]


def nothing_yet(stages: int, like: jax.Array) -> Slopes:
    return (jnp.zeros_like(like),) * stages


def table(rows: Sequence[Sequence[float]], stages: int, dtype: Any) -> tuple[np.ndarray, ...]:
    """Some rows of a tableau, each with its last entry first, filled up with zeros: `stages` columns [len(rows)]."""
    filled = [[*reversed(row), *[0.0] * (stages - len(row))] for row in rows]
    return tuple(np.array(filled, dtype).reshape(-1, stages).T)


def combined(weights: Sequence[jax.Array], slopes: Slopes) -> jax.Array:
    """Σᵢ weightsᵢ slopesᵢ, computed once: without a fence XLA does so for each number that f makes of it."""
    terms = [w * k for w, k in zip(weights, slopes, strict=True)]
    return lax.optimization_barrier(functools.reduce(operator.add, terms))


def put_first(slopes: Slopes, latest: jax.Array) -> Slopes:
    return latest, *slopes[:-1]


def in_order(slopes: Slopes) -> list[jax.Array]:
    return list(reversed(slopes))


Numbers = tuple[Sequence[float], Any]  # one for each stage, and the dtype they have in a loop


def in_turn(
    stage: Callable, first: Sequence[jax.Array], numbers: Sequence[Numbers], triangles: Sequence, form: Any
) -> tuple[list[jax.Array], Any]:
    """The first k and then kᵢ, what else a stage gives = stage(i, its numbers, its sums); the k, and the rest of each.

    A sum is a function () ↦ Σⱼ rows[i][j] kⱼ, j < i, for each of the `triangles`, None where there is nothing to add.
    In a loop, which the `form` of the method says, all stages are alike, i is None and every sum is there.
    """
    given, n = len(first), len(triangles[0])
    if not form.looped:
        done, rest = list(first), []
        for i in range(given, n):
            sums = [functools.partial(_written_out, rows[i][:i], done) for rows in triangles]
            k, more = stage(i, [x[i] for x, _ in numbers], sums)
            done, rest = [*done, k], [*rest, more]
        return done, rest

    def trip(done, row):
        its_own, weights = row
        k, more = stage(None, its_own, [functools.partial(combined, w, done) for w in weights])
        return put_first(done, k), more

    below = lambda rows: table([row[:i] for i, row in enumerate(rows)][given:], n, first[0].dtype)
    rows = [np.array(x[given:], dtype) for x, dtype in numbers], [below(rows) for rows in triangles]
    before = functools.reduce(put_first, first, nothing_yet(n, first[0]))
    done, rest = scan(trip, before, rows, written_out=not form.rolled)
    return in_order(done), rest


def _written_out(weights: Sequence[float], done: list[jax.Array]) -> jax.Array | None:
    return combine(weights, done) if any(weights) else None
