"""What everybody needs of an equation whose components need not all have a derivative: consistent values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.algebra.vectors import like, real_vector, spread
from jaxdiffeq.implicit.consistent import Consistent
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.types import PyTree


def make_consistent(
    f: VectorField, t: jax.Array, y: jax.Array, args: PyTree, tolerance: Any
) -> tuple[jax.Array, Consistent]:
    """y, [*state], with its algebraic part made consistent, as it was if it cannot be; and what was found."""
    scale = lax.stop_gradient(spread(tolerance.scale(y, y), y))
    found = f.on_vectors(y).consistent(t, real_vector(y), args, scale)
    return jnp.where(found.ok, like(found.v, y), y), found
