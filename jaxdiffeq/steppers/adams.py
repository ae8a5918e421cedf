"""Adams–Bashforth–Moulton of variable order: the past as modified divided differences on whatever steps were taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.engine.control import PIDController
from jaxdiffeq.primitives.constant_matmul import blend, constant_matmul, total
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.steppers.base import StepperDefaults
from jaxdiffeq.steppers.multistep import order_change
from jaxdiffeq.types import PyTree, State, Step

WORTHWHILE = 0.9, 1.5
"""a change of the step within these factors is not made"""


class AdamsMemory(NamedTuple):
    """The past, and the order of the next step."""

    differences: jax.Array
    """Φⱼ for j = 0 … orders, [orders + 1, *state], zero from `known` on"""
    widths: jax.Array
    """of the steps before, signed, the last one first, [orders]; ones for those not yet taken"""
    known: jax.Array
    """slopes that are known"""
    order: jax.Array
    level: jax.Array
    """see `choose`"""


class _Grid(NamedTuple):
    """Where the step stands among those before, in its own units; zero where nothing is known. Shapes: [orders + 1]."""

    ahead: jax.Array
    """dt/(t₁ − tₙ₋ⱼ)"""
    behind: jax.Array
    """(t₀ − tₙ₋ⱼ)/dt"""
    beta: jax.Array
    """Πᵢ (t₁ − tₙ₋ᵢ)/(t₀ − tₙ₋ᵢ₋₁), i < j"""


@dataclass(frozen=True)
class AdamsPECE(StepperDefaults):
    """p = y + dt Σⱼ gⱼ Φⱼ*, j < k,   y₁ = p + dt gₖ Φₖ(p),   with the slopes f(t₁, p) and f(t₁, y₁).

    The predictor has order k, the corrector k + 1; the error that is controlled is that of order k. Φⱼ are divided
    differences of the slopes with each factor scaled by the step, gⱼ the integrals of the polynomials that go with
    them. The method starts at order 1 with one slope.
    Source: Shampine, Gordon, Computer Solution of Ordinary Differential Equations, 1975; Hairer, Nørsett, Wanner,
    Solving ODEs I, III.5 and III.7.
    """

    orders: int

    regularisers: ClassVar[tuple[str, ...]] = ("error", "energy")
    controller: ClassVar[Any] = PIDController()
    error_order = 2
    """of the first step; later ones say theirs"""
    evaluations = (1, 2, 0)
    """Calls of f: at the start, in an attempted step, and in the dense output of one."""
    name: ClassVar[str] = "Adams"

    def __repr__(self) -> str:
        return "Adams()"

    @property
    def order(self) -> int:
        """The highest one."""
        return self.orders

    @property
    def degree(self) -> int:
        """Of the dense output's polynomial."""
        return self.orders + 1

    @property
    def dense_order(self) -> int:
        return self.orders

    def init(self, f: VectorField, t: jax.Array, y: jax.Array, args: PyTree) -> AdamsMemory:
        rest = jnp.zeros((self.orders, *y.shape), y.dtype)
        one = jnp.ones((), jnp.int32)
        level = jnp.full((), jnp.inf, jnp.finfo(y.dtype).dtype)
        return AdamsMemory(
            jnp.concatenate([f(t, y, args)[None], rest]), jnp.ones(self.orders, t.dtype), one, one, level
        )

    def step(self, f: VectorField, start: State, t1: jax.Array, args: PyTree, tolerance: Any) -> Step:
        t, y, memory, k = start.t, start.y, start.memory, start.memory.order
        width = t1 - t
        dt = width.astype(y.dtype)
        grid = self._grid(memory, width)
        weights = self._integrals(grid)
        stars = _each(grid.beta, memory.differences)
        numbers = jnp.arange(self.orders + 1, dtype=jnp.int32)
        past = _each(numbers < k, stars)

        predicted = y + dt * total(_each(weights, past))
        new = f(t1, predicted, args) - total(past)
        y1 = predicted + dt * weights[k].astype(y.dtype) * new
        error = dt * (weights[k] - weights[k - 1]).astype(y.dtype) * new

        known = jnp.minimum(memory.known + 1, self.orders + 1)
        slope = f(t1, y1, args)
        error = error + 0 * slope  # a slope that is not finite must not enter the past
        differences = _each(numbers < known, _chain(slope, stars))
        ratios = (jnp.abs(differences) / tolerance.scale(y, y1)[None]).reshape(self.orders + 1, -1)
        sizes = jnp.sqrt(jnp.sum(ratios * ratios, axis=1) / y.size)
        shrinks = jnp.concatenate([weights[:1], weights[:-1] - weights[1:]])  # gⱼ fall with j
        errors = jnp.abs(width).astype(sizes.dtype) * shrinks * sizes
        order, step_factor, level = self._choose(*lax.stop_gradient((errors, memory, width, known)))
        widths = jnp.concatenate([width[None], memory.widths[:-1]])
        after = State(t1, y1, AdamsMemory(differences, widths, known, order, level))
        dense = y, dt, past, new, (grid.ahead, grid.behind), k
        return Step(after, error, dense, True, error_order=k + 1, step_factor=step_factor.astype(width.dtype))

    def _grid(self, memory: AdamsMemory, width: jax.Array) -> _Grid:
        """Distances are sums of widths: differences of times would be rounded."""
        real, numbers = memory.level.dtype, np.arange(self.orders)
        there = jnp.arange(1, self.orders + 1, dtype=jnp.int32) < memory.known
        before = jnp.sum(jnp.where(numbers <= numbers[:, None], memory.widths[None], 0), axis=1)  # t₀ − tₙ₋ⱼ, j = 1 …
        before = jnp.where(there, before, width)
        zero = jnp.zeros(1, width.dtype)
        reach = width + jnp.concatenate([zero, before])
        ratios = jnp.where(there, reach[:-1] / before, 0).astype(real)
        beta = jnp.concatenate([jnp.ones(1, real), ratios])
        shift = 1
        while shift <= self.orders:  # running products, twice as long each time
            beta = beta * jnp.concatenate([jnp.ones(shift, real), beta[:-shift]])
            shift *= 2
        behind = jnp.concatenate([zero, before / width]).astype(real)
        return _Grid((width / reach).astype(real), behind, beta)

    def _integrals(self, grid: _Grid) -> jax.Array:
        """gⱼ = ∫ Πᵢ (t − tₙ₋ᵢ)/(t₁ − tₙ₋ᵢ) dt over the step, i < j, in units of its size. Shapes: [orders + 1]."""
        moments = 1 / jnp.arange(1, self.orders + 2, dtype=grid.beta.dtype)
        found = [moments[0]]
        for j in range(self.orders):
            moments = moments[:-1] - moments[1:] * grid.ahead[j]
            found.append(moments[0])
        return jnp.stack(found)

    def _choose(self, errors: jax.Array, memory: AdamsMemory, width: jax.Array, known: jax.Array) -> tuple:
        """The next order, the factor by which the step should change, and the level of the error."""
        k = memory.order
        at = jnp.stack([k - 1, k, k + 1])
        allowed = (at >= 1) & (at <= self.orders) & (at < known)
        shift, step_factor, level = order_change(errors[jnp.minimum(at, self.orders)], k, allowed, width, memory.level)
        low, high = WORTHWHILE
        step_factor = jnp.where((step_factor < low) | (step_factor > high), step_factor, 1)
        return k + shift, step_factor, jnp.where(shift == 0, level.now, jnp.inf)

    def polynomial(self, f: VectorField, dense: Any, args: PyTree) -> jax.Array:
        """Coefficients in θ, [degree + 1, *state], of the integral of the polynomial that the corrector integrates."""
        y, dt, past, new, (ahead, behind), k = dense
        powers = np.arange(1, self.degree + 1)
        product = jnp.asarray(powers == 1, ahead.dtype)
        products = [product]
        for j in range(self.orders):
            raised = jnp.concatenate([jnp.zeros(1, product.dtype), product[:-1]])
            product = (raised + behind[j] * product) * ahead[j]
            products.append(product)
        integrals = jnp.stack(products) / powers[None].astype(ahead.dtype)
        numbers = jnp.arange(self.orders + 1, dtype=jnp.int32)
        slopes = past + _each(numbers == k, jnp.broadcast_to(new[None], past.shape))
        table = integrals.astype(y.dtype).reshape(*integrals.shape, *[1] * y.ndim)
        return jnp.concatenate([y[None], dt * blend(table, slopes[:, None])])


def _each(weights: jax.Array, rows: jax.Array) -> jax.Array:
    """Every row by its weight. Shapes: [rows], [rows, *state]."""
    return weights.astype(rows.dtype).reshape(-1, *[1] * (rows.ndim - 1)) * rows


def _chain(slope: jax.Array, stars: jax.Array) -> jax.Array:
    """Φⱼ₊₁ = Φⱼ − Φⱼ*, from the new slope on."""
    return slope[None] - constant_matmul(np.tril(np.ones((len(stars), len(stars))), -1), stars)
