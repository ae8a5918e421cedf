"""Where conditions cross zero in a step: found on its interpolant, then landed on by the step itself.

A step in which a condition crosses is taken again to the root that its interpolant has, and again, to the root of that
shorter step, or by Newton's method, until the condition at its end is zero to rounding. What it crosses is known before
and after, so no attempt leaves the bracket. The state there is the method's own, and the time is the root of what the
method computed, whose derivative the implicit function theorem gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.algebra.bracket import root
from jaxdiffeq.engine.interpolant import evaluate, slope
from jaxdiffeq.primitives.row_buffer import read
from jaxdiffeq.primitives.varying_axes import vary_like
from jaxdiffeq.types import Inputs, StepView

WHERE = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # in a step: conditions are asked for at its ends and at four points inside
ULPS = 4  # of t, to which a root is landed on
TRIES = 20  # to land
STALLED = 0.5  # of the last correction: one larger than this is rounding of the condition, after four of them
GRAZING = 1e-4  # the rate of a condition at its root, over its size per step, below which it hardly crosses


class Info(NamedTuple):
    """What a condition or an affect may ask besides (t, y, args), by a parameter named `info`."""

    dy: Any
    """dy/dt, of the step's interpolant"""
    dt: Any
    """the size of the step, with its sign"""
    t_before: Any
    y_before: Any
    """where the step began"""
    count: Any
    """events so far"""


class Tried(NamedTuple):
    """How far landing on a root has come; in `Aim` one array, since a program pays for each number that it carries."""

    low: Any
    high: Any
    """between which distances from the start of the step the root lies"""
    moved: Any
    """how far the last correction went"""
    tries: Any
    sure: Any
    """a step to `high` has crossed"""
    sign: Any
    """of the condition before the root"""


class Aim(NamedTuple):
    """A root to land on."""

    at: jax.Array
    """its time, infinity if there is none"""
    condition: jax.Array
    """the number of the condition whose root that is"""
    tried: jax.Array
    """a `Tried`, [6]"""
    scale: jax.Array
    """the size of every condition in the step that was cut short for it, per unit of time, [conditions]"""


class First(NamedTuple):
    """The first root in a step, by its interpolant."""

    crosses: jax.Array
    """there is one"""
    at: jax.Array
    """its distance from the start of the step"""
    condition: jax.Array
    """the number of the condition whose root that is"""
    sign: jax.Array
    """of it before the root"""
    high: jax.Array
    """the root is no farther than that"""


class Found(NamedTuple):
    """What a look at a step has found. Shapes: of all but `again`, [conditions]."""

    again: jax.Array
    """the step has to be taken again, with this aim"""
    aim: Aim
    fired: jax.Array
    """which conditions are zero at its end"""
    left: jax.Array
    """see `nothing_left`, [2, conditions]"""
    grazing: jax.Array
    """they hardly cross"""


def first_true(flags: jax.Array) -> jax.Array:
    """The number of the first that is true, 0 if none is. A minimum, since no kernel takes `argmax`."""
    numbers = jnp.arange(flags.size, dtype=jnp.int32)
    first = jnp.min(jnp.where(flags, numbers, flags.size))
    return jnp.where(first < flags.size, first, 0)


def pick(x: jax.Array, index: jax.Array) -> jax.Array:
    """x[index] as a sum, whose derivative is no scatter. Shapes: [n], [] ↦ []."""
    return jnp.sum(jnp.where(jnp.arange(x.size, dtype=jnp.int32) == index, x, 0))


def no_aim(n: int, t: jax.Array, y: jax.Array) -> Aim:
    never, zero = jnp.full_like(t, jnp.inf), jnp.zeros((), jnp.int32)
    return Aim(never, zero, jnp.zeros(len(Tried._fields), t.dtype), jnp.zeros(n, jnp.finfo(y.dtype).dtype))


def nothing_left(n: int, y: jax.Array) -> jax.Array:
    """Of what was landed on at the start of a step: |condition| that is zero there; its sign there, 0: of its rate."""
    return jnp.zeros((2, n), jnp.finfo(y.dtype).dtype)


def may_cross(values: jax.Array) -> jax.Array:
    """Whether any condition is zero, or changes its sign, among its values along a step. Shapes: [6, n] ↦ []."""
    return jnp.any(values * values[:1] <= 0)


@dataclass(frozen=True)
class Look:
    """The conditions along a step."""

    conditions: Callable
    """(t, y, args, info) ↦ [n]"""
    directions: Any
    """[n]: 1 for those that act where they rise along the way, −1 where they fall, 0 for both"""
    inputs: Inputs
    step: StepView
    count: jax.Array
    """events so far"""
    where: Any = WHERE
    asks: bool = False
    """somebody asks for `Info`"""
    rough: bool = False
    """the solution follows a Brownian path: what lies between the ends of a step, and rates, say little"""

    @property
    def width(self) -> jax.Array:
        return self.step.after.t - self.step.before.t

    def info(self, theta: jax.Array) -> Info:
        """Zero for dy if nobody asks for it."""
        before, width, dy = self.step.before, self.width, jnp.zeros_like(self.step.end)
        if self.asks and self.step.coefficients is not None:
            per = jnp.where(width == 0, 1, width).astype(dy.dtype)
            dy = slope(self.step.coefficients, theta.astype(dy.dtype)) / per
        return Info(dy, width, before.t, before.y, self.count)

    def at(self, theta: jax.Array, y: jax.Array | None = None) -> jax.Array:
        """The conditions at t₀ + θ·width. Shapes: [n]."""
        if y is None:
            assert self.step.coefficients is not None
            y = evaluate(self.step.coefficients, theta.astype(self.step.end.dtype))
        return self.conditions(self.step.before.t + theta * self.width, y, self.inputs.args, self.info(theta))

    def rate(self, theta: jax.Array) -> jax.Array:
        """Per unit of time on the way. Shapes: [n]."""
        at = jnp.full_like(self.width, theta)
        _, moved = jax.jvp(self.at, (at,), (jnp.ones_like(at),))
        return moved / jnp.abs(jnp.where(self.width == 0, 1, self.width)).astype(moved.dtype)

    def values(self) -> jax.Array:
        """Shapes: [6, n]."""
        theta = jnp.asarray(self.where, self.width.dtype)
        first, last = self.at(theta[0], self.step.before.y), self.at(theta[-1], self.step.end)
        return jnp.concatenate([first[None], jax.vmap(self.at)(theta[1:-1]), last[None]])

    def signs(self, values: jax.Array, rates: jax.Array, left: jax.Array) -> jax.Array:
        """Of the values, with those of neighbours in place of zeros inside, and of what was left at the start.

        `rates` are those at the start.
        """
        floor, side = left
        zero, signs = list(jnp.abs(values) <= floor[None]), list(jnp.sign(values))
        signs[0] = jnp.where(zero[0], jnp.where(side == 0, jnp.sign(rates), side), signs[0])
        for i in range(1, len(signs)):  # what is no more than rounding of the root that was left has not left it yet
            signs[i] = jnp.where(zero[i], signs[i - 1], signs[i])
        ends = (values[-1] == 0) & (floor == 0)
        signs[-1] = jnp.where(ends, -signs[-1], signs[-1])
        return jnp.stack(signs)

    def _wanted(self, signs: jax.Array) -> jax.Array:
        """Whether conditions that take these signs act. Shapes: [any, n]."""
        wanted = jnp.asarray(self.directions, signs.dtype)[None]
        return (wanted == 0) | (signs == wanted)

    def find(self, aim: Aim, left: jax.Array, values: jax.Array) -> Found:
        """The first root in an accepted step with these values."""
        # constants too vary, for the branch; see `cond`
        known = vary_like((jnp.asarray(self.where), jnp.asarray(self.directions)), self.step.end)
        return replace(self, where=known[0], directions=known[1])._find(aim, left, values)

    def _find(self, aim: Aim, left: jax.Array, values: jax.Array) -> Found:
        """Whether a step in which something crosses, or that was to land, is at the root; and if not, where to aim."""
        t0, t1, size, way = self.step.before.t, self.step.after.t, jnp.abs(self.width), jnp.sign(self.width)
        unit = ULPS * jnp.finfo(t1.dtype).eps * jnp.maximum(jnp.abs(t0), jnp.abs(t1))
        start, rates = jax.vmap(self.rate)(jnp.stack([0 * size, 0 * size + 1]))
        start, rates = lax.optimization_barrier((start, rates))
        signs = lax.optimization_barrier(self.signs(values, start, left))
        crossed = lax.optimization_barrier((signs[:-1] * signs[1:] < 0) & self._wanted(signs[1:]))
        first, landed = lax.optimization_barrier((self._first(values, signs, crossed, unit), aim.at == t1))
        crosses, looks = first.crosses, landed | first.crosses
        same, tried = landed & (~crosses | (first.condition == aim.condition)), Tried(*aim.tried)
        far, low, high = self._bracket(aim, landed, same, values[-1], rates, first, unit)
        far, low, high = lax.optimization_barrier((far, low, high))
        apart = jnp.abs(far - size)
        stalled, tired = (tried.tries >= 4) & (apart > STALLED * tried.moved), tried.tries >= TRIES
        stalled = stalled & (not self.rough)
        along = jnp.abs(read(values.T, aim.condition))  # where rounding is all that is left of it, it is at its root
        small = crosses | self.rough | (along[-1] <= jnp.sqrt(jnp.finfo(values.dtype).eps) * jnp.max(along))
        tight = ~crosses & (high - size <= unit)
        fires = landed & ((apart <= unit) | (stalled | tired) & small | tight & (tried.sure > 0))
        lost = landed & ~fires & (stalled | tired | tight)  # the interpolant crosses, the method does not
        fires, lost = lax.optimization_barrier((fires, lost))

        again = looks & ~fires & ~lost
        at = jnp.where(apart <= unit, t1, t0 + way * far)
        which, sign = jnp.where(crosses, first.condition, aim.condition), first.sign.astype(t1.dtype)
        sign = jnp.where(crosses, sign, tried.sign)
        sure, tries = landed & (crosses | (tried.sure > 0)), jnp.where(same, tried.tries, 0) + 1
        scale = jnp.where(landed, aim.scale, jnp.max(jnp.abs(values), 0) / size.astype(values.dtype))
        tried = jnp.stack(Tried(low, high, apart, tries, sure.astype(t1.dtype), sign))
        new = Aim(jnp.where(again, at, jnp.inf), which, tried, scale)
        floor = 2 * unit.astype(rates.dtype) * jnp.abs(rates)
        passed = (jnp.abs(values[-1]) <= floor) & (signs[-2] * jnp.sign(rates) < 0)
        passed &= self._wanted(jnp.sign(rates)[None])[0]
        passed |= (jnp.arange(len(self.directions), dtype=jnp.int32) == which) | jnp.any(crossed, 0)
        fired = fires & passed
        side = jnp.where(looks & ~fired, jnp.sign(rates), 0)
        floor = jnp.where(looks, jnp.where(fired, jnp.maximum(floor, 2 * jnp.abs(values[-1])), floor), 0)
        return Found(again, new, fired, jnp.stack([floor, side]), fired & (jnp.abs(rates) < GRAZING * scale))

    def _bracket(
        self, aim: Aim, landed: jax.Array, same: jax.Array, last: jax.Array, rates: jax.Array, first: First, unit: Any
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """How far from t₀ the root seems to be, and between which distances it is.

        Where this step was to land on it, as far on, or back, as the rate at its end says: its interpolant is rounded.
        """
        size, crosses, tried = jnp.abs(self.width), first.crosses, Tried(*aim.tried)
        rate, value = pick(rates, aim.condition), pick(last, aim.condition)
        newton = size - (value / rate).astype(size.dtype)
        seen = jnp.where(crosses, first.at, jnp.inf)
        far = jnp.where(same & (tried.sign * rate.astype(size.dtype) < 0), newton, seen)
        low = jnp.where(landed & ~crosses, size, jnp.where(same, tried.low, 0))
        high = jnp.where(landed, jnp.where(crosses, size, tried.high), size if self.rough else first.high)
        if self.rough:
            far = jnp.where(same, (low + high) / 2, seen)
        return jnp.maximum(jnp.clip(far, low, high), unit), low, high  # the clock must move

    def _first(self, values: jax.Array, signs: jax.Array, crossed: jax.Array, unit: jax.Array) -> First:
        """The first root in the step."""
        crosses, size = jnp.any(crossed), jnp.abs(self.width)
        k, where = first_true(jnp.any(crossed, 1)), jnp.asarray(self.where, unit.dtype)
        mine, sign, low = read((crossed, signs, where), k)
        last, high = read(values, k + 1), jnp.where(crosses, where[k + 1], low)
        mine, sign, last, low, high = lax.optimization_barrier((mine, sign, last, low, high))
        least = jnp.finfo(signs.dtype).tiny

        def past(value):  # of those that cross: positive where they have
            return jnp.where(mine, -sign * value, jnp.full_like(value, -jnp.inf))

        # at the left end none has and at the right end one has, whatever rounding says
        ends = (low, jnp.full_like(sign, -least, shape=())), (high, jnp.maximum(jnp.max(past(last)), least))
        share = root(lambda theta: jnp.max(past(self.at(theta))), *ends, unit / jnp.where(size == 0, 1, size))
        there = past(self.at(share))
        index = first_true(there == jnp.max(there))
        return First(crosses, share * size, index, pick(sign, index), high * size)
