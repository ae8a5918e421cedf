"""Methods for motion with friction and noise, dx = v dt, dv = (−γ·v + u·F(t, x)) dt + √(2γu) dW, on y = [x, v].

All have the exact law where there is no force. What noise does in a step is known by W, by H and, of some, by K, the
coefficients of the first three Legendre polynomials in a series of it; the rest of the series is drawn.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxdiffeq.algebra.norm import safe_sqrt
from jaxdiffeq.problems.langevin_field import LangevinField
from jaxdiffeq.steppers.stochastic import BOTH, StochasticDefaults, finished
from jaxdiffeq.types import Increment, State, Step

TERMS, NEAR = 40, 3.0
"""of power series, up to this argument"""


def _times(p: list[Fraction], q: list[Fraction]) -> list[Fraction]:
    return [sum((p[i] * q[n - i] for i in range(n + 1)), Fraction(0)) for n in range(min(len(p), len(q)))]


def _series(of: Callable[[int], Fraction]) -> list[Fraction]:
    return [(-1) ** k * of(k) for k in range(TERMS)]


class Series(NamedTuple):
    """Of e^(−z), in Legendre's polynomials: φ₁ = (1 − e^(−z))/z, φ₂ = (1 − φ₁)/z, and the next two, with what is left
    of the square of e^(−z) after two and after three of them, over z⁴ and z⁶."""

    phi1: list[Fraction]
    phi2: list[Fraction]
    tilt: list[Fraction]
    bend: list[Fraction]
    left2: list[Fraction]
    left3: list[Fraction]


@functools.cache  # when a method is first used: exact fractions take longer than all else in this file
def series() -> Series:
    phi1 = _series(lambda k: Fraction(1, math.factorial(k + 1)))
    phi2 = _series(lambda k: Fraction(1, math.factorial(k + 2)))
    tilt = _series(lambda k: 6 * Fraction(k + 1, math.factorial(k + 3)))
    bend = [60 * x for x in _series(lambda k: -Fraction((k + 1) * (k + 2), math.factorial(k + 5)))]
    square = _series(lambda k: Fraction(2**k, math.factorial(k + 1)))
    two = [s - p for s, p in zip(square, _times(phi1, phi1), strict=True)]
    left2 = [x - y / 12 for x, y in zip(two[2:], _times(tilt, tilt), strict=False)][2:]
    left3 = [x - y / 720 for x, y in zip(left2, _times(bend, bend), strict=False)][2:]
    return Series(phi1, phi2, tilt, bend, left2, left3)


def _near(z: jax.Array, series: list[Fraction], far: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The series for small z, else `far(z)`."""
    small, large = jnp.minimum(z, NEAR), jnp.maximum(z, NEAR)
    total = jnp.zeros_like(z)
    for x in reversed(series):
        total = total * small + float(x)
    return jnp.where(z < NEAR, total, far(large))


class Free(NamedTuple):
    """The motion without a force over a time h, with z = γ·h: x₁ = x + a·v + …, v₁ = β·v + …; each [] or [*x].

    The noise of v₁ is √(2γu)·(mean·W − γ·(tilt·H + bend·K) + γ·rest·ξ) with ξ ~ N(0, 1), that of x₁
    √(2γu)·(b·W + tilt·H + bend·K − rest·ξ).
    """

    beta: jax.Array
    mean: jax.Array
    """of e^(−z·s) over 0 ≤ s ≤ 1"""
    a: jax.Array
    b: jax.Array
    tilt: jax.Array
    bend: jax.Array
    rest: jax.Array


def free(gamma: jax.Array, h: jax.Array, of: int) -> Free:
    """With W and H known, or K too, `of` 2 or 3."""
    z = gamma * h
    exp = lambda z: jnp.exp(-z)
    phi1 = lambda z: (1 - exp(z)) / z
    tilt = lambda z: 6 * (exp(z) * (z + 2) + z - 2) / z**3
    bend = lambda z: 60 * (exp(z) * (z * z + 6 * z + 12) - z * z + 6 * z - 12) / z**5
    left2 = lambda z: (phi1(2 * z) - phi1(z) ** 2 - (z * tilt(z)) ** 2 / 12) / z**4
    left3 = lambda z: (left2(z) - bend(z) ** 2 / 720) / z**2
    near, three = series(), of == 3
    one = _near(z, near.phi1, phi1)
    left = z**2 * safe_sqrt(_near(z, near.left3, left3)) if three else z * safe_sqrt(_near(z, near.left2, left2))
    k = h * z * _near(z, near.bend, bend) if three else jnp.zeros_like(z)
    b = h * _near(z, near.phi2, lambda z: (1 - phi1(z)) / z)
    return Free(exp(z), one, h * one, b, h * _near(z, near.tilt, tilt), k, h * safe_sqrt(h) * left)


class Noise(NamedTuple):
    """√(2γu) times W, H, K and ξ, each [*x]."""

    w: jax.Array
    area: jax.Array
    k: jax.Array
    xi: jax.Array

    def of_x(self, free: Free) -> jax.Array:
        return free.b * self.w + free.tilt * self.area + free.bend * self.k - free.rest * self.xi

    def of_v(self, free: Free, gamma: jax.Array) -> jax.Array:
        slow = free.tilt * self.area + free.bend * self.k - free.rest * self.xi
        return free.mean * self.w - gamma * slow


def drawn(inc: Increment, h: jax.Array) -> tuple[jax.Array, jax.Array]:
    """K, (1/h²)·∫ (½h − s)(W(s) − s/h·W) ds ~ N(0, h/720), independent of W and H, and ξ. Shapes: those of W."""
    normal = jax.random.normal(jax.random.fold_in(inc.key, 2), (2, *inc.w.shape), inc.w.dtype)
    return safe_sqrt(h / 720) * normal[0], normal[1]


class _Motion(NamedTuple):
    """A step of a motion."""

    x: jax.Array
    v: jax.Array
    h: jax.Array
    gamma: jax.Array
    u: jax.Array
    sigma: jax.Array


def _motion(f: LangevinField, start: State, t1: jax.Array, args: Any) -> _Motion:
    (x, v), h = start.y, jnp.abs(t1 - start.t).astype(start.y.dtype)
    gamma, u = (g(args).astype(h.dtype) for g in (f.friction, f.inverse_mass))
    return _Motion(x, v, h, gamma, u, jnp.sqrt(2 * gamma * u))


@dataclass(frozen=True, repr=False)
class LangevinDefaults(StochasticDefaults):
    """Methods for a `LangevinField` alone."""

    interpretations: ClassVar[tuple[str, ...]] = BOTH
    serves: ClassVar[Any] = ("additive",)
    takes_langevin: ClassVar[bool] = True


@dataclass(frozen=True, repr=False)
class RemembersForce(LangevinDefaults):
    """From step to step it keeps the force at the end of the last one."""

    evaluations: ClassVar[tuple[int, int, int]] = (1, 1, 0)

    def init(self, f: Any, t: jax.Array, y: jax.Array, args: Any) -> jax.Array:
        return f.force(t, y[0], args)


@dataclass(frozen=True, repr=False)
class BAOABStepper(RemembersForce):
    """Half of the force, half of the way, all of friction and noise, half of the way, half of the force.

    Source: Leimkuhler, Matthews 2013, doi:10.1093/amrx/abs010.
    """

    name: ClassVar[Any] = "BAOAB"
    strong_order: ClassVar[Any] = 1.0
    weak_order: ClassVar[Any] = 2

    def step(self, f: LangevinField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        x, v, h, gamma, u, sigma = _motion(f, start, t1, args)
        w = f.over(start.t, t1, args).w[1]
        v = v + 0.5 * h * u * start.memory
        x = x + 0.5 * h * v
        size = _near(2 * gamma * h, series().phi1, lambda z: (1 - jnp.exp(-z)) / z)
        v = jnp.exp(-gamma * h) * v + sigma * safe_sqrt(size) * w
        x = x + 0.5 * h * v
        force = f.force(t1, x, args)
        y1 = jnp.stack([x, v + 0.5 * h * u * force])
        return finished(start.y, y1, t1)._replace(after=State(t1, y1, force))


@dataclass(frozen=True, repr=False)
class UBUStepper(LangevinDefaults):
    """Half of the motion without a force, all of the force, the other half: the force is asked for in the middle.

    Source: Alfonso Álamo Zapatero 2017, thesis, Valladolid; Sanz-Serna, Zygalakis 2021, arXiv:2104.12384.
    """

    name: ClassVar[Any] = "UBU"
    strong_order: ClassVar[Any] = 2.0
    weak_order: ClassVar[Any] = 2
    evaluations: ClassVar[tuple[int, int, int]] = (0, 1, 0)

    def step(self, f: LangevinField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        x, v, h, gamma, u, sigma = _motion(f, start, t1, args)
        t, half, middle = start.t, 0.5 * h, start.t + 0.5 * (t1 - start.t)
        whole, first = f.over(t, t1, args), f.within(t, t1).over(t, middle, args)
        w2 = whole.w - first.w
        area2 = 2 * whole.area + w2 / 2 - first.area - first.w / 2  # of ∫W over both halves
        xi = jax.random.normal(jax.random.fold_in(whole.key, 2), (2, *x.shape), half.dtype)
        motion = free(gamma, half, 2)

        def drift(x, v, w, area, xi):
            noise = Noise(sigma * w[1], sigma * area[1], jnp.zeros_like(x), sigma * xi)
            return x + motion.a * v + noise.of_x(motion), motion.beta * v + noise.of_v(motion, gamma)

        x, v = drift(x, v, first.w, first.area, xi[0])
        x, v = drift(x, v + h * u * f.force(middle, x, args), w2, area2, xi[1])
        return finished(start.y, jnp.stack([x, v]), t1)


@dataclass(frozen=True, repr=False)
class ALIGNStepper(RemembersForce):
    """The force is the line between those at the ends, of which the second is at x₁ by the first alone.

    x₁ = x + a·v + u·h·b·F + noise,   v₁ = β·v + u·((a − b)·F + b·F₁) + noise,   err = (0, u·b·(F₁ − F)).
    Source: Foster, Lyons, Oberhauser 2021, arXiv:2101.03446, Definition 4.2.
    """

    name: ClassVar[Any] = "ALIGN"
    strong_order: ClassVar[Any] = 2.0
    weak_order: ClassVar[Any] = 2
    error_order: ClassVar[Any] = 2.0

    def step(self, f: LangevinField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        x, v, h, gamma, u, sigma = _motion(f, start, t1, args)
        inc, motion = f.over(start.t, t1, args), free(gamma, h, 2)
        xi = jax.random.normal(jax.random.fold_in(inc.key, 2), x.shape, h.dtype)
        noise = Noise(sigma * inc.w[1], sigma * inc.area[1], jnp.zeros_like(x), sigma * xi)
        x1 = x + motion.a * v + u * h * motion.b * start.memory + noise.of_x(motion)
        force = f.force(t1, x1, args)
        change = u * motion.b * (force - start.memory)
        v1 = motion.beta * v + u * motion.a * start.memory + change + noise.of_v(motion, gamma)
        y1 = jnp.stack([x1, v1])
        return finished(start.y, y1, t1, jnp.stack([jnp.zeros_like(x), change]))._replace(after=State(t1, y1, force))


@dataclass(frozen=True, repr=False)
class OfOrderThree(LangevinDefaults):
    """Order three in smooth forces, by K."""

    drawn: Callable[..., Any] = drawn

    strong_order: ClassVar[Any] = 3.0
    weak_order: ClassVar[Any] = 3

    def noise(self, f: LangevinField, start: State, t1: jax.Array, args: Any, motion: _Motion) -> Noise:
        inc = f.over(start.t, t1, args)
        k, xi = self.drawn(inc, motion.h)
        return Noise(*(motion.sigma * y[1] for y in (inc.w, inc.area, k, xi)))


@dataclass(frozen=True, repr=False)
class ShOULDStepper(OfOrderThree, RemembersForce):
    """Simpson's rule for the force, with the one in the middle on the path of a polynomial noise.

    Source: Foster, Lyons, Oberhauser 2021, arXiv:2101.03446, Definition 7.1.
    """

    name: ClassVar[Any] = "ShOULD"
    evaluations: ClassVar[tuple[int, int, int]] = (1, 2, 0)

    def step(self, f: LangevinField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        x, v, h, gamma, u, _ = motion = _motion(f, start, t1, args)
        noise, middle = self.noise(f, start, t1, args, motion), start.t + 0.5 * (t1 - start.t)
        whole, half, kick, first = free(gamma, h, 3), free(gamma, 0.5 * h, 3), u * h, start.memory
        smooth, shifted = noise.w - 12 * noise.k, v + noise.area + 6 * noise.k
        second = f.force(middle, x + half.a * shifted + 0.5 * half.b * (kick * first + smooth), args)
        x1 = x + whole.a * v + kick * whole.b * (first + 2 * second) / 3 + noise.of_x(whole)
        last = f.force(t1, x1, args)
        pushed = kick * (whole.beta * first + 4 * half.beta * second + last) / 6
        y1 = jnp.stack([x1, whole.beta * v + pushed + noise.of_v(whole, gamma)])
        return finished(start.y, y1, t1)._replace(after=State(t1, y1, last))


LEFT, RIGHT = 0.5 - 3**0.5 / 6, 0.5 + 3**0.5 / 6


@dataclass(frozen=True, repr=False)
class QUICSORTStepper(OfOrderThree):
    """Gauss' rule of two points for the force, on the path of a polynomial noise.

    Source: Foster, Lyons, Oberhauser 2021, arXiv:2101.03446; Chada et al. 2024, arXiv:2311.05025, after these.
    """

    name: ClassVar[Any] = "QUICSORT"
    evaluations: ClassVar[tuple[int, int, int]] = (0, 2, 0)

    def step(self, f: LangevinField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        x, v, h, gamma, u, _ = motion = _motion(f, start, t1, args)
        noise, width = self.noise(f, start, t1, args, motion), t1 - start.t
        whole, left, right, part = (free(gamma, c * h, 3) for c in (1.0, LEFT, RIGHT, 1 / 3))
        smooth, shifted = noise.w - 12 * noise.k, v + noise.area + 6 * noise.k
        at = x + left.a * shifted + LEFT * left.b * smooth
        one = u * h * f.force(start.t + LEFT * width, at, args)
        at = x + right.a * shifted + RIGHT * right.b * smooth + part.a * one
        two = u * h * f.force(start.t + RIGHT * width, at, args)
        x1 = x + whole.a * v + 0.5 * (right.a * one + left.a * two) + noise.of_x(whole)
        v1 = whole.beta * v + 0.5 * (right.beta * one + left.beta * two) + noise.of_v(whole, gamma)
        return finished(start.y, jnp.stack([x1, v1]), t1)
