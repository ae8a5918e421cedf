"""Small dense linear systems, factored once and solved often, in the way that is fastest for their size.

A call of LAPACK costs microseconds, more than a whole step of a small stiff system, and ends the kernel around it. So
up to `SCALAR` unknowns every entry is a scalar of its own, and up to `ROLLED` a loop over columns makes the inverse, of
so many systems at once as fit into a kernel; LAPACK does the rest. Both of ours pivot by rows and vectorise over
trailing axes. Measured by `benchmarks/linear_algebra.py`.

Source: Golub, Van Loan, Matrix Computations, 4th ed., 3.4 (partial pivoting); Higham, Accuracy and Stability of
Numerical Algorithms, 2nd ed., 14.4 (Gauss–Jordan elimination).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.scipy.linalg import lu_factor, lu_solve

from jaxdiffeq.primitives.cpu_kernel import ELEMENTS
from jaxdiffeq.primitives.varying_axes import vary_like

SCALAR = 4
ROLLED = 24

Factors = Any


def factor(w: jax.Array) -> Factors:
    """Factors of `w`, for `substitute`. A singular matrix gives infinities or NaN, never an error.

    Constant to differentiation: the derivative of a solution is that of its equation, see `structure.solve`.
    Shapes: w [n, n, *batch].
    """
    n, w = w.shape[0], lax.stop_gradient(w)
    if n <= SCALAR:
        return _factor_scalar(w)
    if n <= ROLLED:
        return _invert(w)
    return _Lapack(*lu_factor(jnp.moveaxis(w, (0, 1), (-2, -1))))


def substitute(factors: Factors, b: jax.Array, transpose: bool = False) -> jax.Array:
    """The solution x of w·x = b, or of wᵀ·x = b. Shapes: b [n, *batch]."""
    return factors.solve(b, transpose)


class _Scalar(NamedTuple):
    """P·w = L·U, entry by entry: multipliers below the diagonal, reciprocal pivots on it; and every row swap."""

    rows: tuple
    swaps: tuple

    def solve(self, b: jax.Array, transpose: bool) -> jax.Array:
        x = list(b)
        return jnp.stack(self._transposed(x) if transpose else self._plain(x))

    def _plain(self, x: list) -> list:
        n, lu = len(x), self.rows
        swaps = iter(self.swaps)
        for k in range(n):
            for i in range(k + 1, n):
                x[k], x[i] = _swap(next(swaps), x[k], x[i])
        for i in range(n):
            for j in range(i):
                x[i] = x[i] - lu[i][j] * x[j]
        for i in reversed(range(n)):
            for j in range(i + 1, n):
                x[i] = x[i] - lu[i][j] * x[j]
            x[i] = x[i] * lu[i][i]
        return x

    def _transposed(self, x: list) -> list:
        n, lu = len(x), self.rows
        for i in range(n):
            for j in range(i):
                x[i] = x[i] - lu[j][i] * x[j]
            x[i] = x[i] * lu[i][i]
        for i in reversed(range(n)):
            for j in range(i + 1, n):
                x[i] = x[i] - lu[j][i] * x[j]
        swaps = reversed(self.swaps)
        for k in reversed(range(n)):
            for i in reversed(range(k + 1, n)):
                x[k], x[i] = _swap(next(swaps), x[k], x[i])
        return x


def _swap(flag: jax.Array, a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.where(flag, b, a), jnp.where(flag, a, b)


def _factor_scalar(w: jax.Array) -> _Scalar:
    n = w.shape[0]
    rows, swaps = [list(row) for row in w], []
    for k in range(n):
        for i in range(k + 1, n):  # the largest entry rises to the pivot's place
            larger = jnp.abs(rows[i][k]) > jnp.abs(rows[k][k])
            pairs = [_swap(larger, a, b) for a, b in zip(rows[k], rows[i], strict=True)]
            rows[k], rows[i] = [a for a, _ in pairs], [b for _, b in pairs]
            swaps.append(larger)
        rows[k][k] = 1 / rows[k][k]
        for i in range(k + 1, n):
            rows[i][k] = rows[i][k] * rows[k][k]
            for j in range(k + 1, n):
                rows[i][j] = rows[i][j] - rows[i][k] * rows[k][j]
    return _Scalar(tuple(map(tuple, rows)), tuple(swaps))


class _Inverse(NamedTuple):
    """The inverse of w with its rows in another order; which row came to each place, and the other way round."""

    inverse: jax.Array
    order: jax.Array
    place: jax.Array

    def solve(self, b: jax.Array, transpose: bool) -> jax.Array:
        if transpose:
            return jnp.take_along_axis(jnp.sum(self.inverse * b[:, None], axis=0), self.place, axis=0)
        return jnp.sum(self.inverse * jnp.take_along_axis(b, self.order, axis=0)[None], axis=1)


@custom_vmap
def _invert(w: jax.Array) -> _Inverse:
    return _eliminate(w) if w.size <= ELEMENTS else _inverted(w)


@_invert.def_vmap
def _(_size: int, _batched: Any, w: jax.Array) -> tuple[_Inverse, Any]:
    found = jax.vmap(functools.partial(_eliminate, lanes=True) if w.size <= ELEMENTS else _inverted)(w)
    return found, jax.tree.map(lambda _: True, found)


def _inverted(w: jax.Array) -> _Inverse:
    """By LAPACK: solutions are then products, which are faster than its triangular solves."""
    w = jnp.moveaxis(w, (0, 1), (-2, -1))
    inverse = lu_solve(lu_factor(w), jnp.broadcast_to(jnp.eye(w.shape[-1], dtype=w.dtype), w.shape))
    inverse = jnp.moveaxis(inverse, (-2, -1), (0, 1))
    numbers = jnp.arange(inverse.shape[0], dtype=jnp.int32).reshape(-1, *[1] * (inverse.ndim - 2))
    order = jnp.broadcast_to(numbers, inverse.shape[1:])
    return _Inverse(inverse, order, order)


def _eliminate(w: jax.Array, lanes: bool = False) -> _Inverse:
    """Gauss–Jordan elimination in place: the largest entry of column k in a row without a pivot is its pivot.

    No rows change places meanwhile; at the end row k is the one that had pivot k, as the unknown k is found from it.
    A row at a place that differs from system to system, as it does in `lanes`, is a sum over all with a mask.
    """
    several = lanes or w.ndim > 2
    n, batch = w.shape[0], w.shape[2:]
    numbers = jnp.arange(n, dtype=jnp.int32).reshape(n, *[1] * len(batch))

    def eliminate(carry):
        k, w, free, order = carry
        column = lax.dynamic_index_in_dim(w, k, 1)
        height = jnp.where(free, jnp.abs(column[:, 0]), -1)
        top = jnp.max(height, axis=0, keepdims=True)
        p = jnp.min(jnp.where(height == top, numbers, n), axis=0, keepdims=True)  # NaN has none: then no row is it
        on_row, on_column = numbers == p, (numbers == k)[None]
        if several:
            row = jnp.sum(jnp.where(on_row[:, None], w, 0), axis=0, keepdims=True, dtype=w.dtype)
        else:
            row = lax.dynamic_index_in_dim(w, p[0], 0)
        pivot = lax.dynamic_index_in_dim(row, k, 1)
        row = jnp.where(on_column, 1, row) / pivot
        rest = jnp.where(on_column, 0, w) - column * row
        w = jnp.where(on_row[:, None], row, rest)
        return k + 1, w, free & ~on_row, jnp.where(numbers == k, p, order)

    free = jnp.ones(w.shape[:1] + batch, bool)
    start = jnp.zeros((), jnp.int32), w, *vary_like((free, jnp.broadcast_to(numbers, free.shape)), w)
    _, w, _, order = lax.while_loop(lambda c: c[0] < n, eliminate, start)
    place = jnp.sum(jnp.where(order[None] == numbers[:, None], numbers[None], 0), axis=1, dtype=jnp.int32)
    return _Inverse(jnp.take_along_axis(w, order[:, None], axis=0), order, place)


class _Lapack(NamedTuple):
    """As LAPACK gives them, batch axes first."""

    lu: jax.Array
    pivots: jax.Array

    def solve(self, b: jax.Array, transpose: bool) -> jax.Array:
        b = jnp.moveaxis(b, 0, -1)
        x = lu_solve((self.lu, self.pivots), b[..., None], trans=int(transpose))[..., 0]
        return jnp.moveaxis(x, -1, 0)
