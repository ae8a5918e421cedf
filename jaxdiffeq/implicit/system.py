"""What implicit steppers share: the state as a vector, its equation, and the linear systems of a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.algebra import structure
from jaxdiffeq.algebra.krylov import Krylov, MatrixFree
from jaxdiffeq.implicit.consistent import Consistent, consistent, moving
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.types import PyTree


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


def velocity(f: VectorField, t: jax.Array, y: jax.Array, args: PyTree) -> jax.Array:
    """dy/dt, [*state], which is f only where there is no mass matrix."""
    return f(t, y, args) if f.is_slope else like(System(f.whole, y).derivative(t, real_vector(y), args), y)


def make_consistent(
    f: VectorField, t: jax.Array, y: jax.Array, args: PyTree, tolerance: Any
) -> tuple[jax.Array, Consistent]:
    """y, [*state], with its algebraic part made consistent, as it was if it cannot be; and what was found."""
    scale = lax.stop_gradient(spread(tolerance.scale(y, y), y))
    found = System(f, y).consistent(t, real_vector(y), args, scale)
    return jnp.where(found.ok, like(found.v, y), y), found


@dataclass(frozen=True)
class System:
    """M·dv/dt = f(t, v), or F(t, v, dv/dt) = 0, on real vectors, of a field with its args.

    Whatever of `field` and `args` is differentiable goes in through `args` alone.
    """

    field: VectorField
    y: jax.Array
    """any state: its shape and dtype are what matters"""

    @property
    def size(self) -> int:
        return self.y.size * (2 if jnp.iscomplexobj(self.y) else 1)

    @property
    def algebra(self) -> Any:
        """That of the field's structure, or of no structure."""
        chosen = self.field.structure
        if isinstance(chosen, MatrixFree):
            return Krylov(chosen, self.slope, None if chosen.preconditioner is None else self._precondition)
        chosen = structure.Dense() if chosen is None else chosen
        if jnp.iscomplexobj(self.y):
            chosen = structure.of_complex(chosen, self.y.size)
        return chosen.bind(self.size)

    def _precondition(self, t: jax.Array, v: jax.Array, args: PyTree, c: jax.Array, x: jax.Array) -> jax.Array:
        given = self.field.structure.preconditioner
        return real_vector(given(t, like(v, self.y), args, c.astype(self.y.dtype), like(x, self.y)))

    def mass(self, args: PyTree) -> jax.Array | None:
        mass = None if self.field.mass is None else self.field.mass(args)
        if mass is None or not jnp.iscomplexobj(self.y):
            return mass
        if mass.ndim == 1:
            return jnp.concatenate([mass, mass])
        return jnp.kron(jnp.eye(2, dtype=mass.dtype), mass)

    def slope(self, t: jax.Array, v: jax.Array, args: PyTree) -> jax.Array:
        """f(t, v)."""
        return real_vector(self.field(t, like(v, self.y), args))

    def jacobian(self, t: jax.Array, v: jax.Array, args: PyTree) -> tuple[jax.Array, Any]:
        """f(t, v) and ∂f/∂v."""
        if isinstance(self.algebra, Krylov):
            return self.algebra.at(t, v, args)
        given = self.field.jacobian
        if given is None or jnp.iscomplexobj(self.y):
            return self.algebra.jacobian(lambda v: self.slope(t, v, args), v)
        return self.slope(t, v, args), self.algebra.given(given(t, like(v, self.y), args))

    def defect(self, t: jax.Array, v: jax.Array, dv: jax.Array, args: PyTree) -> jax.Array:
        """f(t, v) − M·dv, or −F(t, v, dv): zero along the solution."""
        residual = self.field.residual
        if residual is None:
            return self.slope(t, v, args) - structure.times_mass(self.mass(args), dv)
        return -real_vector(residual(t, like(v, self.y), like(dv, self.y), args))

    def inertia(self, t: jax.Array, v: jax.Array, args: PyTree, x: jax.Array) -> jax.Array:
        """M·x, or ∂F/∂dv·x at rest."""
        if self.field.residual is None:
            return structure.times_mass(self.mass(args), x)
        return -jax.jvp(lambda dv: self.defect(t, v, dv, args), (jnp.zeros_like(v),), (x,))[1]

    def tangent(self, t: jax.Array, v: jax.Array, dv: jax.Array, c: jax.Array, args: PyTree) -> Any:
        """What makes `matrix`: ∂f/∂v, whatever `c` and `dv`; or −(∂F/∂v + c·∂F/∂dv)."""
        if self.field.residual is None:
            return self.jacobian(t, v, args)[1]
        return self.algebra.jacobian(lambda z: self.defect(t, v + z, dv + c * z, args), jnp.zeros_like(v))[1]

    def linear(
        self, t: jax.Array, v: jax.Array, dv: jax.Array, args: PyTree
    ) -> tuple[Any, structure.Mass | structure.Entries]:
        """∂f/∂v and M, whatever `dv`; or −∂F/∂v and ∂F/∂dv."""
        if self.field.residual is None:
            return self.jacobian(t, v, args)[1], self.mass(args)
        of_state = self.algebra.jacobian(lambda v: self.defect(t, v, dv, args), v)[1]
        of_slope = self.algebra.jacobian(lambda dv: -self.defect(t, v, dv, args), dv)[1]
        return of_state, structure.Entries(of_slope)

    def matrix(self, c: jax.Array, args: PyTree, tangent: Any) -> Any:
        """c·M − ∂f/∂v, or ∂F/∂v + c·∂F/∂dv: of Newton's method where dv = c·v + constant."""
        if self.field.residual is None:
            return self.algebra.shifted(c, self.mass(args), tangent)
        return self.algebra.shifted(jnp.zeros_like(c), None, tangent)

    def derivative(self, t: jax.Array, v: jax.Array, args: PyTree) -> jax.Array:
        """dv/dt where M may be singular: M v′ = f on the rows of M, d/dt f = 0 on those without.

        That is the limit of W v′ = c·f + ∂f/∂t, W = c·M − J, for large c and a state that satisfies the algebraic
        equations. What is left of these at the end of a step must not be multiplied by c: c·M·W⁻¹·f in place of f has
        nothing there, and is f elsewhere, as after a correction of the state by Newton's method.
        """
        if self.field.residual is not None:
            return moving(self, t, v, self.consistent(t, v, args, jnp.full_like(v, jnp.inf)).slope, args)
        algebra = self.algebra
        f, jacobian = self.jacobian(t, v, args)
        _, df_dt = jax.jvp(lambda t: self.slope(t, v, args), (t,), (jnp.ones_like(t),))
        mass = self.mass(args)
        heaviest = jnp.ones((), v.dtype) if mass is None else jnp.max(jnp.abs(mass)).astype(v.dtype)
        ratio = structure.magnitude(algebra, jacobian) / jnp.where(heaviest > 0, heaviest, 1)
        c = lax.stop_gradient(jnp.where(ratio > 0, ratio, 1) / jnp.sqrt(jnp.finfo(v.dtype).eps))
        w = algebra.shifted(c, mass, jacobian)
        factors = algebra.factor(lax.stop_gradient(w))
        pushed = c * structure.times_mass(mass, structure.solve(algebra, w, factors, f))
        return structure.solve(algebra, w, factors, c * pushed + df_dt)

    def consistent(self, t: jax.Array, v: jax.Array, args: PyTree, scale: jax.Array) -> Consistent:
        """v with its algebraic part changed such that it satisfies the equation with some dv/dt."""
        guess = self.field.guess
        dv = jnp.zeros_like(v) if guess is None else real_vector(guess(args))
        return consistent(self, t, v, dv, args, scale)
