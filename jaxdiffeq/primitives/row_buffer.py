"""Buffers of rows, of which one is read or written at a time, in each lane its own.

JAX makes a scatter of a write whose row differs from lane to lane. No kernel takes a scatter, and one such write puts
a whole loop out of its kernel; in there a loop over the lanes costs next to nothing.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.primitives.cpu_kernel import IN_PLACE, OPERATIONS
from jaxdiffeq.primitives.jax_internals import (
    Zero,
    aval_of,
    define,
    instantiate_zeros,
    is_common,
    is_undefined_primal,
    plain_path,
)
from jaxdiffeq.primitives.varying_axes import axes_of, vary
from jaxdiffeq.types import PyTree


def rows(shapes: PyTree, count: int) -> PyTree:
    """Uninitialised buffers of `count` rows and a spare one."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count + 1, *x.shape), x.dtype), shapes)


def write(buffer: PyTree, row: jax.Array, values: PyTree, wanted: jax.Array) -> PyTree:
    """Put `values` in `row` of the buffers, or in the spare last row."""

    def put(b, v):
        return put_row(b, jnp.where(wanted, row, b.shape[0] - 1), v.astype(b.dtype))

    return jax.tree.map(put, buffer, values)


def read(buffer: PyTree, row: jax.Array) -> PyTree:
    return jax.tree.map(
        lambda b: lax.dynamic_index_in_dim(b, row, 0, keepdims=False, allow_negative_indices=False), buffer
    )


def put_row(buffer: jax.Array, row: jax.Array, value: jax.Array) -> jax.Array:
    """`buffer` with `value` in that row. Shapes: [rows, …], [], […] ↦ [rows, …]."""
    if value.size == 0:
        return vary(buffer, axes_of(row) | axes_of(value))
    return _bind(buffer, row, value, lanes=False)


def _bind(buffer: jax.Array, row: jax.Array, value: jax.Array, lanes: bool) -> jax.Array:
    axes = axes_of(buffer) | axes_of(row) | axes_of(value)
    operands = [vary(x, axes) for x in (buffer, row, value)]
    ours = not plain_path() and is_common(*map(jax.typeof, operands))
    return (put_row_p.bind if ours else _plain)(*operands, lanes=lanes, inside=None)


def _plain(buffer: jax.Array, row: jax.Array, value: jax.Array, *, lanes: bool, inside: str | None) -> jax.Array:
    put = functools.partial(lax.dynamic_update_index_in_dim, axis=0, allow_negative_indices=False)
    if not lanes:
        return put(buffer, value, row)
    if inside != "kernel":
        return jax.vmap(put)(buffer, value, row)

    def next_lane(at):
        i, buffer = at
        one = lax.dynamic_slice_in_dim(value, i, 1)[:, None]
        start = i, lax.dynamic_index_in_dim(row, i, keepdims=False), *[jnp.zeros_like(i)] * (buffer.ndim - 2)
        return i + 1, lax.dynamic_update_slice(buffer, one, start)

    return lax.while_loop(lambda at: at[0] < len(row), next_lane, (jnp.zeros((), row.dtype), buffer))[1]


def _batch(lanes_: Any, operands: Any, dims: Any, *, lanes: bool, inside: str | None) -> tuple[jax.Array, int]:
    if dims[1] is None and not lanes:  # one row for all lanes: they lie side by side in it
        buffer, value = (
            _moved(x, d, lanes_.size, to) for x, d, to in ((operands[0], dims[0], 1), (operands[2], dims[2], 0))
        )
        return _bind(buffer, operands[1], value, lanes=False), 1
    operands = [_moved(x, d, lanes_.size, 0) for x, d in zip(operands, dims, strict=True)]
    if not lanes:
        return _bind(*operands, lanes=True), 0
    flat = _bind(*(x.reshape(-1, *x.shape[2:]) for x in operands), lanes=True)
    return flat.reshape(lanes_.size, -1, *flat.shape[1:]), 0


def _moved(x: jax.Array, axis: int | None, size: int, to: int) -> jax.Array:
    if axis is not None:
        return jnp.moveaxis(x, axis, to)
    return jnp.broadcast_to(jnp.expand_dims(x, to), (*x.shape[:to], size, *x.shape[to:]))


def _jvp(primals: Any, tangents: Any, *, lanes: bool, inside: str | None) -> tuple:
    buffer, row, value = primals
    out = _bind(buffer, row, value, lanes)
    if all(type(d) is Zero for d in tangents[::2]):
        return out, tangents[0]
    d_buffer, d_value = (instantiate_zeros(d) for d in tangents[::2])
    return out, _bind(d_buffer, row, d_value, lanes)


def _transpose(bar: Any, buffer: Any, row: jax.Array, value: Any, *, lanes: bool, inside: str | None) -> tuple:
    if type(bar) is Zero:
        bars = bar, Zero(aval_of(value) if is_undefined_primal(value) else jax.typeof(value))
    else:
        taken = jax.vmap(read)(bar, row) if lanes else read(bar, row)
        bars = _bind(bar, row, jnp.zeros_like(taken), lanes), taken
    of_buffer, of_value = (b if is_undefined_primal(x) else None for b, x in zip(bars, (buffer, value), strict=True))
    return of_buffer, None, of_value


put_row_p = define(
    "put_row",
    _plain,
    abstract=lambda buffer, row, value, **_: buffer,
    jvp=_jvp,
    batch=_batch,
    transpose=_transpose,
    several=False,
)
OPERATIONS.add("put_row")
IN_PLACE.add("put_row")
