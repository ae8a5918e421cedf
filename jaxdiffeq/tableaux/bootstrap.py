"""Dense output of explicit methods that have none of their own: each round of slopes raises the order by one."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.polynomial import legendre

from jaxdiffeq.tableaux.common import EPS, InterpolantWeights

Row = tuple[float, ...]


class _Slope(NamedTuple):
    """A stage as a value of dy/dt at θ, off by O(dt^(order + 1))."""

    stage: int
    theta: Fraction
    order: int


def bootstrapped(a: Sequence[Row], b: Row, c: Row, order: int, fsal: bool) -> InterpolantWeights:
    """Of that order: the polynomial u with u(0) = y, u(1) = y₁, and u′ = dt·f at both ends and order − 3 times between.

    If u has order d, then dt·f(u(θ)) is off by O(dt^(d+2)), and the polynomial through d − 2 such slopes has order
    d + 1. It begins with the cubic of the ends, and takes stages of the step for slopes where they are good enough.
    Source: Enright, Jackson, Nørsett, Thomsen 1986, doi:10.1145/7921.7923.
    """
    main, rows, times = len(b), list(a), list(c)
    orders = stage_orders(a, c)
    stages = [_Slope(i, Fraction(x), orders[i]) for i, x in enumerate(c) if 0 < x < 1]
    known = {d: [_nearest(stages, *place, d) for place in _places(d - 2)] for d in range(3, order)}
    if not fsal:
        rows, times = [*rows, b], [*times, 1.0]
    ends = _Slope(0, Fraction(0), order), _Slope(len(rows) - 1, Fraction(1), order)
    inner: list[_Slope] = []
    for d in range(max((d for d in known if all(known[d])), default=3), order):
        u, inner = _through([*ends, *inner], b), list(filter(None, known[d]))
        for (theta, _), slope in zip(_places(d - 2), known[d], strict=True):
            if slope is None:
                inner.append(_Slope(len(rows), theta, d))
                weights = [_value(u.get(i, ()), theta) for i in range(len(rows))]
                rows, times = [*rows, tuple(weights)], [*times, float(theta)]
    u = _through([*ends, *inner], b)
    powers = tuple(tuple(u.get(i, [Fraction(0)] * order)) for i in range(len(rows)))
    return InterpolantWeights(order, powers, tuple(times[main:]), tuple(rows[main:]))


def _nearest(slopes: list[_Slope], theta: Fraction, reach: float, order: int) -> _Slope | None:
    near = [s for s in slopes if s.order >= order and abs(s.theta - theta) < reach]
    return min(near, key=lambda s: abs(s.theta - theta), default=None)


def stage_orders(a: Sequence[Row], c: Row) -> list[int]:
    """Of the stages as solutions at their times, from below: a quadrature of slopes whose order is one less at least."""
    orders = [len(c) + 1]  # the first is exact
    for row, end in zip(a[1:], c[1:], strict=True):
        used = [j for j, w in enumerate(row) if w]
        most = 1 + min(orders[j] for j in used)
        rule = [(row[j], c[j]) for j in used]
        orders.append(next((p for p in range(most) if not _integrates(rule, end, p)), most))
    return orders


def _integrates(rule: list[tuple[float, float]], end: float, power: int) -> bool:
    """Σᵢ wᵢ xᵢᵖ = ∫ xᵖ dx over [0, end], to rounding."""
    terms = [w * x**power for w, x in rule] + [-(end ** (power + 1)) / (power + 1)]
    return abs(sum(terms)) <= 16 * EPS * sum(map(abs, terms))


def _places(n: int) -> Iterator[tuple[Fraction, float]]:
    """n of the n + 1 abscissae of Lobatto inside of [0, 1], and how far from each another will do.

    The one left out is in the middle, where u(1) says most: with all n of a symmetric rule it might say nothing.
    """
    inside = np.sort(legendre.Legendre.basis(n + 2).deriv().roots()).real / 2 + 0.5
    gaps = np.diff([0.0, *inside, 1.0])
    for i, x in enumerate(inside):
        if i != n // 2:
            yield Fraction(float(x)).limit_denominator(1000), min(gaps[i], gaps[i + 1]) / 2


def _through(slopes: list[_Slope], b: Row) -> dict[int, list[Fraction]]:
    """By stage, its weight as coefficients of θ¹, θ², … in u = Σⱼ kⱼ·∫Lⱼ + (Σᵢ bᵢ kᵢ − Σⱼ kⱼ·∫₀¹Lⱼ)·∫N/∫₀¹N.

    Lⱼ are Lagrange's polynomials of the slopes' times, N is zero at all of these.
    """
    times = [s.theta for s in slopes]
    bump = _integral(_vanishing(times))
    bump = [x / sum(bump) for x in bump]
    weights = {i: [Fraction(w) * x for x in bump] for i, w in enumerate(b) if w}
    for s in slopes:
        others = [x for x in times if x != s.theta]
        scale = math.prod([s.theta - x for x in others])
        under = [*_integral([x / scale for x in _vanishing(others)]), Fraction(0)]
        own = [x - sum(under) * y for x, y in zip(under, bump, strict=True)]
        weights[s.stage] = [x + y for x, y in zip(own, weights.get(s.stage, [Fraction(0)] * len(own)), strict=True)]
    return weights


def _vanishing(places: list[Fraction]) -> list[Fraction]:
    """Coefficients of Π (θ − place), from θ⁰ on."""
    found = [Fraction(1)]
    for x in places:
        found = [low - x * high for low, high in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found


def _integral(coefficients: list[Fraction]) -> list[Fraction]:
    """From θ¹ on."""
    return [x / (p + 1) for p, x in enumerate(coefficients)]


def _value(coefficients: Sequence[Fraction], theta: Fraction) -> float:
    """Of those from θ¹ on."""
    return float(sum(x * theta ** (p + 1) for p, x in enumerate(coefficients)))
