"""How large an array is."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def rms(x: jax.Array) -> jax.Array:
    """Root mean square of the moduli, the norm of Hairer, Nørsett and Wanner."""
    return jnp.sqrt(mean_square(x))


def mean_square(x: jax.Array) -> jax.Array:
    squares = jnp.real(x * jnp.conj(x)) if jnp.iscomplexobj(x) else x * x
    return jnp.sum(squares) / max(x.size, 1)


def safe_sqrt(x: jax.Array) -> jax.Array:
    """√x, whose derivative at zero is zero: there a size has none, and √ an infinite one."""
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))
