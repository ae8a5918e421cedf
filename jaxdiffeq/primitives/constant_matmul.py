"""A constant matrix times a few rows of any shape, as a step has them: its stages, its past.

As a product summed over an axis it would be one operation too, but XLA's CPU backend leaves a sum of 4096 numbers and
more to a library, which takes up to ten times as long as additions do where the axis is short, and which no kernel can
call; the derivative of a matrix with the rows set beside it has such a sum as well. So this adds term by term, and its
transpose does.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.primitives.cpu_kernel import OPERATIONS
from jaxdiffeq.primitives.jax_internals import Zero, aval_of, define, is_common, plain_path, symbolic_zero


def constant_matmul(matrix: Any, rows: jax.Array) -> jax.Array:
    """Σⱼ matrix[i][j] rows[j] for every i. Shapes: [p, m], [m, …] ↦ [p, …]; a matrix [m] counts as [1, m]."""
    matrix = tuple(map(tuple, np.atleast_2d(matrix).tolist()))
    ours = not plain_path() and is_common(jax.typeof(rows))
    return (constant_matmul_p.bind if ours else _plain)(rows, matrix=matrix, apart=False)


def total(rows: jax.Array) -> jax.Array:
    """Σⱼ rows[j]. Shapes: [m, …] ↦ […]."""
    return constant_matmul(np.ones(len(rows)), rows)[0]


def blend(weights: jax.Array, rows: jax.Array) -> jax.Array:
    """Σⱼ weights[j] rows[j], with weights that vary. Shapes: [m, …] and [m, …], each [m] made to fit the other."""
    return functools.reduce(operator.add, [w * row for w, row in zip(list(weights), list(rows), strict=True)])


def _plain(rows: jax.Array, *, matrix: tuple, apart: bool) -> jax.Array:
    table = np.asarray(matrix, rows.dtype)
    columns = table.T.reshape(*table.T.shape, *[1] * (rows.ndim - 1))
    terms = [column * rows[j][None] for j, column in enumerate(columns) if column.any()]
    out = functools.reduce(operator.add, terms) if terms else jnp.zeros((len(table), *rows.shape[1:]), rows.dtype)
    return lax.optimization_barrier(out) if apart else out


def _jvp(primals: Any, tangents: Any, **how: Any) -> tuple:
    out, (d,) = constant_matmul_p.bind(*primals, **how), tangents
    return out, symbolic_zero(out) if type(d) is Zero else constant_matmul_p.bind(d, **how)


def _batch(lanes: Any, operands: Any, dims: Any, **how: Any) -> tuple[jax.Array, int]:
    (rows,), (axis,) = operands, dims
    return constant_matmul_p.bind(jnp.moveaxis(rows, 0, 1) if axis == 0 else rows, **how), max(axis, 1)


def _transpose(bar: Any, rows: Any, *, matrix: tuple, apart: bool) -> list:
    """What comes out is taken apart again, into the cotangent of each row: without a fence XLA computes all of it for
    every one of them, and a gradient by Vern7 takes twice as long to compile."""
    back = tuple(zip(*matrix, strict=True))
    return [Zero(aval_of(rows)) if type(bar) is Zero else constant_matmul_p.bind(bar, matrix=back, apart=True)]


constant_matmul_p = define(
    "constant_matmul",
    _plain,
    abstract=lambda rows, matrix, apart: rows.update(shape=(len(matrix), *rows.shape[1:])),
    jvp=_jvp,
    batch=_batch,
    transpose=_transpose,
    several=False,
)
OPERATIONS.add("constant_matmul")
