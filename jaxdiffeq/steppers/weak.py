"""Methods of weak order two: right in law, with random numbers of few values in place of the increments.

They take every column bᵏ of the diffusion on its own, at arguments of its own: a call of it for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdiffeq.problems.driven_field import DrivenField
from jaxdiffeq.steppers.stochastic import (
    BOTH,
    STRATONOVICH,
    OfStochasticTableau,
    Sizes,
    StochasticDefaults,
    added,
    finished,
    scaled,
    sizes,
    times,
    weighted,
)
from jaxdiffeq.tableaux.stochastic import WeakItoTableau, WeakStratonovichTableau
from jaxdiffeq.types import Increment, State, Step

THIRD = 0.9674215661017014
"""A normal number is outside of ± this with probability 1/3."""


def three_point(inc: Increment, root: jax.Array) -> jax.Array:
    """√(3·dt)·(1, 0, −1) with probabilities 1/6, 2/3, 1/6, from W: its first five moments. Shapes: W's; √dt []."""
    root = jnp.real(root).astype(inc.w.dtype)
    return jnp.where(jnp.abs(inc.w) > THIRD * root, jnp.sign(inc.w) * (3**0.5 * root), 0)


def signs(key: jax.Array, m: int, dtype: Any) -> jax.Array:
    """±1, one for each pair, antisymmetric. Shapes: [m, m].

    With fewer, m − 1 as often in the literature, products of two with an index in common have a mean, and for three
    noises that do not commute the order is one.
    """
    upper = jnp.triu(jax.random.rademacher(key, (m, m), dtype), 1)
    return upper - upper.T


@dataclass(frozen=True, repr=False)
class WeakDefaults(OfStochasticTableau):
    """Stages of the drift, and of every column of the diffusion."""

    @property
    def weak_order(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.tableau.weak_order

    @property
    def evaluations(self) -> tuple[int, int, int]:
        return 0, len({i for i in self.tableau.same_drift if i >= 0}), 0

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        size = sizes(start, t1)
        inc = f.over(start.t, t1, args)
        numbers = three_point(inc, size.root)
        if f.kind.additive:
            return finished(start.y, self.of_times(f, size, numbers, args), t1)
        return finished(start.y, self.of_columns(Columns(f, size, args), numbers.reshape(-1), inc.key), t1)

    def of_times(self, f: DrivenField, size: Sizes, numbers: jax.Array, args: Any) -> jax.Array:
        """y₁ with a diffusion that depends on t alone: all columns at once, none moved by another."""
        tableau, (t, y, width, dt, *_) = self.tableau, size
        known = {c: f.diffusion(t + c * width, y, args) for c in dict.fromkeys(tableau.c1)}
        b = [known[c] for c in tableau.c1]
        a: list[Any] = []
        for i in range(tableau.stages):
            moved = times(f, weighted(tableau.b0[i], b), numbers)
            a.append(self.drift(a, moved, (f, size, args)))
        return added(y, scaled(dt, weighted(tableau.alpha, a)), times(f, weighted(tableau.beta1, b), numbers))

    def drift(self, before: list, moved: jax.Array | None, where: tuple) -> jax.Array | None:
        """a of the stage after those `before`, by noise `moved` so far; None where it is not needed."""
        (f, size, args), i = where, len(before)
        same = self.tableau.same_drift[i]
        if same == i:
            at = added(size.y, scaled(size.dt, weighted(self.tableau.a0[i], before)), moved)
            return f(size.t + self.tableau.c0[i] * size.width, at, args)
        return before[same] if same >= 0 else None

    def of_columns(self, columns: Columns, numbers: jax.Array, key: jax.Array) -> jax.Array:
        """y₁. Shapes: numbers [m]."""
        raise NotImplementedError


@dataclass(frozen=True)
class Columns:
    """The columns of b, [m, *state], each at an argument of its own."""

    f: DrivenField
    size: Sizes
    args: Any

    def at_start(self) -> jax.Array:
        return self._all(self.size.t, self.size.y)

    def own(self, c: float, z: jax.Array) -> jax.Array:
        """bᵏ(t + c·dt, zᵏ) for each k."""
        t, k = self.size.t + c * self.size.width, jnp.arange(len(z))
        return jax.vmap(lambda z, k: self._all(t, z)[k])(z, k)

    def others(self, z: jax.Array) -> jax.Array:
        """bᵏ(t, zˡ), [l, k, *state]."""
        return jax.vmap(lambda z: self._all(self.size.t, z))(z)

    def _all(self, t: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.moveaxis(self.f.kind.matrix(self.f.diffusion(t, y, self.args)), -1, 0)


def total(numbers: jax.Array, b: jax.Array | None) -> jax.Array | None:
    """Σₖ bᵏ·numbersₖ, also of pairs. Shapes: [m] and [m, *state], or [m, m] and [m, m, *state], ↦ [*state]."""
    return None if b is None else jnp.tensordot(numbers.astype(b.dtype), b, numbers.ndim)


def each(numbers: jax.Array, b: jax.Array | None) -> jax.Array | None:
    """bᵏ·numbersₖ. Shapes: [m] and [m, *state]."""
    return None if b is None else b * numbers.astype(b.dtype).reshape(-1, *[1] * (b.ndim - 1))


@dataclass(frozen=True, repr=False)
class WeakIto(WeakDefaults):
    """See `WeakItoTableau`: I are the three-point numbers, Iₖₗ = ½(Iₖ Iₗ ± dt), Iₖₖ = ½(Iₖ² − dt).

    Source: Rößler 2009, doi:10.1137/060673308; Debrabant, Rößler 2009, doi:10.1016/j.apnum.2008.03.012.
    """

    tableau: WeakItoTableau

    def of_columns(self, columns: Columns, numbers: jax.Array, key: jax.Array) -> jax.Array:
        tableau, (_, y, _, dt, root, over_root) = self.tableau, columns.size
        where = columns.f, columns.size, columns.args
        a: list[Any] = []
        b: list[jax.Array] = []
        for i in range(tableau.stages):
            moved = total(numbers, weighted(tableau.b0[i], b))
            a.append(self.drift(a, moved, where))
            own = scaled(root, weighted(tableau.b1[i], b))
            if own is None:
                b.append(columns.at_start())
            else:
                b.append(columns.own(tableau.c1[i], added(own, added(y, scaled(dt, weighted(tableau.a1[i], a)))[None])))
        h, shrink = (jnp.real(x).astype(numbers.dtype) for x in (dt, over_root))
        twice = 0.5 * (numbers * numbers - h) * shrink
        y1 = added(y, scaled(dt, weighted(tableau.alpha, a)), total(numbers, weighted(tableau.beta1, b)))
        y1 = added(y1, total(twice, weighted(tableau.beta2, b)))
        if numbers.size == 1:
            return y1
        pairs = 0.5 * (jnp.outer(numbers, numbers) - h * signs(key, numbers.size, numbers.dtype)) * shrink
        return added(y1, *self.mixed(columns, b, numbers, pairs))

    def mixed(self, columns: Columns, b: Sequence[jax.Array], numbers: jax.Array, pairs: jax.Array) -> list:
        """Σₖ Σₗ≠ₖ bᵏ(t, Vˡᵢ) (β3ᵢ Iₖ + β4ᵢ Iₖₗ/√dt) for each i; Iₖₗ/√dt is in `pairs`."""
        tableau, (_, y, _, _, root, _) = self.tableau, columns.size
        found = []
        for row, beta3, beta4 in zip(tableau.b2, tableau.beta3, tableau.beta4, strict=True):
            if beta3 == beta4 == 0:
                continue
            factors = (beta3 * numbers[:, None] + beta4 * pairs) * (1 - jnp.eye(numbers.size, dtype=numbers.dtype))
            moved = weighted(row, b)
            if moved is None:
                found.append(total(jnp.sum(factors, 1), b[0]))
            else:
                found.append(total(factors.T, columns.others(y[None] + root * moved)))
        return found


@dataclass(frozen=True, repr=False)
class WeakStratonovich(WeakDefaults):
    """See `WeakStratonovichTableau`: J are the three-point numbers, Jₖₗ = ±√dt·Jₗ for k < l, and Jₗₖ = −Jₖₗ.

    Source: Rößler 2007, doi:10.1007/s10543-007-0130-3.
    """

    tableau: WeakStratonovichTableau

    interpretations: ClassVar[tuple[str, ...]] = (STRATONOVICH,)

    def of_columns(self, columns: Columns, numbers: jax.Array, key: jax.Array) -> jax.Array:
        tableau, (_, y, _, dt, root, _) = self.tableau, columns.size
        where = columns.f, columns.size, columns.args
        a: list[Any] = []
        b: list[jax.Array] = []
        for i in range(tableau.stages):
            moved = total(numbers, weighted(tableau.b0[i], b))
            a.append(self.drift(a, moved, where))
            own, cross = each(numbers, weighted(tableau.b1[i], b)), each(numbers, weighted(tableau.b3[i], b))
            if own is None and cross is None:
                b.append(columns.at_start())
                continue
            at = added(y, scaled(dt, weighted(tableau.a1[i], a)), None if cross is None else jnp.sum(cross, 0))[None]
            z = added(jnp.broadcast_to(at, b[0].shape), own, None if cross is None else -cross)
            b.append(columns.own(tableau.c1[i], z))
        y1 = added(y, scaled(dt, weighted(tableau.alpha, a)), total(numbers, weighted(tableau.beta1, b)))
        if numbers.size == 1:
            return y1
        pairs = self.pairs(key, numbers)
        for row, beta in zip(tableau.b2, tableau.beta2, strict=True):
            if beta != 0:
                moved = weighted(row, b)
                assert moved is not None
                v = y[None] + jnp.tensordot(pairs.astype(y.dtype), moved, 1)
                y1 = y1 + beta * root * jnp.sum(columns.own(0.0, v), 0)
        return y1

    def pairs(self, key: jax.Array, numbers: jax.Array) -> jax.Array:
        """Jₖₗ/√dt, [m, m]."""
        two_point = jax.random.rademacher(key, numbers.shape, numbers.dtype)
        upper = jnp.triu(jnp.outer(two_point, numbers), 1)
        return upper - upper.T


@dataclass(frozen=True, repr=False)
class PL1WMAStepper(StochasticDefaults):
    """y₁ = y + ½(a + a(t₁, y + a·dt + b·I))·dt + b·I,   b the mean of b(t) and b(t₁), I the three-point numbers.

    Source: Kloeden, Platen, 15.1, eq. (1.4).
    """

    name: ClassVar[Any] = "PL1WMA"
    interpretations: ClassVar[tuple[str, ...]] = BOTH
    serves: ClassVar[Any] = ("additive",)
    weak_order: ClassVar[Any] = 2
    evaluations: ClassVar[tuple[int, int, int]] = (0, 2, 0)

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        t, y, _, dt, root, _ = sizes(start, t1)
        a, numbers = f(t, y, args), three_point(f.over(t, t1, args), root)
        noise = f.times(0.5 * (f.diffusion(t, y, args) + f.diffusion(t1, y, args)), numbers)
        return finished(y, y + 0.5 * dt * (a + f(t1, y + dt * a + noise, args)) + noise, t1)
