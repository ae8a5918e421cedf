"""The adjoint of E·dδy/dt = J·δy with E = M or ∂F/∂(dy/dt), J = ∂f/∂y or −∂F/∂y: d(Eᵀλ)/dt = −Jᵀλ, of index 1 as well.

On the null space of Eᵀ, on which Q projects, λ follows from the rest of it: it is orthogonal to what J maps there from
the null space of E. A cotangent of y is Eᵀa − Jᵀb with b = Q·b: a goes on as λ, and b is felt by what f depends on, as
0 = bᵀ(J·dy + ∂f/∂θ·dθ) along the algebraic equations.
Source: Cao, Li, Petzold, Serban 2003, doi:10.1137/S1064827501380630.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdiffeq.algebra import structure
from jaxdiffeq.implicit.consistent import projector
from jaxdiffeq.implicit.system import like, real_vector
from jaxdiffeq.primitives.varying_axes import vary_like


class AlgebraicAdjoint(NamedTuple):
    """Eᵀ, Jᵀ and Q. Shapes: all [n, n], of the real vector of y."""

    inertia: jax.Array
    pull: jax.Array
    q: jax.Array

    @staticmethod
    def of(inertia: Callable, pull: Callable, y: jax.Array, diagonal: bool = False) -> AlgebraicAdjoint:
        """From λ ↦ Eᵀλ and λ ↦ Jᵀλ on cotangents of y, [*state]; `diagonal` if E is known to be."""
        e, j = _matrix(inertia, y), _matrix(pull, y)
        return AlgebraicAdjoint(e, j, jnp.diag((jnp.diagonal(e) == 0).astype(e.dtype)) if diagonal else projector(e))

    def split(self, y: jax.Array, bar: jax.Array) -> tuple[jax.Array, jax.Array]:
        """a and b of a cotangent of y. Shapes: [*state]."""
        x = self._solve(_real(bar))
        b = self.q @ x
        return _cotangent(x - b, y), _cotangent(b, y)

    def completed(self, y: jax.Array, lam: jax.Array) -> jax.Array:
        """λ, with its part on the null space of Eᵀ such that it satisfies the adjoint equation. Shapes: [*state].

        Where E moves, dEᵀ/dt belongs to Jᵀ here.
        """
        v = _real(lam)
        return _cotangent(v + self.q @ self._solve(self.pull @ v), y)

    def _solve(self, r: jax.Array) -> jax.Array:
        """x of (Eᵀ − Jᵀ·Q)·x = r."""
        dense = structure.Dense()
        matrix = self.inertia - self.pull @ self.q
        return structure.solve(dense, matrix, dense.factor(jax.lax.stop_gradient(matrix)), r)


def _matrix(linear: Callable, y: jax.Array) -> jax.Array:
    basis = vary_like(jnp.eye(real_vector(y).size, dtype=real_vector(y).dtype), y)
    return jax.vmap(lambda v: _real(linear(_cotangent(v, y))), out_axes=-1)(basis)


def _real(bar: jax.Array) -> jax.Array:
    """A cotangent c of complex numbers z stands for the real part of c·dz."""
    return real_vector(jnp.conj(bar) if jnp.iscomplexobj(bar) else bar)


def _cotangent(v: jax.Array, y: jax.Array) -> jax.Array:
    bar = like(v, y)
    return jnp.conj(bar) if jnp.iscomplexobj(bar) else bar
