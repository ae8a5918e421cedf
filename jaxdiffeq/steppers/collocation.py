"""Fully implicit Runge–Kutta methods: Radau, Gauss and Lobatto."""

from __future__ import annotations

import functools
import itertools
import operator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.algebra import structure
from jaxdiffeq.algebra.newton import NEWTON, Found, Newton, Start, judged, root
from jaxdiffeq.algebra.vectors import like, real_vector
from jaxdiffeq.engine.interpolant import hermite
from jaxdiffeq.implicit import jacobian_reuse
from jaxdiffeq.implicit.jacobian_reuse import Kept, Matrix
from jaxdiffeq.primitives.constant_matmul import blend, constant_matmul
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.steppers.base import NO_WORK, OfTableau
from jaxdiffeq.tableaux.collocation import CollocationTableau
from jaxdiffeq.types import PyTree, State, Step, Work

SLOW = 5  # iterations with which a Jacobian is not used again
FARTHEST = 10.0  # steps of the old size, that the polynomial of a step is followed beyond its end


class CollocationMemory(NamedTuple):
    polynomial: jax.Array
    """of the step before, its coefficients of θ, θ² …, [stages, n]"""
    width: jax.Array
    """of that step"""
    slope: jax.Array | None
    """at the start, [*state], if the first stage is explicit or derivatives are taken at a slope"""
    chord: Kept


@dataclass(frozen=True, repr=False)
class Collocation(OfTableau):
    """Yᵢ = y + dt·Σⱼ aᵢⱼ kⱼ over all j,   M kⱼ = f(t + cⱼ·dt, Yⱼ),   y₁ = y + dt·Σᵢ bᵢ kᵢ.

    Or F(t + cⱼ·dt, Yⱼ, kⱼ) = 0. Newton's method finds all stages at once, with the Jacobian at the start of the step:
    A⁻¹ in diagonal form leaves a real system of the size of the state for each real eigenvalue, a complex one for each
    pair. It begins where the polynomial of the step before leads. How fast Newton's method converged is not handed on:
    at a loose tolerance a step ten times as long would pass for solved after one iteration, which ruins RadauIIA13.
    Source: Hairer, Wanner, Solving ODEs II, IV.8.
    """

    tableau: CollocationTableau
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
    def takes_half(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return not any(value.imag for value in _form(self.tableau).values)

    @property
    def degree(self) -> int:
        return 3 if self.tableau.dense is None else self.tableau.stages

    @property
    def evaluations(self) -> tuple[int, int, int]:
        """Calls of f besides those of Newton's method: at the start, in an attempted step, in the dense output."""
        form, error = _form(self.tableau), self.tableau.error is not None
        return int(form.first), int(form.last) + int(error), 2 if self.tableau.dense is None else 0

    @property
    def costs(self) -> Work:  # pyright: ignore[reportIncompatibleVariableOverride]
        error = self.tableau.error is not None
        return Work(0, 0, int(error and self._own_error), int(error), 0)

    @property
    def _own_error(self) -> bool:
        """The error estimate needs a system that Newton's method does not."""
        return all(value.imag for value in _form(self.tableau).values)

    def init(self, f: VectorField, t: jax.Array, y: jax.Array, args: PyTree) -> CollocationMemory:
        v = lax.stop_gradient(real_vector(y))
        polynomial = jnp.zeros((self.tableau.stages, v.size), v.dtype)
        slope = f.velocity(t, y, args) if self._keeps_slope(f) else None
        system = f.whole.on_vectors(y)
        kept = jacobian_reuse.none(system, t, v, self._matrix(system, (t, v, args), v, v[0]), self._keeps(system))
        return CollocationMemory(polynomial, jnp.ones_like(lax.stop_gradient(t)), slope, kept)

    def _matrix(self, system: VectorField, at: tuple, slope: jax.Array, dt: jax.Array) -> Matrix:
        """Of a step from (t, v, args): the pencil of J and M, and the factors for all stages."""
        t, v, args = at

        def make():
            return system.pencil(t, v, slope, args)

        def factored(pencil):
            jacobian, mass = system.pair(pencil, args)
            return self._algebra(system).simplified(1 / dt, mass, jacobian)

        def contraction(jacobian, factors):
            turned = _form(self.tableau).values[0].imag != 0
            cast = lambda x: lax.complex(x, jnp.zeros_like(x)) if turned else x
            return jacobian_reuse.contraction(system, lambda x: system.algebra.solve(factors[0], cast(x)), at, jacobian)

        return Matrix(make, factored, contraction if self.equal else None)

    def _keeps(self, system: VectorField) -> bool:
        return system.algebra.worth_keeping(system.size) and not (self.equal and system.at_slope)

    def _algebra(self, system: VectorField) -> _Stacked:
        form = _form(self.tableau)
        return _Stacked(system.algebra, system.algebra.repeated(form.size), form, system.size)

    def _keeps_slope(self, f: VectorField) -> bool:
        return _form(self.tableau).first or f.at_slope

    def step(self, f: VectorField, start: State, t1: jax.Array, args: PyTree, tolerance: Any) -> Step:
        return _CollocationStages(self, f.whole.on_vectors(start.y), start, t1, args, tolerance).step()

    def polynomial(self, f: VectorField, dense: Any, args: PyTree) -> jax.Array:
        """Coefficients in θ, [degree + 1, *state], of the interpolant of the step that handed out `dense`."""
        t, y, t1, y1, powers = dense
        if self.tableau.dense is None:
            dt = (t1 - t).astype(real_vector(y).dtype)
            return hermite(y, y1, dt * f.velocity(t, y, args), dt * f.velocity(t1, y1, args))
        return jnp.concatenate([y[None], jax.vmap(lambda v: like(v, y))(powers)])


class _Operands(NamedTuple):
    """All that the stages depend on. Shapes: t [m], base [m, n]."""

    t: jax.Array
    base: jax.Array
    shift: jax.Array
    """1/dt"""
    args: PyTree


class _CollocationStages:
    """One step on its way. The m inner stages are unknown: not an explicit first, nor a last that no other needs."""

    def __init__(self, method: Collocation, system: VectorField, start: State, t1: jax.Array, args, tolerance):
        self.method, self.system, self.start, self.args, self.t1 = method, system, start, args, t1
        self.form = _form(method.tableau)
        self.width = t1 - start.t
        self.y = real_vector(start.y)
        self.dt = self.width.astype(self.y.dtype)
        self.fixed = lax.stop_gradient((start.t, self.y, args))
        before = start.memory
        slope = self.y if before.slope is None else lax.stop_gradient(real_vector(before.slope))
        dt = lax.stop_gradient(self.dt)
        matrix = method._matrix(system, self.fixed, slope, dt)
        self.chord, self.work = jacobian_reuse.renewed(before.chord, matrix, 1 / dt, self.width, jacobian_reuse.ALIKE)
        self.jacobian, self.mass = system.pair(self.chord.jacobian, self.fixed[2])
        self.scale, self.floor = judged(tolerance, start.y, method.equal)
        self.algebra = method._algebra(system)

    def step(self) -> Step:
        form, tableau, y = self.form, self.method.tableau, self.start.y
        factors = self.chord.factors
        found = self._solve(factors)
        u = found.z.reshape(form.size, -1)
        slopes = list(constant_matmul(form.inverse, u))  # times dt, as all of them here
        if form.first:
            slopes = [self.dt * real_vector(self.start.memory.slope), *slopes]
        if form.last:
            at = self.y + constant_matmul(form.a[-1:, :-1], jnp.stack(slopes))[0]
            slopes.append(self.dt * self.system(self._times()[-1], at, self.args))
        slopes = jnp.stack(slopes)
        end = (
            self.y + self._ahead()[-1] + u[-1]
            if tableau.stiffly_accurate
            else self.y + constant_matmul(form.b, slopes)[0]
        )
        powers = constant_matmul(form.powers, slopes)
        y1 = like(end, y)
        n = found.iterations
        least = jacobian_reuse.SHORTER * jnp.abs(self.width)
        slow = found.renewed > 0 if self.method.equal else n > SLOW
        kept = jacobian_reuse.handed_on(self.chord, self.start.memory.chord, slow, least)
        last = None if self.start.memory.slope is None else like(slopes[-1] / self.dt, y)
        memory = CollocationMemory(*lax.stop_gradient((powers, self.width)), last, kept)
        error, refined = self._error(factors, u)
        systems, made = len(form.values), self.work
        work = Work(
            form.size * n + refined + made.f_evals,
            made.jac_evals + form.size * found.renewed,
            made.factorizations * systems + found.renewed,
            systems * n + refined,
            n,
        )
        ok = found.ok & jnp.all(jnp.isfinite(y1))
        spectral_radius = (
            structure.radius(self.algebra.one, self.jacobian, self.y.size) if self.method.measures else None
        )
        dense = self.start.t, y, self.t1, y1, powers
        return Step(State(self.t1, y1, memory), error, dense, ok, work, spectral_radius)

    def _times(self) -> list[jax.Array]:
        """Of all stages; exactly t₁ at the end."""
        return [self.t1 if c == 1 else self.start.t + c * self.width for c in self.method.tableau.c]

    def _ahead(self) -> jax.Array:
        """What an explicit first stage adds to the inner ones, [m, n]."""
        form = self.form
        if not form.first:
            return jnp.zeros((form.size, self.y.size), self.y.dtype)
        return _outer(form.a[form.inner, 0], self.dt * real_vector(self.start.memory.slope))

    def _solve(self, factors: tuple) -> Found:
        form, system = self.form, self.system

        def residual(z, at):
            u = z.reshape(form.size, -1)
            slopes = at.shift * constant_matmul(form.inverse, u)
            return jax.vmap(system.defect, (0, 0, 0, None))(at.t, at.base + u, slopes, at.args).reshape(-1)

        def exact(z, at):
            u = z.reshape(form.size, -1)
            slopes = at.shift * constant_matmul(form.inverse, u)
            linear = lambda t, v, dv, args: system.pair(system.pencil(t, v, dv, args), args)
            jacobians, masses = jax.vmap(linear, (0, 0, 0, None))(at.t, at.base + u, slopes, at.args)
            return _Coupled(at.shift, masses, jacobians)

        ahead, times = self._ahead(), jnp.stack(self._times()[form.inner])
        guess = self._guess() - ahead
        scale = jnp.broadcast_to(self.scale, guess.shape).reshape(-1)
        never = jnp.array(jnp.inf, guess.dtype)
        begin = Start(guess.reshape(-1), factors, scale, self.floor, never, -ahead.reshape(-1))
        at = _Operands(times, self.y[None] + ahead, 1 / self.dt, self.args)
        return root(
            self.method.newton,
            residual,
            self.algebra,
            exact,
            begin,
            at,
            to_rounding=self.method.equal,
            algebraic=system.algebraic,
        )

    def _guess(self) -> jax.Array:
        """Yᵢ − y, [m, n], of the inner stages on the polynomial of the step before."""
        before, width = self.start.memory[:2]
        ratio = jnp.clip(self.width / width, 0, FARTHEST).astype(self.y.dtype)
        theta = 1 + ratio * jnp.asarray(self.method.tableau.c[self.form.inner], self.y.dtype)
        powers = jnp.stack(list(itertools.accumulate([theta] * len(before), operator.mul)))
        return blend((powers - 1)[:, :, None], before[:, None])

    def _error(self, factors: tuple, u: jax.Array) -> tuple[jax.Array | None, jax.Array]:
        """The error estimate, and how often it was made anew: once, where it would refuse the step.

        (M/(γ₀ dt) − J) err = f(t, y) + M Σᵢ eᵢ zᵢ/(γ₀ dt) is too large where f(t, y) is, as after a fast change of the
        stiff components; f(t, y + err) in its place tells that from a bad step. −F(t, y, −Σᵢ eᵢ zᵢ/(γ₀ dt)) is the
        same for F = M·dy/dt − f.
        Source: Hairer, Wanner, Solving ODEs II, IV.8, eqs. (8.19) and (8.20).
        """
        given = self.method.tableau.error
        never = jnp.zeros((), jnp.int32)
        if given is None:
            return None, never
        dt, mass, scale, u = lax.stop_gradient((self.dt, self.mass, self.scale, u))
        one, c = self.algebra.one, 1 / (given.gamma0 * dt)
        own = one.factor(structure.shifted(one, c, mass, self.jacobian)) if self.method._own_error else None
        real = factors[[value.imag == 0 for value in self.form.values].index(True)] if own is None else own
        (t, y, args), slope = self.fixed, -c * constant_matmul(np.array([given.e]), u)[0]
        estimate = lambda y: one.solve(real, self.system.defect(t, y, slope, args))
        error = estimate(y)
        large = jnp.mean((error / scale) ** 2) >= 1

        def anew():
            better = estimate(y + error)
            return jnp.where(jnp.all(jnp.isfinite(better)), better, error)

        error = lax.cond(large, anew, lambda: error)
        return like(error, self.start.y), large.astype(never.dtype)


# -------------------- all stages as one system ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Form:
    """What follows from the coefficients of a method. The m inner stages are those that have to be solved for."""

    a: np.ndarray
    b: np.ndarray
    inner: slice
    first: bool
    """the first stage is the state itself"""
    last: bool
    """no stage needs the slope of the last one"""
    inverse: np.ndarray
    """A⁻¹, of the inner stages, [m, m] = Re Σ right·values·left"""
    values: tuple[complex, ...]
    left: np.ndarray
    right: np.ndarray
    powers: np.ndarray
    """[s, s]: the polynomial with these slopes at the abscissae, its coefficients of θ, θ² …"""

    @property
    def size(self) -> int:
        return len(self.inverse)


@functools.lru_cache
def _form(tableau: CollocationTableau) -> _Form:
    a, b, c = (np.array(x) for x in (tableau.a, tableau.b, tableau.c))
    first, last = not a[0].any(), not a[:, -1].any()
    inner = slice(int(first), len(b) - int(last))
    inverse = np.linalg.inv(a[inner, inner])
    values, right = np.linalg.eig(inverse)
    left, imaginary = np.linalg.inv(right), np.imag(values)
    kept = imaginary >= 0
    twice = np.where(imaginary > 0, 2, 1)  # one of a pair speaks for both
    number = 1 + np.arange(len(b))
    powers = (
        np.linalg.inv(number * c[:, None] ** (number - 1)) if tableau.dense is None else np.array(tableau.dense.b).T
    )
    return _Form(
        *(a, b, inner, first, last, inverse),
        values=tuple(values[kept].tolist()),
        left=left[kept],
        right=(right * twice)[:, kept],
        powers=powers,
    )


class _Coupled(NamedTuple):
    """shift·a⁻¹ᵢⱼ·Mᵢ − δᵢⱼ·Jᵢ. Shapes: the leaves of `masses` and `jacobians` have [m, …]."""

    shift: jax.Array
    masses: structure.Mass | structure.Entries
    jacobians: Any


@dataclass(frozen=True)
class _Stacked:
    """Linear algebra on the inner stages one after the other, [m·n], by that of `one` stage."""

    one: Any
    many: Any
    """that of m unknowns for each of one stage"""
    form: _Form
    n: int

    def times(self, w: _Coupled, x: jax.Array) -> jax.Array:
        x = x.reshape(self.form.size, self.n)
        weighed = w.shift * constant_matmul(self.form.inverse, x)
        pushed = jax.vmap(lambda mass, x: structure.times(self.one, mass, x))(w.masses, weighed)
        return (pushed - jax.vmap(self.one.times)(w.jacobians, x)).reshape(-1)

    def simplified(self, shift: jax.Array, mass: structure.Mass | structure.Entries, jacobian: Any) -> tuple:
        """Factors for the same J in all stages: one for each real eigenvalue of A⁻¹, one for each complex pair."""
        factors = []
        for value in self.form.values:
            real, imaginary = (jnp.asarray(x, shift.dtype) for x in (value.real, value.imag))
            value = lax.complex(real, imaginary) if value.imag else real
            cast = jax.tree.map(lambda x, like=value: x.astype(like.dtype), (shift, mass, jacobian))
            factors.append(self.one.factor(structure.shifted(self.one, value * cast[0], *cast[1:])))
        return tuple(factors)

    def factor(self, w: _Coupled) -> _Whole:
        """Exact factors: one block matrix, whose blocks are those of `one` stage, m times as large."""
        m, nothing, unit = self.form.size, jax.tree.map(jnp.zeros_like, w.jacobians), jnp.ones_like(w.shift)
        spare = self.one.shifted(0 * unit, None, jax.tree.map(lambda x: x[0], nothing))  # ones in empty places
        weights = jax.vmap(lambda *kinds: structure.shifted(self.one, unit, *kinds))(w.masses, nothing)

        def couple(jacobians, spare, masses):
            rest = (1,) * spare.ndim
            inverse = jnp.asarray(self.form.inverse, spare.dtype).reshape(m, m, *rest)
            own = jnp.eye(m, dtype=spare.dtype).reshape(m, m, *rest) * (spare[None] - jacobians)[:, None]
            whole = w.shift * inverse * (masses - spare[None])[:, None] + own  # [m, m, k, k, …]
            k = spare.shape[0]
            return jnp.moveaxis(whole, (0, 1), (1, 3)).reshape(m * k, m * k, *spare.shape[2:])

        return _Whole(self.many.factor(jax.tree.map(couple, w.jacobians, spare, weights)))

    def solve(self, factors: Any, b: jax.Array, transpose: bool = False) -> jax.Array:
        b = b.reshape(self.form.size, self.n)
        if isinstance(factors, _Whole):
            x = self.many.solve(factors.factors, b.T.reshape(-1), transpose)
            return x.reshape(self.n, -1).T.reshape(-1)
        total = jnp.zeros_like(b)
        for value, left, right, factor in zip(
            self.form.values, self.form.left, self.form.right.T, factors, strict=True
        ):
            part = constant_matmul(left.real, b)[0]
            if value.imag:
                x = self.one.solve(factor, lax.complex(part, constant_matmul(left.imag, b)[0]))
                total += _outer(right.real, x.real) - _outer(right.imag, x.imag)
            else:
                total += _outer(right.real, self.one.solve(factor, part))
        return total.reshape(-1)


class _Whole(NamedTuple):
    factors: Any


def _outer(a: np.ndarray, x: jax.Array) -> jax.Array:
    return jnp.asarray(a, x.dtype)[:, None] * x[None]
