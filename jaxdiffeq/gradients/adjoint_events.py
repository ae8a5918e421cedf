"""What happens to a continuous adjoint at an event: y⁺ = A(T, y⁻, θ) at a time T that depends on y⁻ and θ too.

All that depends on T, with y⁻ on the solution before it and y⁺ on that after it, is σ = λ⁺·(∂A/∂t + ∂A/∂y·f⁻ − f⁺) and
the cotangents of what is counted from T: of the time in the log, of steps after it, of times that timers choose then.
At a root of g, dT = −(∂g/∂y·dy + ∂g/∂θ·dθ)/ġ with ġ = ∂g/∂t + ∂g/∂y·f⁻, so λ⁻ = (∂A/∂y)ᵀλ⁺ − (σ/ġ)·∂g/∂y, and likewise
for θ. Elsewhere σ belongs to the timer, the stop or the end of the span that was landed on, or it stays with the clock.
Parameters that events change are parameters of their own between two events, which A maps as it does y.
Source: Galán, Feehery, Barton 1999, doi:10.1016/S0168-9274(98)00125-1 (the jump of sensitivities), transposed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.gradients.adjoint_equation import Known, Trajectory
from jaxdiffeq.gradients.adjoint_jumps import Carried, Cursors, Moving, known, real_sum
from jaxdiffeq.gradients.packing import Parts
from jaxdiffeq.gradients.rule import Active, parted
from jaxdiffeq.gradients.segments import Landing
from jaxdiffeq.primitives.row_buffer import read
from jaxdiffeq.types import Ahead, PyTree, Settings, Sizing, State, StepCotangents, StepView


class Owner(NamedTuple):
    """To what the time of a landing belongs: one of these, or none, where a step ended by itself."""

    root: jax.Array
    end: jax.Array
    """of the span"""
    stop: jax.Array
    timers: jax.Array
    """[timers]"""


@dataclass(frozen=True)
class Crossings:
    along: Trajectory
    integration: Any
    settings: Settings
    rows: PyTree
    """cotangents of the log of events"""

    def pending(self, moving: Moving, cursors: Cursors) -> jax.Array:
        """Whether the next event is here."""
        at = moving.segment.t1[jnp.maximum(cursors.first - 1, 0)]
        return (cursors.first > 0) & (at == moving.t)

    def cross(self, moving: Moving, cursors: Cursors, due: jax.Array) -> tuple[Moving, Cursors]:
        """To the side before it, if it is due."""
        rows = cursors.records["events"]
        old = moving.parts, moving.times, moving.events, cursors.stop, cursors.first, rows
        parts, times, events, stop, first, rows = lax.cond(due, lambda: self._crossed(moving, cursors), lambda: old)
        cursors = cursors._replace(stop=stop, first=first, records=cursors.records | {"events": rows})
        return moving._replace(parts=parts, times=times, events=events), cursors

    def _crossed(self, moving: Moving, cursors: Cursors) -> tuple:
        t, inputs, back = moving.t, self.along.inputs, self.along.direction
        place = jnp.maximum(cursors.first - 1, 0)
        landing = read(moving.segment.landings, place)
        stopped, stop = jnp.array(False), cursors.stop
        if inputs.stops.size:
            stopped = jnp.any(inputs.stops == t)
            stop = jnp.where(stopped, jnp.sum(back * inputs.stops < back * t, dtype=jnp.int32) - 1, stop)
        new = cursors._replace(stop=stop, first=moving.segment.happens_before(place))
        there = known(moving._replace(events=moving.events._replace(changed=landing.ahead.changed)), new)
        parts, change, owner, events, d_t0, rows = self._pulled(moving, cursors, there, landing, stopped)
        of = lambda wanted: jnp.where(wanted, change, 0)
        first = jnp.minimum(stop + 1, max(inputs.stops.size - 1, 0))
        kept = of(~(owner.root | owner.end | owner.stop | jnp.any(owner.timers)))
        times = moving.times
        if times.stops is not None:
            times = times._replace(stops=times.stops.at[first].add(of(owner.stop)))
        moved = moving._replace(times=times, events=events).timed(kept, t1=of(owner.end), t0=d_t0)
        return parts, moved.times, moved.events, stop, new.first, rows

    def _pulled(self, moving: Moving, cursors: Cursors, there: Known, landing: Landing, stopped: jax.Array) -> tuple:
        """Cotangents before the event: of the state and parameters, of its time, and whose that is; those that are
        carried; of t₀ where timers count from it; and the row of the log that comes next."""
        here = known(moving, cursors)
        after, before, t = self.along.here(here), self.along.here(there), moving.t
        y = before.solution(t, moving.parts, there)
        (y1, _, changed, chain), pull, view = self._act(before, t, y, landing)
        view = view(t, y, landing.ahead.timers, before.inputs)
        rows, bar_t, d_chain = self._logged(cursors, view, chain)
        lam = after.inertia(t, y1, moving.parts.lam, here.passed)
        kept = len(moving.parts.theta) - len(changed)
        bars = lam, moving.events.timers, moving.parts.theta[kept:], d_chain
        d_t, d_y, d_timers, d_theta, d_t0 = pull(bars)
        f = before.velocity(t, y, there.passed)
        change = real_sum(d_y * f) - real_sum(lam * after.velocity(t, y1, here.passed))
        change = d_t + bar_t + moving.events.clock + change.astype(t.dtype)
        owner = self._owner(t, landing, stopped)
        d_timers += jnp.where(owner.timers, change, 0)
        d_y, d_theta = self._with_root(before, view, f, (d_y, d_theta), jnp.where(owner.root, change, 0), owner.root)
        theta = [*(a + b for a, b in zip(moving.parts.theta[:kept], d_theta, strict=False)), *d_theta[kept:]]
        lam, theta = before.taken(t, y, d_y, theta, there.passed)
        events = Carried(jnp.zeros_like(t), d_timers, landing.ahead.changed)
        return Parts(None, lam, theta), change, owner, events, d_t0, rows

    def _act(self, before: Trajectory, t: jax.Array, y: jax.Array, landing: Landing) -> tuple:
        """What the event makes of t, y, the timers, θ and t₀, how it is pulled back, and the step that ends there."""
        integration = self.integration
        made = Sizing(None, None, landing.watch, landing.fired)

        def view(t, y, timers, inputs):
            at = State(t, y, (), (), Ahead(timers, integration.events.changing(inputs.args)))
            return StepView(at, at, y, None, made, jnp.array(True), jnp.zeros((), jnp.int32))

        def act(t, y, timers, theta, t0):
            inputs = before.inputs._replace(args=before.args(theta), t0=t0)
            step = view(t, y, timers, inputs)
            new, chain, _ = integration.acted(inputs, self.settings, step, step.after)
            return new.y, new.events.timers, parted(new.events.changed)[0], chain

        given = t, y, landing.ahead.timers, before.theta(), before.inputs.t0
        return *jax.vjp(act, *given), view

    def _logged(self, cursors: Cursors, view: StepView, chain: jax.Array) -> tuple:
        """The next row of the log, and the cotangents of its time and of y before and after each event there."""
        zero = jnp.zeros_like(view.after.t)
        none = StepCotangents(zero, State(zero, zero, ()), None, [], chain=jnp.zeros_like(chain))
        recorder = self.integration.recorders["events"]
        found, cursor = recorder.vjp(none, cursors.records["events"], view, None, self.rows)
        return cursor, found.after.t, found.chain

    def _owner(self, t: jax.Array, landing: Landing, stopped: jax.Array) -> Owner:
        """In the order in which the forward solve prefers targets that are equal."""
        root = landing.watch.aim.at == t
        end = ~root & (t == self.along.inputs.t1)
        stop = ~root & ~end & stopped
        timers = (landing.ahead.timers == t) & ~(root | end | stop)
        return Owner(root, end, stop, timers & (jnp.cumsum(timers) == 1))

    def _with_root(
        self, before: Trajectory, view: StepView, f: jax.Array, bars: tuple, change: jax.Array, wanted: jax.Array
    ) -> tuple:
        """The cotangents of y and θ, and what a change of the time of a root is to them."""
        events = self.integration.events
        if events.conditions is None:
            return bars
        watch = view.made.watch

        def condition(t, y, theta):
            step = view._replace(before=view.before._replace(t=t), after=view.after._replace(t=t), end=y)
            inputs = before.inputs._replace(args=before.args(theta))
            return events.condition(inputs, step, watch.happened, watch.aim.condition)

        value, pull = jax.vjp(condition, view.after.t, view.end, before.theta())
        d_t, d_y, d_theta = pull(jnp.ones_like(value))
        rate = d_t + real_sum(d_y * f).astype(d_t.dtype)
        factor = -change / jnp.where(wanted, rate, 1)
        return jax.tree.map(lambda bar, d: bar + factor.astype(bar.dtype) * d, bars, (d_y, d_theta))

    # ---- the ends

    def left(self, moving: Moving, target: jax.Array) -> Moving:
        """On the way from the end of the span, whose the clock is if no event was there."""
        leaves = (moving.t == self.along.inputs.t1) & (target != moving.t)
        clock = moving.events.clock
        return moving.timed(jnp.where(leaves, 0, clock), t1=jnp.where(leaves, clock, 0))

    def begun(self, moving: Moving, active: Active) -> tuple[Moving, list]:
        """At t₀, whose the clock is, and what the first times of timers are to the active leaves."""
        inputs, clock = self.along.inputs, moving.events.clock
        still = inputs.t0 == inputs.t1
        moving = moving.timed(jnp.zeros_like(clock), t1=jnp.where(still, clock, 0), t0=jnp.where(still, 0, clock))
        timers = lambda leaves: self.integration.events.ahead(active.fill(leaves)).timers
        (more,) = jax.vjp(timers, active.leaves())[1](moving.events.timers)
        return moving, more
