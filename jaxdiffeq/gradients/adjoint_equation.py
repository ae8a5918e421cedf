"""The adjoint of E·dδy/dt = J·δy + G·δθ along a solution, E = M or ∂F/∂(dy/dt), J = ∂f/∂y or −∂F/∂y: d(Eᵀλ)/dt = −Jᵀλ.

It has index 1 as well. On the null space of Eᵀ, on which Q projects, λ follows from the rest of it: it is orthogonal to
what J maps there from the null space of E. A cotangent of y is Eᵀa − Jᵀb with b = Q·b: a goes on as λ, and b is felt by
what f depends on, as 0 = bᵀ(J·dy + ∂f/∂θ·dθ) along the algebraic equations.
Source: Cao, Li, Petzold, Serban 2003, doi:10.1137/S1064827501380630.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq import clock
from jaxdiffeq.algebra import structure
from jaxdiffeq.algebra.vectors import like, real_vector
from jaxdiffeq.gradients.packing import Parts
from jaxdiffeq.gradients.rule import Active
from jaxdiffeq.gradients.segments import Segment
from jaxdiffeq.implicit.consistent import projector
from jaxdiffeq.primitives.varying_axes import vary_like
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.types import Inputs, PyTree


@dataclass(frozen=True)
class AdjointEquation:
    """E, J and G of a field of any kind. Times are on the right side of a stop already.

    Shapes: t [], all others [*state], but of the parameters θ. `dy` is the derivative of the solution as it is known,
    which only those fields look at that are linearised at a slope.
    """

    field: VectorField
    fill: Callable[[list], PyTree]
    """θ ↦ args"""
    theta: list

    @property
    def args(self) -> PyTree:
        return self.fill(self.theta)

    @property
    def plain(self) -> bool:
        """E is the identity."""
        return not self.field.algebraic

    def velocity(self, t: jax.Array, y: jax.Array) -> jax.Array:
        """dy/dt."""
        return self.field.velocity(t, y, self.args)

    def inertia(self, t: jax.Array, y: jax.Array, dy: Any, lam: jax.Array) -> jax.Array:
        """Eᵀλ."""
        return self.field.momentum(t, y, dy, self.args, lam)

    def pulled(self, t: jax.Array, y: jax.Array, dy: Any, lam: jax.Array, theta: bool) -> tuple:
        """f, Jᵀλ, and Gᵀλ if wanted."""
        if not theta:
            f, pull = jax.vjp(lambda y: self._balance(t, y, dy, self.theta), y)
            return f, *pull(lam), []
        dy = self.field.slope_felt(t, y, dy, self.args, self.theta)
        f, pull = jax.vjp(lambda y, theta: self._balance(t, y, dy, theta), y, self.theta)
        return f, *pull(lam)

    def at(self, t: jax.Array, y: jax.Array, dy: Any, pull: Callable | None = None) -> AlgebraicAdjoint:
        """The adjoint equation at an instant, with `pull` in place of λ ↦ Jᵀλ if it is given."""
        pull = pull or (lambda lam: self.pulled(t, y, dy, lam, False)[1])
        diagonal = self.field.diagonal(self.args)
        return AlgebraicAdjoint.of(lambda lam: self.inertia(t, y, dy, lam), pull, y, diagonal)

    def _balance(self, t: jax.Array, y: jax.Array, dy: Any, theta: list) -> jax.Array:
        return self.field.balance(t, y, dy, self.fill(theta), self.args)


class Known(NamedTuple):
    """What is known of the forward solution at the time at hand."""

    segment: Segment | None
    """some of its steps; None where y is solved again"""
    steps: jax.Array
    """in the segment"""
    passed: jax.Array
    """the number of the last stop before it, −1 for none"""
    first: Any = ()
    """the number in the segment of the first step after the last event before it, of a solve with events"""
    changed: Any = ()
    """the parameters that events change, as they are there"""


@dataclass(frozen=True)
class Trajectory:
    """The forward solution with its equation, as it is met on the way back."""

    field: VectorField
    active: Active
    events: Any = None

    def here(self, known: Known) -> Trajectory:
        """With the parameters that events have changed until then."""
        if not known.changed:
            return self
        inputs = self.inputs._replace(args=self.events.changed(self.inputs.args, known.changed))
        return replace(self, active=replace(self.active, inputs=inputs))

    @functools.cached_property
    def inputs(self) -> Inputs:
        return self.active.inputs

    @functools.cached_property
    def direction(self) -> jax.Array:
        return jnp.sign(self.inputs.t1 - self.inputs.t0)

    def moves(self, *names: str) -> bool:
        return bool(self.active.names() & set(names))

    # ---- the parameters

    @functools.cached_property
    def where(self) -> tuple[int, ...]:
        """The places of the active leaves in the flat args."""
        first = len(jax.tree.leaves(self.inputs.y0))
        count = len(jax.tree.leaves(self.inputs.args))
        return tuple(i - first for i in self.active.where if first <= i < first + count)

    def theta(self) -> list:
        leaves = jax.tree.leaves(self.inputs.args)
        return [leaves[i] for i in self.where]

    def args(self, theta: list, others: Any = None) -> PyTree:
        """The args with these parameters, and with `others` in all other places if they are given."""
        leaves, tree = jax.tree.flatten(self.inputs.args if others is None else others)
        for i, x in zip(self.where, theta, strict=True):
            leaves[i] = x
        return tree.unflatten(leaves)

    # ---- the solution and its derivatives

    @functools.cached_property
    def equation(self) -> AdjointEquation:
        return AdjointEquation(self.field, self.args, self.theta())

    def one_sided(self, t: jax.Array, passed: Any) -> jax.Array:
        """t, kept strictly between the stops numbered `passed` and `passed` + 1: f may jump at a stop."""
        stops, towards = lax.stop_gradient((self.inputs.stops, self.direction))
        if stops.size == 0:
            return t
        ends = lax.stop_gradient((self.inputs.t0, self.inputs.t1))
        last = jnp.where(passed >= 0, stops[jnp.maximum(passed, 0)], ends[0])
        after = jnp.where(passed + 1 < stops.size, stops[jnp.minimum(passed + 1, stops.size - 1)], ends[1])
        low, high = clock.beside(last, towards), clock.beside(after, -towards)
        low, high = jnp.minimum(low, high), jnp.maximum(low, high)
        return t + lax.stop_gradient(jnp.clip(t, low, high) - t)

    def velocity(self, t: jax.Array, y: jax.Array, passed: Any) -> jax.Array:
        """dy/dt."""
        return self.equation.velocity(self.one_sided(t, passed), y)

    def inertia(self, t: jax.Array, y: jax.Array, lam: jax.Array, passed: Any) -> jax.Array:
        """Eᵀλ."""
        if self.equation.plain:
            return lam
        return self.equation.inertia(self.one_sided(t, passed), y, self.velocity(t, y, passed), lam)

    def taken(self, t: jax.Array, y: jax.Array, bar: jax.Array, theta: list, passed: Any) -> tuple[jax.Array, list]:
        """What a cotangent of y(t) adds to λ, and the cotangents of the parameters with what it adds to these."""
        if self.equation.plain:
            return bar, theta
        dy, t = self.velocity(t, y, passed), self.one_sided(t, passed)
        a, b = self.equation.at(t, y, dy).split(y, bar)
        if not self.where:
            return a, theta
        return a, jax.tree.map(jnp.add, theta, self.equation.pulled(t, y, dy, b, True)[2])

    def solution(self, t: jax.Array, parts: Parts, known: Known) -> jax.Array:
        """y(t)."""
        if known.segment is None:
            return parts.y
        return known.segment.value(t, known.steps, self.direction, self.inputs.y0, known.first)

    def along(self, t: jax.Array, parts: Parts, known: Known) -> tuple[jax.Array, Any]:
        """y(t), and the derivative of that function where the equation is linearised at a slope."""
        if not self.field.at_slope:
            return self.solution(t, parts, known), None
        return jax.jvp(lambda t: self.solution(t, parts, known), (t,), (jnp.ones_like(t),))

    def pulled(self, t: jax.Array, parts: Parts, known: Known, theta: bool) -> tuple:
        """f, Jᵀλ, and Gᵀλ if wanted, on the solution at t."""
        y, dy = self.along(t, parts, known)
        return self.equation.pulled(self.one_sided(t, known.passed), y, dy, parts.lam, theta)

    def balance(self, t: jax.Array, parts: Parts, rates: Parts, known: Known) -> Parts:
        """Zero along the adjoint of F = 0: d(Eᵀλ)/dt + Jᵀλ, and dθ̄/dt + Gᵀλ."""

        def momentum(t, lam):
            y, dy = self.along(t, parts, known)
            return self.equation.inertia(self.one_sided(t, known.passed), y, dy, lam)

        _, change = jax.jvp(momentum, (t, parts.lam), (jnp.ones_like(t), rates.lam))
        _, d_y, d_theta = self.pulled(t, parts, known, bool(rates.theta))
        return Parts(None, change + d_y, [a + b for a, b in zip(rates.theta, d_theta, strict=True)])

    def completed(self, t: jax.Array, parts: Parts, known: Known) -> Parts:
        """With the part of λ that the adjoint equation determines."""
        if self.equation.plain:
            return parts
        y, dy = self.along(t, parts, known)
        pull = None
        if self.field.at_slope:  # then E changes along the solution
            still = Parts(None, jnp.zeros_like(parts.lam), [])
            pull = lambda lam: self.balance(t, parts._replace(lam=lam), still, known).lam
        adjoint = self.equation.at(self.one_sided(t, known.passed), y, dy, pull)
        return parts._replace(lam=adjoint.completed(y, parts.lam))


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
