"""Methods for stiff equations with noise: implicit in the drift, explicit in the diffusion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.algebra import structure
from jaxdiffeq.algebra.newton import NEWTON, Newton, Start, judged
from jaxdiffeq.algebra.vectors import like, real_vector
from jaxdiffeq.engine.interpolant import combine
from jaxdiffeq.problems.driven_field import DrivenField
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.steppers.base import NO_WORK
from jaxdiffeq.steppers.dirk import Operands, solve_stage
from jaxdiffeq.steppers.stochastic import (
    ADDITIVE,
    BOTH,
    COMMUTATIVE,
    ITO,
    STRATONOVICH,
    StochasticDefaults,
    iterated,
    sizes,
    weighted,
)
from jaxdiffeq.steppers.stochastic_rk import integral, of_time
from jaxdiffeq.tableaux.stochastic import SKENCARP, SRATableau
from jaxdiffeq.types import PyTree, State, Step, Work


@dataclass(frozen=True, repr=False)
class ImplicitDefaults(StochasticDefaults):
    """Stages by Newton's method, with a Jacobian at the start of each step."""

    newton: Newton = NEWTON
    equal: bool = False
    """every step has the same size, and none is refused"""

    work: ClassVar[Any] = NO_WORK

    @property
    def on_equal_steps(self) -> Self:
        return replace(self, equal=True)


class _Stages:
    """Of one step: those that are found so far, with one matrix for all."""

    def __init__(self, method: ImplicitDefaults, f: DrivenField, start: State, dt: jax.Array, args: PyTree, tolerance):
        """`dt` times its slope is what a stage adds."""
        self.method, self.args, self.y = method, args, start.y
        self.system: VectorField = f.on_vectors(start.y)
        v = real_vector(start.y)
        self.c = 1 / jnp.real(dt).astype(v.dtype)
        jacobian = self.system.tangent(start.t, v, jnp.zeros_like(v), self.c, args)
        self.matrix = self.system.matrix(self.c, args, jacobian)
        self.factors = self.system.algebra.factor(lax.stop_gradient(self.matrix))
        self.scale, self.floor = judged(tolerance, start.y, method.equal)
        self.rate = jnp.array(jnp.inf, v.dtype)
        self.ok: Any = True
        self.iterations = self.renewed = jnp.zeros((), jnp.int32)

    def slope(self, t: jax.Array, base: jax.Array) -> jax.Array:
        """k = a(t, base + dt·k), [*state]. The iteration begins at `base`: slopes that noise has made are wild."""
        begin = Start(jnp.zeros_like(real_vector(base)), self.factors, self.scale, self.floor, self.rate)
        operands = Operands(t, real_vector(base), self.c, self.args)
        found = solve_stage(self.method.newton, self.system, begin, operands, self.method.equal)
        self.ok &= found.ok
        self.iterations, self.renewed = self.iterations + found.iterations, self.renewed + found.renewed
        return like(found.z * self.c, self.y)

    def damped(self, x: jax.Array) -> jax.Array:
        """(1 − dt·∂a/∂y)⁻¹·x."""
        right = real_vector(x) * self.c
        return like(structure.solve(self.system.algebra, self.matrix, self.factors, right), self.y)

    def step(self, t1: jax.Array, y1: jax.Array, error: jax.Array | None = None) -> Step:
        one, n = jnp.ones((), jnp.int32), self.iterations
        made = one + self.renewed
        work = Work(n + made, made, made, n, n)
        ok = self.ok & jnp.all(jnp.isfinite(y1))
        return Step(State(t1, y1, ()), error, (self.y, y1), ok, work)


@dataclass(frozen=True, repr=False)
class ThetaStepper(ImplicitDefaults):
    """y₁ = y + ((1 − θ)·a + θ·a(t₁, y₁))·dt + what the noise adds, which is known beforehand.

    θ = 1 damps what is stiff; θ = ½ keeps the size of oscillations, and has order 2 in the drift.
    """

    theta: float = 1.0

    @property
    def evaluations(self) -> tuple[int, int, int]:
        return 0, int(self.theta != 1), 0

    def noise(self, f: DrivenField, start: State, t1: jax.Array, args: Any) -> jax.Array:
        """What it adds. Shapes: [*state]."""
        raise NotImplementedError

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        t, y, _, dt, *_ = sizes(start, t1)
        base = y + self.noise(f, start, t1, args)
        if self.theta != 1:
            base = base + (1 - self.theta) * dt * f(t, y, args)
        stages = _Stages(self, f, start, self.theta * dt, args, tolerance)
        return stages.step(t1, base + self.theta * dt * stages.slope(t1, base))


@dataclass(frozen=True, repr=False)
class ImplicitEMStepper(ThetaStepper):
    """b·W: the θ-method of Euler and Maruyama.

    Source: Kloeden, Platen, 12.2, eq. (2.3).
    """

    name: ClassVar[Any] = "ImplicitEM"
    strong_order: ClassVar[Any] = 0.5
    strong_orders: ClassVar[Any] = ADDITIVE
    weak_order: ClassVar[Any] = 1

    def noise(self, f: DrivenField, start: State, t1: jax.Array, args: Any) -> jax.Array:
        return f.times(f.diffusion(start.t, start.y, args), f.over(start.t, t1, args).w)


@dataclass(frozen=True, repr=False)
class ImplicitEulerHeunStepper(ThetaStepper):
    """½(b + b(t₁, y + b·W))·W: Heun's method for the noise, in which no step of the drift may be, since that is stiff.

    Source: Kloeden, Platen, 12.2; Rümelin 1982, doi:10.1137/0719041.
    """

    name: ClassVar[Any] = "ImplicitEulerHeun"
    interpretations: ClassVar[tuple[str, ...]] = (STRATONOVICH,)
    strong_order: ClassVar[Any] = 0.5
    strong_orders: ClassVar[Any] = COMMUTATIVE
    weak_order: ClassVar[Any] = 1

    def noise(self, f: DrivenField, start: State, t1: jax.Array, args: Any) -> jax.Array:
        t, y, w = start.t, start.y, f.over(start.t, t1, args).w
        b = f.diffusion(t, y, args)
        return 0.5 * f.times(b + f.diffusion(t1, y + f.times(b, w), args), w)


@dataclass(frozen=True, repr=False)
class ImplicitRKMilStepper(ThetaStepper):
    """b·W + (b(t, y + b·√dt) − b)·I₁₁/√dt, or b·W + ½(b(t, y + b·W) − b)·W in Stratonovich's calculus.

    Source: Kloeden, Platen, 12.2 and 12.3.
    """

    calculus: str = ITO

    name: ClassVar[Any] = "ImplicitRKMil"
    interpretations: ClassVar[tuple[str, ...]] = BOTH
    serves: ClassVar[Any] = ("diagonal", "scalar", "additive")
    strong_order: ClassVar[Any] = 1.0
    weak_order: ClassVar[Any] = 1

    def in_calculus(self, interpretation: str) -> Self:
        return replace(self, calculus=interpretation)

    def noise(self, f: DrivenField, start: State, t1: jax.Array, args: Any) -> jax.Array:
        t, y, _, dt, root, over_root = sizes(start, t1)
        b, w = f.diffusion(t, y, args), f.over(t, t1, args).w
        first = f.times(b, w)
        if f.kind.additive:
            return first
        if self.calculus == STRATONOVICH:
            return first + 0.5 * f.times(f.diffusion(t, y + first, args) - b, w)
        return first + f.times((f.diffusion(t, y + root * b, args) - b) * over_root, iterated(w, dt))


@dataclass(frozen=True, repr=False)
class SplitStepBEStepper(ImplicitDefaults):
    """y* = y + a(t₁, y*)·dt,   y₁ = y* + b(t₁, y*)·W: drifts that grow faster than linearly cannot blow up.

    Source: Higham, Mao, Stuart 2002, doi:10.1137/S0036142901389530.
    """

    name: ClassVar[Any] = "SplitStepBE"
    strong_order: ClassVar[Any] = 0.5
    strong_orders: ClassVar[Any] = ADDITIVE
    weak_order: ClassVar[Any] = 1
    evaluations: ClassVar[tuple[int, int, int]] = (0, 0, 0)

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        t, y, _, dt, *_ = sizes(start, t1)
        stages = _Stages(self, f, start, dt, args, tolerance)
        middle = y + dt * stages.slope(t1, y)
        return stages.step(t1, middle + f.times(f.diffusion(t1, middle, args), f.over(t, t1, args).w))


@dataclass(frozen=True, repr=False)
class ImplicitSRA(ImplicitDefaults):
    """Additive noise, with implicit stages of the drift. See `SRATableau`.

    The last stage lacks some of the noise, x, that y₁ has. With it as it is, noise of 9·b·√dt would be in y₁ however
    stiff a component is. So y₁ is that stage and D·x, D = 1 − z²(1 − z)⁻² with z = γ·dt·∂a/∂y, which differs from 1 by
    O(dt²) and goes to zero with 1/z. The error is that of the drift's own pair, and what the noise adds by I₁₀, after
    (1 − z)⁻¹.
    Source: Rackauckas, Nie 2020, arXiv:1804.04344; Kennedy, Carpenter 2003, doi:10.1016/S0168-9274(02)00138-1.
    """

    tableau: SRATableau = SKENCARP

    interpretations: ClassVar[tuple[str, ...]] = BOTH
    serves: ClassVar[Any] = ("additive",)
    strong_order: ClassVar[Any] = 1.5
    weak_order: ClassVar[Any] = 2
    error_order: ClassVar[Any] = 1.5
    evaluations: ClassVar[tuple[int, int, int]] = (0, 1, 0)
    costs: ClassVar[Any] = NO_WORK._replace(linear_solves=3)

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.tableau.name

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        tableau, (t, y, width, dt, *_) = self.tableau, sizes(start, t1)
        inc = f.over(t, t1, args)
        mean, b = integral(inc), of_time(tableau, f, t, y, width, args)
        stages = _Stages(self, f, start, tableau.a[-1][-1] * dt, args, tolerance)
        slopes, base = [f(t, y, args)], y
        for i in range(1, tableau.stages):
            base = y + dt * combine(tableau.a[i][:-1], slopes)
            noise = weighted(tableau.b[i], b)
            base = base if noise is None else base + f.times(noise, mean)
            slopes.append(stages.slope(t + tableau.c0[i] * width, base))
        ends = f.times(weighted(tableau.beta2, b), mean)
        rest = ends + f.times(weighted(tableau.beta1, b), inc.w) - f.times(weighted(tableau.b[-1], b), mean)
        once = stages.damped(rest)
        y1 = base + tableau.a[-1][-1] * dt * slopes[-1] + 2 * once - stages.damped(once)
        error = stages.damped(dt * combine(tableau.error_weights, slopes) + ends)
        return stages.step(t1, y1, lax.stop_gradient(error))
