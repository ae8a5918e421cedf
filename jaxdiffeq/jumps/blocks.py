"""Many numbers in blocks, of which the sum or the smallest is known: to change one touches its block alone.

Each block is summed anew when one of its numbers changes, so that no rounding is carried along.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.primitives.row_buffer import put_row
from jaxdiffeq.primitives.while_loop import frozen_while


def at(x: jax.Array, i: jax.Array) -> jax.Array:
    return lax.dynamic_index_in_dim(x, i, 0, keepdims=False, allow_negative_indices=False)


def known(*numbers: jax.Array) -> Any:
    """These, computed before anything is written that they are read from: else a compiler copies what is written."""
    return lax.optimization_barrier(numbers)


def total(row: jax.Array) -> jax.Array:
    """The sum, by eight that do not wait for each other. Shapes: [a multiple of 8] ↦ []."""
    return row.reshape(-1, 8).sum(0).sum()


def smallest(row: jax.Array) -> jax.Array:
    return row.reshape(-1, 8).min(0).min()


class Blocks(NamedTuple):
    """Shapes: values [blocks, size], of the numbers one after the other and `fill` in what is left; tops [blocks]."""

    values: jax.Array
    tops: jax.Array

    @staticmethod
    def of(x: jax.Array, least: bool = False) -> Blocks:
        """Of the sums, or of the smallest numbers."""
        size = max(8, 8 * math.ceil(math.sqrt(len(x)) / 8))
        count = math.ceil(len(x) / size)
        fill = jnp.full(count * size - len(x), jnp.inf if least else 0, x.dtype)
        values = jnp.concatenate([x, fill]).reshape(count, size)
        return Blocks(values, values.min(1) if least else values.sum(1))

    @property
    def size(self) -> np.int32:
        return np.int32(self.values.shape[1])

    def put(self, i: jax.Array, value: jax.Array, least: bool = False) -> Blocks:
        block, place = i // self.size, i % self.size
        here = jnp.arange(self.values.shape[1], dtype=jnp.int32) == place
        row = jnp.where(here, value, at(self.values, block))
        row, top = known(row, smallest(row) if least else total(row))
        return Blocks(put_row(self.values, block, row), put_row(self.tops, block, top))

    def get(self, i: jax.Array) -> jax.Array:
        return lax.dynamic_slice(self.values, (i // self.size, i % self.size), (1, 1))[0, 0]

    def find(self, v: jax.Array) -> jax.Array:
        """The number i with x₀ + … + xᵢ₋₁ ≤ v < x₀ + … + xᵢ, whose xᵢ is not zero."""
        block, v = search(self.tops, v)
        place, _ = search(at(self.values, block), v)
        return block * self.size + place

    def least(self) -> tuple[jax.Array, jax.Array]:
        """The smallest one, and where it is."""
        top = self.tops.min()
        block = where_first(self.tops == top)
        return top, block * self.size + where_first(at(self.values, block) == top)


def where_first(flags: jax.Array) -> jax.Array:
    numbers = jnp.arange(len(flags), dtype=jnp.int32)
    return jnp.where(flags, numbers, np.int32(len(flags) - 1)).min()


def search(x: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first i with v < x₀ + … + xᵢ, or, by rounding, the last one whose xᵢ is not zero; and v − x₀ − … − xᵢ₋₁."""
    last = np.int32(len(x) - 1)

    def beyond(c: tuple, _: Any) -> jax.Array:
        return (c[0] < last) & (c[1] >= at(x, c[0]))

    def step(c: tuple, _: Any) -> tuple:
        i, left, found = c
        here = at(x, i)
        go = (i < last) & (left >= here)
        found = jnp.where(go & (here > 0), i, found)
        return (jnp.where(go, i + 1, i), jnp.where(go, left - here, left), found), ()

    zero = jnp.zeros((), jnp.int32)
    (i, left, found), _ = frozen_while(beyond, step, (zero, v, zero), ())
    spent = (left >= at(x, i)) | (at(x, i) <= 0)
    return jnp.where(spent, found, i), jnp.where(spent, left * 0, left)
