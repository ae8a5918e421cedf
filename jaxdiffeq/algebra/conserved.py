"""Linear combinations of the unknowns that no solution of v′ = f(v) changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.primitives.varying_axes import vary_like

CANCELS = 512  # a sum is zero if it is at most so many units of rounding of what was added


class _At(NamedTuple):
    """Rows under elimination. Shapes: [n, m], [n, m], [n, n], [n]."""

    rows: jax.Array
    added: jax.Array
    """the sum of the moduli of what was added up in every entry"""
    weights: jax.Array
    """every row as a combination of those at first"""
    used: jax.Array


def conserved(algebra: Any, linearised: Callable, v: jax.Array) -> jax.Array:
    """The projector on all l with l·f(v) = 0 everywhere, zero if there are none. Shapes: [n] ↦ [n, n].

    `linearised(v)` is f and its Jacobian, [n, n], in this algebra. Such l are the left null vectors that f and its
    Jacobians at two places have in common.
    """
    spread = 0.1 + jnp.abs(jnp.sin(jnp.arange(1.0, v.size + 1, dtype=v.dtype)))
    elsewhere = v + 0.1 * spread * size_of(v)
    matrices, columns, added = [], [], []
    for place in (v, elsewhere):
        f, jacobian = linearised(place)
        matrices.append(jacobian)
        columns += [jacobian, f[:, None]]
        added += [jnp.abs(jacobian), jnp.abs(f[:, None]) + jnp.abs(jacobian) @ jnp.abs(place)[:, None]]
    columns, added = jnp.concatenate(columns, axis=1), jnp.concatenate(added, axis=1)
    finite = jnp.all(jnp.isfinite(columns), axis=0)
    columns, added = jnp.where(finite, columns, 0), jnp.where(finite, added, 0)
    nothing = jnp.zeros_like(matrices[0])
    sound = amplification(algebra, matrices[0], v) < jnp.finfo(v.dtype).eps ** -0.25
    return lax.cond(~sound, lambda: _projector(columns, added), lambda: nothing)


def size_of(v: jax.Array) -> jax.Array:
    """Of every component, none of which is nothing beside the largest."""
    largest = jnp.max(jnp.abs(v), initial=0)
    return jnp.abs(v) + 0.01 * jnp.where(largest > 0, largest, 1)


def amplification(algebra: Any, matrix: Any, v: jax.Array) -> jax.Array:
    """About what an error of one unit in every entry becomes in the solution of a system, whatever units the rows have.

    ‖A⁻¹ S|A|x/x‖ with generic signs S and x of the size of a state v: infinite or no number where A is singular; zero
    where a matrix is known by its products alone.
    Source: R. D. Skeel, J. ACM 26 (1979) 494, eq. (1.2).
    """
    unit = rounding_of(algebra, matrix, algebra.factor(matrix), size_of(v))
    return jnp.max(jnp.abs(unit) / size_of(v), initial=0) / jnp.finfo(v.dtype).eps


def rounding_of(algebra: Any, matrix: Any, factors: Any, v: jax.Array) -> jax.Array:
    """About what rounding leaves undecided in the solution v of a system, [n]; nothing where there are no entries."""
    if not algebra.stored:
        return jnp.zeros_like(v)
    rates = algebra.times(jax.tree.map(jnp.abs, matrix), jnp.abs(v))
    signs = jnp.cos(jnp.arange(1.0, v.size + 1, dtype=v.dtype) ** 2)  # any, so that nothing cancels
    return jnp.finfo(v.dtype).eps * algebra.solve(factors, signs * rates)


def _projector(columns: jax.Array, added: jax.Array) -> jax.Array:
    """On the left null space, by elimination with complete pivoting.

    What cancels is measured by what was added, entry by entry: rates that differ by ten orders of magnitude, which
    singular values could not tell from zero, are no smaller than rounding here.
    """
    n, m = columns.shape
    size = jnp.max(jnp.abs(columns), axis=1, keepdims=True)
    size = jnp.where(size > 0, size, 1)
    eps = CANCELS * jnp.finfo(columns.dtype).eps
    over = lambda x: jnp.broadcast_to(x[:, None], (n, m))

    def eliminate(_, at):
        counts = (jnp.abs(at.rows) > eps * at.added) & over(~at.used)
        i, j = jnp.divmod(jnp.argmax(jnp.where(counts, jnp.abs(at.rows) / size, -1)), m)
        found, pivot = counts[i, j], jnp.arange(n) == i
        touched = found & ~at.used & ~pivot
        factor = jnp.where(touched, at.rows[:, j] / jnp.where(found, at.rows[i, j], 1), 0)
        rows = at.rows - jnp.outer(factor, at.rows[i])
        return _At(
            jnp.where(over(touched) & (jnp.arange(m) == j)[None], 0, rows),
            at.added + jnp.outer(jnp.abs(factor), at.added[i]),
            at.weights - jnp.outer(factor, at.weights[i]),
            at.used | (pivot & found),
        )

    start = _At(columns, added, jnp.eye(n, dtype=columns.dtype), jnp.zeros(n, bool))
    last = lax.fori_loop(0, n, eliminate, vary_like(start, columns))
    lengths = jnp.where(last.used, jnp.inf, jnp.linalg.norm(last.weights, axis=1))
    free = last.weights / lengths[:, None]
    gram = free @ free.T + jnp.diag(last.used.astype(free.dtype))
    return free.T @ jnp.linalg.solve(gram, free)
