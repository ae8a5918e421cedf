"""The Brownian path that a solve has used, to be looked at."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Realised:
    """W(t) for t from t₀ to t₁, zero at t₀. `size` is that of equal steps, NaN where there are none."""

    known: Any
    t0: jax.Array
    t1: jax.Array
    size: jax.Array
    path: Any = field(metadata={"static": True})

    def __call__(self, t: Any) -> jax.Array:
        """Shapes: t any, [*t, *noise] comes back."""
        return _at(self, t)


@functools.partial(jax.jit)
def _at(realised: Realised, t: Any) -> jax.Array:
    t = jnp.asarray(t).astype(realised.t0.dtype)
    span = realised.t0, realised.t1

    def one(at):
        w = realised.path.at(span, realised.size, at, realised.known)
        return jnp.where((at >= jnp.minimum(*span)) & (at <= jnp.maximum(*span)), w, jnp.nan)

    found = jax.vmap(one)(t.reshape(-1))
    return found.reshape(*t.shape, *found.shape[1:])
