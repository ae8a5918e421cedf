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

from jaxdiffeq.algebra.bracket import root
from jaxdiffeq.engine.interpolant import evaluate, slope
from jaxdiffeq.primitives.row_buffer import read
from jaxdiffeq.primitives.varying_axes import cond, vary_like
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


class Aim(NamedTuple):
    """A root to land on."""

    at: jax.Array
    """its time, infinity if there is none"""
    condition: jax.Array
    """the number of the condition whose root that is"""
    sign: jax.Array
    """of it before the root"""
    low: jax.Array
    high: jax.Array
    """between which times the root lies"""
    sure: jax.Array
    """a step to `high` has crossed"""
    moved: jax.Array
    """how far the last correction went"""
    tries: jax.Array
    scale: jax.Array
    """the size of every condition in the step that was cut short for it, per unit of time, [conditions]"""


class Left(NamedTuple):
    """What was landed on at the start of a step. Shapes: [conditions]."""

    floor: jax.Array
    """|condition| that is zero there"""
    side: jax.Array
    """its sign there; 0: that of its rate"""


class Found(NamedTuple):
    """What a look at a step has found. Shapes: of all but `again`, [conditions]."""

    again: jax.Array
    """the step has to be taken again, with this aim"""
    aim: Aim
    fired: jax.Array
    """which conditions are zero at its end"""
    left: Left
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
    far, zero, real = jnp.full_like(t, jnp.inf), jnp.zeros((), jnp.int32), jnp.finfo(y.dtype).dtype
    return Aim(far, zero, jnp.zeros((), real), far, far, jnp.array(False), far, zero, jnp.zeros(n, real))


def nothing_left(n: int, y: jax.Array) -> Left:
    real = jnp.zeros(n, jnp.finfo(y.dtype).dtype)
    return Left(real, real)


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
    rough: bool = False
    """the solution follows a Brownian path: what lies between the ends of a step, and rates, say little"""

    @property
    def width(self) -> jax.Array:
        return self.step.after.t - self.step.before.t

    def info(self, theta: jax.Array) -> Info:
        """Without an interpolant, which nobody has asked for then, zero for dy."""
        before, width, dy = self.step.before, self.width, jnp.zeros_like(self.step.end)
        if self.step.coefficients is not None:
            per = jnp.where(width == 0, 1, width).astype(dy.dtype)
            dy = slope(self.step.coefficients, theta.astype(dy.dtype)) / per
        return Info(dy, width, before.t, before.y, self.count)

    def at(self, theta: jax.Array, y: jax.Array | None = None) -> jax.Array:
        """The conditions at t₀ + θ·width. Shapes: [n]."""
        if y is None:
            assert self.step.coefficients is not None
            y = evaluate(self.step.coefficients, theta.astype(self.step.end.dtype))
        return self.conditions(self.step.before.t + theta * self.width, y, self.inputs.args, self.info(theta))

    def rate(self, theta: float) -> jax.Array:
        """Per unit of time on the way. Shapes: [n]."""
        at = jnp.full_like(self.width, theta)
        _, moved = jax.jvp(self.at, (at,), (jnp.ones_like(at),))
        return moved / jnp.abs(jnp.where(self.width == 0, 1, self.width)).astype(moved.dtype)

    def values(self) -> jax.Array:
        """Shapes: [6, n]."""
        theta = jnp.asarray(self.where, self.width.dtype)
        first, last = self.at(theta[0], self.step.before.y), self.at(theta[-1], self.step.end)
        return jnp.concatenate([first[None], jax.vmap(self.at)(theta[1:-1]), last[None]])

    def signs(self, values: jax.Array, left: Left) -> jax.Array:
        """Of the values, with those of neighbours in place of zeros inside, and of what was left at the start."""
        zero = jnp.abs(values[0]) <= left.floor
        turns = zero & (left.side == 0)
        rates = cond(jnp.any(turns), lambda: jnp.sign(self.rate(0.0)), lambda: jnp.zeros_like(values[0]))
        signs = [jnp.where(zero, jnp.where(turns, rates, left.side), jnp.sign(values[0]))]
        for value in values[1:]:  # what is no more than rounding of the root that was left has not left it yet
            signs.append(jnp.where(jnp.abs(value) <= left.floor, signs[-1], jnp.sign(value)))
        ends = (values[-1] == 0) & (left.floor == 0)
        signs[-1] = jnp.where(ends, -signs[-1], signs[-1])
        return jnp.stack(signs)

    def _wanted(self, signs: jax.Array) -> jax.Array:
        """Whether conditions that take these signs act. Shapes: [any, n]."""
        wanted = jnp.asarray(self.directions, signs.dtype)[None]
        return (wanted == 0) | (signs == wanted)

    def find(self, aim: Aim, left: Left, accepted: jax.Array) -> Found:
        """The first root in the step; nothing, if the step is not accepted."""
        # constants too vary, for the branch; see `cond`
        known = vary_like((jnp.asarray(self.where), jnp.asarray(self.directions)), self.step.end)
        return replace(self, where=known[0], directions=known[1])._find(aim, left, accepted)

    def _find(self, aim: Aim, left: Left, accepted: jax.Array) -> Found:
        values = self.values()
        signs = self.signs(values, left)
        wanted = self._wanted(signs[1:])
        crossed = (signs[:-1] * signs[1:] < 0) & wanted
        landed = aim.at == self.step.after.t
        none = jnp.zeros(len(self.directions), bool)
        nothing = Found(jnp.array(False), aim, none, nothing_left(len(none), self.step.end), none)
        nothing = vary_like(nothing, self.step.end)  # out of the branch: under vmap, JAX forgets there what varies
        looks = accepted & (landed | jnp.any(crossed))
        found = lambda: self._found(aim, landed, values, signs, crossed)
        return cond(looks, found, lambda: nothing)

    def _found(self, aim: Aim, landed: jax.Array, values: jax.Array, signs: jax.Array, crossed: jax.Array) -> Found:
        """Whether a step in which something crosses, or that was to land, is at the root; and if not, where to aim."""
        t0, t1, size, way = self.step.before.t, self.step.after.t, jnp.abs(self.width), jnp.sign(self.width)
        unit = ULPS * jnp.finfo(t1.dtype).eps * jnp.maximum(jnp.abs(t0), jnp.abs(t1))
        rates = self.rate(1.0)
        crosses, share, first = self._first(signs, crossed, unit)
        same = landed & (~crosses | (first.condition == aim.condition))
        far, low, high = self._bracket(aim, landed, same, values, rates, (crosses, share, first, unit))
        apart = jnp.abs(far - size)
        stalled, tired = (aim.tries >= 4) & (apart > STALLED * aim.moved), aim.tries >= TRIES
        stalled = stalled & (not self.rough)
        along = jnp.abs(read(values.T, aim.condition))  # where rounding is all that is left of it, it is at its root
        small = crosses | self.rough | (along[-1] <= jnp.sqrt(jnp.finfo(values.dtype).eps) * jnp.max(along))
        tight = ~crosses & (high - size <= unit)
        fires = landed & ((apart <= unit) | (stalled | tired) & small | tight & aim.sure)
        lost = landed & ~fires & (stalled | tired | tight)  # the interpolant crosses, the method does not

        at = jnp.where(apart <= unit, t1, t0 + way * far)
        which, sign = (jnp.where(crosses, a, b) for a, b in zip(first[1:3], aim[1:3], strict=True))
        sure, tries = landed & (crosses | aim.sure), jnp.where(same, aim.tries, 0) + 1
        scale = jnp.max(jnp.abs(values), 0) / size.astype(values.dtype)
        scale = jnp.where(landed, aim.scale, scale)
        aim = Aim(at, which, sign, t0 + way * low, t0 + way * high, sure, apart, tries, scale)
        floor = 2 * unit.astype(rates.dtype) * jnp.abs(rates)
        passed = (jnp.abs(values[-1]) <= floor) & (signs[-2] * jnp.sign(rates) < 0)
        passed &= self._wanted(jnp.sign(rates)[None])[0]
        passed |= (jnp.arange(len(self.directions), dtype=jnp.int32) == aim.condition) | jnp.any(crossed, 0)
        return self._landed(aim, ~fires & ~lost, fires & passed, values[-1], rates, floor)

    def _bracket(
        self, aim: Aim, landed: jax.Array, same: jax.Array, values: jax.Array, rates: jax.Array, found: tuple
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """How far from t₀ the root seems to be, and between which distances it is.

        Where this step was to land on it, as far on, or back, as the rate at its end says: its interpolant is rounded.
        """
        t0, size = self.step.before.t, jnp.abs(self.width)
        crosses, share, first, unit = found
        rate, last = pick(rates, aim.condition), pick(values[-1], aim.condition)
        newton = size - (last / rate).astype(size.dtype)
        seen = jnp.where(crosses, share * size, jnp.inf)
        far = jnp.where(same & (aim.sign * rate < 0), newton, seen)
        low = jnp.where(landed & ~crosses, size, jnp.where(same, jnp.abs(aim.low - t0), 0))
        high = jnp.where(crosses, size, jnp.abs(aim.high - t0))
        high = jnp.where(landed, high, size if self.rough else jnp.abs(first.high - t0))
        if self.rough:
            far = jnp.where(same, (low + high) / 2, seen)
        return jnp.maximum(jnp.clip(far, low, high), unit), low, high  # the clock must move

    def _landed(
        self, aim: Aim, again: jax.Array, fired: jax.Array, last: jax.Array, rates: jax.Array, floor: jax.Array
    ) -> Found:
        """With what is left behind at the end."""
        to = jnp.sign(rates)
        left = Left(jnp.where(fired, jnp.maximum(floor, 2 * jnp.abs(last)), floor), jnp.where(fired, 0, to))
        return Found(again, aim, fired, left, fired & (jnp.abs(rates) < GRAZING * aim.scale))

    def _first(self, signs: jax.Array, crossed: jax.Array, unit: jax.Array) -> tuple[jax.Array, jax.Array, Aim]:
        """Whether anything crosses, the first root as a share of the step, and what its aim says of it."""
        crosses = jnp.any(crossed)
        k, where = first_true(jnp.any(crossed, 1)), jnp.asarray(self.where, unit.dtype)
        mine, sign, low = read((crossed, signs, where), k)
        high = jnp.where(crosses, where[k + 1], low)
        least = -jnp.finfo(signs.dtype).tiny

        def past(theta):  # of those that cross: positive where they have
            value = -sign * self.at(theta)
            return jnp.where(mine, value, jnp.full_like(value, -jnp.inf))

        def any_past(theta):  # at the left end none has and at the right end one has, whatever rounding says
            value = jnp.max(past(theta))
            return jnp.where(theta == low, least, jnp.where(theta == high, jnp.maximum(value, -least), value))

        size = jnp.abs(self.width)
        share = root(any_past, low, high, unit / jnp.where(size == 0, 1, size))
        there = past(share)
        index = first_true(there == jnp.max(there))
        aim = no_aim(len(self.directions), self.step.after.t, self.step.end)
        end = self.step.before.t + high * self.width
        return crosses, share, aim._replace(condition=index, sign=pick(sign, index), high=end)
