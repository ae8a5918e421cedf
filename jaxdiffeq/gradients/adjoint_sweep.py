"""The backward solve of a continuous adjoint, from one saved time, stop, event or segment boundary to the next."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.gradients import segments
from jaxdiffeq.gradients.adjoint_equation import Known, Trajectory
from jaxdiffeq.gradients.adjoint_events import Crossings
from jaxdiffeq.gradients.adjoint_jumps import Carried, Cursors, Jumps, Moving, Times, known, real_sum
from jaxdiffeq.gradients.packing import Packing, Parts
from jaxdiffeq.gradients.quadrature import Quadrature
from jaxdiffeq.gradients.rule import Active, Constants, Outputs, joined
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.types import Inputs, PyTree, Result, Settings


@dataclass(frozen=True)
class BackwardSolve:
    """(y, λ, θ̄), or what `options` want of these, from one time to another where nothing happens in between."""

    along: Trajectory
    integration: Any
    settings: Settings
    options: Any

    @functools.cached_property
    def packing(self) -> Packing:
        y, theta = self.along.inputs.y0, self.along.theta() if self.options.solves_parameters else []
        return Packing.of(Parts(y if self.options.solves_state else None, y, theta))

    def slope(self, t: jax.Array, z: jax.Array, known: Known) -> jax.Array:
        parts = self.packing.unpack(z)
        f, d_y, d_theta = self.along.here(known).pulled(t, parts, known, self.options.solves_parameters)
        return self.packing.pack(Parts(f if self.options.solves_state else None, -d_y, [-x for x in d_theta]))

    def residual(self, t: jax.Array, z: jax.Array, dz: jax.Array, known: Known) -> jax.Array:
        unpack, pack = self.packing.unpack, self.packing.pack
        return pack(self.along.here(known).balance(t, unpack(z), unpack(dz), known))

    def integrand(self, t: jax.Array, z: jax.Array, known: Known) -> list:
        """−λᵀ∂f/∂θ: the backward solve runs against the integral."""
        return [-x for x in self.along.here(known).pulled(t, self.packing.unpack(z), known, True)[2]]

    @functools.cached_property
    def solver(self) -> tuple[Any, Settings]:
        """The integration of the adjoint equation, and its settings."""
        settings, packing, along = self.settings, self.packing, self.along
        stepper = (self.options.method or self.integration.stepper).sized(sum(map(math.prod, packing.shapes)))
        rtol, atol = settings.tolerance.rtol, settings.tolerance.atol
        if self.options.rtol is not None:
            rtol = jnp.asarray(self.options.rtol, rtol.dtype)
        if self.options.atol is not None:
            atol = jnp.asarray(self.options.atol, atol.dtype)
        tolerance = type(settings.tolerance)(packing.spread(rtol), packing.spread(atol))
        recorders = {}
        if self.options.rule and along.where:
            zeros = tuple((x.shape, x.dtype) for x in along.theta())
            careful = (jnp.min(rtol), jnp.min(atol)) if self.options.rule == "kronrod" else None
            recorders = {"quadrature": Quadrature(self.integrand, zeros, stepper.order, careful)}
        field = along.field.adjoint(self.slope, self.residual, packing.mass, along.inputs.args)
        integration = dataclasses.replace(
            self.integration, field=field, stepper=stepper, recorders=recorders, events=None
        )
        controller = settings.controller.measured(packing.norm)
        return integration, settings._replace(controller=controller, tolerance=tolerance, begins=None)

    def back(
        self, t: jax.Array, target: jax.Array, parts: Parts, known: Known, dt: jax.Array
    ) -> tuple[Parts, jax.Array, jax.Array]:
        """The parts carried from t back to `target`, the next step size and the result code."""
        integration, settings = self.solver
        nothing = jnp.zeros(0, t.dtype)
        parts = self.along.here(known).completed(t, parts, known)
        z = self.packing.pack(parts if self.options.solves_parameters else parts._replace(theta=[]))
        carry = integration.run(Inputs(z, known, t, target, nothing, nothing), settings._replace(first_step=dt))
        z = carry.state.y
        moves = self.along.moves("t0", "t1", "ts", "stops") or self.integration.events is not None
        if moves and self.along.equation.plain:
            # A solve of no length takes no step, but where its ends move apart the solution moves with them.
            apart = (target - carry.state.t).astype(z.dtype)
            z = z + jnp.where(carry.state.t == target, apart, 0) * self.slope(target, z, known)
        new = self.packing.unpack(z)
        if carry.records:
            new = new._replace(theta=jax.tree.map(jnp.add, parts.theta, carry.records["quadrature"]))
        elif not self.options.solves_parameters:
            new = new._replace(theta=parts.theta)
        return new, carry.control.dt, carry.control.result


class Tape(NamedTuple):
    """What the forward solve has left."""

    t1: Any
    """where it ended, of a solve with events"""
    y1: jax.Array
    times: dict[str, jax.Array]
    """of each recorder's rows, but of those of events"""
    log: Any
    """checkpoints and their marks; None where y is solved again"""
    changed: list
    """parameters that events have changed, as in `Outputs`"""


@dataclass(frozen=True)
class Sweep:
    """From the end to the start, by way of all times at which something happens."""

    integration: Any
    active: Active
    settings: Settings
    constants: Constants
    options: Any
    tape: Tape

    @functools.cached_property
    def along(self) -> Trajectory:
        active, events = self.active, self.integration.events
        if events is not None:  # what they change is differentiated too, since it depends on the rest
            active = active.within(active.inputs, active.changed_by(events))
        return Trajectory(self.integration.field, active, events)

    @functools.cached_property
    def solve(self) -> BackwardSolve:
        return BackwardSolve(self.along, self.integration, self.settings, self.options)

    @functools.cached_property
    def jumps(self) -> Jumps:
        return Jumps(self.along, self.settings.tolerance, self.integration.recorders, self.tape.times)

    def crossings(self, rows: dict) -> Crossings | None:
        if self.integration.events is None:
            return None
        return Crossings(self.along, self.integration, self.settings, rows.get("events"))

    def back(self, bars: Outputs) -> list[jax.Array]:
        """The cotangents of the active inputs. Linear: the size of `bars` is divided out, and put back at the end."""
        scale = _scale(bars)
        bars = jax.tree.map(lambda x: x / scale.astype(x.dtype), bars)
        _ = self.along.direction, self.solve.solver  # made here: what a loop's body makes cannot be used outside of it
        moving, cursors = self.start(bars)

        def running(moving, cursors):
            left = (moving.t != self.along.inputs.t0) | (cursors.stop >= 0)
            for name in self.tape.times:
                left |= cursors.records[name] >= 0
            return left & (cursors.result == Result.success)

        def trip(moving, cursors):
            live = running(moving, cursors)
            new = self.trip(moving, cursors, bars, live)
            # the segment is a buffer: where nothing is live, nothing was written to it
            segment = new[0].segment
            kept = jax.tree.map(
                lambda a, b: jnp.where(live, a, b),
                (new[0]._replace(segment=None), new[1]), (moving._replace(segment=None), cursors),
            )  # fmt: skip
            return kept[0]._replace(segment=segment), kept[1]

        moving, cursors = frozen_while(running, trip, moving, cursors)
        return self.collect(moving, cursors, scale)

    def start(self, bars: Outputs) -> tuple[Moving, Cursors]:
        """At the end: of the span, or where a solve that failed has stopped."""
        inputs, y1, along, constants = self.along.inputs, self.tape.y1, self.along, self.constants
        good = (constants.result == Result.success) | (constants.result == Result.terminated)
        events = self.integration.events
        end = jnp.where(good, inputs.t1, constants.t) if events is None else self.tape.t1
        theta = [jnp.zeros_like(x) for x in along.theta()]
        times = Times(*(jnp.zeros_like(getattr(inputs, name)) if along.moves(name) else None for name in Times._fields))
        zero = jnp.zeros((), jnp.int32)
        last = jnp.sum(along.direction * inputs.stops < along.direction * end, dtype=jnp.int32) - 1
        carried = ()
        if events is not None:
            along, carried = self.ended(last, bars)
            theta = [*theta[: len(theta) - len(bars.changed)], *bars.changed]
        elif along.active.time:
            change = bars.t + real_sum(bars.y * along.velocity(end, y1, last)).astype(end.dtype)
            times = self.jumps.timed(times, end, zero, change, False)
        lam, theta = along.taken(end, y1, bars.y, theta, last)
        parts = Parts(y1 if self.options.solves_state else None, lam, theta)
        segment, number = None, zero
        if not self.options.solves_state:
            segment = segments.empty(self.integration, inputs)
            number = (constants.counts.steps + segments.SEGMENT - 1) // segments.SEGMENT
        # without an error estimate to correct it, the step is the one that was given
        first = self.settings.first_step if not self.settings.controller.needs_error else constants.dt
        assert first is not None
        usable = good & jnp.isfinite(first) & (first > 0)  # what failed has left a step too small to go on with
        begun = constants.result != Result.initialisation_failed
        cursors = Cursors(
            records={name: self.last_row(name, mark) for name, mark in constants.marks.items()},
            stop=last,
            segment=number,
            steps=zero,
            start=lax.stop_gradient(end),
            dt=lax.stop_gradient(jnp.where(usable, first, jnp.abs(end - inputs.t0))),
            result=jnp.where(begun, Result.success, constants.result).astype(jnp.int32),
            first=() if events is None else zero,
        )
        return Moving(end, parts, times, segment, carried), cursors

    def ended(self, passed: jax.Array, bars: Outputs) -> tuple[Trajectory, Carried]:
        """The parameters where a solve with events has ended, and what goes back besides."""
        events, tape, inputs = self.integration.events, self.tape, self.along.inputs
        changed = joined(events.changing(inputs.args), tape.changed, self.constants.changed)
        along = self.along.here(Known(None, passed, passed, (), changed))
        clock = bars.t + real_sum(bars.y * along.velocity(tape.t1, tape.y1, passed)).astype(tape.t1.dtype)
        timers = jnp.zeros_like(events.ahead(inputs).timers)
        return along, Carried(clock, timers, changed)

    def last_row(self, name: str, mark: jax.Array) -> jax.Array:
        """No step counts the values that are saved at an instant."""
        recorder = self.integration.recorders[name]
        if recorder.at_given_times:
            inputs = self.along.inputs
            mark = jnp.where(inputs.t0 == inputs.t1, recorder.times(None, inputs).size, mark).astype(mark.dtype)
        return mark - 1

    def trip(self, moving: Moving, cursors: Cursors, bars: Outputs, live: jax.Array) -> tuple[Moving, Cursors]:
        moving, cursors = self.loaded(moving, cursors, live)
        target = jnp.where(live, self.target(moving, cursors), moving.t)
        crossings = self.crossings(bars.records)
        moving = moving if crossings is None else crossings.left(moving, target)
        parts, dt, result = self.solve.back(moving.t, target, moving.parts, known(moving, cursors), cursors.dt)
        cursors = cursors._replace(dt=dt, result=result)
        moving = moving._replace(t=target, parts=parts)
        if crossings is None:
            moving, stop = self.jumps.at_stop(moving, known(moving, cursors))
            return self.at_rows(moving, cursors._replace(stop=stop), bars)
        # what is saved where something happens is what there is after it
        moving, cursors = self.at_rows(moving, cursors, bars)
        ready = live & ~((cursors.segment > 0) & (moving.t == cursors.start))
        for name, times in self.tape.times.items():
            k = cursors.records[name]
            ready &= (k < 0) | (times[jnp.maximum(k, 0)] != moving.t)
        moving, cursors = crossings.cross(moving, cursors, ready & crossings.pending(moving, cursors))
        moving, stop = self.jumps.at_stop(moving, known(moving, cursors), ready)
        return moving, cursors._replace(stop=stop)

    def at_rows(self, moving: Moving, cursors: Cursors, bars: Outputs) -> tuple[Moving, Cursors]:
        """Add the cotangents of the next row of every recorder, if it is due."""
        records = dict(cursors.records)
        for name in self.tape.times:
            at, k = known(moving, cursors), records[name]
            moving, records[name] = self.jumps.at_row(moving, at, name, k, bars.records[name])
        return moving, cursors._replace(records=records)

    def loaded(self, moving: Moving, cursors: Cursors, live: jax.Array) -> tuple[Moving, Cursors]:
        """Fetch the segment before this one when its start is reached."""
        if moving.segment is None:
            return moving, cursors
        enters = live & (cursors.segment > 0) & (moving.t == cursors.start)
        number = jnp.maximum(cursors.segment - 1, 0)
        first = number * segments.SEGMENT
        end = jnp.minimum(first + segments.SEGMENT, self.constants.counts.steps)
        span, inputs = (first, jnp.where(enters, end, 0)), self.along.inputs
        segment = segments.load(self.integration, inputs, self.settings, self.tape.log, moving.segment, span)
        new = cursors._replace(segment=number, steps=end - first, start=lax.stop_gradient(segment.t0[0]))
        if self.integration.events is not None:
            new = new._replace(first=segment.happens_before(new.steps))
        cursors = jax.tree.map(lambda a, b: jnp.where(enters, a, b), new, cursors)
        return moving._replace(segment=segment), cursors

    def target(self, moving: Moving, cursors: Cursors) -> jax.Array:
        """The next time to land on, going back. Chosen: a maximum of equals would mix their derivatives."""
        inputs, back = self.along.inputs, self.along.direction
        best = inputs.t0

        def later(t, wanted):
            within = wanted & (back * t > back * best)
            return jnp.where(within & (back * t <= back * moving.t), t, best)

        for name, times in self.tape.times.items():
            k = cursors.records[name]
            best = later(times[jnp.maximum(k, 0)], k >= 0)
        if inputs.stops.size:
            best = later(inputs.stops[jnp.maximum(cursors.stop, 0)], cursors.stop >= 0)
        if moving.segment is not None:
            best = later(moving.segment.t0[0], (cursors.segment > 0) & (cursors.steps > 0))
            if self.integration.events is not None:
                best = later(moving.segment.t1[jnp.maximum(cursors.first - 1, 0)], cursors.first > 0)
        return best

    def collect(self, moving: Moving, cursors: Cursors, scale: jax.Array) -> list[jax.Array]:
        """In the order of the active leaves; NaN if the backward solve failed."""
        inputs, along, of_timers, crossings = self.along.inputs, self.along, [], self.crossings({})
        if crossings is not None:
            moving, of_timers = crossings.begun(moving, self.active)
        times = moving.times
        lam = along.inertia(inputs.t0, inputs.y0, moving.parts.lam, -1)
        if times.t0 is not None:
            change = real_sum(lam * along.velocity(inputs.t0, inputs.y0, -1))
            times = times._replace(t0=times.t0 - change.astype(inputs.t0.dtype))
        args: PyTree = along.args(moving.parts.theta, jax.tree.map(jnp.zeros_like, inputs.args))
        clocks: list[Any] = [x if x is not None else 0.0 for x in times]
        flat = jax.tree.leaves(Inputs(lam, args, *clocks))
        factor = jnp.where(cursors.result == Result.success, scale, jnp.nan)
        found = [flat[i] for i in self.active.where]
        found = [a + b for a, b in zip(found, of_timers, strict=True)] if of_timers else found
        return [x * factor.astype(x.dtype) for x in found]


def _scale(bars: Outputs) -> jax.Array:
    """The largest cotangent, one if all are zero."""
    sizes = [jnp.max(jnp.abs(x), initial=0) for x in jax.tree.leaves(bars)]
    largest = functools.reduce(jnp.maximum, [x.astype(np.result_type(*(s.dtype for s in sizes))) for x in sizes])
    return lax.stop_gradient(jnp.where(largest == 0, 1, largest))
