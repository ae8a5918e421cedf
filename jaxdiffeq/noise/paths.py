"""Where the increments of a Brownian motion come from: a key and the number of the step, a tree, or the user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxdiffeq.algebra.norm import safe_sqrt
from jaxdiffeq.types import Context, Increment


class Path(Protocol):
    """A Brownian motion of which steps take increments; `known` is what of it is not static: a key's data, say."""

    def over(self, where: Context, t0: jax.Array, t1: jax.Array, known: Any, /) -> Increment:
        """From t0 to t1, both ends of a step."""
        ...

    def within(self, where: Context, ends: tuple[jax.Array, jax.Array], t: jax.Array, known: Any, /) -> Increment:
        """From the first of `ends`, those of a step, to a time t between them; of the same path."""
        ...


@dataclass(frozen=True)
class Counted:
    """Increments drawn by the number of the step: no memory, and the path depends on the steps.

    Shapes: those of W; the key's data in `known`.
    """

    shape: tuple[int, ...]
    dtype: Any
    impl: str

    def key(self, where: Context, known: Any) -> jax.Array:
        return jax.random.fold_in(jax.random.wrap_key_data(known, impl=self.impl), where.number)

    def over(self, where: Context, t0: jax.Array, t1: jax.Array, known: Any) -> Increment:
        key = self.key(where, known)
        normal = jax.random.normal(key, (2, *self.shape), self.dtype)
        size = safe_sqrt(jnp.abs(t1 - t0)).astype(self.dtype)
        return Increment(size * normal[0], size * normal[1] / jnp.sqrt(12.0).astype(self.dtype), key)

    def within(self, where: Context, ends: tuple[jax.Array, jax.Array], t: jax.Array, known: Any) -> Increment:
        raise NotImplementedError
