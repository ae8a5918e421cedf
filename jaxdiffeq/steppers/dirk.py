"""Diagonally implicit Runge–Kutta methods, and the additive (IMEX) pairs of one with an explicit method."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.algebra import lu, structure
from jaxdiffeq.algebra.newton import NEWTON, Found, Newton, Start, judged, root
from jaxdiffeq.algebra.vectors import like, real_vector
from jaxdiffeq.engine.interpolant import combine, hermite, powers
from jaxdiffeq.implicit import jacobian_reuse
from jaxdiffeq.implicit.jacobian_reuse import Kept, Matrix
from jaxdiffeq.primitives.scan import scan
from jaxdiffeq.problems.vector_field import Slope, VectorField
from jaxdiffeq.steppers.base import NO_WORK, OfTableau
from jaxdiffeq.steppers.stages import Slopes, combined, in_order, nothing_yet, put_first, table
from jaxdiffeq.tableaux.dirk import DIRKTableau
from jaxdiffeq.types import PyTree, State, Step, Work

SLOW = 3
"""iterations a stage, on average, with which a Jacobian is not used again"""


class Bend(NamedTuple):
    """What some estimates take from the step before. Constant to differentiation."""

    slope: jax.Array
    """the divided difference of dy/dt at its ends; dy′/dt at first"""
    width: jax.Array
    """its size, zero at first"""


class DirkMemory(NamedTuple):
    slopes: tuple[jax.Array, ...]
    """at the start of the step, of the implicit and the explicit term, or of the whole; each [*state]"""
    chord: Kept = None
    bend: Bend | None = None


@dataclass(frozen=True, repr=False)
class DIRK(OfTableau):
    """Yᵢ = y + dt·Σⱼ aᵢⱼ kⱼ, j ≤ i,   M kᵢ = f(t + cᵢ·dt, Yᵢ),   y₁ = y + dt·Σᵢ bᵢ kᵢ.

    Or F(t + cᵢ·dt, Yᵢ, kᵢ) = 0. Newton's method finds one stage after the other, with the Jacobian at the start of the
    step or of one before. The explicit part of a split problem enters as dt·Σⱼ âᵢⱼ f̂(t + ĉⱼ·dt, Yⱼ) if the tableau has
    one; else the sum is implicit.
    Source: Hairer, Wanner, Solving ODEs II, IV.6 and IV.8; Kennedy, Carpenter 2003, doi:10.1016/S0168-9274(02)00138-1.
    """

    tableau: DIRKTableau
    newton: Newton = NEWTON

    work = NO_WORK

    @property
    def takes_mass(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Only if the last stage is the new state, so that this satisfies the algebraic equations."""
        return self.tableau.stiffly_accurate

    @property
    def takes_residual(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.tableau.stiffly_accurate

    @property
    def error_order(self) -> int | None:
        """The power of dt in the error estimate of one step; None: no estimate, fixed steps only."""
        return super().error_order if self.tableau.own is None else self.order + 1

    @property
    def evaluations(self) -> tuple[int, int, int]:
        """Calls of f besides those of Newton's method: at the start, in an attempted step, in the dense output."""
        return 2 if self.tableau.bends else 1, 0 if self.tableau.stiffly_accurate else 1, 0

    @property
    def costs(self) -> Work:  # pyright: ignore[reportIncompatibleVariableOverride]
        return NO_WORK._replace(linear_solves=int(self.tableau.filtered))

    @property
    def diagonals(self) -> tuple[float, ...]:
        """Those that need a matrix each, in the order of the stages."""
        return tuple(dict.fromkeys(row[-1] for row in self.tableau.a if row[-1]))

    def terms(self, f: VectorField) -> tuple[VectorField, Slope | None]:
        """What is implicit, and what is explicit where the tableau has a method for that."""
        return (f.whole, None) if self.tableau.explicit is None else f.terms

    def init(self, f: VectorField, t: jax.Array, y: jax.Array, args: PyTree) -> DirkMemory:
        terms = self.terms(f)
        slopes, system, v = slopes_of(terms, t, y, args), terms[0].on_vectors(y), real_vector(y)
        kept = jacobian_reuse.none(
            system, t, v, self._matrix(system, (t, v, args), slopes[0], v[0]), self._keeps(system)
        )
        if not self.tableau.bends:
            return DirkMemory(slopes, kept)
        _, bend = jax.jvp(lambda t, y: f.velocity(t, y, args), (t, y), (jnp.ones_like(t), slopes[0]))
        return DirkMemory(slopes, kept, Bend(lax.stop_gradient(bend), jnp.zeros_like(t)))

    def _keeps(self, system: VectorField) -> bool:
        """On steps of changing size only where factors are dear beside an iteration: an inverse made in a kernel."""
        worth = not system.at_slope if self.equal else system.size <= lu.ROLLED
        return worth and system.algebra.worth_keeping(system.size)

    def _matrix(self, system: VectorField, at: tuple, slope: jax.Array, dt: jax.Array) -> Matrix:
        """Of a step from (t, v, args), with a matrix for each diagonal. Shapes: slope [*state]."""
        t, v, args = at
        shifts = [1 / (diagonal * dt) for diagonal in self.diagonals]

        def make():
            return system.tangents(t, v, lax.stop_gradient(real_vector(slope)), shifts, args)

        def factored(tangents):
            return tuple(system.algebra.factor(w) for w in system.matrices(shifts, args, tangents))

        def contraction(jacobian, factors):
            return jacobian_reuse.contraction(system, lambda x: system.algebra.solve(factors[0], x), at, jacobian)

        return Matrix(make, factored, contraction if self.equal else None)

    def step(self, f: VectorField, start: State, t1: jax.Array, args: PyTree, tolerance: Any) -> Step:
        return _DirkStages(self, f, start, t1, args, tolerance).step()

    def polynomial(self, f: VectorField, dense: Any, args: PyTree) -> jax.Array:
        """Coefficients in θ, [degree + 1, *state], of the interpolant of the step that handed out `dense`."""
        y, y1, dt, slopes, k1 = dense
        interpolant = self.tableau.interpolant
        if interpolant is None:
            return hermite(y, y1, dt * slopes[0], dt * k1)
        return jnp.concatenate([y[None], dt * powers(interpolant, [*slopes, *[k1] * len(interpolant.a)])])


def slopes_of(terms: tuple, t: jax.Array, y: jax.Array, args: PyTree) -> tuple[jax.Array, ...]:
    """Of the terms of a field, each [*state]."""
    implicit, explicit = terms
    slope = implicit.velocity(t, y, args)
    return (slope,) if explicit is None else (slope, explicit(t, y, args))


class Operands(NamedTuple):
    """All that a stage depends on."""

    t: jax.Array
    base: jax.Array
    c: jax.Array
    """1/(aᵢᵢ·dt)"""
    args: PyTree


def solve_stage(newton: Newton, system: VectorField, begin: Start, operands: Operands, equal: bool) -> Found:
    """z such that base + z has the slope c·z at t."""

    def residual(z, at):
        return system.defect(at.t, at.base + z, at.c * z, at.args)

    def exact(z, at):
        return system.matrix(at.c, at.args, system.tangent(at.t, at.base + z, at.c * z, at.c, at.args))

    return root(
        newton,
        residual,
        system.algebra,
        exact,
        begin,
        operands,
        to_rounding=equal,
        algebraic=system.algebraic,
    )


class _SoFar(NamedTuple):
    """The stages that are done."""

    at: jax.Array
    """the last state, [n]"""
    slopes: Slopes
    """each [n]"""
    explicit_slopes: Slopes | None
    """of the explicit part"""
    last: jax.Array
    """the last slope, [n]; the first guess at the next one"""
    rate: jax.Array
    """of Newton's method"""
    ok: jax.Array
    iterations: jax.Array
    renewed: jax.Array | None
    """matrices made anew in between, on equal steps"""


class _Row(NamedTuple):
    """What a stage takes from the tableau, of one stage or stacked for several."""

    c: Any
    a: Any
    """without the diagonal entry, filled up with zeros"""
    predictor: Any
    predicted: Any
    """the predictor has a row for it"""
    explicit_c: Any
    explicit_a: Any


class _DirkStages:
    """One step on its way: what its stages share. Stages with the same factors are one loop: it compiles once."""

    def __init__(self, method: DIRK, f: VectorField, start: State, t1, args, tolerance):
        self.method, self.f, self.start = method, f, start
        self.implicit, self.explicit = method.terms(f)
        self.system = system = self.implicit.on_vectors(start.y)
        self.pair = None if self.explicit is None else method.tableau.explicit
        self.args, self.t1, self.width = args, t1, t1 - start.t
        self.y = real_vector(start.y)
        self.dt = self.width.astype(self.y.dtype)
        self.algebra = system.algebra
        self.fixed = lax.stop_gradient((start.t, self.y, args))
        dt = lax.stop_gradient(self.dt)
        matrix, alike = method._matrix(system, self.fixed, start.memory.slopes[0], dt), jacobian_reuse.ALIKE
        kept = start.memory.chord
        self.chord, self.work = jacobian_reuse.renewed(kept, matrix, 1 / dt, self.width, alike, system.at_slope)
        self.factors = dict(zip(method.diagonals, self.chord.factors, strict=True))
        self.scale, self.floor = judged(tolerance, start.y, method.equal)
        self.newton = replace(method.newton, kappa=method.newton.kappa / method.tableau.amplification)

    def step(self) -> Step:
        tableau = self.method.tableau
        none = nothing_yet(tableau.stages, self.y)
        first = real_vector(self.start.memory.slopes[0])
        never = jnp.array(jnp.inf, self.y.dtype)
        explicit_slopes = None if self.pair is None else none
        zero = jnp.zeros((), jnp.int32)
        renewed = zero if self.method.equal else None
        so_far = _SoFar(self.y, none, explicit_slopes, first, never, jnp.array(True), zero, renewed)
        done = 0
        if tableau.explicit_first:
            if explicit_slopes is not None:
                explicit_slopes = put_first(explicit_slopes, real_vector(self.start.memory.slopes[1]))
            so_far, done = so_far._replace(slopes=put_first(none, first), explicit_slopes=explicit_slopes), 1
        diagonals = [row[-1] for row in tableau.a[done:]]
        for diagonal, alike in itertools.groupby(diagonals):
            several = range(done, done := done + len(list(alike)))
            so_far = self._loop(diagonal, several, so_far)
        return self._finish(so_far)

    def _loop(self, diagonal: float, several: range, so_far: _SoFar) -> _SoFar:
        """The stages `several`, which have the same diagonal entry."""

        def stage(so_far, row):
            base = self.y + self.dt * combined(row.a, so_far.slopes)
            explicit_slopes = so_far.explicit_slopes
            if explicit_slopes is not None:
                base = base + self.dt * combined(row.explicit_a, explicit_slopes)
            so_far = self._solved(diagonal, row, base, so_far)
            if explicit_slopes is not None:
                explicit_slopes = put_first(explicit_slopes, self._explicit_slope(row.explicit_c, so_far.at))
            return so_far._replace(slopes=put_first(so_far.slopes, so_far.last), explicit_slopes=explicit_slopes), None

        return scan(stage, so_far, self._rows(several), written_out=True)[0]

    def _rows(self, several: range) -> _Row:
        tableau, pair = self.method.tableau, self.pair
        times = lambda c: np.array([c[i] for i in several], self.width.dtype)
        below = lambda rows: table([rows[i][:i] for i in several], tableau.stages, self.y.dtype)
        explicit = (None, None) if pair is None else (times(pair.c), below(pair.a))
        predictor = (None, None)
        if tableau.predictor is not None:
            predictor = below(tableau.predictor), np.array([any(tableau.predictor[i]) for i in several])
        return _Row(times(tableau.c), below(tableau.a), *predictor, *explicit)

    def _solved(self, diagonal: float, row: _Row, base: jax.Array, so_far: _SoFar) -> _SoFar:
        """With the state of the stage, and its slope as the last one."""
        t = self.start.t + row.c * self.width
        if diagonal == 0:
            return so_far._replace(at=base, last=self.system(t, base, self.args))
        guess = so_far.last
        if row.predictor is not None:
            guess = jnp.where(row.predicted, combined(row.predictor, so_far.slopes), guess)
        z, factors = guess * (diagonal * self.dt), self.factors[diagonal]
        begin = Start(z, factors, self.scale, self.floor, so_far.rate, self.y - base)
        shift = 1 / (diagonal * self.dt)
        operands = Operands(t, base, shift, self.args)
        found = solve_stage(self.newton, self.system, begin, operands, self.method.equal)
        rate = lax.stop_gradient(jnp.maximum(found.rate, jnp.finfo(found.rate.dtype).eps) ** 0.8)
        ok, iterations = so_far.ok & found.ok, so_far.iterations + found.iterations
        renewed = None if so_far.renewed is None else so_far.renewed + found.renewed
        new = {"rate": rate, "ok": ok, "iterations": iterations, "renewed": renewed}
        return so_far._replace(at=base + found.z, last=found.z * shift, **new)

    def _explicit_slope(self, c: jax.Array, at: jax.Array) -> jax.Array:
        """At a stage."""
        assert self.explicit is not None
        return real_vector(self.explicit(self.start.t + c * self.width, like(at, self.start.y), self.args))

    def _finish(self, so_far: _SoFar) -> Step:
        tableau, y, at = self.method.tableau, self.start.y, so_far.at
        slopes, explicit_slopes = (
            in_order(so_far.slopes),
            [] if so_far.explicit_slopes is None else in_order(so_far.explicit_slopes),
        )
        last = tableau.stiffly_accurate and not explicit_slopes
        y1 = at if last else self.y + self.dt * combine(tableau.b, slopes)
        if self.pair is not None:
            y1 = y1 + self.dt * combine(self.pair.b, explicit_slopes)
        y1 = like(y1, y)
        if self.explicit is None:
            memory = (like(slopes[-1], y) if last else self.f(self.t1, y1, self.args),)
        else:
            memory = self.implicit(self.t1, y1, self.args), self.explicit(self.t1, y1, self.args)
        total = [a + b for a, b in zip(slopes, explicit_slopes, strict=True)] if explicit_slopes else slopes
        before, dt = self.start.memory.slopes, self.dt.astype(y.dtype)
        ends = sum(before[1:], before[0]), sum(memory[1:], memory[0])
        n = so_far.iterations
        renewed, made = so_far.renewed, self.work
        slow = n > SLOW * sum(row[-1] != 0 for row in tableau.a) if renewed is None else renewed > 0
        least = jacobian_reuse.SHORTER * jnp.abs(self.width)
        kept = jacobian_reuse.handed_on(self.chord, self.start.memory.chord, slow, least)
        bend = Bend(*lax.stop_gradient(((ends[1] - ends[0]) / dt, self.width))) if tableau.bends else None
        inner = [like(k, y) for k in total] if tableau.interpolant is not None else [ends[0]]
        dense = y, y1, dt, tuple(inner), ends[1]
        finite = so_far.ok & jnp.all(jnp.isfinite(y1))
        error = self._error(slopes, explicit_slopes, ends)
        spectral_radius = (
            structure.radius(self.algebra, self.chord.jacobian, self.y.size) if self.method.measures else None
        )
        anew = int(
            bool(explicit_slopes) and tableau.stiffly_accurate
        )  # the implicit part at y₁, where f need not be called
        renewed = 0 if renewed is None else renewed
        work = made._replace(
            f_evals=n + anew + made.f_evals + made.jac_evals + renewed,
            jac_evals=made.jac_evals + renewed,
            factorizations=made.factorizations * len(self.factors) + renewed,
            linear_solves=n,
            newton_iterations=n,
        )
        return Step(State(self.t1, y1, DirkMemory(memory, kept, bend)), error, dense, finite, work, spectral_radius)

    def _error(self, slopes: list, explicit_slopes: list, ends: tuple) -> jax.Array | None:
        """The estimate, after (M − γ·dt·J)⁻¹·M if the tableau asks for that. Constant to differentiation."""
        tableau, own = self.method.tableau, self.method.tableau.own
        slopes, explicit_slopes, ends, memory = lax.stop_gradient((slopes, explicit_slopes, ends, self.start.memory))
        dt = lax.stop_gradient(self.dt)
        if tableau.e is not None:
            error = tableau.caution * dt * combine(tableau.e, slopes)
        elif own is None:
            return None
        else:
            k0, k1 = (real_vector(k) for k in ends)
            error = dt * combine((*own.e, own.start, own.end), [*slopes, k0, k1])
            if own.bend != 0:
                past = memory.bend
                bend = ((k1 - k0) / dt - real_vector(past.slope)) / (dt + past.width.astype(dt.dtype))
                error = error + own.bend * dt**3 * bend
        if self.pair is not None and self.pair.e is not None:
            error = error + tableau.caution * dt * combine(self.pair.e, explicit_slopes)
        if tableau.filtered:
            gamma, factors = list(self.factors.items())[-1]
            right = self.system.inertia(*self.fixed, error)
            error = self.algebra.solve(factors, right / (gamma * dt))
        return like(error, self.start.y)
