"""Methods for equations with noise: what they share, and those that are a formula."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from jaxdiffeq.algebra.norm import safe_sqrt
from jaxdiffeq.engine.control import PIController
from jaxdiffeq.noise.areas import levy_areas
from jaxdiffeq.noise.kinds import NAMES
from jaxdiffeq.problems.driven_field import DrivenField
from jaxdiffeq.steppers.base import StepperDefaults
from jaxdiffeq.types import Increment, State, Step

ITO, STRATONOVICH = "ito", "stratonovich"
BOTH = (ITO, STRATONOVICH)


class StochasticDefaults(StepperDefaults):
    """The members that a method for noise may leave as they are. It carries nothing from step to step."""

    name: ClassVar[Any] = ""
    takes_noise: ClassVar[bool] = True
    interpretations: ClassVar[tuple[str, ...]] = (ITO,)
    """the calculus in which it takes an equation; for additive noise both are one"""
    serves: ClassVar[Any] = NAMES
    """the kinds of noise"""
    strong_order: ClassVar[Any] = None
    """of E|y(t) − yₙ|, on the noise it serves; None: it is made for laws, not for paths"""
    strong_orders: ClassVar[Any] = MappingProxyType({})
    """that on kinds of noise where it is another"""
    weak_order: ClassVar[Any] = None
    """of |E g(y(t)) − E g(yₙ)|"""
    error_order: ClassVar[Any] = None
    directions: ClassVar[int] = 0
    """what it asks of a path in a step: 1, b·W alone; 2, b·W and b·H; 0, more. An adjoint can follow the first two"""
    degree: ClassVar[int] = 1
    dense_order: ClassVar[int] = 1
    regularisers: ClassVar[Any] = ()
    controller: ClassVar[Any] = PIController()

    def __repr__(self) -> str:
        return f"{self.name}()"

    @property
    def either_way(self) -> bool:
        """Whether its steps may go backwards in time: they are of dt and of increments, and of no expectation of
        theirs."""
        return self.directions > 0

    @property
    def order(self) -> float:
        return self.weak_order if self.strong_order is None else self.strong_order

    def strong_order_on(self, kind: str) -> float | None:
        """Of a kind of noise that it serves."""
        return self.strong_orders.get(kind, self.strong_order)

    def in_calculus(self, interpretation: str) -> Self:
        """The method for equations in this one of its `interpretations`."""
        return self

    def init(self, f: DrivenField, t: jax.Array, y: jax.Array, args: Any) -> Any:
        return ()

    def polynomial(self, f: DrivenField, dense: Any, args: Any) -> jax.Array:
        """The straight line from y to y₁: about the mean of what lies between them. Shapes: [2, *state]."""
        y, y1 = dense
        return jnp.stack([y, y1 - y])


COMMUTING = ("diagonal", "scalar", "additive", "commutative")
COMMUTATIVE: Mapping[str, float] = MappingProxyType(dict.fromkeys(COMMUTING, 1.0))
ADDITIVE: Mapping[str, float] = MappingProxyType({"additive": 1.0})


class Sizes(NamedTuple):
    """Of one step, in the dtypes of what they multiply."""

    t: jax.Array
    y: jax.Array
    width: jax.Array
    """of the step, in the dtype of t"""
    dt: jax.Array
    """that of y"""
    root: jax.Array
    """√dt, likewise"""
    over_root: jax.Array
    """1/√dt, or zero"""


def sizes(start: State, t1: jax.Array) -> Sizes:
    t, y = start.t, start.y
    width = t1 - t
    root = safe_sqrt(jnp.abs(width))
    over_root = jnp.where(root == 0, 0, 1 / jnp.where(root == 0, 1, root))
    return Sizes(t, y, width, *(x.astype(y.dtype) for x in (width, root, over_root)))


def weighted(weights: Sequence[float], values: Sequence[Any]) -> Any:
    """Σᵢ weightsᵢ valuesᵢ without zeros, which need no value; None if there are only such."""
    terms = [x if w == 1 else w * x for w, x in zip(weights, values, strict=False) if w != 0]
    return functools.reduce(operator.add, terms) if terms else None


def added(y: jax.Array, *moves: Any) -> jax.Array:
    """With all moves that are not None."""
    return functools.reduce(operator.add, (x for x in moves if x is not None), y)


def times(f: DrivenField, b: jax.Array | None, x: jax.Array) -> jax.Array | None:
    """b·x, [*state]."""
    return None if b is None else f.times(b, x)


def scaled(size: jax.Array, x: jax.Array | None) -> jax.Array | None:
    return None if x is None else size * x


@dataclass(frozen=True, repr=False)
class OfStochasticTableau(StochasticDefaults):
    """A stepper made of numbers."""

    tableau: Any

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.tableau.name


def finished(y: jax.Array, y1: jax.Array, t1: jax.Array, error: jax.Array | None = None) -> Step:
    """A step with nothing to remember."""
    return Step(State(t1, y1, ()), error, (y, y1), True)


def explicit_euler(f: DrivenField, start: State, t1: jax.Array, args: Any) -> tuple[Any, ...]:
    """dt, a and b at the start, W, and y + a·dt + b·W."""
    t, y, _, dt, *_ = sizes(start, t1)
    a, b, w = f(t, y, args), f.diffusion(t, y, args), f.over(t, t1, args).w
    return dt, a, b, w, y + dt * a + f.times(b, w)


@dataclass(frozen=True, repr=False)
class EulerMaruyamaStepper(StochasticDefaults):
    """y₁ = y + a·dt + b·W.

    Source: Maruyama 1955; Kloeden, Platen, Numerical Solution of Stochastic Differential Equations, 10.2.
    """

    name: ClassVar[Any] = "EulerMaruyama"
    strong_order: ClassVar[Any] = 0.5
    strong_orders: ClassVar[Any] = ADDITIVE
    weak_order: ClassVar[Any] = 1
    evaluations: ClassVar[tuple[int, int, int]] = (0, 1, 0)

    @property
    def either_way(self) -> bool:
        """In Itô's calculus along the way that it goes."""
        return True

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        *_, y1 = explicit_euler(f, start, t1, args)
        return finished(start.y, y1, t1)


class StratonovichDefaults(StochasticDefaults):
    """Methods of order one where the noise commutes."""

    interpretations: ClassVar[tuple[str, ...]] = (STRATONOVICH,)
    strong_order: ClassVar[Any] = 0.5
    strong_orders: ClassVar[Any] = COMMUTATIVE
    weak_order: ClassVar[Any] = 1
    directions: ClassVar[int] = 1


@dataclass(frozen=True, repr=False)
class EulerHeunStepper(StratonovichDefaults):
    """P = y + a·dt + b·W,   y₁ = y + a·dt + ½(b + b(t₁, P))·W.

    Source: Kloeden, Platen, 10.2 and 14.1; Roberts 2012, arXiv:1210.0933.
    """

    name: ClassVar[Any] = "EulerHeun"
    evaluations: ClassVar[tuple[int, int, int]] = (0, 1, 0)

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        _, _, b, w, end = explicit_euler(f, start, t1, args)
        return finished(start.y, end + 0.5 * f.times(f.diffusion(t1, end, args) - b, w), t1)


@dataclass(frozen=True, repr=False)
class StochasticHeunStepper(StratonovichDefaults):
    """P = y + a·dt + b·W,   y₁ = y + ½(a + a(t₁, P))·dt + ½(b + b(t₁, P))·W,   err = y₁ − P.

    Source: Rümelin 1982, doi:10.1137/0719041.
    """

    name: ClassVar[Any] = "StochasticHeun"
    error_order: ClassVar[Any] = 1.0
    evaluations: ClassVar[tuple[int, int, int]] = (0, 2, 0)

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        dt, a, b, w, end = explicit_euler(f, start, t1, args)
        error = 0.5 * (dt * (f(t1, end, args) - a) + f.times(f.diffusion(t1, end, args) - b, w))
        return finished(start.y, end + error, t1, error)


@dataclass(frozen=True, repr=False)
class StochasticMidpointStepper(StratonovichDefaults):
    """M = y + ½(a·dt + b·W),   y₁ = y + a(t + dt/2, M)·dt + b(t + dt/2, M)·W,   err = y₁ − (y + a·dt + b·W).

    Source: Rümelin 1982, doi:10.1137/0719041.
    """

    name: ClassVar[Any] = "StochasticMidpoint"
    error_order: ClassVar[Any] = 1.0
    evaluations: ClassVar[tuple[int, int, int]] = (0, 2, 0)

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        dt, a, b, w, end = explicit_euler(f, start, t1, args)
        middle, half = start.y + 0.5 * (end - start.y), start.t + 0.5 * (t1 - start.t)
        error = dt * (f(half, middle, args) - a) + f.times(f.diffusion(half, middle, args) - b, w)
        return finished(start.y, end + error, t1, error)


class Begun(NamedTuple):
    """What a step has at its start."""

    size: Sizes
    drift: jax.Array
    diffusion: jax.Array
    increment: Increment


@dataclass(frozen=True, repr=False)
class OfOrderOne(StochasticDefaults):
    """y₁ = y + a·dt + b·W + Σⱼₖ Lʲbᵏ Iⱼₖ, where Lʲ is the derivative along bʲ; Jⱼₖ for Iⱼₖ in Stratonovich's calculus.

    The error is judged by ½(a(t₁, y₁) − a)·dt, and by b(t₁, y₁) − b beyond Db·(b·W), times W/3: where b is linear that
    is b′b′b·W³/6 to leading order, as the next term of the expansion. On equal steps there is no estimate.
    """

    calculus: str = ITO
    equal: bool = False

    interpretations: ClassVar[tuple[str, ...]] = BOTH
    strong_order: ClassVar[Any] = 1.0
    weak_order: ClassVar[Any] = 1
    error_order: ClassVar[Any] = 1.5

    @property
    def on_equal_steps(self) -> Self:
        return replace(self, equal=True)

    def in_calculus(self, interpretation: str) -> Self:
        return replace(self, calculus=interpretation)

    @property
    def evaluations(self) -> tuple[int, int, int]:
        return 0, 1 if self.equal else 2, 0

    def second(self, f: DrivenField, begun: Begun, args: Any) -> tuple[jax.Array, jax.Array]:
        """Σⱼₖ Lʲbᵏ Iⱼₖ, [*state], and Db·(b·W), like b."""
        raise NotImplementedError

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        t, y, _, dt, *_ = size = sizes(start, t1)
        a, b, inc = f(t, y, args), f.diffusion(t, y, args), f.over(t, t1, args)
        y1 = y + dt * a + f.times(b, inc.w)
        change = jnp.zeros_like(b)
        if not f.kind.additive:
            second, change = self.second(f, Begun(size, a, b, inc), args)
            y1 = y1 + second
        if self.equal:
            return finished(y, y1, t1)
        beyond = f.times(f.diffusion(t1, y1, args) - b - change, inc.w) / 3
        return finished(y, y1, t1, jnp.abs(0.5 * dt * (f(t1, y1, args) - a)) + jnp.abs(beyond))


@dataclass(frozen=True, repr=False)
class MilsteinStepper(OfOrderOne):
    """y₁ = y + a·dt + b·W + Σⱼₖ Lʲbᵏ Iⱼₖ with derivatives by forward mode.

    Iⱼₖ = Jⱼₖ − ½dt·δⱼₖ. Noise that commutes needs their symmetric part alone, Jⱼₖ = ½WⱼWₖ; for other noise `areas` draw
    approximations by `terms` terms of a series.
    Source: Milstein 1974; Kloeden, Platen, 10.3.
    """

    areas: Callable[..., jax.Array] = levy_areas
    terms: int = 8

    name: ClassVar[Any] = "Milstein"

    def second(self, f: DrivenField, begun: Begun, args: Any) -> tuple[jax.Array, jax.Array]:
        (t, y, width, dt, *_), _, b, inc = begun
        along = lambda v: jax.jvp(lambda y: f.diffusion(t, y, args), (y,), (v,))[1]
        if f.kind.columns is None and self.calculus == ITO:
            slope = along(b)
            return f.times(slope, iterated(inc.w, dt)), f.times(slope, inc.w)
        change = along(f.times(b, inc.w))
        if f.kind.commutes and self.calculus == STRATONOVICH:
            return 0.5 * f.times(change, inc.w), change
        h = jnp.real(dt).astype(inc.w.dtype)
        twice = 0.5 * jnp.outer(inc.w, inc.w) if f.kind.commutes else self.areas(inc, width, self.terms)
        if self.calculus == ITO:
            twice = twice - 0.5 * h * jnp.eye(inc.w.size, dtype=inc.w.dtype)
        columns = jax.vmap(lambda v, k: along(v)[..., k], (-1, 0))(f.times(b, twice), jnp.arange(inc.w.size))
        return jnp.sum(columns, 0), change


@dataclass(frozen=True, repr=False)
class RKMilStepper(OfOrderOne):
    """L = y + a·dt + b·√dt,   y₁ = y + a·dt + b·W + (b(t, L) − b)·I₁₁/√dt.

    In Stratonovich's calculus L = y + a·dt + b·W and the last term is ½(b(t, L) − b)·W. With J₁₁ = ½W² for I₁₁ it would
    have a mean of O(√dt³), so that the strong order were 1/2.
    Source: Kloeden, Platen, 11.1, eq. (1.7).
    """

    name: ClassVar[Any] = "RKMil"
    serves: ClassVar[Any] = ("diagonal", "scalar", "additive")

    def second(self, f: DrivenField, begun: Begun, args: Any) -> tuple[jax.Array, jax.Array]:
        (t, y, _, dt, root, over_root), a, b, inc = begun
        if self.calculus == STRATONOVICH:
            change = f.diffusion(t, y + dt * a + f.times(b, inc.w), args) - b
            return 0.5 * f.times(change, inc.w), change
        slope = (f.diffusion(t, y + dt * a + root * b, args) - b) * over_root
        return f.times(slope, iterated(inc.w, dt)), f.times(slope, inc.w)


def iterated(w: jax.Array, dt: jax.Array) -> jax.Array:
    """Iₖₖ for each of W."""
    return 0.5 * (w * w - jnp.real(dt).astype(w.dtype))
