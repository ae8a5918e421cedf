"""Stochastic Runge–Kutta methods of strong order up to one and a half: one stepper for each family of tableaux."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdiffeq.problems.driven_field import DrivenField
from jaxdiffeq.steppers.stochastic import (
    BOTH,
    STRATONOVICH,
    OfStochasticTableau,
    added,
    finished,
    scaled,
    sizes,
    times,
    weighted,
)
from jaxdiffeq.tableaux.stochastic import AdditiveTableau, FosterTableau, SRATableau, SRITableau
from jaxdiffeq.types import Increment, State, Step


def integral(inc: Increment) -> jax.Array:
    """I₁₀/dt, the mean of W over the step."""
    return inc.area + 0.5 * inc.w


@dataclass(frozen=True, repr=False)
class SRA(OfStochasticTableau):
    """Additive noise: the diffusion is known at any time, and stages are those of the drift. See `SRATableau`.

    The error is the distance to the solution of order one by Euler's method: |drift's part| + |noise's part|.
    Source: Rößler 2010, doi:10.1137/09076636X; Rackauckas, Nie 2017, doi:10.3934/dcdsb.2017133.
    """

    tableau: SRATableau

    interpretations: ClassVar[tuple[str, ...]] = BOTH
    serves: ClassVar[Any] = ("additive",)
    strong_order: ClassVar[Any] = 1.5
    weak_order: ClassVar[Any] = 2
    error_order: ClassVar[Any] = 1.5

    @property
    def evaluations(self) -> tuple[int, int, int]:
        return 0, sum(x != 0 for x in self.tableau.alpha), 0

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        tableau, (t, y, width, dt, *_) = self.tableau, sizes(start, t1)
        inc = f.over(t, t1, args)
        mean = integral(inc)
        b = of_time(tableau, f, t, y, width, args)
        slopes: list[jax.Array] = []
        for c, row, noise in zip(tableau.c0, tableau.a, tableau.b, strict=True):
            at = added(y, scaled(dt, weighted(row, slopes)), times(f, weighted(noise, b), mean))
            slopes.append(f(t + c * width, at, args))
        ends = times(f, weighted(tableau.beta2, b), mean)
        y1 = added(y, scaled(dt, weighted(tableau.alpha, slopes)), times(f, weighted(tableau.beta1, b), inc.w), ends)
        error = jnp.abs(dt * weighted(tableau.error_weights, slopes))
        return finished(y, y1, t1, added(error, None if ends is None else jnp.abs(ends)))


def of_time(tableau: SRATableau, f: DrivenField, t: jax.Array, y: jax.Array, width: jax.Array, args: Any) -> list:
    """b at the times of the stages; None where it is not needed."""
    b: list[Any] = []
    for i, first in enumerate(tableau.times):
        new = first == i
        b.append(f.diffusion(t + tableau.c1[i] * width, y, args) if new else b[first] if first >= 0 else None)
    return b


@dataclass(frozen=True, repr=False)
class SRI(OfStochasticTableau):
    """Noise of which every component drives its own component of y, which alone its size depends on, or one W for all.

    See `SRITableau`. The error is the distance to the solution of order one: |drift's part| + |noise's part|.
    Source: Rößler 2010, doi:10.1137/09076636X; Rackauckas, Nie 2017, doi:10.3934/dcdsb.2017133.
    """

    tableau: SRITableau

    serves: ClassVar[Any] = ("diagonal", "scalar", "additive")
    strong_order: ClassVar[Any] = 1.5
    weak_order: ClassVar[Any] = 2
    error_order: ClassVar[Any] = 1.5

    @property
    def evaluations(self) -> tuple[int, int, int]:
        return 0, len(set(self.tableau.same_drift)), 0

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        tableau, (t, y, width, dt, root, over_root) = self.tableau, sizes(start, t1)
        inc = f.over(t, t1, args)
        mean, w = integral(inc), inc.w
        real = lambda x: jnp.real(x).astype(w.dtype)
        twice = 0.5 * (w * w - real(dt)) * real(over_root)
        thrice = w * (w * w - 3 * real(dt)) * real(over_root) ** 2 / 6
        a: list[jax.Array] = []
        b: list[jax.Array] = []
        for i in range(tableau.stages):
            same, same_b = tableau.same_drift[i], tableau.same_diffusion[i]
            at = added(y, scaled(dt, weighted(tableau.a0[i], a)), times(f, weighted(tableau.b0[i], b), mean))
            at_b = y
            if not f.kind.additive:
                at_b = added(y, scaled(dt, weighted(tableau.a1[i], a)), scaled(root, weighted(tableau.b1[i], b)))
            b.append(b[same_b] if same_b < i else f.diffusion(t + tableau.c1[i] * width, at_b, args))
            a.append(a[same] if same < i else f(t + tableau.c0[i] * width, at, args))
        third = f.times(weighted(tableau.beta3, b), mean) + f.times(weighted(tableau.beta4, b), thrice)
        second = f.times(weighted(tableau.beta1, b), w) + f.times(weighted(tableau.beta2, b), twice)
        y1 = y + dt * weighted(tableau.alpha, a) + second + third
        error = jnp.abs(dt * weighted(tableau.error_weights, a)) + jnp.abs(third)
        return finished(y, y1, t1, error)


@dataclass(frozen=True, repr=False)
class AdditiveSRK(OfStochasticTableau):
    """Additive noise, by W and H alone. See `AdditiveTableau`.

    A diffusion that changes with t, by b′ a unit of time, adds b′·∫(s − t) dW = b′·dt·(W/2 − H) to y₁.
    Source: Foster, dos Reis, Strange 2024, arXiv:2210.17543.
    """

    tableau: AdditiveTableau

    interpretations: ClassVar[tuple[str, ...]] = BOTH
    serves: ClassVar[Any] = ("additive",)

    @property
    def strong_order(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.tableau.strong_order

    @property
    def weak_order(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 2 if self.strong_order > 1 else 1

    @property
    def error_order(self) -> float | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return None if self.tableau.e is None else 1.5

    @property
    def evaluations(self) -> tuple[int, int, int]:
        return 0, self.tableau.stages, 0

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        tableau, (t, y, width, dt, *_) = self.tableau, sizes(start, t1)
        w, area, _ = f.over(t, t1, args)
        b, b1 = f.diffusion(t, y, args), f.diffusion(t1, y, args)
        slopes: list[jax.Array] = []
        for i, row in enumerate(tableau.a):
            noise = f.times(b, tableau.w[i] * w + tableau.h[i] * area)
            slopes.append(f(t + tableau.c[i] * width, added(y, scaled(dt, weighted(row, slopes)), noise), args))
        noise = f.times(b, w) + f.times(b1 - b, 0.5 * w - area)
        y1 = y + dt * weighted(tableau.b, slopes) + noise
        error = None if tableau.e is None else dt * weighted(tableau.e, slopes)
        return finished(y, y1, t1, error)


@dataclass(frozen=True, repr=False)
class FosterSRK(OfStochasticTableau):
    """Stratonovich, any noise, by W and H. See `FosterTableau`.

    Source: Foster, dos Reis, Strange 2024, arXiv:2210.17543; Foster 2023, arXiv:2311.14201.
    """

    tableau: FosterTableau

    interpretations: ClassVar[tuple[str, ...]] = (STRATONOVICH,)
    directions: ClassVar[int] = 2
    strong_order: ClassVar[Any] = 0.5
    weak_order: ClassVar[Any] = 1

    @property
    def strong_orders(self) -> MappingProxyType:  # pyright: ignore[reportIncompatibleVariableOverride]
        commute = dict.fromkeys(("diagonal", "scalar", "commutative"), self.tableau.commutative_order)
        return MappingProxyType({**commute, "additive": 1.5})

    @property
    def error_order(self) -> float | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As far as the noise is not additive."""
        return None if self.tableau.e is None else 1.0

    @property
    def evaluations(self) -> tuple[int, int, int]:
        return 0, sum(self.tableau.drifts), 0

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        tableau, (t, y, width, dt, *_) = self.tableau, sizes(start, t1)
        w, area, _ = f.over(t, t1, args)
        a: list[Any] = []
        b: list[Any] = []

        def moved(row, row_w, row_h):
            noise = times(f, weighted(row_w, b), w), times(f, weighted(row_h, b), area)
            return scaled(dt, weighted(row, a)), *noise

        for i, c in enumerate(tableau.c):
            at, time = added(y, *moved(tableau.a[i], tableau.w[i], tableau.h[i])), t + c * width
            a.append(f(time, at, args) if tableau.drifts[i] else None)
            b.append(f.diffusion(time, at, args) if tableau.diffusions[i] else None)
        y1 = added(y, *moved(tableau.b, tableau.b_w, tableau.b_h))
        if tableau.e is None:
            return finished(y, y1, t1)
        return finished(y, y1, t1, added(jnp.zeros_like(y), *moved(tableau.e, tableau.e_w, tableau.e_h)))
