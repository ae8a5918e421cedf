"""The one loop that steps through time: attempt, judge, move, record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.engine import outcome
from jaxdiffeq.engine.control import starting_step
from jaxdiffeq.engine.log import Held, Sizing
from jaxdiffeq.engine.stops import asked_for, direction_of, next_stop, nothing_asked, reach
from jaxdiffeq.implicit.system import make_consistent
from jaxdiffeq.primitives.varying_axes import vary_like
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.types import (
    Context,
    Counts,
    Estimates,
    Inputs,
    PyTree,
    Result,
    Settings,
    Shapes,
    State,
    Step,
    StepView,
)

START = np.int32(0)  # the number of the step that begins at t0


class LoopControl(NamedTuple):
    """What is constant to differentiation: the next step size (unsigned), its choice, counts, each recorder's marks."""

    dt: jax.Array
    controller: PyTree
    counts: Counts
    result: jax.Array
    marks: dict[str, Any]


class Carry(NamedTuple):
    """Where a solve stands between two trips of the loop; all that is needed to go on."""

    state: State
    records: dict[str, Any]
    control: LoopControl


@dataclass(frozen=True)
class Integration:
    """An initial value problem with all its parts, as pure functions of its inputs."""

    field: Any
    stepper: Any
    recorders: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    watch: Callable | None = None
    """shows how far the loop has come; see `jaxdiffeq.progress`"""
    room_for_stops: int = 0
    """how many times that steps have asked for may lie ahead at once; see `jaxdiffeq.engine.stops`"""

    skips_an_instant: ClassVar[bool] = True
    """no step is taken where t₀ = t₁"""
    differentiates_itself: ClassVar[bool] = False
    """by JAX, and not by a strategy"""
    remembers: ClassVar[bool] = False
    """f asks for the past; see `jaxdiffeq.engine.history`"""

    def with_recorders(self, **recorders: Any) -> Integration:
        return replace(self, recorders=recorders)

    @property
    def compact(self) -> Integration:
        """The same steps, up to rounding, as a smaller program: for derivatives, which come out smaller too."""
        return replace(self, stepper=self.stepper.compact)

    def recollecting(self, inputs: Inputs, records: Mapping[str, Any]) -> Inputs:
        """The inputs of a step, in which f finds what the recorders have of the past."""
        return inputs

    def restarts(self, inputs: Inputs) -> bool:
        """Whether f may be another one after some step."""
        return bool(inputs.stops.size or self.room_for_stops)

    # ---- one step

    def ahead(self, inputs: Inputs, at: State, number: Any) -> tuple[jax.Array, Any]:
        """The next time to land on, and f on the way there, in the step of that number."""
        return next_stop(inputs, self.field, at, Context(number))

    def advance(self, inputs: Inputs, settings: Settings, start: State, dt: jax.Array, number: Any) -> Step:
        """One step of size `dt`, or to the next target. Derivatives flow through the clock; `dt` is a constant."""
        target, f = self.ahead(inputs, start, number)
        t1, lands = self.end(inputs, target, start, dt)
        step = self.stepper.step(f, start, t1, inputs.args, settings.tolerance)
        assert step.stops is None or self.room_for_stops, "a step asks for times to land on, but there is no room"
        if not self.restarts(inputs):
            assert step.restart is None, "f may be another one only at stops"
            return step
        lands &= t1 != inputs.t1
        step = step._replace(restart=lands if step.restart is None else lands | step.restart)
        if self.room_for_stops == 0:
            return step
        stops, fits = asked_for(start.stops, t1, step.stops, inputs)
        went_on = Result.running if step.result is None else step.result
        result = jnp.where(fits, went_on, Result.event_limit_reached)
        return step._replace(after=step.after._replace(stops=stops), result=result)

    def end(self, inputs: Inputs, target: jax.Array, start: State, dt: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Where a step of size `dt` ends, and whether that is the target."""
        dt = self.limited(target, start, dt, inputs)
        lands, _ = reach(target, start.t, dt)
        return jnp.where(lands, target, start.t + direction_of(inputs) * dt), lands

    def limited(self, target: jax.Array, start: State, dt: jax.Array, inputs: Inputs) -> jax.Array:
        """The size of a step that might be as long as `dt`, which is constant to differentiation."""
        return dt

    def restarted(self, inputs: Inputs, settings: Settings, step: Step, taken: jax.Array, number: Any) -> State:
        """The state after a step, with the stepper's memory made again where f is another one from there on."""
        after = step.after
        if step.restart is None:
            return after
        _, beyond = self.ahead(inputs, after, number + 1)

        def begun_again():
            y = after.y
            if beyond.algebraic:  # its components may jump; they stay if that satisfies no equation
                y, _ = make_consistent(beyond, after.t, y, inputs.args, settings.tolerance)
            memory = self._memory(beyond, after.t, y, inputs.args)
            # t too comes out of the branch: what is written after t is known is written after the branch was read from
            return after._replace(t=jnp.where(taken, after.t, 0), y=y, memory=memory)

        return lax.cond(taken & step.restart, begun_again, lambda: after)

    def polynomial(self, inputs: Inputs, step: StepView, dense: PyTree, wanted: jax.Array) -> jax.Array:
        """The step's interpolant; without `wanted`, zeros where it costs calls of f."""
        _, f = self.ahead(inputs, step.before, step.number)

        def compute():
            return self.stepper.polynomial(f, dense, inputs.args)

        if self.stepper.evaluations[2] == 0:
            return compute()
        room = self.room(inputs)
        return lax.cond(wanted, compute, lambda: vary_like(jnp.zeros(room.shape, room.dtype), inputs.y0))

    def room(self, inputs: Inputs) -> jax.ShapeDtypeStruct:
        """The shape of an interpolant, known without tracing a step."""
        return jax.ShapeDtypeStruct((self.stepper.degree + 1, *inputs.y0.shape), inputs.y0.dtype)

    # ---- the start

    def begin(self, inputs: Inputs) -> State:
        at = State(inputs.t0, inputs.y0, (), nothing_asked(inputs, self.room_for_stops))
        _, f = self.ahead(inputs, at, START)
        return at._replace(memory=self._memory(f, inputs.t0, inputs.y0, inputs.args))

    def _memory(self, f: Any, t: jax.Array, y: jax.Array, args: PyTree) -> PyTree:
        return vary_like(self.stepper.init(f, t, y, args), y)

    def start(self, inputs: Inputs, settings: Settings) -> Carry:
        """The carry before the first trip."""
        start = self.begin(inputs)
        _, f = self.ahead(inputs, start, START)
        controller = settings.controller.init(inputs.t0.dtype)
        held = self.held(inputs, start, controller)
        result = jnp.where(inputs.t0 == inputs.t1, Result.success, Result.running)
        if settings.begins is not None:
            result = jnp.where(settings.begins == Result.running, result, settings.begins)
        control = LoopControl(
            dt=lax.stop_gradient(self._first_step(f, inputs, settings)),
            controller=controller,
            counts=outcome.nothing_yet(self.stepper.work, self.restarts(inputs)),
            result=result.astype(jnp.int32),
            marks=held.marks,
        )
        return Carry(start, held.records, control)

    def held(self, inputs: Inputs, start: State, controller: PyTree) -> Held:
        """What the recorders have before the first step."""
        shapes = Shapes(self.room(inputs), controller)
        return _each_half({name: r.init(inputs, start, shapes) for name, r in self.recorders.items()})

    def _first_step(self, f: Callable, inputs: Inputs, settings: Settings) -> jax.Array:
        if settings.first_step is not None:
            return settings.first_step

        def estimate():
            norm, fixed = settings.controller.norm, lax.stop_gradient(inputs)
            return starting_step(f, fixed, settings.tolerance, self.stepper.order, norm)

        return settings.controller.bound(self.field.first_step(estimate, inputs.t0, inputs.t1))

    # ---- the loop

    def run(self, inputs: Inputs, settings: Settings, carry: Carry | None = None, pause: Any = None) -> Carry:
        """Advance from t0 to t1, or for `pause` more accepted steps. Never raises: the result code says what happened.

        Shapes: see `Inputs`. Units: step sizes are in the unit of t; errors and tolerances in the unit of y.
        Source: Hairer, Nørsett, Wanner, Solving ODEs I, II.4.
        """
        carry = self.start(inputs, settings) if carry is None else carry
        until = None if pause is None else carry.control.counts.steps + pause

        def running(_, control):
            going = control.result == Result.running
            return going if until is None else going & (control.counts.steps < until)

        def trip(moving, control):
            state, records = moving
            return self.trip(inputs, settings, Carry(state, records, control), running(moving, control))

        (state, records), control = frozen_while(running, trip, (carry.state, carry.records), carry.control)
        return Carry(state, records, control)

    def replay(self, inputs: Inputs, settings: Settings, state: State, made: Sizing, span: tuple, held: Held) -> Held:
        """Take again the steps numbered from span[0] up to span[1], the first of them as it was `made`."""
        first, end = span
        counts = outcome.nothing_yet(self.stepper.work, self.restarts(inputs))._replace(steps=first)
        result = jnp.where(first < end, Result.running, Result.success).astype(jnp.int32)
        control = LoopControl(made.dt, made.controller, counts, result, held.marks)
        done = replace(self, watch=None).run(inputs, settings, Carry(state, held.records, control), end - first)
        return Held(done.records, done.control.marks)

    def trip(self, inputs: Inputs, settings: Settings, carry: Carry, live: jax.Array) -> tuple[Any, LoopControl]:
        """One attempt; nothing changes unless `live`."""
        before, control = carry.state, carry.control
        number, target = control.counts.steps, self.ahead(inputs, before, control.counts.steps)[0]
        size = self.limited(target, before, control.dt, inputs)
        lands, left = reach(target, before.t, size)
        used = jnp.where(lands, left, size)

        step = self.advance(inputs, settings, before, control.dt, number)  # attempt
        verdict = lax.stop_gradient(  # judge
            settings.controller.judge(
                before, step, used, control.controller, settings.tolerance, self.stepper.error_order
            )
        )
        taken = live & verdict.accept  # move
        moved = self.restarted(inputs, settings, step, taken, number)
        after = jax.tree.map(lambda new, old: jnp.where(taken, new, old), moved, before)
        estimates = Estimates(step.error, step.spectral_radius)
        made = control.dt, control.controller
        view = StepView(before, moved, step.after.y, None, *made, taken, number, estimates)
        held, dense = self.recorded(inputs, Held(carry.records, control.marks), view, step.dense)  # record

        # a step cut short to land says nothing about the size that the solution allows
        dt = jnp.where(lands & verdict.accept, jnp.maximum(verdict.dt, control.dt), verdict.dt)
        counts = outcome.counted(control.counts, verdict, live, dense, step)
        result = outcome.result(inputs, settings, after.t, dt, counts, verdict, step)
        result = jnp.where(live, result, control.result)
        if self.watch is not None:
            spent = (before.t, outcome.tries(control.counts)), (after.t, outcome.tries(counts))
            result = self.watch(result, inputs, *spent, result != Result.running)
        keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(live, a, b), new, old)
        dt, controller = keep((dt, verdict.memory), made)
        return (after, held.records), LoopControl(dt, controller, counts, result, held.marks)

    def recorded(self, inputs: Inputs, held: Held, step: StepView, dense: PyTree) -> tuple[Held, jax.Array]:
        """Let every recorder see the step; also whether its interpolant was needed."""
        direction, (records, marks) = direction_of(inputs), held
        wanted = jnp.array(False)
        readers = {name: r for name, r in self.recorders.items() if r.reads_interpolant}
        for name, r in readers.items():
            wanted |= step.taken & r.wants(marks[name], inputs, direction, step.after.t)
        if readers:
            step = step._replace(coefficients=self.polynomial(inputs, step, dense, wanted))
        done = {name: r.record(records[name], marks[name], step, inputs) for name, r in self.recorders.items()}
        return _each_half(done), wanted


def _each_half(pairs: dict[str, tuple]) -> Held:
    return Held({name: a for name, (a, _) in pairs.items()}, {name: b for name, (_, b) in pairs.items()})
