"""Where a number lies among many that are sorted, in a time that hardly depends on how many they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.primitives.row_buffer import read

GUESSES = 2  # where the number lies if all are equally spaced, and if those from there on are
WINDOW = 8  # how many are looked at around the last guess
FEW = 32  # up to so many, to look at all of them is faster


def count_until(rows: jax.Array, x: jax.Array, direction: jax.Array | float = 1.0) -> jax.Array:
    """How many of `rows` are ≤ x, where they increase; ≥ x where they decrease, and `direction` is −1.

    Shapes: [n], [] ↦ [], an int32. Constant to differentiation.
    """
    n = rows.shape[0]
    rows, x, direction = lax.stop_gradient((rows, x, jnp.asarray(direction, x.dtype)))
    if n <= FEW:
        return jnp.sum(direction * rows.astype(x.dtype) <= direction * x, dtype=jnp.int32)
    span = (rows[-1] - rows[0]).astype(x.dtype)
    density = jnp.where(span == 0, 0, (n - 1) / jnp.where(span == 0, 1, span))
    near = jnp.zeros((), jnp.int32)
    for _ in range(GUESSES):
        ahead = (x - read(rows, near).astype(x.dtype)) * density
        near = jnp.clip(near.astype(x.dtype) + ahead, 0, n - 1).astype(jnp.int32)
    start = jnp.clip(near + 1 - WINDOW // 2, 0, n - WINDOW)
    passed = direction * lax.dynamic_slice_in_dim(rows, start, WINDOW).astype(x.dtype) <= direction * x
    within = (passed[0] | (start == 0)) & (~passed[-1] | (start == n - WINDOW))
    count = start + jnp.sum(passed, dtype=jnp.int32)
    return lax.cond(within, lambda: count, lambda: _halving(rows, x, direction))


def _halving(rows: jax.Array, x: jax.Array, direction: jax.Array) -> jax.Array:
    def halve(_, ends):
        low, high = ends  # the first `low` have been passed, that numbered `high` has not
        middle = (low + high) // 2
        passed = direction * read(rows, middle).astype(x.dtype) <= direction * x
        passed &= low < high
        return jnp.where(passed, middle + 1, low), jnp.where(passed, high, middle)

    n = rows.shape[0]
    ends = jnp.zeros((), jnp.int32), jnp.full((), n, jnp.int32)
    return lax.fori_loop(0, n.bit_length(), halve, ends)[0]
