"""Initial values that satisfy the algebraic equations: index 1, by Newton's method."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.algebra import structure
from jaxdiffeq.algebra.newton import Found, implied
from jaxdiffeq.algebra.norm import rms
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.types import PyTree

TRIES = 100
SMALLEST = 2.0**-20
"""the last damping factor that is tried"""
CLOSE = 0.01
"""of the tolerance: the correction after which Newton's method ends"""
SHARP = 1e-5
"""of its size: the same for the slope, which has no tolerance"""


class Consistent(NamedTuple):
    v: jax.Array
    slope: jax.Array
    """dv/dt, zero in algebraic components"""
    ok: jax.Array
    free: jax.Array
    """one in algebraic components"""


class _Begin(NamedTuple):
    z: jax.Array
    dv: jax.Array
    scale: jax.Array
    q: jax.Array


class _At(NamedTuple):
    z: jax.Array
    damping: jax.Array
    tried: jax.Array
    going: jax.Array
    ok: jax.Array


class _Operands(NamedTuple):
    t: jax.Array
    v: jax.Array
    dv: jax.Array
    q: jax.Array
    args: PyTree


def consistent(system: Any, t: jax.Array, v: jax.Array, dv: jax.Array, args: PyTree, scale: jax.Array) -> Consistent:
    """v with its algebraic part changed, and dv/dt, such that M·dv/dt = f(t, v), or F(t, v, dv/dt) = 0.

    Q projects on the null space of M, or of ∂F/∂(dv/dt): v + Q·z and (1 − Q)·(dv + z) are n unknowns in n equations,
    which have a solution near by if the index is 1; (1 − Q)·v stays as it is. `dv` is a guess, `scale` an error of one
    in each component.
    Source: Brown, Hindmarsh, Petzold, SIAM J. Sci. Comput. 19 (1998) 1495, for the choice of unknowns.
    """
    q = system.null_projector(t, v, dv, args)
    algebra = structure.Dense() if q.ndim == 2 else system.algebra

    def residual(z, at):
        y, slope = _moved(z, at.v, at.dv, at.q)
        return system.defect(at.t, y, slope, at.args)

    def exact(z, at):
        return _matrix(algebra, lambda z: residual(z, at), z)

    def search(residual, exact, begin):
        return _search(residual, exact, algebra, begin)

    begin = _Begin(jnp.zeros_like(v), dv, jnp.maximum(scale, jnp.finfo(v.dtype).tiny), q)
    found = implied(search, residual, algebra, exact, begin, _Operands(t, v, dv, q, args))
    return Consistent(*_moved(found.z, v, dv, q), found.ok, q if q.ndim == 1 else jnp.diagonal(q))


def moving(system: Any, t: jax.Array, v: jax.Array, dv: jax.Array, args: PyTree) -> jax.Array:
    """dv/dt where `dv` is that without its algebraic components: these follow from d/dt F(t, v, dv/dt) = 0.

    With d²v/dt² unknown too, but on the null space of ∂F/∂dv, that is as many equations as unknowns.
    """
    q = system.null_projector(t, v, dv, args)
    algebra = structure.Dense() if q.ndim == 2 else system.algebra

    def zero(z):
        return system.defect(t, v + onto(q, z), dv + z, args)

    rest = jnp.zeros_like(v)
    _, change = jax.jvp(lambda t, v: system.defect(t, v, dv, args), (t, v), (jnp.ones_like(t), dv))
    w = _matrix(algebra, zero, rest)
    return dv + onto(q, structure.solve(algebra, w, algebra.factor(lax.stop_gradient(w)), change))


def limit(system: Any, t: jax.Array, v: jax.Array, args: PyTree) -> jax.Array:
    """dv/dt where M may be singular: M v′ = f on the rows of M, d/dt f = 0 on those without.

    That is the limit of W v′ = c·f + ∂f/∂t, W = c·M − J, for large c and a state that satisfies the algebraic
    equations. What is left of these at the end of a step must not be multiplied by c: c·M·W⁻¹·f in place of f has
    nothing there, and is f elsewhere, as after a correction of the state by Newton's method.
    """
    algebra, mass = system.algebra, system.mass(args)
    f, jacobian = system.linearised(t, v, args)
    _, df_dt = jax.jvp(lambda t: system(t, v, args), (t,), (jnp.ones_like(t),))
    heaviest = jnp.max(jnp.abs(mass)).astype(v.dtype)
    ratio = algebra.magnitude(jacobian) / jnp.where(heaviest > 0, heaviest, 1)
    c = lax.stop_gradient(jnp.where(ratio > 0, ratio, 1) / jnp.sqrt(jnp.finfo(v.dtype).eps))
    w = algebra.shifted(c, mass, jacobian)
    factors = algebra.factor(lax.stop_gradient(w))
    inert = c * structure.times_mass(mass, structure.solve(algebra, w, factors, f))
    return structure.solve(algebra, w, factors, c * inert + df_dt)


def null_space(mass: jax.Array) -> jax.Array:
    """The projector on the null space of M, [n, n], or of a diagonal, [n]."""
    return lax.stop_gradient((mass == 0).astype(mass.dtype)) if mass.ndim == 1 else projector(mass)


@jax.custom_jvp
def projector(mass: jax.Array) -> jax.Array:
    """On the null space of a matrix. Shapes: [n, n] ↦ [n, n], symmetric."""
    return _projector_and_inverse(mass)[0]


@projector.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """d(M·Q) = 0 and Q = Qᵀ give dQ = −M⁺·dM·Q − (M⁺·dM·Q)ᵀ, if the rank stays."""
    q, inverse = _projector_and_inverse(primals[0])
    half = inverse @ tangents[0] @ q
    return projector(primals[0]), -(half + half.T)


def _projector_and_inverse(mass: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The projector, and M⁺. What is at most rounding of the largest singular value counts as zero."""
    left, sizes, right = jnp.linalg.svd(mass)
    none = sizes <= mass.shape[0] * jnp.finfo(mass.dtype).eps * sizes[0]
    inverse = jnp.where(none, 0, 1 / jnp.where(none, 1, sizes))
    return (right.T * none[None].astype(mass.dtype)) @ right, (right.T * inverse[None]) @ left.T


def onto(q: jax.Array, z: jax.Array) -> jax.Array:
    """z projected by q, [n, n], or a diagonal one, [n]."""
    return q * z if q.ndim == 1 else structure.Dense().times(q, z)


def _moved(z: jax.Array, v: jax.Array, dv: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    slope = dv + z
    return v + onto(q, z), slope - onto(q, slope)


def _matrix(algebra: Any, residual: Any, z: jax.Array) -> Any:
    return algebra.shifted(jnp.zeros((), z.dtype), None, algebra.jacobian(residual, z)[1])


def _search(residual: Any, exact: Any, algebra: Any, begin: _Begin) -> Found:
    """Newton's method; a step is halved until the next one is shorter."""

    def length(d, slope):
        algebraic = onto(begin.q, d)
        return rms(algebraic / begin.scale) / CLOSE + rms(d - algebraic) / (SHARP * jnp.where(slope > 0, slope, 1))

    def improve(_, at):
        factors = algebra.factor(exact(at.z))
        dz = algebra.solve(factors, residual(at.z))
        z = at.z + at.damping * dz
        rest = algebra.solve(factors, residual(z))
        slope = rms(_moved(z, begin.z, begin.dv, begin.q)[1])
        before, after = length(dz, slope), length(rest, slope)
        full = at.damping == 1
        shorter = (after <= (1 - at.damping / 4) * before) | (after <= 1)
        done = full & (after <= 1)
        tried = at.tried + 1
        lost = ~jnp.isfinite(before) | (tried >= TRIES) | (~shorter & (at.damping <= SMALLEST))
        z = jnp.where(done, z + rest, jnp.where(shorter, z, at.z))
        damping = jnp.where(shorter, jnp.minimum(2 * at.damping, 1), at.damping / 2)
        new = _At(z, damping, tried, ~(done | lost), done)
        return (), jax.tree.map(lambda a, b: jnp.where(at.going, a, b), new, at)

    one = jnp.ones((), begin.z.dtype)
    start = _At(begin.z, one, jnp.zeros((), jnp.int32), jnp.array(True), jnp.array(False))
    _, last = frozen_while(lambda _, at: at.going, improve, (), start)
    return Found(last.z, last.ok, last.tried, one)
