"""How a Brownian motion W enters an equation dy = a(t, y) dt + b(t, y) dW: the shape of W, and what b·x is."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

NAMES = ("diagonal", "scalar", "additive", "commutative", "general")


@dataclass(frozen=True)
class Kind:
    """By the name that the user gave. Shapes: b is [*state, m] with `columns` m, else [*state]."""

    name: str
    columns: int | None = None

    @property
    def additive(self) -> bool:
        """b does not depend on y."""
        return self.name == "additive"

    @property
    def commutes(self) -> bool:
        """No Lévy area is needed for strong order one: Σ b^{ij}∂b^k/∂yᵢ = Σ b^{ik}∂b^j/∂yᵢ."""
        return self.name != "general"

    def shape(self, state: tuple[int, ...]) -> tuple[int, ...]:
        """Of W: as many numbers as y for its own each, one for all, or m."""
        return () if self.name == "scalar" else state if self.columns is None else (self.columns,)

    def times(self, b: jax.Array, x: jax.Array) -> jax.Array:
        """b·x, [*state]."""
        return b * x.astype(b.dtype) if self.columns is None else jnp.tensordot(b, x.astype(b.dtype), 1)

    def matrix(self, b: jax.Array) -> jax.Array:
        """b with a column for every component of W, [*state, m]."""
        if self.columns is not None:
            return b
        if self.name == "scalar":
            return b[..., None]
        return jnp.diag(b.reshape(-1)).reshape(*b.shape, b.size)
