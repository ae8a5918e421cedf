"""Functions of time that are given by a formula and jump."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.inputs import checks
from jaxdiffeq.inputs.base import Input, Prepared
from jaxdiffeq.primitives.search import count_until
from jaxdiffeq.problems.ravel import common_dtype, inexact

MOST = 2**18  # periods in a span
SPARE = 3  # periods: those that an end of the span cuts, and one for rounding


class SquareWave(Input):
    """u(t) = high for phase + k·period ≤ t < phase + (k + duty)·period, k any integer, else low.

    A solve lands on every jump, unless `land=False`. Their number has to be known when it is compiled: it follows from
    the period, if that has a value then; under `jit` or `vmap` over periods, `count` is the most of them that the span
    may hold. A span that turns out to hold more ends the solve with `event_limit_reached`.
    Shapes: period, duty and phase []; low and high [*shape], and so is u(t).
    Errors: `ValueError` for a period that is not positive, and a duty outside of (0, 1).
    """

    period: jax.Array
    duty: jax.Array
    low: Any
    high: Any
    phase: jax.Array
    count: int | None = eqx.field(static=True)
    land: bool = eqx.field(static=True)
    edges: Any
    """all jumps within the span of a solve, a rise first"""

    def __init__(
        self,
        period: Any,
        duty: Any = 0.5,
        low: Any = 0.0,
        high: Any = 1.0,
        phase: Any = 0.0,
        *,
        count: int | None = None,
        land: bool = True,
    ):
        errors.positive(period, "period")
        checks.share(duty, "duty")
        if count is not None:
            errors.positive_integer(count, "count")
        self.period, self.duty, self.phase = (_number(x) for x in (period, duty, phase))
        self.low, self.high, self.count, self.land, self.edges = low, high, count, land, None

    def at(self, t: jax.Array) -> jax.Array:
        if self.edges is not None:
            edges = jnp.asarray(self.edges)
            return self._either(count_until(edges, t.astype(common_dtype((t.dtype, edges.dtype)))) % 2 == 1)
        period, phase, duty, t = _alike(self.period, self.phase, self.duty, t)
        passed = (t - phase) / period
        return self._either(passed - jnp.floor(passed) < duty)

    def _either(self, is_high: jax.Array) -> jax.Array:
        return jnp.where(is_high, self.high, self.low)

    def prepared(self, t0: Any, t1: Any) -> Prepared:
        """All jumps from a period before the span to one after it, as numbers wherever they are known."""
        if not self.land:
            return Prepared(self)
        given = self.period, self.phase, self.duty, t0, t1
        # under `grad` alone, what is traced is a number
        known = [x if errors.concrete(x) else lax.stop_gradient(x) for x in given]
        concrete = errors.all_concrete(known)
        period, phase, _, *ends = _alike(*known)
        xp = np if concrete else jnp
        low, high = xp.minimum(*ends), xp.maximum(*ends)
        count = self._count((high - low) / period if concrete else None)
        first = xp.floor((low - phase) / period) - 1
        period, phase, duty, *_ = _alike(*given)
        numbers = first.astype(period.dtype) + xp.arange(count).astype(period.dtype)
        xp = np if errors.all_concrete(given) else jnp
        edges = (phase + period * xp.stack([numbers, numbers + duty], axis=1)).reshape(-1)
        complete = (edges[-1] if errors.concrete(edges) else lax.stop_gradient(edges[-1])) >= high
        if concrete:
            checks.periods(bool(complete), self.count, (high - low) / period)
        return Prepared(self.moved(edges), jumps=edges, complete=True if concrete else complete)

    def moved(self, jumps: Any) -> SquareWave:
        return eqx.tree_at(lambda u: u.edges, self, jumps, is_leaf=lambda x: x is None)

    def _count(self, held: Any) -> int:
        """How many periods to look at; the span holds so many, or None if that is not known."""
        if self.count is not None:
            return self.count + SPARE
        checks.periods_known(held is not None)
        checks.periods(float(held) < MOST, None, held)
        return 1 << math.ceil(math.log2(float(held) + SPARE))  # a new program only now and then


def _number(x: Any) -> Any:
    """A plain number stays one, of which a traced program knows the value."""
    return float(x) if isinstance(x, int) else x if isinstance(x, float) else inexact(x, float)


def _alike(*given: Any) -> list[Any]:
    """Numbers in one dtype, by numpy if all of them are known, even while something else is traced."""
    if errors.all_concrete(given):
        return [np.asarray(x, np.float64) for x in given]
    dtype = common_dtype(tuple(x.dtype for x in given if not isinstance(x, float)))
    return [jnp.asarray(x, dtype) if isinstance(x, float) else x.astype(dtype) for x in given]
