"""States of any shape as vectors of real numbers, in which Newton's method and its matrices are at home."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def real_vector(y: jax.Array) -> jax.Array:
    """[*state] ↦ [n], or [2n] for complex numbers, real parts first: a function of them need not be holomorphic."""
    y = y.reshape(-1)
    return jnp.concatenate([y.real, y.imag]) if jnp.iscomplexobj(y) else y


def like(v: jax.Array, y: jax.Array) -> jax.Array:
    """The other way round: [n] or [2n] with the shape and the kind of y."""
    if not jnp.iscomplexobj(y):
        return v.reshape(y.shape)
    return lax.complex(v[: y.size], v[y.size :]).reshape(y.shape)


def spread(scale: jax.Array, y: jax.Array) -> jax.Array:
    """[*state] ↦ [n], or [2n]: an error of one in each number of the real vector of y."""
    scale = jnp.broadcast_to(scale, y.shape).reshape(-1)
    return jnp.concatenate([scale, scale]) if jnp.iscomplexobj(y) else scale


def real_size(y: jax.Array) -> int:
    """Of the real vector of y."""
    return y.size * (2 if jnp.iscomplexobj(y) else 1)
