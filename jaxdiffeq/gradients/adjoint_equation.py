"""The three kinds of equations as a continuous adjoint sees them: dy/dt = f, M·dy/dt = f, and F(t, y, dy/dt) = 0.

Written as E·dδy/dt = J·δy + G·δθ along the solution. Times `t` are on the right side of a stop already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from jaxdiffeq.algebra.structure import times_mass
from jaxdiffeq.gradients.algebraic import AlgebraicAdjoint
from jaxdiffeq.implicit.system import velocity
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.types import PyTree


@dataclass(frozen=True)
class OfSlope:
    """dy/dt = f. Shapes: t [], all others [*state], but of the parameters θ."""

    field: VectorField
    fill: Callable[[list], PyTree]
    """θ ↦ args"""
    theta: list

    plain = True

    def velocity(self, t: jax.Array, y: jax.Array) -> jax.Array:
        """dy/dt."""
        return velocity(self.field, t, y, self.fill(self.theta))

    def inertia(self, t: jax.Array, y: jax.Array, dy: Any, lam: jax.Array) -> jax.Array:
        """Eᵀλ."""
        return lam

    def pulled(self, t: jax.Array, y: jax.Array, dy: Any, lam: jax.Array, theta: bool) -> tuple:
        """f, Jᵀλ, and Gᵀλ if wanted."""
        if not theta:
            f, pull = jax.vjp(lambda y: self._balance(t, y, dy, self.theta), y)
            return f, *pull(lam), []
        f, pull = jax.vjp(lambda y, theta: self._balance(t, y, dy, theta), y, self.theta)
        return f, *pull(lam)

    def adjoint(self, t: jax.Array, y: jax.Array, dy: Any, pull: Callable | None = None) -> AlgebraicAdjoint:
        """The adjoint equation at an instant, with `pull` in place of λ ↦ Jᵀλ if it is given."""
        pull = pull or (lambda lam: self.pulled(t, y, dy, lam, False)[1])
        return AlgebraicAdjoint.of(lambda lam: self.inertia(t, y, dy, lam), pull, y, self._diagonal)

    @property
    def _diagonal(self) -> bool:
        return True

    def _balance(self, t: jax.Array, y: jax.Array, dy: Any, theta: list) -> jax.Array:
        """What has the derivatives J and G."""
        return self.field(t, y, self.fill(theta))


@dataclass(frozen=True)
class OfMass(OfSlope):
    """M·dy/dt = f, M constant."""

    mass: jax.Array
    varies: bool
    """M is one of the parameters"""

    plain = False

    def inertia(self, t: jax.Array, y: jax.Array, dy: Any, lam: jax.Array) -> jax.Array:
        return _times(self.mass if self.mass.ndim == 1 else self.mass.T, lam)

    @property
    def _diagonal(self) -> bool:
        return self.mass.ndim == 1

    def pulled(self, t: jax.Array, y: jax.Array, dy: Any, lam: jax.Array, theta: bool) -> tuple:
        return super().pulled(t, y, self.velocity(t, y) if theta and self.varies else None, lam, theta)

    def _balance(self, t: jax.Array, y: jax.Array, dy: Any, theta: list) -> jax.Array:
        f = super()._balance(t, y, dy, theta)
        if dy is None:
            return f
        assert self.field.mass is not None
        return f - _times(self.field.mass(self.fill(theta)) - self.mass, dy)  # zero, but not its derivative


@dataclass(frozen=True)
class OfResidual(OfSlope):
    """F(t, y, dy/dt) = 0."""

    plain = False

    def inertia(self, t: jax.Array, y: jax.Array, dy: Any, lam: jax.Array) -> jax.Array:
        _, pull = jax.vjp(lambda dy: self._zero(t, y, dy, self.theta), dy)
        return pull(lam)[0]

    @property
    def _diagonal(self) -> bool:
        return False

    def _balance(self, t: jax.Array, y: jax.Array, dy: Any, theta: list) -> jax.Array:
        return -self._zero(t, y, dy, theta)

    def _zero(self, t: jax.Array, y: jax.Array, dy: Any, theta: list) -> jax.Array:
        assert self.field.residual is not None
        return self.field.residual(t, y, dy, self.fill(theta))


def _times(mass: jax.Array, y: jax.Array) -> jax.Array:
    return times_mass(mass.astype(y.dtype), y.reshape(-1)).reshape(y.shape)
