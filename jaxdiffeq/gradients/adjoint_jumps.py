"""What happens to a continuous adjoint at an instant: at a stop, and where a value was saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdiffeq.gradients.adjoint_equation import Known, Trajectory
from jaxdiffeq.gradients.packing import Parts
from jaxdiffeq.implicit.system import make_consistent
from jaxdiffeq.primitives.row_buffer import read
from jaxdiffeq.types import PyTree


class Times(NamedTuple):
    """Cotangents of the four kinds of times, each of which may be absent (None)."""

    t0: Any
    t1: Any
    ts: Any
    stops: Any


class Carried(NamedTuple):
    """What goes back besides, of a solve with events."""

    clock: jax.Array
    """the cotangent of the last time that was landed on: all that came after, up to the next such, moves with it"""
    timers: jax.Array
    """those of the next time of each timer, [timers]"""
    changed: list
    """the parameters that events change, as they are here"""


class Moving(NamedTuple):
    """Where the sweep stands, as far as derivatives flow through it."""

    t: jax.Array
    parts: Parts
    times: Times
    segment: Any
    events: Any = ()
    """`Carried`"""

    def timed(self, clock: jax.Array, **more: Any) -> Moving:
        """With this cotangent of the clock, and `more` of times, where theirs are wanted."""
        bars = {name: getattr(self.times, name) for name in more}
        times = self.times._replace(**{name: x + more[name] for name, x in bars.items() if x is not None})
        return self._replace(times=times, events=self.events._replace(clock=clock))


class Cursors(NamedTuple):
    """Where the sweep stands: rows not yet pulled of every recorder, stops, segments, and the backward solver."""

    records: dict[str, jax.Array]
    stop: jax.Array
    segment: jax.Array
    steps: jax.Array
    """steps in the segment at hand"""
    start: jax.Array
    """where it starts"""
    dt: jax.Array
    result: jax.Array
    first: Any = ()
    """as in `Known`"""


def known(moving: Moving, cursors: Cursors) -> Known:
    changed = moving.events.changed if moving.events else ()
    return Known(moving.segment, cursors.steps, cursors.stop, cursors.first, changed)


def real_sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x.real)


@dataclass(frozen=True)
class Jumps:
    along: Trajectory
    tolerance: Any
    recorders: Mapping[str, Any]
    times: dict[str, jax.Array]
    """of each recorder's rows"""

    def at_stop(self, moving: Moving, known: Known, ready: Any = True) -> tuple[Moving, jax.Array]:
        """Cross a stop T: dL/dT = λ·(f(T⁻) − f(T⁺)), all of it to the first of several that are equal.

        Also the number of the stop that comes next.
        """
        stops, k, back, along = self.along.inputs.stops, known.passed, self.along.direction, self.along.here(known)
        if stops.size == 0:
            return moving, k
        due = (k >= 0) & (stops[jnp.maximum(k, 0)] == moving.t)
        if moving.events:
            due &= ready
        first = jnp.sum(back * stops < back * moving.t, dtype=jnp.int32)
        y, solved = along.solution(moving.t, moving.parts, known), known.segment is None
        before = self.restarted(along, moving.t, y, first - 1) if solved else y  # it is y after the stop
        if moving.times.stops is not None:
            after = self.restarted(along, moving.t, y, k)
            jump = along.velocity(moving.t, before, first - 1) - along.velocity(moving.t, after, k)
            change = real_sum(along.inertia(moving.t, after, moving.parts.lam, k) * jump).astype(moving.t.dtype)
            change = change + moving.events.clock if moving.events else change
            bar = moving.times.stops.at[first].add(jnp.where(due, change, 0))
            moving = moving._replace(times=moving.times._replace(stops=bar))
        if moving.events:
            moving = moving.timed(jnp.where(due, 0, moving.events.clock))
        if solved:
            moving = moving._replace(parts=moving.parts._replace(y=jnp.where(due, before, y)))
        return moving, jnp.where(due, first - 1, k)

    def restarted(self, along: Trajectory, t: jax.Array, y: jax.Array, passed: Any) -> jax.Array:
        """y on one side of a stop, at which algebraic components may jump."""
        if along.equation.plain:
            return y
        t = along.one_sided(t, passed)
        return make_consistent(along.field, t, y, along.inputs.args, self.tolerance)[0]

    def at_row(self, moving: Moving, known: Known, name: str, k: jax.Array, bars: PyTree) -> tuple[Moving, jax.Array]:
        """Add the cotangents of a recorder's row k at its time; also the number of the row that comes next."""
        along, back, recorder = self.along.here(known), self.along.direction, self.recorders[name]
        at = self.times[name][jnp.maximum(k, 0)]
        due = (k >= 0) & ((back * at >= back * moving.t) | (moving.t == along.inputs.t0))
        bar = jax.tree.map(lambda x: jnp.where(due, x, 0), read(bars, jnp.maximum(k, 0)))
        bar, bar_t = recorder.parted(bar)
        y = along.solution(moving.t, moving.parts, known)

        def value(t, y, theta):
            return recorder.observe(t, y, along.args(theta))

        _, pull = jax.vjp(value, moving.t, y, along.theta())
        d_t, d_y, d_theta = pull(bar)
        lam, theta = along.taken(moving.t, y, d_y, jax.tree.map(jnp.add, moving.parts.theta, d_theta), known.passed)
        parts = moving.parts._replace(lam=moving.parts.lam + lam, theta=theta)
        times, given = moving.times, recorder.at_given_times
        if along.moves("ts") if given else along.active.time or moving.events:
            f = along.velocity(moving.t, y, known.passed)
            change = d_t + bar_t + real_sum(d_y * f).astype(d_t.dtype)
            if moving.events and not given:
                moving = moving.timed(moving.events.clock + change)
            else:
                row = jnp.maximum(k, 0) + recorder.first
                times = self.timed(times, moving.t, row, change, given)
        return moving._replace(parts=parts, times=times), k - due.astype(k.dtype)

    def timed(self, times: Times, t: jax.Array, k: jax.Array, change: jax.Array, is_time: bool) -> Times:
        """The time of a saved value belongs to `ts`; that of a step, to the last time that was landed on."""
        if is_time:
            return times._replace(ts=times.ts.at[k].add(change))
        inputs, back = self.along.inputs, self.along.direction
        stops = inputs.stops
        passed = jnp.sum((back * stops <= back * t) & (back * stops < back * inputs.t1), dtype=jnp.int32)
        last = t == inputs.t1
        if times.t1 is not None:
            times = times._replace(t1=times.t1 + jnp.where(last, change, 0))
        if times.t0 is not None:
            times = times._replace(t0=times.t0 + jnp.where(last | (passed > 0), 0, change))
        if times.stops is not None:
            share = jnp.where(last | (passed == 0), 0, change)
            first = jnp.sum(back * stops < back * stops[jnp.maximum(passed - 1, 0)], dtype=jnp.int32)
            times = times._replace(stops=times.stops.at[first].add(share))
        return times
