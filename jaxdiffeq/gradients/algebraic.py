"""The adjoint of M·dy/dt = f where M may be singular: Mᵀ·dλ/dt = −Jᵀλ with J = ∂f/∂y, of index 1 as the equation is.

On the null space of Mᵀ, on which Q projects, λ follows from the rest of it: it is orthogonal to what J maps there from
the null space of M. A cotangent of y is Mᵀa − Jᵀb with b = Q·b: a goes on as λ, and b is felt by what f depends on, as
0 = bᵀ(J·dy + ∂f/∂θ·dθ) along the algebraic equations.
Source: Cao, Li, Petzold, Serban 2003, doi:10.1137/S1064827501380630.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdiffeq.algebra import structure
from jaxdiffeq.field import Field
from jaxdiffeq.implicit.initial import projector
from jaxdiffeq.implicit.system import System, like, real_vector


def split(slope: Callable, mass: jax.Array, y: jax.Array, bar: jax.Array) -> tuple[jax.Array, jax.Array]:
    """a and b of a cotangent of y. Shapes: slope(y) and all others [*state], `mass` [n] or [n, n]."""
    _, q, solve = _equations(slope, mass, y)
    x = solve(_real(bar))
    b = q @ x
    return _cotangent(x - b, y), _cotangent(b, y)


def completed(slope: Callable, mass: jax.Array, y: jax.Array, lam: jax.Array) -> jax.Array:
    """λ, with its part on the null space of Mᵀ such that it satisfies the adjoint equation."""
    jacobian, q, solve = _equations(slope, mass, y)
    v = _real(lam)
    return _cotangent(v + q @ solve(jacobian.T @ v), y)


def velocity(slope: Callable, mass: jax.Array, t: jax.Array, y: jax.Array) -> jax.Array:
    """dy/dt. Shapes: slope(t, y) is [*state]."""
    system = System(Field(lambda t, y, _: slope(t, y), mass=lambda _: mass), y)
    return like(system.derivative(t, real_vector(y), None), y)


def _equations(slope: Callable, mass: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array, Callable]:
    """J, Q, and the solution x of (Mᵀ − Jᵀ·Q)·x = r. Shapes: all of the real vector of y."""
    system = System(Field(lambda _, y, __: slope(y), mass=lambda _: mass), y)
    dense = structure.Dense()
    zero, v = jnp.zeros((), mass.dtype), real_vector(y)
    _, jacobian = dense.jacobian(lambda v: system.slope(zero, v, None), v)
    m = system.mass(None)
    assert m is not None
    q = jnp.diag((m == 0).astype(v.dtype)) if m.ndim == 1 else projector(m.T)
    matrix = (jnp.diag(m) if m.ndim == 1 else m.T) - jacobian.T @ q
    return jacobian, q, lambda r: structure.solve(dense, matrix, dense.factor(jax.lax.stop_gradient(matrix)), r)


def _real(bar: jax.Array) -> jax.Array:
    """A cotangent c of complex numbers z stands for the real part of c·dz."""
    return real_vector(jnp.conj(bar) if jnp.iscomplexobj(bar) else bar)


def _cotangent(v: jax.Array, y: jax.Array) -> jax.Array:
    bar = like(v, y)
    return jnp.conj(bar) if jnp.iscomplexobj(bar) else bar
