"""Block diagonal and block tridiagonal systems, all blocks at once.

Cyclic reduction eliminates every other block row, which leaves a system of the same kind and half the size: 2·log₂
of the number of blocks operations, each on whole arrays, where a sweep from block to block would take thousands of
small ones. It pivots within blocks only, which is enough for c·M − J once the step resolves the coupling between them;
what it loses otherwise shows in the step's error or in Newton's convergence, and the step shrinks.

Source: Hockney, J. ACM 12 (1965) 95; Heller, SIAM J. Numer. Anal. 13 (1976) 484 (blocks, and when it is stable).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdiffeq.algebra import lu


class Blocks(NamedTuple):
    """low[..., i] x[i − 1] + mid[..., i] x[i] + up[..., i] x[i + 1] in block row i; None where no block has neighbours.

    Shapes: [k, k, blocks] each. The first low and the last up are zeros.
    """

    low: jax.Array | None
    mid: jax.Array
    up: jax.Array | None


class _Level(NamedTuple):
    """The even block rows, eliminated, and what the odd ones have to do with them."""

    even: Any
    before: jax.Array
    after: jax.Array
    low: jax.Array
    up: jax.Array


class Factors(NamedTuple):
    w: Blocks
    levels: tuple[_Level, ...]
    last: Any


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """[k, k, blocks] times [k, …, blocks]"""
    return jnp.sum((a if b.ndim == 2 else a[:, :, None]) * b[None], axis=1)


def _beside(x: jax.Array, by: int) -> jax.Array:
    """Block i + by at place i, zeros beyond the ends."""
    zeros = jnp.zeros_like(x[..., :1])
    return jnp.concatenate([zeros, x[..., :-1]] if by < 0 else [x[..., 1:], zeros], axis=-1)


def matrix_vector(w: Blocks, x: jax.Array) -> jax.Array:
    """Shapes: x [k, blocks] ↦ [k, blocks]."""
    total = _product(w.mid, x)
    if w.low is None or w.up is None:
        return total
    return total + _product(w.low, _beside(x, -1)) + _product(w.up, _beside(x, 1))


def transposed(w: Blocks) -> Blocks:
    mid = jnp.swapaxes(w.mid, 0, 1)
    if w.low is None or w.up is None:
        return Blocks(None, mid, None)
    return Blocks(_beside(jnp.swapaxes(w.up, 0, 1), -1), mid, _beside(jnp.swapaxes(w.low, 0, 1), 1))


def factor(w: Blocks) -> Factors:
    low, mid, up = w
    if low is None or up is None:
        return Factors(w, (), lu.factor(mid))
    levels = []
    while mid.shape[-1] > 1:
        low, mid, up = _even(low, 0.0), _even(mid, 1.0), _even(up, 0.0)
        even = lu.factor(mid[..., ::2])
        many = jax.vmap(lambda b, even=even: lu.substitute(even, b), in_axes=1, out_axes=1)
        before, after = many(low[..., ::2]), many(up[..., ::2])  # what the even ones take from their neighbours
        low, mid, up = low[..., 1::2], mid[..., 1::2], up[..., 1::2]
        levels.append(_Level(even, before, after, low, up))
        before_next, after_next = _beside(before, 1), _beside(after, 1)
        mid = mid - _product(low, after) - _product(up, before_next)
        low, up = -_product(low, before), -_product(up, after_next)
    return Factors(w, tuple(levels), lu.factor(mid))


def _even(x: jax.Array, diagonal: float) -> jax.Array:
    """With one block more, that stands alone, if their number is odd."""
    k, blocks = x.shape[0], x.shape[-1]
    if blocks % 2 == 0:
        return x
    return jnp.concatenate([x, (diagonal * jnp.eye(k, dtype=x.dtype))[:, :, None]], axis=-1)


def substitute(factors: Factors, b: jax.Array, transpose: bool = False) -> jax.Array:
    """Shapes: b [k, blocks] ↦ [k, blocks]."""
    if transpose and factors.levels:
        factors = factor(transposed(factors.w))
        transpose = False
    evens, sizes = [], []
    for level in factors.levels:
        sizes.append(b.shape[-1])
        b = b if b.shape[-1] % 2 == 0 else jnp.concatenate([b, jnp.zeros_like(b[:, :1])], axis=-1)
        x = lu.substitute(level.even, b[:, ::2])
        evens.append(x)
        b = b[:, 1::2] - _product(level.low, x) - _product(level.up, _beside(x, 1))
    x = lu.substitute(factors.last, b, transpose)
    for level, even, size in zip(reversed(factors.levels), reversed(evens), reversed(sizes), strict=True):
        even = even - _product(level.before, _beside(x, -1)) - _product(level.after, x)
        x = jnp.stack([even, x], axis=-1).reshape(x.shape[0], -1)[:, :size]
    return x
